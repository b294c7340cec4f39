/* endpoint_openai: /v1/chat/completions and /v1/completions: a request becomes an ask, and its
 * first reader. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "device/api/serve_impl.h"
#include "model/sampler.h"
#include "net/event_stream.h"

static const float refine_least = 0.01f;

/* A header that says what the "pdd" object does not. Cut short, an id would be another's. */
static int take_header(struct http_request *r, const char *name, char *field, size_t size,
                       struct err *e)
{
    const char *value = http_request_header(r, name);
    if (!value || field[0]) return 0;
    if (strlen(value) >= size)
        return err_set(e, ERR_BAD_INPUT, "%s must have at most %zu characters", name, size - 1);
    memcpy(field, value, strlen(value) + 1);
    return 0;
}

/* A number in a header; false: it is none. */
static bool take_number(struct http_request *r, const char *name, double most, double *ret)
{
    const char *value = http_request_header(r, name);
    char *end;
    if (!value) return true;
    double v = strcmp(value, "off") == 0 ? 0.0 : strtod(value, &end);
    if (strcmp(value, "off") != 0 && (end == value || *end || !(v >= 0.0 && v <= most)))
        return false;
    *ret = v;
    return true;
}

static int take_headers(struct http_request *r, struct openai_pdd *p, struct err *e)
{
    double keep = p->keep_s == UINT32_MAX ? -1.0 : p->keep_s, refine = (double)p->refine;
    int code = take_header(r, "X-PDD-Answer", p->id, sizeof p->id, e);
    if (!code) code = take_header(r, "X-PDD-Mode", p->mode, sizeof p->mode, e);
    if (!code) code = take_header(r, "X-PDD-Pace", p->pace, sizeof p->pace, e);
    if (code) return code;
    if (keep < 0.0 && !take_number(r, "X-PDD-Keep", 604800.0, &keep))
        return err_set(e, ERR_BAD_INPUT, "X-PDD-Keep must be seconds, from 0 to 604800");
    if (refine < 0.0 && !take_number(r, "X-PDD-Refine", 1.0, &refine))
        return err_set(e, ERR_BAD_INPUT, "X-PDD-Refine must be off or a ratio from 0 to 1");
    p->keep_s = keep < 0.0 ? UINT32_MAX : (uint32_t)keep;
    p->refine = (float)refine;
    return 0;
}

static int word_of(const char *text, const char *const *words, const char *field, uint32_t *ret,
                   struct err *e)
{
    *ret = 0;
    if (!text[0]) return 0;
    for (uint32_t i = 0; words[i]; i++) {
        if (strcmp(text, words[i]) != 0) continue;
        *ret = i;
        return 0;
    }
    return err_set(e, ERR_BAD_INPUT, "pdd.%s \"%s\": %s, %s or %s is possible", field, text,
                   words[0], words[1], words[2]);
}

static int check_mode(struct ask *a, struct err *e)
{
    const struct serve *s = a->serve;
    uint32_t mode, pace;
    int code = word_of(a->pdd.mode, ask_modes, "mode", &mode, e);
    if (!code) code = word_of(a->pdd.pace, pace_mode_names, "pace", &pace, e);
    if (code) return code;
    a->mode = (enum device_mode)mode;
    if (a->mode == DEVICE_AUTO && !s->c.device.cloud_url) a->mode = DEVICE_LOCAL_ONLY;
    if (a->mode == DEVICE_LOCAL_ONLY && !s->info)
        return err_set(e, ERR_BAD_INPUT, "pdd.mode \"local\": there is no model on the device");
    if (a->mode == DEVICE_CLOUD_ONLY && !s->c.device.cloud_url)
        return err_set(e, ERR_BAD_INPUT, "pdd.mode \"cloud\": the device has no cloud");
    if (a->pdd.refine > 0.0f && a->pdd.refine < refine_least)
        return err_set(e, ERR_BAD_INPUT, "pdd.refine must be 0 (off) or a ratio from %g to 1",
                       (double)refine_least);
    return 0;
}

static int check_served(const struct serve *s, const struct ask *a, const char **param,
                        struct err *e)
{
    const char *model = a->q.ask.model;
    *param = "model";
    if (model[0] && strcmp(model, s->model) != 0 && !model_names_have(&s->c.names, model))
        return err_set(e, ERR_NOT_FOUND, "model \"%s\" is not served here; \"%s\" is", model,
                       s->model);
    *param = "logprobs";
    if (a->q.logprobs)
        return err_set(e, ERR_UNSUPPORTED,
                       "logprobs: a part of the answer may be another machine's, which tells none");
    *param = a->q.n > 1 ? "n" : "prompt";
    if (openai_request_choices(&a->q) > 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: a device gives one answer to a request; send more requests", *param);
    *param = "echo";
    if (a->q.echo) return err_set(e, ERR_UNSUPPORTED, "echo is not served on a device");
    *param = "pdd";
    if (a->pdd.id[0] && !event_stream_id_good(a->pdd.id))
        return err_set(e, ERR_BAD_INPUT,
                       "pdd.id: letters, digits, '-' and '_' only, at most %d of them",
                       WIRE_ID_MAX - 1);
    if (a->pdd.conversation[0] && !event_stream_id_good(a->pdd.conversation))
        return err_set(e, ERR_BAD_INPUT, "pdd.conversation: letters, digits, '-' and '_' only");
    return 0;
}

/* Without a seed each answer has another. */
static int draw_seed(struct ask *a, struct err *e)
{
    uint64_t seed;
    if (a->q.seeded) return 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return err_set(e, ERR_INTERNAL, "no random numbers from the system");
    a->q.ask.sampling.seed = seed & INT64_MAX;
    return 0;
}

/* Which client asks, for turns and shares: what it calls itself. */
static uint32_t tenant_of(struct http_request *r)
{
    static const char *const names[] = {"X-PDD-Client", "Origin", "User-Agent"};
    uint64_t hash = FNV_BEGIN;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = http_request_header(r, names[i]);
        if (value) hash = fnv_bytes(hash, value, strlen(value));
    }
    return 1 + (uint32_t)(hash % (ADMIT_TENANTS_MAX - 1));
}

static int read_request(struct http_request *r, struct ask *a, bool chat, const char **param,
                        char name[OPENAI_PARAM_MAX], struct err *e)
{
    size_t n;
    const char *body = http_request_body(r, &n);
    *param = name;
    int code = openai_request_decode_pdd(body, n, chat, &a->q, &a->pdd, name, e);
    if (code) return code;
    *param = "pdd";
    code = take_headers(r, &a->pdd, e);
    if (!code) code = check_mode(a, e);
    if (!code) code = check_served(a->serve, a, param, e);
    if (code) return code;
    *param = "logit_bias";
    if (a->serve->info)
        code = sampling_check_ids(&a->q.ask.sampling, a->serve->info->vocab_size, e);
    if (code) return code;
    *param = chat ? "messages" : "prompt";
    code = ask_make_prompt(a, e);
    if (!code) code = draw_seed(a, e);
    return code;
}

static void drop(struct serve *s, struct http_request *r, struct ask *a, const struct err *e,
                 const char *param)
{
    serve_refuse(s, r, e, param && param[0] ? param : NULL);
    ask_free(a);
}

/* An id that is known is the same question again, asked by a client that lost its connection. */
static bool attach_known(struct serve *s, struct http_request *r, const struct ask *a)
{
    struct ask *known = a->pdd.id[0] ? ask_find(s, a->pdd.id) : NULL;
    if (!known) return false;
    (void)reader_add(known, r, a->q.stream, false, 0);
    return true;
}

static void post(struct http_request *r, struct serve *s, bool chat)
{
    char name[OPENAI_PARAM_MAX] = "";
    const char *param = NULL;
    struct err e = ERR_INIT;
    struct ask *a = ask_new(s);
    if (!a) {
        err_set(&e, ERR_NO_MEMORY, "no memory for another answer");
        serve_refuse(s, r, &e, NULL);
        return;
    }
    a->q.chat = chat;
    int code = s->draining ? err_set(&e, ERR_CANCELLED, "the device's server is shutting down")
                           : read_request(r, a, chat, &param, name, &e);
    if (code) {
        drop(s, r, a, &e, param);
        return;
    }
    if (attach_known(s, r, a)) {
        ask_free(a);
        return;
    }
    if (a->pdd.id[0]) snprintf(a->id, sizeof a->id, "%s", a->pdd.id);
    a->tenant = tenant_of(r);
    size_t n;
    const char *body = http_request_body(r, &n);
    if (ask_submit(a, body, n, &e)) {
        http_request_reply_header(r, "Retry-After", "1");
        drop(s, r, a, &e, NULL);
        return;
    }
    if (reader_add(a, r, a->q.stream, false, 0)) ask_cancel(a);
}

void serve_chat(struct http_request *r, void *serve)
{
    post(r, serve, true);
}

void serve_completion(struct http_request *r, void *serve)
{
    post(r, serve, false);
}
