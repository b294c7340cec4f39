/* openai_request: the bodies of /v1/chat/completions and /v1/completions; see openai.h. */
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "proto/logit_bias.h"
#include "proto/openai_fields.h"
#include "proto/openai_impl.h"

enum {
    ROLE_MAX = 32,       /* bytes */
    TOP_K_MAX = 1 << 24, /* more than any vocabulary */
    PARTS_MAX = 1024,    /* of one message */
    REPEAT_LAST_MAX = 1 << 20
};

/* Every integer up to here is a double, and no other number reads the same. */
#define WHOLE_MAX 9007199254740992.0

void openai_param_set(char *ret_param, const char *name)
{
    snprintf(ret_param, OPENAI_PARAM_MAX, "%s", name);
}

/* The integer that a number without a fraction is; NULL: it has one, or is none. */
static json_t *whole_of(const json_t *value)
{
    double x = json_real_value(value);
    if (!json_is_real(value) || x < -WHOLE_MAX || x > WHOLE_MAX) return NULL;
    return x < (double)(json_int_t)x || x > (double)(json_int_t)x ? NULL
                                                                  : json_integer((json_int_t)x);
}

static int make_array_whole(json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_t *whole = whole_of(json_array_get(array, i));
        if (whole && json_array_set_new(array, i, whole)) return ERR_NO_MEMORY;
    }
    return 0;
}

/* JSON has one kind of number, and many clients write 40.0 for 40: where we look for an integer it
 * is one. Deeper objects stay: a template may read them, and 1.0 is another text than 1 there. */
static int make_whole(json_t *root)
{
    const char *name;
    json_t *value;
    int code = 0;
    json_object_foreach(root, name, value)
    {
        json_t *whole = whole_of(value);
        if (whole && json_object_set_new(root, name, whole)) return ERR_NO_MEMORY;
        if (whole) continue;
        if (!code) code = make_array_whole(value);
        for (size_t i = 0; i < json_array_size(value) && !code; i++)
            code = make_array_whole(json_array_get(value, i));
    }
    return code;
}

int openai_object_parse(const char *json, size_t n, struct json_t **ret_object, struct err *e)
{
    int code = json_object_parse_wide(json, n, "the request", ret_object, e);
    if (code) return code;
    const char *name;
    json_t *value;
    void *next;
    json_object_foreach_safe(*ret_object, next, name, value)
    {
        if (json_is_null(value)) json_object_del(*ret_object, name);
    }
    code = make_whole(*ret_object);
    if (!code) return 0;
    json_decref(*ret_object);
    *ret_object = NULL;
    return err_set(e, code, "no memory for a request");
}

int openai_fields_read(struct json_t *object, const struct json_field *fields, size_t n, void *out,
                       char *ret_param, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        int code = json_object_read(object, "", &fields[i], 1, false, out, e);
        if (!code) continue;
        openai_param_set(ret_param, fields[i].name);
        return code;
    }
    return 0;
}

int openai_text_take(const struct json_t *string, char **ret_text, size_t *ret_len, struct err *e)
{
    size_t n = json_string_length(string);
    char *text = mem_alloc(n + 1);
    if (!text) return err_set(e, ERR_NO_MEMORY, "no memory for a text of %zu bytes", n);
    memcpy(text, json_string_value(string), n + 1);
    *ret_text = text;
    *ret_len = n;
    return 0;
}

int openai_ids_take(const struct json_t *array, const char *name, int32_t **ret_ids,
                    uint32_t *ret_n, struct err *e)
{
    size_t n = json_array_size(array);
    if (n > WIRE_PROMPT_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s must have at most %d token ids", name,
                       WIRE_PROMPT_MAX);
    int32_t *ids = n ? mem_alloc(n * sizeof *ids) : NULL;
    if (n && !ids) return err_set(e, ERR_NO_MEMORY, "no memory for %zu token ids of %s", n, name);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        json_int_t v = json_integer_value(value);
        if (!json_is_integer(value) || v < 0 || v > INT32_MAX) {
            mem_free(ids);
            return err_set(e, ERR_BAD_INPUT, "%s[%zu] must be a token id (0 to %d)", name, i,
                           INT32_MAX);
        }
        ids[i] = (int32_t)v;
    }
    *ret_ids = ids;
    *ret_n = (uint32_t)n;
    return 0;
}

bool openai_is_neutral(const struct json_t *value, enum openai_neutral neutral)
{
    double number = json_is_number(value) ? json_number_value(value) : -1.0;
    switch (neutral) {
    case OPENAI_NEUTRAL_ZERO:
        return number >= 0.0 && number <= 0.0;
    case OPENAI_NEUTRAL_OFF:
        return json_is_number(value) && number <= 0.0;
    case OPENAI_NEUTRAL_ONE:
        return number >= 1.0 && number <= 1.0;
    case OPENAI_NEUTRAL_FALSE:
        return json_is_false(value);
    case OPENAI_NEUTRAL_TRUE:
        return json_is_true(value);
    case OPENAI_NEUTRAL_EMPTY:
        return json_is_object(value)  ? json_object_size(value) == 0
               : json_is_array(value) ? json_array_size(value) == 0
                                      : json_is_string(value) && json_string_length(value) == 0;
    case OPENAI_NEUTRAL_TEXT_TYPE:
        return json_text_is(json_object_get(value, "type"), "text");
    case OPENAI_NEUTRAL_NO_CALL:
        return json_text_is(value, "none") || json_text_is(value, "auto");
    case OPENAI_NEUTRAL_TEXT_ALONE:
        return json_array_size(value) == 1 && json_text_is(json_array_get(value, 0), "text");
    case OPENAI_NEUTRAL_NOTHING:
        break;
    }
    return false;
}

/* A part is a text, or of a type that has one: what an answer was refused with is its text. */
static const json_t *text_of_part(const json_t *part)
{
    static const char *const types[][2] = {
        {"text", "text"}, {"input_text", "text"}, {"output_text", "text"}, {"refusal", "refusal"}};
    if (json_is_string(part)) return part;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (json_text_is(json_object_get(part, "type"), types[i][0]))
            return json_object_get(part, types[i][1]);
    return NULL;
}

/* The text of an array of parts, a line break between two. */
static int join_parts(const json_t *parts, size_t at, char **ret_text, size_t *ret_len,
                      struct err *e)
{
    size_t n = json_array_size(parts);
    struct buf text;
    buf_init(&text, WIRE_BODY_MAX);
    int code = n <= PARTS_MAX
                   ? 0
                   : err_set(e, ERR_BAD_INPUT, "messages[%zu].content must have at most %d parts",
                             at, PARTS_MAX);
    for (size_t i = 0; i < n && !code; i++) {
        const json_t *t = text_of_part(json_array_get(parts, i));
        if (!json_is_string(t))
            code = err_set(e, ERR_UNSUPPORTED,
                           "messages[%zu].content[%zu]: only parts of type text, with a text, are "
                           "served",
                           at, i);
        else if ((i && buf_putc(&text, '\n')) ||
                 buf_append(&text, json_string_value(t), json_string_length(t)))
            code = err_set(e, ERR_NO_MEMORY, "no memory for a message");
    }
    *ret_len = text.len;
    if (!code && !(*ret_text = buf_steal(&text)))
        code = err_set(e, ERR_NO_MEMORY, "no memory for a message");
    buf_release(&text);
    return code;
}

static int take_content(const json_t *message, size_t at, struct wire_message *m, struct err *e)
{
    const json_t *content = json_object_get(message, "content");
    if (json_is_string(content)) return openai_text_take(content, &m->content, &m->content_len, e);
    if (json_is_array(content)) return join_parts(content, at, &m->content, &m->content_len, e);
    if ((!content || json_is_null(content)) && strcmp(m->role, "assistant") == 0) {
        m->content = mem_strdup(""); /* an answer that was a call or a refusal */
        return m->content ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for a message");
    }
    return err_set(e, ERR_BAD_INPUT,
                   "messages[%zu].content must be a string, or an array of text parts", at);
}

static int take_message(const json_t *message, size_t at, struct wire_message *m, struct err *e)
{
    static const char *const calls[] = {"function_call", "audio"};
    const json_t *role = json_object_get(message, "role");
    size_t n = json_string_length(role);
    if (!json_is_string(role) || n == 0 || n >= ROLE_MAX || strlen(json_string_value(role)) != n)
        return err_set(e, ERR_BAD_INPUT,
                       "messages[%zu].role must be system, developer, user, assistant or tool", at);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        const json_t *value = json_object_get(message, calls[i]);
        if (value && !json_is_null(value) && !openai_is_neutral(value, OPENAI_NEUTRAL_EMPTY))
            return err_set(e, ERR_UNSUPPORTED, "messages[%zu].%s is not supported here", at,
                           calls[i]);
    }
    m->role = mem_strdup(json_text_is(role, "developer") ? "system" : json_string_value(role));
    if (!m->role) return err_set(e, ERR_NO_MEMORY, "no memory for a message");
    return take_content(message, at, m, e);
}

static int take_messages(const json_t *array, struct wire_request *r, struct err *e)
{
    size_t n = json_array_size(array);
    r->messages = mem_calloc(n, sizeof *r->messages);
    if (!r->messages) return err_set(e, ERR_NO_MEMORY, "no memory for %zu messages", n);
    r->n_messages = (uint32_t)n;
    r->extras = mem_calloc(n, sizeof *r->extras);
    if (!r->extras) return err_set(e, ERR_NO_MEMORY, "no memory for %zu messages", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(array, i);
        int code = json_is_object(message)
                       ? take_message(message, i, &r->messages[i], e)
                       : err_set(e, ERR_BAD_INPUT, "messages[%zu] must be an object", i);
        if (!code) code = openai_extra_take(message, i, &r->extras[i], e);
        if (code) return code;
    }
    return 0;
}

static int take_one_prompt(const json_t *prompt, struct openai_prompt *p, struct err *e)
{
    if (json_is_string(prompt)) return openai_text_take(prompt, &p->text, &p->text_len, e);
    if (json_array_size(prompt) == 0)
        return err_set(e, ERR_BAD_INPUT, "prompt must be a string or an array of token ids");
    return openai_ids_take(prompt, "prompt", &p->ids, &p->n_ids, e);
}

/* A text, token ids, or an array of these. */
static int take_prompt(const json_t *prompt, struct openai_request *r, struct err *e)
{
    const json_t *first = json_array_get(prompt, 0);
    struct openai_prompt p = {.text = NULL};
    bool many = json_is_string(first) || json_is_array(first);
    size_t n = many ? json_array_size(prompt) : 1;
    if (n > OPENAI_CHOICES_MAX)
        return err_set(e, ERR_BAD_INPUT, "prompt may have %d prompts at most", OPENAI_CHOICES_MAX);
    int code = take_one_prompt(many ? first : prompt, &p, e);
    r->text = p.text;
    r->text_len = p.text_len;
    r->ask.prompt = p.ids;
    r->ask.n_prompt = p.n_ids;
    if (code || n == 1) return code;
    r->more = mem_calloc(n - 1, sizeof *r->more);
    if (!r->more) return err_set(e, ERR_NO_MEMORY, "no memory for %zu prompts", n);
    for (; r->n_more + 1 < n && !code; r->n_more++)
        code = take_one_prompt(json_array_get(prompt, r->n_more + 1), &r->more[r->n_more], e);
    return code;
}

static int take_n(const json_t *value, struct openai_request *r, struct err *e)
{
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 1 || n > OPENAI_CHOICES_MAX)
        return err_set(e, ERR_BAD_INPUT, "n must be an integer from 1 to %d", OPENAI_CHOICES_MAX);
    r->n = (uint32_t)n;
    if (openai_request_choices(r) > OPENAI_CHOICES_MAX)
        return err_set(e, ERR_BAD_INPUT, "n answers to each of %u prompts are more than %d",
                       1 + r->n_more, OPENAI_CHOICES_MAX);
    return 0;
}

/* More answers than are returned are not made. */
static int take_best_of(const json_t *value, struct openai_request *r, struct err *e)
{
    if (json_is_integer(value) && json_integer_value(value) == (json_int_t)r->n) return 0;
    return err_set(e, ERR_UNSUPPORTED, "best_of is served as the same number as n only");
}

static int take_echo(const json_t *echo, struct openai_request *r, struct err *e)
{
    if (!json_is_boolean(echo)) return err_set(e, ERR_BAD_INPUT, "echo must be true or false");
    r->echo = json_is_true(echo);
    if (r->echo && r->logprobs)
        return err_set(e, ERR_UNSUPPORTED,
                       "echo: the prompt's tokens have no log-probabilities here: leave out "
                       "logprobs or echo");
    return 0;
}

static int take_stop(const json_t *text, struct openai_request *r, struct err *e)
{
    size_t n = json_string_length(text), all = n;
    if ((json_is_string(text) && n == 0) || json_is_null(text)) return 0; /* a form's "none" */
    if (!json_is_string(text) || n > OPENAI_STOP_BYTES_MAX)
        return err_set(e, ERR_BAD_INPUT, "stop: a stop string must be a text of at most %d bytes",
                       OPENAI_STOP_BYTES_MAX);
    for (uint32_t i = 0; i < r->n_stops; i++)
        all += r->stops[i].len;
    if (r->n_stops == OPENAI_STOPS_MAX || all > OPENAI_STOPS_BYTES_MAX)
        return err_set(e, ERR_BAD_INPUT, "stop: at most %d stop strings of together %d bytes",
                       OPENAI_STOPS_MAX, OPENAI_STOPS_BYTES_MAX);
    struct openai_stop *stop = &r->stops[r->n_stops];
    int code = openai_text_take(text, &stop->text, &stop->len, e);
    if (!code) r->n_stops++;
    return code;
}

static int take_stops(const json_t *stop, struct openai_request *r, struct err *e)
{
    if (!json_is_array(stop)) return take_stop(stop, r, e);
    int code = 0;
    for (size_t i = 0; i < json_array_size(stop) && !code; i++)
        code = take_stop(json_array_get(stop, i), r, e);
    return code;
}

/* Seeds of OpenAI's clients may be negative; ours are not: the sign bit is dropped. */
static int take_seed(const json_t *seed, struct openai_request *r, struct err *e)
{
    double wide = json_real_value(seed); /* an integer above 2^53, as whole numbers go */
    bool whole = json_is_real(seed) && (wide >= WHOLE_MAX || wide <= -WHOLE_MAX);
    if (!json_is_integer(seed) && !whole)
        return err_set(e, ERR_BAD_INPUT, "seed must be an integer");
    r->ask.sampling.seed =
        whole ? (uint64_t)fmod(fabs(wide), 0x1p63) : (uint64_t)json_integer_value(seed) & INT64_MAX;
    r->seeded = true;
    return 0;
}

static int take_top_p(const json_t *top_p, struct openai_request *r, struct err *e)
{
    double p = json_number_value(top_p);
    if (!json_is_number(top_p) || !(p >= 0.0 && p <= 1.0))
        return err_set(e, ERR_BAD_INPUT, "top_p must be a number from 0 to 1");
    r->ask.sampling.top_p = (float)p < FLT_MIN ? FLT_MIN : (float)p; /* 0: the likeliest alone */
    return 0;
}

static int take_top_k(const json_t *top_k, struct openai_request *r, struct err *e)
{
    json_int_t k = json_integer_value(top_k);
    if (!json_is_integer(top_k) || k < -1 || k > TOP_K_MAX)
        return err_set(e, ERR_BAD_INPUT, "top_k must be an integer from -1 to %d", TOP_K_MAX);
    r->ask.sampling.top_k = k > 0 ? (uint32_t)k : 0;
    return 0;
}

/* -1: all of the history. */
static int take_repeat_last(const json_t *last, struct openai_request *r, struct err *e)
{
    json_int_t n = json_integer_value(last);
    if (!json_is_integer(last) || n < -1 || n > REPEAT_LAST_MAX)
        return err_set(e, ERR_BAD_INPUT, "repeat_last_n must be an integer from -1 to %d",
                       REPEAT_LAST_MAX);
    r->ask.sampling.repeat_last = n < 0 ? REPEAT_LAST_MAX : (uint32_t)n;
    return 0;
}

/* A chat says yes or no and, apart, how many; a completion only how many. */
static int take_logprobs(const json_t *logprobs, struct openai_request *r, struct err *e)
{
    if (r->chat) {
        if (!json_is_boolean(logprobs))
            return err_set(e, ERR_BAD_INPUT, "logprobs must be true or false");
        r->logprobs = json_is_true(logprobs);
        return 0;
    }
    json_int_t n = json_integer_value(logprobs);
    if (json_is_false(logprobs)) return 0; /* as of a chat */
    if (!json_is_integer(logprobs) || n < 0 || n > OPENAI_TOP_COMPLETION_MAX)
        return err_set(e, ERR_BAD_INPUT, "logprobs must be an integer from 0 to %d",
                       OPENAI_TOP_COMPLETION_MAX);
    r->logprobs = true;
    r->top_logprobs = (uint32_t)n;
    return 0;
}

static int take_top_logprobs(const json_t *top, struct openai_request *r, struct err *e)
{
    json_int_t n = json_integer_value(top);
    if (!json_is_integer(top) || n < 0 || n > OPENAI_TOP_CHAT_MAX)
        return err_set(e, ERR_BAD_INPUT, "top_logprobs must be an integer from 0 to %d",
                       OPENAI_TOP_CHAT_MAX);
    if (!r->logprobs && n > 0)
        return err_set(e, ERR_BAD_INPUT, "top_logprobs needs logprobs to be true");
    r->top_logprobs = (uint32_t)n;
    return 0;
}

static int take_stream_options(const json_t *options, struct openai_request *r, struct err *e)
{
    const json_t *usage = json_object_get(options, "include_usage");
    if (!json_is_object(options) || (usage && !json_is_boolean(usage) && !json_is_null(usage)))
        return err_set(e, ERR_BAD_INPUT,
                       "stream_options must be an object, its include_usage true or false");
    if (!r->stream) return err_set(e, ERR_BAD_INPUT, "stream_options needs stream to be true");
    r->include_usage = json_is_true(usage);
    return 0;
}

/* OpenAI's two names, of which the newer one counts, and llama-server's. */
static int take_max_tokens(const json_t *max, struct openai_request *r, struct err *e)
{
    json_int_t n = json_integer_value(max);
    if (!json_is_integer(max) || n == 0 || n < -1)
        return err_set(e, ERR_BAD_INPUT,
                       "max_tokens, or max_completion_tokens, must be an integer of at least 1, or "
                       "-1 for as many as fit");
    if (n == -1) n = WIRE_TOKENS_MAX;
    r->ask.tokens_max = n < WIRE_TOKENS_MAX ? (uint32_t)n : WIRE_TOKENS_MAX;
    return 0;
}

static int take_logit_bias(const json_t *bias, struct openai_request *r, struct err *e)
{
    return logit_bias_take(bias, "logit_bias", &r->ask.sampling, e);
}

/* After the maximum, with which it is compared. */
static int take_min_tokens(const json_t *min, struct openai_request *r, struct err *e)
{
    json_int_t n = json_integer_value(min);
    if (!json_is_integer(min) || n < 0 || n > (json_int_t)r->ask.tokens_max)
        return err_set(e, ERR_BAD_INPUT,
                       "min_tokens must be an integer from 0 to max_tokens, which is %u",
                       r->ask.tokens_max);
    r->ask.sampling.min_tokens = (uint32_t)n;
    return 0;
}

/* llama-server's words. */
static int take_reasoning_format(const json_t *format, struct openai_request *r, struct err *e)
{
    bool none = json_text_is(format, "none");
    if (!none && !json_text_is(format, "auto") && !json_text_is(format, "deepseek"))
        return err_set(e, ERR_BAD_INPUT,
                       "reasoning_format must be \"auto\" or \"deepseek\" (thoughts are "
                       "reasoning_content), or \"none\" (they stay in the text)");
    r->thoughts_in_text = none;
    return 0;
}

/* SGLang's. */
static int take_separate_reasoning(const json_t *apart, struct openai_request *r, struct err *e)
{
    if (!json_is_boolean(apart))
        return err_set(e, ERR_BAD_INPUT, "separate_reasoning must be true or false");
    r->thoughts_in_text = json_is_false(apart);
    return 0;
}

/* What happens to a field, in the words of openai_fields.h. */
enum fate { FATE_PLAIN, FATE_TAKE, FATE_SEE, FATE_PASS, FATE_REFUSE, FATE_IGNORE };

struct field {
    const char *name;
    enum openai_where where;
    enum fate fate;
    int (*take)(const json_t *value, struct openai_request *r, struct err *e);
    struct json_field plain;
    enum openai_neutral neutral;
    const char *instead;
};

#define PLAIN(NAME, WHERE, TYPE, MAX, LOW, HIGH, MEMBER, NOTE)                                     \
    {.name = NAME,                                                                                 \
     .where = OPENAI_IN_##WHERE,                                                                   \
     .fate = FATE_PLAIN,                                                                           \
     .plain = {NAME, JSON_FIELD_##TYPE, false, 0, MAX, LOW, HIGH,                                  \
               offsetof(struct openai_request, MEMBER)}},
#define TAKE(NAME, WHERE, FUNCTION, NOTE)                                                          \
    {.name = NAME, .where = OPENAI_IN_##WHERE, .fate = FATE_TAKE, .take = FUNCTION},
#define SEE(NAME, WHERE, NOTE) {.name = NAME, .where = OPENAI_IN_##WHERE, .fate = FATE_SEE},
#define KEEP_OUT(NAME, WHERE, FATE, NEUTRAL, NOTE)                                                 \
    {.name = NAME,                                                                                 \
     .where = OPENAI_IN_##WHERE,                                                                   \
     .fate = FATE,                                                                                 \
     .neutral = OPENAI_NEUTRAL_##NEUTRAL,                                                          \
     .instead = NOTE},
#define PASS(NAME, WHERE, NEUTRAL, NOTE) KEEP_OUT(NAME, WHERE, FATE_PASS, NEUTRAL, NOTE)
#define REFUSE(NAME, WHERE, NEUTRAL, NOTE) KEEP_OUT(NAME, WHERE, FATE_REFUSE, NEUTRAL, NOTE)
#define IGNORE(NAME, WHERE, NOTE) {.name = NAME, .where = OPENAI_IN_##WHERE, .fate = FATE_IGNORE},

static const struct field all_fields[] = {OPENAI_FIELDS(PLAIN, TAKE, SEE, PASS, REFUSE, IGNORE)};

static int refuse_unserved(const struct field *f, const json_t *value, struct err *e)
{
    if (openai_is_neutral(value, f->neutral)) return 0;
    return err_set(e, ERR_UNSUPPORTED, "%s is not supported here: %s", f->name,
                   f->instead[0] ? f->instead : "leave it out");
}

/* The field if it is there, as its row says. */
static int take_field(json_t *root, const struct field *f, struct openai_request *r, struct err *e)
{
    const json_t *value = json_object_get(root, f->name);
    if (!value || !(f->where & (r->chat ? OPENAI_IN_CHAT : OPENAI_IN_COMPLETION))) return 0;
    switch (f->fate) {
    case FATE_PLAIN:
        return json_object_read(root, "", &f->plain, 1, false, r, e);
    case FATE_TAKE:
        return f->take(value, r, e);
    case FATE_PASS:
    case FATE_REFUSE:
        return refuse_unserved(f, value, e);
    case FATE_SEE:
    case FATE_IGNORE:
        break;
    }
    return 0;
}

static int take_all(json_t *root, struct openai_request *r, char *ret_param, struct err *e)
{
    static const struct json_field messages_field = {
        "messages", JSON_FIELD_ARRAY, true, 1, WIRE_MESSAGES_MAX, 0, 0, 0};
    json_t *messages = NULL;
    int code = 0;
    for (size_t i = 0; i < sizeof all_fields / sizeof *all_fields && !code; i++) {
        code = take_field(root, &all_fields[i], r, e);
        if (code) openai_param_set(ret_param, all_fields[i].name);
    }
    if (!code && r->chat) code = openai_arguments_take(root, &r->ask.arguments, ret_param, e);
    if (!code && (code = openai_tools_take(root, &r->ask.tools, e)) != 0)
        openai_param_set(ret_param, "tools");
    if (code) return code;
    openai_param_set(ret_param, r->chat ? "messages" : "prompt");
    if (r->chat) code = json_object_read(root, "", &messages_field, 1, false, &messages, e);
    if (messages && !code) code = take_messages(messages, &r->ask, e);
    if (!r->chat && !r->text && !r->ask.prompt)
        code = err_set(e, ERR_BAD_INPUT, "prompt is missing");
    return code;
}

int openai_request_decode(const char *json, size_t n, bool chat, struct openai_request *r,
                          char ret_param[OPENAI_PARAM_MAX], struct err *e)
{
    return openai_request_decode_pdd(json, n, chat, r, NULL, ret_param, e);
}

int openai_request_take(struct json_t *root, bool chat, struct openai_request *r,
                        struct openai_pdd *p, char *ret_param, struct err *e)
{
    struct openai_request q = {.chat = chat, .n = 1};
    ret_param[0] = 0;
    wire_request_init(&q.ask);
    q.ask.sampling.temperature = 1.0f;
    q.ask.tokens_max = chat ? WIRE_TOKENS_MAX : OPENAI_COMPLETION_TOKENS;
    int code = take_all(root, &q, ret_param, e);
    if (!code && p) {
        openai_pdd_init(p);
        code = openai_pdd_take(root, p, ret_param, e);
    }
    if (code) {
        openai_request_release(&q);
        return code;
    }
    ret_param[0] = 0;
    *r = q;
    return 0;
}

int openai_request_decode_pdd(const char *json, size_t n, bool chat, struct openai_request *r,
                              struct openai_pdd *p, char ret_param[OPENAI_PARAM_MAX], struct err *e)
{
    json_t *root;
    ret_param[0] = 0;
    int code = openai_object_parse(json, n, &root, e);
    if (code) return code;
    code = openai_request_take(root, chat, r, p, ret_param, e);
    json_decref(root);
    return code;
}

uint32_t openai_request_choices(const struct openai_request *r)
{
    return r->n * (1 + r->n_more);
}

struct openai_prompt openai_request_prompt(const struct openai_request *r, uint32_t i)
{
    if (i > 0) return r->more[i - 1];
    return (struct openai_prompt){r->text, r->text_len, r->ask.prompt, r->ask.n_prompt};
}

void openai_request_free_prompt(struct openai_request *r)
{
    wire_request_release(&r->ask);
    mem_free(r->text);
    for (uint32_t i = 0; i < r->n_more; i++) {
        mem_free(r->more[i].text);
        mem_free(r->more[i].ids);
    }
    mem_free(r->more);
    r->text = NULL;
    r->text_len = 0;
    r->more = NULL;
    r->n_more = 0;
}

void openai_request_release(struct openai_request *r)
{
    openai_request_free_prompt(r);
    for (uint32_t i = 0; i < r->n_stops; i++)
        mem_free(r->stops[i].text);
    *r = (struct openai_request){.chat = r->chat};
}
