/* SPDX-License-Identifier: Apache-2.0 */
/* What run.c and worker.c share. */
#pragma once

#include "load/conn.h"
#include "load/load.h"
#include "load/schedule.h"
#include "loop/mailbox.h"
#include "loop/thread.h"

#include <stdatomic.h>

/* Between workers and the thread of load_run. */
enum worker_mail_kind { WORKER_SECOND, WORKER_INJECTED, WORKER_DONE };

struct worker_mail {
    struct mail mail;
    enum worker_mail_kind kind;
    uint32_t at;     /* WORKER_SECOND */
    size_t phase;    /* WORKER_INJECTED */
    int64_t wall_ns; /* WORKER_INJECTED */
    struct load_tally tally;
};

struct run;

struct pending_label {
    int64_t due_ns; /* from the start of the run */
    uint64_t number;
    size_t row;
};

/* Labels on their way back: a queue in the order of the answers, and one batch under way. */
struct feedback {
    struct load_conn conn;
    struct pending_label *queue; /* owned; a ring */
    size_t from, n, cap;
    uint32_t batch; /* labels in the request under way or to be tried again; 0: none */
    uint32_t attempts;
    int64_t retry_ns; /* not before */
    uint64_t sent, accepted, failed;
};

struct client {
    struct load_conn conn;
    struct worker *worker;
    struct client *next_idle;
    int64_t intended_ns;
    uint64_t number;
    size_t row, phase;
};

struct worker {
    struct run *run;
    uint32_t index;
    struct thread thread;
    struct loop *loop; /* owned */
    struct load_schedule schedule;
    struct loop_timer pace, tick;
    struct client *clients; /* owned */
    uint32_t client_count, busy;
    struct client *idle_first, *idle_last; /* a queue: the load goes over all connections */
    int64_t next_ns;                       /* the request to send next */
    uint64_t next_number;
    bool more, dispatching, draining;
    int64_t end_ns; /* when the last request was meant to be sent: draining since */
    int64_t last_answer_ns;
    struct feedback feedback;
    uint32_t posted; /* seconds told to the run */
    bool phase_told[LOAD_PHASES_MAX];
    struct load_tally phases[LOAD_PHASES_MAX];
    uint64_t failures[LOAD_FAIL_COUNT];
    uint64_t dropped;
    char first_failure[256];
    struct load_tally *seconds; /* owned */
    size_t second_count, second_cap;
};

struct run {
    const struct load_config *cfg;
    const struct load_events *events;
    struct load_report *report;
    struct load_bodies *bodies[LOAD_PHASES_MAX]; /* owned; two phases may share them */
    uint32_t positive;                           /* class, or LOAD_CLASS_NONE */
    char id_prefix[25]; /* of all ids of the run: "xxxxxxxx-xxxx-7xxx-xxxx-" */
    int64_t start_ns;   /* monotonic */
    int64_t timeout_ns;
    uint64_t numbers;        /* requests of the run at most */
    int64_t planned_ns;      /* when the last of them is meant to be sent */
    struct worker *workers;  /* owned */
    _Atomic int64_t stop_ns; /* nothing due later is sent; INT64_MAX: go on */
    struct loop *loop;       /* of the thread that called */
    struct mailbox mailbox;
    struct loop_signals signals;
    uint32_t done;
    struct load_tally *live; /* owned: the seconds that some workers have told, LIVE_SECONDS */
    uint32_t *live_told;     /* owned: how many have */
};

NODISCARD int worker_init(struct worker *w, struct run *run, uint32_t index, struct err *e);
void worker_main(void *worker); /* the thread */
void worker_free(struct worker *w);

void feedback_init(struct worker *w);
void feedback_add(struct worker *w, int64_t due_ns, uint64_t number, size_t row);
void feedback_tick(struct worker *w, int64_t now_ns); /* from the start of the run */
bool feedback_empty(const struct worker *w);
void feedback_free(struct worker *w);
/* The id of a request: 36 bytes. */
void load_id_write(const struct run *run, uint64_t number, char *to);
