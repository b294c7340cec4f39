/*
 * bench_load: how long a fresh process takes to its first token and how much memory at its peak;
 * see bench_run.h. The process is this program again, so that nothing is warm but the page cache.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "lab/bench_run.h"

enum { LOAD_PROMPT = 16, LOAD_CONTEXT = 4096, ARGS_MAX = 12 };

static int first_token(struct engine *e, struct err *err)
{
    struct session *s;
    int32_t tokens[LOAD_PROMPT];
    int rc = engine_session_open(e, &s, err);
    if (rc < 0) return rc;
    for (int i = 0; i < LOAD_PROMPT; i++)
        tokens[i] = i % (int)engine_info(e)->vocab_size;
    struct engine_span span = {.session = s, .tokens = tokens, .n = LOAD_PROMPT, .sample = true};
    rc = engine_step(e, &span, 1, err);
    engine_session_close(s);
    return rc;
}

int bench_load_child(const struct bench_plan *p, struct err *e)
{
    struct native_options o = p->engine;
    struct engine *engine;
    struct rusage usage;
    o.threads = p->threads.values[0];
    o.context_max = LOAD_CONTEXT;
    int rc = native_open(&o, &engine, e);
    if (rc < 0) return rc;
    rc = first_token(engine, e);
    if (rc == 0 && getrusage(RUSAGE_SELF, &usage) == 0) {
        printf("%ld\n", usage.ru_maxrss);
        fflush(stdout);
    }
    engine_free(engine);
    return rc;
}

static void become_child(const struct bench_plan *p, int out)
{
    char threads[16];
    char *args[ARGS_MAX] = {"pdd",     "bench", "engine",    "--load-child",
                            "--model", NULL,    "--threads", threads};
    snprintf(threads, sizeof threads, "%u", p->threads.values[0]);
    args[5] = (char *)(uintptr_t)p->engine.model_path;
    if (p->engine.isa) {
        args[8] = "--isa";
        args[9] = (char *)(uintptr_t)p->engine.isa;
    }
    if (dup2(out, STDOUT_FILENO) < 0) _exit(1);
    execv("/proc/self/exe", args);
    _exit(1);
}

/* The child's line, and when it came. */
static int read_line(int fd, long *ret_kb, uint64_t *ret_us)
{
    char line[32];
    ssize_t n;
    do
        n = read(fd, line, sizeof line - 1);
    while (n < 0 && errno == EINTR);
    *ret_us = clock_us();
    if (n <= 0) return -1;
    line[n] = 0;
    *ret_kb = strtol(line, NULL, 10);
    return *ret_kb > 0 ? 0 : -1;
}

static int load_once(const struct bench_plan *p, double *ret_ms, double *ret_mb, struct err *e)
{
    int ends[2], status = 0;
    long kb = 0;
    uint64_t start = clock_us(), end = 0;
    if (pipe(ends) < 0) return err_set(e, ERR_IO, "a pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0) become_child(p, ends[1]);
    close(ends[1]);
    int rc = child < 0 ? -1 : read_line(ends[0], &kb, &end);
    close(ends[0]);
    if (child > 0) waitpid(child, &status, 0);
    if (rc < 0) return err_set(e, ERR_IO, "the process that loads the model failed");
    *ret_ms = (double)(end - start) * 1e-3;
    *ret_mb = (double)kb * 1024e-6;
    return 0;
}

int bench_load(const struct bench_plan *p, struct bench_load *ret_load, struct err *e)
{
    struct stat st;
    if (stat(p->engine.model_path, &st) < 0)
        return err_set(e, ERR_IO, "%s: %s", p->engine.model_path, strerror(errno));
    *ret_load = (struct bench_load){.file_bytes = (uint64_t)st.st_size};
    int rc = 0;
    for (uint32_t i = 0; i < p->rounds && rc == 0; i++, ret_load->rounds++)
        rc = load_once(p, &ret_load->ms[i], &ret_load->peak_mb[i], e);
    return rc;
}
