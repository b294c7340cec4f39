/*
 * vocab_bpe: byte-level BPE. Pre-tokenisers cut the text into words; a word starts as one token a
 * byte, and the pair with the lowest rank in the list of merges joins first (the leftmost on a
 * tie).
 */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/text/merge_heap.h"
#include "model/text/vocab_impl.h"

enum { MERGES_MAX = 1 << 22, SHORT_WORD = 64 };

static uint32_t hash_pair(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static uint32_t *merge_slot(const struct vocab *v, int32_t left, int32_t right)
{
    uint32_t at = hash_pair(left, right) & v->merge_mask;
    while (v->merge_slots[at]) {
        const struct merge *m = &v->merges[v->merge_slots[at] - 1];
        if (m->left == left && m->right == right) break;
        at = (at + 1) & v->merge_mask;
    }
    return &v->merge_slots[at];
}

/* "left right" as in the file, split at the first space that is not the first byte. */
static int read_merge(const struct vocab *v, struct gguf_str s, struct merge *ret_merge)
{
    const char *space = s.len > 1 ? memchr(s.data + 1, ' ', s.len - 1) : NULL;
    if (!space || s.len > 2 * VOCAB_PIECE_MAX) return -1;
    size_t left = (size_t)(space - s.data), right = s.len - left - 1;
    char joined[2 * VOCAB_PIECE_MAX];
    memcpy(joined, s.data, left);
    memcpy(joined + left, space + 1, right);
    ret_merge->left = vocab_find(v, s.data, left);
    ret_merge->right = vocab_find(v, space + 1, right);
    ret_merge->result = vocab_find(v, joined, left + right);
    return ret_merge->left < 0 || ret_merge->right < 0 || ret_merge->result < 0 ? -1 : 0;
}

static int read_merges(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_array a;
    int code = gguf_array(g, "tokenizer.ggml.merges", &a, e);
    if (code) return code;
    if (a.type != 8 || a.n > MERGES_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s: tokenizer.ggml.merges: up to %d strings expected",
                       gguf_name(g), MERGES_MAX);
    uint32_t slots = 16;
    while (slots < a.n * 2)
        slots *= 2;
    v->merges = mem_calloc(a.n, sizeof *v->merges);
    v->merge_slots = mem_calloc(slots, sizeof *v->merge_slots);
    v->merge_mask = slots - 1;
    if (!v->merges || !v->merge_slots)
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for its merges", gguf_name(g));
    const uint8_t *at = a.data;
    uint32_t first = 0;
    for (uint32_t i = 0; i < a.n; i++) {
        struct merge *m = &v->merges[i];
        if (read_merge(v, gguf_array_next_text(&at), m) != 0) {
            if (v->merges_passed++ == 0) first = i;
            continue;
        }
        uint32_t *slot = merge_slot(v, m->left, m->right);
        if (!*slot) *slot = i + 1;
    }
    if (a.n == 0 || v->merges_passed < a.n) return 0;
    return err_set(e, ERR_BAD_INPUT,
                   "%s: tokenizer.ggml.merges: none joins two tokens to a third, from number %u on",
                   gguf_name(g), first);
}

int bpe_open(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_str pre = {"default", 7};
    int code = gguf_has(g, "tokenizer.ggml.pre") ? gguf_text(g, "tokenizer.ggml.pre", &pre, e) : 0;
    if (code == 0) code = pretok_open(pre, gguf_name(g), &v->pretok, e);
    /* Some real vocabularies lack bytes that no text holds (0xC0, control characters). */
    for (int b = ' '; b < 127 && code == 0; b++)
        if (v->byte_token[b] < 0)
            code = err_set(e, ERR_BAD_INPUT, "%s: tokenizer.ggml.tokens: no token for byte 0x%02X",
                           gguf_name(g), b);
    if (code == 0 && !gguf_has(g, "tokenizer.ggml.add_bos_token"))
        v->add_bos = pretok_adds_bos(v->pretok);
    return code ? code : read_merges(v, g, e);
}

void bpe_close(struct vocab *v)
{
    pretok_close(v->pretok);
    mem_free(v->merges);
    mem_free(v->merge_slots);
}

struct bpe {
    const struct vocab *v;
    struct token_list *out;
    struct symbol *symbols; /* room for the longest word so far */
    struct merge_heap heap;
    size_t room;
    struct symbol short_symbols[SHORT_WORD];
    struct candidate short_heap[2 * SHORT_WORD];
};

static int make_room(struct bpe *b, size_t n)
{
    if (n <= b->room) return 0;
    if (b->symbols != b->short_symbols) {
        mem_free(b->symbols);
        mem_free(b->heap.items);
    }
    b->symbols = mem_alloc(n * sizeof *b->symbols);
    b->heap.items = mem_alloc(2 * n * sizeof *b->heap.items);
    b->room = n;
    return b->symbols && b->heap.items ? 0 : ERR_NO_MEMORY;
}

static void consider(struct bpe *b, uint32_t left)
{
    if (left == UINT32_MAX || b->symbols[left].after == UINT32_MAX) return;
    const struct symbol *l = &b->symbols[left], *r = &b->symbols[l->after];
    uint32_t rank = *merge_slot(b->v, l->token, r->token);
    if (rank)
        merge_heap_push(&b->heap, (struct candidate){(float)rank, left, l->len + r->len,
                                                     b->v->merges[rank - 1].result});
}

/* A candidate is stale when its symbols have changed since it was pushed. */
static bool still_there(const struct bpe *b, const struct candidate *c)
{
    const struct symbol *l = &b->symbols[c->left];
    if (l->len == 0 || l->after == UINT32_MAX || l->len + b->symbols[l->after].len != c->len)
        return false;
    uint32_t rank = *merge_slot(b->v, l->token, b->symbols[l->after].token);
    return rank && (float)rank == c->rank;
}

/* The token that is the whole word, or -1. */
static int32_t whole_word(const struct vocab *v, const char *word, size_t n)
{
    char piece[VOCAB_PIECE_MAX];
    size_t len = 0;
    if (n > VOCAB_PIECE_MAX / 4) return -1;
    for (size_t i = 0; i < n; i++)
        len += utf8_put(byte_to_symbol((uint8_t)word[i]), piece + len);
    int32_t id = vocab_find(v, piece, len);
    return id >= 0 && v->tokens[id].kind == TOKEN_NORMAL ? id : -1;
}

int32_t vocab_of_bytes(const struct vocab *v, const char *bytes, size_t n)
{
    if (n == 1) return v->byte_token[(uint8_t)bytes[0]];
    if (n == 0) return -1;
    return v->kind == VOCAB_BPE ? whole_word(v, bytes, n) : vocab_find(v, bytes, n);
}

static int encode_word(void *arg, const char *word, size_t n)
{
    struct bpe *b = arg;
    int32_t whole = pretok_whole_words(b->v->pretok) ? whole_word(b->v, word, n) : -1;
    if (whole >= 0) return token_list_push(b->out, whole);
    int code = n > UINT32_MAX / 64 ? ERR_LIMIT : make_room(b, n);
    if (code) return code;
    for (uint32_t i = 0; i < n; i++)
        b->symbols[i] =
            (struct symbol){word + i, 1, b->v->byte_token[(uint8_t)word[i]], i - 1, i + 1};
    b->symbols[0].before = UINT32_MAX;
    b->symbols[n - 1].after = UINT32_MAX;
    b->heap.n = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        consider(b, i);
    struct candidate c;
    while (merge_heap_pop(&b->heap, &c)) {
        if (!still_there(b, &c)) continue;
        symbol_join(b->symbols, c.left, c.result);
        consider(b, b->symbols[c.left].before);
        consider(b, c.left);
    }
    for (uint32_t i = 0; i != UINT32_MAX && code == 0; i = b->symbols[i].after)
        if (b->symbols[i].token >= 0) code = token_list_push(b->out, b->symbols[i].token);
    return code;
}

int bpe_encode(const struct vocab *v, const char *text, size_t n, struct token_list *out,
               struct err *e)
{
    struct bpe b = {.v = v, .out = out, .room = SHORT_WORD};
    b.symbols = b.short_symbols;
    b.heap.items = b.short_heap;
    int code = pretok_split(v->pretok, text, n, encode_word, &b, e);
    if (b.symbols != b.short_symbols) {
        mem_free(b.symbols);
        mem_free(b.heap.items);
    }
    if (code == ERR_LIMIT)
        return err_set(e, code, "the text of %zu bytes has more than %u tokens", n, out->max);
    if (code == ERR_NO_MEMORY) return err_set(e, code, "no memory to tokenize %zu bytes", n);
    return code;
}
