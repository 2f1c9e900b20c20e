/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One keep-alive HTTP/1.1 connection of the generator: one request at a time, one answer each.
 */
#pragma once

#include "load/tally.h"
#include "loop/dial.h"
#include "loop/loop.h"
#include "wire/http1_client.h"

#define LOAD_ANSWER_BYTES_MAX ((size_t)1 << 20)

struct load_conn;
/* status: of HTTP, or 0 with the failure. The connection is free for the next request, also within
 * the call. The body is valid during the call, until the next request. */
typedef void (*load_conn_fn)(struct load_conn *c, int status, enum load_failure failure, str body);

struct load_conn {
    struct loop_fd watch; /* fd -1: closed */
    struct loop *loop;
    const struct addr *to; /* borrowed */
    load_conn_fn done;
    void *owner;
    int64_t sent_ns; /* when the request was begun; 0: none under way */
    struct buf out;  /* the request */
    size_t out_at;
    char *in; /* owned */
    size_t in_n, in_cap;
    size_t seen, body_at, body_n, raw_at;
    struct http1_response res;
    struct http1_body body;
    bool connecting, in_body;
};

void load_conn_init(struct load_conn *c, struct loop *l, const struct addr *to, load_conn_fn done,
                    void *owner);
void load_conn_done(struct load_conn *c); /* accepts a zeroed one; no callback */
static inline bool load_conn_busy(const struct load_conn *c)
{
    return c->sent_ns != 0;
}
/* Begins the request that the caller has put into c->out. Connects first when need be. The callback
 * may come within the call (a refused connection). */
void load_conn_send(struct load_conn *c, int64_t now_ns);
/* Ends a request under way with this failure, and the connection. */
void load_conn_fail(struct load_conn *c, enum load_failure failure);
