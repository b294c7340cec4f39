/* openai_answer: answers and chunks in OpenAI's shape, written by hand as one is sent per token;
 * see openai.h. */
#include <string.h>

#include "base/utf8.h"
#include "proto/json.h"
#include "proto/openai.h"

/* JSON has no infinity; vLLM writes this for what has no probability. */
#define LOGPROB_LEAST -9999.0f

enum { PIECE_TEXT_MAX = 1 << 16 };

static int put_field(struct buf *out, const char *name, uint64_t value)
{
    int code = buf_puts(out, name);
    return code ? code : json_put_u64(out, value);
}

static int put_logprob(struct buf *out, float logprob)
{
    return json_put_float(out, logprob >= LOGPROB_LEAST ? logprob : LOGPROB_LEAST);
}

/* A piece that is no whole characters, as text: U+FFFD for each byte that belongs to none; in a
 * completion the bytes by number, as there the text is all that tells pieces apart. */
static int spell_broken(const struct openai_piece *p, bool chat, struct buf *text)
{
    int code = chat ? 0 : buf_puts(text, "bytes:");
    for (size_t at = 0; at < p->len && !code;) {
        size_t good = chat ? utf8_valid_prefix(p->bytes + at, p->len - at) : 0;
        if (good)
            code = buf_append(text, p->bytes + at, good);
        else if (chat)
            code = buf_puts(text, "\xef\xbf\xbd");
        else
            code = buf_printf(text, "\\x%02x", (unsigned char)p->bytes[at]);
        at += good ? good : 1;
    }
    return code;
}

static int put_piece(struct buf *out, const struct openai_piece *p, bool chat)
{
    if (utf8_valid_prefix(p->bytes, p->len) == p->len)
        return json_put_string(out, p->bytes, p->len);
    struct buf text;
    buf_init(&text, PIECE_TEXT_MAX);
    int code = spell_broken(p, chat, &text);
    if (!code) code = json_put_string(out, text.data, text.len);
    buf_release(&text);
    return code;
}

static int put_entry(struct buf *out, const struct openai_piece *p)
{
    int code = buf_puts(out, "{\"token\":");
    if (!code) code = put_piece(out, p, true);
    if (!code) code = buf_puts(out, ",\"logprob\":");
    if (!code) code = put_logprob(out, p->logprob);
    if (!code) code = buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < p->len && !code; i++)
        code = put_field(out, i ? "," : "", (unsigned char)p->bytes[i]);
    return code ? code : buf_putc(out, ']');
}

static int put_chat_row(struct buf *out, const struct openai_row *row)
{
    int code = put_entry(out, &row->token);
    if (!code) code = buf_puts(out, ",\"top_logprobs\":[");
    for (uint32_t k = 0; k < row->n_top && !code; k++) {
        if (k) code = buf_putc(out, ',');
        if (!code) code = put_entry(out, &row->top[k]);
        if (!code) code = buf_putc(out, '}');
    }
    return code ? code : buf_puts(out, "]}");
}

static int put_completion_token(struct buf *out, const struct openai_row *row)
{
    return put_piece(out, &row->token, false);
}

static int put_completion_logprob(struct buf *out, const struct openai_row *row)
{
    return put_logprob(out, row->token.logprob);
}

static int put_completion_offset(struct buf *out, const struct openai_row *row)
{
    return json_put_u64(out, row->text_offset);
}

static bool same_piece(const struct openai_piece *a, const struct openai_piece *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* An object: of pieces that read the same, the likeliest stands for all. The token itself is always
 * there, whether it is among the likeliest or not. */
static int put_completion_top(struct buf *out, const struct openai_row *row)
{
    int code = buf_putc(out, '{');
    bool itself = false, first = true;
    for (uint32_t k = 0; k <= row->n_top && !code; k++) {
        const struct openai_piece *p = k < row->n_top ? &row->top[k] : &row->token;
        bool seen = k == row->n_top && itself;
        for (uint32_t i = 0; i < k && k < row->n_top; i++)
            seen = seen || same_piece(p, &row->top[i]);
        itself = itself || same_piece(p, &row->token);
        if (seen) continue;
        if (!first) code = buf_putc(out, ',');
        first = false;
        if (!code) code = put_piece(out, p, false);
        if (!code) code = buf_putc(out, ':');
        if (!code) code = put_logprob(out, p->logprob);
    }
    return code ? code : buf_putc(out, '}');
}

static int put_list(struct buf *out, const struct openai_rows *rows,
                    int (*put)(struct buf *, const struct openai_row *))
{
    struct openai_row row;
    int code = buf_putc(out, '[');
    for (uint32_t i = rows->from; i < rows->to && !code; i++) {
        rows->row(rows->arg, i, &row);
        if (i > rows->from) code = buf_putc(out, ',');
        if (!code) code = put(out, &row);
    }
    return code ? code : buf_putc(out, ']');
}

static int put_rows(struct buf *out, const struct openai_rows *rows, bool chat)
{
    static const struct {
        const char *name;
        int (*put)(struct buf *, const struct openai_row *);
    } lists[] = {{"{\"tokens\":", put_completion_token},
                 {",\"token_logprobs\":", put_completion_logprob},
                 {",\"top_logprobs\":", put_completion_top},
                 {",\"text_offset\":", put_completion_offset}};
    if (!rows) return buf_puts(out, "null");
    int code = chat ? buf_puts(out, "{\"content\":") : 0;
    if (chat) {
        if (!code) code = put_list(out, rows, put_chat_row);
        return code ? code : buf_puts(out, ",\"refusal\":null}");
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists && !code; i++) {
        code = buf_puts(out, lists[i].name);
        if (!code) code = put_list(out, rows, lists[i].put);
    }
    return code ? code : buf_putc(out, '}');
}

static int put_head(struct buf *out, const struct openai_head *h, const char *object)
{
    int code = buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":", h->id, object);
    if (!code) code = json_put_u64(out, h->created);
    if (!code) code = buf_printf(out, ",\"model\":\"%s\",\"system_fingerprint\":", h->model);
    if (!code && h->fingerprint[0]) code = buf_printf(out, "\"%s\"", h->fingerprint);
    if (!code && !h->fingerprint[0]) code = buf_puts(out, "null");
    return code ? code : buf_puts(out, ",\"choices\":[");
}

static int put_usage(struct buf *out, const struct openai_usage *u)
{
    int code = put_field(out, ",\"usage\":{\"prompt_tokens\":", u->prompt_tokens);
    if (!code) code = put_field(out, ",\"completion_tokens\":", u->completion_tokens);
    if (!code)
        code =
            put_field(out, ",\"total_tokens\":", (uint64_t)u->prompt_tokens + u->completion_tokens);
    if (!code)
        code = put_field(out, ",\"prompt_tokens_details\":{\"cached_tokens\":", u->cached_tokens);
    return code ? code : buf_puts(out, "}}");
}

/* What every choice ends with: its rows and why it ended. */
static int put_choice_end(struct buf *out, const struct openai_choice *c, bool chat)
{
    int code = buf_puts(out, ",\"logprobs\":");
    if (!code) code = put_rows(out, c->rows, chat);
    if (!code) code = buf_puts(out, ",\"finish_reason\":");
    if (!code && c->finish_reason) code = buf_printf(out, "\"%s\"", c->finish_reason);
    if (!code && !c->finish_reason) code = buf_puts(out, "null");
    return code ? code : buf_puts(out, "}]");
}

int openai_put_answer(struct buf *out, const struct openai_head *h, const struct openai_choice *c,
                      const struct openai_usage *usage)
{
    int code = put_head(out, h, h->chat ? "chat.completion" : "text_completion");
    if (!code)
        code = buf_puts(out, h->chat ? "{\"index\":0,\"message\":{\"role\":\"assistant\","
                                       "\"refusal\":null,\"content\":"
                                     : "{\"index\":0,\"text\":");
    if (!code) code = json_put_string(out, c->text, c->text_len);
    if (!code && h->chat) code = buf_putc(out, '}');
    if (!code) code = put_choice_end(out, c, h->chat);
    if (!code) code = put_usage(out, usage);
    return code ? code : buf_putc(out, '}');
}

static int begin_chunk(struct buf *out, const struct openai_head *h)
{
    int code = buf_puts(out, "data: ");
    return code ? code : put_head(out, h, h->chat ? "chat.completion.chunk" : "text_completion");
}

static int end_chunk(struct buf *out, bool usage_null)
{
    return buf_puts(out, usage_null ? ",\"usage\":null}\n\n" : "}\n\n");
}

/* The last chunk of a chat has an empty delta. */
static int put_delta(struct buf *out, const struct openai_choice *c)
{
    if (c->finish_reason && !c->text_len) return buf_puts(out, "{\"index\":0,\"delta\":{}");
    int code = buf_puts(out, "{\"index\":0,\"delta\":{\"content\":");
    if (!code) code = json_put_string(out, c->text, c->text_len);
    return code ? code : buf_putc(out, '}');
}

int openai_put_chunk(struct buf *out, const struct openai_head *h, const struct openai_choice *c,
                     bool usage_null)
{
    int code = begin_chunk(out, h);
    if (!code && h->chat) code = put_delta(out, c);
    if (!code && !h->chat) code = buf_puts(out, "{\"index\":0,\"text\":");
    if (!code && !h->chat) code = json_put_string(out, c->text, c->text_len);
    if (!code) code = put_choice_end(out, c, h->chat);
    return code ? code : end_chunk(out, usage_null);
}

int openai_put_role(struct buf *out, const struct openai_head *h, bool usage_null)
{
    int code = begin_chunk(out, h);
    if (!code)
        code = buf_puts(out, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                             "\"logprobs\":null,\"finish_reason\":null}]");
    return code ? code : end_chunk(out, usage_null);
}

int openai_put_usage(struct buf *out, const struct openai_head *h, const struct openai_usage *usage)
{
    int code = begin_chunk(out, h);
    if (!code) code = buf_putc(out, ']');
    if (!code) code = put_usage(out, usage);
    return code ? code : buf_puts(out, "}\n\n");
}

int openai_put_error(struct buf *out, int status, const char *code, const char *message)
{
    int result = buf_puts(out, "data: ");
    if (!result) result = wire_error_body(status, code, message, NULL, out);
    return result ? result : buf_puts(out, "\n\n");
}

int openai_put_end(struct buf *out)
{
    return buf_puts(out, "data: [DONE]\n\n");
}
