/*
 * vocab_spm: SentencePiece BPE. The text, with spaces as U+2581, starts as characters; the pair
 * whose joined piece has the highest score merges first (the leftmost on a tie), until none is
 * left. Characters without a token fall back to byte tokens.
 */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/merge_heap.h"
#include "model/vocab_impl.h"

struct spm {
    const struct vocab *v;
    struct symbol *symbols;
    uint32_t n;
    struct merge_heap heap;
};

static void consider(struct spm *s, uint32_t left)
{
    if (left == UINT32_MAX || s->symbols[left].after == UINT32_MAX) return;
    const struct symbol *a = &s->symbols[left], *b = &s->symbols[a->after];
    uint32_t len = a->len + b->len; /* neighbours in the list are neighbours in the text */
    int32_t token =
        len <= VOCAB_PIECE_MAX ? piece_map_find(&s->v->by_piece, s->v->tokens, a->text, len) : -1;
    /* A user's text must not be able to spell a control token. */
    if (token >= 0 && s->v->tokens[token].kind != TOKEN_CONTROL)
        merge_heap_push(&s->heap, (struct candidate){-s->v->tokens[token].score, left, len, token});
}

static void merge_all(struct spm *s)
{
    struct candidate c;
    for (uint32_t i = 0; i + 1 < s->n; i++)
        consider(s, i);
    while (merge_heap_pop(&s->heap, &c)) {
        struct symbol *left = &s->symbols[c.left];
        if (left->len == 0 || left->after == UINT32_MAX ||
            left->len + s->symbols[left->after].len != c.len)
            continue;
        symbol_join(s->symbols, c.left, c.result);
        consider(s, left->before);
        consider(s, c.left);
    }
}

static int emit_symbol(const struct vocab *v, const struct symbol *s, struct token_list *out)
{
    int32_t token = piece_map_find(&v->by_piece, v->tokens, s->text, s->len);
    if (token >= 0 && v->tokens[token].kind != TOKEN_CONTROL) return token_list_push(out, token);
    int code = 0;
    for (uint32_t i = 0; i < s->len && code == 0; i++) {
        int32_t byte = v->byte_token[(uint8_t)s->text[i]];
        if (byte < 0) byte = v->unknown;
        if (byte >= 0) code = token_list_push(out, byte);
    }
    return code;
}

/* The text with U+2581 for spaces, one more in front where the model wants it. */
static int escape(const struct vocab *v, const char *text, size_t n, bool start, struct buf *out)
{
    int code = start && v->space_prefix ? buf_append(out, "\xE2\x96\x81", 3) : 0;
    for (size_t i = 0; i < n && code == 0; i++)
        code = text[i] == ' ' ? buf_append(out, "\xE2\x96\x81", 3) : buf_putc(out, text[i]);
    return code;
}

static void split_characters(struct spm *s, const char *text, size_t n)
{
    for (size_t at = 0; at < n; s->n++) {
        uint32_t code;
        size_t len = utf8_decode(text + at, n - at, &code);
        s->symbols[s->n] =
            (struct symbol){text + at, (uint32_t)(len ? len : 1), -1, s->n - 1, s->n + 1};
        at += len ? len : 1;
    }
    s->symbols[0].before = UINT32_MAX;
    s->symbols[s->n - 1].after = UINT32_MAX;
}

int spm_encode(const struct vocab *v, const char *text, size_t n, bool start,
               struct token_list *out, struct err *e)
{
    struct buf escaped;
    buf_init(&escaped, 3 * n + 4);
    struct spm s = {.v = v};
    int code = n > UINT32_MAX / 16 ? ERR_LIMIT : escape(v, text, n, start, &escaped);
    if (code == 0) {
        s.symbols = mem_alloc(escaped.len * sizeof *s.symbols);
        s.heap.items = mem_alloc(2 * escaped.len * sizeof *s.heap.items);
        code = s.symbols && s.heap.items ? 0 : ERR_NO_MEMORY;
    }
    if (code == 0) {
        split_characters(&s, escaped.data, escaped.len);
        merge_all(&s);
        for (uint32_t i = 0; i != UINT32_MAX && code == 0; i = s.symbols[i].after)
            code = emit_symbol(v, &s.symbols[i], out);
    }
    mem_free(s.symbols);
    mem_free(s.heap.items);
    buf_release(&escaped);
    if (code == ERR_LIMIT)
        return err_set(e, code, "the text of %zu bytes has more than %u tokens", n, out->max);
    return code ? err_set(e, code, "no memory to tokenize %zu bytes", n) : 0;
}
