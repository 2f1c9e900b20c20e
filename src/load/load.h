/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open-loop load generator for an endpoint: `weir load`.
 *
 * Open loop: each request has an instant at which it is meant to be sent, fixed before the run. A
 * request whose connections are all busy waits, and its latency counts from that instant, not from
 * the send: a server that stalls for a second shows a second, for each request of that second
 * (there is no coordinated omission).
 *
 * The rows of a table are replayed in order; injections change what is sent from a stated instant
 * on; answers are compared with the true labels, which go back as feedback after a delay. So one
 * run measures latency, failures and the quality of the model, second by second.
 */
#pragma once

#include "load/answer.h"
#include "load/inject.h"
#include "load/tally.h"
#include "loop/addr.h"

#define LOAD_THREADS_MAX 64u
#define LOAD_CONNECTIONS_MAX 16384u
#define LOAD_SECONDS_MAX 14400u /* of a run: four hours */
#define LOAD_FEEDBACK_BATCH 200u
#define LOAD_PHASES_MAX (2 * LOAD_INJECTIONS_MAX + 1)

struct load_config {
    struct addr address;
    struct load_form form;
    struct load_reader reader;
    double rate; /* requests a second */
    bool poisson;
    uint32_t threads, connections; /* connections: over all threads; 0 = 64 */
    int64_t duration_ns;           /* 0: none given */
    uint64_t requests;             /* 0: none given */
    bool loop;                     /* begin again after the last row */
    int64_t timeout_ns;            /* of one request, from its send; 0 = 5 s */
    bool feedback;                 /* send the labels of answered requests to /v1/feedback */
    int64_t label_delay_ns;
    uint64_t seed;
    str positive;                            /* the class that precision, recall and F1 speak of */
    const struct load_rows *rows;            /* borrowed */
    const struct load_injection *injections; /* borrowed, checked */
    size_t injection_count;
};

/* A stretch of the run with the same injections. */
struct load_phase {
    str name;               /* "clean", the name of an attack, or a spec */
    int64_t from_ns, to_ns; /* from the start of the run; to_ns INT64_MAX: the end */
    bool injected;
    bool told; /* load_events.injected was called */
    struct load_tally tally;
};

struct load_second {
    uint32_t at; /* seconds from the start of the run */
    const struct load_phase *phase;
    const struct load_tally *tally;
};

/* Told during the run, on the thread that called load_run. Any may be NULL. */
struct load_events {
    void *arg;
    /* A second is over; late answers to its requests are not in it. */
    void (*second)(void *arg, const struct load_second *s);
    /* The first request of an injected phase was sent at wall_ns. */
    void (*injected)(void *arg, const struct load_phase *phase, int64_t wall_ns);
};

struct load_report {
    int64_t start_wall_ns, elapsed_ns; /* elapsed: until the last answer */
    struct load_tally total;
    uint64_t failures[LOAD_FAIL_COUNT];
    uint64_t dropped; /* meant to be sent, but no connection was free until the end */
    uint64_t labels_sent, labels_accepted, labels_failed;
    char first_failure[256]; /* the first failed answer, or empty */
    bool stopped;            /* by load_stop or a signal */
    size_t phase_count;
    struct load_phase phases[LOAD_PHASES_MAX];
    size_t second_count;
    struct load_tally *seconds; /* owned */
    struct arena arena;         /* of the names of phases */
};

/*
 * Runs the load and fills *ret, which load_report_free() frees. Blocks; SIGINT and SIGTERM end the
 * load early, with a report. INVALID_ARGUMENT for a config out of its limits; UNAVAILABLE when
 * nobody listens at the start; RESOURCE_EXHAUSTED when the requests do not fit into memory. Failed
 * requests are no error: they are counted.
 */
NODISCARD int load_run(const struct load_config *cfg, const struct load_events *events,
                       struct load_report **ret, struct err *e);
void load_report_free(struct load_report *r); /* accepts NULL */
DEFINE_AUTO_PTR(struct load_report, load_report_free)

/* Answers of 2xx a second, over the whole run. */
double load_report_rate(const struct load_report *r);
/* {"form":"weir.load/1","config":{…},"totals":{…},"phases":[…],"per_second":[…]} */
void load_report_json(const struct load_config *cfg, const struct load_report *r, struct buf *to);
/* For people: a few lines. */
void load_report_text(const struct load_report *r, struct buf *to);
/* "rate 2300  ok 2300  failed 0  p50 0.2ms  p99 1.2ms  F1 0.998": one second, without a newline. */
void load_second_text(const struct load_second *s, struct buf *to);
