/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote runtime, as its own files see it.
 *
 *   remote_artifact.c  what the user says of the server
 *   remote_http.c      one exchange over one kept connection
 *   remote_engine.c    loading, slots, runs: retries and the breaker
 */
#pragma once

#include "base/json.h"
#include "loop/addr.h"
#include "serve/breaker.h"
#include "serve/runtime/priv.h"
#include "wire/http1_client.h"

#include <pthread.h>

#define REMOTE_ARTIFACT_BYTES_MAX ((size_t)1 << 20)

/* --- The artifact ----------------------------------------------------------------------------- */

struct remote_config {
    str host;    /* "models.example:8000": of the Host header */
    str address; /* the same with a port in any case: to dial */
    str base;    /* path before /v2, without a slash at its end; may be empty */
    str model, version;
    bool allow_private; /* addresses that are not of the internet at large */
    bool binary;        /* the server takes and gives binary tensors */
    const char *credential_env, *credential_file; /* where the secret is; NULL: none */
    str credential_header, credential_prefix;
    int64_t timeout_ns, connect_ns, backoff_ns, recovery_ns;
    uint32_t retries, failure_threshold;
    uint64_t answer_bytes_max;
    struct tensor_spec *inputs, *outputs; /* NULL: to be asked of the server */
    uint32_t input_count, output_count;
};

/* INVALID_ARGUMENT names the member and what is possible. All lies in the arena. */
NODISCARD int remote_config_read(const struct json *root, struct arena *a,
                                 struct remote_config *ret, struct err *e);

/* --- One exchange ----------------------------------------------------------------------------- */

/* What a failed exchange means. */
struct remote_outcome {
    enum breaker_verdict verdict;
    bool may_retry;   /* the server has not begun to answer, or said 503 */
    int64_t retry_ns; /* it asked to wait so long (Retry-After); 0 = it did not */
};

/* Remembers for a while which address a host has. */
struct remote_resolver {
    pthread_mutex_t mutex;
    struct addr addr;
    int64_t until_ns; /* 0 = not known */
};

struct remote_conn {
    pthread_mutex_t mutex; /* guards fd and state against remote_conn_abort */
    int fd;                /* -1 = none */
    enum { REMOTE_IDLE, REMOTE_RUNNING, REMOTE_ABORTED } state;
    struct buf in;   /* what came and is not used */
    struct buf body; /* of the last answer */
};

struct remote_call {
    const struct remote_config *cfg; /* borrowed */
    struct remote_resolver *resolver;
    str method, target, content_type, extra, body;
    int64_t deadline_ns;
};

struct remote_answer {
    int status;
    str json, raw; /* valid until the next call; raw.p == NULL without a length header */
};

void remote_conn_init(struct remote_conn *c, uint64_t answer_bytes_max);
void remote_conn_done(struct remote_conn *c);
/* Around what may be aborted: some exchanges and the pauses between them. */
void remote_conn_begin(struct remote_conn *c);
void remote_conn_end(struct remote_conn *c);
/* Any thread: what is under way fails with CANCELLED. False when nothing is. */
bool remote_conn_abort(struct remote_conn *c);
bool remote_conn_is_aborted(struct remote_conn *c);
/* Blocks until the deadline at most. An answer of any status is a success. UNAVAILABLE,
 * DEADLINE_EXCEEDED, CANCELLED, INTERNAL (no HTTP), PERMISSION_DENIED (a private address). */
NODISCARD int remote_http(struct remote_conn *c, const struct remote_call *call,
                          struct remote_answer *ret, struct remote_outcome *ret_outcome,
                          struct err *e);

/* Asks the server for the inputs and outputs of the model, and whether it takes binary tensors.
 * Names lie in the arena. */
NODISCARD int remote_describe(const struct remote_config *cfg, struct arena *a,
                              struct remote_config *ret, struct err *e);
/* The complete header line with the secret, read now; empty without credentials. NOT_FOUND,
 * FAILED_PRECONDITION. */
NODISCARD int remote_credentials(const struct remote_config *cfg, struct arena *a, str *ret_line,
                                 struct err *e);
