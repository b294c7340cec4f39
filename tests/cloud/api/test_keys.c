/*
 * test_keys: the key file, its reload, and quotas at the server's door.
 *
 * Catches: lines that are read differently than written, secrets repeated in errors, a bad file
 * that replaces a good one, a key that is charged for what it did not use, touches another's
 * assist, or keeps all others out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cloud/api/keys.h"
#include "policy/sched.h"
#include "support/cloud_site.h"

#define HEX64 "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static struct site sites[2];
static struct client all[4];
static int32_t prompt[256];

/* ---- lines ---- */

static void test_lines(void **state)
{
    static const struct {
        const char *text;
        int code;
        const char *said; /* by the error, or the line printed again */
    } cases[] = {
        {"", 1, NULL},
        {"# a comment", 1, NULL},
        {" \t\r", 1, NULL},
        {"a sha256:" HEX64, 0, "a sha256:"},
        {"  a.b_C-9\tsha256:" HEX64 " \r", 0, "a.b_C-9 sha256:"},
        {"a sha256:" HEX64 " streams=3 priority=-8 tokens_per_minute=1000000000", 0,
         " tokens_per_minute=1000000000 streams=3 priority=-8"},
        {"a sha256:" HEX64 " requests_per_minute=1", 0, " requests_per_minute=1"},
        {"top-secret-key", ERR_BAD_INPUT, "hashed only"},
        {"pdd-" HEX64, ERR_BAD_INPUT, "this is a key itself"},
        {"a top-secret-key", ERR_BAD_INPUT, "hashed only"},
        {"a sha256:1234", ERR_BAD_INPUT, "64 hexadecimal"},
        {"a sha256:" HEX64 "0", ERR_BAD_INPUT, "64 hexadecimal"},
        {"a SHA256:" HEX64, ERR_BAD_INPUT, "64 hexadecimal"},
        {"a sha256:g" HEX64, ERR_BAD_INPUT, "64 hexadecimal"},
        {"a/b sha256:" HEX64, ERR_BAD_INPUT, "letters"},
        {"a sha256:" HEX64 " streams", ERR_BAD_INPUT, "no field"},
        {"a sha256:" HEX64 " stream=3", ERR_BAD_INPUT, "no field"},
        {"a sha256:" HEX64 " streams=", ERR_BAD_INPUT, "streams"},
        {"a sha256:" HEX64 " streams=0", ERR_BAD_INPUT, "from 1 to"},
        {"a sha256:" HEX64 " streams=-1", ERR_BAD_INPUT, "from 1 to"},
        {"a sha256:" HEX64 " streams=1x", ERR_BAD_INPUT, "number"},
        {"a sha256:" HEX64 " streams=1 streams=1", ERR_BAD_INPUT, "once"},
        {"a sha256:" HEX64 " streams=99999999999", ERR_BAD_INPUT, "number"},
        {"a sha256:" HEX64 " priority=9", ERR_BAD_INPUT, "from -8 to 8"},
        {"a sha256:" HEX64 " tokens_per_minute=1000000001", ERR_BAD_INPUT, "from 1 to"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct key_line line, again;
        struct err e = ERR_INIT;
        struct buf b;
        buf_init(&b, 1024);
        int code = key_line_parse(cases[i].text, strlen(cases[i].text), &line, &e);
        if (code != cases[i].code) fail_msg("%s: %d %s", cases[i].text, code, e.text);
        if (code == 0) {
            assert_int_equal(key_line_print(&line, &b), 0);
            assert_non_null(strstr(b.data, cases[i].said));
            assert_int_equal(key_line_parse(b.data, b.len, &again, &e), 0);
            assert_memory_equal(&line, &again, sizeof line);
        } else if (code != 1) {
            if (!strstr(e.text, cases[i].said)) fail_msg("%s: %s", cases[i].text, e.text);
            assert_null(strstr(e.text, "secret"));
        }
        buf_release(&b);
    }
}

/* ---- files ---- */

static char path[] = "/tmp/pdd-test-keys-XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* The line of a key. */
static const char *line_of(const char *name, const char *key, const char *fields)
{
    static char lines[4][512];
    static unsigned next;
    char *text = lines[next++ % 4];
    struct key_line line = {.priority = 0};
    struct buf b;
    buf_init(&b, 512);
    snprintf(line.name, sizeof line.name, "%s", name);
    key_hash(key, strlen(key), line.hash);
    assert_int_equal(key_line_print(&line, &b), 0);
    snprintf(text, sizeof lines[0], "%s %s\n", b.data, fields);
    buf_release(&b);
    return text;
}

static void write_lines(const char *a, const char *b)
{
    char text[1024];
    snprintf(text, sizeof text, "# two keys\n%s%s", a, b);
    write_file(text);
}

static void test_reload(void **state)
{
    struct keys *k = NULL;
    struct err e = ERR_INIT;
    uint64_t wait;
    (void)state;
    write_lines(line_of("ann", "key-a", "tokens_per_minute=60"), line_of("bob", "key-b", ""));
    assert_int_equal(keys_open(path, 0, &k, &e), 0);
    struct key *ann = keys_find(k, "key-a"), *bob = keys_find(k, "key-b");
    assert_true(ann && bob && ann != bob && ann->tenant && bob->tenant);
    assert_null(keys_find(k, "key-c"));
    assert_null(keys_find(k, NULL));
    assert_null(keys_find(k, ""));
    assert_int_equal(quota_enter(&ann->quota, 0, 60, &wait), QUOTA_OK);
    assert_int_equal(quota_enter(&bob->quota, 0, 60, &wait), QUOTA_OK);
    static const char *const bad[] = {"", "plain-key\n", "x sha256:12\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(bad[i]);
        assert_int_equal(keys_reload(k, 0, &e), ERR_BAD_INPUT);
        assert_non_null(strstr(e.text, path));
        assert_ptr_equal(keys_find(k, "key-a"), ann);
    }
    write_lines(line_of("ann", "key-a", ""), line_of("eve", "key-a", ""));
    assert_int_equal(keys_reload(k, 0, &e), ERR_BAD_INPUT);
    write_lines(line_of("ann", "key-a", ""), line_of("ann", "key-b", ""));
    assert_int_equal(keys_reload(k, 0, &e), ERR_BAD_INPUT);
    /* Another key for ann, who keeps her place and her debt; bob goes, but a stream of his runs. */
    write_lines(line_of("ann", "key-a2", "tokens_per_minute=30 priority=2"),
                line_of("eve", "key-e", ""));
    assert_int_equal(keys_reload(k, 0, &e), 0);
    assert_null(keys_find(k, "key-a"));
    assert_null(keys_find(k, "key-b"));
    assert_ptr_equal(keys_find(k, "key-a2"), ann);
    assert_int_equal(ann->line.priority, 2);
    assert_int_equal(quota_enter(&ann->quota, 0, 1, &wait), QUOTA_TOKENS);
    struct key *eve = keys_find(k, "key-e");
    assert_true(eve && eve != bob && eve != ann);
    quota_leave(&bob->quota);
    keys_close(k);
    unlink(path);
    assert_int_equal(keys_open(path, 0, &k, &e), ERR_NOT_FOUND);
}

/* A key comes in any of three headers; two that differ are refused, not guessed at. */
static void test_headers(void **state)
{
    static const struct {
        const char *headers;
        int status;
        const char *said;
    } cases[] = {
        {"Authorization: Bearer key-a\r\n", 200, "\"object\":\"list\""},
        {"X-Api-Key: key-a\r\n", 200, ""},
        {"api-key: key-a\r\n", 200, ""},
        {"Api-Key: key-a\r\nX-Api-Key: key-a\r\nAuthorization: Bearer key-a\r\n", 200, ""},
        {"X-Api-Key: key-c\r\n", 401, "X-Api-Key: KEY"},
        {"Authorization: Bearer key-a\r\nX-Api-Key: key-b\r\n", 400, "X-Api-Key holds another"},
        {"X-Api-Key: key-b\r\nAuthorization: Bearer key-a\r\n", 400, "Authorization holds another"},
        {"Authorization: Bearer key-c\r\nX-Api-Key: key-a\r\n", 400, "two_keys"},
        {"", 401, "WWW-Authenticate: Bearer"},
    };
    static struct site s;
    (void)state;
    write_lines(line_of("ann", "key-a", ""), line_of("bob", "key-b", ""));
    site_init(&s);
    s.config.keys_path = path;
    site_start(&s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char request[512];
        struct buf b;
        snprintf(request, sizeof request,
                 "GET /models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
                 cases[i].headers);
        raw_ask(s.port, request, &b);
        if (strtol(b.data + 9, NULL, 10) != cases[i].status || !strstr(b.data, cases[i].said))
            fail_msg("%s: %s", cases[i].headers, b.data);
        buf_release(&b);
    }
    site_stop(&s);
    unlink(path);
}

/* A new key in a removed one's place must not find what that one left in the prefix cache. */
static void test_new_tenant(void **state)
{
    struct keys *k = NULL;
    struct err e = ERR_INIT;
    (void)state;
    write_lines(line_of("ann", "key-a", ""), line_of("bob", "key-b", ""));
    assert_int_equal(keys_open(path, 0, &k, &e), 0);
    struct key *bob = keys_find(k, "key-b");
    uint32_t ann = keys_find(k, "key-a")->tenant, old = bob->tenant;
    write_lines(line_of("ann", "key-a2", ""), line_of("eve", "key-e", ""));
    assert_int_equal(keys_reload(k, 0, &e), 0);
    struct key *eve = keys_find(k, "key-e");
    assert_ptr_equal(eve, bob); /* the place, and so a real question */
    assert_int_not_equal(eve->tenant, old);
    assert_int_equal(keys_find(k, "key-a2")->tenant, ann);
    assert_int_not_equal(eve->tenant % SCHED_TENANTS_MAX, ann % SCHED_TENANTS_MAX);
    keys_close(k);
}

/* Removed and put back, a key has what it had: no second share beside what still runs. */
static void test_back(void **state)
{
    struct keys *k = NULL;
    struct err e = ERR_INIT;
    uint64_t wait;
    (void)state;
    for (int busy = 0; busy < 2; busy++) {
        write_lines(line_of("ann", "key-a", ""), line_of("bob", "key-b", "streams=1"));
        assert_int_equal(keys_open(path, 0, &k, &e), 0);
        struct key *bob = keys_find(k, "key-b");
        uint32_t tenant = bob->tenant;
        if (busy) assert_int_equal(quota_enter(&bob->quota, 0, 1, &wait), QUOTA_OK);
        write_lines(line_of("ann", "key-a", ""), "");
        assert_int_equal(keys_reload(k, 0, &e), 0);
        assert_null(keys_find(k, "key-b"));
        write_lines(line_of("eve", "key-e", ""), line_of("bob", "key-b", "streams=1"));
        assert_int_equal(keys_reload(k, 0, &e), 0);
        assert_ptr_equal(keys_find(k, "key-b"), bob);
        assert_int_equal(bob->tenant, tenant);
        enum quota_verdict entered = quota_enter(&bob->quota, 0, 1, &wait);
        assert_int_equal(entered, busy ? QUOTA_STREAMS : QUOTA_OK);
        write_lines(line_of("eve", "key-e", ""), "");
        assert_int_equal(keys_reload(k, 0, &e), 0);
        write_lines(line_of("eve", "key-e", ""), line_of("bob", "key-c", "")); /* another's */
        assert_int_equal(keys_reload(k, 0, &e), 0);
        assert_ptr_not_equal(keys_find(k, "key-c"), bob);
        assert_int_not_equal(keys_find(k, "key-c")->tenant % SCHED_TENANTS_MAX,
                             tenant % SCHED_TENANTS_MAX);
        quota_leave(&bob->quota);
        keys_close(k);
    }
}

static void test_made(void **state)
{
    char a[KEY_MADE_BYTES], b[KEY_MADE_BYTES];
    (void)state;
    assert_int_equal(key_make(a, NULL), 0);
    assert_int_equal(key_make(b, NULL), 0);
    assert_int_equal(strlen(a), 4 + 64);
    assert_string_not_equal(a, b);
}

/* ---- at the door ---- */

static struct site *keyed_site(const char *ann, const char *bob, uint32_t streams, uint32_t queue)
{
    struct site *s = &sites[0];
    site_init(s);
    s->config.worker.streams_max = streams;
    s->config.worker.queue_max = queue;
    s->fake = (struct fake_options){
        .answer_tokens = 3000, .step_tokens_max = 16, .step_us = 10000, .kv_pages = 200};
    write_lines(ann, bob);
    s->config.keys_path = path;
    site_start(s);
    return s;
}

/* To s, for the engine of `computes`, which may stand behind it. */
static void post_to(struct client *c, const struct site *s, const struct site *computes,
                    const char *key, uint32_t n, uint32_t max)
{
    struct wire_request q;
    struct buf b;
    site_prompt(computes, prompt, n, n);
    site_request(computes, prompt, n, max, &q);
    buf_init(&b, RAW_MAX);
    assert_int_equal(wire_request_encode(&q, &b, NULL), 0);
    client_open(c, s->port);
    client_send(c, "POST", "/v1/assist", key, b.data, b.len);
    buf_release(&b);
}

static void post(struct client *c, const struct site *s, const char *key, uint32_t n, uint32_t max)
{
    post_to(c, s, s, key, n, max);
}

/* The request is refused: 429 with this code; returns Retry-After, 0 without one. */
static unsigned long refused(const struct site *s, const char *key, uint32_t n, const char *code)
{
    static struct client c;
    post(&c, s, key, n, 5);
    while (client_read(&c, 100) && !strstr(c.body.data, "}}"))
        ;
    if (c.status != 429 || !strstr(c.body.data, code)) fail_msg("%s", c.raw.data);
    const char *at = strstr(c.raw.data, "Retry-After: ");
    unsigned long seconds = at ? strtoul(at + 13, NULL, 10) : 0;
    client_close(&c);
    return seconds;
}

static void test_token_quota(void **state)
{
    (void)state;
    struct site *s = keyed_site(line_of("ann", "key-a", "tokens_per_minute=100"),
                                line_of("bob", "key-b", ""), 16, 64);
    assert_int_equal(refused(s, "key-a", 101, "insufficient_quota"), 0);
    post(&all[0], s, "key-a", 60, 20);
    client_finish(&all[0]);
    assert_int_equal(all[0].n_tokens, 20);
    unsigned long wait = refused(s, "key-a", 60, "rate_limit_exceeded");
    assert_true(wait >= 15 && wait <= 25); /* 40 of 100 a minute are missing */
    post(&all[1], s, "key-b", 200, 20);    /* nobody else's business */
    client_finish(&all[1]);
    assert_int_equal(all[1].n_tokens, 20);
    client_close(&all[0]);
    client_close(&all[1]);
    struct buf b;
    buf_init(&b, RAW_MAX);
    assert_int_equal(site_ask(s, "GET", "/metrics", "key-b", "", &b), 200);
    buf_release(&b);
    site_check_idle(s);
    site_stop(s);
}

/* A prompt that was left in its middle costs what was computed of it. */
static void test_returned(void **state)
{
    (void)state;
    struct site *s = keyed_site(line_of("ann", "key-a", "tokens_per_minute=250"),
                                line_of("bob", "key-b", ""), 16, 64);
    post(&all[0], s, "key-a", 240, 5);
    client_until_grant(&all[0]);
    client_close(&all[0]);
    site_check_idle(s);
    uint64_t computed = site_stats(s).prefill_tokens;
    assert_true(computed < 200);
    post(&all[1], s, "key-a", (uint32_t)(248 - computed), 2);
    client_finish(&all[1]);
    assert_int_equal(all[1].n_tokens, 2);
    client_close(&all[1]);
    site_stop(s);
}

static void test_streams_and_requests(void **state)
{
    (void)state;
    struct site *s = keyed_site(line_of("ann", "key-a", "streams=1"),
                                line_of("bob", "key-b", "requests_per_minute=2"), 16, 64);
    post(&all[0], s, "key-a", 20, 2000);
    client_until(&all[0], 1);
    assert_int_equal(refused(s, "key-a", 20, "rate_limit_exceeded"), 1);
    client_close(&all[0]);
    site_check_idle(s);
    for (int i = 0; i < 2; i++) {
        post(&all[0], s, i ? "key-b" : "key-a", 20, 2);
        client_finish(&all[0]);
        assert_int_equal(all[0].n_tokens, 2);
        client_close(&all[0]);
    }
    post(&all[0], s, "key-b", 20, 2);
    client_finish(&all[0]);
    client_close(&all[0]);
    unsigned long wait = refused(s, "key-b", 20, "rate_limit_exceeded");
    assert_true(wait >= 25 && wait <= 30);
    site_stop(s);
}

/* Every request that makes work takes one from the key's bucket, refused or not, and of the others
 * the refused ones; with none left it is refused before its body is read. */
static void test_refused_requests_count(void **state)
{
    static const struct {
        const char *method, *path, *body;
        int status;
    } cases[] = {
        {"POST", "/v1/assist", "{", 400},
        {"POST", "/v1/assist", "{\"model\":\"none\",\"prompt\":[1],\"tokens_max\":1}", 404},
        {"POST", "/v1/chat/completions", "{\"messages\":[]}", 400},
        {"POST", "/v1/completions", "{\"prompt\":\"\"}", 400},
        {"POST", "/tokenize", "{\"content\":\"hi\"}", 200},
        {"POST", "/tokenize", "{}", 400},
        {"POST", "/detokenize", "{\"tokens\":[65]}", 200},
        {"PATCH", "/v1/assist/none", "{\"tokens_max\":1}", 404},
        {"DELETE", "/v1/assist/none", "", 404},
        {"GET", "/v1/models/none", "", 404},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct site *s = keyed_site(line_of("ann", "key-a", "requests_per_minute=1"),
                                    line_of("bob", "key-b", ""), 16, 64);
        int first = site_ask(s, cases[i].method, cases[i].path, "key-a", cases[i].body, NULL);
        int second = site_ask(s, cases[i].method, cases[i].path, "key-a", cases[i].body, NULL);
        if (first != cases[i].status || second != 429)
            fail_msg("%s %s %s: %d, then %d", cases[i].method, cases[i].path, cases[i].body, first,
                     second);
        assert_int_equal(site_ask(s, "GET", "/v1/models", "key-a", "", NULL), 200);
        assert_true(refused(s, "key-a", 20, "rate_limit_exceeded") >= 50);
        site_stop(s);
    }
}

/* An id is no key: another's assist does not exist. */
static void test_foreign_assist(void **state)
{
    (void)state;
    struct site *s = keyed_site(line_of("ann", "key-a", ""), line_of("bob", "key-b", ""), 16, 64);
    char at[96];
    post(&all[0], s, "key-a", 20, 50);
    client_until(&all[0], 1);
    snprintf(at, sizeof at, "/v1/assist/%s", all[0].id);
    assert_int_equal(site_ask(s, "DELETE", at, "key-b", "", NULL), 404);
    assert_int_equal(site_ask(s, "PATCH", at, "key-b", "{\"tokens_max\":2}", NULL), 404);
    assert_int_equal(site_ask(s, "PATCH", at, "key-a", "{\"tokens_max\":40}", NULL), 200);
    client_finish(&all[0]);
    assert_int_equal(all[0].n_tokens, 40);
    client_close(&all[0]);
    site_stop(s);
}

/* ---- a key's share of the places ---- */

enum { FLOOD = 20 };

/* Ann sends more than she may have: so many of hers are refused, each with what her share is; the
 * rest runs or waits. */
static void flood(struct client *c, const struct site *s, const struct site *computes,
                  uint32_t refused, const char *share)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    uint32_t n = 0;
    for (uint32_t i = 0; i < FLOOD; i++)
        post_to(&c[i], s, computes, "key-a", 20 + i, 2000);
    while (n < refused) {
        assert_true(clock_us() < until);
        n = 0;
        for (uint32_t i = 0; i < FLOOD; i++) {
            if (c[i].status != 429) client_read(&c[i], 1);
            n += c[i].status == 429;
        }
    }
    for (uint32_t i = 0; i < FLOOD; i++) {
        if (c[i].status != 429) continue;
        while (!strstr(c[i].raw.data, "}}") && client_read(&c[i], 100))
            ;
        if (!strstr(c[i].raw.data, share)) fail_msg("%s", c[i].raw.data);
        assert_non_null(strstr(c[i].raw.data, "Retry-After: "));
    }
    assert_int_equal(n, refused);
}

/* One of hers that runs ends. */
static void leave_one(struct client *c)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    uint32_t i = 0;
    while (!c[i].has_grant) {
        assert_true(clock_us() < until);
        i = (i + 1) % FLOOD;
        if (c[i].status != 429) client_read(&c[i], 1);
    }
    close(c[i].fd);
    c[i].fd = -1;
}

/* Ann's flood leaves room in the line; bob is served as soon as one of hers ends, before all of
 * hers that wait; when they have gone she may come again. */
static void check_share(struct site *s, struct site *computes, uint32_t inside, const char *share)
{
    static struct client c[FLOOD], bob;
    for (int round = 0; round < 2; round++) {
        flood(c, s, computes, FLOOD - inside, share);
        post_to(&bob, s, computes, "key-b", 20, 5);
        leave_one(c);
        client_finish(&bob);
        if (!bob.done) fail_msg("%s", bob.raw.data);
        assert_int_equal(bob.n_tokens, 5);
        client_close(&bob);
        for (int i = 0; i < FLOOD; i++)
            client_close(&c[i]);
        site_check_idle(computes);
    }
}

static void test_share(void **state)
{
    (void)state;
    struct site *s = keyed_site(line_of("ann", "key-a", ""), line_of("bob", "key-b", ""), 2, 8);
    check_share(s, s, 6, "share, 6 requests in work or waiting");
    site_stop(s);
}

/* The same in front of another server, which asks for no key. */
static void test_share_upstream(void **state)
{
    (void)state;
    struct site *inner = &sites[1], *s = &sites[0];
    char url[64];
    site_init(inner);
    inner->fake.answer_tokens = 3000;
    inner->fake.step_us = 3000;
    inner->fake.kv_pages = 400;
    site_start(inner);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", inner->port);
    site_init(s);
    write_lines(line_of("ann", "key-a", ""), line_of("bob", "key-b", ""));
    s->config.keys_path = path;
    s->config.upstream.servers[0].url = url;
    s->config.upstream.n_servers = 1;
    s->config.upstream.streams_max = 8;
    site_start(s);
    site_await_ready(s, 200);
    check_share(s, inner, 4, "share, 4 requests at once");
    site_stop(s);
    site_stop(inner);
}

int main(void)
{
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_made),
        cmocka_unit_test(test_token_quota),
        cmocka_unit_test(test_returned),
        cmocka_unit_test(test_streams_and_requests),
        cmocka_unit_test(test_foreign_assist),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_new_tenant),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_share_upstream),
        cmocka_unit_test(test_back),
        cmocka_unit_test(test_refused_requests_count),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
