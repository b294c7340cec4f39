/*
 * backend: who computes the answers. The endpoints of the server (cloud/api/server_impl.h) know
 * only this: a backend takes jobs (cloud/work/job.h) and reports their events, whether it is the
 * engine thread (cloud/work/worker.h) or servers behind this one.
 *
 * Two ways of asking. A backend with a vocabulary takes token ids: the endpoints tokenise prompts
 * and detokenise answers (job.tokens, job_event.token). One without takes the request as it was
 * asked (job.asked) and answers with text (job_event.text), with ids where it knows them.
 *
 * Threads: all functions belong to the loop thread.
 */
#ifndef PDD_CLOUD_WORK_BACKEND_H
#define PDD_CLOUD_WORK_BACKEND_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "cloud/work/job.h"
#include "cloud/work/worker.h"
#include "engine/engine.h"

struct backend;

/* What a kind of backend implements; the functions below say what each is for. */
struct backend_ops {
    int (*submit)(struct backend *b, struct job *job, struct err *e);
    void (*wish)(struct backend *b, struct job *job); /* NULL: it looks by itself */
    struct job_event *(*take_event)(struct backend *b);
    const struct engine_info *(*info)(const struct backend *b);
    const struct vocab *(*vocab)(const struct backend *b);
    const struct chat_template *(*chat_template)(const struct backend *b);
    uint32_t (*positions_max)(const struct backend *b);
    const char *(*not_ready)(struct backend *b);
    void (*stats)(struct backend *b, struct worker_stats *ret_stats);
    int (*metrics)(const struct backend *b, struct buf *out); /* NULL: none of its own */
    void (*free)(struct backend *b);
};

struct backend {
    const struct backend_ops *ops;
};

/* The engine thread as a backend. Takes the engine on success. */
int backend_worker_new(struct engine *engine, const struct worker_config *config,
                       struct backend **ret_backend, struct err *e);
struct worker *backend_worker(struct backend *b); /* NULL: another kind */
void backend_free(struct backend *b); /* jobs in work stay the loop's, to free; NULL is fine */

/* ERR_BUSY: all slots are taken, or all of the key's. Events come later, never from inside. */
int backend_submit(struct backend *b, struct job *job, struct err *e);
/* A job's wishes (job.h) have changed. */
void backend_wish(struct backend *b, struct job *job);
/* NULL: none; free with mem_free. Asked after every wake-up (worker_config.wake). */
struct job_event *backend_take_event(struct backend *b);

/* What is served. Hashes are "" and numbers 0 while they are not known; only a backend whose
 * servers come and go changes its mind. */
const struct engine_info *backend_info(const struct backend *b);
const struct vocab *backend_vocab(const struct backend *b); /* NULL: ask as you were asked */
const struct chat_template *backend_template(const struct backend *b); /* NULL: none */
/* Tokens of prompt and answer that one job may have; UINT32_MAX: not known. */
uint32_t backend_positions_max(const struct backend *b);
/* NULL, or a word that says why new jobs would be refused ("busy"). */
const char *backend_not_ready(struct backend *b);
void backend_stats_of(struct backend *b, struct worker_stats *ret_stats);
/* Lines of its own for /metrics. */
int backend_metrics(const struct backend *b, struct buf *out);

#endif
