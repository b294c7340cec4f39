/*
 * test_nginx: two clouds behind a real nginx and a real HAProxy, with the files of packaging/.
 * Skipped (and counted) where the program is not installed.
 *
 * Catches: a proxy that gathers tokens before it passes them on, a server that computes on for a
 * client that left the proxy, a PATCH that goes to another server, a dead server that is not
 * replaced.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/os.h"
#include "support/cloud_site.h"

enum { STEP_US = 10000, ANSWER = 200 };

struct proxy {
    const char *program, *file, *before, *after; /* what is put around the file of packaging/ */
    const char *const *argv;                     /* PATH stands for the configuration's path */
};

static const char *const nginx_argv[] = {"nginx", "-e", "stderr", "-c", "PATH", NULL};
static const char *const haproxy_argv[] = {"haproxy", "-q", "-db", "-f", "PATH", NULL};
static const struct proxy nginx = {
    "/usr/sbin/nginx", "nginx-pdd.conf",
    "daemon off; master_process off; error_log stderr crit;\nevents {}\n"
    "http { access_log off; client_body_temp_path DIR/a; proxy_temp_path DIR/b;\n"
    "fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\n",
    "}\n", nginx_argv};
static const struct proxy haproxy = {"/usr/sbin/haproxy", "haproxy-pdd.cfg", "", "", haproxy_argv};

struct rig {
    struct site a, b;
    uint16_t port;
    pid_t child;
    char dir[64], path[96];
};

/* Append `text` with every `from` replaced. */
static void replace(struct buf *b, const char *from, const char *to)
{
    struct buf out;
    buf_init(&out, RAW_MAX);
    const char *at = b->data, *next;
    while ((next = strstr(at, from)) != NULL) {
        CHECK(buf_append(&out, at, (size_t)(next - at)) == 0 && buf_puts(&out, to) == 0);
        at = next + strlen(from);
    }
    CHECK(buf_puts(&out, at) == 0);
    buf_release(b);
    *b = out;
}

static void replace_port(struct buf *b, const char *from, uint16_t port)
{
    char to[32];
    snprintf(to, sizeof to, "127.0.0.1:%u", port);
    replace(b, from, to);
}

static void write_configuration(struct rig *r, const struct proxy *p)
{
    struct buf b;
    char path[256];
    buf_init(&b, RAW_MAX);
    snprintf(path, sizeof path, PDD_SOURCE_DIR "/packaging/%s", p->file);
    CHECK(buf_puts(&b, p->before) == 0 && os_read_file(path, &b, NULL) == 0);
    CHECK(buf_puts(&b, p->after) == 0);
    replace(&b, "DIR", r->dir);
    replace_port(&b, "127.0.0.1:8080", r->port);
    replace_port(&b, "127.0.0.1:8081", r->a.port);
    replace_port(&b, "127.0.0.1:8082", r->b.port);
    CHECK(os_write_file(r->path, b.data, b.len, NULL) == 0);
    buf_release(&b);
}

static void run_proxy(const struct rig *r, const struct proxy *p)
{
    const char *argv[8] = {0};
    for (int i = 0; p->argv[i]; i++)
        argv[i] = strcmp(p->argv[i], "PATH") == 0 ? r->path : p->argv[i];
    execv(p->program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

static bool answers(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = raw_socket();
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bool yes = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return yes;
}

static void rig_start(struct rig *r, const struct proxy *p)
{
    struct site *const sites[] = {&r->a, &r->b};
    for (int i = 0; i < 2; i++) {
        site_init(sites[i]);
        sites[i]->fake.answer_tokens = ANSWER;
        sites[i]->fake.step_us = STEP_US;
        site_start(sites[i]);
    }
    close(raw_listen(&r->port)); /* free a moment ago */
    snprintf(r->dir, sizeof r->dir, "/tmp/pdd-proxy-XXXXXX");
    CHECK(mkdtemp(r->dir));
    snprintf(r->path, sizeof r->path, "%s/conf", r->dir);
    write_configuration(r, p);
    r->child = fork();
    if (r->child == 0) run_proxy(r, p);
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (!answers(r->port)) {
        assert_int_equal(waitpid(r->child, NULL, WNOHANG), 0);
        assert_true(clock_us() < until);
        clock_sleep_us(5000);
    }
}

static void rig_stop(struct rig *r)
{
    char command[128];
    kill(r->child, SIGTERM);
    waitpid(r->child, NULL, 0);
    site_stop(&r->a);
    site_stop(&r->b);
    snprintf(command, sizeof command, "rm -rf %s", r->dir);
    assert_int_equal(system(command), 0);
}

static void ask(struct client *c, const struct rig *r, uint32_t n)
{
    struct wire_message message = {(char *)(uintptr_t) "user", (char *)(uintptr_t) "Hi", 2};
    struct wire_request q;
    wire_request_init(&q);
    q.messages = &message;
    q.n_messages = 1;
    q.tokens_max = n;
    client_post(c, r->port, &q);
}

static uint64_t decoded(struct rig *r)
{
    return site_stats(&r->a).decode_tokens + site_stats(&r->b).decode_tokens;
}

static void check_proxy(const struct proxy *p)
{
    struct rig r;
    struct client c;
    char path[WIRE_ID_MAX + 16];
    if (access(p->program, X_OK) != 0) skip();
    rig_start(&r, p);
    ask(&c, &r, 60);
    client_until(&c, 1);
    assert_true(c.n_tokens < 20 && !c.done); /* they come one by one */
    struct site through = {.port = r.port};
    snprintf(path, sizeof path, "/v1/assist/%s", c.id);
    for (int i = 0; i < 4; i++) /* each on a connection of its own */
        assert_int_equal(site_ask(&through, "PATCH", path, NULL, "{\"tokens_max\":40}", NULL), 200);
    client_finish(&c);
    assert_int_equal(c.n_tokens, 40);
    client_close(&c);
    uint64_t before = decoded(&r);
    ask(&c, &r, ANSWER);
    client_until(&c, 3);
    client_close(&c); /* leaves */
    site_check_idle(&r.a);
    site_check_idle(&r.b);
    assert_true(decoded(&r) - before < ANSWER / 2);
    struct site *busy = site_stats(&r.a).decode_tokens ? &r.a : &r.b;
    uint16_t port = busy->port;
    site_stop(busy); /* dies: the other one answers */
    ask(&c, &r, 3);
    client_finish(&c);
    assert_int_equal(c.n_tokens, 3);
    client_close(&c);
    busy->config.http.port = port;
    site_start(busy);
    rig_stop(&r);
}

static void test_nginx(void **state)
{
    (void)state;
    check_proxy(&nginx);
}

static void test_haproxy(void **state)
{
    (void)state;
    check_proxy(&haproxy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nginx),
                                       cmocka_unit_test(test_haproxy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
