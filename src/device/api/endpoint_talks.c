/* endpoint_talks: conversations that a client, as the page, keeps here: its own JSON by id, of
 * which the server reads the title only. /v1/conversations. */
#include <jansson.h>
#include <string.h>

#include "device/api/serve_impl.h"
#include "net/event_stream.h"
#include "proto/json.h"

enum { LIST_MAX = 4 << 20 };

static bool good_id(struct http_request *r, struct serve *s)
{
    const char *id = http_request_id(r);
    if (event_stream_id_good(id) && strlen(id) < WIRE_ID_MAX) return true;
    s->metrics.invalid++;
    http_reply_error(r, 400, "bad_input", "id",
                     "a conversation's id: letters, digits, '-' and '_', at most %d",
                     WIRE_ID_MAX - 1);
    return false;
}

static void reply_none(struct http_request *r, struct serve *s)
{
    s->metrics.invalid++;
    http_reply_error(r, 404, "conversation_not_found", NULL, "there is no conversation \"%s\"",
                     http_request_id(r));
}

void serve_talks(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct buf b;
    buf_init(&b, LIST_MAX);
    (void)record_put_conversations(s->record, &b);
    serve_reply(r, &b);
}

void serve_talk(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    struct buf b;
    if (!good_id(r, s)) return;
    buf_init(&b, RECORD_CONVERSATION_BYTES);
    if (record_get_conversation(s->record, http_request_id(r), &b) == 1)
        reply_none(r, s);
    else
        serve_reply(r, &b);
    buf_release(&b);
}

/* The title of a body that is a JSON object. */
static int read_title(const char *body, size_t n, char title[RECORD_TITLE_MAX], struct err *e)
{
    static const struct json_field field = {
        "title", JSON_FIELD_TEXT, false, 0, RECORD_TITLE_MAX, 0, 0, 0};
    json_t *root = NULL;
    title[0] = 0;
    int code = json_object_parse(body, n, "the conversation", &root, e);
    if (!code) code = json_object_read(root, "", &field, 1, false, title, e);
    json_decref(root);
    return code;
}

void serve_talk_put(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    char title[RECORD_TITLE_MAX];
    struct err e = ERR_INIT;
    size_t n;
    if (!good_id(r, s)) return;
    const char *body = http_request_body(r, &n);
    int code = read_title(body, n, title, &e);
    if (!code) code = record_set_conversation(s->record, http_request_id(r), title, body, n, &e);
    if (code)
        serve_refuse(s, r, &e, NULL);
    else
        http_reply(r, 204, NULL, NULL, 0);
}

void serve_talk_drop(struct http_request *r, void *serve)
{
    struct serve *s = serve;
    if (!good_id(r, s)) return;
    ask_forget(s, http_request_id(r));
    serve_forget_pages(s, http_request_id(r));
    int none = record_drop_conversation(s->record, http_request_id(r));
    record_scrub(s->record);
    if (none)
        reply_none(r, s);
    else
        http_reply(r, 204, NULL, NULL, 0);
}
