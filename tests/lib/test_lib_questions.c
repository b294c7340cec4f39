/*
 * test_lib_questions: what libpdd makes of the structs and texts that its users give it, and its
 * conversations.
 *
 * Catches: a wrong field that is taken, or refused without its name; a program built with an older
 * or newer header that is misread; a conversation that keeps what failed, or no longer fits.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/lib_device.h"

#include "support/tiny_model.h"

static pdd_model *model;
static pdd_device *device;

static int open_all(void **state)
{
    (void)state;
    struct fake_options o = {.answer_tokens = 20, .context_max = 512};
    model = fake_model(&o);
    device = open_device(model, NULL);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    pdd_device_close(device);
    pdd_model_close(model);
    return 0;
}

/* ---- fields ---- */

static void refused(const pdd_question *q, int code, const char *names)
{
    pdd_error error = {0, ""};
    pdd_answer *a;
    int got = pdd_ask_begin(device, q, &a, &error);
    if (got != code || !strstr(error.text, names))
        fail_msg("%d, not %d, for %s: %s", got, code, names, error.text);
    assert_int_equal(error.code, code);
    assert_int_equal(pdd_ask_begin(device, q, &a, NULL), code);
}

#define REFUSED(field, ...)                                                                        \
    do {                                                                                           \
        pdd_question q = {.size = sizeof q, .text = "x"};                                          \
        q.field = __VA_ARGS__;                                                                     \
        refused(&q, PDD_ERR_BAD_INPUT, "pdd_question." #field);                                    \
    } while (0)

static void test_question_fields(void **state)
{
    (void)state;
    REFUSED(text, NULL);
    REFUSED(text, "");
    REFUSED(text, "\xFF");
    REFUSED(mode, 3);
    REFUSED(mode, -1);
    REFUSED(tokens_max, UINT32_MAX);
    REFUSED(temperature, -0.5f);
    REFUSED(temperature, NAN);
    REFUSED(temperature, INFINITY);
    REFUSED(top_p, 1.5f);
    REFUSED(min_p, 1.0f);
    REFUSED(repeat_penalty, -1.0f);
    REFUSED(frequency_penalty, 2.5f);
    REFUSED(presence_penalty, -2.5f);
    REFUSED(pace, 3);
    REFUSED(goal, 4);
    REFUSED(cloud_tokens, -2);
    REFUSED(verify, 3);
    REFUSED(refine, 4);
    REFUSED(refine_ratio, 0.5f); /* it would have no effect */
    pdd_question q = {.size = sizeof q, .text = "x", .refine = PDD_REFINE_LOCAL};
    refused(&q, PDD_ERR_BAD_INPUT, "pdd_question.refine_ratio");
    q = (pdd_question){.size = sizeof q, .text = "x", .cloud_tokens = 1, .cloud_tokens_max = 1};
    refused(&q, PDD_ERR_BAD_INPUT, "pdd_question.cloud_tokens");
}

/* Lists of a question: how long they may be, and what may be in them. */
static void test_question_lists(void **state)
{
    (void)state;
    char wide[PDD_STOP_BYTES_MAX + 2];
    memset(wide, 'x', sizeof wide);
    wide[sizeof wide - 1] = 0;
    const char *wides[PDD_STOPS_MAX];
    for (int i = 0; i < PDD_STOPS_MAX; i++)
        wides[i] = wide + 1;
    const struct {
        const char *stop[2];
        const char *names;
        int code;
    } stops[] = {
        {{"a", NULL}, "pdd_question.stop[1]: it is NULL", PDD_ERR_BAD_INPUT},
        {{"", "a"}, "pdd_question.stop[0]: it is empty", PDD_ERR_BAD_INPUT},
        {{"a", "b\xFF"}, "pdd_question.stop[1] is not UTF-8, from byte 1 on", PDD_ERR_BAD_INPUT},
        {{wide, "a"}, "pdd_question.stop[0]", PDD_ERR_LIMIT},
    };
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        pdd_question q = {.size = sizeof q, .text = "x", .stop = stops[i].stop, .stop_count = 2};
        refused(&q, stops[i].code, stops[i].names);
    }
    pdd_question q = {.size = sizeof q, .text = "x", .stop_count = 1};
    refused(&q, PDD_ERR_BAD_INPUT, "pdd_question.stop");
    q = (pdd_question){.size = sizeof q, .text = "x", .stop = wides, .stop_count = 65};
    refused(&q, PDD_ERR_LIMIT, "pdd_question.stop_count is 65");
    q.stop_count = 17; /* together one kilobyte too much */
    refused(&q, PDD_ERR_LIMIT, "pdd_question.stop[16]");

    const struct {
        pdd_bias bias[2];
        const char *names;
    } biases[] = {
        {{{1, 0.0f}, {-1, 0.0f}}, "pdd_question.logit_bias[1].token is -1"},
        {{{1 << 20, 0.0f}, {1, 0.0f}}, "pdd_question.logit_bias[0].token is 1048576"},
        {{{1, 0.0f}, {2, 100.5f}}, "pdd_question.logit_bias[1].bias is 100.5"},
        {{{1, NAN}, {2, 0.0f}}, "pdd_question.logit_bias[0].bias"},
        {{{1, 0.0f}, {1, 1.0f}}, "pdd_question.logit_bias[1].token is 1, as of [0]"},
    };
    for (size_t i = 0; i < sizeof biases / sizeof *biases; i++) {
        q = (pdd_question){.size = sizeof q, .text = "x"};
        q.logit_bias = biases[i].bias;
        q.logit_bias_count = 2;
        refused(&q, PDD_ERR_BAD_INPUT, biases[i].names);
    }
    q.logit_bias_count = PDD_BIASES_MAX + 1;
    refused(&q, PDD_ERR_LIMIT, "pdd_question.logit_bias_count is 301");
    q = (pdd_question){.size = sizeof q, .text = "x", .logit_bias_count = 1};
    refused(&q, PDD_ERR_BAD_INPUT, "pdd_question.logit_bias");
}

static void test_model_fields(void **state)
{
    (void)state;
    static const struct {
        pdd_model_options o;
        int code;
        const char *names;
    } cases[] = {
        {{.path = NULL}, PDD_ERR_BAD_INPUT, "pdd_model_options.path"},
        {{.path = "/no/such.gguf"}, PDD_ERR_NOT_FOUND, "/no/such.gguf"},
        {{.path = "x", .kv_type = "i9"}, PDD_ERR_BAD_INPUT, "pdd_model_options.kv_type"},
        {{.path = "x", .isa = "fast"}, PDD_ERR_NOT_FOUND, "fast"},
        {{.path = "x", .profile = "abacus"}, PDD_ERR_NOT_FOUND, "pdd_model_options.profile"},
        {{.path = "x", .chat_template = "a", .chat_template_file = "b"},
         PDD_ERR_BAD_INPUT,
         "pdd_model_options.chat_template"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pdd_model_options o = cases[i].o;
        pdd_error error;
        pdd_model *m = NULL;
        o.size = sizeof o;
        int code = pdd_model_open(&o, &m, &error);
        if (code != cases[i].code || !strstr(error.text, cases[i].names))
            fail_msg("case %zu: %d: %s", i, code, error.text);
        assert_null(m);
    }
}

static void test_device_fields(void **state)
{
    (void)state;
    static const struct {
        pdd_device_options o;
        const char *names;
    } cases[] = {
        {{.model = NULL}, "pdd_device_options.model"},
        {{.cloud_key = "k"}, "pdd_device_options.cloud_key"},
        {{.cloud_ca_file = "k"}, "pdd_device_options.cloud_ca_file"},
        {{.cloud_model = "k"}, "pdd_device_options.cloud_model"},
        {{.cloud_url = "gopher://x"}, "gopher"},
        {{.kv_disk_bytes = 1}, "pdd_device_options.kv_disk_bytes"},
        {{.read_ahead = 3}, "pdd_device_options.read_ahead"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake_options fake = {.answer_tokens = 1};
        pdd_device_options o = cases[i].o;
        pdd_error error;
        pdd_device *d = NULL;
        o.size = sizeof o;
        o.model = i ? fake_model(&fake) : NULL;
        int code = pdd_device_open(&o, &d, &error);
        if (code != PDD_ERR_BAD_INPUT || !strstr(error.text, cases[i].names))
            fail_msg("case %zu: %d: %s", i, code, error.text);
        assert_null(d);
        pdd_model_close(o.model);
    }
}

/* ---- sizes ---- */

static void test_sizes(void **state)
{
    (void)state;
    struct {
        pdd_question q;
        char later[64];
    } newer = {.q = {.size = sizeof newer, .text = "x", .pace = PDD_PACE_OFF}};
    pdd_question q = {.size = 0, .text = "x"};
    refused(&q, PDD_ERR_BAD_INPUT, "pdd_question.size is 0");
    q.size = sizeof q / 2;
    refused(&q, PDD_ERR_BAD_INPUT, "pdd_question.size");
    q.size = SIZE_MAX;
    refused(&q, PDD_ERR_BAD_INPUT, "pdd_question.size");
    refused(NULL, PDD_ERR_BAD_INPUT, "pdd_question");
    pdd_answer *a;
    assert_int_equal(pdd_ask(device, &newer.q, &a, NULL), 0); /* nothing new is set */
    newer.later[10] = 1;
    refused(&newer.q, PDD_ERR_UNSUPPORTED, "pdd_question");
    pdd_answer_free(a);
    /* a program of the first version: what lies behind its struct is not the question's */
    pdd_question first = {.size = offsetof(pdd_question, stop), .text = "x", .stop_count = 99};
    first.pace = PDD_PACE_OFF;
    assert_int_equal(pdd_ask(device, &first, &a, NULL), 0);
    struct {
        pdd_report r;
        char later[64];
    } report = {.r = {.size = sizeof report}, .later = "what was here"};
    assert_int_equal(pdd_answer_report(a, &report.r, NULL), 0);
    assert_int_equal(report.r.size, sizeof report);
    assert_int_equal(report.r.tokens, 20);
    for (size_t i = 0; i < sizeof report.later; i++)
        assert_int_equal(report.later[i], 0);
    report.r.size = 8;
    assert_int_equal(pdd_answer_report(a, &report.r, NULL), PDD_ERR_BAD_INPUT);
    pdd_answer_free(a);
    pdd_model_info info = {.size = sizeof info};
    assert_int_equal(pdd_model_info_of(model, &info, NULL), 0);
    assert_string_equal(info.name, "fake");
    assert_int_equal(info.context_max, 512);
}

static void test_names(void **state)
{
    (void)state;
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", PDD_VERSION_MAJOR, PDD_VERSION_MINOR,
             PDD_VERSION_PATCH);
    assert_string_equal(pdd_version(), version);
    assert_string_equal(pdd_code_name(0), "ok");
    assert_string_equal(pdd_code_name(PDD_MORE), "more");
    assert_string_equal(pdd_code_name(PDD_ERR_NO_MEMORY), "no_memory");
    assert_string_equal(pdd_code_name(PDD_ERR_INTERNAL), "internal");
    assert_string_equal(pdd_code_name(-99), "unknown");
}

/* ---- conversations ---- */

static void ask(pdd_chat *chat, const char *text, int code, uint32_t *ret_left_out)
{
    pdd_question q = {.size = sizeof q, .chat = chat, .text = text, .pace = PDD_PACE_OFF};
    pdd_error error;
    pdd_answer *a;
    q.tokens_max = 30;
    int got = pdd_ask(device, &q, &a, &error);
    if (got != code) fail_msg("%d, not %d: %s", got, code, error.text);
    if (code) return;
    pdd_report r = report_of(a);
    if (ret_left_out) *ret_left_out = r.left_out;
    const char *role, *last;
    assert_int_equal(pdd_chat_message(chat, pdd_chat_count(chat) - 1, &role, &last, NULL, NULL), 0);
    assert_string_equal(role, "assistant");
    assert_string_equal(last, pdd_answer_text(a, NULL));
    pdd_answer_free(a);
}

static void test_chat(void **state)
{
    (void)state;
    pdd_chat *chat;
    const char *role, *text;
    size_t n;
    uint32_t left_out = 0, most = 0;
    assert_int_equal(pdd_chat_new("Be brief.", &chat, NULL), 0);
    ask(chat, "Who?", 0, NULL);
    assert_int_equal(pdd_chat_count(chat), 3);
    assert_int_equal(pdd_chat_message(chat, 1, &role, &text, &n, NULL), 0);
    assert_string_equal(role, "user");
    assert_string_equal(text, "Who?");
    assert_int_equal(n, 4);
    assert_int_equal(pdd_chat_message(chat, 3, NULL, NULL, NULL, NULL), PDD_ERR_NOT_FOUND);
    /* the same question again gives the same answer */
    assert_int_equal(pdd_chat_message(chat, 2, NULL, &text, NULL, NULL), 0);
    char *first = test_malloc(strlen(text) + 1);
    memcpy(first, text, strlen(text) + 1);
    assert_int_equal(pdd_chat_cut(chat, 1, NULL), 0);
    ask(chat, "Who?", 0, NULL);
    assert_int_equal(pdd_chat_message(chat, 2, NULL, &text, NULL, NULL), 0);
    assert_string_equal(text, first);
    test_free(first);
    for (int i = 0; i < 8; i++) { /* the context fills, and the system message stays */
        ask(chat, "And then, after that, what happened?", 0, &left_out);
        most = left_out > most ? left_out : most;
    }
    assert_true(most >= 2);
    assert_true(pdd_chat_count(chat) < 19);
    assert_int_equal(pdd_chat_message(chat, 0, &role, NULL, NULL, NULL), 0);
    assert_string_equal(role, "system");
    /* what can never fit is refused, and adds nothing */
    char large[600];
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = 0;
    uint32_t had = pdd_chat_count(chat);
    ask(chat, large, PDD_ERR_LIMIT, NULL);
    assert_int_equal(pdd_chat_count(chat), had);
    pdd_chat_free(chat);
}

static void test_chat_refuses(void **state)
{
    (void)state;
    pdd_chat *chat;
    pdd_answer *a;
    pdd_error error;
    assert_int_equal(pdd_chat_new(NULL, &chat, NULL), 0);
    assert_int_equal(pdd_chat_new("\xC3", &chat, NULL), PDD_ERR_BAD_INPUT);
    assert_int_equal(pdd_chat_add(chat, "owner", "x", 1, &error), PDD_ERR_BAD_INPUT);
    assert_non_null(strstr(error.text, "owner"));
    assert_int_equal(pdd_chat_add(chat, "user", "x", 1, NULL), 0);
    assert_int_equal(pdd_chat_add(chat, "system", "x", 1, NULL), PDD_ERR_BAD_INPUT);
    assert_int_equal(pdd_chat_add(chat, "user", "\xFF", 1, NULL), PDD_ERR_BAD_INPUT);
    pdd_question q = {.size = sizeof q, .chat = chat, .text = "x"};
    assert_int_equal(pdd_ask_begin(device, &q, &a, NULL), 0);
    refused(&q, PDD_ERR_BUSY, "pdd_question.chat");
    assert_int_equal(pdd_chat_add(chat, "user", "x", 1, NULL), PDD_ERR_BUSY);
    assert_int_equal(pdd_chat_cut(chat, 0, NULL), PDD_ERR_BUSY);
    pdd_answer_free(a); /* in the middle: nothing is added, and the chat is free at once */
    assert_int_equal(pdd_chat_count(chat), 1);
    assert_int_equal(pdd_chat_cut(chat, 0, NULL), 0);
    pdd_chat_free(chat);
}

static void check_load(const char *path, const char *content, int code, const char *says)
{
    pdd_chat *chat = NULL;
    pdd_error error = {0, ""};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(content, f) >= 0);
    fclose(f);
    int got = pdd_chat_load(path, &chat, &error);
    if (got != code || !strstr(error.text, says)) fail_msg("%s: %d: %s", content, got, error.text);
    pdd_chat_free(chat);
}

static void test_chat_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/pdd-lib-XXXXXX", path[64];
    static const char odd[] = "quote \" line\n end \xF0\x9F\x8C\x8A";
    pdd_chat *chat, *loaded;
    const char *text;
    size_t n;
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/chat.json", dir);
    assert_int_equal(pdd_chat_new("Be brief.", &chat, NULL), 0);
    assert_int_equal(pdd_chat_add(chat, "user", odd, sizeof odd - 1, NULL), 0);
    assert_int_equal(pdd_chat_add(chat, "assistant", "a\0b", 3, NULL), 0);
    assert_int_equal(pdd_chat_save(chat, path, NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(pdd_chat_load(path, &loaded, NULL), 0);
    assert_int_equal(pdd_chat_count(loaded), 3);
    assert_int_equal(pdd_chat_message(loaded, 1, NULL, &text, &n, NULL), 0);
    assert_int_equal(n, sizeof odd - 1);
    assert_memory_equal(text, odd, n);
    assert_int_equal(pdd_chat_message(loaded, 2, NULL, &text, &n, NULL), 0);
    assert_memory_equal(text, "a\0b", 3);
    pdd_chat_free(loaded);
    assert_int_equal(pdd_chat_save(chat, "/no/such/folder/x", NULL), PDD_ERR_IO);
    pdd_chat_free(chat);
    check_load(path, "[{\"role\": \"user\", \"content\": 1}]", PDD_ERR_UNSUPPORTED, "message 0");
    check_load(path, "[{\"role\": \"x\", \"content\": \"\"}]", PDD_ERR_BAD_INPUT, path);
    check_load(path, "{}", PDD_ERR_BAD_INPUT, "array");
    check_load(path, "[\n{]", PDD_ERR_BAD_INPUT, "line 2");
    check_load(path, "", PDD_ERR_BAD_INPUT, path);
    check_load(path, "[]", 0, "");
    unlink(path);
    rmdir(dir);
    assert_int_equal(pdd_chat_load(path, &loaded, NULL), PDD_ERR_NOT_FOUND);
}

/* What is kept in a folder is there for the next run: the prompt need not be computed again. */
static void test_state(void **state)
{
    (void)state;
    char dir[] = "/tmp/pdd-lib-XXXXXX", path[TINY_PATH_MAX], command[64], text[400];
    struct tiny_options tiny = TINY_DEFAULT;
    assert_non_null(mkdtemp(dir));
    tiny_model_file(&tiny, path);
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 0;
    for (int run = 0; run < 2; run++) {
        pdd_model_options m = {
            .size = sizeof m, .path = path, .threads = 1, .chat_template = "chatml"};
        pdd_device_options d = {.size = sizeof d, .state_dir = dir, .kv_disk_bytes = 64 << 20};
        pdd_question q = {.size = sizeof q, .text = text, .tokens_max = 4, .pace = PDD_PACE_OFF};
        pdd_device *kept;
        pdd_answer *a;
        assert_int_equal(pdd_model_open(&m, &d.model, NULL), 0);
        assert_int_equal(pdd_device_open(&d, &kept, NULL), 0);
        assert_int_equal(pdd_ask(kept, &q, &a, NULL), 0);
        pdd_report r = report_of(a);
        assert_true(run ? r.kept_tokens >= 256 : r.kept_tokens == 0);
        pdd_answer_free(a);
        pdd_device_close(kept);
        pdd_model_close(d.model);
    }
    unlink(path);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* Two at one time, both in the middle of an answer, keep and read right ones. */
static void test_shared_state(void **state)
{
    (void)state;
    char dir[] = "/tmp/pdd-lib-XXXXXX", path[TINY_PATH_MAX], command[64], text[400],
         first[256] = "";
    struct tiny_options tiny = TINY_DEFAULT;
    pdd_device *devices[2];
    pdd_device_options d[2];
    assert_non_null(mkdtemp(dir));
    tiny_model_file(&tiny, path);
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 0;
    for (int run = 0; run < 3; run++) {
        pdd_answer *a[2];
        for (int i = 0; i < 2; i++) {
            pdd_model_options m = {
                .size = sizeof m, .path = path, .threads = 1, .chat_template = "chatml"};
            d[i] = (pdd_device_options){
                .size = sizeof d[i], .state_dir = dir, .kv_disk_bytes = 64 << 10};
            assert_int_equal(pdd_model_open(&m, &d[i].model, NULL), 0);
            assert_int_equal(pdd_device_open(&d[i], &devices[i], NULL), 0);
        }
        for (int i = 0; i < 2; i++) {
            pdd_question q = {.size = sizeof q, .text = text, .tokens_max = 8};
            assert_int_equal(pdd_ask_begin(devices[i], &q, &a[i], NULL), 0);
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(pdd_answer_wait(a[i], -1, NULL), 0);
            if (!first[0]) snprintf(first, sizeof first, "%s", pdd_answer_text(a[i], NULL));
            assert_string_equal(pdd_answer_text(a[i], NULL), first);
            pdd_answer_free(a[i]);
        }
        for (int i = 0; i < 2; i++) {
            pdd_device_close(devices[i]);
            pdd_model_close(d[i].model);
        }
    }
    unlink(path);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_question_fields),
        cmocka_unit_test(test_model_fields),
        cmocka_unit_test(test_question_lists),
        cmocka_unit_test(test_device_fields),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_chat_refuses),
        cmocka_unit_test(test_chat_files),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_shared_state),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
