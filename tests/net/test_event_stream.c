/*
 * test_event_stream: a stream of events over a real connection to a server of ours.
 *
 * Catches: a callback after the owner closed the stream, from inside a callback too; memory that is
 * freed while a callback runs, or never (under ASan); an end that is told twice or not at all; a
 * connection that is lost after a whole answer; a PATCH to an id that is none, or two at a time; a
 * page of a captive portal that is read as a stream, or is not named; an answer that is lost since
 * its content type, or its end, is not as it should be; a value without end that fills the memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "net/event_stream.h"
#include "net/http_server.h"
#include "proto/wire.h"
#include "support/net_raw.h"

enum { TEXT_MAX = 256 };

/* The server: each stream begins with events a and b, and stays open. */
struct site {
    struct loop *loop;
    struct http_server *server;
    struct http_client *client;
    struct http_request *open;
    unsigned left, patches;
    const char *type; /* of the response; NULL: an event stream's */
    const char *says; /* the whole response; NULL: the two events, and no end */
    const char *encoding;
    size_t says_len;
    char patched[TEXT_MAX];
};

static void client_left(void *arg)
{
    struct site *site = arg;
    site->left++;
    site->open = NULL;
}

static void post(struct http_request *r, void *arg)
{
    static const char events[] = "data: a\n\nevent: last\ndata: b\n\n";
    struct site *site = arg;
    site->open = r;
    http_request_on_close(r, client_left, site);
    if (site->encoding) http_request_reply_header(r, "Content-Encoding", site->encoding);
    if (site->type)
        http_stream_begin(r, site->type[0] ? site->type : NULL);
    else
        http_stream_begin(r, "text/event-stream");
    if (!site->says) {
        CHECK(http_stream_send(r, events, sizeof events - 1) == 0);
        return;
    }
    http_request_on_close(r, NULL, NULL);
    site->open = NULL;
    CHECK(http_stream_send(r, site->says, site->says_len) == 0);
    http_stream_end(r);
}

static void patch(struct http_request *r, void *arg)
{
    struct site *site = arg;
    size_t n;
    const char *body = http_request_body(r, &n);
    site->patches++;
    snprintf(site->patched, sizeof site->patched, "%s %.*s", http_request_id(r), (int)n, body);
    http_reply_json(r, 200, "{}", 2);
}

static const struct http_route routes[] = {{"POST", "/s", post, NULL, 0, false},
                                           {"PATCH", "/s/{id}", patch, NULL, 0, false}};

static void site_start(struct site *site)
{
    struct http_server_config server;
    struct http_client_config client;
    char url[64];
    *site = (struct site){.loop = NULL};
    http_server_config_default(&server);
    server.error_body = wire_error_body;
    server.output_max = 2 * (size_t)EVENT_STREAM_WHOLE_MAX;
    CHECK(loop_new(&site->loop, NULL) == 0);
    CHECK(http_server_new(site->loop, &server, routes, 2, site, &site->server, NULL) == 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", http_server_port(site->server));
    http_client_config_default(&client);
    client.base_url = url;
    client.warm_path = NULL;
    CHECK(http_client_new(site->loop, &client, &site->client, NULL) == 0);
}

static void site_stop(struct site *site)
{
    http_client_free(site->client);
    http_server_free(site->server);
    loop_free(site->loop);
}

/* What the owner does at an event, and what it saw. */
enum deed { NOTHING, CLOSE, FINISH, REFUSE };
struct owner {
    struct event_stream *stream;
    enum deed at_a, at_b;
    bool close_at_end;
    char seen[TEXT_MAX];
    unsigned ends, releases, patched;
};

static void note(struct owner *o, const char *text)
{
    assert_int_equal(o->releases, 0);
    size_t n = strlen(o->seen);
    snprintf(o->seen + n, sizeof o->seen - n, "%.200s", text);
}

static void on_head(void *arg, int status)
{
    note(arg, status == 200 ? "200 " : "? ");
}

static int on_event(void *arg, const char *name, const char *data, size_t n, struct err *e)
{
    struct owner *o = arg;
    enum deed deed = data[0] == 'a' ? o->at_a : o->at_b;
    assert_int_equal(n, 1);
    note(o, name);
    note(o, data[0] == 'a' ? ":a " : ":b ");
    if (deed == CLOSE) event_stream_close(o->stream);
    if (deed == FINISH) event_stream_finish(o->stream);
    assert_int_equal(o->releases, 0); /* not while we are inside */
    return deed == REFUSE ? err_set(e, ERR_PROTOCOL, "I do not like it") : 0;
}

static void on_end(void *arg, const struct http_result *result, const struct err *e)
{
    struct owner *o = arg;
    note(o, result ? result->err.code ? "cut" : "end" : e->text);
    o->ends++;
    if (o->close_at_end) event_stream_close(o->stream);
}

static void on_patched(void *arg)
{
    ((struct owner *)arg)->patched++;
}

static void released(void *arg)
{
    ((struct owner *)arg)->releases++;
}

static void open_stream(struct site *site, struct owner *o)
{
    struct err e = ERR_INIT;
    struct buf body;
    struct event_stream_spec spec = {.path = "/s",
                                     .body = &body,
                                     .on_head = on_head,
                                     .on_event = on_event,
                                     .on_end = on_end,
                                     .on_patched = on_patched,
                                     .release = released,
                                     .arg = o};
    buf_init(&body, TEXT_MAX);
    CHECK(buf_puts(&body, "{}") == 0);
    if (event_stream_open(site->client, &spec, &o->stream, &e)) fail_msg("%s", e.text);
    buf_release(&body);
}

/* An owner that takes whatever comes. */
static int take_any(void *arg, const char *name, const char *data, size_t n, struct err *e)
{
    char text[40];
    (void)e;
    snprintf(text, sizeof text, "%s:%.*s ", name, (int)n, data);
    note(arg, text);
    return 0;
}

static int take_whole(void *arg, const char *data, size_t n, struct err *e)
{
    return take_any(arg, "whole", data, n, e);
}

static void open_any(struct site *site, struct owner *o)
{
    struct err e = ERR_INIT;
    struct buf body;
    struct event_stream_spec spec = {.path = "/s",
                                     .body = &body,
                                     .on_event = take_any,
                                     .on_whole = take_whole,
                                     .on_end = on_end,
                                     .arg = o};
    buf_init(&body, TEXT_MAX);
    CHECK(buf_puts(&body, "{}") == 0);
    if (event_stream_open(site->client, &spec, &o->stream, &e)) fail_msg("%s", e.text);
    buf_release(&body);
}

static void stop_loop(void *arg)
{
    loop_stop(arg);
}

static void run_a_bit(struct loop *l)
{
    struct loop_timer *t;
    CHECK(loop_timer_new(l, stop_loop, l, &t, NULL) == 0);
    loop_timer_set(t, clock_us() + 1000);
    CHECK(loop_run(l, NULL) == 0);
    loop_timer_free(t);
}

static void run_until(struct loop *l, const unsigned *value, unsigned least)
{
    for (int i = 0; i < RAW_WAIT_MS && *value < least; i++)
        run_a_bit(l);
    assert_true(*value >= least);
}

static void run_until_seen(struct loop *l, const struct owner *o, const char *text)
{
    for (int i = 0; i < RAW_WAIT_MS && !strstr(o->seen, text); i++)
        run_a_bit(l);
    assert_non_null(strstr(o->seen, text));
}

static void whole_streams(void **state)
{
    struct site site;
    (void)state;
    site_start(&site);
    for (int close_at_end = 0; close_at_end < 2; close_at_end++) {
        struct owner o = {.close_at_end = close_at_end};
        open_stream(&site, &o);
        run_until_seen(site.loop, &o, ":b");
        http_stream_end(site.open);
        run_until(site.loop, &o.ends, 1);
        assert_string_equal(o.seen, "200 message:a last:b end");
        assert_int_equal(o.releases, close_at_end);
        if (!close_at_end) event_stream_close(o.stream);
        assert_int_equal(o.releases, 1);
    }
    site_stop(&site);
}

static void closed_inside(void **state)
{
    struct site site;
    struct owner o = {.at_a = CLOSE};
    (void)state;
    site_start(&site);
    open_stream(&site, &o);
    run_until(site.loop, &o.releases, 1);
    assert_string_equal(o.seen, "200 message:a ");
    run_until(site.loop, &site.left, 1); /* at once: the server hears of it */
    assert_int_equal(o.ends, 0);
    o = (struct owner){.close_at_end = true, .at_b = REFUSE};
    open_stream(&site, &o);
    run_until(site.loop, &o.releases, 1);
    assert_string_equal(o.seen, "200 message:a last:b I do not like it");
    run_until(site.loop, &site.left, 2);
    site_stop(&site);
}

/* A connection whose stream was finished ends by itself and is used again; one that goes on
 * sending is cut. */
static void finished(void **state)
{
    struct site site;
    struct owner o = {.at_b = FINISH};
    (void)state;
    site_start(&site);
    open_stream(&site, &o);
    run_until_seen(site.loop, &o, ":b");
    event_stream_close(o.stream);
    assert_int_equal(o.releases, 1);
    http_stream_end(site.open);
    for (int i = 0; i < RAW_WAIT_MS && http_client_spares(site.client) == 0; i++)
        run_a_bit(site.loop);
    assert_int_equal(http_client_spares(site.client), 1);
    assert_int_equal(site.left, 0);
    o = (struct owner){.at_a = FINISH};
    open_stream(&site, &o);
    run_until_seen(site.loop, &o, ":a");
    for (int i = 0; i < 5; i++) /* the head of the next event comes */
        run_a_bit(site.loop);
    CHECK(http_stream_send(site.open, "data: c\n\n", 9) == 0);
    run_until(site.loop, &site.left, 1);
    assert_string_equal(o.seen, "200 message:a ");
    event_stream_close(o.stream);
    assert_int_equal(o.ends, 0);
    site_stop(&site);
}

static void patches(void **state)
{
    static const char *const bad[] = {"", "a/b", "..", "a?b", "a b", "\xc3\xa4"};
    struct site site;
    struct owner o = {.at_a = NOTHING};
    struct err e = ERR_INIT;
    (void)state;
    site_start(&site);
    open_stream(&site, &o);
    run_until_seen(site.loop, &o, ":b");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(event_stream_id_good(bad[i]));
        assert_int_equal(event_stream_patch(o.stream, bad[i], "{}", 2, &e), ERR_BAD_INPUT);
    }
    assert_false(event_stream_patching(o.stream));
    assert_int_equal(event_stream_patch(o.stream, "as-1_Z", "{\"n\":1}", 7, &e), 0);
    assert_true(event_stream_patching(o.stream));
    assert_int_equal(event_stream_patch(o.stream, "as-1_Z", "{\"n\":2}", 7, &e), ERR_BUSY);
    run_until(site.loop, &o.patched, 1);
    assert_false(event_stream_patching(o.stream));
    assert_string_equal(site.patched, "as-1_Z {\"n\":1}");
    assert_int_equal(event_stream_patch(o.stream, "as-1_Z", "{\"n\":3}", 7, &e), 0);
    event_stream_close(o.stream); /* with a PATCH on its way */
    assert_int_equal(o.releases, 1);
    run_until(site.loop, &site.left, 1);
    assert_int_equal(o.patched, 1);
    site_stop(&site);
}

static void content_types(void **state)
{
    static const struct {
        const char *type;
        bool good;
    } cases[] = {{"text/event-stream; charset=utf-8", true},
                 {"Text/Event-Stream;charset=utf-8", true},
                 {"text/html; charset=utf-8", false},
                 {"text/event-streams", false},
                 {"application/json", false},
                 {"", false}};
    struct site site;
    (void)state;
    site_start(&site);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct owner o = {.at_b = FINISH};
        site.type = cases[i].type;
        open_stream(&site, &o);
        if (cases[i].good) {
            run_until_seen(site.loop, &o, "200 message:a last:b");
        } else {
            run_until(site.loop, &o.ends, 1);
            assert_memory_equal(o.seen, "the response is no event stream", 31);
            assert_non_null(strstr(o.seen, cases[i].type));
            bool page = strstr(o.seen, "the network asks for a log-in page: http://127.0.0.1:");
            assert_int_equal(page, strncmp(cases[i].type, "text/html", 9) == 0);
        }
        event_stream_close(o.stream);
        assert_int_equal(o.releases, 1);
        if (cases[i].good) http_stream_end(site.open);
    }
    site_stop(&site);
}

#define GZIP                                                                                       \
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4b\x49\x2c\x49"                                     \
    "\xb4\x52\x48\xe4\xe2\x02\x00\x7e\xe3\xc4\x38\x09\x00\x00\x00"
#define GZIP_LEN 29

static const struct {
    const char *type, *says, *want, *encoding;
} bodies[] = {
    {"text/event-stream", "data:a\r\rdata: b\r\ndata: c\r\n\r\n", "message:a message:b\nc end",
     NULL},
    {"text/event-stream",
     "\xEF\xBB\xBF"
     "data: a\n\n",
     "message:a end", NULL},
    {"text/event-stream", "data: a\n\ndata: b\n", "message:a message:b end",
     NULL}, /* no blank line */
    {"text/event-stream", "data: a", "message:a end", NULL},
    {"text/event-stream", "{\"a\":1}", "whole:{\"a\":1} end", NULL},
    {"", ": ping\n\ndata: a\n\n", "message:a end", NULL},
    {"", " \n{\"a\":1}", "whole: \n{\"a\":1} end", NULL},
    {"application/json", "{\"a\":1}", "whole:{\"a\":1} end", NULL},
    {"application/json; charset=utf-8", "data: a\n\n", "message:a end", NULL},
    {"text/plain", "data: a\n\n", "message:a end", NULL},
    {"text/html", "data: a\n\n", "message:a end", NULL}, /* as PHP calls it */
    {"application/x-ndjson", "{\"a\":1}\n\n{\"b\":2}", "message:{\"a\":1} message:{\"b\":2} end",
     NULL},
    {"application/json", "", "end", NULL},
    {"text/event-stream", GZIP, "message:a end", "gzip"},
};

static void bodies_of_all_kinds(void **state)
{
    struct site site;
    (void)state;
    site_start(&site);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct owner o = {.at_a = NOTHING};
        site.type = bodies[i].type;
        site.says = bodies[i].says;
        site.encoding = bodies[i].encoding;
        site.says_len = site.encoding ? GZIP_LEN : strlen(site.says);
        open_any(&site, &o);
        run_until(site.loop, &o.ends, 1);
        if (strcmp(o.seen, bodies[i].want) != 0)
            fail_msg("%zu: %s instead of %s", i, o.seen, bodies[i].want);
        event_stream_close(o.stream);
    }
    site_stop(&site);
}

static const struct {
    const char *says, *want;
} pages[] = {
    {"<!DOCTYPE html>\n<HTML><head><Title lang=en>\n  Hotel\n  <b></title>", "\"Hotel <b>\""},
    {"<html><title>a\x1b[2J\xff</title>", "\"a [2J\""},
    {"<html><title></title>", "an HTML page (content type text/html)"},
    {"<title", "an HTML page (content type text/html)"},
};

/* Whoever reads the stream, and even where the page is called JSON. */
static void pages_are_named(void **state)
{
    struct site site;
    (void)state;
    site_start(&site);
    for (size_t i = 0; i < 2 * sizeof pages / sizeof *pages; i++) {
        struct owner o = {.at_a = NOTHING};
        site.type = "text/html";
        site.says = pages[i / 2].says;
        site.says_len = strlen(site.says);
        i % 2 ? open_any(&site, &o) : open_stream(&site, &o);
        run_until(site.loop, &o.ends, 1);
        if (!strstr(o.seen, pages[i / 2].want)) fail_msg("%s in %s", pages[i / 2].want, o.seen);
        event_stream_close(o.stream);
    }
    site_stop(&site);
}

/* JSON that never ends. */
static void too_long(void **state)
{
    struct site site;
    struct buf big;
    struct owner o = {.at_a = NOTHING};
    (void)state;
    site_start(&site);
    buf_init(&big, EVENT_STREAM_WHOLE_MAX + 8);
    assert_int_equal(buf_puts(&big, "{\"a\":\""), 0);
    assert_int_equal(buf_reserve(&big, EVENT_STREAM_WHOLE_MAX - 5), 0);
    memset(big.data + big.len, 'x', EVENT_STREAM_WHOLE_MAX - 5);
    site.type = "application/json";
    site.says = big.data;
    site.says_len = big.len + EVENT_STREAM_WHOLE_MAX - 5;
    open_any(&site, &o);
    run_until(site.loop, &o.ends, 1);
    if (!strstr(o.seen, "longer than")) fail_msg("%s", o.seen);
    event_stream_close(o.stream);
    buf_release(&big);
    site_stop(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_streams),   cmocka_unit_test(closed_inside),
        cmocka_unit_test(finished),        cmocka_unit_test(patches),
        cmocka_unit_test(content_types),   cmocka_unit_test(bodies_of_all_kinds),
        cmocka_unit_test(pages_are_named), cmocka_unit_test(too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
