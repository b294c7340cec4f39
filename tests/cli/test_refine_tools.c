/*
 * test_refine_tools: tools/refine from sets to page, with two generated questions, the smallest
 * model of models/ and the program that PDD_BIN names. Skipped where python3 or the tools are
 * missing. It needs no data from outside, and judges no figure.
 *
 * Catches: a set that pdd refuses, a set without texts that is not reported as skipped, a part or
 * a question that is lost, questions beyond --deep that are asked in full, a page whose text around
 * the marks is lost, tables without a figure, and no picture.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "support/program.h"

enum { COMMAND_MAX = 4096 };

#define TOOLS PDD_SOURCE_DIR "/tools/refine"

static char folder[] = "/tmp/pdd-test-refine-tools-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[COMMAND_MAX];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void shell(const char *text, struct buf *out)
{
    char command[COMMAND_MAX];
    snprintf(command, sizeof command,
             "cd %s && model=$(ls -Sr " PDD_SOURCE_DIR "/models/*.gguf | head -1) && { %s\n} 2>&1",
             folder, text);
    if (program_shell(command, out) != 0) fail_msg("%s", out->data);
}

static void has(const struct buf *out, const char *text)
{
    if (!strstr(out->data, text)) fail_msg("no \"%s\" in: %s", text, out->data);
}

static void test_from_sets_to_page(void **state)
{
    const char *bin = getenv("PDD_BIN");
    struct buf out;
    (void)state;
    int status = program_shell("python3 -c 'import argparse, http.client, json' && ls " TOOLS
                               "/run.py " PDD_SOURCE_DIR "/models/*.gguf 2>&1",
                               &out);
    buf_release(&out);
    if (status != 0 || !bin || !bin[0] || program_instrumented) skip();
    shell("python3 -B " TOOLS "/sets.py $model sets --texts none --n 2 --sets needles-3k,flat",
          &out);
    has(&out, "needles-3k: 2 questions");
    has(&out, "flat: skipped: ");
    buf_release(&out);
    shell("printf 'Before.\\n<!-- report.py -->\\nold\\n<!-- report.py: end -->\\nAfter.\\n' "
          ">page.text; "
          "for i in 1 2; do python3 -B " TOOLS
          "/run.py $model sets results --jobs 2 --deep 1 --page "
          "page.text || exit 1; done; cat page.text; grep -c '\"runs\"' results/*; "
          "grep -o '\"method\":\"ends\"' results/* | wc -l; grep -c '<polyline' refine.svg",
          &out);
    has(&out, "Before.\n<!-- report.py -->\n`");
    has(&out,
        "After.\nresults/1.jsonl:2\nresults/2.jsonl:0\n2\n6\n"); /* ends: at two ratios, once */
    has(&out, "| a fact at nine depths, 3k | 2 | ");
    assert_null(strstr(out.data, "\nold\n"));
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_from_sets_to_page)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
