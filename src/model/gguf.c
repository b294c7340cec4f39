/*
 * gguf: see gguf.h. The header is walked once by a cursor that refuses to leave the file; after
 * that every stored pointer is known to be good, so the readers need no further checks of bounds.
 */
#include "model/gguf.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/os.h"

enum {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_TEXT,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_TYPES
};
static const uint8_t value_bytes[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

enum { ALIGNMENT_DEFAULT = 32, ALIGNMENT_MAX = 1 << 20 };

struct gguf_key {
    struct gguf_str name;
    uint32_t type;       /* VALUE_... */
    uint32_t array_type; /* of VALUE_ARRAY */
    uint64_t n;          /* elements of an array, length of a text */
    const uint8_t *value;
};

struct gguf {
    char *name;
    struct os_map map;
    const uint8_t *base;
    size_t size;
    struct gguf_key *keys;
    struct gguf_tensor *tensors;
    uint32_t n_keys, n_tensors;
    uint32_t *keys_by_name, *tensors_by_name; /* indices, sorted */
    struct gguf **parts;                      /* the further files of a split model */
    uint32_t n_parts;
};

const struct kern_type_info *gguf_type_info(uint32_t type)
{
    enum kern_type t;
    return kern_type_find(type, &t) ? kern_type_info(t) : NULL;
}

/* The bounded cursor. Reading past the end sets `bad` and gives zeros from then on. */
struct cursor {
    const uint8_t *base;
    size_t size, at;
    bool bad;
};

static const uint8_t *cursor_take(struct cursor *c, uint64_t n)
{
    if (c->bad || n > c->size - c->at) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *p = c->base + c->at;
    c->at += (size_t)n;
    return p;
}

static uint64_t load_le(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static uint64_t cursor_int(struct cursor *c, unsigned bytes)
{
    const uint8_t *p = cursor_take(c, bytes);
    return p ? load_le(p, bytes) : 0;
}

static struct gguf_str cursor_text(struct cursor *c)
{
    uint64_t n = cursor_int(c, 8);
    const uint8_t *p = cursor_take(c, n);
    return p ? (struct gguf_str){(const char *)p, (size_t)n} : (struct gguf_str){"", 0};
}

struct gguf_shown gguf_show(struct gguf_str s)
{
    struct gguf_shown out;
    size_t n = s.len < GGUF_SHOWN_MAX ? s.len : GGUF_SHOWN_MAX;
    for (size_t i = 0; i < n; i++)
        out.text[i] = s.data[i] < 32 || s.data[i] > 126 ? '?' : s.data[i];
    out.text[n] = 0;
    return out;
}

static int compare_text(struct gguf_str a, struct gguf_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = memcmp(a.data, b.data, n);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int read_array(struct cursor *c, struct gguf_key *k)
{
    k->array_type = (uint32_t)cursor_int(c, 4);
    k->n = cursor_int(c, 8);
    k->value = c->base + c->at;
    if (c->bad || k->array_type >= VALUE_TYPES || k->array_type == VALUE_ARRAY) return -1;
    if (k->array_type == VALUE_TEXT) {
        for (uint64_t i = 0; i < k->n && !c->bad; i++)
            cursor_text(c);
    } else {
        unsigned bytes = value_bytes[k->array_type];
        if (k->n > c->size / bytes) return -1;
        cursor_take(c, k->n * bytes);
    }
    return c->bad ? -1 : 0;
}

static int read_key(struct cursor *c, struct gguf_key *k)
{
    k->name = cursor_text(c);
    k->type = (uint32_t)cursor_int(c, 4);
    if (c->bad || k->type >= VALUE_TYPES) return -1;
    if (k->type == VALUE_ARRAY) return read_array(c, k);
    if (k->type == VALUE_TEXT) {
        struct gguf_str s = cursor_text(c);
        k->value = (const uint8_t *)s.data;
        k->n = s.len;
    } else {
        k->value = cursor_take(c, value_bytes[k->type]);
    }
    return c->bad ? -1 : 0;
}

static int refuse_cut_tensor(const struct gguf *g, const struct gguf_tensor *t, struct err *e)
{
    return err_set(e, ERR_BAD_INPUT, "%s: tensor %s: the file is cut off inside its description",
                   g->name, gguf_show(t->name).text);
}

/* Name, shape and type; sizes are checked, the place in the file not yet. `data` holds the offset.
 */
static int read_tensor(struct gguf *g, struct cursor *c, struct gguf_tensor *t,
                       uint64_t *ret_offset, struct err *e)
{
    t->name = cursor_text(c);
    t->dims = (uint32_t)cursor_int(c, 4);
    if (c->bad) return refuse_cut_tensor(g, t, e);
    if (t->dims < 1 || t->dims > GGUF_DIMS_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s: tensor %s: 1 to 4 dimensions allowed", g->name,
                       gguf_show(t->name).text);
    uint64_t elements = 1;
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) {
        t->shape[i] = i < t->dims ? cursor_int(c, 8) : 1;
        if (c->bad) return refuse_cut_tensor(g, t, e);
        if (t->shape[i] == 0 || __builtin_mul_overflow(elements, t->shape[i], &elements))
            return err_set(e, ERR_BAD_INPUT, "%s: tensor %s: impossible shape", g->name,
                           gguf_show(t->name).text);
    }
    t->type = (uint32_t)cursor_int(c, 4);
    *ret_offset = cursor_int(c, 8);
    if (c->bad) return refuse_cut_tensor(g, t, e);
    const struct kern_type_info *info = gguf_type_info(t->type);
    if (!info) return 0;
    if (t->shape[0] % info->block != 0)
        return err_set(e, ERR_BAD_INPUT,
                       "%s: tensor %s: rows of %" PRIu64 " are no multiple of %s's %u", g->name,
                       gguf_show(t->name).text, t->shape[0], info->name, info->block);
    uint64_t bytes;
    if (__builtin_mul_overflow(elements / info->block, (uint64_t)info->block_bytes, &bytes) ||
        bytes > SIZE_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s: tensor %s: impossible size", g->name,
                       gguf_show(t->name).text);
    t->bytes = (size_t)bytes;
    return 0;
}

/* qsort has no argument for context, so names are sorted by a heap sort of our own over indices. */
typedef struct gguf_str name_fn(const struct gguf *g, uint32_t i);

static struct gguf_str key_name(const struct gguf *g, uint32_t i)
{
    return g->keys[i].name;
}

static struct gguf_str tensor_name(const struct gguf *g, uint32_t i)
{
    return g->tensors[i].name;
}

static void sift(const struct gguf *g, name_fn *name, uint32_t *order, uint32_t root, uint32_t n)
{
    for (;;) {
        uint32_t child = 2 * root + 1;
        if (child >= n) return;
        if (child + 1 < n && compare_text(name(g, order[child]), name(g, order[child + 1])) < 0)
            child++;
        if (compare_text(name(g, order[root]), name(g, order[child])) >= 0) return;
        uint32_t swap = order[root];
        order[root] = order[child];
        order[child] = swap;
        root = child;
    }
}

static int sort_names(struct gguf *g, name_fn *name, uint32_t *order, uint32_t n, const char *what,
                      struct err *e)
{
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n / 2; i-- > 0;)
        sift(g, name, order, i, n);
    for (uint32_t end = n; end-- > 1;) {
        uint32_t swap = order[0];
        order[0] = order[end];
        order[end] = swap;
        sift(g, name, order, 0, end);
    }
    for (uint32_t i = 1; i < n; i++)
        if (compare_text(name(g, order[i - 1]), name(g, order[i])) == 0)
            return err_set(e, ERR_BAD_INPUT, "%s: %s %s appears twice", g->name, what,
                           gguf_show(name(g, order[i])).text);
    return 0;
}

/* The index whose name is `text`, or UINT32_MAX. */
static uint32_t find_name(const struct gguf *g, name_fn *name, const uint32_t *order, uint32_t n,
                          const char *text)
{
    struct gguf_str wanted = {text, strlen(text)};
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int c = compare_text(name(g, order[middle]), wanted);
        if (c == 0) return order[middle];
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return UINT32_MAX;
}

/* Other files that are given as models, by their first bytes. */
static const struct {
    const char *begins, *what;
} strangers[] = {
    {"version https://git-lfs", "a pointer of Git LFS; fetch the file itself (git lfs pull)"},
    {"<", "a web page: the download was refused, or the address is that of a page"},
    {"{", "JSON: the download was refused, or this is another file of the model"},
    {"PK\003\004", "a zip archive, such as PyTorch's; convert the model to GGUF"},
    {"lmgg", "a model of the time before GGUF; convert it again"},
    {"fmgg", "a model of the time before GGUF; convert it again"},
    {"tjgg", "a model of the time before GGUF; convert it again"},
    {"\200\002", "a pickle, such as PyTorch's; convert the model to GGUF"},
    {"ggml", "a model of the time before GGUF; convert it again"},
    {"\037\213", "packed with gzip; unpack it"},
    {"\375"
     "7zXZ",
     "packed with xz; unpack it"},
    {"\050\265\057\375", "packed with zstd; unpack it"},
};

static int refuse_stranger(const struct gguf *g, struct err *e)
{
    size_t zeros = 0;
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        size_t n = strlen(strangers[i].begins);
        if (g->size >= n && memcmp(g->base, strangers[i].begins, n) == 0)
            return err_set(e, ERR_BAD_INPUT, "%s: not a GGUF file, but %s", g->name,
                           strangers[i].what);
    }
    if (g->size > 9 && g->base[8] == '{' && g->base[6] == 0 && g->base[7] == 0)
        return err_set(e, ERR_BAD_INPUT,
                       "%s: not a GGUF file, but safetensors; convert the model to GGUF", g->name);
    while (zeros < g->size && zeros < 64 && g->base[zeros] == 0)
        zeros++;
    if (zeros == g->size || zeros == 64)
        return err_set(e, ERR_BAD_INPUT, "%s: not a GGUF file: %s; download it again", g->name,
                       g->size ? "it begins with zeros, as an unfinished download does"
                               : "it is empty");
    return err_set(e, ERR_BAD_INPUT, "%s: not a GGUF file", g->name);
}

static int read_header(struct gguf *g, struct cursor *c, struct err *e)
{
    if (g->size < 4 || memcmp(cursor_take(c, 4), "GGUF", 4) != 0) return refuse_stranger(g, e);
    uint32_t version = (uint32_t)cursor_int(c, 4);
    if (c->bad) return err_set(e, ERR_BAD_INPUT, "%s: the file is cut off after 4 bytes", g->name);
    if (version != 2 && version != 3)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: GGUF version %u%s; versions 2 and 3 (little endian) are supported",
                       g->name, version, version > 0xFFFF ? " (a big-endian file?)" : "");
    uint64_t tensors = cursor_int(c, 8), keys = cursor_int(c, 8);
    if (c->bad)
        return err_set(e, ERR_BAD_INPUT, "%s: the file is cut off inside its header", g->name);
    if (tensors > GGUF_TENSORS_MAX || keys > GGUF_KEYS_MAX)
        return err_set(e, ERR_LIMIT,
                       "%s: %" PRIu64 " tensors and %" PRIu64 " keys, limits are %d and %d",
                       g->name, tensors, keys, GGUF_TENSORS_MAX, GGUF_KEYS_MAX);
    g->n_tensors = (uint32_t)tensors;
    g->n_keys = (uint32_t)keys;
    g->keys = mem_calloc(g->n_keys, sizeof *g->keys);
    g->tensors = mem_calloc(g->n_tensors, sizeof *g->tensors);
    g->keys_by_name = mem_calloc(g->n_keys, sizeof *g->keys_by_name);
    g->tensors_by_name = mem_calloc(g->n_tensors, sizeof *g->tensors_by_name);
    if (!g->keys || !g->tensors || !g->keys_by_name || !g->tensors_by_name)
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for its tables", g->name);
    return 0;
}

static int read_keys(struct gguf *g, struct cursor *c, struct err *e)
{
    for (uint32_t i = 0; i < g->n_keys; i++) {
        if (read_key(c, &g->keys[i]) != 0)
            return err_set(e, ERR_BAD_INPUT,
                           "%s: metadata key %s (number %u) is malformed, or the file is cut off",
                           g->name, gguf_show(g->keys[i].name).text, i);
    }
    return sort_names(g, key_name, g->keys_by_name, g->n_keys, "metadata key", e);
}

/* The bytes that the file must have for this tensor; UINT64_MAX: the sum does not fit 64 bits. */
static uint64_t tensor_end(const struct gguf_tensor *t, uint64_t offset, size_t data_at)
{
    uint64_t end;
    if (!gguf_type_info(t->type)) return 0;
    if (__builtin_add_overflow(offset, t->bytes, &end) ||
        __builtin_add_overflow(end, data_at, &end))
        return UINT64_MAX;
    return end;
}

/* A download that broke off leaves a good head and too few bytes: say so, with both numbers. */
static int refuse_cut(const struct gguf *g, const uint64_t *offsets, size_t data_at, struct err *e)
{
    uint64_t needed = 0;
    const struct gguf_tensor *last = NULL;
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        uint64_t end = tensor_end(&g->tensors[i], offsets[i], data_at);
        if (end == UINT64_MAX)
            return err_set(e, ERR_BAD_INPUT, "%s: tensor %s: impossible offset", g->name,
                           gguf_show(g->tensors[i].name).text);
        if (end > needed) last = &g->tensors[i];
        if (end > needed) needed = end;
    }
    if (needed <= g->size) return 0;
    return err_set(e, ERR_BAD_INPUT,
                   "%s: the file is cut off: it has %zu bytes, and its tensors need %" PRIu64
                   " (the last is %s); download it again",
                   g->name, g->size, needed, gguf_show(last->name).text);
}

static int place_tensor(struct gguf *g, struct gguf_tensor *t, uint64_t offset, size_t data_at,
                        uint32_t alignment, struct err *e)
{
    if (!gguf_type_info(t->type)) return 0;
    if (offset % alignment != 0)
        return err_set(e, ERR_BAD_INPUT, "%s: tensor %s: its data are not aligned to %u", g->name,
                       gguf_show(t->name).text, alignment);
    t->data = g->base + data_at + offset;
    return 0;
}

static int read_tensors(struct gguf *g, struct cursor *c, struct err *e)
{
    uint32_t alignment = ALIGNMENT_DEFAULT;
    if (gguf_has(g, "general.alignment")) {
        int code = gguf_u32(g, "general.alignment", &alignment, e);
        if (code) return code;
        if (alignment == 0 || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0)
            return err_set(e, ERR_BAD_INPUT,
                           "%s: general.alignment is %u, a power of two up to %d allowed", g->name,
                           alignment, ALIGNMENT_MAX);
    }
    uint64_t *offsets = mem_calloc(g->n_tensors, sizeof *offsets);
    if (!offsets) return err_set(e, ERR_NO_MEMORY, "%s: no memory for its tables", g->name);
    int code = 0;
    for (uint32_t i = 0; i < g->n_tensors && code == 0; i++)
        code = read_tensor(g, c, &g->tensors[i], &offsets[i], e);
    size_t data_at = (c->at + alignment - 1) & ~(size_t)(alignment - 1);
    if (code == 0) code = refuse_cut(g, offsets, data_at, e);
    for (uint32_t i = 0; i < g->n_tensors && code == 0; i++)
        code = place_tensor(g, &g->tensors[i], offsets[i], data_at, alignment, e);
    mem_free(offsets);
    return code ? code : sort_names(g, tensor_name, g->tensors_by_name, g->n_tensors, "tensor", e);
}

static int compare_data(const void *a, const void *b)
{
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;
    return (x->data > y->data) - (x->data < y->data);
}

/* Two tensors that share bytes would mean a broken or hostile file. */
static int refuse_overlap(struct gguf *g, struct err *e)
{
    const struct gguf_tensor **order = mem_calloc(g->n_tensors, sizeof *order);
    if (!order) return err_set(e, ERR_NO_MEMORY, "%s: no memory for its tables", g->name);
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i].data) order[n++] = &g->tensors[i];
    qsort(order, n, sizeof *order, compare_data);
    int code = 0;
    for (uint32_t i = 1; i < n && code == 0; i++)
        if (order[i - 1]->data + order[i - 1]->bytes > order[i]->data)
            code = err_set(e, ERR_BAD_INPUT, "%s: tensors %s and %s overlap", g->name,
                           gguf_show(order[i - 1]->name).text, gguf_show(order[i]->name).text);
    mem_free(order);
    return code;
}

static int parse(struct gguf *g, struct err *e)
{
    struct cursor c = {g->base, g->size, 0, false};
    int code = read_header(g, &c, e);
    if (code == 0) code = read_keys(g, &c, e);
    if (code == 0) code = read_tensors(g, &c, e);
    return code ? code : refuse_overlap(g, e);
}

static int open_common(struct gguf *g, const char *name, struct gguf **ret_gguf, struct err *e)
{
    g->name = mem_strdup(name);
    int code = g->name ? parse(g, e) : err_set(e, ERR_NO_MEMORY, "%s: no memory", name);
    if (code) {
        gguf_close(g);
        return code;
    }
    *ret_gguf = g;
    return 0;
}

static int open_file(const char *path, struct gguf **ret_gguf, struct err *e)
{
    struct gguf *g = mem_calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_NO_MEMORY, "%s: no memory", path);
    int code = os_map_open(path, &g->map, e);
    if (code) {
        mem_free(g);
        return code;
    }
    g->base = g->map.data;
    g->size = g->map.size;
    return open_common(g, path, ret_gguf, e);
}

/* ---- models in several files ---- */

/* Which part a file is, from 0, and how many there are; 1 where the model is not split. */
struct part {
    uint32_t no, count;
};

static int read_part(const struct gguf *g, struct part *ret_part, struct err *e)
{
    struct part p = {0, 1};
    int code = 0;
    if (gguf_has(g, "split.count")) code = gguf_u32(g, "split.count", &p.count, e);
    if (code == 0 && p.count > 1) code = gguf_u32(g, "split.no", &p.no, e);
    if (code) return code;
    if (p.count > GGUF_PARTS_MAX || (p.count > 1 && p.no >= p.count))
        return err_set(e, ERR_BAD_INPUT,
                       "%s: split.no is %u and split.count %u; at most %d parts, numbered from 0, "
                       "are allowed",
                       g->name, p.no, p.count, GGUF_PARTS_MAX);
    *ret_part = p;
    return 0;
}

static size_t digits_before(const char *text, size_t end)
{
    size_t n = 0;
    while (n < end && text[end - n - 1] >= '0' && text[end - n - 1] <= '9')
        n++;
    return n;
}

/* Where the number of a part stands in "name-00001-of-00003.gguf"; false for other names. */
static bool find_part_number(const char *path, size_t *ret_at, size_t *ret_digits)
{
    static const char tail[] = ".gguf", middle[] = "-of-";
    size_t n = strlen(path), t = sizeof tail - 1, m = sizeof middle - 1;
    if (n < t || strcasecmp(path + n - t, tail) != 0) return false;
    size_t count_at = n - t - digits_before(path, n - t);
    if (count_at == n - t || count_at < m || memcmp(path + count_at - m, middle, m) != 0)
        return false;
    size_t digits = digits_before(path, count_at - m), at = count_at - m - digits;
    if (digits == 0 || at == 0 || path[at - 1] != '-') return false;
    *ret_at = at;
    *ret_digits = digits;
    return true;
}

bool gguf_is_later_part(const char *path)
{
    size_t at, digits;
    return find_part_number(path, &at, &digits) && strtoul(path + at, NULL, 10) > 1;
}

/* The path of part `no` (from 0) beside that of another one. */
static int part_path(const char *path, struct part part, uint32_t no, struct buf *ret_path,
                     struct err *e)
{
    size_t at, digits;
    char target[PATH_MAX]; /* a link may have another name than its file */
    if (!find_part_number(path, &at, &digits) && realpath(path, target) &&
        find_part_number(target, &at, &digits))
        path = target;
    if (!find_part_number(path, &at, &digits))
        return err_set(e, ERR_BAD_INPUT,
                       "%s: part %u of a model that is split into %u files, but its name does not "
                       "end in -%05u-of-%05u.gguf, from which the names of the others follow",
                       path, part.no + 1, part.count, part.no + 1, part.count);
    buf_init(ret_path, strlen(path) + 16);
    int code = buf_append(ret_path, path, at);
    if (code == 0) code = buf_printf(ret_path, "%0*u%s", (int)digits, no + 1, path + at + digits);
    return code ? err_set(e, code, "%s: no memory for the names of its parts", path) : 0;
}

/* Open part `no`, which must belong to the first one. */
static int open_part(struct gguf *first, struct part all, uint32_t no, struct err *e)
{
    struct part is = {0, 0};
    struct buf path;
    struct gguf *g = NULL;
    int code = part_path(first->name, all, no, &path, e);
    if (code) return code;
    code = open_file(path.data, &g, e);
    if (code == ERR_NOT_FOUND)
        err_set(e, code, "%s is missing: it is part %u of the %u files of %s", path.data, no + 1,
                all.count, first->name);
    buf_release(&path);
    if (code) return code;
    first->parts[first->n_parts++] = g;
    if ((code = read_part(g, &is, e)) != 0) return code;
    if (is.no == no && is.count == all.count) return 0;
    return err_set(e, ERR_BAD_INPUT, "%s: by its keys it is part %u of %u, not part %u of %u",
                   g->name, is.no + 1, is.count, no + 1, all.count);
}

/* The tensors of all parts in the first one's list, in the order of the parts: the list of the
 * whole model. */
static int join_tensors(struct gguf *g, struct err *e)
{
    uint64_t n = g->n_tensors;
    uint32_t wanted;
    for (uint32_t i = 0; i < g->n_parts; i++)
        n += g->parts[i]->n_tensors;
    if (gguf_has(g, "split.tensors.count")) {
        int code = gguf_u32(g, "split.tensors.count", &wanted, e);
        if (code) return code;
        if (wanted != n)
            return err_set(e, ERR_BAD_INPUT,
                           "%s: its parts have %" PRIu64
                           " tensors together, and split.tensors.count "
                           "is %u: they are not of one model",
                           g->name, n, wanted);
    }
    if (n > GGUF_TENSORS_MAX)
        return err_set(e, ERR_LIMIT, "%s: %" PRIu64 " tensors, the limit is %d", g->name, n,
                       GGUF_TENSORS_MAX);
    struct gguf_tensor *tensors = mem_calloc((size_t)n, sizeof *tensors);
    uint32_t *order = mem_calloc((size_t)n, sizeof *order), at = g->n_tensors;
    if (!tensors || !order) {
        mem_free(tensors);
        mem_free(order);
        return err_set(e, ERR_NO_MEMORY, "%s: no memory for its tables", g->name);
    }
    memcpy(tensors, g->tensors, g->n_tensors * sizeof *tensors);
    for (uint32_t i = 0; i < g->n_parts; at += g->parts[i++]->n_tensors)
        memcpy(tensors + at, g->parts[i]->tensors, g->parts[i]->n_tensors * sizeof *tensors);
    mem_free(g->tensors);
    mem_free(g->tensors_by_name);
    g->tensors = tensors;
    g->tensors_by_name = order;
    g->n_tensors = (uint32_t)n;
    return sort_names(g, tensor_name, order, g->n_tensors, "tensor", e);
}

/* The tensor whose data is the last of a file; NULL: none has data. */
static const struct gguf_tensor *last_of(const struct gguf *g)
{
    const struct gguf_tensor *last = NULL;
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        bool here = t->data >= g->base && t->data < g->base + g->size;
        if (here && t->bytes && (!last || t->data > last->data)) last = t;
    }
    return last;
}

static int check_end(const struct gguf *g, struct err *e)
{
    static const char bias[] = ".bias"; /* may be zero in a good file */
    const struct gguf_tensor *last = last_of(g);
    size_t tail = sizeof bias - 1, i = 0;
    if (!last) return 0;
    struct gguf_str name = last->name;
    if (name.len >= tail && memcmp(name.data + name.len - tail, bias, tail) == 0) return 0;
    while (i < last->bytes && last->data[i] == 0)
        i++;
    if (i < last->bytes) return 0;
    return err_set(e, ERR_BAD_INPUT,
                   "%s: its end is zeros (all of %s), as a download leaves it that was cut off; "
                   "download it again",
                   g->name, gguf_show(name).text);
}

int gguf_check_end(const struct gguf *g, struct err *e)
{
    int code = check_end(g, e);
    for (uint32_t i = 0; i < g->n_parts && code == 0; i++)
        code = check_end(g->parts[i], e);
    return code;
}

static int open_parts(struct gguf *g, struct err *e)
{
    struct part part;
    struct buf path;
    int code = read_part(g, &part, e);
    if (code || part.count == 1) return code;
    if (part.no != 0) {
        code = part_path(g->name, part, 0, &path, e);
        if (code) return code;
        if (strcmp(path.data, g->name) == 0)
            err_set(e, ERR_BAD_INPUT,
                    "%s: by its keys it is part %u of %u, not part 1 as its name says", g->name,
                    part.no + 1, part.count);
        else
            err_set(e, ERR_BAD_INPUT,
                    "%s: part %u of the %u files of a split model; give the first, %s", g->name,
                    part.no + 1, part.count, path.data);
        buf_release(&path);
        return ERR_BAD_INPUT;
    }
    g->parts = mem_calloc(part.count, sizeof *g->parts);
    if (!g->parts) return err_set(e, ERR_NO_MEMORY, "%s: no memory for its parts", g->name);
    for (uint32_t i = 1; i < part.count && code == 0; i++)
        code = open_part(g, part, i, e);
    return code ? code : join_tensors(g, e);
}

int gguf_open(const char *path, struct gguf **ret_gguf, struct err *e)
{
    struct gguf *g = NULL;
    int code = open_file(path, &g, e);
    if (code == 0) code = open_parts(g, e);
    if (code) {
        gguf_close(g);
        return code;
    }
    *ret_gguf = g;
    return 0;
}

static bool holds(const struct gguf *g, const uint8_t *at)
{
    return at >= g->base && (size_t)(at - g->base) < g->size;
}

void gguf_tensor_forget(const struct gguf *g, const struct gguf_tensor *t)
{
    if (!t->data) return;
    const struct gguf *owner = g;
    for (uint32_t i = 0; i < g->n_parts; i++)
        if (holds(g->parts[i], t->data)) owner = g->parts[i];
    os_map_forget(&owner->map, t->data, t->bytes);
}

void gguf_forget(const struct gguf *g)
{
    os_map_forget(&g->map, g->base, g->size);
    for (uint32_t i = 0; i < g->n_parts; i++)
        gguf_forget(g->parts[i]);
}

uint64_t gguf_file_bytes(const struct gguf *g)
{
    uint64_t n = g->size;
    for (uint32_t i = 0; i < g->n_parts; i++)
        n += g->parts[i]->size;
    return n;
}

int gguf_open_bytes(const void *data, size_t n, const char *name, struct gguf **ret_gguf,
                    struct err *e)
{
    struct gguf *g = mem_calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_NO_MEMORY, "%s: no memory", name);
    g->base = data;
    g->size = n;
    return open_common(g, name, ret_gguf, e);
}

void gguf_close(struct gguf *g)
{
    if (!g) return;
    for (uint32_t i = 0; i < g->n_parts; i++)
        gguf_close(g->parts[i]); /* parts have no parts */
    mem_free(g->parts);
    os_map_close(&g->map);
    mem_free(g->keys);
    mem_free(g->tensors);
    mem_free(g->keys_by_name);
    mem_free(g->tensors_by_name);
    mem_free(g->name);
    mem_free(g);
}

const char *gguf_name(const struct gguf *g)
{
    return g->name;
}

static const struct gguf_key *key_find(const struct gguf *g, const char *name)
{
    uint32_t i = find_name(g, key_name, g->keys_by_name, g->n_keys, name);
    return i == UINT32_MAX ? NULL : &g->keys[i];
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return key_find(g, key) != NULL;
}

static int want(const struct gguf *g, const char *name, const struct gguf_key **ret_key,
                struct err *e)
{
    *ret_key = key_find(g, name);
    return *ret_key ? 0
                    : err_set(e, ERR_NOT_FOUND, "%s: metadata key %s is missing", g->name, name);
}

static int wrong_type(const struct gguf *g, const char *name, const char *wanted, struct err *e)
{
    return err_set(e, ERR_BAD_INPUT, "%s: metadata key %s is not %s", g->name, name, wanted);
}

/* An integer of any width and sign as int64; false when it is none, or too large. */
static bool load_int(uint32_t type, const uint8_t *p, int64_t *ret_value)
{
    if (type == VALUE_F32 || type == VALUE_F64 || type == VALUE_BOOL || type == VALUE_TEXT ||
        type == VALUE_ARRAY)
        return false;
    unsigned bytes = value_bytes[type];
    uint64_t v = load_le(p, bytes);
    bool is_signed =
        type == VALUE_I8 || type == VALUE_I16 || type == VALUE_I32 || type == VALUE_I64;
    if (is_signed && bytes < 8 && v >> (8 * bytes - 1)) v |= ~(uint64_t)0 << (8 * bytes);
    if (type == VALUE_U64 && v > INT64_MAX) return false;
    *ret_value = (int64_t)v;
    return true;
}

int gguf_u32(const struct gguf *g, const char *key, uint32_t *ret_value, struct err *e)
{
    const struct gguf_key *k;
    int64_t v;
    int code = want(g, key, &k, e);
    if (code) return code;
    if (!load_int(k->type, k->value, &v) || v < 0 || v > UINT32_MAX)
        return wrong_type(g, key, "a whole number from 0 to 4294967295", e);
    *ret_value = (uint32_t)v;
    return 0;
}

int gguf_f32(const struct gguf *g, const char *key, float *ret_value, struct err *e)
{
    const struct gguf_key *k;
    int code = want(g, key, &k, e);
    if (code) return code;
    if (k->type == VALUE_F32) {
        memcpy(ret_value, k->value, 4);
        return 0;
    }
    if (k->type == VALUE_F64) {
        double v;
        memcpy(&v, k->value, 8);
        *ret_value = (float)v;
        return 0;
    }
    return wrong_type(g, key, "a floating-point number", e);
}

int gguf_bool(const struct gguf *g, const char *key, bool *ret_value, struct err *e)
{
    const struct gguf_key *k;
    int code = want(g, key, &k, e);
    if (code) return code;
    if (k->type != VALUE_BOOL) return wrong_type(g, key, "a bool", e);
    *ret_value = *k->value != 0;
    return 0;
}

int gguf_text(const struct gguf *g, const char *key, struct gguf_str *ret_value, struct err *e)
{
    const struct gguf_key *k;
    int code = want(g, key, &k, e);
    if (code) return code;
    if (k->type != VALUE_TEXT) return wrong_type(g, key, "a string", e);
    *ret_value = (struct gguf_str){(const char *)k->value, (size_t)k->n};
    return 0;
}

int gguf_array(const struct gguf *g, const char *key, struct gguf_array *ret_array, struct err *e)
{
    const struct gguf_key *k;
    int code = want(g, key, &k, e);
    if (code) return code;
    if (k->type != VALUE_ARRAY) return wrong_type(g, key, "an array", e);
    *ret_array = (struct gguf_array){k->array_type, k->n, k->value};
    return 0;
}

int32_t gguf_array_i32(const struct gguf_array *a, uint64_t i)
{
    int64_t v = 0;
    CHECK(i < a->n);
    bool is_int = load_int(a->type, a->data + i * value_bytes[a->type], &v);
    return is_int && v >= INT32_MIN && v <= INT32_MAX ? (int32_t)v : -1;
}

float gguf_array_f32(const struct gguf_array *a, uint64_t i)
{
    float v;
    CHECK(i < a->n && a->type == VALUE_F32);
    memcpy(&v, a->data + i * 4, 4);
    return v;
}

struct gguf_str gguf_array_next_text(const uint8_t **at)
{
    size_t n = (size_t)load_le(*at, 8);
    struct gguf_str s = {(const char *)*at + 8, n};
    *at += 8 + n;
    return s;
}

size_t gguf_key_count(const struct gguf *g)
{
    return g->n_keys;
}

struct gguf_str gguf_key_at(const struct gguf *g, size_t i)
{
    return g->keys[i].name;
}

size_t gguf_tensor_count(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    uint32_t i = find_name(g, tensor_name, g->tensors_by_name, g->n_tensors, name);
    return i == UINT32_MAX ? NULL : &g->tensors[i];
}
