/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One-shot sequential gates: may the challenger replace the champion, does the canary harm? Each
 * claim is an e-process: wealth that starts at 1 and has mean at most 1 while the claim is false,
 * so that it ever reaches 1/alpha with chance at most alpha (Ville), however often one looks.
 * Evidence is latched: what was proved stays proved, for the lifetime of the gate.
 *
 * Unlike a detector, a gate does not restart: make a new one for each candidate. One thread.
 */
#pragma once

#include "base/err.h"

#define GATE_GRID 10

enum verdict {
    VERDICT_PASS,                  /* proved good enough */
    VERDICT_FAIL,                  /* proved harmful */
    VERDICT_INCONCLUSIVE,          /* enough rows, neither proved */
    VERDICT_INSUFFICIENT_EVIDENCE, /* fewer rows than the caller demands */
};
const char *verdict_name(enum verdict v); /* "PASS", ..., "INSUFFICIENT_EVIDENCE" */

/* Wealth over a grid of bets; the evidence is their mean. */
struct eprocess {
    double ln_wealth[GATE_GRID];
    double ln_peak; /* highest mean so far: what Ville speaks of */
};
bool eprocess_proves(const struct eprocess *p, double alpha);

/* --- Paired losses ---------------------------------------------------------------------------- */

/*
 * d = loss of the challenger - loss of the champion on the same row, in [-1,1].
 *   non_inferior  proves E[d] < eps
 *   superior      proves E[d] < 0
 *   harm          proves E[d] > eps
 */
struct paired_gate {
    double eps;
    bool need_superior; /* PASS needs superiority, not only non-inferiority */
    uint64_t n, n_min;
    double sum;
    struct eprocess non_inferior, superior, harm;
};

/* INVALID_ARGUMENT unless 0 <= eps < 1. */
NODISCARD int paired_gate_init(struct paired_gate *g, double eps, bool need_superior,
                               uint64_t n_min, struct err *e);
void paired_gate_row(struct paired_gate *g, double d); /* d in [-1,1], asserted */
/* Counts of d = -1 (challenger better), 0, +1: 0/1 losses, a whole digest at once. */
void paired_gate_counts(struct paired_gate *g, uint64_t better, uint64_t same, uint64_t worse);
/* FAIL as soon as harm is proved; PASS when proved and n >= n_min. False PASS and false FAIL each
 * have chance <= alpha over the whole life of the gate. */
enum verdict paired_gate_verdict(const struct paired_gate *g, double alpha);

/* --- Two arms of different rows --------------------------------------------------------------- */

/*
 * Error counts of champion (a) and canary (b) in blocks of the same time. Given the totals of a
 * block, its errors fall on the arms by the hypergeometric law, whatever the common error rate is,
 * and that may change from block to block: traffic that gets harder for both accuses nobody.
 *   harm          proves odds ratio b:a > harm_odds
 *   non_inferior  proves odds ratio b:a < ni_odds
 */
struct twoarm_gate {
    double harm_odds, ni_odds;
    uint64_t n_a, errors_a, n_b, errors_b; /* totals */
    uint64_t n_min;                        /* rows of b */
    struct eprocess harm, non_inferior;
};

/* harm_odds >= 1 (1 = any harm at all), ni_odds > 1; INVALID_ARGUMENT else. */
NODISCARD int twoarm_gate_init(struct twoarm_gate *g, double harm_odds, double ni_odds,
                               uint64_t n_min, struct err *e);
/* errors <= n in both arms, asserted. A block with one arm empty carries no evidence. Cost: grows
 * with the smaller of the errors and the rows of b. */
void twoarm_gate_block(struct twoarm_gate *g, uint64_t n_a, uint64_t errors_a, uint64_t n_b,
                       uint64_t errors_b);
enum verdict twoarm_gate_verdict(const struct twoarm_gate *g, double alpha);

/* --- Many claims at once ---------------------------------------------------------------------- */

/*
 * e-BH (Wang, Ramdas 2022): of n e-values (as logarithms), under any dependence, selects those that
 * keep the false discovery rate at or below alpha. Returns how many. n <= EBH_MAX.
 */
#define EBH_MAX 4096
size_t ebh_select(const double *ln_e, size_t n, double alpha, bool *ret_selected);
