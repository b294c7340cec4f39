/* manual_shells: the completion of zsh and of fish; see manual.h. */
#include <string.h>

#include "cli/manual.h"
#include "cli/options.h"

/* The start of a help, up to the end of a clause, for a list of options. `escape`: characters that
 * get a backslash; a quote is written as `quote`. */
static void put_short(struct buf *b, const char *text, const char *escape, const char *quote)
{
    size_t n = strcspn(text, ".:;(");
    while (text[n] == '.' && text[n + 1] && text[n + 1] != ' ') /* a dot inside a word */
        n += 1 + strcspn(text + n + 1, ".:;(");
    while (n > 0 && text[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\'') {
            buf_puts(b, quote);
            continue;
        }
        if (strchr(escape, text[i])) buf_putc(b, '\\');
        buf_putc(b, text[i]);
    }
}

static void put_names(struct buf *b, const struct option_row *row)
{
    for (uint32_t i = 0; manual_names(row, i); i++)
        buf_printf(b, "%s%s", i ? " " : "", manual_names(row, i));
}

/* " 'bench engine' 'bench refine'", with what stands between two. */
static void put_action_names(struct buf *b, const char *between)
{
    bool any = false;
    for (size_t i = 0; i < command_entries_n; i++) {
        if (command_entries[i].run) continue;
        buf_printf(b, "%s '%s'", any ? between : "", command_entries[i].name);
        any = true;
    }
}

/* ---- zsh ---- */

static void zsh_value(struct buf *b, const struct option_row *row)
{
    buf_printf(b, ":%s:", row->value);
    switch (manual_value_of(row)) {
    case MANUAL_VALUE_NAMES:
        buf_putc(b, '(');
        put_names(b, row);
        buf_putc(b, ')');
        break;
    case MANUAL_VALUE_FILE:
        buf_puts(b, "_files");
        break;
    case MANUAL_VALUE_MODEL:
        buf_puts(b, "_pdd_models");
        break;
    case MANUAL_VALUE_FOLDER:
        buf_puts(b, "_files -/");
        break;
    default:
        buf_putc(b, ' ');
    }
}

static void zsh_option(struct buf *b, const struct option_row *row)
{
    buf_printf(b, " \\\n            '*--%s%s[", row->name, row->value ? "=" : "");
    put_short(b, row->help, "[]\\", "'\\''");
    buf_putc(b, ']');
    if (row->value) zsh_value(b, row);
    buf_putc(b, '\'');
}

static void zsh_command(struct buf *b, const struct command_entry *c)
{
    size_t n;
    const struct option_row *rows = options_rows(&n);
    buf_printf(b, "    '%s')\n        _arguments -S", c->name);
    for (size_t i = 0; i < n; i++)
        if (manual_offers(c, &rows[i])) zsh_option(b, &rows[i]);
    switch (manual_operands(c)) {
    case MANUAL_VALUE_FILE:
        buf_puts(b, " \\\n            '*:FILE:_files'");
        break;
    case MANUAL_VALUE_MODEL:
        buf_puts(b, " \\\n            '*:MODEL:_pdd_models'");
        break;
    case MANUAL_VALUE_PULLED:
        buf_puts(b, " \\\n            '*:MODEL:_pdd_pulled'");
        break;
    default:
        break;
    }
    buf_puts(b, "\n        ;;\n");
}

static void zsh_list(struct buf *b, const struct command_entry *c)
{
    buf_printf(b, "    '%s') _values %s", c ? c->name : "", c ? "action" : "command");
    for (size_t i = 0; !c && i < command_entries_n; i++) {
        if (!command_entries[i].run) continue;
        buf_printf(b, " \\\n        '%s[", command_entries[i].name);
        put_short(b, command_entries[i].summary, "[]\\", "'\\''");
        buf_puts(b, "]'");
    }
    for (uint32_t k = 0; c && manual_action(c, k); k++)
        buf_printf(b, " %s", manual_action(c, k));
    buf_puts(b, " ;;\n");
}

void manual_zsh(struct buf *b)
{
    buf_puts(
        b, "#compdef pdd\n# zsh completion for pdd, written by `pdd manual` from its tables.\n\n"
           "_pdd_pulled()\n{\n"
           "    local -a names=(${(f)\"$(_call_program models $_pdd_program " MANUAL_LIST ")\"})\n"
           "    compadd -a names\n}\n\n"
           "_pdd_models()\n{\n"
           "    _alternative 'models:model:_pdd_pulled' 'files:file:_files'\n}\n\n"
           "_pdd_actions()\n{\n    case $1 in\n");
    zsh_list(b, NULL);
    for (size_t i = 0; i < command_entries_n; i++)
        if (command_entries[i].run && manual_action(&command_entries[i], 0))
            zsh_list(b, &command_entries[i]);
    buf_puts(b, "    *) return 1 ;;\n    esac\n}\n\n_pdd_options()\n{\n    case $1 in\n"
                "    -*) _arguments '--help[print this help]' '--version[print the version]' ;;\n");
    for (size_t i = 0; i < command_entries_n; i++)
        if (manual_runs(&command_entries[i])) zsh_command(b, &command_entries[i]);
    buf_puts(b, "    esac\n}\n\n"
                "_pdd()\n{\n"
                "    local name=${words[2]} _pdd_program=${words[1]}\n"
                "    if ((CURRENT == 2)) && [[ ${words[2]} != -* ]]; then\n"
                "        _pdd_actions ''\n"
                "        return\n"
                "    elif ((CURRENT == 3)) && [[ ${words[3]} != -* ]] && _pdd_actions $name; then\n"
                "        return\n"
                "    fi\n"
                "    case \"$name ${words[3]}\" in");
    put_action_names(b, " |");
    buf_puts(b, ")\n"
                "        name+=\" ${words[3]}\"\n"
                "        shift words\n"
                "        ((CURRENT--))\n"
                "        ;;\n"
                "    esac\n"
                "    if ((CURRENT > 2)); then\n"
                "        shift words\n"
                "        ((CURRENT--))\n"
                "    fi\n"
                "    _pdd_options $name\n"
                "}\n\n_pdd \"$@\"\n");
}

/* ---- fish ---- */

static void fish_option(struct buf *b, const struct command_entry *c, const struct option_row *row)
{
    buf_printf(b, "complete -c pdd -n \"__pdd_at '%s'\" -l %s", c->name, row->name);
    if (row->letter) buf_printf(b, " -s %c", row->letter);
    buf_puts(b, " -d '");
    put_short(b, row->help, "\\", "\\'");
    buf_putc(b, '\'');
    if (row->value) {
        enum manual_value value = manual_value_of(row);
        if (value == MANUAL_VALUE_FILE) {
            buf_puts(b, " -rF");
        } else if (value == MANUAL_VALUE_MODEL) {
            buf_puts(b, " -rFa '(__pdd_models)'");
        } else if (value == MANUAL_VALUE_FOLDER) {
            buf_puts(b, " -xa '(__fish_complete_directories)'");
        } else {
            buf_puts(b, " -xa '");
            put_names(b, row);
            buf_putc(b, '\'');
        }
    }
    buf_putc(b, '\n');
}

static void fish_words(struct buf *b, const struct command_entry *c)
{
    for (uint32_t k = 0; manual_action(c, k); k++)
        buf_printf(b, "complete -c pdd -n \"__pdd_at '%s'\" -a %s\n", c->name, manual_action(c, k));
    enum manual_value value = manual_operands(c);
    if (value == MANUAL_VALUE_NONE) return;
    buf_printf(b, "complete -c pdd -n \"__pdd_at '%s'\"%s%s\n", c->name,
               value == MANUAL_VALUE_PULLED ? "" : " -F",
               value == MANUAL_VALUE_FILE ? "" : " -a '(__pdd_models)'");
}

void manual_fish(struct buf *b)
{
    size_t n;
    const struct option_row *rows = options_rows(&n);
    buf_puts(b, "# fish completion for pdd, written by `pdd manual` from its tables.\n\n"
                "# The command on the line so far, with its action.\n"
                "function __pdd_command\n"
                "    set -l words (commandline -opc)\n"
                "    switch \"$words[2] $words[3]\"\n"
                "        case");
    put_action_names(b, "");
    buf_puts(b, "\n            echo \"$words[2] $words[3]\"\n"
                "        case '*'\n"
                "            echo \"$words[2]\"\n"
                "    end\n"
                "end\n\n"
                "function __pdd_at\n"
                "    test (__pdd_command) = \"$argv[1]\"\n"
                "end\n\n"
                "function __pdd_models\n"
                "    set -l words (commandline -opc)\n"
                "    $words[1] " MANUAL_LIST "\n"
                "end\n\n"
                "complete -c pdd -f\n"
                "complete -c pdd -n \"__pdd_at ''\" -l help -d 'print this help'\n"
                "complete -c pdd -n \"__pdd_at ''\" -l version -d 'print the version'\n");
    for (size_t i = 0; i < command_entries_n; i++) {
        const struct command_entry *c = &command_entries[i];
        if (c->run) {
            buf_printf(b, "complete -c pdd -n \"__pdd_at ''\" -a %s -d '", c->name);
            put_short(b, c->summary, "\\", "\\'");
            buf_puts(b, "'\n");
        }
        fish_words(b, c);
        for (size_t k = 0; k < n; k++)
            if (manual_offers(c, &rows[k])) fish_option(b, c, &rows[k]);
    }
}
