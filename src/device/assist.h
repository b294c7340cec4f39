/*
 * assist: one stream of tokens from the cloud (POST /v1/assist), on the loop thread.
 *
 * Life: assist_open, then events through the callbacks until `done` or `lost` (exactly one of them,
 * last), then assist_close. Call assist_close at any time, from inside a callback too: no
 * callback follows, and the socket is closed at once, which stops the cloud.
 *
 * Events that are out of order (wire_stream of proto/wire.h) lose the stream; the turn checks
 * whether a repeated token is the same.
 */
#ifndef PDD_DEVICE_ASSIST_H
#define PDD_DEVICE_ASSIST_H

#include "base/err.h"
#include "net/http_client.h"
#include "proto/wire.h"

struct assist;

struct assist_callbacks {
    void (*event)(void *arg, const struct wire_event *ev); /* grant, progress, refined, token */
    void (*done)(void *arg, const struct wire_event *ev);
    /* Refused (status >= 300; retry_after_s: 0 is not said), cut (0), malformed or an error event;
     * `why` is a sentence. */
    void (*lost)(void *arg, int status, uint32_t retry_after_s, const struct err *why);
    void *arg;
};

int assist_open(struct http_client *client, const char *url, const struct wire_request *request,
                const struct assist_callbacks *callbacks, struct assist **ret_assist,
                struct err *e);
/* Request `tokens_max` tokens of this stream in all, once the grant has come. A refusal is not
 * reported: the stream then ends with its old budget. */
void assist_extend(struct assist *a, uint32_t tokens_max);
/* Add what went out and came in so far: bytes of bodies, without heads and what TLS adds. */
void assist_add_bytes(const struct assist *a, uint64_t *sent, uint64_t *received);
void assist_close(struct assist *a); /* NULL is fine */

#endif
