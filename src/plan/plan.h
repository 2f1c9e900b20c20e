/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: everything the data plane needs to answer requests, compiled by control into one
 * immutable, content-addressed tree of canonical JSON parts. The root names the parts by their
 * SHA-256; an endpoint part names artifacts and profiles by theirs. Equal hashes mean equal
 * content, so a gateway that gets a new plan reads and rebuilds only the parts that it does not
 * hold yet.
 *
 *   root       {"format":1,"project":…,"gateway":{settings},"endpoints":{"fraud":"<part hash>",…}}
 *   endpoint   see plan_endpoint below and docs/formats.md
 *   auth       who may ask, and how much: plan/auth.h; absent: an open gateway
 *   profile    the reference cells of one model version (what "normal" is); see docs/formats.md
 *
 * Reading is strict: an unknown format, a missing field or a weight sum other than PLAN_WEIGHT_ONE
 * is refused with a message that names the part, and the gateway keeps its last good plan.
 */
#pragma once

#include "base/json.h"
#include "plan/post.h"
#include "store/blobs/blobs.h"
#include "wire/fields_json.h"

#define PLAN_FORMAT 1
#define PLAN_WEIGHT_ONE 10000u /* weights are basis points */
#define PLAN_ENDPOINTS_MAX 10000
#define PLAN_VERSIONS_MAX 8 /* per endpoint, shadow included */
#define PLAN_HASH_SIZE 65
#define PLAN_TIMEOUT_NS_MAX (INT64_C(86400) * 1000000000) /* a day */

/* At most `requests` in `per_ns`, evenly, and `burst` of them at once. requests = 0: no limit. */
struct plan_rate {
    uint32_t requests, burst;
    int64_t per_ns;
};

/* How the outputs are read: indexes into outputs, or -1. */
struct plan_reading {
    int32_t label;         /* INT64 or BYTES tensor with the class */
    int32_t probabilities; /* FP32 [-1, classes] */
    int32_t value;         /* regression, or a lone score */
    str *classes;          /* class texts in the order of the probabilities */
    size_t class_count;
    int32_t positive; /* index of the positive class, or -1 */
    double threshold; /* positive when its probability >= threshold; NaN: take the label */
};

/* What a model takes and gives. The same JSON object ("signature") is stored with a registered
 * version and put into the endpoint part as it is. */
struct plan_signature {
    struct tensor_spec *inputs, *outputs;
    uint32_t input_count, output_count;
    struct field_column *columns; /* none when the model has no row-by-name form */
    uint32_t column_count;
    struct plan_reading reading;
};

/* How the breaker of a remote version is held by hand. */
enum plan_breaker { PLAN_BREAKER_AUTO, PLAN_BREAKER_OPEN, PLAN_BREAKER_CLOSED };

struct plan_version {
    uint32_t version;
    str arm;         /* "champion", "challenger", "shadow", … as records and metrics show it */
    uint32_t weight; /* of PLAN_WEIGHT_ONE; 0 for shadow and for versions on call by number */
    bool shadow;
    str platform; /* one of serve/runtime/runtime.h */
    str artifact; /* sha256 of the model file in blobs */
    str profile;  /* sha256 of the profile part, or empty */
    enum plan_breaker breaker;
};

/* Where the models of an endpoint run. */
enum plan_place { PLAN_PLACE_AUTO, PLAN_PLACE_LOOPS, PLAN_PLACE_CREW };
struct plan_compute {
    enum plan_place place;
    uint32_t workers; /* of a crew; 0 = as many as processors */
    uint32_t threads; /* inside one run */
};
#define PLAN_THREADS_MAX 64

/* How much of an endpoint may be under way, and who goes first. */
#define PLAN_INFLIGHT_MAX (1 << 20)
#define PLAN_PRIORITIES 3 /* 1 is the highest */
#define PLAN_PRIORITY_DEFAULT 2
#define PLAN_LIMIT_MIN_DEFAULT 16
struct plan_queue {
    uint32_t limit;     /* requests in its crew; 0 = learned from their times, */
    uint32_t limit_min; /* but no fewer than this */
    uint8_t priority;   /* of a request that does not say */
};

/* What answers when the version that was chosen for a request fails: plan/fallback.h. */
struct plan_fallback {
    bool on;
    uint32_t versions[PLAN_VERSIONS_MAX]; /* in this order; each is among those of the endpoint */
    size_t version_count;
    struct tensor *answer; /* the static answer: one row of every output; NULL: none */
    double share;          /* of the time left, for a version that another one comes after */
    bool shed;             /* also for requests refused as overload */
};

/* How long answers are kept for repeated request ids. window_ns = 0: not at all. */
struct plan_idempotency {
    int64_t window_ns;
    uint64_t bytes_max;
    uint32_t entries_max;
};

struct plan_endpoint {
    str name;
    str hash; /* of this part */
    str model;
    uint64_t timeout_ns;
    uint64_t body_bytes_max;
    uint32_t rows_max;     /* per request */
    uint32_t inflight_max; /* requests of this endpoint in one loop turn, or in its crew */
    struct plan_queue queue;
    struct plan_compute compute;
    bool durable_log;
    str sticky_field; /* metadata field or parameter that holds the key; empty: header only */
    str sticky_header;
    str salt;
    struct plan_signature signature; /* of all its versions */
    struct plan_version versions[PLAN_VERSIONS_MAX];
    size_t version_count;
    struct plan_rate limit; /* of all its callers together */
    struct plan_fallback fallback;
    struct plan_idempotency idempotency;
    struct json *aliases;         /* response field aliases: {"timestamp":"time"}, or NULL */
    const struct plan_post *post; /* what is done with answers; or NULL */
};

struct plan {
    char hash[PLAN_HASH_SIZE];
    str project;
    str auth;                        /* hash of the auth part, or empty */
    struct json *gateway;            /* settings of the process, as the project says; or NULL */
    struct plan_endpoint *endpoints; /* sorted by name */
    size_t endpoint_count;
};

/* Reads the root and its endpoint parts out of blobs. Everything lives in the arena. */
NODISCARD int plan_load(struct blobs *blobs, str root_hash, struct arena *a, struct plan **ret_plan,
                        struct err *e);

/* The root alone: of each endpoint only the name and the hash of its part are set. */
NODISCARD int plan_root_load(struct blobs *blobs, str root_hash, struct arena *a,
                             struct plan **ret_plan, struct err *e);
/* The part that want->hash names; it must be that of want->name. */
NODISCARD int plan_endpoint_load(struct blobs *blobs, const struct plan_endpoint *want,
                                 struct arena *a, struct plan_endpoint *ret_endpoint,
                                 struct err *e);

/* One endpoint part from its JSON; `hash` is kept. For plan_load and for tests. */
NODISCARD int plan_endpoint_read(const struct json *part, str hash, struct arena *a,
                                 struct plan_endpoint *ret_endpoint, struct err *e);

/* The "signature" object alone. */
NODISCARD int plan_signature_read(const struct json *signature, struct arena *a,
                                  struct plan_signature *ret_signature, struct err *e);

/* Puts a part (any JSON tree) into blobs in canonical form; ret_hash is its name. Control only. */
NODISCARD int plan_part_put(struct blobs *blobs, const struct json *part,
                            char ret_hash[PLAN_HASH_SIZE], struct err *e);

/* Pointer files in the state directory, atomically replaced. "plan/current" is what control wants,
 * read by a gateway that starts while control is down; "plan/good" is the plan that a gateway
 * served last, for a start when the current one cannot be loaded. */
NODISCARD int plan_current_write(const char *state_dir, str root_hash, struct err *e);
NODISCARD int plan_current_read(const char *state_dir, char ret_hash[PLAN_HASH_SIZE],
                                struct err *e);
NODISCARD int plan_good_write(const char *state_dir, str root_hash, struct err *e);
NODISCARD int plan_good_read(const char *state_dir, char ret_hash[PLAN_HASH_SIZE], struct err *e);

/* The version that a key is routed to: arms are laid out along [0, 10000) with every arm but the
 * first (the champion) at the low end, in order, so that growing an arm's weight never moves a key
 * back. `point` is hash64(key, salt) mod PLAN_WEIGHT_ONE, or random where there is no key. */
const struct plan_version *plan_route(const struct plan_endpoint *ep, uint32_t point);
