/* queue: see queue.h. A ring under one mutex. */
#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    void (*wake)(void *arg);
    void *wake_arg;
    bool closed;
    uint32_t capacity, head, len;
    void *items[];
};

int queue_new(uint32_t capacity, void (*wake)(void *arg), void *arg, struct queue **ret_queue,
              struct err *e)
{
    struct queue *q = mem_calloc(1, sizeof *q + capacity * sizeof(void *));
    if (!q) return err_set(e, ERR_NO_MEMORY, "no memory for a queue of %u", capacity);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    q->capacity = capacity;
    q->wake = wake;
    q->wake_arg = arg;
    *ret_queue = q;
    return 0;
}

void queue_free(struct queue *q)
{
    if (!q) return;
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->mutex);
    mem_free(q);
}

int queue_push(struct queue *q, void *item)
{
    pthread_mutex_lock(&q->mutex);
    int code = q->closed ? ERR_CANCELLED : q->len == q->capacity ? ERR_BUSY : 0;
    bool first = q->len == 0;
    if (code == 0) {
        q->items[(q->head + q->len) % q->capacity] = item;
        q->len++;
        pthread_cond_signal(&q->filled);
    }
    pthread_mutex_unlock(&q->mutex);
    if (code == 0 && first && q->wake) q->wake(q->wake_arg);
    return code;
}

static void *take(struct queue *q)
{
    if (q->len == 0) return NULL;
    void *item = q->items[q->head];
    q->head = (q->head + 1) % q->capacity;
    q->len--;
    return item;
}

void *queue_try_pop(struct queue *q)
{
    pthread_mutex_lock(&q->mutex);
    void *item = take(q);
    pthread_mutex_unlock(&q->mutex);
    return item;
}

void *queue_pop(struct queue *q, uint64_t timeout_us)
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
    void *item = take(q);
    pthread_mutex_unlock(&q->mutex);
    return item;
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->mutex);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->mutex);
}

uint32_t queue_len(struct queue *q)
{
    pthread_mutex_lock(&q->mutex);
    uint32_t n = q->len;
    pthread_mutex_unlock(&q->mutex);
    return n;
}
