/*
 * test_cloud_random: a seeded crowd of clients that do anything in any order: ask, read, stall,
 * extend, cancel, leave, send garbage or half a request. Every token that comes must be the right
 * one, and in the end nothing may run and no page may be missing. `test_cloud_random SECONDS SEED`
 * goes on for longer.
 *
 * Catches: what nobody thought of; best run under the sanitizers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "support/cloud_site.h"

enum { CROWD = 24, PROMPT_MAX = 300, PROMPTS = 12, ANSWER = 80, LEADS = 3 };

static uint64_t run_us = 1500000, first_seed = 1;
static char tiny_path[TINY_PATH_MAX];

/* The prompts, some of which begin alike, and what must follow them. */
struct known {
    int32_t tokens[PROMPT_MAX];
    uint32_t n;
    struct sampling how;
    struct site_answer truth;
};

struct member {
    bool open, stalled;
    struct client client;
    const struct known *asked;
    uint32_t have;
};

struct crowd {
    struct site site;
    struct rng r;
    struct known known[PROMPTS];
    struct member members[CROWD];
    uint64_t asked, tokens, finished;
};

static void make_known(struct crowd *w)
{
    for (uint32_t i = 0; i < PROMPTS; i++) {
        struct known *k = &w->known[i];
        k->n = 2 + rng_below(&w->r, PROMPT_MAX - 2);
        k->how = (struct sampling)SAMPLING_GREEDY;
        k->how.temperature = i % 2 ? 0.9f : 0.0f;
        k->how.seed = i;
        site_prompt(&w->site, k->tokens, k->n, i % LEADS);
        k->tokens[0] = (int32_t)(i % LEADS);
        site_truth(&w->site, k->tokens, k->n, &k->how, ANSWER, &k->truth);
    }
}

static void ask(struct crowd *w, struct member *m)
{
    struct wire_request q;
    m->asked = &w->known[rng_below(&w->r, PROMPTS)];
    m->have = rng_below(&w->r, 3) ? 0 : rng_below(&w->r, m->asked->truth.n + 1);
    site_request(&w->site, (int32_t *)m->asked->tokens, m->asked->n, 1 + rng_below(&w->r, ANSWER),
                 &q);
    q.have = (int32_t *)m->asked->truth.tokens;
    q.n_have = m->have;
    q.sampling = m->asked->how;
    if (rng_below(&w->r, 8) == 0) q.deadline_ms = 1 + rng_below(&w->r, 50);
    client_post(&m->client, w->site.port, &q);
    m->open = true;
    m->stalled = rng_below(&w->r, 6) == 0;
    w->asked++;
}

static void leave(struct member *m)
{
    client_close(&m->client);
    m->open = false;
}

/* What has come so far must be the known answer. The budget of ANSWER may be extended past what we
 * know: that is not compared. */
static void check(const struct member *m)
{
    const struct client *c = &m->client;
    uint32_t n = c->n_tokens;
    if (c->status != 0 && c->status != 200) assert_int_equal(c->status, 429);
    if (m->have + n > m->asked->truth.n) n = m->asked->truth.n - m->have;
    if (n > 0) assert_int_equal(c->first_index, m->have);
    assert_memory_equal(c->tokens, m->asked->truth.tokens + m->have, n * sizeof *c->tokens);
}

static void garbage(struct crowd *w)
{
    static const char *const starts[] = {
        "POST /v1/assist HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{\"prompt\":[1,",
        "POST /v1/assist HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        "PATCH /v1/assist/%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]",
        "\x16\x03\x01\x02",
        "POST /v1/assist HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    };
    const char *text = starts[rng_below(&w->r, sizeof starts / sizeof *starts)];
    int fd = raw_connect(w->site.port);
    raw_send(fd, text, 1 + rng_below(&w->r, (uint32_t)strlen(text)));
    if (rng_below(&w->r, 2)) raw_readable(fd, 2);
    if (rng_below(&w->r, 2)) {
        struct linger reset = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close(fd);
}

/* PATCH or DELETE the member's assist, without waiting for the answer half of the time. */
static void meddle(struct crowd *w, const struct member *m)
{
    char path[96], body[64] = "";
    bool extend = rng_below(&w->r, 2);
    snprintf(path, sizeof path, "/v1/assist/%s", m->client.id);
    if (extend) snprintf(body, sizeof body, "{\"tokens_max\":%u}", 1 + rng_below(&w->r, 200));
    if (rng_below(&w->r, 2)) {
        int status = site_ask(&w->site, extend ? "PATCH" : "DELETE", path, NULL, body, NULL);
        assert_true(status == 200 || status == 404);
        return;
    }
    struct client c;
    client_open(&c, w->site.port);
    client_send(&c, extend ? "PATCH" : "DELETE", path, NULL, body, strlen(body));
    client_close(&c);
}

static void act(struct crowd *w)
{
    struct member *m = &w->members[rng_below(&w->r, CROWD)];
    uint32_t what = rng_below(&w->r, 40);
    if (what == 0) {
        garbage(w);
    } else if (!m->open) {
        if (what < 10) ask(w, m); /* not so many that all hear 429 */
    } else if (what == 1) {
        leave(m);
    } else if (what == 2) {
        shutdown(m->client.fd, SHUT_WR);
        m->stalled = false;
    } else if (what == 3 && m->client.has_grant) {
        meddle(w, m);
    } else if (what == 4) {
        m->stalled = !m->stalled;
    } else if (!m->stalled) {
        bool more = client_read(&m->client, what == 5 ? 3 : 0);
        check(m);
        if (more && !m->client.done && !m->client.failed && m->client.status <= 200) return;
        assert_false(m->client.failed);
        w->tokens += m->client.n_tokens;
        w->finished += m->client.done;
        leave(m);
    }
}

static void check_crowd(bool native, uint64_t seed)
{
    static struct crowd w;
    memset(&w, 0, sizeof w);
    rng_init(&w.r, seed, 9);
    site_init(&w.site);
    struct site *s = &w.site;
    if (native) s->native_path = tiny_path;
    s->fake = (struct fake_options){.answer_tokens = ANSWER / 2 + rng_below(&w.r, ANSWER),
                                    .context_max = 512,
                                    .step_tokens_max = 1 + rng_below(&w.r, 120),
                                    .kv_pages = 8 + rng_below(&w.r, 60)};
    if (rng_below(&w.r, 2)) s->fake.step_us = 300;
    s->config.worker = (struct worker_config){.streams_max = 1 + rng_below(&w.r, 12),
                                              .queue_max = rng_below(&w.r, 12),
                                              .cache_pages = rng_below(&w.r, 40)};
    site_start(s);
    make_known(&w);
    for (uint64_t until = clock_us() + run_us; clock_us() < until;)
        act(&w);
    for (int i = 0; i < CROWD; i++)
        if (w.members[i].open) leave(&w.members[i]);
    site_check_idle(s);
    struct backend_stats stats = site_stats(s);
    print_message("seed %llu: %llu asked, %llu finished, %llu tokens read; %llu steps, %llu tokens "
                  "from the cache\n",
                  (unsigned long long)seed, (unsigned long long)w.asked,
                  (unsigned long long)w.finished, (unsigned long long)w.tokens,
                  (unsigned long long)stats.steps, (unsigned long long)stats.cached_tokens);
    assert_true(w.asked > 0);
    site_stop(s);
}

static void test_fake(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 3; i++)
        check_crowd(false, first_seed + i);
}

static void test_native(void **state)
{
    (void)state;
    check_crowd(true, first_seed);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fake),
        cmocka_unit_test(test_native),
    };
    if (argc > 1) run_us = strtoull(argv[1], NULL, 10) * 250000u; /* four runs */
    if (argc > 2) first_seed = strtoull(argv[2], NULL, 10);
    struct tiny_options o = TINY_DEFAULT;
    tiny_model_file(&o, tiny_path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(tiny_path);
    return failed;
}
