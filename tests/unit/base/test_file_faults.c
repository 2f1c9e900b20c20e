/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault loop over file_replace: every call of it fails, tears or is the last one of the
 * process, and the file holds the old or the new bytes, never a mixture and never nothing.
 */
#include "check.h"

#include "base/files.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define OLD S("the old content, which is long enough to be torn in two")
#define NEW S("the new content")

static char dir[] = "/tmp/weir-faults-XXXXXX";
static char path[64];

static const char *const op_names[] = {"open", "read", "write", "sync", "rename", "any"};

/* 0: old, 1: new, -1: anything else. Faults are off. */
static int content(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct err e;
    str bytes;

    file_test_fault(FILE_OP_ANY, -1, FILE_FAULT_ERRNO, 0, false);
    if (file_read_all(path, 1000, &a, &bytes, &e))
        return -1;
    return str_eq(bytes, OLD) ? 0 : str_eq(bytes, NEW) ? 1 : -1;
}

static size_t files_in_dir(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct err e;
    str *names;
    size_t n = 0;

    return file_list(dir, &a, &names, &n, &e) ? SIZE_MAX : n;
}

static bool start_with_old(void)
{
    struct err e;

    file_test_fault(FILE_OP_ANY, -1, FILE_FAULT_ERRNO, 0, false);
    return file_replace(path, OLD, &e) == 0 && content() == 0;
}

/* Fails the k-th call of one kind; returns true when the replacement came that far. */
static bool fail_once(enum file_op op, int64_t k, enum file_fault fault, bool sticky)
{
    struct err e;
    int rc, held;

    if (!CHECK(start_with_old()))
        return false;
    file_test_fault(op, k, fault, ENOSPC, sticky);
    rc = file_replace(path, NEW, &e);
    held = content();
    CHECK(held >= 0);
    CHECK(rc != 0 || held == 1);
    if (rc) {
        CHECK_INT(rc, CODE_RESOURCE_EXHAUSTED);
        CHECK(strstr(e.msg, dir) && strstr(e.msg, "No space left"));
    }
    CHECK_INT(files_in_dir(), 1); /* no temporary file stays behind */
    return rc != 0;
}

static void test_every_failure(void)
{
    int64_t calls = 0;

    for (int op = FILE_OP_OPEN; op <= FILE_OP_ANY; op++)
        for (int fault = FILE_FAULT_ERRNO; fault <= FILE_FAULT_TEAR; fault++)
            for (int sticky = 0; sticky < 2; sticky++) {
                int64_t k = 0;

                while (fail_once((enum file_op)op, k, (enum file_fault)fault, sticky))
                    NEED(++k < 20);
                if (op == FILE_OP_ANY)
                    calls = k;
                else
                    CHECK(k == (op == FILE_OP_READ                            ? 0
                                : op == FILE_OP_WRITE || op == FILE_OP_RENAME ? 1
                                                                              : 2));
            }
    CHECK_INT(calls, 6); /* open, write, sync, rename, open of the folder, its sync */
}

/* In a child that is killed at the k-th call; true when it was killed. */
static bool kill_once(enum file_op op, int64_t k)
{
    int status;
    pid_t pid;

    if (!CHECK(start_with_old()))
        return false;
    pid = fork();
    if (pid == 0) {
        struct err e;

        file_test_fault(op, k, FILE_FAULT_KILL, 0, false);
        _exit(file_replace(path, NEW, &e) ? 9 : 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(content() >= 0);
    if (WIFSIGNALED(status)) {
        CHECK_INT(WTERMSIG(status), SIGKILL);
        return true;
    }
    CHECK_INT(status, 0);
    CHECK_INT(content(), 1);
    return false;
}

static void test_every_kill(void)
{
    for (int op = FILE_OP_OPEN; op <= FILE_OP_ANY; op++) {
        int64_t k = 0;

        while (kill_once((enum file_op)op, k))
            NEED(++k < 20);
        CHECK(op != FILE_OP_ANY || k == 6);
    }
}

static void test_tear_leaves_a_part(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(file_closep) int fd = -1;
    char torn[80];
    struct err e;
    str bytes;

    snprintf(torn, sizeof(torn), "%s/torn", dir);
    NEED_OK(file_open(torn, FILE_CREATE, &fd, &e), &e);
    file_test_fault(FILE_OP_WRITE, 1, FILE_FAULT_TEAR, EIO, false);
    CHECK_OK(file_write_all(fd, "12345678", 8, &e), &e);
    CHECK_FAILS(file_write_all(fd, "abcdefgh", 8, &e), DATA_LOSS, &e, "torn");
    CHECK_OK(file_write_all(fd, "ABCD", 4, &e), &e); /* once, not sticky */
    NEED_OK(file_read_all(torn, 100, &a, &bytes, &e), &e);
    CHECK_STR(bytes, S("12345678abcdABCD"));
    file_test_fault(FILE_OP_WRITE, 0, FILE_FAULT_TEAR, EIO, true);
    CHECK_FAILS(file_pwrite_all(fd, "xyz", 3, 0, &e), DATA_LOSS, &e, "torn");
    CHECK_FAILS(file_truncate(fd, 0, &e), DATA_LOSS, &e, "torn");
    file_test_fault(FILE_OP_ANY, -1, FILE_FAULT_ERRNO, 0, false);
    CHECK_OK(file_remove(torn, &e), &e);
}

static void test_reads_fail_too(void)
{
    AUTO(arena_done) struct arena a = {0};
    struct err e;
    str bytes = S("untouched"), *names;
    size_t n;

    NEED(start_with_old());
    file_test_fault(FILE_OP_READ, 0, FILE_FAULT_ERRNO, EIO, false);
    CHECK_FAILS(file_read_all(path, 1000, &a, &bytes, &e), DATA_LOSS, &e, path);
    CHECK_STR(bytes, S("untouched"));
    file_test_fault(FILE_OP_OPEN, 0, FILE_FAULT_ERRNO, EMFILE, true);
    CHECK_FAILS(file_list(dir, &a, &names, &n, &e), RESOURCE_EXHAUSTED, &e, dir);
    file_test_fault(FILE_OP_RENAME, 0, FILE_FAULT_ERRNO, EACCES, true);
    CHECK_FAILS(file_remove(path, &e), PERMISSION_DENIED, &e, path);
    CHECK_FAILS(file_make_dirs("/tmp/weir-never-made", &e), PERMISSION_DENIED, &e, "never-made");
    CHECK_INT(content(), 0);
}

/* Runs this program again with the variable set; gives its wait status. */
static int run_with_env(const char *value)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        setenv("WEIR_FILE_FAULT", value, 1);
        freopen("/dev/null", "w", stderr);
        execl("/proc/self/exe", "test_file_faults", "--replace", path, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return status;
}

static void test_environment(void)
{
    static const char *const wrong[] = {"sync",          "sync:x:kill",         "fsync:0:kill",
                                        "sync:0:die",    "sync:0:errno:EWRONG", "sync:-1:kill",
                                        "sync:0:errno:0"};

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        int status = run_with_env(wrong[i]);

        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 2);
    }
    NEED(start_with_old());
    CHECK_INT(run_with_env("sync:0:errno:ENOSPC"), CODE_RESOURCE_EXHAUSTED << 8);
    CHECK_INT(content(), 0);
    CHECK_INT(run_with_env("any:2:errno:13:sticky"), CODE_PERMISSION_DENIED << 8);
    CHECK_INT(content(), 0);
    for (size_t i = 0; i < ARRAY_LEN(op_names); i++) {
        char value[32];

        NEED(start_with_old());
        snprintf(value, sizeof(value), "%s:0:kill", op_names[i]);
        CHECK_INT(run_with_env(value), strcmp(op_names[i], "read") == 0 ? 0 : SIGKILL);
        CHECK(content() >= 0);
    }
    CHECK_INT(run_with_env(""), 0);
    CHECK_INT(content(), 1);
}

int main(int argc, char **argv)
{
    static const struct check_test tests[] = {T(test_every_failure), T(test_every_kill),
                                              T(test_tear_leaves_a_part), T(test_reads_fail_too),
                                              T(test_environment)};
    char command[64];
    struct err e;
    int rc;

    if (argc == 3 && !strcmp(argv[1], "--replace"))
        return file_replace(argv[2], NEW, &e);
    if (!check_mkdtemp(dir))
        return EXIT_FAILURE;
    snprintf(path, sizeof(path), "%s/file", dir);
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) ? EXIT_FAILURE : rc;
}
