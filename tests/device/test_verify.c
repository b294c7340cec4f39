/*
 * test_verify: the verified handover. A device compares the tokens of a cloud whose numerics are
 * not its own with what it would have drawn: a scripted cloud that lies, a real cloud with another
 * KV type, and a real llama-server (skipped, and counted, where none is found in PATH) by ids and
 * by text.
 *
 * Catches: a lie that is not noticed, or at another token than it was; tokens after it that are
 * still shown; shown text taken back; a device that goes on with another token than its own draw;
 * a true token called false.
 */
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "device/device.h"
#include "engine/emulated.h"
#include "engine/fake.h"
#include "engine/native.h"
#include "support/cloud_fixture.h"
#include "support/script_cloud.h"

#define MODEL PDD_SOURCE_DIR "/models/pdd-read-small-q6_k.gguf"

enum { N = 12, ATTEMPTS = 6, ANSWER = 60, SERVER_WAIT_US = 60000000 };

static const char question[] =
    "The island of Marrow has one harbour, two shops and a school with nine children. The ferry "
    "comes on Mondays and Fridays when the weather allows it. Anna Marsh owns the boat Edward, "
    "which was built of oak in Port Haven. The teacher is Clara Voss, and Julia Stone is a "
    "painter. In winter the men mend the sea wall, and the keeper of the light writes down every "
    "ship that passes in a book that his father began.\n\nWhat does the text say about the island? "
    "Answer in a sentence.";
static const char story[] = "the lamp was lit at dusk and burned till morning";
static const struct sampling greedy = SAMPLING_GREEDY;
static const struct sampling seeded = {.temperature = 0.9f,
                                       .top_k = 40,
                                       .top_p = 0.95f,
                                       .repeat_penalty = 1.1f,
                                       .repeat_last = 32,
                                       .seed = 7};

static int ask(struct device *d, const struct sampling *s, enum pace_mode pace,
               enum device_verify verify, struct device_report *r)
{
    struct chat_message m = {"user", question, sizeof question - 1};
    struct device_question q = {.messages = &m,
                                .n_messages = 1,
                                .sampling = *s,
                                .tokens_max = ANSWER,
                                .pace = pace,
                                .cloud_tokens = N,
                                .verify = verify};
    return device_ask(d, &q, r, NULL);
}

static struct engine *open_fake(double us)
{
    struct engine *e;
    struct fake_options o = {.script = story, .prefill_us_per_token = us};
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    return e;
}

/* ---- a cloud that lies ---- */

/* What must hold of an answer in which token `lie` was wrong. */
static void check_lie(const struct device_report *r, const struct single_answer *want, uint32_t lie)
{
    const struct turn_report *t = &r->turn;
    assert_true(t->verifying && t->differs);
    assert_int_equal(t->difference, lie);
    assert_int_equal(r->n, want->tokens.len);
    for (uint32_t i = 0; i < r->n; i++)
        if (i != lie) assert_int_equal(r->tokens[i].id, want->tokens.ids[i]);
    if (r->tokens[lie].source == TURN_DEVICE) { /* it was not shown yet, nor what followed */
        assert_int_equal(r->tokens[lie].id, want->tokens.ids[lie]);
        assert_int_equal(t->handover, lie);
        assert_int_equal(t->verified, lie);
        assert_int_equal(t->dropped, t->received - lie);
    } else {
        assert_int_equal(r->tokens[lie].id, want->tokens.ids[lie] + 1);
        assert_int_equal(t->verified + t->dropped + 1, t->received);
    }
}

/* The device must be slow enough to get the lie; on a busy machine try slower. */
static bool lie_once(struct script_cloud *cloud, const struct single_answer *want, uint32_t lie,
                     enum pace_mode pace, enum wire_match match)
{
    struct device_report r;
    enum device_verify how = match == WIRE_EXACT ? DEVICE_VERIFY_ON : DEVICE_VERIFY_AUTO;
    double us = 100.0;
    bool kept = true;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++, us *= 3.0) {
        struct device *d;
        struct device_options o = {.engine = open_fake(us),
                                   .cloud_url = script_cloud_url(cloud),
                                   .prefill_tps = 1e6 / us,
                                   .decode_us = 30000.0};
        assert_int_equal(device_open(&o, &d, NULL), 0);
        assert_int_equal(ask(d, &seeded, pace, how, &r), 0);
        bool came = r.turn.received == N;
        if (came) {
            assert_int_equal(r.match, match);
            check_lie(&r, want, lie);
            kept = r.tokens[lie].source == TURN_CLOUD;
        }
        device_close(d);
        if (came) return kept;
    }
    fail_msg("the cloud never was ahead by %u tokens", lie);
    return false;
}

static void make_want(struct single_answer *want)
{
    struct engine *single = open_fake(0.0);
    single_answer_make(single, question, false, &seeded, ANSWER, want);
    engine_free(single);
}

static struct script script_of(const struct single_answer *a)
{
    return (struct script){.tokens = a->tokens.ids,
                           .n = a->tokens.len,
                           .ends = true,
                           .prompt_tokens = a->prompt.len,
                           .other_numerics = true};
}

static void test_liar_is_caught(void **state)
{
    (void)state;
    struct single_answer want;
    make_want(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    uint32_t kept = 0, dropped = 0;
    for (uint32_t lie = 0; lie < N; lie++) {
        s.lies = lie + 1;
        script_cloud_set(cloud, &s);
        assert_true(
            lie_once(cloud, &want, lie, PACE_OFF, WIRE_WEIGHTS)); /* all is shown as it comes */
        script_cloud_set(cloud, &s);
        if (lie_once(cloud, &want, lie, PACE_SMOOTH, WIRE_WEIGHTS))
            kept++;
        else
            dropped++;
    }
    assert_true(kept > 0); /* the first token is shown at once */
    assert_true(dropped > 0);
    s.other_numerics = false; /* a lie besides: that it is exact */
    s.lies = 4;
    script_cloud_set(cloud, &s);
    assert_true(lie_once(cloud, &want, 3, PACE_OFF, WIRE_EXACT));
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

/* An honest one, and one that is not to be verified. */
static void test_honest(void **state)
{
    (void)state;
    struct single_answer want;
    make_want(&want);
    struct script s = script_of(&want);
    struct script_cloud *cloud = script_cloud_start(&s);
    for (int how = 0; how < 3; how++) { /* verified; exact; switched off */
        struct device *d;
        struct device_report r;
        struct device_options o = {.engine = open_fake(400.0),
                                   .cloud_url = script_cloud_url(cloud),
                                   .prefill_tps = 2500.0,
                                   .decode_us = 1000.0};
        s.other_numerics = how != 1;
        script_cloud_set(cloud, &s);
        assert_int_equal(device_open(&o, &d, NULL), 0);
        assert_int_equal(
            ask(d, &seeded, PACE_OFF, how == 2 ? DEVICE_VERIFY_OFF : DEVICE_VERIFY_AUTO, &r), 0);
        assert_int_equal(r.n, want.tokens.len);
        assert_memory_equal(r.text, want.text.data, want.text.len);
        assert_true(r.turn.verifying == (how == 0 && r.any_match));
        assert_false(r.turn.differs);
        assert_int_equal(r.turn.verified, how == 0 ? r.turn.received : 0);
        if (r.any_match) assert_true((r.unverified[0] != 0) == (how == 2));
        device_close(d);
    }
    script_cloud_stop(cloud);
    single_answer_release(&want);
}

/* ---- clouds that compute ---- */

static struct engine *open_native(enum native_kv kv, bool slow)
{
    struct engine *e;
    struct native_options o = {
        .model_path = MODEL, .threads = 1, .context_max = 1024, .kv_type = kv};
    struct err err = ERR_INIT;
    if (native_open(&o, &e, &err)) fail_msg("%s", err.text);
    struct device_profile p = {"test", 200.0, 50.0, "made up", false};
    if (slow) engine_emulate(e, &p);
    return e;
}

/* Go through the answer again: every token of the device is its own draw, and as many of the
 * cloud's were verified as agree. */
static void replay(const struct device_report *r, const struct sampling *sampling)
{
    struct engine *e = open_native(NATIVE_KV_I16, false);
    struct single_answer a;
    struct session *s;
    uint32_t agree = 0;
    bool differs = false;
    single_answer_make(e, question, false, sampling, 1, &a);
    assert_int_equal(engine_session_open(e, &s, NULL), 0);
    session_set_sampling(s, sampling);
    struct engine_span span = {
        .session = s, .tokens = a.prompt.ids, .n = a.prompt.len, .sample = true};
    for (uint32_t i = 0; i < r->n; i++) {
        assert_int_equal(engine_step(e, &span, 1, NULL), 0);
        bool same = span.next == r->tokens[i].id;
        if (r->tokens[i].source == TURN_DEVICE) assert_true(same);
        if (r->tokens[i].source == TURN_CLOUD) agree += same;
        if (!same && !differs) assert_int_equal(r->turn.difference, i);
        differs |= !same;
        span.tokens = &r->tokens[i].id;
        span.n = 1;
    }
    assert_true(!differs || r->turn.differs);
    assert_int_equal(r->turn.verified, agree);
    engine_session_close(s);
    single_answer_release(&a);
    engine_free(e);
}

static void ask_and_replay(const char *url, const struct sampling *sampling,
                           enum device_verify verify, enum wire_match match)
{
    struct device *d;
    struct device_report r;
    struct device_options o = {.engine = open_native(NATIVE_KV_I16, true),
                               .cloud_url = url,
                               .prefill_tps = 200.0,
                               .decode_us = 20000.0};
    /* On a busy machine one end may be done before the other begins. */
    for (int i = 0; i < ATTEMPTS; i++) {
        assert_int_equal(device_open(&o, &d, NULL), 0);
        assert_int_equal(ask(d, sampling, PACE_SMOOTH, verify, &r), 0);
        if ((r.turn.received > 0 && r.turn.device_tokens > 0) || i + 1 == ATTEMPTS) break;
        device_close(d);
        o.engine = open_native(NATIVE_KV_I16, true);
    }
    assert_true(r.any_match);
    assert_int_equal(r.match, match);
    assert_true(r.turn.received > 0 && r.turn.device_tokens > 0);
    assert_true(r.turn.verifying);
    assert_true(r.turn.verified > 0);
    replay(&r, sampling);
    device_close(d);
}

static void test_other_kv_type(void **state)
{
    (void)state;
    struct cloud_fixture *cloud = cloud_fixture_start(open_native(NATIVE_KV_F16, false));
    ask_and_replay(cloud_fixture_url(cloud), &greedy, DEVICE_VERIFY_AUTO, WIRE_WEIGHTS);
    ask_and_replay(cloud_fixture_url(cloud), &seeded, DEVICE_VERIFY_AUTO, WIRE_WEIGHTS);
    cloud_fixture_stop(cloud);
}

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static bool answers(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_port = htons(port);
    bool yes = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return yes;
}

static pid_t start_llama(uint16_t port)
{
    char text[16];
    snprintf(text, sizeof text, "%u", port);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) _exit(127);
        execlp("llama-server", "llama-server", "-m", MODEL, "--alias", "pdd-read-small", "--host",
               "127.0.0.1", "--port", text, "-c", "2048", "-np", "1", "-t", "1", (char *)NULL);
        _exit(127);
    }
    for (uint64_t end = clock_us() + SERVER_WAIT_US; !answers(port);) {
        assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
        assert_true(clock_us() < end);
        clock_sleep_us(50000);
    }
    return child;
}

static void test_llama_server(void **state)
{
    (void)state;
    if (system("command -v llama-server >/dev/null 2>&1") != 0) skip();
    uint16_t port = free_port();
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    pid_t server = start_llama(port);
    struct cloud_fixture *ids = cloud_fixture_start_with_vocab(url, MODEL);
    ask_and_replay(cloud_fixture_url(ids), &greedy, DEVICE_VERIFY_ON, WIRE_TOKENS);
    cloud_fixture_stop(ids);
    struct cloud_fixture *text = cloud_fixture_start_before(url);
    ask_and_replay(cloud_fixture_url(text), &greedy, DEVICE_VERIFY_ON, WIRE_TEXT);
    cloud_fixture_stop(text);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_liar_is_caught),
        cmocka_unit_test(test_honest),
        cmocka_unit_test(test_other_kv_type),
        cmocka_unit_test(test_llama_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
