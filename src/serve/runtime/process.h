/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process runtime, as its own files see it.
 *
 *   process_manifest.c  what the user says of the program
 *   process_reader.c    frames from the program, piece by piece
 *   process_herd.c      the programs: started, watched, started again; a thread of its own
 *   process_start.c     what a program is started with
 *   process_output.c    what they write to stdout and stderr becomes log lines
 *   process_engine.c    loading, slots, runs
 *
 * A run borrows an idle instance from the herd, talks to it on the caller's thread, and gives it
 * back with a word on how it went. Between runs the herd's thread alone touches an instance.
 */
#pragma once

#include "base/json.h"
#include "loop/child.h"
#include "loop/thread.h"
#include "serve/runtime/priv.h"
#include "wire/tensor_frame.h"

#define PROCESS_PROTOCOL 1
#define PROCESS_FD 3
#define PROCESS_INSTANCES_MAX 64u

/* --- The manifest ----------------------------------------------------------------------------- */

enum process_network {
    PROCESS_NETWORK_OFF,   /* taken away where the system allows that; else a warning */
    PROCESS_NETWORK_NEVER, /* not started with it */
    PROCESS_NETWORK_ON,
};

struct process_manifest {
    const char *const *command;  /* NULL-terminated */
    const char *const *env;      /* "NAME=value", NULL-terminated */
    const char *const *pass_env; /* names of variables of the gateway that the program may see */
    uint32_t instances;
    uint64_t memory_bytes; /* address space of each; 0 = not limited */
    uint64_t cpu_seconds;  /* of an instance's life; 0 = not limited */
    uint64_t open_files;
    uint64_t answer_bytes_max;
    enum process_network network;
    int64_t start_ns; /* until it is ready */
    int64_t run_ns;   /* of one run, besides the request's deadline */
    int64_t grace_ns; /* that an answer may be late before the program is killed */
    int64_t backoff_ns;
    int64_t retry_ns;                     /* after a crash loop */
    uint32_t crash_limit;                 /* ends in a row that make a crash loop; 0 = never */
    struct tensor_spec *inputs, *outputs; /* NULL: the program declares them */
    uint32_t input_count, output_count;
};

/* INVALID_ARGUMENT names the member and what is possible. All lies in the arena. */
NODISCARD int process_manifest_read(const struct json *root, struct arena *a,
                                    struct process_manifest *ret, struct err *e);

/* --- The reader ------------------------------------------------------------------------------- */

enum process_event {
    PROCESS_MORE,   /* nothing to read now */
    PROCESS_HEADER, /* head and header are there: say where the data is to go, and read on */
    PROCESS_FRAME,  /* all of it is there; the next call begins another */
    PROCESS_END,    /* the program closed its end, or is gone */
    PROCESS_BROKEN, /* what came is no frame */
};

struct process_reader {
    uint64_t data_bytes_max;
    struct tensor_frame_head head;
    char head_bytes[TENSOR_FRAME_HEAD_BYTES];
    struct buf header; /* owned; with the zeros behind it */
    char *data;        /* borrowed: data_bytes of room; NULL = thrown away */
    uint64_t n;        /* bytes of the present part */
    enum { PROCESS_READ_HEAD, PROCESS_READ_HEADER, PROCESS_READ_DATA } part;
};

void process_reader_init(struct process_reader *r, uint64_t data_bytes_max);
void process_reader_done(struct process_reader *r);
void process_reader_reset(struct process_reader *r);
static inline bool process_reader_is_idle(const struct process_reader *r)
{
    return r->part == PROCESS_READ_HEAD && r->n == 0;
}
/* Reads from a socket without waiting. *e is set for PROCESS_BROKEN. */
enum process_event process_read(struct process_reader *r, int fd, struct err *e);
static inline str process_reader_header(const struct process_reader *r)
{
    return (str){r->header.p, r->head.header_bytes};
}

/* --- The herd --------------------------------------------------------------------------------- */

enum process_state {
    PROCESS_DOWN,     /* no program: waits for its next start */
    PROCESS_STARTING, /* started; the herd waits for READY */
    PROCESS_IDLE,
    PROCESS_BUSY,   /* a run has it */
    PROCESS_LATE,   /* the run gave up: the herd reads its answer away, or kills it after a grace */
    PROCESS_ENDING, /* killed, not yet collected */
};

/* Of a slot; CANCELLED is for the run under way. */
enum process_run_state { PROCESS_RUN_IDLE, PROCESS_RUN_RUNNING, PROCESS_RUN_CANCELLED };

/* How a run gives an instance back. */
enum process_return {
    PROCESS_RETURN_NONE,
    PROCESS_RETURN_OK,
    PROCESS_RETURN_LATE, /* all of the question was sent, the answer did not come */
    PROCESS_RETURN_BAD,  /* it is gone, or the stream can no longer be trusted */
};

struct process_lines {
    char line[1024];
    size_t n;
    bool cut;
    double tokens; /* lines that may be written now */
    int64_t refilled_ns;
    uint64_t dropped;
    char last[240]; /* its last words */
};

struct process_herd;

struct process_instance {
    struct process_herd *herd;
    uint32_t index;
    enum process_state state;     /* under herd->mutex */
    enum process_return returned; /* under herd->mutex; for the herd's thread to see to */
    const char *verdict;          /* why it was returned as bad; a literal */
    bool is_broken;               /* under herd->mutex: in a crash loop */
    bool answered;                /* under herd->mutex: since it was started */
    bool exited;                  /* collected, while a run still had it */
    uint64_t late_id;
    uint64_t next_id;
    struct process_reader reader; /* of whoever has the instance */
    int fd;                       /* our end of the socket, or -1 */
    int out_fd;                   /* what it writes to stdout and stderr, or -1 */
    struct child child;
    struct child_exit exit;
    const char *why;   /* it was ended by us; a literal, or NULL */
    uint32_t failures; /* in a row */
    int64_t started_ns;
    struct loop_fd socket, output;
    struct loop_timer timer;
    struct process_lines lines;
};

struct process_herd {
    const struct process_manifest *manifest; /* borrowed */
    const char *label;                       /* for the log; borrowed */
    const char *folder, *tmp;                /* where programs run; borrowed */
    struct arena arena;
    const char *const *env;
    struct buf hello; /* the frame */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct loop *loop;
    struct thread thread;
    struct loop_hook turn_end;
    bool network_told;
    uint64_t starts, ends;                /* under mutex */
    char reason[320];                     /* under mutex: why the last one ended */
    struct tensor_spec *inputs, *outputs; /* under mutex: as the first READY declared them */
    uint32_t input_count, output_count;
    uint32_t instance_count;
    struct process_instance instances[];
};

/* Starts the thread, and on it the instances. */
NODISCARD int process_herd_new(const struct process_manifest *manifest, const char *label,
                               const char *folder, const char *tmp, struct process_herd **ret,
                               struct err *e);
void process_herd_free(struct process_herd *h); /* ends all; no run may have one. Accepts NULL */
/* Waits until one is ready (true), one has failed, or until_ns (false). */
NODISCARD bool process_herd_wait(struct process_herd *h, int64_t until_ns);
/* Takes an idle instance. UNAVAILABLE at once when all are in crash loops; DEADLINE_EXCEEDED;
 * CANCELLED when *run_state becomes that (process_herd_wake tells). */
NODISCARD int process_herd_take(struct process_herd *h, int64_t deadline_ns,
                                const _Atomic int *run_state, struct process_instance **ret,
                                struct err *e);
void process_herd_return(struct process_instance *i, enum process_return how, const char *verdict);
void process_herd_wake(struct process_herd *h);

/* --- Starting (process_start.c) --------------------------------------------------------------- */

/* Makes env and hello. */
NODISCARD int process_prepare(struct process_herd *h, struct err *e);
/* Sets child, fd and out_fd. As child_start(). */
NODISCARD int process_child_start(struct process_instance *i, struct err *e);

/* --- Output ----------------------------------------------------------------------------------- */

/* Takes what there is to read; false at the end of it. `lines` become log lines, at most 20 a
 * second and 200 at once; what is dropped is counted and told. */
bool process_output_read(struct process_instance *i);
void process_output_end(struct process_instance *i); /* what is left, after its end */
