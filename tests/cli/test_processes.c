/*
 * test_processes: cloud, link and device as separate processes, as a person runs them. The cloud is
 * killed, or the link cut, in the middle of an answer: what the person reads is what the device
 * alone would have written.
 *
 * Catches: whatever only shows between processes - a half-open socket, a wait for a dead peer, an
 * option that reaches nobody.
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

#include "support/program.h"

/* A prompt that takes the emulated device about a second. */
static const char prompt[] =
    "Long ago, in a house beside the harbour, there lived a keeper of clocks who never slept "
    "before "
    "midnight. He oiled the wheels, wound the springs and listened, and when one of them was late "
    "he asked it why. The clocks answered in their own way, which was to tick, and he wrote down "
    "what he believed that they had said. One winter a boy came in from the snow and asked whether "
    "there was a clock that ran backwards. There was one, said the keeper, but it had stopped on "
    "the day that it was made, and he had never found out whether that was before or after. The "
    "boy looked at it for a long time; then he asked what it would cost to have it mended.";

static void single_machine(struct buf *out)
{
    struct program p;
    struct buf err;
    program_start(&p, "chat", ARGS("--fake", "24", "--prompt", prompt, "--local-only"));
    assert_int_equal(program_finish(&p, out, &err), 0);
    buf_release(&err);
}

/* The cloud writes 60 tokens a second, so that it is still at it when something happens. */
static void start_cloud(struct program *cloud, char *ret_url, size_t size)
{
    program_start(cloud, "cloud",
                  ARGS("--fake", "24", "--listen", "127.0.0.1:0", "--profile", "m3-max",
                       "--log-level", "error"));
    program_line_after(cloud, "listening on ", ret_url, size);
}

static void start_device(struct program *device, const char *url)
{
    program_start(device, "chat",
                  ARGS("--fake", "24", "--prompt", prompt, "--cloud", url, "--profile",
                       "s24-ultra-gpu", "--cloud-tokens", "24", "--stats"));
}

static void expect_same(struct program *device, const struct buf *want, struct buf *err)
{
    struct buf out;
    int status = program_finish(device, &out, err);
    if (status) fail_msg("status %d: %s", status, err->data);
    assert_string_equal(out.data, want->data);
    buf_release(&out);
}

static void test_nothing_happens(void **state)
{
    (void)state;
    struct program cloud, device;
    struct buf want, err;
    char url[64];
    single_machine(&want);
    start_cloud(&cloud, url, sizeof url);
    start_device(&device, url);
    expect_same(&device, &want, &err);
    assert_non_null(strstr(err.data, "emulated: s24-ultra-gpu"));
    buf_release(&err);
    program_kill(&cloud, SIGTERM);
    buf_release(&want);
}

static void test_cloud_killed(void **state)
{
    (void)state;
    struct program cloud, device;
    struct buf want, err;
    char url[64], bytes[4];
    single_machine(&want);
    for (size_t after = 1; after <= sizeof bytes; after++) {
        start_cloud(&cloud, url, sizeof url);
        start_device(&device, url);
        struct buf rest, got;
        buf_init(&got, PROGRAM_OUTPUT_MAX);
        for (size_t i = 0; i < after; i++)
            assert_int_equal(read(device.out, bytes + i, 1), 1);
        program_kill(&cloud, SIGKILL);
        assert_int_equal(program_finish(&device, &rest, &err), 0);
        assert_int_equal(buf_append(&got, bytes, after), 0);
        assert_int_equal(buf_append(&got, rest.data, rest.len), 0);
        assert_string_equal(got.data, want.data);
        buf_release(&got);
        buf_release(&rest);
        buf_release(&err);
    }
    buf_release(&want);
}

static void test_no_cloud_there(void **state)
{
    (void)state;
    struct program cloud, device;
    struct buf want, err;
    char url[64];
    single_machine(&want);
    start_cloud(&cloud, url, sizeof url);
    program_kill(&cloud, SIGKILL);
    start_device(&device, url);
    expect_same(&device, &want, &err);
    assert_non_null(strstr(err.data, "trouble: "));
    buf_release(&err);
    buf_release(&want);
}

/* A link that cuts the stream after so many events, each time it is asked, in one of three ways. */
static void test_link_cuts(void **state)
{
    (void)state;
    static const char *const events[] = {"1", "2", "9", "16"};
    static const char *const hows[] = {"reset", "close", "reset", "stall"};
    struct program cloud, link, device;
    struct buf want, err;
    char url[64], link_url[64];
    single_machine(&want);
    start_cloud(&cloud, url, sizeof url);
    for (int i = 0; i < 4; i++) {
        program_start(&link, "link",
                      ARGS("--to", url + strlen("http://"), "--listen", "127.0.0.1:0", "--rtt",
                           "20", "--cut-events", events[i], "--cut-how", hows[i]));
        program_line_after(&link, "listening on ", link_url, sizeof link_url);
        start_device(&device, link_url);
        expect_same(&device, &want, &err);
        buf_release(&err);
        program_kill(&link, SIGKILL);
    }
    program_kill(&cloud, SIGKILL);
    buf_release(&want);
}

/* What can have no effect is refused by its name, each of them, before anything is opened. */
static void expect_refused(const char *const *args, int status, const char *said)
{
    struct program cloud;
    struct buf out, err;
    program_start(&cloud, "cloud", args);
    assert_int_equal(program_finish(&cloud, &out, &err), status);
    if (!strstr(err.data, said)) fail_msg("%s", err.data);
    buf_release(&out);
    buf_release(&err);
}

static void test_idle_option(void **state)
{
    (void)state;
    expect_refused(ARGS("--kv-mb", "64", "--upstream", "http://127.0.0.1:1", "--streams-max", "9"),
                   2, ": --kv-mb has no effect with --upstream");
    expect_refused(
        ARGS("--queue-max", "64", "--upstream", "http://127.0.0.1:1", "--queue-max", "9"), 2,
        ": --queue-max has no effect with --upstream");
    expect_refused(ARGS("--threads", "1", "--upstream", "http://127.0.0.1:1", "--queue-max", "9",
                        "--context", "99"),
                   2, ": --threads, --context and --queue-max have no effect with --upstream");
    expect_refused(ARGS("--fake", "1", "--upstream-model", "m", "--upstream-ca", "f"), 2,
                   ": --upstream-model and --upstream-ca have no effect without --upstream");
}

/* Catches: a model loaded first, before files that are quick to check; a name that makes no line.
 */
static void test_cloud_files(void **state)
{
    (void)state;
    expect_refused(ARGS("--model", "/no/such.gguf", "--key-file", "/no/such.keys"), 1,
                   "/no/such.keys");
    expect_refused(
        ARGS("--model", "/no/such.gguf", "--tls-cert", "/no/such.pem", "--tls-key", "/no/such.key"),
        1, "/no/such.pem");
    expect_refused(ARGS("--nonsense"), 2, "see pdd cloud --help");
    expect_refused(ARGS("key", "a b"), 2, "a blank in NAME");
}

/* SIGHUP while the model is still read, which a pipe in its place makes certain, is for later: what
 * ends the program is the pipe, which holds no model. */
static void test_early_hangup(void **state)
{
    (void)state;
    char path[] = "/tmp/pdd-hangup-XXXXXX";
    struct program cloud;
    struct buf out, err;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(unlink(path) | mkfifo(path, 0600), 0);
    program_start(&cloud, "cloud", ARGS("--model", path, "--listen", "127.0.0.1:0"));
    fd = open(path, O_WRONLY); /* returns when it is opened there */
    assert_true(fd >= 0);
    assert_int_equal(kill(cloud.pid, SIGHUP), 0);
    close(fd);
    assert_int_equal(program_finish(&cloud, &out, &err), 1);
    assert_non_null(strstr(err.data, path));
    buf_release(&out);
    buf_release(&err);
    unlink(path);
}

/* What cannot be written is no success: a key that nobody has seen, above all. */
static void test_full_disk(void **state)
{
    static const char *const commands[] = {"cloud key ann", "cloud --help", "--version", "--help",
                                           "model inspect " PDD_SOURCE_DIR
                                           "/models/pdd-read-small-q6_k.gguf"};
    const char *bin = getenv("PDD_BIN");
    (void)state;
    if (!bin || !bin[0]) skip();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char line[1024];
        snprintf(line, sizeof line, "\"%s\" %s >/dev/full 2>/dev/null", bin, commands[i]);
        int status = system(line);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) fail_msg("%s: %d", line, status);
        snprintf(line, sizeof line, "\"%s\" %s >/dev/null", bin, commands[i]);
        assert_int_equal(system(line), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk),    cmocka_unit_test(test_nothing_happens),
        cmocka_unit_test(test_cloud_killed), cmocka_unit_test(test_no_cloud_there),
        cmocka_unit_test(test_link_cuts),    cmocka_unit_test(test_idle_option),
        cmocka_unit_test(test_cloud_files),  cmocka_unit_test(test_early_hangup),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
