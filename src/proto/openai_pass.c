/* openai_pass: see openai_pass.h. */
#include "proto/openai_pass.h"

#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "proto/openai_impl.h"

enum {
    IN_CHAT = 1,
    IN_COMPLETION = 2,
    IN_BOTH = 3,
    BY_TOKENS = 4, /* with tokenizer and template of ours the request need not be passed on */
    SECOND = 8     /* means nothing without another field: it is no reason to pass on */
};

/* `neutral`: the JSON of what happens anyway; "": each empty text, list or object. NULL: nothing is
 * neutral. */
static const struct {
    const char *name;
    int where;
    const char *neutral;
} fields[] = {
    {"n", IN_BOTH, "1"},
    {"best_of", IN_COMPLETION, "1"},
    {"echo", IN_COMPLETION, "false"},
    {"suffix", IN_COMPLETION, ""},
    {"functions", IN_CHAT, ""},
    {"function_call", IN_CHAT, NULL},
    {"response_format", IN_BOTH, "{\"type\":\"text\"}"},
    {"modalities", IN_CHAT, "[\"text\"]"},
    {"audio", IN_CHAT, NULL},
    {"prediction", IN_CHAT, NULL},
    {"web_search_options", IN_CHAT, NULL},
    {"verbosity", IN_CHAT, NULL},
    {"frequency_penalty", IN_BOTH | BY_TOKENS, "0"},
    {"presence_penalty", IN_BOTH | BY_TOKENS, "0"},
    {"logit_bias", IN_BOTH | BY_TOKENS, ""},
    {"logprobs", IN_CHAT, "false"},
    {"logprobs", IN_COMPLETION, NULL},
    {"top_logprobs", IN_CHAT, "0"},
    {"reasoning_effort", IN_CHAT | BY_TOKENS, NULL},
    {"enable_thinking", IN_CHAT | BY_TOKENS, NULL},
    {"chat_template_kwargs", IN_CHAT | BY_TOKENS, ""},
    {"thinking", IN_CHAT, NULL},
    {"reasoning", IN_CHAT, NULL},
    {"reasoning_format", IN_CHAT, NULL},
    {"include_reasoning", IN_CHAT, "true"},
    {"separate_reasoning", IN_CHAT, "true"},
    {"thinking_budget_tokens", IN_CHAT, NULL},
    {"documents", IN_CHAT, ""},
    {"chat_template", IN_CHAT, ""},
    {"add_generation_prompt", IN_CHAT, "true"},
    {"continue_final_message", IN_CHAT, "false"},
    {"prompt_logprobs", IN_BOTH, NULL},
    {"use_beam_search", IN_BOTH, "false"},
    {"length_penalty", IN_BOTH, "1"},
    {"ignore_eos", IN_BOTH | BY_TOKENS, "false"},
    {"min_tokens", IN_BOTH | BY_TOKENS, "0"},
    {"stop_token_ids", IN_BOTH, ""},
    {"include_stop_str_in_output", IN_BOTH, "false"},
    {"skip_special_tokens", IN_BOTH, "true"},
    {"truncate_prompt_tokens", IN_BOTH, NULL},
    {"bad_words", IN_BOTH, ""},
    {"allowed_token_ids", IN_BOTH, ""},
    {"grammar", IN_BOTH, ""},
    {"json_schema", IN_BOTH, NULL},
    {"structured_outputs", IN_BOTH, NULL},
    {"guided_json", IN_BOTH, NULL},
    {"guided_regex", IN_BOTH, NULL},
    {"guided_choice", IN_BOTH, NULL},
    {"guided_grammar", IN_BOTH, NULL},
    {"guided_whitespace_pattern", IN_BOTH | SECOND, NULL},
    {"regex", IN_BOTH, ""},
    {"ebnf", IN_BOTH, ""},
    {"typical_p", IN_BOTH, "1"},
    {"top_n_sigma", IN_BOTH, "-1"},
    {"mirostat", IN_BOTH, "0"},
    {"mirostat_tau", IN_BOTH | SECOND, NULL},
    {"mirostat_eta", IN_BOTH | SECOND, NULL},
    {"dry_multiplier", IN_BOTH, "0"},
    {"dry_base", IN_BOTH | SECOND, NULL},
    {"dry_allowed_length", IN_BOTH | SECOND, NULL},
    {"dry_penalty_last_n", IN_BOTH | SECOND, NULL},
    {"dry_sequence_breakers", IN_BOTH | SECOND, NULL},
    {"xtc_probability", IN_BOTH, "0"},
    {"xtc_threshold", IN_BOTH | SECOND, NULL},
    {"dynatemp_range", IN_BOTH, "0"},
    {"dynatemp_exponent", IN_BOTH | SECOND, NULL},
};

/* Read and checked by openai_request_decode. */
static const char *const typed[] = {"model",          "temperature",   "top_p",
                                    "top_k",          "min_p",         "seed",
                                    "stop",           "stream",        "stream_options",
                                    "max_tokens",     "n_predict",     "repetition_penalty",
                                    "repeat_penalty", "repeat_last_n", "max_completion_tokens"};

static bool is_empty(const json_t *value)
{
    if (json_is_string(value)) return json_string_length(value) == 0;
    if (json_is_array(value)) return json_array_size(value) == 0;
    return json_is_object(value) && json_object_size(value) == 0;
}

/* 1 and 1.0 are equal here. */
static bool same(const json_t *a, const json_t *b)
{
    if (!json_is_number(a) || !json_is_number(b)) return json_equal(a, b);
    double d = json_number_value(a) - json_number_value(b);
    return d >= 0.0 && d <= 0.0;
}

static bool is_neutral(const json_t *value, const char *neutral)
{
    if (!neutral) return false;
    if (!neutral[0]) return is_empty(value);
    json_t *parsed = json_loads(neutral, JSON_DECODE_ANY, NULL);
    bool neutral_value = same(value, parsed);
    json_decref(parsed);
    return neutral_value;
}

static bool is_word(const json_t *value, const char *word)
{
    return json_is_string(value) && strcmp(json_string_value(value), word) == 0;
}

/* Options of tools mean nothing without tools. */
static int take_tools(json_t *root, const struct openai_pass_rules *rules, json_t *taken,
                      bool *ret_needed)
{
    json_t *tools = json_object_get(root, "tools"), *choice = json_object_get(root, "tool_choice");
    json_t *parallel = json_object_get(root, "parallel_tool_calls");
    if (!rules->chat || !tools || is_empty(tools)) {
        bool asks = choice && !is_word(choice, "none") && !is_word(choice, "auto");
        *ret_needed = *ret_needed || (rules->chat && asks);
        return asks ? json_object_set(taken, "tool_choice", choice) : 0;
    }
    *ret_needed = *ret_needed || rules->by_text || !is_word(choice, "none");
    int code = json_object_set(taken, "tools", tools);
    if (!code && choice) code = json_object_set(taken, "tool_choice", choice);
    if (!code && parallel) code = json_object_set(taken, "parallel_tool_calls", parallel);
    return code;
}

/* What is passed on if anything is; *ret_needed: whether it has to be. */
static int take_fields(json_t *root, const struct openai_pass_rules *rules, json_t *taken,
                       bool *ret_needed)
{
    int here = rules->chat ? IN_CHAT : IN_COMPLETION;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        json_t *value = json_object_get(root, fields[i].name);
        if (!value || !(fields[i].where & here) || is_neutral(value, fields[i].neutral)) continue;
        bool ours = (fields[i].where & SECOND) || (!rules->by_text && fields[i].where & BY_TOKENS);
        *ret_needed = *ret_needed || !ours;
        if (json_object_set(taken, fields[i].name, value)) return ERR_NO_MEMORY;
    }
    return take_tools(root, rules, taken, ret_needed) ? ERR_NO_MEMORY : 0;
}

/* Whether a message says more than our reader keeps of it. */
static bool says_more(const json_t *message, const struct openai_pass_rules *rules)
{
    static const char *const any[] = {"function_call", "audio"};
    static const char *const by_text[] = {"tool_calls", "tool_call_id", "name", "reasoning_content",
                                          "refusal"};
    const json_t *content = json_object_get(message, "content");
    for (size_t i = 0; i < json_array_size(content); i++)
        if (!is_word(json_object_get(json_array_get(content, i), "type"), "text")) return true;
    for (size_t i = 0; i < sizeof any / sizeof *any; i++) {
        const json_t *value = json_object_get(message, any[i]);
        if (value && !json_is_null(value) && !is_empty(value)) return true;
    }
    for (size_t i = 0; rules->by_text && i < sizeof by_text / sizeof *by_text; i++) {
        const json_t *value = json_object_get(message, by_text[i]);
        if (value && !json_is_null(value) && !is_empty(value)) return true;
    }
    return false;
}

static bool prompt_needs(const json_t *root, const struct openai_pass_rules *rules)
{
    const json_t *prompt = json_object_get(root, "prompt");
    const json_t *messages = json_object_get(root, "messages"), *first = json_array_get(prompt, 0);
    if (!rules->chat) {
        bool several = json_is_string(first) || json_is_array(first);
        return prompt && (rules->by_text || (several && json_array_size(prompt) > 1));
    }
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
        if (is_word(role, "user")) return;
    }
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
    char *text = code ? NULL : json_dumps(alone, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(alone);
    if (code) return code;
    size_t n = text ? strlen(text) : 0; /* in braces, which are not ours to send */
    p->prompt = text ? mem_strdup(text) : NULL;
    json_free_t release = NULL;
    json_get_alloc_funcs(NULL, &release);
    if (text) release(text);
    if (!p->prompt) return err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    memmove(p->prompt, p->prompt + 1, n - 2);
    p->prompt_len = n - 2;
    p->prompt[p->prompt_len] = 0;
    if (p->chat)
        begin_of_messages(p, value);
    else if (json_is_string(value))
        add_begin(p, json_string_value(value), json_string_length(value));
    else
        add_json(p, value);
    return 0;
}

/* ---- the whole ---- */

static int count_choices(struct openai_pass *p, const json_t *root, char *ret_param, struct err *e)
{
    const json_t *n = json_object_get(root, "n"), *prompt = json_object_get(root, "prompt");
    const json_t *first = json_array_get(prompt, 0);
    json_int_t each = n ? json_integer_value(n) : 1;
    size_t prompts = json_is_string(first) || json_is_array(first) ? json_array_size(prompt) : 1;
    if (p->chat) prompts = 1;
    if ((!n || json_is_integer(n)) && each > 0 &&
        (size_t)each <= OPENAI_PASS_CHOICES_MAX / prompts) {
        p->choices = (uint32_t)(each * (json_int_t)prompts);
        return 0;
    }
    openai_param_set(ret_param, "n");
    return err_set(e, ERR_BAD_INPUT, "n must be an integer of at least 1, of at most %d choices",
                   OPENAI_PASS_CHOICES_MAX);
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
    char *text = code ? NULL : json_dumps(part, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(part);
    if (!text) return err_set(e, ERR_NO_MEMORY, "no memory for the request");
    code = openai_request_decode(text, strlen(text), p->chat, r, ret_param, e);
    json_free_t release = NULL;
    json_get_alloc_funcs(NULL, &release);
    release(text);
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

static int decode(json_t *root, const struct openai_pass_rules *rules, struct openai_request *r,
                  bool *ret_passes, char *ret_param, struct err *e)
{
    struct openai_pass *p = mem_calloc(1, sizeof *p);
    bool needed = false;
    if (p) p->fields = json_object();
    int code = p && p->fields ? take_fields(root, rules, p->fields, &needed) : ERR_NO_MEMORY;
    if (code) err_set(e, code, "no memory for the request");
    if (code || !(needed || prompt_needs(root, rules))) {
        openai_pass_free(p);
        return code;
    }
    p->chat = rules->chat;
    code = count_choices(p, root, ret_param, e);
    if (!code) code = take_typed(root, p, r, ret_param, e);
    if (!code && (code = take_prompt(p, root, e)) != 0) {
        openai_param_set(ret_param, p->chat ? "messages" : "prompt");
        openai_request_release(r); /* and p with it */
    } else if (code) {
        openai_pass_free(p);
    }
    *ret_passes = code == 0;
    return code;
}

int openai_pass_decode(const char *json, size_t n, const struct openai_pass_rules *rules,
                       struct openai_request *r, bool *ret_passes, char ret_param[OPENAI_PARAM_MAX],
                       struct err *e)
{
    json_t *root;
    ret_param[0] = 0;
    *ret_passes = false;
    int code = openai_object_parse(json, n, &root, e);
    if (code) return code;
    code = decode(root, rules, r, ret_passes, ret_param, e);
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
