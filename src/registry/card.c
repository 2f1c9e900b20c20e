/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the card together, part by part, by copying what others have written down. A member that
 * nobody knows is left out; those that a reader of a card will look for are listed as missing.
 */
#include "registry/card.h"

#include "base/mem.h"
#include "registry/registry.h"
#include "stats/cells.h"

#define PROFILE_BYTES_MAX ((size_t)64 << 20)

struct card {
    struct meta *m;
    struct arena *a;
    str model;
    const struct json *version; /* as registry_show gives it */
    const struct json *project; /* the applied tree, or NULL */
    const struct json *section; /* models.<m> in it, or NULL */
    const struct json *profile; /* or NULL */
    struct json *root;
};

/* What people ask of a card; each is a path in it. */
static const char *const wanted[] = {
    "overview.owner",
    "overview.intended_use",
    "overview.description",
    "overview.target",
    "data.dataset",
    "data.reference_rows",
    "data.training",
    "performance.metrics",
    "performance.evaluation",
    "performance.slices",
    "performance.calibration",
    "contract.latency",
    "maintenance.monitors",
    "maintenance.rollback_target",
    "maintenance.trainer",
    "safety.out_of_scope",
    "safety.sensitive_fields",
    "safety.known_limits",
};

static bool is_empty(const struct json *v)
{
    return !v || v->type == JSON_NULL || (v->type == JSON_STR && !v->string.n) ||
           (json_is_container(v) && !v->count);
}

static struct json *part(const struct card *c, const char *name)
{
    return json_set(c->root, str_of(name), json_new_object(c->a));
}

static void put(const struct card *c, struct json *to, const char *key, const struct json *v)
{
    if (!is_empty(v))
        json_set(to, str_of(key), json_copy(c->a, v));
}

/* Members of `from` under their own names. */
static void put_all(const struct card *c, struct json *to, const struct json *from,
                    const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(c, to, keys[i], json_get(from, str_of(keys[i])));
}
#define PUT_ALL(c, to, from, ...)                                  \
    put_all((c), (to), (from), (const char *const[]){__VA_ARGS__}, \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static const struct json *named(const struct card *c, const char *section, const char *field)
{
    return json_get(json_get(c->project, str_of(section)),
                    json_str_or(json_get(c->section, str_of(field)), STR_NULL));
}

/* --- What it is ------------------------------------------------------------------------------- */

static void overview(const struct card *c)
{
    struct json *to = part(c, "overview");
    const struct json *label = json_get(c->section, S("label"));

    /* What the project says today goes before what was true when the version was made. */
    PUT_ALL(c, to, c->version, "model", "version", "stage", "aliases", "status", "created", "owner",
            "tags", "description", "intended_use", "framework", "algorithm", "commit",
            "hyperparameters", "imported");
    PUT_ALL(c, to, c->section, "owner", "tags", "description", "intended_use", "task", "regulated");
    put(c, to, "target",
        is_empty(label) ? json_get(named(c, "datasets", "dataset"), S("label")) : label);
    put(c, to, "target_time", json_get(named(c, "datasets", "dataset"), S("time")));
}

/* Range and moments of a column as the reference had them. */
static void observed(const struct card *c, struct json *to, str name)
{
    AUTO(mem_freep) struct cells_spec *spec = mem_zalloc(sizeof(*spec));
    const struct json *columns = json_get(c->profile, S("columns"));

    if (!json_is_container(columns))
        return;
    JSON_EACH (column, columns) {
        struct err e;

        if (!str_eq(json_str_or(json_get(column, S("name")), STR_NULL), name) ||
            !str_eq(json_str_or(json_get(column, S("role")), STR_NULL), S("feature")) ||
            cells_spec_from_json(json_get(column, S("cells")), spec, &e))
            continue;
        if (spec->kind == CELLS_NUMERIC) {
            json_set_real(c->a, to, S("seen_from"), spec->lo);
            json_set_real(c->a, to, S("seen_to"), spec->hi);
            json_set_real(c->a, to, S("mean"), spec->centre);
            json_set_real(c->a, to, S("sd"), spec->sd);
        } else {
            json_set_int(c->a, to, S("categories_seen"), spec->bins);
        }
        json_set_int(c->a, to, S("missing"), (int64_t)spec->ref_counts[cells_missing(spec)]);
        return;
    }
}

static void data(const struct card *c)
{
    struct json *to = part(c, "data"), *list = json_new_array(c->a);
    const struct json *columns = json_path(c->version, "signature.columns");

    put(c, to, "dataset", json_get(c->section, S("dataset")));
    PUT_ALL(c, to, named(c, "datasets", "dataset"), "path", "format", "description");
    put(c, to, "reference_rows", json_get(c->version, S("rows")));
    put(c, to, "reference_profile", json_get(c->version, S("profile")));
    put(c, to, "reference_labels", json_get(c->version, S("reference_labels")));
    put(c, to, "training", json_get(c->version, S("training")));
    put(c, to, "note", json_get(c->version, S("note")));
    if (json_is_container(columns))
        JSON_EACH (column, columns) {
            struct json *item = json_push(list, json_new_object(c->a));

            PUT_ALL(c, item, column, "name", "type", "required", "min", "max", "categories",
                    "default");
            observed(c, item, json_str_or(json_get(column, S("name")), S("")));
        }
    put(c, to, "features", list);
}

static void performance(const struct card *c)
{
    struct json *to = part(c, "performance"), *calibration = json_new_object(c->a);
    const struct json *report = json_get(c->version, S("evaluation"));
    const struct json *metrics = json_get(report, S("metrics"));

    put(c, to, "primary", json_get(c->section, S("metric")));
    put(c, to, "metrics", is_empty(metrics) ? json_get(c->version, S("metrics")) : metrics);
    put(c, to, "threshold", json_path(c->version, "signature.reading.threshold"));
    if (!is_empty(report)) {
        struct json *short_form = json_set(to, S("evaluation"), json_new_object(c->a));

        PUT_ALL(c, short_form, report, "n", "verdict", "reason");
        put(c, short_form, "champion_version", json_path(report, "baseline.version"));
        put(c, short_form, "champion_metrics", json_path(report, "baseline.metrics"));
        put(c, short_form, "gates", json_get(report, S("gates")));
    }
    PUT_ALL(c, to, report, "per_class", "slices");
    PUT_ALL(c, calibration, metrics, "brier", "log_loss");
    put(c, to, "calibration", calibration);
}

/* --- What it promises ------------------------------------------------------------------------- */

static void contract(const struct card *c)
{
    struct json *to = part(c, "contract"), *endpoints = json_new_array(c->a);
    const struct json *all = json_get(c->project, S("endpoints"));

    PUT_ALL(c, to, json_get(c->version, S("signature")), "inputs", "outputs", "reading");
    PUT_ALL(c, to, c->version, "platform", "artifact", "source", "format", "size_bytes", "load_ms",
            "rss_bytes", "environment");
    put(c, to, "latency", json_path(c->version, "evaluation.latency"));
    put(c, to, "golden_tolerance", json_path(c->version, "golden.tolerance"));
    if (json_is_container(all))
        JSON_EACH (endpoint, all) {
            struct json *item;

            if (!str_eq(json_str_or(json_get(endpoint, S("model")), STR_NULL), c->model))
                continue;
            item = json_push(endpoints, json_new_object(c->a));
            json_set_str(c->a, item, S("name"), arena_dup(c->a, endpoint->key));
            PUT_ALL(c, item, endpoint, "alias", "timeout_ns", "rows_max", "durable_log", "rollout");
        }
    put(c, to, "endpoints", endpoints);
}

/* --- Who looks after it ----------------------------------------------------------------------- */

static bool of_model(const struct card *c, const struct json *item)
{
    str endpoint = json_str_or(json_get(item, S("endpoint")), STR_NULL);
    const struct json *there = json_get(json_get(c->project, S("endpoints")), endpoint);

    return str_eq(json_str_or(json_get(item, S("model")), STR_NULL), c->model) ||
           str_eq(json_str_or(json_get(there, S("model")), STR_NULL), c->model);
}

static void list_of(const struct card *c, struct json *to, const char *section,
                    const char *const *keys, size_t n)
{
    const struct json *all = json_get(c->project, str_of(section));
    struct json *list = json_new_array(c->a);

    if (!json_is_container(all))
        return;
    JSON_EACH (item, all) {
        struct json *short_form;

        if (!of_model(c, item))
            continue;
        short_form = json_push(list, json_new_object(c->a));
        json_set_str(c->a, short_form, S("name"), arena_dup(c->a, item->key));
        put_all(c, short_form, item, keys, n);
    }
    put(c, to, section, list);
}

static NODISCARD int maintenance(const struct card *c, struct err *e)
{
    static const char *const monitor[] = {"endpoint",  "false_alarms", "tolerance",
                                          "window_ns", "sustained",    "page_on"};
    static const char *const trigger[] = {"on",     "min_severity", "cron",
                                          "policy", "cooldown_ns",  "labels"};
    struct json *to = part(c, "maintenance");
    int64_t own = json_int_or(json_get(c->version, S("version")), 0), champion, since;

    PUT_ALL(c, to, json_get(c->root, S("overview")), "owner");
    list_of(c, to, "monitors", monitor, ARRAY_LEN(monitor));
    list_of(c, to, "triggers", trigger, ARRAY_LEN(trigger));
    PUT_ALL(c, to, c->section, "trainer", "retrain", "retention_ns");
    TRY(registry_alias_get(c->m, c->model, S("champion"), &champion, e));
    if (champion == own)
        TRY(registry_previous_champion(c->m, c->model, &champion, &since, e));
    if (champion)
        json_set_int(c->a, to, S("rollback_target"), champion);
    return 0;
}

/* --- All -------------------------------------------------------------------------------------- */

static NODISCARD int sources_read(struct card *c, struct blobs *blobs, int64_t version,
                                  struct err *e)
{
    struct json *shown, *applied, *profile;
    str hash, text;

    TRY(registry_show(c->m, c->model, MAX(version, 0), c->a, &shown, e));
    c->version = shown;
    TRY(meta_kv_get(c->m, S("project"), S("applied"), c->a, &applied, e));
    c->project = json_get(applied, S("tree"));
    c->section = json_get(json_get(c->project, S("models")), c->model);
    hash = json_str_or(json_get(shown, S("profile")), S(""));
    if (!blobs || !hash.n)
        return 0;
    TRY(blobs_get(blobs, hash, PROFILE_BYTES_MAX, c->a, &text, e));
    TRY(json_parse(text, c->a, &profile, e));
    c->profile = profile;
    return 0;
}

int registry_card(struct meta *m, struct blobs *blobs, str model, int64_t version, struct arena *a,
                  struct json **ret_card, struct err *e)
{
    struct card c = {.m = m, .a = a, .model = model};
    struct json *missing = json_new_array(a);

    TRY(sources_read(&c, blobs, version, e));
    c.root = json_new_object(a);
    json_set_int(a, c.root, S("format"), 1);
    overview(&c);
    data(&c);
    performance(&c);
    contract(&c);
    TRY(maintenance(&c, e));
    put(&c, c.root, "safety", json_get(c.version, S("safety")));
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        if (is_empty(json_path(c.root, wanted[i])))
            json_push(missing, json_new_str(a, str_of(wanted[i])));
    json_set(c.root, S("missing"), missing);
    *ret_card = c.root;
    return 0;
}
