/* phone: a device of a simulation: its speed, its link, and what it knows of both. */
#include "base/rng.h"
#include "policy/keep.h"
#include "policy/turn_plan.h"
#include "sim/run_impl.h"

enum { DRAW_DEVICE = 1, DRAW_LINK, DRAW_LIAR }; /* streams of random numbers */

static double uniform(const struct sim *s, uint64_t stream, uint64_t i)
{
    return rng_u32(s->c->seed, stream, i) / 4294967296.0;
}

/* A device measures its speeds before its first answer. */
static void know_speeds(const struct sim *s, struct phone *p)
{
    double believed = s->c->faults.believed > 0.0 ? s->c->faults.believed : 1.0;
    profile_init(&p->profile, p->hardware->prefill_tps * believed,
                 1e6 / p->hardware->decode_tps / believed);
}

void phone_init(struct sim *s, uint32_t i, uint32_t kind)
{
    struct phone *p = &s->phones[i];
    *p = (struct phone){.hardware = s->c->mix->devices[kind], .kind = kind};
    know_speeds(s, p);
}

uint32_t phone_kind_of(const struct sim *s, uint64_t request)
{
    return hardware_mix_at(s->c->mix, uniform(s, DRAW_DEVICE, request));
}

void phone_place(struct sim *s, struct phone *p, uint64_t request, uint64_t now)
{
    const struct rtt_trace *t = s->c->link;
    double span = t ? (t->seconds[t->n - 1] - t->seconds[0]) * 1e6 : 0.0;
    p->link_at = (uint64_t)(span * uniform(s, DRAW_LINK, request));
    p->up_free = p->down_free = now;
    if (s->c->fresh) {
        *p = (struct phone){.hardware = p->hardware, .kind = p->kind, .link_at = p->link_at};
        know_speeds(s, p);
        p->up_free = p->down_free = now;
    }
    p->liar = uniform(s, DRAW_LIAR, request) < s->c->faults.liars;
}

/* ---- the link ---- */

static double rtt_us(const struct sim *s, const struct phone *p, uint64_t now)
{
    return s->c->link ? rtt_trace_us(s->c->link, (double)(p->link_at + now)) : s->c->rtt_us;
}

static uint64_t arrives(uint64_t *free, uint64_t now, double rtt, double bytes, double bytes_s)
{
    double us = rtt / 2.0 + (bytes_s > 0.0 ? bytes / bytes_s * 1e6 : 0.0);
    uint64_t due = now + (uint64_t)us;
    *free = due > *free ? due : *free;
    return *free;
}

uint64_t phone_up(struct sim *s, struct phone *p, uint64_t now, double bytes)
{
    return arrives(&p->up_free, now, rtt_us(s, p, now), bytes, s->c->up_bytes_s);
}

uint64_t phone_down(struct sim *s, struct phone *p, uint64_t now, double bytes)
{
    return arrives(&p->down_free, now, rtt_us(s, p, now), bytes, s->c->down_bytes_s);
}

/* A new process has no warm connection: its first request waits for one round trip. */
uint64_t phone_connect_us(const struct sim *s, const struct phone *p, uint64_t now)
{
    return (uint64_t)rtt_us(s, p, now);
}

/* ---- the engine ---- */

double phone_decode_us(const struct phone *p)
{
    return 1e6 / p->hardware->decode_tps;
}

/* Heat rises while the engine works and falls while it rests, each over the hardware's heat_s. */
static double heat_factor(struct sim *s, struct phone *p, double us, uint64_t now)
{
    const struct hardware_device *h = p->hardware;
    if (!s->c->faults.heat || h->heat >= 1.0) return 1.0;
    double rested = p->worked_at < now ? (double)(now - p->worked_at) / 1e6 / h->heat_s : 0.0;
    p->heat = p->heat > rested ? p->heat - rested : 0.0;
    double factor = 1.0 / (1.0 - (1.0 - h->heat) * p->heat);
    p->heat += us * factor / 1e6 / h->heat_s;
    if (p->heat > 1.0) p->heat = 1.0;
    p->worked_at = now + (uint64_t)(us * factor);
    return factor;
}

double phone_step_us(struct sim *s, struct phone *p, uint32_t n, uint64_t now)
{
    double prefill = n * 1e6 / p->hardware->prefill_tps, one = phone_decode_us(p);
    double us = prefill > one ? prefill : one; /* each step reads all weights, as engine/emulated */
    return us * heat_factor(s, p, us, now);
}

/* ---- what it knows ---- */

/* What only an oracle knows: T1 of this request as an earlier run had it, or of all like it. */
static void fill_oracle(const struct sim *s, const struct answer *a, const struct phone *phone,
                        struct plan_input *in)
{
    const struct run_known *k = s->c->known;
    const struct hardware_device *h = phone->hardware;
    struct plan_cloud *q = &in->cloud;
    const struct run_record *r = &k->records[a->request];
    uint32_t c = tally_class(a->r->input);
    bool clairvoyant = s->c->method->plan == METHOD_PLAN_CLAIRVOYANT;
    in->device = (struct plan_device){.prefill = {.us = 1e6 / h->prefill_tps},
                                      .decode = {.us = 1e6 / h->decode_tps},
                                      .heat = 1.0,
                                      .prefill_w = h->watts,
                                      .decode_w = h->watts};
    q->token_us = k->token_us;
    if (r->first_us > 0.0f && clairvoyant) {
        q->first_us = (struct plan_value){r->first_us, 0.0};
        q->uncached = a->r->input > r->cached ? a->r->input - r->cached : 0;
    } else if (k->first_mean[c] > 0.0) {
        q->first_us = (struct plan_value){k->first_mean[c], k->first_deviation[c]};
    }
    if (clairvoyant)
        in->length_known = a->r->output;
    else
        in->lengths = &k->lengths;
}

/* As ask_plan of device/answer_plan.c; a request of a trace is a conversation of its own, so all of
 * its prompt is new to the cloud as far as the device knows. */
static void fill_input(const struct sim *s, struct answer *a, const struct turn_config *c,
                       uint64_t now, struct plan_input *in)
{
    const struct method *m = s->c->method;
    struct phone *phone = &s->phones[a->phone];
    struct profile *p = &phone->profile;
    plan_input_init(in, s->c->goal);
    in->prompt_tokens = c->prompt_tokens;
    in->answer_max = c->answer_max;
    in->lengths = profile_lengths(p, c->prompt_tokens);
    profile_device(p, (double)now / 1e6, &in->device);
    profile_cloud(p, (double)now / 1e6, c->prompt_tokens, &in->cloud);
    in->cloud.known = true;
    if (m->plan == METHOD_PLAN_CLAIRVOYANT || m->plan == METHOD_PLAN_DISTRIBUTION)
        fill_oracle(s, a, phone, in);
    if (m->refines && c->prompt_tokens >= KEEP_NEW_LEAST) {
        in->quality = &s->c->quality;
        in->limits.ratio_least = s->c->ratio_least;
    }
}

/* DiSCo: the cloud fills a buffer that lasts, at the pace of the device, while that prefills the
 * prompt; then it stops and the device begins. A prompt that the device reads sooner than the
 * cloud's first token comes stays on the device. */
static void plan_migration(const struct plan_input *in, struct turn_config *c)
{
    double prefill_us = plan_speed_us(&in->device.prefill, 0.0, in->prompt_tokens);
    double shown = prefill_us / in->device.decode.us;
    c->use_cloud = !(prefill_us < in->cloud.first_us.mean);
    if (shown + 1.0 < c->answer_max) c->cloud_tokens = (uint32_t)shown + 1;
}

/* Both ends, and N by the formula with a quarter more, as the turn extends. */
static void plan_plain(struct plan_input *in, double ratio, struct turn_config *c)
{
    in->prompt_tokens = (uint32_t)(in->prompt_tokens * ratio) + (ratio < 1.0);
    double n = plan_tokens_least(in, in->device.decode.us) * 1.25 + 1.0;
    c->cloud_tokens = n < 1.0 ? 1 : n < c->answer_max ? (uint32_t)n : c->answer_max;
}

/* As the device does: see device/answer_plan.c. */
static void follow_plan(struct answer *a, const struct plan *p, struct turn_config *c)
{
    c->use_cloud = p->choice != PLAN_DEVICE;
    turn_plan_follow(p, c);
    if (p->choice == PLAN_BOTH) a->ratio = p->ratio;
}

void phone_plan(struct sim *s, struct answer *a, uint64_t now, struct turn_config *c)
{
    const struct method *m = s->c->method;
    struct plan_input in;
    fill_input(s, a, c, now, &in);
    turn_plan_predict(&in, c);
    c->use_cloud = m->cloud;
    c->use_local = m->local;
    c->fixed = m->plan == METHOD_PLAN_NONE;
    c->cloud_tokens = m->tokens == METHOD_ONE ? 1 : c->answer_max;
    a->ratio = 1.0;
    if (m->tokens == METHOD_BUFFER) plan_migration(&in, c);
    if (m->plan == METHOD_PLAN_NONE) return;
    if (m->plan == METHOD_PLAN_PLAIN) {
        a->ratio = m->refines && c->prompt_tokens >= KEEP_NEW_LEAST ? s->c->ratio : 1.0;
        plan_plain(&in, a->ratio, c);
    } else {
        plan_make(&in, &a->plan);
        follow_plan(a, &a->plan, c);
    }
}

void phone_granted(struct sim *s, struct answer *a, uint64_t now, uint32_t granted)
{
    struct turn *t = &a->turn;
    struct plan_input in;
    profile_granted(&s->phones[a->phone].profile, (double)now / 1e6, (double)(now - a->opened));
    if (s->c->method->plan < METHOD_PLAN_FREE || !t->c.use_local) return;
    fill_input(s, a, &t->c, now, &in);
    turn_plan_again(t, &a->plan, &in, granted);
}

void phone_learn(struct sim *s, struct answer *a, uint64_t now)
{
    const struct turn *t = &a->turn;
    struct profile *p = &s->phones[a->phone].profile;
    double now_s = (double)now / 1e6;
    bool believes = s->c->faults.believed > 0.0; /* whatever it measures */
    uint32_t decoded = 0;
    for (uint32_t i = 0; i < t->shown; i++)
        decoded += t->tokens[i].source == TURN_DEVICE;
    if (!believes && s->c->method->kv_share <= 0.0) turn_plan_learn_prefill(t, now_s, p);
    if (!believes) turn_plan_learn_decode(t, now_s, decoded, p);
    turn_plan_learn_answer(t, p);
}
