/*
 * test_kv_disk: KV pages on disk are the bits that would be computed anew, and nothing else is ever
 * taken for them.
 *
 * Catches: a page of another history, model or kind of KV cache taken for this one's; a damaged or
 * cut file believed; a folder that grows beyond its limit; a prompt computed again after a restart;
 * an answer that differs after one.
 */
#include <dirent.h>
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

#include "base/clock.h"
#include "base/mem.h"
#include "device/kv_disk.h"
#include "device/local.h"
#include "engine/native.h"
#include "support/tiny_model.h"

enum { TOKENS = 448, PAGES = TOKENS / KV_DISK_TOKENS, LATE_US = 20000000 };

static const struct sampling greedy = SAMPLING_GREEDY;
static char folder[64], model[TINY_PATH_MAX];
static int32_t prompt[TOKENS + 10];

static int begin_all(void **state)
{
    struct tiny_options o = TINY_DEFAULT;
    (void)state;
    tiny_model_file(&o, model);
    for (int i = 0; i < TOKENS + 10; i++)
        prompt[i] = 20 + (i * i + 3 * i) % 90;
    return 0;
}

static int end_all(void **state)
{
    (void)state;
    unlink(model);
    return 0;
}

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/pdd-kv-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

/* Calls `each` for the path of every file, or counts them only. */
static unsigned for_files(void (*each)(const char *path))
{
    char path[512];
    unsigned n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        if (f->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
        n++;
        if (each) each(path);
    }
    closedir(d);
    return n;
}

static void remove_file(const char *path)
{
    unlink(path);
}

static void remove_folder(void)
{
    for_files(remove_file);
    rmdir(folder);
}

static struct engine *open_engine(enum native_kv kv)
{
    struct engine *e;
    struct err err = ERR_INIT;
    struct native_options o = {
        .model_path = model, .threads = 1, .context_max = 512, .kv_type = kv};
    if (native_open(&o, &e, &err)) fail_msg("%s", err.text);
    return e;
}

/* A history computed in chunks of `chunk` tokens. */
static struct session *compute(struct engine *e, uint32_t chunk)
{
    struct session *s;
    assert_int_equal(engine_session_open(e, &s, NULL), 0);
    for (uint32_t at = 0; at < TOKENS; at += chunk) {
        uint32_t n = TOKENS - at < chunk ? TOKENS - at : chunk;
        struct engine_span span = {.session = s, .tokens = prompt + at, .n = n};
        assert_int_equal(engine_step(e, &span, 1, NULL), 0);
    }
    return s;
}

static void count_done(void *arg)
{
    ++*(unsigned *)arg;
}

static struct kv_disk *open_disk(const char *fingerprint, size_t page_bytes, uint64_t bytes_max)
{
    struct kv_disk_config c = {folder, fingerprint, page_bytes, bytes_max};
    struct kv_disk *d;
    struct err e = ERR_INIT;
    if (kv_disk_open(&c, &d, &e)) fail_msg("%s", e.text);
    return d;
}

static void keys_of(const struct kv_disk *d, struct kv_key keys[PAGES])
{
    for (int i = 0; i < PAGES; i++)
        kv_disk_key(d, i ? &keys[i - 1] : NULL, prompt + i * KV_DISK_TOKENS, &keys[i]);
}

static void write_pages(struct kv_disk *d, struct engine *e, struct session *s)
{
    struct kv_key keys[PAGES];
    struct kv_disk_page *pages = mem_calloc(PAGES, sizeof *pages);
    uint32_t held[PAGES];
    unsigned done = 0;
    keys_of(d, keys);
    for (uint32_t i = 0; i < PAGES; i++) {
        held[i] = session_page_hold(s, i);
        pages[i].key = keys[i];
        pages[i].depth = i;
        memcpy(pages[i].tokens, prompt + i * KV_DISK_TOKENS, sizeof pages[i].tokens);
        pages[i].data = engine_page_data(e, held[i]);
    }
    assert_int_equal(kv_disk_write(d, pages, PAGES, count_done, &done, NULL), 0);
    kv_disk_close(d); /* writes it all */
    assert_int_equal(done, 1);
    for (int i = 0; i < PAGES; i++)
        engine_page_drop(e, held[i]);
}

/* Written from one engine, read back: what another engine computes, in other chunks. */
static void test_same_bits(void **state)
{
    static const enum native_kv kinds[] = {NATIVE_KV_I16, NATIVE_KV_F16};
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        make_folder();
        struct engine *a = open_engine(kinds[k]), *b = open_engine(kinds[k]);
        size_t n = engine_page_bytes(a);
        struct session *s = compute(a, 100), *t = compute(b, 37);
        struct kv_disk *d = open_disk("one", n, 1 << 30);
        write_pages(d, a, s);
        assert_int_equal(for_files(NULL), PAGES);
        struct stat st;
        assert_int_equal(stat(folder, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        struct kv_key keys[PAGES];
        void *page = mem_alloc(n);
        d = open_disk("one", n, 1 << 30);
        keys_of(d, keys);
        for (uint32_t i = 0; i < PAGES; i++) {
            uint32_t held = session_page_hold(t, i);
            assert_true(kv_disk_has(d, &keys[i]));
            assert_int_equal(
                kv_disk_read(d, &keys[i], (uint32_t)i, prompt + i * KV_DISK_TOKENS, page, NULL), 0);
            assert_memory_equal(page, engine_page_data(b, held), n);
            engine_page_drop(b, held);
        }
        kv_disk_close(d);
        d = open_disk("another", n, 1 << 30); /* model, numerics or type */
        keys_of(d, keys);
        for (int i = 0; i < PAGES; i++)
            assert_false(kv_disk_has(d, &keys[i]));
        kv_disk_close(d);
        mem_free(page);
        engine_session_close(s);
        engine_session_close(t);
        engine_free(a);
        engine_free(b);
        remove_folder();
    }
}

static int damage_at;

static void damage(const char *path)
{
    struct stat st;
    char c;
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(stat(path, &st), 0);
    long at = damage_at < 0 ? (long)st.st_size + damage_at : damage_at;
    fseek(f, at, SEEK_SET);
    assert_int_equal(fread(&c, 1, 1, f), 1);
    c ^= 0x10;
    fseek(f, at, SEEK_SET);
    fwrite(&c, 1, 1, f);
    fclose(f);
}

static void cut(const char *path)
{
    assert_int_equal(truncate(path, damage_at), 0);
}

/* Any byte that differs is found, the file goes, and the page counts as not there. */
static void test_damage(void **state)
{
    static const int places[] = {0, 9, 20, 30, 60, 200, 312, 313, 2000, -1};
    (void)state;
    struct engine *e = open_engine(NATIVE_KV_AUTO);
    struct session *s = compute(e, 64);
    size_t n = engine_page_bytes(e);
    void *page = mem_alloc(n);
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        struct kv_key keys[PAGES];
        make_folder();
        write_pages(open_disk("one", n, 1 << 30), e, s);
        damage_at = places[k];
        for_files(damage);
        struct kv_disk *d = open_disk("one", n, 1 << 30);
        keys_of(d, keys);
        for (int i = 0; i < PAGES; i++) {
            assert_int_equal(
                kv_disk_read(d, &keys[i], (uint32_t)i, prompt + i * KV_DISK_TOKENS, page, NULL),
                ERR_BAD_INPUT);
            assert_false(kv_disk_has(d, &keys[i]));
        }
        kv_disk_close(d);
        assert_int_equal(for_files(NULL), 0);
        remove_folder();
    }
    make_folder();
    write_pages(open_disk("one", n, 1 << 30), e, s);
    damage_at = 300;
    for_files(cut);
    kv_disk_close(open_disk("one", n, 1 << 30)); /* a cut file goes at opening */
    assert_int_equal(for_files(NULL), 0);
    remove_folder();
    mem_free(page);
    engine_session_close(s);
    engine_free(e);
}

static void test_limit(void **state)
{
    struct kv_disk_stats stats;
    struct kv_key keys[PAGES];
    (void)state;
    struct engine *e = open_engine(NATIVE_KV_AUTO);
    struct session *s = compute(e, 64);
    size_t n = engine_page_bytes(e);
    make_folder();
    write_pages(open_disk("one", n, 3 * (n + 400)), e, s);
    assert_int_equal(for_files(NULL), 3);
    struct kv_disk *d = open_disk("one", n, 2 * (n + 400)); /* a smaller limit holds at once */
    kv_disk_stats_of(d, &stats);
    assert_int_equal(stats.files, 2);
    assert_true(stats.bytes <= 2 * (n + 400));
    keys_of(d, keys);
    assert_true(kv_disk_has(d, &keys[0]) && kv_disk_has(d, &keys[1])); /* the last ones went */
    kv_disk_close(d);
    assert_int_equal(for_files(NULL), 2);
    remove_folder();
    engine_session_close(s);
    engine_free(e);
}

static void wake(void *arg)
{
    (void)arg;
}

/* The next token of a history, by an engine thread that keeps its pages in the folder. */
static int32_t next_token(uint32_t n, uint32_t *ret_cached, struct local_stats *ret_stats)
{
    struct local *w;
    struct local_seat *s;
    struct local_event ev = {.kind = LOCAL_PROGRESS};
    assert_int_equal(local_new(open_engine(NATIVE_KV_AUTO), wake, NULL, &w, NULL), 0);
    assert_int_equal(local_keep(w, folder, 1 << 30, NULL), 0);
    assert_int_equal(local_seat_open(w, false, &s, NULL), 0);
    *ret_cached = local_begin(s, prompt, n, NULL);
    uint32_t from = *ret_cached < n ? *ret_cached : n - 1;
    assert_int_equal(local_feed(s, from, prompt + from, n - from, 0, &greedy, NULL), 0);
    uint64_t until = clock_us() + LATE_US;
    while (ev.kind == LOCAL_PROGRESS && clock_us() < until)
        if (!local_take(s, &ev)) clock_sleep_us(200);
    assert_int_equal(ev.kind, LOCAL_TOKEN);
    local_stats_of(w, ret_stats);
    local_seat_close(s);
    local_free(w);
    return ev.id;
}

/* After a restart only what follows the last whole page is computed; damage costs time alone. */
static void test_restart(void **state)
{
    struct local_stats first, second;
    uint32_t cached;
    (void)state;
    make_folder();
    int32_t want = next_token(TOKENS + 10, &cached, &first);
    assert_int_equal(cached, 0);
    assert_int_equal(for_files(NULL), PAGES);
    assert_int_equal(next_token(TOKENS + 10, &cached, &second), want);
    assert_int_equal(cached, TOKENS);
    assert_int_equal(second.loaded_pages, PAGES);
    assert_true(second.prefill_tokens + second.decode_tokens <= 10);
    damage_at = 2000;
    for_files(damage);
    assert_int_equal(next_token(TOKENS + 10, &cached, &second), want);
    assert_int_equal(second.loaded_pages, 0);
    assert_int_equal(second.prefill_tokens + second.decode_tokens, TOKENS + 10);
    remove_folder();
}

/* A folder that is there already is the user's own and closed to others, and no link to another. */
static void test_folder(void **state)
{
    struct kv_disk *d = NULL;
    struct err e = ERR_INIT;
    struct stat st;
    char link[80];
    (void)state;
    make_folder();
    struct kv_disk_config c = {
        .dir = folder, .fingerprint = "f", .page_bytes = 1024, .bytes_max = 1 << 20};
    assert_int_equal(chmod(folder, 0777), 0);
    assert_int_equal(kv_disk_open(&c, &d, &e), 0);
    kv_disk_close(d);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    snprintf(link, sizeof link, "%s-link", folder);
    assert_int_equal(symlink(folder, link), 0);
    c.dir = link;
    assert_int_equal(kv_disk_open(&c, &d, &e), ERR_IO);
    assert_non_null(strstr(e.text, link));
    unlink(link);
    assert_int_equal(rmdir(folder), 0);
}

/* Of pages that are removed none is there, nor comes; those of others stay. */
static void test_forget(void **state)
{
    struct kv_key keys[PAGES];
    (void)state;
    struct engine *e = open_engine(NATIVE_KV_AUTO);
    struct session *s = compute(e, 64);
    size_t n = engine_page_bytes(e);
    make_folder();
    write_pages(open_disk("one", n, 1 << 30), e, s);
    struct kv_disk *d = open_disk("one", n, 1 << 30);
    keys_of(d, keys);
    kv_disk_forget(d, keys + 2, PAGES - 2);
    for (int i = 0; i < PAGES; i++)
        assert_int_equal(kv_disk_has(d, &keys[i]), i < 2);
    assert_int_equal(for_files(NULL), 2);
    struct kv_disk_page *pages = mem_calloc(PAGES, sizeof *pages);
    void *data = mem_calloc(1, n);
    unsigned done = 0;
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = (struct kv_disk_page){.key = keys[i], .depth = i, .data = data};
    assert_int_equal(kv_disk_write(d, pages, PAGES, count_done, &done, NULL), 0);
    kv_disk_forget(d, keys + 2, PAGES - 2); /* waiting, or half written */
    kv_disk_close(d);
    assert_int_equal(done, 1);
    assert_int_equal(for_files(NULL), 2);
    remove_folder();
    mem_free(data);
    engine_session_close(s);
    engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_limit),     cmocka_unit_test(test_restart),
        cmocka_unit_test(test_folder),    cmocka_unit_test(test_forget),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
