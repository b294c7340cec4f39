/*
 * test_store: the file that a device keeps: made, opened again, refused.
 *
 * Catches: a file that others can read; a file that does not open after its program was killed, or
 * that lost or half kept a transaction; damage, a stranger's or a later file taken for ours, or
 * overwritten; two programs that lock each other out while a new file is made.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "store/store.h"

static char dir[64], file[96];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/pdd-store-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(file, sizeof file, "%s/state.db", dir);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static struct store *opened(void)
{
    struct store *s;
    struct err e = ERR_INIT;
    if (store_open(dir, &s, &e)) fail_msg("%s", e.text);
    return s;
}

static void refused(int code, const char *word)
{
    struct store *s;
    struct err e = ERR_INIT;
    assert_int_equal(store_open(dir, &s, &e), code);
    if (!strstr(e.text, word) || !strstr(e.text, dir)) fail_msg("not said: %s", e.text);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static int64_t number(struct store *s, const char *sql)
{
    sqlite3_stmt *statement;
    struct err e = ERR_INIT;
    if (store_prepare(s, sql, &statement, &e)) fail_msg("%s", e.text);
    if (store_step(s, statement, &e) != 1) fail_msg("%s", e.text);
    int64_t value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static void test_only_the_owner_reads(void **state)
{
    char wal[128], deep[128];
    struct store *s;
    (void)state;
    mode_t before = umask(0);
    snprintf(deep, sizeof deep, "%s/not/there/yet", dir);
    assert_int_equal(store_open(deep, &s, NULL), 0);
    assert_int_equal(mode_of(deep), 0700);
    store_close(s);
    s = opened();
    assert_int_equal(store_exec(s, "CREATE TABLE t (x)", NULL), 0);
    assert_string_equal(store_path(s), file);
    assert_int_equal(mode_of(file), 0600);
    snprintf(wal, sizeof wal, "%s-wal", file);
    assert_int_equal(mode_of(wal), 0600);
    store_close(s);
    assert_int_equal(chmod(file, 0644), 0); /* somebody was careless */
    store_close(opened());
    assert_int_equal(mode_of(file), 0600);
    umask(before);
}

static void test_default_folder(void **state)
{
    char path[STORE_PATH_MAX], small[8];
    struct err e = ERR_INIT;
    (void)state;
    setenv("XDG_STATE_HOME", "/x/state", 1);
    assert_int_equal(store_default_dir(path, sizeof path, NULL), 0);
    assert_string_equal(path, "/x/state/pdd");
    assert_int_equal(store_default_dir(small, sizeof small, NULL), ERR_LIMIT);
    setenv("XDG_STATE_HOME", "relative", 1);
    setenv("HOME", "/home/x", 1);
    assert_int_equal(store_default_dir(path, sizeof path, NULL), 0);
    assert_string_equal(path, "/home/x/.local/state/pdd");
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    assert_int_equal(store_default_dir(path, sizeof path, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "--state"));
}

static void write_at(long at, const char *bytes)
{
    int fd = open(file, O_WRONLY);
    assert_true(pwrite(fd, bytes, strlen(bytes), at) == (ssize_t)strlen(bytes));
    close(fd);
}

static void test_what_is_not_ours_is_refused(void **state)
{
    (void)state;
    struct store *s = opened();
    assert_int_equal(store_exec(s, "PRAGMA user_version = 999", NULL), 0);
    store_close(s);
    refused(ERR_UNSUPPORTED, "later pdd");
    s = NULL;
    sqlite3 *other;
    assert_int_equal(unlink(file), 0);
    assert_int_equal(sqlite3_open(file, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "CREATE TABLE mail (x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
    refused(ERR_BAD_INPUT, "another program");
    assert_int_equal(unlink(file), 0);
    assert_int_equal(symlink("/etc/passwd", file), 0);
    refused(ERR_IO, "state.db");
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkfifo(file, 0600), 0);
    refused(ERR_IO, "not a file");
}

static void test_damage_is_said(void **state)
{
    (void)state;
    store_close(opened());
    write_at(0, "no database at all");
    refused(ERR_BAD_INPUT, "damaged");
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_true(st.st_size > 1000); /* it is still there for who wants to look */
    assert_int_equal(unlink(file), 0);
    store_close(opened());
    write_at(100, "\xff\xff\xff\xff\xff\xff\xff\xff"); /* the page of the schema */
    refused(ERR_BAD_INPUT, "damaged");
    assert_int_equal(truncate(file, 700), 0);
    refused(ERR_BAD_INPUT, "damaged");
    assert_int_equal(truncate(file, 0), 0); /* empty is new */
    store_close(opened());
}

/* Pairs of rows in transactions, until it is killed; each commit is told to the pipe. */
static void write_for_ever(int told)
{
    struct store *s;
    if (store_open(dir, &s, NULL)) _exit(1);
    if (store_exec(s, "CREATE TABLE IF NOT EXISTS pair (side INTEGER, text TEXT)", NULL)) _exit(2);
    for (;;) {
        if (store_begin(s, NULL) ||
            store_exec(s, "INSERT INTO pair VALUES (0, hex(randomblob(2000)))", NULL) ||
            store_exec(s, "INSERT INTO pair VALUES (1, hex(randomblob(2000)))", NULL) ||
            store_commit(s, NULL))
            _exit(3);
        ssize_t done = write(told, "x", 1);
        (void)done;
    }
}

static void test_killed_at_any_moment(void **state)
{
    enum { ROUNDS = 25 };
    struct rng r;
    int64_t told_in_all = 0;
    (void)state;
    rng_init(&r, 3, 1);
    for (int round = 0; round < ROUNDS; round++) {
        int ends[2];
        char bytes[4096];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) write_for_ever(ends[1]);
        close(ends[1]);
        usleep(1000 + rng_below(&r, 30000));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        for (ssize_t n; (n = read(ends[0], bytes, sizeof bytes)) > 0;)
            told_in_all += n;
        close(ends[0]);
        struct store *s = opened();
        struct err e = ERR_INIT;
        if (store_exec(s, "CREATE TABLE IF NOT EXISTS pair (side INTEGER, text TEXT)", &e))
            fail_msg("%s", e.text);
        int64_t pairs = number(s, "SELECT count(*) FROM pair WHERE side = 0");
        assert_int_equal(pairs, number(s, "SELECT count(*) FROM pair WHERE side = 1"));
        assert_true(pairs >= told_in_all);
        told_in_all = pairs;
        assert_int_equal(number(s, "SELECT count(*) FROM pragma_integrity_check WHERE "
                                   "integrity_check = 'ok'"),
                         1);
        store_close(s);
    }
    assert_true(told_in_all > 0);
}

static void test_many_open_a_new_file(void **state)
{
    enum { PROGRAMS = 8 };
    pid_t children[PROGRAMS];
    (void)state;
    for (int i = 0; i < PROGRAMS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            struct store *s;
            struct err e = ERR_INIT;
            int code = store_open(dir, &s, &e);
            if (code == 0)
                code = store_exec(s, "INSERT INTO length VALUES (abs(random()) % 1000000, 1, 1, 1)",
                                  &e);
            if (code) fprintf(stderr, "%s\n", e.text);
            _exit(code ? 1 : 0);
        }
    }
    for (int i = 0; i < PROGRAMS; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    struct store *s = opened();
    assert_true(number(s, "SELECT count(*) FROM length") >= PROGRAMS - 1);
    store_close(s);
}

static void test_rollback(void **state)
{
    struct store *s = opened();
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(store_begin(s, &e), 0);
    assert_int_equal(store_exec(s, "INSERT INTO length VALUES (1, 1, 1, 1)", &e), 0);
    assert_true(store_exec(s, "INSERT INTO nowhere VALUES (1)", &e) < 0);
    assert_non_null(strstr(e.text, "nowhere"));
    store_rollback(s);
    assert_int_equal(number(s, "SELECT count(*) FROM length"), 0);
    store_rollback(s); /* without a transaction: nothing */
    store_close(s);
    store_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_the_owner_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_default_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_ours_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_at_any_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_open_a_new_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollback, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
