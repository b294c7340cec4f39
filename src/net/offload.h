/*
 * offload: threads for work that would block the loop too long: parsing a large body, tokenising a
 * long text.
 *
 * A *task* is embedded in its owner's struct. `work` runs in one of the threads and uses nothing
 * that the loop thread may use meanwhile; `done` runs on the loop thread after it. A turn of the
 * loop takes back one task, since what follows is work too.
 *
 * There are two threads. One takes short tasks only, so that these never wait for long ones. Owners
 * share a thread by bytes of work, however many tasks each has submitted: an owner's first task
 * waits for about one task of each other owner.
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
    uint64_t owner;                       /* for turns and the limit */
    bool unlimited;                       /* never refused: its caller has a limit of its own */
    /* offload's: the threads change them */
    struct offload_task *next;
    enum offload_state state;
    uint64_t start; /* its place in the line, in bytes of work */
};

int offload_new(struct loop *l, struct offload **ret_offload, struct err *e);
/* Waits for the work in progress, drops all tasks that are left. NULL is fine. */
void offload_free(struct offload *o);
/* The task is offload's until `done` or `drop`. ERR_BUSY: too many tasks wait, in all or of
 * this owner. */
int offload_submit(struct offload *o, struct offload_task *t, struct err *e);
/* Take back a task that has not begun. False: it has, and `done` follows. */
bool offload_cancel(struct offload *o, struct offload_task *t);

#endif
