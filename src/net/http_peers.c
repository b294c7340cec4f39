/* http_peers: see http_peers.h. */
#include "net/http_peers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/rng.h"

enum { BUCKETS = 1024, MAPPED_BITS = 96, NETWORK_TEXT_MAX = 64 };

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct peer {
    struct http_address address;
    struct peer *next;
    uint32_t n;   /* connections or requests */
    size_t bytes; /* held */
};

struct http_peers {
    uint64_t seed; /* so that clients cannot choose addresses that share a bucket */
    struct peer *buckets[BUCKETS];
};

static bool is_v4(const struct http_address *a)
{
    return memcmp(a->bytes, mapped, sizeof mapped) == 0;
}

static void from_v4(const void *four, struct http_address *a)
{
    memcpy(a->bytes, mapped, sizeof mapped);
    memcpy(a->bytes + sizeof mapped, four, 4);
}

int http_address_parse(const char *text, size_t n, struct http_address *ret_address)
{
    char copy[HTTP_ADDRESS_TEXT];
    struct in_addr four;
    struct in6_addr six;
    if (n >= sizeof copy || memchr(text, 0, n)) return ERR_BAD_INPUT;
    memcpy(copy, text, n);
    copy[n] = 0;
    if (inet_pton(AF_INET, copy, &four) == 1)
        from_v4(&four, ret_address);
    else if (inet_pton(AF_INET6, copy, &six) == 1)
        memcpy(ret_address->bytes, &six, sizeof ret_address->bytes);
    else
        return ERR_BAD_INPUT;
    return 0;
}

void http_address_from(const struct sockaddr *from, struct http_address *ret_address)
{
    const void *any = from;
    if (from->sa_family == AF_INET6)
        memcpy(ret_address->bytes, &((const struct sockaddr_in6 *)any)->sin6_addr,
               sizeof ret_address->bytes);
    else
        from_v4(&((const struct sockaddr_in *)any)->sin_addr, ret_address);
}

void http_address_print(const struct http_address *a, char text[HTTP_ADDRESS_TEXT])
{
    text[0] = 0;
    if (is_v4(a))
        inet_ntop(AF_INET, a->bytes + sizeof mapped, text, HTTP_ADDRESS_TEXT);
    else
        inet_ntop(AF_INET6, a->bytes, text, HTTP_ADDRESS_TEXT);
}

int http_network_parse(const char *text, struct http_network *ret_network, struct err *e)
{
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    struct http_network net = {.bits = 128};
    char *end = NULL;
    long most = 128, bits = 128;
    int code = http_address_parse(text, n, &net.address);
    if (code == 0 && slash) {
        most = is_v4(&net.address) ? 32 : 128;
        bits = slash[1] >= '0' && slash[1] <= '9' ? strtol(slash + 1, &end, 10) : -1;
        if (bits < 0 || bits > most || *end) code = ERR_BAD_INPUT;
    }
    if (code)
        return err_set(e, ERR_BAD_INPUT,
                       "\"%.*s\" is no network: a numeric address is needed, or one with /BITS",
                       NETWORK_TEXT_MAX, text);
    net.bits = (uint8_t)(bits + (most == 32 ? MAPPED_BITS : 0));
    *ret_network = net;
    return 0;
}

bool http_network_has(const struct http_network *n, const struct http_address *a)
{
    size_t whole = n->bits / 8, rest = n->bits % 8;
    if (memcmp(n->address.bytes, a->bytes, whole) != 0) return false;
    return rest == 0 || (n->address.bytes[whole] ^ a->bytes[whole]) >> (8 - rest) == 0;
}

bool http_networks_have(const struct http_network *list, size_t n, const struct http_address *a)
{
    for (size_t i = 0; i < n; i++)
        if (http_network_has(&list[i], a)) return true;
    return false;
}

int http_forwarded_for(const char *value, const struct http_network *trusted, size_t n,
                       struct http_address *ret_address)
{
    for (size_t end = strlen(value); end > 0;) {
        size_t from = end;
        while (from > 0 && value[from - 1] != ',')
            from--;
        size_t first = from, last = end;
        while (first < last && (value[first] == ' ' || value[first] == '\t'))
            first++;
        while (last > first && (value[last - 1] == ' ' || value[last - 1] == '\t'))
            last--;
        if (http_address_parse(value + first, last - first, ret_address)) return ERR_BAD_INPUT;
        if (!http_networks_have(trusted, n, ret_address)) return 0;
        end = from > 0 ? from - 1 : 0;
    }
    return ERR_NOT_FOUND;
}

struct http_peers *http_peers_new(void)
{
    struct http_peers *p = mem_calloc(1, sizeof *p);
    if (p && getrandom(&p->seed, sizeof p->seed, 0) == (ssize_t)sizeof p->seed) return p;
    mem_free(p);
    return NULL;
}

void http_peers_free(struct http_peers *p)
{
    for (size_t i = 0; p && i < BUCKETS; i++)
        CHECK(!p->buckets[i]); /* every entry must have left */
    mem_free(p);
}

struct http_address http_address_counted(const struct http_address *a)
{
    struct http_address counted = *a;
    if (!is_v4(a)) memset(counted.bytes + 8, 0, 8);
    return counted;
}

/* Where the address is, or would be, linked in. */
static struct peer **place_of(struct http_peers *p, const struct http_address *a)
{
    uint64_t high, low;
    memcpy(&high, a->bytes, 8);
    memcpy(&low, a->bytes + 8, 8);
    struct peer **at = &p->buckets[rng_u32(p->seed, high, low) % BUCKETS];
    while (*at && memcmp(&(*at)->address, a, sizeof *a) != 0)
        at = &(*at)->next;
    return at;
}

/* The address's entry, made when there is none. NULL: no memory. */
static struct peer *enter(struct http_peers *p, const struct http_address *a)
{
    struct http_address counted = http_address_counted(a);
    struct peer **at = place_of(p, &counted);
    if (*at) return *at;
    *at = mem_calloc(1, sizeof **at);
    if (*at) (*at)->address = counted;
    return *at;
}

/* The address's entry, which must be there, is removed once nothing is counted in it. */
static void remove_unused(struct http_peers *p, const struct http_address *a)
{
    struct http_address counted = http_address_counted(a);
    struct peer **at = place_of(p, &counted), *peer = *at;
    if (peer->n > 0 || peer->bytes > 0) return;
    *at = peer->next;
    mem_free(peer);
}

int http_peers_enter(struct http_peers *p, const struct http_address *a, uint32_t max)
{
    if (max == 0) return ERR_BUSY;
    struct peer *peer = enter(p, a);
    if (!peer) return ERR_NO_MEMORY;
    if (peer->n >= max) return ERR_BUSY;
    peer->n++;
    return 0;
}

void http_peers_leave(struct http_peers *p, const struct http_address *a)
{
    struct http_address counted = http_address_counted(a);
    struct peer *peer = *place_of(p, &counted);
    CHECK(peer && peer->n > 0);
    peer->n--;
    remove_unused(p, a);
}

int http_peers_hold(struct http_peers *p, const struct http_address *a, size_t bytes, size_t max)
{
    if (bytes == 0) return 0;
    if (bytes > max) return ERR_BUSY;
    struct peer *peer = enter(p, a);
    if (!peer) return ERR_NO_MEMORY;
    if (peer->bytes > max - bytes) return ERR_BUSY; /* it holds some, so the entry stays */
    peer->bytes += bytes;
    return 0;
}

void http_peers_drop(struct http_peers *p, const struct http_address *a, size_t bytes)
{
    if (bytes == 0) return;
    struct http_address counted = http_address_counted(a);
    struct peer *peer = *place_of(p, &counted);
    CHECK(peer && peer->bytes >= bytes);
    peer->bytes -= bytes;
    remove_unused(p, a);
}
