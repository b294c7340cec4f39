/*
 * chat_talk: the messages of a conversation, and which of them still go into a request. Pure.
 *
 * A system message may come first; then questions and answers take turns. The view is what is sent:
 * the system message and all but the oldest pairs that chat_talk_shorten has left out. They are
 * forgotten by chat_talk_settle, or come back by chat_talk_restore. One owner.
 */
#ifndef PDD_CLI_CHAT_CHAT_TALK_H
#define PDD_CLI_CHAT_CHAT_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/text/template.h"

struct chat_talk {
    struct chat_message *messages; /* [n] of [max], contents owned */
    struct chat_message *view;     /* [max]; contents of `messages` */
    uint32_t n, max;
    uint32_t left_out; /* messages after the system message that the view lacks */
};

/* Room for `max` messages. */
int chat_talk_init(struct chat_talk *t, uint32_t max, struct err *e);
void chat_talk_release(struct chat_talk *t); /* a zeroed struct is fine */

/* `role` is not copied: "system", "user" or "assistant". In a full conversation the oldest pair
 * makes room, and *ret_dropped (NULL is fine) counts the messages that went. */
int chat_talk_add(struct chat_talk *t, const char *role, const char *text, size_t n,
                  uint32_t *ret_dropped, struct err *e);
void chat_talk_forget_last(struct chat_talk *t);
void chat_talk_clear(struct chat_talk *t); /* all but the system message */

const struct chat_message *chat_talk_view(struct chat_talk *t, uint32_t *ret_n);
/* Whether the view holds more than the system message and the last question. */
bool chat_talk_can_shorten(const struct chat_talk *t);
void chat_talk_shorten(struct chat_talk *t); /* leave out the oldest pair of question and answer */
uint32_t chat_talk_settle(struct chat_talk *t); /* returns how many messages are forgotten */
void chat_talk_restore(struct chat_talk *t);

/* Take the last answer out of the conversation, which then ends with its question; false when it
 * does not end with an answer. The caller frees or gives back *ret_answer. */
bool chat_talk_take_answer(struct chat_talk *t, struct chat_message *ret_answer);
void chat_talk_give_answer(struct chat_talk *t, struct chat_message answer);

#endif
