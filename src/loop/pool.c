/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker pool: one queue, one mutex, n threads. Jobs here take milliseconds to minutes, so a
 * mutex held for a few instructions is the right tool; what is fast enough to notice it belongs on
 * the loop that asked.
 */
#include "loop/thread.h"

#include "base/mem.h"

#include <stdio.h>

#define POOL_THREADS_MAX 256

struct pool {
    pthread_mutex_t mutex; /* guards all below but `threads` */
    pthread_cond_t more;   /* a job came, or closing */
    struct job *first, **end;
    struct pool_stats stats;
    size_t waiting_max;
    bool closing;
    int count;
    struct thread threads[]; /* count */
};

/* Takes the next job, waiting for one; NULL when the pool closes. */
static struct job *take(struct pool *p)
{
    struct job *j;

    while (!p->first && !p->closing)
        pthread_cond_wait(&p->more, &p->mutex);
    if (p->closing)
        return NULL;
    j = p->first;
    p->first = j->next;
    if (!p->first)
        p->end = &p->first;
    j->next = NULL;
    p->stats.waiting--;
    p->stats.running++;
    return j;
}

static void worker_main(void *arg)
{
    struct pool *p = arg;
    struct job *j;

    pthread_mutex_lock(&p->mutex);
    while ((j = take(p))) {
        struct mailbox *reply_to = j->reply_to;

        pthread_mutex_unlock(&p->mutex);
        j->run(j); /* may free the job when nobody is to be told */
        if (reply_to)
            mailbox_post(reply_to, &j->mail);
        pthread_mutex_lock(&p->mutex);
        p->stats.running--;
        p->stats.done++;
    }
    pthread_mutex_unlock(&p->mutex);
}

int pool_new(const char *name, int threads, size_t waiting_max, struct pool **ret_pool,
             struct err *e)
{
    ASSERT(threads >= 1 && threads <= POOL_THREADS_MAX);
    ASSERT(waiting_max >= 1);
    AUTO(pool_freep)
    struct pool *p = mem_zalloc(sizeof(*p) + (size_t)threads * sizeof(p->threads[0]));

    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->more, NULL);
    p->end = &p->first;
    p->waiting_max = waiting_max;
    for (; p->count < threads; p->count++) {
        char text[32];

        snprintf(text, sizeof(text), "%.11s-%d", name, p->count);
        TRY(thread_start(&p->threads[p->count], text, THREAD_ANY_CPU, worker_main, p, e));
    }
    *ret_pool = TAKE(p);
    return 0;
}

int pool_submit(struct pool *p, struct job *j, struct err *e)
{
    bool full;

    ASSERT(j->run);
    pthread_mutex_lock(&p->mutex);
    ASSERT(!p->closing);
    full = p->stats.waiting >= p->waiting_max;
    if (!full) {
        j->next = NULL;
        j->cancelled = false;
        *p->end = j;
        p->end = &j->next;
        p->stats.waiting++;
        pthread_cond_signal(&p->more);
    }
    pthread_mutex_unlock(&p->mutex);
    if (full)
        return FAIL(e, RESOURCE_EXHAUSTED, "%zu jobs are waiting for a worker already: retry later",
                    p->waiting_max);
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->closing = true;
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < p->count; i++)
        thread_join(&p->threads[i]);
    while (p->first) {
        struct job *j = p->first;

        p->first = j->next;
        j->next = NULL;
        if (j->reply_to) {
            j->cancelled = true;
            mailbox_post(j->reply_to, &j->mail);
        } else {
            j->run(j);
        }
    }
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->mutex);
    mem_free(p);
}

struct pool_stats pool_stats(struct pool *p)
{
    struct pool_stats s;

    pthread_mutex_lock(&p->mutex);
    s = p->stats;
    pthread_mutex_unlock(&p->mutex);
    return s;
}
