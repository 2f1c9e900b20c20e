/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/post.h"

#include "plan/plan.h"

#include <math.h>

#define BANDS_MAX 64u
#define DECIMALS_MAX 15

static bool is_absent(const struct json *node)
{
    return !node || node->type == JSON_NULL;
}

static NODISCARD int class_find(const struct plan_reading *r, str name, const char *member,
                                size_t *ret, struct err *e)
{
    for (size_t i = 0; i < r->class_count; i++)
        if (str_eq(r->classes[i], name)) {
            *ret = i;
            return 0;
        }
    return FAIL(e, INVALID_ARGUMENT,
                "pipeline.post.%s names '" STR_F "', which is none of the %zu classes of the model",
                member, STR_A(str_take(name, 64)), r->class_count);
}

static NODISCARD int read_thresholds(const struct json *map, const struct plan_reading *r,
                                     struct arena *a, struct plan_post *post, struct err *e)
{
    double *list;
    size_t at = 0;

    if (!json_is_container(map) || !map->count)
        return 0;
    list = ARENA_ARRAY(a, double, r->class_count + 1);
    JSON_EACH (entry, map) {
        TRY(class_find(r, entry->key, "thresholds", &at, e));
        list[at] = json_real_or(entry, (double)NAN);
        if (!(list[at] >= 0 && list[at] <= 1))
            return FAIL(e, INVALID_ARGUMENT, "pipeline.post.thresholds." STR_F " is no probability",
                        STR_A(str_take(entry->key, 64)));
    }
    post->thresholds = list;
    return 0;
}

static NODISCARD int read_labels(const struct json *map, const struct plan_reading *r,
                                 struct arena *a, struct plan_post *post, struct err *e)
{
    size_t at = 0;
    str *list;

    if (!json_is_container(map) || !map->count)
        return 0;
    list = ARENA_ARRAY(a, str, r->class_count + 1);
    JSON_EACH (entry, map) {
        TRY(class_find(r, entry->key, "labels", &at, e));
        list[at] = arena_dup(a, json_str_or(entry, S("")));
    }
    post->labels = list;
    return 0;
}

static NODISCARD int read_bands(const struct json *items, struct arena *a, struct plan_post *post,
                                struct err *e)
{
    struct plan_band *list;

    if (!json_is_container(items) || !items->count)
        return 0;
    if (items->count > BANDS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "pipeline.post.bands has %zu bands, at most %u are known",
                    items->count, BANDS_MAX);
    list = ARENA_ARRAY(a, struct plan_band, items->count);
    JSON_EACH (item, items) {
        struct plan_band *band = &list[post->band_count++];

        TRY(json_need_str(item, S("band"), &band->name, e));
        band->name = arena_dup(a, band->name);
        band->beyond = json_real_or(json_get(item, S("beyond")), -1);
    }
    post->bands = list;
    return 0;
}

static NODISCARD int read_minimum(const struct json *minimum, struct arena *a,
                                  struct plan_post *post, struct err *e)
{
    if (is_absent(minimum))
        return 0;
    post->has_minimum = true;
    TRY(json_need_real(minimum, S("score"), &post->minimum, e));
    TRY(json_need_str(minimum, S("outcome"), &post->outcome, e));
    post->outcome = arena_dup(a, post->outcome);
    return 0;
}

int plan_post_read(const struct json *post, const struct plan_reading *reading, struct arena *a,
                   const struct plan_post **ret, struct err *e)
{
    double center = isfinite(reading->threshold) ? reading->threshold : 0.5;
    struct plan_post *p = ARENA_NEW(a, struct plan_post);
    int64_t decimals = json_int_or(json_get(post, S("decimals")), -1);
    str scores = json_str_or(json_get(post, S("scores")), S("shown"));

    *ret = NULL;
    if (is_absent(post))
        return 0;
    TRY(read_thresholds(json_get(post, S("thresholds")), reading, a, p, e));
    TRY(read_labels(json_get(post, S("labels")), reading, a, p, e));
    TRY(read_bands(json_get(post, S("bands")), a, p, e));
    TRY(read_minimum(json_get(post, S("minimum")), a, p, e));
    if (decimals < -1 || decimals > DECIMALS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "pipeline.post.decimals is %lld, expected 0 to %d",
                    (long long)decimals, DECIMALS_MAX);
    if (!str_eq(scores, S("shown")) && !str_eq(scores, S("hidden")))
        return FAIL(e, INVALID_ARGUMENT, "pipeline.post.scores is '" STR_F "'",
                    STR_A(str_take(scores, 32)));
    p->otherwise = arena_dup(a, json_str_or(json_get(post, S("otherwise")), S("")));
    p->center = json_real_or(json_get(post, S("center")), center);
    p->hides_scores = str_eq(scores, S("hidden"));
    p->decimals = (int)decimals;
    *ret = p;
    return 0;
}
