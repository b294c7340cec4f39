/*
 * queue: a bounded queue from any threads to one, with a wake-up. Items have one size and are
 * copied in and out: pushing takes no memory.
 *
 * A producer that finds it full chooses: queue_push returns ERR_BUSY, queue_push_wait waits for the
 * consumer. The consumer either blocks in queue_pop or is woken through `wake` (called by the
 * producer after each push that found the queue empty; it must be thread-safe and quick, such as
 * writing an eventfd or loop_wake). After queue_close, pushing gives ERR_CANCELLED, to a producer
 * that waits too, and popping drains what is left.
 */
#ifndef PDD_BASE_QUEUE_H
#define PDD_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct queue;

int queue_new(uint32_t capacity, size_t item_bytes, void (*wake)(void *arg), void *arg,
              struct queue **ret_queue, struct err *e);
void queue_free(struct queue *q);                       /* NULL is fine */
int queue_push(struct queue *q, const void *item);      /* 0, ERR_BUSY, ERR_CANCELLED */
int queue_push_wait(struct queue *q, const void *item); /* 0, ERR_CANCELLED */
bool queue_try_pop(struct queue *q, void *ret_item);    /* false: it is empty */
/* Wait up to timeout_us (UINT64_MAX: for ever); false on timeout or when closed and empty. */
bool queue_pop(struct queue *q, void *ret_item, uint64_t timeout_us);
void queue_close(struct queue *q);

#endif
