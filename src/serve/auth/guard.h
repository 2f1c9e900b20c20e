/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may ask the gateway, and how much: one call before a handler runs.
 *
 *   guard        one for each gateway: buckets and quota counters, which outlive plans
 *   auth         the auth part of a plan brought to life: immutable, shared by the plans that have
 * it guard_loop   one for each loop: its counters and its cache of verified tokens
 *
 * The order: address (before any cryptography), credential, permission, endpoint of the credential,
 * then the rates of key, tenant, endpoint and gateway, then quotas. A request that is refused late
 * gives back what earlier limits took, but for that of its address.
 */
#pragma once

#include "loop/addr.h"
#include "plan/auth.h"
#include "serve/auth/limits.h"
#include "wire/http1.h"

enum verdict {
#define VERDICT(name, code, label, text) VERDICT_##name,
#include "serve/auth/verdicts.def"
#undef VERDICT
    VERDICT_COUNT
};

struct guard;
struct guard_loop;
struct auth;

/* Opens the quota counters of the state directory. `loops` rows of counters. Main thread. */
NODISCARD int guard_new(const char *state_dir, uint32_t loops, struct guard **ret_guard,
                        struct err *e);
/* Starts the thread that keeps quota counters on disk, at most a second old. */
NODISCARD int guard_start(struct guard *g, struct err *e);
void guard_free(struct guard *g); /* stops, writes the counters a last time; accepts NULL */
DEFINE_AUTO_PTR(struct guard, guard_free)
struct guard_loop *guard_loop_of(struct guard *g, uint32_t loop);
/* The bucket of an endpoint, for ever; RESOURCE_EXHAUSTED. When a plan is loaded. */
NODISCARD int guard_endpoint_bucket(struct guard *g, str name, struct bucket **ret_bucket,
                                    struct err *e);
/* What limits tell addresses apart by; 0 (never limited) for a unix socket. An IPv6 network of 64
 * bits counts as one address: that is what one customer gets. */
uint64_t guard_peer_id(const struct guard *g, const struct addr *peer);
bool guard_is_local(const struct addr *listen); /* only this machine can reach that address */
void guard_write_metrics(struct guard *g, struct buf *to);

/* From the part of that hash (empty: an open gateway), or a reference to `previous` when it is of
 * the same. `is_local`: only this machine can reach the gateway; FAILED_PRECONDITION when it is not
 * and nobody is asked who he is. Worker. */
NODISCARD int auth_new(struct guard *g, struct blobs *blobs, str hash, bool is_local,
                       struct auth *previous, struct auth **ret_auth, struct err *e);
struct auth *auth_ref(struct auth *a);
void auth_unref(struct auth *a); /* accepts NULL; any thread */
DEFINE_AUTO_PTR(struct auth, auth_unref)

struct guard_ask {
    const struct auth *auth; /* NULL: no plan */
    enum permission permission;
    str endpoint;            /* empty: the request is to none */
    struct bucket *bucket;   /* of the endpoint, or NULL */
    const struct gcra *rate; /* of the endpoint; may be NULL */
    const struct http1_fields *fields;
    uint64_t peer; /* guard_peer_id() */
    int64_t now_ns, wall_ns;
};

/* Whose request it is, to tell callers apart. */
struct guard_caller {
    str key;          /* id of the API key; borrowed from the plan; empty: none */
    uint64_t subject; /* of a token, within its issuer; 0: none */
};

struct guard_verdict {
    enum verdict verdict;
    int status; /* HTTP */
    enum code code;
    uint32_t permissions; /* MAY() of who asks; 0 for a public route */
    str message;          /* what the caller is told */
    str headers; /* complete header lines, or empty; valid until the next question of this loop */
    str tenant;  /* of the credential; empty: none. Valid until then too */
    str caller;  /* the id of the key, or the name of the issuer; empty: none. The same */
    struct guard_caller who;
};

/* True: let the handler run. Allocates nothing but for a token that this loop has not met. */
bool guard_admit(struct guard_loop *gl, const struct guard_ask *ask, struct guard_verdict *ret)
    RUNS_ON(on_loop) HOT;
