/*
 * quota: limits of one tenant: requests and tokens a minute (token buckets) and streams at once.
 * Pure: time is an argument, in microseconds of any monotonic clock.
 *
 * A bucket holds at most one minute's rate and fills evenly. An arriving request takes one of
 * `requests`, whatever becomes of it, so that refused ones are limited too; if that bucket is empty
 * it takes nothing. To run, a request takes its prompt's tokens and a stream, and needs both.
 * Answer tokens are taken as they are produced, from an empty bucket too: a running answer is never
 * cut off, and the next request waits until the debt is paid. So in t minutes at most rate * (t +
 * 1) + (what running streams still produced) tokens are used. Arithmetic is in whole units of
 * 1/60,000,000 of a token: nothing is lost by rounding.
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
    uint64_t filled_us;  /* time of level */
};

struct quota {
    struct quota_bucket requests, tokens;
    uint32_t streams_max, streams;
};

enum quota_verdict {
    QUOTA_OK,
    QUOTA_REQUESTS, /* too many requests lately */
    QUOTA_TOKENS,   /* too many tokens lately */
    QUOTA_STREAMS,  /* too many at once */
    QUOTA_NEVER     /* the prompt has more tokens than a full bucket: waiting cannot help */
};

void quota_init(struct quota *q, const struct quota_limits *limits, uint64_t now_us); /* full */
/* Change the limits: streams continue, debts stay, a bucket above its new size is cut. */
void quota_change(struct quota *q, const struct quota_limits *limits, uint64_t now_us);

/* A request has arrived: QUOTA_OK takes one. QUOTA_REQUESTS: none is left, nothing is taken, and
 * *ret_wait_us is the time until there is one. */
enum quota_verdict quota_take_request(struct quota *q, uint64_t now_us, uint64_t *ret_wait_us);

/* Admit a request of `tokens` prompt tokens: takes them and one stream. Otherwise takes nothing,
 * and *ret_wait_us is the time until the same would be admitted if nothing else is taken (0 for
 * STREAMS, whose end is not known, and for NEVER). */
enum quota_verdict quota_enter(struct quota *q, uint64_t now_us, uint32_t tokens,
                               uint64_t *ret_wait_us);
void quota_spend(struct quota *q, uint64_t now_us, uint32_t tokens);
/* Give back tokens that were taken and not used. */
void quota_return(struct quota *q, uint64_t now_us, uint32_t tokens);
void quota_leave(struct quota *q); /* a stream has ended */
/* Undo quota_enter: the request was refused for another reason. The request that
 * quota_take_request took is not given back. */
void quota_undo(struct quota *q, uint64_t now_us, uint32_t tokens);

#endif
