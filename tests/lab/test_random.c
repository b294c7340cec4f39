/*
 * test_random: `pdd model random` as a program (PDD_BIN, set by CTest).
 *
 * Catches: a file that the reader refuses (offsets, sizes, types, vocabulary), weights whose spread
 * would overflow or vanish, a file that depends on the number of threads or not on the seed, a half
 * file left behind when the disk is full, an unknown name that is not told apart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/os.h"
#include "kern/kern.h"
#include "model/gguf.h"
#include "model/text/template.h"
#include "model/text/vocab.h"
#include "support/program.h"

enum { OUTPUT_MAX = 1 << 16, COMMAND_MAX = 1024, FILE_MAX = 64 << 20 };

static char folder[] = "/tmp/pdd-test-random-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[COMMAND_MAX];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* Run `BEFORE pdd model random ARGUMENTS` in the folder; what it prints goes to `out`. */
static int run(const char *before, const char *arguments, struct buf *out)
{
    const char *bin = getenv("PDD_BIN");
    char command[COMMAND_MAX];
    if (!bin || !bin[0]) skip();
    snprintf(command, sizeof command, "cd %s && %s '%s' model random %s 2>&1", folder, before, bin,
             arguments);
    return program_shell(command, out);
}

static void expect(const char *before, const char *arguments, int status, const char *text)
{
    struct buf out;
    int got = run(before, arguments, &out);
    program_expect(arguments, got, status, &out, text);
}

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bool exists(const char *name)
{
    struct stat st;
    return stat(path_of(name), &st) == 0;
}

static void read_file(const char *name, struct buf *b)
{
    struct err e;
    buf_init(b, FILE_MAX);
    if (os_read_file(path_of(name), b, &e)) fail_msg("%s", e.text);
}

static bool same_files(const char *a, const char *b)
{
    struct buf x, y;
    read_file(a, &x);
    read_file(b, &y);
    bool same = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
    buf_release(&x);
    buf_release(&y);
    return same;
}

static void test_complaints(void **state)
{
    (void)state;
    expect("", "--help", 0, "qwen2.5-0.5b");
    expect("", "", 2, "--shape NAME is missing");
    expect("", "--shape llama-tiny", 2, "-o FILE is missing");
    expect("", "--shape llama-tiny -o a.gguf more", 2, "no operands");
    expect("", "--shape llama-huge -o a.gguf", 2, "smollm2-135m");
    expect("", "--shape llama-tiny --type Q9 -o a.gguf", 2, "Q4_K_M");
    expect("", "--shape llama-tiny -o no/such/folder.gguf", 1, "no/such/folder.gguf");
    assert_false(exists("a.gguf"));
}

/* A limit on the size of a file stands for a full disk. */
static void test_full_disk(void **state)
{
    (void)state;
    expect("trap '' XFSZ; ulimit -f 64;", "--shape llama-tiny -o full.gguf", 1, "full.gguf");
    assert_false(exists("full.gguf"));
    struct buf out;
    assert_int_equal(run("ls | grep -c tmp;", "--help", &out), 0);
    assert_int_equal(out.data[0], '0');
    buf_release(&out);
}

static void test_seed_decides(void **state)
{
    (void)state;
    expect("", "--shape llama-tiny --type Q4_K_M --threads 1 -o one.gguf", 0, "Q4_K_M, seed 1");
    expect("", "--shape llama-tiny --type Q4_K_M --threads 3 -o three.gguf", 0, "llama-tiny");
    expect("", "--shape llama-tiny --type Q4_K_M --seed 2 -o seed.gguf", 0, "seed 2");
    assert_true(same_files("one.gguf", "three.gguf"));
    assert_false(same_files("one.gguf", "seed.gguf"));
}

/* Float weights must spread as said: cols 256 make a deviation of 1/16. */
static void check_spread(const struct gguf_tensor *t)
{
    float row[256];
    double sum = 0, squares = 0;
    enum kern_type type;
    assert_true(kern_type_find(t->type, &type));
    assert_int_equal(t->shape[0], 256);
    for (uint64_t r = 0; r < t->shape[1]; r++) {
        kern_dequant_row(type, t->data + t->bytes / t->shape[1] * r, 256, row);
        for (int i = 0; i < 256; i++) {
            sum += (double)row[i];
            squares += (double)(row[i] * row[i]);
        }
    }
    double n = 256.0 * (double)t->shape[1];
    assert_true(sum / n < 0.01 && sum / n > -0.01);
    assert_true(squares / n > 0.8 / 256 && squares / n < 1.25 / 256);
}

static void check_file(const char *name, const char *type)
{
    struct gguf *g;
    struct vocab *v;
    struct chat_template *c = NULL;
    struct err e = ERR_INIT;
    if (gguf_open(path_of(name), &g, &e)) fail_msg("%s %s: %s", name, type, e.text);
    for (size_t i = 0; i < gguf_tensor_count(g); i++)
        assert_non_null(gguf_tensor_at(g, i)->data);
    const struct gguf_tensor *q = gguf_tensor_find(g, "blk.0.attn_q.weight");
    assert_string_equal(gguf_type_info(q->type)->name, type);
    if (q->type <= GGUF_Q4_0 || q->type == GGUF_Q8_0 || q->type == GGUF_BF16 ||
        q->type == GGUF_MXFP4)
        check_spread(q);
    if (vocab_open(g, &v, &e) || chat_template_open(g, &c, &e)) fail_msg("%s: %s", name, e.text);
    assert_int_equal(vocab_size(v), 512);
    assert_true(vocab_bos(v) >= 0 && vocab_eos(v) >= 0);
    chat_template_close(c);
    vocab_close(v);
    gguf_close(g);
}

static void test_types(void **state)
{
    (void)state;
    for (int t = 0; t < KERN_TYPES; t++) {
        const char *name = kern_type_info((enum kern_type)t)->name;
        char arguments[128];
        snprintf(arguments, sizeof arguments, "--shape llama-tiny --type %s -o t.gguf", name);
        expect("", arguments, 0, name);
        check_file("t.gguf", name);
    }
}

/* The vocabularies of other families; their tensors are llama's with more. */
static void test_vocabularies(void **state)
{
    static const char *const shapes[] = {"llama3-tiny",  "qwen2-tiny",  "qwen3-tiny",
                                         "granite-tiny", "gemma2-tiny", "gemma3-tiny"};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char arguments[128];
        snprintf(arguments, sizeof arguments, "--shape %s --type F16 -o v.gguf", shapes[i]);
        expect("", arguments, 0, shapes[i]);
        check_file("v.gguf", "F16");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complaints),   cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_seed_decides), cmocka_unit_test(test_types),
        cmocka_unit_test(test_vocabularies),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
