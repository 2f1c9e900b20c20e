/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline of a model as a whole. The steps are read by pipeline_read() itself, with nothing
 * computed yet, so that what is refused here is what would be refused when a version is made; its
 * problems are put at the place of the file that they are about.
 */
#include "project/rules.h"

#include "pipeline/pipeline.h"

#include <math.h>

struct checking {
    struct walk *w;
    const struct path *list; /* of the steps */
};

static void on_problem(void *ctx, const struct pipeline_problem *problem)
{
    const struct checking *c = ctx;
    struct walk *w = c->w;
    struct path step = {c->list, STR_NULL, problem->step, json_at(c->list->at, problem->step)};
    struct path at = at_field(w, &step, SECTION_pre, problem->member);
    bool is_item = problem->column >= 0 && strcmp(problem->member, "columns") == 0;
    struct path item = {&at, STR_NULL, is_item ? (size_t)problem->column : 0,
                        is_item ? json_at(at.at, (size_t)problem->column) : NULL};

    problem_add(w,
                item.at ? &item
                : at.at ? &at
                        : &step,
                false, WHAT(STR_F " " STR_F, STR_A(path_text(&at, w->a)), STR_A(problem->what)),
                problem->expected, problem->near);
}

/* Columns of the document: the features, as far as the file names them. */
static struct json *document_of(struct walk *w, const struct json *model, const struct json *pre)
{
    struct json *document = json_new_object(w->a);
    struct json *columns = json_set(document, S("columns"), json_new_array(w->a));
    const struct json *features = json_get(model, S("features"));

    json_set_int(w->a, document, S("format"), PIPELINE_FORMAT);
    json_set(document, S("steps"), json_copy(w->a, pre));
    if (!json_is_container(features))
        return document;
    JSON_EACH (feature, features) {
        struct json *column;

        if (json_get(feature, S("name")) == NULL)
            continue;
        column = json_push(columns, json_new_object(w->a));
        json_set_str(w->a, column, S("name"), text_of(feature, "name"));
        json_set_str(w->a, column, S("type"), text_of(feature, "type"));
    }
    return document;
}

static void check_pre(struct walk *w, const struct path *p, const struct path *pipeline,
                      const struct json *model, const struct json *pre)
{
    struct path list = at_field(w, pipeline, SECTION_pipeline, "pre");
    struct path input = at_field(w, p, SECTION_model, "input");
    struct checking c = {w, &list};
    const struct pipeline_options options = {.may_be_open = true,
                                             .any_columns =
                                                 !json_is_container(json_get(model, S("features"))),
                                             .problem = on_problem,
                                             .ctx = &c};
    size_t before = w->result->problem_count;
    struct pipeline *ignored;
    struct err e;

    if (json_get(model, S("input"))->count)
        fail_at(w, &input, S("has no meaning with a pipeline"),
                S("the steps alone: what they leave fills the inputs in order, or by name"));
    if (pipeline_read(document_of(w, model, pre), &options, w->a, &ignored, &e) &&
        w->result->problem_count == before)
        fail_at(w, &list, WHAT("cannot be read: %s", e.msg), STR_NULL);
}

/* Every class that is named is one. */
static void check_classes(struct walk *w, const struct path *post, const char *member,
                          const struct json *model, const struct json *map)
{
    struct path at = at_field(w, post, SECTION_post, member);
    const struct json *classes = json_get(model, S("classes"));

    if (!json_is_container(map) || !json_is_container(classes) || !classes->count)
        return;
    JSON_EACH (entry, map) {
        struct path here = {&at, entry->key, 0, json_get(at.at, entry->key)};
        bool known = false;

        JSON_EACH (class, classes)
            known |= str_eq(json_str_or(class, STR_NULL), entry->key);
        if (!known)
            fail_at(w, &here, S("is of no class of the model"), S("one of classes"));
    }
}

static void check_post(struct walk *w, const struct path *post, const struct json *model,
                       const struct json *norm)
{
    struct path thresholds = at_field(w, post, SECTION_post, "thresholds");
    struct path labels = at_field(w, post, SECTION_post, "labels");
    struct path bands = at_field(w, post, SECTION_post, "bands");
    struct path scores = at_field(w, post, SECTION_post, "scores");
    bool for_numbers = str_eqz(text_of(model, "task"), "regression");
    double last = INFINITY;

    check_classes(w, post, "thresholds", model, json_get(norm, S("thresholds")));
    check_classes(w, post, "labels", model, json_get(norm, S("labels")));
    if (for_numbers && json_get(norm, S("thresholds"))->count)
        fail_at(w, &thresholds, S("has no meaning for a regression"), S("task: classification"));
    if (for_numbers && json_get(norm, S("labels"))->count)
        fail_at(w, &labels, S("has no meaning for a regression"), S("task: classification"));
    if (for_numbers && str_eqz(text_of(norm, "scores"), "hidden"))
        fail_at(w, &scores, S("is hidden, and the answer of a regression is its score"),
                S("decimals"));
    JSON_EACH (entry, json_get(norm, S("thresholds"))) {
        struct path here = {&thresholds, entry->key, 0, json_get(thresholds.at, entry->key)};
        double v = json_real_or(entry, 0);

        if (!(v >= 0 && v <= 1))
            fail_at(w, &here, WHAT("is %g", v), S("a probability from 0 to 1"));
    }
    JSON_EACH (band, json_get(norm, S("bands"))) {
        double beyond = is_set(band, "beyond") ? json_real_or(json_get(band, S("beyond")), 0) : -1;

        if (beyond >= last)
            fail_at(w, &bands,
                    WHAT("has '" STR_F "' after a band that takes all its scores",
                         STR_A(text_of(band, "band"))),
                    S("the farthest band first, the one without 'beyond' last"));
        last = beyond;
    }
}

void check_pipeline(struct walk *w, const struct path *p, const struct json *model)
{
    struct path at = at_field(w, p, SECTION_model, "pipeline");
    struct path post = at_field(w, &at, SECTION_pipeline, "post");
    const struct json *pipeline = json_get(model, S("pipeline"));
    const struct json *pre = json_get(pipeline, S("pre")), *after = json_get(pipeline, S("post"));

    if (json_is_container(pre) && pre->count)
        check_pre(w, p, &at, model, pre);
    if (json_is_container(after))
        check_post(w, &post, model, after);
}
