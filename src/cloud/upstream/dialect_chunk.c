/*
 * dialect_chunk: answers that are passed on; see dialect.h. What of an event reaches the client is
 * what the server said, but for the head (id, object, created, model), which is ours, the usage,
 * which is told at the end, and choices that say nothing: until something was told another server
 * may be asked. The role goes with the first that says something.
 */
#include <jansson.h>
#include <string.h>

#include "cloud/upstream/dialect_impl.h"
#include "proto/json.h"

static bool is_null(const json_t *value)
{
    return !value || json_is_null(value);
}

static const char *reason_of(const json_t *choice)
{
    return dialect_reason_of(json_object_get(choice, "finish_reason"));
}

/* Whether a delta has more than a role and empty texts. */
static bool says_something(const json_t *delta)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)delta, name, value)
    {
        bool empty = json_is_null(value) || (json_is_string(value) && !json_string_length(value)) ||
                     (json_is_array(value) && !json_array_size(value));
        if (strcmp(name, "role") != 0 && !empty) return true;
    }
    return false;
}

/* Thoughts have one name in our answers. */
static void rename_thought(json_t *message)
{
    static const char *const names[] = {"reasoning", "thinking"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *thought = json_object_get(message, names[i]);
        if (!json_is_string(thought)) continue;
        if (!json_string_length(json_object_get(message, "reasoning_content")))
            json_object_set(message, "reasoning_content", thought);
        json_object_del(message, names[i]);
    }
}

/* The byte of a choice; NULL: one that was not asked for. Without an index it is the first. */
static char *flags_of(struct dialect_stream *s, json_t *choice)
{
    const json_t *at = json_object_get(choice, "index");
    json_int_t index = json_integer_value(at);
    bool named = !is_null(at);
    if ((named && !json_is_integer(at)) || index < 0 || index >= s->choices_asked) return NULL;
    if (!named && json_object_set_new(choice, "index", json_integer(0))) return NULL;
    while (s->choices.len <= (size_t)index)
        if (buf_putc(&s->choices, 0)) return NULL;
    return s->choices.data + index;
}

static void note_choice(struct dialect_stream *s, json_t *choice, char *flags)
{
    if (!(*flags & DIALECT_CHOICE_BEGUN)) s->n_begun++;
    *flags |= DIALECT_CHOICE_BEGUN;
    if (!reason_of(choice)) {
        if (!is_null(json_object_get(choice, "finish_reason")))
            json_object_set_new(choice, "finish_reason", json_null());
        return;
    }
    if (!(*flags & DIALECT_CHOICE_FINISHED)) s->n_finished++;
    *flags |= DIALECT_CHOICE_FINISHED;
}

/* llama-server gives completions the log-probabilities of chats: a list of tokens with the
 * likeliest ones each, instead of a list of each property. */
static int make_lists(json_t *choice)
{
    const json_t *content = json_object_get(json_object_get(choice, "logprobs"), "content");
    json_t *tokens = json_array(), *logprobs = json_array(), *tops = json_array();
    int code = 0;
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *one = json_array_get(content, i), *top = json_object_get(one, "top_logprobs");
        json_t *likeliest = json_object();
        for (size_t k = 0; k < json_array_size(top); k++) {
            const json_t *t = json_array_get(top, k);
            const char *token = json_string_value(json_object_get(t, "token"));
            if (token) code |= json_object_set(likeliest, token, json_object_get(t, "logprob"));
        }
        code |= json_array_append(tokens, json_object_get(one, "token"));
        code |= json_array_append(logprobs, json_object_get(one, "logprob"));
        code |= json_array_append_new(tops, likeliest);
    }
    json_t *lists = json_pack("{s:o,s:o,s:o}", "tokens", tokens, "token_logprobs", logprobs,
                              "top_logprobs", tops);
    return json_object_set_new(choice, "logprobs", lists) || code ? ERR_NO_MEMORY : 0;
}

static bool needs_lists(const struct dialect_stream *s, const json_t *choice)
{
    return !s->chat &&
           json_is_array(json_object_get(json_object_get(choice, "logprobs"), "content"));
}

/* The role goes with the first chunk of a choice. */
static int name_role(json_t *choice, char *flags, struct err *e)
{
    json_t *delta = json_object_get(choice, "delta");
    if (!json_is_object(delta)) {
        delta = json_object();
        if (json_object_set_new(choice, "delta", delta))
            return err_set(e, ERR_NO_MEMORY, "no memory for an answer");
    }
    if (!(*flags & DIALECT_CHOICE_NAMED) && is_null(json_object_get(delta, "role")))
        json_object_set_new(delta, "role", json_string("assistant"));
    *flags |= DIALECT_CHOICE_NAMED;
    return 0;
}

/* One choice of a chunk; *ret_told: it says something, and had not ended before. */
static int take_choice(struct dialect_stream *s, json_t *choice, bool *ret_told, struct err *e)
{
    json_t *delta = json_object_get(choice, "delta");
    char *flags = json_is_object(choice) ? flags_of(s, choice) : NULL;
    if (!flags) return err_set(e, ERR_PROTOCOL, "it sent a choice that is malformed");
    if (*flags & DIALECT_CHOICE_FINISHED) return 0;
    rename_thought(delta);
    if (needs_lists(s, choice) && make_lists(choice))
        return err_set(e, ERR_PROTOCOL, "its log-probabilities are malformed");
    bool speaks = says_something(delta) || json_string_length(json_object_get(choice, "text")) > 0;
    note_choice(s, choice, flags);
    *ret_told = speaks || reason_of(choice) || !is_null(json_object_get(choice, "logprobs"));
    s->produced += speaks;
    return *ret_told && s->chat ? name_role(choice, flags, e) : 0;
}

/* The choices that say nothing go. */
static int take_choices(struct dialect_stream *s, json_t *choices, struct err *e)
{
    for (size_t i = 0; i < json_array_size(choices);) {
        bool told = false;
        int code = take_choice(s, json_array_get(choices, i), &told, e);
        if (code) return code;
        if (told)
            i++;
        else
            json_array_remove(choices, i);
    }
    return 0;
}

/* A message of a whole answer, as the delta of a stream. */
static void make_delta(json_t *choice)
{
    json_t *message = json_object_get(choice, "message"), *calls;
    if (!message) return;
    calls = json_object_get(message, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++)
        if (!json_object_get(json_array_get(calls, i), "index"))
            json_object_set_new(json_array_get(calls, i), "index", json_integer((json_int_t)i));
    json_object_set(choice, "delta", message);
    json_object_del(choice, "message");
}

static int keep_text(const json_t *value, struct buf *out, bool bare, struct err *e)
{
    int code = json_put_value(out, value, bare);
    return code ? err_set(e, code, "no memory for an answer") : 0;
}

static int take_usage(struct dialect_stream *s, const json_t *root, struct err *e)
{
    const json_t *usage = json_object_get(root, "usage");
    if (!json_is_object(usage)) return 0;
    dialect_take_count(json_object_get(usage, "prompt_tokens"), &s->prompt_tokens);
    dialect_take_count(json_object_get(usage, "completion_tokens"), &s->completion_tokens);
    dialect_take_count(
        json_object_get(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"),
        &s->cached_tokens);
    buf_clear(&s->usage);
    return keep_text(usage, &s->usage, false, e);
}

/* Whether it has what clients read of it. */
static bool is_answer(const struct dialect_stream *s, const json_t *choice)
{
    return s->chat ? json_is_object(json_object_get(choice, "message"))
                   : json_is_string(json_object_get(choice, "text"));
}

/* All of the answer, for a client that wants it whole. */
static int take_answer(struct dialect_stream *s, json_t *root, struct err *e)
{
    json_t *choices = json_object_get(root, "choices");
    for (size_t i = 0; i < json_array_size(choices); i++) {
        json_t *choice = json_array_get(choices, i);
        if (!is_answer(s, choice) || !flags_of(s, choice))
            return err_set(e, ERR_PROTOCOL, "it sent a choice that is malformed");
        rename_thought(json_object_get(choice, "message"));
        if (needs_lists(s, choice) && make_lists(choice))
            return err_set(e, ERR_PROTOCOL, "its log-probabilities are malformed");
        s->produced++;
    }
    if (!json_array_size(choices)) return err_set(e, ERR_PROTOCOL, "its answer has no choices");
    return keep_text(root, &s->chunk, true, e);
}

int dialect_pass_decode(struct dialect_stream *s, json_t *root, bool whole, struct err *e)
{
    static const char *const head[] = {"id", "object", "created", "model"};
    json_t *choices = json_object_get(root, "choices");
    int code = take_usage(s, root, e);
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        json_object_del(root, head[i]);
    if (whole && !s->streams && !code) {
        code = take_answer(s, root, e);
        s->finished = code == 0;
        s->reason = WIRE_STOP;
        return code;
    }
    if (!s->streams) return code ? code : err_set(e, ERR_PROTOCOL, "it streams unasked");
    for (size_t i = 0; whole && i < json_array_size(choices); i++)
        make_delta(json_array_get(choices, i));
    if (!code) code = take_choices(s, choices, e);
    if (code) return code;
    json_object_del(root, "usage");
    if (json_array_size(choices) || json_object_get(root, "prompt_filter_results"))
        code = keep_text(root, &s->chunk, true, e);
    if (s->n_finished >= s->choices_asked) {
        s->finished = true;
        s->reason = WIRE_STOP;
    }
    return code;
}
