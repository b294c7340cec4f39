/*
 * test_model_pull: `pdd model pull`, `list`, `rm` and `--model NAME` as programs, against a server
 * of files.
 *
 * Catches: a name that some command does not take; a token of the environment that is not used, or
 * used elsewhere; Ctrl-C that loses what was loaded; progress that spoils the output of a script.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/os.h"
#include "support/file_server.h"
#include "support/program.h"
#include "support/tiny_model.h"

enum { FILE_MAX = 1 << 24, COMMAND_MAX = 2048 };

static char folder[] = "/tmp/pdd-test-pull-XXXXXX";

struct site {
    struct file_server server;
    struct buf file;
    size_t cut;
    atomic_int stalls; /* so many connections are held after `cut` bytes, until the client leaves */
};
static struct site site;

static const char listing[] =
    "{\"siblings\": [{\"rfilename\": \"hub-Q4_K_M.gguf\", \"size\": 1000000}, {\"rfilename\": "
    "\"hub-Q8_0.gguf\", \"size\": 2000000}]}";

static void respond(struct file_server *server, const struct file_server_ask *a)
{
    struct site *s = server->arg;
    char byte;
    if (strncmp(a->path, "/api/", 5) == 0) {
        file_server_status(server, 200, "", listing);
    } else if (s->stalls > 0) {
        s->stalls--;
        file_server_say(server, "HTTP/1.1 200 x\r\nETag: \"1\"\r\nContent-Length: %zu\r\n\r\n",
                        s->file.len);
        file_server_send(server, s->file.data, s->cut);
        while (read(server->client, &byte, 1) > 0) { /* until it leaves */
        }
    } else {
        file_server_file(server, a, s->file.data, s->file.len, "\"1\"", 0, "");
    }
}

static int begin(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    char path[128];
    (void)state;
    assert_non_null(mkdtemp(folder));
    buf_init(&site.file, FILE_MAX);
    tiny_model_bytes(&o, &site.file);
    file_server_start(&site.server, NULL, respond, &site);
    snprintf(path, sizeof path, "%s/token", folder);
    assert_int_equal(os_write_file(path, "file_secret\nmore\n", 17, NULL), 0);
    setenv("XDG_DATA_HOME", folder, 1); /* of what program_start starts */
    return 0;
}

static int end(void **state)
{
    char command[128];
    struct buf out;
    (void)state;
    file_server_stop(&site.server);
    buf_release(&site.file);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    int status = program_shell(command, &out);
    buf_release(&out);
    return status;
}

/* `pdd ARGUMENTS` by a shell, in the folder and with its own environment (and `more` of it); URL in
 * the arguments is the server's. */
static int run(const char *more, const char *arguments, struct buf *out)
{
    const char *bin = getenv("PDD_BIN");
    char command[COMMAND_MAX];
    if (!bin || !bin[0]) skip();
    snprintf(command, sizeof command,
             "cd %s && URL=%s && env -i HOME=%s XDG_DATA_HOME=%s HF_ENDPOINT=$URL %s '%s' %s 2>&1",
             folder, site.server.url, folder, folder, more, bin, arguments);
    return program_shell(command, out);
}

static void expect_with(const char *more, const char *arguments, int status, const char *text)
{
    struct buf out;
    int got = run(more, arguments, &out);
    program_expect(arguments, got, status, &out, text);
}

static void expect(const char *arguments, int status, const char *text)
{
    expect_with("", arguments, status, text);
}

static void expect_silent(const char *arguments)
{
    struct buf out;
    assert_int_equal(run("", arguments, &out), 0);
    assert_string_equal(out.data, "");
    buf_release(&out);
}

static void test_usage(void **state)
{
    (void)state;
    expect("model --help", 0, "pdd model pull URL | hf:OWNER/NAME");
    expect("model pull --help", 0, "--token-file");
    expect("model pull", 2, "what is pulled is missing");
    expect("model pull a b", 2, "one model at a time");
    expect("model pull m.gguf", 1, "hf:OWNER/NAME");
    expect("model pull $URL/m.gguf --retries -1", 2, "from 0 to 1000");
    expect("model rm", 2, "NAME");
    expect("model list", 0, "no models in");
}

static void test_pull_and_use(void **state)
{
    struct buf out;
    (void)state;
    expect("model pull $URL/tiny.gguf", 0, "use it by --model tiny");
    expect("model pull $URL/tiny.gguf", 0, "is here already");
    expect_silent("model pull $URL/tiny.gguf --as quiet --quiet");
    expect("model list", 0, "Q8_0");
    assert_int_equal(run("", "model list --json", &out), 0);
    json_t *all = json_loads(out.data, JSON_REJECT_DUPLICATES, NULL);
    buf_release(&out);
    assert_int_equal(json_array_size(all), 2);
    const json_t *row = json_array_get(all, 1);
    assert_string_equal(json_string_value(json_object_get(row, "name")), "tiny");
    assert_string_equal(json_string_value(json_object_get(row, "type")), "Q8_0");
    assert_int_equal(json_integer_value(json_object_get(row, "bytes")), site.file.len);
    assert_int_equal(json_integer_value(json_object_get(row, "context")), 2048);
    assert_non_null(strstr(json_string_value(json_object_get(row, "from")), "/tiny.gguf"));
    assert_int_equal(strlen(json_string_value(json_object_get(row, "sha256"))), 64);
    json_decref(all);
    /* Everywhere a model is taken. */
    expect("model inspect tiny --no-hash", 0, "llama");
    expect("model tokenize tiny --text a --ids", 0, "1 ");
    expect("model detokenize tiny 1", 0, "<s>");
    expect("chat --model tiny --local-only --no-state --raw --prompt a --max-tokens 2", 0, "");
    expect("bench engine --model tiny --prompt 16 --generate 2 --repeat 1 --quiet", 0, "medians");
    expect("bench perplexity --model tiny --file token", 0, "tiny, weights");
    expect("model inspect tinny", 1, "near are tiny");
    expect("chat --model tinny --local-only --no-state --prompt a", 1, "near are tiny");
    expect("device --model tinny --local-only --no-state --listen 127.0.0.1:0", 1, "near are tiny");
    expect("cloud --model tinny --listen 127.0.0.1:0", 1, "near are tiny");
    expect("cloud --upstream http://127.0.0.1:9 --upstream-vocab tinny --listen 127.0.0.1:0", 1,
           "near are tiny");
    expect("demo --model tinny", 1, "near are tiny");
    expect("bench engine --model other.gguf", 1, "other.gguf: there is no such file");
    /* A path that exists wins. */
    expect("model inspect token", 1, "token: ");
    expect("model rm tiny quiet", 0, "tiny: 0.");
    expect("model list", 0, "no models in");
    expect("model rm token", 1, "no model by name");
    expect("model rm ./token", 1, "is a path");
}

/* Catches: a cloud or a device that starts with another file than the name's. */
static void test_servers(void **state)
{
    struct program p;
    char url[128];
    (void)state;
    expect("model pull $URL/tiny.gguf", 0, "tiny");
    program_start(&p, "cloud", ARGS("--model", "tiny", "--listen", "127.0.0.1:0", "--kv-mb", "16"));
    program_line_after(&p, "listening on ", url, sizeof url);
    program_kill(&p, SIGKILL);
    program_start(&p, "device",
                  ARGS("--model", "tiny", "--listen", "127.0.0.1:0", "--local-only", "--no-state",
                       "--kv-mb", "16"));
    program_line_after(&p, "http://", url, sizeof url);
    program_kill(&p, SIGKILL);
    expect("model rm tiny", 0, "removed");
}

static void expect_token(const char *more, const char *arguments, const char *token)
{
    file_server_forget(&site.server);
    expect_with(more, arguments, 0, "");
    uint32_t n = file_server_count(&site.server);
    assert_true(n > 0);
    for (uint32_t i = 0; i < n; i++)
        assert_string_equal(file_server_ask(&site.server, i).token, token);
}

static void test_hub(void **state)
{
    char command[256];
    struct buf out;
    (void)state;
    expect("model pull hf:a/b --files", 0, "2.00 MB  Q8_0      hub-Q8_0.gguf");
    expect("model pull hf:a/b", 0, "hub-Q4_K_M.gguf, of 2 GGUF files");
    expect("model inspect hub-Q4_K_M --no-hash", 0, "llama");
    expect("model inspect hf:a/b --no-hash", 0, "llama");
    expect("model list", 0, "hf:a/b/hub-Q4_K_M.gguf");
    expect_token("", "model pull hf:a/b", "");
    expect_token("HF_TOKEN=hf_one", "model pull hf:a/b", "Bearer hf_one");
    expect_token("HF_TOKEN_PATH=token", "model pull hf:a/b", "Bearer file_secret");
    expect_token("HF_TOKEN=hf_one", "model pull hf:a/b --token-file token", "Bearer file_secret");
    expect_token("HF_TOKEN=hf_one HF_ENDPOINT=https://hub.example", "model pull $URL/x.gguf", "");
    expect_token("HF_HOME=/no/such", "model pull hf:a/b", "");
    snprintf(command, sizeof command,
             "mkdir -p %s/.cache/huggingface && cp %s/token %s/.cache/huggingface/", folder, folder,
             folder);
    assert_int_equal(program_shell(command, &out), 0);
    buf_release(&out);
    expect_token("", "model pull hf:a/b", "Bearer file_secret");
    expect("model pull hf:a/b --token-file /no/such", 1, "/no/such");
    expect("model rm hf:a/b x", 0, "removed");
}

/* Without --model, and without models/ beside the program: the only one that was pulled. */
static void test_only_model(void **state)
{
    char command[COMMAND_MAX];
    struct buf out;
    const char *bin = getenv("PDD_BIN");
    (void)state;
    expect("model pull $URL/only.gguf", 0, "only");
    snprintf(command, sizeof command,
             "cd %s && mkdir -p deep/er/bin && cp '%s' deep/er/bin/ && env -i XDG_DATA_HOME=%s "
             "deep/er/bin/pdd bench engine --prompt 8 --generate 1 --repeat 1 --json --quiet 2>&1",
             folder, bin, folder);
    int status = program_shell(command, &out);
    if (status || !strstr(out.data, "/pdd/models/only.gguf")) fail_msg("%d: %s", status, out.data);
    buf_release(&out);
    expect("model pull $URL/second.gguf", 0, "second");
    status = program_shell(command, &out);
    if (!status || !strstr(out.data, "several models have been pulled: only, second"))
        fail_msg("%d: %s", status, out.data);
    buf_release(&out);
    expect("model rm only second", 0, "removed");
}

/* A pull that stalls in the middle, once the server has its request. */
static void start_stalled(struct program *p, const char *file)
{
    char url[160];
    site.cut = 20000;
    site.stalls = 1;
    file_server_forget(&site.server);
    snprintf(url, sizeof url, "%s/%s", site.server.url, file);
    program_start(p, "model", ARGS("pull", url));
    for (int i = 0; i < 1000 && file_server_count(&site.server) == 0; i++)
        usleep(10000);
}

/* `err`: what it said, for the caller to release. */
static void stop_stalled(struct program *p, int number, struct buf *err)
{
    struct buf out;
    kill(p->pid, number);
    assert_int_equal(program_finish(p, &out, err), 1);
    assert_string_equal(out.data, "");
    if (!strstr(err->data, "stopped")) fail_msg("%s", err->data);
    buf_release(&out);
}

/* Ctrl-C: what came is kept, and the same command goes on. */
static void test_interrupted(void **state)
{
    struct program p;
    struct buf err;
    (void)state;
    start_stalled(&p, "late.gguf");
    usleep(100000); /* the bytes are on their way; none at all are as good a case */
    expect("model pull $URL/late.gguf", 1, "by another process");
    expect("model rm late", 1, "");
    stop_stalled(&p, SIGINT, &err);
    if (strstr(err.data, "are kept"))
        expect("model list", 0, "not complete: the same pdd model pull goes on");
    buf_release(&err);
    expect("model pull $URL/late.gguf", 0, "use it by --model late");
    expect("model rm late", 0, "removed");
}

/* Catches: a download in the background that ends with the terminal, in spite of nohup. */
static void test_ignored_signal(void **state)
{
    struct program p;
    struct buf out, err;
    char command[160];
    (void)state;
    signal(SIGHUP, SIG_IGN);
    start_stalled(&p, "nohup.gguf");
    signal(SIGHUP, SIG_DFL);
    snprintf(command, sizeof command, "grep -q 'SigIgn:.*[13579bdf]$' /proc/%d/status", (int)p.pid);
    int status = program_shell(command, &out); /* the first signal is SIGHUP */
    buf_release(&out);
    assert_int_equal(status, 0);
    stop_stalled(&p, SIGTERM, &err);
    buf_release(&err);
    expect("model pull $URL/nohup.gguf", 0, "use it by --model nohup");
    expect("model rm nohup", 0, "removed");
}

/* `pdd model pull URL/WHAT` at a terminal of so many columns, which `script` gives it. */
static void pull_at_terminal(int columns, const char *what, struct buf *out)
{
    const char *bin = getenv("PDD_BIN");
    char command[COMMAND_MAX];
    if (!bin || !bin[0] || access("/usr/bin/script", X_OK)) skip();
    snprintf(command, sizeof command,
             "cd %s && script -qec \"stty cols %d; env -i XDG_DATA_HOME=%s '%s' model pull %s/%s\" "
             "/dev/null </dev/null",
             folder, columns, folder, bin, site.server.url, what);
    assert_int_equal(program_shell(command, out), 0);
}

/* On a terminal one line, which is written again. */
static void test_terminal(void **state)
{
    struct buf out;
    (void)state;
    pull_at_terminal(60, "shown.gguf", &out);
    const char *line = strstr(out.data, "\rshown.gguf: 100 %, ");
    if (!line) fail_msg("%s", out.data);
    buf_release(&out);
    pull_at_terminal(60, "a-name-that-is-much-longer-than-this-narrow-terminal-is-wide.gguf", &out);
    line = strstr(out.data, "\ra-name-that-");
    if (!line || !strstr(line, "..: 100 %") || strcspn(line + 1, "\033") >= 60)
        fail_msg("%s", out.data);
    buf_release(&out);
    expect("model rm a-name-that-is-much-longer-than-this-narrow-terminal-is-wide", 0, "removed");
    expect("model rm shown", 0, "removed");
}

/* Catches: a line that wraps on a narrow terminal, so that each rewriting leaves a copy; escape
 * sequences on a terminal that knows none. */
static void test_narrow_terminal(void **state)
{
    static const int widths[] = {16, 20, 30, 40, 50, 60, 80, 200};
    char command[COMMAND_MAX], what[128];
    struct buf out;
    (void)state;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        snprintf(what, sizeof what, "a-name-of-more-than-thirty-letters.gguf --as narrow%d",
                 widths[i]);
        pull_at_terminal(widths[i], what, &out);
        uint32_t lines = 0;
        for (const char *at = out.data; (at = strchr(at, '\r')) != NULL; at++) {
            size_t n = strcspn(at + 1, "\r\n\033");
            if (at[n + 1] != '\033') continue;
            lines++;
            if (n >= (size_t)widths[i])
                fail_msg("%d columns, %zu bytes: %s", widths[i], n, out.data);
        }
        assert_true(lines > 0);
        assert_non_null(strstr(out.data, "100 %"));
        buf_release(&out);
    }
    const char *bin = getenv("PDD_BIN");
    snprintf(command, sizeof command,
             "cd %s && script -qec \"env -i TERM=dumb XDG_DATA_HOME=%s '%s' model pull "
             "%s/dumb.gguf\" /dev/null </dev/null; %s model rm dumb narrow16 narrow20 narrow30 "
             "narrow40 narrow50 narrow60 narrow80 narrow200",
             folder, folder, bin, site.server.url, bin);
    assert_int_equal(program_shell(command, &out), 0);
    assert_null(strchr(out.data, '\033'));
    assert_non_null(strstr(out.data, "use it by"));
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),           cmocka_unit_test(test_pull_and_use),
        cmocka_unit_test(test_servers),         cmocka_unit_test(test_hub),
        cmocka_unit_test(test_only_model),      cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_ignored_signal),  cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_narrow_terminal),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
