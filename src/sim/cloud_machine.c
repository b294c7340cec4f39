/* cloud_machine: one engine of a simulated cloud: what runs on it, its memory, its steps. */
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "sim/cloud_impl.h"
#include "sim/trace.h"

enum { ENDS_WEIGHT = 16, STEP_US = 100000 };

_Static_assert((int)BLOCK_PAGES *(int)ADMIT_PAGE == (int)TRACE_BLOCK, "blocks are whole pages");

int machine_open(struct machine *n, struct err *e)
{
    const struct cloud_config *c = &n->cloud->c;
    n->slots = c->slots ? c->slots : c->engine->slots;
    n->slots_now = n->slots;
    n->pages_total = c->engine->kv_tokens / ADMIT_PAGE;
    n->running = mem_calloc(n->slots, sizeof(struct work *));
    n->items = mem_calloc(n->slots, sizeof *n->items);
    n->inside_of = mem_calloc(SCHED_TENANTS_MAX, sizeof *n->inside_of);
    if (!n->running || !n->items || !n->inside_of)
        return err_set(e, ERR_NO_MEMORY, "no memory for engine %u", n->index);
    uint32_t idle = (uint32_t)((uint64_t)n->pages_total * c->cache_percent / 100 / BLOCK_PAGES);
    int code = admit_line_new(n->slots + c->queue_max, &n->line, e);
    if (code == 0) code = sched_new(&n->sched, e);
    if (code == 0)
        code =
            blocks_new(n->pages_total / BLOCK_PAGES + 1, n->only_decode ? 0 : idle, &n->blocks, e);
    return code;
}

void machine_close(struct machine *n)
{
    admit_line_free(n->line);
    sched_free(n->sched);
    blocks_free(n->blocks);
    mem_free(n->running);
    mem_free(n->items);
    mem_free(n->inside_of);
}

static uint32_t tenant_of(const struct work *w)
{
    return w->r.tenant;
}

/* ---- the prefix cache ---- */

/* Blocks without a hash are the request's own: only it can find them, when it asks again. */
static uint64_t key_of(const struct work *w, uint32_t block)
{
    if (block < w->r.n_hashes) return w->r.salt << 32 | w->r.hashes[block];
    return 1ull << 63 | w->r.own << 16 | (block & 0xFFFF);
}

/* Go along the cached blocks of the job's prompt. One token must be left to compute. */
static void follow(struct machine *n, struct work *w)
{
    while (w->fed / TRACE_BLOCK == w->n_path &&
           (w->n_path + 1) * (uint32_t)TRACE_BLOCK < w->n_tokens &&
           blocks_find(n->blocks, key_of(w, w->n_path))) {
        uint32_t own = admit_pages(w->fed) - w->n_path * BLOCK_PAGES;
        n->pages_own -= own; /* a part that was computed already */
        w->n_path++;
        w->cost.cached += w->n_path * TRACE_BLOCK - w->fed;
        w->fed = w->n_path * TRACE_BLOCK;
    }
}

static uint32_t length_of(const struct work *w)
{
    return w->fed + (w->fed == w->n_tokens && w->produced > 0 ? w->produced - 1 : 0);
}

static uint32_t own_pages(const struct work *w)
{
    return admit_pages(length_of(w)) - w->n_path * BLOCK_PAGES;
}

/* Blocks of the prompt that are computed join the cache. */
static void keep_blocks(struct machine *n, struct work *w)
{
    while ((w->n_path + 1) * (uint32_t)TRACE_BLOCK <= w->fed) {
        bool there = blocks_find(n->blocks, key_of(w, w->n_path));
        if (!there && !blocks_add(n->blocks, key_of(w, w->n_path))) return;
        n->pages_own -= BLOCK_PAGES; /* now counted with the blocks */
        w->n_path++;
    }
}

/* ---- memory ---- */

static struct admit_memory memory_of(const struct machine *n)
{
    uint32_t idle = blocks_idle(n->blocks), known = blocks_known(n->blocks) * BLOCK_PAGES;
    uint32_t taken = known + n->pages_own;
    return (struct admit_memory){n->pages_total > taken ? n->pages_total - taken : 0,
                                 idle * BLOCK_PAGES, n->promised};
}

static uint32_t positions_max(const struct machine *n)
{
    return n->cloud->c.engine->kv_tokens;
}

static struct admit_request request_of(const struct machine *n, const struct work *w, uint32_t most)
{
    return (struct admit_request){
        .tokens = w->n_tokens, .most = most > 0 ? most : 1, .positions_max = positions_max(n)};
}

static uint32_t fair_of(const struct machine *n)
{
    struct admit_pressure p = {admit_waiting(n->line), n->slots,
                               stepcost_decode_us(&n->cost, n->n_running)};
    return admit_fair(&p);
}

static void set_promise(struct machine *n, struct work *w)
{
    struct admit_request wanted = request_of(n, w, w->granted);
    uint32_t whole = admit_pages(admit_positions(&wanted, wanted.most));
    uint32_t has = admit_pages(length_of(w)), promise = whole > has ? whole - has : 0;
    CHECK(n->promised >= w->promise);
    n->promised += promise - w->promise;
    w->promise = promise;
}

static void free_pages(struct machine *n)
{
    while (blocks_known(n->blocks) * BLOCK_PAGES + n->pages_own > n->pages_total &&
           blocks_evict(n->blocks)) {
    }
}

/* ---- into work ---- */

enum admit_entry machine_enter(struct machine *n, struct work *w, uint64_t now)
{
    uint32_t tenant = tenant_of(w);
    struct admit_state state = {.slots = n->slots_now,
                                .slots_max = n->slots,
                                .queue_max = n->cloud->c.queue_max,
                                .inside = n->inside,
                                .inside_own = n->inside_of[tenant],
                                .keyed = tenant != 0};
    enum admit_entry entry = admit_enter(&state);
    if (entry != ADMIT_ENTERS) return entry;
    n->inside++;
    n->inside_of[tenant]++;
    w->machine = n->index;
    n->line_tokens += w->n_tokens - w->fed;
    if (w->r.have > 0)
        admit_rejoin(n->line, w, tenant, 0);
    else
        admit_join(n->line, w, tenant, 0);
    if (!n->busy || n->rests) machine_begin_step(n, now);
    return ADMIT_ENTERS;
}

uint32_t machine_retry_s(const struct machine *n)
{
    struct admit_load load = {admit_waiting(n->line), n->line_tokens + n->prefill_left,
                              n->cost.prefill_us, n->between_ends_us};
    return admit_retry_s(&load);
}

static void leave(struct machine *n, struct work *w, uint64_t now)
{
    uint32_t tenant = tenant_of(w);
    CHECK(n->inside > 0 && n->inside_of[tenant] > 0);
    n->inside--;
    n->inside_of[tenant]--;
    if (n->last_end > 0) {
        double us = (double)(now - n->last_end);
        n->between_ends_us +=
            (us - n->between_ends_us) / (n->between_ends_us > 0.0 ? ENDS_WEIGHT : 1);
    }
    n->last_end = admit_waiting(n->line) > 0 ? now : 0;
}

/* Take job i off the engine: its blocks go idle, last ones first. */
static struct work *take_off(struct machine *n, uint32_t i, uint64_t now)
{
    struct work *w = n->running[i];
    n->pages_own -= own_pages(w);
    for (; w->n_path > 0; w->n_path--)
        blocks_release(n->blocks, key_of(w, w->n_path - 1));
    n->promised -= w->promise;
    w->promise = 0;
    w->running = false;
    admit_ended(n->line, tenant_of(w));
    leave(n, w, now);
    n->running[i] = n->running[--n->n_running];
    n->items[i] = n->items[n->n_running];
    return w;
}

static void say(struct machine *n, const struct work *w, enum cloud_message kind, uint32_t value,
                uint64_t now)
{
    uint32_t cached = kind == CLOUD_GRANT ? w->cost.cached : 0;
    n->cloud->calls.send(n->cloud->calls.arg, &w->r, kind, value, cached, now);
}

static void end_job(struct machine *n, uint32_t i, enum cloud_end end, uint64_t now)
{
    struct work *w = take_off(n, i, now);
    if (!w->cancelled) say(n, w, CLOUD_DONE, end, now);
    work_end(n->cloud, w, now);
}

struct sweep {
    struct machine *n;
    uint64_t now;
};

static bool leaves_line(void *arg, void *waiting)
{
    struct sweep *s = arg;
    struct work *w = waiting;
    if (!w->cancelled) return false;
    s->n->line_tokens -= w->n_tokens - w->fed;
    s->n->blocked = NULL;
    leave(s->n, w, s->now);
    work_end(s->n->cloud, w, s->now);
    return true;
}

static void drop_cancelled(struct machine *n, uint64_t now)
{
    struct sweep s = {n, now};
    if (!n->any_cancelled) return;
    n->any_cancelled = false;
    for (uint32_t i = n->n_running; i-- > 0;)
        if (n->running[i]->cancelled) end_job(n, i, CLOUD_END_GONE, now);
    admit_sweep(n->line, leaves_line, &s);
}

static void extend_grants(struct machine *n)
{
    for (uint32_t i = 0; i < n->n_running; i++) {
        struct work *w = n->running[i];
        if (w->tokens_max <= w->granted) continue;
        struct admit_memory memory = memory_of(n);
        struct admit_request ask = request_of(n, w, w->tokens_max);
        ask.least = 1;
        ask.fair = fair_of(n);
        ask.shared = admit_pages(length_of(w));
        memory.promised -= w->promise;
        uint32_t granted = admit_grant(&memory, &ask);
        if (granted <= w->granted) continue;
        w->granted = granted;
        set_promise(n, w);
    }
}

static uint32_t spare_pages(const struct machine *n)
{
    struct admit_memory m = memory_of(n);
    return m.free + m.idle > m.promised ? m.free + m.idle - m.promised : 0;
}

static void put_on(struct machine *n, struct work *w, uint64_t now)
{
    bool first = !w->decodes;
    admit_begin(n->line);
    w->running = true;
    w->arrived = n->arrivals++;
    n->running[n->n_running++] = w;
    if (w->granted < w->tokens_max) {
        n->stats.grants_cut++;
        w->tokens_max = w->granted;
    }
    set_promise(n, w);
    if (!first) return;
    w->began_at = now;
    w->cost.granted = w->granted;
    w->cost.queued_us = now - w->asked_at;
    n->stats.cached_tokens += w->cost.cached;
    say(n, w, CLOUD_GRANT, w->granted, now);
}

/* False: the next job must wait, and those after it. */
static bool admit_job(struct machine *n, struct work *w, uint64_t now)
{
    uint32_t fed = w->fed;
    if (w->decodes)
        n->pages_own += admit_pages(length_of(w));
    else
        follow(n, w);
    struct admit_request wanted = request_of(n, w, w->tokens_max);
    struct admit_memory memory = memory_of(n);
    wanted.fair = fair_of(n);
    wanted.shared = w->decodes ? admit_pages(length_of(w)) : w->n_path * BLOCK_PAGES;
    w->granted = w->n_tokens < positions_max(n) ? admit_grant(&memory, &wanted) : 0;
    if (w->granted > 0) {
        n->line_tokens -= w->n_tokens - fed;
        put_on(n, w, now);
        return true;
    }
    if (w->decodes) n->pages_own -= admit_pages(length_of(w));
    for (; w->n_path > 0; w->n_path--)
        blocks_release(n->blocks, key_of(w, w->n_path - 1));
    w->fed = fed;
    if (!w->decodes) w->cost.cached = 0;
    if (n->n_running > 0 && w->n_tokens < positions_max(n)) {
        n->blocked = w;
        n->blocked_at = spare_pages(n);
        return false;
    }
    n->line_tokens -= w->n_tokens - w->fed;
    admit_refuse(n->line);
    leave(n, w, now);
    say(n, w, CLOUD_DONE, CLOUD_END_GONE, now); /* it can never fit */
    work_end(n->cloud, w, now);
    return true;
}

static void admit_jobs(struct machine *n, uint64_t now)
{
    struct work *w;
    while (n->n_running < n->slots && (w = admit_next(n->line)) != NULL) {
        bool hopeless = w == n->blocked && n->n_running > 0 && spare_pages(n) <= n->blocked_at;
        if (hopeless || !admit_job(n, w, now)) {
            n->slots_now = n->n_running;
            return;
        }
    }
    n->blocked = NULL;
    n->slots_now = n->slots;
}

/* ---- a step ---- */

/* Whether the job may have a token in a step that begins now. */
static bool rests(const struct work *w, uint64_t now)
{
    return w->fed == w->n_tokens && w->r.every_us > 0 && now < w->next_at;
}

/* Fills items; returns when the first resting job wants a step. */
static uint64_t list_items(struct machine *n, uint64_t now, uint32_t *ret_decodes)
{
    uint64_t wake = UINT64_MAX;
    n->prefill_left = 0;
    *ret_decodes = 0;
    for (uint32_t i = 0; i < n->n_running; i++) {
        struct work *w = n->running[i];
        n->items[i] = (struct sched_item){.waiting = w->n_tokens - w->fed,
                                          .tenant = tenant_of(w),
                                          .arrived = w->arrived,
                                          .served = w->served};
        n->prefill_left += n->items[i].waiting;
        *ret_decodes += n->items[i].waiting == 0;
        if (rests(w, now) && w->next_at < wake) wake = w->next_at;
    }
    return wake;
}

/* The time of the step that the items make. */
static double step_us(struct machine *n, uint64_t now)
{
    const struct hardware_engine *h = n->cloud->c.engine;
    double prompts = h->step_us, decodes = 0.0;
    n->step_decodes = n->step_prompts = 0;
    for (uint32_t i = 0; i < n->n_running; i++) {
        struct work *w = n->running[i];
        uint32_t given = n->items[i].given;
        w->weight = 0.0;
        if (given > 0 && rests(w, now)) given = n->items[i].given = 0;
        if (given == 0) continue;
        if (w->fed < w->n_tokens) {
            double middle = w->fed + given / 2.0;
            w->weight = given * (h->prefill_us + h->prefill_depth_us * middle);
            prompts += w->weight;
            n->step_prompts += given;
        } else {
            w->weight = h->decode_us + h->decode_depth_us * length_of(w);
            decodes += w->weight;
            n->step_decodes++;
        }
    }
    if (n->step_decodes > 0 && prompts < h->decode_base_us) prompts = h->decode_base_us;
    return prompts + decodes > h->least_us ? prompts + decodes : h->least_us;
}

/* Each job pays for its part of the step, and for its memory while the step lasts. */
static void share_cost(struct machine *n, double us)
{
    double all = 0.0;
    for (uint32_t i = 0; i < n->n_running; i++)
        all += n->running[i]->weight;
    for (uint32_t i = 0; i < n->n_running; i++) {
        struct work *w = n->running[i];
        if (all > 0.0) w->cost.engine_us += us * w->weight / all;
        w->cost.kv_byte_s += us / 1e6 * n->cloud->c.engine->kv_bytes * length_of(w);
    }
}

void machine_begin_step(struct machine *n, uint64_t now)
{
    const struct cloud_config *c = &n->cloud->c;
    struct sched_limits limits = {.step_tokens = c->engine->step_tokens, .spans = SCHED_ITEMS_MAX};
    uint32_t decodes;
    drop_cancelled(n, now);
    extend_grants(n);
    admit_jobs(n, now);
    n->busy = false;
    if (n->n_running == 0) return;
    for (uint32_t i = 0; i < n->n_running; i++)
        if (n->running[i]->fed < n->running[i]->n_tokens) {
            uint32_t before = n->running[i]->cost.cached;
            follow(n, n->running[i]);
            n->stats.cached_tokens += n->running[i]->cost.cached - before;
            if (n->running[i]->cost.cached > before) set_promise(n, n->running[i]);
        }
    uint64_t wake = list_items(n, now, &decodes);
    stepcost_limit(&n->cost, decodes, (double)(c->step_us ? c->step_us : STEP_US),
                   c->engine->step_tokens, &limits);
    sched_step(n->sched, n->items, n->n_running, &limits);
    double us = step_us(n, now);
    uint64_t end = now + (uint64_t)us;
    n->busy = true;
    n->rests = n->step_decodes + n->step_prompts == 0;
    if (n->rests)
        end = wake > now ? wake : now + 1;
    else
        share_cost(n, (double)(uint64_t)us);
    n->step_began = now;
    heap_push(n->cloud->heap,
              (struct heap_event){end, 0, CLOUD_STEP_ENDS, n->index, ++n->step_number});
}

/* What becomes of a job after its part of a step; false: it is over, *ret_end says how. */
static bool take_result(struct machine *n, struct work *w, uint32_t given, uint64_t now,
                        enum cloud_end *ret_end)
{
    uint32_t before = own_pages(w);
    if (w->fed < w->n_tokens) {
        w->fed += given;
        w->cost.prefilled += given;
        n->stats.prefill_tokens += given;
        say(n, w, CLOUD_PROGRESS, w->fed, now);
    } else {
        n->stats.decode_tokens++;
    }
    bool samples = w->fed == w->n_tokens;
    *ret_end = CLOUD_END_STOP;
    bool over = samples && w->r.have + w->produced >= w->r.length;
    if (samples && !over) {
        say(n, w, CLOUD_TOKEN, w->r.have + w->produced, now);
        if (w->produced++ == 0) {
            w->first_at = now;
            n->cloud->decoding++;
        }
        w->cost.produced++;
        w->next_at = now + w->r.every_us;
        *ret_end =
            w->n_tokens + w->produced >= positions_max(n) ? CLOUD_END_LENGTH : CLOUD_END_BUDGET;
        over = *ret_end == CLOUD_END_LENGTH || w->produced >= w->granted ||
               w->produced >= w->tokens_max;
    }
    n->pages_own += own_pages(w) - before;
    set_promise(n, w);
    keep_blocks(n, w);
    return !over;
}

void machine_end_step(struct machine *n, uint64_t now)
{
    double us = (double)(now - n->step_began);
    if (n->step_decodes + n->step_prompts > 0) {
        stepcost_note(&n->cost, n->step_decodes, n->step_prompts, us);
        n->stats.busy_us += us;
        n->stats.steps++;
    }
    for (uint32_t i = n->n_running; i-- > 0;) {
        struct work *w = n->running[i];
        uint32_t given = n->items[i].given;
        enum cloud_end end;
        if (given == 0) continue;
        w->served = n->stats.steps;
        if (!take_result(n, w, given, now, &end))
            end_job(n, i, end, now);
        else if (n->only_prefill && w->produced > 0 && !w->cancelled)
            work_move(n->cloud, take_off(n, i, now), now);
    }
    free_pages(n);
    machine_begin_step(n, now);
}
