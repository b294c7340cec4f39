/*
 * vocab_spm: SentencePiece BPE. The text, with spaces as U+2581, starts as characters; the pair
 * whose joined piece has the highest score merges first (the leftmost on a tie), until none is
 * left. Characters without a token fall back to byte tokens.
 */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/text/merge_heap.h"
#include "model/text/vocab_impl.h"

struct spm {
    const struct vocab *v;
    struct symbol *symbols;
    uint32_t n;
    struct merge_heap heap;
};

/* Whether a text may become this token: it must not spell control tokens, nor bytes by their names.
 */
static bool is_text(const struct vocab *v, int32_t token)
{
    if (token < 0) return false;
    uint8_t kind = v->tokens[token].kind;
    return kind != TOKEN_CONTROL && kind != TOKEN_BYTE && kind != TOKEN_UNKNOWN;
}

static void consider(struct spm *s, uint32_t left)
{
    if (left == UINT32_MAX || s->symbols[left].after == UINT32_MAX) return;
    const struct symbol *a = &s->symbols[left], *b = &s->symbols[a->after];
    uint32_t len = a->len + b->len; /* neighbours in the list are neighbours in the text */
    int32_t token =
        len <= VOCAB_PIECE_MAX ? piece_map_find(&s->v->by_piece, s->v->tokens, a->text, len) : -1;
    if (is_text(s->v, token))
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
    if (is_text(v, token)) return token_list_push(out, token);
    for (uint32_t i = 0; i < s->len; i++)
        if (v->byte_token[(uint8_t)s->text[i]] < 0) return token_list_push(out, v->unknown);
    int code = 0;
    for (uint32_t i = 0; i < s->len && code == 0; i++)
        code = token_list_push(out, v->byte_token[(uint8_t)s->text[i]]);
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

static size_t character_len(const char *text, size_t n)
{
    uint32_t code;
    size_t len = utf8_decode(text, n, &code);
    return len ? len : 1;
}

/* The list of characters to merge; room for as many as there are. */
static int split_characters(struct spm *s, const char *text, size_t n)
{
    size_t count = 0;
    for (size_t at = 0; at < n; count++)
        at += character_len(text + at, n - at);
    s->symbols = mem_alloc(count * sizeof *s->symbols);
    s->heap.items = mem_alloc(2 * count * sizeof *s->heap.items);
    if (!s->symbols || !s->heap.items) return ERR_NO_MEMORY;
    for (size_t at = 0; at < n; s->n++) {
        size_t len = character_len(text + at, n - at);
        s->symbols[s->n] = (struct symbol){text + at, (uint32_t)len, -1, s->n - 1, s->n + 1};
        at += len;
    }
    s->symbols[0].before = UINT32_MAX;
    s->symbols[s->n - 1].after = UINT32_MAX;
    return 0;
}

int spm_encode(const struct vocab *v, const char *text, size_t n, bool start,
               struct token_list *out, struct err *e)
{
    struct buf escaped;
    buf_init(&escaped, 3 * n + 4);
    struct spm s = {.v = v};
    int code = n > UINT32_MAX / 16 ? ERR_LIMIT : escape(v, text, n, start, &escaped);
    if (code == 0) code = split_characters(&s, escaped.data, escaped.len);
    if (code == 0) {
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
