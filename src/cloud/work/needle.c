/* needle: see needle.h. */
#include "cloud/work/needle.h"

#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/text/template.h"
#include "model/text/vocab.h"
#include "policy/keep.h"
#include "policy/relevance.h"

enum { SENTENCES = 64, WORDS = 12, TEXT_MAX = 1 << 16, TOKENS_MAX = 1 << 14, SEED = 15 };
#define RATIO 0.35f

static const struct {
    const char *thing, *number;
} needles[NEEDLE_QUESTIONS] = {
    {"blue door", "48151"}, {"old boat", "27340"}, {"stone tower", "90628"}};

/* Sentences without numbers and doors. */
static void put_filler(struct buf *out, struct rng *rng)
{
    static const char *const who[WORDS] = {"baker",  "teacher", "farmer",   "sailor",
                                           "doctor", "painter", "weaver",   "singer",
                                           "miller", "hunter",  "gardener", "tailor"};
    static const char *const what[WORDS] = {"bread",  "apples", "paper", "wool",  "honey", "salt",
                                            "cheese", "wood",   "fish",  "flour", "milk",  "tea"};
    static const char *const where[WORDS] = {"market",  "river",  "village", "mountain",
                                             "harbour", "forest", "garden",  "school",
                                             "bridge",  "meadow", "island",  "church"};
    buf_printf(out, "The %s from the %s brought some %s to the %s. ", who[rng_below(rng, WORDS)],
               where[rng_below(rng, WORDS)], what[rng_below(rng, WORDS)],
               where[rng_below(rng, WORDS)]);
}

static void put_text(struct buf *out)
{
    struct rng rng;
    rng_init(&rng, SEED, 0);
    for (uint32_t i = 0; i < SENTENCES; i++) {
        put_filler(out, &rng);
        for (uint32_t k = 0; k < NEEDLE_QUESTIONS; k++)
            if (i + 1 == SENTENCES * (k + 1) / (NEEDLE_QUESTIONS + 1))
                buf_printf(out, "The number of the %s is %s. ", needles[k].thing,
                           needles[k].number);
    }
}

static int make_prompt(const struct engine *e, uint32_t question, struct token_list *prompt,
                       struct err *err)
{
    struct buf text;
    buf_init(&text, TEXT_MAX);
    put_text(&text);
    buf_printf(&text, "\n\nWhat is the number of the %s?", needles[question].thing);
    int code = text.error;
    const struct chat_message ask = {"user", text.data, text.len};
    if (code)
        err_set(err, code, "no memory for the needle test");
    else if (engine_template(e))
        code =
            chat_template_encode(engine_template(e), engine_vocab(e), &ask, 1, true, prompt, err);
    else
        code = vocab_encode(engine_vocab(e), text.data, text.len, VOCAB_ADD_BOS, prompt, err);
    buf_release(&text);
    if (code == 0 && prompt->len + 1 > engine_info(e)->context_max)
        code = err_set(err, ERR_LIMIT, "the needle test has %u tokens, the context is %u",
                       prompt->len, engine_info(e)->context_max);
    return code;
}

/* Tokens [*ret_from, *ret_to) hold the number. */
static int place_of(const struct engine *e, const struct token_list *prompt, const char *number,
                    uint32_t *ret_from, uint32_t *ret_to, struct err *err)
{
    struct buf text;
    uint32_t from = 0, to = 0;
    buf_init(&text, TEXT_MAX);
    int code = 0;
    /* The first text that has the whole number ends with it; it begins behind the last text that
     * is shorter than where it stands. */
    const char *at = NULL;
    for (; to < prompt->len && code == 0 && !at; to++) {
        code = vocab_piece(engine_vocab(e), prompt->ids[to], false, &text);
        if (code == 0) at = memmem(text.data, text.len, number, strlen(number));
    }
    size_t start = at ? (size_t)(at - text.data) : 0;
    buf_clear(&text);
    for (; code == 0 && at && from < to; from++) {
        code = vocab_piece(engine_vocab(e), prompt->ids[from], false, &text);
        if (text.len > start) break;
    }
    buf_release(&text);
    if (code) return err_set(err, code, "a token of the needle test has no text");
    if (!at) return err_set(err, ERR_UNSUPPORTED, "the vocabulary changes the needle test's text");
    *ret_from = from;
    *ret_to = to;
    return 0;
}

static int prefill(struct engine *e, struct session *s, const struct token_list *prompt,
                   struct err *err)
{
    const uint32_t most = engine_info(e)->step_tokens_max;
    int code = 0;
    while (session_len(s) < prompt->len && code == 0) {
        uint32_t at = session_len(s), left = prompt->len - at;
        struct engine_span span = {
            .session = s, .tokens = prompt->ids + at, .n = left < most ? left : most};
        code = engine_step(e, &span, 1, err);
    }
    return code;
}

static int is_kept(const float *attention, const struct token_list *prompt, uint32_t from,
                   uint32_t to, bool *ret_kept, struct err *err)
{
    const struct keep_prompt p = {.n = prompt->len};
    const struct keep_limits limits = {.ratio = RATIO, .coverage = 1.0f};
    struct keep *k;
    float *scores = mem_alloc(prompt->len * sizeof *scores);
    uint8_t *bits = mem_alloc(((size_t)prompt->len + 7) / 8);
    int code = scores && bits ? keep_open(&p, &k, err)
                              : err_set(err, ERR_NO_MEMORY, "no memory for the needle test");
    if (code == 0) {
        relevance_score(attention, NULL, prompt->len, scores);
        *ret_kept = keep_choose(k, scores, &limits).refusal == KEEP_OK;
        keep_bits(k, bits);
        for (uint32_t i = from; i < to; i++)
            *ret_kept = *ret_kept && (bits[i / 8] >> i % 8 & 1);
        keep_close(k);
    }
    mem_free(scores);
    mem_free(bits);
    return code;
}

/* The text is computed once: later questions take it from `first`. */
static int ask(struct engine *e, struct session *s, struct session *first, uint32_t question,
               bool *ret_found, struct err *err)
{
    struct token_list prompt;
    uint32_t from = 0, to = 0;
    token_list_init(&prompt, TOKENS_MAX);
    int code = make_prompt(e, question, &prompt, err);
    if (code == 0) code = place_of(e, &prompt, needles[question].number, &from, &to, err);
    if (code == 0) code = session_score(s, prompt.len, err);
    if (code == 0 && first) {
        const int32_t *had = session_tokens(first);
        uint32_t same = 0, most = engine_score_from(prompt.len);
        while (same < most && same < session_len(first) && had[same] == prompt.ids[same])
            same++;
        code = session_share(s, first, same, err);
    }
    if (code == 0) code = prefill(e, s, &prompt, err);
    if (code == 0) code = is_kept(session_scores(s), &prompt, from, to, ret_found, err);
    token_list_release(&prompt);
    return code;
}

int needle_find(struct engine *e, uint32_t *ret_found, struct err *err)
{
    struct session *s[NEEDLE_QUESTIONS] = {NULL};
    uint32_t found = 0;
    int code = 0;
    for (uint32_t i = 0; i < NEEDLE_QUESTIONS && code == 0; i++) {
        bool here = false;
        code = engine_session_open(e, &s[i], err);
        if (code == 0) code = ask(e, s[i], i ? s[0] : NULL, i, &here, err);
        found += here;
    }
    for (uint32_t i = 0; i < NEEDLE_QUESTIONS; i++)
        engine_session_close(s[i]);
    if (code == 0) *ret_found = found;
    return code;
}
