/*
 * offload: threads for work that would keep the loop from its sockets too long: a large body that
 * must be parsed, a long text that must be tokenised.
 *
 * A *task* belongs to its owner, who embeds it. `work` runs in one of the threads and touches
 * nothing that the loop thread may touch meanwhile; `done` runs on the loop thread after it. One
 * task is handed back in a turn of the loop, since what follows is work too.
 *
 * There are two threads. One takes short tasks only, so that these never wait for long ones. Within
 * a thread owners take turns: many tasks of one do not keep another's waiting behind all of them.
 *
 * Threads: all functions belong to the loop thread.
 */
#ifndef PDD_NET_OFFLOAD_H
#define PDD_NET_OFFLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/loop.h"

enum {
    OFFLOAD_SHORT_BYTES = 256 * 1024, /* `size` of a short task at most */
    OFFLOAD_TASKS_MAX = 256,          /* that wait or run */
    OFFLOAD_PER_OWNER_MAX = 64
};

struct offload;

enum offload_state { OFFLOAD_IDLE, OFFLOAD_WAITING, OFFLOAD_WORKING, OFFLOAD_DONE };

struct offload_task {
    void (*work)(struct offload_task *t);
    void (*done)(struct offload_task *t); /* may free the task */
    void (*drop)(struct offload_task *t); /* offload_free, instead of `done`: free what it holds */
    size_t size;                          /* how much there is to do: bytes of body or text */
    uint64_t owner;                       /* on whose behalf, for turns and the limit */
    bool unlimited; /* it is never refused: what makes such tasks has a limit of its own */
    /* offload's: the threads change them */
    struct offload_task *next;
    enum offload_state state;
};

int offload_new(struct loop *l, struct offload **ret_offload, struct err *e);
/* Waits for the work in progress, drops all tasks that are left. NULL is fine. */
void offload_free(struct offload *o);
/* The task is offload's until `done` or `drop`. ERR_BUSY: there are too many, or of this owner. */
int offload_submit(struct offload *o, struct offload_task *t, struct err *e);
/* Take back a task whose work has not begun. False: it has, and `done` follows. */
bool offload_cancel(struct offload *o, struct offload_task *t);

#endif
