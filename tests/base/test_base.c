/*
 * test_base: errors, memory, arenas, buffers, blanks, UTF-8, base64, random numbers, files.
 *
 * Catches: a limit that can be passed, content lost by a failed call, a character boundary missed,
 * random numbers that differ from Philox (device and cloud would draw different tokens).
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/blank.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/rng.h"
#include "base/utf8.h"

static void test_errors(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(err_set(&e, ERR_LIMIT, "%s is %d", "size", 7), ERR_LIMIT);
    assert_string_equal(e.text, "size is 7");
    assert_int_equal(err_prefix(&e, "file %s", "x"), ERR_LIMIT);
    assert_string_equal(e.text, "file x: size is 7");
    assert_int_equal(err_set(NULL, ERR_IO, "nobody listens"), ERR_IO);
    /* Cut at a character, wherever the limit falls in it; what is no UTF-8 becomes UTF-8. */
    for (int shift = 0; shift < 4; shift++) {
        char text[ERR_TEXT_MAX * 2] = "abc";
        text[shift] = 0;
        while (strlen(text) + 4 < sizeof text)
            strcat(text, "\xf0\x9f\x8c\x8a"); /* a wave, four bytes */
        err_set(&e, ERR_LIMIT, "%s", text);
        size_t n = strlen(e.text);
        assert_true(n < ERR_TEXT_MAX && n + 4 >= ERR_TEXT_MAX);
        assert_int_equal(utf8_valid_prefix(e.text, n), n);
        assert_null(strchr(e.text, '?'));
        err_prefix(&e, "x%s", "y");
        n = strlen(e.text);
        assert_int_equal(utf8_valid_prefix(e.text, n), n);
    }
    err_set(&e, ERR_LIMIT, "file %s: bad", "caf\xe9\xff.gguf\xe2\x82");
    assert_string_equal(e.text, "file caf??.gguf??: bad");
    assert_string_equal(err_code_name(ERR_PROTOCOL), "protocol");
    assert_string_equal(err_code_name(-99), "unknown");
}

/* A log that is not read: lines are dropped, counted and told of, and nothing waits. */
static void test_log_unread(void **state)
{
    enum { LINES = 5 };
    (void)state;
    for (int how = 0; how < 2; how++) {
        int ends[2], saved = dup(STDERR_FILENO);
        static char text[1 << 20];
        uint64_t before = log_dropped();
        assert_int_equal(how ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends), 0);
        int in = ends[0], out = ends[1];
        memset(text, 'x', sizeof text);
        assert_int_equal(fcntl(out, F_SETFL, O_NONBLOCK), 0);
        while (write(out, text, 1000) > 0)
            ;
        assert_int_equal(fcntl(out, F_SETFL, 0), 0); /* from here on a write would wait */
        fflush(stderr);
        dup2(out, STDERR_FILENO);
        close(out);
        alarm(20);
        for (int i = 0; i < LINES; i++)
            log_line(LOG_ERROR, "x", "line %d", i);
        assert_int_equal(log_dropped() - before, LINES);
        assert_int_equal(fcntl(in, F_SETFL, O_NONBLOCK), 0);
        while (read(in, text, sizeof text) > 0)
            ;
        log_line(LOG_ERROR, "x", "line %d", LINES);
        alarm(0);
        dup2(saved, STDERR_FILENO);
        close(saved);
        ssize_t n = read(in, text, sizeof text - 1);
        assert_true(n > 0);
        text[n] = 0;
        assert_non_null(strstr(text, "lines=5\n"));
        assert_non_null(strstr(text, "error x line 5\n"));
        assert_null(strstr(text, "line 4"));
        close(in);
    }
}

/* What a stranger named in a log line ends no line and steers no terminal. */
static void test_log_controls(void **state)
{
    char line[200];
    FILE *f = tmpfile();
    int kept = dup(STDERR_FILENO);
    (void)state;
    assert_true(f && kept >= 0);
    fflush(stderr);
    dup2(fileno(f), STDERR_FILENO);
    log_line(LOG_ERROR, "x", "model %s", "a\nb\033[31m");
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(f);
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "model a b [31m\n"));
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
}

static void test_buf_keeps_its_maximum(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_string_equal(b.data, "");
    assert_int_equal(buf_append(&b, "12345678", 8), 0);
    assert_int_equal(buf_append(&b, "abc", 3), ERR_LIMIT);
    assert_string_equal(b.data, "12345678");
    assert_int_equal(buf_putc(&b, 'x'), ERR_LIMIT); /* it sticks, though there is room */
    assert_int_equal(buf_fail(&b, ERR_BAD_INPUT), ERR_LIMIT);
    assert_int_equal(b.error, ERR_LIMIT);
    assert_string_equal(b.data, "12345678");
    buf_cut(&b, 8);
    assert_int_equal(buf_printf(&b, "%d", 99), 0);
    assert_int_equal(buf_putc(&b, 'x'), ERR_LIMIT);
    buf_consume(&b, 4);
    assert_string_equal(b.data, "567899");
    char *text = buf_steal(&b);
    assert_string_equal(text, "567899");
    assert_int_equal(b.len, 0);
    mem_free(text);
    buf_release(&b);
}

static void test_buf_survives_failed_allocations(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(buf_puts(&b, "kept"), 0);
    mem_fail_at(1);
    assert_int_equal(buf_reserve(&b, 5000), ERR_NO_MEMORY);
    assert_true(mem_fail_hit());
    mem_fail_at(0);
    assert_string_equal(b.data, "kept");
    buf_release(&b);
}

static void test_arena(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1 << 20);
    char *first = arena_alloc(&a, 100, 1);
    memset(first, 1, 100);
    for (int i = 0; i < 100; i++) {
        char *p = arena_alloc(&a, 3000, 64);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, i, 3000);
    }
    assert_null(arena_alloc(&a, 1 << 20, 1));
    assert_int_equal(a.used, 100 + 100 * 3000);
    assert_int_equal(first[99], 1);
    arena_release(&a);
}

static void test_hex_and_hash(void **state)
{
    (void)state;
    static const unsigned char bytes[] = {0x00, 0x9f, 0xa0, 0xff};
    unsigned char back[4];
    char text[9];
    hex_encode(bytes, 4, text);
    assert_string_equal(text, "009fa0ff");
    assert_true(hex_decode("009FA0ff", back, 4));
    assert_memory_equal(back, bytes, 4);
    assert_false(hex_decode("009fag", back, 3));
    assert_false(hex_decode("9", back, 1)); /* ends early */
    assert_int_equal(hex_digit('/'), -1);
    assert_true(fnv_bytes(FNV_BEGIN, "", 0) == 0xcbf29ce484222325u);
    assert_true(fnv_bytes(FNV_BEGIN, "foobar", 6) == 0x85944171f73967e8u); /* of its authors */
}

static void test_blank(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n, prefix, suffix;
    } cases[] = {{" \t\r\n", 4, 4, 4}, {"\n a \t", 5, 2, 2}, {"a\f", 2, 0, 0},
                 {" ", 0, 0, 0},       {NULL, 0, 0, 0},      {"\0 ", 2, 0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(blank_prefix(cases[i].text, cases[i].n), cases[i].prefix);
        assert_int_equal(blank_suffix(cases[i].text, cases[i].n), cases[i].suffix);
    }
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n, valid, pending;
    } rows[] = {
        {"abc", 3, 3, 0},          {"\xC3\xA9", 2, 2, 0},     {"a\xC3", 2, 1, 1},
        {"\xE2\x82", 2, 0, 2},     {"\xF0\x9F\x8C", 3, 0, 3}, {"\xF0\x9F\x8C\x8A", 4, 4, 0},
        {"\xC0\x80", 2, 0, 0},     {"\xED\xA0\x80", 3, 0, 0}, {"\xF4\x90\x80\x80", 4, 0, 0},
        {"\xE0\x80\x80", 3, 0, 0}, {"x\x80y", 3, 1, 0},       {"\xFF", 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(utf8_valid_prefix(rows[i].bytes, rows[i].n), rows[i].valid);
        assert_int_equal(utf8_pending(rows[i].bytes, rows[i].n), rows[i].pending);
    }
    for (uint32_t code = 0; code < 0x110000; code++) {
        char bytes[4];
        uint32_t back;
        if (code == 0xD800) code = 0xE000;
        size_t n = utf8_put(code, bytes);
        assert_int_equal(utf8_decode(bytes, n, &back), n);
        assert_int_equal(back, code);
        if (n > 1) assert_int_equal(utf8_decode(bytes, n - 1, &back), 0);
    }
}

static void test_base64(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
        {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"}};
    static const char *const bad[] = {
        "Zg=", "Zh==", "Z===", "Zm9=", "Zm9v!m9v", "=Zg=", "Zg==Zg=="};
    struct buf b;
    struct err e;
    buf_init(&b, 100);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        buf_clear(&b);
        assert_int_equal(base64_encode(rows[i][0], strlen(rows[i][0]), &b), 0);
        assert_string_equal(b.data, rows[i][1]);
        buf_clear(&b);
        assert_int_equal(base64_decode(rows[i][1], strlen(rows[i][1]), &b, &e), 0);
        assert_string_equal(b.data, rows[i][0]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        buf_clear(&b);
        assert_int_equal(base64_decode(bad[i], strlen(bad[i]), &b, &e), ERR_BAD_INPUT);
        assert_int_equal(b.len, 0);
    }
    buf_release(&b);
}

/* Known answers of Philox4x32-10 (Random123's kat_vectors), first word. */
static void test_random_numbers(void **state)
{
    (void)state;
    assert_int_equal(rng_u32(0, 0, 0), 0x6627e8d5);
    assert_int_equal(rng_u32(UINT64_MAX, UINT64_MAX, UINT64_MAX), 0x408f276d);
    assert_int_equal(rng_u32(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88),
                     0xd16cfe09);
    double sum = 0.0;
    struct rng r;
    rng_init(&r, 1, 2);
    for (int i = 0; i < 10000; i++) {
        float u = rng_next_uniform(&r);
        assert_true(u >= 0.0f && u < 1.0f);
        sum += (double)u;
        assert_true(rng_below(&r, 7) < 7);
    }
    assert_true(sum > 4800 && sum < 5200);
}

static void test_files(void **state)
{
    (void)state;
    char path[64];
    struct err e = ERR_INIT;
    struct os_map map;
    struct buf b;
    snprintf(path, sizeof path, "/tmp/pdd-test-%ld", (long)getpid());
    assert_int_equal(os_write_file(path, "hello", 5, &e), 0);
    assert_int_equal(os_map_open(path, &map, &e), 0);
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "hello", 5);
    os_map_close(&map);
    buf_init(&b, 4);
    assert_int_equal(os_read_file(path, &b, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, path));
    buf_release(&b);
    unlink(path);
    assert_int_equal(os_map_open(path, &map, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, path));
    assert_int_equal(os_map_open("/tmp", &map, &e), ERR_BAD_INPUT);
    assert_true(os_cpu_count() >= 1);
}

static void write_and_compare(const char *path, const char *text, const char *read_from)
{
    struct err e = ERR_INIT;
    struct buf b;
    buf_init(&b, 64);
    if (os_write_file(path, text, strlen(text), &e)) fail_msg("%s", e.text);
    assert_int_equal(os_read_file(read_from, &b, &e), 0);
    assert_string_equal(b.data, text);
    buf_release(&b);
}

/* Catches: a link or a pipe that a file takes the place of. */
static void test_files_in_place(void **state)
{
    (void)state;
    char folder[] = "/tmp/pdd-test-XXXXXX", file[64], near[64], far[64], self[64], fifo[64];
    char got[8] = "";
    struct stat st;
    struct err e = ERR_INIT;
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(near, sizeof near, "%s/near", folder);
    snprintf(far, sizeof far, "%s/far", folder);
    snprintf(self, sizeof self, "%s/self", folder);
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    assert_int_equal(symlink("file", near) | symlink(near, far) | symlink("self", self), 0);
    write_and_compare(near, "made", file);
    write_and_compare(far, "replaced", file);
    assert_true(lstat(near, &st) == 0 && S_ISLNK(st.st_mode));
    assert_true(lstat(far, &st) == 0 && S_ISLNK(st.st_mode));
    assert_int_equal(os_write_file(self, "x", 1, &e), ERR_IO);
    assert_int_equal(os_write_file(folder, "x", 1, &e), ERR_IO);

    assert_int_equal(mkfifo(fifo, 0600), 0);
    int fd = open(fifo, O_RDONLY | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_int_equal(os_write_file(fifo, "hello", 5, &e), 0);
    assert_int_equal(read(fd, got, sizeof got), 5);
    assert_string_equal(got, "hello");
    close(fd);
    assert_true(lstat(fifo, &st) == 0 && S_ISFIFO(st.st_mode));

    assert_int_equal(unlink(file) | unlink(near) | unlink(far) | unlink(self) | unlink(fifo), 0);
    assert_int_equal(rmdir(folder), 0); /* nothing else is left */
}

/* Catches: numbers of the process that are another's, or of another unit. */
static void test_usage(void **state)
{
    (void)state;
    struct os_usage before, after;
    const size_t n = 64 << 20;
    double now = (double)time(NULL), started = os_started();
    assert_true(started > now - 3600 && started < now + 1);
    os_usage(&before);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    char *memory = mem_alloc(n);
    assert_non_null(memory);
    do {
        memset(memory, 1, n);
        os_usage(&after);
    } while (after.cpu_seconds < before.cpu_seconds + 0.02);
    double grown = after.resident_bytes - before.resident_bytes;
    /* A sanitizer has several bytes of its own for each. */
    assert_true(grown > 0.9 * (double)n && grown < 10.0 * (double)n);
    assert_true(after.descriptors == before.descriptors + 2);
    assert_true(after.descriptors_max >= after.descriptors && before.descriptors >= 3);
    assert_true(after.cpu_seconds < 3600);
    mem_free(memory);
    close(fds[0]);
    close(fds[1]);
}

/* Catches: text of a stranger that could steer a terminal, and text damaged while made harmless. */
static void test_utf8_controls(void **state)
{
    (void)state;
    static const char text[] = "a\x1b[31m\x07\x7f\xc2\x9b"
                               "2J\xc2\xa0\xc3\xa9\n\xf0\x9f\x98\x80\xc2";
    static const char want[] = "a [31m    2J\xc2\xa0\xc3\xa9 \xf0\x9f\x98\x80\xc2";
    char copy[sizeof text];
    memcpy(copy, text, sizeof text);
    utf8_blank_controls(copy, sizeof text - 1);
    assert_string_equal(copy, want);
    assert_int_equal(utf8_control("\xc2\x9b", 2), 2);
    assert_int_equal(utf8_control("\xc2\x9b", 1), 0);
    utf8_blank_controls(copy, 0);
    char bytes[] = "\x9b"
                   "31m\xc3\xa9\x1b\xff\xc2\x9bz\xe2\x82";
    utf8_make_plain(bytes, sizeof bytes - 1);
    assert_string_equal(bytes, "?31m\xc3\xa9 ?  z??");
    struct err e = ERR_INIT;
    err_set(&e, ERR_BAD_INPUT, "tensor %s", "a\x1b[2J\nb");
    assert_string_equal(e.text, "tensor a [2J b");
    err_prefix(&e, "file %s", "\x07");
    assert_string_equal(e.text, "file  : tensor a [2J b");
}

static void make_supply(const char *folder, const char *name, const char *const *fields)
{
    char path[256], file[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
    for (; *fields; fields += 2) {
        snprintf(file, sizeof file, "%s/%s", path, fields[0]);
        assert_int_equal(os_write_file(file, fields[1], strlen(fields[1]), NULL), 0);
    }
}

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Chargers and batteries as Linux shows them; a mouse's battery is not the machine's. */
static void test_battery(void **state)
{
    char folder[] = "/tmp/pdd-power-XXXXXX", command[64];
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_false(os_on_battery("/tmp/pdd-no-such-folder"));
    assert_false(os_on_battery(folder)); /* a desktop */
    make_supply(folder, "hid",
                FIELDS("type", "Battery\n", "scope", "Device\n", "status", "Discharging\n"));
    assert_false(os_on_battery(folder));
    make_supply(folder, "BAT0", FIELDS("type", "Battery\n", "status", "Discharging\n"));
    assert_true(os_on_battery(folder));
    make_supply(folder, "AC", FIELDS("type", "Mains\n", "online", "0\n"));
    assert_true(os_on_battery(folder));
    make_supply(folder, "usb", FIELDS("type", "USB\n", "online", "1\n"));
    assert_false(os_on_battery(folder));
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_buf_keeps_its_maximum),
        cmocka_unit_test(test_buf_survives_failed_allocations),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_hex_and_hash),
        cmocka_unit_test(test_blank),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_utf8_controls),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_log_controls),
        cmocka_unit_test(test_log_unread),
        cmocka_unit_test(test_random_numbers),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_battery),
        cmocka_unit_test(test_files_in_place),
        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
