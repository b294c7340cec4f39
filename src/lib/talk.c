/* talk: see talk.h. */
#include "lib/talk.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"

int talk_init(struct talk *t, uint32_t max, struct err *e)
{
    *t = (struct talk){.max = max};
    t->messages = mem_calloc(max, sizeof *t->messages);
    t->view = mem_calloc(max, sizeof *t->view);
    if (t->messages && t->view) return 0;
    talk_release(t);
    return err_set(e, ERR_NO_MEMORY, "no memory for a conversation");
}

static void free_content(struct chat_message m)
{
    mem_free((char *)(uintptr_t)m.content);
}

void talk_release(struct talk *t)
{
    while (t->n > 0)
        talk_forget_last(t);
    mem_free(t->messages);
    mem_free(t->view);
    *t = (struct talk){0};
}

/* The messages before the first question. */
static uint32_t head_of(const struct talk *t)
{
    return t->n > 0 && strcmp(t->messages[0].role, "system") == 0 ? 1 : 0;
}

/* Forget `count` messages after the system message. */
static void drop_oldest(struct talk *t, uint32_t count)
{
    uint32_t head = head_of(t);
    CHECK(head + count <= t->n);
    for (uint32_t i = 0; i < count; i++)
        free_content(t->messages[head + i]);
    memmove(t->messages + head, t->messages + head + count,
            (t->n - head - count) * sizeof *t->messages);
    t->n -= count;
}

int talk_add(struct talk *t, const char *role, const char *text, size_t n, uint32_t *ret_dropped,
             struct err *e)
{
    char *copy = mem_alloc(n + 1);
    if (!copy) return err_set(e, ERR_NO_MEMORY, "no memory for the conversation");
    if (n) memcpy(copy, text, n);
    copy[n] = '\0';
    uint32_t drop = t->n == t->max ? 2 : 0;
    if (drop) drop_oldest(t, drop);
    if (ret_dropped) *ret_dropped += drop;
    t->messages[t->n++] = (struct chat_message){role, copy, n};
    return 0;
}

void talk_forget_last(struct talk *t)
{
    free_content(t->messages[--t->n]);
}

const struct chat_message *talk_view(struct talk *t, uint32_t *ret_n)
{
    uint32_t head = head_of(t), rest = t->n - head - t->left_out;
    memcpy(t->view, t->messages, head * sizeof *t->view);
    memcpy(t->view + head, t->messages + head + t->left_out, rest * sizeof *t->view);
    *ret_n = head + rest;
    return t->view;
}

bool talk_can_shorten(const struct talk *t)
{
    return t->n - head_of(t) - t->left_out > 2;
}

void talk_shorten(struct talk *t)
{
    CHECK(talk_can_shorten(t));
    t->left_out += 2;
}

uint32_t talk_settle(struct talk *t)
{
    uint32_t n = t->left_out;
    drop_oldest(t, n);
    t->left_out = 0;
    return n;
}
