/* endpoint_answers: answers that outlive the connection that asked for them: /v1/answers. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "device/api/guard.h"
#include "device/api/serve_impl.h"
#include "proto/json.h"

enum { LIST_MAX = 4 << 20, ANSWER_MAX = 128 << 20 };

static struct ask *find(struct http_request *r, struct serve *s)
{
    struct ask *a = ask_find(s, http_request_id(r));
    if (a) return a;
    s->metrics.invalid++;
    http_reply_error(r, 404, "answer_not_found", NULL, "there is no answer \"%s\"",
                     http_request_id(r));
    return NULL;
}

void serve_answers(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct buf b;
    buf_init(&b, LIST_MAX);
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    for (const struct ask *a = s->asks; a; a = a->next) {
        if (a != s->asks) buf_putc(&b, ',');
        report_put_answer(&b, a, false, 0);
    }
    buf_puts(&b, "]}");
    serve_reply(r, &b);
}

const char *serve_query(const char *query, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = query; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL)
        if (strncmp(at, name, n) == 0 && at[n] == '=') return at + n + 1;
    return NULL;
}

static bool read_from(struct http_request *r, uint32_t *ret_from)
{
    const char *text = serve_query(http_request_query(r), "from");
    char *end;
    *ret_from = 0;
    if (!text) return true;
    unsigned long v = strtoul(text, &end, 10);
    if (end == text || *text == '-' || (*end && *end != '&') || v > WIRE_TOKENS_MAX) return false;
    *ret_from = (uint32_t)v;
    return true;
}

void serve_answer(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct ask *a = find(r, s);
    uint32_t from;
    if (!a) return;
    if (!read_from(r, &from) || from > a->n_clear) {
        s->metrics.invalid++;
        http_reply_error(r, 400, "bad_input", "from",
                         "from must be a token index; the answer has %u tokens", a->n_clear);
        return;
    }
    const char *accept = http_request_header(r, "Accept");
    const char *stream = serve_query(http_request_query(r), "stream");
    if ((stream && stream[0] == '1') || (accept && strcasestr(accept, "text/event-stream"))) {
        (void)reader_add(a, r, true, true, from);
        return;
    }
    struct buf b;
    buf_init(&b, ANSWER_MAX);
    report_put_answer(&b, a, true, from);
    serve_reply(r, &b);
}

static void reply_state(struct http_request *r, const struct ask *a)
{
    struct buf b;
    buf_init(&b, LIST_MAX);
    report_put_answer(&b, a, false, 0);
    serve_reply(r, &b);
}

void serve_answer_stop(struct http_request *r, void *serve)
{
    struct ask *a = find(r, serve);
    if (!a) return;
    for (uint32_t k = 1; a->choice == 0 && k < a->n_choices; k++) { /* all of its request */
        struct ask *other = ask_find_choice(a->serve, a->id, k);
        if (other) ask_cancel(other);
    }
    ask_cancel(a);
    reply_state(r, a);
}

void serve_answer_send(struct http_request *r, void *serve)
{
    static const struct json_field field = {"send", JSON_FIELD_BOOL, true, 0, 0, 0, 0, 0};
    struct serve *s = serve;
    struct ask *a = find(r, s);
    struct err e = ERR_INIT;
    json_t *root = NULL;
    size_t n;
    bool send = false;
    if (!a) return;
    const char *body = http_request_body(r, &n);
    int code = json_object_parse(body, n, "the request", &root, &e);
    if (!code) code = json_object_read(root, "", &field, 1, true, &send, &e);
    json_decref(root);
    if (!code && a->state != ASK_HELD)
        code = err_set(&e, ERR_BAD_INPUT, "the answer does not wait to be sent: it is %s",
                       ask_state_name(a));
    if (code) {
        serve_refuse(s, r, &e, "send");
        return;
    }
    if (send && !guard_approves(r, s)) {
        s->metrics.forbidden++;
        http_reply_error(r, 403, "approval_needed", NULL,
                         "a yes needs the code of this run: open the link that pdd device printed "
                         "when it started, or send its code in X-PDD-Approval");
        return;
    }
    ask_allow(a, send);
    reply_state(r, a);
}

void serve_egress(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    const char *value = serve_query(http_request_query(r), "answer");
    char id[WIRE_ID_MAX] = "";
    struct buf b;
    size_t n = value ? strcspn(value, "&") : 0;
    if (n >= sizeof id) n = sizeof id - 1; /* no answer has a longer one */
    if (value) memcpy(id, value, n);
    buf_init(&b, LIST_MAX);
    if (!record_put_egress(s->record, value ? id : NULL, &b)) {
        serve_reply(r, &b);
        return;
    }
    buf_release(&b);
    http_reply_error(r, 503, "no_record", NULL,
                     "what is sent is not on record: the device has no state folder, or its log "
                     "says why it cannot write there");
}
