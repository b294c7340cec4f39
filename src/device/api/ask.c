/* ask: one question and its answer, from the queue to the end; see serve_impl.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/mem.h"
#include "device/api/serve_impl.h"
#include "proto/stop.h"

enum {
    REPORT_MAX = 8 << 20,
    BRIEF_MAX = 4096,
    ALONE_TOKENS_MAX = 8192, /* of an answer whose length is not said, without an engine here */
    LOOK_AGAIN_US = 3000,    /* when a device is still in a step that was cancelled */
    ID_BYTES = 8
};

const char *const ask_modes[] = {"auto", "local", "cloud", NULL};

int ask_word(const char *const *words, const char *text)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], text) == 0) return i;
    return -1;
}

/* ---- making one ---- */

struct ask *ask_new(struct serve *s)
{
    struct ask *a = mem_calloc(1, sizeof *a);
    unsigned char random[ID_BYTES];
    if (!a || getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        mem_free(a);
        return NULL;
    }
    a->serve = s;
    a->created = (uint64_t)time(NULL);
    memcpy(a->id, "ans-", 4);
    hex_encode(random, sizeof random, a->id + 4);
    buf_init(&a->text, DEVICE_TEXT_MAX);
    buf_init(&a->thought, DEVICE_TEXT_MAX);
    buf_init(&a->echo, DEVICE_TEXT_MAX);
    buf_init(&a->tokens, (size_t)TURN_ANSWER_MAX * sizeof(struct ask_token));
    buf_init(&a->report, REPORT_MAX);
    buf_init(&a->brief, BRIEF_MAX);
    token_list_init(&a->ids, WIRE_PROMPT_MAX);
    token_list_init(&a->have, TURN_ANSWER_MAX);
    openai_pdd_init(&a->pdd);
    return a;
}

void ask_free(struct ask *a)
{
    if (!a) return;
    CHECK(!a->readers && !a->device);
    openai_request_release(&a->q);
    token_list_release(&a->ids);
    token_list_release(&a->have);
    mem_free(a->messages);
    buf_release(&a->text);
    buf_release(&a->thought);
    buf_release(&a->echo);
    buf_release(&a->tokens);
    buf_release(&a->report);
    buf_release(&a->brief);
    mem_free(a);
}

struct ask *ask_find(struct serve *s, const char *id)
{
    struct ask *a = s->asks;
    while (a && strcmp(a->id, id) != 0)
        a = a->next;
    return a;
}

/* ---- several answers to one request ---- */

int ask_name_choice(struct ask *a, const char *first, uint32_t choice, struct err *e)
{
    int n = first == a->id ? 0
            : choice       ? snprintf(a->id, sizeof a->id, "%s.%u", first, choice)
                           : snprintf(a->id, sizeof a->id, "%s", first);
    if (n < 0 || (size_t)n >= sizeof a->id)
        return err_set(e, ERR_BAD_INPUT, "pdd.id: at most %d characters, with several answers",
                       WIRE_ID_MAX - 5);
    a->choice = choice;
    a->n_choices = openai_request_choices(&a->q);
    return 0;
}

void ask_take_choice(struct ask *a)
{
    const char *dot = strchr(a->id, '.');
    unsigned long k = dot ? strtoul(dot + 1, NULL, 10) : 0;
    a->n_choices = openai_request_choices(&a->q);
    a->choice = k < a->n_choices ? (uint32_t)k : 0;
}

struct ask *ask_find_choice(struct serve *s, const char *id, uint32_t choice)
{
    char name[2 * WIRE_ID_MAX];
    int base = (int)strcspn(id, ".");
    if (choice)
        snprintf(name, sizeof name, "%.*s.%u", base, id, choice);
    else
        snprintf(name, sizeof name, "%.*s", base, id);
    return ask_find(s, name);
}

static void line_up(struct ask *a)
{
    a->lined = true;
    admit_join(a->serve->line, a, a->tenant, 0);
    loop_timer_set(a->serve->start_timer, 0);
}

/* Whether the prompt is to be read for another answer first, so that it is read once. */
static bool waits_for_prompt(const struct ask *a)
{
    uint32_t first = a->choice - a->choice % a->q.n;
    const struct ask *lead = first == a->choice ? NULL : ask_find_choice(a->serve, a->id, first);
    return lead && lead->state != ASK_OVER && lead->n_tokens == 0;
}

/* The prompt of `a` is read, or it is over: further answers to it may begin. */
static void let_others_begin(const struct ask *a)
{
    if (a->choice % a->q.n) return;
    for (uint32_t k = 1; k < a->q.n; k++) {
        struct ask *other = ask_find_choice(a->serve, a->id, a->choice + k);
        if (other && other->state == ASK_WAITING && !other->lined) line_up(other);
    }
}

const struct ask_token *ask_token_at(const struct ask *a, uint32_t i)
{
    return (const struct ask_token *)(const void *)a->tokens.data + i;
}

const char *ask_state_name(const struct ask *a)
{
    static const char *const names[] = {"held", "waiting", "running"};
    if (a->state != ASK_OVER) return names[a->state];
    return a->failure.code ? "failed" : "done";
}

struct openai_head ask_head(const struct ask *a, const char *pdd)
{
    const struct serve *s = a->serve;
    return (struct openai_head){.chat = a->q.chat,
                                .id = a->id,
                                .model = s->model,
                                .fingerprint = s->fingerprint,
                                .created = a->created,
                                .pdd = pdd};
}

/* ---- its end ---- */

/* Of those that are over only the latest stay. `ended` is in its caller's hands still. */
static void trim(struct serve *s, const struct ask *ended)
{
    struct ask **oldest = NULL;
    if (s->n_over <= SERVE_KEPT_MAX) return;
    for (struct ask **link = &s->asks; *link; link = &(*link)->next)
        if ((*link)->state == ASK_OVER && !(*link)->readers && *link != ended) oldest = link;
    if (!oldest) return;
    struct ask *a = *oldest;
    *oldest = a->next;
    s->n_over--;
    record_forget(s->record, a->id);
    ask_free(a);
}

static void count_end(struct serve *s, const struct ask *a)
{
    struct serve_metrics *m = &s->metrics;
    if (a->failure.code)
        m->failed++;
    else if (strcmp(a->finish, "stop") == 0)
        m->stopped++;
    else if (strcmp(a->finish, "length") == 0)
        m->length++;
    else
        m->cancelled++;
}

static void end(struct ask *a, const char *finish)
{
    struct serve *s = a->serve;
    a->state = ASK_OVER;
    let_others_begin(a);
    a->finish = finish;
    a->n_clear = a->n_tokens;
    a->clear = a->text.len;
    openai_request_free_prompt(&a->q);
    token_list_release(&a->ids);
    record_state(s->record, a);
    count_end(s, a);
    s->n_over++;
    reader_tell(a);
    trim(s, a);
    if (a->forgotten) loop_timer_set(s->forget_timer, 0);
}

static void fail(struct ask *a, const struct err *why)
{
    a->failure = *why;
    end(a, "error");
}

static uint32_t place_of(const struct serve *s, const struct ask *a)
{
    uint32_t i = 0;
    while (s->runs[i] != a)
        i++;
    return i;
}

static void note_report(struct ask *a, const struct device_report *r)
{
    struct serve_metrics *m = &a->serve->metrics;
    m->tokens[TURN_CLOUD] += r->turn.cloud_tokens;
    m->tokens[TURN_DEVICE] += r->turn.device_tokens;
    m->handovers += r->turn.handover > 0;
    m->sent_bytes += a->sent_bytes = r->sent_bytes;
    m->received_bytes += a->received_bytes = r->received_bytes;
    if (r->n > 0) {
        m->first_us += r->turn.ttft_us;
        m->first_n += 1.0;
    }
    /* What a restart had left of the answer was read again, and is no part of the prompt. */
    uint32_t prompt = a->serve->info ? r->prompt_tokens : r->cloud_prompt_tokens;
    prompt -= a->have.len < prompt ? a->have.len : prompt;
    uint32_t cached =
        r->kept_tokens > r->cloud_cached_tokens ? r->kept_tokens : r->cloud_cached_tokens;
    a->usage = (struct openai_usage){
        .prompt_tokens = prompt,
        .cached_tokens = cached < prompt ? cached : prompt,
        .completion_tokens = a->n_tokens,
        .reasoning_tokens = r->thought_tokens < a->n_tokens ? r->thought_tokens : a->n_tokens};
    if (report_put(&a->report, a, r, false)) buf_release(&a->report);
    if (report_put(&a->brief, a, r, true)) buf_release(&a->brief);
}

static const char *finish_of(const struct ask *a, enum turn_reason reason)
{
    if (a->stopped || reason == TURN_STOP) return "stop";
    return reason == TURN_LENGTH ? "length" : "cancelled";
}

static void on_done(void *arg, int code, const struct device_report *r, const struct err *why)
{
    struct ask *a = arg;
    struct serve *s = a->serve;
    s->runs[place_of(s, a)] = NULL;
    a->device = NULL;
    admit_ended(s->line, a->tenant);
    loop_timer_set(s->start_timer, 0); /* the next one starts from there */
    note_report(a, r);
    if (a->failure.code)
        end(a, "error");
    else if (code && !a->stopped)
        fail(a, why);
    else
        end(a, finish_of(a, r->turn.reason));
}

/* ---- its answer ---- */

/* Find stop strings in what has come. At one the text ends, and with it the tokens. */
static void find_stop(struct ask *a)
{
    size_t more;
    bool found =
        stop_scan(a->q.stops, a->q.n_stops, a->text.data + a->clear, a->text.len - a->clear, &more);
    a->clear += more;
    while (a->n_clear < a->n_tokens) {
        const struct ask_token *t = ask_token_at(a, a->n_clear);
        if (t->at + t->len > a->clear) break;
        a->n_clear++;
    }
    if (!found) return;
    /* The token in which it begins is the last one. All are clear where it is in the rest of the
     * last one's character, which came later. */
    struct ask_token *tokens = (struct ask_token *)(void *)a->tokens.data;
    a->n_clear += a->n_clear < a->n_tokens && tokens[a->n_clear].at < a->clear;
    a->n_tokens = a->n_clear;
    if (a->n_tokens > 0) {
        struct ask_token *last = &tokens[a->n_tokens - 1];
        last->len = (uint32_t)a->clear - last->at;
    }
    buf_cut(&a->text, a->clear);
    buf_cut(&a->tokens, a->n_tokens * sizeof *tokens);
    a->stopped = true;
    loop_timer_set(a->serve->start_timer, 0); /* a callback does not stop its own answer */
}

static void on_token(void *arg, const struct device_token *token, uint32_t index)
{
    struct ask *a = arg;
    (void)index;
    a->next_id = token->id;
}

static void out_of_memory(struct ask *a)
{
    err_set(&a->failure, ERR_NO_MEMORY, "no memory for the answer");
    a->stopped = true;
    loop_timer_set(a->serve->start_timer, 0);
}

/* Before its token's text. */
static void on_thought(void *arg, const char *text, size_t n, uint32_t index,
                       enum turn_source source)
{
    struct ask *a = arg;
    (void)index;
    (void)source;
    if (a->stopped) return;
    if (buf_append(&a->thought, text, n))
        out_of_memory(a);
    else
        a->thought_new += (uint32_t)n;
}

static void on_text(void *arg, const char *text, size_t n, uint32_t index, enum turn_source source)
{
    struct ask *a = arg;
    if (a->stopped) return;
    a->last = clock_us();
    if (!a->first) a->first = a->last;
    struct ask_token t = {.at = (uint32_t)a->text.len,
                          .len = (uint32_t)n,
                          .thought_at = (uint32_t)a->thought.len - a->thought_new,
                          .thought_len = a->thought_new,
                          .id = a->next_id,
                          .source = (uint8_t)source};
    index += a->have.len;
    int code = buf_append(&a->text, text, n);
    if (index < a->n_tokens) {
        struct ask_token *last = (struct ask_token *)(void *)a->tokens.data + index;
        last->len += (uint32_t)n;
        last->thought_len += a->thought_new;
    } else if (!code && !(code = buf_append(&a->tokens, &t, sizeof t))) {
        if (++a->n_tokens == 1) let_others_begin(a);
    }
    a->thought_new = 0;
    if (code) {
        out_of_memory(a);
        return;
    }
    record_token(a->serve->record, a, index);
    find_stop(a);
    reader_tell(a);
}

static void on_progress(void *arg, uint32_t done, uint32_t total)
{
    struct ask *a = arg;
    a->progress[TURN_DEVICE] = (struct ask_progress){done, total};
    reader_tell(a);
}

static void on_cloud_progress(void *arg, uint32_t done, uint32_t total)
{
    struct ask *a = arg;
    a->progress[TURN_CLOUD] = (struct ask_progress){done, total};
    reader_tell(a);
}

static void on_trouble(void *arg, const char *why)
{
    struct ask *a = arg;
    snprintf(a->trouble, sizeof a->trouble, "%s", why);
    reader_tell(a);
}

/* What leaves is on record, or it does not leave. A state folder that cannot be used is an error
 * only where the user is asked before sending; else it is sent without a record. */
static int on_send(void *arg, const struct device_sent *sent, struct err *e)
{
    struct ask *a = arg;
    struct serve *s = a->serve;
    int code = 0;
    if (s->record)
        code = record_sent(s->record, a, sent, e);
    else if (s->c.state_dir && s->c.ask_before_sending)
        code = err_set(e, ERR_IO, "nothing is sent: the state folder cannot be used (see the log)");
    if (!code) s->metrics.sends++;
    return code;
}

/* ---- its start ---- */

static int fill_question(struct ask *a, struct err *e)
{
    const struct wire_request *ask = &a->q.ask;
    bool endless = ask->tokens_max >= WIRE_TOKENS_MAX && !a->serve->info;
    a->question = (struct device_question){
        .n_messages = ask->n_messages,
        .ids = a->ids.len ? a->ids.ids : NULL,
        .n_ids = a->ids.len,
        .have = a->have.ids,
        .n_have = a->have.len,
        .now = clock_wall_of((int64_t)a->created),
        .conversation = a->pdd.conversation,
        .sampling = ask->sampling,
        .tokens_max = endless ? ALONE_TOKENS_MAX : ask->tokens_max - a->have.len,
        .mode = a->mode,
        .pace = a->serve->c.pace,
        .refine = a->serve->c.refine,
        .refine_ratio = a->serve->c.refine_ratio,
        .cloud_tokens = a->pdd.cloud_tokens == UINT32_MAX ? -1 : (int64_t)a->pdd.cloud_tokens,
        .on_text = on_text,
        .on_thought = a->q.chat && !a->q.thoughts_in_text ? on_thought : NULL,
        .on_token = on_token,
        .on_progress = on_progress,
        .on_cloud_progress = on_cloud_progress,
        .on_trouble = on_trouble,
        .on_send = on_send,
        .arg = a};
    int pace = ask_word(pace_mode_names, a->pdd.pace);
    if (pace >= 0) a->question.pace = (enum pace_mode)pace;
    if (a->pdd.refine >= 0.0f) {
        bool off = a->pdd.refine <= 0.0f || a->pdd.refine >= 1.0f;
        a->question.refine = off ? DEVICE_REFINE_OFF : DEVICE_REFINE_RATIO;
        a->question.refine_ratio = a->pdd.refine;
    }
    if (ask->n_messages == 0) return 0;
    a->messages = mem_calloc(ask->n_messages, sizeof *a->messages);
    if (!a->messages) return err_set(e, ERR_NO_MEMORY, "no memory for the messages");
    for (uint32_t i = 0; i < ask->n_messages; i++)
        a->messages[i] = (struct chat_message){ask->messages[i].role, ask->messages[i].content,
                                               ask->messages[i].content_len};
    a->question.messages = a->messages;
    a->question.extras = (const char *const *)ask->extras;
    a->question.tools = ask->tools;
    a->question.arguments = ask->arguments;
    return 0;
}

static void start(struct serve *s, struct ask *a, uint32_t place)
{
    struct err e = ERR_INIT;
    int code = fill_question(a, &e);
    a->state = ASK_RUNNING;
    a->began = clock_us();
    a->device = s->devices[place];
    s->runs[place] = a;
    if (code == 0) code = device_start(a->device, &a->question, on_done, a, &e);
    if (code == 0) {
        if (a->state == ASK_RUNNING) reader_tell(a);
        return;
    }
    s->runs[place] = NULL;
    a->device = NULL;
    admit_ended(s->line, a->tenant);
    fail(a, &e);
}

/* A device with nothing to do; *ret_wait: there is one, but in a step of an answer that was
 * cancelled. UINT32_MAX: none. */
static uint32_t free_device(struct serve *s, bool *ret_wait)
{
    *ret_wait = false;
    for (uint32_t i = 0; i < s->c.answers_max; i++) {
        if (s->runs[i]) continue;
        if (device_rests(s->devices[i])) return i;
        *ret_wait = true;
    }
    return UINT32_MAX;
}

void ask_start_waiting(void *serve)
{
    struct serve *s = serve;
    bool wait = false;
    for (uint32_t i = 0; i < s->c.answers_max; i++)
        if (s->runs[i] && s->runs[i]->stopped) device_stop(s->devices[i]);
    while (admit_waiting(s->line) > 0) { /* who is next is decided when there is a device */
        uint32_t place = free_device(s, &wait);
        if (place == UINT32_MAX) break;
        struct ask *a = admit_next(s->line);
        admit_begin(s->line);
        start(s, a, place);
    }
    if (wait && admit_waiting(s->line) > 0)
        loop_timer_set(s->start_timer, clock_us() + LOOK_AGAIN_US);
}

/* ---- the queue ---- */

static uint64_t keep_us(const struct ask *a)
{
    if (a->dropped) return 0;
    uint32_t keep_s = a->pdd.keep_s == UINT32_MAX ? a->serve->c.keep_s : a->pdd.keep_s;
    return keep_s * 1000000ull;
}

static void join(struct ask *a)
{
    a->state = ASK_WAITING;
    if (!waits_for_prompt(a)) line_up(a);
}

static void count_inside(const struct serve *s, const struct ask *own, struct admit_state *state)
{
    for (const struct ask *a = s->asks; a; a = a->next) {
        if (a->state == ASK_OVER) continue;
        state->inside++;
        state->inside_own += a->tenant == own->tenant;
    }
}

/* The text of a prompt that is to be echoed; of ids as a reader would see it. */
static int make_echo(struct ask *a, const struct openai_prompt *p)
{
    struct detok d;
    int code = 0;
    if (!a->q.echo) return 0;
    buf_clear(&a->echo);
    if (p->text) return buf_append(&a->echo, p->text, p->text_len);
    detok_init(&d, true);
    for (uint32_t i = 0; i < p->n_ids && !code; i++)
        code = detok_push(&d, a->serve->vocab, p->ids[i], &a->echo);
    return code ? code : detok_finish(&d, &a->echo);
}

static int take_ids(struct ask *a, const struct openai_prompt *p, struct err *e)
{
    const struct vocab *v = a->serve->vocab;
    for (uint32_t i = 0; i < p->n_ids; i++)
        if (p->ids[i] < 0 || (uint32_t)p->ids[i] >= vocab_size(v))
            return err_set(e, ERR_BAD_INPUT,
                           "prompt[%u]: token id %d is outside the vocabulary of %u", i, p->ids[i],
                           vocab_size(v));
    return token_list_append(&a->ids, p->ids, p->n_ids);
}

int ask_make_prompt(struct ask *a, struct err *e)
{
    const struct vocab *v = a->serve->vocab;
    if (a->q.chat) return 0;
    if (!v)
        return err_set(e, ERR_UNSUPPORTED,
                       "prompt: without a model on the device only messages can be answered");
    struct openai_prompt p = openai_request_prompt(&a->q, a->choice / a->q.n);
    int code = p.text
                   ? vocab_encode(v, p.text, p.text_len, VOCAB_ADD_BOS | VOCAB_SPECIAL, &a->ids, e)
                   : take_ids(a, &p, e);
    if (!code && a->ids.len == 0) code = err_set(e, ERR_BAD_INPUT, "the prompt is empty");
    if (!code) code = make_echo(a, &p);
    return code == ERR_NO_MEMORY ? err_set(e, code, "no memory for the prompt") : code;
}

/* What it has becomes the beginning that the device goes on from. 1: it is complete. */
static int take_have(struct ask *a, struct err *e)
{
    find_stop(a);
    if (a->stopped || a->n_tokens >= a->q.ask.tokens_max) return 1;
    if (!a->serve->info)
        return err_set(e, ERR_CANCELLED,
                       "the device was stopped, and without a model on it the "
                       "answer cannot go on");
    for (uint32_t i = 0; i < a->n_tokens; i++)
        if (token_list_push(&a->have, ask_token_at(a, i)->id))
            return err_set(e, ERR_NO_MEMORY, "no memory for the answer");
    return ask_make_prompt(a, e);
}

static bool may_be_sent(const struct ask *a)
{
    return a->serve->c.device.cloud_url && a->mode != DEVICE_LOCAL_ONLY;
}

/* It went on without a word when the program was killed. What has not reached this cloud yet waits
 * for the user's yes if this run asks for it: another one may not have, or had another cloud. */
static void go_on(struct ask *a)
{
    struct serve *s = a->serve;
    bool known = !may_be_sent(a) || record_was_sent(s->record, a->id, device_core_url(s->core));
    if (!s->c.ask_before_sending || known) {
        join(a);
        return;
    }
    a->state = ASK_HELD;
    record_state(s->record, a);
}

void ask_restore(struct ask *a)
{
    struct serve *s = a->serve;
    struct err e = ERR_INIT;
    a->next = s->asks;
    s->asks = a;
    if (a->state == ASK_OVER) {
        if (a->q.echo) (void)ask_make_prompt(a, &e);
        token_list_release(&a->ids);
        a->n_clear = a->n_tokens;
        a->clear = a->text.len;
        a->usage.completion_tokens = a->n_tokens;
        openai_request_free_prompt(&a->q);
        s->n_over++;
        trim(s, a);
        return;
    }
    int code = take_have(a, &e);
    a->unread_since = clock_us();
    if (code > 0)
        end(a, a->stopped ? "stop" : "length");
    else if (code < 0)
        fail(a, &e);
    else if (keep_us(a) == 0)
        end(a, "cancelled"); /* its client is gone, as its connection is */
    else if (a->state == ASK_WAITING)
        go_on(a);
    if (a->state != ASK_OVER) loop_timer_set(s->unread_timer, a->unread_since + keep_us(a));
}

int ask_submit(struct ask *a, const char *request, size_t n, struct err *e)
{
    struct serve *s = a->serve;
    struct admit_state state = {.slots = s->c.answers_max,
                                .slots_max = s->c.answers_max,
                                .queue_max = s->c.queue_max,
                                .keyed = true};
    count_inside(s, a, &state);
    switch (admit_enter(&state)) {
    case ADMIT_ENTERS:
        break;
    case ADMIT_SHARE_TAKEN:
        s->metrics.busy++;
        return err_set(e, ERR_BUSY, "this client has %u answers running or waiting: its share",
                       state.inside_own);
    case ADMIT_FULL:
        s->metrics.busy++;
        return err_set(e, ERR_BUSY, "%u answers run and %u wait: the queue is full",
                       s->c.answers_max, state.inside - s->c.answers_max);
    }
    a->next = s->asks;
    s->asks = a;
    s->metrics.asked++;
    a->state = s->c.ask_before_sending && may_be_sent(a) ? ASK_HELD : ASK_WAITING;
    record_ask(s->record, a, request, n);
    if (a->state == ASK_WAITING)
        join(a);
    else if (s->c.on_held && a->choice == 0)
        s->c.on_held(s->c.on_held_arg, a->id);
    return 0;
}

void ask_allow(struct ask *a, bool send)
{
    struct err e = ERR_INIT;
    if (a->state != ASK_HELD) return;
    if (!send) a->mode = DEVICE_LOCAL_ONLY;
    if (send || a->serve->info) {
        join(a);
        record_state(a->serve->record, a);
        reader_tell(a);
    }
    for (uint32_t k = 1; a->choice == 0 && k < a->n_choices; k++) { /* one word for all answers */
        struct ask *other = ask_find_choice(a->serve, a->id, k);
        if (other) ask_allow(other, send);
    }
    if (send || a->serve->info) return;
    err_set(&e, ERR_DENIED,
            "the user did not allow that the question is sent to the cloud, and "
            "there is no model on the device");
    fail(a, &e);
}

const char *serve_held(const struct serve *s)
{
    const char *oldest = NULL;
    for (const struct ask *a = s->asks; a; a = a->next)
        if (a->state == ASK_HELD && a->choice == 0) oldest = a->id;
    return oldest;
}

bool serve_allow(struct serve *s, const char *id, bool send)
{
    struct ask *a = ask_find(s, id);
    if (!a || a->state != ASK_HELD) return false;
    ask_allow(a, send);
    return true;
}

static bool is_the_one(void *arg, void *waiting)
{
    return arg == waiting;
}

void ask_cancel(struct ask *a)
{
    switch (a->state) {
    case ASK_WAITING:
        admit_sweep(a->serve->line, is_the_one, a);
        end(a, "cancelled");
        break;
    case ASK_HELD:
        end(a, "cancelled");
        break;
    case ASK_RUNNING:
        device_stop(a->device);
        break;
    case ASK_OVER:
        break;
    }
}

void ask_drop(struct ask *a)
{
    a->dropped = true;
    a->unread_since = clock_us();
    loop_timer_set(a->serve->unread_timer, 0);
}

/* ---- a conversation that was deleted ---- */

static struct ask *next_of(const struct serve *s, const char *conversation)
{
    for (struct ask *a = s->asks; a; a = a->next)
        if (!a->forgotten && strcmp(a->pdd.conversation, conversation) == 0) return a;
    return NULL;
}

void ask_forget(struct serve *s, const char *conversation)
{
    struct ask *a;
    while ((a = next_of(s, conversation)) != NULL) { /* an end may free others: see trim */
        a->forgotten = true;
        ask_cancel(a);
    }
    ask_sweep(s);
}

void ask_sweep(void *serve)
{
    struct serve *s = serve;
    bool any = false;
    for (struct ask **link = &s->asks; *link;) {
        struct ask *a = *link;
        if (!a->forgotten || a->state != ASK_OVER || a->readers || a->device) {
            link = &a->next;
            continue;
        }
        *link = a->next;
        s->n_over--;
        record_forget(s->record, a->id);
        ask_free(a);
        any = true;
    }
    if (any) record_scrub(s->record);
}

struct openai_timings ask_timings(const struct ask *a)
{
    const struct openai_usage *u = &a->usage;
    struct openai_timings t = {.cached = u->cached_tokens, .predicted = a->n_tokens - a->have.len};
    t.prompt = u->prompt_tokens > u->cached_tokens ? u->prompt_tokens - u->cached_tokens : 0;
    if (a->first) t.prompt_us = a->first - a->began;
    t.predicted_us = a->last - a->first;
    return t;
}

uint32_t ask_waiting(const struct serve *s)
{
    return admit_waiting(s->line);
}

/* ---- answers that nobody reads ---- */

void ask_nobody_reads(struct ask *a)
{
    if (a->state == ASK_OVER) {
        if (a->forgotten) loop_timer_set(a->serve->forget_timer, 0);
        return;
    }
    a->unread_since = clock_us();
    ask_check_unread(a->serve);
}

void ask_check_unread(void *serve)
{
    struct serve *s = serve;
    uint64_t now = clock_us(), next = UINT64_MAX;
    for (struct ask *a = s->asks, *after; a; a = after) {
        after = a->next; /* an end may free an older one only: see trim */
        if (a->state == ASK_OVER || a->readers || a->unread_since == 0) continue;
        uint64_t until = a->unread_since + keep_us(a);
        if (until <= now) {
            ask_cancel(a);
            after = s->asks; /* begin again: asks were freed, maybe */
            next = UINT64_MAX;
        } else if (until < next) {
            next = until;
        }
    }
    if (next != UINT64_MAX) loop_timer_set(s->unread_timer, next);
}
