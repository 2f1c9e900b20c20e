/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of rules share: places, problems, and fields of the normalised tree. */
#pragma once

#include "project/priv.h"

/* The place of a field, by the key that the file uses. */
static inline UNUSED struct path at_field(const struct walk *w, const struct path *p,
                                          enum section_id id, const char *key)
{
    const struct field *f = section_field(&project_sections[id], str_of(key), false);
    str name;

    ASSERT(f);
    name = str_of(w->normal ? f->out : f->key);
    return (struct path){p, name, 0, json_get(p->at, name)};
}

#define WHAT(...) arena_printf(w->a, __VA_ARGS__)

/* A problem at a field that begins with its path. */
static inline UNUSED void fail_at(struct walk *w, const struct path *at, str what, str expected)
{
    problem_add(w, at, false, WHAT(STR_F " " STR_F, STR_A(path_text(at, w->a)), STR_A(what)),
                expected, STR_NULL);
}

static inline UNUSED str text_of(const struct json *norm, const char *out)
{
    return json_str_or(json_get(norm, str_of(out)), STR_NULL);
}

static inline UNUSED bool is_set(const struct json *norm, const char *out)
{
    const struct json *value = json_get(norm, str_of(out));

    return value && value->type != JSON_NULL;
}

/* --- rules_auth.c --------------------------------------------------------------------------- */

rule_fn rule_rate, rule_issuer;
/* The gateway's address, issuers and tiers together. */
void across_auth(struct walk *w, const struct path *root);

/* --- rules_pipeline.c ----------------------------------------------------------------------- */

/* The steps of a model's pipeline, one after the other; its classes in what comes after. */
void check_pipeline(struct walk *w, const struct path *p, const struct json *model);
