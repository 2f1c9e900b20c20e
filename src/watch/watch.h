/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Monitors: what flows through an endpoint, held against the reference of the version that answers.
 *
 * The one setting is the false-alarm budget of an endpoint: at most one in so much of its own
 * traffic. Behind it, evidence grows with every digest (stats/edetector.h for features and outputs,
 * stats/betting.h for labels) and an alarm is raised when it reaches the budget, however often one
 * looks. PSI and its kin do not decide that something changed; they say how much, in the words
 * people know, and confirm it by windows in a row.
 *
 * States of a monitor: warming (no traffic yet), ok, drifting; see monitor.c. Facts:
 * drift.detected (the first breach), drift.escalated (more severe, confirmed by windows, or labels
 * worse too), drift.cleared. README.md tells what they hold.
 *
 * Control thread only. Evidence outlives control where watch_keep() was called: record/kept.h has
 * the promise.
 */
#pragma once

#include "record/kept.h"
#include "store/blobs/blobs.h"
#include "store/meta/meta.h"

struct watch;

NODISCARD int watch_new(struct blobs *blobs, struct watch **ret_watch, struct err *e);
void watch_free(struct watch *w); /* accepts NULL */
DEFINE_AUTO_PTR(struct watch, watch_free)

/* The project that is applied now (normalised tree, copied). Monitors keep their evidence unless a
 * setting changed on which it depends: all but psi, share and page_on. */
NODISCARD int watch_configure(struct watch *w, const struct json *project, struct err *e);

/* From now on evidence is kept in the meta store. `clock` is borrowed: the caller notes a digest in
 * it before watch_digest(). Once, before watch_configure(). */
void watch_keep(struct watch *w, const struct digest_clock *clock);
/* After watch_configure(): makes the monitors of which there are rows. A row that does not fit any
 * more is logged and left; when a drift was under way in it, that drift is closed with the next
 * digest. */
NODISCARD int watch_restore(struct watch *w, struct meta *m, struct err *e);
/* Writes what has changed, inside a transaction of the caller, who says when it is committed. */
NODISCARD int watch_save(struct watch *w, struct meta *m, struct err *e);
void watch_saved(struct watch *w);

/* Folds a digest; appends the facts that follow from it. A version without a usable profile is not
 * watched, which the report says. wall_ns is the time of arrival; it may step in any direction,
 * since lengths are measured on the monotonic clock. An error (the meta store's) is returned after
 * every monitor had its part of the digest. */
NODISCARD int watch_digest(struct watch *w, struct meta *m, const struct digest *d, int64_t wall_ns,
                           struct err *e);

/* 1: some monitor of the endpoint is drifting; 0: none is; -1: it is not watched (yet). */
int watch_drifting(const struct watch *w, str endpoint);

/* {"monitors":[{…}]} of all, or of one endpoint: state, evidence against budget, traffic, and the
 * columns by evidence with their effect sizes. */
void watch_report(const struct watch *w, str endpoint, struct json_out *out);
