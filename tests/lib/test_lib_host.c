/*
 * test_lib_host: what libpdd does to the process it is a guest of: nothing. Signals, SIGPIPE,
 * locale, standard streams, and clouds with TLS that die in the middle.
 *
 * Catches: a signal handler or an ignored signal left behind; a program killed by SIGPIPE; a thread
 * that takes the program's signals; JSON with decimal commas; a line on standard error; a
 * certificate that is not checked.
 */
#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/lib_device.h"

#include <jansson.h>

#include "lib/lib_impl.h"
#include "support/program.h"
#include "support/tls_files.h"

enum { ENDLESS = 1 << 20, SIGNALS = 65 };

/* Answers are made by a fake engine in a process of its own. */
struct cloud {
    struct program program;
    struct tls_files tls;
    char url[96];
};

static void cloud_start(struct cloud *c, bool tls, const char *tokens)
{
    char port[64];
    tls_files_make(TLS_FILES_ECDSA, &c->tls);
    if (tls)
        program_start(&c->program, "cloud",
                      ARGS("--fake", tokens, "--listen", "127.0.0.1:0", "--log-level", "error",
                           "--tls-cert", c->tls.cert, "--tls-key", c->tls.key));
    else
        program_start(&c->program, "cloud",
                      ARGS("--fake", tokens, "--listen", "127.0.0.1:0", "--log-level", "error"));
    program_line_after(&c->program, "127.0.0.1:", port, sizeof port);
    snprintf(c->url, sizeof c->url, "%s://127.0.0.1:%s", tls ? "https" : "http", port);
}

static void cloud_stop(struct cloud *c)
{
    program_kill(&c->program, SIGKILL);
    tls_files_remove(&c->tls);
}

static pdd_device *open_with(const struct cloud *c, pdd_model *model, bool trusts)
{
    pdd_device_options o = {.size = sizeof o, .model = model, .cloud_url = c->url};
    pdd_device *device;
    pdd_error error;
    if (trusts) o.cloud_ca_file = c->tls.cert;
    if (pdd_device_open(&o, &device, &error)) fail_msg("%s", error.text);
    return device;
}

static int kill_cloud(void *arg, const char *text, size_t length, const pdd_token *token)
{
    struct cloud *c = arg;
    (void)text, (void)length;
    if (token->index == 1) kill(c->program.pid, SIGKILL);
    return 0;
}

/* With http and https: an answer, one whose cloud dies, and closing after that. */
static void test_clouds(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        struct cloud c;
        struct gathered g;
        pdd_error error;
        pdd_answer *a;
        cloud_start(&c, tls, "12");
        pdd_device *device = open_with(&c, NULL, tls);
        pdd_question q = gather(&g, "Where is it?");
        if (pdd_ask(device, &q, &a, &error)) fail_msg("%s", error.text);
        assert_int_equal(report_of(a).cloud_tokens, 12);
        assert_true(g.text.len > 0);
        pdd_answer_free(a);
        pdd_device_close(device);
        cloud_stop(&c);
        buf_release(&g.text);

        struct fake_options o = {.answer_tokens = 200, .step_us = 200};
        pdd_model *model = fake_model(&o);
        cloud_start(&c, tls, "200");
        device = open_with(&c, model, tls);
        q = (pdd_question){.size = sizeof q, .text = "Where is it?", .tokens_max = 200};
        q.cloud_tokens = 150;
        q.on_text = kill_cloud;
        q.arg = &c;
        if (pdd_ask(device, &q, &a, &error)) fail_msg("%s", error.text);
        pdd_report r = report_of(a);
        assert_int_equal(r.tokens, 200);
        pdd_answer_free(a);
        pdd_device_close(device);
        pdd_model_close(model);
        cloud_stop(&c);
    }
}

/* A stranger's certificate, and a wrong key. */
static void test_refusals(void **state)
{
    (void)state;
    struct cloud c;
    pdd_error error;
    cloud_start(&c, true, "12");
    pdd_device *device = open_with(&c, NULL, false);
    pdd_question q = {.size = sizeof q, .text = "x"};
    int code = pdd_ask(device, &q, NULL, &error);
    if (code >= 0 || !strstr(error.text, "certificate")) fail_msg("%d: %s", code, error.text);
    pdd_device_close(device);
    cloud_stop(&c);
}

/* ---- signals ---- */

static void take_signals(struct sigaction *actions)
{
    for (int s = 1; s < SIGNALS; s++)
        if (sigaction(s, NULL, &actions[s])) actions[s].sa_handler = SIG_DFL;
}

/* SigBlk of a thread of this process. */
static unsigned long long blocked_of(const char *thread)
{
    char path[320], line[256];
    unsigned long long mask = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", thread);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "SigBlk:", 7) == 0) mask = strtoull(line + 7, NULL, 16);
    if (f) fclose(f);
    return mask;
}

/* How many threads there are besides this one, each of which must block what a program handles. A
 * sanitizer has one of its own, which was there before. */
static uint32_t check_threads(void)
{
    static const int handled[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGPIPE, SIGALRM,
                                  SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD};
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/task");
    assert_non_null(d);
    for (struct dirent *t; (t = readdir(d)) != NULL;) {
        if (t->d_name[0] == '.' || strtol(t->d_name, NULL, 10) == getpid()) continue;
        n++;
        for (size_t i = 0; i < sizeof handled / sizeof *handled; i++)
            if (!(blocked_of(t->d_name) >> (handled[i] - 1) & 1))
                fail_msg("a thread takes signal %d", handled[i]);
    }
    closedir(d);
    return n;
}

/* A write of ours to a socket that is gone raises nothing in the program's thread, but a signal
 * that waited there before stays. */
static void test_guard(void **state)
{
    (void)state;
    struct lib_guard guard;
    sigset_t pipe_set, pending;
    int fds[2];
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    for (int waits = 0; waits < 2; waits++) {
        assert_int_equal(pipe(fds), 0);
        close(fds[0]);
        if (waits) pthread_sigmask(SIG_BLOCK, &pipe_set, NULL);
        if (waits) raise(SIGPIPE);
        lib_guard_enter(&guard);
        assert_int_equal(write(fds[1], "x", 1), -1);
        lib_guard_leave(&guard);
        close(fds[1]);
        sigpending(&pending);
        assert_int_equal(sigismember(&pending, SIGPIPE), waits);
    }
    signal(SIGPIPE, SIG_IGN); /* discards it */
    pthread_sigmask(SIG_UNBLOCK, &pipe_set, NULL);
    signal(SIGPIPE, SIG_DFL);
}

/* Actions and mask stay, and no thread of the library takes what the program handles. */
static void test_signals(void **state)
{
    (void)state;
    static struct sigaction before[SIGNALS], after[SIGNALS];
    struct cloud c;
    sigset_t mask_before, mask_after;
    struct gathered g;
    cloud_start(&c, false, "60");
    signal(SIGPIPE, SIG_DFL);
    take_signals(before);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
    struct fake_options o = {.answer_tokens = 60, .step_us = 300};
    pdd_model *model = fake_model(&o);
    pdd_device *device = open_with(&c, model, false);
    pdd_question q = gather(&g, "Where is it?");
    pdd_answer *a;
    assert_int_equal(pdd_ask_begin(device, &q, &a, NULL), 0);
    assert_true(check_threads() >= 2); /* loop and engine */
    assert_int_equal(pdd_answer_wait(a, -1, NULL), 0);
    take_signals(after);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    pdd_answer_free(a);
    pdd_device_close(device);
    pdd_model_close(model);
    for (int s = 1; s < SIGNALS; s++)
        if (before[s].sa_handler != after[s].sa_handler) fail_msg("the action of signal %d", s);
    for (int s = 1; s < SIGNALS; s++)
        assert_int_equal(sigismember(&mask_before, s), sigismember(&mask_after, s));
    cloud_stop(&c);
    buf_release(&g.text);
}

/* ---- locale ---- */

/* German numbers, made on the spot where the system has none. */
static bool set_german(char *dir)
{
    char command[160];
    if (setlocale(LC_ALL, "de_DE.UTF-8")) return true;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1",
             dir);
    if (system(command)) return false;
    setenv("LOCPATH", dir, 1);
    return setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
}

static void test_locale(void **state)
{
    (void)state;
    char dir[] = "/tmp/pdd-locale-XXXXXX", text[32], command[64];
    struct cloud c;
    struct gathered g;
    const char *json;
    size_t n;
    assert_non_null(mkdtemp(dir));
    bool german = set_german(dir);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    if (!german) skip();
    cloud_start(&c, false, "12");
    pdd_device *device = open_with(&c, NULL, false);
    pdd_question q = gather(&g, "Where is it?");
    pdd_answer *a;
    pdd_error error;
    q.temperature = 0.75f; /* a request with "0,75" is no JSON */
    if (pdd_ask(device, &q, &a, &error)) fail_msg("%s", error.text);
    assert_int_equal(pdd_answer_json(a, &json, &n, NULL), 0);
    json_t *j = json_loadb(json, n, 0, NULL);
    assert_non_null(j);
    json_decref(j);
    snprintf(text, sizeof text, "%.2f", 0.75);
    assert_string_equal(text, "0,75"); /* the program's own are as they were */
    pdd_answer_free(a);
    pdd_device_close(device);
    cloud_stop(&c);
    buf_release(&g.text);
    setlocale(LC_ALL, "C");
}

/* ---- standard streams ---- */

/* Whatever goes wrong, nothing is printed. */
static void test_silence(void **state)
{
    (void)state;
    char path[] = "/tmp/pdd-streams-XXXXXX";
    int file = mkstemp(path), out = dup(1), err = dup(2);
    struct stat st;
    unlink(path);
    fflush(stdout);
    dup2(file, 1);
    dup2(file, 2);
    struct fake_options o = {.answer_tokens = 60, .step_us = 300, .fail_at_step = 9};
    pdd_model_options m = {.size = sizeof m, .path = "/dev/null"};
    pdd_model *model = fake_model(&o), *none;
    int refused = pdd_model_open(&m, &none, NULL);
    pdd_device *device = open_device(model, "http://127.0.0.1:1");
    pdd_question q = {.size = sizeof q, .text = "x"};
    int failed = pdd_ask(device, &q, NULL, NULL);
    pdd_device_close(device);
    pdd_model_close(model);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    assert_int_equal(fstat(file, &st), 0);
    close(file);
    assert_true(refused < 0 && failed < 0);
    assert_int_equal(st.st_size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clouds),  cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_signals), cmocka_unit_test(test_locale),
        cmocka_unit_test(test_silence), cmocka_unit_test(test_guard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
