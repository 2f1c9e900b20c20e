/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which versions answer on an endpoint, by the project and the aliases: those of its fixed split
 * with a share, else the one under the alias that it serves. A version in rollout is not one yet:
 * it is on trial itself. Without an endpoint it is the champion of the model.
 */
#include "retrain/priv.h"

#include "journal/alias.h"

int live_versions(struct meta *m, const struct json *project, str endpoint, str model,
                  struct live *ret, struct err *e)
{
    const struct json *section = json_get(json_get(project, S("endpoints")), endpoint);
    const struct json *split = json_get(section, S("versions"));
    str alias = json_str_or(json_get(section, S("alias")), S("champion"));
    struct live live = {0};
    int64_t version;

    if (json_is_container(split) && split->count) {
        JSON_EACH (share, split)
            if (live.n < LIVE_MAX && json_real_or(share, 0) > 0 && str_to_i64(share->key, &version))
                live.versions[live.n++] = version;
    } else {
        TRY(alias_get(m, model, alias, &version, e));
        if (version)
            live.versions[live.n++] = version;
    }
    *ret = live;
    return 0;
}
