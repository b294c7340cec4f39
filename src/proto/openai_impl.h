/* openai_impl: shared by the readers of OpenAI's bodies. Only proto/openai_*.c include it. */
#ifndef PDD_PROTO_OPENAI_IMPL_H
#define PDD_PROTO_OPENAI_IMPL_H

#include "proto/json.h"
#include "proto/openai.h"
#include "proto/openai_fields.h"

/* Parse one JSON object and remove its null members. */
int openai_object_parse(const char *json, size_t n, struct json_t **ret_object, struct err *e);
/* As openai_request_decode_pdd, of an object that is parsed; `p` may be NULL. */
int openai_request_take(struct json_t *root, bool chat, struct openai_request *r,
                        struct openai_pdd *p, char *ret_param, struct err *e);
/* json_object_read field by field, so that ret_param can name the wrong one. */
int openai_fields_read(struct json_t *object, const struct json_field *fields, size_t n, void *out,
                       char *ret_param, struct err *e);
/* Whether a field that holds this asks for nothing but what happens anyway. */
bool openai_is_neutral(const struct json_t *value, enum openai_neutral neutral);
void openai_param_set(char *ret_param, const char *name);
/* A copy of a JSON string, followed by a zero. */
int openai_text_take(const struct json_t *string, char **ret_text, size_t *ret_len, struct err *e);
/* Token ids of an array; NULL and 0 for an empty one. */
int openai_ids_take(const struct json_t *array, const char *name, int32_t **ret_ids,
                    uint32_t *ret_n, struct err *e);

/* The "pdd" object of a request into `p`, which openai_pdd_init has filled. */
int openai_pdd_take(struct json_t *root, struct openai_pdd *p, char *ret_param, struct err *e);
/* What a message has besides role and content, as a JSON object; stays NULL for nothing. */
int openai_extra_take(const struct json_t *message, size_t at, char **ret_extra, struct err *e);
/* The tools of a request, and the arguments of its chat template, as JSON; NULL for none. */
int openai_tools_take(const struct json_t *root, char **ret_tools, struct err *e);
int openai_arguments_take(const struct json_t *root, char **ret_arguments, char *ret_param,
                          struct err *e);

#endif
