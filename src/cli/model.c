/*
 * model: `pdd model inspect|tokenize|detokenize FILE`: what a model file holds, and its tokenizer
 * at work. Never runs a model. The inspection itself is model_inspect.c; `pdd model random`, which
 * alone writes, is model_random.c.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/utf8.h"
#include "cli/commands.h"
#include "cli/model_inspect.h"
#include "cli/model_random.h"
#include "cli/options.h"
#include "model/gguf.h"
#include "model/vocab.h"

enum { TEXT_MAX = 64 << 20, TOKENS_MAX = 1 << 26, IO_BYTES = 1 << 16 };

static const char help[] =
    "usage: pdd model inspect FILE [--json] [--no-hash]\n"
    "       pdd model tokenize FILE [--text TEXT | --file TEXTFILE] [--no-special] [--ids]\n"
    "       pdd model detokenize FILE ID...\n"
    "       pdd model random --shape NAME [--type TYPE] [--seed N] -o FILE\n\n"
    "  inspect      what a GGUF file holds, and whether this program can run it\n"
    "    --json        one JSON object instead of lines\n"
    "    --no-hash     without the digests that device and cloud compare (they take reading it "
    "all)\n"
    "  tokenize     the tokens of a text (of standard input when none is given)\n"
    "    --text TEXT   the text itself\n"
    "    --file FILE   the text is in this file\n"
    "    --no-special  as a user's text: no BOS, control tokens are plain text\n"
    "    --ids         only the numbers, in one line\n"
    "  detokenize   the text of tokens; control tokens are shown\n"
    "  random       a file of random weights in a real model's shape; see pdd model random "
    "--help\n";

struct request {
    const char *file; /* the model */
    const char *text, *text_file;
    bool json, no_hash, no_special, ids_only;
    char **ids;
    int n_ids;
};

/* Model file and its vocabulary, for the two commands that need them. */
struct tokenizer_file {
    struct gguf *g;
    struct vocab *v;
};

static int source_open(struct tokenizer_file *s, const char *path, struct err *e)
{
    *s = (struct tokenizer_file){0};
    int code = gguf_open(path, &s->g, e);
    return code ? code : vocab_open(s->g, &s->v, e);
}

static void source_close(struct tokenizer_file *s)
{
    vocab_close(s->v);
    gguf_close(s->g);
}

static int inspect(const struct request *r, struct err *e)
{
    return model_inspect(r->file, r->json, !r->no_hash, stdout, e);
}

static int read_input(struct buf *text, struct err *e)
{
    char bytes[IO_BYTES];
    for (;;) {
        ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_set(e, ERR_IO, "standard input: %s", strerror(errno));
        if (n == 0) return 0;
        int code = buf_append(text, bytes, (size_t)n);
        if (code)
            return err_set(e, code, "standard input: more than the %d bytes allowed", TEXT_MAX);
    }
}

static int get_text(const struct request *r, struct buf *text, struct err *e)
{
    if (r->text_file) return os_read_file(r->text_file, text, e);
    if (!r->text) return read_input(text, e);
    int code = buf_puts(text, r->text);
    return code ? err_set(e, code, "--text: more than the %d bytes allowed", TEXT_MAX) : 0;
}

/* A piece as a C programmer would write it, so that spaces, newlines and half characters show. */
static void print_quoted(const char *bytes, size_t n)
{
    putchar('"');
    for (size_t at = 0; at < n;) {
        uint32_t code = 0;
        size_t len = utf8_decode(bytes + at, n - at, &code);
        uint8_t b = (uint8_t)bytes[at];
        if (b == '\n')
            fputs("\\n", stdout);
        else if (b == '"' || b == '\\')
            printf("\\%c", b);
        else if (len == 0 || b < 32 || b == 127)
            printf("\\x%02X", b);
        else
            fwrite(bytes + at, 1, len, stdout);
        at += len ? len : 1;
    }
    putchar('"');
}

static int print_tokens(const struct vocab *v, const struct token_list *ids, bool ids_only)
{
    struct buf piece;
    int code = 0;
    buf_init(&piece, TEXT_MAX);
    for (uint32_t i = 0; i < ids->len && code == 0; i++) {
        if (ids_only) {
            printf("%s%d", i ? " " : "", ids->ids[i]);
            continue;
        }
        buf_clear(&piece);
        code = vocab_piece(v, ids->ids[i], true, &piece);
        printf("%7d  ", ids->ids[i]);
        print_quoted(piece.data, piece.len);
        putchar('\n');
    }
    if (ids_only) putchar('\n');
    buf_release(&piece);
    return code;
}

static int tokenize(const struct request *r, struct err *e)
{
    struct tokenizer_file s;
    struct buf text;
    struct token_list ids;
    buf_init(&text, TEXT_MAX);
    token_list_init(&ids, TOKENS_MAX);
    int code = source_open(&s, r->file, e);
    if (code == 0) code = get_text(r, &text, e);
    unsigned flags = r->no_special ? 0 : VOCAB_ADD_BOS | VOCAB_SPECIAL;
    if (code == 0) code = vocab_encode(s.v, text.data, text.len, flags, &ids, e);
    if (code == 0 && (code = print_tokens(s.v, &ids, r->ids_only)) != 0)
        err_set(e, code, "%s: no memory for the text of a token", r->file);
    token_list_release(&ids);
    buf_release(&text);
    source_close(&s);
    return code;
}

static int read_id(const char *text, const struct vocab *v, int32_t *ret_id, struct err *e)
{
    char *end;
    errno = 0;
    long id = strtol(text, &end, 10);
    if (end == text || *end || errno || id < 0 || id >= (long)vocab_size(v))
        return err_set(e, ERR_BAD_INPUT, "\"%.40s\" is no token: whole numbers from 0 to %u are",
                       text, vocab_size(v) - 1);
    *ret_id = (int32_t)id;
    return 0;
}

static int detokenize(const struct request *r, struct err *e)
{
    struct tokenizer_file s;
    struct buf text;
    buf_init(&text, TEXT_MAX);
    int code = source_open(&s, r->file, e);
    for (int i = 0; i < r->n_ids && code == 0; i++) {
        int32_t id = 0;
        code = read_id(r->ids[i], s.v, &id, e);
        if (code == 0 && (code = vocab_piece(s.v, id, true, &text)) != 0)
            err_set(e, code, "the text is longer than the %d bytes allowed", TEXT_MAX);
    }
    if (code == 0) {
        fwrite(text.data, 1, text.len, stdout);
        putchar('\n');
    }
    buf_release(&text);
    source_close(&s);
    return code;
}

enum { ACCEPT_JSON = 1, ACCEPT_TEXT = 2, ACCEPT_IDS = 4 };
static const struct action {
    const char *name;
    int (*run)(const struct request *r, struct err *e);
    unsigned accepts;
} actions[] = {
    {"inspect", inspect, ACCEPT_JSON},
    {"tokenize", tokenize, ACCEPT_TEXT},
    {"detokenize", detokenize, ACCEPT_IDS},
};
enum { ACTIONS = sizeof actions / sizeof *actions };

static const struct option options[] = {
    {"json", no_argument, NULL, 'j'},       {"no-hash", no_argument, NULL, 's'},
    {"text", required_argument, NULL, 't'}, {"file", required_argument, NULL, 'f'},
    {"no-special", no_argument, NULL, 'n'}, {"ids", no_argument, NULL, 'i'},
    {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
};

/* 0, 'h' for help, or -1 after saying what is wrong. */
static int read_options(const struct action *action, int argc, char **argv, struct request *r)
{
    for (int c; (c = option_next(argc, argv, "", options)) != -1;) {
        unsigned needs = c == 'j' || c == 's' ? ACCEPT_JSON : ACCEPT_TEXT;
        if (c == 'h' || c == '?') return c == 'h' ? c : -1;
        if (!(action->accepts & needs)) {
            fprintf(stderr, "pdd model: %s has no such option; see pdd model --help\n",
                    action->name);
            return -1;
        }
        r->json |= c == 'j';
        r->no_hash |= c == 's';
        r->no_special |= c == 'n';
        r->ids_only |= c == 'i';
        if (c == 't') r->text = optarg;
        if (c == 'f') r->text_file = optarg;
    }
    return 0;
}

/* What stands after the options: the model, then ids where the action takes some. */
static const char *read_operands(const struct action *action, int n, char **operands,
                                 struct request *r)
{
    if (n < 1) return "the model FILE is missing";
    r->file = operands[0];
    r->ids = operands + 1;
    r->n_ids = n - 1;
    if (!(action->accepts & ACCEPT_IDS) && n > 1) return "one model FILE at a time";
    if ((action->accepts & ACCEPT_IDS) && n == 1) return "the IDs of tokens are missing";
    return r->text && r->text_file ? "--text and --file exclude each other" : NULL;
}

static int run(const struct action *action, int argc, char **argv)
{
    struct request r = {0};
    struct err e = ERR_INIT;
    int c = read_options(action, argc, argv, &r);
    if (c == 'h') {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    if (c < 0) return EXIT_USAGE;
    const char *complaint = read_operands(action, argc - optind, argv + optind, &r);
    if (complaint) {
        fprintf(stderr, "pdd model %s: %s; see pdd model --help\n", action->name, complaint);
        return EXIT_USAGE;
    }
    int code = action->run(&r, &e);
    if (code == 0 && fflush(stdout) != 0)
        code = err_set(&e, ERR_IO, "standard output: %s", strerror(errno));
    if (code == 0) return EXIT_DONE;
    fprintf(stderr, "pdd model %s: %s\n", action->name, e.text);
    return EXIT_FAILED;
}

int cmd_model(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "random") == 0) {
        argv[1] = argv[0];
        return model_random(argc - 1, argv + 1);
    }
    for (int i = 0; argc > 1 && i < ACTIONS; i++) {
        if (strcmp(argv[1], actions[i].name) != 0) continue;
        argv[1] = argv[0]; /* for getopt's complaints */
        return run(&actions[i], argc - 1, argv + 1);
    }
    bool wants_help = argc > 1 && strcmp(argv[1], "--help") == 0;
    if (argc > 1 && !wants_help)
        fprintf(stderr, "pdd model: no action \"%.40s\"; see pdd model --help\n", argv[1]);
    else
        fputs(help, wants_help ? stdout : stderr);
    return wants_help ? EXIT_DONE : EXIT_USAGE;
}
