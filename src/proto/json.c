/* json: see json.h. Relies on jansson for parsing; it alone refused every hostile input we tried.
 */
#include "proto/json.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/hex.h"
#include "base/utf8.h"

/* Bytes that jansson 2.14 takes for each, measured. */
enum {
    OBJECT_BYTES = 232,
    ARRAY_BYTES = 140,
    MEMBER_BYTES = 100,
    STRING_BYTES = 96,
    NUMBER_BYTES = 48
};

/* What the parsed tree will take besides its texts; stops counting above JSON_TREE_MAX. Where it is
 * wrong because the text is no JSON, the parser stops. */
static size_t tree_bytes(const char *json, size_t n)
{
    size_t bytes = 0;
    bool text = false;
    for (size_t i = 0; i < n && bytes <= JSON_TREE_MAX; i++) {
        char c = json[i];
        if (text && c == '\\') {
            i++;
        } else if (c == '"') {
            text = !text;
            bytes += text ? STRING_BYTES : 0;
        } else if (!text) {
            bytes += c == '{'   ? OBJECT_BYTES
                     : c == '[' ? ARRAY_BYTES
                     : c == ':' ? MEMBER_BYTES
                     : c == ',' ? NUMBER_BYTES
                                : 0;
        }
    }
    return bytes;
}

static int parse(const char *json, size_t n, const char *what, bool wide,
                 struct json_t **ret_object, struct err *e)
{
    static const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_error_t error;
    if (n >= 3 && memcmp(json, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark, of some editors */
        json += 3;
        n -= 3;
    }
    if (n >= 2 && (memcmp(json, "\xFF\xFE", 2) == 0 || memcmp(json, "\xFE\xFF", 2) == 0))
        return err_set(e, ERR_BAD_INPUT, "%s is UTF-16: send it in UTF-8", what);
    if (tree_bytes(json, n) > JSON_TREE_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s has too many objects, arrays and values", what);
    json_t *root = json_loadb(json, n, flags, &error);
    if (!root && wide && json_error_code(&error) == json_error_numeric_overflow)
        root = json_loadb(json, n, flags | JSON_DECODE_INT_AS_REAL, &error);
    /* Where it gets no memory at all, it says nothing. */
    if (!root && (!error.text[0] || json_error_code(&error) == json_error_out_of_memory))
        return err_set(e, ERR_NO_MEMORY, "no memory to read %s", what);
    if (!root)
        return err_set(e, ERR_BAD_INPUT, "%s is not valid JSON: %s (line %d, column %d)", what,
                       error.text, error.line, error.column);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(e, ERR_BAD_INPUT, "%s must be a JSON object", what);
    }
    *ret_object = root;
    return 0;
}

/* The unit of the escape \uXXXX there; 0: none is, or it is 0. */
static uint32_t escaped_unit(const char *at, size_t n)
{
    unsigned char unit[2];
    if (n < 6 || at[0] != '\\' || at[1] != 'u' || !hex_decode(at + 2, unit, 2)) return 0;
    return (uint32_t)unit[0] << 8 | unit[1];
}

bool json_mend_halves(char *json, size_t n)
{
    bool mended = false;
    for (size_t i = 0; i < n;) {
        const uint32_t unit = escaped_unit(json + i, n - i);
        if (unit >> 10 == 0xd800 >> 10 && n - i > 6 &&
            escaped_unit(json + i + 6, n - i - 6) >> 10 == 0xdc00 >> 10) {
            i += 12; /* a whole pair */
            continue;
        }
        if (unit >> 11 == 0xd800 >> 11) {
            memcpy(json + i + 2, "fffd", 4);
            mended = true;
        }
        i += json[i] == '\\' ? 2 : 1;
    }
    return mended;
}

int json_object_parse(const char *json, size_t n, const char *what, struct json_t **ret_object,
                      struct err *e)
{
    return parse(json, n, what, false, ret_object, e);
}

int json_object_parse_wide(const char *json, size_t n, const char *what, struct json_t **ret_object,
                           struct err *e)
{
    return parse(json, n, what, true, ret_object, e);
}

static int read_integer(const json_t *value, const char *prefix, const struct json_field *f,
                        void *at, struct err *e)
{
    json_int_t v = json_integer_value(value);
    if (!json_is_integer(value) || v < f->min || v > f->max)
        return err_set(e, ERR_BAD_INPUT, "%s%s must be an integer from %lld to %lld", prefix,
                       f->name, (long long)f->min, (long long)f->max);
    if (f->type == JSON_FIELD_U32) {
        uint32_t u = (uint32_t)v;
        memcpy(at, &u, sizeof u);
    } else if (f->type == JSON_FIELD_I32) {
        int32_t i = (int32_t)v;
        memcpy(at, &i, sizeof i);
    } else {
        uint64_t u = (uint64_t)v;
        memcpy(at, &u, sizeof u);
    }
    return 0;
}

static int read_float(const json_t *value, const char *prefix, const struct json_field *f, void *at,
                      struct err *e)
{
    double wide = json_number_value(value);
    bool ok = json_is_number(value) && wide >= -1e30 && wide <= 1e30;
    float narrow = ok ? (float)wide : 0.0f;
    if (!ok || narrow < f->float_min || narrow > f->float_max)
        return err_set(e, ERR_BAD_INPUT, "%s%s must be a number from %g to %g", prefix, f->name,
                       (double)f->float_min, (double)f->float_max);
    memcpy(at, &narrow, sizeof narrow);
    return 0;
}

static int read_text(const json_t *value, const char *prefix, const struct json_field *f, void *at,
                     struct err *e)
{
    size_t n = json_string_length(value);
    if (!json_is_string(value) || n >= (size_t)f->max || n < (size_t)f->min ||
        memchr(json_string_value(value), 0, n))
        return err_set(e, ERR_BAD_INPUT,
                       "%s%s must be a string of %lld to %lld bytes without zero bytes", prefix,
                       f->name, (long long)f->min, (long long)f->max - 1);
    memcpy(at, json_string_value(value), n + 1);
    return 0;
}

static int read_borrowed(json_t *value, const char *prefix, const struct json_field *f, void *at,
                         struct err *e)
{
    size_t n = 0;
    bool ok = json_is_object(value);
    const char *kind = "an object", *unit = "";
    if (f->type == JSON_FIELD_ARRAY) {
        kind = "an array", unit = " elements";
        ok = json_is_array(value);
        n = json_array_size(value);
    } else if (f->type == JSON_FIELD_STRING) {
        kind = "a string", unit = " bytes";
        ok = json_is_string(value);
        n = json_string_length(value);
    }
    if (!ok) return err_set(e, ERR_BAD_INPUT, "%s%s must be %s", prefix, f->name, kind);
    if (f->type != JSON_FIELD_OBJECT && (n < (size_t)f->min || n > (size_t)f->max))
        return err_set(e, ERR_BAD_INPUT, "%s%s must be %s of %lld to %lld%s", prefix, f->name, kind,
                       (long long)f->min, (long long)f->max, unit);
    memcpy(at, &value, sizeof value);
    return 0;
}

static int read_field(json_t *value, const char *prefix, const struct json_field *f, void *at,
                      struct err *e)
{
    switch (f->type) {
    case JSON_FIELD_U32:
    case JSON_FIELD_I32:
    case JSON_FIELD_U64:
        return read_integer(value, prefix, f, at, e);
    case JSON_FIELD_FLOAT:
        return read_float(value, prefix, f, at, e);
    case JSON_FIELD_TEXT:
        return read_text(value, prefix, f, at, e);
    case JSON_FIELD_BOOL:
        if (!json_is_boolean(value))
            return err_set(e, ERR_BAD_INPUT, "%s%s must be true or false", prefix, f->name);
        memcpy(at, &(bool){json_is_true(value)}, sizeof(bool));
        return 0;
    case JSON_FIELD_OBJECT:
    case JSON_FIELD_ARRAY:
    case JSON_FIELD_STRING:
        break;
    }
    return read_borrowed(value, prefix, f, at, e);
}

static bool known(const char *name, const struct json_field *fields, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(fields[i].name, name) == 0) return true;
    return false;
}

int json_object_read(struct json_t *object, const char *prefix, const struct json_field *fields,
                     size_t n, bool strict, void *out, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        json_t *value = json_object_get(object, fields[i].name);
        if (!value) {
            if (!fields[i].required) continue;
            return err_set(e, ERR_BAD_INPUT, "%s%s is missing", prefix, fields[i].name);
        }
        int code = read_field(value, prefix, &fields[i], (char *)out + fields[i].offset, e);
        if (code) return code;
    }
    const char *name;
    json_t *ignored;
    json_object_foreach(object, name, ignored)
    {
        if (strict && !known(name, fields, n))
            return err_set(e, ERR_BAD_INPUT, "%s%.64s is not a field that we know", prefix, name);
    }
    return 0;
}

bool json_text_is(const struct json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

static void put_escaped(struct buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *short_form = c ? strchr(from, c) : NULL;
    if (short_form)
        buf_append(out, (char[]){'\\', to[short_form - from]}, 2);
    else
        buf_append(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

int json_put_string(struct buf *out, const char *text, size_t n)
{
    if (utf8_valid_prefix(text, n) != n) return buf_fail(out, ERR_BAD_INPUT);
    buf_putc(out, '"');
    size_t begin = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        buf_append(out, text + begin, i - begin);
        put_escaped(out, c);
        begin = i + 1;
    }
    if (n > begin) buf_append(out, text + begin, n - begin);
    return buf_putc(out, '"');
}

int json_put_text(struct buf *out, const char *text)
{
    return text ? json_put_string(out, text, strlen(text)) : buf_puts(out, "null");
}

static int put_bytes(const char *bytes, size_t n, void *out)
{
    return buf_append(out, bytes, n) ? -1 : 0;
}

int json_put_value(struct buf *out, const struct json_t *value, bool bare)
{
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17);
    if (json_dump_callback(value, put_bytes, out, bare ? flags | JSON_EMBED : flags) == 0) return 0;
    return buf_fail(out, ERR_NO_MEMORY);
}

int json_put_u64(struct buf *out, uint64_t value)
{
    char digits[20], *at = digits + sizeof digits;
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return buf_append(out, at, (size_t)(digits + sizeof digits - at));
}

int json_put_ids(struct buf *out, const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] < 0) return buf_fail(out, ERR_BAD_INPUT);
        if (i > 0) buf_putc(out, ',');
        json_put_u64(out, (uint64_t)ids[i]);
    }
    return out->error;
}

int json_put_float(struct buf *out, float value)
{
    if (!isfinite(value)) return buf_fail(out, ERR_BAD_INPUT);
    /* Through jansson, because printf writes a decimal comma in some locales. */
    json_t *real = json_real((double)value);
    if (!real) return buf_fail(out, ERR_NO_MEMORY);
    char text[64];
    size_t n = json_dumpb(real, text, sizeof text, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    json_decref(real);
    if (n == 0 || n > sizeof text) return buf_fail(out, ERR_INTERNAL);
    return buf_append(out, text, n);
}
