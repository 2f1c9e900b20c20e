/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of monitors, out of the normalised project. */
#include "base/time.h"
#include "watch/priv.h"

/* Settings that change what is said of evidence, but not the evidence. */
static bool is_live(str key)
{
    return str_eq(key, S("psi")) || str_eq(key, S("share")) || str_eq(key, S("page_on"));
}

static str text_of(const struct json *node, struct arena *a)
{
    struct json *kept = json_new_object(a);
    AUTO(buf_done) struct buf text = {0};

    if (json_is_container(node))
        JSON_EACH (member, node)
            if (!is_live(member->key))
                json_set(kept, member->key, json_copy(a, member));
    buf_init(&text, (size_t)16 << 20);
    json_write_canonical(&text, kept);
    return arena_dup(a, buf_str(&text));
}

static enum page_on page_of(str word)
{
    return str_eq(word, S("never"))    ? PAGE_NEVER
           : str_eq(word, S("severe")) ? PAGE_SEVERE
                                       : PAGE_CO_OCCURRENCE;
}

static void read_bands(const struct json *psi, struct drift_bands *bands)
{
    *bands = DRIFT_BANDS_PSI;
    bands->watch = json_real_or(json_get(psi, S("watch")), bands->watch);
    bands->moderate = json_real_or(json_get(psi, S("moderate")), bands->moderate);
    bands->severe = json_real_or(json_get(psi, S("severe")), bands->severe);
}

static NODISCARD int config_read(const struct json *project, const struct json *node,
                                 struct arena *a, struct monitor_config *c, struct err *e)
{
    const struct json *endpoint;

    *c = (struct monitor_config){.name = arena_dup(a, node->key)};
    TRY(json_need_str(node, S("endpoint"), &c->endpoint, e));
    c->endpoint = arena_dup(a, c->endpoint);
    endpoint = json_get(json_get(project, S("endpoints")), c->endpoint);
    TRY(json_need_str(endpoint, S("model"), &c->model, e));
    c->model = arena_dup(a, c->model);
    c->one_in_s = (double)json_int_or(json_path(node, "false_alarms.one_in_ns"), 0) / 1e9;
    c->rows = (double)json_int_or(json_path(node, "false_alarms.rows"), 0);
    if (c->one_in_s <= 0 && c->rows <= 0)
        c->one_in_s = 30 * 86400.0;
    c->window_ns = json_int_or(json_get(node, S("window_ns")), INT64_C(5000000000));
    c->window_ns = MAX(c->window_ns, NS_PER_S / 1000);
    c->sustained = (uint32_t)CLAMP(json_int_or(json_get(node, S("sustained")), 3), 1, 100000);
    c->rows_min = (uint64_t)MAX(json_int_or(json_get(node, S("rows_min")), 500), 1);
    read_bands(json_get(node, S("psi")), &c->bands);
    c->share = json_real_or(json_get(node, S("share")), 0.2);
    c->outputs = json_bool_or(json_get(node, S("outputs")), true);
    c->label_tolerance = json_real_or(json_path(node, "labels.tolerance"), 0.01);
    c->page_on = page_of(json_str_or(json_get(node, S("page_on")), S("")));
    c->features = json_get(node, S("features"));
    if (c->features)
        c->features = json_copy(a, c->features);
    c->text = text_of(node, a);
    return 0;
}

int monitor_configs_read(const struct json *project, struct arena *a,
                         struct monitor_config **ret_list, size_t *ret_n, struct err *e)
{
    const struct json *monitors = json_get(project, S("monitors"));
    struct monitor_config *list = NULL;
    size_t n = 0;

    if (json_is_container(monitors)) {
        list = ARENA_ARRAY(a, struct monitor_config, monitors->count);
        JSON_EACH (node, monitors) {
            if (config_read(project, node, a, &list[n++], e))
                return err_context(e, "monitor '" STR_F "'", STR_A(node->key));
        }
    }
    *ret_list = list;
    *ret_n = n;
    return 0;
}
