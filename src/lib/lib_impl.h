/*
 * lib_impl: the objects of libpdd (include/pdd.h). Only files of lib/ include it; lib.h has what
 * commands and tests see besides pdd.h.
 *
 * An answer has two owners: its user, and the loop thread of its device until it is over. The
 * device's lock guards what both touch; it is held for moments only, never during callbacks, nor
 * while the loop thread renders or encodes. A device that was closed lives on as a lock until its
 * last answer is freed.
 */
#ifndef PDD_LIB_LIB_IMPL_H
#define PDD_LIB_LIB_IMPL_H

#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "device/core.h"
#include "device/device.h"
#include "lib/talk.h"
#include "net/loop.h"
#include "pdd.h"
#include "proto/openai.h"
#include "store/store.h"

enum { LIB_NAME_MAX = 256 };

struct pdd_model {
    pthread_mutex_t lock;
    uint32_t refs; /* the user's and a device's */
    bool taken;    /* a device has the engine */
    struct engine *engine;
    double prefill_tps, decode_us; /* of the emulated device; 0: to be measured */
};

struct pdd_chat {
    struct talk talk;
    uint32_t refs; /* the user's and an answer's, which one thread has */
    bool busy;     /* an answer is on its way */
};

/* What a user's struct says, checked and copied, and the device's view of it. */
struct lib_question {
    struct pdd_question user; /* of its pointers those of callbacks and arg are good */
    struct device_question asked;
    struct talk talk; /* a copy of the chat's messages, and the question; none if it is raw */
    struct buf raw;
    struct openai_stop stops[PDD_STOPS_MAX]; /* [n_stops] texts owned */
    uint32_t n_stops;
};

/* Strings of a report that die with the device's next answer. */
struct lib_names {
    char model[LIB_NAME_MAX], emulated[LIB_NAME_MAX], numerics[64], weights[ENGINE_HASH_TEXT];
    char trouble[ERR_TEXT_MAX], unrefined[ERR_TEXT_MAX], unverified[ERR_TEXT_MAX];
    char energy_how[LIB_NAME_MAX];
};

enum lib_state {
    LIB_ASKED, /* the loop thread is to start it */
    LIB_RUNNING,
    LIB_OVER
};

struct pdd_answer {
    /* fixed */
    struct pdd_device *device;
    struct pdd_chat *chat; /* NULL: none, or let go of */
    int fd;
    struct lib_question q;
    /* under the device's lock */
    uint32_t refs;
    enum lib_state state;
    bool cancel;                 /* asked for */
    bool stopped;                /* the loop thread has obeyed */
    struct buf text, thought;    /* all that was shown */
    struct device_token *tokens; /* [n] of [room] */
    size_t *thought_ends;        /* [n] of [room]: bytes of thought up to a token's end */
    uint32_t n, room;
    size_t clear;               /* bytes of text in which no stop string begins any more */
    uint32_t n_clear;           /* tokens whose text is all of those */
    bool ended;                 /* at a stop string: text and tokens are cut there */
    uint32_t done[2], total[2]; /* progress by source */
    char trouble[ERR_TEXT_MAX];
    bool any_trouble;
    int code;                    /* when it is over */
    struct err why;              /* the first error */
    struct device_report report; /* when it is over; its tokens are `tokens`, its text `text` */
    struct lib_names names;
    /* the loop thread's */
    struct pdd_answer *next;
    struct device *runner;
    /* the user's thread's */
    struct buf given, given_thought; /* for which callbacks were called */
    uint32_t n_given;
    uint32_t told[2]; /* progress that was */
    bool told_trouble, in_callback, freed, settled;
    struct buf json;
};

struct pdd_device {
    struct loop *loop;
    struct loop_wake *wake;
    struct device_core *core;
    struct pdd_model *model;
    struct store *store;
    pthread_t thread;
    bool started;
    /* under the lock */
    pthread_mutex_t lock;
    uint32_t refs; /* the user's and its answers' */
    bool closing, closed;
    struct pdd_answer *answers; /* on their way */
    uint32_t n_answers;
    /* the loop thread's */
    struct device *idle[PDD_ANSWERS_MAX]; /* runners, the last used last */
    uint32_t n_idle, n_runners;
};

/* ---- lib_guard.c ---- */

/* While a thread of the host works for the library: signals wait (a SIGPIPE of our own is taken
 * back), and numbers have decimal points. */
struct lib_guard {
    sigset_t before;
    bool pipe_pending;
    locale_t locale, old;
};
void lib_guard_enter(struct lib_guard *g);
void lib_guard_leave(struct lib_guard *g);
/* For a thread of the library, for good. */
void lib_guard_thread(void);

/* Runs fn(arg, e), after lib_guard_enter, in a thread of the library with a stack of LIB_STACK
 * bytes or more, and returns what it returns: loading and measuring a model need more than a thread
 * of the host may have. */
enum { LIB_STACK = 1 << 20 };
int lib_run(int (*fn)(void *arg, struct err *e), void *arg, struct err *e);

/* ---- lib_struct.c ---- */

/* A user's struct of `size` bytes into ours of `known` bytes, of which the first version had
 * `least`. */
int lib_struct_take(const char *name, const void *from, size_t least, size_t known, void *to,
                    struct err *e);
/* Ours into a user's. */
int lib_struct_give(const char *name, const void *from, size_t least, size_t known, void *to,
                    struct err *e);
/* The last field of the first version, as `least`. */
#define LIB_LEAST(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))
/* Ends a call: the caller's error is filled, if there is one. */
int lib_result(int code, const struct err *e, pdd_error *error);

/* ---- pdd_question.c ---- */

/* On failure nothing is held. `model`: NULL without one. */
int lib_question_take(const struct pdd_question *from, const struct engine_info *model,
                      struct lib_question *q, struct err *e);
/* The messages as they are to be asked now. */
void lib_question_point(struct lib_question *q);
/* Where the prompt was too long: leave out the oldest messages; false: there are none. */
bool lib_question_shorten(struct lib_question *q, uint32_t context);
void lib_question_release(struct lib_question *q);

/* ---- lib_stop.c ---- */

/* Copies the stop strings of q->user, checked. */
int lib_stop_take(struct lib_question *q, struct err *e);
void lib_stop_release(struct lib_question *q);
/* Under the lock, after text has come: what of it is clear. True: a stop string is found, and the
 * answer cut there. */
bool lib_stop_find(struct pdd_answer *a);
/* Under the lock, when no more text comes: all is clear, or the report is cut, too. */
void lib_stop_settle(struct pdd_answer *a);

/* ---- pdd_chat.c ---- */

/* Question and answer join the messages, of which `left_out` go. */
int lib_chat_settle(struct pdd_chat *c, const struct chat_message *question, const struct buf *text,
                    uint32_t left_out, struct err *e);
void lib_chat_unref(struct pdd_chat *c);

/* ---- pdd_model.c ---- */

void lib_model_unref(struct pdd_model *m);

/* ---- pdd_device.c ---- */

void lib_device_wake(struct pdd_device *d); /* under its lock */
void lib_device_unref(struct pdd_device *d);

/* ---- pdd_answer.c ---- */

void lib_answer_start(struct pdd_answer *a); /* on the loop thread, with a runner */
void lib_answer_signal(struct pdd_answer *a);
/* Over without having run, under the lock. */
void lib_answer_end(struct pdd_answer *a, int code, const struct err *why, enum turn_reason reason);
void lib_answer_unref(struct pdd_answer *a);

/* ---- pdd_report.c ---- */

/* Keep what a device reports, under the lock. */
void lib_report_keep(struct pdd_answer *a, const struct device_report *r);

#endif
