/*
 * prompt: the tokens of a request's messages, text or ids, checked against what is served.
 *
 * What the checks need is copied into `struct prompt_rules` on the loop thread, since the servers
 * behind an upstream come and go; the rest is pure, and any thread may do it. Vocabulary and chat
 * template do not change while the backend lives.
 */
#ifndef PDD_CLOUD_API_PROMPT_H
#define PDD_CLOUD_API_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cloud/work/backend.h"
#include "engine/engine.h"
#include "model/vocab.h"
#include "proto/wire.h"

struct prompt_rules {
    const struct vocab *vocab;                 /* NULL: none */
    const struct chat_template *chat_template; /* NULL: none */
    uint32_t vocab_size;
    uint32_t positions_max;    /* of prompt and answer; UINT32_MAX: not known */
    bool takes_ids, passes_on; /* the backend's takes_ids and takes_request */
    char weights_hash[ENGINE_HASH_TEXT], tokenizer_hash[ENGINE_HASH_TEXT];
    char numerics[WIRE_NAME_MAX];
};

void prompt_rules_of(const struct backend *b, struct prompt_rules *ret_rules);

/* How closely the device's model agrees with what is served: what the hashes allow to promise. */
enum wire_match prompt_match(const struct prompt_rules *rules, const struct wire_request *q);

/* The prompt's tokens; none for a backend that takes no ids. *ret_param names the field that is
 * wrong. */
int prompt_make(const struct prompt_rules *rules, const struct wire_request *q, bool ids_allowed,
                struct token_list *prompt, const char **ret_param, struct err *e);
/* The same for a text that stands as it is, control tokens in it recognised. */
int prompt_make_text(const struct prompt_rules *rules, const char *text, size_t n,
                     struct token_list *prompt, struct err *e);
/* Put what the client has already through the detokenizer: half a character may be open. */
int prompt_skip_have(const struct prompt_rules *rules, const struct wire_request *q,
                     struct detok *detok, struct err *e);

/* For a backend that passes requests on: make the JSON of the long parts ahead, `prompt` being the
 * tokens that prompt_make made. */
int prompt_prepare(const struct prompt_rules *rules, struct wire_request *q,
                   const struct token_list *prompt, struct err *e);

/* The error of a prompt that only a vocabulary makes use of, where the backend has none. */
int prompt_need_vocab(struct err *e);

#endif
