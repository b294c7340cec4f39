/* endpoint_openai: /v1/chat/completions and /v1/completions: a request becomes an ask, and its
 * first reader. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "base/log.h"
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

static int check_word(const char *text, const char *const *words, const char *field, struct err *e)
{
    if (!text[0] || ask_word(words, text) >= 0) return 0;
    return err_set(e, ERR_BAD_INPUT, "pdd.%s \"%s\": %s, %s or %s is possible", field, text,
                   words[0], words[1], words[2]);
}

static int check_mode(struct ask *a, struct err *e)
{
    const struct serve *s = a->serve;
    int code = check_word(a->pdd.mode, ask_modes, "mode", e);
    if (!code) code = check_word(a->pdd.pace, pace_mode_names, "pace", e);
    if (code) return code;
    int mode = ask_word(ask_modes, a->pdd.mode);
    a->mode = mode >= 0 ? (enum device_mode)mode : DEVICE_AUTO;
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
    uint32_t n = openai_request_choices(&a->q),
             most = admit_share(s->c.answers_max, s->c.queue_max);
    if (n > 1 && n > most)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: %u answers in one request, and %u of a client may run or wait here",
                       *param, n, most);
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
    struct ask *all[OPENAI_CHOICES_MAX] = {known};
    struct err e = ERR_INIT;
    if (!known) return false;
    for (uint32_t k = 1; k < known->n_choices && !e.code; k++) {
        all[k] = ask_find_choice(s, known->id, k);
        if (!all[k]) err_set(&e, ERR_NOT_FOUND, "answer %u of %s is forgotten", k, known->id);
    }
    if (e.code)
        serve_refuse(s, r, &e, "pdd");
    else
        (void)reader_add_all(all, known->n_choices, r, a->q.stream, false, 0);
    return true;
}

/* Answer `choice` of the request of `first`. */
static int make_choice(const struct ask *first, const char *body, size_t n, uint32_t choice,
                       struct ask *a, struct err *e)
{
    char param[OPENAI_PARAM_MAX];
    int code = openai_request_decode(body, n, first->q.chat, &a->q, param, e);
    if (!code) code = ask_name_choice(a, first->id, choice, e);
    if (code) return code;
    a->pdd = first->pdd;
    a->mode = first->mode;
    a->tenant = first->tenant;
    a->created = first->created;
    a->q.ask.sampling.seed = (first->q.ask.sampling.seed + choice % a->q.n) & INT64_MAX;
    return ask_make_prompt(a, e);
}

/* all[0] is made; *ret_n: how many are there in any case. */
static int make_choices(struct ask **all, const char *body, size_t n, uint32_t *ret_n,
                        struct err *e)
{
    struct ask *first = all[0];
    int code = ask_name_choice(first, first->pdd.id[0] ? first->pdd.id : first->id, 0, e);
    uint32_t k = 1;
    for (; k < openai_request_choices(&first->q) && !code; k++) {
        all[k] = ask_new(first->serve);
        if (!all[k]) return err_set(e, ERR_NO_MEMORY, "no memory for another answer");
        *ret_n = k + 1;
        code = make_choice(first, body, n, k, all[k], e);
    }
    return code;
}

/* All or none. */
static int submit(struct ask **all, uint32_t n, const char *body, size_t n_body, struct err *e)
{
    uint32_t k = 0;
    int code = 0;
    while (k < n && (code = ask_submit(all[k], body, n_body, e)) == 0)
        k++;
    if (!code) return 0;
    for (uint32_t i = k; i < n; i++)
        ask_free(all[i]);
    while (k-- > 0) { /* nothing of them is kept */
        all[k]->forgotten = true;
        ask_cancel(all[k]);
    }
    return code;
}

static void begin(struct http_request *r, struct serve *s, struct ask *a)
{
    struct ask *all[OPENAI_CHOICES_MAX] = {a};
    struct err e = ERR_INIT;
    uint32_t n = 1;
    size_t n_body;
    const char *body = http_request_body(r, &n_body);
    a->tenant = tenant_of(r);
    if (make_choices(all, body, n_body, &n, &e)) {
        serve_refuse(s, r, &e, strncmp(e.text, "pdd.", 4) == 0 ? "pdd" : "prompt");
        for (uint32_t k = 0; k < n; k++)
            ask_free(all[k]);
        return;
    }
    bool stream = a->q.stream;
    if (submit(all, n, body, n_body, &e)) {
        http_request_reply_header(r, "Retry-After", "1");
        serve_refuse(s, r, &e, NULL);
        return;
    }
    log_line(LOG_DEBUG, "device", "request request=%s answer=%s", http_request_tag(r), a->id);
    if (reader_add_all(all, n, r, stream, false, 0) == 0) return;
    for (uint32_t k = 0; k < n; k++)
        ask_drop(all[k]);
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
    if (code)
        drop(s, r, a, &e, param);
    else if (attach_known(s, r, a))
        ask_free(a);
    else
        begin(r, s, a);
}

void serve_chat(struct http_request *r, void *serve)
{
    post(r, serve, true);
}

void serve_completion(struct http_request *r, void *serve)
{
    post(r, serve, false);
}
