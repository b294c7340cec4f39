/*
 * test_dialect: what servers behind this one are asked, and how their streams read. fixtures/ holds
 * streams recorded from a llama-server (llama.cpp de3ff81) and a pdd cloud, both with the model of
 * models/; the streams of vLLM and SGLang are written after their source code.
 *
 * Catches: a token lost, doubled or made up (llama-server's "tokens": [0] while it prefills, the
 * ids that it leaves out inside a character, the token that ends an answer), an end that is taken
 * for another, garbage that passes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/os.h"
#include "cloud/upstream/dialect.h"
#include "model/gguf.h"
#include "net/sse.h"

#define FIXTURES PDD_SOURCE_DIR "/tests/cloud/upstream/fixtures/"
#define MODEL FIXTURES "pdd-tale-vocab.gguf" /* of the model that was recorded */

#define GRANT                                                                                      \
    "event: grant\ndata: {\"id\":\"as-1\",\"match\":\"exact\",\"tokens_max\":9,"                   \
    "\"prompt_tokens\":3,\"cached_tokens\":0,\"first_token_ms\":0}\n\n"

struct reading {
    struct dialect_stream s;
    struct token_list ids;
    struct buf text;
    uint32_t n_progress;
    struct err e;
};

static int on_event(void *arg, const char *name, const char *data, size_t n)
{
    struct reading *r = arg;
    int code = dialect_decode(&r->s, name, data, n, &r->e);
    if (code) return code;
    assert_int_equal(token_list_append(&r->ids, r->s.ids.ids, r->s.ids.len), 0);
    assert_int_equal(buf_append(&r->text, r->s.text.data, r->s.text.len), 0);
    r->n_progress += r->s.progress;
    return 0;
}

static struct vocab *open_vocab(void)
{
    struct gguf *g;
    struct vocab *v;
    assert_int_equal(gguf_open(MODEL, &g, NULL), 0);
    assert_int_equal(vocab_open(g, &v, NULL), 0);
    gguf_close(g);
    return v;
}

/* Feed a stream byte by byte or whole. */
static int read_stream(struct reading *r, enum dialect d, const struct vocab *v, uint32_t asked,
                       const char *stream, size_t n, size_t piece)
{
    static const int32_t prompt[] = {1, 2, 3};
    struct dialect_model m = {.dialect = d};
    struct dialect_request q = {.model = &m, .tokens_max = asked};
    struct sse_parser p;
    struct err e;
    if (v) {
        q.tokens = prompt;
        q.n_tokens = 3;
    }
    r->n_progress = 0;
    r->e = (struct err)ERR_INIT;
    token_list_init(&r->ids, 1000);
    buf_init(&r->text, 100000);
    dialect_stream_init(&r->s, &q, v);
    sse_parser_init(&p, on_event, r);
    int code = 0;
    for (size_t at = 0; at < n && !code; at += piece)
        code = sse_parser_feed(&p, stream + at, n - at < piece ? n - at : piece, &e);
    sse_parser_release(&p);
    return code;
}

static void reading_release(struct reading *r)
{
    dialect_stream_release(&r->s);
    token_list_release(&r->ids);
    buf_release(&r->text);
}

static void check_ids(const struct reading *r, const int32_t *ids, uint32_t n)
{
    assert_int_equal(r->ids.len, n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(r->ids.ids[i], ids[i]);
    assert_int_equal(r->s.produced, n);
}

struct fixture {
    const char *file;
    enum dialect dialect;
    bool by_ids;
    uint32_t asked, prompt, n_ids;
    int32_t ids[8];
    const char *text;
    enum wire_reason reason;
    enum wire_match match;
};

static const struct fixture fixtures[] = {
    {"llama-ids-budget.sse", DIALECT_LLAMA, true, 6, 17, 6, {0}, "", WIRE_BUDGET, WIRE_TOKENS},
    {"llama-ids-stop.sse",
     DIALECT_LLAMA,
     true,
     16,
     14,
     3,
     {75, 439, 114},
     "",
     WIRE_STOP,
     WIRE_TOKENS},
    {"llama-ids-hole.sse", DIALECT_LLAMA, true, 8, 17, 5, {0}, "", WIRE_STOP, WIRE_TOKENS},
    {"llama-chat-stop.sse", DIALECT_LLAMA, false, 8, 14, 0, {0}, "Hello", WIRE_STOP, WIRE_TEXT},
    {"pdd-budget.sse", DIALECT_PDD, false, 6, 17, 6, {0}, NULL, WIRE_BUDGET, WIRE_TEXT},
    {"pdd-stop.sse", DIALECT_PDD, false, 16, 14, 3, {75, 439, 114}, "Hello", WIRE_STOP, WIRE_TEXT},
};

static void check_fixture(const struct fixture *f, const struct vocab *v, size_t piece)
{
    struct buf stream;
    struct reading r;
    char path[256];
    buf_init(&stream, 1 << 20);
    snprintf(path, sizeof path, FIXTURES "%s", f->file);
    assert_int_equal(os_read_file(path, &stream, NULL), 0);
    int code =
        read_stream(&r, f->dialect, f->by_ids ? v : NULL, f->asked, stream.data, stream.len, piece);
    if (code) fail_msg("%s: %s", f->file, r.e.text);
    assert_true(r.s.over && r.s.finished);
    assert_int_equal(r.s.reason, f->reason);
    assert_int_equal(r.s.match, f->match);
    assert_int_equal(r.s.prompt_tokens, f->prompt);
    assert_int_equal(r.ids.len, f->n_ids);
    for (uint32_t i = 0; f->ids[0] && i < f->n_ids; i++)
        assert_int_equal(r.ids.ids[i], f->ids[i]);
    if (f->text) assert_string_equal(r.text.data, f->text);
    assert_true(r.n_progress > 0);
    reading_release(&r);
    buf_release(&stream);
}

static void test_recorded(void **state)
{
    struct vocab *v = open_vocab();
    (void)state;
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        check_fixture(&fixtures[i], v, 1);
        check_fixture(&fixtures[i], v, 1 << 20);
    }
    vocab_close(v);
}

/* The ids that llama-server left out are those of the bytes that its text shows. */
static void test_hole(void **state)
{
    struct vocab *v = open_vocab();
    struct buf stream, text;
    struct reading r;
    (void)state;
    buf_init(&stream, 1 << 20);
    buf_init(&text, 1000);
    assert_int_equal(os_read_file(FIXTURES "llama-ids-hole.sse", &stream, NULL), 0);
    assert_int_equal(read_stream(&r, DIALECT_LLAMA, v, 8, stream.data, stream.len, 100), 0);
    for (uint32_t i = 0; i < r.ids.len; i++)
        assert_int_equal(vocab_piece(v, r.ids.ids[i], false, &text), 0);
    assert_string_equal(text.data, "\xc3\xa9\xe2\x98\x83");
    reading_release(&r);
    buf_release(&stream);
    buf_release(&text);
    vocab_close(v);
}

#define VLLM(text, ids, more)                                                                      \
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"text\":\"" text "\",\"token_ids\":" ids more  \
    "}]}\n\n"
#define SGLANG(ids, n, why)                                                                        \
    "data: {\"text\":\"x\",\"output_ids\":" ids ",\"meta_info\":{\"finish_reason\":" why           \
    ",\"prompt_tokens\":3,\"completion_tokens\":" n ",\"cached_tokens\":1}}\n\n"
#define DONE "data: [DONE]\n\n"
#define NONE ",\"finish_reason\":null"

/* Of vLLM and SGLang, as their source code writes them; 2 is a token that ends an answer. */
static void test_written(void **state)
{
    static const int32_t ids[] = {75, 439, 114};
    static const struct {
        const char *what;
        enum dialect d;
        uint32_t asked, n;
        const char *stream;
        enum wire_reason reason;
    } cases[] = {
        {"vllm, one at a time", DIALECT_VLLM, 3, 3,
         VLLM("H", "[75]", NONE) VLLM("ell", "[439]", NONE)
             VLLM("o", "[114]", ",\"finish_reason\":\"length\"") DONE,
         WIRE_BUDGET},
        {"vllm, several in one", DIALECT_VLLM, 9, 3,
         VLLM("Hell", "[75,439]", NONE) VLLM("o", "[114,2]", ",\"finish_reason\":\"stop\"") DONE,
         WIRE_STOP},
        {"vllm, the context is full", DIALECT_VLLM, 9, 2,
         VLLM("Hell", "[75,439]", ",\"finish_reason\":\"length\"") DONE, WIRE_LENGTH},
        {"sglang, the answer so far", DIALECT_SGLANG, 9, 3,
         SGLANG("[75]", "1", "null") SGLANG("[75,439]", "2", "null")
             SGLANG("[75,439,114,2]", "4", "{\"type\":\"stop\",\"matched\":2}") DONE,
         WIRE_STOP},
        {"sglang, what is new", DIALECT_SGLANG, 3, 3,
         SGLANG("[75]", "1", "null") SGLANG("[439]", "2", "null")
             SGLANG("[114]", "3", "{\"type\":\"length\",\"length\":3}") DONE,
         WIRE_BUDGET},
    };
    struct vocab *v = open_vocab();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct reading r;
        const char *text = cases[i].stream;
        int code = read_stream(&r, cases[i].d, v, cases[i].asked, text, strlen(text), 7);
        if (code) fail_msg("%s: %s", cases[i].what, r.e.text);
        check_ids(&r, ids, cases[i].n);
        assert_true(r.s.over);
        if (r.s.reason != cases[i].reason) fail_msg("%s: reason %d", cases[i].what, r.s.reason);
        reading_release(&r);
    }
    vocab_close(v);
}

static void test_refused(void **state)
{
    static const struct {
        enum dialect d;
        bool by_ids;
        const char *stream, *part;
        int code;
    } cases[] = {
        {DIALECT_OPENAI, false, "data: {nonsense\n\n", "no JSON", ERR_PROTOCOL},
        {DIALECT_OPENAI, false, DONE, "without a reason", ERR_PROTOCOL},
        {DIALECT_OPENAI, false, "data: {\"error\":{\"message\":\"too hot\"}}\n\n", "too hot",
         ERR_NET},
        {DIALECT_VLLM, true, VLLM("H", "null", NONE), "gives no token ids", ERR_UNSUPPORTED},
        {DIALECT_VLLM, true, VLLM("H", "[99999]", NONE), "99999", ERR_PROTOCOL},
        {DIALECT_VLLM, true, VLLM("H", "[-1]", NONE), "-1", ERR_PROTOCOL},
        {DIALECT_VLLM, true, VLLM("H", "[\"a\"]", NONE), "-1", ERR_PROTOCOL},
        {DIALECT_SGLANG, true, SGLANG("[75,439]", "5", "null"), "counts 5", ERR_PROTOCOL},
        {DIALECT_SGLANG, true, SGLANG("[]", "5", "null"), "gives no token ids", ERR_UNSUPPORTED},
        {DIALECT_SGLANG, true, SGLANG("[]", "0", "{\"type\":\"abort\",\"message\":\"out of it\"}"),
         "out of it", ERR_NET},
        {DIALECT_LLAMA, true,
         "data: {\"content\":\"abx\",\"tokens\":[114],\"tokens_predicted\":4}\n\n", "differ",
         ERR_PROTOCOL},
        {DIALECT_LLAMA, true,
         "data: {\"content\":\"abcdeo\",\"tokens\":[114],\"tokens_predicted\":4}\n\n", "left out 3",
         ERR_PROTOCOL},
        {DIALECT_LLAMA, true,
         "data: {\"content\":\"o\",\"tokens\":[114],\"tokens_predicted\":2}\n\n", "left out 1",
         ERR_PROTOCOL},
        {DIALECT_PDD, false, GRANT "event: token\ndata: {\"i\":1,\"id\":5,\"text\":\"\"}\n\n",
         "where 0", ERR_PROTOCOL},
        {DIALECT_PDD, false, "event: token\ndata: {\"i\":0,\"id\":5,\"text\":\"\"}\n\n",
         "begin with a grant", ERR_PROTOCOL},
        {DIALECT_PDD, false, "event: error\ndata: {\"code\":\"busy\",\"message\":\"no\"}\n\n", "no",
         ERR_NET},
    };
    struct vocab *v = open_vocab();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct reading r;
        int code = read_stream(&r, cases[i].d, cases[i].by_ids ? v : NULL, 9, cases[i].stream,
                               strlen(cases[i].stream), 1 << 20);
        if (code != cases[i].code || !strstr(r.e.text, cases[i].part))
            fail_msg("%s: got %d, %s", cases[i].stream, code, r.e.text);
        reading_release(&r);
    }
    vocab_close(v);
}

#define SAID(text) "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define ENDED(why) "data: {\"choices\":[{\"delta\":{},\"finish_reason\":" why "}]}\n\n"

/* Whatever stands beside an answer, before, in or behind it, changes nothing of it. */
static void test_passed_over(void **state)
{
    static const char *const beside[] = {
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "data: {\"type\":\"ping\"}\n\n",
        "data: {}\n\n",
        "data:\n\n",
        "data: null\n\n",
        "data: keep-alive\n\n",
        ": keep-alive\n\n",
        ": \n\n\n\n",
        "event: ping\n\n",
        "id: 7\nretry: 100\n\n",
        "data: {\"id\":\"c\",\"usage\":{\"prompt_tokens\":3}}\n\n",
        "data: {\"choices\":null,\"cost\":0.1}\n\n",
        "data: {\"choices\":[],\"error\":null}\n\n",
        "data: {\"choices\":[null],\"error\":{}}\n\n",
        "data: {\"choices\":[{\"delta\":null,\"finish_reason\":\"\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"null\"}],\"error\":\"\"}\n\n",
        "data: []\n\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        char stream[2000];
        struct reading r;
        snprintf(stream, sizeof stream, "%s%s%s%s%s%s" DONE, beside[i], SAID("Hel"), beside[i],
                 SAID("lo"), ENDED("\"stop\""), beside[i]);
        if (read_stream(&r, DIALECT_OPENAI, NULL, 9, stream, strlen(stream), 7))
            fail_msg("%s: %s", beside[i], r.e.text);
        assert_string_equal(r.text.data, "Hello");
        assert_true(r.s.over && r.s.reason == WIRE_STOP);
        reading_release(&r);
    }
}

/* Half a surrogate pair, of a server that cuts an emoji, is U+FFFD; a whole one is its character.
 */
static void test_halves(void **state)
{
    static const char stream[] = SAID("a\\ud83d") SAID("\\uDE00b") SAID("\\ud83d\\ude00")
        SAID("\\\\ud83d") SAID("\\ud83d\\u0041\\ude00") ENDED("\"stop\"") DONE;
    struct reading r;
    (void)state;
    if (read_stream(&r, DIALECT_OPENAI, NULL, 9, stream, strlen(stream), 7))
        fail_msg("%s", r.e.text);
    assert_string_equal(r.text.data, "a\uFFFD\uFFFD"
                                     "b\U0001F600\\ud83d\uFFFD"
                                     "A\uFFFD");
    reading_release(&r);
}

/* Each usual form of an error ends a stream and tells why; behind an answer's end none counts. */
static void test_errors(void **state)
{
    static const char *const errors[] = {
        "data: {\"error\":{\"message\":\"too hot\",\"code\":500}}\n\n",
        "data: {\"error\":\"too hot\"}\n\n",
        "data: {\"choices\":[],\"error\":{\"type\":\"too hot\"}}\n\n",
        "data: {\"error\":{\"msg\":\"too hot\"},\"choices\":[{\"delta\":{}}]}\n\n",
        "data: {\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"too hot\"}}\n\n",
        "data: {\"object\":\"error\",\"message\":\"too hot\",\"code\":50001}\n\n",
        "data: {\"text\":\"too hot\",\"error_code\":50001}\n\n",
        "data: {\"error_code\":17,\"error_msg\":\"too hot\"}\n\n",
        "data: {\"code\":\"Throttled\",\"message\":\"too hot\"}\n\n",
        "data: {\"detail\":\"too hot\"}\n\n",
        "data: {\"detail\":[{\"loc\":[\"body\"],\"msg\":\"too hot\"}]}\n\n",
        "data: {\"errors\":[{\"message\":\"too hot\"}]}\n\n",
        "data: [{\"error\":{\"code\":503,\"message\":\"too hot\"}}]\n\n",
        "data: {\"choices\":[{\"delta\":{},\"error\":{\"message\":\"too hot\"}}]}\n\n",
        "data: {\"choices\":[{\"finish_reason\":\"error\",\"text\":\"too hot\"}]}\n\n",
        "event: error\ndata: {\"message\":\"too hot\"}\n\n",
        "event: error\ndata: too hot\n\n",
        "error: {\"message\":\"too hot\"}\n\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        char stream[2000];
        struct reading r;
        snprintf(stream, sizeof stream, "%s%s", SAID("Hello"), errors[i]);
        assert_int_equal(read_stream(&r, DIALECT_OPENAI, NULL, 9, stream, strlen(stream), 99),
                         ERR_NET);
        assert_string_equal(r.text.data, "Hello");
        if (!strstr(r.e.text, "too hot")) fail_msg("%s: %s", errors[i], r.e.text);
        reading_release(&r);
        snprintf(stream, sizeof stream, "%s%s%s", SAID("Hello"), ENDED("\"length\""), errors[i]);
        assert_int_equal(read_stream(&r, DIALECT_OPENAI, NULL, 9, stream, strlen(stream), 99), 0);
        assert_true(r.s.finished && r.s.reason == WIRE_BUDGET);
        reading_release(&r);
    }
}

static void read_models_file(const char *file, struct dialect_model *m)
{
    struct buf b;
    struct err e = ERR_INIT;
    char path[256];
    buf_init(&b, 1 << 16);
    snprintf(path, sizeof path, FIXTURES "%s", file);
    assert_int_equal(os_read_file(path, &b, NULL), 0);
    assert_int_equal(dialect_decode_models(b.data, b.len, "pdd-tale", m, &e), 0);
    assert_int_equal(dialect_decode_models(b.data, b.len, "other", m, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "other"));
    assert_int_equal(dialect_decode_models(b.data, b.len, "", m, &e), 0);
    buf_release(&b);
}

static const struct {
    enum dialect d;
    bool vocab;
    uint32_t n_have;
    const char *path, *part; /* path NULL: refused */
    bool changes;            /* of all kinds but min_tokens and ignore_eos */
    uint32_t min_tokens;
    bool ignore_eos;
} requests[] = {
    {DIALECT_VLLM, true, 0, "/v1/completions",
     "\"frequency_penalty\":0.5,\"presence_penalty\":-1.0,\"logit_bias\":{\"5\":-100.0,\"7\":2."
     "5},"
     "\"min_tokens\":3,\"ignore_eos\":true",
     true, 3, true},
    {DIALECT_LLAMA, true, 0, "/completion", "\"logit_bias\":{\"5\":-100.0,\"7\":2.5}", true, 0,
     false},
    {DIALECT_LLAMA, true, 0, "/completion", "\"ignore_eos\":true", false, 0, true},
    {DIALECT_SGLANG, true, 0, "/generate", "\"min_new_tokens\":3}", false, 3, false},
    {DIALECT_OPENAI, false, 0, "/v1/chat/completions", "\"frequency_penalty\":0.5", true, 0, false},
    {DIALECT_PDD, false, 0, "/v1/assist", "\"logit_bias\":[[5,-100.0],[7,2.5]]", true, 0, false},
    {DIALECT_LLAMA, true, 0, NULL, "min_tokens: an upstream server of kind llama", false, 3, false},
    {DIALECT_OPENAI, false, 0, NULL, "ignore_eos: an upstream server of kind openai", false, 0,
     true},
    {DIALECT_LLAMA, true, 1, "/completion", "\"prompt\":[5,6,7]", false, 0, false},
    {DIALECT_LLAMA, true, 0, "/completion", "\"return_tokens\":true", false, 0, false},
    {DIALECT_LLAMA, false, 0, "/v1/chat/completions", "\"content\":\"Hi \\\"you\\\"\"", false, 0,
     false},
    {DIALECT_VLLM, true, 1, "/v1/completions", "\"return_token_ids\":true", false, 0, false},
    {DIALECT_VLLM, true, 1, "/v1/completions", "\"top_k\":-1", false, 0, false},
    {DIALECT_SGLANG, true, 0, "/generate", "\"input_ids\":[5,6,7]", false, 0, false},
    {DIALECT_SGLANG, true, 0, "/generate", "\"max_new_tokens\":12", false, 0, false},
    {DIALECT_OPENAI, true, 0, "/v1/chat/completions", "\"max_tokens\":12", false, 0, false},
    {DIALECT_PDD, false, 0, "/v1/assist", "\"tokens_max\":12", false, 0, false},
    {DIALECT_VLLM, false, 1, NULL, "--upstream-vocab", false, 0, false},
    {DIALECT_OPENAI, true, 1, NULL, "cannot go on", false, 0, false},
};

static void test_models(void **state)
{
    struct dialect_model m;
    struct err e;
    static const char vllm[] =
        "{\"object\":\"list\",\"data\":[{\"id\":\"a/b\",\"owned_by\":\"vllm\","
        "\"max_model_len\":32768}]}";
    static const char liar[] =
        "{\"data\":[{\"id\":\"m\",\"owned_by\":\"pdd\",\"numerics\":\"a\\nb\",\"hashes\":{"
        "\"weights\":\"\\\",\\\"x\\\":\\\"\",\"tokenizer\":\"0a\"}}]}";
    (void)state;
    read_models_file("llama-models.json", &m);
    assert_int_equal(m.dialect, DIALECT_LLAMA);
    assert_int_equal(m.context, 2048);
    read_models_file("pdd-models.json", &m);
    assert_int_equal(m.dialect, DIALECT_PDD);
    assert_int_equal(m.context, 4096);
    assert_string_equal(m.numerics, "exact-1");
    assert_int_equal(strlen(m.weights), 64);
    assert_int_equal(strlen(m.tokenizer), 64);
    assert_int_equal(dialect_decode_models(vllm, sizeof vllm - 1, "", &m, &e), 0);
    assert_int_equal(m.dialect, DIALECT_VLLM);
    assert_int_equal(m.context, 32768);
    /* A server's hash that is none gets into no JSON of ours. */
    assert_int_equal(dialect_decode_models(liar, sizeof liar - 1, "", &m, &e), 0);
    assert_int_equal(m.dialect, DIALECT_PDD);
    assert_string_equal(m.weights, "");
    assert_string_equal(m.tokenizer, "0a");
    assert_string_equal(m.numerics, "");
    assert_int_equal(dialect_decode_models("[]", 2, "", &m, &e), ERR_PROTOCOL);
    assert_int_equal(dialect_decode_models("{\"data\":[{}]}", 13, "", &m, &e), ERR_NOT_FOUND);
    assert_true(dialect_vllm_gives_ids("{\"version\":\"0.10.2\"}", 20));
    assert_true(dialect_vllm_gives_ids("{\"version\":\"0.22.0+cu129\"}", 26));
    assert_false(dialect_vllm_gives_ids("{\"version\":\"0.10.1.1\"}", 22));
    assert_true(dialect_vllm_gives_ids("no", 2));
}

static void test_requests(void **state)
{
    static const int32_t tokens[] = {5, 6, 7};
    struct wire_message message = {(char *)(uintptr_t) "user", (char *)(uintptr_t) "Hi \"you\"", 8};
    struct wire_request asked;
    wire_request_init(&asked);
    asked.messages = &message;
    asked.n_messages = 1;
    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        struct dialect_model m = {.dialect = requests[i].d, .name = "m"};
        struct dialect_request q = {.model = &m,
                                    .asked = &asked,
                                    .tokens_max = 12,
                                    .n_have = requests[i].n_have,
                                    .sampling = SAMPLING_GREEDY};
        struct buf b;
        struct err e = ERR_INIT;
        const char *path = NULL;
        q.sampling.min_tokens = requests[i].min_tokens;
        q.sampling.ignore_eos = requests[i].ignore_eos;
        if (requests[i].changes) {
            q.sampling.frequency_penalty = 0.5f;
            q.sampling.presence_penalty = -1.0f;
            q.sampling.n_biases = 2;
            q.sampling.biases[0] = (struct sampling_bias){5, -100.0f};
            q.sampling.biases[1] = (struct sampling_bias){7, 2.5f};
        }
        if (requests[i].vocab) {
            q.tokens = tokens;
            q.n_tokens = 3;
        }
        buf_init(&b, 10000);
        int code = dialect_encode(&q, &path, &b, &e);
        assert_int_equal(code, requests[i].path ? 0 : ERR_BAD_INPUT);
        if (requests[i].path) assert_string_equal(path, requests[i].path);
        if (!strstr(requests[i].path ? b.data : e.text, requests[i].part))
            fail_msg("%s not in %s%s", requests[i].part, b.data, e.text);
        buf_release(&b);
    }
}

/* A request whose long parts were made ahead is the same to the byte, in every dialect. */
static void test_prepared(void **state)
{
    static int32_t ids[] = {5, 6, 700}, have[] = {8, 90};
    static const int32_t all[] = {5, 6, 700, 8, 90};
    static struct wire_message messages[] = {
        {(char *)(uintptr_t) "user", (char *)(uintptr_t) "Hi \"you\"\n", 9},
        {(char *)(uintptr_t) "assistant", (char *)(uintptr_t) "\xe2\x82\xac", 3}};
    (void)state;
    for (int d = 0; d < DIALECTS; d++)
        for (int how = 0; how < 12; how++) {
            bool by_messages = how & 1, vocab = how & 2;
            uint32_t n_have = how < 4 ? 0 : how < 8 ? 1 : 2;
            struct dialect_model m = {.dialect = (enum dialect)d, .name = "m", .tokenizer = "t"};
            struct wire_request asked, made;
            struct buf b[2];
            const char *path = NULL;
            int codes[2];
            wire_request_init(&asked);
            asked.messages = by_messages ? messages : NULL;
            asked.n_messages = by_messages ? 2 : 0;
            asked.prompt = by_messages ? NULL : ids;
            asked.n_prompt = by_messages ? 0 : 3;
            asked.have = n_have ? have : NULL;
            asked.n_have = n_have;
            made = asked;
            assert_int_equal(wire_request_prepare(&made, NULL), 0);
            if (vocab) assert_int_equal(wire_request_prepare_tokens(&made, ids, 3, NULL), 0);
            for (int i = 0; i < 2; i++) {
                struct dialect_request q = {.model = &m,
                                            .asked = i ? &made : &asked,
                                            .tokens_max = 12,
                                            .n_have = n_have,
                                            .tokens = vocab ? all : NULL,
                                            .n_tokens = vocab ? 3 + n_have : 0,
                                            .sampling = SAMPLING_GREEDY};
                buf_init(&b[i], 10000);
                codes[i] = dialect_encode(&q, &path, &b[i], NULL);
            }
            assert_int_equal(codes[0], codes[1]);
            assert_string_equal(b[0].data, b[1].data);
            made.messages = NULL; /* borrowed */
            made.n_messages = 0;
            made.prompt = made.have = NULL;
            wire_request_release(&made);
            buf_release(&b[0]);
            buf_release(&b[1]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded), cmocka_unit_test(test_hole),
        cmocka_unit_test(test_written),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_models),   cmocka_unit_test(test_requests),
        cmocka_unit_test(test_prepared), cmocka_unit_test(test_passed_over),
        cmocka_unit_test(test_halves),   cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
