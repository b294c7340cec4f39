/* http_server: listening, routes and drain; see http_server.h. Connections are http_conn.c's. */
#include "net/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/http_server_impl.h"

enum { LOCALHOST_TRIES = 16 };

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

void http_server_config_default(struct http_server_config *ret_config)
{
    *ret_config = (struct http_server_config){.address = "127.0.0.1",
                                              .connections_max = HTTP_CONNECTIONS_MAX,
                                              .head_max = HTTP_HEAD_MAX,
                                              .body_max = HTTP_BODY_MAX,
                                              .output_max = HTTP_OUTPUT_MAX,
                                              .bodies_max = HTTP_BODIES_MAX,
                                              .bodies_per_address = HTTP_BODIES_PER_ADDRESS,
                                              .head_timeout_us = 10000000,
                                              .body_timeout_us = 60000000,
                                              .idle_timeout_us = 75000000,
                                              .flush_timeout_us = 30000000};
}

/* Does `path` match `pattern`? Fills id with what {id} stands for. */
static bool path_matches(const char *pattern, const char *path, char id[HTTP_ID_MAX + 1])
{
    const char *hole = strstr(pattern, "{id}");
    if (!hole) return strcmp(pattern, path) == 0;
    size_t before = (size_t)(hole - pattern);
    if (strncmp(pattern, path, before) != 0) return false;
    size_t n = strcspn(path + before, "/");
    if (n == 0 || n > HTTP_ID_MAX || strcmp(path + before + n, hole + 4) != 0) return false;
    memcpy(id, path + before, n);
    id[n] = 0;
    return true;
}

/* The rest of a path beyond slashes and any number of "v1". */
static const char *without_version(const char *path)
{
    for (;;) {
        path += strspn(path, "/");
        if (strncmp(path, "v1", 2) != 0 || (path[2] && path[2] != '/')) return path;
        path += 2;
    }
}

/* Segment by segment; nothing but "/v1" is no path of a route. */
static bool path_matches_loosely(const char *pattern, const char *path, char id[HTTP_ID_MAX + 1])
{
    pattern = without_version(pattern);
    path = without_version(path);
    while (*pattern && *path) {
        size_t n = strcspn(pattern, "/"), m = strcspn(path, "/");
        if (n == 4 && memcmp(pattern, "{id}", 4) == 0) {
            if (m > HTTP_ID_MAX) return false;
            memcpy(id, path, m);
            id[m] = 0;
        } else if (n != m || memcmp(pattern, path, n) != 0) {
            return false;
        }
        pattern += n + strspn(pattern + n, "/");
        path += m + strspn(path + m, "/");
    }
    return !*pattern && !*path;
}

enum { ASKED_HEADERS_MAX = 1024 /* bytes of their names */ };

/* Names of headers with commas between them, and nothing else. */
static bool are_names(const char *text)
{
    size_t n = strlen(text);
    return n > 0 && n < ASKED_HEADERS_MAX &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_, ") == n;
}

const char *http_request_page_headers(const struct http_request *r)
{
    const char *asked = http_request_header(r, "Access-Control-Request-Headers");
    return asked && are_names(asked) ? asked : "Authorization, Content-Type";
}

bool http_request_from_public(const struct http_request *r)
{
    const char *asked = http_request_header(r, "Access-Control-Request-Private-Network");
    return asked && strcasecmp(asked, "true") == 0;
}

/* A page may send what headers it likes: keys guard the paths, not names of headers. */
static void allow_page(struct http_request *r)
{
    http_request_reply_header(r, "Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE");
    http_request_reply_header(r, "Access-Control-Allow-Headers", http_request_page_headers(r));
    http_request_reply_header(r, "Access-Control-Max-Age", "600");
    if (http_request_from_public(r))
        http_request_reply_header(r, "Access-Control-Allow-Private-Network", "true");
}

/* What may be asked of the path stands in the Allow header already. */
static void reply_options(struct http_request *r, void *arg)
{
    (void)arg;
    if (reply_origin(r)) allow_page(r);
    http_reply(r, 204, NULL, NULL, 0);
}

static const struct http_route options_route = {"OPTIONS", "", reply_options, NULL, 0, false};

http_gate *server_gate(const struct http_request *c)
{
    return c->route == &options_route ? c->server->config.options_gate : c->route->gate;
}

/* Whether c->route is found; if not, `allow` has the methods of routes with that path. */
static bool find_route(struct http_request *c, const char *method, bool loosely, struct buf *allow)
{
    const struct http_server *s = c->server;
    const char *path = c->asked->head.path;
    for (size_t i = 0; i < s->n_routes; i++) {
        const struct http_route *route = &s->routes[i];
        bool matches = loosely
                           ? route->loose && path_matches_loosely(route->path, path, c->asked->id)
                           : path_matches(route->path, path, c->asked->id);
        if (!matches) continue;
        if (strcmp(route->method, method) == 0) {
            c->route = route;
            buf_clear(allow);
            return true;
        }
        (void)buf_printf(allow, "%s%s, ", route->method,
                         strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
    }
    return false;
}

int server_route(struct http_request *c, struct buf *allow)
{
    const char *method = c->head_only ? "GET" : c->asked->head.method;
    if (find_route(c, method, false, allow)) return 0;
    if (allow->len == 0 && find_route(c, method, true, allow)) return 0;
    if (allow->len == 0) return 404;
    (void)buf_puts(allow, options_route.method);
    if (strcmp(method, options_route.method) != 0) return 405;
    c->route = &options_route;
    return 0;
}

static void drain_soon(struct http_server *s)
{
    if (s->draining && s->drain_done && !s->connections) loop_timer_set(s->drain_timer, clock_us());
}

void server_forget(struct http_request *c)
{
    struct http_server *s = c->server;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->connections = c->next;
    if (c->next) c->next->prev = c->prev;
    conn_uncount(c);
    if (c->refused)
        s->n_refused--;
    else
        s->n_connections--;
    drain_soon(s);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer,
                      int peer_len, void *arg)
{
    (void)listener, (void)peer_len;
    if (conn_open(arg, fd, peer)) close(fd);
}

/* Out of descriptors or memory: accepting at once again would spin. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    struct http_server *s = arg;
    evconnlistener_disable(listener);
    loop_timer_set(s->accept_timer, clock_us() + HTTP_ACCEPT_PAUSE_US);
}

static void accept_again(void *arg)
{
    struct http_server *s = arg;
    for (int i = 0; i < HTTP_LISTENERS; i++)
        if (s->listeners[i]) evconnlistener_enable(s->listeners[i]);
}

static int parse_address(const char *host, uint16_t port, union address *ret_address,
                         socklen_t *ret_len, struct err *e)
{
    memset(ret_address, 0, sizeof *ret_address);
    if (inet_pton(AF_INET, host, &ret_address->v4.sin_addr) == 1) {
        ret_address->v4.sin_family = AF_INET;
        ret_address->v4.sin_port = htons(port);
        *ret_len = sizeof ret_address->v4;
    } else if (inet_pton(AF_INET6, host, &ret_address->v6.sin6_addr) == 1) {
        ret_address->v6.sin6_family = AF_INET6;
        ret_address->v6.sin6_port = htons(port);
        *ret_len = sizeof ret_address->v6;
    } else {
        return err_set(e, ERR_BAD_INPUT,
                       "'%s' is not a numeric address to listen on (such as 127.0.0.1 or ::)",
                       host);
    }
    return 0;
}

/* The usual soft limit is 1024: beyond it accept fails, and clients would wait for a response that
 * says 503 until the limit is one that we chose. */
static void allow_descriptors(uint32_t connections)
{
    struct rlimit limit;
    rlim_t want = (rlim_t)connections + HTTP_REFUSED_MAX + HTTP_OTHER_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want) return;
    limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* else accept pauses when they run out */
}

/* `ret_errno`: why the system refuses, with ERR_NET. */
static int listen_at(struct http_server *s, int which, const char *host, uint16_t port,
                     int *ret_errno, struct err *e)
{
    union address address;
    socklen_t len;
    int code = parse_address(host, port, &address, &len, e);
    if (code) return code;
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    struct evconnlistener *listener = evconnlistener_new_bind(
        loop_base(s->loop), on_accept, s, flags, HTTP_BACKLOG, &address.any, (int)len);
    *ret_errno = errno;
    if (!listener)
        return err_set(e, ERR_NET, "cannot listen on %s port %u: %s", host, port,
                       strerror(*ret_errno));
    s->listeners[which] = listener;
    evconnlistener_set_error_cb(listener, on_accept_error);
    if (getsockname(evconnlistener_get_fd(listener), &address.any, &len) == 0)
        s->port =
            ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
    return 0;
}

static void stop_listening(struct http_server *s)
{
    for (int i = 0; i < HTTP_LISTENERS; i++) {
        if (s->listeners[i]) evconnlistener_free(s->listeners[i]);
        s->listeners[i] = NULL;
    }
}

/* A client that resolves localhost may try ::1 first: nobody else may listen on our port there. A
 * free port must be free on both; a machine without IPv6 has the first only. */
static int listen_locally(struct http_server *s, struct err *e)
{
    uint16_t port = s->config.port;
    int why = 0, code = ERR_NET;
    for (int tries = 0; tries < LOCALHOST_TRIES && code == ERR_NET; tries++) {
        stop_listening(s);
        code = listen_at(s, 0, "127.0.0.1", port, &why, e);
        if (code) return code;
        code = listen_at(s, 1, "::1", s->port, &why, e);
        if (code && (why == EADDRNOTAVAIL || why == EAFNOSUPPORT)) code = 0;
        if (code && (port || why != EADDRINUSE)) return code;
    }
    if (!code && e) *e = (struct err)ERR_INIT;
    return code;
}

static int start_listening(struct http_server *s, struct err *e)
{
    int why;
    if (strcasecmp(s->config.address, "localhost") == 0) return listen_locally(s, e);
    return listen_at(s, 0, s->config.address, s->config.port, &why, e);
}

static void cut_all(struct http_server *s)
{
    /* Close callbacks may abort other requests: begin at the front each time. */
    while (s->connections)
        conn_close_and_tell(s->connections);
}

static void drain_fired(void *arg)
{
    struct http_server *s = arg;
    loop_fn *done = s->drain_done;
    cut_all(s);
    loop_timer_clear(s->drain_timer);
    s->drain_done = NULL;
    if (done) done(s->drain_arg); /* may free the server */
}

int http_server_new(struct loop *l, const struct http_server_config *config,
                    const struct http_route *routes, size_t n, void *arg,
                    struct http_server **ret_server, struct err *e)
{
    CHECK(config->error_body);
    struct http_server *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory for a server");
    s->loop = l;
    s->config = *config;
    s->routes = routes;
    s->n_routes = n;
    s->arg = arg;
    allow_descriptors(config->connections_max);
    int code = loop_timer_new(l, accept_again, s, &s->accept_timer, e);
    if (!code && !(s->peers = http_peers_new()))
        code = err_set(e, ERR_NO_MEMORY, "no memory for a server");
    if (!code) code = loop_timer_new(l, drain_fired, s, &s->drain_timer, e);
    if (!code) code = loop_timer_new(l, stream_send_all, s, &s->unsent_timer, e);
    if (!code) code = start_listening(s, e);
    if (code) {
        http_server_free(s);
        return code;
    }
    *ret_server = s;
    return 0;
}

void http_server_free(struct http_server *s)
{
    if (!s) return;
    s->drain_done = NULL;
    cut_all(s);
    stop_listening(s);
    loop_timer_free(s->accept_timer);
    loop_timer_free(s->drain_timer);
    loop_timer_free(s->unsent_timer);
    http_peers_free(s->peers);
    mem_free(s);
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

uint32_t http_server_connections(const struct http_server *s)
{
    return s->n_connections;
}

uint64_t http_server_refused(const struct http_server *s, enum http_limit limit)
{
    return s->limit_met[limit];
}

void http_server_drain(struct http_server *s, uint64_t deadline_us, loop_fn *done, void *arg)
{
    s->draining = true;
    s->drain_done = done;
    s->drain_arg = arg;
    stop_listening(s);
    for (struct http_request *c = s->connections, *next; c; c = next) {
        next = c->next;
        if (c->state == CONN_HEAD && c->idle) conn_close(c);
    }
    loop_timer_set(s->drain_timer, s->connections ? deadline_us : clock_us());
}
