/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Computing open parameters from data, one step after the other: the steps before it, which are
 * fitted by then, run over all rows; what the step's columns hold then decides its parameters. So
 * an open step sees exactly what it will see in service.
 *
 * Spread is that of the rows themselves (divided by n); quantiles are interpolated between
 * neighbours; a spread of 0 becomes 1; of equally frequent values the least wins; categories are
 * sorted.
 */
#include "pipeline/priv.h"

#include "base/num.h"

#include <math.h>
#include <stdlib.h>

/* The values of one column that are there. */
struct sample {
    double *numbers; /* sorted; or NULL */
    str *texts;      /* sorted; or NULL */
    size_t n;
};

struct fitter {
    struct arena *a;
    struct json *document; /* the copy that becomes the result */
    const struct pipeline_values *inputs;
    size_t row_count;
    size_t step;
};

/* --- Samples ---------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static int by_text(const void *a, const void *b)
{
    return str_cmp(*(const str *)a, *(const str *)b);
}

static void sample_add(struct sample *s, const struct pipeline_work *w,
                       const struct pipeline_column *c, uint32_t rows)
{
    for (uint32_t i = 0; i < rows; i++) {
        if (s->texts && pipeline_texts(w, c->at)[i].n)
            s->texts[s->n++] = pipeline_texts(w, c->at)[i];
        else if (s->numbers && !isnan(pipeline_numbers(w, c->at)[i]))
            s->numbers[s->n++] = pipeline_numbers(w, c->at)[i];
    }
}

static const struct pipeline_column *output_find(const struct pipeline *p, str name)
{
    for (uint32_t i = 0; i < p->output_count; i++)
        if (str_eq(p->outputs[i].name, name))
            return &p->outputs[i];
    return NULL;
}

/* The program of the steps before f->step. */
static NODISCARD int prefix_read(struct fitter *f, struct pipeline **ret, struct err *e)
{
    struct json *document = json_new_object(f->a), *steps;
    size_t i = 0;

    json_set_int(f->a, document, S("format"), PIPELINE_FORMAT);
    json_set(document, S("columns"), json_copy(f->a, json_get(f->document, S("columns"))));
    steps = json_set(document, S("steps"), json_new_array(f->a));
    JSON_EACH (step, json_get(f->document, S("steps")))
        if (i++ < f->step)
            json_push(steps, json_copy(f->a, step));
    return pipeline_read(document, NULL, f->a, ret, e);
}

/* What the columns of the step hold, one sample each. */
static NODISCARD int samples_make(struct fitter *f, const struct json *columns, struct sample **ret,
                                  struct err *e)
{
    const struct pipeline_column **from =
        ARENA_ARRAY(f->a, const struct pipeline_column *, columns->count);
    struct sample *samples = ARENA_ARRAY(f->a, struct sample, columns->count);
    struct pipeline_work w;
    struct pipeline *p;
    size_t n = 0;

    TRY(prefix_read(f, &p, e));
    pipeline_work_init(&w, p, f->a);
    JSON_EACH (name, columns) {
        from[n] = output_find(p, json_str_or(name, S("")));
        if (!from[n])
            return FAIL(e, INVALID_ARGUMENT, "pipeline step %zu: '" STR_F "' is no column",
                        f->step + 1, STR_A(json_str_or(name, S(""))));
        if (from[n]->type == PIPELINE_TEXT)
            samples[n].texts = ARENA_ARRAY(f->a, str, f->row_count + 1);
        else
            samples[n].numbers = ARENA_ARRAY(f->a, double, f->row_count + 1);
        n++;
    }
    for (size_t at = 0; at < f->row_count; at += PIPELINE_BLOCK_ROWS) {
        uint32_t rows = (uint32_t)MIN(f->row_count - at, (size_t)PIPELINE_BLOCK_ROWS);

        TRY(pipeline_run(p, &w, f->inputs, at, rows, e));
        for (size_t i = 0; i < n; i++)
            sample_add(&samples[i], &w, from[i], rows);
    }
    for (size_t i = 0; i < n; i++) {
        if (!samples[i].n)
            return FAIL(e, FAILED_PRECONDITION,
                        "pipeline step %zu: column '" STR_F
                        "' has no value in the data to compute its parameters from",
                        f->step + 1, STR_A(from[i]->name));
        if (samples[i].texts)
            qsort(samples[i].texts, samples[i].n, sizeof(str), by_text);
        else
            qsort(samples[i].numbers, samples[i].n, sizeof(double), by_number);
    }
    *ret = samples;
    return 0;
}

/* --- Numbers of a sample ---------------------------------------------------------------------- */

/* With the error of each addition kept (Neumaier), so that order and size do not matter. */
static double sum_of(const struct sample *s, double away, bool squared)
{
    double sum = 0, lost = 0;

    for (size_t i = 0; i < s->n; i++) {
        double v = s->numbers[i] - away, next;

        v = squared ? v * v : v;
        next = sum + v;
        lost += fabs(sum) >= fabs(v) ? (sum - next) + v : (v - next) + sum;
        sum = next;
    }
    return sum + lost;
}

static double mean_of(const struct sample *s)
{
    return sum_of(s, 0, false) / (double)s->n;
}

static double quantile_of(const struct sample *s, double q)
{
    double at = q * (double)(s->n - 1), low = floor(at);
    size_t i = (size_t)low;

    if (i + 1 >= s->n)
        return s->numbers[s->n - 1];
    return s->numbers[i] + (s->numbers[i + 1] - s->numbers[i]) * (at - low);
}

static double spread_or_one(double v)
{
    return v > 0 && isfinite(v) ? v : 1;
}

static bool is_same(const struct sample *s, size_t i, size_t j)
{
    return s->texts ? str_eq(s->texts[i], s->texts[j]) : s->numbers[i] == s->numbers[j];
}

/* The end of the run of equal values that begins at i. */
static size_t run_end(const struct sample *s, size_t i)
{
    size_t end = i + 1;

    while (end < s->n && is_same(s, i, end))
        end++;
    return end;
}

static size_t most_frequent(const struct sample *s)
{
    size_t best = 0, most = 0;

    for (size_t i = 0, end; i < s->n; i = end) {
        end = run_end(s, i);
        if (end - i > most)
            most = end - i, best = i;
    }
    return best;
}

/* --- Steps ------------------------------------------------------------------------------------ */

static struct json *value_json(struct fitter *f, const struct sample *s, size_t i)
{
    return s->texts ? json_new_str(f->a, s->texts[i]) : json_new_real(f->a, s->numbers[i]);
}

static str value_text(struct fitter *f, const struct sample *s, size_t i)
{
    char text[NUM_TEXT_MAX];

    return s->texts ? s->texts[i]
                    : arena_dup(f->a, (str){text, num_f64_text(s->numbers[i] + 0.0, text)});
}

/* The categories of a sample in order, or with their shares. */
static struct json *categories_json(struct fitter *f, const struct sample *s, bool with_share)
{
    struct json *to = with_share ? json_new_object(f->a) : json_new_array(f->a), *share;

    for (size_t i = 0, end; i < s->n; i = end) {
        end = run_end(s, i);
        if (!with_share) {
            json_push(to, json_new_str(f->a, value_text(f, s, i)));
            continue;
        }
        share = json_new_real(f->a, (double)(end - i) / (double)s->n);
        share->key = value_text(f, s, i); /* sorted, so each is there once */
        json_push(to, share);
    }
    return to;
}

static size_t category_count(const struct sample *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n; i = run_end(s, i))
        n++;
    return n;
}

static NODISCARD int fit_categories(struct fitter *f, struct json *step, const char *member,
                                    const struct sample *s, struct err *e)
{
    struct json *lists = json_new_array(f->a);
    size_t i = 0;

    JSON_EACH (name, json_get(step, S("columns"))) {
        size_t n = category_count(&s[i]);

        if (n > PIPELINE_CATEGORIES_MAX ||
            (n > PIPELINE_COLUMNS_MAX &&
             str_eqz(json_str_or(json_get(step, S("step")), S("")), "one_hot")))
            return FAIL(e, INVALID_ARGUMENT,
                        "pipeline step %zu: column '" STR_F "' has %zu categories in the data",
                        f->step + 1, STR_A(json_str_or(name, S(""))), n);
        json_push(lists, categories_json(f, &s[i++], strcmp(member, "values") == 0));
    }
    json_set(step, str_of(member), lists);
    return 0;
}

typedef double parameter_fn(const struct sample *s);

static double std_of(const struct sample *s)
{
    return spread_or_one(sqrt(sum_of(s, mean_of(s), true) / (double)s->n));
}

static double min_of(const struct sample *s)
{
    return s->numbers[0];
}

static double max_of(const struct sample *s)
{
    return s->numbers[s->n - 1];
}

static double median_of(const struct sample *s)
{
    return quantile_of(s, 0.5);
}

static double range_of(const struct sample *s)
{
    return spread_or_one(quantile_of(s, 0.75) - quantile_of(s, 0.25));
}

static const struct {
    const char *step, *member;
    parameter_fn *fn;
} parameters[] = {
    {"standard", "mean", mean_of}, {"standard", "std", std_of},     {"min_max", "min", min_of},
    {"min_max", "max", max_of},    {"robust", "center", median_of}, {"robust", "scale", range_of},
};

/* A list with a value for each column, where the step leaves the parameter open. */
static void fit_number(struct fitter *f, struct json *step, const char *member,
                       const struct sample *s, parameter_fn *fn)
{
    const struct json *given = json_get(step, str_of(member));
    struct json *list = json_new_array(f->a);
    size_t n = json_get(step, S("columns"))->count;

    if (given && given->type != JSON_NULL)
        return;
    for (size_t i = 0; i < n; i++)
        json_push(list, json_new_real(f->a, fn(&s[i])));
    json_set(step, str_of(member), list);
}

static void fit_impute(struct fitter *f, struct json *step, const struct sample *s)
{
    struct json *values = json_new_array(f->a), *texts = json_new_array(f->a);
    str with = json_str_or(json_get(step, S("with")), S(""));
    size_t n = json_get(step, S("columns"))->count;

    for (size_t i = 0; i < n; i++) {
        struct json *v = str_eq(with, S("mean"))     ? json_new_real(f->a, mean_of(&s[i]))
                         : str_eq(with, S("median")) ? json_new_real(f->a, median_of(&s[i]))
                                                     : value_json(f, &s[i], most_frequent(&s[i]));

        json_push(values, s[i].texts ? json_new_null(f->a) : v);
        json_push(texts, s[i].texts ? v : json_new_null(f->a));
    }
    json_set(step, S("value"), values);
    json_set(step, S("text"), texts);
}

static const char *categories_member(str kind)
{
    return str_eq(kind, S("table")) ? "values" : "categories";
}

static bool is_given(const struct json *step, const char *member)
{
    const struct json *node = json_get(step, str_of(member));

    return node && node->type != JSON_NULL && (!json_is_container(node) || node->count);
}

/* Whether a step has an open parameter. */
static bool step_is_open(const struct json *step)
{
    str kind = json_str_or(json_get(step, S("step")), S(""));

    if (str_eq(kind, S("one_hot")) || str_eq(kind, S("ordinal")) || str_eq(kind, S("table")))
        return !is_given(step, categories_member(kind));
    if (str_eq(kind, S("impute")))
        return !str_eq(json_str_or(json_get(step, S("with")), S("constant")), S("constant")) &&
               !is_given(step, "value") && !is_given(step, "text");
    for (size_t i = 0; i < ARRAY_LEN(parameters); i++)
        if (str_eqz(kind, parameters[i].step) && !is_given(step, parameters[i].member))
            return true;
    return false;
}

static NODISCARD int step_fit(struct fitter *f, struct json *step, struct err *e)
{
    str kind = json_str_or(json_get(step, S("step")), S(""));
    struct sample *samples;

    TRY(samples_make(f, json_get(step, S("columns")), &samples, e));
    if (str_eq(kind, S("impute")))
        fit_impute(f, step, samples);
    else if (str_eq(kind, S("one_hot")) || str_eq(kind, S("ordinal")) || str_eq(kind, S("table")))
        return fit_categories(f, step, categories_member(kind), samples, e);
    for (size_t i = 0; i < ARRAY_LEN(parameters); i++)
        if (str_eqz(kind, parameters[i].step))
            fit_number(f, step, parameters[i].member, samples, parameters[i].fn);
    return 0;
}

bool pipeline_is_open(const struct json *document)
{
    const struct json *steps = json_get(document, S("steps"));

    if (steps && steps->type == JSON_ARRAY)
        JSON_EACH (step, steps)
            if (step_is_open(step))
                return true;
    return false;
}

int pipeline_fit(const struct json *document, const struct pipeline_values *inputs,
                 size_t row_count, struct arena *a, struct json **ret, struct err *e)
{
    static const struct pipeline_options open = {.may_be_open = true};
    struct fitter f = {.a = a, .inputs = inputs, .row_count = row_count};
    struct pipeline *whole;

    TRY(pipeline_read(document, &open, a, &whole, e));
    f.document = json_copy(a, document);
    JSON_EACH (step, json_get(f.document, S("steps"))) {
        if (step_is_open(step))
            TRY(step_fit(&f, step, e));
        f.step++;
    }
    TRY(pipeline_read(f.document, NULL, a, &whole, e));
    *ret = f.document;
    return 0;
}
