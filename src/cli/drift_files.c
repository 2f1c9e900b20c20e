/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/drift_files.h"

#include <math.h>

#define EPSILON 1e-9
#define CELLS_MAX 100000

struct shares {
    double *p;
    size_t n;
};

static NODISCARD int read_shares(const char *file, str feature, const struct json *list,
                                 struct arena *a, struct shares *ret, struct err *e)
{
    struct shares s = {0};
    double total = 0;

    if (!list || list->type != JSON_ARRAY || !list->count || list->count > CELLS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%s: '" STR_F "' must be an array of 1 to %d numbers",
                    file, STR_A(feature), CELLS_MAX);
    s.p = ARENA_ARRAY(a, double, list->count);
    JSON_EACH (v, list) {
        double x = json_real_or(v, NAN);

        if (!(x >= 0) || !isfinite(x))
            return FAIL(e, INVALID_ARGUMENT, "%s: '" STR_F "' entry %zu is not a share or a count",
                        file, STR_A(feature), s.n);
        s.p[s.n++] = x;
        total += x;
    }
    if (!(total > 0) || !isfinite(total))
        return FAIL(e, INVALID_ARGUMENT, "%s: '" STR_F "' adds up to nothing", file,
                    STR_A(feature));
    for (size_t i = 0; i < s.n; i++)
        s.p[i] = (s.p[i] / total + EPSILON) / (1 + EPSILON * (double)s.n);
    *ret = s;
    return 0;
}

static const char *severity(double psi)
{
    return psi < 0.1 ? "OK" : psi < 0.2 ? "WARN" : "ALERT";
}

static NODISCARD int compare(const struct drift_files *in, str feature, const struct json *baseline,
                             const struct json *current, struct arena *a,
                             struct drift_files_result *to, struct err *e)
{
    struct json *o = json_new_object(a);
    struct shares b, c;
    double psi = 0, kl = 0;
    bool exceeds;

    TRY(read_shares(in->baseline, feature, baseline, a, &b, e));
    TRY(read_shares(in->current, feature, current, a, &c, e));
    if (b.n != c.n)
        return FAIL(e, INVALID_ARGUMENT,
                    "'" STR_F "' has %zu cells in %s and %zu in %s: they must be the same cells",
                    STR_A(feature), b.n, in->baseline, c.n, in->current);
    for (size_t i = 0; i < b.n; i++) {
        psi += (c.p[i] - b.p[i]) * log(c.p[i] / b.p[i]);
        kl += c.p[i] * log(c.p[i] / b.p[i]);
    }
    kl = MAX(kl, 0.0); /* rounding */
    exceeds = psi >= in->threshold;
    json_set_str(a, o, S("feature"), feature);
    json_set_real(a, o, S("psi"), psi);
    json_set_real(a, o, S("kl_divergence"), kl);
    json_set_str(a, o, S("severity"), str_of(severity(psi)));
    json_set_bool(a, o, S("exceeds_threshold"), exceeds);
    json_push(json_get(to->report, S("results")), o);
    to->exceeded += exceeds;
    return 0;
}

/* One array is a file with the one feature "value". */
static NODISCARD int as_object(const char *file, const struct json *tree, struct arena *a,
                               const struct json **ret, struct err *e)
{
    struct json *o;

    if (tree->type == JSON_OBJECT && tree->count) {
        *ret = tree;
        return 0;
    }
    if (tree->type != JSON_ARRAY)
        return FAIL(e, INVALID_ARGUMENT,
                    "%s: expected {\"feature\": [shares…]} or one array of shares", file);
    o = json_new_object(a);
    json_set(o, S("value"), json_copy(a, tree));
    *ret = o;
    return 0;
}

static void note_missing(struct arena *a, struct drift_files_result *to, str feature,
                         const char *file)
{
    json_push(to->missing,
              json_new_str(a, arena_printf(a, "'" STR_F "' is not in %s", STR_A(feature), file)));
}

int drift_files_compare(const struct drift_files *in, struct arena *a,
                        struct drift_files_result *ret, struct err *e)
{
    struct drift_files_result r = {.report = json_new_object(a), .missing = json_new_array(a)};
    const struct json *baseline, *current;
    struct json *results;

    TRY(as_object(in->baseline, in->baseline_tree, a, &baseline, e));
    TRY(as_object(in->current, in->current_tree, a, &current, e));
    json_set_str(a, r.report, S("baseline"), str_of(in->baseline));
    json_set_str(a, r.report, S("current"), str_of(in->current));
    json_set_real(a, r.report, S("threshold"), in->threshold);
    json_set_int(a, r.report, S("features_checked"), 0);
    json_set_int(a, r.report, S("features_exceeded"), 0);
    results = json_set(r.report, S("results"), json_new_array(a));
    JSON_EACH (feature, baseline) {
        const struct json *other = json_get(current, feature->key);

        if (other)
            TRY(compare(in, feature->key, feature, other, a, &r, e));
        else
            note_missing(a, &r, feature->key, in->current);
    }
    JSON_EACH (feature, current)
        if (!json_get(baseline, feature->key))
            note_missing(a, &r, feature->key, in->baseline);
    if (!results->count)
        return FAIL(e, INVALID_ARGUMENT, "%s and %s have no feature in common", in->baseline,
                    in->current);
    json_set_int(a, r.report, S("features_checked"), (int64_t)results->count);
    json_set_int(a, r.report, S("features_exceeded"), (int64_t)r.exceeded);
    *ret = r;
    return 0;
}
