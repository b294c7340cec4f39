/* serve: listening, routes, opening and closing; see serve.h. */
#include "device/api/serve.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "device/api/guard.h"
#include "device/api/page.h"
#include "device/api/routes.h"
#include "device/api/serve_impl.h"

enum { SHORT_BODY_MAX = 4096, SCRATCH_MAX = 64 << 20, DRAIN_FLUSH_US = 1000000 };

#define ROUTE(METHOD, PATH, HANDLER, GATE, BODY_MAX, LOOSE, TEXT)                                  \
    {METHOD, PATH, HANDLER, GATE, BODY_MAX, LOOSE},

static const struct http_route routes[] = {ROUTES_OF_DEVICE(ROUTE)};

static void on_refused(struct http_request *r, int status, const char *reason, void *serve)
{
    char peer[HTTP_ADDRESS_TEXT];
    (void)serve;
    http_request_peer(r, peer);
    log_line(LOG_INFO, "device", "refused request=%s from=%s status=%d reason=%s",
             http_request_tag(r), peer, status, reason);
}

static void set_model(struct serve *s, const struct device_options *o)
{
    s->info = o->engine ? engine_info(o->engine) : NULL;
    s->vocab = o->engine ? engine_vocab(o->engine) : NULL;
    wire_name_set(s->model, s->info                   ? s->info->model_name
                            : o->model && o->model[0] ? o->model
                                                      : "cloud");
    if (s->info) openai_fingerprint(s->info->weights_hash, s->info->numerics, s->fingerprint);
}

static int keep_text(const char *from, char to[SERVE_TEXT_MAX + 1], const char *what, struct err *e)
{
    if (snprintf(to, SERVE_TEXT_MAX + 1, "%s", from) > SERVE_TEXT_MAX)
        return err_set(e, ERR_BAD_INPUT, "%s is longer than %d bytes", what, SERVE_TEXT_MAX);
    return 0;
}

/* Names, origins and the token are copied; of an URL the caller keeps the text. */
static int keep_texts(struct serve *s, struct err *e)
{
    uint32_t n = 0;
    int code = s->c.token ? keep_text(s->c.token, s->token, "the token", e) : 0;
    s->texts = mem_calloc(2 * SERVE_HOSTS_MAX + 2, sizeof *s->texts);
    if (!s->texts) return err_set(e, ERR_NO_MEMORY, "no memory for a server");
    for (uint32_t i = 0; i < s->c.n_hosts && !code; i++, n++) {
        code = keep_text(s->c.hosts[i], s->texts[n], "a host", e);
        s->c.hosts[i] = s->texts[n];
    }
    for (uint32_t i = 0; i < s->c.n_origins && !code; i++, n++) {
        code = keep_text(s->c.origins[i], s->texts[n], "an origin", e);
        s->c.origins[i] = s->texts[n];
    }
    if (!code) code = keep_text(s->c.http.address, s->texts[n], "the address", e);
    s->c.http.address = s->texts[n];
    return code;
}

/* Nothing that is kept is needed for an answer. */
static void open_record(struct serve *s)
{
    struct err e = ERR_INIT;
    if (!s->c.state_dir) return;
    if (record_open(s->c.state_dir, &s->record, &e))
        log_line(LOG_ERROR, "device", "nothing is kept for after a restart: %s", e.text);
}

void serve_take_uses(void *serve)
{
    struct serve *s = serve;
    struct local *engine = s->core ? device_core_local(s->core) : NULL;
    struct kv_disk *disk = engine ? local_disk(engine) : NULL;
    for (struct kv_disk_use *use; disk && (use = kv_disk_take_use(disk)) != NULL; mem_free(use))
        record_use(s->record, use);
}

void serve_forget_pages(struct serve *s, const char *conversation)
{
    struct local *engine = device_core_local(s->core);
    struct kv_disk *disk = engine ? local_disk(engine) : NULL;
    struct buf keys;
    if (!disk) return;
    local_forget(engine, conversation); /* from here on there come no more */
    serve_take_uses(s);
    buf_init(&keys, RECORD_PAGES_BYTES);
    record_take_pages(s->record, conversation, &keys);
    kv_disk_forget(disk, (const void *)keys.data, (uint32_t)(keys.len / KV_DISK_KEY));
    buf_release(&keys);
}

static bool has_page(void *disk, const struct kv_key *key)
{
    return kv_disk_has(disk, key);
}

/* In its own folder beside the database; opening the database has made the state folder. */
static void open_kv_disk(struct serve *s)
{
    char dir[KV_DISK_DIR_MAX];
    struct err e = ERR_INIT;
    struct local *engine = device_core_local(s->core);
    if (!s->record || !s->c.kv_disk_bytes || !engine) return;
    int n = snprintf(dir, sizeof dir, "%s/kv", s->c.state_dir);
    int code = n >= (int)sizeof dir ? err_set(&e, ERR_LIMIT, "the state folder's name is too long")
                                    : local_keep(engine, dir, s->c.kv_disk_bytes, &e);
    if (code)
        log_line(LOG_ERROR, "device", "no KV cache is kept for after a restart: %s", e.text);
    else
        record_check_pages(s->record, has_page, local_disk(engine));
}

static int open_parts(struct serve *s, struct err *e)
{
    const struct serve_config *c = &s->c;
    int code = keep_texts(s, e);
    open_record(s);
    s->c.device.store = record_store(s->record);
    s->c.device.on_use = serve_take_uses;
    s->c.device.arg = s;
    if (!code) code = loop_timer_new(s->loop, ask_start_waiting, s, &s->start_timer, e);
    if (!code) code = loop_timer_new(s->loop, ask_check_unread, s, &s->unread_timer, e);
    if (!code) code = loop_timer_new(s->loop, ask_sweep, s, &s->forget_timer, e);
    if (!code) code = loop_timer_new(s->loop, reader_break_silence, s, &s->quiet_timer, e);
    if (!code) reader_break_silence(s); /* there is no ask yet: it sets the timer */
    if (!code) code = admit_line_new(c->answers_max + c->queue_max + 1, &s->line, e);
    if (!code)
        code = http_server_new(s->loop, &c->http, routes, sizeof routes / sizeof *routes, s,
                               &s->http, e);
    /* The core takes the engine, which a failure leaves with the caller. */
    if (!code) code = device_core_open(s->loop, &c->device, &s->core, e);
    if (!code) open_kv_disk(s);
    for (uint32_t i = 0; i < c->answers_max && !code; i++)
        code = device_open_on(s->core, &s->devices[i], e);
    if (!code) record_restore(s->record, s, ask_restore);
    return code;
}

static void close_parts(struct serve *s, bool with_engine)
{
    http_server_free(s->http); /* its readers leave */
    for (uint32_t i = 0; i < SERVE_ANSWERS_MAX; i++) {
        device_close_on(s->devices[i]);
        if (s->runs[i]) s->runs[i]->device = NULL;
    }
    while (s->asks) {
        struct ask *a = s->asks;
        s->asks = a->next;
        ask_free(a);
    }
    if (s->core) device_core_fill_stop(s->core);
    serve_take_uses(s);
    if (with_engine)
        device_core_close(s->core);
    else
        device_core_release(s->core);
    admit_line_free(s->line);
    record_close(s->record);
    loop_timer_free(s->start_timer);
    loop_timer_free(s->unread_timer);
    loop_timer_free(s->forget_timer);
    loop_timer_free(s->drain_timer);
    loop_timer_free(s->quiet_timer);
    buf_release(&s->bytes);
    mem_free(s->texts);
    mem_free(s);
}

static int draw_approval(struct serve *s, struct err *e)
{
    unsigned char random[SERVE_APPROVAL_BYTES];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return err_set(e, ERR_INTERNAL, "no random numbers from the system");
    hex_encode(random, sizeof random, s->approval);
    return 0;
}

const char *serve_approval(const struct serve *s)
{
    return s->approval;
}

int serve_new(struct loop *l, const struct serve_config *config, struct serve **ret_serve,
              struct err *e)
{
    struct serve *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory for a server");
    s->loop = l;
    s->c = *config;
    s->started = (uint64_t)time(NULL);
    s->c.http.options_gate = guard_options;
    s->c.http.on_refused = on_refused;
    if (s->c.quiet_us == 0) s->c.quiet_us = SERVE_QUIET_US;
    if (s->c.answers_max == 0 || s->c.answers_max > SERVE_ANSWERS_MAX)
        s->c.answers_max = SERVE_ANSWERS_MAX;
    if (s->c.queue_max > SERVE_QUEUE_MAX) s->c.queue_max = SERVE_QUEUE_MAX;
    buf_init(&s->bytes, SCRATCH_MAX);
    set_model(s, &config->device);
    int code = draw_approval(s, e);
    if (!code) code = open_parts(s, e);
    if (code) {
        close_parts(s, false);
        return code;
    }
    *ret_serve = s;
    return 0;
}

void serve_free(struct serve *s)
{
    if (s) close_parts(s, true);
}

uint16_t serve_port(const struct serve *s)
{
    return http_server_port(s->http);
}

static void drain_over(void *arg)
{
    struct serve *s = arg;
    struct ask *a = s->asks;
    while (a) {
        bool over = a->state == ASK_OVER;
        if (!over) ask_cancel(a);
        a = over ? a->next : s->asks; /* an end may free others */
    }
}

void serve_drain(struct serve *s, uint64_t drain_us, loop_fn *done, void *arg)
{
    struct err ignored = ERR_INIT;
    uint64_t until = clock_us() + drain_us;
    s->draining = true;
    if (!s->drain_timer) (void)loop_timer_new(s->loop, drain_over, s, &s->drain_timer, &ignored);
    if (s->drain_timer) loop_timer_set(s->drain_timer, until);
    http_server_drain(s->http, until + DRAIN_FLUSH_US, done, arg);
}
