/*
 * test_sim: whole simulations of a small trace that the test makes: every method, kinds of cloud,
 * and what goes wrong.
 *
 * Catches: an answer that is lost, starves or has other tokens than the trace says; two runs with
 * one seed that differ in a byte; tokens, slots or KV pages that are not accounted for; a method
 * that uses what it must not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "sim/blocks.h"
#include "sim/heap.h"
#include "sim/report.h"
#include "sim/run.h"
#include "sim/sketch.h"

enum { REQUESTS = 120, HASHES = 8 };

static struct trace_request requests[REQUESTS];
static uint32_t hashes[REQUESTS * HASHES];
static double seconds[] = {0.0, 1.0, 2.0, 3.0}, rtts[] = {20.0, 60.0, 900.0, 30.0};
static const struct rtt_trace link_trace = {seconds, rtts, 4};
static struct hardware_mix mix;

/* Bursts, short and long prompts, shared prefixes, some prompts beyond a device's context. */
static struct trace make_trace(void)
{
    struct trace t = {.name = "made", .requests = requests, .n = REQUESTS, .hashes = hashes};
    struct rng r;
    uint64_t at = 0;
    rng_init(&r, 7, 7);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        uint32_t input = 1 + rng_below(&r, i % 10 == 0 ? 40000 : 3000);
        uint32_t n = input / TRACE_BLOCK < HASHES ? input / TRACE_BLOCK : HASHES;
        at += i % 8 ? rng_below(&r, 200000) : 3000000;
        requests[i] = (struct trace_request){.at_us = i ? at : 0,
                                             .input = input,
                                             .output = 1 + rng_below(&r, 300),
                                             .first_hash = t.n_hashes,
                                             .n_hashes = i % 3 ? n : 0};
        for (uint32_t k = 0; k < requests[i].n_hashes; k++)
            hashes[t.n_hashes++] = i % 2 ? k : 1000 * i + k;
    }
    return t;
}

static struct run_config make_config(const struct trace *t, const char *method)
{
    struct err e;
    assert_int_equal(hardware_mix_of("all", &mix, &e), 0);
    return (struct run_config){
        .trace = t,
        .link = &link_trace,
        .rtt_us = 40000.0,
        .up_bytes_s = 1e6,
        .down_bytes_s = 5e6,
        .mix = &mix,
        .method = method_find(method),
        .cloud = {.engine = hardware_engine_find("h100"),
                  .engines = 1,
                  .queue_max = 64,
                  .cache_percent = 50,
                  .transfer_bytes_s = 5e10},
        .limits = {1e6, 200.0, 2e5},
        .prefill_s = 1.0 / 33000.0,
        .decode_s = 1.0 / 15000.0,
        .quality = {{0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1, 1}},
        .ratio = 0.3,
        .ratio_least = 0.2,
        .record = true,
        .seed = 3,
        .copies = 1,
        .speed = 1.0,
        .devices = 4,
        .context = 32768,
        .answer_max = 2048,
        .device_kv_bytes = 28672.0,
        .kv_bytes_s = 12.5e6,
    };
}

static uint64_t expected_tokens(const struct trace *t)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t->n; i++)
        sum += t->requests[i].output;
    return sum;
}

static void run(const struct run_config *c, struct run_result *r)
{
    struct err e = ERR_INIT;
    if (run_simulate(c, r, &e)) fail_msg("%s: %s", c->method->name, e.text);
}

/* Every answer is whole, nothing is lost or counted twice. */
static void check_whole(const struct run_config *c, const struct run_result *r)
{
    const struct tally *t = r->tally;
    const char *name = c->method->name;
    if (t->all.answers != (uint64_t)c->trace->n * c->copies) fail_msg("%s: answers", name);
    if (t->failed || t->short_of || t->cut) fail_msg("%s: failed or unfinished", name);
    if (t->all.tokens != expected_tokens(c->trace) * c->copies) fail_msg("%s: tokens", name);
    if (r->cloud.running || r->cloud.waiting) fail_msg("%s: the cloud still works", name);
    assert_true(t->first_ms.n == t->all.answers);
    /* A request's first token comes with its prefill, each further one with a decode; the last
     * decode of an answer that the cloud ends is the end token. */
    assert_true(r->cloud.decode_tokens <= t->all.cloud_tokens);
    assert_true(t->all.decode_slot_s <= t->all.slot_s + 1e-9);
    assert_true(t->all.engine_s <= r->cloud.busy_us / 1e6 + 1e-6);
}

static void test_every_method_gives_every_answer(void **state)
{
    struct trace t = make_trace();
    struct run_known known;
    struct run_result seen;
    struct run_config first = make_config(&t, "lossless");
    (void)state;
    run(&first, &seen);
    run_know(&first, &seen, &known);
    for (uint32_t i = 0; method_at(i); i++) {
        struct run_config c = make_config(&t, method_at(i)->name);
        struct run_result r;
        c.known = &known;
        run(&c, &r);
        check_whole(&c, &r);
        run_release(&r);
    }
    run_release(&seen);
}

/* A frozen cloud gives each request the times that were recorded, whatever the method: so a run
 * that is frozen with its own times has about its own figures. */
static void test_frozen_cloud(void **state)
{
    struct trace t = make_trace();
    struct run_config c = make_config(&t, "cloud");
    struct run_result live, frozen;
    (void)state;
    c.link = NULL;
    run(&c, &live);
    c.frozen = live.records;
    run(&c, &frozen);
    check_whole(&c, &frozen);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        double a = live.records[i].first_us, b = frozen.records[i].first_us;
        assert_true(a > 0.0 && b > a - 100.0 && b < a + 100.0);
    }
    assert_true(frozen.cloud.steps == 0);
    run_release(&frozen);
    c.method = method_find("planned");
    run(&c, &frozen);
    check_whole(&c, &frozen);
    run_release(&frozen);
    run_release(&live);
}

static void test_ends_that_are_not_used(void **state)
{
    struct trace t = make_trace();
    struct run_config c = make_config(&t, "device");
    struct run_result r;
    (void)state;
    c.context = 1 << 20;
    run(&c, &r);
    assert_int_equal(r.tally->all.cloud_tokens, 0);
    assert_int_equal(r.tally->device_alone, REQUESTS);
    assert_int_equal(r.tally->beyond_context, 0);
    run_release(&r);
    c = make_config(&t, "cloud");
    run(&c, &r);
    assert_int_equal(r.tally->cloud_alone, REQUESTS);
    assert_true(r.tally->all.joule < 1e-9);
    assert_true(r.tally->beyond_context > 0);
    run_release(&r);
}

/* The hash of everything that is reported. */
static uint64_t digest(const struct run_config *c)
{
    struct run_result r;
    struct report_run named = {.label = "run", .key = c->method->name, .result = &r};
    struct buf out;
    run(c, &r);
    buf_init(&out, 1 << 20);
    report_json(&out, &named);
    report_table(&out, &named, 1, "first_p99 gap_p99 cost kept");
    report_bars(&out, "a <title>", &named, 1, "first_mean");
    assert_int_equal(out.error, 0);
    assert_null(strstr(out.data, "<title>"));
    uint64_t hash = fnv_bytes(FNV_BEGIN, out.data, out.len);
    buf_release(&out);
    run_release(&r);
    return hash;
}

static void test_same_seed_same_bytes(void **state)
{
    static const char *const methods[] = {"planned", "cloud", "speculation"};
    struct trace t = make_trace();
    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        struct run_config c = make_config(&t, methods[i]);
        c.faults.cut_share = 0.2;
        c.faults.cut_within_s = 2.0;
        c.faults.cut_s = 3.0;
        c.copies = 3;
        uint64_t once = digest(&c), again = digest(&c);
        assert_true(once == again);
        c.seed++;
        assert_true(once != digest(&c));
    }
}

/* Cells of a large cloud run one after the other: every copy is there, and again the same bytes. */
static void test_parts(void **state)
{
    struct trace t = make_trace();
    struct run_config c = make_config(&t, "planned");
    struct run_result r;
    (void)state;
    c.cloud.engines = 2 * CLOUD_CELL_MAX + 2;
    c.copies = 5;
    c.devices = 20;
    run(&c, &r);
    assert_int_equal(r.parts, 3);
    check_whole(&c, &r);
    for (uint64_t i = 0; i < r.requests; i++)
        assert_true(r.records[i].shown_first_us > 0.0f);
    run_release(&r);
    assert_true(digest(&c) == digest(&c));
}

static void test_pools(void **state)
{
    static const char *const methods[] = {"cloud", "planned", "kv"};
    struct trace t = make_trace();
    (void)state;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        struct run_config c = make_config(&t, methods[i]);
        struct run_result r;
        c.cloud.engines = 2;
        c.cloud.decode_engines = 2;
        run(&c, &r);
        check_whole(&c, &r);
        if (i == 0) assert_true(r.cloud.decode_busy_us > 0.0);
        run_release(&r);
    }
}

/* Cuts, heat, wrong beliefs, liars, a cloud far beyond its limit: all answers still come. */
static void test_what_goes_wrong(void **state)
{
    struct trace t = make_trace();
    (void)state;
    for (uint32_t way = 0; way < 7; way++) {
        struct run_config c = make_config(&t, "planned");
        struct run_result r;
        if (way == 0) c.faults.heat = true;
        if (way == 1) c.faults.believed = 0.5;
        if (way == 2) c.faults.believed = 2.0;
        if (way == 3) c.faults.liars = 0.3;
        if (way == 4) c.faults.cut_share = 1.0, c.faults.cut_within_s = 3.0, c.faults.cut_s = 20.0;
        if (way == 5) c.cloud.queue_max = 1, c.cloud.slots = 2, c.speed = 20.0;
        if (way == 6) c.cloud.quota = (struct quota_limits){3, 20000, 1};
        if (way >= 4) c.context = 1 << 20; /* what the cloud alone can answer may fail */
        run(&c, &r);
        check_whole(&c, &r);
        run_release(&r);
    }
}

/* KV memory for one long prompt: requests wait for each other, grants are cut, nothing starves. */
static void test_little_memory(void **state)
{
    struct trace t = make_trace();
    struct hardware_engine small = *hardware_engine_find("h100");
    static const char *const methods[] = {"lossless", "planned"};
    (void)state;
    small.kv_tokens = 42000;
    for (uint32_t i = 0; i < 2; i++) {
        struct run_config c = make_config(&t, methods[i]);
        struct run_result r;
        c.cloud.engine = &small;
        c.context = 1 << 20;
        run(&c, &r);
        check_whole(&c, &r);
        run_release(&r);
    }
}

static void test_no_memory(void **state)
{
    struct trace t = make_trace();
    struct run_config c = make_config(&t, "planned");
    (void)state;
    t.n = 12;
    for (long k = 1; k < 400; k += 1 + k / 8) {
        struct run_result r;
        struct err e = ERR_INIT;
        mem_fail_at(k);
        int code = run_simulate(&c, &r, &e);
        bool hit = mem_fail_hit();
        mem_fail_at(0);
        if (code == 0) {
            run_release(&r);
            assert_false(hit);
            return;
        }
        assert_int_equal(code, ERR_NO_MEMORY);
    }
}

/* ---- the parts ---- */

static void test_heap(void **state)
{
    struct heap h = {.n = 0};
    struct heap_event ev, last = {0, 0, 0, 0, 0};
    struct rng r;
    (void)state;
    rng_init(&r, 1, 1);
    for (uint32_t i = 0; i < 5000; i++)
        heap_push(&h, (struct heap_event){rng_below(&r, 700), 0, 1, i, 0});
    assert_true(heap_first(&h) < 5);
    for (uint32_t i = 0; i < 5000; i++) {
        assert_true(heap_pop(&h, &ev));
        assert_true(ev.at > last.at || (ev.at == last.at && (i == 0 || ev.order > last.order)));
        last = ev;
    }
    assert_false(heap_pop(&h, &ev));
    assert_true(heap_first(&h) == UINT64_MAX && !h.failed);
    heap_release(&h);
}

static void test_sketch(void **state)
{
    struct sketch *s = mem_calloc(1, sizeof *s);
    (void)state;
    assert_true(sketch_quantile(s, 0.5) <= 0.0);
    for (uint32_t i = 1; i <= 10000; i++)
        sketch_add(s, i);
    for (int q = 1; q < 100; q++) {
        double exact = 1.0 + q * 99.99, found = sketch_quantile(s, q / 100.0);
        assert_true(found > exact * 0.997 && found < exact * 1.003);
    }
    assert_true(s->max >= 10000.0 && s->max <= 10000.0);
    assert_true(sketch_quantile(s, 1.0) <= 10000.0);
    assert_true(sketch_mean(s) > 5000.4 && sketch_mean(s) < 5000.6);
    for (uint32_t i = 0; i < 30000; i++)
        sketch_add(s, -1.0);
    assert_true(sketch_quantile(s, 0.7) <= 0.0);
    mem_free(s);
}

static void test_blocks(void **state)
{
    struct blocks *b;
    struct err e;
    (void)state;
    assert_int_equal(blocks_new(4, 2, &b, &e), 0);
    assert_false(blocks_find(b, 1));
    for (uint64_t k = 1; k <= 4; k++)
        assert_true(blocks_add(b, k));
    assert_false(blocks_add(b, 5)); /* all are held */
    for (uint64_t k = 4; k >= 1; k--)
        blocks_release(b, k);
    assert_int_equal(blocks_idle(b), 2); /* 2 and 1: the last ones released */
    assert_int_equal(blocks_known(b), 2);
    assert_false(blocks_find(b, 4));
    assert_true(blocks_find(b, 2));
    assert_true(blocks_add(b, 2)); /* held twice */
    blocks_release(b, 2);
    assert_int_equal(blocks_idle(b), 1);
    assert_true(blocks_evict(b));
    assert_false(blocks_evict(b));
    assert_false(blocks_find(b, 1));
    blocks_release(b, 2);
    blocks_free(b);
}

static void test_mixes(void **state)
{
    static const char *const bad[] = {"", "s99", "pi5=0", "pi5=-1", "pi5=x", "pi5,", "pi5=1,,"};
    struct hardware_mix m;
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (hardware_mix_of(bad[i], &m, &e) == 0) fail_msg("accepted: %s", bad[i]);
    assert_int_equal(hardware_mix_of("pi5=1,s26-gpu=3", &m, &e), 0);
    assert_string_equal(m.devices[hardware_mix_at(&m, 0.0)]->name, "pi5");
    assert_string_equal(m.devices[hardware_mix_at(&m, 0.249)]->name, "pi5");
    assert_string_equal(m.devices[hardware_mix_at(&m, 0.251)]->name, "s26-gpu");
    assert_string_equal(m.devices[hardware_mix_at(&m, 0.999)]->name, "s26-gpu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap),
        cmocka_unit_test(test_sketch),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_mixes),
        cmocka_unit_test(test_every_method_gives_every_answer),
        cmocka_unit_test(test_frozen_cloud),
        cmocka_unit_test(test_ends_that_are_not_used),
        cmocka_unit_test(test_same_seed_same_bytes),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_what_goes_wrong),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
