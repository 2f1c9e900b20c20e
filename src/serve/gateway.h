/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway: loops that answer requests by an immutable plan, a shadow worker, and the keeper of
 * records. It knows no database and asks nobody while it answers.
 *
 *   gateway_new -> gateway_publish (a plan) -> gateway_start -> … gateway_publish again … ->
 * gateway_free
 */
#pragma once

#include "loop/tls.h"
#include "record/keeper.h"
#include "serve/served.h"
#include "serve/telemetry/telemetry.h"

struct gateway_config {
    const char *listen;       /* "127.0.0.1:8080" or "unix:/path" */
    const char *state_dir;    /* blobs/, plan/, records/ live below it */
    uint32_t loops;           /* 0 = CPUs of this process */
    uint32_t connections_max; /* per loop; above, 503 and close */
    uint32_t head_bytes_max;
    uint64_t body_bytes_max;    /* of any request; an endpoint may be stricter */
    int64_t idle_timeout_ns;    /* keep-alive connection without a request */
    int64_t request_timeout_ns; /* from the first byte of a request to its last: slow clients */
    bool records, monitors;
    str server_name;                                      /* of GET /v2 */
    str pseudonym_key;                                    /* HMAC key of user ids */
    struct keeper_config keeper;                          /* its callbacks are set by the gateway */
    void (*on_digest)(void *ctx, const struct digest *d); /* on the keeper thread; or NULL */
    void *on_digest_ctx;
    size_t ring_bytes;
    const int *sockets; /* to listen on, in place of opening some at `listen`: the gateway's from
                           gateway_new() on, also when that fails */
    size_t socket_count;
    bool sockets_apart; /* each is an address of its own, not one of a group that shares a port */
    bool successor;     /* of another gateway on this state directory, which is about to end */
    struct telemetry_config telemetry;
    struct tls_context
        *tls; /* the gateway's from gateway_new() on, also when that fails; NULL: plain */
};

struct gateway;

/* Opens blobs, keeper and sockets; no request is accepted yet. Main thread. */
NODISCARD int gateway_new(const struct gateway_config *cfg, struct gateway **ret_gw, struct err *e);
void gateway_free(struct gateway *gw); /* stops; accepts NULL */
DEFINE_AUTO_PTR(struct gateway, gateway_free)

/* Starts the loops. */
NODISCARD int gateway_start(struct gateway *gw, struct err *e);
/* The listening sockets, for who keeps them when this process ends; the files of unix sockets are
 * left to him. Borrowed until gateway_sockets_forget(), which says that they have been passed on,
 * or never will be: a gateway alone stops listening when its loops do. */
size_t gateway_sockets(struct gateway *gw, const int **ret_fds);
void gateway_sockets_forget(struct gateway *gw, bool kept_by_others);

/* Goes towards the end, while everything is still answered. Clients are told to go elsewhere:
 * answers of HTTP/1.1 say Connection: close, HTTP/2 says GOAWAY. */
enum gateway_leave {
    GATEWAY_ANNOUNCES = 1, /* not ready any more, still accepting: load balancers shall see it */
    GATEWAY_RETIRES,       /* accepts no more: a successor has the same sockets */
};
void gateway_leave(struct gateway *gw, enum gateway_leave how);
enum gateway_leave gateway_leaving(const struct gateway *gw); /* 0: it stays */
bool gateway_is_deserted(const struct gateway *gw);           /* no connection is open */

/* Stops accepting, answers what has come in and closes the connections; waits for that at most
 * grace_ns (0: not at all). Main thread; the keeper goes on until gateway_free(). */
void gateway_stop(struct gateway *gw, int64_t grace_ns);

/* Builds the plan, hands it to the loops, each of which takes it over between two turns, and, once
 * the gateway is started, waits until all have. On failure the last good plan stays. Blocks while
 * models load: a worker thread. */
NODISCARD int gateway_publish(struct gateway *gw, str plan_hash, struct err *e);
/* Takes the endpoint out of service and its models out of memory, or brings it back, by the plan in
 * force. It stays unloaded until it is loaded, until a plan changes it, or until this process ends.
 * NOT_FOUND; whatever loading a model can say. Blocks like gateway_publish(). */
NODISCARD int gateway_set_loaded(struct gateway *gw, str endpoint, bool load, struct err *e);
/* Hash of the plan handed out last, "" before the first. */
void gateway_plan_hash(struct gateway *gw, char ret_hash[PLAN_HASH_SIZE]);
bool gateway_ready(struct gateway *gw); /* a plan is live on every loop */

/* The file of the access log was moved: it is opened again. Main thread. */
void gateway_reopen_logs(struct gateway *gw);

/* What new connections are met with from now on; takes the reference. Main thread. */
void gateway_set_tls(struct gateway *gw, struct tls_context *context);

uint16_t gateway_port(const struct gateway *gw); /* the bound port (for port 0), 0 for unix */
struct keeper *gateway_keeper(struct gateway *gw);

/* Looks for runs past their deadline and cancels them; unloads what only old plans used. Called
 * every ~20 ms by the main thread. */
void gateway_watchdog(struct gateway *gw);
