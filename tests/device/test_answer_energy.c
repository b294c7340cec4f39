/*
 * test_answer_energy: the energy in the report of an answer, with a made-up tree of sysfs.
 *
 * Catches: a declared figure that is called measured, or the other way round; a measurement of this
 * machine told of an emulated one; what was used before the question counted with the answer.
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

#include "base/os.h"
#include "device/device.h"
#include "engine/emulated.h"
#include "engine/fake.h"
#include "support/program.h"

enum { ANSWER = 8 };

static char root[] = "/tmp/pdd-test-joules-XXXXXX";
static const char package[] = "class/powercap/intel-rapl:0";

static void put(const char *file, const char *text)
{
    char path[256];
    struct err e = ERR_INIT;
    snprintf(path, sizeof path, "%s/%s/%s", root, package, file);
    if (os_write_file(path, text, strlen(text), &e)) fail_msg("%s", e.text);
}

static int shell(const char *format)
{
    char command[512];
    struct buf out;
    snprintf(command, sizeof command, format, root);
    int status = program_shell(command, &out);
    buf_release(&out);
    return status;
}

static int begin(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(shell("mkdir -p '%s'/class/powercap/intel-rapl:0"), 0);
    put("name", "package-0\n");
    put("max_energy_range_uj", "100000000\n");
    put("energy_uj", "90000000\n");
    return 0;
}

static int end(void **state)
{
    (void)state;
    return shell("rm -rf '%s'");
}

static struct device *open_device(const char *sys, bool emulated)
{
    static const struct device_profile fast = {"fast", 1e5, 1e4, "made up", false};
    struct fake_options fake = {.answer_tokens = ANSWER, .prefill_us_per_token = 100.0};
    struct device_options o = {.prefill_tps = 1000.0, .decode_us = 10.0, .sys = sys};
    struct device *d;
    struct err e = ERR_INIT;
    assert_int_equal(fake_open(&fake, &o.engine, NULL), 0);
    if (emulated) engine_emulate(o.engine, &fast);
    if (device_open(&o, &d, &e)) fail_msg("%s", e.text);
    return d;
}

/* The machine uses 20 J while the first text is shown, 10 J of them past the end of the counter. */
static void on_text(void *arg, const char *text, size_t n, uint32_t index, enum turn_source source)
{
    (void)arg, (void)text, (void)n, (void)source;
    if (index == 0) put("energy_uj", "10000000\n");
}

static void ask(struct device *d, struct device_report *r)
{
    static const char question[] = "How much?";
    struct chat_message m = {"user", question, sizeof question - 1};
    struct device_question q = {.messages = &m,
                                .n_messages = 1,
                                .sampling = SAMPLING_GREEDY,
                                .pace = PACE_OFF,
                                .cloud_tokens = -1,
                                .on_text = on_text};
    struct err e = ERR_INIT;
    if (device_ask(d, &q, r, &e)) fail_msg("%s", e.text);
    assert_int_equal(r->n, ANSWER);
}

static void test_measured(void **state)
{
    struct device *d = open_device(root, false);
    struct device_report r;
    (void)state;
    put("energy_uj", "90000000\n");
    ask(d, &r);
    assert_true(r.energy_measured);
    assert_string_equal(r.energy_how, "measured: RAPL of the processors, whole machine");
    assert_true(r.energy_j > 19.999 && r.energy_j < 20.001);
    put("energy_uj", "50000000\n"); /* between two questions */
    ask(d, &r);                     /* on_text sets it back to 10 J: past the end again, 60 J */
    assert_true(r.energy_j > 59.999 && r.energy_j < 60.001);
    device_close(d);
}

static void expect_declared(const char *sys, bool emulated)
{
    struct device *d = open_device(sys, emulated);
    struct device_report r;
    ask(d, &r);
    assert_false(r.energy_measured);
    assert_non_null(strstr(r.energy_how, "declared: 5 W in prefill, 4 W in decode"));
    double prefill_s = r.prompt_tokens / r.prefill_tps, decode_s = ANSWER * r.decode_us / 1e6;
    double least = 0.99 * (5.0 * prefill_s + 4.0 * decode_s);
    /* Of the answer's tokens in the KV cache only the last few are not the device's own. */
    double most = 1.01 * (5.0 * (prefill_s + 1.0 / r.prefill_tps) + 4.0 * decode_s);
    if (r.energy_j < least || r.energy_j > most)
        fail_msg("%g J, not %g to %g", r.energy_j, least, most);
    device_close(d);
}

static void test_declared(void **state)
{
    (void)state;
    expect_declared("/no/such", false);
    expect_declared(root, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measured),
        cmocka_unit_test(test_declared),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
