/*
 * test_chat_terminal: `pdd chat` as a person at a terminal has it: keys that interrupt or stop it,
 * a window that changes, commands that are mistyped. It runs the program named by PDD_BIN.
 *
 * Catches: a Ctrl-C that stops too much or too little, or does not say what the next one does; a
 * terminal left in the line editor's modes after Ctrl-Z or a signal, or without them after fg; a
 * line that is lost when the window changes; progress that fills a narrow window; a mistyped
 * command without a hint.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/program.h"
#include "support/terminal.h"

#ifdef PDD_HAVE_EDIT
#define HAS_EDIT 1
#else
#define HAS_EDIT 0
#endif

#define SETTINGS ARGS("XDG_STATE_HOME=/nowhere")
#define TALK "--fake", "5", "--local-only", "--no-state", "--pace", "off", "--stats"
#define ENDLESS                                                                                    \
    "--fake", "100000", "--context", "200000", "--max-tokens", "100000", "--local-only",           \
        "--no-state", "--profile", "s24-ultra-gpu"

/* ---- Ctrl-C ---- */

static void test_interrupt_of_a_line(void **state)
{
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    terminal_start(&t, "xterm", SETTINGS, ARGS(TALK));
    terminal_await_editor(&t, 1);
    terminal_type(&t, "some words");
    terminal_await(&t, "some words", 1);
    terminal_type(&t, "\x03");
    terminal_await(&t, "Ctrl-C again, or Ctrl-D, leaves", 1);
    terminal_await_editor(&t, 2);
    terminal_type(&t, "one\r");
    terminal_await(&t, "5 tokens: ", 1); /* the words are gone, the talk goes on */
    terminal_await_editor(&t, 3);
    terminal_type(&t, "\x03");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

static void test_interrupt_of_an_answer(void **state)
{
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    terminal_start(&t, "xterm", SETTINGS, ARGS(ENDLESS));
    terminal_await_editor(&t, 1);
    terminal_type(&t, "one\r");
    terminal_await(&t, "\033[32m", 1);
    terminal_type(&t, "\x03");
    terminal_await(&t, "stopped; Ctrl-C again, or Ctrl-D, leaves", 1);
    terminal_await_editor(&t, 2);
    terminal_type(&t, "\x03");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

/* A plain terminal does not tell what was typed: the second Ctrl-C leaves. */
static void test_interrupt_at_a_plain_prompt(void **state)
{
    struct terminal t;
    (void)state;
    terminal_start(&t, "dumb", SETTINGS, ARGS(TALK));
    terminal_await(&t, "> ", 1);
    terminal_type(&t, "\x03");
    terminal_await(&t, "Ctrl-C again, or Ctrl-D, leaves", 1);
    terminal_await(&t, "> ", 2);
    terminal_type(&t, "\x03");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

/* What nohup or a script's background wants ignored stays ignored. */
static void test_ignored_signals(void **state)
{
    struct program p;
    struct buf out, err;
    char byte;
    (void)state;
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    program_start(&p, "chat", ARGS("--fake", "5", "--local-only", "--no-state"));
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    assert_int_equal(write(p.in, "x\n", 2), 2);
    assert_int_equal(read(p.out, &byte, 1), 1); /* its signal thread runs */
    kill(p.pid, SIGHUP);
    kill(p.pid, SIGINT);
    assert_int_equal(write(p.in, "/stats\n", 7), 7);
    assert_int_equal(program_finish(&p, &out, &err), 0);
    assert_non_null(strstr(err.data, "5 tokens: "));
    buf_release(&out);
    buf_release(&err);
}

/* ---- Ctrl-Z ---- */

static void test_stop_and_continue(void **state)
{
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    terminal_start_job(&t, SETTINGS, ARGS(TALK));
    terminal_await_editor(&t, 1);
    terminal_type(&t, "half a ");
    terminal_await(&t, "half a ", 1);
    terminal_type(&t, "\x1a");
    terminal_await(&t, "[stopped]", 1);
    assert_false(terminal_is_raw(&t));
    const char *unmarked = strstr(t.seen.data, "\033[?2004l"), *stopped = strstr(t.seen.data, "[s");
    assert_true(unmarked && unmarked < stopped);
    terminal_type(&t, "fg\r");
    terminal_await(&t, "\033[?2004h", 2);
    terminal_await_raw(&t);
    terminal_await(&t, "half a ", 2); /* the line is drawn again */
    terminal_type(&t, "question\r");
    terminal_await(&t, "5 tokens: ", 1);
    terminal_await(&t, "\033[?2004h> ", 2);
    terminal_await_raw(&t);
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

/* An answer stops with the program, and goes on with it. */
static void test_stop_of_an_answer(void **state)
{
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    terminal_start_job(&t, SETTINGS, ARGS(ENDLESS));
    terminal_await_editor(&t, 1);
    terminal_type(&t, "one\r");
    terminal_await(&t, "\033[32m", 1);
    terminal_type(&t, "\x1a");
    terminal_await(&t, "[stopped]", 1);
    terminal_type(&t, "fg\r");
    size_t shown = t.seen.len;
    while (t.seen.len < shown + 20) {
        char bytes[64];
        ssize_t got = read(t.fd, bytes, sizeof bytes);
        assert_true(got > 0);
        assert_int_equal(buf_append(&t.seen, bytes, (size_t)got), 0);
    }
    terminal_type(&t, "\x03");
    terminal_await(&t, "stopped; Ctrl-C again", 1);
    terminal_await(&t, "\033[?2004h> ", 2);
    terminal_await_raw(&t);
    terminal_type(&t, "\x03");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

/* ---- the window ---- */

/* A line of wide characters and combining marks, in a window that becomes narrow: all of it is
 * drawn for the new width. */
static void test_window(void **state)
{
    static const char line[] = "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E e\xCC\x81t\xC3\xA9 and words";
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    terminal_start(&t, "xterm", SETTINGS, ARGS(TALK));
    terminal_await_editor(&t, 1);
    terminal_type(&t, line);
    terminal_await(&t, "and words", 1);
    terminal_resize(&t, 20);
    /* Of 22 columns: the second row and the first are taken back. */
    terminal_await(&t, "\033[1A\r\033[J", 1);
    terminal_await(&t, "\xE6\x97\xA5\xE6\x9C\xAC", 2);
    terminal_resize(&t, 80);
    terminal_await(&t, "\xE6\x97\xA5\xE6\x9C\xAC", 3);
    assert_non_null(strstr(strstr(t.seen.data, "\033[J") + 3, "\r\033[J"));
    assert_null(strstr(strstr(t.seen.data, "A\r\033[J") + 1, "A\r\033[J"));
    terminal_type(&t, "\r");
    terminal_await(&t, "5 tokens: ", 1);
    terminal_await_editor(&t, 2);
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

/* In a narrow window too, progress stays on the row that it is taken back from: no part of it is
 * longer than that. */
static void test_progress_in_a_narrow_window(void **state)
{
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    terminal_start(&t, "xterm", SETTINGS,
                   ARGS("--fake", "5", "--local-only", "--no-state", "--profile", "s24-ultra-cpu"));
    terminal_await_editor(&t, 1);
    terminal_resize(&t, 20);
    for (int i = 0; i < 40; i++)
        terminal_type(&t, "so ");
    terminal_type(&t, "\r");
    terminal_await(&t, "%\r\033[K\033[32m", 1); /* progress is taken back, the answer begins */
    assert_null(strstr(t.seen.data, "reading: "));
    terminal_await_editor(&t, 2);
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

/* ---- commands ---- */

static void test_mistyped_commands(void **state)
{
    static const struct {
        const char *line, *said; /* NULL: it is a question */
    } cases[] = {
        {"/clera", "no command /clera: did you mean /clear?"},
        {"/hlp", "no command /hlp: did you mean /help?"},
        {"/re", "no command /re: did you mean /regenerate?"},
        {"/Stat", "no command /Stat: did you mean /stats?"},
        {"/exot", "no command /exot: did you mean /exit?"},
        {"/sing", "no command /sing: /help lists them; //sing asks it as a question"},
        {"/HELP", "/regenerate  answer"},
        {"/?", "/regenerate  answer"},
        {"/help \t", "/regenerate  answer"},
        {"//help", NULL},
        {"/usr/bin", NULL},
        {"/help me", NULL},
        {" /help", NULL},
        {"/", NULL},
        {"/2", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct program p;
        struct buf out, err;
        char line[64];
        int n = snprintf(line, sizeof line, "%s\n", cases[i].line);
        program_start(&p, "chat", ARGS("--fake", "5", "--local-only", "--no-state"));
        assert_int_equal(write(p.in, line, (size_t)n), n);
        program_finish(&p, &out, &err);
        bool asked = out.len > 0;
        if (asked != !cases[i].said || (cases[i].said && !strstr(err.data, cases[i].said)))
            fail_msg("%s: %s%s", cases[i].line, out.data, err.data);
        buf_release(&out);
        buf_release(&err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interrupt_of_a_line),
        cmocka_unit_test(test_interrupt_of_an_answer),
        cmocka_unit_test(test_interrupt_at_a_plain_prompt),
        cmocka_unit_test(test_ignored_signals),
        cmocka_unit_test(test_stop_and_continue),
        cmocka_unit_test(test_stop_of_an_answer),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_progress_in_a_narrow_window),
        cmocka_unit_test(test_mistyped_commands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
