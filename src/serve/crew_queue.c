/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line for each priority. Each is Vyukov's bounded queue of cells with sequence numbers
 * (1024cores.net, bounded MPMC queue): the sequence says whether a cell is free for the put, or
 * full for the take, that has drawn its number.
 */
#include "serve/crew_queue.h"

#include "base/mem.h"

struct crew_cell {
    uint64_t sequence; /* atomic */
    struct crew_job *job;
};

static void line_init(struct crew_line *l)
{
    l->cells = mem_zalloc(CREW_QUEUE_MAX * sizeof(struct crew_cell));
    for (uint64_t i = 0; i < CREW_QUEUE_MAX; i++)
        l->cells[i].sequence = i;
}

static bool line_put(struct crew_line *l, struct crew_job *j)
{
    uint64_t at = __atomic_load_n(&l->put, __ATOMIC_RELAXED);

    for (;;) {
        struct crew_cell *cell = &l->cells[at % CREW_QUEUE_MAX];
        int64_t ahead = (int64_t)(__atomic_load_n(&cell->sequence, __ATOMIC_ACQUIRE) - at);

        if (ahead < 0)
            return false;
        if (ahead > 0) {
            at = __atomic_load_n(&l->put, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&l->put, &at, at + 1, true, __ATOMIC_RELAXED,
                                               __ATOMIC_RELAXED)) {
            cell->job = j;
            __atomic_store_n(&cell->sequence, at + 1, __ATOMIC_RELEASE);
            return true;
        }
    }
}

static struct crew_job *line_take(struct crew_line *l)
{
    uint64_t at = __atomic_load_n(&l->got, __ATOMIC_RELAXED);

    for (;;) {
        struct crew_cell *cell = &l->cells[at % CREW_QUEUE_MAX];
        int64_t ahead = (int64_t)(__atomic_load_n(&cell->sequence, __ATOMIC_ACQUIRE) - (at + 1));

        if (ahead < 0)
            return NULL;
        if (ahead > 0) {
            at = __atomic_load_n(&l->got, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&l->got, &at, at + 1, true, __ATOMIC_RELAXED,
                                               __ATOMIC_RELAXED)) {
            struct crew_job *j = cell->job;

            __atomic_store_n(&cell->sequence, at + CREW_QUEUE_MAX, __ATOMIC_RELEASE);
            return j;
        }
    }
}

void crew_queue_init(struct crew_queue *q)
{
    for (uint32_t i = 0; i < CREW_PRIORITIES; i++)
        line_init(&q->lines[i]);
}

void crew_queue_done(struct crew_queue *q)
{
    for (uint32_t i = 0; i < CREW_PRIORITIES; i++)
        mem_free(q->lines[i].cells);
}

bool crew_queue_put(struct crew_queue *q, struct crew_job *j)
{
    return line_put(&q->lines[j->priority - 1], j);
}

struct crew_job *crew_queue_take(struct crew_queue *q)
{
    uint32_t taken = __atomic_fetch_add(&q->taken, 1, __ATOMIC_RELAXED);
    bool low_first = taken % CREW_LOW_EVERY == CREW_LOW_EVERY - 1;
    struct crew_job *j = NULL;

    for (uint32_t i = 0; !j && i < CREW_PRIORITIES; i++)
        j = line_take(&q->lines[low_first ? CREW_PRIORITIES - 1 - i : i]);
    return j;
}
