/* logit_bias: see logit_bias.h. */
#include "proto/logit_bias.h"

#include <jansson.h>
#include <string.h>

#include "proto/json.h"

/* A token id in decimal digits, without a sign; -1: it is none. */
static int64_t id_of(const char *text)
{
    int64_t id = 0;
    if (!text[0] || strlen(text) > 10 || (text[0] == '0' && text[1])) return -1;
    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9') return -1;
        id = id * 10 + (*at - '0');
    }
    return id;
}

static int add(int64_t id, const json_t *bias, const char *name, struct sampling *s, struct err *e)
{
    double value = json_is_false(bias) ? (double)SAMPLING_NEVER : json_number_value(bias);
    if (id < 0 || id > INT32_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s: each key must be a token id (0 to %d)", name,
                       INT32_MAX);
    if (!(json_is_number(bias) || json_is_false(bias)) || !(value >= -100.0 && value <= 100.0))
        return err_set(e, ERR_BAD_INPUT,
                       "%s: the bias of token %lld must be a number from -100 to 100", name,
                       (long long)id);
    if (s->n_biases == SAMPLING_BIASES_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s may have %d tokens at most", name,
                       SAMPLING_BIASES_MAX);
    for (uint32_t i = 0; i < s->n_biases; i++)
        if (s->biases[i].id == id)
            return err_set(e, ERR_BAD_INPUT, "%s: token %lld is there twice", name, (long long)id);
    s->biases[s->n_biases++] = (struct sampling_bias){(int32_t)id, (float)value};
    return 0;
}

static int take_pair(const json_t *pair, const char *name, struct sampling *s, struct err *e)
{
    const json_t *id = json_array_get(pair, 0);
    double value = json_number_value(id); /* whole, as numbers go here */
    bool whole = json_is_number(id) && value >= 0.0 && value <= (double)INT32_MAX &&
                 !(value < (double)(int64_t)value || value > (double)(int64_t)value);
    if (json_array_size(pair) != 2 || json_is_string(id) || !whole)
        return err_set(e, ERR_BAD_INPUT,
                       "%s: each pair must be a token id (0 to %d) and a bias; texts are not taken",
                       name, INT32_MAX);
    return add((int64_t)value, json_array_get(pair, 1), name, s, e);
}

int logit_bias_take(const struct json_t *value, const char *name, struct sampling *s, struct err *e)
{
    const char *key;
    json_t *bias;
    int code = 0;
    if (!json_is_object(value) && !json_is_array(value))
        return err_set(e, ERR_BAD_INPUT, "%s must be an object of token ids and biases", name);
    s->n_biases = 0;
    for (size_t i = 0; i < json_array_size(value) && !code; i++)
        code = take_pair(json_array_get(value, i), name, s, e);
    json_object_foreach((json_t *)(uintptr_t)value, key, bias)
    {
        if (!code) code = add(id_of(key), bias, name, s, e);
    }
    return code;
}

int logit_bias_put(struct buf *out, const struct sampling *s)
{
    buf_putc(out, '[');
    for (uint32_t i = 0; i < s->n_biases; i++) {
        if (s->biases[i].id < 0) buf_fail(out, ERR_BAD_INPUT);
        buf_printf(out, "%s[%d,", i ? "," : "", s->biases[i].id);
        json_put_float(out, s->biases[i].bias);
        buf_putc(out, ']');
    }
    return buf_putc(out, ']');
}
