/*
 * json_report: an answer's report with every token, as one JSON object, of pdd_answer_json and
 * `pdd chat --stats-json`. Pure. Times are in milliseconds since the question was asked, with three
 * decimals.
 *
 *   "version": 1, "commit": of this program, or ""
 *   "model": name of the device's model, "weights": their SHA-256, "numerics": class of exactness;
 *       each null without a model
 *   "emulated": what speed was emulated, or null
 *   "plan": {"choice": "device" | "cloud" | "both", "cloud_tokens": N, "why": sentence}
 *   "match": "exact" | "weights" | "tokens" | "text"; "refined": tokens of the device follow from a
 *       shortened prompt; null: no cloud answered
 *   "prompt_tokens", "kept_tokens": of them already in the device's KV cache
 *   "cloud_prompt_tokens", "cloud_cached_tokens": the same in the cloud
 *   "reason": "stop" | "length" | "cancelled" | "failed"
 *   "error": sentence, or null
 *   "trouble": a fault that the answer survived, or null
 *   "unrefined": why a prompt that was to be shortened was not (device_report), or null
 *   "refined": null, or {"read": tokens of the prompt that are for the device, "local": it chose
 *       itself, "ratio", "coverage", "versions": of the cloud's choice, "restored": tokens that it
 *       lacked and that must stay}
 *   "unverified": why an inexact cloud's tokens were not compared with our own, or null
 *   "verified": null, or {"tokens": k, "compared", "of": received from the cloud, "dropped": not
 *       shown, "difference": index of the first token that we would not have drawn, or null}
 *   "ttft_ms", "tpot_mean_ms", "tpot_max_ms": null where there were too few tokens
 *   "stalls": gaps above 200 ms
 *   "handover": index of the first token of the device after cloud tokens, or null
 *   "handover_gap_ms": or null
 *   "cloud_first_ms": first token of the cloud, or null
 *   "cloud_slot_ms": how long the cloud held a slot, from grant to end; null: no cloud answered
 *   "tokens_total", "cloud_tokens", "device_tokens", "cloud_requests"
 *   "device_prefill_tps", "device_decode_ms": measured, or predicted
 *   "energy": null: not known, or {"joules", "measured": false where it is declared, "how": in
 *       words}
 *   "text": the answer
 *   "tokens": [{"i", "id", "source": "cloud" | "device", "arrived_ms", "shown_ms", "text"}, ...]
 */
#ifndef PDD_LIB_JSON_REPORT_H
#define PDD_LIB_JSON_REPORT_H

#include "base/buf.h"
#include "device/device.h"

enum { JSON_REPORT_VERSION = 1, JSON_REPORT_BYTES_MAX = 256 << 20 };

/* `failure`: NULL, or why there is no whole answer. */
int json_report_put(const struct device_report *r, const char *failure, struct buf *out);

#endif
