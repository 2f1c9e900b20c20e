/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After the model: the rules of plan/post.h on the reading of a row (for /v1/predict, which speaks
 * of classes and scores), and on tensors (for the Open Inference Protocol, which does not: there
 * only what hides or rounds acts). What goes on record is what the model said; the answers are
 * made from a copy.
 */
#include "serve/priv.h"

#include <math.h>

static double rounded(double v, int decimals)
{
    double scale = pow(10, decimals);

    return decimals < 0 ? v : nearbyint(v * scale) / scale;
}

/* The most probable class that reaches its threshold, or -1. */
static int32_t class_above(const struct plan_post *post, const struct tensor *t, uint32_t row,
                           size_t classes)
{
    double most = -INFINITY;
    int32_t best = -1;

    for (size_t i = 0; i < classes; i++) {
        double p = tensor_number_at(t, row * classes + i);

        if (p >= post->thresholds[i] && p > most)
            most = p, best = (int32_t)i;
    }
    return best;
}

static void take_class(const struct plan_reading *plan, const struct tensor *t, uint32_t row,
                       int32_t cls, struct row_reading *r)
{
    r->cls = cls;
    r->confidence = tensor_number_at(t, row * plan->class_count + (size_t)cls);
    if (plan->positive < 0)
        r->score = r->confidence;
}

static void apply_thresholds(const struct plan_post *post, const struct plan_reading *plan,
                             const struct tensor *outputs, uint32_t row, struct row_reading *r,
                             struct row_post *ret)
{
    const struct tensor *t;
    int32_t cls;

    if (!post->thresholds || plan->probabilities < 0)
        return;
    t = &outputs[plan->probabilities];
    cls = class_above(post, t, row, plan->class_count);
    if (cls < 0) {
        ret->rule = S("threshold");
        ret->prediction = post->otherwise;
        return;
    }
    if (cls != r->cls)
        ret->rule = S("threshold");
    take_class(plan, t, row, cls, r);
}

static str band_of(const struct plan_post *post, double score)
{
    for (size_t i = 0; i < post->band_count; i++)
        if (post->bands[i].beyond < 0 || fabs(score - post->center) > post->bands[i].beyond)
            return post->bands[i].name;
    return STR_NULL;
}

void post_of_row(const struct served_endpoint *ep, const struct tensor *outputs, uint32_t row,
                 struct row_reading *r, struct row_post *ret)
{
    const struct plan_post *post = ep->plan.post;
    double score;

    *ret = (struct row_post){.rule = STR_NULL};
    apply_thresholds(post, &ep->plan.signature.reading, outputs, row, r, ret);
    if (!ret->prediction.n && post->labels && r->cls >= 0 &&
        (size_t)r->cls < ep->plan.signature.reading.class_count)
        ret->prediction = post->labels[r->cls];
    score = r->score == r->score ? r->score : r->value;
    ret->band = score == score ? band_of(post, score) : STR_NULL;
    if (post->has_minimum && score < post->minimum) {
        ret->prediction = post->outcome;
        ret->rule = S("minimum");
    }
    ret->hides_scores = post->hides_scores;
    r->score = rounded(r->score, post->decimals);
    r->confidence = rounded(r->confidence, post->decimals);
    r->value = rounded(r->value, post->decimals);
}

/* --- Tensors ---------------------------------------------------------------------------------- */

static void put(const struct tensor *t, size_t i, double v)
{
    if (t->spec->datatype == TENSOR_FP32)
        ((float *)t->data)[i] = (float)v;
    else if (t->spec->datatype == TENSOR_FP64)
        ((double *)t->data)[i] = v;
}

static void copy_data(struct arena *a, struct tensor *t)
{
    void *data = arena_alloc(a, MAX(t->bytes, (size_t)1));

    memcpy(data, t->data, t->bytes);
    t->data = data;
}

static void round_tensor(struct tensor *t, int decimals)
{
    for (size_t i = 0; i < t->count; i++)
        put(t, i, rounded(tensor_number_at(t, i), decimals));
}

/* 1 for the class that is given, 0 for the others. */
static void hide_row(const struct served_endpoint *ep, const struct tensor *outputs,
                     struct tensor *t, uint32_t row)
{
    size_t classes = ep->plan.signature.reading.class_count;
    struct row_reading r;
    struct row_post said;

    reading_of_row(&ep->plan.signature, outputs, row, &r);
    post_of_row(ep, outputs, row, &r, &said);
    for (size_t i = 0; i < classes; i++)
        put(t, row * classes + i, (int32_t)i == r.cls);
}

const struct tensor *post_of_tensors(struct serve_loop *l, struct exchange *x,
                                     const struct tensor *outputs)
{
    const struct plan_reading *plan = &x->ep->plan.signature.reading;
    const struct plan_post *post = x->ep->plan.post;
    uint32_t count = x->ep->schema.output_count;
    struct arena *a = exchange_arena(l, x);
    struct tensor *shown;

    if (!post || !x->ep->batched || (!post->hides_scores && post->decimals < 0))
        return outputs;
    shown = arena_alloc(a, count * sizeof(*shown));
    memcpy(shown, outputs, count * sizeof(*shown));
    if (plan->probabilities >= 0) {
        struct tensor *t = &shown[plan->probabilities];
        bool fits = t->count == (size_t)x->rows * MAX(plan->class_count, (size_t)1);

        copy_data(a, t);
        for (uint32_t row = 0; post->hides_scores && fits && row < x->rows; row++)
            hide_row(x->ep, outputs, t, row);
        if (post->decimals >= 0 && !post->hides_scores)
            round_tensor(t, post->decimals);
    }
    if (plan->value >= 0 && post->decimals >= 0) {
        copy_data(a, &shown[plan->value]);
        round_tensor(&shown[plan->value], post->decimals);
    }
    return shown;
}
