/*
 * http_body: the bodies of requests and the memory that they may take.
 *
 * All bodies of a server share one budget, of which one address may hold a share: a client that
 * sends slowly, or never ends its body, keeps others out only as far as that. Bytes beyond the
 * first HTTP_BODY_SMALL of a body must leave the reserve alone, so that small bodies still find
 * room when large ones have taken the rest; an address whose share large ones have taken has as
 * much beside it for small ones. A body is counted from the first byte that is read until its
 * response begins, or until its new owner releases it.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "net/http_server_impl.h"

/* What one address may hold with a body of n bytes: at least one whole body, with the framing that
 * is read with it. */
static size_t share_of(const struct http_server_config *config, uint64_t body)
{
    size_t share = config->bodies_per_address, whole = config->body_max + HTTP_BODY_SMALL;
    if (share < whole) share = whole;
    size_t reserve = share / HTTP_BODIES_RESERVE_PART;
    if (reserve < HTTP_BODY_SMALL) reserve = HTTP_BODY_SMALL;
    return body > HTTP_BODY_SMALL ? share : share + reserve;
}

/* Budget of all bodies together, for one of n bytes. */
static size_t room_for(const struct http_server_config *config, uint64_t body)
{
    size_t reserve = config->bodies_max / HTTP_BODIES_RESERVE_PART;
    return body > HTTP_BODY_SMALL ? config->bodies_max - reserve : config->bodies_max;
}

/* The limit that n more bytes would break in a body of `had`, or HTTP_LIMITS. */
static enum http_limit hold(struct http_request *c, uint64_t had, size_t n)
{
    struct http_server *s = c->server;
    size_t room = room_for(&s->config, had + n);
    if (n > room || s->body_bytes > room - n) return HTTP_LIMIT_BODIES;
    int code = http_peers_hold(s->peers, &c->address, n, share_of(&s->config, had + n));
    if (code) return code == ERR_BUSY ? HTTP_LIMIT_BODIES_ADDRESS : HTTP_LIMIT_MEMORY;
    s->body_bytes += n;
    return HTTP_LIMITS;
}

static void drop(struct http_server *s, const struct http_address *whose, size_t n)
{
    CHECK(s->body_bytes >= n);
    s->body_bytes -= n;
    http_peers_drop(s->peers, whose, n);
}

enum http_limit body_fits(struct http_request *c, uint64_t n)
{
    if (n > SIZE_MAX) return HTTP_LIMIT_BODIES;
    enum http_limit broken = hold(c, 0, (size_t)n);
    if (broken == HTTP_LIMITS) drop(c->server, &c->address, (size_t)n);
    return broken;
}

void body_release(struct http_request *c)
{
    drop(c->server, &c->address, c->body.len);
    buf_release(&c->body);
}

enum http_limit reply_hold(struct http_request *c, size_t n)
{
    if (n <= HTTP_BODY_SMALL) return HTTP_LIMITS;
    enum http_limit broken = hold(c, 0, n);
    if (broken == HTTP_LIMITS) c->reply_held = n;
    return broken;
}

void reply_drop(struct http_request *c)
{
    drop(c->server, &c->address, c->reply_held);
    c->reply_held = 0;
}

void http_request_take_body(struct http_request *r, struct http_body *ret_body)
{
    *ret_body = (struct http_body){r->body, r->server, r->address, r->body.len};
    buf_init(&r->body, r->body.max);
}

void http_body_free_bytes(struct http_body *b)
{
    buf_release(&b->bytes);
}

void http_body_shrink(struct http_body *b, size_t n)
{
    if (n <= HTTP_BODY_SMALL) n = 0;
    if (!b->server || n >= b->held) return;
    drop(b->server, &b->whose, b->held - n);
    b->held = n;
}

void http_body_release(struct http_body *b)
{
    http_body_free_bytes(b);
    http_body_shrink(b, 0);
    b->server = NULL;
}

size_t http_server_body_bytes(const struct http_server *s)
{
    return s->body_bytes;
}

/* The value of "; charset=" in a media type, without quotes; its length, 0: none. */
static size_t find_charset(const char *type, const char **ret_charset)
{
    static const char name[] = "charset=";
    for (const char *at = strchr(type, ';'); at; at = strchr(at, ';')) {
        at += 1 + strspn(at + 1, " \t");
        if (strncasecmp(at, name, sizeof name - 1) != 0) continue;
        at += sizeof name - 1;
        at += strspn(at, "\"'");
        *ret_charset = at;
        return strcspn(at, "\"'; \t");
    }
    return 0;
}

/* ASCII is a part of UTF-8. */
static bool is_utf8(const char *charset, size_t n)
{
    static const char *const names[] = {"utf-8", "utf8", "us-ascii", "ascii"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == n && strncasecmp(charset, names[i], n) == 0) return true;
    return n == 0;
}

bool body_is_plain(const struct http_head *h, const char **ret_reason, char why[MEDIA_WHY_MAX])
{
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const char *value = h->fields[i].value, *charset;
        if (strcasecmp(h->fields[i].name, "Content-Encoding") == 0 && value[0] &&
            strcasecmp(value, "identity") != 0) {
            *ret_reason = "content_encoding";
            snprintf(why, MEDIA_WHY_MAX,
                     "Content-Encoding %.40s is not taken: send the body as it is", value);
            return false;
        }
        if (strcasecmp(h->fields[i].name, "Content-Type") != 0) continue;
        size_t n = find_charset(value, &charset);
        if (n == 0 || is_utf8(charset, n)) continue;
        *ret_reason = "charset";
        snprintf(why, MEDIA_WHY_MAX, "Content-Type has charset %.*s: send the body in UTF-8",
                 n < 40 ? (int)n : 40, charset);
        return false;
    }
    return true;
}

static int refused(enum http_limit broken, struct body_progress *ret)
{
    ret->limit = broken;
    return broken == HTTP_LIMIT_BODIES_ADDRESS ? 429 : 503;
}

static int take_length_bytes(struct http_request *c, struct evbuffer *input,
                             struct body_progress *ret)
{
    size_t n = evbuffer_get_length(input);
    if (n > c->body_left) n = (size_t)c->body_left;
    if (n == 0) return 0;
    enum http_limit broken = hold(c, c->body.len, n);
    if (broken != HTTP_LIMITS) return refused(broken, ret);
    int code = buf_reserve(&c->body, n);
    if (code) {
        drop(c->server, &c->address, n);
        return code == ERR_LIMIT ? 413 : refused(HTTP_LIMIT_MEMORY, ret);
    }
    evbuffer_remove(input, c->body.data + c->body.len, n);
    c->body.len += n;
    c->body.data[c->body.len] = 0;
    c->body_left -= n;
    return 0;
}

/* A piece of input holds no more bytes of the body than of its own, so these are held first. */
static int take_chunked_bytes(struct http_request *c, struct evbuffer *input,
                              struct body_progress *ret)
{
    struct evbuffer_iovec piece;
    int status = 0;
    while (!status && c->chunked.state != HTTP_CHUNK_DONE &&
           evbuffer_peek(input, -1, NULL, &piece, 1) > 0) {
        size_t used = 0, before = c->body.len;
        enum http_limit broken = hold(c, before, piece.iov_len);
        if (broken != HTTP_LIMITS) return refused(broken, ret);
        status = http_chunked_feed(&c->chunked, piece.iov_base, piece.iov_len, &c->body, &used);
        drop(c->server, &c->address, piece.iov_len - (c->body.len - before));
        evbuffer_drain(input, used);
    }
    return status;
}

int body_take(struct http_request *c, struct body_progress *ret)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    bool chunked = c->asked->head.chunked;
    ret->limit = HTTP_LIMITS;
    int status = chunked ? take_chunked_bytes(c, input, ret) : take_length_bytes(c, input, ret);
    ret->whole = chunked ? c->chunked.state == HTTP_CHUNK_DONE : c->body_left == 0;
    return status;
}
