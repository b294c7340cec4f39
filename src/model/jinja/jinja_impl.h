/*
 * jinja_impl: what the files of the interpreter share. Only jinja*.c include it.
 *
 * jinja_lex.c cuts the text into tokens, jinja_parse.c and jinja_expr.c make a tree of them,
 * jinja_run.c runs statements, jinja_eval.c expressions. The rest is what Python has: values,
 * strings, methods, filters, tests, formats.
 *
 * Errors of a run stick: the first one is kept, every value from then on is undefined, and every
 * loop looks at `r->code`. So functions return values, and callers need no checks but for memory
 * that they write to.
 */
#ifndef PDD_MODEL_JINJA_JINJA_IMPL_H
#define PDD_MODEL_JINJA_JINJA_IMPL_H

#include "base/buf.h"
#include "base/mem.h"
#include "model/jinja/jinja.h"

enum jinja_type {
    J_UNDEFINED, /* object: its name, or NULL */
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_RANGE,
    J_VIEW, /* keys(), values() and items() of a dict */
    J_ITER, /* a generator: a list that is read once */
    J_DICT,
    J_NAMESPACE, /* a dict that the template may change */
    J_MACRO,
    J_METHOD,   /* bound to its object */
    J_FUNCTION, /* range(), dict(), ... */
    J_LOOP,
    J_CYCLER,
    J_JOINER
};

/* ---- strings ---- */

/* Room for a string that grows by concatenation. A string that ends at `used` may append. */
struct jgrow {
    char *data;
    uint8_t *marks;
    size_t used, cap;
};

struct jstr {
    const char *data;
    const uint8_t *marks; /* [len]; NULL: all are `mark` */
    size_t len;
    struct jgrow *grow; /* NULL: none */
    uint8_t mark;
    bool markup; /* made by the filter safe or escape: what joins it is escaped */
};

struct jlist {
    struct jinja_value *items; /* shared by slices: never changed */
    uint32_t n;
    uint32_t at;               /* of a generator: what is read already */
    const char *name;          /* of a view or generator, for its repr */
    int64_t start, stop, step; /* of a range */
};

struct jpair {
    struct jinja_value key, value;
    uint64_t hash;
};

struct jdict {
    struct jpair *pairs; /* in order of insertion */
    uint32_t n, cap;
    uint32_t *slots; /* index + 1; NULL while there are few */
    uint32_t mask;
};

/* ---- the tree ---- */

struct jname { /* one for each name in a template */
    const char *text;
    size_t len;
    struct jname *next;
};

enum jnode_kind {
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT, /* list: keys and values by turns */
    N_COND, /* b if a else c */
    N_AND,
    N_OR,
    N_NOT,
    N_COMPARE, /* list: operands; ops between them */
    N_BINARY,
    N_CONCAT,
    N_NEGATE,
    N_PLUS,
    N_ATTRIBUTE,
    N_ITEM,
    N_SLICE, /* a: of what; b, c, d: start, stop, step or NULL */
    N_CALL,
    N_FILTER,
    N_TEST,
    /* statements */
    N_TEXT,
    N_PRINT,
    N_IF,           /* list: condition, body by turns; b: else */
    N_FOR,          /* a: target, b: what, c: condition, d: body, list[0]: else */
    N_SET,          /* a: target, b: value */
    N_SET_BLOCK,    /* a: target, b: body, c: filters over N_CAPTURED */
    N_MACRO,        /* name, list: parameters, list2: defaults, b: body */
    N_CALL_BLOCK,   /* a: call, c: macro */
    N_FILTER_BLOCK, /* a: filters over N_CAPTURED, b: body */
    N_WITH,         /* list: targets, list2: values, b: body */
    N_SCOPE,        /* b: body */
    N_BLOCK,        /* list: statements; list2: names that its scope hides */
    N_BREAK,
    N_CONTINUE,
    N_CAPTURED /* the text that a block was, for its filters */
};

struct jnodes {
    struct jnode **v;
    uint32_t n, cap;
};

struct jnode {
    uint8_t kind;
    uint8_t op;                                  /* an enum jop */
    bool flag;                                   /* of a test: negated; of a loop: recursive */
    bool uses_varargs, uses_kwargs, uses_caller; /* of a macro */
    uint16_t depth;                              /* of the tree below */
    uint32_t line;
    struct jname *name;
    struct jinja_value value;
    struct jnode *a, *b, *c, *d;
    struct jnodes list, list2;
    struct jname **keys; /* [list2.n] of a call, a filter, a test: names of keyword arguments */
    uint8_t *ops;        /* [list.n - 1] of a comparison */
    struct jnode *star, *star2; /* of a call: *a and **b */
};

enum jop {
    OP_NONE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN
};

enum { NAME_BUCKETS = 1024 };

struct jinja_template {
    struct arena arena;
    char *source;
    size_t len;
    struct jname *names[NAME_BUCKETS];
    struct jnode *body;
};

/* The name of these bytes, if the template has it; else NULL. */
struct jname *jname_find(const struct jinja_template *t, const char *text, size_t n);

/* ---- tokens ---- */

enum jtoken_kind {
    T_END,
    T_DATA,
    T_PRINT_BEGIN,
    T_PRINT_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OP /* op: its characters */
};

struct jtoken {
    uint8_t kind;
    char op[2]; /* second 0: of one character */
    uint32_t line;
    const char *text; /* of data, a name, a number, a string without quotes */
    size_t len;
};

struct jlexer {
    const char *source;
    size_t len, at;
    uint32_t line;
    uint8_t state;    /* what the text at `at` is inside of */
    bool line_starts; /* the last thing read ended a line */
    bool raw;
    char open[JINJA_NESTING_MAX]; /* brackets */
    uint32_t n_open;
    struct err *e;
};

/* The next token; after an error the code is negative. */
int jlex_next(struct jlexer *l, struct jtoken *ret_token);

struct jparser {
    struct jinja_template *t;
    struct jlexer lexer;
    struct jtoken now, next;
    uint32_t depth, loops, nodes;
    uint32_t macro_uses; /* bits of varargs, kwargs and caller in the macro that is read */
    int code;            /* sticks */
    struct jnode lost;   /* what is given after an error: only written to */
    struct err *e;
};

int jparse_fail(struct jparser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void jparse_advance(struct jparser *p);
struct jnode *jparse_node(struct jparser *p, enum jnode_kind kind); /* never NULL */
void jparse_push(struct jparser *p, struct jnodes *list, struct jnode *n);
void jparse_deepen(struct jparser *p, struct jnode *n, const struct jnode *child);
bool jparse_is_op(const struct jparser *p, const char *op);
bool jparse_is_name(const struct jparser *p, const char *name);
bool jparse_take_op(struct jparser *p, const char *op);
bool jparse_take_name(struct jparser *p, const char *name);
void jparse_expect_op(struct jparser *p, const char *op);
struct jname *jparse_intern(struct jparser *p, const char *text, size_t n);
struct jname *jparse_name(struct jparser *p); /* a name must come here */
bool jparse_enter(struct jparser *p);         /* false: too deep; else jparse_leave */
void jparse_leave(struct jparser *p);

struct jnode *jexpr_parse(struct jparser *p);
/* Expressions between commas, as a tuple; one without a comma is itself. */
struct jnode *jexpr_parse_tuple(struct jparser *p, bool with_condition);
struct jnode *jexpr_parse_target(struct jparser *p, bool attributes);
struct jnode *jexpr_parse_filters(struct jparser *p, struct jnode *of, bool first_named);
void jexpr_parse_arguments(struct jparser *p, struct jnode *call);
struct jnode *jexpr_parse_call(struct jparser *p);

/* jinja_scope.c: note in every scope's body what it hides. */
void jscope_analyse(struct jparser *p, struct jnode *root);

/* ---- a run ---- */

struct jvar {
    const struct jname *name;
    struct jinja_value value;
};

struct jscope {
    struct jvar *vars;
    uint32_t n, cap;
    bool kept; /* a macro was defined in it, or within: it cannot be used again */
    struct jscope *parent;
};

/* Text under construction, with marks. */
struct jout {
    struct buf text, marks;
};

enum jflow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

struct jinja_run {
    const struct jinja_template *t;
    struct arena arena;
    struct jout out;
    struct jscope globals, *scope;
    struct jinja_value captured; /* the value of N_CAPTURED */
    uint64_t steps;
    uint32_t depth, line;
    enum jflow flow;
    int64_t now;
    bool has_now, raised, parts_wanted;
    int code; /* sticks */
    struct err err;
};

struct jmacro {
    const struct jnode *node;
    struct jscope *scope; /* where it was defined */
};

struct jmethod {
    struct jinja_value of;
    const char *name; /* of the table of methods */
    uint8_t index;
};

struct jloop {
    struct jinja_value *items;
    uint32_t n, at, depth;
    const struct jnode *node; /* for recursion */
    struct jscope *scope;
    struct jinja_value last_changed;
    bool any_changed;
};

struct jcycler {
    struct jlist *items;
    uint32_t at;
};

struct jarg {
    const char *name; /* of a keyword */
    size_t len;
    struct jinja_value value;
};

/* Arguments of a call, a filter or a test. */
struct jargs {
    struct jinja_value *v; /* [n] positional */
    uint32_t n;
    struct jarg *named; /* [n_named] */
    uint32_t n_named;
    const char *of; /* the name of what is called, for errors */
};

/* Note the run's first error; gives undefined. */
struct jinja_value jfail(struct jinja_run *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
struct jinja_value jfail_code(struct jinja_run *r, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct jinja_value jfail_undefined(struct jinja_run *r, struct jinja_value v); /* with its name */
void *jalloc(struct jinja_run *r, size_t size); /* NULL: the error is noted */
void jwork(struct jinja_run *r, size_t amount); /* count steps of something that takes long */
bool jdeeper(struct jinja_run *r);              /* false: too deep; else r->depth-- after */

/* jinja_eval.c */
struct jinja_value jeval(struct jinja_run *r, const struct jnode *n);
struct jinja_value jeval_attribute(struct jinja_run *r, struct jinja_value of, const char *name,
                                   size_t len);
struct jinja_value jeval_item(struct jinja_run *r, struct jinja_value of, struct jinja_value key);
/* The arguments of a call, a filter or a test, with those of * and **. */
void jeval_arguments(struct jinja_run *r, const struct jnode *n, struct jargs *args);
struct jinja_value jeval_call(struct jinja_run *r, struct jinja_value f, struct jargs *args);
struct jinja_value jeval_binary(struct jinja_run *r, enum jop op, struct jinja_value a,
                                struct jinja_value b);
bool jeval_compare(struct jinja_run *r, enum jop op, struct jinja_value a, struct jinja_value b);

/* jinja_run.c */
void jrun_block(struct jinja_run *r, const struct jnode *body);
struct jinja_value jrun_macro(struct jinja_run *r, const struct jmacro *m, struct jargs *args);
struct jinja_value jrun_loop(struct jinja_run *r, const struct jnode *n, struct jinja_value what,
                             uint32_t depth, struct jscope *scope);
struct jinja_value *jrun_find(struct jinja_run *r, const struct jname *name);

/* jinja_value.c */
struct jinja_value jint(int64_t i);
struct jinja_value jfloat(double f);
struct jinja_value jundefined(const char *name);
struct jinja_value jobject(enum jinja_type type, const void *object);
struct jstr *jstr_of(struct jinja_value v);
struct jlist *jlist_of(struct jinja_value v);
struct jdict *jdict_of(struct jinja_value v);
bool jis_number(struct jinja_value v); /* or a truth value */
double jnumber(struct jinja_value v);
int64_t jinteger(struct jinja_value v);  /* of an int or a truth value */
bool jis_sequence(struct jinja_value v); /* list, tuple, range */
bool jtruth(struct jinja_value v);
const char *jtype_name(struct jinja_value v);
bool jequal(struct jinja_run *r, struct jinja_value a, struct jinja_value b);
/* -1, 0, 1; values that Python does not order are an error. */
int jorder(struct jinja_run *r, struct jinja_value a, struct jinja_value b);
/* By their keys, a stable merge from the bottom up; backwards: larger keys first, equal ones in
 * their order. Returns the sorted pairs, in `pairs` or elsewhere. */
struct jpair *jsort_pairs(struct jinja_run *r, struct jpair *pairs, uint32_t n, bool backwards);
struct jinja_value jlist_new(struct jinja_run *r, enum jinja_type type, uint32_t n);
struct jinja_value jlist_of_items(struct jinja_run *r, enum jinja_type type,
                                  struct jinja_value *items, uint32_t n);
/* A list that grows while it is made; NULL: no memory. */
struct jlist *jlist_empty(struct jinja_run *r);
void jlist_push(struct jinja_run *r, struct jlist *l, uint32_t *cap, struct jinja_value v);
/* What a loop over v sees; a generator is used up. NULL: v is not iterable, the error is noted. */
struct jlist *jiterate(struct jinja_run *r, struct jinja_value v);
struct jinja_value *jdict_find(struct jinja_run *r, const struct jdict *d, struct jinja_value key);
struct jinja_value *jdict_find_text(const struct jdict *d, const char *key, size_t n);
void jdict_set(struct jinja_run *r, struct jdict *d, struct jinja_value key, struct jinja_value v);
struct jinja_value jdict_view(struct jinja_run *r, const struct jdict *d, char which);

/* jinja_text.c */
struct jinja_value jtext(struct jinja_run *r, const char *text, size_t n, uint8_t mark);
struct jinja_value jtext_c(struct jinja_run *r, const char *text); /* own, borrowed */
struct jinja_value jtext_sub(struct jinja_run *r, const struct jstr *s, size_t from, size_t to);
struct jinja_value jtext_escaped(struct jinja_run *r, const struct jstr *s); /* HTML, as markup */
struct jinja_value jtext_concat(struct jinja_run *r, struct jstr *a, struct jstr *b);
uint8_t jmark_at(const struct jstr *s, size_t at);
bool jtext_is_foreign(const struct jstr *s); /* any byte of it */
bool jname_is(const char *name, size_t len, const char *text);
bool jtext_is(const struct jstr *s, const char *text);
size_t jtext_count(const struct jstr *s);                         /* characters */
size_t jtext_offset(const struct jstr *s, size_t i);              /* of character i, or len */
size_t jtext_char_len(const char *text, size_t n);                /* bytes of the first one */
uint32_t jtext_code(const char *text, size_t n, size_t *ret_len); /* bad bytes: U+DC80 and on */
size_t jtext_find(const struct jstr *s, const struct jstr *what, size_t from, size_t to);
size_t jtext_find_last(const struct jstr *s, const struct jstr *what, size_t from, size_t to);
enum { JNOWHERE = -1 };

void jout_init(struct jout *o);
void jout_release(struct jout *o);
void jout_bytes(struct jinja_run *r, struct jout *o, const char *text, size_t n, uint8_t mark);
void jout_puts(struct jinja_run *r, struct jout *o, const char *text, uint8_t mark);
void jout_sub(struct jinja_run *r, struct jout *o, const struct jstr *s, size_t from, size_t to);
void jout_str(struct jinja_run *r, struct jout *o, const struct jstr *s);
void jout_code(struct jinja_run *r, struct jout *o, uint32_t code, uint8_t mark);
void jout_value(struct jinja_run *r, struct jout *o, struct jinja_value v); /* as str() */
void jout_repr(struct jinja_run *r, struct jout *o, struct jinja_value v);
struct jinja_value jout_take(struct jinja_run *r, struct jout *o); /* as a string; released */
struct jstr *jto_str(struct jinja_run *r, struct jinja_value v);   /* str(v); never NULL */
enum { JFLOAT_TEXT = 40 };
void jfloat_print(double f, char out[JFLOAT_TEXT]); /* as Python's repr */

/* jinja_json.c */
struct jinja_value jjson_dump(struct jinja_run *r, struct jinja_value v, struct jargs *args);

/* jinja_args.c: arguments by place or name */
struct jinja_value *jarg(const struct jargs *a, uint32_t at, const char *name); /* NULL: absent */
void jargs_named(struct jinja_run *r, const struct jargs *a, struct jinja_value dict); /* into it */
bool jargs_check(struct jinja_run *r, const struct jargs *a, uint32_t min, uint32_t max);
/* false: the error is noted */
bool jarg_int(struct jinja_run *r, const struct jargs *a, uint32_t at, const char *name,
              int64_t otherwise, int64_t *ret_value);
bool jarg_bool(const struct jargs *a, uint32_t at, const char *name, bool otherwise);
struct jstr *jarg_str(struct jinja_run *r, const struct jargs *a, uint32_t at, const char *name);

/* jinja_method.c, jinja_string.c */
struct jinja_value jmethod_bind(struct jinja_run *r, struct jinja_value of, const char *name,
                                size_t len, bool *ret_found);
struct jinja_value jmethod_call(struct jinja_run *r, const struct jmethod *m, struct jargs *args);
struct jinja_value jstring_case(struct jinja_run *r, const struct jstr *s, char how);
struct jinja_value jstring_strip(struct jinja_run *r, const struct jstr *s, const struct jstr *of,
                                 int sides);
struct jinja_value jstring_replace(struct jinja_run *r, const struct jstr *s,
                                   const struct jstr *from, const struct jstr *to, int64_t max);
struct jinja_value jstring_join(struct jinja_run *r, const struct jstr *between,
                                const struct jlist *l, bool any);
struct jinja_value jstring_splitlines(struct jinja_run *r, const struct jstr *s, bool keep);
bool jstring_is(const struct jstr *s, char what);
enum { JSTRIP_LEFT = 1, JSTRIP_RIGHT = 2 };
/* The methods of strings; `index` is that of the table. */
struct jinja_value jstring_call(struct jinja_run *r, struct jinja_value of, uint8_t index,
                                struct jargs *args);
int jstring_method(const char *name, size_t len, const char **ret_name); /* -1: none */

/* jinja_format.c */
struct jinja_value jformat_percent(struct jinja_run *r, const struct jstr *s,
                                   struct jinja_value args);
struct jinja_value jformat_braces(struct jinja_run *r, const struct jstr *s, struct jargs *args);

/* jinja_filter.c, jinja_filter_list.c, jinja_test.c, jinja_global.c */
typedef struct jinja_value jfilter_fn(struct jinja_run *r, struct jinja_value v,
                                      struct jargs *args);
struct jfilter {
    const char *name;
    jfilter_fn *fn;
};
struct jinja_value jfilter_call(struct jinja_run *r, const char *name, size_t len,
                                struct jinja_value v, struct jargs *args);
jfilter_fn *jfilter_of_lists(const char *name, size_t len); /* NULL: none */
bool jtest_call(struct jinja_run *r, const char *name, size_t len, struct jinja_value v,
                struct jargs *args);
struct jinja_value jglobal_find(struct jinja_run *r, const char *name, size_t len);
struct jinja_value jglobal_call(struct jinja_run *r, int index, struct jargs *args);

/* jinja_unicode.c; the tables are made by tools/unicode_tables.py */
uint32_t junicode_lower(uint32_t c);
uint32_t junicode_upper(uint32_t c);
uint32_t junicode_title(uint32_t c);
/* The characters that c becomes, where it is more than one; 0: it is not. */
uint32_t junicode_special(uint32_t c, char how, uint32_t out[3]);
bool junicode_is_space(uint32_t c);
bool junicode_is_line_end(uint32_t c);
bool junicode_is_printable(uint32_t c);
bool junicode_is_alpha(uint32_t c);
bool junicode_is_digit(uint32_t c); /* decimal, and others that Python calls digits */
bool junicode_is_decimal(uint32_t c);
bool junicode_is_numeric(uint32_t c);
bool junicode_is_lower(uint32_t c);
bool junicode_is_upper(uint32_t c);
bool junicode_is_cased(uint32_t c);     /* letters with upper and lower forms, or title case */
bool junicode_is_ignorable(uint32_t c); /* between a cased letter and a final sigma */

#endif
