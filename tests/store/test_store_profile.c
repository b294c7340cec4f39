/*
 * test_store_profile: a profile that is saved is the one that is loaded.
 *
 * Catches: a figure that is lost on the way; figures of one cloud or model used for another; a
 * password written to the file; values that no profile can hold taken from a damaged file.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/store_profile.h"

static char dir[64];
static struct store *store;

static int setup(void **state)
{
    struct err e = ERR_INIT;
    (void)state;
    strcpy(dir, "/tmp/pdd-profile-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    return store_open(dir, &store, &e);
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    store_close(store);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static const struct store_owners ours = {"model exact-1", "https://me:secret@cloud.example/v1"};

static struct profile measured(void)
{
    struct profile p;
    profile_init(&p, 0.0, 0.0);
    for (int i = 1; i < 6; i++) {
        profile_prefilled(&p, 1e9 + i * 10, 100, 1000u * (uint32_t)i, 1000000.0 * i * i);
        profile_decoded(&p, 1e9 + i * 10 + 5, 1000u * (uint32_t)i, 40000.0 + i * 3000.0);
        profile_granted(&p, 1e9, 40000.0 + i * 1000.0);
        profile_cached(&p, 1000, 100u * (uint32_t)i);
        profile_first_token(&p, 500u * (uint32_t)i, 100000.0 * i);
        profile_streamed(&p, 15000.0 + i);
        profile_answered(&p, 3000, 77u * (uint32_t)i, i == 3);
        profile_answered(&p, 10, 5, false);
    }
    return p;
}

static void load(const struct store_owners *owners, struct profile *p)
{
    struct err e = ERR_INIT;
    profile_init(p, 0.0, 0.0);
    if (store_profile_load(store, owners, p, &e)) fail_msg("%s", e.text);
}

static void save(const struct profile *p)
{
    struct err e = ERR_INIT;
    if (store_profile_save(store, &ours, p, &e)) fail_msg("%s", e.text);
}

static void test_what_is_saved_is_loaded(void **state)
{
    struct profile p = measured(), q;
    struct err e = ERR_INIT;
    (void)state;
    load(&ours, &q); /* nothing is there yet */
    assert_int_equal(q.prefill.n + q.queue_us.n, 0);
    save(&p);
    save(&p); /* over itself */
    store_close(store);
    assert_int_equal(store_open(dir, &store, &e), 0);
    load(&ours, &q);
    assert_memory_equal(&p, &q, sizeof p);
}

static void test_owners_are_kept_apart(void **state)
{
    struct profile p = measured(), q;
    (void)state;
    save(&p);
    load(&(struct store_owners){"model exact-1", "https://other.example"}, &q);
    assert_int_equal(q.first.n, 0);
    assert_int_equal(q.queue_us.n, 0);
    assert_int_equal(q.prefill.n, p.prefill.n);
    load(&(struct store_owners){"model exact-2", ours.cloud}, &q);
    assert_int_equal(q.prefill.n, 0);
    assert_int_equal(q.first.n, p.first.n);
    load(&(struct store_owners){NULL, NULL}, &q);
    assert_int_equal(q.prefill.n + q.first.n, 0);
    load(&(struct store_owners){NULL, "https://cloud.example/v1"}, &q); /* without the password */
    assert_int_equal(q.first.n, p.first.n);
    load(&(struct store_owners){NULL, "https://cloud.example/v1@x"}, &q);
    assert_int_equal(q.first.n, 0);
}

static bool holds(const char *text)
{
    char path[128], bytes[4096];
    size_t n;
    bool found = false;
    struct err e = ERR_INIT;
    assert_int_equal(store_exec(store, "PRAGMA wal_checkpoint(TRUNCATE)", &e), 0);
    snprintf(path, sizeof path, "%s/state.db", dir);
    FILE *f = fopen(path, "rb");
    while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
        found |= memmem(bytes, n, text, strlen(text)) != NULL;
    fclose(f);
    return found;
}

static void test_no_password_is_kept(void **state)
{
    struct profile p = measured();
    (void)state;
    save(&p);
    assert_true(holds("cloud.example"));
    assert_false(holds("secret"));
}

static void test_nonsense_is_left_out(void **state)
{
    static const char *const nonsense[] = {
        "UPDATE estimate SET weight = -1, x = -1", "UPDATE estimate SET y = 9e999, x = 9e999",
        "UPDATE estimate SET off = -1", "UPDATE estimate SET n = -5",
        "UPDATE estimate SET weight = 'many', x = 'far', y = x'00'"};
    (void)state;
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        struct profile p = measured(), q;
        struct plan_device d;
        struct plan_cloud c;
        save(&p);
        assert_int_equal(store_exec(store, nonsense[i], NULL), 0);
        assert_int_equal(store_exec(store, "UPDATE length SET weight = 1e300", NULL), 0);
        assert_int_equal(store_exec(store, "INSERT INTO length VALUES (99, 99, 1, 1)", NULL), 0);
        load(&ours, &q);
        profile_device(&q, 1e9, &d);
        profile_cloud(&q, 1e9, 1000, &c);
        assert_true(d.prefill.us >= 0.0 && isfinite(d.prefill.us) && isfinite(d.prefill.spread));
        assert_true(d.heat >= 1.0 && d.heat <= 4.0);
        assert_true(c.first_us.mean >= 0.0 && isfinite(c.first_us.mean) && isfinite(c.rtt_us));
        assert_int_equal(q.lengths[3].n, 0);
        assert_int_equal(store_exec(store, "DELETE FROM length", NULL), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_saved_is_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_owners_are_kept_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_password_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_is_left_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
