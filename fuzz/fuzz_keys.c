/* fuzz_keys: a line of the key file. What is accepted means the same when printed and read again.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "cloud/api/keys.h"

enum { LINE_MAX_BYTES = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct key_line line, again;
    struct err e = ERR_INIT;
    char *copy = mem_alloc(size); /* exactly, so that reading past it is seen */
    memcpy(copy, data, size);
    int code = key_line_parse(copy, size, &line, &e);
    CHECK(code == 0 || code == 1 || e.text[0]);
    if (code == 0) {
        struct buf b;
        buf_init(&b, LINE_MAX_BYTES);
        CHECK(key_line_print(&line, &b) == 0);
        CHECK(key_line_parse(b.data, b.len, &again, &e) == 0);
        CHECK(memcmp(&line, &again, sizeof line) == 0);
        buf_release(&b);
    }
    mem_free(copy);
    return 0;
}
