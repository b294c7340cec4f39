/* template: see template.h. */
#include "model/text/template.h"

#include <stdio.h>
#include <string.h>

#include "base/blank.h"
#include "base/mem.h"
#include "base/os.h"
#include "model/text/template_impl.h"

/* ---- opening ---- */

static int open_named(const char *text, size_t n, const char *name,
                      struct chat_template **ret_template, struct err *e)
{
    struct chat_template *t = mem_calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for a chat template");
    snprintf(t->name, sizeof t->name, "%s", name);
    t->thinks = true;
    t->identity = mem_alloc(n + 1);
    int code = t->identity ? jinja_compile(text, n, &t->jinja, e)
                           : err_set(e, ERR_NO_MEMORY, "no memory for a chat template");
    if (code) {
        chat_template_close(t);
        return code;
    }
    memcpy(t->identity, text, n);
    t->identity[n] = 0;
    t->identity_len = n;
    *ret_template = t;
    return 0;
}

int chat_template_open_text(const char *text, size_t n, const char *name,
                            struct chat_template **ret_template, struct err *e)
{
    int code = open_named(text, n, name, ret_template, e);
    if (code) err_prefix(e, "%s", name);
    return code;
}

int chat_template_open_family(const char *family, struct chat_template **ret_template,
                              struct err *e)
{
    char names[FAMILIES_TEXT_MAX];
    const char *text = family_text(family);
    if (!text) {
        family_list(names);
        return err_set(e, ERR_NOT_FOUND, "no chat template family \"%.80s\"; known are %s", family,
                       names);
    }
    int code = open_named(text, strlen(text), family, ret_template, e);
    if (code) return code;
    struct chat_template *t = *ret_template; /* its identity is its name, shorter than its text */
    t->identity_len = strlen(family);
    memcpy(t->identity, family, t->identity_len + 1);
    return 0;
}

/* Such a template would leave out what is asked. Zero bytes count as blank, too. */
static bool is_blank(struct gguf_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] && !blank_is(s.data[i])) return false;
    return true;
}

/* The template with that name among the file's; the plain key counts as "default". */
static bool find_text(const struct gguf *g, const char *name, struct gguf_str *ret_text)
{
    char key[96];
    snprintf(key, sizeof key, "tokenizer.chat_template%s%s", *name ? "." : "", name);
    return gguf_has(g, key) && gguf_text(g, key, ret_text, NULL) == 0;
}

/* The first of `tokenizer.chat_templates`, a list of names. */
static bool find_first(const struct gguf *g, struct gguf_str *ret_text)
{
    struct gguf_array names;
    char name[64];
    if (!gguf_has(g, "tokenizer.chat_templates") ||
        gguf_array(g, "tokenizer.chat_templates", &names, NULL) || names.type != 8)
        return false;
    const uint8_t *at = names.data;
    for (uint64_t i = 0; i < names.n; i++) {
        struct gguf_str s = gguf_array_next_text(&at);
        if (s.len >= sizeof name) continue;
        memcpy(name, s.data, s.len);
        name[s.len] = 0;
        if (find_text(g, name, ret_text)) return true;
    }
    return false;
}

static int open_tool_use(const struct gguf *g, struct chat_template *t, struct err *e)
{
    struct gguf_str text;
    if (!find_text(g, "tool_use", &text)) return 0;
    return jinja_compile(text.data, text.len, &t->with_tools, e);
}

int chat_template_open(const struct gguf *g, struct chat_template **ret_template, struct err *e)
{
    struct gguf_str text = {"", 0};
    struct chat_template *t;
    if (gguf_has(g, "tokenizer.chat_template")) { /* a wrong type is said */
        int wrong = gguf_text(g, "tokenizer.chat_template", &text, e);
        if (wrong) return wrong;
    }
    if (is_blank(text) && !find_text(g, "default", &text)) (void)find_first(g, &text);
    if (is_blank(text)) {
        return err_set(e, ERR_NOT_FOUND, "%s has no chat template; give one with --chat-template",
                       gguf_name(g));
    }
    int code = open_named(text.data, text.len, "of the file", &t, e);
    if (code == 0 && (code = open_tool_use(g, t, e)) != 0) chat_template_close(t);
    if (code == ERR_NO_MEMORY) return err_prefix(e, "%s", gguf_name(g));
    if (code) {
        err_prefix(e, "%s", gguf_name(g));
        char reason[ERR_TEXT_MAX];
        snprintf(reason, sizeof reason, "%s", e ? e->text : "");
        return err_set(e, code, "%s (another can be chosen with --chat-template)", reason);
    }
    *ret_template = t;
    return 0;
}

static int open_file(const char *path, struct chat_template **ret_template, struct err *e)
{
    struct buf text;
    buf_init(&text, JINJA_SOURCE_MAX);
    int code = os_read_file(path, &text, e);
    if (code == 0 && is_blank((struct gguf_str){text.data, text.len}))
        code = err_set(e, ERR_BAD_INPUT, "%s: the chat template is empty", path);
    if (code == 0) code = chat_template_open_text(text.data, text.len, path, ret_template, e);
    buf_release(&text);
    return code;
}

int chat_template_choose(const struct chat_template_choice *choice, const struct gguf *g,
                         struct vocab *v, struct chat_template **ret_template, struct err *e)
{
    struct chat_template *t;
    int code = choice->family ? chat_template_open_family(choice->family, &t, e)
               : choice->file ? open_file(choice->file, &t, e)
                              : chat_template_open(g, &t, e);
    if (code) return code;
    struct gguf_str text = chat_template_identity(t);
    if (choice->file && !choice->family) code = vocab_mend(v, text.data, text.len, e);
    if (code == 0) code = template_learn_end(t, v, e);
    if (code)
        chat_template_close(t);
    else
        *ret_template = t;
    return code;
}

void chat_template_close(struct chat_template *t)
{
    if (!t) return;
    jinja_free(t->jinja);
    jinja_free(t->with_tools);
    mem_free(t->identity);
    mem_free(t);
}

const char *chat_template_family(const struct chat_template *t)
{
    return t->name;
}

struct gguf_str chat_template_identity(const struct chat_template *t)
{
    return (struct gguf_str){t->identity, t->identity_len};
}

bool chat_template_has(const struct chat_template *t, const char *word)
{
    bool family = t->identity_len == strlen(t->name) && strcmp(t->identity, t->name) == 0;
    const char *text = family ? family_text(t->name) : t->identity;
    return text && memmem(text, family ? strlen(text) : t->identity_len, word, strlen(word));
}

int chat_template_set_thinking(struct chat_template *t, bool on, struct err *e)
{
    if (!on && !jinja_mentions(t->jinja, "enable_thinking") &&
        !jinja_mentions(t->jinja, "thinking"))
        return err_set(e, ERR_UNSUPPORTED,
                       "chat template %s has no way to answer without thinking first", t->name);
    t->thinks = on;
    return 0;
}

/* ---- rendering ---- */

/* A role that the template does not even name would be written as it is, or left out in silence. */
static int check_input(const struct chat_template *t, const struct chat_prompt *in, struct err *e)
{
    static const char *const plain[] = {"system", "user", "assistant"};
    const struct jinja_template *jinja = in->tools && t->with_tools ? t->with_tools : t->jinja;
    if (in->n == 0) return err_set(e, ERR_BAD_INPUT, "there is no message");
    for (uint32_t i = 0; i < in->n; i++) {
        const char *role = in->messages[i].role;
        bool known = false;
        for (size_t k = 0; k < sizeof plain / sizeof *plain; k++)
            known = known || strcmp(role, plain[k]) == 0;
        if (!known && !jinja_mentions(jinja, role))
            return err_set(e, ERR_BAD_INPUT,
                           "messages[%u]: role \"%.40s\" is none of system, user, assistant, and "
                           "the chat template does not know it",
                           i, role);
    }
    if (in->tools && !t->with_tools && !jinja_mentions(jinja, "tools"))
        return err_set(e, ERR_UNSUPPORTED, "tools: the chat template has no place for tools");
    return 0;
}

int chat_template_render(const struct chat_template *t, const struct vocab *v,
                         const struct chat_prompt *in, struct token_list *out, struct err *e)
{
    struct jinja_run *r;
    struct jinja_output text;
    bool raised = false;
    int code = check_input(t, in, e);
    if (code) return code;
    code = template_run(t, v, in, &r, &text, &raised, e);
    if (code == ERR_BAD_INPUT && raised && e && strncmp(e->text, "messages[", 9) != 0)
        return err_prefix(e, "messages: the chat template refuses them");
    if (code) return code;
    if (in->n && in->generate && is_blank((struct gguf_str){text.text, text.len}))
        code = err_set(e, ERR_BAD_INPUT, "messages: the chat template makes no text of them");
    else
        code = template_tokens(v, &text, out, e);
    jinja_run_free(r);
    return code;
}

int chat_template_encode(const struct chat_template *t, const struct vocab *v,
                         const struct chat_message *messages, uint32_t n, bool generate,
                         struct token_list *out, struct err *e)
{
    struct chat_prompt in = {.messages = messages, .n = n, .generate = generate};
    return chat_template_render(t, v, &in, out, e);
}
