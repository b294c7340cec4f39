/* quota: see quota.h. */
#include "policy/quota.h"

#include <stdbool.h>

#include "base/check.h"

#define MINUTE_US 60000000 /* also the units of a token */

static int64_t units(uint32_t tokens)
{
    return (int64_t)tokens * MINUTE_US;
}

/* In one microsecond a bucket of `per_minute` gets as many units. */
static void fill(struct quota_bucket *b, uint64_t now_us)
{
    uint64_t passed = now_us > b->filled_us ? now_us - b->filled_us : 0;
    int64_t full = units(b->per_minute);
    b->filled_us = now_us > b->filled_us ? now_us : b->filled_us;
    if (b->per_minute == 0) return;
    int64_t missing = full - b->level;
    bool whole = passed >= (uint64_t)missing / b->per_minute + 1;
    b->level = whole ? full : b->level + (int64_t)passed * b->per_minute;
    if (b->level > full) b->level = full;
}

static void add(struct quota_bucket *b, uint64_t now_us, int64_t more)
{
    if (b->per_minute == 0) return;
    fill(b, now_us);
    int64_t full = units(b->per_minute), debt_max = -((int64_t)1 << 62);
    if (more < 0 && b->level < debt_max - more) return; /* more than a century of debt */
    b->level = b->level > full - more && more > 0 ? full : b->level + more;
}

static void set_rate(struct quota_bucket *b, uint32_t per_minute, uint64_t now_us)
{
    CHECK(per_minute <= QUOTA_RATE_MAX);
    bool was_free = b->per_minute == 0;
    fill(b, now_us);
    b->per_minute = per_minute;
    if (was_free || b->level > units(per_minute)) b->level = units(per_minute);
}

void quota_init(struct quota *q, const struct quota_limits *limits, uint64_t now_us)
{
    *q = (struct quota){.streams = 0};
    quota_change(q, limits, now_us);
}

void quota_change(struct quota *q, const struct quota_limits *limits, uint64_t now_us)
{
    set_rate(&q->requests, limits->requests_per_minute, now_us);
    set_rate(&q->tokens, limits->tokens_per_minute, now_us);
    q->streams_max = limits->streams_max;
}

/* Until the bucket holds `want`; 0: it does. */
static uint64_t wait_for(const struct quota_bucket *b, int64_t want)
{
    if (b->per_minute == 0 || b->level >= want) return 0;
    uint64_t missing = (uint64_t)(want - b->level);
    return (missing + b->per_minute - 1) / b->per_minute;
}

enum quota_verdict quota_take_request(struct quota *q, uint64_t now_us, uint64_t *ret_wait_us)
{
    fill(&q->requests, now_us);
    *ret_wait_us = wait_for(&q->requests, units(1));
    if (*ret_wait_us > 0) return QUOTA_REQUESTS;
    add(&q->requests, now_us, -units(1));
    return QUOTA_OK;
}

enum quota_verdict quota_enter(struct quota *q, uint64_t now_us, uint32_t tokens,
                               uint64_t *ret_wait_us)
{
    fill(&q->tokens, now_us);
    *ret_wait_us = 0;
    if (q->tokens.per_minute > 0 && tokens > q->tokens.per_minute) return QUOTA_NEVER;
    if (q->streams_max > 0 && q->streams >= q->streams_max) return QUOTA_STREAMS;
    *ret_wait_us = wait_for(&q->tokens, units(tokens));
    if (*ret_wait_us > 0) return QUOTA_TOKENS;
    add(&q->tokens, now_us, -units(tokens));
    q->streams++;
    return QUOTA_OK;
}

void quota_spend(struct quota *q, uint64_t now_us, uint32_t tokens)
{
    add(&q->tokens, now_us, -units(tokens));
}

void quota_return(struct quota *q, uint64_t now_us, uint32_t tokens)
{
    add(&q->tokens, now_us, units(tokens));
}

void quota_leave(struct quota *q)
{
    CHECK(q->streams > 0);
    q->streams--;
}

void quota_undo(struct quota *q, uint64_t now_us, uint32_t tokens)
{
    quota_return(q, now_us, tokens);
    quota_leave(q);
}
