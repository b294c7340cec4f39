/*
 * chat: `pdd chat`, a conversation in the terminal, or one question.
 *
 * The answer goes to standard output and nothing else does (but the prompt sign of a terminal);
 * progress, reports and errors go to standard error.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/utf8.h"
#include "cli/chat/chat_command.h"
#include "cli/chat/chat_hello.h"
#include "cli/chat/chat_input.h"
#include "cli/chat/chat_signals.h"
#include "cli/chat/chat_stats.h"
#include "cli/commands.h"
#include "cli/engine_open.h"
#include "cli/model_file.h"
#include "cli/options.h"
#include "lib/json_report.h"
#include "lib/lib.h"
#include "net/http_url.h"
#include "net/key_file.h"
#include "pdd.h"
#include "store/store.h"

enum { KEY_MAX = 4096, PROMPT_BYTES_MAX = 16 << 20, PAINTED_DIM = 2 };

struct chat {
    struct options o;
    const struct engine_info *info; /* of the model here; NULL: none */
    pdd_model *model;               /* NULL: none */
    pdd_device *device;
    pdd_chat *talk;
    struct buf json;
    struct buf document; /* goes before the first question, with the empty line after it */
    bool document_asked; /* the conversation holds it */
    pdd_answer *answer;  /* the last one; NULL: none */
    pdd_report last;     /* its report; its pointers hold until the next question */
    bool any_last;
    char model_path[MODEL_FILE_PATH_MAX];
    bool color, progress, progress_shown;
    bool terminal;    /* the answer is shown to a person, not kept by a program */
    bool begun;       /* text or a thought of the answer is shown */
    bool thinks;      /* a thought is being shown */
    int painted;      /* source whose colour is on, PAINTED_DIM, or -1: none */
    int output_error; /* errno of a failed write of the answer; 0: none */
    struct chat_signals signals;
    struct chat_history history;
    bool keeps_history;
    struct chat_input in;
};

/* ---- opening ---- */

static int open_engine(struct chat *c, struct engine **ret_engine, struct err *e)
{
    struct options *o = &c->o;
    bool is_fake = o->fake_tokens != OPTIONS_NO_FAKE;
    int code = is_fake ? 0 : model_file_default(&o->native.model_path, c->model_path, e);
    if (code) return code;
    struct fake_options fake = {.answer_tokens = o->fake_tokens};
    code = engine_open(&o->native, is_fake ? &fake : NULL, o->profile, ret_engine, e);
    const struct vocab *v = code ? NULL : engine_vocab(*ret_engine);
    if (v && vocab_merges_passed(v) > 0)
        fprintf(stderr, "pdd chat: note: %u malformed merges of the tokenizer are passed over\n",
                vocab_merges_passed(v));
    return code;
}

/* Where is kept what was learned and typed; NULL: nowhere. An answer needs none. */
static const char *state_dir(const struct chat *c, char dir[STORE_PATH_MAX])
{
    const struct chat_options *o = &c->o.chat;
    struct err e = ERR_INIT;
    if (o->no_state) return NULL;
    if (o->state) return o->state;
    return store_default_dir(dir, STORE_PATH_MAX, &e) == 0 ? dir : NULL;
}

static void open_history(struct chat *c, const char *state)
{
    const struct chat_options *o = &c->o.chat;
    struct err e = ERR_INIT;
    if (!state || o->no_history || o->prompt || c->o.prompt_file || !isatty(STDIN_FILENO)) return;
    c->keeps_history = chat_history_open(&c->history, state, &e) == 0;
    if (!c->keeps_history)
        fprintf(stderr, "pdd chat: note: what is typed is not kept: %s\n", e.text);
}

/* The first line of a conversation at a terminal. */
static void say_hello(const struct chat *c, const pdd_device_options *d)
{
    struct buf line;
    struct chat_hello h = {.info = c->info,
                           .cloud_url = d->cloud_url,
                           .key = d->cloud_key,
                           .ca_file = d->cloud_ca_file,
                           .model = d->cloud_model};
    buf_init(&line, CHAT_HELLO_BYTES_MAX);
    chat_hello(&h, &line);
    if (line.len > 0) fprintf(stderr, "%s; /help lists commands\n", line.data);
    buf_release(&line);
}

static int open_model(struct chat *c, struct err *e)
{
    const struct device_profile *p = c->o.profile ? device_profile_find(c->o.profile) : NULL;
    struct engine *engine;
    int code = open_engine(c, &engine, e);
    if (code) return code;
    c->info = engine_info(engine);
    code =
        lib_model_of(engine, p ? p->prefill_tps : 0.0, p ? 1e6 / p->decode_tps : 0.0, &c->model, e);
    if (code) engine_free(engine);
    return code;
}

static int take_error(int code, const pdd_error *error, struct err *e)
{
    return err_set(e, code, "%s", error->text);
}

/* With what was learned before, if it can be read. */
static int open_device_with(struct chat *c, pdd_device_options *d, struct err *e)
{
    pdd_error error, why;
    int code = pdd_device_open(d, &c->device, &error);
    if (code == 0 || !d->state_dir) return code ? take_error(code, &error, e) : 0;
    d->state_dir = NULL;
    code = pdd_device_open(d, &c->device, &why);
    if (code) return take_error(code, &why, e);
    fprintf(stderr, "pdd chat: note: nothing is kept of this run: %s\n", error.text);
    return 0;
}

static int open_device(struct chat *c, struct err *e)
{
    const struct chat_options *o = &c->o.chat;
    char dir[STORE_PATH_MAX];
    struct buf key;
    pdd_device_options d = {.size = sizeof d, .state_dir = state_dir(c, dir)};
    const char *state = d.state_dir;
    buf_init(&key, KEY_MAX);
    bool several = !o->prompt && !c->o.prompt_file; /* else the program ends with the answer */
    int code = o->key_file ? key_file_read(o->key_file, &key, e) : 0;
    if (!o->local_only && o->cloud_url) {
        d.cloud_url = o->cloud_url;
        d.cloud_key = o->key_file ? key.data : NULL;
        d.cloud_ca_file = o->ca_file;
        d.cloud_model = o->cloud_model;
    }
    if (code == 0 && !o->no_model) code = open_model(c, e);
    d.model = c->model;
    if (several && d.model && o->idle_fill != IDLE_FILL_OFF)
        d.read_ahead = o->idle_fill == IDLE_FILL_ON ? PDD_READ_AHEAD_ALWAYS : PDD_READ_AHEAD_MAINS;
    if (code == 0) code = open_device_with(c, &d, e);
    if (code == 0) open_history(c, state);
    if (code == 0 && d.cloud_key && http_url_exposes(d.cloud_url))
        fprintf(stderr,
                "pdd chat: warning: the key and the prompts travel to %s unencrypted: give an "
                "https URL\n",
                d.cloud_url);
    if (code == 0 && several && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) say_hello(c, &d);
    buf_release(&key);
    return code;
}

/* ---- the conversation ---- */

static void clear_progress(struct chat *c)
{
    if (!c->progress_shown) return;
    fputs("\r\033[K", stderr);
    c->progress_shown = false;
}

static void paint(struct chat *c, int source)
{
    static const char *const colors[] = {
        [PDD_SOURCE_CLOUD] = "\033[36m", [PDD_SOURCE_DEVICE] = "\033[32m"};
    if (!c->color || c->painted == source) return;
    if (c->painted == PAINTED_DIM) fputs("\033[0m", stdout);
    fputs(source < 0 ? "\033[0m" : colors[source], stdout);
    c->painted = source;
}

/* A terminal obeys control characters, and the text may be a stranger's: only line ends and tabs
 * pass, a carriage return is left out, and others are shown as the replacement character. */
static void write_to_terminal(const char *text, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t len = utf8_control(text + at, n - at);
        if (len == 0 || text[at] == '\n' || text[at] == '\t')
            putchar(text[at++]);
        else if (text[at++] != '\r') {
            fputs("\xEF\xBF\xBD", stdout);
            at += len - 1;
        }
    }
}

static void say_left_out(const struct chat *c, uint32_t messages)
{
    const char *more = messages > 2 ? "s" : "";
    fprintf(stderr,
            "pdd chat: note: the context is full: the oldest %u question%s and answer%s are left "
            "out from here on%s; /clear begins anew\n",
            messages / 2, more, more, c->document.len > 0 ? ", and with them the document" : "");
}

/* Not 0 where the output is gone: then neither end needs to compute further. */
static int on_text(void *arg, const char *text, size_t n, const pdd_token *token)
{
    struct chat *c = arg;
    if (n == 0) return c->output_error;
    clear_progress(c);
    if (c->thinks) {
        fputs("\n\n", stdout);
        c->thinks = false;
    }
    c->begun = true;
    paint(c, token->source);
    if (c->terminal)
        write_to_terminal(text, n);
    else
        fwrite(text, 1, n, stdout);
    if (fflush(stdout) && !c->output_error) c->output_error = errno;
    return c->output_error;
}

/* To a person, dimmed or with a word; programs read the answer alone. */
static int on_thought(void *arg, const char *text, size_t n, const pdd_token *token)
{
    struct chat *c = arg;
    (void)token;
    if (!c->terminal) return 0;
    clear_progress(c);
    if (!c->thinks) fputs(c->color ? "\033[2m" : "(thinking) ", stdout);
    c->begun = c->thinks = true;
    c->painted = c->color ? PAINTED_DIM : -1;
    write_to_terminal(text, n);
    (void)fflush(stdout); /* the text of the answer finds out when the terminal is gone */
    return 0;
}

/* On one row of the window: what goes to a second one could not be taken back. */
static int on_progress(void *arg, int source, uint32_t done, uint32_t total)
{
    struct chat *c = arg;
    char text[64];
    if (!c->progress || c->begun || source != PDD_SOURCE_DEVICE) return 0;
    unsigned columns = chat_input_columns(), percent = (unsigned)(100ull * done / total);
    int n = snprintf(text, sizeof text, "reading: %u of %u tokens (%u%%)", done, total, percent);
    if (columns > 0 && (unsigned)n >= columns) snprintf(text, sizeof text, "%u%%", percent);
    fprintf(stderr, "\r\033[K%s", text);
    c->progress_shown = true;
    return 0;
}

/* Say nothing when the reader of the answer is gone: main ends such a program. */
static void complain(const struct chat *c, const struct err *e)
{
    if (c->output_error != EPIPE) fprintf(stderr, "pdd chat: %s\n", e->text);
}

static int write_stats(struct chat *c, bool failed, struct err *e)
{
    const pdd_report *r = &c->last;
    const char *json;
    size_t n;
    if (!c->o.chat.stats && !failed && r->trouble[0])
        fprintf(stderr, "pdd chat: note: %s\n", r->trouble);
    if (c->o.chat.stats && !failed) {
        if (c->color) fputs("(\033[36mcloud\033[0m, \033[32mdevice\033[0m) ", stderr);
        chat_stats_print(r, c->info, stderr);
    }
    if (!c->o.chat.stats_json) return 0;
    if (pdd_answer_json(c->answer, &json, &n, NULL) || buf_append(&c->json, json, n) ||
        buf_putc(&c->json, '\n'))
        return err_set(e, ERR_LIMIT, "%s: the report grew too large", c->o.chat.stats_json);
    return os_write_file(c->o.chat.stats_json, c->json.data, c->json.len, e);
}

static void cancel(void *arg)
{
    struct chat *c = arg;
    pdd_device_cancel(c->device);
}

static void fill_question(struct chat *c, pdd_question *q)
{
    const struct chat_options *o = &c->o.chat;
    const struct sampling *s = &o->sampling;
    q->mode = o->local_only ? PDD_MODE_LOCAL : o->cloud_only ? PDD_MODE_CLOUD : PDD_MODE_AUTO;
    q->tokens_max = c->o.tokens_max;
    q->temperature = s->temperature;
    q->top_k = s->top_k;
    q->top_p = s->top_p;
    q->min_p = s->min_p;
    q->repeat_penalty = s->repeat_penalty;
    q->repeat_last = s->repeat_last;
    q->frequency_penalty = s->frequency_penalty;
    q->presence_penalty = s->presence_penalty;
    q->seed = s->seed;
    q->pace = (int)o->pace;
    q->goal = (int)o->goal;
    q->first_ms = o->first_ms;
    q->interval_ms = o->gap_ms;
    q->cloud_tokens_max = o->cloud_tokens_max;
    q->cloud_tokens = o->cloud_tokens < 0    ? 0
                      : o->cloud_tokens == 0 ? PDD_CLOUD_TOKENS_NONE
                                             : (int32_t)o->cloud_tokens;
    q->verify = (int)o->verify;
    q->refine = (int)o->refine;
    if (o->refine == DEVICE_REFINE_RATIO || o->refine == DEVICE_REFINE_LOCAL)
        q->refine_ratio = o->refine_ratio;
    q->on_text = on_text;
    q->on_thought = on_thought;
    q->on_progress = on_progress;
    q->arg = c;
}

/* An answer that does not end where the model would have ended it. */
static void say_cut(const struct chat *c)
{
    const pdd_report *r = &c->last;
    if (r->reason == PDD_CANCELLED && c->in.tty)
        fputs("(stopped; Ctrl-C again, or Ctrl-D, leaves)\n", stderr);
    if (r->reason != PDD_LENGTH || c->o.chat.stats) return;
    if (r->tokens >= c->o.tokens_max)
        fprintf(stderr, "pdd chat: note: the answer is cut off after %u tokens (--max-tokens)\n",
                r->tokens);
    else
        fprintf(stderr,
                "pdd chat: note: the answer is cut off after %u tokens: the context is full\n",
                r->tokens);
}

/* Begin the answer and show it until it ends. */
static int wait_for_answer(struct chat *c, const pdd_question *q, struct err *e)
{
    pdd_error error;
    pdd_answer_free(c->answer);
    c->answer = NULL;
    c->last = (pdd_report){.size = sizeof c->last};
    c->any_last = false;
    c->painted = -1;
    c->begun = c->thinks = false;
    chat_signals_answering(&c->signals, true);
    int code = pdd_ask_begin(c->device, q, &c->answer, &error);
    if (code == 0) code = pdd_answer_wait(c->answer, -1, &error);
    chat_signals_answering(&c->signals, false);
    clear_progress(c);
    if (code) take_error(code, &error, e);
    return code;
}

/* Whether the conversation has grown by the last question. */
static bool took_answer(const struct chat *c)
{
    size_t n = 0;
    if (c->any_last) (void)pdd_answer_text(c->answer, &n);
    return n > 0;
}

/* Ask with what the question says about the prompt; the rest comes from the options. */
static int ask(struct chat *c, pdd_question *q, struct err *e)
{
    struct err stats_err = ERR_INIT;
    uint32_t before = pdd_chat_count(c->talk);
    fill_question(c, q);
    int code = wait_for_answer(c, q, e);
    if (!c->answer) return code;
    (void)pdd_answer_report(c->answer, &c->last, NULL);
    c->any_last = code == 0;
    paint(c, -1);
    size_t n;
    (void)pdd_answer_text(c->answer, &n);
    if (n > 0 || code == 0) fputc('\n', stdout);
    uint32_t after = pdd_chat_count(c->talk);
    if (q->chat && took_answer(c) && before + 2 > after) say_left_out(c, before + 2 - after);
    if (fflush(stdout) && !c->output_error) c->output_error = errno;
    if (c->output_error && code == 0)
        code = err_set(e, ERR_IO, "the answer cannot be written to standard output: %s",
                       strerror(c->output_error));
    if (code == 0) say_cut(c);
    if (write_stats(c, code != 0, &stats_err) && code == 0) {
        *e = stats_err;
        code = stats_err.code;
    }
    return code;
}

/* Text as UTF-8: what is none becomes U+FFFD. */
static int append_valid(struct buf *b, const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t good = utf8_valid_prefix(text + at, n - at);
        buf_append(b, text + at, good);
        at += good;
        if (at < n) buf_puts(b, "\xEF\xBF\xBD");
        at++;
    }
    return b->error;
}

/* The question as the last message, and its answer after it. */
static int ask_message(struct chat *c, const char *text, size_t n, struct err *e)
{
    struct buf valid;
    buf_init(&valid, 3 * PROMPT_BYTES_MAX);
    int code = append_valid(&valid, text, n);
    pdd_question q = {.size = sizeof q,
                      .chat = c->o.chat.raw ? NULL : c->talk,
                      .raw = c->o.chat.raw,
                      .text = valid.data,
                      .text_length = valid.len};
    code = code ? err_set(e, code, "no memory for the question") : ask(c, &q, e);
    buf_release(&valid);
    return code;
}

/* The question, after the document if that was not asked about yet. */
static int ask_text(struct chat *c, const char *text, size_t n, struct err *e)
{
    if (c->document.len == 0 || c->document_asked) return ask_message(c, text, n, e);
    struct buf all;
    buf_init(&all, 2 * PROMPT_BYTES_MAX);
    int code = buf_append(&all, c->document.data, c->document.len);
    if (code == 0) code = buf_append(&all, text, n);
    if (code)
        err_set(e, code, "no memory for document and question");
    else
        code = ask_message(c, all.data, all.len, e);
    if (took_answer(c)) c->document_asked = true; /* the conversation holds it now */
    buf_release(&all);
    return code;
}

static int read_document(struct chat *c, const char *path, struct err *e)
{
    struct buf *b = &c->document;
    int code = os_read_file(path, b, e);
    if (code) return code;
    while (b->len > 0 && b->data[b->len - 1] == '\n')
        b->len--;
    if (b->len == 0) return err_set(e, ERR_BAD_INPUT, "%s: the document is empty", path);
    return buf_puts(b, "\n\n")
               ? err_set(e, ERR_LIMIT, "%s: larger than %d bytes", path, PROMPT_BYTES_MAX)
               : 0;
}

/* ---- the two ways to run ---- */

static int read_stdin(struct buf *b, struct err *e)
{
    char bytes[4096];
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, stdin)) > 0)
        if (buf_append(b, bytes, n))
            return err_set(e, ERR_LIMIT, "the prompt on standard input is larger than %d bytes",
                           PROMPT_BYTES_MAX);
    return 0;
}

static int run_once(struct chat *c, struct err *e)
{
    struct buf b;
    int code;
    buf_init(&b, PROMPT_BYTES_MAX);
    if (c->o.chat.prompt)
        code = buf_puts(&b, c->o.chat.prompt) ? err_set(e, ERR_LIMIT, "the prompt is too long") : 0;
    else if (strcmp(c->o.prompt_file, "-") == 0)
        code = read_stdin(&b, e);
    else
        code = os_read_file(c->o.prompt_file, &b, e);
    if (code == 0 && b.len == 0) code = err_set(e, ERR_BAD_INPUT, "the prompt is empty");
    if (code == 0) code = ask_text(c, b.data, b.len, e);
    buf_release(&b);
    if (code) return EXIT_FAILED;
    return c->last.reason == PDD_CANCELLED ? CHAT_SIGNALS_INTERRUPTED : EXIT_DONE;
}

/* The texts of the last two messages, with a 0 after each; false: the last is no answer. */
static bool last_pair(const struct chat *c, struct buf *ret_question, struct buf *ret_answer)
{
    uint32_t n = pdd_chat_count(c->talk);
    const char *role, *question, *answer;
    size_t question_len, answer_len;
    if (n < 2 || pdd_chat_message(c->talk, n - 1, &role, &answer, &answer_len, NULL) ||
        strcmp(role, "assistant") != 0)
        return false;
    return pdd_chat_message(c->talk, n - 2, &role, &question, &question_len, NULL) == 0 &&
           buf_append(ret_question, question, question_len) == 0 &&
           buf_append(ret_answer, answer, answer_len) == 0;
}

static int ask_again(struct chat *c, const struct buf *question, const struct buf *answer,
                     struct err *e)
{
    pdd_question q = {
        .size = sizeof q, .chat = c->talk, .text = question->data, .text_length = question->len};
    (void)pdd_chat_cut(c->talk, pdd_chat_count(c->talk) - 2, NULL);
    int code = ask(c, &q, e);
    if (took_answer(c)) return code;
    (void)pdd_chat_add(c->talk, "user", question->data, question->len, NULL);
    (void)pdd_chat_add(c->talk, "assistant", answer->data, answer->len, NULL);
    return code;
}

/* The last question once more. Another seed gives another answer, if tokens are sampled. */
static int regenerate(struct chat *c, struct err *e)
{
    struct buf question, answer;
    int code;
    buf_init(&question, 3 * PROMPT_BYTES_MAX);
    buf_init(&answer, DEVICE_TEXT_MAX);
    if (!last_pair(c, &question, &answer)) {
        code = err_set(e, ERR_NOT_FOUND, "there is no answer to give again");
    } else {
        c->o.chat.sampling.seed++;
        if (c->o.chat.sampling.temperature == 0.0f)
            fputs("pdd chat: note: with temperature 0 the answer stays the same\n", stderr);
        code = ask_again(c, &question, &answer, e);
    }
    buf_release(&question);
    buf_release(&answer);
    return code;
}

static void clear(struct chat *c)
{
    (void)pdd_chat_cut(c->talk, c->o.chat.system ? 1 : 0, NULL);
    c->document_asked = false;
    fputs("pdd chat: the conversation begins anew\n", stderr);
}

static int show_stats(const struct chat *c, struct err *e)
{
    if (!c->any_last) return err_set(e, ERR_NOT_FOUND, "there is no answer yet");
    chat_stats_print(&c->last, c->info, stderr);
    return 0;
}

/* What a line asks for besides an answer. */
static int obey(struct chat *c, enum chat_command command, const struct buf *line, struct err *e)
{
    char unknown[CHAT_COMMAND_NEAR_MAX];
    switch (command) {
    case CHAT_COMMAND_HELP:
        fputs(chat_command_help(), stderr);
        return 0;
    case CHAT_COMMAND_CLEAR:
        clear(c);
        return 0;
    case CHAT_COMMAND_STATS:
        return show_stats(c, e);
    case CHAT_COMMAND_REGENERATE:
        return regenerate(c, e);
    default:
        chat_command_unknown(line->data, line->len, unknown);
        return err_set(e, ERR_BAD_INPUT, "%s", unknown);
    }
}

/* A question or a command; false: it is the command to leave. */
static bool take_line(struct chat *c, const struct buf *line, int *ret_status)
{
    struct err e = ERR_INIT;
    enum chat_command command = chat_command_of(line->data, line->len);
    if (command == CHAT_COMMAND_EXIT) return false;
    size_t escape = chat_command_escape(line->data, line->len);
    int code = command == CHAT_COMMAND_NONE
                   ? ask_text(c, line->data + escape, line->len - escape, &e)
                   : obey(c, command, line, &e);
    if (code) complain(c, &e);
    *ret_status = code ? EXIT_FAILED : EXIT_DONE;
    return true;
}

/* Ctrl-C while a line is typed. On an empty line it leaves; one with text is forgotten first. */
static bool leaves(const struct chat *c, unsigned interrupts)
{
    if (!c->in.tty || c->in.line == CHAT_INPUT_EMPTY) return true;
    if (c->in.line == CHAT_INPUT_UNKNOWN && interrupts > 1) return true;
    fputs("\n(Ctrl-C again, or Ctrl-D, leaves)\n", stderr);
    return false;
}

static int run_conversation(struct chat *c)
{
    struct buf line;
    unsigned interrupts = 0;
    int status = EXIT_DONE;
    chat_input_init(&c->in, c->signals.pipe[0], c->keeps_history ? &c->history : NULL);
    chat_signals_typing(&c->signals, &c->in);
    buf_init(&line, CHAT_LINE_MAX);
    for (;;) {
        enum chat_input_result got = chat_input_read(&c->in, &line);
        if (got == CHAT_INPUT_END) break;
        if (got == CHAT_INPUT_TOO_LONG) {
            fprintf(stderr, "pdd chat: a line is longer than %d bytes: use --prompt-file\n",
                    CHAT_LINE_MAX);
            status = EXIT_FAILED;
            break;
        }
        if (got == CHAT_INPUT_INTERRUPT) {
            if (leaves(c, ++interrupts)) break;
            continue;
        }
        interrupts = 0;
        if (line.len > 0 && !take_line(c, &line, &status)) break;
        if (c->output_error) break;
    }
    if (c->in.tty) fputc('\n', stdout);
    buf_release(&line);
    chat_signals_typing(&c->signals, NULL);
    chat_input_release(&c->in);
    return status;
}

static int run(struct chat *c, struct err *e)
{
    const char *document = c->o.chat.document;
    int code = document ? read_document(c, document, e) : 0;
    pdd_error error;
    if (code == 0) code = open_device(c, e);
    if (code) return EXIT_FAILED;
    code = pdd_chat_new(c->o.chat.system, &c->talk, &error);
    if (code) return take_error(code, &error, e), EXIT_FAILED;
    chat_signals_ready(&c->signals);
    if (c->o.chat.prompt || c->o.prompt_file) return run_once(c, e);
    return run_conversation(c);
}

const struct command command_chat = {
    .name = "chat",
    .bit = OPTIONS_CHAT,
    .usage = "usage: pdd chat [--cloud URL] [OPTION]...\n"
             "Ask a model. With --cloud the answer starts there and is finished here.\n"
             "Without --prompt or --prompt-file it is a conversation; Ctrl-C stops an answer,\n"
             "Ctrl-D (or Ctrl-C on an empty line) exits, /help lists commands.\n"};

/* What the options mean together. */
static int check_options(const struct options *o)
{
    const struct chat_options *c = &o->chat;
    bool has_model = o->native.model_path || o->fake_tokens != OPTIONS_NO_FAKE;
    const char *wrong = NULL;
    if (c->local_only && c->cloud_only)
        wrong = "--local-only and --cloud-only exclude each other";
    else if (c->prompt && o->prompt_file)
        wrong = "--prompt and --prompt-file exclude each other";
    else if (c->no_model && has_model)
        wrong = "--no-model and --model exclude each other";
    else if (c->cloud_only && !c->cloud_url)
        wrong = "--cloud-only needs --cloud URL";
    else if (c->local_only && c->no_model)
        wrong = "--local-only needs a model on the device";
    else if (c->no_model && !c->cloud_url)
        wrong = "--no-model needs --cloud URL";
    else if (c->raw && c->system)
        wrong = "--system has no effect with --raw: there is no chat template";
    else if (c->raw && c->document)
        wrong = "--document has no effect with --raw: put document and question into one file";
    else if (c->state && c->no_state)
        wrong = "--state and --no-state exclude each other";
    else if (c->cloud_tokens_max > 0 && (c->cloud_only || c->no_model))
        wrong = "--cloud-tokens-max has no effect where the cloud answers alone: use --max-tokens";
    else if (c->cloud_tokens_max > 0 && c->cloud_tokens >= 0)
        wrong = "--cloud-tokens and --cloud-tokens-max exclude each other";
    if (wrong) fprintf(stderr, "pdd chat: %s; see pdd chat --help\n", wrong);
    return wrong ? -1 : 0;
}

int cmd_chat(int argc, char **argv)
{
    struct chat c = {.painted = -1};
    struct option_line line;
    struct err e = ERR_INIT;
    int status;
    if (options_parse(&command_chat, argc, argv, &c.o, &line, &status)) return status;
    if (check_options(&c.o)) return EXIT_USAGE;
    bool tty = isatty(STDOUT_FILENO);
    bool plain = chat_input_terminal_is_plain();
    const char *no_color = secure_getenv("NO_COLOR"); /* no-color.org: when not empty */
    c.color = c.o.chat.color == CHAT_COLOR_ALWAYS ||
              (c.o.chat.color == CHAT_COLOR_AUTO && tty && !plain && !(no_color && *no_color));
    c.terminal = tty;
    c.progress = tty && isatty(STDERR_FILENO) && !plain;
    buf_init(&c.json, JSON_REPORT_BYTES_MAX);
    buf_init(&c.document, PROMPT_BYTES_MAX);
    if (chat_signals_begin(&c.signals, cancel, &c, &e)) {
        fprintf(stderr, "pdd chat: %s\n", e.text);
        return EXIT_FAILED;
    }
    status = run(&c, &e);
    if (status == EXIT_FAILED && e.code) complain(&c, &e);
    if (c.output_error == EPIPE) status = EXIT_DONE;
    chat_signals_end(&c.signals);
    pdd_answer_free(c.answer);
    pdd_device_close(c.device);
    pdd_model_close(c.model);
    pdd_chat_free(c.talk);
    buf_release(&c.json);
    buf_release(&c.document);
    return status;
}
