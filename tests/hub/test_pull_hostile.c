/*
 * test_pull_hostile: `hub/pull.h` against servers that mean harm, or are careless.
 *
 * Catches: a file put together from two, where the server looks at no validator or is another one;
 * a download without an end; a secret in an error; an error that blames what is not to blame; a
 * list of files that costs memory without bound, or shows a name as another one.
 */
#include "hub/pull_site.h"

static void test_date_changed_and_if_range_ignored(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, site_respond_careless);
    assert_int_equal(s.file.len, s.other.len); /* so that no length gives it away */
    s.etag = "";
    s.more = "Last-Modified: Sun, 29 Nov 2026 12:00:00 GMT\r\n";
    site_cut_once(&s);
    site_swap(&s);
    s.more = "Last-Modified: Mon, 30 Nov 2026 12:00:00 GMT\r\n";
    site_expect(&s, "/m.gguf", 0, NULL);
    site_expect_note(&s, "has changed at the server");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* Two servers may give the same ETag to different files. */
static void test_part_of_another_server(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    site_cut_once(&s);
    site_swap(&s);
    site_expect(&s, "/elsewhere/m.gguf", 0, NULL);
    site_expect_note(&s, "came from another server");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
    /* A digest says that it is the same file. */
    site_start(&s, NULL);
    s.o.sha256 = s.sha256;
    site_cut_once(&s);
    site_expect(&s, "/elsewhere/m.gguf", 0, NULL);
    assert_string_equal(file_server_ask(&s.server, 0).range, "bytes=10000-");
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* "bytes 10000-19999/" and a star: a server need not know the size. */
static void respond_star(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    if (!a->range[0]) {
        site_respond(server, a);
        return;
    }
    file_server_say(server,
                    "HTTP/1.1 206 x\r\nContent-Range: bytes 10000-%zu/*\r\nETag: %s\r\n"
                    "Content-Length: %zu\r\n\r\n",
                    s->file.len - 1, s->etag, s->file.len - 10000);
    file_server_send(server, s->file.data + 10000, s->file.len - 10000);
}

static void test_range_of_unknown_size(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_star);
    site_cut_once(&s);
    site_expect(&s, "/m.gguf", 0, NULL);
    assert_string_equal(s.notes.data ? s.notes.data : "", "");
    assert_int_equal(file_server_count(&s.server), 1);
    site_expect_file(&s, "m.gguf", &s.file);
    site_stop(&s);
}

/* No ranges, and cut now here, now there; whole in the end, for whoever still asks. */
static void respond_seesaw(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    struct file_server_ask whole = *a;
    uint32_t n = file_server_count(server);
    whole.range[0] = 0;
    file_server_file(server, &whole, s->file.data, s->file.len, s->etag,
                     n > 40  ? 0
                     : n % 2 ? 20000
                             : 10000,
                     "");
}

/* Catches: the same bytes loaded again and again, counted as progress each time. */
static void test_no_progress_beyond_the_farthest(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_seesaw);
    site_expect(&s, "/m.gguf", ERR_NET, "cut");
    assert_in_range(file_server_count(&s.server), 2, s.o.retries + 2);
    site_stop(&s);
}

/* A head that does not end; the server waits until the client leaves. */
static void respond_half_head(struct file_server *server, const struct file_server_ask *a)
{
    char byte;
    (void)a;
    file_server_say(server, "HTTP/1.1 200 x\r\nX-Slow: ");
    while (read(server->client, &byte, 1) > 0) {
    }
}

static void test_head_without_end(void **state)
{
    struct pull_site s;
    struct fetch *f;
    struct fetch_head head;
    struct fetch_options o = {.head_us = 1000};
    struct buf body;
    (void)state;
    site_start(&s, respond_half_head);
    buf_init(&body, 100);
    assert_int_equal(fetch_open(&o, &f, &s.e), 0);
    assert_int_equal(fetch_text(f, s.server.url, &body, &head, &s.e), ERR_TIMEOUT);
    assert_non_null(strstr(s.e.text, "comes too slowly"));
    assert_true(fetch_may_pass(f, ERR_TIMEOUT));
    fetch_close(f);
    buf_release(&body);
    site_stop(&s);
}

/* One line of the head, longer than curl takes. */
static void respond_long_line(struct file_server *server, const struct file_server_ask *a)
{
    char line[4096];
    (void)a;
    memset(line, 'a', sizeof line);
    file_server_say(server, "HTTP/1.1 200 x\r\nX-Long: ");
    for (int i = 0; i < 100; i++)
        file_server_send(server, line, sizeof line);
}

static void test_heads(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_long_line);
    site_expect(&s, "/m.gguf", ERR_LIMIT, "bytes of headers");
    site_stop(&s);
    site_start(&s, site_respond_cut_head);
    s.o.retries = 0;
    site_expect(&s, "/m.gguf?signature=secret", ERR_NET, "in the head");
    assert_null(strstr(s.e.text, "secret"));
    site_stop(&s);
}

static void respond_away(struct file_server *server, const struct file_server_ask *a)
{
    struct pull_site *s = server->arg;
    if (!strstr(a->path, "/first/")) {
        file_server_status(server, 403, "", "");
        return;
    }
    file_server_say(server, "HTTP/1.1 302 x\r\nConnection: close\r\nLocation: %s", s->target);
    file_server_send(server, s->body, strlen(s->body));
    file_server_say(server, "\r\nContent-Length: 0\r\n\r\n");
}

static void test_redirects(void **state)
{
    struct pull_site s;
    char tail[5000];
    (void)state;
    memset(tail, 'a', sizeof tail - 1);
    tail[sizeof tail - 1] = 0;
    site_start(&s, respond_away);
    s.body = tail;
    strcpy(s.target, "/second/");
    site_expect(&s, "/first/m.gguf", ERR_LIMIT, "redirects to a URL of more than");
    s.body = "";
    strcpy(s.target, "ftp://me:secret@127.0.0.1/m.gguf");
    site_expect(&s, "/first/m.gguf", ERR_BAD_INPUT, "'ftp://127.0.0.1/m.gguf' is no http");
    site_expect(&s, "ftp://me:secret@127.0.0.1/m.gguf?key=secret", ERR_BAD_INPUT, "a URL");
    assert_null(strstr(s.e.text, "secret"));
    /* Another server's refusal says nothing of the token, which it did not get. */
    s.o.hub_token = "hf_good";
    snprintf(s.target, sizeof s.target, "%s/second/m.gguf", s.server.other_url);
    site_expect(&s, "/first/m.gguf", ERR_DENIED, "answers 403");
    assert_null(strstr(s.e.text, "token"));
    site_stop(&s);
}

/* Catches: a server elsewhere that makes this machine ask its own services, or its cloud's. */
static void test_redirects_inwards(void **state)
{
    static const char elsewhere[] = "https://hub.example/m.gguf", here[] = "http://127.0.0.1:9/";
    static const char *const inwards[] = {
        "https://127.0.0.1/x",      "https://localhost/x",        "https://a.localhost./x",
        "https://[::1]/x",          "https://2130706433/x",       "https://169.254.169.254/x",
        "https://0xa9fea9fe/x",     "https://[fe80::1]/x",        "https://[fe80::1%25eth0]/x",
        "https://[::ffff:a9fe:1]/", "https://[::ffff:127.0.0.1]/"};
    static const char *const outwards[] = {"https://cdn.example/x", "https://10.0.0.1/x",
                                           "https://169.253.0.1/x", "https://[2001:db8::1]/x",
                                           "https://localhost.example/x"};
    struct pull_site s;
    (void)state;
    for (size_t i = 0; i < sizeof inwards / sizeof *inwards; i++) {
        if (fetch_may_redirect(elsewhere, inwards[i])) fail_msg("%s", inwards[i]);
        assert_true(fetch_may_redirect(here, inwards[i]));
    }
    for (size_t i = 0; i < sizeof outwards / sizeof *outwards; i++)
        if (!fetch_may_redirect(elsewhere, outwards[i])) fail_msg("%s", outwards[i]);
    /* A proxy makes this server one elsewhere. */
    site_start(&s, respond_away);
    s.body = "";
    snprintf(s.target, sizeof s.target, "%s/second/m.gguf?key=secret", s.server.url);
    setenv("http_proxy", s.server.url, 1);
    site_expect(&s, "http://hub.example/first/m.gguf", ERR_PROTOCOL, "to this machine");
    unsetenv("http_proxy");
    assert_null(strstr(s.e.text, "secret"));
    assert_int_equal(file_server_count(&s.server), 1);
    site_stop(&s);
}

static void test_names_of_others(void **state)
{
    static const char small[] = "GGUF";
    struct pull_site s;
    char path[256];
    (void)state;
    site_start(&s, NULL);
    assert_int_equal(os_make_folder(s.dir, 0777, NULL), 0);
    /* A model in parts that somebody put there has the name, too. */
    site_path(&s, "m-00002-of-00002.gguf", path);
    assert_int_equal(os_write_file(path, small, sizeof small, NULL), 0);
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "is there already, and was not pulled");
    assert_int_equal(unlink(path), 0);
    /* Its record would be the state of another one's download. */
    s.o.as = "m.gguf.part";
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "no name of a model's file");
    s.o.as = "m\xe2\x80\xaegnp";
    site_expect(&s, "/m.gguf", ERR_BAD_INPUT, "no name of a model's file");
    s.o.as = NULL;
    site_expect(&s, "/m.gguf", 0, NULL);
    site_stop(&s);
}

/* Catches: an error about a URL that nobody typed, without where it is from. */
static void test_endpoint(void **state)
{
    static const char *const wrong[] = {"hub.example", "ftp://hub.example", "http://",
                                        "https://me:secret@hub.example",
                                        "https://hub.example/?key=secret"};
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        s.o.endpoint = wrong[i];
        site_expect(&s, "hf:a/b", ERR_BAD_INPUT, "HF_ENDPOINT");
        assert_null(strstr(s.e.text, "secret@"));
        assert_null(strstr(s.e.text, "key="));
    }
    site_expect(&s, "/m.gguf", 0, NULL); /* another server's URL needs no hub */
    site_stop(&s);
}

/* Catches: a page that was copied from a browser, refused without a word on what to do. */
static void test_page_of_repository(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, NULL);
    site_expect(&s, "/owner/name-GGUF/tree/main", ERR_BAD_INPUT,
                "hf:owner/name-GGUF pulls from it");
    assert_int_equal(file_server_count(&s.server), 0);
    site_stop(&s);
}

static void test_listing(void **state)
{
    static const char odd[] =
        "{\"siblings\": [{\"rfilename\": \"../x.gguf\"}, {\"rfilename\": \"/x.gguf\"},"
        "{\"rfilename\": \"a/../../x.gguf\"}, {\"rfilename\": \"a\\nb.gguf\"}, {\"rfilename\": 5},"
        "{\"rfilename\": \"x\\u202efugg.gguf\"}, {\"rfilename\": \"a\\u2066b/x.gguf\"}, [], 7, {},"
        "{\"rfilename\": \"-x.gguf\"}, {\"rfilename\": \"a\\\\b.gguf\"}, null,"
        "{\"rfilename\": \"good.gguf\", \"size\": -5}]}";
    struct listing l;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(listing_read(odd, sizeof odd - 1, "hf:a/b", &l, &e), 0);
    assert_int_equal(l.n, 1);
    assert_string_equal(l.rows[0].file, "good.gguf");
    assert_int_equal(l.rows[0].size, 0);
    listing_release(&l);
}

static void respond_without_end(struct file_server *server, const struct file_server_ask *a)
{
    char blanks[4096];
    (void)a;
    memset(blanks, ' ', sizeof blanks);
    file_server_say(server, "HTTP/1.1 200 x\r\n\r\n{\"siblings\": [");
    for (int i = 0; i < 8192; i++)
        file_server_send(server, blanks, sizeof blanks);
}

static void test_listing_without_end(void **state)
{
    struct pull_site s;
    (void)state;
    site_start(&s, respond_without_end);
    site_expect(&s, "hf:a/b", ERR_LIMIT, "4194304 bytes allowed");
    site_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_date_changed_and_if_range_ignored),
        cmocka_unit_test(test_part_of_another_server),
        cmocka_unit_test(test_range_of_unknown_size),
        cmocka_unit_test(test_no_progress_beyond_the_farthest),
        cmocka_unit_test(test_head_without_end),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_redirects),
        cmocka_unit_test(test_redirects_inwards),
        cmocka_unit_test(test_names_of_others),
        cmocka_unit_test(test_endpoint),
        cmocka_unit_test(test_page_of_repository),
        cmocka_unit_test(test_listing),
        cmocka_unit_test(test_listing_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
