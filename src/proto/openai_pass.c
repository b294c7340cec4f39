/* openai_pass: see openai_pass.h. */
#include "proto/openai_pass.h"

#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "proto/openai_impl.h"

/* What the table of all fields keeps out of our own engine. */
#define NONE(...)
#define PASS(NAME, WHERE, NEUTRAL, NOTE) {NAME, OPENAI_IN_##WHERE, OPENAI_NEUTRAL_##NEUTRAL, true},
#define REFUSE(NAME, WHERE, NEUTRAL, NOTE)                                                         \
    {NAME, OPENAI_IN_##WHERE, OPENAI_NEUTRAL_##NEUTRAL, false},
static const struct {
    const char *name;
    enum openai_where where;
    enum openai_neutral neutral;
    bool passes; /* else it is refused */
} kept_out[] = {OPENAI_FIELDS(NONE, NONE, NONE, PASS, REFUSE, NONE)};

/* Whether a field is a reason to pass a request on: always; unless tokenizer and template of ours
 * serve it; or never, as it means nothing without another one. */
enum reason { ALWAYS, BY_TEXT, NEVER };

/* Fields that our engine serves, or need not, and that jobs of other servers cannot carry. */
static const struct {
    const char *name;
    enum openai_where where;
    enum openai_neutral neutral;
    enum reason reason;
    const char *as; /* its name on the way; NULL: the same */
} others[] = {
    {"n", OPENAI_IN_BOTH, OPENAI_NEUTRAL_ONE, ALWAYS, NULL},
    {"best_of", OPENAI_IN_COMPLETION, OPENAI_NEUTRAL_ONE, ALWAYS, NULL},
    {"echo", OPENAI_IN_COMPLETION, OPENAI_NEUTRAL_FALSE, ALWAYS, NULL},
    {"logprobs", OPENAI_IN_CHAT, OPENAI_NEUTRAL_FALSE, ALWAYS, NULL},
    {"logprobs", OPENAI_IN_COMPLETION, OPENAI_NEUTRAL_NOTHING, ALWAYS, NULL},
    {"top_logprobs", OPENAI_IN_CHAT, OPENAI_NEUTRAL_ZERO, ALWAYS, NULL},
    {"frequency_penalty", OPENAI_IN_BOTH, OPENAI_NEUTRAL_ZERO, BY_TEXT, NULL},
    {"presence_penalty", OPENAI_IN_BOTH, OPENAI_NEUTRAL_ZERO, BY_TEXT, NULL},
    {"logit_bias", OPENAI_IN_BOTH, OPENAI_NEUTRAL_EMPTY, BY_TEXT, NULL},
    {"min_tokens", OPENAI_IN_BOTH, OPENAI_NEUTRAL_ZERO, BY_TEXT, NULL},
    {"min_new_tokens", OPENAI_IN_BOTH, OPENAI_NEUTRAL_ZERO, BY_TEXT, "min_tokens"},
    {"ignore_eos", OPENAI_IN_BOTH, OPENAI_NEUTRAL_FALSE, BY_TEXT, NULL},
    {"ban_eos_token", OPENAI_IN_BOTH, OPENAI_NEUTRAL_FALSE, BY_TEXT, "ignore_eos"},
    {"reasoning_effort", OPENAI_IN_CHAT, OPENAI_NEUTRAL_NOTHING, BY_TEXT, NULL},
    {"enable_thinking", OPENAI_IN_CHAT, OPENAI_NEUTRAL_NOTHING, BY_TEXT, NULL},
    {"chat_template_kwargs", OPENAI_IN_CHAT, OPENAI_NEUTRAL_EMPTY, BY_TEXT, NULL},
    {"reasoning_format", OPENAI_IN_CHAT, OPENAI_NEUTRAL_NOTHING, BY_TEXT, NULL},
    {"separate_reasoning", OPENAI_IN_CHAT, OPENAI_NEUTRAL_TRUE, BY_TEXT, NULL},
    {"include_reasoning", OPENAI_IN_CHAT, OPENAI_NEUTRAL_TRUE, ALWAYS, NULL},
    {"thinking", OPENAI_IN_CHAT, OPENAI_NEUTRAL_NOTHING, ALWAYS, NULL},
    {"reasoning", OPENAI_IN_CHAT, OPENAI_NEUTRAL_NOTHING, ALWAYS, NULL},
    {"mirostat_tau", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
    {"mirostat_eta", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
    {"dry_base", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
    {"dry_allowed_length", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
    {"dry_penalty_last_n", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
    {"dry_sequence_breakers", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
    {"xtc_threshold", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
    {"dynatemp_exponent", OPENAI_IN_BOTH, OPENAI_NEUTRAL_NOTHING, NEVER, NULL},
};

/* Read and checked by openai_request_decode. */
static const char *const typed[] = {"model",          "temperature",   "top_p",
                                    "top_k",          "min_p",         "seed",
                                    "stop",           "stream",        "stream_options",
                                    "max_tokens",     "n_predict",     "repetition_penalty",
                                    "repeat_penalty", "repeat_last_n", "max_completion_tokens",
                                    "return_progress"};

static bool is_empty(const json_t *value)
{
    return openai_is_neutral(value, OPENAI_NEUTRAL_EMPTY);
}

/* "none" and the like mean nothing without tools. */
static int take_tools(json_t *root, const struct openai_pass_rules *rules, json_t *taken,
                      bool *ret_needed)
{
    static const char *const beside[] = {"tool_choice", "parallel_tool_calls"};
    json_t *tools = json_object_get(root, "tools");
    if (!rules->chat || !tools || is_empty(tools)) return 0;
    if (rules->by_text || !json_text_is(json_object_get(root, "tool_choice"), "none"))
        *ret_needed = true;
    int code = json_object_set(taken, "tools", tools);
    for (size_t i = 0; i < sizeof beside / sizeof *beside && !code; i++) {
        json_t *value = json_object_get(root, beside[i]);
        if (value) code = json_object_set(taken, beside[i], value);
    }
    return code;
}

/* The first field that no server is sent; NULL: none. */
static const char *refused_field(const json_t *root, enum openai_where here)
{
    for (size_t i = 0; i < sizeof kept_out / sizeof *kept_out; i++) {
        const json_t *value = json_object_get(root, kept_out[i].name);
        if (value && !kept_out[i].passes && (kept_out[i].where & here) &&
            !openai_is_neutral(value, kept_out[i].neutral))
            return kept_out[i].name;
    }
    return NULL;
}

/* What is passed on if anything is; *ret_needed: whether it has to be. */
static int take_fields(json_t *root, const struct openai_pass_rules *rules, json_t *taken,
                       bool *ret_needed)
{
    enum openai_where here = rules->chat ? OPENAI_IN_CHAT : OPENAI_IN_COMPLETION;
    int code = 0;
    for (size_t i = 0; i < sizeof kept_out / sizeof *kept_out && !code; i++) {
        json_t *value = json_object_get(root, kept_out[i].name);
        if (!value || !kept_out[i].passes || !(kept_out[i].where & here) ||
            openai_is_neutral(value, kept_out[i].neutral))
            continue;
        *ret_needed = true;
        code = json_object_set(taken, kept_out[i].name, value);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others && !code; i++) {
        json_t *value = json_object_get(root, others[i].name);
        if (!value || !(others[i].where & here) || openai_is_neutral(value, others[i].neutral))
            continue;
        bool ours = others[i].reason == NEVER || (others[i].reason == BY_TEXT && !rules->by_text);
        *ret_needed = *ret_needed || !ours;
        code = json_object_set(taken, others[i].as ? others[i].as : others[i].name, value);
    }
    return code || take_tools(root, rules, taken, ret_needed) ? ERR_NO_MEMORY : 0;
}

/* Whether one of these members holds anything. */
static bool has_any(const json_t *message, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(message, names[i]);
        if (value && !json_is_null(value) && !is_empty(value)) return true;
    }
    return false;
}

/* Whether a message says more than our reader keeps of it. */
static bool says_more(const json_t *message, const struct openai_pass_rules *rules)
{
    static const char *const any[] = {"function_call", "audio"};
    static const char *const by_text[] = {"tool_calls", "tool_call_id", "name", "reasoning_content",
                                          "refusal"};
    const json_t *content = json_object_get(message, "content");
    for (size_t i = 0; i < json_array_size(content); i++)
        if (!json_text_is(json_object_get(json_array_get(content, i), "type"), "text")) return true;
    return has_any(message, any, sizeof any / sizeof *any) ||
           (rules->by_text && has_any(message, by_text, sizeof by_text / sizeof *by_text));
}

/* How many prompts a completion has: more than one as an array of texts or of arrays of ids. */
static size_t count_prompts(const json_t *prompt)
{
    const json_t *first = json_array_get(prompt, 0);
    return json_is_string(first) || json_is_array(first) ? json_array_size(prompt) : 1;
}

static bool prompt_needs(const json_t *root, const struct openai_pass_rules *rules)
{
    const json_t *prompt = json_object_get(root, "prompt");
    const json_t *messages = json_object_get(root, "messages");
    if (!rules->chat) return prompt && (rules->by_text || count_prompts(prompt) > 1);
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (says_more(json_array_get(messages, i), rules)) return true;
    return false;
}

/* ---- the prompt ---- */

static void add_begin(struct openai_pass *p, const char *text, size_t n)
{
    size_t room = sizeof p->begin - p->begin_len;
    if (n > room) n = room;
    if (n) memcpy(p->begin + p->begin_len, text, n);
    p->begin_len += n;
}

static void add_json(struct openai_pass *p, const json_t *value)
{
    size_t room = sizeof p->begin - p->begin_len;
    size_t n = json_dumpb(value, p->begin + p->begin_len, room, JSON_COMPACT | JSON_ENCODE_ANY);
    p->begin_len += n < room ? n : room;
}

/* As the upstream backend reads them of other requests: a conversation keeps its server. */
static void begin_of_messages(struct openai_pass *p, const json_t *messages)
{
    for (size_t i = 0; i < json_array_size(messages) && p->begin_len < sizeof p->begin; i++) {
        const json_t *m = json_array_get(messages, i), *role = json_object_get(m, "role");
        const json_t *content = json_object_get(m, "content");
        if (json_is_string(role))
            add_begin(p, json_string_value(role), json_string_length(role) + 1);
        if (json_is_string(content))
            add_begin(p, json_string_value(content), json_string_length(content));
        else if (content)
            add_json(p, content);
        if (json_text_is(role, "user")) return;
    }
}

/* Letters and "://", as a URL begins. */
static bool has_scheme(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 0 && strncmp(text + n, "://", 3) == 0;
}

/* A URL that a server would fetch, at any depth of a part of a message: {"image_url": {"url":
 * URL}},
 * {"image_url": [URL]}, {"image": URL} and the like. `name`: of the member. The parser limits the
 * depth. */
static bool names_url(const char *name, const json_t *value)
{
    const char *member, *text = json_string_value(value);
    json_t *inner;
    if (text && strstr(name, "url")) return strncmp(text, "data:", 5) != 0;
    if (text) return strcmp(name, "text") != 0 && strcmp(name, "content") != 0 && has_scheme(text);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (names_url(name, json_array_get(value, i))) return true;
    json_object_foreach((json_t *)(uintptr_t)value, member, inner)
    {
        if (names_url(member, inner)) return true;
    }
    return false;
}

static int check_media(const json_t *message, size_t at, struct err *e)
{
    const json_t *content = json_object_get(message, "content");
    for (size_t i = 0; i < json_array_size(content); i++)
        if (names_url("content", json_array_get(content, i)))
            return err_set(e, ERR_UNSUPPORTED,
                           "messages[%zu].content[%zu]: only data: URLs are passed on; a server "
                           "would fetch others from its own network",
                           at, i);
    return 0;
}

static int check_prompt(const json_t *value, bool chat, struct err *e)
{
    if (chat && (!json_is_array(value) || json_array_size(value) == 0 ||
                 json_array_size(value) > WIRE_MESSAGES_MAX))
        return err_set(e, ERR_BAD_INPUT, "messages must be an array of 1 to %d messages",
                       WIRE_MESSAGES_MAX);
    for (size_t i = 0; chat && i < json_array_size(value); i++)
        if (!json_is_object(json_array_get(value, i)))
            return err_set(e, ERR_BAD_INPUT, "messages[%zu] must be an object", i);
    for (size_t i = 0; chat && i < json_array_size(value); i++)
        if (check_media(json_array_get(value, i), i, e)) return e->code;
    if (!chat && !json_is_string(value) && json_array_size(value) == 0)
        return err_set(e, ERR_BAD_INPUT, "prompt must be a text, token ids, or an array of these");
    return 0;
}

static int take_prompt(struct openai_pass *p, json_t *root, struct err *e)
{
    const char *name = p->chat ? "messages" : "prompt";
    json_t *value = json_object_get(root, name), *alone = json_object();
    int code = check_prompt(value, p->chat, e);
    if (!code && (!alone || json_object_set(alone, name, value)))
        code = err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    struct buf text;
    buf_init(&text, SIZE_MAX);
    if (!code && json_put_value(&text, alone, true) == 0) p->prompt = mem_strdup(text.data);
    p->prompt_len = text.len;
    buf_release(&text);
    json_decref(alone);
    if (code) return code;
    if (!p->prompt) return err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    if (p->chat)
        begin_of_messages(p, value);
    else if (json_is_string(value))
        add_begin(p, json_string_value(value), json_string_length(value));
    else
        add_json(p, value);
    return 0;
}

/* ---- the whole ---- */

/* What the server computes: n, or best_of, of each prompt. */
static int count_choices(struct openai_pass *p, const json_t *root, char *ret_param, struct err *e)
{
    static const char *const names[] = {"n", "best_of"};
    size_t prompts = p->chat ? 1 : count_prompts(json_object_get(root, "prompt"));
    p->choices = p->computed = (uint32_t)prompts;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(root, names[i]);
        json_int_t each = value ? json_integer_value(value) : 1;
        if ((!value || json_is_integer(value)) && each > 0 && prompts <= OPENAI_CHOICES_MAX &&
            (size_t)each <= OPENAI_CHOICES_MAX / prompts) {
            uint32_t all = (uint32_t)((size_t)each * prompts);
            if (i == 0) p->choices = all;
            if (all > p->computed) p->computed = all;
            if (i == 0 || !p->chat || !value || all == p->choices) continue;
            openai_param_set(ret_param, names[i]);
            return err_set(e, ERR_UNSUPPORTED,
                           "best_of: chats have it as the same number as n only");
        }
        openai_param_set(ret_param, value ? names[i] : "prompt");
        return err_set(e, ERR_BAD_INPUT,
                       "%s must be an integer of at least 1, and with prompts %d in all",
                       value ? names[i] : "prompt", OPENAI_CHOICES_MAX);
    }
    return 0;
}

static int set_stops(struct openai_pass *p, const struct openai_request *r)
{
    json_t *list = r->n_stops ? json_array() : NULL;
    for (uint32_t i = 0; i < r->n_stops; i++)
        json_array_append_new(list, json_stringn(r->stops[i].text, r->stops[i].len));
    return r->n_stops ? json_object_set_new(p->fields, "stop", list) : 0;
}

/* Sampling, limits and stop strings, by the reader of all requests: of a request that has nothing
 * else. */
static int read_typed(json_t *root, struct openai_pass *p, struct openai_request *r,
                      char *ret_param, struct err *e)
{
    json_t *part = json_pack(p->chat ? "{s:[{s:s,s:s}]}" : "{s:s}", p->chat ? "messages" : "prompt",
                             p->chat ? "role" : "-", "user", "content", "-");
    int code = part ? 0 : ERR_NO_MEMORY;
    for (size_t i = 0; i < sizeof typed / sizeof *typed && !code; i++) {
        json_t *value = json_object_get(root, typed[i]);
        if (value && json_object_set(part, typed[i], value)) code = ERR_NO_MEMORY;
    }
    code = code ? err_set(e, code, "no memory for the request")
                : openai_request_take(part, p->chat, r, NULL, ret_param, e);
    json_decref(part);
    return code;
}

static int take_typed(json_t *root, struct openai_pass *p, struct openai_request *r,
                      char *ret_param, struct err *e)
{
    static const char *const limits[] = {"max_tokens", "max_completion_tokens", "n_predict"};
    struct openai_request q;
    int code = read_typed(root, p, &q, ret_param, e);
    if (code) return code;
    struct wire_request ask = q.ask; /* but for its prompt, which was none */
    openai_request_free_prompt(&q);
    memcpy(q.ask.model, ask.model, sizeof ask.model);
    q.ask.sampling = ask.sampling;
    q.ask.tokens_max = ask.tokens_max;
    p->stream = q.stream;
    p->seeded = q.seeded;
    p->limited = !p->chat;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const json_t *limit = json_object_get(root, limits[i]);
        p->limited = p->limited || (limit && json_integer_value(limit) > 0);
    }
    if (set_stops(p, &q)) {
        openai_request_release(&q);
        return err_set(e, ERR_NO_MEMORY, "no memory for the request");
    }
    q.ask.passed = p;
    *r = q;
    return 0;
}

/* A request that is passed on: into `p`, which is r->ask.passed on success only. */
static int take_passed(json_t *root, struct openai_pass *p, struct openai_request *r,
                       char *ret_param, struct err *e)
{
    const char *refused = refused_field(root, p->chat ? OPENAI_IN_CHAT : OPENAI_IN_COMPLETION);
    int code = 0;
    if (refused) {
        openai_param_set(ret_param, refused);
        return err_set(e, ERR_UNSUPPORTED, "%s is not passed on: leave it out", refused);
    }
    code = count_choices(p, root, ret_param, e);
    if (!code && (code = take_prompt(p, root, e)) != 0)
        openai_param_set(ret_param, p->chat ? "messages" : "prompt");
    return code ? code : take_typed(root, p, r, ret_param, e);
}

static int decode(json_t *root, const struct openai_pass_rules *rules, struct openai_request *r,
                  char *ret_param, struct err *e)
{
    struct openai_pass *p = mem_calloc(1, sizeof *p);
    bool needed = false;
    if (p) p->fields = json_object();
    int code = p && p->fields ? take_fields(root, rules, p->fields, &needed) : ERR_NO_MEMORY;
    if (code) err_set(e, code, "no memory for the request");
    if (p) p->chat = rules->chat;
    needed = needed || (!code && prompt_needs(root, rules));
    if (!code && needed) code = take_passed(root, p, r, ret_param, e);
    if (code || !needed) openai_pass_free(p);
    return code || needed ? code : openai_request_take(root, rules->chat, r, NULL, ret_param, e);
}

int openai_pass_decode(const char *json, size_t n, const struct openai_pass_rules *rules,
                       struct openai_request *r, char ret_param[OPENAI_PARAM_MAX], struct err *e)
{
    json_t *root;
    ret_param[0] = 0;
    int code = openai_object_parse(json, n, &root, e);
    if (code) return code;
    code = decode(root, rules, r, ret_param, e);
    json_decref(root);
    return code;
}

void openai_pass_free(struct openai_pass *p)
{
    if (!p) return;
    mem_free(p->prompt);
    json_decref(p->fields);
    mem_free(p);
}
