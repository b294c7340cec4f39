/* load_trace: see load_trace.h. */
#include "load/load_trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

enum { LINE_BYTES = 256, ROWS_FIRST = 1024 };

static void add(struct load_trace *t, uint32_t *cap, struct load_lengths row)
{
    if (t->n == *cap) {
        *cap = *cap ? *cap * 2 : ROWS_FIRST;
        struct load_lengths *more = mem_alloc(*cap * sizeof *more);
        CHECK(more);
        if (t->n) memcpy(more, t->rows, t->n * sizeof *more);
        mem_free(t->rows);
        t->rows = more;
    }
    t->rows[t->n++] = row;
}

int load_trace_read(const char *path, struct load_trace *ret_trace)
{
    char line[LINE_BYTES];
    struct load_trace t = {0};
    uint32_t cap = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *comma = strchr(line, ',');
        unsigned prompt = 0, answer = 0;
        if (comma && sscanf(comma, ",%u,%u", &prompt, &answer) == 2 && prompt && answer)
            add(&t, &cap, (struct load_lengths){prompt, answer});
    }
    if (f) fclose(f);
    *ret_trace = t;
    if (t.n > 0) return 0;
    fprintf(stderr, "bench_cloud: %s: no trace of prompt and answer lengths\n", path);
    return -1;
}

void load_trace_release(struct load_trace *t)
{
    mem_free(t->rows);
}
