/* backend: the calls of backend.h. */
#include "cloud/work/backend.h"

void backend_free(struct backend *b)
{
    if (b) b->ops->free(b);
}

int backend_submit(struct backend *b, struct job *job, struct err *e)
{
    return b->ops->submit(b, job, e);
}

void backend_changed(struct backend *b, struct job *job)
{
    if (b->ops->changed) b->ops->changed(b, job);
}

bool backend_take_event(struct backend *b, struct job_event *ret_event)
{
    return b->ops->take_event(b, ret_event);
}

const char *backend_not_ready(struct backend *b)
{
    return b->ops->not_ready(b);
}

void backend_stats_of(struct backend *b, struct backend_stats *ret_stats)
{
    b->ops->stats(b, ret_stats);
}

int backend_metrics(const struct backend *b, struct buf *out)
{
    return b->ops->metrics ? b->ops->metrics(b, out) : 0;
}
