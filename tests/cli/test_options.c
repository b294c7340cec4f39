/*
 * test_options: what the table of options promises for every command: --help names each option and
 * fits a terminal, each named option exists, and a value that is out of range or of the wrong kind
 * is refused by a sentence that names command, option, value and what is needed.
 *
 * Catches: a row whose kind, range or commands are wrong; a help that tells of what is not there.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/program.h"

enum { COLUMNS = 80, NAME_BYTES = 64 };

/* Command, and the word after it that chooses an action, or NULL. */
static const struct {
    const char *command, *action;
    int options; /* at least this many */
} pages[] = {
    {"bench", "engine", 16}, {"bench", "perplexity", 6}, {"bench", "refine", 10},
    {"chat", NULL, 30},      {"cloud", NULL, 35},        {"cloud", "key", 5},
    {"demo", NULL, 7},       {"link", NULL, 10},         {"model", "random", 5},
    {"model", "inspect", 7}, {"sim", NULL, 20},
};

static int run(const char *command, const char *action, const char *option, const char *value,
               struct buf *out, struct buf *err)
{
    struct program p;
    const char *args[4] = {NULL};
    int n = 0;
    if (action) args[n++] = action;
    args[n++] = option;
    args[n] = value;
    program_start(&p, command, args);
    return program_finish(&p, out, err);
}

/* An option that wants a value is refused without one, by a sentence that names it. */
static void check_needs_value(const char *command, const char *action, const char *option)
{
    struct buf out, err;
    assert_int_equal(run(command, action, option, NULL, &out, &err), 2);
    if (!strstr(err.data, option) || !strstr(err.data, "requires an argument"))
        fail_msg("%s: %s", option, err.data);
    buf_release(&out);
    buf_release(&err);
}

static void check_page(size_t page)
{
    const char *command = pages[page].command, *action = pages[page].action;
    struct buf out, err;
    int options = 0;
    assert_int_equal(run(command, action, "--help", NULL, &out, &err), 0);
    assert_int_equal(err.len, 0);
    for (char *line = strtok(out.data, "\n"); line; line = strtok(NULL, "\n")) {
        char option[NAME_BYTES];
        if (strlen(line) > COLUMNS) fail_msg("too long: %s", line);
        if (line[0] != ' ' || !strstr(line, "--") || strncmp(line + 2, "-", 1) != 0) continue;
        options++;
        const char *name = strstr(line, "--");
        size_t n = strcspn(name, " ");
        assert_true(n < sizeof option);
        memcpy(option, name, n);
        option[n] = 0;
        /* A value's name is in capitals, one blank after the option. */
        if (name[n] == ' ' && name[n + 1] >= 'A' && name[n + 1] <= 'Z')
            check_needs_value(command, action, option);
    }
    if (options < pages[page].options) fail_msg("%s: %d options", command, options);
    buf_release(&out);
    buf_release(&err);
}

static void test_help(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        check_page(i);
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        const char *command, *action, *option, *value, *said;
    } wrong[] = {
        {"chat", NULL, "--threads", "0", "a whole number from 1 to 256 is needed"},
        {"chat", NULL, "--threads", "2x", "a whole number from 1 to 256 is needed"},
        {"chat", NULL, "--seed", "-1", "a whole number from 0 to 4294967295 is needed"},
        {"chat", NULL, "--seed", "4294967296", "a whole number from 0 to 4294967295 is needed"},
        {"chat", NULL, "--cloud-tokens", "1048577", "a whole number from 0 to 1048576 is needed"},
        {"chat", NULL, "--top-p", "0", "a number from 1e-06 to 1 is needed"},
        {"chat", NULL, "--temperature", "nan", "a number from 0 to 100 is needed"},
        {"chat", NULL, "--color", "Auto", "auto, always or never is needed"},
        {"cloud", NULL, "--listen", "127.0.0.1", "HOST:PORT is needed"},
        {"cloud", NULL, "--listen", "127.0.0.1:65536", "HOST:PORT is needed"},
        {"cloud", NULL, "--listen", "[::1:8080", "HOST:PORT is needed"},
        {"cloud", NULL, "--listen", "::1]:8080", "HOST:PORT is needed"},
        {"cloud", NULL, "--listen", "[::1]", "HOST:PORT is needed"},
        {"cloud", NULL, "--allow-origin", "notes.example", "is no origin"},
        {"cloud", NULL, "--model-alias", "a b", "is no name of a model"},
        {"device", NULL, "--model-alias", "", "is no name of a model"},
        {"cloud", NULL, "--metrics-listen", "x:y", "HOST:PORT is needed"},
        {"cloud", NULL, "--prefix-cache-scope", "none", "all or key is needed"},
        {"cloud", NULL, "--log-level", "loud", "error, warn, info or debug is needed"},
        {"cloud", NULL, "--log-format", "xml", "text or json is needed"},
        {"cloud", NULL, "--prefix-cache", "101", "a whole number from 0 to 100 is needed"},
        {"cloud", NULL, "--trusted-proxy", "nonsense", "nonsense"},
        {"demo", NULL, "--rtt", "60001", "a whole number from 0 to 60000 is needed"},
        {"link", NULL, "--rtt", "-1", "a number from 0 to 600000 is needed"},
        {"link", NULL, "--cut-how", "bang", "reset, close or stall is needed"},
        {"bench", "engine", "--batch", "1,300", "up to 16 whole numbers from 1 to 256"},
        {"model", "random", "--threads", "-1", "a whole number from 0 to"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buf out, err;
        assert_int_equal(
            run(wrong[i].command, wrong[i].action, wrong[i].option, wrong[i].value, &out, &err), 2);
        const char *const parts[] = {wrong[i].command, wrong[i].option, wrong[i].value,
                                     wrong[i].said};
        for (size_t j = 0; j < sizeof parts / sizeof *parts; j++)
            if (!strstr(err.data, parts[j])) fail_msg("no \"%s\" in: %s", parts[j], err.data);
        assert_ptr_equal(strchr(err.data, '\n'), err.data + err.len - 1); /* one sentence */
        buf_release(&out);
        buf_release(&err);
    }
}

/* An operand that nothing takes, and an option that is needed, are named. */
static void test_line(void **state)
{
    (void)state;
    static const struct {
        const char *command, *action, *said;
    } wrong[] = {
        {"chat", "stray", "\"stray\" is no option"},
        {"cloud", "stray", "\"stray\" is no option"},
        {"demo", "stray", "\"stray\" is no option"},
        {"link", "--rtt=5", "--to HOST:PORT is missing"},
        {"model", "random", "--shape NAME is missing"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buf out, err;
        assert_int_equal(run(wrong[i].command, NULL, wrong[i].action, NULL, &out, &err), 2);
        if (!strstr(err.data, wrong[i].said)) fail_msg("%s", err.data);
        buf_release(&out);
        buf_release(&err);
    }
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) close(fd);
    return has;
}

/* Addresses as people write them, and the URL that is printed. */
static void test_addresses(void **state)
{
    static const struct {
        const char *command, *listen, *url;
    } cases[] = {
        {"cloud", "[::1]:0", "http://[::1]:"},
        {"cloud", "::1:0", "http://[::1]:"},
        {"cloud", "[::]:0", "http://[::]:"},
        {"cloud", "localhost:0", "http://localhost:"},
        {"cloud", "127.0.0.1:0", "http://127.0.0.1:"},
        {"cloud", ":0", "http://127.0.0.1:"},
        {"link", "[::1]:0", "http://[::1]:"},
        {"link", "localhost:0", "http://localhost:"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct program p;
        char url[200];
        bool cloud = strcmp(cases[i].command, "cloud") == 0;
        if (strstr(cases[i].listen, "::") && !has_ipv6()) {
            print_message("skipped: this machine has no IPv6\n");
            continue;
        }
        program_start(&p, cases[i].command,
                      cloud ? ARGS("--fake", "3", "--listen", cases[i].listen)
                            : ARGS("--to", "[::1]:9", "--listen", cases[i].listen));
        program_line_after(&p, "listening on ", url, sizeof url);
        program_kill(&p, SIGKILL);
        if (strncmp(url, cases[i].url, strlen(cases[i].url)) != 0)
            fail_msg("%s: %s", cases[i].listen, url);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
