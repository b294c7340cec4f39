/* option: see option.h. */
#include "cli/option.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "cli/commands.h"

enum { VALUE_FIRST = 256 /* of getopt's results: above every letter */, NAME_BYTES = 64 };

static uint32_t family_of(const struct command *c)
{
    return c->family ? c->family : c->bit;
}

static const char *page_of(const struct command *c)
{
    return c->page ? c->page : c->name;
}

/* ---- values ---- */

static void *field(const struct option_row *row, struct options *o)
{
    return (char *)o + row->at;
}

static int read_whole(const struct option_row *row, const char *text, uint64_t *ret_value,
                      struct err *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || v < (long long)row->low || v > (long long)row->high)
        return err_set(e, ERR_BAD_INPUT, "a whole number from %lld to %lld is needed",
                       (long long)row->low, (long long)row->high);
    *ret_value = (uint64_t)v;
    return 0;
}

static int read_real(const struct option_row *row, const char *text, double *ret_value,
                     struct err *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= row->low && v <= row->high))
        return err_set(e, ERR_BAD_INPUT, "a number from %g to %g is needed", row->low, row->high);
    *ret_value = v;
    return 0;
}

static int read_address(const char *text, struct option_address *ret_address, struct err *e)
{
    const char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
    size_t n = colon ? (size_t)(colon - text) : 0;
    bool brackets = n > 2 && text[0] == '[' && text[n - 1] == ']';
    char *end;
    errno = 0;
    long v = strtol(port, &end, 10);
    if (end == port || *end || errno || v < 0 || v > 65535 || n >= OPTION_HOST_MAX ||
        (!brackets && n > 0 && (text[0] == '[' || text[n - 1] == ']')))
        return err_set(e, ERR_BAD_INPUT, "HOST:PORT is needed, for example 127.0.0.1:8080");
    if (n == 0)
        snprintf(ret_address->host, sizeof ret_address->host, "127.0.0.1");
    else if (brackets)
        snprintf(ret_address->host, sizeof ret_address->host, "%.*s", (int)n - 2, text + 1);
    else
        snprintf(ret_address->host, sizeof ret_address->host, "%.*s", (int)n, text);
    ret_address->port = (uint16_t)v;
    return 0;
}

void option_address_text(const struct option_address *a, uint16_t port,
                         char ret_text[OPTION_HOST_MAX + 16])
{
    bool six = strchr(a->host, ':') != NULL;
    snprintf(ret_text, OPTION_HOST_MAX + 16, "%s%s%s:%u", six ? "[" : "", a->host, six ? "]" : "",
             port);
}

bool option_address_local(const struct option_address *a)
{
    return strncmp(a->host, "127.", 4) == 0 || strcmp(a->host, "::1") == 0 ||
           strcasecmp(a->host, "localhost") == 0;
}

/* "smooth, off or reading is needed" */
static int refuse_word(const char *const *words, struct err *e)
{
    char list[ERR_TEXT_MAX / 2] = "";
    for (size_t i = 0; words[i]; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s",
                 i == 0         ? ""
                 : words[i + 1] ? ", "
                                : " or ",
                 words[i]);
    }
    return err_set(e, ERR_BAD_INPUT, "%s is needed", list);
}

static int read_word(const struct option_row *row, const char *text, struct options *o,
                     struct err *e)
{
    for (uint32_t i = 0; row->words[i]; i++) {
        if (strcmp(text, row->words[i]) != 0) continue;
        if (row->kind == OPTION_FLAG)
            *(bool *)field(row, o) = i > 0;
        else
            *(uint32_t *)field(row, o) = i;
        return 0;
    }
    return refuse_word(row->words, e);
}

static int read_number(const struct option_row *row, const char *text, struct options *o,
                       struct err *e)
{
    uint64_t whole = 0;
    double real = 0.0;
    bool is_real = row->kind == OPTION_FLOAT || row->kind == OPTION_DOUBLE;
    int code = is_real ? read_real(row, text, &real, e) : read_whole(row, text, &whole, e);
    if (code) return code;
    if (row->kind == OPTION_U32)
        *(uint32_t *)field(row, o) = (uint32_t)whole;
    else if (row->kind == OPTION_FLOAT)
        *(float *)field(row, o) = (float)real;
    else if (row->kind == OPTION_DOUBLE)
        *(double *)field(row, o) = real;
    else
        memcpy(field(row, o), &whole, sizeof whole); /* u64, or i64 that is not negative */
    return 0;
}

static int read_value(const struct option_row *row, char *text, struct options *o, struct err *e)
{
    if (row->read) return row->read(row, o, text, e);
    if (row->words) return read_word(row, text, o, e);
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)field(row, o) = true;
        return 0;
    case OPTION_TEXT:
        *(const char **)field(row, o) = text;
        return 0;
    case OPTION_ADDRESS:
        return read_address(text, field(row, o), e);
    default:
        return read_number(row, text, o, e);
    }
}

/* ---- the command line ---- */

static void check_row(const struct option_row *row)
{
    bool number = row->kind >= OPTION_U32 && row->kind <= OPTION_DOUBLE && !row->words;
    CHECK(!number || row->read || row->low < row->high);
    CHECK(row->kind != OPTION_NONE || row->read || !row->name);
    CHECK(row->commands && (row->name || row->help));
}

static void read_initial(const struct option_row *row, struct options *o)
{
    struct err e = ERR_INIT;
    /* A text is kept, and no reader cuts a default of ours. */
    char *text = (char *)(uintptr_t)row->initial;
    CHECK(read_value(row, text, o, &e) == 0);
}

/* What getopt is to know: the options of all actions on the page, so that one of another action
 * gets a sentence of its own. */
static void list_options(const struct option_row *rows, size_t n, const struct command *c,
                         struct option *ret_long, char *ret_letters)
{
    for (size_t i = 0; i < n; i++) {
        const struct option_row *row = &rows[i];
        check_row(row);
        if (!row->name || !(row->commands & family_of(c))) continue;
        *ret_long++ = (struct option){row->name, row->value ? required_argument : no_argument, NULL,
                                      VALUE_FIRST + (int)i};
        if (!row->letter) continue;
        *ret_letters++ = row->letter;
        if (row->value) *ret_letters++ = ':';
    }
    *ret_long = (struct option){0};
    *ret_letters = '\0';
}

/* Of a result of getopt, which may be a letter; NULL: it has complained. */
static const struct option_row *row_of(const struct option_row *rows, size_t n, int result)
{
    if (result >= VALUE_FIRST) return &rows[result - VALUE_FIRST];
    for (size_t i = 0; i < n; i++)
        if (rows[i].letter && rows[i].letter == result) return &rows[i];
    return NULL;
}

static int take(const struct option_row *row, const struct command *c, struct options *o)
{
    struct err e = ERR_INIT;
    if (!(row->commands & c->bit)) {
        const char *action = strrchr(c->name, ' ');
        fprintf(stderr, "pdd %s: %s has no such option; see pdd %s --help\n", page_of(c),
                action ? action + 1 : c->name, page_of(c));
        return -1;
    }
    if (read_value(row, optarg, o, &e) == 0) return 0;
    if (row->read)
        fprintf(stderr, "pdd %s: --%s: %s\n", c->name, row->name, e.text);
    else
        fprintf(stderr, "pdd %s: --%s is \"%s\": %s\n", c->name, row->name, optarg, e.text);
    return -1;
}

static int check_line(const struct option_row *rows, size_t n, const struct command *c,
                      const struct option_line *line)
{
    for (size_t i = 0; i < n; i++) {
        const struct option_row *row = &rows[i];
        if (!row->required || !(row->commands & c->bit) || line->given[i]) continue;
        if (row->letter)
            fprintf(stderr, "pdd %s: -%c %s is missing; see pdd %s --help\n", c->name, row->letter,
                    row->value, page_of(c));
        else
            fprintf(stderr, "pdd %s: --%s %s is missing; see pdd %s --help\n", c->name, row->name,
                    row->value, page_of(c));
        return -1;
    }
    if (c->operands || line->n_operands == 0) return 0;
    fprintf(stderr, "pdd %s: it takes no operands, and \"%s\" is no option; see pdd %s --help\n",
            c->name, line->operands[0], page_of(c));
    return -1;
}

int option_parse(const struct option_row *rows, size_t n, const struct command *c, int argc,
                 char **argv, struct options *o, struct option_line *ret_line, int *ret_status)
{
    static char name[NAME_BYTES]; /* getopt begins its complaints with it */
    struct option long_options[OPTION_ROWS_MAX + 1];
    char letters[2 * OPTION_ROWS_MAX + 1];
    CHECK(n <= OPTION_ROWS_MAX);
    snprintf(name, sizeof name, "pdd %s", c->name);
    argv[0] = name;
    *ret_line = (struct option_line){.operands = NULL};
    *ret_status = EXIT_USAGE;
    list_options(rows, n, c, long_options, letters);
    for (size_t i = 0; i < n; i++)
        if (rows[i].initial && (rows[i].commands & c->bit)) read_initial(&rows[i], o);
    for (int result; (result = getopt_long(argc, argv, letters, long_options, NULL)) != -1;) {
        const struct option_row *row = row_of(rows, n, result);
        if (!row) {
            fprintf(stderr, "see pdd %s --help\n", page_of(c));
            return -1;
        }
        if (strcmp(row->name, "help") == 0) {
            option_help(rows, n, c, stdout);
            *ret_status = EXIT_DONE;
            return -1;
        }
        if (take(row, c, o)) return -1;
        ret_line->given[row - rows] = true;
    }
    ret_line->operands = argv + optind;
    ret_line->n_operands = argc - optind;
    return check_line(rows, n, c, ret_line);
}

int option_refuse_idle(const struct option_row *rows, size_t n, const struct command *c,
                       const struct option_line *line, uint32_t here, const char *why)
{
    const char *idle[OPTION_ROWS_MAX];
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        if (line->given[i] && rows[i].only && !(rows[i].only & here)) idle[found++] = rows[i].name;
    if (found == 0) return 0;
    fprintf(stderr, "pdd %s:", c->name);
    for (size_t i = 0; i < found; i++)
        fprintf(stderr, " --%s%s", idle[i], i + 1 == found ? "" : i + 2 == found ? " and" : ",");
    fprintf(stderr, " %s no effect %s\n", found > 1 ? "have" : "has", why);
    return -1;
}
