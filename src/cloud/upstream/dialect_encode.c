/* dialect_encode: models and requests of upstream servers; see dialect.h. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cloud/upstream/dialect_impl.h"
#include "proto/json.h"

static const char *const names[DIALECTS] = {"pdd", "llama", "vllm", "sglang", "openai"};
/* How each calls itself: "owned_by" of /v1/models. */
static const char *const owners[DIALECTS] = {"pdd", "llamacpp", "vllm", "sglang", NULL};

const char *dialect_name(enum dialect d)
{
    return names[d];
}

/* ---- what it has ---- */

static void copy(const json_t *value, char *out, size_t size)
{
    if (json_is_string(value)) snprintf(out, size, "%s", json_string_value(value));
}

/* What we tell on in JSON as it stands: what would need escapes there is none. */
void dialect_copy_word(const json_t *value, char *out, size_t size)
{
    copy(value, out, size);
    for (const char *c = out; *c; c++)
        if (*c <= 32 || *c > 126 || *c == '"' || *c == '\\') {
            out[0] = 0;
            return;
        }
}

static enum dialect dialect_of(const char *owner)
{
    for (int d = 0; d < DIALECTS; d++)
        if (owners[d] && owner && strcmp(owner, owners[d]) == 0) return (enum dialect)d;
    return DIALECT_OPENAI;
}

static void read_model(const json_t *m, struct dialect_model *out)
{
    const json_t *meta = json_object_get(m, "meta"), *hashes = json_object_get(m, "hashes");
    const json_t *contexts[] = {json_object_get(m, "context_length"),
                                json_object_get(m, "max_model_len"),
                                json_object_get(meta, "n_ctx")};
    *out = (struct dialect_model){
        .dialect = dialect_of(json_string_value(json_object_get(m, "owned_by")))};
    copy(json_object_get(m, "id"), out->name, sizeof out->name);
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        json_int_t context = json_integer_value(contexts[i]);
        if (out->context == 0 && context > 0 && context < INT32_MAX)
            out->context = (uint32_t)context;
    }
    if (out->dialect != DIALECT_PDD) return;
    dialect_copy_word(json_object_get(hashes, "weights"), out->weights, sizeof out->weights);
    dialect_copy_word(json_object_get(hashes, "tokenizer"), out->tokenizer, sizeof out->tokenizer);
    dialect_copy_word(json_object_get(hashes, "template"), out->chat_template,
                      sizeof out->chat_template);
    dialect_copy_word(json_object_get(m, "numerics"), out->numerics, sizeof out->numerics);
}

int dialect_decode_models(const char *json, size_t n, const char *wanted,
                          struct dialect_model *ret_model, struct err *e)
{
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *data = json_object_get(root, "data");
    int code = ERR_NOT_FOUND;
    if (!json_is_array(data))
        code = err_set(e, ERR_PROTOCOL, "its /v1/models is no list of models");
    for (size_t i = 0; code == ERR_NOT_FOUND && i < json_array_size(data); i++) {
        const json_t *m = json_array_get(data, i);
        const char *id = json_string_value(json_object_get(m, "id"));
        if (!id || strlen(id) >= DIALECT_MODEL_MAX || (wanted[0] && strcmp(id, wanted) != 0))
            continue;
        read_model(m, ret_model);
        code = 0;
    }
    if (code == ERR_NOT_FOUND)
        err_set(e, code, wanted[0] ? "it has no model %s" : "it has no model%s", wanted);
    json_decref(root);
    return code;
}

bool dialect_vllm_gives_ids(const char *json, size_t n)
{
    json_t *root = json_loadb(json, n, 0, NULL);
    const char *text = json_string_value(json_object_get(root, "version"));
    unsigned v[3] = {0, 0, 0};
    int parts = text ? sscanf(text, "%u.%u.%u", &v[0], &v[1], &v[2]) : 0;
    json_decref(root);
    if (parts < 2) return true; /* a gateway, or a build of one's own: the stream will show */
    return v[0] > 0 || v[1] > 10 || (v[1] == 10 && v[2] >= 2);
}

/* ---- what it is asked ---- */

bool dialect_by_ids(const struct dialect_request *q)
{
    enum dialect d = q->model->dialect;
    if (q->asked && q->asked->passed) return false;
    return d == DIALECT_PDD || (q->tokens && d != DIALECT_OPENAI);
}

static void put_text(struct buf *out, const char *name, const char *text, size_t n)
{
    buf_puts(out, name);
    json_put_string(out, text, n);
}

static void put_tokens(struct buf *out, const char *name, const struct dialect_request *q)
{
    const struct wire_json *made = q->asked ? &q->asked->tokens_json : NULL;
    buf_puts(out, name);
    buf_putc(out, '[');
    if (made && made->text)
        buf_append(out, made->text, made->len);
    else
        json_put_ids(out, q->tokens, q->n_tokens);
    buf_putc(out, ']');
}

static void put_float(struct buf *out, const char *name, float value)
{
    buf_puts(out, name);
    json_put_float(out, value);
}

/* Named by each field as it is called there; NULL: not known there. All that has a name is sent,
 * because a server's defaults are not ours. */
struct sampling_names {
    const char *top_k, *min_p, *penalty, *repeat_last, *seed;
    bool top_k_all_is_minus; /* how "all" is said: -1, or 0 */
    bool only_set;           /* what is off is left out: the server may know none of them */
    const char *min_tokens, *ignore_eos; /* sent while they are on, as the penalties and biases */
};

static const struct sampling_names sampling_names[DIALECTS] = {
    [DIALECT_PDD] = {"top_k", "min_p", "repetition_penalty", "repeat_last_n", "seed", true, true,
                     "min_tokens", "ignore_eos"},
    [DIALECT_LLAMA] = {"top_k", "min_p", "repeat_penalty", "repeat_last_n", "seed", false, false,
                       NULL, "ignore_eos"},
    [DIALECT_VLLM] = {"top_k", "min_p", "repetition_penalty", NULL, "seed", true, false,
                      "min_tokens", "ignore_eos"},
    [DIALECT_SGLANG] = {"top_k", "min_p", "repetition_penalty", NULL, NULL, true, false,
                        "min_new_tokens", "ignore_eos"},
    [DIALECT_OPENAI] = {"top_k", "min_p", "repetition_penalty", NULL, "seed", true, true, NULL,
                        NULL}};

static void put_biases(struct buf *out, const struct sampling *s)
{
    buf_puts(out, ",\"logit_bias\":{");
    for (uint32_t i = 0; i < s->n_biases; i++) {
        buf_printf(out, "%s\"%d\":", i ? "," : "", s->biases[i].id);
        json_put_float(out, s->biases[i].bias);
    }
    buf_putc(out, '}');
}

/* Penalties, biases and the ban of end tokens, all off by themselves everywhere. */
static void put_changes(struct buf *out, enum dialect d, const struct sampling *s)
{
    const struct sampling_names *n = &sampling_names[d];
    if (s->frequency_penalty != 0.0f)
        put_float(out, ",\"frequency_penalty\":", s->frequency_penalty);
    if (s->presence_penalty != 0.0f) put_float(out, ",\"presence_penalty\":", s->presence_penalty);
    if (s->n_biases) put_biases(out, s);
    if (s->min_tokens && n->min_tokens) buf_printf(out, ",\"%s\":%u", n->min_tokens, s->min_tokens);
    if (s->ignore_eos && n->ignore_eos) buf_printf(out, ",\"%s\":true", n->ignore_eos);
}

/* What is on and has no name there would be dropped in silence. */
static int check_sampling(enum dialect d, const struct sampling *s, struct err *e)
{
    const struct sampling_names *n = &sampling_names[d];
    const char *field = s->min_tokens && !n->min_tokens   ? "min_tokens"
                        : s->ignore_eos && !n->ignore_eos ? "ignore_eos"
                                                          : NULL;
    if (!field) return 0;
    return err_set(e, ERR_BAD_INPUT, "%s: an upstream server of kind %s does not know it", field,
                   names[d]);
}

void dialect_put_sampling(struct buf *out, enum dialect d, const struct sampling *s, bool seeded,
                          uint32_t without)
{
    const struct sampling_names *n = &sampling_names[d];
    bool penalty = s->repeat_penalty < 1.0f || s->repeat_penalty > 1.0f;
    bool top_k = (!n->only_set || s->top_k) && !(without & DIALECT_NO_TOP_K);
    if (!(without & DIALECT_NO_TEMPERATURE)) put_float(out, ",\"temperature\":", s->temperature);
    if ((!n->only_set || s->top_p < 1.0f) && !(without & DIALECT_NO_TOP_P))
        put_float(out, ",\"top_p\":", s->top_p);
    if (top_k && s->top_k == 0 && n->top_k_all_is_minus)
        buf_printf(out, ",\"%s\":-1", n->top_k);
    else if (top_k)
        buf_printf(out, ",\"%s\":%u", n->top_k, s->top_k);
    if ((!n->only_set || s->min_p > 0.0f) && !(without & DIALECT_NO_MIN_P)) {
        buf_printf(out, ",\"%s\":", n->min_p);
        json_put_float(out, s->min_p);
    }
    if ((!n->only_set || penalty) && !(without & DIALECT_NO_PENALTY)) {
        buf_printf(out, ",\"%s\":", n->penalty);
        json_put_float(out, s->repeat_penalty);
    }
    if (n->repeat_last) buf_printf(out, ",\"%s\":%u", n->repeat_last, s->repeat_last);
    /* llama-server takes 32 bits of it */
    uint64_t seed_bits = d == DIALECT_PDD ? INT64_MAX : INT32_MAX;
    if (n->seed && seeded && s->temperature > 0.0f && !(without & DIALECT_NO_SEED)) {
        buf_printf(out, ",\"%s\":", n->seed);
        json_put_u64(out, s->seed & seed_bits);
    }
    put_changes(out, d, s);
}

static void put_messages(struct buf *out, const struct wire_request *q)
{
    const struct wire_json *made = &q->messages_json;
    buf_puts(out, "\"messages\":");
    if (made->text) {
        buf_append(out, made->text, made->len);
        return;
    }
    buf_putc(out, '[');
    for (uint32_t i = 0; i < q->n_messages; i++) {
        const struct wire_message *m = &q->messages[i];
        put_text(out, i ? ",{\"role\":" : "{\"role\":", m->role, strlen(m->role));
        put_text(out, ",\"content\":", m->content, m->content_len);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

static void put_chat(struct buf *out, const struct dialect_request *q)
{
    enum dialect d = q->model->dialect;
    put_text(out, "{\"model\":", q->model->name, strlen(q->model->name));
    buf_puts(out, ",\"stream\":true,");
    if (!(q->without & DIALECT_NO_STREAM_OPTIONS))
        buf_puts(out, "\"stream_options\":{\"include_usage\":true},");
    if (q->asked->tokens_max <
        WIRE_TOKENS_MAX) /* else as many as fit; more than ours are cut off */
        buf_printf(out, "\"%s\":%u,",
                   q->without & DIALECT_NO_MAX_TOKENS ? "max_completion_tokens" : "max_tokens",
                   q->tokens_max);
    if (d == DIALECT_LLAMA) buf_puts(out, "\"return_progress\":true,");
    put_messages(out, q->asked);
    dialect_put_sampling(out, d, &q->sampling, true, q->without);
}

static void put_llama(struct buf *out, const struct dialect_request *q)
{
    put_text(out, "{\"model\":", q->model->name, strlen(q->model->name));
    buf_printf(out,
               ",\"stream\":true,\"return_tokens\":true,\"return_progress\":true,"
               "\"n_predict\":%u",
               q->tokens_max);
    dialect_put_sampling(out, DIALECT_LLAMA, &q->sampling, true, 0);
    put_tokens(out, ",\"prompt\":", q);
}

static void put_vllm(struct buf *out, const struct dialect_request *q)
{
    put_text(out, "{\"model\":", q->model->name, strlen(q->model->name));
    buf_printf(out,
               ",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
               "\"return_token_ids\":true,\"max_tokens\":%u",
               q->tokens_max);
    dialect_put_sampling(out, DIALECT_VLLM, &q->sampling, true, 0);
    put_tokens(out, ",\"prompt\":", q);
}

static void put_sglang(struct buf *out, const struct dialect_request *q)
{
    buf_printf(out, "{\"stream\":true,\"sampling_params\":{\"max_new_tokens\":%u", q->tokens_max);
    dialect_put_sampling(out, DIALECT_SGLANG, &q->sampling, true, 0);
    put_tokens(out, "},\"input_ids\":", q);
}

/* Another of our kind: the request goes on as it came, but for the model's name there. */
static int encode_pdd(const struct dialect_request *q, struct buf *body, struct err *e)
{
    struct wire_request r = *q->asked;
    if (strlen(q->model->name) >= sizeof r.model)
        return err_set(e, ERR_LIMIT, "the model's upstream name is too long");
    snprintf(r.model, sizeof r.model, "%s", q->model->name);
    r.sampling = q->sampling;
    r.tokens_max = q->tokens_max;
    r.deadline_ms = q->deadline_ms;
    if (!r.prompt && !r.messages) { /* a text that we tokenised: our tokens are theirs */
        r.prompt = (int32_t *)(uintptr_t)q->tokens;
        r.n_prompt = q->n_tokens - q->n_have;
        if (q->n_have == 0) r.prompt_json = q->asked->tokens_json;
    }
    if (r.prompt && !r.tokenizer[0]) /* of a device that names its own, or of OpenAI's client */
        snprintf(r.tokenizer, sizeof r.tokenizer, "%s", q->model->tokenizer);
    return wire_request_encode(&r, body, e);
}

static int check_messages(const struct dialect_request *q, struct err *e)
{
    const char *kind = names[q->model->dialect];
    bool vocab = q->model->dialect != DIALECT_OPENAI;
    if (!q->asked->messages)
        return err_set(e, ERR_BAD_INPUT,
                       "prompt: an upstream server of kind %s takes messages only%s", kind,
                       vocab ? ", unless --upstream-vocab is given" : "");
    if (q->n_have)
        return err_set(
            e, ERR_BAD_INPUT,
            "have: an upstream server of kind %s cannot go on with an answer that was cut%s", kind,
            vocab ? ", unless --upstream-vocab is given" : "");
    return 0;
}

int dialect_encode(struct dialect_request *q, const char **ret_path, struct buf *body,
                   struct err *e)
{
    static const char *const paths[DIALECTS] = {"/v1/assist", "/completion", "/v1/completions",
                                                "/generate", NULL};
    enum dialect d = q->model->dialect;
    bool by_ids = dialect_by_ids(q);
    if (q->asked && q->asked->passed) return dialect_pass_encode(q, ret_path, body, e);
    int code = by_ids ? 0 : check_messages(q, e);
    if (code) return code;
    *ret_path = by_ids ? paths[d] : "/v1/chat/completions";
    if (d == DIALECT_PDD) return encode_pdd(q, body, e);
    code = check_sampling(d, &q->sampling, e);
    if (code) return code;
    if (!by_ids)
        put_chat(body, q);
    else if (d == DIALECT_LLAMA)
        put_llama(body, q);
    else if (d == DIALECT_VLLM)
        put_vllm(body, q);
    else
        put_sglang(body, q);
    code = buf_putc(body, '}');
    return code ? err_set(e, code, "the request is too large to forward, or its text is not UTF-8")
                : 0;
}
