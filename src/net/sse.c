/* sse: see sse.h. */
#include "net/sse.h"

#include <string.h>

#include "base/check.h"

void sse_parser_init(struct sse_parser *p, sse_fn *fn, void *arg)
{
    *p = (struct sse_parser){.fn = fn, .arg = arg};
    buf_init(&p->line, SSE_LINE_MAX);
    buf_init(&p->data, SSE_LINE_MAX);
}

void sse_parser_release(struct sse_parser *p)
{
    buf_release(&p->line);
    buf_release(&p->data);
}

static int dispatch(struct sse_parser *p)
{
    int code = 0;
    if (p->any_data) {
        if (p->data.len > 0) /* the line end after the last data line is not part of it */
            p->data.data[--p->data.len] = 0;
        code = p->fn(p->arg, p->name[0] ? p->name : "message", p->data.data, p->data.len);
    }
    buf_clear(&p->data);
    p->any_data = false;
    p->name[0] = 0;
    return code;
}

static int take_field(struct sse_parser *p, const char *field, size_t field_len, const char *value,
                      size_t n, struct err *e)
{
    bool error = field_len == 5 && memcmp(field, "error", 5) == 0;
    if (error) memcpy(p->name, "error", sizeof "error");
    if (error || (field_len == 4 && memcmp(field, "data", 4) == 0)) {
        p->any_data = true;
        if (buf_append(&p->data, value, n) || buf_putc(&p->data, '\n'))
            return err_set(e, ERR_PROTOCOL, "an event of the stream is longer than %d bytes",
                           SSE_LINE_MAX);
    } else if (field_len == 5 && memcmp(field, "event", 5) == 0) {
        size_t len = n < SSE_NAME_MAX - 1 ? n : SSE_NAME_MAX - 1;
        memcpy(p->name, value, len);
        p->name[len] = 0;
    }
    return 0;
}

static int end_of_line(struct sse_parser *p, struct err *e)
{
    int code;
    if (p->line.len == 0) {
        code = dispatch(p);
    } else {
        const char *line = p->line.data, *colon = memchr(line, ':', p->line.len);
        size_t field_len = colon ? (size_t)(colon - line) : p->line.len;
        const char *value = colon ? colon + 1 : line + p->line.len;
        if (colon && *value == ' ') value++;
        code = take_field(p, line, field_len, value, p->line.len - (size_t)(value - line), e);
    }
    buf_clear(&p->line);
    return code;
}

/* The byte order mark that may stand at the very start. Returns how many bytes of it are there. */
static size_t take_bom(struct sse_parser *p, const char *bytes, size_t n, int *ret_code)
{
    static const char bom[] = "\xEF\xBB\xBF";
    size_t i = 0;
    while (i < n && p->bom < 3 && bytes[i] == bom[p->bom]) {
        i++;
        p->bom++;
    }
    if (i == n) return i;
    p->started = true;
    if (p->bom > 0 && p->bom < 3) /* it only looked like one */
        *ret_code = buf_append(&p->line, bom, p->bom);
    return i;
}

int sse_parser_feed(struct sse_parser *p, const char *bytes, size_t n, struct err *e)
{
    int code = 0;
    size_t i = p->started ? 0 : take_bom(p, bytes, n, &code);
    while (i < n && code == 0) {
        bool second = bytes[i] == '\n' && p->after_cr;
        p->after_cr = bytes[i] == '\r';
        if (second) {
            i++;
        } else if (bytes[i] == '\n' || bytes[i] == '\r') {
            i++;
            code = end_of_line(p, e);
        } else {
            size_t begin = i;
            while (i < n && bytes[i] != '\n' && bytes[i] != '\r')
                i++;
            if (buf_append(&p->line, bytes + begin, i - begin))
                code = err_set(e, ERR_PROTOCOL, "a line of the stream is longer than %d bytes",
                               SSE_LINE_MAX);
        }
    }
    return code;
}
