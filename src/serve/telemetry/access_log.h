/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The access log: a JSON object and a line end for each request that is logged.
 *
 * One thread writes. A line that cannot be written whole is taken back (a file) and counted; nobody
 * waits for the disk but this thread. A file that has reached its size becomes FILE.1, that one
 * FILE.2, and so on.
 */
#pragma once

#include "base/buf.h"
#include "serve/telemetry/note.h"

#define ACCESS_LINE_MAX 4096
#define ACCESS_KEEP_MAX 100

struct access_log_config {
    const char *path;      /* a file, or "stdout" */
    uint64_t rotate_bytes; /* 0: never */
    uint32_t keep;         /* old files, at most ACCESS_KEEP_MAX */
};

struct access_log {
    struct access_log_config cfg;
    int fd; /* -1: it could not be opened, and is tried again */
    bool is_file, failing;
    uint64_t bytes; /* of the file */
    struct buf out; /* lines of this turn */
    uint32_t out_lines;
    uint64_t lines, failures; /* atomic: written, and lost */
    uint64_t rotations;       /* atomic */
};

/* Opens the file: UNAVAILABLE and others of a file. cfg->path stays the caller's. */
NODISCARD int access_log_open(struct access_log *l, const struct access_log_config *cfg,
                              struct err *e);
void access_log_close(struct access_log *l); /* flushes; accepts a zeroed one */

void access_line_write(struct buf *to, const struct note *n); /* with its line end */
void access_log_add(struct access_log *l, const struct note *n);
void access_log_flush(struct access_log *l);
void access_log_reopen(struct access_log *l); /* somebody has moved the file */
