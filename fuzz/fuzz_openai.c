/*
 * fuzz_openai: the readers of OpenAI's bodies take any bytes; what they accept keeps its limits,
 * and what they refuse has a sentence. The first byte of the input chooses the body.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "proto/openai.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(int code, const struct err *e, const char *param)
{
    CHECK(code < 0 && e->code == code && e->text[0]);
    CHECK(strlen(param) < OPENAI_PARAM_MAX);
}

static void check_request(const struct openai_request *r)
{
    const struct sampling *s = &r->ask.sampling;
    CHECK(r->n_stops <= OPENAI_STOPS_MAX);
    for (uint32_t i = 0; i < r->n_stops; i++)
        CHECK(r->stops[i].len > 0 && r->stops[i].len <= OPENAI_STOP_BYTES_MAX);
    CHECK(r->top_logprobs <= (r->chat ? (uint32_t)OPENAI_TOP_CHAT_MAX : OPENAI_TOP_COMPLETION_MAX));
    CHECK(r->logprobs || r->top_logprobs == 0);
    CHECK(r->ask.tokens_max > 0 && r->ask.tokens_max <= WIRE_TOKENS_MAX);
    CHECK(s->temperature >= 0.0f && s->temperature <= 100.0f && s->top_p > 0.0f &&
          s->top_p <= 1.0f && s->min_p >= 0.0f && s->min_p < 1.0f && s->seed <= INT64_MAX);
    CHECK(r->chat ? r->ask.n_messages > 0 : (r->text != NULL) != (r->ask.prompt != NULL));
    for (uint32_t i = 0; i < r->ask.n_messages; i++) {
        const struct wire_message *m = &r->ask.messages[i];
        CHECK(m->role[0] && strcmp(m->role, "developer") != 0);
        CHECK(utf8_valid_prefix(m->content, m->content_len) == m->content_len);
    }
}

static void try_request(const char *json, size_t n, bool chat)
{
    struct openai_request r;
    struct err e = ERR_INIT;
    char param[OPENAI_PARAM_MAX];
    int code = openai_request_decode(json, n, chat, &r, param, &e);
    if (code) {
        check_refusal(code, &e, param);
        return;
    }
    check_request(&r);
    openai_request_release(&r);
}

static void try_tokens(const char *json, size_t n)
{
    struct openai_tokenize t;
    struct err e = ERR_INIT;
    char param[OPENAI_PARAM_MAX];
    int32_t *ids = NULL;
    uint32_t n_ids = 0;
    int code = openai_tokenize_decode(json, n, &t, param, &e);
    if (code)
        check_refusal(code, &e, param);
    else
        openai_tokenize_release(&t);
    code = openai_detokenize_decode(json, n, &ids, &n_ids, param, &e);
    if (code) check_refusal(code, &e, param);
    for (uint32_t i = 0; i < n_ids; i++)
        CHECK(ids[i] >= 0);
    mem_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    const char *json = (const char *)data + 1;
    if (data[0] == '3')
        try_tokens(json, size - 1);
    else
        try_request(json, size - 1, data[0] == '1');
    return 0;
}
