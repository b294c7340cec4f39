/*
 * fuzz_http: the head parser and the chunk decoder of the server. A head is accepted only with all
 * lines ended by CRLF; a chunked body is the same in any pieces. The first byte chooses.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "net/http_parse.h"

enum { BODY_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_head(const char *text, size_t n)
{
    static struct http_head head;
    const char *why = NULL;
    size_t len = http_head_length(text, n);
    CHECK(len <= n);
    if (len == 0) return;
    char *copy = mem_alloc(len); /* exactly, so that reading past it is seen */
    memcpy(copy, text, len);
    int status = http_head_parse(copy, len, &head, &why);
    CHECK(status == 0 || (why && status >= 400 && status < 600));
    if (status == 0) {
        CHECK(head.path[0] == '/' && head.n_fields <= HTTP_FIELDS_MAX);
        CHECK(!(head.chunked && head.content_length));
        CHECK(head.minor == 0 || http_head_field(&head, "host"));
        for (size_t i = 0; i < len; i++)
            CHECK(text[i] != '\n' || (i > 0 && text[i - 1] == '\r'));
    }
    mem_free(copy);
}

static int decode(const char *data, size_t n, size_t step, struct buf *body, size_t *ret_end)
{
    struct http_chunked c = {.state = HTTP_CHUNK_SIZE};
    size_t at = 0;
    int status = 0;
    while (at < n && !status && c.state != HTTP_CHUNK_DONE) {
        size_t used = 0, piece = n - at < step ? n - at : step;
        status = http_chunked_feed(&c, data + at, piece, body, &used);
        CHECK(status || used == piece || c.state == HTTP_CHUNK_DONE);
        at += used;
    }
    *ret_end = at;
    return status ? status : c.state == HTTP_CHUNK_DONE;
}

static void try_chunks(const char *data, size_t n)
{
    struct buf whole, single;
    size_t a_end, b_end;
    buf_init(&whole, BODY_MAX);
    buf_init(&single, BODY_MAX);
    int a = decode(data, n, n, &whole, &a_end), b = decode(data, n, 1, &single, &b_end);
    /* One announces too large a chunk at once and the other too, before its data: same verdict. */
    CHECK(a == b);
    if (a == 1) {
        CHECK(a_end == b_end && whole.len == single.len);
        CHECK(memcmp(whole.data, single.data, whole.len) == 0);
    }
    buf_release(&whole);
    buf_release(&single);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    if (data[0] == 'c')
        try_chunks((const char *)data + 1, size - 1);
    else
        try_head((const char *)data + 1, size - 1);
    return 0;
}
