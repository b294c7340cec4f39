/*
 * Work beside the loop: helper threads, their turns and limits.
 *
 * Catches: a loop that waits for the work; short tasks that wait for long ones; one owner that
 * keeps the others waiting; a task that is done twice, or never, when it is cancelled or the
 * process ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "net/loop.h"
#include "net/offload.h"

enum { TASKS = OFFLOAD_TASKS_MAX + 1, LONG = OFFLOAD_SHORT_BYTES + 1, WAIT_US = 20000000 };

struct item {
    struct offload_task task; /* first */
    atomic_bool *gate;        /* the work waits until it is open; NULL: does not */
    atomic_bool began;
    uint32_t worked, done, dropped, order;
};

static struct loop *loop;
static struct offload *offload;
static struct item items[TASKS];
static atomic_uint n_worked;
static uint32_t n_done;
static atomic_bool gate;

static void work(struct offload_task *t)
{
    struct item *i = (struct item *)t;
    atomic_store(&i->began, true);
    while (i->gate && !atomic_load(i->gate))
        clock_sleep_us(500);
    i->worked++;
    i->order = atomic_fetch_add(&n_worked, 1);
}

static void done(struct offload_task *t)
{
    ((struct item *)t)->done++;
    n_done++;
    loop_stop(loop);
}

static void drop(struct offload_task *t)
{
    ((struct item *)t)->dropped++;
}

static void set_up(void)
{
    memset(items, 0, sizeof items);
    for (int i = 0; i < TASKS; i++)
        items[i].task = (struct offload_task){.work = work, .done = done, .drop = drop};
    atomic_store(&n_worked, 0);
    atomic_store(&gate, false);
    n_done = 0;
    assert_int_equal(loop_new(&loop, NULL), 0);
    assert_int_equal(offload_new(loop, &offload, NULL), 0);
}

static void tear_down(void)
{
    offload_free(offload);
    loop_free(loop);
}

static int submit(int i, uint64_t owner, size_t size, bool waits)
{
    items[i].task.owner = owner;
    items[i].task.size = size;
    items[i].gate = waits ? &gate : NULL;
    return offload_submit(offload, &items[i].task, NULL);
}

static void wait_began(int i)
{
    uint64_t until = clock_us() + WAIT_US;
    while (!atomic_load(&items[i].began)) {
        assert_true(clock_us() < until);
        clock_sleep_us(200);
    }
}

static void run_until_done(uint32_t n)
{
    while (n_done < n)
        assert_int_equal(loop_run(loop, NULL), 0);
}

static void test_short_passes_long(void **state)
{
    (void)state;
    set_up();
    assert_int_equal(submit(0, 1, LONG, true), 0);
    wait_began(0);
    assert_int_equal(submit(1, 1, LONG, false), 0);
    assert_int_equal(submit(2, 1, 10, false), 0);
    run_until_done(1); /* the loop is not held up */
    assert_int_equal(items[2].done, 1);
    assert_int_equal(items[1].worked, 0);
    atomic_store(&gate, true);
    run_until_done(3);
    for (int i = 0; i < 3; i++)
        assert_true(items[i].worked == 1 && items[i].done == 1 && items[i].dropped == 0);
    tear_down();
}

static void test_owners_take_turns(void **state)
{
    (void)state;
    set_up();
    assert_int_equal(submit(0, 1, LONG, true), 0);
    wait_began(0);
    for (int i = 1; i <= 20; i++)
        assert_int_equal(submit(i, 1, LONG, false), 0);
    assert_int_equal(submit(21, 2, LONG, false), 0);
    assert_int_equal(submit(22, 3, LONG, false), 0);
    atomic_store(&gate, true);
    run_until_done(23);
    assert_true(items[21].order <= 3 && items[22].order <= 4);
    tear_down();
}

/* Two owners that flood share what they get; a third waits for one task of each, not for all. */
static void test_owners_share(void **state)
{
    (void)state;
    set_up();
    assert_int_equal(submit(0, 1, LONG, true), 0);
    wait_began(0);
    for (int i = 1; i <= 40; i++)
        assert_int_equal(submit(i, 1 + (uint64_t)i % 2, LONG, false), 0);
    assert_int_equal(submit(41, 3, LONG, false), 0);
    assert_int_equal(submit(42, 4, LONG + LONG / 2, false), 0);
    assert_int_equal(submit(43, 4, LONG, false), 0);
    atomic_store(&gate, true);
    run_until_done(44);
    assert_true(items[41].order <= 3 && items[42].order <= 4);
    assert_true(items[43].order <= 9); /* what came first counts by its size */
    tear_down();
}

static void test_limits(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    set_up();
    assert_int_equal(submit(0, 1, LONG, true), 0);
    wait_began(0);
    for (int i = 1; i <= OFFLOAD_PER_OWNER_MAX; i++)
        assert_int_equal(submit(i, 1, LONG, false), 0);
    int next = OFFLOAD_PER_OWNER_MAX + 1;
    items[next].task.owner = 1;
    items[next].task.size = LONG;
    assert_int_equal(offload_submit(offload, &items[next].task, &e), ERR_BUSY);
    assert_non_null(strstr(e.text, "your large requests"));
    for (; next < OFFLOAD_TASKS_MAX; next++)
        assert_int_equal(submit(next, (uint64_t)next, LONG, false), 0);
    assert_int_equal(submit(next, 2, LONG, false), ERR_BUSY);
    items[next].task.unlimited = true;
    assert_int_equal(submit(next, 1, LONG, false), 0);
    atomic_store(&gate, true);
    run_until_done(OFFLOAD_TASKS_MAX + 1);
    tear_down();
}

static void test_cancel_and_end(void **state)
{
    (void)state;
    set_up();
    assert_int_equal(submit(0, 1, LONG, true), 0);
    wait_began(0);
    assert_int_equal(submit(1, 1, LONG, false), 0);
    assert_int_equal(submit(2, 1, LONG, false), 0);
    assert_false(offload_cancel(offload, &items[0].task)); /* in work: done follows */
    assert_true(offload_cancel(offload, &items[1].task));
    assert_int_equal(submit(1, 1, LONG, false), 0); /* it is ours again */
    assert_true(offload_cancel(offload, &items[1].task));
    assert_int_equal(submit(3, 1, LONG, false), 0);
    atomic_store(&gate, true);
    tear_down(); /* what is left is dropped, wherever it was */
    assert_int_equal(items[1].worked + items[1].done + items[1].dropped, 0);
    for (int i = 0; i < 4; i++)
        if (i != 1) assert_true(items[i].done == 0 && items[i].dropped == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_passes_long), cmocka_unit_test(test_owners_take_turns),
        cmocka_unit_test(test_owners_share),      cmocka_unit_test(test_limits),
        cmocka_unit_test(test_cancel_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
