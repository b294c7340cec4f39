/* cloud_key: see cloud_key.h. */
#include "cli/cloud_key.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cloud/api/keys.h"

enum { LINE_BYTES_MAX = 512 };

static const char help[] =
    "usage: pdd cloud key NAME [OPTION]...\n"
    "Make a bearer key for pdd cloud --key-file. The key is printed once and kept nowhere: give "
    "it\n"
    "to its user. The line below it, which holds the key's hash only, belongs into the file.\n\n"
    "  --requests-per-minute N   requests that may come in a minute (no limit)\n"
    "  --tokens-per-minute N     tokens of prompts and answers in a minute (no limit)\n"
    "  --streams N               requests at one time (no limit)\n"
    "  --priority N              from -8 to 8; each step doubles the share of the engine (0)\n"
    "  --hash                    read a key you have from standard input; print its line only\n";

enum { O_REQUESTS = 256, O_TOKENS, O_STREAMS, O_PRIORITY, O_HASH, O_HELP };

static const struct option long_options[] = {
    {"requests-per-minute", required_argument, NULL, O_REQUESTS},
    {"tokens-per-minute", required_argument, NULL, O_TOKENS},
    {"streams", required_argument, NULL, O_STREAMS},
    {"priority", required_argument, NULL, O_PRIORITY},
    {"hash", no_argument, NULL, O_HASH},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

struct wish {
    const char *name;
    bool hash;
};

/* The name is not repeated: it may be a key by mistake. */
static int check_name(const char *name)
{
    if (key_name_good(name, strlen(name))) return 0;
    fprintf(
        stderr,
        "pdd cloud key: %s: NAME has at most %d letters, digits, dots, underscores and dashes\n",
        !name[0]                      ? "NAME is empty"
        : strpbrk(name, " \t")        ? "there is a blank in NAME"
        : strlen(name) > KEY_NAME_MAX ? "NAME is too long"
                                      : "a character of NAME cannot be",
        KEY_NAME_MAX);
    return -1;
}

/* 0: go on; otherwise leave with *ret_status. The line's own parser checks the values. */
static int parse(int argc, char **argv, struct wish *w, struct buf *text, int *ret_status)
{
    static const char *const fields[] = {"requests_per_minute", "tokens_per_minute", "streams",
                                         "priority"};
    int option;
    *ret_status = EXIT_USAGE;
    while ((option = option_next(argc, argv, "", long_options)) != -1) {
        if (option == O_HELP) {
            fputs(help, stdout);
            *ret_status = EXIT_DONE;
            return -1;
        }
        if (option == O_HASH)
            w->hash = true;
        else if (option >= O_REQUESTS && option <= O_PRIORITY)
            buf_printf(text, " %s=%s", fields[option - O_REQUESTS], optarg);
        else
            return -1;
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "pdd cloud key: one NAME is needed; see pdd cloud key --help\n");
        return -1;
    }
    w->name = argv[optind];
    return check_name(w->name);
}

/* The key to hash: from standard input, or a new one. */
static int get_key(const struct wish *w, char *key, size_t size, struct err *e)
{
    if (!w->hash) return key_make(key, e);
    if (!fgets(key, (int)size, stdin)) return err_set(e, ERR_BAD_INPUT, "no key on standard input");
    key[strcspn(key, "\r\n")] = 0;
    return key[0] ? 0 : err_set(e, ERR_BAD_INPUT, "the key on standard input is empty");
}

/* Through the file's own parser: what that refuses must not be printed. */
static int make(const struct wish *w, const struct buf *fields, struct err *e)
{
    char key[KEY_LEN_MAX + 2];
    struct key_line line = {.priority = 0};
    struct buf text;
    buf_init(&text, LINE_BYTES_MAX);
    int code = get_key(w, key, sizeof key, e);
    if (code) return code;
    key_hash(key, strlen(key), line.hash);
    code = buf_puts(&text, w->name);
    if (!code) code = key_line_print(&line, &text);
    if (!code) code = buf_append(&text, fields->data, fields->len);
    if (code) err_set(e, ERR_LIMIT, "the line would be longer than %d bytes", LINE_BYTES_MAX);
    if (!code && key_line_parse(text.data, text.len, &line, e))
        code = e->code ? e->code : ERR_BAD_INPUT;
    if (!code && !w->hash) printf("%s\n", key);
    if (!code) printf("%s\n", text.data);
    buf_release(&text);
    return code;
}

int cloud_key(int argc, char **argv)
{
    struct wish w = {.hash = false};
    struct buf fields;
    struct err e = ERR_INIT;
    int status;
    char name[] = "pdd cloud key"; /* getopt begins its complaints with it */
    argv[0] = name;
    buf_init(&fields, LINE_BYTES_MAX);
    if (parse(argc, argv, &w, &fields, &status) == 0) {
        status = make(&w, &fields, &e) ? EXIT_FAILED : EXIT_DONE;
        if (status) fprintf(stderr, "pdd cloud key: %s\n", e.text);
    }
    buf_release(&fields);
    return status;
}
