/* SPDX-License-Identifier: Apache-2.0 */
/* What `weir top` shows: the figures as text, for a screen of so many columns and lines, for a
 * pipe, or as JSON. */
#pragma once

#include "base/buf.h"
#include "cli/top_model.h"

struct top_view {
    struct arena *a;
    bool color, live; /* live: a screen that is drawn again, with keys */
    bool paused;
    size_t columns, lines; /* of the screen; lines 0: as many as there are */
    size_t scroll;         /* rows left out at the top */
    enum top_sort sort;
    int64_t interval_ns, wall_ns;
    str title;                 /* the project, or the address */
    str trouble;               /* what could not be asked; or empty */
    const struct json *status; /* of control; or NULL */
    const double *history;     /* requests a second, oldest first */
    size_t history_count;
};

void top_view_write(const struct top_view *v, const struct top_figures *f, struct buf *out);
void top_view_json(const struct top_view *v, const struct top_figures *f, struct json_out *o);
