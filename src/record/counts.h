/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of stats/ in the compact form of base/bytes.h: parts of digests and of kept evidence. */
#pragma once

#include "base/bytes.h"
#include "stats/cells.h"
#include "stats/latency.h"

void counts_put_latency(struct buf *out, const struct latency *l);
void counts_get_latency(struct bytes_reader *r, struct latency *l); /* *l zeroed before */
void counts_put_cells(struct buf *out, const struct cells *c);      /* 2 bytes at least */
void counts_get_cells(struct bytes_reader *r, struct cells *c);     /* *c zeroed before */
