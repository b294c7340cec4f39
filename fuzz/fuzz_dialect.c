/*
 * fuzz_dialect: streams of upstream servers. The first byte chooses the kind of server and
 * whether it is asked with ids, the rest is what it sends. Whatever comes, ids are those of the
 * vocabulary, text is bounded, and the counts agree.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "cloud/upstream/dialect.h"
#include "net/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

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
    CHECK(s->produced - before == (s->by_ids ? s->ids.len : s->text.len > 0));
    CHECK(!s->progress || (s->done > 0 && s->done <= s->total) || s->dialect == DIALECT_PDD);
    CHECK(!s->over || s->finished);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct vocab *v;
    static const int32_t prompt[] = {1, 2, 3};
    if (n == 0) return 0;
    if (!v) CHECK(vocab_open_bytes(&v, NULL) == 0);
    struct dialect_model model = {.dialect = (enum dialect)(data[0] % DIALECTS)};
    struct dialect_request q = {.model = &model, .tokens_max = 5};
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
    sse_parser_feed(&p, (const char *)data + 1, n - 1, &e);
    sse_parser_release(&p);
    dialect_stream_release(&s);
    struct dialect_model read;
    dialect_decode_models((const char *)data + 1, n - 1, "", &read, &e);
    dialect_vllm_gives_ids((const char *)data + 1, n - 1);
    return 0;
}
