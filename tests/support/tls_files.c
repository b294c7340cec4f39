/* tls_files: see tls_files.h. */
#include "support/tls_files.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"

enum { LIFE_S = 3600, RSA_BITS = 2048 };

static X509 *self_signed(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    uint32_t serial;
    CHECK(cert && X509_set_version(cert, 2) && X509_set_pubkey(cert, key));
    CHECK(RAND_bytes((unsigned char *)&serial, sizeof serial) == 1);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), (long)serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), -LIFE_S);
    X509_gmtime_adj(X509_getm_notAfter(cert), LIFE_S);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"pdd test", -1, -1,
                               0);
    X509_set_issuer_name(cert, name);
    X509_EXTENSION *alt =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    CHECK(alt && X509_add_ext(cert, alt, -1) && X509_sign(cert, key, EVP_sha256()));
    X509_EXTENSION_free(alt);
    return cert;
}

void tls_files_renew(enum tls_files_kind kind, const struct tls_files *files)
{
    EVP_PKEY *key = kind == TLS_FILES_RSA ? EVP_RSA_gen(RSA_BITS) : EVP_EC_gen("P-256");
    CHECK(key);
    X509 *cert = self_signed(key);
    FILE *f = fopen(files->cert, "w");
    CHECK(f && PEM_write_X509(f, cert) && fclose(f) == 0);
    f = fopen(files->key, "w");
    CHECK(f && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) && fclose(f) == 0);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void make_path(char *path, size_t size)
{
    snprintf(path, size, "/tmp/pdd_test_tls_XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
}

void tls_files_make(enum tls_files_kind kind, struct tls_files *ret_files)
{
    make_path(ret_files->cert, sizeof ret_files->cert);
    make_path(ret_files->key, sizeof ret_files->key);
    tls_files_renew(kind, ret_files);
}

void tls_files_remove(const struct tls_files *files)
{
    unlink(files->cert);
    unlink(files->key);
}
