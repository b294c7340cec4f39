/* listing: see listing.h. */
#include "hub/listing.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hex.h"
#include "base/mem.h"

static const char *const defaults[] = {"Q4_K_M", "Q8_0"};

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_model(const char *path)
{
    const char *name = last_name(path);
    return reference_is_file_path(path) && strncasecmp(name, "mmproj", 6) != 0 &&
           !strcasestr(name, "imatrix") && !strcasestr(name, "-mmproj");
}

/* The row to which a later part belongs; the parts of a model may come in any order. */
static struct listing_row *row_of(struct listing *l, const char *first)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (strcmp(l->rows[i].file, first) == 0) return &l->rows[i];
    return NULL;
}

static int add(struct listing *l, const json_t *sibling, struct err *e)
{
    const char *file = json_string_value(json_object_get(sibling, "rfilename"));
    const json_t *lfs = json_object_get(sibling, "lfs");
    const char *sha = json_string_value(json_object_get(lfs, "sha256"));
    json_int_t size = json_integer_value(json_object_get(sibling, "size"));
    struct reference_part part = {1, 1, 0, 0, 0};
    char first[REFERENCE_FILE_MAX + 16];
    unsigned char digest[32];
    if (!file || !is_model(file)) return 0;
    snprintf(first, sizeof first, "%s", file);
    if (reference_part(file, &part) && reference_of_part(file, &part, 1, first, sizeof first, NULL))
        return 0;
    struct listing_row *row = row_of(l, first);
    if (!row) {
        if (l->n == LISTING_ROWS_MAX)
            return err_set(e, ERR_LIMIT, "it has more than %d GGUF files: name one",
                           LISTING_ROWS_MAX);
        row = &l->rows[l->n];
        *row = (struct listing_row){.file = mem_strdup(first), .parts = part.count};
        if (!row->file) return err_set(e, ERR_NO_MEMORY, "no memory for the list of files");
        l->n++;
    }
    if (size > 0) row->size += (uint64_t)size;
    if (part.count == 1 && sha && strlen(sha) == 64 && hex_decode(sha, digest, sizeof digest))
        hex_encode(digest, sizeof digest, row->sha256);
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct listing_row *x = a, *y = b;
    return strcmp(x->file, y->file);
}

int listing_read(const char *json, size_t n, const char *where, struct listing *ret_listing,
                 struct err *e)
{
    json_t *all = json_loadb(json, n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *siblings = json_object_get(all, "siblings");
    struct listing l = {mem_calloc(LISTING_ROWS_MAX, sizeof *l.rows), 0};
    int code = 0;
    if (!l.rows)
        code = err_set(e, ERR_NO_MEMORY, "no memory for the list of files");
    else if (!json_is_array(siblings))
        code = err_set(e, ERR_PROTOCOL, "%.200s: the hub's answer is no list of files", where);
    for (size_t i = 0; code == 0 && i < json_array_size(siblings); i++)
        if ((code = add(&l, json_array_get(siblings, i), e)) != 0) err_prefix(e, "%.200s", where);
    json_decref(all);
    if (code) {
        listing_release(&l);
        return code;
    }
    qsort(l.rows, l.n, sizeof *l.rows, compare);
    *ret_listing = l;
    return 0;
}

void listing_release(struct listing *l)
{
    for (uint32_t i = 0; l->rows && i < l->n; i++)
        mem_free(l->rows[i].file);
    mem_free(l->rows);
    *l = (struct listing){NULL, 0};
}

static bool is_border(char c)
{
    return c == 0 || c == '-' || c == '.' || c == '/' || c == '_' || c == ' ';
}

/* Whether `type` stands in the path between borders: Q4_K is not in Q4_K_M. */
static bool has_type(const char *path, const char *type)
{
    size_t n = strlen(type);
    for (const char *at = path; (at = strcasestr(at, type)) != NULL; at++) {
        bool longer = at[n] == '_'; /* of the types, whose names have _ in the middle */
        if ((at == path || is_border(at[-1])) && is_border(at[n]) && !longer) return true;
    }
    return false;
}

static uint32_t count(const struct listing *l, const char *type, const struct listing_row **ret_row)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        if (!has_type(l->rows[i].file, type)) continue;
        if (n++ == 0) *ret_row = &l->rows[i];
    }
    return n;
}

int listing_choose(const struct listing *l, const char *type, const char *where,
                   const struct listing_row **ret_row, struct err *e)
{
    if (l->n == 0)
        return err_set(e, ERR_NOT_FOUND,
                       "%.200s has no GGUF file: look for a repository whose name ends in -GGUF",
                       where);
    if (type[0]) {
        uint32_t n = count(l, type, ret_row);
        if (n == 1) return 0;
        return err_set(e, n ? ERR_BAD_INPUT : ERR_NOT_FOUND,
                       "%.200s has %s GGUF file%s of type %.60s: --files lists them, and "
                       "%.200s/FILE names one",
                       where, n ? "more than one" : "no", n ? "s" : "", type, where);
    }
    *ret_row = &l->rows[0];
    if (l->n == 1) return 0;
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (count(l, defaults[i], ret_row) == 1) return 0;
    return err_set(e, ERR_BAD_INPUT,
                   "%.200s has %u GGUF files, and none is an obvious choice: --files lists them, "
                   "and %.200s/FILE names one",
                   where, l->n, where);
}

/* Q4_K_M, IQ3_XXS, F16, BF16, MXFP4, TQ1_0 */
static size_t type_at(const char *at)
{
    static const char *const heads[] = {"IQ", "TQ", "Q", "BF", "F", "MXFP"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        size_t n = strlen(heads[i]);
        if (strncasecmp(at, heads[i], n) != 0 || at[n] < '0' || at[n] > '9') continue;
        while ((at[n] >= '0' && at[n] <= '9') || (at[n] >= 'A' && at[n] <= 'Z') ||
               (at[n] >= 'a' && at[n] <= 'z') || at[n] == '_')
            n++;
        return n;
    }
    return 0;
}

void listing_type(const struct listing_row *row, char ret_type[REFERENCE_PART_MAX + 1])
{
    const char *name = last_name(row->file);
    ret_type[0] = 0;
    for (const char *at = name; *at; at++) {
        size_t n = at == name || is_border(at[-1]) ? type_at(at) : 0;
        if (n == 0 || n > REFERENCE_PART_MAX) continue;
        for (size_t i = 0; i < n; i++)
            ret_type[i] = (char)(at[i] >= 'a' && at[i] <= 'z' ? at[i] - 'a' + 'A' : at[i]);
        ret_type[n] = 0;
    }
}
