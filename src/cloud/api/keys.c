/* keys: see keys.h. */
#include "cloud/api/keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/hex.h"
#include "base/mem.h"
#include "base/os.h"
#include "policy/sched.h"

enum { VALUE_DIGITS_MAX = 10 };

_Static_assert((int)KEYS_MAX < (int)SCHED_TENANTS_MAX, "each slot has an account of its own");

static const char made_prefix[] = "pdd-"; /* of the keys of key_make */
enum { MADE_LEN = sizeof made_prefix - 1 + 2 * KEY_HASH_BYTES };

_Static_assert((int)MADE_LEN < (int)KEY_MADE_BYTES, "a key fits, and is too long for a name");

static const char form[] = "NAME sha256:HEX [requests_per_minute=N] [tokens_per_minute=N] "
                           "[streams=N] [priority=N]";

struct key_slot {
    struct key key;
    bool live;      /* the file has it */
    uint32_t lives; /* keys that it had before this one */
};

struct keys {
    char *path;
    struct key_slot slots[KEYS_MAX];
};

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

void key_hash(const char *key, size_t n, unsigned char ret_hash[KEY_HASH_BYTES])
{
    SHA256((const unsigned char *)key, n, ret_hash);
}

bool key_name_good(const char *name, size_t n)
{
    size_t good = 0;
    while (good < n && name_char(name[good]))
        good++;
    return n > 0 && n <= KEY_NAME_MAX && good == n;
}

static int parse_name(const char *word, size_t n, struct key_line *line, struct err *e)
{
    if (n == MADE_LEN && memcmp(word, made_prefix, sizeof made_prefix - 1) == 0)
        return err_set(e, ERR_BAD_INPUT,
                       "this is a key itself; the file takes the second line that `pdd cloud key` "
                       "printed");
    if (!key_name_good(word, n))
        return err_set(e, ERR_BAD_INPUT,
                       "a name has at most %d letters, digits, dots, underscores and dashes; the "
                       "line is %s",
                       KEY_NAME_MAX, form);
    memcpy(line->name, word, n);
    line->name[n] = 0;
    return 0;
}

static int parse_hash(const char *word, size_t n, struct key_line *line, struct err *e)
{
    static const char prefix[] = "sha256:";
    size_t skip = sizeof prefix - 1;
    if (n == skip + 2 * KEY_HASH_BYTES && memcmp(word, prefix, skip) == 0 &&
        hex_decode(word + skip, line->hash, KEY_HASH_BYTES))
        return 0;
    return err_set(
        e, ERR_BAD_INPUT,
        "no \"sha256:\" and 64 hexadecimal digits after the name: keys are stored hashed "
        "only. `pdd cloud key NAME` makes a key and its line, `pdd cloud key NAME "
        "--hash` the line of a key you have");
}

/* "field=N" into the line; each at most once. */
static int parse_field(const char *word, size_t n, unsigned *seen, struct key_line *line,
                       struct err *e)
{
    uint32_t *const numbers[] = {&line->limits.requests_per_minute, &line->limits.tokens_per_minute,
                                 &line->limits.streams_max, NULL};
    static const struct {
        const char *name;
        int64_t low, high;
    } fields[] = {{"requests_per_minute", 1, QUOTA_RATE_MAX},
                  {"tokens_per_minute", 1, QUOTA_RATE_MAX},
                  {"streams", 1, UINT16_MAX},
                  {"priority", -KEY_PRIORITY_MAX, KEY_PRIORITY_MAX}};
    const char *equals = memchr(word, '=', n);
    size_t len = equals ? (size_t)(equals - word) : n;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (!equals || strlen(fields[i].name) != len || memcmp(fields[i].name, word, len) != 0)
            continue;
        const char *at = equals + 1, *end = word + n;
        bool minus = at < end && *at == '-';
        int64_t value = 0;
        at += minus;
        size_t digits = (size_t)(end - at);
        bool good = digits > 0 && digits <= VALUE_DIGITS_MAX && !(*seen & 1u << i);
        for (; good && at < end; at++) {
            good = *at >= '0' && *at <= '9';
            value = value * 10 + (*at - '0');
        }
        if (minus) value = -value;
        if (!good || value < fields[i].low || value > fields[i].high)
            return err_set(e, ERR_BAD_INPUT, "%s must be given once, as a number from %lld to %lld",
                           fields[i].name, (long long)fields[i].low, (long long)fields[i].high);
        *seen |= 1u << i;
        if (numbers[i])
            *numbers[i] = (uint32_t)value;
        else
            line->priority = (int32_t)value;
        return 0;
    }
    return err_set(e, ERR_BAD_INPUT, "there is a word that is no field; the line is %s", form);
}

int key_line_parse(const char *text, size_t n, struct key_line *ret_line, struct err *e)
{
    struct key_line line = {.priority = 0};
    unsigned words = 0, seen = 0;
    if (n > 0 && text[0] == '#') return 1;
    for (size_t at = 0; at < n; words++) {
        while (at < n && blank(text[at]))
            at++;
        size_t from = at;
        while (at < n && !blank(text[at]))
            at++;
        if (at == from) break;
        int code = words == 0   ? parse_name(text + from, at - from, &line, e)
                   : words == 1 ? parse_hash(text + from, at - from, &line, e)
                                : parse_field(text + from, at - from, &seen, &line, e);
        if (code) return code;
    }
    if (words == 0) return 1;
    if (words == 1) return parse_hash("", 0, &line, e); /* a key in plain text, most likely */
    *ret_line = line;
    return 0;
}

int key_line_print(const struct key_line *line, struct buf *out)
{
    const struct quota_limits *l = &line->limits;
    char hash[2 * KEY_HASH_BYTES + 1];
    hex_encode(line->hash, KEY_HASH_BYTES, hash);
    buf_printf(out, "%s sha256:%s", line->name, hash);
    if (l->requests_per_minute) buf_printf(out, " requests_per_minute=%u", l->requests_per_minute);
    if (l->tokens_per_minute) buf_printf(out, " tokens_per_minute=%u", l->tokens_per_minute);
    if (l->streams_max) buf_printf(out, " streams=%u", l->streams_max);
    if (line->priority) buf_printf(out, " priority=%d", line->priority);
    return out->error;
}

int key_make(char ret_key[KEY_MADE_BYTES], struct err *e)
{
    unsigned char random[KEY_HASH_BYTES];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return err_set(e, ERR_INTERNAL, "no random numbers from the system");
    memcpy(ret_key, made_prefix, sizeof made_prefix - 1);
    hex_encode(random, sizeof random, ret_key + sizeof made_prefix - 1);
    OPENSSL_cleanse(random, sizeof random);
    return 0;
}

/* All lines of a file, checked one by one and against each other. */
struct lines {
    uint32_t n;
    struct key_line line[KEYS_MAX];
};

static int add_line(struct lines *all, const char *text, size_t n, struct err *e)
{
    struct key_line line;
    int code = key_line_parse(text, n, &line, e);
    if (code == 1) return 0;
    if (code) return code;
    if (all->n == KEYS_MAX) return err_set(e, ERR_LIMIT, "there are more than %d keys", KEYS_MAX);
    for (uint32_t i = 0; i < all->n; i++) {
        if (strcmp(all->line[i].name, line.name) == 0)
            return err_set(e, ERR_BAD_INPUT, "the name %s occurs twice", line.name);
        if (memcmp(all->line[i].hash, line.hash, sizeof line.hash) == 0)
            return err_set(e, ERR_BAD_INPUT, "%s has the same key as %s", line.name,
                           all->line[i].name);
    }
    all->line[all->n++] = line;
    return 0;
}

static int read_lines(const char *path, struct lines *all, struct err *e)
{
    struct buf text;
    struct err wrong = ERR_INIT;
    buf_init(&text, KEYS_FILE_MAX);
    all->n = 0;
    int code = os_read_file(path, &text, e);
    const char *at = text.data, *end = at + text.len;
    for (unsigned number = 1; code == 0 && at < end; number++) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((lf ? lf : end) - at);
        code = add_line(all, at, n, &wrong);
        if (code) err_set(e, code, "%s:%u: %s", path, number, wrong.text);
        at += n + 1;
    }
    if (code == 0 && all->n == 0)
        code = err_set(e, ERR_BAD_INPUT, "%s: no key in it; `pdd cloud key NAME` makes one", path);
    buf_release(&text);
    return code;
}

/* The live slot of the line's name, else one of a removed key of this name with the same hash: a
 * key that comes back still has its running jobs and its debt. NULL: none. */
static struct key_slot *slot_of(struct keys *k, const struct key_line *line)
{
    struct key_slot *left = NULL;
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        struct key_slot *p = &k->slots[i];
        if (strcmp(p->key.line.name, line->name) != 0) continue;
        if (p->live) return p;
        bool same = memcmp(p->key.line.hash, line->hash, sizeof line->hash) == 0;
        if (same && (!left || p->key.quota.streams > 0)) left = p;
    }
    return left;
}

static struct key_slot *slot_free(struct keys *k)
{
    for (uint32_t i = 0; i < KEYS_MAX; i++)
        if (!k->slots[i].live && k->slots[i].key.quota.streams == 0) return &k->slots[i];
    return NULL;
}

static const struct key_line *line_named(const struct lines *all, const char *name)
{
    for (uint32_t i = 0; i < all->n; i++)
        if (strcmp(all->line[i].name, name) == 0) return &all->line[i];
    return NULL;
}

/* Whether a line has this slot. */
static bool stays(struct keys *k, const struct lines *all, const struct key_slot *p)
{
    const struct key_line *line = line_named(all, p->key.line.name);
    return line && slot_of(k, line) == p;
}

/* Removed keys leave first, so that their slots are free. */
static int adopt(struct keys *k, const struct lines *all, uint64_t now_us, struct err *e)
{
    uint32_t wanted = 0, found = 0;
    for (uint32_t i = 0; i < all->n; i++)
        wanted += slot_of(k, &all->line[i]) == NULL;
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        const struct key_slot *p = &k->slots[i];
        found += !stays(k, all, p) && p->key.quota.streams == 0;
    }
    if (found < wanted)
        return err_set(e, ERR_LIMIT, "%s: streams of removed keys still run; try again later",
                       k->path);
    for (uint32_t i = 0; i < KEYS_MAX; i++)
        k->slots[i].live = stays(k, all, &k->slots[i]);
    for (uint32_t i = 0; i < all->n; i++) {
        struct key_slot *p = slot_of(k, &all->line[i]);
        if (p) {
            quota_change(&p->key.quota, &all->line[i].limits, now_us);
        } else {
            p = slot_free(k);
            quota_init(&p->key.quota, &all->line[i].limits, now_us);
            p->key.tenant = (uint32_t)(p - k->slots) + 1 + p->lives++ * SCHED_TENANTS_MAX;
            p->live = true;
        }
        p->key.line = all->line[i];
    }
    return 0;
}

int keys_reload(struct keys *k, uint64_t now_us, struct err *e)
{
    struct lines *all = mem_alloc(sizeof *all);
    int code = all ? read_lines(k->path, all, e) : err_set(e, ERR_NO_MEMORY, "no memory for keys");
    if (code == 0) code = adopt(k, all, now_us, e);
    mem_free(all);
    return code;
}

int keys_open(const char *path, uint64_t now_us, struct keys **ret_keys, struct err *e)
{
    struct keys *k = mem_calloc(1, sizeof *k);
    if (k) k->path = mem_strdup(path);
    int code =
        k && k->path ? keys_reload(k, now_us, e) : err_set(e, ERR_NO_MEMORY, "no memory for keys");
    if (code)
        keys_close(k);
    else
        *ret_keys = k;
    return code;
}

void keys_close(struct keys *k)
{
    if (!k) return;
    mem_free(k->path);
    mem_free(k);
}

struct key *keys_find(struct keys *k, const char *key)
{
    unsigned char hash[KEY_HASH_BYTES];
    struct key *found = NULL;
    size_t n = key ? strlen(key) : 0;
    if (n == 0 || n > KEY_LEN_MAX) return NULL;
    key_hash(key, n, hash);
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        struct key_slot *p = &k->slots[i];
        if (p->live && CRYPTO_memcmp(hash, p->key.line.hash, sizeof hash) == 0) found = &p->key;
    }
    return found;
}
