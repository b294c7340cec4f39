/*
 * test_turn: the state machine of an answer against a scripted cloud and device in virtual time.
 *
 * Catches: a token lost, repeated or shown out of order at a handover; a turn that never ends; an
 * action after the end; a socket asked for in local-only mode; a cloud that is not stopped; a stall
 * where the planner's N promised none. Every seed is one history, so a failure repeats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/plan.h"
#include "policy/turn.h"

enum fault {
    FAULT_NONE,
    FAULT_REFUSED,
    FAULT_CUT,
    FAULT_STALL,
    FAULT_REPEAT,
    FAULT_OTHER_TOKEN,
    FAULT_SKIP,
    FAULT_DRAIN,
    FAULTS
};

struct world {
    struct turn t;
    uint64_t now;
    uint32_t length; /* tokens before the end token */
    bool local_dies; /* the device fails at some point */
    uint64_t local_dies_at;
    /* cloud */
    bool cloud_open, saw_open;
    uint32_t cloud_next, cloud_limit, fault_at, opens;
    enum fault fault;
    uint64_t cloud_at, cloud_first_us, cloud_step_us;
    /* device */
    bool feeding;
    uint32_t feed_from, feed_to, chunk;
    uint64_t feed_at;
    double tps, decode_us;
    /* seen */
    uint32_t shown;
    bool over;
    enum turn_reason reason;
};

static int32_t truth(uint32_t i)
{
    return (int32_t)(i * 7 + 3);
}

static uint64_t chunk_us(const struct world *w)
{
    uint32_t n = w->feed_to - w->feed_from < w->chunk ? w->feed_to - w->feed_from : w->chunk;
    double prefill = n / w->tps * 1e6;
    return (uint64_t)(n == 1 && w->decode_us > prefill ? w->decode_us : prefill);
}

static void carry_out(struct world *w)
{
    struct turn_action a;
    while (turn_take(&w->t, &a)) {
        assert_false(w->over);
        switch (a.kind) {
        case TURN_DO_CLOUD_OPEN:
            assert_true(w->t.c.use_cloud);
            assert_false(w->cloud_open);
            assert_true(a.n >= 1 && w->t.n + a.n <= w->t.c.answer_max);
            w->cloud_open = w->saw_open = true;
            w->cloud_next = w->t.n;
            w->cloud_limit = w->t.n + a.n;
            w->cloud_at = w->now + w->cloud_first_us;
            if (w->opens++ > 0) w->fault = FAULT_NONE;
            break;
        case TURN_DO_CLOUD_EXTEND:
            w->cloud_limit = w->t.cloud_base + a.n;
            break;
        case TURN_DO_CLOUD_STOP:
            w->cloud_open = false;
            break;
        case TURN_DO_FEED:
            assert_true(w->t.c.use_local && !w->feeding && a.from < a.to);
            assert_int_equal(a.to, w->t.c.prompt_tokens + w->t.n);
            w->feeding = true;
            w->feed_from = a.from;
            w->feed_to = a.to;
            w->feed_at = w->now + chunk_us(w);
            break;
        case TURN_DO_LOCAL_PAUSE:
            fail(); /* nothing was refined */
            break;
        case TURN_DO_LOCAL_STOP:
            w->feeding = false;
            break;
        case TURN_DO_SHOW:
            assert_int_equal(a.n, w->shown++);
            assert_int_equal(w->t.tokens[a.n].id, truth(a.n));
            break;
        case TURN_DO_END:
            w->over = true;
            w->reason = a.reason;
            break;
        }
    }
}

static void cloud_faulty(struct world *w)
{
    switch (w->fault) {
    case FAULT_REFUSED:
    case FAULT_CUT:
        w->cloud_open = false;
        turn_cloud_lost(&w->t, w->now, "cut");
        break;
    case FAULT_STALL:
        w->cloud_at = UINT64_MAX;
        break;
    case FAULT_REPEAT: /* the same token again: harmless */
        w->fault = FAULT_NONE;
        if (w->cloud_next > w->t.cloud_base)
            turn_cloud_token(&w->t, w->now, w->cloud_next - 1, truth(w->cloud_next - 1));
        break;
    case FAULT_OTHER_TOKEN:
        w->fault = FAULT_NONE;
        if (w->cloud_next > w->t.cloud_base) turn_cloud_token(&w->t, w->now, w->cloud_next - 1, 1);
        break;
    case FAULT_SKIP:
        turn_cloud_token(&w->t, w->now, w->cloud_next + 1, truth(w->cloud_next + 1));
        break;
    default:
        w->cloud_open = false;
        turn_cloud_done(&w->t, w->now, TURN_CLOUD_GONE);
    }
}

static void cloud_step(struct world *w)
{
    if (w->fault != FAULT_NONE && w->cloud_next >= w->fault_at) {
        cloud_faulty(w);
    } else if (w->cloud_next == w->length) {
        w->cloud_open = false;
        turn_cloud_done(&w->t, w->now, TURN_CLOUD_STOP);
    } else if (w->cloud_next == w->cloud_limit) {
        w->cloud_open = false;
        turn_cloud_done(&w->t, w->now, TURN_CLOUD_BUDGET);
    } else {
        uint32_t i = w->cloud_next++;
        w->cloud_at = w->now + w->cloud_step_us;
        turn_cloud_token(&w->t, w->now, i, truth(i));
    }
}

static void device_step(struct world *w)
{
    uint32_t n = w->feed_to - w->feed_from < w->chunk ? w->feed_to - w->feed_from : w->chunk;
    w->feed_from += n;
    if (w->local_dies && w->now >= w->local_dies_at) {
        w->feeding = false;
        turn_local_failed(&w->t, w->now, "the device's engine failed");
    } else if (w->feed_from < w->feed_to) {
        w->feed_at = w->now + chunk_us(w);
        turn_local_progress(&w->t, w->now, w->feed_from);
    } else {
        uint32_t i = w->feed_to - w->t.c.prompt_tokens;
        w->feeding = false;
        turn_local_token(&w->t, w->now, truth(i), i == w->length);
    }
}

/* Run to the end; every event is at its own time. */
static void run(struct world *w)
{
    turn_start(&w->t, w->now);
    carry_out(w);
    for (int guard = 0; !w->over; guard++) {
        assert_true(guard < 200000);
        uint64_t cloud = w->cloud_open ? w->cloud_at : UINT64_MAX;
        uint64_t device = w->feeding ? w->feed_at : UINT64_MAX, wake = turn_wake(&w->t, w->now);
        uint64_t next = cloud < device ? cloud : device;
        next = wake < next ? wake : next;
        assert_true(next != UINT64_MAX);
        w->now = next > w->now ? next : w->now;
        if (next == cloud)
            cloud_step(w);
        else if (next == device)
            device_step(w);
        else
            turn_tick(&w->t, w->now);
        carry_out(w);
    }
    assert_false(w->cloud_open);
    assert_false(w->feeding);
}

static void world_init(struct world *w, struct rng *r, bool use_cloud, bool use_local)
{
    *w = (struct world){.now = 1000000};
    w->length = rng_below(r, 120);
    w->tps = 50.0 + rng_below(r, 2000);
    w->decode_us = 1000.0 + rng_below(r, 80000);
    w->chunk = 1 + rng_below(r, 256);
    w->cloud_first_us = 1000 + rng_below(r, 900000);
    w->cloud_step_us = 10 + rng_below(r, 60000);
    struct turn_config c = {.prompt_tokens = 1 + rng_below(r, 4000),
                            .answer_max = 1 + rng_below(r, 150),
                            .use_cloud = use_cloud,
                            .use_local = use_local,
                            .pace = (enum pace_mode)rng_below(r, 3),
                            .stall_us = 3000000,
                            .reopen_max = 3,
                            .rtt_us = 50000};
    c.kv_tokens = rng_below(r, c.prompt_tokens);
    c.cloud_tokens = use_local ? 1 + rng_below(r, c.answer_max) : c.answer_max;
    c.prefill_tps = use_local ? w->tps * (0.5 + (double)rng_next_uniform(r)) : 0.0;
    c.decode_us = use_local ? w->decode_us * (0.5 + (double)rng_next_uniform(r)) : 0.0;
    c.local_after = rng_below(r, 3) > 0 ? 0 : rng_below(r, 3) > 0 ? rng_below(r, 60) : UINT32_MAX;
    assert_int_equal(turn_init(&w->t, &c, NULL), 0);
}

static void check_whole_answer(struct world *w)
{
    uint32_t max = w->t.c.answer_max;
    assert_int_equal(w->shown, w->length < max ? w->length : max);
    assert_int_equal(w->reason, w->length < max ? TURN_STOP : TURN_LENGTH);
}

static void test_every_fault(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        struct rng r;
        struct world w;
        rng_init(&r, seed, 1);
        world_init(&w, &r, true, true);
        w.fault = (enum fault)(seed % FAULTS);
        w.fault_at = w.fault == FAULT_REFUSED ? 0 : rng_below(&r, w.length + 1);
        run(&w);
        check_whole_answer(&w);
        turn_release(&w.t);
    }
}

/* A device that is to begin later feeds nothing before, and begins then, or when the cloud is lost
 * or has sent all that it granted. */
static void test_device_begins_later(void **state)
{
    (void)state;
    for (uint32_t way = 0; way < 3; way++) {
        struct world w = {
            .now = 1000000, .length = 40, .tps = 816, .decode_us = 64103, .chunk = 128};
        struct turn_config c = {.prompt_tokens = 2000,
                                .answer_max = 100,
                                .use_cloud = true,
                                .use_local = true,
                                .cloud_tokens = way == 2 ? 3 : 100,
                                .local_after = way == 0 ? 5 : UINT32_MAX,
                                .prefill_tps = w.tps,
                                .decode_us = w.decode_us,
                                .stall_us = 3000000};
        assert_int_equal(turn_init(&w.t, &c, NULL), 0);
        turn_start(&w.t, w.now);
        carry_out(&w);
        for (uint32_t i = 0; i < (way == 0 ? 5 : 3); i++) {
            assert_false(w.feeding);
            turn_cloud_token(&w.t, w.now += 1000, i, truth(i));
            carry_out(&w);
        }
        assert_int_equal(w.feeding, way == 0);
        if (way == 1) turn_cloud_lost(&w.t, w.now += 1000, "cut");
        if (way == 2) turn_cloud_done(&w.t, w.now += 1000, TURN_CLOUD_BUDGET);
        carry_out(&w);
        assert_true(w.feeding);
        turn_user_stop(&w.t, ++w.now);
        carry_out(&w);
        turn_release(&w.t);
    }
}

static void test_cloud_only(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5000; seed++) {
        struct rng r;
        struct world w;
        rng_init(&r, seed, 2);
        world_init(&w, &r, true, false);
        w.fault = (enum fault)(seed % FAULTS);
        w.fault_at = rng_below(&r, w.length + 1);
        run(&w);
        check_whole_answer(&w);
        turn_release(&w.t);
    }
}

static void test_local_only(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5000; seed++) {
        struct rng r;
        struct world w;
        rng_init(&r, seed, 3);
        world_init(&w, &r, false, true);
        run(&w);
        check_whole_answer(&w);
        assert_false(w.saw_open);
        turn_release(&w.t);
    }
}

static void test_device_dies(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5000; seed++) {
        struct rng r;
        struct world w;
        rng_init(&r, seed, 4);
        world_init(&w, &r, true, true);
        w.local_dies = true;
        w.local_dies_at = w.now + rng_below(&r, 8000000);
        run(&w);
        check_whole_answer(&w);
        turn_release(&w.t);
    }
}

static void test_user_stops(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        struct rng r;
        struct world w;
        rng_init(&r, seed, 5);
        world_init(&w, &r, true, true);
        turn_start(&w.t, w.now);
        carry_out(&w);
        for (uint32_t i = rng_below(&r, 5); i > 0 && w.t.n < w.t.c.answer_max; i--) {
            turn_cloud_token(&w.t, ++w.now, w.t.n, truth(w.t.n));
            carry_out(&w);
        }
        if (!w.over) {
            turn_user_stop(&w.t, ++w.now);
            carry_out(&w);
            assert_true(w.over);
            assert_int_equal(w.reason, TURN_CANCELLED);
        }
        assert_false(w.cloud_open);
        assert_false(w.feeding);
        turn_tick(&w.t, ++w.now);
        turn_cloud_token(&w.t, ++w.now, w.t.n, 1);
        turn_local_token(&w.t, ++w.now, 1, false);
        assert_int_equal(w.t.n_actions, 0);
        turn_release(&w.t);
    }
}

/* With exact predictions and the planner's N there is no stall, and the pace stays close to D. */
static void test_planned_pace(void **state)
{
    (void)state;
    for (uint32_t prompt = 500; prompt <= 8000; prompt += 500) {
        struct world w = {
            .now = 1000000, .length = 3000, .tps = 816, .decode_us = 64103, .chunk = 128};
        struct plan plan;
        w.cloud_first_us = 250000;
        w.cloud_step_us = 2000;
        struct plan_input in;
        plan_input_init(&in, PLAN_EVEN);
        in.prompt_tokens = prompt;
        in.answer_max = in.length_known = 1000;
        in.device.prefill = (struct plan_speed){.us = 1e6 / w.tps, .spread = 0.05};
        in.device.decode.us = w.decode_us;
        in.cloud.known = true;
        in.cloud.first_us.mean = 250000;
        in.weights.wait_free_us = 0.0;
        plan_make(&in, &plan);
        assert_int_equal(plan.choice, PLAN_BOTH);
        struct turn_config c = {.prompt_tokens = prompt,
                                .answer_max = 1000,
                                .use_cloud = true,
                                .use_local = true,
                                .cloud_tokens = plan.cloud_tokens,
                                .pace = PACE_SMOOTH,
                                .prefill_tps = w.tps,
                                .decode_us = w.decode_us,
                                .rtt_us = 50000,
                                .stall_us = 3000000,
                                .reopen_max = 3};
        assert_int_equal(turn_init(&w.t, &c, NULL), 0);
        run(&w);
        struct turn_report r;
        turn_report_of(&w.t, &r);
        assert_int_equal(r.tokens, 1000);
        assert_int_equal(r.stalls, 0);
        assert_true(r.ttft_us < 251000);
        assert_true(r.tpot_max_us <= 1.1 * w.decode_us);
        assert_int_equal(r.cloud_opens, 1);
        assert_true(r.cloud_tokens < 1.6 * (prompt / w.tps * 1e6) / w.decode_us + 4);
        turn_release(&w.t);
    }
}

/* A prediction twice too good: the device is late, and more is borrowed in time. */
static void test_late_device_borrows_more(void **state)
{
    (void)state;
    struct world w = {.now = 1000000, .length = 3000, .tps = 400, .decode_us = 64103, .chunk = 64};
    struct turn_config c = {.prompt_tokens = 3000,
                            .answer_max = 600,
                            .use_cloud = true,
                            .use_local = true,
                            .cloud_tokens = 50,
                            .pace = PACE_SMOOTH,
                            .prefill_tps = 800,
                            .decode_us = w.decode_us,
                            .rtt_us = 50000,
                            .stall_us = 3000000,
                            .reopen_max = 3};
    w.cloud_first_us = 200000;
    w.cloud_step_us = 1000;
    assert_int_equal(turn_init(&w.t, &c, NULL), 0);
    run(&w);
    struct turn_report r;
    turn_report_of(&w.t, &r);
    assert_int_equal(r.tokens, 600);
    assert_int_equal(r.stalls, 0);
    assert_true(r.cloud_tokens > 50);
    turn_release(&w.t);
}

/* What a plan says binds: a slower pace needs fewer tokens, and no more are taken than it allows,
 * though the device is late then. */
static void test_pace_and_most_as_planned(void **state)
{
    static const struct {
        double pace_us;
        uint32_t most;
    } plans[] = {{0.0, 0}, {120000.0, 0}, {0.0, 20}};
    (void)state;
    uint32_t taken[3];
    for (int i = 0; i < 3; i++) {
        struct world w = {
            .now = 1000000, .length = 3000, .tps = 800, .decode_us = 64103, .chunk = 64};
        struct turn_config c = {.prompt_tokens = 6000,
                                .answer_max = 600,
                                .use_cloud = true,
                                .use_local = true,
                                .cloud_tokens = 20,
                                .cloud_most = plans[i].most,
                                .pace_us = plans[i].pace_us,
                                .pace = PACE_SMOOTH,
                                .prefill_tps = 800,
                                .decode_us = w.decode_us,
                                .rtt_us = 50000,
                                .stall_us = 3000000,
                                .reopen_max = 3};
        struct turn_report r;
        w.cloud_first_us = 200000;
        w.cloud_step_us = 1000;
        assert_int_equal(turn_init(&w.t, &c, NULL), 0);
        run(&w);
        turn_report_of(&w.t, &r);
        assert_int_equal(r.tokens, 600);
        taken[i] = r.cloud_tokens;
        turn_release(&w.t);
    }
    assert_true(taken[0] > 100);
    assert_true(taken[1] > 20 && taken[1] < 0.7 * taken[0]);
    assert_int_equal(taken[2], 20);
}

/* A cloud that only says that it lives: the last token again and again, or a prefill that gets on
 * and never ends. The one is silence; the other is borne for so long. */
static void test_no_life(void **state)
{
    (void)state;
    for (int progress = 0; progress < 2; progress++) {
        struct world w = {.now = 1000000};
        struct turn_config c = {.prompt_tokens = 100,
                                .answer_max = 50,
                                .use_cloud = true,
                                .cloud_tokens = 50,
                                .stall_us = 1000};
        assert_int_equal(turn_init(&w.t, &c, NULL), 0);
        turn_start(&w.t, w.now);
        carry_out(&w);
        turn_cloud_grant(&w.t, w.now, 50);
        if (!progress) turn_cloud_token(&w.t, w.now, 0, truth(0));
        carry_out(&w);
        uint64_t begun = w.now;
        for (uint32_t i = 1; !w.over && i < 1000000; i++) {
            w.now += 250;
            if (progress)
                turn_cloud_progress(&w.t, w.now, i);
            else
                turn_cloud_token(&w.t, w.now, 0, truth(0));
            turn_tick(&w.t, w.now);
            carry_out(&w);
        }
        uint64_t stalls = (w.now - begun) / c.stall_us;
        assert_true(w.over);
        assert_int_equal(w.reason, TURN_FAILED);
        assert_in_range(stalls, progress ? TURN_PROGRESS_STALLS : 1,
                        progress ? TURN_PROGRESS_STALLS + 3 : 3); /* it is asked once more */
        turn_release(&w.t);
    }
}

/* A refusal: asked again after its wait, when only the cloud can go on; never when it is final, or
 * the wait too long. */
static void test_refusals(void **state)
{
    static const struct {
        uint64_t wait_us;
        uint32_t opens;
    } cases[] = {
        {0, 3}, {2000000, 3}, {TURN_WAIT_MAX_US, 3}, {TURN_WAIT_MAX_US + 1, 1}, {UINT64_MAX, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w = {.now = 1000000};
        struct turn_config c = {.prompt_tokens = 100,
                                .answer_max = 50,
                                .use_cloud = true,
                                .cloud_tokens = 50,
                                .reopen_max = 2,
                                .stall_us = 1000000};
        assert_int_equal(turn_init(&w.t, &c, NULL), 0);
        turn_start(&w.t, w.now);
        carry_out(&w);
        while (!w.over) {
            uint32_t opens = w.t.cloud_opens;
            turn_cloud_refused(&w.t, w.now, cases[i].wait_us, "full");
            carry_out(&w);
            if (!w.over) assert_true((w.t.cloud_opens > opens) == (cases[i].wait_us == 0));
            if (w.over || cases[i].wait_us == 0) continue;
            assert_int_equal(turn_wake(&w.t, w.now), w.now + cases[i].wait_us);
            turn_tick(&w.t, w.now + cases[i].wait_us - 1); /* too early */
            carry_out(&w);
            assert_int_equal(w.t.cloud_opens, opens);
            w.now += cases[i].wait_us;
            turn_tick(&w.t, w.now);
            carry_out(&w);
            assert_int_equal(w.t.cloud_opens, opens + 1);
        }
        assert_int_equal(w.t.cloud_opens, cases[i].opens);
        assert_int_equal(w.reason, TURN_FAILED);
        assert_string_equal(w.t.error.text, "full");
        turn_release(&w.t);
    }
}

/* Who waits may leave. */
static void test_user_stops_waiting(void **state)
{
    (void)state;
    struct world w = {.now = 1000000};
    struct turn_config c = {.prompt_tokens = 100,
                            .answer_max = 50,
                            .use_cloud = true,
                            .cloud_tokens = 50,
                            .reopen_max = 2,
                            .stall_us = 1000000};
    struct turn_action action;
    assert_int_equal(turn_init(&w.t, &c, NULL), 0);
    turn_start(&w.t, w.now);
    carry_out(&w);
    turn_cloud_refused(&w.t, w.now, 5000000, "full");
    turn_user_stop(&w.t, w.now + 1);
    carry_out(&w);
    assert_true(w.over);
    assert_int_equal(w.reason, TURN_CANCELLED);
    turn_tick(&w.t, w.now + 6000000);
    assert_false(turn_take(&w.t, &action));
    turn_release(&w.t);
}

/* What a cloud with other numerics sends is compared, also when a choice of the prompt keeps all of
 * it; not when tokens are left out, and not by a later stream either. */
static void test_refined_and_verified(void **state)
{
    (void)state;
    uint8_t bits[4];
    for (int half = 0; half < 2; half++) {
        struct turn t;
        struct turn_report r;
        struct turn_config c = {.prompt_tokens = 32,
                                .answer_max = 8,
                                .use_cloud = true,
                                .use_local = true,
                                .cloud_tokens = 8,
                                .local_after = 1,
                                .prefill_tps = 100.0,
                                .decode_us = 1000.0,
                                .stall_us = 1000000};
        assert_int_equal(turn_init(&t, &c, NULL), 0);
        turn_start(&t, 0);
        turn_cloud_grant(&t, 1, 8);
        turn_cloud_verify(&t, 1);
        memset(bits, half ? 0x55 : 0xff, sizeof bits);
        turn_refined(&t, 2, bits);
        for (int again = 0; again < 2; again++) {
            turn_report_of(&t, &r);
            assert_true(r.refined == (half == 1) && r.verifying == (half == 0));
            turn_cloud_verify(&t, 3);
        }
        turn_release(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_user_stops_waiting),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_every_fault),
        cmocka_unit_test(test_device_begins_later),
        cmocka_unit_test(test_cloud_only),
        cmocka_unit_test(test_local_only),
        cmocka_unit_test(test_device_dies),
        cmocka_unit_test(test_user_stops),
        cmocka_unit_test(test_planned_pace),
        cmocka_unit_test(test_late_device_borrows_more),
        cmocka_unit_test(test_pace_and_most_as_planned),
        cmocka_unit_test(test_no_life),
        cmocka_unit_test(test_refined_and_verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
