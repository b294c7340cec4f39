/*
 * model_pull: `pdd model pull`, which downloads a model into the library (hub/pull.h): its options,
 * the environment that people of Hugging Face's tools have set, signals, and the line of progress.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "hub/pull.h"
#include "net/key_file.h"

enum {
    TOKEN_BYTES_MAX = 4096,
    LINE_EVERY_US = 5000000,
    LINE_BYTES = 256,
    NAME_LEAST = 12, /* bytes of a file's name in a line of progress */
    NAME_MOST = 60
};

const struct command command_model_pull = {
    .name = "model pull",
    .bit = OPTIONS_PULL,
    .operands = true,
    .usage = "usage: pdd model pull URL | hf:OWNER/NAME[:TYPE] | hf:OWNER/NAME/FILE [OPTION]...\n"
             "Download a GGUF file, with all parts of a split one, into the folder of models\n"
             "($XDG_DATA_HOME/pdd/models, or ~/.local/share/pdd/models). --model NAME then\n"
             "finds it. hf: is Hugging Face's hub (HF_ENDPOINT names another); without TYPE\n"
             "and FILE the only file is taken, or that of type Q4_K_M or else Q8_0. What is\n"
             "cut off goes on with the same command.\n\n"
             "The hub's token is read from HF_TOKEN, or the file that HF_TOKEN_PATH names, or\n"
             "$HF_HOME/token, or ~/.cache/huggingface/token. It goes to the hub alone.\n\n"};

/* ---- progress ---- */

struct progress {
    bool quiet, terminal, any; /* any: a line stands on the terminal */
    uint64_t told_us;
    uint64_t at_us, at_bytes; /* where the speed is measured from */
    uint32_t part;
    double speed; /* bytes/s; 0: not known yet */
};

static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    stop_asked = number;
}

static bool is_stopped(void *arg)
{
    (void)arg;
    return stop_asked != 0;
}

static void end_line(struct progress *s)
{
    if (s->any) fputs("\n", stderr);
    s->any = false;
}

/* "1.23 GB" */
static void put_bytes(char *text, size_t size, uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    int i = 0;
    while (v >= 999.5 && i < 4) {
        v /= 1000.0;
        i++;
    }
    snprintf(text, size, "%.*f %s", i == 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2, v, units[i]);
}

/* ", 34.5 MB/s" */
static void put_speed(char *text, size_t size, double speed)
{
    char bytes[32];
    put_bytes(bytes, sizeof bytes, (uint64_t)speed);
    snprintf(text, size, ", %s/s", bytes);
}

/* "1:02:03" or "2:03", until the end at this speed. */
static void put_left(char *text, size_t size, double seconds)
{
    unsigned s = seconds < 359999.0 ? (unsigned)(seconds + 0.5) : 359999;
    if (s >= 3600)
        snprintf(text, size, ", %u:%02u:%02u left", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size, ", %u:%02u left", s / 60, s % 60);
}

/* A fading mean: each window of half a second takes a fifth off the weight of those before it. */
static void measure(struct progress *s, uint64_t done, uint64_t now)
{
    if (s->at_us == 0 || done < s->at_bytes) {
        s->at_us = now;
        s->at_bytes = done;
        s->speed = 0.0;
        return;
    }
    double seconds = (double)(now - s->at_us) / 1e6;
    if (seconds < 0.5 && s->speed > 0.0) return;
    if (seconds < 0.1) return;
    double fresh = (double)(done - s->at_bytes) / seconds;
    double weight = s->speed > 0.0 ? 0.2 : 1.0;
    s->speed += weight * (fresh - s->speed);
    s->at_us = now;
    s->at_bytes = done;
}

/* Of the terminal, less the last, from which a cursor wraps; where that is not known, SIZE_MAX. */
static size_t room_of(const struct progress *s)
{
    struct winsize size;
    if (!s->terminal || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || size.ws_col < 2) return SIZE_MAX;
    return size.ws_col - 1u;
}

/* Of a size that is not known. */
static void put_count(const struct progress *s, const char *which, uint64_t bytes,
                      char text[LINE_BYTES])
{
    char done[32], speed[48] = "";
    put_bytes(done, sizeof done, bytes);
    if (s->speed >= 1.0) put_speed(speed, sizeof speed, s->speed);
    snprintf(text, LINE_BYTES, "%s: %s%s", which, done, speed);
}

/* All but the name: " (2 of 3): 45 %, 1.2 GB of 2.7 GB, 34.5 MB/s, 0:44 left", or less of it, so
 * that a name has room, too. */
static void put_figures(const struct progress *s, uint32_t part, uint32_t parts,
                        const struct download_progress *p, size_t room, char text[LINE_BYTES])
{
    char done[32], total[32], speed[48] = "", left[32] = "", which[64] = "";
    const char *what = p->checking ? "reads what is there, " : "";
    if (parts > 1) snprintf(which, sizeof which, " (%u of %u)", part, parts);
    if (p->total == FETCH_UNKNOWN || p->total == 0) {
        put_count(s, which, p->done, text);
        return;
    }
    put_bytes(done, sizeof done, p->done);
    put_bytes(total, sizeof total, p->total);
    if (s->speed >= 1.0) put_speed(speed, sizeof speed, s->speed);
    if (s->speed >= 1.0 && !p->checking)
        put_left(left, sizeof left, (double)(p->total - p->done) / s->speed);
    double percent = 100.0 * (double)p->done / (double)p->total;
    for (int i = 0; i < 4; i++) {
        if (i == 0)
            snprintf(text, LINE_BYTES, "%s: %s%.0f %%, %s of %s%s%s", which, what, percent, done,
                     total, speed, left);
        else if (i == 1)
            snprintf(text, LINE_BYTES, "%s: %s%.0f %% of %s%s", which, what, percent, total, left);
        else
            snprintf(text, LINE_BYTES, "%s: %.0f %%%s", i == 2 ? which : "", percent,
                     i == 2 ? left : "");
        if (room >= strlen(text) && room - strlen(text) >= NAME_LEAST) return;
    }
}

static void print_progress(struct progress *s, const char *file, const char *figures, size_t room)
{
    size_t n = strlen(file), used = strlen(figures);
    size_t most = room == SIZE_MAX ? NAME_MOST : room > used ? room - used : 0;
    bool cut = n > most;
    if (cut) n = utf8_valid_prefix(file, most > 2 ? most - 2 : 0);
    fprintf(stderr, s->terminal ? "\r%.*s%s%s\033[K" : "%.*s%s%s\n", (int)n, file,
            cut && most > 2 ? ".." : "", figures);
    s->any = s->terminal;
}

static void on_progress(void *arg, const char *file, uint32_t part, uint32_t parts,
                        const struct download_progress *p)
{
    struct progress *s = arg;
    char text[LINE_BYTES];
    uint64_t now = clock_us();
    if (s->part != part) s->at_us = 0;
    s->part = part;
    measure(s, p->done, now);
    if (s->quiet || (!s->terminal && now - s->told_us < LINE_EVERY_US)) return;
    if (s->told_us == 0 && !s->terminal) { /* the first line is worth its numbers later */
        s->told_us = now;
        return;
    }
    s->told_us = now;
    size_t room = room_of(s);
    put_figures(s, part, parts, p, room, text);
    print_progress(s, file, text, room);
}

static void on_note(void *arg, const char *sentence)
{
    struct progress *s = arg;
    if (s->quiet) return;
    end_line(s);
    fprintf(stderr, "pdd model pull: %s\n", sentence);
}

/* ---- the environment ---- */

/* The first line of a file, if it is there: a token that is not asked for is no error. */
static bool read_token(const char *path, struct buf *token)
{
    if (key_file_read(path, token, NULL) == 0) return true;
    buf_clear(token);
    return false;
}

static bool read_token_below(const char *folder, const char *rest, struct buf *token)
{
    char path[LIBRARY_PATH_MAX];
    if (!folder || folder[0] != '/') return false;
    return snprintf(path, sizeof path, "%s%s", folder, rest) < (int)sizeof path &&
           read_token(path, token);
}

/* Where the tools of Hugging Face look, in their order. */
static bool find_hub_token(struct buf *token)
{
    const char *given = secure_getenv("HF_TOKEN"), *path = secure_getenv("HF_TOKEN_PATH");
    if (given && given[0]) return buf_append(token, given, strcspn(given, "\r\n")) == 0;
    if (path && path[0]) return read_token(path, token);
    const char *home = secure_getenv("HF_HOME");
    if (home && home[0]) return read_token_below(home, "/token", token);
    return read_token_below(secure_getenv("XDG_CACHE_HOME"), "/huggingface/token", token) ||
           read_token_below(secure_getenv("HOME"), "/.cache/huggingface/token", token);
}

/* HF_ENDPOINT without slashes at its end; "": not set. */
static void find_endpoint(char ret_endpoint[FETCH_URL_MAX])
{
    const char *given = secure_getenv("HF_ENDPOINT");
    snprintf(ret_endpoint, FETCH_URL_MAX, "%s", given ? given : "");
    for (size_t n = strlen(ret_endpoint); n > 0 && ret_endpoint[n - 1] == '/'; n--)
        ret_endpoint[n - 1] = 0;
}

/* ---- the command ---- */

static int list_files(const struct pull_options *o, struct err *e)
{
    struct listing l;
    int code = pull_list(o, &l, e);
    if (code) return code;
    for (uint32_t i = 0; i < l.n; i++) {
        const struct listing_row *row = &l.rows[i];
        char type[REFERENCE_PART_MAX + 1], size[32] = "";
        listing_type(row, type);
        if (row->size) put_bytes(size, sizeof size, row->size);
        printf("%10s  %-8s  %s", size, type[0] ? type : "-", row->file);
        if (row->parts > 1) printf("  (%u parts)", row->parts);
        putchar('\n');
    }
    if (l.n == 0) printf("%s has no GGUF file\n", o->what);
    listing_release(&l);
    return 0;
}

static void print_result(const struct pull_result *r)
{
    char size[32];
    put_bytes(size, sizeof size, r->bytes);
    printf("%s: %s%s in %s", r->name, r->here ? "is here already, and has not changed: " : "", size,
           r->path);
    if (r->parts > 1)
        printf(" and %u more", r->parts - 1);
    else
        printf(", SHA-256 %s", r->sha256);
    printf("\nuse it by --model %s\n", r->name);
}

static int pull(const struct pull_options *o, struct progress *s, bool quiet, struct err *e)
{
    struct pull_result r;
    char kept[32];
    int code = pull_run(o, &r, e);
    end_line(s);
    if (code == 0 && !quiet) print_result(&r);
    if (code && r.kept) {
        put_bytes(kept, sizeof kept, r.kept);
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof text, "%.400s", e->text);
        err_set(e, code, "%s; %s are kept, and the same command goes on from there", text, kept);
    }
    return code;
}

static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}, before;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        /* What nohup or a shell has made us ignore stays so. The second signal kills. */
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN) continue;
        sigaction(signals[i], &a, NULL);
    }
}

/* One that knows how to clear a line; others get a line now and then, as a file does. */
static bool is_terminal(void)
{
    const char *term = secure_getenv("TERM");
    return isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

static int run(const struct model_pull_options *given, const char *what, struct err *e)
{
    char dir[LIBRARY_PATH_MAX], endpoint[FETCH_URL_MAX];
    struct buf token, hub_token;
    struct progress progress = {.quiet = given->quiet, .terminal = is_terminal()};
    buf_init(&token, TOKEN_BYTES_MAX);
    buf_init(&hub_token, TOKEN_BYTES_MAX);
    find_endpoint(endpoint);
    int code = library_default_dir(dir, sizeof dir, e);
    if (code == 0 && given->token_file) code = key_file_read(given->token_file, &token, e);
    bool any = !given->token_file && find_hub_token(&hub_token);
    struct pull_options o = {.what = what,
                             .dir = dir,
                             .as = given->as,
                             .sha256 = given->sha256,
                             .endpoint = endpoint,
                             .token = given->token_file ? token.data : NULL,
                             .hub_token = any ? hub_token.data : NULL,
                             .ca_file = given->ca_file,
                             .retries = given->retries,
                             .stopped = is_stopped,
                             .on_progress = on_progress,
                             .on_note = on_note,
                             .arg = &progress};
    catch_signals();
    if (code == 0) code = given->files ? list_files(&o, e) : pull(&o, &progress, given->quiet, e);
    buf_release(&token);
    buf_release(&hub_token);
    return code;
}

int model_pull(int argc, char **argv)
{
    struct options o;
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command_model_pull, argc, argv, &o, &line, &status)) return status;
    if (line.n_operands != 1) {
        fprintf(stderr, "pdd model pull: %s; see pdd model pull --help\n",
                line.n_operands ? "one model at a time" : "what is pulled is missing");
        return EXIT_USAGE;
    }
    if (run(&o.pull, line.operands[0], &e) == 0) return EXIT_DONE;
    fprintf(stderr, "pdd model pull: %s\n", e.text);
    return EXIT_FAILED;
}
