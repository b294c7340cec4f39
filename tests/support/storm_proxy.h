/*
 * storm_proxy: a TCP proxy that wrecks what the server sends, at bytes that a seed chooses. It
 * knows nothing of HTTP or TLS. A thread of its own; what the client sends passes unharmed.
 *
 * Each connection draws one fault or none, and the byte of the server's stream at which it strikes.
 * Bytes pass in small pieces with small pauses, so that both ends work while a stream is under way.
 */
#ifndef PDD_TESTS_STORM_PROXY_H
#define PDD_TESTS_STORM_PROXY_H

#include <stdbool.h>
#include <stdint.h>

enum storm_fault {
    STORM_CUT,     /* both sides are closed */
    STORM_RESET,   /* closed with RST */
    STORM_STALL,   /* nothing passes any more, or (`stall_ms`) for so long */
    STORM_GARBAGE, /* up to 64 bytes that nobody sent; the first is none of UTF-8 */
    STORM_REPEAT,  /* up to 300 bytes come twice */
    STORM_DELAY,   /* nothing passes for 50 to 600 ms */
    STORM_FAULTS
};

extern const char *const storm_fault_names[STORM_FAULTS];

struct storm_plan {
    uint64_t seed;
    uint16_t to_port;  /* on 127.0.0.1 */
    uint32_t fault_of; /* of 16 connections, so many get a fault */
    uint32_t bytes;    /* it strikes at one of so many */
    uint32_t stall_ms; /* 0: a stall never ends */
};

struct storm_proxy;

/* Aborts where the system gives no socket or thread: there is no test then. */
struct storm_proxy *storm_proxy_start(const struct storm_plan *plan);
uint16_t storm_proxy_port(const struct storm_proxy *p);
/* Adds the faults that struck to `struck`. */
void storm_proxy_stop(struct storm_proxy *p, uint32_t struck[STORM_FAULTS]);

#endif
