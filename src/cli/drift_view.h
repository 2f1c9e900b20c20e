/* SPDX-License-Identifier: Apache-2.0 */
/* The monitors of `weir drift` for a person: a verdict in words, then the columns that stand out.
 */
#pragma once

#include "base/json.h"

struct drift_view {
    struct arena *a;
    bool color;
    bool all;       /* every column */
    size_t columns; /* of the terminal: words that do not fit are left out */
    int64_t now_ns;
};
/* One monitor of GET /api/v1/drift. Returns the number of columns that were left out. */
size_t drift_view_monitor(const struct drift_view *v, const struct json *monitor, struct buf *out);
void drift_view_legend(struct buf *out); /* what the figures mean, a line each */
