/*
 * openai_reply: one response of /v1/chat/completions or /v1/completions and its choices. Each
 * choice is an exchange of its own (server_impl.h), with a job of its own; the HTTP request hangs
 * on the first. Loop thread.
 *
 * A stream's head waits until work on the first answer starts, so that what fails before has its
 * status. Text is let go once no stop string can begin in it any more; log-probabilities go with
 * the text of their tokens, and those of a token that a stop string took are not told. When a stop
 * string is found the choice ends at once, and then its job is stopped. One answer that fails ends
 * the response, and with it the others.
 */
#ifndef PDD_CLOUD_API_OPENAI_REPLY_H
#define PDD_CLOUD_API_OPENAI_REPLY_H

#include "cloud/api/server_impl.h"
#include "proto/openai.h"

/* What answers a prompt: its tokens, and the text that precedes the answer (echo). */
struct openai_reply_prompt {
    struct token_list tokens;
    struct buf echo;
};

/* Answer the request of `c`, which is attached or refused; takes `q` and `body`. `prompts`: as many
 * as `q` has. `arrived`: clock_us() of the request. */
void openai_reply_begin(struct request_ctx *c, struct openai_request *q, struct http_body *body,
                        uint64_t arrived, const struct openai_reply_prompt *prompts);

#endif
