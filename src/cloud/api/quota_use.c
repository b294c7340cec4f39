/*
 * quota_use: what a request costs its key (policy/quota): one request when its head has come,
 * whatever becomes of it; its prompt's tokens when it is taken, answer tokens as they come.
 * Returned is what was not computed: cached prompt tokens, and what is left of a prompt when the
 * request ends in its middle. See server_impl.h.
 */
#include "base/clock.h"
#include "cloud/api/server_impl.h"

enum { US_PER_S = 1000000 };

static int refuse(struct quota_refusal *refusal, enum quota_verdict verdict, uint64_t wait_us,
                  const struct key *key, struct err *e)
{
    const struct quota_limits *l = &key->line.limits;
    refusal->never = verdict == QUOTA_NEVER;
    refusal->code = verdict == QUOTA_NEVER ? "insufficient_quota" : "rate_limit_exceeded";
    refusal->retry_s = (uint32_t)((wait_us + US_PER_S - 1) / US_PER_S);
    switch (verdict) {
    case QUOTA_NEVER:
        return err_set(e, ERR_BUSY,
                       "the prompt has more tokens than this key's %u a minute: shorten it, or ask "
                       "for a larger quota",
                       l->tokens_per_minute);
    case QUOTA_STREAMS:
        return err_set(e, ERR_BUSY,
                       "all of this key's %u requests at once are running; try again later",
                       l->streams_max);
    case QUOTA_REQUESTS:
        return err_set(e, ERR_BUSY,
                       "this key's %u requests a minute are used up; try again in %u s",
                       l->requests_per_minute, refusal->retry_s);
    default:
        return err_set(e, ERR_BUSY, "this key's %u tokens a minute are used up; try again in %u s",
                       l->tokens_per_minute, refusal->retry_s);
    }
}

bool quota_use_request(struct request_ctx *c)
{
    struct err e = ERR_INIT;
    struct key *key = c->key;
    uint64_t wait_us;
    if (!key) return true;
    enum quota_verdict verdict = quota_take_request(&key->quota, clock_us(), &wait_us);
    if (verdict == QUOTA_OK) return true;
    refuse(&c->quota, verdict, wait_us, key, &e);
    request_refuse(c, &e, NULL);
    return false;
}

static uint32_t streams_of(const struct exchange *x)
{
    return x->streams ? x->streams : 1;
}

/* Give n streams back, and what the prompt has cost. */
static void undo(struct exchange *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        quota_undo(&x->key->quota, clock_us(), i ? 0 : x->quota_tokens);
}

/* All of its streams, or none. */
static enum quota_verdict enter(struct exchange *x, uint64_t *ret_wait_us)
{
    enum quota_verdict verdict = QUOTA_OK;
    uint32_t n = 0;
    for (; n < streams_of(x) && verdict == QUOTA_OK; n++)
        verdict = quota_enter(&x->key->quota, clock_us(), n ? 0 : x->quota_tokens, ret_wait_us);
    if (verdict != QUOTA_OK) undo(x, n - 1);
    return verdict;
}

int quota_use_begin(struct exchange *x, struct quota_refusal *refusal, struct err *e)
{
    struct key *key = x->key;
    uint64_t wait_us;
    if (!key) return 0;
    x->job->tenant = key->tenant;
    x->job->priority = key->line.priority;
    x->quota_tokens = x->shares_prompt ? 0 : x->job->n_tokens;
    enum quota_verdict verdict = enter(x, &wait_us);
    if (verdict == QUOTA_OK) return 0;
    x->key = NULL; /* nothing was taken that quota_use_undo could return */
    return refuse(refusal, verdict, wait_us, key, e);
}

void quota_use_undo(struct exchange *x)
{
    if (x->key) undo(x, streams_of(x));
    x->key = NULL;
}

static void return_tokens(struct exchange *x, uint32_t n)
{
    if (n > x->quota_tokens) n = x->quota_tokens;
    x->quota_tokens -= n;
    quota_return(&x->key->quota, clock_us(), n);
}

void quota_use_more(struct exchange *x, uint32_t n)
{
    if (x->key) quota_spend(&x->key->quota, clock_us(), n);
}

void quota_use_event(struct exchange *x, const struct job_event *ev)
{
    if (!x->key) return;
    switch (ev->kind) {
    case JOB_ADMITTED:
        if (!x->job->tokens) { /* only the backend knows the length of the prompt */
            x->quota_tokens = ev->prompt_tokens;
            quota_spend(&x->key->quota, clock_us(), x->quota_tokens);
        }
        if (ev->cached) return_tokens(x, ev->cached);
        x->unfed = x->quota_tokens;
        break;
    case JOB_PROGRESS:
    case JOB_REFINED:
        x->unfed = ev->total - ev->done;
        break;
    case JOB_THOUGHT: /* it costs as much as it would in the answer */
    case JOB_TOKEN:
        x->unfed = 0;
        quota_spend(&x->key->quota, clock_us(), 1);
        break;
    case JOB_CHUNK:
        x->unfed = 0;
        quota_spend(&x->key->quota, clock_us(), ev->produced);
        break;
    case JOB_DONE:
        return_tokens(x, x->admitted ? x->unfed : x->quota_tokens);
        for (uint32_t i = 0; i < streams_of(x); i++)
            quota_leave(&x->key->quota);
        x->key = NULL;
        break;
    }
}
