/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the sums of a row to its answer. Each function is the formula of the library that wrote the
 * model, in its order and precision, because that is what a golden answer was recorded with:
 *   XGBoost 3.2    common/math.h (Sigmoid, Softmax), objective/regression_loss.h
 *   LightGBM 4.7   ConvertOutput of each objective, common.h (Softmax)
 *   ONNX Runtime   ml_common.h (write_scores)
 * Functions in float cast the sum, which is a float there, first.
 */
#include "serve/trees/priv.h"

#include <float.h>
#include <math.h>

/* m->groups sums to m->outputs scores; returns the class. */
typedef uint32_t (*transform_fn)(const struct trees_model *m, const double *sums, double *scores);

static uint32_t largest(const struct trees_model *m, const double *v)
{
    uint32_t best = 0;

    for (uint32_t i = 1; m->classifier && i < m->outputs; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

static uint32_t identity(const struct trees_model *m, const double *sums, double *scores)
{
    memcpy(scores, sums, m->outputs * sizeof(*scores));
    return largest(m, sums);
}

/* --- XGBoost ---------------------------------------------------------------------------------- */

static float sigmoid_f32(float x)
{
    return 1.0f / (expf(fminf(-x, 88.7f)) + 1.0f + 1e-16f);
}

static uint32_t xgb_sigmoid(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = (double)sigmoid_f32((float)sums[i]);
    return 0;
}

static uint32_t xgb_exp(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = (double)expf((float)sums[i]);
    return 0;
}

static uint32_t xgb_binary(const struct trees_model *m, const double *sums, double *scores)
{
    float p = sigmoid_f32((float)sums[0]);

    (void)m;
    scores[0] = (double)(1.0f - p);
    scores[1] = (double)p;
    return p > 0.5f;
}

static uint32_t xgb_margins(const struct trees_model *m, const double *sums, double *scores)
{
    (void)m;
    scores[0] = -sums[0];
    scores[1] = sums[0];
    return sums[0] > 0;
}

static uint32_t xgb_hinge(const struct trees_model *m, const double *sums, double *scores)
{
    uint32_t yes = sums[0] > 0;

    (void)m;
    scores[0] = !yes;
    scores[1] = yes;
    return yes;
}

static uint32_t xgb_softmax(const struct trees_model *m, const double *sums, double *scores)
{
    float most = (float)sums[0];
    double total = 0;

    for (uint32_t i = 1; i < m->groups; i++)
        most = fmaxf(most, (float)sums[i]);
    for (uint32_t i = 0; i < m->groups; i++) {
        scores[i] = (double)expf((float)sums[i] - most);
        total += scores[i];
    }
    for (uint32_t i = 0; i < m->groups; i++)
        scores[i] = (double)((float)scores[i] / (float)total);
    return largest(m, sums);
}

/* --- LightGBM --------------------------------------------------------------------------------- */

static double sigmoid_f64(double slope, double x)
{
    return 1.0 / (1.0 + exp(-slope * x));
}

static uint32_t lgb_sigmoid(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = sigmoid_f64(m->slope, sums[i]);
    return largest(m, scores);
}

static uint32_t lgb_binary(const struct trees_model *m, const double *sums, double *scores)
{
    double p = sigmoid_f64(m->slope, sums[0]);

    scores[0] = 1.0 - p;
    scores[1] = p;
    return scores[1] > scores[0];
}

static uint32_t lgb_softmax(const struct trees_model *m, const double *sums, double *scores)
{
    double most = sums[0], total = 0;

    for (uint32_t i = 1; i < m->groups; i++)
        most = fmax(most, sums[i]);
    for (uint32_t i = 0; i < m->groups; i++)
        total += scores[i] = exp(sums[i] - most);
    for (uint32_t i = 0; i < m->groups; i++)
        scores[i] /= total;
    return largest(m, scores);
}

static uint32_t lgb_exp(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = exp(sums[i]);
    return 0;
}

static uint32_t lgb_log1p_exp(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = log1p(exp(sums[i]));
    return 0;
}

static uint32_t lgb_square(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = copysign(sums[i] * sums[i], sums[i]);
    return 0;
}

/* --- ONNX Runtime ----------------------------------------------------------------------------- */

static float logistic_f32(float x)
{
    float v = 1.0f / (1.0f + expf(-fabsf(x)));

    return x < 0 ? 1.0f - v : v;
}

static uint32_t onnx_logistic(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = (double)logistic_f32((float)sums[i]);
    return largest(m, sums);
}

static uint32_t onnx_softmax(const struct trees_model *m, const double *sums, double *scores)
{
    float most = -FLT_MAX, total = 0;

    for (uint32_t i = 0; i < m->groups; i++)
        most = (float)sums[i] > most ? (float)sums[i] : most;
    for (uint32_t i = 0; i < m->groups; i++) {
        float v = expf((float)sums[i] - most);

        scores[i] = (double)v;
        total += v;
    }
    for (uint32_t i = 0; i < m->groups; i++)
        scores[i] = (double)((float)scores[i] / total);
    return largest(m, sums);
}

static uint32_t onnx_softmax_zero(const struct trees_model *m, const double *sums, double *scores)
{
    float most = -FLT_MAX, total = 0, scale;

    for (uint32_t i = 0; i < m->groups; i++)
        most = (float)sums[i] > most ? (float)sums[i] : most;
    scale = expf(-most);
    for (uint32_t i = 0; i < m->groups; i++) {
        float v = (float)sums[i];

        if (v > 0.0000001f || v < -0.0000001f) {
            v = expf(v - most);
            total += v;
        } else {
            v *= scale;
        }
        scores[i] = (double)v;
    }
    for (uint32_t i = 0; i < m->groups; i++)
        scores[i] = (double)((float)scores[i] / total);
    return largest(m, sums);
}

/* Winitzki's approximation of the inverse of erf, with the constants that are used there. */
static float probit_f32(float p)
{
    float x = 2 * p - 1, sign = x < 0 ? -1.0f : 1.0f, log_part, v, v2;

    log_part = logf((1 - x) * (1 + x));
    v = 2 / (3.14159f * 0.147f) + 0.5f * log_part;
    v2 = 1 / 0.147f * log_part;
    return 1.41421356f * sign * sqrtf(-v + sqrtf(v * v - v2));
}

static uint32_t onnx_probit(const struct trees_model *m, const double *sums, double *scores)
{
    for (uint32_t i = 0; i < m->outputs; i++)
        scores[i] = (double)probit_f32((float)sums[i]);
    return largest(m, sums);
}

static uint32_t onnx_complement(const struct trees_model *m, const double *sums, double *scores)
{
    scores[0] = m->wide_sum ? 1.0 - sums[0] : (double)(1.0f - (float)sums[0]);
    scores[1] = sums[0];
    return sums[0] > 0.5;
}

static uint32_t onnx_mirror(const struct trees_model *m, const double *sums, double *scores)
{
    return xgb_margins(m, sums, scores);
}

static uint32_t onnx_binary(const struct trees_model *m, const double *sums, double *scores)
{
    (void)m;
    scores[0] = (double)logistic_f32(-(float)sums[0]);
    scores[1] = (double)logistic_f32((float)sums[0]);
    return sums[0] > 0;
}

static uint32_t onnx_binary_half(const struct trees_model *m, const double *sums, double *scores)
{
    onnx_binary(m, sums, scores);
    return sums[0] > 0.5;
}

static const transform_fn transforms[TREES_TRANSFORM_COUNT] = {
#define TRANSFORM(name, fn, help) [TREES_##name] = fn,
#include "serve/trees/transforms.def"
#undef TRANSFORM
};

uint32_t trees_answer(const struct trees_model *m, const double *sums, double *scores)
{
    return transforms[m->transform](m, sums, scores);
}
