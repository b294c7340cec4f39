/* library: see library.h. This file reads the folder; library_record.c has records and locks. */
#include "hub/library.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/os.h"
#include "model/gguf.h"

enum { NEAR_MAX = 3, NEAR_DISTANCE = 3 };

int library_default_dir(char *path, size_t size, struct err *e)
{
    int code = os_user_folder("XDG_DATA_HOME", ".local/share", "pdd/models", path, size);
    if (code == ERR_NOT_FOUND)
        return err_set(e, code,
                       "neither XDG_DATA_HOME nor HOME names a folder for models: set one of them");
    if (code || strlen(path) + REFERENCE_NAME_MAX + 32 >= LIBRARY_PATH_MAX)
        return err_set(e, ERR_LIMIT, "the name of the folder of models is too long");
    return 0;
}

/* ---- what a file says ---- */

/* general.file_type, as llama.cpp numbers the mixes. */
static const struct {
    uint32_t number;
    const char *name;
} file_types[] = {
    {0, "F32"},      {1, "F16"},      {2, "Q4_0"},    {3, "Q4_1"},    {7, "Q8_0"},
    {8, "Q5_0"},     {9, "Q5_1"},     {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"},
    {13, "Q3_K_L"},  {14, "Q4_K_S"},  {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"},
    {18, "Q6_K"},    {19, "IQ2_XXS"}, {20, "IQ2_XS"}, {21, "Q2_K_S"}, {22, "IQ3_XS"},
    {23, "IQ3_XXS"}, {24, "IQ1_S"},   {25, "IQ4_NL"}, {26, "IQ3_S"},  {27, "IQ3_M"},
    {28, "IQ2_S"},   {29, "IQ2_M"},   {30, "IQ4_XS"}, {31, "IQ1_M"},  {32, "BF16"},
    {36, "TQ1_0"},   {37, "TQ2_0"},   {38, "MXFP4"},
};

static uint64_t weights_of(const struct gguf_tensor *t)
{
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

/* Without the key: the type of the largest tensor. */
static void read_type(const struct gguf *g, struct library_model *m)
{
    uint32_t number = 0;
    const struct gguf_tensor *largest = NULL;
    if (gguf_u32(g, "general.file_type", &number, NULL) == 0)
        for (size_t i = 0; i < sizeof file_types / sizeof *file_types; i++)
            if (file_types[i].number == number)
                snprintf(m->type, sizeof m->type, "%s", file_types[i].name);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        m->parameters += weights_of(t);
        if (!largest || weights_of(t) > weights_of(largest)) largest = t;
    }
    if (m->type[0] || !largest) return;
    const struct kern_type_info *info = gguf_type_info(largest->type);
    snprintf(m->type, sizeof m->type, "%s", info ? info->name : "unknown");
}

static void read_facts(struct library_model *m)
{
    struct gguf *g;
    struct gguf_str s = {"", 0};
    char key[128];
    if (gguf_open(m->path, &g, &m->unreadable)) return;
    gguf_text(g, "general.architecture", &s, NULL);
    struct gguf_shown arch = gguf_show(s);
    snprintf(m->architecture, sizeof m->architecture, "%.63s", arch.text);
    snprintf(key, sizeof key, "%.63s.context_length", arch.text);
    gguf_u32(g, key, &m->context, NULL);
    read_type(g, m);
    gguf_close(g);
}

/* ---- the folder ---- */

static int compare(const void *a, const void *b)
{
    const struct library_model *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static struct library_model *model_of(struct library_list *l, const char *name, bool partial)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->models[i].partial == partial && strcmp(l->models[i].name, name) == 0)
            return &l->models[i];
    return NULL;
}

static bool take_end(char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    if (n <= k || strcmp(text + n - k, end) != 0) return false;
    text[n - k] = 0;
    return true;
}

/* One entry of the folder, which may be the file of a model. */
static int take_entry(const char *dir, const char *entry, struct library_list *l, struct err *e)
{
    char file[256], stem[REFERENCE_NAME_MAX + 1], path[LIBRARY_PATH_MAX];
    struct reference_part part = {1, 1, 0, 0, 0};
    struct stat st;
    snprintf(file, sizeof file, "%.255s", entry);
    bool partial = take_end(file, ".part");
    if (!reference_is_file_name(file)) return 0;
    if (snprintf(path, sizeof path, "%s/%s", dir, entry) >= (int)sizeof path) return 0;
    if (stat(path, &st) || !S_ISREG(st.st_mode)) return 0;
    reference_part(file, &part);
    reference_stem(file, stem);
    struct library_model *m = model_of(l, stem, partial);
    if (!m) {
        if (l->n == LIBRARY_MODELS_MAX)
            return err_set(e, ERR_LIMIT, "%s: more than %d models", dir, LIBRARY_MODELS_MAX);
        m = &l->models[l->n++];
        snprintf(m->name, sizeof m->name, "%s", stem);
        m->partial = partial;
    }
    m->bytes += (uint64_t)st.st_size;
    m->parts++;
    if (part.no == 1 || !m->path[0]) memcpy(m->path, path, sizeof path);
    return 0;
}

int library_read(const char *dir, bool facts, struct library_list *ret_list, struct err *e)
{
    struct library_list l = {NULL, 0};
    DIR *d = opendir(dir);
    int code = 0;
    *ret_list = l;
    if (!d && errno == ENOENT) return 0;
    if (!d) return err_set(e, ERR_IO, "%s: %s", dir, strerror(errno));
    l.models = mem_calloc(LIBRARY_MODELS_MAX, sizeof *l.models);
    if (!l.models) code = err_set(e, ERR_NO_MEMORY, "no memory for the list of models");
    for (struct dirent *entry; code == 0 && (entry = readdir(d)) != NULL;)
        code = take_entry(dir, entry->d_name, &l, e);
    closedir(d);
    if (l.n) qsort(l.models, l.n, sizeof *l.models, compare);
    for (uint32_t i = 0; code == 0 && i < l.n; i++) {
        code = library_record_read(dir, l.models[i].name, &l.models[i].record, e);
        if (facts && !l.models[i].partial) read_facts(&l.models[i]);
    }
    if (code)
        library_list_release(&l);
    else
        *ret_list = l;
    return code;
}

void library_list_release(struct library_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        library_record_release(&l->models[i].record);
    mem_free(l->models);
    *l = (struct library_list){NULL, 0};
}

/* ---- names ---- */

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* Levenshtein's distance of two short names, in any case. */
static uint32_t distance(const char *a, const char *b)
{
    uint32_t row[REFERENCE_NAME_MAX + 1];
    size_t n = strlen(b);
    if (n > REFERENCE_NAME_MAX) return UINT32_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = (uint32_t)j;
    for (size_t i = 0; a[i]; i++) {
        uint32_t diagonal = row[0];
        row[0] = (uint32_t)i + 1;
        for (size_t j = 0; j < n; j++) {
            uint32_t change = diagonal + (lower(a[i]) != lower(b[j]));
            uint32_t least = row[j] < row[j + 1] ? row[j] : row[j + 1];
            diagonal = row[j + 1];
            row[j + 1] = change < least + 1 ? change : least + 1;
        }
    }
    return row[n];
}

static bool is_near(const char *asked, const char *name)
{
    size_t n = strlen(asked);
    if (n == 0) return false;
    return strcasestr(name, asked) || strcasestr(asked, name) ||
           distance(asked, name) <= (n / 2 < NEAR_DISTANCE ? n / 2 : NEAR_DISTANCE);
}

static int refuse_name(const struct library_list *l, const char *name, struct err *e)
{
    struct buf names;
    uint32_t near = 0;
    buf_init(&names, NEAR_MAX * (REFERENCE_NAME_MAX + 16));
    for (uint32_t i = 0; i < l->n && near < NEAR_MAX; i++) {
        const struct library_model *m = &l->models[i];
        if (m->partial || !is_near(name, m->name)) continue;
        buf_printf(&names, "%s%.80s", near++ ? ", " : "", m->name);
    }
    if (near)
        err_set(e, ERR_NOT_FOUND, "\"%.120s\" is no file and no model by name; near are %s", name,
                names.data);
    else
        err_set(e, ERR_NOT_FOUND,
                "\"%.120s\" is no file and no model by name: pdd model list shows those, and pdd "
                "model pull URL or hf:OWNER/NAME gets one",
                name);
    buf_release(&names);
    return ERR_NOT_FOUND;
}

static bool is_called(const struct library_model *m, const char *name)
{
    const char *slash = strrchr(m->path, '/');
    const struct library_record *r = &m->record;
    return strcmp(m->name, name) == 0 || strcmp(slash ? slash + 1 : m->path, name) == 0 ||
           (r->from[0] && strcmp(r->from, name) == 0) ||
           (r->asked[0] && strcmp(r->asked, name) == 0);
}

int library_find(const char *dir, const char *name, char *path, size_t size, struct err *e)
{
    struct library_list l;
    int code = library_read(dir, false, &l, e);
    if (code) return code;
    code = ERR_NOT_FOUND;
    for (uint32_t i = 0; i < l.n && code; i++) {
        const struct library_model *m = &l.models[i];
        if (m->partial || !is_called(m, name)) continue;
        int n = snprintf(path, size, "%s", m->path);
        code = n >= 0 && (size_t)n < size ? 0 : ERR_LIMIT;
        if (code) err_set(e, code, "%.100s...: path too long", m->path);
    }
    for (uint32_t i = 0; i < l.n && code == ERR_NOT_FOUND; i++)
        if (l.models[i].partial && is_called(&l.models[i], name))
            code = err_set(e, ERR_BUSY,
                           "\"%.120s\" is not complete: the same pdd model pull goes on with it",
                           name);
    if (code == ERR_NOT_FOUND) refuse_name(&l, name, e);
    library_list_release(&l);
    return code;
}

int library_find_only(const char *dir, char *path, size_t size, struct err *e)
{
    struct library_list l;
    struct buf names;
    uint32_t found = 0;
    int code = library_read(dir, false, &l, e);
    if (code) return code;
    buf_init(&names, ERR_TEXT_MAX);
    for (uint32_t i = 0; i < l.n; i++) {
        if (l.models[i].partial) continue;
        buf_printf(&names, "%s%.80s", found++ ? ", " : "", l.models[i].name);
        if (found == 1) snprintf(path, size, "%s", l.models[i].path);
    }
    if (found == 0)
        code = err_set(e, ERR_NOT_FOUND, "no model has been pulled");
    else if (found > 1)
        code = err_set(e, ERR_NOT_FOUND, "several models have been pulled: %.300s", names.data);
    buf_release(&names);
    library_list_release(&l);
    return code;
}

/* ---- removing ---- */

/* FILE, FILE.part and FILE.part.json of each part; the record by its own name. */
static bool belongs(const char *entry, const char *name)
{
    char file[256], stem[REFERENCE_NAME_MAX + 1];
    if (strlen(entry) >= sizeof file) return false;
    snprintf(file, sizeof file, "%s", entry);
    if (!take_end(file, ".part.json")) take_end(file, ".part");
    if (!reference_is_file_name(file)) return false;
    reference_stem(file, stem);
    return strcmp(stem, name) == 0;
}

static int remove_entry(int folder, const char *dir, const char *entry, uint64_t *freed,
                        struct err *e)
{
    struct stat st;
    if (fstatat(folder, entry, &st, AT_SYMLINK_NOFOLLOW)) return 0;
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) return 0;
    if (unlinkat(folder, entry, 0))
        return err_set(e, ERR_IO, "%s/%s: %s", dir, entry, strerror(errno));
    *freed += S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    return 0;
}

/* The record goes first: what a crash leaves is not taken for a whole model. */
static int remove_files(const char *dir, const char *name, uint64_t *freed, struct err *e)
{
    char record[REFERENCE_NAME_MAX + 8];
    DIR *d = opendir(dir);
    if (!d) return err_set(e, ERR_IO, "%s: %s", dir, strerror(errno));
    snprintf(record, sizeof record, "%s.json", name);
    int code = remove_entry(dirfd(d), dir, record, freed, e);
    for (struct dirent *entry; code == 0 && (entry = readdir(d)) != NULL;)
        if (belongs(entry->d_name, name))
            code = remove_entry(dirfd(d), dir, entry->d_name, freed, e);
    closedir(d);
    return code;
}

void library_drop(const char *dir, const char *name)
{
    uint64_t freed = 0;
    remove_files(dir, name, &freed, NULL);
}

int library_remove(const char *dir, const char *name, uint64_t *ret_bytes, struct err *e)
{
    struct library_list l;
    char exact[REFERENCE_NAME_MAX + 1] = "";
    int fd;
    if (strncmp(name, "hf:", 3) != 0 && strchr(name, '/'))
        return err_set(e, ERR_BAD_INPUT,
                       "\"%.150s\" is a path; only models of %.200s are removed, by name", name,
                       dir);
    int code = library_read(dir, false, &l, e);
    if (code) return code;
    for (uint32_t i = 0; i < l.n && !exact[0]; i++)
        if (is_called(&l.models[i], name)) memcpy(exact, l.models[i].name, sizeof exact);
    if (!exact[0]) refuse_name(&l, name, e);
    library_list_release(&l);
    if (!exact[0]) return ERR_NOT_FOUND;
    if ((code = library_lock(dir, exact, &fd, e)) != 0) return code;
    *ret_bytes = 0;
    code = remove_files(dir, exact, ret_bytes, e);
    library_unlock(dir, exact, fd);
    return code;
}
