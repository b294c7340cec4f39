/*
 * native: the built-in engine, a GGUF file run by model/ on this machine's CPU. Threads: as
 * engine.h says; each step uses a pool of its own.
 */
#ifndef PDD_ENGINE_NATIVE_H
#define PDD_ENGINE_NATIVE_H

#include "engine/engine.h"

/* How keys and values are kept: int16 with a scale for each position and head, which attention
 * reads fastest; float16; or 8 bits, which take about half of the memory. Each makes another
 * answer, so the kind is part of engine_info.numerics: a handover from one kind to another is by
 * tokens, never called exact. AUTO: int16 where the head size is a multiple of 16, else float16. */
enum native_kv { NATIVE_KV_AUTO, NATIVE_KV_I16, NATIVE_KV_F16, NATIVE_KV_Q8_0 };
/* From "i16", "f16" or "q8_0"; ERR_BAD_INPUT names others. */
int native_kv_of(const char *text, enum native_kv *ret_kv, struct err *err);

struct native_options {
    const char *model_path;
    unsigned threads;      /* 0: all CPUs of this process */
    uint32_t context_max;  /* 0: what the file says, or what fits into the KV memory */
    uint64_t kv_bytes_max; /* memory for all KV pages; 0: room for two full contexts, and at most
                              half of the memory that is available after loading */
    enum native_kv kv_type;
    uint32_t step_tokens_max;       /* 0: 512 */
    const char *isa;                /* NULL: the best here; or a name that kern_select knows */
    const char *chat_template;      /* NULL: the file's; or a family's name */
    const char *chat_template_file; /* or the path of one; NULL: none */
    bool no_think; /* answers begin without a thought, where the template can say so */
};

int native_open(const struct native_options *options, struct engine **ret_engine, struct err *err);

#endif
