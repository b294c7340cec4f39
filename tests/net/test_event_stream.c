/*
 * test_event_stream: a stream of events over a real connection to a server of ours.
 *
 * Catches: a callback after the owner closed the stream, from inside a callback too; memory that is
 * freed while a callback runs, or never (under ASan); an end that is told twice or not at all; a
 * connection that is lost after a whole answer; a PATCH to an id that is none, or two at a time; a
 * page of a captive portal that is read as a stream.
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
    if (site->type)
        http_stream_begin(r, site->type[0] ? site->type : NULL);
    else
        http_stream_begin(r, "text/event-stream");
    CHECK(http_stream_send(r, events, sizeof events - 1) == 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_streams), cmocka_unit_test(closed_inside),
        cmocka_unit_test(finished),      cmocka_unit_test(patches),
        cmocka_unit_test(content_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
