/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the control process: what its one thread owns, and what flow workers may ask of it.
 */
#pragma once

#include "api/api.h"
#include "flow/flow.h"
#include "journal/journal.h"
#include "loop/mailbox.h"
#include "registry/registry.h"
#include "retrain/retrain.h"
#include "rollout/rollout.h"
#include "server/gateways.h"
#include "server/issuers.h"
#include "server/server.h"
#include "store/lake/lake.h"
#include "watch/watch.h"

#include <pthread.h>

#define TALLY_ENDPOINTS 10000
#define TALLY_SECONDS                                                           \
    1024 /* with labels, of an endpoint: how far back tally_labels_since() sees \
          */

/* What workers may know of the digests: under a lock, because the control thread writes it. The
 * totals are durable: kv scope "labels", key = endpoint, {"total"}, written with the evidence. */
struct tally {
    pthread_mutex_t lock;
    size_t n;
    struct tally_endpoint {
        str endpoint;          /* owned */
        int drifting;          /* as watch_drifting() said last */
        int64_t total;         /* labels ever */
        int64_t saved, saving; /* of them in the store; in the transaction under way */
        uint32_t at;           /* next place */
        int64_t second[TALLY_SECONDS];
        int64_t labels[TALLY_SECONDS];
    } * list[TALLY_ENDPOINTS];
};
void tally_init(struct tally *t);
void tally_done(struct tally *t);
void tally_labels(struct tally *t, str endpoint, int64_t wall_ns, int64_t n);
void tally_drifting(struct tally *t, str endpoint, int drifting);
int64_t tally_labels_total(struct tally *t, str endpoint);
NODISCARD int tally_load(struct tally *t, struct meta *m, struct err *e);
/* Writes what changed, inside a transaction of the caller, who says when it is committed. */
NODISCARD int tally_save(struct tally *t, struct meta *m, struct err *e);
void tally_saved(struct tally *t);
int64_t tally_labels_since(struct tally *t, str endpoint, int64_t wall_ns); /* whole seconds */
int tally_is_drifting(struct tally *t, str endpoint);

struct control {
    const struct server_options *options;
    char self[4096];    /* path of this program */
    struct arena arena; /* as long as the process */
    struct loop *loop;
    struct loop_signals signals;
    struct loop_timer tick, slow_tick; /* 100 ms, 1 s */
    struct mailbox news;               /* wake-ups from the meta store's watchers */
    struct mail news_mail;
    bool news_posted; /* atomic */
    struct meta_store *store;
    struct meta *meta; /* of this thread */
    struct blobs *blobs;
    struct arena project_arena;
    struct json *project; /* the applied tree, or NULL */
    struct watch *watch;
    struct rollouts *rollouts;
    struct gateways gateways;
    struct api *api;
    struct issuers *issuers; /* whose tokens are believed: their public keys */
    struct tally tally;
    struct registry_env registry;
    struct retrain_env retrain;
    struct flow_runner *runner;
    bool plan_stale; /* something that it depends on has changed */
    char plan[PLAN_HASH_SIZE];
    char plan_story[128]; /* correlation of the fact that changed it last */
    char plan_told[128];  /* that of the plan in force: its plan.live belongs to the same story */
    int64_t export_due_ns, sweep_due_ns; /* mono */
    struct digest_clock clock;           /* digests folded */
    int64_t evidence_due_ns;             /* mono: the next save */
    int64_t wall_ahead_ns;               /* of the monotonic clock, when last looked */
    bool evidence_new, evidence_failing; /* since the last save; the last save failed */
    bool ready, stopping;
};

/* control_facts.c: reads what is new in the journal and lets it have its effects. */
NODISCARD int control_follow(struct control *c, struct err *e);
NODISCARD int control_load_project(struct control *c, struct err *e);
/* Compiles and hands out the plan if something has changed. */
NODISCARD int control_compile(struct control *c, struct err *e);
/* Starts the rollouts that flows asked for. */
NODISCARD int control_start_wanted(struct control *c, struct err *e);
/* First start: what weir.yaml says becomes the applied project. */
NODISCARD int control_first_apply(struct control *c, struct err *e);

/* control_ports.c: functions that modules and workers are given. */
void control_ports(struct control *c);
void control_api_context(struct control *c, struct api_context *ret);

/* control_evidence.c */
NODISCARD int control_evidence_load(struct control *c, struct err *e);
/* False: this digest has been folded already. */
bool control_evidence_note(struct control *c, const struct digest *d);
void control_evidence_save(struct control *c, bool now); /* else when it is time */

/* control_export.c: the flow that turns sealed record segments into Parquet. */
const struct flow_type *export_flow(void); /* env: struct control */
NODISCARD int control_export_if_due(struct control *c, struct err *e);
