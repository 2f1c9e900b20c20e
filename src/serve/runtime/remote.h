/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote runtime, as its own files see it.
 *
 *   remote_artifact.c  what the user says of the server
 *   remote_conn.c      the connection that a slot keeps
 *   remote_http.c      questions and answers over HTTP/1.1
 *   remote_grpc.c      the same over gRPC
 *   remote_engine.c    loading, slots, runs: retries and the breaker
 */
#pragma once

#include "base/json.h"
#include "loop/channel.h"
#include "serve/breaker.h"
#include "serve/runtime/priv.h"
#include "wire/http2_client.h"

#include <pthread.h>

#define REMOTE_ARTIFACT_BYTES_MAX ((size_t)1 << 20)

/* --- The artifact ----------------------------------------------------------------------------- */

struct remote_protocol;

struct remote_config {
    const struct remote_protocol *protocol;
    bool tls;
    str host;         /* "models.example:8000": as HTTP names the server */
    str address;      /* the same with a port in any case: to dial */
    const char *name; /* the host alone: whom a certificate must be for */
    str base;         /* path before /v2, without a slash at its end; may be empty */
    str model, version;
    bool allow_private; /* addresses that are not of the internet at large */
    bool binary;        /* the server takes and gives binary tensors */
    const char *credential_env, *credential_file; /* where the secret is; NULL: none */
    str credential_header, credential_prefix;
    str credential_field;               /* the header's name in small letters */
    const char *ca, *certificate, *key; /* of TLS; NULL: the system's, none */
    int64_t timeout_ns, connect_ns, backoff_ns, recovery_ns;
    uint32_t retries, failure_threshold;
    uint64_t answer_bytes_max;
    struct tensor_spec *inputs, *outputs; /* NULL: to be asked of the server */
    uint32_t input_count, output_count;
};

/* INVALID_ARGUMENT names the member and what is possible. All lies in the arena. */
NODISCARD int remote_config_read(const struct json *root, struct arena *a,
                                 struct remote_config *ret, struct err *e);

/* --- Connections and exchanges ---------------------------------------------------------------- */

/* What a failed exchange means. */
struct remote_outcome {
    enum breaker_verdict verdict;
    bool may_retry;   /* the server has not begun to answer, or said that it is not ready */
    int64_t retry_ns; /* it asked to wait so long; 0 = it did not */
};

/* Remembers for a while which address a host has. */
struct remote_resolver {
    pthread_mutex_t mutex;
    struct addr addr;
    int64_t until_ns; /* 0 = not known */
};

struct remote_conn {
    pthread_mutex_t mutex; /* guards state, and writes to wake_fd, against remote_conn_abort */
    enum { REMOTE_IDLE, REMOTE_RUNNING, REMOTE_ABORTED } state;
    int wake_fd; /* owned: an eventfd, readable once aborted */
    struct channel channel;
    struct buf in;   /* what came and is not used */
    struct buf body; /* HTTP/1.1: of the last answer */
    struct buf out;  /* HTTP/2: frames; [out_at, n) is to be written */
    size_t out_at;
    struct http2_client *h2; /* owned; NULL = no session */
};

struct remote_call {
    const struct remote_config *cfg; /* borrowed */
    struct remote_resolver *resolver;
    struct tls_context *tls; /* borrowed; NULL: in the clear */
    str method, target, content_type, body;
    size_t json_bytes;                 /* of the body, when raw tensors follow; else 0 */
    const struct runtime_trace *trace; /* of who asks, told on; or NULL */
    str credential;                    /* value of the header with the secret; empty: none */
    int64_t deadline_ns;
};

struct remote_answer {
    enum code code; /* OK, or what the server says of the call */
    char said[32];  /* the same in its own words: "status 503", "UNAVAILABLE" */
    str json, raw;  /* HTTP: valid until the next call; raw.p == NULL without a length header */
    str message;    /* gRPC: likewise */
    char text[300]; /* the server's words on what went wrong */
};

struct remote_protocol {
    /* Writes the question of a run; target, content_type, body and json_bytes of the call. */
    int (*question)(const struct runtime_slot *s, const struct remote_config *cfg, struct buf *to,
                    struct remote_call *call, struct err *e);
    /* One exchange: blocks until the deadline at most. An answer of any status is a success.
     * UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, INTERNAL (not this protocol), RESOURCE_EXHAUSTED
     * (too large), PERMISSION_DENIED (a private address). */
    int (*exchange)(struct remote_conn *c, const struct remote_call *call,
                    struct remote_answer *ret, struct remote_outcome *ret_outcome, struct err *e);
    /* Reads a good answer into the outputs. INVALID_ARGUMENT, RESOURCE_EXHAUSTED. */
    int (*take)(const struct remote_answer *answer, struct tensor *outputs, uint32_t output_count,
                struct arena *a, struct err *e);
    /* Asks for inputs and outputs of the model, and whether the server takes binary tensors. Names
     * lie in the arena. */
    int (*describe)(struct remote_conn *c, struct remote_call *call, struct arena *a,
                    struct remote_config *ret, struct err *e);
};
extern const struct remote_protocol remote_http, remote_grpc;

NODISCARD int remote_conn_init(struct remote_conn *c, uint64_t answer_bytes_max, struct err *e);
void remote_conn_done(struct remote_conn *c);
/* Around what may be aborted: some exchanges and the pauses between them. */
void remote_conn_begin(struct remote_conn *c);
void remote_conn_end(struct remote_conn *c);
/* Any thread: what is under way fails with CANCELLED. */
void remote_conn_abort(struct remote_conn *c);
/* False when it was aborted. */
bool remote_conn_pause(struct remote_conn *c, int64_t ns);
void remote_conn_close(struct remote_conn *c);
/* A new connection in place of the old. As remote_protocol.exchange. */
NODISCARD int remote_conn_open(struct remote_conn *c, const struct remote_call *call,
                               struct err *e);
/* An exchange as cfg->protocol does it, and what it means. */
NODISCARD int remote_ask(struct remote_conn *c, const struct remote_call *call,
                         struct remote_answer *ret, struct remote_outcome *ret_outcome,
                         struct err *e);

/* The TLS context that the configuration asks for; NULL in the clear. As tls_client_context_new. */
NODISCARD int remote_tls(const struct remote_config *cfg, struct tls_context **ret_context,
                         struct err *e);
/* Asks the server what the model takes and gives, over a connection of its own. */
NODISCARD int remote_describe(const struct remote_config *cfg, struct arena *a,
                              struct remote_config *ret, struct err *e);
/* The value of the header with the secret, read now; empty without credentials. NOT_FOUND,
 * FAILED_PRECONDITION. */
NODISCARD int remote_credentials(const struct remote_config *cfg, struct arena *a, str *ret_value,
                                 struct err *e);
