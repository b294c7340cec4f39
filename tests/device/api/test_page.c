/*
 * test_page: what the page of `pdd device` rests on: its files, and what a stream tells it besides
 * tokens.
 *
 * Catches: a page without its policy, or that an old browser cache outlives; one that another site
 * can frame or load, or that a link cannot lead to; files that need the token, so that nobody could
 * be asked for it; a conversation whose answers or KV pages stay when it is deleted; a prefill or a
 * lost cloud of which nothing is told once the answer has begun.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "device/api/page.h"
#include "support/cloud_fixture.h"
#include "support/serve_site.h"

static struct serve_site site;

static int get(const char *path, const char *headers, struct buf *b)
{
    return serve_site_ask(&site, "GET", path, headers, "", b);
}

static void start_with_token(void **state)
{
    (void)state;
    serve_site_defaults(&site);
    site.config.token = "secret";
    serve_site_start(&site);
}

static void test_files(void **state)
{
    struct buf b;
    start_with_token(state);
    assert_true(page_file_count > 5);
    for (size_t i = 0; i <= page_file_count; i++) {
        char path[128] = "/";
        if (i > 0) snprintf(path, sizeof path, "/page/%s", page_files[i - 1].name);
        assert_int_equal(get(path, "", &b), 200);
        assert_non_null(strstr(b.data, "Content-Security-Policy: default-src 'none'"));
        assert_non_null(strstr(b.data, "script-src 'self';"));
        assert_null(strstr(b.data, "unsafe"));
        assert_non_null(strstr(b.data, "frame-ancestors 'none'"));
        assert_non_null(strstr(b.data, "X-Content-Type-Options: nosniff"));
        assert_non_null(strstr(b.data, "Cross-Origin-Resource-Policy: same-origin"));
        assert_null(strstr(b.data, "application/octet-stream"));
        buf_release(&b);
    }
    assert_int_equal(get("/page/none.js", "", &b), 404);
    buf_release(&b);
    assert_int_equal(get("/v1/status", "", &b), 401);
    buf_release(&b);
    serve_site_stop(&site);
}

static void test_cached(void **state)
{
    struct buf b;
    char header[128];
    start_with_token(state);
    assert_int_equal(get("/page/app.js", "", &b), 200);
    const char *tag = strstr(b.data, "ETag: \"");
    assert_non_null(tag);
    assert_non_null(strstr(b.data, "Cache-Control: no-cache"));
    snprintf(header, sizeof header, "If-None-Match: %.18s\r\n", tag + 6);
    buf_release(&b);
    assert_int_equal(get("/page/app.js", header, &b), 304);
    assert_null(strstr(b.data, "import"));
    buf_release(&b);
    assert_int_equal(get("/page/style.css", header, &b), 200);
    buf_release(&b);
    serve_site_stop(&site);
}

static void test_other_sites(void **state)
{
    static const struct {
        const char *path, *headers;
        int status;
    } cases[] = {
        {"/",
         "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
         200},
        {"/",
         "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
         403},
        {"/page/app.js",
         "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n",
         403},
        {"/page/app.js", "Origin: https://evil.example\r\n", 403},
        {"/page/app.js", "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n", 200},
        {"/", "Host: evil.example\r\n", 403},
        {"/v1/status",
         "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
         403},
    };
    struct buf b;
    start_with_token(state);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = get(cases[i].path, cases[i].headers, &b);
        if (status != cases[i].status) fail_msg("case %zu: %d\n%s", i, status, b.data);
        buf_release(&b);
    }
    serve_site_stop(&site);
}

static int status_of(const char *id)
{
    struct buf b;
    char path[64];
    snprintf(path, sizeof path, "/v1/answers/%s", id);
    int status = get(path, "", &b);
    buf_release(&b);
    return status;
}

static void put_question(char *body, size_t n, bool stream, const char *talk, const char *id)
{
    snprintf(body, n,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"?\"}],\"stream\":%s,"
             "\"max_tokens\":%u,\"pdd\":{\"conversation\":\"%s\",\"id\":\"%s\",\"keep\":600}}",
             stream ? "true" : "false", stream ? 2000 : 3, talk, id);
}

static void answer_whole(const char *talk, const char *id)
{
    struct buf b;
    char body[512];
    put_question(body, sizeof body, false, talk, id);
    assert_int_equal(serve_site_ask(&site, "POST", "/v1/chat/completions", "", body, &b), 200);
    buf_release(&b);
}

/* The answers of a conversation that is deleted: over, running and unread, running and read. */
static void test_forgotten(void **state)
{
    static const char *const ids[] = {"unread", "read"};
    struct buf b, read[2];
    char body[512];
    int fds[2];
    (void)state;
    serve_site_defaults(&site);
    site.fake.answer_tokens = 3000;
    site.fake.step_us = 2000.0;
    serve_site_start(&site);
    answer_whole("c1", "over");
    answer_whole("c2", "other");
    for (int i = 0; i < 2; i++) {
        buf_init(&read[i], RAW_MAX);
        fds[i] = raw_connect(site.port);
        put_question(body, sizeof body, true, "c1", ids[i]);
        serve_site_send(fds[i], "POST", "/v1/chat/completions", "", body);
        assert_true(raw_read_until(fds[i], &read[i], "\"index\":2,"));
    }
    close(fds[0]);
    (void)serve_site_ask(&site, "DELETE", "/v1/conversations/c1", "", "", &b);
    buf_release(&b);
    assert_int_equal(status_of("over"), 404);
    (void)raw_read_until(fds[1], &read[1], NULL);
    assert_non_null(strstr(read[1].data, "\"finish_reason\":\"cancelled\""));
    close(fds[1]);
    uint64_t until = clock_us() + 20000000;
    while (status_of("unread") != 404 || status_of("read") != 404)
        assert_true(clock_us() < until);
    assert_int_equal(status_of("other"), 200);
    for (int i = 0; i < 2; i++)
        buf_release(&read[i]);
    serve_site_stop(&site);
}

static char folder[32];

/* Its files; `remove`: and they go, with the folder. */
static unsigned files_of(const char *below, bool remove)
{
    char dir[64], path[512];
    unsigned n = 0;
    snprintf(dir, sizeof dir, "%s%s", folder, below);
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d)) != NULL;) {
        if (f->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, f->d_name);
        n++;
        if (remove) unlink(path);
    }
    if (d) closedir(d);
    if (remove) rmdir(dir);
    return n;
}

static void wait_for_pages(unsigned n)
{
    uint64_t until = clock_us() + 20000000;
    while (files_of("/kv", false) != n)
        if (clock_us() > until) fail_msg("%u pages, not %u", files_of("/kv", false), n);
}

static void start_with_pages(void)
{
    serve_site_defaults(&site);
    site.config.state_dir = folder;
    site.config.kv_disk_bytes = 1 << 26;
    site.fake.answer_tokens = 2000;
    site.fake.step_us = 2000.0;
    serve_site_start(&site);
}

/* A question that begins with 128 tokens, at least, as all do, and goes on with 300 of its own. */
static void put_long(char *body, size_t n, const char *talk, char own, uint32_t tokens)
{
    char text[512];
    memset(text, '.', 128);
    memset(text + 128, own, 300);
    text[428] = 0;
    snprintf(body, n,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"stream\":true,"
             "\"max_tokens\":%u,\"pdd\":{\"conversation\":\"%s\",\"keep\":600}}",
             text, tokens, talk);
}

static void answer_long(const char *talk, char own)
{
    struct buf b;
    char body[1024];
    put_long(body, sizeof body, talk, own, 3);
    assert_int_equal(serve_site_ask(&site, "POST", "/v1/chat/completions", "", body, &b), 200);
    buf_release(&b);
}

static void delete_talk(const char *talk)
{
    struct buf b;
    char path[64];
    snprintf(path, sizeof path, "/v1/conversations/%s", talk);
    (void)serve_site_ask(&site, "DELETE", path, "", "", &b);
    buf_release(&b);
}

/* KV pages say what a conversation was about. Those that another one has stay as long as that. */
static void test_forgotten_pages(void **state)
{
    struct buf b;
    char body[1024];
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/pdd-page-XXXXXX");
    assert_non_null(mkdtemp(folder));
    start_with_pages();
    answer_long("c1", 'a');
    wait_for_pages(7); /* two of them begin as every question here */
    answer_long("c2", 'b');
    wait_for_pages(12);
    delete_talk("c1");
    assert_int_equal(files_of("/kv", false), 7);
    serve_site_stop(&site);
    start_with_pages(); /* it is known after a restart, too */
    answer_long("c1", 'a');
    wait_for_pages(12);
    delete_talk("c2");
    assert_int_equal(files_of("/kv", false), 7);
    delete_talk("c1");
    assert_int_equal(files_of("/kv", false), 0);
    int fd = raw_connect(site.port); /* one that runs */
    buf_init(&b, RAW_MAX);
    put_long(body, sizeof body, "c3", 'c', 1000);
    serve_site_send(fd, "POST", "/v1/chat/completions", "", body);
    assert_true(raw_read_until(fd, &b, "\"index\":2,"));
    delete_talk("c3");
    close(fd);
    buf_release(&b);
    serve_site_stop(&site); /* which writes what waits */
    assert_int_equal(files_of("/kv", true), 0);
    files_of("", true);
}

/* The cloud answers while the device still reads; then it is gone. */
static void test_told_while_answering(void **state)
{
    struct fake_options slow = {.answer_tokens = 200, .step_us = 10000.0};
    struct engine *engine;
    struct buf b, body;
    (void)state;
    buf_init(&body, RAW_MAX);
    buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 20; i++)
        buf_puts(&body, "Where did the old sailor leave the lantern? ");
    buf_puts(&body, "\"}],\"stream\":true,\"pdd\":{\"progress\":true,\"cloud_tokens\":190}}");
    assert_int_equal(fake_open(&slow, &engine, NULL), 0);
    struct cloud_fixture *cloud = cloud_fixture_start(engine);
    serve_site_defaults(&site);
    site.fake.answer_tokens = 200;
    site.fake.prefill_us_per_token = 2000.0;
    site.config.device.cloud_url = cloud_fixture_url(cloud);
    serve_site_start(&site);
    int fd = raw_connect(site.port);
    buf_init(&b, RAW_MAX);
    serve_site_send(fd, "POST", "/v1/chat/completions", "", body.data);
    (void)raw_read_until(fd, &b, "\"source\":\"cloud\"");
    size_t first = b.len;
    (void)raw_read_until(fd, &b, "\"index\":40");
    cloud_fixture_stop(cloud);
    (void)raw_read_until(fd, &b, NULL);
    close(fd);
    assert_non_null(strstr(b.data + first, "\"device\":["));
    const char *trouble = strstr(b.data + first, "{\"trouble\":\"");
    if (!trouble) fail_msg("nothing is told: %s", b.data);
    assert_non_null(strstr(trouble, "\"source\":\"device\""));
    assert_non_null(strstr(trouble, "data: [DONE]"));
    assert_null(strstr(trouble + 1, "{\"trouble\":\""));
    buf_release(&b);
    buf_release(&body);
    serve_site_stop(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),           cmocka_unit_test(test_cached),
        cmocka_unit_test(test_other_sites),     cmocka_unit_test(test_forgotten),
        cmocka_unit_test(test_forgotten_pages), cmocka_unit_test(test_told_while_answering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
