/* queue: see queue.h. A ring under one mutex. */
#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled, drained;
    void (*wake)(void *arg);
    void *wake_arg;
    bool closed;
    uint32_t capacity, head, len, waiting; /* producers */
    size_t item_bytes;
    unsigned char items[];
};

int queue_new(uint32_t capacity, size_t item_bytes, void (*wake)(void *arg), void *arg,
              struct queue **ret_queue, struct err *e)
{
    struct queue *q = mem_calloc(1, sizeof *q + capacity * item_bytes);
    if (!q) return err_set(e, ERR_NO_MEMORY, "no memory for a queue of %u", capacity);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->filled, &attributes);
    pthread_cond_init(&q->drained, NULL);
    pthread_condattr_destroy(&attributes);
    q->capacity = capacity;
    q->item_bytes = item_bytes;
    q->wake = wake;
    q->wake_arg = arg;
    *ret_queue = q;
    return 0;
}

void queue_free(struct queue *q)
{
    if (!q) return;
    pthread_cond_destroy(&q->filled);
    pthread_cond_destroy(&q->drained);
    pthread_mutex_destroy(&q->mutex);
    mem_free(q);
}

static void *slot_of(struct queue *q, uint32_t i)
{
    return q->items + (size_t)((q->head + i) % q->capacity) * q->item_bytes;
}

static int push(struct queue *q, const void *item, bool wait)
{
    pthread_mutex_lock(&q->mutex);
    while (wait && !q->closed && q->len == q->capacity) {
        q->waiting++;
        pthread_cond_wait(&q->drained, &q->mutex);
        q->waiting--;
    }
    int code = q->closed ? ERR_CANCELLED : q->len == q->capacity ? ERR_BUSY : 0;
    bool first = q->len == 0;
    if (code == 0) {
        memcpy(slot_of(q, q->len), item, q->item_bytes);
        q->len++;
        pthread_cond_signal(&q->filled);
    }
    pthread_mutex_unlock(&q->mutex);
    if (code == 0 && first && q->wake) q->wake(q->wake_arg);
    return code;
}

int queue_push(struct queue *q, const void *item)
{
    return push(q, item, false);
}

int queue_push_wait(struct queue *q, const void *item)
{
    return push(q, item, true);
}

static bool take(struct queue *q, void *ret_item)
{
    if (q->len == 0) return false;
    memcpy(ret_item, slot_of(q, 0), q->item_bytes);
    q->head = (q->head + 1) % q->capacity;
    q->len--;
    if (q->waiting) pthread_cond_signal(&q->drained);
    return true;
}

bool queue_try_pop(struct queue *q, void *ret_item)
{
    pthread_mutex_lock(&q->mutex);
    bool any = take(q, ret_item);
    pthread_mutex_unlock(&q->mutex);
    return any;
}

bool queue_pop(struct queue *q, void *ret_item, uint64_t timeout_us)
{
    uint64_t until = timeout_us == UINT64_MAX ? UINT64_MAX : clock_us() + timeout_us;
    struct timespec t = {(time_t)(until / 1000000u), (long)(until % 1000000u) * 1000};
    pthread_mutex_lock(&q->mutex);
    int waited = 0;
    while (q->len == 0 && !q->closed && waited != ETIMEDOUT) {
        if (until == UINT64_MAX)
            pthread_cond_wait(&q->filled, &q->mutex);
        else
            waited = pthread_cond_timedwait(&q->filled, &q->mutex, &t);
    }
    bool any = take(q, ret_item);
    pthread_mutex_unlock(&q->mutex);
    return any;
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->mutex);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_cond_broadcast(&q->drained);
    pthread_mutex_unlock(&q->mutex);
}
