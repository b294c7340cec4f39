/* admit: see admit.h. */
#include "policy/admit.h"

#include "base/check.h"
#include "base/mem.h"

#define NONE UINT32_MAX

/* ---- entering ---- */

uint32_t admit_share(uint32_t slots, uint32_t queue_max)
{
    uint32_t share = slots + queue_max / 2;
    return share > 0 ? share : 1;
}

enum admit_entry admit_enter(const struct admit_state *s)
{
    if (s->keyed && s->inside_own >= admit_share(s->slots, s->queue_max)) return ADMIT_SHARE_TAKEN;
    uint32_t slots = s->keyed ? s->slots_max : s->slots;
    return s->inside < slots + s->queue_max ? ADMIT_ENTERS : ADMIT_FULL;
}

/* ---- memory ---- */

uint32_t admit_pages(uint32_t positions)
{
    return positions / ADMIT_PAGE + (positions % ADMIT_PAGE != 0);
}

uint32_t admit_positions(const struct admit_request *w, uint32_t more)
{
    return more < w->positions_max - w->tokens ? w->tokens + more : w->positions_max;
}

static uint32_t least_of(const struct admit_request *w)
{
    uint32_t least = w->least;
    if (least == 0) {
        least = w->most / ADMIT_CUT_MOST;
        least = least > ADMIT_TOKENS_LEAST ? least : ADMIT_TOKENS_LEAST;
    }
    return least < w->most ? least : w->most;
}

uint32_t admit_fair(const struct admit_pressure *p)
{
    if (p->waiting == 0 || !(p->token_us > 0.0)) return 0;
    double tokens = (double)ADMIT_START_US * p->slots / (p->waiting * p->token_us);
    return tokens < 1.0 ? 1 : tokens < 1e6 ? (uint32_t)tokens : 1000000;
}

/* What is wanted, or less while others wait. */
static uint32_t cut(const struct admit_request *w, uint32_t least)
{
    uint32_t half = w->most / 2 + w->most % 2, most = w->fair > half ? w->fair : half;
    if (w->fair == 0 || most >= w->most) return w->most;
    return most > least ? most : least;
}

uint32_t admit_grant(const struct admit_memory *m, const struct admit_request *w)
{
    uint64_t there = (uint64_t)m->free + m->idle;
    uint64_t pages = there > m->promised ? there - m->promised : 0;
    uint64_t positions = (pages + w->shared) * ADMIT_PAGE;
    uint32_t least = least_of(w), most = cut(w, least);
    if (positions >= admit_positions(w, most)) return most;
    if (positions <= w->tokens) return 0;
    uint32_t fits = (uint32_t)(positions - w->tokens); /* below w->most */
    return fits >= least ? fits : 0;
}

/* ---- the line ---- */

struct waiting {
    void *job;
    uint32_t tenant, next;
    int32_t priority;
    bool continues; /* an answer */
    uint64_t arrived;
};

struct queue_of {
    uint32_t first, last; /* of waiting; NONE: no job of this tenant waits */
    uint32_t running;
    uint32_t passes; /* of jobs that continue an answer, since one that begins one has left */
    uint32_t active; /* where in `active` */
};

struct admit_line {
    uint32_t capacity, n;
    uint64_t arrivals;
    uint32_t unused; /* first of waiting without a job, linked by next */
    uint32_t named;  /* tenant whose first one is next; NONE: to be found */
    struct queue_of tenants[ADMIT_TENANTS_MAX];
    uint32_t active[ADMIT_TENANTS_MAX], n_active; /* tenants with waiting jobs */
    struct waiting waiting[];
};

int admit_line_new(uint32_t capacity, struct admit_line **ret_line, struct err *e)
{
    struct admit_line *l = mem_calloc(1, sizeof *l + capacity * sizeof l->waiting[0]);
    if (!l) return err_set(e, ERR_NO_MEMORY, "no memory for a line of %u", capacity);
    l->capacity = capacity;
    l->named = NONE;
    for (uint32_t i = 0; i < capacity; i++)
        l->waiting[i].next = i + 1;
    for (uint32_t i = 0; i < ADMIT_TENANTS_MAX; i++)
        l->tenants[i].first = NONE;
    *ret_line = l;
    return 0;
}

void admit_line_free(struct admit_line *l)
{
    mem_free(l);
}

uint32_t admit_waiting(const struct admit_line *l)
{
    return l->n;
}

/* The entry after which a job that continues an answer stands; NONE: it is the first. */
static uint32_t place(struct admit_line *l, uint32_t tenant)
{
    struct queue_of *q = &l->tenants[tenant];
    uint32_t before = l->named == tenant ? q->first : NONE; /* the next one stays next */
    uint32_t i = before == NONE ? q->first : l->waiting[before].next;
    for (; i != NONE && l->waiting[i].continues; i = l->waiting[i].next)
        before = i;
    if (i == NONE) return q->last;
    if (q->passes == ADMIT_PASSES_MAX) return q->last;
    q->passes++;
    return before;
}

static void join(struct admit_line *l, void *job, uint32_t tenant, int32_t priority, bool continues)
{
    CHECK(l->n < l->capacity && tenant < ADMIT_TENANTS_MAX);
    uint32_t i = l->unused;
    struct queue_of *q = &l->tenants[tenant];
    l->unused = l->waiting[i].next;
    l->waiting[i] = (struct waiting){job, tenant, NONE, priority, continues, l->arrivals++};
    l->n++;
    if (q->first == NONE) {
        q->first = q->last = i;
        q->active = l->n_active;
        l->active[l->n_active++] = tenant;
        return;
    }
    uint32_t before = continues ? place(l, tenant) : q->last;
    uint32_t *link = before == NONE ? &q->first : &l->waiting[before].next;
    l->waiting[i].next = *link;
    *link = i;
    if (l->waiting[i].next == NONE) q->last = i;
}

void admit_join(struct admit_line *l, void *job, uint32_t tenant, int32_t priority)
{
    join(l, job, tenant, priority, false);
}

void admit_rejoin(struct admit_line *l, void *job, uint32_t tenant, int32_t priority)
{
    join(l, job, tenant, priority, true);
}

/* Take entry i, which follows `before` (NONE: it is the first), out of its tenant's queue. */
static void leave(struct admit_line *l, uint32_t before, uint32_t i)
{
    uint32_t tenant = l->waiting[i].tenant;
    struct queue_of *q = &l->tenants[tenant];
    if (before == NONE)
        q->first = l->waiting[i].next;
    else
        l->waiting[before].next = l->waiting[i].next;
    if (q->last == i) q->last = before;
    if (q->first == NONE) {
        uint32_t moved = l->active[--l->n_active];
        l->active[q->active] = moved;
        l->tenants[moved].active = q->active;
    }
    if (l->named == tenant && before == NONE) l->named = NONE;
    if (!l->waiting[i].continues) q->passes = 0;
    l->waiting[i].next = l->unused;
    l->unused = i;
    l->n--;
}

/* Running requests of the tenant with one more, as its first one's priority counts them. */
static uint64_t burden(const struct admit_line *l, const struct queue_of *q)
{
    const struct waiting *first = &l->waiting[q->first];
    int32_t p = first->priority;
    p = p > SCHED_PRIORITY_MAX ? SCHED_PRIORITY_MAX : p;
    p = p < -SCHED_PRIORITY_MAX ? -SCHED_PRIORITY_MAX : p;
    return ((uint64_t)q->running + 1) << (SCHED_PRIORITY_MAX + 1 - p - first->continues);
}

static uint32_t least_burdened(const struct admit_line *l)
{
    uint32_t best = l->active[0];
    for (uint32_t k = 1; k < l->n_active; k++) {
        const struct queue_of *q = &l->tenants[l->active[k]], *other = &l->tenants[best];
        uint64_t load = burden(l, q), least = burden(l, other);
        bool earlier = l->waiting[q->first].arrived < l->waiting[other->first].arrived;
        if (load < least || (load == least && earlier)) best = l->active[k];
    }
    return best;
}

void *admit_next(struct admit_line *l)
{
    if (l->n_active == 0) return NULL;
    if (l->named == NONE) l->named = least_burdened(l);
    return l->waiting[l->tenants[l->named].first].job;
}

void admit_refuse(struct admit_line *l)
{
    CHECK(l->named != NONE);
    leave(l, NONE, l->tenants[l->named].first);
}

void admit_begin(struct admit_line *l)
{
    l->tenants[l->named].running++;
    admit_refuse(l);
}

void admit_ended(struct admit_line *l, uint32_t tenant)
{
    CHECK(l->tenants[tenant].running > 0);
    l->tenants[tenant].running--;
}

void admit_sweep(struct admit_line *l, bool (*leaves)(void *arg, void *job), void *arg)
{
    for (uint32_t k = l->n_active; k-- > 0;) { /* downwards: the last one moves into a gap */
        uint32_t before = NONE, next;
        for (uint32_t i = l->tenants[l->active[k]].first; i != NONE; i = next) {
            next = l->waiting[i].next;
            if (leaves(arg, l->waiting[i].job))
                leave(l, before, i);
            else
                before = i;
        }
    }
}

/* ---- Retry-After ---- */

uint32_t admit_retry_s(const struct admit_load *l)
{
    double prefills = (double)l->waiting_tokens * l->prefill_us;
    double ends = (double)l->waiting * l->between_ends_us;
    double half = (prefills > ends ? prefills : ends) / 2e6;
    if (half <= 1.0) return 1;
    return half < ADMIT_RETRY_S_MAX ? (uint32_t)half + 1 : ADMIT_RETRY_S_MAX;
}
