/*
 * test_serve_thoughts: what a model thinks, on `pdd device`: apart from the answer wherever the
 * handover falls, and after a restart.
 *
 * Catches: a mark or a part of the thought in the answer, or the other way; tokens that are lost at
 * the border; a thought that a restart in its middle turns into the answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/cloud_fixture.h"
#include "support/serve_site.h"

#define QUESTION "\"messages\":[{\"role\":\"user\",\"content\":\"Is it so?\"}],\"temperature\":0"

static const char script[] = "<think>\nHm, is it?\n</think>\n\nYes, it is so.";
static const char thought[] = "Hm, is it?", answer[] = "Yes, it is so.";

enum { SCRIPT = sizeof script - 1, THOUGHT_TOKENS = 7 + 1 + 10 + 1 + 8 + 2 };

static struct serve_site site;

static struct fake_options thinking(const char *chat_template)
{
    return (struct fake_options){.script = script, .chat_template = chat_template};
}

static struct cloud_fixture *thinking_site(void)
{
    struct fake_options quick = thinking("qwen3");
    struct engine *engine;
    assert_int_equal(fake_open(&quick, &engine, NULL), 0);
    struct cloud_fixture *cloud = cloud_fixture_start(engine);
    serve_site_defaults(&site);
    site.fake = thinking("qwen3");
    site.fake.prefill_us_per_token = 1000.0;
    site.config.device.cloud_url = cloud_fixture_url(cloud);
    return cloud;
}

/* All strings of that name, joined; "\n" stays as it is written. */
static void join(const struct buf *b, const char *name, struct buf *text)
{
    char mark[64];
    snprintf(mark, sizeof mark, "\"%s\":\"", name);
    buf_init(text, RAW_MAX);
    buf_append(text, "", 0);
    for (const char *at = strstr(b->data, mark); at; at = strstr(at, mark)) {
        at += strlen(mark);
        const char *end = strchr(at, '"');
        buf_append(text, at, (size_t)(end - at));
    }
}

static void check_parts(const struct buf *b, const char *name, const char *want_thought,
                        const char *text_name, const char *want_text)
{
    struct buf parts[2];
    join(b, name, &parts[0]);
    join(b, text_name, &parts[1]);
    if (strcmp(parts[0].len ? parts[0].data : "", want_thought) != 0 ||
        strcmp(parts[1].len ? parts[1].data : "", want_text) != 0)
        fail_msg("%s / %s in %s", parts[0].data, parts[1].data, b->data);
    buf_release(&parts[0]);
    buf_release(&parts[1]);
}

static void ask(const char *more, struct buf *ret_response)
{
    char body[512];
    snprintf(body, sizeof body, "{" QUESTION "%s}", more);
    if (serve_site_ask(&site, "POST", "/v1/chat/completions", "", body, ret_response) != 200)
        fail_msg("%s: %s", more, ret_response->data);
}

static void test_every_n(void **state)
{
    struct buf b;
    char more[256];
    (void)state;
    struct cloud_fixture *cloud = thinking_site();
    serve_site_start(&site);
    for (uint32_t n = 0; n <= SCRIPT; n++) {
        snprintf(more, sizeof more,
                 ",\"stream\":%s,%s\"pdd\":{\"cloud_tokens\":%u},\"user\":\"%u\"",
                 n % 2 ? "true" : "false",
                 n % 2 ? "\"stream_options\":{\"include_usage\":true}," : "", n, n);
        ask(more, &b);
        check_parts(&b, "reasoning_content", thought, "content", answer);
        char usage[64];
        snprintf(usage, sizeof usage, "\"reasoning_tokens\":%d", (int)THOUGHT_TOKENS);
        if (!strstr(b.data, usage)) fail_msg("no %s in %s", usage, b.data);
        buf_release(&b);
    }
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
}

static void test_formats(void **state)
{
    static const struct {
        const char *chat_template, *more, *thought, *answer;
    } cases[] = {
        {"qwen3", ",\"reasoning_format\":\"none\"", "",
         "<think>\\nHm, is it?\\n</think>\\n\\nYes, it is so."},
        {"qwen3", ",\"max_tokens\":11", "Hm,", ""},
        {"qwen3", ",\"max_tokens\":4", "", "<thi"},
        {"qwen3", ",\"stop\":[\"is\"]", thought, "Yes, it "},
        {"chatml", "", "", "<think>\\nHm, is it?\\n</think>\\n\\nYes, it is so."},
        {"qwq", "", thought, answer},
    };
    struct buf b;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        serve_site_defaults(&site);
        site.fake = thinking(cases[i].chat_template);
        serve_site_start(&site);
        for (int stream = 0; stream < 2; stream++) {
            char more[256];
            snprintf(more, sizeof more, "%s%s", cases[i].more, stream ? ",\"stream\":true" : "");
            ask(more, &b);
            check_parts(&b, "reasoning_content", cases[i].thought, "content", cases[i].answer);
            buf_release(&b);
        }
        serve_site_stop(&site);
    }
}

/* In the middle of the thought, and of the answer. */
static void test_restart(void **state)
{
    char path[128];
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct buf b;
        char body[256], seen[32];
        serve_site_defaults(&site);
        site.fake = thinking("qwen3");
        site.fake.step_us = 20000.0;
        serve_site_make_folder(&site);
        serve_site_start(&site);
        int fd = raw_connect(site.port);
        snprintf(body, sizeof body,
                 "{" QUESTION ",\"stream\":true,\"pdd\":{\"id\":\"k%d\",\"keep\":60}}", k);
        serve_site_send(fd, "POST", "/v1/chat/completions", "", body);
        snprintf(seen, sizeof seen, "\"index\":%d,", k ? THOUGHT_TOKENS + 3 : 12);
        buf_init(&b, RAW_MAX);
        assert_true(raw_read_until(fd, &b, seen));
        buf_release(&b);
        serve_site_stop(&site);
        close(fd);
        serve_site_start(&site);
        snprintf(path, sizeof path, "/v1/answers/k%d?stream=1", k);
        assert_int_equal(serve_site_ask(&site, "GET", path, "", "", &b), 200);
        check_parts(&b, "reasoning_content", thought, "content", answer);
        buf_release(&b);
        snprintf(path, sizeof path, "/v1/answers/k%d", k);
        assert_int_equal(serve_site_ask(&site, "GET", path, "", "", &b), 200);
        check_parts(&b, "thought", thought, "text", answer);
        buf_release(&b);
        serve_site_stop(&site);
        serve_site_remove_folder(&site);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_n),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
