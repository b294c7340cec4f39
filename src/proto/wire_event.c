/* wire_event: the events of an assist stream; see wire.h. Written by hand: one is sent per token.
 */
#include <float.h>
#include <jansson.h>
#include <string.h>

#include "base/base64.h"
#include "base/utf8.h"
#include "proto/json.h"
#include "proto/wire.h"

enum {
    KEPT_MAX = WIRE_PROMPT_MAX / 8, /* bytes of the bitmap of kept tokens */
    CHUNK_MAX = 1 << 16,
    COUNT_MAX = 1 << 30 /* tokens, indices, milliseconds: anything that is counted */
};

static const char *const match_names[] = {"exact", "weights", "tokens", "text"};
static const char *const reason_names[] = {"budget", "stop",     "length",
                                           "cancel", "deadline", "drain"};
static const char *const kind_names[] = {"grant", "progress", "refined", "token", "done", "error"};

const char *wire_match_name(enum wire_match m)
{
    return match_names[m];
}

const char *wire_reason_name(enum wire_reason r)
{
    return reason_names[r];
}

static int find_name(const char *name, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

void wire_event_init(struct wire_event *ev)
{
    *ev = (struct wire_event){.kind = WIRE_UNKNOWN};
    buf_init(&ev->kept, KEPT_MAX);
    buf_init(&ev->text, WIRE_EVENT_MAX);
}

void wire_event_release(struct wire_event *ev)
{
    buf_release(&ev->kept);
    buf_release(&ev->text);
}

static void put_number(struct buf *out, const char *name, uint64_t value)
{
    buf_puts(out, name);
    json_put_u64(out, value);
}

static void put_text(struct buf *out, const char *name, const char *text, size_t n)
{
    buf_puts(out, name);
    json_put_string(out, text, n);
}

static void put_grant(struct buf *out, const struct wire_event *ev)
{
    put_text(out, "{\"id\":", ev->id, strlen(ev->id));
    buf_printf(out, ",\"match\":\"%s\"", match_names[ev->match]);
    put_number(out, ",\"tokens_max\":", ev->tokens_max);
    put_number(out, ",\"prompt_tokens\":", ev->prompt_tokens);
    put_number(out, ",\"cached_tokens\":", ev->cached_tokens);
    put_number(out, ",\"first_token_ms\":", ev->first_token_ms);
    if (ev->refine) buf_puts(out, ",\"refine\":true");
}

static void put_progress(struct buf *out, const struct wire_event *ev)
{
    put_number(out, "{\"done\":", ev->done);
    put_number(out, ",\"total\":", ev->total);
}

static void put_refined(struct buf *out, const struct wire_event *ev)
{
    put_number(out, "{\"version\":", ev->version);
    buf_puts(out, ",\"ratio\":");
    json_put_float(out, ev->ratio);
    buf_puts(out, ",\"coverage\":");
    json_put_float(out, ev->coverage);
    put_number(out, ",\"chunk\":", ev->chunk);
    buf_puts(out, ",\"kept\":\"");
    base64_encode(ev->kept.data, ev->kept.len, out);
    buf_puts(out, ev->final ? "\",\"final\":true" : "\",\"final\":false");
    if (ev->refused[0]) put_text(out, ",\"refused\":", ev->refused, strlen(ev->refused));
}

static void put_token(struct buf *out, const struct wire_event *ev)
{
    put_number(out, "{\"i\":", ev->index);
    if (ev->token >= 0) put_number(out, ",\"id\":", (uint64_t)ev->token);
    put_text(out, ",\"text\":", ev->text.data, ev->text.len);
}

static void put_done(struct buf *out, const struct wire_event *ev)
{
    buf_printf(out, "{\"reason\":\"%s\"", reason_names[ev->reason]);
    put_number(out, ",\"usage\":{\"prompt_tokens\":", ev->prompt_tokens);
    put_number(out, ",\"cached_tokens\":", ev->cached_tokens);
    put_number(out, ",\"completion_tokens\":", ev->completion_tokens);
    buf_putc(out, '}');
}

static void put_error(struct buf *out, const struct wire_event *ev)
{
    put_text(out, "{\"code\":", ev->code, strlen(ev->code));
    /* A sentence that was cut at its maximum may end inside a character. */
    size_t n = utf8_valid_prefix(ev->message, strlen(ev->message));
    put_text(out, ",\"message\":", ev->message, n);
}

static void (*const put_kind[])(struct buf *, const struct wire_event *) = {
    put_grant, put_progress, put_refined, put_token, put_done, put_error};

int wire_event_encode(const struct wire_event *ev, struct buf *out, struct err *e)
{
    if (ev->kind >= WIRE_UNKNOWN) return err_set(e, ERR_BAD_INPUT, "an event without a kind");
    size_t before = out->len;
    buf_puts(out, "event: ");
    buf_puts(out, kind_names[ev->kind]);
    buf_puts(out, "\ndata: ");
    put_kind[ev->kind](out, ev);
    int code = buf_append(out, "}\n\n", 3);
    if (!code) return 0;
    buf_cut(out, before);
    return err_set(e, code, "the event '%s' cannot be written: %s", kind_names[ev->kind],
                   code == ERR_BAD_INPUT ? "its text is not UTF-8, or a number is out of range"
                                         : "no room for it");
}

/* Names and strings of an event, on their way from JSON. */
struct event_parts {
    struct wire_event event;
    char name[16]; /* match or reason */
    json_t *text, *kept, *usage, *message;
};

#define EVENT(member) offsetof(struct event_parts, event.member)
#define PART(member) offsetof(struct event_parts, member)
#define COUNT(name, member)                                                                        \
    {                                                                                              \
        name, JSON_FIELD_U32, true, 0, COUNT_MAX, 0, 0, EVENT(member)                              \
    }

static const struct json_field grant_fields[] = {
    {"id", JSON_FIELD_TEXT, true, 1, WIRE_ID_MAX, 0, 0, EVENT(id)},
    {"match", JSON_FIELD_TEXT, true, 1, 16, 0, 0, PART(name)},
    COUNT("tokens_max", tokens_max),
    COUNT("prompt_tokens", prompt_tokens),
    COUNT("cached_tokens", cached_tokens),
    COUNT("first_token_ms", first_token_ms),
    {"refine", JSON_FIELD_BOOL, false, 0, 0, 0, 0, EVENT(refine)},
};
static const struct json_field progress_fields[] = {COUNT("done", done), COUNT("total", total)};
static const struct json_field refined_fields[] = {
    {"ratio", JSON_FIELD_FLOAT, true, 0, 0, FLT_MIN, 1.0f, EVENT(ratio)},
    {"chunk", JSON_FIELD_U32, true, 1, CHUNK_MAX, 0, 0, EVENT(chunk)},
    {"kept", JSON_FIELD_STRING, true, 0, KEPT_MAX / 3 * 4 + 4, 0, 0, PART(kept)},
    {"final", JSON_FIELD_BOOL, true, 0, 0, 0, 0, EVENT(final)},
    {"version", JSON_FIELD_U32, true, 1, COUNT_MAX, 0, 0, EVENT(version)},
    {"coverage", JSON_FIELD_FLOAT, true, 0, 0, 0.0f, 1.0f, EVENT(coverage)},
    {"refused", JSON_FIELD_TEXT, false, 1, WIRE_ID_MAX, 0, 0, EVENT(refused)},
};
static const struct json_field token_fields[] = {
    COUNT("i", index),
    {"id", JSON_FIELD_I32, false, 0, INT32_MAX, 0, 0, EVENT(token)},
    {"text", JSON_FIELD_STRING, true, 0, WIRE_EVENT_MAX, 0, 0, PART(text)},
};
static const struct json_field done_fields[] = {
    {"reason", JSON_FIELD_TEXT, true, 1, 16, 0, 0, PART(name)},
    {"usage", JSON_FIELD_OBJECT, true, 0, 0, 0, 0, PART(usage)},
};
static const struct json_field usage_fields[] = {
    COUNT("prompt_tokens", prompt_tokens),
    COUNT("cached_tokens", cached_tokens),
    COUNT("completion_tokens", completion_tokens),
};
static const struct json_field error_fields[] = {
    {"code", JSON_FIELD_TEXT, true, 1, WIRE_ID_MAX, 0, 0, EVENT(code)},
    {"message", JSON_FIELD_STRING, true, 0, WIRE_EVENT_MAX, 0, 0, PART(message)},
};

static const struct {
    const struct json_field *fields;
    size_t n;
} tables[] = {
    {grant_fields, sizeof grant_fields / sizeof *grant_fields},
    {progress_fields, sizeof progress_fields / sizeof *progress_fields},
    {refined_fields, sizeof refined_fields / sizeof *refined_fields},
    {token_fields, sizeof token_fields / sizeof *token_fields},
    {done_fields, sizeof done_fields / sizeof *done_fields},
    {error_fields, sizeof error_fields / sizeof *error_fields},
};

static int take_name(struct event_parts *p, struct err *e)
{
    bool grant = p->event.kind == WIRE_GRANT;
    int found = grant ? find_name(p->name, match_names, 4) : find_name(p->name, reason_names, 6);
    if (found < 0)
        return err_set(e, ERR_PROTOCOL, "%s '%s' is not one that we know",
                       grant ? "match" : "reason", p->name);
    if (grant)
        p->event.match = (enum wire_match)found;
    else
        p->event.reason = (enum wire_reason)found;
    return 0;
}

/* What is more than one member: names, bitmaps, texts. */
static int take_parts(struct event_parts *p, struct buf *text, struct buf *kept, struct err *e)
{
    struct wire_event *ev = &p->event;
    int code = 0;
    if (ev->kind == WIRE_GRANT || ev->kind == WIRE_DONE) code = take_name(p, e);
    utf8_blank_controls(ev->refused, strlen(ev->refused));
    if (!code && p->usage)
        code = json_object_read(p->usage, "usage.", usage_fields, 3, false, p, e);
    if (!code && p->kept)
        code = base64_decode(json_string_value(p->kept), json_string_length(p->kept), kept, e);
    if (!code && p->text) {
        code = buf_append(text, json_string_value(p->text), json_string_length(p->text));
        if (code) err_set(e, code, "no room for the text of a token");
    }
    if (!code && p->message) {
        size_t n = json_string_length(p->message);
        if (n >= sizeof ev->message)
            n = utf8_valid_prefix(json_string_value(p->message), sizeof ev->message - 1);
        memcpy(ev->message, json_string_value(p->message), n);
        utf8_blank_controls(ev->message, n); /* it goes into sentences that people read */
        ev->message[n] = 0;
    }
    return code;
}

static int check_sense(const struct wire_event *ev, const struct buf *kept, struct err *e)
{
    if (ev->kind == WIRE_PROGRESS && ev->done > ev->total)
        return err_set(e, ERR_PROTOCOL, "done is above total");
    if (ev->kind == WIRE_REFINED && !ev->refused[0] == !kept->len)
        return err_set(e, ERR_PROTOCOL,
                       ev->refused[0] ? "it is refused and has bits in kept"
                                      : "kept is empty, and nothing is refused");
    return 0;
}

size_t wire_kept_bytes(uint32_t n_prompt, uint32_t chunk)
{
    size_t bits = n_prompt / chunk + (n_prompt % chunk != 0);
    return (bits + 7) / 8;
}

bool wire_event_keeps(const struct wire_event *ev, uint32_t position)
{
    size_t bit = position / ev->chunk;
    if (ev->refused[0]) return true;
    return bit / 8 < ev->kept.len && ((uint8_t)ev->kept.data[bit / 8] >> (bit % 8) & 1);
}

int wire_event_decode(const char *name, const char *data, size_t n, struct wire_event *ev,
                      struct err *e)
{
    int kind = find_name(name, kind_names, WIRE_UNKNOWN);
    if (kind < 0) {
        ev->kind = WIRE_UNKNOWN;
        return 0;
    }
    struct event_parts p = {.event = {.kind = (enum wire_kind)kind, .token = -1}};
    struct buf text = ev->text, kept = ev->kept; /* their memory is used again */
    buf_clear(&text);
    buf_clear(&kept);
    json_t *root;
    int code = json_object_parse(data, n, "its data", &root, e);
    if (!code) {
        code = json_object_read(root, "", tables[kind].fields, tables[kind].n, false, &p, e);
        if (!code) code = take_parts(&p, &text, &kept, e);
        if (!code) code = check_sense(&p.event, &kept, e);
        json_decref(root);
    }
    if (!code) *ev = p.event;
    ev->text = text;
    ev->kept = kept;
    if (!code) return 0;
    err_prefix(e, "event '%s'", name);
    if (code == ERR_BAD_INPUT) code = ERR_PROTOCOL;
    if (e) e->code = code;
    return code;
}
