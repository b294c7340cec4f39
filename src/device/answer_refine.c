/*
 * answer_refine: the shortened prompt of an answer: whether the cloud is asked which tokens are
 * needed, and what comes of its choice; and what an idle device reads afterwards. See
 * device_impl.h, policy/turn.h and docs/design/refine.md.
 */
#include <stdio.h>
#include <string.h>

#include "base/blank.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/os.h"
#include "device/device_impl.h"
#include "policy/keep.h"
#include "refine/refine.h"

/* Less than this of a prompt is not asked for by a plan. */
#define RATIO_LEAST 0.1
/* With the whole prompt the device takes over in fewer answers than this: too late for most. */
#define HANDOVER_RARE (1.0 / 3.0)
enum { PLACES_MAX = 4 }; /* of one system message in a prompt */

/* Share of answers that are still in what is kept, by ratio: docs/decisions/0010-relevance.md, the
 * last row; 0.4 as 0.3. */
static const struct plan_quality kept_quality = {
    {0.85, 0.97, 0.99, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}};

static bool may_ask(const struct device *d)
{
    const struct answer *a = &d->answer;
    bool here = a->q->refine == DEVICE_REFINE_LOCAL; /* then the cloud does not matter */
    return a->q->refine != DEVICE_REFINE_OFF && d->client && d->local &&
           (here || !a->by_messages) && a->q->mode == DEVICE_AUTO;
}

/* A share that is asked for, of the cloud or of the device itself: who asks for a shorter prompt
 * wants it read, whatever the plan is. */
static void plan_share(struct device *d, const struct plan_input *whole)
{
    struct answer *a = &d->answer;
    struct plan_input in = *whole;
    struct plan refined, alone = a->plan;
    double share = (double)a->q->refine_ratio;
    if (a->q->refine == DEVICE_REFINE_RATIO) a->refine_ratio = a->q->refine_ratio;
    in.prompt_tokens = (uint32_t)((double)in.prompt_tokens * share) + 1;
    plan_make(&in, &refined);
    if (refined.choice == PLAN_BOTH) {
        a->plan = refined;
        size_t n = strlen(a->plan.why);
        snprintf(a->plan.why + n, sizeof a->plan.why - n, " with %.0f %% of the prompt, as asked",
                 100.0 * share);
    } else if (alone.choice == PLAN_CLOUD) {
        a->plan.choice = PLAN_BOTH;
        a->plan.start = PLAN_START_NOW;
        snprintf(a->plan.why, sizeof a->plan.why,
                 "the device reads %.0f %% of the prompt, as asked; the plan would be %.180s",
                 100.0 * share, alone.why);
    }
    a->plan.ratio = share;
}

/* Whether the device catches up in time with the whole prompt, so that nothing need be lost: in a
 * third of the answers at least, by the lengths that answers have here. */
static bool in_time(const struct plan *p, const struct plan_input *in)
{
    return p->choice == PLAN_DEVICE ||
           (p->choice == PLAN_BOTH && p->start != PLAN_START_NEVER &&
            p->cloud_tokens < in->answer_max && p->handover > HANDOVER_RARE &&
            !(p->broken & PLAN_LIMIT_LATE));
}

void answer_plan_refined(struct device *d, const struct plan_input *whole)
{
    struct answer *a = &d->answer;
    struct plan_input in = *whole;
    struct plan refined;
    if (!may_ask(d) || in.prompt_tokens < KEEP_NEW_LEAST || a->plan.choice == PLAN_DEVICE) return;
    if (a->q->refine != DEVICE_REFINE_AUTO) {
        plan_share(d, whole);
        return;
    }
    if (in_time(&a->plan, &in)) return;
    in.quality = &kept_quality;
    in.limits.ratio_least = RATIO_LEAST;
    plan_make(&in, &refined);
    if (refined.choice != PLAN_BOTH || refined.ratio >= 1.0) return;
    a->plan = refined;
    a->refine_ratio = (float)refined.ratio;
}

/* Name a range of the prompt, in order and apart from the others, as the wire wants them
 * (proto/wire.h). */
static void add_whole(struct answer *a, int32_t from, int32_t to)
{
    uint32_t at = 0;
    while (at < a->n_whole && a->whole[2 * at + 1] < from)
        at++;
    uint32_t end = at;
    for (; end < a->n_whole && a->whole[2 * end] <= to; end++) { /* it becomes a part of this one */
        if (a->whole[2 * end] < from) from = a->whole[2 * end];
        if (a->whole[2 * end + 1] > to) to = a->whole[2 * end + 1];
    }
    if (end == at && a->n_whole == RULES_MAX) { /* no room: with all up to a neighbour */
        if (at == RULES_MAX)
            from = a->whole[2 * --at];
        else
            to = a->whole[2 * end++ + 1];
    }
    memmove(&a->whole[2 * (at + 1)], &a->whole[2 * end], 2 * (a->n_whole - end) * sizeof *a->whole);
    a->whole[2 * at] = from;
    a->whole[2 * at + 1] = to;
    a->n_whole = a->n_whole - (end - at) + 1;
}

/* What the prompt has in common with one of the system message alone: its template's words, too. */
static uint32_t system_prefix(struct device *d)
{
    struct answer *a = &d->answer;
    const struct device_question *q = a->q;
    struct token_list ids;
    uint32_t same = 0;
    token_list_init(&ids, WIRE_PROMPT_MAX);
    const struct chat_prompt system = {.messages = q->messages, .n = 1, .now = a->now};
    if (chat_template_render(engine_template(d->engine), engine_vocab(d->engine), &system, &ids,
                             NULL) == 0)
        while (same < ids.len && same < a->prompt.len && ids.ids[same] == a->prompt.ids[same])
            same++;
    token_list_release(&ids);
    return same;
}

static void keep_places(struct answer *a, const struct refine_text *prompt,
                        const struct chat_message *m)
{
    struct keep_range places[PLACES_MAX];
    size_t len = m->content_len;
    const char *text = m->content;
    for (; len && blank_is(*text); text++, len--)
        ;
    len -= blank_suffix(text, len);
    uint32_t n = refine_text_find(prompt, text, len, places, PLACES_MAX);
    for (uint32_t k = 0; k < n; k++)
        add_whole(a, (int32_t)places[k].from, (int32_t)places[k].to);
}

static bool is_rule(const struct chat_message *m)
{
    return strcmp(m->role, "system") == 0 || strcmp(m->role, "developer") == 0;
}

/* System messages rule the others, wherever their template puts them: some put one in front of the
 * last question. */
static void keep_system(struct device *d)
{
    struct answer *a = &d->answer;
    const struct device_question *q = a->q;
    struct refine_text *prompt = NULL;
    struct err ignored;
    a->n_whole = 0;
    if (q->raw || q->n_messages < 2) return;
    if (strcmp(q->messages[0].role, "system") == 0) {
        uint32_t same = system_prefix(d);
        if (same) add_whole(a, 0, (int32_t)same);
    }
    for (uint32_t i = 0; i < q->n_messages; i++) {
        if (!is_rule(&q->messages[i])) continue;
        if (!prompt && refine_text_new(engine_vocab(d->engine), a->prompt.ids, a->prompt.len,
                                       &prompt, &ignored))
            break;
        keep_places(a, prompt, &q->messages[i]);
    }
    refine_text_free(prompt);
}

void answer_ask_refined(struct device *d, struct wire_request *r)
{
    struct answer *a = &d->answer;
    if (a->refine_ratio <= 0.0f || a->by_messages || a->turn.n > 0) return;
    r->refine.ratio = a->refine_ratio;
    if (a->q->refine == DEVICE_REFINE_RATIO) r->refine.coverage = 1.0f; /* all of it, as asked */
    r->refine.held = a->turn.kv < a->prompt.len ? a->turn.kv : a->prompt.len;
    keep_system(d);
    r->refine.whole = a->whole;
    r->refine.n_whole = 2 * a->n_whole;
}

/* A cloud may leave out what it likes, but not the rules and the question. */
static int keep_must(struct device *d, uint8_t *bits, uint32_t *ret_added)
{
    struct answer *a = &d->answer;
    const struct wire_refine asked = {.whole = a->whole, .n_whole = 2 * a->n_whole};
    struct err ignored;
    return refine_must(engine_vocab(d->engine), a->prompt.ids, a->prompt.len, &asked, bits,
                       ret_added, &ignored);
}

/* A choice, or a refusal that takes an earlier choice back: what is left is read whole then. */
void answer_refined(struct device *d, const struct wire_event *ev)
{
    struct answer *a = &d->answer;
    struct device_refined *r = &a->report.refined;
    uint32_t n = a->prompt.len;
    if (a->refine_ratio <= 0.0f) return; /* nobody asked */
    const bool first = r->versions == 0;
    r->versions = ev->version;
    if (a->turn.kv >= a->turn.prompt_len) return; /* too late: all is read */
    if (ev->refused[0] && first) {
        snprintf(r->refused, sizeof r->refused, "%s", ev->refused);
        return; /* the whole prompt is being read */
    }
    uint8_t *bits = mem_calloc(n / 8 + 1, 1);
    if (!bits) return; /* then the whole prompt it is */
    for (uint32_t i = 0; i < n; i++)
        if (wire_event_keeps(ev, i)) bits[i / 8] |= (uint8_t)(1u << i % 8);
    uint32_t restored;
    if (keep_must(d, bits, &restored) == 0) {
        if (restored > r->restored) r->restored = restored;
        snprintf(r->refused, sizeof r->refused, "%s", ev->refused);
        r->ratio = ev->ratio;
        r->coverage = ev->coverage;
        turn_refined(&a->turn, clock_us(), bits);
    }
    mem_free(bits);
}

/* The device's own choice, by words: it knows no attention before it has read the prompt. */
int answer_refine_here(struct device *d, struct err *e)
{
    struct answer *a = &d->answer;
    struct device_refined *report = &a->report.refined;
    struct refine *r;
    if (a->q->refine != DEVICE_REFINE_LOCAL || !a->turn.c.use_local) return 0;
    keep_system(d);
    struct wire_refine asked = {.ratio = a->q->refine_ratio,
                                .held = a->turn.c.kv_tokens,
                                .whole = a->whole,
                                .n_whole = 2 * a->n_whole};
    int code = refine_new(engine_vocab(d->engine), a->prompt.ids, a->prompt.len, &asked, &r, e);
    if (code) return code;
    const struct refined *v =
        r->refusal == KEEP_OK ? refine_choose(r, NULL, true) : refine_refuse(r, r->refusal);
    snprintf(report->refused, sizeof report->refused, "%s", keep_refusal_name(v->choice.refusal));
    report->local = true;
    if (v->choice.refusal == KEEP_OK) {
        report->versions = v->version;
        report->ratio = v->choice.ratio;
        report->coverage = v->choice.coverage;
        turn_refined(&a->turn, clock_us(), v->bits);
    }
    refine_free(r);
    return 0;
}

const char *answer_unrefined(const struct device *d)
{
    const struct answer *a = &d->answer;
    const struct device_refined *r = &a->report.refined;
    const struct turn *t = &a->turn;
    if (r->refused[0]) return r->refused;
    if (a->report.turn.refined || (a->q->refine != DEVICE_REFINE_RATIO && a->refine_ratio <= 0.0f))
        return "";
    if (a->refine_ratio <= 0.0f)
        return t->c.prompt_tokens - t->c.kv_tokens < KEEP_NEW_LEAST ? keep_refusal_name(KEEP_SHORT)
                                                                    : "the cloud was not asked";
    if (r->versions == 0) return "no choice came from the cloud";
    return t->map ? "the choice is all of the prompt" : "the choice came too late";
}

/* ---- idle ---- */

/* What an answer left unread: parts of a refined prompt, or all that the cloud alone answered. */
static bool leaves_gap(const struct turn *t)
{
    return t->kv < t->prompt_len + t->n || t->prompt_len < t->c.prompt_tokens;
}

void answer_fill(struct device *d)
{
    struct answer *a = &d->answer;
    struct local_seat *seat = d->core->fill;
    static const struct sampling greedy = SAMPLING_GREEDY;
    bool answered = a->turn.reason == TURN_STOP || a->turn.reason == TURN_LENGTH;
    if (!seat || (!d->core->fill_always && os_on_battery(OS_POWER_SUPPLY))) return;
    if (!d->local || !answered || a->trouble.code || a->as_text ||
        a->q->mode == DEVICE_CLOUD_ONLY || !leaves_gap(&a->turn) || !local_seat_rests(seat))
        return;
    uint32_t n = a->prompt.len + a->turn.shown;
    a->work.len = 0;
    int code = token_list_append(&a->work, a->prompt.ids, a->prompt.len);
    for (uint32_t i = 0; code == 0 && i < a->turn.shown; i++)
        code = token_list_push(&a->work, a->turn.tokens[i].id);
    if (code || n > engine_info(d->engine)->context_max) return;
    local_cancel(seat);
    d->core->fill_done = local_begin(seat, a->work.ids, n, a->q->conversation);
    d->core->fill_total = n;
    (void)local_feed(seat, n - 1, a->work.ids + n - 1, 1, 0, &greedy, NULL);
}

void answer_fill_stop(struct device_core *c)
{
    if (c->fill) local_cancel(c->fill);
}

void answer_fill_end(struct device_core *c)
{
    struct local_event ev;
    while (c->fill && local_take(c->fill, &ev))
        if (ev.kind == LOCAL_PROGRESS)
            c->fill_done = ev.kv;
        else
            local_cancel(c->fill); /* its memory is the cache's now */
}
