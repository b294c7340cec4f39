/* prefix: see prefix.h. */
#include "engine/prefix.h"

#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/mem.h"

#define NONE PREFIX_NONE

struct node {
    int32_t tokens[ENGINE_PAGE];
    uint32_t n;             /* tokens; below ENGINE_PAGE: a part, which has no children */
    uint32_t page;          /* of the engine */
    uint32_t parent;        /* node, or NONE */
    uint64_t parent_id, id; /* never used twice, unlike the nodes' places */
    uint32_t holders;
    uint32_t newer, older;        /* neighbours among the idle ones */
    uint32_t same_tokens;         /* next in the bucket of by_tokens */
    uint32_t sibling, sibling_of; /* next and previous in the bucket of by_parent */
};

struct prefix {
    struct engine *engine;
    uint32_t idle_max, n_idle;
    uint32_t newest, oldest;         /* idle ones */
    uint32_t n_nodes, used, unused;  /* places; those ever used; first of those given back */
    uint32_t n_buckets;              /* a power of two */
    uint32_t *by_tokens, *by_parent; /* [n_buckets] */
    uint64_t ids, evictions;
    uint64_t secret;    /* so that clients cannot choose tokens that share a bucket */
    struct node *nodes; /* [n_nodes] */
};

static int open_tables(struct prefix *p)
{
    p->n_nodes = engine_info(p->engine)->kv_pages_total;
    for (p->n_buckets = 1; p->n_buckets < p->n_nodes;)
        p->n_buckets *= 2;
    p->nodes = mem_calloc(p->n_nodes, sizeof *p->nodes);
    p->by_tokens = mem_alloc(p->n_buckets * sizeof *p->by_tokens);
    p->by_parent = mem_alloc(p->n_buckets * sizeof *p->by_parent);
    if (!p->nodes || !p->by_tokens || !p->by_parent) return ERR_NO_MEMORY;
    memset(p->by_tokens, 0xFF, p->n_buckets * sizeof *p->by_tokens);
    memset(p->by_parent, 0xFF, p->n_buckets * sizeof *p->by_parent);
    return 0;
}

int prefix_open(struct engine *e, uint32_t idle_max, struct prefix **ret_prefix, struct err *err)
{
    struct prefix *p = mem_calloc(1, sizeof *p);
    if (!p) return err_set(err, ERR_NO_MEMORY, "no memory for the prefix cache");
    p->engine = e;
    p->idle_max = idle_max;
    p->newest = p->oldest = p->unused = NONE;
    p->ids = 1;
    if (getrandom(&p->secret, sizeof p->secret, 0) != (ssize_t)sizeof p->secret) {
        mem_free(p);
        return err_set(err, ERR_INTERNAL, "no random numbers from the system");
    }
    if (idle_max > 0 && open_tables(p)) {
        prefix_close(p);
        return err_set(err, ERR_NO_MEMORY, "no memory for the tables of the prefix cache");
    }
    *ret_prefix = p;
    return 0;
}

void prefix_close(struct prefix *p)
{
    if (!p) return;
    while (prefix_evict(p)) {
    }
    mem_free(p->nodes);
    mem_free(p->by_tokens);
    mem_free(p->by_parent);
    mem_free(p);
}

/* ---- idle pages, by last use ---- */

static void idle_remove(struct prefix *p, uint32_t at)
{
    struct node *n = &p->nodes[at];
    *(n->newer == NONE ? &p->newest : &p->nodes[n->newer].older) = n->older;
    *(n->older == NONE ? &p->oldest : &p->nodes[n->older].newer) = n->newer;
    p->n_idle--;
}

static void idle_push(struct prefix *p, uint32_t at)
{
    struct node *n = &p->nodes[at];
    n->newer = NONE;
    n->older = p->newest;
    *(p->newest == NONE ? &p->oldest : &p->nodes[p->newest].newer) = at;
    p->newest = at;
    p->n_idle++;
}

static void hold(struct prefix *p, uint32_t at)
{
    if (p->nodes[at].holders++ == 0) idle_remove(p, at);
}

void prefix_hold(struct prefix *p, uint32_t at)
{
    for (; at != NONE; at = p->nodes[at].parent)
        hold(p, at);
}

static void trim(struct prefix *p)
{
    while (p->n_idle > p->idle_max)
        prefix_evict(p);
}

void prefix_release(struct prefix *p, uint32_t at)
{
    for (; at != NONE; at = p->nodes[at].parent) {
        CHECK(p->nodes[at].holders > 0);
        if (--p->nodes[at].holders == 0) idle_push(p, at);
    }
    trim(p);
}

uint32_t prefix_release_last(struct prefix *p, uint32_t at)
{
    uint32_t parent = p->nodes[at].parent;
    CHECK(p->nodes[at].holders > 0);
    if (--p->nodes[at].holders == 0) idle_push(p, at);
    trim(p);
    return parent;
}

/* ---- the two tables ---- */

static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

static uint32_t *parent_bucket(const struct prefix *p, uint64_t parent_id)
{
    return &p->by_parent[mix(parent_id ^ p->secret) & (p->n_buckets - 1)];
}

static uint32_t *tokens_bucket(const struct prefix *p, uint64_t parent_id, const int32_t *tokens)
{
    uint64_t h = mix(parent_id ^ p->secret);
    for (uint32_t i = 0; i < ENGINE_PAGE; i += 2)
        h = mix(h ^ ((uint64_t)(uint32_t)tokens[i] << 32 | (uint32_t)tokens[i + 1]));
    return &p->by_tokens[h & (p->n_buckets - 1)];
}

/* Roots have identities that no page gets. */
static uint64_t id_after(const struct prefix *p, uint32_t scope, uint32_t after)
{
    return after == NONE ? UINT64_MAX - scope : p->nodes[after].id;
}

static uint32_t look_up(const struct prefix *p, uint64_t parent_id, const int32_t *tokens)
{
    uint32_t at = *tokens_bucket(p, parent_id, tokens);
    for (; at != NONE; at = p->nodes[at].same_tokens) {
        const struct node *n = &p->nodes[at];
        if (n->parent_id == parent_id && memcmp(n->tokens, tokens, sizeof n->tokens) == 0) break;
    }
    return at;
}

static uint32_t place_new(struct prefix *p)
{
    uint32_t at = p->unused;
    if (at != NONE) {
        p->unused = p->nodes[at].older;
        return at;
    }
    CHECK(p->used < p->n_nodes); /* each holds a page of its own */
    return p->used++;
}

/* Held once; for a part the caller lets it go. */
static uint32_t node_new(struct prefix *p, uint64_t parent_id, uint32_t parent, uint32_t page,
                         const int32_t *tokens, uint32_t n_tokens)
{
    uint32_t at = place_new(p), *siblings = parent_bucket(p, parent_id);
    struct node *n = &p->nodes[at];
    *n = (struct node){.n = n_tokens,
                       .page = page,
                       .parent = parent,
                       .parent_id = parent_id,
                       .id = p->ids++,
                       .holders = 1,
                       .same_tokens = NONE,
                       .sibling = *siblings,
                       .sibling_of = NONE};
    memcpy(n->tokens, tokens, n_tokens * sizeof *tokens);
    if (n->sibling != NONE) p->nodes[n->sibling].sibling_of = at;
    *siblings = at;
    if (n_tokens == ENGINE_PAGE) {
        uint32_t *bucket = tokens_bucket(p, parent_id, tokens);
        n->same_tokens = *bucket;
        *bucket = at;
    }
    return at;
}

/* An idle one goes. */
static void node_free(struct prefix *p, uint32_t at)
{
    struct node *n = &p->nodes[at];
    idle_remove(p, at);
    if (n->n == ENGINE_PAGE) {
        uint32_t *link = tokens_bucket(p, n->parent_id, n->tokens);
        while (*link != at)
            link = &p->nodes[*link].same_tokens;
        *link = n->same_tokens;
    }
    if (n->sibling != NONE) p->nodes[n->sibling].sibling_of = n->sibling_of;
    if (n->sibling_of != NONE)
        p->nodes[n->sibling_of].sibling = n->sibling;
    else
        *parent_bucket(p, n->parent_id) = n->sibling;
    engine_page_drop(p->engine, n->page);
    n->older = p->unused;
    p->unused = at;
}

bool prefix_evict(struct prefix *p)
{
    if (p->oldest == NONE) return false;
    node_free(p, p->oldest);
    p->evictions++;
    return true;
}

bool prefix_room(struct prefix *p)
{
    return engine_kv_pages_free(p->engine) > 0 || prefix_evict(p);
}

/* ---- finding and adding ---- */

uint32_t prefix_find(struct prefix *p, uint32_t scope, uint32_t after, const int32_t *tokens)
{
    if (p->idle_max == 0) return NONE;
    uint32_t at = look_up(p, id_after(p, scope, after), tokens);
    if (at != NONE) hold(p, at);
    return at;
}

static uint32_t common(const struct node *n, const int32_t *tokens, uint32_t n_tokens)
{
    uint32_t most = n->n < n_tokens ? n->n : n_tokens, i = 0;
    while (i < most && n->tokens[i] == tokens[i])
        i++;
    return i;
}

static uint32_t find_part(const struct prefix *p, uint32_t scope, uint32_t after,
                          const int32_t *tokens, uint32_t n, uint32_t *ret_n)
{
    uint32_t best = NONE;
    *ret_n = 0;
    uint64_t id = id_after(p, scope, after);
    uint32_t at = *parent_bucket(p, id);
    for (uint32_t looks = 0; at != NONE && looks < PREFIX_LOOKS_MAX; looks++) {
        uint32_t same = p->nodes[at].parent_id == id ? common(&p->nodes[at], tokens, n) : 0;
        if (same > *ret_n) {
            *ret_n = same;
            best = at;
        }
        at = p->nodes[at].sibling;
    }
    return best;
}

uint32_t prefix_find_part(struct prefix *p, uint32_t scope, uint32_t after, const int32_t *tokens,
                          uint32_t n, uint32_t *ret_n)
{
    *ret_n = 0;
    return p->idle_max == 0 ? NONE : find_part(p, scope, after, tokens, n, ret_n);
}

uint32_t prefix_count(const struct prefix *p, uint32_t scope, const int32_t *tokens, uint32_t n)
{
    uint32_t after = NONE, done = 0, rest = 0;
    if (p->idle_max == 0) return 0;
    for (; n - done >= ENGINE_PAGE; done += ENGINE_PAGE) {
        uint32_t at = look_up(p, id_after(p, scope, after), tokens + done);
        if (at == NONE) break;
        after = at;
    }
    if (done < n) find_part(p, scope, after, tokens + done, n - done, &rest);
    return done + rest;
}

uint32_t prefix_page(const struct prefix *p, uint32_t at)
{
    return p->nodes[at].page;
}

uint32_t prefix_before(const struct prefix *p, uint32_t at)
{
    return p->nodes[at].parent;
}

const int32_t *prefix_tokens(const struct prefix *p, uint32_t at)
{
    return p->nodes[at].tokens;
}

/* Parts that hold nothing but a beginning of these tokens are of no more use. */
static void drop_shorter(struct prefix *p, uint64_t parent_id, const int32_t *tokens, uint32_t n)
{
    uint32_t at = *parent_bucket(p, parent_id), next;
    for (uint32_t looks = 0; at != NONE && looks < PREFIX_LOOKS_MAX; looks++, at = next) {
        const struct node *o = &p->nodes[at];
        next = o->sibling;
        if (o->n < n && o->holders == 0 && o->parent_id == parent_id &&
            common(o, tokens, n) == o->n)
            node_free(p, at);
    }
}

uint32_t prefix_add(struct prefix *p, uint32_t scope, uint32_t after, struct session *s, uint32_t i)
{
    if (p->idle_max == 0) return NONE;
    const int32_t *tokens = session_tokens(s) + (size_t)i * ENGINE_PAGE;
    uint64_t id = id_after(p, scope, after);
    uint32_t at = look_up(p, id, tokens);
    if (at != NONE) {
        hold(p, at);
        session_page_swap(s, i, p->nodes[at].page);
        return at;
    }
    drop_shorter(p, id, tokens, ENGINE_PAGE);
    return node_new(p, id, after, session_page_hold(s, i), tokens, ENGINE_PAGE);
}

uint32_t prefix_put(struct prefix *p, uint32_t scope, uint32_t after, uint32_t page,
                    const int32_t *tokens)
{
    uint64_t id = id_after(p, scope, after);
    uint32_t at = p->idle_max ? look_up(p, id, tokens) : NONE;
    if (p->idle_max && at == NONE) return node_new(p, id, after, page, tokens, ENGINE_PAGE);
    engine_page_drop(p->engine, page);
    if (at != NONE) hold(p, at);
    return at;
}

void prefix_add_part(struct prefix *p, uint32_t scope, uint32_t after, struct session *s,
                     uint32_t i, uint32_t n)
{
    if (p->idle_max == 0) return;
    const int32_t *tokens = session_tokens(s) + (size_t)i * ENGINE_PAGE;
    uint64_t id = id_after(p, scope, after);
    uint32_t same, at = prefix_find_part(p, scope, after, tokens, n, &same);
    if (at != NONE && same == n) {
        if (p->nodes[at].n == ENGINE_PAGE || p->nodes[at].holders > 0) return;
        idle_remove(p, at); /* used again */
        idle_push(p, at);
        return;
    }
    drop_shorter(p, id, tokens, n);
    at = node_new(p, id, after, session_page_hold(s, i), tokens, n);
    p->nodes[at].holders = 0;
    idle_push(p, at);
    trim(p);
}

uint32_t prefix_idle(const struct prefix *p)
{
    return p->n_idle;
}

uint64_t prefix_evictions(const struct prefix *p)
{
    return p->evictions;
}
