/* template: see template.h. Families are rows of a table (template_family.c); one loop renders
 * them. */
#include "model/text/template.h"

#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "model/text/template_impl.h"

enum { PROMPT_BYTES_MAX = 64 << 20 };
static const char *const role_names[ROLES] = {"system", "user", "assistant"};

int chat_template_open_family(const char *family, struct chat_template **ret_template,
                              struct err *e)
{
    char names[FAMILIES_TEXT_MAX];
    const struct family *f = family_find(family);
    if (!f) {
        family_list(names);
        return err_set(e, ERR_NOT_FOUND, "no chat template family \"%.80s\"; known are %s", family,
                       names);
    }
    struct chat_template *t = mem_calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for a chat template");
    t->family = f;
    t->begins_bos = f->begins_bos;
    t->can_close_thought = f->thoughts == THOUGHTS_QWEN3;
    t->opens_thought = f->thoughts == THOUGHTS_QWQ;
    t->thinks = true;
    *ret_template = t;
    return 0;
}

int chat_template_open(const struct gguf *g, struct chat_template **ret_template, struct err *e)
{
    struct gguf_str text;
    char names[FAMILIES_TEXT_MAX];
    bool known = false;
    if (!gguf_has(g, "tokenizer.chat_template"))
        return err_set(e, ERR_NOT_FOUND, "%s has no chat template; give one with --chat-template",
                       gguf_name(g));
    int code = gguf_text(g, "tokenizer.chat_template", &text, e);
    if (code) return code;
    struct chat_template *t = mem_calloc(1, sizeof *t);
    if (!t || family_recognise(text, t, &known)) {
        mem_free(t);
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for its chat template", gguf_name(g));
    }
    if (!known) {
        mem_free(t);
        family_list(names);
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: its chat template is of no family we know; choose one with --chat-template (%s)",
            gguf_name(g), names);
    }
    t->thinks = true;
    *ret_template = t;
    return 0;
}

void chat_template_close(struct chat_template *t)
{
    mem_free(t);
}

const char *chat_template_family(const struct chat_template *t)
{
    return t->family->name;
}

int chat_template_set_thinking(struct chat_template *t, bool on, struct err *e)
{
    if (!on && !t->can_close_thought)
        return err_set(e, ERR_UNSUPPORTED,
                       "chat template %s has no way to answer without thinking first",
                       t->family->name);
    t->thinks = on;
    return 0;
}

/* Plain text waits in `run` until a control token ends it, so that a template's text and a
 * message's merge as if they were one string. */
struct render {
    const struct chat_template *t;
    const struct family *family;
    const struct vocab *v;
    const struct chat_message *messages;
    uint32_t n;
    const struct chat_message *inside; /* stands in the next user message, before its own text */
    uint32_t last_question;            /* the last user's message that is no result of a tool */
    int32_t swallower;                 /* the token before `run`, or -1 */
    struct buf run;
    struct token_list *out;
    struct err *e;
};

static int flush(struct render *r)
{
    int code = r->run.len ? vocab_encode(r->v, r->run.data, r->run.len, 0, r->out, r->e) : 0;
    buf_clear(&r->run);
    return code;
}

static int add_plain(struct render *r, const char *text, size_t n)
{
    if (r->run.len == 0 && r->swallower >= 0) {
        size_t white = vocab_swallows(r->v, r->swallower, text, n);
        text += white;
        n -= white;
    }
    int code = buf_append(&r->run, text, n);
    if (code == ERR_LIMIT)
        return err_set(r->e, code, "the messages are longer than %d bytes", PROMPT_BYTES_MAX);
    return code ? err_set(r->e, code, "no memory for a prompt of %zu bytes", r->run.len + n) : 0;
}

static int add_token(struct render *r, int32_t id)
{
    int code = flush(r);
    if (code || id < 0) return code;
    r->swallower = id;
    code = token_list_push(r->out, id);
    if (code == ERR_LIMIT)
        return err_set(r->e, code, "the prompt has more than %u tokens", r->out->max);
    return code ? err_set(r->e, code, "no memory for %u tokens", r->out->len) : 0;
}

static int add_text_of_template(struct render *r, const char *text, size_t n)
{
    while (n > 0) {
        size_t at = n, len = 0;
        int32_t id = vocab_next_special(r->v, text, n, true, &at, &len);
        int code = add_plain(r, text, id < 0 ? n : at);
        if (code || id < 0) return code;
        code = add_token(r, id);
        if (code) return code;
        text += at + len;
        n -= at + len;
    }
    return 0;
}

/* A text of the family, in which BOS and EOS are the model's own. */
static int add_template(struct render *r, const char *text)
{
    int code = 0;
    while (*text && code == 0) {
        size_t n = strcspn(text, BOS EOS);
        code = add_text_of_template(r, text, n);
        text += n;
        if (*text && code == 0)
            code = add_token(r, *text++ == BOS[0] ? vocab_bos(r->v) : vocab_eos(r->v));
    }
    return code;
}

struct text {
    const char *from, *to;
};

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct text trim_end(struct text t)
{
    while (t.from < t.to && is_white(t.to[-1]))
        t.to--;
    return t;
}

static struct text trim(struct text t)
{
    while (t.from < t.to && is_white(*t.from))
        t.from++;
    return trim_end(t);
}

static struct text trim_newlines(struct text t, bool end)
{
    while (t.from < t.to && *t.from == '\n')
        t.from++;
    while (end && t.from < t.to && t.to[-1] == '\n')
        t.to--;
    return t;
}

/* The place of the first or last `mark` in t, or NULL. */
static const char *find_mark(struct text t, const char *mark, bool last)
{
    const char *found = NULL, *at = t.from;
    size_t n = strlen(mark);
    while (at < t.to && (at = memmem(at, (size_t)(t.to - at), mark, n)) != NULL) {
        found = at;
        if (!last) break;
        at += n;
    }
    return found;
}

static struct text text_of(const struct chat_message *m)
{
    return (struct text){m->content, m->content + m->content_len};
}

/* Only what follows the last thought of an answer. */
static struct text without_thought(struct text t)
{
    const char *end = find_mark(t, "</think>", true);
    if (end) t.from = end + 8;
    return t;
}

static int add_text(struct render *r, struct text t)
{
    return add_plain(r, t.from, (size_t)(t.to - t.from));
}

/* Qwen3 writes the thoughts of answers that follow the last question (there may be several when
 * tools are used), and an empty one in the last answer. */
static int add_qwen3_answer(struct render *r, uint32_t i)
{
    struct text whole = text_of(&r->messages[i]), thought = {whole.from, whole.from};
    const char *end = find_mark(whole, "</think>", false);
    if (end) {
        thought.to = end;
        while (thought.from < thought.to && thought.to[-1] == '\n')
            thought.to--;
        const char *begin = find_mark(thought, "<think>", true);
        if (begin) thought.from = begin + 7;
        thought = trim_newlines(thought, false);
        whole = trim_newlines(without_thought(whole), false);
    }
    if (i > r->last_question && (i + 1 == r->n || thought.from < thought.to)) {
        int code = add_template(r, "<think>\n");
        if (code == 0) code = add_text(r, trim_newlines(thought, true));
        if (code == 0) code = add_template(r, "\n</think>\n\n");
        if (code) return code;
        whole = trim_newlines(whole, false);
    }
    return add_text(r, whole);
}

static int add_answer(struct render *r, uint32_t i)
{
    struct text t = text_of(&r->messages[i]);
    if (r->family->frames[ASSISTANT].trims) t = trim(t);
    if (r->family->thoughts == THOUGHTS_QWEN3) return add_qwen3_answer(r, i);
    if (r->family->thoughts == THOUGHTS_DEEPSEEK) t = without_thought(t);
    if (r->family->thoughts == THOUGHTS_QWQ && i + 1 < r->n)
        t = trim_newlines(without_thought(t), false);
    return add_text(r, t);
}

/* A user's text after the system message; Llama 2 trims both together. */
static int add_question(struct render *r, uint32_t i)
{
    const struct message_frame *system = &r->family->frames[SYSTEM];
    const char *after = system->after;
    size_t n = strlen(after);
    struct text t = text_of(&r->messages[i]);
    bool whole = r->inside && r->family->trims_whole;
    if (r->family->frames[USER].trims) t = whole ? trim_end(t) : trim(t);
    int code = 0;
    if (r->inside) {
        while (whole && t.from == t.to && n > 0 && is_white(after[n - 1]))
            n--;
        code = add_template(r, system->before);
        if (code == 0) code = add_text(r, text_of(r->inside));
        if (code == 0) code = add_text_of_template(r, after, n);
        r->inside = NULL;
    }
    return code ? code : add_text(r, t);
}

static int add_system(struct render *r, struct text t)
{
    const struct message_frame *frame = &r->family->frames[SYSTEM];
    int code = add_template(r, frame->before);
    if (code == 0) code = add_text(r, frame->trims ? trim(t) : t);
    return code ? code : add_template(r, frame->after);
}

static int add_turn(struct render *r, int role, uint32_t i)
{
    const struct message_frame *frame = &r->family->frames[role];
    bool last = role == ASSISTANT && i + 1 == r->n && r->family->last_after;
    if (role == SYSTEM) return add_system(r, text_of(&r->messages[i]));
    if (r->family->system == SYSTEM_LAST_USER && role == USER && i + 1 == r->n &&
        strcmp(r->messages[0].role, "system") == 0)
        r->inside = &r->messages[0];
    int code = add_template(r, frame->before);
    if (code == 0) code = role == USER ? add_question(r, i) : add_answer(r, i);
    return code ? code : add_template(r, last ? r->family->last_after : frame->after);
}

/* Known roles, in an order that the family's own template would take. */
static int role_of(const struct render *r, uint32_t i, int *ret_role)
{
    const struct family *f = r->family;
    const char *name = r->messages[i].role;
    int role = 0;
    while (role < ROLES && strcmp(name, role_names[role]) != 0)
        role++;
    if (role == ROLES)
        return err_set(r->e, ERR_BAD_INPUT,
                       "messages[%u]: role \"%.40s\" is none of system, user, assistant", i, name);
    if (role == SYSTEM && f->system == SYSTEM_NEVER)
        return err_set(r->e, ERR_BAD_INPUT,
                       "messages[%u]: chat template %s has no place for a system message", i,
                       f->name);
    if (role == SYSTEM && i > 0 && f->system != SYSTEM_ANYWHERE)
        return err_set(r->e, ERR_BAD_INPUT, "messages[%u]: a system message can only come first",
                       i);
    uint32_t first = strcmp(r->messages[0].role, "system") == 0;
    if (f->alternates && role != SYSTEM && (role == USER) != ((i - first) % 2 == 0))
        return err_set(r->e, ERR_BAD_INPUT,
                       "messages[%u]: chat template %s wants user and assistant in turns, the user "
                       "first",
                       i, f->name);
    *ret_role = role;
    return 0;
}

/* What takes the place of a system message that is not there. */
static int add_default_system(struct render *r)
{
    const struct chat_message *m = &r->messages[0];
    bool given = strcmp(m->role, "system") == 0;
    const char *text = r->t->has_default ? r->t->default_system : r->family->default_system;
    if (!text || (given && !(r->t->fills_empty_system && m->content_len == 0))) return 0;
    return add_system(r, (struct text){text, text + strlen(text)});
}

static bool replaced_or_skipped(const struct render *r, int role, uint32_t i)
{
    if (role != SYSTEM || r->messages[i].content_len > 0) return false;
    return r->t->skips_empty_system || (r->t->skips_empty_first && i == 0);
}

static int add_opening(struct render *r)
{
    int code = add_template(r, r->family->generate);
    if (code == 0 && r->t->opens_thought) code = add_template(r, "<think>\n");
    if (code == 0 && !r->t->thinks) code = add_template(r, "<think>\n\n</think>\n\n");
    return code;
}

static int render_all(struct render *r, bool generate)
{
    int code = add_default_system(r), role = 0;
    for (uint32_t i = 0; i < r->n && code == 0; i++) {
        code = role_of(r, i, &role);
        if (code || replaced_or_skipped(r, role, i)) continue;
        if (role == SYSTEM && r->family->system == SYSTEM_LAST_USER) continue;
        if (role == SYSTEM && r->family->system == SYSTEM_FIRST_USER)
            r->inside = &r->messages[i];
        else
            code = add_turn(r, role, i);
    }
    if (code) return code;
    if (r->inside)
        return err_set(r->e, ERR_BAD_INPUT,
                       "messages[1]: template %s needs a user's message after the system message",
                       r->family->name);
    if (generate)
        code = add_opening(r);
    else if (r->family->finish)
        code = add_template(r, r->family->finish);
    return code ? code : flush(r);
}

static bool is_tool_result(struct text t)
{
    static const char begin[] = "<tool_response>", end[] = "</tool_response>";
    size_t n = (size_t)(t.to - t.from), a = sizeof begin - 1, b = sizeof end - 1;
    return n >= b && memcmp(t.from, begin, a) == 0 && memcmp(t.to - b, end, b) == 0;
}

static uint32_t find_last_question(const struct chat_message *messages, uint32_t n)
{
    for (uint32_t i = n; i-- > 0;)
        if (strcmp(messages[i].role, "user") == 0 && !is_tool_result(text_of(&messages[i])))
            return i;
    return n - 1;
}

int chat_template_encode(const struct chat_template *t, const struct vocab *v,
                         const struct chat_message *messages, uint32_t n, bool generate,
                         struct token_list *out, struct err *e)
{
    if (n == 0) return err_set(e, ERR_BAD_INPUT, "there is no message");
    struct render r = {.t = t,
                       .family = t->family,
                       .v = v,
                       .messages = messages,
                       .n = n,
                       .last_question = find_last_question(messages, n),
                       .swallower = -1,
                       .out = out,
                       .e = e};
    buf_init(&r.run, PROMPT_BYTES_MAX);
    bool bos = !t->family->message_bos && (t->begins_bos || vocab_adds_bos(v));
    int code = bos ? add_token(&r, vocab_bos(v)) : 0;
    if (code == 0) code = render_all(&r, generate);
    buf_release(&r.run);
    return code;
}
