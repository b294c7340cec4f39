/*
 * openai_pass: a request of OpenAI's API whose options this program does not compute, and which
 * therefore goes to a server of that API nearly as it came, for `pdd cloud --upstream`. Pure.
 *
 * Passed on are the fields that PASS of openai_fields.h marks, and those of `others` in
 * openai_pass.c, where they ask for more than what happens anyway, and the messages or the prompt
 * as they are: pictures, calls of functions and their results included. Pictures and other media
 * must be in the request, as data: URLs: a server would fetch others from inside its own network.
 * The fields of every request (model, stream, max_tokens, sampling, seed, stop) are read and
 * checked as in openai_request_decode. What REFUSE marks is refused. Other fields are dropped: what
 * the operator decides (priorities, caches, places of requests) is nothing for a client.
 */
#ifndef PDD_PROTO_OPENAI_PASS_H
#define PDD_PROTO_OPENAI_PASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/openai.h"

enum {
    OPENAI_PASS_BEGIN_MAX = 1024 /* bytes of the prompt's beginning */
};

struct json_t;

struct openai_pass {
    bool chat, stream;
    bool limited; /* the client says how many tokens, or its API has a default */
    bool seeded;  /* it gives a seed */
    char *prompt; /* [prompt_len] "messages":[...], or "prompt":... */
    size_t prompt_len;
    struct json_t *fields; /* what is passed on, by name; stop is an array */
    uint32_t choices;      /* of the answer: n of each prompt */
    uint32_t computed;     /* at most OPENAI_CHOICES_MAX: best_of of each prompt, if that is more */
    /* What chooses the server: roles and texts up to the first question, or the prompt. */
    char begin[OPENAI_PASS_BEGIN_MAX];
    size_t begin_len;
};

/* What the caller cannot do by itself. `by_text`: there is neither tokenizer nor chat template, so
 * that completions, calls in messages and arguments of the template are passed on as well. */
struct openai_pass_rules {
    bool chat, by_text;
};

/* openai_request_decode, for a program that can pass requests on: one that it has to pass on has
 * r->ask.passed, and neither messages nor prompt in `r`. */
int openai_pass_decode(const char *json, size_t n, const struct openai_pass_rules *rules,
                       struct openai_request *r, char ret_param[OPENAI_PARAM_MAX], struct err *e);
void openai_pass_free(struct openai_pass *p); /* NULL is fine */

#endif
