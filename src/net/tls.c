/* tls: see tls.h. */
#include "net/tls.h"

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

static const char ciphers[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char groups[] = "X25519:P-256:P-384";

enum { TICKET_KEY_BYTES = 80 }; /* name, HMAC key, AES key, as OpenSSL wants them */

struct tls {
    SSL_CTX *context; /* a reload replaces it; connections hold references of their own */
    size_t n;
    char *cert_paths[TLS_IDENTITIES_MAX], *key_paths[TLS_IDENTITIES_MAX];
    unsigned char ticket_key[TICKET_KEY_BYTES];
    uint64_t ticket_key_until;
};

/* The reason of OpenSSL's newest error; takes all of them. */
static const char *reason(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    if (ERR_SYSTEM_ERROR(code)) text = strerror(ERR_GET_REASON(code));
    ERR_clear_error();
    return text ? text : "not what is needed";
}

/* Of a client's list: http/1.1, or the end of the handshake (RFC 7301, 3.2). */
static int choose_protocol(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_len,
                           const unsigned char *offered, unsigned n, void *arg)
{
    static const unsigned char known[] = "\x08http/1.1";
    unsigned char *name = NULL;
    (void)ssl, (void)arg;
    if (SSL_select_next_proto(&name, ret_len, known, sizeof known - 1, offered, n) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *ret_name = name;
    return SSL_TLSEXT_ERR_OK;
}

/* Never asks: a passphrase has no one to type it. */
static int no_passphrase(char *text, int size, int writing, void *arg)
{
    (void)text, (void)size, (void)writing, (void)arg;
    return 0;
}

static SSL_CTX *new_context(struct err *e)
{
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (!c || !SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) ||
        !SSL_CTX_set_cipher_list(c, ciphers) || !SSL_CTX_set1_groups_list(c, groups)) {
        err_set(e, ERR_NO_MEMORY, "TLS cannot be set up: %s", reason());
        SSL_CTX_free(c);
        return NULL;
    }
    SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                               SSL_OP_IGNORE_UNEXPECTED_EOF); /* see tls_bufferevent */
    /* Without its buffers an idle connection takes a third of the memory. */
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF); /* tickets need none */
    SSL_CTX_set_num_tickets(c, 1);
    SSL_CTX_set_alpn_select_cb(c, choose_protocol, NULL);
    SSL_CTX_set_default_passwd_cb(c, no_passphrase);
    return c;
}

static int add_identity(SSL_CTX *c, const char *cert_path, const char *key_path, struct err *e)
{
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(c, cert_path) != 1)
        return err_set(e, ERR_BAD_INPUT, "%s: no PEM certificate can be read: %s", cert_path,
                       reason());
    if (SSL_CTX_use_PrivateKey_file(c, key_path, SSL_FILETYPE_PEM) != 1)
        return err_set(e, ERR_BAD_INPUT,
                       "%s: no PEM key without passphrase that fits %s can be read: %s", key_path,
                       cert_path, reason());
    if (SSL_CTX_check_private_key(c) != 1) {
        ERR_clear_error();
        return err_set(e, ERR_BAD_INPUT, "%s is not the key of %s", key_path, cert_path);
    }
    return 0;
}

/* Two certificates of one kind of key: OpenSSL would serve the last one only. */
static int check_kind(const struct tls *t, SSL_CTX *c, int kinds[TLS_IDENTITIES_MAX], size_t i,
                      struct err *e)
{
    kinds[i] = EVP_PKEY_get_base_id(SSL_CTX_get0_privatekey(c));
    for (size_t k = 0; k < i; k++)
        if (kinds[k] == kinds[i])
            return err_set(e, ERR_BAD_INPUT,
                           "%s and %s have the same kind of key; give one certificate of each kind",
                           t->cert_paths[k], t->cert_paths[i]);
    return 0;
}

static int renew_ticket_key(struct tls *t, uint64_t now)
{
    if (RAND_priv_bytes(t->ticket_key, sizeof t->ticket_key) != 1) return ERR_INTERNAL;
    t->ticket_key_until = now + TLS_TICKET_KEY_US;
    return 0;
}

/* Read all files into a new context. */
static int load(struct tls *t, SSL_CTX **ret_context, struct err *e)
{
    int kinds[TLS_IDENTITIES_MAX];
    SSL_CTX *c = new_context(e);
    int code = c ? 0 : ERR_NO_MEMORY;
    for (size_t i = 0; i < t->n && code == 0; i++) {
        code = add_identity(c, t->cert_paths[i], t->key_paths[i], e);
        if (code == 0) code = check_kind(t, c, kinds, i, e);
    }
    if (code == 0 && SSL_CTX_set_tlsext_ticket_keys(c, t->ticket_key, sizeof t->ticket_key) != 1)
        code = err_set(e, ERR_INTERNAL, "TLS takes no ticket key: %s", reason());
    if (code)
        SSL_CTX_free(c);
    else
        *ret_context = c;
    return code;
}

int tls_new(const struct tls_identity *identities, size_t n, struct tls **ret_tls, struct err *e)
{
    if (n == 0 || n > TLS_IDENTITIES_MAX)
        return err_set(e, ERR_BAD_INPUT, "TLS needs 1 to %d certificates", TLS_IDENTITIES_MAX);
    struct tls *t = mem_calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for TLS");
    int code = 0;
    for (; t->n < n && code == 0; t->n++) {
        t->cert_paths[t->n] = mem_strdup(identities[t->n].cert_path);
        t->key_paths[t->n] = mem_strdup(identities[t->n].key_path);
        if (!t->cert_paths[t->n] || !t->key_paths[t->n])
            code = err_set(e, ERR_NO_MEMORY, "no memory for TLS");
    }
    if (code == 0 && renew_ticket_key(t, clock_us()))
        code = err_set(e, ERR_INTERNAL, "no random numbers for TLS: %s", reason());
    if (code == 0) code = load(t, &t->context, e);
    if (code)
        tls_free(t);
    else
        *ret_tls = t;
    return code;
}

int tls_reload(struct tls *t, struct err *e)
{
    SSL_CTX *fresh;
    int code = load(t, &fresh, e);
    if (code) return code;
    SSL_CTX_free(t->context);
    t->context = fresh;
    return 0;
}

void tls_free(struct tls *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->cert_paths[i]);
        mem_free(t->key_paths[i]);
    }
    SSL_CTX_free(t->context);
    OPENSSL_cleanse(t->ticket_key, sizeof t->ticket_key);
    mem_free(t);
}

struct bufferevent *tls_bufferevent(struct event_base *base, int fd, void *tls)
{
    struct tls *t = tls;
    uint64_t now = clock_us();
    /* A ticket key that leaks opens what TLS 1.2 resumed with it: let none grow old. */
    if (now >= t->ticket_key_until && renew_ticket_key(t, now) == 0)
        SSL_CTX_set_tlsext_ticket_keys(t->context, t->ticket_key, sizeof t->ticket_key);
    SSL *ssl = SSL_new(t->context);
    if (!ssl) return NULL;
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (!bev) {
        SSL_free(ssl);
        return NULL;
    }
    /* Lengths and chunks say where a message ends: a client that closes without TLS's farewell has
     * closed, and nothing else. */
    bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

void tls_say_end(struct bufferevent *bev)
{
    SSL *ssl = bufferevent_openssl_get_ssl(bev);
    if (!ssl || !SSL_is_init_finished(ssl)) return;
    (void)SSL_shutdown(ssl); /* one small record; if the kernel takes none, the close says it */
    ERR_clear_error();
}

int tls_got_plain_http(struct bufferevent *bev)
{
    if (!bufferevent_openssl_get_ssl(bev)) return 0;
    unsigned long code = bufferevent_get_openssl_error(bev);
    int why = ERR_GET_REASON(code); /* of some methods OpenSSL knows the name only */
    return ERR_GET_LIB(code) == ERR_LIB_SSL &&
           (why == SSL_R_HTTP_REQUEST || why == SSL_R_WRONG_VERSION_NUMBER);
}
