/* openai_pdd: the "pdd" object of requests to a device; see openai.h. */
#include <jansson.h>
#include <stddef.h>

#include "proto/json.h"
#include "proto/openai_impl.h"

enum { KEEP_MAX_S = 7 * 24 * 3600 };

#define AT(field) offsetof(struct openai_pdd, field)

static const struct json_field fields[] = {
    {"id", JSON_FIELD_TEXT, false, 0, WIRE_ID_MAX, 0, 0, AT(id)},
    {"mode", JSON_FIELD_TEXT, false, 0, 16, 0, 0, AT(mode)},
    {"pace", JSON_FIELD_TEXT, false, 0, 16, 0, 0, AT(pace)},
    {"refine", JSON_FIELD_FLOAT, false, 0, 0, 0.0f, 1.0f, AT(refine)},
    {"cloud_tokens", JSON_FIELD_U32, false, 0, WIRE_TOKENS_MAX, 0, 0, AT(cloud_tokens)},
    {"keep", JSON_FIELD_U32, false, 0, KEEP_MAX_S, 0, 0, AT(keep_s)},
    {"progress", JSON_FIELD_BOOL, false, 0, 0, 0, 0, AT(progress)},
    {"conversation", JSON_FIELD_TEXT, false, 0, WIRE_ID_MAX, 0, 0, AT(conversation)},
};

void openai_pdd_init(struct openai_pdd *p)
{
    *p = (struct openai_pdd){.refine = -1.0f, .cloud_tokens = UINT32_MAX, .keep_s = UINT32_MAX};
}

int openai_pdd_take(struct json_t *root, struct openai_pdd *p, char *ret_param, struct err *e)
{
    json_t *pdd = json_object_get(root, "pdd");
    int code = 0;
    if (pdd && !json_is_object(pdd))
        code = err_set(e, ERR_BAD_INPUT, "pdd must be an object");
    else if (pdd)
        code = json_object_read(pdd, "pdd.", fields, sizeof fields / sizeof *fields, true, p, e);
    openai_param_set(ret_param, code ? "pdd" : "");
    return code;
}

int openai_pdd_decode(const char *json, size_t n, struct openai_pdd *p,
                      char ret_param[OPENAI_PARAM_MAX], struct err *e)
{
    json_t *root;
    int code = openai_object_parse(json, n, &root, e);
    if (code) return code;
    openai_pdd_init(p);
    code = openai_pdd_take(root, p, ret_param, e);
    json_decref(root);
    return code;
}
