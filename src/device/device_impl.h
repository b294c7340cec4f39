/*
 * device_impl: shared by answer.c, core.c and device.c. Only files of device/ include it.
 *
 * An answer drives a turn on the loop thread: it passes on events of the local engine and
 * of the assist, and carries out the actions. A device has one at a time.
 */
#ifndef PDD_DEVICE_DEVICE_IMPL_H
#define PDD_DEVICE_DEVICE_IMPL_H

#include "base/energy.h"
#include "device/assist.h"
#include "device/core.h"
#include "device/device.h"
#include "device/local.h"
#include "model/text/thought.h"
#include "net/loop.h"
#include "policy/profile.h"

enum { DEVICE_URL_MAX = HTTP_URL_MAX, DEVICE_OWNER_MAX = 512, DEVICE_ENERGY_TEXT_MAX = 96 };
enum { RULES_MAX = 16 }; /* ranges of a prompt that a device names to stay */

/* Text of a token that came as text (no vocabulary here): its place in `cloud_text`. */
struct answer_piece {
    size_t at, len;
};

struct answer {
    const struct device_question *q;
    struct turn turn;
    struct plan plan;
    uint32_t unsent;    /* tokens of the prompt that this device did not send to the cloud before */
    int64_t now;        /* of the question, on the wall clock */
    bool running;       /* between answer_start and the turn's end */
    bool by_messages;   /* the cloud gets messages, not ids */
    bool as_text;       /* its tokens are of another vocabulary: their text counts */
    bool no_ids;        /* they have none */
    uint32_t next_wire; /* index of the next token event, when as_text */
    uint64_t began, opened, granted;
    bool in_slot; /* from a grant to the end of its stream */
    bool told_trouble;
    struct token_list prompt, work;
    struct assist *assist;
    struct detok detok;
    struct buf text, cloud_text;
    struct thought parts;      /* tells thought and answer apart */
    struct buf thought, piece; /* the latter is scratch */
    uint32_t n_thought;
    struct answer_piece *pieces;  /* [tokens_max], without a vocabulary */
    struct device_token *tokens;  /* [tokens_max] */
    struct token_list words;      /* of the cloud's last text, when as_text */
    struct token_list have;       /* ids as the cloud sent them */
    float refine_ratio;           /* asked of the cloud; 0: no refinement */
    int32_t whole[2 * RULES_MAX]; /* [2 n_whole] ranges of the prompt that stay: system messages */
    uint32_t n_whole;
    struct energy_mark energy; /* when it began */
    char energy_how[DEVICE_ENERGY_TEXT_MAX];
    struct device_report report;
    struct err store_err; /* of the core, said with this answer */
    struct err trouble;   /* of the device: stops the answer */
};

/* What the answers of a device share, on the loop thread. */
struct device_core {
    struct loop *loop;
    struct loop_wake *wake;
    struct http_client *client; /* NULL without a cloud */
    struct local *local;        /* NULL without an engine */
    struct local_seat *fill;    /* what an idle device reads; NULL: nothing */
    bool fill_always;           /* on battery, too */
    uint32_t fill_done, fill_total;
    struct engine *engine;
    char url[DEVICE_URL_MAX], model[WIRE_NAME_MAX];
    uint64_t stall_us;
    void (*on_use)(void *arg); /* of device_options, with use_arg */
    void *use_arg;
    struct profile profile;
    struct energy energy;
    struct store *store;          /* the caller's; NULL: nothing is kept, or no longer */
    struct err store_err;         /* why, to be said with the next answer */
    char owner[DEVICE_OWNER_MAX]; /* whose speeds the profile has: model, numerics, emulation */
    struct token_list sent;       /* the prompt that the cloud saw last */
    bool other_words;             /* the cloud has another tokenizer, by its last grant */
    struct device *devices;       /* all that are open */
};

struct device {
    /* fixed; client and engine are the core's */
    struct device_core *core;
    struct device *next;
    struct loop_timer *timer;
    struct http_client *client;
    struct engine *engine;
    struct local_seat *local; /* NULL without an engine */
    /* the loop thread's */
    struct answer answer;
    void (*done)(void *arg, int code, const struct device_report *r, const struct err *why);
    void *done_arg;
    struct device_thread *thread; /* of device_open: its caller and its loop; else NULL */
};

/* Start, on the loop thread. On failure nothing was started. */
int answer_start(struct device *d, const struct device_question *q, struct err *e);
void answer_local(struct device *d); /* take events of the engine thread */
void answer_tick(struct device *d);
void answer_cancel(struct device *d);
void answer_release(struct answer *a);
/* The plan of the answer, and all of *c that follows from it and the profile. */
void answer_plan(struct device *d, struct turn_config *c);
void answer_plan_granted(struct device *d, uint32_t granted); /* again, if that is less than N */
void answer_granted(struct device *d, double us);             /* that long after it was asked for */
void answer_learn(struct device *d);                          /* when its report is filled */
/* Starts the profile from the options and what the store has. Without a store that can be read it
 * starts from the options alone. */
void device_core_learned(struct device_core *c, const struct device_options *o);

/* ---- answer_energy.c ---- */

void answer_energy_begin(struct device *d);
void answer_energy_sample(struct device *d); /* after every event */
void answer_energy_report(struct device *d); /* into the report, which has all else */

/* ---- answer_refine.c ---- */

/* After the plan with the whole prompt: whether to ask for refinement, and the plan with it. */
void answer_plan_refined(struct device *d, const struct plan_input *whole);
/* What a request says of refinement; `r` only borrows it. */
void answer_ask_refined(struct device *d, struct wire_request *r);
void answer_refined(struct device *d, const struct wire_event *ev);
/* Of a finished answer; device_report.unrefined. */
const char *answer_unrefined(const struct device *d);
/* Before the turn starts: the device's own choice, if the question asks for it. */
int answer_refine_here(struct device *d, struct err *e);
/* After an answer: prefill what of prompt and answer the KV cache lacks, while there is no other
 * work. */
void answer_fill(struct device *d);
void answer_fill_stop(struct device_core *c); /* within a step */
void answer_fill_end(struct device_core *c);  /* take its events */

/* Called by answer.c when the turn is over. */
void device_answered(struct device *d, int code, const struct err *e);

#endif
