/* text: see text.h. */
#include "device/text.h"

#include <string.h>

enum { ROUND_TRIP_MAX = 1 << 20 };

static bool says(const struct vocab *v, const int32_t *ids, uint32_t n, const char *text,
                 size_t len)
{
    struct buf b;
    struct detok d;
    buf_init(&b, ROUND_TRIP_MAX);
    detok_init(&d, false);
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < n; i++)
        code = detok_push(&d, v, ids[i], &b);
    if (code == 0) code = detok_finish(&d, &b);
    bool same = code == 0 && b.len == len && memcmp(b.data, text, len) == 0;
    buf_release(&b);
    return same;
}

/* Encode `before` + text, and leave out the first `skip` tokens. */
static bool attempt(const struct vocab *v, const char *before, uint32_t skip, const char *text,
                    size_t n, const char *whole, size_t whole_len, struct token_list *out)
{
    struct buf b;
    struct token_list ids;
    buf_init(&b, ROUND_TRIP_MAX);
    token_list_init(&ids, ROUND_TRIP_MAX);
    int code = buf_puts(&b, before);
    if (code == 0) code = buf_append(&b, text, n);
    if (code == 0) code = vocab_encode(v, b.data, b.len, 0, &ids, NULL);
    bool good = code == 0 && ids.len > skip &&
                says(v, ids.ids + skip, ids.len - skip, whole, whole_len) &&
                token_list_append(out, ids.ids + skip, ids.len - skip) == 0;
    buf_release(&b);
    token_list_release(&ids);
    return good;
}

/* SentencePiece puts a space before any text: then the text is encoded without its own first
 * space, or after a line end whose tokens are left out. */
int text_continue(const struct vocab *v, const char *text, size_t n, struct token_list *out,
                  struct err *e)
{
    if (attempt(v, "", 0, text, n, text, n, out)) return 0;
    if (n > 1 && text[0] == ' ' && attempt(v, "", 0, text + 1, n - 1, text, n, out)) return 0;
    for (uint32_t skip = 1; skip <= 2; skip++)
        if (attempt(v, "\n", skip, text, n, text, n, out)) return 0;
    return err_set(e, ERR_UNSUPPORTED, "our model has no tokens for the text the cloud sent");
}
