/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite opens its files itself, so base/files.h does not see them. This shim stands between: each
 * open, read, write, truncate and sync of a database or its log first asks the fault plan of
 * base/files.h, and then does what the platform's file system does. Disarmed, that is one relaxed
 * load per call.
 *
 * It changes no byte, and leaves locks and shared memory alone: they are memory, not disk.
 */
#include "store/meta/sqlite_vfs.h"

#include "base/files.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

struct vfs_file {
    sqlite3_file base;
    sqlite3_file *real; /* right behind this struct */
};

static sqlite3_vfs *platform;

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct vfs_file *)f)->real;
}

/* SQLITE_OK when the call may go on. */
static int meet(enum file_op op, int io_error)
{
    enum file_fault fault;

    if (LIKELY(!file_fault_due(op, &fault)))
        return SQLITE_OK;
    if (fault == FILE_FAULT_KILL)
        kill(getpid(), SIGKILL);
    return errno == ENOSPC ? SQLITE_FULL : io_error;
}

static int vfs_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int vfs_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    int rc = meet(FILE_OP_READ, SQLITE_IOERR_READ);

    return rc ? rc : real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}

/* A torn write puts down its first half: SQLite's pages are larger than a sector. */
static int vfs_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    enum file_fault fault;

    if (LIKELY(!file_fault_due(FILE_OP_WRITE, &fault)))
        return real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
    if (fault != FILE_FAULT_ERRNO && n > 1)
        (void)real_of(f)->pMethods->xWrite(real_of(f), p, n / 2, at);
    if (fault == FILE_FAULT_KILL)
        kill(getpid(), SIGKILL);
    return errno == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

static int vfs_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    int rc = meet(FILE_OP_WRITE, SQLITE_IOERR_TRUNCATE);

    return rc ? rc : real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int vfs_sync(sqlite3_file *f, int flags)
{
    int rc = meet(FILE_OP_SYNC, SQLITE_IOERR_FSYNC);

    return rc ? rc : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int vfs_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), ret);
}

static int vfs_lock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int vfs_unlock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int vfs_check_lock(sqlite3_file *f, int *ret)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret);
}

static int vfs_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int vfs_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int vfs_traits(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int vfs_shm_map(sqlite3_file *f, int region, int bytes, int extend, void volatile **ret)
{
    return real_of(f)->pMethods->xShmMap(real_of(f), region, bytes, extend, ret);
}

static int vfs_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void vfs_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int vfs_shm_unmap(sqlite3_file *f, int drop)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), drop);
}

/* Version 2: no memory-mapped reads, which no fault could reach. */
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = vfs_close,
    .xRead = vfs_read,
    .xWrite = vfs_write,
    .xTruncate = vfs_truncate,
    .xSync = vfs_sync,
    .xFileSize = vfs_size,
    .xLock = vfs_lock,
    .xUnlock = vfs_unlock,
    .xCheckReservedLock = vfs_check_lock,
    .xFileControl = vfs_control,
    .xSectorSize = vfs_sector,
    .xDeviceCharacteristics = vfs_traits,
    .xShmMap = vfs_shm_map,
    .xShmLock = vfs_shm_lock,
    .xShmBarrier = vfs_shm_barrier,
    .xShmUnmap = vfs_shm_unmap,
};

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *ret_flags)
{
    struct vfs_file *file = (struct vfs_file *)f;
    int rc = meet(FILE_OP_OPEN, SQLITE_CANTOPEN);

    (void)vfs;
    file->base.pMethods = NULL;
    file->real = (sqlite3_file *)(void *)(file + 1);
    if (!rc)
        rc = platform->xOpen(platform, path, file->real, flags, ret_flags);
    if (rc)
        return rc;
    ASSERT(file->real->pMethods && file->real->pMethods->iVersion >= 2);
    file->base.pMethods = &methods;
    return SQLITE_OK;
}

static sqlite3_vfs shim;
static int register_rc;

static void register_once(void)
{
    platform = sqlite3_vfs_find(NULL);
    ASSERT(platform);
    shim = *platform; /* all but opening is the platform's */
    shim.pNext = NULL;
    shim.zName = SQLITE_VFS_NAME;
    shim.szOsFile = (int)sizeof(struct vfs_file) + platform->szOsFile;
    shim.xOpen = vfs_open;
    register_rc = sqlite3_vfs_register(&shim, 0);
}

int sqlite_vfs_register(struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, register_once);
    if (register_rc)
        return FAIL(e, INTERNAL, "SQLite refused Weir's file system: %s",
                    sqlite3_errstr(register_rc));
    return 0;
}
