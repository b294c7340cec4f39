/*
 * test_core_bits: the same logits on every machine. Tiny random models of every architecture, of
 * several weight types and with every kind of KV memory read 150 tokens in uneven chunks and then
 * five more one by one; a 64-bit digest of all their logits must be the number that stands here, at
 * every level of the kernels.
 *
 * Catches: a level, a compiler, a C library or a kind of CPU that computes other bits than the rest
 * (this program also runs for aarch64 under qemu-user), and a change of the exact rules that nobody
 * meant. After a change that is meant: `test_core_bits print` writes the table anew.
 *
 * A main of its own, because the cross build has no cmocka; nothing but base, kern and model.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "model/forward.h"
#include "model/gguf.h"
#include "support/tiny_model.h"

enum { PROMPT = 150, DECODED = 5, POSITIONS = 256 };

static const struct {
    const char *what;
    uint64_t digest;
} expected[] = {
#include "core/bits.inc"
};
enum { EXPECTED = sizeof expected / sizeof *expected };

static void fail(const char *what, const struct err *e)
{
    fprintf(stderr, "FAILED: %s: %s\n", what, e->text);
}

/* FNV-1a over the bits of the floats. */
static uint64_t digest_floats(uint64_t digest, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        for (int k = 0; k < 32; k += 8)
            digest = (digest ^ (bits >> k & 255)) * 0x100000001b3u;
    }
    return digest;
}

/* All logits of one run. */
static uint64_t run(struct forward *f, struct kv_seq *kv, uint32_t vocab, struct err *e)
{
    int32_t tokens[PROMPT + DECODED];
    uint64_t digest = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < PROMPT + DECODED; i++)
        tokens[i] = (int32_t)(i * 2654435761u % vocab);
    for (uint32_t at = 0, chunk = 1; at < PROMPT + DECODED; at += chunk) {
        chunk = at >= PROMPT ? 1 : chunk * 3 + 1;
        if (at < PROMPT && chunk > PROMPT - at) chunk = PROMPT - at;
        struct forward_span span = {kv, tokens + at, chunk, true, NULL, NULL};
        if (kv_seq_reserve(kv, chunk, e) < 0) return 0;
        forward_run(f, &span, 1);
        digest = digest_floats(digest, span.logits, vocab);
    }
    return digest;
}

static int digest_model(const struct model *m, const struct kern *kern, enum kern_kv kv_kind,
                        unsigned threads, uint64_t *ret_digest, struct err *e)
{
    const struct forward_limits limits = {PROMPT, 4, POSITIONS};
    struct kv_shape shape = forward_kv_shape(m);
    struct pool *pool = NULL;
    struct kv_pool *pages = NULL;
    struct forward *f = NULL;
    struct kv_seq kv = {0};
    shape.kv = kv_kind;
    int rc = pool_new(threads, &pool, e);
    if (rc == 0) rc = kv_pool_open(&shape, POSITIONS / KERN_TILE, &pages, e);
    if (rc == 0) rc = forward_open(m, kern, pool, &limits, &f, e);
    if (rc == 0) rc = kv_seq_init(&kv, pages, POSITIONS, e);
    if (rc == 0) *ret_digest = run(f, &kv, m->hparams.vocab, e);
    kv_seq_release(&kv);
    forward_close(f);
    kv_pool_close(pages);
    pool_free(pool);
    return rc;
}

static int open_bytes(struct model *m, const struct buf *bytes, struct err *e)
{
    struct pool *pool = NULL;
    *m = (struct model){0};
    int rc = pool_new(1, &pool, e);
    if (rc == 0) rc = gguf_open_bytes(bytes->data, bytes->len, "tiny", &m->gguf, e);
    if (rc == 0) rc = hparams_read(m->gguf, &m->hparams, e);
    if (rc == 0) rc = weights_open(&m->weights, m->gguf, &m->hparams, pool, e);
    pool_free(pool);
    return rc;
}

static uint64_t wanted(const char *what)
{
    for (uint32_t i = 0; i < EXPECTED; i++)
        if (expected[i].what && strcmp(expected[i].what, what) == 0) return expected[i].digest;
    return 0;
}

/* One model at all levels; returns how many failed. */
static int check(const struct tiny_options *o, enum kern_kv kv, const char *what, int print)
{
    struct model m;
    struct buf bytes;
    struct err e;
    const struct kern *kern;
    int failed = 0;
    buf_init(&bytes, 64u << 20);
    tiny_model_bytes(o, &bytes);
    if (open_bytes(&m, &bytes, &e) < 0) {
        fail(what, &e);
        failed = 1;
    }
    for (uint32_t level = 0; !failed && (kern = kern_at(level)) != NULL; level++) {
        uint64_t digest = 0;
        if (digest_model(&m, kern, kv, level % 2 + 1, &digest, &e) < 0) {
            fail(what, &e);
            failed++;
        } else if (print) {
            printf("{\"%s\", 0x%016llxu},\n", what, (unsigned long long)digest);
            break;
        } else if (digest != wanted(what)) {
            fprintf(stderr, "FAILED: %s at level %s: %016llx instead of %016llx\n", what,
                    kern->name, (unsigned long long)digest, (unsigned long long)wanted(what));
            failed++;
        }
    }
    weights_close(&m.weights);
    gguf_close(m.gguf);
    buf_release(&bytes);
    return failed;
}

static uint32_t head_size(const struct tiny_options *o)
{
    return o->head_dim ? o->head_dim : o->dim / o->heads;
}

int main(int argc, char **argv)
{
    static const struct {
        uint32_t type;
        const char *name;
    } types[] = {{GGUF_F32, "llama F32"},   {GGUF_F16, "llama F16"},   {GGUF_BF16, "llama BF16"},
                 {GGUF_Q8_0, "llama Q8_0"}, {GGUF_Q4_0, "llama Q4_0"}, {GGUF_MXFP4, "llama MXFP4"}};
    int failed = 0, models = 0, print = argc > 1 && strcmp(argv[1], "print") == 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++, models++) {
        struct tiny_options o = TINY_DEFAULT;
        o.type = types[i].type;
        failed += check(&o, KERN_KV_F16, types[i].name, print);
    }
    struct tiny_options wide = TINY_DEFAULT; /* keys and values in 8 bits: heads of 32, of 64 */
    for (wide.head_dim = 32; wide.head_dim <= 64; wide.head_dim += 32, models++) {
        char what[64];
        snprintf(what, sizeof what, "llama, keys and values in 8 bits, heads of %u", wide.head_dim);
        failed += check(&wide, KERN_KV_Q8, what, print);
    }
    for (wide.head_dim = 16; wide.head_dim <= 144; wide.head_dim += 64, models++) {
        char what[64];
        snprintf(what, sizeof what, "llama, keys and values in int16, heads of %u", wide.head_dim);
        failed += check(&wide, KERN_KV_I16, what, print);
    }
    const struct tiny_options *o;
    for (uint32_t i = 0; (o = tiny_arch(i)) != NULL; i++, models++) {
        char what[64];
        snprintf(what, sizeof what, "%s, number %u", o->arch ? o->arch : "llama", i);
        failed += check(o, KERN_KV_F16, what, print);
        if (head_size(o) % KERN_LANES != 0) continue;
        snprintf(what, sizeof what, "%s, number %u, int16", o->arch ? o->arch : "llama", i);
        failed += check(o, KERN_KV_I16, what, print);
        models++;
    }
    if (!print) printf("bits: %d models at all levels of this CPU, %d failed\n", models, failed);
    return failed > 0;
}
