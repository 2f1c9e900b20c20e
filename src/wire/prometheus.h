/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the Prometheus text format 0.0.4, sample by sample, in place. Comments are skipped; a
 * line that is no sample ends the reading with an error.
 */
#pragma once

#include "base/err.h"
#include "base/str.h"

struct prometheus_sample {
    str name;
    str labels;   /* between the braces, as sent; or empty */
    double value; /* NaN and infinities too */
};

struct prometheus {
    str rest;
    uint64_t line;     /* of the last sample, from 1 */
    const char *wrong; /* what is, once something is */
};

static inline void prometheus_begin(struct prometheus *p, str text)
{
    *p = (struct prometheus){.rest = text};
}
/* False at the end, or when a line is broken (p->wrong). */
NODISCARD bool prometheus_next(struct prometheus *p, struct prometheus_sample *ret);
/* INVALID_ARGUMENT with the line when p->wrong, else 0. */
NODISCARD int prometheus_end(const struct prometheus *p, const char *what, struct err *e);

/* The value of a label as sent (escapes stay), p == NULL when absent. */
str prometheus_label(str labels, str name);
