/*
 * jinja: a bounded interpreter of Jinja templates, as chat templates use them. Pure.
 *
 * A text is compiled once (jinja_compile) and rendered any number of times, from any thread. A run
 * (jinja_run_new) holds the arguments and the memory of one rendering.
 *
 * The language is that of Jinja 3.1 with trim_blocks and lstrip_blocks, in its immutable sandbox:
 * all expressions, tests, filters and methods of strings, lists and dicts that a template can use
 * without changing a value in place; if, for, set, macro, call, filter, with, generation, raw,
 * break and continue. There is no file, no clock and no random number: extends, include, import and
 * random are errors, and strftime_now exists only where the run was given a time. What Python would
 * print, this prints to the byte, or it is an error with the line of the template.
 *
 * Marks. Each byte of each string is the template's own (JINJA_OWN) or comes from the arguments
 * (JINJA_FOREIGN). Every operation carries the marks along, byte for byte; what is computed from
 * foreign text and spelt as digits is foreign too. So a caller can tell a control token that the
 * template wrote from the same characters in a message.
 *
 * Bounds: those below. No recursion is deeper than JINJA_DEPTH_MAX, whatever text, arguments and
 * macros look like.
 */
#ifndef PDD_MODEL_JINJA_JINJA_H
#define PDD_MODEL_JINJA_JINJA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    JINJA_SOURCE_MAX = 1 << 20,   /* bytes of a template */
    JINJA_NODES_MAX = 1 << 18,    /* of its syntax tree */
    JINJA_NESTING_MAX = 150,      /* of blocks and brackets, and of values in one another */
    JINJA_DEPTH_MAX = 600,        /* of evaluation: nesting and calls of macros together */
    JINJA_STEPS_MAX = 50000000,   /* of one rendering */
    JINJA_OUTPUT_MAX = 64 << 20,  /* bytes of text */
    JINJA_MEMORY_MAX = 512 << 20, /* bytes of one rendering besides its output */
    JINJA_RANGE_MAX = 100000      /* numbers of range(), as in Jinja's sandbox */
};

enum jinja_mark { JINJA_OWN = 0, JINJA_FOREIGN = 1 };

struct jinja_template;
struct jinja_run;

/* A value of the language. Opaque to callers; it lives as long as its run. */
struct jinja_value {
    uint8_t type;
    bool foreign; /* of numbers and truth values: computed from foreign text */
    union {
        bool truth;
        int64_t integer;
        double real;
        void *object;
    } as;
};

/* ERR_BAD_INPUT: the text is no template (the sentence has the line); ERR_LIMIT, ERR_NO_MEMORY. The
 * text is copied. */
int jinja_compile(const char *text, size_t n, struct jinja_template **ret_template, struct err *e);
void jinja_free(struct jinja_template *t); /* NULL is fine */

/* Whether the template reads that name or attribute, or has it as a whole string. */
bool jinja_mentions(const struct jinja_template *t, const char *name);

int jinja_run_new(const struct jinja_template *t, struct jinja_run **ret_run, struct err *e);
void jinja_run_free(struct jinja_run *r); /* NULL is fine */

/* The seconds since 1970 of strftime_now, as the clock on the wall shows them. */
void jinja_run_set_time(struct jinja_run *r, int64_t seconds);

/* Values. Texts are borrowed until the run is freed. When memory is short, these give an undefined
 * value, and jinja_render returns the error. */
struct jinja_value jinja_none(void);
struct jinja_value jinja_bool(bool truth);
struct jinja_value jinja_text(struct jinja_run *r, const char *text, size_t n,
                              enum jinja_mark mark);
struct jinja_value jinja_list(struct jinja_run *r, uint32_t n); /* of n times none */
void jinja_list_set(struct jinja_value list, uint32_t at, struct jinja_value v);
struct jinja_value jinja_dict(struct jinja_run *r);
void jinja_dict_put(struct jinja_run *r, struct jinja_value dict, const char *key,
                    struct jinja_value v);
/* A foreign value from JSON. ERR_BAD_INPUT: no JSON, nested too deeply, or a number that does not
 * fit; the sentence begins with `what`. */
int jinja_json(struct jinja_run *r, const char *json, size_t n, const char *what,
               struct jinja_value *ret_value, struct err *e);

/* Copy into one dict what it lacks of another. */
void jinja_dict_merge(struct jinja_run *r, struct jinja_value to, struct jinja_value from);
/* v[list] is a list of dicts, each with a dict `inner`: where inner[key] is the text of a JSON
 * object, it becomes that object. What is not so stays. */
void jinja_dict_expand(struct jinja_run *r, struct jinja_value v, const char *list,
                       const char *inner, const char *key);

/* Give an argument; or all that a dict has, but those of the n names. false: the template reads no
 * `ret_unknown` (cut to fit), and its value is not true. */
enum { JINJA_NAME_MAX = 64 };
void jinja_set(struct jinja_run *r, const char *name, struct jinja_value v);
bool jinja_set_all(struct jinja_run *r, struct jinja_value dict, const char *const *except,
                   size_t n, char ret_unknown[JINJA_NAME_MAX]);

struct jinja_output {
    const char *text;
    const uint8_t *marks; /* [len], of enum jinja_mark */
    size_t len;
};

/* Once for a run; the output lives as long as it. ERR_BAD_INPUT: the template raised an exception
 * (*ret_raised), or does what Python refuses; the sentence has line and reason. ERR_LIMIT,
 * ERR_NO_MEMORY. */
int jinja_render(struct jinja_run *r, struct jinja_output *ret_output, bool *ret_raised,
                 struct err *e);
/* How many steps it has taken: expressions, statements, and what long texts and lists cost. */
uint64_t jinja_steps(const struct jinja_run *r);
/* Whether it asked a foreign text for .type or .text, as one asks the parts of a list. */
bool jinja_wants_parts(const struct jinja_run *r);

#endif
