/*
 * test_native_open: what the native engine does when a file is wrong or memory runs out.
 *
 * Catches: a hyper-parameter or shape that is used before it is checked, an error that does not
 * name the culprit, a leak or a half-made engine when any single allocation fails (run under ASan),
 * a step that fails halfway.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/rng.h"
#include "engine/native.h"
#include "support/tiny_model.h"

static struct buf model; /* a good file */
static char path[TINY_PATH_MAX];

static int open_file(const char *file, struct engine **ret_engine, struct err *err)
{
    struct native_options o = {.model_path = file, .threads = 2};
    return native_open(&o, ret_engine, err);
}

/* Where the bytes after a name begin. */
static size_t after(const char *name)
{
    size_t n = strlen(name);
    char *at = memmem(model.data, model.len, name, n);
    assert_non_null(at);
    return (size_t)(at - model.data) + n;
}

/* Write n bytes into the good file at `at`, open it, expect an error; then undo. */
static void expect_refusal(size_t at, const void *bytes, size_t n, int code, const char *culprit)
{
    char old[16];
    struct engine *e = NULL;
    struct err err = ERR_INIT;
    assert_true(n <= sizeof old);
    memcpy(old, model.data + at, n);
    memcpy(model.data + at, bytes, n);
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    int rc = open_file(path, &e, &err);
    memcpy(model.data + at, old, n);
    if (rc == 0) {
        engine_free(e);
        fail_msg("a file with a wrong %s was opened", culprit);
    }
    if (rc != code || !strstr(err.text, culprit) || !strstr(err.text, path))
        fail_msg("%s: code %d, \"%s\"", culprit, rc, err.text);
}

static void test_hyper_parameters(void **state)
{
    static const struct {
        const char *key;
        uint32_t value;
    } wrong[] = {
        {"llama.block_count", 0},
        {"llama.block_count", 5000},
        {"llama.embedding_length", 0},
        {"llama.embedding_length", 1u << 31},
        {"llama.feed_forward_length", 0},
        {"llama.feed_forward_length", UINT32_MAX},
        {"llama.context_length", 0},
        {"llama.context_length", UINT32_MAX},
        {"llama.attention.head_count", 0},
        {"llama.attention.head_count", 5},
        {"llama.attention.head_count_kv", 0},
        {"llama.attention.head_count_kv", 3},
        {"llama.attention.head_count_kv", 8},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        /* head_count is also the beginning of head_count_kv: skip to the key followed by a type */
        char pattern[64];
        size_t n = strlen(wrong[i].key);
        memcpy(pattern, wrong[i].key, n);
        memcpy(pattern + n, &(uint32_t){4}, 4);
        char *at = memmem(model.data, model.len, pattern, n + 4);
        assert_non_null(at);
        expect_refusal((size_t)(at - model.data) + n + 4, &wrong[i].value, 4, ERR_BAD_INPUT,
                       wrong[i].key);
    }
    size_t eps = after("llama.attention.layer_norm_rms_epsilon") + 4;
    static const uint32_t floats[] = {0x7FC00000 /* NaN */, 0x7F800000, 0xBF800000, 0};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        expect_refusal(eps, &floats[i], 4, ERR_BAD_INPUT, "layer_norm_rms_epsilon");
    expect_refusal(after("general.architecture") + 12, "lamma", 5, ERR_UNSUPPORTED,
                   "general.architecture");
}

static void test_tensors(void **state)
{
    /* name, then dims (4 bytes), cols (8), rows (8), type (4) */
    static const char *const names[] = {"token_embd.weight", "blk.1.attn_q.weight",
                                        "blk.2.ffn_down.weight", "output.weight"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t at = after(names[i]);
        expect_refusal(at + 4, &(uint64_t){32}, 8, ERR_BAD_INPUT, names[i]);
        /* The embedding's rows are the size of the vocabulary: the head then disagrees. */
        expect_refusal(at + 12, &(uint64_t){10}, 8, ERR_BAD_INPUT, i == 0 ? names[3] : names[i]);
        expect_refusal(at + 20, &(uint32_t){999}, 4, ERR_UNSUPPORTED, names[i]);
    }
    expect_refusal(after("output_norm.weigh") - 5, "z", 1, ERR_NOT_FOUND, "output_norm.weight");
    expect_refusal(after("blk.1.attn_") - 7, "7", 1, ERR_NOT_FOUND, "blk.1.attn_");
}

/* A model without one of its tensors. */
enum value_kind { REAL, WHOLE, FLAG, LIST };

static void put_value(struct gguf_writer *w, const char *key, enum value_kind kind, double value)
{
    const int32_t list[3] = {(int32_t)value, (int32_t)value, (int32_t)value};
    if (kind == REAL) gguf_writer_f32(w, key, (float)value);
    if (kind == WHOLE) gguf_writer_u32(w, key, (uint32_t)value);
    if (kind == FLAG) gguf_writer_bool(w, key, value != 0.0);
    if (kind == LIST) gguf_writer_i32s(w, key, list, 3);
}

/* Opens the model with one key more; "" for its hash where that is refused, naming the key. */
static void hash_with(const struct tiny_options *o, const char *key, enum value_kind kind,
                      double value, char hash[ENGINE_HASH_TEXT])
{
    struct gguf_writer w;
    struct buf bytes;
    struct err err = ERR_INIT;
    struct engine *e;
    gguf_writer_init(&w);
    buf_init(&bytes, 1 << 28);
    tiny_model_write(o, &w);
    if (key) put_value(&w, key, kind, value);
    gguf_writer_finish(&w, &bytes);
    assert_int_equal(os_write_file(path, bytes.data, bytes.len, &err), 0);
    hash[0] = 0;
    if (open_file(path, &e, &err) == 0) {
        snprintf(hash, ENGINE_HASH_TEXT, "%s", engine_info(e)->weights_hash);
        engine_free(e);
    } else if (!key || !strstr(err.text, key)) {
        fail_msg("%s: %s", key ? key : "", err.text);
    }
    gguf_writer_release(&w);
    buf_release(&bytes);
}

/* Catches: a key that changes nothing, refused; one that would change results, passed over; one
 * that changes the identity although it changes no result. */
static void test_neutral_values(void **state)
{
    static const struct {
        const char *key;
        enum value_kind kind;
        double value;
        bool yarn, taken; /* yarn: in a model with YaRN and factor 4 */
    } cases[] = {
        {"llama.rope.scaling.yarn_attn_factor", REAL, 1.1386294361119891, true, true},
        {"llama.rope.scaling.yarn_attn_factor", REAL, 1.0, true, true},
        {"llama.rope.scaling.yarn_attn_factor", WHOLE, 1, true, true},
        {"llama.rope.scaling.yarn_attn_factor", REAL, -1.0, true, true},
        {"llama.rope.scaling.yarn_attn_factor", REAL, 1.1387, true, false},
        {"llama.rope.scaling.yarn_attn_factor", REAL, 0.5, true, false},
        {"llama.rope.scaling.yarn_ext_factor", REAL, 1.0, true, true},
        {"llama.rope.scaling.yarn_ext_factor", REAL, -1.0, true, true},
        {"llama.rope.scaling.yarn_ext_factor", REAL, 0.0, true, false},
        {"llama.rope.scaling.yarn_log_multiplier", REAL, 0.0, true, true},
        {"llama.rope.scaling.yarn_attn_factor", REAL, 1.0, false, true},
        {"llama.rope.scaling.yarn_attn_factor", REAL, 1.2, false, false},
        {"llama.rope.scaling.yarn_ext_factor", REAL, 0.0, false, true},
        {"llama.rope.scaling.yarn_ext_factor", REAL, 1.0, false, true}, /* of a factor of 1 */
        {"llama.rope.scaling.yarn_ext_factor", REAL, 0.5, false, true},
        {"llama.vision.block_count", WHOLE, 27, false, true},
        {"llama.mm.tokens_per_image", WHOLE, 256, false, true},
        {"llama.audio.num_mel_bins", WHOLE, 80, false, true},
        {"llama.visionary", WHOLE, 1, false, false},
        {"llama.rope.scaling.original_context_length", WHOLE, 0, false, true},
        {"llama.rope.scaling.factor", WHOLE, 1, false, true},
        {"llama.logit_scale", REAL, 1.0, false, true},
        {"llama.logit_scale", REAL, 0.0, false, true},
        {"llama.logit_scale", WHOLE, 1, false, true},
        {"llama.residual_scale", REAL, 1.0, false, true},
        {"llama.residual_scale", REAL, 1.5, false, false},
        {"llama.embedding_scale", REAL, 1.0, false, true},
        {"llama.attention.scale", REAL, 0.0, false, true},
        {"llama.attn_logit_softcapping", REAL, 0.0, false, true},
        {"llama.attn_logit_softcapping", REAL, 50.0, false, false},
        {"llama.attention.clamp_kqv", REAL, 0.0, false, true},
        {"llama.attention.clamp_kqv", REAL, 8.0, false, false},
        {"llama.attention.key_length_swa", WHOLE, 16, false, true},
        {"llama.attention.key_length_swa", WHOLE, 32, false, false},
        {"llama.rope.dimension_count_swa", WHOLE, 16, false, true},
        {"llama.rope.dimension_count_swa", WHOLE, 8, false, false},
        {"llama.use_parallel_residual", FLAG, 0, false, true},
        {"llama.use_parallel_residual", FLAG, 1, false, false},
        {"llama.expert_count", WHOLE, 0, false, true},
        {"llama.leading_dense_block_count", WHOLE, 0, false, true},
        {"llama.leading_dense_block_count", WHOLE, 1, false, false},
        {"llama.nextn_predict_layers", LIST, 0, false, true},
        {"llama.pooling_type", WHOLE, 3, false, true},
        {"llama.attention.value_length", LIST, 16, false, true},
    };
    struct tiny_options plain = TINY_DEFAULT, yarn = TINY_DEFAULT;
    char base[2][ENGINE_HASH_TEXT], hash[ENGINE_HASH_TEXT];
    (void)state;
    yarn.scaling = "yarn";
    hash_with(&plain, NULL, REAL, 0, base[0]);
    hash_with(&yarn, NULL, REAL, 0, base[1]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hash_with(cases[i].yarn ? &yarn : &plain, cases[i].key, cases[i].kind, cases[i].value,
                  hash);
        if (strcmp(hash, cases[i].taken ? base[cases[i].yarn] : "") != 0)
            fail_msg("%s %g: %s", cases[i].key, cases[i].value, hash[0] ? "taken" : "refused");
    }
}

/* Catches: a file refused for tensors that no text needs, an identity that depends on them, or a
 * tensor passed over that texts do need. */
static void test_pictures_and_sound(void **state)
{
    static const struct {
        const char *name;
        bool taken;
    } cases[] = {{"v.patch_embd.weight", true}, {"v.blk.0.attn_q.weight", true},
                 {"mm.0.weight", true},         {"a.conv1d.1.weight", true},
                 {"resampler.kv.weight", true}, {"blk.0.cross_attn_q.weight", false},
                 {"vision.weight", false}};
    static const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    struct tiny_options o = TINY_DEFAULT;
    char base[ENGINE_HASH_TEXT];
    (void)state;
    hash_with(&o, NULL, REAL, 0, base);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_writer w;
        struct buf bytes;
        struct err err = ERR_INIT;
        struct engine *e;
        gguf_writer_init(&w);
        buf_init(&bytes, 1 << 28);
        tiny_model_write(&o, &w);
        gguf_writer_tensor(&w, cases[i].name, GGUF_F32, 8, 0, ones, sizeof ones);
        gguf_writer_finish(&w, &bytes);
        assert_int_equal(os_write_file(path, bytes.data, bytes.len, &err), 0);
        int code = open_file(path, &e, &err);
        if ((code == 0) != cases[i].taken) fail_msg("%s: %s", cases[i].name, err.text);
        if (code == 0) {
            assert_int_equal(engine_info(e)->beside, 1);
            assert_string_equal(engine_info(e)->weights_hash, base);
            engine_free(e);
        } else {
            assert_non_null(strstr(err.text, cases[i].name));
        }
        gguf_writer_release(&w);
        buf_release(&bytes);
    }
}

static void test_missing_tensor(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    struct gguf_writer w;
    struct buf bytes;
    struct err err = ERR_INIT;
    struct engine *e;
    (void)state;
    gguf_writer_init(&w);
    buf_init(&bytes, 1 << 28);
    o.layers = 2;
    tiny_model_write(&o, &w);
    /* Say that there is one layer more than there is. */
    char *at = memmem(w.keys.data, w.keys.len, "llama.block_count", 17);
    memcpy(at + 21, &(uint32_t){3}, 4);
    gguf_writer_finish(&w, &bytes);
    assert_int_equal(os_write_file(path, bytes.data, bytes.len, &err), 0);
    assert_int_equal(open_file(path, &e, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "blk.2.attn_norm.weight"));
    gguf_writer_release(&w);
    buf_release(&bytes);
}

/* What would change the results and is not computed is named: a key, a tensor. */
static void test_not_computed(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const char *const names[] = {"llama.attention.clamp_kqv", "llama.logit_scale",
                                     "llama.attention.causal", "blk.0.attn_sinks.weight"};
        struct tiny_options o = TINY_DEFAULT;
        struct gguf_writer w;
        struct buf bytes;
        struct err err = ERR_INIT;
        struct engine *e;
        gguf_writer_init(&w);
        buf_init(&bytes, 1 << 28);
        tiny_model_write(&o, &w);
        if (i < 2) gguf_writer_f32(&w, names[i], 8.0f);
        if (i == 2) gguf_writer_bool(&w, names[i], false);
        if (i == 3) gguf_writer_tensor(&w, names[i], GGUF_F32, 1, 0, &(float){1.0f}, 4);
        gguf_writer_finish(&w, &bytes);
        assert_int_equal(os_write_file(path, bytes.data, bytes.len, &err), 0);
        assert_true(open_file(path, &e, &err) < 0);
        assert_non_null(strstr(err.text, names[i]));
        gguf_writer_release(&w);
        buf_release(&bytes);
    }
}

static void test_cut_files(void **state)
{
    struct err err;
    struct engine *e;
    (void)state;
    for (size_t n = 0; n < model.len; n += n < 9000 ? 97 : 20011) {
        assert_int_equal(os_write_file(path, model.data, n, &err), 0);
        assert_true(open_file(path, &e, &err) < 0);
    }
}

/* Random bytes changed in the keys and tensor table: an error, or an engine that runs. */
static void test_mutations(void **state)
{
    size_t head = after("blk.2.ffn_norm.weight") + 40;
    struct native_options o = {.model_path = path, .threads = 1, .context_max = 64};
    uint32_t opened = 0;
    struct rng rng;
    (void)state;
    rng_init(&rng, 21, 0);
    for (int round = 0; round < 1500; round++) {
        struct buf bad;
        struct err err = ERR_INIT;
        struct engine *e;
        struct session *s;
        buf_init(&bad, 1 << 28);
        assert_int_equal(buf_append(&bad, model.data, model.len), 0);
        for (uint32_t n = 1 + rng_below(&rng, 3); n > 0; n--)
            bad.data[rng_below(&rng, (uint32_t)head)] = (char)rng_next(&rng);
        assert_int_equal(os_write_file(path, bad.data, bad.len, &err), 0);
        buf_release(&bad);
        int rc = native_open(&o, &e, &err);
        assert_true(rc == 0 || err.text[0] != 0);
        if (rc < 0) continue;
        opened++;
        assert_int_equal(engine_session_open(e, &s, &err), 0);
        struct engine_span span = {
            .session = s, .tokens = (int32_t[]){1, 2, 3}, .n = 3, .sample = true};
        engine_step(e, &span, 1, &err);
        engine_session_close(s);
        engine_free(e);
    }
    assert_true(opened > 0);
}

/* Fail allocation 1, 2, 3, ... until opening, a session and a step need no more. */
static void test_out_of_memory(void **state)
{
    struct err err;
    (void)state;
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    for (long n = 1;; n++) {
        struct engine *e = NULL;
        struct session *s = NULL;
        assert_true(n < 20000);
        err = (struct err)ERR_INIT;
        mem_fail_at(n);
        int rc = open_file(path, &e, &err);
        if (rc == 0) rc = engine_session_open(e, &s, &err);
        int hit = mem_fail_hit();
        mem_fail_at(0);
        if (hit && (rc != ERR_NO_MEMORY || err.text[0] == 0))
            fail_msg("allocation %ld failed: code %d, \"%s\"", n, rc, err.text);
        if (s) {
            struct engine_span span = {
                .session = s, .tokens = (int32_t[]){1, 2, 3}, .n = 3, .sample = true};
            assert_int_equal(engine_step(e, &span, 1, &err), 0);
        }
        engine_session_close(s);
        engine_free(e);
        if (!hit) {
            print_message("%ld allocations\n", n - 1);
            return;
        }
    }
}

/* KV pages run out: the step fails as a whole, nothing is appended, nothing is lost. */
static void test_out_of_pages(void **state)
{
    struct native_options o = {
        .model_path = path, .threads = 1, .context_max = 256, .kv_type = NATIVE_KV_F16};
    struct engine *e;
    struct session *a, *b;
    struct err err;
    int32_t tokens[256] = {0};
    (void)state;
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    o.kv_bytes_max = (uint64_t)3 * 64 * 3 * 2 * 16 * 2 * 2; /* three pages */
    assert_int_equal(native_open(&o, &e, &err), 0);
    assert_int_equal(engine_info(e)->kv_pages_total, 3);
    assert_int_equal(engine_session_open(e, &a, &err), 0);
    assert_int_equal(engine_session_open(e, &b, &err), 0);
    struct engine_span first = {.session = a, .tokens = tokens, .n = 65};
    assert_int_equal(engine_step(e, &first, 1, &err), 0);
    assert_int_equal(engine_kv_pages_free(e), 1);
    struct engine_span both[] = {{.session = b, .tokens = tokens, .n = 1},
                                 {.session = a, .tokens = tokens, .n = 64}};
    assert_int_equal(engine_step(e, both, 2, &err), ERR_NO_MEMORY);
    assert_int_equal(session_len(a), 65);
    assert_int_equal(session_len(b), 0);
    assert_int_equal(engine_kv_pages_free(e), 1);
    assert_int_equal(session_share(b, a, 64, &err), 0);
    session_cut(b, 0);
    assert_int_equal(session_share(b, a, 65, &err), 0); /* the last free page holds the copy */
    assert_int_equal(engine_kv_pages_free(e), 0);
    session_cut(b, 64);
    session_cut(a, 10);
    assert_int_equal(engine_kv_pages_free(e), 2); /* page 0 is in both */
    struct engine_span over = {.session = a, .tokens = tokens, .n = 247};
    assert_int_equal(engine_step(e, &over, 1, &err), ERR_LIMIT);
    engine_session_close(a);
    engine_session_close(b);
    assert_int_equal(engine_kv_pages_free(e), 3);
    engine_free(e);
}

static void test_options(void **state)
{
    struct engine *e;
    struct err err;
    (void)state;
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    struct native_options o = {.model_path = "/nowhere/model.gguf"};
    assert_int_equal(native_open(&o, &e, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nowhere/model.gguf"));
    o = (struct native_options){.model_path = path, .isa = "sse9"};
    assert_int_equal(native_open(&o, &e, &err), ERR_NOT_FOUND);
    o = (struct native_options){.model_path = path, .kv_bytes_max = 100};
    assert_int_equal(native_open(&o, &e, &err), ERR_LIMIT);
    /* A context that nobody asked for is what the KV memory holds. */
    o = (struct native_options){.model_path = path, .threads = 1, .kv_type = NATIVE_KV_F16};
    o.kv_bytes_max = (uint64_t)64 * 3 * 2 * 16 * 2 * 2;
    assert_int_equal(native_open(&o, &e, &err), 0);
    assert_int_equal(engine_info(e)->context_max, 64);
    engine_free(e);
    o = (struct native_options){.model_path = path, .context_max = UINT32_MAX};
    assert_int_equal(native_open(&o, &e, &err), ERR_LIMIT);
    o = (struct native_options){.model_path = path, .step_tokens_max = 1u << 30};
    assert_int_equal(native_open(&o, &e, &err), ERR_LIMIT);
    o = (struct native_options){.model_path = path, .threads = 5000};
    assert_int_equal(native_open(&o, &e, &err), ERR_LIMIT);
    /* Longer than the file says is the caller's right. */
    o = (struct native_options){.model_path = path, .context_max = 5000, .threads = 1};
    assert_int_equal(native_open(&o, &e, &err), 0);
    assert_int_equal(engine_info(e)->context_max, 5000);
    assert_int_equal(engine_info(e)->context_trained, 2048);
    engine_free(e);
}

/* Catches: a file whose name steers the terminal that shows it. */
static void test_name(void **state)
{
    struct engine *e;
    struct err err;
    struct native_options o = {.model_path = path, .threads = 1};
    size_t at = after("general.name") + 12; /* behind type and length */
    (void)state;
    memcpy(model.data + at, "\x1b[\x9bm", 4);
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    memcpy(model.data + at, "tiny", 4);
    assert_int_equal(native_open(&o, &e, &err), 0);
    assert_string_equal(engine_info(e)->model_name, " [?m");
    engine_free(e);
}

/* Equal files have equal hashes, whatever the name; a changed weight or piece shows. */
static void test_hashes(void **state)
{
    struct engine *a, *b;
    struct err err;
    (void)state;
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    assert_int_equal(open_file(path, &a, &err), 0);
    size_t at = model.len - 5;
    model.data[at] ^= 1;
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    model.data[at] ^= 1;
    assert_int_equal(open_file(path, &b, &err), 0);
    assert_string_not_equal(engine_info(a)->weights_hash, engine_info(b)->weights_hash);
    assert_string_equal(engine_info(a)->tokenizer_hash, engine_info(b)->tokenizer_hash);
    engine_free(b);
    at = after("w280") - 1;
    model.data[at] = 'x';
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    model.data[at] = '0';
    assert_int_equal(open_file(path, &b, &err), 0);
    assert_string_equal(engine_info(a)->weights_hash, engine_info(b)->weights_hash);
    assert_string_not_equal(engine_info(a)->tokenizer_hash, engine_info(b)->tokenizer_hash);
    assert_int_equal(strlen(engine_info(a)->template_hash), 64);
    engine_free(a);
    engine_free(b);
}

/* The length of a tensor's description; its last 8 bytes say where its data begin. */
static size_t info_len(const struct buf *infos, size_t at)
{
    uint64_t name;
    uint32_t dims;
    memcpy(&name, infos->data + at, 8);
    memcpy(&dims, infos->data + at + 8 + name, 4);
    return (size_t)name + 8 + 4 + 8u * dims + 4 + 8;
}

/* Move the tensors from the n-th on to `rest`, where their data begin anew. */
static void move_tensors(struct gguf_writer *w, uint64_t n, struct gguf_writer *rest)
{
    size_t at = 0;
    uint64_t base, offset;
    for (uint64_t i = 0; i < n; i++)
        at += info_len(&w->infos, at);
    memcpy(&base, w->infos.data + at + info_len(&w->infos, at) - 8, 8);
    assert_int_equal(buf_append(&rest->infos, w->infos.data + at, w->infos.len - at), 0);
    assert_int_equal(buf_append(&rest->data, w->data.data + base, w->data.len - base), 0);
    buf_cut(&w->infos, at);
    buf_cut(&w->data, base);
    rest->n_tensors = w->n_tensors - n;
    w->n_tensors = n;
    for (at = 0; at < rest->infos.len;) {
        at += info_len(&rest->infos, at);
        memcpy(&offset, rest->infos.data + at - 8, 8);
        offset -= base;
        memcpy(rest->infos.data + at - 8, &offset, 8);
    }
}

static void write_part(struct gguf_writer *w, uint32_t no, const char *part_path)
{
    struct buf bytes;
    struct err err;
    gguf_writer_u32(w, "split.no", no);
    gguf_writer_u32(w, "split.count", 2);
    buf_init(&bytes, 64 << 20);
    gguf_writer_finish(w, &bytes);
    assert_int_equal(os_write_file(part_path, bytes.data, bytes.len, &err), 0);
    buf_release(&bytes);
}

/* Catches: a split model that is another one than the whole, so that nothing hands over exactly. */
static void test_split_hashes(void **state)
{
    struct tiny_options tiny = TINY_DEFAULT;
    struct gguf_writer first, second;
    struct engine *whole, *split;
    struct err err;
    char paths[2][TINY_PATH_MAX + 32];
    (void)state;
    gguf_writer_init(&first);
    gguf_writer_init(&second);
    tiny_model_write(&tiny, &first);
    move_tensors(&first, first.n_tensors / 2, &second);
    for (int i = 0; i < 2; i++)
        snprintf(paths[i], sizeof paths[i], "%s-0000%d-of-00002.gguf", path, i + 1);
    write_part(&first, 0, paths[0]);
    write_part(&second, 1, paths[1]);
    assert_int_equal(os_write_file(path, model.data, model.len, &err), 0);
    assert_int_equal(open_file(path, &whole, &err), 0);
    if (open_file(paths[0], &split, &err)) fail_msg("%s", err.text);
    assert_string_equal(engine_info(whole)->weights_hash, engine_info(split)->weights_hash);
    assert_string_equal(engine_info(whole)->tokenizer_hash, engine_info(split)->tokenizer_hash);
    assert_string_equal(engine_info(whole)->template_hash, engine_info(split)->template_hash);
    engine_free(whole);
    engine_free(split);
    gguf_writer_release(&first);
    gguf_writer_release(&second);
    unlink(paths[0]);
    unlink(paths[1]);
}

static int set_up(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    (void)state;
    buf_init(&model, 1 << 28);
    tiny_model_file(&o, path);
    tiny_model_bytes(&o, &model);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    buf_release(&model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hyper_parameters),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_pictures_and_sound),
        cmocka_unit_test(test_missing_tensor),
        cmocka_unit_test(test_not_computed),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_out_of_pages),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_name),
        cmocka_unit_test(test_hashes),
        cmocka_unit_test(test_neutral_values),
        cmocka_unit_test(test_split_hashes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
