/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A note is what telemetry is told of one request: fixed in size, complete in itself, written by a
 * loop into its ring and read by the telemetry thread. It holds no value of a feature and no
 * secret; a user is in it by pseudonym only.
 *
 * The ring has one producer and one consumer, takes no lock and never waits: where it is full, the
 * note is dropped and counted.
 */
#pragma once

#include "record/ring.h"
#include "serve/counters.h"
#include "wire/trace_context.h"

#define NOTE_TENANT_BYTES 48
#define NOTE_CALLER_BYTES 48
#define NOTE_ROUTE_BYTES 96
#define NOTE_RING 1024 /* notes; a power of two */

/* Inputs that are not as the reference was. */
enum note_anomaly {
    NOTE_MISSING,      /* an empty value */
    NOTE_OUT_OF_RANGE, /* a number beyond those of the reference */
    NOTE_UNSEEN,       /* a category that the reference does not have */
    NOTE_ANOMALY_COUNT
};

enum note_protocol { NOTE_HTTP1, NOTE_HTTP2, NOTE_GRPC, NOTE_PROTOCOL_COUNT };

enum note_why { /* it goes into the access log */
                NOTE_NOT_LOGGED,
                NOTE_SAMPLE,
                NOTE_ERROR,
                NOTE_SLOW,
                NOTE_WHY_COUNT
};

struct note {
    int64_t wall_ns; /* of the arrival */
    uint64_t total_us, queue_us, compute_us;
    const struct counter_series *series; /* of the version, or NULL: lives for ever */
    const char *form;                    /* static: "oip", "predict", … */
    const char *fallback;                /* static: why another version was left; NULL: none was */
    uint64_t bytes_in, bytes_out;
    uint32_t rows, batch_rows;
    uint32_t anomalies[NOTE_ANOMALY_COUNT];
    uint16_t status; /* HTTP, or what it would be */
    uint8_t code;    /* enum code */
    uint8_t end;     /* enum request_end; END_COUNT: it was to no endpoint */
    uint8_t protocol, why;
    bool has_trace, has_parent, exported, has_user, counts_anomalies, ran_remote, replayed;
    struct trace_context trace;              /* its span_id is that of the caller */
    unsigned char span_id[TRACE_SPAN_BYTES]; /* ours */
    struct trace_context ran_in;             /* ran_remote: the trace and span of the call */
    uint8_t id_bytes, tenant_bytes, caller_bytes, route_bytes;
    uint16_t state_bytes;
    unsigned char user[RECORD_USER_BYTES];
    char id[RECORD_ID_MAX], tenant[NOTE_TENANT_BYTES], caller[NOTE_CALLER_BYTES];
    char route[NOTE_ROUTE_BYTES]; /* the path, of a request to no endpoint */
    char state[TRACE_STATE_BYTES_MAX];
};

struct note_ring {
    _Alignas(64) uint64_t put; /* atomic, the loop's */
    uint64_t dropped;          /* atomic, the loop's */
    _Alignas(64) uint64_t got; /* atomic, the reader's */
    struct note notes[NOTE_RING];
};

/* Room for a note, or NULL, counted. Between the two calls nothing else may ask for one. */
static inline struct note *note_begin(struct note_ring *r)
{
    if (UNLIKELY(r->put - __atomic_load_n(&r->got, __ATOMIC_ACQUIRE) == NOTE_RING)) {
        counter_add(&r->dropped, 1);
        return NULL;
    }
    return &r->notes[r->put % NOTE_RING];
}
/* Hands it over; true when the reader should be woken: the ring is half full. */
static inline bool note_commit(struct note_ring *r)
{
    __atomic_store_n(&r->put, r->put + 1, __ATOMIC_RELEASE);
    return r->put - __atomic_load_n(&r->got, __ATOMIC_RELAXED) == NOTE_RING / 2;
}

/* The oldest note, or NULL. The reader's. */
static inline const struct note *note_next(const struct note_ring *r)
{
    return r->got == __atomic_load_n(&r->put, __ATOMIC_ACQUIRE) ? NULL
                                                                : &r->notes[r->got % NOTE_RING];
}
static inline void note_release(struct note_ring *r)
{
    __atomic_store_n(&r->got, r->got + 1, __ATOMIC_RELEASE);
}
