/*
 * wire: the messages of /v1/assist (docs/design/handover.md), as structs, and their JSON.
 *
 * Text in events is what the token completes: whole UTF-8 characters only, maybe none; the id is
 * the truth. A cloud whose upstream server returns no ids sends none (match `text`): an event is
 * then a piece of text, and an answer that was cut cannot continue there. `done` with reason stop
 * means that the next token would end the answer; that token itself is not sent. Unknown fields of
 * a request are refused by name, so that no option is silently without effect; unknown fields of
 * events are ignored, so that an older device understands a newer cloud. `refine` is optional: a
 * grant without "refine": true is followed by no `refined` event, and the device prefills the whole
 * prompt. Seeds are below 2^63, as JSON integers here are signed. Pure.
 */
#ifndef PDD_PROTO_WIRE_H
#define PDD_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/sampling.h"

enum {
    WIRE_PROMPT_MAX = 1 << 20, /* token ids */
    WIRE_MESSAGES_MAX = 1024,
    WIRE_WHOLE_MAX = 4 * WIRE_MESSAGES_MAX, /* numbers: two for each range of `whole` */
    WIRE_TOKENS_MAX = 1 << 20,              /* N */
    WIRE_BODY_MAX = 16 << 20,               /* bytes of a request */
    WIRE_EVENT_MAX = 1 << 20, /* bytes of an event's text; SSE_LINE_MAX (net/sse.h) is equal */
    WIRE_NAME_MAX = 128,
    WIRE_HASH_MAX = 65,
    WIRE_ID_MAX = 40
};

struct openai_pass;

struct wire_message {
    char *role, *content;
    size_t content_len;
};

/* A part of a request as JSON, made before the request is encoded; text NULL: it was not. */
struct wire_json {
    char *text; /* [len] and a zero */
    size_t len;
};

/* What a device asks of refinement (policy/keep.h): which tokens of its prompt it needs. Ranges
 * count tokens of `prompt`; a request with messages has none. */
struct wire_refine {
    float ratio;       /* the largest part of the new tokens that it can afford; 0: no refinement */
    float coverage;    /* how much of the score is enough, in (0, 1]; 0: as the server chooses */
    uint32_t held;     /* the first tokens of the prompt, in the device's KV cache already */
    int32_t *messages; /* [n_messages] where each message ends, ascending; the last: n_prompt */
    uint32_t n_messages; /* 0: the server finds them by the control tokens */
    int32_t *whole; /* [n_whole] from, to, from, to, ...: ranges of which every token is kept */
    uint32_t n_whole;
};

struct wire_request {
    char model[WIRE_NAME_MAX]; /* "": whatever the server has */
    char weights[WIRE_HASH_MAX], tokenizer[WIRE_HASH_MAX], chat_template[WIRE_HASH_MAX];
    char numerics[WIRE_NAME_MAX];
    int32_t *prompt; /* [n_prompt] token ids; NULL when messages are given */
    uint32_t n_prompt;
    uint32_t answered; /* the last tokens of prompt, which are of the answer: the device went on
                          with one that it had begun before */
    struct wire_message *messages; /* [n_messages] */
    uint32_t n_messages;
    /* JSON for the chat template here, which is not sent; each may be NULL. */
    char **extras; /* [n_messages] objects of further fields of a message, or NULL */
    char *tools, *arguments;
    int32_t *have; /* [n_have] tokens of the answer already received */
    uint32_t n_have;
    struct sampling sampling; /* but for answer_from, which each end knows by itself */
    uint32_t tokens_max;      /* N: the most tokens of this stream */
    struct wire_refine refine;
    uint32_t deadline_ms; /* 0: none */
    /* With messages: the wall clock of who asks, for a chat template that tells the date; 0: the
     * server's own. So the prompt stays the same when the answer is asked for again. */
    uint64_t now;
    /* Made by wire_request_prepare: messages (an array), prompt and have (ids between commas,
     * without brackets), and by wire_request_prepare_tokens: a prompt's tokens and have, together.
     */
    struct wire_json messages_json, prompt_json, have_json, tokens_json;
    /* A request of OpenAI's API that goes to a server of that API (proto/openai_pass.h); NULL: it
     * is none. It has no messages and no prompt then. */
    struct openai_pass *passed;
    struct buf room; /* of wire_request_prepare: memory for the encoded request, mapped already */
};

/* Whether those further fields hold calls of functions or a result of one, without which the
 * conversation would be another. NULL is fine. */
bool wire_message_has_calls(const char *extra);

void wire_request_init(struct wire_request *r); /* greedy, everything optional absent */
void wire_request_release(struct wire_request *r);
int wire_request_encode(const struct wire_request *r, struct buf *out, struct err *e);
/* Make the JSON of what may be long, so that encoding only copies it: for a request that one thread
 * prepares and another, which must not take long, encodes. */
int wire_request_prepare(struct wire_request *r, struct err *e);
int wire_request_prepare_tokens(struct wire_request *r, const int32_t *prompt, uint32_t n_prompt,
                                struct err *e);
/* Free the texts of messages whose JSON was made: encoding does not need them. */
void wire_request_free_texts(struct wire_request *r);
/* Fills `r` (whose old content is not released) on success only; then wire_request_release frees
 * it. The sentence names the wrong field. Parsing takes up to JSON_TREE_MAX besides the texts for a
 * moment: a server sets its body_max from its context (wire_body_max). */
int wire_request_decode(const char *json, size_t n, struct wire_request *r, struct err *e);

/* Body limit for a context of that length: ids of up to ten digits, or as much text. */
static inline size_t wire_body_max(uint32_t context)
{
    size_t n = 65536 + (size_t)context * 12;
    return n < WIRE_BODY_MAX ? n : WIRE_BODY_MAX;
}

/* PATCH body: {"tokens_max": N}; N counts from the first token of the stream. */
int wire_patch_encode(uint32_t tokens_max, struct buf *out, struct err *e);
int wire_patch_decode(const char *json, size_t n, uint32_t *ret_tokens_max, struct err *e);

/* Closest first. WEIGHTS: equal weights, another class of numerics. */
enum wire_match { WIRE_EXACT, WIRE_WEIGHTS, WIRE_TOKENS, WIRE_TEXT };
enum wire_reason {
    WIRE_BUDGET, /* N tokens were sent */
    WIRE_STOP,   /* the answer is over */
    WIRE_LENGTH, /* the context is full */
    WIRE_CANCEL,
    WIRE_DEADLINE,
    WIRE_DRAIN /* the server shuts down */
};
enum wire_kind {
    WIRE_GRANT,
    WIRE_PROGRESS,
    WIRE_REFINED,
    WIRE_TOKEN,
    WIRE_DONE,
    WIRE_ERROR,
    WIRE_UNKNOWN
};

struct wire_event {
    enum wire_kind kind;
    /* grant */
    char id[WIRE_ID_MAX];
    enum wire_match match;
    uint32_t tokens_max, prompt_tokens, cached_tokens, first_token_ms;
    bool refine; /* `refined` events follow */
    /* progress */
    uint32_t done, total;
    /* refined: the first at the end of prefill, before the first token */
    uint32_t version;          /* from 1 on; a later one replaces the earlier ones */
    bool final;                /* no other follows */
    float ratio;               /* what is kept of the new tokens; 1 when refused */
    float coverage;            /* what the kept tokens have of the score; 1 when refused */
    uint32_t chunk;            /* tokens of a bit; `pdd cloud` sends 1 */
    struct buf kept;           /* bitmap of the prompt, see wire_event_keeps; empty when refused */
    char refused[WIRE_ID_MAX]; /* "", or why the whole prompt is needed (policy/keep.h) */
    /* token */
    uint32_t index; /* absolute, from the first token of the answer */
    int32_t token;  /* -1: only its text is known */
    struct buf text;
    /* done; prompt_tokens and cached_tokens as in grant */
    enum wire_reason reason;
    uint32_t completion_tokens;
    /* error */
    char code[WIRE_ID_MAX], message[ERR_TEXT_MAX];
};

void wire_event_init(struct wire_event *ev);
void wire_event_release(struct wire_event *ev);
/* Append the event as SSE. */
int wire_event_encode(const struct wire_event *ev, struct buf *out, struct err *e);
/* From the name and data of an SSE event; an unknown name gives WIRE_UNKNOWN. `ev` has been through
 * wire_event_init and may be used again and again; its bufs keep their memory. Anything malformed
 * is ERR_PROTOCOL, and then only the bufs of `ev` may have changed. */
int wire_event_decode(const char *name, const char *data, size_t n, struct wire_event *ev,
                      struct err *e);

/* Whether a `refined` event keeps that token of the prompt: bit `position / chunk`, the lowest of a
 * byte first. A refused event keeps all. */
bool wire_event_keeps(const struct wire_event *ev, uint32_t position);
/* Bytes of such a bitmap. */
size_t wire_kept_bytes(uint32_t n_prompt, uint32_t chunk);

/* Checks the order of one stream's events: one grant, then the rest, tokens by index, `done` or
 * `error` last; `done` has the number of tokens; versions of `refined` grow, end with the final one
 * and have a bit for each token of the prompt. Only `done` with cancel, deadline or drain, and
 * `error`, may come without a grant. Every reader of a stream passes each event through this, so
 * that the code after it sees no other order. */
struct wire_stream {
    uint32_t n_prompt;           /* token ids of the request; 0: it has messages */
    uint32_t first, next;        /* index of the first token, and of the next one */
    uint32_t version;            /* of the last `refined` event */
    bool granted, over, refined; /* refined: the final version has come */
};

void wire_stream_init(struct wire_stream *s, uint32_t n_prompt, uint32_t n_have);
/* ERR_PROTOCOL: the event is out of order. A repeated token passes and changes nothing: the caller
 * knows whether it is the same. */
int wire_stream_take(struct wire_stream *s, const struct wire_event *ev, struct err *e);

/* A model's name that can stand in JSON, headers, logs and URLs as it is: '-' takes the place of
 * each byte that cannot, and what is too long is cut. */
void wire_name_set(char ret_name[WIRE_NAME_MAX], const char *name);
const char *wire_match_name(enum wire_match m);
const char *wire_reason_name(enum wire_reason r);

/* The code of an error for a prompt that does not fit; OpenAI's name. */
#define WIRE_CODE_TOO_LONG "context_length_exceeded"

/* {"error": {"message", "type", "code", "param"}}, in OpenAI's format; code and param may be
 * NULL. The type follows from the status: 401 authentication_error, 429 rate_limit_error, 5xx
 * server_error, other invalid_request_error. An http_error_body_fn (net/http_server.h). */
int wire_error_body(int status, const char *code, const char *message, const char *param,
                    struct buf *out);
/* The message of such a body, or of any other (cut); for error sentences. */
void wire_error_text(const char *body, size_t n, char *out, size_t size);
/* Whether that is its code or its type. */
bool wire_error_is(const char *body, size_t n, const char *name);

#endif
