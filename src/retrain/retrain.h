/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retraining: from a cause to a version in rollout.
 *
 *   cause (drift, performance, schema change, volume, schedule, a person)
 *     -> trigger rules: severity, cooldown, budget, one run in flight    trigger.fired |
 * trigger.skipped
 *     -> flow "retrain": triage -> labels -> seal -> snapshot -> train -> register -> gate ->
 * rollout
 *
 * A run that triage finds pointless (upstream broken, passed already) ends as skipped, one that the
 * gate refuses as rejected; both say why. What a run decides on is frozen in its folder (work/<flow
 * id>): train, holdout and reference tables, the trainer's input and output.
 */
#pragma once

#include "flow/flow.h"
#include "journal/journal.h"
#include "store/blobs/blobs.h"

/* What retraining needs of others; filled by server/. Functions are called on flow workers. */
struct retrain_ports {
    void *ctx;
    void (*seal)(void *ctx); /* gateways flush and seal their records, soon */
    int64_t (*labels_since)(void *ctx, str endpoint, int64_t wall_ns);
    /* Still drifting? 1 yes, 0 no, -1 not watched. */
    int (*drifting)(void *ctx, str endpoint);
    int64_t (*cron_next)(void *ctx, str expression, int64_t after_ns); /* INT64_MAX: never */
    /* Compares candidate and champion on the holdout table: the gate of evaluate/. */
    int (*gate)(void *ctx, struct meta *m, const struct json *project, str model, int64_t candidate,
                int64_t champion, const char *holdout, const char *work_dir, struct arena *a,
                struct json **ret_report, struct err *e);
};

struct retrain_env {
    struct meta_store *store;
    struct blobs *blobs;
    const char *project_dir, *state_dir;
    const char *self; /* path of this program: trainers are children of it */
    struct retrain_ports ports;
};

/* The flow type; its env is a struct retrain_env. */
const struct flow_type *retrain_flow(void);

struct retrain_request {
    str model, endpoint; /* endpoint may be empty: the one that serves the model */
    str trigger;         /* name of the rule, or "manual" */
    str kind;            /* drift, performance, schema_change, volume, schedule, manual */
    str actor, reason;
    str correlation;          /* of the cause's story, or empty */
    const struct json *cause; /* data of the fact, or NULL */
    int64_t changed_ns;       /* when the world changed, by the cause; 0: unknown */
    bool override_cooldown;
};
/* Asks for a run: guards first (cooldown, budget, regulated, in flight), then the flow.
 * *ret_started false: it was skipped, ret_flow is the run in flight or "", and why is in the
 * journal. */
NODISCARD int retrain_start(const struct retrain_env *env, struct meta *m,
                            const struct json *project, const struct retrain_request *request,
                            bool *ret_started, char ret_flow[UUID_SIZE], struct err *e);

/* Holds a new fact against the trigger rules of the project. Control thread, inside the transaction
 * of the journal cursor. */
NODISCARD int retrain_on_fact(const struct retrain_env *env, struct meta *m,
                              const struct json *project, const struct fact *fact, struct err *e);
/* Schedules and label volumes; every second or so. */
NODISCARD int retrain_tick(const struct retrain_env *env, struct meta *m,
                           const struct json *project, int64_t wall_ns, struct err *e);

/* Body of the hidden command `weir trainer-xgboost`: the built-in trainer, in a child process. */
int retrain_xgboost_main(int argc, char **argv);
