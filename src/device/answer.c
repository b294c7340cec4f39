/*
 * answer: drives a turn on the loop thread; see device_impl.h. It decides nothing: what to do next
 * is the turn's word. Here tokens become text, actions become calls, and replies become events.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "device/device_impl.h"
#include "device/text.h"
#include "model/sampler.h"
#include "model/text/vocab.h"
#include "net/sse.h"

enum { RETRY_AFTER_S = 1 /* when a refusal that passes does not say */ };

static void carry_out(struct device *d);

static const struct vocab *vocab_of(const struct device *d)
{
    return d->engine ? engine_vocab(d->engine) : NULL;
}

/* ---- what is shown ---- */

static void tell_text(struct answer *a, size_t from, uint32_t index, enum turn_source source)
{
    if (a->q->on_text)
        a->q->on_text(a->q->arg, a->text.data + from, a->text.len - from, index, source);
}

static void tell_thought(struct answer *a, size_t from, uint32_t index, enum turn_source source)
{
    if (a->q->on_thought && a->thought.len > from)
        a->q->on_thought(a->q->arg, a->thought.data + from, a->thought.len - from, index, source);
}

/* The text of token `id`, which a->piece has, to thought and answer; `n`: tokens up to it. */
static int part_piece(struct answer *a, const struct vocab *v, int32_t id, uint32_t n)
{
    int code = thought_push(&a->parts, v, id, a->piece.data, a->piece.len, &a->thought, &a->text);
    if (a->parts.state == THOUGHT_GOES_ON || a->parts.state == THOUGHT_ENDED) a->n_thought = n;
    return code;
}

/* The text of token k, to thought and answer. */
static int take_text(struct device *d, uint32_t k)
{
    struct answer *a = &d->answer;
    const struct vocab *v = vocab_of(d);
    const struct turn_token *t = &a->turn.tokens[k];
    struct buf *out = a->parts.state == THOUGHT_OVER ? &a->text : &a->piece;
    buf_clear(&a->piece);
    int code = v ? detok_push(&a->detok, v, t->id, out)
                 : buf_append(out, a->cloud_text.data + a->pieces[k].at, a->pieces[k].len);
    if (code || out == &a->text) return code;
    return part_piece(a, v, t->id, a->q->n_have + k + 1);
}

static void show(struct device *d, uint32_t k)
{
    struct answer *a = &d->answer;
    const struct turn_token *t = &a->turn.tokens[k];
    size_t from = a->text.len, thought_from = a->thought.len;
    int code = take_text(d, k);
    if (code) { /* an answer with a hole would be worse than none */
        err_set(&a->trouble, code, "no memory for the answer's text");
        turn_user_stop(&a->turn, clock_us());
    }
    a->tokens[k] = (struct device_token){.id = t->id,
                                         .source = (enum turn_source)t->source,
                                         .arrived_us = t->arrived - a->began,
                                         .shown_us = t->shown - a->began,
                                         .text_at = from,
                                         .text_len = a->text.len - from};
    if (a->q->on_token) a->q->on_token(a->q->arg, &a->tokens[k], k);
    tell_thought(a, thought_from, k, a->tokens[k].source);
    tell_text(a, from, k, a->tokens[k].source);
}

/* Tokens of the cloud that follow the prompt are no part of it. */
static void tell_progress(struct answer *a, uint32_t kv)
{
    uint32_t total = a->turn.prompt_len;
    a->q->on_progress(a->q->arg, kv < total ? kv : total, total);
}

static void tell_trouble(struct answer *a)
{
    if (a->told_trouble || !a->turn.error.code || !a->q->on_trouble) return;
    a->told_trouble = true;
    a->q->on_trouble(a->q->arg, a->turn.error.text);
}

/* Bytes of a character that was never finished, and text that might have become a mark. */
static void show_rest(struct device *d)
{
    struct answer *a = &d->answer;
    uint32_t n = a->turn.shown;
    size_t from = a->text.len, thought_from = a->thought.len;
    if (n == 0) return;
    buf_clear(&a->piece);
    int code = vocab_of(d) ? detok_finish(&a->detok, &a->piece) : 0;
    if (!code)
        code =
            thought_push(&a->parts, NULL, -1, a->piece.data, a->piece.len, &a->thought, &a->text);
    if (!code) code = thought_finish(&a->parts, &a->thought, &a->text);
    if (code || (a->text.len == from && a->thought.len == thought_from)) return;
    a->tokens[n - 1].text_len += a->text.len - from;
    tell_thought(a, thought_from, n - 1, a->tokens[n - 1].source);
    tell_text(a, from, n - 1, a->tokens[n - 1].source);
}

/* ---- the end ---- */

/* The stream is over; its slot is free, but for half a round trip, as long as the grant took. */
static void leave_slot(struct answer *a)
{
    if (a->in_slot) a->report.cloud_slot_us += (double)(clock_us() - a->granted);
    a->in_slot = false;
}

static void close_assist(struct answer *a)
{
    leave_slot(a);
    if (a->assist) assist_add_bytes(a->assist, &a->report.sent_bytes, &a->report.received_bytes);
    assist_close(a->assist);
    a->assist = NULL;
}

void device_report_init(struct device_report *r, const struct engine_info *info)
{
    *r = (struct device_report){.unrefined = "", .unverified = "", .trouble = "", .energy_how = ""};
    if (!info) return;
    r->model = info->model_name;
    r->emulated = info->emulated;
    r->numerics = info->numerics;
    r->weights_hash = info->weights_hash;
}

const char *device_match_name(const struct device_report *r)
{
    if (r->turn.refined && r->turn.device_tokens > 0) return "refined";
    return r->any_match ? wire_match_name(r->match) : NULL;
}

static void fill_report(struct device *d)
{
    struct answer *a = &d->answer;
    struct device_report *r = &a->report;
    turn_report_of(&a->turn, &r->turn);
    r->plan = a->plan;
    r->tokens = a->tokens;
    r->n = a->turn.shown;
    r->text = a->text.data;
    r->text_len = a->text.len;
    r->thought = a->thought.data;
    r->thought_len = a->thought.len;
    r->thought_tokens = a->n_thought;
    r->prompt_tokens = a->turn.c.prompt_tokens;
    r->kept_tokens = a->turn.c.kv_tokens;
    r->prefill_tps = a->turn.tps;
    r->decode_us = a->turn.decode_us;
    r->unrefined = answer_unrefined(d);
    if (r->turn.refined && (r->match != WIRE_EXACT || a->q->verify == DEVICE_VERIFY_ON))
        r->unverified = "the prompt is refined";
    r->trouble = a->turn.error.code && a->turn.reason != TURN_FAILED ? a->turn.error.text : "";
}

static void finish(struct device *d)
{
    struct answer *a = &d->answer;
    a->running = false;
    loop_timer_clear(d->timer);
    close_assist(a);
    if (d->local) local_cancel(d->local);
    answer_fill(d);
    show_rest(d);
    fill_report(d);
    answer_energy_report(d);
    answer_learn(d);
    const struct err *e = a->trouble.code ? &a->trouble : &a->turn.error;
    bool failed = a->turn.reason == TURN_FAILED || a->trouble.code;
    device_answered(d, failed ? e->code : 0, e);
}

/* ---- the cloud ---- */

static enum turn_cloud_end end_of(enum wire_reason r)
{
    static const enum turn_cloud_end ends[] = {
        [WIRE_BUDGET] = TURN_CLOUD_BUDGET, [WIRE_STOP] = TURN_CLOUD_STOP,
        [WIRE_LENGTH] = TURN_CLOUD_LENGTH, [WIRE_CANCEL] = TURN_CLOUD_GONE,
        [WIRE_DEADLINE] = TURN_CLOUD_GONE, [WIRE_DRAIN] = TURN_CLOUD_GONE};
    return ends[r];
}

/* The sentence of a loss that ends the answer says so, where ids are missing to go on with it. */
static void lose_for(struct device *d, uint64_t wait_us, int code, const char *why)
{
    struct answer *a = &d->answer;
    a->report.cause = code;
    struct err full = ERR_INIT;
    if (a->no_ids && !a->turn.local_ok)
        err_set(&full, ERR_NET,
                "%.400s; the answer ends here, as this cloud gives no token ids to "
                "go on with it",
                why);
    turn_cloud_refused(&a->turn, clock_us(), wait_us, full.code ? full.text : why);
}

static void lose_cloud(struct device *d, int code, const char *why)
{
    lose_for(d, 0, code, why);
}

/* Why the tokens of this stream are not to be verified; NULL: they are, "": they need not be. */
static const char *unverified(const struct device *d, enum wire_match match)
{
    const struct device_question *q = d->answer.q;
    if (!d->answer.turn.c.use_local) return "";
    if (match == WIRE_EXACT) /* so it says */
        return q->verify == DEVICE_VERIFY_ON ? NULL : "";
    if (q->verify == DEVICE_VERIFY_OFF) return "switched off";
    if (match == WIRE_WEIGHTS) return NULL;
    if (q->verify == DEVICE_VERIFY_AUTO) return "the cloud does not say that it has our weights";
    return q->sampling.temperature > 0.0f ? "another engine draws other random numbers" : NULL;
}

static void on_grant(struct device *d, const struct wire_event *ev)
{
    struct answer *a = &d->answer;
    uint64_t now = clock_us();
    answer_granted(d, (double)(now - a->opened));
    a->granted = now;
    a->in_slot = true;
    a->report.any_match = true;
    a->report.match = ev->match;
    a->report.cloud_prompt_tokens = ev->prompt_tokens;
    a->report.cloud_cached_tokens = ev->cached_tokens;
    /* Equal tokenizers and templates make equal prompts; anything else goes by text. */
    a->as_text = a->by_messages && vocab_of(d) &&
                 (ev->match == WIRE_TEXT || ev->prompt_tokens != a->prompt.len);
    d->core->other_words = a->as_text;
    a->next_wire = a->have.len;
    if (!a->by_messages && ev->match == WIRE_TEXT)
        lose_cloud(d, ERR_PROTOCOL, "the cloud took token ids though its tokenizer differs");
    else if (a->as_text)
        turn_cloud_by_text(&a->turn, now);
    else {
        turn_cloud_grant(&a->turn, now, ev->tokens_max);
        answer_plan_granted(d, ev->tokens_max);
    }
    const char *why = unverified(d, ev->match);
    if (!why) turn_cloud_verify(&a->turn, now);
    a->report.unverified = why ? why : "";
}

static void first_token(struct device *d, uint64_t now)
{
    struct answer *a = &d->answer;
    if (a->report.cloud_first_us > 0.0) return;
    a->report.cloud_first_us = (double)(now - a->opened);
    uint32_t all = a->report.cloud_prompt_tokens, cached = a->report.cloud_cached_tokens;
    uint32_t uncached = all > cached ? all - cached : 0;
    profile_first_token(&d->core->profile, uncached, (double)(now - a->granted));
    profile_cached(&d->core->profile, a->unsent, uncached);
}

/* The cloud's tokens are not ours: its text becomes tokens of ours, each with the next index. */
static void on_text_token(struct device *d, const struct wire_event *ev, uint64_t now)
{
    struct answer *a = &d->answer;
    struct err why = ERR_INIT;
    if (ev->index < a->next_wire && a->have.ids[ev->index] == ev->token) return; /* again */
    if (ev->index != a->next_wire) {
        lose_cloud(d, ERR_PROTOCOL, "the cloud's tokens are out of order");
        return;
    }
    a->next_wire++;
    a->words.len = 0;
    int code = token_list_push(&a->have, ev->token);
    if (code == 0 && ev->text.len > 0)
        code = text_continue(vocab_of(d), ev->text.data, ev->text.len, &a->words, &why);
    if (code) {
        lose_cloud(d, code, why.code ? why.text : "the answer grew too long");
        return;
    }
    const struct assist *stream = a->assist;
    if (a->words.len == 0) turn_cloud_progress(&a->turn, now, a->turn.cloud_done + 1);
    for (uint32_t i = 0; i < a->words.len && a->running && a->assist == stream; i++) {
        turn_cloud_token(&a->turn, now, a->turn.n, a->words.ids[i]);
        carry_out(d); /* a turn holds the actions of one event, and one text may be many tokens */
    }
}

static bool keep_piece(struct answer *a, const struct wire_event *ev)
{
    if (ev->index != a->turn.n || ev->index >= a->turn.c.answer_max) return true;
    a->pieces[ev->index] = (struct answer_piece){a->cloud_text.len, ev->text.len};
    return buf_append(&a->cloud_text, ev->text.data, ev->text.len) == 0;
}

static void on_token(struct device *d, const struct wire_event *ev)
{
    struct answer *a = &d->answer;
    const struct vocab *v = vocab_of(d);
    uint64_t now = clock_us();
    char why[96];
    first_token(d, now);
    if (ev->token < 0 && (a->as_text || !v)) {
        a->no_ids = true;
        turn_cloud_no_ids(&a->turn);
    }
    if (a->as_text) {
        on_text_token(d, ev, now);
    } else if (v && (ev->token < 0 || (uint32_t)ev->token >= vocab_size(v) ||
                     vocab_is_end(v, ev->token))) {
        snprintf(why, sizeof why, "the cloud sent %d, which is not a token of an answer",
                 ev->token);
        lose_cloud(d, ERR_PROTOCOL, why);
    } else if (!v && !keep_piece(a, ev)) {
        lose_cloud(d, a->cloud_text.error ? a->cloud_text.error : ERR_LIMIT,
                   "the answer grew too long");
    } else {
        turn_cloud_token(&a->turn, now, ev->index, ev->token);
    }
}

static void on_cloud_progress(struct device *d, const struct wire_event *ev)
{
    struct answer *a = &d->answer;
    turn_cloud_progress(&a->turn, clock_us(), ev->done);
    if (a->turn.shown == 0 && a->q->on_cloud_progress)
        a->q->on_cloud_progress(a->q->arg, ev->done, ev->total);
}

static void on_assist_event(void *arg, const struct wire_event *ev)
{
    struct device *d = arg;
    if (ev->kind == WIRE_GRANT)
        on_grant(d, ev);
    else if (ev->kind == WIRE_TOKEN)
        on_token(d, ev);
    else if (ev->kind == WIRE_REFINED)
        answer_refined(d, ev);
    else if (ev->kind == WIRE_PROGRESS)
        on_cloud_progress(d, ev);
    carry_out(d);
}

static void on_assist_done(void *arg, const struct wire_event *ev)
{
    struct device *d = arg;
    leave_slot(&d->answer);
    turn_cloud_done(&d->answer.turn, clock_us(), end_of(ev->reason));
    carry_out(d);
}

static int open_cloud(struct device *d, uint32_t n);

/* Calls or template arguments, which messages to a cloud do not carry. Tools are not among them:
 * none may be called (proto/openai.h), so the answer does without. */
static bool has_more_than_texts(const struct device_question *q)
{
    bool more = q->arguments != NULL;
    for (uint32_t i = 0; q->extras && i < q->n_messages; i++)
        more = more || wire_message_has_calls(q->extras[i]);
    return more;
}

/* A cloud with another tokenizer refuses token ids: it is asked once more, with the messages. */
static bool try_messages(struct device *d, int status)
{
    struct answer *a = &d->answer;
    bool other = status == 400 || status == 409 || status == 422;
    if (!other || a->by_messages || !a->q->n_messages || a->q->n_have || a->turn.n > 0 ||
        has_more_than_texts(a->q))
        return false;
    close_assist(a);
    a->by_messages = true;
    return open_cloud(d, a->turn.cloud_granted - a->turn.cloud_base) == 0;
}

/* How long to wait after a refusal; UINT64_MAX: asking again would not help. A status of the
 * server's own trouble is no refusal, like a cut. */
static uint64_t wait_after(int status, uint32_t retry_after_s)
{
    if (status == 429 || status == 503)
        return (retry_after_s ? retry_after_s : RETRY_AFTER_S) * 1000000ull;
    return status >= 300 && status < 500 && status != 408 ? UINT64_MAX : 0;
}

static void on_assist_lost(void *arg, int status, uint32_t retry_after_s, const struct err *why)
{
    struct device *d = arg;
    if (try_messages(d, status)) return;
    lose_for(d, wait_after(status, retry_after_s), why->code, why->text);
    carry_out(d);
}

static void describe_ourselves(const struct device *d, struct wire_request *r)
{
    if (!d->engine) return;
    const struct engine_info *info = engine_info(d->engine);
    snprintf(r->weights, sizeof r->weights, "%s", info->weights_hash);
    snprintf(r->tokenizer, sizeof r->tokenizer, "%s", info->tokenizer_hash);
    snprintf(r->chat_template, sizeof r->chat_template, "%s", info->template_hash);
    snprintf(r->numerics, sizeof r->numerics, "%s", info->numerics);
}

/* The request only borrows prompt, messages and tokens: it is encoded at once, never released. */
static int open_request(struct device *d, struct wire_request *r, struct err *e)
{
    struct answer *a = &d->answer;
    struct wire_message messages[WIRE_MESSAGES_MAX];
    if (a->by_messages) {
        for (uint32_t i = 0; i < a->q->n_messages; i++) {
            const struct chat_message *m = &a->q->messages[i];
            messages[i] = (struct wire_message){.role = (char *)(uintptr_t)m->role,
                                                .content = (char *)(uintptr_t)m->content,
                                                .content_len = m->content_len};
        }
        r->messages = messages;
        r->n_messages = a->q->n_messages;
        r->now = a->now > 0 ? (uint64_t)a->now : 0;
    } else {
        r->prompt = a->prompt.ids;
        r->n_prompt = a->prompt.len;
    }
    close_assist(a); /* a stream that came to its end */
    struct device_sent sent = {d->core->url, a->by_messages,
                               a->by_messages ? r->n_messages : r->n_prompt, r->n_have};
    int code = a->q->on_send ? a->q->on_send(a->q->arg, &sent, e) : 0;
    if (code) return code;
    struct assist_callbacks on = {on_assist_event, on_assist_done, on_assist_lost, d};
    return assist_open(d->client, d->core->url, r, &on, &a->assist, e);
}

static int collect_have(struct answer *a)
{
    if (a->as_text) return 0; /* kept as they came */
    a->have.len = 0;
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < a->turn.n; i++)
        code = token_list_push(&a->have, a->turn.tokens[i].id);
    return code;
}

/* Tokens of ours cannot be told to a cloud that counts in others. NULL: they need not be. */
static const char *cannot_tell(const struct device *d)
{
    const struct answer *a = &d->answer;
    uint32_t n = a->turn.n;
    if (!a->by_messages || !vocab_of(d)) return NULL;
    if (a->q->sampling.n_biases)
        return "the cloud has another tokenizer: logit_bias names tokens of the model here";
    if (n > 0 && a->turn.tokens[n - 1].source == TURN_DEVICE)
        return "the cloud has another tokenizer: it cannot go on where the device was";
    return NULL;
}

static int open_cloud(struct device *d, uint32_t n)
{
    struct answer *a = &d->answer;
    const char *why_not = cannot_tell(d);
    if (why_not) {
        lose_cloud(d, ERR_UNSUPPORTED, why_not);
        return ERR_UNSUPPORTED;
    }
    struct err e = ERR_INIT;
    struct wire_request r;
    wire_request_init(&r);
    snprintf(r.model, sizeof r.model, "%s", d->core->model);
    describe_ourselves(d, &r);
    r.sampling = a->q->sampling;
    r.answered = a->by_messages ? 0 : a->q->n_have;
    r.tokens_max = n;
    answer_ask_refined(d, &r);
    int code = collect_have(a);
    r.have = a->have.ids;
    r.n_have = a->have.len;
    a->opened = clock_us();
    if (code == 0) code = open_request(d, &r, &e);
    if (code) lose_cloud(d, code, e.code ? e.text : "no memory for a request");
    return code;
}

/* ---- the device's own engine ---- */

/* Where the answer begins in the history that is fed: what a question has of it already is the end
 * of its prompt, and a refined prompt may lack some of that. */
static uint32_t answer_from(const struct answer *a)
{
    uint32_t from = a->turn.prompt_len, begins = a->prompt.len - a->q->n_have;
    while (a->q->n_have && from > 0 && turn_prompt_at(&a->turn, from - 1) >= begins)
        from--;
    return from;
}

static void fail_local(struct device *d, int code, const char *why)
{
    d->answer.report.cause = code;
    turn_local_failed(&d->answer.turn, clock_us(), why);
}

static void feed(struct device *d, uint32_t from, uint32_t to, uint32_t n_draws)
{
    struct answer *a = &d->answer;
    struct err e = ERR_INIT;
    struct sampling sampling = a->q->sampling;
    sampling.answer_from = answer_from(a);
    a->work.len = 0;
    int code = 0;
    for (uint32_t i = from, len = a->turn.prompt_len; code == 0 && i < to; i++)
        code = token_list_push(&a->work, i < len ? a->prompt.ids[turn_prompt_at(&a->turn, i)]
                                                 : a->turn.tokens[i - len].id);
    if (code)
        err_set(&e, code, "no memory for a batch of tokens");
    else
        code = local_feed(d->local, from, a->work.ids, a->work.len, n_draws, &sampling, &e);
    if (code == ERR_LIMIT)
        turn_local_full(&a->turn, clock_us());
    else if (code)
        fail_local(d, code, e.text);
}

static void local_event(struct device *d, const struct local_event *ev)
{
    struct answer *a = &d->answer;
    uint64_t now = clock_us();
    bool current = true;
    for (uint32_t i = 0; i < ev->n_draws; i++)
        current &= turn_local_drawn(&a->turn, now, ev->draw_at + i - a->turn.prompt_len,
                                    ev->draws[i], vocab_is_end(vocab_of(d), ev->draws[i]));
    if (!current) return;
    switch (ev->kind) {
    case LOCAL_PROGRESS:
        turn_local_progress(&a->turn, now, ev->kv);
        if (a->q->on_progress) tell_progress(a, ev->kv);
        break;
    case LOCAL_PAUSED:
        turn_local_paused(&a->turn, now, ev->kv);
        break;
    case LOCAL_TOKEN:
        turn_local_token(&a->turn, now, ev->id, ev->is_end);
        break;
    case LOCAL_FULL:
        turn_local_full(&a->turn, now);
        break;
    case LOCAL_FAILED:
        fail_local(d, ev->why.code, ev->why.text);
        break;
    }
}

void answer_local(struct device *d)
{
    struct local_event ev;
    while (d->answer.running && d->local && local_take(d->local, &ev)) {
        local_event(d, &ev);
        carry_out(d);
    }
}

/* ---- the turn ---- */

static void act(struct device *d, const struct turn_action *action)
{
    struct answer *a = &d->answer;
    switch (action->kind) {
    case TURN_DO_CLOUD_OPEN:
        open_cloud(d, action->n);
        break;
    case TURN_DO_CLOUD_EXTEND:
        if (a->assist) assist_extend(a->assist, action->n);
        break;
    case TURN_DO_CLOUD_STOP:
        close_assist(a);
        break;
    case TURN_DO_FEED:
        feed(d, action->from, action->to, action->n);
        break;
    case TURN_DO_LOCAL_STOP:
        local_cancel(d->local);
        break;
    case TURN_DO_LOCAL_PAUSE:
        local_pause(d->local);
        break;
    case TURN_DO_SHOW:
        show(d, action->n);
        break;
    case TURN_DO_END:
        finish(d);
        break;
    }
}

static void carry_out(struct device *d)
{
    struct answer *a = &d->answer;
    struct turn_action action;
    while (a->running && turn_take(&a->turn, &action))
        act(d, &action);
    if (!a->running) return;
    answer_energy_sample(d);
    tell_trouble(a);
    uint64_t wake = turn_wake(&a->turn, clock_us());
    if (wake == UINT64_MAX)
        loop_timer_clear(d->timer);
    else
        loop_timer_set(d->timer, wake);
}

void answer_tick(struct device *d)
{
    if (!d->answer.running) return;
    turn_tick(&d->answer.turn, clock_us());
    carry_out(d);
}

void answer_cancel(struct device *d)
{
    if (!d->answer.running) return;
    turn_user_stop(&d->answer.turn, clock_us());
    carry_out(d);
}

/* ---- the start ---- */

void answer_release(struct answer *a)
{
    if (a->assist) assist_close(a->assist);
    turn_release(&a->turn);
    token_list_release(&a->prompt);
    token_list_release(&a->work);
    token_list_release(&a->words);
    token_list_release(&a->have);
    buf_release(&a->text);
    buf_release(&a->cloud_text);
    buf_release(&a->thought);
    buf_release(&a->piece);
    thought_release(&a->parts);
    mem_free(a->pieces);
    mem_free(a->tokens);
    *a = (struct answer){0};
}

static void init(struct device *d, const struct device_question *q)
{
    struct answer *a = &d->answer;
    answer_release(a);
    a->q = q;
    a->now = q->now ? q->now : clock_wall_s();
    token_list_init(&a->prompt, WIRE_PROMPT_MAX);
    token_list_init(&a->work, WIRE_PROMPT_MAX + TURN_ANSWER_MAX);
    token_list_init(&a->words, SSE_LINE_MAX);
    token_list_init(&a->have, TURN_ANSWER_MAX);
    buf_init(&a->text, DEVICE_TEXT_MAX);
    buf_init(&a->cloud_text, DEVICE_TEXT_MAX);
    buf_init(&a->thought, DEVICE_TEXT_MAX);
    buf_init(&a->piece, DEVICE_TEXT_MAX);
    device_report_init(&a->report, d->engine ? engine_info(d->engine) : NULL);
    a->report.text = a->text.data;
}

/* The model in the cloud may be another, and think where ours does not: its text has the usual
 * marks then. */
static void part_thoughts(struct device *d)
{
    struct answer *a = &d->answer;
    const struct device_question *q = a->q;
    const struct thought_marks *marks = NULL;
    if (q->on_thought && !q->raw && !q->ids) {
        marks = thought_marks_of(d->engine ? engine_template(d->engine) : NULL, vocab_of(d));
        if (!marks && d->client && q->mode != DEVICE_LOCAL_ONLY)
            marks = thought_marks_of(NULL, NULL);
    }
    thought_init(&a->parts, marks,
                 thought_opened(marks, vocab_of(d), a->prompt.ids, a->prompt.len));
}

/* An answer that goes on: its beginning is part of the prompt, and its text may go on in the middle
 * of a character, or of a thought. */
static int take_have(struct answer *a, const struct vocab *v)
{
    const struct device_question *q = a->q;
    int code = q->n_have ? token_list_append(&a->prompt, q->have, q->n_have) : 0;
    detok_init(&a->detok, !q->raw && !q->ids);
    for (uint32_t i = 0; code == 0 && i < q->n_have; i++) {
        buf_clear(&a->piece);
        code = detok_push(&a->detok, v, q->have[i], &a->piece);
        if (!code) code = part_piece(a, v, q->have[i], i + 1);
    }
    buf_clear(&a->text);
    buf_clear(&a->thought);
    return code;
}

/* Tools that the template has no place for are left out: none may be called. */
static int render(struct device *d, struct err *e)
{
    struct answer *a = &d->answer;
    const struct device_question *q = a->q;
    const struct chat_template *t = engine_template(d->engine);
    struct chat_prompt in = {.messages = q->messages,
                             .extras = q->extras,
                             .n = q->n_messages,
                             .tools = q->tools,
                             .arguments = q->arguments,
                             .generate = true,
                             .now = a->now};
    int code = chat_template_render(t, vocab_of(d), &in, &a->prompt, e);
    if (code != ERR_UNSUPPORTED || !in.tools) return code;
    in.tools = NULL;
    a->prompt.len = 0;
    if (e) *e = (struct err)ERR_INIT;
    return chat_template_render(t, vocab_of(d), &in, &a->prompt, e);
}

static int encode_prompt(struct device *d, struct err *e)
{
    struct answer *a = &d->answer;
    const struct device_question *q = a->q;
    const struct vocab *v = vocab_of(d);
    const struct engine_info *info = engine_info(d->engine);
    int code;
    if (q->ids)
        code = token_list_append(&a->prompt, q->ids, q->n_ids);
    else if (q->raw)
        code = vocab_encode(v, q->raw, q->raw_len, VOCAB_ADD_BOS, &a->prompt, e);
    else if (engine_template(d->engine))
        code = render(d, e);
    else
        return err_set(e, ERR_UNSUPPORTED,
                       "model %s has no chat template: use --raw, or name one with --chat-template",
                       info->model_name);
    if (code) return code;
    if (a->prompt.len == 0) return err_set(e, ERR_BAD_INPUT, "the prompt is empty");
    part_thoughts(d);
    if (take_have(a, v)) return err_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    if (a->prompt.len > info->context_max || info->context_max - a->prompt.len < q->room_min)
        return err_set(e, ERR_LIMIT,
                       "the prompt has %u tokens, and the context of model %s holds %u: shorten "
                       "it, or begin a new chat",
                       a->prompt.len, info->model_name, info->context_max);
    return 0;
}

static void make_config(struct device *d, struct turn_config *ret_config)
{
    struct answer *a = &d->answer;
    uint32_t most = a->q->tokens_max ? a->q->tokens_max : DEVICE_ANSWER_DEFAULT;
    if (most > TURN_ANSWER_MAX) most = TURN_ANSWER_MAX;
    struct turn_config c = {.prompt_tokens = 1,
                            .answer_max = most,
                            .pace = a->q->pace,
                            .stall_us = d->core->stall_us,
                            .reopen_max = DEVICE_REOPEN_MAX};
    if (d->engine) {
        /* as the cloud counts; a prompt that fills the context still has one token after it */
        uint32_t room = engine_info(d->engine)->context_max - a->prompt.len;
        if (room == 0) room = 1;
        c.answer_max = most < room ? most : room;
        c.prompt_tokens = a->prompt.len;
    }
    if (d->local && a->q->mode != DEVICE_CLOUD_ONLY) {
        c.kv_tokens = local_begin(d->local, a->prompt.ids, a->prompt.len, a->q->conversation);
        if (c.kv_tokens == c.prompt_tokens) c.kv_tokens--; /* one must run to give the next */
    }
    answer_plan(d, &c);
    c.use_cloud = a->plan.choice != PLAN_DEVICE;
    /* With PLAN_CLOUD the device is there in case the cloud is lost. */
    c.use_local = d->local && a->q->mode != DEVICE_CLOUD_ONLY;
    c.fixed = a->q->cloud_tokens >= 0;
    if (!c.use_local) c.decode_us = 0.0;
    *ret_config = c;
}

static int check_question(const struct device *d, const struct device_question *q, struct err *e)
{
    if (q->mode == DEVICE_LOCAL_ONLY && !d->local)
        return err_set(e, ERR_BAD_INPUT, "local only, and no model on the device");
    if (q->mode == DEVICE_CLOUD_ONLY && !d->client)
        return err_set(e, ERR_BAD_INPUT, "cloud only, and no cloud is given");
    if (q->n_have && !d->engine)
        return err_set(e, ERR_UNSUPPORTED, "an answer goes on with a model on the device only");
    if (has_more_than_texts(q) && !d->engine)
        return err_set(e, ERR_UNSUPPORTED,
                       "messages with calls or results, and arguments of the chat template need a "
                       "model on the device");
    if ((q->raw || q->ids) && !d->engine)
        return err_set(e, ERR_UNSUPPORTED, "a raw prompt needs a model on the device");
    if (!q->raw && !q->ids && (q->n_messages == 0 || q->n_messages > WIRE_MESSAGES_MAX))
        return err_set(e, ERR_LIMIT, "a chat of %u messages: 1 to %d are possible", q->n_messages,
                       WIRE_MESSAGES_MAX);
    int code = sampling_check(&q->sampling, e);
    if (code || !d->engine) return code;
    return sampling_check_ids(&q->sampling, engine_info(d->engine)->vocab_size, e);
}

int answer_start(struct device *d, const struct device_question *q, struct err *e)
{
    struct answer *a = &d->answer;
    struct turn_config c;
    init(d, q);
    answer_fill_stop(d->core);
    int code = check_question(d, q, e);
    if (code == 0 && d->engine)
        code = encode_prompt(d, e);
    else
        part_thoughts(d);
    if (code) return code;
    a->by_messages = !d->engine || (d->core->other_words && q->n_messages && !q->n_have &&
                                    !has_more_than_texts(q));
    make_config(d, &c);
    a->tokens = mem_calloc(c.answer_max, sizeof *a->tokens);
    a->pieces = d->engine ? NULL : mem_calloc(c.answer_max, sizeof *a->pieces);
    if (!a->tokens || (!d->engine && !a->pieces))
        return err_set(e, ERR_NO_MEMORY, "no memory for an answer of %u tokens", c.answer_max);
    code = turn_init(&a->turn, &c, e);
    if (code) return code;
    code = answer_refine_here(d, e);
    if (code) return code;
    a->began = clock_us();
    a->running = true;
    answer_energy_begin(d);
    turn_start(&a->turn, a->began);
    carry_out(d);
    return 0;
}
