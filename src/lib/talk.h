/*
 * talk: the messages of a conversation, and which of them still go into a request. Pure.
 *
 * A system message may come first; then questions and answers take turns. The view is what is sent:
 * the system message and all but the oldest pairs that talk_shorten has left out. They are
 * forgotten by talk_settle. One owner.
 */
#ifndef PDD_LIB_TALK_H
#define PDD_LIB_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/text/template.h"

struct talk {
    struct chat_message *messages; /* [n] of [max], contents owned */
    struct chat_message *view;     /* [max]; contents of `messages` */
    uint32_t n, max;
    uint32_t left_out; /* messages after the system message that the view lacks */
};

/* Room for `max` messages. */
int talk_init(struct talk *t, uint32_t max, struct err *e);
void talk_release(struct talk *t); /* a zeroed struct is fine */

/* `role` is not copied: "system", "user" or "assistant". In a full conversation the oldest pair
 * makes room, and *ret_dropped (NULL is fine) counts the messages that went. */
int talk_add(struct talk *t, const char *role, const char *text, size_t n, uint32_t *ret_dropped,
             struct err *e);
void talk_forget_last(struct talk *t);

const struct chat_message *talk_view(struct talk *t, uint32_t *ret_n);
/* Whether the view holds more than the system message and the last question. */
bool talk_can_shorten(const struct talk *t);
void talk_shorten(struct talk *t);    /* leave out the oldest pair of question and answer */
uint32_t talk_settle(struct talk *t); /* returns how many messages are forgotten */

#endif
