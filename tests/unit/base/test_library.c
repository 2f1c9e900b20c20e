/* SPDX-License-Identifier: Apache-2.0 */
/* Any library of the system serves: what is tested is which file is opened, and what is said. */
#include "check.h"

#include "base/files.h"
#include "base/library.h"

#include <dlfcn.h>
#include <unistd.h>

static char dir[] = "/tmp/weir-library-XXXXXX";
static struct arena arena;
static const char *const names[] = {"libweir-none.so", "libweir-test.so", NULL};

/* The file of the C library's mathematics, which is linked anyway. */
static const char *real_library(void)
{
    Dl_info info;
    double (*volatile fn)(double) = cos;
    void *address;

    memcpy(&address, (void *)&fn, sizeof address);
    return dladdr(address, &info) ? info.dli_fname : NULL;
}

static void test_not_found(void)
{
    void *lib = NULL;
    struct err e;

    unsetenv("WEIR_DEPS_LIB");
    CHECK_FAILS(library_open("the engine", names, &lib, &e), UNAVAILABLE, &e,
                "the engine (libweir-none.so) was not found: run scripts/bootstrap");
    setenv("WEIR_DEPS_LIB", dir, 1);
    CHECK_FAILS(library_open("the engine", names, &lib, &e), UNAVAILABLE, &e, dir);
    CHECK(!lib);
}

static void test_broken_file_is_told(void)
{
    const char *path = path_join(&arena, dir, names[1]);
    void *lib = NULL;
    struct err e;

    setenv("WEIR_DEPS_LIB", dir, 1);
    NEED_OK(file_replace(path, S("no ELF file"), &e), &e);
    CHECK_FAILS(library_open("the engine", names, &lib, &e), UNAVAILABLE, &e, path);
    CHECK(!lib);
    CHECK_OK(file_remove(path, &e), &e);
}

static void test_folder_of_the_environment(void)
{
    const char *path = path_join(&arena, dir, names[1]), *real = real_library();
    void *lib = NULL;
    struct err e;

    NEED(real);
    NEED(symlink(real, path) == 0);
    setenv("WEIR_DEPS_LIB", dir, 1);
    NEED_OK(library_open("the engine", names, &lib, &e), &e);
    CHECK(library_symbol(lib, "cos"));
    CHECK(!library_symbol(lib, "weir_has_no_such_function"));
    CHECK_OK(file_remove(path, &e), &e);
}

static void test_system(void)
{
    static const char *const system_names[] = {"libweir-none.so", "libm.so.6", NULL};
    void *lib = NULL;
    struct err e;

    unsetenv("WEIR_DEPS_LIB");
    NEED_OK(library_open("mathematics", system_names, &lib, &e), &e);
    CHECK(library_symbol(lib, "cos"));
}

static void test_env(void)
{
    unsetenv("WEIR_DEPS_LIB");
    CHECK(!library_env(&arena));
    setenv("WEIR_DEPS_LIB", "/opt/engines", 1);
    CHECK_STR(str_of(library_env(&arena)), S("WEIR_DEPS_LIB=/opt/engines"));
}

static int run_all(int argc, char **argv)
{
    static const struct check_test tests[] = {T(test_not_found), T(test_broken_file_is_told),
                                              T(test_folder_of_the_environment), T(test_system),
                                              T(test_env)};

    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}

int main(int argc, char **argv)
{
    int rc;

    if (!check_mkdtemp(dir))
        return EXIT_FAILURE;
    arena_init(&arena, 0);
    rc = run_all(argc, argv);
    arena_done(&arena);
    return rc;
}
