/* run: see run.h. */
#include "sim/run.h"

#include <math.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/rng.h"
#include "sim/run_impl.h"

/* Zero means "not yet" in several places, so time begins later. */
#define BEGIN_US 1000000ull
#define SAMPLE_US 100000ull
#define NONE UINT32_MAX

enum { ANSWERS = 256 /* in a chunk */, TELL_EVERY = 1024, DRAW_COPY = 32 };

void sim_push(struct sim *s, uint64_t at, enum run_event kind, uint32_t who, uint64_t detail)
{
    heap_push(&s->heap, (struct heap_event){at, 0, kind, who, detail});
}

/* ---- answers ---- */

static struct answer *answer_at(struct sim *s, uint32_t i)
{
    return &s->answers[i / ANSWERS][i % ANSWERS];
}

static int more_answers(struct sim *s)
{
    uint32_t chunks = s->n_answers / ANSWERS;
    if (chunks == s->room_answers) {
        uint32_t room = s->room_answers ? s->room_answers * 2 : 64;
        struct answer **grown = mem_realloc(s->answers, room * sizeof(struct answer *));
        if (!grown) return ERR_NO_MEMORY;
        s->answers = grown;
        s->room_answers = room;
    }
    s->answers[chunks] = mem_calloc(ANSWERS, sizeof(struct answer));
    if (!s->answers[chunks]) return ERR_NO_MEMORY;
    for (uint32_t i = ANSWERS; i-- > 0;) {
        s->answers[chunks][i].self = s->unused;
        s->unused = s->n_answers + i;
    }
    s->n_answers += ANSWERS;
    return 0;
}

static struct answer *answer_new(struct sim *s)
{
    if (s->unused == NONE && more_answers(s)) return NULL;
    uint32_t at = s->unused;
    struct answer *a = answer_at(s, at);
    s->unused = a->self;
    *a = (struct answer){.sim = s, .self = at, .used = true, .refs = 1};
    s->active++;
    return a;
}

static bool within_limits(const struct sim *s, const struct tally_answer *r)
{
    const struct run_limits *l = &s->c->limits;
    double first_us = l->first_us + l->first_token_us * r->prompt;
    return r->report.reason != TURN_FAILED && r->shown > 0 && r->report.ttft_us <= first_us &&
           (r->shown < 2 || r->report.tpot_max_us <= l->late_us ||
            r->report.tpot_max_us <= r->own_decode_us * 1.5);
}

/* Of what was shown after the handover; before it every token is the whole prompt's. */
static double quality_of(const struct sim *s, const struct answer *a)
{
    if (!a->result.report.refined || a->result.report.device_tokens == 0) return 1.0;
    double at = a->ratio * PLAN_RATIOS - 1.0;
    uint32_t i = at < 0.0 ? 0 : at < PLAN_RATIOS - 1 ? (uint32_t)at : PLAN_RATIOS - 2;
    at = at < 0.0 ? 0.0 : at;
    return s->c->quality.at[i] + (at - i) * (s->c->quality.at[i + 1] - s->c->quality.at[i]);
}

/* The cost that policy/plan expects, of what came to pass. */
static double cost_of(const struct sim *s, const struct tally_answer *r)
{
    struct plan_limits l;
    struct plan_weights w;
    plan_goal(s->c->goal, &l, &w);
    double engine_s = r->cloud.produced * s->c->decode_s + r->cloud.prefilled * s->c->prefill_s;
    double wait = (r->report.ttft_us - w.wait_free_us) / 1e6;
    return w.engine_s * engine_s + w.slot_s * r->cloud.slot_us / 1e6 + w.joule * r->joule +
           w.quality * (1.0 - r->quality) + w.wait_s * (wait > 0.0 ? wait : 0.0) +
           w.slow_s * r->slow_us / 1e6;
}

/* By how much the borrowed tokens were shown slower than the device would decode them. */
static double slow_us(const struct turn *t, double own_decode_us)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < t->shown; i++)
        if (t->tokens[i].source == TURN_CLOUD) last = i;
    if (last == 0 || own_decode_us <= 0.0 || t->tokens[t->shown - 1].source == TURN_CLOUD)
        return 0.0;
    double us = (double)(t->tokens[last].shown - t->tokens[0].shown) - own_decode_us * last;
    return us > 0.0 ? us : 0.0;
}

static void note_record(struct sim *s, const struct answer *a)
{
    struct run_record *k = s->result.records ? &s->result.records[a->request] : NULL;
    const struct tally_answer *r = &a->result;
    const struct cloud_cost *c = &r->cloud;
    if (!k) return;
    *k = (struct run_record){.cost = (float)r->cost,
                             .shown_first_us = (float)r->report.ttft_us,
                             .cached = a->cloud_cached,
                             .class = (uint8_t)tally_class(r->prompt),
                             .kept = r->kept};
    if (a->first_at > 0) k->first_us = (float)(a->first_at - a->opened_first);
    k->queue_us = (float)c->queued_us;
    k->service_us = (float)c->first_us;
    if (c->produced > 1) k->token_us = (float)(c->decode_slot_us / (c->produced - 1));
}

static void note_answer(struct sim *s, struct answer *a)
{
    const struct phone *p = &s->phones[a->phone];
    struct tally_answer *r = &a->result;
    struct turn *t = &a->turn;
    turn_report_of(t, &r->report);
    r->prompt = a->r->input;
    r->length = a->r->output;
    r->shown = t->shown;
    r->beyond_context = a->beyond_context;
    r->own_decode_us = t->c.use_local ? phone_decode_us(p) : 0.0;
    r->local_busy_us = a->busy_us;
    r->joule = a->busy_us / 1e6 * p->hardware->watts;
    r->local_prefilled = a->prefilled;
    r->handed_over = r->report.handover > 0;
    r->wasted_prefill = r->report.device_tokens == 0 ? a->prefilled : 0;
    r->quality = quality_of(s, a);
    r->honest = !p->liar;
    r->slow_us = slow_us(t, r->own_decode_us);
    tally_gaps(s->result.tally, t);
}

void sim_release(struct sim *s, struct answer *a)
{
    CHECK(a->used && a->refs > 0);
    if (--a->refs > 0) return;
    CHECK(a->over);
    a->result.kept = within_limits(s, &a->result);
    a->result.cost = cost_of(s, &a->result);
    note_record(s, a);
    tally_add(s->result.tally, &a->result);
    mem_free(a->inbox);
    a->inbox = NULL;
    uint32_t at = a->self;
    a->used = false;
    a->self = s->unused;
    s->unused = at;
    s->active--;
    s->done++;
    if (s->c->progress && s->done % TELL_EVERY == 0)
        s->c->progress(s->c->progress_arg, s->done, s->all);
}

void sim_add_cost(struct sim *s, struct answer *a, const struct cloud_cost *c)
{
    struct cloud_cost *sum = &a->result.cloud;
    if (sum->first_us <= 0.0) sum->first_us = c->first_us;
    sum->prefilled += c->prefilled;
    sum->cached += c->cached;
    sum->produced += c->produced;
    sum->granted += c->granted;
    sum->asked += c->asked;
    sum->refused = sum->refused || c->refused;
    sum->engine_us += c->engine_us;
    sum->kv_byte_s += c->kv_byte_s;
    sum->slot_us += c->slot_us;
    sum->decode_slot_us += c->decode_slot_us;
    sum->queued_us += c->queued_us;
    sim_release(s, a);
}

void sim_answer_over(struct sim *s, struct answer *a, uint64_t at)
{
    a->over = true;
    note_answer(s, a);
    phone_learn(s, a, at);
    turn_release(&a->turn);
    if (at > s->result.ended_at) s->result.ended_at = at;
    sim_push(s, at, RUN_FREE, a->phone, 0);
}

/* ---- devices ---- */

static int phone_new(struct sim *s, uint32_t kind, uint32_t *ret_i)
{
    if (s->n_phones == s->room_phones) {
        uint32_t room = s->room_phones ? s->room_phones * 2 : 1024;
        struct phone *grown = mem_realloc(s->phones, room * sizeof *grown);
        if (!grown || room > RUN_DEVICES_MAX) return ERR_NO_MEMORY;
        s->phones = grown;
        s->room_phones = room;
    }
    *ret_i = s->n_phones++;
    phone_init(s, *ret_i, kind);
    return 0;
}

static void phone_free(struct sim *s, uint32_t i)
{
    uint32_t kind = s->phones[i].kind;
    s->phones[i].next_idle = NONE;
    if (s->idle_first[kind] == NONE)
        s->idle_first[kind] = i;
    else
        s->phones[s->idle_last[kind]].next_idle = i;
    s->idle_last[kind] = i;
}

static int phone_take(struct sim *s, uint32_t kind, uint32_t *ret_i)
{
    if (s->idle_first[kind] == NONE) return phone_new(s, kind, ret_i);
    *ret_i = s->idle_first[kind];
    s->idle_first[kind] = s->phones[*ret_i].next_idle;
    return 0;
}

static int open_phones(struct sim *s)
{
    int code = 0;
    for (uint32_t k = 0; k < HARDWARE_MIX_MAX; k++)
        s->idle_first[k] = NONE;
    for (uint32_t i = 0, phone; code == 0 && i < s->c->devices; i++) {
        code = phone_new(s, hardware_mix_at(s->c->mix, (i + 0.5) / s->c->devices), &phone);
        if (code == 0) phone_free(s, phone);
    }
    return code;
}

/* ---- arrivals ---- */

static uint32_t requests_of_copy(const struct run_config *c)
{
    return c->requests && c->requests < c->trace->n ? c->requests : c->trace->n;
}

/* When the next request of a copy arrives, whose place in the trace is its own. */
static uint64_t arrival_of(const struct sim *s, uint32_t copy)
{
    const struct trace *t = s->c->trace;
    uint64_t span = trace_span_us(t), at = t->requests[s->copy_at[copy] % t->n].at_us;
    uint64_t since = at + s->copy_at[copy] / t->n * span - s->copy_from[copy];
    return BEGIN_US + (uint64_t)((double)since / s->c->speed);
}

static int open_copies(struct sim *s, struct err *e)
{
    const struct run_config *c = s->c;
    s->copy_from = mem_calloc(c->copies, sizeof *s->copy_from);
    s->copy_at = mem_calloc(c->copies, sizeof *s->copy_at);
    s->copy_done = mem_calloc(c->copies, sizeof *s->copy_done);
    if (!s->copy_from || !s->copy_at || !s->copy_done)
        return err_set(e, ERR_NO_MEMORY, "no memory for %u copies of a trace", c->copies);
    for (uint32_t k = 0; k < c->copies; k++) {
        uint32_t copy = s->first_copy + k;
        double share = copy > 0 ? rng_u32(c->seed, DRAW_COPY, copy) / 4294967296.0 : 0.0;
        s->copy_from[k] = (uint64_t)(share * (double)trace_span_us(c->trace));
        while (s->copy_at[k] < c->trace->n &&
               c->trace->requests[s->copy_at[k]].at_us < s->copy_from[k])
            s->copy_at[k]++;
        sim_push(s, arrival_of(s, k), RUN_ARRIVAL, k, 0);
    }
    s->total = s->arrived + (uint64_t)requests_of_copy(c) * c->copies;
    return 0;
}

static int arrive(struct sim *s, uint32_t copy, uint64_t now)
{
    const struct trace *t = s->c->trace;
    uint32_t phone;
    int code = phone_take(s, phone_kind_of(s, s->arrived), &phone);
    if (code) return code;
    if (++s->busy > s->result.answers_most) s->result.answers_most = s->busy;
    struct answer *a = answer_new(s);
    if (!a) return ERR_NO_MEMORY;
    a->r = &t->requests[s->copy_at[copy] % t->n];
    a->request = s->arrived++;
    if (now > s->result.arrived_at) s->result.arrived_at = now;
    phone_place(s, &s->phones[phone], a->request, now);
    a->phone = phone;
    a->copy = s->first_copy + copy;
    s->copy_at[copy]++;
    if (++s->copy_done[copy] < requests_of_copy(s->c))
        sim_push(s, arrival_of(s, copy), RUN_ARRIVAL, copy, 0);
    code = answer_begin(s, a, now);
    if (code == 0) sim_release(s, a);
    return code;
}

/* ---- the loop ---- */

static void on_send(void *arg, const struct cloud_request *r, enum cloud_message kind,
                    uint32_t value, uint32_t cached, uint64_t now)
{
    (void)arg;
    struct message m = {.value = value, .cached = cached, .kind = (uint8_t)kind};
    answer_message(r->owner, r->stream, m, now);
}

static void on_ended(void *arg, const struct cloud_request *r, const struct cloud_cost *c)
{
    sim_add_cost(arg, r->owner, c);
}

static int handle(struct sim *s, const struct heap_event *ev)
{
    s->now = ev->at;
    s->result.events++;
    if (ev->kind >= CLOUD_EVENT) {
        cloud_event(s->cloud, ev);
        return 0;
    }
    switch ((enum run_event)ev->kind) {
    case RUN_ARRIVAL:
        return arrive(s, ev->who, ev->at);
    case RUN_FREE:
        s->busy--;
        phone_free(s, ev->who);
        return 0;
    case RUN_SAMPLE:
        sketch_add(s->result.decoding, cloud_decoding(s->cloud));
        if (s->arrived < s->total) sim_push(s, ev->at + SAMPLE_US, RUN_SAMPLE, 0, 0);
        return 0;
    default:
        answer_event(s, answer_at(s, ev->who), ev);
        return 0;
    }
}

static int run(struct sim *s, struct err *e)
{
    const struct run_config *c = s->c;
    struct cloud_calls calls = {on_send, on_ended, s};
    struct cloud_config cloud = c->cloud;
    struct heap_event ev;
    cloud.tenants = RUN_DEVICES_MAX;
    int code = cloud_new(&cloud, &s->heap, &calls, &s->cloud, e);
    if (code == 0) code = open_copies(s, e);
    if (code == 0) code = open_phones(s);
    if (code == 0) sim_push(s, BEGIN_US, RUN_SAMPLE, 0, 0);
    while (code == 0 && heap_pop(&s->heap, &ev)) {
        code = handle(s, &ev);
        if (s->heap.failed || s->failed) code = ERR_NO_MEMORY;
    }
    if (code == ERR_NO_MEMORY) err_set(e, code, "no memory for the simulation");
    CHECK(code || (s->done == s->total && s->active == 0));
    return code;
}

static void release(struct sim *s)
{
    for (uint32_t i = 0; i < s->n_answers; i++) {
        struct answer *a = answer_at(s, i);
        if (!a->used) continue;
        mem_free(a->inbox);
        if (!a->over) turn_release(&a->turn);
    }
    for (uint32_t i = 0; i < s->n_answers / ANSWERS; i++)
        mem_free(s->answers[i]);
    cloud_free(s->cloud);
    heap_release(&s->heap);
    mem_free(s->answers);
    mem_free(s->phones);
    mem_free(s->copy_from);
    mem_free(s->copy_at);
    mem_free(s->copy_done);
}

/* ---- parts ---- */

/* A copy keeps to one cell of the cloud, so cells are simulated one after the other: the events of
 * one fit the processor's caches. A pool for decoding serves all cells: then there is one part. */
static uint32_t parts_of(const struct run_config *c)
{
    uint32_t cells = (c->cloud.engines + CLOUD_CELL_MAX - 1) / CLOUD_CELL_MAX;
    if (c->cloud.decode_engines > 0) return 1;
    return cells < c->copies ? cells : c->copies;
}

/* Of n things, those of part i of `parts`. */
static uint32_t share_of(uint32_t n, uint32_t i, uint32_t parts)
{
    return n / parts + (i < n % parts);
}

static void add_stats(struct cloud_stats *sum, const struct cloud_stats *c)
{
    sum->prefill_tokens += c->prefill_tokens;
    sum->cached_tokens += c->cached_tokens;
    sum->decode_tokens += c->decode_tokens;
    sum->steps += c->steps;
    sum->refused += c->refused;
    sum->grants_cut += c->grants_cut;
    sum->busy_us += c->busy_us;
    sum->decode_busy_us += c->decode_busy_us;
    sum->running += c->running;
    sum->waiting += c->waiting;
}

/* Adds part i to *r, whose totals exist. */
static int run_part(const struct run_config *config, uint32_t i, struct run_result *r,
                    struct err *e)
{
    struct run_config c = *config;
    uint32_t first = 0, parts = r->parts;
    for (uint32_t k = 0; k < i; k++)
        first += share_of(config->copies, k, parts);
    c.copies = share_of(config->copies, i, parts);
    c.devices = share_of(config->devices, i, parts);
    c.cloud.engines = share_of(config->cloud.engines, i, parts);
    struct sim s = {.c = &c, .unused = NONE, .result = *r, .first_copy = first};
    s.all = (uint64_t)requests_of_copy(config) * config->copies;
    s.arrived = s.done = r->requests;
    s.result.answers_most = 0;
    int code = run(&s, e);
    if (code == 0) {
        struct cloud_stats stats;
        cloud_stats_of(s.cloud, &stats);
        add_stats(&s.result.cloud, &stats);
        s.result.devices += s.n_phones;
        s.result.answers_most += r->answers_most;
        s.result.requests = s.done;
        *r = s.result;
    }
    release(&s);
    return code;
}

int run_simulate(const struct run_config *config, struct run_result *ret_result, struct err *e)
{
    struct run_result r = {.began_at = BEGIN_US, .arrived_at = BEGIN_US, .ended_at = BEGIN_US};
    CHECK(config->copies > 0 && config->copies <= RUN_COPIES_MAX && config->speed > 0.0);
    uint64_t total = (uint64_t)requests_of_copy(config) * config->copies;
    r.tally = mem_calloc(1, sizeof *r.tally);
    r.decoding = mem_calloc(1, sizeof *r.decoding);
    if (config->record) r.records = mem_calloc(total, sizeof *r.records);
    r.parts = parts_of(config);
    int code = r.tally && r.decoding && (r.records || !config->record)
                   ? 0
                   : err_set(e, ERR_NO_MEMORY, "no memory for the simulation's totals");
    for (uint32_t i = 0; code == 0 && i < r.parts; i++)
        code = run_part(config, i, &r, e);
    if (code)
        run_release(&r);
    else
        *ret_result = r;
    return code;
}

void run_release(struct run_result *r)
{
    mem_free(r->tally);
    mem_free(r->decoding);
    mem_free(r->records);
    *r = (struct run_result){.requests = 0};
}

void run_know(const struct run_config *config, const struct run_result *r,
              struct run_known *ret_known)
{
    struct run_known k = {.records = r->records};
    double n[TALLY_CLASSES] = {0}, squares[TALLY_CLASSES] = {0};
    lengths_clear(&k.lengths);
    for (uint32_t i = 0; i < config->trace->n; i++)
        lengths_add(&k.lengths, config->trace->requests[i].output, false);
    for (uint64_t i = 0; i < r->requests; i++) {
        uint32_t c = r->records[i].class;
        double us = r->records[i].first_us;
        if (us <= 0.0) continue;
        n[c]++;
        k.first_mean[c] += us;
        squares[c] += us * us;
    }
    for (uint32_t c = 0; c < TALLY_CLASSES; c++) {
        if (n[c] <= 0.0) continue;
        k.first_mean[c] /= n[c];
        double variance = squares[c] / n[c] - k.first_mean[c] * k.first_mean[c];
        k.first_deviation[c] = variance > 0.0 ? sqrt(variance) : 0.0;
    }
    const struct tally_sums *all = &r->tally->all;
    if (all->cloud_tokens > 0) k.token_us = all->decode_slot_s * 1e6 / (double)all->cloud_tokens;
    *ret_known = k;
}
