/*
 * keys: who may ask, and how much. A file of lines
 *
 *     NAME sha256:HEX [requests_per_minute=N] [tokens_per_minute=N] [streams=N] [priority=N]
 *
 * Empty lines and lines that start with # are none. NAME (letters, digits, . _ -) stands for the
 * key in logs; HEX is the SHA-256 of the bearer key. What is left out is not limited; a priority is
 * 0 unless given, and each step up doubles the key's share of the engine.
 *
 * Why plain SHA-256, without salt or stretching: those protect passwords, which people choose and
 * attackers guess. A key of keys_make is 256 random bits: there is nothing to guess, no table holds
 * it, and no two are equal. Checking takes the same time whether and wherever a key differs.
 *
 * keys_reload reads the file again: a name that is still there keeps its key's place, streams and
 * debts, under the line's new hash and limits; so does the same key that was removed and comes back
 * before another has its place. A file that cannot be used changes nothing.
 *
 * One thread: the loop's. A `struct key` stays where it is until keys_close; one whose line has
 * gone is reused only when none of its streams runs any more.
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
    KEY_LEN_MAX = 256,    /* of what a client may send as its key */
    KEY_MADE_BYTES = 80,  /* room for what keys_make makes */
    KEY_PRIORITY_MAX = 8, /* and -8 the least */
    KEY_HASH_BYTES = 32
};

/* What a line says. */
struct key_line {
    char name[KEY_NAME_MAX + 1];
    unsigned char hash[KEY_HASH_BYTES];
    struct quota_limits limits;
    int32_t priority;
};

struct key {
    struct key_line line;
    struct quota quota;
    /* From 1, and never that of another key before it, whose cached prompts go by this number.
     * Modulo SCHED_TENANTS_MAX it is the key's alone among those that live. */
    uint32_t tenant;
};

struct keys;

int keys_open(const char *path, uint64_t now_us, struct keys **ret_keys, struct err *e);
int keys_reload(struct keys *k, uint64_t now_us, struct err *e);
void keys_close(struct keys *k);
/* Whose key it is; NULL: nobody's (also for NULL: no key given). */
struct key *keys_find(struct keys *k, const char *key);

/* At most KEY_NAME_MAX letters, digits, dots, underscores and dashes. */
bool key_name_good(const char *name, size_t n);
/* One line of n bytes without its end. 0 and *ret_line; 1: a comment or empty; or an error that
 * says what is wrong with it and never repeats what may be a secret. Pure. */
int key_line_parse(const char *text, size_t n, struct key_line *ret_line, struct err *e);
void key_hash(const char *key, size_t n, unsigned char ret_hash[KEY_HASH_BYTES]);
int key_line_print(const struct key_line *line, struct buf *out); /* as the file wants it */
/* A new random key: "pdd-" and 64 hexadecimal digits. ERR_INTERNAL without random numbers. */
int key_make(char ret_key[KEY_MADE_BYTES], struct err *e);

#endif
