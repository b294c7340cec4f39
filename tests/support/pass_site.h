/*
 * pass_site: what the tests of passed on requests share: a cloud in front of one or two scripted
 * servers, requests to it, and looks at what came of them. Static functions, so that each test
 * links alone.
 */
#ifndef PDD_TESTS_PASS_SITE_H
#define PDD_TESTS_PASS_SITE_H

#include "support/cloud_site.h"
#include "support/script_server.h"

static inline void begin_with(struct site *s, struct script_server *a, struct script_server *b,
                              const char *keys_path)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    site_init(s);
    s->config.upstream.servers[s->config.upstream.n_servers++].url = a->url;
    if (b) s->config.upstream.servers[s->config.upstream.n_servers++].url = b->url;
    s->config.tokens_max = 50;
    s->config.keys_path = keys_path;
    s->config.upstream.timeout_us = s->config.upstream.prefill_us = SITE_WAIT_US;
    site_start(s);
    site_await_ready(s, 200);
    if (!b) return;
    for (bool up = false; !up;) { /* the second one, too */
        struct buf page;
        char line[200];
        buf_init(&page, RAW_MAX);
        site_ask(s, "GET", "/metrics", NULL, "", &page);
        snprintf(line, sizeof line, "pdd_upstream_up{upstream=\"%s\"} 1", b->url);
        up = strstr(page.data, line) != NULL;
        buf_release(&page);
        assert_true(clock_us() < until);
        clock_sleep_us(2000);
    }
}

static inline void begin(struct site *s, struct script_server *a, struct script_server *b)
{
    begin_with(s, a, b, NULL);
}

/* POST with these fields; the caller frees `ret`. */
static inline void post(const struct site *s, const char *path, const char *fields, struct buf *ret)
{
    char request[3000];
    snprintf(request, sizeof request,
             "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
             path, strlen(fields), fields);
    raw_ask(s->port, request, ret);
}

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define HI "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}},"          \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{}}}]"
#define STREAM "\"stream\":true"

static inline void check_says(const struct buf *b, const char *part, bool wanted)
{
    if ((strstr(b->data, part) != NULL) != wanted)
        fail_msg("%s %s in %s", part, wanted ? "is not" : "is", b->data);
}

static inline void check_parts(const char *body, const char *want, size_t i)
{
    char parts[1000];
    snprintf(parts, sizeof parts, "%s", want);
    for (char *rest = parts; rest;) {
        char *part = rest;
        /* a bar with blanks is one of a grammar */
        for (rest = strchr(part, '|'); rest && rest[1] == ' ';)
            rest = strchr(rest + 1, '|');
        if (rest) *rest++ = 0;
        bool no = part[0] == '!';
        if ((strstr(body, part + no) != NULL) == no) fail_msg("%zu: %s in %s", i, part, body);
    }
}

#define WHOLE                                                                                      \
    "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"x\"},\"text\":\"x\","                   \
    "\"finish_reason\":\"stop\"}]}"

#define CHUNK(choices) "data: {\"id\":\"theirs\",\"choices\":[" choices "]}\n\n"
#define DELTA(index, delta) "{\"index\":" index ",\"delta\":{" delta "}}"
#define END(index, why) "{\"index\":" index ",\"delta\":{},\"finish_reason\":\"" why "\"}"

#endif
