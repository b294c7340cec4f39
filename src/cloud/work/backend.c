/* backend: the calls of backend.h, and the engine thread as one kind of it. */
#include "cloud/work/backend.h"

#include "base/mem.h"

void backend_free(struct backend *b)
{
    if (b) b->ops->free(b);
}

int backend_submit(struct backend *b, struct job *job, struct err *e)
{
    return b->ops->submit(b, job, e);
}

void backend_wish(struct backend *b, struct job *job)
{
    if (b->ops->wish) b->ops->wish(b, job);
}

struct job_event *backend_take_event(struct backend *b)
{
    return b->ops->take_event(b);
}

const struct engine_info *backend_info(const struct backend *b)
{
    return b->ops->info(b);
}

const struct vocab *backend_vocab(const struct backend *b)
{
    return b->ops->vocab(b);
}

const struct chat_template *backend_template(const struct backend *b)
{
    return b->ops->chat_template(b);
}

uint32_t backend_positions_max(const struct backend *b)
{
    return b->ops->positions_max(b);
}

const char *backend_not_ready(struct backend *b)
{
    return b->ops->not_ready(b);
}

void backend_stats_of(struct backend *b, struct worker_stats *ret_stats)
{
    b->ops->stats(b, ret_stats);
}

int backend_metrics(const struct backend *b, struct buf *out)
{
    return b->ops->metrics ? b->ops->metrics(b, out) : 0;
}

/* ---- the engine thread ---- */

struct worker_backend {
    struct backend b; /* first */
    struct worker *worker;
};

static struct worker *worker_of(const struct backend *b)
{
    return ((const struct worker_backend *)b)->worker;
}

static int submit(struct backend *b, struct job *job, struct err *e)
{
    return worker_submit(worker_of(b), job, e);
}

static struct job_event *take_event(struct backend *b)
{
    return worker_take_event(worker_of(b));
}

static const struct engine_info *info(const struct backend *b)
{
    return worker_engine_info(worker_of(b));
}

static const struct vocab *vocab(const struct backend *b)
{
    return worker_vocab(worker_of(b));
}

static const struct chat_template *chat_template(const struct backend *b)
{
    return worker_template(worker_of(b));
}

static uint32_t positions_max(const struct backend *b)
{
    return worker_positions_max(worker_of(b));
}

static const char *not_ready(struct backend *b)
{
    return worker_full(worker_of(b)) ? "busy" : NULL;
}

static void stats_of(struct backend *b, struct worker_stats *ret_stats)
{
    worker_stats_of(worker_of(b), ret_stats);
}

static void release(struct backend *b)
{
    worker_free(worker_of(b));
    mem_free(b);
}

static const struct backend_ops worker_ops = {.submit = submit,
                                              .take_event = take_event,
                                              .info = info,
                                              .vocab = vocab,
                                              .chat_template = chat_template,
                                              .positions_max = positions_max,
                                              .not_ready = not_ready,
                                              .stats = stats_of,
                                              .free = release};

int backend_worker_new(struct engine *engine, const struct worker_config *config,
                       struct backend **ret_backend, struct err *e)
{
    struct worker_backend *w = mem_calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_NO_MEMORY, "no memory for the engine thread");
    w->b.ops = &worker_ops;
    int code = worker_new(engine, config, &w->worker, e);
    if (code) {
        mem_free(w);
        return code;
    }
    *ret_backend = &w->b;
    return 0;
}

struct worker *backend_worker(struct backend *b)
{
    return b->ops == &worker_ops ? worker_of(b) : NULL;
}
