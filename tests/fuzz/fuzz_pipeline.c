/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any document: it is refused, or its open parameters are computed from a few rows (or are refused
 * there), and the program of the result runs over those rows; a row alone gives the same bits.
 */
#include "fuzz.h"

#include "pipeline/pipeline.h"

#include <math.h>
#include <stdlib.h>

#define ROWS 4u
#define INPUTS_MAX 64u

static const double numbers[ROWS] = {1, -2.5, NAN, 1.7e9};
static const str texts[ROWS] = {S_INIT("a"), S_INIT(""), S_INIT("2026-11-27 10:00:00"),
                                S_INIT("b")};

static void run(const struct pipeline *p, const struct pipeline_values *in, struct arena *a)
{
    struct pipeline_work all, one;
    struct err e;

    pipeline_work_init(&all, p, a);
    pipeline_work_init(&one, p, a);
    if (pipeline_run(p, &all, in, 0, ROWS, &e)) {
        if (e.code != CODE_OUT_OF_RANGE)
            abort();
        return;
    }
    for (uint32_t row = 0; row < ROWS; row++) {
        if (pipeline_run(p, &one, in, row, 1, &e))
            abort();
        for (uint32_t c = 0; c < p->output_count; c++) {
            uint32_t at = p->outputs[c].at;
            bool same = p->outputs[c].type == PIPELINE_TEXT
                            ? str_eq(pipeline_texts(&all, at)[row], pipeline_texts(&one, at)[0])
                            : memcmp(&pipeline_numbers(&all, at)[row],
                                     &pipeline_numbers(&one, at)[0], sizeof(double)) == 0;

            if (!same)
                abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pipeline_options open = {.may_be_open = true};
    AUTO(arena_done) struct arena a = {0};
    struct pipeline_values in[INPUTS_MAX];
    struct json *document, *fitted;
    struct pipeline *p;
    struct err e;

    if (size > 4096 || json_parse((str){(const char *)data, size}, &a, &document, &e) ||
        pipeline_read(document, &open, &a, &p, &e) || p->input_count > INPUTS_MAX)
        return 0;
    for (uint32_t i = 0; i < p->input_count; i++)
        in[i] = (struct pipeline_values){numbers, texts};
    if (pipeline_fit(document, in, ROWS, &a, &fitted, &e))
        return 0;
    if (pipeline_is_open(fitted) || pipeline_read(fitted, NULL, &a, &p, &e))
        abort();
    run(p, in, &a);
    return 0;
}
