/* cloud_fixture: see cloud_fixture.h. */
#include "support/cloud_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cloud/api/server.h"
#include "model/text/template.h"
#include "net/loop.h"

struct cloud_fixture {
    struct loop *loop;
    struct loop_wake *stop;
    struct server *server;
    pthread_t thread;
    char url[64];
};

static void stop_loop(void *arg)
{
    struct cloud_fixture *c = arg;
    loop_stop(c->loop);
}

static void *run(void *arg)
{
    struct cloud_fixture *c = arg;
    CHECK(loop_run(c->loop, NULL) == 0);
    return NULL;
}

static struct cloud_fixture *start(struct engine *engine, const char *before, const char *vocab)
{
    struct cloud_fixture *c = mem_calloc(1, sizeof *c);
    struct server_config config = {.worker = {.streams_max = 8, .queue_max = 8, .cache_pages = 32}};
    CHECK(c);
    config.upstream.servers[0].url = before;
    config.upstream.n_servers = before ? 1 : 0;
    config.upstream.vocab_path = vocab;
    log_set_level(LOG_WARN);
    http_server_config_default(&config.http);
    config.http.address = "127.0.0.1";
    config.http.port = 0;
    CHECK(loop_new(&c->loop, NULL) == 0);
    CHECK(loop_wake_new(c->loop, stop_loop, c, &c->stop, NULL) == 0);
    CHECK(server_new(c->loop, engine, &config, &c->server, NULL) == 0);
    snprintf(c->url, sizeof c->url, "http://127.0.0.1:%u", server_port(c->server));
    CHECK(pthread_create(&c->thread, NULL, run, c) == 0);
    return c;
}

struct cloud_fixture *cloud_fixture_start(struct engine *engine)
{
    return start(engine, NULL, NULL);
}

/* Asked by a socket of its own: the server belongs to its thread. */
static bool is_ready(const struct cloud_fixture *c)
{
    static const char request[] = "GET /ready HTTP/1.0\r\n\r\n", yes[] = "HTTP/1.1 200";
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(server_port(c->server))};
    char head[sizeof yes] = "";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bool ready = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 &&
                 send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == sizeof request - 1 &&
                 recv(fd, head, sizeof yes - 1, MSG_WAITALL) == sizeof yes - 1 &&
                 strcmp(head, yes) == 0;
    close(fd);
    return ready;
}

struct cloud_fixture *cloud_fixture_start_with_vocab(const char *url, const char *vocab_path)
{
    struct cloud_fixture *c = start(NULL, url, vocab_path);
    while (!is_ready(c))
        clock_sleep_us(2000);
    return c;
}

struct cloud_fixture *cloud_fixture_start_before(const char *url)
{
    return cloud_fixture_start_with_vocab(url, NULL);
}

const char *cloud_fixture_url(const struct cloud_fixture *c)
{
    return c->url;
}

void cloud_fixture_stop(struct cloud_fixture *c)
{
    loop_wake_signal(c->stop);
    pthread_join(c->thread, NULL);
    server_free(c->server);
    loop_wake_free(c->stop);
    loop_free(c->loop);
    mem_free(c);
}

static void encode(const struct engine *engine, const char *prompt, bool raw,
                   struct token_list *out)
{
    const struct vocab *v = engine_vocab(engine);
    struct chat_message m = {"user", prompt, strlen(prompt)};
    token_list_init(out, 1 << 20);
    if (raw)
        CHECK(vocab_encode(v, prompt, strlen(prompt), VOCAB_ADD_BOS, out, NULL) == 0);
    else
        CHECK(chat_template_encode(engine_template(engine), v, &m, 1, true, out, NULL) == 0);
}

static int32_t step(struct engine *engine, struct session *s, const int32_t *tokens, uint32_t n)
{
    uint32_t most = engine_info(engine)->step_tokens_max;
    struct engine_span span = {.session = s};
    while (n > 0) {
        span.tokens = tokens;
        span.n = n < most ? n : most;
        span.sample = span.n == n;
        CHECK(engine_step(engine, &span, 1, NULL) == 0);
        tokens += span.n;
        n -= span.n;
    }
    return span.next;
}

void single_answer_make(struct engine *engine, const char *prompt, bool raw,
                        const struct sampling *sampling, uint32_t tokens_max,
                        struct single_answer *a)
{
    const struct vocab *v = engine_vocab(engine);
    struct session *s;
    struct detok d;
    encode(engine, prompt, raw, &a->prompt);
    token_list_init(&a->tokens, 1 << 20);
    buf_init(&a->text, 1 << 24);
    a->ends = false;
    detok_init(&d, !raw);
    CHECK(engine_session_open(engine, &s, NULL) == 0);
    struct sampling how = *sampling;
    how.answer_from = a->prompt.len;
    session_set_sampling(s, &how);
    int32_t next = step(engine, s, a->prompt.ids, a->prompt.len);
    while (a->tokens.len < tokens_max) {
        a->ends = vocab_is_end(v, next);
        if (a->ends) break;
        CHECK(token_list_push(&a->tokens, next) == 0);
        CHECK(detok_push(&d, v, next, &a->text) == 0);
        if (session_len(s) == engine_info(engine)->context_max) break;
        next = step(engine, s, &next, 1);
    }
    CHECK(detok_finish(&d, &a->text) == 0);
    engine_session_close(s);
}

void single_answer_release(struct single_answer *a)
{
    token_list_release(&a->prompt);
    token_list_release(&a->tokens);
    buf_release(&a->text);
}
