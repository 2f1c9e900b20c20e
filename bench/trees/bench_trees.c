/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_trees PLATFORM:MODEL… -- ROWS ROUNDS: nanoseconds a row of models in the runtime engines,
 * as the gateway uses them, in one process and in turns, so that what disturbs one disturbs all.
 * ROWS is a comma-separated list of rows per run. Prints one line per round: rows, then a figure
 * per model.
 */
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "serve/runtime/runtime.h"

#include <stdio.h>
#include <stdlib.h>

#define MODELS_MAX 8
#define ROUND_NS (10 * NS_PER_MS)
#define BURSTS 5

struct subject {
    struct runtime_model *m;
    struct runtime_slot *slot;
};

static void must(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "%s\n", e->msg);
        exit(1);
    }
}

static void fill(struct tensor *t, uint32_t rows)
{
    int64_t n = t->spec->shape[1] * rows;
    struct rng rng;

    rng_seed(&rng, 7);
    for (int64_t i = 0; i < n; i++) {
        double v = rng_normal(&rng);

        if (t->spec->datatype == TENSOR_FP64)
            ((double *)t->data)[i] = v;
        else
            ((float *)t->data)[i] = (float)v;
    }
}

/* The best of a few bursts. */
static double measure(struct subject *s, uint32_t rows)
{
    int64_t best = INT64_MAX;
    int turns = 0;
    struct err e;

    for (int64_t from = time_mono_ns(); time_mono_ns() - from < ROUND_NS / BURSTS; turns++)
        must(runtime_run(s->slot, rows, 0, &e), &e);
    for (int burst = 0; burst < BURSTS; burst++) {
        int64_t from = time_mono_ns();

        for (int i = 0; i < turns; i++)
            must(runtime_run(s->slot, rows, 0, &e), &e);
        best = MIN(best, time_mono_ns() - from);
    }
    return (double)best / turns / rows;
}

int main(int argc, char **argv)
{
    struct subject subjects[MODELS_MAX] = {{.m = NULL}};
    int n = 0, at = 1;
    str list, rounds_text;
    uint64_t rounds = 1;
    struct err e;

    for (; at < argc && strcmp(argv[at], "--") && n < MODELS_MAX; at++) {
        str path = str_of(argv[at]), platform = str_cut(&path, ':');

        must(runtime_load(platform, path.p, NULL, &subjects[n++].m, &e), &e);
    }
    if (at + 2 >= argc || !n)
        return 2;
    list = str_of(argv[at + 1]), rounds_text = str_of(argv[at + 2]);
    if (!str_to_u64(rounds_text, &rounds))
        return 2;
    while (list.p) {
        uint64_t rows = 0;

        if (!str_to_u64(str_cut(&list, ','), &rows) || !rows || rows > RUNTIME_ROWS_MAX)
            return 2;
        for (int i = 0; i < n; i++) {
            must(runtime_slot_new(subjects[i].m, (uint32_t)rows, 0, &subjects[i].slot, &e), &e);
            fill(&subjects[i].slot->inputs[0], (uint32_t)rows);
        }
        for (uint64_t r = 0; r < rounds; r++) {
            printf("%u", (unsigned)rows);
            for (int i = 0; i < n; i++)
                printf(" %.1f", measure(&subjects[i], (uint32_t)rows));
            printf("\n");
            fflush(stdout);
        }
        for (int i = 0; i < n; i++)
            runtime_slot_free(subjects[i].slot);
    }
    for (int i = 0; i < n; i++)
        runtime_unload(subjects[i].m);
    return 0;
}
