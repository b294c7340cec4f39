/* lib_struct: structs that grow with the versions of the library, and errors; see lib_impl.h. */
#include <stdio.h>
#include <string.h>

#include "lib/lib_impl.h"

_Static_assert(PDD_ERROR_TEXT == ERR_TEXT_MAX, "errors are copied");

enum { STRUCT_MAX = 65536 /* no struct will grow beyond it: a larger size is garbage */ };

static int size_of(const char *name, const void *of, size_t least, size_t *ret_size, struct err *e)
{
    if (!of) return err_set(e, ERR_BAD_INPUT, "%s: a pointer to it is needed", name);
    memcpy(ret_size, of, sizeof *ret_size);
    if (*ret_size >= least && *ret_size <= STRUCT_MAX) return 0;
    return err_set(e, ERR_BAD_INPUT, "%s.size is %zu: set it to sizeof(%s)", name, *ret_size, name);
}

int lib_struct_take(const char *name, const void *from, size_t least, size_t known, void *to,
                    struct err *e)
{
    size_t size = 0;
    int code = size_of(name, from, least, &size, e);
    if (code) return code;
    const unsigned char *bytes = from;
    for (size_t i = known; i < size; i++)
        if (bytes[i])
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: a field behind byte %zu is set, which libpdd " PDD_VERSION
                           " does not know",
                           name, known);
    memset(to, 0, known);
    memcpy(to, from, size < known ? size : known);
    return 0;
}

int lib_struct_give(const char *name, const void *from, size_t least, size_t known, void *to,
                    struct err *e)
{
    size_t size = 0;
    int code = size_of(name, to, least, &size, e);
    if (code) return code;
    size_t n = size < known ? size : known;
    memcpy((char *)to + sizeof size, (const char *)from + sizeof size, n - sizeof size);
    memset((char *)to + n, 0, size - n);
    return 0;
}

int lib_result(int code, const struct err *e, pdd_error *error)
{
    if (!error) return code;
    error->code = code;
    snprintf(error->text, sizeof error->text, "%s",
             code >= 0    ? ""
             : e->text[0] ? e->text
                          : err_code_name(code));
    return code;
}

const char *pdd_version(void)
{
    return PDD_VERSION;
}

const char *pdd_code_name(int code)
{
    if (code == PDD_OK) return "ok";
    return code == PDD_MORE ? "more" : err_code_name(code);
}
