/* http_url: see http_url.h. libcurl's parser does the reading. */
#include "net/http_url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "net/http_client.h"

static bool names_this_machine(const char *host)
{
    static const char local[] = "localhost";
    struct in_addr four;
    struct in6_addr six;
    char inner[INET6_ADDRSTRLEN];
    size_t n = strlen(host), tail = sizeof local - 1;
    if (n > 0 && host[n - 1] == '.') n--; /* a name's root */
    if (n >= tail && strncasecmp(host + n - tail, local, tail) == 0 &&
        (n == tail || host[n - tail - 1] == '.'))
        return true;
    if (inet_pton(AF_INET, host, &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
    if (*host != '[' || sscanf(host, "[%45[0-9a-fA-F:.]]", inner) != 1) return false;
    if (inet_pton(AF_INET6, inner, &six) != 1) return false;
    return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
}

/* Scheme and host of a URL; false for what is no URL. The caller frees both with curl_free. */
static bool split(const char *url, char **ret_scheme, char **ret_host)
{
    CURLU *parsed = curl_url();
    *ret_scheme = *ret_host = NULL;
    bool ok = parsed && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_get(parsed, CURLUPART_SCHEME, ret_scheme, 0) == CURLUE_OK &&
              curl_url_get(parsed, CURLUPART_HOST, ret_host, 0) == CURLUE_OK;
    curl_url_cleanup(parsed);
    return ok;
}

bool http_url_is_local(const char *url)
{
    char *scheme, *host;
    bool local = split(url, &scheme, &host) && names_this_machine(host);
    curl_free(scheme);
    curl_free(host);
    return local;
}

bool http_url_exposes(const char *url)
{
    char *scheme, *host;
    bool exposes =
        split(url, &scheme, &host) && strcmp(scheme, "http") == 0 && !names_this_machine(host);
    curl_free(scheme);
    curl_free(host);
    return exposes;
}

static int check(const char *url, struct err *e)
{
    CURLU *parsed = curl_url();
    char *scheme = NULL, *query = NULL, *user = NULL, *fragment = NULL;
    CURLUcode code = parsed ? curl_url_set(parsed, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;
    bool ok = code == CURLUE_OK &&
              curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    if (ok)
        ok = curl_url_get(parsed, CURLUPART_QUERY, &query, 0) == CURLUE_NO_QUERY &&
             curl_url_get(parsed, CURLUPART_USER, &user, 0) == CURLUE_NO_USER &&
             curl_url_get(parsed, CURLUPART_FRAGMENT, &fragment, 0) == CURLUE_NO_FRAGMENT;
    curl_free(scheme);
    curl_free(query);
    curl_free(user);
    curl_free(fragment);
    curl_url_cleanup(parsed);
    if (ok) return 0;
    if (code == CURLUE_OUT_OF_MEMORY) return err_set(e, ERR_NO_MEMORY, "no memory to read a URL");
    return err_set(e, ERR_BAD_INPUT,
                   "'%.200s' is not a URL such as http://host:port or https://host/path (without "
                   "user, query and fragment; an IPv6 address stands in brackets)",
                   url);
}

/* A host without a scheme. Of this machine it is http; of another one the user must say which,
 * since http shows what is sent. `ret_base` has room. */
static int add_scheme(const char *url, char *ret_base, size_t size, struct err *e)
{
    char *scheme, *host;
    snprintf(ret_base, size, "http://%s", url);
    bool is_url = split(ret_base, &scheme, &host);
    bool local = is_url && names_this_machine(host);
    curl_free(scheme);
    curl_free(host);
    if (local) return 0;
    if (!is_url) return check(url, e);
    return err_set(e, ERR_BAD_INPUT, "'%.200s' lacks its scheme: write https://%.200s, or http://",
                   url, url);
}

/* The length without slashes at the end. */
static size_t without_slashes(const char *url, size_t n)
{
    while (n > 0 && url[n - 1] == '/')
        n--;
    return n;
}

int http_url_base(const char *url, char *ret_base, size_t size, struct err *e)
{
    static const char version[] = "/v1";
    size_t tail = sizeof version - 1;
    int code = 0;
    if (!url) return check("", e);
    if (strlen(url) >= HTTP_URL_MAX / 2 || strlen(url) + sizeof "http://" > size)
        return err_set(e, ERR_LIMIT, "the URL '%.60s...' is too long", url);
    if (strstr(url, "://"))
        snprintf(ret_base, size, "%s", url);
    else
        code = add_scheme(url, ret_base, size, e);
    if (code == 0) code = check(ret_base, e);
    if (code) return code;
    size_t n = without_slashes(ret_base, strlen(ret_base));
    size_t host = (size_t)(strstr(ret_base, "://") + 3 - ret_base);
    while (n > host + tail && memcmp(ret_base + n - tail, version, tail) == 0)
        n = without_slashes(ret_base, n - tail);
    ret_base[n] = 0;
    return 0;
}
