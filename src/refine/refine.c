/* refine: see refine.h. */
#include "refine/refine.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "policy/bm25.h"
#include "policy/keep_text.h"
#include "policy/relevance.h"

enum {
    TEXT_MAX = 256 << 20, /* bytes of a prompt's text */
    HEADER_TOKENS = 16,   /* of a role, after the control token that opens a message */
    LIST_TOKENS = 512,    /* of questions at most, and */
    LIST_PART = 8,        /* this part of the prompt */
    RANGES_LEAST = 256    /* room at first */
};
#define FLOOR_PART 0.25f /* of the ratio, that floors may take */

/* The text of a prompt, and what is found in it. */
struct look {
    const struct vocab *vocab;
    const int32_t *prompt;
    uint32_t n;
    struct buf text;
    uint32_t *token_ends; /* [n] bytes */
    uint8_t *cuts;        /* [n] */
    uint32_t *ends;       /* [n_messages], at most WIRE_MESSAGES_MAX */
    uint32_t n_messages;
    struct keep_range *whole; /* [n_whole], room for whole_cap */
    uint32_t n_whole, whole_cap;
    bool whole_lacks;        /* no memory for one of them */
    uint32_t body, body_end; /* tokens of the last message with a text, without its header */
    size_t asked, asked_end; /* bytes of its question */
};

static void look_release(struct look *l)
{
    buf_release(&l->text);
    mem_free(l->token_ends);
    mem_free(l->cuts);
    mem_free(l->ends);
    mem_free(l->whole);
}

static int lacks_memory(const struct look *l, struct err *e)
{
    return err_set(e, ERR_NO_MEMORY, "no memory to refine a prompt of %u tokens", l->n);
}

static int look_open(struct look *l, struct err *e)
{
    buf_init(&l->text, TEXT_MAX);
    l->token_ends = mem_alloc(l->n * sizeof *l->token_ends);
    l->cuts = mem_alloc(l->n * sizeof *l->cuts);
    l->ends = mem_alloc(WIRE_MESSAGES_MAX * sizeof *l->ends);
    if (!l->token_ends || !l->cuts || !l->ends) return lacks_memory(l, e);
    for (uint32_t i = 0; i < l->n; i++) {
        int code = vocab_piece(l->vocab, l->prompt[i], false, &l->text);
        if (code) return err_set(e, code, "prompt[%u] has no text", i);
        l->token_ends[i] = (uint32_t)l->text.len;
    }
    return 0;
}

static void add_range(struct look *l, uint32_t from, uint32_t to)
{
    if (from >= to || l->whole_lacks) return;
    if (l->n_whole && l->whole[l->n_whole - 1].to == from) { /* goes on where the last one ends */
        l->whole[l->n_whole - 1].to = to;
        return;
    }
    if (l->n_whole == l->whole_cap) {
        uint32_t cap = l->whole_cap ? 2 * l->whole_cap : RANGES_LEAST;
        struct keep_range *more = mem_realloc(l->whole, cap * sizeof *more);
        l->whole_lacks = !more;
        if (!more) return;
        l->whole = more;
        l->whole_cap = cap;
    }
    l->whole[l->n_whole++] = (struct keep_range){from, to};
}

static bool is_control(const struct look *l, uint32_t i)
{
    return vocab_is_control(l->vocab, l->prompt[i]);
}

/* Where the header ends that a control token at `i` opens: after the line end that follows the
 * role, or after the control tokens in a row. */
static uint32_t header_end(const struct look *l, uint32_t i)
{
    uint32_t last = i + 1;
    for (uint32_t t = i + 1; t < l->n && t <= i + HEADER_TOKENS; t++) {
        uint32_t from = l->token_ends[t - 1], to = l->token_ends[t];
        if (is_control(l, t)) last = t + 1;
        if (memchr(l->text.data + from, '\n', to - from)) return t + 1;
    }
    return last;
}

static bool is_ruling(const struct look *l, uint32_t from, uint32_t to)
{
    static const char *const roles[] = {"system", "developer", "tool"};
    size_t at = l->token_ends[from], len = l->token_ends[to - 1] - at;
    for (size_t r = 0; r < sizeof roles / sizeof *roles; r++)
        if (memmem(l->text.data + at, len, roles[r], strlen(roles[r]))) return true;
    return false;
}

/* Tokens [from, to) are what a message says. */
static void note_body(struct look *l, uint32_t from, uint32_t to)
{
    if (from >= to || l->token_ends[to - 1] == (from ? l->token_ends[from - 1] : 0)) return;
    l->body = from;
    l->body_end = to;
}

/* Messages begin at control tokens that end nothing. Text before the first one is a message, too.
 */
static void find_messages(struct look *l)
{
    uint32_t header = 0, begin = 0;
    bool ruling = false;
    for (uint32_t i = 0; i < l->n; i++) {
        if (!is_control(l, i)) continue;
        add_range(l, i, i + 1);
        if (vocab_is_end(l->vocab, l->prompt[i]) || i < header) continue;
        if (ruling) add_range(l, begin, i);
        note_body(l, header, i);
        if (i > begin && l->n_messages + 1 < WIRE_MESSAGES_MAX) l->ends[l->n_messages++] = i;
        begin = i;
        header = header_end(l, i);
        ruling = is_ruling(l, i, header);
        add_range(l, i, header);
    }
    if (ruling) add_range(l, begin, l->n);
    note_body(l, header, l->n);
    l->ends[l->n_messages++] = l->n;
}

/* The question in the last message; returns the token in which it begins. A list of questions stays
 * whole, too, unless it is a large part of the prompt: then it may be anything that has lines. */
static uint32_t find_question(struct look *l)
{
    const size_t body = l->body ? l->token_ends[l->body - 1] : 0;
    uint32_t at = l->body;
    l->asked_end = l->body_end ? l->token_ends[l->body_end - 1] : 0;
    l->asked = body + bm25_question(l->text.data + body, l->asked_end - body);
    while (at < l->body_end && l->token_ends[at] <= l->asked)
        at++;
    if (at + LIST_TOKENS < l->body_end || l->body_end - at > l->n / LIST_PART) return l->n;
    add_range(l, at, l->body_end);
    return at;
}

/* How much each position speaks of the words of the question. */
static int score_words(struct refine *r, const struct look *l, struct err *e)
{
    const char *text = l->text.data;
    return bm25_score_text(text, l->asked, l->token_ends, l->n, text + l->asked,
                           l->asked_end - l->asked, r->words, e);
}

static int open_keep(struct look *l, const struct wire_refine *asked, uint32_t *ret_question,
                     struct keep **ret_keep, struct err *e)
{
    find_messages(l);
    *ret_question = find_question(l);
    for (uint32_t i = 0; i + 1 < asked->n_whole; i += 2)
        add_range(l, (uint32_t)asked->whole[i], (uint32_t)asked->whole[i + 1]);
    if (l->whole_lacks) return lacks_memory(l, e);
    if (asked->n_messages) {
        l->n_messages = asked->n_messages;
        for (uint32_t i = 0; i < asked->n_messages; i++)
            l->ends[i] = (uint32_t)asked->messages[i];
    }
    keep_text_cuts(l->text.data, l->text.len, l->token_ends, l->n, l->cuts);
    const struct keep_prompt p = {.n = l->n,
                                  .held = asked->held,
                                  .cuts = l->cuts,
                                  .ends = l->ends,
                                  .n_messages = l->n_messages,
                                  .whole = l->whole,
                                  .n_whole = l->n_whole};
    return keep_open(&p, ret_keep, e);
}

static int look_closer(struct refine *r, struct look *l, const struct wire_refine *asked,
                       struct err *e)
{
    int code = open_keep(l, asked, &r->question, &r->keep, e);
    if (code) return code;
    r->limits = (struct keep_limits)KEEP_LIMITS_DEFAULT(asked->ratio);
    if (asked->coverage > 0.0f) r->limits.coverage = asked->coverage;
    if (r->limits.floor > asked->ratio * FLOOR_PART) r->limits.floor = asked->ratio * FLOOR_PART;
    r->refusal = keep_refuses(r->keep, &r->limits);
    r->peak = RELEVANCE_PEAK;
    if (r->refusal == KEEP_OK) r->refusal = keep_text_refuses(l->text.data, l->text.len);
    return r->refusal == KEEP_OK ? score_words(r, l, e) : 0;
}

int refine_new(const struct vocab *vocab, const int32_t *prompt, uint32_t n,
               const struct wire_refine *asked, struct refine **ret_refine, struct err *e)
{
    struct look l = {.vocab = vocab, .prompt = prompt, .n = n};
    struct refine *r = mem_calloc(1, sizeof *r);
    int code = look_open(&l, e);
    if (code == 0 && r) {
        r->n = n;
        r->bits = mem_alloc(REFINE_VERSIONS * (((size_t)n + 7) / 8));
        r->words = mem_calloc(n, sizeof *r->words);
        r->scores = mem_alloc(n * sizeof *r->scores);
    }
    if (code == 0 && (!r || !r->bits || !r->words || !r->scores))
        code = err_set(e, ERR_NO_MEMORY, "no memory to refine a prompt of %u tokens", n);
    if (code == 0) code = look_closer(r, &l, asked, e);
    look_release(&l);
    if (code)
        refine_free(r);
    else
        *ret_refine = r;
    return code;
}

int refine_must(const struct vocab *vocab, const int32_t *prompt, uint32_t n,
                const struct wire_refine *asked, uint8_t *bits, uint32_t *ret_added, struct err *e)
{
    struct look l = {.vocab = vocab, .prompt = prompt, .n = n};
    struct keep *k = NULL;
    uint32_t question, units = 0;
    int code = look_open(&l, e);
    if (code == 0) code = open_keep(&l, asked, &question, &k, e);
    look_release(&l);
    if (code) return code;
    *ret_added = 0;
    const struct keep_unit *u = keep_units(k, &units);
    for (uint32_t i = 0; i < units; i++)
        for (uint32_t at = u[i].from; u[i].must && at < u[i].to; at++) {
            const uint8_t bit = (uint8_t)(1u << at % 8);
            *ret_added += !(bits[at / 8] & bit);
            bits[at / 8] |= bit;
        }
    keep_close(k);
    return 0;
}

/* The token that holds byte `at` of the text, or the first one behind it. */
static uint32_t token_at(const struct look *l, size_t at)
{
    uint32_t low = 0, high = l->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (l->token_ends[middle] <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct refine_text {
    struct look look;
};

int refine_text_new(const struct vocab *vocab, const int32_t *prompt, uint32_t n,
                    struct refine_text **ret_text, struct err *e)
{
    struct refine_text *t = mem_calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for the text of a prompt");
    t->look = (struct look){.vocab = vocab, .prompt = prompt, .n = n};
    int code = look_open(&t->look, e);
    if (code)
        refine_text_free(t);
    else
        *ret_text = t;
    return code;
}

void refine_text_free(struct refine_text *t)
{
    if (t) look_release(&t->look);
    mem_free(t);
}

uint32_t refine_text_find(const struct refine_text *t, const char *text, size_t len,
                          struct keep_range *ret_ranges, uint32_t max)
{
    const struct look *l = &t->look;
    uint32_t found = 0;
    for (size_t at = 0; len && at < l->text.len;) {
        const char *hit = memmem(l->text.data + at, l->text.len - at, text, len);
        if (!hit) break;
        at = (size_t)(hit - l->text.data) + len;
        const struct keep_range r = {token_at(l, at - len), token_at(l, at - 1) + 1};
        if (found < max)
            ret_ranges[found++] = r;
        else
            ret_ranges[max - 1].to = r.to;
    }
    return found;
}

void refine_free(struct refine *r)
{
    if (!r) return;
    keep_close(r->keep);
    mem_free(r->bits);
    mem_free(r->words);
    mem_free(r->scores);
    mem_free(r);
}

static const struct refined *add_version(struct refine *r, struct keep_choice choice, bool final)
{
    CHECK(r->made < REFINE_VERSIONS);
    struct refined *v = &r->versions[r->made++];
    *v = (struct refined){.version = r->made, .final = final, .choice = choice};
    return v;
}

/* Whether no place has both attention and words of the question, besides those that stay in any
 * case. */
static bool is_flat(const struct refine *r)
{
    uint32_t to = r->n > KEEP_QUESTION ? r->n - KEEP_QUESTION : 0;
    if (to > r->question) to = r->question;
    return relevance_peak(r->scores, KEEP_UNIT, to) < r->peak;
}

const struct refined *refine_choose(struct refine *r, const float *attention, bool final)
{
    relevance_score(attention, r->words, r->n, r->scores);
    struct keep_choice choice = keep_choose(r->keep, r->scores, &r->limits);
    if (choice.refusal == KEEP_OK && is_flat(r)) choice.refusal = KEEP_FLAT;
    bool refused = choice.refusal != KEEP_OK;
    const struct refined *v = add_version(r, choice, final || refused);
    if (refused) return v;
    size_t n = ((size_t)r->n + 7) / 8;
    uint8_t *bits = r->bits + (r->made - 1) * n;
    keep_bits(r->keep, bits);
    r->versions[r->made - 1].bits = bits;
    r->versions[r->made - 1].n_bits = n;
    return v;
}

const struct refined *refine_refuse(struct refine *r, enum keep_refusal refusal)
{
    return add_version(r, (struct keep_choice){.refusal = refusal}, true);
}
