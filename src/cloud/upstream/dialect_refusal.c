/*
 * dialect_refusal: which field of a chat a server refuses; see dialect.h. The error names it in
 * `param` (OpenAI and its like), in `loc` (FastAPI's), or in its sentence, and a few words tell
 * that the field is refused and not its value: a number that is too large is the client's.
 */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cloud/upstream/dialect_impl.h"
#include "proto/json.h"

enum { TEXT_MAX = 4096, NAMES_MAX = 512 };

/* Of two that exclude each other the first one goes. */
static const struct {
    uint32_t bit;
    const char *name;
} fields[] = {
    {DIALECT_NO_MAX_TOKENS, "max_tokens"},
    {DIALECT_NO_TOP_P, "top_p"},
    {DIALECT_NO_TEMPERATURE, "temperature"},
    {DIALECT_NO_STREAM_OPTIONS, "stream_options"},
    {DIALECT_NO_STREAM_OPTIONS, "include_usage"},
    {DIALECT_NO_TOP_K, "top_k"},
    {DIALECT_NO_MIN_P, "min_p"},
    {DIALECT_NO_PENALTY, "repetition_penalty"},
    {DIALECT_NO_SEED, "seed"},
};

/* In lower case. */
static const char *const marks[] = {
    "unsupported",  "not support",   "n't support",
    "unrecognized", "unrecognised",  "unknown",
    "unexpected",   "extra",         "not permitted",
    "not allowed",  "not available", "not a valid field",
    "deprecated",   "cannot both",   "only the default",
    "only 1 ",      "only be set",   "max_completion_tokens",
};

static void add(char *out, size_t size, const json_t *value)
{
    size_t at = strlen(out);
    const char *text = json_string_value(value);
    for (; text && *text && at + 2 < size; text++)
        out[at++] = (char)tolower((unsigned char)*text);
    if (at + 1 < size) out[at++] = ' ';
    out[at] = 0;
}

/* One error object: what it says, and where it says that the fault is. */
static void take_error(const json_t *error, char said[TEXT_MAX], char names[NAMES_MAX])
{
    static const char *const says[] = {"code", "type", "message", "msg", "detail", "error"};
    const json_t *loc = json_object_get(error, "loc");
    if (json_is_string(error)) add(said, TEXT_MAX, error);
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        add(said, TEXT_MAX, json_object_get(error, says[i]));
    if (json_string_length(json_object_get(error, "param")))
        add(names, NAMES_MAX, json_object_get(error, "param"));
    for (size_t i = 0; i < json_array_size(loc); i++)
        add(names, NAMES_MAX, json_array_get(loc, i));
}

static bool is_part(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        if ((at == text || !is_part(at[-1])) && !is_part(at[n])) return true;
    return false;
}

static bool is_marked(const char *said)
{
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (strstr(said, marks[i])) return true;
    return false;
}

/* All that an error says, of whatever form. */
static void read_error(const json_t *root, char said[TEXT_MAX], char names[NAMES_MAX])
{
    const json_t *top = json_is_array(root) ? json_array_get(root, 0) : root;
    const json_t *detail = json_object_get(top, "detail");
    take_error(top, said, names);
    take_error(json_object_get(top, "error"), said, names);
    for (size_t i = 0; i < json_array_size(detail); i++)
        take_error(json_array_get(detail, i), said, names);
}

/* Whether the prompt, or it and the tokens asked for, are more than the context holds. */
static bool is_of_context(const char *said)
{
    static const char *const words[] = {"context length", "context_length", "context size",
                                        "context_size", "context window"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(said, words[i])) return true;
    return false;
}

static void parse_error(const char *body, size_t n, char said[TEXT_MAX], char names[NAMES_MAX])
{
    json_t *root = n <= DIALECT_REFUSAL_MAX ? json_loadb(body, n, 0, NULL) : NULL;
    said[0] = names[0] = 0;
    read_error(root, said, names);
    json_decref(root);
}

bool dialect_limit_refused(const char *body, size_t n)
{
    char said[TEXT_MAX], names[NAMES_MAX];
    parse_error(body, n, said, names);
    const char *where = names[0] ? names : said;
    return is_of_context(said) || has_word(where, "max_tokens") ||
           has_word(where, "max_completion_tokens");
}

uint32_t dialect_refused_field(const char *body, size_t n, uint32_t without)
{
    char said[TEXT_MAX], names[NAMES_MAX];
    parse_error(body, n, said, names);
    if (is_of_context(said)) return 0; /* vLLM names max_completion_tokens in that sentence */
    const char *where = names[0] ? names : said;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && is_marked(said); i++)
        if (!(without & fields[i].bit) && has_word(where, fields[i].name)) return fields[i].bit;
    return 0;
}

const char *dialect_field_name(uint32_t bit)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].bit == bit) return fields[i].name;
    return "";
}

/* Where FastAPI says the fault is: ["body", "tools", 0, "function"]. */
static void take_loc(const json_t *detail, char *out, size_t size)
{
    const json_t *loc = json_object_get(json_array_get(detail, 0), "loc");
    const char *first = json_string_value(json_array_get(loc, 0));
    size_t at = first && strcmp(first, "body") == 0 ? 1 : 0;
    dialect_copy_word(json_array_get(loc, at), out, size);
}

void dialect_read_fault(const char *body, size_t n, const struct openai_pass *p,
                        struct dialect_fault *ret_fault)
{
    char said[TEXT_MAX] = "", names[NAMES_MAX] = "";
    json_t *root = n <= DIALECT_REFUSAL_MAX ? json_loadb(body, n, 0, NULL) : NULL;
    const json_t *error = json_object_get(root, "error"), *from = error ? error : root;
    const char *name;
    json_t *value;
    *ret_fault = (struct dialect_fault){.code = ""};
    read_error(root, said, names);
    dialect_copy_word(json_object_get(from, "code"), ret_fault->code, sizeof ret_fault->code);
    dialect_copy_word(json_object_get(from, "param"), ret_fault->param, sizeof ret_fault->param);
    if (!ret_fault->param[0])
        take_loc(json_object_get(root, "detail"), ret_fault->param, sizeof ret_fault->param);
    json_decref(root);
    if (ret_fault->param[0] || !p) return;
    json_object_foreach(p->fields, name, value)
    {
        if (has_word(said, name)) snprintf(ret_fault->param, sizeof ret_fault->param, "%s", name);
    }
}
