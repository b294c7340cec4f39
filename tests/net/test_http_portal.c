/*
 * test_http_portal: what a network that wants a log-in first answers in a server's place; and a
 * name whose lookup hangs, as such networks have it.
 *
 * Catches: a log-in page that counts as the server's fault, or a server's fault that counts as one;
 * a header that writes to the terminal; a loop that stands still until a lookup ends.
 */
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "net/http_client.h"
#include "net/http_portal.h"

static void notices(void **state)
{
    static const struct {
        int status;
        const char *type, *location, *notice;
    } cases[] = {
        {200, "text/html", NULL, "the network asks for a log-in page: http://cloud.example:8080/"},
        {200, "TEXT/HTML; charset=x", NULL,
         "the network asks for a log-in page: http://cloud.example:8080/"},
        {200, "application/xhtml+xml", NULL,
         "the network asks for a log-in page: http://cloud.example:8080/"},
        {200, "text/htmlx", NULL, ""},
        {200, "text/event-stream", NULL, ""},
        {200, "application/json", NULL, ""},
        {200, NULL, NULL, ""},
        {404, "text/html", NULL, ""},
        {502, "text/html", NULL, ""},
        {511, "text/html", NULL, "the network asks for a log-in page: http://cloud.example:8080/"},
        {511, NULL, "https://hotel/a", "the network asks for a log-in page: https://hotel/a"},
        {302, "text/html", "http://10.0.0.1/login?to=http%3A%2F%2Fcloud.example",
         "the network asks for a log-in page: http://10.0.0.1/login?to=http%3A%2F%2Fcloud.example"},
        {303, NULL, "//wifi.train/", "the network asks for a log-in page: //wifi.train/"},
        {307, NULL, "/v2/assist", "it has moved to /v2/assist"},
        {301, NULL, "https://CLOUD.example/api/v1/assist",
         "it has moved to https://CLOUD.example/api/v1/assist"},
        {308, NULL, "https://new.example/v1/assist",
         "it has moved to https://new.example/v1/assist"},
        {302, NULL, NULL, ""},
        {302, NULL, "http://a/\x1b]0;x\x07\xC3\xA9", "it has moved to http://a/?]0;x???"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[HTTP_PORTAL_MAX];
        http_portal_notice(cases[i].status, cases[i].type, cases[i].location,
                           "http://cloud.example:8080/v1/assist", text);
        if (strcmp(text, cases[i].notice) != 0) fail_msg("case %zu: %s", i, text);
    }
}

static void no_text(const char *body, size_t n, char *text, size_t size)
{
    (void)body, (void)n, (void)size;
    text[0] = 0;
}

static void sentences(void **state)
{
    struct http_result r = {.status = 302, .notice = "it has moved to X"};
    struct err e = ERR_INIT;
    (void)state;
    http_result_error(&r, "http://c/v1", no_text, &e);
    assert_string_equal(e.text, "http://c/v1 answered 302: it has moved to X");
    r.status = 511;
    assert_int_equal(http_result_error(&r, "http://c/v1", no_text, &e), ERR_NET);
}

/* ---- a lookup that hangs: libcurl's thread finds this function in place of the C library's ----
 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int lookups, hang = 1;

__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **ret)
{
    (void)name, (void)service, (void)hints, (void)ret;
    pthread_mutex_lock(&lock);
    lookups++;
    pthread_cond_broadcast(&changed);
    while (hang)
        pthread_cond_wait(&changed, &lock);
    lookups--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return EAI_FAIL;
}

static void stop_when_looking(void *arg)
{
    pthread_mutex_lock(&lock);
    while (lookups == 0)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    loop_stop(arg);
}

/* Freeing the client cancels the call while its name is looked up: that must not wait. */
static void hanging_lookup(void **state)
{
    struct http_client_config config;
    struct http_client *c;
    struct http_call *call;
    struct loop *loop;
    struct loop_timer *timer;
    struct http_call_spec spec = {.method = "GET", .path = "/health", .collect = true};
    (void)state;
    assert_int_equal(loop_new(&loop, NULL), 0);
    http_client_config_default(&config);
    config.base_url = "http://cloud.invalid";
    config.warm_path = NULL;
    assert_int_equal(http_client_new(loop, &config, &c, NULL), 0);
    assert_int_equal(http_call_start(c, &spec, &call, NULL), 0);
    assert_int_equal(loop_timer_new(loop, stop_when_looking, loop, &timer, NULL), 0);
    loop_timer_set(timer, clock_us() + 50000);
    assert_int_equal(loop_run(loop, NULL), 0);
    http_client_free(c); /* hangs without the mend */
    pthread_mutex_lock(&lock);
    assert_int_equal(lookups, 1);
    hang = 0;
    pthread_cond_broadcast(&changed);
    while (lookups > 0)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    loop_timer_free(timer);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notices),
        cmocka_unit_test(sentences),
        cmocka_unit_test(hanging_lookup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
