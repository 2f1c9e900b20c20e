/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what a model says to what is answered: the rules of a project for one endpoint, applied in
 * the order of the members. Part of the endpoint's plan part, so that a change is live at once.
 *
 *   {"thresholds":{"fraud":0.7},"otherwise":"review","labels":{"0":"ok"},"center":0.5,
 *    "bands":[{"band":"high","beyond":0.3},{"band":"low","beyond":null}],
 *    "minimum":{"score":0.2,"outcome":"reject"},"scores":"hidden","decimals":3}
 *
 * Classes are looked up when it is read; a name that is no class is refused.
 */
#pragma once

#include "base/json.h"

struct plan_reading;

struct plan_band {
    str name;
    double beyond; /* the distance must be greater; negative: any */
};

struct plan_post {
    const double *thresholds; /* of each class; 0 where none is given. NULL: no thresholds */
    str otherwise;            /* answered when no class reaches its own; empty: the most probable */
    const str *labels;        /* of each class, empty where it keeps its name. NULL: all keep it */
    const struct plan_band *bands;
    size_t band_count;
    double center; /* of bands */
    bool has_minimum;
    double minimum;
    str outcome; /* of a score below the minimum */
    bool hides_scores;
    int decimals; /* -1: all */
};

/* NULL: *ret is NULL. INVALID_ARGUMENT. */
NODISCARD int plan_post_read(const struct json *post, const struct plan_reading *reading,
                             struct arena *a, const struct plan_post **ret, struct err *e);
