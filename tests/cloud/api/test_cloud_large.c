/*
 * test_cloud_large: requests with large bodies, which helper threads parse and tokenise.
 *
 * Catches: a large body that keeps the loop from everybody else; one that is answered otherwise
 * than a small one that says the same; a client that leaves, or a server that ends, in the middle
 * of the work; jobs that keep large requests beyond the budget of bodies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "support/cloud_site.h"
#include "support/script_server.h"

/* PADDING: more than any body that is worked on at once. HEAVY: values that take a while. */
enum { PADDING = 80000, HEAVY = 200000, CONTEXT = 131072 };

static struct site sites[2];

static struct site *large_site(void)
{
    struct site *s = &sites[0];
    site_init(s);
    s->fake.context_max = CONTEXT;
    s->fake.answer_tokens = 20;
    s->config.metrics_address = "127.0.0.1";
    return s;
}

/* A front of `inner`, with a tokenizer of its own or without. */
static struct site *front_of(const struct site *inner, char url[64])
{
    struct site *s = &sites[1];
    site_init(s);
    snprintf(url, 64, "http://127.0.0.1:%u", inner->port);
    s->config.upstream.servers[0].url = url;
    s->config.upstream.n_servers = 1;
    site_start(s);
    site_await_ready(s, 200);
    return s;
}

/* `json` with blanks at its end. */
static void pad(const char *json, size_t n, struct buf *out)
{
    static char blanks[PADDING];
    memset(blanks, ' ', sizeof blanks);
    buf_init(out, RAW_MAX);
    assert_int_equal(buf_append(out, json, strlen(json)), 0);
    assert_int_equal(buf_append(out, blanks, n), 0);
}

/* The status and the body of the response. */
static int ask_padded(const struct site *s, const char *path, const char *json, size_t n,
                      struct buf *ret_text)
{
    struct buf body, raw;
    pad(json, n, &body);
    buf_init(&raw, RAW_MAX);
    int status = site_ask(s, "POST", path, NULL, body.data, &raw);
    const char *at = strstr(raw.data, "\r\n\r\n");
    buf_init(ret_text, RAW_MAX);
    if (at) buf_puts(ret_text, at + 4);
    buf_release(&body);
    buf_release(&raw);
    return status;
}

/* Blank what differs from one response to the next. */
static void blank_own(struct buf *text)
{
    static const char *const own[] = {"\"id\":\"", "\"created\":"};
    for (size_t i = 0; i < 2; i++) {
        char *from = strstr(text->data, own[i]);
        if (from) memset(from + strlen(own[i]), '-', strcspn(from + strlen(own[i]), "\",}"));
    }
}

static const struct {
    const char *path, *json;
} asks[] = {
    {"/v1/chat/completions",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"temperature\":0,\"max_tokens\":9}"},
    {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":7}]}"},
    {"/v1/chat/completions", "{\"model\":\"none\",\"messages\":[{\"role\":\"user\","
                             "\"content\":\"Hi\"}]}"},
    {"/v1/chat/completions", "{\"messages\":[{\"role\":\"robot\",\"content\":\"Hi\"}]}"},
    {"/v1/completions", "{\"prompt\":\"Once\",\"max_tokens\":9,\"temperature\":0}"},
    {"/v1/completions", "{\"prompt\":[65,66],\"max_tokens\":9,\"temperature\":0}"},
    {"/v1/completions", "{\"prompt\":[65,99999],\"max_tokens\":9}"},
    {"/v1/assist", "{\"prompt\":[65],\"tokens_max\":3}"},
    {"/v1/assist", "{\"prompt\":\"no\"}"},
    {"/tokenize", "{\"content\":\"Hello <|im_end|>\"}"},
    {"/tokenize", "{}"},
    {"/detokenize", "{\"tokens\":[72,101,256]}"},
    {"/detokenize", "{\"tokens\":[72,99999]}"},
    {"/detokenize", "{}"},
};

static void same_when_large(const struct site *s)
{
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        struct buf small, large;
        int status = ask_padded(s, asks[i].path, asks[i].json, 0, &small);
        int again = ask_padded(s, asks[i].path, asks[i].json, PADDING, &large);
        blank_own(&small);
        blank_own(&large);
        assert_true(status >= 200);
        if (status != again || strcmp(small.data, large.data) != 0)
            fail_msg("%s %s: %d %s\nlarge: %d %s", asks[i].path, asks[i].json, status, small.data,
                     again, large.data);
        buf_release(&small);
        buf_release(&large);
    }
}

static void test_same_answer(void **state)
{
    (void)state;
    char url[64];
    struct site *s = large_site();
    site_start(s);
    same_when_large(s);
    struct site *front = front_of(s, url);
    same_when_large(front);
    site_stop(front);
    site_stop(s);
}

/* A tokenisation whose body says many useless things, too. */
static void put_heavy(struct buf *b)
{
    buf_init(b, RAW_MAX);
    assert_int_equal(buf_puts(b, "{\"content\":\"x\",\"y\":["), 0);
    for (int i = 0; i < HEAVY; i++)
        buf_puts(b, "1,");
    assert_int_equal(buf_puts(b, "1]}"), 0);
}

static void wait_body_bytes(const struct site *s, size_t n)
{
    struct site metrics = {.port = server_metrics_port(s->server)};
    uint64_t until = clock_us() + SITE_WAIT_US;
    char line[64];
    snprintf(line, sizeof line, "\npdd_http_body_bytes %zu\n", n);
    for (bool there = false; !there;) {
        struct buf page;
        buf_init(&page, RAW_MAX);
        assert_int_equal(site_ask(&metrics, "GET", "/metrics", NULL, "", &page), 200);
        there = strstr(page.data, line) != NULL;
        buf_release(&page);
        assert_true(clock_us() < until);
    }
}

/* Send the body but for its last byte, and wait until the server has it. */
static void send_heavy(struct client *c, const struct site *s, const struct buf *body,
                       uint32_t others)
{
    char head[200];
    snprintf(head, sizeof head, "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
             body->len);
    client_open(c, s->port);
    raw_puts(c->fd, head);
    raw_send(c->fd, body->data, body->len - 1);
    wait_body_bytes(s, (body->len - 1) * (1 + others));
}

/* Who asks after a heavy request is answered before it. */
static void test_loop_goes_on(void **state)
{
    (void)state;
    struct site *s = large_site();
    struct client heavy, light;
    struct buf body;
    put_heavy(&body);
    site_start(s);
    send_heavy(&heavy, s, &body, 0);
    client_open(&light, s->port);
    raw_send(heavy.fd, body.data + body.len - 1, 1);
    client_send(&light, "GET", "/health", NULL, "", 0);
    while (!light.status)
        assert_true(client_read(&light, 1000));
    assert_false(raw_readable(heavy.fd, 0));
    while (!strstr(heavy.body.data, "\"count\":1,"))
        assert_true(client_read(&heavy, 1000));
    assert_int_equal(heavy.status, 200);
    client_close(&heavy);
    client_close(&light);
    buf_release(&body);
    site_stop(s);
}

/* The client goes while its request is worked on or waits for that; then the server does. */
static void test_leave_and_end(void **state)
{
    (void)state;
    enum { CLIENTS = 12 };
    static struct client all[CLIENTS];
    struct site *s = large_site();
    struct buf body, text;
    put_heavy(&body);
    for (int ends = 0; ends < 2; ends++) {
        site_start(s);
        for (int i = 0; i < CLIENTS; i++)
            send_heavy(&all[i], s, &body, (uint32_t)i);
        for (int i = 0; i < CLIENTS; i++)
            raw_send(all[i].fd, body.data + body.len - 1, 1);
        if (ends) {
            site_stop(s); /* before the clients have left */
            for (int i = 0; i < CLIENTS; i++)
                client_close(&all[i]);
            continue;
        }
        for (int i = 0; i < CLIENTS; i++)
            client_close(&all[i]);
        assert_int_equal(ask_padded(s, asks[0].path, asks[0].json, PADDING, &text), 200);
        buf_release(&text);
        site_stop(s);
    }
    buf_release(&body);
}

/* The log-probabilities of a whole answer of so many tokens. */
static json_t *ask_logprobs(const struct site *s, uint32_t tokens, const char *stop)
{
    char json[600];
    struct buf text;
    snprintf(json, sizeof json,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell a story.\"}],\"seed\":7,"
             "\"temperature\":2,\"logprobs\":true,\"top_logprobs\":20,\"max_tokens\":%u%s}",
             tokens, stop);
    assert_int_equal(ask_padded(s, asks[0].path, json, 0, &text), 200);
    json_t *root = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    json_t *rows = json_object_get(json_object_get(choice, "logprobs"), "content");
    assert_true(json_is_array(rows));
    json_incref(rows);
    json_decref(root);
    buf_release(&text);
    return rows;
}

/* ,"stop": the text of the tokens [from, to). */
static void put_stop(const json_t *rows, size_t from, size_t to, char *out, size_t size)
{
    char text[200] = "";
    for (size_t i = from; i < to; i++)
        strncat(text, json_string_value(json_object_get(json_array_get(rows, i), "token")), 30);
    json_t *value = json_string(text);
    char *quoted = json_dumps(value, JSON_ENCODE_ANY);
    snprintf(out, size, ",\"stop\":%s", quoted);
    free(quoted);
    json_decref(value);
}

/* A long response, which a helper thread writes, begins as a short one that the loop writes; one
 * that a stop string ended, too, whose job is still running then. */
static void test_large_response(void **state)
{
    (void)state;
    enum { FEW = 20, MANY = 130, STOP = 110 };
    char stop[300];
    struct site *s = large_site();
    s->native_path = PDD_SOURCE_DIR "/models/pdd-read-small-q6_k.gguf";
    site_start(s);
    json_t *few = ask_logprobs(s, FEW, ""), *many = ask_logprobs(s, MANY, "");
    assert_int_equal(json_array_size(few), FEW);
    assert_int_equal(json_array_size(many), MANY);
    put_stop(many, STOP, STOP + 5, stop, sizeof stop);
    json_t *stopped = ask_logprobs(s, 300, stop);
    assert_int_equal(json_array_size(stopped), STOP);
    for (size_t i = 0; i < STOP; i++) {
        if (i < FEW) assert_true(json_equal(json_array_get(few, i), json_array_get(many, i)));
        assert_true(json_equal(json_array_get(stopped, i), json_array_get(many, i)));
    }
    json_decref(few);
    json_decref(many);
    json_decref(stopped);
    site_stop(s);
}

/* ---- the memory of jobs ---- */

enum { JOB_BODY = 700000, JOB_BODY_MAX = 1000000 };

/* A front of scripted servers that has room for one job of JOB_BODY bytes from an address. */
static struct site *narrow_front(const struct script_server *a, const struct script_server *b)
{
    struct site *s = &sites[0];
    site_init(s);
    s->config.upstream.servers[s->config.upstream.n_servers++].url = a->url;
    if (b) s->config.upstream.servers[s->config.upstream.n_servers++].url = b->url;
    s->config.metrics_address = "127.0.0.1";
    s->config.http.body_max = JOB_BODY_MAX;
    s->config.http.bodies_per_address = JOB_BODY_MAX;
    site_start(s);
    site_await_ready(s, 200);
    return s;
}

static void put_chat(struct buf *b)
{
    static char text[JOB_BODY];
    memset(text, 'x', sizeof text);
    buf_init(b, RAW_MAX);
    buf_puts(b, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    buf_append(b, text, sizeof text - 200);
    assert_int_equal(buf_puts(b, "\"}],\"max_tokens\":3}"), 0);
}

static void begin_chat(struct client *c, const struct site *s, const struct buf *body)
{
    client_open(c, s->port);
    client_send(c, "POST", "/v1/chat/completions", NULL, body->data, body->len);
}

static void wait_begun(const struct script_server *a, unsigned n)
{
    uint64_t until = clock_us() + SITE_WAIT_US;
    while (atomic_load(&a->requests) < n) {
        assert_true(clock_us() < until);
        clock_sleep_us(1000);
    }
}

/* A large request counts while its job may send it; small ones go on, and it ends with the job. */
static void test_job_counts(void **state)
{
    (void)state;
    struct script_server a;
    struct client first, second;
    struct buf body;
    script_start(&a, "somebody");
    struct site *s = narrow_front(&a, NULL);
    put_chat(&body);
    atomic_store(&a.how, SCRIPT_STALL);
    begin_chat(&first, s, &body);
    wait_begun(&a, 1);
    wait_body_bytes(s, body.len);
    begin_chat(&second, s, &body);
    while (!second.status && client_read(&second, SITE_WAIT_US / 1000)) {
    }
    assert_int_equal(second.status, 429);
    client_close(&second);
    assert_int_equal(site_ask(s, "POST", "/v1/chat/completions", NULL, "{}", NULL), 400);
    client_close(&first);
    wait_body_bytes(s, 0);
    atomic_store(&a.how, SCRIPT_FINE);
    begin_chat(&second, s, &body);
    while (!second.status)
        assert_true(client_read(&second, SITE_WAIT_US / 1000));
    assert_int_equal(second.status, 200);
    client_close(&second);
    buf_release(&body);
    site_stop(s);
    script_stop(&a);
}

/* With its first token nothing is kept of it; a server that ends has nothing to give back twice. */
static void test_job_lets_go(void **state)
{
    (void)state;
    struct script_server a;
    struct client c;
    struct buf body;
    put_chat(&body);
    for (int after = 0; after < 2; after++) {
        script_start(&a, "somebody");
        struct site *s = narrow_front(&a, NULL);
        atomic_store(&a.how, SCRIPT_STALL);
        atomic_store(&a.after, after);
        begin_chat(&c, s, &body);
        wait_begun(&a, 1);
        wait_body_bytes(s, after ? 0 : body.len);
        site_stop(s);
        client_close(&c);
        script_stop(&a);
    }
    buf_release(&body);
}

/* While another server can be asked, the request is still there. */
static void test_job_asks_again(void **state)
{
    (void)state;
    struct script_server a, b;
    struct client c;
    struct buf body;
    put_chat(&body);
    for (int bad = 0; bad < 2; bad++) {
        script_start(&a, "somebody");
        script_start(&b, "somebody");
        struct site *s = narrow_front(&a, &b);
        struct script_server *which = bad ? &a : &b;
        atomic_store(&which->status, 500);
        atomic_store(&which->how, SCRIPT_STATUS);
        begin_chat(&c, s, &body);
        while (!c.status)
            assert_true(client_read(&c, SITE_WAIT_US / 1000));
        assert_int_equal(c.status, 200);
        client_close(&c);
        site_stop(s);
        script_stop(&a);
        script_stop(&b);
    }
    buf_release(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answer),    cmocka_unit_test(test_loop_goes_on),
        cmocka_unit_test(test_leave_and_end),  cmocka_unit_test(test_large_response),
        cmocka_unit_test(test_job_counts),     cmocka_unit_test(test_job_lets_go),
        cmocka_unit_test(test_job_asks_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
