/*
 * queue: a bounded queue with many producers and one consumer. Items have one size and are copied
 * in and out; pushing allocates nothing. Threads: any may push and close, one pops.
 *
 * When it is full, queue_push returns ERR_BUSY and queue_push_wait waits for the consumer. The
 * consumer either blocks in queue_pop or is woken through the callback `wake`: a producer calls it
 * after each push to an empty queue, so it must be thread-safe and quick, such as writing an
 * eventfd or loop_wake. After queue_close, pushing returns ERR_CANCELLED, also to waiting
 * producers, and popping drains the rest.
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
