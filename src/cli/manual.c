/* manual: `pdd manual`, and what pages and scripts ask of the tables; see manual.h. */
#include "cli/manual.h"

#include <string.h>

#include "base/check.h"
#include "base/os.h"
#include "base/output.h"
#include "cli/options.h"

enum { PATH_BYTES = 4096 };

const struct command command_manual = {
    .name = "manual",
    .bit = OPTIONS_MANUAL,
    .operands = true,
    .usage = "usage: pdd manual FOLDER [OPTION]...\n"
             "Write the man pages (pdd.1, pdd-chat.1, ...) and the completion of bash (pdd.bash),\n"
             "zsh (_pdd) and fish (pdd.fish) to a folder, which is made if it does not exist.\n\n"};

/* ---- the tables ---- */

enum manual_value manual_value_of(const struct option_row *row)
{
    if (manual_names(row, 0)) return MANUAL_VALUE_NAMES;
    size_t n = strlen(row->value);
    if (n >= 4 && strcmp(row->value + n - 4, "FILE") == 0) return MANUAL_VALUE_FILE;
    if (strcmp(row->value, "MODEL") == 0) return MANUAL_VALUE_MODEL;
    if (strcmp(row->value, "DIR") == 0) return MANUAL_VALUE_FOLDER;
    return MANUAL_VALUE_NONE;
}

const char *manual_names(const struct option_row *row, uint32_t i)
{
    if (row->choice) return row->choice(i);
    for (uint32_t k = 0; row->words && row->words[k]; k++)
        if (k == i) return row->words[k];
    return NULL;
}

bool manual_runs(const struct command_entry *c)
{
    return strcmp(c->name, c->command->name) == 0;
}

bool manual_offers(const struct command_entry *c, const struct option_row *row)
{
    return manual_runs(c) && row->name && row->help && (row->commands & c->command->bit);
}

const char *manual_action(const struct command_entry *c, uint32_t i)
{
    size_t n = strlen(c->name);
    for (size_t k = 0; k < command_entries_n; k++) {
        const char *name = command_entries[k].name;
        if (strncmp(name, c->name, n) == 0 && name[n] == ' ' && i-- == 0) return name + n + 1;
    }
    return NULL;
}

/* The usage says what the operands are, after the name. */
enum manual_value manual_operands(const struct command_entry *c)
{
    static const struct {
        const char *word;
        enum manual_value value;
    } kinds[] = {{"FILE", MANUAL_VALUE_FILE}, {"MODEL", MANUAL_VALUE_MODEL}};
    char start[MANUAL_NAME_MAX + 16];
    if (!c->command->operands) return MANUAL_VALUE_NONE;
    if (c->command->bit == OPTIONS_RM) return MANUAL_VALUE_PULLED;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(start, sizeof start, "pdd %s %s", c->name, kinds[i].word);
        if (strstr(c->command->usage, start)) return kinds[i].value;
    }
    return MANUAL_VALUE_NONE;
}

/* An action that no entry tells of would be missing from pages and completion. */
static void check_entries(void)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < command_entries_n; i++)
        bits |= command_entries[i].command->bit;
    CHECK(bits == OPTIONS_ALL);
}

/* ---- the command ---- */

static int write_file(const char *folder, const char *name, struct buf *text, struct err *e)
{
    char path[PATH_BYTES];
    struct output file;
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    int code = n < 0 || (size_t)n >= sizeof path
                   ? err_set(e, ERR_LIMIT, "%.100s: the name is too long", folder)
                   : 0;
    if (code == 0 && text->error) code = err_set(e, text->error, "%s: no memory for it", name);
    if (code == 0 && (code = output_begin(&file, path, e)) == 0) {
        code = output_append(&file, text->data, text->len, e);
        if (code)
            output_abandon(&file);
        else
            code = output_commit(&file, e);
    }
    buf_release(text);
    return code;
}

static int write_page(const char *folder, const struct command_entry *c, const char *date,
                      struct err *e)
{
    char name[MANUAL_NAME_MAX + 8];
    struct buf page;
    buf_init(&page, MANUAL_BYTES_MAX);
    manual_page(&page, c, date);
    snprintf(name, sizeof name, "pdd%s%s.1", c ? "-" : "", c ? c->name : "");
    for (char *at = name; *at; at++)
        if (*at == ' ') *at = '-';
    return write_file(folder, name, &page, e);
}

static int write_script(const char *folder, const char *name, void (*make)(struct buf *b),
                        struct err *e)
{
    struct buf script;
    buf_init(&script, MANUAL_BYTES_MAX);
    make(&script);
    return write_file(folder, name, &script, e);
}

static int write_all(const char *folder, const char *date, struct err *e)
{
    check_entries();
    int code = os_make_folder(folder, 0777, e);
    if (code == 0) code = write_page(folder, NULL, date, e);
    for (size_t i = 0; i < command_entries_n && code == 0; i++)
        if (command_entries[i].summary) code = write_page(folder, &command_entries[i], date, e);
    if (code == 0) code = write_script(folder, "pdd.bash", manual_bash, e);
    if (code == 0) code = write_script(folder, "_pdd", manual_zsh, e);
    if (code == 0) code = write_script(folder, "pdd.fish", manual_fish, e);
    return code;
}

int cmd_manual(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command_manual, argc, argv, &o, &line, &status)) return status;
    if (line.n_operands != 1) {
        fprintf(stderr, "pdd manual: one FOLDER is needed; see pdd manual --help\n");
        return EXIT_USAGE;
    }
    if (write_all(line.operands[0], o.manual_date, &e) == 0) return EXIT_DONE;
    fprintf(stderr, "pdd manual: %s\n", e.text);
    return EXIT_FAILED;
}
