/*
 * openai: the messages of OpenAI's API (/v1/chat/completions, /v1/completions), as structs: reading
 * requests, writing responses. Pure. Source of the names: OpenAI's API reference; where that is
 * silent, what vLLM and llama-server do.
 *
 * openai_fields.h has a row for each field of a request: whether it is served, passed on to an
 * upstream server, refused by name, or ignored. docs/API.md shows it.
 */
#ifndef PDD_PROTO_OPENAI_H
#define PDD_PROTO_OPENAI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/wire.h"

enum {
    OPENAI_STOPS_MAX = 64,
    OPENAI_STOP_BYTES_MAX = 1024,
    OPENAI_STOPS_BYTES_MAX = 16384, /* of all, since each token is searched for all */
    OPENAI_TOP_CHAT_MAX = 20,       /* top_logprobs of a chat */
    OPENAI_TOP_COMPLETION_MAX = 5,  /* logprobs of a completion */
    OPENAI_COMPLETION_TOKENS = 16,  /* default of max_tokens there; of a chat: all that fits */
    OPENAI_CHOICES_MAX = 128,       /* n, prompts, and their product */
    OPENAI_PARAM_MAX = 64,
    OPENAI_FINGERPRINT_MAX = 16
};

struct openai_stop {
    char *text;
    size_t len;
};

/* A completion's prompt: a text, or ids where that is NULL. */
struct openai_prompt {
    char *text;
    size_t text_len;
    int32_t *ids; /* [n_ids] */
    uint32_t n_ids;
};

struct openai_request {
    bool chat;
    struct wire_request ask; /* model, messages or token ids, sampling, tokens_max */
    char *text;              /* a completion's first prompt, unless given as ids */
    size_t text_len;
    struct openai_prompt *more; /* [n_more] its further prompts */
    uint32_t n_more;
    uint32_t n;            /* answers to each prompt; the k-th is drawn with seed + k */
    bool echo;             /* the prompt's text precedes each answer */
    bool thoughts_in_text; /* of a chat: what the model thinks is not told apart */
    struct openai_stop stops[OPENAI_STOPS_MAX];
    uint32_t n_stops;
    bool stream, include_usage;
    bool timings, progress; /* timings_per_token, return_progress */
    bool seeded;            /* else draw one */
    bool logprobs;          /* and the number of likeliest tokens: */
    uint32_t top_logprobs;
};

/* Fills `r` (whose old content is not released) on success only. ret_param: the name of the field
 * that is wrong, or "". ERR_UNSUPPORTED: a field that we know and do not support. */
int openai_request_decode(const char *json, size_t n, bool chat, struct openai_request *r,
                          char ret_param[OPENAI_PARAM_MAX], struct err *e);
/* Choices of the response: choice i answers prompt i / n. */
uint32_t openai_request_choices(const struct openai_request *r);
/* Prompt i of a completion; it points into `r`. */
struct openai_prompt openai_request_prompt(const struct openai_request *r, uint32_t i);
/* Free the prompts, which may be long; the rest stays. */
void openai_request_free_prompt(struct openai_request *r);
void openai_request_release(struct openai_request *r);

/* Names and meaning are llama-server's: what of the prompt was computed, and the tokens from the
 * first one on. */
struct openai_timings {
    uint32_t cached, prompt, predicted; /* tokens */
    uint64_t prompt_us, predicted_us;
};

/* Tokens of the prompt; `processed` has those that were cached. */
struct openai_progress {
    uint32_t total, cached, processed;
    uint64_t us; /* since it began */
};

/* Shared by all parts of one response. */
struct openai_head {
    bool chat;
    const char *id, *model;  /* need no escaping */
    const char *fingerprint; /* of the model and its numerics; "": null */
    uint64_t created;        /* seconds since 1970 */
    const char *pdd;         /* JSON, the value of "pdd" in answers and chunks; NULL: none */
    const struct openai_timings *timings;   /* NULL: none, as the next */
    const struct openai_progress *progress; /* of chunks */
};

/* Another one for other weights and for other numerics; "" where weights_hash is "". */
void openai_fingerprint(const char *weights_hash, const char *numerics,
                        char ret_fingerprint[OPENAI_FINGERPRINT_MAX]);

struct openai_usage {
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    uint32_t reasoning_tokens; /* of completion_tokens; written unless 0 */
};

/* A token's bytes, which need not be whole characters. */
struct openai_piece {
    const char *bytes;
    size_t len;
    float logprob;
};

struct openai_row {
    struct openai_piece token;
    struct openai_piece top[OPENAI_TOP_CHAT_MAX];
    uint32_t n_top;
    uint32_t text_offset; /* characters of the answer that precede it; completions only */
};

/* The log-probabilities of tokens [from, to) of an answer: `row` fills one, valid until the next
 * call. */
struct openai_rows {
    void (*row)(void *arg, uint32_t i, struct openai_row *ret_row);
    void *arg;
    uint32_t from, to;
};

/* One choice: its index, text, rows (NULL: null), finish_reason (NULL: null), and what the model
 * thought before (thought_len 0: nothing), which is reasoning_content of a chat. A chunk has one of
 * both.
 */
struct openai_choice {
    uint32_t index;
    const char *text;
    size_t text_len;
    const struct openai_rows *rows;
    const char *finish_reason;
    const char *thought;
    size_t thought_len;
};

/* Append a whole response, of c[n]. */
int openai_put_answer(struct buf *out, const struct openai_head *h, const struct openai_choice *c,
                      uint32_t n, const struct openai_usage *usage);
/* Append a chunk of a stream as SSE. `usage_null`: write "usage": null, as in streams whose last
 * chunk has it. */
int openai_put_chunk(struct buf *out, const struct openai_head *h, const struct openai_choice *c,
                     bool usage_null);
/* The first chunk of a chat's choice, which has the role only. */
int openai_put_role(struct buf *out, const struct openai_head *h, uint32_t index, bool usage_null);
/* A chunk without a choice, for what h->pdd says. */
int openai_put_note(struct buf *out, const struct openai_head *h, bool usage_null);
int openai_put_usage(struct buf *out, const struct openai_head *h,
                     const struct openai_usage *usage);
/* An error after the stream's head, in OpenAI's format. */
int openai_put_error(struct buf *out, int status, const char *code, const char *message);
int openai_put_end(struct buf *out);

/* What a request to a device says besides: its "pdd" object. Other servers ignore it. */
struct openai_pdd {
    char id[WIRE_ID_MAX];    /* of the answer, chosen by the client; "": by the server */
    char mode[16], pace[16]; /* "": not said, as a negative or UINT32_MAX below */
    float refine;            /* keep ratio; 0: off */
    uint32_t cloud_tokens;   /* borrow exactly this many */
    uint32_t keep_s;         /* how long the answer goes on while nobody reads it */
    bool progress;           /* tell of progress before the first token */
    char conversation[WIRE_ID_MAX];
};
void openai_pdd_init(struct openai_pdd *p); /* nothing said */
/* The same as openai_request_decode, and reads the "pdd" object, if there is one; unknown fields of
 * that are refused by name. */
int openai_request_decode_pdd(const char *json, size_t n, bool chat, struct openai_request *r,
                              struct openai_pdd *p, char ret_param[OPENAI_PARAM_MAX],
                              struct err *e);
/* The "pdd" object alone. */
int openai_pdd_decode(const char *json, size_t n, struct openai_pdd *p,
                      char ret_param[OPENAI_PARAM_MAX], struct err *e);

/* Responses of /tokenize ("tokens", "count": llama-server's first, all of vLLM's) and /detokenize
 * ("content" is llama-server's, "prompt" vLLM's). */
int openai_put_tokens(struct buf *out, const int32_t *ids, uint32_t n, uint32_t context);
int openai_put_text(struct buf *out, const char *text, size_t n);

/* Bodies of /tokenize and /detokenize; see openai_tokens.c for their fields. */
struct openai_tokenize {
    char *text;
    size_t text_len;
    bool add_special, parse_special;
};
int openai_tokenize_decode(const char *json, size_t n, struct openai_tokenize *r,
                           char ret_param[OPENAI_PARAM_MAX], struct err *e);
void openai_tokenize_release(struct openai_tokenize *r);
/* ret_ids: [ret_n], the caller frees it with mem_free; NULL when there are none. */
int openai_detokenize_decode(const char *json, size_t n, int32_t **ret_ids, uint32_t *ret_n,
                             char ret_param[OPENAI_PARAM_MAX], struct err *e);

#endif
