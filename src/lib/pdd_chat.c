/* pdd_chat: conversations of libpdd; see pdd.h. A file is OpenAI's array of messages. */
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/output.h"
#include "base/utf8.h"
#include "lib/lib_impl.h"
#include "proto/json.h"

enum { FILE_BYTES_MAX = 256 << 20 };

static const char *const roles[] = {"system", "user", "assistant"};

/* A role as a constant; NULL: there is none. */
static const char *role_of(const char *role)
{
    for (size_t i = 0; role && i < sizeof roles / sizeof *roles; i++)
        if (strcmp(role, roles[i]) == 0) return roles[i];
    return NULL;
}

static int add(struct pdd_chat *c, const char *role, const char *text, size_t n, struct err *e)
{
    const char *known = role_of(role);
    if (c->busy) return err_set(e, ERR_BUSY, "the chat has an answer on its way");
    if (!known)
        return err_set(e, ERR_BAD_INPUT, "the role %s is not user, assistant or system",
                       role ? role : "NULL");
    if (known == roles[0] && c->talk.n > 0)
        return err_set(e, ERR_BAD_INPUT, "a system message comes first or not at all");
    if (!text && n > 0) return err_set(e, ERR_BAD_INPUT, "a message without text");
    if (utf8_valid_prefix(text, n) < n)
        return err_set(e, ERR_BAD_INPUT, "the text of a message is not UTF-8");
    return talk_add(&c->talk, known, text, n, NULL, e);
}

static int chat_new(const char *system, pdd_chat **ret_chat, struct err *e)
{
    struct pdd_chat *c = mem_calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_NO_MEMORY, "no memory for a chat");
    c->refs = 1;
    int code = talk_init(&c->talk, PDD_CHAT_MESSAGES, e);
    if (code == 0 && system) code = add(c, roles[0], system, strlen(system), e);
    if (code) {
        lib_chat_unref(c);
        return code;
    }
    *ret_chat = c;
    return 0;
}

int pdd_chat_new(const char *system, pdd_chat **ret_chat, pdd_error *error)
{
    struct err e = ERR_INIT;
    return lib_result(chat_new(system, ret_chat, &e), &e, error);
}

int pdd_chat_add(pdd_chat *c, const char *role, const char *text, size_t length, pdd_error *error)
{
    struct err e = ERR_INIT;
    return lib_result(add(c, role, text, length, &e), &e, error);
}

uint32_t pdd_chat_count(const pdd_chat *c)
{
    return c->talk.n;
}

int pdd_chat_message(const pdd_chat *c, uint32_t index, const char **ret_role,
                     const char **ret_text, size_t *ret_length, pdd_error *error)
{
    struct err e = ERR_INIT;
    if (index >= pdd_chat_count(c))
        return lib_result(err_set(&e, ERR_NOT_FOUND, "message %u of a chat that has %u", index,
                                  pdd_chat_count(c)),
                          &e, error);
    const struct chat_message *m = &c->talk.messages[index];
    if (ret_role) *ret_role = m->role;
    if (ret_text) *ret_text = m->content;
    if (ret_length) *ret_length = m->content_len;
    return lib_result(0, &e, error);
}

int pdd_chat_cut(pdd_chat *c, uint32_t count, pdd_error *error)
{
    struct err e = ERR_INIT;
    if (c->busy)
        return lib_result(err_set(&e, ERR_BUSY, "the chat has an answer on its way"), &e, error);
    while (c->talk.n > count)
        talk_forget_last(&c->talk);
    return lib_result(0, &e, error);
}

static int write_private(const char *path, const struct buf *b, struct err *e)
{
    struct output o;
    int code = output_begin(&o, path, e);
    if (code) return code;
    if (o.temporary[0]) (void)fchmod(o.fd, S_IRUSR | S_IWUSR);
    code = output_append(&o, b->data, b->len, e);
    if (code == 0) return output_commit(&o, e);
    output_abandon(&o);
    return code;
}

int pdd_chat_save(const pdd_chat *c, const char *path, pdd_error *error)
{
    struct err e = ERR_INIT;
    struct buf b;
    buf_init(&b, FILE_BYTES_MAX);
    buf_puts(&b, "[");
    for (uint32_t i = 0; i < pdd_chat_count(c); i++) {
        const struct chat_message *m = &c->talk.messages[i];
        buf_printf(&b, "%s\n  {\"role\": \"%s\", \"content\": ", i ? "," : "", m->role);
        json_put_string(&b, m->content, m->content_len);
        buf_putc(&b, '}');
    }
    int code = buf_puts(&b, "\n]\n");
    if (code)
        err_set(&e, code, "%s: no memory for the chat's JSON, or it exceeds %d bytes", path,
                FILE_BYTES_MAX);
    else
        code = write_private(path, &b, &e);
    buf_release(&b);
    return lib_result(code, &e, error);
}

static int add_json(struct pdd_chat *c, const json_t *m, struct err *e)
{
    const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
    if (!json_is_string(role) || !json_is_string(content) || json_object_size(m) != 2)
        return err_set(e, ERR_UNSUPPORTED,
                       "message %u is not an object of role and content, both texts", c->talk.n);
    if (c->talk.n == PDD_CHAT_MESSAGES)
        return err_set(e, ERR_LIMIT, "more than %d messages", PDD_CHAT_MESSAGES);
    return add(c, json_string_value(role), json_string_value(content), json_string_length(content),
               e);
}

static int load(const char *path, const struct buf *b, struct pdd_chat *c, struct err *e)
{
    json_error_t where;
    json_t *all = json_loadb(b->data, b->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!all) return err_set(e, ERR_BAD_INPUT, "%s: line %d: %s", path, where.line, where.text);
    int code =
        json_is_array(all) ? 0 : err_set(e, ERR_BAD_INPUT, "%s: not an array of messages", path);
    for (size_t i = 0; !code && i < json_array_size(all); i++)
        if ((code = add_json(c, json_array_get(all, i), e))) err_prefix(e, "%s", path);
    json_decref(all);
    return code;
}

int pdd_chat_load(const char *path, pdd_chat **ret_chat, pdd_error *error)
{
    struct err e = ERR_INIT;
    struct buf b;
    struct pdd_chat *c = NULL;
    buf_init(&b, FILE_BYTES_MAX);
    int code = os_read_file(path, &b, &e);
    if (code == 0) code = chat_new(NULL, &c, &e);
    if (code == 0) code = load(path, &b, c, &e);
    buf_release(&b);
    if (code)
        lib_chat_unref(c);
    else
        *ret_chat = c;
    return lib_result(code, &e, error);
}

int lib_chat_settle(struct pdd_chat *c, const struct chat_message *question, const struct buf *text,
                    uint32_t left_out, struct err *e)
{
    c->talk.left_out = left_out;
    talk_settle(&c->talk);
    int code = talk_add(&c->talk, roles[1], question->content, question->content_len, NULL, e);
    if (code) return code;
    code = talk_add(&c->talk, roles[2], text->data, text->len, NULL, e);
    if (code) talk_forget_last(&c->talk);
    return code;
}

void lib_chat_unref(struct pdd_chat *c)
{
    if (!c || --c->refs > 0) return;
    talk_release(&c->talk);
    mem_free(c);
}

void pdd_chat_free(pdd_chat *c)
{
    lib_chat_unref(c);
}
