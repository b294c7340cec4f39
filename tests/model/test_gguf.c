/*
 * test_gguf: the reader against files that are wrong in every place.
 *
 * Catches: a length, count, offset or shape that is used before it is checked (with the sanitizer
 * builds), an error that does not name the file, a wrong file taken for a right one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/rng.h"
#include "model/gguf.h"
#include "model/text/template.h"
#include "model/text/vocab.h"
#include "support/gguf_writer.h"

static void make_file(struct buf *out)
{
    static const char *const words[] = {"one", "two", ""};
    static const float floats[] = {1.0f, 2.0f};
    static const float data[64] = {1.0f};
    struct gguf_writer w;
    gguf_writer_init(&w);
    gguf_writer_u32(&w, "a.number", 42);
    gguf_writer_text(&w, "a.text", "hello");
    gguf_writer_bool(&w, "a.bool", true);
    gguf_writer_texts(&w, "a.words", words, 3);
    gguf_writer_f32s(&w, "a.floats", floats, 2);
    gguf_writer_tensor(&w, "first", GGUF_F32, 8, 4, data, 128);
    gguf_writer_tensor(&w, "second", GGUF_F32, 16, 0, data, 64);
    buf_init(out, 1 << 20);
    gguf_writer_finish(&w, out);
    gguf_writer_release(&w);
}

/* Open a copy of exactly n bytes, so that the sanitizer sees any read past them. */
static int open_copy(const char *data, size_t n, struct gguf **g, char **copy, struct err *e)
{
    *copy = mem_alloc(n);
    memcpy(*copy, data, n);
    return gguf_open_bytes(*copy, n, "test.gguf", g, e);
}

static void walk(const struct gguf *g)
{
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        uint32_t sum = 0;
        for (size_t k = 0; t->data && k < t->bytes; k++)
            sum += t->data[k];
        assert_true(sum < UINT32_MAX);
    }
    struct err e;
    struct gguf_array a;
    if (gguf_array(g, "a.words", &a, &e) == 0 && a.type == 8) {
        const uint8_t *at = a.data;
        for (uint64_t i = 0; i < a.n; i++)
            assert_non_null(gguf_array_next_text(&at).data);
    }
}

static void test_reads_what_was_written(void **state)
{
    (void)state;
    struct buf file;
    struct gguf *g;
    struct err e = ERR_INIT;
    char *copy;
    make_file(&file);
    assert_int_equal(open_copy(file.data, file.len, &g, &copy, &e), 0);
    uint32_t number;
    struct gguf_str text;
    struct gguf_array words;
    bool flag;
    assert_int_equal(gguf_u32(g, "a.number", &number, &e), 0);
    assert_int_equal(number, 42);
    assert_int_equal(gguf_text(g, "a.text", &text, &e), 0);
    assert_memory_equal(text.data, "hello", 5);
    assert_int_equal(gguf_bool(g, "a.bool", &flag, &e), 0);
    assert_int_equal(gguf_array(g, "a.words", &words, &e), 0);
    assert_int_equal(words.n, 3);
    const struct gguf_tensor *t = gguf_tensor_find(g, "first");
    assert_non_null(t);
    assert_int_equal(t->shape[0], 8);
    assert_int_equal(t->shape[1], 4);
    assert_int_equal(t->bytes, 128);
    assert_null(gguf_tensor_find(g, "third"));
    assert_int_equal(gguf_u32(g, "a.missing", &number, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "a.missing"));
    assert_int_equal(gguf_u32(g, "a.text", &number, &e), ERR_BAD_INPUT);
    assert_non_null(strstr(e.text, "a.text"));
    gguf_close(g);
    mem_free(copy);
    buf_release(&file);
}

static void test_cut_at_every_byte(void **state)
{
    (void)state;
    struct buf file;
    make_file(&file);
    for (size_t n = 0; n < file.len; n++) {
        struct gguf *g;
        struct err e = ERR_INIT;
        char *copy;
        int code = open_copy(file.data, n, &g, &copy, &e);
        assert_true(code < 0);
        assert_non_null(strstr(e.text, "test.gguf"));
        mem_free(copy);
    }
    buf_release(&file);
}

static void test_every_byte_changed(void **state)
{
    (void)state;
    struct buf file;
    make_file(&file);
    static const uint8_t values[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
    for (size_t i = 0; i < file.len; i++) {
        for (size_t v = 0; v < sizeof values; v++) {
            struct gguf *g;
            struct err e = ERR_INIT;
            char *copy, old = file.data[i];
            file.data[i] = (char)values[v];
            if (open_copy(file.data, file.len, &g, &copy, &e) == 0) {
                walk(g);
                gguf_close(g);
            } else {
                assert_true(e.code < 0 && e.text[0]);
            }
            mem_free(copy);
            file.data[i] = old;
        }
    }
    buf_release(&file);
}

static void test_random_damage(void **state)
{
    (void)state;
    struct buf file;
    struct rng r;
    make_file(&file);
    rng_init(&r, 3, 0);
    for (int round = 0; round < 20000; round++) {
        char *copy = mem_alloc(file.len);
        struct gguf *g;
        struct err e = ERR_INIT;
        memcpy(copy, file.data, file.len);
        for (uint32_t k = 1 + rng_below(&r, 4); k > 0; k--)
            copy[rng_below(&r, (uint32_t)file.len)] = (char)rng_next(&r);
        if (gguf_open_bytes(copy, file.len, "test.gguf", &g, &e) == 0) {
            walk(g);
            gguf_close(g);
        }
        mem_free(copy);
    }
    buf_release(&file);
}

static void expect_refused(struct gguf_writer *w, const char *culprit)
{
    struct buf file;
    struct gguf *g;
    struct err e = ERR_INIT;
    buf_init(&file, 1 << 20);
    gguf_writer_finish(w, &file);
    assert_true(gguf_open_bytes(file.data, file.len, "test.gguf", &g, &e) < 0);
    assert_non_null(strstr(e.text, culprit));
    gguf_writer_release(w);
    buf_release(&file);
}

static void test_names_the_culprit(void **state)
{
    (void)state;
    static const float data[64] = {0};
    struct gguf_writer w;
    gguf_writer_init(&w);
    gguf_writer_u32(&w, "twice", 1);
    gguf_writer_u32(&w, "twice", 2);
    expect_refused(&w, "twice");
    gguf_writer_init(&w);
    gguf_writer_tensor(&w, "same", GGUF_F32, 8, 0, data, 32);
    gguf_writer_tensor(&w, "same", GGUF_F32, 8, 0, data, 32);
    expect_refused(&w, "same");
    gguf_writer_init(&w);
    gguf_writer_u32(&w, "general.alignment", 24);
    expect_refused(&w, "general.alignment");
    gguf_writer_init(&w);
    gguf_writer_tensor(&w, "odd", GGUF_Q8_0, 33, 0, data, 34);
    expect_refused(&w, "odd");
    gguf_writer_init(&w);
    gguf_writer_tensor(&w, "huge", GGUF_F32, UINT64_C(1) << 40, UINT64_C(1) << 40, data, 32);
    expect_refused(&w, "huge");
    gguf_writer_init(&w);
    gguf_writer_tensor(&w, "beyond", GGUF_F32, 1 << 20, 1 << 10, data, 32);
    expect_refused(&w, "beyond");
}

static void test_refuses_other_files(void **state)
{
    (void)state;
    struct gguf *g;
    struct err e = ERR_INIT;
    assert_int_equal(gguf_open_bytes("hello, world", 12, "x", &g, &e), ERR_BAD_INPUT);
    assert_int_equal(gguf_open_bytes("GGUF\x01\0\0\0", 8, "x", &g, &e), ERR_UNSUPPORTED);
    assert_int_equal(gguf_open_bytes("GGUF\0\0\0\x03", 8, "x", &g, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "big-endian"));
    assert_int_equal(gguf_open("/no/such/file.gguf", &g, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/no/such/file.gguf"));
    assert_true(gguf_open("/tmp", &g, &e) < 0);
}

/* One file of a split model, with the tensors [from, to) of `names`, beside the others. */
struct split_file {
    uint32_t no, count, total;
    uint32_t from, to;
};
static const char *const split_names[] = {"a", "b", "c", "d"};

static void write_split(const char *path, const struct split_file *f)
{
    static const float data[4][8] = {{1.0f}, {2.0f}, {3.0f}, {4.0f}};
    struct gguf_writer w;
    struct buf out;
    struct err e = ERR_INIT;
    gguf_writer_init(&w);
    if (f->count > 0) gguf_writer_u32(&w, "split.no", f->no);
    if (f->count > 0) gguf_writer_u32(&w, "split.count", f->count);
    if (f->count > 0) gguf_writer_u32(&w, "split.tensors.count", f->total);
    if (f->no == 0) gguf_writer_text(&w, "a.text", "hello");
    for (uint32_t i = f->from; i < f->to; i++)
        gguf_writer_tensor(&w, split_names[i], GGUF_F32, 8, 0, data[i], 32);
    buf_init(&out, 1 << 16);
    gguf_writer_finish(&w, &out);
    if (os_write_file(path, out.data, out.len, &e)) fail_msg("%s", e.text);
    buf_release(&out);
    gguf_writer_release(&w);
}

enum { SPLIT_PARTS = 3 };

/* A folder with a model in three files, the first without tensors; paths[i] is part i. */
static void make_split(char *folder, char paths[SPLIT_PARTS][64])
{
    static const struct split_file files[] = {
        {0, SPLIT_PARTS, 4, 0, 0}, {1, SPLIT_PARTS, 4, 0, 3}, {2, SPLIT_PARTS, 4, 3, 4}};
    strcpy(folder, "/tmp/pdd-split-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < SPLIT_PARTS; i++) {
        snprintf(paths[i], 64, "%s/m-%05d-of-%05d.gguf", folder, i + 1, SPLIT_PARTS);
        write_split(paths[i], &files[i]);
    }
}

static void remove_split(const char *folder, char paths[SPLIT_PARTS][64])
{
    for (int i = 0; i < SPLIT_PARTS; i++)
        unlink(paths[i]);
    assert_int_equal(rmdir(folder), 0);
}

static void expect_open(const char *path, int code, const char *sentence, const char *more)
{
    struct gguf *g;
    struct err e = ERR_INIT;
    int got = gguf_open(path, &g, &e);
    if (got == 0) gguf_close(g);
    if (got != code || (code && (!strstr(e.text, sentence) || !strstr(e.text, more))))
        fail_msg("%s: code %d: %s", path, got, e.text);
}

/* Catches: a split model that is refused, or of which only one part is read. */
static void test_split_is_one(void **state)
{
    char folder[32], paths[SPLIT_PARTS][64];
    struct gguf *g;
    struct err e = ERR_INIT;
    struct gguf_str text;
    (void)state;
    make_split(folder, paths);
    if (gguf_open(paths[0], &g, &e)) fail_msg("%s", e.text);
    assert_int_equal(gguf_tensor_count(g), 4);
    assert_int_equal(gguf_text(g, "a.text", &text, NULL), 0);
    for (uint32_t i = 0; i < 4; i++) {
        const struct gguf_tensor *t = gguf_tensor_find(g, split_names[i]);
        float first;
        assert_ptr_equal(t, gguf_tensor_at(g, i));
        gguf_tensor_forget(g, t);
        memcpy(&first, t->data, sizeof first);
        assert_true(first == (float)(i + 1));
    }
    gguf_forget(g);
    walk(g);
    uint64_t bytes = 0;
    for (int i = 0; i < SPLIT_PARTS; i++) {
        struct stat st;
        assert_int_equal(stat(paths[i], &st), 0);
        bytes += (uint64_t)st.st_size;
    }
    assert_int_equal(gguf_file_bytes(g), bytes);
    gguf_close(g);
    remove_split(folder, paths);
}

/* Catches: a part that is missing, cut off or of another model, and is not named. */
static void test_split_faults(void **state)
{
    char folder[32], paths[SPLIT_PARTS][64], other[64];
    (void)state;
    make_split(folder, paths);
    expect_open(paths[1], ERR_BAD_INPUT, "part 2 of the 3", paths[0]);
    struct stat st;
    assert_int_equal(stat(paths[2], &st), 0);
    assert_int_equal(truncate(paths[2], st.st_size - 1), 0);
    expect_open(paths[0], ERR_BAD_INPUT, paths[2], "cut off");
    write_split(paths[2], &(struct split_file){2, SPLIT_PARTS, 4, 2, 3});
    expect_open(paths[0], ERR_BAD_INPUT, "c", "twice");
    write_split(paths[2], &(struct split_file){2, SPLIT_PARTS, 4, 3, 3});
    expect_open(paths[0], ERR_BAD_INPUT, "3 tensors", "split.tensors.count is 4");
    write_split(paths[2], &(struct split_file){1, SPLIT_PARTS, 4, 3, 4});
    expect_open(paths[0], ERR_BAD_INPUT, paths[2], "part 2 of 3, not part 3 of 3");
    write_split(paths[2], &(struct split_file){0, 0, 0, 3, 4});
    expect_open(paths[0], ERR_BAD_INPUT, paths[2], "not part 3 of 3");
    unlink(paths[2]);
    expect_open(paths[0], ERR_NOT_FOUND, paths[2], "is missing");
    snprintf(other, sizeof other, "%s/other.gguf", folder);
    assert_int_equal(rename(paths[0], other), 0);
    expect_open(other, ERR_BAD_INPUT, "other.gguf", "-00001-of-00003.gguf");
    write_split(other, &(struct split_file){0, 1, 1, 0, 1});
    expect_open(other, 0, NULL, NULL);
    write_split(other, &(struct split_file){5, 4, 1, 0, 1});
    expect_open(other, ERR_BAD_INPUT, "split.no is 5", "split.count 4");
    unlink(other);
    remove_split(folder, paths);
}

/* Catches: parts that are not found beside a link's target, or under an ending in capitals; a part
 * under another one's name. */
static void test_split_names(void **state)
{
    char folder[32], paths[SPLIT_PARTS][64], link_path[64], capital[SPLIT_PARTS][64];
    (void)state;
    make_split(folder, paths);
    snprintf(link_path, sizeof link_path, "%s/model", folder);
    assert_int_equal(symlink(paths[0], link_path), 0);
    expect_open(link_path, 0, NULL, NULL);
    unlink(link_path);
    for (int i = 0; i < SPLIT_PARTS; i++) {
        memcpy(capital[i], paths[i], sizeof capital[i]);
        memcpy(capital[i] + strlen(capital[i]) - 4, "GGUF", 4);
        assert_int_equal(rename(paths[i], capital[i]), 0);
    }
    expect_open(capital[0], 0, NULL, NULL);
    assert_int_equal(rename(capital[1], capital[0]), 0);
    expect_open(capital[0], ERR_BAD_INPUT, "part 2 of 3, not part 1", "as its name says");
    remove_split(folder, capital);
}

/* A program that downloads may reserve the whole file first. Biases may be zeros in a good one. */
static void test_zeros_at_the_end(void **state)
{
    static const char *const names[] = {"output.weight", "blk.0.attn_q.bias"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct gguf_writer w;
        struct buf out;
        struct gguf *g;
        struct err e = ERR_INIT;
        char *copy;
        float data[8] = {1.0f};
        gguf_writer_init(&w);
        gguf_writer_tensor(&w, "first", GGUF_F32, 8, 0, data, 32);
        data[0] = 0.0f;
        data[7] = i < 2 ? 0.0f : 1.0f;
        gguf_writer_tensor(&w, names[i % 2], GGUF_F32, 8, 0, data, 32);
        buf_init(&out, 1 << 16);
        gguf_writer_finish(&w, &out);
        assert_int_equal(open_copy(out.data, out.len, &g, &copy, &e), 0);
        assert_int_equal(gguf_check_end(g, &e), i == 0 ? ERR_BAD_INPUT : 0);
        if (i == 0) assert_non_null(strstr(e.text, "zeros (all of output.weight)"));
        gguf_close(g);
        mem_free(copy);
        buf_release(&out);
        gguf_writer_release(&w);
    }
}

static void test_later_parts(void **state)
{
    static const char *const later[] = {"x-00002-of-00003.gguf", "a/b-2-of-9.gguf"};
    static const char *const others[] = {"x-00001-of-00003.gguf",
                                         "x-2-of-3",
                                         "x.gguf",
                                         "-of-3.gguf",
                                         "2-of-3.gguf",
                                         "",
                                         "x-of-3.gguf",
                                         "x-2-of-.gguf",
                                         ".gguf",
                                         "x2-of-3.gguf",
                                         "x-2-off-3.gguf",
                                         "x-2of-3.gguf"};
    (void)state;
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (!gguf_is_later_part(later[i])) fail_msg("%s", later[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (gguf_is_later_part(others[i])) fail_msg("%s", others[i]);
}

/* Catches: a download that broke off, told as damage of which nobody knows the cause. */
static void test_cut_downloads(void **state)
{
    struct buf file;
    (void)state;
    make_file(&file);
    for (size_t n = 4; n < file.len; n++) {
        struct gguf *g;
        struct err e = ERR_INIT;
        char *copy;
        assert_int_equal(open_copy(file.data, n, &g, &copy, &e), ERR_BAD_INPUT);
        if (!strstr(e.text, "cut off")) fail_msg("%zu bytes: %s", n, e.text);
        mem_free(copy);
    }
    buf_release(&file);
}

/* Catches: what lies in place of a model, told as no GGUF file only. */
static void test_strangers(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *sentence;
    } cases[] = {{"version https://git-lfs.github.com/spec/v1\noid sha256:0", 54, "git lfs pull"},
                 {"<!DOCTYPE html>", 15, "a web page"},
                 {"{\"error\": \"no\"}", 15, "JSON"},
                 {"PK\003\004rest", 8, "zip"},
                 {"\037\213\010", 3, "gzip"},
                 {"\0\0\0\0\0\0\0\0", 8, "zeros"},
                 {"", 0, "empty"},
                 {"\x40\0\0\0\0\0\0\0{\"a\":{}}", 16, "safetensors"},
                 {"\200\002}q", 4, "a pickle"},
                 {"hello", 5, "not a GGUF file"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf *g;
        struct err e = ERR_INIT;
        char *copy;
        assert_int_equal(open_copy(cases[i].bytes, cases[i].n, &g, &copy, &e), ERR_BAD_INPUT);
        if (!strstr(e.text, cases[i].sentence)) fail_msg("case %zu: %s", i, e.text);
        mem_free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_is_one),        cmocka_unit_test(test_split_faults),
        cmocka_unit_test(test_split_names),         cmocka_unit_test(test_zeros_at_the_end),
        cmocka_unit_test(test_later_parts),         cmocka_unit_test(test_cut_downloads),
        cmocka_unit_test(test_strangers),           cmocka_unit_test(test_reads_what_was_written),
        cmocka_unit_test(test_cut_at_every_byte),   cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_random_damage),       cmocka_unit_test(test_names_the_culprit),
        cmocka_unit_test(test_refuses_other_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
