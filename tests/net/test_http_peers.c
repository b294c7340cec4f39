/*
 * test_http_peers: addresses, networks, X-Forwarded-For and the counting table.
 *
 * Catches: a client that escapes its limit by another spelling or within its /64, a header that
 * makes one client look like another, counts that leak.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "net/http_peers.h"

static struct http_address address(const char *text)
{
    struct http_address a;
    assert_int_equal(http_address_parse(text, strlen(text), &a), 0);
    return a;
}

static void test_addresses(void **state)
{
    static const char *const bad[] = {
        "",           "1.2.3",
        "1.2.3.4 ",   "1.2.3.4:80",
        "::g",        "localhost",
        "[::1]",      "1.2.3.4.5",
        "0x7f.0.0.1", "0000:0000:0000:0000:0000:0000:0000:0000:0000:00001"};
    char text[HTTP_ADDRESS_TEXT];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct http_address a;
        assert_int_equal(http_address_parse(bad[i], strlen(bad[i]), &a), ERR_BAD_INPUT);
    }
    struct http_address four = address("1.2.3.4"), mapped = address("::ffff:1.2.3.4");
    assert_memory_equal(&four, &mapped, sizeof four);
    http_address_print(&mapped, text);
    assert_string_equal(text, "1.2.3.4");
    struct http_address six = address("2001:DB8::1");
    http_address_print(&six, text);
    assert_string_equal(text, "2001:db8::1");
}

static void test_networks(void **state)
{
    static const struct {
        const char *network, *in, *out;
    } cases[] = {{"10.0.0.0/8", "10.255.1.2", "11.0.0.1"},
                 {"10.0.0.5", "10.0.0.5", "10.0.0.4"},
                 {"192.168.4.0/22", "192.168.7.255", "192.168.8.0"},
                 {"0.0.0.0/0", "9.9.9.9", "2001:db8::1"},
                 {"fd00::/8", "fdff::1", "fe00::1"},
                 {"2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"},
                 {"::1", "::1", "::2"}};
    static const char *const bad[] = {
        "", "/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8x", "10.0.0.0/-1", "::/129", "host/8"};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_network n;
        assert_int_equal(http_network_parse(cases[i].network, &n, NULL), 0);
        struct http_address in = address(cases[i].in), out = address(cases[i].out);
        if (!http_network_has(&n, &in) || http_network_has(&n, &out))
            fail_msg("%s", cases[i].network);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct http_network n;
        struct err e = ERR_INIT;
        assert_int_equal(http_network_parse(bad[i], &n, &e), ERR_BAD_INPUT);
        assert_non_null(strstr(e.text, "no network"));
    }
}

static void test_forwarded(void **state)
{
    static const struct {
        const char *value, *client; /* NULL: nobody */
    } cases[] = {{"9.9.9.9", "9.9.9.9"},
                 {"1.1.1.1, 9.9.9.9", "9.9.9.9"}, /* the first is the client's own word */
                 {"1.1.1.1,\t9.9.9.9 , 10.0.0.1", "9.9.9.9"},
                 {"junk, 2001:db8::7,10.1.1.1,10.2.2.2", "2001:db8::7"},
                 {"10.0.0.1", NULL},
                 {"", NULL},
                 {",", NULL},
                 {"9.9.9.9,", NULL},
                 {"9.9.9.9, unknown", NULL}};
    struct http_network trusted[2];
    (void)state;
    assert_int_equal(http_network_parse("10.0.0.0/8", &trusted[0], NULL), 0);
    assert_int_equal(http_network_parse("::1", &trusted[1], NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_address a;
        char text[HTTP_ADDRESS_TEXT] = "";
        bool found = http_forwarded_for(cases[i].value, trusted, 2, &a) == 0;
        if (found) http_address_print(&a, text);
        if (found != (cases[i].client != NULL) || strcmp(text, found ? cases[i].client : "") != 0)
            fail_msg("%s: %s", cases[i].value, text);
    }
}

static void test_counting(void **state)
{
    enum { MANY = 5000 };
    struct http_peers *p = http_peers_new();
    struct http_address a = address("2001:db8:0:1::1"), same = address("2001:db8:0:1:ffff::2"),
                        other = address("2001:db8:0:2::1"), four = address("1.2.3.4");
    (void)state;
    assert_non_null(p);
    assert_int_equal(http_peers_enter(p, &a, 2), 0);
    assert_int_equal(http_peers_enter(p, &same, 2), 0);
    assert_int_equal(http_peers_enter(p, &same, 2), ERR_BUSY);
    assert_int_equal(http_peers_enter(p, &other, 2), 0);
    assert_int_equal(http_peers_enter(p, &four, 1), 0);
    assert_int_equal(http_peers_enter(p, &four, 1), ERR_BUSY);
    struct http_address one = http_address_counted(&a), two = http_address_counted(&same),
                        three = http_address_counted(&other), v4 = http_address_counted(&four);
    assert_memory_equal(&one, &two, sizeof one);
    assert_memory_not_equal(&one, &three, sizeof one);
    assert_memory_equal(&v4, &four, sizeof v4);
    http_peers_leave(p, &a);
    assert_int_equal(http_peers_enter(p, &a, 2), 0);
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < MANY; i++) {
            struct http_address x = four;
            x.bytes[12] = 77;
            x.bytes[14] = (uint8_t)(i >> 8);
            x.bytes[15] = (uint8_t)i;
            if (round == 0)
                assert_int_equal(http_peers_enter(p, &x, 1), 0);
            else
                http_peers_leave(p, &x);
        }
    http_peers_leave(p, &a);
    http_peers_leave(p, &same);
    http_peers_leave(p, &other);
    http_peers_leave(p, &four);
    http_peers_free(p); /* checks that nobody is left */
    http_peers_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_forwarded),
        cmocka_unit_test(test_counting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
