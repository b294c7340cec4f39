/* trace: see trace.h. */
#include "sim/trace.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"

enum { COLUMNS_MAX = 16, SHOWN_MAX = 60 };
#define TIME_MAX_US (1ull << 52)

/* A line of the file, without its end. */
struct line {
    const char *path, *at;
    size_t n;
    uint32_t number;
};

struct reader {
    struct trace t;
    uint32_t room;
    uint64_t room_hashes, first_us;
    int column[3]; /* of time, prompt, answer */
    int columns;
    bool json;
};

static int bad(const struct line *l, struct err *e, const char *what)
{
    int n = (int)(l->n < SHOWN_MAX ? l->n : SHOWN_MAX);
    return err_set(e, ERR_BAD_INPUT, "%s:%u: %s: \"%.*s%s\"", l->path, l->number, what, n, l->at,
                   l->n > SHOWN_MAX ? "..." : "");
}

/* ---- one request ---- */

static int grow(void **data, size_t size, uint64_t n, uint64_t *room, struct err *e)
{
    if (n < *room) return 0;
    uint64_t more = *room ? *room * 2 : 1024;
    void *grown = mem_realloc(*data, (size_t)(more * size));
    if (!grown)
        return err_set(e, ERR_NO_MEMORY, "no memory for a trace of %u requests", (unsigned)n);
    *data = grown;
    *room = more;
    return 0;
}

static int check_length(const struct line *l, double tokens, const char *which, struct err *e)
{
    if (tokens >= 1.0 && tokens <= TRACE_TOKENS_MAX) return 0;
    return err_set(e, ERR_BAD_INPUT, "%s:%u: %s of %.0f tokens: from 1 to %d are possible", l->path,
                   l->number, which, tokens, TRACE_TOKENS_MAX);
}

static int add_request(struct reader *r, const struct line *l, uint64_t at_us, double input,
                       double output, uint64_t hashes_before, struct err *e)
{
    int code = check_length(l, input, "a prompt", e);
    if (code == 0) code = check_length(l, output, "an answer", e);
    if (code) return code;
    struct trace *t = &r->t;
    if (t->n == 0) r->first_us = at_us;
    if (at_us < r->first_us || (t->n > 0 && at_us - r->first_us < t->requests[t->n - 1].at_us))
        return bad(l, e, "this request is earlier than the one before: times must ascend");
    if (t->n == TRACE_REQUESTS_MAX)
        return err_set(e, ERR_LIMIT, "%s:%u: a trace may have at most %d requests", l->path,
                       l->number, TRACE_REQUESTS_MAX);
    uint64_t room = r->room;
    code = grow((void **)&t->requests, sizeof *t->requests, t->n, &room, e);
    if (code) return code;
    r->room = (uint32_t)room;
    t->requests[t->n++] =
        (struct trace_request){.at_us = at_us - r->first_us,
                               .input = (uint32_t)input,
                               .output = (uint32_t)output,
                               .first_hash = hashes_before,
                               .n_hashes = (uint32_t)(t->n_hashes - hashes_before)};
    return 0;
}

/* ---- CSV ---- */

/* The next field of a line; returns where the one after it begins, or NULL. */
static const char *next_field(const struct line *l, const char *from, size_t *ret_n)
{
    const char *end = l->at + l->n, *comma = memchr(from, ',', (size_t)(end - from));
    *ret_n = (size_t)((comma ? comma : end) - from);
    return comma ? comma + 1 : NULL;
}

static int read_head(struct reader *r, const struct line *l, struct err *e)
{
    static const char *const names[] = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"};
    const char *from = l->at;
    r->column[0] = r->column[1] = r->column[2] = -1;
    for (r->columns = 0; from; r->columns++) {
        size_t n;
        const char *field = from;
        int which = -1;
        from = next_field(l, from, &n);
        for (int i = 0; i < 3; i++)
            if (strlen(names[i]) == n && memcmp(field, names[i], n) == 0) which = i;
        if (which < 0 || r->column[which] >= 0)
            return err_set(e, ERR_BAD_INPUT,
                           "%s:%u: column \"%.*s\" is %s: TIMESTAMP, ContextTokens and "
                           "GeneratedTokens are expected, or lines of JSON",
                           l->path, l->number, (int)(n < SHOWN_MAX ? n : SHOWN_MAX), field,
                           which < 0 ? "unknown" : "there twice");
        r->column[which] = r->columns;
    }
    if (r->columns == 3) return 0;
    return bad(l, e, "TIMESTAMP, ContextTokens and GeneratedTokens are expected as columns");
}

/* Digits only; -1: they are not, or too many. */
static double whole_number(const char *s, size_t n)
{
    double v = 0.0;
    if (n == 0 || n > 15) return -1.0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') return -1.0;
        v = v * 10.0 + (s[i] - '0');
    }
    return v;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant's algorithm). */
static int64_t days_of(int64_t y, int64_t m, int64_t d)
{
    y -= m <= 2;
    int64_t era = y / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* "+hh:mm", "Z" or nothing: seconds east of UTC; false: something else. */
static bool zone_of(const char *s, size_t n, int64_t *ret_s)
{
    *ret_s = 0;
    if (n == 0 || (n == 1 && *s == 'Z')) return true;
    if (n != 6 || (*s != '+' && *s != '-') || s[3] != ':') return false;
    double h = whole_number(s + 1, 2), m = whole_number(s + 4, 2);
    if (h < 0 || m < 0 || h > 23 || m > 59) return false;
    *ret_s = (int64_t)(h * 3600 + m * 60) * (*s == '-' ? -1 : 1);
    return true;
}

/* "2023-11-16 18:15:46.6805900" to microseconds since 1970; false: it is no time. */
static bool time_of(const char *s, size_t n, uint64_t *ret_us)
{
    static const struct {
        size_t at, n;
        double low, high;
    } parts[] = {{0, 4, 1970, 9999}, {5, 2, 1, 12},  {8, 2, 1, 31},
                 {11, 2, 0, 23},     {14, 2, 0, 59}, {17, 2, 0, 60}};
    double v[6];
    if (n < 19 || s[4] != '-' || s[7] != '-' || (s[10] != ' ' && s[10] != 'T') || s[13] != ':' ||
        s[16] != ':')
        return false;
    for (int i = 0; i < 6; i++) {
        v[i] = whole_number(s + parts[i].at, parts[i].n);
        if (v[i] < parts[i].low || v[i] > parts[i].high) return false;
    }
    size_t at = 19;
    double fraction = 0.0, scale = 1e5;
    if (at < n && s[at] == '.')
        for (at++; at < n && s[at] >= '0' && s[at] <= '9'; at++, scale /= 10.0)
            if (scale > 0.5) fraction += (s[at] - '0') * scale;
    int64_t zone, days = days_of((int64_t)v[0], (int64_t)v[1], (int64_t)v[2]);
    if (!zone_of(s + at, n - at, &zone)) return false;
    int64_t seconds = days * 86400 + (int64_t)(v[3] * 3600 + v[4] * 60 + v[5]) - zone;
    if (seconds < 0) return false;
    *ret_us = (uint64_t)seconds * 1000000u + (uint64_t)fraction;
    return true;
}

static int read_csv(struct reader *r, const struct line *l, struct err *e)
{
    const char *field[3] = {NULL, NULL, NULL}, *from = l->at;
    size_t length[3] = {0, 0, 0};
    int found = 0;
    uint64_t at;
    for (; from; found++) {
        size_t n;
        const char *begin = from;
        from = next_field(l, from, &n);
        for (int i = 0; i < 3; i++)
            if (r->column[i] == found) {
                field[i] = begin;
                length[i] = n;
            }
    }
    if (found != r->columns) return bad(l, e, "three fields are expected");
    if (!time_of(field[0], length[0], &at))
        return bad(l, e, "a time like 2023-11-16 18:15:46.68 is expected");
    double input = whole_number(field[1], length[1]), output = whole_number(field[2], length[2]);
    if (input < 0.0 || output < 0.0) return bad(l, e, "whole numbers of tokens are expected");
    return add_request(r, l, at, input, output, r->t.n_hashes, e);
}

/* ---- JSONL ---- */

static int add_hashes(struct reader *r, const struct line *l, const json_t *list, double input,
                      struct err *e)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list)) return bad(l, e, "hash_ids must be a list");
    if ((double)n * TRACE_BLOCK >= input + TRACE_BLOCK)
        return bad(l, e, "hash_ids has more ids than the prompt has blocks of 512 tokens");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id > (json_int_t)UINT32_MAX)
            return bad(l, e, "hash_ids must hold whole numbers below 2^32");
        int code =
            grow((void **)&r->t.hashes, sizeof *r->t.hashes, r->t.n_hashes, &r->room_hashes, e);
        if (code) return code;
        r->t.hashes[r->t.n_hashes++] = (uint32_t)id;
    }
    return 0;
}

static int read_object(struct reader *r, const struct line *l, json_t *o, struct err *e)
{
    static const char *const names[] = {"timestamp", "input_length", "output_length"};
    double v[3];
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value)
    {
        bool known = strcmp(key, "hash_ids") == 0;
        for (int i = 0; i < 3; i++)
            known = known || strcmp(key, names[i]) == 0;
        if (!known)
            return err_set(e, ERR_BAD_INPUT,
                           "%s:%u: \"%.60s\" is unknown: timestamp, input_length, output_length "
                           "and hash_ids are expected",
                           l->path, l->number, key);
    }
    for (int i = 0; i < 3; i++) {
        const json_t *number = json_object_get(o, names[i]);
        if (!json_is_number(number) || (i > 0 && !json_is_integer(number)))
            return err_set(e, ERR_BAD_INPUT, "%s:%u: %s must be a %snumber", l->path, l->number,
                           names[i], i > 0 ? "whole " : "");
        v[i] = json_number_value(number);
    }
    if (!(v[0] >= 0.0 && v[0] * 1e3 < (double)TIME_MAX_US))
        return bad(l, e, "timestamp must be a time in milliseconds");
    uint64_t before = r->t.n_hashes;
    const json_t *hashes = json_object_get(o, "hash_ids");
    int code = hashes ? add_hashes(r, l, hashes, v[1], e) : 0;
    return code ? code : add_request(r, l, (uint64_t)(v[0] * 1e3), v[1], v[2], before, e);
}

static int read_json(struct reader *r, const struct line *l, struct err *e)
{
    json_error_t at;
    json_t *o = json_loadb(l->at, l->n, JSON_REJECT_DUPLICATES, &at);
    if (!o) return err_set(e, ERR_BAD_INPUT, "%s:%u: %s", l->path, l->number, at.text);
    int code = json_is_object(o) ? read_object(r, l, o, e) : bad(l, e, "an object is expected");
    json_decref(o);
    return code;
}

/* ---- the file ---- */

static int read_line(struct reader *r, const struct line *l, struct err *e)
{
    if (l->number == 1) r->json = l->n > 0 && l->at[0] == '{';
    if (r->json) return read_json(r, l, e);
    return l->number == 1 ? read_head(r, l, e) : read_csv(r, l, e);
}

static int read_lines(struct reader *r, const char *path, const struct os_map *map, struct err *e)
{
    struct line l = {.path = path};
    const char *at = (const char *)map->data, *end = at + map->size;
    int code = 0;
    if (map->size == 0) return err_set(e, ERR_BAD_INPUT, "%s: the file is empty", path);
    while (code == 0 && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        l.at = at;
        l.n = (size_t)((newline ? newline : end) - at);
        if (l.n > 0 && l.at[l.n - 1] == '\r') l.n--;
        l.number++;
        at = newline ? newline + 1 : end;
        code = read_line(r, &l, e);
    }
    if (code == 0 && r->t.n == 0)
        code = err_set(e, ERR_BAD_INPUT, "%s: no request under the head line", path);
    return code;
}

static void name_of(const char *path, char *ret_name)
{
    const char *slash = strrchr(path, '/');
    snprintf(ret_name, TRACE_NAME_MAX, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(ret_name, '.');
    if (dot && dot != ret_name) *dot = 0;
}

int trace_open(const char *path, struct trace *ret_trace, struct err *e)
{
    struct reader r = {.room = 0};
    struct os_map map;
    int code = os_map_open(path, &map, e);
    if (code) return code;
    code = read_lines(&r, path, &map, e);
    os_map_close(&map);
    if (code) {
        trace_release(&r.t);
        return code;
    }
    name_of(path, r.t.name);
    *ret_trace = r.t;
    return 0;
}

void trace_release(struct trace *t)
{
    mem_free(t->requests);
    mem_free(t->hashes);
    *t = (struct trace){.n = 0};
}

uint64_t trace_span_us(const struct trace *t)
{
    uint64_t last = t->requests[t->n - 1].at_us;
    return last + last / t->n + 1;
}
