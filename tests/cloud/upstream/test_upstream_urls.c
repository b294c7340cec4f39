/*
 * test_upstream_urls: how `pdd cloud --upstream` takes the URL of a server.
 *
 * Catches: a /v1 at the end that is asked for twice, a host called v1 that loses its name, a user
 * name or a key that gets into logs and metrics.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cloud/upstream/upstream.h"
#include "net/loop.h"

enum { PAGE_MAX = 65536 };

static void no_wake(void *arg)
{
    (void)arg;
}

/* A server is named by its base URL, and a host called v1 keeps its name. What may be a secret is
 * refused. */
static void test_urls(void **state)
{
    static const struct {
        const char *url, *name; /* name NULL: refused, with `sentence` */
        const char *sentence;
        int code;
    } cases[] = {
        {"http://gpu1:8000", "http://gpu1:8000", NULL, 0},
        {"http://gpu1:8000/v1//", "http://gpu1:8000", NULL, 0},
        {"http://gpu1/prefix/v1", "http://gpu1/prefix", NULL, 0},
        {"http://v1", "http://v1", NULL, 0},
        {"http://v1/v1", "http://v1", NULL, 0},
        {"http://me:key@gpu1", NULL, "keys come from a file", ERR_BAD_INPUT},
        {"http://gpu1/?key=1", NULL, "keys come from a file", ERR_BAD_INPUT},
        {"http://gpu1/a b", NULL, "keys come from a file", ERR_BAD_INPUT},
        {"http://gpu1/\"", NULL, "keys come from a file", ERR_BAD_INPUT},
        {"ftp://gpu1", NULL, "is not a URL", ERR_BAD_INPUT},
        {"gpu1:8000", NULL, "lacks its scheme", ERR_BAD_INPUT},
    };
    struct loop *l;
    (void)state;
    assert_int_equal(loop_new(&l, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct upstream_config config = {
            .servers = {{.url = cases[i].url}}, .n_servers = 1, .wake = no_wake};
        struct backend *b;
        struct buf page;
        struct err e = ERR_INIT;
        char label[100];
        int code = upstream_new(l, &config, &b, &e);
        if (code != cases[i].code) fail_msg("%s: %d %s", cases[i].url, code, e.text);
        if (code) {
            if (!strstr(e.text, cases[i].sentence)) fail_msg("%s: %s", cases[i].url, e.text);
            continue;
        }
        buf_init(&page, PAGE_MAX);
        assert_int_equal(backend_metrics(b, &page), 0);
        snprintf(label, sizeof label, "pdd_upstream_up{upstream=\"%s\"} 0\n", cases[i].name);
        if (!strstr(page.data, label)) fail_msg("%s: %s", cases[i].url, page.data);
        buf_release(&page);
        backend_free(b);
    }
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_urls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
