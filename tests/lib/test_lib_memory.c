/*
 * test_lib_memory: the k-th allocation of a whole run of libpdd fails, for every k, those of
 * libevent and jansson with them: opening model, device and chat, asking, report, saving, closing.
 * With a cloud in another process, and without.
 *
 * Catches: an allocation that nobody checks; an error path that crashes, hangs, leaks (with the
 * sanitizers) or leaves a descriptor; a failure that is told as something else.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/lib_device.h"

#include <event2/event.h>
#include <jansson.h>

#include "base/mem.h"
#include "support/program.h"
#include "support/tiny_model.h"

enum { ANSWER = 12, RUNS_MAX = 20000 };

static const char question_text[] = "Where did the old sailor leave the brass lantern?";
static char path[TINY_PATH_MAX], dir[] = "/tmp/pdd-lib-XXXXXX", chat_path[64];
static struct buf want; /* the answer, by the first run, in which nothing fails */
static uint32_t survived, told;

static uint32_t descriptors(void)
{
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int ask(pdd_device *device, pdd_chat *chat, pdd_error *error)
{
    pdd_question q = {.size = sizeof q,
                      .chat = chat,
                      .text = question_text,
                      .tokens_max = ANSWER,
                      .cloud_tokens = ANSWER / 2,
                      .pace = PDD_PACE_OFF};
    pdd_answer *a;
    const char *json;
    int code = pdd_ask(device, &q, &a, error);
    if (code) return code;
    if (want.len == 0) buf_puts(&want, pdd_answer_text(a, NULL));
    assert_string_equal(pdd_answer_text(a, NULL), want.data);
    code = pdd_answer_json(a, &json, NULL, error);
    pdd_answer_free(a);
    return code;
}

static int run(const char *url, pdd_error *error)
{
    pdd_model_options m = {.size = sizeof m,
                           .path = path,
                           .threads = 1,
                           .context_max = 512,
                           .chat_template = "chatml"};
    pdd_device_options d = {.size = sizeof d, .cloud_url = url, .state_dir = url ? NULL : dir};
    pdd_device *device = NULL;
    pdd_chat *chat = NULL, *loaded = NULL;
    d.read_ahead = PDD_READ_AHEAD_ALWAYS;
    int code = pdd_model_open(&m, &d.model, error);
    if (code == 0) code = pdd_device_open(&d, &device, error);
    if (code == 0) code = pdd_chat_new("Be brief.", &chat, error);
    if (code == 0) code = ask(device, chat, error);
    if (code == 0) code = pdd_chat_save(chat, chat_path, error);
    if (code == 0) code = pdd_chat_load(chat_path, &loaded, error);
    pdd_chat_free(loaded);
    pdd_chat_free(chat);
    pdd_device_close(device);
    pdd_model_close(d.model);
    return code;
}

/* jansson's lexer takes a failed allocation for a wrong token. */
static bool tells_of_memory(int code, const pdd_error *error)
{
    if (code == PDD_ERR_BAD_INPUT && strstr(error->text, chat_path)) return true;
    return code == PDD_ERR_NO_MEMORY && error->text[0];
}

static void fail_each(const char *url)
{
    uint32_t before;
    assert_int_equal(run(url, NULL), 0); /* what is loaded once is there */
    before = descriptors();
    survived = told = 0;
    for (long k = 1;; k++) {
        pdd_error error = {0, ""};
        assert_true(k < RUNS_MAX);
        mem_fail_at(k);
        int code = run(url, &error);
        int hit = mem_fail_hit();
        mem_fail_at(0);
        if (code && !tells_of_memory(code, &error))
            fail_msg("allocation %ld: %d: %s", k, code, error.text);
        if (descriptors() != before) fail_msg("allocation %ld leaves a descriptor", k);
        if (!hit) {
            assert_int_equal(code, 0);
            break;
        }
        *(code ? &told : &survived) += 1;
    }
    print_message("%u told, %u done without\n", told, survived);
    assert_true(told > 100);
}

static void test_alone(void **state)
{
    (void)state;
    fail_each(NULL);
}

static void test_with_cloud(void **state)
{
    (void)state;
    struct program cloud;
    struct buf out, err;
    char url[64];
    program_start(&cloud, "cloud",
                  ARGS("--model", path, "--threads", "1", "--context", "512", "--chat-template",
                       "chatml", "--listen", "127.0.0.1:0"));
    program_line_after(&cloud, "listening on ", url, sizeof url);
    fail_each(url);
    kill(cloud.pid, SIGTERM);
    program_finish(&cloud, &out, &err);
    buf_release(&out);
    buf_release(&err);
}

static int make(void **state)
{
    (void)state;
    struct tiny_options tiny = TINY_DEFAULT;
    tiny.layers = 1;
    tiny_model_file(&tiny, path);
    buf_init(&want, LIB_TEXT_MAX);
    assert_non_null(mkdtemp(dir));
    snprintf(chat_path, sizeof chat_path, "%s/chat.json", dir);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    char command[64];
    buf_release(&want);
    unlink(path);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

int main(void)
{
    /* Theirs count, too. libcurl's do not: 7.88 crashes when some of its own fail. */
    event_set_mem_functions(mem_alloc, mem_realloc, mem_free);
    json_set_alloc_funcs(mem_alloc, mem_free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_with_cloud),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
