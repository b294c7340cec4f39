/*
 * fuzz_wire: what a decoder accepts, the encoder writes, and the decoder accepts again to the same
 * bytes. The first byte of the input chooses the message; the rest is its JSON.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "net/sse.h"
#include "proto/wire.h"

enum { ROOM = 1 << 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect_same(const struct buf *a, const struct buf *b)
{
    CHECK(a->len == b->len && memcmp(a->data, b->data, a->len) == 0);
}

static void try_request(const char *json, size_t n)
{
    struct wire_request r, again;
    struct buf first, second;
    struct err e = ERR_INIT;
    if (wire_request_decode(json, n, &r, &e)) {
        CHECK(e.code && e.text[0]);
        return;
    }
    buf_init(&first, ROOM);
    buf_init(&second, ROOM);
    CHECK(wire_request_encode(&r, &first, NULL) == 0);
    CHECK(wire_request_decode(first.data, first.len, &again, NULL) == 0);
    CHECK(wire_request_encode(&again, &second, NULL) == 0);
    expect_same(&first, &second);
    wire_request_release(&r);
    wire_request_release(&again);
    buf_release(&first);
    buf_release(&second);
}

struct reading {
    struct wire_event *event;
    unsigned n;
};

static int read_event(void *arg, const char *name, const char *data, size_t n)
{
    struct reading *r = arg;
    r->n++;
    return wire_event_decode(name, data, n, r->event, NULL);
}

static void try_event(const char *name, const char *json, size_t n)
{
    struct wire_event ev, again;
    struct buf first, second;
    struct err e = ERR_INIT;
    struct reading r = {&again, 0};
    struct sse_parser p;
    wire_event_init(&ev);
    wire_event_init(&again);
    int code = wire_event_decode(name, json, n, &ev, &e);
    CHECK(code == 0 || (e.code == code && e.text[0]));
    if (code == 0) {
        buf_init(&first, ROOM);
        buf_init(&second, ROOM);
        CHECK(wire_event_encode(&ev, &first, NULL) == 0);
        sse_parser_init(&p, read_event, &r);
        CHECK(sse_parser_feed(&p, first.data, first.len, NULL) == 0 && r.n == 1);
        CHECK(wire_event_encode(&again, &second, NULL) == 0);
        expect_same(&first, &second);
        sse_parser_release(&p);
        buf_release(&first);
        buf_release(&second);
    }
    wire_event_release(&ev);
    wire_event_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"grant", "progress", "refined", "token", "done", "error"};
    if (size < 1) return 0;
    const char *json = (const char *)data + 1;
    size_t n = size - 1;
    if (data[0] >= '1' && data[0] <= '6') {
        try_event(names[data[0] - '1'], json, n);
    } else if (data[0] == '7') {
        uint32_t tokens_max = 0;
        if (wire_patch_decode(json, n, &tokens_max, NULL) == 0) CHECK(tokens_max > 0);
    } else if (data[0] == '8') {
        char text[64];
        wire_error_text(json, n, text, sizeof text);
        CHECK(strlen(text) < sizeof text);
    } else {
        try_request(json, n);
    }
    return 0;
}
