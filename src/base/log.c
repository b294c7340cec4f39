/* log: see log.h. */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/utf8.h"

static atomic_int log_level_max = LOG_INFO;
static atomic_bool log_json;
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER; /* of the lines as they go out */
static uint64_t log_missing; /* lines dropped since the last notice of it; under log_mutex */
static atomic_ulong log_lost;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

enum { ROOM_FOR_END = 4 };

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

static void put_line(struct line *l, enum log_level level, const char *component,
                     const char *message, const struct log_field *fields, size_t n)
{
    bool json = atomic_load_explicit(&log_json, memory_order_relaxed);
    l->len = 0;
    if (json) put(l, "{\"time\":\"");
    put_time(l);
    if (json) {
        put(l, "\",\"level\":\"%s\",\"component\":\"%s\",\"message\":", level_names[level],
            component);
        put_quoted(l, message);
    } else {
        put(l, " %-5s %s %s", level_names[level], component, message);
        utf8_make_plain(l->text, l->len); /* a message may name what a stranger sent */
    }
    for (size_t i = 0; i < n; i++)
        put_field(l, &fields[i], json);
    if (l->len > sizeof l->text - ROOM_FOR_END) l->len = sizeof l->text - ROOM_FOR_END;
    put(l, json ? "}\n" : "\n");
}

/* Whether the line was written. A pipe that says it is writable has room for PIPE_BUF bytes, and a
 * line is shorter; who else writes to the same pipe may take that room in between. Changing the
 * descriptor to non-blocking would change it for every process that shares it. */
static bool write_line(const struct line *l)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    ssize_t did = send(STDERR_FILENO, l->text, l->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (did < 0 && errno == ENOTSOCK && poll(&p, 1, 0) == 1)
        did = write(STDERR_FILENO, l->text, l->len);
    return did == (ssize_t)l->len;
}

void log_fields(enum log_level level, const char *component, const char *message,
                const struct log_field *fields, size_t n)
{
    if ((int)level > atomic_load_explicit(&log_level_max, memory_order_relaxed)) return;
    struct line l, notice;
    put_line(&l, level, component, message, fields, n);
    pthread_mutex_lock(&log_mutex);
    if (log_missing > 0) {
        const struct log_field missing = {"lines", .number = (double)log_missing};
        put_line(&notice, LOG_WARN, "log", "lines were dropped: they could not be written",
                 &missing, 1);
        if (write_line(&notice)) log_missing = 0;
    }
    if (log_missing > 0 || !write_line(&l)) {
        log_missing++;
        atomic_fetch_add(&log_lost, 1);
    }
    pthread_mutex_unlock(&log_mutex);
}

uint64_t log_dropped(void)
{
    return atomic_load(&log_lost);
}

void log_line(enum log_level level, const char *component, const char *format, ...)
{
    struct line message;
    message.len = 0;
    message.text[0] = 0;
    va_list args;
    va_start(args, format);
    put_v(&message, format, args);
    va_end(args);
    log_fields(level, component, message.text, NULL, 0);
}
