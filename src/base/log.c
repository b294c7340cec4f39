/* log: see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/utf8.h"

static atomic_int log_level_max = LOG_INFO;
static atomic_bool log_json;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* One line in the making; what does not fit is left out. */
struct line {
    char text[2048];
    size_t len;
};

void log_set_level(enum log_level level)
{
    atomic_store(&log_level_max, (int)level);
}

void log_set_json(bool json)
{
    atomic_store(&log_json, json);
}

static void __attribute__((format(printf, 2, 0)))
put_v(struct line *l, const char *format, va_list args)
{
    size_t room = sizeof l->text - l->len;
    int n = vsnprintf(l->text + l->len, room, format, args);
    if (n > 0) l->len += (size_t)n < room ? (size_t)n : room - 1;
}

static void __attribute__((format(printf, 2, 3))) put(struct line *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_v(l, format, args);
    va_end(args);
}

/* As a JSON string; bytes beyond ASCII pass as they are. */
static void put_quoted(struct line *l, const char *text)
{
    put(l, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            put(l, "\\%c", c);
        else if (c < 32 || c == 127)
            put(l, "\\u%04x", c);
        else
            put(l, "%c", c);
    }
    put(l, "\"");
}

static void put_field(struct line *l, const struct log_field *f, bool json)
{
    if (json)
        put(l, ",\"%s\":", f->key);
    else
        put(l, " %s=", f->key);
    if (!f->text)
        put(l, "%.10g", f->number);
    else if (json || f->text[strcspn(f->text, " \"\\=\t\r\n")] || !*f->text)
        put_quoted(l, f->text);
    else
        put(l, "%s", f->text);
}

static void put_time(struct line *l)
{
    struct timespec now;
    struct tm utc;
    char when[40];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    put(l, "%s.%03ldZ", when, now.tv_nsec / 1000000);
}

void log_fields(enum log_level level, const char *component, const char *message,
                const struct log_field *fields, size_t n)
{
    if ((int)level > atomic_load_explicit(&log_level_max, memory_order_relaxed)) return;
    bool json = atomic_load_explicit(&log_json, memory_order_relaxed);
    struct line l = {.len = 0};
    if (json) put(&l, "{\"time\":\"");
    put_time(&l);
    if (json) {
        put(&l, "\",\"level\":\"%s\",\"component\":\"%s\",\"message\":", level_names[level],
            component);
        put_quoted(&l, message);
    } else {
        put(&l, " %-5s %s %s", level_names[level], component, message);
        utf8_blank_controls(l.text, l.len); /* a message may name what a stranger sent */
    }
    for (size_t i = 0; i < n; i++)
        put_field(&l, &fields[i], json);
    /* One call, so that lines of several threads do not mix. */
    fprintf(stderr, "%s%s\n", l.text, json ? "}" : "");
}

void log_line(enum log_level level, const char *component, const char *format, ...)
{
    struct line message = {.len = 0};
    va_list args;
    va_start(args, format);
    put_v(&message, format, args);
    va_end(args);
    log_fields(level, component, message.text, NULL, 0);
}
