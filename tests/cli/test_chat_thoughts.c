/*
 * test_chat_thoughts: what a model thinks before it answers, as `pdd chat` shows it: dimmed to a
 * person, not at all to a program.
 *
 * Catches: a thought or its marks among the words of the answer, a colour that stays on;
 * progress that is written over a thought.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/emulated.h"
#include "engine/fake.h"
#include "support/cloud_fixture.h"
#include "support/program.h"
#include "support/terminal.h"

#define ASKED "--cloud-only", "--no-state", "--prompt", "Is it so?", "--cloud"

static const char *const settings[] = {"LC_ALL=C.UTF-8", NULL};

static struct cloud_fixture *thinker(void)
{
    static const struct fake_options o = {.script = "<think>\nHm, so.\n</think>\n\nYes, so."};
    struct engine *e;
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    return cloud_fixture_start(e);
}

static void test_program(void **state)
{
    (void)state;
    struct cloud_fixture *cloud = thinker();
    struct program p;
    struct buf out, err;
    program_start(&p, "chat", ARGS(ASKED, cloud_fixture_url(cloud)));
    assert_int_equal(program_finish(&p, &out, &err), 0);
    assert_string_equal(out.data, "Yes, so.\n");
    assert_null(strstr(err.data, "Hm"));
    buf_release(&out);
    buf_release(&err);
    cloud_fixture_stop(cloud);
}

static void shown(const char *term, const char *thought, const char *answer)
{
    struct cloud_fixture *cloud = thinker();
    struct terminal t;
    terminal_start(&t, term, settings, ARGS(ASKED, cloud_fixture_url(cloud)));
    assert_int_equal(terminal_end(&t), 0);
    const char *at = strstr(t.seen.data, thought);
    if (!at || !strstr(at, answer))
        fail_msg("no '%s', then '%s', in %s", thought, answer, t.seen.data);
    assert_null(strstr(t.seen.data, "think>"));
    buf_release(&t.seen);
    cloud_fixture_stop(cloud);
}

static void test_person(void **state)
{
    (void)state;
    shown("xterm", "\033[2mHm, so.\r\n\r\n\033[0m\033[36mYes, so.", "\033[0m");
    shown("dumb", "(thinking) Hm, so.\r\n\r\nYes, so.", "\r\n");
}

/* Progress of this device's reading must not take the row of a thought that the cloud sends. */
static void test_progress(void **state)
{
    static const struct fake_options o = {
        .script = "<think>\nSo many thoughts, one after another, until the end.\n</think>\n\nYes."};
    struct engine *e;
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    engine_emulate(e, device_profile_find("provider-20ms"));
    struct cloud_fixture *cloud = cloud_fixture_start(e);
    struct terminal t;
    char prompt[2400] = "";
    (void)state;
    memset(prompt, 'x', sizeof prompt - 1);
    terminal_start(&t, "xterm", settings,
                   ARGS("--fake", "5", "--profile", "s24-ultra-cpu", "--no-state", "--prompt",
                        prompt, "--cloud", cloud_fixture_url(cloud)));
    assert_int_equal(terminal_end(&t), 0);
    const char *at = strstr(t.seen.data, "\033[2m");
    assert_non_null(at);
    assert_null(strstr(at, "reading: "));
    buf_release(&t.seen);
    cloud_fixture_stop(cloud);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_program),
                                       cmocka_unit_test(test_person),
                                       cmocka_unit_test(test_progress)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
