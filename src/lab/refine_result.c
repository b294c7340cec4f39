/* refine_result: see refine_result.h. */
#include "lab/refine_result.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/os.h"
#include "base/utf8.h"

enum { RESULTS_MAX = 1 << 30, KEY_MAX = 256 };

static void key_of(char key[KEY_MAX], const char *set, uint32_t document, uint32_t question)
{
    snprintf(key, KEY_MAX, "%u %u %s", document, question, set);
}

/* ---- what the file has ---- */

static int note_line(struct refine_results *r, const char *text, size_t n, uint32_t number,
                     struct err *e)
{
    const char *set, *weights;
    int document, question;
    char key[KEY_MAX];
    json_t *line = json_loadb(text, n, 0, NULL);
    int code = 0;
    if (line && json_unpack(line, "{s:{s:s}}", "about", "weights", &weights) == 0)
        snprintf(r->weights, sizeof r->weights, "%s", weights);
    else if (!line || json_unpack(line, "{s:s, s:i, s:i}", "set", &set, "document", &document,
                                  "question", &question))
        code = err_set(e, ERR_BAD_INPUT, "%s:%u is no result: name another file with --out",
                       r->path, number);
    else {
        key_of(key, set, (uint32_t)document, (uint32_t)question);
        if (json_object_set_new(r->had, key, json_true()))
            code = err_set(e, ERR_NO_MEMORY, "no memory for the results of %s", r->path);
    }
    json_decref(line);
    return code;
}

/* Returns in *ret_end where the last whole line ends. */
static int note_lines(struct refine_results *r, size_t *ret_end, struct err *e)
{
    struct buf text;
    buf_init(&text, RESULTS_MAX);
    int code = os_read_file(r->path, &text, e);
    const char *at = text.data, *end;
    uint32_t number = 1;
    for (; code == 0 && (end = memchr(at, '\n', text.len - (size_t)(at - text.data))) != NULL;
         at = end + 1)
        code = note_line(r, at, (size_t)(end - at), number++, e);
    *ret_end = (size_t)(at - text.data);
    buf_release(&text);
    return code;
}

int refine_results_open(const char *path, struct refine_results *ret_results, struct err *e)
{
    struct refine_results r = {.path = path, .had = json_object()};
    size_t end = 0;
    int code = r.had ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for results");
    if (code == 0 && path && access(path, F_OK) == 0) code = note_lines(&r, &end, e);
    if (code == 0 && path) {
        r.file = fopen(path, "a");
        if (!r.file || ftruncate(fileno(r.file), (off_t)end))
            code = err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    }
    if (code)
        refine_results_close(&r);
    else
        *ret_results = r;
    return code;
}

int refine_results_about(struct refine_results *r, const struct engine_info *info, struct err *e)
{
    if (r->weights[0] && strcmp(r->weights, info->weights_hash) != 0)
        return err_set(e, ERR_BAD_INPUT,
                       "%s has results of other weights (%.16s) than those of model %s (%.16s): "
                       "name another file with --out",
                       r->path, r->weights, info->model_name, info->weights_hash);
    if (r->weights[0]) return 0;
    json_t *line =
        json_pack("{s:{s:s, s:s, s:s, s:s}}", "about", "model", info->model_name, "weights",
                  info->weights_hash, "numerics", info->numerics, "commit", PDD_COMMIT);
    if (!line) return err_set(e, ERR_NO_MEMORY, "no memory for results");
    return refine_result_end(r, line, e);
}

void refine_results_close(struct refine_results *r)
{
    if (r->file) fclose(r->file);
    json_decref(r->had);
    *r = (struct refine_results){0};
}

bool refine_results_have(const struct refine_results *r, const struct refine_document *d,
                         uint32_t question)
{
    char key[KEY_MAX];
    key_of(key, d->set, d->number, question);
    return json_object_get(r->had, key) != NULL;
}

/* ---- a line ---- */

/* An answer may end inside a character. */
static json_t *json_answer(const struct refine_answer *a)
{
    return json_stringn(a->text, utf8_valid_prefix(a->text, a->len));
}

json_t *refine_result_begin(const struct refine_document *d, uint32_t question,
                            const struct refine_question *q, uint32_t tokens,
                            const struct refine_answer *whole)
{
    json_t *accepted = json_array();
    for (uint32_t i = 0; i < q->n_accepted; i++)
        if (json_array_append_new(accepted, json_string(q->accepted[i]))) {
            json_decref(accepted);
            return NULL;
        }
    json_t *line = json_pack("{s:s, s:i, s:i, s:s, s:s, s:o, s:i, s:[]}", "set", d->set, "document",
                             (int)d->number, "question", (int)question, "kind", q->kind, "label",
                             q->label, "accepted", accepted, "tokens", (int)tokens, "runs");
    if (line && whole &&
        json_object_set_new(line, "whole",
                            json_pack("{s:o, s:b, s:f}", "answer", json_answer(whole), "ended",
                                      whole->ended, "ms", whole->ms))) {
        json_decref(line);
        return NULL;
    }
    return line;
}

void refine_result_drop(json_t *line)
{
    json_decref(line);
}

int refine_result_run(json_t *line, const struct refine_run *run)
{
    const struct keep_choice *c = &run->choice;
    json_t *o = json_pack("{s:s, s:f, s:s, s:i, s:f, s:f, s:b}", "method", run->method, "ratio",
                          (double)run->ratio, "refusal", keep_refusal_name(c->refusal), "kept",
                          (int)c->tokens, "coverage", (double)c->coverage, "peak",
                          (double)run->peak, "has", run->has);
    int bad = o ? 0 : -1;
    if (bad == 0 && run->answer)
        bad = json_object_set_new(o, "answer", json_answer(run->answer)) ||
              json_object_set_new(o, "ended", json_boolean(run->answer->ended)) ||
              json_object_set_new(o, "ms", json_real(run->answer->ms));
    if (bad) {
        json_decref(o);
        return ERR_NO_MEMORY;
    }
    return json_array_append_new(json_object_get(line, "runs"), o) ? ERR_NO_MEMORY : 0;
}

int refine_result_end(struct refine_results *r, json_t *line, struct err *e)
{
    FILE *to = r->file ? r->file : stdout;
    int bad = json_dumpf(line, to, JSON_COMPACT | JSON_REAL_PRECISION(7));
    json_decref(line);
    if (bad || fputc('\n', to) == EOF || fflush(to))
        return err_set(e, ERR_IO, "%s: %s", r->path ? r->path : "standard output", strerror(errno));
    return 0;
}
