/*
 * fuzz_jinja: any bytes as a template, rendered over one conversation. The messages are made of one
 * letter that no template of this target has, so that every byte of it in the output must be marked
 * as foreign. A second rendering must give the same.
 */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "model/jinja/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* U+10FFF is no letter: nothing changes its case, and no filter makes it. */
#define LETTER "\xF0\x90\xBF\xBF"
static const char letter[] = LETTER;
static const char messages[] =
    "[{\"role\": \"user\", \"content\": \"" LETTER LETTER " " LETTER
    "\", \"n\": 2, \"f\": 0.5, \"calls\": [{\"" LETTER "\": {\"a\": [null, true, \"" LETTER
    "\"]}}]}, {\"role\": \"assistant\", \"content\": \"\\n" LETTER "\"}]";

/* A template that could spell the letter by itself proves nothing. */
static bool can_spell(const uint8_t *data, size_t n)
{
    return memchr(data, 0xF0, n) || memchr(data, '\\', n) || memchr(data, 0xBF, n);
}

static void check_marks(const struct jinja_output *o)
{
    for (size_t i = 0; i + sizeof letter - 1 <= o->len; i++) {
        if (memcmp(o->text + i, letter, sizeof letter - 1) != 0) continue;
        for (size_t k = 0; k < sizeof letter - 1; k++)
            CHECK(o->marks[i + k] == JINJA_FOREIGN);
    }
}

static int render(const struct jinja_template *t, struct jinja_run **ret_run,
                  struct jinja_output *ret_output)
{
    struct jinja_run *r;
    struct jinja_value v;
    struct err e = ERR_INIT;
    bool raised;
    CHECK(jinja_run_new(t, &r, NULL) == 0);
    CHECK(jinja_json(r, messages, sizeof messages - 1, "messages", &v, NULL) == 0);
    jinja_set(r, "messages", v);
    jinja_set(r, "m", v);
    jinja_set(r, "s",
              jinja_text(r, LETTER "a b" LETTER, 2 * (sizeof letter - 1) + 3, JINJA_FOREIGN));
    jinja_set(r, "add_generation_prompt", jinja_bool(true));
    jinja_run_set_time(r, 1700000000);
    int code = jinja_render(r, ret_output, &raised, &e);
    CHECK(code == 0 || e.text[0]);
    *ret_run = r;
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct jinja_template *t;
    struct jinja_run *a, *b;
    struct jinja_output x, y;
    struct err e = ERR_INIT;
    if (jinja_compile((const char *)data, n, &t, &e)) {
        CHECK(e.text[0]);
        return 0;
    }
    int first = render(t, &a, &x), second = render(t, &b, &y);
    CHECK(first == second);
    if (first == 0) {
        CHECK(x.len == y.len && memcmp(x.text, y.text, x.len) == 0);
        CHECK(memcmp(x.marks, y.marks, x.len) == 0);
        if (!can_spell(data, n)) check_marks(&x);
    }
    jinja_run_free(a);
    jinja_run_free(b);
    jinja_free(t);
    return 0;
}
