/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan brought to life: models loaded, tables built, lanes ready. Built by the loader (a worker
 * thread), then published to the loops, which only read it, and let go when the last loop has moved
 * on.
 *
 * Endpoints are shared between plans when their part is unchanged, and models when artifact and
 * platform are: a swap that moves ten percent of one endpoint's traffic loads nothing.
 */
#pragma once

#include "plan/plan.h"
#include "record/schema.h"
#include "serve/auth/guard.h"
#include "serve/counters.h"
#include "serve/crew.h"
#include "serve/replay.h"
#include "serve/runtime/runtime.h"
#include "wire/infer_pb.h"
#include "wire/tensor_json.h"

/* Rows that a run joins before it is due, besides the largest request. Measured on a hundred trees
 * of depth 6 under ONNX Runtime: 2.8 us for a row alone, 1.2 a row up to 64 together, 3.0 at 128.
 */
#define SERVED_LANE_ROWS_MIN 64

/* A row that costs more than this does not run on a loop, where others would wait for it, unless
 * the project says so. */
#define SERVED_SLOW_NS INT64_C(250000)

/* One loop's place at a model: requests of a turn gather their rows in the slot, one run answers
 * all. Only the owning loop touches it, but for run_deadline_ns, which the watchdog reads. */
struct lane {
    struct runtime_slot *slot;       /* owned */
    uint32_t rows;                   /* gathered in this turn */
    struct counter_series *counters; /* of the version that gathered first: it counts the run */
    bool failed;                     /* the joint run failed: requests are run one by one */
    uint64_t row_cost_ns;            /* moving average of a row's share of a run */
    int64_t run_ns;                  /* how long the last run took */
    int64_t run_deadline_ns;         /* atomic; 0 when nothing runs */
};

struct served_model {
    uint32_t refs;               /* atomic */
    str key;                     /* platform, artifact and lane rows */
    struct runtime_model *model; /* owned */
    struct crew *crew;           /* owned; NULL: the loops run the model themselves */
    enum plan_breaker held;      /* how its breaker is held; of the thread that loads plans */
    enum plan_breaker wanted;    /* by the plan that is being loaded */
    bool slow;                   /* a row costs more than SERVED_SLOW_NS, or waits for others */
    uint32_t lane_rows;
    uint32_t lane_count; /* one for each loop (without a slot where there is a crew), one for the
                            shadow worker, and one more for each loop: where this is a fallback */
    struct lane lanes[];
};

struct served_version {
    const struct plan_version *plan;    /* NULL: the static answer of a fallback, */
    struct served_model *model;         /* a reference; NULL like it */
    const struct record_schema *schema; /* NULL: nothing to record by column */
    struct infer_response_plan response;
    struct infer_pb_plan response_pb;
    struct counter_series *counters;
    str text;    /* the version number as text */
    uint8_t arm; /* for records: 0 = champion */
};

struct served_fallback;
struct event_series;

struct served_endpoint {
    uint32_t refs; /* atomic */
    struct arena arena;
    struct plan_endpoint plan;
    struct infer_schema schema;
    struct field_table fields; /* column_count 0: no row-by-name form */
    struct served_version versions[PLAN_VERSIONS_MAX];
    size_t version_count;
    struct served_version *champion;  /* first with a weight; NULL: not ready */
    struct served_version *shadow;    /* or NULL */
    struct bucket *bucket;            /* of its limit, for ever; NULL without a guard */
    struct gcra limit;                /* of all its callers together */
    struct counter_series *unready;   /* where requests count that reach no version */
    struct served_fallback *fallback; /* NULL: a failure is the answer */
    struct replay_window *window;     /* a reference; NULL: answers are not kept */
    struct event_series *window_events;
    bool unloaded; /* by request: it has no versions, and need not answer */
    bool batched;  /* rows of several requests may share a run */
    bool in_crew;  /* its models have crews */
    uint32_t away; /* atomic: requests in those crews, of all loops */
};

struct served_plan {
    uint32_t refs;            /* atomic */
    uint32_t taken;           /* atomic: loops that took it over */
    struct served_plan *next; /* in the gateway's list of plans on their way out */
    char hash[PLAN_HASH_SIZE];
    struct arena arena;
    struct auth *auth;                  /* a reference; NULL without a guard */
    struct served_endpoint **endpoints; /* references, sorted by name */
    size_t endpoint_count;
    uint32_t *slots; /* open addressing over names: index + 1 */
    uint32_t slot_mask;
};

/* An endpoint that was unloaded by request: until it is loaded, or until a plan has another one of
 * that name. */
struct served_unloaded {
    struct served_unloaded *next;
    str name; /* owned */
    char hash[PLAN_HASH_SIZE];
};
bool served_is_unloaded(const struct served_unloaded *list, str name, str hash);

struct served_config {
    struct blobs *blobs;
    uint32_t loops;
    bool records; /* fold and store what the endpoints answer */
    bool cells;
    const char *work_dir; /* where engines may keep files; NULL: the present folder */
    struct guard *guard;  /* NULL: the plan is for no gateway (tests) */
    bool is_local;        /* only this machine can reach the gateway */
    const struct served_unloaded *unloaded; /* these are built without their models */
};

/* Builds what `root_hash` says, taking from `previous` (may be NULL) what is unchanged. Worker. Any
 * failure leaves `previous` as it was. */
NODISCARD int served_plan_new(const struct served_config *cfg, str root_hash,
                              struct served_plan *previous, struct served_plan **ret_plan,
                              struct err *e);
struct served_plan *served_plan_ref(struct served_plan *p);
void served_plan_unref(struct served_plan *p); /* accepts NULL; any thread */
DEFINE_AUTO_PTR(struct served_plan, served_plan_unref)
/* Ends the crews of all its models; their jobs come back cancelled. For good: at the end. */
void served_plan_stop_crews(struct served_plan *p);
uint64_t served_models_unloaded(void); /* of this process, ever */
struct served_endpoint *served_endpoint_ref(struct served_endpoint *ep);
void served_endpoint_unref(struct served_endpoint *ep); /* accepts NULL; any thread */

/* The endpoint of that name, or NULL. Any thread that holds the plan. */
struct served_endpoint *served_plan_find(const struct served_plan *p, str name);
/* The version of that number (decimal text), or NULL. */
struct served_version *served_version_find(struct served_endpoint *ep, str version);
struct served_version *served_version_of(struct served_endpoint *ep, const struct plan_version *v);
