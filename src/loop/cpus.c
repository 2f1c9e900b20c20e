/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many CPUs this process may use. In a container the affinity mask usually shows the whole
 * machine while the cgroup allows, say, 1.5 CPUs; a server that starts a thread per visible CPU is
 * then throttled for most of each period. The quota is the least one on the way from our own group
 * up to the root (v2), or that of the cpu controller (v1).
 */
#include "loop/thread.h"

#include "base/files.h"

#include <sched.h>
#include <stdio.h>

#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP_DEPTH_MAX 32

/* "150000 100000" -> 2, "max 100000" -> INT32_MAX (no quota). */
static int quota_cpus(str quota, str period)
{
    int64_t q, p;

    if (!str_to_i64(str_trim(quota), &q) || !str_to_i64(str_trim(period), &p) || q <= 0 || p <= 0)
        return INT32_MAX;
    return (int)MIN((q + p - 1) / p, (int64_t)INT32_MAX);
}

static str read_small(const char *path, struct arena *a)
{
    str text;

    return file_read_all(path, 4096, a, &text, NULL) == 0 ? text : STR_NULL;
}

static int cgroup2_cpus(str group, struct arena *a)
{
    int cpus = INT32_MAX;

    for (int depth = 0; depth < CGROUP_DEPTH_MAX; depth++) {
        str path = arena_printf(a, CGROUP_ROOT STR_F "/cpu.max", STR_A(group));
        str text = read_small(path.p, a);

        if (text.p) {
            str quota = str_cut(&text, ' ');

            cpus = MIN(cpus, quota_cpus(quota, text));
        }
        if (group.n == 0)
            break;
        do
            group.n--;
        while (group.n && group.p[group.n] != '/');
    }
    return cpus;
}

static int cgroup_cpus(struct arena *a)
{
    str groups = read_small("/proc/self/cgroup", a);

    while (groups.p) {
        str line = str_cut(&groups, '\n');

        if (str_starts(line, S("0::/"))) {
            str group = str_skip(line, 3);

            return cgroup2_cpus(str_eq(group, S("/")) ? str_take(group, 0) : group, a);
        }
    }
    return quota_cpus(read_small(CGROUP_ROOT "/cpu/cpu.cfs_quota_us", a),
                      read_small(CGROUP_ROOT "/cpu/cpu.cfs_period_us", a));
}

int thread_cpus(void)
{
    AUTO(arena_done) struct arena a = {0};
    cpu_set_t set;
    int cpus = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        cpus = CPU_COUNT(&set);
    arena_init(&a, 0);
    return MAX(1, MIN(cpus, cgroup_cpus(&a)));
}
