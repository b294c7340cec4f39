/*
 * routes: the paths of `pdd device`, in one table, from which serve.c and docs/API.md
 * (tools/api_page.c) are made. Its handlers are declared in serve_impl.h and page.h, its gates in
 * guard.h.
 *
 * X(method, path, handler, gate, body_max, loose, text).
 */
#ifndef PDD_DEVICE_API_ROUTES_H
#define PDD_DEVICE_API_ROUTES_H

#define ROUTES_OF_DEVICE(X)                                                                        \
    X("GET", "/", page_index, guard_page, SHORT_BODY_MAX, false, "the page for people")            \
    X("GET", "/page/{id}", page_part, guard_page, SHORT_BODY_MAX, false, "its files")              \
    X("POST", "/v1/chat/completions", serve_chat, guard_api, 0, true,                              \
      "OpenAI's API, streamed or not, with `pdd`")                                                 \
    X("POST", "/v1/completions", serve_completion, guard_api, 0, true, "the same")                 \
    X("GET", "/v1/models", serve_models, guard_api, SHORT_BODY_MAX, true,                          \
      "what is here, with its hashes")                                                             \
    X("GET", "/v1/models/{id}", serve_model, guard_api, SHORT_BODY_MAX, true, "one of them")       \
    X("POST", "/tokenize", serve_tokenize, guard_api, 0, true, "text to token ids")                \
    X("POST", "/detokenize", serve_detokenize, guard_api, 0, true, "token ids to text")            \
    X("GET", "/v1/answers", serve_answers, guard_api, SHORT_BODY_MAX, false,                       \
      "the latest answers, without their texts")                                                   \
    X("GET", "/v1/answers/{id}", serve_answer, guard_api, SHORT_BODY_MAX, false,                   \
      "an answer from token `from` on, as it is or with `stream=1` as a stream")                   \
    X("DELETE", "/v1/answers/{id}", serve_answer_stop, guard_api, SHORT_BODY_MAX, false,           \
      "stops it")                                                                                  \
    X("POST", "/v1/answers/{id}/send", serve_answer_send, guard_api, SHORT_BODY_MAX, false,        \
      "`{\"send\": true}` or `false`: the user's word on a question that is held")                 \
    X("GET", "/v1/egress", serve_egress, guard_api, SHORT_BODY_MAX, false,                         \
      "what was sent to the cloud; `answer` names one")                                            \
    X("GET", "/v1/conversations", serve_talks, guard_api, SHORT_BODY_MAX, false,                   \
      "conversations that a client keeps here")                                                    \
    X("GET", "/v1/conversations/{id}", serve_talk, guard_api, SHORT_BODY_MAX, false, "one")        \
    X("PUT", "/v1/conversations/{id}", serve_talk_put, guard_api, RECORD_CONVERSATION_BYTES,       \
      false, "keeps it")                                                                           \
    X("DELETE", "/v1/conversations/{id}", serve_talk_drop, guard_api, SHORT_BODY_MAX, false,       \
      "forgets it and its answers")                                                                \
    X("GET", "/v1/status", serve_status, guard_api, SHORT_BODY_MAX, false,                         \
      "model, cloud, mode, answers that run, wait and are held")                                   \
    X("DELETE", "/v1/reading", serve_reading_stop, guard_api, SHORT_BODY_MAX, false,               \
      "stops what the idle device reads")                                                          \
    X("GET", "/metrics", serve_metrics_page, guard_api, SHORT_BODY_MAX, false, "for Prometheus")   \
    X("GET", "/health", serve_health, guard_open, SHORT_BODY_MAX, false, "the process answers")

#endif
