/* worker_step: what goes into a step of the engine, and what comes out of it. */
#include "base/check.h"
#include "base/clock.h"
#include "cloud/work/worker_impl.h"
#include "model/text/vocab.h"

static bool prefills(const struct running *r)
{
    return r->fed < r->job->n_tokens;
}

/* Spans of the next step; 0 when there is nothing to do. */
static uint32_t plan(struct worker *w)
{
    struct sched_limits limits = {.step_tokens = w->c.step_tokens,
                                  .spans = engine_info(w->engine)->spans_max};
    uint32_t decodes = 0, n = 0;
    w->prefill_left = 0;
    for (uint32_t i = 0; i < w->n_running; i++) {
        const struct running *r = &w->running[i];
        w->items[i] = (struct sched_item){.waiting = r->job->n_tokens - r->fed,
                                          .tenant = worker_tenant(r->job),
                                          .priority = r->job->priority,
                                          .arrived = r->arrived,
                                          .served = r->served};
        w->prefill_left += w->items[i].waiting;
        decodes += w->items[i].waiting == 0;
    }
    stepcost_limit(&w->cost, decodes, (double)w->c.step_us, w->c.prefill_beside, &limits);
    sched_step(w->sched, w->items, w->n_running, &limits);
    for (uint32_t i = 0; i < w->n_running; i++) {
        struct running *r = &w->running[i];
        uint32_t given = w->items[i].given;
        if (given == 0) continue;
        bool prefill = prefills(r);
        if (prefill) {
            worker_catch_up(w, r);
            if (given > r->job->n_tokens - r->fed) given = r->job->n_tokens - r->fed;
        }
        w->span_of[n] = i;
        w->spans[n++] =
            (struct engine_span){.session = r->history.session,
                                 .tokens = prefill ? r->job->tokens + r->fed : &r->next,
                                 .n = given,
                                 .sample = !prefill || r->fed + given == r->job->n_tokens};
    }
    return n;
}

/* Pages were set aside for these spans when their jobs began; the cache may hold them still. */
static void free_pages(struct worker *w, uint32_t n)
{
    uint32_t needed = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t len = session_len(w->spans[k].session);
        needed += admit_pages(len + w->spans[k].n) - admit_pages(len);
    }
    while (engine_kv_pages_free(w->engine) < needed && prefix_evict(w->prefix)) {
    }
}

/* What became of one span. Returns false when the job is over. */
static bool take_result(struct worker *w, struct running *r, const struct engine_span *span,
                        enum wire_reason *ret_reason)
{
    if (prefills(r)) {
        r->fed += span->n;
        CHECK(r->fed <= r->job->n_tokens && r->fed == session_len(r->history.session));
        w->own.prefill_tokens += span->n;
        worker_send(
            w, (struct job_event){
                   .kind = JOB_PROGRESS, .job = r->job, .done = r->fed, .total = r->job->n_tokens});
    } else {
        CHECK(session_len(r->history.session) == r->job->n_tokens + r->produced);
        w->own.decode_tokens++;
    }
    worker_note_growth(w, r);
    if (!span->sample) return true;
    worker_release_choices(w, r->job);
    worker_refine(w, r);
    *ret_reason = WIRE_STOP;
    if (vocab_is_end(w->b.vocab, span->next)) return false;
    r->next = span->next;
    if (r->job->logprobs)
        job_note_logprobs(r->job, r->produced, (struct job_logprob){span->next, span->next_logprob},
                          session_logits(r->history.session), engine_info(w->engine)->vocab_size);
    worker_send(w, (struct job_event){.kind = JOB_TOKEN,
                                      .job = r->job,
                                      .index = r->job->n_have + r->produced,
                                      .token = span->next});
    r->produced++;
    *ret_reason = WIRE_LENGTH;
    if (r->job->n_tokens + r->produced >= w->b.positions_max) return false;
    *ret_reason = WIRE_BUDGET;
    return r->produced < r->granted && r->produced < atomic_load(&r->job->tokens_max);
}

static void note_step(struct worker *w, uint32_t n, uint64_t us)
{
    uint32_t decodes = 0, prompts = 0;
    for (uint32_t k = 0; k < n; k++) {
        if (prefills(&w->running[w->span_of[k]]))
            prompts += w->spans[k].n;
        else
            decodes++;
    }
    stepcost_note(&w->cost, decodes, prompts, (double)us);
    double tps = w->cost.prefill_us > 0.0 ? 1e6 / w->cost.prefill_us : 0.0;
    w->own.prefill_tps = tps < (double)UINT32_MAX ? (uint32_t)tps : UINT32_MAX;
    w->own.steps++;
    w->own.step_us += us;
    w->own.spans += n;
}

void worker_step(struct worker *w)
{
    uint32_t n = plan(w);
    struct err e = ERR_INIT;
    if (n == 0) return;
    free_pages(w, n);
    uint64_t begin = clock_us();
    int code = engine_step(w->engine, w->spans, n, &e);
    if (code) { /* the engine refused the whole step: the jobs in it cannot go on */
        w->own.steps++;
        for (uint32_t k = n; k-- > 0;)
            worker_end(w, w->span_of[k], WIRE_CANCEL, &e);
        return;
    }
    note_step(w, n, clock_us() - begin);
    for (uint32_t k = n; k-- > 0;) { /* downwards: worker_end moves the last one into the gap */
        struct running *r = &w->running[w->span_of[k]];
        enum wire_reason reason = WIRE_STOP;
        r->served = w->own.steps;
        if (!take_result(w, r, &w->spans[k], &reason)) worker_end(w, w->span_of[k], reason, NULL);
    }
}
