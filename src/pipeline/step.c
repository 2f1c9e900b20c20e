/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each kind of step makes of one column. A parameter that is null is open: to be computed by
 * pipeline_fit() (fit.c), which writes it under the name that is read here.
 */
#include "pipeline/priv.h"

#include "base/num.h"

#include <math.h>

#define STEP(name, fn, takes, help) static step_fn fn;
#include "pipeline/steps.def"
#undef STEP

const struct step_kind pipeline_steps[] = {
#define STEP(name, fn, takes, help) {#name, fn, PIPELINE_##takes},
#include "pipeline/steps.def"
#undef STEP
};
const size_t pipeline_step_count = ARRAY_LEN(pipeline_steps);

const struct step_kind *step_find(str name)
{
    for (size_t i = 0; i < pipeline_step_count; i++)
        if (str_eqz(name, pipeline_steps[i].name))
            return &pipeline_steps[i];
    return NULL;
}

/* --- Parameters ------------------------------------------------------------------------------- */

static bool is_number(const struct json *n)
{
    return n && (n->type == JSON_INT || n->type == JSON_REAL);
}

static void open_parameter(struct reader *r, const char *member)
{
    r->p->is_fitted = false;
    if (!r->options || !r->options->may_be_open)
        reader_problem(r, member, S("is open: it was not computed from data"), STR_NULL);
}

/* A number, or NaN while it is open. */
static double number_of(struct reader *r, const struct json *step, const char *member)
{
    const struct json *node = step_parameter(step, member, r->column);

    if (!node)
        open_parameter(r, member);
    else if (!is_number(node) || !isfinite(json_real_or(node, (double)NAN)))
        reader_problem(r, member, S("is no finite number"), S("a number"));
    return json_real_or(node, (double)NAN);
}

/* --- Filling, scaling ------------------------------------------------------------------------- */

static void step_impute(struct reader *r, const struct json *step, uint32_t live)
{
    str with = json_str_or(json_get(step, S("with")), S("constant"));
    bool is_text = r->live[live].type == PIPELINE_TEXT,
         counts = str_eq(with, S("constant")) || str_eq(with, S("most_frequent"));
    const char *member = is_text ? "text" : "value";
    const struct json *text;
    struct pipeline_op *op;

    if (r->live[live].type == PIPELINE_ANY)
        return;
    if (!counts && !str_eq(with, S("mean")) && !str_eq(with, S("median")))
        reader_problem(r, "with", arena_printf(r->a, "is '" STR_F "'", STR_A(str_take(with, 32))),
                       S("constant, mean, median or most_frequent"));
    else if (is_text && !counts)
        reader_problem(r, "with",
                       arena_printf(r->a, "is " STR_F ", and column '" STR_F "' is text",
                                    STR_A(with), STR_A(r->live[live].name)),
                       S("constant or most_frequent"));
    if (str_eq(with, S("constant")) && !step_parameter(step, member, r->column)) {
        reader_problem(
            r, member,
            arena_printf(r->a, "is missing, for column '" STR_F "'", STR_A(r->live[live].name)),
            is_text ? S("a text") : S("a number"));
        return;
    }
    op = reader_op(r, is_text ? OP_FILL_TEXT : OP_FILL, live, 1);
    if (!op)
        return;
    if (!is_text) {
        op->a = number_of(r, step, member);
        return;
    }
    text = step_parameter(step, member, r->column);
    if (!text)
        open_parameter(r, member);
    else if (text->type != JSON_STR || !text->string.n)
        reader_problem(r, member, S("is no text"), S("a text that is not empty"));
    else
        op->text = arena_dup(r->a, text->string);
}

static void scale_by(struct reader *r, const struct json *step, uint32_t live, const char *away,
                     const char *by)
{
    struct pipeline_op *op = reader_op(r, OP_SCALE, live, 1);

    if (!op)
        return;
    op->a = number_of(r, step, away);
    op->b = number_of(r, step, by);
    if (op->b <= 0)
        reader_problem(r, by, S("is not greater than 0"), S("a number above 0"));
}

static void step_standard(struct reader *r, const struct json *step, uint32_t live)
{
    scale_by(r, step, live, "mean", "std");
}

static void step_robust(struct reader *r, const struct json *step, uint32_t live)
{
    scale_by(r, step, live, "center", "scale");
}

/* A column that never changes is taken to 0, as if its range were 1. */
static void step_min_max(struct reader *r, const struct json *step, uint32_t live)
{
    struct pipeline_op *op = reader_op(r, OP_SCALE, live, 1);
    double max;

    if (!op)
        return;
    op->a = number_of(r, step, "min");
    max = number_of(r, step, "max");
    if (max < op->a)
        reader_problem(r, "max", S("is less than min"), S("min <= max"));
    op->b = max > op->a ? max - op->a : 1;
}

static void step_clip(struct reader *r, const struct json *step, uint32_t live)
{
    const struct json *lower = step_parameter(step, "lower", r->column);
    const struct json *upper = step_parameter(step, "upper", r->column);
    struct pipeline_op *op = reader_op(r, OP_CLIP, live, 1);

    if (!op)
        return;
    if (!lower && !upper)
        reader_problem(r, "lower", S("and upper are missing"), S("one of them, or both"));
    op->a = lower ? number_of(r, step, "lower") : -INFINITY;
    op->b = upper ? number_of(r, step, "upper") : INFINITY;
    if (op->b < op->a)
        reader_problem(r, "upper", S("is less than lower"), S("lower <= upper"));
}

static void step_log1p(struct reader *r, const struct json *step, uint32_t live)
{
    (void)step;
    (void)reader_op(r, OP_LOG1P, live, 1);
}

static void step_drop(struct reader *r, const struct json *step, uint32_t live)
{
    (void)step;
    memmove(&r->live[live], &r->live[live + 1],
            (r->live_count - live - 1) * sizeof(struct pipeline_column));
    r->live_count--;
}

/* --- Columns made of one ---------------------------------------------------------------------- */

/* live[live] becomes op->width columns named after it. */
static void spread(struct reader *r, const struct pipeline_op *op, uint32_t live,
                   const str *endings)
{
    str base = r->live[live].name;
    uint32_t n = op->width;

    if (n == 0 || r->live_count > PIPELINE_COLUMNS_MAX - (n - 1)) {
        reader_problem(r, "columns", S("leave too many columns"),
                       arena_printf(r->a, "at most %u", PIPELINE_COLUMNS_MAX));
        return;
    }
    memmove(&r->live[live + n], &r->live[live + 1],
            (r->live_count - live - 1) * sizeof(struct pipeline_column));
    r->live_count += n - 1;
    for (uint32_t k = 0; k < n; k++)
        r->live[live + k] = (struct pipeline_column){STR_NULL, PIPELINE_NUMBER, op->to + k};
    for (uint32_t k = 0; k < n; k++) {
        str name = arena_printf(r->a, STR_F "_" STR_F, STR_A(base), STR_A(endings[k]));

        for (uint32_t i = 0; i < r->live_count; i++)
            if (r->live[i].name.n && str_eq(r->live[i].name, name))
                reader_problem(
                    r, "columns",
                    arena_printf(r->a, "makes a column '" STR_F "', which is there", STR_A(name)),
                    S("names that do not meet"));
        r->live[live + k].name = name;
    }
}

/* --- Encoders --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum unseen rule;
} unseen_rules[] = {{"error", UNSEEN_ERROR},
                    {"missing", UNSEEN_MISSING},
                    {"code", UNSEEN_CODE},
                    {"zeros", UNSEEN_ZEROS}};

static void unseen_of(struct reader *r, const struct json *step, struct pipeline_op *op)
{
    str name = json_str_or(json_get(step, S("unseen")), S("error"));
    enum unseen last = op->kind == OP_ONE_HOT ? UNSEEN_ZEROS : UNSEEN_CODE;

    for (size_t i = 0; i < ARRAY_LEN(unseen_rules); i++)
        if (str_eqz(name, unseen_rules[i].name)) {
            op->unseen = unseen_rules[i].rule;
            if (op->unseen < UNSEEN_CODE || (op->kind != OP_TIME && op->unseen == last))
                return;
        }
    reader_problem(r, "unseen", arena_printf(r->a, "is '" STR_F "'", STR_A(str_take(name, 32))),
                   op->kind == OP_ONE_HOT ? S("error, missing or zeros")
                   : op->kind == OP_TIME  ? S("error or missing")
                                          : S("error, missing or code"));
}

/* The text of a category: numbers may be written as such. */
static str category_text(struct reader *r, const struct json *node)
{
    if (node->type == JSON_INT)
        return arena_printf(r->a, "%lld", (long long)node->integer);
    if (node->type == JSON_REAL && isfinite(node->real)) {
        char text[NUM_TEXT_MAX];

        return arena_dup(r->a, (str){text, num_f64_text(node->real, text)});
    }
    return node->type == JSON_STR ? arena_dup(r->a, node->string) : STR_NULL;
}

/* The members of the list (or the keys of the object) as what the column holds. NULL: a problem. */
static const struct dictionary *dictionary_of(struct reader *r, const struct json *list,
                                              const char *member, uint32_t live, str *texts)
{
    struct dictionary *d = ARENA_NEW(r->a, struct dictionary);
    double *numbers = ARENA_ARRAY(r->a, double, list->count + 1);
    bool is_text = r->live[live].type != PIPELINE_NUMBER;
    uint32_t twice = 0;

    if (list->count > PIPELINE_CATEGORIES_MAX) {
        reader_problem(r, member, arena_printf(r->a, "has %zu categories", list->count),
                       arena_printf(r->a, "at most %u", PIPELINE_CATEGORIES_MAX));
        return NULL;
    }
    JSON_EACH (item, list) {
        str text = list->type == JSON_OBJECT ? arena_dup(r->a, item->key) : category_text(r, item);

        if (!text.n || (!is_text && !str_to_f64(text, &numbers[d->n]))) {
            reader_problem(r, member,
                           arena_printf(r->a, "has '" STR_F "', and column '" STR_F "' is %s",
                                        STR_A(str_take(text, 64)), STR_A(r->live[live].name),
                                        is_text ? "text" : "a number"),
                           is_text ? S("texts that are not empty") : S("numbers"));
            return NULL;
        }
        texts[d->n++] = text;
    }
    d->texts = is_text ? texts : NULL;
    d->numbers = is_text ? NULL : numbers;
    if (dictionary_init(d, r->a, &twice))
        return d;
    reader_problem(r, member,
                   arena_printf(r->a, "has '" STR_F "' a second time", STR_A(texts[twice])),
                   S("each category once"));
    return NULL;
}

/* One list for all columns, or in a fitted pipeline one for each. NULL: open. */
static const struct json *categories_of(const struct reader *r, const struct json *step,
                                        const char *member)
{
    const struct json *list = json_get(step, str_of(member));

    if (list && list->type == JSON_ARRAY && list->first && json_is_container(list->first))
        list = json_at(list, (size_t)r->column);
    return json_is_container(list) && list->count ? list : NULL;
}

static void encode(struct reader *r, const struct json *step, uint32_t live, const char *member,
                   bool with_values)
{
    const struct json *list = categories_of(r, step, member);
    struct pipeline_op *op = reader_op(r, OP_ENCODE, live, 1);
    double *values = NULL;
    uint32_t n = 0;

    if (!op)
        return;
    unseen_of(r, step, op);
    if (op->unseen == UNSEEN_CODE) {
        if (!step_parameter(step, "code", r->column))
            reader_problem(r, "code", S("is missing, and unseen categories are to get it"),
                           S("a number"));
        else
            op->a = number_of(r, step, "code");
    }
    if (!list) {
        open_parameter(r, member);
    } else {
        op->dictionary =
            dictionary_of(r, list, member, live, ARENA_ARRAY(r->a, str, list->count + 1));
        values = ARENA_ARRAY(r->a, double, list->count + 1);
        JSON_EACH (item, list) {
            if (with_values && !is_number(item))
                reader_problem(r, member,
                               arena_printf(r->a, "gives '" STR_F "' no number",
                                            STR_A(str_take(item->key, 64))),
                               S("a number for each category"));
            values[n++] = json_real_or(item, 0);
        }
        op->values = with_values ? values : NULL;
    }
    r->live[live].type = PIPELINE_NUMBER;
}

static void step_ordinal(struct reader *r, const struct json *step, uint32_t live)
{
    encode(r, step, live, "categories", false);
}

static void step_table(struct reader *r, const struct json *step, uint32_t live)
{
    encode(r, step, live, "values", true);
}

static void step_one_hot(struct reader *r, const struct json *step, uint32_t live)
{
    const struct json *list = categories_of(r, step, "categories");
    struct pipeline_op *op, open = {.kind = OP_ONE_HOT};
    str *texts;

    if (!list) {
        unseen_of(r, step, &open);
        open_parameter(r, "categories");
        r->any_more = true; /* what it will leave is not known */
        step_drop(r, step, live);
        return;
    }
    op = reader_op(r, OP_ONE_HOT, live, (uint32_t)MIN(list->count, (size_t)UINT32_MAX));
    if (!op)
        return;
    unseen_of(r, step, op);
    texts = ARENA_ARRAY(r->a, str, list->count + 1);
    op->dictionary = dictionary_of(r, list, "categories", live, texts);
    if (op->dictionary)
        spread(r, op, live, texts);
}

/* --- Moments ---------------------------------------------------------------------------------- */

static void fail_part(struct reader *r, str name)
{
    size_t n;
    const str *names = moment_part_names(&n);
    str list = STR_NULL;

    for (size_t i = 0; i < n; i++)
        list = arena_printf(r->a, STR_F "%s" STR_F, STR_A(list), i ? ", " : "", STR_A(names[i]));
    reader_problem(r, "parts", arena_printf(r->a, "has '" STR_F "'", STR_A(str_take(name, 64))),
                   arena_printf(r->a, "of " STR_F, STR_A(list)));
}

static void step_time(struct reader *r, const struct json *step, uint32_t live)
{
    const struct json *list = json_get(step, S("parts"));
    struct pipeline_op *op;
    uint8_t *parts;
    str *names;
    uint32_t n = 0;
    bool ok = true;

    if (!list || list->type != JSON_ARRAY || !list->count || list->count > MOMENT_PARTS_MAX) {
        reader_problem(r, "parts", S("is no list of parts"), S("such as [hour, weekday]"));
        return;
    }
    parts = ARENA_ARRAY(r->a, uint8_t, list->count);
    names = ARENA_ARRAY(r->a, str, list->count);
    JSON_EACH (item, list) {
        names[n] = arena_dup(r->a, json_str_or(item, S("")));
        if (!moment_part_find(names[n], &parts[n])) {
            fail_part(r, names[n]);
            ok = false;
        }
        n++;
    }
    op = ok ? reader_op(r, OP_TIME, live, n) : NULL;
    if (!op)
        return;
    unseen_of(r, step, op);
    op->parts = parts;
    spread(r, op, live, names);
}
