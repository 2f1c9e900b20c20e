/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that forgets. The program's own definitions of write, ftruncate, fsync, open, rename and
 * the like stand before those of the C library, also for libraries such as SQLite, and note what
 * each call changes together with what was there. A sync forgets the notes of its file; a sync of a
 * folder forgets those of the names in it. When the power goes, the notes that are left are undone,
 * newest first: page by page, each with the chance that this run has drawn, the sizes of files, and
 * of the names of a folder the newest so-many.
 *
 * Stricter than most file systems: a file's own sync does not make its name durable. Milder than
 * the worst disk: what was synced is safe, and a page is never a mixture of two writes' halves.
 */
#include "power.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define NOTES_MAX 200000
#define PATH_SIZE 512

enum what { BYTES, SIZE, MADE, MADE_DIR, RENAMED, REMOVED };
struct note {
    enum what what;
    bool done; /* durable, or undone */
    dev_t dev; /* of the file; for names, of the folder */
    ino_t ino;
    char path[PATH_SIZE], from[PATH_SIZE];
    int64_t at, size; /* size: of the file before */
    size_t n;
    char *old; /* bytes, or the whole file that a name stood for; NULL: none */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t syncs_left = -1;
static uint64_t state;
static struct note *notes;
static size_t note_count;

static uint64_t draw(uint64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
}

static struct note *note(enum what what, const struct stat *st, const char *path)
{
    struct note *x;

    if (note_count == NOTES_MAX)
        abort();
    x = &notes[note_count++];
    *x = (struct note){.what = what, .dev = st->st_dev, .ino = st->st_ino, .size = st->st_size};
    snprintf(x->path, sizeof(x->path), "%s", path);
    return x;
}

static void note_bytes(int fd, int64_t at, size_t n)
{
    char link[64], path[PATH_SIZE] = "";
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    (void)!readlink(link, path, sizeof(path) - 1);
    if (at < 0)
        at = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    if (at + (int64_t)n > st.st_size)
        note(SIZE, &st, path);
    for (size_t done = 0, m; done < n; done += m) {
        struct note *x = note(BYTES, &st, path);

        m = PAGE - (size_t)(at + (int64_t)done) % PAGE;
        m = m < n - done ? m : n - done;
        x->at = at + (int64_t)done;
        x->n = m;
        x->old = calloc(1, m);
        for (int64_t got = 0, i = 0; i < (int64_t)m; i += got)
            if ((got = syscall(SYS_pread64, fd, x->old + i, m - (size_t)i, x->at + i)) <= 0)
                break;
    }
}

/* The file that a name stands for goes: its bytes, where they are few. */
static void keep_file(struct note *x, const char *path)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
    struct stat st;

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < 1 << 20) {
        x->old = malloc((size_t)st.st_size + 1);
        x->n = (size_t)syscall(SYS_pread64, fd, x->old, st.st_size, 0);
    }
    close(fd);
}

static struct note *note_name(enum what what, const char *path)
{
    char dir[PATH_SIZE];
    struct stat st;
    char *slash;

    snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    if (!slash || (*slash = 0, stat(slash == dir ? "/" : dir, &st) < 0))
        abort(); /* tests use absolute paths */
    return note(what, &st, path);
}

/* --- The loss --------------------------------------------------------------------------------- */

static void put_file(const char *path, const char *bytes, size_t n)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0640);

    (void)!syscall(SYS_pwrite64, fd, bytes, n, 0);
    close(fd);
}

static void undo(const struct note *x)
{
    char command[PATH_SIZE + 16];
    int fd;

    switch (x->what) {
    case BYTES:
    case SIZE:
        fd = (int)syscall(SYS_openat, AT_FDCWD, x->path, O_WRONLY);
        if (fd >= 0 && x->what == BYTES)
            (void)!syscall(SYS_pwrite64, fd, x->old, x->n, x->at);
        if (fd >= 0 && x->what == SIZE)
            (void)!syscall(SYS_ftruncate, fd, x->size);
        if (fd >= 0)
            close(fd);
        break;
    case MADE:
        (void)!syscall(SYS_unlinkat, AT_FDCWD, x->path, 0);
        break;
    case MADE_DIR: /* with what was made in it */
        snprintf(command, sizeof(command), "rm -rf '%s'", x->path);
        (void)!system(command);
        break;
    case RENAMED:
        (void)!syscall(SYS_renameat2, AT_FDCWD, x->path, AT_FDCWD, x->from, 0);
        if (x->old)
            put_file(x->path, x->old, x->n);
        break;
    case REMOVED:
        if (x->old)
            put_file(x->path, x->old, x->n);
        break;
    }
}

/* Bytes first, while the names by which files were written still lead to them: a rename that was
 * not undone yet is followed. */
static const char *name_now(const struct note *x)
{
    const char *path = x->path;

    for (size_t i = (size_t)(x - notes); i < note_count; i++)
        if (notes[i].what == RENAMED && strcmp(notes[i].from, path) == 0)
            path = notes[i].path;
    return path;
}

static void lose(void)
{
    static const uint64_t chances[] = {0, 30, 50, 80, 100};
    uint64_t chance = chances[draw(5)]; /* of a loss, in 100 */
    size_t names = 0, lost;

    for (size_t i = note_count; i-- > 0;) {
        struct note x = notes[i];

        names += x.what > SIZE && !x.done;
        if (x.what > SIZE || x.done || draw(100) >= chance)
            continue;
        snprintf(x.path, sizeof(x.path), "%s", name_now(&notes[i]));
        undo(&x);
    }
    lost = draw(3) == 0 ? names : draw(names + 1);
    for (size_t i = note_count; i-- > 0 && lost > 0;)
        if (notes[i].what > SIZE && !notes[i].done) {
            undo(&notes[i]);
            lost--;
        }
    kill(getpid(), SIGKILL);
    while (true)
        pause();
}

static long synced(int fd, long number)
{
    struct stat st;
    long rc;

    if (syncs_left < 0)
        return syscall(number, fd);
    pthread_mutex_lock(&lock);
    if (syncs_left-- == 0)
        lose();
    rc = syscall(number, fd);
    if (fstat(fd, &st) == 0)
        for (size_t i = 0; i < note_count; i++)
            if (notes[i].dev == st.st_dev && notes[i].ino == st.st_ino)
                notes[i].done = true;
    pthread_mutex_unlock(&lock);
    return rc;
}

void power_lost_at_sync(int64_t k, uint64_t seed)
{
    notes = calloc(NOTES_MAX, sizeof(*notes));
    state = seed * 2654435761u + 1;
    note_count = 0;
    syncs_left = k;
}

void power_lost_now(void)
{
    pthread_mutex_lock(&lock);
    lose();
}

/* --- What the C library would do -------------------------------------------------------------- */

#define NOTED(call, ...)                 \
    do {                                 \
        if (syncs_left >= 0) {           \
            pthread_mutex_lock(&lock);   \
            __VA_ARGS__;                 \
            pthread_mutex_unlock(&lock); \
        }                                \
        return call;                     \
    } while (0)

ssize_t write(int fd, const void *p, size_t n)
{
    NOTED(syscall(SYS_write, fd, p, n), note_bytes(fd, -1, n));
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    NOTED(syscall(SYS_pwrite64, fd, p, n, at), note_bytes(fd, at, n));
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    return pwrite(fd, p, n, at);
}

/* What is cut off may be there again. */
int ftruncate(int fd, off_t size)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || st.st_size <= size)
        NOTED((int)syscall(SYS_ftruncate, fd, size), note_bytes(fd, size, 0));
    NOTED((int)syscall(SYS_ftruncate, fd, size), note_bytes(fd, size, (size_t)(st.st_size - size)));
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

int fsync(int fd)
{
    return (int)synced(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return (int)synced(fd, SYS_fdatasync);
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list list;

    va_start(list, flags);
    if (flags & O_CREAT)
        mode = va_arg(list, mode_t);
    va_end(list);
    if (!(flags & O_CREAT) || access(path, F_OK) == 0)
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    NOTED((int)syscall(SYS_openat, AT_FDCWD, path, flags, mode), note_name(MADE, path));
}

int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list list;

    va_start(list, flags);
    if (flags & O_CREAT)
        mode = va_arg(list, mode_t);
    va_end(list);
    return open(path, flags, mode);
}

int rename(const char *from, const char *to)
{
    struct note *x;

    NOTED((int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), x = note_name(RENAMED, to);
          keep_file(x, to); snprintf(x->from, sizeof(x->from), "%s", from));
}

int unlink(const char *path)
{
    NOTED((int)syscall(SYS_unlinkat, AT_FDCWD, path, 0), keep_file(note_name(REMOVED, path), path));
}

int mkdir(const char *path, mode_t mode)
{
    NOTED((int)syscall(SYS_mkdirat, AT_FDCWD, path, mode), note_name(MADE_DIR, path));
}
