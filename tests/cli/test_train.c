/*
 * test_train: the recipe of tools/train end to end, small: a vocabulary, texts, 20 steps of a tiny
 * model, its GGUF file, and the program opening it. Skipped where python3 with PyTorch, NumPy and
 * regex is missing. It needs no data from outside and judges no figure.
 *
 * Catches: a part of the recipe that no longer fits the others; a conversation that cannot be made
 * from short texts; a loss that is not a number; a file that the engine refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/buf.h"
#include "support/program.h"

enum { COMMAND_MAX = 8192 };

#define TRAIN PDD_SOURCE_DIR "/tools/train"

/* The python3 that has what the recipe needs, or the test is skipped. */
static const char *python(void)
{
    static const char *const candidates[] = {"python3", "/usr/bin/python3"};
    for (size_t i = 0; i < 2; i++) {
        char command[COMMAND_MAX];
        struct buf out;
        snprintf(command, sizeof command, "%s -c 'import torch, numpy, regex' 2>&1", candidates[i]);
        int status = program_shell(command, &out);
        buf_release(&out);
        if (status == 0) return candidates[i];
    }
    skip();
    return NULL;
}

/* Articles with questions and a book, of sentences that facts.py makes. */
static const char make_texts[] =
    "import json, random, sys\n"
    "import facts\n"
    "rng, folder = random.Random(7), sys.argv[1]\n"
    "def said(n):\n"
    "    return ' '.join(f.said for g in facts.make_facts(rng, n) for f in g)\n"
    "with open(folder + '/children_books.txt', 'w') as f:\n"
    "    f.write('\\n<|endoftext|>\\n'.join(f'Book {i}\\n{said(60)}' for i in range(12)))\n"
    "with open(folder + '/text_wiki_simple.txt', 'w') as f:\n"
    "    f.write('\\n<|endoftext|>\\n'.join(f'Page {i}\\n{said(40)}' for i in range(12)))\n"
    "with open(folder + '/qa_train_squad.jsonl', 'w') as f:\n"
    "    for i in range(12):\n"
    "        flat = [x for g in facts.make_facts(rng, 6) for x in g]\n"
    "        qas = [list(x.asked[0][:2]) for x in flat if x.asked]\n"
    "        line = {'title': f'T{i // 3}', 'context': ' '.join(x.said for x in flat), 'qas': "
    "qas}\n"
    "        f.write(json.dumps(line) + '\\n')\n";

static void test_twenty_steps(void **state)
{
    (void)state;
    const char *py = python(), *pdd = getenv("PDD_BIN");
    char folder[] = "/tmp/pdd-test-train-XXXXXX", command[COMMAND_MAX];
    struct buf out;
    assert_non_null(mkdtemp(folder));
    snprintf(
        command, sizeof command,
        "set -e; exec 2>&1; T='%s' D='%s' P=%s; export PYTHONPATH=\"$T\" "
        "PYTHONDONTWRITEBYTECODE=1\n"
        "$P - \"$D\" <<'END'\n%s\nEND\n"
        "$P $T/bpe.py $D/tok.json 600 $D/children_books.txt $D/text_wiki_simple.txt\n"
        "$P $T/corpus.py $D/tok.json $D $D/texts.pickle 2\n"
        "$P $T/train.py $D/tok.json $D/texts.pickle $D --minutes 1 --steps 20 --tiny --rows 2\n"
        "$P $T/export_gguf.py $D/tiny.pt $D/tok.json $D/tiny.gguf tiny Q8_0\n"
        "%s model inspect $D/tiny.gguf\n",
        TRAIN, folder, py, make_texts, pdd ? pdd : "build/release/pdd");
    int status = program_shell(command, &out);
    if (status != 0) print_error("%s\n", out.data);
    assert_int_equal(status, 0);
    assert_non_null(strstr(out.data, "step 20 "));
    assert_null(strstr(out.data, "nan"));
    assert_non_null(strstr(out.data, "architecture  gemma3"));
    buf_release(&out);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_twenty_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
