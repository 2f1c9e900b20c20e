/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers: a 4-ary heap of (deadline, timer) pairs. Four children share a cache line, which makes
 * the heap half as deep as a binary one at the same number of lines touched.
 *
 * Idle timeouts are pushed back far more often than they fire, so moving an armed timer to a later
 * time only writes at_ns: the slot keeps the old deadline, and when that comes up the slot is
 * sifted down to the new one instead of firing. The price is one early wake-up of the loop per
 * timer and period, not one sift per request.
 *
 * Invariants: slots[i].t->place == i + 1; slots[i].key_ns <= slots[i].t->at_ns, or the key is one
 * tick after "now" for a deadline in the past; no parent's key is greater than its child's.
 */
#include "loop/priv.h"

#include "base/mem.h"

static void place(struct timer_heap *h, uint32_t i, struct timer_slot s)
{
    h->slots[i] = s;
    s.t->place = i + 1;
}

static void sift_up(struct timer_heap *h, uint32_t i, struct timer_slot s)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 4;

        if (h->slots[parent].key_ns <= s.key_ns)
            break;
        place(h, i, h->slots[parent]);
        i = parent;
    }
    place(h, i, s);
}

static void sift_down(struct timer_heap *h, uint32_t i, struct timer_slot s)
{
    for (;;) {
        uint32_t first = 4 * i + 1, end = MIN(first + 4, h->count), least = first;

        if (first >= h->count)
            break;
        for (uint32_t c = first + 1; c < end; c++) {
            if (h->slots[c].key_ns < h->slots[least].key_ns)
                least = c;
        }
        if (h->slots[least].key_ns >= s.key_ns)
            break;
        place(h, i, h->slots[least]);
        i = least;
    }
    place(h, i, s);
}

static void remove_at(struct timer_heap *h, uint32_t i)
{
    struct timer_slot last;

    ASSERT(i < h->count);
    h->slots[i].t->place = 0;
    last = h->slots[--h->count];
    if (i == h->count)
        return;
    if (i > 0 && last.key_ns < h->slots[(i - 1) / 4].key_ns)
        sift_up(h, i, last);
    else
        sift_down(h, i, last);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_ns)
{
    struct timer_heap *h = &l->timers;
    /* Never due in the pass that may be running now: a timer that re-arms itself in the past would
     * otherwise keep the turn from ending. */
    int64_t key_ns = MAX(at_ns, l->now_ns + 1);

    ASSERT(loop_is_here(l));
    ASSERT(t->fn);
    t->at_ns = at_ns;
    if (t->place == 0) {
        if (h->count == h->cap) {
            h->cap = MAX(64u, h->cap * 2);
            h->slots = mem_realloc(h->slots, h->cap * sizeof(h->slots[0]));
        }
        sift_up(h, h->count++, (struct timer_slot){key_ns, t});
        return;
    }
    ASSERT(h->slots[t->place - 1].t == t);
    if (key_ns < h->slots[t->place - 1].key_ns)
        sift_up(h, t->place - 1, (struct timer_slot){key_ns, t});
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
    ASSERT(loop_is_here(l));
    if (t->place == 0)
        return;
    ASSERT(l->timers.slots[t->place - 1].t == t);
    remove_at(&l->timers, t->place - 1);
}

int64_t loop_timers_next_ns(const struct loop *l)
{
    return l->timers.count ? l->timers.slots[0].key_ns : INT64_MAX;
}

void loop_timers_fire(struct loop *l)
{
    struct timer_heap *h = &l->timers;
    int64_t due_ns = l->now_ns; /* a callback may refresh the clock */

    while (h->count && h->slots[0].key_ns <= due_ns) {
        struct loop_timer *t = h->slots[0].t;

        if (t->at_ns > h->slots[0].key_ns) {
            sift_down(h, 0, (struct timer_slot){t->at_ns, t});
            continue;
        }
        remove_at(h, 0);
        l->stats.timers++;
        t->fn(l, t);
    }
}
