/*
 * http_url: the base URL of a server as people write it, and what it says of the server. Pure.
 */
#ifndef PDD_NET_HTTP_URL_H
#define PDD_NET_HTTP_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/*
 * The base URL to which paths such as "/v1/models" are appended. Slashes at the end go, and so does
 * a "/v1" there: other clients of OpenAI's API want the base URL with it. A URL without "http://"
 * is completed where it names this machine. ERR_BAD_INPUT for what is not http or https, for a user
 * name, a query or a fragment; ERR_LIMIT for one that does not fit into `size`.
 */
int http_url_base(const char *url, char *ret_base, size_t size, struct err *e);

/* Whether the URL names this machine: localhost, 127.0.0.0/8, ::1. False for what is no URL. */
bool http_url_is_local(const char *url);

/* Whether a key that is sent to this URL can be read on the way: by http, and not to this machine.
 * False for what is no URL. */
bool http_url_exposes(const char *url);

#endif
