/*
 * test_energy: base/energy.h on made-up trees of sysfs.
 *
 * Catches: a counter's wrap taken for a loss or a leap; a package counted twice, by its zones or by
 * psys; units; a figure that is told although the source was away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/energy.h"
#include "base/os.h"
#include "support/program.h"

static char root[64];

static int begin(void **state)
{
    (void)state;
    strcpy(root, "/tmp/pdd-test-energy-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int end(void **state)
{
    char command[128];
    struct buf out;
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    int status = program_shell(command, &out);
    buf_release(&out);
    return status;
}

/* root/PATH, with its folders; a line end follows as in sysfs. */
static void put(const char *path, const char *text)
{
    char whole[256], line[80];
    struct err e = ERR_INIT;
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *at = whole + strlen(root) + 1; *at; at++) {
        if (*at != '/') continue;
        *at = 0;
        mkdir(whole, 0700);
        *at = '/';
    }
    snprintf(line, sizeof line, "%s\n", text);
    if (os_write_file(whole, line, strlen(line), &e)) fail_msg("%s", e.text);
}

static void take_away(const char *path)
{
    char whole[256];
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    assert_int_equal(unlink(whole), 0);
}

static void expect(struct energy *m, const struct energy_mark *mark, uint64_t now, double joules)
{
    double got = -1.0;
    assert_true(energy_since(m, mark, now, &got));
    if (got < joules - 1e-6 || got > joules + 1e-6) fail_msg("%f J, not %f", got, joules);
}

#define RAPL(n, file) "class/powercap/intel-rapl:" #n "/" file

static void test_rapl(void **state)
{
    struct energy m;
    (void)state;
    put(RAPL(0, "name"), "package-0");
    put(RAPL(0, "energy_uj"), "1000000");
    put(RAPL(0, "max_energy_range_uj"), "9000000");
    put(RAPL(0, "intel-rapl:0:0/name"), "core");
    put(RAPL(0, "intel-rapl:0:0/energy_uj"), "500000");
    put(RAPL(1, "name"), "package-1");
    put(RAPL(1, "energy_uj"), "8000000");
    put(RAPL(1, "max_energy_range_uj"), "9000000");
    put(RAPL(2, "name"), "psys");
    put(RAPL(2, "energy_uj"), "7000000");
    energy_init(&m, root);
    struct energy_mark mark = energy_mark(&m, 1000);
    assert_int_equal(m.source, ENERGY_RAPL);
    assert_int_equal(m.n_parts, 2);
    put(RAPL(0, "energy_uj"), "3500000");
    put(RAPL(1, "energy_uj"), "8250000");
    expect(&m, &mark, 2000, 2.75);
    put(RAPL(1, "energy_uj"), "250000"); /* past its end: 0.75 J and 0.25 J */
    expect(&m, &mark, 3000, 3.75);
    /* A sample between is taken ENERGY_STEP_US after the last one, and not before. */
    put(RAPL(0, "energy_uj"), "4000000");
    energy_sample(&m, 3000 + ENERGY_STEP_US - 1);
    assert_true(m.counters[0] == 3500000);
    energy_sample(&m, 3000 + ENERGY_STEP_US);
    assert_true(m.counters[0] == 4000000);
    expect(&m, &mark, 4000000, 4.25);
    mark = energy_mark(&m, 5000000);
    expect(&m, &mark, 6000000, 0.0);
}

/* Catches: a figure for a time in which nobody measured. */
static void test_rapl_goes_away(void **state)
{
    struct energy m;
    double joules;
    (void)state;
    put(RAPL(0, "name"), "package-0");
    put(RAPL(0, "energy_uj"), "1000000");
    put(RAPL(0, "max_energy_range_uj"), "500000"); /* smaller than what was counted: nonsense */
    energy_init(&m, root);
    struct energy_mark mark = energy_mark(&m, 1);
    put(RAPL(0, "energy_uj"), "10");
    assert_false(energy_since(&m, &mark, 2, &joules));
    mark = energy_mark(&m, 3); /* it is found again */
    put(RAPL(0, "energy_uj"), "1000010");
    expect(&m, &mark, 4, 1.0);
    take_away(RAPL(0, "energy_uj"));
    assert_false(energy_since(&m, &mark, 5, &joules));
    put(RAPL(0, "energy_uj"), "2000010");
    energy_mark(&m, 6);
    assert_false(energy_since(&m, &mark, 7, &joules)); /* of another time */
    put(RAPL(0, "energy_uj"), "many");
    mark = energy_mark(&m, 8);
    assert_int_equal(m.source, ENERGY_NONE);
    assert_false(energy_since(&m, &mark, 9, &joules));
}

#define BATTERY(name, file) "class/power_supply/" name "/" file

static void test_battery(void **state)
{
    struct energy m;
    double joules;
    (void)state;
    put(BATTERY("AC", "type"), "Mains");
    put(BATTERY("AC", "online"), "0");
    put(BATTERY("BAT0", "type"), "Battery");
    put(BATTERY("BAT0", "status"), "Discharging");
    put(BATTERY("BAT0", "power_now"), "10000000");
    put(BATTERY("BAT1", "type"), "Battery");
    put(BATTERY("BAT1", "status"), "Discharging");
    put(BATTERY("BAT1", "current_now"), "-500000"); /* 0.5 A at 4 V */
    put(BATTERY("BAT1", "voltage_now"), "4000000");
    put(BATTERY("mouse", "type"), "Battery");
    put(BATTERY("mouse", "scope"), "Device");
    put(BATTERY("mouse", "status"), "Discharging");
    put(BATTERY("mouse", "power_now"), "1000000");
    energy_init(&m, root);
    struct energy_mark mark = energy_mark(&m, 1000000);
    assert_int_equal(m.source, ENERGY_BATTERY);
    expect(&m, &mark, 3000000, 24.0);
    put(BATTERY("BAT0", "power_now"), "30000000"); /* 12 W, then 32 W: 22 W between */
    energy_sample(&m, 4000000);
    expect(&m, &mark, 5000000, 24.0 + 22.0 + 32.0);
    put(BATTERY("BAT0", "status"), "Charging");
    put(BATTERY("BAT1", "status"), "Full");
    energy_sample(&m, 6000000);
    put(BATTERY("BAT0", "status"), "Discharging"); /* again, but not all along */
    assert_false(energy_since(&m, &mark, 7000000, &joules));
}

static void test_nothing(void **state)
{
    struct energy m;
    double joules;
    (void)state;
    energy_init(&m, root);
    struct energy_mark mark = energy_mark(&m, 1);
    energy_sample(&m, 10000000);
    assert_int_equal(m.source, ENERGY_NONE);
    assert_false(energy_since(&m, &mark, 20000000, &joules));
    energy_init(&m, "/no/such");
    mark = energy_mark(&m, 1);
    assert_false(energy_since(&m, &mark, 2, &joules));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rapl, begin, end),
        cmocka_unit_test_setup_teardown(test_rapl_goes_away, begin, end),
        cmocka_unit_test_setup_teardown(test_battery, begin, end),
        cmocka_unit_test_setup_teardown(test_nothing, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
