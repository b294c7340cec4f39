/*
 * Server-sent events: every chunking of a stream gives the same events, as the HTML standard has
 * it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/rng.h"
#include "net/sse.h"

/* Events as text: "[name|data]" each. */
static int note(void *arg, const char *name, const char *data, size_t n)
{
    struct buf *b = arg;
    CHECK(buf_printf(b, "[%s|", name) == 0 && buf_append(b, data, n) == 0 && buf_putc(b, ']') == 0);
    return 0;
}

static const struct {
    const char *stream, *events;
} cases[] = {
    {"data: a\n\n", "[message|a]"},
    {"data:a\n\n", "[message|a]"},
    {"data:  a\n\n", "[message| a]"},
    {"event: token\ndata: {}\n\n", "[token|{}]"},
    {"event: token\r\ndata: {}\r\n\r\n", "[token|{}]"},
    {"event: token\rdata: {}\r\r", "[token|{}]"},
    {"data: a\r\n\r\ndata: b\n\r\n", "[message|a][message|b]"},
    {"data: a\ndata: b\ndata:\n\n", "[message|a\nb\n]"},
    {"data\n\n", "[message|]"},
    {"data\ndata\n\n", "[message|\n]"},
    {"\xEF\xBB\xBF"
     "data: a\n\n",
     "[message|a]"},
    {"\xEF\xBB"
     "data: a\n\ndata: b\n\n",
     "[message|b]"},
    {"\n\n\xEF\xBB\xBF"
     "data: a\n\n",
     ""},
    {": comment\ndata: a\n: another\n\n", "[message|a]"},
    {"id: 7\nretry: 10\nfoo: bar\nnocolon\ndata: a\n\n", "[message|a]"},
    {"event: x\n\ndata: a\n\n", "[message|a]"},
    {"event: x\nevent: y\ndata: a\n\n", "[y|a]"},
    {"data: a: b\n\n", "[message|a: b]"},
    {" data: a\n\n", ""},
    {"Data: a\n\n", ""},
    {"data: unfinished", ""},
    {"data: unfinished\n", ""},
    {"data: \xE2\x82\xAC\n\n", "[message|\xE2\x82\xAC]"},
    {"\n\n\n\ndata: a\n\n\n\n", "[message|a]"},
    {"", ""},
};

static void expect(const char *stream, size_t n, const size_t *cuts, size_t n_cuts,
                   const char *events)
{
    struct sse_parser p;
    struct buf seen;
    struct err e = ERR_INIT;
    buf_init(&seen, 1 << 20);
    sse_parser_init(&p, note, &seen);
    size_t begin = 0;
    for (size_t i = 0; i <= n_cuts; i++) {
        size_t end = i < n_cuts ? cuts[i] : n;
        assert_int_equal(sse_parser_feed(&p, stream + begin, end - begin, &e), 0);
        begin = end;
    }
    assert_string_equal(seen.data, events);
    sse_parser_release(&p);
    buf_release(&seen);
}

/* Catches: state that is lost or doubled between two reads. */
static void all_chunkings(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *stream = cases[c].stream;
        size_t n = strlen(stream), each[256];
        CHECK(n < 256);
        expect(stream, n, NULL, 0, cases[c].events);
        for (size_t i = 0; i < n; i++)
            each[i] = i;
        expect(stream, n, each, n, cases[c].events);
        for (size_t i = 0; i <= n; i++)
            for (size_t j = i; j <= n; j++)
                expect(stream, n, (size_t[]){i, j}, 2, cases[c].events);
    }
}

/* Catches: memory without end for a peer that never ends a line or an event. */
static void too_long(void **state)
{
    static const char *const pieces[] = {"xxxxxxxxxxxxxxxx", "data: xxxxxxxxxxxxxxx\n"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sse_parser p;
        struct buf seen;
        struct err e = ERR_INIT;
        int code = 0;
        buf_init(&seen, 1 << 20);
        sse_parser_init(&p, note, &seen);
        for (size_t fed = 0; fed < 4 * (size_t)SSE_LINE_MAX && !code; fed += 16)
            code = sse_parser_feed(&p, pieces[i], strlen(pieces[i]), &e);
        assert_int_equal(code, ERR_PROTOCOL);
        assert_non_null(strstr(e.text, "longer than"));
        sse_parser_release(&p);
        buf_release(&seen);
    }
}

static int refuse(void *arg, const char *name, const char *data, size_t n)
{
    (void)name, (void)data, (void)n;
    ++*(int *)arg;
    return ERR_CANCELLED;
}

/* Catches: a callback's refusal that is ignored. */
static void callback_stops(void **state)
{
    struct sse_parser p;
    int calls = 0;
    (void)state;
    sse_parser_init(&p, refuse, &calls);
    assert_int_equal(sse_parser_feed(&p, "data: a\n\ndata: b\n\n", 18, NULL), ERR_CANCELLED);
    assert_int_equal(calls, 1);
    sse_parser_release(&p);
}

/* Catches: a formatter that our own parser reads differently, in any chunking. */
static void round_trip(void **state)
{
    struct rng r;
    struct buf stream, want;
    (void)state;
    rng_init(&r, 42, 0);
    buf_init(&stream, 1 << 20);
    buf_init(&want, 1 << 20);
    for (int i = 0; i < 500; i++) {
        char data[64];
        size_t n = rng_below(&r, 60);
        for (size_t k = 0; k < n; k++)
            data[k] = (char)(rng_below(&r, 94) + 33);
        note(&want, "token", data, n);
        assert_int_equal(buf_printf(&stream, "event: token\ndata: %.*s\n\n", (int)n, data), 0);
    }
    for (int round = 0; round < 50; round++) {
        size_t cuts[40];
        for (size_t i = 0; i < 40; i++)
            cuts[i] = i * (stream.len / 40) + rng_below(&r, (uint32_t)(stream.len / 40));
        expect(stream.data, stream.len, cuts, 40, want.data);
    }
    buf_release(&stream);
    buf_release(&want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_chunkings),
        cmocka_unit_test(too_long),
        cmocka_unit_test(callback_stops),
        cmocka_unit_test(round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
