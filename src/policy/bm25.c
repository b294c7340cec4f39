/* bm25: see bm25.h. */
#include "policy/bm25.h"

#include <stdbool.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/utf8.h"

/* ---- words ---- */

enum letter { NO_LETTER, LETTER, WORD_ITSELF };

/* Blocks of CJK radicals to hangul syllables, compatibility ideographs, and the planes 2 and 3. */
static bool is_ideograph(uint32_t code)
{
    return (code >= 0x2e80 && code < 0xd7b0 && !(code >= 0x3000 && code < 0x3005)) ||
           (code >= 0xf900 && code < 0xfb00) || (code >= 0x20000 && code < 0x40000);
}

static bool is_punctuation(uint32_t code)
{
    return (code >= 0x80 && code < 0xc0 && code != 0xaa && code != 0xb5 && code != 0xba) ||
           code == 0xd7 || code == 0xf7 || (code >= 0x2000 && code < 0x2c00) ||
           (code >= 0x3000 && code < 0x3005) || (code >= 0xfe30 && code < 0xfe50) ||
           (code >= 0xff00 && code < 0xff10);
}

static enum letter letter_of(uint32_t code)
{
    if (code < 0x80)
        return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') ||
                       (code >= 'A' && code <= 'Z')
                   ? LETTER
                   : NO_LETTER;
    if (is_punctuation(code)) return NO_LETTER;
    return is_ideograph(code) ? WORD_ITSELF : LETTER;
}

static uint32_t lower(uint32_t code)
{
    return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
}

/* What bm25_words has read. `letters` 0: it is outside a word. */
struct word_reader {
    const uint32_t *ends;
    uint32_t n, token; /* the token of the byte that it reads */
    uint64_t hash;
    uint32_t letters, begun; /* `begun`: the token of the word's first byte */
    struct bm25_word *words;
    uint32_t count, cap;
};

static void finish_word(struct word_reader *r)
{
    if (r->letters == 0) return;
    r->letters = 0;
    if (r->count < r->cap)
        r->words[r->count] = (struct bm25_word){(uint32_t)(r->hash ^ r->hash >> 32), r->begun};
    r->count++;
}

static void read_character(struct word_reader *r, size_t at, uint32_t code)
{
    enum letter kind = letter_of(code);
    if (kind != LETTER) finish_word(r);
    if (kind == NO_LETTER) return;
    if (r->letters == 0) {
        while (r->token + 1 < r->n && r->ends[r->token] <= at)
            r->token++;
        r->begun = r->token;
        r->hash = FNV_BEGIN;
    }
    if (r->letters++ < BM25_PREFIX) r->hash = fnv_step(r->hash, lower(code));
    if (kind == WORD_ITSELF) finish_word(r);
}

uint32_t bm25_words(const char *text, size_t len, const uint32_t *ends, uint32_t n,
                    struct bm25_word *ret_words, uint32_t cap)
{
    struct word_reader r = {.ends = ends, .n = n, .words = ret_words, .cap = cap};
    for (size_t at = 0; at < len;) {
        uint32_t code = ' ';
        size_t bytes = utf8_decode(text + at, len - at, &code);
        if (bytes == 0) code = ' ';
        read_character(&r, at, code);
        at += bytes ? bytes : 1;
    }
    finish_word(&r);
    return r.count;
}

/* The character that ends in front of `at`: where it begins; an invalid byte is a blank. */
static size_t character_before(const char *text, size_t at, uint32_t *ret_code)
{
    for (size_t n = 1; n <= 4 && n <= at; n++)
        if (utf8_decode(text + at - n, n, ret_code) == n) return at - n;
    *ret_code = ' ';
    return at - 1;
}

/* Whether a line begins at `at`, and the line in front of it is empty. */
static bool begins_paragraph(const char *text, size_t at)
{
    if (at < 2 || text[at - 1] != '\n') return false;
    for (at--; at > 0 && (text[at - 1] == '\r' || text[at - 1] == ' ' || text[at - 1] == '\t');)
        at--;
    return at > 0 && text[at - 1] == '\n';
}

size_t bm25_question(const char *text, size_t len)
{
    uint32_t words = 0, in_line = 0, code;
    size_t at = len, list = len; /* list: where its first line begins that is known to be short */
    bool inside = false;
    while (at > 0) {
        const bool line = text[at - 1] == '\n';
        if (words > 0 && begins_paragraph(text, at)) return at;
        if (line && words > 0) list = at;
        if (line) in_line = 0;
        const size_t before = character_before(text, at, &code);
        const enum letter kind = letter_of(code);
        const uint32_t more = kind == WORD_ITSELF || (kind == LETTER && !inside);
        words += more;
        in_line += more;
        const bool listed = list < len && in_line <= BM25_LIST_LINE && words <= BM25_LIST;
        if (words > BM25_QUESTION && !listed) return list < len ? list : at;
        inside = kind == LETTER;
        at = before;
    }
    return 0;
}

/* ---- scores ---- */

/* log2(x) in units of 1 / 65536, x >= 1: the whole part by shifting, the bits of the rest by
 * squaring. Integers, so that no library of mathematics decides a score. */
static int32_t log2_fixed(uint32_t x)
{
    int32_t result = 0;
    uint64_t y = (uint64_t)x << 31;
    for (; y >= 1ull << 32; y >>= 1)
        result += 1 << 16;
    for (int32_t bit = 1 << 15; bit > 0; bit >>= 1) {
        y = y * y >> 31;
        if (y < 1ull << 32) continue;
        y >>= 1;
        result += bit;
    }
    return result;
}

/* A distinct word of the question. Counts and sums are of its occurrences in reach of the unit: at
 * most at its middle (before), and after it. Whole numbers, so their order does not matter. */
struct term {
    uint32_t word, units; /* units with tf > 0 */
    int64_t before, after, before_sum, after_sum;
    float idf;
};

/* Open addressing; a slot holds index + 1 of a term. */
enum { SLOTS = 4 * BM25_WORDS_MAX };
struct terms {
    struct term terms[BM25_WORDS_MAX];
    uint32_t n;
    uint8_t slots[SLOTS];
};
_Static_assert(BM25_WORDS_MAX < 256, "a slot is a byte");

static uint32_t slot_of(const struct terms *t, uint32_t word)
{
    uint32_t i = word % SLOTS;
    while (t->slots[i] && t->terms[t->slots[i] - 1].word != word)
        i = (i + 1) % SLOTS;
    return i;
}

static struct term *find_term(struct terms *t, uint32_t word)
{
    uint8_t slot = t->slots[slot_of(t, word)];
    return slot ? &t->terms[slot - 1] : NULL;
}

static void add_question(struct terms *t, const struct bm25_word *question, uint32_t n)
{
    for (uint32_t i = 0; i < n && t->n < BM25_WORDS_MAX; i++) {
        uint32_t slot = slot_of(t, question[i].word);
        if (t->slots[slot]) continue;
        t->terms[t->n++] = (struct term){.word = question[i].word};
        t->slots[slot] = (uint8_t)t->n;
    }
}

/* Words as the middle of the unit moves on: first the words that come in reach, then those that it
 * passes, then those that it leaves behind. */
struct sweep {
    const struct bm25_word *words;
    uint32_t n, entered, passed, left;
};

static void move_to(struct sweep *s, struct terms *t, int64_t middle)
{
    for (; s->entered < s->n && s->words[s->entered].at < middle + BM25_REACH; s->entered++) {
        struct term *term = find_term(t, s->words[s->entered].word);
        if (!term) continue;
        term->after++;
        term->after_sum += s->words[s->entered].at;
    }
    for (; s->passed < s->n && s->words[s->passed].at <= middle; s->passed++) {
        struct term *term = find_term(t, s->words[s->passed].word);
        if (!term) continue;
        int64_t at = s->words[s->passed].at;
        term->after--;
        term->after_sum -= at;
        term->before++;
        term->before_sum += at;
    }
    for (; s->left < s->n && s->words[s->left].at <= middle - BM25_REACH; s->left++) {
        struct term *term = find_term(t, s->words[s->left].word);
        if (!term) continue;
        term->before--;
        term->before_sum -= s->words[s->left].at;
    }
}

/* tf * BM25_REACH */
static int64_t nearness(const struct term *term, int64_t middle)
{
    return term->before * (BM25_REACH - middle) + term->before_sum +
           term->after * (BM25_REACH + middle) - term->after_sum;
}

static float score_unit(const struct terms *t, int64_t middle)
{
    float score = 0.0f;
    for (uint32_t i = 0; i < t->n; i++) {
        float tf = (float)nearness(&t->terms[i], middle) / (float)BM25_REACH;
        score += t->terms[i].idf * (tf * (BM25_K1 + 1.0f) / (tf + BM25_K1));
    }
    return score;
}

static int64_t middle_of(uint32_t u, uint32_t unit, uint32_t n_tokens)
{
    int64_t start = (int64_t)u * unit, end = start + unit < n_tokens ? start + unit : n_tokens;
    return (start + end) / 2;
}

/* Counts are begun anew, so that the second sweep can start; returns what the text knows. */
static float weigh_terms(struct terms *t, uint32_t units)
{
    int64_t all = 0, found = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        struct term *term = &t->terms[i];
        int32_t idf = log2_fixed(2 * units + 2) - log2_fixed(2 * term->units + 1);
        all += idf;
        found += term->units > 0 ? idf : 0;
        *term = (struct term){.word = term->word, .idf = (float)idf / 65536.0f};
    }
    return all > 0 ? (float)found / (float)all : 0.0f;
}

void bm25_score(const struct bm25_word *words, uint32_t n_words, uint32_t n_tokens, uint32_t unit,
                const struct bm25_word *question, uint32_t n_question, float *ret_scores)
{
    CHECK(unit > 0);
    struct terms t = {0};
    uint32_t units = n_tokens / unit + (n_tokens % unit != 0);
    struct sweep first = {.words = words, .n = n_words}, second = first;
    add_question(&t, question, n_question);
    for (uint32_t u = 0; u < units; u++) {
        int64_t middle = middle_of(u, unit, n_tokens);
        move_to(&first, &t, middle);
        for (uint32_t i = 0; i < t.n; i++)
            t.terms[i].units += nearness(&t.terms[i], middle) > 0;
    }
    const float known = weigh_terms(&t, units);
    for (uint32_t u = 0; u < units; u++) {
        int64_t middle = middle_of(u, unit, n_tokens);
        move_to(&second, &t, middle);
        ret_scores[u] = known * score_unit(&t, middle);
    }
}

int bm25_score_text(const char *text, size_t len, const uint32_t *ends, uint32_t n,
                    const char *question, size_t question_len, float *ret_scores, struct err *e)
{
    uint32_t n_words = bm25_words(text, len, ends, n, NULL, 0);
    uint32_t asked = bm25_words(question, question_len, NULL, 0, NULL, 0);
    struct bm25_word *words = mem_alloc(((size_t)n_words + asked + 1) * sizeof *words);
    if (!words) return err_set(e, ERR_NO_MEMORY, "no memory for the words of a prompt");
    bm25_words(text, len, ends, n, words, n_words);
    bm25_words(question, question_len, NULL, 0, words + n_words, asked);
    bm25_score(words, n_words, n, 1, words + n_words, asked, ret_scores);
    mem_free(words);
    return 0;
}
