/*
 * local: the engine thread of a device. It owns an engine and a number of *seats*, each with one
 * token history: drop what follows position `from`, append tokens, sample the next one. Seats that
 * have work at the same time share the steps of the engine (policy/sched).
 *
 * What was computed stays in a prefix cache, as far as KV memory holds it, and the history that a
 * seat begins takes from there what it has in common with any earlier one.
 *
 * A cancelled feed ends after the current step, without further events. Steps are sized by
 * measurement to about LOCAL_STEP_US (a prefill that runs alone: three times that), so that
 * progress and cancelling stay quick at any speed of the engine. While KV memory is short, the seat
 * that began last waits. What it loses of the cache is computed again: the answer stays the same,
 * it only takes longer. A seat `behind` works only while no other seat has work.
 *
 * Threads: all functions belong to one owner (the loop thread); call local_free there or after
 * joining it. Results are announced through `wake` and fetched by local_take, uses of pages
 * (device/kv_disk.h) by kv_disk_take_use.
 */
#ifndef PDD_DEVICE_LOCAL_H
#define PDD_DEVICE_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sampling.h"
#include "device/kv_disk.h"
#include "engine/engine.h"

enum {
    LOCAL_STEP_US = 33333,  /* target time of a step that also decodes */
    LOCAL_MEASURE_MAX = 64, /* tokens of the prefill of local_measure */
    LOCAL_SEATS_MAX = 64,   /* of one engine */
    LOCAL_DRAWS_MAX = 32,   /* tokens of a seat that a step draws after: logits take memory */
    LOCAL_SPARE_PAGES = 8   /* that a seat which waited for memory finds besides its own */
};

struct local;
struct local_seat;

enum local_event_kind {
    LOCAL_PROGRESS, /* kv */
    LOCAL_TOKEN,    /* kv, id, is_end: the feed is complete */
    LOCAL_PAUSED,   /* kv: the feed ended there, as told */
    LOCAL_FULL,     /* the context is full: the feed ended early */
    LOCAL_FAILED    /* why */
};

struct local_event {
    enum local_event_kind kind;
    uint32_t kv; /* positions in the KV cache */
    int32_t id;
    bool is_end;
    /* [n_draws] ids drawn for the positions from draw_at on, since the last event; `id` is none of
     * them. Valid until the next local_feed. */
    const int32_t *draws;
    uint32_t n_draws, draw_at;
    struct err why;
};

/* What the engine thread did since its start. */
struct local_stats {
    struct kv_disk_stats disk;
    uint64_t loaded_pages; /* from disk */
    uint64_t steps, step_us, spans, prefill_tokens, decode_tokens, cached_tokens, preempted;
    uint32_t kv_pages_free, kv_pages_cached, kv_pages_total;
};

/* Takes ownership of `engine`, on success only. wake(arg) is called in the engine's thread or the
 * owner's, and calls nothing of this header. */
int local_new(struct engine *engine, void (*wake)(void *arg), void *arg, struct local **ret_local,
              struct err *e);
void local_free(struct local *w); /* waits for the current step; frees the engine; NULL is fine */
struct engine *local_release(struct local *w); /* the same, but the engine is the caller's again */
/* Keep computed pages on disk, in DIR, up to bytes_max: those of each history when it ends, written
 * in the background; a history that begins takes what is there. Once, before the first seat. */
int local_keep(struct local *w, const char *dir, uint64_t bytes_max, struct err *e);
struct kv_disk *local_disk(struct local *w); /* NULL: nothing is kept */
/* What the seats hold of the conversation `tag` does not get to the disk, and nothing more of it is
 * computed in a seat `behind`. The caller cancels its answers first. */
void local_forget(struct local *w, const char *tag);
void local_stats_of(struct local *w, struct local_stats *ret_stats);

/* ERR_LIMIT: LOCAL_SEATS_MAX are open. All are closed before local_free. */
int local_seat_open(struct local *w, bool behind, struct local_seat **ret_seat, struct err *e);
/* What was computed stays in the cache. Waits for the current step if the seat is in it. NULL is
 * fine. */
void local_seat_close(struct local_seat *s);
/* The seat is in no step, so that local_begin would not wait. */
bool local_seat_rests(struct local_seat *s);

bool local_seat_feeds(struct local_seat *s); /* it has a feed that is not complete */

/* Begin a new history with tokens [n >= 1], which are copied. Returns how many of them need not be
 * computed, by what is cached now. Waits for a cancelled feed's last step. `tag`: of which
 * conversation they are; NULL: of none. */
uint32_t local_begin(struct local_seat *s, const int32_t *tokens, uint32_t n, const char *tag);
/* Post a feed; the previous one must be complete or cancelled. tokens [n >= 1] are copied; those
 * before `from` were given to local_begin or earlier feeds. The last n_draws <= n of them are drawn
 * after, too, which costs their logits: they are never taken from the cache. */
int local_feed(struct local_seat *s, uint32_t from, const int32_t *tokens, uint32_t n,
               uint32_t n_draws, const struct sampling *sampling, struct err *e);
/* End the feed after the current step, unless that completes it; the history stays. */
void local_pause(struct local_seat *s);
/* The history may be fed on, but what it holds of KV memory is free for others from now on. */
void local_cancel(struct local_seat *s);
bool local_take(struct local_seat *s, struct local_event *ret_event);

/* Measure an engine that no thread owns yet: one prefill of a chunk and a few single steps. */
int local_measure(struct engine *engine, double *ret_prefill_tps, double *ret_decode_us,
                  struct err *e);

#endif
