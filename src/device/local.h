/*
 * local: the engine thread of a device. It owns an engine and one session whose KV cache is kept
 * from turn to turn, and does one job at a time: drop what follows position `from`, append
 * tokens chunk by chunk, sample the next one.
 *
 * A cancelled job ends after the current step, without further events. Chunks are sized by
 * measurement to about LOCAL_CHUNK_US, so that progress and cancelling stay quick at any speed of
 * the engine.
 *
 * Threads: all functions belong to one owner (the loop thread); call local_free there or after
 * joining it. Results are announced through `wake` and fetched by local_take.
 */
#ifndef PDD_DEVICE_LOCAL_H
#define PDD_DEVICE_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "engine/engine.h"

enum {
    LOCAL_CHUNK_US = 100000, /* target time of a prefill step */
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
void local_free(struct local *w); /* waits for the current step; frees the engine; NULL is fine */

/* How many of tokens[n] the KV cache holds from its start. Waits for a cancelled job's last step.
 */
uint32_t local_prefix(struct local *w, const int32_t *tokens, uint32_t n);
/* Post a job; the previous one must be complete or cancelled. tokens [n >= 1] are copied; `from` is
 * at most what the KV cache holds. */
int local_feed(struct local *w, uint32_t from, const int32_t *tokens, uint32_t n,
               const struct sampling *sampling, struct err *e);
void local_cancel(struct local *w);
bool local_take(struct local *w, struct local_event *ret_event);

/* Measure an engine that no thread owns yet: one prefill of a chunk and a few single steps. */
int local_measure(struct engine *engine, double *ret_prefill_tps, double *ret_decode_us,
                  struct err *e);

#endif
