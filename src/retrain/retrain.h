/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retraining: from a cause to a version in rollout.
 *
 *   cause (drift, performance, schema change, volume, schedule, a person)
 *     -> trigger rules: cooldown, budget, one run in flight      trigger.fired | trigger.skipped
 *     -> flow "retrain": triage -> review -> labels -> snapshot -> train -> register -> gate
 *        -> rollout
 *
 * A run that triage finds pointless (upstream broken, passed already) ends as skipped, one that the
 * gate refuses as rejected; both say why. What a run decides on is frozen in its folder (work/<flow
 * id>): the project as it was, the train, holdout and reference tables with their hashes, the
 * trainer's input and output.
 */
#pragma once

#include "flow/flow.h"
#include "journal/journal.h"
#include "store/blobs/blobs.h"

/* What retraining needs of others; filled by server/. Called on flow workers, and those about
 * labels and clocks on the control thread too. */
struct retrain_ports {
    void *ctx;
    void (*seal)(void *ctx); /* gateways flush and seal their records, soon */
    /* Labels that came for an endpoint: since a time not long ago, and ever (survives restarts). */
    int64_t (*labels_since)(void *ctx, str endpoint, int64_t wall_ns);
    int64_t (*labels_total)(void *ctx, str endpoint);
    /* Still drifting? 1 yes, 0 no, -1 not watched. */
    int (*drifting)(void *ctx, str endpoint);
    int64_t (*cron_next)(void *ctx, str expression, int64_t after_ns); /* INT64_MAX: never */
    /* Compares candidate and champion on the holdout table: the gate of evaluate/. */
    int (*gate)(void *ctx, struct meta *m, const struct json *project, str model, int64_t candidate,
                int64_t champion, const char *holdout, const char *work_dir, struct arena *a,
                struct json **ret_report, struct err *e);
    /* Runs the pipeline that the project puts before the model over the training table, which keeps
     * its label and __ts, into the file `to`; *ret_document is the pipeline with the parameters
     * that this table gave it, NULL when there is none (then no file is made). */
    int (*prepare)(void *ctx, const struct json *project, str model, const char *train, str label,
                   const char *to, const char *work_dir, struct arena *a,
                   struct json **ret_document, struct err *e);
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
    str correlation;          /* of the cause's story, or empty: a new story */
    const struct json *cause; /* data of the fact, or NULL */
    int64_t changed_ns;       /* when the world changed, by the cause; 0: unknown */
    bool override_cooldown;   /* a person's word; wants a reason */
};
struct retrain_answer {
    bool started;
    char flow[UUID_SIZE]; /* what was started, or the run in flight that covers this too, or "" */
    char why[200];        /* why it was not started, as trigger.skipped says it */
};
/* Asks for a run: guards first (in flight, trainer, regulated, cooldown, budget), then the flow,
 * in one transaction (it joins the caller's). NOT_FOUND: no such model; INVALID_ARGUMENT: override
 * without a reason. Control thread. */
NODISCARD int retrain_ask(const struct retrain_env *env, struct meta *m, const struct json *project,
                          const struct retrain_request *request, struct retrain_answer *ret,
                          struct err *e);

/* Holds a new fact against the trigger rules of the project. Control thread, inside the transaction
 * of the journal cursor. */
NODISCARD int retrain_on_fact(const struct retrain_env *env, struct meta *m,
                              const struct json *project, const struct fact *fact, struct err *e);
/* True for types that retrain_on_fact looks at: others need no transaction. */
bool retrain_wants_fact(str type);
/* Schedules and label volumes; every second or so. */
NODISCARD int retrain_tick(const struct retrain_env *env, struct meta *m,
                           const struct json *project, int64_t wall_ns, struct err *e);

/* Removes the folders of runs that ended keep_ns ago, or are no longer known. Worker. */
NODISCARD int retrain_sweep(const struct retrain_env *env, struct meta *m, int64_t wall_ns,
                            int64_t keep_ns, int64_t *ret_removed, struct err *e);

/* Body of the hidden command `weir trainer-xgboost`: the built-in trainer, in a child process. */
int retrain_xgboost_main(int argc, char **argv);
