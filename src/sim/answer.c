/*
 * answer: one answer on a device of a simulation. The turn (policy/turn) decides; here its actions
 * become messages to the cloud and steps of the device's engine, and their outcomes its events, as
 * device/answer.c and device/local.c do with sockets and threads.
 *
 * While no stream is open, nothing from outside can reach the answer, so it runs ahead of the
 * others to its end or to its next request. With a stream it stops at the next event of anyone.
 */
#include "base/check.h"
#include "base/mem.h"
#include "base/rng.h"
#include "policy/keep.h"
#include "sim/run_impl.h"

/* As device/local.h has it; and the largest step of its engine. */
enum { LOCAL_STEP_US = 33333, STEP_TOKENS = 512 };
/* Bytes of messages: head and one token id of a request, one event of a stream. */
enum { REQUEST_BYTES = 600, ID_BYTES = 6, EVENT_BYTES = 120 };
enum { DRAW_CUT = 16, DRAW_CUT_AT };

static struct phone *phone_of(const struct answer *a)
{
    return &a->sim->phones[a->phone];
}

/* ---- the engine ---- */

/* Tokens of the next step, as device/local.c plans it for one answer. */
static uint32_t chunk_of(const struct phone *p, uint32_t left)
{
    struct sched_limits limits = {.step_tokens = STEP_TOKENS, .spans = 1};
    if (left == 1) return 1;
    stepcost_limit(&p->cost, 0, LOCAL_STEP_US, STEP_TOKENS, &limits);
    uint32_t n = left < limits.prefill_alone ? left : limits.prefill_alone;
    return n > 1 && left - n == 1 ? n - 1 : n; /* a rest of one would be a whole decode step */
}

/* Whether the prompt's KV cache is to come through the link. */
static bool gets_kv(const struct answer *a)
{
    return a->sim->c->method->kv_share > 0.0 && a->pos < a->turn.c.prompt_tokens &&
           (a->stream_open || a->kv_at != RUN_NEVER);
}

static bool must_wait(const struct answer *a)
{
    return a->sim->c->method->migrates && a->stream_open && a->pos < a->turn.c.prompt_tokens;
}

static void begin_step(struct answer *a, uint64_t now)
{
    struct phone *p = phone_of(a);
    a->held = must_wait(a);
    a->step_began = now;
    a->step_n = 0;
    a->step_at = a->held ? RUN_NEVER : a->kv_at > now ? a->kv_at : now;
    if (a->held || gets_kv(a)) return;
    a->step_n = chunk_of(p, a->to - a->pos);
    a->step_at = now + (uint64_t)phone_step_us(a->sim, p, a->step_n, now);
}

/* What an engine waited for has come, or will not. */
static void look_again(struct answer *a, uint64_t now)
{
    if (a->feeding && a->step_n == 0 && a->step_at == RUN_NEVER) begin_step(a, now);
}

static void feed(struct answer *a, uint32_t from, uint32_t to, uint64_t now)
{
    a->feeding = true;
    a->pos = from;
    a->to = to;
    begin_step(a, now);
}

static void end_step(struct answer *a, uint64_t now)
{
    struct phone *p = phone_of(a);
    uint32_t prompt = a->turn.prompt_len, length = a->r->output;
    if (a->step_n == 0) { /* the KV cache of the prompt is here */
        a->pos = prompt;
    } else {
        a->busy_us += (double)(now - a->step_began);
        if (a->pos < prompt) {
            a->prefilled += a->step_n;
        }
        bool single = a->to - a->pos == 1;
        a->pos += a->step_n;
        stepcost_note(&p->cost, single, single ? 0 : a->step_n, (double)(now - a->step_began));
    }
    a->step_n = 0;
    a->step_at = RUN_NEVER;
    if (a->pos < a->to && a->pausing) {
        a->feeding = a->pausing = false;
        turn_local_paused(&a->turn, now, a->pos);
        return;
    }
    if (a->pos < a->to) {
        turn_local_progress(&a->turn, now, a->pos);
        if (a->feeding) begin_step(a, now);
        return;
    }
    a->feeding = a->pausing = false;
    uint32_t index = a->pos - prompt;
    turn_local_token(&a->turn, now, (int32_t)index, index >= length);
}

/* ---- the stream ---- */

static void open_stream(struct answer *a, uint32_t n, uint64_t now)
{
    struct sim *s = a->sim;
    struct phone *p = phone_of(a);
    a->stream++;
    a->stream_open = true;
    a->token_came = false;
    a->opened = now;
    if (a->opened_first == 0) a->opened_first = now;
    a->granted_at = 0;
    a->in_n = 0;
    a->lost_at = now < a->cut_from ? a->cut_from : RUN_NEVER;
    if (now >= a->cut_from && now < a->cut_to) {
        a->lost_at = now + (uint64_t)s->c->rtt_us + 1;
        return;
    }
    double bytes = REQUEST_BYTES + (double)ID_BYTES * (a->turn.c.prompt_tokens + a->turn.n);
    uint64_t sent = now + (s->c->fresh && a->stream == 1 ? phone_connect_us(s, p, now) : 0);
    sim_push(s, phone_up(s, p, sent, bytes), RUN_ASK, a->self, (uint64_t)a->stream << 32 | n);
    a->refs++;
}

static void close_stream(struct answer *a, uint64_t now)
{
    struct sim *s = a->sim;
    if (!a->stream_open) return;
    a->stream_open = false;
    a->lost_at = RUN_NEVER;
    sim_push(s, phone_up(s, phone_of(a), now, EVENT_BYTES), RUN_STOP, a->self, a->stream);
    a->refs++;
}

/* The choice of needed tokens arrives with the first token: whole units, evenly over the prompt,
 * and the question. Which units they are changes no time. */
static void refine(struct answer *a, uint64_t now)
{
    uint32_t n = a->turn.c.prompt_tokens;
    if (a->ratio >= 1.0 || n < KEEP_NEW_LEAST) return;
    uint8_t *bits = mem_calloc(n / 8 + 1, 1);
    if (!bits) {
        a->sim->failed = ERR_NO_MEMORY;
        return;
    }
    double owed = 0.0;
    for (uint32_t from = 0; from < n; from += KEEP_UNIT) {
        owed += a->ratio;
        if (owed < 1.0 && from + KEEP_QUESTION < n) continue;
        owed -= 1.0;
        for (uint32_t i = from; i < from + KEEP_UNIT && i < n; i++)
            bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << i % 8);
    }
    turn_refined(&a->turn, now, bits);
    mem_free(bits);
}

static void on_token(struct answer *a, uint32_t index, uint64_t now)
{
    const struct method *m = a->sim->c->method;
    bool first = !a->token_came;
    a->token_came = true;
    if (a->first_at == 0) {
        uint32_t all = a->cloud_prompt, cached = a->cloud_cached;
        uint32_t uncached = all > cached ? all - cached : 0;
        struct profile *p = &phone_of(a)->profile;
        a->first_at = now;
        profile_first_token(p, uncached, (double)(now - a->granted_at));
        profile_cached(p, a->turn.c.prompt_tokens, uncached);
    }
    turn_cloud_token(&a->turn, now, index, (int32_t)index);
    if (!first) return;
    refine(a, now);
    if (m->race && a->feeding) {
        a->feeding = false;
        a->step_at = RUN_NEVER;
        turn_local_failed(&a->turn, now, "the other end was first");
    }
    if (m->kv_share > 0.0 && a->kv_at == RUN_NEVER) {
        const struct run_config *c = a->sim->c;
        double bytes = c->device_kv_bytes * m->kv_share * a->turn.c.prompt_tokens;
        a->kv_at = now + (uint64_t)(bytes / c->kv_bytes_s * 1e6);
    }
}

static enum turn_cloud_end end_of(uint32_t end)
{
    static const enum turn_cloud_end ends[] = {[CLOUD_END_BUDGET] = TURN_CLOUD_BUDGET,
                                               [CLOUD_END_STOP] = TURN_CLOUD_STOP,
                                               [CLOUD_END_LENGTH] = TURN_CLOUD_LENGTH,
                                               [CLOUD_END_GONE] = TURN_CLOUD_GONE};
    return ends[end];
}

static void take_message(struct answer *a, const struct message *m, uint64_t now)
{
    struct turn *t = &a->turn;
    switch ((enum cloud_message)m->kind) {
    case CLOUD_GRANT:
        a->granted_at = now;
        a->cloud_cached = m->cached;
        a->cloud_prompt = t->c.prompt_tokens + t->n;
        turn_cloud_grant(t, now, m->value);
        phone_granted(a->sim, a, now, m->value);
        break;
    case CLOUD_PROGRESS:
        turn_cloud_progress(t, now, m->value);
        break;
    case CLOUD_TOKEN:
        on_token(a, m->value, now);
        break;
    case CLOUD_DONE:
        a->stream_open = false;
        turn_cloud_done(t, now, end_of(m->value));
        break;
    case CLOUD_REFUSED:
        a->stream_open = false;
        turn_cloud_refused(t, now, m->value >= UINT32_MAX - 1 ? UINT64_MAX : m->value * 1000000ull,
                           "the cloud is full");
        break;
    }
    if (!a->stream_open) a->lost_at = RUN_NEVER;
}

static int grow_inbox(struct answer *a)
{
    uint32_t room = a->in_room ? a->in_room * 2 : 16;
    struct message *grown = mem_alloc(room * sizeof *grown);
    if (!grown) return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < a->in_n; i++)
        grown[i] = a->inbox[(a->in_first + i) % a->in_room];
    mem_free(a->inbox);
    a->inbox = grown;
    a->in_first = 0;
    a->in_room = room;
    return 0;
}

static void schedule(struct answer *a, uint64_t at)
{
    if (at >= a->event_at) return;
    a->event_at = at;
    sim_push(a->sim, at, RUN_WAKE, a->self, ++a->wakes);
    a->refs++;
}

void answer_message(struct answer *a, uint32_t stream, struct message m, uint64_t now)
{
    if (a->over || stream != a->stream || !a->stream_open) return;
    m.due = phone_down(a->sim, phone_of(a), now, EVENT_BYTES);
    m.stream = stream;
    if (m.due >= a->cut_from && m.due < a->cut_to) return;
    if (a->in_n == a->in_room && grow_inbox(a)) {
        a->sim->failed = ERR_NO_MEMORY;
        return;
    }
    a->inbox[(a->in_first + a->in_n++) % a->in_room] = m;
    schedule(a, m.due);
}

/* ---- the turn ---- */

static void act(struct answer *a, const struct turn_action *action, uint64_t now)
{
    struct sim *s = a->sim;
    switch (action->kind) {
    case TURN_DO_CLOUD_OPEN:
        open_stream(a, action->n, now);
        break;
    case TURN_DO_CLOUD_EXTEND:
        sim_push(s, phone_up(s, phone_of(a), now, EVENT_BYTES), RUN_EXTEND, a->self,
                 (uint64_t)a->stream << 32 | action->n);
        a->refs++;
        break;
    case TURN_DO_CLOUD_STOP:
        close_stream(a, now);
        break;
    case TURN_DO_FEED:
        feed(a, action->from, action->to, now);
        break;
    case TURN_DO_LOCAL_STOP:
        a->feeding = a->pausing = false;
        a->step_at = RUN_NEVER;
        break;
    case TURN_DO_LOCAL_PAUSE:
        a->pausing = true;
        break;
    case TURN_DO_SHOW:
        break;
    case TURN_DO_END:
        close_stream(a, now);
        sim_answer_over(s, a, now);
        break;
    }
}

static void carry_out(struct answer *a, uint64_t now)
{
    struct turn_action action;
    while (!a->over && turn_take(&a->turn, &action))
        act(a, &action, now);
    if (a->over) return;
    look_again(a, now);
    a->wake = turn_wake(&a->turn, now);
}

static uint64_t next_time(const struct answer *a)
{
    uint64_t at = a->wake;
    if (a->feeding && a->step_at < at) at = a->step_at;
    if (a->stream_open && a->in_n > 0 && a->inbox[a->in_first].due < at)
        at = a->inbox[a->in_first].due;
    return a->lost_at < at ? a->lost_at : at;
}

static void handle(struct answer *a, uint64_t now)
{
    if (a->lost_at <= now) {
        turn_cloud_lost(&a->turn, now, "the connection was cut");
    } else if (a->stream_open && a->in_n > 0 && a->inbox[a->in_first].due <= now) {
        struct message m = a->inbox[a->in_first];
        a->in_first = (a->in_first + 1) % a->in_room;
        a->in_n--;
        take_message(a, &m, now);
    } else if (a->feeding && a->step_at <= now) {
        end_step(a, now);
    } else {
        turn_tick(&a->turn, now);
    }
    carry_out(a, now);
}

void answer_wake(struct sim *s, struct answer *a, uint64_t now)
{
    while (!a->over && !s->failed) {
        uint64_t at = next_time(a), first = heap_first(&s->heap);
        uint64_t horizon = !a->stream_open ? RUN_NEVER - 1 : first > now ? first : now;
        if (at > horizon) {
            if (at != RUN_NEVER) schedule(a, at);
            return;
        }
        s->result.events++;
        handle(a, at > now ? at : now);
        if (at > now) now = at;
    }
}

static void draw_cut(struct sim *s, struct answer *a, uint64_t now)
{
    const struct run_faults *f = &s->c->faults;
    a->cut_from = a->cut_to = RUN_NEVER;
    if (rng_u32(s->c->seed, DRAW_CUT, a->request) / 4294967296.0 >= f->cut_share) return;
    double at = rng_u32(s->c->seed, DRAW_CUT_AT, a->request) / 4294967296.0 * f->cut_within_s;
    a->cut_from = now + (uint64_t)(at * 1e6);
    a->cut_to = a->cut_from + (uint64_t)(f->cut_s * 1e6);
}

int answer_begin(struct sim *s, struct answer *a, uint64_t now)
{
    const struct run_config *c = s->c;
    const struct phone *p = &s->phones[a->phone];
    uint32_t most = c->fresh && a->r->output < c->answer_max ? a->r->output : c->answer_max;
    bool beyond = a->r->input >= c->context;
    if (!beyond && most > c->context - a->r->input) most = c->context - a->r->input;
    struct turn_config t = {.prompt_tokens = a->r->input,
                            .answer_max = most,
                            .pace = c->method->pace,
                            .reopen_max = RUN_REOPEN_MAX};
    a->began = now;
    a->event_at = a->wake = a->step_at = a->lost_at = a->kv_at = RUN_NEVER;
    a->beyond_context = beyond;
    draw_cut(s, a, now);
    phone_plan(s, a, now, &t);
    if (beyond) {
        t.use_cloud = true;
        t.use_local = false;
        t.cloud_tokens = most;
    }
    if (p->liar && t.use_cloud) {
        t.cloud_tokens = most;
        t.fixed = true;
    }
    if (!t.use_local) t.decode_us = 0.0;
    t.stall_us = t.use_local ? RUN_STALL_US : RUN_STALL_ALONE_US;
    struct err e;
    int code = turn_init(&a->turn, &t, &e);
    if (code) return code;
    turn_start(&a->turn, now);
    carry_out(a, now);
    answer_wake(s, a, now);
    return 0;
}

/* ---- events of the simulation ---- */

static void ask_cloud(struct sim *s, struct answer *a, uint32_t tokens_max, uint64_t now)
{
    if (s->c->frozen) {
        frozen_ask(s, a, tokens_max, now);
        return;
    }
    struct cloud_request r = {.device = a->phone,
                              .tenant = s->c->fresh ? 0 : 1 + a->phone % (SCHED_TENANTS_MAX - 1),
                              .stream = a->stream,
                              .owner = a,
                              .prompt = a->turn.c.prompt_tokens,
                              .have = a->turn.n,
                              .tokens_max = tokens_max,
                              .length = a->r->output,
                              .hashes = s->c->trace->hashes + a->r->first_hash,
                              .n_hashes = a->r->n_hashes,
                              .own = a->request,
                              .salt = a->copy,
                              .cell = a->copy,
                              .every_us = s->c->method->every_us};
    a->refs++; /* until the job has ended */
    if (cloud_ask(s->cloud, &r, now, &a->job)) s->failed = ERR_NO_MEMORY;
}

void answer_event(struct sim *s, struct answer *a, const struct heap_event *ev)
{
    uint32_t stream = (uint32_t)(ev->detail >> 32), n = (uint32_t)ev->detail;
    switch ((enum run_event)ev->kind) {
    case RUN_WAKE:
        if (a->over || ev->detail != a->wakes) break; /* an earlier one was set since */
        a->event_at = RUN_NEVER;
        answer_wake(s, a, ev->at);
        break;
    case RUN_ASK:
        if (!a->over && a->stream_open && stream == a->stream) ask_cloud(s, a, n, ev->at);
        break;
    case RUN_EXTEND:
        if (stream == a->stream) cloud_extend(s->cloud, a->job, n);
        frozen_extend(a, stream, n);
        break;
    case RUN_FROZEN:
        frozen_event(s, a, ev);
        break;
    default: /* RUN_STOP: of the stream before an ASK that comes later */
        cloud_cancel(s->cloud, a->job, ev->at);
        frozen_stop(s, a, n, ev->at);
        break;
    }
    sim_release(s, a);
}
