/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API: HTTP/1.1 and JSON, on a unix socket for the command line and, when asked, on a
 * TCP address for people and programs.
 *
 * It is the one door to the control process: the command line, the console and scripts all go
 * through it. Handlers run on the control loop, one after another, and are short; anything slow is
 * a flow, and the answer is its id. routes.def lists what there is, one file per resource.
 *
 * Errors are {"error":{"code":"NOT_FOUND","message":"…"}} with the HTTP status of the code, plus
 * "details" where there is more to say than one line (the three-way difference of a stale plan).
 *
 * Who asks: the header X-Weir-Actor, else on the unix socket the user at the other end, else "api".
 * On TCP the API has no passwords: it is for loopback. A request must name a host that this server
 * goes by (a web page that points its own name at 127.0.0.1 does not), and one that changes
 * something must be JSON, which a web page of another origin cannot send.
 */
#pragma once

#include "loop/loop.h"
#include "rollout/rollout.h"
#include "store/blobs/blobs.h"
#include "store/meta/meta.h"
#include "watch/watch.h"

#define API_BODY_BYTES_MAX ((size_t)8 << 20) /* 413 */
#define API_ANSWER_BYTES_MAX ((size_t)256 << 20)
#define API_CONNECTIONS_MAX 256u               /* one more is closed at once */
#define API_IDLE_NS (INT64_C(60) * 1000000000) /* a silent connection is closed after this */

struct api_retrain {
    str model, endpoint; /* one of them may be empty */
    str actor, reason;
    bool override_cooldown;
};

/* What the API speaks for: borrowed, and must outlive it. A port that is NULL makes its routes
 * answer UNIMPLEMENTED. */
struct api_context {
    struct meta_store *store;
    struct meta *meta; /* the connection of the control thread */
    struct blobs *blobs;
    const char *project_dir, *state_dir;
    struct watch *watch;
    struct rollouts *rollouts;
    void *ctx;
    /* Writes members ("gateways", "plan") of the object that is open in o. */
    void (*status)(void *ctx, struct json_out *o);
    void (*seal)(void *ctx);    /* all gateways flush and seal their record segments */
    void (*changed)(void *ctx); /* something that the plan depends on may have changed */
    /* Starts a retrain; ret_flow is the id of its flow. */
    int (*retrain)(void *ctx, struct meta *m, const struct api_retrain *what, char ret_flow[64],
                   struct err *e);
};

struct api;

/* Listens. tcp_address is as in addr.h, or NULL: unix socket only; unix_path is the path of the
 * socket, whose folder exists. UNAVAILABLE when an address is taken. Control thread, like all. */
NODISCARD int api_open(struct loop *loop, const char *tcp_address, const char *unix_path,
                       const struct api_context *context, struct api **ret_api, struct err *e);
void api_close(struct api *api); /* drops connections; accepts NULL */
DEFINE_AUTO_PTR(struct api, api_close)
/* The TCP port, e.g. when it was asked for with 0; 0 when there is none. */
uint16_t api_port(const struct api *api);
