/*
 * tls: the server's side of TLS 1.2 and 1.3, for `make_bufferevent` of http_server.h.
 *
 * A `struct tls` holds certificates with their keys, at most one of each kind of key (ECDSA, RSA,
 * Ed25519): each client gets the one that it can verify. tls_reload reads the same files again; new
 * connections then get the new certificates, and open ones keep theirs. A file that cannot be used
 * changes nothing.
 *
 * Choices: TLS 1.2 only with forward secrecy and authenticated encryption (Mozilla's "intermediate"
 * list without finite-field Diffie-Hellman); X25519, P-256, P-384; no renegotiation, no
 * compression, no early data (it can be replayed); ALPN accepts http/1.1 and refuses clients that
 * offer only other protocols; sessions are resumed by tickets, whose key lives TLS_TICKET_KEY_US at
 * most and outlasts a reload; nothing is kept per session.
 *
 * Threads: the loop only.
 */
#ifndef PDD_NET_TLS_H
#define PDD_NET_TLS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct bufferevent;
struct event_base;
struct tls;

enum { TLS_IDENTITIES_MAX = 4, TLS_FILE_NAME_MAX = 4096 };
#define TLS_TICKET_KEY_US (12ull * 3600 * 1000000)

/* PEM files: the certificate followed by its intermediates, and its key. */
struct tls_identity {
    const char *cert_path, *key_path;
};

/* Paths are copied. An error names the file and what is wrong with it. */
int tls_new(const struct tls_identity *identities, size_t n, struct tls **ret_tls, struct err *e);
int tls_reload(struct tls *t, struct err *e);
void tls_free(struct tls *t); /* connections may outlive it; NULL is fine */

/* A make_bufferevent: `tls` is a struct tls. */
struct bufferevent *tls_bufferevent(struct event_base *base, int fd, void *tls);

/* For connections of any kind; without TLS each does nothing, or returns 0. */

/* Send close_notify. The output buffer must be empty. */
void tls_say_end(struct bufferevent *bev);
/* Whether the connection failed because the client speaks plain HTTP. Takes the error. */
int tls_got_plain_http(struct bufferevent *bev);

#endif
