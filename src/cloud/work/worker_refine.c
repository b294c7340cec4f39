/*
 * worker_refine: refinement of a running job's prompt. The engine gathers scores while it prefills;
 * the first version goes out with the last token of the prompt, the second after REFINE_TOKENS
 * tokens of the answer. What is refused from the text is said at once, and costs no scores.
 */
#include "base/check.h"
#include "base/clock.h"
#include "cloud/work/worker_impl.h"

static void send(struct worker *w, const struct running *r, const struct refined *v)
{
    if (v->version == 1) {
        w->own.refine_refused += v->choice.refusal != KEEP_OK;
        w->own.refined += v->choice.refusal == KEEP_OK;
    }
    if (v->final && v->choice.refusal == KEEP_OK) {
        w->own.refined_tokens += r->job->refine->n;
        w->own.refined_kept += v->choice.tokens;
    }
    worker_send(w, (struct job_event){.kind = JOB_REFINED, .job = r->job, .refined = v});
}

int worker_refine_begin(struct worker *w, struct running *r, struct err *e)
{
    struct refine *f = r->job->refine;
    r->feed_first = r->job->n_tokens;
    if (!f) return 0;
    if (f->refusal == KEEP_OK && w->c.unfit) f->refusal = KEEP_UNFIT;
    if (f->refusal != KEEP_OK) return 0;
    const uint32_t from = engine_score_from(f->question, f->n);
    int code = session_score(r->history.session, from, f->n, e);
    if (code) return code;
    r->refining = true;
    r->feed_first = from + 1;
    return 0;
}

void worker_refine_admitted(struct worker *w, struct running *r)
{
    struct refine *f = r->job->refine;
    if (f && f->refusal != KEEP_OK) send(w, r, refine_refuse(f, f->refusal));
}

void worker_refine(struct worker *w, struct running *r)
{
    struct refine *f = r->job->refine;
    struct err ignored;
    if (!r->refining) return;
    const bool first = f->made == 0;
    if (!first && r->produced < REFINE_TOKENS) return;
    const float *scores = session_scores(r->history.session);
    CHECK(scores);
    uint64_t begin = clock_us();
    const struct refined *v = refine_choose(f, scores, !first || r->granted <= REFINE_TOKENS);
    w->own.refine_us += clock_us() - begin;
    send(w, r, v);
    if (!v->final) return;
    r->refining = false;
    (void)session_score(r->history.session, 0, 0, &ignored);
}
