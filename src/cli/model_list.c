/* model_list: `pdd model list` and `pdd model rm`: the models that have a name (hub/library.h). */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "hub/library.h"

enum { SHORT_DIGEST = 12 };

const struct command command_model_list = {
    .name = "model list",
    .bit = OPTIONS_LIST,
    .usage = "usage: pdd model list [OPTION]...\n"
             "The models in the folder of models, which pdd model pull fills: name, size,\n"
             "type and number of weights, context, origin, SHA-256.\n\n"};

const struct command command_model_rm = {
    .name = "model rm",
    .bit = OPTIONS_RM,
    .operands = true,
    .usage = "usage: pdd model rm NAME...\n"
             "Remove models from the folder of models, with all their parts, or what a\n"
             "download has left.\n\n"};

/* "494M", "1.54B" */
static void put_count(char *text, size_t size, uint64_t n)
{
    double v = (double)n;
    if (n >= 999500000)
        snprintf(text, size, "%.*fB", v < 99.5e9 ? 2 : 0, v / 1e9);
    else if (n >= 999500)
        snprintf(text, size, "%.*fM", v < 99.5e6 ? 1 : 0, v / 1e6);
    else
        snprintf(text, size, "%" PRIu64, n);
}

static const char *digest_of(const struct library_model *m)
{
    return m->record.n_files && m->record.files[0].sha256[0] ? m->record.files[0].sha256 : NULL;
}

static void print_rest(const struct library_model *m)
{
    char count[32], context[32];
    if (m->partial) {
        printf("%s\n", "not complete: the same pdd model pull goes on");
        return;
    }
    if (m->unreadable.code) {
        printf("cannot be read: %s\n", m->unreadable.text);
        return;
    }
    put_count(count, sizeof count, m->parameters);
    snprintf(context, sizeof context, "%u", m->context);
    printf("%-8s %7s %8s  %-*.*s  %s\n", m->type, count, m->context ? context : "-", SHORT_DIGEST,
           SHORT_DIGEST, digest_of(m) ? digest_of(m) : "-",
           m->record.from[0] ? m->record.from : "-");
}

static void print_table(const struct library_list *l, const char *dir)
{
    int width = 4;
    if (l->n == 0) {
        printf("no models in %s; pdd model pull URL or hf:OWNER/NAME gets one\n", dir);
        return;
    }
    for (uint32_t i = 0; i < l->n; i++)
        if ((int)strlen(l->models[i].name) > width) width = (int)strlen(l->models[i].name);
    if (width > 48) width = 48;
    printf("%-*s %9s  %-8s %7s %8s  %-*s  %s\n", width, "name", "MB", "type", "weights", "context",
           SHORT_DIGEST, "SHA-256", "from");
    for (uint32_t i = 0; i < l->n; i++) {
        const struct library_model *m = &l->models[i];
        printf("%-*s %9.1f  ", width, m->name, (double)m->bytes / 1e6);
        print_rest(m);
    }
}

/* For shells and scripts. */
static void print_names(const struct library_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (!l->models[i].partial) puts(l->models[i].name);
}

static json_t *text_or_null(const char *text)
{
    json_t *value = text && text[0] ? json_string(text) : NULL;
    return value ? value : json_null();
}

static json_t *json_model(const struct library_model *m)
{
    json_t *row = json_pack("{so ss sI sI sb so so}", "name", text_or_null(m->name), "path",
                            m->path, "bytes", (json_int_t)m->bytes, "parts", (json_int_t)m->parts,
                            "complete", !m->partial && !m->unreadable.code, "from",
                            text_or_null(m->record.from), "sha256", text_or_null(digest_of(m)));
    bool facts = !m->partial && !m->unreadable.code;
    if (!row) return json_null();
    json_object_set_new(row, "type", facts ? text_or_null(m->type) : json_null());
    json_object_set_new(row, "architecture", facts ? text_or_null(m->architecture) : json_null());
    json_object_set_new(row, "parameters",
                        facts ? json_integer((json_int_t)m->parameters) : json_null());
    json_object_set_new(row, "context",
                        facts && m->context ? json_integer(m->context) : json_null());
    json_object_set_new(row, "pulled",
                        m->record.pulled ? json_integer(m->record.pulled) : json_null());
    json_object_set_new(row, "error", text_or_null(m->unreadable.code ? m->unreadable.text : NULL));
    return row;
}

static int print_json(const struct library_list *l, struct err *e)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < l->n; i++)
        json_array_append_new(rows, json_model(&l->models[i]));
    int failed = rows ? json_dumpf(rows, stdout, JSON_INDENT(2)) : -1;
    json_decref(rows);
    if (failed) return err_set(e, ERR_INTERNAL, "the list cannot be written as JSON");
    putchar('\n');
    return 0;
}

int model_list(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    struct library_list l = {NULL, 0};
    char dir[LIBRARY_PATH_MAX];
    int status;
    if (options_parse(&command_model_list, argc, argv, &o, &line, &status)) return status;
    int code = library_default_dir(dir, sizeof dir, &e);
    if (code == 0) code = library_read(dir, !o.model.names_only, &l, &e);
    if (code == 0 && o.model.names_only)
        print_names(&l);
    else if (code == 0 && o.model.json)
        code = print_json(&l, &e);
    else if (code == 0)
        print_table(&l, dir);
    library_list_release(&l);
    if (code == 0) return EXIT_DONE;
    fprintf(stderr, "pdd model list: %s\n", e.text);
    return EXIT_FAILED;
}

int model_rm(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    char dir[LIBRARY_PATH_MAX];
    int status;
    if (options_parse(&command_model_rm, argc, argv, &o, &line, &status)) return status;
    if (line.n_operands == 0) {
        fprintf(stderr, "pdd model rm: the NAME of a model is missing; see pdd model rm --help\n");
        return EXIT_USAGE;
    }
    int code = library_default_dir(dir, sizeof dir, &e);
    for (int i = 0; i < line.n_operands && code == 0; i++) {
        uint64_t freed = 0;
        code = library_remove(dir, line.operands[i], &freed, &e);
        if (code == 0) printf("%s: %.1f MB removed\n", line.operands[i], (double)freed / 1e6);
    }
    if (code == 0) return EXIT_DONE;
    fprintf(stderr, "pdd model rm: %s\n", e.text);
    return EXIT_FAILED;
}
