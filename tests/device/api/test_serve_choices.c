/*
 * test_serve_choices: several answers in one response of `pdd device`: n, several prompts, echo.
 *
 * Catches: choices that are mixed up, lost, or other than those of single requests with their
 * seeds, wherever the handover falls; answers that go on when the client has gone, one of them has
 * failed, or not all were taken in; choices that a restart or a second reader loses.
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "support/serve_site.h"

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"Where is it?\"}],\"temperature\":1"
#define WORDS "\"prompt\":\"<|im_start|>\\nabc\",\"temperature\":1"

enum { CHOICES = 8, CHOICES_LATE_S = 20 };

static struct serve_site site;

struct answer {
    int status;
    struct {
        struct buf text;
        char finish[16];
        uint32_t n_roles, n_progress;
    } choices[CHOICES];
    uint32_t prompt, completion, n_errors;
    bool done;
};

static void note_choice(struct answer *a, const json_t *choice)
{
    const json_t *inner = json_object_get(choice, "delta");
    if (!inner) inner = json_object_get(choice, "message");
    json_int_t i = json_integer_value(json_object_get(choice, "index"));
    const json_t *text = json_object_get(inner ? inner : choice, inner ? "content" : "text");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    assert_in_range(i, 0, CHOICES - 1);
    assert_string_equal(a->choices[i].finish, "");
    buf_append(&a->choices[i].text, json_string_value(text), json_string_length(text));
    if (finish) snprintf(a->choices[i].finish, sizeof a->choices[i].finish, "%s", finish);
    a->choices[i].n_roles += json_object_get(inner, "role") != NULL;
}

static void note(struct answer *a, const char *json, size_t n)
{
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, NULL);
    if (!root) fail_msg("no JSON: %.*s", (int)n, json);
    const json_t *choices = json_object_get(root, "choices"),
                 *usage = json_object_get(root, "usage");
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const json_t *choice = json_array_get(choices, i);
        note_choice(a, choice);
        a->choices[json_integer_value(json_object_get(choice, "index"))].n_progress +=
            json_object_get(root, "prompt_progress") != NULL;
    }
    if (json_is_object(usage)) {
        a->prompt = (uint32_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
        a->completion = (uint32_t)json_integer_value(json_object_get(usage, "completion_tokens"));
    }
    a->n_errors += json_object_get(root, "error") != NULL;
    json_decref(root);
}

static void note_response(struct answer *a, const struct buf *b)
{
    const char *at = strstr(b->data, "\r\n\r\n");
    if (!strstr(b->data, "event-stream")) {
        note(a, at + 4, b->len - (size_t)(at + 4 - b->data));
        return;
    }
    while ((at = strstr(at, "data: ")) != NULL) {
        at += 6;
        const char *end = strchr(at, '\n');
        if (strncmp(at, "[DONE]", 6) == 0)
            a->done = true;
        else
            note(a, at, (size_t)(end - at));
    }
}

static void get(struct answer *a, const char *method, const char *path, const char *body)
{
    struct buf b;
    *a = (struct answer){.status = serve_site_ask(&site, method, path, "", body, &b)};
    for (int i = 0; i < CHOICES; i++) {
        buf_init(&a->choices[i].text, RAW_MAX);
        buf_append(&a->choices[i].text, "", 0);
    }
    note_response(a, &b);
    buf_release(&b);
}

static void post(struct answer *a, const char *path, const char *prompt, const char *more)
{
    char body[1024];
    snprintf(body, sizeof body, "{%s%s}", prompt, more);
    get(a, "POST", path, body);
}

static void answer_release(struct answer *a)
{
    for (int i = 0; i < CHOICES; i++)
        buf_release(&a->choices[i].text);
}

static void check_alone(const struct answer *a, uint32_t i, const char *path, const char *prompt,
                        uint32_t seed)
{
    struct answer one;
    char more[64];
    snprintf(more, sizeof more, ",\"seed\":%u", seed);
    post(&one, path, prompt, more);
    assert_int_equal(one.status, 200);
    assert_true(one.choices[0].text.len > 5);
    assert_string_equal(a->choices[i].text.data, one.choices[0].text.data);
    assert_string_equal(a->choices[i].finish, one.choices[0].finish);
    answer_release(&one);
}

static void wait_idle(void)
{
    uint64_t until = clock_us() + CHOICES_LATE_S * 1000000ull;
    for (bool idle = false; !idle;) {
        struct buf b;
        serve_site_ask(&site, "GET", "/v1/status", "", "", &b);
        idle = strstr(b.data, "\"running\":0") && strstr(b.data, "\"waiting\":0");
        if (!idle && clock_us() > until) fail_msg("never idle: %s", b.data);
        buf_release(&b);
        if (!idle) clock_sleep_us(2000);
    }
}

static void test_n(void **state)
{
    (void)state;
    struct cloud_fixture *cloud = serve_site_with_cloud(&site, 20);
    site.fake.prefill_us_per_token = 200.0;
    serve_site_start(&site);
    for (int how = 0; how < 8; how++) {
        struct answer a, one;
        char more[256];
        bool stream = how & 1, chat = how & 2;
        snprintf(more, sizeof more, ",\"n\":3,\"seed\":7,\"pdd\":{\"cloud_tokens\":%d}%s",
                 how & 4 ? 0 : 6,
                 stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
        post(&a, chat ? CHAT : TEXT, chat ? ASK : WORDS, more);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.done, stream);
        for (uint32_t i = 0; i < 3; i++) {
            check_alone(&a, i, chat ? CHAT : TEXT, chat ? ASK : WORDS, 7 + i);
            assert_int_equal(a.choices[i].n_roles, chat);
        }
        assert_string_not_equal(a.choices[0].text.data, a.choices[1].text.data);
        assert_string_equal(a.choices[3].finish, "");
        post(&one, chat ? CHAT : TEXT, chat ? ASK : WORDS, ",\"max_tokens\":1");
        assert_int_equal(a.prompt, one.prompt);
        answer_release(&one);
        answer_release(&a);
    }
    serve_site_stop(&site);
    cloud_fixture_stop(cloud);
}

static void test_prompts_and_echo(void **state)
{
    (void)state;
    static const char many[] =
        "\"prompt\":[\"<|im_start|>\\nabc\",[256,10,97]],\"temperature\":1,\"max_tokens\":9";
    static const char *const single[] = {
        "\"prompt\":\"<|im_start|>\\nabc\",\"temperature\":1,\"max_tokens\":9",
        "\"prompt\":[256,10,97],\"temperature\":1,\"max_tokens\":9"};
    static const char *const echoes[] = {"<|im_start|>\nabc", "\na"};
    serve_site_defaults(&site);
    serve_site_start(&site);
    for (int how = 0; how < 4; how++) {
        struct answer a, echo;
        char more[128];
        snprintf(more, sizeof more, ",\"n\":2,\"seed\":3%s", how & 1 ? ",\"stream\":true" : "");
        post(&a, TEXT, many, more);
        for (uint32_t i = 0; i < 4; i++)
            check_alone(&a, i, TEXT, single[i / 2], 3 + i % 2);
        snprintf(more, sizeof more, ",\"n\":2,\"seed\":3,\"echo\":true%s",
                 how & 1 ? ",\"stream\":true" : "");
        post(&echo, TEXT, many, more);
        for (uint32_t i = 0; i < 4; i++) {
            size_t n = strlen(echoes[i / 2]);
            assert_memory_equal(echo.choices[i].text.data, echoes[i / 2], n);
            assert_string_equal(echo.choices[i].text.data + n, a.choices[i].text.data);
        }
        answer_release(&a);
        answer_release(&echo);
    }
    serve_site_stop(&site);
}

static void test_fails(void **state)
{
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        struct answer a;
        serve_site_defaults(&site);
        site.fake.fail_at_step = 9;
        serve_site_start(&site);
        post(&a, CHAT, ASK, stream ? ",\"n\":3,\"stream\":true" : ",\"n\":3");
        assert_int_equal(a.status, stream ? 200 : 502);
        assert_int_equal(a.n_errors, 1);
        assert_int_equal(a.done, stream);
        answer_release(&a);
        wait_idle();
        serve_site_stop(&site);
    }
}

static int begin(const char *more, const char *until)
{
    struct buf b;
    char body[512];
    int fd = raw_connect(site.port);
    snprintf(body, sizeof body, "{" ASK ",\"stream\":true%s}", more);
    serve_site_send(fd, "POST", CHAT, "", body);
    buf_init(&b, RAW_MAX);
    assert_true(raw_read_until(fd, &b, until));
    buf_release(&b);
    return fd;
}

static void test_leaves(void **state)
{
    (void)state;
    serve_site_defaults(&site);
    site.fake.answer_tokens = 3000;
    site.fake.step_us = 3000;
    serve_site_start(&site);
    int fd = begin(",\"n\":6,\"max_tokens\":2000", "\"index\":3,\"delta\":{\"content\"");
    close(fd);
    wait_idle();
    fd = begin(",\"n\":3,\"max_tokens\":2000,\"pdd\":{\"id\":\"me\",\"keep\":60}", "\"n\":1");
    struct buf b;
    assert_int_equal(serve_site_ask(&site, "DELETE", "/v1/answers/me", "", "", &b), 200);
    buf_release(&b);
    close(fd);
    wait_idle();
    serve_site_stop(&site);
}

static void test_room(void **state)
{
    (void)state;
    struct answer a;
    struct buf b;
    serve_site_defaults(&site);
    site.fake.answer_tokens = 3000;
    site.fake.step_us = 1000;
    site.config.answers_max = 1;
    site.config.queue_max = 4; /* a share of 3 */
    serve_site_start(&site);
    assert_int_equal(serve_site_ask(&site, "POST", CHAT, "", "{" ASK ",\"n\":4}", &b), 400);
    assert_non_null(strstr(b.data, "\"param\":\"n\""));
    buf_release(&b);
    int fd = begin(",\"n\":2,\"max_tokens\":2000", "\"n\":1");
    assert_int_equal(
        serve_site_ask(&site, "POST", CHAT, "", "{" ASK ",\"n\":3,\"pdd\":{\"id\":\"later\"}}", &b),
        429);
    buf_release(&b);
    close(fd);
    wait_idle();
    post(&a, CHAT, ASK, ",\"n\":3,\"max_tokens\":4,\"pdd\":{\"id\":\"later\"}"); /* not that one */
    assert_int_equal(a.status, 200);
    assert_int_equal(a.completion, 12);
    answer_release(&a);
    serve_site_stop(&site);
}

/* A prompt's progress is of the first answer to it, and never after that one's end. */
static void test_progress(void **state)
{
    struct answer a;
    (void)state;
    serve_site_defaults(&site);
    site.fake.step_tokens_max = 8;
    serve_site_start(&site);
    post(&a, TEXT,
         "\"prompt\":[\"Once upon a time there was a king who had a daughter\","
         "\"In a far land by the sea a fisherman lived with his wife\"]",
         ",\"n\":2,\"max_tokens\":2,\"stream\":true,\"return_progress\":true");
    assert_true(a.done);
    for (uint32_t i = 0; i < 4; i++) {
        assert_string_not_equal(a.choices[i].finish, "");
        assert_int_equal(a.choices[i].n_progress > 0, i % 2 == 0);
    }
    answer_release(&a);
    serve_site_stop(&site);
}

/* Asked again by the same id, while it runs and after a restart in its middle. */
static void test_again(void **state)
{
    static const char again[] = ",\"n\":2,\"seed\":5,\"pdd\":{\"id\":\"mine\",\"keep\":60}";
    struct answer a, b;
    (void)state;
    serve_site_defaults(&site);
    site.fake.answer_tokens = 60;
    site.fake.step_us = 5000.0;
    serve_site_make_folder(&site);
    serve_site_start(&site);
    int fd = begin(again, "\"index\":1,\"delta\":{\"content\"");
    post(&a, CHAT, ASK, again);
    close(fd);
    check_alone(&a, 0, CHAT, ASK, 5);
    check_alone(&a, 1, CHAT, ASK, 6);
    serve_site_stop(&site);
    serve_site_start(&site);
    post(&b, CHAT, ASK, again);
    for (int i = 0; i < 2; i++)
        assert_string_equal(b.choices[i].text.data, a.choices[i].text.data);
    answer_release(&b);
    fd = begin(",\"n\":2,\"seed\":5,\"stream_options\":{\"include_usage\":true},"
               "\"pdd\":{\"id\":\"other\",\"keep\":60}",
               "\"index\":1,\"delta\":{\"content\"");
    serve_site_stop(&site);
    close(fd);
    serve_site_start(&site);
    post(&b, CHAT, ASK,
         ",\"n\":2,\"seed\":5,\"stream\":true,\"pdd\":{\"id\":\"other\",\"keep\":60}");
    assert_true(b.done);
    assert_int_equal(b.prompt, a.prompt); /* what was there before the restart is no prompt */
    assert_int_equal(b.completion, a.completion);
    for (int i = 0; i < 2; i++)
        assert_string_equal(b.choices[i].text.data, a.choices[i].text.data);
    answer_release(&b);
    answer_release(&a);
    serve_site_stop(&site);
    serve_site_remove_folder(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_n),        cmocka_unit_test(test_prompts_and_echo),
        cmocka_unit_test(test_fails),    cmocka_unit_test(test_leaves),
        cmocka_unit_test(test_room),     cmocka_unit_test(test_again),
        cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
