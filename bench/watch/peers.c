/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ADWIN keeps the recent past as an exponential histogram: at most five buckets of each size; when
 * a sixth comes, the two oldest of that size merge into one of the next. Every 32 rows all cuts
 * between old and new are compared, and the oldest bucket is dropped as long as some cut shows
 * different means. All cut points are examined. The two others are a few lines each.
 */
#include "peers.h"

#include <math.h>
#include <string.h>

/* --- ADWIN: index 0 of a level is its oldest bucket ------------------------------------------- */

static void bucket_push(struct adwin *a, uint32_t level, double sum, double squares)
{
    uint32_t n = a->used[level]++;

    a->sum[level][n] = sum;
    a->squares[level][n] = squares;
    a->levels = MAX(a->levels, level + 1);
}

static void bucket_drop(struct adwin *a, uint32_t level, uint32_t n)
{
    a->used[level] -= n;
    memmove(&a->sum[level][0], &a->sum[level][n], a->used[level] * sizeof(double));
    memmove(&a->squares[level][0], &a->squares[level][n], a->used[level] * sizeof(double));
    while (a->levels && !a->used[a->levels - 1])
        a->levels--;
}

static double merged(double n0, double sum0, double sq0, double n1, double sum1, double sq1)
{
    double d = sum0 / n0 - sum1 / n1;

    return sq0 + sq1 + n0 * n1 * d * d / (n0 + n1);
}

static void adwin_insert(struct adwin *a, double x)
{
    if (a->width > 0)
        a->variance = merged(a->width, a->total, a->variance, 1, x, 0);
    a->width += 1;
    a->total += x;
    bucket_push(a, 0, x, 0);
    for (uint32_t l = 0; l + 1 < ADWIN_LEVELS && a->used[l] > ADWIN_PER_LEVEL; l++) {
        double n = ldexp(1, (int)l);

        bucket_push(a, l + 1, a->sum[l][0] + a->sum[l][1],
                    merged(n, a->sum[l][0], a->squares[l][0], n, a->sum[l][1], a->squares[l][1]));
        bucket_drop(a, l, 2);
    }
}

static void adwin_drop_oldest(struct adwin *a)
{
    uint32_t l = a->levels - 1;
    double n = ldexp(1, (int)l), rest = a->width - n, d;

    d = a->sum[l][0] / n - (a->total - a->sum[l][0]) / rest;
    a->variance = MAX(a->variance - a->squares[l][0] - n * rest * d * d / (n + rest), 0);
    a->total -= a->sum[l][0];
    a->width = rest;
    bucket_drop(a, l, 1);
}

static bool adwin_cut(const struct adwin *a)
{
    double n0 = 0, sum0 = 0, ln = log(2 * log(a->width) / 0.002), v = a->variance / a->width;

    for (uint32_t l = a->levels; l-- > 0;) {
        for (uint32_t i = 0; i < a->used[l]; i++) {
            double n1, m, eps;

            n0 += ldexp(1, (int)l);
            sum0 += a->sum[l][i];
            n1 = a->width - n0;
            if (n0 < 5 || n1 < 5)
                continue;
            m = 1 / (n0 - 4) + 1 / (n1 - 4);
            eps = sqrt(2 * m * v * ln) + 2.0 / 3.0 * ln * m;
            if (fabs(sum0 / n0 - (a->total - sum0) / n1) > eps)
                return true;
        }
    }
    return false;
}

bool adwin_row(struct adwin *a, double x)
{
    bool alarm = false;

    adwin_insert(a, x);
    if (++a->rows % 32 || a->width <= 10)
        return false;
    while (a->width > 10 && adwin_cut(a)) {
        alarm = true;
        adwin_drop_oldest(a);
    }
    return alarm;
}

bool page_hinkley_row(struct page_hinkley *p, double x)
{
    p->n++;
    p->mean += (x - p->mean) / (double)p->n;
    p->sum = 0.9999 * p->sum + (x - p->mean - 0.005);
    p->lowest = p->n == 1 ? p->sum : MIN(p->lowest, p->sum);
    if (p->n < 30 || p->sum - p->lowest <= 50)
        return false;
    memset(p, 0, sizeof(*p));
    return true;
}

bool ddm_row(struct ddm *d, bool error)
{
    double s;

    d->n++;
    d->p += ((error ? 1.0 : 0.0) - d->p) / (double)d->n;
    s = sqrt(d->p * (1 - d->p) / (double)d->n);
    if (d->n < 30)
        return false;
    if (d->n == 30 || d->p + s < d->p_min + d->s_min) {
        d->p_min = d->p;
        d->s_min = s;
    }
    if (d->p + s <= d->p_min + 3 * d->s_min)
        return false;
    memset(d, 0, sizeof(*d));
    return true;
}
