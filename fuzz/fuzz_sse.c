/*
 * fuzz_sse: any bytes, in any pieces, give the same events and the same verdict. The first bytes of
 * the input choose the pieces.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "net/sse.h"

enum { CUTS = 4, SEEN_MAX = 1 << 22 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int note(void *arg, const char *name, const char *data, size_t n)
{
    CHECK(data[n] == 0);
    CHECK(buf_printf(arg, "[%s|", name) == 0);
    CHECK(buf_append(arg, data, n) == 0);
    return 0;
}

static int feed(const char *stream, size_t n, const uint8_t *cuts, size_t n_cuts, struct buf *seen)
{
    struct sse_parser p;
    int code = 0;
    size_t at = 0;
    sse_parser_init(&p, note, seen);
    for (size_t i = 0; i < n_cuts && !code; i++) {
        size_t take = cuts[i] < n - at ? cuts[i] : n - at;
        code = sse_parser_feed(&p, stream + at, take, NULL);
        at += take;
    }
    if (!code) code = sse_parser_feed(&p, stream + at, n - at, NULL);
    sse_parser_release(&p);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, pieces, single;
    if (size < CUTS) return 0;
    const char *stream = (const char *)data + CUTS;
    buf_init(&whole, SEEN_MAX);
    buf_init(&pieces, SEEN_MAX);
    buf_init(&single, SEEN_MAX);
    int a = feed(stream, size - CUTS, NULL, 0, &whole);
    int b = feed(stream, size - CUTS, data, CUTS, &pieces);
    static uint8_t ones[4096];
    memset(ones, 1, sizeof ones);
    int c = feed(stream, size - CUTS, ones, size < sizeof ones ? size : sizeof ones, &single);
    CHECK(a == b && a == c && whole.len == pieces.len && whole.len == single.len);
    CHECK(memcmp(whole.data, pieces.data, whole.len) == 0);
    CHECK(memcmp(whole.data, single.data, whole.len) == 0);
    buf_release(&whole);
    buf_release(&pieces);
    buf_release(&single);
    return 0;
}
