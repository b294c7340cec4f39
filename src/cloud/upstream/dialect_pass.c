/*
 * dialect_pass: requests that go to a server's OpenAI API with options that it computes; see
 * dialect.h. vLLM, SGLang and llama-server ignore fields that they do not know, so a field without
 * a name there is refused here: an option without effect would be a wrong answer. Of other servers
 * nothing is known; they get the fields as they came.
 *
 * Sources of the names: ChatCompletionRequest and CompletionRequest of vLLM and SGLang
 * (entrypoints/openai/protocol.py), and what llama-server (llama.cpp de3ff81) does.
 */
#include <jansson.h>
#include <string.h>

#include "cloud/upstream/dialect_impl.h"
#include "proto/json.h"

/* Names of fields that not all three have under the same name. NULL: it does not know it; then
 * the request is refused, or where the field is the second to another one, goes without. */
static const struct {
    const char *name, *llama, *vllm, *sglang;
    bool second;
} fields[] = {
    {"best_of", NULL, "best_of", NULL, false},
    {"echo", NULL, "echo", "echo", false},
    {"suffix", NULL, NULL, NULL, false},
    {"functions", NULL, NULL, NULL, false},
    {"function_call", NULL, NULL, NULL, false},
    {"modalities", NULL, NULL, NULL, false},
    {"audio", NULL, NULL, NULL, false},
    {"prediction", NULL, NULL, NULL, false},
    {"web_search_options", NULL, NULL, NULL, false},
    {"verbosity", NULL, NULL, NULL, false},
    {"thinking", NULL, NULL, NULL, false},
    {"reasoning", NULL, NULL, NULL, false},
    {"reasoning_format", "reasoning_format", NULL, NULL, false},
    {"include_reasoning", NULL, "include_reasoning", NULL, false},
    {"separate_reasoning", NULL, NULL, "separate_reasoning", false},
    {"thinking_budget_tokens", "thinking_budget_tokens", NULL, NULL, false},
    {"documents", NULL, "documents", NULL, false},
    {"chat_template", NULL, "chat_template", NULL, false},
    {"add_generation_prompt", "add_generation_prompt", "add_generation_prompt", NULL, false},
    {"prompt_logprobs", NULL, "prompt_logprobs", NULL, false},
    {"use_beam_search", NULL, "use_beam_search", NULL, false},
    {"length_penalty", NULL, "length_penalty", NULL, false},
    {"min_tokens", NULL, "min_tokens", "min_tokens", false},
    {"stop_token_ids", NULL, "stop_token_ids", "stop_token_ids", false},
    {"include_stop_str_in_output", NULL, "include_stop_str_in_output", "no_stop_trim", false},
    {"skip_special_tokens", NULL, "skip_special_tokens", "skip_special_tokens", false},
    {"truncate_prompt_tokens", NULL, "truncate_prompt_tokens", NULL, false},
    {"bad_words", NULL, "bad_words", NULL, false},
    {"allowed_token_ids", NULL, "allowed_token_ids", NULL, false},
    {"guided_whitespace_pattern", NULL, "guided_whitespace_pattern", NULL, true},
    {"typical_p", "typical_p", NULL, NULL, false},
    {"top_n_sigma", "top_n_sigma", NULL, NULL, false},
    {"mirostat", "mirostat", NULL, NULL, false},
    {"mirostat_tau", "mirostat_tau", NULL, NULL, true},
    {"mirostat_eta", "mirostat_eta", NULL, NULL, true},
    {"dry_multiplier", "dry_multiplier", NULL, NULL, false},
    {"dry_base", "dry_base", NULL, NULL, true},
    {"dry_allowed_length", "dry_allowed_length", NULL, NULL, true},
    {"dry_penalty_last_n", "dry_penalty_last_n", NULL, NULL, true},
    {"dry_sequence_breakers", "dry_sequence_breakers", NULL, NULL, true},
    {"xtc_probability", "xtc_probability", NULL, NULL, false},
    {"xtc_threshold", "xtc_threshold", NULL, NULL, true},
    {"dynatemp_range", "dynatemp_range", NULL, NULL, false},
    {"dynatemp_exponent", "dynatemp_exponent", NULL, NULL, true},
};

/* What limits the text of an answer, under each of its names; one of them may be given. */
enum limit { LIMIT_SCHEMA, LIMIT_REGEX, LIMIT_CHOICE, LIMIT_GRAMMAR };
static const struct {
    const char *name, *member; /* member: of the object of that name */
    enum limit limit;
} limits[] = {
    {"json_schema", NULL, LIMIT_SCHEMA},
    {"guided_json", NULL, LIMIT_SCHEMA},
    {"structured_outputs", "json", LIMIT_SCHEMA},
    {"regex", NULL, LIMIT_REGEX},
    {"guided_regex", NULL, LIMIT_REGEX},
    {"structured_outputs", "regex", LIMIT_REGEX},
    {"guided_choice", NULL, LIMIT_CHOICE},
    {"structured_outputs", "choice", LIMIT_CHOICE},
    {"grammar", NULL, LIMIT_GRAMMAR},
    {"ebnf", NULL, LIMIT_GRAMMAR},
    {"guided_grammar", NULL, LIMIT_GRAMMAR},
    {"structured_outputs", "grammar", LIMIT_GRAMMAR},
};

enum { GRAMMAR_MAX = 1 << 20 };

static const char *name_at(enum dialect d, size_t i)
{
    return d == DIALECT_LLAMA  ? fields[i].llama
           : d == DIALECT_VLLM ? fields[i].vllm
                               : fields[i].sglang;
}

/* Whether its fields are known here. */
static bool is_known(enum dialect d)
{
    return d == DIALECT_LLAMA || d == DIALECT_VLLM || d == DIALECT_SGLANG;
}

static int refuse(struct dialect_request *q, const char *name, struct err *e)
{
    q->refused = name;
    return err_set(e, ERR_BAD_INPUT, "%s: upstream servers of kind %s do not have this option",
                   name, dialect_name(q->model->dialect));
}

static int rename_fields(struct dialect_request *q, json_t *f, struct err *e)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        json_t *value = json_object_get(f, fields[i].name);
        const char *name = name_at(q->model->dialect, i);
        if (!value) continue;
        if (!name && !fields[i].second) return refuse(q, fields[i].name, e);
        if (name && strcmp(name, fields[i].name) == 0) continue;
        if (name) json_object_set(f, name, value);
        json_object_del(f, fields[i].name);
    }
    return 0;
}

/* ---- what limits the text ---- */

/* root ::= "a" | "b": the same in GBNF and in xgrammar's EBNF. */
static json_t *grammar_of(const json_t *choice)
{
    struct buf text;
    buf_init(&text, GRAMMAR_MAX);
    buf_puts(&text, "root ::= ");
    for (size_t i = 0; i < json_array_size(choice); i++) {
        const json_t *one = json_array_get(choice, i);
        buf_puts(&text, i ? " | " : "");
        json_put_string(&text, json_is_string(one) ? json_string_value(one) : "",
                        json_string_length(one));
    }
    json_t *grammar = text.error || !json_array_size(choice) ? NULL : json_string(text.data);
    buf_release(&text);
    return grammar;
}

/* A schema may come as the text of one. */
static json_t *schema_of(const json_t *value)
{
    if (!json_is_string(value)) return json_deep_copy(value);
    return json_loadb(json_string_value(value), json_string_length(value), 0, NULL);
}

static int set_schema(json_t *f, const json_t *value, bool as_field)
{
    json_t *schema = schema_of(value);
    if (!schema) return ERR_BAD_INPUT;
    if (as_field) return json_object_set_new(f, "json_schema", schema) ? ERR_NO_MEMORY : 0;
    return json_object_set_new(f, "response_format",
                               json_pack("{s:s,s:{s:s,s:o}}", "type", "json_schema", "json_schema",
                                         "name", "answer", "schema", schema))
               ? ERR_NO_MEMORY
               : 0;
}

/* vLLM before 0.11 knows the first name, from 0.12 on only the second; each ignores the other. */
static int set_vllm(json_t *f, const char *guided, const char *member, json_t *value)
{
    json_t *outputs = json_object();
    json_object_set(outputs, member, value);
    int code = json_object_set(f, guided, value);
    return json_object_set_new(f, "structured_outputs", outputs) || code ? ERR_NO_MEMORY : 0;
}

static int set_limit(struct dialect_request *q, json_t *f, enum limit limit, json_t *value)
{
    static const char *const guided[] = {NULL, "guided_regex", "guided_choice", "guided_grammar"};
    static const char *const members[] = {NULL, "regex", "choice", "grammar"};
    enum dialect d = q->model->dialect;
    const char *name = d == DIALECT_LLAMA ? "grammar" : "ebnf";
    if (limit == LIMIT_SCHEMA)
        return set_schema(f, value, d == DIALECT_LLAMA && !q->asked->passed->chat);
    if (d == DIALECT_VLLM) return set_vllm(f, guided[limit], members[limit], value);
    if (limit == LIMIT_GRAMMAR) return json_object_set(f, name, value) ? ERR_NO_MEMORY : 0;
    if (limit == LIMIT_CHOICE)
        return json_object_set_new(f, name, grammar_of(value)) ? ERR_BAD_INPUT : 0;
    if (d == DIALECT_LLAMA) return ERR_UNSUPPORTED;
    return json_object_set(f, "regex", value) ? ERR_NO_MEMORY : 0;
}

static json_t *limit_at(json_t *f, size_t i)
{
    json_t *value = json_object_get(f, limits[i].name);
    return limits[i].member ? json_object_get(value, limits[i].member) : value;
}

static int translate_limits(struct dialect_request *q, json_t *f, struct err *e)
{
    json_t *value = NULL;
    size_t which = 0, n = sizeof limits / sizeof *limits;
    bool twice = false;
    for (size_t i = 0; i < n; i++) {
        json_t *given = limit_at(f, i);
        if (!given) continue;
        twice = twice || value;
        value = given;
        which = i;
    }
    twice = twice || (value && json_object_get(f, "response_format"));
    if (!value && json_object_get(f, "structured_outputs"))
        return refuse(q, "structured_outputs", e);
    if (!value) return 0;
    q->refused = limits[which].name;
    if (twice)
        return err_set(e, ERR_BAD_INPUT, "%s: only one field may limit the text of the answer",
                       q->refused);
    json_incref(value);
    for (size_t i = 0; i < n; i++)
        json_object_del(f, limits[i].name);
    int code = set_limit(q, f, limits[which].limit, value);
    json_decref(value);
    if (code == ERR_UNSUPPORTED) return refuse(q, limits[which].name, e);
    if (code) return err_set(e, code, "%s is malformed", q->refused);
    q->refused = NULL;
    return 0;
}

/* llama-server's completions read json_schema only. */
static int translate_format(struct dialect_request *q, json_t *f, struct err *e)
{
    json_t *format = json_object_get(f, "response_format");
    json_t *schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    if (!format || q->model->dialect != DIALECT_LLAMA || q->asked->passed->chat) return 0;
    json_incref(schema);
    json_object_del(f, "response_format");
    if (!schema) schema = json_pack("{s:s}", "type", "object");
    return json_object_set_new(f, "json_schema", schema)
               ? err_set(e, ERR_NO_MEMORY, "no memory for the request")
               : 0;
}

/* ---- templates and tools ---- */

/* What a template reads: none of the three knows enable_thinking by itself, llama-server no
 * reasoning_effort either. */
static int translate_arguments(struct dialect_request *q, json_t *f, struct err *e)
{
    static const char *const names[] = {"enable_thinking", "reasoning_effort"};
    size_t n = q->model->dialect == DIALECT_LLAMA ? 2 : 1;
    for (size_t i = 0; i < n; i++) {
        json_t *value = json_object_get(f, names[i]);
        json_t *given = json_object_get(f, "chat_template_kwargs"), *all;
        if (!value) continue;
        all = given ? json_copy(given) : json_object();
        int code = json_object_set(all, names[i], value);
        if (json_object_set_new(f, "chat_template_kwargs", all) || code)
            return err_set(e, ERR_NO_MEMORY, "no memory for the request");
        json_object_del(f, names[i]);
    }
    return 0;
}

/* llama-server takes words only: a function that must be called is the only one, and required. */
static int translate_choice(struct dialect_request *q, json_t *f, struct err *e)
{
    json_t *choice = json_object_get(f, "tool_choice"), *tools = json_object_get(f, "tools");
    const json_t *name = json_object_get(json_object_get(choice, "function"), "name");
    if (q->model->dialect != DIALECT_LLAMA || !json_is_object(choice)) return 0;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *tool = json_array_get(tools, i);
        if (!name || !json_equal(json_object_get(json_object_get(tool, "function"), "name"), name))
            continue;
        int code = json_object_set_new(f, "tools", json_pack("[O]", tool));
        if (json_object_set_new(f, "tool_choice", json_string("required")) || code)
            return err_set(e, ERR_NO_MEMORY, "no memory for the request");
        return 0;
    }
    q->refused = "tool_choice";
    return err_set(e, ERR_BAD_INPUT, "tool_choice: no function of tools has this name");
}

/* ---- the body ---- */

static int put_fields(struct buf *out, json_t *f, struct err *e)
{
    if (json_object_size(f) == 0) return 0;
    buf_putc(out, ',');
    int code = json_put_value(out, f, true);
    if (code == ERR_NO_MEMORY) return err_set(e, code, "no memory for the request");
    return code ? err_set(e, ERR_LIMIT, "the request is too large to forward") : 0;
}

static void put_head(struct buf *out, const struct dialect_request *q)
{
    const struct openai_pass *p = q->asked->passed;
    bool by_new_name = (q->without & DIALECT_NO_MAX_TOKENS) && p->chat;
    bool fits = q->model->context && q->tokens_max >= q->model->context;
    bool all = !p->limited && (p->stream || fits || q->unlimited); /* more are cut off */
    buf_puts(out, "{\"model\":");
    json_put_string(out, q->model->name, strlen(q->model->name));
    buf_printf(out, ",\"stream\":%s", p->stream ? "true" : "false");
    if (p->stream && !(q->without & DIALECT_NO_STREAM_OPTIONS))
        buf_puts(out, ",\"stream_options\":{\"include_usage\":true}");
    if (p->stream && (q->model->dialect == DIALECT_LLAMA || q->model->dialect == DIALECT_PDD))
        buf_puts(out, ",\"return_progress\":true");
    if (!all)
        buf_printf(out, ",\"%s\":%u", by_new_name ? "max_completion_tokens" : "max_tokens",
                   q->tokens_max);
    buf_putc(out, ',');
    buf_append(out, p->prompt, p->prompt_len);
}

int dialect_pass_encode(struct dialect_request *q, const char **ret_path, struct buf *body,
                        struct err *e)
{
    const struct openai_pass *p = q->asked->passed;
    json_t *f = json_copy(p->fields);
    int code = f ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for the request");
    if (!code && is_known(q->model->dialect)) {
        code = translate_limits(q, f, e);
        if (!code) code = translate_format(q, f, e);
        if (!code) code = translate_arguments(q, f, e);
        if (!code) code = translate_choice(q, f, e);
        if (!code) code = rename_fields(q, f, e);
    }
    if (!code) {
        *ret_path = p->chat ? "/v1/chat/completions" : "/v1/completions";
        put_head(body, q);
        dialect_put_sampling(body, q->model->dialect, &q->sampling, p->seeded, q->without);
        code = put_fields(body, f, e);
    }
    json_decref(f);
    if (!code && buf_putc(body, '}'))
        code = err_set(e, ERR_LIMIT, "the request is too large to forward");
    return code;
}
