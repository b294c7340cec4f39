/*
 * fake: an engine without a model, for tests and load. Its tokens are a pure function of the
 * history, so cuts, chunking and batches behave as with a real model; its times and faults are
 * scripted. Threads: as engine.h says.
 *
 * Vocabulary: bytes (vocab_open_bytes), template ChatML. Where sampling holds end tokens back, '.'
 * stands in their place; penalties and bias change nothing.
 */
#ifndef PDD_ENGINE_FAKE_H
#define PDD_ENGINE_FAKE_H

#include "engine/engine.h"

enum { FAKE_CONTEXT = 4096 /* default of context_max */ };
#define FAKE_SCORE 0.0001f

struct fake_options {
    const char *script; /* the answer to any prompt, as text, then <|im_end|>; NULL: words derived
                           from the prompt's hash, `answer_tokens` of them */
    uint32_t answer_tokens;
    uint32_t context_max;                 /* 0: FAKE_CONTEXT */
    uint32_t step_tokens_max;             /* 0: 512 */
    uint32_t kv_pages;                    /* 0: 1024 */
    uint32_t spans_max;                   /* 0: ENGINE_SPANS_MAX */
    double prefill_us_per_token, step_us; /* slept in engine_step: step_us + tokens * the former */
    uint32_t beat_us; /* 0: none; otherwise steps end on a beat instead: at multiples of this many
                         microseconds of clock_us(), one step a beat */
    uint32_t fail_at_step;     /* 1-based step that fails with ERR_INTERNAL; 0: none */
    const char *scored;        /* a text: session_score finds every place of it in the prompt, with
                                  score 1, and gives all else FAKE_SCORE; NULL: ERR_UNSUPPORTED */
    const char *model_name;    /* NULL: "fake"; also decides the hashes */
    const char *chat_template; /* a family whose turns begin as ChatML's; NULL: chatml */
};

int fake_open(const struct fake_options *options, struct engine **ret_engine, struct err *err);

#endif
