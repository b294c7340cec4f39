/* chat_command: see chat_command.h. */
#include "cli/chat/chat_command.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { WORD_MAX = 24, FAR = 2 }; /* changes of a letter between a word and a near one */

static const struct {
    const char *word;
    enum chat_command command;
} words[] = {
    {"help", CHAT_COMMAND_HELP},   {"?", CHAT_COMMAND_HELP},
    {"clear", CHAT_COMMAND_CLEAR}, {"regenerate", CHAT_COMMAND_REGENERATE},
    {"stats", CHAT_COMMAND_STATS}, {"exit", CHAT_COMMAND_EXIT},
    {"quit", CHAT_COMMAND_EXIT},
};
enum { WORDS = sizeof words / sizeof *words };

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_?";

static size_t without_blanks(const char *line, size_t n)
{
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    return n;
}

/* The length of the line's one word, from its second byte on; 0: it is a question. */
static size_t word_of(const char *line, size_t n)
{
    n = without_blanks(line, n);
    if (n < 2 || line[0] != '/') return 0;
    for (size_t i = 1; i < n; i++)
        if (!line[i] || !strchr(letters, line[i])) return 0;
    return n - 1;
}

enum chat_command chat_command_of(const char *line, size_t n)
{
    size_t len = word_of(line, n);
    if (len == 0) return CHAT_COMMAND_NONE;
    for (size_t i = 0; i < WORDS; i++)
        if (strlen(words[i].word) == len && strncasecmp(words[i].word, line + 1, len) == 0)
            return words[i].command;
    return CHAT_COMMAND_UNKNOWN;
}

size_t chat_command_escape(const char *line, size_t n)
{
    return n > 1 && line[0] == '/' && line[1] == '/' && word_of(line + 1, n - 1) > 0 ? 1 : 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many letters must be put in, left out, changed or swapped with the next one. */
static size_t distance(const char *a, size_t n, const char *b)
{
    size_t row[3][WORD_MAX + 1], m = strlen(b);
    for (size_t j = 0; j <= m; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3], *before = row[(i + 2) % 3], *two = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            bool same = (a[i - 1] | 0x20) == (b[j - 1] | 0x20);
            now[j] = least(least(now[j - 1], before[j]) + 1, before[j - 1] + !same);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], two[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

void chat_command_unknown(const char *line, size_t n, char ret_text[CHAT_COMMAND_NEAR_MAX])
{
    size_t len = word_of(line, n), best = FAR + 1;
    const char *near = NULL, *word = line + 1;
    for (size_t i = 0; i < WORDS && len <= WORD_MAX; i++) {
        bool begins = len > 1 && strncasecmp(words[i].word, word, len) == 0;
        size_t far = begins ? 0 : distance(word, len, words[i].word);
        if (far >= best || far >= len || far >= strlen(words[i].word)) continue;
        best = far;
        near = words[i].word;
    }
    int shown = (int)(len < WORD_MAX ? len : WORD_MAX);
    if (near)
        snprintf(ret_text, CHAT_COMMAND_NEAR_MAX,
                 "there is no command /%.*s: did you mean /%s? /help lists them; //%.*s asks it as "
                 "a question",
                 shown, word, near, shown, word);
    else
        snprintf(ret_text, CHAT_COMMAND_NEAR_MAX,
                 "there is no command /%.*s: /help lists them; //%.*s asks it as a question", shown,
                 word, shown, word);
}

const char *chat_command_help(void)
{
    return "/help        this list\n"
           "/clear       begin anew; the system message stays\n"
           "/regenerate  answer the last question again\n"
           "/stats       a report on the last answer\n"
           "/exit        leave, as Ctrl-D does, and Ctrl-C on an empty line\n"
           "//word asks \"/word\" as a question. Ctrl-C stops an answer.\n";
}
