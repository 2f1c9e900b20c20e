/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/paint.h"

#include "base/time.h"

#include <math.h>

static const char *const codes[PAINT_COUNT] = {
    [PAINT_PLAIN] = "",        [PAINT_BOLD] = "\033[1m",     [PAINT_DIM] = "\033[2m",
    [PAINT_RED] = "\033[31m",  [PAINT_GREEN] = "\033[32m",   [PAINT_YELLOW] = "\033[33m",
    [PAINT_BLUE] = "\033[34m", [PAINT_MAGENTA] = "\033[35m", [PAINT_CYAN] = "\033[36m",
};

void paint_begin(struct buf *out, bool on, enum paint p)
{
    if (on)
        buf_add_str(out, str_of(codes[p]));
}

void paint_end(struct buf *out, bool on, enum paint p)
{
    if (on && p != PAINT_PLAIN)
        buf_add_str(out, S("\033[0m"));
}

void paint_text(struct buf *out, bool on, enum paint p, str text)
{
    paint_begin(out, on, p);
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];

        buf_add_char(out, c < 0x20 || c == 0x7f ? '?' : (char)c);
    }
    paint_end(out, on, p);
}

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

size_t paint_width(str text)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++)
        n += begins_character(text.p[i]);
    return n;
}

str paint_cut(str text, size_t columns)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++)
        if (begins_character(text.p[i]) && n++ == columns)
            return str_take(text, i);
    return text;
}

void paint_pad(struct buf *out, size_t have, size_t want)
{
    for (; have < want; have++)
        buf_add_char(out, ' ');
}

str paint_ago(struct arena *a, int64_t wall_ns, int64_t now_ns)
{
    if (!wall_ns)
        return S("never");
    if (wall_ns > now_ns)
        return arena_printf(a, "in " STR_F, STR_A(time_duration_text(a, wall_ns - now_ns)));
    return arena_printf(a, STR_F " ago", STR_A(time_duration_text(a, now_ns - wall_ns)));
}

str paint_clock(struct arena *a, int64_t wall_ns)
{
    char text[TIME_ISO_SIZE];

    time_iso(wall_ns, text);
    return arena_dup(a, (str){text + 11, 12});
}

str paint_number(struct arena *a, double v)
{
    static const struct {
        double at;
        const char *unit;
    } units[] = {{1e9, "G"}, {1e6, "M"}, {1e4, "k"}};

    if (!isfinite(v))
        return S("-");
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (fabs(v) >= units[i].at)
            return arena_printf(a, "%.3g%s", v / (units[i].at == 1e4 ? 1e3 : units[i].at),
                                units[i].unit);
    if (fabs(v) >= 1000)
        return arena_printf(a, "%.0f", v);
    return arena_printf(a, "%.3g", v);
}

/* --- Tables ----------------------------------------------------------------------------------- */

void table_begin(struct table *t, struct arena *a, const char *const *titles, size_t columns)
{
    ASSERT(columns <= TABLE_COLUMNS_MAX);
    *t = (struct table){.a = a, .columns = columns, .titles = titles};
    t->cells = ARENA_ARRAY(a, struct table_cell, columns * TABLE_ROWS_MAX);
}

void table_add_painted(struct table *t, enum paint p, str text)
{
    if (t->rows < t->columns * TABLE_ROWS_MAX)
        t->cells[t->rows++] = (struct table_cell){text, p};
}

void table_add(struct table *t, str text)
{
    table_add_painted(t, PAINT_PLAIN, text);
}

static void write_cell(const struct table *t, size_t column, size_t width, bool color, enum paint p,
                       str text, struct buf *out)
{
    bool last = column + 1 == t->columns;

    if (t->right[column])
        paint_pad(out, paint_width(text), width);
    paint_text(out, color, p, text);
    if (!t->right[column] && !last)
        paint_pad(out, paint_width(text), width);
    buf_add_str(out, last ? S("\n") : S("  "));
}

void table_write(const struct table *t, bool color, struct buf *out)
{
    size_t widths[TABLE_COLUMNS_MAX];

    ASSERT(t->columns > 0 && t->columns <= TABLE_COLUMNS_MAX);
    for (size_t c = 0; c < t->columns; c++)
        widths[c] = strlen(t->titles[c]);
    for (size_t i = 0; i < t->rows; i++)
        widths[i % t->columns] = MAX(widths[i % t->columns], paint_width(t->cells[i].text));
    for (size_t c = 0; c < t->columns; c++)
        write_cell(t, c, widths[c], color, PAINT_DIM, str_of(t->titles[c]), out);
    for (size_t i = 0; i < t->rows; i++)
        write_cell(t, i % t->columns, widths[i % t->columns], color, t->cells[i].paint,
                   t->cells[i].text, out);
}
