/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the compiler of plans. */
#pragma once

#include "server/compile.h"

#define COMPILE_ROUTED_MAX (3 * PLAN_VERSIONS_MAX) /* before the plan refuses what is too many */
#define COMPILE_ARM_FALLBACK "fallback"            /* of a version that is only in the chain */

/* A version that the plan will name. */
struct routed {
    int64_t version;
    uint32_t weight;
    bool shadow;
    const char *arm;
};

struct compiler {
    struct meta *m;
    struct blobs *blobs;
    struct arena *a;
    const struct json *project;
    const struct json *endpoint; /* the one at hand, normalised */
    str name, model;
};

/* The version under an alias of the model at hand; 0: nothing is. */
NODISCARD int compile_alias_version(struct compiler *c, str alias, int64_t *ret_version,
                                    struct err *e);

/* --- compile_fallback.c ----------------------------------------------------------------------- */

/* Adds the versions of the chain that are not routed anyway. Where nothing is routed, because the
 * alias of the endpoint names no version, the first of them takes all the traffic. */
NODISCARD int compile_fallback_versions(struct compiler *c, struct routed *list, size_t *n,
                                        struct err *e);
/* Sets "fallback" of a part whose versions and signature are there. */
NODISCARD int compile_fallback(struct compiler *c, struct json *part, struct err *e);
