/*
 * test_cloud_choices: several answers in one response: n, several prompts, echo; and the parts of
 * one: thought and answer.
 *
 * Catches: choices that are mixed up, lost, or other than those of single requests with their
 * seeds; thoughts in the answer, or marks in either; a prompt that is computed, charged or counted
 * for each of its answers; work that goes on when the client has gone, an answer has failed, or
 * only a part of the answers was taken in; requests that can never be served and are told to come
 * again.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "support/cloud_story.h"

#define SAMPLED "\"temperature\":1.2,\"max_tokens\":12"
#define USAGE ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"

enum { LONG_PROMPT = 250 };

/* Each is what a request of its own gives. */
static void check_alone(const struct story *t, uint32_t i, const struct site *s, const char *path,
                        const char *prompt, uint64_t seed)
{
    struct story one;
    tellf(&one, s, path, "{%s,\"seed\":%llu," SAMPLED "}", prompt, (unsigned long long)seed);
    assert_int_equal(one.status, 200);
    assert_string_equal(t->choices[i].text.data, one.text.data);
    assert_string_equal(t->choices[i].finish, one.finish);
    story_release(&one);
}

static void test_n(void **state)
{
    (void)state;
    struct site *s = reader_site();
    site_start(s);
    for (int stream = 0; stream < 2; stream++)
        for (int chat = 0; chat < 2; chat++) {
            struct story t;
            const char *prompt = chat ? FOX : "\"prompt\":\"Once upon a time\"";
            tellf(&t, s, chat ? CHAT : TEXT, "{%s,\"n\":3,\"seed\":40," SAMPLED "%s}", prompt,
                  stream ? USAGE : "");
            assert_int_equal(t.status, 200);
            assert_int_equal(t.n_usage, 1);
            assert_int_equal(t.completion, 36);
            assert_int_equal(t.done, stream);
            uint32_t n_prompt = t.prompt;
            for (uint32_t i = 0; i < 3; i++) {
                check_alone(&t, i, s, chat ? CHAT : TEXT, prompt, 40 + i);
                assert_int_equal(t.choices[i].n_roles, chat);
            }
            assert_string_not_equal(t.choices[0].text.data, t.choices[1].text.data);
            assert_string_equal(t.choices[3].finish, "");
            story_release(&t);
            tellf(&t, s, chat ? CHAT : TEXT, "{%s,\"max_tokens\":1}", prompt);
            assert_int_equal(t.prompt, n_prompt); /* counted once */
            story_release(&t);
        }
    site_check_idle(s);
    site_stop(s);
}

/* Without a seed each answer is another. */
static void test_unseeded(void **state)
{
    (void)state;
    struct site *s = reader_site();
    struct story t;
    site_start(s);
    tell(&t, s, TEXT, "{\"prompt\":\"Once\",\"n\":2,\"temperature\":2,\"max_tokens\":16}");
    assert_string_not_equal(t.choices[0].text.data, t.choices[1].text.data);
    story_release(&t);
    site_stop(s);
}

static void test_prompts(void **state)
{
    (void)state;
    static const char *const prompts[] = {"\"prompt\":\"Once upon\"", "\"prompt\":[9,8,7]",
                                          "\"prompt\":\"The sea\""};
    struct site *s = reader_site();
    site_start(s);
    for (int stream = 0; stream < 2; stream++) {
        struct story t;
        tellf(&t, s, TEXT,
              "{\"prompt\":[\"Once upon\",[9,8,7],\"The sea\"],\"n\":2,\"seed\":7," SAMPLED "%s}",
              stream ? USAGE : "");
        for (uint32_t i = 0; i < 6; i++)
            check_alone(&t, i, s, TEXT, prompts[i / 2], 7 + i % 2);
        assert_int_equal(t.completion, 72);
        assert_string_equal(t.choices[6].finish, "");
        story_release(&t);
    }
    site_check_idle(s);
    site_stop(s);
}

/* The whole pages of the prompt once, and for each answer the rest of a page. */
static void test_computed_once(void **state)
{
    (void)state;
    struct site *s = fake_site(NULL);
    struct story t;
    s->fake.answer_tokens = 3000;
    s->config.worker.cache_pages = 64;
    site_start(s);
    tellf(&t, s, TEXT, "{\"prompt\":\"%0*d\",\"n\":8,\"max_tokens\":4}", LONG_PROMPT, 7);
    assert_int_equal(t.status, 200);
    assert_int_equal(t.prompt, LONG_PROMPT);
    site_check_idle(s);
    assert_in_range(site_stats(s).prefill_tokens, LONG_PROMPT, LONG_PROMPT + 7 * ENGINE_PAGE);
    story_release(&t);
    struct buf page;
    buf_init(&page, RAW_MAX);
    assert_int_equal(site_ask(s, "GET", "/metrics", NULL, "", &page), 200);
    assert_non_null(strstr(page.data, "pdd_requests_total{api=\"completion\",end=\"budget\"} 1\n"));
    assert_non_null(strstr(page.data, "pdd_prompt_tokens_total 250\n"));
    assert_non_null(strstr(page.data, "pdd_generation_tokens_total 32\n"));
    buf_release(&page);
    site_stop(s);
}

static void test_echo(void **state)
{
    (void)state;
    static const char *const prompts[] = {"\"Once \\u20ac\"", "[79,110,99,101,32,226,130,172]"};
    struct site *s = fake_site(NULL);
    struct story t, plain;
    site_start(s);
    for (int how = 0; how < 4; how++) {
        tellf(&plain, s, TEXT, "{\"prompt\":%s,\"max_tokens\":9,\"temperature\":0}",
              prompts[how & 1]);
        tellf(&t, s, TEXT,
              "{\"prompt\":%s,\"temperature\":0,\"max_tokens\":9,\"echo\":true,\"n\":2,\"stop\":"
              "\"Once\"%s}",
              prompts[how & 1], how & 2 ? USAGE : "");
        for (int i = 0; i < 2; i++) {
            assert_true(t.choices[i].text.len > 8);
            assert_memory_equal(t.choices[i].text.data, "Once \xe2\x82\xac", 8);
            assert_string_equal(t.choices[i].text.data + 8, plain.text.data);
        }
        assert_int_equal(t.completion, 18);
        story_release(&t);
        story_release(&plain);
    }
    site_stop(s);
}

/* Each ends at its own place, for its own reason, with its own rows. */
static void test_ends(void **state)
{
    (void)state;
    struct site *s = reader_site();
    site_start(s);
    for (int stream = 0; stream < 2; stream++) {
        struct story t;
        tellf(&t, s, CHAT,
              "{" FOX
              ",\"n\":4,\"seed\":3,\"temperature\":1.5,\"max_tokens\":40,\"stop\":[\"the\"],"
              "\"logprobs\":true,\"top_logprobs\":2%s}",
              stream ? USAGE : "");
        uint32_t stopped = 0;
        for (uint32_t i = 0; i < 4; i++) {
            bool stop = strcmp(t.choices[i].finish, "stop") == 0;
            assert_true(stop || strcmp(t.choices[i].finish, "length") == 0);
            assert_null(strstr(t.choices[i].text.data, "the"));
            assert_true(t.choices[i].n_rows > 0 && (stop || t.choices[i].n_rows == 40));
            stopped += stop;
        }
        assert_true(stopped > 0);
        story_release(&t);
    }
    site_check_idle(s);
    site_stop(s);
}

static void test_thoughts(void **state)
{
    (void)state;
    static const struct {
        const char *chat_template, *script, *options, *thought, *text;
        uint32_t reasoning;
    } cases[] = {
        {"qwen3", "<think>\nHm: so?\n</think>\n\nYes: so.", "", "Hm: so?", "Yes: so.", 26},
        {"qwen3", "<think>\nHm: so?\n</think>\n\nYes: so.", ",\"reasoning_format\":\"none\"", "",
         "<think>\nHm: so?\n</think>\n\nYes: so.", 0},
        {"qwen3", "<think>\nHm: so?\n</think>\n\nYes: so.", ",\"max_tokens\":12", "Hm:", "", 12},
        {"qwen3", "Yes: <think>.", ",\"reasoning_format\":\"auto\"", "", "Yes: <think>.", 0},
        {"qwen3", "<think>a: b</think>Yes: so", ",\"stop\":\":\"", "a: b", "Yes", 19},
        {"qwq", "<think>\nHm.</think>Yes.", "", "Hm.", "Yes.", 11},
        {"chatml", "<think>Hm.</think>Yes.", "", "", "<think>Hm.</think>Yes.", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct site *s = fake_site(cases[i].script);
        s->fake.chat_template = cases[i].chat_template;
        site_start(s);
        for (int stream = 0; stream < 2; stream++) {
            struct story t;
            tellf(&t, s, CHAT, "{" FOX ",\"n\":2,\"logprobs\":true%s%s}", cases[i].options,
                  stream ? USAGE : "");
            for (int k = 0; k < 2; k++) {
                const struct story_choice *part = &t.choices[k];
                if (strcmp(part->thought.len ? part->thought.data : "", cases[i].thought) != 0 ||
                    strcmp(part->text.len ? part->text.data : "", cases[i].text) != 0)
                    fail_msg("case %zu: '%s' '%s'", i, part->thought.data, part->text.data);
                assert_int_equal(part->n_rows, part->text.len
                                                   ? t.completion / 2 - cases[i].reasoning -
                                                         (strstr(cases[i].options, "stop") != NULL)
                                                   : 0);
            }
            assert_int_equal(t.reasoning, 2 * cases[i].reasoning);
            story_release(&t);
        }
        site_stop(s);
    }
}

/* ---- what goes wrong ---- */

static void test_client_leaves(void **state)
{
    (void)state;
    struct site *s = fake_site(NULL);
    struct story t;
    s->fake.answer_tokens = 3000;
    s->fake.step_us = 3000;
    site_start(s);
    for (int later = 0; later < 2; later++) {
        story_post(&t, s, TEXT,
                   "{\"prompt\":[\"aaaa\",\"b\"],\"n\":3,\"stream\":true,\"max_tokens\":2000}");
        for (int i = 0; i < 100 && later && t.n_text < 5; i++)
            client_read(&c, 100);
        client_close(&c);
        story_release(&t);
        site_check_idle(s);
    }
    assert_true(site_stats(s).decode_tokens < 6 * 1000);
    site_stop(s);
}

static void test_engine_fails(void **state)
{
    (void)state;
    for (uint32_t step = 1; step < 8; step += 3)
        for (int stream = 0; stream < 2; stream++) {
            struct site *s = fake_site("One, two, three and on and on.");
            struct story t;
            s->fake.fail_at_step = step;
            site_start(s);
            tellf(&t, s, CHAT, "{" FOX ",\"n\":3%s}", stream ? USAGE : "");
            assert_int_equal(t.status, stream ? 200 : 500);
            assert_int_equal(t.n_error, 1);
            assert_int_equal(t.done, stream);
            story_release(&t);
            site_check_idle(s);
            site_stop(s);
        }
}

static void refuse(const struct site *s, const char *key, const char *body, int status,
                   const char *word)
{
    struct buf out;
    buf_init(&out, RAW_MAX);
    int code = site_ask(s, "POST", TEXT, key, body, &out);
    if (code != status || !strstr(out.data, word)) fail_msg("%s: %d %s", body, code, out.data);
    buf_release(&out);
}

static void test_room(void **state)
{
    (void)state;
    struct site *s = fake_site(NULL);
    struct story t;
    s->config.worker.streams_max = 2;
    s->config.worker.queue_max = 4; /* a share of 4 */
    s->fake.answer_tokens = 3000;
    s->fake.step_us = 1000;
    site_start(s);
    refuse(s, NULL, "{\"prompt\":\"a\",\"n\":5}", 400, "\"param\":\"n\"");
    refuse(s, NULL, "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", 400, "\"param\":\"prompt\"");
    tell(&t, s, TEXT, "{\"prompt\":\"a\",\"n\":4,\"max_tokens\":3}"); /* two wait */
    assert_int_equal(t.completion, 12);
    story_release(&t);
    story_post(&t, s, TEXT, "{\"prompt\":\"a\",\"n\":4,\"stream\":true,\"max_tokens\":2000}");
    for (int i = 0; i < 100 && t.n_text < 2; i++)
        client_read(&c, 100);
    struct client held = c; /* refuse() has another */
    refuse(s, NULL, "{\"prompt\":\"a\",\"n\":3}", 429, "busy");
    refuse(s, NULL, "{\"prompt\":[\"a\",\"b\",\"c\"]}", 429, "busy");
    client_close(&held);
    story_release(&t);
    site_check_idle(s);
    site_stop(s);
}

static void test_keys(void **state)
{
    (void)state;
    char path[] = "/tmp/pdd-choices-keysXXXXXX";
    struct site *s = fake_site(NULL);
    struct key_line line = {.name = "ann"};
    struct buf b;
    line.limits.streams_max = 3;
    line.limits.tokens_per_minute = LONG_PROMPT + 100;
    site_key_file(path, "key-a", line);
    s->config.keys_path = path;
    s->fake.answer_tokens = 3000;
    site_start(s);
    refuse(s, "key-a", "{\"prompt\":\"a\",\"n\":4}", 400, "3 at once are allowed");
    /* The prompt is charged once, and each token of an answer. */
    struct buf out;
    buf_init(&b, 4096);
    buf_init(&out, RAW_MAX);
    buf_printf(&b, "{\"prompt\":\"%0*d\",\"n\":3,\"max_tokens\":20}", LONG_PROMPT, 7);
    assert_int_equal(site_ask(s, "POST", TEXT, "key-a", b.data, &out), 200);
    refuse(s, "key-a",
           "{\"prompt\":\"a long prompt, of more tokens than are left: 40, or few more\"}", 429,
           "tokens a minute");
    site_check_idle(s);
    site_stop(s);
    unlink(path);
    buf_release(&out);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_n),
        cmocka_unit_test(test_unseeded),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_computed_once),
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_thoughts),
        cmocka_unit_test(test_client_leaves),
        cmocka_unit_test(test_engine_fails),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
