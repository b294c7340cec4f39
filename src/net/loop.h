/*
 * loop: one thread's events, timers and signals; a thin layer over libevent.
 *
 * Everything belongs to the thread that runs the loop, except loop_wake_signal, which any thread
 * may call. Objects must be freed before their loop; a callback may free the object that called it.
 * loop_new makes the process ignore SIGPIPE: a disconnect is an error code here.
 */
#ifndef PDD_NET_LOOP_H
#define PDD_NET_LOOP_H

#include <stdint.h>

#include "base/err.h"

struct event_base;
struct loop;
struct loop_timer;
struct loop_wake;
struct loop_signal;

typedef void loop_fn(void *arg);

/* ERR_IO: no descriptors are left. libevent's warnings are silenced: what matters is returned. */
int loop_new(struct loop **ret_loop, struct err *e);
/* The same, but SIGPIPE stays as the process has it: a library's, whose threads block it. */
int loop_new_guest(struct loop **ret_loop, struct err *e);
void loop_free(struct loop *l);
int loop_run(struct loop *l, struct err *e); /* until loop_stop */
void loop_stop(struct loop *l);              /* in the loop's thread */
struct event_base *loop_base(struct loop *l);

/* A one-shot timer, unset at first. `when`: a clock_us() value; a past one means the next turn of
 * the loop. Never early. */
int loop_timer_new(struct loop *l, loop_fn *fn, void *arg, struct loop_timer **ret_timer,
                   struct err *e);
void loop_timer_set(struct loop_timer *t, uint64_t when);
void loop_timer_clear(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);

/* Calls fn in the loop's thread soon after loop_wake_signal; several signals may become one call.
 */
int loop_wake_new(struct loop *l, loop_fn *fn, void *arg, struct loop_wake **ret_wake,
                  struct err *e);
void loop_wake_signal(void *wake); /* void *, so that it suits queue_new */
void loop_wake_free(struct loop_wake *w);

/* Calls fn for each delivery of a signal (SIGINT, SIGTERM, ...). */
int loop_signal_new(struct loop *l, int number, loop_fn *fn, void *arg,
                    struct loop_signal **ret_signal, struct err *e);
void loop_signal_free(struct loop_signal *s);

#endif
