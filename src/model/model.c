/*
 * model: see model.h. The SHA-256 is OpenSSL's; what is hashed, and in which order, is part of the
 * wire contract between device and cloud.
 */
#include "model/model.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/hex.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/utf8.h"
#include "model/gguf.h"

enum { DIGEST_BYTES = 32, NAME_SHOWN_MAX = 120 };

int model_hash_bytes(const void *data, size_t n, char hash[MODEL_HASH_TEXT], struct err *e)
{
    unsigned char digest[DIGEST_BYTES];
    if (EVP_Digest(data, n, digest, NULL, EVP_sha256(), NULL) != 1)
        return err_set(e, ERR_NO_MEMORY, "OpenSSL has no memory for a SHA-256");
    hex_encode(digest, DIGEST_BYTES, hash);
    return 0;
}

/* A running digest; the first failure sticks. Texts and arrays go in with their length, so that no
 * two different inputs give the same bytes. */
struct hasher {
    EVP_MD_CTX *ctx;
    bool failed;
};

static void hasher_begin(struct hasher *h)
{
    h->ctx = EVP_MD_CTX_new();
    h->failed = !h->ctx || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1;
}

static void hash_add(struct hasher *h, const void *data, size_t n)
{
    if (!h->failed && n > 0) h->failed = EVP_DigestUpdate(h->ctx, data, n) != 1;
}

static void hash_u64(struct hasher *h, uint64_t value)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> 8 * i);
    hash_add(h, bytes, sizeof bytes);
}

static void hash_text(struct hasher *h, const char *text, size_t n)
{
    hash_u64(h, n);
    hash_add(h, text, n);
}

static void hash_double(struct hasher *h, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    hash_u64(h, bits);
}

static int hasher_end(struct hasher *h, unsigned char digest[DIGEST_BYTES])
{
    if (!h->failed) h->failed = EVP_DigestFinal_ex(h->ctx, digest, NULL) != 1;
    EVP_MD_CTX_free(h->ctx);
    return h->failed ? -1 : 0;
}

/* One digest per tensor, made in parallel, then one over all of them in the file's order. */
struct tensor_hashes {
    const struct gguf *g;
    unsigned char (*digests)[DIGEST_BYTES];
    bool *failed;
};

static void hash_tensor(void *arg, uint32_t task, uint32_t worker)
{
    struct tensor_hashes *all = arg;
    const struct gguf_tensor *t = gguf_tensor_at(all->g, task);
    struct hasher h;
    (void)worker;
    if (weights_is_beside(t->name)) return; /* the same text model with and without it */
    hasher_begin(&h);
    hash_text(&h, t->name.data, t->name.len);
    hash_u64(&h, t->type);
    for (int i = 0; i < GGUF_DIMS_MAX; i++)
        hash_u64(&h, t->shape[i]);
    hash_add(&h, t->data, t->bytes);
    all->failed[task] = hasher_end(&h, all->digests[task]) < 0;
    gguf_tensor_forget(all->g, t);
}

static void hash_rope(struct hasher *h, const struct rope *r)
{
    hash_u64(h, r->scaling);
    hash_u64(h, r->use_long);
    hash_u64(h, r->original);
    const double values[] = {r->base, r->factor, r->beta_fast, r->beta_slow, (double)r->magnitude};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        hash_double(h, values[i]);
}

/* Every hyper-parameter that changes a result; what follows from the architecture's name is in it.
 */
static void hash_hparams(struct hasher *h, const struct hparams *p)
{
    hash_text(h, p->arch->name, strlen(p->arch->name));
    const uint32_t sizes[] = {p->vocab,   p->dim,          p->layers,   p->ff,
                              p->heads,   p->kv_heads,     p->head_dim, p->rope_dims,
                              p->experts, p->experts_used, p->window};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        hash_u64(h, sizes[i]);
    const float values[] = {p->norm_eps,    p->embed_scale,   p->residual_scale, p->attention_scale,
                            p->logit_scale, p->attention_cap, p->logit_cap,      p->expert_scale};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        hash_double(h, (double)values[i]);
    hash_rope(h, &p->rope);
    hash_rope(h, &p->window_rope);
    hash_add(h, p->windowed, p->layers);
}

static int hash_weights(struct model *m, struct pool *pool, struct err *e)
{
    const struct hparams *p = &m->hparams;
    uint32_t n = (uint32_t)gguf_tensor_count(m->gguf);
    struct tensor_hashes all = {m->gguf, mem_calloc(n, DIGEST_BYTES), mem_calloc(n, sizeof(bool))};
    int rc = all.digests && all.failed ? 0 : ERR_NO_MEMORY;
    unsigned char digest[DIGEST_BYTES];
    if (rc == 0) {
        struct hasher h;
        pool_run(pool, n, hash_tensor, &all);
        hasher_begin(&h);
        hash_hparams(&h, p);
        for (uint32_t i = 0; i < n; i++) {
            if (weights_is_beside(gguf_tensor_at(m->gguf, i)->name)) continue;
            hash_add(&h, all.digests[i], DIGEST_BYTES);
            h.failed = h.failed || all.failed[i];
        }
        rc = hasher_end(&h, digest) < 0 ? ERR_NO_MEMORY : 0; /* its only failure */
    }
    mem_free(all.digests);
    mem_free(all.failed);
    if (rc < 0) return err_set(e, rc, "%s: no memory to hash the weights", gguf_name(m->gguf));
    hex_encode(digest, DIGEST_BYTES, m->weights_hash);
    return 0;
}

static bool begins_with(struct gguf_str s, const char *text)
{
    size_t n = strlen(text);
    return s.len >= n && memcmp(s.data, text, n) == 0;
}

/* An array's content: strings with their lengths, scalars by value. */
static void hash_array(struct hasher *h, const struct gguf_array *a)
{
    hash_u64(h, a->type);
    hash_u64(h, a->n);
    const uint8_t *at = a->data;
    for (uint64_t i = 0; i < a->n; i++) {
        if (a->type == 8) {
            struct gguf_str s = gguf_array_next_text(&at);
            hash_text(h, s.data, s.len);
        } else if (a->type == 6) {
            hash_double(h, (double)gguf_array_f32(a, i));
        } else {
            hash_u64(h, (uint64_t)gguf_array_i32(a, i));
        }
    }
}

/* Whether the array readers know the element type (GGUF: 0..5 integers, 6 float, 8 string). */
static bool is_plain_array(const struct gguf_array *a)
{
    return a->type <= 6 || a->type == 8;
}

/* The value of a key, whatever its type is. */
static void hash_value(struct hasher *h, const struct gguf *g, const char *key)
{
    struct gguf_array array;
    struct gguf_str text;
    uint32_t number;
    bool flag;
    float real;
    if (gguf_text(g, key, &text, NULL) == 0)
        hash_text(h, text.data, text.len);
    else if (gguf_u32(g, key, &number, NULL) == 0)
        hash_u64(h, number);
    else if (gguf_bool(g, key, &flag, NULL) == 0)
        hash_u64(h, flag);
    else if (gguf_f32(g, key, &real, NULL) == 0)
        hash_double(h, (double)real);
    else if (gguf_array(g, key, &array, NULL) == 0 && is_plain_array(&array))
        hash_array(h, &array);
}

/* Every tokenizer.ggml.* key in the file's order. */
int model_hash_tokenizer(const struct gguf *g, char hash[MODEL_HASH_TEXT], struct err *e)
{
    struct hasher h;
    unsigned char digest[DIGEST_BYTES];
    hasher_begin(&h);
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        struct gguf_str name = gguf_key_at(g, i);
        char key[128];
        if (!begins_with(name, "tokenizer.ggml.") || name.len >= sizeof key) continue;
        memcpy(key, name.data, name.len);
        key[name.len] = 0;
        hash_text(&h, key, name.len);
        hash_value(&h, g, key);
    }
    if (hasher_end(&h, digest) < 0)
        return err_set(e, ERR_NO_MEMORY, "%s: no memory to hash the vocabulary", gguf_name(g));
    hex_encode(digest, DIGEST_BYTES, hash);
    return 0;
}

/* Reports and first lines show the name, and a stranger wrote it: no terminal is to obey it. */
static void name_model(struct model *m)
{
    struct gguf_str name;
    const char *path = gguf_name(m->gguf), *slash = strrchr(path, '/');
    if (gguf_text(m->gguf, "general.name", &name, NULL) == 0 && name.len > 0)
        snprintf(m->name, sizeof m->name, "%.*s",
                 (int)(name.len < NAME_SHOWN_MAX ? name.len : NAME_SHOWN_MAX), name.data);
    else
        snprintf(m->name, sizeof m->name, "%s", slash ? slash + 1 : path);
    size_t n = strlen(m->name);
    n -= utf8_pending(m->name, n); /* it may have been cut */
    m->name[n] = 0;
    utf8_make_plain(m->name, n);
}

int model_open(struct model *m, struct gguf *g, uint32_t context, struct pool *pool, struct err *e)
{
    *m = (struct model){.gguf = g};
    int rc = hparams_read(g, &m->hparams, e);
    if (rc == 0 && context > 0) hparams_set_context(&m->hparams, context);
    /* Digests first: they read the file once more, and beside the packed weights its pages would
     * raise the peak of memory. */
    if (rc == 0) rc = hash_weights(m, pool, e);
    if (rc == 0) rc = weights_open(&m->weights, g, &m->hparams, pool, e);
    if (rc == 0) rc = model_hash_tokenizer(g, m->tokenizer_hash, e);
    if (rc == 0)
        name_model(m);
    else
        model_close(m);
    return rc;
}

void model_close(struct model *m)
{
    weights_close(&m->weights);
    gguf_close(m->gguf);
    *m = (struct model){0};
}
