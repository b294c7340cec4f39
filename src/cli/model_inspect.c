/* model_inspect: see model_inspect.h. Facts are gathered first, then printed in one of two ways. */
#include "cli/model_inspect.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <string.h>

#include "base/pool.h"
#include "model/forward.h"
#include "model/gguf.h"
#include "model/hparams.h"
#include "model/model.h"
#include "model/text/template.h"
#include "model/text/vocab.h"

enum { TYPES_MAX = 32 };

/* The tensors of one type. */
struct type_row {
    uint32_t type, count;
    uint64_t elements, bytes;
};

struct facts {
    const char *path;
    struct gguf *g;
    uint64_t file_bytes;
    struct type_row types[TYPES_MAX];
    uint32_t n_types;
    struct hparams hparams;
    struct vocab *vocab;
    const char *family; /* of the chat template */
    struct chat_template *tmpl;
    struct model model;
    uint64_t packed_bytes, kv_bytes; /* of all matrices; of one position */
    bool hashed;
    /* Why a part cannot be used; code 0: it can. */
    struct err no_hparams, no_weights, no_vocab, no_template, no_hash;
};

static void count_types(struct facts *f)
{
    for (size_t i = 0; i < gguf_tensor_count(f->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(f->g, i);
        uint32_t row = 0;
        while (row < f->n_types && f->types[row].type != t->type)
            row++;
        if (row == TYPES_MAX) continue;
        if (row == f->n_types) f->types[f->n_types++] = (struct type_row){.type = t->type};
        f->types[row].count++;
        f->types[row].elements += t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
        f->types[row].bytes += t->bytes;
    }
}

/* The digests need the weights as the engine loads them; the model gets a GGUF object of its own.
 */
static void compute_hashes(struct facts *f)
{
    struct gguf *g;
    struct pool *pool;
    if (gguf_open(f->path, &g, &f->no_hash)) return;
    if (pool_new(0, &pool, &f->no_hash)) {
        gguf_close(g);
        return;
    }
    f->hashed = model_open(&f->model, g, 0, pool, &f->no_hash) == 0;
    pool_free(pool);
}

/* What it takes to run the model, from the shapes alone. */
static void check_model(struct facts *f)
{
    struct model m = {0};
    if (hparams_read(f->g, &f->hparams, &f->no_hparams)) return;
    if (weights_check(f->g, &f->hparams, &f->packed_bytes, &f->no_weights)) return;
    m.hparams = f->hparams;
    struct kv_shape shape = forward_kv_shape(&m);
    f->kv_bytes = kv_page_bytes(&shape) / KERN_TILE;
    if (f->vocab && vocab_size(f->vocab) != f->hparams.vocab)
        err_set(&f->no_weights, ERR_BAD_INPUT,
                "%s: the vocabulary has %u tokens, tensor token_embd.weight has %u rows", f->path,
                vocab_size(f->vocab), f->hparams.vocab);
}

/* The sentence that says why the model cannot run; NULL: it can. */
static const char *refusal(const struct facts *f)
{
    return f->no_hparams.code   ? f->no_hparams.text
           : f->no_weights.code ? f->no_weights.text
           : f->no_vocab.code   ? f->no_vocab.text
                                : NULL;
}

enum { FEATURES_MAX = 256 };

static void add_feature(char out[FEATURES_MAX], bool there, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add_feature(char out[FEATURES_MAX], bool there, const char *format, ...)
{
    size_t at = strlen(out);
    va_list args;
    if (!there) return;
    if (at > 0 && at + 2 < FEATURES_MAX) at += (size_t)snprintf(out + at, FEATURES_MAX - at, ", ");
    va_start(args, format);
    vsnprintf(out + at, FEATURES_MAX - at, format, args);
    va_end(args);
}

/* What sets the model apart, in words. */
static void list_features(const struct facts *f, char out[FEATURES_MAX])
{
    static const char *const scalings[] = {"plain", "linear", "yarn", "long"};
    const struct hparams *h = &f->hparams;
    const struct arch *a = h->arch;
    out[0] = 0;
    add_feature(out, !gguf_tensor_find(f->g, "output.weight"), "tied head");
    add_feature(out, gguf_tensor_find(f->g, "blk.0.attn_qkv.weight") != NULL, "fused q, k, v");
    add_feature(out, gguf_tensor_find(f->g, "blk.0.attn_q.bias") != NULL, "biases");
    add_feature(out, gguf_tensor_find(f->g, "rope_freqs.weight") != NULL, "RoPE factors");
    add_feature(out, h->rope.scaling > ROPE_LINEAR || h->rope.factor != 1.0,
                "RoPE scaling %s (factor %g)", scalings[h->rope.scaling], h->rope.factor);
    add_feature(out, h->window > 0, "window of %u", h->window);
    add_feature(out, h->experts > 0, "%u of %u experts", h->experts_used, h->experts);
    add_feature(out, a->qk_norm != QK_NORM_NONE, "q and k norms");
    add_feature(out, a->post_norm, "post norms");
    add_feature(out, h->attention_cap > 0.0f || h->logit_cap > 0.0f, "soft caps");
    add_feature(out, a->gelu, "GELU");
}

static int gather(struct facts *f, bool hash, struct err *e)
{
    int code = gguf_open(f->path, &f->g, e);
    if (code) return code;
    f->file_bytes = gguf_file_bytes(f->g);
    count_types(f);
    vocab_open(f->g, &f->vocab, &f->no_vocab);
    check_model(f);
    if (chat_template_open(f->g, &f->tmpl, &f->no_template) == 0)
        f->family = chat_template_family(f->tmpl);
    if (hash) compute_hashes(f);
    return 0;
}

static void facts_release(struct facts *f)
{
    if (f->hashed) model_close(&f->model);
    chat_template_close(f->tmpl);
    vocab_close(f->vocab);
    gguf_close(f->g);
}

static const char *type_name(uint32_t type)
{
    const struct kern_type_info *info = gguf_type_info(type);
    return info ? info->name : "unknown";
}

static struct gguf_shown show_key(const struct gguf *g, const char *key, const char *otherwise)
{
    struct gguf_str s = {otherwise, strlen(otherwise)};
    if (gguf_has(g, key)) gguf_text(g, key, &s, NULL);
    return gguf_show(s);
}

static void print_tensors(const struct facts *f, FILE *to)
{
    for (uint32_t i = 0; i < f->n_types; i++) {
        const struct type_row *t = &f->types[i];
        fprintf(to, "%-14s%-8s %5u tensors %14" PRIu64 " weights %14" PRIu64 " bytes\n",
                i ? "" : "tensors", type_name(t->type), t->count, t->elements, t->bytes);
    }
}

static void print_hparams(const struct facts *f, FILE *to)
{
    const struct hparams *h = &f->hparams;
    if (f->no_hparams.code) {
        fprintf(to, "%-14s%s\n", "cannot run", f->no_hparams.text);
        return;
    }
    fprintf(to, "%-14s%u layers, dim %u, feed-forward %u, vocabulary %u\n", "shape", h->layers,
            h->dim, h->ff, h->vocab);
    fprintf(to, "%-14s%u heads of %u, %u for keys and values; RoPE over %u, base %g\n", "attention",
            h->heads, h->head_dim, h->kv_heads, h->rope_dims, h->rope.base);
    fprintf(to, "%-14s%u tokens\n", "context", h->context);
    char features[FEATURES_MAX];
    list_features(f, features);
    fprintf(to, "%-14s%s\n", "features", features[0] ? features : "none of its own");
    if (refusal(f)) {
        fprintf(to, "%-14s%s\n", "cannot run", refusal(f));
        return;
    }
    fprintf(to, "%-14s%.1f MB of weights, %" PRIu64 " bytes of KV a token, %.1f MB for a context\n",
            "memory", (double)f->packed_bytes / 1e6, f->kv_bytes,
            (double)f->kv_bytes * h->context / 1e6);
}

static void print_vocab(const struct facts *f, FILE *to)
{
    if (f->no_vocab.code) {
        fprintf(to, "%-14s%s\n", "no tokenizer", f->no_vocab.text);
        return;
    }
    fprintf(to, "%-14s%s (pre-tokeniser %s), %u tokens, BOS %d%s, EOS %d\n", "tokenizer",
            show_key(f->g, "tokenizer.ggml.model", "?").text,
            show_key(f->g, "tokenizer.ggml.pre", "none").text, vocab_size(f->vocab),
            vocab_bos(f->vocab), vocab_adds_bos(f->vocab) ? " (added)" : "", vocab_eos(f->vocab));
}

static void print_lines(const struct facts *f, FILE *to)
{
    fprintf(to, "%-14s%s, %" PRIu64 " bytes, %zu keys, %zu tensors\n", "file", f->path,
            f->file_bytes, gguf_key_count(f->g), gguf_tensor_count(f->g));
    fprintf(to, "%-14s%s\n", "name", show_key(f->g, "general.name", "(none)").text);
    fprintf(to, "%-14s%s\n", "architecture", show_key(f->g, "general.architecture", "(none)").text);
    print_hparams(f, to);
    print_tensors(f, to);
    print_vocab(f, to);
    fprintf(to, "%-14s%s\n", f->family ? "template" : "no template",
            f->family ? f->family : f->no_template.text);
    if (f->vocab && vocab_mended(f->vocab)[0])
        fprintf(to, "%-14s%s: ordinary text in the file, taken for control tokens\n", "mended",
                vocab_mended(f->vocab));
    if (weights_beside(f->g) > 0)
        fprintf(to, "%-14s%u tensors for pictures or sound are passed over\n", "text only",
                weights_beside(f->g));
    if (f->vocab && vocab_merges_passed(f->vocab) > 0)
        fprintf(to, "%-14s%u malformed ones are passed over\n", "merges",
                vocab_merges_passed(f->vocab));
    if (f->hashed)
        fprintf(to, "%-14s%s\n%-14s%s\n", "weights hash", f->model.weights_hash, "tokens hash",
                f->model.tokenizer_hash);
    else if (f->no_hash.code && !refusal(f))
        fprintf(to, "%-14s%s\n", "no hash", f->no_hash.text);
}

/* A text of the file, or null where it is missing or no UTF-8. */
static json_t *json_key(const struct gguf *g, const char *key)
{
    struct gguf_str s;
    json_t *text = NULL;
    if (gguf_text(g, key, &s, NULL) == 0) text = json_stringn(s.data, s.len);
    return text ? text : json_null();
}

static json_t *json_hparams(const struct facts *f)
{
    const struct hparams *h = &f->hparams;
    if (f->no_hparams.code) return json_null();
    return json_pack("{sI sI sI sI sI sI sI sI sI sf}", "layers", (json_int_t)h->layers, "dim",
                     (json_int_t)h->dim, "ff", (json_int_t)h->ff, "vocab", (json_int_t)h->vocab,
                     "heads", (json_int_t)h->heads, "kv_heads", (json_int_t)h->kv_heads, "head_dim",
                     (json_int_t)h->head_dim, "rope_dims", (json_int_t)h->rope_dims, "context",
                     (json_int_t)h->context, "rope_base", h->rope.base);
}

static json_t *json_types(const struct facts *f)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < f->n_types; i++) {
        const struct type_row *t = &f->types[i];
        json_array_append_new(
            rows, json_pack("{ss sI sI sI sI}", "type", type_name(t->type), "number",
                            (json_int_t)t->type, "tensors", (json_int_t)t->count, "weights",
                            (json_int_t)t->elements, "bytes", (json_int_t)t->bytes));
    }
    return rows;
}

static json_t *json_vocab(const struct facts *f)
{
    if (f->no_vocab.code) return json_null();
    return json_pack("{so so sI si si sb}", "kind", json_key(f->g, "tokenizer.ggml.model"), "pre",
                     json_key(f->g, "tokenizer.ggml.pre"), "size", (json_int_t)vocab_size(f->vocab),
                     "bos", vocab_bos(f->vocab), "eos", vocab_eos(f->vocab), "adds_bos",
                     vocab_adds_bos(f->vocab));
}

/* The sentences of the parts that cannot be used, by part. */
static json_t *json_refusals(const struct facts *f)
{
    const struct {
        const char *part;
        const struct err *why;
    } parts[] = {{"run", f->no_hparams.code ? &f->no_hparams : &f->no_weights},
                 {"tokenizer", &f->no_vocab},
                 {"template", &f->no_template},
                 {"hash", &f->no_hash}};
    json_t *all = json_object();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].why->code)
            json_object_set_new(all, parts[i].part, json_string(parts[i].why->text));
    return all;
}

static int print_json(const struct facts *f, FILE *to, struct err *e)
{
    json_t *all = json_pack(
        "{ss sI sI sI so so so so so ss? so}", "file", f->path, "bytes", (json_int_t)f->file_bytes,
        "keys", (json_int_t)gguf_key_count(f->g), "tensors", (json_int_t)gguf_tensor_count(f->g),
        "name", json_key(f->g, "general.name"), "architecture",
        json_key(f->g, "general.architecture"), "hparams", json_hparams(f), "types", json_types(f),
        "tokenizer", json_vocab(f), "template", f->family, "refused", json_refusals(f));
    if (all) json_object_set_new(all, "runs", json_boolean(!refusal(f)));
    if (all && !refusal(f)) {
        char features[FEATURES_MAX];
        list_features(f, features);
        json_object_set_new(all, "features", json_string(features));
        json_object_set_new(all, "memory",
                            json_pack("{sI sI sI}", "weights", (json_int_t)f->packed_bytes,
                                      "kv_per_token", (json_int_t)f->kv_bytes, "kv_context",
                                      (json_int_t)(f->kv_bytes * f->hparams.context)));
    }
    if (all && f->hashed) {
        json_object_set_new(all, "weights_hash", json_string(f->model.weights_hash));
        json_object_set_new(all, "tokenizer_hash", json_string(f->model.tokenizer_hash));
    }
    int rc = all ? json_dumpf(all, to, JSON_INDENT(2)) : -1;
    json_decref(all);
    if (rc != 0)
        return err_set(e, ERR_INTERNAL, "%s: its facts cannot be written as JSON", f->path);
    fputc('\n', to);
    return 0;
}

int model_inspect(const char *path, bool json, bool hash, FILE *to, struct err *e)
{
    struct facts f = {.path = path};
    int code = gather(&f, hash, e);
    if (code == 0 && json)
        code = print_json(&f, to, e);
    else if (code == 0)
        print_lines(&f, to);
    facts_release(&f);
    return code;
}
