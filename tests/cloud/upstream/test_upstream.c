/*
 * test_upstream: a cloud whose answers are computed by servers behind it, over real sockets: a
 * scripted one that fails in every phase, and a second pdd cloud.
 *
 * Catches: a failure that reaches the device though another server could answer, an answer begun
 * again after its first token, a server that computes on when nobody listens, a promise (match)
 * that is not kept, a refusal without its status, a stream that never ends or keeps its place with
 * empty events.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cloud/api/keys.h"
#include "support/cloud_site.h"
#include "support/script_server.h"
#include "support/tls_files.h"

/* A server that is merely slow on a busy machine must not seem dead. */
enum { N = 5, TIMEOUT_US = 1000000, PREFILL_US = 3000000 };

static struct wire_message message = {(char *)(uintptr_t) "user", (char *)(uintptr_t) "Hello", 5};

static void ask(struct client *c, const struct site *s, uint32_t n)
{
    struct wire_request q;
    wire_request_init(&q);
    q.messages = &message;
    q.n_messages = 1;
    q.tokens_max = n;
    client_post(c, s->port, &q);
}

static void add_server(struct site *s, const char *url)
{
    s->config.upstream.servers[s->config.upstream.n_servers++].url = url;
}

/* How many servers the front takes for up. */
static unsigned servers_up(const struct site *s)
{
    struct buf b;
    unsigned up = 0;
    buf_init(&b, RAW_MAX);
    assert_int_equal(site_ask(s, "GET", "/metrics", NULL, "", &b), 200);
    for (const char *at = b.data; (at = strstr(at, "\npdd_upstream_up{")) != NULL; at++)
        up += strstr(at, "} 1") == strchr(at, '}');
    buf_release(&b);
    return up;
}

static void wait_count(const atomic_uint *count, uint32_t n)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (atomic_load(count) < n) {
        assert_true(clock_us() < until);
        clock_sleep_us(500);
    }
}

/* An answer without a stream: its status, and its head in c->raw. */
static int refusal(struct client *c)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (!c->status && client_read(c, 100))
        assert_true(clock_us() < until);
    return c->status;
}

/* A front before one scripted server, or two. */
static void begin(struct site *s, const struct script_server *a, const struct script_server *b)
{
    site_init(s);
    add_server(s, a->url);
    if (b) add_server(s, b->url);
    s->config.upstream.timeout_us = TIMEOUT_US;
    s->config.upstream.prefill_us = PREFILL_US;
    site_start(s);
    site_await_ready(s, 200);
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (servers_up(s) < s->config.upstream.n_servers) {
        assert_true(clock_us() < until);
        clock_sleep_us(2000);
    }
}

/* The text of an answer that was cut or not; everything is freed. */
static void check_text(struct client *c, const char *text)
{
    client_finish(c);
    assert_int_equal(c->status, 200);
    assert_string_equal(c->text.data, text);
    client_close(c);
}

static void test_text(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    ask(&c, &s, N);
    client_finish(&c);
    assert_true(c.done && !c.failed);
    assert_int_equal(c.match, WIRE_TEXT);
    assert_int_equal(c.reason, WIRE_BUDGET);
    assert_int_equal(c.n_tokens, N);
    assert_int_equal(c.tokens[0], -1);
    assert_int_equal(c.ev.prompt_tokens, 11);
    check_text(&c, "abcde");
    assert_int_equal(atomic_load(&a.closed), 0); /* its connection can be used again */
    site_stop(&s);
    script_stop(&a);
}

/* What one server does before its first token, and what the device hears when there is no other. */
static const struct {
    int how, status, after;
    int want;
    const char *part;
} faults[] = {
    {SCRIPT_STATUS, 500, 0, 502, "not today"},      {SCRIPT_STATUS, 429, 0, 429, "Retry-After: 7"},
    {SCRIPT_STATUS, 503, 0, 503, "Retry-After: 7"}, {SCRIPT_STATUS, 401, 0, 502, "not today"},
    {SCRIPT_CLOSE, 0, 0, 502, "127.0.0.1"},
};

static void test_alone(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"tokens_max\":5}";
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        script_start(&a, "somebody");
        begin(&s, &a, NULL);
        atomic_store(&a.status, faults[i].status);
        atomic_store(&a.how, faults[i].how);
        buf_init(&b, RAW_MAX);
        assert_int_equal(site_ask(&s, "POST", "/v1/assist", NULL, body, &b), faults[i].want);
        if (!strstr(b.data, faults[i].part)) fail_msg("%s not in %s", faults[i].part, b.data);
        buf_release(&b);
        site_stop(&s);
        script_stop(&a);
    }
}

/* The request's own fault is not tried elsewhere. */
static void test_bad_request(void **state)
{
    struct script_server a, b;
    struct site s;
    struct client c;
    (void)state;
    script_start(&a, "somebody");
    script_start(&b, "somebody");
    begin(&s, &a, &b);
    atomic_store(&a.status, 400);
    atomic_store(&b.status, 400);
    atomic_store(&a.how, SCRIPT_STATUS);
    atomic_store(&b.how, SCRIPT_STATUS);
    ask(&c, &s, N);
    assert_int_equal(refusal(&c), 400);
    assert_int_equal(atomic_load(&a.requests) + atomic_load(&b.requests), 1);
    client_close(&c);
    site_stop(&s);
    script_stop(&a);
    script_stop(&b);
}

static const struct {
    int how, status;
    bool after_too; /* can also happen after a token */
} phases[] = {
    {SCRIPT_STATUS, 500, false}, {SCRIPT_STATUS, 429, false}, {SCRIPT_CLOSE, 0, false},
    {SCRIPT_EMPTY, 0, true},     {SCRIPT_CUT, 0, true},       {SCRIPT_STALL, 0, true},
    {SCRIPT_GARBAGE, 0, true},   {SCRIPT_ERROR, 0, true},
};

/* Before the first token the other server answers, whoever is asked first. */
static void test_retry(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        struct script_server a, b;
        struct site s;
        struct client c;
        script_start(&a, "somebody");
        script_start(&b, "somebody");
        begin(&s, &a, &b);
        ask(&c, &s, N);
        check_text(&c, "abcde");
        struct script_server *first = atomic_load(&a.requests) ? &a : &b; /* of this prompt */
        atomic_store(&first->status, phases[i].status);
        atomic_store(&first->how, phases[i].how);
        ask(&c, &s, N);
        check_text(&c, "abcde");
        /* curl asks again by itself where a used connection dies before the first byte */
        assert_in_range(atomic_load(&first->requests), 2, phases[i].how == SCRIPT_CLOSE ? 3 : 2);
        assert_int_equal(atomic_load(first == &a ? &b.requests : &a.requests), 1);
        site_stop(&s);
        script_stop(&a);
        script_stop(&b);
    }
}

/* After it there is an error that names the server, and nobody else is asked. */
static void test_no_retry(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        struct script_server a;
        struct site s;
        struct client c;
        if (!phases[i].after_too) continue;
        script_start(&a, "somebody");
        begin(&s, &a, NULL);
        atomic_store(&a.after, 2);
        atomic_store(&a.how, phases[i].how);
        ask(&c, &s, N);
        client_finish(&c);
        assert_true(c.failed && !c.done);
        assert_non_null(strstr(c.ev.message, a.url));
        assert_int_equal(c.n_tokens, 2);
        assert_int_equal(atomic_load(&a.requests), 1);
        check_text(&c, "ab");
        site_stop(&s);
        script_stop(&a);
    }
}

/* Two servers that have answered once: the first one is asked before the second. */
static void begin_two(struct site *s, struct script_server *a, struct script_server *b,
                      struct script_server **ret_first, struct script_server **ret_second)
{
    struct client c;
    script_start(a, "somebody");
    script_start(b, "somebody");
    begin(s, a, b);
    ask(&c, s, N);
    check_text(&c, "abcde");
    *ret_first = atomic_load(&a->requests) ? a : b; /* of this prompt */
    *ret_second = *ret_first == a ? b : a;
}

/* Bytes that bring nothing keep a place for a while before the first token, then another server is
 * asked; after it for no longer than silence. */
static void test_empty_events(void **state)
{
    struct script_server a, b, *first, *second;
    struct site s;
    struct client c;
    (void)state;
    begin_two(&s, &a, &b, &first, &second);
    atomic_store(&first->how, SCRIPT_EMPTIES);
    atomic_store(&first->empties_ms, 1500 * TIMEOUT_US / 1000000); /* a long prefill */
    ask(&c, &s, N);
    check_text(&c, "abcde");
    assert_int_equal(atomic_load(&second->requests), 0);
    atomic_store(&first->empties_ms, 0);
    ask(&c, &s, N);
    check_text(&c, "abcde");
    assert_int_equal(atomic_load(&second->requests), 1);
    wait_count(&first->closed, 1);
    atomic_store(&first->after, 2);
    ask(&c, &s, N);
    client_finish(&c);
    assert_true(c.failed && !c.done);
    if (!strstr(c.ev.message, "nothing of the answer")) fail_msg("%s", c.ev.message);
    check_text(&c, "ab");
    wait_count(&first->closed, 2);
    site_stop(&s);
    script_stop(&a);
    script_stop(&b);
}

/* A server that begins a prefill again, behind one that had come further, gets on as well. */
static void test_prefill_again(void **state)
{
    struct script_server a, b, *first, *second;
    struct site s;
    struct client c;
    (void)state;
    begin_two(&s, &a, &b, &first, &second);
    atomic_store(&first->how, SCRIPT_CUT);
    atomic_store(&first->prefill_from, 90000);
    atomic_store(&first->prefill_ms, 10);
    atomic_store(&second->prefill_ms, 4 * PREFILL_US / 3000);
    ask(&c, &s, N);
    check_text(&c, "abcde");
    assert_int_equal(atomic_load(&first->requests), 2);
    assert_int_equal(atomic_load(&second->requests), 1);
    site_stop(&s);
    script_stop(&a);
    script_stop(&b);
}

/* An answer that is whole keeps no place, whatever its connection does; that goes soon. */
static void test_lingering(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    (void)state;
    script_start(&a, "somebody");
    atomic_store(&a.how, SCRIPT_LINGER);
    site_init(&s);
    add_server(&s, a.url);
    s.config.upstream.streams_max = 2;
    s.config.upstream.timeout_us = 4 * SITE_WAIT_US;
    site_start(&s);
    site_await_ready(&s, 200);
    for (int i = 0; i < 7; i++) {
        ask(&c, &s, N);
        check_text(&c, "abcde");
    }
    wait_count(&a.closed, 7);
    site_stop(&s);
    script_stop(&a);
}

/* Of a server that reports its prefill without end, only so much is kept and passed on. */
static void test_counting(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    atomic_store(&a.how, SCRIPT_COUNT);
    ask(&c, &s, N);
    client_finish(&c);
    check_text(&c, "abcde");
    assert_in_range(c.n_progress, 100, SCRIPT_COUNTED * 2 / 3);
    client_close(&c);
    site_stop(&s);
    script_stop(&a);
}

/* A server that ignores max_tokens is closed; so is one whose client left or was satisfied. */
static void test_closing(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    char path[WIRE_ID_MAX + 16];
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    atomic_store(&a.how, SCRIPT_MANY);
    ask(&c, &s, N);
    check_text(&c, "abcde");
    wait_count(&a.closed, 1);
    ask(&c, &s, 1000);
    client_until(&c, 3);
    client_close(&c); /* leaves */
    wait_count(&a.closed, 2);
    ask(&c, &s, 1000);
    client_until(&c, 3);
    snprintf(path, sizeof path, "/v1/assist/%s", c.id);
    assert_int_equal(site_ask(&s, "PATCH", path, NULL, "{\"tokens_max\":1}", NULL), 200);
    client_finish(&c);
    assert_int_equal(c.reason, WIRE_BUDGET);
    client_close(&c);
    wait_count(&a.closed, 3);
    ask(&c, &s, 1000);
    client_until(&c, 3);
    snprintf(path, sizeof path, "/v1/assist/%s", c.id);
    assert_int_equal(site_ask(&s, "DELETE", path, NULL, "", NULL), 200);
    client_finish(&c);
    assert_int_equal(c.reason, WIRE_CANCEL);
    client_close(&c);
    wait_count(&a.closed, 4);
    site_stop(&s);
    script_stop(&a);
}

/* With a vocabulary: ids out, ids back; one that is none ends the stream. */
static void test_ids(void **state)
{
    struct tiny_options tiny = TINY_DEFAULT;
    struct script_server a;
    struct site s;
    struct client c;
    char path[TINY_PATH_MAX];
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"have\":[100,"
        "101],\"tokens_max\":4}";
    (void)state;
    tiny_model_file(&tiny, path);
    script_start(&a, "vllm");
    site_init(&s);
    add_server(&s, a.url);
    s.config.upstream.vocab_path = path;
    s.config.upstream.chat_template = "chatml";
    site_start(&s);
    site_await_ready(&s, 200);
    client_open(&c, s.port);
    client_send(&c, "POST", "/v1/assist", NULL, body, sizeof body - 1);
    client_finish(&c);
    assert_true(c.done);
    assert_int_equal(c.first_index, 2);
    assert_int_equal(c.n_tokens, 4);
    for (int32_t i = 0; i < 4; i++)
        assert_int_equal(c.tokens[i], 100 + i);
    client_close(&c);
    atomic_store(&a.after, 2);
    atomic_store(&a.how, SCRIPT_WRONG_ID);
    client_open(&c, s.port);
    client_send(&c, "POST", "/v1/assist", NULL, body, sizeof body - 1);
    client_finish(&c);
    assert_true(c.failed);
    assert_non_null(strstr(c.ev.message, "123456789"));
    assert_int_equal(c.n_tokens, 2);
    client_close(&c);
    site_stop(&s);
    script_stop(&a);
    unlink(path);
}

/* /ready follows the servers; a server that comes back is used again; without any: 503. */
static void test_health(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    atomic_store(&a.ill, true);
    atomic_store(&a.how, SCRIPT_CLOSE);
    ask(&c, &s, N); /* which makes it be asked after its health */
    assert_int_equal(refusal(&c), 502);
    client_close(&c);
    site_await_ready(&s, 503);
    ask(&c, &s, N);
    assert_int_equal(refusal(&c), 503);
    assert_non_null(strstr(c.raw.data, "Retry-After: 5"));
    client_close(&c);
    atomic_store(&a.how, SCRIPT_FINE);
    atomic_store(&a.ill, false);
    site_await_ready(&s, 200);
    ask(&c, &s, N);
    check_text(&c, "abcde");
    site_stop(&s);
    script_stop(&a);
}

/* Until a server has told its model, none is listed: not one without a name, which another front
 * would take for a server that is up. A request that names a model hears 503, not that it is
 * unknown. */
static void test_nothing_known(void **state)
{
    struct script_server a;
    struct site s;
    struct buf b;
    const char *chat = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    (void)state;
    buf_init(&b, RAW_MAX);
    script_start(&a, "somebody");
    atomic_store(&a.ill, true);
    site_init(&s);
    add_server(&s, a.url);
    site_start(&s);
    assert_int_equal(site_ask(&s, "GET", "/v1/models", NULL, "", &b), 200);
    assert_non_null(strstr(b.data, "\"data\":[]"));
    assert_int_equal(site_ask(&s, "GET", "/v1/models/m", NULL, "", NULL), 503);
    assert_int_equal(site_ask(&s, "POST", "/v1/chat/completions", NULL, chat, NULL), 503);
    buf_release(&b);
    site_stop(&s);
    script_stop(&a);
}

/* A request whose deadline passes at the server ends with that reason. */
static void test_deadline(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    struct wire_request q;
    (void)state;
    script_start(&a, "somebody");
    begin(&s, &a, NULL);
    atomic_store(&a.after, 1);
    atomic_store(&a.how, SCRIPT_STALL);
    wire_request_init(&q);
    q.messages = &message;
    q.n_messages = 1;
    q.tokens_max = N;
    q.deadline_ms = 100;
    client_post(&c, s.port, &q);
    client_finish(&c);
    assert_true(c.done);
    assert_int_equal(c.reason, WIRE_DEADLINE);
    client_close(&c);
    site_stop(&s);
    script_stop(&a);
}

/* ---- a second pdd ---- */

/* The hashes, numerics and tokens of a device with the same engine. */
static void fill_request(const struct site *inner, struct wire_request *q, int32_t *prompt,
                         uint32_t n)
{
    struct engine *e = site_engine(inner);
    const struct engine_info *info = engine_info(e);
    wire_request_init(q);
    memcpy(q->weights, info->weights_hash, sizeof q->weights);
    memcpy(q->tokenizer, info->tokenizer_hash, sizeof q->tokenizer);
    snprintf(q->numerics, sizeof q->numerics, "%s", info->numerics);
    for (uint32_t i = 0; i < n; i++)
        prompt[i] = (int32_t)(i * 7 % 256);
    q->prompt = prompt;
    q->n_prompt = n;
    engine_free(e);
}

static void start_pair(struct site *inner, struct site *outer, double step_us, char url[64])
{
    site_init(inner);
    inner->fake.step_us = step_us;
    site_start(inner);
    snprintf(url, 64, "http://127.0.0.1:%u/v1", inner->port);
    site_init(outer);
    add_server(outer, url);
    site_start(outer);
    site_await_ready(outer, 200);
}

/* Ids, hashes and match pass; a resumed request goes on; what the front says of itself is true. */
static void test_pdd_passes(void **state)
{
    struct site inner, outer;
    struct wire_request q;
    struct client c;
    struct site_answer want;
    int32_t prompt[40];
    char url[64];
    (void)state;
    start_pair(&inner, &outer, 1000, url);
    fill_request(&inner, &q, prompt, 40);
    site_truth(&inner, prompt, 40, &q.sampling, 20, &want);
    for (uint32_t have = 0; have < 20; have += 9) {
        q.have = have ? want.tokens : NULL;
        q.n_have = have;
        q.tokens_max = 20 - have;
        client_post(&c, outer.port, &q);
        client_finish(&c);
        assert_true(c.done);
        assert_int_equal(c.match, strcmp(q.numerics, "none") == 0 ? c.match : WIRE_EXACT);
        assert_int_equal(c.prompt_tokens, 40);
        assert_int_equal(c.n_tokens, 20 - have);
        assert_int_equal(c.first_index, have);
        assert_memory_equal(c.tokens, want.tokens + have, (20 - have) * sizeof *c.tokens);
        client_close(&c);
    }
    q.tokenizer[0] = q.tokenizer[0] == 'a' ? 'b' : 'a'; /* another tokenizer: ids are refused */
    q.have = NULL;
    q.n_have = 0;
    client_post(&c, outer.port, &q);
    assert_int_equal(refusal(&c), 400);
    client_close(&c);
    site_stop(&outer);
    site_stop(&inner);
}

/* A device that leaves stops the engine behind the front; PATCH reaches it, and a second one that
 * comes while the first is on its way. */
static void test_pdd_stops(void **state)
{
    struct site inner, outer;
    struct wire_request q;
    struct client c;
    int32_t prompt[40];
    char url[64], path[WIRE_ID_MAX + 16];
    (void)state;
    start_pair(&inner, &outer, 20000, url);
    fill_request(&inner, &q, prompt, 40);
    q.tokens_max = 50;
    client_post(&c, outer.port, &q);
    client_until(&c, 5);
    client_close(&c);
    site_check_idle(&inner);
    assert_true(site_stats(&inner).decode_tokens < 40);
    q.tokens_max = 10;
    client_post(&c, outer.port, &q);
    client_until(&c, 1);
    snprintf(path, sizeof path, "/v1/assist/%s", c.id);
    assert_int_equal(site_ask(&outer, "PATCH", path, NULL, "{\"tokens_max\":12}", NULL), 200);
    assert_int_equal(site_ask(&outer, "PATCH", path, NULL, "{\"tokens_max\":30}", NULL), 200);
    client_finish(&c);
    assert_true(c.done && c.n_tokens > 12);
    client_close(&c);
    site_stop(&outer);
    site_stop(&inner);
}

enum { KEPT_MAX = 400 };

/* Append the text of a completion, as JSON. */
static void keep_text(const struct buf *response, char kept[KEPT_MAX])
{
    const char *at = strstr(response->data, "\"text\":"), *end = at ? strchr(at + 8, ',') : NULL;
    size_t n = strlen(kept);
    assert_non_null(end);
    snprintf(kept + n, KEPT_MAX - n, "%.*s", (int)(end - at), at);
}

/* A completion of token ids, or of a text, passes to a pdd, whether the front has the vocabulary or
 * not, and its answer is the same. A prompt that is too long there has the code it has here. */
static void test_pdd_completes(void **state)
{
    static const char ids[] = "{\"prompt\":[75,100,114],\"max_tokens\":4,\"temperature\":0}";
    static const char text[] = "{\"prompt\":\"Hi\",\"max_tokens\":4,\"temperature\":0}";
    struct tiny_options tiny = TINY_DEFAULT;
    struct site inner, outer;
    struct wire_request q;
    struct buf b;
    int32_t prompt[600];
    char path[TINY_PATH_MAX], url[64], said[2][KEPT_MAX] = {"", ""};
    (void)state;
    tiny_model_file(&tiny, path);
    buf_init(&b, RAW_MAX);
    site_init(&inner);
    inner.native_path = path;
    site_start(&inner);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", inner.port);
    for (int with = 0; with < 2; with++) {
        site_init(&outer);
        add_server(&outer, url);
        outer.config.upstream.vocab_path = with ? path : NULL;
        site_start(&outer);
        site_await_ready(&outer, 200);
        buf_clear(&b);
        assert_int_equal(site_ask(&outer, "POST", "/v1/completions", NULL, ids, &b), 200);
        keep_text(&b, said[with]);
        buf_clear(&b);
        assert_int_equal(site_ask(&outer, "POST", "/v1/completions", NULL, text, &b), 200);
        keep_text(&b, said[with]);
        struct buf body;
        buf_init(&body, RAW_MAX);
        fill_request(&inner, &q, prompt, 600);
        q.tokens_max = 4;
        assert_int_equal(wire_request_encode(&q, &body, NULL), 0);
        buf_clear(&b);
        assert_int_equal(site_ask(&outer, "POST", "/v1/assist", NULL, body.data, &b), 400);
        assert_non_null(strstr(b.data, "\"context_length_exceeded\""));
        buf_release(&body);
        site_stop(&outer);
    }
    assert_string_equal(said[0], said[1]);
    site_stop(&inner);
    buf_release(&b);
    unlink(path);
}

/* ---- a second pdd that does not keep to the protocol ---- */

#define TOKEN(i) "event: token\ndata: {\"i\":" #i ",\"id\":7,\"text\":\"x\"}\n\n"
#define END(reason, n)                                                                             \
    "event: done\ndata: {\"reason\":\"" reason "\",\"usage\":{\"prompt_tokens\":11,"               \
    "\"cached_tokens\":0,\"completion_tokens\":" #n "}}\n\n"
#define PROGRESS "event: progress\ndata: {\"done\":1,\"total\":2}\n\n"

/* Before any token: what a client hears when there is no other server. */
static const struct {
    const char *saying;
    int status;
    const char *part;
} orders[] = {
    {TOKEN(0), 502, "begin with a grant"},
    {END("stop", 0), 502, "begin with a grant"},
    {END("budget", 0), 502, "begin with a grant"},
    {END("length", 0), 502, "begin with a grant"},
    {PROGRESS, 502, "begin with a grant"},
    {SCRIPT_GRANT SCRIPT_GRANT, 502, "second grant"},
    {SCRIPT_GRANT END("stop", 1), 502, "counts 1 tokens"},
    {SCRIPT_GRANT TOKEN(1), 502, "where 0 was due"},
    {END("drain", 0), 503, "shutting down"}, /* these it may say before its grant */
    {END("deadline", 0), 503, "deadline"},
};

static const char *const stream_bodies[] = {
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"stream\":true,\"max_tokens\":5}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"max_tokens\":5}"};

/* Where the stream has begun the error is in it. */
static void check_refused(const struct site *s, const char *body, size_t order)
{
    bool granted = strncmp(orders[order].saying, SCRIPT_GRANT, strlen(SCRIPT_GRANT)) == 0;
    bool in_stream = granted && strstr(body, "\"stream\":true");
    char request[400], status[16];
    struct buf b;
    snprintf(request, sizeof request,
             "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    raw_ask(s->port, request, &b);
    if (!strstr(b.data, orders[order].part)) fail_msg("order %zu: %s", order, b.data);
    snprintf(status, sizeof status, "HTTP/1.1 %d", in_stream ? 200 : orders[order].status);
    if (strncmp(b.data, status, strlen(status)) != 0) fail_msg("order %zu: %s", order, b.data);
    buf_release(&b);
}

/* A front that is a client of OpenAI's API to one side and of a pdd to the other stands whatever
 * order that one's events have; each face and form of answer says what is wrong. */
static void test_order_of_events(void **state)
{
    struct script_server a;
    struct site s;
    (void)state;
    script_start(&a, "pdd");
    begin(&s, &a, NULL);
    atomic_store(&a.how, SCRIPT_SAY);
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        atomic_store(&a.saying, orders[i].saying);
        for (size_t k = 0; k < sizeof stream_bodies / sizeof *stream_bodies; k++)
            check_refused(&s, stream_bodies[k], i);
    }
    assert_int_equal(site_ask(&s, "GET", "/health", NULL, "", NULL), 200);
    site_stop(&s);
    script_stop(&a);
}

/* And it is the server's fault, so that another one answers. */
static void test_order_retried(void **state)
{
    (void)state;
    for (size_t i = 0; orders[i].status == 502; i++) {
        struct script_server a, b;
        struct site s;
        struct client c;
        script_start(&a, "pdd");
        script_start(&b, "pdd");
        begin(&s, &a, &b);
        ask(&c, &s, N);
        check_text(&c, "abcde");
        struct script_server *first = atomic_load(&a.requests) ? &a : &b; /* of this prompt */
        atomic_store(&first->saying, orders[i].saying);
        atomic_store(&first->how, SCRIPT_SAY);
        ask(&c, &s, N);
        check_text(&c, "abcde");
        assert_int_equal(atomic_load(&a.requests) + atomic_load(&b.requests), 3);
        site_stop(&s);
        script_stop(&a);
        script_stop(&b);
    }
}

/* A prefill that gets on without end keeps its place for so many times, and no longer. */
static void test_endless_prefill(void **state)
{
    struct script_server a;
    struct site s;
    struct client c;
    (void)state;
    script_start(&a, "somebody");
    site_init(&s);
    add_server(&s, a.url);
    s.config.upstream.timeout_us = TIMEOUT_US;
    s.config.upstream.prefill_us = 100000;
    site_start(&s);
    site_await_ready(&s, 200);
    atomic_store(&a.prefill_ms, 1000 * 1000);
    ask(&c, &s, N);
    client_finish(&c);
    assert_true(c.failed && !c.done);
    if (!strstr(c.ev.message, "nothing of the answer")) fail_msg("%s", c.ev.message);
    client_close(&c);
    wait_count(&a.closed, 1);
    site_stop(&s);
    script_stop(&a);
}

static void write_text(char path[40], const char *text)
{
    snprintf(path, 40, "/tmp/pdd-upstream-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A server behind TLS that asks for a key: with both it answers, without its key or its
 * certificate it is down, and the device hears 503. */
static void test_tls_and_key(void **state)
{
    struct site inner, outer;
    struct client c;
    struct tls_files files;
    struct key_line line = {.name = "front"};
    struct buf b;
    char key[KEY_MADE_BYTES], keys_path[40], key_path[40], url[64];
    (void)state;
    tls_files_make(TLS_FILES_ECDSA, &files);
    assert_int_equal(key_make(key, NULL), 0);
    key_hash(key, strlen(key), line.hash);
    buf_init(&b, RAW_MAX);
    assert_int_equal(key_line_print(&line, &b), 0);
    write_text(keys_path, b.data);
    write_text(key_path, key);
    site_init(&inner);
    inner.config.tls[0] = (struct tls_identity){files.cert, files.key};
    inner.config.n_tls = 1;
    inner.config.keys_path = keys_path;
    site_start(&inner);
    snprintf(url, sizeof url, "https://127.0.0.1:%u", inner.port);
    for (unsigned with = 0; with < 4; with++) { /* bit 0: the key; bit 1: the certificate */
        site_init(&outer);
        add_server(&outer, url);
        outer.config.upstream.servers[0].key_path = with & 1 ? key_path : NULL;
        outer.config.upstream.ca_file = with & 2 ? files.cert : NULL;
        site_start(&outer);
        if (with == 3) site_await_ready(&outer, 200);
        clock_sleep_us(50000); /* a server that is not wanted has had time to seem up */
        ask(&c, &outer, N);
        if (with == 3) {
            client_finish(&c);
            assert_true(c.done);
            assert_int_equal(c.n_tokens, N);
        } else {
            assert_int_equal(refusal(&c), 503);
        }
        client_close(&c);
        site_stop(&outer);
    }
    site_stop(&inner);
    buf_release(&b);
    unlink(key_path);
    unlink(keys_path);
    tls_files_remove(&files);
}

/* Two of different weights are not one model: the second stays down. */
static void test_pdd_of_another_model(void **state)
{
    struct site inner, other, outer;
    char url[2][64];
    (void)state;
    site_init(&inner);
    site_init(&other);
    other.fake.model_name = "another";
    site_start(&inner);
    site_start(&other);
    snprintf(url[0], 64, "http://127.0.0.1:%u", inner.port);
    snprintf(url[1], 64, "http://127.0.0.1:%u", other.port);
    site_init(&outer);
    add_server(&outer, url[0]);
    add_server(&outer, url[1]);
    site_start(&outer);
    site_await_ready(&outer, 200);
    clock_sleep_us(100000);
    assert_int_equal(servers_up(&outer), 1);
    site_stop(&outer);
    site_stop(&other);
    site_stop(&inner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),          cmocka_unit_test(test_alone),
        cmocka_unit_test(test_bad_request),   cmocka_unit_test(test_retry),
        cmocka_unit_test(test_no_retry),      cmocka_unit_test(test_closing),
        cmocka_unit_test(test_counting),      cmocka_unit_test(test_empty_events),
        cmocka_unit_test(test_ids),           cmocka_unit_test(test_health),
        cmocka_unit_test(test_deadline),      cmocka_unit_test(test_pdd_passes),
        cmocka_unit_test(test_pdd_stops),     cmocka_unit_test(test_pdd_of_another_model),
        cmocka_unit_test(test_tls_and_key),   cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_pdd_completes), cmocka_unit_test(test_lingering),
        cmocka_unit_test(test_prefill_again), cmocka_unit_test(test_order_of_events),
        cmocka_unit_test(test_order_retried), cmocka_unit_test(test_endless_prefill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
