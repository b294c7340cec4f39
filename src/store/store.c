/* store: see store.h. */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/os.h"

struct store {
    sqlite3 *db;
    char path[STORE_PATH_MAX];
};

/* The schema. See store.h before you change it. */
static const char *const steps[] = {
    /* store_profile.c: an estimate by owner ("cloud URL", "device WEIGHTS ..."), its fading sums;
     * lengths of answers by kind of question */
    "CREATE TABLE estimate (owner TEXT NOT NULL, name TEXT NOT NULL, weight REAL NOT NULL,"
    " x REAL NOT NULL, y REAL NOT NULL, xx REAL NOT NULL, xy REAL NOT NULL, off REAL NOT NULL,"
    " n INTEGER NOT NULL, PRIMARY KEY (owner, name)) WITHOUT ROWID;"
    "CREATE TABLE length (kind INTEGER NOT NULL, bucket INTEGER NOT NULL, weight REAL NOT NULL,"
    " n INTEGER NOT NULL, PRIMARY KEY (kind, bucket)) WITHOUT ROWID;",
    /* device/api/record.c: answers with their tokens, what left the machine, conversations. `at`
     * and `created` are seconds since 1970. */
    "CREATE TABLE answer (id TEXT PRIMARY KEY, created INTEGER NOT NULL, state INTEGER NOT NULL,"
    " chat INTEGER NOT NULL, client INTEGER NOT NULL, seed INTEGER NOT NULL,"
    " conversation TEXT NOT NULL, request BLOB NOT NULL, pdd TEXT NOT NULL, finish TEXT,"
    " code INTEGER NOT NULL DEFAULT 0, error TEXT, report TEXT, prompt_tokens INTEGER,"
    " cached_tokens INTEGER, sent_bytes INTEGER, received_bytes INTEGER) WITHOUT ROWID;"
    "CREATE TABLE token (answer TEXT NOT NULL REFERENCES answer ON DELETE CASCADE,"
    " i INTEGER NOT NULL, id INTEGER NOT NULL, source INTEGER NOT NULL, text BLOB NOT NULL,"
    " PRIMARY KEY (answer, i)) WITHOUT ROWID;"
    "CREATE TABLE egress (at INTEGER NOT NULL, answer TEXT NOT NULL, host TEXT NOT NULL,"
    " protected TEXT NOT NULL, form TEXT NOT NULL, n INTEGER NOT NULL, have INTEGER NOT NULL);"
    "CREATE TABLE conversation (id TEXT PRIMARY KEY, title TEXT NOT NULL,"
    " created INTEGER NOT NULL, updated INTEGER NOT NULL, body BLOB NOT NULL);",
    /* the same: which conversations have which KV pages on disk (device/kv_disk.h) */
    "CREATE TABLE page (conversation TEXT NOT NULL, key BLOB NOT NULL,"
    " PRIMARY KEY (conversation, key)) WITHOUT ROWID;"
    "CREATE INDEX page_key ON page (key);",
};
enum { VERSION = sizeof steps / sizeof *steps, RETRY_MS = 5 };

int store_default_dir(char *path, size_t n, struct err *e)
{
    int code = os_user_folder("XDG_STATE_HOME", ".local/state", "pdd", path, n);
    if (code == ERR_NOT_FOUND)
        return err_set(e, code,
                       "neither XDG_STATE_HOME nor HOME names a folder for what is kept between "
                       "runs: give --state DIR");
    return code ? err_set(e, code, "the name of the state folder is too long") : 0;
}

/* ---- folder and file ---- */

/* SQLite gives -wal and -shm the mode of the file. */
static int make_file(const char *path, struct err *e)
{
    struct stat st;
    int code = 0, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) return err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        code = err_set(e, ERR_IO, "%s: not a file", path);
    else if (st.st_uid != geteuid())
        code = err_set(e, ERR_DENIED, "%s: belongs to another user: give --state DIR", path);
    else if ((st.st_mode & 07777) != 0600 && fchmod(fd, 0600))
        code = err_set(e, ERR_IO, "%s: its mode cannot be set to 0600: %s", path, strerror(errno));
    close(fd);
    return code;
}

/* ---- statements ---- */

int store_error(const struct store *s, int code, struct err *e)
{
    const char *why = s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(code);
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(e, ERR_BAD_INPUT,
                       "%s: damaged (%s); move it away, with its -wal and -shm, to begin anew",
                       s->path, why);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, ERR_BUSY, "%s: another program writes to it (%s)", s->path, why);
    case SQLITE_NOMEM:
        return err_set(e, ERR_NO_MEMORY, "%s: no memory", s->path);
    default:
        return err_set(e, ERR_IO, "%s: %s", s->path, why);
    }
}

int store_exec(struct store *s, const char *sql, struct err *e)
{
    int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return code ? store_error(s, code, e) : 0;
}

int store_begin(struct store *s, struct err *e)
{
    return store_exec(s, "BEGIN IMMEDIATE", e);
}

int store_commit(struct store *s, struct err *e)
{
    return store_exec(s, "COMMIT", e);
}

void store_rollback(struct store *s)
{
    if (!sqlite3_get_autocommit(s->db)) (void)store_exec(s, "ROLLBACK", NULL);
}

int store_prepare(struct store *s, const char *sql, sqlite3_stmt **ret_statement, struct err *e)
{
    int code = sqlite3_prepare_v2(s->db, sql, -1, ret_statement, NULL);
    return code ? store_error(s, code, e) : 0;
}

int store_step(struct store *s, sqlite3_stmt *statement, struct err *e)
{
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) return 1;
    int result = code == SQLITE_DONE ? 0 : store_error(s, code, e);
    sqlite3_reset(statement);
    return result;
}

/* The only value of a statement that gives one row. */
static int read_number(struct store *s, const char *sql, int64_t *ret_value, struct err *e)
{
    sqlite3_stmt *statement;
    int code = store_prepare(s, sql, &statement, e);
    if (code) return code;
    code = store_step(s, statement, e);
    if (code > 0) *ret_value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return code < 0 ? code : 0;
}

/* ---- opening ---- */

/* SQLite does not wait for another program that does the same at the moment. */
static int use_wal(struct store *s, struct err *e)
{
    int code, waited_ms = 0;
    while ((code = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) & 0xff) ==
               SQLITE_BUSY &&
           waited_ms < STORE_WAIT_MS) {
        usleep(RETRY_MS * 1000);
        waited_ms += RETRY_MS;
    }
    return code ? store_error(s, code, e) : 0;
}

static int open_database(struct store *s, struct err *e)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
    int code = sqlite3_open_v2(s->path, &s->db, flags, NULL);
    if (code) return store_error(s, code, e);
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, STORE_WAIT_MS);
    /* A file that somebody made to harm us cannot run code by its schema. */
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    code = use_wal(s, e);
    if (code) return code;
    return store_exec(s,
                      "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;"
                      "PRAGMA secure_delete = ON;" /* what is deleted is zeroed */
                      "PRAGMA cell_size_check = ON",
                      e);
}

static int is_ours(struct store *s, int64_t version, struct err *e)
{
    int64_t application = 0, tables = 0;
    int code = read_number(s, "PRAGMA application_id", &application, e);
    if (code == 0) code = read_number(s, "SELECT count(*) FROM sqlite_schema", &tables, e);
    if (code) return code;
    if (application != STORE_APPLICATION && (application != 0 || version != 0 || tables != 0))
        return err_set(e, ERR_BAD_INPUT, "%s: a database of another program: give --state DIR",
                       s->path);
    if (version > VERSION)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: written by a later pdd (its version is %lld, this one reads up to %d): "
                       "give --state DIR",
                       s->path, (long long)version, VERSION);
    return 0;
}

static int upgrade(struct store *s, struct err *e)
{
    int64_t version = 0;
    char set[96];
    int code = store_begin(s, e); /* two programs may open a new file at once */
    if (code) return code;
    code = read_number(s, "PRAGMA user_version", &version, e);
    if (code == 0) code = is_ours(s, version, e);
    for (int64_t v = version < 0 ? 0 : version; code == 0 && v < VERSION; v++)
        code = store_exec(s, steps[v], e);
    snprintf(set, sizeof set, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             STORE_APPLICATION, VERSION);
    if (code == 0) code = store_exec(s, set, e);
    if (code == 0) code = store_commit(s, e);
    if (code) store_rollback(s);
    return code;
}

static int check_version(struct store *s, struct err *e)
{
    int64_t version = 0;
    int code = read_number(s, "PRAGMA user_version", &version, e);
    if (code == 0) code = is_ours(s, version, e);
    if (code || version == VERSION) return code;
    return upgrade(s, e);
}

int store_open(const char *dir, struct store **ret_store, struct err *e)
{
    struct store *s = mem_calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_NO_MEMORY, "no memory for a store");
    int code = 0;
    if (snprintf(s->path, sizeof s->path, "%s/state.db", dir) >= (int)sizeof s->path)
        code = err_set(e, ERR_LIMIT, "the name of the state folder is too long");
    if (code == 0) code = os_make_folder(dir, 0700, e);
    if (code == 0) code = make_file(s->path, e);
    if (code == 0) code = open_database(s, e);
    if (code == 0) code = check_version(s, e);
    if (code) {
        store_close(s);
        return code;
    }
    *ret_store = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s) return;
    sqlite3_close(s->db);
    mem_free(s);
}

sqlite3 *store_db(struct store *s)
{
    return s->db;
}

const char *store_path(const struct store *s)
{
    return s->path;
}
