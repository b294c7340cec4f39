/* refine_set: see refine_set.h. */
#include "lab/refine_set.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "lab/refine.h"

/* ---- one line ---- */

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* NULL, or what is wrong with a question. */
static const char *question_fault(const json_t *q)
{
    const json_t *accepted = json_object_get(q, "accepted"), *kind = json_object_get(q, "kind"),
                 *label = json_object_get(q, "label");
    if (!text_of(q, "text")) return "a question without \"text\"";
    if (!json_is_array(accepted)) return "a question without \"accepted\", an array of texts";
    for (size_t i = 0; i < json_array_size(accepted); i++)
        if (!json_is_string(json_array_get(accepted, i)))
            return "\"accepted\" holds something that is no text";
    if ((kind && !json_is_string(kind)) || (label && !json_is_string(label)))
        return "\"kind\" and \"label\" are texts";
    return NULL;
}

static const char *document_fault(const json_t *line)
{
    const json_t *questions = json_object_get(line, "questions");
    if (!text_of(line, "set")) return "a document without \"set\", a text";
    if (!text_of(line, "text")) return "a document without \"text\"";
    if (!json_is_array(questions)) return "a document without \"questions\", an array";
    for (size_t i = 0; i < json_array_size(questions); i++) {
        const char *fault = question_fault(json_array_get(questions, i));
        if (fault) return fault;
    }
    return NULL;
}

static int read_line(const char *path, uint32_t number, const char *text, size_t n,
                     struct refine_document *ret_document, struct err *e)
{
    json_error_t why;
    json_t *line = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    const char *fault = line ? document_fault(line) : why.text;
    if (fault) {
        json_decref(line);
        return err_set(e, ERR_BAD_INPUT, "%s:%u: %s", path, number, fault);
    }
    *ret_document = (struct refine_document){
        .set = text_of(line, "set"),
        .text = text_of(line, "text"),
        .n_questions = (uint32_t)json_array_size(json_object_get(line, "questions")),
        .line = line};
    return 0;
}

void refine_set_question(const struct refine_document *d, uint32_t i,
                         struct refine_question *ret_question)
{
    const json_t *q = json_array_get(json_object_get(d->line, "questions"), i);
    const json_t *accepted = json_object_get(q, "accepted");
    const char *kind = text_of(q, "kind"), *label = text_of(q, "label");
    struct refine_question *r = ret_question;
    r->text = text_of(q, "text");
    r->kind = kind ? kind : "";
    r->label = label ? label : "";
    r->n_accepted = 0;
    for (size_t k = 0; k < json_array_size(accepted) && k < REFINE_ACCEPTED_MAX; k++)
        r->accepted[r->n_accepted++] = json_string_value(json_array_get(accepted, k));
}

/* ---- files ---- */

static int add_line(struct refine_sets *s, const char *path, uint32_t number, const char *text,
                    size_t n, struct err *e)
{
    struct refine_document *d;
    if (s->n == REFINE_DOCUMENTS_MAX)
        return err_set(e, ERR_LIMIT, "%s:%u: more than %d documents", path, number,
                       REFINE_DOCUMENTS_MAX);
    if ((s->n & (s->n - 1)) == 0) { /* full: room for 1, 2, 4, ... */
        d = mem_realloc(s->documents, sizeof *d * (s->n ? 2 * (size_t)s->n : 1));
        if (!d) return err_set(e, ERR_NO_MEMORY, "%s: no memory for its documents", path);
        s->documents = d;
    }
    int code = read_line(path, number, text, n, &s->documents[s->n], e);
    s->n += code == 0;
    return code;
}

static int read_file(struct refine_sets *s, const char *path, struct err *e)
{
    struct buf text;
    buf_init(&text, REFINE_SET_BYTES_MAX);
    int code = os_read_file(path, &text, e);
    uint32_t number = 1;
    for (size_t at = 0; at < text.len && code == 0; number++) {
        const char *line = text.data + at, *end = memchr(line, '\n', text.len - at);
        size_t n = end ? (size_t)(end - line) : text.len - at;
        if (n > 0) code = add_line(s, path, number, line, n, e);
        at += n + 1;
    }
    buf_release(&text);
    return code;
}

/* The document of the same set in front of document i; i: there is none. */
static uint32_t one_before(const struct refine_sets *s, uint32_t i)
{
    for (uint32_t k = i; k-- > 0;)
        if (strcmp(s->documents[k].set, s->documents[i].set) == 0) return k;
    return i;
}

/* Documents of a set are numbered in the order of the files. Sets stand together, so that looking
 * back is short. */
static void number_documents(struct refine_sets *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        struct refine_document *d = &s->documents[i], *before = &s->documents[one_before(s, i)];
        if (before == d) continue;
        d->number = before->number + 1;
        d->before = before->before + before->n_questions;
    }
    for (uint32_t i = s->n; i-- > 0;) {
        struct refine_document *d = &s->documents[i], *before = &s->documents[one_before(s, i)];
        if (d->of == 0) d->of = d->before + d->n_questions; /* the last of its set */
        before->of = d->of;
    }
}

static int by_share(const void *a, const void *b)
{
    const struct refine_document *x = a, *y = b;
    uint64_t left = (uint64_t)x->before * y->of, right = (uint64_t)y->before * x->of;
    if (left != right) return left < right ? -1 : 1;
    return strcmp(x->set, y->set);
}

int refine_sets_open(const char *const *paths, size_t n_paths, struct refine_sets *ret_sets,
                     struct err *e)
{
    struct refine_sets s = {0};
    int code = 0;
    for (size_t i = 0; i < n_paths && code == 0; i++)
        code = read_file(&s, paths[i], e);
    if (code) {
        refine_sets_close(&s);
        return code;
    }
    number_documents(&s);
    if (s.n) qsort(s.documents, s.n, sizeof *s.documents, by_share);
    *ret_sets = s;
    return 0;
}

void refine_sets_close(struct refine_sets *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        json_decref(s->documents[i].line);
    mem_free(s->documents);
    *s = (struct refine_sets){0};
}
