/* cloud: see cloud.h. */
#include "sim/cloud.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"
#include "sim/cloud_impl.h"

enum { WORKS = 1024 /* in a chunk */ };
#define NONE UINT32_MAX

/* ---- jobs ---- */

static struct work *work_at(const struct cloud *c, uint32_t at)
{
    return &c->works[at / WORKS][at % WORKS];
}

static int more_works(struct cloud *c)
{
    uint32_t chunks = c->n_works / WORKS;
    if (chunks == c->room) {
        uint32_t room = c->room ? c->room * 2 : 64;
        struct work **grown = mem_realloc(c->works, room * sizeof(struct work *));
        if (!grown) return ERR_NO_MEMORY;
        c->works = grown;
        c->room = room;
    }
    c->works[chunks] = mem_calloc(WORKS, sizeof(struct work));
    if (!c->works[chunks]) return ERR_NO_MEMORY;
    for (uint32_t i = WORKS; i-- > 0;) {
        c->works[chunks][i].next_free = c->unused;
        c->unused = c->n_works + i;
    }
    c->n_works += WORKS;
    return 0;
}

static struct work *work_new(struct cloud *c, struct cloud_job *ret_job)
{
    if (c->unused == NONE && more_works(c)) return NULL;
    uint32_t at = c->unused;
    struct work *w = work_at(c, at);
    c->unused = w->next_free;
    *w = (struct work){.used = true, .serial = ++c->serials, .next_free = at};
    *ret_job = (struct cloud_job){at, w->serial};
    return w;
}

static void tell_cost(struct cloud *c, struct work *w)
{
    c->calls.ended(c->calls.arg, &w->r, &w->cost);
    uint32_t at = w->next_free;
    w->used = false;
    w->next_free = c->unused;
    c->unused = at;
}

void work_end(struct cloud *c, struct work *w, uint64_t now)
{
    w->cost.slot_us = w->began_at > 0 ? (double)(now - w->began_at) : 0.0;
    if (w->first_at > 0) {
        c->decoding--;
        w->cost.first_us = (double)(w->first_at - w->began_at);
    }
    w->cost.decode_slot_us = w->first_at > 0 ? (double)(now - w->first_at) : 0.0;
    if (c->quotas) {
        quota_spend(&c->quotas[w->r.device], now, w->produced);
        quota_leave(&c->quotas[w->r.device]);
    }
    tell_cost(c, w);
}

static struct work *find(const struct cloud *c, struct cloud_job job)
{
    if (job.serial == 0) return NULL;
    struct work *w = work_at(c, job.at);
    return w->used && w->serial == job.serial ? w : NULL;
}

void cloud_extend(struct cloud *c, struct cloud_job job, uint32_t tokens_max)
{
    struct work *w = find(c, job);
    if (w && tokens_max > w->tokens_max) w->tokens_max = tokens_max;
}

void cloud_cancel(struct cloud *c, struct cloud_job job, uint64_t now)
{
    struct work *w = find(c, job);
    if (!w || w->cancelled) return;
    w->cancelled = true;
    struct machine *n = &c->machines[w->machine];
    n->any_cancelled = true;
    if (!n->busy || n->rests) machine_begin_step(n, now);
}

/* ---- the door ---- */

/* Where a prompt's beginning sends it: as cloud/upstream routes, by its first blocks. */
static uint64_t beginning_of(const struct cloud_request *r)
{
    uint64_t hash = fnv_step(FNV_BEGIN, r->salt);
    if (r->n_hashes == 0) return fnv_step(hash, (uint64_t)r->device << 32 | r->prompt);
    for (uint32_t i = 0; i < r->n_hashes && i < 4; i++)
        hash = fnv_step(hash, r->hashes[i]);
    return hash;
}

static struct machine *choose(struct cloud *c, const struct cloud_request *r, uint64_t now)
{
    struct route_server servers[ROUTE_SERVERS_MAX];
    uint32_t first = r->cell % c->n_cells * c->cell_machines;
    uint32_t n = c->c.engines - first < c->cell_machines ? c->c.engines - first : c->cell_machines;
    if (n == 1) return &c->machines[first];
    for (uint32_t i = 0; i < n; i++) {
        const struct machine *g = &c->machines[first + i];
        servers[i] = (struct route_server){.name = fnv_step(FNV_BEGIN, first + i),
                                           .outstanding = g->inside,
                                           .outstanding_max = UINT32_MAX,
                                           .up = true};
    }
    int at = route_choose(servers, n, beginning_of(r), 0, now);
    return &c->machines[first + (at < 0 ? 0 : (uint32_t)at)];
}

static void refuse(struct cloud *c, struct work *w, uint32_t retry_s, uint64_t now)
{
    w->cost.refused = true;
    c->refused.refused++;
    c->calls.send(c->calls.arg, &w->r, CLOUD_REFUSED, retry_s, 0, now);
    tell_cost(c, w);
}

/* UINT32_MAX: it may come in. Otherwise the seconds after which it may ask again. */
static uint32_t ask_quota(struct cloud *c, const struct cloud_request *r, uint64_t now)
{
    uint64_t wait = 0;
    if (!c->quotas) return UINT32_MAX;
    struct quota *q = &c->quotas[r->device];
    enum quota_verdict v = quota_take_request(q, now, &wait);
    if (v == QUOTA_OK) v = quota_enter(q, now, r->prompt + r->have, &wait);
    if (v == QUOTA_OK) return UINT32_MAX;
    return v == QUOTA_NEVER ? UINT32_MAX - 1 : (uint32_t)(wait / 1000000u) + 1;
}

int cloud_ask(struct cloud *c, const struct cloud_request *r, uint64_t now,
              struct cloud_job *ret_job)
{
    struct work *w = work_new(c, ret_job);
    if (!w) return ERR_NO_MEMORY;
    w->r = *r;
    w->n_tokens = r->prompt + r->have;
    w->tokens_max = w->cost.asked = r->tokens_max;
    w->asked_at = now;
    uint32_t retry_s = ask_quota(c, r, now);
    if (retry_s != UINT32_MAX) {
        refuse(c, w, retry_s, now);
        return 0;
    }
    struct machine *n = choose(c, r, now);
    if (machine_enter(n, w, now) == ADMIT_ENTERS) return 0;
    if (c->quotas) quota_undo(&c->quotas[r->device], now, r->prompt + r->have);
    refuse(c, w, machine_retry_s(n), now);
    return 0;
}

/* ---- pools ---- */

void work_move(struct cloud *c, struct work *w, uint64_t now)
{
    double bytes = c->c.engine->kv_bytes * w->n_tokens;
    double us = c->c.transfer_bytes_s > 0.0 ? bytes / c->c.transfer_bytes_s * 1e6 : 0.0;
    w->cost.kv_byte_s += bytes * us / 1e6;
    w->decodes = true;
    heap_push(c->heap, (struct heap_event){now + (uint64_t)us, 0, CLOUD_MOVES, w->next_free, 0});
}

static void arrive(struct cloud *c, struct work *w, uint64_t now)
{
    struct machine *best = &c->machines[c->c.engines];
    if (w->cancelled) {
        work_end(c, w, now);
        return;
    }
    for (uint32_t i = c->c.engines + 1; i < c->n_machines; i++)
        if (c->machines[i].inside < best->inside) best = &c->machines[i];
    if (machine_enter(best, w, now) == ADMIT_ENTERS) return;
    c->calls.send(c->calls.arg, &w->r, CLOUD_DONE, CLOUD_END_GONE, 0, now);
    work_end(c, w, now);
}

void cloud_event(struct cloud *c, const struct heap_event *ev)
{
    if (ev->kind == CLOUD_MOVES)
        arrive(c, work_at(c, ev->who), ev->at);
    else if (ev->detail == c->machines[ev->who].step_number) /* else an arrival has ended a rest */
        machine_end_step(&c->machines[ev->who], ev->at);
}

/* ---- life ---- */

static int open_machines(struct cloud *c, struct err *e)
{
    c->n_machines = c->c.engines + c->c.decode_engines;
    c->machines = mem_calloc(c->n_machines, sizeof *c->machines);
    if (!c->machines) return err_set(e, ERR_NO_MEMORY, "no memory for %u engines", c->n_machines);
    c->cell_machines = c->c.engines < CLOUD_CELL_MAX ? c->c.engines : CLOUD_CELL_MAX;
    c->n_cells = (c->c.engines + c->cell_machines - 1) / c->cell_machines;
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < c->n_machines; i++) {
        struct machine *n = &c->machines[i];
        n->cloud = c;
        n->index = i;
        n->only_prefill = c->c.decode_engines > 0 && i < c->c.engines;
        n->only_decode = i >= c->c.engines;
        code = machine_open(n, e);
    }
    return code;
}

static int open_quotas(struct cloud *c, struct err *e)
{
    const struct quota_limits *q = &c->c.quota;
    if (!q->requests_per_minute && !q->tokens_per_minute && !q->streams_max) return 0;
    c->quotas = mem_calloc(c->c.tenants, sizeof *c->quotas);
    if (!c->quotas) return err_set(e, ERR_NO_MEMORY, "no memory for %u quotas", c->c.tenants);
    for (uint32_t i = 0; i < c->c.tenants; i++)
        quota_init(&c->quotas[i], q, 0);
    return 0;
}

int cloud_new(const struct cloud_config *config, struct heap *heap, const struct cloud_calls *calls,
              struct cloud **ret_cloud, struct err *e)
{
    CHECK(config->engines > 0 && config->engines <= CLOUD_ENGINES_MAX &&
          config->decode_engines <= CLOUD_ENGINES_MAX);
    struct cloud *c = mem_calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_NO_MEMORY, "no memory for a cloud");
    c->c = *config;
    c->calls = *calls;
    c->heap = heap;
    c->unused = NONE;
    int code = open_machines(c, e);
    if (code == 0) code = open_quotas(c, e);
    if (code) {
        cloud_free(c);
        return code;
    }
    *ret_cloud = c;
    return 0;
}

void cloud_free(struct cloud *c)
{
    if (!c) return;
    for (uint32_t i = 0; c->machines && i < c->n_machines; i++)
        machine_close(&c->machines[i]);
    for (uint32_t i = 0; i < c->n_works / WORKS; i++)
        mem_free(c->works[i]);
    mem_free(c->works);
    mem_free(c->machines);
    mem_free(c->quotas);
    mem_free(c);
}

void cloud_stats_of(const struct cloud *c, struct cloud_stats *ret_stats)
{
    struct cloud_stats all = c->refused;
    for (uint32_t i = 0; i < c->n_machines; i++) {
        const struct machine *n = &c->machines[i];
        all.prefill_tokens += n->stats.prefill_tokens;
        all.cached_tokens += n->stats.cached_tokens;
        all.decode_tokens += n->stats.decode_tokens;
        all.steps += n->stats.steps;
        all.grants_cut += n->stats.grants_cut;
        all.busy_us += n->stats.busy_us;
        if (n->only_decode) all.decode_busy_us += n->stats.busy_us;
        all.running += n->n_running;
        all.waiting += n->line ? admit_waiting(n->line) : 0;
    }
    *ret_stats = all;
}

uint32_t cloud_decoding(const struct cloud *c)
{
    return c->decoding;
}

double cloud_prefill_us(const struct hardware_engine *h, uint32_t tokens)
{
    double n = tokens;
    return h->step_us + n * (h->prefill_us + h->prefill_depth_us * n / 2.0);
}
