/* thought: see thought.h. */
#include "model/text/thought.h"

#include <string.h>

#include "base/blank.h"

enum {
    TAIL_TOKENS = 24, /* of a prompt, in which an opening mark may stand */
    TAIL_MAX = 1 << 16,
    SPACE_MAX = 128, /* bytes of it that may be held */
    HELD_MAX = 16 << 20
};

static const struct thought_marks table[] = {
    {"<think>", "</think>"},
    {"<thinking>", "</thinking>"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"[THINK]", "[/THINK]"},
    {"<seed:think>", "</seed:think>"},
    {"<reasoning>", "</reasoning>"},
};

const struct thought_marks *thought_marks_of(const struct chat_template *t, const struct vocab *v)
{
    const size_t n = sizeof table / sizeof *table;
    for (size_t i = 0; t && i < n; i++)
        if (chat_template_has(t, table[i].close)) return &table[i];
    for (size_t i = 0; v && i < n; i++)
        if (vocab_find(v, table[i].open, strlen(table[i].open)) >= 0 &&
            vocab_find(v, table[i].close, strlen(table[i].close)) >= 0)
            return &table[i];
    return t || v ? NULL : &table[0];
}

bool thought_opened(const struct thought_marks *marks, const struct vocab *v, const int32_t *prompt,
                    uint32_t n)
{
    struct buf tail;
    if (!marks || !v) return false;
    size_t open = strlen(marks->open);
    buf_init(&tail, TAIL_MAX);
    for (uint32_t i = n > TAIL_TOKENS ? n - TAIL_TOKENS : 0; i < n; i++)
        (void)vocab_piece(v, prompt[i], true, &tail); /* no memory: found closed */
    size_t len = tail.len - blank_suffix(tail.data, tail.len);
    bool opened = len >= open && memcmp(tail.data + len - open, marks->open, open) == 0;
    buf_release(&tail);
    return opened;
}

void thought_init(struct thought *t, const struct thought_marks *marks, bool opened)
{
    *t = (struct thought){.marks = marks,
                          .state = !marks   ? THOUGHT_OVER
                                   : opened ? THOUGHT_GOES_ON
                                            : THOUGHT_BEGINS};
    buf_init(&t->held, HELD_MAX);
}

void thought_release(struct thought *t)
{
    buf_release(&t->held);
}

/* Move the first n held bytes to `out`; NULL: drop them. */
static int let_go(struct thought *t, size_t n, struct buf *out)
{
    int code = out && n ? buf_append(out, t->held.data, n) : 0;
    buf_consume(&t->held, n);
    return code;
}

static void skip_space(struct thought *t)
{
    let_go(t, blank_prefix(t->held.data, t->held.len), NULL);
}

/* How many held bytes are surely neither of the mark nor of the space in front of it. After them
 * comes the mark (*ret_found), or the longest end of what is held that may become it. */
static size_t free_of_mark(const struct buf *held, const char *mark, bool *ret_found)
{
    size_t n = strlen(mark), at = 0;
    for (; at < held->len; at++) {
        size_t left = held->len - at;
        if (memcmp(held->data + at, mark, left < n ? left : n) == 0) break;
    }
    *ret_found = held->len - at >= n;
    for (int i = 0; i < SPACE_MAX && at > 0 && blank_is(held->data[at - 1]); i++)
        at--;
    return at;
}

/* Decide whether the answer opens a thought, once there is text enough to tell. */
static int begin(struct thought *t, struct buf *ret_answer)
{
    size_t space = blank_prefix(t->held.data, t->held.len), left = t->held.len - space;
    size_t n = strlen(t->marks->open);
    bool like = memcmp(t->held.data + space, t->marks->open, left < n ? left : n) == 0;
    if (like && left < n && space < SPACE_MAX) return 0;
    like = like && left >= n;
    t->state = like ? THOUGHT_GOES_ON : THOUGHT_OVER;
    return like ? let_go(t, space + n, NULL) : let_go(t, t->held.len, ret_answer);
}

static int go_on(struct thought *t, struct buf *ret_thought)
{
    bool found;
    if (!t->told) skip_space(t);
    size_t n = free_of_mark(&t->held, t->marks->close, &found);
    int code = let_go(t, n, ret_thought);
    t->told = t->told || n > 0;
    if (!found) return code;
    t->state = THOUGHT_ENDED;
    skip_space(t);
    let_go(t, strlen(t->marks->close), NULL);
    return code;
}

static int sort_out(struct thought *t, struct buf *ret_thought, struct buf *ret_answer)
{
    int code = 0;
    if (t->state == THOUGHT_BEGINS && t->held.len) code = begin(t, ret_answer);
    if (!code && t->state == THOUGHT_GOES_ON && t->held.len) code = go_on(t, ret_thought);
    if (t->state == THOUGHT_ENDED) {
        skip_space(t);
        if (t->held.len) t->state = THOUGHT_OVER;
    }
    if (!code && t->state == THOUGHT_OVER) code = let_go(t, t->held.len, ret_answer);
    return code;
}

/* A control token's spelling, if it is a mark; else NULL. */
static const char *mark_of(const struct thought *t, const struct vocab *v, int32_t id)
{
    const char *const marks[] = {t->marks->open, t->marks->close};
    if (!v || id < 0 || !vocab_is_control(v, id)) return NULL;
    for (int i = 0; i < 2; i++)
        if (vocab_find(v, marks[i], strlen(marks[i])) == id) return marks[i];
    return NULL;
}

int thought_push(struct thought *t, const struct vocab *v, int32_t id, const char *text, size_t n,
                 struct buf *ret_thought, struct buf *ret_answer)
{
    if (t->state == THOUGHT_OVER) return buf_append(ret_answer, text, n);
    const char *mark = mark_of(t, v, id);
    int code = buf_append(&t->held, text, n);
    if (!code && mark) code = buf_append(&t->held, mark, strlen(mark));
    return code ? code : sort_out(t, ret_thought, ret_answer);
}

int thought_finish(struct thought *t, struct buf *ret_thought, struct buf *ret_answer)
{
    bool thinks = t->state == THOUGHT_GOES_ON;
    t->state = THOUGHT_OVER;
    if (thinks) /* space at its end is of no use */
        buf_cut(&t->held, t->held.len - blank_suffix(t->held.data, t->held.len));
    return let_go(t, t->held.len, thinks ? ret_thought : ret_answer);
}
