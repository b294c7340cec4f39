/*
 * fuzz_dialect: streams of upstream servers. The first byte chooses the kind of server, whether it
 * is asked with ids or is passed a request, and whether its response is no stream; the rest is what
 * it sends. Whatever comes, ids are those of the vocabulary, text is bounded, the counts agree, and
 * what is passed on are members of an object. Two values of the first byte are for requests that
 * are passed on.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "cloud/upstream/dialect.h"
#include "net/sse.h"
#include "proto/json.h"
#include "proto/openai_pass.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_chunk(const struct dialect_stream *s)
{
    struct buf object;
    json_t *parsed;
    if (s->chunk.len == 0) return;
    CHECK(s->passes && !memchr(s->chunk.data, '\n', s->chunk.len));
    buf_init(&object, 2 * (size_t)DIALECT_CHUNK_MAX);
    CHECK(buf_printf(&object, "{\"id\":\"ours\",%s}", s->chunk.data) == 0);
    CHECK(json_object_parse(object.data, object.len, "it", &parsed, NULL) == 0);
    json_decref(parsed);
    buf_release(&object);
}

static int on_event(void *arg, const char *name, const char *data, size_t n)
{
    struct dialect_stream *s = arg;
    struct err e = ERR_INIT;
    uint32_t before = s->produced;
    int code = dialect_decode(s, name, data, n, &e);
    if (code) {
        CHECK(e.code == code && e.text[0]);
        return code;
    }
    if (s->v)
        for (uint32_t i = 0; i < s->ids.len; i++)
            CHECK((uint32_t)s->ids.ids[i] < vocab_size(s->v));
    check_chunk(s);
    if (!s->passes) CHECK(s->produced - before == (s->by_ids ? s->ids.len : s->text.len > 0));
    CHECK(s->n_finished <= s->n_begun && s->n_begun <= s->choices.len);
    CHECK(!s->progress || (s->done > 0 && s->done <= s->total) || s->dialect == DIALECT_PDD);
    CHECK(!s->over || s->finished);
    return 0;
}

/* A client's request: what is passed on is JSON for each kind of server. */
static void try_request(const char *json, size_t n, bool chat)
{
    const struct openai_pass_rules rules = {chat, true};
    struct openai_request r;
    struct err e = ERR_INIT;
    char param[OPENAI_PARAM_MAX];
    int code = openai_pass_decode(json, n, &rules, &r, param, &e);
    CHECK(code == e.code);
    if (code) return;
    for (int d = 0; r.ask.passed && d < DIALECTS; d++) {
        struct dialect_model model = {.dialect = (enum dialect)d, .name = "m"};
        struct dialect_request q = {.model = &model, .tokens_max = 5, .asked = &r.ask};
        struct buf body;
        json_t *parsed;
        const char *path;
        buf_init(&body, WIRE_BODY_MAX);
        q.sampling = r.ask.sampling;
        code = dialect_encode(&q, &path, &body, &e);
        CHECK(code == 0 || e.text[0]);
        if (code == 0) {
            CHECK(json_object_parse(body.data, body.len, "it", &parsed, NULL) == 0);
            CHECK(json_object_get(parsed, chat ? "messages" : "prompt"));
            json_decref(parsed);
        }
        buf_release(&body);
    }
    openai_request_release(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct vocab *v;
    static const int32_t prompt[] = {1, 2, 3};
    if (n == 0) return 0;
    if (data[0] >= 0xfe) {
        try_request((const char *)data + 1, n - 1, data[0] == 0xff);
        return 0;
    }
    if (!v) CHECK(vocab_open_bytes(&v, NULL) == 0);
    struct dialect_model model = {.dialect = (enum dialect)(data[0] % DIALECTS)};
    struct openai_pass pass = {.chat = data[0] & 0x10, .stream = data[0] & 0x20, .choices = 2};
    struct wire_request asked;
    wire_request_init(&asked);
    if (data[0] & 0x40) asked.passed = &pass;
    struct dialect_request q = {.model = &model, .tokens_max = 5, .asked = &asked};
    if (data[0] & 0x80) {
        q.tokens = prompt;
        q.n_tokens = 3;
        q.n_have = 1;
    }
    struct dialect_stream s;
    struct sse_parser p;
    struct err e = ERR_INIT;
    dialect_stream_init(&s, &q, v);
    sse_parser_init(&p, on_event, &s);
    if (data[0] & 0x08) {
        if (dialect_decode_whole(&s, (const char *)data + 1, n - 1, &e) == 0) check_chunk(&s);
    } else {
        sse_parser_feed(&p, (const char *)data + 1, n - 1, &e);
    }
    sse_parser_release(&p);
    dialect_stream_release(&s);
    struct dialect_model read;
    dialect_decode_models((const char *)data + 1, n - 1, "", &read, &e);
    dialect_vllm_gives_ids((const char *)data + 1, n - 1);
    struct dialect_fault fault;
    dialect_read_fault((const char *)data + 1, n - 1, NULL, &fault);
    return 0;
}
