/*
 * run_impl: what the files of a simulation share: run.c (arrivals, events, totals), phone.c (a
 * device with its link and its profile) and answer.c (one answer on a device: turn, engine,
 * stream).
 */
#ifndef PDD_SIM_RUN_IMPL_H
#define PDD_SIM_RUN_IMPL_H

#include "policy/lengths.h"
#include "policy/plan.h"
#include "policy/profile.h"
#include "policy/stepcost.h"
#include "policy/turn.h"
#include "sim/run.h"

#define RUN_NEVER UINT64_MAX

enum run_event {
    RUN_ARRIVAL, /* who: the copy */
    RUN_WAKE,    /* who: an answer; detail: its `wakes` */
    RUN_ASK,     /* who: an answer; detail: stream << 32 | tokens_max */
    RUN_EXTEND,
    RUN_STOP,
    RUN_FREE,   /* who: a device, idle from now on */
    RUN_FROZEN, /* who: an answer; detail: stream << 8 | what */
    RUN_SAMPLE
};

/* A device: what it is and knows. Each answer has its place on the link drawn by its number, so
 * that a request meets the same conditions in every run. */
struct phone {
    const struct hardware_device *hardware;
    struct profile profile;
    struct lengths lengths;      /* of its answers */
    uint32_t kind;               /* of hardware, in the mix */
    uint64_t link_at;            /* the answer's place in the link's trace */
    uint64_t up_free, down_free; /* when the last message arrives: order is kept */
    double heat;                 /* 0 cool to 1 hot */
    uint64_t worked_at;
    bool liar;
    struct stepcost cost; /* of its engine's steps */
    uint32_t next_idle;
};

struct message {
    uint64_t due;
    uint32_t stream, value, cached;
    uint8_t kind; /* enum cloud_message */
};

/* A stream of a cloud with recorded times. */
struct frozen {
    bool running;
    uint32_t stream, next, limit; /* indexes of tokens */
    double service_us, token_us;
    uint64_t granted_at, first_at;
    struct cloud_cost cost;
};

struct answer {
    struct sim *sim;
    uint32_t self, phone, copy;
    uint64_t request; /* number, in order of arrival */
    const struct trace_request *r;
    bool used, over, beyond_context;
    uint32_t refs; /* events and jobs that name it */
    struct turn turn;
    uint64_t began, event_at, wakes;
    uint64_t wake; /* of the turn */
    /* stream */
    uint32_t stream;
    bool stream_open, token_came;
    struct cloud_job job;
    struct frozen frozen;
    uint64_t opened, opened_first, granted_at, first_at;
    uint32_t cloud_prompt, cloud_cached;
    uint64_t cut_from, cut_to, lost_at; /* lost_at: when an open stream notices */
    struct message *inbox;              /* [room], a ring */
    uint32_t in_first, in_n, in_room;
    /* engine */
    bool feeding, held, pausing;
    uint32_t pos, to, step_n;
    uint64_t step_at, step_began, kv_at;
    double busy_us;
    uint32_t prefilled;
    struct plan plan;
    double ratio; /* of the prompt that refinement keeps */
    struct tally_answer result;
};

struct sim {
    const struct run_config *c;
    struct heap heap;
    struct cloud *cloud;
    struct phone *phones;
    uint32_t n_phones, room_phones, busy;
    uint32_t idle_first[HARDWARE_MIX_MAX], idle_last[HARDWARE_MIX_MAX]; /* by kind */
    struct answer **answers;
    uint32_t n_answers, room_answers, unused, active;
    uint64_t *copy_from;
    uint32_t *copy_at, *copy_done;
    uint32_t first_copy;
    uint64_t arrived, done, total, all, now; /* numbers of requests go on from part to part */
    struct run_result result;
    int failed; /* the first error that could not be returned */
};

/* phone.c */
void phone_init(struct sim *s, uint32_t i, uint32_t kind);
/* The kind of hardware that a request comes from: the same in every run. */
uint32_t phone_kind_of(const struct sim *s, uint64_t request);
/* Before an answer: its place on the link, and whether it lies. */
void phone_place(struct sim *s, struct phone *p, uint64_t request, uint64_t now);
/* When a message of `bytes` that is sent now arrives. */
uint64_t phone_up(struct sim *s, struct phone *p, uint64_t now, double bytes);
uint64_t phone_down(struct sim *s, struct phone *p, uint64_t now, double bytes);
uint64_t phone_connect_us(const struct sim *s, const struct phone *p, uint64_t now);
/* Microseconds of an engine step with n tokens, and of a decode; heats the device. */
double phone_step_us(struct sim *s, struct phone *p, uint32_t n, uint64_t now);
double phone_decode_us(const struct phone *p);
/* The parts of `plan` and `profile` around one answer. */
void phone_plan(struct sim *s, struct answer *a, uint64_t now, struct turn_config *c);
void phone_granted(struct sim *s, struct answer *a, uint64_t now, uint32_t granted);
void phone_learn(struct sim *s, struct answer *a, uint64_t now);

/* answer.c */
int answer_begin(struct sim *s, struct answer *a, uint64_t now);
void answer_wake(struct sim *s, struct answer *a, uint64_t now);
void answer_event(struct sim *s, struct answer *a, const struct heap_event *ev);
/* A message of the cloud leaves it now. */
void answer_message(struct answer *a, uint32_t stream, struct message m, uint64_t now);

/* frozen.c: instead of the cloud, where the configuration has recorded times */
void frozen_ask(struct sim *s, struct answer *a, uint32_t tokens_max, uint64_t now);
void frozen_extend(struct answer *a, uint32_t stream, uint32_t tokens_max);
void frozen_stop(struct sim *s, struct answer *a, uint32_t stream, uint64_t now);
void frozen_event(struct sim *s, struct answer *a, const struct heap_event *ev);

/* run.c */
void sim_push(struct sim *s, uint64_t at, enum run_event kind, uint32_t who, uint64_t detail);
void sim_add_cost(struct sim *s, struct answer *a, const struct cloud_cost *c);
void sim_answer_over(struct sim *s, struct answer *a, uint64_t at); /* on the device */
void sim_release(struct sim *s, struct answer *a);                  /* one of its refs */

#endif
