/* cloud_key: `pdd cloud key`, which makes a key and its line of the key file (cloud/api/keys.h). */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cloud/api/keys.h"

enum { LINE_BYTES_MAX = 512 };

const struct command command_cloud_key = {
    .name = "cloud key",
    .bit = OPTIONS_KEY,
    .operands = true,
    .usage = "usage: pdd cloud key NAME [OPTION]...\n"
             "Make a bearer key for pdd cloud --key-file. The key is printed once and stored\n"
             "nowhere: give it to its user. The line below it has the key's hash only and goes\n"
             "into the file.\n\n"};

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

/* The key to hash: from standard input, or a new one. */
static int get_key(const struct key_options *o, char *key, size_t size, struct err *e)
{
    if (!o->hash) return key_make(key, e);
    if (!fgets(key, (int)size, stdin)) return err_set(e, ERR_BAD_INPUT, "no key on standard input");
    key[strcspn(key, "\r\n")] = 0;
    return key[0] ? 0 : err_set(e, ERR_BAD_INPUT, "the key on standard input is empty");
}

/* Through the file's own parser: what that refuses must not be printed. */
static int make(const char *name, const struct key_options *o, struct err *e)
{
    const struct {
        const char *field, *value;
    } limits[] = {{"requests_per_minute", o->requests},
                  {"tokens_per_minute", o->tokens},
                  {"streams", o->streams},
                  {"priority", o->priority}};
    char key[KEY_LEN_MAX + 2];
    struct key_line line = {.priority = 0};
    struct buf text;
    buf_init(&text, LINE_BYTES_MAX);
    int code = get_key(o, key, sizeof key, e);
    if (code) return code;
    key_hash(key, strlen(key), line.hash);
    code = buf_puts(&text, name);
    if (!code) code = key_line_print(&line, &text);
    for (size_t i = 0; i < sizeof limits / sizeof *limits && !code; i++)
        if (limits[i].value) code = buf_printf(&text, " %s=%s", limits[i].field, limits[i].value);
    if (code) err_set(e, ERR_LIMIT, "the line would be longer than %d bytes", LINE_BYTES_MAX);
    if (!code && key_line_parse(text.data, text.len, &line, e))
        code = e->code ? e->code : ERR_BAD_INPUT;
    if (!code && !o->hash) printf("%s\n", key);
    if (!code) printf("%s\n", text.data);
    buf_release(&text);
    return code;
}

int cmd_cloud_key(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command_cloud_key, argc, argv, &o, &line, &status)) return status;
    if (line.n_operands != 1) {
        fprintf(stderr, "pdd cloud key: one NAME is needed; see pdd cloud key --help\n");
        return EXIT_USAGE;
    }
    if (check_name(line.operands[0])) return EXIT_USAGE;
    if (make(line.operands[0], &o.key, &e) == 0) return EXIT_DONE;
    fprintf(stderr, "pdd cloud key: %s\n", e.text);
    return EXIT_FAILED;
}
