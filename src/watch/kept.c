/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor as a row that outlives control (record/kept.h): evidence, story, windows, rates.
 *
 * A row fits a monitor when settings, model, profile and layout are those it was written under:
 * evidence against another reference says nothing. It is named "<monitor>@<version>". What a fact
 * tells and the row that knows of it are one transaction (monitor.c), so that a drift is neither
 * told twice nor forgotten, nor found again in the digests that are sent again.
 *
 * Instants of the monotonic clock are written as ages. The time that control was away counts as far
 * as the wall clock tells it, at most AWAY_MAX_NS and never negative: gateways send the digests of
 * that time later, and rows without their seconds would look like a burst.
 */
#include "watch/priv.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "record/kept_io.h"

#include <math.h>

#define KIND S("monitor")
#define LAYOUT 1 /* of the row: raise it when what is written, or what it means, changes */
#define AWAY_MAX_NS (60 * NS_PER_S)
#define WEALTH_MAX 1e281
#define NAME_MAX 1024

static str row_name(const struct monitor *mo, struct arena *a)
{
    return arena_printf(a, STR_F "@" STR_F, STR_A(mo->cfg.name), STR_A(mo->version));
}

static void fit_of(const struct monitor *mo, unsigned char ret[SHA256_BYTES])
{
    const str parts[] = {mo->cfg.text, mo->cfg.model, mo->version, mo->profile};
    struct sha256 h;

    sha256_begin(&h);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        sha256_add(&h, &parts[i].n, sizeof(parts[i].n));
        sha256_add(&h, parts[i].p ? parts[i].p : "", parts[i].n);
    }
    sha256_end(&h, ret);
}

/* --- Parts ------------------------------------------------------------------------------------ */

/* Monotonic instants; 0 says that there is none. */
static void io_instant(const struct kept_io *io, int64_t *v, int64_t now_ns, int64_t away_ns)
{
    int64_t age = *v ? MAX(now_ns - *v, INT64_C(0)) + 1 : 0; /* 0: none */

    kept_i64(io, &age);
    if (io->in)
        *v = age > 0 ? now_ns - (age - 1) - away_ns : 0;
    if (io->in && age > 0 && *v == 0)
        *v = -1;
}

static void io_story(const struct kept_io *io, struct drift_story *s)
{
    uint32_t severity = (uint32_t)s->severity;

    kept_bool(io, &s->columns);
    kept_bool(io, &s->labels);
    kept_bool(io, &s->confirmed);
    kept_u32(io, &severity, DRIFT_SEVERE);
    s->severity = (enum drift_severity)severity;
    kept_count(io, &s->began_rows);
    kept_date(io, &s->began_ns);
    kept_date(io, &s->detected_ns);
    kept_date(io, &s->confirmed_ns);
    kept_u32(io, &s->quiet_windows, UINT32_MAX / 2);
    kept_bytes(io, s->correlation, sizeof(s->correlation));
    s->correlation[sizeof(s->correlation) - 1] = '\0';
}

static void io_walk(const struct kept_io *io, double *m, double *cusum, uint64_t *since, uint32_t n)
{
    for (uint32_t j = 0; j < n; j++) {
        kept_within(io, &m[j], WEALTH_MAX);
        kept_real(io, &cusum[j]);
        kept_count(io, &since[j]);
    }
}

static void io_since(const struct kept_io *io, uint64_t *since, uint32_t n, uint64_t rows)
{
    for (uint32_t j = 0; io->in && j < n; j++)
        io->in->bad |= since[j] > rows;
}

static void io_detector(const struct kept_io *io, const struct edetector_bank *bank,
                        struct edetector *d)
{
    io_walk(io, d->m, d->cusum, d->since, bank->templates);
    kept_count(io, &d->rows);
    io_since(io, d->since, bank->templates, d->rows);
}

static void io_labels(const struct kept_io *io, struct betting *b)
{
    io_walk(io, b->m, b->cusum, b->since, BETTING_GRID);
    kept_count(io, &b->rows);
    io_since(io, b->since, BETTING_GRID, b->rows);
}

static void io_window(const struct kept_io *io, struct window *w, struct window_report *last)
{
    uint32_t outcome = (uint32_t)last->outcome, severity = (uint32_t)last->severity;
    bool has_value = isfinite(last->value);

    kept_bool(io, &w->started);
    kept_date(io, &w->from_ns);
    kept_u32(io, &w->streak, UINT32_MAX / 2);
    kept_cells(io, &w->cells);
    kept_u32(io, &outcome, WINDOW_ALERT);
    kept_u32(io, &severity, DRIFT_SEVERE);
    last->outcome = (enum window_outcome)outcome;
    last->severity = (enum drift_severity)severity;
    kept_u32(io, &last->streak, UINT32_MAX / 2);
    kept_count(io, &last->rows);
    kept_bool(io, &has_value);
    if (has_value)
        kept_real(io, &last->value);
    else
        last->value = NAN;
    kept_date(io, &last->from_ns);
    kept_date(io, &last->to_ns);
}

static void io_column(const struct kept_io *io, struct monitor *mo, uint32_t i, bool anew)
{
    struct watch_column *c = &mo->columns[i];
    struct edetector none = {0};

    if (mo->detecting && mo->detect.banks[i])
        io_detector(io, &c->bank, anew ? &none : &mo->detect.detectors[i]);
    io_window(io, &c->window, &c->last);
    for (uint32_t k = 0; k < BLOCKS_KEPT; k++)
        kept_cells(io, &c->blocks[k]);
}

static void io_rates(const struct kept_io *io, struct monitor *mo)
{
    double *const reals[] = {&mo->rate, &mo->rate_rows, &mo->rate_s, &mo->lately_rows};
    int64_t wall = time_wall_ns(), now = time_mono_ns(), saved = wall, away = 0;

    for (size_t i = 0; i < ARRAY_LEN(reals); i++)
        kept_within(io, reals[i], 1e30);
    kept_date(io, &saved);
    if (io->in)
        away = CLAMP(wall - saved, INT64_C(0), AWAY_MAX_NS);
    io_instant(io, &mo->made_mono_ns, now, away);
    io_instant(io, &mo->last_mono_ns, now, away);
    io_instant(io, &mo->rows_mono_ns, now, away);
    io_instant(io, &mo->window_mono_ns, now, away);
}

/* anew: writes evidence that begins here. */
static void io_body(const struct kept_io *io, struct monitor *mo, bool anew)
{
    struct betting none = {0};
    uint64_t detect_rows = anew ? 0 : mo->detect.rows;

    io_rates(io, mo);
    kept_count(io, &mo->rows);
    kept_count(io, &mo->alarms);
    kept_i64(io, &mo->labels_n);
    kept_i64(io, &mo->label_errors);
    kept_i64(io, &mo->recent_labels);
    kept_i64(io, &mo->recent_errors);
    kept_u32(io, &mo->block_at, BLOCKS_KEPT - 1);
    for (uint32_t k = 0; k < BLOCKS_KEPT; k++)
        kept_count(io, &mo->block_rows[k]);
    kept_date(io, &mo->window_ns);
    kept_count(io, &mo->window_rows);
    kept_i64(io, &mo->window_no);
    kept_date(io, &mo->ended_from);
    kept_date(io, &mo->ended_to);
    kept_count(io, &detect_rows);
    if (io->in)
        mo->detect.rows = detect_rows;
    if (mo->label_reference)
        io_labels(io, anew ? &none : &mo->labels);
    kept_same(io, mo->column_count);
    for (uint32_t i = 0; i < mo->column_count && !kept_is_bad(io); i++)
        io_column(io, mo, i, anew);
}

static void io_head(const struct kept_io *io, struct kept_head *h)
{
    str *const texts[] = {&h->name, &h->endpoint, &h->model, &h->version};
    uint32_t layout = LAYOUT, state = (uint32_t)h->state;

    kept_u32(io, &layout, UINT32_MAX);
    if (io->in && layout != LAYOUT)
        io->in->bad = true;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        kept_text(io, texts[i], NAME_MAX);
    kept_bytes(io, h->fit, sizeof(h->fit));
    kept_u32(io, &state, MONITOR_DRIFTING);
    h->state = (enum monitor_state)state;
    io_story(io, &h->story);
}

/* --- Writing ---------------------------------------------------------------------------------- */

void monitor_encode(const struct monitor *mo, const struct digest_clock *clock, bool anew,
                    struct buf *out)
{
    const struct kept_io io = {.out = out};
    struct kept_head head = {.name = mo->cfg.name,
                             .endpoint = mo->cfg.endpoint,
                             .model = mo->cfg.model,
                             .version = mo->version,
                             .state = mo->state,
                             .story = mo->story};

    fit_of(mo, head.fit);
    kept_begin(out, KIND, clock, mo->seen);
    io_head(&io, &head);
    io_body(&io, (struct monitor *)(uintptr_t)mo, anew); /* which writing leaves as it is */
    kept_end(out);
}

int monitor_save(struct monitor *mo, struct meta *m, bool anew, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf row = {0};

    if (!mo->clock || mo->no_profile.n)
        return 0;
    arena_init(&a, 0);
    buf_init(&row, KEPT_BYTES_MAX);
    monitor_encode(mo, mo->clock, anew, &row);
    if (row.overflowed) { /* never an obstacle to the alarm that it goes with */
        log_event(LOG_WARN, "evidence.not_kept",
                  "monitor=" STR_F " version=" STR_F " reason=\"larger than %zu bytes\"",
                  STR_A(mo->cfg.name), STR_A(mo->version), KEPT_BYTES_MAX);
        return monitor_drop(mo, m, e);
    }
    return kept_put(m, KIND, row_name(mo, &a), &row, e);
}

int monitor_drop(const struct monitor *mo, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};

    if (!mo->clock)
        return 0;
    arena_init(&a, 0);
    return kept_drop(m, KIND, row_name(mo, &a), e);
}

/* --- Reading ---------------------------------------------------------------------------------- */

int monitor_head_decode(str bytes, struct arena *a, struct kept_head *ret, struct err *e)
{
    struct bytes_reader r;
    struct digest_clock clock;
    struct kept_head head = {0};

    TRY(kept_open(bytes, KIND, a, &clock, &r, e));
    io_head(&(struct kept_io){.in = &r}, &head);
    if (r.bad || r.no_room)
        return FAIL(e, DATA_LOSS, "its %zu bytes are of another layout, or malformed", bytes.n);
    *ret = head;
    return 0;
}

int monitor_decode(struct monitor *mo, str bytes, struct err *e)
{
    struct digest_clock *seen = ARENA_NEW(&mo->arena, struct digest_clock);
    unsigned char fit[SHA256_BYTES];
    struct bytes_reader r;
    struct kept_head head = {0};
    const struct kept_io io = {.in = &r};

    TRY(kept_open(bytes, KIND, &mo->arena, seen, &r, e));
    io_head(&io, &head);
    if (r.bad || r.no_room)
        return FAIL(e, DATA_LOSS, "its %zu bytes are of another layout, or malformed", bytes.n);
    fit_of(mo, fit);
    if (memcmp(fit, head.fit, sizeof(fit)) != 0)
        return FAIL(e, FAILED_PRECONDITION,
                    "it was gathered under other settings or against another profile");
    io_body(&io, mo, false);
    if (r.bad || r.no_room || r.p != r.end)
        return FAIL(e, DATA_LOSS, "its %zu bytes are malformed", bytes.n);
    mo->state = head.state;
    mo->story = head.story;
    mo->seen = seen;
    return 0;
}

int monitor_restore(struct monitor *mo, struct meta *m, bool *ret_spoilt, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct err why;
    str bytes;

    *ret_spoilt = false;
    if (!mo->clock || mo->no_profile.n)
        return 0;
    arena_init(&a, 0);
    TRY(kept_get(m, KIND, row_name(mo, &a), &a, &bytes, e));
    if (!bytes.p)
        return 0;
    if (monitor_decode(mo, bytes, &why)) {
        log_event(LOG_WARN, "evidence.begun_anew",
                  "monitor=" STR_F " version=" STR_F " reason=\"%s\"", STR_A(mo->cfg.name),
                  STR_A(mo->version), why.msg);
        *ret_spoilt = true;
        return 0;
    }
    log_event(LOG_INFO, "evidence.restored", "monitor=" STR_F " version=" STR_F " rows=%llu",
              STR_A(mo->cfg.name), STR_A(mo->version), (unsigned long long)mo->rows);
    return 0;
}
