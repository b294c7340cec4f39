/*
 * test_pull: `hub/pull.h` against a server that cuts, lies, changes and refuses.
 *
 * Catches: a file under a model's name that is not what the server has or not what was asked for; a
 * resumed download put together from two files; bytes loaded again that were there; a token at a
 * server that is not its own; an error that names neither culprit nor remedy.
 */
#include "hub/pull_site.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "base/os.h"

/* ---- a good server ---- */

static void test_plain(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    site_expect(&s, "/a/m.gguf?download=true", 0, NULL);
    assert_string_equal(s.result.name, "m");
    assert_string_equal(s.result.sha256, s.sha256);
    assert_int_equal(s.result.bytes, s.file.len);
    assert_false(s.result.here);
    site_expect_file(&s, "m.gguf", &s.file);
    assert_false(site_has(&s, "m.gguf.part"));
    assert_false(site_has(&s, "m.gguf.part.json"));
    assert_false(site_has(&s, ".m.lock"));
    assert_int_equal(file_server_count(&s.server), 1);
    assert_string_equal(file_server_ask(&s.server, 0).path, "/a/m.gguf?download=true");
    site_expect(&s, "/a/m.gguf", 0, NULL);
    assert_true(s.result.here);
    site_stop(&s);
}

/* Catches: an older file that stays under the name although the server has a newer one. */
static void test_update(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    site_expect(&s, "/m.gguf", 0, NULL);
    site_swap(&s);
    s.etag = "\"v2\"";
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_false(s.result.here);
    site_expect_file(&s, "m.gguf", &s.file);
    assert_string_equal(s.result.sha256, s.sha256);
    site_stop(&s);
}

static void test_names(void **state)
{
    struct pull_site s;
    char path[256];
    (void)state;
    site_start(&s, NULL);
    s.o.as = "mine";
    site_expect(&s, "/download/5", 0, NULL);
    site_expect_file(&s, "mine.gguf", &s.file);
    site_expect(&s, "/other/m.gguf", ERR_BAD_INPUT, "there is a model mine already, from http");
    s.o.as = "../mine";
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "is no name");
    s.o.as = ".hidden";
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "no name of a model's file");
    s.o.as = NULL;
    site_expect(&s, "/download/5", ERR_BAD_INPUT, "--as NAME");
    site_expect(&s, "/%2e%2e%2fm.gguf", ERR_BAD_INPUT, "no name of a model's file");
    site_expect(&s, "/a%0am.gguf", ERR_BAD_INPUT, "no name of a model's file");
    site_path(&s, "there.gguf", path);
    assert_int_equal(os_write_file(path, "mine", 4, NULL), 0);
    site_expect(&s, "/there.gguf", ERR_BAD_INPUT, "was not pulled");
    assert_int_equal(site_size(&s, "there.gguf"), 4);
    site_expect(&s, "ftp://127.0.0.1/m.gguf", ERR_BAD_INPUT, "a URL");
    site_expect(&s, "http://me:secret@127.0.0.1/m.gguf", ERR_BAD_INPUT, "--token-file");
    assert_null(strstr(s.e.text, "secret"));
    site_stop(&s);
}

/* ---- resuming ---- */

/* Catches: a lost connection that ends the download, or bytes asked for twice. */
static void test_resumed_at_once(void **state)
{
    struct pull_site s;
    char range[64];
    (void)state;
    site_start(&s, NULL);
    s.cut = 10000;
    s.times = 4; /* more than retries: each brings bytes */
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_file(&s, "m.gguf", &s.file);
    assert_int_equal(file_server_count(&s.server), 5);
    for (uint32_t i = 1; i < 5; i++) {
        struct file_server_ask a = file_server_ask(&s.server, i);
        snprintf(range, sizeof range, "bytes=%u-", i * 10000);
        assert_string_equal(a.range, range);
        assert_string_equal(a.if_range, SITE_TAG);
    }
    site_expect_note(&s, "tried again");
    site_stop(&s);
}

static void test_resumed_later(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    site_cut_once(&s);
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).range, "bytes=10000-");
    assert_string_equal(s.result.sha256, s.sha256);
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* Catches: the beginning of one file with the end of another. */
static void test_changed_in_between(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    site_cut_once(&s);
    site_swap(&s);
    s.etag = "\"v2\"";
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_note(&s, "has changed at the server");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* A server that sends the range of another file as if nothing had been asked. */
static void test_changed_and_if_range_ignored(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, site_respond_careless);
    s.o.retries = 0;
    s.cut = 5000;
    s.times = 1;
    site_expect(&s, "/m.gguf", ERR_NET, NULL);
    site_swap(&s);
    s.etag = "\"v2\"";
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_note(&s, "has changed at the server");
    assert_int_equal(file_server_count(&s.server), 2);
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* It knows no ranges. */
static void respond_whole(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    struct file_server_ask whole = *a;
    whole.range[0] = 0;
    file_server_file(server, &whole, s->file.data, s->file.len, s->etag, s->times-- > 0 ? 5000 : 0,
                     s->more);
}

/* A server to which the hub redirects, with an ETag of its own each time. */
static void respond_many_tags(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    char tag[32];
    snprintf(tag, sizeof tag, "\"%u\"", file_server_count(server));
    file_server_file(server, a, s->file.data, s->file.len, tag, s->times-- > 0 ? 10000 : 0,
                     s->more);
}

/* Catches: a file loaded anew although the hub says that it is the same. */
static void test_same_digest_with_other_tags(void **state)
{
    struct pull_site s;
    char more[160];
    (void)state;
    site_start(&s, respond_many_tags);
    snprintf(more, sizeof more, "X-Linked-ETag: \"%s\"\r\n", s.sha256);
    s.more = more;
    s.times = 1;
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_int_equal(file_server_count(&s.server), 3);
    assert_string_equal(file_server_ask(&s.server, 1).range, "bytes=10000-");
    assert_string_equal(file_server_ask(&s.server, 1).if_range, "\"1\"");
    assert_string_equal(file_server_ask(&s.server, 2).range, "bytes=10000-");
    assert_string_equal(file_server_ask(&s.server, 2).if_range, "");
    assert_null(strstr(s.notes.data, "anew"));
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
    /* A server without ranges costs one request more, no loop. */
    site_start(&s, respond_whole);
    snprintf(more, sizeof more, "X-Linked-ETag: \"%s\"\r\n", s.sha256);
    s.more = more;
    s.times = 1;
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_int_equal(file_server_count(&s.server), 3);
    site_expect_note(&s, "cannot resume");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

static void test_no_ranges(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_whole);
    s.times = 1;
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_note(&s, "cannot resume");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* Catches: a part of which nobody knows what file it is of, used all the same. */
static void test_no_validator(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    s.etag = "";
    site_cut_once(&s);
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).range, "");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* A weak ETag is none for If-Range; with the file's digest a range is safe all the same. */
static void test_weak_validator(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    s.etag = "W/\"v1\"";
    site_cut_once(&s);
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).range, "");
    site_stop(&s);
    site_start(&s, NULL);
    s.etag = "W/\"v1\"";
    s.o.sha256 = s.sha256;
    site_cut_once(&s);
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).range, "bytes=10000-");
    assert_string_equal(file_server_ask(&s.server, 0).if_range, "");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

static void test_by_date(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    s.etag = "";
    s.more = "Last-Modified: Sun, 29 Nov 2026 12:00:00 GMT\r\n";
    site_cut_once(&s);
    site_expect(&s, "/m.gguf", 0, NULL); /* it does not know If-Range by date: all comes */
    assert_string_equal(file_server_ask(&s.server, 0).range, "bytes=10000-");
    assert_string_equal(file_server_ask(&s.server, 0).if_range, "Sun, 29 Nov 2026 12:00:00 GMT");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

static void respond_416(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    if (a->range[0])
        file_server_status(server, 416, "Content-Range: bytes */100\r\n", "");
    else
        file_server_file(server, a, s->file.data, s->file.len, s->etag, s->times-- > 0 ? 5000 : 0,
                         s->more);
}

static void test_416(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_416);
    s.times = 1;
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_note(&s, "no such range");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* Catches: a complete part that was not renamed, loaded again or asked for as an empty range. */
static void test_complete_part(void **state)
{
    struct pull_site s;
    char path[256], range[64], text[256];
    (void)state;
    site_start(&s, NULL);
    site_cut_once(&s);
    site_path(&s, "m.gguf.part", path);
    assert_int_equal(os_write_file(path, s.file.data, s.file.len, NULL), 0);
    site_expect(&s, "/m.gguf", 0, NULL);
    snprintf(range, sizeof range, "bytes=%zu-", s.file.len - 1);
    assert_string_equal(file_server_ask(&s.server, 0).range, range);
    site_expect_file(&s, "m.gguf", &s.file);
    assert_int_equal(unlink((site_path(&s, "m.gguf", path), path)), 0);
    /* Longer than the file is, and a state that is no JSON: of no use. */
    for (int i = 0; i < 2; i++) {
        site_path(&s, "m.gguf.part", path);
        assert_int_equal(os_write_file(path, s.file.data, s.file.len, NULL), 0);
        site_path(&s, "m.gguf.part.json", path);
        snprintf(text, sizeof text, i ? "{" : "{\"etag\": \"\\\"v1\\\"\", \"size\": 5}");
        assert_int_equal(os_write_file(path, text, strlen(text), NULL), 0);
        site_expect(&s, "/m.gguf", 0, NULL);
        assert_string_equal(file_server_ask(&s.server, 0).range, "");
        assert_int_equal(unlink((site_path(&s, "m.gguf", path), path)), 0);
    }
    site_stop(&s);
}

/* Catches: the page of a network's login that costs what was loaded. */
static void test_login_page_in_between(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    site_cut_once(&s);
    s.times = 1;
    s.status = 200;
    s.more = "Content-Type: text/html; charset=utf-8\r\n";
    s.body = "<html>log in</html>";
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "is a web page, not a GGUF file");
    assert_int_equal(site_size(&s, "m.gguf.part"), 10000);
    s.more = "";
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).range, "bytes=10000-");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* ---- digests ---- */

static void test_digests(void **state)
{
    struct pull_site s;
    char more[160];
    (void)state;
    site_start(&s, NULL);
    snprintf(more, sizeof more, "X-Linked-ETag: \"%s\"\r\n", s.other_sha256);
    s.more = more;
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "is not kept");
    assert_non_null(strstr(s.e.text, s.sha256));
    site_expect_nothing(&s);
    s.o.sha256 = s.sha256;
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "is asked for");
    site_expect_nothing(&s);
    s.more = "";
    s.o.sha256 = s.other_sha256;
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "is not kept");
    site_expect_nothing(&s);
    s.o.sha256 = "12";
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "64 hexadecimal digits");
    s.o.sha256 = s.sha256;
    snprintf(more, sizeof more, "X-Linked-ETag: \"%s\"\r\n", s.sha256);
    s.more = more;
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_true(s.result.here);
    site_stop(&s);
}

/* ---- lies about lengths ---- */

static void respond_lie(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    (void)a;
    file_server_say(server, "HTTP/1.1 %d x\r\nConnection: close\r\n%s\r\n", s->status, s->more);
    file_server_send(server, s->file.data, s->file.len);
}

static void test_lengths(void **state)
{
    struct pull_site s;
    char more[256];
    (void)state;
    site_start(&s, respond_lie);
    s.status = 200;
    s.o.retries = 0;
    s.more = more;
    snprintf(more, sizeof more, "Content-Length: %zu\r\n", s.file.len + 1);
    site_expect(&s, "/m.gguf", ERR_NET, "cut in the middle");
    snprintf(more, sizeof more, "Content-Length: 4611686018427387904\r\n");
    site_expect(&s, "/m.gguf", ERR_LIMIT, "MB left");
    site_expect_nothing(&s);
    snprintf(more, sizeof more, "Content-Length: %zu\r\nX-Linked-Size: %zu\r\n", s.file.len,
             s.file.len + 1);
    site_expect(&s, "/m.gguf", ERR_PROTOCOL, "by the hub");
    site_expect_nothing(&s);
    snprintf(more, sizeof more, "X-Linked-Size: %zu\r\n", s.file.len - 1);
    site_expect(&s, "/m.gguf", ERR_PROTOCOL, "more than");
    snprintf(more, sizeof more, "Content-Length: %zu\r\n", s.file.len - 1); /* cut, to us */
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "m.gguf");
    site_expect_nothing(&s);
    s.status = 206; /* of a range that nobody asked for */
    snprintf(more, sizeof more, "Content-Range: bytes 5-%zu/%zu\r\n", s.file.len + 4,
             s.file.len + 5);
    site_expect(&s, "/m.gguf", ERR_PROTOCOL, "nobody asked for");
    site_expect_nothing(&s);
    s.status = 200;
    snprintf(more, sizeof more, "Content-Encoding: gzip\r\n");
    site_expect(&s, "/m.gguf", ERR_UNSUPPORTED, "encoded as gzip");
    more[0] = 0; /* no length at all: the end of the connection is the file's */
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

static void respond_long_head(struct file_server *server, const struct file_server_ask *a)
{
    (void)a;
    file_server_say(server, "HTTP/1.1 200 x\r\n");
    for (int i = 0; i < 100; i++)
        file_server_say(server, "X-Long: %01000d\r\n", i);
    file_server_say(server, "\r\n");
}

static void test_heads(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_long_head);
    site_expect(&s, "/m.gguf", ERR_LIMIT, "bytes of headers");
    site_stop(&s);
    site_start(&s, site_respond_cut_head);
    s.o.retries = 0;
    site_expect(&s, "/m.gguf", ERR_NET, "cut");
    site_expect_nothing(&s);
    site_stop(&s);
}

/* ---- what is no model ---- */

static void test_kinds(void **state)
{
    static const struct {
        const char *more, *body, *text;
    } kinds[] = {
        {"Content-Type: text/html\r\n", "GGUF", "is a web page"},
        {"", "\n <!DOCTYPE HTML><html><body>Not found", "is a web page"},
        {"Content-Type: application/octet-stream\r\n", "<html><head><title>x</title></head></html>",
         "is a web page"},
        {"", "\x89PNG\r\n\x1a\nabc", "is a picture (PNG)"},
        {"", "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n", "Git LFS"},
        {"", "{\"error\": \"no\"}", "a JSON text"},
        {"", "PK\x03\x04 and more of it", "zip archive"},
        {"", "", "is empty"},
        {"", "GGUF", "m.gguf"},
        {"", "0123456789012345678901234567890123456789012345678901234567890123456789",
         "something else, not a GGUF"},
    };
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    s.status = 200;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        s.times = -1;
        s.more = kinds[i].more;
        s.body = kinds[i].body;
        site_expect(&s, "/m.gguf", ERR_BAD_INPUT, kinds[i].text);
        assert_int_equal(file_server_count(&s.server), 1);
        site_expect_nothing(&s);
    }
    /* A file that is a GGUF file, but cut off before it was served. */
    s.times = 0;
    s.more = "";
    s.file.len -= 1000;
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "m.gguf");
    site_expect_nothing(&s);
    site_stop(&s);
}

/* ---- statuses ---- */

static void test_statuses(void **state)
{
    static const struct {
        int status, code;
        const char *more, *body, *text;
        bool again;
    } rows[] = {
        {401, ERR_DENIED, "X-Error-Message: Invalid username or password.\r\n", "",
         "401: Invalid username", false},
        {403, ERR_DENIED, "", "{\"error\": \"gated\"}", "403: gated", false},
        {404, ERR_NOT_FOUND, "", "{\"error\": {\"message\": \"gone\"}}", "404: gone", false},
        {418, ERR_BAD_INPUT, "", "", "418", false},
        {429, ERR_BUSY, "Retry-After: 0\r\n", "", "429", true},
        {500, ERR_BUSY, "", "<html>oops", "500", true},
        {503, ERR_BUSY, "", "", "503", true},
    };
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s.status = rows[i].status;
        s.more = rows[i].more;
        s.body = rows[i].body;
        s.times = -1;
        site_expect(&s, "/m.gguf", rows[i].code, rows[i].text);
        assert_int_equal(file_server_count(&s.server), rows[i].again ? 1 + s.o.retries : 1);
        site_expect_nothing(&s);
    }
    s.times = 2; /* then the server recovers */
    s.more = "";
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_int_equal(file_server_count(&s.server), 3);
    site_stop(&s);
}

static void test_unreachable(void **state)
{
    struct pull_site s;
    char url[128];
    (void)state;
    site_start(&s, NULL);
    snprintf(url, sizeof url, "%s/m.gguf", s.server.url);
    file_server_stop(&s.server);
    site_expect(&s, url, ERR_NET, "no connection can be made");
    assert_int_equal(s.notes.len, 0); /* at once, and once */
    file_server_start(&s.server, NULL, site_respond, &s);
    site_stop(&s);
}

/* ---- redirects and the token ---- */

/* /first... redirects to s->target, all else is the file. */
static void respond_redirect(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    char more[1024];
    if (strncmp(a->path, "/first", 6) != 0) {
        file_server_file(server, a, s->file.data, s->file.len, s->etag, 0, "");
        return;
    }
    snprintf(more, sizeof more, "Location: %s\r\n%s", s->target, s->more);
    file_server_status(server, 302, more, "moved");
}

/* Catches: a token that another server gets to see. */
static void test_token_and_redirect(void **state)
{
    struct pull_site s;
    char more[160];
    (void)state;
    site_start(&s, respond_redirect);
    s.o.token = "hf_secret";
    snprintf(s.target, sizeof s.target, "%s/cdn/x?signature=1", s.server.other_url);
    snprintf(more, sizeof more, "X-Linked-ETag: \"%s\"\r\nX-Linked-Size: %zu\r\n", s.sha256,
             s.file.len);
    s.more = more;
    site_expect(&s, "/first/m.gguf", 0, NULL);
    assert_int_equal(file_server_count(&s.server), 2);
    assert_string_equal(file_server_ask(&s.server, 0).token, "Bearer hf_secret");
    assert_string_equal(file_server_ask(&s.server, 1).token, "");
    assert_string_equal(file_server_ask(&s.server, 1).path, "/cdn/x?signature=1");
    site_expect_file(&s, "m.gguf", &s.file);
    site_expect(&s, "/first/m.gguf", 0, NULL);
    assert_true(s.result.here);
    /* On the same server it stays, also by a relative address. */
    strcpy(s.target, "../there/m.gguf");
    s.o.as = "two";
    site_expect(&s, "/first/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 1).path, "/there/m.gguf");
    assert_string_equal(file_server_ask(&s.server, 1).token, "Bearer hf_secret");
    /* What the other server says of digests counts for nothing; the first one's does. */
    snprintf(s.target, sizeof s.target, "%s/cdn/x", s.server.other_url);
    snprintf(more, sizeof more, "X-Linked-ETag: \"%s\"\r\n", s.other_sha256);
    s.o.as = "three";
    site_expect(&s, "/first/m.gguf", ERR_BAD_INPUT, "is not kept");
    site_stop(&s);
}

static void test_redirects_refused(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_redirect);
    strcpy(s.target, "/first/again");
    site_expect(&s, "/first/m.gguf", ERR_PROTOCOL, "more than 10 redirects");
    assert_int_equal(file_server_count(&s.server), FETCH_HOPS_MAX + 1);
    strcpy(s.target, "file:///etc/passwd");
    site_expect(&s, "/first/m.gguf", ERR_BAD_INPUT, "no http or https URL");
    strcpy(s.target, "gopher://127.0.0.1/");
    site_expect(&s, "/first/m.gguf", ERR_BAD_INPUT, "no http or https URL");
    s.target[0] = 0;
    site_expect(&s, "/first/m.gguf", ERR_PROTOCOL, "not to where");
    site_expect_nothing(&s);
    site_stop(&s);
}

/* The hub's token goes to the hub alone, and no token goes where others can read it. */
static void test_whose_token(void **state)
{
    struct pull_site s;
    char url[128];
    (void)state;
    site_start(&s, NULL);
    s.o.hub_token = "hf_secret";
    site_expect(&s, "/m.gguf", 0, NULL); /* the endpoint is this server */
    assert_string_equal(file_server_ask(&s.server, 0).token, "Bearer hf_secret");
    s.o.endpoint = "https://hub.example";
    s.o.as = "two";
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).token, "");
    s.o.endpoint = s.server.url;
    snprintf(url, sizeof url, "%s/m.gguf", s.server.other_url);
    s.o.as = "three";
    site_expect(&s, url, 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).token, "");
    s.o.hub_token = NULL;
    s.o.token = "mine";
    site_expect(&s, "http://hub.example/m.gguf", ERR_DENIED, "is not sent to http://hub.example");
    s.o.endpoint = "http://hub.example";
    site_expect(&s, "hf:a/b", ERR_DENIED, "is not sent to http://hub.example");
    site_stop(&s);
}

/* Catches: a header that a token adds. */
static void test_token_with_a_line(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    s.o.token = "x\r\nX-More: y";
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "the token holds");
    assert_int_equal(file_server_count(&s.server), 0);
    site_stop(&s);
}

static void test_tls(void **state)
{
    struct pull_site s;
    struct tls_files files;
    (void)state;
    site_start(&s, NULL);
    file_server_stop(&s.server);
    tls_files_make(TLS_FILES_ECDSA, &files);
    file_server_start(&s.server, &files, respond_redirect, &s);
    site_expect(&s, "/m.gguf", ERR_NET, "certificate cannot be verified: --ca-file");
    assert_int_equal(s.notes.len, 0);
    s.o.ca_file = files.cert;
    s.o.token = "hf_secret";
    snprintf(s.target, sizeof s.target, "%s/x", s.server.other_url);
    site_expect(&s, "/first/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).token, "Bearer hf_secret");
    assert_string_equal(file_server_ask(&s.server, 1).token, "");
    site_expect_file(&s, "m.gguf", &s.file);
    snprintf(s.target, sizeof s.target, "http%.100s/x", s.server.url + strlen("https"));
    s.o.as = "two";
    site_expect(&s, "/first/m.gguf", ERR_PROTOCOL, "from https to http");
    tls_files_remove(&files);
    site_stop(&s);
}

/* ---- two at once, and a person who stops ---- */

static void test_lock(void **state)
{
    struct pull_site s;
    int fd;
    struct err e = ERR_INIT;
    (void)state;
    site_start(&s, NULL);
    assert_int_equal(os_make_folder(s.dir, 0777, &e), 0);
    assert_int_equal(library_lock(s.dir, "m", &fd, &e), 0);
    site_expect(&s, "/m.gguf", ERR_BUSY, "by another process");
    assert_int_equal(file_server_count(&s.server), 0);
    library_unlock(s.dir, "m", fd);
    site_expect(&s, "/m.gguf", 0, NULL);
    site_stop(&s);
}

/* The rest of the file only when the person has stopped. */
static void respond_slowly(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    if (s->times-- <= 0) {
        file_server_file(server, a, s->file.data, s->file.len, s->etag, 0, "");
        return;
    }
    file_server_say(server, "HTTP/1.1 200 x\r\nETag: %s\r\nContent-Length: %zu\r\n\r\n", s->etag,
                    s->file.len);
    file_server_send(server, s->file.data, 20000);
    s->stopped = true;
}

static void test_stopped(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_slowly);
    s.times = 1;
    site_expect(&s, "/m.gguf", ERR_CANCELLED, NULL);
    s.stopped = false;
    uint64_t kept = site_size(&s, "m.gguf.part");
    assert_int_equal(s.result.kept, kept);
    assert_false(site_has(&s, "m.gguf"));
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* A disk that is full while bytes come, as a limit of this process' files. */
static void test_disk_full(void **state)
{
    struct pull_site s;
    struct rlimit before, now;
    (void)state;
    site_start(&s, NULL);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    now = before;
    now.rlim_cur = 30000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
    int code = site_pull(&s, "/m.gguf");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(code, ERR_IO);
    assert_non_null(strstr(s.e.text, "m.gguf.part"));
    assert_int_equal(file_server_count(&s.server), 1);
    uint64_t kept = site_size(&s, "m.gguf.part");
    assert_true(kept > 0 && kept <= 30000);
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_true(file_server_ask(&s.server, 0).range[0] != 0);
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* Catches: a crash or a leak where there is no memory, or a file that is not whole. */
static void test_out_of_memory(void **state)
{
    struct pull_site s;
    bool hit = true;
    (void)state;
    site_start(&s, NULL);
    for (long n = 1; hit; n++) {
        uint64_t freed;
        mem_fail_at(n);
        int code = site_pull(&s, "/m.gguf");
        hit = mem_fail_hit() != 0;
        mem_fail_at(0);
        if (code == 0) {
            site_expect_file(&s, "m.gguf", &s.file);
            assert_int_equal(library_remove(s.dir, "m", &freed, NULL), 0);
        } else {
            assert_false(site_has(&s, "m.gguf"));
            assert_true(s.e.text[0]);
        }
        assert_true(n < 1000);
    }
    site_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_update),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_resumed_at_once),
        cmocka_unit_test(test_resumed_later),
        cmocka_unit_test(test_changed_in_between),
        cmocka_unit_test(test_changed_and_if_range_ignored),
        cmocka_unit_test(test_same_digest_with_other_tags),
        cmocka_unit_test(test_no_ranges),
        cmocka_unit_test(test_no_validator),
        cmocka_unit_test(test_weak_validator),
        cmocka_unit_test(test_by_date),
        cmocka_unit_test(test_416),
        cmocka_unit_test(test_complete_part),
        cmocka_unit_test(test_login_page_in_between),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_token_and_redirect),
        cmocka_unit_test(test_redirects_refused),
        cmocka_unit_test(test_whose_token),
        cmocka_unit_test(test_token_with_a_line),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
