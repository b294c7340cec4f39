/*
 * jinja_lex: a template's text to tokens. White space around blocks is dropped here, as Jinja does
 * with trim_blocks (a line break after a block) and lstrip_blocks (spaces in front of a block that
 * begins its line).
 */
#include <string.h>

#include "base/utf8.h"
#include "model/jinja/jinja_impl.h"

enum { IN_DATA, AT_PRINT, AT_BLOCK, IN_PRINT, IN_BLOCK };

static int fail(struct jlexer *l, const char *what)
{
    return err_set(l->e, ERR_BAD_INPUT, "chat template, line %u: %s", l->line, what);
}

static bool starts(const struct jlexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return at <= l->len && l->len - at >= n && memcmp(l->source + at, text, n) == 0;
}

/* Length of the white space at `at`, with that beyond ASCII. */
static size_t space_at(const struct jlexer *l, size_t at)
{
    size_t n = 0;
    if (at >= l->len) return 0;
    uint32_t c = jtext_code(l->source + at, l->len - at, &n);
    return junicode_is_space(c) ? n : 0;
}

static size_t skip_spaces(const struct jlexer *l, size_t at)
{
    for (size_t n; (n = space_at(l, at)) > 0;)
        at += n;
    return at;
}

static void count_lines(struct jlexer *l, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        l->line += l->source[i] == '\n';
}

static void move_to(struct jlexer *l, size_t to)
{
    if (to > l->at) l->line_starts = l->source[to - 1] == '\n';
    count_lines(l, l->at, to);
    l->at = to;
}

/* Without the white space at its end. */
static size_t strip_end(const struct jlexer *l, size_t from, size_t to)
{
    while (to > from) {
        size_t back = 1;
        while (back < 4 && to - back > from && ((uint8_t)l->source[to - back] & 0xC0) == 0x80)
            back++;
        size_t n = space_at(l, to - back);
        if (n != back) break;
        to -= back;
    }
    return to;
}

/* Where data [from, to) ends when a tag with that sign follows. */
static size_t end_of_data(const struct jlexer *l, size_t from, size_t to, char sign, bool lstrips)
{
    if (sign == '-') return strip_end(l, from, to);
    if (sign == '+' || !lstrips) return to;
    size_t line = to;
    while (line > from && l->source[line - 1] != '\n')
        line--;
    if (line == from && !l->line_starts) return to;
    return skip_spaces(l, line) >= to ? line : to;
}

/* Where text goes on after a tag that ends at `at`. "-" takes the white space, "+" nothing; without
 * a sign a line break goes where `trims`. */
static size_t after_tag(const struct jlexer *l, size_t at, const char *end, bool trims)
{
    char sign = l->source[at];
    if (sign == '-' || sign == '+') at++;
    at += strlen(end);
    if (sign == '-') return skip_spaces(l, at);
    return sign != '+' && trims && starts(l, at, "\n") ? at + 1 : at;
}

/* Whether the tag ends at `at`; print tags take no "+". */
static bool ends_tag(const struct jlexer *l, size_t at, const char *end, bool takes_plus)
{
    if (starts(l, at, end)) return true;
    bool sign = at < l->len && (l->source[at] == '-' || (takes_plus && l->source[at] == '+'));
    return sign && starts(l, at + 1, end);
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (uint8_t)c >= 0x80;
}

/* "{% raw %}" or "{% endraw %}" at `at`: where it ends, else 0. */
static size_t match_raw(const struct jlexer *l, size_t at, const char *word)
{
    if (!starts(l, at, "{%")) return 0;
    bool ends = word[0] == 'e';
    at += 2;
    if (at < l->len && (l->source[at] == '-' || l->source[at] == '+')) at++;
    at = skip_spaces(l, at);
    if (!starts(l, at, word)) return 0;
    at = skip_spaces(l, at + strlen(word));
    if (!ends_tag(l, at, "%}", ends)) return 0;
    return after_tag(l, at, "%}", ends);
}

static char sign_at(const struct jlexer *l, size_t at)
{
    return at < l->len ? l->source[at] : 0;
}

static int skip_comment(struct jlexer *l)
{
    size_t at = l->at + 2;
    while (at < l->len && !ends_tag(l, at, "#}", true))
        at++;
    if (at >= l->len) return fail(l, "a comment does not end");
    move_to(l, after_tag(l, at, "#}", true));
    return 0;
}

static void give_data(struct jlexer *l, size_t from, size_t to, size_t next, struct jtoken *t)
{
    *t = (struct jtoken){.kind = T_DATA, .line = l->line, .text = l->source + from};
    t->len = to - from;
    move_to(l, next);
}

static int lex_raw(struct jlexer *l, struct jtoken *t)
{
    for (size_t at = l->at; at < l->len; at++) {
        size_t end = match_raw(l, at, "endraw");
        if (!end) continue;
        size_t to = end_of_data(l, l->at, at, sign_at(l, at + 2), true);
        give_data(l, l->at, to, end, t);
        l->raw = false;
        return 0;
    }
    return fail(l, "{% raw %} has no {% endraw %}");
}

/* Text up to the next tag; an empty text is not given. */
static int lex_data(struct jlexer *l, struct jtoken *t, bool *ret_given)
{
    size_t at = l->at;
    *ret_given = true;
    while (at < l->len &&
           !(l->source[at] == '{' && at + 1 < l->len &&
             (l->source[at + 1] == '{' || l->source[at + 1] == '%' || l->source[at + 1] == '#')))
        at++;
    if (at >= l->len) {
        *ret_given = at > l->at;
        give_data(l, l->at, at, at, t);
        return 0;
    }
    size_t raw = match_raw(l, at, "raw");
    char kind = l->source[at + 1], sign = sign_at(l, at + 2);
    size_t to = end_of_data(l, l->at, at, sign, kind != '{');
    *ret_given = to > l->at;
    give_data(l, l->at, to, at, t);
    if (raw) {
        move_to(l, raw);
        l->raw = true;
        return 0;
    }
    if (kind == '#') return skip_comment(l);
    l->state = kind == '{' ? AT_PRINT : AT_BLOCK;
    return 0;
}

static int lex_string(struct jlexer *l, struct jtoken *t)
{
    char quote = l->source[l->at];
    size_t at = l->at + 1;
    while (at < l->len && l->source[at] != quote)
        at += l->source[at] == '\\' ? 2 : 1;
    if (at >= l->len) return fail(l, "a string does not end");
    *t = (struct jtoken){.kind = T_STRING, .line = l->line, .text = l->source + l->at + 1};
    t->len = at - l->at - 1;
    move_to(l, at + 1);
    return 0;
}

static size_t skip_digits(const struct jlexer *l, size_t at, int base)
{
    while (at < l->len) {
        char c = l->source[at];
        bool digit = c == '_' || (c >= '0' && c <= '9') ||
                     (base == 16 && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')));
        if (!digit) break;
        at++;
    }
    return at;
}

static bool is_digit(const struct jlexer *l, size_t at)
{
    return at < l->len && l->source[at] >= '0' && l->source[at] <= '9';
}

static int lex_number(struct jlexer *l, struct jtoken *t)
{
    char letter = l->at + 1 < l->len ? (char)(l->source[l->at + 1] | 0x20) : 0;
    bool based = l->source[l->at] == '0' && (letter == 'x' || letter == 'o' || letter == 'b');
    size_t at = skip_digits(l, based ? l->at + 2 : l->at, based && letter == 'x' ? 16 : 10);
    *t = (struct jtoken){.kind = T_INT, .line = l->line, .text = l->source + l->at};
    if (!based && sign_at(l, at) == '.' && is_digit(l, at + 1)) {
        at = skip_digits(l, at + 1, 10);
        t->kind = T_FLOAT;
    }
    if (!based && (sign_at(l, at) | 0x20) == 'e') {
        size_t exponent = at + 1;
        if (sign_at(l, exponent) == '+' || sign_at(l, exponent) == '-') exponent++;
        if (is_digit(l, exponent)) {
            at = skip_digits(l, exponent, 10);
            t->kind = T_FLOAT;
        }
    }
    t->len = at - l->at;
    move_to(l, at);
    return 0;
}

static int lex_operator(struct jlexer *l, struct jtoken *t)
{
    static const char *const doubled[] = {"//", "**", "==", "!=", ">=", "<="};
    static const char single[] = "+-/*%~[](){}><=.:|,;";
    static const char *const pairs = "()[]{}";
    *t = (struct jtoken){.kind = T_OP, .line = l->line};
    char c = l->source[l->at];
    for (size_t i = 0; i < sizeof doubled / sizeof *doubled; i++)
        if (starts(l, l->at, doubled[i])) {
            memcpy(t->op, doubled[i], 2);
            move_to(l, l->at + 2);
            return 0;
        }
    if (!c || !strchr(single, c)) return fail(l, "a character that no expression may have");
    const char *at = strchr(pairs, c);
    if (at && (at - pairs) % 2 == 0) {
        if (l->n_open == JINJA_NESTING_MAX) return fail(l, "too many brackets in one another");
        l->open[l->n_open++] = at[1];
    } else if (at && (l->n_open == 0 || l->open[--l->n_open] != c)) {
        return fail(l, "a bracket closes what was not opened");
    }
    t->op[0] = c;
    move_to(l, l->at + 1);
    return 0;
}

static int lex_inside(struct jlexer *l, struct jtoken *t)
{
    const char *end = l->state == IN_PRINT ? "}}" : "%}";
    move_to(l, skip_spaces(l, l->at));
    if (l->at >= l->len) return fail(l, "a tag does not end");
    if (l->n_open == 0 && ends_tag(l, l->at, end, l->state == IN_BLOCK)) {
        bool print = l->state == IN_PRINT;
        *t = (struct jtoken){.kind = print ? T_PRINT_END : T_BLOCK_END, .line = l->line};
        move_to(l, after_tag(l, l->at, end, !print));
        l->state = IN_DATA;
        return 0;
    }
    char c = l->source[l->at];
    if (c == '\'' || c == '"') return lex_string(l, t);
    if (c >= '0' && c <= '9') return lex_number(l, t);
    if (!is_word(c)) return lex_operator(l, t);
    size_t at = l->at;
    while (at < l->len && is_word(l->source[at]))
        at++;
    *t = (struct jtoken){.kind = T_NAME, .line = l->line, .text = l->source + l->at};
    t->len = at - l->at;
    move_to(l, at);
    return 0;
}

/* "{{" or "{%", with a sign. */
static void lex_begin(struct jlexer *l, struct jtoken *t)
{
    bool print = l->state == AT_PRINT;
    *t = (struct jtoken){.kind = print ? T_PRINT_BEGIN : T_BLOCK_BEGIN, .line = l->line};
    char sign = sign_at(l, l->at + 2);
    move_to(l, l->at + (sign == '-' || sign == '+' ? 3 : 2));
    l->state = print ? IN_PRINT : IN_BLOCK;
}

int jlex_next(struct jlexer *l, struct jtoken *t)
{
    while (l->state == IN_DATA) {
        bool given = false;
        if (!l->raw && l->at >= l->len) {
            *t = (struct jtoken){.kind = T_END, .line = l->line};
            return 0;
        }
        if (l->raw) return lex_raw(l, t);
        int code = lex_data(l, t, &given);
        if (code || given) return code;
    }
    if (l->state == IN_PRINT || l->state == IN_BLOCK) return lex_inside(l, t);
    lex_begin(l, t);
    return 0;
}
