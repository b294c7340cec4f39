/*
 * serve_impl: what the files of the device's server share: the server's parts, and the life of an
 * *ask*, one question and its answer. Only the server's own files include this.
 *
 * Life of an ask: ask_new and ask_submit; it is held (ask_before_sending), waits for a device, runs
 * and is over. Its answer grows by tokens, which stay; *readers* are the HTTP requests that follow
 * it, each from a token of its own, and any number of them (reader.c). The ask outlives them. After
 * its end it stays until SERVE_KEPT_MAX newer ones have ended.
 *
 * A token is *clear* once no stop string can begin in it any more; only clear ones are read.
 */
#ifndef PDD_DEVICE_API_SERVE_IMPL_H
#define PDD_DEVICE_API_SERVE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "device/api/record.h"
#include "device/api/serve.h"
#include "device/core.h"
#include "model/text/vocab.h"
#include "policy/admit.h"
#include "proto/openai.h"

enum ask_state { ASK_HELD, ASK_WAITING, ASK_RUNNING, ASK_OVER };

struct ask_token {
    uint32_t at, len;                 /* of its text */
    uint32_t thought_at, thought_len; /* and of what it has of the thought */
    int32_t id;
    uint8_t source; /* enum turn_source */
};

struct ask_progress {
    uint32_t done, total;
};

struct reader;

struct ask {
    struct serve *serve;
    struct ask *next; /* all of the server, the newest first */
    char id[WIRE_ID_MAX];
    enum ask_state state;
    bool forgotten;  /* its conversation was deleted: it goes when it is over and unread */
    bool dropped;    /* another answer of its request failed: it ends when it is unread */
    bool lined;      /* it waits in the line; else, while it waits, for the prompt to be read */
    uint32_t choice; /* which of its request's: see ask_name_choice */
    uint32_t n_choices;
    struct buf echo; /* what precedes its text */
    struct openai_request q;
    struct openai_pdd pdd;
    enum device_mode mode;
    uint32_t tenant;       /* the client, for turns */
    uint64_t created;      /* seconds since 1970 */
    uint64_t unread_since; /* clock_us() */
    uint64_t began, first,
        last; /* the same, of its work, its first text and its last; 0: not yet */
    struct reader *readers;
    /* what the device is asked */
    struct device_question question;
    struct chat_message *messages;
    struct token_list ids;  /* of a completion's prompt */
    struct token_list have; /* of the answer, from before a restart; the device counts from there */
    struct device *device;  /* while it runs */
    /* the answer */
    struct buf text, thought, tokens; /* struct ask_token [n_tokens] */
    uint32_t thought_new;             /* bytes of the thought that belong to the next token */
    uint32_t n_tokens, n_clear;
    size_t clear;                    /* bytes of text in which no stop string can begin */
    struct ask_progress progress[2]; /* by enum turn_source */
    char trouble[ERR_TEXT_MAX];      /* why the cloud was lost, while the answer goes on */
    bool stopped;                    /* by a stop string */
    int32_t next_id;                 /* of the token whose text comes next */
    uint64_t sent_bytes, received_bytes;
    /* its end */
    const char *finish;       /* finish_reason */
    struct err failure;       /* code 0: none */
    struct buf report, brief; /* JSON, whole and for a header */
    struct openai_usage usage;
};

struct serve_metrics {
    uint64_t asked, stopped, length, cancelled, failed; /* answers by end */
    uint64_t busy, invalid, forbidden;                  /* refusals */
    uint64_t tokens[2];                                 /* by source */
    uint64_t handovers, sends, sent_bytes, received_bytes;
    double first_us, first_n; /* sums */
};

struct serve {
    struct loop *loop;
    struct http_server *http;
    struct serve_config c;
    struct device_core *core;
    struct device *devices[SERVE_ANSWERS_MAX];
    struct ask *runs[SERVE_ANSWERS_MAX]; /* what each device answers; NULL: nothing */
    struct admit_line *line;
    struct record *record; /* NULL: nothing is kept */
    struct ask *asks;
    uint32_t n_over;
    struct loop_timer *start_timer, *unread_timer, *forget_timer, *drain_timer, *quiet_timer;
    uint64_t started;
    bool draining;
    char approval[2 * SERVE_APPROVAL_BYTES + 1];
    char model[WIRE_NAME_MAX], fingerprint[OPENAI_FINGERPRINT_MAX], token[SERVE_TEXT_MAX + 1];
    char (*texts)[SERVE_TEXT_MAX + 1]; /* of hosts and origins */
    struct serve_metrics metrics;
    struct buf bytes;          /* scratch */
    const struct vocab *vocab; /* NULL without an engine, as the next */
    const struct engine_info *info;
};

extern const char *const ask_modes[]; /* by enum device_mode, as pdd.mode says them; NULL ends */
/* The index of `text` in such a list, or -1. */
int ask_word(const char *const *words, const char *text);

/* ask.c. NULL: no memory. */
struct ask *ask_new(struct serve *s);
/* The id of a further choice is that of the request's first one, then '.' and its number. It waits
 * until the prompt is read for the first answer to it. */
int ask_name_choice(struct ask *a, const char *first, uint32_t choice, struct err *e);
void ask_take_choice(struct ask *a); /* from its id */
struct ask *ask_find_choice(struct serve *s, const char *id, uint32_t choice);
void ask_drop(struct ask *a); /* soon, if nobody reads it then */
void ask_free(struct ask *a);
struct ask *ask_find(struct serve *s, const char *id);
/* Hold it, or let it wait for a device. `request`: its body, to be kept. ERR_BUSY: too many wait.
 */
int ask_submit(struct ask *a, const char *request, size_t n, struct err *e);
/* The tokens of a completion's prompt; `param` names the wrong field. */
int ask_make_prompt(struct ask *a, struct err *e);
/* One that record_restore brings: over, or it goes on. Owns it. */
void ask_restore(struct ask *a);
/* The user allows that it is sent to the cloud, or not: then the engine here answers alone, and
 * without one it ends. */
void ask_allow(struct ask *a, bool send);
void ask_cancel(struct ask *a);
void ask_nobody_reads(struct ask *a); /* its last reader has gone */
void ask_start_waiting(void *serve);  /* start_timer */
void ask_check_unread(void *serve);   /* unread_timer */
/* Cancel the answers of a conversation, and keep nothing of them. */
void ask_forget(struct serve *s, const char *conversation);
void ask_sweep(void *serve); /* forget_timer */
uint32_t ask_waiting(const struct serve *s);
const struct ask_token *ask_token_at(const struct ask *a, uint32_t i);
const char *ask_state_name(const struct ask *a);
struct openai_head ask_head(const struct ask *a, const char *pdd);
struct openai_timings
ask_timings(const struct ask *a); /* since the last restart, once it is over */

/* reader.c: the request gets what there is from token `from` on, and what comes. A stream's head
 * waits for the start of work, unless `now`. Not 0: no memory, and the request was refused. */
int reader_add(struct ask *a, struct http_request *r, bool stream, bool now, uint32_t from);
/* The same for all answers of a request, in one response. */
int reader_add_all(struct ask *const *asks, uint32_t n, struct http_request *r, bool stream,
                   bool now, uint32_t from);
/* Tokens, progress, a state or the end have come. */
void reader_tell(struct ask *a);
/* quiet_timer: a comment to each stream that is silent for too long, with its head if need be. */
void reader_break_silence(void *serve);

/* report.c: the report of an answer as JSON; `brief`: ASCII, what fits a header. */
int report_put(struct buf *out, const struct ask *a, const struct device_report *r, bool brief);
/* What was served by whom: [["cloud", 24], ["device", 100]]. */
int report_put_served(struct buf *out, const struct ask *a);
/* An answer as it is: an object of /v1/answers; `text`: with its text from token `from` on. */
int report_put_answer(struct buf *out, const struct ask *a, bool text, uint32_t from);

/* Handlers. */
void serve_chat(struct http_request *r, void *serve);
void serve_completion(struct http_request *r, void *serve);
void serve_answers(struct http_request *r, void *serve);
void serve_answer(struct http_request *r, void *serve);
void serve_answer_stop(struct http_request *r, void *serve);
void serve_answer_send(struct http_request *r, void *serve);
void serve_egress(struct http_request *r, void *serve);
void serve_talks(struct http_request *r, void *serve);
void serve_talk(struct http_request *r, void *serve);
void serve_talk_put(struct http_request *r, void *serve);
void serve_talk_drop(struct http_request *r, void *serve);
/* The value of `name` in a query, as far as '&'; NULL. */
const char *serve_query(const char *query, const char *name);
void serve_models(struct http_request *r, void *serve);
void serve_model(struct http_request *r, void *serve);
void serve_tokenize(struct http_request *r, void *serve);
void serve_detokenize(struct http_request *r, void *serve);
void serve_health(struct http_request *r, void *serve);
void serve_reading_stop(struct http_request *r, void *serve);
void serve_status(struct http_request *r, void *serve);
void serve_metrics_page(struct http_request *r, void *serve);
/* Put uses of KV pages on record, as they come. */
void serve_take_uses(void *serve);
/* Remove the KV pages of a conversation whose answers were cancelled, except those that other
 * conversations have. */
void serve_forget_pages(struct serve *s, const char *conversation);
/* Send what was written to `b`, or 503; releases it. */
void serve_reply(struct http_request *r, struct buf *b);
void serve_refuse(struct serve *s, struct http_request *r, const struct err *e, const char *param);

#endif
