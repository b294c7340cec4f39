/*
 * frozen: a cloud whose times are those that an earlier run recorded for the same request: queue,
 * prefill, time between tokens. Nothing that a device does changes them, so that the costs of
 * several methods for one request can be compared.
 */
#include "base/check.h"
#include "sim/run_impl.h"

#define TOKEN_US 20000.0

enum frozen_step { STEP_GRANT, STEP_TOKEN };

static void push(struct sim *s, struct answer *a, uint64_t at, enum frozen_step step)
{
    sim_push(s, at, RUN_FROZEN, a->self, (uint64_t)a->frozen.stream << 8 | step);
    a->refs++;
}

static void send(struct answer *a, enum cloud_message kind, uint32_t value, uint64_t now)
{
    struct message m = {.kind = (uint8_t)kind, .value = value};
    if (kind == CLOUD_GRANT) m.cached = a->frozen.cost.cached;
    answer_message(a, a->frozen.stream, m, now);
}

void frozen_ask(struct sim *s, struct answer *a, uint32_t tokens_max, uint64_t now)
{
    const struct run_record *r = &s->c->frozen[a->request];
    struct frozen *f = &a->frozen;
    uint32_t prompt = a->turn.c.prompt_tokens;
    *f = (struct frozen){.running = true, .stream = a->stream, .next = a->turn.n};
    f->limit = a->turn.n + tokens_max;
    f->token_us = r->token_us > 0.0f ? r->token_us : TOKEN_US;
    f->cost.asked = f->cost.granted = tokens_max;
    f->cost.cached = a->turn.n > 0 ? prompt : r->cached; /* asked again: all of it is cached */
    f->cost.prefilled = prompt > f->cost.cached ? prompt - f->cost.cached : 0;
    f->service_us = r->service_us > 0.0f ? r->service_us
                                         : cloud_prefill_us(s->c->cloud.engine, f->cost.prefilled);
    if (a->turn.n > 0) f->service_us = f->token_us;
    a->refs++; /* until it has ended */
    push(s, a, now + (uint64_t)r->queue_us, STEP_GRANT);
}

static void end(struct sim *s, struct answer *a, uint64_t now)
{
    struct frozen *f = &a->frozen;
    f->running = false;
    f->cost.slot_us = f->granted_at > 0 ? (double)(now - f->granted_at) : 0.0;
    f->cost.decode_slot_us = f->first_at > 0 ? (double)(now - f->first_at) : 0.0;
    sim_add_cost(s, a, &f->cost);
}

void frozen_stop(struct sim *s, struct answer *a, uint32_t stream, uint64_t now)
{
    if (a->frozen.running && a->frozen.stream == stream) end(s, a, now);
}

void frozen_extend(struct answer *a, uint32_t stream, uint32_t tokens_max)
{
    struct frozen *f = &a->frozen;
    uint32_t limit = f->next - f->cost.produced + tokens_max;
    if (f->running && f->stream == stream && limit > f->limit) f->limit = limit;
}

void frozen_event(struct sim *s, struct answer *a, const struct heap_event *ev)
{
    struct frozen *f = &a->frozen;
    if (!f->running || f->stream != ev->detail >> 8) return;
    if ((ev->detail & 0xFF) == STEP_GRANT) {
        f->granted_at = ev->at;
        send(a, CLOUD_GRANT, f->cost.granted, ev->at);
        push(s, a, ev->at + (uint64_t)f->service_us, STEP_TOKEN);
        return;
    }
    if (f->next >= a->r->output) {
        send(a, CLOUD_DONE, CLOUD_END_STOP, ev->at);
        end(s, a, ev->at);
        return;
    }
    send(a, CLOUD_TOKEN, f->next++, ev->at);
    if (f->cost.produced++ == 0) f->first_at = ev->at;
    if (f->next < f->limit) {
        push(s, a, ev->at + (uint64_t)f->token_us, STEP_TOKEN);
        return;
    }
    send(a, CLOUD_DONE, CLOUD_END_BUDGET, ev->at);
    end(s, a, ev->at);
}
