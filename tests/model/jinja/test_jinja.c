/*
 * test_jinja: what templates write, what they may not, and where they end.
 *
 * Catches: a rule of the language that changed (test_jinja_oracle compares with Jinja itself, where
 * it is installed), an error without line or reason, a template that runs without end, deep or
 * large, an allocation that is not checked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "model/jinja/jinja.h"

static const char arguments[] = "[{\"role\": \"user\", \"content\": \" hi \", \"n\": 2}, "
                                "{\"role\": \"assistant\", \"content\": "
                                "\"yes\", \"n\": 1}]";

/* ERR_NONE: *ret_text has the output. */
static int render(const char *text, struct buf *ret_text, struct err *e)
{
    struct jinja_template *t;
    struct jinja_run *r;
    struct jinja_value v;
    struct jinja_output o;
    bool raised;
    buf_init(ret_text, JINJA_OUTPUT_MAX);
    int code = jinja_compile(text, strlen(text), &t, e);
    if (code) return code;
    code = jinja_run_new(t, &r, e);
    if (code == 0) {
        code = jinja_json(r, arguments, sizeof arguments - 1, "messages", &v, e);
        if (code == 0) {
            jinja_set(r, "messages", v);
            code = jinja_render(r, &o, &raised, e);
        }
        if (code == 0) code = buf_append(ret_text, o.text, o.len);
        jinja_run_free(r);
    }
    jinja_free(t);
    return code;
}

static const struct {
    const char *text, *want;
} good[] = {
    {"a\n", "a"},
    {"{{ ('ab'|safe)|list }}{{ ('ab'|safe)|reverse is escaped }}", "['a', 'b']True"},
    {"{{ ['a'|e, ('a'|e).ljust(2, '.'), ('\n'|e).replace('', '-')] }}",
     "[Markup('a'), Markup('a.'), Markup('-\\n-')]"},
    {"{{ ('a<b'|e).replace('<', '>') }}{{ '{1}{0}'.format(1, 2) }}", "a&gt;b21"},
    {"{{ 'a\\u01c5'.islower() }}{{ 'A\\u01c5'.isupper() }}{{ '\\u01c5a'.istitle() }}"
     "{{ 'a\\u01c5'.istitle() }}{{ 'ab1'.islower() }}{{ '\\u00aaB'.isupper() }}",
     "FalseFalseTrueFalseTrueFalse"},
    {"{{ [[2, none], [1, none]]|sort(attribute=1) }}", "[[2, None], [1, None]]"},
    {"{{ messages|sort(attribute='n,role')|map(attribute='n')|join }}", "12"},
    {"{{ missing|last }}{{ missing|truncate(3) }}{{ missing|urlencode }}{{ 'x' % missing }}", "x"},
    {"{% macro f() %}{% macro g() %}{{ kwargs }}{% endmacro %}{{ g(a=1) }}{% endmacro %}{{ f(b=2) "
     "}}",
     "{'a': 1}"},
    {"a\n\n", "a\n"},
    {"{% if true %}\nx\n{% endif %}\ny", "x\ny"},
    {"  {% if true %}x{% endif %}", "x"},
    {"  {%+ if true %}x{% endif %}", "  x"},
    {"a  {%- if true -%}  x  {%- endif -%}  b", "axb"},
    {"a {{- 1 -}} b", "a1b"},
    {"{# c #}x{#- c -#} y", "xy"},
    {"{% raw %}{{ x }}{% endraw %}", "{{ x }}"},
    {"{{ {'a': {'b': 1}}.a.b }}", "1"},
    {"{{ [1, 2.5, 'x', none, true] }}", "[1, 2.5, 'x', None, True]"},
    {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }}", "3 -4 2 3.5 1024"},
    {"{{ 'a' ~ 1 ~ none }}", "a1None"},
    {"{{ 'abc'[1:] }}{{ 'abc'[::-1] }}{{ 'abc'[-1] }}", "bccbac"},
    {"{{ messages[0].content|trim }}{{ messages[-1]['content'].upper() }}", "hiYES"},
    {"{% for m in messages %}{{ loop.index }}{{ m.role }}{% if not loop.last %},{% endif %}"
     "{% endfor %}",
     "1user,2assistant"},
    {"{% for m in messages if m.n > 1 %}{{ m.n }}{% else %}none{% endfor %}", "2"},
    {"{% for x in [] %}{% else %}none{% endfor %}", "none"},
    {"{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}"
     "{% endif %}{{ i }}{% endfor %}",
     "0134"},
    {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1"},
    {"{% set ns = namespace(x=1) %}{% for i in [1] %}{% set ns.x = 2 %}{% endfor %}{{ ns.x }}",
     "2"},
    {"{% set x %}a{{ 1 }}{% endset %}[{{ x }}]", "[a1]"},
    {"{% macro f(a, b='B') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=2) }}", "1B12"},
    {"{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}x{% endcall %}", "[x]"},
    {"{% macro f(a, b) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}"
     "{% call f(*['x'], **{'b': 'z'}) %}y{% endcall %}",
     "xzy"},
    {"{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210"},
    {"{{ messages|tojson }}", "[{\"role\": \"user\", \"content\": \" hi \", \"n\": 2}, {\"role\": "
                              "\"assistant\", \"content\": \"yes\", \"n\": 1}]"},
    {"{{ '<'|escape }}{{ '<'|safe|escape }}{{ '<'|escape|forceescape }}{{ '<'|safe|forceescape }}",
     "&lt;<&amp;lt;&lt;"},
    {"{{ {'b': 1, 'c': 2, 'a': 3}|tojson(sort_keys=true) }}{{ [2, 3, 1]|sort(reverse=true) }}",
     "{\"a\": 3, \"b\": 1, \"c\": 2}[3, 2, 1]"},
    {"{{ {'a': [1, {}]}|tojson(indent=1) }}", "{\n \"a\": [\n  1,\n  {}\n ]\n}"},
    {"{{ messages|map(attribute='role')|join('/') }}", "user/assistant"},
    {"{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "1"},
    {"{{ 2.5 is odd }}{{ 2.5 is even }}{{ -3 is odd }}", "FalseFalseTrue"},
    {"{% macro f() %}[{{ messages }}]{% endmacro %}{{ f() }}{% set messages = 1 %}{{ f() }}",
     "[][1]"},
    {"{{ missing }}{{ missing is defined }}{{ missing|default('d') }}", "Falsed"},
    {"{{ 'x' if false }}{{ 1 if 1 else 2 }}", "1"},
    {"{{ 'a' in 'abc' }}{{ 1 not in [1] }}{{ 'role' in messages[0] }}", "TrueFalseTrue"},
    {"{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1.0 }}", "0.30000000000000004 1e+16 1.0"},
    {"{{ 'Stra\xC3\x9F"
     "e'.upper() }}{{ '\xC3\x84'|lower }}",
     "STRASSE\xC3\xA4"},
    {"{{ '%s-%03d' % ('a', 7) }}{{ '{:>4}|{x}'.format('b', x=1) }}", "a-007   b|1"},
    {"{% generation %}g{% endgeneration %}{% filter upper %}f{% endfilter %}", "gF"},
    {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}", "3"},
    {"{{ dict(a=1)|items|list }}{{ {'b': 1, 'a': 2}|dictsort }}", "[('a', 1)][('a', 2), ('b', 1)]"},
};

static void test_language(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct buf text;
        struct err e = ERR_INIT;
        if (render(good[i].text, &text, &e)) fail_msg("%s: %s", good[i].text, e.text);
        if (strcmp(text.data, good[i].want) != 0)
            fail_msg("%s\ngave   %s\nwanted %s", good[i].text, text.data, good[i].want);
        buf_release(&text);
    }
}

static const struct {
    const char *text;
    int code;
    const char *says;
} bad[] = {
    {"\n\n{{ 1 + }}", ERR_BAD_INPUT, "line 3"},
    {"{{ x.y }}", ERR_BAD_INPUT, "x is undefined"},
    {"\n{{ messages[0].content + 1 }}", ERR_BAD_INPUT, "line 2"},
    {"{{ raise_exception('no ' ~ 'way') }}", ERR_BAD_INPUT, "no way"},
    {"{{ messages.append(1) }}", ERR_BAD_INPUT, "changes its object"},
    {"{{ 'x'|nonsense }}", ERR_BAD_INPUT, "nonsense"},
    {"{{ '{}{0}'.format(1) }}", ERR_BAD_INPUT, "with and without numbers"},
    {"{{ '{0}{}'.format(1) }}", ERR_BAD_INPUT, "with and without numbers"},
    {"{{ ('{}'|e).format('<') }}", ERR_BAD_INPUT, "format of markup"},
    {"{% import 'x' as y %}", ERR_BAD_INPUT, "import"},
    {"{{ 9223372036854775807 + 1 }}", ERR_BAD_INPUT, "64 bits"},
    {"{{ 1 // 0 }}", ERR_BAD_INPUT, "zero"},
    {"{{ strftime_now('%Y') }}", ERR_BAD_INPUT, "strftime_now is undefined"},
    {"{% set messages.x = 1 %}", ERR_BAD_INPUT, "namespace"},
    {"{{ ''.__class__.x }}", ERR_BAD_INPUT, "undefined"},
    {"{{ range(100001) }}", ERR_LIMIT, "range"},
    {"{% set a = range(9000) %}{% for i in a %}{% for j in a %}{% endfor %}{% endfor %}", ERR_LIMIT,
     "steps"},
    {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ERR_LIMIT, "deeper"},
    {"{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
     "{% endfor %}",
     ERR_LIMIT, "long"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
     "{% endfor %}",
     ERR_LIMIT, ""},
    {"{% set ns = namespace(x=1) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}"
     "{{ ns.x }}",
     ERR_LIMIT, "deeper"},
    {"{{ 'x' * 99999999 }}", ERR_LIMIT, "long"},
    {"{% set x = 'xxxxxxxxxx' * 3000000 %}{{ x }}{{ x }}{{ x }}", ERR_LIMIT, "longer"},
    {"{{ '%0999999d' % 1 }}", ERR_BAD_INPUT, "not supported"},
    {"{{ 'x'.center(99999999) }}", ERR_LIMIT, ""},
};

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf text;
        struct err e = ERR_INIT;
        int code = render(bad[i].text, &text, &e);
        if (code != bad[i].code || !strstr(e.text, bad[i].says) || !strstr(e.text, "line "))
            fail_msg("%s: %d %s", bad[i].text, code, e.text);
        buf_release(&text);
    }
}

/* Brackets, blocks, chains and signs without end: an error, never a deep stack. */
static void test_nesting(void **state)
{
    static const struct {
        const char *begin, *each, *end;
    } shapes[] = {{"{{ ", "(", ""},
                  {"{{ ", "[", ""},
                  {"{{ ", "{1:", ""},
                  {"{{ ", "-", "1 }}"},
                  {"{{ ", "not ", "1 }}"},
                  {"{{ x", ".x", " }}"},
                  {"{{ x", "|trim", " }}"},
                  {"", "{% if 1 %}", ""},
                  {"", "{% for i in x %}", ""},
                  {"{{ 1", "**1", " }}"},
                  {"{{ 1 ", "if 1 else 1 ", "}}"},
                  {"{{ x", "(", ""},
                  {"{{ x", "[0]", " }}"},
                  {"{% set ", "(", ""}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct buf text, out;
        struct err e = ERR_INIT;
        buf_init(&text, 1 << 20);
        buf_puts(&text, shapes[i].begin);
        for (int k = 0; k < 20000; k++)
            buf_puts(&text, shapes[i].each);
        buf_puts(&text, shapes[i].end);
        int code = render(text.data, &out, &e);
        if (code != ERR_BAD_INPUT && code != ERR_LIMIT) fail_msg("%s: %d", shapes[i].each, code);
        assert_true(e.text[0]);
        buf_release(&out);
        buf_release(&text);
    }
    /* A long sum is not deep. */
    struct buf text, out;
    struct err e = ERR_INIT;
    buf_init(&text, 1 << 20);
    buf_puts(&text, "{{ 0");
    for (int k = 0; k < 10000; k++)
        buf_puts(&text, " + 1");
    buf_puts(&text, " }}");
    assert_int_equal(render(text.data, &out, &e), 0);
    assert_string_equal(out.data, "10000");
    buf_release(&out);
    buf_release(&text);
}

/* Steps of a template that gathers `n` messages to a text of `length` letters. */
static uint64_t long_talk(int n, const char *length)
{
    static const char text[] =
        "{% set ns = namespace(all='', last=0) %}{% for m in messages[::-1] %}"
        "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{% set rest = messages[loop.index:] %}"
        "{% set ns.all = ns.all + '<' + m.role + '>' + m.content|trim %}"
        "{% if rest and rest[0].role == m.role %}!{% endif %}{% endfor %}{{ ns.all|length }}";
    struct buf json, out;
    struct jinja_template *t;
    struct jinja_run *r;
    struct jinja_value v;
    struct jinja_output o;
    struct err e = ERR_INIT;
    bool raised;
    buf_init(&json, 64 << 20);
    for (int i = 0; i < n; i++)
        buf_printf(&json, "%s{\"role\":\"%s\",\"content\":\" %0200d\"}", i ? "," : "[",
                   i % 2 ? "assistant" : "user", i);
    buf_putc(&json, ']');
    buf_init(&out, 100);
    assert_int_equal(jinja_compile(text, sizeof text - 1, &t, &e), 0);
    assert_int_equal(jinja_run_new(t, &r, &e), 0);
    assert_int_equal(jinja_json(r, json.data, json.len, "messages", &v, &e), 0);
    jinja_set(r, "messages", v);
    if (jinja_render(r, &o, &raised, &e)) fail_msg("%s", e.text);
    buf_append(&out, o.text, o.len);
    assert_string_equal(out.data, length);
    uint64_t steps = jinja_steps(r);
    jinja_run_free(r);
    jinja_free(t);
    buf_release(&out);
    buf_release(&json);
    return steps;
}

/* Ten times the messages take ten times the steps (a bit more, by where a growing text doubles),
 * and are far from any limit. */
static void test_long_talk(void **state)
{
    (void)state;
    uint64_t short_one = long_talk(1000, "208500"), long_one = long_talk(10000, "2085000");
    assert_true(short_one > 10000);
    assert_true(long_one < short_one * 12);
    assert_true(long_one < JINJA_STEPS_MAX / 20);
}

/* The N-th allocation fails, for every N. */
static void test_no_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        for (long n = 1;; n++) {
            struct buf text;
            struct err e = ERR_INIT;
            mem_fail_at(n);
            int code = render(good[i].text, &text, &e);
            int hit = mem_fail_hit();
            mem_fail_at(0);
            if (hit && code != ERR_NO_MEMORY) fail_msg("%s: %ld: %d", good[i].text, n, code);
            buf_release(&text);
            if (!hit) break;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language),  cmocka_unit_test(test_errors),
        cmocka_unit_test(test_nesting),   cmocka_unit_test(test_long_talk),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
