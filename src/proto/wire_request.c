/* wire_request: the bodies of POST and PATCH /v1/assist, and error objects; see wire.h. */
#include <float.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "proto/json.h"
#include "proto/logit_bias.h"
#include "proto/openai_pass.h"
#include "proto/wire.h"

/* The largest float below 1: a minimum probability of 1 would leave no token. */
#define BELOW_ONE 0x1.fffffep-1f

#define NOW_MAX 253402300799 /* the end of the year 9999 */

enum {
    ROLE_MAX = 32,       /* bytes */
    TOP_K_MAX = 1 << 24, /* more than any vocabulary */
    REPEAT_LAST_MAX = 1 << 24,
    FIELDS_BYTES = 4096, /* about, of a request besides its long parts */
    DEADLINE_MS_MAX = 24 * 60 * 60 * 1000,
    ERROR_BODY_SHOWN = 200 /* of an error body that is not OpenAI's object */
};

bool wire_message_has_calls(const char *extra)
{
    return extra && (strstr(extra, "\"tool_calls\":[") || strstr(extra, "\"tool_call_id\":\""));
}

void wire_request_init(struct wire_request *r)
{
    *r = (struct wire_request){.sampling = SAMPLING_GREEDY};
}

void wire_request_release(struct wire_request *r)
{
    for (uint32_t i = 0; i < r->n_messages; i++) {
        mem_free(r->messages[i].role);
        mem_free(r->messages[i].content);
        if (r->extras) mem_free(r->extras[i]);
    }
    mem_free(r->messages);
    mem_free(r->extras);
    mem_free(r->tools);
    mem_free(r->arguments);
    mem_free(r->prompt);
    mem_free(r->have);
    mem_free(r->refine.messages);
    mem_free(r->refine.whole);
    mem_free(r->messages_json.text);
    mem_free(r->prompt_json.text);
    mem_free(r->have_json.text);
    mem_free(r->tokens_json.text);
    openai_pass_free(r->passed);
    buf_release(&r->room);
    wire_request_init(r);
}

static void put_ids(struct buf *out, const struct wire_json *made, const int32_t *ids, uint32_t n)
{
    buf_putc(out, '[');
    if (made->text)
        buf_append(out, made->text, made->len);
    else
        json_put_ids(out, ids, n);
    buf_putc(out, ']');
}

static void put_messages(struct buf *out, const struct wire_request *r)
{
    const struct wire_message *messages = r->messages;
    if (r->messages_json.text) {
        buf_append(out, r->messages_json.text, r->messages_json.len);
        return;
    }
    buf_putc(out, '[');
    for (uint32_t i = 0; i < r->n_messages; i++) {
        buf_puts(out, i > 0 ? ",{\"role\":" : "{\"role\":");
        json_put_text(out, messages[i].role);
        buf_puts(out, ",\"content\":");
        json_put_string(out, messages[i].content, messages[i].content_len);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

/* What older servers do not know is left out while it is off: they refuse it by name else. */
static void put_changes(struct buf *out, const struct sampling *s)
{
    if (s->frequency_penalty != 0.0f) {
        buf_puts(out, ",\"frequency_penalty\":");
        json_put_float(out, s->frequency_penalty);
    }
    if (s->presence_penalty != 0.0f) {
        buf_puts(out, ",\"presence_penalty\":");
        json_put_float(out, s->presence_penalty);
    }
    if (s->min_tokens) buf_printf(out, ",\"min_tokens\":%u", s->min_tokens);
    if (s->ignore_eos) buf_puts(out, ",\"ignore_eos\":true");
    if (s->n_biases) {
        buf_puts(out, ",\"logit_bias\":");
        logit_bias_put(out, s);
    }
}

static void put_sampling(struct buf *out, const struct sampling *s)
{
    const struct {
        const char *name;
        float value;
    } floats[] = {{"{\"temperature\":", s->temperature},
                  {",\"top_p\":", s->top_p},
                  {",\"min_p\":", s->min_p},
                  {",\"repeat_penalty\":", s->repeat_penalty}};
    const struct {
        const char *name;
        uint64_t value;
    } integers[] = {
        {",\"top_k\":", s->top_k}, {",\"repeat_last\":", s->repeat_last}, {",\"seed\":", s->seed}};
    if (s->seed > INT64_MAX) buf_fail(out, ERR_BAD_INPUT);
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        buf_puts(out, floats[i].name);
        json_put_float(out, floats[i].value);
    }
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        buf_puts(out, integers[i].name);
        json_put_u64(out, integers[i].value);
    }
    put_changes(out, s);
    buf_putc(out, '}');
}

static void put_identity(struct buf *out, const struct wire_request *r)
{
    const struct {
        const char *name, *value;
    } texts[] = {{"{\"model\":", r->model},
                 {",\"numerics\":", r->numerics},
                 {",\"hashes\":{\"weights\":", r->weights},
                 {",\"tokenizer\":", r->tokenizer},
                 {",\"template\":", r->chat_template}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        buf_puts(out, texts[i].name);
        json_put_text(out, texts[i].value);
    }
    buf_putc(out, '}');
}

static void put_refine(struct buf *out, const struct wire_refine *r)
{
    buf_puts(out, ",\"refine\":{\"ratio\":");
    json_put_float(out, r->ratio);
    if (r->coverage > 0) {
        buf_puts(out, ",\"coverage\":");
        json_put_float(out, r->coverage);
    }
    if (r->held) buf_printf(out, ",\"held\":%u", r->held);
    if (r->n_messages) {
        buf_puts(out, ",\"messages\":[");
        json_put_ids(out, r->messages, r->n_messages);
        buf_putc(out, ']');
    }
    if (r->n_whole) {
        buf_puts(out, ",\"whole\":[");
        json_put_ids(out, r->whole, r->n_whole);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

static void put_request(struct buf *out, const struct wire_request *r)
{
    put_identity(out, r);
    buf_puts(out, r->n_messages ? ",\"messages\":" : ",\"prompt\":");
    if (r->n_messages)
        put_messages(out, r);
    else
        put_ids(out, &r->prompt_json, r->prompt, r->n_prompt);
    if (r->n_have) {
        buf_puts(out, ",\"have\":");
        put_ids(out, &r->have_json, r->have, r->n_have);
    }
    if (r->answered) buf_printf(out, ",\"answered\":%u", r->answered);
    buf_puts(out, ",\"sampling\":");
    put_sampling(out, &r->sampling);
    if (r->refine.ratio > 0) put_refine(out, &r->refine);
    if (r->deadline_ms) buf_printf(out, ",\"deadline_ms\":%u", r->deadline_ms);
    if (r->n_messages && r->now) buf_printf(out, ",\"now\":%llu", (unsigned long long)r->now);
    buf_printf(out, ",\"tokens_max\":%u}", r->tokens_max);
}

int wire_request_encode(const struct wire_request *r, struct buf *out, struct err *e)
{
    size_t before = out->len;
    put_request(out, r);
    int code = out->error;
    if (!code) return 0;
    buf_cut(out, before);
    if (code == ERR_BAD_INPUT)
        return err_set(e, code,
                       "the request cannot be written: a text is not UTF-8, a token id is "
                       "negative, a sampling value is not finite, or the seed is above 2^63 - 1");
    return err_set(e, code, "the request is larger than %zu bytes", out->max);
}

/* `b` becomes `made`; it is empty afterwards, whatever happens. */
static int keep(struct buf *b, struct wire_json *made, struct err *e)
{
    int code = b->error;
    made->len = b->len;
    if (!code && !(made->text = buf_steal(b))) code = ERR_NO_MEMORY;
    buf_release(b);
    if (!code) return 0;
    return err_set(e, code,
                   "the request cannot be passed on: it is too large, or there is no memory");
}

/* New pages cost more than what is copied into them: they are touched here. */
static int make_room(struct wire_request *r, struct err *e)
{
    size_t n = r->messages_json.len + r->prompt_json.len + r->have_json.len + FIELDS_BYTES;
    buf_init(&r->room, WIRE_BODY_MAX);
    if (n > WIRE_BODY_MAX) n = WIRE_BODY_MAX;
    if (buf_reserve(&r->room, n))
        return err_set(e, ERR_NO_MEMORY, "no memory to pass the request on");
    memset(r->room.data, 0, n);
    return 0;
}

int wire_request_prepare(struct wire_request *r, struct err *e)
{
    struct buf b;
    int code = 0;
    buf_init(&b, WIRE_BODY_MAX);
    if (r->n_messages) {
        put_messages(&b, r);
        code = keep(&b, &r->messages_json, e);
    }
    if (!code && r->n_prompt) {
        json_put_ids(&b, r->prompt, r->n_prompt);
        code = keep(&b, &r->prompt_json, e);
    }
    if (!code && r->n_have) {
        json_put_ids(&b, r->have, r->n_have);
        code = keep(&b, &r->have_json, e);
    }
    return code ? code : make_room(r, e);
}

void wire_request_free_texts(struct wire_request *r)
{
    for (uint32_t i = 0; r->messages_json.text && i < r->n_messages; i++) {
        mem_free(r->messages[i].role);
        mem_free(r->messages[i].content);
        r->messages[i] = (struct wire_message){NULL, NULL, 0};
    }
}

int wire_request_prepare_tokens(struct wire_request *r, const int32_t *prompt, uint32_t n_prompt,
                                struct err *e)
{
    struct buf b;
    buf_init(&b, WIRE_BODY_MAX);
    json_put_ids(&b, prompt, n_prompt);
    if (n_prompt && r->n_have) buf_putc(&b, ',');
    json_put_ids(&b, r->have, r->n_have);
    return keep(&b, &r->tokens_json, e);
}

static const struct json_field hash_fields[] = {
    {"weights", JSON_FIELD_TEXT, false, 0, WIRE_HASH_MAX, 0, 0,
     offsetof(struct wire_request, weights)},
    {"tokenizer", JSON_FIELD_TEXT, false, 0, WIRE_HASH_MAX, 0, 0,
     offsetof(struct wire_request, tokenizer)},
    {"template", JSON_FIELD_TEXT, false, 0, WIRE_HASH_MAX, 0, 0,
     offsetof(struct wire_request, chat_template)},
};

/* The parts of a request that are objects and arrays, borrowed from the parsed JSON. */
struct request_parts {
    struct wire_request request;
    json_t *hashes, *prompt, *messages, *have, *sampling, *refine, *refine_messages, *refine_whole;
    json_t *biases;
};

#define REQUEST(member) offsetof(struct request_parts, request.member)
#define PART(member) offsetof(struct request_parts, member)
static const struct json_field sampling_fields[] = {
    {"temperature", JSON_FIELD_FLOAT, false, 0, 0, 0.0f, 100.0f, REQUEST(sampling.temperature)},
    {"top_k", JSON_FIELD_U32, false, 0, TOP_K_MAX, 0, 0, REQUEST(sampling.top_k)},
    {"top_p", JSON_FIELD_FLOAT, false, 0, 0, FLT_MIN, 1.0f, REQUEST(sampling.top_p)},
    {"min_p", JSON_FIELD_FLOAT, false, 0, 0, 0.0f, BELOW_ONE, REQUEST(sampling.min_p)},
    {"repeat_penalty", JSON_FIELD_FLOAT, false, 0, 0, 0.001f, 1000.0f,
     REQUEST(sampling.repeat_penalty)},
    {"repeat_last", JSON_FIELD_U32, false, 0, REPEAT_LAST_MAX, 0, 0, REQUEST(sampling.repeat_last)},
    {"seed", JSON_FIELD_U64, false, 0, INT64_MAX, 0, 0, REQUEST(sampling.seed)},
    {"frequency_penalty", JSON_FIELD_FLOAT, false, 0, 0, -2.0f, 2.0f,
     REQUEST(sampling.frequency_penalty)},
    {"presence_penalty", JSON_FIELD_FLOAT, false, 0, 0, -2.0f, 2.0f,
     REQUEST(sampling.presence_penalty)},
    {"min_tokens", JSON_FIELD_U32, false, 0, WIRE_TOKENS_MAX, 0, 0, REQUEST(sampling.min_tokens)},
    {"ignore_eos", JSON_FIELD_BOOL, false, 0, 0, 0, 0, REQUEST(sampling.ignore_eos)},
    {"logit_bias", JSON_FIELD_ARRAY, false, 0, SAMPLING_BIASES_MAX, 0, 0, PART(biases)},
};

static const struct json_field request_fields[] = {
    {"model", JSON_FIELD_TEXT, false, 0, WIRE_NAME_MAX, 0, 0, REQUEST(model)},
    {"numerics", JSON_FIELD_TEXT, false, 0, WIRE_NAME_MAX, 0, 0, REQUEST(numerics)},
    {"hashes", JSON_FIELD_OBJECT, false, 0, 0, 0, 0, PART(hashes)},
    {"prompt", JSON_FIELD_ARRAY, false, 1, WIRE_PROMPT_MAX, 0, 0, PART(prompt)},
    {"messages", JSON_FIELD_ARRAY, false, 1, WIRE_MESSAGES_MAX, 0, 0, PART(messages)},
    {"have", JSON_FIELD_ARRAY, false, 0, WIRE_TOKENS_MAX, 0, 0, PART(have)},
    {"sampling", JSON_FIELD_OBJECT, false, 0, 0, 0, 0, PART(sampling)},
    {"tokens_max", JSON_FIELD_U32, true, 1, WIRE_TOKENS_MAX, 0, 0, REQUEST(tokens_max)},
    {"refine", JSON_FIELD_OBJECT, false, 0, 0, 0, 0, PART(refine)},
    {"deadline_ms", JSON_FIELD_U32, false, 0, DEADLINE_MS_MAX, 0, 0, REQUEST(deadline_ms)},
    {"answered", JSON_FIELD_U32, false, 0, WIRE_PROMPT_MAX, 0, 0, REQUEST(answered)},
    {"now", JSON_FIELD_U64, false, 0, NOW_MAX, 0, 0, REQUEST(now)},
};

static const struct json_field refine_fields[] = {
    {"ratio", JSON_FIELD_FLOAT, true, 0, 0, 0.001f, 1.0f, REQUEST(refine.ratio)},
    {"coverage", JSON_FIELD_FLOAT, false, 0, 0, 0.001f, 1.0f, REQUEST(refine.coverage)},
    {"held", JSON_FIELD_U32, false, 0, WIRE_PROMPT_MAX, 0, 0, REQUEST(refine.held)},
    {"messages", JSON_FIELD_ARRAY, false, 1, WIRE_MESSAGES_MAX, 0, 0, PART(refine_messages)},
    {"whole", JSON_FIELD_ARRAY, false, 0, WIRE_WHOLE_MAX, 0, 0, PART(refine_whole)},
};

static int take_ids(const json_t *array, const char *name, const char *what, int32_t **ret_ids,
                    uint32_t *ret_n, struct err *e)
{
    size_t n = json_array_size(array);
    if (n == 0) return 0;
    int32_t *ids = mem_alloc(n * sizeof *ids);
    if (!ids) return err_set(e, ERR_NO_MEMORY, "no memory for %zu token ids of %s", n, name);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        json_int_t v = json_integer_value(value);
        if (!json_is_integer(value) || v < 0 || v > INT32_MAX) {
            mem_free(ids);
            return err_set(e, ERR_BAD_INPUT, "%s[%zu] must be %s (0 to %d)", name, i, what,
                           INT32_MAX);
        }
        ids[i] = (int32_t)v;
    }
    *ret_ids = ids;
    *ret_n = (uint32_t)n;
    return 0;
}

static int take_message(json_t *value, size_t i, struct wire_message *m, struct err *e)
{
    struct {
        char role[ROLE_MAX];
        json_t *content;
    } parts = {"", NULL};
    static const struct json_field fields[] = {
        {"role", JSON_FIELD_TEXT, true, 1, ROLE_MAX, 0, 0, 0},
        {"content", JSON_FIELD_STRING, true, 0, WIRE_BODY_MAX, 0, 0, ROLE_MAX},
    };
    _Static_assert(ROLE_MAX % sizeof(json_t *) == 0, "content follows role without a gap");
    char prefix[40];
    snprintf(prefix, sizeof prefix, "messages[%zu].", i);
    int code = json_is_object(value)
                   ? json_object_read(value, prefix, fields, 2, true, &parts, e)
                   : err_set(e, ERR_BAD_INPUT, "messages[%zu] must be an object", i);
    if (code) return code;
    m->content_len = json_string_length(parts.content);
    m->role = mem_strdup(parts.role);
    m->content = mem_alloc(m->content_len + 1);
    if (!m->role || !m->content) return err_set(e, ERR_NO_MEMORY, "no memory for a message");
    memcpy(m->content, json_string_value(parts.content), m->content_len + 1);
    return 0;
}

static int take_messages(const json_t *array, struct wire_request *r, struct err *e)
{
    size_t n = json_array_size(array);
    r->messages = mem_calloc(n, sizeof *r->messages);
    if (!r->messages) return err_set(e, ERR_NO_MEMORY, "no memory for %zu messages", n);
    r->n_messages = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        int code = take_message(json_array_get(array, i), i, &r->messages[i], e);
        if (code) return code;
    }
    return 0;
}

static int check_refine(const struct wire_request *r, struct err *e)
{
    const struct wire_refine *f = &r->refine;
    if (r->n_messages && (f->held || f->n_messages || f->n_whole))
        return err_set(e, ERR_BAD_INPUT,
                       "refine.%s counts tokens of prompt, and the request has messages",
                       f->held         ? "held"
                       : f->n_messages ? "messages"
                                       : "whole");
    if (f->held > r->n_prompt)
        return err_set(e, ERR_BAD_INPUT, "refine.held is above the %u tokens of prompt",
                       r->n_prompt);
    if (f->n_messages && f->messages[0] == 0)
        return err_set(e, ERR_BAD_INPUT, "refine.messages[0] must be above 0");
    for (uint32_t i = 1; i < f->n_messages; i++)
        if (f->messages[i] <= f->messages[i - 1])
            return err_set(e, ERR_BAD_INPUT, "refine.messages[%u] must be above the one before", i);
    if (f->n_messages && (uint32_t)f->messages[f->n_messages - 1] != r->n_prompt)
        return err_set(e, ERR_BAD_INPUT,
                       "the last of refine.messages must be %u, where prompt ends", r->n_prompt);
    if (f->n_whole % 2)
        return err_set(e, ERR_BAD_INPUT, "refine.whole must have two numbers for each range");
    for (uint32_t i = 0; i < f->n_whole; i++)
        if ((i > 0 && f->whole[i] < f->whole[i - 1]) || (uint32_t)f->whole[i] > r->n_prompt)
            return err_set(e, ERR_BAD_INPUT,
                           "refine.whole[%u] must not be below the one before, nor above %u", i,
                           r->n_prompt);
    return 0;
}

static int take_refine(struct request_parts *p, struct err *e)
{
    struct wire_refine *f = &p->request.refine;
    int code = json_object_read(p->refine, "refine.", refine_fields,
                                sizeof refine_fields / sizeof *refine_fields, true, p, e);
    if (!code)
        code = take_ids(p->refine_messages, "refine.messages", "a position", &f->messages,
                        &f->n_messages, e);
    if (!code)
        code = take_ids(p->refine_whole, "refine.whole", "a position", &f->whole, &f->n_whole, e);
    return code ? code : check_refine(&p->request, e);
}

static int take_sampling(struct request_parts *p, struct err *e)
{
    int code = json_object_read(p->sampling, "sampling.", sampling_fields,
                                sizeof sampling_fields / sizeof *sampling_fields, true, p, e);
    if (code || !p->biases) return code;
    return logit_bias_take(p->biases, "sampling.logit_bias", &p->request.sampling, e);
}

static int take_parts(struct request_parts *p, struct err *e)
{
    struct wire_request *r = &p->request;
    int code = 0;
    if (!p->prompt == !p->messages)
        return err_set(e, ERR_BAD_INPUT,
                       "give exactly one of prompt (token ids) and messages, not %s",
                       p->prompt ? "both" : "none");
    if (p->hashes) code = json_object_read(p->hashes, "hashes.", hash_fields, 3, true, r, e);
    if (!code && p->sampling) code = take_sampling(p, e);
    if (!code) code = take_ids(p->prompt, "prompt", "a token id", &r->prompt, &r->n_prompt, e);
    if (!code) code = take_ids(p->have, "have", "a token id", &r->have, &r->n_have, e);
    if (!code && p->messages) code = take_messages(p->messages, r, e);
    if (!code && r->answered > r->n_prompt)
        code = err_set(e, ERR_BAD_INPUT, "answered is %u, above the %u tokens of prompt",
                       r->answered, r->n_prompt);
    if (!code && p->refine) code = take_refine(p, e);
    return code;
}

int wire_request_decode(const char *json, size_t n, struct wire_request *r, struct err *e)
{
    json_t *root;
    int code = json_object_parse(json, n, "the request", &root, e);
    if (code) return code;
    struct request_parts parts = {.hashes = NULL};
    wire_request_init(&parts.request);
    code = json_object_read(root, "", request_fields,
                            sizeof request_fields / sizeof *request_fields, true, &parts, e);
    if (!code) code = take_parts(&parts, e);
    json_decref(root);
    if (code)
        wire_request_release(&parts.request);
    else
        *r = parts.request;
    return code;
}

int wire_patch_encode(uint32_t tokens_max, struct buf *out, struct err *e)
{
    int code = buf_printf(out, "{\"tokens_max\":%u}", tokens_max);
    return code ? err_set(e, code, "no room for the request") : 0;
}

int wire_patch_decode(const char *json, size_t n, uint32_t *ret_tokens_max, struct err *e)
{
    static const struct json_field field = {
        "tokens_max", JSON_FIELD_U32, true, 1, WIRE_TOKENS_MAX, 0, 0, 0};
    json_t *root;
    uint32_t tokens_max = 0;
    int code = json_object_parse(json, n, "the request", &root, e);
    if (code) return code;
    code = json_object_read(root, "", &field, 1, true, &tokens_max, e);
    json_decref(root);
    if (!code) *ret_tokens_max = tokens_max;
    return code;
}

static const char *error_type(int status)
{
    if (status == 401 || status == 403) return "authentication_error";
    if (status == 429) return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

void wire_name_set(char ret_name[WIRE_NAME_MAX], const char *name)
{
    size_t n = 0;
    for (; name[n] && n + 1 < WIRE_NAME_MAX; n++) {
        char c = name[n];
        ret_name[n] = c > 32 && c < 127 && c != '"' && c != '\\' ? c : '-';
    }
    ret_name[n] = 0;
}

int wire_error_body(int status, const char *code, const char *message, const char *param,
                    struct buf *out)
{
    buf_puts(out, "{\"error\":{\"message\":");
    /* A sentence that was cut at its maximum may end inside a character. */
    json_put_string(out, message, utf8_valid_prefix(message, strlen(message)));
    buf_printf(out, ",\"type\":\"%s\",\"param\":", error_type(status));
    json_put_text(out, param);
    buf_puts(out, ",\"code\":");
    json_put_text(out, code);
    return buf_puts(out, "}}");
}

static void copy_printable(const char *text, size_t n, char *out, size_t size)
{
    size_t len = utf8_valid_prefix(text, n < size - 1 ? n : size - 1);
    memcpy(out, text, len);
    utf8_blank_controls(out, len);
    out[len] = 0;
}

void wire_error_text(const char *body, size_t n, char *out, size_t size)
{
    if (size == 0) return;
    json_t *root = json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *message = json_object_get(json_object_get(root, "error"), "message");
    if (json_is_string(message))
        copy_printable(json_string_value(message), json_string_length(message), out, size);
    else
        copy_printable(body, n < ERROR_BODY_SHOWN ? n : ERROR_BODY_SHOWN, out, size);
    json_decref(root);
}

bool wire_error_is(const char *body, size_t n, const char *name)
{
    json_t *root = json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *error = json_object_get(root, "error");
    bool is = json_text_is(json_object_get(error, "code"), name) ||
              json_text_is(json_object_get(error, "type"), name);
    json_decref(root);
    return is;
}
