/*
 * test_chat_clock: a chat template that writes the hour, on a device and a cloud in two time zones.
 * It runs the program named by PDD_BIN.
 *
 * Catches: a prompt that the cloud makes by another clock than the device's.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/os.h"
#include "support/program.h"
#include "support/tiny_model.h"

#define EAST "EAST-7"

/* The longer, the later it is. */
static const char template_text[] =
    "{{ 'a, b; ' * (strftime_now('%H') | int + 1) }}{{ messages[0].content }}";

struct site {
    char model[TINY_PATH_MAX], template[32], url[64];
};

/* Tokens of a prompt in that time zone, as the report names them. `model`: the device has one. */
static int64_t prompt_tokens(const struct site *s, const char *zone, bool model, const char *name)
{
    char stats[] = "/tmp/pdd-stats-XXXXXX";
    struct program p;
    struct buf out, err;
    close(mkstemp(stats));
    setenv("TZ", zone, 1);
    program_start(&p, "chat",
                  ARGS("--cloud", s->url, "--cloud-only", "--prompt", "x", "--stats-json", stats,
                       "--pace", "off", "--no-state", "--max-tokens", "2",
                       model ? "--chat-template-file" : "--no-model", model ? s->template : NULL,
                       "--model", s->model));
    unsetenv("TZ");
    if (program_finish(&p, &out, &err) != 0) fail_msg("%s", err.data);
    buf_release(&out);
    buf_release(&err);
    json_t *j = json_load_file(stats, 0, NULL);
    int64_t n = json_integer_value(json_object_get(j, name));
    json_decref(j);
    unlink(stats);
    return n;
}

static void test_one_clock(void **state)
{
    struct tiny_options tiny = TINY_DEFAULT;
    struct site s = {.template = "/tmp/pdd-template-XXXXXX"};
    struct program cloud;
    (void)state;
    if (!getenv("PDD_BIN")) skip();
    tiny_model_file(&tiny, s.model);
    close(mkstemp(s.template));
    assert_int_equal(os_write_file(s.template, template_text, sizeof template_text - 1, NULL), 0);
    setenv("TZ", "UTC", 1);
    program_start(&cloud, "cloud",
                  ARGS("--model", s.model, "--chat-template-file", s.template, "--threads", "1",
                       "--listen", "127.0.0.1:0"));
    program_line_after(&cloud, "listening on ", s.url, sizeof s.url);
    for (int tries = 0;; tries++) { /* again when the hour changes meanwhile */
        time_t hour = time(NULL) / 3600;
        int64_t here = prompt_tokens(&s, EAST, true, "prompt_tokens");
        int64_t by_ids = prompt_tokens(&s, EAST, true, "cloud_prompt_tokens");
        int64_t by_messages = prompt_tokens(&s, EAST, false, "cloud_prompt_tokens");
        int64_t there = prompt_tokens(&s, "UTC", true, "prompt_tokens");
        if (time(NULL) / 3600 != hour && tries < 2) continue;
        assert_int_not_equal(here, there);
        assert_int_equal(by_ids, here);
        assert_int_equal(by_messages, here);
        break;
    }
    program_kill(&cloud, SIGTERM);
    unlink(s.template);
    unlink(s.model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_clock)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
