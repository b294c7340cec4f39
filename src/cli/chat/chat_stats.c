/* chat_stats: see chat_stats.h. */
#include "cli/chat/chat_stats.h"

static double ms(double us)
{
    return us / 1e3;
}

/* "  verified 37 of 40 cloud tokens; ...", where the cloud's numerics are not ours. */
static void print_verified(const struct device_report *r, FILE *to)
{
    const struct turn_report *t = &r->turn;
    if (r->unverified && r->unverified[0]) fprintf(to, "  not verified: %s\n", r->unverified);
    if (!t->verifying) return;
    fprintf(to, "  verified %u of %u cloud tokens", t->verified, t->received);
    if (t->differs)
        fprintf(to, "; the first difference at token %u, after which %u not yet shown were dropped",
                t->difference, t->dropped);
    else if (t->compared < t->received)
        fprintf(to, "; the answer was complete before the device reached %u of them",
                t->received - t->compared);
    fputc('\n', to);
}

/* How far the ends agree, as a word. Without a token of the device the answer is the cloud's. */
static const char *match_name(const struct device_report *r)
{
    return r->turn.refined && r->turn.device_tokens > 0 ? "refined" : wire_match_name(r->match);
}

static void print_refined(const struct device_report *r, FILE *to)
{
    const struct device_refined *f = &r->refined;
    if (r->turn.refined)
        fprintf(to, "  refined: %u of %u prompt tokens for the device", r->turn.reading,
                r->prompt_tokens);
    if (r->turn.refined && f->local) fprintf(to, ", chosen here by words");
    if (r->turn.refined && f->versions > 0)
        fprintf(to, "; the choice holds %.0f %% of the score", 100.0 * (double)f->coverage);
    if (r->turn.refined && f->restored > 0)
        fprintf(to, "; it lacked %u tokens that must stay", f->restored);
    if (r->turn.refined) fputc('\n', to);
    if (r->unrefined && r->unrefined[0])
        fprintf(to, "  not refined%s: %s\n", r->turn.refined ? " any more" : "", r->unrefined);
}

void chat_stats_print(const struct device_report *r, FILE *to)
{
    const struct turn_report *t = &r->turn;
    fprintf(to, "%u tokens: %u of the cloud, %u of the device; ended by %s\n", r->n,
            t->cloud_tokens, t->device_tokens, turn_reason_name(t->reason));
    if (r->n > 0)
        fprintf(to, "  first token %.0f ms; then %.1f ms a token, at most %.1f ms; %u stalls\n",
                ms(t->ttft_us), ms(t->tpot_mean_us), ms(t->tpot_max_us), t->stalls);
    if (t->handover)
        fprintf(to, "  handover at token %u, after %.1f ms\n", t->handover, ms(t->handover_gap_us));
    fprintf(to, "  plan: %s\n", r->plan.why);
    if (r->any_match)
        fprintf(to,
                "  cloud: match %s, %u prompt tokens (%u cached), first token %.0f ms, a slot for "
                "%.2f s\n",
                match_name(r), r->cloud_prompt_tokens, r->cloud_cached_tokens,
                ms(r->cloud_first_us), r->cloud_slot_us / 1e6);
    print_refined(r, to);
    print_verified(r, to);
    if (r->model && t->device_tokens > 0)
        fprintf(to,
                "  device: %s, %u prompt tokens (%u kept), %.0f tok/s prefill, %.1f ms a token\n",
                r->model, r->prompt_tokens, r->kept_tokens, r->prefill_tps, ms(r->decode_us));
    else if (r->model) /* its speeds would be guesses */
        fprintf(to, "  device: %s, %u prompt tokens, no token of its own\n", r->model,
                r->prompt_tokens);
    if (r->energy_how && r->energy_how[0])
        fprintf(to, "  energy: %.3g J, %s\n", r->energy_j, r->energy_how);
    if (r->emulated) fprintf(to, "  emulated: %s\n", r->emulated);
    if (r->trouble[0]) fprintf(to, "  trouble: %s\n", r->trouble);
}
