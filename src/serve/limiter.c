/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where this departs from Netflix's limits, and why.
 *
 * - The no-load time is not an average over a long time (Gradient2): under an overload that lasts,
 *   such an average follows the queue up and the limit drifts to its maximum. It is the least time
 *   of a run lately, in two rounds that follow each other, and when a round begins the limit is cut
 *   to a quarter for a moment, so that there is something to measure that has not waited. So the
 *   figure can go up when the model has become slower, and cannot drift.
 * - Runs join rows, and one of many rows takes longer because it does more. No-load times are kept
 *   for each class of size; a run is compared with the best of its own class, or of the smallest
 *   one whose rows cost no more: where joining gains nothing, long runs are only waiting by another
 *   name. What is left is waiting, and what runs take from each other: on shared processors, or
 *   inside a remote server.
 * - A run may wait as long as another one takes (the factor of 2): a worker that finds the next
 *   batch waiting is never idle, and where a batch costs little more than a row, fewer waiting rows
 *   would cost throughput.
 * - The time must also stay within a target that the caller derives from the deadline, and
 *   something that was let in and could not be run in time halves the gradient at once.
 *
 * A window is over after WINDOW_SAMPLES runs and WINDOW_NS. One in which less than half of the
 * limit was in use cannot raise it; if requests waited all the same, the limit goes towards what
 * was in use.
 */
#include "serve/limiter.h"

#include "base/time.h"

#include <math.h>

#define TOLERANCE 2.0
#define GRADIENT_MIN 0.5
#define SMOOTHING 0.2
#define WINDOW_SAMPLES 10
#define WINDOW_NS (20 * NS_PER_MS)
#define ROUND_NS (15 * NS_PER_S) /* of no-load times, */
#define ROUND_TIMES 64           /* or so many times that requests take, if that is longer */
#define PROBE_SHARE 4
#define GAIN 1.125 /* rows that cost less by this are worth longer runs */

static void publish(struct limiter *l)
{
    double wanted = l->probing ? l->estimate / PROBE_SHARE : l->estimate;

    l->limit = CLAMP((uint32_t)(wanted + 0.5), l->cfg.min, l->cfg.max);
}

static void window_begin(struct limiter *l, int64_t now_ns)
{
    memset(&l->window, 0, sizeof(l->window));
    l->window.began_ns = now_ns;
}

void limiter_init(struct limiter *l, const struct limiter_config *cfg, int64_t now_ns)
{
    ASSERT(cfg->min >= 1 && cfg->min <= cfg->max);
    *l = (struct limiter){.cfg = *cfg, .round_ns = now_ns};
    l->estimate = CLAMP(cfg->initial ? cfg->initial : cfg->min, cfg->min, cfg->max);
    window_begin(l, now_ns);
    publish(l);
}

static uint32_t class_of(uint32_t rows)
{
    uint32_t log2 = 31u - (uint32_t)__builtin_clz(MAX(rows, 1u));

    return MIN(log2, (uint32_t)LIMITER_CLASSES - 1);
}

static int64_t least_of(int64_t a_ns, int64_t b_ns)
{
    return a_ns && b_ns ? MIN(a_ns, b_ns) : MAX(a_ns, b_ns);
}

static int64_t row_ns(const struct limiter *l, uint32_t k)
{
    return least_of(l->now[k].row_ns, l->before[k].row_ns);
}

/* What a run like this takes alone: the least time of runs of its size lately, this one included,
 * or of smaller ones that do as much in the same time. */
static int64_t noload_ns(struct limiter *l, const struct limiter_sample *s)
{
    uint32_t own = class_of(s->rows), k = 0;
    struct limiter_least *now = &l->now[own];

    now->run_ns = least_of(now->run_ns, s->run_ns);
    now->row_ns = least_of(now->row_ns, MAX(s->run_ns / MAX(s->rows, 1u), (int64_t)1));
    while (k < own && (!row_ns(l, k) || (double)row_ns(l, k) > GAIN * (double)row_ns(l, own)))
        k++;
    return MIN(least_of(l->now[k].run_ns, l->before[k].run_ns), s->run_ns);
}

static void round_begin(struct limiter *l, int64_t now_ns)
{
    memcpy(l->before, l->now, sizeof(l->before));
    memset(l->now, 0, sizeof(l->now));
    l->round_ns = now_ns;
    l->probing = true;
}

static double gradient_of(const struct limiter *l)
{
    double gradient = TOLERANCE * l->window.noload_ns / l->window.took_ns;

    if (l->window.target_ns > 0)
        gradient = MIN(gradient, l->window.target_ns / l->window.took_ns);
    if (l->window.late)
        gradient = GRADIENT_MIN;
    return CLAMP(gradient, GRADIENT_MIN, 1.0);
}

static void window_end(struct limiter *l, int64_t now_ns)
{
    double took_ns = l->window.took_ns / l->window.samples;
    double inflight = l->window.inflight_max, gradient = gradient_of(l);
    bool busy = inflight * 2 >= l->limit, probed = l->probing;
    int64_t round_ns = MAX(ROUND_NS, (int64_t)(ROUND_TIMES * took_ns));

    /* What ran while it probed had been let in before, or by another limit. */
    if (!probed && (busy || gradient < 1)) {
        double had = busy ? l->estimate : inflight, wanted = had * gradient + sqrt(had);

        l->estimate += SMOOTHING * (wanted - l->estimate);
        l->estimate = CLAMP(l->estimate, (double)l->cfg.min, (double)l->cfg.max);
    }
    /* A probe is over once what was there before it has left, and a window after that. */
    if (probed && now_ns - l->round_ns > (int64_t)(2 * took_ns))
        l->probing = false;
    if (!probed && now_ns - l->round_ns >= round_ns)
        round_begin(l, now_ns);
    window_begin(l, now_ns);
    publish(l);
}

void limiter_sample(struct limiter *l, const struct limiter_sample *s)
{
    int64_t took_ns = s->wait_ns + s->run_ns;

    ASSERT(s->run_ns > 0 && s->wait_ns >= 0);
    l->window.samples++;
    l->window.noload_ns += (double)noload_ns(l, s);
    l->window.took_ns += (double)took_ns;
    l->window.target_ns += (double)s->target_ns;
    l->window.inflight_max = MAX(l->window.inflight_max, s->inflight);
    l->window.late |= s->late;
    if (l->window.samples >= WINDOW_SAMPLES && s->now_ns - l->window.began_ns >= WINDOW_NS)
        window_end(l, s->now_ns);
}
