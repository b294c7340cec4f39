/*
 * test_chat: `pdd chat` as a program: exit statuses, what goes to which stream, Ctrl-C, and that
 * local-only never connects. It runs the program named by PDD_BIN (CTest sets it).
 *
 * Catches: an error told on the wrong stream or with status 0; a report that is no JSON; an answer
 * or a conversation that Ctrl-C does not stop, or stops too much; an answer computed for hours, or
 * a word about it, when nobody reads it.
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
#include <jansson.h>

#include "base/buf.h"
#include "base/os.h"
#include "cli/chat/chat_input.h"
#include "support/program.h"
#include "support/script_cloud.h"
#include "support/tiny_model.h"

static void expect(const char *const *args, int status, const char *in_out, const char *in_err)
{
    struct program p;
    struct buf out, err;
    program_start(&p, "chat", args);
    int got = program_finish(&p, &out, &err);
    if (got != status) fail_msg("status %d, not %d: %s", got, status, err.data);
    if (in_out && !strstr(out.data, in_out)) fail_msg("no \"%s\" in: %s", in_out, out.data);
    if (in_err && !strstr(err.data, in_err)) fail_msg("no \"%s\" in: %s", in_err, err.data);
    if (status != 0) assert_int_equal(out.len, 0);
    buf_release(&out);
    buf_release(&err);
}

#if defined(__aarch64__)
#define FOREIGN_LEVEL "avx2"
#else
#define FOREIGN_LEVEL "neon"
#endif

static void test_statuses(void **state)
{
    (void)state;
    expect(ARGS("--help"), 0, "--local-only", NULL);
    expect(ARGS("--nonsense"), 2, NULL,
           "pdd chat: unrecognized option '--nonsense'\nsee pdd chat --help");
    expect(ARGS("--isa", "fast"), 2, NULL, "no kernel level fast");
    expect(ARGS("--isa", FOREIGN_LEVEL), 2, NULL, "this CPU cannot run");
    expect(ARGS("word"), 2, NULL, "word");
    expect(ARGS("--fake", "5", "--pace", "fast"), 2, NULL, "smooth, off or reading");
    expect(ARGS("--fake", "5", "--temperature", "hot"), 2, NULL, "--temperature");
    expect(ARGS("--local-only", "--cloud-only"), 2, NULL, "exclude each other");
    expect(ARGS("--cloud-only", "--prompt", "x"), 2, NULL, "--cloud URL");
    expect(ARGS("--prompt", "x", "--prompt-file", "y"), 2, NULL, "exclude");
    expect(ARGS("--fake", "5", "--prompt-file", "/no/such"), 1, NULL, "/no/such");
    expect(ARGS("--fake", "5", "--prompt", ""), 1, NULL, "empty");
    expect(ARGS("--fake", "5", "--profile", "abacus", "--prompt", "x"), 1, NULL,
           "\"abacus\"; there are s24-ultra-gpu, ");
    expect(ARGS("--model", "/no/such.gguf", "--prompt", "x"), 1, NULL, "/no/such.gguf");
    expect(ARGS("--fake", "5", "--cloud", "gopher://x", "--prompt", "x"), 1, NULL, "gopher");
    expect(ARGS("--fake", "5", "--context", "16", "--raw", "--prompt", "0123456789abcdefg"), 1,
           NULL, "17 tokens");
    expect(ARGS("--fake", "5", "--prompt", "x", "--stats"), 0, NULL, "5 tokens");
    expect(ARGS("--fake", "5", "--prompt", "x", "--stats"), 0, NULL, "energy: ");
}

/* A context that the model was not trained for is warned of, with both numbers; one that it was,
 * not. */
static void test_long_context(void **state)
{
    (void)state;
    static const char *const contexts[] = {"2048", "2049"};
    struct tiny_options tiny = TINY_DEFAULT;
    char path[TINY_PATH_MAX];
    tiny_model_file(&tiny, path);
    for (int i = 0; i < 2; i++) {
        struct program p;
        struct buf out, err;
        program_start(&p, "chat",
                      ARGS("--model", path, "--context", contexts[i], "--local-only", "--raw",
                           "--prompt", "x", "--max-tokens", "1"));
        assert_int_equal(program_finish(&p, &out, &err), 0);
        const char *said = strstr(err.data, "context 2049 is longer than the 2048 positions");
        if ((said != NULL) != (i == 1)) fail_msg("%s", err.data);
        buf_release(&out);
        buf_release(&err);
    }
    unlink(path);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A key that others can read on its way is not sent without a word. 0.0.0.0 is no name of this
 * machine, but leads to it. */
static void test_key_in_the_clear(void **state)
{
    static const struct {
        const char *url, *key;
        bool said;
    } cases[] = {{"http://0.0.0.0:1", "--key-file", true},
                 {"http://127.0.0.1:1", "--key-file", false},
                 {"https://0.0.0.0:1", "--key-file", false},
                 {"http://0.0.0.0:1", NULL, false}};
    const char *bin = getenv("PDD_BIN");
    (void)state;
    if (!bin || !bin[0]) skip();
    char path[] = "/tmp/pdd-key-XXXXXX", command[512];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_file(path, "pdd-0123\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(command, sizeof command,
                 "%s chat --no-model --cloud %s --prompt x %s %s 2>&1 </dev/null | "
                 "grep -q 'unencrypted: give an https URL'",
                 bin, cases[i].url, cases[i].key ? cases[i].key : "", cases[i].key ? path : "");
        if ((system(command) == 0) != cases[i].said) fail_msg("%s", command);
    }
    unlink(path);
}

/* Of two files in models/ next to the program the larger one is taken, whichever came last. */
static void test_default_model(void **state)
{
    (void)state;
    const char *bin = getenv("PDD_BIN");
    if (!bin || !bin[0]) skip();
    char folder[] = "/tmp/pdd-program-XXXXXX", pdd[64], models[64], large[64], small[64];
    char command[512];
    assert_non_null(mkdtemp(folder));
    snprintf(pdd, sizeof pdd, "%s/pdd", folder);
    snprintf(models, sizeof models, "%s/models", folder);
    snprintf(large, sizeof large, "%s/models/a.gguf", folder);
    snprintf(small, sizeof small, "%s/models/b.gguf", folder);
    struct buf program;
    buf_init(&program, 1 << 30);
    assert_int_equal(os_read_file(bin, &program, NULL), 0);
    assert_int_equal(os_write_file(pdd, program.data, program.len, NULL), 0);
    buf_release(&program);
    assert_int_equal(chmod(pdd, 0755) | mkdir(models, 0755), 0);
    write_file(large, "The longer of two files that are no models.");
    write_file(small, "The shorter one.");
    snprintf(command, sizeof command, "%s chat --prompt x 2>&1 | grep -q %s", pdd, large);
    assert_int_equal(system(command), 0);
    unlink(large);
    unlink(small);
    unlink(pdd);
    assert_int_equal(rmdir(models) | rmdir(folder), 0);
}

static void test_one_question(void **state)
{
    (void)state;
    struct program p;
    struct buf out, err, file;
    program_start(&p, "chat", ARGS("--fake", "12", "--prompt-file", "-"));
    assert_int_equal(write(p.in, "from the pipe", 13), 13);
    assert_int_equal(program_finish(&p, &out, &err), 0);
    program_start(&p, "chat",
                  ARGS("--fake", "12", "--prompt", "from the pipe", "--color", "never"));
    assert_int_equal(program_finish(&p, &file, &err), 0);
    assert_string_equal(out.data, file.data);
    assert_int_equal(err.len, 0);
    assert_true(out.len > 1 && out.data[out.len - 1] == '\n');
    buf_release(&out);
    buf_release(&file);
    program_start(&p, "chat", ARGS("--fake", "12", "--prompt", "x", "--color", "always"));
    assert_int_equal(program_finish(&p, &out, &err), 0);
    assert_non_null(strstr(out.data, "\033[32m"));
    buf_release(&out);
}

static void test_conversation_in_a_pipe(void **state)
{
    (void)state;
    struct program p;
    struct buf out, err;
    program_start(&p, "chat", ARGS("--fake", "9", "--local-only"));
    assert_int_equal(write(p.in, "one\n\ntwo\nthree", 14), 14);
    assert_int_equal(program_finish(&p, &out, &err), 0);
    uint32_t lines = 0;
    for (size_t i = 0; i < out.len; i++)
        lines += out.data[i] == '\n';
    assert_int_equal(lines, 3);
    buf_release(&out);
    buf_release(&err);
}

/* Of the last answer in the file. */
static int64_t number_in(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int64_t n = -1;
    for (json_t *j; (j = json_loadf(f, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, NULL));) {
        n = json_integer_value(json_object_get(j, key));
        json_decref(j);
    }
    fclose(f);
    return n;
}

/* The first question stands after the document and an empty line; the second one follows alone. */
static void test_document(void **state)
{
    (void)state;
    char document[] = "/tmp/pdd-document-XXXXXX", stats[] = "/tmp/pdd-stats-XXXXXX";
    struct program p;
    struct buf apart, whole, err;
    close(mkstemp(document));
    close(mkstemp(stats));
    write_file(document, "A cat sat on the mat.\n\n");
    program_start(
        &p, "chat",
        ARGS("--fake", "9", "--document", document, "--prompt", "Where?", "--stats-json", stats));
    assert_int_equal(program_finish(&p, &apart, &err), 0);
    buf_release(&err);
    int64_t first = number_in(stats, "prompt_tokens");
    program_start(
        &p, "chat",
        ARGS("--fake", "9", "--prompt", "A cat sat on the mat.\n\nWhere?", "--stats-json", stats));
    assert_int_equal(program_finish(&p, &whole, &err), 0);
    buf_release(&err);
    assert_string_equal(apart.data, whole.data);
    assert_int_equal(first, number_in(stats, "prompt_tokens"));
    buf_release(&apart);
    buf_release(&whole);

    program_start(&p, "chat", ARGS("--fake", "9", "--document", document, "--stats-json", stats));
    assert_int_equal(write(p.in, "Where?\nWhere?\n", 14), 14);
    assert_int_equal(program_finish(&p, &whole, &err), 0);
    int64_t second = number_in(stats, "prompt_tokens");
    assert_true(second > first && second < 2 * first);
    buf_release(&whole);
    buf_release(&err);

    write_file(document, "\n\n");
    expect(ARGS("--fake", "9", "--document", document, "--prompt", "x"), 1, NULL, "is empty");
    expect(ARGS("--fake", "9", "--document", document, "--raw"), 2, NULL, "no effect with --raw");
    expect(ARGS("--fake", "9", "--document", "/no/such", "--prompt", "x"), 1, NULL, "/no/such");
    unlink(document);
    unlink(stats);
}

static void test_stats_json(void **state)
{
    (void)state;
    char path[] = "/tmp/pdd-chat-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    expect(ARGS("--fake", "12", "--prompt", "x", "--stats-json", path), 0, NULL, NULL);
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    json_t *tokens = json_object_get(j, "tokens");
    assert_int_equal(json_array_size(tokens), 12);
    assert_int_equal(json_integer_value(json_object_get(j, "device_tokens")), 12);
    assert_string_equal(json_string_value(json_object_get(j, "reason")), "stop");
    json_t *last = json_array_get(tokens, 11);
    assert_string_equal(json_string_value(json_object_get(last, "source")), "device");
    assert_true(json_real_value(json_object_get(last, "shown_ms")) > 0.0);
    assert_true(json_is_string(json_object_get(json_object_get(j, "energy"), "how")));
    json_decref(j);
    expect(ARGS("--fake", "5", "--context", "4", "--prompt", "too long", "--stats-json", path), 1,
           NULL, "context");
    j = json_load_file(path, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(j, "reason")), "failed");
    assert_non_null(json_string_value(json_object_get(j, "error")));
    json_decref(j);
    unlink(path);
}

static void test_local_only_never_connects(void **state)
{
    (void)state;
    struct script s = {.n = 0};
    struct script_cloud *cloud = script_cloud_start(&s);
    expect(ARGS("--fake", "5", "--local-only", "--prompt", "x", "--cloud", script_cloud_url(cloud)),
           0, NULL, NULL);
    assert_int_equal(script_cloud_connections(cloud), 0);
    expect(ARGS("--fake", "5", "--prompt", "x", "--cloud-tokens", "1", "--cloud",
                script_cloud_url(cloud)),
           0, NULL, NULL);
    assert_true(script_cloud_connections(cloud) > 0); /* the count does count */
    script_cloud_stop(cloud);
}

static void read_some(int fd)
{
    char byte;
    for (int i = 0; i < 3; i++)
        assert_int_equal(read(fd, &byte, 1), 1);
}

/* An answer of hours is stopped; one question ends with status 130, a conversation goes on. */
static void test_interrupt(void **state)
{
    (void)state;
    struct program p;
    struct buf out, err;
    program_start(&p, "chat",
                  ARGS("--fake", "100000", "--context", "200000", "--max-tokens", "100000",
                       "--prompt", "x", "--profile", "s24-ultra-gpu"));
    read_some(p.out);
    kill(p.pid, SIGINT);
    assert_int_equal(program_finish(&p, &out, &err), 130);
    buf_release(&out);
    program_start(&p, "chat",
                  ARGS("--fake", "100000", "--context", "200000", "--max-tokens", "100000",
                       "--profile", "s24-ultra-gpu", "--stats"));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(write(p.in, "x\n", 2), 2);
        read_some(p.out);
        kill(p.pid, SIGINT);
    }
    assert_int_equal(program_finish(&p, &out, &err), 0);
    char *first = strstr(err.data, "cancelled");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "cancelled"));
    buf_release(&out);
    buf_release(&err);
}

/* A text without line ends, too long for one question, is not swallowed in silence. */
static void test_endless_line(void **state)
{
    (void)state;
    static char bytes[4096];
    struct program p;
    struct buf out, err;
    memset(bytes, 'x', sizeof bytes);
    program_start(&p, "chat", ARGS("--fake", "9", "--local-only"));
    for (size_t i = 0; i < 2 * CHAT_LINE_MAX / sizeof bytes; i++)
        if (write(p.in, bytes, sizeof bytes) < 0) break; /* it has left: what we want */
    assert_int_equal(program_finish(&p, &out, &err), 1);
    assert_non_null(strstr(err.data, "--prompt-file"));
    buf_release(&out);
    buf_release(&err);
}

/* The reader leaves after the first words, as head does: an answer of hours ends, as any program
 * would, and without a word. */
static void test_nobody_reads(void **state)
{
    (void)state;
    struct program p;
    char word;
    int status;
    program_start(&p, "chat",
                  ARGS("--fake", "100000", "--context", "200000", "--max-tokens", "100000",
                       "--prompt", "x", "--profile", "s24-ultra-gpu"));
    read_some(p.out);
    close(p.out);
    assert_int_equal(read(p.err, &word, 1), 0);
    assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    close(p.in);
    close(p.err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_in_the_clear), cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_long_context),     cmocka_unit_test(test_default_model),
        cmocka_unit_test(test_one_question),     cmocka_unit_test(test_conversation_in_a_pipe),
        cmocka_unit_test(test_stats_json),       cmocka_unit_test(test_local_only_never_connects),
        cmocka_unit_test(test_interrupt),        cmocka_unit_test(test_endless_line),
        cmocka_unit_test(test_nobody_reads),     cmocka_unit_test(test_document),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
