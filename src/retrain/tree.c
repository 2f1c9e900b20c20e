/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folders of runs, and when they go. A run's folder outlives it for some days, for those who
 * want to see what it trained on; then it is disk space.
 */
#include "retrain/priv.h"

/* Folders of others in work/ (those of probes) have other names and are left alone. */
static bool is_flow_id(str name)
{
    if (name.n != UUID_SIZE - 1)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? name.p[i] != '-' : str_find_char(S("0123456789abcdef"), name.p[i]) < 0)
            return false;
    }
    return true;
}

int retrain_sweep(const struct retrain_env *env, struct meta *m, int64_t wall_ns, int64_t keep_ns,
                  int64_t *ret_removed, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    const char *work;
    str *names;
    size_t n;

    arena_init(&a, 0);
    work = path_join(&a, env->state_dir, "work");
    *ret_removed = 0;
    if (!file_exists(work))
        return 0;
    TRY(file_list(work, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        int64_t wanted;

        if (!is_flow_id(names[i]))
            continue;
        /* The row of a flow is older than its folder: without a row there is no flow. */
        TRY(meta_first_int(m,
                           "SELECT COUNT(*) FROM wf WHERE id = ? AND (ended_ns IS NULL OR"
                           " ended_ns > ?)",
                           M_ARGS(M_STR(names[i]), M_INT(wall_ns - keep_ns)), 0, &wanted, e));
        if (wanted)
            continue;
        TRY(file_remove_tree(path_join(&a, work, names[i].p), e));
        ++*ret_removed;
    }
    return 0;
}
