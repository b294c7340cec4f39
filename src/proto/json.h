/*
 * json: shared readers and writers of JSON. Pure.
 *
 * Reading: a table lists the fields of an object, with types and ranges; the sentence of an error
 * names the field. Writing: by hand into a buf, with the helpers below, whose errors stick to it
 * (base/buf.h).
 */
#ifndef PDD_PROTO_JSON_H
#define PDD_PROTO_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct json_t;

/* Bytes that a parsed object may take besides its texts: more than a prompt and `have` of
 * WIRE_PROMPT_MAX token ids each. Without it 16 MB of "{},{}," would take 1.3 GB and block the loop
 * for seconds. */
enum { JSON_TREE_MAX = 128 << 20 };

enum json_type {
    JSON_FIELD_U32,    /* uint32_t; min..max */
    JSON_FIELD_I32,    /* int32_t; min..max */
    JSON_FIELD_U64,    /* uint64_t; min..max, at most 2^63 - 1 */
    JSON_FIELD_FLOAT,  /* float; float_min..float_max, after rounding to float */
    JSON_FIELD_BOOL,   /* bool */
    JSON_FIELD_TEXT,   /* char[max], at most max - 1 bytes, no zero byte */
    JSON_FIELD_OBJECT, /* struct json_t *, borrowed */
    JSON_FIELD_ARRAY,  /* struct json_t *, borrowed; min..max elements */
    JSON_FIELD_STRING  /* struct json_t *, borrowed; any text of min..max bytes */
};

struct json_field {
    const char *name;
    enum json_type type;
    bool required;
    int64_t min, max;
    float float_min, float_max;
    size_t offset; /* of the member in the struct that is filled; untouched when absent */
};

/* Parse one JSON object, past a byte order mark. Refused: duplicate names, text that is not UTF-8,
 * bytes after the object, more parts than fit JSON_TREE_MAX. The caller frees it with json_decref.
 * `what` begins the sentence of an error ("the request"). */
int json_object_parse(const char *json, size_t n, const char *what, struct json_t **ret_object,
                      struct err *e);

/* The same, but where an integer has more than 64 bits all numbers are reals. */
int json_object_parse_wide(const char *json, size_t n, const char *what, struct json_t **ret_object,
                           struct err *e);

/* Escapes of half a surrogate pair become \ufffd in place: programs that cut texts by units of
 * UTF-16 write them, and the parser refuses them. Whether there was one. */
bool json_mend_halves(char *json, size_t n);

/* Fill `out` from the object. `prefix` precedes names in sentences ("sampling."). `strict`: a
 * field that is not in the table is refused. Nothing needs to be released on failure. */
int json_object_read(struct json_t *object, const char *prefix, const struct json_field *fields,
                     size_t n, bool strict, void *out, struct err *e);

/* Whether it is this text; NULL is none. */
bool json_text_is(const struct json_t *value, const char *text);

/* Append `text` as a JSON string with its quotes; text that is not UTF-8 is ERR_BAD_INPUT. */
int json_put_string(struct buf *out, const char *text, size_t n);
/* The same for a zero-terminated text; NULL becomes null. */
int json_put_text(struct buf *out, const char *text);
/* A value of jansson's, compact, its numbers to the last bit. `bare`: the members of an object,
 * without its braces. */
int json_put_value(struct buf *out, const struct json_t *value, bool bare);
int json_put_u64(struct buf *out, uint64_t value);
/* Ids with commas between them; ERR_BAD_INPUT for a negative one. */
int json_put_ids(struct buf *out, const int32_t *ids, uint32_t n);
/* Nine digits: enough for every float32. ERR_BAD_INPUT unless finite. */
int json_put_float(struct buf *out, float value);

#endif
