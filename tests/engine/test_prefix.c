/*
 * test_prefix: the prefix cache over the fake engine, which answers from what lies in its pages.
 * Catches: a page taken for another's, a page lost or held for ever, a page whose parent has gone,
 * more idle pages than allowed, hits across scopes, what was computed twice kept twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/fake.h"
#include "engine/prefix.h"

enum { PAGES = 64, CONTEXT = 640, SESSIONS = 5, STEP = 1024 };

static struct engine *open_engine(uint32_t pages)
{
    struct fake_options o = {
        .answer_tokens = 5000, .context_max = CONTEXT, .step_tokens_max = STEP, .kv_pages = pages};
    struct engine *e;
    assert_int_equal(fake_open(&o, &e, NULL), 0);
    return e;
}

/* One history as a worker has it. */
struct user {
    struct session *s;
    int32_t tokens[CONTEXT];
    uint32_t len, path, n_path, scope;
};

struct world {
    struct engine *e, *oracle;
    struct prefix *p;
    struct rng r;
    struct user users[SESSIONS];
    uint64_t found, computed;
};

static int32_t feed(struct engine *e, struct session *s, const int32_t *tokens, uint32_t n)
{
    struct engine_span span = {.session = s, .tokens = tokens, .n = n, .sample = true};
    struct err err;
    if (engine_step(e, &span, 1, &err)) fail_msg("%s", err.text);
    return span.next;
}

static int32_t truth(struct world *w, const int32_t *tokens, uint32_t n)
{
    struct session *s;
    assert_int_equal(engine_session_open(w->oracle, &s, NULL), 0);
    int32_t next = feed(w->oracle, s, tokens, n);
    engine_session_close(s);
    return next;
}

static void note_growth(struct world *w, struct user *u)
{
    while ((u->n_path + 1) * ENGINE_PAGE <= session_len(u->s)) {
        uint32_t at = prefix_add(w->p, u->scope, u->path, u->s, u->n_path);
        if (at == PREFIX_NONE) return;
        u->path = at;
        u->n_path++;
    }
}

/* A prompt of few different pieces, so that many begin alike and part somewhere. */
static void make_prompt(struct world *w, struct user *u)
{
    u->len = 1 + rng_below(&w->r, CONTEXT - 100);
    for (uint32_t i = 0, piece = 0; i < u->len; i++) {
        if (i % 96 == 0) piece = rng_below(&w->r, 2);
        u->tokens[i] = (int32_t)((i * 7 + piece * 11 + i / 96) % 250);
    }
    u->tokens[u->len - 1] = (int32_t)rng_below(&w->r, 250);
}

static void make_room(struct world *w, uint32_t tokens)
{
    while (engine_kv_pages_free(w->e) < tokens / ENGINE_PAGE + 2)
        assert_true(prefix_evict(w->p));
}

static void begin(struct world *w, struct user *u)
{
    uint32_t at, n, fed = 0;
    make_prompt(w, u);
    u->path = PREFIX_NONE;
    u->n_path = 0;
    u->scope = rng_below(&w->r, 2);
    assert_int_equal(engine_session_open(w->e, &u->s, NULL), 0);
    while (fed + ENGINE_PAGE < u->len &&
           (at = prefix_find(w->p, u->scope, u->path, u->tokens + fed)) != PREFIX_NONE) {
        struct err e;
        assert_int_equal(
            session_page_adopt(u->s, prefix_page(w->p, at), u->tokens + fed, ENGINE_PAGE, &e), 0);
        u->path = at;
        u->n_path++;
        fed += ENGINE_PAGE;
    }
    uint32_t left = u->len - 1 - fed < ENGINE_PAGE ? u->len - 1 - fed : ENGINE_PAGE - 1;
    at = prefix_find_part(w->p, u->scope, u->path, u->tokens + fed, left, &n);
    if (at != PREFIX_NONE) {
        assert_true(n > 0 && n <= left);
        prefix_hold(w->p, at);
        if (engine_kv_pages_free(w->e) > 0) {
            assert_int_equal(
                session_page_adopt(u->s, prefix_page(w->p, at), u->tokens + fed, n, NULL), 0);
            fed += n;
        }
        prefix_release(w->p, at);
    }
    w->found += fed;
    w->computed += u->len - fed;
    make_room(w, u->len - fed);
    assert_int_equal(feed(w->e, u->s, u->tokens + fed, u->len - fed), truth(w, u->tokens, u->len));
    note_growth(w, u);
}

static void go_on(struct world *w, struct user *u)
{
    uint32_t n = 1 + rng_below(&w->r, 90);
    if (u->len + n > CONTEXT) return;
    for (uint32_t i = 0; i < n; i++)
        u->tokens[u->len + i] = (int32_t)rng_below(&w->r, 3);
    make_room(w, n);
    int32_t next = feed(w->e, u->s, u->tokens + u->len, n);
    u->len += n;
    assert_int_equal(next, truth(w, u->tokens, u->len));
    note_growth(w, u);
}

static void end(struct world *w, struct user *u)
{
    uint32_t rest = session_len(u->s) - u->n_path * ENGINE_PAGE;
    if (rest > 0 && rest < ENGINE_PAGE)
        prefix_add_part(w->p, u->scope, u->path, u->s, u->n_path, rest);
    engine_session_close(u->s);
    prefix_release(w->p, u->path);
    u->s = NULL;
}

static void check_life(uint64_t seed, uint32_t idle_max)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    rng_init(&w.r, seed, 1);
    w.e = open_engine(PAGES);
    w.oracle = open_engine(PAGES);
    assert_int_equal(prefix_open(w.e, idle_max, &w.p, NULL), 0);
    for (uint32_t turn = 0; turn < 400; turn++) {
        struct user *u = &w.users[rng_below(&w.r, SESSIONS)];
        if (!u->s)
            begin(&w, u);
        else if (rng_below(&w.r, 3))
            go_on(&w, u);
        else
            end(&w, u);
        assert_true(prefix_idle(w.p) <= idle_max);
    }
    for (uint32_t i = 0; i < SESSIONS; i++)
        if (w.users[i].s) end(&w, &w.users[i]);
    /* Every page is free or idle, and evicting gives back exactly the idle ones. */
    assert_int_equal(engine_kv_pages_free(w.e) + prefix_idle(w.p), PAGES);
    assert_true(idle_max == 0 ? w.found == 0 : w.found > 0);
    for (uint32_t idle = prefix_idle(w.p); idle > 0; idle--) {
        assert_true(prefix_evict(w.p));
        assert_int_equal(engine_kv_pages_free(w.e), PAGES - idle + 1);
    }
    assert_false(prefix_evict(w.p));
    prefix_close(w.p);
    engine_free(w.e);
    engine_free(w.oracle);
}

static void test_life(void **state)
{
    (void)state;
    static const uint32_t idle[] = {0, 1, 5, 20, PAGES};
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
        for (uint64_t seed = 0; seed < 30; seed++)
            check_life(seed, idle[i]);
}

static struct user *ask(struct world *w, struct user *u, uint32_t scope, int32_t first)
{
    *u = (struct user){.len = 3 * ENGINE_PAGE, .path = PREFIX_NONE, .scope = scope};
    for (uint32_t i = 0; i < u->len; i++)
        u->tokens[i] = (int32_t)(i % 200);
    u->tokens[0] = first;
    assert_int_equal(engine_session_open(w->e, &u->s, NULL), 0);
    feed(w->e, u->s, u->tokens, u->len);
    note_growth(w, u);
    return u;
}

/* Two who compute the same share its pages afterwards, unless their scopes differ; the page used
 * longest ago goes first, and never before those that follow it. */
static void test_sharing_and_order(void **state)
{
    (void)state;
    static struct world w;
    memset(&w, 0, sizeof w);
    w.e = open_engine(PAGES);
    assert_int_equal(prefix_open(w.e, PAGES, &w.p, NULL), 0);
    struct user *a = ask(&w, &w.users[0], 1, 1), *b = ask(&w, &w.users[1], 1, 1);
    assert_int_equal(engine_kv_pages_free(w.e), PAGES - 3);
    struct user *c = ask(&w, &w.users[2], 2, 1), *d = ask(&w, &w.users[3], 1, 2);
    assert_int_equal(engine_kv_pages_free(w.e), PAGES - 9);
    end(&w, c);
    end(&w, a);
    end(&w, d);
    assert_int_equal(prefix_idle(w.p), 6); /* b holds those of a */
    assert_int_equal(prefix_find(w.p, 3, PREFIX_NONE, b->tokens), PREFIX_NONE);
    for (int left = 3; left-- > 0;) { /* those of c go, the last one first */
        uint32_t at = prefix_find(w.p, 2, PREFIX_NONE, c->tokens);
        assert_int_not_equal(at, PREFIX_NONE);
        prefix_release(w.p, at); /* which makes it the newest but leaves its descendants old */
        assert_true(prefix_evict(w.p));
        if (left > 0) continue;
        at = prefix_find(w.p, 2, PREFIX_NONE, c->tokens);
        assert_int_not_equal(at, PREFIX_NONE);
        prefix_release(w.p, at);
    }
    end(&w, b);
    while (prefix_evict(w.p)) {
    }
    assert_int_equal(engine_kv_pages_free(w.e), PAGES);
    prefix_close(w.p);
    engine_free(w.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_sharing_and_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
