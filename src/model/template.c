/* template: see template.h. Families are rows of a table; one loop renders them all. */
#include "model/template.h"

#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "model/gguf.h"

enum { ROLES = 3, MARKS_MAX = 3, PROMPT_BYTES_MAX = 64 << 20, FAMILIES_TEXT_MAX = 200 };
static const char *const role_names[ROLES] = {"system", "user", "assistant"};

struct family {
    const char *name;
    const char *marks[MARKS_MAX]; /* all of them stand in the Jinja text */
    struct {
        const char *before, *after;
    } turns[ROLES]; /* in the order of role_names */
    const char *generate;
};

static const struct family families[] = {
    {"chatml",
     {"<|im_start|>"},
     {{"<|im_start|>system\n", "<|im_end|>\n"},
      {"<|im_start|>user\n", "<|im_end|>\n"},
      {"<|im_start|>assistant\n", "<|im_end|>\n"}},
     "<|im_start|>assistant\n"},
    {"llama3",
     {"<|start_header_id|>", "<|eot_id|>"},
     {{"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
      {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
      {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"}},
     "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"phi3",
     {"<|assistant|>", "<|end|>"},
     {{"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"}},
     "<|assistant|>\n"},
};
enum { FAMILIES = sizeof families / sizeof *families };

struct chat_template {
    const struct family *family;
};

static void list_families(char out[FAMILIES_TEXT_MAX])
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < FAMILIES; i++) {
        size_t n = strlen(families[i].name);
        if (at + n + 3 >= FAMILIES_TEXT_MAX) return;
        if (i > 0) {
            memcpy(out + at, ", ", 2);
            at += 2;
        }
        memcpy(out + at, families[i].name, n + 1);
        at += n;
    }
}

static int open_row(const struct family *family, struct chat_template **ret_template, struct err *e)
{
    struct chat_template *t = mem_alloc(sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for a chat template");
    t->family = family;
    *ret_template = t;
    return 0;
}

int chat_template_open_family(const char *family, struct chat_template **ret_template,
                              struct err *e)
{
    char names[FAMILIES_TEXT_MAX];
    for (int i = 0; i < FAMILIES; i++)
        if (strcmp(families[i].name, family) == 0) return open_row(&families[i], ret_template, e);
    list_families(names);
    return err_set(e, ERR_NOT_FOUND, "no chat template family \"%s\"; known are %s", family, names);
}

static bool matches(const struct family *f, struct gguf_str text)
{
    for (int i = 0; i < MARKS_MAX && f->marks[i]; i++)
        if (!memmem(text.data, text.len, f->marks[i], strlen(f->marks[i]))) return false;
    return true;
}

int chat_template_open(const struct gguf *g, struct chat_template **ret_template, struct err *e)
{
    struct gguf_str text;
    char names[FAMILIES_TEXT_MAX];
    if (!gguf_has(g, "tokenizer.chat_template"))
        return err_set(e, ERR_NOT_FOUND, "%s has no chat template; give one with --chat-template",
                       gguf_name(g));
    int code = gguf_text(g, "tokenizer.chat_template", &text, e);
    if (code) return code;
    for (int i = 0; i < FAMILIES; i++)
        if (matches(&families[i], text)) return open_row(&families[i], ret_template, e);
    list_families(names);
    return err_set(
        e, ERR_UNSUPPORTED,
        "%s: its chat template is of no family we know; choose one with --chat-template (%s)",
        gguf_name(g), names);
}

void chat_template_close(struct chat_template *t)
{
    mem_free(t);
}

const char *chat_template_family(const struct chat_template *t)
{
    return t->family->name;
}

/* Plain text waits in `run` until a control token ends it, so that a template's text and a
 * message's merge as if they were one string. */
struct render {
    const struct vocab *v;
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
    int code = buf_append(&r->run, text, n);
    return code ? err_set(r->e, code, "the messages are longer than %d bytes", PROMPT_BYTES_MAX)
                : 0;
}

static int add_template(struct render *r, const char *text)
{
    size_t n = strlen(text);
    while (n > 0) {
        size_t at = n, len = 0;
        int32_t id = vocab_next_special(r->v, text, n, true, &at, &len);
        int code = add_plain(r, text, id < 0 ? n : at);
        if (code || id < 0) return code;
        code = flush(r);
        if (code == 0 && (code = token_list_push(r->out, id)) != 0)
            err_set(r->e, code, "the prompt has more than %u tokens", r->out->max);
        if (code) return code;
        text += at + len;
        n -= at + len;
    }
    return 0;
}

static int role_of(const struct chat_message *m, uint32_t i, int *ret_role, struct err *e)
{
    for (int r = 0; r < ROLES; r++) {
        if (strcmp(m->role, role_names[r]) == 0) {
            if (r == 0 && i > 0)
                return err_set(e, ERR_BAD_INPUT,
                               "messages[%u]: a system message can only come first", i);
            *ret_role = r;
            return 0;
        }
    }
    return err_set(e, ERR_BAD_INPUT,
                   "messages[%u]: role \"%.40s\" is none of system, user, assistant", i, m->role);
}

static int render_all(const struct chat_template *t, struct render *r,
                      const struct chat_message *messages, uint32_t n, bool generate)
{
    int code = 0;
    for (uint32_t i = 0; i < n && code == 0; i++) {
        int role = 0;
        code = role_of(&messages[i], i, &role, r->e);
        if (code == 0) code = add_template(r, t->family->turns[role].before);
        if (code == 0) code = add_plain(r, messages[i].content, messages[i].content_len);
        if (code == 0) code = add_template(r, t->family->turns[role].after);
    }
    if (code == 0 && generate) code = add_template(r, t->family->generate);
    return code ? code : flush(r);
}

int chat_template_encode(const struct chat_template *t, const struct vocab *v,
                         const struct chat_message *messages, uint32_t n, bool generate,
                         struct token_list *out, struct err *e)
{
    if (n == 0) return err_set(e, ERR_BAD_INPUT, "there is no message");
    struct render r = {.v = v, .out = out, .e = e};
    buf_init(&r.run, PROMPT_BYTES_MAX);
    int code = vocab_adds_bos(v) ? token_list_push(out, vocab_bos(v)) : 0;
    if (code == 0) code = render_all(t, &r, messages, n, generate);
    buf_release(&r.run);
    return code;
}
