/*
 * fuzz_device: a whole device - turn, assist, server-sent events, engine thread - against whatever
 * a cloud may send, in place of the HTTP client. Whatever comes, a question is answered or refused
 * in a sentence, in time; what the device's own engine adds follows from what was there before; and
 * the next question, without the cloud, is answered as if nothing had been.
 *
 * Input: two bytes of the device and the question; then what happens to the call that was made
 * last: a byte that says what, its low three bits, and as many more as it needs.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "device/device.h"
#include "engine/fake.h"
#include "fake_client.h"
#include "support/cloud_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { TOKENS_MAX = 40, STALL_US = 3000 };

static const char question[] = "What was in the box?";
static const char story[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8C\x8A z\xC3\xBC\xE2\x80\xA6ok";
static const struct sampling greedy = {.top_p = 1.0f, .repeat_penalty = 1.0f};
static const struct sampling sampled = {.temperature = 0.9f,
                                        .top_k = 40,
                                        .top_p = 0.95f,
                                        .repeat_penalty = 1.1f,
                                        .repeat_last = 32,
                                        .seed = 7};

/* ---- the cloud: all on the device's loop thread ---- */

static struct input in;             /* untouched by the fuzzer's thread while a question is asked */
static struct http_call *answering; /* the newest POST */
static struct loop_timer *timer;
static bool stalled;

static void happen(void *arg);

static void fake_client_made(struct http_client *c)
{
    CHECK(loop_timer_new(c->loop, happen, c, &timer, NULL) == 0);
}

static void fake_client_freed(struct http_client *c)
{
    (void)c;
    loop_timer_free(timer);
    timer = NULL;
    answering = NULL;
}

static void fake_call_made(struct http_call *call)
{
    if (call->posts) {
        answering = call;
        stalled = false;
    }
    loop_timer_set(timer, 0);
}

static bool is_running(const struct http_client *c, const struct http_call *call)
{
    for (const struct http_call *at = c->calls; at; at = at->next)
        if (at == call) return call != NULL;
    return false;
}

static void say_bytes(struct http_call *call)
{
    char piece[256];
    size_t n = (size_t)take(&in) + 1;
    if (n > in.n) n = in.n;
    memcpy(piece, in.at, n);
    in.at += n;
    in.n -= n;
    fake_body(call, piece, n);
}

static void say_event(struct http_call *call)
{
    struct buf b;
    buf_init(&b, FAKE_PIECE_MAX);
    fake_pdd_event(call, &in, &b);
    fake_body(call, b.data, b.len);
    buf_release(&b);
}

/* One thing, then the loop turns once. PATCH is granted or refused; there is nothing in its answer.
 */
static void happen(void *arg)
{
    struct http_client *c = arg;
    uint64_t pause = 0;
    for (struct http_call *call = c->calls; call; call = call->next) {
        if (call->posts) continue;
        fake_status(call, take(&in) & 1 ? 404 : 200, "{}", 0);
        break;
    }
    if (!is_running(c, answering) || stalled) return;
    if (in.n == 0) {
        fake_cut(answering, ERR_NET);
        return;
    }
    uint8_t what = take(&in);
    switch (what % 8) {
    case 0:
        say_bytes(answering);
        break;
    case 1:
        fake_end(answering, take(&in));
        break;
    case 2:
        stalled = what >= 0x80;
        pause = what * 10ull;
        break;
    default:
        say_event(answering);
    }
    loop_timer_set(timer, pause ? clock_us() + pause : 0);
}

/* ---- the device ---- */

static struct engine *open_engine(double us)
{
    struct engine *e;
    struct fake_options o = {.script = story, .prefill_us_per_token = us, .context_max = 256};
    CHECK(fake_open(&o, &e, NULL) == 0);
    return e;
}

static struct buf shown;

static void on_text(void *arg, const char *text, size_t n, uint32_t index, enum turn_source source)
{
    (void)arg, (void)index, (void)source;
    CHECK(buf_append(&shown, text, n) == 0);
}

/* Each token of the device is the one that its engine has after all those before it. */
static void check_own_tokens(const struct device_report *r, const struct single_answer *truth,
                             const struct sampling *sampling)
{
    static struct engine *judge;
    struct session *s;
    if (!judge) judge = open_engine(0.0);
    CHECK(engine_session_open(judge, &s, NULL) == 0);
    session_set_sampling(s, sampling);
    struct engine_span span = {
        .session = s, .tokens = truth->prompt.ids, .n = truth->prompt.len, .sample = true};
    for (uint32_t i = 0; i < r->n; i++) {
        CHECK(engine_step(judge, &span, 1, NULL) == 0);
        CHECK(r->tokens[i].source != TURN_DEVICE || r->tokens[i].id == span.next);
        span.tokens = &r->tokens[i].id;
        span.n = 1;
    }
    engine_session_close(s);
}

static void check_report(const struct device_report *r, int code, const struct err *e, bool engine)
{
    CHECK(code == 0 || e->text[0]);
    CHECK(code == 0 || !engine); /* who has an engine always answers */
    CHECK(r->n <= TOKENS_MAX && r->text_len == shown.len);
    CHECK(r->text_len == 0 || memcmp(r->text, shown.data, shown.len) == 0);
    CHECK(utf8_valid_prefix(shown.data, shown.len) == shown.len);
    for (uint32_t i = 0; i < r->n; i++)
        CHECK(r->tokens[i].text_at + r->tokens[i].text_len <= r->text_len);
}

static void ask(struct device *d, struct device_question *q, struct device_report *r, bool engine)
{
    struct err e = ERR_INIT;
    struct chat_message m = {"user", question, sizeof question - 1};
    q->messages = &m;
    q->n_messages = 1;
    q->tokens_max = TOKENS_MAX;
    q->on_text = on_text;
    buf_clear(&shown);
    int code = device_ask(d, q, r, &e);
    check_report(r, code, &e, engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const int64_t wanted[] = {-1, 1, 8, 40};
    static struct single_answer truth[2];
    if (n < 2 || n > 1 << 14) return 0;
    if (!truth[0].prompt.len) {
        struct engine *e = open_engine(0.0);
        single_answer_make(e, question, false, &greedy, TOKENS_MAX, &truth[0]);
        single_answer_make(e, question, false, &sampled, TOKENS_MAX, &truth[1]);
        engine_free(e);
        buf_init(&shown, 1 << 20);
    }
    bool engine = data[0] & 1, alone = data[0] & 2, random = data[0] & 0x40;
    struct device *d;
    struct device_report r;
    struct device_options o = {.engine = engine ? open_engine(data[1] / 4.0) : NULL,
                               .prefill_tps = 1000.0,
                               .decode_us = 10.0,
                               .cloud_url = "http://127.0.0.1:1",
                               .stall_us = STALL_US};
    struct device_question q = {.sampling = random ? sampled : greedy,
                                .mode = !engine || alone ? DEVICE_CLOUD_ONLY : DEVICE_AUTO,
                                .pace = data[0] & 4 ? PACE_SMOOTH : PACE_OFF,
                                .cloud_tokens = wanted[data[0] >> 4 & 3]};
    in = (struct input){data + 2, n - 2};
    CHECK(device_open(&o, &d, NULL) == 0);
    ask(d, &q, &r, q.mode == DEVICE_AUTO);
    if (engine) {
        check_own_tokens(&r, &truth[random], &q.sampling);
        q.mode = DEVICE_LOCAL_ONLY;
        ask(d, &q, &r, true);
        CHECK(r.n == truth[random].tokens.len);
        CHECK(shown.len == truth[random].text.len &&
              memcmp(shown.data, truth[random].text.data, shown.len) == 0);
    }
    device_close(d);
    return 0;
}
