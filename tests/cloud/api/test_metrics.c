/*
 * test_metrics: /metrics, /health, /ready and the log. Catches: a page that Prometheus refuses
 * (bucket counts that fall, a sum without its count, a name explained twice), requests that are not
 * counted or counted twice, keys that do not guard the page, a log line that a quote breaks, a
 * refusal or a cut answer without a line, a line with a prompt or a key in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "cloud/api/metrics.h"
#include "support/cloud_site.h"

enum { PAGE_MAX = 1 << 20, PAGES_WAIT_US = 5000000 };

/* The value of the sample whose line begins with `name` and a blank; -1: it is not there. */
static double sample(const char *page, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = page; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) == 0 && line[n] == ' ') return strtod(line + n + 1, NULL);
        if (!*line) break;
    }
    return -1;
}

static double scraped(const struct site *s, const char *name)
{
    struct buf page;
    buf_init(&page, PAGE_MAX);
    assert_int_equal(site_ask(s, "GET", "/metrics", NULL, "", &page), 200);
    double value = sample(page.data, name);
    buf_release(&page);
    return value;
}

static void expect_soon(const struct site *s, const char *name, double value)
{
    uint64_t until = clock_us() + PAGES_WAIT_US;
    double got;
    while ((got = scraped(s, name)) != value && clock_us() < until)
        clock_sleep_us(2000);
    if (got != value) fail_msg("%s is %g, %g expected", name, got, value);
}

/* One line of a histogram's buckets after the other. */
static void check_histogram(const char *page, const char *name)
{
    char prefix[128], count[128];
    snprintf(prefix, sizeof prefix, "%s_bucket{le=\"", name);
    snprintf(count, sizeof count, "%s_count", name);
    double bound = 0, below = 0;
    int buckets = 0;
    for (const char *at = strstr(page, prefix); at; at = strstr(at + 1, prefix)) {
        const char *le = at + strlen(prefix);
        double next = strncmp(le, "+Inf", 4) == 0 ? 1e300 : strtod(le, NULL);
        double value = strtod(strchr(le, '}') + 1, NULL);
        assert_true(next > bound && value >= below);
        bound = next;
        below = value;
        buckets++;
    }
    assert_true(buckets > 10 && bound == 1e300);
    assert_true(sample(page, count) == below);
}

static void test_page_is_well_formed(void **state)
{
    struct metrics m = {.generated_tokens = 7};
    struct metrics_now now = {.model = "m", .ready = true};
    struct buf page;
    (void)state;
    for (uint64_t us = 1; us < 1000000000000; us *= 3) {
        histogram_note_seconds(&m.first_token, us);
        histogram_note_tokens(&m.prompt_length, us);
    }
    buf_init(&page, PAGE_MAX);
    assert_int_equal(metrics_print(&m, &now, &page), 0);
    check_histogram(page.data, "pdd_time_to_first_token_seconds");
    check_histogram(page.data, "pdd_request_prompt_tokens");
    check_histogram(page.data, "pdd_time_per_output_token_seconds");
    assert_true(sample(page.data, "pdd_generation_tokens_total") == 7);
    /* Each name is explained once, and every sample belongs to the name explained last. */
    char name[128] = "";
    for (char *line = strtok(page.data, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            char before[128];
            memcpy(before, name, sizeof before);
            snprintf(name, sizeof name, "%.*s", (int)strcspn(line + 7, " "), line + 7);
            assert_string_not_equal(name, before);
        } else if (line[0] != '#') {
            assert_int_equal(strncmp(line, name, strlen(name)), 0);
        }
    }
    buf_release(&page);
}

static void ask(struct site *s, uint32_t tokens, struct client *c)
{
    int32_t prompt[40];
    struct wire_request q;
    site_prompt(s, prompt, 40, 1);
    site_request(s, prompt, 40, tokens, &q);
    client_post(c, s->port, &q);
}

static void test_requests_are_counted(void **state)
{
    struct site s;
    struct client c;
    (void)state;
    site_init(&s);
    s.fake.answer_tokens = 1000;
    s.fake.step_us = 5000; /* the answer is still running when a busy machine asks after it */
    site_start(&s);
    ask(&s, 5, &c);
    client_finish(&c);
    client_close(&c);
    expect_soon(&s, "pdd_requests_total{api=\"assist\",end=\"budget\"}", 1);
    ask(&s, 1000, &c);
    client_until(&c, 3);
    assert_true(scraped(&s, "pdd_num_requests_running") == 1);
    client_close(&c);
    expect_soon(&s, "pdd_requests_cancelled_total{phase=\"decode\"}", 1);
    assert_int_equal(site_ask(&s, "POST", "/v1/assist", NULL, "{", NULL), 400);
    expect_soon(&s, "pdd_requests_refused_total{reason=\"invalid\"}", 1);
    assert_true(scraped(&s, "pdd_time_to_first_token_seconds_count") == 2);
    assert_true(scraped(&s, "pdd_time_per_output_token_seconds_count") == 2);
    assert_true(scraped(&s, "pdd_prompt_tokens_total") == 80);
    assert_true(scraped(&s, "pdd_num_requests_running") == 0);
    assert_true(scraped(&s, "pdd_ready") == 1);
    assert_int_equal(site_ask(&s, "GET", "/ready", NULL, "", NULL), 200);
    struct buf health;
    buf_init(&health, PAGE_MAX);
    assert_int_equal(site_ask(&s, "GET", "/health", NULL, "", &health), 200);
    assert_non_null(strstr(health.data, "\"version\":\"" PDD_VERSION "\""));
    buf_release(&health);
    site_stop(&s);
}

/* The second of two equal requests finds all but the last token of its prompt. */
static void test_engine_is_counted(void **state)
{
    struct site s;
    struct client c;
    (void)state;
    site_init(&s);
    s.config.worker.cache_pages = 16;
    site_start(&s);
    for (int i = 0; i < 2; i++) {
        ask(&s, 5, &c);
        client_finish(&c);
        client_close(&c);
    }
    site_check_idle(&s);
    expect_soon(&s, "pdd_prefix_cache_hits_total", 1);
    assert_true(scraped(&s, "pdd_prefix_cache_misses_total") == 1);
    assert_true(scraped(&s, "pdd_prefix_cache_evictions_total") == 0);
    assert_true(scraped(&s, "pdd_prompt_tokens_cached_total") == 39);
    assert_true(scraped(&s, "pdd_prefill_tokens_total") == 41);
    assert_true(scraped(&s, "pdd_engine_spans_total") == 10);
    assert_true(scraped(&s, "pdd_step_tokens_max") == 64);
    assert_true(scraped(&s, "pdd_grants_cut_total") == 0);
    double pages = scraped(&s, "pdd_kv_pages"), unused = scraped(&s, "pdd_kv_pages_free");
    assert_true(pages == unused + scraped(&s, "pdd_kv_pages_prefix_cache"));
    site_stop(&s);
}

#define KEYS_PATH "/tmp/pdd-keys-XXXXXX"

/* A key file with one key, named "page". */
static void write_keys(char path[sizeof KEYS_PATH])
{
    static const char line[] = /* SHA-256 of "secret" */
        "page sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n";
    memcpy(path, KEYS_PATH, sizeof KEYS_PATH);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, line, sizeof line - 1), sizeof line - 1);
    close(fd);
}

static void test_keys_guard_the_page(void **state)
{
    char path[sizeof KEYS_PATH];
    struct site s, open;
    (void)state;
    write_keys(path);
    site_init(&s);
    s.config.keys_path = path;
    s.config.metrics_address = "127.0.0.1";
    site_start(&s);
    assert_int_equal(site_ask(&s, "GET", "/metrics", NULL, "", NULL), 401);
    assert_int_equal(site_ask(&s, "GET", "/metrics", "secret", "", NULL), 200);
    assert_int_equal(site_ask(&s, "GET", "/ready", NULL, "", NULL), 200);
    open.port = server_metrics_port(s.server);
    assert_int_equal(site_ask(&open, "GET", "/metrics", NULL, "", NULL), 200);
    assert_int_equal(site_ask(&open, "GET", "/v1/models", NULL, "", NULL), 404);
    site_stop(&s);
    unlink(path);
}

/* Refused connections by what refused them, and the numbers that Prometheus has for any process. */
static void test_limits_and_process(void **state)
{
    struct http_network proxy;
    struct site s;
    (void)state;
    site_init(&s);
    s.config.http.per_address_max = 3;
    s.config.http.connections_max = 8;
    s.config.http.proxies = &proxy;
    s.config.metrics_address = "127.0.0.1"; /* a port with limits of its own */
    assert_int_equal(http_network_parse("127.0.0.1", &proxy, NULL), 0);
    for (int trusted = 0; trusted < 2; trusted++) {
        int fds[10];
        s.config.http.n_proxies = (size_t)trusted;
        site_start(&s);
        struct site open = {.port = server_metrics_port(s.server)};
        for (int i = 0; i < 10; i++) {
            fds[i] = raw_connect(s.port);
            raw_puts(fds[i], "POST /v1/assist HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\n"
                             "Content-Length: 9\r\n\r\n");
        }
        expect_soon(&open, "pdd_http_refused_total{limit=\"address\"}", trusted ? 0 : 7);
        expect_soon(&open, "pdd_http_refused_total{limit=\"forwarded\"}", trusted ? 5 : 0);
        expect_soon(&open, "pdd_http_refused_total{limit=\"all\"}", trusted ? 2 : 0);
        assert_true(scraped(&open, "pdd_http_refused_total{limit=\"memory\"}") == 0);
        for (int i = 0; i < 10; i++)
            close(fds[i]);
        site_stop(&s);
    }
    site_init(&s);
    site_start(&s);
    struct site open = {.port = s.port};
    double started = scraped(&open, "process_start_time_seconds");
    assert_true(started > 1.7e9 && scraped(&open, "process_start_time_seconds") == started);
    assert_true(scraped(&open, "process_resident_memory_bytes") > 1e6);
    double open_fds = scraped(&open, "process_open_fds");
    assert_true(open_fds > 5 && open_fds <= scraped(&open, "process_max_fds"));
    assert_true(scraped(&open, "process_cpu_seconds_total") > 0);
    site_stop(&s);
}

enum { LOG_MAX = 4096 };

/* What is logged from begin_log to end_log, cut at its maximum. */
struct log_catch {
    FILE *file;
    int saved;
};

static void begin_log(struct log_catch *l)
{
    l->file = tmpfile();
    assert_non_null(l->file);
    l->saved = dup(STDERR_FILENO);
    dup2(fileno(l->file), STDERR_FILENO);
    log_set_level(LOG_INFO);
}

static void end_log(struct log_catch *l, char out[LOG_MAX])
{
    log_set_level(LOG_ERROR);
    dup2(l->saved, STDERR_FILENO);
    close(l->saved);
    rewind(l->file);
    out[fread(out, 1, LOG_MAX - 1, l->file)] = 0;
    fclose(l->file);
}

static void logged(bool json, char out[LOG_MAX])
{
    const struct log_field fields[] = {
        {"id", .text = "a \"b\"\\\n"}, {"n", .number = 42}, {"end", .text = "stop"}};
    struct log_catch l;
    begin_log(&l);
    log_set_json(json);
    log_fields(LOG_INFO, "cloud", "assist", fields, 3);
    log_set_json(false);
    end_log(&l, out);
}

/* Refusals, and an answer that the end of the process cuts, have their line; none tells a prompt or
 * a key. */
static void test_log_of_refusals(void **state)
{
    static const char bad[] = "{\"messages\":\"my words\"}";
    char path[sizeof KEYS_PATH], text[LOG_MAX];
    struct log_catch l;
    struct site s;
    struct client c;
    (void)state;
    site_init(&s);
    s.fake.answer_tokens = 1000;
    s.fake.step_us = 5000;
    begin_log(&l);
    site_start(&s);
    ask(&s, 1000, &c);
    client_until(&c, 3);
    site_stop(&s);
    client_close(&c);
    write_keys(path);
    site_init(&s);
    s.config.keys_path = path;
    log_set_level(LOG_INFO);
    site_start(&s);
    (void)site_ask(&s, "POST", "/v1/chat/completions?q=hidden", "wrong", bad, NULL);
    (void)site_ask(&s, "POST", "/v1/chat/completions", "secret", bad, NULL);
    (void)site_ask(&s, "GET", "/v1/models/none", "secret", "", NULL);
    site_stop(&s);
    end_log(&l, text);
    unlink(path);
    assert_non_null(strstr(text, " end=stopped "));
    assert_non_null(strstr(text, "refused request=req-"));
    assert_non_null(strstr(text, " method=POST path=/v1/chat/completions from=127.0.0.1 "
                                 "key=- status=401 reason=invalid_api_key\n"));
    assert_non_null(strstr(text, " key=page status=400 reason=bad_input\n"));
    assert_non_null(strstr(text, " status=404 reason=model_not_found\n"));
    assert_null(strstr(text, "words"));
    assert_null(strstr(text, "secret"));
    assert_null(strstr(text, "wrong"));
    assert_null(strstr(text, "hidden"));
}

/* The answer to a head whose body does not come. */
static void ask_without_body(const struct site *s, const char *path, const char *key, uint32_t n,
                             struct buf *ret_raw)
{
    struct buf b;
    buf_init(&b, 1024);
    assert_int_equal(buf_printf(&b,
                                "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                                "Expect: 100-continue\r\nContent-Length: %u\r\n\r\n",
                                path, key, n),
                     0);
    raw_ask(s->port, b.data, ret_raw);
    buf_release(&b);
}

/* A body is refused before it comes, counted and logged: of whoever has no key, and beyond what all
 * bodies may hold. */
static void test_refused_bodies(void **state)
{
    static const char *const posts[] = {"/v1/assist", "/v1/chat/completions", "/v1/completions",
                                        "/tokenize", "/detokenize"};
    char path[sizeof KEYS_PATH], text[LOG_MAX];
    struct log_catch l;
    struct site s;
    struct buf b;
    (void)state;
    write_keys(path);
    site_init(&s);
    s.config.keys_path = path;
    s.config.metrics_address = "127.0.0.1";
    s.config.http.bodies_max = 8192;
    begin_log(&l);
    site_start(&s);
    struct site open = {.port = server_metrics_port(s.server)};
    for (size_t i = 0; i < sizeof posts / sizeof *posts; i++) {
        ask_without_body(&s, posts[i], "wrong", 20000, &b);
        assert_memory_equal(b.data, "HTTP/1.1 401 ", 13);
        buf_release(&b);
    }
    expect_soon(&open, "pdd_requests_refused_total{reason=\"unauthorised\"}", 5);
    ask_without_body(&s, "/tokenize", "secret", 20000, &b);
    assert_memory_equal(b.data, "HTTP/1.1 503 ", 13);
    assert_non_null(strstr(b.data, "overloaded"));
    buf_release(&b);
    expect_soon(&open, "pdd_http_refused_total{limit=\"bodies\"}", 1);
    expect_soon(&open, "pdd_http_body_bytes", 0);
    site_stop(&s);
    end_log(&l, text);
    unlink(path);
    assert_non_null(strstr(text, " method=POST path=/tokenize from=127.0.0.1 key=page "
                                 "status=503 reason=bodies\n"));
}

static void test_log(void **state)
{
    char line[LOG_MAX];
    (void)state;
    logged(false, line);
    assert_non_null(strstr(line, "cloud assist id=\"a \\\"b\\\"\\\\\\u000a\" n=42 end=stop\n"));
    logged(true, line);
    json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "id")), "a \"b\"\\\n");
    assert_int_equal(json_integer_value(json_object_get(root, "n")), 42);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_is_well_formed), cmocka_unit_test(test_requests_are_counted),
        cmocka_unit_test(test_engine_is_counted),   cmocka_unit_test(test_keys_guard_the_page),
        cmocka_unit_test(test_limits_and_process),  cmocka_unit_test(test_log),
        cmocka_unit_test(test_log_of_refusals),     cmocka_unit_test(test_refused_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
