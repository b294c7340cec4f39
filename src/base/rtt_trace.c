/* rtt_trace: see rtt_trace.h. */
#include "base/rtt_trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"

enum { TRACE_BYTES_MAX = 64 << 20 };

void rtt_trace_release(struct rtt_trace *t)
{
    mem_free(t->seconds);
    mem_free(t->rtt_ms);
    *t = (struct rtt_trace){NULL, NULL, 0};
}

/* One "time,rtt" line; 0, or -1 when it is none. */
static int parse_row(const char *line, double *ret_seconds, double *ret_ms)
{
    char *end;
    *ret_seconds = strtod(line, &end);
    if (end == line || *end != ',') return -1;
    const char *second = end + 1;
    *ret_ms = strtod(second, &end);
    return end == second || (*end != '\n' && *end != '\r' && *end != 0) || !(*ret_ms >= 0.0) ||
                   !isfinite(*ret_ms) || !isfinite(*ret_seconds)
               ? -1
               : 0;
}

static int parse_rows(const char *path, const char *text, struct rtt_trace *t, struct err *e)
{
    uint32_t number = 1, room = 0;
    for (const char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
        number++;
        if (t->n == room) {
            room = room ? room * 2 : 1024;
            double *s = mem_realloc(t->seconds, room * sizeof *s);
            t->seconds = s ? s : t->seconds;
            double *m = mem_realloc(t->rtt_ms, room * sizeof *m);
            t->rtt_ms = m ? m : t->rtt_ms;
            if (!s || !m || room > RTT_TRACE_MAX)
                return err_set(e, ERR_LIMIT, "%s: too long", path);
        }
        if (parse_row(line + 1, &t->seconds[t->n], &t->rtt_ms[t->n]) ||
            (t->n > 0 && t->seconds[t->n] < t->seconds[t->n - 1]))
            return err_set(e, ERR_BAD_INPUT, "%s:%u: time_s,rtt_ms expected, times ascending", path,
                           number);
        t->n++;
    }
    return t->n ? 0 : err_set(e, ERR_BAD_INPUT, "%s: no row under the head line", path);
}

int rtt_trace_open(const char *path, struct rtt_trace *ret_trace, struct err *e)
{
    struct buf text;
    struct rtt_trace t = {NULL, NULL, 0};
    buf_init(&text, TRACE_BYTES_MAX);
    int code = os_read_file(path, &text, e);
    if (code == 0) code = parse_rows(path, text.data, &t, e);
    buf_release(&text);
    if (code)
        rtt_trace_release(&t);
    else
        *ret_trace = t;
    return code;
}

double rtt_trace_us(const struct rtt_trace *t, double us)
{
    double first = t->seconds[0], span = t->seconds[t->n - 1] - first;
    double at = first + (span > 0.0 ? fmod(us / 1e6, span) : 0.0);
    uint32_t low = 0, high = t->n - 1;
    while (low < high) {
        uint32_t middle = (low + high + 1) / 2;
        if (t->seconds[middle] <= at)
            low = middle;
        else
            high = middle - 1;
    }
    return t->rtt_ms[low] * 1e3;
}
