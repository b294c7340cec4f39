/*
 * cloud_story: an answer of OpenAI's endpoints, streamed or whole, for tests of `pdd cloud`. All
 * functions are static.
 */
#ifndef PDD_TESTS_CLOUD_STORY_H
#define PDD_TESTS_CLOUD_STORY_H

#include <jansson.h>

#include "support/cloud_site.h"

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define READER PDD_SOURCE_DIR "/models/pdd-read-small-q6_k.gguf"
#define FOX "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a fox.\"}]"

static struct site sites[1];
static struct client c;

static struct site *fake_site(const char *script)
{
    struct site *s = &sites[0];
    site_init(s);
    s->fake.script = script;
    return s;
}

static struct site *reader_site(void)
{
    struct site *s = &sites[0];
    site_init(s);
    s->native_path = READER;
    return s;
}

/* ---- an answer, streamed or not ---- */

enum { STORY_CHOICES = 8 };

struct story {
    int status;
    struct story_choice {
        struct buf text, thought;
        char finish[16];
        uint32_t n_rows, n_roles;
    } choices[STORY_CHOICES]; /* by index; of the first also: */
    struct buf text;          /* all text, as it came */
    struct buf pieces;        /* each chunk's text and a '|' */
    char finish[16], param[64], code[64];
    uint32_t n_text, n_error, n_usage, prompt, cached, completion, reasoning;
    bool done;     /* [DONE] came */
    json_t *rows;  /* of a chat: all its logprobs.content */
    json_t *lists; /* of a completion: its last logprobs */
};

static inline void story_release(struct story *t)
{
    for (int i = 0; i < STORY_CHOICES; i++)
        buf_release(&t->choices[i].text), buf_release(&t->choices[i].thought);
    buf_release(&t->text);
    buf_release(&t->pieces);
    json_decref(t->rows);
    json_decref(t->lists);
}

static inline void note_error(struct story *t, const json_t *error)
{
    const char *param = json_string_value(json_object_get(error, "param"));
    const char *code = json_string_value(json_object_get(error, "code"));
    assert_true(json_string_length(json_object_get(error, "message")) > 0);
    assert_non_null(json_string_value(json_object_get(error, "type")));
    t->n_error++;
    snprintf(t->param, sizeof t->param, "%s", param ? param : "");
    snprintf(t->code, sizeof t->code, "%s", code ? code : "");
}

static inline void note_logprobs(struct story *t, json_t *logprobs)
{
    json_t *content = json_object_get(logprobs, "content");
    if (content) assert_int_equal(json_array_extend(t->rows, content), 0);
    if (json_is_object(logprobs) && !content) {
        json_decref(t->lists);
        t->lists = json_incref(logprobs);
    }
}

static inline void note_choice(struct story *t, const json_t *choice)
{
    const json_t *inner = json_object_get(choice, "delta");
    if (!inner) inner = json_object_get(choice, "message");
    const json_t *text = json_object_get(inner ? inner : choice, inner ? "content" : "text");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    json_int_t index = json_integer_value(json_object_get(choice, "index"));
    assert_in_range(index, 0, STORY_CHOICES - 1);
    struct story_choice *k = &t->choices[index];
    assert_string_equal(k->finish, ""); /* nothing comes after the reason */
    if (finish) snprintf(k->finish, sizeof k->finish, "%s", finish);
    buf_append(&k->text, json_string_value(text), json_string_length(text));
    const json_t *thought = json_object_get(inner, "reasoning_content");
    if (thought) assert_true(k->text.len == 0 || json_object_get(choice, "message"));
    buf_append(&k->thought, json_string_value(thought), json_string_length(thought));
    k->n_roles += json_object_get(inner, "role") != NULL;
    k->n_rows +=
        (uint32_t)json_array_size(json_object_get(json_object_get(choice, "logprobs"), "content"));
    if (index > 0) return;
    if (finish) snprintf(t->finish, sizeof t->finish, "%s", finish);
    note_logprobs(t, json_object_get(choice, "logprobs"));
    if (json_string_length(text) == 0) return;
    t->n_text++;
    buf_append(&t->text, json_string_value(text), json_string_length(text));
    buf_append(&t->pieces, json_string_value(text), json_string_length(text));
    buf_putc(&t->pieces, '|');
}

static inline void note_usage(struct story *t, const json_t *usage)
{
    const json_t *details = json_object_get(usage, "completion_tokens_details");
    t->n_usage++;
    t->prompt = (uint32_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
    t->completion = (uint32_t)json_integer_value(json_object_get(usage, "completion_tokens"));
    t->reasoning = (uint32_t)json_integer_value(json_object_get(details, "reasoning_tokens"));
    details = json_object_get(usage, "prompt_tokens_details");
    t->cached = (uint32_t)json_integer_value(json_object_get(details, "cached_tokens"));
    assert_int_equal(json_integer_value(json_object_get(usage, "total_tokens")),
                     t->prompt + t->completion);
}

static inline void note_object(struct story *t, const char *json, size_t n)
{
    json_error_t where;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &where);
    if (!root) fail_msg("%s: %.*s", where.text, (int)n, json);
    const json_t *choices = json_object_get(root, "choices");
    if (json_object_get(root, "error"))
        note_error(t, json_object_get(root, "error"));
    else
        assert_non_null(json_string_value(json_object_get(root, "id")));
    for (size_t i = 0; i < json_array_size(choices); i++)
        note_choice(t, json_array_get(choices, i));
    if (json_is_object(json_object_get(root, "usage")))
        note_usage(t, json_object_get(root, "usage"));
    json_decref(root);
}

static inline int story_event(void *arg, const char *name, const char *data, size_t n)
{
    struct story *t = arg;
    assert_string_equal(name, "message");
    assert_false(t->done);
    if (strcmp(data, "[DONE]") == 0)
        t->done = true;
    else
        note_object(t, data, n);
    return 0;
}

static inline void story_init(struct story *t)
{
    *t = (struct story){.rows = json_array()};
    for (int i = 0; i < STORY_CHOICES; i++)
        buf_init(&t->choices[i].text, RAW_MAX), buf_init(&t->choices[i].thought, RAW_MAX);
    buf_init(&t->text, RAW_MAX);
    buf_init(&t->pieces, RAW_MAX);
}

static inline void story_post(struct story *t, const struct site *s, const char *path,
                              const char *body)
{
    story_init(t);
    client_open(&c, s->port);
    sse_parser_release(&c.sse);
    sse_parser_init(&c.sse, story_event, t);
    client_send(&c, "POST", path, NULL, body, strlen(body));
}

/* Ask and read everything. */
static inline void tell(struct story *t, const struct site *s, const char *path, const char *body)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    const char *length = NULL;
    story_post(t, s, path, body);
    while (!length && !t->done && client_read(&c, 100)) {
        assert_true(clock_us() < until);
        length = c.status && !c.chunked ? strstr(c.raw.data, "Content-Length: ") : NULL;
        if (length && c.body.len < strtoul(length + 16, NULL, 10)) length = NULL;
    }
    t->status = c.status;
    if (!c.chunked) note_object(t, c.body.data, c.body.len);
    client_close(&c);
}

static void tellf(struct story *t, const struct site *s, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static inline void tellf(struct story *t, const struct site *s, const char *path,
                         const char *format, ...)
{
    struct buf body;
    va_list args;
    buf_init(&body, RAW_MAX);
    va_start(args, format);
    assert_int_equal(buf_vprintf(&body, format, args), 0);
    va_end(args);
    tell(t, s, path, body.data);
    buf_release(&body);
}

#endif
