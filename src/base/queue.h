/*
 * queue: a bounded queue of pointers between two threads, with a wake-up.
 *
 * A full queue is an answer (ERR_BUSY), never a wait for the producer. The consumer either blocks
 * in queue_pop or is woken through `wake` (called by the producer after each push that found the
 * queue empty; it must be thread-safe and quick, such as writing an eventfd or loop_wake). After
 * queue_close, push gives ERR_CANCELLED and pop drains what is left, then returns NULL.
 */
#ifndef PDD_BASE_QUEUE_H
#define PDD_BASE_QUEUE_H

#include <stdint.h>

#include "base/err.h"

struct queue;

int queue_new(uint32_t capacity, void (*wake)(void *arg), void *arg, struct queue **ret_queue,
              struct err *e);
void queue_free(struct queue *q);            /* items left inside are the owner's to drain first */
int queue_push(struct queue *q, void *item); /* 0, ERR_BUSY, ERR_CANCELLED */
void *queue_try_pop(struct queue *q);        /* NULL when empty */
/* Wait up to timeout_us (UINT64_MAX: for ever); NULL on timeout or when closed and empty. */
void *queue_pop(struct queue *q, uint64_t timeout_us);
void queue_close(struct queue *q);
uint32_t queue_len(struct queue *q);

#endif
