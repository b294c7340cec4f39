/*
 * fuzz_upstream: several jobs at two upstream servers, in all dialects, while the servers
 * send whatever they like and the jobs' owners extend, cancel and drain. Whatever comes, each job
 * hears its events in order - admitted, then progress and tokens, each with the next index, then
 * its one end - no token is one that the vocabulary does not have, none is beyond what was asked
 * for, an end without an answer has a sentence and a status, and no slot is left taken. A request
 * that is passed on hears chunks of UTF-8 instead.
 *
 * Input: a byte for the kinds of the servers and whether there is a vocabulary; then what happens:
 * a byte, its low three bits, and as many more as it needs.
 */
#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "cloud/upstream/dialect.h"
#include "cloud/upstream/upstream.h"
#include "fake_client.h"
#include "model/text/vocab.h"
#include "proto/openai_pass.h"
#include "support/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { JOBS = 6, SERVERS = 2, TIMEOUT_US = 2000, TOKENS_MAX = 12, TURNS_MAX = 10000 };

struct owner {
    struct job *job; /* NULL: over */
    uint32_t next, tokens, most;
    bool admitted, passes;
};

struct world {
    struct input in;
    struct loop *loop;
    struct backend *backend;
    struct owner owners[JOBS];
    uint32_t n_owners, n_running;
};

static struct world w;
static struct http_client *clients[SERVERS];
static unsigned n_clients;
static enum dialect dialects[SERVERS];
static char vocab_path[TINY_PATH_MAX];

static void fake_client_made(struct http_client *c)
{
    CHECK(n_clients < SERVERS);
    clients[n_clients++] = c;
}

static void fake_client_freed(struct http_client *c)
{
    (void)c;
}

static void fake_call_made(struct http_call *call)
{
    (void)call;
}

/* ---- what the owner of a job hears ---- */

static void check_token(const struct owner *o, const struct job_event *ev)
{
    const struct vocab *v = w.backend->vocab;
    CHECK(o->admitted && ev->index == o->next && o->tokens < o->most);
    CHECK(ev->token >= -1 && (ev->text || ev->token >= 0));
    if (v && ev->token >= 0 && !ev->text) CHECK((uint32_t)ev->token < vocab_size(v));
}

static void check_done(const struct owner *o, const struct job_event *ev)
{
    bool whole = ev->reason == WIRE_BUDGET || ev->reason == WIRE_STOP || ev->reason == WIRE_LENGTH;
    CHECK(ev->produced == o->tokens);
    if (ev->failure) {
        CHECK(ev->failure->e.code && ev->failure->e.text[0]);
        CHECK(ev->failure->status == 0 || ev->failure->status >= 400);
    } else {
        CHECK(!whole || o->admitted);
    }
}

static void on_event(void *owner, const struct job_event *ev)
{
    struct owner *o = owner;
    CHECK(o->job && ev->job == o->job);
    switch (ev->kind) {
    case JOB_ADMITTED:
        CHECK(!o->admitted && o->tokens == 0);
        o->admitted = true;
        break;
    case JOB_PROGRESS:
        CHECK(o->admitted && o->tokens == 0 && ev->done <= ev->total);
        break;
    case JOB_THOUGHT:
        CHECK(o->admitted && ev->text);
        break;
    case JOB_REFINED: /* other servers refine nothing */
        CHECK(false);
        break;
    case JOB_CHUNK:
        CHECK(o->admitted && o->passes && ev->text && ev->text_len > 0);
        CHECK(utf8_valid_prefix(ev->text, ev->text_len) == ev->text_len);
        o->tokens += ev->produced;
        break;
    case JOB_TOKEN:
        check_token(o, ev);
        o->next++;
        o->tokens++;
        break;
    case JOB_DONE:
        check_done(o, ev);
        job_free(o->job);
        o->job = NULL;
        w.n_running--;
    }
}

static void take_events(void)
{
    struct job_event ev;
    while (backend_take_event(w.backend, &ev))
        ev.job->on_event(ev.job->owner, &ev);
}

static void woken(void *arg)
{
    (void)arg; /* events wait until the fuzzer, or the end, takes them */
}

/* ---- jobs ---- */

/* One whose fields only the server behind can serve. */
static struct job *new_passed_job(void)
{
    static const char request[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"n\":2,\"logprobs\":true,"
        "\"stream\":true,\"max_tokens\":5,\"tools\":[{\"type\":\"function\",\"function\":"
        "{\"name\":\"f\"}}]}";
    const struct openai_pass_rules rules = {.chat = true, .by_text = !w.backend->takes_ids};
    char param[OPENAI_PARAM_MAX];
    struct openai_request r;
    struct job *job;
    CHECK(openai_pass_decode(request, sizeof request - 1, &rules, &r, param, NULL) == 0);
    CHECK(r.ask.passed && job_new_asked(&job, NULL) == 0);
    job_take_asked(job, &r.ask);
    openai_request_release(&r);
    job->sampling = (struct sampling)SAMPLING_GREEDY;
    return job;
}

static struct job *new_job(uint8_t how)
{
    static const int32_t prompt[] = {65, 66, 67}, have[] = {70, 71};
    static const char request[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"tokens_max\":5}";
    static const char by_ids[] = "{\"prompt\":[65,66,67],\"have\":[70,71],\"tokens_max\":5}";
    struct wire_request q;
    struct job *job;
    uint32_t n_have = how & 0x20 ? 2 : 0;
    const char *text = how & 0x40 ? by_ids : request;
    CHECK(wire_request_decode(text, strlen(text), &q, NULL) == 0);
    int code = w.backend->takes_ids
                   ? job_new(prompt, 3, have, q.n_have ? q.n_have : n_have, &job, NULL)
                   : job_new_asked(&job, NULL);
    CHECK(code == 0);
    if (w.backend->takes_ids && !q.n_have && n_have) {
        q.have = mem_alloc(sizeof have);
        CHECK(q.have);
        memcpy(q.have, have, sizeof have);
        q.n_have = n_have;
    }
    job_take_asked(job, &q);
    job->sampling = (struct sampling){.top_p = 1.0f, .repeat_penalty = 1.0f};
    job->tenant = how >> 7;
    return job;
}

static void submit(uint8_t how)
{
    struct err e = ERR_INIT;
    if (w.n_owners == JOBS) return;
    struct owner *o = &w.owners[w.n_owners++];
    const bool passes = (how & 0xe0) == 0xa0;
    *o = (struct owner){
        .job = passes ? new_passed_job() : new_job(how), .most = 1 + how / 8 % 4, .passes = passes};
    o->next = o->job->n_have;
    o->job->on_event = on_event;
    o->job->owner = o;
    if (how == 0xf8) o->job->deadline = clock_us() + TIMEOUT_US / 2;
    atomic_store(&o->job->tokens_max, o->most);
    if (backend_submit(w.backend, o->job, &e)) {
        CHECK(e.text[0]);
        job_free(o->job);
        o->job = NULL;
    } else {
        w.n_running++;
    }
}

static void change(uint8_t how)
{
    struct owner *o = w.n_owners ? &w.owners[how / 8 % w.n_owners] : NULL;
    if (!o || !o->job) return;
    switch (take(&w.in) % 4) {
    case 0:
        atomic_store(&o->job->cancelled, true);
        break;
    case 1:
        atomic_store(&o->job->drained, true);
        break;
    case 2:
        atomic_store(&o->job->tokens_max, 1);
        break;
    default:
        o->most = TOKENS_MAX;
        atomic_store(&o->job->tokens_max, TOKENS_MAX);
    }
    backend_changed(w.backend, o->job);
}

/* ---- servers ---- */

static struct http_call *find(unsigned server, bool posts, unsigned which)
{
    unsigned n = 0;
    for (struct http_call *c = clients[server]->calls; c; c = c->next)
        n += c->posts == posts;
    if (n == 0) return NULL;
    which %= n;
    for (struct http_call *c = clients[server]->calls; c; c = c->next)
        if (c->posts == posts && which-- == 0) return c;
    return NULL;
}

static void answer_models(struct http_call *call, enum dialect d)
{
    static const char *const owners[DIALECTS] = {"pdd", "llamacpp", "vllm", "sglang", "other"};
    char text[400];
    snprintf(
        text, sizeof text,
        "{\"data\":[{\"id\":\"m\",\"owned_by\":\"%s\",\"hashes\":{\"weights\":\"w\",\"tokenizer\":"
        "\"%s\",\"template\":\"t\"},\"numerics\":\"n\"}]}",
        owners[d], w.backend->vocab ? w.backend->info->tokenizer_hash : "t");
    fake_status(call, 200, text, 0);
}

/* A call that is no stream: a probe, or a PATCH. */
static void answer_other(unsigned server, uint8_t how)
{
    struct http_call *call = find(server, false, how);
    if (!call) return;
    if (how & 0x80)
        fake_end(call, take(&w.in));
    else if (strcmp(call->path, "/v1/models") == 0)
        answer_models(call, dialects[server]);
    else
        fake_status(call, 200, "{\"version\":\"0.11.0\"}", 0);
}

static void say_bytes(struct http_call *call)
{
    char piece[256];
    size_t n = (size_t)take(&w.in) + 1;
    if (n > w.in.n) n = w.in.n;
    memcpy(piece, w.in.at, n);
    w.in.at += n;
    w.in.n -= n;
    fake_body(call, piece, n);
}

static void put_end(struct http_call *call, uint8_t what, struct buf *b)
{
    if (strcmp(call->path, "/completion") == 0)
        buf_printf(b, "data: {\"stop\":true,\"stop_type\":\"%s\",\"tokens_predicted\":%u}\n\n",
                   what & 8 ? "limit" : "eos", call->sent);
    else if (strcmp(call->path, "/generate") == 0)
        buf_printf(
            b, "data: {\"output_ids\":[],\"meta_info\":{\"finish_reason\":{\"type\":\"%s\"}}}\n\n",
            what & 16  ? "abort"
            : what & 8 ? "length"
                       : "stop");
    else
        buf_printf(
            b, "data: {\"choices\":[{\"text\":\"\",\"delta\":{},\"finish_reason\":\"%s\"}]}\n\n",
            what & 8 ? "length" : "stop");
    if (what & 32) buf_puts(b, "data: [DONE]\n\n");
}

static void put_tokens(struct http_call *call, uint8_t what, struct buf *b)
{
    unsigned id = take(&w.in) + (what & 64 ? 200u : 0u);
    unsigned count = call->sent + (what & 8 ? 2 : 1);
    if (strcmp(call->path, "/completion") == 0)
        buf_printf(b, "data: {\"content\":\"%c\",\"tokens\":[%u],\"tokens_predicted\":%u}\n\n",
                   (char)('a' + id % 26), id, count);
    else if (strcmp(call->path, "/generate") == 0)
        buf_printf(b, "data: {\"output_ids\":[%u%s],\"meta_info\":{\"completion_tokens\":%u}}\n\n",
                   id, what & 8 ? ",77" : "", count);
    else if (strcmp(call->path, "/v1/completions") == 0)
        buf_printf(b, "data: {\"choices\":[{\"text\":\"x\",\"token_ids\":[%u%s]}]}\n\n", id,
                   what & 8 ? ",77" : "");
    else if (what & 16)
        buf_printf(b,
                   "data: {\"choices\":[{\"index\":%u,\"delta\":{\"tool_calls\":[{\"index\":0,"
                   "\"function\":{\"arguments\":\"%c\"}}]}}]}\n\n",
                   what >> 7, (char)('a' + id % 26));
    else
        buf_printf(b, "data: {\"choices\":[{\"delta\":{\"content\":\"%c\"}}]}\n\n",
                   (char)('a' + id % 26));
    call->sent = count;
}

static void say_event(struct http_call *call)
{
    struct buf b;
    buf_init(&b, FAKE_PIECE_MAX);
    if (strcmp(call->path, "/v1/assist") == 0) {
        fake_pdd_event(call, &w.in, &b);
    } else {
        uint8_t what = take(&w.in), done = what % 4 == 1 ? take(&w.in) : 0;
        if (what % 4 == 0)
            put_end(call, what, &b);
        else if (what % 4 == 1)
            buf_printf(
                &b,
                "data: {\"choices\":[],\"prompt_progress\":{\"total\":255,\"processed\":%u}}\n\n",
                done);
        else
            put_tokens(call, what, &b);
    }
    fake_body(call, b.data, b.len);
    buf_release(&b);
}

/* ---- the run ---- */

static void turn_loop(void)
{
    event_base_loop(loop_base(w.loop), EVLOOP_NONBLOCK);
}

static void happen(uint8_t what)
{
    unsigned server = what >> 3 & 1;
    struct http_call *call = find(server, true, what >> 4);
    switch (what % 8) {
    case 0:
        submit(take(&w.in));
        break;
    case 1:
        if (call) say_bytes(call);
        break;
    case 2:
        if (call) fake_end(call, take(&w.in));
        break;
    case 3:
        change(what);
        break;
    case 4:
        answer_other(server, what);
        break;
    case 5:
        if (what >= 0xc0) clock_sleep_us(TIMEOUT_US / 4u * (what >> 3 & 7));
        turn_loop();
        take_events();
        break;
    default:
        if (call) say_event(call);
    }
}

/* Both servers are up before the fuzzer begins. */
static void begin(uint8_t kinds)
{
    struct upstream_config c = {.servers = {{.url = "http://a"}, {.url = "http://b"}},
                                .n_servers = SERVERS,
                                .vocab_path = kinds & 0x80 ? vocab_path : NULL,
                                .chat_template = "chatml",
                                .streams_max = JOBS,
                                .timeout_us = TIMEOUT_US,
                                .prefill_us = 2 * TIMEOUT_US,
                                .wake = woken};
    struct err e = ERR_INIT;
    w = (struct world){.n_owners = 0};
    n_clients = 0;
    dialects[0] = (enum dialect)(kinds % 5);
    dialects[1] = (enum dialect)(kinds / 5 % 5);
    CHECK(loop_new(&w.loop, NULL) == 0);
    CHECK(upstream_new(w.loop, &c, &w.backend, &e) == 0);
    turn_loop();
    for (unsigned i = 0; i < 2 * SERVERS; i++) /* vLLM is asked after its version, too */
        answer_other(i % SERVERS, 0);
}

/* The servers go away: every job ends, by the network's word or by its time. */
static void finish(void)
{
    for (int turns = 0; w.n_running > 0; turns++) {
        CHECK(turns < TURNS_MAX);
        for (unsigned i = 0; i < SERVERS; i++) {
            struct http_call *call = find(i, true, 0);
            if (call) fake_cut(call, ERR_NET);
        }
        turn_loop();
        take_events();
        if (turns > 100) clock_sleep_us(TIMEOUT_US / 10);
    }
    struct backend_stats stats;
    backend_stats_of(w.backend, &stats);
    CHECK(stats.running == 0);
}

static void remove_vocab(void)
{
    unlink(vocab_path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2 || n > 1 << 14) return 0;
    if (!vocab_path[0]) {
        struct tiny_options tiny = TINY_DEFAULT;
        tiny_model_file(&tiny, vocab_path);
        atexit(remove_vocab);
        log_set_level(LOG_ERROR);
    }
    begin(data[0]);
    w.in = (struct input){data + 1, n - 1};
    while (w.in.n > 0)
        happen(take(&w.in));
    finish();
    backend_free(w.backend);
    loop_free(w.loop);
    return 0;
}
