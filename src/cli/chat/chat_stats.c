/* chat_stats: see chat_stats.h. */
#include "cli/chat/chat_stats.h"

#include "policy/turn.h"

/* "  verified 37 of 40 cloud tokens; ...", where the cloud's numerics are not ours. */
static void print_verified(const pdd_report *r, FILE *to)
{
    if (r->unverified[0]) fprintf(to, "  not verified: %s\n", r->unverified);
    if (!r->verifying) return;
    fprintf(to, "  verified %u of %u cloud tokens", r->verified, r->received);
    if (r->differs)
        fprintf(to, "; the first difference at token %u, after which %u not yet shown were dropped",
                r->difference, r->dropped);
    else if (r->compared < r->received)
        fprintf(to, "; the answer was complete before the device reached %u of them",
                r->received - r->compared);
    fputc('\n', to);
}

static void print_refined(const pdd_report *r, FILE *to)
{
    if (r->refined)
        fprintf(to, "  refined: %u of %u prompt tokens for the device", r->refined_read,
                r->prompt_tokens);
    if (r->refined && r->refined_here) fprintf(to, ", chosen here by words");
    if (r->refined && r->refined_versions > 0)
        fprintf(to, "; the choice holds %.0f %% of the score", 100.0 * (double)r->refined_coverage);
    if (r->refined && r->refined_restored > 0)
        fprintf(to, "; it lacked %u tokens that must stay", r->refined_restored);
    if (r->refined) fputc('\n', to);
    if (r->unrefined[0])
        fprintf(to, "  not refined%s: %s\n", r->refined ? " any more" : "", r->unrefined);
}

static void print_device(const pdd_report *r, const struct engine_info *info, FILE *to)
{
    if (r->device_tokens > 0)
        fprintf(to,
                "  device: %s, %u prompt tokens (%u kept), %.0f tok/s prefill, %.1f ms a token\n",
                info->model_name, r->prompt_tokens, r->kept_tokens, r->prefill_tps, r->decode_ms);
    else /* its speeds would be guesses */
        fprintf(to, "  device: %s, %u prompt tokens, no token of its own\n", info->model_name,
                r->prompt_tokens);
}

void chat_stats_print(const pdd_report *r, const struct engine_info *info, FILE *to)
{
    fprintf(to, "%u tokens: %u of the cloud, %u of the device; ended by %s\n", r->tokens,
            r->cloud_tokens, r->device_tokens, turn_reason_name((enum turn_reason)r->reason));
    if (r->tokens > 0)
        fprintf(to, "  first token %.0f ms; then %.1f ms a token, at most %.1f ms; %u stalls\n",
                r->first_ms, r->interval_mean_ms, r->interval_max_ms, r->stalls);
    if (r->handover)
        fprintf(to, "  handover at token %u, after %.1f ms\n", r->handover, r->handover_gap_ms);
    fprintf(to, "  plan: %s\n", r->plan);
    if (r->cloud_slot_ms > 0.0) /* it answered */
        fprintf(to,
                "  cloud: match %s, %u prompt tokens (%u cached), first token %.0f ms, a slot for "
                "%.2f s\n",
                r->match, r->cloud_prompt_tokens, r->cloud_cached_tokens, r->cloud_first_ms,
                r->cloud_slot_ms / 1e3);
    print_refined(r, to);
    print_verified(r, to);
    if (info) print_device(r, info, to);
    if (r->energy_how[0]) fprintf(to, "  energy: %.3g J, %s\n", r->energy_j, r->energy_how);
    if (info && info->emulated) fprintf(to, "  emulated: %s\n", info->emulated);
    if (r->trouble[0]) fprintf(to, "  trouble: %s\n", r->trouble);
}
