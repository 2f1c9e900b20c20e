/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file seam. All files of Weir are opened, read, written, synced and renamed through here, so
 * that a test can fail the k-th call, cut a write short, or stop the process at the k-th fsync.
 * Folder changes (rename, unlink, mkdir) count as FILE_OP_RENAME, truncation as FILE_OP_WRITE.
 *
 * Every descriptor is O_CLOEXEC. Paths are NUL-terminated C strings (the edge of the OS). Functions
 * fill err with the path and what was being done. EINTR is retried here.
 */
#pragma once

#include "base/arena.h"

#include <sys/types.h>

enum file_mode {
    FILE_READ,      /* must exist */
    FILE_CREATE,    /* read and write; made if missing */
    FILE_EXCLUSIVE, /* read and write; must not exist */
    FILE_APPEND,    /* write at the end; made if missing */
};

NODISCARD int file_open(const char *path, enum file_mode mode, int *ret_fd, struct err *e);
void file_close(int fd);   /* accepts -1 */
void file_closep(int *fd); /* AUTO(file_closep) int fd = -1; */

/* Writes all n bytes or fails; on failure an unknown prefix may have been written. */
NODISCARD int file_write_all(int fd, const void *p, size_t n, struct err *e);
NODISCARD int file_pwrite_all(int fd, const void *p, size_t n, uint64_t at, struct err *e);
/* Reads up to n bytes; *ret_n is short only at the end of the file. */
NODISCARD int file_pread(int fd, void *p, size_t n, uint64_t at, size_t *ret_n, struct err *e);
NODISCARD int file_sync(int fd, struct err *e); /* fdatasync */
NODISCARD int file_truncate(int fd, uint64_t bytes, struct err *e);
NODISCARD int file_size(int fd, uint64_t *ret_bytes, struct err *e);

/* The whole file into the arena (NUL-terminated too). RESOURCE_EXHAUSTED above max_bytes. */
NODISCARD int file_read_all(const char *path, size_t max_bytes, struct arena *a, str *ret_bytes,
                            struct err *e);

/* Puts `bytes` at path atomically: temporary file, fsync, rename, fsync of the folder. On failure
 * the old content stands, or, when only the last sync failed, the new. A process killed in the
 * middle may leave path.<16 hex digits>.tmp behind. */
NODISCARD int file_replace(const char *path, str bytes, struct err *e);

NODISCARD int file_rename(const char *from, const char *to, struct err *e);
/* Lets two existing paths (folders too) of one file system change places, atomically. */
NODISCARD int file_exchange(const char *a, const char *b, struct err *e);
/* A second name for a file, on the same file system; the new name must not exist. */
NODISCARD int file_link(const char *from, const char *to, struct err *e);
NODISCARD int file_sync_dir(const char *dir, struct err *e);
NODISCARD int file_remove(const char *path, struct err *e);     /* missing is no error */
NODISCARD int file_remove_dir(const char *path, struct err *e); /* empty; missing is no error */
/* A file or a folder with all that is in it; links are removed, not followed. Missing is no error.
 */
NODISCARD int file_remove_tree(const char *path, struct err *e);
/* mkdir -p, 0750. The names of new folders are durable. */
NODISCARD int file_make_dirs(const char *path, struct err *e);
bool file_exists(const char *path);

/* Takes an exclusive lock on the file for as long as the descriptor lives: UNAVAILABLE when another
 * process holds it; its pid, which the holder writes into the file, is in the message. */
NODISCARD int file_lock(const char *path, int *ret_fd, struct err *e);

/* Names in a folder, sorted bytewise, without "." and "..". Names are arena copies. */
NODISCARD int file_list(const char *dir, struct arena *a, str **ret_names, size_t *ret_n,
                        struct err *e);

/* The absolute path of an existing file or folder, without links and "..", in the arena. */
NODISCARD int path_real(const char *path, struct arena *a, const char **ret_path, struct err *e);
/* "a/b" from parts, in the arena. */
char *path_join(struct arena *a, const char *dir, const char *name);

/* --- For tests ---------------------------------------------------------------------------- */
enum file_op {
    FILE_OP_OPEN,
    FILE_OP_READ,
    FILE_OP_WRITE,
    FILE_OP_SYNC,
    FILE_OP_RENAME,
    FILE_OP_ANY,
};
enum file_fault {
    FILE_FAULT_ERRNO, /* the call fails with errno_value */
    FILE_FAULT_TEAR,  /* a write puts down a part of its bytes, then fails with errno_value */
    FILE_FAULT_KILL,  /* the process ends at once, as under kill -9 (a write tears first) */
};
/* The k-th next call of kind `op` (0 = the next) meets the fault; with `sticky`, so do all later
 * ones. k = -1 disarms. Also settable by WEIR_FILE_FAULT=op:k:fault[:errno][:sticky] for end-to-end
 * tests. */
void file_test_fault(enum file_op op, int64_t k, enum file_fault fault, int errno_value,
                     bool sticky);
/* For a library that does its own calls (SQLite): true when this call meets the fault, which the
 * caller must then act out; errno is set. */
bool file_fault_due(enum file_op op, enum file_fault *ret_fault);
