/* keep_text: see keep_text.h. Lines are looked at one after the other; nothing is allocated. */
#include "policy/keep_text.h"

#include <stdbool.h>
#include <string.h>

enum {
    MARK_MAX = 4,  /* digits or letters of a list's mark */
    CODE_PART = 3, /* one line of so many is code: too much */
    CODE_LINES = 8 /* fewer lines of code are not many, whatever their part */
};

struct line {
    const char *at;
    size_t len; /* without the line end */
    size_t indent;
};

/* The line at `from`; returns where the next one begins. */
static size_t read_line(const char *text, size_t len, size_t from, struct line *ret)
{
    const char *end = memchr(text + from, '\n', len - from);
    *ret = (struct line){.at = text + from, .len = end ? (size_t)(end - text) - from : len - from};
    while (ret->indent < ret->len && (ret->at[ret->indent] == ' ' || ret->at[ret->indent] == '\t'))
        ret->indent++;
    return from + ret->len + (end != NULL);
}

static bool is_blank(const struct line *l)
{
    return l->indent == l->len || (l->indent + 1 == l->len && l->at[l->indent] == '\r');
}

static bool begins(const struct line *l, const char *word)
{
    size_t n = strlen(word);
    return l->len - l->indent >= n && memcmp(l->at + l->indent, word, n) == 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* "- ", "* ", "+ ", a bullet, "12. ", "12) ", "a. ", "a) ". */
static bool is_list_item(const struct line *l)
{
    const char *at = l->at + l->indent;
    size_t n = l->len - l->indent, i = 0;
    if (n >= 2 && (at[0] == '-' || at[0] == '*' || at[0] == '+') && at[1] == ' ') return true;
    if (begins(l, "\xE2\x80\xA2")) return true;
    while (i < n && i < MARK_MAX && is_digit(at[i]))
        i++;
    if (i == 0 && n > 0 && is_letter(at[0])) i = 1;
    return i > 0 && i + 1 < n && (at[i] == '.' || at[i] == ')') && at[i + 1] == ' ';
}

static bool is_table_row(const struct line *l)
{
    uint32_t bars = 0, tabs = 0;
    for (size_t i = l->indent; i < l->len; i++) {
        bars += l->at[i] == '|';
        tabs += l->at[i] == '\t';
    }
    return tabs >= 1 || bars >= 2;
}

/* "Q:", "Question 2:", "Example:", ... */
static bool is_example(const struct line *l)
{
    static const char *const words[] = {"Q", "Question", "Input", "Example", "Problem"};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        if (!begins(l, words[w])) continue;
        size_t i = l->indent + strlen(words[w]);
        while (i < l->len && (is_digit(l->at[i]) || l->at[i] == ' '))
            i++;
        if (i < l->len && l->at[i] == ':') return true;
    }
    return false;
}

/* Where the item of which `l` is the first line ends, `next` being the next line; 0: no item. */
static size_t item_end(const char *text, size_t len, const struct line *l, size_t next)
{
    struct line more;
    bool fence = begins(l, "```"), example = is_example(l), listed = is_list_item(l);
    if (!fence && !example && !listed) return is_table_row(l) ? next : 0;
    while (next < len) {
        size_t after = read_line(text, len, next, &more);
        if (fence && begins(&more, "```")) return after;
        if (example && (is_blank(&more) || is_example(&more))) return next;
        if (!fence && !example &&
            (is_blank(&more) || more.indent <= l->indent || is_list_item(&more)))
            return next;
        next = after;
    }
    return len;
}

/* Whether a sentence or line ends right before text[at], blanks aside. */
static bool ends_sentence(const char *text, size_t at)
{
    static const char wide[][4] = {"\xE3\x80\x82", "\xEF\xBC\x81", "\xEF\xBC\x9F"};
    bool blank = false;
    for (; at > 0 && (text[at - 1] == ' ' || text[at - 1] == '\r'); at--)
        blank = true;
    if (at == 0 || text[at - 1] == '\n') return true;
    for (size_t i = 0; at >= 3 && i < sizeof wide / sizeof *wide; i++)
        if (memcmp(text + at - 3, wide[i], 3) == 0) return true;
    for (; at > 1 && (text[at - 1] == '"' || text[at - 1] == '\'' || text[at - 1] == ')'); at--) {
    }
    return blank && (text[at - 1] == '.' || text[at - 1] == '!' || text[at - 1] == '?');
}

static void mark_sentences(const char *text, size_t len, const uint32_t *ends, uint32_t n,
                           uint8_t *cuts)
{
    cuts[0] = KEEP_CUT_MUST;
    for (uint32_t i = 1; i < n; i++) {
        size_t at = ends[i - 1];
        /* A token that begins with its blank ends the sentence all the same. */
        if (at < len && text[at] == ' ') at++;
        cuts[i] = ends_sentence(text, at) ? KEEP_CUT_GOOD : KEEP_CUT_POOR;
    }
}

void keep_text_cuts(const char *text, size_t len, const uint32_t *ends, uint32_t n, uint8_t *cuts)
{
    struct line l;
    uint32_t t = 0;
    if (n == 0) return;
    mark_sentences(text, len, ends, n, cuts);
    for (size_t at = 0, next; at < len; at = next) {
        next = read_line(text, len, at, &l);
        size_t end = is_blank(&l) ? 0 : item_end(text, len, &l, next);
        if (end == 0) continue;
        while (t > 0 && ends[t - 1] > at) /* the token that holds the item's first byte, */
            t--;
        while (t < n && ends[t] <= at) /* maybe with the last one of the item before */
            t++;
        if (t < n) cuts[t++] = KEEP_CUT_MUST;
        for (; t < n && ends[t - 1] < end; t++)
            cuts[t] = KEEP_CUT_NEVER;
        if (t < n) cuts[t] = KEEP_CUT_MUST;
        next = end;
    }
}

static bool is_code(const struct line *l)
{
    static const char *const words[] = {
        "def ",   "class ",  "import ", "from ",    "#include", "return ", "return;",  "if (",
        "for (",  "while (", "func ",   "function", "fn ",      "public ", "private ", "static ",
        "const ", "let ",    "var ",    "#define",  "} else",   "@",       "/*",       "//"};
    size_t end = l->len;
    while (end > l->indent && (l->at[end - 1] == ' ' || l->at[end - 1] == '\r'))
        end--;
    char last = end > l->indent ? l->at[end - 1] : 0;
    if (last == ';' || last == '{' || last == '}') return true;
    bool named = false;
    for (size_t w = 0; w < sizeof words / sizeof *words; w++)
        named = named || begins(l, words[w]);
    if (!named) return false;
    /* Prose may begin so, too: code has its signs. */
    for (size_t i = l->indent; i < end; i++)
        if (strchr("(){}=<>;#@", l->at[i])) return true;
    return last == ':';
}

static bool holds(const char *text, size_t len, const char *word)
{
    return memmem(text, len, word, strlen(word)) != NULL;
}

static bool is_schema(const char *text, size_t len)
{
    if (holds(text, len, "<tools>") || holds(text, len, "<tool_call>") ||
        holds(text, len, "\"$schema\""))
        return true;
    return holds(text, len, "\"type\"") && holds(text, len, "\"object\"") &&
           (holds(text, len, "\"properties\"") || holds(text, len, "\"parameters\""));
}

enum keep_refusal keep_text_refuses(const char *text, size_t len)
{
    struct line l;
    uint32_t lines = 0, code = 0;
    bool fenced = false;
    for (size_t at = 0; at < len;) {
        at = read_line(text, len, at, &l);
        if (is_blank(&l)) continue;
        bool fence = begins(&l, "```");
        lines++;
        code += fenced || fence || is_code(&l);
        fenced = fenced != fence;
    }
    if (is_schema(text, len)) return KEEP_SCHEMA;
    return code >= CODE_LINES && code > lines / CODE_PART ? KEEP_CODE : KEEP_OK;
}
