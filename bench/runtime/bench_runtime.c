/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nanoseconds per run of a gradient-boosted model, 100 full trees of depth 6 over 30 features, in
 * ONNX Runtime as the gateway uses it, by rows per run; and what the wrapper allocates meanwhile.
 * The model is made of random trees: a run's cost does not depend on what was learned. The best of
 * many short runs is reported, as rows for scripts/bench on stdout.
 */
#include "base/files.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "registry/xgb_onnx.h"
#include "serve/runtime/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TREES 100
#define INNER 63
#define NODES 127
#define WIDTH 30
#define RUNS 100 /* short ones: on a busy machine some go undisturbed */

static void must(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "%s\n", e->msg);
        exit(1);
    }
}

/* A list of one value per node. */
static void list(struct buf *to, const char *name, struct rng *rng, int what)
{
    buf_printf(to, ",\"%s\":[", name);
    for (int i = 0; i < NODES; i++) {
        bool leaf = i >= INNER;

        if (i)
            buf_add_char(to, ',');
        switch (what) {
        case 0:
        case 1:
            buf_add_i64(to, leaf ? -1 : 2 * i + 1 + what);
            break;
        case 2:
            buf_add_u64(to, rng_below(rng, WIDTH));
            break;
        case 3:
            buf_add_u64(to, rng_below(rng, 2));
            break;
        default:
            buf_printf(to, "%.9g", rng_normal(rng) * (leaf ? 0.1 : 1));
        }
    }
    buf_add_char(to, ']');
}

static void model_text(struct buf *to)
{
    static const char *const names[] = {"left_children", "right_children", "split_indices",
                                        "default_left", "split_conditions"};
    struct rng rng;

    rng_seed(&rng, 11);
    buf_add_str(to, S("{\"learner\":{\"objective\":{\"name\":\"binary:logistic\"},"
                      "\"learner_model_param\":{\"base_score\":\"5E-1\",\"num_class\":\"0\","
                      "\"num_feature\":\"30\"},\"gradient_booster\":{\"name\":\"gbtree\",\"model\":"
                      "{\"tree_info\":["));
    for (int i = 0; i < TREES; i++)
        buf_add_str(to, i ? S(",0") : S("0"));
    buf_add_str(to, S("],\"trees\":["));
    for (int i = 0; i < TREES; i++) {
        buf_printf(to, "%s{\"tree_param\":{\"num_nodes\":\"%d\",\"size_leaf_vector\":\"0\"}",
                   i ? "," : "", NODES);
        for (int j = 0; j < 5; j++)
            list(to, names[j], &rng, j);
        buf_add_char(to, '}');
    }
    buf_add_str(to, S("]}}}}"));
}

static struct runtime_model *model_load(bool keep_memory)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf text = {0}, onnx = {0};
    struct runtime_options options = {.threads = 1, .keep_memory = keep_memory};
    struct runtime_model *m = NULL;
    char path[] = "/tmp/weir-bench-XXXXXX";
    struct err e;
    int fd = mkstemp(path);

    if (fd < 0)
        exit(1);
    close(fd);
    buf_init(&text, BUF_MAX_DEFAULT);
    buf_init(&onnx, BUF_MAX_DEFAULT);
    model_text(&text);
    must(xgb_onnx_convert(buf_str(&text), &a, &onnx, NULL, &e), &e);
    must(file_replace(path, buf_str(&onnx), &e), &e);
    must(runtime_load(S("onnx"), path, &options, &m, &e), &e);
    must(file_remove(path, &e), &e);
    return m;
}

static void print_row(uint32_t rows, const char *how, const char *metric, const char *unit,
                      double v)
{
    printf("{\"case\": \"%u rows a run, %s\", \"metric\": \"%s\", \"unit\": \"%s\", "
           "\"better\": \"lower\", \"subject\": \"weir\", \"value\": %.1f}\n",
           rows, how, metric, unit, v);
}

static void measure(struct runtime_model *m, uint32_t rows, const char *how)
{
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    int turns = MAX(1, 100 / (int)rows);
    int64_t best = INT64_MAX;
    uint64_t allocs;
    struct rng rng;
    struct err e;

    must(runtime_slot_new(m, rows, 0, &s, &e), &e);
    rng_seed(&rng, 3);
    for (uint32_t i = 0; i < rows * WIDTH; i++)
        ((float *)s->inputs[0].data)[i] = (float)rng_normal(&rng);
    must(runtime_run(s, rows, 0, &e), &e);
    allocs = mem_alloc_count();
    for (int run = 0; run < RUNS; run++) {
        int64_t begin = time_mono_ns();

        for (int turn = 0; turn < turns; turn++)
            must(runtime_run(s, rows, 0, &e), &e);
        best = MIN(best, time_mono_ns() - begin);
    }
    allocs = mem_alloc_count() - allocs;
    fprintf(stderr, "%-12s %5u rows %9.0f ns a run %7.0f ns a row  %llu allocations\n", how, rows,
            (double)best / turns, (double)best / turns / rows, (unsigned long long)allocs);
    print_row(rows, how, "time a row", "ns", (double)best / turns / rows);
    print_row(rows, how, "allocations", "", (double)allocs);
}

int main(void)
{
    static const uint32_t rows[] = {1, 4, 16, 64, 128, 256, 1024};

    for (int keep = 0; keep < 2; keep++) {
        struct runtime_model *m = model_load(keep);

        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
            measure(m, rows[i], keep ? "keep memory" : "default");
        runtime_unload(m);
    }
    return 0;
}
