/*
 * test_chat_history: the lines that `pdd chat` keeps of what was typed at a terminal. It runs the
 * program named by PDD_BIN.
 *
 * Catches: a file that others can read, that grows without end, or that two chats spoil for each
 * other; a text of several lines that becomes several; a line that was not to be kept; a chat that
 * fails because its history does.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "support/program.h"
#include "support/terminal.h"

#ifdef PDD_HAVE_EDIT
#define HAS_EDIT 1
#else
#define HAS_EDIT 0
#endif

enum { PATH_BYTES = 128, FILE_MAX = 1 << 20 };

/* A folder for what is kept, its setting, and the file in it. */
struct place {
    char dir[32], setting[64], file[PATH_BYTES], store[PATH_BYTES];
};

static void place_make(struct place *p)
{
    strcpy(p->dir, "/tmp/pdd-history-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->setting, sizeof p->setting, "XDG_STATE_HOME=%s", p->dir);
    snprintf(p->store, sizeof p->store, "%s/pdd", p->dir);
    snprintf(p->file, sizeof p->file, "%s/pdd/history", p->dir);
}

static void place_remove(const struct place *p)
{
    char command[PATH_BYTES];
    struct buf out;
    snprintf(command, sizeof command, "rm -r %s", p->dir);
    assert_int_equal(program_shell(command, &out), 0);
    buf_release(&out);
}

static void start(struct terminal *t, const struct place *p, const char *option)
{
    terminal_start(t, "xterm", ARGS(p->setting),
                   ARGS("--fake", "5", "--local-only", "--pace", "off", option));
    terminal_await_editor(t, 1);
}

/* Type each line, and leave. */
static void type_lines(const struct place *p, const char *option, const char *const *lines)
{
    struct terminal t;
    int n = 1;
    start(&t, p, option);
    for (; *lines; lines++) {
        terminal_type(&t, *lines);
        terminal_type(&t, "\r");
        terminal_await_editor(&t, ++n);
    }
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
}

static void read_file(const struct place *p, struct buf *b)
{
    buf_init(b, 4 * FILE_MAX);
    assert_int_equal(os_read_file(p->file, b, NULL), 0);
}

static void write_file(const struct place *p, const char *text, size_t n)
{
    mkdir(p->store, 0700);
    assert_int_equal(os_write_file(p->file, text, n, NULL), 0);
}

static void test_kept(void **state)
{
    struct place p;
    struct stat st;
    struct buf b;
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    place_make(&p);
    type_lines(&p, "--stats",
               ARGS("one \xE6\x97\xA5", " a secret", "\033[200~two\r\n\tlines\033[201~", "/help",
                    "last \"words\""));
    read_file(&p, &b);
    assert_string_equal(
        b.data, "\"one \xE6\x97\xA5\"\n\"two\\n\\tlines\"\n\"/help\"\n\"last \\\"words\\\"\"\n");
    buf_release(&b);
    assert_int_equal(stat(p.file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    start(&t, &p, "--stats"); /* three up: the text of two lines, as one question */
    terminal_type(&t, "\033[A\033[A\033[A");
    terminal_await(&t, "lines", 1);
    terminal_type(&t, " again\r");
    terminal_await_editor(&t, 2);
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
    read_file(&p, &b);
    assert_non_null(strstr(b.data, "\n\"two\\n\\tlines again\"\n"));
    buf_release(&b);
    place_remove(&p);
}

static void test_not_kept(void **state)
{
    static const char *const options[] = {"--no-history", "--no-state"};
    (void)state;
    if (!HAS_EDIT) skip();
    for (int i = 0; i < 2; i++) {
        struct place p;
        place_make(&p);
        type_lines(&p, options[i], ARGS("one"));
        assert_int_not_equal(access(p.file, F_OK), 0);
        place_remove(&p);
    }
}

/* Both chats are open when each keeps its lines. */
static void test_two_chats(void **state)
{
    struct place p;
    struct buf b;
    struct terminal t, u;
    (void)state;
    if (!HAS_EDIT) skip();
    place_make(&p);
    start(&t, &p, "--stats");
    start(&u, &p, "--stats");
    for (int i = 0; i < 3; i++) {
        terminal_type(&t, i == 0 ? "a0\r" : i == 1 ? "a1\r" : "a2\r");
        terminal_await_editor(&t, i + 2);
        terminal_type(&u, i == 0 ? "b0\r" : i == 1 ? "b1\r" : "b2\r");
        terminal_await_editor(&u, i + 2);
    }
    terminal_type(&t, "\x04");
    terminal_type(&u, "\x04");
    assert_int_equal(terminal_end(&t) | terminal_end(&u), 0);
    buf_release(&t.seen);
    buf_release(&u.seen);
    read_file(&p, &b);
    assert_string_equal(b.data, "\"a0\"\n\"b0\"\n\"a1\"\n\"b1\"\n\"a2\"\n\"b2\"\n");
    buf_release(&b);
    place_remove(&p);
}

/* A full file keeps its newer half; one that is damaged, what can be read. */
static void test_bounds_and_damage(void **state)
{
    static const char damaged[] = "\"good\"\nno JSON\n\"\xFF\"\n{\"a\":1}\n\"cut of";
    struct place p;
    struct buf b;
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    place_make(&p);
    buf_init(&b, 2 * FILE_MAX);
    for (int i = 0; b.len < FILE_MAX - 4; i++)
        assert_int_equal(buf_printf(&b, "\"entry %d\"\n", i), 0);
    char last[32];
    snprintf(last, sizeof last, "%.*s", 20, b.data + b.len - 20);
    write_file(&p, b.data, b.len);
    buf_release(&b);
    type_lines(&p, "--stats", ARGS("the newest"));
    read_file(&p, &b);
    assert_true(b.len < FILE_MAX * 5 / 8 && b.len > FILE_MAX * 3 / 8);
    assert_memory_equal(b.data, "\"entry ", 7);
    assert_non_null(strstr(b.data, last));
    assert_non_null(strstr(b.data, "\n\"the newest\"\n"));
    buf_release(&b);
    write_file(&p, damaged, sizeof damaged - 1);
    start(&t, &p, "--stats");
    terminal_type(&t, "\033[A");
    terminal_await(&t, "good", 1);
    terminal_type(&t, " yet\r");
    terminal_await_editor(&t, 2);
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
    read_file(&p, &b);
    assert_non_null(strstr(b.data, "\"cut of\n\"good yet\"\n"));
    buf_release(&b);
    place_remove(&p);
}

static void test_no_place(void **state)
{
    struct place p;
    struct terminal t;
    (void)state;
    if (!HAS_EDIT) skip();
    place_make(&p);
    assert_int_equal(mkdir(p.store, 0700) | mkdir(p.file, 0700), 0);
    start(&t, &p, "--stats");
    assert_non_null(strstr(t.seen.data, "note: what is typed is not kept: "));
    terminal_type(&t, "one\r");
    terminal_await(&t, "5 tokens: ", 1);
    terminal_await_editor(&t, 2);
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    buf_release(&t.seen);
    place_remove(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),      cmocka_unit_test(test_not_kept),
        cmocka_unit_test(test_two_chats), cmocka_unit_test(test_bounds_and_damage),
        cmocka_unit_test(test_no_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
