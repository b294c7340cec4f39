/* template_run: what a template sees, and one run of it; see template_impl.h. */
#include <stdio.h>
#include <string.h>

#include "model/text/template_impl.h"
#include "model/text/thought.h"

/* `as_parts`: contents are lists of parts; `as_text`: the arguments of calls are texts. */
struct template_try {
    bool as_parts, as_text;
    bool parts_wanted, raised; /* what came of it */
};

/* Roles whose names a template may build control tokens of ("<|user|>"). */
static const char *const known_roles[] = {"system", "developer", "user",     "assistant",
                                          "model",  "tool",      "function", "ipython"};

static bool is_known_role(const char *role)
{
    for (size_t i = 0; i < sizeof known_roles / sizeof *known_roles; i++)
        if (strcmp(role, known_roles[i]) == 0) return true;
    return false;
}

static struct jinja_value text_of(struct jinja_run *r, const char *text)
{
    return jinja_text(r, text, strlen(text), JINJA_FOREIGN);
}

static struct jinja_value content_of(struct jinja_run *r, const struct chat_message *m,
                                     bool as_parts)
{
    struct jinja_value text = jinja_text(r, m->content, m->content_len, JINJA_FOREIGN);
    if (!as_parts) return text;
    struct jinja_value list = jinja_list(r, 1), part = jinja_dict(r);
    jinja_dict_put(r, part, "type", text_of(r, "text"));
    jinja_dict_put(r, part, "text", text);
    jinja_list_set(list, 0, part);
    return list;
}

/* The fields of a message that its content is not; arguments of calls become values. */
static int put_extras(struct jinja_run *r, const struct chat_prompt *in, uint32_t i, bool as_text,
                      struct jinja_value message, struct err *e)
{
    char what[48];
    struct jinja_value extra;
    const char *json = in->extras ? in->extras[i] : NULL;
    if (!json) return 0;
    snprintf(what, sizeof what, "messages[%u]", i);
    int code = jinja_json(r, json, strlen(json), what, &extra, e);
    if (code) return code;
    if (!as_text) jinja_dict_expand(r, extra, "tool_calls", "function", "arguments");
    jinja_dict_merge(r, message, extra);
    return 0;
}

static int put_messages(struct jinja_run *r, const struct chat_prompt *in,
                        const struct template_try *attempt, struct err *e)
{
    struct jinja_value all = jinja_list(r, in->n);
    for (uint32_t i = 0; i < in->n; i++) {
        const struct chat_message *m = &in->messages[i];
        struct jinja_value message = jinja_dict(r);
        enum jinja_mark mark = is_known_role(m->role) ? JINJA_OWN : JINJA_FOREIGN;
        jinja_dict_put(r, message, "role", jinja_text(r, m->role, strlen(m->role), mark));
        jinja_dict_put(r, message, "content", content_of(r, m, attempt->as_parts));
        int code = put_extras(r, in, i, attempt->as_text, message, e);
        if (code) return code;
        jinja_list_set(all, i, message);
    }
    jinja_set(r, "messages", all);
    return 0;
}

static void put_token_text(struct jinja_run *r, const struct vocab *v, const char *name, int32_t id)
{
    size_t n = 0;
    const char *text = id < 0 ? "" : vocab_spelling(v, id, &n);
    jinja_set(r, name, jinja_text(r, text, n, JINJA_OWN));
}

/* Whether the model may think. Clients send the arguments of thinking to all models; one that does
 * not think has no use for them and does not refuse them. */
static bool thinks(const struct chat_template *t, const struct vocab *v)
{
    return thought_marks_of(t, v) || jinja_mentions(t->jinja, "enable_thinking") ||
           jinja_mentions(t->jinja, "thinking") || jinja_mentions(t->jinja, "reasoning_effort");
}

static int put_arguments(struct jinja_run *r, const struct chat_template *t, const struct vocab *v,
                         const struct chat_prompt *in, struct err *e)
{
    static const char *const own[] = {"messages", "tools", "bos_token", "eos_token",
                                      "add_generation_prompt",
                                      /* of models that think: */
                                      "enable_thinking", "thinking", "reasoning_effort"};
    struct jinja_value arguments;
    char unknown[JINJA_NAME_MAX];
    if (!t->thinks) {
        jinja_set(r, "enable_thinking", jinja_bool(false));
        jinja_set(r, "thinking", jinja_bool(false));
    }
    if (!in->arguments) return 0;
    size_t n_own = sizeof own / sizeof *own - (thinks(t, v) ? 3 : 0);
    int code =
        jinja_json(r, in->arguments, strlen(in->arguments), "chat_template_kwargs", &arguments, e);
    if (code) return code;
    if (jinja_set_all(r, arguments, own, n_own, unknown)) return 0;
    return err_set(e, ERR_UNSUPPORTED, "%s: the chat template has no such argument", unknown);
}

static int put_all(struct jinja_run *r, const struct chat_template *t, const struct vocab *v,
                   const struct chat_prompt *in, const struct template_try *attempt, struct err *e)
{
    struct jinja_value tools = jinja_none();
    int code = put_arguments(r, t, v, in, e);
    if (code == 0) code = put_messages(r, in, attempt, e);
    if (code == 0 && in->tools)
        code = jinja_json(r, in->tools, strlen(in->tools), "tools", &tools, e);
    if (code) return code;
    jinja_set(r, "tools", tools);
    jinja_set(r, "documents", jinja_none());
    jinja_set(r, "add_generation_prompt", jinja_bool(in->generate));
    put_token_text(r, v, "bos_token", vocab_bos(v));
    put_token_text(r, v, "eos_token", vocab_eos(v));
    if (in->now) jinja_run_set_time(r, in->now);
    return 0;
}

static int run(const struct chat_template *t, const struct vocab *v, const struct chat_prompt *in,
               struct template_try *attempt, struct jinja_run **ret_run,
               struct jinja_output *ret_output, struct err *e)
{
    struct jinja_run *r;
    bool tools = in->tools && t->with_tools;
    int code = jinja_run_new(tools ? t->with_tools : t->jinja, &r, e);
    if (code) return code;
    code = put_all(r, t, v, in, attempt, e);
    if (code == 0) code = jinja_render(r, ret_output, &attempt->raised, e);
    attempt->parts_wanted = jinja_wants_parts(r);
    if (code)
        jinja_run_free(r);
    else
        *ret_run = r;
    return code;
}

static bool has_calls(const struct chat_prompt *in)
{
    for (uint32_t i = 0; in->extras && i < in->n; i++)
        if (in->extras[i] && strstr(in->extras[i], "\"tool_calls\"")) return true;
    return false;
}

int template_run(const struct chat_template *t, const struct vocab *v, const struct chat_prompt *in,
                 struct jinja_run **ret_run, struct jinja_output *ret_output, bool *ret_raised,
                 struct err *e)
{
    struct template_try attempt = {0};
    int code = run(t, v, in, &attempt, ret_run, ret_output, e);
    if (attempt.parts_wanted && (code == 0 || code == ERR_BAD_INPUT)) {
        if (code == 0) jinja_run_free(*ret_run);
        attempt.as_parts = true;
        code = run(t, v, in, &attempt, ret_run, ret_output, e);
    }
    if (code == ERR_BAD_INPUT && !attempt.raised && has_calls(in)) {
        struct err ignored = ERR_INIT;
        struct template_try again = {.as_parts = attempt.as_parts, .as_text = true};
        if (run(t, v, in, &again, ret_run, ret_output, &ignored) == 0) code = 0;
    }
    *ret_raised = attempt.raised;
    return code;
}
