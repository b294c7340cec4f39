/* http_curl: see http_curl.h. */
#include "net/http_curl.h"

bool http_curl_set(CURL *h, const struct http_curl *o)
{
    bool ok = true;
#define SET(option, value) ok = ok && curl_easy_setopt(h, option, value) == CURLE_OK
    SET(CURLOPT_URL, o->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_HTTPHEADER, o->headers);
    SET(CURLOPT_USERAGENT, "pdd/" PDD_VERSION);
    if (o->is_local) SET(CURLOPT_PROXY, ""); /* else the environment's: http_proxy, no_proxy, ... */
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)o->connect_ms);
    SET(CURLOPT_ERRORBUFFER, o->error);
    if (o->ca_file) SET(CURLOPT_CAINFO, o->ca_file);
#undef SET
    return ok;
}
