/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the drift detector promises and what it costs, measured:
 *
 *   (a) false alarms: stationary streams of 30 columns against references of 20,000 rows, at
 *       budgets of 1e4, 1e5 and 1e6 rows, with blocks of random size; mean rows between alarms
 *       against the budget. Once on columns of three shapes that did not change, and once on
 *       normal columns that all moved by the whole tolerance.
 *   (b) delay: rows until a shift of 0.5 sd in one of 30 columns is noticed, at the budget of one
 *       false alarm in 30 days at 2,300 rows/s, row by row and with digests of 250 ms, beside
 *       ADWIN, Page-Hinkley and DDM, one of each for every column, at their library defaults.
 *       DDM eats errors: it gets [x > reference mean], as good a 0/1 stream as there is here.
 *   (c) time: ns per column for finding a cell, for a row and for a block.
 *
 * For (a) rows are drawn straight into cells with the exact probabilities that the law has in the
 * fitted cells (alias method), which is the same experiment as drawing values and 20 times faster.
 *
 *   bench_watch [--rows N] [--runs N] [--seed N] [--json FILE] [--lines]
 *
 * --json writes an array of rows; --lines prints the rows of scripts/bench to stdout, and all else
 * goes to stderr.
 */
#include "base/buf.h"
#include "base/files.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "peers.h"
#include "stats/edetector.h"
#include "stats/special.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { F = 30, REFERENCES = 4, RUNS_MAX = 2000, BEFORE = 10000, LIMIT = 50000 };
#define RATE 2300.0
#define DIGEST_ROWS 575 /* 250 ms */

static struct rng rng;
static FILE *say;

/* --- Results ---------------------------------------------------------------------------------- */

struct row {
    const char *name, *metric, *unit, *peer_name;
    bool higher_is_better;
    double weir, peer, target; /* NaN: none */
};
static struct row rows[64];
static size_t row_count;

static void note(struct row r)
{
    ASSERT(row_count < ARRAY_LEN(rows));
    rows[row_count++] = r;
}

static bool met(const struct row *r)
{
    return r->higher_is_better ? r->weir >= r->target : r->weir <= r->target;
}

static void write_array(struct buf *out)
{
    struct json_out o;

    jo_begin(&o, out);
    jo_array(&o);
    for (size_t i = 0; i < row_count; i++) {
        const struct row *r = &rows[i];

        jo_object(&o);
        jo_kstr(&o, S("area"), S("watch"));
        jo_key(&o, S("name"));
        jo_str(&o, str_of(r->name));
        jo_kstr(&o, S("metric"), str_of(r->metric));
        jo_kstr(&o, S("unit"), str_of(r->unit));
        jo_kreal(&o, S("weir"), r->weir);
        if (r->peer_name) {
            jo_kstr(&o, S("peer_name"), str_of(r->peer_name));
            jo_kreal(&o, S("peer"), r->peer);
            jo_kreal(&o, S("ratio"), r->higher_is_better ? r->weir / r->peer : r->peer / r->weir);
        }
        if (!isnan(r->target)) {
            jo_kreal(&o, S("target"), r->target);
            jo_kbool(&o, S("met"), met(r));
        }
        jo_object_end(&o);
    }
    jo_array_end(&o);
}

static void write_line(const struct row *r, const char *subject, double value)
{
    printf(
        "{\"case\":\"%s\",\"metric\":\"%s\",\"unit\":\"%s\",\"better\":\"%s\",\"subject\":\"%s\","
        "\"value\":%.6g}\n",
        r->name, r->metric, r->unit, r->higher_is_better ? "higher" : "lower", subject, value);
}

static void write_lines(void)
{
    for (size_t i = 0; i < row_count; i++) {
        const struct row *r = &rows[i];
        bool first = i == 0 || strcmp(rows[i - 1].name, r->name) != 0 ||
                     strcmp(rows[i - 1].metric, r->metric) != 0;

        if (first)
            write_line(r, "weir", r->weir);
        if (first && !isnan(r->target))
            write_line(r, "target", r->target);
        if (r->peer_name)
            write_line(r, r->peer_name, r->peer);
    }
}

/* --- Columns ---------------------------------------------------------------------------------- */

enum law { NORMAL, LOGNORMAL, EXPONENTIAL };

static double law_draw(enum law law)
{
    switch (law) {
    case NORMAL:
        return rng_normal(&rng);
    case LOGNORMAL:
        return exp(rng_normal(&rng));
    case EXPONENTIAL:
        return -log1p(-rng_uniform(&rng));
    }
    return 0;
}

static double law_cdf(enum law law, double x)
{
    switch (law) {
    case NORMAL:
        return special_normal_cdf(x);
    case LOGNORMAL:
        return x <= 0 ? 0 : special_normal_cdf(log(x));
    case EXPONENTIAL:
        return x <= 0 ? 0 : -expm1(-x);
    }
    return 0;
}

struct column {
    enum law law;
    struct cells_spec spec;
    struct edetector_bank bank;
    uint32_t keep[64]; /* alias table on 6 bits; threshold of the other 26 */
    uint8_t self[64], other[64];
};

static void alias_build(struct column *c, const double *p, uint32_t n)
{
    double left[64] = {0};
    uint32_t small[64], large[64], smalls = 0, larges = 0;

    for (uint32_t i = 0; i < 64; i++) {
        left[i] = i < n ? p[i] * 64 : 0;
        c->self[i] = c->other[i] = (uint8_t)i;
        if (left[i] < 1)
            small[smalls++] = i;
        else
            large[larges++] = i;
    }
    while (smalls && larges) {
        uint32_t s = small[--smalls], l = large[larges - 1];

        c->keep[s] = (uint32_t)(left[s] * 0x1p26);
        c->other[s] = (uint8_t)l;
        left[l] -= 1 - left[s];
        if (left[l] < 1) {
            small[smalls++] = l;
            larges--;
        }
    }
    while (larges)
        c->keep[large[--larges]] = 1u << 26;
    while (smalls)
        c->keep[small[--smalls]] = 1u << 26;
}

static inline uint32_t alias_draw(const struct column *c, uint32_t u)
{
    uint32_t i = u >> 26;

    return (u & ((1u << 26) - 1)) < c->keep[i] ? c->self[i] : c->other[i];
}

/* A column fitted on n rows; its stream later is the law moved by `shift`. */
static void column_make(struct column *c, enum law law, size_t n, double shift)
{
    AUTO(mem_freep) double *x = mem_alloc(n * sizeof(*x));
    struct edetector_config cfg = {.features = F, .seed = rng_u64(&rng)};
    struct err e;
    double p[CELLS_MAX], at;

    c->law = law;
    for (size_t i = 0; i < n; i++)
        x[i] = law_draw(law);
    if (cells_spec_fit_numeric(x, n, 0, &c->spec, &e) ||
        edetector_bank_fit(&c->spec, x, n, &cfg, &c->bank, &e)) {
        fprintf(stderr, "bench_watch: %s\n", e.msg);
        exit(1);
    }
    at = law_cdf(law, c->spec.lo - shift);
    p[cells_outside(&c->spec)] = at + 1 - law_cdf(law, c->spec.hi - shift);
    p[cells_missing(&c->spec)] = 0;
    for (uint32_t b = 0; b < c->spec.bins; b++) {
        double edge = b + 1 < c->spec.bins ? c->spec.edges[b] : c->spec.hi;
        double upto = law_cdf(law, edge - shift);

        p[b] = upto - at;
        at = upto;
    }
    alias_build(c, p, cells_count(&c->spec));
}

static struct column *columns_make(size_t n, bool shapes, double shift)
{
    struct column *c = mem_zalloc(F * sizeof(*c));

    for (int f = 0; f < F; f++)
        column_make(&c[f], shapes ? (enum law)(f % 3) : NORMAL, n, shift);
    return c;
}

static void endpoint_make(struct edetector_endpoint *ep, struct arena *a, struct column *columns,
                          double budget)
{
    const struct edetector_bank *banks[F];
    struct err e;

    for (int f = 0; f < F; f++)
        banks[f] = &columns[f].bank;
    if (edetector_endpoint_init(ep, a, banks, NULL, F, budget, &e)) {
        fprintf(stderr, "bench_watch: %s\n", e.msg);
        exit(1);
    }
}

/* --- (a) false alarms ------------------------------------------------------------------------- */

static void block_draw(const struct column *columns, struct cells *cells, uint32_t n)
{
    for (int f = 0; f < F; f++) {
        const struct column *c = &columns[f];
        uint64_t *counts = cells[f].counts;

        memset(counts, 0, sizeof(cells[f].counts));
        for (uint32_t i = 0; i + 1 < n; i += 2) {
            uint64_t u = rng_u64(&rng);

            counts[alias_draw(c, (uint32_t)u)]++;
            counts[alias_draw(c, (uint32_t)(u >> 32))]++;
        }
        if (n % 2)
            counts[alias_draw(c, (uint32_t)rng_u64(&rng))]++;
    }
}

static uint64_t alarms_of(struct column *columns, double budget, uint64_t total, uint32_t block)
{
    AUTO(arena_done) struct arena a;
    struct edetector_endpoint ep;
    struct cells cells[F];
    const struct cells *views[F];
    uint64_t alarms = 0;

    arena_init(&a, 0);
    endpoint_make(&ep, &a, columns, budget);
    for (int f = 0; f < F; f++)
        views[f] = &cells[f];
    for (uint64_t seen = 0; seen < total;) {
        uint32_t n = (uint32_t)rng_below(&rng, 2 * block) + 1;

        block_draw(columns, cells, n);
        seen += n;
        if (edetector_endpoint_block(&ep, views)) {
            alarms++;
            edetector_endpoint_reset(&ep);
        }
    }
    return alarms;
}

static void bench_false_alarms(uint64_t total)
{
    static const struct {
        double budget, share;
        const char *name, *name_edge;
    } table[] = {
        {1e4, 0.1, "unchanged, budget 1e4", "at the tolerance, budget 1e4"},
        {1e5, 0.2, "unchanged, budget 1e5", "at the tolerance, budget 1e5"},
        {1e6, 0.2, "unchanged, budget 1e6", "at the tolerance, budget 1e6"},
    };
    int64_t from = time_mono_ns();

    fprintf(say, "(a) false alarms, %d columns, reference 20,000, %.3g rows in all\n", F,
            (double)total);
    for (int edge = 0; edge < 2; edge++) {
        for (size_t i = 0; i < ARRAY_LEN(table); i++) {
            uint64_t alarms = 0, each = (uint64_t)((double)total * table[i].share / REFERENCES);
            double mean;

            for (int r = 0; r < REFERENCES; r++) {
                AUTO(mem_freep)
                struct column *c = columns_make(20000, !edge, edge ? 0.02 : 0);

                alarms += alarms_of(c, table[i].budget, each, table[i].budget < 5e4 ? 50 : 200);
            }
            /* without an alarm: all rows are a lower bound */
            mean = (double)(each * REFERENCES) / (double)MAX(alarms, 1);
            fprintf(say, "    %-32s %6llu alarms in %.3g rows: %s%.4g rows between (%.1f x)\n",
                    edge ? table[i].name_edge : table[i].name, (unsigned long long)alarms,
                    (double)(each * REFERENCES), alarms ? "" : "> ", mean, mean / table[i].budget);
            note((struct row){.name = edge ? table[i].name_edge : table[i].name,
                              .metric = "between false alarms",
                              .unit = "rows",
                              .higher_is_better = true,
                              .weir = mean,
                              .target = table[i].budget});
        }
    }
    fprintf(say, "    %.1f s\n", (double)(time_mono_ns() - from) / 1e9);
}

/* --- (b) delay -------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(double *x, size_t n, double q)
{
    qsort(x, n, sizeof(*x), by_value);
    return x[MIN((size_t)(q * (double)n), n - 1)];
}

struct sample {
    double delay[RUNS_MAX];
    size_t n, missed;
    uint64_t false_alarms; /* before the change, all columns together */
    uint64_t quiet_rows;
};

static void sample_add(struct sample *s, double delay)
{
    s->missed += delay >= LIMIT;
    s->delay[s->n++] = delay;
}

/* One value of each column; column 0 is shifted. */
static void row_draw(double *x, double shift)
{
    for (int f = 0; f < F; f++)
        x[f] = rng_normal(&rng);
    x[0] += shift;
}

static void delay_rows(struct column *c, struct edetector_endpoint *ep, struct sample *s)
{
    double x[F];
    uint8_t bins[F];

    edetector_endpoint_reset(ep);
    for (int t = -BEFORE; t < LIMIT; t++) {
        row_draw(x, t >= 0 ? 0.5 : 0);
        for (int f = 0; f < F; f++)
            bins[f] = (uint8_t)cells_bin_f64(&c[f].spec, x[f]);
        if (!edetector_endpoint_row(ep, bins))
            continue;
        if (t >= 0) {
            sample_add(s, t + 1);
            break;
        }
        s->false_alarms++;
        edetector_endpoint_reset(ep);
    }
    s->quiet_rows += BEFORE;
}

/* The change comes at a random place within a digest; what counts is the digest that tells. */
static void delay_digests(struct column *c, struct edetector_endpoint *ep, struct sample *s)
{
    int t = -BEFORE - (int)rng_below(&rng, DIGEST_ROWS);
    struct cells cells[F];
    const struct cells *views[F];
    double x[F];

    edetector_endpoint_reset(ep);
    while (t < LIMIT) {
        for (int f = 0; f < F; f++) {
            cells_clear(&cells[f]);
            views[f] = &cells[f];
        }
        for (int i = 0; i < DIGEST_ROWS; i++, t++) {
            row_draw(x, t >= 0 ? 0.5 : 0);
            for (int f = 0; f < F; f++)
                cells_fold_f64(&c[f].spec, &cells[f], x[f]);
        }
        if (!edetector_endpoint_block(ep, views))
            continue;
        if (t > 0) {
            sample_add(s, t);
            break;
        }
        s->false_alarms++;
        edetector_endpoint_reset(ep);
    }
    s->quiet_rows += BEFORE;
}

struct peers {
    struct adwin adwin[F];
    struct page_hinkley ph[F];
    struct ddm ddm[F];
};

/* All three at once on the same stream; each is watched until its own first alarm on column 0. */
static void delay_peers(struct peers *p, struct sample s[3])
{
    double x[F], first[3] = {LIMIT, LIMIT, LIMIT};
    int waiting = 3;

    memset(p, 0, sizeof(*p));
    for (int t = -BEFORE; t < LIMIT && waiting; t++) {
        row_draw(x, t >= 0 ? 0.5 : 0);
        for (int f = 0; f < (t < 0 ? F : 1); f++) {
            bool alarm[3] = {adwin_row(&p->adwin[f], x[f]), page_hinkley_row(&p->ph[f], x[f]),
                             ddm_row(&p->ddm[f], x[f] > 0)};

            for (int k = 0; k < 3; k++) {
                if (t < 0) {
                    s[k].false_alarms += alarm[k];
                } else if (alarm[k] && first[k] >= LIMIT) {
                    first[k] = t + 1;
                    waiting--;
                }
            }
        }
    }
    for (int k = 0; k < 3; k++) {
        sample_add(&s[k], first[k]);
        s[k].quiet_rows += BEFORE;
    }
}

/* Rows between false alarms; without any, all rows are a lower bound. */
static double between(const struct sample *s)
{
    return (double)s->quiet_rows / (double)MAX(s->false_alarms, 1);
}

static void delay_say(const char *name, struct sample *s)
{
    fprintf(say,
            "    %-34s median %6.0f  p90 %6.0f  (%5.0f ms)  missed %zu of %zu;  false alarms: one "
            "in %s%.3g rows\n",
            name, quantile(s->delay, s->n, 0.5), quantile(s->delay, s->n, 0.9),
            quantile(s->delay, s->n, 0.5) / RATE * 1e3, s->missed, s->n,
            s->false_alarms ? "" : "> ", between(s));
}

static void bench_delay(uint32_t runs)
{
    static const char *const peer_names[] = {"adwin", "page-hinkley", "ddm"};
    static struct sample exact[2], digests[2], peers[3];
    AUTO(mem_freep) struct peers *p = mem_zalloc(sizeof(*p));
    static const size_t sizes[] = {20000, 100000};
    static const char *const names[2][2] = {
        {"0.5 sd in 1 of 30, row by row, ref 20k", "0.5 sd in 1 of 30, digests, ref 20k"},
        {"0.5 sd in 1 of 30, row by row, ref 100k", "0.5 sd in 1 of 30, digests, ref 100k"},
    };
    double budget = edetector_budget_rows(RATE, 30 * 86400.0);

    fprintf(say, "(b) delay in rows of a shift of 0.5 sd in one of %d columns, budget %.3g rows\n",
            F, budget);
    for (uint32_t r = 0; r < MAX(runs / 4, 1); r++)
        delay_peers(p, peers);
    for (int k = 0; k < 2; k++) {
        for (uint32_t r = 0; r < runs; r += MAX(runs / REFERENCES, 1)) {
            AUTO(arena_done) struct arena a;
            AUTO(mem_freep) struct column *c = columns_make(sizes[k], false, 0);
            struct edetector_endpoint ep;

            arena_init(&a, 0);
            endpoint_make(&ep, &a, c, budget);
            for (uint32_t i = 0; i < MAX(runs / REFERENCES, 1); i++) {
                delay_rows(c, &ep, &exact[k]);
                delay_digests(c, &ep, &digests[k]);
            }
        }
        delay_say(names[k][0], &exact[k]);
        delay_say(names[k][1], &digests[k]);
    }
    for (int k = 0; k < 3; k++)
        delay_say(peer_names[k], &peers[k]);
    for (int i = 0; i < 3; i++)
        note((struct row){.name = "same 30 columns before the shift",
                          .metric = "between false alarms",
                          .unit = "rows",
                          .higher_is_better = true,
                          .weir = between(&exact[0]),
                          .target = NAN,
                          .peer_name = peer_names[i],
                          .peer = between(&peers[i])});
    for (int k = 0; k < 4; k++) {
        struct sample *s = k % 2 ? &digests[k / 2] : &exact[k / 2];

        for (int i = 0; i < 3; i++)
            note((struct row){.name = names[k / 2][k % 2],
                              .metric = "median delay",
                              .unit = "rows",
                              .weir = quantile(s->delay, s->n, 0.5),
                              .target = k % 2 ? 300 + DIGEST_ROWS : 300,
                              .peer_name = peer_names[i],
                              .peer = quantile(peers[i].delay, peers[i].n, 0.5)});
    }
}

/* --- (c) time --------------------------------------------------------------------------------- */

static void bench_time(void)
{
    enum { N = 512, ROUNDS = 400 };
    AUTO(arena_done) struct arena a;
    AUTO(mem_freep) struct column *c = columns_make(20000, false, 0);
    AUTO(mem_freep) float *x = mem_alloc(N * F * sizeof(*x));
    AUTO(mem_freep) uint8_t *bins = mem_alloc(N * F);
    static struct cells cells[F], digest[F];
    const struct cells_spec *specs[F];
    struct cells_f32 narrow[F];
    const struct cells *views[F];
    struct edetector_endpoint ep;
    double ns[4] = {INFINITY, INFINITY, INFINITY, INFINITY};
    int64_t at;
    static const char *const names[] = {"find the cell", "fold into cells", "detector, row by row",
                                        "detector, digest of 575 rows"};

    arena_init(&a, 0);
    endpoint_make(&ep, &a, c, 5.96e9);
    for (int i = 0; i < N * F; i++)
        x[i] = (float)rng_normal(&rng);
    for (int f = 0; f < F; f++) {
        specs[f] = &c[f].spec;
        cells_f32_of(&c[f].spec, &narrow[f]);
        views[f] = &digest[f];
    }
    for (int i = 0; i < N; i++)
        cells_bin_row_f32(specs, x + i * F, F, bins + i * F);
    block_draw(c, digest, DIGEST_ROWS);
    /* the least of many short rounds: what the work costs, not what the neighbours do */
    for (int r = 0; r < ROUNDS; r++) {
        at = time_mono_ns();
        for (int i = 0; i < N; i++)
            cells_bin_row_f32(specs, x + i * F, F, bins + i * F);
        ns[0] = MIN(ns[0], (double)(time_mono_ns() - at) / (N * F));
        at = time_mono_ns();
        for (int i = 0; i + CELLS_COLUMN_ROWS <= N * F; i += CELLS_COLUMN_ROWS) {
            int f = i / CELLS_COLUMN_ROWS % F;

            cells_fold_column_f32(specs[f], &narrow[f], &cells[f], x + i);
        }
        ns[1] = MIN(ns[1], (double)(time_mono_ns() - at) / (N * F));
        at = time_mono_ns();
        for (int i = 0; i < N; i++)
            edetector_endpoint_row(&ep, bins + i * F);
        ns[2] = MIN(ns[2], (double)(time_mono_ns() - at) / (N * F));
        at = time_mono_ns();
        for (int i = 0; i < 64; i++)
            edetector_endpoint_block(&ep, views);
        ns[3] = MIN(ns[3], (double)(time_mono_ns() - at) / (64.0 * F));
    }
    fprintf(say, "(c) ns per column\n");
    for (int i = 0; i < 4; i++) {
        fprintf(say, "    %-34s %8.1f\n", names[i], ns[i]);
        note((struct row){.name = names[i],
                          .metric = "time per column",
                          .unit = "ns",
                          .weir = ns[i],
                          .target = NAN});
    }
}

int main(int argc, char **argv)
{
    uint64_t total = 100000000, runs = 200, seed = 1;
    const char *json = NULL;
    bool lines = false;
    struct err e;

    say = stdout;
    for (int i = 1; i < argc; i++) {
        str word = str_of(argv[i]), value = str_of(i + 1 < argc ? argv[i + 1] : NULL);
        bool good = true;

        if (str_eqz(word, "--lines"))
            lines = true;
        else if (str_eqz(word, "--json") && value.n)
            json = argv[++i];
        else if (str_eqz(word, "--rows") && str_to_u64(value, &total))
            i++;
        else if (str_eqz(word, "--runs") && str_to_u64(value, &runs) && runs &&
                 runs <= RUNS_MAX / 2)
            i++;
        else if (str_eqz(word, "--seed") && str_to_u64(value, &seed))
            i++;
        else
            good = false;
        if (!good) {
            fprintf(stderr,
                    "bench_watch [--rows N] [--runs 1..%d] [--seed N] [--json FILE] "
                    "[--lines]\n",
                    RUNS_MAX / 2);
            return 2;
        }
    }
    say = lines ? stderr : stdout;
    rng_seed(&rng, seed);
    bench_time();
    bench_delay((uint32_t)runs);
    bench_false_alarms(total);
    if (lines)
        write_lines();
    if (json) {
        AUTO(buf_done) struct buf out;

        buf_init(&out, BUF_MAX_DEFAULT);
        write_array(&out);
        if (file_replace(json, buf_str(&out), &e)) {
            fprintf(stderr, "bench_watch: %s\n", e.msg);
            return 1;
        }
    }
    return 0;
}
