/* keys: see keys.h. Keys are compared by their SHA-256, so that lengths do not show either. */
#include "cloud/keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"

enum { KEYS_FILE_MAX = 1 << 20, KEYS_MAX = 4096, KEY_LEN_MAX = 256 };

struct keys {
    unsigned n;
    unsigned char hash[KEYS_MAX][SHA256_DIGEST_LENGTH];
};

static int add_line(struct keys *k, const char *path, unsigned number, const char *line, size_t n,
                    struct err *e)
{
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    if (n == 0 || line[0] == '#') return 0;
    if (n > KEY_LEN_MAX)
        return err_set(e, ERR_LIMIT, "%s:%u: a key has at most %d characters", path, number,
                       KEY_LEN_MAX);
    if (k->n == KEYS_MAX) return err_set(e, ERR_LIMIT, "%s: more than %d keys", path, KEYS_MAX);
    SHA256((const unsigned char *)line, n, k->hash[k->n++]);
    return 0;
}

static int add_lines(struct keys *k, const char *path, const char *text, struct err *e)
{
    int code = 0;
    for (unsigned number = 1; *text && code == 0; number++) {
        size_t n = strcspn(text, "\n");
        code = add_line(k, path, number, text, n, e);
        text += n + (text[n] == '\n');
    }
    if (code == 0 && k->n == 0) code = err_set(e, ERR_BAD_INPUT, "%s: no key in it", path);
    return code;
}

int keys_open(const char *path, struct keys **ret_keys, struct err *e)
{
    struct buf text;
    buf_init(&text, KEYS_FILE_MAX);
    struct keys *k = mem_calloc(1, sizeof *k);
    int code = k ? os_read_file(path, &text, e) : err_set(e, ERR_NO_MEMORY, "no memory for keys");
    if (code == 0) code = add_lines(k, path, text.data, e);
    buf_release(&text);
    if (code)
        keys_close(k);
    else
        *ret_keys = k;
    return code;
}

void keys_close(struct keys *k)
{
    mem_free(k);
}

bool keys_match(const struct keys *k, const char *key)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    size_t n = key ? strlen(key) : 0;
    if (n == 0 || n > KEY_LEN_MAX) return false;
    SHA256((const unsigned char *)key, n, hash);
    int found = 0;
    for (unsigned i = 0; i < k->n; i++)
        found |= CRYPTO_memcmp(hash, k->hash[i], sizeof hash) == 0;
    return found != 0;
}
