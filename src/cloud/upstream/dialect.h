/*
 * dialect: requests to each kind of upstream server, and the reading of its stream. Pure: bytes in,
 * bytes out; no sockets, no clock.
 *
 *   pdd      another `pdd cloud`: /v1/assist is forwarded as it is, with ids, hashes and match
 *   llama    llama-server: /completion with token ids, `return_tokens`, `return_progress`
 *   vllm     vLLM: /v1/completions with token ids and `return_token_ids` (0.10.2 and later)
 *   sglang   SGLang: /generate with `input_ids`, which returns `output_ids`
 *   openai   any other server with OpenAI's API
 *
 * A request with options that are computed there and not here (proto/openai_pass.h) goes to the
 * OpenAI API that all of them have, with the names of the kind, and its answer comes back as it is.
 * Other requests: with a vocabulary of their model, all but pdd and openai get token ids. Else they
 * get messages at /v1/chat/completions, which returns text without ids. `openai` knows only the
 * latter.
 */
#ifndef PDD_CLOUD_UPSTREAM_DIALECT_H
#define PDD_CLOUD_UPSTREAM_DIALECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/text/vocab.h"
#include "proto/wire.h"

enum dialect { DIALECT_PDD, DIALECT_LLAMA, DIALECT_VLLM, DIALECT_SGLANG, DIALECT_OPENAI, DIALECTS };

enum {
    DIALECT_MODEL_MAX = 256,         /* a model's name at the server */
    DIALECT_EVENT_TOKENS_MAX = 4096, /* token ids in one event: SGLang repeats the answer so far */
    DIALECT_TEXT_MAX = 1 << 20,      /* text of one event */
    DIALECT_CHUNK_MAX = 64 << 20,    /* of a passed answer: what of one event goes on */
    DIALECT_WORD_MAX = 64
};

const char *dialect_name(enum dialect d);

/* The response of GET /v1/models. */
struct dialect_model {
    enum dialect dialect;
    char name[DIALECT_MODEL_MAX];
    uint32_t context; /* 0: not said */
    /* pdd only; else "" */
    char weights[WIRE_HASH_MAX], tokenizer[WIRE_HASH_MAX], chat_template[WIRE_HASH_MAX];
    char numerics[WIRE_NAME_MAX];
};

/* The model `wanted` ("": the first) of such a response. ERR_PROTOCOL: malformed; ERR_NOT_FOUND: it
 * does not list this model. */
int dialect_decode_models(const char *json, size_t n, const char *wanted,
                          struct dialect_model *ret_model, struct err *e);
/* Whether the response of vLLM's GET /version names a version that returns token ids. */
bool dialect_vllm_gives_ids(const char *json, size_t n);

/* Fields of a chat that a server may refuse, and goes without; max_tokens is called
 * max_completion_tokens then. */
enum {
    DIALECT_NO_MAX_TOKENS = 1 << 0,
    DIALECT_NO_TEMPERATURE = 1 << 1,
    DIALECT_NO_TOP_P = 1 << 2,
    DIALECT_NO_TOP_K = 1 << 3,
    DIALECT_NO_MIN_P = 1 << 4,
    DIALECT_NO_PENALTY = 1 << 5,
    DIALECT_NO_SEED = 1 << 6,
    DIALECT_NO_STREAM_OPTIONS = 1 << 7,
    DIALECT_REFUSAL_MAX = 1 << 16 /* bytes of an error that is looked at */
};

/* Which of them the error of a status 400 or 422 refuses; 0: none but those of `without`. */
uint32_t dialect_refused_field(const char *body, size_t n, uint32_t without);
const char *dialect_field_name(uint32_t bit);
/* Whether such an error is about the number of tokens that was asked for: the context has no room
 * for it after the prompt, or the server's own limit is lower. Without a limit the answer is
 * shorter then. */
bool dialect_limit_refused(const char *body, size_t n);

struct openai_pass;
/* What the error of a status 4xx says besides its sentence: its code, and the field that it is
 * about, which may be one of those passed on (`p`, may be NULL) that its sentence names; else "".
 */
struct dialect_fault {
    char code[DIALECT_WORD_MAX], param[DIALECT_WORD_MAX];
};
void dialect_read_fault(const char *body, size_t n, const struct openai_pass *p,
                        struct dialect_fault *ret_fault);

struct dialect_request {
    const struct dialect_model *model;
    const int32_t *tokens; /* [n_tokens] prompt and `have`; NULL: see asked */
    uint32_t n_tokens, n_have;
    const struct wire_request *asked;
    struct sampling sampling;
    uint32_t tokens_max, deadline_ms; /* 0: none */
    uint32_t without;                 /* of a chat: DIALECT_NO_... */
    bool unlimited;      /* it refuses our limit of tokens: see dialect_limit_refused */
    const char *refused; /* after an error: the field that is wrong, or NULL */
};

/* Whether its stream will have token ids. */
bool dialect_by_ids(const struct dialect_request *q);
/* Append the body and set the path. ERR_BAD_INPUT: such a server cannot serve this; the sentence
 * names the remedy. */
int dialect_encode(struct dialect_request *q, const char **ret_path, struct buf *body,
                   struct err *e);

/* A stream while it is read. `ids`, `text` and `thought` are those of the last event; a thought
 * (reasoning_content, reasoning, parts of type thinking) is no part of the text. */
struct dialect_stream {
    enum dialect dialect;
    bool by_ids;        /* dialect_by_ids of the request */
    bool passes;        /* its answer goes on as it is, */
    bool chat, streams; /* of a chat; to a client that wants a stream */
    bool limited;       /* the client has said how many tokens */
    uint32_t choices_asked, choices_computed;
    const struct vocab *v; /* by_ids: of the ids; NULL for pdd */
    uint32_t asked;        /* tokens_max */
    uint32_t n_have;
    /* of the last event */
    bool granted, progress, over;
    struct token_list ids;
    struct buf text, thought;
    struct buf chunk; /* passes: members of a chunk, or of the whole answer, as JSON: choices, */
    uint32_t done, total; /* progress */
    enum wire_reason reason;
    /* so far */
    uint32_t produced; /* tokens, or pieces of text without ids */
    uint32_t seen;     /* the same by the server's count: with the token that ends the answer */
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    struct buf usage;                   /* passes: as the server says it, JSON */
    struct buf choices;                 /* passes: a byte for each, DIALECT_CHOICE_... */
    uint32_t n_finished, n_begun;       /* of them */
    char finish_word[DIALECT_WORD_MAX]; /* a finish_reason that is neither stop nor length; or "" */
    char fingerprint[DIALECT_WORD_MAX]; /* the server's system_fingerprint, or "" */
    enum wire_match match;
    char id[WIRE_ID_MAX];     /* pdd: of the assist there */
    bool finished;            /* a reason came; only counts follow */
    struct wire_stream order; /* pdd: of its events */
    struct wire_event event;  /* pdd: scratch */
};

void dialect_stream_init(struct dialect_stream *s, const struct dialect_request *q,
                         const struct vocab *v);
void dialect_stream_release(struct dialect_stream *s);
/* Take one event of the stream. What is not understood is passed over: signs of life, counts, and
 * all but counts that follows a finish_reason. ERR_PROTOCOL: malformed, ids out of range or
 * missing, or events of a pdd out of order (wire_stream: its grant comes first). Other codes: the
 * server sent an error, in one of the forms of error_of. */
int dialect_decode(struct dialect_stream *s, const char *name, const char *data, size_t n,
                   struct err *e);
/* The same for a response that is no stream: all of it is one JSON object. */
int dialect_decode_whole(struct dialect_stream *s, const char *data, size_t n, struct err *e);
/* Whether a stream that ends now, without [DONE], is whole all the same: each choice that began has
 * ended. */
bool dialect_stream_settled(const struct dialect_stream *s);

#endif
