/*
 * pull_site: a library in a folder of its own, a server of files, and what a pull said: for the
 * tests of hub/pull.h. Static functions, so that each test links alone.
 */
#ifndef PDD_TESTS_HUB_PULL_SITE_H
#define PDD_TESTS_HUB_PULL_SITE_H

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hex.h"
#include "base/os.h"
#include "hub/pull.h"
#include "support/file_server.h"
#include "support/program.h"
#include "support/tiny_model.h"

enum { SITE_NOTES_MAX = 8192, SITE_FILE_MAX = 1 << 24 };

#define SITE_TAG "\"v1\""

struct pull_site {
    struct file_server server;
    char dir[64]; /* of the library */
    struct buf file, other;
    char sha256[65], other_sha256[65];
    struct buf notes;
    struct pull_options o;
    struct pull_result result;
    struct err e;
    uint64_t stop_at; /* bytes at which the person stops; 0: never */
    atomic_bool stopped;
    /* what the server does */
    const char *etag, *more, *body;
    int status;
    atomic_int times; /* times: so many requests are treated badly, then none */
    size_t cut;
    char target[512]; /* of a redirect */
};

static inline void site_digest(const struct buf *b, char ret_sha256[65])
{
    unsigned char digest[32];
    assert_int_equal(EVP_Digest(b->data, b->len, digest, NULL, EVP_sha256(), NULL), 1);
    hex_encode(digest, sizeof digest, ret_sha256);
}

static inline void site_note(void *arg, const char *sentence)
{
    struct pull_site *s = arg;
    assert_int_equal(buf_printf(&s->notes, "%s\n", sentence), 0);
}

static inline void site_progress(void *arg, const char *file, uint32_t part, uint32_t parts,
                                 const struct download_progress *p)
{
    struct pull_site *s = arg;
    assert_true(part >= 1 && part <= parts && file[0]);
    assert_true(p->total == FETCH_UNKNOWN || p->done <= p->total);
    (void)s;
}

static inline bool site_stopped(void *arg)
{
    struct pull_site *s = arg;
    return s->stopped;
}

static inline void site_file(struct pull_site *s, uint64_t seed, struct buf *b, char sha256[65])
{
    struct tiny_options o = TINY_DEFAULT;
    o.seed = seed;
    o.vocab = s ? 300 : 301;
    buf_init(b, SITE_FILE_MAX);
    tiny_model_bytes(&o, b);
    site_digest(b, sha256);
}

/* The good server: the file, with an ETag, and ranges. */
static inline void site_respond(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    bool bad = s->times != 0;
    if (s->times > 0) s->times--;
    if (bad && s->status)
        file_server_status(server, s->status, s->more, s->body);
    else
        file_server_file(server, a, s->file.data, s->file.len, s->etag, bad ? s->cut : 0, s->more);
}

/* It sends ranges whatever If-Range says. */
static inline void site_respond_careless(struct file_server *server,
                                         const struct file_server_ask *a)
{
    struct file_server_ask careless = *a;
    careless.if_range[0] = 0;
    site_respond(server, &careless);
}

static inline void site_respond_cut_head(struct file_server *server,
                                         const struct file_server_ask *a)
{
    (void)a;
    file_server_say(server, "HTTP/1.1 200 x\r\nContent-Le");
}

static inline void site_start(struct pull_site *s,
                              void (*respond)(struct file_server *, const struct file_server_ask *))
{
    memset(s, 0, sizeof *s);
    strcpy(s->dir, "/tmp/pdd-test-hub-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    strcat(s->dir, "/models");
    site_file(s, 1, &s->file, s->sha256);
    site_file(s, 2, &s->other, s->other_sha256);
    buf_init(&s->notes, SITE_NOTES_MAX);
    s->etag = SITE_TAG;
    s->more = s->body = "";
    file_server_start(&s->server, NULL, respond ? respond : site_respond, s);
    s->o = (struct pull_options){.dir = s->dir,
                                 .endpoint = s->server.url,
                                 .retries = 3,
                                 .retry_us = 1000,
                                 .stopped = site_stopped,
                                 .on_progress = site_progress,
                                 .on_note = site_note,
                                 .arg = s};
}

static inline void site_stop(struct pull_site *s)
{
    char command[128];
    struct buf out;
    file_server_stop(&s->server);
    buf_release(&s->file);
    buf_release(&s->other);
    buf_release(&s->notes);
    s->dir[strlen(s->dir) - strlen("/models")] = 0;
    snprintf(command, sizeof command, "rm -rf '%s'", s->dir);
    assert_int_equal(program_shell(command, &out), 0);
    buf_release(&out);
}

/* Pull PATH of the server, or a reference with a colon before its first slash. */
static inline int site_pull(struct pull_site *s, const char *what)
{
    char url[1024];
    snprintf(url, sizeof url, "%s%s", what[0] == '/' ? s->server.url : "", what);
    s->o.what = url;
    s->e = (struct err)ERR_INIT;
    buf_clear(&s->notes);
    file_server_forget(&s->server);
    return pull_run(&s->o, &s->result, &s->e);
}

static inline void site_expect(struct pull_site *s, const char *what, int code, const char *text)
{
    int got = site_pull(s, what);
    if (got != code) fail_msg("%s: code %d, not %d: %s", what, got, code, s->e.text);
    if (text && !strstr(s->e.text, text)) fail_msg("%s: no \"%s\" in: %s", what, text, s->e.text);
}

static inline void site_expect_note(const struct pull_site *s, const char *text)
{
    if (!strstr(s->notes.data, text)) fail_msg("no \"%s\" in: %s", text, s->notes.data);
}

static inline void site_path(const struct pull_site *s, const char *file, char path[256])
{
    snprintf(path, 256, "%s/%s", s->dir, file);
}

static inline bool site_has(const struct pull_site *s, const char *file)
{
    char path[256];
    site_path(s, file, path);
    return access(path, F_OK) == 0;
}

static inline uint64_t site_size(const struct pull_site *s, const char *file)
{
    char path[256];
    struct stat st;
    site_path(s, file, path);
    return stat(path, &st) ? 0 : (uint64_t)st.st_size;
}

static inline void site_expect_file(const struct pull_site *s, const char *file,
                                    const struct buf *content)
{
    char path[256];
    struct buf b;
    struct err e = ERR_INIT;
    site_path(s, file, path);
    buf_init(&b, SITE_FILE_MAX);
    if (os_read_file(path, &b, &e)) fail_msg("%s", e.text);
    assert_int_equal(b.len, content->len);
    assert_memory_equal(b.data, content->data, b.len);
    buf_release(&b);
}

/* A first pull is cut after 10000 bytes, which stay. */
static inline void site_cut_once(struct pull_site *s)
{
    s->o.retries = 0;
    s->cut = 10000;
    s->times = 1;
    site_expect(s, "/m.gguf", ERR_NET, "cut");
    assert_int_equal(s->result.kept, 10000);
    assert_int_equal(site_size(s, "m.gguf.part"), 10000);
    assert_false(site_has(s, "m.gguf"));
    assert_false(site_has(s, "m.json"));
}

/* From now on `file` is what was `other`, and the server has it. */
static inline void site_swap(struct pull_site *s)
{
    struct buf file = s->file;
    char sha256[65];
    s->file = s->other;
    s->other = file;
    memcpy(sha256, s->sha256, sizeof sha256);
    memcpy(s->sha256, s->other_sha256, sizeof sha256);
    memcpy(s->other_sha256, sha256, sizeof sha256);
}

/* Nothing of a model is there, neither a part nor a record. */
static inline void site_expect_nothing(const struct pull_site *s)
{
    assert_false(site_has(s, "m.gguf"));
    assert_false(site_has(s, "m.json"));
    assert_false(site_has(s, "m.gguf.part"));
    assert_false(site_has(s, "m.gguf.part.json"));
    assert_false(site_has(s, ".m.lock"));
}

#endif
