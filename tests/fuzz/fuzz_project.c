/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as weir.yaml: refused with at least one problem that can be shown in every form, or
 * read into a tree that, normalised again, is itself, and that differs from nothing but others.
 * The cron reader gets the same bytes.
 */
#include "fuzz.h"

#include "project/cron.h"
#include "project/project.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void show(const struct project_result *r, struct arena *a)
{
    AUTO(buf_done) struct buf text = {0}, json = {0};
    struct json *tree;
    struct err e;

    buf_init(&text, BUF_MAX_DEFAULT);
    buf_init(&json, BUF_MAX_DEFAULT);
    require(r->problem && r->problem_count && !r->norm);
    project_problems_text(r, &text);
    project_problems_json(r, &json);
    require(text.n > 0 && !json_parse(buf_str(&json), a, &tree, &e));
}

static void try_cron(str text)
{
    struct cron c;
    struct err e;

    if (!cron_parse(text, &c, &e))
        require(cron_next(&c, 0) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a = {0};
    str text = {(const char *)data, size};
    struct project_result r, again;
    struct json *copy;
    struct err e;

    arena_init(&a, 0);
    try_cron(text);
    if (project_parse(text, "weir.yaml", &a, &r, &e)) {
        require(e.code == CODE_INVALID_ARGUMENT);
        show(&r, &a);
        return 0;
    }
    require(r.norm && !r.problem_count);
    copy = json_copy(&a, r.norm);
    require(!project_normalise(copy, &a, &again, &e));
    require(json_equal(r.norm, again.norm) && !strcmp(r.hash, again.hash));
    require(!project_diff(r.norm, again.norm, &a));
    require(project_diff(NULL, r.norm, &a));
    return 0;
}
