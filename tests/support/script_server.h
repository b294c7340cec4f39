/*
 * script_server: a server that speaks the OpenAI API behind the one that is tested, and misbehaves
 * on demand. A thread with a loop of its own. Static functions, so that each test links alone.
 */
#ifndef PDD_TESTS_SCRIPT_SERVER_H
#define PDD_TESTS_SCRIPT_SERVER_H

#include <stdatomic.h>

#include "base/clock.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "proto/wire.h"
#include "support/net_raw.h"

enum script_how {
    SCRIPT_FINE,     /* "a", "b", "c", and so on, as many as asked; vllm: ids 100, 101, ... */
    SCRIPT_STATUS,   /* `status`, with Retry-After: 7 */
    SCRIPT_CLOSE,    /* closes before the head */
    SCRIPT_EMPTY,    /* an empty stream that ends */
    SCRIPT_CUT,      /* closes after `after` tokens */
    SCRIPT_STALL,    /* is silent after `after` tokens */
    SCRIPT_GARBAGE,  /* no JSON after `after` tokens */
    SCRIPT_ERROR,    /* an error in the stream after `after` tokens */
    SCRIPT_WRONG_ID, /* vllm: an id that is none after `after` tokens */
    SCRIPT_COUNT,    /* 5,000 steps of a prefill before all else, each said to be the last one */
    SCRIPT_MANY,     /* goes on and on */
    SCRIPT_LINGER,   /* fine, but the stream does not end behind the answer's end */
    SCRIPT_SAY,      /* the bytes of `saying`, then silence, or the end where `saying_ends` */
    SCRIPT_REPLY,    /* `status` with `saying`, which is of `saying_type`, and `location` */
    SCRIPT_EMPTIES   /* comments and empty events after `after` tokens, for ever, or... */
};

#define SCRIPT_STEP_US 2000ull

enum { SCRIPT_COUNTED = 5000 };

struct script_server {
    struct loop_thread thread;
    struct http_server *http;
    struct http_request *answering; /* one at a time */
    struct loop_timer *timer;
    uint16_t port;
    char url[64];
    const char *owner; /* "vllm", "pdd", or anything */
    const char *_Atomic saying;
    const char *_Atomic saying_type; /* NULL: text/event-stream; "": none */
    const char *_Atomic location;
    atomic_bool saying_ends;
    /* A body with one of these fields gets 400 with the text in its place. */
    struct {
        const char *field, *answer;
    } refuses[4];
    char body[4000]; /* the last one that came; read it when it is answered */
    atomic_int how, status, after;
    atomic_int empties_ms; /* ...for so long, then the rest of the answer; 0: for ever */
    uint64_t emptied;      /* since when */
    /* Before all else, for so long: steps of a prefill, of which so many are done already. */
    atomic_int prefill_ms, prefill_from;
    int prefilled;
    atomic_bool ill; /* /v1/models answers 500 */
    uint32_t asked_for, sent;
    atomic_uint requests, closed; /* answers begun; ended by the other side */
};

static inline void script_models(struct http_request *r, void *arg)
{
    struct script_server *s = arg;
    char text[200];
    if (atomic_load(&s->ill)) {
        http_reply_error(r, 500, NULL, NULL, "ill");
        return;
    }
    int n =
        snprintf(text, sizeof text, "{\"data\":[{\"id\":\"m\",\"owned_by\":\"%s\"}]}", s->owner);
    http_reply_json(r, 200, text, (size_t)n);
}

static inline void script_say(struct script_server *s, const char *text)
{
    http_stream_send(s->answering, text, strlen(text));
}

static inline void script_end(struct script_server *s)
{
    struct http_request *r = s->answering;
    s->answering = NULL;
    http_stream_end(r);
}

static inline void script_token(struct script_server *s, int32_t id)
{
    char text[200];
    if (strcmp(s->owner, "pdd") == 0)
        snprintf(text, sizeof text, "event: token\ndata: {\"i\":%u,\"id\":%d,\"text\":\"%c\"}\n\n",
                 s->sent, id, (char)('a' + s->sent % 26));
    else if (strcmp(s->owner, "vllm") == 0)
        snprintf(text, sizeof text, "data: {\"choices\":[{\"text\":\"x\",\"token_ids\":[%d]}]}\n\n",
                 id);
    else
        snprintf(text, sizeof text, "data: {\"choices\":[{\"delta\":{\"content\":\"%c\"}}]}\n\n",
                 (char)('a' + s->sent % 26));
    script_say(s, text);
    s->sent++;
}

static inline void script_fault(struct script_server *s, int how)
{
    struct http_request *r = s->answering;
    switch (how) {
    case SCRIPT_EMPTY:
        script_end(s);
        break;
    case SCRIPT_CUT:
        s->answering = NULL;
        http_request_abort(r);
        break;
    case SCRIPT_GARBAGE:
        script_say(s, "data: {\"choices\": what\n\n");
        break;
    case SCRIPT_ERROR:
        script_say(s, "data: {\"error\":{\"message\":\"the GPU is gone\"}}\n\n");
        break;
    case SCRIPT_WRONG_ID:
        script_token(s, 123456789);
        break;
    default: /* a stall */
        break;
    }
}

static inline void script_count(struct script_server *s)
{
    char text[120];
    for (int i = 1; i <= SCRIPT_COUNTED; i++) {
        snprintf(text, sizeof text,
                 "data: {\"choices\":[],\"prompt_progress\":{\"total\":%d,\"processed\":%d}}\n\n",
                 i, i);
        script_say(s, text);
    }
}

/* What keeps a connection alive and brings nothing. Returns whether it goes on. */
static inline bool script_empty(struct script_server *s)
{
    uint64_t now = clock_us(), ms = (uint64_t)atomic_load(&s->empties_ms);
    if (!s->emptied) s->emptied = now;
    if (ms && now - s->emptied >= ms * 1000) return false;
    script_say(s, ": still here\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n");
    loop_timer_set(s->timer, now + SCRIPT_STEP_US);
    return true;
}

/* Returns whether it goes on. */
static inline bool script_prefill(struct script_server *s)
{
    char text[120];
    uint64_t now = clock_us(), ms = (uint64_t)atomic_load(&s->prefill_ms);
    if (!s->answering || !ms) return false;
    if (!s->emptied) s->emptied = now;
    if (now - s->emptied >= ms * 1000) return false;
    snprintf(text, sizeof text,
             "data: {\"choices\":[],\"prompt_progress\":{\"total\":100000,\"processed\":%d}}\n\n",
             atomic_load(&s->prefill_from) + ++s->prefilled);
    script_say(s, text);
    loop_timer_set(s->timer, now + SCRIPT_STEP_US);
    return true;
}

static inline void script_lingered(void *arg)
{
    struct script_server *s = arg;
    atomic_fetch_add(&s->closed, 1);
}

static inline void script_end_pdd(struct script_server *s)
{
    char text[200];
    snprintf(text, sizeof text,
             "event: done\ndata: {\"reason\":\"budget\",\"usage\":{\"prompt_tokens\":11,"
             "\"cached_tokens\":0,\"completion_tokens\":%u}}\n\n",
             s->sent);
    script_say(s, text);
    script_end(s);
}

static inline void script_whole(struct script_server *s, int how)
{
    if (strcmp(s->owner, "pdd") == 0) {
        script_end_pdd(s);
        return;
    }
    script_say(s, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n"
                  "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11}}\n\n"
                  "data: [DONE]\n\n");
    if (how != SCRIPT_LINGER) {
        script_end(s);
        return;
    }
    http_request_on_close(s->answering, script_lingered, s);
    s->answering = NULL;
}

static inline void script_step(void *arg)
{
    struct script_server *s = arg;
    int how = atomic_load(&s->how);
    if (script_prefill(s)) return;
    if (how == SCRIPT_EMPTIES && s->answering && s->sent >= (uint32_t)atomic_load(&s->after)) {
        if (script_empty(s)) return;
        how = SCRIPT_FINE;
    }
    bool endless = how == SCRIPT_MANY;
    bool fine = how == SCRIPT_FINE || how == SCRIPT_COUNT || how == SCRIPT_LINGER;
    if (!s->answering) return;
    if (how == SCRIPT_SAY) {
        script_say(s, atomic_load(&s->saying));
        if (atomic_load(&s->saying_ends)) script_end(s);
        return;
    }
    if (how == SCRIPT_COUNT && s->sent == 0) script_count(s);
    if (!fine && !endless && s->sent >= (uint32_t)atomic_load(&s->after)) {
        script_fault(s, how);
        return;
    }
    if (fine && s->sent == s->asked_for) {
        script_whole(s, how);
        return;
    }
    script_token(s, 100 + (int32_t)s->sent);
    loop_timer_set(s->timer, clock_us() + SCRIPT_STEP_US);
}

static inline void script_left(void *arg)
{
    struct script_server *s = arg;
    s->answering = NULL;
    atomic_fetch_add(&s->closed, 1);
}

/* Returns whether a field of the body was refused. */
static inline bool script_refuse(struct script_server *s, struct http_request *r)
{
    size_t n;
    snprintf(s->body, sizeof s->body, "%s", http_request_body(r, &n));
    for (int i = 0; i < 4 && s->refuses[i].field; i++) {
        if (!strstr(s->body, s->refuses[i].field)) continue;
        http_reply_json(r, 400, s->refuses[i].answer, strlen(s->refuses[i].answer));
        return true;
    }
    return false;
}

/* What another pdd begins its stream with. */
#define SCRIPT_GRANT                                                                               \
    "event: grant\ndata: {\"id\":\"as-1\",\"match\":\"text\",\"tokens_max\":5,"                    \
    "\"prompt_tokens\":11,\"cached_tokens\":0,\"first_token_ms\":0}\n\n"

static inline void script_reply(struct script_server *s, struct http_request *r)
{
    struct buf body;
    const char *location = atomic_load(&s->location);
    buf_init(&body, 1 << 16);
    CHECK(buf_puts(&body, atomic_load(&s->saying)) == 0);
    if (location) http_request_reply_header(r, "Location", location);
    http_reply_take(r, atomic_load(&s->status), atomic_load(&s->saying_type), &body);
    buf_release(&body);
}

static inline void script_answer(struct http_request *r, void *arg)
{
    struct script_server *s = arg;
    const char *type = atomic_load(&s->saying_type);
    size_t n;
    bool pdd = strcmp(s->owner, "pdd") == 0;
    const char *name = pdd ? "\"tokens_max\":" : "\"max_tokens\":";
    const char *max = strstr(http_request_body(r, &n), name);
    int how = atomic_load(&s->how);
    atomic_fetch_add(&s->requests, 1);
    if (!max && (max = strstr(http_request_body(r, &n), "\"max_completion_tokens\":")) != NULL)
        max += 11;
    s->asked_for = max ? (uint32_t)strtoul(max + 13, NULL, 10) : 0;
    s->sent = 0;
    s->emptied = 0;
    s->prefilled = 0;
    if (script_refuse(s, r)) return;
    if (how == SCRIPT_STATUS) {
        http_request_reply_header(r, "Retry-After", "7");
        http_reply_error(r, atomic_load(&s->status), NULL, NULL, "not today");
        return;
    }
    if (how == SCRIPT_CLOSE) {
        http_request_abort(r);
        return;
    }
    if (how == SCRIPT_REPLY) {
        script_reply(s, r);
        return;
    }
    s->answering = r;
    http_request_on_close(r, script_left, s);
    http_stream_begin(r, !type ? "text/event-stream" : type[0] ? type : NULL);
    if (pdd && how != SCRIPT_SAY) script_say(s, SCRIPT_GRANT);
    loop_timer_set(s->timer, clock_us() + SCRIPT_STEP_US);
}

static const struct http_route script_routes[] = {
    {"GET", "/v1/models", script_models, NULL, 0, false},
    {"POST", "/v1/chat/completions", script_answer, NULL, 0, false},
    {"POST", "/v1/completions", script_answer, NULL, 0, false},
    {"POST", "/v1/assist", script_answer, NULL, 0, false},
};

static inline void script_prepare(struct loop *l, void *arg)
{
    struct script_server *s = arg;
    struct http_server_config c;
    http_server_config_default(&c);
    c.error_body = wire_error_body;
    c.port = s->port;
    CHECK(http_server_new(l, &c, script_routes, 4, s, &s->http, NULL) == 0);
    CHECK(loop_timer_new(l, script_step, s, &s->timer, NULL) == 0);
    s->port = http_server_port(s->http);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%u", s->port);
}

static inline void script_clean(void *arg)
{
    struct script_server *s = arg;
    http_server_free(s->http);
    loop_timer_free(s->timer);
}

static inline void script_start(struct script_server *s, const char *owner)
{
    memset(s, 0, sizeof *s);
    s->owner = owner;
    s->thread = (struct loop_thread){.prepare = script_prepare, .clean = script_clean, .arg = s};
    loop_thread_start(&s->thread);
}

/* From now on: 200 with this JSON. */
static inline void script_reply_json(struct script_server *s, const char *json)
{
    atomic_store(&s->status, 200);
    atomic_store(&s->saying_type, "application/json");
    atomic_store(&s->saying, json);
    atomic_store(&s->how, SCRIPT_REPLY);
}

/* From now on: a stream of these bytes, which ends; `type` as `saying_type`. */
static inline void script_say_all(struct script_server *s, const char *type, const char *bytes)
{
    atomic_store(&s->saying_type, type);
    atomic_store(&s->saying, bytes);
    atomic_store(&s->saying_ends, true);
    atomic_store(&s->how, SCRIPT_SAY);
}

static inline void script_stop(struct script_server *s)
{
    loop_thread_stop(&s->thread);
}

#endif
