/*
 * test_jinja_oracle: generated templates, and chat templates with generated conversations, against
 * Jinja itself (python3-jinja2, by oracle.py; skipped where it is missing). With arguments, the
 * program takes them for oracle.py instead: files 1 50 FILE...
 *
 * Catches: any byte that Python would write otherwise, a template that it refuses and we do not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <jansson.h>

#include "model/jinja/jinja.h"

struct tally {
    unsigned same, both_fail, stricter, wrong;
};

static void set_arguments(struct jinja_run *r, json_t *args)
{
    const char *name;
    json_t *value;
    json_object_foreach(args, name, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        struct jinja_value v;
        assert_int_equal(jinja_json(r, text, strlen(text), name, &v, NULL), 0);
        jinja_set(r, name, v);
        free(text);
    }
}

/* The rendered text as malloc'ed, 0-terminated bytes, or NULL with the error. */
static char *render(const char *text, size_t n, json_t *args, int64_t now, size_t *ret_len,
                    struct err *e)
{
    struct jinja_template *t;
    struct jinja_run *r;
    struct jinja_output o;
    bool raised;
    char *copy = NULL;
    if (jinja_compile(text, n, &t, e)) return NULL;
    assert_int_equal(jinja_run_new(t, &r, e), 0);
    jinja_run_set_time(r, now);
    set_arguments(r, args);
    if (jinja_render(r, &o, &raised, e) == 0) {
        copy = malloc(o.len + 1);
        assert_non_null(copy);
        memcpy(copy, o.text, o.len);
        copy[o.len] = 0;
        *ret_len = o.len;
    }
    jinja_run_free(r);
    jinja_free(t);
    return copy;
}

static void show(const char *what, json_t *c, const char *got, const char *want)
{
    printf("%s: %s\n--- template\n%.3000s\n--- got\n%s\n--- wanted\n%s\n", what,
           json_string_value(json_object_get(c, "name")),
           json_string_value(json_object_get(c, "template")), got, want);
}

static void check_case(json_t *c, struct tally *tally, bool loud)
{
    const json_t *template = json_object_get(c, "template"), *want = json_object_get(c, "want");
    struct err e = ERR_INIT;
    size_t n = 0;
    char *got =
        render(json_string_value(template), json_string_length(template),
               json_object_get(c, "args"), json_integer_value(json_object_get(c, "now")), &n, &e);
    if (!want && !got) {
        tally->both_fail++;
        assert_true(e.text[0]);
    } else if (!want) {
        tally->wrong++;
        show("Jinja refuses", c, got, json_string_value(json_object_get(c, "error")));
    } else if (!got) {
        tally->stricter++;
        if (loud) show("stricter", c, e.text, json_string_value(want));
    } else if (n == json_string_length(want) && memcmp(got, json_string_value(want), n) == 0) {
        tally->same++;
    } else {
        tally->wrong++;
        show("different", c, got, json_string_value(want));
    }
    free(got);
}

/* false: there is no Jinja to compare with. */
static bool compare(const char *arguments, struct tally *ret_tally, bool loud)
{
    char command[1 << 16];
    char *line = NULL;
    size_t room = 0;
    *ret_tally = (struct tally){0};
    snprintf(command, sizeof command, "/usr/bin/env python3 %s/tests/model/jinja/oracle.py %s",
             PDD_SOURCE_DIR, arguments);
    FILE *from = popen(command, "r");
    assert_non_null(from);
    while (getline(&line, &room, from) > 0) {
        json_t *c = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(c);
        check_case(c, ret_tally, loud);
        json_decref(c);
    }
    free(line);
    int status = pclose(from);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return false;
    assert_int_equal(status, 0);
    printf("%s: %u the same, %u fail in both, %u fail here only, %u wrong\n", arguments,
           ret_tally->same, ret_tally->both_fail, ret_tally->stricter, ret_tally->wrong);
    return true;
}

static void test_generated(void **state)
{
    struct tally t;
    (void)state;
    if (!compare("fuzz 1 1800", &t, false)) skip();
    assert_int_equal(t.wrong, 0);
    assert_true(t.same > 500);
    assert_true(t.stricter * 50 < t.same); /* errors of ours are rare */
}

/* Templates of our own, which use what published ones do, with 50 conversations each. */
static void test_conversations(void **state)
{
    struct tally t;
    (void)state;
    if (!compare("files 1 50 " PDD_SOURCE_DIR "/tests/model/jinja/templates/*.jinja", &t, true))
        skip();
    assert_int_equal(t.wrong, 0);
    assert_int_equal(t.stricter, 0);
    assert_true(t.same > 300);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_generated),
                                       cmocka_unit_test(test_conversations)};
    if (argc < 2) return cmocka_run_group_tests(tests, NULL, NULL);
    char arguments[60000] = "";
    struct tally t;
    for (int i = 1; i < argc; i++) {
        strncat(arguments, argv[i], sizeof arguments - strlen(arguments) - 2);
        strcat(arguments, " ");
    }
    return compare(arguments, &t, true) && t.wrong == 0 ? 0 : 1;
}
