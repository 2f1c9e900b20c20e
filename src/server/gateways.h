/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control's end of the links: who is connected, what plan each serves, and the digests they send.
 */
#pragma once

#include "loop/listen.h"
#include "plan/plan.h"
#include "record/kept.h"
#include "server/link.h"

#define GATEWAYS_MAX 64

struct gateway_peer {
    struct link link;
    struct gateways *all;
    struct gateway_peer *next;
    char name[64];
    char live[PLAN_HASH_SIZE];    /* the plan it serves, or "" */
    char refused[PLAN_HASH_SIZE]; /* the plan it could not serve, or "" */
    char reason[256];             /* why */
    int64_t pid, port;
    uint64_t digests, run, last_sequence, lost_digests;
    bool disk_failing; /* it cannot write its records */
};

struct gateways {
    struct loop *loop;
    struct listener listener;
    struct gateway_peer *first; /* owned list */
    size_t count;
    char plan[PLAN_HASH_SIZE]; /* what all should serve, or "" */
    struct arena digest_arena; /* reset for each digest */
    void *ctx;
    /* Called on the control loop. The digest is borrowed for the call. */
    void (*on_digest)(void *ctx, const struct gateway_peer *from, const struct digest *d);
    void (*on_plan)(void *ctx, const struct gateway_peer *from, const char *plan, const char *error,
                    double load_ms); /* error NULL: live */
    void (*on_change)(void *ctx, const struct gateway_peer *who, bool joined);
};

/* Listens on unix:<state_dir>/run/link.sock. The callbacks and ctx are set by the caller before. */
NODISCARD int gateways_open(struct gateways *g, struct loop *loop, const char *state_dir,
                            struct err *e);
void gateways_close(struct gateways *g);
/* Tells everyone, and whoever comes later, to serve this plan. */
void gateways_set_plan(struct gateways *g, str hash);
void gateways_seal(struct gateways *g); /* all flush and seal their record segments */
/* Tells each how far its digests are written down. */
void gateways_kept(struct gateways *g, const struct digest_clock *clock);
/* True when at least one gateway is there and all of them serve `hash`. */
bool gateways_all_serve(const struct gateways *g, const char *hash);
