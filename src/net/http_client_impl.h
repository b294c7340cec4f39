/*
 * http_client_impl: shared by http_client.c (the multi handle, sockets, timers, warm spare) and
 * http_call.c (one call: options, data from curl, errors). Only these include it.
 */
#ifndef PDD_NET_HTTP_CLIENT_IMPL_H
#define PDD_NET_HTTP_CLIENT_IMPL_H

#include <curl/curl.h>

#include "base/buf.h"
#include "net/http_client.h"
#include "net/http_portal.h"

enum {
    HTTP_INBOX_MAX = 64 * 1024 * 1024, /* bytes from curl in one iteration of the loop */
    HTTP_IDLE_CONNECTIONS = 4,
    HTTP_WARM_RETRY_US = 1000000 /* after a failed attempt; doubles up to warm_interval_us */
};

/*
 * curl's callbacks only fill a call's buffers; the user's callbacks run after curl has returned
 * (client_deliver), so that they may start and cancel calls, which curl forbids inside its own.
 */
struct http_call {
    struct http_client *client;
    struct http_call *next, *prev;
    struct http_call_spec spec; /* pointers to strings of the caller are not kept */
    CURL *easy;
    struct curl_slist *headers;
    struct loop_timer *timer; /* first byte, idle, deadline */
    char *url, *body;
    char method[16];
    struct buf head, inbox, collected; /* head: header lines as they came */
    bool has_body, head_seen, head_told, collecting, overflow, ended, counted, told;
    bool lingers; /* the caller has let go of it */
    bool starved; /* its socket is not watched: there was no memory */
    uint64_t last_byte_us;
    CURLcode curl_code;
    struct http_result result;
    char curl_error[CURL_ERROR_SIZE], notice[HTTP_PORTAL_MAX];
};

struct http_client {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer *curl_timer, *warm_timer;
    struct http_client_config config; /* strings are ours */
    char *base_url, *bearer, *ca_file, *warm_path;
    bool is_local;           /* the server is this machine */
    bool starved;            /* a call is */
    struct http_call *calls; /* newest first, the warming one too */
    uint32_t n_calls;        /* without the warming one */
    uint32_t n_lingering;
    uint32_t n_active; /* handles inside the multi handle */
    uint32_t n_sockets;
    struct http_call *warming;
    uint64_t warm_retry_us;
    struct http_call *current, *cursor; /* delivering: see client_deliver */
};

/* http_call.c */
int call_new(struct http_client *c, const struct http_call_spec *spec, struct http_call **ret_call,
             struct err *e);
void call_free(struct http_call *call);
void call_free_sent_body(struct http_call *call);     /* a head came: nothing is sent again */
void call_end(struct http_call *call, CURLcode code); /* curl is done with it: fill the result */
void call_fail_timeout(struct http_call *call);       /* its timer: fill the result */
uint64_t call_due_us(const struct http_call *call);   /* its next deadline */

/* http_client.c */
void client_deliver(struct http_client *c);
void call_leave_multi(struct http_call *call);

#endif
