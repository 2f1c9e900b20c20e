/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Triage: is it worth to train on what drifted?
 *
 *   upstream_fault  a feature went missing, stuck, or out of all proportion: a model trained on
 * that would learn the fault. Somebody must mend the source. transient       the drift was over
 * before the run began real            the rest: the world changed, or somebody asked
 *
 * The evidence is the cause's own (how far each feature moved) and the journal's: what else
 * happened to this model and its endpoint shortly before. Rollouts, changes of the schema, lost
 * records and bad labels do not decide by themselves; they are named for the reader. What cannot be
 * seen here: a fault that looks like a plausible world, such as a unit change by less than the
 * feature's range.
 */
#include "retrain/priv.h"

#include <math.h>

/* More missing than in the reference, by this share of the rows: alone, and where going missing is
 * also what the detector found. An alarm comes within a fraction of a second, when the rows that it
 * measures are still partly those of before; so the share is small. */
#define MISSING_SHARE 0.3
#define MISSING_SHARE_FOUND 0.1
#define OUTSIDE_SHARE 0.9   /* so many more rows beyond anything in the reference */
#define STUCK_VARIANCE 1e-6 /* of the reference's */
#define BLAME_NS (60 * NS_PER_S)

static double of(const struct json *feature, const char *what, double def)
{
    return json_real_or(json_get(feature, str_of(what)), def);
}

/* What a feature's numbers say of its source, or STR_NULL. */
static str fault_of(const struct json *f, struct arena *a)
{
    str name = json_str_or(json_get(f, S("feature")), S("?"));
    bool found = str_starts(json_str_or(json_get(f, S("change")), S("")), S("missing rate up"));

    if (!json_bool_or(json_get(f, S("selected")), false) ||
        str_eq(json_str_or(json_get(f, S("role")), S("feature")), S("output")))
        return STR_NULL;
    if (of(f, "missing_delta", 0) > (found ? MISSING_SHARE_FOUND : MISSING_SHARE))
        return arena_printf(a, "'" STR_F "' is missing in %.0f%% more of the rows than before",
                            STR_A(name), of(f, "missing_delta", 0) * 100);
    if (of(f, "variance_ratio", 1) < STUCK_VARIANCE)
        return arena_printf(a, "'" STR_F "' is stuck at one value", STR_A(name));
    if (of(f, "outside_delta", 0) > OUTSIDE_SHARE)
        return arena_printf(a,
                            "%.0f%% of '" STR_F "' lie beyond anything seen in training: another "
                            "unit, or another thing",
                            of(f, "outside_delta", 0) * 100, STR_A(name));
    return STR_NULL;
}

static str upstream_fault(const struct json *cause, struct arena *a)
{
    const struct json *features = json_get(cause, S("features"));

    if (json_is_container(features))
        JSON_EACH (f, features) {
            str fault = fault_of(f, a);

            if (fault.p)
                return fault;
        }
    return STR_NULL;
}

/* Facts of some kinds about the endpoint or the model, shortly before the change. */
static NODISCARD int count_before(struct run *r, str type, int64_t *ret_n, struct err *e)
{
    int64_t at =
        r->changed_ns ? r->changed_ns : json_int_or(json_get(flow_input(r->ctx), S("asked_ns")), 0);
    str endpoint = arena_printf(r->a, "endpoint/" STR_F, STR_A(r->endpoint));
    str model = arena_printf(r->a, "model/" STR_F, STR_A(r->model_name));

    return meta_first_int(
        flow_meta(r->ctx),
        "SELECT COUNT(*) FROM journal WHERE at_ns >= ? AND at_ns <= ? AND type = ? AND"
        " (subject = ? OR subject = ? OR subject LIKE 'project%' OR subject LIKE 'gateway/%')",
        M_ARGS(M_INT(at - BLAME_NS), M_INT(at), M_STR(type), M_STR(endpoint), M_STR(model)), 0,
        ret_n, e);
}

static NODISCARD int circumstances(struct run *r, struct json *found, str *ret_note, struct err *e)
{
    static const struct {
        const char *type, *name, *note;
    } facts[] = {
        {"rollout.step.advanced", "recent_deploys", "a rollout moved traffic just before"},
        {"alias.moved", "recent_alias_moves", "an alias moved just before"},
        {"project.applied", "recent_applies", "the project was changed just before"},
        {"records.dropped", "recent_dropped_records", "a gateway lost records just before"},
        {"labels.degraded", "recent_label_trouble", "labels were late just before"},
        {"gateway.started", "recent_gateway_starts", "a gateway started just before"},
    };

    *ret_note = S("the traffic changed and upstream looks sound");
    for (size_t i = ARRAY_LEN(facts); i-- > 0;) {
        int64_t n;

        TRY(count_before(r, str_of(facts[i].type), &n, e));
        json_set_int(r->a, found, str_of(facts[i].name), n);
        if (n)
            *ret_note = arena_printf(r->a, "the traffic changed; worth a look: %s", facts[i].note);
    }
    return 0;
}

/* Over: the monitor says so, and the journal too. The monitor alone may have been restarted and
 * know nothing yet. */
static NODISCARD int is_over(struct run *r, struct json *found, bool *ret, struct err *e)
{
    int drifting = r->env->ports.drifting(r->env->ports.ctx, r->endpoint);
    int64_t asked = json_int_or(json_get(flow_input(r->ctx), S("asked_ns")), 0), cleared;

    TRY(meta_first_int(
        flow_meta(r->ctx),
        "SELECT COUNT(*) FROM journal WHERE at_ns >= ? AND type = 'drift.cleared' AND subject = ?",
        M_ARGS(M_INT(asked), M_STR(arena_printf(r->a, "endpoint/" STR_F, STR_A(r->endpoint)))), 0,
        &cleared, e));
    json_set_int(r->a, found, S("still_drifting"), drifting);
    *ret = drifting == 0 && cleared > 0;
    return 0;
}

static NODISCARD int judge_drift(struct run *r, struct json *found, str *ret_verdict, str *ret_why,
                                 struct err *e)
{
    str fault = upstream_fault(json_get(flow_input(r->ctx), S("cause")), r->a), note;
    bool over;

    TRY(circumstances(r, found, &note, e));
    TRY(is_over(r, found, &over, e));
    *ret_verdict = fault.p ? S("upstream_fault") : over ? S("transient") : S("real");
    *ret_why = fault.p ? arena_printf(r->a,
                                      STR_F "; mend the source: a model trained on this would "
                                            "learn the fault",
                                      STR_A(fault))
               : over  ? S("the drift was over before the run began")
                       : note;
    if (fault.p)
        json_set_str(r->a, found, S("urgency"), S("page"));
    return 0;
}

int triage(struct run *r, struct json **ret_found, struct err *e)
{
    str kind = json_str_or(json_get(flow_input(r->ctx), S("kind")), S(""));
    struct json *found = json_new_object(r->a);
    str verdict = S("real");
    str why = json_str_or(json_get(flow_input(r->ctx), S("reason")), S("asked for"));

    if (str_eq(kind, S("drift")) || str_eq(kind, S("performance")))
        TRY(judge_drift(r, found, &verdict, &why, e));
    json_set_str(r->a, found, S("verdict"), verdict);
    json_set_str(r->a, found, S("why"), why);
    *ret_found = found;
    return 0;
}
