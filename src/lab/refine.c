/* refine: see refine.h. Asks; what is kept is decided by policy/keep, scores by refine_method.c. */
#include "lab/refine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "lab/refine_method.h"
#include "lab/refine_prompt.h"
#include "lab/refine_result.h"
#include "lab/refine_set.h"
#include "policy/relevance.h"

enum { ANSWER_QUERIES = 8, ANSWER_BYTES_MAX = 1 << 16, SAY_US = 10000000, MINUTE_US = 60000000 };

/* A method at a ratio. */
struct cell {
    const struct refine_method *method;
    float ratio;
};

struct refine {
    const struct refine_plan *p;
    struct engine *engine;
    struct session *whole, *part; /* of the whole prompt, and of what is kept */
    struct refine_results results;
    struct refine_prompt prompt;
    struct cell cells[REFINE_RUNS_MAX];
    uint32_t n_cells;
    uint32_t cap; /* room in the arrays below */
    float *window, *attention, *scores, *work;
    uint8_t *kept;
    int32_t *kept_ids;
    struct buf whole_answer, part_answer, kept_text;
    uint64_t begun, said; /* clock_us */
    uint32_t asked, had, computed;
    struct err *e;
};

/* ---- the engine ---- */

/* Append tokens; returns what follows the last one. */
static int append(struct refine *x, struct session *s, const int32_t *ids, uint32_t n,
                  int32_t *ret_next)
{
    const uint32_t most = engine_info(x->engine)->step_tokens_max;
    for (uint32_t at = 0; at < n;) {
        struct engine_span span = {.session = s,
                                   .tokens = ids + at,
                                   .n = n - at < most ? n - at : most,
                                   .sample = n - at <= most};
        int code = engine_step(x->engine, &span, 1, x->e);
        if (code) return code;
        at += span.n;
        *ret_next = span.next;
    }
    return 0;
}

/* Write the answer that begins with `next`. `queries`: copy the scores once that many tokens of it
 * have asked, or all that there are. */
static int write_answer(struct refine *x, struct session *s, int32_t next, bool queries,
                        struct buf *out, bool *ret_ended)
{
    const struct vocab *v = engine_vocab(x->engine);
    const size_t scores = x->prompt.tokens.len * sizeof(float);
    buf_clear(out);
    *ret_ended = false;
    for (uint32_t i = 0; i < REFINE_ANSWER_TOKENS; i++) {
        if (queries && i <= ANSWER_QUERIES) memcpy(x->attention, session_scores(s), scores);
        *ret_ended = vocab_is_end(v, next);
        if (*ret_ended || (x->p->no_answers && i == ANSWER_QUERIES)) break;
        int code = vocab_piece(v, next, false, out);
        if (code) return err_set(x->e, code, "no memory for an answer");
        code = append(x, s, &next, 1, &next);
        if (code) return code;
    }
    return 0;
}

static uint32_t common_prefix(const struct session *s, const struct token_list *t)
{
    const int32_t *tokens = session_tokens(s);
    uint32_t n = 0;
    while (n < session_len(s) && n < t->len && tokens[n] == t->ids[n])
        n++;
    return n;
}

/* The answer from the whole prompt, and the scores that its prefill makes. */
static int ask_whole(struct refine *x, struct refine_answer *ret_answer)
{
    const struct token_list *t = &x->prompt.tokens;
    uint32_t from = common_prefix(x->whole, t), least = engine_score_from(t->len, t->len);
    uint64_t begin = clock_us();
    int32_t next = 0;
    if (from > least) from = least;
    session_cut(x->whole, from);
    int code = session_score(x->whole, least, t->len, x->e);
    if (code == 0) code = append(x, x->whole, t->ids + from, t->len - from, &next);
    if (code) return code;
    double ms = from == 0 ? (double)(clock_us() - begin) / 1000.0 : 0.0;
    x->computed += t->len - from;
    memcpy(x->window, session_scores(x->whole), t->len * sizeof *x->window);
    bool ended;
    code = write_answer(x, x->whole, next, true, &x->whole_answer, &ended);
    *ret_answer = (struct refine_answer){x->whole_answer.data, x->whole_answer.len, ended, ms};
    return code;
}

static int ask_part(struct refine *x, struct refine_answer *ret_answer)
{
    uint64_t begin = clock_us();
    uint32_t n = 0;
    int32_t next = 0;
    for (uint32_t i = 0; i < x->prompt.tokens.len; i++)
        if (x->kept[i / 8] >> (i % 8) & 1) x->kept_ids[n++] = x->prompt.tokens.ids[i];
    session_cut(x->part, 0);
    int code = append(x, x->part, x->kept_ids, n, &next);
    if (code) return code;
    double ms = (double)(clock_us() - begin) / 1000.0;
    x->computed += n;
    bool ended;
    code = write_answer(x, x->part, next, false, &x->part_answer, &ended);
    *ret_answer = (struct refine_answer){x->part_answer.data, x->part_answer.len, ended, ms};
    return code;
}

/* ---- a question ---- */

static int make_room(struct refine *x)
{
    const uint32_t n = x->prompt.tokens.len;
    if (n <= x->cap) return 0;
    float **const arrays[] = {&x->window, &x->attention, &x->scores, &x->work};
    bool all = true;
    for (int i = 0; i < 4; i++) {
        mem_free(*arrays[i]);
        *arrays[i] = mem_alloc(n * sizeof(float));
        all = all && *arrays[i];
    }
    mem_free(x->kept);
    mem_free(x->kept_ids);
    x->kept = mem_alloc((n + 7) / 8);
    x->kept_ids = mem_alloc(n * sizeof *x->kept_ids);
    x->cap = all && x->kept && x->kept_ids ? n : 0;
    return x->cap ? 0 : err_set(x->e, ERR_NO_MEMORY, "no memory for scores of %u positions", n);
}

/* Whether an accepted answer stands in what is kept. */
static bool has_answer(struct refine *x, const struct refine_question *q)
{
    buf_clear(&x->kept_text);
    if (refine_prompt_kept(&x->prompt, x->kept, &x->kept_text)) return false;
    for (uint32_t i = 0; i < q->n_accepted; i++)
        if (memmem(x->kept_text.data, x->kept_text.len, q->accepted[i], strlen(q->accepted[i])))
            return true;
    return false;
}

static int run_cell(struct refine *x, const struct cell *c, const struct refine_question *q,
                    const struct refine_evidence *evidence, struct keep *keep, struct json_t *line)
{
    struct refine_run run = {.method = c->method->name, .ratio = c->ratio};
    const struct keep_limits limits = {.ratio = c->ratio > 0.0f ? c->ratio : 1.0f,
                                       .coverage = c->ratio > 0.0f ? 1.0f : KEEP_COVERAGE,
                                       .floor = KEEP_FLOOR,
                                       .neighbours = c->method->neighbours};
    struct refine_answer answer;
    c->method->score(evidence, x->work, x->scores);
    if (evidence->n > KEEP_UNIT + KEEP_QUESTION)
        run.peak = relevance_peak(x->scores, KEEP_UNIT, evidence->n - KEEP_QUESTION);
    run.choice = keep_choose(keep, x->scores, &limits);
    int code = 0;
    if (run.choice.refusal == KEEP_OK) {
        keep_bits(keep, x->kept);
        run.has = has_answer(x, q);
        if (!x->p->no_answers && strcmp(q->kind, "flat") != 0) {
            code = ask_part(x, &answer);
            run.answer = &answer;
        }
    }
    if (code == 0 && refine_result_run(line, &run))
        code = err_set(x->e, ERR_NO_MEMORY, "no memory for results");
    return code;
}

static int run_cells(struct refine *x, const struct refine_document *d, uint32_t number,
                     const struct refine_question *q, struct json_t *line)
{
    const struct keep_prompt prompt = {.n = x->prompt.tokens.len, .cuts = x->prompt.cuts};
    const struct refine_evidence evidence = {
        .n = prompt.n,
        .window = x->window,
        .attention = x->attention,
        .bm25 = x->prompt.bm25,
        .seed =
            fnv_step(fnv_step(fnv_bytes(FNV_BEGIN, d->set, strlen(d->set)), d->number), number)};
    struct keep *keep = NULL;
    int code = keep_open(&prompt, &keep, x->e);
    for (uint32_t i = 0; i < x->n_cells && code == 0; i++)
        code = run_cell(x, &x->cells[i], q, &evidence, keep, line);
    keep_close(keep);
    return code;
}

static int ask(struct refine *x, const struct refine_document *d, uint32_t number)
{
    struct refine_question q;
    struct refine_answer whole;
    refine_set_question(d, number, &q);
    int code = refine_prompt_make(&x->prompt, x->engine, d->text, &q, x->e);
    if (code) return code;
    const uint32_t n = x->prompt.tokens.len, context = engine_info(x->engine)->context_max;
    if (n + REFINE_ANSWER_TOKENS > context)
        return err_set(x->e, ERR_LIMIT,
                       "%s, document %u: %u tokens and an answer do not fit the context of %u",
                       d->set, d->number, n, context);
    code = make_room(x);
    if (code == 0) code = ask_whole(x, &whole);
    if (code) return code;
    struct json_t *line = refine_result_begin(d, number, &q, n, x->p->no_answers ? NULL : &whole);
    if (!line) return err_set(x->e, ERR_NO_MEMORY, "no memory for results");
    code = run_cells(x, d, number, &q, line);
    if (code) {
        refine_result_drop(line);
        return code;
    }
    return refine_result_end(&x->results, line, x->e);
}

/* ---- all questions ---- */

static void say(struct refine *x, const struct refine_document *d, bool last)
{
    uint64_t now = clock_us();
    if (x->p->quiet || (!last && now - x->said < SAY_US)) return;
    x->said = now;
    fprintf(stderr, "refine %u/%u: %u questions, %u had before, %.1f min, %.0f tok/s; %s %u\n",
            x->p->part, x->p->parts, x->asked, x->had, (double)(now - x->begun) / MINUTE_US,
            1e6 * x->computed / (double)(now - x->begun + 1), d->set, d->number);
}

static bool time_is_up(const struct refine *x)
{
    return x->p->minutes && clock_us() - x->begun > (uint64_t)x->p->minutes * MINUTE_US;
}

static int ask_document(struct refine *x, const struct refine_document *d, bool *ret_late)
{
    for (uint32_t i = 0; i < d->n_questions; i++) {
        if (x->p->questions && d->before + i >= x->p->questions) return 0;
        if (refine_results_have(&x->results, d, i)) {
            x->had++;
            continue;
        }
        *ret_late = time_is_up(x);
        if (*ret_late) return 0;
        int code = ask(x, d, i);
        if (code) return code;
        x->asked++;
        say(x, d, false);
    }
    return 0;
}

static int ask_sets(struct refine *x, const struct refine_sets *sets)
{
    bool late = false;
    int code = 0;
    for (uint32_t i = 0; i < sets->n && !late && code == 0; i++)
        if (i % x->p->parts == x->p->part - 1) code = ask_document(x, &sets->documents[i], &late);
    if (code == 0 && sets->n) say(x, &sets->documents[sets->n - 1], true);
    return code;
}

/* ---- the plan ---- */

/* Whether a list with commas has the name; NULL has all. */
static bool is_listed(const char *list, const char *name)
{
    const size_t n = strlen(name);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == '\0')) return true;
    return list == NULL;
}

static int add_cell(struct refine *x, const struct refine_method *m, float ratio)
{
    if (x->n_cells == REFINE_RUNS_MAX)
        return err_set(x->e, ERR_LIMIT, "more than %d methods times ratios", REFINE_RUNS_MAX);
    x->cells[x->n_cells++] = (struct cell){m, ratio};
    return 0;
}

static int add_ratios(struct refine *x, const struct refine_method *m)
{
    int code = 0;
    if (!x->p->ratios) {
        for (const float *r = m->ratios; *r >= 0.0f && code == 0; r++)
            code = add_cell(x, m, *r);
        return code;
    }
    for (const char *at = x->p->ratios; *at && code == 0;) {
        char *end;
        float ratio = strtof(at, &end);
        if (end == at || (*end && *end != ',') || !(ratio >= 0.0f && ratio <= 1.0f))
            return err_set(x->e, ERR_BAD_INPUT, "\"%s\" is no list of ratios from 0 to 1",
                           x->p->ratios);
        code = add_cell(x, m, ratio);
        at = *end ? end + 1 : end;
    }
    return code;
}

static int list_cells(struct refine *x)
{
    const struct refine_method *m;
    uint32_t commas = x->p->methods != NULL, found = 0;
    for (const char *at = x->p->methods; at && (at = strchr(at, ',')) != NULL; at++)
        commas++;
    for (uint32_t i = 0; (m = refine_method_at(i)) != NULL; i++) {
        if (!is_listed(x->p->methods, m->name)) continue;
        found++;
        int code = add_ratios(x, m);
        if (code) return code;
    }
    if (found >= commas) return 0;
    return err_set(x->e, ERR_BAD_INPUT, "\"%s\" names a method that there is not", x->p->methods);
}

static int open_engine(struct refine *x)
{
    int code = native_open(&x->p->engine, &x->engine, x->e);
    if (code == 0) code = engine_session_open(x->engine, &x->whole, x->e);
    if (code == 0) code = engine_session_open(x->engine, &x->part, x->e);
    return code;
}

static void release(struct refine *x)
{
    engine_session_close(x->whole);
    engine_session_close(x->part);
    engine_free(x->engine);
    refine_prompt_release(&x->prompt);
    refine_results_close(&x->results);
    buf_release(&x->whole_answer);
    buf_release(&x->part_answer);
    buf_release(&x->kept_text);
    void *const arrays[] = {x->window, x->attention, x->scores, x->work, x->kept, x->kept_ids};
    for (int i = 0; i < 6; i++)
        mem_free(arrays[i]);
}

int refine_run(const struct refine_plan *p, struct err *e)
{
    struct refine x = {.p = p, .begun = clock_us(), .said = clock_us(), .e = e};
    struct refine_sets sets = {0};
    refine_prompt_init(&x.prompt);
    buf_init(&x.whole_answer, ANSWER_BYTES_MAX);
    buf_init(&x.part_answer, ANSWER_BYTES_MAX);
    buf_init(&x.kept_text, REFINE_SET_BYTES_MAX);
    int code = list_cells(&x);
    if (code == 0) code = refine_sets_open(p->sets, p->n_sets, &sets, e);
    if (code == 0) code = refine_results_open(p->out, &x.results, e);
    if (code == 0) code = open_engine(&x);
    if (code == 0) code = refine_results_about(&x.results, engine_info(x.engine), e);
    if (code == 0) code = ask_sets(&x, &sets);
    refine_sets_close(&sets);
    release(&x);
    return code;
}
