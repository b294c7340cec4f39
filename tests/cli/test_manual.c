/*
 * test_manual: what `pdd manual` writes is read by those who will read it: man pages by mandoc, the
 * completion by bash at a terminal, by zsh and by fish. A reader that is not installed is skipped.
 *
 * Catches: an option that a page does not tell of; roff that a page of ours breaks; a completion
 * that offers nothing, offers options of another command, or files where names are wanted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/os.h"
#include "support/program.h"

enum { PATH_BYTES = 512, LINE_BYTES = 1024, ANSWER_MS = 20000, OUTPUT_MAX = 1 << 20 };

static char folder[] = "/tmp/pdd-manual-XXXXXX";

static int shell(const char *format, const char *a, const char *b, struct buf *out)
{
    char line[LINE_BYTES];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(line, sizeof line, format, a, b);
#pragma GCC diagnostic pop
    return program_shell(line, out);
}

static void need_program(const char *name)
{
    struct buf out;
    int status = shell("command -v %s%s", name, "", &out);
    buf_release(&out);
    if (status != 0) skip();
}

/* Two models that were pulled, and the program where a shell finds it. */
static void make_models(void)
{
    const char *path = getenv("PATH"), *bin = getenv("PDD_BIN");
    char value[8192];
    struct buf out;
    if (!bin || !bin[0]) skip();
    snprintf(value, sizeof value,
             "program=$(realpath '%s') && cd %s && mkdir -p data/pdd/models bin && ln -s "
             "\"$program\" bin/pdd && touch data/pdd/models/pulled-q4.gguf 'data/pdd/models/two "
             "words-00001-of-00002.gguf' "
             "data/pdd/models/half.gguf.part",
             bin, folder);
    assert_int_equal(program_shell(value, &out), 0);
    buf_release(&out);
    snprintf(value, sizeof value, "%s/data", folder);
    setenv("XDG_DATA_HOME", value, 1);
    snprintf(value, sizeof value, "%s/bin:%s", folder, path ? path : "/usr/bin:/bin");
    setenv("PATH", value, 1);
}

static int write_manual(void **state)
{
    struct program p;
    struct buf out, err;
    (void)state;
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    program_start(&p, "manual", ARGS(folder, "--date", "2026-11-29"));
    int status = program_finish(&p, &out, &err);
    if (status) fail_msg("%s", err.data);
    buf_release(&out);
    buf_release(&err);
    make_models();
    return 0;
}

static int remove_manual(void **state)
{
    struct buf out;
    (void)state;
    int status = shell("rm -r %s%s", folder, "", &out);
    buf_release(&out);
    return status;
}

/* ---- pages ---- */

/* "--kv-mb" as a page writes it: "\-\-kv\-mb". */
static bool page_names(const char *page, const char *option, size_t n)
{
    char wanted[LINE_BYTES] = "\\fB", *at = wanted + 3;
    for (size_t i = 0; i < n; i++) {
        if (option[i] == '-') *at++ = '\\';
        *at++ = option[i];
    }
    snprintf(at, 4, "\\fR");
    return strstr(page, wanted) != NULL;
}

/* Every option that begins a line of the help. */
static void check_page(const char *command, const char *action, const char *page_name)
{
    char path[PATH_BYTES];
    struct program p;
    struct buf help, err;
    struct err e = ERR_INIT;
    struct buf page;
    int options = 0;
    buf_init(&page, OUTPUT_MAX);
    snprintf(path, sizeof path, "%s/%s.1", folder, page_name);
    assert_int_equal(os_read_file(path, &page, &e), 0);
    if (action)
        program_start(&p, command, ARGS(action, "--help"));
    else
        program_start(&p, command, ARGS("--help"));
    assert_int_equal(program_finish(&p, &help, &err), 0);
    for (const char *line = help.data; line;
         line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, "  --", 4) != 0) continue;
        size_t n = strcspn(line + 2, " \n");
        if (!page_names(page.data, line + 2, n)) fail_msg("%s: no %.*s", path, (int)n, line + 2);
        options++;
    }
    assert_true(options > 0);
    buf_release(&page);
    buf_release(&help);
    buf_release(&err);
}

static void test_pages_tell_what_help_tells(void **state)
{
    (void)state;
    check_page("chat", NULL, "pdd-chat");
    check_page("cloud", NULL, "pdd-cloud");
    check_page("cloud", "key", "pdd-cloud-key");
    check_page("device", NULL, "pdd-device");
    check_page("model", NULL, "pdd-model");
    check_page("bench", "refine", "pdd-bench-refine");
}

/* Catches: a page without what its readers look for besides options. */
static void test_pages_have_their_sections(void **state)
{
    static const char *const pages[] = {"pdd",        "pdd-chat",  "pdd-cloud",
                                        "pdd-device", "pdd-model", "pdd-model-pull"};
    (void)state;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        struct buf out;
        int status = shell("sed -n 's/^\\.SH //p' %s/%s.1 | grep -A9 '^EXIT STATUS'", folder,
                           pages[i], &out);
        assert_int_equal(status, 0);
        if (!strstr(out.data, "ENVIRONMENT\nFILES\nEXAMPLES\nSEE ALSO\n"))
            fail_msg("%s: %s", pages[i], out.data);
        buf_release(&out);
    }
    /* Every page has an example. */
    struct buf out;
    int status = shell("grep -L '^.SH EXAMPLES' %s/*.1%s | grep .", folder, "", &out);
    if (status == 0) fail_msg("no example: %s", out.data);
    buf_release(&out);
}

static void test_mandoc_has_no_complaint(void **state)
{
    struct buf out;
    (void)state;
    need_program("mandoc");
    int status = shell("mandoc -T lint -W warning %s/*.1%s 2>&1", folder, "", &out);
    if (status) fail_msg("%s", out.data);
    buf_release(&out);
}

/* ---- bash at a terminal ---- */

struct terminal {
    int fd;
    pid_t pid;
    struct buf seen;
};

static void terminal_type(struct terminal *t, const char *text)
{
    assert_int_equal(write(t->fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* Reads until `text` has come after `from`; returns where it ends. */
static const char *terminal_await(struct terminal *t, size_t from, const char *text)
{
    char bytes[LINE_BYTES];
    const char *found;
    while (!(found = strstr(t->seen.data + from, text))) {
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        if (poll(&p, 1, ANSWER_MS) != 1) fail_msg("no \"%s\" in \"%s\"", text, t->seen.data);
        ssize_t n = read(t->fd, bytes, sizeof bytes);
        if (n <= 0) fail_msg("the shell has left: %s", t->seen.data);
        assert_int_equal(buf_append(&t->seen, bytes, (size_t)n), 0);
    }
    return found + strlen(text);
}

static const char start_bash[] =
    "bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'; "
    "bind 'set page-completions off'; "
    "bind -x '\"\\C-g\": printf \"\\nLINE[%s]END\\n\" \"$READLINE_LINE\"'; "
    "source ./pdd.bash; mkdir inside; touch 'my model.gguf'; echo READ''Y\n";
static const char start_zsh[] =
    "bindkey -e; unsetopt beep; show() { print; print -r \"LINE[$BUFFER]END\"; }; zle -N show; "
    "bindkey '^G' show; bindkey '^U' kill-whole-line; fpath=($PWD $fpath); "
    "autoload -U compinit; compinit -u -D; "
    "mkdir inside; touch 'my model.gguf'; echo READ''Y\n";

/* A shell, whose Control-g prints the line as it is edited. Files to complete are in `folder`. */
static void terminal_open(struct terminal *t, const char *const *argv, const char *start)
{
    struct winsize size = {.ws_row = 60, .ws_col = 200};
    buf_init(&t->seen, OUTPUT_MAX);
    t->pid = forkpty(&t->fd, NULL, NULL, &size);
    assert_true(t->pid >= 0);
    if (t->pid == 0) {
        if (chdir(folder)) _exit(126);
        setenv("PS1", "> ", 1);
        setenv("TERM", "dumb", 1);
        setenv("INPUTRC", "/dev/null", 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    terminal_type(t, start);
    terminal_await(t, 0, "READY");
}

static void terminal_close(struct terminal *t)
{
    kill(t->pid, SIGKILL);
    waitpid(t->pid, NULL, 0);
    close(t->fd);
    buf_release(&t->seen);
}

/* What is left of the line after a tab, and (before it) what the shell has listed. */
static void complete(struct terminal *t, const char *typed, char ret_line[LINE_BYTES],
                     const char **ret_listed)
{
    size_t from = t->seen.len;
    terminal_type(t, typed);
    terminal_type(t, "\t\a");
    size_t start = (size_t)(terminal_await(t, from, "LINE[") - t->seen.data);
    terminal_await(t, start, "]END");
    const char *line = t->seen.data + start;
    snprintf(ret_line, LINE_BYTES, "%.*s", (int)(strstr(line, "]END") - line), line);
    *ret_listed = t->seen.data + from;
    terminal_type(t, "\x15"); /* the line is cut for the next */
}

static void check_line(struct terminal *t, const char *typed, const char *completed)
{
    char line[LINE_BYTES];
    const char *listed;
    complete(t, typed, line, &listed);
    assert_string_equal(line, completed);
}

static void check_list(struct terminal *t, const char *typed, const char *has, const char *lacks)
{
    char line[LINE_BYTES];
    const char *listed;
    complete(t, typed, line, &listed);
    if (!strstr(listed, has)) fail_msg("\"%s\": no %s in %s", typed, has, listed);
    if (lacks && strstr(listed, lacks)) fail_msg("\"%s\": %s in %s", typed, lacks, listed);
}

static void test_bash_completes(void **state)
{
    struct terminal t;
    (void)state;
    need_program("bash");
    terminal_open(&t, ARGS("bash", "--norc", "--noprofile", "-i"), start_bash);
    check_line(&t, "pdd cha", "pdd chat ");
    check_line(&t, "pdd --ver", "pdd --version ");
    check_line(&t, "pdd cloud k", "pdd cloud key ");
    check_line(&t, "pdd chat --profile iph", "pdd chat --profile iphone17-pro-cpu ");
    check_line(&t, "pdd chat --profile=iph", "pdd chat --profile=iphone17-pro-cpu ");
    check_line(&t, "pdd chat --color ne", "pdd chat --color never ");
    check_line(&t, "pdd model detokenize --he", "pdd model detokenize --help ");
    check_line(&t, "pdd chat --model my", "pdd chat --model my\\ model.gguf ");
    check_line(&t, "pdd model inspect my", "pdd model inspect my\\ model.gguf ");
    check_line(&t, "pdd device --state in", "pdd device --state inside/");
    check_line(&t, "pdd device --state my", "pdd device --state my");
    check_line(&t, "pdd chat --max-tokens my", "pdd chat --max-tokens my");
    check_line(&t, "pdd model random -o my", "pdd model random -o my\\ model.gguf ");
    check_list(&t, "pdd ", "bench", "perplexity");
    check_list(&t, "pdd bench ", "perplexity", "--");
    check_list(&t, "pdd chat --pro", "--profile", "--proxy");
    check_list(&t, "pdd cloud --pr", "--prefix-cache", "--prompt");
    check_list(&t, "pdd model tokenize --", "--no-special", "--render");
    check_line(&t, "pdd chat --model pul", "pdd chat --model pulled-q4 ");
    check_line(&t, "pdd cloud --model=pul", "pdd cloud --model=pulled-q4 ");
    check_line(&t, "pdd model inspect pul", "pdd model inspect pulled-q4 ");
    check_line(&t, "pdd model rm pul", "pdd model rm pulled-q4 ");
    check_line(&t, "pdd model rm my", "pdd model rm my");
    check_line(&t, "pdd chat --model tw", "pdd chat --model two\\ words ");
    check_list(&t, "pdd chat --model ", "my model.gguf", NULL);
    check_list(&t, "pdd chat --model ", "pulled-q4", NULL);
    terminal_close(&t);
}

/* ---- fish and zsh ---- */

static void check_fish(const char *typed, const char *has, const char *lacks)
{
    struct buf out;
    char line[LINE_BYTES];
    snprintf(line, sizeof line,
             "cd %s && fish --no-config -c \"source pdd.fish; complete -C '%s'\"", folder, typed);
    int status = program_shell(line, &out);
    if (status) fail_msg("%s: %s", line, out.data);
    if (!strstr(out.data, has)) fail_msg("\"%s\": no %s in %s", typed, has, out.data);
    if (lacks && strstr(out.data, lacks)) fail_msg("\"%s\": %s in %s", typed, lacks, out.data);
    buf_release(&out);
}

static void test_fish_completes(void **state)
{
    (void)state;
    need_program("fish");
    check_fish("pdd c", "cloud", "perplexity");
    check_fish("pdd cloud ", "key", "cloud\\n");
    check_fish("pdd chat --pro", "--profile", "--proxy");
    check_fish("pdd chat --profile ", "iphone17-pro-cpu", "pdd.fish");
    check_fish("pdd model tokenize --", "--no-special", "--render");
    check_fish("pdd chat --no", "--no-model", NULL);
    check_fish("pdd chat --model ", "pulled-q4", "half");
    check_fish("pdd chat --model ", "data/", NULL);
    check_fish("pdd model inspect pul", "pulled-q4", NULL);
    check_fish("pdd model rm ", "two words", "data/");
    check_fish("pdd model list --na", "--names", NULL);
}

static void test_zsh_completes(void **state)
{
    struct terminal t;
    (void)state;
    need_program("zsh");
    terminal_open(&t, ARGS("zsh", "-f", "-i"), start_zsh);
    check_line(&t, "pdd cha", "pdd chat ");
    check_line(&t, "pdd --ver", "pdd --version ");
    check_line(&t, "pdd cloud k", "pdd cloud key ");
    check_line(&t, "pdd cloud --tls-c", "pdd cloud --tls-cert=");
    check_line(&t, "pdd chat --profile iph", "pdd chat --profile iphone17-pro-cpu ");
    check_line(&t, "pdd chat --profile=iph", "pdd chat --profile=iphone17-pro-cpu ");
    check_line(&t, "pdd chat --model my", "pdd chat --model my\\ model.gguf ");
    check_line(&t, "pdd model inspect my", "pdd model inspect my\\ model.gguf ");
    check_line(&t, "pdd device --state in", "pdd device --state inside/");
    check_list(&t, "pdd bench ", "perplexity", "--");
    check_list(&t, "pdd model tokenize --", "--no-special", "--render");
    check_line(&t, "pdd chat --model pul", "pdd chat --model pulled-q4 ");
    check_line(&t, "pdd chat --model=pul", "pdd chat --model=pulled-q4 ");
    check_line(&t, "pdd model inspect two", "pdd model inspect two\\ words ");
    check_line(&t, "pdd model rm pul", "pdd model rm pulled-q4 ");
    check_line(&t, "pdd model rm my", "pdd model rm my");
    terminal_close(&t);
}

#define WITH_MANUAL(test) cmocka_unit_test_setup_teardown(test, write_manual, remove_manual)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_MANUAL(test_pages_tell_what_help_tells),
        WITH_MANUAL(test_pages_have_their_sections),
        WITH_MANUAL(test_mandoc_has_no_complaint),
        WITH_MANUAL(test_bash_completes),
        WITH_MANUAL(test_fish_completes),
        WITH_MANUAL(test_zsh_completes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
