/*
 * test_storm: many answers of `pdd chat` at once while their clouds are killed with SIGKILL and
 * started again, and a proxy before each wrecks the response at random bytes: cuts, resets, stalls,
 * garbage, repeats, delays. Over plain TCP, over TLS, and through a chain of two clouds with a
 * wrecker in front of each. What a device with an engine shows is what it shows alone, byte for
 * byte; one without an engine shows that, or the beginning of it and a sentence that says why.
 *
 *   test_storm [ANSWERS [SEED [AT_ONCE]]]      60, 1 and 12 when not asked otherwise
 *
 * A seed fixes questions and faults; the times of kills against them are the machine's.
 *
 * Catches: a token lost, repeated or believed that should not be; a wait that never ends; a client
 * or a server that a peer's bytes bring down.
 */
#include <poll.h>
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "support/net_raw.h"
#include "support/program.h"
#include "support/storm_proxy.h"
#include "support/tiny_model.h"
#include "support/tls_files.h"

enum {
    ANSWERS = 60, /* in all three storms, when not asked otherwise */
    AT_ONCE = 12,
    AT_ONCE_MAX = 64,
    QUESTIONS = 12,
    ARGS_MAX = 48,
    LATE_MS = 60000, /* an answer takes two or three seconds */
    KILL_MIN_MS = 400,
    KILL_MAX_MS = 4000,
    TOKENS = 24
};

static uint32_t answers = ANSWERS, at_once = AT_ONCE, struck_in_all, borrowed_in_all, kills_in_all;
static uint64_t seed = 1;

enum mode { PLAIN, TLS, CHAIN, MODES };
static const char *const mode_names[MODES] = {"plain", "TLS", "chain"};

/* A cloud of the storm: killed and started again at the same port. */
struct cloud {
    const char *args[ARGS_MAX];
    char listen[32];
    uint16_t port;
    struct program p;
};

struct storm {
    enum mode mode;
    uint32_t n; /* answers wanted */
    char model[TINY_PATH_MAX];
    struct tls_files files;
    struct cloud clouds[2]; /* the one that is asked, and of a chain the one behind it */
    unsigned n_clouds;
    struct storm_proxy *between;  /* of a chain */
    struct buf truths[QUESTIONS]; /* what a device alone shows */
    atomic_uint next;
    atomic_bool over;
    /* under the lock */
    pthread_mutex_t lock;
    uint32_t whole, alone, given_up, handovers, borrowed, kills, failures;
    uint32_t struck[STORM_FAULTS];
};

/* ---- one run of pdd chat ---- */

struct chat {
    const char *args[ARGS_MAX];
    unsigned n_args;
    struct buf out, err;
    int status; /* -1: it was killed; -2: late */
};

static void chat_arg(struct chat *c, const char *arg)
{
    CHECK(c->n_args + 1 < ARGS_MAX);
    c->args[c->n_args++] = arg;
    c->args[c->n_args] = NULL;
}

static void chat_option(struct chat *c, const char *name, const char *value)
{
    chat_arg(c, name);
    chat_arg(c, value);
}

/* Returns whether more may come. */
static bool take_output(int fd, struct buf *b)
{
    char bytes[4096];
    ssize_t n = read(fd, bytes, sizeof bytes);
    return n > 0 && buf_append(b, bytes, (size_t)n) == 0;
}

static void chat_run(struct chat *c)
{
    struct program p;
    uint64_t until = clock_us() + LATE_MS * 1000ull;
    int status;
    buf_init(&c->out, PROGRAM_OUTPUT_MAX);
    buf_init(&c->err, PROGRAM_OUTPUT_MAX);
    program_start(&p, "chat", c->args);
    struct pollfd fds[2] = {{p.out, POLLIN, 0}, {p.err, POLLIN, 0}};
    while ((fds[0].fd >= 0 || fds[1].fd >= 0) && clock_us() < until) {
        if (poll(fds, 2, 1000) <= 0) continue;
        if (fds[0].revents && !take_output(p.out, &c->out)) fds[0].fd = -1;
        if (fds[1].revents && !take_output(p.err, &c->err)) fds[1].fd = -1;
    }
    bool late = fds[0].fd >= 0 || fds[1].fd >= 0;
    if (late) kill(p.pid, SIGKILL);
    CHECK(waitpid(p.pid, &status, 0) == p.pid);
    c->status = late ? -2 : WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    close(p.in);
    close(p.out);
    close(p.err);
}

static void chat_release(struct chat *c)
{
    buf_release(&c->out);
    buf_release(&c->err);
}

/* ---- questions ---- */

static const char *const prompts[QUESTIONS / 2] = {
    "What did the keeper of clocks do before midnight, and why did he write down what he heard?",
    "A boy came in from the snow. Tell what he asked for, and what he was told that it would cost.",
    "List the wheels, the springs and the hands, in the order in which they were oiled.",
    "One clock ran backwards. Say when it stopped, who had made it, and who had wound it last.",
    "Write three lines about a harbour in winter: ice, lamps, and a ship that does not come.",
    "Which of the clocks was late, and what did it answer when it was asked?"};

/* What all questions are about: devices of emulated speeds read it for a second or two. */
static const char passage[] =
    "Long ago, in a house beside the harbour, there lived a keeper of clocks who never slept "
    "before "
    "midnight. He oiled the wheels, wound the springs and listened, and when one of them was late "
    "he asked it why. The clocks answered in their own way, which was to tick, and he wrote down "
    "what he believed that they had said. One winter a boy came in from the snow and asked whether "
    "there was a clock that ran backwards. There was one, said the keeper.";

static void ask(struct chat *c, uint32_t question)
{
    *c = (struct chat){0};
    chat_option(c, "--system", passage);
    chat_option(c, "--prompt", prompts[question / 2]);
    chat_option(c, "--max-tokens", "24");
    if (question % 2) chat_option(c, "--temperature", "0.9");
    if (question % 2) chat_option(c, "--seed", "11");
}

static void ask_with_engine(struct chat *c, const struct storm *s, const char *profile)
{
    chat_option(c, "--model", s->model);
    chat_option(c, "--chat-template", "chatml");
    chat_option(c, "--threads", "1");
    if (profile) chat_option(c, "--profile", profile);
}

static void ask_cloud(struct chat *c, const struct storm *s, char url[64], uint16_t port)
{
    snprintf(url, 64, "%s://127.0.0.1:%u", s->mode == TLS ? "https" : "http", port);
    chat_option(c, "--cloud", url);
    if (s->mode == TLS) chat_option(c, "--ca-file", s->files.cert);
}

static void learn_truths(struct storm *s)
{
    for (uint32_t q = 0; q < QUESTIONS; q++) {
        struct chat c;
        ask(&c, q);
        ask_with_engine(&c, s, NULL);
        chat_arg(&c, "--local-only");
        chat_run(&c);
        if (c.status || c.out.len < 2) fail_msg("alone: %d, %s", c.status, c.err.data);
        s->truths[q] = c.out;
        buf_release(&c.err);
    }
}

/* ---- the clouds ---- */

static void cloud_start(struct cloud *c)
{
    char url[64];
    snprintf(c->listen, sizeof c->listen, "127.0.0.1:%u", c->port);
    program_start(&c->p, "cloud", c->args);
    program_line_after(&c->p, "listening on ", url, sizeof url);
    c->port = (uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10);
}

static void cloud_args(struct cloud *c, const char *const *args)
{
    unsigned n = 0;
    c->args[n++] = "--listen";
    c->args[n++] = c->listen;
    c->args[n++] = "--log-level";
    c->args[n++] = "error";
    while (*args)
        c->args[n++] = *args++;
    c->args[n] = NULL;
}

static void start_engine_cloud(struct storm *s, struct cloud *c)
{
    const char *const plain[] = {"--model", s->model,    "--chat-template", "chatml", "--threads",
                                 "1",       "--profile", "m3-max",          NULL};
    const char *const tls[] = {
        "--model", s->model,     "--chat-template", "chatml",    "--threads",  "1", "--profile",
        "m3-max",  "--tls-cert", s->files.cert,     "--tls-key", s->files.key, NULL};
    cloud_args(c, s->mode == TLS ? tls : plain);
    cloud_start(c);
}

static void wait_ready(uint16_t port)
{
    uint64_t until = clock_us() + LATE_MS * 1000ull;
    bool ready = false;
    while (!ready && clock_us() < until) {
        struct buf b;
        raw_ask(port, "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &b);
        ready = strncmp(b.data, "HTTP/1.1 200", 12) == 0;
        buf_release(&b);
        if (!ready) clock_sleep_us(20000);
    }
    assert_true(ready);
}

/* The front has little patience with a server that stalls, and asks again after its health. */
static void start_chain(struct storm *s, char url[64])
{
    start_engine_cloud(s, &s->clouds[1]);
    struct storm_plan plan = {.seed = seed + 7,
                              .to_port = s->clouds[1].port,
                              .fault_of = 4,
                              .bytes = 6000,
                              .stall_ms = 300};
    s->between = storm_proxy_start(&plan);
    snprintf(url, 64, "http://127.0.0.1:%u", storm_proxy_port(s->between));
    cloud_args(&s->clouds[0], ARGS("--upstream", url, "--upstream-timeout", "1"));
    cloud_start(&s->clouds[0]);
    wait_ready(s->clouds[0].port);
}

static void *kill_and_start(void *arg)
{
    struct storm *s = arg;
    struct rng r;
    rng_init(&r, seed, 1u + (uint32_t)s->mode);
    while (!atomic_load(&s->over)) {
        uint32_t ms = KILL_MIN_MS + rng_below(&r, KILL_MAX_MS - KILL_MIN_MS);
        for (; ms > 0 && !atomic_load(&s->over); ms -= ms < 20 ? ms : 20)
            clock_sleep_us(20000);
        struct cloud *c = &s->clouds[rng_below(&r, s->n_clouds)];
        program_kill(&c->p, SIGKILL);
        clock_sleep_us(rng_below(&r, 300) * 1000);
        cloud_start(c);
        pthread_mutex_lock(&s->lock);
        s->kills++;
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* ---- an answer in the storm ---- */

static uint32_t number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? (uint32_t)strtoul(at + strlen(name), NULL, 10) : 0;
}

/* The report of an answer: how much of it was the cloud's. */
static void note_report(struct storm *s, const char *path)
{
    char text[4096];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    const char *counts = strstr(text, "\"tokens_total\"");
    if (!counts) return;
    s->borrowed += number_after(counts, "\"cloud_tokens\": ");
    s->handovers += number_after(text, "\"handover\": ") > 0;
}

static size_t without_line_end(const struct buf *b)
{
    return b->len > 0 && b->data[b->len - 1] == '\n' ? b->len - 1 : b->len;
}

/* The text of a cloud lacks a last character that never was whole; a device shows U+FFFD for it. */
static bool is_whole(const struct buf *got, const struct buf *want, bool engine)
{
    size_t n = without_line_end(got), all = without_line_end(want);
    while (!engine && all >= n + 3 && memcmp(want->data + all - 3, "\xEF\xBF\xBD", 3) == 0)
        all -= 3;
    return n == all && memcmp(got->data, want->data, n) == 0;
}

/* Who has no engine may have to give up: then what was shown is the beginning, and a reason told.
 */
static bool is_true(const struct chat *c, const struct buf *want, bool engine)
{
    if (c->status == 0) return is_whole(&c->out, want, engine);
    if (engine || c->status < 0 || c->err.len == 0) return false;
    size_t n = without_line_end(&c->out);
    return n <= want->len && memcmp(c->out.data, want->data, n) == 0;
}

static void judge(struct storm *s, uint32_t i, uint32_t question, const struct chat *c, bool engine)
{
    const struct buf *want = &s->truths[question];
    if (is_true(c, want, engine)) {
        s->whole += c->status == 0;
        s->alone += !engine && c->status == 0;
        s->given_up += c->status != 0;
        return;
    }
    s->failures++;
    fprintf(stderr,
            "%s, answer %u, question %u, %s engine: status %d\n  got:  %s  want: %s  said: %s\n",
            mode_names[s->mode], i, question, engine ? "with" : "without", c->status, c->out.data,
            want->data, c->err.data);
}

static void one_answer(struct storm *s, uint32_t i)
{
    static const char *const profiles[] = {"oneplus12-1b", "s24-ultra-gpu"};
    struct rng r;
    struct chat c;
    char url[64], n[16], report[64];
    rng_init(&r, seed, 1000u + i * MODES + (uint32_t)s->mode);
    uint32_t question = rng_below(&r, QUESTIONS);
    bool engine = rng_below(&r, 6) > 0;
    struct storm_plan plan = {.seed = seed * 1000003 + i * MODES + (uint64_t)s->mode,
                              .to_port = s->clouds[0].port,
                              .fault_of = engine ? 12 : 8,
                              .bytes = s->mode == TLS ? 6000 : 3000,
                              .stall_ms = engine && rng_below(&r, 2) ? 0 : 700};
    struct storm_proxy *p = storm_proxy_start(&plan);
    ask(&c, question);
    ask_cloud(&c, s, url, storm_proxy_port(p));
    snprintf(report, sizeof report, "/tmp/pdd-storm-%d-%u.json", (int)getpid(), i);
    snprintf(n, sizeof n, "%u", 1 + rng_below(&r, TOKENS));
    if (engine) {
        ask_with_engine(&c, s, profiles[rng_below(&r, 2)]);
        chat_option(&c, "--cloud-tokens", n);
        chat_option(&c, "--stats-json", report);
    } else {
        chat_arg(&c, "--no-model");
    }
    if (rng_below(&r, 3) > 0) chat_option(&c, "--pace", "off");
    chat_run(&c);
    pthread_mutex_lock(&s->lock);
    judge(s, i, question, &c, engine);
    if (engine) note_report(s, report);
    storm_proxy_stop(p, s->struck);
    pthread_mutex_unlock(&s->lock);
    unlink(report);
    chat_release(&c);
}

static void *answer(void *arg)
{
    struct storm *s = arg;
    uint32_t i;
    while ((i = atomic_fetch_add(&s->next, 1)) < s->n)
        one_answer(s, i);
    return NULL;
}

/* ---- a storm ---- */

static void report(const struct storm *s)
{
    printf(
        "%s: %u answers: %u whole and as without a storm (%u of them with no engine of its own), "
        "%u given up in a sentence, %u wrong; %u handovers, %u tokens of clouds; %u kills;",
        mode_names[s->mode], s->n, s->whole, s->alone, s->given_up, s->failures, s->handovers,
        s->borrowed, s->kills);
    for (int f = 0; f < STORM_FAULTS; f++)
        printf(" %u %s%s", s->struck[f], storm_fault_names[f], f + 1 < STORM_FAULTS ? "," : "\n");
    fflush(stdout);
}

static void blow(struct storm *s)
{
    pthread_t killer, workers[AT_ONCE_MAX];
    CHECK(pthread_create(&killer, NULL, kill_and_start, s) == 0);
    for (uint32_t i = 0; i < at_once; i++)
        CHECK(pthread_create(&workers[i], NULL, answer, s) == 0);
    for (uint32_t i = 0; i < at_once; i++)
        pthread_join(workers[i], NULL);
    atomic_store(&s->over, true);
    pthread_join(killer, NULL);
}

static void storm(enum mode mode)
{
    static struct storm s;
    struct tiny_options tiny = TINY_DEFAULT;
    char url[64];
    memset(&s, 0, sizeof s);
    s.mode = mode;
    s.n = (answers + (uint32_t)mode) / MODES;
    s.n_clouds = mode == CHAIN ? 2 : 1;
    pthread_mutex_init(&s.lock, NULL);
    tiny_model_file(&tiny, s.model);
    tls_files_make(TLS_FILES_ECDSA, &s.files);
    if (mode == CHAIN)
        start_chain(&s, url);
    else
        start_engine_cloud(&s, &s.clouds[0]);
    learn_truths(&s);
    blow(&s);
    for (unsigned i = 0; i < s.n_clouds; i++)
        program_kill(&s.clouds[i].p, SIGKILL);
    if (s.between) storm_proxy_stop(s.between, s.struck);
    report(&s);
    unlink(s.model);
    tls_files_remove(&s.files);
    for (uint32_t q = 0; q < QUESTIONS; q++)
        buf_release(&s.truths[q]);
    for (int f = 0; f < STORM_FAULTS; f++)
        struck_in_all += s.struck[f];
    borrowed_in_all += s.borrowed;
    kills_in_all += s.kills;
    assert_int_equal(s.failures, 0);
}

static void test_plain(void **state)
{
    (void)state;
    storm(PLAIN);
}

static void test_tls(void **state)
{
    (void)state;
    storm(TLS);
}

static void test_chain(void **state)
{
    (void)state;
    storm(CHAIN);
}

/* Else all was well because nothing happened. */
static void test_there_was_a_storm(void **state)
{
    (void)state;
    if (kills_in_all == 0) skip(); /* there is no program */
    assert_true(struck_in_all > 0 && borrowed_in_all > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_there_was_a_storm),
    };
    if (argc > 1) answers = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2) seed = strtoull(argv[2], NULL, 10);
    if (argc > 3) at_once = (uint32_t)strtoul(argv[3], NULL, 10);
    if (at_once < 1 || at_once > AT_ONCE_MAX) at_once = AT_ONCE;
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
