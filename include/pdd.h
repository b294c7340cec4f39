/*
 * pdd.h: libpdd, answers of a language model that start in the cloud and are finished here.
 *
 * A *model* is a GGUF file, loaded. A *device* joins a model, a cloud, or both. A *chat* is the
 * messages of one conversation. An *answer* is one question on its way: text comes in pieces while
 * it is made, and a report at its end.
 *
 *     pdd_model_open ... pdd_device_open ... pdd_chat_new
 *         pdd_ask, or pdd_ask_begin and pdd_answer_wait or pdd_answer_dispatch; pdd_answer_free
 *     pdd_chat_free ... pdd_device_close ... pdd_model_close
 *
 * Threads. A device has threads of its own, with all signals blocked. They never call yours:
 * callbacks run in the thread that calls pdd_ask, pdd_answer_wait or pdd_answer_dispatch, and
 * nowhere else; a thread with a stack of 64 KB is enough. A callback must return: an exception or a
 * longjmp that leaves it leaves the answer in the middle, for good. Catch it there, return 1, and
 * throw it again when the call has returned. A callback may ask, free and close what it likes.
 * Different devices, answers and chats may be used by different threads at the same
 * time. One device may be asked by several threads, and gives up to PDD_ANSWERS_MAX answers at
 * once. One answer and one chat belong to one thread at a time; pdd_answer_cancel and
 * pdd_device_cancel may be called from any.
 *
 * Ownership. What a call takes (options, texts, keys) is copied before it returns. What a call
 * returns as `const char *` belongs to the object it came from and lives as long. Objects may be
 * freed in any order and at any moment, also in the middle of an answer: a device keeps its model,
 * an answer keeps its chat, and answers of a closed device are over, as cancelled. NULL may be
 * freed. A string is UTF-8.
 *
 * Errors. Calls that can fail return 0 (PDD_OK) or a negative `enum pdd_code`, and put a sentence
 * into the caller's `pdd_error` that names the culprit and, where there is one, the remedy. `error`
 * may be NULL. Results are written on success only. Running out of memory is an error like others.
 * A handle that is NULL or was freed is a mistake of the program, which nothing here looks for.
 *
 * Structs that you fill begin with `size`: set it to sizeof the struct and all other bytes to zero;
 * zero is the default of every field. Later versions append fields; a program built with an older
 * header goes on working, and one built with a newer header gets PDD_ERR_UNSUPPORTED only if it
 * sets a field that this library does not know. Structs that this library fills are cut to the
 * `size` that you give.
 *
 * The process. Nothing is printed, no signal handler installed, no locale changed, no environment
 * set; SIGPIPE does not reach the program by a socket of ours. Decimal points are points in any
 * locale. Used of the process: file descriptors, threads, the proxies that libcurl reads from the
 * environment, and libevent's log callback, which is set to discard its warnings. Do not use
 * objects of a parent process after fork.
 *
 * Network. Without `cloud_url` no socket is opened. Nothing is downloaded.
 *
 * C99 and C++98. Every name begins with pdd_ or PDD_. See docs/LIBPDD.md for a tour, examples/ for
 * programs.
 */
#ifndef PDD_H
#define PDD_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PDD_API __attribute__((visibility("default")))
#else
#define PDD_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ---- */

#define PDD_VERSION_MAJOR 0
#define PDD_VERSION_MINOR 1
#define PDD_VERSION_PATCH 0

/* Of the library that runs, "MAJOR.MINOR.PATCH". */
PDD_API const char *pdd_version(void);

/* ---- errors ---- */

enum pdd_code {
    PDD_OK = 0,
    PDD_MORE = 1,             /* pdd_answer_wait, pdd_answer_dispatch: the answer goes on */
    PDD_ERR_BAD_INPUT = -1,   /* a file, text or field is malformed */
    PDD_ERR_UNSUPPORTED = -2, /* well formed, but not something this library can do */
    PDD_ERR_NOT_FOUND = -3,   /* a file, or a name */
    PDD_ERR_LIMIT = -4,       /* a stated maximum is exceeded: the context, a size */
    PDD_ERR_NO_MEMORY = -5,   /* memory, or pages of the KV cache */
    PDD_ERR_IO = -6,          /* files, descriptors */
    PDD_ERR_NET = -7,         /* the cloud cannot be reached or is lost, and no model goes on */
    PDD_ERR_TIMEOUT = -8,     /* the cloud is silent */
    PDD_ERR_CANCELLED = -9,   /* not an error of an answer: see PDD_CANCELLED */
    PDD_ERR_BUSY = -10,       /* in use by another answer; a queue of the cloud is full */
    PDD_ERR_DENIED = -11,     /* the cloud's key is missing or wrong */
    PDD_ERR_PROTOCOL = -12,   /* what came from the cloud makes no sense */
    PDD_ERR_INTERNAL = -13    /* a mistake of this library that it noticed */
};

#define PDD_ERROR_TEXT 512

typedef struct pdd_error {
    int code;                  /* as the call returned it */
    char text[PDD_ERROR_TEXT]; /* one sentence, without control characters */
} pdd_error;

/* "ok", "bad_input", "no_memory", ...: for logs. "unknown" for other numbers. */
PDD_API const char *pdd_code_name(int code);

/* ---- model ---- */

typedef struct pdd_model pdd_model;

typedef struct pdd_model_options {
    size_t size;
    const char *path;               /* of the GGUF file, or of the first of its parts; needed */
    uint32_t threads;               /* that compute; 0: all CPUs of this process */
    uint32_t context_max;           /* tokens of prompt and answer; 0: what the file says */
    uint64_t kv_bytes_max;          /* memory of the KV cache; 0: two contexts, at most half of
                                       what is free */
    const char *kv_type;            /* "i16", "f16" or "q8_0"; NULL: chosen by the model */
    const char *isa;                /* instruction set, "avx2"; NULL: the best here */
    const char *chat_template;      /* name of a family, "chatml"; NULL: the file's */
    const char *chat_template_file; /* or the path of one */
    int no_think;                   /* not 0: answers begin without a thought, where possible */
    const char *profile;            /* take the time of this device ("s24-ultra-gpu"): for tests */
} pdd_model_options;

typedef struct pdd_model_info {
    size_t size;
    const char *name;           /* of the model */
    const char *numerics;       /* class of exactness; clouds of the same give the same bits */
    const char *weights_hash;   /* SHA-256, in hex */
    const char *tokenizer_hash; /* the same */
    const char *emulated;       /* NULL, or whose speed is emulated */
    uint32_t context_max;       /* tokens of prompt and answer */
    uint32_t context_trained;   /* of the file; beyond it answers may be nonsense; 0: unknown */
    uint32_t vocabulary;        /* tokens */
    uint32_t passed_merges;     /* malformed merges of the tokenizer, which are passed over */
    int has_chat_template;
} pdd_model_info;

/* Loads a file; takes seconds for gigabytes. A model serves one device at a time. A name of
 * `pdd model list` is not taken, since it depends on the environment; its --json has the path. */
PDD_API int pdd_model_open(const pdd_model_options *options, pdd_model **ret_model,
                           pdd_error *error);
/* Set ret_info->size before. */
PDD_API int pdd_model_info_of(const pdd_model *model, pdd_model_info *ret_info, pdd_error *error);
/* How many tokens a text has, without chat template. `length`: its bytes. While no device has the
 * model, too. From any thread. */
PDD_API int pdd_model_count(const pdd_model *model, const char *text, size_t length,
                            uint32_t *ret_tokens, pdd_error *error);
PDD_API void pdd_model_close(pdd_model *model);

/* ---- device ---- */

typedef struct pdd_device pdd_device;

enum pdd_read_ahead {
    PDD_READ_AHEAD_OFF,
    PDD_READ_AHEAD_MAINS, /* not while the machine runs on its battery */
    PDD_READ_AHEAD_ALWAYS
};

typedef struct pdd_device_options {
    size_t size;
    pdd_model *model;          /* NULL: the cloud gives all answers */
    const char *cloud_url;     /* "https://host[:port][/path]"; NULL: no network */
    const char *cloud_key;     /* its bearer key, or NULL */
    const char *cloud_ca_file; /* PEM file of certificates to trust, instead of the system's */
    const char *cloud_model;   /* the name to ask for, where the cloud has several; or NULL */
    /* A folder for what is kept between runs: measured speeds, and the KV cache. NULL: nothing is
     * kept. Meant for one device at a time: of several, each counts kv_disk_bytes for itself. */
    const char *state_dir;
    uint64_t kv_disk_bytes; /* of the KV cache there; 0: none. Needs state_dir and a model */
    uint32_t stall_ms;      /* silence after which the cloud counts as lost; 0: 5 s with a model,
                               30 s without */
    int read_ahead;         /* enum pdd_read_ahead: read what the KV cache lacks after an answer */
} pdd_device_options;

/* Connects in the background: a cloud that is away is no error here. PDD_ERR_BUSY: the model has a
 * device. */
PDD_API int pdd_device_open(const pdd_device_options *options, pdd_device **ret_device,
                            pdd_error *error);
/* Cancels all its answers that are on their way. From any thread, a signal handler excepted. */
PDD_API void pdd_device_cancel(pdd_device *device);
/* Its answers end as cancelled. Waits for the current step of the model, below a second on machines
 * that answer at reading speed. */
PDD_API void pdd_device_close(pdd_device *device);

/* ---- chat ---- */

typedef struct pdd_chat pdd_chat;

#define PDD_CHAT_MESSAGES 1024 /* at most in one chat; then the oldest pair makes room */

/* `system`: the message that comes first and stays, or NULL. */
PDD_API int pdd_chat_new(const char *system, pdd_chat **ret_chat, pdd_error *error);
/* Appends a message. role: "user" or "assistant", or "system" as the first message. `length`: bytes
 * of the text. PDD_ERR_BUSY, here and below: an answer is on its way. */
PDD_API int pdd_chat_add(pdd_chat *chat, const char *role, const char *text, size_t length,
                         pdd_error *error);
PDD_API uint32_t pdd_chat_count(const pdd_chat *chat);
/* Message `index` < pdd_chat_count; texts live until the chat changes. NULL: not of interest. */
PDD_API int pdd_chat_message(const pdd_chat *chat, uint32_t index, const char **ret_role,
                             const char **ret_text, size_t *ret_length, pdd_error *error);
/* Keeps the first `count` messages. To ask the last question again, cut it off with its answer. */
PDD_API int pdd_chat_cut(pdd_chat *chat, uint32_t count, pdd_error *error);
/* As a JSON array of OpenAI's messages. The file appears whole or not at all, readable by its owner
 * alone. */
PDD_API int pdd_chat_save(const pdd_chat *chat, const char *path, pdd_error *error);
PDD_API int pdd_chat_load(const char *path, pdd_chat **ret_chat, pdd_error *error);
PDD_API void pdd_chat_free(pdd_chat *chat);

/* ---- question ---- */

typedef struct pdd_answer pdd_answer;

enum pdd_mode { PDD_MODE_AUTO, PDD_MODE_LOCAL, PDD_MODE_CLOUD }; /* LOCAL: nothing is sent */
enum pdd_source { PDD_SOURCE_CLOUD, PDD_SOURCE_DEVICE };
enum pdd_pace {
    PDD_PACE_SMOOTH, /* even */
    PDD_PACE_OFF,    /* each token as it comes */
    PDD_PACE_READING /* as people read, which needs less of the cloud */
};
enum pdd_goal { PDD_GOAL_EVEN, PDD_GOAL_FAST, PDD_GOAL_CHEAP, PDD_GOAL_BATTERY };
/* Whether tokens of a cloud with other numerics are compared with this device's own. AUTO: if it
 * has the same weights. ON: also where only you know that it has. */
enum pdd_verify { PDD_VERIFY_AUTO, PDD_VERIFY_ON, PDD_VERIFY_OFF };
/* Whether the device may read a shortened prompt, which can change the answer. AUTO: only if it
 * could not take over in time with the whole one. CLOUD: the cloud keeps refine_ratio of it. LOCAL:
 * this device does, by the words of the question. */
enum pdd_refine { PDD_REFINE_AUTO, PDD_REFINE_OFF, PDD_REFINE_CLOUD, PDD_REFINE_LOCAL };

#define PDD_CLOUD_TOKENS_NONE (-1)

/* One token, as it is shown. Later versions append fields. */
typedef struct pdd_token {
    uint32_t index;              /* in the answer */
    int32_t id;                  /* in the vocabulary of its source; -1: none is known */
    int source;                  /* enum pdd_source */
    double arrived_ms, shown_ms; /* since the question was asked */
} pdd_token;

/* `text`: `length` bytes of whole characters, then a 0; maybe none (the token holds part of a
 * character), and a token may come twice (its last character was never finished). Returns 0 to go
 * on; other values cancel the answer. */
typedef int pdd_on_text(void *arg, const char *text, size_t length, const pdd_token *token);
/* What the model thinks before it answers, where its template marks that: the same, for a token
 * that comes before the one of the text. */
typedef int pdd_on_thought(void *arg, const char *text, size_t length, const pdd_token *token);
/* Of the prompt, `done` of `total` tokens are read by enum pdd_source. Returns as above. */
typedef int pdd_on_progress(void *arg, int source, uint32_t done, uint32_t total);
/* The cloud is lost, and the answer goes on; once for each answer. Returns as above. */
typedef int pdd_on_trouble(void *arg, const char *sentence);

/* What is added to the logit of a token, from -100 to 100; -100: it is never drawn. */
typedef struct pdd_bias {
    int32_t token; /* in the vocabulary of the model; without one, of the cloud's */
    float bias;
} pdd_bias;

#define PDD_STOPS_MAX 64          /* stop strings of a question */
#define PDD_STOP_BYTES_MAX 1024   /* of one */
#define PDD_STOPS_BYTES_MAX 16384 /* of all */
#define PDD_BIASES_MAX 300        /* of a question */

typedef struct pdd_question {
    size_t size;
    /* The conversation: its messages are asked with the text, and when an answer has come, question
     * and answer are added. Where they no longer fit into the context, its oldest pairs are left
     * out, for good. NULL: the text alone. An answer that failed, or was cancelled before its first
     * token, adds nothing. */
    pdd_chat *chat;
    const char *text;     /* needed */
    size_t text_length;   /* bytes; 0: up to its 0 */
    int raw;              /* not 0: the text is the prompt itself, without template and chat; needs
                             a model */
    int mode;             /* enum pdd_mode */
    uint32_t tokens_max;  /* of the answer; 0: 512 */
    float temperature;    /* 0: always the likeliest token; at most 100 */
    uint32_t top_k;       /* 0: all */
    float top_p;          /* up to 1; 0: all */
    float min_p;          /* below 1 */
    float repeat_penalty; /* 0 or 1: none */
    uint32_t repeat_last; /* tokens that it looks at; 0: 64 */
    float frequency_penalty; /* from -2 to 2: for each time that a token is in the answer already */
    float presence_penalty;  /* from -2 to 2: for being there */
    uint32_t min_tokens;     /* the answer does not end before */
    uint64_t seed;           /* equal seeds give equal answers */
    int pace;                /* enum pdd_pace */
    int goal;                /* enum pdd_goal */
    uint32_t first_ms;       /* wanted time to the first token; 0: as the goal has it */
    uint32_t interval_ms;    /* wanted time between tokens; 0: as the goal has it */
    uint32_t cloud_tokens_max; /* of the cloud, as long as the device can go on; 0: as the goal */
    int32_t cloud_tokens;      /* exactly as many of the cloud; PDD_CLOUD_TOKENS_NONE; 0: planned */
    int verify;                /* enum pdd_verify */
    int refine;                /* enum pdd_refine */
    float refine_ratio;        /* above 0, below 1; with PDD_REFINE_CLOUD and _LOCAL only */
    pdd_on_text *on_text;      /* each may be NULL */
    pdd_on_thought *on_thought; /* NULL: thoughts are a part of the text, with their marks */
    pdd_on_progress *on_progress;
    pdd_on_trouble *on_trouble;
    void *arg; /* passed to them */
    /* Texts at which the answer ends, as PDD_STOP: before the one that is complete first, the
     * longest on a tie. Text that may become one is held back until that is clear. They are looked
     * for in the text, and not in thoughts that come apart. */
    const char *const *stop; /* [stop_count] each of 1 byte or more, in UTF-8 */
    uint32_t stop_count;
    uint32_t logit_bias_count;
    const pdd_bias *logit_bias; /* [logit_bias_count] each token once; a cloud with another
                                   tokenizer is not asked */
} pdd_question;

/* ---- asking ---- */

#define PDD_ANSWERS_MAX 32 /* of one device at once; a further one is PDD_ERR_BUSY */

/* Asks and waits for the end of the answer, with callbacks in this thread. On success the answer
 * holds text and report; free it. ret_answer NULL: it is freed. A cancelled answer is a success; of
 * one that failed only the sentence is left, so use pdd_ask_begin where its report matters. */
PDD_API int pdd_ask(pdd_device *device, const pdd_question *question, pdd_answer **ret_answer,
                    pdd_error *error);

/* For event loops: only begins. Wait until pdd_answer_fd is readable, then call
 * pdd_answer_dispatch, as long as it returns PDD_MORE. */
PDD_API int pdd_ask_begin(pdd_device *device, const pdd_question *question, pdd_answer **ret_answer,
                          pdd_error *error);
/* To be polled for reading, and for nothing else. It stays readable when the answer is over. */
PDD_API int pdd_answer_fd(const pdd_answer *answer);
/* Calls the callbacks for what has come; never waits. PDD_MORE: the answer goes on. 0: it is over.
 * Negative: it is over, neither end could finish it; text and report hold what came. Called again
 * after the end, it returns the same. Not from callbacks: PDD_ERR_BUSY. */
PDD_API int pdd_answer_dispatch(pdd_answer *answer, pdd_error *error);
/* The same, and waits for the end of the answer; PDD_MORE after timeout_ms. -1: no timeout. */
PDD_API int pdd_answer_wait(pdd_answer *answer, int timeout_ms, pdd_error *error);
/* From any thread, and from callbacks: it ends soon, with what was shown. */
PDD_API void pdd_answer_cancel(pdd_answer *answer);
/* Cancels it first if it is on its way. From callbacks, too: no further one is called. */
PDD_API void pdd_answer_free(pdd_answer *answer);

/* ---- what came ---- */

/* All text so far for which callbacks were called, 0-terminated; until the next dispatch. */
PDD_API const char *pdd_answer_text(const pdd_answer *answer, size_t *ret_length);
/* The same of the thoughts, with on_thought. */
PDD_API const char *pdd_answer_thought(const pdd_answer *answer, size_t *ret_length);

enum pdd_reason {
    PDD_STOP,      /* the model ended its answer */
    PDD_LENGTH,    /* tokens_max, or the context, is reached */
    PDD_CANCELLED, /* by you */
    PDD_FAILED     /* neither end could go on */
};

/* Of an answer that is over. Times are in milliseconds; 0 where there was no such event. */
typedef struct pdd_report {
    size_t size;
    int reason; /* enum pdd_reason */
    uint32_t tokens, cloud_tokens, device_tokens;
    uint32_t handover; /* index of the first token of the device after some of the cloud; 0: none */
    uint32_t stalls;   /* gaps above 200 ms */
    uint32_t left_out; /* messages of the chat that no longer fit */
    double first_ms;   /* from asking to the first token */
    double interval_mean_ms, interval_max_ms; /* between tokens, as shown */
    double handover_gap_ms;                   /* between the two tokens there */
    const char *plan;                         /* why the answer was given that way */
    const char *trouble;                      /* "", or what went wrong though an answer came */
    /* the device */
    uint32_t prompt_tokens, kept_tokens; /* kept: in its KV cache already */
    double prefill_tps, decode_ms;       /* measured, or predicted */
    /* the cloud, and what left the machine */
    const char *match; /* "exact", "weights", "tokens", "text": how far the ends agree; "": no cloud
                          answered; "refined": the device read a shortened prompt */
    uint32_t cloud_requests, cloud_prompt_tokens, cloud_cached_tokens;
    double cloud_first_ms, cloud_slot_ms; /* its first token; how long it held a slot */
    uint64_t sent_bytes, received_bytes;  /* bodies of requests and responses */
    /* verification of a cloud with other numerics */
    const char *unverified; /* "", or why not */
    int verifying, differs;
    uint32_t verified, compared, received, difference, dropped; /* tokens; difference: the index */
    /* refinement */
    const char *unrefined; /* "", or why the prompt that was to be shortened was not */
    int refined, refined_here;
    uint32_t refined_read, refined_versions, refined_restored; /* tokens that were read, ... */
    float refined_ratio, refined_coverage;
    /* energy */
    double energy_j;        /* from asking to the end, in joules */
    int energy_measured;    /* else by the power that is assumed of the device */
    const char *energy_how; /* "measured: ...", "declared: ..."; "": nothing is known */
} pdd_report;

/* Set ret_report->size before. PDD_ERR_BUSY: the answer goes on. */
PDD_API int pdd_answer_report(const pdd_answer *answer, pdd_report *ret_report, pdd_error *error);
/* The report with every token as one JSON object (docs/LIBPDD.md leads to its fields),
 * 0-terminated; of the answer. The same errors. */
PDD_API int pdd_answer_json(pdd_answer *answer, const char **ret_json, size_t *ret_length,
                            pdd_error *error);

#ifdef __cplusplus
}
#endif

#endif
