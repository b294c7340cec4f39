/*
 * model_command: `pdd model inspect|tokenize|detokenize MODEL`: what a model file holds, and its
 * tokenizer at work. Never runs a model. The inspection itself is model_inspect.c; actions that
 * write have files of their own: model_random.c, model_pull.c, model_list.c.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "base/utf8.h"
#include "cli/commands.h"
#include "cli/model_file.h"
#include "cli/model_inspect.h"
#include "cli/model_render.h"
#include "cli/options.h"
#include "model/gguf.h"
#include "model/text/vocab.h"

enum { TEXT_MAX = 64 << 20, TOKENS_MAX = 1 << 26, IO_BYTES = 1 << 16 };

struct request {
    const char *file; /* the model */
    const struct model_options *options;
    struct chat_template_choice chat_template;
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
    if (r->options->render) return model_render(r->file, &r->chat_template, r->options->render, e);
    return model_inspect(r->file, r->options->json, !r->options->no_hash, stdout, e);
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
    const struct model_options *o = r->options;
    if (o->text_file) return os_read_file(o->text_file, text, e);
    if (!o->text) return read_input(text, e);
    int code = buf_puts(text, o->text);
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
    unsigned flags = r->options->no_special ? 0 : VOCAB_ADD_BOS | VOCAB_SPECIAL;
    if (code == 0) code = vocab_encode(s.v, text.data, text.len, flags, &ids, e);
    if (code == 0 && (code = print_tokens(s.v, &ids, r->options->ids_only)) != 0)
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
        return err_set(e, ERR_BAD_INPUT,
                       "\"%.40s\" is not a token: a whole number from 0 to %u is needed", text,
                       vocab_size(v) - 1);
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

#define USAGE                                                                                      \
    "usage: pdd model inspect MODEL [--json] [--no-hash]\n"                                        \
    "       pdd model inspect MODEL --render JSON\n"                                               \
    "       pdd model tokenize MODEL [--text TEXT | --file TEXTFILE] [OPTION]...\n"                \
    "       pdd model detokenize MODEL ID...\n"                                                    \
    "       pdd model pull URL | hf:OWNER/NAME        see pdd model pull --help\n"                 \
    "       pdd model list | rm NAME...               see pdd model list --help\n"                 \
    "       pdd model random --shape NAME -o FILE     see pdd model random --help\n"               \
    "MODEL is a GGUF file, or a name of pdd model list.\n"

enum { FAMILY = OPTIONS_INSPECT | OPTIONS_TOKENIZE | OPTIONS_DETOKENIZE };

#define ACTION(text, bits)                                                                         \
    {                                                                                              \
        .name = "model " text, .page = "model", .bit = (bits), .family = FAMILY, .usage = USAGE,   \
        .operands = true                                                                           \
    }

const struct command command_model_inspect = ACTION("inspect", OPTIONS_INSPECT);
const struct command command_model_tokenize = ACTION("tokenize", OPTIONS_TOKENIZE);
const struct command command_model_detokenize = ACTION("detokenize", OPTIONS_DETOKENIZE);

static const struct action {
    const char *name;
    int (*run)(const struct request *r, struct err *e);
    const struct command *command;
    bool takes_ids;
} actions[] = {
    {"inspect", inspect, &command_model_inspect, false},
    {"tokenize", tokenize, &command_model_tokenize, false},
    {"detokenize", detokenize, &command_model_detokenize, true},
};
enum { ACTIONS = sizeof actions / sizeof *actions };

/* NULL: good. */
static const char *check_request(const struct action *action, const struct request *r)
{
    if (!r->file) return "the model FILE is missing";
    if (!action->takes_ids && r->n_ids > 0) return "one model FILE at a time";
    if (action->takes_ids && r->n_ids == 0) return "the IDs of tokens are missing";
    if ((r->chat_template.family || r->chat_template.file) && !r->options->render)
        return "--chat-template and --chat-template-file need --render";
    return r->options->text && r->options->text_file ? "--text and --file exclude each other"
                                                     : NULL;
}

static int run(const struct action *action, int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct request r = {.options = &o.model};
    struct err e = ERR_INIT;
    char path[MODEL_FILE_PATH_MAX];
    int status;
    if (options_parse(action->command, argc, argv, &o, &line, &status)) return status;
    r.chat_template =
        (struct chat_template_choice){o.native.chat_template, o.native.chat_template_file};
    if (line.n_operands > 0) {
        r.file = line.operands[0];
        r.ids = line.operands + 1;
        r.n_ids = line.n_operands - 1;
    }
    const char *complaint = check_request(action, &r);
    if (complaint) {
        fprintf(stderr, "pdd model %s: %s; see pdd model --help\n", action->name, complaint);
        return EXIT_USAGE;
    }
    int code = model_file_resolve(&r.file, path, &e);
    if (code == 0) code = action->run(&r, &e);
    if (code == 0 && fflush(stdout) != 0)
        code = err_set(&e, ERR_IO, "standard output: %s", strerror(errno));
    if (code == 0) return EXIT_DONE;
    fprintf(stderr, "pdd model %s: %s\n", action->name, e.text);
    return EXIT_FAILED;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} others[] = {
    {"random", model_random}, {"pull", model_pull}, {"list", model_list}, {"rm", model_rm}};
enum { OTHERS = sizeof others / sizeof *others };

int cmd_model(int argc, char **argv)
{
    for (int i = 0; argc > 1 && i < OTHERS; i++)
        if (strcmp(argv[1], others[i].name) == 0) return others[i].run(argc - 1, argv + 1);
    for (int i = 0; argc > 1 && i < ACTIONS; i++)
        if (strcmp(argv[1], actions[i].name) == 0) return run(&actions[i], argc - 1, argv + 1);
    bool wants_help = argc > 1 && strcmp(argv[1], "--help") == 0;
    if (argc > 1 && !wants_help)
        fprintf(stderr, "pdd model: no action \"%.40s\"; see pdd model --help\n", argv[1]);
    else
        options_help(actions[0].command, wants_help ? stdout : stderr);
    return wants_help ? EXIT_DONE : EXIT_USAGE;
}
