/*
 * test_chat_hello: the first line of `pdd chat` at a terminal. It runs the program named by
 * PDD_BIN.
 *
 * Catches: a line that tells another model, match or protection than questions will have; a cloud
 * that is away, silent, a network's log-in page or a stranger, and is not said to be; a prompt that
 * waits for it.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/net_raw.h"
#include "support/program.h"
#include "support/terminal.h"

/* Start a chat and leave it again: `said` must be in its first line. */
static void expect_args(const char *const *args, const char *said)
{
    struct terminal t;
    terminal_start(&t, "xterm", ARGS("XDG_STATE_HOME=/nowhere", "http_proxy="), args);
    terminal_await(&t, "/help lists commands", 1);
#ifdef PDD_HAVE_EDIT
    terminal_await_editor(&t, 1);
#endif
    terminal_type(&t, "\x04");
    assert_int_equal(terminal_end(&t), 0);
    if (!strstr(t.seen.data, said)) fail_msg("no \"%s\" in: %s", said, t.seen.data);
    buf_release(&t.seen);
}

static void expect(const char *url, const char *said)
{
    expect_args(ARGS("--fake", "5", "--no-state", "--cloud", url), said);
}

static void test_local(void **state)
{
    (void)state;
    expect_args(ARGS("--fake", "5", "--no-state", "--context", "500"),
                "model fake, context 500; no cloud: nothing leaves this machine; /help");
    expect_args(ARGS("--fake", "5", "--no-state", "--local-only", "--cloud", "http://127.0.0.1:1"),
                "no cloud: nothing leaves this machine");
}

static void test_cloud(void **state)
{
    struct program p;
    char url[64], said[256];
    (void)state;
    program_start(&p, "cloud", ARGS("--fake", "5", "--listen", "127.0.0.1:0"));
    program_line_after(&p, "listening on ", url, sizeof url);
    snprintf(said, sizeof said,
             "; cloud %s (this machine): answers with model fake, match exact; /help", url);
    expect(url, said);
    expect_args(ARGS("--fake", "5", "--no-state", "--cloud", url, "--cloud-model", "other"),
                "answers, but has no model other");
    expect_args(ARGS("--no-model", "--no-state", "--cloud", url),
                "no model here; cloud http://127.0.0.1:");
    program_kill(&p, SIGTERM);
    expect(url, "(this machine): not reachable: ");
}

/* A server of one response, again and again. */
struct server {
    int listener;
    char url[64];
    const char *response; /* NULL: silence */
    pthread_t thread;
};

static void *serve(void *arg)
{
    struct server *s = arg;
    int held[8], n = 0;
    for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0;) {
        struct buf request;
        buf_init(&request, RAW_MAX);
        if (s->response) {
            raw_read_until(fd, &request, "\r\n\r\n");
            raw_puts(fd, s->response);
            close(fd);
        } else if (n < 8) {
            held[n++] = fd;
        } else {
            close(fd);
        }
        buf_release(&request);
    }
    while (n > 0)
        close(held[--n]);
    return NULL;
}

static void server_start(struct server *s, const char *response)
{
    uint16_t port;
    s->response = response;
    s->listener = raw_listen(&port);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%u", port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
}

static void test_strangers(void **state)
{
#define HEAD(status, more) "HTTP/1.1 " status "\r\n" more "Connection: close\r\n"
#define BODY(type, body) "Content-Type: " type "\r\n\r\n" body
    static const struct {
        const char *response, *said;
    } cases[] = {
        {HEAD("200 OK", "") BODY("text/html", "<html>"),
         "the network asks for a log-in page: http://127.0.0.1:"},
        {HEAD("302 Found", "Location: http://10.1.2.3/login\r\n") "Content-Length: 0\r\n\r\n",
         "the network asks for a log-in page: http://10.1.2.3/login; /help"},
        {HEAD("511 Network Authentication Required", "") "Content-Length: 0\r\n\r\n",
         "the network asks for a log-in page: http://127.0.0.1:"},
        {HEAD("200 OK", "")
             BODY("application/json", "{\"data\":[{\"id\":\"gpt\\u001b[2J\"}],\"object\":1}"),
         "answers with model gpt?[2J, match text"},
        {HEAD("200 OK", "") BODY("application/json", "{\"data\":[]}"),
         "answers, but has no model yet"},
        {HEAD("200 OK", "") BODY("application/json", "{}"),
         "answers, but not as such a server does"},
        {HEAD("401 Unauthorized", "")
             BODY("application/json", "{\"error\":{\"message\":\"unknown key\",\"code\":1}}"),
         "it answered 401: unknown key"},
        {"SSH-2.0-x\r\n\r\n", "not reachable: "},
        {NULL, "no answer within 1 s; each question tries it again"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct server s;
        server_start(&s, cases[i].response);
        expect(s.url, cases[i].said);
        server_stop(&s);
    }
}

/* A question whose cloud is a log-in page of the network is answered here, and says so. */
static void test_log_in_page_of_an_answer(void **state)
{
    static const char *const responses[] = {
        HEAD("200 OK", "") BODY("text/html; charset=utf-8", "<html>"),
        HEAD("302 Found", "Location: http://10.1.2.3/login\r\n") "Content-Length: 0\r\n\r\n"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct server s;
        struct program p;
        struct buf out, err;
        server_start(&s, responses[i]);
        program_start(&p, "chat",
                      ARGS("--fake", "5", "--no-state", "--cloud", s.url, "--cloud-tokens", "5",
                           "--prompt", "x", "--profile", "s24-ultra-gpu"));
        assert_int_equal(program_finish(&p, &out, &err), 0);
        assert_true(out.len > 1);
        if (!strstr(err.data, i == 0 ? "the network asks for a log-in page: http://127.0.0.1:"
                                     : "the network asks for a log-in page: http://10.1.2.3/login"))
            fail_msg("%s", err.data);
        buf_release(&out);
        buf_release(&err);
        server_stop(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_cloud),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_log_in_page_of_an_answer),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
