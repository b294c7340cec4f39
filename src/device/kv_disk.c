/* kv_disk: see kv_disk.h. */
#include "device/kv_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/mem.h"

enum {
    BUCKETS = 1 << 14,
    NAME_MAX_BYTES = 2 * KV_DISK_KEY + 8,
    PATH_BYTES = KV_DISK_DIR_MAX + NAME_MAX_BYTES + 16,
    NONE = -1
};

static const char magic[8] = "pddkv\0\0\1", suffix[] = ".kv";

/* The beginning of a file; integers as this machine has them: the files are its own. */
struct head {
    char magic[8];
    uint64_t page_bytes, checksum; /* of tokens and page */
    struct kv_key key;
    int32_t tokens[KV_DISK_TOKENS];
};

struct entry {
    struct kv_key key;
    uint64_t used; /* use_of its last use; 0: the place is free */
    int32_t next;  /* in its bucket, or among the free ones */
};

struct write {
    struct kv_disk_page *pages;
    uint32_t n;
    void (*done)(void *arg);
    void *arg;
};

struct kv_disk {
    char dir[KV_DISK_DIR_MAX];
    struct kv_key root; /* of the fingerprint */
    size_t page_bytes;
    uint64_t bytes_max;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closing, started;
    struct write waiting[KV_DISK_WAITING_MAX];
    uint32_t n_waiting;
    struct write writing; /* n 0: none */
    struct kv_disk_use *uses;
    struct entry *entries; /* [KV_DISK_FILES_MAX] */
    int32_t buckets[BUCKETS], free;
    struct kv_disk_stats stats;
};

static uint64_t file_bytes(const struct kv_disk *d)
{
    return sizeof(struct head) + d->page_bytes;
}

/* ---- keys and checksums ---- */

static void sha256(const void *a, size_t n_a, const void *b, size_t n_b, struct kv_key *ret_key)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned n = 0;
    CHECK(md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    CHECK(EVP_DigestUpdate(md, a, n_a) == 1 && EVP_DigestUpdate(md, b, n_b) == 1);
    CHECK(EVP_DigestFinal_ex(md, ret_key->bytes, &n) == 1 && n == KV_DISK_KEY);
    EVP_MD_CTX_free(md);
}

void kv_disk_key(const struct kv_disk *d, const struct kv_key *before, const int32_t *tokens,
                 struct kv_key *ret_key)
{
    struct kv_key root = before ? *before : d->root;
    sha256(&root, sizeof root, tokens, KV_DISK_TOKENS * sizeof *tokens, ret_key);
}

/* FNV in steps of eight bytes: any change of one of them shows. */
static uint64_t checksum(const int32_t *tokens, const void *page, size_t n)
{
    uint64_t hash = fnv_bytes(FNV_BEGIN, tokens, KV_DISK_TOKENS * sizeof *tokens), word;
    const char *at = page;
    for (; n >= sizeof word; n -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = fnv_step(hash, word);
        hash ^= hash >> 29; /* else the highest bits of words stay in the highest */
    }
    return fnv_bytes(hash, at, n);
}

/* The second of a use, and within it the first pages of histories after the last ones. */
static uint64_t use_of(uint32_t depth)
{
    return (uint64_t)time(NULL) * 1000000 + 999999 - (depth < 999999 ? depth : 999999);
}

/* It is kept as the file's time, for the next start. */
static void set_use(int fd, uint64_t used)
{
    struct timespec t = {(time_t)(used / 1000000), (long)(used % 1000000) * 1000};
    (void)futimens(fd, (struct timespec[2]){t, t});
}

/* ---- the index, under the lock ---- */

static int32_t *bucket_of(struct kv_disk *d, const struct kv_key *key)
{
    uint32_t h;
    memcpy(&h, key->bytes, sizeof h);
    return &d->buckets[h % BUCKETS];
}

static int32_t find(struct kv_disk *d, const struct kv_key *key)
{
    int32_t i = *bucket_of(d, key);
    while (i != NONE && memcmp(&d->entries[i].key, key, sizeof *key) != 0)
        i = d->entries[i].next;
    return i;
}

static void path_of(const struct kv_disk *d, const struct kv_key *key, const char *end,
                    char path[PATH_BYTES])
{
    char name[2 * KV_DISK_KEY + 1];
    hex_encode(key->bytes, KV_DISK_KEY, name);
    snprintf(path, PATH_BYTES, "%s/%s%s", d->dir, name, end);
}

static void forget(struct kv_disk *d, int32_t i)
{
    struct entry *e = &d->entries[i];
    int32_t *link = bucket_of(d, &e->key);
    while (*link != i)
        link = &d->entries[*link].next;
    *link = e->next;
    e->used = 0;
    e->next = d->free;
    d->free = i;
    d->stats.files--;
    d->stats.bytes -= file_bytes(d);
}

static void remove_file(struct kv_disk *d, int32_t i)
{
    char path[PATH_BYTES];
    path_of(d, &d->entries[i].key, suffix, path);
    unlink(path);
    forget(d, i);
}

/* Make room for `more` files whose last use is `used`. Files used later stay. */
static void evict(struct kv_disk *d, uint32_t more, uint64_t used)
{
    while (d->stats.files > 0 && (d->stats.files + more > KV_DISK_FILES_MAX ||
                                  d->stats.bytes + more * file_bytes(d) > d->bytes_max)) {
        int32_t oldest = NONE;
        for (int32_t i = 0; i < KV_DISK_FILES_MAX; i++)
            if (d->entries[i].used &&
                (oldest == NONE || d->entries[i].used < d->entries[oldest].used))
                oldest = i;
        if (d->entries[oldest].used > used) return;
        remove_file(d, oldest);
    }
}

static void remember(struct kv_disk *d, const struct kv_key *key, uint64_t used)
{
    if (find(d, key) != NONE || d->free == NONE) return;
    int32_t i = d->free, *bucket = bucket_of(d, key);
    d->free = d->entries[i].next;
    d->entries[i] = (struct entry){*key, used, *bucket};
    *bucket = i;
    d->stats.files++;
    d->stats.bytes += file_bytes(d);
}

bool kv_disk_has(struct kv_disk *d, const struct kv_key *key)
{
    pthread_mutex_lock(&d->lock);
    bool has = find(d, key) != NONE;
    pthread_mutex_unlock(&d->lock);
    return has;
}

void kv_disk_stats_of(struct kv_disk *d, struct kv_disk_stats *ret_stats)
{
    pthread_mutex_lock(&d->lock);
    *ret_stats = d->stats;
    pthread_mutex_unlock(&d->lock);
}

/* ---- reading ---- */

static bool read_all(int fd, struct iovec *v)
{
    size_t want = v[0].iov_len + v[1].iov_len;
    for (int i = 0; i < 2;) { /* a read may be cut */
        ssize_t n = readv(fd, v + i, 2 - i);
        if (n <= 0) return false;
        want -= (size_t)n;
        for (; i < 2 && (size_t)n >= v[i].iov_len; i++)
            n -= (ssize_t)v[i].iov_len;
        if (i < 2) {
            v[i].iov_base = (char *)v[i].iov_base + n;
            v[i].iov_len -= (size_t)n;
        }
    }
    return want == 0;
}

static bool read_file(const struct kv_disk *d, const struct kv_key *key, uint64_t used,
                      const int32_t *tokens, void *page)
{
    char path[PATH_BYTES];
    struct head h;
    struct stat st;
    struct iovec v[2] = {{&h, sizeof h}, {page, d->page_bytes}};
    path_of(d, key, suffix, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    bool good = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                (uint64_t)st.st_size == file_bytes(d) && read_all(fd, v) &&
                memcmp(h.magic, magic, sizeof magic) == 0 && h.page_bytes == d->page_bytes &&
                memcmp(&h.key, key, sizeof *key) == 0 &&
                memcmp(h.tokens, tokens, sizeof h.tokens) == 0 &&
                h.checksum == checksum(tokens, page, d->page_bytes);
    if (good) set_use(fd, used);
    close(fd);
    return good;
}

int kv_disk_read(struct kv_disk *d, const struct kv_key *key, uint32_t depth, const int32_t *tokens,
                 void *page, struct err *e)
{
    uint64_t used = use_of(depth);
    if (!kv_disk_has(d, key)) return err_set(e, ERR_NOT_FOUND, "the page is not on disk");
    bool good = read_file(d, key, used, tokens, page);
    pthread_mutex_lock(&d->lock);
    int32_t i = find(d, key);
    if (good && i != NONE) d->entries[i].used = used;
    if (!good && i != NONE) remove_file(d, i);
    ++*(good ? &d->stats.read : &d->stats.damaged);
    pthread_mutex_unlock(&d->lock);
    return good ? 0 : err_set(e, ERR_BAD_INPUT, "%s: a page is damaged, and was removed", d->dir);
}

/* ---- writing ---- */

static bool write_all(int fd, const void *data, size_t n)
{
    for (const char *at = data; n > 0;) {
        ssize_t did = write(fd, at, n);
        if (did <= 0) return false;
        at += did;
        n -= (size_t)did;
    }
    return true;
}

/* Under another name first: a file is whole, or not there. */
static bool write_file(const struct kv_disk *d, const struct kv_disk_page *p, uint64_t used)
{
    char path[PATH_BYTES], temporary[PATH_BYTES];
    struct head h = {.page_bytes = d->page_bytes,
                     .checksum = checksum(p->tokens, p->data, d->page_bytes),
                     .key = p->key};
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.tokens, p->tokens, sizeof h.tokens);
    path_of(d, &p->key, suffix, path);
    path_of(d, &p->key, ".tmp", temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return false;
    bool good = write_all(fd, &h, sizeof h) && write_all(fd, p->data, d->page_bytes);
    set_use(fd, used);
    good = close(fd) == 0 && good && rename(temporary, path) == 0;
    if (!good) unlink(temporary);
    return good;
}

static void write_page(struct kv_disk *d, const struct kv_disk_page *p)
{
    uint64_t used = use_of(p->depth);
    pthread_mutex_lock(&d->lock);
    bool known = find(d, &p->key) != NONE;
    if (!known) evict(d, 1, used);
    bool room = d->free != NONE && d->stats.bytes + file_bytes(d) <= d->bytes_max;
    bool unwanted = known || p->forgotten;
    pthread_mutex_unlock(&d->lock);
    if (unwanted || !room) return;
    bool good = write_file(d, p, used);
    pthread_mutex_lock(&d->lock);
    if (good) remember(d, &p->key, used);
    int32_t i = p->forgotten ? find(d, &p->key) : NONE; /* while it was written */
    if (i != NONE) remove_file(d, i);
    ++*(good ? &d->stats.written : &d->stats.dropped);
    pthread_mutex_unlock(&d->lock);
}

static void end_write(struct write *w)
{
    w->done(w->arg);
    mem_free(w->pages);
}

static void *write_main(void *arg)
{
    struct kv_disk *d = arg;
    pthread_mutex_lock(&d->lock);
    while (!d->closing || d->n_waiting > 0) {
        if (d->n_waiting == 0) {
            pthread_cond_wait(&d->changed, &d->lock);
            continue;
        }
        struct write w = d->writing = d->waiting[0];
        memmove(d->waiting, d->waiting + 1, --d->n_waiting * sizeof *d->waiting);
        pthread_mutex_unlock(&d->lock);
        for (uint32_t i = 0; i < w.n; i++)
            write_page(d, &w.pages[i]);
        pthread_mutex_lock(&d->lock);
        d->writing.n = 0;
        pthread_mutex_unlock(&d->lock);
        end_write(&w);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

int kv_disk_write(struct kv_disk *d, struct kv_disk_page *pages, uint32_t n,
                  void (*done)(void *arg), void *arg, struct err *e)
{
    pthread_mutex_lock(&d->lock);
    bool room = d->n_waiting < KV_DISK_WAITING_MAX && !d->closing;
    if (room) d->waiting[d->n_waiting++] = (struct write){pages, n, done, arg};
    if (!room) d->stats.dropped += n;
    pthread_cond_signal(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return room ? 0 : err_set(e, ERR_BUSY, "too many pages wait to be written");
}

/* ---- whose pages they are ---- */

void kv_disk_put_use(struct kv_disk *d, struct kv_disk_use *use)
{
    pthread_mutex_lock(&d->lock);
    struct kv_disk_use **last = &d->uses;
    while (*last)
        last = &(*last)->next;
    use->next = NULL;
    *last = use;
    pthread_mutex_unlock(&d->lock);
}

struct kv_disk_use *kv_disk_take_use(struct kv_disk *d)
{
    pthread_mutex_lock(&d->lock);
    struct kv_disk_use *use = d->uses;
    if (use) d->uses = use->next;
    pthread_mutex_unlock(&d->lock);
    return use;
}

static void forget_in(const struct write *w, const struct kv_key *key)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (memcmp(&w->pages[i].key, key, sizeof *key) == 0) w->pages[i].forgotten = true;
}

void kv_disk_forget(struct kv_disk *d, const struct kv_key *keys, uint32_t n)
{
    pthread_mutex_lock(&d->lock);
    for (uint32_t k = 0; k < n; k++) {
        int32_t i = find(d, &keys[k]);
        if (i != NONE) remove_file(d, i);
        forget_in(&d->writing, &keys[k]);
        for (uint32_t w = 0; w < d->n_waiting; w++)
            forget_in(&d->waiting[w], &keys[k]);
    }
    pthread_mutex_unlock(&d->lock);
}

/* ---- opening ---- */

/* A file of ours by its name; others, and what a killed program left, go. */
static bool key_of(const char *name, struct kv_key *ret_key)
{
    return strlen(name) == 2 * KV_DISK_KEY + sizeof suffix - 1 &&
           strcmp(name + 2 * KV_DISK_KEY, suffix) == 0 &&
           hex_decode(name, ret_key->bytes, KV_DISK_KEY);
}

static bool is_left(const char *name)
{
    size_t n = strlen(name);
    return n == 2 * KV_DISK_KEY + 4 && strcmp(name + n - 4, ".tmp") == 0;
}

static void scan(struct kv_disk *d, DIR *folder)
{
    struct dirent *f;
    struct kv_key key;
    struct stat st;
    while ((f = readdir(folder)) != NULL) {
        if (is_left(f->d_name)) unlinkat(dirfd(folder), f->d_name, 0);
        if (!key_of(f->d_name, &key)) continue;
        if (fstatat(dirfd(folder), f->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        uint64_t used = (uint64_t)st.st_mtim.tv_sec * 1000000 + (uint64_t)st.st_mtim.tv_nsec / 1000;
        if ((uint64_t)st.st_size != file_bytes(d) || d->free == NONE) {
            unlinkat(dirfd(folder), f->d_name, 0);
            continue;
        }
        remember(d, &key, used ? used : 1);
    }
    evict(d, 0, UINT64_MAX);
}

static int open_folder(struct kv_disk *d, struct err *e)
{
    if (mkdir(d->dir, 0700) && errno != EEXIST)
        return err_set(e, ERR_IO, "%.300s: the folder for the KV cache cannot be made: %s", d->dir,
                       strerror(errno));
    struct stat st;
    int fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return err_set(e, ERR_IO, "%.300s: %s", d->dir, strerror(errno));
    int code = 0;
    if (fstat(fd, &st) || st.st_uid != geteuid())
        code = err_set(e, ERR_DENIED, "%.300s: belongs to another user: give --state DIR", d->dir);
    else if ((st.st_mode & 07777) != 0700 && fchmod(fd, 0700))
        code = err_set(e, ERR_IO, "%.300s: its mode cannot be set to 0700: %s", d->dir,
                       strerror(errno));
    DIR *folder = code ? NULL : fdopendir(fd);
    if (!folder) {
        if (!code) code = err_set(e, ERR_IO, "%.300s: %s", d->dir, strerror(errno));
        close(fd);
        return code;
    }
    scan(d, folder);
    closedir(folder);
    return 0;
}

static int open_parts(struct kv_disk *d, struct err *e)
{
    d->entries = mem_calloc(KV_DISK_FILES_MAX, sizeof *d->entries);
    if (!d->entries) return err_set(e, ERR_NO_MEMORY, "no memory for the index of KV pages");
    for (int32_t i = 0; i < KV_DISK_FILES_MAX; i++)
        d->entries[i].next = i + 1 < KV_DISK_FILES_MAX ? i + 1 : NONE;
    for (int i = 0; i < BUCKETS; i++)
        d->buckets[i] = NONE;
    int code = open_folder(d, e);
    if (code) return code;
    d->started = pthread_create(&d->thread, NULL, write_main, d) == 0;
    return d->started ? 0 : err_set(e, ERR_NO_MEMORY, "a thread cannot be started");
}

int kv_disk_open(const struct kv_disk_config *c, struct kv_disk **ret_disk, struct err *e)
{
    struct kv_disk *d = mem_calloc(1, sizeof *d);
    if (!d) return err_set(e, ERR_NO_MEMORY, "no memory for the KV cache on disk");
    int code = snprintf(d->dir, sizeof d->dir, "%s", c->dir) >= (int)sizeof d->dir
                   ? err_set(e, ERR_LIMIT, "the name of the folder for the KV cache is too long")
                   : 0;
    sha256(magic, sizeof magic, c->fingerprint, strlen(c->fingerprint), &d->root);
    d->page_bytes = c->page_bytes;
    d->bytes_max = c->bytes_max;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, NULL);
    if (!code) code = open_parts(d, e);
    if (code) {
        kv_disk_close(d);
        return code;
    }
    *ret_disk = d;
    return 0;
}

void kv_disk_close(struct kv_disk *d)
{
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_signal(&d->changed);
    pthread_mutex_unlock(&d->lock);
    if (d->started) pthread_join(d->thread, NULL);
    for (struct kv_disk_use *use; (use = d->uses) != NULL; mem_free(use))
        d->uses = use->next;
    mem_free(d->entries);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    mem_free(d);
}
