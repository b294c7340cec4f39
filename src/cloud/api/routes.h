/*
 * routes: the paths of `pdd cloud`, in one table, from which server.c and docs/API.md
 * (tools/api_page.c) are made. Its handlers are declared in server_impl.h.
 *
 * X(method, path, handler, gate, body_max, loose, text). A gate of request_gate_work takes one of
 * the key's requests, request_gate a valid key, NULL nothing.
 */
#ifndef PDD_CLOUD_API_ROUTES_H
#define PDD_CLOUD_API_ROUTES_H

#define ROUTES_OF_HEALTH(X)                                                                        \
    X("GET", "/health", status_health, NULL, SHORT_BODY_MAX, false, "the process answers")         \
    X("GET", "/ready", status_ready, NULL, SHORT_BODY_MAX, false,                                  \
      "200 when new requests are taken, 503 when it drains or is full")

#define ROUTES_OF_METRICS(X)                                                                       \
    ROUTES_OF_HEALTH(X)                                                                            \
    X("GET", "/metrics", status_metrics_open, NULL, SHORT_BODY_MAX, false,                         \
      "for Prometheus, on a port of its own (`--metrics-listen`)")

#define ROUTES_OF_CLOUD(X)                                                                         \
    X("POST", "/v1/chat/completions", openai_post_chat, request_gate_work, 0, true,                \
      "OpenAI's API, streamed or not")                                                             \
    X("POST", "/v1/completions", openai_post_completion, request_gate_work, 0, true, "the same")   \
    X("GET", "/v1/models", models_list, request_gate, SHORT_BODY_MAX, true,                        \
      "what is served, with its hashes")                                                           \
    X("GET", "/v1/models/{id}", models_one, request_gate, SHORT_BODY_MAX, true, "one of them")     \
    X("POST", "/tokenize", tokenize_post, request_gate_work, 0, true, "text to token ids")         \
    X("POST", "/detokenize", detokenize_post, request_gate_work, 0, true, "token ids to text")     \
    X("POST", "/v1/assist", assist_post, request_gate_work, 0, false,                              \
      "tokens that a device borrows, as an event stream (src/proto/wire.h)")                       \
    X("PATCH", "/v1/assist/{id}", assist_patch, request_gate, SHORT_BODY_MAX, false,               \
      "`{\"tokens_max\": N}` while the stream runs")                                               \
    X("DELETE", "/v1/assist/{id}", assist_delete, request_gate, SHORT_BODY_MAX, false,             \
      "cancels it")                                                                                \
    ROUTES_OF_HEALTH(X)                                                                            \
    X("GET", "/metrics", status_metrics, request_gate, SHORT_BODY_MAX, false, "for Prometheus")

#endif
