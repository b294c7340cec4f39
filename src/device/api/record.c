/* record: see record.h. */
#include "device/api/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "device/api/serve_impl.h"
#include "device/kv_disk.h"
#include "proto/json.h"
#include "store/store.h"

enum { PDD_MAX = 1024, ROWS_MAX = 1000 };

enum statement {
    PUT_ANSWER,
    PUT_TOKEN,
    CUT_TOKENS,
    SET_STATE,
    FORGET,
    PUT_EGRESS,
    CUT_EGRESS,
    WAS_SENT,
    ALL_ANSWERS,
    ALL_TOKENS,
    ALL_EGRESS,
    ALL_TALKS,
    GET_TALK,
    SET_TALK,
    DROP_TALK,
    COUNT_TALKS,
    PUT_PAGE,
    OWN_PAGES,
    ALL_PAGES,
    DROP_PAGES,
    DROP_PAGE,
    STATEMENTS
};

static const char *const texts[STATEMENTS] = {
    [PUT_ANSWER] =
        "INSERT OR REPLACE INTO answer (id, created, state, chat, client, seed, conversation, "
        "request, pdd) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [PUT_TOKEN] = "INSERT OR REPLACE INTO token VALUES (?1, ?2, ?3, ?4, ?5)",
    [CUT_TOKENS] = "DELETE FROM token WHERE answer = ?1 AND i >= ?2",
    [SET_STATE] = "UPDATE answer SET state = ?2, finish = ?3, code = ?4, error = ?5, report = ?6, "
                  "prompt_tokens = ?7, cached_tokens = ?8, sent_bytes = ?9, received_bytes = ?10, "
                  "pdd = ?11 WHERE id = ?1",
    [FORGET] = "DELETE FROM answer WHERE id = ?1",
    [PUT_EGRESS] = "INSERT INTO egress VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [CUT_EGRESS] = "DELETE FROM egress WHERE rowid <= (SELECT max(rowid) FROM egress) - ?1",
    [WAS_SENT] = "SELECT 1 FROM egress WHERE answer = ?1 AND host = ?2 LIMIT 1",
    [ALL_ANSWERS] =
        "SELECT id, created, state, chat, client, seed, request, pdd, finish, code, error, report, "
        "prompt_tokens, cached_tokens, sent_bytes, received_bytes FROM answer ORDER BY created, id",
    [ALL_TOKENS] = "SELECT i, id, source, text FROM token WHERE answer = ?1 ORDER BY i",
    [ALL_EGRESS] = "SELECT e.at, e.answer, e.host, e.protected, e.form, e.n, e.have, a.sent_bytes, "
                   "a.received_bytes FROM egress e LEFT JOIN answer a ON a.id = e.answer "
                   "WHERE ?1 IS NULL OR e.answer = ?1 ORDER BY e.rowid DESC LIMIT ?2",
    [ALL_TALKS] = "SELECT id, title, created, updated FROM conversation ORDER BY updated DESC, id",
    [GET_TALK] = "SELECT body FROM conversation WHERE id = ?1",
    [SET_TALK] = "INSERT INTO conversation VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT (id) DO UPDATE "
                 "SET title = ?2, updated = ?3, body = ?4",
    [DROP_TALK] = "DELETE FROM conversation WHERE id = ?1",
    [COUNT_TALKS] = "SELECT count(*) FROM conversation WHERE id <> ?1",
    [PUT_PAGE] = "INSERT OR IGNORE INTO page VALUES (?1, ?2)",
    [OWN_PAGES] = "SELECT p.key FROM page p WHERE p.conversation = ?1 AND NOT EXISTS "
                  "(SELECT 1 FROM page o WHERE o.key = p.key AND o.conversation <> ?1)",
    [ALL_PAGES] = "SELECT DISTINCT key FROM page",
    [DROP_PAGES] = "DELETE FROM page WHERE conversation = ?1",
    [DROP_PAGE] = "DELETE FROM page WHERE key = ?1",
};

struct record {
    struct store *store;
    int folder; /* locked while this is open; -1 */
    sqlite3_stmt *of[STATEMENTS];
    bool broken; /* an error was logged; nothing more is kept */
};

/* ---- statements ---- */

static void complain(struct record *r, const struct err *e)
{
    r->broken = true;
    log_line(LOG_ERROR, "device", "nothing more is kept for after a restart: %s", e->text);
}

static void no_memory(struct record *r)
{
    struct err e = ERR_INIT;
    err_set(&e, ERR_NO_MEMORY, "no memory for an answer's row");
    complain(r, &e);
}

/* Two devices would both go on with what one was asked. A folder that cannot be locked, as on some
 * network drives, is taken as it is. The lock ends with the process, however that ends. */
static int lock_folder(const char *dir, int *ret_fd, struct err *e)
{
    *ret_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*ret_fd < 0) return err_set(e, ERR_IO, "%.300s: %s", dir, strerror(errno));
    if (flock(*ret_fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return 0;
    return err_set(e, ERR_BUSY, "%.300s: another pdd device uses this folder: give --state DIR",
                   dir);
}

int record_open(const char *dir, struct record **ret_record, struct err *e)
{
    struct record *r = mem_calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_NO_MEMORY, "no memory for a record");
    r->folder = -1;
    int code = store_open(dir, &r->store, e);
    if (!code) code = lock_folder(dir, &r->folder, e);
    for (int i = 0; i < STATEMENTS && !code; i++)
        code = store_prepare(r->store, texts[i], &r->of[i], e);
    if (code) {
        record_close(r);
        return code;
    }
    *ret_record = r;
    return 0;
}

void record_close(struct record *r)
{
    if (!r) return;
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(r->of[i]);
    store_close(r->store);
    if (r->folder >= 0) close(r->folder);
    mem_free(r);
}

struct store *record_store(struct record *r)
{
    return r ? r->store : NULL;
}

static void bind_text(sqlite3_stmt *q, int i, const char *text)
{
    if (text)
        sqlite3_bind_text(q, i, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(q, i);
}

static void bind_blob(sqlite3_stmt *q, int i, const void *data, size_t n)
{
    sqlite3_bind_blob64(q, i, n ? data : "", n, SQLITE_STATIC);
}

static int step_once(struct record *r, enum statement which, struct err *e)
{
    int code = store_step(r->store, r->of[which], e);
    sqlite3_reset(r->of[which]);
    sqlite3_clear_bindings(r->of[which]);
    return code;
}

/* Run one without results. */
static int run(struct record *r, enum statement which)
{
    struct err e = ERR_INIT;
    int code = step_once(r, which, &e);
    if (code < 0) complain(r, &e);
    return code;
}

/* The next row of one that is running. At the end it is ready again. */
static bool next_row(struct record *r, enum statement which)
{
    struct err e = ERR_INIT;
    int code = store_step(r->store, r->of[which], &e);
    if (code > 0) return true;
    if (code < 0) complain(r, &e);
    sqlite3_reset(r->of[which]);
    sqlite3_clear_bindings(r->of[which]);
    return false;
}

static const char *text_of(sqlite3_stmt *q, int i)
{
    return (const char *)sqlite3_column_text(q, i);
}

/* ---- answers ---- */

/* What was said besides; the mode may have changed since: the user's no makes it "local". */
static int put_pdd(const struct ask *a, struct buf *out)
{
    const struct openai_pdd *p = &a->pdd;
    buf_printf(out, "{\"pdd\":{\"mode\":\"%s\"", ask_modes[a->mode]);
    if (p->pace[0]) buf_printf(out, ",\"pace\":\"%s\"", p->pace);
    if (p->keep_s != UINT32_MAX) buf_printf(out, ",\"keep\":%u", p->keep_s);
    if (p->cloud_tokens != UINT32_MAX) buf_printf(out, ",\"cloud_tokens\":%u", p->cloud_tokens);
    if (p->refine >= 0.0f) buf_printf(out, ",\"refine\":%.9g", (double)p->refine);
    if (p->conversation[0]) buf_printf(out, ",\"conversation\":\"%s\"", p->conversation);
    return buf_printf(out, ",\"progress\":%s}}", p->progress ? "true" : "false");
}

void record_ask(struct record *r, const struct ask *a, const char *request, size_t n)
{
    struct buf pdd;
    if (!r || r->broken) return;
    sqlite3_stmt *q = r->of[PUT_ANSWER];
    buf_init(&pdd, PDD_MAX);
    if (put_pdd(a, &pdd)) {
        no_memory(r);
        buf_release(&pdd);
        return;
    }
    bind_text(q, 1, a->id);
    sqlite3_bind_int64(q, 2, (sqlite3_int64)a->created);
    sqlite3_bind_int(q, 3, (int)a->state);
    sqlite3_bind_int(q, 4, a->q.chat);
    sqlite3_bind_int64(q, 5, a->tenant);
    sqlite3_bind_int64(q, 6, (sqlite3_int64)a->q.ask.sampling.seed);
    bind_text(q, 7, a->pdd.conversation);
    bind_blob(q, 8, request, n);
    bind_text(q, 9, pdd.data);
    (void)run(r, PUT_ANSWER);
    buf_release(&pdd);
}

/* The text is the token's part of the thought, whose length stands over the source's bit, and that
 * of the answer. */
void record_token(struct record *r, const struct ask *a, uint32_t i)
{
    if (!r || r->broken) return;
    sqlite3_stmt *q = r->of[PUT_TOKEN];
    const struct ask_token *t = ask_token_at(a, i);
    struct buf text;
    buf_init(&text, (size_t)t->thought_len + t->len);
    if (buf_append(&text, a->thought.data + t->thought_at, t->thought_len) ||
        buf_append(&text, a->text.data + t->at, t->len)) {
        no_memory(r);
        buf_release(&text);
        return;
    }
    bind_text(q, 1, a->id);
    sqlite3_bind_int64(q, 2, i);
    sqlite3_bind_int(q, 3, t->id);
    sqlite3_bind_int64(q, 4, (sqlite3_int64)t->thought_len << 1 | t->source);
    bind_blob(q, 5, text.data, text.len);
    (void)run(r, PUT_TOKEN);
    buf_release(&text);
}

static void write_state(struct record *r, const struct ask *a)
{
    sqlite3_stmt *q = r->of[SET_STATE];
    bool over = a->state == ASK_OVER;
    struct buf pdd;
    buf_init(&pdd, PDD_MAX);
    if (put_pdd(a, &pdd)) {
        no_memory(r);
        buf_release(&pdd);
        return;
    }
    bind_text(q, 1, a->id);
    sqlite3_bind_int(q, 2, (int)a->state);
    bind_text(q, 3, over ? a->finish : NULL);
    sqlite3_bind_int(q, 4, a->failure.code);
    bind_text(q, 5, a->failure.code ? a->failure.text : NULL);
    bind_text(q, 6, a->report.len ? a->report.data : NULL);
    sqlite3_bind_int64(q, 7, a->usage.prompt_tokens);
    sqlite3_bind_int64(q, 8, a->usage.cached_tokens);
    sqlite3_bind_int64(q, 9, (sqlite3_int64)a->sent_bytes);
    sqlite3_bind_int64(q, 10, (sqlite3_int64)a->received_bytes);
    bind_text(q, 11, pdd.data);
    (void)run(r, SET_STATE);
    buf_release(&pdd);
}

/* Several rows as one transaction: all or none, and many cost little more than one. */
static void begin_rows(struct record *r)
{
    struct err e = ERR_INIT;
    if (store_begin(r->store, &e)) complain(r, &e);
}

static void end_rows(struct record *r)
{
    struct err e = ERR_INIT;
    if (!r->broken && store_commit(r->store, &e)) complain(r, &e);
    if (r->broken) store_rollback(r->store);
}

/* A stop string, or a character that stayed open, changes the last tokens. */
static void write_last(struct record *r, const struct ask *a)
{
    sqlite3_stmt *q = r->of[CUT_TOKENS];
    bind_text(q, 1, a->id);
    sqlite3_bind_int64(q, 2, a->n_tokens);
    (void)run(r, CUT_TOKENS);
    if (a->n_tokens > 0) record_token(r, a, a->n_tokens - 1);
}

void record_state(struct record *r, const struct ask *a)
{
    if (!r || r->broken) return;
    if (a->state != ASK_OVER) {
        write_state(r, a);
        return;
    }
    begin_rows(r);
    if (!r->broken) {
        write_last(r, a);
        write_state(r, a);
    }
    end_rows(r);
}

void record_forget(struct record *r, const char *answer)
{
    if (!r || r->broken) return;
    bind_text(r->of[FORGET], 1, answer);
    (void)run(r, FORGET);
}

void record_scrub(struct record *r)
{
    struct err e = ERR_INIT;
    if (!r || r->broken) return;
    if (store_exec(r->store, "PRAGMA wal_checkpoint(TRUNCATE)", &e)) complain(r, &e);
}

/* ---- after a restart ---- */

static bool read_tokens(struct record *r, struct ask *a)
{
    sqlite3_stmt *q = r->of[ALL_TOKENS];
    bool good = true;
    bind_text(q, 1, a->id);
    while (next_row(r, ALL_TOKENS)) {
        const char *text = sqlite3_column_blob(q, 3);
        size_t n = (size_t)sqlite3_column_bytes(q, 3);
        sqlite3_int64 source = sqlite3_column_int64(q, 2), thought = source >> 1;
        good = good && sqlite3_column_int64(q, 0) == a->n_tokens && thought >= 0 &&
               thought <= (sqlite3_int64)n;
        if (!good) continue;
        struct ask_token t = {.at = (uint32_t)a->text.len,
                              .len = (uint32_t)(n - (size_t)thought),
                              .thought_at = (uint32_t)a->thought.len,
                              .thought_len = (uint32_t)thought,
                              .id = sqlite3_column_int(q, 1),
                              .source = (uint8_t)(source & 1)};
        good = buf_append(&a->thought, n ? text : "", t.thought_len) == 0 &&
               buf_append(&a->text, n ? text + thought : "", t.len) == 0 &&
               buf_append(&a->tokens, &t, sizeof t) == 0;
        a->n_tokens += good;
    }
    return good && !r->broken;
}

static const char *finish_name(const char *finish)
{
    static const char *const names[] = {"stop", "length", "cancelled"};
    for (size_t i = 0; finish && i < sizeof names / sizeof *names; i++)
        if (strcmp(finish, names[i]) == 0) return names[i];
    return "error";
}

static void read_end(sqlite3_stmt *q, struct ask *a)
{
    const char *error = text_of(q, 10), *report = text_of(q, 11);
    a->finish = finish_name(text_of(q, 8));
    if (sqlite3_column_int(q, 9))
        err_set(&a->failure, sqlite3_column_int(q, 9), "%s", error ? error : "it failed");
    if (report) (void)buf_puts(&a->report, report);
    a->usage.prompt_tokens = (uint32_t)sqlite3_column_int64(q, 12);
    a->usage.cached_tokens = (uint32_t)sqlite3_column_int64(q, 13);
    a->sent_bytes = (uint64_t)sqlite3_column_int64(q, 14);
    a->received_bytes = (uint64_t)sqlite3_column_int64(q, 15);
}

/* The request again, by the code that read it first. */
static int read_request(sqlite3_stmt *q, struct ask *a)
{
    char param[OPENAI_PARAM_MAX];
    const char *pdd = text_of(q, 7);
    int code = openai_request_decode(sqlite3_column_blob(q, 6), (size_t)sqlite3_column_bytes(q, 6),
                                     sqlite3_column_int(q, 3) != 0, &a->q, param, NULL);
    if (!code) code = openai_pdd_decode(pdd, pdd ? strlen(pdd) : 0, &a->pdd, param, NULL);
    if (code) return code;
    a->q.ask.sampling.seed = (uint64_t)sqlite3_column_int64(q, 5);
    int mode = ask_word(ask_modes, a->pdd.mode);
    if (mode >= 0) a->mode = (enum device_mode)mode;
    return 0;
}

static struct ask *read_answer(struct record *r, struct serve *s)
{
    sqlite3_stmt *q = r->of[ALL_ANSWERS];
    struct ask *a = ask_new(s);
    const char *id = text_of(q, 0);
    if (!a || !id || strlen(id) >= sizeof a->id || read_request(q, a)) {
        ask_free(a);
        return NULL;
    }
    snprintf(a->id, sizeof a->id, "%s", id);
    ask_take_choice(a);
    a->created = (uint64_t)sqlite3_column_int64(q, 1);
    int state = sqlite3_column_int(q, 2);
    a->state = state == ASK_OVER ? ASK_OVER : state == ASK_HELD ? ASK_HELD : ASK_WAITING;
    a->tenant = (uint32_t)sqlite3_column_int64(q, 4) % ADMIT_TENANTS_MAX;
    if (a->state == ASK_OVER) read_end(q, a);
    if (read_tokens(r, a)) return a;
    ask_free(a);
    return NULL;
}

void record_restore(struct record *r, struct serve *s, void (*take)(struct ask *a))
{
    if (!r) return;
    while (!r->broken && next_row(r, ALL_ANSWERS)) {
        struct ask *a = read_answer(r, s);
        if (a) take(a);
    }
}

/* ---- what left the machine ---- */

/* "https://host:port" without what follows. */
static size_t host_length(const char *url)
{
    const char *host = strstr(url, "://");
    const char *end = strchr(host ? host + 3 : url, '/');
    return end ? (size_t)(end - url) : strlen(url);
}

int record_sent(struct record *r, const struct ask *a, const struct device_sent *sent,
                struct err *e)
{
    sqlite3_stmt *q = r->of[PUT_EGRESS];
    struct err why = ERR_INIT;
    sqlite3_bind_int64(q, 1, (sqlite3_int64)time(NULL));
    bind_text(q, 2, a->id);
    sqlite3_bind_text(q, 3, sent->url, (int)host_length(sent->url), SQLITE_STATIC);
    bind_text(q, 4, strncmp(sent->url, "https:", 6) == 0 ? "tls" : "none");
    bind_text(q, 5, sent->as_text ? "text" : "tokens");
    sqlite3_bind_int64(q, 6, sent->n);
    sqlite3_bind_int64(q, 7, sent->n_have);
    int code = step_once(r, PUT_EGRESS, &why);
    if (code < 0) {
        if (!r->broken) complain(r, &why);
        return err_set(e, ERR_IO, "nothing is sent, as it cannot be put on record: %s", why.text);
    }
    sqlite3_bind_int64(r->of[CUT_EGRESS], 1, RECORD_EGRESS_MAX);
    if (!r->broken) (void)run(r, CUT_EGRESS);
    return 0;
}

bool record_was_sent(struct record *r, const char *answer, const char *url)
{
    if (!r || r->broken || !url) return false;
    sqlite3_stmt *q = r->of[WAS_SENT];
    bind_text(q, 1, answer);
    sqlite3_bind_text(q, 2, url, (int)host_length(url), SQLITE_STATIC);
    bool sent = next_row(r, WAS_SENT);
    sqlite3_reset(q);
    return sent;
}

static void put_string(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\":", name);
    json_put_text(out, text ? text : "");
}

static void put_number(struct buf *out, const char *name, sqlite3_stmt *q, int i)
{
    buf_printf(out, ",\"%s\":", name);
    if (sqlite3_column_type(q, i) == SQLITE_NULL)
        buf_puts(out, "null");
    else
        buf_printf(out, "%lld", (long long)sqlite3_column_int64(q, i));
}

int record_put_egress(struct record *r, const char *answer, struct buf *out)
{
    if (!r) return 1;
    bool broken = r->broken; /* by a write of other rows: these are whole */
    r->broken = false;
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    sqlite3_stmt *q = r->of[ALL_EGRESS];
    bind_text(q, 1, answer);
    sqlite3_bind_int(q, 2, ROWS_MAX);
    for (int n = 0; next_row(r, ALL_EGRESS); n++) {
        buf_puts(out, n ? ",{" : "{");
        put_string(out, "answer", text_of(q, 1));
        put_number(out, "at", q, 0);
        buf_putc(out, ',');
        put_string(out, "host", text_of(q, 2));
        buf_putc(out, ',');
        put_string(out, "protected", text_of(q, 3));
        buf_putc(out, ',');
        put_string(out, "form", text_of(q, 4));
        put_number(out, "n", q, 5);
        put_number(out, "have", q, 6);
        put_number(out, "answer_sent_bytes", q, 7);
        put_number(out, "answer_received_bytes", q, 8);
        buf_putc(out, '}');
    }
    bool failed = r->broken;
    r->broken = failed || broken;
    return buf_puts(out, "]}") || failed;
}

/* ---- conversations ---- */

int record_put_conversations(struct record *r, struct buf *out)
{
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    sqlite3_stmt *q = r && !r->broken ? r->of[ALL_TALKS] : NULL;
    for (int n = 0; q && next_row(r, ALL_TALKS); n++) {
        buf_puts(out, n ? ",{" : "{");
        put_string(out, "id", text_of(q, 0));
        buf_putc(out, ',');
        put_string(out, "title", text_of(q, 1));
        put_number(out, "created", q, 2);
        put_number(out, "updated", q, 3);
        buf_putc(out, '}');
    }
    return buf_puts(out, "]}");
}

int record_get_conversation(struct record *r, const char *id, struct buf *out)
{
    if (!r || r->broken) return 1;
    sqlite3_stmt *q = r->of[GET_TALK];
    bind_text(q, 1, id);
    if (!next_row(r, GET_TALK)) return 1;
    int code = buf_append(out, sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0));
    sqlite3_reset(q);
    return code;
}

static bool too_many(struct record *r, const char *id)
{
    sqlite3_stmt *q = r->of[COUNT_TALKS];
    bind_text(q, 1, id);
    if (!next_row(r, COUNT_TALKS)) return true;
    bool many = sqlite3_column_int64(q, 0) >= RECORD_CONVERSATIONS_MAX;
    sqlite3_reset(q);
    return many;
}

int record_set_conversation(struct record *r, const char *id, const char *title, const char *body,
                            size_t n, struct err *e)
{
    if (!r)
        return err_set(e, ERR_NOT_FOUND,
                       "conversations are not kept: the device has no state folder");
    if (r->broken)
        return err_set(e, ERR_IO, "conversations are not kept any more: see the device's log");
    if (too_many(r, id))
        return err_set(e, ERR_LIMIT, "%d conversations are kept: delete one",
                       RECORD_CONVERSATIONS_MAX);
    sqlite3_stmt *q = r->of[SET_TALK];
    bind_text(q, 1, id);
    bind_text(q, 2, title);
    sqlite3_bind_int64(q, 3, (sqlite3_int64)time(NULL));
    bind_blob(q, 4, body, n);
    return run(r, SET_TALK) < 0
               ? err_set(e, ERR_IO, "the conversation cannot be kept: see the device's log")
               : 0;
}

int record_drop_conversation(struct record *r, const char *id)
{
    if (!r || r->broken) return 1;
    bind_text(r->of[DROP_TALK], 1, id);
    if (run(r, DROP_TALK) < 0) return 1;
    return sqlite3_changes(store_db(r->store)) == 0;
}

/* ---- KV pages ---- */

void record_use(struct record *r, const struct kv_disk_use *use)
{
    if (!r || r->broken) return;
    begin_rows(r);
    for (uint32_t i = 0; i < use->n && !r->broken; i++) {
        bind_text(r->of[PUT_PAGE], 1, use->tag);
        bind_blob(r->of[PUT_PAGE], 2, &use->keys[i], sizeof use->keys[i]);
        (void)run(r, PUT_PAGE);
    }
    end_rows(r);
}

/* The keys that a statement finds. */
static void take_keys(struct record *r, enum statement which, struct buf *keys)
{
    sqlite3_stmt *q = r->of[which];
    while (next_row(r, which))
        if (sqlite3_column_bytes(q, 0) == KV_DISK_KEY)
            (void)buf_append(keys, sqlite3_column_blob(q, 0), KV_DISK_KEY);
}

void record_take_pages(struct record *r, const char *conversation, struct buf *keys)
{
    if (!r || r->broken) return;
    bind_text(r->of[OWN_PAGES], 1, conversation);
    take_keys(r, OWN_PAGES, keys);
    bind_text(r->of[DROP_PAGES], 1, conversation);
    (void)run(r, DROP_PAGES);
}

void record_check_pages(struct record *r, bool (*has)(void *arg, const struct kv_key *key),
                        void *arg)
{
    struct buf keys;
    if (!r || r->broken) return;
    buf_init(&keys, RECORD_PAGES_BYTES);
    take_keys(r, ALL_PAGES, &keys);
    begin_rows(r);
    for (size_t at = 0; at < keys.len && !r->broken; at += KV_DISK_KEY) {
        struct kv_key key;
        memcpy(&key, keys.data + at, sizeof key);
        if (has(arg, &key)) continue;
        bind_blob(r->of[DROP_PAGE], 1, &key, sizeof key);
        (void)run(r, DROP_PAGE);
    }
    end_rows(r);
    buf_release(&keys);
}
