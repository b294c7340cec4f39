/*
 * prompt: the tokens of a request's messages, text or ids, checked against what is served.
 *
 * The loop thread copies what the checks need into `struct prompt_rules`, since upstream servers
 * come and go. The rest is pure, for any thread. Vocabulary and chat template do not change while
 * the backend lives.
 */
#ifndef PDD_CLOUD_API_PROMPT_H
#define PDD_CLOUD_API_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cloud/work/backend.h"
#include "engine/engine.h"
#include "model/text/vocab.h"
#include "proto/wire.h"

struct prompt_rules {
    const struct vocab *vocab;                 /* NULL: none */
    const struct chat_template *chat_template; /* NULL: none */
    uint32_t vocab_size;
    uint32_t positions_max;    /* of prompt and answer; UINT32_MAX: not known */
    bool takes_ids, passes_on; /* the backend's takes_ids and takes_request */
    bool refines;              /* and its refines */
    char weights_hash[ENGINE_HASH_TEXT], tokenizer_hash[ENGINE_HASH_TEXT];
    char numerics[WIRE_NAME_MAX];
};

void prompt_rules_of(const struct backend *b, struct prompt_rules *ret_rules);

/* How closely the device's model agrees with the model served: text unless the hashes of the
 * tokenizers are equal, weights if those of the weights are, too, exact if the classes of numerics
 * are as well. */
enum wire_match prompt_match(const struct prompt_rules *rules, const struct wire_request *q);

/* The prompt's tokens; none for a backend that takes no ids. *ret_param names the wrong field. */
int prompt_make(const struct prompt_rules *rules, const struct wire_request *q, bool ids_allowed,
                struct token_list *prompt, const char **ret_param, struct err *e);
/* The same for a raw text, in which control tokens are recognised. */
int prompt_make_text(const struct prompt_rules *rules, const char *text, size_t n,
                     struct token_list *prompt, struct err *e);
/* The same for ids. */
int prompt_make_ids(const struct prompt_rules *rules, const int32_t *ids, uint32_t n,
                    struct token_list *prompt, struct err *e);
/* The ids of its biases, where the vocabulary is known. */
int prompt_check_sampling(const struct prompt_rules *rules, const struct sampling *s,
                          struct err *e);
/* Pass the tokens of `have` through the detokenizer: half a character may be open. */
int prompt_skip_have(const struct prompt_rules *rules, const struct wire_request *q,
                     struct detok *detok, struct err *e);

/* For a backend that forwards requests: write the JSON of the long parts ahead; `prompt` is the
 * result of prompt_make. */
int prompt_prepare(const struct prompt_rules *rules, struct wire_request *q,
                   const struct token_list *prompt, struct err *e);

/* The error of a prompt that needs a vocabulary, where the backend has none. */
int prompt_need_vocab(struct err *e);

#endif
