/* bench_report: see bench_report.h. */
#include "lab/bench_report.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/os.h"

enum { CPU_NAME_MAX = 128 };
static const char *const kind_names[] = {"prefill", "decode", "mixed", "fill"};

/* What of a sample a number is made of. */
typedef double sample_fn(const struct bench_case *c, const struct bench_sample *s);

static double tokens_per_s(const struct bench_case *c, const struct bench_sample *s)
{
    return (double)c->tokens / s->us * 1e6;
}

static double gops(const struct bench_case *c, const struct bench_sample *s)
{
    return c->operations / s->us * 1e-3;
}

static double gbs(const struct bench_case *c, const struct bench_sample *s)
{
    return c->bytes / s->us * 1e-3;
}

static double peak_gops(const struct bench_case *c, const struct bench_sample *s)
{
    (void)c;
    return s->peak_gops;
}

static double vnni_gops(const struct bench_case *c, const struct bench_sample *s)
{
    (void)c;
    return s->vnni_gops;
}

static double read_gbs(const struct bench_case *c, const struct bench_sample *s)
{
    (void)c;
    return s->read_gbs;
}

static double gops_part(const struct bench_case *c, const struct bench_sample *s)
{
    return s->peak_gops > 0 ? gops(c, s) / s->peak_gops : 0.0;
}

static double vnni_part(const struct bench_case *c, const struct bench_sample *s)
{
    return s->vnni_gops > 0 ? gops(c, s) / s->vnni_gops : 0.0;
}

static double gbs_part(const struct bench_case *c, const struct bench_sample *s)
{
    return s->read_gbs > 0 ? gbs(c, s) / s->read_gbs : 0.0;
}

static double milliseconds(const struct bench_case *c, const struct bench_sample *s)
{
    (void)c;
    return s->us * 1e-3;
}

static double milliseconds_alone(const struct bench_case *c, const struct bench_sample *s)
{
    (void)c;
    return s->us_alone * 1e-3;
}

static double us_per_row(const struct bench_case *c, const struct bench_sample *s)
{
    return (s->us - s->us_alone) / c->n;
}

static double mj_per_token(const struct bench_case *c, const struct bench_sample *s)
{
    return s->joules * 1e3 / (double)c->tokens;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(const double *values, uint32_t n)
{
    double sorted[BENCH_ROUNDS_MAX];
    if (n == 0) return 0.0;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static double median(const struct bench_case *c, sample_fn *fn)
{
    double values[BENCH_ROUNDS_MAX];
    for (uint32_t i = 0; i < c->rounds; i++)
        values[i] = fn(c, &c->samples[i]);
    return median_of(values, c->rounds);
}

static double most(const struct bench_case *c, sample_fn *fn)
{
    double best = 0.0;
    for (uint32_t i = 0; i < c->rounds; i++) {
        double v = fn(c, &c->samples[i]);
        best = v > best ? v : best;
    }
    return best;
}

/* ---- table ---- */

static void print_case(const struct bench_case *c)
{
    printf("%-8s %7u %7u %7u %10.1f %10.1f", kind_names[c->kind], c->threads, c->depth, c->n,
           median(c, tokens_per_s), most(c, tokens_per_s));
    printf(" %8.0f %4.0f %% %4.0f %%", median(c, gops), median(c, gops_part) * 100,
           median(c, vnni_part) * 100);
    if (c->kind == BENCH_DECODE)
        printf(" %8.1f %4.0f %%", median(c, gbs), median(c, gbs_part) * 100);
    if (median(c, mj_per_token) > 0.0) printf("   %.1f mJ a token", median(c, mj_per_token));
    if (c->kind == BENCH_MIXED)
        printf("   step %.1f ms, chunk alone %.1f ms: %.0f us a decode row",
               median(c, milliseconds), median(c, milliseconds_alone), median(c, us_per_row));
    putchar('\n');
}

static void print_load(const struct bench_load *l)
{
    double file = (double)l->file_bytes * 1e-6, peak = median_of(l->peak_mb, l->rounds);
    printf("first token of a fresh process: %.0f ms; peak memory %.0f MB, %.2f x the file's %.0f\n",
           median_of(l->ms, l->rounds), peak, peak / file, file);
}

static void print_table(const struct bench_plan *p, const struct bench_result *r,
                        const struct bench_load *load)
{
    if (load) print_load(load);
    if (r->n == 0) return;
    printf("%s, kernels %s, KV %s, commit %s, medians of %u rounds, chunks of %u, answers of %u\n",
           r->model_name, r->isa, r->kv_type, PDD_COMMIT, p->rounds, p->chunk, p->generate);
    if (r->energy != ENERGY_NONE)
        printf("energy: %s, idle or not\n", energy_source_text(r->energy));
    uint32_t threads = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct bench_case *c = &r->cases[i];
        if (c->threads != threads)
            printf("roofs, %u threads: int8 %.0f GOPS (%s), %.0f (512-bit VNNI), read %.1f GB/s\n"
                   "%-8s %7s %7s %7s %10s %10s %8s %6s %6s %8s %6s\n",
                   c->threads, median(c, peak_gops), r->isa, median(c, vnni_gops),
                   median(c, read_gbs), "", "threads", "depth", "n", "tok/s", "best", "GOPS",
                   "roof", "VNNI", "GB/s", "roof");
        threads = c->threads;
        print_case(c);
    }
}

/* ---- JSON ---- */

static void cpu_name(char out[CPU_NAME_MAX])
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, CPU_NAME_MAX, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(out, CPU_NAME_MAX, "%.100s", colon + 2);
        break;
    }
    if (f) fclose(f);
}

static json_t *json_machine(void)
{
    struct utsname u;
    char cpu[CPU_NAME_MAX];
    cpu_name(cpu);
    if (uname(&u) < 0) return json_null();
    return json_pack("{s:s, s:I, s:s, s:s}", "cpu", cpu, "cpus", (json_int_t)os_cpu_count(),
                     "system", u.release, "arch", u.machine);
}

static json_t *json_case(const struct bench_case *c)
{
    json_t *us = json_array();
    for (uint32_t i = 0; us && i < c->rounds; i++)
        json_array_append_new(us, json_real(c->samples[i].us));
    json_t *o =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "kind",
                  kind_names[c->kind], "threads", (json_int_t)c->threads, "depth",
                  (json_int_t)c->depth, "n", (json_int_t)c->n, "tokens", (json_int_t)c->tokens,
                  "tps", median(c, tokens_per_s), "tps_best", most(c, tokens_per_s), "gops",
                  median(c, gops), "gops_part", median(c, gops_part), "gops_part_vnni",
                  median(c, vnni_part), "peak_gops", median(c, peak_gops), "peak_gops_vnni",
                  median(c, vnni_gops), "peak_read_gbs", median(c, read_gbs), "us", us);
    if (o && median(c, mj_per_token) > 0.0)
        json_object_set_new(o, "mj_per_token", json_real(median(c, mj_per_token)));
    if (o && c->kind == BENCH_DECODE) {
        json_object_set_new(o, "gbs", json_real(median(c, gbs)));
        json_object_set_new(o, "gbs_part", json_real(median(c, gbs_part)));
    }
    if (o && c->kind == BENCH_MIXED) {
        json_object_set_new(o, "step_ms", json_real(median(c, milliseconds)));
        json_object_set_new(o, "chunk_alone_ms", json_real(median(c, milliseconds_alone)));
        json_object_set_new(o, "us_per_row", json_real(median(c, us_per_row)));
    }
    return o;
}

static json_t *json_load(const struct bench_load *l)
{
    if (!l) return json_null();
    double file = (double)l->file_bytes * 1e-6, peak = median_of(l->peak_mb, l->rounds);
    return json_pack("{s:f, s:f, s:f, s:f}", "first_token_ms", median_of(l->ms, l->rounds),
                     "peak_mb", peak, "file_mb", file, "peak_over_file", peak / file);
}

static int print_json(const struct bench_plan *p, const struct bench_result *r,
                      const struct bench_load *load, struct err *e)
{
    json_t *cases = json_array();
    for (uint32_t i = 0; cases && i < r->n; i++)
        json_array_append_new(cases, json_case(&r->cases[i]));
    json_t *all = json_pack(
        "{s:o, s:s, s:s, s:s, s:s, s:s, s:{s:f, s:f, s:f, s:f, s:f}, s:I, s:I, s:I, s:o, s:o}",
        "machine", json_machine(), "commit", PDD_COMMIT, "isa", r->isa ? r->isa : "", "kv_type",
        r->kv_type ? r->kv_type : "", "model", r->model_name, "file", p->engine.model_path, "work",
        "layer_weights", r->work.layer_weights, "head_weights", r->work.head_weights, "layer_bytes",
        r->work.layer_bytes, "head_bytes", r->work.head_bytes, "kv_bytes_per_token",
        r->work.kv_bytes, "rounds", (json_int_t)p->rounds, "chunk", (json_int_t)p->chunk,
        "generate", (json_int_t)p->generate, "load", json_load(load), "cases", cases);
    if (!all) return err_set(e, ERR_NO_MEMORY, "no memory for the report");
    if (r->energy != ENERGY_NONE)
        json_object_set_new(all, "energy", json_string(energy_source_text(r->energy)));
    json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(10));
    putchar('\n');
    json_decref(all);
    return 0;
}

int bench_report(const struct bench_plan *p, const struct bench_result *r,
                 const struct bench_load *load, struct err *e)
{
    if (p->json) return print_json(p, r, load, e);
    print_table(p, r, load);
    return 0;
}
