/*
 * load_chaos: clients of every bad manner at once, for soak tests; see load_run.h. `streams` actors
 * each do one deed after the other, chosen by the seed: whole requests to every face, cut ones,
 * malformed heads and bodies, bytes flipped, clients that leave, half-close, reset, stop reading,
 * send drop by drop, patch and delete what others run. With hup_s the server is told to reload
 * meanwhile.
 *
 * An answer with a status that no client may cause (500 and above, but 501, 503, 504 and 505) and a
 * connection that is not accepted are failures; a TLS handshake that is broken off is none, for the
 * server does that to connections beyond its limit. Whether the server leaked or raced is for its
 * sanitizer to say, and for who started it.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "load/load_run.h"

enum {
    TICK_US = 2000,
    LIFE_US = 20000000, /* no deed takes longer: it is left then */
    BYTES_MAX = 64 * 1024,
    ID_MAX = 64,
    STATUSES = 600,
    DROP_BYTES = 7,
    PROMPT_LONGEST = 900,
    TOKENS_MOST = 60
};

enum manner {
    STAY,       /* until the answer's end */
    LEAVE,      /* close after a while */
    RESET,      /* the same, with a reset */
    HALF_CLOSE, /* end the sending side after a while */
    DEAF,       /* read nothing, then leave */
    DRIP,       /* send a few bytes at a time, then stay */
    CUT_SHORT,  /* send a part only, then leave */
    MANNERS
};

enum what { ASSIST, TEXT, HEADS, BODIES, FLIPPED, PATCH, DELETE, WHATS };
static const char *const what_names[WHATS] = {"assist",  "text",  "heads", "bodies",
                                              "flipped", "patch", "delete"};

/* One in so many of each; the sum is the denominator. */
static const uint32_t what_weights[WHATS] = {10, 6, 3, 3, 4, 2, 1};
static const uint32_t manner_weights[MANNERS] = {8, 6, 2, 2, 1, 1, 2};

static const char *const heads[] = {
    "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v1/models HTTP/1.0\r\n\r\n",
    "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    "PUT /v1/assist HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /v1/assist HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "POST /v1/assist HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "POST /v1/assist HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "POST /v1/assist HTTP/1.1\nHost: x\n\n",
    "GET  /health HTTP/1.1\r\n\r\n",
    "GET /health HTTP/9.9\r\n\r\n",
    "GET /health HTTP/1.1\r\nA : b\r\n\r\n",
    "GET /health HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
    "GET /v1/assist/none HTTP/1.1\r\nHost: x\r\nExpect: 200-maybe\r\n\r\n",
    "\r\n\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
};

static const char *const bodies[] = {
    "",
    "{",
    "[]",
    "null",
    "{}",
    "{\"prompt\":[]}",
    "{\"prompt\":[1,2,3],\"prompt\":[4]}",
    "{\"prompt\":[-1],\"tokens_max\":1}",
    "{\"prompt\":[1e300],\"tokens_max\":1}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":5}],\"tokens_max\":99999999999}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"temperature\":-3}",
    "{\"unknown\":true}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
};

static const char *const paths[] = {"/v1/assist", "/v1/chat/completions", "/v1/completions",
                                    "/tokenize", "/detokenize"};

static const char *const texts[][2] = {
    {"/v1/assist", "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me of the sea.\"}],"
                   "\"tokens_max\":20}"},
    {"/v1/chat/completions",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me of the sea.\"}],"
     "\"max_tokens\":20,\"stream\":true,\"stream_options\":{\"include_usage\":true}}"},
    {"/v1/chat/completions",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"And the hills?\"}],\"max_tokens\":30,"
     "\"stop\":[\"e\",\"zz\"],\"logprobs\":true,\"top_logprobs\":2}"},
    {"/v1/completions", "{\"prompt\":\"Once upon a time\",\"max_tokens\":25,\"stream\":true}"},
    {"/v1/completions", "{\"prompt\":\"Once upon a time\",\"max_tokens\":25,\"seed\":7,"
                        "\"temperature\":0.8,\"stop\":\"\\n\"}"},
    {"/tokenize", "{\"content\":\"Once upon a time\"}"},
    {"/detokenize", "{\"tokens\":[1,2,3,300]}"},
};

struct chaos;
struct actor {
    struct chaos *of;
    struct load_call *call;
    enum what what;
    enum manner manner;
    char *bytes;
    size_t n, sent;
    uint64_t act_at, until;
};

struct chaos {
    struct load_target *target;
    const struct load_options *o;
    struct loop_timer *tick;
    struct actor *actors; /* [o->streams] */
    struct rng rng;
    char id[ID_MAX]; /* of the last assist that began */
    uint64_t until, hup_at, said_at;
    uint64_t deeds[WHATS][MANNERS], statuses[STATUSES], cut, unshaken, failed, hups, tokens;
};

static uint32_t pick(struct chaos *k, const uint32_t *weights, uint32_t n)
{
    uint32_t sum = 0, i = 0;
    for (uint32_t w = 0; w < n; w++)
        sum += weights[w];
    uint32_t x = rng_below(&k->rng, sum);
    while (x >= weights[i])
        x -= weights[i++];
    return i;
}

static void set_bytes(struct actor *a, const char *bytes, size_t n)
{
    a->bytes = mem_alloc(n + 1);
    CHECK(a->bytes);
    memcpy(a->bytes, bytes, n);
    a->n = n;
}

/* A request with a body, with or without the key, now and then with a wrong one. */
static void set_request(struct actor *a, const char *method, const char *path, const char *body)
{
    static char text[BYTES_MAX];
    const char *key = a->of->target->key;
    char bearer[512] = "";
    uint32_t dice = rng_below(&a->of->rng, 16);
    if (key && dice > 0)
        snprintf(bearer, sizeof bearer, "Authorization: Bearer %s%s\r\n", key,
                 dice == 1 ? "x" : "");
    int n = snprintf(text, sizeof text,
                     "%s %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n%s\r\n%s",
                     method, path, strlen(body), bearer, body);
    CHECK(n > 0 && (size_t)n < sizeof text);
    set_bytes(a, text, (size_t)n);
}

static void set_assist(struct actor *a)
{
    struct chaos *k = a->of;
    uint32_t prompt = 1 + rng_below(&k->rng, PROMPT_LONGEST);
    uint32_t common = rng_below(&k->rng, 2) ? prompt / 2 : 0;
    CHECK(load_assist_bytes(k->target, prompt, common, k->o->vocab,
                            1 + rng_below(&k->rng, TOKENS_MOST), rng_next(&k->rng), &a->bytes,
                            &a->n) == 0);
}

static void set_what(struct actor *a)
{
    struct chaos *k = a->of;
    char path[ID_MAX + 16];
    snprintf(path, sizeof path, "/v1/assist/%s", k->id[0] ? k->id : "as-none");
    uint32_t r = rng_next(&k->rng) >> 8;
    switch (a->what) {
    case TEXT:
        set_request(a, "POST", texts[r % (sizeof texts / sizeof *texts)][0],
                    texts[r % (sizeof texts / sizeof *texts)][1]);
        break;
    case HEADS:
        set_bytes(a, heads[r % (sizeof heads / sizeof *heads)],
                  strlen(heads[r % (sizeof heads / sizeof *heads)]));
        break;
    case BODIES:
        set_request(a, "POST", paths[r % (sizeof paths / sizeof *paths)],
                    bodies[(r >> 8) % (sizeof bodies / sizeof *bodies)]);
        break;
    case PATCH:
        set_request(a, "PATCH", path, r % 2 ? "{\"tokens_max\":40}" : "{\"tokens_max\":2}");
        break;
    case DELETE:
        set_request(a, "DELETE", path, "");
        break;
    default:
        set_assist(a);
    }
    for (uint32_t i = 0; a->what == FLIPPED && i <= r % 4; i++)
        a->bytes[rng_below(&k->rng, (uint32_t)a->n)] ^= (char)(1u << rng_below(&k->rng, 8));
}

static void over(struct actor *a)
{
    load_call_close(a->call);
    a->call = NULL;
    mem_free(a->bytes);
    a->bytes = NULL;
}

static void on_head(struct load_call *c)
{
    struct actor *a = c->owner;
    int status = c->status > 0 && c->status < STATUSES ? c->status : 0;
    a->of->statuses[status]++;
    bool ours = status >= 500 && status != 501 && status != 503 && status != 504 && status != 505;
    if (!ours) return;
    fprintf(stderr, "bench_cloud: status %d for %s\n", status, what_names[a->what]);
    a->of->failed++;
}

static void on_event(struct load_call *c, const char *name, const char *data)
{
    struct actor *a = c->owner;
    const char *id = strcmp(name, "grant") == 0 ? strstr(data, "\"id\":\"") : NULL;
    if (strcmp(name, "token") == 0) a->of->tokens++;
    if (!id) return;
    size_t n = strcspn(id + 6, "\"");
    if (n >= ID_MAX) return;
    memcpy(a->of->id, id + 6, n);
    a->of->id[n] = 0;
}

static void on_end(struct load_call *c, enum load_end how)
{
    struct actor *a = c->owner;
    a->of->cut += how == LOAD_CUT;
    a->of->unshaken += how == LOAD_UNSHAKEN;
    if (how == LOAD_FAILED) {
        fprintf(stderr, "bench_cloud: no connection\n");
        a->of->failed++;
    }
    over(a);
}

static const struct load_hooks hooks = {.head = on_head, .event = on_event, .end = on_end};

static void begin_deed(struct actor *a, uint64_t now)
{
    struct chaos *k = a->of;
    a->what = (enum what)pick(k, what_weights, WHATS);
    a->manner = (enum manner)pick(k, manner_weights, MANNERS);
    k->deeds[a->what][a->manner]++;
    set_what(a);
    a->sent = a->n;
    if (a->manner == DRIP) a->sent = a->n < DROP_BYTES ? a->n : DROP_BYTES;
    if (a->manner == CUT_SHORT) a->sent = rng_below(&k->rng, (uint32_t)a->n);
    a->act_at = now + rng_below(&k->rng, 400000);
    a->until = now + LIFE_US;
    a->call = load_call_open(k->target, a->bytes, a->sent, &hooks, a);
    if (!a->call) over(a); /* no descriptor: another time */
    if (a->call && a->manner == DEAF) load_call_pause(a->call);
}

static void reset(struct load_call *c)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

static void go_on(struct actor *a, uint64_t now)
{
    bool due = now >= a->act_at;
    size_t left = a->n - a->sent, drop = left < DROP_BYTES ? left : DROP_BYTES;
    switch (a->manner) {
    case RESET:
        if (due) reset(a->call);
        break;
    case HALF_CLOSE:
        if (due) shutdown(a->call->fd, SHUT_WR);
        break;
    case DRIP:
        if (drop > 0 && a->call->ready_at) load_call_send(a->call, a->bytes + a->sent, drop);
        a->sent += a->call->ready_at ? drop : 0;
        break;
    default:
        break;
    }
    bool leaves =
        a->manner == LEAVE || a->manner == RESET || a->manner == DEAF || a->manner == CUT_SHORT;
    if ((due && leaves) || now >= a->until) over(a);
}

static void tell_to_reload(struct chaos *k, uint64_t now)
{
    if (k->o->hup_s == 0 || k->o->pid == 0 || now < k->hup_at) return;
    k->hups += kill((pid_t)k->o->pid, SIGHUP) == 0;
    k->hup_at = now + k->o->hup_s * 1000000ull;
}

static void tick(void *arg)
{
    struct chaos *k = arg;
    uint64_t now = clock_us();
    bool leaving = now >= k->until;
    uint32_t busy = 0;
    tell_to_reload(k, now);
    for (uint32_t i = 0; i < k->o->streams; i++) {
        struct actor *a = &k->actors[i];
        if (a->call)
            go_on(a, now);
        else if (!leaving && now >= a->act_at)
            begin_deed(a, now);
        busy += a->call != NULL;
    }
    if (now >= k->said_at) {
        fprintf(stderr, "bench_cloud: %.0f s to go, %llu tokens, %llu reloads, %llu failures\n",
                leaving ? 0.0 : (double)(k->until - now) / 1e6, (unsigned long long)k->tokens,
                (unsigned long long)k->hups, (unsigned long long)k->failed);
        k->said_at = now + 60000000;
    }
    if (leaving && busy == 0)
        loop_stop(k->target->loop);
    else
        loop_timer_set(k->tick, now + TICK_US);
}

static void report(const struct chaos *k)
{
    printf("{\"seconds\":%u,\"failed\":%llu,\"unshaken\":%llu,\"cut\":%llu,\"reloads\":%llu,"
           "\"tokens\":%llu,"
           "\"deeds\":{",
           k->o->seconds, (unsigned long long)k->failed, (unsigned long long)k->unshaken,
           (unsigned long long)k->cut, (unsigned long long)k->hups, (unsigned long long)k->tokens);
    for (int w = 0; w < WHATS; w++) {
        uint64_t sum = 0;
        for (int m = 0; m < MANNERS; m++)
            sum += k->deeds[w][m];
        printf("%s\"%s\":%llu", w ? "," : "", what_names[w], (unsigned long long)sum);
    }
    printf("},\"statuses\":{");
    const char *comma = "";
    for (int s = 0; s < STATUSES; s++) {
        if (!k->statuses[s]) continue;
        printf("%s\"%d\":%llu", comma, s, (unsigned long long)k->statuses[s]);
        comma = ",";
    }
    printf("}}\n");
}

int load_chaos(struct load_target *t, const struct load_options *o)
{
    static struct chaos k;
    k = (struct chaos){.target = t, .o = o};
    k.actors = mem_calloc(o->streams, sizeof *k.actors);
    CHECK(k.actors && loop_timer_new(t->loop, tick, &k, &k.tick, NULL) == 0);
    rng_init(&k.rng, o->seed, 0);
    for (uint32_t i = 0; i < o->streams; i++)
        k.actors[i].of = &k;
    k.until = clock_us() + o->seconds * 1000000ull;
    k.hup_at = clock_us() + 1000000;
    loop_timer_set(k.tick, clock_us());
    bool ran = loop_run(t->loop, NULL) == 0;
    report(&k);
    loop_timer_free(k.tick);
    mem_free(k.actors);
    return ran && k.failed == 0 ? 0 : -1;
}
