/*
 * dialect_decode: the streams of upstream servers; see dialect.h. What they send besides what
 * is needed is ignored, as they grow fields with every version.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/blank.h"
#include "base/mem.h"
#include "cloud/upstream/dialect_impl.h"
#include "proto/json.h"

/* How many token ids of the prompt another pdd is sent; 0: messages (see encode_pdd). */
static uint32_t ids_sent(const struct dialect_request *q)
{
    if (q->asked && q->asked->messages) return 0;
    if (q->asked && q->asked->prompt) return q->asked->n_prompt;
    return q->tokens ? q->n_tokens - q->n_have : 0;
}

void dialect_stream_init(struct dialect_stream *s, const struct dialect_request *q,
                         const struct vocab *v)
{
    *s = (struct dialect_stream){.dialect = q->model->dialect,
                                 .by_ids = dialect_by_ids(q),
                                 .asked = q->tokens_max,
                                 .n_have = q->n_have,
                                 .prompt_tokens = q->n_tokens - (q->tokens ? q->n_have : 0)};
    const struct openai_pass *p = q->asked ? q->asked->passed : NULL;
    if (p) s->dialect = DIALECT_OPENAI; /* whatever the server is: this is what it speaks then */
    s->passes = p != NULL;
    s->chat = p && p->chat;
    s->streams = p && p->stream;
    s->limited = p && p->limited;
    s->choices_asked = p ? p->choices : 1;
    s->choices_computed = p ? p->computed : 1;
    s->v = s->dialect == DIALECT_PDD ? NULL : v;
    s->match = s->by_ids ? WIRE_TOKENS : WIRE_TEXT;
    token_list_init(&s->ids, DIALECT_EVENT_TOKENS_MAX);
    buf_init(&s->text, DIALECT_TEXT_MAX);
    buf_init(&s->thought, DIALECT_TEXT_MAX);
    buf_init(&s->chunk, DIALECT_CHUNK_MAX);
    buf_init(&s->usage, DIALECT_TEXT_MAX);
    buf_init(&s->choices, OPENAI_CHOICES_MAX);
    wire_event_init(&s->event);
    wire_stream_init(&s->order, ids_sent(q), q->n_have);
}

void dialect_stream_release(struct dialect_stream *s)
{
    token_list_release(&s->ids);
    buf_release(&s->text);
    buf_release(&s->thought);
    buf_release(&s->chunk);
    buf_release(&s->usage);
    buf_release(&s->choices);
    wire_event_release(&s->event);
}

static void finish(struct dialect_stream *s, enum wire_reason reason)
{
    if (!s->finished) s->reason = reason;
    s->finished = true;
}

/* One token of the answer; one that ends it is none. */
static int take_id(struct dialect_stream *s, json_int_t id, struct err *e)
{
    if (s->finished) return 0;
    if (id < 0 || id >= vocab_size(s->v))
        return err_set(
            e, ERR_PROTOCOL,
            "it sent token id %lld, and the vocabulary of --upstream-vocab has %u: is it "
            "the same model?",
            (long long)id, vocab_size(s->v));
    s->seen++;
    if (vocab_is_end(s->v, (int32_t)id)) {
        finish(s, WIRE_STOP);
        return 0;
    }
    s->produced++;
    return token_list_push(&s->ids, (int32_t)id)
               ? err_set(e, ERR_PROTOCOL, "it sent too many tokens at once")
               : 0;
}

static int take_ids(struct dialect_stream *s, const json_t *ids, size_t from, struct err *e)
{
    int code = 0;
    for (size_t i = from; i < json_array_size(ids) && !code; i++) {
        const json_t *id = json_array_get(ids, i);
        code = take_id(s, json_is_integer(id) ? json_integer_value(id) : -1, e);
    }
    return code;
}

static int append(struct buf *out, const json_t *text, struct err *e)
{
    if (!json_is_string(text) ||
        !buf_append(out, json_string_value(text), json_string_length(text)))
        return 0;
    return err_set(e, ERR_PROTOCOL, "it sent too much text at once");
}

/* Text, or parts of it: of type text, and of type thinking, which are texts or parts in turn. */
static int take_text(struct dialect_stream *s, const json_t *text, struct err *e)
{
    int code = 0;
    if (s->by_ids || s->finished) return 0;
    for (size_t i = 0; i < json_array_size(text) && !code; i++) {
        const json_t *part = json_array_get(text, i), *inner = json_object_get(part, "thinking");
        code = append(&s->text, json_object_get(part, "text"), e);
        if (!code) code = append(&s->thought, inner, e);
        for (size_t k = 0; k < json_array_size(inner) && !code; k++)
            code = append(&s->thought, json_object_get(json_array_get(inner, k), "text"), e);
    }
    if (!code) code = append(&s->text, text, e);
    if (s->text.len) s->produced++;
    return code;
}

/* What the model thinks before it answers, where the server parts the two. Some send it under both
 * names. */
static int take_thought(struct dialect_stream *s, const json_t *delta, struct err *e)
{
    const json_t *thought = json_object_get(delta, "reasoning_content");
    if (json_string_length(thought) == 0) thought = json_object_get(delta, "reasoning");
    if (json_string_length(thought) == 0) thought = json_object_get(delta, "thinking");
    return s->by_ids || s->finished ? 0 : append(&s->thought, thought, e);
}

void dialect_take_count(const json_t *value, uint32_t *out)
{
    json_int_t n = json_integer_value(value);
    if (json_is_integer(value) && n >= 0 && n < INT32_MAX) *out = (uint32_t)n;
}

static bool take_progress(struct dialect_stream *s, const json_t *progress)
{
    if (!json_is_object(progress)) return false;
    uint32_t total = 0, done = 0;
    dialect_take_count(json_object_get(progress, "total"), &total);
    dialect_take_count(json_object_get(progress, "processed"), &done);
    dialect_take_count(json_object_get(progress, "cache"), &s->cached_tokens);
    s->progress = total > 0 && done > 0 && done <= total;
    s->total = total;
    s->done = done;
    if (total > 0) s->prompt_tokens = total - (s->by_ids && s->n_have < total ? s->n_have : 0);
    return true;
}

/* ---- OpenAI's: chat and completions ---- */

static void take_usage(struct dialect_stream *s, const json_t *usage)
{
    uint32_t all = 0;
    dialect_take_count(json_object_get(usage, "prompt_tokens"), &all);
    if (all > 0) s->prompt_tokens = all - (s->by_ids && s->n_have < all ? s->n_have : 0);
    dialect_take_count(
        json_object_get(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"),
        &s->cached_tokens);
}

const char *dialect_reason_of(const json_t *value)
{
    const char *reason = json_string_value(value);
    return reason && reason[0] && strcmp(reason, "null") != 0 ? reason : NULL;
}

static void take_finish(struct dialect_stream *s, const char *reason)
{
    static const char *const words[] = {"content_filter", "tool_calls", "function_call"};
    if (s->finished) return;
    if (strcmp(reason, "length") == 0)
        finish(s, s->by_ids && s->produced < s->asked ? WIRE_LENGTH : WIRE_BUDGET);
    else
        finish(s, WIRE_STOP);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(reason, words[i]) == 0)
            snprintf(s->finish_word, sizeof s->finish_word, "%s", reason);
}

/* The choice with index 0, or without one: no other was asked for. */
static const json_t *choice_of(const json_t *root)
{
    const json_t *choices = json_object_get(root, "choices");
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const json_t *choice = json_array_get(choices, i);
        if (json_integer_value(json_object_get(choice, "index")) == 0) return choice;
    }
    return NULL;
}

static int read_openai(struct dialect_stream *s, const json_t *root, struct err *e)
{
    const json_t *choice = choice_of(root), *delta = json_object_get(choice, "delta");
    const json_t *ids = json_object_get(choice, "token_ids"),
                 *text = json_object_get(choice, "text");
    const char *reason = dialect_reason_of(json_object_get(choice, "finish_reason"));
    take_usage(s, json_object_get(root, "usage"));
    if (take_progress(s, json_object_get(root, "prompt_progress"))) return 0;
    if (!s->fingerprint[0])
        dialect_copy_word(json_object_get(root, "system_fingerprint"), s->fingerprint,
                          sizeof s->fingerprint);
    if (!delta) delta = json_object_get(choice, "message"); /* of a whole answer */
    if (!text) text = json_object_get(delta, "content");
    int code = take_thought(s, delta, e);
    if (code) return code;
    if (s->by_ids && json_string_length(text) > 0 && !json_is_array(ids))
        return err_set(e, ERR_UNSUPPORTED, "it gives no token ids (vLLM does from 0.10.2 on)");
    code = s->by_ids ? take_ids(s, ids, 0, e) : take_text(s, text, e);
    if (!code && reason) take_finish(s, reason);
    return code;
}

/* ---- llama-server's /completion ---- */

/* Ids for `missing` tokens that make exactly these bytes: one token, or one for each byte. */
static int fill_hole(struct dialect_stream *s, const char *bytes, size_t n, uint32_t missing,
                     struct err *e)
{
    size_t each = missing == 1 ? n : 1;
    int code = n > 0 && n == missing * each ? 0 : ERR_PROTOCOL;
    for (size_t at = 0; at < n && !code; at += each)
        code = take_id(s, vocab_of_bytes(s->v, bytes + at, each), NULL);
    if (!code) return 0;
    return err_set(
        e, ERR_PROTOCOL,
        "it left out %u token ids inside a character, and its text does not determine them",
        missing);
}

/* It leaves out the ids of tokens that end inside a character: its count of tokens shows the hole,
 * and its text the bytes that are missing before the token that it names. */
static int take_llama_ids(struct dialect_stream *s, const json_t *root, struct err *e)
{
    const json_t *ids = json_object_get(root, "tokens"), *text = json_object_get(root, "content");
    uint32_t predicted = s->seen + (uint32_t)json_array_size(ids);
    dialect_take_count(json_object_get(root, "tokens_predicted"), &predicted);
    if (predicted <= s->seen + json_array_size(ids) || s->finished) return take_ids(s, ids, 0, e);
    uint32_t missing = predicted - s->seen - (uint32_t)json_array_size(ids);
    json_int_t last = json_integer_value(json_array_get(ids, 0));
    size_t n = json_string_length(text);
    int code = last >= 0 && last < vocab_size(s->v)
                   ? vocab_piece(s->v, (int32_t)last, false, &s->text)
                   : ERR_PROTOCOL;
    size_t tail = s->text.len;
    bool ends_so =
        !code && n >= tail && memcmp(json_string_value(text) + n - tail, s->text.data, tail) == 0;
    buf_clear(&s->text);
    if (!ends_so) return err_set(e, ERR_PROTOCOL, "its token ids and its text differ");
    code = fill_hole(s, json_string_value(text), n - tail, missing, e);
    return code ? code : take_ids(s, ids, 0, e);
}

static int read_llama(struct dialect_stream *s, const json_t *root, bool whole, struct err *e)
{
    int code = whole ? take_ids(s, json_object_get(root, "tokens"), 0, e) : 0;
    if (code) return code;
    if (take_progress(s, json_object_get(root, "prompt_progress")))
        return 0; /* it says "tokens": [0] then, and means none */
    if (!json_is_true(json_object_get(root, "stop"))) {
        return take_llama_ids(s, root, e);
    }
    const char *type = json_string_value(json_object_get(root, "stop_type"));
    uint32_t predicted = s->seen;
    dialect_take_count(json_object_get(root, "tokens_predicted"), &predicted);
    if (type && strcmp(type, "limit") == 0)
        finish(s, predicted < s->asked ? WIRE_LENGTH : WIRE_BUDGET);
    else
        finish(s, WIRE_STOP);
    dialect_take_count(json_object_get(json_object_get(root, "timings"), "cache_n"),
                       &s->cached_tokens);
    s->over = true;
    return 0;
}

/* ---- SGLang's /generate ---- */

static int take_sglang_finish(struct dialect_stream *s, const json_t *why, struct err *e)
{
    const char *type = dialect_reason_of(json_object_get(why, "type"));
    if (!type) return 0;
    if (strcmp(type, "abort") == 0)
        return err_set(e, ERR_NET, "it failed: %.300s",
                       json_is_string(json_object_get(why, "message"))
                           ? json_string_value(json_object_get(why, "message"))
                           : "aborted");
    take_finish(s, type);
    return 0;
}

/* The ids of each event are the whole answer so far, or (--incremental-streaming-output) only what
 * is new; its count of tokens tells which. */
static int read_sglang(struct dialect_stream *s, const json_t *root, struct err *e)
{
    const json_t *meta = json_object_get(root, "meta_info"),
                 *ids = json_object_get(root, "output_ids");
    uint32_t all = s->seen;
    size_t n = json_array_size(ids);
    if (!json_is_object(meta)) return 0; /* a sign of life */
    dialect_take_count(json_object_get(meta, "completion_tokens"), &all);
    dialect_take_count(json_object_get(meta, "cached_tokens"), &s->cached_tokens);
    if (all > s->seen && n == 0)
        return err_set(e, ERR_UNSUPPORTED, "it gives no token ids (output_ids)");
    if (!s->finished && n != all && s->seen + n != all)
        return err_set(e, ERR_PROTOCOL, "it counts %u tokens and sent %zu after %u", all, n,
                       s->seen);
    int code = take_ids(s, ids, n == all ? s->seen : 0, e);
    return code ? code : take_sglang_finish(s, json_object_get(meta, "finish_reason"), e);
}

/* ---- another pdd ---- */

static int take_pdd_token(struct dialect_stream *s, struct err *e)
{
    const struct wire_event *ev = &s->event;
    if (ev->index != s->n_have + s->produced)
        return err_set(e, ERR_PROTOCOL, "its token %u came where %u was expected", ev->index,
                       s->n_have + s->produced);
    s->produced++;
    if (token_list_push(&s->ids, ev->token) || buf_append(&s->text, ev->text.data, ev->text.len))
        return err_set(e, ERR_NO_MEMORY, "no memory for a token");
    return 0;
}

static int read_pdd(struct dialect_stream *s, const char *name, const char *data, size_t n,
                    struct err *e)
{
    struct wire_event *ev = &s->event;
    int code = wire_event_decode(name, data, n, ev, e);
    if (!code) code = wire_stream_take(&s->order, ev, e);
    if (code) return code;
    switch (ev->kind) {
    case WIRE_GRANT:
        s->granted = true;
        s->match = ev->match;
        memcpy(s->id, ev->id, sizeof s->id);
        s->prompt_tokens = ev->prompt_tokens;
        s->cached_tokens = ev->cached_tokens;
        return 0;
    case WIRE_PROGRESS:
        s->progress = true;
        s->done = ev->done;
        s->total = ev->total;
        return 0;
    case WIRE_TOKEN:
        return take_pdd_token(s, e);
    case WIRE_DONE:
        finish(s, ev->reason);
        s->over = true;
        return 0;
    case WIRE_ERROR:
        return err_set(e, ERR_NET, "it failed: %.300s", ev->message);
    default:
        return 0;
    }
}

/* ---- errors ---- */

/* The sentence of an error, which is a text, an object, or an array of these; NULL: none. */
static const char *sentence_of(const json_t *error)
{
    static const char *const names[] = {"message",       "msg",    "detail", "error_msg",
                                        "error_message", "reason", "text",   "type"};
    if (json_is_array(error)) error = json_array_get(error, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names && json_is_object(error); i++) {
        const char *text = json_string_value(json_object_get(error, names[i]));
        if (text && text[0]) return text;
    }
    return json_string_value(error);
}

static bool says_something(const json_t *value)
{
    if (json_is_object(value)) return json_object_size(value) > 0;
    if (json_is_array(value)) return json_array_size(value) > 0;
    if (json_is_string(value)) return json_string_length(value) > 0;
    return json_is_true(value) || (json_is_number(value) && json_number_value(value) != 0.0);
}

/* The part of an event that is an error, in any of the usual forms; NULL: it is none. `name`: the
 * event's. */
static const json_t *error_of(const json_t *root, const char *name)
{
    static const char *const members[] = {"error", "errors"};
    const json_t *choices = json_object_get(root, "choices");
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const json_t *value = json_object_get(root, members[i]);
        if (says_something(value)) return value;
    }
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const json_t *choice = json_array_get(choices, i);
        if (says_something(json_object_get(choice, "error")))
            return json_object_get(choice, "error");
        if (json_text_is(json_object_get(choice, "finish_reason"), "error")) return choice;
    }
    if (strcmp(name, "error") == 0 || json_text_is(json_object_get(root, "object"), "error") ||
        json_text_is(json_object_get(root, "type"), "error") ||
        says_something(json_object_get(root, "error_code")))
        return root;
    if (choices || json_object_get(root, "meta_info") || json_object_get(root, "content"))
        return NULL;
    if (says_something(json_object_get(root, "detail"))) return json_object_get(root, "detail");
    bool coded = says_something(json_object_get(root, "code")) &&
                 json_is_string(json_object_get(root, "message"));
    return coded ? root : NULL;
}

/* ---- all ---- */

static int read_object(struct dialect_stream *s, const char *name, json_t *root, bool whole,
                       struct err *e)
{
    const json_t *error = error_of(root, name);
    const char *why = sentence_of(error);
    if (error)
        return err_set(e, ERR_NET, "it failed: %.300s",
                       why && why[0] ? why : "an error without a message");
    if (s->passes && take_progress(s, json_object_get(root, "prompt_progress"))) return 0;
    if (s->passes) return dialect_pass_decode(s, root, whole, e);
    if (s->by_ids && s->dialect == DIALECT_LLAMA) return read_llama(s, root, whole, e);
    if (s->by_ids && s->dialect == DIALECT_SGLANG) return read_sglang(s, root, e);
    return read_openai(s, root, e);
}

static const char *skip_blanks(const char *at, const char *end)
{
    return at + blank_prefix(at, (size_t)(end - at));
}

static int read_json(struct dialect_stream *s, const char *name, const char *data, size_t n,
                     bool whole, struct err *e)
{
    json_t *root;
    int code = json_object_parse(data, n, "its event", &root, e);
    if (code == ERR_BAD_INPUT) {
        char *copy = mem_alloc(n);
        if (copy) memcpy(copy, data, n);
        if (copy && json_mend_halves(copy, n))
            code = json_object_parse(copy, n, "its event", &root, e);
        mem_free(copy);
    }
    if (code) return err_set(e, ERR_PROTOCOL, "it sent data that is no JSON object");
    code = read_object(s, name, root, whole, e);
    json_decref(root);
    return code;
}

/* Data that is neither an object nor the end is a sign of life, unless it is called an error. An
 * object may stand in an array, as Google's errors do. */
static int read_data(struct dialect_stream *s, const char *name, const char *data, size_t n,
                     bool whole, struct err *e)
{
    const char *end = data + n, *at = skip_blanks(data, end);
    end -= blank_suffix(at, (size_t)(end - at));
    n = (size_t)(end - at);
    if (n == 6 && memcmp(at, "[DONE]", 6) == 0) {
        if (!s->finished && !dialect_stream_settled(s))
            return err_set(e, ERR_PROTOCOL, "its stream ended without a reason");
        finish(s, WIRE_STOP);
        s->over = true;
        return 0;
    }
    if (n > 2 && *at == '[' && end[-1] == ']') at = skip_blanks(at + 1, --end);
    n = (size_t)(end - at);
    if (n > 0 && *at == '{') return read_json(s, name, at, n, whole, e);
    if (strcmp(name, "error") != 0) return 0;
    return err_set(e, ERR_NET, "it failed: %.*s", n < 300 ? (int)n : 300, at);
}

bool dialect_stream_settled(const struct dialect_stream *s)
{
    return s->finished || (s->passes && s->n_begun > 0 && s->n_finished == s->n_begun);
}

static void clear_event(struct dialect_stream *s)
{
    s->granted = s->progress = false;
    s->ids.len = 0;
    buf_clear(&s->text);
    buf_clear(&s->thought);
    buf_clear(&s->chunk);
}

int dialect_decode(struct dialect_stream *s, const char *name, const char *data, size_t n,
                   struct err *e)
{
    bool done = s->finished;
    clear_event(s);
    if (s->dialect == DIALECT_PDD) return read_pdd(s, name, data, n, e);
    int code = read_data(s, name, data, n, false, done ? NULL : e);
    return done ? 0 : code; /* what follows a whole answer does not undo it */
}

int dialect_decode_whole(struct dialect_stream *s, const char *data, size_t n, struct err *e)
{
    clear_event(s);
    if (s->dialect == DIALECT_PDD)
        return err_set(e, ERR_PROTOCOL, "the response is no event stream");
    int code = read_data(s, "message", data, n, true, e);
    if (code) return code;
    if (!s->finished && !s->produced && !s->thought.len)
        return err_set(e, ERR_PROTOCOL, "the response is JSON without an answer");
    finish(s, WIRE_STOP);
    s->over = true;
    return 0;
}
