/*
 * assist: one stream of tokens from the cloud (POST /v1/assist), on the loop thread.
 *
 * Life: assist_open, then events through the callbacks until `done` or `lost` (exactly one of them,
 * last), then assist_close. assist_close may be called at any time, from inside a callback too;
 * nothing is called after it, and the socket is closed at once, which stops the cloud.
 *
 * It knows messages, not answers. The events come in the order of wire_stream (proto/wire.h), or
 * the stream is lost; whether a token that comes again is the same is the turn's business.
 */
#ifndef PDD_DEVICE_ASSIST_H
#define PDD_DEVICE_ASSIST_H

#include "base/err.h"
#include "net/http_client.h"
#include "proto/wire.h"

struct assist;

struct assist_callbacks {
    void (*event)(void *arg, const struct wire_event *ev); /* grant, progress, token */
    void (*done)(void *arg, const struct wire_event *ev);
    /* Refused (status >= 300), cut (0), garbage or an error event; `why` is a sentence. */
    void (*lost)(void *arg, int status, const struct err *why);
    void *arg;
};

int assist_open(struct http_client *client, const char *url, const struct wire_request *request,
                const struct assist_callbacks *callbacks, struct assist **ret_assist,
                struct err *e);
/* Ask for `tokens_max` tokens of this stream in all. Sent when the grant is there; a refusal is
 * not heard of: the stream then ends with its old budget. */
void assist_extend(struct assist *a, uint32_t tokens_max);
void assist_close(struct assist *a); /* NULL is fine */

#endif
