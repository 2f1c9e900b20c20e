/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores rows with the tree engine, for the oracle tests: one job a line on stdin,
 *
 *   MODEL ROWS OUT FORM        FORM: auto, walk or bins; the files are on paths without blanks
 *
 * ROWS is raw: all rows as floats, then all as doubles; the model takes what it wants. OUT gets the
 * scores (raw, as the model gives them), then the class of each row (uint32). Answers one line of
 * JSON for each job:
 * {"wide", "wide_answer", "outputs", "classifier", "bins_rows"} or {"error", "code"}.
 */
#include "base/files.h"
#include "base/mem.h"
#include "serve/trees/trees.h"

#include <stdio.h>

static int score(const str *job, struct trees_model *m, uint32_t *ret_bins_rows, struct arena *a,
                 struct err *e)
{
    AUTO(trees_forest_freep) struct trees_forest *f = NULL;
    AUTO(trees_scratch_freep) struct trees_scratch *s = NULL;
    AUTO(mem_freep) char *out = NULL;
    enum trees_form form = str_eq(job[3], S("bins"))   ? TREES_FORM_BINS
                           : str_eq(job[3], S("walk")) ? TREES_FORM_WALK
                                                       : TREES_FORM_AUTO;
    size_t score_bytes;
    uint32_t rows;
    str model, x;

    TRY(file_read_all(arena_dupz(a, job[0]), TREES_MODEL_BYTES_MAX, a, &model, e));
    TRY(file_read_all(arena_dupz(a, job[1]), TREES_MODEL_BYTES_MAX, a, &x, e));
    TRY(trees_read(model, a, m, e));
    TRY(trees_forest_make(m, form, &f, e));
    s = trees_scratch_new(f);
    rows = (uint32_t)(x.n / 12 / m->features);
    score_bytes = (size_t)rows * m->outputs * (m->wide_answer ? sizeof(double) : sizeof(float));
    out = mem_zalloc(score_bytes + rows * sizeof(uint32_t));
    trees_forest_run(f, s, x.p + (m->wide ? (size_t)rows * m->features * 4 : 0), rows, out,
                     (uint32_t *)(void *)(out + score_bytes));
    *ret_bins_rows = trees_forest_bins_rows(f);
    return file_replace(arena_dupz(a, job[2]), (str){out, score_bytes + rows * sizeof(uint32_t)},
                        e);
}

int main(void)
{
    char line[4096];

    while (fgets(line, sizeof(line), stdin)) {
        AUTO(arena_done) struct arena a = {0};
        struct trees_model m = {.features = 0};
        str rest = str_trim(str_of(line)), job[4];
        uint32_t bins_rows = 0;
        struct err e;

        for (size_t i = 0; i < ARRAY_LEN(job); i++)
            job[i] = str_cut(&rest, ' ');
        if (score(job, &m, &bins_rows, &a, &e)) {
            for (char *p = e.msg; *p; p++)
                *p = *p == '"' || *p == '\\' ? '\'' : *p;
            printf("{\"error\": \"%s\", \"code\": \"%s\"}\n", e.msg, code_name(e.code));
        } else {
            printf("{\"wide\": %d, \"wide_answer\": %d, \"outputs\": %u, \"classifier\": %d, "
                   "\"bins_rows\": %u, \"groups\": %u}\n",
                   m.wide, m.wide_answer, m.outputs, m.classifier, bins_rows, m.groups);
        }
        fflush(stdout);
    }
    return 0;
}
