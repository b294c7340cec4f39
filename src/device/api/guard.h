/*
 * guard: whom the server of the device serves. A page of any site that a browser shows can send
 * requests to this machine; this is what keeps it out.
 *
 *   Host    must be an address of this machine or a name that is given, with our port or none: a
 *           name that a stranger's DNS points here (rebinding) is refused.
 *   Origin  if there is one, must be our own (http, the Host of the request, our port) or one that
 *           is named; "null" never is. A browser sends it with every request of a page that could
 *           change something or read the answer.
 *   Sec-Fetch-Site  of a request without Origin: "cross-site" and "same-site" (another port of
 *           this machine) are refused.
 *   Authorization, X-Api-Key, Api-Key   the token, where one is set, compared in constant time.
 *
 * Requests of named origins get CORS headers, and their preflights (OPTIONS) too. Threads: the
 * loop only.
 */
#ifndef PDD_DEVICE_API_GUARD_H
#define PDD_DEVICE_API_GUARD_H

#include "net/http_server.h"

struct serve;

/* Gates of routes; `arg` is the struct serve. guard_api is for all that says or does something,
 * guard_open for what needs no token, guard_page for the page: a link of another site may lead to
 * it. */
bool guard_api(struct http_request *r, void *serve);
bool guard_open(struct http_request *r, void *serve);
bool guard_page(struct http_request *r, void *serve);
bool guard_options(struct http_request *r, void *serve);
/* Whether the request has the secret that allows a question to be sent (serve_approval). */
bool guard_approves(const struct http_request *r, const struct serve *s);

#endif
