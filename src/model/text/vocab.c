/*
 * vocab: opening, look-ups, control tokens and detokenisation; see vocab.h. The encoders are
 * vocab_spm.c and vocab_bpe.c.
 */
#include "model/text/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "model/text/vocab_impl.h"

void token_list_init(struct token_list *t, uint32_t max)
{
    *t = (struct token_list){NULL, 0, 0, max};
}

void token_list_release(struct token_list *t)
{
    mem_free(t->ids);
    token_list_init(t, t->max);
}

int token_list_append(struct token_list *t, const int32_t *ids, uint32_t n)
{
    if (n > t->max - t->len) return ERR_LIMIT;
    if (t->len + n > t->cap) {
        uint64_t cap = t->cap ? (uint64_t)t->cap * 2 : 64;
        if (cap < t->len + (uint64_t)n) cap = t->len + (uint64_t)n;
        if (cap > t->max) cap = t->max;
        int32_t *grown = mem_realloc(t->ids, cap * sizeof *grown);
        if (!grown) return ERR_NO_MEMORY;
        t->ids = grown;
        t->cap = (uint32_t)cap;
    }
    if (n) memcpy(t->ids + t->len, ids, n * sizeof *ids);
    t->len += n;
    return 0;
}

int token_list_push(struct token_list *t, int32_t id)
{
    return token_list_append(t, &id, 1);
}

/* FNV-1a over the bytes. */
static uint32_t hash_bytes(const char *p, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)p[i]) * 16777619u;
    return h ^ h >> 15;
}

int piece_map_init(struct piece_map *m, uint32_t count)
{
    uint32_t slots = 16;
    while (slots < count * 2u)
        slots *= 2;
    m->slots = mem_calloc(slots, sizeof *m->slots);
    m->mask = slots - 1;
    return m->slots ? 0 : ERR_NO_MEMORY;
}

void piece_map_release(struct piece_map *m)
{
    mem_free(m->slots);
    m->slots = NULL;
}

static uint32_t *slot_of(const struct piece_map *m, const struct token *tokens, const char *piece,
                         size_t n)
{
    uint32_t at = hash_bytes(piece, n) & m->mask;
    while (m->slots[at]) {
        const struct token *t = &tokens[m->slots[at] - 1];
        if (t->len == n && memcmp(t->piece, piece, n) == 0) break;
        at = (at + 1) & m->mask;
    }
    return &m->slots[at];
}

void piece_map_add(struct piece_map *m, const struct token *tokens, uint32_t i)
{
    uint32_t *slot = slot_of(m, tokens, tokens[i].piece, tokens[i].len);
    if (!*slot) *slot = i + 1;
}

int32_t piece_map_find(const struct piece_map *m, const struct token *tokens, const char *piece,
                       size_t n)
{
    return (int32_t)*slot_of(m, tokens, piece, n) - 1;
}

uint32_t byte_to_symbol(uint8_t b)
{
    if ((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174) return b;
    if (b <= 32) return 256u + b;
    return b == 173 ? 256u + 67 : 256u + 33 + (b - 127u);
}

int symbol_to_byte(uint32_t code)
{
    if (code < 256) return byte_to_symbol((uint8_t)code) == code ? (int)code : -1;
    if (code > 256 + 67) return -1;
    uint32_t i = code - 256;
    return i <= 32 ? (int)i : i == 67 ? 173 : (int)(127 + i - 33);
}

static int read_id(const struct gguf *g, const char *key, uint32_t size, int32_t *ret_id,
                   struct err *e)
{
    uint32_t id;
    *ret_id = -1;
    if (!gguf_has(g, key)) return 0;
    int code = gguf_u32(g, key, &id, e);
    if (code) return code;
    if (id == UINT32_MAX) return 0;
    if (id >= size)
        return err_set(e, ERR_BAD_INPUT, "%s: %s is %u, outside the vocabulary of %u", gguf_name(g),
                       key, id, size);
    *ret_id = (int32_t)id;
    return 0;
}

static int read_flag(const struct gguf *g, const char *key, bool otherwise, bool *ret_flag,
                     struct err *e)
{
    *ret_flag = otherwise;
    return gguf_has(g, key) ? gguf_bool(g, key, ret_flag, e) : 0;
}

static int copy_pieces(struct vocab *v, const struct gguf *g, const struct gguf_array *pieces,
                       struct err *e)
{
    const uint8_t *at = pieces->data;
    size_t total = 1;
    for (uint32_t i = 0; i < v->size; i++) {
        struct gguf_str s = gguf_array_next_text(&at);
        if (s.len > VOCAB_PIECE_MAX)
            return err_set(e, ERR_LIMIT,
                           "%s: tokenizer.ggml.tokens: token %u is %zu bytes long, limit %d",
                           gguf_name(g), i, s.len, VOCAB_PIECE_MAX);
        total += s.len;
    }
    v->tokens = mem_calloc(v->size, sizeof *v->tokens);
    v->memory = mem_alloc(total);
    if (!v->tokens || !v->memory || piece_map_init(&v->by_piece, v->size))
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for a vocabulary of %u", gguf_name(g),
                       v->size);
    char *to = v->memory;
    at = pieces->data;
    for (uint32_t i = 0; i < v->size; i++) {
        struct gguf_str s = gguf_array_next_text(&at);
        memcpy(to, s.data, s.len);
        v->tokens[i] = (struct token){to, (uint32_t)s.len, 0.0f, TOKEN_NORMAL};
        to += s.len;
        piece_map_add(&v->by_piece, v->tokens, i);
    }
    return 0;
}

/* Optional arrays that run beside the pieces. */
static int read_kinds(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_array a;
    if (gguf_has(g, "tokenizer.ggml.token_type")) {
        int code = gguf_array(g, "tokenizer.ggml.token_type", &a, e);
        if (code) return code;
        if (a.n != v->size)
            return err_set(e, ERR_BAD_INPUT,
                           "%s: tokenizer.ggml.token_type has another length than tokens",
                           gguf_name(g));
        for (uint32_t i = 0; i < v->size; i++) {
            int32_t kind = gguf_array_i32(&a, i);
            v->tokens[i].kind =
                (uint8_t)(kind >= TOKEN_NORMAL && kind <= TOKEN_BYTE ? kind : TOKEN_NORMAL);
        }
    }
    if (v->kind != VOCAB_SPM) return 0;
    int code = gguf_array(g, "tokenizer.ggml.scores", &a, e);
    if (code) return code;
    if (a.n != v->size || a.type != 6)
        return err_set(e, ERR_BAD_INPUT, "%s: tokenizer.ggml.scores: %u float32 values expected",
                       gguf_name(g), v->size);
    for (uint32_t i = 0; i < v->size; i++) {
        v->tokens[i].score = gguf_array_f32(&a, i);
        if (v->tokens[i].score != v->tokens[i].score)
            return err_set(e, ERR_BAD_INPUT, "%s: tokenizer.ggml.scores: value %u is not a number",
                           gguf_name(g), i);
    }
    return 0;
}

static void find_byte_tokens(struct vocab *v)
{
    for (int b = 0; b < 256; b++) {
        char piece[8];
        int n;
        if (v->kind == VOCAB_SPM)
            n = snprintf(piece, sizeof piece, "<0x%02X>", b);
        else
            n = (int)utf8_put(byte_to_symbol((uint8_t)b), piece);
        int32_t id = piece_map_find(&v->by_piece, v->tokens, piece, (size_t)n);
        v->byte_token[b] = id;
        /* Files without tokenizer.ggml.token_type do not say which tokens are bytes. */
        if (v->kind == VOCAB_SPM && id >= 0 && v->tokens[id].kind == TOKEN_NORMAL)
            v->tokens[id].kind = TOKEN_BYTE;
    }
}

/* SentencePiece needs something to say for a character without a token. */
static int check_fallback(struct vocab *v, const struct gguf *g, struct err *e)
{
    for (uint32_t i = 0; i < v->size && v->unknown < 0; i++)
        if (v->tokens[i].kind == TOKEN_UNKNOWN) v->unknown = (int32_t)i;
    for (int b = 0; b < 256 && v->unknown < 0; b++)
        if (v->byte_token[b] < 0)
            return err_set(e, ERR_BAD_INPUT,
                           "%s: tokenizer.ggml.tokens: no token for byte 0x%02X, and none for what "
                           "is unknown",
                           gguf_name(g), (unsigned)b);
    return 0;
}

static void add_end(struct vocab *v, int32_t id)
{
    if (id < 0 || vocab_is_end(v, id) || v->n_ends == sizeof v->ends / sizeof *v->ends) return;
    v->ends[v->n_ends++] = id;
}

int vocab_add_end(struct vocab *v, const char *piece, size_t n, struct err *e)
{
    int32_t id = vocab_find(v, piece, n);
    if (id < 0 || id == v->bos) return 0;
    bool control = v->tokens[id].kind == TOKEN_CONTROL;
    specials_promote_named(v, id);
    if (v->tokens[id].kind != TOKEN_CONTROL) return 0;
    add_end(v, id);
    return control || specials_open(v) == 0
               ? 0
               : err_set(e, ERR_NO_MEMORY, "no memory for control tokens");
}

/* Files often name only one of the tokens that end an answer; the well-known ones count too. */
static int read_ends(struct vocab *v, const struct gguf *g, struct err *e)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const char *const pieces[] = {"<|im_end|>",      "<|eot_id|>",     "<end_of_turn>",
                                         "<|end|>",         "</s>",           "<|endoftext|>",
                                         "<|end_of_text|>", "<|end_of_turn|>"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int32_t id;
        int code = read_id(g, keys[i], v->size, &id, e);
        if (code) return code;
        if (i == 0) v->eos = id;
        specials_promote_named(v, id);
        add_end(v, id);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        int32_t id = vocab_find(v, pieces[i], strlen(pieces[i]));
        if (id >= 0 && v->tokens[id].kind == TOKEN_CONTROL) add_end(v, id);
    }
    return 0;
}

static int read_kind(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_str model;
    int code = gguf_text(g, "tokenizer.ggml.model", &model, e);
    if (code) return code;
    if (model.len == 5 && memcmp(model.data, "llama", 5) == 0)
        v->kind = VOCAB_SPM;
    else if (model.len == 4 && memcmp(model.data, "gpt2", 4) == 0)
        v->kind = VOCAB_BPE;
    else
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.model is \"%s\"; llama and gpt2 are supported",
                       gguf_name(g), gguf_show(model).text);
    return 0;
}

/* What SentencePiece may do to a text before it cuts it; files of models that chat ask for none. */
static int read_normalisation(struct vocab *v, const struct gguf *g, struct err *e)
{
    bool removes = false;
    struct gguf_str arch;
    int code = read_flag(g, "tokenizer.ggml.remove_extra_whitespaces", false, &removes, e);
    if (code) return code;
    if (removes && v->kind == VOCAB_SPM)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.remove_extra_whitespaces is true; only tokenizers that "
                       "keep white space are supported",
                       gguf_name(g));
    v->strips = v->kind == VOCAB_SPM && gguf_text(g, "general.architecture", &arch, NULL) == 0 &&
                arch.len == 4 && memcmp(arch.data, "phi3", 4) == 0;
    return 0;
}

/* Every chat template of the file: `tokenizer.chat_template`, and those with a name behind it. */
static void promote_used(struct vocab *v, const struct gguf *g)
{
    static const char prefix[] = "tokenizer.chat_template";
    enum { PREFIX_LEN = sizeof prefix - 1 };
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        char key[96];
        struct gguf_str name = gguf_key_at(g, i), text;
        if (name.len < PREFIX_LEN || name.len >= sizeof key ||
            memcmp(name.data, prefix, PREFIX_LEN) != 0)
            continue;
        memcpy(key, name.data, name.len);
        key[name.len] = 0;
        if (gguf_text(g, key, &text, NULL) == 0) specials_promote_used(v, text.data, text.len);
    }
}

static int read_all(struct vocab *v, const struct gguf *g, struct err *e)
{
    struct gguf_array pieces;
    int code = read_kind(v, g, e);
    if (code == 0) code = gguf_array(g, "tokenizer.ggml.tokens", &pieces, e);
    if (code) return code;
    if (pieces.type != 8 || pieces.n == 0 || pieces.n > VOCAB_SIZE_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s: tokenizer.ggml.tokens: 1 to %d strings expected",
                       gguf_name(g), VOCAB_SIZE_MAX);
    v->size = (uint32_t)pieces.n;
    code = copy_pieces(v, g, &pieces, e);
    if (code == 0) code = read_kinds(v, g, e);
    if (code == 0) code = read_id(g, "tokenizer.ggml.bos_token_id", v->size, &v->bos, e);
    if (code == 0) code = read_id(g, "tokenizer.ggml.unknown_token_id", v->size, &v->unknown, e);
    if (code == 0)
        code = read_flag(g, "tokenizer.ggml.add_bos_token", v->kind == VOCAB_SPM, &v->add_bos, e);
    if (code == 0) code = read_flag(g, "tokenizer.ggml.add_eos_token", false, &v->add_eos, e);
    if (code == 0)
        code = read_flag(g, "tokenizer.ggml.add_space_prefix", v->kind == VOCAB_SPM,
                         &v->space_prefix, e);
    if (code == 0) code = read_normalisation(v, g, e);
    if (code) return code;
    specials_promote(v);
    specials_promote_named(v, v->bos);
    promote_used(v, g);
    code = read_ends(v, g, e);
    if (code) return code;
    find_byte_tokens(v);
    if (specials_open(v))
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for its control tokens", gguf_name(g));
    return v->kind == VOCAB_BPE ? bpe_open(v, g, e) : check_fallback(v, g, e);
}

int vocab_open(const struct gguf *g, struct vocab **ret_vocab, struct err *e)
{
    struct vocab *v = mem_calloc(1, sizeof *v);
    if (!v) return err_set(e, ERR_NO_MEMORY, "%s: no memory for its vocabulary", gguf_name(g));
    v->bos = v->eos = v->unknown = -1;
    int code = read_all(v, g, e);
    if (code) {
        vocab_close(v);
        return code;
    }
    *ret_vocab = v;
    return 0;
}

int vocab_open_bytes(struct vocab **ret_vocab, struct err *e)
{
    static const char *const controls[] = {"<|im_start|>", "<|im_end|>", "<|endoftext|>"};
    struct vocab *v = mem_calloc(1, sizeof *v);
    if (v) {
        v->kind = VOCAB_BYTES;
        v->size = 259;
        v->tokens = mem_calloc(v->size, sizeof *v->tokens);
        v->memory = mem_alloc(256);
    }
    if (!v || !v->tokens || !v->memory || piece_map_init(&v->by_piece, v->size)) {
        vocab_close(v);
        return err_set(e, ERR_NO_MEMORY, "no memory for a vocabulary of bytes");
    }
    for (uint32_t i = 0; i < v->size; i++) {
        if (i < 256) {
            v->memory[i] = (char)i;
            v->tokens[i] = (struct token){v->memory + i, 1, 0.0f, TOKEN_NORMAL};
            v->byte_token[i] = (int32_t)i;
        } else {
            const char *piece = controls[i - 256];
            v->tokens[i] = (struct token){piece, (uint32_t)strlen(piece), 0.0f, TOKEN_CONTROL};
        }
        piece_map_add(&v->by_piece, v->tokens, i);
    }
    v->bos = v->unknown = -1;
    v->eos = 257;
    add_end(v, 257);
    add_end(v, 258);
    if (specials_open(v)) {
        vocab_close(v);
        return err_set(e, ERR_NO_MEMORY, "no memory for a vocabulary of bytes");
    }
    *ret_vocab = v;
    return 0;
}

void vocab_close(struct vocab *v)
{
    if (!v) return;
    bpe_close(v);
    piece_map_release(&v->by_piece);
    mem_free(v->specials);
    mem_free(v->tokens);
    mem_free(v->memory);
    mem_free(v);
}

uint32_t vocab_merges_passed(const struct vocab *v)
{
    return v->merges_passed;
}

uint32_t vocab_size(const struct vocab *v)
{
    return v->size;
}

int32_t vocab_bos(const struct vocab *v)
{
    return v->bos;
}

int32_t vocab_eos(const struct vocab *v)
{
    return v->eos;
}

bool vocab_adds_bos(const struct vocab *v)
{
    return v->add_bos && v->bos >= 0;
}

bool vocab_is_end(const struct vocab *v, int32_t id)
{
    for (uint32_t i = 0; i < v->n_ends; i++)
        if (v->ends[i] == id) return true;
    return false;
}

const int32_t *vocab_ends(const struct vocab *v, uint32_t *ret_n)
{
    *ret_n = v->n_ends;
    return v->ends;
}

bool vocab_is_control(const struct vocab *v, int32_t id)
{
    return id >= 0 && (uint32_t)id < v->size && v->tokens[id].kind == TOKEN_CONTROL;
}

int32_t vocab_find(const struct vocab *v, const char *piece, size_t n)
{
    return piece_map_find(&v->by_piece, v->tokens, piece, n);
}

static int push(struct token_list *out, int32_t id, struct err *e)
{
    int code = token_list_push(out, id);
    if (code == ERR_LIMIT) return err_set(e, code, "the text has more than %u tokens", out->max);
    return code ? err_set(e, code, "no memory for %u tokens", out->len) : 0;
}

static int encode_bytes(const struct vocab *v, const char *text, size_t n, struct token_list *out,
                        struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        int code = push(out, v->byte_token[(uint8_t)text[i]], e);
        if (code) return code;
    }
    return 0;
}

static int encode_plain(const struct vocab *v, const char *text, size_t n, bool start,
                        struct token_list *out, struct err *e)
{
    if (n == 0) return 0;
    if (v->kind == VOCAB_SPM) return spm_encode(v, text, n, start, out, e);
    if (v->kind == VOCAB_BPE) return bpe_encode(v, text, n, out, e);
    return encode_bytes(v, text, n, out, e);
}

/* Copy of text with every invalid byte as U+FFFD. */
static int make_valid(const char *text, size_t n, struct buf *out)
{
    size_t at = 0;
    int code = 0;
    while (at < n && code == 0) {
        size_t good = utf8_valid_prefix(text + at, n - at);
        code = buf_append(out, text + at, good);
        at += good;
        if (at < n && code == 0) {
            code = buf_append(out, "\xEF\xBF\xBD", 3);
            at++;
        }
    }
    return code;
}

static int encode_valid(const struct vocab *v, const char *text, size_t n, bool control,
                        struct token_list *out, struct err *e)
{
    while (n > 0) {
        size_t at = n, len = 0;
        int32_t id = vocab_next_special(v, text, n, control, &at, &len);
        int code = encode_plain(v, text, id < 0 ? n : at, true, out, e);
        if (code || id < 0) return code;
        code = push(out, id, e);
        if (code) return code;
        len += vocab_swallows(v, id, text + at + len, n - at - len);
        text += at + len;
        n -= at + len;
    }
    return 0;
}

int vocab_encode(const struct vocab *v, const char *text, size_t n, unsigned flags,
                 struct token_list *out, struct err *e)
{
    int code = 0;
    bool control = (flags & VOCAB_SPECIAL) != 0, adds = (flags & VOCAB_ADD_BOS) != 0;
    if (adds && vocab_adds_bos(v)) {
        const struct token *bos = &v->tokens[v->bos];
        bool there = bos->len > 0 && n >= bos->len && memcmp(text, bos->piece, bos->len) == 0;
        code = push(out, v->bos, e);
        text += there ? bos->len : 0;
        n -= there ? bos->len : 0;
    }
    if (code == 0 && (v->kind == VOCAB_BYTES || utf8_valid_prefix(text, n) == n)) {
        code = encode_valid(v, text, n, control, out, e);
    } else if (code == 0) {
        struct buf valid;
        buf_init(&valid, n * 3 + 1);
        code = make_valid(text, n, &valid);
        if (code == 0)
            code = encode_valid(v, valid.data, valid.len, control, out, e);
        else
            err_set(e, code, "no memory for a text of %zu bytes", n);
        buf_release(&valid);
    }
    if (code == 0 && adds && v->add_eos && v->eos >= 0) code = push(out, v->eos, e);
    return code;
}

static int spm_piece(const struct token *t, struct buf *out)
{
    int code = 0;
    for (uint32_t i = 0; i < t->len && code == 0;) {
        bool space = i + 3 <= t->len && memcmp(t->piece + i, "\xE2\x96\x81", 3) == 0;
        code = space ? buf_putc(out, ' ') : buf_putc(out, t->piece[i]);
        i += space ? 3 : 1;
    }
    return code;
}

static int bpe_piece(const struct token *t, struct buf *out)
{
    int code = 0;
    for (uint32_t i = 0; i < t->len && code == 0;) {
        uint32_t symbol;
        size_t n = utf8_decode(t->piece + i, t->len - i, &symbol);
        int b = n ? symbol_to_byte(symbol) : -1;
        code = b >= 0 ? buf_putc(out, (char)b) : buf_append(out, t->piece + i, n ? n : 1);
        i += (uint32_t)(n ? n : 1);
    }
    return code;
}

int vocab_piece(const struct vocab *v, int32_t id, bool show_control, struct buf *out)
{
    if (id < 0 || (uint32_t)id >= v->size) return ERR_BAD_INPUT;
    const struct token *t = &v->tokens[id];
    if (t->kind == TOKEN_CONTROL) return show_control ? buf_append(out, t->piece, t->len) : 0;
    if (t->kind == TOKEN_USER || v->kind == VOCAB_BYTES) return buf_append(out, t->piece, t->len);
    if (v->kind == VOCAB_BPE) return bpe_piece(t, out);
    unsigned byte;
    if (t->kind == TOKEN_BYTE && t->len == 6 && sscanf(t->piece, "<0x%2X>", &byte) == 1)
        return buf_putc(out, (char)byte);
    return spm_piece(t, out);
}

void detok_init(struct detok *d, bool start_of_text)
{
    *d = (struct detok){.first = start_of_text};
}

/* Hand out the whole characters at the start of `bytes`; keep what may still become one. */
static int emit_whole(struct detok *d, const char *bytes, size_t n, struct buf *out)
{
    size_t keep = utf8_pending(bytes, n), end = n - keep, at = 0;
    int code = 0;
    while (at < end && code == 0) {
        size_t good = utf8_valid_prefix(bytes + at, end - at);
        code = buf_append(out, bytes + at, good);
        at += good;
        if (at < end && code == 0) {
            code = buf_append(out, "\xEF\xBF\xBD", 3);
            at++;
        }
    }
    memcpy(d->pending, bytes + end, keep);
    d->pending_len = (uint8_t)keep;
    return code;
}

int detok_push(struct detok *d, const struct vocab *v, int32_t id, struct buf *out)
{
    struct buf bytes;
    buf_init(&bytes, VOCAB_PIECE_MAX * 4);
    int code = buf_append(&bytes, d->pending, d->pending_len);
    if (code == 0) code = vocab_piece(v, id, false, &bytes);
    if (code == 0 && d->first && bytes.len > 0) {
        if (v->kind == VOCAB_SPM && v->space_prefix && bytes.data[0] == ' ') buf_consume(&bytes, 1);
        d->first = false;
    }
    if (code == 0) code = emit_whole(d, bytes.data, bytes.len, out);
    buf_release(&bytes);
    return code;
}

int detok_finish(struct detok *d, struct buf *out)
{
    int code = d->pending_len ? buf_append(out, "\xEF\xBF\xBD", 3) : 0;
    d->pending_len = 0;
    return code;
}

int vocab_write(const struct vocab *v, const int32_t *tokens, uint32_t n, struct buf *out,
                struct err *e)
{
    struct detok d;
    detok_init(&d, true);
    for (uint32_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= vocab_size(v))
            return err_set(e, ERR_BAD_INPUT,
                           "tokens[%u]: token id %d is outside the vocabulary of %u", i, tokens[i],
                           vocab_size(v));
        int code;
        if (vocab_is_control(v, tokens[i])) {
            code = detok_finish(&d, out);
            if (!code) code = vocab_piece(v, tokens[i], true, out);
        } else {
            code = detok_push(&d, v, tokens[i], out);
        }
        if (code) return code;
    }
    return detok_finish(&d, out);
}
