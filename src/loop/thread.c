/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/thread.h"

#include "base/time.h"

#include "base/mem.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

struct start {
    thread_fn fn;
    void *arg;
    int cpu;
    char name[16];
};

static void *thread_main(void *arg)
{
    struct start s = *(struct start *)arg;

    mem_free(arg);
    /* Neither can fail in a way that matters: a name is for people, a pin is a hint. */
    (void)pthread_setname_np(pthread_self(), s.name);
    if (s.cpu >= 0 && s.cpu < CPU_SETSIZE) {
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(s.cpu, &set);
        (void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
    }
    s.fn(s.arg);
    return NULL;
}

int thread_start(struct thread *t, const char *name, int cpu, thread_fn fn, void *arg,
                 struct err *e)
{
    AUTO(mem_freep) struct start *s = mem_zalloc(sizeof(*s));
    sigset_t all, before;

    ASSERT(fn);
    ASSERT(!t->running);
    *s = (struct start){.fn = fn, .arg = arg, .cpu = cpu};
    snprintf(s->name, sizeof(s->name), "%s", name);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited by the new thread */
    int rc = pthread_create(&t->id, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        errno = rc;
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "starting thread '%s': %s (raise the limit of processes: ulimit -u, or "
                    "pids.max of the cgroup)",
                    name, strerror(rc));
    }
    s = NULL;
    t->running = true;
    return 0;
}

void thread_join(struct thread *t)
{
    if (!t->running)
        return;
    int rc = pthread_join(t->id, NULL);
    ASSERT(rc == 0);
    t->running = false;
}

bool thread_join_for(struct thread *t, int64_t ns)
{
    int64_t until_ns = time_wall_ns() + ns; /* ThreadSanitizer knows no join by another clock */
    struct timespec at = {until_ns / NS_PER_S, until_ns % NS_PER_S};

    if (t->running && pthread_timedjoin_np(t->id, NULL, &at))
        return false;
    t->running = false;
    return true;
}
