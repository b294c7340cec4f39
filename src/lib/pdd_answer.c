/*
 * pdd_answer: an answer of libpdd, between the loop thread that makes it and the user's thread,
 * which fetches what has come and calls the callbacks; see pdd.h and lib_impl.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "lib/json_report.h"
#include "lib/lib_impl.h"

enum { TOKENS_FIRST = 64 };

static void lock(struct pdd_answer *a)
{
    pthread_mutex_lock(&a->device->lock);
}

static void unlock(struct pdd_answer *a)
{
    pthread_mutex_unlock(&a->device->lock);
}

/* ---- the loop thread ---- */

void lib_answer_signal(struct pdd_answer *a)
{
    uint64_t one = 1;
    ssize_t done = write(a->fd, &one, sizeof one);
    (void)done; /* it can only fail when it is readable already */
}

/* An answer with a hole would be worse than none. */
static void fail(struct pdd_answer *a, int code)
{
    if (!a->why.code) err_set(&a->why, code, "no memory for the answer");
    a->cancel = true;
    lib_device_wake(a->device);
}

static int make_room(struct pdd_answer *a)
{
    uint32_t room = a->room ? 2 * a->room : TOKENS_FIRST;
    struct device_token *tokens = mem_realloc(a->tokens, room * sizeof *tokens);
    if (tokens) a->tokens = tokens;
    size_t *ends = tokens ? mem_realloc(a->thought_ends, room * sizeof *ends) : NULL;
    if (!ends) return ERR_NO_MEMORY;
    a->thought_ends = ends;
    a->room = room;
    return 0;
}

static void on_token(void *arg, const struct device_token *token, uint32_t index)
{
    struct pdd_answer *a = arg;
    lock(a);
    bool wanted = !a->why.code && !a->ended;
    if (wanted && index == a->room && make_room(a)) {
        fail(a, ERR_NO_MEMORY);
        wanted = false;
    }
    if (wanted) {
        a->tokens[index] = *token;
        a->tokens[index].text_at = a->text.len;
        a->tokens[index].text_len = 0;
    }
    unlock(a);
}

/* Before the text of its token, or of the last token's rest. */
static void on_thought(void *arg, const char *text, size_t n, uint32_t index,
                       enum turn_source source)
{
    struct pdd_answer *a = arg;
    (void)index, (void)source;
    lock(a);
    if (!a->why.code && !a->ended && buf_append(&a->thought, text, n)) fail(a, a->thought.error);
    unlock(a);
}

/* After on_token, or once more for its last token. The token counts when its text is there. */
static void on_text(void *arg, const char *text, size_t n, uint32_t index, enum turn_source source)
{
    struct pdd_answer *a = arg;
    (void)source;
    lock(a);
    if (!a->why.code && !a->ended && buf_append(&a->text, text, n)) fail(a, a->text.error);
    if (!a->why.code && !a->ended) {
        a->tokens[index].text_len += n;
        a->thought_ends[index] = a->thought.len;
        a->n = index + 1;
        if (lib_stop_find(a)) lib_device_wake(a->device); /* a callback does not stop it */
        lib_answer_signal(a);
    }
    unlock(a);
}

static void progress(struct pdd_answer *a, enum turn_source source, uint32_t done, uint32_t total)
{
    lock(a);
    a->done[source] = done;
    a->total[source] = total;
    if (a->q.user.on_progress) lib_answer_signal(a);
    unlock(a);
}

static void on_progress(void *arg, uint32_t done, uint32_t total)
{
    progress(arg, TURN_DEVICE, done, total);
}

static void on_cloud_progress(void *arg, uint32_t done, uint32_t total)
{
    progress(arg, TURN_CLOUD, done, total);
}

static void on_trouble(void *arg, const char *why)
{
    struct pdd_answer *a = arg;
    lock(a);
    if (!a->any_trouble) snprintf(a->trouble, sizeof a->trouble, "%s", why);
    a->any_trouble = true;
    lib_answer_signal(a);
    unlock(a);
}

static const struct engine_info *model_of(const struct pdd_device *d)
{
    return d->model ? engine_info(d->model->engine) : NULL;
}

void lib_answer_end(struct pdd_answer *a, int code, const struct err *why, enum turn_reason reason)
{
    struct device_report none;
    device_report_init(&none, model_of(a->device));
    if (code && !a->why.code) a->why = *why;
    lib_report_keep(a, &none);
    a->report.turn.reason = a->why.code ? TURN_FAILED : reason;
    lib_stop_settle(a);
    a->state = LIB_OVER;
    lib_answer_signal(a);
}

static uint32_t context_of(const struct pdd_device *d)
{
    return d->model ? model_of(d)->context_max : 0;
}

/* A cloud alone knows its context, and only its sentence tells. */
static bool is_too_long(const struct pdd_answer *a, int code, const struct err *e)
{
    if (a->n > 0 || !code) return false;
    return code == ERR_LIMIT || (!a->device->model && strstr(e->text, "context"));
}

/* A turn knows only that an end is lost. */
static void keep_why(struct pdd_answer *a, int code, int cause, const struct err *e)
{
    a->why = *e;
    if ((code == ERR_NET || code == ERR_INTERNAL) && cause) a->why.code = cause;
}

/* Under the lock: over, or to be asked once more with fewer messages. */
static void end_or_shorten(struct pdd_answer *a, int code, const struct device_report *r,
                           const struct err *e)
{
    if (!a->cancel && !a->ended && is_too_long(a, code, e) &&
        lib_question_shorten(&a->q, context_of(a->device))) {
        a->state = LIB_ASKED;
    } else if (!r) {
        lib_answer_end(a, code, e, TURN_FAILED);
    } else {
        if (code && !a->why.code && !a->ended) keep_why(a, code, r->cause, e);
        lib_report_keep(a, r);
        lib_stop_settle(a);
        if (a->why.code) a->report.turn.reason = TURN_FAILED;
        a->state = LIB_OVER;
        lib_answer_signal(a);
    }
    lib_device_wake(a->device); /* the runner is free when it has returned */
}

static void on_done(void *arg, int code, const struct device_report *r, const struct err *e)
{
    struct pdd_answer *a = arg;
    lock(a);
    end_or_shorten(a, code, r, e);
    unlock(a);
}

void lib_answer_start(struct pdd_answer *a)
{
    struct err e = ERR_INIT;
    struct device_question *q = &a->q.asked;
    lib_question_point(&a->q);
    q->on_token = on_token;
    q->on_text = on_text;
    q->on_thought = a->q.user.on_thought ? on_thought : NULL;
    q->on_progress = on_progress;
    q->on_cloud_progress = on_cloud_progress;
    q->on_trouble = on_trouble;
    q->arg = a;
    int code = device_start(a->runner, q, on_done, a, &e);
    if (!code) return;
    lock(a);
    end_or_shorten(a, code, NULL, &e);
    unlock(a);
}

/* ---- its life ---- */

void lib_answer_unref(struct pdd_answer *a)
{
    lock(a);
    bool last = --a->refs == 0;
    unlock(a);
    if (!last) return;
    lib_device_unref(a->device);
    lib_question_release(&a->q);
    buf_release(&a->text);
    buf_release(&a->thought);
    buf_release(&a->given);
    buf_release(&a->given_thought);
    buf_release(&a->json);
    mem_free(a->tokens);
    mem_free(a->thought_ends);
    if (a->fd >= 0) close(a->fd);
    mem_free(a);
}

/* Gives it to the loop thread. */
static int post(struct pdd_device *d, struct pdd_answer *a, struct err *e)
{
    int code = 0;
    pthread_mutex_lock(&d->lock);
    if (d->n_answers >= PDD_ANSWERS_MAX) {
        code = err_set(e, ERR_BUSY, "the device gives %d answers already", PDD_ANSWERS_MAX);
    } else {
        a->device = d;
        a->refs = 2;
        d->refs++;
        d->n_answers++;
        struct pdd_answer **end = &d->answers;
        while (*end)
            end = &(*end)->next;
        *end = a;
        lib_device_wake(d);
    }
    pthread_mutex_unlock(&d->lock);
    return code;
}

static int begin(struct pdd_device *d, const pdd_question *question, struct pdd_answer **ret_answer,
                 struct err *e)
{
    struct pdd_answer *a = mem_calloc(1, sizeof *a);
    if (!a) return err_set(e, ERR_NO_MEMORY, "no memory for an answer");
    buf_init(&a->text, DEVICE_TEXT_MAX);
    buf_init(&a->thought, DEVICE_TEXT_MAX);
    buf_init(&a->given, DEVICE_TEXT_MAX);
    buf_init(&a->given_thought, DEVICE_TEXT_MAX);
    buf_init(&a->json, JSON_REPORT_BYTES_MAX);
    int code = lib_question_take(question, model_of(d), &a->q, e);
    a->fd = code ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!code && a->fd < 0)
        code = err_set(e, ERR_IO, "no descriptor for an answer: %s", strerror(errno));
    if (!code) code = post(d, a, e);
    if (code) {
        if (a->fd >= 0) close(a->fd);
        lib_question_release(&a->q);
        mem_free(a);
        return code;
    }
    a->chat = a->q.user.chat;
    if (a->chat) {
        a->chat->busy = true;
        a->chat->refs++;
    }
    *ret_answer = a;
    return 0;
}

int pdd_ask_begin(pdd_device *d, const pdd_question *question, pdd_answer **ret_answer,
                  pdd_error *error)
{
    struct err e = ERR_INIT;
    return lib_result(begin(d, question, ret_answer, &e), &e, error);
}

void pdd_answer_cancel(pdd_answer *a)
{
    lock(a);
    a->cancel = true;
    lib_device_wake(a->device);
    unlock(a);
}

static void let_chat_go(struct pdd_answer *a)
{
    if (a->chat) a->chat->busy = false;
    lib_chat_unref(a->chat);
    a->chat = NULL;
}

void pdd_answer_free(pdd_answer *a)
{
    if (!a) return;
    let_chat_go(a);
    a->freed = true;
    pdd_answer_cancel(a);
    lib_answer_unref(a);
}

/* ---- the user's thread ---- */

static void cancel_if(struct pdd_answer *a, int wanted)
{
    if (wanted && !a->freed) pdd_answer_cancel(a);
}

/* What changed since it was told last. */
static void tell_progress(struct pdd_answer *a)
{
    for (int source = 0; source < 2 && a->q.user.on_progress && !a->freed; source++) {
        lock(a);
        uint32_t done = a->done[source], total = a->total[source];
        unlock(a);
        if (total == 0 || done == a->told[source]) continue;
        a->told[source] = done;
        cancel_if(a, a->q.user.on_progress(a->q.user.arg, source, done, total));
    }
}

static void tell_trouble(struct pdd_answer *a)
{
    if (a->told_trouble || a->freed) return;
    lock(a);
    bool any = a->any_trouble;
    unlock(a); /* the sentence does not change any more */
    if (!any) return;
    a->told_trouble = true;
    if (a->q.user.on_trouble) cancel_if(a, a->q.user.on_trouble(a->q.user.arg, a->trouble));
}

/* What the next token, or the rest of the last one, adds to `given` and `given_thought`. */
struct piece {
    pdd_token token;
    size_t text_at, thought_at;
};

/* 1: there is one; 0: none; negative: no memory for it. */
static int next_piece(struct pdd_answer *a, struct piece *ret_piece)
{
    int code = 0;
    lock(a);
    bool next = a->n_given < a->n_clear;
    uint32_t index = next ? a->n_given : a->n_clear - 1;
    size_t from = a->given.len, to = from;
    size_t thought_from = a->given_thought.len, thought_to = thought_from;
    if (a->n_clear > 0) to = a->tokens[index].text_at + a->tokens[index].text_len;
    if (to > a->clear) to = a->clear; /* the rest of the last one is held back */
    if (a->n_clear > 0) thought_to = a->thought_ends[index];
    bool any = next || to > from || thought_to > thought_from;
    if (any) {
        const struct device_token *t = &a->tokens[index];
        *ret_piece = (struct piece){{.index = index,
                                     .id = t->id,
                                     .source = (int)t->source,
                                     .arrived_ms = (double)t->arrived_us / 1e3,
                                     .shown_ms = (double)t->shown_us / 1e3},
                                    from,
                                    thought_from};
        code = buf_append(&a->given_thought, a->thought.data + thought_from,
                          thought_to - thought_from);
        if (!code) code = buf_append(&a->given, a->text.data + from, to - from);
        if (!code) a->n_given = index + 1;
    }
    unlock(a);
    return code ? code : any;
}

static int tell_text(struct pdd_answer *a)
{
    const pdd_question *q = &a->q.user;
    struct piece p;
    int got = 0;
    while (!a->freed && (got = next_piece(a, &p)) > 0) {
        size_t n = a->given_thought.len - p.thought_at;
        if (q->on_thought && n > 0)
            cancel_if(a, q->on_thought(q->arg, a->given_thought.data + p.thought_at, n, &p.token));
        if (q->on_text && !a->freed)
            cancel_if(a, q->on_text(q->arg, a->given.data + p.text_at, a->given.len - p.text_at,
                                    &p.token));
    }
    return a->freed ? 0 : got;
}

/* Once, when all is told: the chat takes question and answer. */
static void settle(struct pdd_answer *a)
{
    a->settled = true;
    a->code = a->why.code;
    if (a->chat && a->given.len > 0 && !a->code) {
        const struct talk *t = &a->q.talk;
        a->code = lib_chat_settle(a->chat, &t->messages[t->n - 1], &a->given, t->left_out, &a->why);
    }
    if (a->code) a->report.turn.reason = TURN_FAILED;
    let_chat_go(a);
}

static bool is_over(struct pdd_answer *a)
{
    lock(a);
    bool over = a->state == LIB_OVER;
    unlock(a);
    return over;
}

static int dispatch(struct pdd_answer *a)
{
    uint64_t count;
    ssize_t done = read(a->fd, &count, sizeof count); /* before looking: nothing is missed */
    (void)done;
    bool over = is_over(a);
    tell_progress(a);
    tell_trouble(a);
    int code = tell_text(a);
    if (a->freed) return PDD_OK;
    if (code) { /* no memory to go on with */
        lock(a);
        fail(a, code);
        unlock(a);
    }
    if (!over) return PDD_MORE;
    settle(a);
    lib_answer_signal(a); /* readable for good */
    return a->code;
}

int pdd_answer_dispatch(pdd_answer *a, pdd_error *error)
{
    struct err e = ERR_INIT;
    if (a->in_callback)
        return lib_result(err_set(&e, ERR_BUSY, "a callback of this answer is running"), &e, error);
    if (a->settled) return lib_result(a->code, &a->why, error);
    lock(a);
    a->refs++; /* a callback may free it */
    unlock(a);
    a->in_callback = true;
    int code = dispatch(a);
    a->in_callback = false;
    if (code < 0) e = a->why;
    lib_answer_unref(a);
    return lib_result(code, &e, error);
}

int pdd_answer_wait(pdd_answer *a, int timeout_ms, pdd_error *error)
{
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : clock_us() + (uint64_t)timeout_ms * 1000;
    for (;;) {
        int code = pdd_answer_dispatch(a, error);
        uint64_t now = clock_us();
        if (code != PDD_MORE || now >= until) return code;
        struct pollfd fd = {.fd = a->fd, .events = POLLIN};
        (void)poll(&fd, 1, timeout_ms < 0 ? -1 : (int)((until - now + 999) / 1000));
    }
}

int pdd_ask(pdd_device *d, const pdd_question *question, pdd_answer **ret_answer, pdd_error *error)
{
    struct err e = ERR_INIT;
    pdd_answer *a;
    int code = begin(d, question, &a, &e);
    if (code) return lib_result(code, &e, error);
    code = pdd_answer_wait(a, -1, error);
    if (code == 0 && ret_answer)
        *ret_answer = a;
    else
        pdd_answer_free(a);
    return code;
}

int pdd_answer_fd(const pdd_answer *a)
{
    return a->fd;
}

const char *pdd_answer_thought(const pdd_answer *a, size_t *ret_length)
{
    if (ret_length) *ret_length = a->given_thought.len;
    return a->given_thought.data;
}

const char *pdd_answer_text(const pdd_answer *a, size_t *ret_length)
{
    if (ret_length) *ret_length = a->given.len;
    return a->given.data;
}
