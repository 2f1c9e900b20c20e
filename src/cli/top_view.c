/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head says how the gateway as a whole fares; below it is a line for each series. Columns are a
 * table with the least width of the screen that they need: on a narrow one the less telling ones
 * are left out, so that no line ever wraps. A line ends with "erase to the end", which makes
 * drawing over the last frame enough, and the screen still between two.
 */
#include "cli/top_view.h"

#include "base/time.h"
#include "cli/paint.h"

#include <math.h>
#include <stdio.h>

#define COLUMNS_MAX 20
#define HEAD_LINES 5 /* with the titles */
#define SPARK_MAX 40
#define SLOW_SHARE 0.8 /* of a queue, or of an error budget nobody wants to use up */

/* --- Values ----------------------------------------------------------------------------------- */

static str seconds_text(struct arena *a, double s)
{
    if (isnan(s))
        return S("-");
    if (s < 0.0009995)
        return arena_printf(a, "%.0fus", s * 1e6);
    if (s < 0.9995)
        return arena_printf(a, s < 0.00995 ? "%.2fms" : s < 0.0995 ? "%.1fms" : "%.0fms", s * 1e3);
    return arena_printf(a, "%.2fs", s);
}

static str rate_text(struct arena *a, double v)
{
    if (isnan(v))
        return S("-");
    if (v == 0)
        return S("0");
    if (v < 0.0995)
        return arena_printf(a, "%.2f", v);
    return v < 9.95     ? arena_printf(a, "%.1f", v)
           : v < 9999.5 ? arena_printf(a, "%.0f", v)
           : v < 999950 ? arena_printf(a, "%.1fk", v / 1e3)
                        : arena_printf(a, "%.2fM", v / 1e6);
}

static str bytes_text(struct arena *a, double v)
{
    static const char *const units[] = {"B", "kB", "MB", "GB"};
    size_t u = 0;

    for (; v >= 1000 && u + 1 < ARRAY_LEN(units); u++)
        v /= 1000;
    return arena_printf(a, v < 10 && u ? "%.1f %s/s" : "%.0f %s/s", v, units[u]);
}

/* --- Columns ---------------------------------------------------------------------------------- */

struct cell {
    str text;
    enum paint paint;
};

static const struct json *monitor_of(const struct top_view *v, str endpoint)
{
    const struct json *list = json_get(v->status, S("monitors"));

    if (json_is_container(list))
        JSON_EACH (m, list)
            if (str_eq(json_str_or(json_get(m, S("endpoint")), STR_NULL), endpoint))
                return m;
    return NULL;
}

static struct cell idle(str text, bool is_idle)
{
    return (struct cell){text, is_idle ? PAINT_DIM : PAINT_PLAIN};
}

static struct cell cell_endpoint(const struct top_view *v, const struct top_row *r)
{
    (void)v;
    return (struct cell){r->endpoint, PAINT_BOLD};
}

static struct cell cell_version(const struct top_view *v, const struct top_row *r)
{
    (void)v;
    return (struct cell){r->version, PAINT_PLAIN};
}

static struct cell cell_arm(const struct top_view *v, const struct top_row *r)
{
    (void)v;
    return (struct cell){r->arm, str_eq(r->arm, S("champion")) ? PAINT_GREEN : PAINT_CYAN};
}

static struct cell cell_requests(const struct top_view *v, const struct top_row *r)
{
    return idle(rate_text(v->a, r->requests), r->requests == 0);
}

static struct cell cell_errors(const struct top_view *v, const struct top_row *r)
{
    return (struct cell){rate_text(v->a, r->failed), r->failed > 0 ? PAINT_RED : PAINT_DIM};
}

static struct cell time_cell(const struct top_view *v, double s)
{
    return (struct cell){seconds_text(v->a, s), isnan(s)   ? PAINT_DIM
                                                : s >= 0.5 ? PAINT_RED
                                                : s >= 0.1 ? PAINT_YELLOW
                                                           : PAINT_PLAIN};
}

static struct cell cell_p50(const struct top_view *v, const struct top_row *r)
{
    return time_cell(v, r->p50);
}

static struct cell cell_p95(const struct top_view *v, const struct top_row *r)
{
    return time_cell(v, r->p95);
}

static struct cell cell_p99(const struct top_view *v, const struct top_row *r)
{
    return time_cell(v, r->p99);
}

static struct cell cell_queue(const struct top_view *v, const struct top_row *r)
{
    return idle(seconds_text(v->a, r->queue), isnan(r->queue));
}

static struct cell cell_compute(const struct top_view *v, const struct top_row *r)
{
    return idle(seconds_text(v->a, r->compute), isnan(r->compute));
}

static struct cell cell_batch(const struct top_view *v, const struct top_row *r)
{
    return idle(rate_text(v->a, r->batch), isnan(r->batch));
}

static struct cell cell_crew(const struct top_view *v, const struct top_row *r)
{
    if (!r->has_crew)
        return (struct cell){S("-"), PAINT_DIM};
    return (struct cell){arena_printf(v->a, "%.0f/%.0f", r->busy, r->workers),
                         r->busy >= r->workers ? PAINT_YELLOW : PAINT_PLAIN};
}

static struct cell cell_waiting(const struct top_view *v, const struct top_row *r)
{
    if (!r->has_crew)
        return (struct cell){S("-"), PAINT_DIM};
    return (struct cell){rate_text(v->a, r->waiting), r->waiting > 0 ? PAINT_YELLOW : PAINT_DIM};
}

static struct cell cell_inflight(const struct top_view *v, const struct top_row *r)
{
    if (!(r->inflight_max > 0))
        return (struct cell){S("-"), PAINT_DIM};
    return (struct cell){arena_printf(v->a, "%.0f/%.0f", r->inflight, r->inflight_max),
                         r->inflight >= SLOW_SHARE * r->inflight_max ? PAINT_RED
                         : r->inflight > 0                           ? PAINT_PLAIN
                                                                     : PAINT_DIM};
}

static struct cell cell_breaker(const struct top_view *v, const struct top_row *r)
{
    (void)v;
    if (!r->breaker.n)
        return (struct cell){S("-"), PAINT_DIM};
    return (struct cell){r->breaker, str_eq(r->breaker, S("closed")) ? PAINT_GREEN
                                     : str_eq(r->breaker, S("open")) ? PAINT_RED
                                                                     : PAINT_YELLOW};
}

static struct cell cell_drift(const struct top_view *v, const struct top_row *r)
{
    str state = json_str_or(json_get(monitor_of(v, r->endpoint), S("state")), S("-"));

    return (struct cell){state, str_eq(state, S("drifting")) ? PAINT_RED
                                : str_eq(state, S("ok"))     ? PAINT_GREEN
                                                             : PAINT_DIM};
}

static const struct column {
    const char *title;
    struct cell (*cell)(const struct top_view *v, const struct top_row *r);
    size_t from; /* columns of the screen */
    bool left;
    int sort; /* the order that this column shows, or -1 */
} columns[] = {
    {"ENDPOINT", cell_endpoint, 0, true, TOP_BY_NAME},
    {"VER", cell_version, 0, true, -1},
    {"ARM", cell_arm, 84, true, -1},
    {"REQ/S", cell_requests, 0, false, TOP_BY_REQUESTS},
    {"ERR/S", cell_errors, 0, false, TOP_BY_ERRORS},
    {"P50", cell_p50, 0, false, TOP_BY_P50},
    {"P95", cell_p95, 64, false, -1},
    {"P99", cell_p99, 0, false, TOP_BY_P99},
    {"QUEUE", cell_queue, 96, false, -1},
    {"COMPUTE", cell_compute, 96, false, -1},
    {"BATCH", cell_batch, 76, false, -1},
    {"CREW", cell_crew, 112, false, -1},
    {"WAIT", cell_waiting, 104, false, TOP_BY_WAITING},
    {"INFLIGHT", cell_inflight, 124, false, -1},
    {"BREAKER", cell_breaker, 134, true, -1},
    {"DRIFT", cell_drift, 90, true, -1},
};
_Static_assert(ARRAY_LEN(columns) <= COLUMNS_MAX, "widths have room");

/* --- Lines ------------------------------------------------------------------------------------ */

static void end_line(const struct top_view *v, struct buf *out)
{
    buf_add_str(out, v->live ? S("\033[K\r\n") : S("\n"));
}

static void put(const struct top_view *v, struct buf *out, enum paint p, str text)
{
    paint_text(out, v->color, p, text);
}

static void put_label(const struct top_view *v, struct buf *out, const char *label, str value,
                      enum paint p)
{
    put(v, out, PAINT_DIM, str_of(label));
    buf_add_char(out, ' ');
    put(v, out, p, value);
    buf_add_str(out, S("   "));
}

/* Always as wide, so that what is beside it stays where it is. */
static str spark(const struct top_view *v)
{
    static const char *const marks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    const size_t heights = ARRAY_LEN(marks);
    size_t width = MIN(v->columns / 5, (size_t)SPARK_MAX), n = MIN(v->history_count, width);
    const double *h = v->history + v->history_count - n;
    struct buf out;
    double most = 0;

    buf_init_fixed(&out, arena_alloc(v->a, 4 * SPARK_MAX), (size_t)4 * SPARK_MAX);
    paint_pad(&out, n, width);
    for (size_t i = 0; i < n; i++)
        most = MAX(most, h[i]);
    for (size_t i = 0; i < n; i++) {
        size_t mark = most > 0 ? (size_t)(h[i] / most * (double)heights) : 0;

        buf_add_str(&out, str_of(marks[MIN(mark, heights - 1)]));
    }
    return buf_str(&out);
}

static void write_title(const struct top_view *v, const struct top_figures *f, struct buf *out)
{
    put(v, out, PAINT_BOLD, S("weir top"));
    buf_add_str(out, S("  "));
    put(v, out, PAINT_CYAN, str_take(v->title, 40));
    buf_printf(out, "  %zu gateway%s", f->gateways, f->gateways == 1 ? "" : "s");
    if (f->plan.n && v->columns >= 80)
        buf_printf(out, "  plan " STR_F, STR_A(f->plan));
    buf_printf(out, "  " STR_F, STR_A(str_take(paint_clock(v->a, v->wall_ns), 8)));
    if (v->paused)
        put(v, out, PAINT_YELLOW, S("  paused"));
    end_line(v, out);
}

static void write_whole(const struct top_view *v, const struct top_figures *f, struct buf *out)
{
    const struct top_row *all = &f->all;
    double share = all->requests > 0 ? 100 * all->failed / all->requests : 0;

    put_label(v, out, "requests",
              arena_printf(v->a, STR_F "/s", STR_A(rate_text(v->a, all->requests))), PAINT_BOLD);
    if (v->live && v->columns >= 90) {
        put(v, out, PAINT_GREEN, spark(v));
        buf_add_str(out, S("   "));
    }
    put_label(v, out, "errors", arena_printf(v->a, "%.2g%%", share),
              all->failed > 0 ? PAINT_RED : PAINT_GREEN);
    put_label(v, out, "p50", seconds_text(v->a, all->p50), PAINT_PLAIN);
    if (v->columns >= 72)
        put_label(v, out, "p95", seconds_text(v->a, all->p95), PAINT_PLAIN);
    put_label(v, out, "p99", seconds_text(v->a, all->p99), PAINT_BOLD);
    end_line(v, out);
}

static void write_rest(const struct top_view *v, const struct top_figures *f, struct buf *out)
{
    put_label(v, out, "rows", arena_printf(v->a, STR_F "/s", STR_A(rate_text(v->a, f->all.rows))),
              PAINT_PLAIN);
    put_label(v, out, "connections", arena_printf(v->a, "%.0f", f->connections), PAINT_PLAIN);
    put_label(v, out, "shed", arena_printf(v->a, STR_F "/s", STR_A(rate_text(v->a, f->shed))),
              f->shed > 0 ? PAINT_RED : PAINT_PLAIN);
    if (v->columns >= 72) {
        put_label(v, out, "in", bytes_text(v->a, f->received), PAINT_PLAIN);
        put_label(v, out, "out", bytes_text(v->a, f->sent), PAINT_PLAIN);
    }
    if (f->dropped > 0)
        put_label(v, out, "records dropped",
                  arena_printf(v->a, STR_F "/s", STR_A(rate_text(v->a, f->dropped))), PAINT_RED);
    end_line(v, out);
    put(v, out, PAINT_RED, str_take(v->trouble, v->columns - 1));
    end_line(v, out);
}

/* --- The table -------------------------------------------------------------------------------- */

static bool shows(const struct top_view *v, size_t c)
{
    return !v->columns || v->columns >= columns[c].from;
}

static void write_cell(const struct top_view *v, size_t c, size_t width, struct cell cell,
                       struct buf *out)
{
    str text = paint_cut(cell.text, width);

    if (!columns[c].left)
        paint_pad(out, paint_width(text), width);
    put(v, out, cell.paint, text);
    if (columns[c].left)
        paint_pad(out, paint_width(text), width);
    buf_add_str(out, S("  "));
}

static size_t widest(const struct top_view *v, const struct top_figures *f, size_t c)
{
    size_t width = strlen(columns[c].title);

    for (size_t i = 0; i < f->count; i++)
        width = MAX(width, paint_width(columns[c].cell(v, &f->rows[i]).text));
    return width;
}

/* As wide as it needs to be; what is too much is taken from the name, the one that can be cut. */
static void measure(const struct top_view *v, const struct top_figures *f,
                    size_t widths[COLUMNS_MAX])
{
    size_t sum = 0;

    for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
        widths[c] = shows(v, c) ? widest(v, f, c) : 0;
        sum += shows(v, c) ? widths[c] + 2 : 0;
    }
    if (v->live && sum > v->columns)
        widths[0] -= MIN(sum - v->columns, widths[0] - MIN(widths[0], (size_t)8));
}

static void write_titles(const struct top_view *v, const size_t *widths, struct buf *out)
{
    if (v->color)
        buf_add_str(out, S("\033[7m"));
    for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
        str title = paint_cut(str_of(columns[c].title), widths[c]);

        if (!shows(v, c))
            continue;
        if (!columns[c].left)
            paint_pad(out, title.n, widths[c]);
        if (v->color && columns[c].sort == (int)v->sort)
            buf_add_str(out, S("\033[1;4m"));
        buf_add_str(out, title);
        if (v->color && columns[c].sort == (int)v->sort)
            buf_add_str(out, S("\033[22;24m"));
        if (columns[c].left)
            paint_pad(out, title.n, widths[c]);
        buf_add_str(out, S("  "));
    }
    if (v->color)
        buf_add_str(out, v->live ? S("\033[K\033[0m") : S("\033[0m"));
    end_line(v, out);
}

static void write_rows(const struct top_view *v, const struct top_figures *f, struct buf *out)
{
    size_t widths[COLUMNS_MAX], room = f->count, from = v->scroll;

    measure(v, f, widths);
    write_titles(v, widths, out);
    if (v->lines)
        room = v->lines > HEAD_LINES + 2 ? v->lines - HEAD_LINES - 2 : 1;
    for (size_t i = from; i < f->count && i < from + room; i++) {
        for (size_t c = 0; c < ARRAY_LEN(columns); c++)
            if (shows(v, c))
                write_cell(v, c, widths[c], columns[c].cell(v, &f->rows[i]), out);
        end_line(v, out);
    }
    if (!f->count) {
        put(v, out, PAINT_DIM, S("no endpoint has been asked yet"));
        end_line(v, out);
    }
    if (v->live && f->count > from + room) {
        put(v, out, PAINT_DIM, arena_printf(v->a, "… %zu more", f->count - from - room));
        end_line(v, out);
    }
}

static void write_keys(const struct top_view *v, struct buf *out)
{
    static const char *const keys[][2] = {{"q", "quit"},   {"space", "pause"},  {"r", "requests"},
                                          {"e", "errors"}, {"9", "p99"},        {"w", "waiting"},
                                          {"n", "name"},   {"+ -", "interval"}, {"j k", "scroll"}};
    size_t width = 0;

    buf_printf(out, "\033[%zu;1H\033[K", v->lines);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        width += strlen(keys[i][0]) + strlen(keys[i][1]) + 3;
        if (width >= v->columns)
            return;
        put(v, out, PAINT_BOLD, str_of(keys[i][0]));
        buf_add_char(out, ' ');
        put(v, out, PAINT_DIM, str_of(keys[i][1]));
        buf_add_str(out, S("  "));
    }
    if (width + 14 < v->columns)
        put(v, out, PAINT_DIM,
            arena_printf(v->a, "every " STR_F, STR_A(time_duration_text(v->a, v->interval_ns))));
}

void top_view_write(const struct top_view *v, const struct top_figures *f, struct buf *out)
{
    if (v->live)
        buf_add_str(out, S("\033[?2026h\033[H")); /* shown when all of it is there */
    write_title(v, f, out);
    write_whole(v, f, out);
    write_rest(v, f, out);
    write_rows(v, f, out);
    if (!v->live) {
        buf_add_char(out, '\n');
        return;
    }
    buf_add_str(out, S("\033[J"));
    write_keys(v, out);
    buf_add_str(out, S("\033[?2026l"));
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void json_row(const struct top_view *v, const struct top_row *r, struct json_out *o)
{
    const struct json *m = monitor_of(v, r->endpoint);

    if (r->endpoint.n) {
        jo_kstr(o, S("endpoint"), r->endpoint);
        jo_kstr(o, S("version"), r->version);
        jo_kstr(o, S("arm"), r->arm);
    }
    jo_kfinite(o, S("requests_per_s"), r->requests);
    jo_kfinite(o, S("errors_per_s"), r->failed);
    jo_kfinite(o, S("rows_per_s"), r->rows);
    jo_kfinite(o, S("p50_s"), r->p50);
    jo_kfinite(o, S("p95_s"), r->p95);
    jo_kfinite(o, S("p99_s"), r->p99);
    jo_kfinite(o, S("queue_s"), r->queue);
    jo_kfinite(o, S("compute_s"), r->compute);
    jo_kfinite(o, S("batch_rows"), r->batch);
    if (r->has_crew) {
        jo_kfinite(o, S("crew_workers"), r->workers);
        jo_kfinite(o, S("crew_busy"), r->busy);
        jo_kfinite(o, S("waiting_rows"), r->waiting);
    }
    if (r->inflight_max > 0) {
        jo_kfinite(o, S("inflight"), r->inflight);
        jo_kfinite(o, S("inflight_max"), r->inflight_max);
    }
    if (r->breaker.n)
        jo_kstr(o, S("breaker"), r->breaker);
    if (m)
        jo_kstr(o, S("drift"), json_str_or(json_get(m, S("state")), S("")));
}

void top_view_json(const struct top_view *v, const struct top_figures *f, struct json_out *o)
{
    char iso[TIME_ISO_SIZE];

    time_iso(v->wall_ns, iso);
    jo_object(o);
    jo_kstr(o, S("time"), str_of(iso));
    jo_kreal(o, S("seconds"), f->seconds);
    jo_kint(o, S("gateways"), (int64_t)f->gateways);
    jo_kstr(o, S("plan"), f->plan);
    jo_kfinite(o, S("connections"), f->connections);
    jo_kfinite(o, S("received_bytes_per_s"), f->received);
    jo_kfinite(o, S("sent_bytes_per_s"), f->sent);
    jo_kfinite(o, S("shed_per_s"), f->shed);
    jo_kfinite(o, S("records_dropped_per_s"), f->dropped);
    if (v->trouble.n)
        jo_kstr(o, S("trouble"), v->trouble);
    jo_key(o, S("all"));
    jo_object(o);
    json_row(v, &f->all, o);
    jo_object_end(o);
    jo_key(o, S("series"));
    jo_array(o);
    for (size_t i = 0; i < f->count; i++) {
        jo_object(o);
        json_row(v, &f->rows[i], o);
        jo_object_end(o);
    }
    jo_array_end(o);
    jo_object_end(o);
}
