/*
 * local: the engine thread of a device. It owns an engine and one session whose KV cache is kept
 * from turn to turn, and does one job at a time: forget what follows position `from`, append
 * tokens chunk by chunk, sample the next one.
 *
 * A cancelled job ends after the step that runs; nothing is heard of it any more. Chunks are sized
 * by measurement to about LOCAL_CHUNK_US, so that progress is fresh and a cancel quick, whatever
 * the engine's speed.
 *
 * Threads: all functions belong to one owner (the loop thread), but local_free, which may be
 * called by who has joined it. Results are announced through `wake` and fetched by local_take.
 */
#ifndef PDD_DEVICE_LOCAL_H
#define PDD_DEVICE_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "engine/engine.h"

enum {
    LOCAL_CHUNK_US = 100000, /* what a prefill step should take */
    LOCAL_CHUNK_MIN = 16,    /* tokens */
    LOCAL_CHUNK_FIRST = 64
};

struct local;

enum local_event_kind {
    LOCAL_PROGRESS, /* kv */
    LOCAL_TOKEN,    /* kv, id, is_end: the job is complete */
    LOCAL_FULL,     /* the context is full: the job ended early */
    LOCAL_FAILED    /* why */
};

struct local_event {
    enum local_event_kind kind;
    uint32_t kv; /* positions in the KV cache */
    int32_t id;
    bool is_end;
    struct err why;
};

/* Takes ownership of `engine`, on success only. wake(arg) is called in the engine's thread. */
int local_new(struct engine *engine, void (*wake)(void *arg), void *arg, struct local **ret_local,
              struct err *e);
void local_free(struct local *w); /* waits for the step that runs; frees the engine; NULL: fine */

/* How many of tokens[n] the KV cache holds from its start. Waits for a cancelled job's last step.
 */
uint32_t local_prefix(struct local *w, const int32_t *tokens, uint32_t n);
/* Post a job; the one before must be complete or cancelled. tokens [n >= 1] are copied; `from` at
 * most what the KV cache holds. */
int local_feed(struct local *w, uint32_t from, const int32_t *tokens, uint32_t n,
               const struct sampling *sampling, struct err *e);
void local_cancel(struct local *w);
bool local_take(struct local *w, struct local_event *ret_event);

/* Measure an engine that no thread has yet: one prefill of a chunk and a few single steps. */
int local_measure(struct engine *engine, double *ret_prefill_tps, double *ret_decode_us,
                  struct err *e);

#endif
