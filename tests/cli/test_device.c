/*
 * test_device: `pdd device` as a process.
 *
 * Catches: a socket that a local-only device opens besides its own; a folder or file of the state
 * that others may read; options that contradict each other taken; a signal that cuts an answer off;
 * a long conversation refused; a second device on one state folder;
 * the user's word in the terminal taken for another question.
 */
#include <dirent.h>
#include <poll.h>
#include <pty.h>
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

#include "support/net_raw.h"
#include "support/program.h"

static char state_dir[64];

static int make_state(void **state)
{
    (void)state;
    snprintf(state_dir, sizeof state_dir, "/tmp/pdd-device-XXXXXX");
    return mkdtemp(state_dir) ? 0 : -1;
}

static int remove_state(void **state)
{
    char command[128];
    struct buf out;
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", state_dir);
    (void)program_shell(command, &out);
    buf_release(&out);
    return 0;
}

static uint16_t start(struct program *p, const char *const *args)
{
    char url[64];
    program_start(p, "device", args);
    program_line_after(p, "device listening on ", url, sizeof url);
    return (uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10);
}

static const char chat[] =
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    "Content-Length: 77\r\n\r\n"
    "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Where is the lantern\"}]}";

/* The ports of the sockets that a process has, by /proc. Returns how many sockets there are. */
static unsigned sockets_of(pid_t pid, uint16_t port, unsigned *ret_others)
{
    char path[64], name[400], link[300], line[512];
    unsigned n = 0;
    unsigned long inodes[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        snprintf(name, sizeof name, "%s/%s", path, f->d_name);
        ssize_t len = readlink(name, link, sizeof link - 1);
        if (len <= 0) continue;
        link[len] = 0;
        if (sscanf(link, "socket:[%lu]", &inodes[n]) == 1 && n < 63) n++;
    }
    closedir(d);
    *ret_others = n;
    FILE *f = fopen("/proc/net/tcp", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        unsigned local_port;
        unsigned long inode;
        if (sscanf(line, " %*d: %*8s:%x %*8s:%*x %*x %*s %*s %*s %*d %*d %lu", &local_port,
                   &inode) != 2)
            continue;
        for (unsigned i = 0; i < n; i++)
            *ret_others -= inodes[i] == inode && local_port == port;
    }
    fclose(f);
    return n;
}

/* Before, during and after an answer all its TCP sockets are of its own port. */
static void test_local_only(void **state)
{
    struct program p;
    struct buf b, out, err;
    unsigned others;
    (void)state;
    uint16_t port = start(
        &p, ARGS("--fake", "200", "--local-only", "--listen", "127.0.0.1:0", "--state", state_dir));
    assert_int_equal(sockets_of(p.pid, port, &others), 1);
    assert_int_equal(others, 0);
    int fd = raw_connect(port);
    buf_init(&b, RAW_MAX);
    raw_puts(fd, chat);
    assert_true(raw_read_until(fd, &b, "\"index\":3,"));
    assert_true(sockets_of(p.pid, port, &others) <= 2);
    assert_int_equal(others, 0);
    assert_true(raw_read_until(fd, &b, "[DONE]"));
    close(fd);
    assert_non_null(strstr(b.data, "\"requests\":0"));
    kill(p.pid, SIGTERM);
    assert_int_equal(program_finish(&p, &out, &err), 0);
    assert_non_null(strstr(out.data, "nothing leaves this machine"));
    buf_release(&b);
    buf_release(&out);
    buf_release(&err);
}

static unsigned check_modes(const char *folder)
{
    char path[512];
    struct stat st;
    unsigned n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        if (strcmp(f->d_name, "..") == 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
        assert_int_equal(stat(path, &st), 0);
        if (st.st_mode & 077) fail_msg("%s has mode %o", path, st.st_mode & 0777);
        n++;
        if (S_ISDIR(st.st_mode) && f->d_name[0] != '.') n += check_modes(path);
    }
    closedir(d);
    return n;
}

/* A signal lets an answer end; what is kept is the user's alone. */
static void test_drain(void **state)
{
    struct program p;
    struct buf b, out, err;
    (void)state;
    uint16_t port = start(
        &p, ARGS("--fake", "300", "--local-only", "--listen", "127.0.0.1:0", "--state", state_dir));
    int fd = raw_connect(port);
    buf_init(&b, RAW_MAX);
    raw_puts(fd, chat);
    assert_true(raw_read_until(fd, &b, "\"index\":1,"));
    kill(p.pid, SIGTERM);
    assert_true(raw_read_until(fd, &b, "[DONE]"));
    assert_non_null(strstr(b.data, "\"finish_reason\":\"stop\""));
    close(fd);
    assert_int_equal(program_finish(&p, &out, &err), 0);
    assert_true(check_modes(state_dir) >= 3); /* database, kv, pages */
    buf_release(&b);
    buf_release(&out);
    buf_release(&err);
}

/* As long as docs/DEVICE.md says, however short the context of the model here. */
static void test_long_conversation(void **state)
{
    enum { BYTES = 4 << 20 };
    static const char begin[] = "{\"title\":\"t\",\"text\":\"";
    struct program p;
    struct buf b, out, err;
    (void)state;
    uint16_t port = start(
        &p, ARGS("--fake", "3", "--local-only", "--listen", "127.0.0.1:0", "--state", state_dir));
    int fd = raw_connect(port);
    buf_init(&b, RAW_MAX);
    buf_printf(&b,
               "PUT /v1/conversations/long HTTP/1.1\r\nHost: localhost\r\n"
               "Connection: close\r\nContent-Length: %d\r\n\r\n%s",
               BYTES, begin);
    for (size_t i = sizeof begin - 1; i < BYTES - 2; i++)
        buf_putc(&b, 'x');
    buf_puts(&b, "\"}");
    raw_send(fd, b.data, b.len);
    buf_clear(&b);
    (void)raw_read_until(fd, &b, NULL);
    assert_non_null(strstr(b.data, "HTTP/1.1 204"));
    close(fd);
    fd = raw_connect(port);
    raw_puts(fd, "GET /v1/conversations/long HTTP/1.1\r\nHost: localhost\r\n"
                 "Connection: close\r\n\r\n");
    buf_clear(&b);
    (void)raw_read_until(fd, &b, NULL);
    assert_non_null(strstr(b.data, "Content-Length: 4194304\r\n"));
    close(fd);
    kill(p.pid, SIGTERM);
    assert_int_equal(program_finish(&p, &out, &err), 0);
    buf_release(&b);
    buf_release(&out);
    buf_release(&err);
}

/* A second device does not go on with what the first one was asked, and it says why. */
static void test_two_devices(void **state)
{
    struct program p, q;
    struct buf b, out, err;
    static const char *const args[] = {"--fake",      "3",       "--local-only", "--listen",
                                       "127.0.0.1:0", "--state", state_dir,      NULL};
    (void)state;
    uint16_t port = start(&p, args);
    int fd = raw_connect(port);
    buf_init(&b, RAW_MAX);
    raw_puts(fd, chat);
    assert_true(raw_read_until(fd, &b, "[DONE]"));
    close(fd);
    fd = raw_connect(start(&q, args));
    raw_puts(fd, "GET /v1/answers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    buf_clear(&b);
    (void)raw_read_until(fd, &b, NULL);
    assert_non_null(strstr(b.data, "\"data\":[]"));
    close(fd);
    buf_release(&b);
    kill(p.pid, SIGTERM);
    kill(q.pid, SIGTERM);
    assert_int_equal(program_finish(&p, &out, &err), 0);
    buf_release(&out);
    buf_release(&err);
    assert_int_equal(program_finish(&q, &out, &err), 0);
    assert_non_null(strstr(err.data, "another pdd device uses this folder"));
    buf_release(&out);
    buf_release(&err);
}

static void wait_for_terminal(int terminal, struct buf *b, const char *text)
{
    char piece[256];
    while (!strstr(b->data, text)) {
        struct pollfd p = {terminal, POLLIN, 0};
        ssize_t n = poll(&p, 1, RAW_WAIT_MS) > 0 ? read(terminal, piece, sizeof piece) : 0;
        if (n <= 0) fail_msg("no \"%s\" in: %s", text, b->data);
        assert_int_equal(buf_append(b, piece, (size_t)n), 0);
    }
}

/* Its terminal is asked about one question at a time, and a word is on the one that was named. */
static void test_terminal(void **state)
{
    static const char *const ids[] = {"first", "second"};
    const char *bin = getenv("PDD_BIN");
    struct buf said, b, held;
    int terminal, fds[2];
    char body[128];
    (void)state;
    if (!bin || !bin[0]) skip();
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
    assert_true(pid >= 0);
    if (pid == 0) {
        execl(bin, "pdd", "device", "--fake", "3", "--cloud", "http://127.0.0.1:1", "--no-state",
              "--ask-before-sending", "--listen", "127.0.0.1:0", (char *)NULL);
        _exit(127);
    }
    buf_init(&said, RAW_MAX);
    wait_for_terminal(terminal, &said, "asked before anything is sent");
    uint16_t port = (uint16_t)strtoul(strstr(said.data, "127.0.0.1:") + 10, NULL, 10);
    for (int i = 0; i < 2; i++) {
        fds[i] = raw_connect(port);
        buf_init(&b, RAW_MAX);
        snprintf(body, sizeof body,
                 "{\"stream\":true,\"pdd\":{\"id\":\"%s\",\"progress\":true},"
                 "\"messages\":[{\"role\":\"user\",\"content\":\"?\"}]}",
                 ids[i]);
        buf_printf(&b,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                   "Content-Length: %zu\r\n\r\n%s",
                   strlen(body), body);
        raw_send(fds[i], b.data, b.len);
        buf_init(&held, RAW_MAX);
        assert_true(raw_read_until(fds[i], &held, "\"state\":\"held\""));
        buf_release(&held);
        buf_release(&b);
    }
    wait_for_terminal(terminal, &said, "the question of first");
    assert_null(strstr(said.data, "the question of second"));
    assert_int_equal(write(terminal, "n\n", 2), 2);
    wait_for_terminal(terminal, &said, "the question of second");
    buf_init(&b, RAW_MAX);
    assert_true(raw_read_until(fds[0], &b, "[DONE]"));
    assert_non_null(strstr(b.data, "\"mode\":\"local\""));
    buf_release(&b);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(fds[1]);
    close(terminal);
    buf_release(&said);
}

static const struct {
    const char *args[8], *says;
} wrong[] = {
    {{"--local-only", "--cloud", "http://127.0.0.1:1"}, "exclude each other"},
    {{"--no-model"}, "--no-model needs --cloud"},
    {{"--no-model", "--fake", "3", "--cloud", "http://127.0.0.1:1"}, "exclude each other"},
    {{"--fake", "3", "--ask-before-sending"}, "needs --cloud"},
    {{"--fake", "3", "--state", "x", "--no-state"}, "exclude each other"},
    {{"--fake", "3", "--allow-origin", "notes.example"}, "is no origin"},
    {{"--fake", "3", "--answers-max", "17"}, "answers-max"},
};

static void test_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct program p;
        struct buf out, err;
        program_start(&p, "device", wrong[i].args);
        int status = program_finish(&p, &out, &err);
        if (status != 2 || !strstr(err.data, wrong[i].says))
            fail_msg("%s: %d, %s", wrong[i].args[0], status, err.data);
        buf_release(&out);
        buf_release(&err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_local_only, make_state, remove_state),
        cmocka_unit_test_setup_teardown(test_drain, make_state, remove_state),
        cmocka_unit_test_setup_teardown(test_long_conversation, make_state, remove_state),
        cmocka_unit_test_setup_teardown(test_two_devices, make_state, remove_state),
        cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_options),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
