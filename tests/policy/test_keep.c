/*
 * test_keep: which tokens of a prompt are kept.
 *
 * Catches: an item that is cut; a guard text, a question or a held token that is dropped; a message
 * without its floor; more tokens than the device can afford; a larger ratio that keeps less; flat
 * scores that pass for a choice; items of a text that are not seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "policy/keep.h"
#include "policy/keep_text.h"

enum { N_MAX = 12000, MESSAGES = 12, RANGES = 6, ROUNDS = 400 };

static uint8_t cuts[N_MAX];
static uint32_t ends[MESSAGES];
static struct keep_range whole[RANGES];
static float scores[N_MAX];

/* Items of random lengths between sentences of random lengths. */
static void random_cuts(struct rng *r, uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        bool item = rng_below(r, 3) == 0;
        uint32_t len = 1 + rng_below(r, item && rng_below(r, 8) == 0 ? 300 : 30);
        for (uint32_t k = 0; k < len && i < n; k++, i++)
            cuts[i] =
                item ? (k ? KEEP_CUT_NEVER : KEEP_CUT_MUST) : (k ? KEEP_CUT_POOR : KEEP_CUT_GOOD);
        if (item && i < n) cuts[i++] = KEEP_CUT_MUST;
    }
}

static struct keep_prompt random_prompt(struct rng *r)
{
    struct keep_prompt p = {.n = 1 + rng_below(r, rng_below(r, 4) ? 3000 : N_MAX), .cuts = cuts};
    random_cuts(r, p.n);
    if (rng_below(r, 8) == 0) p.cuts = NULL;
    if (rng_below(r, 3) == 0) p.held = rng_below(r, p.n);
    uint32_t most = rng_below(r, MESSAGES + 1);
    for (uint32_t at = 0; p.n_messages < most && at < p.n;) {
        at += 1 + rng_below(r, p.n / most + 1);
        if (at > p.n || p.n_messages + 1 == most) at = p.n;
        ends[p.n_messages++] = at;
    }
    if (p.n_messages) ends[p.n_messages - 1] = p.n;
    p.ends = ends;
    p.n_whole = rng_below(r, RANGES + 1);
    for (uint32_t i = 0; i < p.n_whole; i++) {
        uint32_t from = rng_below(r, p.n), left = p.n - from;
        whole[i] = (struct keep_range){from, from + rng_below(r, left < 60 ? left + 1 : 60)};
    }
    p.whole = whole;
    uint32_t peaks = rng_below(r, 20);
    for (uint32_t i = 0; i < p.n; i++)
        scores[i] = rng_next_uniform(r) * 0.001f;
    for (uint32_t i = 0; i < peaks; i++)
        scores[rng_below(r, p.n)] = rng_next_uniform(r);
    return p;
}

static struct keep_limits random_limits(struct rng *r)
{
    return (struct keep_limits){.ratio = 0.05f + rng_next_uniform(r) * 0.9f,
                                .coverage = 0.1f + rng_next_uniform(r) * 0.9f,
                                .least = rng_next_uniform(r) * 0.6f,
                                .floor = rng_next_uniform(r) * 0.1f,
                                .new_least = rng_below(r, 2) ? 0 : 1500,
                                .neighbours = rng_below(r, 2)};
}

static bool kept_at(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

/* Units follow each other, end with their message and where they may. */
static void check_units(const struct keep_prompt *p, const struct keep_unit *u, uint32_t n)
{
    uint32_t at = 0, message = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (p->n_messages && at == ends[message]) message++;
        assert_true(u[i].from == at && u[i].to > at && u[i].message == message);
        if (p->n_messages) assert_true(u[i].to <= ends[message]);
        bool border = at == 0 || (message > 0 && at == ends[message - 1]);
        if (!border && p->cuts) assert_true(cuts[at] != KEEP_CUT_NEVER);
        for (uint32_t t = at + 1; p->cuts && t < u[i].to; t++)
            assert_true(cuts[t] != KEEP_CUT_MUST);
        at = u[i].to;
    }
    assert_int_equal(at, p->n);
}

static void check_musts(const struct keep_prompt *p, const uint8_t *bits)
{
    for (uint32_t i = 0; i < p->held; i++)
        assert_true(kept_at(bits, i));
    for (uint32_t i = p->n > KEEP_QUESTION ? p->n - KEEP_QUESTION : 0; i < p->n; i++)
        assert_true(kept_at(bits, i));
    for (uint32_t w = 0; w < p->n_whole; w++)
        for (uint32_t i = whole[w].from; i < whole[w].to; i++)
            assert_true(kept_at(bits, i));
    assert_true(kept_at(bits, 0));
}

static void check_floors(const struct keep_prompt *p, float floor, const uint8_t *bits)
{
    uint32_t unit = p->n > KEEP_LONG ? KEEP_UNIT_LONG : KEEP_UNIT;
    for (uint32_t m = 0; m < p->n_messages; m++) {
        uint32_t from = m ? ends[m - 1] : 0, kept = 0;
        uint32_t least = (uint32_t)((double)floor * (double)(ends[m] - from));
        for (uint32_t i = from; i < ends[m]; i++)
            kept += kept_at(bits, i);
        if (least >= unit / 2) assert_true(kept >= least);
    }
}

static struct keep_choice choose(struct keep *k, const struct keep_limits *l, uint8_t *bits)
{
    struct keep_choice c = keep_choose(k, scores, l);
    keep_bits(k, bits);
    return c;
}

static void check_counts(const struct keep_prompt *p, const struct keep_limits *l,
                         const struct keep_choice *c, const uint8_t *bits)
{
    uint32_t all = 0, fresh = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        all += kept_at(bits, i);
        fresh += i >= p->held && kept_at(bits, i);
    }
    assert_int_equal(c->tokens, all);
    if (c->refusal == KEEP_OK || c->refusal == KEEP_FLAT)
        assert_true((double)fresh <= (double)l->ratio * (double)(p->n - p->held));
    if (c->refusal == KEEP_OK) assert_true(c->coverage >= l->least);
    assert_true(c->coverage >= 0.0f && c->coverage <= 1.0f + 1e-6f);
}

static void test_promises(void **state)
{
    static uint8_t bits[N_MAX / 8 + 1], more[N_MAX / 8 + 1];
    uint32_t seen[KEEP_UNFIT + 1] = {0};
    struct rng r;
    (void)state;
    rng_init(&r, 15, 1);
    for (int round = 0; round < ROUNDS; round++) {
        struct keep_prompt p = random_prompt(&r);
        struct keep_limits l = random_limits(&r);
        struct keep *k;
        struct err e;
        uint32_t n;
        if (keep_open(&p, &k, &e)) fail_msg("%s", e.text);
        struct keep_choice c = choose(k, &l, bits);
        const struct keep_unit *units = keep_units(k, &n);
        check_units(&p, units, n);
        check_musts(&p, bits);
        check_floors(&p, l.floor, bits);
        check_counts(&p, &l, &c, bits);
        enum keep_refusal early = keep_refuses(k, &l);
        if (early != KEEP_OK) assert_int_equal(c.refusal, early);
        seen[c.refusal]++;
        struct keep_limits wider = l;
        if (round % 2)
            wider.ratio += rng_next_uniform(&r) * (1.0f - l.ratio);
        else
            wider.coverage += rng_next_uniform(&r) * (1.0f - l.coverage);
        struct keep_choice d = choose(k, &wider, more);
        for (uint32_t i = 0; i < p.n && c.refusal != KEEP_FULL; i++)
            assert_true(!kept_at(bits, i) || kept_at(more, i));
        if (c.refusal != KEEP_FULL) assert_true(d.coverage >= c.coverage);
        struct keep_choice again = choose(k, &l, more);
        assert_memory_equal(&again, &c, sizeof c);
        assert_memory_equal(more, bits, (p.n + 7) / 8);
        keep_close(k);
    }
    assert_true(seen[KEEP_OK] > 50 && seen[KEEP_FLAT] > 5);
    assert_true(seen[KEEP_SHORT] > 20 && seen[KEEP_FULL] > 20);
}

/* One needle in flat text is found, flat text alone is refused. */
static void test_flat(void **state)
{
    enum { N = 4000 };
    static uint8_t bits[N / 8];
    struct keep_prompt p = {.n = N};
    struct keep_limits l = KEEP_LIMITS_DEFAULT(0.3f);
    struct keep *k;
    (void)state;
    l.least = 0.5f;
    assert_int_equal(keep_open(&p, &k, NULL), 0);
    for (uint32_t i = 0; i < N; i++)
        scores[i] = 0.001f;
    struct keep_choice c = choose(k, &l, bits);
    assert_int_equal(c.refusal, KEEP_FLAT);
    assert_string_equal(keep_refusal_name(c.refusal), "flat");
    assert_true(c.ratio > 0.28f && c.ratio <= 0.3f && c.coverage < 0.35f);
    memset(scores, 0, sizeof scores);
    assert_int_equal(choose(k, &l, bits).refusal, KEEP_FLAT);
    for (uint32_t depth = 1; depth < 10; depth++) {
        uint32_t at = N * depth / 10;
        for (uint32_t i = 0; i < N; i++)
            scores[i] = 0.001f;
        scores[at] = 0.9f;
        l.coverage = 0.6f;
        l.neighbours = true;
        c = choose(k, &l, bits);
        assert_int_equal(c.refusal, KEEP_OK);
        for (uint32_t i = at - 16; i <= at + 16; i++)
            assert_true(kept_at(bits, i));
        scores[at] = 0.001f;
    }
    keep_close(k);
}

/* Of equal scores the earlier unit; neighbours stay within a message; a message that scores nothing
 * keeps its floor. */
static void test_order_and_share(void **state)
{
    enum { N = 3200 };
    static uint8_t bits[N / 8];
    uint32_t two[] = {1600, N};
    struct keep_prompt p = {.n = N, .ends = two, .n_messages = 2};
    struct keep_limits l = {.ratio = 0.2f, .coverage = 1.0f, .floor = 0.05f, .neighbours = true};
    struct keep *k;
    (void)state;
    assert_int_equal(keep_open(&p, &k, NULL), 0);
    for (uint32_t i = 0; i < N; i++)
        scores[i] = i < 1600 ? 0.0f : 0.5f;
    assert_int_equal(choose(k, &l, bits).refusal, KEEP_OK);
    for (uint32_t i = 0; i < 96; i++) /* 80 of 1,600, and the neighbour of the first chosen unit */
        assert_int_equal(kept_at(bits, i), i < 80);
    for (uint32_t i = 96; i < 1600; i++)
        assert_false(kept_at(bits, i));
    for (uint32_t i = 1600; i < 1600 + 400; i++)
        assert_true(kept_at(bits, i));
    keep_close(k);
}

static void test_bad_prompts(void **state)
{
    uint32_t falling[] = {5, 5, 10}, early[] = {5, 9};
    struct keep_range wrong[] = {{3, 2}}, beyond[] = {{0, 11}};
    const struct keep_prompt bad[] = {{.n = 0},
                                      {.n = 10, .held = 11},
                                      {.n = 10, .ends = falling, .n_messages = 3},
                                      {.n = 10, .ends = early, .n_messages = 2},
                                      {.n = 10, .whole = wrong, .n_whole = 1},
                                      {.n = 10, .whole = beyond, .n_whole = 1}};
    struct keep *k;
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(keep_open(&bad[i], &k, &e), ERR_BAD_INPUT);
        assert_true(e.text[0] != 0);
    }
}

static void test_without_memory(void **state)
{
    struct keep_prompt p = {.n = 500};
    (void)state;
    for (long n = 1;; n++) {
        struct keep *k;
        mem_fail_at(n);
        int code = keep_open(&p, &k, NULL);
        int hit = mem_fail_hit();
        mem_fail_at(0);
        if (!hit) {
            assert_int_equal(code, 0);
            keep_close(k);
            return;
        }
        assert_int_equal(code, ERR_NO_MEMORY);
    }
}

/* ---- texts ---- */

/* Items stand between « and » here (one byte each: \1 and \2), which are not part of the text. */
static const char *const item_texts[] = {
    "Plain text. And more.\nA line.\n",
    "Buy:\n\1- milk\n\2\1- bread, and\n  butter\n\2\1* eggs\n\2\nThen go home.",
    "\0011. one\n\2\0012) two\n   more of two\n\2\001a. three\n\2\n\001b) four\n\2Done.",
    "\1| a | b |\n\2\1|---|---|\n\2\0011\t2\n\2after",
    "x\n\1```c\nint a;\n\n- no item\n```\n\2\1- an item\n\2y",
    "\1Q: who?\nA: me.\n\2\n\1Q: and\nwho?\nA: you\n\2\nQuestions arise.\n\1Example 2: x\n\2",
};

static void check_items(const char *marked, uint32_t token)
{
    char text[400] = "";
    uint8_t inside[400] = {0}, got[400]; /* inside: 1 begins an item, 2 is in one, 3 follows one */
    uint32_t token_ends[400] = {0}, n = 0;
    size_t len = 0;
    int state = 0;
    for (const char *at = marked; *at; at++) {
        if (*at == 1 || *at == 2) {
            state = *at == 1 ? 1 : 3;
            continue;
        }
        inside[len] = (uint8_t)state;
        text[len++] = *at;
        state = state == 1 || state == 2 ? 2 : 0;
    }
    for (size_t at = 0; at < len; at += token)
        token_ends[n++] = (uint32_t)(at + token < len ? at + token : len);
    keep_text_cuts(text, len, token_ends, n, got);
    for (uint32_t t = 1; t < n; t++) {
        uint32_t from = t * token;
        bool begins = false;
        for (uint32_t i = from; i < token_ends[t]; i++)
            begins = begins || inside[i] == 1;
        if (begins || (token == 1 && inside[from] == 3))
            assert_int_equal(got[t], KEEP_CUT_MUST);
        else if (inside[from] == 2)
            assert_int_equal(got[t], KEEP_CUT_NEVER);
        else
            assert_true(got[t] != KEEP_CUT_NEVER);
    }
}

static void test_items(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof item_texts / sizeof *item_texts; i++)
        for (uint32_t token = 1; token < 9; token++)
            check_items(item_texts[i], token);
}

static void test_sentences(void **state)
{
    static const char text[] = "One. Two (more.) Three 3.5 is\nlast! \"So?\" e";
    uint32_t token_ends[sizeof text - 1];
    uint8_t got[sizeof text - 1];
    (void)state;
    for (uint32_t i = 0; i < sizeof text - 1; i++)
        token_ends[i] = i + 1;
    keep_text_cuts(text, sizeof text - 1, token_ends, sizeof text - 1, got);
    static const char *const good[] = {"Two", "Three", "last", "\"So", "e"};
    uint32_t n = 0;
    for (uint32_t i = 1; i < sizeof text - 1; i++) {
        if (got[i] != KEEP_CUT_GOOD) continue;
        const char *at = text + i + (text[i] == ' '); /* the blank may go with either */
        bool known = false;
        for (size_t g = 0; g < sizeof good / sizeof *good; g++)
            known = known || strncmp(at, good[g], strlen(good[g])) == 0;
        assert_true(known);
        n += text[i] != ' ';
    }
    assert_int_equal(n, 5);
}

static void test_refused_texts(void **state)
{
    static const char code[] =
        "Mend this:\nint main(void)\n{\n    int a = 1;\n    f(a);\n    return a;\n"
        "}\nvoid g(void)\n{\n    h();\n    i();\n}\nint b;\nint c;\n";
    static const char python[] = "import os\ndef f(a):\n    return a\nclass A:\n    pass\n"
                                 "import sys; x()\ndef g(b):\n    return (b)\nfrom a import (b)\n"
                                 "def h():\n    return []\nclass B(A):\n    pass\nif (x):\n y\n";
    static const char fenced[] = "Say:\n```\na\nb\nc\nd\ne\nf\ng\n```\nwhat is it?\n";
    static const char prose[] =
        "From here on we go.\nImport duties rose.\nFor a while (long) it "
        "rained.\nIf so;\nThen.\nClass was over.\nReturn to me.\nAnd so on.\n"
        "Let us go.\nFunctions of the state.\nPublic life.\nConst.\n";
    static const struct {
        const char *text;
        enum keep_refusal refusal;
    } cases[] = {
        {"", KEEP_OK},
        {prose, KEEP_OK},
        {code, KEEP_CODE},
        {python, KEEP_CODE},
        {fenced, KEEP_CODE},
        {"Answer by {\"type\": \"object\", \"properties\": {}}", KEEP_SCHEMA},
        {"<tools>[]</tools>", KEEP_SCHEMA},
        {"He said \"type\" and left.", KEEP_OK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (keep_text_refuses(cases[i].text, strlen(cases[i].text)) != cases[i].refusal)
            fail_msg("text %zu", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_promises),        cmocka_unit_test(test_flat),
        cmocka_unit_test(test_order_and_share), cmocka_unit_test(test_bad_prompts),
        cmocka_unit_test(test_without_memory),  cmocka_unit_test(test_items),
        cmocka_unit_test(test_sentences),       cmocka_unit_test(test_refused_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
