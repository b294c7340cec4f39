/* openai_answer: answers and chunks in OpenAI's shape, written by hand as one is sent per token;
 * see openai.h. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "proto/json.h"
#include "proto/openai.h"

/* JSON has no infinity; vLLM writes this for what has no probability. */
#define LOGPROB_LEAST -9999.0f

enum { PIECE_TEXT_MAX = 1 << 16 };

void openai_fingerprint(const char *weights_hash, const char *numerics,
                        char ret_fingerprint[OPENAI_FINGERPRINT_MAX])
{
    uint64_t hash = fnv_bytes(FNV_BEGIN, weights_hash, strlen(weights_hash));
    hash = fnv_bytes(hash, numerics, strlen(numerics));
    ret_fingerprint[0] = 0;
    if (weights_hash[0])
        snprintf(ret_fingerprint, OPENAI_FINGERPRINT_MAX, "fp_%010llx",
                 (unsigned long long)(hash & 0xFFFFFFFFFF));
}

static void put_field(struct buf *out, const char *name, uint64_t value)
{
    buf_puts(out, name);
    json_put_u64(out, value);
}

static void put_logprob(struct buf *out, float logprob)
{
    json_put_float(out, logprob >= LOGPROB_LEAST ? logprob : LOGPROB_LEAST);
}

/* A piece that is no whole characters, as text: U+FFFD for each byte that belongs to none; in a
 * completion the bytes by number, as there the text is all that tells pieces apart. */
static void spell_broken(const struct openai_piece *p, bool chat, struct buf *text)
{
    if (!chat) buf_puts(text, "bytes:");
    for (size_t at = 0; at < p->len;) {
        size_t good = chat ? utf8_valid_prefix(p->bytes + at, p->len - at) : 0;
        if (good)
            buf_append(text, p->bytes + at, good);
        else if (chat)
            buf_puts(text, "\xef\xbf\xbd");
        else
            buf_printf(text, "\\x%02x", (unsigned char)p->bytes[at]);
        at += good ? good : 1;
    }
}

static void put_piece(struct buf *out, const struct openai_piece *p, bool chat)
{
    struct buf text;
    if (utf8_valid_prefix(p->bytes, p->len) == p->len) {
        json_put_string(out, p->bytes, p->len);
        return;
    }
    buf_init(&text, PIECE_TEXT_MAX);
    spell_broken(p, chat, &text);
    if (text.error)
        buf_fail(out, text.error);
    else
        json_put_string(out, text.data, text.len);
    buf_release(&text);
}

static void put_entry(struct buf *out, const struct openai_piece *p)
{
    buf_puts(out, "{\"token\":");
    put_piece(out, p, true);
    buf_puts(out, ",\"logprob\":");
    put_logprob(out, p->logprob);
    buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < p->len; i++)
        put_field(out, i ? "," : "", (unsigned char)p->bytes[i]);
    buf_putc(out, ']');
}

static void put_chat_row(struct buf *out, const struct openai_row *row)
{
    put_entry(out, &row->token);
    buf_puts(out, ",\"top_logprobs\":[");
    for (uint32_t k = 0; k < row->n_top; k++) {
        if (k) buf_putc(out, ',');
        put_entry(out, &row->top[k]);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

static void put_completion_token(struct buf *out, const struct openai_row *row)
{
    put_piece(out, &row->token, false);
}

static void put_completion_logprob(struct buf *out, const struct openai_row *row)
{
    put_logprob(out, row->token.logprob);
}

static void put_completion_offset(struct buf *out, const struct openai_row *row)
{
    json_put_u64(out, row->text_offset);
}

static bool same_piece(const struct openai_piece *a, const struct openai_piece *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* An object: of pieces that read the same, the likeliest stands for all. The token itself is always
 * there, whether it is among the likeliest or not. */
static void put_completion_top(struct buf *out, const struct openai_row *row)
{
    buf_putc(out, '{');
    bool itself = false, first = true;
    for (uint32_t k = 0; k <= row->n_top; k++) {
        const struct openai_piece *p = k < row->n_top ? &row->top[k] : &row->token;
        bool seen = k == row->n_top && itself;
        for (uint32_t i = 0; i < k && k < row->n_top; i++)
            seen = seen || same_piece(p, &row->top[i]);
        itself = itself || same_piece(p, &row->token);
        if (seen) continue;
        if (!first) buf_putc(out, ',');
        first = false;
        put_piece(out, p, false);
        buf_putc(out, ':');
        put_logprob(out, p->logprob);
    }
    buf_putc(out, '}');
}

static void put_list(struct buf *out, const struct openai_rows *rows,
                     void (*put)(struct buf *, const struct openai_row *))
{
    struct openai_row row;
    buf_putc(out, '[');
    for (uint32_t i = rows->from; i < rows->to; i++) {
        rows->row(rows->arg, i, &row);
        if (i > rows->from) buf_putc(out, ',');
        put(out, &row);
    }
    buf_putc(out, ']');
}

static void put_rows(struct buf *out, const struct openai_rows *rows, bool chat)
{
    static const struct {
        const char *name;
        void (*put)(struct buf *, const struct openai_row *);
    } lists[] = {{"{\"tokens\":", put_completion_token},
                 {",\"token_logprobs\":", put_completion_logprob},
                 {",\"top_logprobs\":", put_completion_top},
                 {",\"text_offset\":", put_completion_offset}};
    if (!rows) {
        buf_puts(out, "null");
        return;
    }
    if (chat) {
        buf_puts(out, "{\"content\":");
        put_list(out, rows, put_chat_row);
        buf_puts(out, ",\"refusal\":null}");
        return;
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        buf_puts(out, lists[i].name);
        put_list(out, rows, lists[i].put);
    }
    buf_putc(out, '}');
}

static void put_name_or_null(struct buf *out, const char *name)
{
    if (name)
        buf_printf(out, "\"%s\"", name);
    else
        buf_puts(out, "null");
}

static void put_head(struct buf *out, const struct openai_head *h, const char *object)
{
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":", h->id, object);
    json_put_u64(out, h->created);
    buf_printf(out, ",\"model\":\"%s\",\"system_fingerprint\":", h->model);
    put_name_or_null(out, h->fingerprint[0] ? h->fingerprint : NULL);
    buf_puts(out, ",\"choices\":[");
}

static void put_usage(struct buf *out, const struct openai_usage *u)
{
    put_field(out, ",\"usage\":{\"prompt_tokens\":", u->prompt_tokens);
    put_field(out, ",\"completion_tokens\":", u->completion_tokens);
    put_field(out, ",\"total_tokens\":", (uint64_t)u->prompt_tokens + u->completion_tokens);
    put_field(out, ",\"prompt_tokens_details\":{\"cached_tokens\":", u->cached_tokens);
    if (u->reasoning_tokens)
        put_field(out,
                  "},\"completion_tokens_details\":{\"reasoning_tokens\":", u->reasoning_tokens);
    buf_puts(out, "}}");
}

/* What every choice ends with: its rows and why it ended. */
static void put_choice_end(struct buf *out, const struct openai_choice *c, bool chat)
{
    buf_puts(out, ",\"logprobs\":");
    put_rows(out, c->rows, chat);
    buf_puts(out, ",\"finish_reason\":");
    put_name_or_null(out, c->finish_reason);
    buf_putc(out, '}');
}

static void put_index(struct buf *out, uint32_t index)
{
    put_field(out, "{\"index\":", index);
}

/* NAME_n, NAME_ms and the speed that follows. */
static void put_speed(struct buf *out, const char *name, uint32_t n, uint64_t us)
{
    double ms = (double)us / 1e3;
    buf_printf(out, ",\"%s_n\":%u,\"%s_ms\":%.3f,\"%s_per_token_ms\":%.3f,\"%s_per_second\":%.3f",
               name, n, name, ms, name, n ? ms / n : 0.0, name, us ? n * 1e6 / (double)us : 0.0);
}

static void put_timings(struct buf *out, const struct openai_timings *t)
{
    put_field(out, ",\"timings\":{\"cache_n\":", t->cached);
    put_speed(out, "prompt", t->prompt, t->prompt_us);
    put_speed(out, "predicted", t->predicted, t->predicted_us);
    buf_putc(out, '}');
}

static void put_progress(struct buf *out, const struct openai_progress *p)
{
    put_field(out, ",\"prompt_progress\":{\"total\":", p->total);
    put_field(out, ",\"cache\":", p->cached);
    put_field(out, ",\"processed\":", p->processed);
    put_field(out, ",\"time_ms\":", p->us / 1000);
    buf_putc(out, '}');
}

/* What others do not have in their responses. */
static void put_additions(struct buf *out, const struct openai_head *h)
{
    if (h->pdd) {
        buf_puts(out, ",\"pdd\":");
        buf_puts(out, h->pdd);
    }
    if (h->timings) put_timings(out, h->timings);
    if (h->progress) put_progress(out, h->progress);
}

static void put_message(struct buf *out, const struct openai_head *h, const struct openai_choice *c)
{
    put_index(out, c->index);
    buf_puts(out, h->chat ? ",\"message\":{\"role\":\"assistant\",\"refusal\":null,\"content\":"
                          : ",\"text\":");
    json_put_string(out, c->text, c->text_len);
    if (h->chat && c->thought_len) {
        buf_puts(out, ",\"reasoning_content\":");
        json_put_string(out, c->thought, c->thought_len);
    }
    if (h->chat) buf_putc(out, '}');
    put_choice_end(out, c, h->chat);
}

int openai_put_answer(struct buf *out, const struct openai_head *h, const struct openai_choice *c,
                      uint32_t n, const struct openai_usage *usage)
{
    put_head(out, h, h->chat ? "chat.completion" : "text_completion");
    for (uint32_t i = 0; i < n; i++) {
        if (i) buf_putc(out, ',');
        put_message(out, h, &c[i]);
    }
    buf_putc(out, ']');
    put_usage(out, usage);
    put_additions(out, h);
    return buf_putc(out, '}');
}

static void begin_chunk(struct buf *out, const struct openai_head *h)
{
    buf_puts(out, "data: ");
    put_head(out, h, h->chat ? "chat.completion.chunk" : "text_completion");
}

static int end_chunk(struct buf *out, const struct openai_head *h, bool usage_null)
{
    put_additions(out, h);
    return buf_puts(out, usage_null ? ",\"usage\":null}\n\n" : "}\n\n");
}

/* The last chunk of a chat has an empty delta. */
static void put_delta(struct buf *out, const struct openai_choice *c)
{
    put_index(out, c->index);
    if (c->finish_reason && !c->text_len) {
        buf_puts(out, ",\"delta\":{}");
        return;
    }
    buf_puts(out,
             c->thought_len ? ",\"delta\":{\"reasoning_content\":" : ",\"delta\":{\"content\":");
    if (c->thought_len)
        json_put_string(out, c->thought, c->thought_len);
    else
        json_put_string(out, c->text, c->text_len);
    buf_putc(out, '}');
}

static void put_text(struct buf *out, const struct openai_choice *c)
{
    put_index(out, c->index);
    buf_puts(out, ",\"text\":");
    json_put_string(out, c->text, c->text_len);
}

int openai_put_chunk(struct buf *out, const struct openai_head *h, const struct openai_choice *c,
                     bool usage_null)
{
    begin_chunk(out, h);
    if (h->chat)
        put_delta(out, c);
    else
        put_text(out, c);
    put_choice_end(out, c, h->chat);
    buf_putc(out, ']');
    return end_chunk(out, h, usage_null);
}

int openai_put_role(struct buf *out, const struct openai_head *h, uint32_t index, bool usage_null)
{
    begin_chunk(out, h);
    put_index(out, index);
    buf_puts(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                  "\"logprobs\":null,\"finish_reason\":null}]");
    return end_chunk(out, h, usage_null);
}

int openai_put_note(struct buf *out, const struct openai_head *h, bool usage_null)
{
    begin_chunk(out, h);
    buf_putc(out, ']');
    return end_chunk(out, h, usage_null);
}

int openai_put_usage(struct buf *out, const struct openai_head *h, const struct openai_usage *usage)
{
    begin_chunk(out, h);
    buf_putc(out, ']');
    put_usage(out, usage);
    return buf_puts(out, "}\n\n");
}

int openai_put_error(struct buf *out, int status, const char *code, const char *message)
{
    buf_puts(out, "data: ");
    wire_error_body(status, code, message, NULL, out);
    return buf_puts(out, "\n\n");
}

int openai_put_end(struct buf *out)
{
    return buf_puts(out, "data: [DONE]\n\n");
}
