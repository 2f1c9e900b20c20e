/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The profile of a version: for each feature and each output, the cells that partition its values
 * and the detector that was fitted to them, and how often the version was wrong on the reference.
 *
 * Columns stand in the order in which the gateway records them (features by tensor and element,
 * then outputs). A column that cannot be partitioned (all missing, a lone value, too few rows) has
 * null in place of cells, so that positions never shift. What the gateway sees as float32 is
 * rounded to float32 first: otherwise values at an edge would fall on different sides.
 */
#include "registry/priv.h"

#include "base/mem.h"
#include "stats/edetector.h"

#include <math.h>

struct column {
    str name;
    bool is_output, single;          /* single: recorded as float32 */
    const struct table_column *from; /* NULL: not in the reference */
    double *values;                  /* numbers, rounded */
};

struct profiler {
    const struct profile_input *in;
    struct arena *a;
    struct column *columns;
    uint32_t count;
};

static str input_name(struct profiler *p, uint32_t tensor, uint32_t element)
{
    const struct plan_signature *sig = p->in->signature;

    for (uint32_t c = 0; c < sig->column_count; c++)
        if (sig->columns[c].tensor == tensor && sig->columns[c].position == element)
            return sig->columns[c].name;
    if (tensor_row_elements(&sig->inputs[tensor]) == 1)
        return sig->inputs[tensor].name;
    return arena_printf(p->a, STR_F "_%u", STR_A(sig->inputs[tensor].name), element);
}

/* A category that the model takes by its code is recorded as that code. */
static void code_values(const struct field_column *f, const struct table_column *from, size_t n,
                        double *to)
{
    for (size_t row = 0; row < n; row++) {
        double v = from->values[row];

        to[row] = NAN;
        for (uint32_t k = 0; !isnan(v) && k < f->category_count; k++)
            if (str_eq(f->categories[k], from->texts[(uint32_t)v]))
                to[row] = k;
    }
}

static const struct field_column *field_find(const struct plan_signature *sig, str name)
{
    for (uint32_t c = 0; c < sig->column_count; c++)
        if (str_eq(sig->columns[c].name, name))
            return &sig->columns[c];
    return NULL;
}

static void column_values(struct profiler *p, struct column *c)
{
    const struct field_column *f = c->is_output ? NULL : field_find(p->in->signature, c->name);
    size_t n = p->in->rows->row_count;

    if (!c->from || (c->from->texts && !(f && f->store != TENSOR_BYTES)))
        return;
    c->values = ARENA_ARRAY(p->a, double, n + 1);
    if (c->from->texts) {
        code_values(f, c->from, n, c->values);
        return;
    }
    for (size_t row = 0; row < n; row++) {
        double v = c->from->values[row];

        if (isnan(v) && f && f->has_default)
            v = f->default_num;
        c->values[row] = c->single ? (double)(float)v : v;
    }
}

static void columns_find(struct profiler *p)
{
    const struct plan_signature *sig = p->in->signature;
    size_t max = p->in->outputs->column_count, output = 0;

    for (uint32_t t = 0; t < sig->input_count; t++)
        max += (size_t)MAX(tensor_row_elements(&sig->inputs[t]), (int64_t)0);
    p->columns = ARENA_ARRAY(p->a, struct column, max + 1);
    for (uint32_t t = 0; t < sig->input_count; t++)
        for (uint32_t i = 0; i < tensor_row_elements(&sig->inputs[t]); i++) {
            struct column *c = &p->columns[p->count++];

            c->name = input_name(p, t, i);
            c->single = sig->inputs[t].datatype == TENSOR_FP32;
            c->from = table_find(p->in->rows, c->name);
        }
    for (uint32_t t = 0; t < sig->output_count; t++)
        for (uint32_t i = 0; i < tensor_row_elements(&sig->outputs[t]); i++) {
            struct column *c = &p->columns[p->count++];

            c->from = &p->in->outputs->columns[output++];
            c->name = c->from->name;
            c->is_output = true;
            c->single = sig->outputs[t].datatype == TENSOR_FP32;
        }
}

/* --- Fitting ---------------------------------------------------------------------------------- */

static NODISCARD int fit_texts(const struct column *c, size_t n, struct cells_spec *spec,
                               struct err *e)
{
    AUTO(mem_freep) uint64_t *keys = mem_try_alloc(MAX(c->from->text_count, 1u) * sizeof(*keys));
    AUTO(mem_freep) uint64_t *counts = mem_zalloc(MAX(c->from->text_count, 1u) * sizeof(*counts));
    uint64_t missing = 0;

    if (!keys)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the categories of '" STR_F "'",
                    STR_A(c->name));
    for (uint32_t i = 0; i < c->from->text_count; i++)
        keys[i] = cells_key_str(c->from->texts[i]);
    for (size_t row = 0; row < n; row++) {
        double v = c->from->values[row];

        if (isnan(v) || !c->from->texts[(uint32_t)v].n) /* as recorded: serve/recording.c */
            missing++;
        else
            counts[(uint32_t)v]++;
    }
    return cells_spec_fit_categorical(keys, counts, c->from->text_count, missing, 0, spec, e);
}

static double tolerance_of(const struct json *monitor, str feature)
{
    const struct json *own =
        json_get(json_get(json_get(monitor, S("features")), feature), S("tolerance"));
    double tol = json_real_or(own, json_real_or(json_get(monitor, S("tolerance")), 0));

    /* 0 is the detector's own default; none at all is said by a negative number. */
    return (own || json_get(monitor, S("tolerance"))) && tol == 0 ? -1 : tol;
}

/* Too little to fit is no error: the column is then recorded but not watched. */
static NODISCARD int allow_unfit(int rc)
{
    return rc == CODE_INVALID_ARGUMENT ? 0 : rc;
}

static NODISCARD int column_json(struct profiler *p, const struct column *c, struct json *to,
                                 struct err *e)
{
    size_t n = p->in->rows->row_count;
    const struct edetector_config cfg = {
        .features = p->count, .tol_sd = tolerance_of(p->in->monitor, c->name), .seed = 1};
    AUTO(mem_freep) struct cells_spec *spec = mem_zalloc(sizeof(*spec));
    AUTO(mem_freep) struct edetector_bank *bank = mem_zalloc(sizeof(*bank));
    int rc;

    json_set_str(p->a, to, S("name"), c->name);
    json_set_str(p->a, to, S("role"), c->is_output ? S("output") : S("feature"));
    json_set(to, S("cells"), json_new_null(p->a));
    json_set(to, S("detector"), json_new_null(p->a));
    if (!c->from)
        return 0;
    rc = c->values ? cells_spec_fit_numeric(c->values, n, 0, spec, e) : fit_texts(c, n, spec, e);
    if (rc)
        return allow_unfit(rc);
    json_set(to, S("cells"), cells_spec_to_json(spec, p->a));
    rc = c->values ? edetector_bank_fit(spec, c->values, n, &cfg, bank, e)
                   : edetector_bank_fit_counts(spec, spec->ref_counts, &cfg, bank, e);
    if (rc)
        return allow_unfit(rc);
    json_set(to, S("detector"), edetector_bank_to_json(bank, p->a));
    return 0;
}

int profile_make(const struct profile_input *in, struct arena *a, struct json **ret_profile,
                 struct err *e)
{
    struct profiler p = {.in = in, .a = a};
    struct json *to = json_new_object(a), *list;

    columns_find(&p);
    json_set_int(a, to, S("format"), 1);
    json_set_str(a, to, S("kind"), S("profile"));
    json_set_str(a, to, S("model"), in->model);
    json_set_int(a, to, S("rows"), (int64_t)in->rows->row_count);
    list = json_set(to, S("columns"), json_new_array(a));
    for (uint32_t c = 0; c < p.count; c++) {
        column_values(&p, &p.columns[c]);
        TRY(column_json(&p, &p.columns[c], json_push(list, json_new_object(a)), e));
    }
    if (in->labels)
        json_set(to, S("labels"), json_copy(a, in->labels));
    *ret_profile = to;
    return 0;
}
