/*
 * relay: a TCP proxy that behaves like a mobile link: delay, rate, recorded round trips, cuts.
 *
 * Bytes keep their order. Each direction delays by half the round trip and passes at most `rate`; a
 * new connection first waits one round trip, as its handshake would. Buffers are bounded: a side
 * that does not read makes the other wait. A half-close travels like data.
 * Threads: the loop only.
 */
#ifndef PDD_LAB_RELAY_H
#define PDD_LAB_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/rtt_trace.h"
#include "net/loop.h"

enum relay_cut { RELAY_RESET, RELAY_CLOSE, RELAY_STALL };

enum { RELAY_BUFFER_MAX = 1 << 20, RELAY_CONNECTIONS_MAX = 4096 };

struct relay_config {
    const char *listen_host;
    uint16_t listen_port; /* 0: a free one */
    const char *to_host;  /* numeric */
    uint16_t to_port;
    double rtt_ms;
    struct rtt_trace trace; /* n > 0: instead of rtt_ms; must outlive the relay */
    double rate_kbit;       /* per direction and connection; 0: unlimited */
    /* Cuts, per connection; 0: none. Bytes and events of the answer direction. */
    uint64_t cut_bytes;
    uint32_t cut_events; /* after the n-th server-sent event has been passed on */
    double cut_at_s;     /* all connections, once, that long after the start */
    uint32_t cut_times;  /* only this many connections, those that reach the cut first; 0: all */
    enum relay_cut how;
};

struct relay;

int relay_new(struct loop *l, const struct relay_config *config, struct relay **ret_relay,
              struct err *e);
void relay_free(struct relay *r);
uint16_t relay_port(const struct relay *r);
uint32_t relay_accepted(const struct relay *r); /* connections so far */

#endif
