/*
 * serve_site: a whole server of `pdd device` in a thread of the test. Static functions, so that
 * each test links alone.
 */
#ifndef PDD_TESTS_SERVE_SITE_H
#define PDD_TESTS_SERVE_SITE_H

#include <stdlib.h>

#include "device/api/serve.h"
#include "engine/fake.h"
#include "proto/wire.h"
#include "support/cloud_fixture.h"
#include "support/net_raw.h"

struct serve_site {
    struct loop_thread thread;
    struct fake_options fake;
    bool no_engine;
    struct serve_config config;
    struct serve *serve;
    uint16_t port;
    char folder[32]; /* of serve_site_make_folder */
};

static inline void serve_site_prepare(struct loop *l, void *arg)
{
    struct serve_site *s = arg;
    struct err e = ERR_INIT;
    s->config.http.error_body = wire_error_body;
    if (!s->no_engine) CHECK(fake_open(&s->fake, &s->config.device.engine, &e) == 0);
    if (serve_new(l, &s->config, &s->serve, &e)) {
        fprintf(stderr, "%s\n", e.text);
        CHECK(false);
    }
    s->port = serve_port(s->serve);
}

static inline void serve_site_clean(void *arg)
{
    struct serve_site *s = arg;
    serve_free(s->serve);
}

/* `s` is zeroed, or filled in beyond this. */
static inline void serve_site_defaults(struct serve_site *s)
{
    memset(s, 0, sizeof *s);
    http_server_config_default(&s->config.http);
    s->fake.answer_tokens = 20;
    s->config.answers_max = 4;
    s->config.queue_max = 8;
    s->config.pace = PACE_OFF;
    s->config.device.prefill_tps = 1000.0;
    s->config.device.decode_us = 1000.0;
}

/* The same, and a cloud for it whose answers have that many tokens. */
static inline struct cloud_fixture *serve_site_with_cloud(struct serve_site *s,
                                                          uint32_t answer_tokens)
{
    struct fake_options quick = {.answer_tokens = answer_tokens};
    struct engine *engine;
    CHECK(fake_open(&quick, &engine, NULL) == 0);
    struct cloud_fixture *cloud = cloud_fixture_start(engine);
    serve_site_defaults(s);
    s->config.device.cloud_url = cloud_fixture_url(cloud);
    return cloud;
}

static inline void serve_site_start(struct serve_site *s)
{
    s->thread =
        (struct loop_thread){.prepare = serve_site_prepare, .clean = serve_site_clean, .arg = s};
    loop_thread_start(&s->thread);
}

static inline void serve_site_stop(struct serve_site *s)
{
    loop_thread_stop(&s->thread);
}

/* A state folder for the site, whose database serve_site_remove_folder removes with it. */
static inline void serve_site_make_folder(struct serve_site *s)
{
    snprintf(s->folder, sizeof s->folder, "/tmp/pdd-serve-XXXXXX");
    CHECK(mkdtemp(s->folder));
    s->config.state_dir = s->folder;
}

static inline void serve_site_remove_folder(struct serve_site *s)
{
    static const char *const names[] = {"state.db", "state.db-wal", "state.db-shm"};
    char path[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", s->folder, names[i]);
        unlink(path);
    }
    rmdir(s->folder);
}

/* A request whose connection ends with the response. `headers`: lines with their ends. */
static inline void serve_site_send(int fd, const char *method, const char *path,
                                   const char *headers, const char *body)
{
    struct buf b;
    buf_init(&b, RAW_MAX);
    CHECK(buf_printf(&b, "%s %s HTTP/1.1\r\nConnection: close\r\nContent-Length: %zu\r\n%s%s\r\n",
                     method, path, strlen(body), headers,
                     strstr(headers, "Host:") ? "" : "Host: localhost\r\n") == 0);
    CHECK(buf_puts(&b, body) == 0);
    raw_send(fd, b.data, b.len);
    buf_release(&b);
}

/* The same with its whole response; the caller releases b. Returns the status. */
static inline int serve_site_ask(const struct serve_site *s, const char *method, const char *path,
                                 const char *headers, const char *body, struct buf *b)
{
    int fd = raw_connect(s->port);
    buf_init(b, RAW_MAX);
    serve_site_send(fd, method, path, headers, body);
    (void)raw_read_until(fd, b, NULL);
    close(fd);
    return b->len > 12 ? (int)strtol(b->data + 9, NULL, 10) : 0;
}

/* A request of which the status alone is looked at. */
static inline void serve_site_expect(const struct serve_site *s, int status, const char *method,
                                     const char *path, const char *headers, const char *body)
{
    struct buf b;
    int got = serve_site_ask(s, method, path, headers, body, &b);
    if (got != status) fail_msg("%s %s: %d, not %d: %s", method, path, got, status, b.data);
    buf_release(&b);
}

/* POST /v1/answers/{id}/send by whoever has the code of this run. The status. */
static inline int serve_site_say(const struct serve_site *s, const char *id, bool send)
{
    char path[128], header[128];
    struct buf b;
    snprintf(path, sizeof path, "/v1/answers/%s/send", id);
    snprintf(header, sizeof header, "X-PDD-Approval: %s\r\n", serve_approval(s->serve));
    int status =
        serve_site_ask(s, "POST", path, header, send ? "{\"send\":true}" : "{\"send\":false}", &b);
    buf_release(&b);
    return status;
}

#endif
