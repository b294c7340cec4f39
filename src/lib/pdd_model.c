/* pdd_model: models of libpdd; see pdd.h. */
#include "base/mem.h"
#include "engine/emulated.h"
#include "engine/native.h"
#include "lib/lib.h"
#include "lib/lib_impl.h"
#include "model/text/vocab.h"

enum { TOKENS_MAX = 1 << 24 };

int lib_model_of(struct engine *engine, double prefill_tps, double decode_us, pdd_model **ret_model,
                 struct err *e)
{
    struct pdd_model *m = mem_calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_NO_MEMORY, "no memory for a model");
    pthread_mutex_init(&m->lock, NULL);
    m->refs = 1;
    m->engine = engine;
    m->prefill_tps = prefill_tps;
    m->decode_us = decode_us;
    *ret_model = m;
    return 0;
}

static int take_options(const pdd_model_options *from, pdd_model_options *o, enum native_kv *ret_kv,
                        const struct device_profile **ret_profile, struct err *e)
{
    int code = lib_struct_take("pdd_model_options", from, LIB_LEAST(pdd_model_options, profile),
                               sizeof *o, o, e);
    if (code) return code;
    *ret_kv = NATIVE_KV_AUTO;
    *ret_profile = NULL;
    if (!o->path) return err_set(e, ERR_BAD_INPUT, "pdd_model_options.path: name a GGUF file");
    if (o->chat_template && o->chat_template_file)
        return err_set(e, ERR_BAD_INPUT,
                       "pdd_model_options.chat_template and .chat_template_file exclude each "
                       "other");
    if (o->kv_type && native_kv_of(o->kv_type, ret_kv, e))
        return err_prefix(e, "pdd_model_options.kv_type");
    if (o->profile && !(*ret_profile = device_profile_find(o->profile)))
        return err_set(e, ERR_NOT_FOUND, "pdd_model_options.profile: there is no profile \"%s\"",
                       o->profile);
    return 0;
}

static int open_model(const pdd_model_options *options, pdd_model **ret_model, struct err *e)
{
    pdd_model_options o;
    enum native_kv kv;
    const struct device_profile *profile;
    int code = take_options(options, &o, &kv, &profile, e);
    if (code) return code;
    struct native_options native = {.model_path = o.path,
                                    .threads = o.threads,
                                    .context_max = o.context_max,
                                    .kv_bytes_max = o.kv_bytes_max,
                                    .kv_type = kv,
                                    .isa = o.isa,
                                    .chat_template = o.chat_template,
                                    .chat_template_file = o.chat_template_file,
                                    .no_think = o.no_think != 0};
    struct engine *engine;
    code = native_open(&native, &engine, e);
    if (code) return code;
    if (profile) engine_emulate(engine, profile);
    code = lib_model_of(engine, profile ? profile->prefill_tps : 0.0,
                        profile ? 1e6 / profile->decode_tps : 0.0, ret_model, e);
    if (code) engine_free(engine);
    return code;
}

struct opening {
    const pdd_model_options *options;
    pdd_model **ret_model;
};

static int open_here(void *arg, struct err *e)
{
    const struct opening *o = arg;
    return open_model(o->options, o->ret_model, e);
}

int pdd_model_open(const pdd_model_options *options, pdd_model **ret_model, pdd_error *error)
{
    struct err e = ERR_INIT;
    struct lib_guard guard;
    struct opening o = {options, ret_model};
    lib_guard_enter(&guard); /* also for the signals of the threads that compute */
    int code = lib_run(open_here, &o, &e);
    lib_guard_leave(&guard);
    return lib_result(code, &e, error);
}

int pdd_model_info_of(const pdd_model *m, pdd_model_info *ret_info, pdd_error *error)
{
    struct err e = ERR_INIT;
    const struct engine_info *i = engine_info(m->engine);
    const struct vocab *v = engine_vocab(m->engine);
    pdd_model_info info = {.name = i->model_name,
                           .numerics = i->numerics,
                           .weights_hash = i->weights_hash,
                           .tokenizer_hash = i->tokenizer_hash,
                           .emulated = i->emulated,
                           .context_max = i->context_max,
                           .context_trained = i->context_trained,
                           .vocabulary = i->vocab_size,
                           .passed_merges = v ? vocab_merges_passed(v) : 0,
                           .has_chat_template = engine_template(m->engine) != NULL};
    int code =
        lib_struct_give("pdd_model_info", &info, LIB_LEAST(pdd_model_info, has_chat_template),
                        sizeof info, ret_info, &e);
    return lib_result(code, &e, error);
}

int pdd_model_count(const pdd_model *m, const char *text, size_t length, uint32_t *ret_tokens,
                    pdd_error *error)
{
    struct err e = ERR_INIT;
    struct token_list tokens;
    token_list_init(&tokens, TOKENS_MAX);
    int code = vocab_encode(engine_vocab(m->engine), text, length, 0, &tokens, &e);
    if (code == 0) *ret_tokens = tokens.len;
    token_list_release(&tokens);
    return lib_result(code, &e, error);
}

void lib_model_unref(struct pdd_model *m)
{
    if (!m) return;
    pthread_mutex_lock(&m->lock);
    bool last = --m->refs == 0;
    pthread_mutex_unlock(&m->lock);
    if (!last) return;
    engine_free(m->engine);
    pthread_mutex_destroy(&m->lock);
    mem_free(m);
}

void pdd_model_close(pdd_model *m)
{
    lib_model_unref(m);
}
