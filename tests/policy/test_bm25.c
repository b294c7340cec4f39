/*
 * test_bm25: words of a text and scores of units. Catches: words that are split, joined or placed
 * at the wrong token, upper case or an ending that hides a word, ideographs taken for one long
 * word, a question that begins elsewhere, scores that differ from the formula (slowly, in double),
 * a rare word that counts less than a frequent one, units at the ends of a prompt, and stores past
 * what the caller gave.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "policy/bm25.h"

enum { WORDS = 4000, UNITS = 2100 };

static struct bm25_word words[WORDS + 1];
static float scores[UNITS + 1];

static uint32_t read_words(const char *text, const uint32_t *ends, uint32_t n)
{
    uint32_t count = bm25_words(text, strlen(text), ends, n, words, WORDS);
    assert_int_equal(count, bm25_words(text, strlen(text), ends, n, NULL, 0));
    return count;
}

static uint32_t word_of(const char *text)
{
    assert_int_equal(read_words(text, NULL, 0), 1);
    return words[0].word;
}

static void test_one_word(void **state)
{
    static const struct {
        const char *a, *b;
        int same;
    } pairs[] = {{"invented", "Invention", 1}, {"WORD", "word", 1},
                 {"word", "words", 0},         {"cat", "cats", 0},
                 {" town", "town.", 1},        {"1984", "1985", 0},
                 {"\u00e9tude", "etude", 0},   {"na\u00efvely", "na\u00efve", 1}};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_int_equal(word_of(pairs[i].a) == word_of(pairs[i].b), pairs[i].same);
}

static void test_count(void **state)
{
    static const struct {
        const char *text;
        uint32_t count;
    } texts[] = {{"", 0},
                 {" .,\n", 0},
                 {"one two\nthree", 3},
                 {"don't", 2},
                 {"a\xff"
                  "b\xc3",
                  2},
                 {"\u201cquoted\u201d \u2014 dash\u2026", 2},
                 {"\u6771\u4eac\u3067\u3059\u3002", 4},
                 {"\u2581spaces\u2581of\u2192models\u2026", 3},
                 {"in\u6771\u4eacnow", 4},
                 {"\u041c\u043e\u0441\u043a\u0432\u0430 \u0434\u0430", 2}};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(read_words(texts[i].text, NULL, 0), texts[i].count);
}

/* A word stands at the token of its first byte, also where it goes on in the next token, where a
 * token is empty, and beyond the last token. */
static void test_places(void **state)
{
    const char *text = "a bold cat sat";
    const uint32_t ends[] = {1, 1, 4, 7, 10}, at[] = {0, 2, 4, 4};
    (void)state;
    assert_int_equal(read_words(text, ends, 5), 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(words[i].at, at[i]);
    words[2] = (struct bm25_word){1, 1};
    assert_int_equal(bm25_words(text, strlen(text), ends, 5, words, 2), 4);
    assert_int_equal(words[2].word, 1); /* nothing is stored past `cap` */
}

static void test_question(void **state)
{
    static const struct {
        const char *text;
        size_t from;
    } texts[] = {{"", 0},
                 {" \n\n", 0},
                 {"Who?", 0},
                 {"A text.\n\nWho?", 9},
                 {"A text.\n\nWho?\n\n \n", 9},
                 {"A text.\r\n\r\nWho?", 11},
                 {"A text.\n \t\nWho?", 11},
                 {"A text.\n\nLine.\nWho?", 9},
                 {"A text.\nWho?", 0},
                 {"\n\n\u6771\u4eac\u3002", 2}};
    char text[4000];
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(bm25_question(texts[i].text, strlen(texts[i].text)), texts[i].from);
    /* A paragraph that is too long: its last line; a line that is too long: its last words. */
    for (size_t i = 0; i < 1000; i++)
        memcpy(text + 2 * i, "a ", 2);
    assert_int_equal(bm25_question(text, 2000), 2000 - 2 * BM25_QUESTION - 1);
    text[1901] = '\n';
    assert_int_equal(bm25_question(text, 2000), 1902);
    text[1901] = ' ';
    for (size_t i = 0; i < 1000; i++)
        memcpy(text + 3 * i, "\u6771", 3);
    assert_int_equal(bm25_question(text, 3000), 3000 - 3 * BM25_QUESTION);
}

/* The formula of bm25.h, word by word. */
static double log2_slowly(double x)
{
    double result = 0, bit = 1;
    for (; x >= 2; x /= 2)
        result++;
    for (int i = 0; i < 40; i++) {
        bit /= 2;
        x *= x;
        if (x < 2) continue;
        x /= 2;
        result += bit;
    }
    return result;
}

static double tf_slowly(uint32_t word, uint32_t n, double middle)
{
    double tf = 0;
    for (uint32_t i = 0; i < n; i++) {
        double d = words[i].at < middle ? middle - words[i].at : words[i].at - middle;
        if (words[i].word == word && d < BM25_REACH) tf += 1 - d / BM25_REACH;
    }
    return tf;
}

static double middle_slowly(uint32_t u, uint32_t unit, uint32_t tokens)
{
    uint32_t start = u * unit, end = start + unit < tokens ? start + unit : tokens;
    return (start + end) / 2;
}

static void check_scores(uint32_t n, uint32_t tokens, uint32_t unit,
                         const struct bm25_word *question, uint32_t n_question)
{
    static double want[UNITS];
    uint32_t units = (tokens + unit - 1) / unit;
    double all = 0, found = 0;
    memset(want, 0, sizeof want);
    for (uint32_t q = 0; q < n_question; q++) {
        uint32_t seen = 0, df = 0;
        for (uint32_t i = 0; i < q; i++)
            seen += question[i].word == question[q].word;
        if (seen) continue;
        for (uint32_t u = 0; u < units; u++)
            df += tf_slowly(question[q].word, n, middle_slowly(u, unit, tokens)) > 0;
        double idf = log2_slowly((units + 1.0) / (df + 0.5));
        all += idf;
        found += df > 0 ? idf : 0;
        for (uint32_t u = 0; u < units; u++) {
            double tf = tf_slowly(question[q].word, n, middle_slowly(u, unit, tokens));
            want[u] += idf * tf * ((double)BM25_K1 + 1) / (tf + (double)BM25_K1);
        }
    }
    scores[units] = -1.0f;
    bm25_score(words, n, tokens, unit, question, n_question, scores);
    assert_true(scores[units] == -1.0f);
    for (uint32_t u = 0; u < units; u++)
        assert_float_equal(scores[u], (float)(want[u] * found / all), 2e-3f);
}

static void test_formula(void **state)
{
    static const uint32_t shapes[][2] = {{1, 1},    {15, 16},   {16, 16},
                                         {300, 16}, {2000, 32}, {777, 7}};
    struct rng r;
    (void)state;
    rng_init(&r, 1, 1);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct bm25_word question[12];
        uint32_t n = 0, tokens = shapes[s][0];
        for (uint32_t at = 0; at < tokens && n < WORDS; at++)
            for (uint32_t k = rng_below(&r, 3); k > 0; k--) /* a token may begin two words */
                words[n++] = (struct bm25_word){rng_below(&r, 1 + rng_below(&r, 200)), at};
        for (uint32_t q = 0; q < 12; q++)
            question[q] = (struct bm25_word){rng_below(&r, 220), 0};
        check_scores(n, tokens, shapes[s][1], question, 12);
    }
}

/* Frequent words everywhere, a rare one once: its unit wins, and units far from it have nothing of
 * it. A question without a word of the text scores nothing. */
static void test_rare_word(void **state)
{
    const struct bm25_word question[] = {{1, 0}, {2, 0}}, other = {3, 0};
    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        words[i] = (struct bm25_word){i == 605 ? 2 : 1, i};
    bm25_score(words, 1000, 1000, 16, question, 2, scores);
    for (uint32_t u = 0; u < 63; u++)
        if (u != 605 / 16) assert_true(scores[u] < scores[605 / 16]);
    assert_true(scores[10] < scores[605 / 16] / 4);
    bm25_score(words, 1000, 1000, 16, &other, 1, scores);
    for (uint32_t u = 0; u < 63; u++)
        assert_true(scores[u] == 0.0f);
    bm25_score(words, 0, 0, 16, question, 2, scores); /* nothing to score: nothing is stored */
}

/* Catches: a list of questions of which only the last line counts; a text in front of it taken for
 * a part of it. */
static void test_list_of_questions(void **state)
{
    static const char line[] = "1. What is the code of the iron safe in the hall?\n"; /* 12 words */
    char text[8000], many[400] = "";
    size_t list;
    (void)state;
    for (int i = 0; i < 40; i++)
        strcat(many, "many ");
    for (int lines = 8; lines <= 40; lines += 16) {
        size_t n = (size_t)snprintf(text, sizeof text, "A text.\n%s.\n", many);
        list = n;
        for (int i = 0; i < lines; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", line);
        n += (size_t)snprintf(text + n, sizeof text - n, "Answer in full sentences.");
        size_t from = bm25_question(text, n);
        const size_t most = (BM25_LIST - 4) / 12; /* lines that fit */
        if ((size_t)lines <= most) assert_int_equal(from, list);
        if ((size_t)lines > most)
            assert_int_equal(from, list + ((size_t)lines - most) * strlen(line));
    }
}

/* More distinct words than BM25_WORDS_MAX: the first ones count, the others do not. */
static void test_long_question(void **state)
{
    static struct bm25_word question[BM25_WORDS_MAX + 1];
    (void)state;
    for (uint32_t i = 0; i <= BM25_WORDS_MAX; i++)
        question[i] = (struct bm25_word){i * 512, 0}; /* one slot for all */
    words[0] = (struct bm25_word){BM25_WORDS_MAX * 512, 5};
    words[1] = (struct bm25_word){(BM25_WORDS_MAX - 1) * 512, 500};
    bm25_score(words, 2, 512, 16, question, BM25_WORDS_MAX + 1, scores);
    assert_true(scores[0] == 0.0f);
    assert_true(scores[500 / 16] > 0.0f);
}

/* It scores as its parts do, and says when there is no memory. */
static void test_score_text(void **state)
{
    static const char text[] = "A key lies under the mat, a mouse under the table.";
    static const char asked[] = "Where is the key?";
    uint32_t ends[sizeof text - 1];
    float want[sizeof text - 1], got[sizeof text - 1];
    struct bm25_word question[WORDS];
    (void)state;
    const uint32_t n = sizeof ends / sizeof *ends;
    for (uint32_t i = 0; i < n; i++)
        ends[i] = i + 1;
    uint32_t n_words = bm25_words(text, n, ends, n, words, WORDS);
    uint32_t n_asked = bm25_words(asked, sizeof asked - 1, NULL, 0, question, WORDS);
    bm25_score(words, n_words, n, 1, question, n_asked, want);
    assert_int_equal(bm25_score_text(text, n, ends, n, asked, sizeof asked - 1, got, NULL), 0);
    assert_memory_equal(got, want, sizeof want);
    assert_true(got[2] > 0.0f);
    mem_fail_at(1);
    assert_int_equal(bm25_score_text(text, n, ends, n, asked, sizeof asked - 1, got, NULL),
                     ERR_NO_MEMORY);
    mem_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_word),
        cmocka_unit_test(test_count),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_question),
        cmocka_unit_test(test_list_of_questions),
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_rare_word),
        cmocka_unit_test(test_long_question),
        cmocka_unit_test(test_score_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
