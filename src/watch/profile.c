/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor out of a profile: the reference cells, detectors and error rate that registration
 * stored with the version (registry/profile.c writes them).
 *
 * The budget of an endpoint is one number for everything that is watched of it: the features share
 * SHARE_FEATURES of it, the outputs SHARE_OUTPUTS and the labels the rest (SHARE_LABELS of
 * monitor.c); a part that is not there leaves its share to the others. Weighted evidence of all
 * columns in one sum, and the labels' alarm with a budget of its own (A divided by its share),
 * together alarm no more often than once in A rows.
 */
#include "watch/priv.h"

#include "base/mem.h"
#include "base/time.h"

#include <math.h>

#define PROFILE_BYTES_MAX ((size_t)64 << 20)
#define SHARE_FEATURES 0.5
#define SHARE_OUTPUTS 0.25
#define LABEL_DELTA 0.01 /* chance that the bound on the reference error rate is wrong */

static NODISCARD int column_read(struct monitor *mo, const struct json *node,
                                 struct watch_column *c, struct err *e)
{
    const struct json *cells = json_get(node, S("cells")),
                      *detector = json_get(node, S("detector"));
    const struct window_rule rule = {.length_ns = 1, /* windows are cut by windows.c */
                                     .rows_min = mo->cfg.rows_min,
                                     .sustain = mo->cfg.sustained,
                                     .escalate = mo->cfg.sustained,
                                     .bands = mo->cfg.bands};
    const struct json *override;

    TRY(json_need_str(node, S("name"), &c->name, e));
    c->name = arena_dup(&mo->arena, c->name);
    c->is_output = str_eq(json_str_or(json_get(node, S("role")), S("feature")), S("output"));
    c->importance = json_real_or(json_get(node, S("importance")), 1);
    override = json_get(mo->cfg.features, c->name);
    c->ignored =
        json_bool_or(json_get(override, S("ignore")), false) || (c->is_output && !mo->cfg.outputs);
    c->has_spec = json_is_container(cells);
    c->has_bank = c->has_spec && json_is_container(detector);
    if (c->has_spec)
        TRY(cells_spec_from_json(cells, &c->spec, e));
    if (c->has_bank)
        TRY(edetector_bank_from_json(detector, &c->bank, e));
    if (c->has_bank && c->bank.cells != cells_count(&c->spec))
        return FAIL(e, INVALID_ARGUMENT, "its detector has %u cells, its partition %u",
                    c->bank.cells, cells_count(&c->spec));
    return window_init(&c->window, &rule, e);
}

static NODISCARD int columns_read(struct monitor *mo, const struct json *columns, struct err *e)
{
    if (columns->count > RECORD_COLUMNS_MAX)
        return FAIL(e, OUT_OF_RANGE, "%zu columns, at most %u are watched", columns->count,
                    RECORD_COLUMNS_MAX);
    mo->columns = ARENA_ARRAY(&mo->arena, struct watch_column, columns->count);
    JSON_EACH (node, columns) {
        struct watch_column *c = &mo->columns[mo->column_count++];

        if (column_read(mo, node, c, e))
            return err_context(e, "column %u", mo->column_count);
        mo->feature_count += !c->is_output;
    }
    return 0;
}

/* Columns that count, of features or of outputs. */
static uint32_t watched(const struct monitor *mo, bool outputs)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < mo->column_count; i++)
        n += mo->columns[i].has_bank && !mo->columns[i].ignored &&
             mo->columns[i].is_output == outputs;
    return n;
}

static NODISCARD int detect_init(struct monitor *mo, struct err *e)
{
    uint32_t features = watched(mo, false), outputs = watched(mo, true), n = mo->column_count;
    double all = (features ? SHARE_FEATURES : 0) + (outputs ? SHARE_OUTPUTS : 0);
    const struct edetector_bank **banks = ARENA_ARRAY(&mo->arena, const struct edetector_bank *, n);
    double *weights = ARENA_ARRAY(&mo->arena, double, n);

    mo->detecting = features + outputs > 0;
    if (!mo->detecting)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct watch_column *c = &mo->columns[i];

        if (!c->has_bank || c->ignored)
            continue;
        banks[i] = &c->bank;
        weights[i] = c->is_output ? SHARE_OUTPUTS / all / outputs : SHARE_FEATURES / all / features;
    }
    return edetector_endpoint_init(&mo->detect, &mo->arena, banks, weights, n, 1e9, e);
}

static NODISCARD int labels_init(struct monitor *mo, const struct json *labels, struct err *e)
{
    double n = json_real_or(json_get(labels, S("n")), 0);
    double errors = json_real_or(json_get(labels, S("errors")), 0), m0;

    errors = CLAMP(errors, 0.0, n);
    if (!(n >= 1) || !isfinite(n) ||
        !str_eq(json_str_or(json_get(labels, S("metric")), S("")), S("error_rate")))
        return 0;
    m0 = betting_risk_bound(errors, n, LABEL_DELTA) + mo->cfg.label_tolerance;
    if (!(m0 > 0 && m0 < 0.999)) /* nothing could be worse */
        return 0;
    mo->label_reference = true;
    mo->label_ref_risk = errors / n;
    mo->label_ref_n = n;
    return betting_init(&mo->labels, m0, 1e9, e);
}

static NODISCARD int profile_read(struct monitor *mo, struct blobs *blobs, str hash, struct err *e)
{
    struct json *root, *columns;
    str text;

    TRY(blobs_get(blobs, hash, PROFILE_BYTES_MAX, &mo->arena, &text, e));
    TRY(json_parse(text, &mo->arena, &root, e));
    TRY(json_need_array(root, S("columns"), &columns, e));
    TRY(columns_read(mo, columns, e));
    TRY(labels_init(mo, json_get(root, S("labels")), e));
    return detect_init(mo, e);
}

static NODISCARD int profile_hash(struct monitor *mo, struct meta *m, str *ret_hash, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    struct json *meta;
    int64_t version;

    *ret_hash = STR_NULL;
    if (!str_to_i64(mo->version, &version))
        return 0;
    TRY(meta_first(m, "SELECT meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(mo->cfg.model), M_INT(version)), &rows, e));
    if (!rows)
        return 0;
    TRY(json_parse(meta_str_dup(rows, 0, &mo->arena), &mo->arena, &meta, e));
    *ret_hash = json_str_or(json_get(meta, S("profile")), STR_NULL);
    return 0;
}

/* The monitor outlives the settings it was made from. */
static void config_copy(struct monitor *mo, const struct monitor_config *cfg)
{
    mo->cfg = *cfg;
    mo->cfg.name = arena_dup(&mo->arena, cfg->name);
    mo->cfg.endpoint = arena_dup(&mo->arena, cfg->endpoint);
    mo->cfg.model = arena_dup(&mo->arena, cfg->model);
    mo->cfg.text = arena_dup(&mo->arena, cfg->text);
    mo->cfg.features = cfg->features ? json_copy(&mo->arena, cfg->features) : NULL;
}

void monitor_retune(struct monitor *mo, const struct monitor_config *cfg)
{
    mo->cfg.bands = cfg->bands;
    mo->cfg.share = cfg->share;
    mo->cfg.page_on = cfg->page_on;
    for (uint32_t i = 0; i < mo->column_count; i++)
        mo->columns[i].window.rule.bands = cfg->bands;
}

/* A profile that cannot be read must not keep the other monitors from their digests. */
static void unwatch(struct monitor *mo, str why)
{
    mo->no_profile = arena_dup(&mo->arena, why);
    mo->column_count = mo->feature_count = 0;
    mo->detecting = mo->label_reference = false;
}

static NODISCARD int make(struct blobs *blobs, struct meta *m, const struct monitor_config *cfg,
                          str version, const struct digest_clock *clock,
                          struct monitor **ret_monitor, struct err *e)
{
    AUTO(monitor_freep) struct monitor *mo = mem_zalloc(sizeof(*mo));
    struct err why;
    str hash;

    arena_init(&mo->arena, 0);
    config_copy(mo, cfg);
    mo->version = arena_dup(&mo->arena, version);
    mo->made_mono_ns = time_mono_ns();
    mo->clock = clock;
    TRY(profile_hash(mo, m, &hash, e));
    mo->profile = hash;
    if (!hash.n)
        unwatch(mo, S("this version was registered without reference data: give its model a "
                      "dataset and register it again"));
    else if (profile_read(mo, blobs, hash, &why))
        unwatch(mo, arena_printf(&mo->arena, "its profile cannot be used: %s", why.msg));
    *ret_monitor = TAKE(mo);
    return 0;
}

int monitor_new(struct blobs *blobs, struct meta *m, const struct monitor_config *cfg, str version,
                const struct digest_clock *clock, struct monitor **ret_monitor, struct err *e)
{
    AUTO(monitor_freep) struct monitor *mo = NULL;
    bool spoilt;

    TRY(make(blobs, m, cfg, version, clock, &mo, e));
    TRY(monitor_restore(mo, m, &spoilt, e));
    if (spoilt) { /* half of a row may be in it */
        monitor_free(TAKE(mo));
        TRY(make(blobs, m, cfg, version, clock, &mo, e));
    }
    *ret_monitor = TAKE(mo);
    return 0;
}

void monitor_free(struct monitor *mo)
{
    if (!mo)
        return;
    arena_done(&mo->arena);
    mem_free(mo);
}
