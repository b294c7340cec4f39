/* lib_stop: stop strings of a question, and where they end its answer; see pdd.h and lib_impl.h. */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "lib/lib_impl.h"
#include "proto/stop.h"

_Static_assert((int)PDD_STOPS_MAX == (int)OPENAI_STOPS_MAX &&
                   (int)PDD_STOP_BYTES_MAX == (int)OPENAI_STOP_BYTES_MAX &&
                   (int)PDD_STOPS_BYTES_MAX == (int)OPENAI_STOPS_BYTES_MAX,
               "stop strings");

static int take_one(struct lib_question *q, uint32_t at, size_t *all, struct err *e)
{
    const char *text = q->user.stop[at];
    size_t n = text ? strnlen(text, PDD_STOP_BYTES_MAX + 1) : 0;
    if (n == 0)
        return err_set(e, ERR_BAD_INPUT, "pdd_question.stop[%u]: it is %s", at,
                       text ? "empty" : "NULL");
    *all += n;
    if (n > PDD_STOP_BYTES_MAX || *all > PDD_STOPS_BYTES_MAX)
        return err_set(e, ERR_LIMIT,
                       "pdd_question.stop[%u]: one may have %d bytes, and all together %d", at,
                       PDD_STOP_BYTES_MAX, PDD_STOPS_BYTES_MAX);
    if (utf8_valid_prefix(text, n) < n)
        return err_set(e, ERR_BAD_INPUT, "pdd_question.stop[%u] is not UTF-8, from byte %zu on", at,
                       utf8_valid_prefix(text, n));
    char *copy = mem_alloc(n + 1);
    if (!copy) return err_set(e, ERR_NO_MEMORY, "no memory for a stop string");
    memcpy(copy, text, n + 1);
    q->stops[q->n_stops++] = (struct openai_stop){copy, n};
    return 0;
}

int lib_stop_take(struct lib_question *q, struct err *e)
{
    const pdd_question *u = &q->user;
    size_t all = 0;
    int code = 0;
    if (u->stop_count > PDD_STOPS_MAX)
        return err_set(e, ERR_LIMIT, "pdd_question.stop_count is %u, %d are possible",
                       u->stop_count, PDD_STOPS_MAX);
    if (u->stop_count && !u->stop)
        return err_set(e, ERR_BAD_INPUT, "pdd_question.stop: it is NULL, for %u", u->stop_count);
    for (uint32_t i = 0; i < u->stop_count && !code; i++)
        code = take_one(q, i, &all, e);
    return code;
}

void lib_stop_release(struct lib_question *q)
{
    while (q->n_stops > 0)
        mem_free(q->stops[--q->n_stops].text);
}

static size_t end_of(const struct device_token *t)
{
    return t->text_at + t->text_len;
}

/* The token in which the stop string begins becomes the last one, with the text before it. Tokens
 * that are clear already stay, also where the stop string lies in text that came later for the last
 * of them (the rest of a character). */
static void cut(struct pdd_answer *a)
{
    bool part = a->n_clear < a->n && a->tokens[a->n_clear].text_at < a->clear;
    a->n = a->n_clear += part;
    struct device_token *last = a->n > 0 ? &a->tokens[a->n - 1] : NULL;
    if (last) last->text_len = a->clear - last->text_at;
    buf_cut(&a->thought, last ? a->thought_ends[a->n - 1] : 0);
    buf_cut(&a->text, a->clear);
    a->ended = true;
}

bool lib_stop_find(struct pdd_answer *a)
{
    size_t more;
    bool found =
        stop_scan(a->q.stops, a->q.n_stops, a->text.data + a->clear, a->text.len - a->clear, &more);
    a->clear += more;
    while (a->n_clear < a->n && end_of(&a->tokens[a->n_clear]) <= a->clear)
        a->n_clear++;
    if (found) cut(a);
    return found;
}

/* Tokens after the stop string were not shown: they, and a handover among them, do not count. */
static void cut_report(struct pdd_answer *a)
{
    struct turn_report *t = &a->report.turn;
    uint32_t of[2] = {0, 0};
    for (uint32_t i = 0; i < a->n; i++)
        of[a->tokens[i].source]++;
    t->cloud_tokens = of[TURN_CLOUD];
    t->device_tokens = of[TURN_DEVICE];
    if (t->handover >= a->n) {
        t->handover = 0;
        t->handover_gap_us = 0;
    }
    if (!a->why.code) t->reason = TURN_STOP;
}

void lib_stop_settle(struct pdd_answer *a)
{
    a->clear = a->text.len;
    a->n_clear = a->n;
    if (a->ended) cut_report(a);
}
