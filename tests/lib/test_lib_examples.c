/*
 * test_lib_examples: the programs of examples/ are built against libpdd.so and asked, with a model
 * of models/ here and a real `pdd cloud`, and must say what `pdd chat` says; under valgrind, too.
 *
 * Catches: an example that no longer builds or streams; an answer of the library that is not the
 * program's; memory that is lost, or used without being written.
 */
#include <libgen.h>
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

#include "support/program.h"

#define MODEL PDD_SOURCE_DIR "/models/pdd-read-small-q6_k.gguf"
#define QUESTION "What is the capital of France?"

static char dir[] = "/tmp/pdd-examples-XXXXXX";
static struct program cloud;
static bool ready;

static int shell(const char *command, struct buf *out)
{
    char line[2048];
    snprintf(line, sizeof line, "exec 2>&1; cd %s; %s", dir, command);
    return program_shell(line, out);
}

static void run(const char *command)
{
    struct buf out;
    int status = shell(command, &out);
    if (status) fail_msg("%s: %d: %s", command, status, out.data);
    buf_release(&out);
}

/* What a command prints in all. */
static void says(const char *command, const char *want)
{
    struct buf out;
    int status = shell(command, &out);
    if (status || strcmp(out.data, want) != 0)
        fail_msg("%s: %d: %s, not %s", command, status, out.data, want);
    buf_release(&out);
}

static void start_cloud(const char *const *args)
{
    char url[64];
    program_start(&cloud, "cloud", args);
    program_line_after(&cloud, "listening on ", url, sizeof url);
    setenv("URL", url, 1);
}

static int make(void **state)
{
    (void)state;
    const char *bin = getenv("PDD_BIN");
    char copy[512];
    assert_non_null(mkdtemp(dir));
    ready = bin && bin[0] && !program_instrumented;
    if (!ready) return 0;
    snprintf(copy, sizeof copy, "%s", bin);
    setenv("LD_LIBRARY_PATH", dirname(copy), 1);
    setenv("EXAMPLES", PDD_SOURCE_DIR "/examples", 1);
    setenv("MODEL", MODEL, 1);
    run("cc -std=c99 -Wall -Wextra -pedantic -Werror -g -I$EXAMPLES/../include $EXAMPLES/ask.c "
        "-o ask -L$LD_LIBRARY_PATH -lpdd");
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void need(const char *program)
{
    char command[128];
    snprintf(command, sizeof command, "command -v %s >/dev/null", program);
    if (!ready || (program[0] && system(command))) skip();
}

/* What `pdd chat` says, with a line end. */
static void ask_chat(struct buf *want)
{
    assert_int_equal(shell("$PDD_BIN chat --no-state --local-only --model $MODEL --prompt "
                           "'" QUESTION "' 2>/dev/null",
                           want),
                     0);
    assert_true(want->len > 1);
}

/* Each with the model alone, with both ends, and with the cloud alone. */
static void test_answers(void **state)
{
    (void)state;
    struct buf want;
    need("");
    ask_chat(&want);
    start_cloud(ARGS("--model", MODEL, "--threads", "1", "--listen", "127.0.0.1:0"));
    says("./ask $MODEL - '" QUESTION "'", want.data);
    says("./ask $MODEL $URL '" QUESTION "'", want.data);
    says("./ask - $URL '" QUESTION "'", want.data);
    if (system("command -v python3 >/dev/null") == 0) {
        says("python3 $EXAMPLES/ask.py $MODEL $URL '" QUESTION "'", want.data);
        says("python3 $EXAMPLES/ask.py - $URL '" QUESTION "'", want.data);
    }
    program_kill(&cloud, SIGTERM);
    says("./ask - $URL '" QUESTION "' >out 2>err; test $? = 1 && grep -c '^ask: .*127.0.0.1' err",
         "1\n");
    buf_release(&want);
}

/* Two questions of a conversation, on an event loop. */
static void test_cxx(void **state)
{
    (void)state;
    struct buf want, line;
    need("c++");
    ask_chat(&want);
    run("c++ -std=c++14 -Wall -Wextra -pedantic -Werror -I$EXAMPLES/../include "
        "$EXAMPLES/chat.cpp -o chat -L$LD_LIBRARY_PATH -lpdd");
    assert_int_equal(shell("printf '" QUESTION "\\n" QUESTION "\\n' | ./chat $MODEL - 2>err >out; "
                           "grep -c 'of the device' err",
                           &line),
                     0);
    assert_string_equal(line.data, "2\n");
    buf_release(&line);
    want.data[want.len - 1] = 0;
    assert_int_equal(shell("cat out", &line), 0);
    assert_memory_equal(line.data, want.data, want.len - 1);
    buf_release(&line);
    buf_release(&want);
}

/* The cloud dies when the first text is seen: so it was not kept until the end. */
static void streams(const char *command)
{
    char line[1024], text[16];
    snprintf(line, sizeof line, "cd %s; %s 2>/dev/null", dir, command);
    start_cloud(ARGS("--fake", "100000", "--fake-beat-us", "20000", "--listen", "127.0.0.1:0"));
    FILE *out = popen(line, "r");
    assert_non_null(out);
    assert_true(read(fileno(out), text, sizeof text) > 0);
    program_kill(&cloud, SIGKILL);
    while (read(fileno(out), text, sizeof text) > 0) {
    }
    int status = pclose(out);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void test_streaming(void **state)
{
    (void)state;
    need("python3");
    streams("./ask - $URL x");
    streams("python3 $EXAMPLES/ask.py - $URL x");
}

/* Nothing lost, nothing used unwritten. With a model the second is not asked: attention multiplies
 * positions that were never written by 0, of which memcheck does not know that it is 0. */
static void test_valgrind(void **state)
{
    (void)state;
    need("valgrind");
    /* valgrind 3.19 cannot read the debug symbols of clang */
    run("mkdir plain && objcopy --strip-debug $LD_LIBRARY_PATH/libpdd.so.0 plain/libpdd.so.0");
    start_cloud(ARGS("--fake", "30", "--listen", "127.0.0.1:0"));
    run("export LD_LIBRARY_PATH=$PWD/plain; valgrind -q --error-exitcode=9 --leak-check=full ./ask "
        "- $URL x");
    program_kill(&cloud, SIGTERM);
    run("export LD_LIBRARY_PATH=$PWD/plain; valgrind -q --error-exitcode=9 --leak-check=full "
        "--undef-value-errors=no ./ask $MODEL - "
        "'" QUESTION "'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_cxx),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_valgrind),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
