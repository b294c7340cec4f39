/*
 * cloud_fixture: a real cloud (cloud/api/server.h) in a thread of the test, and the answer a single
 * machine gives, to compare with.
 */
#ifndef PDD_TESTS_CLOUD_FIXTURE_H
#define PDD_TESTS_CLOUD_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/sampling.h"
#include "engine/engine.h"
#include "model/text/vocab.h"

struct cloud_fixture;

struct cloud_fixture *cloud_fixture_start(struct engine *engine); /* takes the engine */
/* One without an engine, in front of the server at `url`; returns when that is found up. */
struct cloud_fixture *cloud_fixture_start_before(const char *url);
/* The same with the tokenizer of a GGUF file: ids pass (docs/UPSTREAMS.md). */
struct cloud_fixture *cloud_fixture_start_with_vocab(const char *url, const char *vocab_path);
const char *cloud_fixture_url(const struct cloud_fixture *c);
void cloud_fixture_stop(struct cloud_fixture *c);

/* What one machine answers to a prompt: tokens without the end, their text, and whether the answer
 * ended by itself. */
struct single_answer {
    struct token_list prompt, tokens;
    struct buf text;
    bool ends;
};

/* `engine` is used and left as it was. With `raw` the prompt is encoded as it is. */
void single_answer_make(struct engine *engine, const char *prompt, bool raw,
                        const struct sampling *sampling, uint32_t tokens_max,
                        struct single_answer *ret_answer);
void single_answer_release(struct single_answer *a);

#endif
