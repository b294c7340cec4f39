/*
 * device: the runtime of the device. Ask a question: the answer starts in the cloud and is finished
 * by the device's own engine, or comes from one of them alone.
 *
 * A device has two threads of its own: the loop thread (sockets, tokenisation, the turn) and the
 * engine thread (device/local.h). device_ask blocks its caller; one question at a time.
 * Callbacks run on the loop thread; of the functions here they may call device_cancel only.
 *
 * Local only is a hard guarantee: without `cloud_url` no HTTP client exists and no socket is
 * opened; DEVICE_LOCAL_ONLY starts no call (but a device with a URL keeps a warm connection).
 */
#ifndef PDD_DEVICE_DEVICE_H
#define PDD_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sampling.h"
#include "engine/engine.h"
#include "model/text/template.h"
#include "policy/pace.h"
#include "policy/plan.h"
#include "policy/turn.h"
#include "proto/wire.h"

struct device;
struct store;

enum {
    DEVICE_ANSWER_DEFAULT = 512,      /* tokens */
    DEVICE_TEXT_MAX = 16 << 20,       /* bytes of an answer */
    DEVICE_STALL_US = 5000000,        /* longest silence of the cloud, with an engine here */
    DEVICE_STALL_ALONE_US = 30000000, /* and without */
    DEVICE_REOPEN_MAX = 2
};

struct device_options {
    struct engine *engine;             /* taken over on success; NULL: the cloud does everything */
    double prefill_tps, decode_us;     /* known speed of the engine; 0: measured */
    const char *cloud_url;             /* NULL: no cloud */
    const char *key, *ca_file, *model; /* each may be NULL */
    uint64_t stall_us;                 /* 0: as above */
    bool idle_fill;      /* after an answer, read what of the conversation the KV cache lacks, */
    bool fill_always;    /* also while the machine runs on its battery */
    struct store *store; /* for the profile; it must outlive the device, which alone uses it. NULL:
                          * every run begins with guesses */
    void (*on_use)(void *arg); /* there may be uses of KV pages to take (device/kv_disk.h); NULL */
    void *arg;
    const char *sys; /* where energy is read (base/energy.h); NULL: /sys */
};

/* What a request to the cloud holds of prompt and answer. */
struct device_sent {
    const char *url; /* of the cloud */
    bool as_text;    /* messages; else token ids */
    uint32_t n;      /* messages, or ids of the prompt */
    uint32_t n_have; /* ids of the answer */
};

enum device_mode { DEVICE_AUTO, DEVICE_LOCAL_ONLY, DEVICE_CLOUD_ONLY };

/* Whether a cloud's tokens are compared with what this device would have drawn (policy/turn.h),
 * where its numerics are not ours. AUTO: if it has the same weights. ON: also where only the caller
 * knows that it has (another engine), if tokens are not sampled: it draws other random numbers. */
enum device_verify { DEVICE_VERIFY_AUTO, DEVICE_VERIFY_ON, DEVICE_VERIFY_OFF };

/* Whether the prompt may be shortened to what the answer needs (docs/design/refine.md), which is
 * lossy. AUTO: only where the device could not take over in time with the whole prompt. RATIO: ask
 * the cloud for refine_ratio of it; only `pdd cloud` with an engine can choose. LOCAL: this device
 * chooses refine_ratio of it by the words of the question, also without a cloud. */
enum device_refine {
    DEVICE_REFINE_AUTO,
    DEVICE_REFINE_OFF,
    DEVICE_REFINE_RATIO,
    DEVICE_REFINE_LOCAL
};

struct device_token {
    int32_t id; /* of the model that made it */
    enum turn_source source;
    uint64_t arrived_us, shown_us; /* since the question was asked */
    size_t text_at, text_len;      /* in the report's text */
};

struct device_question {
    const struct chat_message *messages; /* [n_messages]; or else */
    uint32_t n_messages;
    /* JSON for the chat template of the engine here, as in struct chat_prompt; each may be NULL. A
     * cloud with another tokenizer cannot be told of them, and is not asked where there are calls
     * or arguments. Tools are for the template alone, if it has a place for them. */
    const char *const *extras; /* [n_messages] */
    const char *tools, *arguments;
    int64_t now; /* the wall clock for the chat template, here and in the cloud (clock_wall_of); 0:
                    as it is when the question is asked */
    const char *conversation; /* its id, for what is kept on disk; NULL: it is none */
    const char *raw;          /* a prompt without template; needs an engine here */
    size_t raw_len;
    const int32_t *ids; /* or a prompt in token ids of the engine here */
    uint32_t n_ids;
    const int32_t *have; /* [n_have] the beginning of the answer, in its ids: not shown again */
    uint32_t n_have;
    struct sampling sampling;
    uint32_t tokens_max; /* of the answer; 0: DEVICE_ANSWER_DEFAULT */
    uint32_t room_min;   /* refuse a prompt (ERR_LIMIT) that leaves fewer tokens for the answer */
    enum device_mode mode;
    enum pace_mode pace;
    enum plan_goal goal;
    /* In place of the goal's where not 0: first_us, interval_us and cloud_tokens, which holds as
     * long as the device can go on. */
    struct plan_limits limits;
    int64_t cloud_tokens; /* request exactly this many; -1: as planned */
    enum device_verify verify;
    enum device_refine refine;
    float refine_ratio; /* in (0, 1) with DEVICE_REFINE_RATIO and _LOCAL */
    /* Each may be NULL. on_text: whole UTF-8 characters, maybe none; index: of the token. */
    void (*on_text)(void *arg, const char *text, size_t n, uint32_t index, enum turn_source source);
    /* Of messages: what the model thinks, where it marks that (model/text/thought.h), with the
     * index of its token, before that one's on_text. NULL: it is a part of the text, marks and all.
     */
    void (*on_thought)(void *arg, const char *text, size_t n, uint32_t index,
                       enum turn_source source);
    void (*on_token)(void *arg, const struct device_token *token, uint32_t index); /* before it */
    void (*on_progress)(void *arg, uint32_t done, uint32_t total);       /* of the prefill here */
    void (*on_cloud_progress)(void *arg, uint32_t done, uint32_t total); /* until the first text */
    void (*on_trouble)(void *arg, const char *why); /* the cloud is lost, and the answer goes on */
    /* Before anything of the question leaves this machine, each time. Not 0: it does not leave, and
     * the cloud counts as lost for the reason in `e`. */
    int (*on_send)(void *arg, const struct device_sent *sent, struct err *e);
    void *arg;
};

/* What refinement did; turn.refined says whether the device read a shortened prompt. */
struct device_refined {
    uint32_t versions;         /* of the choice that came; 0: none */
    bool local;                /* it is the device's own */
    float ratio, coverage;     /* of the last one, as it says */
    uint32_t restored;         /* the most tokens that one left out and that stay in any case */
    char refused[WIRE_ID_MAX]; /* "", or why nothing was chosen (policy/keep.h) */
};

struct device_report {
    struct turn_report turn;
    struct plan plan;
    const struct device_token *tokens; /* [n], those shown */
    uint32_t n;
    const char *text; /* the whole answer as shown, 0-terminated */
    size_t text_len;
    const char *thought; /* the same, with on_thought */
    size_t thought_len;
    uint32_t thought_tokens;             /* the first ones of the answer, with those of `have` */
    uint32_t prompt_tokens, kept_tokens; /* of the prompt, already in the device's KV cache */
    bool any_match;                      /* the cloud answered, and `match` holds */
    enum wire_match match;
    /* Why the prompt that was to be shortened was read whole, or from some place on: a word of
     * policy/keep.h or a sentence; "": it was not to be, or it was. */
    const char *unrefined;
    const char *unverified; /* why an inexact cloud's tokens were not verified; "": they were, or
                               it was exact */
    struct device_refined refined;
    uint32_t cloud_prompt_tokens, cloud_cached_tokens;
    double prefill_tps, decode_us;       /* as measured in this answer, or predicted */
    double cloud_first_us;               /* from asking to the cloud's first token; 0: none came */
    uint64_t sent_bytes, received_bytes; /* bodies to and from the cloud */
    double cloud_slot_us; /* how long the cloud held a slot: from its grants to the ends */
    const char *trouble;  /* "", or what went wrong on the way though an answer came */
    int cause;            /* ERR_* of the end, cloud or device, that was lost last; 0: none was */
    const char *emulated; /* NULL, or what speed was emulated */
    const char *model;    /* of our own engine; NULL without one, as the next two */
    const char *numerics, *weights_hash;
    /* Joules from asking to the end, as energy_how says: "measured: battery, whole machine", or
     * "declared: ...", by the power that the profile assumes; "": nothing is known. */
    double energy_j;
    bool energy_measured;
    const char *energy_how;
};

/* Of an answer that has not begun, by an engine of this description; NULL: without one. */
void device_report_init(struct device_report *r, const struct engine_info *info);
/* How far the ends agree: "refined" where tokens of the device follow from a shortened prompt
 * (those of the cloud follow from all of it), else the name of `match`; NULL: no cloud answered. */
const char *device_match_name(const struct device_report *r);

int device_open(const struct device_options *options, struct device **ret_device, struct err *e);
void device_close(struct device *d); /* NULL is fine */

/* 0: an answer came, maybe cut by its maximum or by device_cancel (see turn.reason). Negative: it
 * could not be asked, or neither end could finish it; what was shown is in the report then too. The
 * report's pointers hold until the next question. */
int device_ask(struct device *d, const struct device_question *q, struct device_report *ret_report,
               struct err *e);

/* Stop the answer that is being given, if any. From any thread. */
void device_cancel(struct device *d);
/* Whether the device reads what the KV cache lacks (idle_fill); a question ends that within a step.
 * From any thread. */
bool device_fills(struct device *d);

#endif
