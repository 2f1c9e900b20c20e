/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every figure of tests/oracle/data/stats.json (SciPy, NumPy, scikit-learn; written by
 * tests/oracle/make_stats_oracle.py) against our functions. A case of a function that is not known
 * here is a failure, and so is a function without a case.
 */
#include "base/files.h"
#include "base/mem.h"
#include "check.h"
#include "stats/classify.h"
#include "stats/distance.h"
#include "stats/gate.h"
#include "stats/special.h"

#define N_MAX 512

static double num(const struct json *x, size_t i)
{
    return json_real_or(json_at(x, i), NAN);
}

static size_t numbers(const struct json *array, double *ret)
{
    size_t n = 0;

    JSON_EACH (v, array) {
        ASSERT(n < N_MAX);
        ret[n++] = json_real_or(v, NAN);
    }
    return n;
}

static size_t counts(const struct json *array, uint64_t *ret)
{
    double x[N_MAX];
    size_t n = numbers(array, x);

    for (size_t i = 0; i < n; i++)
        ret[i] = (uint64_t)x[i];
    return n;
}

typedef double (*scalar_fn)(const struct json *x);
#define SCALAR1(name)                            \
    static double f_##name(const struct json *x) \
    {                                            \
        return special_##name(num(x, 0));        \
    }
#define SCALAR2(name)                                \
    static double f_##name(const struct json *x)     \
    {                                                \
        return special_##name(num(x, 0), num(x, 1)); \
    }
#define SCALAR3(name)                                           \
    static double f_##name(const struct json *x)                \
    {                                                           \
        return special_##name(num(x, 0), num(x, 1), num(x, 2)); \
    }
SCALAR1(normal_cdf)
SCALAR1(normal_sf)
SCALAR1(normal_quantile)
SCALAR1(kolmogorov_sf)
SCALAR2(gamma_p)
SCALAR2(gamma_q)
SCALAR2(chi2_quantile)
SCALAR2(ln_choose)
SCALAR3(beta_inc)
SCALAR3(binomial_upper)
SCALAR3(binomial_lower)

#define VECTOR(name)                             \
    static double f_##name(const struct json *x) \
    {                                            \
        uint64_t a[N_MAX], b[N_MAX];             \
        size_t n = counts(json_at(x, 0), a);     \
                                                 \
        CHECK_INT(counts(json_at(x, 1), b), n);  \
        return distance_##name(a, b, n);         \
    }
VECTOR(psi)
VECTOR(kl)
VECTOR(js)
VECTOR(ks)

static double f_wasserstein(const struct json *x)
{
    uint64_t a[N_MAX], b[N_MAX];
    double mids[N_MAX];
    size_t n = counts(json_at(x, 0), a);

    CHECK_INT(counts(json_at(x, 1), b), n);
    CHECK_INT(numbers(json_at(x, 2), mids), n);
    return distance_wasserstein(a, b, mids, n, num(x, 3));
}

static double f_ks_p(const struct json *x)
{
    return distance_ks_p(num(x, 0), num(x, 1), num(x, 2));
}

static struct scored_report scored_of(const struct json *x)
{
    double score[N_MAX], label[N_MAX];
    struct scored rows[N_MAX];
    struct scored_report r = {0};
    size_t n = numbers(json_at(x, 0), score);
    struct err e;

    CHECK_INT(numbers(json_at(x, 1), label), n);
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct scored){score[i], (uint32_t)label[i], 0};
    CHECK_OK(scored_report_of(rows, n, &r, &e), &e);
    return r;
}

#define SCORED(name)                             \
    static double f_##name(const struct json *x) \
    {                                            \
        return scored_of(x).name;                \
    }
SCORED(roc_auc)
SCORED(pr_auc)
SCORED(log_loss)
SCORED(brier)

static const struct class_report *classes_of(const struct json *x)
{
    static struct class_report r;
    static struct confusion c;
    double label[N_MAX], guess[N_MAX];
    size_t n = numbers(json_at(x, 0), label);

    CHECK_INT(numbers(json_at(x, 1), guess), n);
    confusion_init(&c, 4);
    for (size_t i = 0; i < n; i++)
        confusion_add(&c, (uint32_t)label[i], (uint32_t)guess[i], 1);
    confusion_report(&c, &r);
    return &r;
}

#define CLASSES(name, field)                     \
    static double f_##name(const struct json *x) \
    {                                            \
        return classes_of(x)->field;             \
    }
CLASSES(accuracy, accuracy)
CLASSES(balanced_accuracy, balanced_accuracy)
CLASSES(precision_macro, precision_macro)
CLASSES(recall_macro, recall_macro)
CLASSES(f1_macro, f1_macro)
CLASSES(precision_2, per_class[2].precision)
CLASSES(recall_2, per_class[2].recall)
CLASSES(f1_2, per_class[2].f1)

/* With harm_odds 1 the wealth of the bet on odds 2 (the fifth of the grid) is the ratio itself. */
static double f_twoarm_ln_lr_2(const struct json *x)
{
    struct twoarm_gate g;
    struct err e;

    CHECK_OK(twoarm_gate_init(&g, 1.0, 2.0, 0, &e), &e);
    twoarm_gate_block(&g, (uint64_t)num(x, 0), (uint64_t)num(x, 1), (uint64_t)num(x, 2),
                      (uint64_t)num(x, 3));
    return g.harm.ln_wealth[4];
}

static struct oracle_fn {
    const char *name;
    scalar_fn fn;
    double tolerance; /* relative, and absolute below 1 in size */
    int cases;
} functions[] = {
#define F(name, tolerance)            \
    {                                 \
#name, f_##name, tolerance, 0 \
    }
    F(normal_cdf, 1e-13),
    F(normal_sf, 1e-13),
    F(normal_quantile, 1e-12),
    F(kolmogorov_sf, 1e-13),
    F(gamma_p, 1e-11),
    F(gamma_q, 1e-11),
    F(chi2_quantile, 1e-10),
    F(ln_choose, 1e-12),
    F(beta_inc, 1e-11),
    F(binomial_upper, 1e-11),
    F(binomial_lower, 1e-11),
    F(psi, 1e-12),
    F(kl, 1e-12),
    F(js, 1e-10),
    F(ks, 1e-12),
    F(wasserstein, 1e-12),
    F(ks_p, 1e-12),
    F(roc_auc, 1e-12),
    F(pr_auc, 1e-12),
    F(log_loss, 1e-12),
    F(brier, 1e-12),
    F(accuracy, 1e-12),
    F(balanced_accuracy, 1e-12),
    F(precision_macro, 1e-12),
    F(recall_macro, 1e-12),
    F(f1_macro, 1e-12),
    F(precision_2, 1e-12),
    F(recall_2, 1e-12),
    F(f1_2, 1e-12),
    F(twoarm_ln_lr_2, 1e-9),
#undef F
};

static void compare(const struct json *c, struct arena *a)
{
    str name = json_str_or(json_get(c, S("f")), STR_NULL);
    const struct json *x = json_get(c, S("x")), *y = json_get(c, S("y"));

    if (str_eqz(name, "chi2")) {
        uint64_t p[N_MAX], q[N_MAX];
        size_t n = counts(json_at(x, 0), p);
        struct chi2 r;

        CHECK_INT(counts(json_at(x, 1), q), n);
        r = distance_chi2(p, q, n);
        CHECK_NEAR(r.statistic, num(y, 0), 1e-10 * num(y, 0));
        CHECK_NEAR(r.df, num(y, 1), 0);
        CHECK_NEAR(r.p, num(y, 2), 1e-12);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        double want = json_real_or(y, NAN), got;

        if (!str_eqz(name, functions[i].name))
            continue;
        functions[i].cases++;
        got = functions[i].fn(x);
        if (!CHECK(fabs(got - want) <= functions[i].tolerance * MAX(fabs(want), 1e-300) ||
                   fabs(got - want) <= functions[i].tolerance * 1e-2))
            fprintf(stderr, "    %s, line %u: got %.17g, want %.17g\n", functions[i].name, c->line,
                    got, want);
        return;
    }
    fprintf(stderr, "    no function '%s'\n", arena_dupz(a, name));
    CHECK(false);
}

static void test_oracle(void)
{
    AUTO(arena_done) struct arena a;
    struct json *root;
    struct err e;
    str text;

    arena_init(&a, 0);
    NEED_OK(file_read_all("tests/oracle/data/stats.json", 1 << 20, &a, &text, &e), &e);
    NEED_OK(json_parse(text, &a, &root, &e), &e);
    JSON_EACH (c, root)
        compare(c, &a);
    for (size_t i = 0; i < ARRAY_LEN(functions); i++)
        CHECK(functions[i].cases > 0);
}

static void test_edges_of_domains(void)
{
    CHECK(isinf(special_normal_quantile(0)) && special_normal_quantile(0) < 0);
    CHECK(isinf(special_normal_quantile(1)));
    CHECK(isnan(special_normal_quantile(1.5)));
    CHECK(isnan(special_gamma_p(-1, 1)));
    CHECK(isnan(special_beta_inc(1, 1, 2)));
    CHECK_NEAR(special_chi2_sf(0, 5), 1, 0);
    CHECK_NEAR(special_log_add(-INFINITY, 3.0), 3.0, 0);
    CHECK_NEAR(special_log_add(1000.0, 1000.0), 1000.0 + M_LN2, 1e-12);
    CHECK_NEAR(special_log_sum_exp((double[]){-1e4, -1e4, -1e4}, 3), -1e4 + log(3), 1e-9);
    CHECK(isinf(special_log_sum_exp(NULL, 0)));
}

/* The published size of PSI with the +0.5 rule, and of its threshold (notes of the method). */
static void test_psi_thresholds(void)
{
    CHECK_NEAR(distance_psi_null(50, 5000, 10, 0.05), 0.3418, 1e-4);
    CHECK_NEAR(distance_psi_null(100, 5000, 10, 0.05), 0.1726, 1e-4);
    CHECK_NEAR(distance_psi_null(1000, 5000, 10, 0.05), 0.0203, 1e-4);
    CHECK_NEAR(distance_psi_null(300, 5000, 30, 0.05), 0.1504, 1e-4);
}

static void test_severity_boundaries(void)
{
    static const struct {
        double value;
        enum drift_severity want;
    } table[] = {
        {-1, DRIFT_OK},
        {0.0, DRIFT_OK},
        {0.0999999, DRIFT_OK},
        {0.1, DRIFT_WATCH},
        {0.1999999, DRIFT_WATCH},
        {0.2, DRIFT_MODERATE},
        {0.2999999, DRIFT_MODERATE},
        {0.3, DRIFT_SEVERE},
        {INFINITY, DRIFT_SEVERE},
        {NAN, DRIFT_OK},
    };
    struct drift_bands own = {1, 1, 5};

    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        CHECK_INT(drift_severity_of(table[i].value, &DRIFT_BANDS_PSI), table[i].want);
    CHECK_INT(drift_severity_of(1, &own), DRIFT_MODERATE);
    CHECK_STR(str_of(drift_severity_name(DRIFT_SEVERE)), S("severe"));
}

static void test_empty_samples(void)
{
    uint64_t a[3] = {0}, b[3] = {1, 2, 3};
    struct confusion c;
    struct class_report r;

    CHECK(isnan(distance_psi(a, b, 3)) && isnan(distance_kl(b, a, 3)) &&
          isnan(distance_js(a, b, 3)) && isnan(distance_ks(a, b, 3)));
    CHECK(isnan(distance_chi2(a, b, 3).p));
    CHECK_NEAR(distance_chi2((uint64_t[]){1, 1, 0}, b, 3).p, 1, 0); /* all pooled: no test */
    CHECK_NEAR(distance_psi(b, b, 3), 0, 0);
    CHECK_NEAR(distance_js((uint64_t[]){9, 0, 0}, (uint64_t[]){0, 0, 4}, 3), 1, 1e-15);
    confusion_init(&c, 2);
    confusion_report(&c, &r);
    CHECK(isnan(r.accuracy) && r.f1_macro == 0);
}

static void test_slices(void)
{
    struct scored rows[] = {{.9, 1, 1}, {.1, 0, 0}, {.8, 0, 1}, {.7, 1, 0}, {.2, 1, 1}};
    struct scored_report r[3];
    struct err e;

    NEED_OK(scored_slices(rows, ARRAY_LEN(rows), 3, r, &e), &e);
    CHECK_INT(r[0].n, 2);
    CHECK_NEAR(r[0].roc_auc, 1, 0);
    CHECK_INT(r[1].positives, 2);
    CHECK_NEAR(r[1].roc_auc, 0.5, 0);
    CHECK(r[2].n == 0 && isnan(r[2].roc_auc) && isnan(r[2].log_loss));
    CHECK_FAILS(scored_slices(rows, ARRAY_LEN(rows), 1, r, &e), INVALID_ARGUMENT, &e, "slice");
    rows[2].score = NAN;
    CHECK_FAILS(scored_report_of(rows, ARRAY_LEN(rows), r, &e), INVALID_ARGUMENT, &e, "finite");
}

RUN_TESTS(T(test_oracle), T(test_edges_of_domains), T(test_psi_thresholds),
          T(test_severity_boundaries), T(test_empty_samples), T(test_slices))
