/* model_names: see model_names.h. */
#include "proto/model_names.h"

#include <string.h>

#include "proto/wire.h"

static bool is_any(const char *alias)
{
    return strcmp(alias, "*") == 0;
}

int model_names_add(struct model_names *m, const char *alias, struct err *e)
{
    char clean[WIRE_NAME_MAX];
    wire_name_set(clean, alias);
    if (!alias[0] || strcmp(clean, alias) != 0)
        return err_set(e, ERR_BAD_INPUT,
                       "\"%.100s\" is no name of a model: printable ASCII without blanks, quotes "
                       "and backslashes, at most %d characters",
                       alias, WIRE_NAME_MAX - 1);
    if (m->n == MODEL_ALIASES_MAX)
        return err_set(e, ERR_LIMIT, "at most %d names", MODEL_ALIASES_MAX);
    m->alias[m->n++] = alias;
    return 0;
}

bool model_names_have(const struct model_names *m, const char *name)
{
    for (uint32_t i = 0; i < m->n; i++)
        if (is_any(m->alias[i]) || strcmp(m->alias[i], name) == 0) return true;
    return false;
}

bool model_names_all(const struct model_names *m)
{
    for (uint32_t i = 0; i < m->n; i++)
        if (is_any(m->alias[i])) return true;
    return false;
}
