/*
 * route: which of several equal servers gets a request, and when a server counts as up. Pure: time
 * is an argument, nothing is random.
 *
 * A prompt's beginning decides, so that prefix caches are hit (rendezvous hashing: a server that
 * comes or goes moves only its own prompts). If that server has markedly more outstanding requests
 * than the least busy one, the least busy one gets the request.
 */
#ifndef PDD_POLICY_ROUTE_H
#define PDD_POLICY_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ROUTE_SERVERS_MAX = 64,
    ROUTE_SLACK = 4,         /* this many requests above the least busy are fine, */
    ROUTE_SLACK_PERCENT = 25 /* and this part of the least busy one's */
};
#define ROUTE_PROBE_US 5000000ull      /* between two probes of a server */
#define ROUTE_RETRY_US 1000000ull      /* the same after its first failure; doubles up to */
#define ROUTE_RETRY_MAX_US 30000000ull /* this */

struct route_server {
    uint64_t name; /* fnv_bytes (base/hash.h) of its URL */
    uint32_t outstanding, outstanding_max;
    bool up;
    uint32_t failures;   /* in a row */
    uint64_t rest_until; /* it said that it is busy: chosen only if all others are worse */
};

/* Index of the server, or -1: none is up and has room. `skip`: bit i excludes server i. */
int route_choose(const struct route_server *servers, uint32_t n, uint64_t prompt, uint64_t skip,
                 uint64_t now);

/* The outcome of a probe or a request; the latter two return when to probe next. */
void route_busy(struct route_server *s, uint64_t now, uint32_t retry_after_s);
uint64_t route_failed(struct route_server *s, uint64_t now);
uint64_t route_answered(struct route_server *s, uint64_t now);

#endif
