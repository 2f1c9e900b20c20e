/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/weir-files-XXXXXX";
static struct arena arena;

static const char *in_dir(const char *name)
{
    return path_join(&arena, dir, name);
}

static void test_modes(void)
{
    AUTO(file_closep) int fd = -1;
    const char *path = in_dir("modes");
    struct err e;
    str bytes;

    CHECK_FAILS(file_open(path, FILE_READ, &fd, &e), NOT_FOUND, &e, path);
    CHECK(fd == -1);
    NEED_OK(file_open(path, FILE_EXCLUSIVE, &fd, &e), &e);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    NEED_OK(file_write_all(fd, "abc", 3, &e), &e);
    file_closep(&fd);
    CHECK_FAILS(file_open(path, FILE_EXCLUSIVE, &fd, &e), ALREADY_EXISTS, &e, path);
    NEED_OK(file_open(path, FILE_APPEND, &fd, &e), &e);
    NEED_OK(file_write_all(fd, "def", 3, &e), &e);
    file_closep(&fd);
    NEED_OK(file_open(path, FILE_CREATE, &fd, &e), &e);
    NEED_OK(file_pwrite_all(fd, "X", 1, 1, &e), &e);
    NEED_OK(file_sync(fd, &e), &e);
    file_closep(&fd);
    NEED_OK(file_read_all(path, 100, &arena, &bytes, &e), &e);
    CHECK_STR(bytes, S("aXcdef"));
    CHECK(file_exists(path) && !file_exists(in_dir("nothing")));
}

static void test_positions_and_sizes(void)
{
    AUTO(file_closep) int fd = -1;
    char bytes[16];
    uint64_t size;
    struct err e;
    size_t n;

    NEED_OK(file_open(in_dir("sizes"), FILE_CREATE, &fd, &e), &e);
    NEED_OK(file_pwrite_all(fd, "0123456789", 10, 0, &e), &e);
    NEED_OK(file_pread(fd, bytes, 4, 3, &n, &e), &e);
    CHECK_STR(((str){bytes, n}), S("3456"));
    NEED_OK(file_pread(fd, bytes, 16, 8, &n, &e), &e);
    CHECK_STR(((str){bytes, n}), S("89"));
    NEED_OK(file_pread(fd, bytes, 16, 50, &n, &e), &e);
    CHECK_INT(n, 0);
    NEED_OK(file_truncate(fd, 5, &e), &e);
    NEED_OK(file_size(fd, &size, &e), &e);
    CHECK_INT(size, 5);
    file_closep(&fd);
    CHECK_FAILS(file_write_all(fd, "x", 1, &e), UNKNOWN, &e, "write to descriptor -1");
    NEED_OK(file_open(in_dir("sizes"), FILE_READ, &fd, &e), &e);
    CHECK_FAILS(file_write_all(fd, "x", 1, &e), UNKNOWN, &e, in_dir("sizes"));
}

static void test_read_all(void)
{
    static char bytes[10000];
    AUTO(arena_done) struct arena small;
    struct err e;
    str got;

    memset(bytes, 'b', sizeof(bytes));
    NEED_OK(file_replace(in_dir("all"), (str){bytes, sizeof(bytes)}, &e), &e);
    NEED_OK(file_read_all(in_dir("all"), sizeof(bytes), &arena, &got, &e), &e);
    CHECK(got.n == sizeof(bytes) && got.p[got.n] == '\0' && !memcmp(got.p, bytes, got.n));
    CHECK_FAILS(file_read_all(in_dir("all"), 9999, &arena, &got, &e), RESOURCE_EXHAUSTED, &e,
                "10000 bytes, at most 9999");
    arena_init(&small, 5000);
    CHECK_FAILS(file_read_all(in_dir("all"), 1 << 20, &small, &got, &e), RESOURCE_EXHAUSTED, &e,
                "memory");
    NEED_OK(file_replace(in_dir("all"), STR_NULL, &e), &e);
    NEED_OK(file_read_all(in_dir("all"), 0, &arena, &got, &e), &e);
    CHECK(got.n == 0 && got.p[0] == '\0');
    /* a file that says it has no bytes, and has some */
    NEED_OK(file_read_all("/proc/self/status", 1 << 20, &arena, &got, &e), &e);
    CHECK(str_starts(got, S("Name:")));
    CHECK_FAILS(file_read_all("/proc/self/status", 10, &arena, &got, &e), RESOURCE_EXHAUSTED, &e,
                "more than the 10 bytes");
    CHECK_FAILS(file_read_all(dir, 10000, &arena, &got, &e), INVALID_ARGUMENT, &e, dir);
}

static void test_names(void)
{
    const char *deep = in_dir("a/b/c");
    struct err e;
    str *names;
    size_t n;

    NEED_OK(file_make_dirs(deep, &e), &e);
    NEED_OK(file_make_dirs(deep, &e), &e);
    NEED_OK(file_make_dirs(in_dir("a/b/c/"), &e), &e);
    NEED_OK(file_replace(in_dir("a/b/c/2"), S("two"), &e), &e);
    NEED_OK(file_replace(in_dir("a/b/c/10"), S("ten"), &e), &e);
    NEED_OK(file_replace(in_dir("a/b/c/.hidden"), S("dot"), &e), &e);
    NEED_OK(file_list(deep, &arena, &names, &n, &e), &e);
    NEED(n == 3);
    CHECK_STR(names[0], S(".hidden"));
    CHECK_STR(names[1], S("10"));
    CHECK_STR(names[2], S("2"));
    CHECK(names[2].p[1] == '\0');
    CHECK_FAILS(file_make_dirs(in_dir("a/b/c/2/d"), &e), ALREADY_EXISTS, &e, "not a folder");
    CHECK_FAILS(file_make_dirs("", &e), INVALID_ARGUMENT, &e, "empty");
    NEED_OK(file_rename(in_dir("a/b/c/2"), in_dir("a/two"), &e), &e);
    CHECK(file_exists(in_dir("a/two")) && !file_exists(in_dir("a/b/c/2")));
    CHECK_FAILS(file_rename(in_dir("a/none"), in_dir("a/two"), &e), NOT_FOUND, &e, "none");
    NEED_OK(file_remove(in_dir("a/two"), &e), &e);
    NEED_OK(file_remove(in_dir("a/two"), &e), &e);
    NEED_OK(file_sync_dir(deep, &e), &e);
    CHECK_FAILS(file_list(in_dir("none"), &arena, &names, &n, &e), NOT_FOUND, &e, "none");
    CHECK_STR(str_of(path_join(&arena, "a/", "b")), S("a/b"));
    CHECK_STR(str_of(path_join(&arena, "a", "b")), S("a/b"));
    CHECK_STR(str_of(path_join(&arena, "", "b")), S("b"));
}

static void test_many_names(void)
{
    const char *many = in_dir("many");
    AUTO(arena_done) struct arena small;
    struct err e;
    str *names;
    size_t n;

    NEED_OK(file_make_dirs(many, &e), &e);
    for (int i = 0; i < 300; i++) {
        AUTO(file_closep) int fd = -1;

        NEED_OK(file_open(arena_printf(&arena, "%s/%03d", many, i).p, FILE_CREATE, &fd, &e), &e);
    }
    NEED_OK(file_list(many, &arena, &names, &n, &e), &e);
    CHECK_INT(n, 300);
    for (size_t i = 0; i < n; i++)
        CHECK(str_eq(names[i], arena_printf(&arena, "%03zu", i)));
    arena_init(&small, 3000);
    CHECK_FAILS(file_list(many, &small, &names, &n, &e), RESOURCE_EXHAUSTED, &e, many);
}

static void test_lock(void)
{
    AUTO(file_closep) int fd = -1;
    const char *path = in_dir("lock");
    char mine[32];
    int other = -1, status;
    struct err e;
    pid_t pid;

    NEED_OK(file_lock(path, &fd, &e), &e);
    snprintf(mine, sizeof(mine), "by process %d;", (int)getpid());
    CHECK_FAILS(file_lock(path, &other, &e), UNAVAILABLE, &e, mine);
    file_closep(&fd);
    NEED_OK(file_lock(path, &fd, &e), &e);
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        close(fd);
        _exit(file_lock(path, &other, &e) == CODE_UNAVAILABLE ? 0 : 1);
    }
    NEED(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
    file_closep(&fd);
    NEED_OK(file_lock(path, &fd, &e), &e);
}

static void test_real_path(void)
{
    const char *path, *target = in_dir("target"), *link = in_dir("link");
    struct err e;

    NEED_OK(file_replace(target, S("x"), &e), &e);
    NEED(symlink("./../target", in_dir("no-such")) == 0);
    NEED(symlink("target", link) == 0);
    NEED_OK(path_real(link, &arena, &path, &e), &e);
    CHECK_STR(str_of(path), str_of(target));
    path = NULL;
    CHECK_FAILS(path_real(in_dir("no-such"), &arena, &path, &e), NOT_FOUND, &e, "no-such");
    CHECK(!path);
}

static int run_all(int argc, char **argv)
{
    static const struct check_test tests[] = {T(test_modes),      T(test_positions_and_sizes),
                                              T(test_read_all),   T(test_names),
                                              T(test_many_names), T(test_lock),
                                              T(test_real_path)};

    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}

int main(int argc, char **argv)
{
    char command[64];
    int rc;

    if (!check_mkdtemp(dir))
        return EXIT_FAILURE;
    rc = run_all(argc, argv);
    arena_done(&arena);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) ? EXIT_FAILURE : rc;
}
