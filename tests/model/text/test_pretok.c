/*
 * test_pretok: how each pre-tokeniser cuts a text into words.
 *
 * Catches: a name that stands for the wrong pattern, a pattern that lost one of its rules
 * (contractions, groups of digits, capitals, slashes, runs of white space), a word lost or doubled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/utf8.h"
#include "model/text/vocab_impl.h"

/* The words stand between bars; the rules they follow are those of the models' own tokenizers. */
static const struct {
    const char *name, *text, *words;
} cuts[] = {
    {"gpt-2", "I'm he'LL 12345  ok!\n\n x", "I|'m| he|'|LL| 12345| | ok|!|\n\n| x"},
    {"olmo", "a  b", "a| | b"},
    {"smollm", "a 123 b", "a| |1|2|3| b"},
    {"refact", "v1.25", "v|1|.|2|5"},
    {"starcoder", "x=12", "x|=|1|2"},
    {"default", "a=1234 b", "a|=|123|4| b"},
    {"falcon", "`x` 1234", "`|x|`| |123|4"},
    {"llama-bpe", "x'LL 12345\n\n y", "x|'LL| |123|45|\n\n| y"},
    {"llama-bpe", "(the), a.\n\n  b", "(the|),| a|.\n\n| | b"},
    {"falcon3", "x 12345", "x| |123|45"},
    {"dbrx", "x'Re 12345", "x|'Re| |123|45"},
    {"qwen2", "x'LL 123\r\n", "x|'LL| |1|2|3|\r\n"},
    {"deepseek-r1-qwen", "a 12", "a| |1|2"},
    {"tekken", "HelloWORLD don't a/b/\n12", "Hello|WORLD| don|'t| a|/b|/\n|1|2"},
    {"tekken", "\xC3\x89t\xC3\xA9\xC3\x89T", "\xC3\x89t\xC3\xA9|\xC3\x89T"},
    {"gpt-4o", "Don't I'LL HTTPServer 1234", "Don't| I'LL| HTTPServer| |123|4"},
    {"gpt-4o", "camelCase", "camel|Case"},
    {"llama4", "x//\n", "x|//\n"},
    {"deepseek-v3", "12345\xE4\xB8\xAD\xE6\x96\x87 abc .x",
     "123|45|\xE4\xB8\xAD\xE6\x96\x87| abc| .|x"},
    {"seed-coder", "a!\n12", "a|!|\n|1|2"},
};

struct joined {
    char text[256];
    size_t n;
};

static int add_word(void *arg, const char *word, size_t n)
{
    struct joined *j = arg;
    assert_true(n > 0 && j->n + n + 1 < sizeof j->text);
    if (j->n) j->text[j->n++] = '|';
    memcpy(j->text + j->n, word, n);
    j->n += n;
    j->text[j->n] = 0;
    return 0;
}

static struct pretok *open_pretok(const char *name)
{
    struct pretok *p;
    struct err e = ERR_INIT;
    if (pretok_open((struct gguf_str){name, strlen(name)}, "some.gguf", &p, &e))
        fail_msg("%s", e.text);
    return p;
}

static void test_cuts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct joined j = {{0}, 0};
        struct pretok *p = open_pretok(cuts[i].name);
        assert_int_equal(pretok_split(p, cuts[i].text, strlen(cuts[i].text), add_word, &j, NULL),
                         0);
        pretok_close(p);
        if (strcmp(j.text, cuts[i].words) != 0)
            fail_msg("%s: \"%s\" instead of \"%s\"", cuts[i].name, j.text, cuts[i].words);
    }
}

/* Names under which a pattern goes, too. */
static const struct {
    const char *names, *like;
} same[] = {
    {"phi-2 mpt olmo jais gigachat exaone4 trillion granite-docling jina-es jina-de jina-v2-es "
     "jina-v2-de a.x-4.0 mellum modern-bert",
     "gpt-2"},
    {"starcoder refact command-r codeshell exaone minerva-7b", "smollm"},
    {"llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0 jina-v5-nano", "llama-bpe"},
    {"smaug-bpe glm4 chatglm-bpe", "dbrx"},
    {"kormo f2llmv2 grok-2 deepseek-r1-qwen megrez stablelm2 hunyuan solar-open", "qwen2"},
    {"llama4 kanana2 talkie minimax-m2", "gpt-4o"},
    {"hunyuan-dense joyai-llm", "deepseek-v3"},
};

static void cut(struct pretok *p, struct joined *j)
{
    static const char text[] = "I'm HTTPServer, we'LL 12345.6  a/b//\n\n \t x\xCC\x81\xC3\x89t "
                               "\xE4\xB8\xAD\xE6\x96\x87 .abc `x`$ \r\n";
    *j = (struct joined){{0}, 0};
    assert_int_equal(pretok_split(p, text, sizeof text - 1, add_word, j, NULL), 0);
}

static void test_same_patterns(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct joined want, got;
        struct pretok *like = open_pretok(same[i].like);
        cut(like, &want);
        char names[256], *rest = names;
        snprintf(names, sizeof names, "%s", same[i].names);
        for (char *name; (name = strsep(&rest, " "));) {
            struct pretok *p = open_pretok(name);
            cut(p, &got);
            if (strcmp(got.text, want.text) != 0) fail_msg("%s: %s", name, got.text);
            assert_int_equal(pretok_whole_words(p), pretok_whole_words(like));
            assert_int_equal(pretok_adds_bos(p), pretok_adds_bos(like));
            pretok_close(p);
        }
        pretok_close(like);
    }
}

/* Words follow each other without a gap, whatever the text. */
static int count_bytes(void *arg, const char *word, size_t n)
{
    const char **at = arg;
    assert_ptr_equal(word, *at);
    *at += n;
    return 0;
}

static void test_nothing_is_lost(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 3, 0);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct pretok *p = open_pretok(cuts[i].name);
        for (int round = 0; round < 200; round++) {
            char text[400];
            size_t n = 0;
            for (uint32_t k = rng_below(&r, 90); k > 0; k--) {
                uint32_t code = rng_below(&r, 3) ? rng_below(&r, 128) : rng_below(&r, 0xD800);
                n += utf8_put(code, text + n);
            }
            const char *at = text;
            assert_int_equal(pretok_split(p, text, n, count_bytes, &at, NULL), 0);
            assert_ptr_equal(at, text + n);
        }
        pretok_close(p);
    }
}

/* Which models take whole words before merging, and which begin with BOS unless told. */
static void test_flags(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool whole, bos;
    } flags[] = {{"llama-bpe", true, true}, {"tekken", true, true},    {"falcon3", true, true},
                 {"dbrx", false, false},    {"gpt-4o", false, false},  {"qwen2", false, false},
                 {"gpt-2", false, false},   {"default", false, false}, {"refact", false, false}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        struct pretok *p = open_pretok(flags[i].name);
        assert_int_equal(pretok_whole_words(p), flags[i].whole);
        assert_int_equal(pretok_adds_bos(p), flags[i].bos);
        pretok_close(p);
    }
}

static void test_unknown_name(void **state)
{
    (void)state;
    struct pretok *p;
    struct err e = ERR_INIT;
    assert_int_equal(pretok_open((struct gguf_str){"llama-bp", 8}, "some.gguf", &p, &e),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "\"llama-bp\""));
    assert_non_null(strstr(e.text, "some.gguf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_same_patterns),
        cmocka_unit_test(test_nothing_is_lost),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_unknown_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
