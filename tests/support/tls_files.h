/*
 * tls_files: certificates for tests, made on the spot: self-signed, for localhost and 127.0.0.1,
 * valid for an hour, in PEM files that tls_files_remove takes away.
 */
#ifndef PDD_TESTS_TLS_FILES_H
#define PDD_TESTS_TLS_FILES_H

enum tls_files_kind { TLS_FILES_ECDSA, TLS_FILES_RSA };

struct tls_files {
    char cert[64], key[64]; /* paths; a client that trusts `cert` can verify it */
};

void tls_files_make(enum tls_files_kind kind, struct tls_files *ret_files);
/* The same paths with another certificate and key, as a renewal does it. */
void tls_files_renew(enum tls_files_kind kind, const struct tls_files *files);
void tls_files_remove(const struct tls_files *files);

#endif
