/* template: see template.h. Families are rows of a table; one loop renders them all. */
#include "model/template.h"

#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "model/gguf.h"

enum { MARKS_MAX = 3, PROMPT_BYTES_MAX = 64 << 20, FAMILIES_TEXT_MAX = 200 };
enum { SYSTEM, USER, ASSISTANT, ROLES };
static const char *const role_names[ROLES] = {"system", "user", "assistant"};

struct family {
    const char *name;
    const char *marks[MARKS_MAX]; /* all of them stand in the Jinja text */
    const char *unless;           /* a mark of another family that looks alike, or NULL */
    struct turn {
        const char *before, *after;
        bool eos; /* the model's EOS stands between the message and `after` */
    } turns[ROLES];
    const char *generate;
    bool trims;         /* messages lose the white space around them */
    bool system_inside; /* the system message stands in the first user's turn, before the text */
};

static const struct family families[] = {
    {.name = "chatml",
     .marks = {"<|im_start|>"},
     .unless = "<|im_sep|>",
     .turns = {{"<|im_start|>system\n", "<|im_end|>\n", false},
               {"<|im_start|>user\n", "<|im_end|>\n", false},
               {"<|im_start|>assistant\n", "<|im_end|>\n", false}},
     .generate = "<|im_start|>assistant\n"},
    {.name = "llama3",
     .marks = {"<|start_header_id|>", "<|eot_id|>"},
     .turns = {{"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>", false},
               {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>", false},
               {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", false}},
     .generate = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .trims = true},
    {.name = "phi3",
     .marks = {"<|assistant|>", "<|end|>"},
     .turns = {{"<|system|>\n", "<|end|>\n", false},
               {"<|user|>\n", "<|end|>\n", false},
               {"<|assistant|>\n", "<|end|>\n", false}},
     .generate = "<|assistant|>\n"},
    {.name = "zephyr",
     .marks = {"<|user|>", "<|assistant|>", "eos_token"},
     .unless = "[gMASK]",
     .turns = {{"<|system|>\n", "\n", true},
               {"<|user|>\n", "\n", true},
               {"<|assistant|>\n", "\n", true}},
     .generate = "<|assistant|>\n"},
    {.name = "gemma",
     .marks = {"<start_of_turn>"},
     .turns = {{"", "\n\n", false},
               {"<start_of_turn>user\n", "<end_of_turn>\n", false},
               {"<start_of_turn>model\n", "<end_of_turn>\n", false}},
     .generate = "<start_of_turn>model\n",
     .trims = true,
     .system_inside = true},
    {.name = "granite",
     .marks = {"<|start_of_role|>", "<|end_of_role|>"},
     .turns = {{"<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n", false},
               {"<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n", false},
               {"<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n", false}},
     .generate = "<|start_of_role|>assistant<|end_of_role|>"},
    {.name = "llama2",
     .marks = {"[INST]", "<<SYS>>"},
     .turns = {{"<<SYS>>\n", "\n<</SYS>>\n\n", false},
               {"[INST] ", " [/INST]", false},
               {" ", "<s>", true}},
     .generate = "",
     .trims = true,
     .system_inside = true},
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

static bool contains(struct gguf_str text, const char *mark)
{
    return memmem(text.data, text.len, mark, strlen(mark)) != NULL;
}

static bool matches(const struct family *f, struct gguf_str text)
{
    for (int i = 0; i < MARKS_MAX && f->marks[i]; i++)
        if (!contains(text, f->marks[i])) return false;
    return !f->unless || !contains(text, f->unless);
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
    const struct family *family;
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
    if (code == ERR_LIMIT)
        return err_set(r->e, code, "the messages are longer than %d bytes", PROMPT_BYTES_MAX);
    return code ? err_set(r->e, code, "no memory for a prompt of %zu bytes", r->run.len + n) : 0;
}

static int add_token(struct render *r, int32_t id)
{
    int code = flush(r);
    if (code || id < 0) return code;
    code = token_list_push(r->out, id);
    if (code == ERR_LIMIT)
        return err_set(r->e, code, "the prompt has more than %u tokens", r->out->max);
    return code ? err_set(r->e, code, "no memory for %u tokens", r->out->len) : 0;
}

static int add_template(struct render *r, const char *text)
{
    size_t n = strlen(text);
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

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int add_content(struct render *r, const struct chat_message *m)
{
    const char *from = m->content, *to = m->content + m->content_len;
    if (r->family->trims) {
        while (from < to && is_white(*from))
            from++;
        while (from < to && is_white(to[-1]))
            to--;
    }
    return add_plain(r, from, (size_t)(to - from));
}

static int role_of(const struct chat_message *m, uint32_t i, int *ret_role, struct err *e)
{
    for (int r = 0; r < ROLES; r++) {
        if (strcmp(m->role, role_names[r]) == 0) {
            if (r == SYSTEM && i > 0)
                return err_set(e, ERR_BAD_INPUT,
                               "messages[%u]: a system message can only come first", i);
            *ret_role = r;
            return 0;
        }
    }
    return err_set(e, ERR_BAD_INPUT,
                   "messages[%u]: role \"%.40s\" is none of system, user, assistant", i, m->role);
}

/* `inside`: a message that stands in this turn before its own, or NULL. */
static int add_turn(struct render *r, int role, const struct chat_message *m,
                    const struct chat_message *inside)
{
    const struct turn *turn = &r->family->turns[role], *system = &r->family->turns[SYSTEM];
    int code = add_template(r, turn->before);
    if (code == 0 && inside) code = add_template(r, system->before);
    if (code == 0 && inside) code = add_content(r, inside);
    if (code == 0 && inside) code = add_template(r, system->after);
    if (code == 0) code = add_content(r, m);
    if (code == 0 && turn->eos) code = add_token(r, vocab_eos(r->v));
    return code ? code : add_template(r, turn->after);
}

static int render_all(struct render *r, const struct chat_message *messages, uint32_t n,
                      bool generate)
{
    const struct chat_message *inside = NULL;
    for (uint32_t i = 0; i < n; i++) {
        int role = 0;
        int code = role_of(&messages[i], i, &role, r->e);
        if (code) return code;
        if (inside && role != USER) break;
        if (role == SYSTEM && r->family->system_inside) {
            inside = &messages[i];
            continue;
        }
        code = add_turn(r, role, &messages[i], inside);
        if (code) return code;
        inside = NULL;
    }
    if (inside)
        return err_set(r->e, ERR_BAD_INPUT,
                       "messages[1]: template %s needs a user's message after the system message",
                       r->family->name);
    int code = generate ? add_template(r, r->family->generate) : 0;
    return code ? code : flush(r);
}

int chat_template_encode(const struct chat_template *t, const struct vocab *v,
                         const struct chat_message *messages, uint32_t n, bool generate,
                         struct token_list *out, struct err *e)
{
    if (n == 0) return err_set(e, ERR_BAD_INPUT, "there is no message");
    struct render r = {.family = t->family, .v = v, .out = out, .e = e};
    buf_init(&r.run, PROMPT_BYTES_MAX);
    int code = vocab_adds_bos(v) ? add_token(&r, vocab_bos(v)) : 0;
    if (code == 0) code = render_all(&r, messages, n, generate);
    buf_release(&r.run);
    return code;
}
