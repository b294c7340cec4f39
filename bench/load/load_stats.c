/* load_stats: see load_stats.h. */
#include "load/load_stats.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

enum { SAMPLES_FIRST = 1024, PATH_BYTES = 320 };

void samples_add(struct samples *s, double value)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : SAMPLES_FIRST;
        double *more = mem_alloc(cap * sizeof *more);
        CHECK(more);
        if (s->n) memcpy(more, s->values, s->n * sizeof *more);
        mem_free(s->values);
        s->values = more;
        s->cap = cap;
    }
    s->values[s->n++] = value;
}

void samples_release(struct samples *s)
{
    mem_free(s->values);
    *s = (struct samples){0};
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_quantile(struct samples *s, double q)
{
    if (s->n == 0) return 0.0;
    qsort(s->values, s->n, sizeof *s->values, compare);
    size_t i = (size_t)(q * (double)s->n);
    return s->values[i < s->n ? i : s->n - 1];
}

void samples_print(struct samples *s, const char *name, double scale)
{
    double p50 = samples_quantile(s, 0.5); /* sorts */
    double low = s->n ? s->values[0] : 0.0, high = s->n ? s->values[s->n - 1] : 0.0;
    printf("\"%s\":{\"n\":%zu,\"min\":%.3f,\"p50\":%.3f,\"p95\":%.3f,\"p99\":%.3f,\"p999\":%.3f,"
           "\"max\":%.3f}",
           name, s->n, low * scale, p50 * scale, samples_quantile(s, 0.95) * scale,
           samples_quantile(s, 0.99) * scale, samples_quantile(s, 0.999) * scale, high * scale);
}

static double number_in(const char *path, const char *key)
{
    char line[256];
    double value = 0.0;
    FILE *f = fopen(path, "r");
    if (!f) return 0.0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        value = strtod(line + strlen(key), NULL);
        break;
    }
    fclose(f);
    return value;
}

struct process process_of(uint32_t pid)
{
    struct process p = {0};
    char path[PATH_BYTES];
    if (pid == 0) return p;
    snprintf(path, sizeof path, "/proc/%u/status", pid);
    p.rss_kb = number_in(path, "RssAnon:");
    snprintf(path, sizeof path, "/proc/%u/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) return p;
    for (const struct dirent *d; (d = readdir(tasks)) != NULL;) {
        if (d->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%u/task/%s/schedstat", pid, d->d_name);
        p.cpu_us += number_in(path, "") / 1e3; /* its first number: nanoseconds on a CPU */
    }
    closedir(tasks);
    return p;
}
