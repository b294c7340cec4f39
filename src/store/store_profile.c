/* store_profile: see store_profile.h. */
#include "store/store_profile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OWNER_MAX = 4096, FIGURES = 6 };

/* A row of the table: a line's sums; a mean is kept as x, its variance as off; heat as x, y. */
struct row {
    double figures[FIGURES]; /* weight, x, y, xx, xy, off */
    int64_t n;
};

/* A URL as a name: "https://user:password@host" is "https://host". */
static void name_cloud(const char *url, char *out, size_t n)
{
    const char *host = strstr(url, "://");
    size_t scheme = host ? (size_t)(host + 3 - url) : 0, end = scheme + strcspn(url + scheme, "/");
    size_t at = scheme;
    for (size_t i = scheme; i < end; i++)
        if (url[i] == '@') at = i + 1;
    snprintf(out, n, "cloud %.*s%s", (int)scheme, url, url + at);
}

static void name_owner(const struct store_owners *o, bool cloud, char *out)
{
    if (cloud)
        name_cloud(o->cloud, out, OWNER_MAX);
    else
        snprintf(out, OWNER_MAX, "device %s", o->device);
}

/* ---- rows ---- */

static struct row row_of_line(const struct profile_line *l)
{
    return (struct row){{l->weight, l->x, l->y, l->xx, l->xy, l->off}, l->n};
}

static void line_of_row(const struct row *r, struct profile_line *l)
{
    const double *f = r->figures;
    if (!(f[0] > 0.0) || !(f[1] >= 0.0) || !(f[2] > 0.0) || !(f[5] >= 0.0)) return;
    l->weight = f[0];
    l->x = f[1];
    l->y = f[2];
    l->xx = f[3];
    l->xy = f[4];
    l->off = f[5];
    l->n = (uint32_t)r->n;
}

static struct row row_of_estimate(const struct estimate *x)
{
    return (struct row){{0.0, x->mean, 0.0, 0.0, 0.0, x->variance}, x->n};
}

static void estimate_of_row(const struct row *r, struct estimate *x)
{
    if (r->figures[1] > 0.0 && r->figures[5] >= 0.0)
        *x = (struct estimate){r->figures[1], r->figures[5], (uint32_t)r->n};
}

/* A queue may be 0, the way not. */
static struct row row_of_queue(const struct profile *p)
{
    return (struct row){
        {0.0, p->queue_us.mean, p->queue_at_s, p->way_us, 0.0, p->queue_us.variance},
        p->queue_us.n};
}

static void queue_of_row(const struct row *r, struct profile *p)
{
    const double *f = r->figures;
    if (!(f[1] >= 0.0) || !(f[3] > 0.0) || !(f[5] >= 0.0)) return;
    p->queue_us = (struct estimate){f[1], f[5], (uint32_t)r->n};
    p->queue_at_s = f[2];
    p->way_us = f[3];
}

static int load_row(struct store *s, const char *owner, const char *name, struct row *ret_row,
                    struct err *e)
{
    sqlite3_stmt *st;
    int code = store_prepare(
        s, "SELECT weight, x, y, xx, xy, off, n FROM estimate WHERE owner = ? AND name = ?", &st,
        e);
    *ret_row = (struct row){.n = 0};
    if (code) return code;
    sqlite3_bind_text(st, 1, owner, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
    code = store_step(s, st, e);
    if (code > 0) {
        bool sane = true;
        for (int i = 0; i < FIGURES; i++) {
            ret_row->figures[i] = sqlite3_column_double(st, i);
            sane &= isfinite(ret_row->figures[i]);
        }
        int64_t n = sqlite3_column_int64(st, FIGURES);
        ret_row->n = sane && n > 0 && n <= UINT32_MAX ? n : 0;
    }
    sqlite3_finalize(st);
    return code < 0 ? code : 0;
}

static int save_row(struct store *s, sqlite3_stmt *st, const char *owner, const char *name,
                    const struct row *r, struct err *e)
{
    if (r->n == 0) return 0;
    sqlite3_bind_text(st, 1, owner, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
    for (int i = 0; i < FIGURES; i++)
        sqlite3_bind_double(st, 3 + i, r->figures[i]);
    sqlite3_bind_int64(st, 3 + FIGURES, r->n);
    return store_step(s, st, e);
}

/* ---- lengths ---- */

static int load_lengths(struct store *s, struct profile *p, struct err *e)
{
    sqlite3_stmt *st;
    int code = store_prepare(s, "SELECT kind, bucket, weight, n FROM length", &st, e);
    if (code) return code;
    while ((code = store_step(s, st, e)) > 0) {
        int64_t kind = sqlite3_column_int64(st, 0), bucket = sqlite3_column_int64(st, 1);
        double weight = sqlite3_column_double(st, 2);
        if (kind < 0 || kind >= PROFILE_KINDS || bucket < 0 || bucket >= LENGTHS_BUCKETS ||
            !(weight >= 0.0 && weight <= 2.0 * LENGTHS_MEMORY))
            continue;
        p->lengths[kind].weight[bucket] = weight;
        p->lengths[kind].n = (uint32_t)sqlite3_column_int64(st, 3);
    }
    sqlite3_finalize(st);
    return code;
}

static int save_lengths(struct store *s, const struct profile *p, struct err *e)
{
    sqlite3_stmt *st;
    int code = store_prepare(s, "INSERT OR REPLACE INTO length VALUES (?, ?, ?, ?)", &st, e);
    if (code) return code;
    for (int kind = 0; code == 0 && kind < PROFILE_KINDS; kind++) {
        const struct lengths *l = &p->lengths[kind];
        for (int b = 0; code == 0 && l->n > 0 && b < LENGTHS_BUCKETS; b++) {
            if (l->weight[b] <= 0.0) continue;
            sqlite3_bind_int(st, 1, kind);
            sqlite3_bind_int(st, 2, b);
            sqlite3_bind_double(st, 3, l->weight[b]);
            sqlite3_bind_int64(st, 4, l->n);
            code = store_step(s, st, e);
        }
    }
    sqlite3_finalize(st);
    return code;
}

/* ---- all ---- */

static int load_device(struct store *s, const char *owner, struct profile *p, struct err *e)
{
    struct row r;
    int code = load_row(s, owner, "prefill", &r, e);
    if (code == 0 && r.n > 0) line_of_row(&r, &p->prefill);
    if (code == 0) code = load_row(s, owner, "decode", &r, e);
    if (code == 0 && r.n > 0) line_of_row(&r, &p->decode);
    if (code == 0) code = load_row(s, owner, "heat", &r, e);
    if (code == 0 && r.n > 0) {
        p->heat = r.figures[1];
        p->heat_at_s = r.figures[2];
    }
    return code;
}

static int load_cloud(struct store *s, const char *owner, struct profile *p, struct err *e)
{
    struct row r;
    int code = load_row(s, owner, "first", &r, e);
    if (code == 0 && r.n > 0) line_of_row(&r, &p->first);
    if (code == 0) code = load_row(s, owner, "queue", &r, e);
    if (code == 0 && r.n > 0) queue_of_row(&r, p);
    if (code == 0) code = load_row(s, owner, "token", &r, e);
    if (code == 0 && r.n > 0) estimate_of_row(&r, &p->token_us);
    if (code == 0) code = load_row(s, owner, "new", &r, e);
    if (code == 0 && r.n > 0) estimate_of_row(&r, &p->new_share);
    return code;
}

int store_profile_load(struct store *s, const struct store_owners *owners, struct profile *p,
                       struct err *e)
{
    char owner[OWNER_MAX];
    int code = load_lengths(s, p, e);
    if (code == 0 && owners->device) {
        name_owner(owners, false, owner);
        code = load_device(s, owner, p, e);
    }
    if (code == 0 && owners->cloud) {
        name_owner(owners, true, owner);
        code = load_cloud(s, owner, p, e);
    }
    return code;
}

static int save_estimates(struct store *s, const struct store_owners *o, const struct profile *p,
                          struct err *e)
{
    const struct {
        bool cloud;
        const char *name;
        struct row row;
    } rows[] = {{false, "prefill", row_of_line(&p->prefill)},
                {false, "decode", row_of_line(&p->decode)},
                {false, "heat", {{0.0, p->heat, p->heat_at_s, 0.0, 0.0, 0.0}, 1}},
                {true, "first", row_of_line(&p->first)},
                {true, "queue", row_of_queue(p)},
                {true, "token", row_of_estimate(&p->token_us)},
                {true, "new", row_of_estimate(&p->new_share)}};
    char owner[OWNER_MAX];
    sqlite3_stmt *st;
    int code = store_prepare(
        s, "INSERT OR REPLACE INTO estimate VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", &st, e);
    if (code) return code;
    for (size_t i = 0; code == 0 && i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].cloud ? !o->cloud : !o->device) continue;
        name_owner(o, rows[i].cloud, owner);
        code = save_row(s, st, owner, rows[i].name, &rows[i].row, e);
    }
    sqlite3_finalize(st);
    return code;
}

int store_profile_save(struct store *s, const struct store_owners *owners, const struct profile *p,
                       struct err *e)
{
    int code = store_begin(s, e);
    if (code == 0) code = save_estimates(s, owners, p, e);
    if (code == 0) code = save_lengths(s, p, e);
    if (code == 0) code = store_commit(s, e);
    if (code) store_rollback(s);
    return code;
}
