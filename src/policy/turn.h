/*
 * turn: the life of one answer on the device, as a pure state machine. Events go in with their
 * time, actions come out; no I/O, no clock, no engine.
 *
 *   racing    the cloud is asked, the local prefill runs; no token is known
 *   borrowed  tokens of the cloud are shown while the device still catches up
 *   own       the device decodes; the cloud is finished or told to stop
 *   draining  the whole answer is known and is being shown
 *   over      done, cancelled or failed: no action follows the TURN_END
 *
 * The truth is `tokens`: what was received or decoded, in order, never taken back. Local work is
 * one *feed* at a time: append the tokens [from, to) of prompt + answer to the KV cache and sample
 * what follows. When a feed ends and nothing newer has come, the sampled token is the device's, and
 * the cloud is told to stop; otherwise the newer tokens are the next feed, as one batch.
 *
 * Refinement: when it is known which tokens of the prompt are needed, the feed pauses, and the
 * prompt goes on with the needed ones of what it has not passed yet. So it is never slower than
 * beginning again, and a later choice changes only what is still to come. The KV cache then holds a
 * shortened history: position i < prompt_len is token turn_prompt_at(i) of the prompt, and the
 * answer follows.
 *
 * Verified handover: where the cloud's numerics are not the device's, a feed also draws after each
 * token, and the draw is compared with the token received there. What is shown stays. Tokens not
 * yet shown after the first difference are dropped, the cloud is left, and the device goes on.
 */
#ifndef PDD_POLICY_TURN_H
#define PDD_POLICY_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "policy/pace.h"

enum turn_state { TURN_RACING, TURN_BORROWED, TURN_OWN, TURN_DRAINING, TURN_OVER };
enum turn_source { TURN_CLOUD, TURN_DEVICE };
enum turn_reason {
    TURN_STOP,      /* the model ended its answer */
    TURN_LENGTH,    /* answer_max, or the context, is reached */
    TURN_CANCELLED, /* by the user */
    TURN_FAILED     /* neither end can go on */
};

struct turn_token {
    int32_t id;
    uint8_t source;          /* enum turn_source */
    uint64_t arrived, shown; /* shown: 0 until then */
};

struct turn_config {
    uint32_t prompt_tokens; /* n */
    uint32_t kv_tokens;     /* of the prompt, already in the local KV cache */
    uint32_t answer_max;    /* at least 1 */
    bool use_cloud, use_local;
    uint32_t cloud_tokens; /* N to ask for */
    uint32_t cloud_most;   /* N is raised up to that while the device can go on; 0: to all */
    bool fixed;            /* N stays: no early stop, no extension */
    /* The local prefill begins when this many tokens of the answer are known, or when the cloud is
     * not asked or lost; 0: at once. */
    uint32_t local_after;
    enum pace_mode pace;
    double pace_us; /* D that the plan counts on while tokens are borrowed; 0: the mode's */
    double prefill_tps, decode_us; /* predicted; decode_us 0 without a local engine */
    double spread;                 /* relative deviation of the predicted prefill time; 0: small */
    double rtt_us;                 /* predicted */
    uint64_t stall_us;             /* silence after which the cloud counts as lost */
    uint32_t reopen_max; /* requests in a row, after the first, that may fail without a token */
};

enum turn_action_kind {
    TURN_DO_CLOUD_OPEN,   /* n: N; the tokens so far are `have` */
    TURN_DO_CLOUD_EXTEND, /* n: the new N of the running stream */
    TURN_DO_CLOUD_STOP,   /* close it; ignore what it still sends */
    TURN_DO_FEED,         /* from, to; then sample. n: draw after as many of the last tokens */
    TURN_DO_LOCAL_STOP,   /* cancel the feed */
    TURN_DO_LOCAL_PAUSE,  /* end the feed after the current step: turn_local_paused follows */
    TURN_DO_SHOW,         /* n: index of the token */
    TURN_DO_END           /* reason */
};

struct turn_action {
    enum turn_action_kind kind;
    uint32_t n, from, to;
    enum turn_reason reason;
};

enum {
    TURN_ACTIONS_MAX = 32,
    TURN_ANSWER_MAX = 1 << 20,
    TURN_PROGRESS_STALLS = 40,  /* stall times that a cloud may go on without a token */
    TURN_WAIT_MAX_US = 60000000 /* a longer Retry-After is as good as a final refusal */
};

struct turn {
    struct turn_config c;
    enum turn_state state;
    struct turn_token *tokens; /* [answer_max] */
    uint32_t n, shown;         /* known; shown */
    struct pace pace;
    /* cloud */
    enum { CLOUD_NONE, CLOUD_ASKED, CLOUD_RUNNING, CLOUD_FINISHED } cloud;
    uint32_t cloud_base;    /* tokens known when it was asked */
    uint32_t cloud_granted; /* absolute: largest index of the stream */
    uint32_t cloud_used;    /* tokens taken from it in all */
    uint32_t cloud_opens;
    uint32_t cloud_done;  /* of its prefill */
    uint32_t cloud_vain;  /* requests since its last token */
    bool cloud_by_text;   /* its tokens are counted in another vocabulary than ours */
    uint64_t cloud_heard; /* last sign of life: a grant, progress or a token that is new */
    uint64_t cloud_gave;  /* its last new token, or when it was asked */
    bool cloud_final;     /* asking it again cannot help: it refused for good, or gives no ids */
    bool cloud_waits;     /* it is asked again at `cloud_again`, and only it can go on */
    uint64_t cloud_again; /* not before; a refusal's Retry-After */
    /* device */
    bool feeding, local_ok;
    uint32_t prompt_len;  /* tokens of the prompt in the device's history when it is read */
    uint32_t *map;        /* [prompt_len] places of these in the prompt; NULL: it is whole */
    uint32_t *map_room;   /* [prompt_tokens], when a choice has come */
    uint8_t *wanted;      /* [prompt_tokens / 8, rounded up] bits of the newest choice */
    bool pausing;         /* the feed is told to pause, and `wanted` takes effect then */
    uint32_t kv, feed_to; /* positions in the KV cache; where the feed ends */
    uint64_t begun, progress_at, last_local; /* begun: its first feed; 0: none yet */
    uint32_t progress_from;                  /* kv when measuring began */
    double tps, decode_us;                   /* measured so far, or predicted */
    /* verification */
    bool verifying;
    uint32_t checked;  /* index of the next token to compare */
    uint32_t compared; /* tokens of the cloud that were, */
    uint32_t verified; /* and that the device would have drawn */
    bool differs;      /* one was not: the first at */
    uint32_t difference;
    uint32_t dropped; /* tokens after it that were not shown */
    /* outcome */
    bool ended; /* the answer is complete in `tokens` */
    enum turn_reason reason;
    struct err error;  /* why it failed, or why the cloud or the engine was given up */
    uint32_t handover; /* index of the first device token after cloud tokens; 0: none */
    uint64_t began;
    struct turn_action actions[TURN_ACTIONS_MAX];
    uint32_t first_action, n_actions;
};

/* `config` is checked by CHECK. The answer's tokens are allocated here, once. */
int turn_init(struct turn *t, const struct turn_config *config, struct err *e);
void turn_release(struct turn *t);
/* The next action to carry out, in order; false when there is none. Take them after every event. */
bool turn_take(struct turn *t, struct turn_action *ret_action);
/* When turn_tick must be called next; UINT64_MAX: not by time. Ask after the actions are taken. */
uint64_t turn_wake(const struct turn *t, uint64_t now);

/* Which token of the prompt stands at position i < prompt_len of the device's history. */
uint32_t turn_prompt_at(const struct turn *t, uint32_t i);

/* Events, with their time. Events of a cloud or an engine that was given up are ignored. */
void turn_start(struct turn *t, uint64_t now);
void turn_tick(struct turn *t, uint64_t now);
void turn_pace(struct turn *t, double pace_us); /* a new plan's; as turn_config.pace_us */
void turn_cloud_grant(struct turn *t, uint64_t now, uint32_t tokens_max);
/* The stream has text, which the caller tokenises: the number granted is an estimate. */
void turn_cloud_by_text(struct turn *t, uint64_t now);
/* A token of the stream has no id: no other stream can go on with this answer. */
void turn_cloud_no_ids(struct turn *t);
/* The numerics of the stream are not the device's: its tokens are verified, unless the prompt is
 * shortened: what follows from that proves nothing. */
void turn_cloud_verify(struct turn *t, uint64_t now);
/* `done` tokens of the prompt are prefilled; a sign of life only when it grows, and for no longer
 * than TURN_PROGRESS_STALLS without a token: a counter alone must not keep the user waiting. */
void turn_cloud_progress(struct turn *t, uint64_t now, uint32_t done);
void turn_cloud_token(struct turn *t, uint64_t now, uint32_t index, int32_t id);
enum turn_cloud_end { TURN_CLOUD_BUDGET, TURN_CLOUD_STOP, TURN_CLOUD_LENGTH, TURN_CLOUD_GONE };
/* The stream ended by `done`; GONE: cancel, deadline or drain. */
void turn_cloud_done(struct turn *t, uint64_t now, enum turn_cloud_end end);
/* Refused with a status: asked again after wait_us at the earliest, and never when that is more
 * than TURN_WAIT_MAX_US (UINT64_MAX: the refusal is final). */
void turn_cloud_refused(struct turn *t, uint64_t now, uint64_t wait_us, const char *why);
/* Cut, malformed or an error event; `why` is a sentence. */
void turn_cloud_lost(struct turn *t, uint64_t now, const char *why);
void turn_local_progress(struct turn *t, uint64_t now, uint32_t kv);
/* Which tokens of the prompt are needed: bits [prompt_tokens], the lowest of a byte first; the last
 * token always is. Also before turn_start. Once that leaves tokens out, none is verified. */
void turn_refined(struct turn *t, uint64_t now, const uint8_t *bits);
/* The feed has ended at position kv, as told; if it was complete by then, turn_local_token comes
 * instead. */
void turn_local_paused(struct turn *t, uint64_t now, uint32_t kv);
/* The device would draw `id` where the answer has token `index`. Called for the draws of a feed in
 * order, before the progress or token that they came with. False: that feed is given up, and what
 * else it says no longer counts. */
bool turn_local_drawn(struct turn *t, uint64_t now, uint32_t index, int32_t id, bool is_end);
/* The feed is complete; the token that follows, and whether it ends the answer. */
void turn_local_token(struct turn *t, uint64_t now, int32_t id, bool is_end);
void turn_local_full(struct turn *t, uint64_t now); /* the context is full: nothing can follow */
void turn_local_failed(struct turn *t, uint64_t now, const char *why);
void turn_user_stop(struct turn *t, uint64_t now);

/* What happened, for --stats. Times in microseconds. */
struct turn_report {
    double ttft_us, tpot_mean_us, tpot_max_us, handover_gap_us;
    uint32_t tokens, cloud_tokens, device_tokens, handover, stalls, cloud_opens;
    enum turn_reason reason;
    /* verification, when it took place: `verified` of `received` tokens of the cloud agree, and
     * so many were compared: fewer, when the answer is complete before the device reaches them */
    bool verifying, differs;
    uint32_t verified, compared, received, difference, dropped;
    bool refined;     /* the device read a shortened prompt, of */
    uint32_t reading; /* tokens */
};
enum { TURN_STALL_US = 200000 };
void turn_report_of(const struct turn *t, struct turn_report *ret_report);

const char *turn_reason_name(enum turn_reason r);
const char *turn_source_name(enum turn_source s);

#endif
