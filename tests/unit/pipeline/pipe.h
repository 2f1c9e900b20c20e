/* SPDX-License-Identifier: Apache-2.0 */
/* A pipeline of a text, and rows to run it over. */
#pragma once

#include "check.h"
#include "pipeline/pipeline.h"

struct pipe {
    struct arena a;
    struct json *document;
    struct pipeline *p;
    struct pipeline_work w;
    struct pipeline_values in[8];
};

static UNUSED void pipe_done(struct pipe *t)
{
    arena_done(&t->a);
}

/* `columns` and `steps` are JSON lists. */
static UNUSED int pipe_parse(struct pipe *t, const char *columns, const char *steps, struct err *e)
{
    arena_init(&t->a, 0);
    return json_parse(
        arena_printf(&t->a, "{\"format\":1,\"columns\":%s,\"steps\":%s}", columns, steps), &t->a,
        &t->document, e);
}

static UNUSED int pipe_read(struct pipe *t, const char *columns, const char *steps, struct err *e)
{
    TRY(pipe_parse(t, columns, steps, e));
    TRY(pipeline_read(t->document, NULL, &t->a, &t->p, e));
    pipeline_work_init(&t->w, t->p, &t->a);
    return 0;
}

static UNUSED double pipe_at(const struct pipe *t, uint32_t output, uint32_t row)
{
    return pipeline_numbers(&t->w, t->p->outputs[output].at)[row];
}
