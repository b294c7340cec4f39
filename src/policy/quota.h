/*
 * quota: what one tenant may have: requests and tokens a minute (token buckets) and streams at one
 * time. Pure: time comes in as an argument, in microseconds of any monotonic clock.
 *
 * A bucket holds at most one minute's worth and fills evenly. A request takes one of `requests`
 * when it arrives, whatever becomes of it, so that refused ones are limited too; one that finds
 * that bucket empty takes nothing. To run it takes its prompt's tokens and a stream, and is
 * admitted only when both are there. Answer tokens are taken as they are produced, also from an
 * empty bucket: what runs is never cut off, and the debt is paid before the next request is
 * admitted. So in any time t (minutes) at most rate * (t + 1) + (what the streams that ran then
 * still produced) tokens are used. Arithmetic is in whole units of 1/60,000,000 of a token: nothing
 * is lost by rounding.
 */
#ifndef PDD_POLICY_QUOTA_H
#define PDD_POLICY_QUOTA_H

#include <stdint.h>

enum { QUOTA_RATE_MAX = 1000000000 }; /* a minute */

struct quota_limits {
    uint32_t requests_per_minute, tokens_per_minute, streams_max; /* 0: no limit */
};

struct quota_bucket {
    uint32_t per_minute; /* 0: no limit */
    int64_t level;       /* in units; negative: a debt */
    uint64_t filled_us;  /* when level was true */
};

struct quota {
    struct quota_bucket requests, tokens;
    uint32_t streams_max, streams;
};

enum quota_verdict {
    QUOTA_OK,
    QUOTA_REQUESTS, /* too many requests lately */
    QUOTA_TOKENS,   /* too many tokens lately */
    QUOTA_STREAMS,  /* too many at one time */
    QUOTA_NEVER     /* the prompt has more tokens than a full bucket: waiting would not help */
};

void quota_init(struct quota *q, const struct quota_limits *limits, uint64_t now_us); /* full */
/* Other limits from now on: streams go on, debts stay, and a fuller bucket than allowed is cut. */
void quota_change(struct quota *q, const struct quota_limits *limits, uint64_t now_us);

/* A request has arrived: QUOTA_OK takes one. QUOTA_REQUESTS: none is left, nothing is taken, and
 * *ret_wait_us says when there will be one. */
enum quota_verdict quota_take_request(struct quota *q, uint64_t now_us, uint64_t *ret_wait_us);

/* Admit a request of `tokens` prompt tokens: takes them and one stream. Otherwise takes nothing,
 * and *ret_wait_us says when the same would be admitted if nobody else took anything (0 for
 * STREAMS, whose end nobody knows, and for NEVER). */
enum quota_verdict quota_enter(struct quota *q, uint64_t now_us, uint32_t tokens,
                               uint64_t *ret_wait_us);
void quota_spend(struct quota *q, uint64_t now_us, uint32_t tokens);
/* Give back tokens that were taken and not used. */
void quota_return(struct quota *q, uint64_t now_us, uint32_t tokens);
void quota_leave(struct quota *q); /* a stream has ended */
/* As if quota_enter had not been: the request was refused for another reason. The request that
 * quota_take_request took is not given back. */
void quota_undo(struct quota *q, uint64_t now_us, uint32_t tokens);

#endif
