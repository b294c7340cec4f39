/*
 * http_curl: what every request of this program asks of libcurl, whichever of its interfaces sends
 * the request: http and https only, HTTP/1.1, no redirect followed, a proxy of the environment but
 * never to this machine, certificates of chosen authorities. Any thread.
 */
#ifndef PDD_NET_HTTP_CURL_H
#define PDD_NET_HTTP_CURL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

/* libcurl copies the texts, but not `headers` and `error`. */
struct http_curl {
    const char *url;
    struct curl_slist *headers;
    const char *ca_file; /* NULL: libcurl's own */
    char *error;         /* [CURL_ERROR_SIZE]: what libcurl says of a failure */
    uint64_t connect_ms;
    bool is_local; /* the server is this machine */
};

/* False: without memory, or with a libcurl that was built without an option. */
bool http_curl_set(CURL *h, const struct http_curl *o);

#endif
