/*
 * test_chat_talk: a conversation of `pdd chat`: a context that fills, commands, answers that are
 * cut off, pastes in a terminal, and streams that are closed. It runs the program named by PDD_BIN.
 *
 * Catches: a conversation that no question fits into any more; a system message that is dropped; a
 * command that is asked as a question; a paste that becomes several questions; escape sequences for
 * those who want none; a file or socket under the number of a standard stream.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "support/program.h"
#include "support/terminal.h"

enum { ANSWERS_MAX = 16 };

/* `prompt_tokens` of each answer; returns how many there were. */
static size_t prompt_tokens(const char *path, int64_t *ret_tokens)
{
    FILE *f = fopen(path, "r");
    size_t n = 0;
    assert_non_null(f);
    for (json_t *j; (j = json_loadf(f, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, NULL));) {
        assert_true(n < ANSWERS_MAX);
        ret_tokens[n++] = json_integer_value(json_object_get(j, "prompt_tokens"));
        json_decref(j);
    }
    fclose(f);
    return n;
}

/* Run a conversation; output and errors are initialised here. Returns the lines of answers. */
static uint32_t talk(const char *const *args, const char *lines, int status, struct buf *err)
{
    struct program p;
    struct buf out;
    uint32_t n = 0;
    program_start(&p, "chat", args);
    assert_int_equal(write(p.in, lines, strlen(lines)), strlen(lines));
    int got = program_finish(&p, &out, err);
    if (got != status) fail_msg("status %d: %s", got, err->data);
    for (size_t i = 0; i < out.len; i++)
        n += out.data[i] == '\n';
    buf_release(&out);
    return n;
}

static void expect_said(const struct buf *err, const char *sentence, bool said)
{
    if ((strstr(err->data, sentence) != NULL) != said)
        fail_msg("%s \"%s\" in: %s", said ? "no" : "there is", sentence, err->data);
}

static void test_full_context(void **state)
{
    char stats[] = "/tmp/pdd-stats-XXXXXX", context[16], alone[16];
    int64_t tokens[ANSWERS_MAX];
    struct buf err;
    (void)state;
    close(mkstemp(stats));
    talk(ARGS("--fake", "5", "--local-only", "--no-state", "--system", "You count.", "--stats-json",
              stats),
         "What is next?\n", 0, &err);
    buf_release(&err);
    assert_int_equal(prompt_tokens(stats, tokens), 1);
    int64_t one = tokens[0];
    snprintf(alone, sizeof alone, "%d", (int)one - 1);
    snprintf(context, sizeof context, "%d", (int)one + 12);
    uint32_t n = talk(ARGS("--fake", "5", "--local-only", "--no-state", "--system", "You count.",
                           "--context", context, "--max-tokens", "8", "--stats-json", stats),
                      "What is next?\nWhat is next?\nWhat is next?\nWhat is next?\n", 0, &err);
    assert_int_equal(n, 4);
    expect_said(&err, "the oldest 1 question and answer are left out", true);
    expect_said(&err, "/clear", true);
    buf_release(&err);
    snprintf(context, sizeof context, "%d", (int)one + 3);
    size_t answers = prompt_tokens(stats, tokens);
    assert_true(answers >= 4);
    for (size_t i = answers - 4; i < answers; i++)
        assert_int_equal(tokens[i], one);
    talk(ARGS("--fake", "5", "--local-only", "--no-state", "--system", "You count.", "--context",
              alone),
         "What is next?\n", 1, &err);
    expect_said(&err, "the context of model", true);
    buf_release(&err);
    talk(ARGS("--fake", "5", "--local-only", "--no-state", "--system", "You count.", "--context",
              context),
         "What is next?\n", 0, &err);
    expect_said(&err, "cut off after 3 tokens: the context is full", true);
    buf_release(&err);
    unlink(stats);
}

/* A long question in a conversation is refused, and the conversation is still there. */
static void test_long_question_keeps_the_talk(void **state)
{
    char stats[] = "/tmp/pdd-stats-XXXXXX", lines[4096];
    int64_t tokens[ANSWERS_MAX];
    struct buf err;
    (void)state;
    close(mkstemp(stats));
    snprintf(lines, sizeof lines, "one\n%0*d\ntwo\n", 2000, 0);
    uint32_t n = talk(ARGS("--fake", "5", "--local-only", "--no-state", "--context", "500",
                           "--stats-json", stats),
                      lines, 0, &err);
    assert_int_equal(n, 2);
    expect_said(&err, "left out", false);
    buf_release(&err);
    size_t answers = prompt_tokens(stats, tokens);
    assert_true(answers >= 2 && tokens[answers - 1] > tokens[0]);
    unlink(stats);
}

static void test_commands(void **state)
{
    char stats[] = "/tmp/pdd-stats-XXXXXX";
    int64_t tokens[ANSWERS_MAX];
    struct buf err;
    (void)state;
    close(mkstemp(stats));
    uint32_t n = talk(ARGS("--fake", "5", "--local-only", "--no-state", "--stats-json", stats),
                      "/stats\n/regenerate\none\n/stats\n/regenerate\n/clear\none\n/help\n/nope\n"
                      " /help\n/usr/bin?\n/exit\nnever\n",
                      0, &err);
    assert_int_equal(n, 5);
    expect_said(&err, "there is no answer yet", true);
    expect_said(&err, "there is no answer to give again", true);
    expect_said(&err, "5 tokens: 0 of the cloud", true);
    expect_said(&err, "begins anew", true);
    expect_said(&err, "/regenerate  answer", true);
    expect_said(&err, "no command /nope", true);
    buf_release(&err);
    assert_int_equal(prompt_tokens(stats, tokens), 5);
    assert_int_equal(tokens[0], tokens[1]); /* regenerated: the same question */
    assert_int_equal(tokens[0], tokens[2]); /* cleared: nothing before it */
    assert_true(tokens[3] > tokens[2]);
    unlink(stats);
}

static void test_cut_answers(void **state)
{
    struct buf err;
    (void)state;
    talk(ARGS("--fake", "9", "--local-only", "--no-state", "--max-tokens", "3"), "one\n", 0, &err);
    expect_said(&err, "cut off after 3 tokens (--max-tokens)", true);
    buf_release(&err);
    talk(ARGS("--fake", "9", "--local-only", "--no-state", "--max-tokens", "30"), "one\n", 0, &err);
    expect_said(&err, "cut off", false);
    buf_release(&err);
}

/* ---- at a terminal ---- */

/* A talk with the fake engine. */
static void start(struct terminal *t, const char *term, const char *no_color)
{
    terminal_start(t, term, ARGS(no_color),
                   ARGS("--fake", "5", "--local-only", "--no-state", "--pace", "off", "--stats"));
}

#ifdef PDD_HAVE_EDIT
#define HAS_EDIT 1
#else
#define HAS_EDIT 0
#endif

/* A paste of three lines, with a tab and a key that would end the program, is one question. */
static void test_paste(void **state)
{
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    start(&t, "xterm", "NO_COLOR=");
    terminal_await_editor(&t, 1);
    terminal_type(&t, "\033[200~Read\tthis:\r\nline two\x04\nline three\033[201~");
    terminal_await(&t, "line three", 1);
    terminal_type(&t, "\r");
    terminal_await(&t, "tokens: ", 1);
    terminal_await_editor(&t, 2);
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    assert_null(strstr(t.seen.data, "00~"));
    assert_null(strstr(t.seen.data, "01~"));
    char *first = strstr(t.seen.data, "tokens: ");
    assert_null(strstr(first + 1, "tokens: "));
    const char *last = t.seen.data;
    for (const char *at = last; (at = strstr(at, "\033[?2004")); at++)
        last = at;
    assert_memory_equal(last, "\033[?2004l", 8);
    buf_release(&t.seen);
}

/* Catches: a terminal that still marks pastes for the shell, after a signal ended the program. */
static void test_signal_at_the_prompt(void **state)
{
    static const int signals[] = {SIGTERM, SIGHUP, SIGQUIT};
    (void)state;
    if (!HAS_EDIT) skip();
    for (int i = 0; i < 3; i++) {
        struct terminal t;
        start(&t, "xterm", "NO_COLOR=");
        terminal_await(&t, "> ", 1);
        kill(t.pid, signals[i]);
        int status = terminal_end(&t);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
        assert_non_null(strstr(t.seen.data, "\033[?2004l"));
        buf_release(&t.seen);
    }
}

/* NO_COLOR: no color, though other escape sequences; TERM=dumb: none at all. */
static void test_plain_terminals(void **state)
{
    static const struct {
        const char *term, *no_color;
        bool color, escapes;
    } cases[] = {{"xterm", "NO_COLOR=", true, true},
                 {"xterm", "NO_COLOR=1", false, true},
                 {"dumb", "NO_COLOR=", false, false},
                 {"", "NO_COLOR=", false, false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct terminal t;
        start(&t, cases[i].term, cases[i].no_color);
        if (cases[i].escapes && HAS_EDIT) terminal_await_editor(&t, 1);
        terminal_await(&t, "> ", 1);
        terminal_type(&t, "one\r");
        terminal_await(&t, "tokens: ", 1);
        if (cases[i].escapes && HAS_EDIT) terminal_await_editor(&t, 2);
        terminal_await(&t, "> ", 2);
        terminal_type(&t, "\x04");
        assert_int_equal(terminal_end(&t), 0);
        bool color = strstr(t.seen.data, "\033[32m") != NULL;
        bool escapes = strchr(t.seen.data, '\033') != NULL;
        if (color != cases[i].color || escapes != cases[i].escapes)
            fail_msg("case %zu: %s", i, t.seen.data);
        buf_release(&t.seen);
    }
}

/* Whatever is closed, a command ends as it does with /dev/null there, and its files are its own. */
static void test_closed_streams(void **state)
{
    static const char *const commands[] = {
        "chat --fake 5 --local-only --no-state --prompt x --stats-json $f",
        "chat --fake 5 --local-only --no-state --document $f --prompt x",
        "model random --shape llama-tiny -o $f",
        "model inspect /no/such",
        "model tokenize /no/such",
        "bench engine --fake",
        "sim --list",
        "demo --nonsense",
        "cloud key --requests 5",
        "cloud --nonsense",
        "device --nonsense",
        "link --nonsense",
        "--help",
        "nonsense"};
    char command[1024];
    struct buf out;
    (void)state;
    if (!getenv("PDD_BIN")) skip();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        snprintf(command, sizeof command,
                 "f=$(mktemp)\n"
                 "try() { echo before >$f; \"$PDD_BIN\" %s; echo $? $(head -c 6 $f) >&9; }\n"
                 "{ exec 9>&1 >/dev/null 2>&1 </dev/null\n"
                 "try; try <&-; try >&-; try 2>&-; try <&- >&- 2>&-; } | sort | uniq -c\n"
                 "rm $f",
                 commands[i]);
        assert_int_equal(program_shell(command, &out), 0);
        if (strncmp(out.data + strspn(out.data, " "), "5 ", 2) != 0)
            fail_msg("%s: %s", commands[i], out.data);
        buf_release(&out);
    }
}

static void test_closed_streams_of_a_server(void **state)
{
    struct buf out;
    (void)state;
    if (!getenv("PDD_BIN")) skip();
    int status =
        program_shell("\"$PDD_BIN\" cloud --fake 5 --listen 127.0.0.1:0 <&- >&- 2>&- & p=$!\n"
                      "for i in $(seq 100); do\n"
                      "  a=$(readlink /proc/$p/fd/0 /proc/$p/fd/1 /proc/$p/fd/2)\n"
                      "  [ $(echo \"$a\" | wc -l) -eq 3 ] && ls /proc/$p/fd/5 && break\n"
                      "  sleep 0.05\ndone >/dev/null 2>&1\n"
                      "readlink /proc/$p/fd/0 /proc/$p/fd/1 /proc/$p/fd/2; kill $p",
                      &out);
    assert_int_equal(status, 0);
    assert_string_equal(out.data, "/dev/null\n/dev/null\n/dev/null\n");
    buf_release(&out);
    assert_int_equal(
        program_shell("\"$PDD_BIN\" chat --fake 5 --local-only --no-state <&- >&- 2>&-", &out), 0);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_context),
        cmocka_unit_test(test_long_question_keeps_the_talk),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_cut_answers),
        cmocka_unit_test(test_paste),
        cmocka_unit_test(test_signal_at_the_prompt),
        cmocka_unit_test(test_plain_terminals),
        cmocka_unit_test(test_closed_streams),
        cmocka_unit_test(test_closed_streams_of_a_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
