/* demo_task: see demo_task.h. */
#include "demo/demo_task.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"

static const char *text_of(const struct demo_task *t, const char *key)
{
    return json_string_value(json_object_get(t->root, key));
}

static const json_t *facts_of(const struct demo_task *t)
{
    return json_object_get(t->root, "facts");
}

/* `file` as the task at `path` means it. */
static int path_of(const char *path, const char *file, char to[DEMO_TASK_PATH_MAX], struct err *e)
{
    const char *slash = strrchr(path, '/');
    int folder = slash && file[0] != '/' ? (int)(slash - path) + 1 : 0;
    int n = snprintf(to, DEMO_TASK_PATH_MAX, "%.*s%s", folder, path, file);
    if (n < 0 || n >= DEMO_TASK_PATH_MAX)
        return err_set(e, ERR_LIMIT, "%s: the path of \"%s\" is too long", path, file);
    return 0;
}

/* Fills the task from its root. */
static int read_task(const char *path, struct demo_task *t, struct err *e)
{
    const char *document = text_of(t, "document"), *more = text_of(t, "more");
    t->question = text_of(t, "question");
    if (!document || !t->question)
        return err_set(e, ERR_BAD_INPUT, "%s: \"document\" and \"question\" must be texts", path);
    t->n_facts = (uint32_t)json_array_size(facts_of(t));
    for (uint32_t i = 0; i < t->n_facts; i++)
        if (!json_is_string(json_array_get(facts_of(t), i)))
            return err_set(e, ERR_BAD_INPUT, "%s: \"facts\" must be texts", path);
    if (!more && json_object_get(t->root, "more"))
        return err_set(e, ERR_BAD_INPUT, "%s: \"more\" must be a text", path);
    int code = path_of(path, document, t->document, e);
    return code || !more ? code : path_of(path, more, t->more, e);
}

int demo_task_load(const char *path, struct demo_task *ret_task, struct err *e)
{
    struct demo_task t = {0};
    struct buf text;
    json_error_t at;
    buf_init(&text, DEMO_TASK_BYTES_MAX);
    int code = os_read_file(path, &text, e);
    if (code == 0) t.root = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &at);
    buf_release(&text);
    if (code) return code;
    if (!t.root) return err_set(e, ERR_BAD_INPUT, "%s, line %d: %s", path, at.line, at.text);
    code = read_task(path, &t, e);
    if (code)
        demo_task_release(&t);
    else
        *ret_task = t;
    return code;
}

void demo_task_release(struct demo_task *t)
{
    json_decref(t->root);
    t->root = NULL;
}

uint32_t demo_task_found(const struct demo_task *t, const char *answer)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_facts; i++)
        n += strstr(answer, json_string_value(json_array_get(facts_of(t), i))) != NULL;
    return n;
}
