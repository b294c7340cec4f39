/*
 * openai_tools: what chats have beside texts: calls of functions and their results in messages, the
 * tools of a request, and arguments of the chat template; see openai.h. They are kept as JSON texts
 * for the template.
 */
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "proto/openai_impl.h"

enum { TOOLS_MAX = 1024, CALLS_MAX = 1024 };

/* JSON as text, from our own heap. */
static int keep_json(const json_t *value, char **ret_text, struct err *e)
{
    struct buf text;
    buf_init(&text, SIZE_MAX);
    mem_free(*ret_text);
    *ret_text = json_put_value(&text, value, false) ? NULL : mem_strdup(text.data);
    buf_release(&text);
    return *ret_text ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for a message");
}

static bool is_function(const json_t *value, const char *type)
{
    const json_t *function = json_object_get(value, "function");
    bool other = type && !json_text_is(json_object_get(value, "type"), type);
    return !other && json_is_string(json_object_get(function, "name"));
}

static int check_calls(const json_t *calls, size_t at, struct err *e)
{
    if (!json_is_array(calls) || json_array_size(calls) > CALLS_MAX)
        return err_set(e, ERR_BAD_INPUT, "messages[%zu].tool_calls must be an array of at most %d",
                       at, CALLS_MAX);
    for (size_t i = 0; i < json_array_size(calls); i++)
        if (!is_function(json_array_get(calls, i), NULL))
            return err_set(e, ERR_UNSUPPORTED,
                           "messages[%zu].tool_calls[%zu]: only calls of a function, with a name, "
                           "are served",
                           at, i);
    return 0;
}

/* Fields of a message that a template may read. */
static const char *const texts[] = {"tool_call_id", "name", "reasoning_content"};

int openai_extra_take(const struct json_t *message, size_t at, char **ret_extra, struct err *e)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    json_t *extra = json_object();
    int code = extra ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for a message");
    if (!code && json_is_array(calls) && json_array_size(calls) == 0) calls = NULL;
    if (!code && calls && !json_is_null(calls)) {
        code = check_calls(calls, at, e);
        if (!code) json_object_set(extra, "tool_calls", (json_t *)(uintptr_t)calls);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !code; i++) {
        json_t *value = json_object_get(message, texts[i]);
        if (!value || json_is_null(value)) continue;
        if (!json_is_string(value))
            code = err_set(e, ERR_BAD_INPUT, "messages[%zu].%s must be a string", at, texts[i]);
        else
            json_object_set(extra, texts[i], value);
    }
    if (!code && json_object_size(extra)) code = keep_json(extra, ret_extra, e);
    json_decref(extra);
    return code;
}

/* Calls of an answer are not told from its text, so only those who want none may give tools. */
int openai_tools_take(const struct json_t *root, char **ret_tools, struct err *e)
{
    const json_t *tools = json_object_get(root, "tools");
    if (!tools || (json_is_array(tools) && json_array_size(tools) == 0)) return 0;
    if (!json_text_is(json_object_get(root, "tool_choice"), "none"))
        return err_set(e, ERR_UNSUPPORTED,
                       "tools is not supported here, but with tool_choice \"none\": leave it out");
    if (!json_is_array(tools) || json_array_size(tools) > TOOLS_MAX)
        return err_set(e, ERR_BAD_INPUT, "tools must be an array of at most %d", TOOLS_MAX);
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (!is_function(json_array_get(tools, i), "function"))
            return err_set(e, ERR_BAD_INPUT,
                           "tools[%zu] must be of type function, with a function that has a name",
                           i);
    return keep_json(tools, ret_tools, e);
}

int openai_arguments_take(const struct json_t *root, char **ret_arguments, char *ret_param,
                          struct err *e)
{
    const json_t *given = json_object_get(root, "chat_template_kwargs");
    json_t *thinking = json_object_get(root, "enable_thinking");
    json_t *effort = json_object_get(root, "reasoning_effort");
    int code = 0;
    if (given && !json_is_object(given)) {
        openai_param_set(ret_param, "chat_template_kwargs");
        return err_set(e, ERR_BAD_INPUT, "chat_template_kwargs must be an object");
    }
    json_t *all = given ? json_copy((json_t *)(uintptr_t)given) : json_object();
    if (!all) return err_set(e, ERR_NO_MEMORY, "no memory for a request");
    if (thinking && !json_is_boolean(thinking)) {
        openai_param_set(ret_param, "enable_thinking");
        code = err_set(e, ERR_BAD_INPUT, "enable_thinking must be true or false");
    } else if (effort && !json_is_string(effort)) {
        openai_param_set(ret_param, "reasoning_effort");
        code = err_set(e, ERR_BAD_INPUT, "reasoning_effort must be a string");
    }
    if (!code && thinking) json_object_set(all, "enable_thinking", thinking);
    if (!code && effort) json_object_set(all, "reasoning_effort", effort);
    if (!code && json_object_size(all)) code = keep_json(all, ret_arguments, e);
    json_decref(all);
    return code;
}
