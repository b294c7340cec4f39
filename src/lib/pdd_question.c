/* pdd_question: what a user asks, checked field by field and copied; see pdd.h. */
#include <string.h>

#include "base/utf8.h"
#include "lib/lib_impl.h"

enum { TEXT_BYTES_MAX = 64 << 20, REPEAT_LAST_DEFAULT = 64 };

_Static_assert((int)PDD_MODE_LOCAL == (int)DEVICE_LOCAL_ONLY &&
                   (int)PDD_MODE_CLOUD == (int)DEVICE_CLOUD_ONLY,
               "modes");
_Static_assert((int)PDD_PACE_OFF == (int)PACE_OFF && (int)PDD_PACE_READING == (int)PACE_READING,
               "paces");
_Static_assert((int)PDD_GOAL_FAST == (int)PLAN_FAST && (int)PDD_GOAL_CHEAP == (int)PLAN_CHEAP &&
                   (int)PDD_GOAL_BATTERY == (int)PLAN_BATTERY,
               "goals");
_Static_assert((int)PDD_VERIFY_ON == (int)DEVICE_VERIFY_ON &&
                   (int)PDD_VERIFY_OFF == (int)DEVICE_VERIFY_OFF,
               "verification");
_Static_assert((int)PDD_REFINE_OFF == (int)DEVICE_REFINE_OFF &&
                   (int)PDD_REFINE_CLOUD == (int)DEVICE_REFINE_RATIO &&
                   (int)PDD_REFINE_LOCAL == (int)DEVICE_REFINE_LOCAL,
               "refinement");
_Static_assert((int)PDD_SOURCE_CLOUD == (int)TURN_CLOUD &&
                   (int)PDD_SOURCE_DEVICE == (int)TURN_DEVICE,
               "sources");
_Static_assert((int)PDD_STOP == (int)TURN_STOP && (int)PDD_LENGTH == (int)TURN_LENGTH &&
                   (int)PDD_CANCELLED == (int)TURN_CANCELLED && (int)PDD_FAILED == (int)TURN_FAILED,
               "reasons");
_Static_assert((int)PDD_BIASES_MAX == (int)SAMPLING_BIASES_MAX, "biases");
_Static_assert((int)PDD_CHAT_MESSAGES == (int)WIRE_MESSAGES_MAX, "messages");

/* Ranges of the numbers; `below`: the upper end is not part of it. NaN is in none. */
static int check_ranges(const pdd_question *q, struct err *e)
{
    const struct {
        const char *name;
        double value, least, most;
        bool below;
    } ranges[] = {
        {"mode", q->mode, PDD_MODE_AUTO, PDD_MODE_CLOUD, false},
        {"tokens_max", q->tokens_max, 0, TURN_ANSWER_MAX, false},
        {"temperature", (double)q->temperature, 0, 100, false},
        {"top_p", (double)q->top_p, 0, 1, false},
        {"min_p", (double)q->min_p, 0, 1, true},
        {"repeat_penalty", (double)q->repeat_penalty, 0, 100, false},
        {"frequency_penalty", (double)q->frequency_penalty, -2, 2, false},
        {"presence_penalty", (double)q->presence_penalty, -2, 2, false},
        {"pace", q->pace, PDD_PACE_SMOOTH, PDD_PACE_READING, false},
        {"goal", q->goal, PDD_GOAL_EVEN, PDD_GOAL_BATTERY, false},
        {"cloud_tokens", q->cloud_tokens, PDD_CLOUD_TOKENS_NONE, TURN_ANSWER_MAX, false},
        {"verify", q->verify, PDD_VERIFY_AUTO, PDD_VERIFY_OFF, false},
        {"refine", q->refine, PDD_REFINE_AUTO, PDD_REFINE_LOCAL, false},
        {"refine_ratio", (double)q->refine_ratio, 0, 1, true},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        double v = ranges[i].value, most = ranges[i].most;
        if (v >= ranges[i].least && (ranges[i].below ? v < most : v <= most)) continue;
        return err_set(e, ERR_BAD_INPUT, "pdd_question.%s is %g, not from %g %s %g", ranges[i].name,
                       v, ranges[i].least, ranges[i].below ? "to below" : "to", most);
    }
    return 0;
}

/* What fields mean together. */
static int check_fields(const pdd_question *q, struct err *e)
{
    bool chooses = q->refine == PDD_REFINE_CLOUD || q->refine == PDD_REFINE_LOCAL;
    const char *wrong = NULL;
    if (!q->text)
        wrong = "text: a question has a text";
    else if (!q->text[0] && q->text_length == 0)
        wrong = "text: it is empty";
    else if (q->raw && q->chat)
        wrong = "raw: a raw prompt has no chat";
    else if (chooses && q->refine_ratio <= 0.0f)
        wrong = "refine_ratio: refine asks for one above 0";
    else if (!chooses && q->refine_ratio > 0.0f)
        wrong = "refine_ratio: it has no effect with this refine";
    else if (q->cloud_tokens != 0 && q->cloud_tokens_max != 0)
        wrong = "cloud_tokens and cloud_tokens_max exclude each other";
    else if (q->chat && q->chat->busy)
        return err_set(e, ERR_BUSY, "pdd_question.chat: it has an answer on its way");
    return wrong ? err_set(e, ERR_BAD_INPUT, "pdd_question.%s", wrong) : 0;
}

static int copy_text(const pdd_question *u, struct lib_question *q, struct err *e)
{
    size_t n = u->text_length ? u->text_length : strlen(u->text);
    if (n > TEXT_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "pdd_question.text has %zu bytes, %d are possible", n,
                       TEXT_BYTES_MAX);
    if (utf8_valid_prefix(u->text, n) < n)
        return err_set(e, ERR_BAD_INPUT, "pdd_question.text is not UTF-8, from byte %zu on",
                       utf8_valid_prefix(u->text, n));
    if (u->raw) {
        buf_init(&q->raw, n);
        int code = buf_append(&q->raw, u->text, n);
        return code ? err_set(e, code, "no memory for the prompt") : 0;
    }
    const struct talk *of = u->chat ? &u->chat->talk : NULL;
    uint32_t had = of ? of->n : 0, max = had < PDD_CHAT_MESSAGES ? had + 1 : had;
    int code = talk_init(&q->talk, max, e);
    for (uint32_t i = 0; i < had && !code; i++)
        code = talk_add(&q->talk, of->messages[i].role, of->messages[i].content,
                        of->messages[i].content_len, NULL, e);
    return code ? code : talk_add(&q->talk, "user", u->text, n, NULL, e);
}

static void fill(struct lib_question *q)
{
    const pdd_question *u = &q->user;
    q->asked = (struct device_question){
        .sampling = {.temperature = u->temperature,
                     .top_k = u->top_k,
                     .top_p = u->top_p > 0.0f ? u->top_p : 1.0f,
                     .min_p = u->min_p,
                     .repeat_penalty = u->repeat_penalty > 0.0f ? u->repeat_penalty : 1.0f,
                     .repeat_last = u->repeat_last ? u->repeat_last : REPEAT_LAST_DEFAULT,
                     .seed = u->seed,
                     .frequency_penalty = u->frequency_penalty,
                     .presence_penalty = u->presence_penalty,
                     .min_tokens = u->min_tokens},
        .tokens_max = u->tokens_max ? u->tokens_max : DEVICE_ANSWER_DEFAULT,
        .mode = (enum device_mode)u->mode,
        .pace = (enum pace_mode)u->pace,
        .goal = (enum plan_goal)u->goal,
        .limits = {.first_us = u->first_ms * 1e3,
                   .interval_us = u->interval_ms * 1e3,
                   .cloud_tokens = u->cloud_tokens_max},
        .cloud_tokens = u->cloud_tokens == 0                       ? -1
                        : u->cloud_tokens == PDD_CLOUD_TOKENS_NONE ? 0
                                                                   : u->cloud_tokens,
        .verify = (enum device_verify)u->verify,
        .refine = (enum device_refine)u->refine,
        .refine_ratio = u->refine_ratio};
}

static int take_bias(const pdd_bias *b, uint32_t at, const struct engine_info *model,
                     struct sampling *s, struct err *e)
{
    if (b->token < 0 || (model && (uint32_t)b->token >= model->vocab_size))
        return err_set(e, ERR_BAD_INPUT, "pdd_question.logit_bias[%u].token is %d: no such token",
                       at, b->token);
    if (!(b->bias >= -100.0f && b->bias <= 100.0f))
        return err_set(e, ERR_BAD_INPUT,
                       "pdd_question.logit_bias[%u].bias is %g, not from -100 to 100", at,
                       (double)b->bias);
    for (uint32_t i = 0; i < s->n_biases; i++)
        if (s->biases[i].id == b->token)
            return err_set(e, ERR_BAD_INPUT,
                           "pdd_question.logit_bias[%u].token is %d, as of [%u] already", at,
                           b->token, i);
    s->biases[s->n_biases++] = (struct sampling_bias){b->token, b->bias};
    return 0;
}

static int take_biases(struct lib_question *q, const struct engine_info *model, struct err *e)
{
    const pdd_question *u = &q->user;
    int code = 0;
    if (u->logit_bias_count > PDD_BIASES_MAX)
        return err_set(e, ERR_LIMIT, "pdd_question.logit_bias_count is %u, %d are possible",
                       u->logit_bias_count, PDD_BIASES_MAX);
    if (u->logit_bias_count && !u->logit_bias)
        return err_set(e, ERR_BAD_INPUT, "pdd_question.logit_bias: it is NULL, for %u",
                       u->logit_bias_count);
    for (uint32_t i = 0; i < u->logit_bias_count && !code; i++)
        code = take_bias(&u->logit_bias[i], i, model, &q->asked.sampling, e);
    return code;
}

int lib_question_take(const struct pdd_question *from, const struct engine_info *model,
                      struct lib_question *q, struct err *e)
{
    int code = lib_struct_take("pdd_question", from, LIB_LEAST(pdd_question, arg), sizeof q->user,
                               &q->user, e);
    if (code == 0) code = check_ranges(&q->user, e);
    if (code == 0) code = check_fields(&q->user, e);
    if (code == 0) code = copy_text(&q->user, q, e);
    if (code == 0) code = lib_stop_take(q, e);
    if (code == 0) {
        fill(q);
        code = take_biases(q, model, e);
    }
    if (code) {
        lib_question_release(q);
        return code;
    }
    /* Room for the answer: where it lacks, a part of the messages is left out at once, as each cut
     * costs a whole prefill. */
    uint32_t quarter = model ? model->context_max / 4 : 0, most = q->asked.tokens_max;
    q->asked.room_min = most < quarter ? most : quarter;
    return 0;
}

void lib_question_point(struct lib_question *q)
{
    if (q->user.raw) {
        q->asked.raw = q->raw.data;
        q->asked.raw_len = q->raw.len;
        q->asked.room_min = 0;
        return;
    }
    if (!talk_can_shorten(&q->talk)) q->asked.room_min = 0;
    q->asked.messages = talk_view(&q->talk, &q->asked.n_messages);
}

bool lib_question_shorten(struct lib_question *q, uint32_t context)
{
    if (q->user.raw || !talk_can_shorten(&q->talk)) return false;
    talk_shorten(&q->talk);
    q->asked.room_min = context / 4;
    return true;
}

void lib_question_release(struct lib_question *q)
{
    talk_release(&q->talk);
    buf_release(&q->raw);
    lib_stop_release(q);
}
