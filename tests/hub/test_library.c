/*
 * test_library: the folder of models: reading, names, removal, locks, records.
 *
 * Catches: a name that leads to the wrong file or out of the folder; removal of what is not ours; a
 * damaged record that hides a model; a lock that two hold.
 */
#include "base/os.h"
#include "hub/pull_site.h"

static void put(const struct pull_site *s, const char *file, const void *data, size_t n)
{
    char path[256];
    struct err e = ERR_INIT;
    site_path(s, file, path);
    if (os_write_file(path, data, n, &e)) fail_msg("%s", e.text);
}

static void begin(struct pull_site *s)
{
    site_start(s, NULL);
    assert_int_equal(os_make_folder(s->dir, 0777, NULL), 0);
}

static void test_read(void **state)
{
    struct pull_site s;
    struct library_list l;
    (void)state;
    site_start(&s, NULL);
    assert_int_equal(library_read(s.dir, true, &l, NULL), 0); /* no folder yet */
    assert_int_equal(l.n, 0);
    library_list_release(&l);
    site_expect(&s, "/m.gguf?secret=1", 0, NULL);
    put(&s, "hand.gguf", s.other.data, s.other.len);
    put(&s, "hand.json", "{\"from\": 5", 10);
    put(&s, "bad.gguf", "GGUF", 4);
    put(&s, "cut.gguf.part", "GGUF", 4);
    put(&s, "bad\033[31m.gguf", "GGUF", 4);
    put(&s, "notes.txt", "x", 1);
    assert_int_equal(library_read(s.dir, true, &l, NULL), 0);
    assert_int_equal(l.n, 4);
    assert_string_equal(l.models[0].name, "bad");
    assert_true(l.models[0].unreadable.code != 0);
    assert_string_equal(l.models[1].name, "cut");
    assert_true(l.models[1].partial);
    assert_string_equal(l.models[2].name, "hand");
    assert_string_equal(l.models[2].record.from, "");
    const struct library_model *m = &l.models[3];
    assert_string_equal(m->name, "m");
    assert_int_equal(m->unreadable.code, 0);
    assert_string_equal(m->architecture, "llama");
    assert_string_equal(m->type, "Q8_0");
    assert_int_equal(m->context, 2048);
    assert_true(m->parameters > 30000);
    assert_int_equal(m->bytes, s.file.len);
    assert_null(strstr(m->record.from, "secret"));
    assert_int_equal(m->record.n_files, 1);
    assert_string_equal(m->record.files[0].sha256, s.sha256);
    assert_true(m->record.pulled > 1700000000);
    library_list_release(&l);
    site_stop(&s);
}

/* Catches: a record that writes to the terminal of whoever lists it. */
static void test_record_of_controls(void **state)
{
    static const char odd[] = "{\"from\": \"hf:a\\u001b[31m\\u009bb\", \"files\": [{\"name\": "
                              "\"x\", \"bytes\": 4, \"sha256\": \"\\u001b[2J\"}]}";
    struct pull_site s;
    struct library_list l;
    (void)state;
    begin(&s);
    put(&s, "m.gguf", "GGUF", 4);
    put(&s, "m.json", odd, sizeof odd - 1);
    assert_int_equal(library_read(s.dir, false, &l, NULL), 0);
    assert_int_equal(l.n, 1);
    assert_string_equal(l.models[0].record.from, "hf:a [31m  b");
    assert_string_equal(l.models[0].record.files[0].sha256, "");
    library_list_release(&l);
    site_stop(&s);
}

static void expect_find(const struct pull_site *s, const char *name, int code, const char *text)
{
    char path[LIBRARY_PATH_MAX] = "";
    struct err e = ERR_INIT;
    int got = library_find(s->dir, name, path, sizeof path, &e);
    if (got != code || !strstr(code ? e.text : path, text))
        fail_msg("%s: %d, %s%s", name, got, path, e.text);
}

static void test_find(void **state)
{
    struct pull_site s;
    char path[LIBRARY_PATH_MAX];
    (void)state;
    begin(&s);
    assert_int_equal(library_find_only(s.dir, path, sizeof path, &s.e), ERR_NOT_FOUND);
    assert_non_null(strstr(s.e.text, "no model has been pulled"));
    put(&s, "smollm2-135m-q8_0.gguf", "GGUF", 4);
    assert_int_equal(library_find_only(s.dir, path, sizeof path, NULL), 0);
    put(&s, "qwen3-00001-of-00002.gguf", "GGUF", 4);
    put(&s, "qwen3-00002-of-00002.gguf", "GGUF", 4);
    put(&s, "half.gguf.part", "GGUF", 4);
    assert_int_equal(library_find_only(s.dir, path, sizeof path, &s.e), ERR_NOT_FOUND);
    assert_non_null(strstr(s.e.text, "qwen3, smollm2-135m-q8_0"));
    expect_find(&s, "qwen3", 0, "/qwen3-00001-of-00002.gguf");
    expect_find(&s, "smollm2-135m-q8_0", 0, "/smollm2-135m-q8_0.gguf");
    expect_find(&s, "smollm2-135m-q8_0.gguf", 0, "/smollm2-135m-q8_0.gguf");
    expect_find(&s, "smollm2", ERR_NOT_FOUND, "near are smollm2-135m-q8_0");
    expect_find(&s, "qwne3", ERR_NOT_FOUND, "near are qwen3");
    expect_find(&s, "gemma", ERR_NOT_FOUND, "pdd model pull");
    expect_find(&s, "half", ERR_BUSY, "not complete");
    expect_find(&s, "../models/qwen3", ERR_NOT_FOUND, "no model");
    site_stop(&s);
}

static void test_remove(void **state)
{
    struct pull_site s;
    char outside[128], link_path[256];
    uint64_t freed;
    int fd;
    (void)state;
    begin(&s);
    put(&s, "m-00001-of-00002.gguf", "GGUF", 4);
    put(&s, "m-00002-of-00002.gguf", "GGUF", 4);
    put(&s, "m-00002-of-00002.gguf.part", "GGUF", 4);
    put(&s, "m-00002-of-00002.gguf.part.json", "{}", 2);
    put(&s, "m.json", "{}", 2);
    put(&s, "m2.gguf", "GGUF", 4);
    put(&s, "half.gguf.part", "GGUF", 4);
    snprintf(outside, sizeof outside, "%s/../outside.gguf", s.dir);
    assert_int_equal(os_write_file(outside, "x", 1, NULL), 0);
    assert_int_equal(library_remove(s.dir, outside, &freed, &s.e), ERR_BAD_INPUT);
    assert_non_null(strstr(s.e.text, "is a path"));
    assert_int_equal(library_remove(s.dir, "../outside", &freed, &s.e), ERR_BAD_INPUT);
    assert_int_equal(library_remove(s.dir, "nothing", &freed, &s.e), ERR_NOT_FOUND);
    assert_int_equal(library_lock(s.dir, "m", &fd, NULL), 0);
    assert_int_equal(library_remove(s.dir, "m", &freed, &s.e), ERR_BUSY);
    library_unlock(s.dir, "m", fd);
    assert_int_equal(library_remove(s.dir, "m", &freed, &s.e), 0);
    assert_int_equal(freed, 16);
    assert_true(site_has(&s, "m2.gguf"));
    assert_false(site_has(&s, "m-00002-of-00002.gguf.part.json"));
    assert_false(site_has(&s, "m.json"));
    assert_int_equal(library_remove(s.dir, "half", &freed, &s.e), 0);
    assert_false(site_has(&s, "half.gguf.part"));
    /* Of a link to a file elsewhere only the link goes. */
    site_path(&s, "linked.gguf", link_path);
    assert_int_equal(symlink(outside, link_path), 0);
    assert_int_equal(library_remove(s.dir, "linked", &freed, &s.e), 0);
    assert_int_equal(access(outside, F_OK), 0);
    assert_int_equal(access(link_path, F_OK), -1);
    site_stop(&s);
}

static void test_lock(void **state)
{
    struct pull_site s;
    struct err e = ERR_INIT;
    int fd, other;
    char pid[32];
    (void)state;
    begin(&s);
    assert_int_equal(library_lock(s.dir, "m", &fd, NULL), 0);
    assert_int_equal(library_lock(s.dir, "m", &other, &e), ERR_BUSY);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    assert_non_null(strstr(e.text, pid));
    assert_int_equal(library_lock(s.dir, "n", &other, &e), 0);
    library_unlock(s.dir, "n", other);
    library_unlock(s.dir, "m", fd);
    assert_int_equal(library_lock(s.dir, "m", &fd, NULL), 0);
    library_unlock(s.dir, "m", fd);
    assert_false(site_has(&s, ".m.lock"));
    site_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read), cmocka_unit_test(test_record_of_controls),
        cmocka_unit_test(test_find), cmocka_unit_test(test_remove),
        cmocka_unit_test(test_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
