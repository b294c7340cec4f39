/* pull: see pull.h. */
#include "hub/pull.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/os.h"
#include "hub/download_state.h"
#include "model/gguf.h"
#include "net/http_url.h"

struct pull {
    const struct pull_options *o;
    struct pull_result *result;
    const char *endpoint;
    struct reference reference;
    struct fetch *fetch;
    bool has_token;                        /* which is sent to the server */
    bool hub;                              /* the server is the hub's */
    char url[FETCH_URL_MAX];               /* of the first part */
    char from[FETCH_URL_MAX];              /* as the record has it */
    char file[REFERENCE_NAME_MAX + 1];     /* name of the first part in the library */
    struct reference_part of_url, of_file; /* where the number of a part stands */
    uint32_t parts, part;                  /* part: the one that is downloaded, from 1 */
    uint64_t size;                         /* of all parts, by the hub's list; 0: not known */
    char sha256[65];                       /* of a file in one part; "": not known */
    struct library_record had, record;
};

static void note(const struct pull *p, const char *sentence)
{
    if (p->o->on_note) p->o->on_note(p->o->arg, sentence);
}

/* ---- the server ---- */

static const char *endpoint_of(const struct pull_options *o)
{
    return o->endpoint && o->endpoint[0] ? o->endpoint : REFERENCE_HUB;
}

static bool is_below(const char *url, const char *endpoint)
{
    size_t n = strlen(endpoint);
    return strncasecmp(url, endpoint, n) == 0 && url[n] == '/';
}

/* The token for the server; none where others could read it. */
static const char *choose_token(const struct pull *p, struct err *e)
{
    const char *token = p->o->token ? p->o->token : p->hub ? p->o->hub_token : NULL;
    const char *url = p->reference.hub ? p->endpoint : p->reference.url;
    if (!token || !http_url_exposes(url)) return token;
    if (p->o->token)
        err_set(e, ERR_DENIED,
                "the token is not sent to %.200s: by http, others could read it on its way", url);
    else
        note(p, "the hub's token is not sent: by http, others could read it on its way");
    return NULL;
}

/* The environment's, which a person sets once and forgets. */
static int check_endpoint(const struct pull *p, struct err *e)
{
    const char *url = p->endpoint;
    size_t scheme = strncasecmp(url, "https://", 8) == 0  ? 8
                    : strncasecmp(url, "http://", 7) == 0 ? 7
                                                          : 0;
    if (scheme && url[scheme] && !strpbrk(url, "?#@ ")) return 0;
    return err_set(
        e, ERR_BAD_INPUT,
        "the hub's URL, HF_ENDPOINT, is \"%.*s\": https://HOST or http://HOST is needed, "
        "without user and query",
        (int)(strcspn(url, "?#@") < 150 ? strcspn(url, "?#@") : 150), url);
}

static int open_server(struct pull *p, struct err *e)
{
    const struct pull_options *o = p->o;
    struct err denied = ERR_INIT;
    int code = p->reference.hub ? check_endpoint(p, e) : 0;
    if (code) return code;
    p->hub = p->reference.hub || is_below(p->reference.url, p->endpoint);
    struct fetch_options options = {.token = choose_token(p, &denied),
                                    .ca_file = o->ca_file,
                                    .stall_s = o->stall_s,
                                    .stopped = o->stopped,
                                    .arg = o->arg};
    if (denied.code) return err_set(e, denied.code, "%s", denied.text);
    p->has_token = options.token != NULL;
    return fetch_open(&options, &p->fetch, e);
}

/* What a person can do about a refusal of the hub. It says the same of repositories that are gated
 * and of those that do not exist, and refuses a wrong token for public ones, too. */
static int explain(const struct pull *p, int code, struct err *e)
{
    char text[ERR_TEXT_MAX];
    if (code != ERR_DENIED || !p->hub || !fetch_at_first(p->fetch)) return code;
    snprintf(text, sizeof text, "%.300s", e->text);
    if (p->has_token)
        return err_set(e, code,
                       "%s; the token that was sent may be wrong, or its owner has not accepted "
                       "the terms on the page of the repository",
                       text);
    return err_set(e, code,
                   "%s; if the repository exists, accept its terms on its page at %.60s and give "
                   "a token by HF_TOKEN or --token-file",
                   text, p->endpoint);
}

/* A text from the hub; what may pass is tried again. */
static int ask_hub(const struct pull *p, const char *url, struct buf *body, struct err *e)
{
    for (uint32_t failures = 0;; failures++) {
        struct fetch_head head = {0};
        buf_clear(body);
        int code = fetch_text(p->fetch, url, body, &head, e);
        if (!fetch_may_pass(p->fetch, code) || failures == p->o->retries) return code;
        note(p, e->text);
        code = fetch_wait(p->fetch, fetch_wait_us(&head, p->o->retry_us, failures), e);
        if (code) return code;
    }
}

static int read_listing(const struct pull *p, struct listing *ret_listing, struct err *e)
{
    char url[FETCH_URL_MAX], where[2 * REFERENCE_PART_MAX + 8];
    struct buf body;
    const struct reference *r = &p->reference;
    int n =
        snprintf(url, sizeof url, "%s/api/models/%s/%s?blobs=true", p->endpoint, r->owner, r->name);
    if (n < 0 || n >= FETCH_URL_MAX) return err_set(e, ERR_LIMIT, "the hub's URL is too long");
    snprintf(where, sizeof where, "hf:%s/%s", r->owner, r->name);
    buf_init(&body, LISTING_BYTES_MAX);
    int code = ask_hub(p, url, &body, e);
    code = code ? explain(p, code, e) : listing_read(body.data, body.len, where, ret_listing, e);
    buf_release(&body);
    return code;
}

/* ---- which files ---- */

static void tell_choice(const struct pull *p, const struct listing *l,
                        const struct listing_row *row)
{
    char text[ERR_TEXT_MAX];
    if (l->n == 1) return;
    snprintf(text, sizeof text, "%.200s, of %u GGUF files; --files lists them", row->file, l->n);
    note(p, text);
}

static int choose_file(struct pull *p, struct err *e)
{
    struct reference *r = &p->reference;
    struct listing l;
    const struct listing_row *row = NULL;
    char where[2 * REFERENCE_PART_MAX + 8];
    snprintf(where, sizeof where, "hf:%s/%s", r->owner, r->name);
    int code = read_listing(p, &l, e);
    if (code) return code;
    code = listing_choose(&l, r->type, where, &row, e);
    if (code == 0) {
        tell_choice(p, &l, row);
        snprintf(r->file, sizeof r->file, "%s", row->file);
        snprintf(p->sha256, sizeof p->sha256, "%s", row->sha256);
        p->size = row->size;
    }
    listing_release(&l);
    return code;
}

static int find_url(struct pull *p, struct err *e)
{
    struct reference *r = &p->reference;
    int code = r->hub && !r->file[0] ? choose_file(p, e) : 0;
    if (code) return code;
    if (r->hub) return reference_file_url(r, p->endpoint, r->file, p->url, e);
    snprintf(p->url, sizeof p->url, "%s", r->url);
    return 0;
}

/* Where the record says that the model is from: the first part, whichever was named. */
static int find_origin(struct pull *p, struct err *e)
{
    const struct reference *r = &p->reference;
    char first[REFERENCE_FILE_MAX + 16];
    struct reference_part part;
    if (!r->hub) {
        fetch_plain_url(p->url, p->from, sizeof p->from);
        return 0;
    }
    snprintf(first, sizeof first, "%s", r->file);
    int code = reference_part(r->file, &part)
                   ? reference_of_part(r->file, &part, 1, first, sizeof first, e)
                   : 0;
    snprintf(p->from, sizeof p->from, "hf:%s/%s/%s", r->owner, r->name, first);
    return code;
}

/* What people copy from a browser may be the page of a repository, not a file. */
static int name_page(const struct pull *p, int code, struct err *e)
{
    struct reference page = p->reference;
    reference_take_page(&page, p->endpoint);
    if (p->reference.hub || !page.hub) return code;
    return err_set(e, code,
                   "%.200s is the page of a repository: hf:%s/%s pulls from it (if it is a file, "
                   "name it by --as NAME)",
                   p->reference.url, page.owner, page.name);
}

/* The name that `--as` gives, with .gguf, or the file's own. */
static int name_file(struct pull *p, struct err *e)
{
    char asked[REFERENCE_NAME_MAX + 8];
    const char *as = p->o->as;
    if (!as) {
        int code = reference_file_name(p->url, p->file, e);
        return code ? name_page(p, code, e) : 0;
    }
    size_t n = strlen(as);
    bool has_end = n > 5 && strcasecmp(as + n - 5, ".gguf") == 0;
    if (n > REFERENCE_NAME_MAX - 32 || strpbrk(as, "/%?#"))
        return err_set(e, ERR_BAD_INPUT, "--as \"%.150s\" is no name of a model", as);
    snprintf(asked, sizeof asked, "%s%s", as, has_end ? "" : ".gguf");
    return reference_file_name(asked, p->file, e);
}

/* The parts of a split model; the first one's names become the pull's. */
static int find_parts(struct pull *p, struct err *e)
{
    char plain[FETCH_URL_MAX], first[FETCH_URL_MAX], stem[REFERENCE_NAME_MAX + 1];
    fetch_plain_url(p->url, plain, sizeof plain);
    size_t n = strlen(plain);
    p->parts = 1;
    if (!reference_part(plain, &p->of_url)) return 0;
    p->parts = p->of_url.count;
    int code = reference_of_part(plain, &p->of_url, 1, first, sizeof first, e);
    if (code) return code;
    memcpy(p->url, first, n); /* of the same length: the query stays */
    if (p->o->as) {
        reference_stem(p->file, stem);
        if (snprintf(p->file, sizeof p->file, "%s-%05u-of-%05u.gguf", stem, 1u, p->parts) >=
            (int)sizeof p->file)
            return err_set(e, ERR_LIMIT, "--as: the name is too long");
    } else {
        reference_part(p->file, &p->of_file);
        if ((code = reference_of_part(p->file, &p->of_file, 1, first, sizeof p->file, e)) != 0)
            return code;
        memcpy(p->file, first, strlen(first) + 1);
    }
    if (!reference_part(p->file, &p->of_file) || p->of_file.count != p->parts)
        return err_set(e, ERR_BAD_INPUT, "%.200s: its parts cannot be named", p->file);
    if (p->o->sha256)
        return err_set(e, ERR_UNSUPPORTED,
                       "--sha256 is of one file, and %.150s has %u: they are checked by the hub's "
                       "digests alone",
                       p->file, p->parts);
    return 0;
}

static int check_sha256(const struct pull_options *o, char ret_sha256[65], struct err *e)
{
    if (!o->sha256) return 0;
    download_digest(o->sha256, ret_sha256);
    if (ret_sha256[0]) return 0;
    return err_set(e, ERR_BAD_INPUT, "--sha256 is \"%.80s\": 64 hexadecimal digits are needed",
                   o->sha256);
}

static int resolve(struct pull *p, struct err *e)
{
    char wanted[65] = "";
    int code = check_sha256(p->o, wanted, e);
    if (code == 0) code = reference_parse(p->o->what, p->endpoint, &p->reference, e);
    if (code == 0) code = open_server(p, e);
    if (code == 0) code = find_url(p, e);
    if (code == 0) code = name_file(p, e);
    if (code == 0) code = find_parts(p, e);
    if (code == 0) code = find_origin(p, e);
    if (code) return code;
    if (wanted[0] && p->sha256[0] && strcmp(wanted, p->sha256) != 0)
        return err_set(e, ERR_BAD_INPUT,
                       "the hub's %.150s has SHA-256 %.64s, but %.64s is asked for", p->file,
                       p->sha256, wanted);
    if (wanted[0]) memcpy(p->sha256, wanted, sizeof wanted);
    reference_stem(p->file, p->result->name);
    return 0;
}

/* ---- what is here ---- */

static int part_path(const struct pull *p, uint32_t no, char ret_path[LIBRARY_PATH_MAX],
                     char ret_file[REFERENCE_NAME_MAX + 1], struct err *e)
{
    int code = 0;
    if (p->parts > 1)
        code = reference_of_part(p->file, &p->of_file, no, ret_file, REFERENCE_NAME_MAX + 1, e);
    else
        snprintf(ret_file, REFERENCE_NAME_MAX + 1, "%s", p->file);
    if (code) return code;
    int n = snprintf(ret_path, LIBRARY_PATH_MAX, "%s/%s", p->o->dir, ret_file);
    if (n > 0 && n < LIBRARY_PATH_MAX - 16) return 0;
    return err_set(e, ERR_LIMIT, "%.100s...: path too long", p->o->dir);
}

/* Files that somebody put there under the name, whole or in any number of parts. */
static int check_files(const struct pull *p, struct err *e)
{
    struct library_list l;
    int code = library_read(p->o->dir, false, &l, e);
    if (code) return code;
    for (uint32_t i = 0; i < l.n && code == 0; i++) {
        if (l.models[i].partial || strcmp(l.models[i].name, p->result->name) != 0) continue;
        code = err_set(e, ERR_BAD_INPUT,
                       "%.200s is there already, and was not pulled: give this one another name by "
                       "--as, or move that away",
                       l.models[i].path);
    }
    library_list_release(&l);
    return code;
}

/* A name belongs to one origin; without a record it is a file that somebody put there. */
static int check_name(struct pull *p, struct err *e)
{
    int code = library_record_read(p->o->dir, p->result->name, &p->had, e);
    if (code) return code;
    if (p->had.from[0] && strcmp(p->had.from, p->from) != 0)
        return err_set(e, ERR_BAD_INPUT,
                       "there is a model %.100s already, from %.150s: give this one another name "
                       "by --as, or pdd model rm %.100s",
                       p->result->name, p->had.from, p->result->name);
    return p->had.from[0] ? 0 : check_files(p, e);
}

static int check_space(const struct pull *p, struct err *e)
{
    char path[LIBRARY_PATH_MAX], file[REFERENCE_NAME_MAX + 1];
    uint64_t there = os_disk_free(p->o->dir), kept = 0;
    struct stat st;
    for (uint32_t no = 1; no <= p->parts; no++) {
        if (part_path(p, no, path, file, NULL)) continue;
        kept += download_kept(path);
        if (stat(path, &st) == 0 && st.st_size > 0) kept += (uint64_t)st.st_size;
    }
    if (kept >= p->size || p->size - kept <= there) return 0;
    return err_set(e, ERR_LIMIT, "%.150s needs %.1f MB more, and the disk of %.150s has %.1f MB",
                   p->result->name, (double)(p->size - kept) / 1e6, p->o->dir, (double)there / 1e6);
}

/* ---- files ---- */

static void on_progress(void *arg, const struct download_progress *progress)
{
    const struct pull *p = arg;
    char path[LIBRARY_PATH_MAX], file[REFERENCE_NAME_MAX + 1];
    if (!p->o->on_progress || part_path(p, p->part, path, file, NULL)) return;
    p->o->on_progress(p->o->arg, file, p->part, p->parts, progress);
}

static void on_note(void *arg, const char *sentence)
{
    note(arg, sentence);
}

static bool is_stopped(void *arg)
{
    const struct pull *p = arg;
    return p->o->stopped && p->o->stopped(p->o->arg);
}

static int part_url(const struct pull *p, uint32_t no, char ret_url[FETCH_URL_MAX], struct err *e)
{
    if (p->parts > 1) return reference_of_part(p->url, &p->of_url, no, ret_url, FETCH_URL_MAX, e);
    memcpy(ret_url, p->url, sizeof p->url);
    return 0;
}

/* Part `no`; its row of the record is filled. `*ret_fresh`: it waits to be placed. */
static int load_part(struct pull *p, uint32_t no, bool *ret_fresh, struct err *e)
{
    char path[LIBRARY_PATH_MAX], file[REFERENCE_NAME_MAX + 1], url[FETCH_URL_MAX];
    struct library_file *row = &p->record.files[no - 1];
    const struct library_file *had = no <= p->had.n_files ? &p->had.files[no - 1] : NULL;
    struct download_result got;
    struct stat st;
    p->part = no;
    int code = part_path(p, no, path, file, e);
    if (code == 0) code = part_url(p, no, url, e);
    if (code) return code;
    bool here = had && stat(path, &st) == 0 && (uint64_t)st.st_size == had->bytes;
    struct download d = {.url = url,
                         .path = path,
                         .sha256 = p->sha256[0] ? p->sha256 : NULL,
                         .have_etag = here ? had->etag : NULL,
                         .have_sha256 = here ? had->sha256 : NULL,
                         .hub = p->hub,
                         .retries = p->o->retries,
                         .retry_us = p->o->retry_us,
                         .stopped = is_stopped,
                         .on_progress = on_progress,
                         .on_note = on_note,
                         .arg = p};
    code = download_run(p->fetch, &d, &got, e);
    if (code) {
        p->result->kept = download_kept(path);
        return explain(p, code, e);
    }
    *ret_fresh = !got.same;
    row->name = mem_strdup(file);
    if (!row->name) return err_set(e, ERR_NO_MEMORY, "no memory for a record");
    p->record.n_files = no;
    row->bytes = got.same ? had->bytes : got.bytes;
    memcpy(row->sha256, got.same ? had->sha256 : got.sha256, sizeof row->sha256);
    memcpy(row->etag, got.same ? had->etag : got.etag, sizeof row->etag);
    return 0;
}

/* A file that is no GGUF is not kept. */
static int check_model(const char *path, struct err *e)
{
    struct gguf *g;
    int code = gguf_open(path, &g, e);
    if (code == 0) gguf_close(g);
    return code;
}

/* Links in the folder, under the names that the parts will have, to where they are now; a link of
 * an earlier run is replaced. False: the file system has none. */
static bool link_parts(const struct pull *p, const bool *fresh, int folder)
{
    char path[LIBRARY_PATH_MAX], file[REFERENCE_NAME_MAX + 1], target[REFERENCE_NAME_MAX + 16];
    bool ok = folder >= 0;
    for (uint32_t no = 1; no <= p->parts && ok; no++) {
        if (part_path(p, no, path, file, NULL)) return false;
        snprintf(target, sizeof target, "../%s%s", file, fresh[no - 1] ? ".part" : "");
        unlinkat(folder, file, 0);
        ok = symlinkat(target, folder, file) == 0;
    }
    return ok;
}

static void unlink_parts(const struct pull *p, int folder)
{
    char path[LIBRARY_PATH_MAX], file[REFERENCE_NAME_MAX + 1];
    for (uint32_t no = 1; no <= p->parts && folder >= 0; no++)
        if (part_path(p, no, path, file, NULL) == 0) unlinkat(folder, file, 0);
}

/* Without the folder of links, which a reader of the sentence has never seen. */
static void tell_place(struct err *e, const char *folder)
{
    char *at = e ? strstr(e->text, folder) : NULL;
    if (at) memmove(at, at + strlen(folder), strlen(at + strlen(folder)) + 1);
}

/* All parts together, before one of them takes the place of an older one. */
static int check_parts(const struct pull *p, const bool *fresh, struct err *e)
{
    char path[LIBRARY_PATH_MAX], file[REFERENCE_NAME_MAX + 1];
    char folder[REFERENCE_NAME_MAX + 16], at[LIBRARY_PATH_MAX + sizeof folder];
    char first[sizeof at + REFERENCE_NAME_MAX + 1];
    int code = part_path(p, 1, path, file, e);
    if (code) return code;
    snprintf(folder, sizeof folder, "/.%s.parts", p->result->name);
    snprintf(at, sizeof at, "%s%s", p->o->dir, folder);
    snprintf(first, sizeof first, "%s/%s", at, file);
    (void)mkdir(at, 0777); /* what fails here fails below */
    int fd = open(at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    code = link_parts(p, fresh, fd) ? check_model(first, e) : 0;
    if (code) tell_place(e, folder);
    unlink_parts(p, fd);
    if (fd >= 0) close(fd);
    rmdir(at);
    for (uint32_t no = 1; no <= p->parts && code; no++)
        if (fresh[no - 1] && part_path(p, no, path, file, NULL) == 0) download_drop(path);
    return code;
}

static int write_record(struct pull *p, struct err *e)
{
    struct library_record *r = &p->record;
    snprintf(r->from, sizeof r->from, "%s", p->from);
    if (p->reference.hub) snprintf(r->asked, sizeof r->asked, "%s", p->o->what);
    r->pulled = (int64_t)time(NULL);
    return library_record_write(p->o->dir, p->result->name, r, e);
}

/*
 * The record of a new model comes first: killed in between, the same pull goes on. That of a model
 * that is replaced comes last: killed in between, its old ETags fit no more, and it is loaded anew.
 */
static int place(struct pull *p, const bool *fresh, struct err *e)
{
    char path[LIBRARY_PATH_MAX], part[LIBRARY_PATH_MAX + 8], file[REFERENCE_NAME_MAX + 1];
    int code = part_path(p, 1, path, file, e);
    if (code) return code;
    snprintf(part, sizeof part, "%s.part", path);
    if (p->parts == 1 && (code = check_model(part, e)) != 0) {
        download_drop(path);
        return code;
    }
    if (p->parts > 1) code = check_parts(p, fresh, e);
    if (code == 0 && !p->had.from[0]) code = write_record(p, e);
    for (uint32_t no = 1; no <= p->parts && code == 0; no++) {
        if (!fresh[no - 1] || (code = part_path(p, no, path, file, e)) != 0) continue;
        code = download_place(path, e);
    }
    if (code || p->parts == 1) return code;
    part_path(p, 1, path, file, NULL);
    code = check_model(path, e);
    if (code) library_drop(p->o->dir, p->result->name);
    return code;
}

static int load_all(struct pull *p, struct err *e)
{
    bool *fresh = mem_calloc(p->parts, sizeof *fresh), any = false;
    struct pull_result *result = p->result;
    char file[REFERENCE_NAME_MAX + 1];
    p->record.files = mem_calloc(p->parts, sizeof *p->record.files);
    int code = fresh && p->record.files ? 0 : err_set(e, ERR_NO_MEMORY, "no memory for a record");
    for (uint32_t no = 1; no <= p->parts && code == 0; no++) {
        code = load_part(p, no, &fresh[no - 1], e);
        any = any || fresh[no - 1];
    }
    if (code == 0 && any) code = place(p, fresh, e);
    if (code == 0 && any && p->had.from[0]) code = write_record(p, e);
    mem_free(fresh);
    if (code) return code;
    result->here = !any;
    result->parts = p->parts;
    memcpy(result->sha256, p->record.files[0].sha256, sizeof result->sha256);
    for (uint32_t i = 0; i < p->parts; i++)
        result->bytes += p->record.files[i].bytes;
    return part_path(p, 1, result->path, file, e);
}

int pull_run(const struct pull_options *o, struct pull_result *ret_result, struct err *e)
{
    struct pull *p = mem_calloc(1, sizeof *p);
    int fd = -1;
    if (!p) return err_set(e, ERR_NO_MEMORY, "no memory for a download");
    *ret_result = (struct pull_result){0};
    p->o = o;
    p->result = ret_result;
    p->endpoint = endpoint_of(o);
    int code = resolve(p, e);
    if (code == 0) code = os_make_folder(o->dir, 0777, e);
    if (code == 0) code = library_lock(o->dir, ret_result->name, &fd, e);
    if (code == 0) code = check_name(p, e);
    if (code == 0 && p->size) code = check_space(p, e);
    if (code == 0) code = load_all(p, e);
    if (fd >= 0) library_unlock(o->dir, ret_result->name, fd);
    library_record_release(&p->had);
    library_record_release(&p->record);
    fetch_close(p->fetch);
    mem_free(p);
    return code;
}

int pull_list(const struct pull_options *o, struct listing *ret_listing, struct err *e)
{
    struct pull *p = mem_calloc(1, sizeof *p);
    if (!p) return err_set(e, ERR_NO_MEMORY, "no memory for a list");
    p->o = o;
    p->endpoint = endpoint_of(o);
    int code = reference_parse(o->what, p->endpoint, &p->reference, e);
    if (code == 0) reference_take_page(&p->reference, p->endpoint);
    if (code == 0 && !p->reference.hub)
        code = err_set(e, ERR_BAD_INPUT, "--files lists what hf:OWNER/NAME has, not a URL");
    if (code == 0) code = open_server(p, e);
    if (code == 0) code = read_listing(p, ret_listing, e);
    fetch_close(p->fetch);
    mem_free(p);
    return code;
}
