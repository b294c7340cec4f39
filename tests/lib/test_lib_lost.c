/*
 * test_lib_lost: clouds that refuse, are silent or lie, as a program with libpdd sees them: which
 * code, which sentence; and with a model, the answer all the same.
 *
 * Catches: a code that sends people to look in the wrong place (a wrong key that looks like a lost
 * network); a sentence without the cloud's name; a wait without end; a fault of a cloud that costs
 * an answer which the device could give.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/lib_device.h"

#include "support/cloud_fixture.h"
#include "support/program.h"
#include "support/script_cloud.h"

enum { STALL_MS = 150, TOKENS_MAX = 64, BORROWED = 12, END_TOKEN = 257 };

static const char story[] = "The lantern hung by the door, as ever.";
static const char question_text[] = "Where is it?";

static pdd_device *open_with(pdd_model *model, const char *url, const char *key)
{
    pdd_device_options o = {
        .size = sizeof o, .model = model, .cloud_url = url, .cloud_key = key, .stall_ms = STALL_MS};
    pdd_device *device;
    pdd_error error;
    if (pdd_device_open(&o, &device, &error)) fail_msg("%s", error.text);
    return device;
}

/* Slow enough that the cloud is asked. */
static pdd_model *slow_model(void)
{
    struct fake_options o = {.script = story, .prefill_us_per_token = 200};
    return fake_model(&o);
}

static int ask(pdd_device *device, const char *text, uint32_t cloud_tokens, pdd_answer **ret_answer,
               pdd_error *error)
{
    pdd_question q = {.size = sizeof q, .text = text, .tokens_max = TOKENS_MAX};
    q.pace = PDD_PACE_OFF;
    q.cloud_tokens = (int32_t)cloud_tokens;
    return pdd_ask(device, &q, ret_answer, error);
}

/* ---- a real cloud's key ---- */

static void start_with_keys(struct program *p, char *key, size_t size, char *url, size_t url_size)
{
    char line[512], path[] = "/tmp/pdd-keys-XXXXXX", port[64];
    struct buf out;
    int file = mkstemp(path);
    assert_true(file >= 0);
    snprintf(line, sizeof line, "\"$PDD_BIN\" cloud key alice | tee %s | head -1", path);
    assert_int_equal(program_shell(line, &out), 0);
    snprintf(key, size, "%.*s", (int)strcspn(out.data, "\n"), out.data);
    buf_release(&out);
    snprintf(line, sizeof line, "sed -i 1d %s", path);
    assert_int_equal(program_shell(line, &out), 0);
    buf_release(&out);
    program_start(p, "cloud",
                  ARGS("--fake", "12", "--listen", "127.0.0.1:0", "--log-level", "error",
                       "--key-file", path));
    program_line_after(p, "127.0.0.1:", port, sizeof port);
    snprintf(url, url_size, "http://127.0.0.1:%s", port);
    close(file);
    unlink(path);
}

/* The right key, a wrong one, none; and with a model the answer comes, with the reason told. */
static void test_keys(void **state)
{
    (void)state;
    char key[128], url[96];
    struct program p;
    if (!getenv("PDD_BIN")) skip();
    start_with_keys(&p, key, sizeof key, url, sizeof url);
    for (int i = 0; i < 3; i++) {
        pdd_device *device = open_with(NULL, url, i == 0 ? key : i == 1 ? "pdd-wrong" : NULL);
        pdd_error error = {0, ""};
        int code = ask(device, question_text, 0, NULL, &error);
        if (code != (i == 0 ? PDD_OK : PDD_ERR_DENIED)) fail_msg("%d: %d: %s", i, code, error.text);
        if (i) assert_non_null(strstr(error.text, url));
        if (i) assert_non_null(strstr(error.text, "401"));
        pdd_device_close(device);
    }
    pdd_model *model = slow_model();
    pdd_device *device = open_with(model, url, "pdd-wrong");
    pdd_answer *a;
    assert_int_equal(ask(device, question_text, BORROWED, &a, NULL), 0);
    assert_string_equal(pdd_answer_text(a, NULL), story);
    assert_non_null(strstr(report_of(a).trouble, "401"));
    pdd_answer_free(a);
    pdd_device_close(device);
    pdd_model_close(model);
    program_kill(&p, SIGKILL);
}

/* ---- scripted clouds ---- */

/* Alone, a device asks again with what it has: only what strikes each time ends an answer. */
static const struct {
    enum script_fault fault;
    uint32_t at; /* event; 0: the grant */
    int status, code;
    const char *says; /* NULL: the cloud's URL */
} faults[] = {
    {SCRIPT_STALL, 0, 0, PDD_ERR_TIMEOUT, "silent"},
    {SCRIPT_STALL, 12, 0, PDD_OK, ""},
    {SCRIPT_REFUSE, 0, 401, PDD_ERR_DENIED, NULL},
    {SCRIPT_REFUSE, 0, 403, PDD_ERR_DENIED, NULL},
    {SCRIPT_CUT, 0, 0, PDD_ERR_NET, NULL},
    {SCRIPT_CUT_HALF, 5, 0, PDD_OK, ""},
    {SCRIPT_GARBAGE, 0, 0, PDD_ERR_PROTOCOL, "the cloud broke"},
    {SCRIPT_NO_HTTP, 0, 0, PDD_ERR_PROTOCOL, NULL},
    {SCRIPT_AGAIN, 5, 0, PDD_OK, ""},
};

static void check_fault(struct script_cloud *cloud, struct script s, size_t i)
{
    pdd_error error = {0, ""};
    pdd_answer *a;
    s.fault = faults[i].fault;
    s.at = faults[i].at;
    s.status = faults[i].status;
    s.always = true;
    script_cloud_set(cloud, &s);
    pdd_device *device = open_with(NULL, script_cloud_url(cloud), NULL);
    int code = ask(device, question_text, 0, NULL, &error);
    const char *says = faults[i].says ? faults[i].says : script_cloud_url(cloud);
    if (code != faults[i].code || !strstr(error.text, says))
        fail_msg("fault %zu: %s: %s", i, pdd_code_name(code), error.text);
    pdd_device_close(device);
    pdd_model *model = slow_model();
    script_cloud_set(cloud, &s);
    device = open_with(model, script_cloud_url(cloud), NULL);
    if (ask(device, question_text, BORROWED, &a, &error)) fail_msg("fault %zu: %s", i, error.text);
    assert_string_equal(pdd_answer_text(a, NULL), story);
    pdd_answer_free(a);
    pdd_device_close(device);
    pdd_model_close(model);
}

static void test_faults(void **state)
{
    (void)state;
    struct fake_options o = {.script = story};
    const struct sampling greedy = SAMPLING_GREEDY;
    struct single_answer want;
    struct engine *engine;
    assert_int_equal(fake_open(&o, &engine, NULL), 0);
    single_answer_make(engine, question_text, false, &greedy, TOKENS_MAX, &want);
    engine_free(engine);
    struct script s = {.tokens = want.tokens.ids,
                       .n = want.tokens.len,
                       .ends = true,
                       .end_token = END_TOKEN,
                       .prompt_tokens = want.prompt.len};
    struct script_cloud *cloud = script_cloud_start(&s);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        check_fault(cloud, s, i);
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
