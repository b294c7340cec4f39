/* turn: see turn.h. */
#include "policy/turn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "policy/plan.h"

/* Relative margin when the time to catch up is predicted, and the share by which an
 * extension exceeds the need, so that it is not needed again at once. */
static const double READY_SPREAD = 0.05, SURE = 2.0, EXTEND_SHARE = 1.25;
static const double MEASURE_WEIGHT = 0.2; /* of the newest decode time in its mean */
static const double SPIKE = 2.0;          /* a longer hiccup counts as this many decode times */
static const double REOPEN_SPARE_US =
    100000.0; /* besides twice the cloud's last first-token time */

static const char *const reason_names[] = {"stop", "length", "cancelled", "failed"};

const char *turn_reason_name(enum turn_reason r)
{
    return reason_names[r];
}

const char *turn_source_name(enum turn_source s)
{
    static const char *const names[] = {"cloud", "device"};
    return names[s];
}

int turn_init(struct turn *t, const struct turn_config *config, struct err *e)
{
    CHECK(config->answer_max > 0 && config->answer_max <= TURN_ANSWER_MAX);
    CHECK(config->use_cloud || config->use_local);
    CHECK(config->kv_tokens < config->prompt_tokens);
    *t = (struct turn){.c = *config, .kv = config->kv_tokens, .local_ok = config->use_local};
    t->prompt_len = config->prompt_tokens;
    t->tps = config->prefill_tps;
    t->decode_us = config->decode_us;
    t->tokens = mem_calloc(config->answer_max, sizeof *t->tokens);
    if (!t->tokens)
        return err_set(e, ERR_NO_MEMORY, "no memory for an answer of %u tokens",
                       config->answer_max);
    pace_init(&t->pace, config->pace, config->use_local ? config->decode_us : 0.0);
    t->pace.plan_us = config->pace_us;
    return 0;
}

void turn_release(struct turn *t)
{
    mem_free(t->tokens);
    mem_free(t->map_room);
    mem_free(t->wanted);
    t->tokens = NULL;
    t->map = t->map_room = NULL;
    t->wanted = NULL;
}

static void act(struct turn *t, struct turn_action a)
{
    CHECK(t->n_actions < TURN_ACTIONS_MAX);
    t->actions[(t->first_action + t->n_actions++) % TURN_ACTIONS_MAX] = a;
}

static bool cloud_active(const struct turn *t)
{
    return t->cloud == CLOUD_ASKED || t->cloud == CLOUD_RUNNING;
}

/* Where each state may lead; a failing engine gives an own answer back to the cloud. */
static void enter(struct turn *t, enum turn_state to)
{
    static const unsigned may[] = {
        [TURN_RACING] =
            1u << TURN_BORROWED | 1u << TURN_OWN | 1u << TURN_DRAINING | 1u << TURN_OVER,
        [TURN_BORROWED] = 1u << TURN_OWN | 1u << TURN_DRAINING | 1u << TURN_OVER,
        [TURN_OWN] = 1u << TURN_BORROWED | 1u << TURN_DRAINING | 1u << TURN_OVER,
        [TURN_DRAINING] = 1u << TURN_OVER,
        [TURN_OVER] = 0,
    };
    CHECK(may[t->state] >> to & 1);
    t->state = to;
}

/* What holds between any two events. */
static void check(const struct turn *t)
{
    CHECK(t->shown <= t->n && t->n <= t->c.answer_max);
    CHECK(t->kv <= t->prompt_len + t->n);
    CHECK(t->prompt_len <= t->c.prompt_tokens && t->prompt_len > 0);
    CHECK(!t->pausing || t->feeding);
    CHECK(!t->feeding || (t->local_ok && t->kv < t->feed_to));
    CHECK(!t->feeding || t->feed_to <= t->prompt_len + t->n);
    CHECK(!cloud_active(t) || (t->c.use_cloud && t->cloud_base <= t->n));
    CHECK(!cloud_active(t) || t->n <= t->cloud_granted);
    CHECK(!t->cloud_waits || (!t->local_ok && !cloud_active(t)));
    CHECK(!t->ended || (!cloud_active(t) && !t->feeding && !t->cloud_waits));
    CHECK(t->ended == (t->state == TURN_DRAINING || t->state == TURN_OVER));
    CHECK(t->state != TURN_RACING || t->n == 0);
    CHECK(t->handover <= t->n);
    CHECK(t->verified <= t->compared && t->compared <= t->checked &&
          t->checked <= t->n + t->dropped);
    CHECK(!t->differs || t->difference < t->checked);
}

bool turn_take(struct turn *t, struct turn_action *ret_action)
{
    check(t);
    if (t->n_actions == 0) return false;
    *ret_action = t->actions[t->first_action];
    t->first_action = (t->first_action + 1) % TURN_ACTIONS_MAX;
    t->n_actions--;
    return true;
}

/* The answer is complete or given up: both ends may rest. */
static void stop_cloud(struct turn *t)
{
    if (cloud_active(t)) {
        t->cloud = CLOUD_FINISHED;
        act(t, (struct turn_action){.kind = TURN_DO_CLOUD_STOP});
    }
}

static void stop_local(struct turn *t)
{
    if (t->feeding) {
        t->feeding = t->pausing = false;
        act(t, (struct turn_action){.kind = TURN_DO_LOCAL_STOP});
    }
}

static void end_answer(struct turn *t, enum turn_reason reason)
{
    stop_cloud(t);
    stop_local(t);
    t->ended = true;
    t->cloud_waits = false;
    t->reason = reason;
    enter(t, TURN_DRAINING);
}

static void open_cloud(struct turn *t, uint64_t now, uint32_t n)
{
    uint32_t left = t->c.answer_max - t->n;
    n = n < 1 ? 1 : n > left ? left : n;
    t->cloud = CLOUD_ASKED;
    t->cloud_waits = false;
    t->cloud_base = t->n;
    t->cloud_by_text = false;
    t->cloud_granted = t->n + n;
    t->cloud_heard = t->cloud_gave = now;
    t->cloud_opens++;
    t->cloud_done = 0;
    t->cloud_vain++;
    act(t, (struct turn_action){.kind = TURN_DO_CLOUD_OPEN, .n = n});
}

static bool may_reopen(const struct turn *t)
{
    return t->c.use_cloud && !t->cloud_final && t->cloud_vain <= t->c.reopen_max &&
           t->n < t->c.answer_max && !t->ended;
}

/* Nobody works on the answer any more: ask the cloud again, or fail. */
static void go_on_without_device(struct turn *t, uint64_t now, int code, const char *why)
{
    if (cloud_active(t)) {
        if (t->cloud_granted < t->c.answer_max) {
            t->cloud_granted = t->c.answer_max;
            act(t, (struct turn_action){.kind = TURN_DO_CLOUD_EXTEND,
                                        .n = t->c.answer_max - t->cloud_base});
        }
    } else if (may_reopen(t) && now < t->cloud_again) {
        t->cloud_waits = true;
    } else if (may_reopen(t)) {
        open_cloud(t, now, t->c.answer_max);
    } else if (!t->ended) {
        err_set(&t->error, code, "%s", why);
        end_answer(t, TURN_FAILED);
    }
}

static void feed(struct turn *t, uint64_t now)
{
    uint32_t total = t->prompt_len + t->n;
    if (!t->local_ok || t->feeding || t->ended || t->kv >= total) return;
    if (t->begun == 0 && t->n < t->c.local_after && cloud_active(t)) return;
    if (t->begun == 0) t->begun = now;
    t->feeding = true;
    t->feed_to = total;
    t->last_local = now;
    uint32_t known = t->prompt_len - 1; /* what follows it is the answer */
    uint32_t draws = t->verifying ? total - (t->kv > known ? t->kv : known) : 0;
    act(t, (struct turn_action){.kind = TURN_DO_FEED, .from = t->kv, .to = total, .n = draws});
}

/* Predicted microseconds until the device can emit the token after those known; R of
 * docs/design/handover.md.
 */
static double ready_us(const struct turn *t, uint64_t now)
{
    if (!t->local_ok) return INFINITY;
    double left = (double)(t->prompt_len + t->n - t->kv);
    double us = t->tps > 0.0 ? left / t->tps * 1e6 : INFINITY;
    uint64_t from = t->progress_at ? t->progress_at : t->begun ? t->begun : now;
    double since = (double)(now - from);
    return (us > since ? us - since : 0.0) + t->decode_us;
}

/* Of the time to catch up. Once the device reads, its speed is measured. */
static double spread(const struct turn *t)
{
    return t->progress_at || t->c.spread < READY_SPREAD ? READY_SPREAD : t->c.spread;
}

/* The margin m: two deviations of the prediction and half a round trip. */
static double with_margin(const struct turn *t, double ready)
{
    return ready * (1.0 + SURE * spread(t)) + t->c.rtt_us / 2.0;
}

static double interval_us(const struct turn *t, uint64_t now)
{
    if (t->ended) return pace_own_us(&t->pace, UINT32_MAX);
    if (t->state == TURN_OWN) return pace_own_us(&t->pace, t->n - t->shown);
    uint32_t b = t->n - t->shown + (cloud_active(t) ? t->cloud_granted - t->n : 0);
    return pace_borrowed_us(&t->pace, with_margin(t, ready_us(t, now)), b);
}

/* How many more tokens than those held are needed until the device is ready; negative: spare. */
static double shortage(const struct turn *t, uint64_t now)
{
    double ready = ready_us(t, now), interval = pace_plan_us(&t->pace);
    double since = t->pace.any ? (double)(now - t->pace.last) : interval;
    struct plan_remainder r = {.ready_us = ready,
                               .deviation_us = ready * spread(t),
                               .due_us = since < interval ? interval - since : 0.0,
                               .interval_us = interval,
                               .per_token_us = t->tps > 0.0 ? 1e6 / t->tps : INFINITY,
                               .rtt_us = t->c.rtt_us,
                               .sure = SURE,
                               .buffered = t->n - t->shown};
    return plan_tokens_more(&r);
}

/* Stop the cloud when the tokens held suffice; ask for more, in time, when they will not. */
static void steer_cloud(struct turn *t, uint64_t now)
{
    if (t->c.fixed || t->state != TURN_BORROWED || !t->local_ok || t->ended || t->differs ||
        t->pace.decode_us <= 0.0 || t->pace.mode == PACE_OFF)
        return;
    double more = shortage(t, now);
    if (t->cloud == CLOUD_RUNNING && more <= 0.0) {
        stop_cloud(t);
        feed(t, now);
        return;
    }
    double wanted = more * EXTEND_SHARE + 1.0;
    uint32_t most = t->c.answer_max;
    if (t->c.cloud_most > 0 && t->c.cloud_most < most) most = t->c.cloud_most;
    uint32_t left = most > t->n ? most - t->n : 0,
             n = wanted < left ? (uint32_t)fmax(wanted, 0.0) : left;
    if (t->cloud == CLOUD_RUNNING && t->n + n > t->cloud_granted &&
        more > t->cloud_granted - t->n) {
        t->cloud_granted = t->n + n;
        act(t, (struct turn_action){.kind = TURN_DO_CLOUD_EXTEND,
                                    .n = t->cloud_granted - t->cloud_base});
    } else if (t->cloud == CLOUD_FINISHED && more > 1.0 && left > 0 && may_reopen(t) &&
               now >= t->cloud_again) {
        double at_hand = pace_plan_us(&t->pace) * (double)(t->n - t->shown);
        double lead = 2.0 * (double)(t->tokens[0].arrived - t->began) + REOPEN_SPARE_US;
        if (at_hand < lead) open_cloud(t, now, n);
    }
}

static uint64_t next_due(const struct turn *t, uint64_t now)
{
    return pace_due(&t->pace, t->tokens[t->shown].arrived, interval_us(t, now));
}

static void show_due(struct turn *t, uint64_t now)
{
    while (t->state != TURN_OVER && t->shown < t->n && next_due(t, now) <= now) {
        if (t->n_actions > TURN_ACTIONS_MAX / 2)
            return; /* the caller takes them, then ticks again: turn_wake says at once */
        t->tokens[t->shown].shown = now;
        pace_shown(&t->pace, now);
        act(t, (struct turn_action){.kind = TURN_DO_SHOW, .n = t->shown++});
    }
    if (t->state != TURN_OVER && t->ended && t->shown == t->n) {
        enter(t, TURN_OVER);
        act(t, (struct turn_action){.kind = TURN_DO_END, .reason = t->reason});
    }
}

static void take_token(struct turn *t, uint64_t now, int32_t id, enum turn_source source)
{
    t->tokens[t->n++] = (struct turn_token){id, (uint8_t)source, now, 0};
    if (t->cloud_granted < t->n) t->cloud_granted = t->n;
    if (t->n == t->c.answer_max) end_answer(t, TURN_LENGTH);
}

void turn_start(struct turn *t, uint64_t now)
{
    t->began = now;
    t->progress_from = t->kv;
    if (t->c.use_cloud) open_cloud(t, now, t->c.cloud_tokens);
    feed(t, now);
}

void turn_pace(struct turn *t, double pace_us)
{
    t->c.pace_us = t->pace.plan_us = pace_us;
}

static void lose_cloud(struct turn *t, uint64_t now, int code, const char *why)
{
    if (!cloud_active(t)) return;
    stop_cloud(t);
    err_set(&t->error, code, "%s", why);
    if (!t->local_ok) go_on_without_device(t, now, code, why);
    feed(t, now);
    show_due(t, now);
}

void turn_tick(struct turn *t, uint64_t now)
{
    if (t->state == TURN_OVER) return;
    if (cloud_active(t) && now - t->cloud_heard >= t->c.stall_us)
        lose_cloud(t, now, ERR_TIMEOUT, "the cloud fell silent");
    if (t->cloud_waits && now >= t->cloud_again) open_cloud(t, now, t->c.answer_max);
    show_due(t, now);
    steer_cloud(t, now);
}

uint64_t turn_wake(const struct turn *t, uint64_t now)
{
    if (t->state == TURN_OVER) return UINT64_MAX;
    uint64_t wake = t->shown < t->n ? next_due(t, now) : UINT64_MAX;
    if (cloud_active(t) && t->cloud_heard + t->c.stall_us < wake)
        wake = t->cloud_heard + t->c.stall_us;
    if (t->cloud_waits && t->cloud_again < wake) wake = t->cloud_again;
    return wake;
}

void turn_cloud_grant(struct turn *t, uint64_t now, uint32_t tokens_max)
{
    if (!cloud_active(t)) return;
    t->cloud_heard = now;
    if (t->cloud == CLOUD_RUNNING) return; /* a grant after tokens changes nothing */
    if (tokens_max < t->cloud_granted - t->cloud_base)
        t->cloud_granted = t->cloud_base + tokens_max;
}

void turn_cloud_by_text(struct turn *t, uint64_t now)
{
    if (!cloud_active(t)) return;
    t->cloud_heard = now;
    t->cloud_by_text = true;
}

void turn_cloud_verify(struct turn *t, uint64_t now)
{
    if (!cloud_active(t)) return;
    t->cloud_heard = now;
    t->verifying = t->prompt_len == t->c.prompt_tokens; /* a shortened history draws others */
}

void turn_cloud_progress(struct turn *t, uint64_t now, uint32_t done)
{
    if (!cloud_active(t) || done <= t->cloud_done) return;
    t->cloud_done = done;
    if (now - t->cloud_gave < TURN_PROGRESS_STALLS * t->c.stall_us) t->cloud_heard = now;
}

/* A token that is not the next one: a repetition is passed over, anything else drops the cloud. */
static bool in_order(struct turn *t, uint64_t now, uint32_t index, int32_t id)
{
    char why[96];
    if (index == t->n && (index < t->cloud_granted || t->cloud_by_text)) return true;
    if (index < t->n && t->tokens[index].id == id) return false;
    if (index < t->n)
        snprintf(why, sizeof why, "the cloud sent token %u twice, and not the same", index);
    else if (index > t->n)
        snprintf(why, sizeof why, "the cloud sent token %u when %u was due", index, t->n);
    else
        snprintf(why, sizeof why, "the cloud sent more than the %u tokens asked for",
                 t->cloud_granted - t->cloud_base);
    turn_cloud_lost(t, now, why);
    return false;
}

void turn_cloud_token(struct turn *t, uint64_t now, uint32_t index, int32_t id)
{
    if (!cloud_active(t)) return;
    if (in_order(t, now, index, id)) {
        t->cloud_heard = t->cloud_gave = now;
        t->cloud = CLOUD_RUNNING;
        if (t->state == TURN_RACING) enter(t, TURN_BORROWED);
        t->cloud_used++;
        t->cloud_vain = 0;
        take_token(t, now, id, TURN_CLOUD);
    }
    feed(t, now);
    show_due(t, now);
    steer_cloud(t, now);
}

void turn_cloud_done(struct turn *t, uint64_t now, enum turn_cloud_end end)
{
    if (!cloud_active(t)) return;
    t->cloud = CLOUD_FINISHED;
    if (end == TURN_CLOUD_STOP)
        end_answer(t, TURN_STOP);
    else if (end == TURN_CLOUD_LENGTH && !t->local_ok)
        end_answer(t, TURN_LENGTH);
    else if (!t->local_ok)
        go_on_without_device(t, now, ERR_NET,
                             end == TURN_CLOUD_GONE ? "the cloud ended the stream early"
                                                    : "the cloud's tokens are used up");
    feed(t, now);
    show_due(t, now);
    steer_cloud(t, now);
}

void turn_cloud_no_ids(struct turn *t)
{
    t->cloud_final = true;
}

void turn_cloud_lost(struct turn *t, uint64_t now, const char *why)
{
    lose_cloud(t, now, ERR_NET, why);
}

void turn_cloud_refused(struct turn *t, uint64_t now, uint64_t wait_us, const char *why)
{
    if (!cloud_active(t)) return;
    if (wait_us > TURN_WAIT_MAX_US)
        t->cloud_final = true;
    else
        t->cloud_again = now + wait_us;
    turn_cloud_lost(t, now, why);
}

static void measure_prefill(struct turn *t, uint64_t now)
{
    if (t->kv > t->progress_from && now > t->begun && t->state != TURN_OWN)
        t->tps = (double)(t->kv - t->progress_from) * 1e6 / (double)(now - t->begun);
    t->progress_at = now;
}

void turn_local_progress(struct turn *t, uint64_t now, uint32_t kv)
{
    if (!t->feeding || t->state == TURN_OVER) return;
    t->kv = kv;
    measure_prefill(t, now);
    show_due(t, now);
    steer_cloud(t, now);
}

static void measure_decode(struct turn *t, uint64_t now)
{
    double us = (double)(now - t->last_local);
    if (t->decode_us > 0.0 && us > SPIKE * t->decode_us) us = SPIKE * t->decode_us;
    t->decode_us = t->decode_us > 0.0 ? t->decode_us + MEASURE_WEIGHT * (us - t->decode_us) : us;
    t->pace.decode_us = t->decode_us; /* the pace follows the device, up and down */
}

uint32_t turn_prompt_at(const struct turn *t, uint32_t i)
{
    CHECK(i < t->prompt_len);
    return t->map ? t->map[i] : i;
}

/* Go on with the wanted tokens of what follows position kv. */
static void shorten(struct turn *t)
{
    uint32_t all = t->c.prompt_tokens, len = t->kv;
    uint32_t next = len > 0 ? turn_prompt_at(t, len - 1) + 1 : 0;
    for (uint32_t i = 0; !t->map && i < len; i++)
        t->map_room[i] = i;
    t->map = t->map_room;
    for (uint32_t at = next; at < all; at++)
        if (t->wanted[at / 8] >> (at % 8) & 1 || at + 1 == all) t->map[len++] = at;
    t->prompt_len = len;
    if (len < all) t->verifying = false;
}

void turn_refined(struct turn *t, uint64_t now, const uint8_t *bits)
{
    size_t bytes = (t->c.prompt_tokens + 7u) / 8;
    if (t->state == TURN_OVER || t->ended || !t->local_ok || t->kv >= t->prompt_len) return;
    if (!t->wanted) t->wanted = mem_alloc(bytes);
    if (!t->map_room) t->map_room = mem_alloc(t->c.prompt_tokens * sizeof *t->map);
    if (!t->wanted || !t->map_room) return; /* then the whole prompt it is */
    memcpy(t->wanted, bits, bytes);
    if (!t->feeding) {
        shorten(t);
    } else if (!t->pausing) {
        t->pausing = true;
        act(t, (struct turn_action){.kind = TURN_DO_LOCAL_PAUSE});
    }
    steer_cloud(t, now);
}

void turn_local_paused(struct turn *t, uint64_t now, uint32_t kv)
{
    if (!t->feeding || !t->pausing || t->state == TURN_OVER) return;
    CHECK(kv < t->feed_to);
    t->feeding = t->pausing = false;
    t->kv = kv;
    measure_prefill(t, now);
    if (kv < t->prompt_len) shorten(t);
    feed(t, now);
    show_due(t, now);
    steer_cloud(t, now);
}

/* Compare what the device draws with the token received there. After the first difference what is
 * not shown yet is dropped; true: the draw itself is the next token of the answer then. */
static bool verify(struct turn *t, uint32_t index, int32_t id)
{
    if (!t->verifying || index < t->checked || index >= t->n) return false;
    t->checked = index + 1;
    t->compared++;
    if (t->tokens[index].id == id) {
        t->verified++;
        return false;
    }
    if (!t->differs) t->difference = index;
    t->differs = true;
    stop_cloud(t);
    t->cloud_final = t->cloud_final || t->cloud_by_text; /* it counts text that is dropped here */
    uint32_t keep = index > t->shown ? index : t->shown;
    t->dropped += t->n - keep;
    t->n = keep;
    return keep == index;
}

/* The device has caught up: what it sampled is the next token. */
static void take_own(struct turn *t, uint64_t now, int32_t id, bool is_end)
{
    stop_cloud(t);
    if (t->state != TURN_OWN && t->n > 0) t->handover = t->n;
    if (t->state != TURN_OWN) enter(t, TURN_OWN);
    if (is_end)
        end_answer(t, TURN_STOP);
    else
        take_token(t, now, id, TURN_DEVICE);
}

bool turn_local_drawn(struct turn *t, uint64_t now, uint32_t index, int32_t id, bool is_end)
{
    if (!t->feeding || t->state == TURN_OVER) return false;
    bool own = verify(t, index, id);
    uint32_t total = t->prompt_len + t->n;
    if (t->feed_to <= total) return true; /* nothing that is being fed was dropped */
    stop_local(t);
    if (own) {
        t->kv = total;
        take_own(t, now, id, is_end);
    } else if (t->kv >= total) {
        t->kv = total - 1; /* one must run to give the next */
    }
    feed(t, now);
    show_due(t, now);
    return false;
}

void turn_local_token(struct turn *t, uint64_t now, int32_t id, bool is_end)
{
    if (!t->feeding || t->state == TURN_OVER) return;
    bool single = t->state == TURN_OWN && t->feed_to == t->kv + 1;
    t->feeding = t->pausing = false;
    t->kv = t->feed_to;
    if (single)
        measure_decode(t, now);
    else
        measure_prefill(t, now);
    verify(t, t->kv - t->prompt_len, id);
    if (t->kv == t->prompt_len + t->n) take_own(t, now, id, is_end); /* nothing newer came */
    feed(t, now);
    show_due(t, now);
    steer_cloud(t, now);
}

void turn_local_full(struct turn *t, uint64_t now)
{
    if (t->state == TURN_OVER || t->ended) return;
    t->feeding = t->pausing = false;
    t->local_ok = false;
    if (!cloud_active(t)) end_answer(t, TURN_LENGTH);
    show_due(t, now);
}

void turn_local_failed(struct turn *t, uint64_t now, const char *why)
{
    if (t->state == TURN_OVER || t->ended) return;
    t->feeding = t->pausing = false;
    t->local_ok = false;
    if (t->state == TURN_OWN) enter(t, TURN_BORROWED);
    err_set(&t->error, ERR_INTERNAL, "%s", why);
    go_on_without_device(t, now, ERR_NET, why);
    show_due(t, now);
}

void turn_user_stop(struct turn *t, uint64_t now)
{
    (void)now;
    if (t->state == TURN_OVER) return;
    stop_cloud(t);
    stop_local(t);
    t->ended = true;
    t->cloud_waits = false;
    t->reason = TURN_CANCELLED;
    enter(t, TURN_OVER);
    act(t, (struct turn_action){.kind = TURN_DO_END, .reason = TURN_CANCELLED});
}

void turn_report_of(const struct turn *t, struct turn_report *ret_report)
{
    struct turn_report r = {.tokens = t->shown, .handover = t->handover, .reason = t->reason};
    r.cloud_opens = t->cloud_opens;
    r.verifying = t->verifying;
    r.differs = t->differs;
    r.verified = t->verified;
    r.refined = t->prompt_len < t->c.prompt_tokens;
    r.reading = t->prompt_len;
    r.compared = t->compared;
    r.received = t->cloud_used;
    r.difference = t->difference;
    r.dropped = t->dropped;
    for (uint32_t i = 0; i < t->shown; i++) {
        const struct turn_token *k = &t->tokens[i];
        r.cloud_tokens += k->source == TURN_CLOUD;
        r.device_tokens += k->source == TURN_DEVICE;
        if (i == 0) {
            r.ttft_us = (double)(k->shown - t->began);
            continue;
        }
        double gap = (double)(k->shown - t->tokens[i - 1].shown);
        r.tpot_max_us = gap > r.tpot_max_us ? gap : r.tpot_max_us;
        r.stalls += gap > TURN_STALL_US;
        if (i == t->handover) r.handover_gap_us = gap;
    }
    if (t->shown > 1)
        r.tpot_mean_us =
            (double)(t->tokens[t->shown - 1].shown - t->tokens[0].shown) / (t->shown - 1);
    *ret_report = r;
}
