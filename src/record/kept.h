/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence that outlives control: what monitors and rollouts have gathered, as rows of the meta
 * store, and the clock that tells which digests are in it.
 *
 * The promise: a digest is folded into each piece of evidence once, whatever happens to control.
 * Each row holds the clock as of its writing, so a row is one state of (evidence, digests folded),
 * taken whole or not at all. Gateways keep their digests until control says that its rows are
 * committed, and send them again after a break of the link; what the clock of a row has seen is
 * left out. So after a crash evidence goes on as if there had been none. What is lost is only what
 * a gateway could not keep: when it ends itself while control is away, or past RETAINED_* of
 * server/retained.h.
 *
 * A row that is damaged, of another layout, or does not fit what it is for is not used: the owner
 * begins anew and says why.
 */
#pragma once

#include "base/bytes.h"
#include "record/digest.h"
#include "store/meta/meta.h"

#define KEPT_BYTES_MAX ((size_t)64 << 20)
#define DIGEST_RUNS_MAX 128 /* starts of gateways that a clock knows */

/* The last digest seen of each start of a gateway; the latest first. */
struct digest_clock {
    uint32_t n;
    struct {
        uint64_t run, sequence;
    } at[DIGEST_RUNS_MAX];
};
/* Not seen yet: later than the last of its run, or of a run that is not known. */
bool digest_clock_is_new(const struct digest_clock *c, const struct digest *d);
void digest_clock_note(struct digest_clock *c, const struct digest *d);

/* A row: "WEK1", u32 crc32c of the rest, kind, clock, then what the owner writes (kept_io.h). The
 * clock is the later of both for each run: what a row was restored with (`seen`, or NULL) may be
 * ahead of what control has seen since. */
void kept_begin(struct buf *out, str kind, const struct digest_clock *clock,
                const struct digest_clock *seen);
void kept_end(struct buf *out);
/* Checks and opens it; ret_body stands where the owner's part begins. DATA_LOSS. Texts that are
 * read go into the arena. */
NODISCARD int kept_open(str bytes, str kind, struct arena *a, struct digest_clock *ret_clock,
                        struct bytes_reader *ret_body, struct err *e);

/* RESOURCE_EXHAUSTED above KEPT_BYTES_MAX. */
NODISCARD int kept_put(struct meta *m, str kind, str name, const struct buf *row, struct err *e);
/* STR_NULL when there is none. */
NODISCARD int kept_get(struct meta *m, str kind, str name, struct arena *a, str *ret_bytes,
                       struct err *e);
NODISCARD int kept_drop(struct meta *m, str kind, str name, struct err *e);
NODISCARD int kept_names(struct meta *m, str kind, struct arena *a, str **ret_names, size_t *ret_n,
                         struct err *e);
