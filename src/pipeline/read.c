/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a document to a program. The reader walks the steps with the list of columns that are live
 * at that point; a step turns entries of the list into operations and into the columns that it
 * leaves. A problem does not end the walk: all of them are told, and the caller gets an error at
 * the end.
 */
#include "pipeline/priv.h"

#include <stdio.h>

void reader_problem(struct reader *r, const char *member, str what, str expected)
{
    struct pipeline_problem p = {
        .step = r->step, .member = member, .column = r->column, .what = what, .expected = expected};

    if (!r->failed)
        (void)FAIL(r->e, INVALID_ARGUMENT, "pipeline step %zu (" STR_F "): %s " STR_F "%s" STR_F,
                   r->step + 1, STR_A(r->kind), member, STR_A(what),
                   expected.n ? ", expected " : "", STR_A(expected));
    r->failed = true;
    if (r->options && r->options->problem)
        r->options->problem(r->options->ctx, &p);
}

struct pipeline_op *reader_op(struct reader *r, enum op_kind kind, uint32_t i, uint32_t width)
{
    struct pipeline_op *op;

    if (width > PIPELINE_VALUES_MAX || r->p->place_count > PIPELINE_VALUES_MAX - width) {
        reader_problem(r, "columns", S("make too many results"),
                       arena_printf(r->a, "at most %u of all steps", PIPELINE_VALUES_MAX));
        return NULL;
    }
    if (r->p->op_count == r->ops_room) {
        struct pipeline_op *more = ARENA_ARRAY(r->a, struct pipeline_op, r->ops_room * 2 + 16);

        if (r->p->op_count)
            memcpy(more, r->ops, r->p->op_count * sizeof(*more));
        r->ops = more;
        r->ops_room = r->ops_room * 2 + 16;
    }
    op = &r->ops[r->p->op_count++];
    *op = (struct pipeline_op){.kind = kind,
                               .from = r->live[i].at,
                               .to = r->p->place_count,
                               .width = width,
                               .from_text = r->live[i].type == PIPELINE_TEXT,
                               .column = r->live[i].name};
    r->p->place_count += width;
    r->live[i].at = op->to;
    return op;
}

const struct json *step_parameter(const struct json *step, const char *member, ptrdiff_t column)
{
    const struct json *node = json_get(step, str_of(member));

    if (node && node->type == JSON_ARRAY)
        node = json_at(node, (size_t)column);
    return node && node->type != JSON_NULL ? node : NULL;
}

/* --- Columns ---------------------------------------------------------------------------------- */

static ptrdiff_t find_live(const struct reader *r, str name)
{
    for (uint32_t i = 0; i < r->live_count; i++)
        if (str_eq(r->live[i].name, name))
            return (ptrdiff_t)i;
    return -1;
}

static str suggest(const struct reader *r, str name)
{
    str *names = ARENA_ARRAY(r->a, str, r->live_count + 1);

    for (uint32_t i = 0; i < r->live_count; i++)
        names[i] = r->live[i].name;
    return str_suggest(name, names, r->live_count);
}

static void fail_column(struct reader *r, str name)
{
    struct pipeline_problem p = {
        .step = r->step,
        .member = "columns",
        .column = r->column,
        .what = arena_printf(r->a, "has '" STR_F "', which is no column at this step",
                             STR_A(str_take(name, 64))),
        .expected = S("a feature, or a column that an earlier step makes"),
        .near = suggest(r, name)};

    if (!r->failed)
        (void)FAIL(r->e, INVALID_ARGUMENT, "pipeline step %zu (" STR_F "): columns " STR_F,
                   r->step + 1, STR_A(r->kind), STR_A(p.what));
    r->failed = true;
    if (r->options && r->options->problem)
        r->options->problem(r->options->ctx, &p);
}

/* The live column of that name; one that may exist although nothing declares it is added. */
static NODISCARD bool column_find(struct reader *r, str name, uint32_t *ret)
{
    ptrdiff_t i = find_live(r, name);

    if (i < 0 && ((r->options && r->options->any_columns) || r->any_more) &&
        r->live_count < PIPELINE_COLUMNS_MAX && r->p->place_count < PIPELINE_VALUES_MAX) {
        i = (ptrdiff_t)r->live_count++;
        r->live[i] =
            (struct pipeline_column){arena_dup(r->a, name), PIPELINE_ANY, r->p->place_count++};
    }
    if (i < 0) {
        fail_column(r, name);
        return false;
    }
    *ret = (uint32_t)i;
    return true;
}

static bool takes(struct reader *r, const struct step_kind *kind, const struct pipeline_column *c)
{
    if (kind->takes == PIPELINE_ANY || c->type == PIPELINE_ANY || c->type == kind->takes)
        return true;
    reader_problem(
        r, "columns",
        arena_printf(r->a, "has '" STR_F "', which is %s", STR_A(c->name),
                     c->type == PIPELINE_TEXT ? "text" : "a number"),
        kind->takes == PIPELINE_NUMBER
            ? S("a column of numbers; one_hot, ordinal, table and time make them of texts")
            : S("a column of texts"));
    return false;
}

/* --- Steps ------------------------------------------------------------------------------------ */

static void fail_kind(struct reader *r, str name)
{
    str list = STR_NULL;

    for (size_t i = 0; i < pipeline_step_count; i++)
        list = arena_printf(r->a, STR_F "%s%s", STR_A(list), i ? ", " : "", pipeline_steps[i].name);
    reader_problem(r, "step", arena_printf(r->a, "is '" STR_F "'", STR_A(str_take(name, 64))),
                   arena_printf(r->a, "one of " STR_F, STR_A(list)));
}

static void read_step(struct reader *r, const struct json *step)
{
    const struct json *columns = json_get(step, S("columns"));
    const struct step_kind *kind;

    r->kind = arena_dup(r->a, str_take(json_str_or(json_get(step, S("step")), S("")), 32));
    r->column = -1;
    kind = step_find(r->kind);
    if (!kind) {
        fail_kind(r, r->kind);
        return;
    }
    if (!columns || columns->type != JSON_ARRAY || !columns->count) {
        reader_problem(r, "columns", S("is no list of columns"), S("at least one name"));
        return;
    }
    JSON_EACH (name, columns) {
        uint32_t live;

        r->column++;
        if (column_find(r, json_str_or(name, S("")), &live) && takes(r, kind, &r->live[live]))
            kind->fn(r, step, live);
    }
}

static NODISCARD int read_columns(struct reader *r, const struct json *list, struct err *e)
{
    if (!list || list->type != JSON_ARRAY || list->count > PIPELINE_COLUMNS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "pipeline: columns is no list of at most %u columns",
                    PIPELINE_COLUMNS_MAX);
    r->p->inputs = ARENA_ARRAY(r->a, struct pipeline_column, list->count + 1);
    JSON_EACH (item, list) {
        struct pipeline_column *c = &r->p->inputs[r->p->input_count];

        TRY(json_need_str(item, S("name"), &c->name, e));
        c->name = arena_dup(r->a, c->name);
        c->type = str_eq(json_str_or(json_get(item, S("type")), S("double")), S("string"))
                      ? PIPELINE_TEXT
                      : PIPELINE_NUMBER;
        c->at = r->p->place_count++;
        if (find_live(r, c->name) >= 0)
            return FAIL(e, INVALID_ARGUMENT, "pipeline: column '" STR_F "' stands twice",
                        STR_A(c->name));
        r->live[r->live_count++] = *c;
        r->p->input_count++;
    }
    return 0;
}

int pipeline_read(const struct json *document, const struct pipeline_options *options,
                  struct arena *a, struct pipeline **ret, struct err *e)
{
    struct err ignored;
    struct reader r = {.a = a, .options = options, .e = e ? e : &ignored};
    const struct json *steps = json_get(document, S("steps"));

    if (json_int_or(json_get(document, S("format")), 0) != PIPELINE_FORMAT)
        return FAIL(e, INVALID_ARGUMENT, "pipeline: the format is not %d", PIPELINE_FORMAT);
    if (!steps || steps->type != JSON_ARRAY || steps->count > PIPELINE_STEPS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "pipeline: steps is no list of at most %u steps",
                    PIPELINE_STEPS_MAX);
    r.p = ARENA_NEW(a, struct pipeline);
    r.p->is_fitted = true;
    r.live = ARENA_ARRAY(a, struct pipeline_column, PIPELINE_COLUMNS_MAX);
    TRY(read_columns(&r, json_get(document, S("columns")), e));
    JSON_EACH (step, steps) {
        read_step(&r, step);
        r.step++;
    }
    if (r.failed)
        return CODE_INVALID_ARGUMENT;
    if (!r.live_count && r.p->is_fitted)
        return FAIL(e, INVALID_ARGUMENT, "pipeline: its steps leave no column");
    r.p->ops = r.ops;
    r.p->outputs = r.live;
    r.p->output_count = r.live_count;
    *ret = r.p;
    return 0;
}
