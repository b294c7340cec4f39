/*
 * test_cloud_abuse: clients of `pdd cloud` that leave, stall, lie, have no key or come when the
 * server is full or about to go; and engines that fail.
 *
 * Catches: work that goes on for nobody, KV pages that are lost, refusals with the wrong status or
 * without the name of what is wrong, a server that one client can stop for all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/cloud_site.h"

enum { PROMPT = 600 };

static struct site sites[1];
static int32_t prompt[PROMPT];
static struct client c;

/* A slow fake: a step takes 5 ms, so that there is time to leave. */
static struct site *slow_site(void)
{
    struct site *s = &sites[0];
    site_init(s);
    s->fake = (struct fake_options){
        .answer_tokens = 3000, .step_tokens_max = 16, .step_us = 5000, .kv_pages = 200};
    return s;
}

static void post(struct client *cl, const struct site *s, uint32_t n, uint32_t tokens_max)
{
    struct wire_request q;
    site_prompt(s, prompt, n, n);
    site_request(s, prompt, n, tokens_max, &q);
    client_post(cl, s->port, &q);
}

static int delete_assist(const struct site *s, const char *id)
{
    char path[96];
    snprintf(path, sizeof path, "/v1/assist/%s", id);
    return site_ask(s, "DELETE", path, NULL, "", NULL);
}

/* Leave by closing, by half-closing, by DELETE; in prefill and while decoding. */
static void test_leave(void **state)
{
    (void)state;
    struct site *s = slow_site();
    site_start(s);
    for (int how = 0; how < 3; how++)
        for (int decoding = 0; decoding < 2; decoding++) {
            post(&c, s, decoding ? 20 : PROMPT, 2000);
            if (decoding)
                client_until(&c, 2);
            else
                client_until_grant(&c);
            if (how == 0) {
                close(c.fd);
                c.fd = -1;
            } else if (how == 1) {
                shutdown(c.fd, SHUT_WR);
            } else {
                assert_int_equal(delete_assist(s, c.id), 200);
                client_finish(&c);
                assert_true(c.done);
                assert_int_equal(c.reason, WIRE_CANCEL);
                assert_int_equal(delete_assist(s, c.id), 404);
            }
            uint64_t before = site_stats(s).steps;
            site_check_idle(s);
            assert_true(site_stats(s).steps < before + 400); /* the answer has 2000 */
            client_close(&c);
        }
    site_stop(s);
}

/* Who waits in the queue may leave too, and does not get in the way of those behind. */
static void test_leave_queue(void **state)
{
    (void)state;
    enum { CLIENTS = 5 };
    static struct client all[CLIENTS];
    struct site *s = slow_site();
    s->config.worker.streams_max = 1;
    site_start(s);
    post(&all[0], s, 20, 100);
    client_until(&all[0], 1);
    for (int i = 1; i < CLIENTS; i++)
        post(&all[i], s, 20, 3);
    while (site_stats(s).waiting < CLIENTS - 1)
        clock_sleep_us(1000);
    client_close(&all[1]);
    client_close(&all[3]);
    while (site_stats(s).waiting > CLIENTS - 3)
        clock_sleep_us(1000);
    assert_int_equal(site_stats(s).running, 1);
    client_close(&all[0]);
    for (int i = 2; i < CLIENTS; i += 2) {
        client_finish(&all[i]);
        assert_int_equal(all[i].n_tokens, 3);
        client_close(&all[i]);
    }
    site_check_idle(s);
    site_stop(s);
}

static void test_queue_full(void **state)
{
    (void)state;
    static struct client all[3];
    struct site *s = slow_site();
    s->config.worker.streams_max = 1;
    s->config.worker.queue_max = 1;
    site_start(s);
    for (int i = 0; i < 3; i++) {
        post(&all[i], s, 20, i == 0 ? 1000 : 2);
        if (i == 0) client_until(&all[0], 1);
        if (i == 1)
            while (site_stats(s).waiting == 0)
                clock_sleep_us(1000);
    }
    while (client_read(&all[2], 100) && !strstr(all[2].body.data, "}}"))
        ;
    assert_int_equal(all[2].status, 429);
    assert_non_null(strstr(all[2].raw.data, "Retry-After: "));
    assert_non_null(strstr(all[2].body.data, "rate_limit_error"));
    client_close(&all[0]);
    client_finish(&all[1]);
    assert_int_equal(all[1].n_tokens, 2);
    client_close(&all[1]);
    client_close(&all[2]);
    site_check_idle(s);
    site_stop(s);
}

static void test_deadline(void **state)
{
    (void)state;
    struct wire_request q;
    struct site *s = slow_site();
    s->config.worker.streams_max = 1;
    site_start(s);
    for (int waits = 0; waits < 2; waits++) {
        static struct client first;
        if (waits) post(&first, s, 20, 2000);
        if (waits) client_until(&first, 1);
        site_prompt(s, prompt, 50, 1);
        site_request(s, prompt, 50, 2000, &q);
        q.deadline_ms = 100;
        client_post(&c, s->port, &q);
        client_finish(&c);
        assert_true(c.done && c.n_tokens < 100);
        assert_int_equal(c.reason, WIRE_DEADLINE);
        assert_true(!waits || !c.has_grant);
        client_close(&c);
        if (waits) client_close(&first);
    }
    site_check_idle(s);
    site_stop(s);
}

/* Whoever never reads is cut off when too much waits for him; the others go on. */
static void test_never_reads(void **state)
{
    (void)state;
    static struct client lazy;
    struct site *s = slow_site();
    s->fake = (struct fake_options){.answer_tokens = 1 << 20, .context_max = 1 << 20};
    s->fake.kv_pages = 1 << 15;
    s->config.tokens_max = 1 << 20;
    s->config.http.output_max = 100000;
    site_start(s);
    post(&lazy, s, 20, 1 << 20);
    setsockopt(lazy.fd, SOL_SOCKET, SO_RCVBUF, &(int){4096}, sizeof(int)); /* else MBs wait there */
    while (site_stats(s).decode_tokens == 0)
        clock_sleep_us(1000);
    for (int i = 0; i < 3; i++) {
        post(&c, s, 30, 50);
        client_finish(&c);
        assert_int_equal(c.n_tokens, 50);
        client_close(&c);
    }
    site_check_idle(s);
    assert_true(site_stats(s).decode_tokens < 1 << 20);
    client_close(&lazy);
    site_stop(s);
}

/* A step of the engine fails: its streams hear so, the next request is served. */
static void test_engine_fails(void **state)
{
    (void)state;
    static struct client all[3];
    struct site *s = slow_site();
    s->fake.fail_at_step = 30;
    site_start(s);
    for (int i = 0; i < 3; i++)
        post(&all[i], s, 20, 2000);
    for (int i = 0; i < 3; i++) {
        client_finish(&all[i]);
        assert_true(all[i].failed && !all[i].done);
        assert_string_equal(all[i].ev.code, "internal");
        assert_non_null(strstr(all[i].ev.message, "fake engine"));
        client_close(&all[i]);
    }
    post(&c, s, 20, 3);
    client_finish(&c);
    assert_int_equal(c.n_tokens, 3);
    client_close(&c);
    site_check_idle(s);
    site_stop(s);
}

static void test_bad_requests(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *said;
    } cases[] = {
        {"", 400, "JSON"},
        {"{", 400, "JSON"},
        {"[]", 400, "object"},
        {"{\"tokens_max\":5}", 400, "prompt"},
        {"{\"prompt\":[1,2]}", 400, "tokens_max"},
        {"{\"prompt\":[],\"tokens_max\":5}", 400, "prompt"},
        {"{\"prompt\":[1],\"tokens_max\":0}", 400, "tokens_max"},
        {"{\"prompt\":[1],\"tokens_max\":5.5}", 400, "tokens_max"},
        {"{\"prompt\":[1],\"tokens_max\":99999999999}", 400, "tokens_max"},
        {"{\"prompt\":[1],\"tokens_max\":5,\"tokens_max\":6}", 400, "tokens_max"},
        {"{\"prompt\":[1],\"tokens_max\":5,\"banana\":1}", 400, "banana"},
        {"{\"prompt\":[1],\"tokens_max\":5}", 400, "hashes.tokenizer"},
        {"{\"hashes\":{\"tokenizer\":\"bytes\"},\"prompt\":[1,-1],\"tokens_max\":5}", 400,
         "prompt[1]"},
        {"{\"hashes\":{\"tokenizer\":\"bytes\"},\"prompt\":[1,259],\"tokens_max\":5}", 400,
         "prompt[1]"},
        {"{\"hashes\":{\"tokenizer\":\"bytes\"},\"prompt\":[1,2],\"have\":[900],\"tokens_max\":5}",
         400, "have[0]"},
        {"{\"messages\":[{\"role\":\"user\"}],\"tokens_max\":5}", 400, "messages[0].content"},
        {"{\"messages\":[{\"role\":\"pope\",\"content\":\"x\"}],\"tokens_max\":5}", 400, "pope"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tokens_max\":5,\"sampling\":{"
         "\"top_p\":2}}",
         400, "sampling.top_p"},
        {"{\"model\":\"gpt\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tokens_max\":"
         "5}",
         404, "model_not_found"},
    };
    struct site *s = slow_site();
    struct buf b;
    buf_init(&b, RAW_MAX);
    site_start(s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf_clear(&b);
        int status = site_ask(s, "POST", "/v1/assist", NULL, cases[i].body, &b);
        if (status != cases[i].status || !strstr(b.data, cases[i].said) ||
            !strstr(b.data, "{\"error\":{\"message\":"))
            fail_msg("%s: %s", cases[i].body, b.data);
    }
    assert_int_equal(site_ask(s, "GET", "/v1/assist", NULL, "", NULL), 405);
    assert_int_equal(site_ask(s, "GET", "/v1/nothing", NULL, "", NULL), 404);
    assert_int_equal(site_ask(s, "DELETE", "/v1/assist/as-1", NULL, "", NULL), 404);
    assert_int_equal(site_ask(s, "GET", "/health", NULL, "", NULL), 200);
    buf_clear(&b);
    assert_int_equal(site_ask(s, "GET", "/v1/models", NULL, "", &b), 200);
    assert_non_null(strstr(b.data, "\"tokenizer\":\"bytes\""));
    buf_release(&b);
    site_check_idle(s);
    site_stop(s);
}

/* Too long for the context, or for all KV memory: said before anything is computed. */
static void test_too_long(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, RAW_MAX);
    for (int memory = 0; memory < 2; memory++) {
        struct site *s = slow_site();
        s->fake.step_tokens_max = 512;
        s->fake.context_max = memory ? 4096 : 512;
        s->fake.kv_pages = memory ? 8 : 100;
        site_start(s);
        for (uint32_t n = 510; n < 515; n++) {
            post(&c, s, n, 100);
            while (client_read(&c, 100) && !c.done && !strstr(c.body.data, "}}"))
                ;
            assert_int_equal(c.status, n < 512 ? 200 : 400);
            if (n < 512)
                assert_int_equal(c.n_tokens, 512 - n);
            else
                assert_non_null(strstr(c.body.data, "context_length_exceeded"));
            client_close(&c);
        }
        site_check_idle(s);
        assert_int_equal(site_stats(s).prefill_tokens, 510 + 511);
        site_stop(s);
    }
    buf_release(&b);
}

static void test_body_limit(void **state)
{
    (void)state;
    struct site *s = slow_site();
    s->config.http.body_max = 1000;
    site_start(s);
    post(&c, s, PROMPT, 5);
    while (client_read(&c, 100) && !strstr(c.body.data, "}}"))
        ;
    assert_int_equal(c.status, 413);
    assert_non_null(strstr(c.body.data, "1000 bytes at most"));
    client_close(&c);
    site_stop(s);
}

static void test_keys(void **state)
{
    (void)state;
    char path[] = "/tmp/pdd-keys-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = /* SHA-256 of alpha-key and beta-key */
        "# keys\nalpha sha256:"
        "677509799af78b2efa2f2af71d0f906e0a0c50c048efd3b515625f788e92b99a\r\n\n  \nbeta sha256:"
        "7a3d637bc601f7000cc2c33141c8c8a7554e02e319fa8b293a0c88c613b77620";
    assert_true(write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1);
    close(fd);
    struct site *s = slow_site();
    s->config.keys_path = path;
    site_start(s);
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tokens_max\":1}";
    static const char *const bad[] = {
        NULL,
        "",
        "alpha-keyy",
        "# keys",
        "ALPHA-KEY",
        "alpha",
        "677509799af78b2efa2f2af71d0f906e0a0c50c048efd3b515625f788e92b99a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(site_ask(s, "POST", "/v1/assist", bad[i], body, NULL), 401);
        assert_int_equal(site_ask(s, "GET", "/v1/models", bad[i], "", NULL), 401);
        assert_int_equal(site_ask(s, "DELETE", "/v1/assist/as-1", bad[i], "", NULL), 401);
        assert_int_equal(site_ask(s, "PATCH", "/v1/assist/as-1", bad[i], "{}", NULL), 401);
        assert_int_equal(site_ask(s, "GET", "/health", bad[i], "", NULL), 200);
    }
    assert_int_equal(site_ask(s, "GET", "/v1/models", "alpha-key", "", NULL), 200);
    assert_int_equal(site_ask(s, "GET", "/v1/models", "beta-key", "", NULL), 200);
    client_open(&c, s->port);
    client_send(&c, "POST", "/v1/assist", "beta-key", body, sizeof body - 1);
    client_finish(&c);
    assert_int_equal(c.n_tokens, 1);
    client_close(&c);
    site_stop(s);
    unlink(path);
}

static void wait_drained(struct site *s)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (atomic_load(&s->drained) == 0 && clock_us() < until)
        clock_sleep_us(1000);
    assert_int_equal(atomic_load(&s->drained), 1);
}

/* Drain: the short answer ends by itself, the long one at the end of the time; nobody new. */
static void test_drain(void **state)
{
    (void)state;
    static struct client all[3];
    struct site *s = slow_site();
    s->drain_us = 2000000;
    s->config.worker.streams_max = 2;
    site_start(s);
    post(&all[0], s, 20, 40);
    post(&all[1], s, 20, 2000);
    client_until(&all[0], 1);
    client_until(&all[1], 1);
    loop_wake_signal(s->drain);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(s->port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int refused = 0; !refused;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        refused = connect(fd, (struct sockaddr *)&a, sizeof a) != 0;
        close(fd);
    }
    client_finish(&all[0]);
    assert_int_equal(all[0].n_tokens, 40);
    assert_int_equal(all[0].reason, WIRE_BUDGET);
    client_finish(&all[1]);
    assert_true(all[1].done);
    assert_int_equal(all[1].reason, WIRE_DRAIN);
    client_close(&all[0]);
    client_close(&all[1]);
    wait_drained(s);
    site_stop(s);
}

static void test_drain_idle(void **state)
{
    (void)state;
    struct site *s = slow_site();
    site_start(s);
    loop_wake_signal(s->drain);
    wait_drained(s);
    site_stop(s);
}

/* Stopped in the middle of everything: nothing may be lost (ASan) and nobody may wait for ever. */
static void test_stop_at_once(void **state)
{
    (void)state;
    enum { CLIENTS = 20 };
    static struct client all[CLIENTS];
    for (int quick = 0; quick < 2; quick++) {
        struct site *s = slow_site();
        if (quick) s->fake.step_us = 0;
        s->config.worker.streams_max = 10;
        s->config.worker.cache_pages = 8;
        site_start(s);
        for (int i = 0; i < CLIENTS; i++)
            post(&all[i], s, 20 + (uint32_t)i, 2000);
        client_until(&all[0], 10);
        site_stop(s);
        for (int i = 0; i < CLIENTS; i++)
            client_close(&all[i]);
    }
}

/* Send a request and read what comes, without an allocation of the test's own. True: a stream that
 * ended well. */
static bool ask_without_memory(const struct site *s, const char *request, size_t n)
{
    static char got[1 << 16];
    size_t len = 0;
    ssize_t did;
    int fd = raw_connect(s->port);
    raw_send(fd, request, n);
    while (len < sizeof got - 1 && raw_readable(fd, RAW_WAIT_MS) &&
           (did = recv(fd, got + len, sizeof got - 1 - len, 0)) > 0)
        len += (size_t)did;
    close(fd);
    got[len] = 0;
    /* a whole stream, one that says what happened, a refusal, or a cut: never one with a hole */
    uint32_t tokens = 0;
    for (const char *at = got; (at = strstr(at, "event: token")) != NULL; at++)
        tokens++;
    bool ended = strstr(got, "\"budget\"") != NULL;
    if (ended ? tokens != 6 : len > 0 && !strstr(got, " 200 ") && !strstr(got, " 503 "))
        fail_msg("%s", got);
    if (!ended && strstr(got, "\r\n0\r\n\r\n")) assert_non_null(strstr(got, "event: error"));
    return ended;
}

/* The n-th allocation of a request fails, for every n: the server lives, and nothing is lost. */
static void test_no_memory(void **state)
{
    (void)state;
    struct site *s = slow_site();
    s->fake.step_us = 0;
    s->fake.step_tokens_max = 512;
    s->config.worker.cache_pages = 4;
    site_start(s);
    struct wire_request q;
    struct buf body, request;
    buf_init(&body, RAW_MAX);
    buf_init(&request, RAW_MAX);
    site_prompt(s, prompt, 90, 1);
    site_request(s, prompt, 90, 6, &q);
    assert_int_equal(wire_request_encode(&q, &body, NULL), 0);
    buf_printf(&request,
               "POST /v1/assist HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
               "%zu\r\n\r\n%s",
               body.len, body.data);
    bool hit = true;
    long nth = 0;
    while (hit) {
        mem_fail_at(++nth);
        bool ended = ask_without_memory(s, request.data, request.len);
        site_check_idle(s);
        hit = mem_fail_hit();
        mem_fail_at(0);
        assert_true(hit || ended);
        assert_true(nth < 1000);
    }
    print_message("%ld allocations\n", nth - 1);
    assert_true(nth > 10);
    buf_release(&body);
    buf_release(&request);
    site_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leave),        cmocka_unit_test(test_leave_queue),
        cmocka_unit_test(test_queue_full),   cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_never_reads),  cmocka_unit_test(test_engine_fails),
        cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_body_limit),   cmocka_unit_test(test_keys),
        cmocka_unit_test(test_drain),        cmocka_unit_test(test_drain_idle),
        cmocka_unit_test(test_stop_at_once), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
