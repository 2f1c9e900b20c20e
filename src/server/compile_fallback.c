/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chain of an endpoint, from aliases to versions and from words to tensors.
 *
 * An endpoint that answers by alias falls back to the version under it before anything that the
 * project names: that is what a challenger's failures land on. A step whose alias names nothing,
 * whose version is not registered or has other tensors, and a static answer that does not fit the
 * signature any more, are left out with a line in the log: what is there for bad times must not
 * keep the plan from being made.
 */
#include "server/compile_priv.h"

#include "base/log.h"
#include "plan/fallback.h"

static const struct json *chain_of(const struct compiler *c)
{
    return json_path(c->endpoint, "fallback.chain");
}

/* The version of a step; 0: none. */
static NODISCARD int step_version(struct compiler *c, const struct json *step, int64_t *ret,
                                  struct err *e)
{
    str alias = json_str_or(json_get(step, S("alias")), STR_NULL);

    *ret = json_int_or(json_get(step, S("version")), 0);
    return alias.n ? compile_alias_version(c, alias, ret, e) : 0;
}

int compile_fallback_versions(struct compiler *c, struct routed *list, size_t *n, struct err *e)
{
    JSON_EACH (step, chain_of(c)) {
        int64_t version;
        size_t i = 0;

        TRY(step_version(c, step, &version, e));
        while (i < *n && list[i].version != version)
            i++;
        if (!version || i < *n || *n == COMPILE_ROUTED_MAX)
            continue;
        list[(*n)++] =
            (struct routed){version, i ? 0 : PLAN_WEIGHT_ONE, false, COMPILE_ARM_FALLBACK};
    }
    return 0;
}

/* The version by alias stands first; a fixed split has none that the others could fall back to. */
static int64_t first_version(const struct json *versions)
{
    JSON_EACH (v, versions)
        if (str_eq(json_str_or(json_get(v, S("arm")), STR_NULL), S("champion")))
            return json_int_or(json_get(v, S("version")), 0);
    return 0;
}

static bool is_among(const struct json *list, str key, int64_t version)
{
    JSON_EACH (item, list)
        if (json_int_or(key.n ? json_get(item, key) : item, 0) == version)
            return true;
    return false;
}

static void add_step(struct compiler *c, struct json *chain, const struct json *versions,
                     int64_t version)
{
    if (version && is_among(versions, S("version"), version) && !is_among(chain, STR_NULL, version))
        json_push(chain, json_new_int(c->a, version));
}

static void add_answer(struct compiler *c, struct json *part, struct json *fallback,
                       const struct json *wish)
{
    struct plan_signature sig;
    struct json *answer;
    struct err e;

    if (!plan_signature_read(json_get(part, S("signature")), c->a, &sig, &e) &&
        !plan_answer_resolve(wish, &sig, c->a, &answer, &e)) {
        json_set(fallback, S("answer"), answer);
        return;
    }
    err_add_context(&e, "the static answer of endpoint '" STR_F "'", STR_A(c->name));
    log_err("plan.answer_left_out", &e);
}

int compile_fallback(struct compiler *c, struct json *part, struct err *e)
{
    const struct json *wish = json_get(c->endpoint, S("fallback"));
    const struct json *versions = json_get(part, S("versions"));
    struct json *fallback, *chain;

    if (!json_is_container(wish) || !versions->count)
        return 0;
    fallback = json_set(part, S("fallback"), json_new_object(c->a));
    chain = json_set(fallback, S("versions"), json_new_array(c->a));
    json_set_real(c->a, fallback, S("share"), json_real_or(json_get(wish, S("share")), 0.5));
    json_set_bool(c->a, fallback, S("shed"), json_bool_or(json_get(wish, S("shed")), false));
    add_step(c, chain, versions, first_version(versions));
    JSON_EACH (step, chain_of(c)) {
        const struct json *answer = json_get(step, S("answer"));
        int64_t version;

        TRY(step_version(c, step, &version, e));
        add_step(c, chain, versions, version);
        if (json_is_container(answer) && answer->count)
            add_answer(c, part, fallback, answer);
    }
    return 0;
}
