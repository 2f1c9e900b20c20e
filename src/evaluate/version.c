/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evaluating a version: run it over a labelled table in a probe child, read its answers as the
 * gateway would, measure.
 */
#include "evaluate/evaluate.h"

#include "base/mem.h"

#include <math.h>

#define LATENCY_ROWS_DEFAULT 500

struct evaluation {
    const struct eval_request *req;
    struct arena arena; /* owned: work */
    struct plan_signature sig;
    struct eval_rows rows;
};

static void evaluation_done(struct evaluation *ev)
{
    arena_done(&ev->arena);
}

static int32_t class_of(const struct plan_reading *r, str text)
{
    for (size_t k = 0; text.p && k < r->class_count; k++)
        if (str_eq(r->classes[k], text))
            return (int32_t)k;
    return -1;
}

static NODISCARD int labels_read(struct evaluation *ev, struct err *e)
{
    const struct table_column *c = table_find(ev->req->table, ev->req->label);
    size_t n = ev->req->table->row_count;
    double *labels;

    if (!c)
        return FAIL(e, INVALID_ARGUMENT, "the table has no label column '" STR_F "'",
                    STR_A(ev->req->label));
    if (!ev->rows.classes && c->texts)
        return FAIL(e, INVALID_ARGUMENT, "label '" STR_F "' is text, the model gives a number",
                    STR_A(ev->req->label));
    labels = ARENA_ARRAY(&ev->arena, double, n + 1);
    for (size_t row = 0; row < n; row++) {
        int32_t k;

        labels[row] = c->values[row];
        if (!ev->rows.classes)
            continue;
        k = class_of(&ev->sig.reading, table_text(c, row, &ev->arena));
        labels[row] = k < 0 ? (double)NAN : k;
    }
    ev->rows.labels = labels;
    return 0;
}

static void predictions_read(struct evaluation *ev, const struct score_reading *said)
{
    size_t n = ev->req->table->row_count, width = ev->sig.reading.class_count;
    double *predicted = ARENA_ARRAY(&ev->arena, double, n + 1), *own;

    ASSERT(ev->rows.classes ? said->classes != NULL : said->values != NULL);
    ev->rows.predicted = predicted;
    if (!ev->rows.classes) {
        memcpy(predicted, said->values, n * sizeof(*predicted));
        return;
    }
    for (size_t row = 0; row < n; row++)
        predicted[row] = said->classes[row] < 0 ? (double)NAN : said->classes[row];
    if (width == 2 && ev->rows.positive >= 0)
        ev->rows.scores = said->scores;
    if (!said->probabilities)
        return;
    own = ARENA_ARRAY(&ev->arena, double, n + 1);
    for (size_t row = 0; row < n; row++)
        own[row] = isnan(ev->rows.labels[row])
                       ? (double)NAN
                       : said->probabilities[row * width + (size_t)ev->rows.labels[row]];
    ev->rows.label_probability = own;
}

/* --- Slices ----------------------------------------------------------------------------------- */

/* Numbers are sliced by their values too, as long as these are few. */
static void slice_ids(struct evaluation *ev, const struct table_column *c, uint32_t *ids,
                      str **ret_values, uint32_t *ret_n)
{
    size_t n = ev->req->table->row_count;
    str *values = ARENA_ARRAY(&ev->arena, str, EVAL_SLICES_MAX);
    uint32_t count = 0;

    for (size_t row = 0; row < n; row++) {
        str text = table_text(c, row, &ev->arena);
        uint32_t id = 0;

        if (!text.p)
            text = S("missing");
        while (id < count && !str_eq(values[id], text))
            id++;
        if (id == count && count < EVAL_SLICES_MAX)
            values[count++] = text;
        ids[row] = id < EVAL_SLICES_MAX ? id : UINT32_MAX;
    }
    *ret_values = values;
    *ret_n = count;
}

static NODISCARD int slices_read(struct evaluation *ev, struct err *e)
{
    const struct eval_config *cfg = ev->req->config;
    struct arena *a = &ev->arena;
    uint32_t **ids = ARENA_ARRAY(a, uint32_t *, cfg->slice_count + 1);
    str **values = ARENA_ARRAY(a, str *, cfg->slice_count + 1);
    uint32_t *counts = ARENA_ARRAY(a, uint32_t, cfg->slice_count + 1);

    for (uint32_t s = 0; s < cfg->slice_count; s++) {
        const struct table_column *c = table_find(ev->req->table, cfg->slices[s]);

        if (!c)
            return FAIL(e, INVALID_ARGUMENT, "the table has no slice column '" STR_F "'",
                        STR_A(cfg->slices[s]));
        ids[s] = ARENA_ARRAY(a, uint32_t, ev->req->table->row_count + 1);
        slice_ids(ev, c, ids[s], &values[s], &counts[s]);
    }
    ev->rows.slice_of = (const uint32_t *const *)ids;
    ev->rows.slice_columns = cfg->slices;
    ev->rows.slice_values = (const str *const *)values;
    ev->rows.slice_value_counts = counts;
    ev->rows.slice_column_count = cfg->slice_count;
    return 0;
}

/* --- All -------------------------------------------------------------------------------------- */

static void result_complete(struct evaluation *ev, const struct scored_table *scored,
                            struct eval_result *r)
{
    const struct plan_reading *reading = &ev->sig.reading;

    r->version = ev->req->version;
    r->size_bytes = ev->req->size_bytes;
    r->p50_ns = scored->p50_ns;
    r->p99_ns = scored->p99_ns;
    if (!r->classes)
        return;
    r->class_names = ARENA_ARRAY(&r->arena, str, reading->class_count);
    for (size_t k = 0; k < reading->class_count; k++)
        r->class_names[k] = arena_dup(&r->arena, reading->classes[k]);
}

int evaluate_version(const struct score_env *env, const struct eval_request *req,
                     struct eval_result *ret, struct err *e)
{
    AUTO(evaluation_done) struct evaluation ev = {.req = req};
    AUTO(scored_table_done) struct scored_table scored = {0};
    struct score_request score = {.platform = req->platform,
                                  .path = req->path,
                                  .signature = &ev.sig,
                                  .table = req->table,
                                  .latency_rows =
                                      req->latency_rows ? req->latency_rows : LATENCY_ROWS_DEFAULT};
    struct score_reading said;

    arena_init(&ev.arena, 0);
    TRY(plan_signature_read(req->signature, &ev.arena, &ev.sig, e));
    TRY(score_table(env, &score, &scored, e));
    TRY(score_read(&ev.sig, &scored.outputs, &ev.arena, &said, e));
    if (!said.classes && !req->config->regression)
        return FAIL(
            e, FAILED_PRECONDITION,
            "the model gives neither a label nor probabilities: it cannot be evaluated as a "
            "classification");
    if (!said.values && req->config->regression)
        return FAIL(e, FAILED_PRECONDITION,
                    "the model gives no value: it cannot be evaluated as a regression");
    ev.rows.n = req->table->row_count;
    ev.rows.classes = req->config->regression ? 0 : (uint32_t)ev.sig.reading.class_count;
    ev.rows.positive = ev.sig.reading.positive;
    TRY(labels_read(&ev, e));
    predictions_read(&ev, &said);
    TRY(slices_read(&ev, e));
    TRY(evaluate_measure(&ev.rows, ret, e));
    result_complete(&ev, &scored, ret);
    return 0;
}
