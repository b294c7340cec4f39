/* model_file: see model_file.h. */
#include "cli/model_file.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub/library.h"
#include "model/gguf.h"

/* The largest model of one folder goes to `path`; false when there is none. Of equals the first by
 * name. */
static bool largest(const char *folder, char *path, size_t size)
{
    DIR *d = opendir(folder);
    off_t best = 0;
    bool any = false;
    if (!d) return false;
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        char candidate[MODEL_FILE_PATH_MAX];
        struct stat st;
        size_t n = strlen(entry->d_name);
        if (n < 6 || strcmp(entry->d_name + n - 5, ".gguf") != 0) continue;
        if (gguf_is_later_part(entry->d_name)) continue;
        int len = snprintf(candidate, sizeof candidate, "%s/%s", folder, entry->d_name);
        if (len < 0 || (size_t)len >= sizeof candidate || (size_t)len >= size) continue;
        if (stat(candidate, &st) || !S_ISREG(st.st_mode)) continue;
        bool better = st.st_size > best || (st.st_size == best && strcmp(candidate, path) < 0);
        if (any && !better) continue;
        any = true;
        best = st.st_size;
        snprintf(path, size, "%s", candidate);
    }
    closedir(d);
    return any;
}

bool model_file_above(int up, char *folder, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", folder, size - 1);
    folder[n > 0 ? n : 0] = '\0';
    for (int i = 0; i <= up; i++) {
        char *slash = strrchr(folder, '/');
        if (!slash) return false;
        *slash = '\0';
    }
    return true;
}

int model_file_find(char *path, size_t size, struct err *e)
{
    char program[MODEL_FILE_PATH_MAX - 16], folder[MODEL_FILE_PATH_MAX];
    static const char *const places[] = {"models", "share/pdd/models"};
    for (int up = 0; up <= MODEL_FILE_FOLDERS_UP && model_file_above(up, program, sizeof program);
         up++)
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            int len = snprintf(folder, sizeof folder, "%s/%s", program, places[i]);
            if (len > 0 && (size_t)len < sizeof folder && largest(folder, path, size)) return 0;
        }
    struct err none = ERR_INIT;
    if (library_default_dir(folder, sizeof folder, &none) == 0 &&
        library_find_only(folder, path, size, &none) == 0)
        return 0;
    return err_set(e, ERR_NOT_FOUND,
                   "no *.gguf in models/ or share/pdd/models/ beside the program or above it, and "
                   "%.200s: name one with --model, or install the package pdd-models",
                   none.text);
}

/* A path that is not there, rather than a name. */
static bool looks_like_path(const char *text)
{
    size_t n = strlen(text);
    return strncmp(text, "hf:", 3) != 0 && !strstr(text, "://") &&
           (strchr(text, '/') || (n > 5 && strcmp(text + n - 5, ".gguf") == 0));
}

int model_file_resolve(const char **model_path, char path[MODEL_FILE_PATH_MAX], struct err *e)
{
    struct stat st;
    char folder[MODEL_FILE_PATH_MAX];
    const char *asked = *model_path;
    bool there = asked && stat(asked, &st) == 0;
    if (!asked || (there && !S_ISDIR(st.st_mode))) return 0;
    int code = library_default_dir(folder, sizeof folder, e);
    if (code && !there) return err_set(e, ERR_NOT_FOUND, "%.300s: there is no such file", asked);
    if (code == 0) code = library_find(folder, asked, path, MODEL_FILE_PATH_MAX, e);
    if (code == 0)
        *model_path = path;
    else if (there) /* a folder: its reader says so */
        code = 0;
    else if (code == ERR_NOT_FOUND && looks_like_path(asked))
        err_set(e, code, "%.300s: there is no such file, and no model of that name", asked);
    return code;
}

int model_file_default(const char **model_path, char path[MODEL_FILE_PATH_MAX], struct err *e)
{
    if (*model_path) return model_file_resolve(model_path, path, e);
    *model_path = path;
    return model_file_find(path, MODEL_FILE_PATH_MAX, e);
}
