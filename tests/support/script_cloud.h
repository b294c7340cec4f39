/*
 * script_cloud: a cloud for tests of the device, that misbehaves on demand. A thread with raw
 * sockets: it knows the answer's tokens beforehand, and one fault at one event.
 *
 * Events of a stream are counted: 0 is the grant, then one for each token, the last is `done`.
 */
#ifndef PDD_TESTS_SCRIPT_CLOUD_H
#define PDD_TESTS_SCRIPT_CLOUD_H

#include <stdbool.h>
#include <stdint.h>

enum script_fault {
    SCRIPT_FINE,
    SCRIPT_REFUSE,    /* `status` instead of a stream */
    SCRIPT_CUT,       /* the connection is closed before event `at` */
    SCRIPT_CUT_HALF,  /* and within it */
    SCRIPT_STALL,     /* nothing more comes, from event `at` on */
    SCRIPT_GARBAGE,   /* event `at` is no JSON */
    SCRIPT_NO_HTTP,   /* not even HTTP comes back */
    SCRIPT_REPEAT,    /* event `at` is sent twice */
    SCRIPT_SKIP,      /* event `at` is left out */
    SCRIPT_OTHER,     /* token `at` - 1 is sent again with another id */
    SCRIPT_BAD_ID,    /* a token that is in no vocabulary */
    SCRIPT_END_TOKEN, /* the end token, which never is sent */
    SCRIPT_ERROR,     /* event `at` is `error` */
    SCRIPT_DRAIN,     /* `done` with reason drain instead of event `at` */
    SCRIPT_FLOOD,     /* more tokens than were asked for */
    SCRIPT_AGAIN,     /* event `at` is sent again and again, until nobody listens */
    SCRIPT_STOP,      /* `done` with reason stop instead of the grant */
    SCRIPT_COUNT,     /* `done` counts a token more than were sent */
    SCRIPT_PROMPT,    /* the grant counts a token of the prompt more than were sent */
    SCRIPT_FAULTS
};

enum { SCRIPT_VERSIONS = 2 };

struct script {
    const int32_t *tokens; /* [n], the answer without its end */
    uint32_t n;
    bool ends; /* the answer is over after them (reason stop); else the cloud could go on */
    int32_t end_token;
    uint32_t prompt_tokens; /* told in the grant */
    enum script_fault fault;
    int status; /* of a refusal; 0: 503 */
    uint32_t at;
    bool always;         /* the fault strikes every request, not only the first */
    bool other_numerics; /* matches by weights, not exactly */
    /* Bitmaps [prompt_tokens], a bit each, sent to a request that asks for refinement, in front of
     * the token of that number; NULL: none. `refused`: a word instead of them. */
    const uint8_t *kept[SCRIPT_VERSIONS];
    uint32_t kept_at[SCRIPT_VERSIONS];
    const char *refused;
    bool takes_back;          /* that word instead of the second bitmap alone */
    uint32_t lies;            /* 0: none; k: token k - 1 is sent with another id */
    bool other_words;         /* refuses token ids, takes messages, and matches by text */
    const char *const *texts; /* [n] when other_words */
    uint32_t grant_pause_us, token_pause_us;
};

struct script_cloud;

struct script_cloud *script_cloud_start(const struct script *s);
void script_cloud_set(struct script_cloud *c, const struct script *s); /* between two questions */
const char *script_cloud_url(const struct script_cloud *c);
uint32_t script_cloud_connections(struct script_cloud *c); /* accepted so far */
uint32_t script_cloud_asked(struct script_cloud *c);       /* POST requests since set */
/* What the last request asked of refinement. */
struct script_refine {
    float ratio;
    uint32_t held, n_whole, whole_to;
};
struct script_refine script_cloud_refine(struct script_cloud *c);
void script_cloud_stop(struct script_cloud *c);

#endif
