/*
 * test_storm_device: answers of `pdd device` while a link that wrecks what the cloud sends lies
 * between both, and client, cloud and device are killed with SIGKILL and started again. A client
 * that lost its connection comes back with the index of the first token that it lacks. What all its
 * connections brought together is what the device alone answers: no token is lost, repeated or
 * wrong.
 *
 *   test_storm_device [ANSWERS [SEED [AT_ONCE]]]      16, 1 and 6 when not asked otherwise
 *
 * A seed fixes questions and faults; the times of kills against them are the machine's.
 *
 * Catches: a token that a client got and a restarted device does not know; an answer that goes on
 * otherwise after a restart; two answers to one question; KV pages on disk that a kill left half
 * written; a wait that never ends.
 */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "support/net_raw.h"
#include "support/program.h"
#include "support/storm_proxy.h"
#include "support/tiny_model.h"

enum {
    ANSWERS = 16,
    AT_ONCE = 6,
    AT_ONCE_MAX = 64,
    QUESTIONS = 8, /* by prompt and sampling; each answer has a text of its own besides */
    TOKENS = 24,
    ARGS_MAX = 40,
    LATE_US = 120000000, /* an answer takes one or two seconds, and starts again a few times */
    READ_MS = 3000,      /* longer silence: come back */
    KILL_MIN_MS = 500,
    KILL_MAX_MS = 5000
};

static uint32_t answers = ANSWERS, at_once = AT_ONCE;
static uint64_t seed = 1;

/* A server that is killed and started again at the same port. */
struct server {
    const char *command, *args[ARGS_MAX], *told; /* told: what its URL follows in its first line */
    char listen[32];
    uint16_t port;
    struct program p;
};

static struct storm {
    char model[TINY_PATH_MAX], state[64], url[64];
    struct server cloud, device, truth; /* truth: a device alone, with no state, left in peace */
    struct storm_proxy *link;
    atomic_uint next;
    atomic_bool over;
    pthread_mutex_t lock;
    uint32_t whole, failures, attempts, leaves, resumed, handovers, kills[2];
    uint32_t struck[STORM_FAULTS];
} storm;

/* ---- servers ---- */

static void server_start(struct server *s)
{
    char url[64];
    snprintf(s->listen, sizeof s->listen, "127.0.0.1:%u", s->port);
    program_start(&s->p, s->command, s->args);
    program_line_after(&s->p, s->told, url, sizeof url);
    if (!s->port) s->port = (uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10); /* keeps it */
}

static void server_init(struct server *s, const char *command, const char *told,
                        const char *const *args)
{
    unsigned n = 0;
    s->command = command;
    s->told = told;
    s->args[n++] = "--listen";
    s->args[n++] = s->listen;
    s->args[n++] = "--log-level";
    s->args[n++] = "error";
    while (*args)
        s->args[n++] = *args++;
    s->args[n] = NULL;
    server_start(s);
}

static void start_all(void)
{
    struct tiny_options tiny = TINY_DEFAULT;
    tiny_model_file(&tiny, storm.model);
    snprintf(storm.state, sizeof storm.state, "/tmp/pdd-storm-XXXXXX");
    assert_non_null(mkdtemp(storm.state));
    server_init(&storm.cloud, "cloud", "cloud listening on ",
                ARGS("--model", storm.model, "--chat-template", "chatml", "--threads", "1",
                     "--profile", "m3-max"));
    server_init(&storm.truth, "device", "device listening on ",
                ARGS("--model", storm.model, "--chat-template", "chatml", "--threads", "1",
                     "--local-only", "--no-state", "--answers-max", "8"));
    struct storm_plan plan = {
        .seed = seed, .to_port = storm.cloud.port, .fault_of = 12, .bytes = 4000, .stall_ms = 700};
    storm.link = storm_proxy_start(&plan);
    snprintf(storm.url, sizeof storm.url, "http://127.0.0.1:%u", storm_proxy_port(storm.link));
    server_init(&storm.device, "device", "device listening on ",
                ARGS("--model", storm.model, "--chat-template", "chatml", "--threads", "1",
                     "--profile", "s24-ultra-gpu", "--cloud", storm.url, "--state", storm.state,
                     "--answers-max", "12", "--queue-max", "128", "--refine", "off"));
}

static void *kill_and_start(void *arg)
{
    struct server *servers[2] = {&storm.cloud, &storm.device};
    struct rng r;
    (void)arg;
    rng_init(&r, seed, 7);
    while (!atomic_load(&storm.over)) {
        uint32_t ms = KILL_MIN_MS + rng_below(&r, KILL_MAX_MS - KILL_MIN_MS);
        for (; ms > 0 && !atomic_load(&storm.over); ms -= ms < 20 ? ms : 20)
            clock_sleep_us(20000);
        uint32_t which = rng_below(&r, 3) == 0; /* the device every third time */
        program_kill(&servers[which]->p, SIGKILL);
        clock_sleep_us(rng_below(&r, 300) * 1000);
        server_start(servers[which]);
        storm.kills[which]++;
    }
    return NULL;
}

/* ---- a client ---- */

static const char *const prompts[QUESTIONS / 2] = {
    "What did the keeper of clocks do before midnight, and why did he write down what he heard?",
    "List the wheels, the springs and the hands, in the order in which they were oiled.",
    "Write three lines about a harbour in winter: ice, lamps, and a ship that does not come.",
    "Which of the clocks was late, and what did it answer when it was asked?"};

/* Long enough for the cloud to be ahead, short enough to be read between two kills. */
static const char passage[] =
    "In a house beside the harbour there lived a keeper of clocks who never slept before midnight. "
    "He oiled the wheels, wound the springs and listened.";

struct client {
    char id[32];
    uint32_t number, question, cloud_tokens;
    uint16_t port;
    struct buf text; /* as in JSON, of all tokens so far */
    uint32_t n;      /* tokens */
    bool done, wrong;
    char why[256];
    struct rng r;
};

static void say_wrong(struct client *c, const char *what, const char *event)
{
    c->wrong = true;
    snprintf(c->why, sizeof c->why, "%s (token %u is next): %.160s", what, c->n, event);
}

static void take_event(struct client *c, const char *event)
{
    static const char content[] = "\"content\":\"", after[] = "\"},\"logprobs\"";
    const char *index = strstr(event, "\"pdd\":{\"index\":"), *text = strstr(event, content);
    if (strstr(event, "\"error\":{")) say_wrong(c, "an error", event);
    if (strstr(event, "\"finish_reason\":\"")) {
        c->done = true;
        const char *resumed = strstr(event, "\"resumed\":"), *over = strstr(event, "\"handover\":");
        pthread_mutex_lock(&storm.lock);
        storm.resumed += resumed && strtoul(resumed + 10, NULL, 10) > 0;
        storm.handovers += over && strtoul(over + 11, NULL, 10) > 0;
        pthread_mutex_unlock(&storm.lock);
    }
    if (!index || !text) return;
    uint32_t first = (uint32_t)strtoul(index + 15, NULL, 10);
    uint32_t n = (uint32_t)strtoul(strstr(index, "\"n\":") + 4, NULL, 10);
    if (first != c->n) {
        say_wrong(c, "a token is lost or repeated", event);
        return;
    }
    text += sizeof content - 1;
    const char *end = strstr(text, after);
    if (!end) {
        say_wrong(c, "no text", event);
        return;
    }
    buf_append(&c->text, text, (size_t)(end - text));
    c->n += n;
}

/* Whole events of what was received; what remains begins the next one. */
static void take_events(struct client *c, struct buf *b)
{
    for (char *end; !c->wrong && (end = strstr(b->data, "\n\n")) != NULL;) {
        *end = 0;
        char *event = strstr(b->data, "data: ");
        if (event) take_event(c, event);
        buf_consume(b, (size_t)(end + 2 - b->data));
    }
}

static int try_connect(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = raw_socket();
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static void send_question(struct client *c, int fd)
{
    char body[2048], head[256];
    const char *sampling =
        c->question % 2 ? "\"temperature\":0.9,\"seed\":11" : "\"temperature\":0";
    int n = snprintf(
        body, sizeof body,
        "{\"stream\":true,\"max_tokens\":%d,%s,\"messages\":[{\"role\":\"system\","
        "\"content\":\"Tale %u. %s\"},{\"role\":\"user\",\"content\":\"%s\"}],\"pdd\":{\"id\":"
        "\"%s\",\"keep\":600,\"pace\":\"%s\",\"cloud_tokens\":%u,\"mode\":\"%s\"}}",
        TOKENS, sampling, c->number, passage, prompts[c->question / 2], c->id,
        c->cloud_tokens % 2 ? "off" : "smooth", c->cloud_tokens,
        c->cloud_tokens ? "auto" : "local");
    snprintf(head, sizeof head,
             "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-PDD-Client: %u\r\n"
             "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n",
             rng_below(&c->r, 4), n);
    if (raw_puts(fd, head)) (void)raw_puts(fd, body);
}

static void send_resume(const struct client *c, int fd)
{
    char head[256];
    snprintf(head, sizeof head,
             "GET /v1/answers/%s?from=%u&stream=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", c->id,
             c->n);
    (void)raw_puts(fd, head);
}

/* One connection. `leave_after`: the client dies when so many tokens have come. Returns the HTTP
 * status; 0: none came. */
static int follow(struct client *c, bool ask, uint32_t leave_after)
{
    char piece[16384];
    struct buf b;
    int status = 0, fd = try_connect(c->port);
    if (fd < 0) return 0;
    buf_init(&b, RAW_MAX);
    if (ask)
        send_question(c, fd);
    else
        send_resume(c, fd);
    while (!c->done && !c->wrong && c->n < leave_after && raw_readable(fd, READ_MS)) {
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0 || buf_append(&b, piece, (size_t)n)) break;
        if (status == 0 && b.len > 12) status = (int)strtol(b.data + 9, NULL, 10);
        if (status == 200) take_events(c, &b);
        if (status && status != 200) break;
    }
    close(fd);
    buf_release(&b);
    return status;
}

static void run_client(struct client *c)
{
    uint64_t until = clock_us() + LATE_US;
    bool ask = true;
    while (!c->done && !c->wrong) {
        bool dies = rng_below(&c->r, 3) == 0;
        uint32_t leave = dies ? c->n + 1 + rng_below(&c->r, TOKENS / 2) : UINT32_MAX;
        int status = follow(c, ask, leave);
        pthread_mutex_lock(&storm.lock);
        storm.attempts++;
        storm.leaves += dies;
        pthread_mutex_unlock(&storm.lock);
        if (c->done || c->wrong) break;
        if (status == 400 && c->n > 0) say_wrong(c, "the device knows fewer tokens", "");
        ask = status == 404 || (ask && status == 0); /* the same id: never a second answer */
        if (status != 200) clock_sleep_us(30000);
        if (clock_us() > until) say_wrong(c, "too late", "");
    }
}

static void client_init(struct client *c, uint32_t i)
{
    *c = (struct client){0};
    buf_init(&c->text, RAW_MAX);
    rng_init(&c->r, seed, 1000 + i);
    snprintf(c->id, sizeof c->id, "s-%u-%u", (unsigned)seed, i);
    c->number = i;
    c->port = storm.device.port;
    c->question = rng_below(&c->r, QUESTIONS);
    c->cloud_tokens = 1 + rng_below(&c->r, TOKENS);
}

/* What a device says that has never seen a cloud, a kill or a file. */
static void learn_truth(uint32_t i, struct buf *text)
{
    struct client c;
    client_init(&c, i);
    c.port = storm.truth.port;
    c.cloud_tokens = 0;
    for (int tries = 0; !c.done && !c.wrong && tries < 100; tries++)
        if (follow(&c, true, UINT32_MAX) != 200) clock_sleep_us(30000); /* its queue is full */
    if (!c.done) say_wrong(&c, "the device alone does not answer", "");
    CHECK(c.done && !c.wrong); /* one token may be all */
    *text = c.text;
}

static void *answer(void *arg)
{
    uint32_t i;
    (void)arg;
    while ((i = atomic_fetch_add(&storm.next, 1)) < answers) {
        struct client c;
        struct buf want;
        learn_truth(i, &want);
        client_init(&c, i);
        run_client(&c);
        bool same =
            !c.wrong && c.text.len == want.len && memcmp(c.text.data, want.data, want.len) == 0;
        pthread_mutex_lock(&storm.lock);
        storm.whole += same;
        storm.failures += !same;
        if (!same)
            fprintf(stderr, "%s, question %u: %s\n  got:  %s\n  want: %s\n", c.id, c.question,
                    c.why, c.text.data, want.data);
        pthread_mutex_unlock(&storm.lock);
        buf_release(&c.text);
        buf_release(&want);
    }
    return NULL;
}

static void remove_state(void)
{
    char command[128];
    struct buf out;
    snprintf(command, sizeof command, "rm -rf %s", storm.state);
    (void)program_shell(command, &out);
    buf_release(&out);
}

static void test_storm(void **state)
{
    pthread_t killer, workers[AT_ONCE_MAX];
    (void)state;
    pthread_mutex_init(&storm.lock, NULL);
    start_all();
    CHECK(pthread_create(&killer, NULL, kill_and_start, NULL) == 0);
    for (uint32_t i = 0; i < at_once; i++)
        CHECK(pthread_create(&workers[i], NULL, answer, NULL) == 0);
    for (uint32_t i = 0; i < at_once; i++)
        pthread_join(workers[i], NULL);
    atomic_store(&storm.over, true);
    pthread_join(killer, NULL);
    program_kill(&storm.device.p, SIGKILL);
    program_kill(&storm.cloud.p, SIGKILL);
    program_kill(&storm.truth.p, SIGKILL);
    storm_proxy_stop(storm.link, storm.struck);
    printf(
        "%u answers: %u whole, %u wrong; %u connections, %u of them left by a client; %u answers "
        "went on after a restart, %u handovers; killed: cloud %u, device %u;",
        answers, storm.whole, storm.failures, storm.attempts, storm.leaves, storm.resumed,
        storm.handovers, storm.kills[0], storm.kills[1]);
    for (int f = 0; f < STORM_FAULTS; f++)
        printf(" %u %s%s", storm.struck[f], storm_fault_names[f],
               f + 1 < STORM_FAULTS ? "," : "\n");
    fflush(stdout);
    unlink(storm.model);
    remove_state();
    assert_int_equal(storm.failures, 0);
    assert_int_equal(storm.whole, answers);
    assert_true(storm.kills[0] + storm.kills[1] > 0 && storm.handovers > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_storm)};
    if (argc > 1) answers = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2) seed = strtoull(argv[2], NULL, 10);
    if (argc > 3) at_once = (uint32_t)strtoul(argv[3], NULL, 10);
    if (at_once < 1 || at_once > AT_ONCE_MAX) at_once = AT_ONCE;
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
