/*
 * openai_fields: every field of a request to /v1/chat/completions and /v1/completions that we know,
 * in one table. The decoder (openai_request.c), its refusals and docs/API.md (tools/api_page.c) are
 * made from it. Pure.
 *
 * What happens to a field:
 *   PLAIN   served: a number, a text or a yes, stored as it is
 *   TAKE    served: a function of openai_request.c reads it
 *   SEE     served: take_all of openai_request.c reads it together with others
 *   PASS    refused by the engine here, unless it holds its neutral value; passed on to an upstream
 *           server that has it
 *   REFUSE  refused, unless it holds its neutral value, with which nothing would change
 *   IGNORE  known, and cannot change the answer
 * A field that is in no row is ignored, as clients of this API send new fields to old servers. null
 * is the same as absent. A field of the other endpoint is ignored.
 *
 * Rows are read in this order: a TAKE may look at what an earlier row has set. `where` is CHAT,
 * COMPLETION or BOTH. `note` tells clients what the page cannot see otherwise: of a PLAIN, TAKE or
 * SEE row the values; of a PASS or REFUSE row what to do instead ("": leave it out), which ends the
 * sentence of the error, too.
 */
#ifndef PDD_PROTO_OPENAI_FIELDS_H
#define PDD_PROTO_OPENAI_FIELDS_H

enum openai_where { OPENAI_IN_CHAT = 1, OPENAI_IN_COMPLETION = 2, OPENAI_IN_BOTH = 3 };

/* What a field that we cannot serve may hold all the same. */
enum openai_neutral {
    OPENAI_NEUTRAL_NOTHING,
    OPENAI_NEUTRAL_ZERO,
    OPENAI_NEUTRAL_OFF, /* zero and less */
    OPENAI_NEUTRAL_ONE,
    OPENAI_NEUTRAL_FALSE,
    OPENAI_NEUTRAL_TRUE,
    OPENAI_NEUTRAL_EMPTY,      /* of strings, arrays and objects */
    OPENAI_NEUTRAL_TEXT_TYPE,  /* {"type": "text"} */
    OPENAI_NEUTRAL_NO_CALL,    /* "none" or "auto" */
    OPENAI_NEUTRAL_TEXT_ALONE, /* ["text"] */
};

/* PLAIN(name, where, type, max, low, high, member, note), TAKE(name, where, function, note),
 * SEE(name, where, note), PASS(name, where, neutral, note), REFUSE(name, where, neutral, note),
 * IGNORE(name, where, note). */
#define OPENAI_FIELDS(PLAIN, TAKE, SEE, PASS, REFUSE, IGNORE)                                      \
    PLAIN("model", BOTH, TEXT, WIRE_NAME_MAX, 0, 0, ask.model,                                     \
          "a name of /v1/models, or any with --model-alias '*'; may be left out")                  \
    PLAIN("temperature", BOTH, FLOAT, 0, 0.0f, 100.0f, ask.sampling.temperature,                   \
          "0 to 100; default 1, 0: greedy")                                                        \
    PLAIN("min_p", BOTH, FLOAT, 0, 0.0f, 0x1.fffffep-1f, ask.sampling.min_p, "0 (off) to below 1") \
    PLAIN("repetition_penalty", BOTH, FLOAT, 0, 0.001f, 1000.0f, ask.sampling.repeat_penalty,      \
          "1: off")                                                                                \
    PLAIN("repeat_penalty", BOTH, FLOAT, 0, 0.001f, 1000.0f, ask.sampling.repeat_penalty,          \
          "the same; counts if both are given")                                                    \
    PLAIN("frequency_penalty", BOTH, FLOAT, 0, -2.0f, 2.0f, ask.sampling.frequency_penalty,        \
          "-2 to 2; 0: off; counts the tokens of the answer")                                      \
    PLAIN("presence_penalty", BOTH, FLOAT, 0, -2.0f, 2.0f, ask.sampling.presence_penalty,          \
          "the same")                                                                              \
    PLAIN("ignore_eos", BOTH, BOOL, 0, 0, 0, ask.sampling.ignore_eos, "no token ends the answer")  \
    PLAIN("ban_eos_token", BOTH, BOOL, 0, 0, 0, ask.sampling.ignore_eos, "the same")               \
    PLAIN("stream", BOTH, BOOL, 0, 0, 0, stream, "server-sent events")                             \
    PLAIN("timings_per_token", BOTH, BOOL, 0, 0, 0, timings,                                       \
          "`timings` in the last chunk and in whole responses, with `pdd cloud` in every chunk")   \
    PLAIN("return_progress", BOTH, BOOL, 0, 0, 0, progress,                                        \
          "chunks of a stream with `prompt_progress` (total, cache, processed, time_ms) while "    \
          "the prompt is read")                                                                    \
    SEE("messages", CHAT,                                                                          \
        "roles system, developer, user, assistant, tool; content a string or parts of type text, " \
        "null for an assistant; tool_calls, tool_call_id, name, reasoning_content; other parts "   \
        "and "                                                                                     \
        "fields are passed on to an upstream server, and refused by the engine here")              \
    SEE("tools", BOTH,                                                                             \
        "for the chat template, with tool_choice \"none\"; else passed on to an upstream server, " \
        "and "                                                                                     \
        "refused by the engine here unless empty")                                                 \
    SEE("chat_template_kwargs", CHAT, "arguments of the chat template")                            \
    SEE("enable_thinking", CHAT, "the same, by its usual name")                                    \
    SEE("reasoning_effort", CHAT, "the same, by its usual name")                                   \
    PASS("suffix", BOTH, EMPTY, "")                                                                \
    PASS("functions", BOTH, EMPTY, "")                                                             \
    PASS("function_call", BOTH, NOTHING, "")                                                       \
    PASS("tool_choice", BOTH, NO_CALL, "")                                                         \
    PASS("response_format", BOTH, TEXT_TYPE, "")                                                   \
    PASS("modalities", BOTH, TEXT_ALONE, "")                                                       \
    PASS("audio", BOTH, NOTHING, "")                                                               \
    PASS("prediction", BOTH, NOTHING, "")                                                          \
    PASS("web_search_options", BOTH, NOTHING, "")                                                  \
    PASS("verbosity", BOTH, NOTHING, "")                                                           \
    REFUSE("prompt_embeds", BOTH, NOTHING, "")                                                     \
    PASS("prompt_logprobs", BOTH, NOTHING, "")                                                     \
    PASS("use_beam_search", BOTH, FALSE, "")                                                       \
    REFUSE("num_beams", BOTH, ONE, "")                                                             \
    REFUSE("do_sample", BOTH, TRUE, "set temperature to 0")                                        \
    REFUSE("min_length", BOTH, OFF, "")                                                            \
    REFUSE("max_new_tokens", BOTH, NOTHING, "say it as max_tokens")                                \
    PASS("stop_token_ids", BOTH, EMPTY, "")                                                        \
    REFUSE("stop_regex", BOTH, EMPTY, "")                                                          \
    REFUSE("no_stop_trim", BOTH, FALSE, "")                                                        \
    PASS("include_stop_str_in_output", BOTH, FALSE, "")                                            \
    PASS("skip_special_tokens", BOTH, TRUE, "")                                                    \
    PASS("truncate_prompt_tokens", BOTH, NOTHING, "")                                              \
    REFUSE("add_special_tokens", CHAT, FALSE, "")                                                  \
    REFUSE("add_special_tokens", COMPLETION, TRUE, "send the prompt as token ids")                 \
    PASS("add_generation_prompt", BOTH, TRUE, "")                                                  \
    PASS("continue_final_message", BOTH, FALSE, "")                                                \
    PASS("chat_template", BOTH, EMPTY, "start the server with --chat-template-file")               \
    PASS("grammar", BOTH, EMPTY, "")                                                               \
    PASS("json_schema", BOTH, NOTHING, "")                                                         \
    REFUSE("format", BOTH, EMPTY, "")                                                              \
    PASS("structured_outputs", BOTH, NOTHING, "")                                                  \
    PASS("guided_json", BOTH, NOTHING, "")                                                         \
    PASS("guided_regex", BOTH, NOTHING, "")                                                        \
    PASS("guided_choice", BOTH, NOTHING, "")                                                       \
    PASS("guided_grammar", BOTH, NOTHING, "")                                                      \
    PASS("guided_whitespace_pattern", BOTH, NOTHING, "")                                           \
    PASS("regex", BOTH, EMPTY, "")                                                                 \
    PASS("ebnf", BOTH, EMPTY, "")                                                                  \
    REFUSE("samplers", BOTH, EMPTY, "")                                                            \
    REFUSE("min_keep", BOTH, OFF, "")                                                              \
    REFUSE("n_indent", BOTH, OFF, "")                                                              \
    REFUSE("t_max_predict_ms", BOTH, OFF, "")                                                      \
    PASS("typical_p", BOTH, ONE, "")                                                               \
    REFUSE("typical", BOTH, ONE, "")                                                               \
    REFUSE("tfs", BOTH, ONE, "")                                                                   \
    REFUSE("tfs_z", BOTH, ONE, "")                                                                 \
    REFUSE("top_a", BOTH, ZERO, "")                                                                \
    PASS("top_n_sigma", BOTH, OFF, "")                                                             \
    REFUSE("nsigma", BOTH, OFF, "")                                                                \
    PASS("mirostat", BOTH, ZERO, "")                                                               \
    REFUSE("mirostat_mode", BOTH, ZERO, "")                                                        \
    PASS("dry_multiplier", BOTH, ZERO, "")                                                         \
    PASS("xtc_probability", BOTH, ZERO, "")                                                        \
    PASS("dynatemp_range", BOTH, ZERO, "")                                                         \
    REFUSE("dynamic_temperature", BOTH, FALSE, "")                                                 \
    REFUSE("adaptive_target", BOTH, OFF, "")                                                       \
    REFUSE("smoothing_factor", BOTH, ZERO, "")                                                     \
    REFUSE("epsilon_cutoff", BOTH, ZERO, "")                                                       \
    REFUSE("eta_cutoff", BOTH, ZERO, "")                                                           \
    REFUSE("penalty_alpha", BOTH, ZERO, "")                                                        \
    REFUSE("encoder_repetition_penalty", BOTH, ONE, "")                                            \
    REFUSE("no_repeat_ngram_size", BOTH, ZERO, "")                                                 \
    PASS("length_penalty", BOTH, ONE, "")                                                          \
    REFUSE("guidance_scale", BOTH, ONE, "")                                                        \
    REFUSE("negative_prompt", BOTH, EMPTY, "")                                                     \
    REFUSE("custom_token_bans", BOTH, EMPTY, "")                                                   \
    PASS("bad_words", BOTH, EMPTY, "")                                                             \
    REFUSE("bad_words_ids", BOTH, EMPTY, "")                                                       \
    PASS("allowed_token_ids", BOTH, EMPTY, "")                                                     \
    REFUSE("logits_processors", BOTH, EMPTY, "")                                                   \
    REFUSE("custom_logit_processor", BOTH, EMPTY, "")                                              \
    REFUSE("lora", BOTH, EMPTY, "")                                                                \
    REFUSE("lora_path", BOTH, EMPTY, "")                                                           \
    PASS("documents", BOTH, EMPTY, "")                                                             \
    REFUSE("plugins", BOTH, EMPTY, "")                                                             \
    REFUSE("think", BOTH, NOTHING, "say it as enable_thinking")                                    \
    REFUSE("thinking", BOTH, NOTHING, "say it as enable_thinking")                                 \
    REFUSE("reasoning", BOTH, NOTHING, "say it as reasoning_effort")                               \
    REFUSE("thinking_budget", BOTH, NOTHING, "")                                                   \
    PASS("thinking_budget_tokens", BOTH, NOTHING, "")                                              \
    REFUSE("options", BOTH, EMPTY, "its fields stand in the request itself")                       \
    REFUSE("extra_body", BOTH, EMPTY, "its fields stand in the request itself")                    \
    TAKE("prompt", COMPLETION, take_prompt,                                                        \
         "a text, token ids, or an array of these, each answered n times: choice i is of prompt "  \
         "i / n")                                                                                  \
    TAKE("n", BOTH, take_n,                                                                        \
         "1 to 128 answers to each prompt, with prompts 128 in all; the k-th of a prompt (from "   \
         "0) is drawn with seed + k")                                                              \
    TAKE("best_of", BOTH, take_best_of, "the same as n only")                                      \
    TAKE("stop", BOTH, take_stops,                                                                 \
         "a text or an array of at most 64, of 1024 bytes each and 16384 together; \"\" is none")  \
    TAKE("seed", BOTH, take_seed, "an integer, without its sign; default: drawn")                  \
    TAKE("top_p", BOTH, take_top_p, "0 to 1")                                                      \
    TAKE("top_k", BOTH, take_top_k, "-1 and 0: all")                                               \
    TAKE("repeat_last_n", BOTH, take_repeat_last, "tokens that repeat_penalty looks at; -1: all")  \
    TAKE("n_predict", BOTH, take_max_tokens, "the same as max_tokens")                             \
    TAKE("max_tokens", BOTH, take_max_tokens,                                                      \
         "-1: as many as fit; default 16 of a completion, as many as fit of a chat")               \
    TAKE("max_completion_tokens", BOTH, take_max_tokens, "the same; counts if both are given")     \
    TAKE("min_tokens", BOTH, take_min_tokens,                                                      \
         "no token ends the answer before it has so many; at most max_tokens; stop strings do")    \
    TAKE("min_new_tokens", BOTH, take_min_tokens, "the same")                                      \
    TAKE("logit_bias", BOTH, take_logit_bias,                                                      \
         "token ids and biases from -100 (never) to 100, 300 at most: an object, or an array of "  \
         "pairs in which false is -100")                                                           \
    TAKE("logprobs", BOTH, take_logprobs,                                                          \
         "of a chat true or false, of a completion 0 to 5; not with `pdd device`")                 \
    TAKE("echo", COMPLETION, take_echo,                                                            \
         "the prompt's text precedes each answer; not with logprobs")                              \
    REFUSE("echo", CHAT, FALSE, "")                                                                \
    TAKE("reasoning_format", CHAT, take_reasoning_format,                                          \
         "auto and deepseek: what the model thinks is reasoning_content; none: it stays in the "   \
         "text, with its marks")                                                                   \
    TAKE("separate_reasoning", CHAT, take_separate_reasoning, "false: the same as none")           \
    TAKE("top_logprobs", CHAT, take_top_logprobs, "0 to 20")                                       \
    TAKE("stream_options", BOTH, take_stream_options, "include_usage; with stream only")           \
    IGNORE("user", BOTH, "")                                                                       \
    IGNORE("safety_identifier", BOTH, "")                                                          \
    IGNORE("metadata", BOTH, "")                                                                   \
    IGNORE("store", BOTH, "")                                                                      \
    IGNORE("service_tier", BOTH, "")                                                               \
    IGNORE("prompt_cache_key", BOTH, "")                                                           \
    IGNORE("prompt_cache_retention", BOTH, "")                                                     \
    IGNORE("parallel_tool_calls", BOTH, "no calls are made")                                       \
    IGNORE("parse_tool_calls", BOTH, "no calls are made")                                          \
    IGNORE("cache_prompt", BOTH, "")                                                               \
    IGNORE("cache_salt", BOTH, "")                                                                 \
    IGNORE("n_cache_reuse", BOTH, "")                                                              \
    IGNORE("n_keep", BOTH, "a context that is full ends the answer")                               \
    IGNORE("id_slot", BOTH, "")                                                                    \
    IGNORE("keep_alive", BOTH, "")                                                                 \
    IGNORE("priority", BOTH, "")                                                                   \
    IGNORE("request_id", BOTH, "")                                                                 \
    IGNORE("rid", BOTH, "")                                                                        \
    IGNORE("include_reasoning", BOTH, "")                                                          \
    IGNORE("n_probs", BOTH, "logprobs asks for probabilities")                                     \
    IGNORE("post_sampling_probs", BOTH, "")                                                        \
    IGNORE("return_tokens", BOTH, "")                                                              \
    IGNORE("return_token_ids", BOTH, "")                                                           \
    IGNORE("return_tokens_as_token_ids", BOTH, "")                                                 \
    IGNORE("response_fields", BOTH, "")                                                            \
    IGNORE("spaces_between_special_tokens", BOTH, "")                                              \
    IGNORE("dynatemp_exponent", BOTH, "its sampler is off, as of the next ones")                   \
    IGNORE("mirostat_tau", BOTH, "")                                                               \
    IGNORE("mirostat_eta", BOTH, "")                                                               \
    IGNORE("dry_base", BOTH, "")                                                                   \
    IGNORE("dry_allowed_length", BOTH, "")                                                         \
    IGNORE("dry_penalty_last_n", BOTH, "")                                                         \
    IGNORE("dry_sequence_breakers", BOTH, "")                                                      \
    IGNORE("xtc_threshold", BOTH, "")                                                              \
    IGNORE("smoothing_curve", BOTH, "")                                                            \
    IGNORE("pdd", BOTH, "`pdd device` reads it")

#endif
