/*
 * test_thought: the thought of an answer and the answer, apart.
 *
 * Catches: a mark that is shown, or missed because a token border cuts it; text that is lost,
 * doubled or on the wrong side; marks that a template, a vocabulary or a prompt has and that are
 * not seen; an answer without a thought that is changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/text/thought.h"

enum { ROOM = 1 << 16 };

static const struct thought_marks marks = {"<think>", "</think>"};

static const struct {
    const char *text, *thought, *answer;
    bool opened;
} cases[] = {
    {"<think>\nHm, so.\n</think>\n\nYes.\n", "Hm, so.", "Yes.\n", false},
    {" \n<think>a</think>b", "a", "b", false},
    {"Hm </think> Yes", "Hm", "Yes", true},
    {"\n\nHm", "Hm", "", true},
    {"<think></think>Yes", "", "Yes", false},
    {"<think>\n\n</think>\n\n", "", "", false},
    {"<think>never closed </thin", "never closed </thin", "", false},
    {"<think>never closed \n ", "never closed", "", false},
    {"<think>a < b </ c <</think></think>", "a < b </ c <", "</think>", false},
    {"<think>a</think>b <think>c</think>", "a", "b <think>c</think>", false},
    {"No <think>a</think>", "", "No <think>a</think>", false},
    {" <thin air", "", " <thin air", false},
    {"<th", "", "<th", false},
    {"  ", "", "  ", false},
    {"", "", "", false},
    {"", "", "", true},
    {"a  \n\n  b</think>c", "a  \n\n  b", "c", true},
    {"<think>a</think>  ", "a", "", false},
};

static void split(const char *text, bool opened, const struct thought_marks *m, struct rng *rng,
                  struct buf *ret_thought, struct buf *ret_answer)
{
    struct thought t;
    size_t len = strlen(text);
    thought_init(&t, m, opened);
    buf_init(ret_thought, ROOM);
    buf_init(ret_answer, ROOM);
    buf_append(ret_thought, "", 0);
    for (size_t at = 0; at < len;) {
        size_t n = 1 + (rng ? rng_below(rng, 9) : 0);
        if (n > len - at) n = len - at;
        assert_int_equal(thought_push(&t, NULL, -1, text + at, n, ret_thought, ret_answer), 0);
        at += n;
    }
    assert_int_equal(thought_finish(&t, ret_thought, ret_answer), 0);
    thought_release(&t);
}

static void test_cases(void **state)
{
    struct rng rng;
    (void)state;
    rng_init(&rng, 3, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int how = 0; how < 20; how++) {
            struct buf thought, answer;
            split(cases[i].text, cases[i].opened, &marks, how ? &rng : NULL, &thought, &answer);
            if (thought.len != strlen(cases[i].thought) || answer.len != strlen(cases[i].answer) ||
                (thought.len && strcmp(thought.data, cases[i].thought) != 0) ||
                (answer.len && strcmp(answer.data, cases[i].answer) != 0))
                fail_msg("%s: '%s' '%s'", cases[i].text, thought.data, answer.data);
            buf_release(&thought);
            buf_release(&answer);
        }
}

/* Without marks all is the answer, to the byte. */
static void test_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf thought, answer;
        split(cases[i].text, false, NULL, NULL, &thought, &answer);
        assert_int_equal(thought.len, 0);
        assert_int_equal(answer.len, strlen(cases[i].text));
        if (answer.len) assert_string_equal(answer.data, cases[i].text);
        buf_release(&thought);
        buf_release(&answer);
    }
}

/* Space for minutes is neither held for ever nor looked through again and again. */
static void test_space(void **state)
{
    (void)state;
    static char text[20000];
    struct buf thought, answer;
    memset(text, '\n', sizeof text - 1);
    split(text, true, &marks, NULL, &thought, &answer);
    assert_int_equal(thought.len + answer.len, 0);
    buf_release(&thought);
    buf_release(&answer);
    split(text, false, &marks, NULL, &thought, &answer);
    assert_int_equal(answer.len, sizeof text - 1);
    buf_release(&thought);
    buf_release(&answer);
}

static void test_marks(void **state)
{
    (void)state;
    static const struct {
        const char *text, *close; /* NULL: none */
    } templates[] = {
        {"{% if '</think>' in m.content %}{% endif %}", "</think>"},
        {"{{ '[THINK]' + m.thinking + '[/THINK]' }}", "[/THINK]"},
        {"{{ messages[0].content }}", NULL},
    };
    struct chat_template *t;
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        assert_int_equal(
            chat_template_open_text(templates[i].text, strlen(templates[i].text), "x", &t, NULL),
            0);
        const struct thought_marks *m = thought_marks_of(t, NULL);
        assert_true(!m == !templates[i].close);
        if (m) assert_string_equal(m->close, templates[i].close);
        chat_template_close(t);
    }
    assert_int_equal(chat_template_open_family("qwen3", &t, NULL), 0);
    assert_string_equal(thought_marks_of(t, NULL)->open, "<think>");
    chat_template_close(t);
    assert_int_equal(chat_template_open_family("chatml", &t, NULL), 0);
    assert_null(thought_marks_of(t, NULL));
    chat_template_close(t);
    assert_string_equal(thought_marks_of(NULL, NULL)->open, "<think>");
}

/* A prompt that ends with the opening mark, and others that only have it. */
static void test_opened(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        bool opened;
    } prompts[] = {{"assistant\n<think>\n", true},
                   {"assistant\n<think>", true},
                   {"assistant\n<think>\n\n</think>\n\n", false},
                   {"What is <think>? assistant\n", false},
                   {"<think", false},
                   {"", false}};
    struct vocab *v;
    assert_int_equal(vocab_open_bytes(&v, NULL), 0);
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        int32_t ids[64];
        uint32_t n = (uint32_t)strlen(prompts[i].prompt);
        for (uint32_t k = 0; k < n; k++)
            ids[k] = (unsigned char)prompts[i].prompt[k];
        assert_int_equal(thought_opened(&marks, v, ids, n), prompts[i].opened);
    }
    assert_false(thought_opened(NULL, v, NULL, 0));
    vocab_close(v);
}

/* Marks that are control tokens have no text of their own. */
static void test_control(void **state)
{
    (void)state;
    static const struct thought_marks control = {"<|im_start|>", "<|im_end|>"};
    struct vocab *v;
    struct thought t;
    struct buf thought, answer;
    buf_init(&thought, ROOM);
    buf_init(&answer, ROOM);
    assert_int_equal(vocab_open_bytes(&v, NULL), 0);
    thought_init(&t, &control, false);
    assert_int_equal(thought_push(&t, v, 256, "", 0, &thought, &answer), 0);
    assert_int_equal(thought_push(&t, v, 'H', "H", 1, &thought, &answer), 0);
    assert_int_equal(thought_push(&t, v, 'm', "m", 1, &thought, &answer), 0);
    assert_int_equal(thought_push(&t, v, 257, "", 0, &thought, &answer), 0);
    assert_int_equal(thought_push(&t, v, 'Y', "Y", 1, &thought, &answer), 0);
    assert_int_equal(thought_finish(&t, &thought, &answer), 0);
    assert_string_equal(thought.data, "Hm");
    assert_string_equal(answer.data, "Y");
    thought_release(&t);
    buf_release(&thought);
    buf_release(&answer);
    vocab_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases), cmocka_unit_test(test_none),   cmocka_unit_test(test_space),
        cmocka_unit_test(test_marks), cmocka_unit_test(test_opened), cmocka_unit_test(test_control),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
