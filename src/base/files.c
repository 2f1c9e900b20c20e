/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file seam: thin wrappers over the system calls, each of which asks meets_fault() first.
 *
 * The plan of faults is one for the process: kind of call, number of calls to let through, what
 * then happens. Disarmed, it costs one relaxed load. Calls that change a folder (rename, unlink,
 * mkdir) count as RENAME, a truncation counts as WRITE, fdatasync and fsync of a folder as SYNC.
 *
 * Invariants: an atomic replacement leaves the old or the new bytes under the name, whatever call
 * fails and wherever the process is killed; a killed replacement may leave `NAME.<16 hex>.tmp`
 * beside it, which no one reads. A failed sync is reported once and is final: the kernel may drop
 * the pages it could not write, so a second sync that succeeds proves nothing, and none is tried.
 */
#include "base/files.h"

#include "base/random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_PERMISSIONS 0640
#define DIR_PERMISSIONS 0750
#define TREE_DEPTH_MAX 64

/* --- The fault seam ----------------------------------------------------------------------- */

static atomic_bool armed;
static atomic_int_fast64_t calls_left;
static struct {
    enum file_op op;
    enum file_fault fault;
    int errno_value;
    bool sticky;
} plan;
static pthread_once_t env_once = PTHREAD_ONCE_INIT;

static const char *const op_names[] = {"open", "read", "write", "sync", "rename", "any"};
static const char *const fault_names[] = {"errno", "tear", "kill"};
static const struct {
    const char *name;
    int value;
} errno_names[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EMFILE", EMFILE},
                   {"EACCES", EACCES}, {"EROFS", EROFS},   {"ENOENT", ENOENT}};

static void arm(enum file_op op, int64_t k, enum file_fault fault, int errno_value, bool sticky)
{
    atomic_store(&armed, false);
    plan.op = op;
    plan.fault = fault;
    plan.errno_value = errno_value ? errno_value : EIO;
    plan.sticky = sticky;
    atomic_store(&calls_left, k);
    atomic_store(&armed, k >= 0);
}

static int name_index(str name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eqz(name, names[i]))
            return (int)i;
    return -1;
}

static int errno_of(str text)
{
    int64_t value;

    for (size_t i = 0; i < ARRAY_LEN(errno_names); i++)
        if (str_eqz(text, errno_names[i].name))
            return errno_names[i].value;
    return str_to_i64(text, &value) && value > 0 && value < 4096 ? (int)value : -1;
}

/* A fault that was asked for and cannot be understood ends the process: a test that believes in a
 * fault which never comes would pass for nothing. */
static void arm_from_env(void)
{
    const char *text = getenv("WEIR_FILE_FAULT");
    str rest = str_of(text);
    int op, fault, errno_value = 0;
    bool sticky = false;
    int64_t k = -1;

    if (!text || !*text)
        return;
    op = name_index(str_cut(&rest, ':'), op_names, ARRAY_LEN(op_names));
    if (!str_to_i64(str_cut(&rest, ':'), &k))
        k = -1;
    fault = name_index(str_cut(&rest, ':'), fault_names, ARRAY_LEN(fault_names));
    while (rest.p && errno_value >= 0) {
        str word = str_cut(&rest, ':');

        if (str_eqz(word, "sticky"))
            sticky = true;
        else
            errno_value = errno_of(word);
    }
    if (op < 0 || k < 0 || fault < 0 || errno_value < 0) {
        fprintf(stderr,
                "weir: WEIR_FILE_FAULT='%s' is not op:k:fault[:errno][:sticky] (op open, read, "
                "write, sync, rename or any; fault errno, tear or kill)\n",
                text);
        _exit(2);
    }
    arm((enum file_op)op, k, (enum file_fault)fault, errno_value, sticky);
}

void file_test_fault(enum file_op op, int64_t k, enum file_fault fault, int errno_value,
                     bool sticky)
{
    pthread_once(&env_once, arm_from_env); /* or the first call would arm over this */
    arm(op, k, fault, errno_value, sticky);
}

_Noreturn static void die_now(void)
{
    kill(getpid(), SIGKILL);
    while (true)
        pause();
}

/* True when this call meets the fault. For ERRNO it also sets errno; TEAR and KILL of a write are
 * left to the caller, which has the bytes. */
static bool meets_fault(enum file_op op)
{
    int64_t left;

    pthread_once(&env_once, arm_from_env);
    if (LIKELY(!atomic_load_explicit(&armed, memory_order_relaxed)))
        return false;
    if (plan.op != op && plan.op != FILE_OP_ANY)
        return false;
    left = atomic_fetch_sub(&calls_left, 1);
    if (left > 0 || (left < 0 && !plan.sticky))
        return false;
    if (plan.fault == FILE_FAULT_KILL && op != FILE_OP_WRITE)
        die_now();
    errno = plan.errno_value;
    return true;
}

bool file_fault_due(enum file_op op, enum file_fault *ret_fault)
{
    if (LIKELY(!meets_fault(op)))
        return false;
    *ret_fault = plan.fault;
    return true;
}

/* --- Single calls ------------------------------------------------------------------------- */

static int do_open(const char *path, int flags)
{
    int fd;

    if (meets_fault(FILE_OP_OPEN))
        return -1;
    do
        fd = open(path, flags | O_CLOEXEC, FILE_PERMISSIONS);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static ssize_t do_read(int fd, void *p, size_t n, uint64_t at)
{
    ssize_t got;

    if (meets_fault(FILE_OP_READ))
        return -1;
    do
        got = pread(fd, p, n, (off_t)at);
    while (got < 0 && errno == EINTR);
    return got;
}

static ssize_t raw_write(int fd, const void *p, size_t n, int64_t at)
{
    ssize_t put;

    do
        put = at < 0 ? write(fd, p, n) : pwrite(fd, p, n, at);
    while (put < 0 && errno == EINTR);
    return put;
}

/* at < 0: where the descriptor stands. */
static ssize_t do_write(int fd, const void *p, size_t n, int64_t at)
{
    if (meets_fault(FILE_OP_WRITE)) {
        if (plan.fault != FILE_FAULT_ERRNO && n > 1)
            (void)!raw_write(fd, p, n / 2, at);
        if (plan.fault == FILE_FAULT_KILL)
            die_now();
        errno = plan.errno_value;
        return -1;
    }
    return raw_write(fd, p, n, at);
}

static int do_truncate(int fd, uint64_t bytes)
{
    int rc;

    if (meets_fault(FILE_OP_WRITE)) {
        if (plan.fault == FILE_FAULT_KILL)
            die_now();
        return -1;
    }
    do
        rc = ftruncate(fd, (off_t)bytes);
    while (rc < 0 && errno == EINTR);
    return rc;
}

static int do_sync(int fd, bool is_dir)
{
    int rc;

    if (meets_fault(FILE_OP_SYNC))
        return -1;
    do
        rc = is_dir ? fsync(fd) : fdatasync(fd);
    while (rc < 0 && errno == EINTR);
    return rc;
}

/* --- Descriptors -------------------------------------------------------------------------- */

int file_open(const char *path, enum file_mode mode, int *ret_fd, struct err *e)
{
    static const int flags[] = {
        [FILE_READ] = O_RDONLY,
        [FILE_CREATE] = O_RDWR | O_CREAT,
        [FILE_EXCLUSIVE] = O_RDWR | O_CREAT | O_EXCL,
        [FILE_APPEND] = O_WRONLY | O_CREAT | O_APPEND,
    };
    int fd;

    ASSERT((size_t)mode < ARRAY_LEN(flags));
    fd = do_open(path, flags[mode]);
    if (fd < 0)
        return FAIL_ERRNO(e, "open %s%s", path, mode == FILE_READ ? "" : " for writing");
    *ret_fd = fd;
    return 0;
}

void file_close(int fd)
{
    /* Not repeated on EINTR: Linux has closed the descriptor all the same. */
    if (fd >= 0)
        close(fd);
}

void file_closep(int *fd)
{
    file_close(*fd);
    *fd = -1;
}

/* The path behind a descriptor, for messages only. */
static const char *fd_path(int fd, char ret_path[256])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, ret_path, 255);
    if (n < 0)
        snprintf(ret_path, 256, "descriptor %d", fd);
    else
        ret_path[n] = '\0';
    return ret_path;
}

static int fail_on_fd(int fd, const char *what, struct err *e)
{
    int errno_value = errno;
    char path[256];

    fd_path(fd, path);
    errno = errno_value;
    return FAIL_ERRNO(e, "%s %s", what, path);
}

static int write_all(int fd, const char *p, size_t n, int64_t at, struct err *e)
{
    while (n) {
        ssize_t put = do_write(fd, p, n, at);

        if (put < 0)
            return fail_on_fd(fd, "write to", e);
        p += put;
        n -= (size_t)put;
        if (at >= 0)
            at += put;
    }
    return 0;
}

int file_write_all(int fd, const void *p, size_t n, struct err *e)
{
    return write_all(fd, p, n, -1, e);
}

int file_pwrite_all(int fd, const void *p, size_t n, uint64_t at, struct err *e)
{
    ASSERT(at <= INT64_MAX && n <= INT64_MAX - at);
    return write_all(fd, p, n, (int64_t)at, e);
}

int file_pread(int fd, void *p, size_t n, uint64_t at, size_t *ret_n, struct err *e)
{
    size_t done = 0;

    ASSERT(at <= INT64_MAX && n <= INT64_MAX - at);
    while (done < n) {
        ssize_t got = do_read(fd, (char *)p + done, n - done, at + done);

        if (got < 0)
            return fail_on_fd(fd, "read", e);
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_n = done;
    return 0;
}

int file_sync(int fd, struct err *e)
{
    return do_sync(fd, false) < 0 ? fail_on_fd(fd, "sync", e) : 0;
}

int file_truncate(int fd, uint64_t bytes, struct err *e)
{
    ASSERT(bytes <= INT64_MAX);
    return do_truncate(fd, bytes) < 0 ? fail_on_fd(fd, "truncate", e) : 0;
}

int file_size(int fd, uint64_t *ret_bytes, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return fail_on_fd(fd, "find the size of", e);
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

/* --- Whole files -------------------------------------------------------------------------- */

/* The size is a hint only: files of /proc say 0, and a file may grow while it is read. */
int file_read_all(const char *path, size_t max_bytes, struct arena *a, str *ret_bytes,
                  struct err *e)
{
    AUTO(file_closep) int fd = -1;
    uint64_t hint;
    size_t cap, n = 0, got;
    char *bytes = NULL;

    TRY(file_open(path, FILE_READ, &fd, e));
    TRY(file_size(fd, &hint, e));
    if (hint > max_bytes)
        return FAIL(e, RESOURCE_EXHAUSTED, "%s has %llu bytes, at most %zu are allowed", path,
                    (unsigned long long)hint, max_bytes);
    cap = MIN(MAX((size_t)hint, (size_t)4095), max_bytes) + 1;
    while (true) {
        char *larger = arena_alloc(a, cap + 1);

        if (!larger)
            return FAIL(e, RESOURCE_EXHAUSTED, "%s does not fit into memory (%zu bytes)", path,
                        cap);
        if (n)
            memcpy(larger, bytes, n);
        bytes = larger;
        TRY(file_pread(fd, bytes + n, cap - n, n, &got, e));
        n += got;
        if (n > max_bytes)
            return FAIL(e, RESOURCE_EXHAUSTED, "%s has more than the %zu bytes allowed", path,
                        max_bytes);
        if (n < cap)
            break;
        cap = MIN(cap * 2, max_bytes + 1);
    }
    bytes[n] = '\0';
    *ret_bytes = (str){bytes, n};
    return 0;
}

static int dir_of(const char *path, char ret_dir[PATH_MAX], struct err *e)
{
    const char *slash = strrchr(path, '/');
    str dir = slash ? str_range(path, slash == path ? path + 1 : slash) : S(".");

    if (!str_to_z(dir, ret_dir, PATH_MAX))
        return FAIL(e, INVALID_ARGUMENT, "path is longer than %d bytes: %.80s...", PATH_MAX, path);
    return 0;
}

static int write_temporary(const char *temporary, str bytes, struct err *e)
{
    AUTO(file_closep) int fd = -1;

    TRY(file_open(temporary, FILE_EXCLUSIVE, &fd, e));
    TRY(file_write_all(fd, bytes.p, bytes.n, e));
    return file_sync(fd, e);
}

int file_replace(const char *path, str bytes, struct err *e)
{
    char temporary[PATH_MAX], dir[PATH_MAX];
    int rc;

    TRY(dir_of(path, dir, e));
    if (snprintf(temporary, sizeof(temporary), "%s.%016llx.tmp", path,
                 (unsigned long long)random_u64()) >= (int)sizeof(temporary))
        return FAIL(e, INVALID_ARGUMENT, "path is longer than %d bytes: %.80s...", PATH_MAX - 22,
                    path);
    rc = write_temporary(temporary, bytes, e);
    if (!rc)
        rc = file_rename(temporary, path, e);
    if (rc) {
        unlink(temporary); /* what failed is in e; a leftover harms no one */
        return rc;
    }
    return file_sync_dir(dir, e);
}

/* --- Names -------------------------------------------------------------------------------- */

int file_rename(const char *from, const char *to, struct err *e)
{
    if (meets_fault(FILE_OP_RENAME) || rename(from, to) < 0)
        return FAIL_ERRNO(e, "rename %s to %s", from, to);
    return 0;
}

int file_exchange(const char *a, const char *b, struct err *e)
{
    if (meets_fault(FILE_OP_RENAME) || renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) < 0)
        return FAIL_ERRNO(e, "exchange %s and %s", a, b);
    return 0;
}

int file_link(const char *from, const char *to, struct err *e)
{
    if (meets_fault(FILE_OP_RENAME) || link(from, to) < 0)
        return FAIL_ERRNO(e, "link %s as %s", from, to);
    return 0;
}

int file_remove_dir(const char *path, struct err *e)
{
    if (meets_fault(FILE_OP_RENAME) || (rmdir(path) < 0 && errno != ENOENT))
        return FAIL_ERRNO(e, "remove folder %s", path);
    return 0;
}

static int remove_tree(const char *path, int depth, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct stat st;
    str *names = NULL;
    size_t n = 0;

    if (lstat(path, &st))
        return errno == ENOENT ? 0 : FAIL_ERRNO(e, "remove %s", path);
    if (!S_ISDIR(st.st_mode))
        return file_remove(path, e);
    if (depth == TREE_DEPTH_MAX)
        return FAIL(e, OUT_OF_RANGE, "%s: folders are nested deeper than %d", path, TREE_DEPTH_MAX);
    arena_init(&a, 0);
    TRY(file_list(path, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        TRY(remove_tree(path_join(&a, path, names[i].p), depth + 1, e));
    return file_remove_dir(path, e);
}

int file_remove_tree(const char *path, struct err *e)
{
    return remove_tree(path, 0, e);
}

int file_sync_dir(const char *dir, struct err *e)
{
    AUTO(file_closep) int fd = do_open(dir, O_RDONLY | O_DIRECTORY);

    if (fd < 0 || do_sync(fd, true) < 0)
        return FAIL_ERRNO(e, "sync folder %s", dir);
    return 0;
}

int file_remove(const char *path, struct err *e)
{
    if (meets_fault(FILE_OP_RENAME) || (unlink(path) < 0 && errno != ENOENT))
        return FAIL_ERRNO(e, "remove %s", path);
    return 0;
}

static int make_dir(const char *path, struct err *e)
{
    char parent[PATH_MAX];
    struct stat st;

    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return 0;
        return FAIL(e, ALREADY_EXISTS, "%s is in the way: it is not a folder", path);
    }
    if (meets_fault(FILE_OP_RENAME) || (mkdir(path, DIR_PERMISSIONS) < 0 && errno != EEXIST))
        return FAIL_ERRNO(e, "make folder %s", path);
    TRY(dir_of(path, parent, e));
    return file_sync_dir(parent, e);
}

int file_make_dirs(const char *path, struct err *e)
{
    char part[PATH_MAX];

    if (!*path || !str_to_z(str_of(path), part, sizeof(part)))
        return FAIL(e, INVALID_ARGUMENT, "path is empty or longer than %d bytes: %.80s",
                    PATH_MAX - 1, path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        TRY(make_dir(part, e));
        *slash = '/';
    }
    return make_dir(part, e);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static int lock_holder(int fd)
{
    char text[24] = "";
    int64_t pid;
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    str s = {text, n > 0 ? (size_t)n : 0};

    return str_to_i64(str_trim(s), &pid) && pid > 0 && pid <= INT_MAX ? (int)pid : 0;
}

int file_lock(const char *path, int *ret_fd, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    char pid[24];
    int n;

    TRY(file_open(path, FILE_CREATE, &fd, e));
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == EWOULDBLOCK)
            return FAIL(e, UNAVAILABLE,
                        "%s is locked by process %d; stop it first, or use another folder", path,
                        lock_holder(fd));
        return FAIL_ERRNO(e, "lock %s", path);
    }
    n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    TRY(file_truncate(fd, 0, e));
    TRY(file_pwrite_all(fd, pid, (size_t)n, 0, e));
    *ret_fd = fd, fd = -1;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return str_cmp(*(const str *)a, *(const str *)b);
}

static void closedirp(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

int file_list(const char *dir, struct arena *a, str **ret_names, size_t *ret_n, struct err *e)
{
    AUTO(closedirp) DIR *stream = NULL;
    size_t n = 0, cap = 64;
    str *names = ARENA_ARRAY(a, str, cap);
    struct dirent *entry;
    int fd = do_open(dir, O_RDONLY | O_DIRECTORY);

    if (fd < 0)
        return FAIL_ERRNO(e, "list folder %s", dir);
    stream = fdopendir(fd);
    ASSERT(stream);
    while (names && (errno = 0, entry = readdir(stream))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (n == cap) {
            str *larger = ARENA_ARRAY(a, str, cap *= 2);

            if (larger)
                memcpy(larger, names, n * sizeof(str));
            names = larger;
        }
        if (names)
            names[n++] = arena_dup(a, str_of(entry->d_name));
    }
    if (!names || a->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "folder %s has more names than memory allows", dir);
    if (errno)
        return FAIL_ERRNO(e, "list folder %s", dir);
    qsort(names, n, sizeof(str), compare_names);
    *ret_names = names;
    *ret_n = n;
    return 0;
}

int path_real(const char *path, struct arena *a, const char **ret_path, struct err *e)
{
    char *real = realpath(path, NULL);

    if (!real)
        return FAIL_ERRNO(e, "%s", path);
    *ret_path = arena_dupz(a, str_of(real));
    free(real);
    return 0;
}

char *path_join(struct arena *a, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    const char *slash = n && dir[n - 1] != '/' ? "/" : "";

    return (char *)(uintptr_t)arena_printf(a, "%s%s%s", dir, slash, name).p;
}
