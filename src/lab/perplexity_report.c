/* perplexity_report: what perplexity_run measured; see perplexity.h. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "lab/perplexity.h"

static double mean_of(const struct perplexity_count *c)
{
    return c->nll / (double)c->tokens;
}

static double bits_per_byte(const struct perplexity_count *c)
{
    return c->bytes ? c->nll / M_LN2 / (double)c->bytes : 0.0;
}

static void print_line(const struct perplexity_count *c, const char *name)
{
    printf("%10llu %10llu %9.4f %11.3f %10.4f  %s\n", (unsigned long long)c->tokens,
           (unsigned long long)c->bytes, mean_of(c), exp(mean_of(c)), bits_per_byte(c), name);
}

static json_t *json_count(const struct perplexity_count *c, const char *name)
{
    json_t *o = json_pack("{s:I, s:I, s:f, s:f, s:f}", "tokens", (json_int_t)c->tokens, "bytes",
                          (json_int_t)c->bytes, "nll", mean_of(c), "perplexity", exp(mean_of(c)),
                          "bits_per_byte", bits_per_byte(c));
    if (o && name && json_object_set_new(o, "file", json_string(name)) < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int print_json(const struct perplexity_plan *p, const struct perplexity_result *r,
                      struct err *e)
{
    json_t *files = json_array();
    int bad = files ? 0 : -1;
    for (size_t i = 0; i < p->n_files && bad == 0; i++)
        bad = json_array_append_new(files, json_count(&r->files[i], p->files[i]));
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:o, s:o}", "model", r->model_name, "path",
                  p->engine.model_path, "weights_hash", r->weights_hash, "numerics", r->numerics,
                  "commit", PDD_COMMIT, "context", (json_int_t)r->context, "total",
                  json_count(&r->total, NULL), "files", files);
    if (!all || bad) {
        json_decref(all);
        return err_set(e, ERR_NO_MEMORY, "no memory for the report");
    }
    json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(all);
    return 0;
}

int perplexity_report(const struct perplexity_plan *p, const struct perplexity_result *r,
                      struct err *e)
{
    if (p->json) return print_json(p, r, e);
    printf("%s, weights %.12s, numerics %s, commit %s, windows of %u tokens\n"
           "%10s %10s %9s %11s %10s\n",
           r->model_name, r->weights_hash, r->numerics, PDD_COMMIT, r->context, "tokens", "bytes",
           "nats", "perplexity", "bits/byte");
    for (size_t i = 0; i < p->n_files; i++)
        print_line(&r->files[i], p->files[i]);
    if (p->n_files > 1) print_line(&r->total, "in all");
    return 0;
}
