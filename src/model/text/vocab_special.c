/*
 * vocab_special: control tokens, the unknown one, and user-defined tokens in a text. They stand
 * sorted by their bytes; the range of those that agree with the text so far is narrowed byte by
 * byte, so that the time for a place in the text hardly depends on how many there are (some
 * vocabularies have thousands).
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/text/vocab_impl.h"

static bool is_special(const struct token *t)
{
    bool special = t->kind == TOKEN_CONTROL || t->kind == TOKEN_USER || t->kind == TOKEN_UNKNOWN;
    return special && t->len > 0;
}

/* By bytes, a prefix before what it begins; equal ones by number. */
static int compare(const void *a, const void *b)
{
    const struct token *x = *(const struct token *const *)a;
    const struct token *y = *(const struct token *const *)b;
    int order = memcmp(x->piece, y->piece, x->len < y->len ? x->len : y->len);
    if (order) return order;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return (x > y) - (x < y);
}

/* Files may call a token of a chat template user-defined, which a text may spell; who can write
 * one could forge a turn. */
void specials_promote(struct vocab *v)
{
    static const char *const pieces[] = {"<s>",
                                         "</s>",
                                         "<bos>",
                                         "<eos>",
                                         "<|im_start|>",
                                         "<|im_end|>",
                                         "<|im_sep|>",
                                         "<|begin_of_text|>",
                                         "<|end_of_text|>",
                                         "<|endoftext|>",
                                         "<|start_header_id|>",
                                         "<|end_header_id|>",
                                         "<|eot_id|>",
                                         "<|eom_id|>",
                                         "<start_of_turn>",
                                         "<end_of_turn>",
                                         "<|system|>",
                                         "<|user|>",
                                         "<|assistant|>",
                                         "<|end|>",
                                         "<|start_of_role|>",
                                         "<|end_of_role|>",
                                         "[INST]",
                                         "[/INST]",
                                         "[SYSTEM_PROMPT]",
                                         "[/SYSTEM_PROMPT]",
                                         "<\357\275\234User\357\275\234>",
                                         "<\357\275\234Assistant\357\275\234>"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        int32_t id = vocab_find(v, pieces[i], strlen(pieces[i]));
        if (id >= 0 && v->tokens[id].kind == TOKEN_USER) v->tokens[id].kind = TOKEN_CONTROL;
    }
}

size_t vocab_swallows(const struct vocab *v, int32_t before, const char *text, size_t n)
{
    size_t at = 0;
    if (!v->strips || before == v->bos || before == v->unknown) return 0;
    const struct token *t = &v->tokens[before];
    if (!is_special(t) || (t->len == 13 && memcmp(t->piece, "<|endoftext|>", 13) == 0)) return 0;
    while (at < n && (text[at] == ' ' || (text[at] >= '\t' && text[at] <= '\r')))
        at++;
    return at;
}

int specials_open(struct vocab *v)
{
    uint32_t n = 0, kept = 0;
    for (uint32_t i = 0; i < v->size; i++)
        n += is_special(&v->tokens[i]);
    v->specials = mem_calloc(n, sizeof *v->specials);
    if (!v->specials) return ERR_NO_MEMORY;
    for (uint32_t i = 0, to = 0; i < v->size; i++)
        if (is_special(&v->tokens[i])) v->specials[to++] = &v->tokens[i];
    qsort(v->specials, n, sizeof *v->specials, compare);
    for (uint32_t i = 0; i < n; i++) { /* of equal pieces the first counts */
        const struct token *t = v->specials[i], *last = kept ? v->specials[kept - 1] : NULL;
        if (last && last->len == t->len && memcmp(last->piece, t->piece, t->len) == 0) continue;
        v->specials[kept++] = t;
        v->special_from[(uint8_t)t->piece[0] + 1]++;
    }
    for (int b = 0; b < 256; b++)
        v->special_from[b + 1] += v->special_from[b];
    return 0;
}

/* The first in [low, high), all of them longer than `at`, whose byte there is `byte` or above. */
static uint32_t first_from(const struct vocab *v, uint32_t low, uint32_t high, uint32_t at,
                           unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uint8_t)v->specials[middle]->piece[at] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest that text[n], n > 0, begins with, or NULL. */
static const struct token *special_at(const struct vocab *v, const char *text, size_t n,
                                      bool control)
{
    const struct token *best = NULL;
    uint32_t low = v->special_from[(uint8_t)text[0]], high = v->special_from[(uint8_t)text[0] + 1];
    for (uint32_t same = 1; low < high; same++) { /* all in the range begin with text[same] */
        const struct token *t = v->specials[low];
        if (t->len == same) {
            if (control || t->kind == TOKEN_USER) best = t;
            low++;
        }
        if (same == n) break;
        unsigned byte = (uint8_t)text[same];
        low = first_from(v, low, high, same, byte);
        high = first_from(v, low, high, same, byte + 1);
    }
    return best;
}

int32_t vocab_next_special(const struct vocab *v, const char *text, size_t n, bool control,
                           size_t *ret_at, size_t *ret_len)
{
    for (size_t at = 0; at < n; at++) {
        const struct token *t = special_at(v, text + at, n - at, control);
        if (!t) continue;
        *ret_at = at;
        *ret_len = t->len;
        return (int32_t)(t - v->tokens);
    }
    return -1;
}
