/*
 * sampler: see sampler.h.
 *
 * Sorting a whole vocabulary for one token would cost more than a small model's step; a heap gives
 * the tokens in the same order, (logit, lowest id), and only as many as the draw looks at.
 */
#include "model/sampler.h"

#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/rng.h"

enum { SAMPLER_STREAM = 0x5a3d, SUM_LANES = 8 };

int sampler_init(struct sampler *s, const struct kern *kern, uint32_t vocab, struct err *e)
{
    *s = (struct sampler){.kern = kern, .vocab = vocab};
    s->logits = mem_alloc_aligned(64, vocab * sizeof *s->logits);
    s->weights = mem_alloc_aligned(64, vocab * sizeof *s->weights);
    s->heap = mem_alloc_aligned(64, vocab * sizeof *s->heap);
    s->counts = mem_calloc(vocab, sizeof *s->counts);
    if (s->logits && s->weights && s->heap && s->counts) return 0;
    sampler_release(s);
    return err_set(e, ERR_NO_MEMORY, "no memory to sample from a vocabulary of %u", vocab);
}

void sampler_release(struct sampler *s)
{
    mem_free(s->logits);
    mem_free(s->weights);
    mem_free(s->heap);
    mem_free(s->counts);
    *s = (struct sampler){0};
}

void sampler_add_end(struct sampler *s, int32_t id)
{
    CHECK(s->n_ends < SAMPLER_ENDS_MAX && id >= 0 && (uint32_t)id < s->vocab);
    s->ends[s->n_ends++] = id;
}

static int check_range(const char *name, float value, float least, float most, struct err *e)
{
    if (value >= least && value <= most) return 0;
    return err_set(e, ERR_BAD_INPUT, "%s is %g; it must be between %g and %g", name, (double)value,
                   (double)least, (double)most);
}

int sampling_check(const struct sampling *p, struct err *e)
{
    int code = check_range("temperature", p->temperature, 0.0f, 100.0f, e);
    if (!code && !(p->top_p > 0.0f && p->top_p <= 1.0f))
        code = err_set(e, ERR_BAD_INPUT, "top_p is %g; it must be above 0 and at most 1",
                       (double)p->top_p);
    if (!code && !(p->min_p >= 0.0f && p->min_p < 1.0f))
        code = err_set(e, ERR_BAD_INPUT, "min_p is %g; it must be at least 0 and below 1",
                       (double)p->min_p);
    if (!code && !(p->repeat_penalty > 0.0f && p->repeat_penalty <= 1000.0f))
        code =
            err_set(e, ERR_BAD_INPUT, "repeat_penalty is %g; it must be above 0 and at most 1000",
                    (double)p->repeat_penalty);
    if (!code) code = check_range("frequency_penalty", p->frequency_penalty, -2.0f, 2.0f, e);
    if (!code) code = check_range("presence_penalty", p->presence_penalty, -2.0f, 2.0f, e);
    if (!code && p->n_biases > SAMPLING_BIASES_MAX)
        code = err_set(e, ERR_BAD_INPUT, "logit_bias has %u tokens; it may have %d", p->n_biases,
                       SAMPLING_BIASES_MAX);
    for (uint32_t i = 0; i < p->n_biases && !code; i++)
        code = check_range("logit_bias", p->biases[i].bias, -100.0f, 100.0f, e);
    return code;
}

int sampling_check_ids(const struct sampling *p, uint32_t vocab, struct err *e)
{
    for (uint32_t i = 0; i < p->n_biases; i++)
        if (p->biases[i].id < 0 || (uint32_t)p->biases[i].id >= vocab)
            return err_set(e, ERR_BAD_INPUT,
                           "logit_bias: token id %d is outside the vocabulary of %u",
                           p->biases[i].id, vocab);
    return 0;
}

/* Sum of floats in double: lane i takes i, i + 8, ...; then 4, 2, 1. */
static double sum_of(const float *x, uint32_t n)
{
    double lanes[SUM_LANES] = {0};
    uint32_t i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES)
        for (uint32_t j = 0; j < SUM_LANES; j++)
            lanes[j] += (double)x[i + j];
    for (uint32_t j = 0; i + j < n; j++)
        lanes[j] += (double)x[i + j];
    for (uint32_t width = SUM_LANES / 2; width > 0; width /= 2)
        for (uint32_t j = 0; j < width; j++)
            lanes[j] += lanes[j + width];
    return lanes[0];
}

/* weights = e^((x - max) / temperature); returns their sum. */
static double exponentials(struct sampler *s, const float *x, float max, float temperature)
{
    for (uint32_t i = 0; i < s->vocab; i++)
        s->weights[i] = (x[i] - max) / temperature;
    s->kern->exp_row(s->weights, s->vocab);
    return sum_of(s->weights, s->vocab);
}

static void add_biases(struct sampler *s, const struct sampling *p)
{
    for (uint32_t i = 0; i < p->n_biases; i++) {
        uint32_t id = (uint32_t)p->biases[i].id;
        CHECK(id < s->vocab);
        s->logits[id] =
            p->biases[i].bias > SAMPLING_NEVER ? s->logits[id] + p->biases[i].bias : SAMPLER_NEVER;
    }
}

static float repeated(float x, const struct sampling *p, uint32_t count)
{
    (void)count;
    return x > 0.0f ? x / p->repeat_penalty : x * p->repeat_penalty;
}

static float counted(float x, const struct sampling *p, uint32_t count)
{
    float loss = (float)count * p->frequency_penalty;
    return x - (loss + p->presence_penalty);
}

/* Each token of history[from, n) once. */
static void change_logits(struct sampler *s, const struct sampling *p, const int32_t *history,
                          uint32_t from, uint32_t n,
                          float (*change)(float x, const struct sampling *p, uint32_t count))
{
    for (uint32_t i = from; i < n; i++) {
        CHECK((uint32_t)history[i] < s->vocab);
        s->counts[history[i]]++;
    }
    for (uint32_t i = from; i < n; i++) {
        uint32_t id = (uint32_t)history[i], count = s->counts[id];
        s->counts[id] = 0;
        if (count > 0) s->logits[id] = change(s->logits[id], p, count);
    }
}

/* Which steps before the draw change logits after a history of n tokens. */
struct changes {
    bool bias, repeat, count, hold_ends;
};

static struct changes changes_of(const struct sampling *p, uint32_t n)
{
    bool answered = n > p->answer_from;
    uint32_t answer = answered ? n - p->answer_from : 0;
    return (struct changes){.bias = p->n_biases > 0,
                            .repeat = p->repeat_penalty != 1.0f && p->repeat_last > 0 && n > 0,
                            .count = answered &&
                                     (p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f),
                            .hold_ends = p->ignore_eos || answer < p->min_tokens};
}

/* Logits after bias and penalties. */
static const float *changed(struct sampler *s, const struct sampling *p, const float *logits,
                            const int32_t *history, uint32_t n)
{
    struct changes c = changes_of(p, n);
    if (!c.bias && !c.repeat && !c.count && !c.hold_ends) return logits;
    memcpy(s->logits, logits, s->vocab * sizeof *logits);
    if (c.bias) add_biases(s, p);
    if (c.repeat)
        change_logits(s, p, history, n > p->repeat_last ? n - p->repeat_last : 0, n, repeated);
    if (c.count) change_logits(s, p, history, p->answer_from, n, counted);
    for (uint32_t i = 0; c.hold_ends && i < s->n_ends; i++)
        s->logits[s->ends[i]] = SAMPLER_NEVER;
    return s->logits;
}

static int better(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift_down(uint32_t *heap, uint32_t n, const float *logits, uint32_t at)
{
    uint32_t id = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && better(logits, heap[child + 1], heap[child])) child++;
        if (!better(logits, heap[child], id)) break;
        heap[at] = heap[child];
    }
    heap[at] = id;
}

/* The tokens that may be drawn, in order: heap[vocab - 1] is the best, then downwards. */
struct kept {
    uint32_t n;
    double weight;
};

/* Move the best of what is left to the end of the heap's memory; returns it. */
static uint32_t pop(struct sampler *s, const float *logits, uint32_t left)
{
    uint32_t best = s->heap[0];
    s->heap[0] = s->heap[left - 1];
    sift_down(s->heap, left - 1, logits, 0);
    s->heap[left - 1] = best;
    return best;
}

/* Pop the best tokens up to top-k, then what top-p and min-p leave of them. */
static struct kept keep(struct sampler *s, const struct sampling *p, const float *logits,
                        double total)
{
    uint32_t limit = p->top_k > 0 && p->top_k < s->vocab ? p->top_k : s->vocab;
    struct kept k = {0, 0.0};
    if (limit < s->vocab) { /* top-p counts from what top-k leaves */
        total = 0.0;
        for (uint32_t i = 0; i < limit; i++)
            total += (double)s->weights[pop(s, logits, s->vocab - i)];
    }
    double enough = p->top_p < 1.0f ? (double)p->top_p * total : total * 2.0;
    while (k.n < limit) {
        uint32_t at = s->vocab - 1 - k.n;
        uint32_t id = limit < s->vocab ? s->heap[at] : pop(s, logits, at + 1);
        if (k.n > 0 && (s->weights[id] < p->min_p || logits[id] <= SAMPLER_NEVER)) break;
        k.weight += (double)s->weights[id];
        k.n++;
        if (k.weight >= enough) break;
    }
    return k;
}

/* The token at `mark` of the weight of the kept ones. */
static uint32_t pick_kept(const struct sampler *s, struct kept k, double mark)
{
    double sum = 0.0;
    for (uint32_t i = 0; i + 1 < k.n; i++) {
        uint32_t id = s->heap[s->vocab - 1 - i];
        sum += (double)s->weights[id];
        if (sum > mark) return id;
    }
    return s->heap[s->vocab - k.n];
}

/* The same when nothing was cut off: no need to order more tokens than the draw passes. */
static uint32_t pick_any(struct sampler *s, const float *logits, double mark)
{
    double sum = 0.0;
    for (uint32_t left = s->vocab; left > 1; left--) {
        uint32_t id = pop(s, logits, left);
        sum += (double)s->weights[id];
        if (sum > mark || logits[s->heap[0]] <= SAMPLER_NEVER) return id;
    }
    return s->heap[0];
}

static uint32_t draw(struct sampler *s, const struct sampling *p, const float *logits,
                     uint32_t position)
{
    float max = logits[kern_argmax(logits, s->vocab)];
    double total = exponentials(s, logits, max, p->temperature);
    for (uint32_t i = 0; i < s->vocab; i++)
        s->heap[i] = i;
    for (uint32_t i = s->vocab / 2; i-- > 0;)
        sift_down(s->heap, s->vocab, logits, i);
    double u = (double)rng_uniform(p->seed, SAMPLER_STREAM, position);
    bool whole = (p->top_k == 0 || p->top_k >= s->vocab) && p->top_p >= 1.0f && p->min_p <= 0.0f;
    if (whole) return pick_any(s, logits, u * total);
    struct kept k = keep(s, p, logits, total);
    return pick_kept(s, k, u * k.weight);
}

struct sampler_draw sampler_draw(struct sampler *s, const struct sampling *p, const float *logits,
                                 const int32_t *history, uint32_t n)
{
    const float *used = changed(s, p, logits, history, n);
    uint32_t id = p->temperature > 0.0f ? draw(s, p, used, n) : kern_argmax(used, s->vocab);
    bool greedy = p->temperature == 0.0f && used == logits; /* then one search for both */
    float max = logits[greedy ? id : kern_argmax(logits, s->vocab)];
    double total = exponentials(s, logits, max, 1.0f);
    return (struct sampler_draw){(int32_t)id,
                                 (float)((double)logits[id] - (double)max - kern_log(total))};
}

uint32_t sampler_best(const float *logits, uint32_t vocab, uint32_t max, int32_t *ret_ids)
{
    uint32_t n = 0;
    for (uint32_t id = 0; id < vocab && max > 0; id++) {
        if (n == max && !(logits[id] > logits[ret_ids[n - 1]])) continue;
        uint32_t at = n < max ? n++ : n - 1;
        for (; at > 0 && logits[id] > logits[ret_ids[at - 1]]; at--)
            ret_ids[at] = ret_ids[at - 1];
        ret_ids[at] = (int32_t)id;
    }
    return n;
}
