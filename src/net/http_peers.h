/*
 * http_peers: client addresses, networks of trusted proxies, and counts by address of connections
 * and bytes of bodies. Pure; no sockets.
 *
 * An IPv4 address is kept as its IPv4-mapped IPv6 one. For counting, an IPv6 client is its /64: one
 * household or machine has all of it.
 */
#ifndef PDD_NET_HTTP_PEERS_H
#define PDD_NET_HTTP_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct sockaddr;

enum {
    HTTP_ADDRESS_TEXT = 46, /* bytes of the longest address, with its end */
    HTTP_PROXIES_MAX = 16   /* trusted networks */
};

struct http_address {
    uint8_t bytes[16];
};

/* A network: the addresses with the same first `bits` bits. */
struct http_network {
    struct http_address address;
    uint8_t bits; /* 0..128, of the mapped form */
};

/* ERR_BAD_INPUT for all but a numeric IPv4 or IPv6 address of n bytes. */
int http_address_parse(const char *text, size_t n, struct http_address *ret_address);
/* Of an accepted socket. */
void http_address_from(const struct sockaddr *from, struct http_address *ret_address);
/* What an address counts as: an IPv6 one as its /64, an IPv4 one as itself. */
struct http_address http_address_counted(const struct http_address *a);
void http_address_print(const struct http_address *a, char text[HTTP_ADDRESS_TEXT]);

/* "10.0.0.0/8", "fd00::/8", or a single address. */
int http_network_parse(const char *text, struct http_network *ret_network, struct err *e);
bool http_network_has(const struct http_network *n, const struct http_address *a);
bool http_networks_have(const struct http_network *list, size_t n, const struct http_address *a);

/* The client of a proxy's request: the last address of an X-Forwarded-For line that is in none of
 * the trusted networks. (Each proxy appends the address that it saw; the client controls what
 * precedes.) ERR_NOT_FOUND: all are trusted, see the earlier line. ERR_BAD_INPUT: that entry is not
 * an address; the client is unknown, and earlier lines are the client's own. */
int http_forwarded_for(const char *value, const struct http_network *trusted, size_t n,
                       struct http_address *ret_address);

/* Counts by address. Memory grows with the number of different addresses counted now. */
struct http_peers;
struct http_peers *http_peers_new(void); /* NULL: no memory, or no random numbers */
void http_peers_free(struct http_peers *p);
/* Count one more of this address; ERR_BUSY: there are `max` already; ERR_NO_MEMORY. */
int http_peers_enter(struct http_peers *p, const struct http_address *a, uint32_t max);
void http_peers_leave(struct http_peers *p, const struct http_address *a);
/* Add `bytes` to those of this address; ERR_BUSY: that would exceed `max`; ERR_NO_MEMORY. */
int http_peers_hold(struct http_peers *p, const struct http_address *a, size_t bytes, size_t max);
void http_peers_drop(struct http_peers *p, const struct http_address *a, size_t bytes);

#endif
