/* http_portal: see http_portal.h. */
#include "net/http_portal.h"

#include <curl/curl.h>
#include <stdio.h>
#include <strings.h>

#include "net/body_kind.h"

enum { SHOWN_MAX = 200 };

/* A part of a URL, or of a reference to one from it; NULL: none. To be freed with curl_free. */
static char *part_of(const char *url, const char *reference, CURLUPart part)
{
    CURLU *u = curl_url();
    char *text = NULL;
    if (!u || curl_url_set(u, CURLUPART_URL, url, 0) ||
        (reference && curl_url_set(u, CURLUPART_URL, reference, CURLU_NON_SUPPORT_SCHEME)) ||
        curl_url_get(u, part, &text, 0))
        text = NULL;
    curl_url_cleanup(u);
    return text;
}

static bool differs(const char *url, const char *location, CURLUPart part)
{
    char *own = part_of(url, NULL, part), *other = part_of(url, location, part);
    bool different = own && other && strcasecmp(own, other) != 0;
    curl_free(own);
    curl_free(other);
    return different;
}

static void show(const char *notice, const char *url, char ret_text[HTTP_PORTAL_MAX])
{
    int n = snprintf(ret_text, HTTP_PORTAL_MAX, "%s%.*s", notice, SHOWN_MAX, url);
    for (int i = 0; i < n; i++)
        if (ret_text[i] < ' ' || ret_text[i] > '~') ret_text[i] = '?';
}

/* The page that a browser is to open is the server's first one: the network answers in its place.
 */
static void show_root(const char *notice, const char *url, char ret_text[HTTP_PORTAL_MAX])
{
    char *root = part_of(url, "/", CURLUPART_URL);
    show(notice, root ? root : url, ret_text);
    curl_free(root);
}

void http_portal_notice(int status, const char *type, const char *location, const char *url,
                        char ret_text[HTTP_PORTAL_MAX])
{
    static const char log_in[] = "the network asks for a log-in page: ";
    bool moved = status >= 300 && status < 400 && location;
    bool portal =
        moved && differs(url, location, CURLUPART_HOST) && differs(url, location, CURLUPART_PATH);
    ret_text[0] = 0;
    if (portal || (status == 511 && location))
        show(log_in, location, ret_text);
    else if (moved)
        show("it has moved to ", location, ret_text);
    else if (status == 511 ||
             (status >= 200 && status < 300 && body_kind_of_type(type) == BODY_PAGE))
        show_root(log_in, url, ret_text);
}
