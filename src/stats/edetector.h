/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The anytime-valid drift detector on cells, and its aggregation over the columns of an endpoint.
 *
 * A bank is fitted once, from raw reference data (at registration of a model version), and is
 * immutable; it holds, for each of about a dozen templates of change, one betting factor per cell.
 * A detector is the small state that walks along the traffic, fed with blocks of counts (a digest)
 * or row by row. The one setting is the false-alarm budget A: while traffic stays within the
 * tolerance of the reference, the mean number of rows between alarms is at least A, however blocks
 * are cut and however often one looks (proof in edetector.c). This holds with probability at least
 * 1-delta over the luck of the reference draw, and needs rows that are not dependent on each other.
 *
 * Sources: Shin, Ramdas, Rinaldo, "E-detectors", arXiv 2203.03532; Dandapanthula, Ramdas, arXiv
 * 2501.04130 (e-BH on e-detectors).
 *
 * Threads: banks may be read by any; a detector belongs to one thread (control).
 */
#pragma once

#include "stats/cells.h"

#define EDETECTOR_TEMPLATES_MAX 16
#define EDETECTOR_REF_MIN 100 /* reference rows needed for a fit */

enum edetector_kind {
#define EDETECTOR_KIND(name, text, help) EDETECTOR_##name,
#include "stats/edetector.def"
#undef EDETECTOR_KIND
    EDETECTOR_KIND_COUNT
};

/* What counts as no change, and how sure the bounds are. Zeroed = all defaults. */
struct edetector_config {
    double delta;       /* 0 = 0.01: chance that a bound of any template of the endpoint is wrong */
    uint32_t features;  /* 0 = 1: columns that share delta */
    double tol_sd;      /* 0 = 0.02, < 0 = none: shift in reference sds and relative scale */
    double tol_rate;    /* 0 = 0.001, < 0 = none: rise of the missing and of the outside rate */
    double tol_tv;      /* 0 = 0.005, < 0 = none: total variation, categorical columns */
    bool finite_sample; /* empirical Bernstein bounds in place of asymptotic normal ones */
    uint64_t seed;      /* of the random halving of the reference */
};

struct edetector_template {
    enum edetector_kind kind;
    double size; /* of the change it looks for: sds, factor, rate; or the cell it is about */
    double c;    /* upper bound of the mean of its ratio over the tolerated null */
};

struct edetector_bank {
    uint32_t cells, templates;
    uint64_t ref_n;
    double tol_sd, tol_rate, tol_tv, delta; /* as fitted */
    struct edetector_template template[EDETECTOR_TEMPLATES_MAX];
    /* ln of the betting factor of a row in cell b for template j, and the factor itself, both
     * rounded down; unused templates hold 0 (factor 0), which keeps their wealth at 0. */
    float ln_l[CELLS_MAX][EDETECTOR_TEMPLATES_MAX];
    float l[CELLS_MAX][EDETECTOR_TEMPLATES_MAX];
};

/* Text of a kind: "shift"; and of a template for people: "mean +0.5 sd", "missing rate up". */
const char *edetector_kind_name(enum edetector_kind kind);
str edetector_template_text(struct arena *a, const struct edetector_template *t);

/* --- Fitting --------------------------------------------------------------------------------- */

/* From raw values (categorical columns of numbers too). Sorts a copy. INVALID_ARGUMENT with fewer
 * than EDETECTOR_REF_MIN values or a config out of range; RESOURCE_EXHAUSTED. */
NODISCARD int edetector_bank_fit(const struct cells_spec *spec, const double *values, size_t n,
                                 const struct edetector_config *cfg,
                                 struct edetector_bank *ret_bank, struct err *e);
/* From counts alone. For continuous columns the tolerance then is a tilt by tol_sd, which is the
 * same for normal ones. */
NODISCARD int edetector_bank_fit_counts(const struct cells_spec *spec, const uint64_t *counts,
                                        const struct edetector_config *cfg,
                                        struct edetector_bank *ret_bank, struct err *e);

struct json *edetector_bank_to_json(const struct edetector_bank *b, struct arena *a);
NODISCARD int edetector_bank_from_json(const struct json *node, struct edetector_bank *ret_bank,
                                       struct err *e);

/* --- One column ------------------------------------------------------------------------------ */

struct edetector {
    double m[EDETECTOR_TEMPLATES_MAX];       /* wealth of each template */
    double cusum[EDETECTOR_TEMPLATES_MAX];   /* ln; for the estimate of the change point */
    uint64_t since[EDETECTOR_TEMPLATES_MAX]; /* value of `rows` at the last reset of cusum */
    uint64_t rows;                           /* since reset */
};

void edetector_reset(struct edetector *d);
/* counts[b->cells]; a block without rows changes nothing. */
HOT void edetector_block(const struct edetector_bank *b, struct edetector *d,
                         const uint64_t *counts);
HOT void edetector_row(const struct edetector_bank *b, struct edetector *d, uint32_t cell);
/* The mean of the wealths: alarm when it reaches the budget (one column alone). */
double edetector_evidence(const struct edetector_bank *b, const struct edetector *d);
/* The template with the most wealth, and how many rows ago its change seems to have begun. */
uint32_t edetector_leader(const struct edetector_bank *b, const struct edetector *d,
                          uint64_t *ret_rows_ago);

/* --- An endpoint: all its columns, one budget ------------------------------------------------- */

/* A = rows per second x seconds that one false alarm may cost. 2,300/s and 30 days: 5.96e9. */
double edetector_budget_rows(double rows_per_s, double false_alarm_every_s);

struct edetector_endpoint {
    uint32_t features;
    const struct edetector_bank **banks; /* borrowed; NULL entries: columns without a detector */
    struct edetector *detectors;
    double *weights;    /* sum 1 over the columns with a bank */
    double budget_rows; /* A */
    uint64_t rows;      /* since the last reset: the patience spent */
};

/* weights NULL = equal. Everything lives in the arena. INVALID_ARGUMENT: no bank at all, budget
 * below 1, a negative weight. */
NODISCARD int edetector_endpoint_init(struct edetector_endpoint *ep, struct arena *a,
                                      const struct edetector_bank *const *banks,
                                      const double *weights, uint32_t features, double budget_rows,
                                      struct err *e);
/* One block: cells[i] holds the counts of column i in it (NULL = none). True = alarm. The columns
 * may have different totals; the row clock advances by the largest. */
bool edetector_endpoint_block(struct edetector_endpoint *ep, const struct cells *const *cells);
/* One row: bins[i] is the cell of column i. True = alarm. */
HOT bool edetector_endpoint_row(struct edetector_endpoint *ep, const uint8_t *bins);
double edetector_endpoint_evidence(const struct edetector_endpoint *ep); /* Mbar */
/* After an alarm was reported, and when a new reference or version takes over. */
void edetector_endpoint_reset(struct edetector_endpoint *ep);

struct edetector_suspect {
    uint32_t feature, template;
    double evidence;   /* M of the column */
    double weighted;   /* its part of Mbar */
    uint64_t rows_ago; /* estimated begin of the change */
    bool selected;     /* in the e-BH list */
};
/*
 * The columns by falling evidence, at most `max` of them; the first k are `selected` by e-BH at
 * level alpha (0 = 1/A): k = max{k : k-th largest weighted evidence >= 1/(k alpha)}. What that
 * promises is error over patience (mean false share at the alarm over mean rows at the alarm <=
 * alpha), not a false-discovery rate, which no detector of finite run length can keep. Returns the
 * number filled.
 */
size_t edetector_endpoint_suspects(const struct edetector_endpoint *ep, double alpha,
                                   struct edetector_suspect *ret_suspects, size_t max);
