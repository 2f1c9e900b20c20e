/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a model of trees: refused, or laid out in both forms, which then must say the same
 * of some odd rows, bit for bit.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "base/random.h"
#include "serve/trees/trees.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 35
#define NUMBERS_MAX 100000u /* of rows and of answers */

static void *rows_make(const struct trees_model *m)
{
    static const double odd[] = {0,   -0.0,     1,         -1,    0.5,  2,
                                 NAN, INFINITY, -INFINITY, 1e-45, 3e38, -1e-36};
    size_t n = (size_t)ROWS * m->features;
    void *rows = mem_zalloc(n * sizeof(double));
    struct rng rng;

    rng_seed(&rng, 1);
    for (size_t i = 0; i < n; i++) {
        double v = rng_below(&rng, 2) ? odd[rng_below(&rng, ARRAY_LEN(odd))] : rng_normal(&rng);

        if (m->wide)
            ((double *)rows)[i] = v;
        else
            ((float *)rows)[i] = (float)v;
    }
    return rows;
}

static void *answer(const struct trees_model *m, enum trees_form form, const void *rows)
{
    AUTO(trees_forest_freep) struct trees_forest *f = NULL;
    AUTO(trees_scratch_freep) struct trees_scratch *s = NULL;
    size_t bytes = (size_t)ROWS * m->outputs * (m->wide_answer ? sizeof(double) : sizeof(float));
    char *to;
    struct err e;

    if (trees_forest_make(m, form, &f, &e)) {
        if (e.code != CODE_RESOURCE_EXHAUSTED && e.code != CODE_FAILED_PRECONDITION)
            abort();
        return NULL;
    }
    s = trees_scratch_new(f);
    to = mem_zalloc(bytes + ROWS * sizeof(uint32_t));
    trees_forest_run(f, s, rows, ROWS, to, (uint32_t *)(void *)(to + bytes));
    return to;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a;
    AUTO(mem_freep) void *rows = NULL;
    AUTO(mem_freep) void *walk = NULL;
    AUTO(mem_freep) void *bins = NULL;
    struct trees_model m;
    struct err e;
    int rc;

    arena_init(&a, 16 << 20);
    rc = trees_read((str){(const char *)data, size}, &a, &m, &e);
    if (rc) {
        if (rc != CODE_INVALID_ARGUMENT && rc != CODE_RESOURCE_EXHAUSTED &&
            rc != CODE_FAILED_PRECONDITION)
            abort();
        return 0;
    }
    if (m.features > NUMBERS_MAX / ROWS || m.outputs > NUMBERS_MAX / ROWS || m.groups > 64)
        return 0;
    rows = rows_make(&m);
    walk = answer(&m, TREES_FORM_WALK, rows);
    bins = answer(&m, TREES_FORM_BINS, rows);
    if (walk && bins && memcmp(walk, bins, (size_t)ROWS * m.outputs * (m.wide_answer ? 8 : 4)) != 0)
        abort();
    return 0;
}
