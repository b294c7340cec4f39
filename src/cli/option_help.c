/* option_help: --help from the rows; see option.h. Lines have at most 80 characters. */
#include <string.h>

#include "base/buf.h"
#include "cli/option.h"

enum { LINE_CHARS = 80, HEAD_CHARS_MAX = 22, GAP_CHARS = 2, TEXT_BYTES_MAX = 1 << 16 };

/* "-o, --output FILE" */
static void put_head(const struct option_row *row, struct buf *b)
{
    if (row->letter) buf_printf(b, "-%c, ", row->letter);
    buf_printf(b, "--%s%s%s", row->name, row->value ? " " : "", row->value ? row->value : "");
}

/* ", b or c" after "a". */
static void put_words(const char *const *words, struct buf *b)
{
    for (size_t i = 0; words[i]; i++)
        buf_printf(b, "%s%s", i == 0 ? "" : words[i + 1] ? ", " : " or ", words[i]);
}

void option_text(const struct option_row *row, struct buf *b)
{
    const char *unset = row->otherwise ? row->otherwise : row->initial;
    buf_puts(b, row->help);
    if (row->words) {
        buf_puts(b, ": ");
        put_words(row->words, b);
    }
    if (row->choice) {
        for (uint32_t i = 0; row->choice(i); i++)
            buf_printf(b, "%s%s", i ? ", " : ": ", row->choice(i));
    }
    if (unset) buf_printf(b, " (%s)", unset);
}

/* Words of the text from column `column` on, at which the cursor stands. */
static void print_wrapped(const char *text, int column, FILE *to)
{
    int at = column;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at > column && at + 1 + n > LINE_CHARS) {
            fprintf(to, "\n%*s", column, "");
            at = column;
        } else if (at > column) {
            fputc(' ', to);
            at++;
        }
        fprintf(to, "%.*s", n, text);
        at += n;
        text += n;
        text += *text == ' ';
    }
    fputc('\n', to);
}

static int column_of(const struct option_row *rows, size_t n, uint32_t family)
{
    int widest = 0;
    for (size_t i = 0; i < n; i++) {
        struct buf head;
        if (!rows[i].name || !rows[i].help || !(rows[i].commands & family)) continue;
        buf_init(&head, TEXT_BYTES_MAX);
        put_head(&rows[i], &head);
        int chars = (int)head.len;
        if (chars > widest && chars <= HEAD_CHARS_MAX) widest = chars;
        buf_release(&head);
    }
    return GAP_CHARS + widest + GAP_CHARS;
}

static void print_row(const struct option_row *row, int column, FILE *to)
{
    struct buf head, text;
    buf_init(&head, TEXT_BYTES_MAX);
    buf_init(&text, TEXT_BYTES_MAX);
    put_head(row, &head);
    option_text(row, &text);
    int left = column - GAP_CHARS - (int)head.len;
    fprintf(to, "%*s%s", GAP_CHARS, "", head.data);
    if (left >= GAP_CHARS)
        fprintf(to, "%*s", left, "");
    else
        fprintf(to, "\n%*s", column, "");
    print_wrapped(text.data, column, to);
    buf_release(&head);
    buf_release(&text);
}

void option_help(const struct option_row *rows, size_t n, const struct command *c, FILE *to)
{
    uint32_t family = c->family ? c->family : c->bit;
    int column = column_of(rows, n, family);
    fputs(c->usage, to);
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].help || !(rows[i].commands & family)) continue;
        if (rows[i].name)
            print_row(&rows[i], column, to);
        else
            fprintf(to, "\n%s\n", rows[i].help);
    }
}
