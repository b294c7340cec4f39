/* json_file: see json_file.h. */
#include "hub/json_file.h"

#include <jansson.h>

#include "base/buf.h"
#include "base/os.h"

json_t *json_file_read(const char *path, size_t max)
{
    struct buf text;
    buf_init(&text, max);
    json_t *all = os_read_file(path, &text, NULL)
                      ? NULL
                      : json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    buf_release(&text);
    return all;
}

static int keep(const char *text, size_t n, void *arg)
{
    return buf_append(arg, text, n);
}

int json_file_write(const char *path, json_t *all, size_t flags, size_t max, struct err *e)
{
    struct buf text;
    buf_init(&text, max);
    int code = all && json_dump_callback(all, keep, &text, flags) == 0
                   ? os_write_file(path, text.data, text.len, e)
                   : err_set(e, ERR_INTERNAL, "%s: what it is to hold is no JSON", path);
    buf_release(&text);
    json_decref(all);
    return code;
}
