/*
 * The wire's messages: what is written is read back the same, and what is wrong is refused with a
 * sentence that names the field.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/sse.h"
#include "proto/wire.h"

enum { ROOM = 64 << 20 };

static void expect_request_error(const char *json, const char *part)
{
    struct wire_request r;
    struct err e = ERR_INIT;
    int code = wire_request_decode(json, strlen(json), &r, &e);
    if (code != ERR_BAD_INPUT || !strstr(e.text, part))
        fail_msg("%s\nwanted '%s', got %d: %s", json, part, code, e.text);
}

static const struct {
    const char *json, *part;
} bad_request_cases[] = {
    {"", "not valid JSON"},
    {"[]", "must be a JSON object"},
    {"{\"tokens_max\":1,\"prompt\":[1]", "not valid JSON"},
    {"{\"tokens_max\":1,\"prompt\":[1]} x", "not valid JSON"},
    {"{\"tokens_max\":1,\"tokens_max\":2,\"prompt\":[1]}", "duplicate"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"seed\":1,\"seed\":1}}", "duplicate"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"model\":\"\xff\"}", "not valid JSON"},
    {"{\"prompt\":[1]}", "tokens_max is missing"},
    {"{\"tokens_max\":0,\"prompt\":[1]}", "tokens_max must be an integer from 1"},
    {"{\"tokens_max\":1048577,\"prompt\":[1]}", "tokens_max"},
    {"{\"tokens_max\":1.0,\"prompt\":[1]}", "tokens_max"},
    {"{\"tokens_max\":\"1\",\"prompt\":[1]}", "tokens_max"},
    {"{\"tokens_max\":true,\"prompt\":[1]}", "tokens_max"},
    {"{\"tokens_max\":99999999999999999999,\"prompt\":[1]}", "not valid JSON"},
    {"{\"tokens_max\":1}", "exactly one of prompt"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
     "exactly one of prompt"},
    {"{\"tokens_max\":1,\"prompt\":[]}", "prompt must be an array of 1 to"},
    {"{\"tokens_max\":1,\"prompt\":\"hello\"}", "prompt must be an array"},
    {"{\"tokens_max\":1,\"prompt\":[1,-1]}", "prompt[1]"},
    {"{\"tokens_max\":1,\"prompt\":[1,2,2147483648]}", "prompt[2]"},
    {"{\"tokens_max\":1,\"prompt\":[1.5]}", "prompt[0]"},
    {"{\"tokens_max\":1,\"prompt\":[null]}", "prompt[0]"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"have\":[\"a\"]}", "have[0]"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"have\":{}}", "have must be an array"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"colour\":1}", "colour is not a field"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"hashes\":{\"weight\":\"a\"}}", "hashes.weight is not"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"hashes\":{\"weights\":1}}", "hashes.weights"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"hashes\":{\"template\":"
     "\"0123456789012345678901234567890"
     "1234567890123456789012345678901234\"}}",
     "hashes.template"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"model\":\"a\\u0000b\"}", "model"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"numerics\":7}", "numerics"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":[]}", "sampling must be an object"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"temp\":1}}", "sampling.temp is not"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"temperature\":-0.1}}",
     "sampling.temperature"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"temperature\":100.1}}",
     "sampling.temperature"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"temperature\":1e300}}",
     "sampling.temperature"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"temperature\":\"1\"}}",
     "sampling.temperature"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"top_p\":0}}", "sampling.top_p"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"top_p\":1e-60}}", "sampling.top_p"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"top_p\":1.01}}", "sampling.top_p"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"min_p\":1}}", "sampling.min_p"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"min_p\":0.99999999999}}", "sampling.min_p"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"repeat_penalty\":0}}",
     "sampling.repeat_penalty"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"top_k\":-1}}", "sampling.top_k"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"repeat_last\":-1}}", "sampling.repeat_last"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"seed\":-1}}", "sampling.seed"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"frequency_penalty\":2.1}}",
     "sampling.frequency_penalty"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"presence_penalty\":\"0\"}}",
     "sampling.presence_penalty"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"min_tokens\":-1}}", "sampling.min_tokens"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"ignore_eos\":1}}", "sampling.ignore_eos"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"logit_bias\":[[1,101]]}}",
     "sampling.logit_bias: the bias of token 1"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"logit_bias\":[[1,1],[1,1]]}}",
     "sampling.logit_bias: token 1 is there twice"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"logit_bias\":[[-1,1]]}}",
     "sampling.logit_bias"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"answered\":2}", "answered is 2, above the 1 tokens"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"sampling\":{\"seed\":9223372036854775808}}",
     "not valid JSON"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"refine\":{}}", "refine.ratio is missing"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"refine\":{\"ratio\":0}}", "refine.ratio"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"refine\":{\"ratio\":1.5}}", "refine.ratio"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"refine\":{\"ratio\":0.5,\"coverage\":1.1}}",
     "refine.coverage"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"refine\":{\"ratio\":0.5,\"held\":2}}",
     "refine.held is above the 1 tokens"},
    {"{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,\"messages\":[2,2]}}",
     "refine.messages[1] must be above"},
    {"{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,\"messages\":[0,2]}}",
     "refine.messages[0] must be above 0"},
    {"{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,\"messages\":[1]}}",
     "the last of refine.messages must be 2"},
    {"{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,\"messages\":[-1,2]}}",
     "refine.messages[0] must be a position"},
    {"{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,\"whole\":[0]}}",
     "refine.whole must have two numbers"},
    {"{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,\"whole\":[1,0]}}",
     "refine.whole[1] must not be below"},
    {"{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,\"whole\":[0,3]}}",
     "refine.whole[1] must not be below the one before, nor above 2"},
    {"{\"tokens_max\":1,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"refine\":{\"ratio\":"
     "0.5,"
     "\"held\":1}}",
     "refine.held counts tokens of prompt"},
    {"{\"tokens_max\":1,\"prompt\":[1],\"deadline_ms\":-5}", "deadline_ms"},
    {"{\"tokens_max\":1,\"messages\":[]}", "messages must be an array of 1"},
    {"{\"tokens_max\":1,\"messages\":[7]}", "messages[0] must be an object"},
    {"{\"tokens_max\":1,\"messages\":[{\"role\":\"user\"}]}", "messages[0].content is missing"},
    {"{\"tokens_max\":1,\"messages\":[{\"role\":\"\",\"content\":\"x\"}]}", "messages[0].role"},
    {"{\"tokens_max\":1,\"messages\":[{\"role\":\"user\",\"content\":[]}]}",
     "messages[0].content must be a string"},
    {"{\"tokens_max\":1,\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\","
     "\"content\":\"a\",\"name\":\"x\"}]}",
     "messages[1].name is not"},
};

/* Catches: each field accepted out of its type or range, or refused without its name. */
static void bad_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_request_cases / sizeof *bad_request_cases; i++)
        expect_request_error(bad_request_cases[i].json, bad_request_cases[i].part);
}

/* Catches: nesting that exhausts the stack. */
static void deep_nesting(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b, ROOM);
    buf_puts(&b, "{\"tokens_max\":1,\"prompt\":");
    for (int i = 0; i < 500000; i++)
        buf_putc(&b, '[');
    expect_request_error(b.data, "not valid JSON");
    buf_release(&b);
}

static void check_same(const struct wire_request *a, const struct wire_request *b)
{
    assert_string_equal(a->model, b->model);
    assert_string_equal(a->weights, b->weights);
    assert_string_equal(a->tokenizer, b->tokenizer);
    assert_string_equal(a->chat_template, b->chat_template);
    assert_string_equal(a->numerics, b->numerics);
    assert_int_equal(a->n_prompt, b->n_prompt);
    if (a->n_prompt) assert_memory_equal(a->prompt, b->prompt, a->n_prompt * sizeof *a->prompt);
    assert_int_equal(a->n_have, b->n_have);
    if (a->n_have) assert_memory_equal(a->have, b->have, a->n_have * sizeof *a->have);
    assert_int_equal(a->n_messages, b->n_messages);
    for (uint32_t i = 0; i < a->n_messages; i++) {
        assert_string_equal(a->messages[i].role, b->messages[i].role);
        assert_int_equal(a->messages[i].content_len, b->messages[i].content_len);
        assert_memory_equal(a->messages[i].content, b->messages[i].content,
                            a->messages[i].content_len + 1);
    }
    assert_memory_equal(&a->sampling.temperature, &b->sampling.temperature, sizeof(float));
    assert_memory_equal(&a->sampling.top_p, &b->sampling.top_p, sizeof(float));
    assert_memory_equal(&a->sampling.min_p, &b->sampling.min_p, sizeof(float));
    assert_memory_equal(&a->sampling.repeat_penalty, &b->sampling.repeat_penalty, sizeof(float));
    assert_int_equal(a->sampling.top_k, b->sampling.top_k);
    assert_int_equal(a->sampling.repeat_last, b->sampling.repeat_last);
    assert_true(a->sampling.seed == b->sampling.seed);
    assert_memory_equal(&a->sampling.frequency_penalty, &b->sampling.frequency_penalty,
                        sizeof a->sampling - offsetof(struct sampling, frequency_penalty));
    assert_int_equal(a->answered, b->answered);
    assert_true((a->n_messages ? a->now : 0) == b->now);
    assert_int_equal(a->tokens_max, b->tokens_max);
    assert_memory_equal(&a->refine.ratio, &b->refine.ratio, sizeof(float));
    assert_memory_equal(&a->refine.coverage, &b->refine.coverage, sizeof(float));
    assert_int_equal(a->refine.held, b->refine.held);
    assert_int_equal(a->refine.n_messages, b->refine.n_messages);
    assert_int_equal(a->refine.n_whole, b->refine.n_whole);
    for (uint32_t i = 0; i < a->refine.n_messages; i++)
        assert_int_equal(a->refine.messages[i], b->refine.messages[i]);
    for (uint32_t i = 0; i < a->refine.n_whole; i++)
        assert_int_equal(a->refine.whole[i], b->refine.whole[i]);
    assert_int_equal(a->deadline_ms, b->deadline_ms);
}

static void check_round_trip(const struct wire_request *r)
{
    struct wire_request back;
    struct buf b;
    struct err e = ERR_INIT;
    buf_init(&b, ROOM);
    if (wire_request_encode(r, &b, &e)) fail_msg("%s", e.text);
    if (wire_request_decode(b.data, b.len, &back, &e)) fail_msg("%s\n%s", e.text, b.data);
    check_same(r, &back);
    wire_request_release(&back);
    buf_release(&b);
}

static void draw_changes(struct rng *rng, struct sampling *s)
{
    s->frequency_penalty = rng_next_uniform(rng) * 4 - 2;
    s->presence_penalty = rng_next_uniform(rng) * 4 - 2;
    s->min_tokens = rng_below(rng, 1000);
    s->ignore_eos = rng_below(rng, 2);
    s->n_biases = rng_below(rng, 4) ? rng_below(rng, 5) : SAMPLING_BIASES_MAX;
    for (uint32_t i = 0; i < s->n_biases; i++)
        s->biases[i] = (struct sampling_bias){(int32_t)(i * 1000 + rng_below(rng, 1000)),
                                              rng_next_uniform(rng) * 200 - 100};
}

/* Catches: a field that does not survive the trip; floats and seeds that lose their last bit, which
 * would end the lossless handover. */
static void requests_round_trip(void **state)
{
    struct rng rng;
    (void)state;
    rng_init(&rng, 1, 0);
    for (int round = 0; round < 300; round++) {
        int32_t ids[20], have[20];
        struct wire_request r;
        wire_request_init(&r);
        for (int i = 0; i < 20; i++) {
            ids[i] = (int32_t)(rng_next(&rng) >> 1);
            have[i] = (int32_t)rng_below(&rng, 1000);
        }
        r.prompt = ids;
        r.n_prompt = 1 + rng_below(&rng, 20);
        r.have = have;
        r.n_have = rng_below(&rng, 21);
        r.now = rng_next(&rng) >> 4;
        r.answered = round % 5 ? 0 : rng_below(&rng, r.n_prompt + 1);
        r.sampling = (struct sampling){.temperature = rng_next_uniform(&rng) * 2,
                                       .top_k = rng_below(&rng, 100),
                                       .top_p = 1 - rng_next_uniform(&rng),
                                       .min_p = rng_next_uniform(&rng),
                                       .repeat_penalty = 0.5f + rng_next_uniform(&rng),
                                       .repeat_last = rng_below(&rng, 500),
                                       .seed = (uint64_t)rng_next(&rng) << 31 ^ rng_next(&rng)};
        if (round % 2) draw_changes(&rng, &r.sampling);
        if (round == 0) r.sampling.seed = INT64_MAX;
        if (round == 1) r.sampling.seed = 9007199254740993; /* 2^53 + 1: no double */
        r.tokens_max = 1 + rng_below(&rng, WIRE_TOKENS_MAX);
        r.refine.ratio = round % 3 ? 0 : 0.01f + rng_next_uniform(&rng) * 0.9f;
        int32_t end = (int32_t)r.n_prompt, messages[2] = {end / 2, end}, whole[] = {0, 0, end, end};
        if (r.refine.ratio > 0 && round % 2) {
            r.refine.coverage = 0.5f + rng_next_uniform(&rng) * 0.5f;
            r.refine.held = rng_below(&rng, r.n_prompt + 1);
            r.refine.messages = messages + (end < 2);
            r.refine.n_messages = end < 2 ? 1 : 2;
            r.refine.whole = whole;
            r.refine.n_whole = 4;
        }
        r.deadline_ms = rng_below(&rng, 100000);
        memcpy(r.model, "m \"\\\n\t\x7f \xE2\x82\xAC", 12);
        memcpy(r.weights, "0123abcd", 9);
        memcpy(r.numerics, "exact-1", 8);
        check_round_trip(&r);
    }
}

/* Catches: text that changes on the way: zero bytes, control characters, quotes, other planes. */
static void messages_round_trip(void **state)
{
    static const char text[] =
        "a\0b\x01\x1f\"\\/\n\r\t\b\f\x7f\xC2\x80\xE2\x80\xA8\xF0\x9F\x98\x80";
    struct wire_message messages[3] = {{(char *)"system", (char *)"", 0},
                                       {(char *)"user", (char *)text, sizeof text - 1},
                                       {(char *)"assistant", (char *)"ok", 2}};
    struct wire_request r;
    (void)state;
    wire_request_init(&r);
    r.messages = messages;
    r.n_messages = 3;
    r.tokens_max = 1;
    check_round_trip(&r);
}

/* Catches: the longest prompt refused, one more accepted. */
static void longest_prompt(void **state)
{
    struct wire_request r, back;
    struct buf b;
    struct err e = ERR_INIT;
    (void)state;
    wire_request_init(&r);
    buf_init(&b, ROOM);
    r.n_prompt = WIRE_PROMPT_MAX + 1;
    r.prompt = mem_alloc(r.n_prompt * sizeof *r.prompt);
    for (uint32_t i = 0; i < r.n_prompt; i++)
        r.prompt[i] = (int32_t)(i * 2654435761u % 200000);
    r.tokens_max = 1;
    assert_int_equal(wire_request_encode(&r, &b, &e), 0);
    assert_int_equal(wire_request_decode(b.data, b.len, &back, &e), ERR_BAD_INPUT);
    assert_non_null(strstr(e.text, "prompt must be an array of 1 to 1048576"));
    r.n_prompt--;
    check_round_trip(&r);
    assert_true(b.len < WIRE_BODY_MAX);
    mem_free(r.prompt);
    buf_release(&b);
}

/* Catches: an encoder that writes what no decoder takes, or leaves half a message behind. */
static void encoding_refuses(void **state)
{
    struct wire_request r;
    struct buf b;
    int32_t id = 1;
    (void)state;
    wire_request_init(&r);
    r.prompt = &id;
    r.n_prompt = 1;
    r.tokens_max = 1;
    buf_init(&b, 4096);
    buf_puts(&b, "kept");
    r.sampling.seed = (uint64_t)INT64_MAX + 1;
    assert_int_equal(wire_request_encode(&r, &b, NULL), ERR_BAD_INPUT);
    r.sampling.seed = 0;
    r.sampling.temperature = 1.0f / (r.sampling.temperature * 0.0f);
    assert_int_equal(wire_request_encode(&r, &b, NULL), ERR_BAD_INPUT);
    r.sampling.temperature = 0;
    id = -1;
    assert_int_equal(wire_request_encode(&r, &b, NULL), ERR_BAD_INPUT);
    id = 1;
    r.model[0] = (char)0xff;
    assert_int_equal(wire_request_encode(&r, &b, NULL), ERR_BAD_INPUT);
    r.model[0] = 0;
    assert_string_equal(b.data, "kept");
    b.max = 20;
    assert_int_equal(wire_request_encode(&r, &b, NULL), ERR_LIMIT);
    assert_string_equal(b.data, "kept");
    buf_release(&b);
}

static void patches(void **state)
{
    struct buf b;
    struct err e = ERR_INIT;
    uint32_t n = 0;
    (void)state;
    buf_init(&b, 100);
    assert_int_equal(wire_patch_encode(77, &b, &e), 0);
    assert_int_equal(wire_patch_decode(b.data, b.len, &n, &e), 0);
    assert_int_equal(n, 77);
    assert_int_equal(wire_patch_decode("{\"tokens_max\":0}", 16, &n, &e), ERR_BAD_INPUT);
    assert_int_equal(wire_patch_decode("{}", 2, &n, &e), ERR_BAD_INPUT);
    assert_int_equal(wire_patch_decode("{\"tokens_max\":1,\"x\":1}", 22, &n, &e), ERR_BAD_INPUT);
    assert_int_equal(n, 77);
    buf_release(&b);
}

/* Reads what an encoder wrote, through the SSE parser. */
struct reading {
    struct wire_event *event;
    struct err *err;
    unsigned n;
};

static int read_event(void *arg, const char *name, const char *data, size_t n)
{
    struct reading *r = arg;
    r->n++;
    return wire_event_decode(name, data, n, r->event, r->err);
}

static void event_trip(const struct wire_event *ev, struct wire_event *back)
{
    struct buf b;
    struct sse_parser p;
    struct err e = ERR_INIT;
    struct reading r = {back, &e, 0};
    buf_init(&b, ROOM);
    if (wire_event_encode(ev, &b, &e)) fail_msg("%s", e.text);
    sse_parser_init(&p, read_event, &r);
    if (sse_parser_feed(&p, b.data, b.len, &e)) fail_msg("%s\n%s", e.text, b.data);
    assert_int_equal(r.n, 1);
    assert_int_equal(back->kind, ev->kind);
    sse_parser_release(&p);
    buf_release(&b);
}

/* Catches: a field of an event that does not survive the trip, with one struct used again. */
static void events_round_trip(void **state)
{
    static const char text[] = "\"\\\n\r\0\x01 \xE2\x82\xAC\xF0\x9F\x98\x80";
    struct wire_event ev, back;
    (void)state;
    wire_event_init(&ev);
    wire_event_init(&back);
    ev.kind = WIRE_GRANT;
    memcpy(ev.id, "a-1_Z", 6);
    ev.match = WIRE_TOKENS;
    ev.tokens_max = 5, ev.prompt_tokens = 3000, ev.cached_tokens = 64, ev.first_token_ms = 120;
    event_trip(&ev, &back);
    assert_string_equal(back.id, "a-1_Z");
    assert_int_equal(back.match, WIRE_TOKENS);
    assert_int_equal(back.tokens_max, 5);
    assert_int_equal(back.prompt_tokens, 3000);
    assert_int_equal(back.cached_tokens, 64);
    assert_int_equal(back.first_token_ms, 120);
    assert_false(back.refine);
    ev.refine = true;
    event_trip(&ev, &back);
    assert_true(back.refine);
    ev.kind = WIRE_PROGRESS;
    ev.done = 7, ev.total = 9;
    event_trip(&ev, &back);
    assert_int_equal(back.done, 7);
    assert_int_equal(back.total, 9);
    ev.kind = WIRE_REFINED;
    ev.ratio = 0.3f, ev.chunk = 32, ev.final = true, ev.version = 2, ev.coverage = 0.9f;
    assert_int_equal(buf_append(&ev.kept, "\x00\xff\x80\x01", 4), 0);
    event_trip(&ev, &back);
    assert_memory_equal(&back.ratio, &ev.ratio, sizeof(float));
    assert_int_equal(back.chunk, 32);
    assert_true(back.final);
    assert_int_equal(back.kept.len, 4);
    assert_memory_equal(back.kept.data, "\x00\xff\x80\x01", 4);
    assert_memory_equal(&back.coverage, &ev.coverage, sizeof(float));
    assert_int_equal(back.version, 2);
    assert_string_equal(back.refused, "");
    buf_clear(&ev.kept);
    memcpy(ev.refused, "flat", 5);
    event_trip(&ev, &back);
    assert_int_equal(back.kept.len, 0);
    assert_string_equal(back.refused, "flat");
    ev.kind = WIRE_TOKEN;
    ev.index = 41, ev.token = INT32_MAX;
    assert_int_equal(buf_append(&ev.text, text, sizeof text - 1), 0);
    event_trip(&ev, &back);
    assert_int_equal(back.index, 41);
    assert_int_equal(back.token, INT32_MAX);
    assert_int_equal(back.text.len, sizeof text - 1);
    assert_memory_equal(back.text.data, text, sizeof text);
    buf_clear(&ev.text);
    event_trip(&ev, &back);
    assert_int_equal(back.text.len, 0);
    for (int reason = WIRE_BUDGET; reason <= WIRE_DRAIN; reason++) {
        ev.kind = WIRE_DONE;
        ev.reason = (enum wire_reason)reason;
        ev.completion_tokens = 12;
        event_trip(&ev, &back);
        assert_int_equal(back.reason, reason);
        assert_int_equal(back.completion_tokens, 12);
        assert_int_equal(back.prompt_tokens, 3000);
    }
    ev.kind = WIRE_ERROR;
    memcpy(ev.code, "overloaded", 11);
    memcpy(ev.message, "no \"pages\" left", 16);
    event_trip(&ev, &back);
    assert_string_equal(back.code, "overloaded");
    assert_string_equal(back.message, "no \"pages\" left");
    wire_event_release(&ev);
    wire_event_release(&back);
}

/* Catches: malformed events taken for good ones, and newer ones refused. */
static void bad_events(void **state)
{
    static const struct {
        const char *name, *data;
        int code;
        const char *part;
    } cases[] = {
        {"token", "{\"i\":0,\"id\":1,\"text\":\"a\",\"logprob\":-1.5}", 0, ""},
        {"telemetry", "not even JSON", 0, ""},
        {"message", "{}", 0, ""},
        {"token", "", ERR_PROTOCOL, "event 'token'"},
        {"token", "{\"i\":0,\"id\":1,\"text\":\"a\"", ERR_PROTOCOL, "event 'token'"},
        {"token", "{\"i\":0,\"id\":1,\"text\":\"\xe2\x82\"}", ERR_PROTOCOL, "decode"},
        {"token", "{\"i\":0,\"id\":1,\"text\":\"\\ud83d\"}", ERR_PROTOCOL, "event 'token'"},
        {"token", "{\"id\":1,\"text\":\"a\"}", ERR_PROTOCOL, "i is missing"},
        {"token", "{\"i\":-1,\"id\":1,\"text\":\"a\"}", ERR_PROTOCOL, "i must be"},
        {"token", "{\"i\":4294967296,\"id\":1,\"text\":\"a\"}", ERR_PROTOCOL, "i must be"},
        {"token", "{\"i\":0,\"id\":-1,\"text\":\"a\"}", ERR_PROTOCOL, "id must be"},
        {"token", "{\"i\":0,\"id\":2147483648,\"text\":\"a\"}", ERR_PROTOCOL, "id must be"},
        {"token", "{\"i\":0,\"id\":1,\"text\":null}", ERR_PROTOCOL, "text must be a string"},
        {"token", "{\"i\":0,\"i\":0,\"id\":1,\"text\":\"\"}", ERR_PROTOCOL, "duplicate"},
        {"grant", "{}", ERR_PROTOCOL, "id is missing"},
        {"grant",
         "{\"id\":\"a\",\"match\":\"same\",\"tokens_max\":1,\"prompt_tokens\":1,\"cached_tokens\":"
         "0,"
         "\"first_token_ms\":1}",
         ERR_PROTOCOL, "match 'same'"},
        {"progress", "{\"done\":2,\"total\":1}", ERR_PROTOCOL, "above total"},
        {"done", "{\"reason\":\"budget\"}", ERR_PROTOCOL, "usage is missing"},
        {"done", "{\"reason\":\"bored\",\"usage\":{}}", ERR_PROTOCOL, "reason 'bored'"},
        {"done", "{\"reason\":\"stop\",\"usage\":{}}", ERR_PROTOCOL, "usage.prompt_tokens"},
        {"refined", "{\"ratio\":0.5,\"chunk\":32,\"kept\":\"A\",\"final\":true}", ERR_PROTOCOL,
         "event 'refined'"},
        {"refined", "{\"ratio\":0.5,\"chunk\":0,\"kept\":\"\",\"final\":true}", ERR_PROTOCOL,
         "chunk"},
        {"refined", "{\"ratio\":0.5,\"chunk\":1,\"kept\":\"\",\"final\":1}", ERR_PROTOCOL, "final"},
        {"refined",
         "{\"version\":0,\"ratio\":0.5,\"coverage\":1,\"chunk\":1,\"kept\":\"\",\"final\":true}",
         ERR_PROTOCOL, "version must be"},
        {"refined",
         "{\"version\":1,\"ratio\":0.5,\"coverage\":1.5,\"chunk\":1,\"kept\":\"\",\"final\":true}",
         ERR_PROTOCOL, "coverage must be"},
        {"refined",
         "{\"version\":1,\"ratio\":0.5,\"coverage\":1,\"chunk\":1,\"kept\":\"\",\"final\":true}",
         ERR_PROTOCOL, "kept is empty"},
        {"refined",
         "{\"version\":1,\"ratio\":1,\"coverage\":1,\"chunk\":1,\"kept\":\"AA==\",\"final\":true,"
         "\"refused\":\"flat\"}",
         ERR_PROTOCOL, "refused and has bits"},
        {"error", "{\"code\":\"\",\"message\":\"x\"}", ERR_PROTOCOL, "code"},
        {"error", "{\"code\":\"x\"}", ERR_PROTOCOL, "message is missing"},
    };
    struct wire_event ev;
    (void)state;
    wire_event_init(&ev);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = ERR_INIT;
        int code = wire_event_decode(cases[i].name, cases[i].data, strlen(cases[i].data), &ev, &e);
        if (code != cases[i].code || !strstr(e.text, cases[i].part) || e.code != code)
            fail_msg("%s %s: got %d: %s", cases[i].name, cases[i].data, code, e.text);
    }
    wire_event_release(&ev);
}

/* Catches: half a character sent to a device, or an id where none is known. */
static void events_not_sent(void **state)
{
    struct wire_event ev;
    struct buf b;
    (void)state;
    buf_init(&b, 1000);
    wire_event_init(&ev);
    assert_int_equal(wire_event_encode(&ev, &b, NULL), ERR_BAD_INPUT);
    ev.kind = WIRE_TOKEN;
    assert_int_equal(buf_append(&ev.text, "\xe2\x82", 2), 0);
    assert_int_equal(wire_event_encode(&ev, &b, NULL), ERR_BAD_INPUT);
    buf_clear(&ev.text);
    assert_int_equal(b.len, 0);
    ev.token = -1;
    assert_int_equal(wire_event_encode(&ev, &b, NULL), 0);
    assert_string_equal(b.data, "event: token\ndata: {\"i\":0,\"text\":\"\"}\n\n");
    ev.token = 7;
    assert_int_equal(wire_event_decode("token", "{\"i\":0,\"text\":\"\"}",
                                       strlen("{\"i\":0,\"text\":\"\"}"), &ev, NULL),
                     0);
    assert_int_equal(ev.token, -1);
    wire_event_release(&ev);
    buf_release(&b);
}

static void error_objects(void **state)
{
    struct buf b;
    char text[40];
    (void)state;
    buf_init(&b, 1000);
    assert_int_equal(wire_error_body(503, "drain", "the \"server\" \xe2\x82", NULL, &b), 0);
    assert_string_equal(b.data, "{\"error\":{\"message\":\"the \\\"server\\\" \",\"type\":\"server_"
                                "error\",\"param\":null,\"code\":\"drain\"}}");
    wire_error_text(b.data, b.len, text, sizeof text);
    assert_string_equal(text, "the \"server\" ");
    assert_true(wire_error_is(b.data, b.len, "drain"));
    assert_true(wire_error_is(b.data, b.len, "server_error"));
    assert_false(wire_error_is(b.data, b.len, "null"));
    assert_false(wire_error_is("<html>\nno</html>", 16, "no"));
    wire_error_text("<html>\nno</html>", 16, text, sizeof text);
    assert_string_equal(text, "<html> no</html>");
    wire_error_text("", 0, text, sizeof text);
    assert_string_equal(text, "");
    wire_error_text("0123456789012345678901234567890123456789012345", 46, text, 10);
    assert_string_equal(text, "012345678");
    buf_release(&b);
}

/* Catches: a bit read from the wrong end of its byte or beyond the map, a refusal that drops
 * tokens.
 */
static void bits_of_tokens(void **state)
{
    struct wire_event ev;
    (void)state;
    wire_event_init(&ev);
    ev.kind = WIRE_REFINED;
    ev.chunk = 1;
    assert_int_equal(buf_append(&ev.kept, "\x05\x80", 2), 0);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(wire_event_keeps(&ev, i), i == 0 || i == 2 || i == 15);
    ev.chunk = 4;
    for (uint32_t i = 0; i < 80; i++)
        assert_int_equal(wire_event_keeps(&ev, i), i < 4 || i / 4 == 2 || i / 4 == 15);
    memcpy(ev.refused, "flat", 5);
    assert_true(wire_event_keeps(&ev, 5));
    assert_int_equal(wire_kept_bytes(16, 1), 2);
    assert_int_equal(wire_kept_bytes(17, 1), 3);
    assert_int_equal(wire_kept_bytes(17, 16), 1);
    wire_event_release(&ev);
}

/* Catches: an error that is not told because its sentence was cut inside a character. */
static void long_sentences(void **state)
{
    struct wire_event ev, back;
    struct buf b;
    (void)state;
    wire_event_init(&ev);
    wire_event_init(&back);
    ev.kind = WIRE_ERROR;
    memcpy(ev.code, "limit", 6);
    memset(ev.message, 'x', sizeof ev.message);
    memcpy(ev.message + sizeof ev.message - 3, "\xe2\x82", 3);
    event_trip(&ev, &back);
    assert_int_equal(strlen(back.message), sizeof ev.message - 3);
    buf_init(&b, 10000);
    buf_puts(&b, "{\"code\":\"x\",\"message\":\"");
    for (int i = 0; i < 300; i++)
        buf_puts(&b, "\xe2\x82\xac");
    buf_puts(&b, "\"}");
    assert_int_equal(wire_event_decode("error", b.data, b.len, &ev, NULL), 0);
    event_trip(&ev, &back);
    assert_string_equal(back.message, ev.message);
    assert_int_equal(strlen(back.message), 510);
    static const char steering[] = "{\"code\":\"x\",\"message\":\"a\\u001b[2J\\u009bb\"}";
    assert_int_equal(wire_event_decode("error", steering, sizeof steering - 1, &ev, NULL), 0);
    assert_string_equal(ev.message, "a [2J  b"); /* no terminal obeys it */
    buf_release(&b);
    wire_event_release(&ev);
    wire_event_release(&back);
}

static void all_allocations(const char *json, size_t len)
{
    for (long n = 1;; n++) {
        struct wire_request r;
        mem_fail_at(n);
        int code = wire_request_decode(json, len, &r, NULL);
        int hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            assert_int_equal(code, 0);
            wire_request_release(&r);
            break;
        }
        assert_int_equal(code, ERR_NO_MEMORY);
    }
}

/* Catches: memory leaked or used after a failed allocation, at every allocation of our own. */
static void out_of_memory(void **state)
{
    static const char json[] =
        "{\"tokens_max\":1,\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"user\",\"content\":\"b\"}],\"have\":[1,2]}";
    static const char ids[] = "{\"tokens_max\":1,\"prompt\":[1,2],\"refine\":{\"ratio\":0.5,"
                              "\"messages\":[1,2],\"whole\":[0,1]}}";
    (void)state;
    all_allocations(json, sizeof json - 1);
    all_allocations(ids, sizeof ids - 1);
}

/* Catches: an order of events that a reader does not expect. Events by their first letters: g rant,
 * p rogress, r efined, R efined for good, x refined with bits for 9 tokens, 0 to 9 token, e rror, u
 * nknown; done with s top, b udget, l ength, c ancel, d eadline, D rain. The request has 2 tokens;
 * a done counts those that came, an upper-case X after it that it counts one more. */
static int take_letters(const char *letters, struct err *e)
{
    static const char dones[] = "bslcdD";
    struct wire_stream s;
    uint32_t came = 0, due = 2, version = 0;
    int code = 0;
    wire_stream_init(&s, 7, 2);
    for (const char *at = letters; *at && !code; at++) {
        struct wire_event ev = {.kind = WIRE_UNKNOWN, .match = WIRE_EXACT, .prompt_tokens = 7};
        const char *done = strchr(dones, *at);
        if (done) {
            ev.kind = WIRE_DONE;
            ev.reason = (enum wire_reason)(done - dones);
            ev.completion_tokens = came + (at[1] == 'X');
        } else if (*at >= '0' && *at <= '9') {
            ev.kind = WIRE_TOKEN;
            ev.index = (uint32_t)(*at - '0');
            came += ev.index == due;
            due += ev.index == due;
        } else if (*at != 'u' && *at != 'X') {
            ev.kind = *at == 'g' || *at == 'G' ? WIRE_GRANT
                      : *at == 'p'             ? WIRE_PROGRESS
                                               : WIRE_ERROR;
            if (*at == 'G') ev.prompt_tokens = 8;
            if (strchr("rRx", *at)) {
                ev.kind = WIRE_REFINED;
                ev.version = ++version;
                ev.final = *at == 'R';
                ev.chunk = 1;
                ev.kept.len = *at == 'x' ? 2 : 1;
            }
        }
        code = wire_stream_take(&s, &ev, e);
    }
    return code;
}

static void orders_of_events(void **state)
{
    static const struct {
        const char *letters, *part; /* NULL: it is in order */
    } cases[] = {
        {"ugpur23s", NULL},
        {"gprR2b", NULL},
        {"gR2rb", "version 2 of the refined prompt came after version 1, the final one"},
        {"gx2b", "2 bytes of bits, and 7 tokens take 1"},
        {"gb", NULL},
        {"g2323b", NULL}, /* what came before is for the caller to compare */
        {"D", NULL},
        {"d", NULL},
        {"c", NULL},
        {"e", NULL},
        {"g2D", NULL},
        {"s", "begin with a grant"},
        {"b", "begin with a grant"},
        {"l", "begin with a grant"},
        {"2", "begin with a grant"},
        {"p", "begin with a grant"},
        {"r", "begin with a grant"},
        {"gg", "second grant"},
        {"g2g", "second grant"},
        {"g3", "token 3 came where 2 was due"},
        {"g24", "token 4 came where 3 was due"},
        {"g1", "has it already"},
        {"g2bX", "counts 2 tokens, and 1 came"},
        {"DX", "counts 1 tokens, and 0 came"},
        {"G", "the grant counts 8 tokens of the prompt, and 7 were sent"},
        {"g2s3", "after its end"},
        {"eg", "after its end"},
        {"ss", "begin with a grant"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = ERR_INIT;
        int code = take_letters(cases[i].letters, &e);
        assert_int_equal(code, cases[i].part ? ERR_PROTOCOL : 0);
        if (code && !strstr(e.text, cases[i].part)) fail_msg("%s: %s", cases[i].letters, e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(requests_round_trip),
        cmocka_unit_test(messages_round_trip),
        cmocka_unit_test(longest_prompt),
        cmocka_unit_test(encoding_refuses),
        cmocka_unit_test(patches),
        cmocka_unit_test(events_round_trip),
        cmocka_unit_test(bad_events),
        cmocka_unit_test(events_not_sent),
        cmocka_unit_test(orders_of_events),
        cmocka_unit_test(error_objects),
        cmocka_unit_test(long_sentences),
        cmocka_unit_test(bits_of_tokens),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
