/*
 * keys: bearer keys and their quotas. A file of lines
 *
 *     NAME sha256:HEX [requests_per_minute=N] [tokens_per_minute=N] [streams=N] [priority=N]
 *
 * Empty lines and lines that start with # are ignored. NAME (letters, digits, . _ -) is the key's
 * name in logs; HEX is the SHA-256 of the bearer key. A missing field is no limit. The priority is
 * 0 unless given; each step up doubles the key's share of the engine.
 *
 * Why plain SHA-256, without salt or stretching: those protect passwords, which people choose and
 * attackers guess. A key of key_make is 256 random bits: it cannot be guessed, and no two are
 * equal. Checking takes the same time whether and wherever a key differs.
 *
 * keys_reload reads the file again: a name that remains keeps its entry, streams and debts, under
 * the line's new hash and limits. So does a removed key that comes back while its entry is free. A
 * file that cannot be used changes nothing.
 *
 * Threads: the loop only. A `struct key` stays where it is until keys_close; the entry of a removed
 * line is reused only when none of its streams runs.
 */
#ifndef PDD_CLOUD_API_KEYS_H
#define PDD_CLOUD_API_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "policy/quota.h"

enum {
    KEYS_MAX = 4096,
    KEYS_FILE_MAX = 2 << 20,
    KEY_NAME_MAX = 64,
    KEY_LEN_MAX = 256,    /* of a key that a client sends */
    KEY_MADE_BYTES = 80,  /* room for key_make */
    KEY_PRIORITY_MAX = 8, /* and -8 the least */
    KEY_HASH_BYTES = 32
};

/* A line of the file. */
struct key_line {
    char name[KEY_NAME_MAX + 1];
    unsigned char hash[KEY_HASH_BYTES];
    struct quota_limits limits;
    int32_t priority;
};

struct key {
    struct key_line line;
    struct quota quota;
    /* From 1, never reused, as cached prompts are scoped by it. Modulo SCHED_TENANTS_MAX it is
     * unique among the keys that live. */
    uint32_t tenant;
};

struct keys;

int keys_open(const char *path, uint64_t now_us, struct keys **ret_keys, struct err *e);
int keys_reload(struct keys *k, uint64_t now_us, struct err *e);
void keys_close(struct keys *k);
/* NULL: unknown, or `key` is NULL. */
struct key *keys_find(struct keys *k, const char *key);

/* At most KEY_NAME_MAX letters, digits, dots, underscores and dashes. */
bool key_name_good(const char *name, size_t n);
/* One line of n bytes without its end. 0 and *ret_line; 1: a comment or empty; or an error that
 * says what is wrong with it and never repeats what may be a secret. Pure. */
int key_line_parse(const char *text, size_t n, struct key_line *ret_line, struct err *e);
void key_hash(const char *key, size_t n, unsigned char ret_hash[KEY_HASH_BYTES]);
int key_line_print(const struct key_line *line, struct buf *out); /* in the format of the file */
/* A new random key: "pdd-" and 64 hexadecimal digits. ERR_INTERNAL without random numbers. */
int key_make(char ret_key[KEY_MADE_BYTES], struct err *e);

#endif
