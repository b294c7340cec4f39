/*
 * test_lib_install: the tree that `cmake --install` makes, moved to another place, and programs of
 * users that are built with it: by pkg-config and by find_package, shared and static, in C and C++.
 *
 * Catches: a file that is not installed; a path of the build in an installed file; a static library
 * that lacks something, or whose names clash with a program's.
 */
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/program.h"

static char dir[] = "/tmp/pdd-install-XXXXXX";

/* A program of a user's, with functions that are called as some of ours. */
static const char program[] =
    "#include <pdd.h>\n"
    "#include <stdio.h>\n"
    "#include <string.h>\n"
    "void buf_init(void); void loop_new(void); void *mem_alloc(void);\n"
    "void buf_init(void) { puts(\"taken\"); }\n"
    "void loop_new(void) { puts(\"taken\"); }\n"
    "void *mem_alloc(void) { puts(\"taken\"); return 0; }\n"
    "int main(void)\n"
    "{\n"
    "    pdd_model_options m = {0};\n"
    "    pdd_device_options d = {0};\n"
    "    pdd_error e;\n"
    "    pdd_model *model;\n"
    "    pdd_device *device;\n"
    "    m.size = sizeof m;\n"
    "    m.path = \"/no/such.gguf\";\n"
    "    d.size = sizeof d;\n"
    "    d.cloud_url = \"http://127.0.0.1:1\";\n"
    "    if (pdd_model_open(&m, &model, &e) != PDD_ERR_NOT_FOUND) return 1;\n"
    "    if (!strstr(e.text, m.path)) return 2;\n"
    "    if (pdd_device_open(&d, &device, &e)) return 3;\n"
    "    pdd_device_close(device);\n"
    "    puts(pdd_version());\n"
    "    return 0;\n"
    "}\n";

static const char cmake_lists[] = "cmake_minimum_required(VERSION 3.20)\n"
                                  "project(user C)\n"
                                  "find_package(pdd 0.1 REQUIRED)\n"
                                  "add_executable(shared app.c)\n"
                                  "target_link_libraries(shared pdd::pdd)\n"
                                  "add_executable(static app.c)\n"
                                  "target_link_libraries(static pdd::static)\n";

static void run(const char *command)
{
    char line[2048];
    struct buf out;
    snprintf(line, sizeof line, "exec 2>&1; set -e; cd %s; %s", dir, command);
    int status = program_shell(line, &out);
    if (status) fail_msg("%s: %d: %s", command, status, out.data);
    buf_release(&out);
}

static void write_text(const char *name, const char *text)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* Installed to one place and moved to another one. */
static int make(void **state)
{
    (void)state;
    const char *bin = getenv("PDD_BIN");
    char copy[512], command[1024];
    assert_non_null(mkdtemp(dir));
    if (!bin || !bin[0] || program_instrumented) return 0;
    snprintf(copy, sizeof copy, "%s", bin);
    snprintf(command, sizeof command,
             "for part in runtime development; do "
             "cmake --install %s --prefix %s/first --component $part; done; mv first tree",
             dirname(copy), dir);
    run(command);
    write_text("app.c", program);
    write_text("CMakeLists.txt", cmake_lists);
    run("find tree -name pkgconfig -printf '%p:' >paths; find tree -name 'libpdd.so*' -printf '%h' "
        "-quit >libdir");
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void need_tree(void)
{
    const char *bin = getenv("PDD_BIN");
    if (!bin || !bin[0] || program_instrumented) skip();
}

static void test_tree(void **state)
{
    (void)state;
    need_tree();
    run("cd tree/include; test -f pdd.h; cd ../..; test -f $(cat libdir)/libpdd.a");
    run("test -L $(cat libdir)/libpdd.so && test -L $(cat libdir)/libpdd.so.0");
    run("! grep -rn -e '" PDD_SOURCE_DIR "' -e $PWD/first tree/include $(cat libdir)/cmake "
        "$(cat libdir)/pkgconfig");
    run("! objdump -p $(cat libdir)/libpdd.so | grep -E 'RPATH|RUNPATH|TEXTREL'");
}

static void test_pkg_config(void **state)
{
    (void)state;
    need_tree();
    run("export PKG_CONFIG_PATH=$(cat paths); "
        "cc -std=c99 -Wall -Wextra -pedantic -Werror app.c -o shared "
        "$(pkg-config --cflags --libs pdd); "
        "ldd shared | grep -q libpdd || test -n \"$(objdump -p shared | grep libpdd.so.0)\"; "
        "LD_LIBRARY_PATH=$(cat libdir) ./shared | grep -x " PDD_VERSION "");
    run("export PKG_CONFIG_PATH=$(cat paths); cc app.c -o static "
        "$(pkg-config --cflags --libs pdd-static); ! objdump -p static | grep libpdd; "
        "./static | grep -x " PDD_VERSION "");
    run("export PKG_CONFIG_PATH=$(cat paths); test $(pkg-config --modversion pdd) = " PDD_VERSION);
}

static void test_cxx(void **state)
{
    (void)state;
    need_tree();
    if (system("command -v c++ >/dev/null")) skip();
    run("export PKG_CONFIG_PATH=$(cat paths); cp app.c app.cpp; for std in c++98 c++20; do "
        "c++ -std=$std -Wall -Wextra -pedantic -Werror -Wno-missing-field-initializers app.cpp "
        "-o cxx $(pkg-config --cflags --libs pdd); "
        "LD_LIBRARY_PATH=$(cat libdir) ./cxx | grep -x " PDD_VERSION "; done");
}

static void test_find_package(void **state)
{
    (void)state;
    need_tree();
    run("cmake -S . -B build -DCMAKE_PREFIX_PATH=$PWD/tree >log || { cat log; exit 1; }; "
        "cmake --build build >log || { cat log; exit 1; }; "
        "build/shared | grep -x " PDD_VERSION "; build/static | grep -x " PDD_VERSION "; "
        "! objdump -p build/static | grep libpdd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_pkg_config),
        cmocka_unit_test(test_cxx),
        cmocka_unit_test(test_find_package),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
