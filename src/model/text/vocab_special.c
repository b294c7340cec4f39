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

/* Files may call a token of a chat template user-defined, which a text may spell, or ordinary; who
 * can write one could forge a turn. */
static void promote(struct vocab *v, int32_t id)
{
    struct token *t = &v->tokens[id];
    size_t at = strlen(v->mended);
    if (t->kind == TOKEN_NORMAL && t->len < 40 && at + t->len + 3 < sizeof v->mended) {
        if (at) memcpy(v->mended + at, ", ", 2);
        memcpy(v->mended + at + (at ? 2 : 0), t->piece, t->len);
    }
    t->kind = TOKEN_CONTROL;
}

static bool has_ends(const struct token *t, const char *first, const char *last)
{
    size_t a = strlen(first), b = strlen(last);
    return t->len > a + b && memcmp(t->piece, first, a) == 0 &&
           memcmp(t->piece + t->len - b, last, b) == 0;
}

/* "<|user|>", "<|turn>", "<turn|>", and the same with wide bars. */
static bool is_barred(const struct token *t)
{
    return has_ends(t, "<|", ">") || has_ends(t, "<", "|>") ||
           has_ends(t, "<\357\275\234", "\357\275\234>");
}

/* "[INST]", "[/INST]": capitals in brackets. */
static bool is_bracketed(const struct token *t)
{
    if (!has_ends(t, "[", "]")) return false;
    for (uint32_t i = 1; i + 1 < t->len; i++)
        if (!((t->piece[i] >= 'A' && t->piece[i] <= 'Z') || t->piece[i] == '_' ||
              (i == 1 && t->piece[i] == '/')))
            return false;
    return true;
}

static bool is_text_or_user(const struct token *t)
{
    return t->kind == TOKEN_NORMAL || t->kind == TOKEN_USER;
}

void specials_promote(struct vocab *v)
{
    static const struct {
        const char *piece;
        bool any; /* of ordinary tokens, too: no text has it by chance */
    } names[] = {{"<s>", false},
                 {"</s>", false},
                 {"<bos>", false},
                 {"<eos>", false},
                 {"<|im_start|>", true},
                 {"<|im_end|>", true},
                 {"<|im_sep|>", true},
                 {"<|begin_of_text|>", true},
                 {"<|end_of_text|>", true},
                 {"<|endoftext|>", true},
                 {"<|start_header_id|>", true},
                 {"<|end_header_id|>", true},
                 {"<|eot_id|>", true},
                 {"<|eom_id|>", true},
                 {"<start_of_turn>", true},
                 {"<end_of_turn>", true},
                 {"<|system|>", true},
                 {"<|user|>", true},
                 {"<|assistant|>", true},
                 {"<|end|>", true},
                 {"<|start_of_role|>", true},
                 {"<|end_of_role|>", true},
                 {"<|end_of_turn|>", true},
                 {"[INST]", false},
                 {"[/INST]", false},
                 {"[SYSTEM_PROMPT]", false},
                 {"[/SYSTEM_PROMPT]", false},
                 {"<\357\275\234User\357\275\234>", true},
                 {"<\357\275\234Assistant\357\275\234>", true}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t id = vocab_find(v, names[i].piece, strlen(names[i].piece));
        if (id < 0) continue;
        uint8_t kind = v->tokens[id].kind;
        if (kind == TOKEN_USER || (kind == TOKEN_NORMAL && names[i].any)) promote(v, id);
    }
}

bool specials_promote_used(struct vocab *v, const char *chat_template, size_t n)
{
    bool any = false;
    for (uint32_t i = 0; i < v->size; i++) {
        const struct token *t = &v->tokens[i];
        if (!is_text_or_user(t) || !(is_barred(t) || is_bracketed(t)) || t->len > n) continue;
        if (!memmem(chat_template, n, t->piece, t->len)) continue;
        promote(v, (int32_t)i);
        any = true;
    }
    return any;
}

void specials_promote_named(struct vocab *v, int32_t id)
{
    if (id < 0 || !is_text_or_user(&v->tokens[id])) return;
    if (has_ends(&v->tokens[id], "<", ">") || is_bracketed(&v->tokens[id])) promote(v, id);
}

int vocab_mend(struct vocab *v, const char *chat_template, size_t n, struct err *e)
{
    if (!specials_promote_used(v, chat_template, n) || specials_open(v) == 0) return 0;
    return err_set(e, ERR_NO_MEMORY, "no memory for control tokens");
}

const char *vocab_mended(const struct vocab *v)
{
    return v->mended;
}

const char *vocab_spelling(const struct vocab *v, int32_t id, size_t *ret_len)
{
    *ret_len = v->tokens[id].len;
    return v->tokens[id].piece;
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
    mem_free(v->specials);
    memset(v->special_from, 0, sizeof v->special_from);
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
