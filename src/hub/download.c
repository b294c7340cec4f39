/* download: see download.h. */
#include "hub/download.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hex.h"
#include "base/mem.h"
#include "base/os.h"
#include "hub/download_state.h"

enum {
    KIND_BYTES = 64, /* of the beginning, by which its kind is known */
    READ_BYTES = 1 << 20,
    PROGRESS_US = 100000,
    RESTARTS_MAX = 3,       /* of one run: a server that changes the file again and again */
    SPACE_EVERY = 256 << 20 /* bytes between two looks at the free space, without a size */
};

/* One run. */
struct run {
    const struct download *d;
    struct fetch *fetch;
    struct download_result *result;
    char part[DOWNLOAD_PATH_MAX], state_path[DOWNLOAD_PATH_MAX];
    struct download_state state;
    int fd;
    EVP_MD_CTX *digest;
    uint64_t at;       /* bytes that are there and hashed */
    uint64_t farthest; /* that a try has come */
    uint64_t size;     /* FETCH_UNKNOWN */
    char head[KIND_BYTES];
    size_t n_head;
    char expected[65]; /* SHA-256, "" */
    uint32_t restarts;
    bool restart, ranged, came; /* ranged: the request has a range; came: a byte, in this run */
    bool useless;               /* what came is not what was asked for */
    bool unconditional;         /* ranges are asked for without If-Range */
    uint64_t told_us;
};

static void note(const struct run *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(const struct run *r, const char *format, ...)
{
    struct err e = ERR_INIT; /* as careful with foreign bytes as an error's text */
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_set(&e, ERR_NONE, "%s", text);
    if (r->d->on_note) r->d->on_note(r->d->arg, e.text);
}

static void tell(struct run *r, bool checking, bool always)
{
    uint64_t now = clock_us();
    if (!r->d->on_progress || (!always && now - r->told_us < PROGRESS_US)) return;
    r->told_us = now;
    struct download_progress p = {r->at, r->size, checking};
    r->d->on_progress(r->d->arg, &p);
}

static bool is_stopped(const struct run *r)
{
    return r->d->stopped && r->d->stopped(r->d->arg);
}

/* ---- what is here ---- */

static int digest_begin(struct run *r, struct err *e)
{
    if (!r->digest) r->digest = EVP_MD_CTX_new();
    if (r->digest && EVP_DigestInit_ex(r->digest, EVP_sha256(), NULL) == 1) return 0;
    return err_set(e, ERR_NO_MEMORY, "no memory for a SHA-256");
}

static void keep_head(struct run *r, const char *data, size_t n)
{
    size_t room = KIND_BYTES - r->n_head;
    if (r->at > r->n_head || room == 0) return;
    memcpy(r->head + r->n_head, data, n < room ? n : room);
    r->n_head += n < room ? n : room;
}

/* Begin with nothing. */
static int begin_anew(struct run *r, struct err *e)
{
    r->at = 0;
    r->n_head = 0;
    r->size = FETCH_UNKNOWN;
    if (ftruncate(r->fd, 0)) return err_set(e, ERR_IO, "%s: %s", r->part, strerror(errno));
    return digest_begin(r, e);
}

/* Read the first `n` bytes of the part again, for the digest. */
static int read_again(struct run *r, uint64_t n, struct err *e)
{
    char *bytes = mem_alloc(READ_BYTES);
    int code = bytes ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for reading %s", r->part);
    while (code == 0 && r->at < n) {
        uint64_t left = n - r->at;
        ssize_t got =
            pread(r->fd, bytes, left < READ_BYTES ? (size_t)left : READ_BYTES, (off_t)r->at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            code = err_set(e, ERR_IO, "%s: %s", r->part, got ? strerror(errno) : "it is cut off");
            break;
        }
        keep_head(r, bytes, (size_t)got);
        EVP_DigestUpdate(r->digest, bytes, (size_t)got);
        r->at += (uint64_t)got;
        tell(r, true, false);
        if (is_stopped(r)) code = err_set(e, ERR_CANCELLED, "stopped");
    }
    mem_free(bytes);
    return code;
}

/*
 * How much of the part is used. Nothing without a state that tells whether the server has the same
 * file; and the last byte is asked for again, as a complete part would leave no range to ask for.
 */
static uint64_t usable(const struct run *r, uint64_t there)
{
    const struct download_state *s = &r->state;
    bool known = download_state_validator(s) || s->sha256[0];
    if (!known || there == 0) return 0;
    if (s->size == FETCH_UNKNOWN) return there;
    return there > s->size ? 0 : there == s->size ? there - 1 : there;
}

/* ETags and dates say nothing between two servers; a digest does. */
static bool is_of_another(const struct run *r)
{
    const struct download_state *s = &r->state;
    char url[FETCH_URL_MAX];
    fetch_plain_url(r->d->url, url, sizeof url);
    if (!s->url[0] || strcmp(s->url, url) == 0) return false;
    return !r->d->sha256 || strcmp(r->d->sha256, s->sha256) != 0;
}

static int open_part(struct run *r, struct err *e)
{
    struct stat st;
    r->fd = open(r->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (r->fd < 0 || fstat(r->fd, &st))
        return err_set(e, ERR_IO, "%s: %s", r->part, strerror(errno));
    if (!S_ISREG(st.st_mode)) return err_set(e, ERR_IO, "%s: not a file", r->part);
    int code = digest_begin(r, e);
    if (code) return code;
    download_state_read(r->state_path, &r->state);
    uint64_t n = usable(r, (uint64_t)st.st_size);
    if (n > 0 && is_of_another(r)) {
        note(r, "what is here came from another server: the download begins anew");
        n = 0;
    }
    if (n == 0) return begin_anew(r, e);
    r->size = r->state.size;
    code = read_again(r, n, e);
    r->farthest = r->at;
    if (code == 0 && ftruncate(r->fd, (off_t)r->at))
        code = err_set(e, ERR_IO, "%s: %s", r->part, strerror(errno));
    return code;
}

/* ---- the head of a response ---- */

static bool differs(const char *a, const char *b)
{
    return a[0] && b[0] && strcmp(a, b) != 0;
}

/* The SHA-256 that the hub states; "" if none. */
static void stated_digest(const struct run *r, const struct fetch_head *h, char ret_sha256[65])
{
    download_digest(h->linked_tag, ret_sha256);
    if (!ret_sha256[0] && r->d->hub && h->first_server) download_digest(h->etag, ret_sha256);
}

/* End this request; the next one is for the whole file. */
static int ask_anew(struct run *r, struct err *e)
{
    r->restart = true;
    return err_set(e, ERR_CANCELLED, "begins anew");
}

static int check_space(const struct run *r, uint64_t needed, struct err *e)
{
    uint64_t there = os_disk_free(r->part);
    if (needed <= there) return 0;
    return err_set(e, ERR_LIMIT, "%s needs %.1f MB more, and its disk has %.1f MB left", r->d->path,
                   (double)needed / 1e6, (double)there / 1e6);
}

/* Whether the hub states the digest of the file of which we have the beginning. Then it is the same
 * file, whatever ETag the server has to which the hub redirects this time: such servers differ. */
static bool is_stated(const struct run *r, const char *stated)
{
    return stated[0] && strcmp(r->state.sha256, stated) == 0;
}

/* Whether the validator that If-Range had, which not all servers look at, is another one now. */
static bool is_changed(const struct download_state *s, const struct fetch_head *h)
{
    if (s->etag[0] && h->etag[0]) return strcmp(s->etag, h->etag) != 0;
    return differs(s->modified, h->modified);
}

/* A part of the file comes: is it the file of which we have the beginning? */
static int take_range(struct run *r, const struct fetch_head *h, const char *stated, struct err *e)
{
    const struct download_state *s = &r->state;
    if ((is_changed(s, h) && !is_stated(r, stated)) || differs(s->sha256, stated) ||
        (s->size != FETCH_UNKNOWN && h->range_of != FETCH_UNKNOWN && s->size != h->range_of)) {
        note(r, "the file has changed at the server: the download begins anew");
        return ask_anew(r, e);
    }
    if (h->range_from != r->at) {
        note(r, "the server sends another range than was asked for: the download begins anew");
        return ask_anew(r, e);
    }
    return 0;
}

/* The whole file comes. */
static int take_whole(struct run *r, const struct fetch_head *h, const char *stated, struct err *e)
{
    const struct download_state *s = &r->state;
    if (r->at == 0) return 0;
    if (is_stated(r, stated) && !r->unconditional) {
        r->unconditional = true;
        return err_set(e, ERR_CANCELLED, "asks for the range again, without If-Range");
    }
    bool changed = differs(s->etag, h->etag) || differs(s->sha256, stated) ||
                   differs(s->modified, h->modified) ||
                   (s->size != FETCH_UNKNOWN && h->length != FETCH_UNKNOWN && s->size != h->length);
    note(r, changed ? "the file has changed at the server: the download begins anew"
                    : "the server cannot resume: the download begins anew");
    return begin_anew(r, e);
}

static int check_digests(struct run *r, const char *stated, struct err *e)
{
    const char *wanted = r->d->sha256;
    if (wanted && stated[0] && strcmp(wanted, stated) != 0)
        return err_set(e, ERR_BAD_INPUT, "the hub's file has SHA-256 %.64s, but %.64s is asked for",
                       stated, wanted);
    snprintf(r->expected, sizeof r->expected, "%.64s", wanted ? wanted : stated);
    return 0;
}

/* Before anything that is here is given up: the page of a network's login must not cost it. */
static int check_response(const struct run *r, const struct fetch_head *h, uint64_t size,
                          struct err *e)
{
    char shown[FETCH_URL_MAX];
    fetch_plain_url(r->d->url, shown, sizeof shown);
    if (strncasecmp(h->type, "text/html", 9) == 0)
        return err_set(e, ERR_BAD_INPUT,
                       "%.200s is a web page, not a GGUF file: the link of the download itself is "
                       "needed",
                       shown);
    if (h->encoding[0] && strcasecmp(h->encoding, "identity") != 0)
        return err_set(e, ERR_UNSUPPORTED, "%.200s: the server sends it encoded as %.40s", shown,
                       h->encoding);
    if (h->linked_size != FETCH_UNKNOWN && size != FETCH_UNKNOWN && size != h->linked_size)
        return err_set(e, ERR_PROTOCOL,
                       "%.200s has %" PRIu64 " bytes by its server, %" PRIu64 " by the hub", shown,
                       size, h->linked_size);
    return 0;
}

static bool is_same(const struct run *r, const struct fetch_head *h, const char *stated)
{
    const char *sha = r->d->have_sha256, *etag = r->d->have_etag;
    if (sha && sha[0] && stated[0]) return strcmp(sha, stated) == 0;
    return etag && etag[0] && strcmp(etag, h->etag) == 0;
}

static int on_head(void *arg, const struct fetch_head *h, struct err *e)
{
    struct run *r = arg;
    char stated[65];
    stated_digest(r, h, stated);
    if (is_same(r, h, stated)) {
        r->result->same = true;
        return err_set(e, ERR_CANCELLED, "the same");
    }
    uint64_t size = h->status == 206 ? h->range_of : h->length;
    if (h->status == 206 && size == FETCH_UNKNOWN) size = r->state.size;
    int code = check_digests(r, stated, e);
    if (code == 0) code = check_response(r, h, size, e);
    if (code == 0)
        code = h->status == 206 ? take_range(r, h, stated, e) : take_whole(r, h, stated, e);
    if (code) return code;
    r->size = size != FETCH_UNKNOWN ? size : h->linked_size;
    if (r->size != FETCH_UNKNOWN) code = check_space(r, r->size - r->at, e);
    if (code) return code;
    fetch_plain_url(r->d->url, r->state.url, sizeof r->state.url);
    snprintf(r->state.etag, sizeof r->state.etag, "%s", h->etag);
    snprintf(r->state.modified, sizeof r->state.modified, "%s", h->modified);
    snprintf(r->state.sha256, sizeof r->state.sha256, "%s", r->expected);
    r->state.size = r->size;
    return download_state_write(r->state_path, &r->state, e);
}

/* ---- its body ---- */

static int check_kind(struct run *r, struct err *e)
{
    const char *kind = download_kind(r->head, r->n_head);
    char shown[FETCH_URL_MAX];
    if (!kind) return 0;
    r->useless = true;
    fetch_plain_url(r->d->url, shown, sizeof shown);
    return err_set(e, ERR_BAD_INPUT, "%.200s is %s, not a GGUF file", shown, kind);
}

static int write_all(struct run *r, const char *data, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = pwrite(r->fd, data + done, n - done, (off_t)(r->at + done));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return err_set(e, ERR_IO, "%s: %s", r->part, strerror(k < 0 ? errno : ENOSPC));
        done += (size_t)k;
    }
    return 0;
}

static int on_body(void *arg, const void *data, size_t n, struct err *e)
{
    struct run *r = arg;
    size_t had = r->n_head;
    if (r->size != FETCH_UNKNOWN && n > r->size - r->at)
        return err_set(e, ERR_PROTOCOL, "the server sends more than the %" PRIu64 " bytes it told",
                       r->size);
    keep_head(r, data, n);
    int code = had < KIND_BYTES && r->n_head == KIND_BYTES ? check_kind(r, e) : 0;
    if (code == 0 && r->size == FETCH_UNKNOWN && (r->at + n) / SPACE_EVERY != r->at / SPACE_EVERY)
        code = check_space(r, SPACE_EVERY, e);
    if (code == 0) code = write_all(r, data, n, e);
    if (code) return code;
    EVP_DigestUpdate(r->digest, data, n);
    r->at += n;
    r->came = true;
    tell(r, false, false);
    return 0;
}

/* ---- tries ---- */

static int ask(struct run *r, struct fetch_head *head, struct err *e)
{
    char range[64];
    const char *validator = download_state_validator(&r->state);
    struct fetch_call call = {.url = r->d->url, .on_head = on_head, .on_body = on_body, .arg = r};
    r->restart = false;
    r->ranged = r->at > 0;
    if (r->ranged) {
        snprintf(range, sizeof range, "bytes=%" PRIu64 "-", r->at);
        call.range = range;
        call.if_range = r->unconditional ? NULL : validator;
    }
    return fetch_get(r->fetch, &call, head, e);
}

static bool begins_anew(struct run *r, const struct fetch_head *head)
{
    return (r->restart || (r->ranged && head->status == 416)) && r->restarts++ < RESTARTS_MAX;
}

static int ask_until_done(struct run *r, struct err *e)
{
    uint32_t failures = 0;
    for (;;) {
        struct fetch_head head = {0};
        bool conditional = !r->unconditional;
        int code = ask(r, &head, e);
        if (conditional && r->unconditional) continue;
        if (r->result->same) return 0;
        if (code == 0 && r->size != FETCH_UNKNOWN && r->at < r->size)
            code = err_set(e, ERR_NET, "the response ended after %" PRIu64 " of %" PRIu64 " bytes",
                           r->at, r->size);
        if (code == 0) return 0;
        if (begins_anew(r, &head)) {
            if (!r->restart) note(r, "the server has no such range: the download begins anew");
            code = begin_anew(r, e);
            if (code) return code;
            continue;
        }
        if (r->restart)
            return err_set(e, ERR_PROTOCOL,
                           "the file changes at the server again and again, or the server sends "
                           "ranges that nobody asked for");
        /* A server that is gone in the middle may come back; one that never was there does not. */
        bool lost = r->came && (code == ERR_NET || code == ERR_TIMEOUT);
        if (!lost && !fetch_may_pass(r->fetch, code)) return code;
        failures = r->at > r->farthest ? 0 : failures;
        r->farthest = r->at > r->farthest ? r->at : r->farthest;
        if (failures == r->d->retries) return code;
        uint64_t us = fetch_wait_us(&head, r->d->retry_us, failures++);
        note(r, "%s; tried again in %.0f s (%u of %u)", e->text, (double)us / 1e6, failures,
             r->d->retries);
        if ((code = fetch_wait(r->fetch, us, e)) != 0) return code;
    }
}

/* ---- the end ---- */

static int finish(struct run *r, struct err *e)
{
    unsigned char digest[32];
    struct download_result *result = r->result;
    int code = check_kind(r, e);
    if (code) return code;
    if (EVP_DigestFinal_ex(r->digest, digest, NULL) != 1)
        return err_set(e, ERR_INTERNAL, "the SHA-256 cannot be computed");
    hex_encode(digest, sizeof digest, result->sha256);
    result->bytes = r->at;
    snprintf(result->etag, sizeof result->etag, "%s", r->state.etag);
    r->useless = r->expected[0] && strcmp(r->expected, result->sha256) != 0;
    if (r->useless)
        return err_set(e, ERR_BAD_INPUT,
                       "%.150s came with SHA-256 %.64s instead of %.64s and is not kept",
                       r->d->path, result->sha256, r->expected);
    r->state.size = r->at;
    snprintf(r->state.sha256, sizeof r->state.sha256, "%s", result->sha256);
    code = download_state_write(r->state_path, &r->state, e);
    if (code == 0 && fsync(r->fd)) code = err_set(e, ERR_IO, "%s: %s", r->part, strerror(errno));
    if (code == 0) tell(r, false, true);
    return code;
}

static int add_end(const char *path, const char *end, char ret_path[DOWNLOAD_PATH_MAX],
                   struct err *e)
{
    int n = snprintf(ret_path, DOWNLOAD_PATH_MAX, "%s%s", path, end);
    if (n > 0 && n < DOWNLOAD_PATH_MAX) return 0;
    return err_set(e, ERR_LIMIT, "%.100s...: path too long", path);
}

int download_run(struct fetch *f, const struct download *d, struct download_result *ret_result,
                 struct err *e)
{
    struct run *r = mem_calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_NO_MEMORY, "no memory for a download");
    *ret_result = (struct download_result){0};
    r->d = d;
    r->fetch = f;
    r->result = ret_result;
    r->fd = -1;
    r->size = FETCH_UNKNOWN;
    int code = add_end(d->path, ".part", r->part, e);
    if (code == 0) code = add_end(d->path, ".part.json", r->state_path, e);
    if (code == 0) code = open_part(r, e);
    if (code == 0) code = ask_until_done(r, e);
    if (code == 0 && !ret_result->same) code = finish(r, e);
    if (r->fd >= 0) close(r->fd);
    if (ret_result->same || r->useless || (code && download_kept(d->path) == 0))
        download_drop(d->path);
    EVP_MD_CTX_free(r->digest);
    mem_free(r);
    return code;
}

int download_place(const char *path, struct err *e)
{
    char part[DOWNLOAD_PATH_MAX], state[DOWNLOAD_PATH_MAX];
    int code = add_end(path, ".part", part, e);
    if (code == 0) code = add_end(path, ".part.json", state, e);
    if (code) return code;
    if (rename(part, path)) return err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    unlink(state);
    return 0;
}

void download_drop(const char *path)
{
    char name[DOWNLOAD_PATH_MAX];
    if (add_end(path, ".part", name, NULL) == 0) unlink(name);
    if (add_end(path, ".part.json", name, NULL) == 0) unlink(name);
}

uint64_t download_kept(const char *path)
{
    char name[DOWNLOAD_PATH_MAX];
    struct stat st;
    if (add_end(path, ".part", name, NULL) || lstat(name, &st) || !S_ISREG(st.st_mode)) return 0;
    return (uint64_t)st.st_size;
}
