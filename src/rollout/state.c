/* SPDX-License-Identifier: Apache-2.0 */
/* The durable form of a rollout: kv scope "rollout", key = endpoint. */
#include "rollout/priv.h"

#include "base/mem.h"
#include "base/time.h"

#include <stdio.h>

static const struct {
    const char *name;
    bool visible;
} states[] = {
#define ROLLOUT_STATE(name, text, visible) [ROLLOUT_##name] = {text, visible},
#include "rollout/states.def"
#undef ROLLOUT_STATE
};

const char *rollout_state_name(enum rollout_state s)
{
    return states[s].name;
}

bool rollout_is_shadow(const struct rollout *ro)
{
    return ro->state == ROLLOUT_SHADOW || (ro->state == ROLLOUT_REVIEW && !ro->cfg.step_count);
}

struct evidence_scope rollout_scope(const struct rollout *ro)
{
    return (struct evidence_scope){.endpoint = ro->endpoint,
                                   .champion = str_of(ro->previous_text),
                                   .challenger = str_of(ro->version_text),
                                   .shadow = rollout_is_shadow(ro),
                                   .cfg = &ro->cfg,
                                   .outputs = &ro->outputs};
}

void rollout_forget(struct rollout *ro)
{
    const struct evidence_scope sc = rollout_scope(ro);

    evidence_reset(&ro->ev, &ro->cfg);
    evidence_judge(&ro->ev, &sc, 1, &ro->last);
}

uint32_t rollout_weight_bp(const struct rollout *ro)
{
    if (ro->state == ROLLOUT_STEP && ro->step < ro->cfg.step_count)
        return ro->cfg.steps[ro->step].weight_bp;
    if (ro->state == ROLLOUT_REVIEW)
        return ro->cfg.step_count ? ro->cfg.steps[ro->cfg.step_count - 1].weight_bp : 0;
    return 0;
}

struct json *rollout_to_json(const struct rollout *ro, struct arena *a)
{
    struct json *o = json_new_object(a);
    bool baking = ro->state == ROLLOUT_BAKING;

    json_set_str(a, o, S("rollout_id"), str_of(ro->id));
    json_set_str(a, o, S("model"), ro->model);
    json_set_str(a, o, S("alias"), ro->alias);
    json_set_int(a, o, S("version"), ro->version);
    json_set_int(a, o, S("previous"), ro->previous);
    json_set_str(a, o, S("state"), str_of(rollout_state_name(ro->state)));
    json_set_bool(a, o, S("paused"), ro->paused);
    json_set_int(a, o, S("step"), ro->step);
    json_set_int(a, o, S("steps"), ro->cfg.step_count);
    /* What the plan compiler reads. While baking, the old champion stays loaded, on call. */
    if (rollout_is_shadow(ro))
        json_set_int(a, o, S("shadow"), ro->version);
    else
        json_set_int(a, o, S("challenger"), baking ? ro->previous : ro->version);
    json_set_int(a, o, S("weight_bp"), rollout_weight_bp(ro));
    json_set_int(a, o, S("started_ns"), ro->started_ns);
    json_set_int(a, o, S("step_started_ns"), ro->step_started_ns);
    json_set_int(a, o, S("promoted_ns"), ro->promoted_ns);
    json_set_int(a, o, S("checks_done"), ro->checks_done);
    json_set_bool(a, o, S("told_inconclusive"), ro->told_inconclusive);
    json_set_str(a, o, S("actor"), ro->actor);
    json_set_str(a, o, S("flow"), ro->flow);
    json_set_str(a, o, S("correlation"), ro->correlation);
    json_set_int(a, o, S("updated_ns"), time_wall_ns());
    json_set(o, S("config"), json_copy(a, ro->config_json));
    return o;
}

int rollout_save(struct rollout *ro, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    return meta_kv_put(m, S("rollout"), ro->endpoint, rollout_to_json(ro, &a), e);
}

static NODISCARD int read_state(str name, enum rollout_state *ret, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        if (str_eqz(name, states[i].name)) {
            *ret = (enum rollout_state)i;
            return 0;
        }
    return FAIL(e, DATA_LOSS, "a rollout is in the unknown state '" STR_F "'", STR_A(name));
}

int rollout_from_json(const struct json *node, str endpoint, struct rollout **ret_rollout,
                      struct err *e)
{
    AUTO(rollout_freep) struct rollout *ro = mem_zalloc(sizeof(*ro));
    struct json *config;
    str id, state;

    arena_init(&ro->arena, 0);
    TRY(json_need_str(node, S("rollout_id"), &id, e));
    TRY(json_need_str(node, S("state"), &state, e));
    TRY(json_need_int(node, S("version"), &ro->version, e));
    TRY(json_need_int(node, S("previous"), &ro->previous, e));
    TRY(json_need_object(node, S("config"), &config, e));
    TRY(read_state(state, &ro->state, e));
    if (!str_to_z(id, ro->id, sizeof(ro->id)))
        return FAIL(e, DATA_LOSS, "a rollout has the malformed id '" STR_F "'", STR_A(id));
    ro->endpoint = arena_dup(&ro->arena, endpoint);
    ro->model = arena_dup(&ro->arena, json_str_or(json_get(node, S("model")), S("")));
    ro->alias = arena_dup(&ro->arena, json_str_or(json_get(node, S("alias")), S("champion")));
    ro->actor = arena_dup(&ro->arena, json_str_or(json_get(node, S("actor")), S("")));
    ro->flow = arena_dup(&ro->arena, json_str_or(json_get(node, S("flow")), S("")));
    ro->correlation = arena_dup(&ro->arena, json_str_or(json_get(node, S("correlation")), S("")));
    ro->config_json = json_copy(&ro->arena, config);
    TRY(rollout_config_read(ro->config_json, &ro->cfg, e));
    ro->told_inconclusive = json_bool_or(json_get(node, S("told_inconclusive")), false);
    ro->paused = json_bool_or(json_get(node, S("paused")), false);
    ro->step = (uint32_t)CLAMP(json_int_or(json_get(node, S("step")), 0), 0, STEPS_MAX);
    if (ro->state == ROLLOUT_STEP && ro->step >= ro->cfg.step_count)
        return FAIL(e, DATA_LOSS, "a rollout is at step %u of %u", ro->step, ro->cfg.step_count);
    ro->started_ns = json_int_or(json_get(node, S("started_ns")), 0);
    ro->step_started_ns = json_int_or(json_get(node, S("step_started_ns")), 0);
    ro->promoted_ns = json_int_or(json_get(node, S("promoted_ns")), 0);
    ro->checks_done =
        (uint32_t)CLAMP(json_int_or(json_get(node, S("checks_done")), 0), 0, CHECKS_MAX);
    snprintf(ro->version_text, sizeof(ro->version_text), "%lld", (long long)ro->version);
    snprintf(ro->previous_text, sizeof(ro->previous_text), "%lld", (long long)ro->previous);
    rollout_forget(ro);
    *ret_rollout = TAKE(ro);
    return 0;
}

void rollout_free(struct rollout *ro)
{
    if (!ro)
        return;
    arena_done(&ro->arena);
    mem_free(ro);
}
