/* manual_page: man pages in the macros of man(7); see manual.h. */
#include <ctype.h>
#include <string.h>

#include "cli/manual.h"
#include "cli/options.h"

enum { REMARK_GAP = 5 /* spaces before a remark in a line of usage */ };

/* ---- roff ---- */

static void put_char(struct buf *b, char c)
{
    static const struct {
        char c;
        const char *roff;
    } special[] = {{'\\', "\\e"},  {'-', "\\-"},   {'\'', "\\(aq"},
                   {'^', "\\(ha"}, {'~', "\\(ti"}, {'`', "\\(ga"}};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        if (special[i].c != c) continue;
        buf_puts(b, special[i].roff);
        return;
    }
    buf_putc(b, c);
}

static void put_roff(struct buf *b, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool starts = b->len == 0 || b->data[b->len - 1] == '\n';
        if (starts && text[i] == '.') buf_puts(b, "\\&");
        put_char(b, text[i]);
    }
}

void manual_put_roff(struct buf *b, const char *text)
{
    put_roff(b, text, strlen(text));
}

/* A sentence a line, as roff likes it. */
static void put_sentences(struct buf *b, const char *text)
{
    for (const char *end; (end = strstr(text, ". ")) != NULL; text = end + 2) {
        put_roff(b, text, (size_t)(end + 1 - text));
        buf_putc(b, '\n');
    }
    manual_put_roff(b, text);
    buf_putc(b, '\n');
}

/* "pdd-cloud-key" */
static void put_page_name(struct buf *b, const struct command_entry *c, bool capital)
{
    char name[MANUAL_NAME_MAX];
    snprintf(name, sizeof name, "pdd%s%s", c ? "-" : "", c ? c->name : "");
    for (char *at = name; *at; at++)
        *at = *at == ' ' ? '-' : capital ? (char)toupper((unsigned char)*at) : *at;
    manual_put_roff(b, name);
}

static void put_head(struct buf *b, const struct command_entry *c, const char *summary,
                     const char *date)
{
    buf_puts(b, ".\\\" Written by `pdd manual` from its tables of commands and options.\n.TH ");
    put_page_name(b, c, true);
    buf_printf(b, " 1 \"%s\" \"P/D-Device %s\" \"User Commands\"\n.SH NAME\n", date, PDD_VERSION);
    put_page_name(b, c, false);
    buf_puts(b, " \\- ");
    manual_put_roff(b, summary);
    buf_putc(b, '\n');
}

/* ---- parts of a page ---- */

/* The lines of a usage up to its description, which is returned. A remark beside a line stays
 * away: SEE ALSO names the page. */
static const char *put_synopsis(struct buf *b, const char *usage)
{
    static const char gap[REMARK_GAP + 1] = "     ";
    const size_t margin = strlen("usage: ");
    buf_puts(b, ".SH SYNOPSIS\n.nf\n");
    while (strncmp(usage, "usage: ", margin) == 0 || strncmp(usage, "       ", margin) == 0) {
        const char *line = usage + margin, *end = strchr(line, '\n'), *remark = strstr(line, gap);
        size_t n = (size_t)((remark && remark < end ? remark : end) - line);
        put_roff(b, line, n);
        buf_putc(b, '\n');
        usage = end + 1;
    }
    buf_puts(b, ".fi\n");
    return usage;
}

static void put_description(struct buf *b, const char *text)
{
    size_t n = strspn(text, "\n");
    if (!text[n]) return;
    buf_puts(b, ".SH DESCRIPTION\n");
    for (text += n; *text; text += n) {
        n = strcspn(text, "\n");
        put_roff(b, text, n);
        n += text[n] == '\n';
        if (n > 1) buf_putc(b, '\n');
    }
}

static void put_option(struct buf *b, const struct option_row *row)
{
    struct buf text;
    buf_init(&text, MANUAL_BYTES_MAX);
    buf_puts(b, ".TP\n\\fB");
    if (row->letter) buf_printf(b, "\\-%c\\fR, \\fB", row->letter);
    buf_puts(b, "\\-\\-");
    manual_put_roff(b, row->name);
    buf_puts(b, "\\fR");
    if (row->value) {
        buf_puts(b, " \\fI");
        manual_put_roff(b, row->value);
        buf_puts(b, "\\fR");
    }
    buf_putc(b, '\n');
    option_text(row, &text);
    buf_fail(b, text.error);
    put_sentences(b, text.data);
    buf_release(&text);
}

static void put_options(struct buf *b, const struct command *c)
{
    uint32_t family = c->family ? c->family : c->bit;
    size_t n;
    const struct option_row *rows = options_rows(&n);
    buf_puts(b, ".SH OPTIONS\n");
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].help || !(rows[i].commands & family)) continue;
        if (rows[i].name) {
            put_option(b, &rows[i]);
            continue;
        }
        size_t len = strlen(rows[i].help);
        buf_puts(b, ".SS \"");
        put_roff(b, rows[i].help, len - (rows[i].help[len - 1] == ':'));
        buf_puts(b, "\"\n");
    }
}

static void put_commands(struct buf *b)
{
    buf_puts(b, ".SH COMMANDS\n");
    for (size_t i = 0; i < command_entries_n; i++) {
        const struct command_entry *c = &command_entries[i];
        if (!c->summary) continue;
        buf_puts(b, ".TP\n\\fB");
        manual_put_roff(b, c->name);
        buf_puts(b, "\\fR\n");
        manual_put_roff(b, c->summary);
        buf_puts(b, ":\n.BR ");
        put_page_name(b, c, false);
        buf_puts(b, " (1)\n");
    }
}

static void put_exit(struct buf *b)
{
    buf_puts(b, ".SH EXIT STATUS\n.TP\n0\nThe command did what it was asked.\n"
                ".TP\n1\nIt failed; standard error names the cause.\n"
                ".TP\n2\nThe command line is wrong; standard error names the option.\n");
}

/* Of a command its actions, of an action its command, and what is used most. */
static bool related(const struct command_entry *c, const struct command_entry *other)
{
    const uint32_t most = OPTIONS_CHAT | OPTIONS_CLOUD | OPTIONS_DEVICE | OPTIONS_INSPECT;
    if (other == c || !other->summary) return false;
    if (other->command->bit & most) return true;
    if (!c) return false;
    size_t n = strcspn(c->name, " ");
    return n == strcspn(other->name, " ") && strncmp(c->name, other->name, n) == 0;
}

static void put_see_also(struct buf *b, const struct command_entry *c)
{
    const char *between = "";
    buf_puts(b, ".SH SEE ALSO\n");
    if (c) {
        buf_puts(b, ".BR pdd (1)");
        between = ",\n";
    }
    for (size_t i = 0; i < command_entries_n; i++) {
        if (!related(c, &command_entries[i])) continue;
        buf_printf(b, "%s.BR ", between);
        put_page_name(b, &command_entries[i], false);
        buf_puts(b, " (1)");
        between = ",\n";
    }
    buf_putc(b, '\n');
}

/* ---- pages ---- */

static void put_program(struct buf *b, const char *date)
{
    put_head(b, NULL, "one LLM answer, started in the cloud and finished on the device", date);
    buf_puts(b,
             ".SH SYNOPSIS\n.nf\npdd COMMAND [OPTION]...\npdd \\-\\-help\npdd \\-\\-version\n.fi\n"
             ".SH DESCRIPTION\n"
             "The cloud prefills a long prompt and sends the first token at once, then a bounded\n"
             "number of further ones.\n"
             "The device shows them at an even pace, prefills the prompt itself meanwhile, and\n"
             "decodes on from exactly the token at which it has caught up.\n"
             "With the same model on both ends the answer is bit for bit the one that a single\n"
             "machine would have given.\n");
    put_commands(b);
    put_exit(b);
    manual_put_notes(b, NULL);
    put_see_also(b, NULL);
}

void manual_page(struct buf *b, const struct command_entry *c, const char *date)
{
    if (!c) {
        put_program(b, date);
        return;
    }
    put_head(b, c, c->summary, date);
    put_description(b, put_synopsis(b, c->command->usage));
    put_options(b, c->command);
    put_exit(b);
    manual_put_notes(b, c);
    put_see_also(b, c);
}
