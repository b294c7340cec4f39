/*
 * manual_bash: the completion of bash; see manual.h. Three functions hold the tables; the code
 * below them is the same for every command and needs nothing but bash 4.
 */
#include <string.h>

#include "cli/manual.h"
#include "cli/options.h"

/* What a shell would take for more than a letter does not occur in names of ours. */
static void put_word(struct buf *b, const char *dashes, const char *word)
{
    buf_printf(b, "%s%s%s", b->data[b->len - 1] == '"' ? "" : " ", dashes, word);
}

static void put_actions(struct buf *b)
{
    buf_puts(b, "# COMMAND: its actions.\n_pdd_actions()\n{\n    case $1 in\n    '') echo \"");
    for (size_t i = 0; i < command_entries_n; i++)
        if (command_entries[i].run) put_word(b, "", command_entries[i].name);
    buf_puts(b, "\" ;;\n");
    for (size_t i = 0; i < command_entries_n; i++) {
        const struct command_entry *c = &command_entries[i];
        if (!c->run || !manual_action(c, 0)) continue;
        buf_printf(b, "    '%s') echo \"", c->name);
        for (uint32_t k = 0; manual_action(c, k); k++)
            put_word(b, "", manual_action(c, k));
        buf_puts(b, "\" ;;\n");
    }
    buf_puts(b, "    esac\n}\n\n");
}

static void put_options(struct buf *b)
{
    size_t n;
    const struct option_row *rows = options_rows(&n);
    buf_puts(b, "# COMMAND: its options.\n_pdd_options()\n{\n    case $1 in\n"
                "    '') echo \"--help --version\" ;;\n");
    for (size_t i = 0; i < command_entries_n; i++) {
        const struct command_entry *c = &command_entries[i];
        buf_printf(b, "    '%s') echo \"", c->name);
        for (size_t k = 0; k < n; k++)
            if (manual_offers(c, &rows[k])) put_word(b, "--", rows[k].name);
        buf_puts(b, manual_runs(c) ? "\" ;;\n" : "--help\" ;;\n");
    }
    buf_puts(b, "    esac\n}\n\n");
}

/* What the code below calls a kind of value. */
static const char *kind_of(enum manual_value value)
{
    switch (value) {
    case MANUAL_VALUE_FILE:
        return "@file";
    case MANUAL_VALUE_FOLDER:
        return "@folder";
    case MANUAL_VALUE_MODEL:
        return "@model";
    case MANUAL_VALUE_PULLED:
        return "@pulled";
    default:
        return "@none";
    }
}

static void put_value(struct buf *b, const struct command_entry *c, const struct option_row *row)
{
    buf_printf(b, "    '%s --%s'", c->name, row->name);
    if (row->letter) buf_printf(b, " | '%s -%c'", c->name, row->letter);
    buf_puts(b, ") echo \"");
    for (uint32_t i = 0; manual_names(row, i); i++)
        put_word(b, "", manual_names(row, i));
    if (!manual_names(row, 0)) buf_puts(b, kind_of(manual_value_of(row)));
    buf_puts(b, "\" ;;\n");
}

static void put_values(struct buf *b)
{
    size_t n;
    const struct option_row *rows = options_rows(&n);
    buf_puts(b, "# COMMAND OPTION: the values it may have, or a kind; nothing: it takes none.\n"
                "_pdd_values()\n{\n    case \"$1 $2\" in\n");
    for (size_t i = 0; i < command_entries_n; i++) {
        const struct command_entry *c = &command_entries[i];
        for (size_t k = 0; k < n; k++)
            if (rows[k].value && manual_offers(c, &rows[k])) put_value(b, c, &rows[k]);
    }
    buf_puts(b, "    esac\n}\n\n");
}

static void put_operands(struct buf *b)
{
    buf_puts(b, "# COMMAND: the kind of its operands.\n_pdd_operands()\n{\n    case $1 in\n");
    for (size_t i = 0; i < command_entries_n; i++) {
        enum manual_value value = manual_operands(&command_entries[i]);
        if (value == MANUAL_VALUE_NONE) continue;
        buf_printf(b, "    '%s') echo %s ;;\n", command_entries[i].name, kind_of(value));
    }
    buf_puts(b, "    esac\n}\n\n");
}

/* Bash cuts --option=value into three words. */
static const char machine[] =
    "# KIND WORD PROGRAM: files, and names of models.\n"
    "_pdd_take()\n"
    "{\n"
    "    local name\n"
    "    if [[ $1 == @model || $1 == @pulled ]]; then\n"
    "        while IFS= read -r name; do\n"
    "            [[ $name == \"$2\"* ]] && COMPREPLY+=(\"$name\")\n"
    "        done < <(\"$3\" " MANUAL_LIST ")\n"
    "    fi\n"
    "    if ((${#COMPREPLY[@]})); then\n"
    "        compopt -o filenames\n"
    "        [[ $1 == @pulled ]] || mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "
    "\"$2\")\n"
    "    elif [[ $1 == @file || $1 == @model ]]; then\n"
    "        compopt -o default\n"
    "    elif [[ $1 == @folder ]]; then\n"
    "        compopt -o dirnames\n"
    "    fi\n"
    "}\n\n"
    "_pdd()\n"
    "{\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} command='' option values\n"
    "    COMPREPLY=()\n"
    "    if ((COMP_CWORD > 1)); then\n"
    "        command=${COMP_WORDS[1]}\n"
    "        if ((COMP_CWORD > 2)) && [[ \" $(_pdd_actions \"$command\") \" == *\" "
    "${COMP_WORDS[2]} \"* ]]; then\n"
    "            command+=\" ${COMP_WORDS[2]}\"\n"
    "        fi\n"
    "    fi\n"
    "    option=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    if [[ $current == = ]]; then\n"
    "        current=''\n"
    "    elif [[ $option == = ]]; then\n"
    "        option=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    fi\n"
    "    [[ $option == -* ]] && values=$(_pdd_values \"$command\" \"$option\")\n"
    "    case $values in\n"
    "    @*) _pdd_take \"$values\" \"$current\" \"$1\" ;;\n"
    "    ?*) mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$current\") ;;\n"
    "    *)\n"
    "        values=$(_pdd_options \"$command\")\n"
    "        [[ $current == -* ]] || values=\n"
    "        ((COMP_CWORD > 2)) || values+=\" $(_pdd_actions \"$command\")\"\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$current\")\n"
    "        if ((${#COMPREPLY[@]} == 0)); then\n"
    "            _pdd_take \"$(_pdd_operands \"$command\")\" \"$current\" \"$1\"\n"
    "        fi\n"
    "        ;;\n"
    "    esac\n"
    "}\n"
    "complete -F _pdd pdd\n";

void manual_bash(struct buf *b)
{
    buf_puts(b, "# bash completion for pdd, written by `pdd manual` from its tables.\n"
                "# shellcheck shell=bash\n\n");
    put_actions(b);
    put_options(b);
    put_values(b);
    put_operands(b);
    buf_puts(b, machine);
}
