/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The unit-test harness: a test is a void function; CHECK records a failure and goes on, NEED
 * returns from the test. main() is `RUN_TESTS(test_a, test_b)`; a name as argument runs that test
 * alone.
 */
#pragma once

#include "base/str.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static UNUSED int check_failures;
static UNUSED int check_count;

#define CHECK(cond) check_that((cond), #cond, __FILE__, __LINE__)
/* Where the test must not come. */
#define CHECK_NEVER(text) check_that(false, (text), __FILE__, __LINE__)
#define NEED(cond)        \
    do {                  \
        if (!CHECK(cond)) \
            return;       \
    } while (0)
#define CHECK_STR(got, want) check_str((got), (want), #got, __FILE__, __LINE__)
#define CHECK_INT(got, want) check_int((int64_t)(got), (int64_t)(want), #got, __FILE__, __LINE__)
#define CHECK_NEAR(got, want, tolerance) \
    check_near((double)(got), (double)(want), (double)(tolerance), #got, __FILE__, __LINE__)
/* The call succeeds; else its message is shown. */
#define CHECK_OK(call, e) check_ok((call), (e), #call, __FILE__, __LINE__)
#define NEED_OK(call, e)                                       \
    do {                                                       \
        if (!check_ok((call), (e), #call, __FILE__, __LINE__)) \
            return;                                            \
    } while (0)
/* The call fails with this code and a message that holds `part`. */
#define CHECK_FAILS(call, want, e, part) \
    check_fails((call), CODE_##want, (e), (part), #call, __FILE__, __LINE__)

static inline UNUSED bool check_that(bool ok, const char *what, const char *file, int line)
{
    __atomic_add_fetch(&check_count, 1, __ATOMIC_RELAXED); /* threads of a test may check too */
    if (!ok) {
        __atomic_add_fetch(&check_failures, 1, __ATOMIC_RELAXED);
        fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    }
    return ok;
}

static inline UNUSED bool check_str(str got, str want, const char *what, const char *file, int line)
{
    bool ok = check_that(str_eq(got, want), what, file, line);

    if (!ok)
        fprintf(stderr, "    got  \"" STR_F "\"\n    want \"" STR_F "\"\n", STR_A(got),
                STR_A(want));
    return ok;
}

static inline UNUSED bool check_int(int64_t got, int64_t want, const char *what, const char *file,
                                    int line)
{
    bool ok = check_that(got == want, what, file, line);

    if (!ok)
        fprintf(stderr, "    got %lld, want %lld\n", (long long)got, (long long)want);
    return ok;
}

static inline UNUSED bool check_near(double got, double want, double tolerance, const char *what,
                                     const char *file, int line)
{
    bool ok = check_that(fabs(got - want) <= tolerance, what, file, line);

    if (!ok)
        fprintf(stderr, "    got %.17g, want %.17g within %g\n", got, want, tolerance);
    return ok;
}

static inline UNUSED bool check_ok(int rc, const struct err *e, const char *what, const char *file,
                                   int line)
{
    bool ok = check_that(rc == 0, what, file, line);

    if (!ok)
        fprintf(stderr, "    %s: %s (%s)\n", code_name((enum code)rc), e->msg, e->at);
    return ok;
}

static inline UNUSED bool check_fails(int rc, enum code want, const struct err *e, const char *part,
                                      const char *what, const char *file, int line)
{
    bool ok = check_that(rc == (int)want && strstr(e->msg, part), what, file, line);

    if (!ok)
        fprintf(stderr, "    got %s \"%s\", want %s with \"%s\"\n", code_name((enum code)rc),
                rc ? e->msg : "", code_name(want), part);
    return ok;
}

/* --- Folders ---------------------------------------------------------------------------------- */

#define CHECK_FOLDERS_MAX 512

static UNUSED char check_folders[CHECK_FOLDERS_MAX][128];
static UNUSED size_t check_folder_count;

/* mkdtemp(); the folder and all in it are removed when the tests are over. Main thread. */
static inline UNUSED char *check_mkdtemp(char *path)
{
    if (!mkdtemp(path))
        return NULL;
    if (check_folder_count < CHECK_FOLDERS_MAX)
        snprintf(check_folders[check_folder_count++], sizeof(check_folders[0]), "%s", path);
    return path;
}

static inline int check_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    (void)remove(path);
    return 0;
}

static inline UNUSED void check_remove_folders(void)
{
    for (size_t i = 0; i < check_folder_count; i++)
        (void)nftw(check_folders[i], check_remove, 16, FTW_DEPTH | FTW_PHYS);
}

struct check_test {
    const char *name;
    void (*fn)(void);
};

static inline UNUSED int check_run(const struct check_test *tests, size_t n, const char *only)
{
    int passed = 0, failed = 0;

    for (size_t i = 0; i < n; i++) {
        int before = check_failures;

        if (only && strcmp(only, tests[i].name) != 0)
            continue;
        tests[i].fn();
        if (check_failures == before) {
            passed++;
        } else {
            failed++;
            fprintf(stderr, "FAILED %s\n", tests[i].name);
        }
    }
    check_remove_folders();
    printf("%d passed, %d failed (%d checks)\n", passed, failed, check_count);
    return failed || passed == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* int main with the written list of tests: RUN_TESTS({"name", fn}, ...) via T(fn). */
#define T(fn)   \
    {           \
#fn, fn \
    }
#define RUN_TESTS(...)                                                        \
    int main(int argc, char **argv)                                           \
    {                                                                         \
        static const struct check_test tests[] = {__VA_ARGS__};               \
        return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL); \
    }
