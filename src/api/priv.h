/* SPDX-License-Identifier: Apache-2.0 */
/* Between the server (server.c, conn.c), the router (route.c) and the resources. */
#pragma once

#include "api/api.h"
#include "journal/journal.h"
#include "loop/listen.h"
#include "wire/http1.h"

struct api_conn;

struct api {
    struct loop *loop;
    struct api_context ctx;
    struct listener tcp, unix_socket;
    struct loop_timer sweep;
    struct api_conn *conns; /* owned list */
    uint32_t conn_count;
    uint16_t port;
    char host[ADDR_TEXT_SIZE]; /* of the TCP address, without its port */
    struct arena arena;        /* of the request at hand */
    struct buf body;           /* of the answer at hand */
    struct json_out out;       /* writes into body */
    int64_t started_ns;        /* wall */
    uint64_t requests, refused, failed;
};

#define API_PARAMS_MAX 2

/* One request while its handler runs. Everything lies in `a` or in the connection's buffer. */
struct api_request {
    const struct http1_request *http;
    struct arena *a;
    str param[API_PARAMS_MAX]; /* the {segments} of the route, decoded */
    const struct json *body;   /* the object that was sent; an empty one when none was */
    str actor;
    bool is_tcp;
    struct json_out *out;       /* the answer: one value */
    const char *content_type;   /* "application/json" unless the handler says otherwise */
    struct json *error_details; /* optional, for an error */
};

typedef int (*api_handler)(struct api *api, struct api_request *rq, struct err *e);

#define ROUTE(method, path, handler, help) \
    NODISCARD int api_##handler(struct api *api, struct api_request *rq, struct err *e);
#include "api/routes.def"
#undef ROUTE

/* Routes and answers one request: status, and the body in api->body. */
int api_answer(struct api *api, struct api_request *rq, struct err *e);
bool api_host_is_known(const struct api *api, str host);

void api_conn_accept(struct api *api, int fd, bool is_tcp);
void api_conns_sweep(struct api *api);
void api_conns_close(struct api *api);

/* --- What handlers share (request.c) ---------------------------------------------------------- */

/* A query parameter, or empty; INVALID_ARGUMENT when it is malformed. */
NODISCARD int api_query(struct api_request *rq, str name, str *ret, struct err *e);
NODISCARD int api_query_int(struct api_request *rq, str name, int64_t lo, int64_t hi, int64_t def,
                            int64_t *ret, struct err *e);
/* An optional text of the body; INVALID_ARGUMENT when it is something else or too long. */
NODISCARD int api_body_str(struct api_request *rq, str name, str *ret, struct err *e);

/* The normalised tree that is applied, or NULL; *ret_hash is "" then. */
NODISCARD int api_applied(struct api *api, struct arena *a, struct json **ret_tree, str *ret_hash,
                          struct err *e);
/* An endpoint of the applied project. NOT_FOUND with a suggestion. */
NODISCARD int api_endpoint(struct api *api, struct api_request *rq, str name,
                           struct json **ret_tree, struct json **ret_endpoint, struct err *e);
/* NOT_FOUND with a suggestion unless the tree that is applied has the model. */
NODISCARD int api_need_model(struct api_request *rq, const struct json *tree, str name,
                             struct err *e);
/* NOT_FOUND unless the version is registered. */
NODISCARD int api_need_version(struct meta *m, str model, int64_t version, struct err *e);
/* fallback.c: NOT_FOUND, INVALID_ARGUMENT. */
NODISCARD int api_check_fallback(struct api *api, struct api_request *rq, const struct json *tree,
                                 const struct json *endpoint, struct err *e);
/* alias_move() of a version that is registered. */
NODISCARD int api_alias_move(struct meta *m, str model, str alias, int64_t version, str actor,
                             str reason, int64_t *ret_previous, struct err *e);
void api_told_changed(struct api *api);

/* --- Stories (story.c) ------------------------------------------------------------------------ */

NODISCARD int api_stories_write(struct meta *m, str endpoint, str correlation, int64_t after_seq,
                                uint32_t limit, struct arena *a, struct json_out *out,
                                struct err *e);
