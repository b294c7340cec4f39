/* http_ca: see http_ca.h. */
#include "net/http_ca.h"

#include <curl/curl.h>
#include <stddef.h>
#include <unistd.h>

static const char *const places[] = {
    "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Ubuntu, Arch, Gentoo */
    "/etc/pki/tls/certs/ca-bundle.crt",                  /* Fedora, RHEL */
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* RHEL without the compatible name */
    "/etc/ssl/ca-bundle.pem",                            /* openSUSE */
    "/etc/ssl/cert.pem",                                 /* Alpine, macOS, the BSDs */
    NULL,
};

const char *http_ca_find(const char *first, const char *const *others)
{
    if (first && access(first, R_OK) == 0) return first;
    for (size_t i = 0; others[i]; i++)
        if (access(others[i], R_OK) == 0) return others[i];
    return NULL;
}

const char *http_ca_file(void)
{
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
    const char *own = info->age >= CURLVERSION_SEVENTH ? info->cainfo : NULL;
    const char *found = http_ca_find(own, places);
    return found == own ? NULL : found;
}
