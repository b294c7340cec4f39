/*
 * http_portal: responses that are not the server's: a network (of a hotel, a train, an airport)
 * that wants a log-in first answers in its place. Pure.
 */
#ifndef PDD_NET_HTTP_PORTAL_H
#define PDD_NET_HTTP_PORTAL_H

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_PORTAL_MAX = 320 };

/*
 * What the response to a request for `url` says besides its status: "the network asks for a log-in
 * page: URL" for status 511 (RFC 6585), a redirection to another path of another host, or a web
 * page with status 2xx; "it has moved to URL" for other redirections; else "". `type` and
 * `location` are header values or NULL. A stranger wrote them: only their printable ASCII is shown.
 */
void http_portal_notice(int status, const char *type, const char *location, const char *url,
                        char ret_text[HTTP_PORTAL_MAX]);

#endif
