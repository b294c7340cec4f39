/*
 * test_turn_history: what a turn lets the device's KV cache hold, and what it lets a person see,
 * against a scripted cloud and device in virtual time. Two things are tried at every moment of
 * random histories: bitmaps of the needed prompt (refinement), and a cloud that errs where the
 * device compares (verified handover).
 *
 * Catches: a history that is no subsequence of prompt and answer, or lacks what must be kept; a
 * position computed twice; a choice that changes what was passed; shown text taken back; an error
 * called by another place than its own; a token of the device that is not its own draw.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/turn.h"

enum { PROMPT_MAX = 600, ANSWER_MAX = 120, VERSIONS = 2, GUARD = 200000 };

struct world {
    struct turn t;
    struct rng r;
    uint64_t now;
    uint32_t length;     /* of the answer */
    uint32_t err_one_in; /* the cloud errs at one of so many tokens; 0: never */
    /* what the device's session holds: token i of the prompt as -1 - i */
    int32_t kv[PROMPT_MAX + ANSWER_MAX];
    uint32_t kv_len, computed;
    bool feeding, pausing;
    uint32_t feed_to, n_draws, chunk;
    uint64_t feed_at, token_us;
    /* the cloud */
    bool open, gone;
    int32_t answer[ANSWER_MAX + 1]; /* its own */
    uint32_t next, limit, cut_at;   /* cut_at: it is lost there */
    uint64_t cloud_at, first_us, step_us;
    /* bitmaps */
    uint8_t bits[VERSIONS][PROMPT_MAX / 8 + 1];
    uint64_t bits_at[VERSIONS];
    uint32_t effect[VERSIONS]; /* how much of the prompt was passed when it took effect */
    uint32_t versions;         /* come so far */
    /* seen */
    int32_t shown[ANSWER_MAX];
    uint32_t n_shown;
    bool over;
    enum turn_reason reason;
};

/* What a machine draws after an answer's tokens so far. */
static int32_t draw(const int32_t *answer, uint32_t n)
{
    uint32_t h = 17 + n;
    for (uint32_t i = n > 3 ? n - 3 : 0; i < n; i++)
        h = (h ^ (uint32_t)answer[i]) * 2654435761u;
    return (int32_t)(h >> 8 & 0xffff);
}

static int32_t history_token(const struct world *w, uint32_t i)
{
    const struct turn *t = &w->t;
    return i < t->prompt_len ? -1 - (int32_t)turn_prompt_at(t, i) : t->tokens[i - t->prompt_len].id;
}

static void start_feed(struct world *w, const struct turn_action *a)
{
    assert_true(!w->feeding && a->from < a->to && a->from <= w->kv_len);
    assert_true(a->n <= a->to - a->from);
    w->kv_len = a->from;
    w->feeding = true;
    w->pausing = false;
    w->feed_to = a->to;
    w->n_draws = a->n;
    for (uint32_t i = 0; i < a->from; i++) /* what stays is what the turn believes */
        assert_int_equal(w->kv[i], history_token(w, i));
    w->feed_at = w->now + w->token_us * (a->to - a->from < w->chunk ? a->to - a->from : w->chunk);
}

static void carry_out(struct world *w)
{
    struct turn_action a;
    while (turn_take(&w->t, &a)) {
        assert_false(w->over);
        switch (a.kind) {
        case TURN_DO_CLOUD_OPEN:
            w->open = true;
            for (uint32_t i = 0; i < w->t.n; i++)
                w->answer[i] = w->t.tokens[i].id;
            w->next = w->t.n;
            w->limit = w->t.n + a.n;
            w->cloud_at = w->now + w->first_us;
            break;
        case TURN_DO_CLOUD_EXTEND:
            w->limit = w->t.cloud_base + a.n;
            break;
        case TURN_DO_CLOUD_STOP:
            w->open = false;
            break;
        case TURN_DO_FEED:
            start_feed(w, &a);
            break;
        case TURN_DO_LOCAL_PAUSE:
            assert_true(w->feeding);
            w->pausing = true;
            break;
        case TURN_DO_LOCAL_STOP:
            w->feeding = false;
            break;
        case TURN_DO_SHOW:
            assert_int_equal(a.n, w->n_shown);
            w->shown[w->n_shown++] = w->t.tokens[a.n].id;
            break;
        case TURN_DO_END:
            w->over = true;
            w->reason = a.reason;
            break;
        }
        for (uint32_t i = 0; i < w->n_shown; i++) /* never taken back */
            assert_int_equal(w->shown[i], w->t.tokens[i].id);
    }
}

static void cloud_step(struct world *w)
{
    if (w->next >= w->cut_at) {
        w->open = false;
        w->cut_at = UINT32_MAX;
        turn_cloud_lost(&w->t, w->now, "cut");
    } else if (w->next >= w->length || w->next == w->limit) {
        w->open = false;
        turn_cloud_done(&w->t, w->now, w->next >= w->length ? TURN_CLOUD_STOP : TURN_CLOUD_BUDGET);
    } else {
        uint32_t i = w->next++;
        bool errs = w->err_one_in > 0 && rng_below(&w->r, w->err_one_in) == 0;
        w->answer[i] = draw(w->answer, i) ^ (errs ? 1 : 0);
        w->cloud_at = w->now + w->step_us;
        if (w->err_one_in > 0) turn_cloud_verify(&w->t, w->now);
        turn_cloud_token(&w->t, w->now, i, w->answer[i]);
    }
}

/* Draws after the tokens of this step that are the feed's last n_draws, but its very last. */
static bool tell_draws(struct world *w, uint32_t from)
{
    uint32_t first = w->feed_to - w->n_draws, to = w->feed_to, prompt = w->t.prompt_len;
    bool current = true;
    for (uint32_t at = from > first ? from : first; at < w->kv_len && at + 1 < to; at++) {
        uint32_t i = at + 1 - prompt;
        int32_t history[ANSWER_MAX];
        for (uint32_t k = 0; k < i; k++)
            history[k] = w->kv[prompt + k];
        current &= turn_local_drawn(&w->t, w->now, i, draw(history, i), i >= w->length);
    }
    return current;
}

/* How much of the prompt the session's beginning goes through. */
static uint32_t passed(const struct world *w)
{
    uint32_t i = w->kv_len < w->t.prompt_len ? w->kv_len : w->t.prompt_len;
    return i == 0 ? 0 : (uint32_t)-w->kv[i - 1];
}

/* What has come takes effect now. */
static void note_effect(struct world *w)
{
    for (uint32_t v = 0; v < w->versions; v++)
        if (w->effect[v] == UINT32_MAX && w->kv_len < w->t.prompt_len) w->effect[v] = passed(w);
}

static void device_step(struct world *w)
{
    uint32_t left = w->feed_to - w->kv_len, n = left < w->chunk ? left : w->chunk;
    uint32_t from = w->kv_len;
    for (uint32_t i = 0; i < n; i++, w->kv_len++)
        w->kv[w->kv_len] = history_token(w, w->kv_len);
    w->computed += n;
    bool ends = w->kv_len == w->feed_to;
    w->feed_at = w->now + w->token_us * (left - n < w->chunk ? left - n : w->chunk);
    if (!tell_draws(w, from)) return;
    if (ends) {
        uint32_t i = w->kv_len - w->t.prompt_len;
        int32_t history[ANSWER_MAX];
        for (uint32_t k = 0; k < i; k++)
            history[k] = w->kv[w->t.prompt_len + k];
        w->feeding = false;
        turn_local_token(&w->t, w->now, draw(history, i), i >= w->length);
    } else if (w->pausing) {
        w->feeding = false;
        note_effect(w);
        turn_local_paused(&w->t, w->now, w->kv_len);
    } else {
        turn_local_progress(&w->t, w->now, w->kv_len);
    }
}

static void bits_come(struct world *w)
{
    uint32_t v = w->versions++;
    w->effect[v] = UINT32_MAX;
    if (w->t.ended) return;
    if (!w->feeding) note_effect(w);
    turn_refined(&w->t, w->now, w->bits[v]);
}

static void run(struct world *w)
{
    while (w->versions < VERSIONS && w->bits_at[w->versions] == 0) { /* before the start */
        bits_come(w);
        carry_out(w);
    }
    turn_start(&w->t, w->now);
    carry_out(w);
    for (int guard = 0; !w->over; guard++) {
        assert_true(guard < GUARD);
        uint64_t cloud = w->open ? w->cloud_at : UINT64_MAX;
        uint64_t device = w->feeding ? w->feed_at : UINT64_MAX, wake = turn_wake(&w->t, w->now);
        uint64_t bits = w->versions < VERSIONS ? w->bits_at[w->versions] : UINT64_MAX;
        uint64_t next = cloud < device ? cloud : device;
        next = wake < next ? wake : next;
        next = bits < next ? bits : next;
        assert_true(next != UINT64_MAX);
        w->now = next > w->now ? next : w->now;
        if (next == bits)
            bits_come(w);
        else if (next == cloud)
            cloud_step(w);
        else if (next == device)
            device_step(w);
        else
            turn_tick(&w->t, w->now);
        carry_out(w);
    }
    assert_int_equal(w->n_shown, w->length < w->t.c.answer_max ? w->length : w->t.c.answer_max);
    assert_int_equal(w->reason, w->length < w->t.c.answer_max ? TURN_STOP : TURN_LENGTH);
}

static void init(struct world *w, uint64_t seed, uint32_t stream)
{
    memset(w, 0, sizeof *w);
    rng_init(&w->r, seed, stream);
    w->now = 1000000;
    w->length = rng_below(&w->r, ANSWER_MAX);
    w->chunk = 1 + rng_below(&w->r, 40);
    w->token_us = 100 + rng_below(&w->r, 4000);
    w->first_us = 1000 + rng_below(&w->r, 300000);
    w->step_us = 10 + rng_below(&w->r, 30000);
    w->cut_at = rng_below(&w->r, 3) ? UINT32_MAX : rng_below(&w->r, w->length + 1);
    w->bits_at[0] = w->bits_at[1] = UINT64_MAX;
    double decode_us = 1000.0 + rng_below(&w->r, 60000);
    struct turn_config c = {.prompt_tokens = 1 + rng_below(&w->r, PROMPT_MAX),
                            .answer_max = 1 + rng_below(&w->r, ANSWER_MAX),
                            .use_cloud = true,
                            .use_local = true,
                            .fixed = rng_below(&w->r, 4) == 0,
                            .pace = (enum pace_mode)rng_below(&w->r, 3),
                            .prefill_tps = 1e6 / (double)w->token_us,
                            .decode_us = decode_us,
                            .rtt_us = 20000,
                            .stall_us = 10000000,
                            .reopen_max = 3};
    c.kv_tokens = rng_below(&w->r, 2) ? 0 : rng_below(&w->r, c.prompt_tokens);
    c.cloud_tokens = 1 + rng_below(&w->r, c.answer_max);
    c.local_after = rng_below(&w->r, 3) ? 0 : rng_below(&w->r, 10);
    for (w->kv_len = 0; w->kv_len < c.kv_tokens; w->kv_len++)
        w->kv[w->kv_len] = -1 - (int32_t)w->kv_len;
    assert_int_equal(turn_init(&w->t, &c, NULL), 0);
}

static bool has(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

/* Whether the history holds a token of the prompt, by what was in force when it was passed. */
static bool belongs(const struct world *w, uint32_t at)
{
    bool kept = true;
    for (uint32_t v = 0; v < w->versions; v++)
        if (at >= w->effect[v]) kept = has(w->bits[v], at);
    return kept || at + 1 == w->t.c.prompt_tokens;
}

/* The history at the end: a subsequence of prompt and answer, and just the one that belongs there;
 * each position computed once. */
static void check_history(const struct world *w)
{
    uint32_t prompt = w->kv_len < w->t.prompt_len ? w->kv_len : w->t.prompt_len, at = 0;
    for (uint32_t k = 0; k < prompt; k++, at++) {
        while (!belongs(w, at))
            at++;
        assert_int_equal(w->kv[k], -1 - (int32_t)at);
    }
    if (prompt == w->t.prompt_len && prompt > 0) assert_int_equal(at, w->t.c.prompt_tokens);
    for (uint32_t k = prompt; k < w->kv_len; k++)
        assert_int_equal(w->kv[k], w->t.tokens[k - prompt].id);
    assert_int_equal(w->computed + w->t.c.kv_tokens, w->kv_len);
}

static void make_bits(struct world *w, uint32_t v)
{
    uint32_t keep = 1 + rng_below(&w->r, 8), run = 1 + rng_below(&w->r, 30);
    for (uint32_t i = 0; i < w->t.c.prompt_tokens; i++)
        if (rng_u32(w->r.seed + v, 9, i / run) % 8 < keep)
            w->bits[v][i / 8] |= (uint8_t)(1u << i % 8);
}

static void test_refined_at_any_time(void **state)
{
    (void)state;
    uint32_t shorter = 0, twice = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        struct world w;
        init(&w, seed, 1);
        uint64_t span = w.token_us * w.t.c.prompt_tokens + w.first_us;
        for (uint32_t v = 0; v < VERSIONS; v++) {
            make_bits(&w, v);
            uint64_t before = v ? w.bits_at[v - 1] : 0;
            if (before == UINT64_MAX || rng_below(&w.r, 6) == 0) break;
            if (v == 0 && rng_below(&w.r, 8) == 0)
                w.bits_at[v] = 0;
            else
                w.bits_at[v] = (before ? before : w.now) + rng_below(&w.r, (uint32_t)span + 1);
        }
        run(&w);
        check_history(&w);
        for (uint32_t i = 0; i < w.n_shown; i++)
            assert_int_equal(w.shown[i], draw(w.shown, i));
        shorter += w.t.prompt_len < w.t.c.prompt_tokens;
        twice += w.versions == 2 && w.effect[0] < w.effect[1] && w.effect[1] < w.t.c.prompt_tokens;
        turn_release(&w.t);
    }
    assert_true(shorter > 1000 && twice > 1000);
}

/* Every token of the device is its own draw; the first difference is where the cloud first erred
 * among what was compared; and what agreed is counted. */
static void check_verified(const struct world *w)
{
    struct turn_report r;
    uint32_t agree = 0, cloud = 0;
    turn_report_of(&w->t, &r);
    for (uint32_t i = 0; i < w->n_shown; i++) {
        bool same = w->shown[i] == draw(w->shown, i);
        if (w->t.tokens[i].source == TURN_DEVICE) {
            assert_true(same);
            continue;
        }
        cloud++;
        agree += same;
        if (!same && r.differs) assert_true(r.difference <= i);
    }
    assert_true(r.verified <= agree && r.compared <= r.received);
    if (r.differs) {
        assert_true(r.difference < w->n_shown || w->t.ended);
        for (uint32_t i = 0; i < r.difference && i < w->n_shown; i++)
            assert_int_equal(w->shown[i], draw(w->shown, i));
        if (r.dropped > 0) assert_true(cloud + r.dropped <= r.received);
    }
}

static void test_cloud_errs(void **state)
{
    (void)state;
    uint32_t differing = 0, replaced = 0, stayed = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        struct world w;
        struct turn_report r;
        init(&w, seed, 2);
        w.err_one_in = 1 + rng_below(&w.r, 60);
        run(&w);
        check_verified(&w);
        turn_report_of(&w.t, &r);
        differing += r.differs;
        replaced +=
            r.differs && r.difference < w.n_shown && w.t.tokens[r.difference].source == TURN_DEVICE;
        stayed +=
            r.differs && r.difference < w.n_shown && w.t.tokens[r.difference].source == TURN_CLOUD;
        turn_release(&w.t);
    }
    assert_true(differing > 1000 && replaced > 100 && stayed > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refined_at_any_time),
        cmocka_unit_test(test_cloud_errs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
