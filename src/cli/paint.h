/* SPDX-License-Identifier: Apache-2.0 */
/* Text for terminals: colours, columns, tables. Everything is appended to a buf, so that it can be
 * tested and redrawn whole. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"

enum paint {
    PAINT_PLAIN,
    PAINT_BOLD,
    PAINT_DIM,
    PAINT_RED,
    PAINT_GREEN,
    PAINT_YELLOW,
    PAINT_BLUE,
    PAINT_MAGENTA,
    PAINT_CYAN,
    PAINT_COUNT
};

/* The text in that colour, or as it is when !on. Control characters in it become '?'. */
void paint_text(struct buf *out, bool on, enum paint p, str text);
void paint_begin(struct buf *out, bool on, enum paint p);
void paint_end(struct buf *out, bool on, enum paint p);
size_t paint_width(str text);            /* characters, taken as one column each */
str paint_cut(str text, size_t columns); /* at most so many columns, whole characters */
void paint_pad(struct buf *out, size_t have, size_t want); /* blanks */

/* "12s ago", "in 3m"; "never" for 0. */
str paint_ago(struct arena *a, int64_t wall_ns, int64_t now_ns);
str paint_clock(struct arena *a, int64_t wall_ns); /* "20:31:07.250", UTC */
str paint_number(struct arena *a, double v);       /* 3 significant digits: 0.183, 12.4k, 3.2M */

/* A table whose columns are as wide as they need to be. Cells are borrowed until table_write. */
#define TABLE_COLUMNS_MAX 12
#define TABLE_ROWS_MAX 2000
struct table {
    struct arena *a;
    size_t columns, rows;
    const char *const *titles;
    struct table_cell {
        str text;
        enum paint paint;
    } * cells;
    bool right[TABLE_COLUMNS_MAX]; /* numbers */
};
void table_begin(struct table *t, struct arena *a, const char *const *titles, size_t columns);
/* One cell after the other, row by row; past TABLE_ROWS_MAX rows they are dropped. */
void table_add(struct table *t, str text);
void table_add_painted(struct table *t, enum paint p, str text);
void table_write(const struct table *t, bool color, struct buf *out);
