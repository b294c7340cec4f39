/*
 * test_model: `pdd model` as a program (PDD_BIN, set by CTest), on the small vocabularies of
 * tiny_vocab.
 *
 * Catches: an error told on the wrong stream or with status 0, a report that is no JSON, a hostile
 * name that reaches the terminal as it is, ids that do not lead back to the text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/os.h"
#include "support/gguf_writer.h"
#include "support/program.h"
#include "support/tiny_model.h"
#include "support/tiny_vocab.h"

enum { OUTPUT_MAX = 1 << 16, COMMAND_MAX = 1024 };

static char folder[] = "/tmp/pdd-test-model-XXXXXX";

static void save(const char *name, const struct buf *file)
{
    char path[128];
    struct err e;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (os_write_file(path, file->data, file->len, &e)) fail_msg("%s", e.text);
}

static int make_files(void **state)
{
    static const float weights[64] = {0};
    struct buf file;
    struct gguf_writer w;
    (void)state;
    assert_non_null(mkdtemp(folder));
    tiny_vocab_bpe("gpt-2", &file);
    save("bpe.gguf", &file);
    buf_release(&file);
    tiny_vocab_spm(&file);
    save("spm.gguf", &file);
    buf_release(&file);
    buf_init(&file, 1 << 24);
    tiny_model_bytes(tiny_arch(2), &file); /* qwen3 */
    save("runs.gguf", &file);
    memcpy(memmem(file.data, file.len, "blk.1.ffn_up", 12), "blk.1.ffn_xx", 12);
    save("lacks.gguf", &file);
    buf_release(&file);
    buf_init(&file, 1 << 24);
    tiny_model_bytes(tiny_arch(0), &file); /* llama */
    save("int16.gguf", &file);
    buf_release(&file);
    gguf_writer_init(&w);
    gguf_writer_text(&w, "general.name", "\033[31mred");
    gguf_writer_text(&w, "general.architecture", "abacus");
    gguf_writer_tensor(&w, "beads", GGUF_F32, 32, 2, weights, 256);
    buf_init(&file, PROGRAM_OUTPUT_MAX);
    gguf_writer_finish(&w, &file);
    save("odd.gguf", &file);
    gguf_writer_release(&w);
    buf_release(&file);
    return 0;
}

static int remove_files(void **state)
{
    static const char *const names[] = {"bpe.gguf",  "spm.gguf",   "odd.gguf",
                                        "runs.gguf", "lacks.gguf", "int16.gguf"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

/* Run `pdd model ARGUMENTS` by a shell in the folder of the files; its output goes to `out`, with
 * standard error too where `both`. Returns its status. */
static int run(const char *arguments, bool both, struct buf *out)
{
    const char *bin = getenv("PDD_BIN");
    char command[COMMAND_MAX];
    if (!bin || !bin[0]) skip();
    snprintf(command, sizeof command, "cd %s && '%s' model %s %s", folder, bin, arguments,
             both ? "2>&1" : "2>/dev/null");
    return program_shell(command, out);
}

static void expect(const char *arguments, int status, const char *text)
{
    struct buf out;
    int got = run(arguments, true, &out);
    program_expect(arguments, got, status, &out, text);
    if (status == 0) return;
    assert_int_equal(run(arguments, false, &out), status);
    assert_int_equal(out.len, 0);
    buf_release(&out);
}

static void test_statuses(void **state)
{
    (void)state;
    expect("--help", 0, "tokenize");
    expect("", 2, "usage");
    expect("paint", 2, "paint");
    expect("inspect", 2, "FILE");
    expect("inspect a b", 2, "one model");
    expect("inspect bpe.gguf --text x", 2, "inspect has no such option");
    expect("tokenize bpe.gguf --json", 2, "tokenize has no such option");
    expect("tokenize bpe.gguf --text x --file y", 2, "exclude");
    expect("tokenize bpe.gguf --file /no/such", 1, "/no/such");
    expect("tokenize odd.gguf --text x", 1, "tokenizer.ggml.model");
    expect("detokenize bpe.gguf", 2, "IDs");
    expect("detokenize bpe.gguf 5 x", 1, "\"x\"");
    expect("detokenize bpe.gguf 100000", 1, "100000");
    expect("inspect /no/such.gguf", 1, "/no/such.gguf");
    expect("inspect /dev/null", 1, "regular file");
}

static void test_inspect(void **state)
{
    (void)state;
    struct buf out;
    json_error_t error;
    expect("inspect bpe.gguf", 0, "template      of the file");
    expect("inspect spm.gguf", 0, "llama (pre-tokeniser none)");
    expect("inspect odd.gguf", 0, "?[31mred");
    expect("inspect odd.gguf", 0, "this program runs");
    expect("inspect runs.gguf", 0, "q and k norms");
    expect("inspect runs.gguf", 0, " 576 bytes of KV a token"); /* heads of 24: float16 */
    expect("inspect int16.gguf", 0, " 432 bytes of KV a token");
    expect("inspect runs.gguf --json", 0, "\"runs\": true");
    expect("inspect runs.gguf", 0, "weights hash  ");
    expect("inspect lacks.gguf", 0, "blk.1.ffn_up.weight");
    expect("inspect lacks.gguf", 0, "cannot run");
    expect("inspect lacks.gguf --json", 0, "\"runs\": false");
    assert_int_equal(run("inspect odd.gguf --json", false, &out), 0);
    json_t *all = json_loads(out.data, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(all);
    json_t *row = json_array_get(json_object_get(all, "types"), 0);
    assert_string_equal(json_string_value(json_object_get(row, "type")), "F32");
    assert_int_equal(json_integer_value(json_object_get(row, "weights")), 64);
    assert_int_equal(json_integer_value(json_object_get(row, "bytes")), 256);
    assert_true(json_is_null(json_object_get(all, "tokenizer")));
    assert_non_null(json_object_get(json_object_get(all, "refused"), "run"));
    json_decref(all);
    buf_release(&out);
}

static void test_tokenize(void **state)
{
    (void)state;
    expect("tokenize bpe.gguf --text 'in the<|im_end|>'", 0, "265  \"<|im_end|>\"");
    expect("tokenize bpe.gguf --text 'in the' --ids", 0, "259 261\n");
    expect("tokenize spm.gguf --text the --ids", 0, "1 266\n");
    expect("tokenize spm.gguf --text the --ids --no-special", 0, "266\n");
    expect("tokenize spm.gguf --text the\\\"", 0, "\"\\\"\"");
    expect("detokenize bpe.gguf 259 261 265", 0, "in the<|im_end|>\n");
    expect("tokenize bpe.gguf --ids < /dev/null", 0, "\n");
    expect(
        "detokenize bpe.gguf $(printf 'the \\303\\251' | $PDD_BIN model tokenize bpe.gguf --ids)",
        0, "the \xC3\xA9\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_inspect),
        cmocka_unit_test(test_tokenize),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
