/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nanoseconds per request of the JSON codecs, as text: best of some runs, which is the figure that
 * noise of the machine disturbs least. Build: `ninja bench_tensor_json`.
 */
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "wire/fields_json.h"
#include "wire/tensor_json.h"

#include <stdio.h>
#include <stdlib.h>

#define WIDTH 30
#define RUNS 600 /* short ones: on a busy machine some go undisturbed */
#define TURNS 400

struct bench {
    const char *name;
    void (*fn)(void);
};

static const struct tensor_spec in_spec = {S_INIT("input"), TENSOR_FP32, 2, {-1, WIDTH}};
static const struct tensor_spec out_specs[] = {
    {S_INIT("label"), TENSOR_INT64, 1, {-1}},
    {S_INIT("probabilities"), TENSOR_FP32, 2, {-1, 2}},
};
static const struct infer_schema schema = {&in_spec, 1, out_specs, 2, true};
static float x[64 * WIDTH];
static struct tensor in = {.spec = &in_spec, .data = x, .cap_bytes = sizeof(x)};
static struct tensor out[2];
static struct buf short_numbers, long_numbers, rows64, fields, answer;
static struct field_table table;
static struct infer_response_plan plan;
static struct infer_request request;
static struct arena plan_arena, arena;

static void must(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "%s\n", e->msg);
        exit(1);
    }
}

static void read_body(const struct buf *b)
{
    struct err e;

    must(infer_request_read(buf_str(b), STR_NULL, &schema, NULL, &in, &arena, &request, &e), &e);
}

static void run_short(void)
{
    read_body(&short_numbers);
}

static void run_long(void)
{
    read_body(&long_numbers);
}

static void run_rows64(void)
{
    read_body(&rows64);
}

static void run_fields(void)
{
    struct fields_request q;
    struct err e;

    arena_reset(&arena);
    must(fields_request_read(buf_str(&fields), &table, &in, 64, &arena, &q, &e), &e);
}

static void run_write(void)
{
    size_t json_bytes;
    struct err e;

    buf_clear(&answer);
    must(infer_response_write(&answer, &plan, &request, out, STR_NULL, INFER_NONFINITE_NULL,
                              &json_bytes, &e),
         &e);
}

static void body_make(struct buf *b, size_t rows, int digits)
{
    struct rng rng;

    rng_seed(&rng, 1);
    buf_init(b, 1 << 20);
    buf_printf(
        b, "{\"inputs\":[{\"name\":\"input\",\"shape\":[%zu,%d],\"datatype\":\"FP32\",\"data\":[",
        rows, WIDTH);
    for (size_t i = 0; i < rows * WIDTH; i++)
        buf_printf(b, "%s%.*g", i ? "," : "", digits, rng_normal(&rng));
    buf_add_str(b, S("]}]}"));
}

static void set_up(void)
{
    static struct field_column columns[WIDTH];
    static int64_t label[1] = {1};
    static float probabilities[2] = {0.12345678f, 0.87654322f};
    struct err e;

    body_make(&short_numbers, 1, 8);
    body_make(&long_numbers, 1, 17);
    body_make(&rows64, 64, 8);
    buf_init(&fields, 1 << 16);
    buf_init(&answer, 1 << 16);
    buf_add_str(&fields, S("{\"features\":{"));
    for (uint32_t i = 0; i < WIDTH; i++) {
        columns[i] = (struct field_column){.name = arena_printf(&plan_arena, "feature_%u", i),
                                           .type = FIELD_FLOAT,
                                           .store = TENSOR_FP32,
                                           .required = true,
                                           .position = i};
        buf_printf(&fields, "%s\"feature_%u\":%.8g", i ? "," : "", i, (double)i * 0.37 - 3);
    }
    buf_add_str(&fields, S("}}"));
    must(field_table_init(&table, columns, WIDTH, &plan_arena, &e), &e);
    infer_response_plan_init(&plan, S("fraud"), S("3"), &schema, &plan_arena);
    out[0] = (struct tensor){.spec = &out_specs[0], .data = label, .cap_bytes = sizeof(label)};
    out[1] = (struct tensor){.spec = &out_specs[1], .data = probabilities, .cap_bytes = 8};
    tensor_set_rows(&out[0], 1);
    tensor_set_rows(&out[1], 1);
}

int main(void)
{
    static const struct bench benches[] = {
        {"infer read, 1 x 30, 8 digits", run_short},    {"infer read, 1 x 30, 17 digits", run_long},
        {"infer read, 64 x 30, 8 digits", run_rows64},  {"fields read, 30 by name", run_fields},
        {"infer write, label and 2 floats", run_write},
    };

    set_up();
    printf("bodies: %zu, %zu, %zu, %zu bytes\n", short_numbers.n, long_numbers.n, rows64.n,
           fields.n);
    for (size_t i = 0; i < ARRAY_LEN(benches); i++) {
        int64_t best = INT64_MAX;
        uint64_t allocs;

        run_short(); /* leaves a request for the writer */
        benches[i].fn();
        allocs = mem_alloc_count();
        for (int run = 0; run < RUNS; run++) {
            int64_t begin = time_mono_ns(), took;

            for (int turn = 0; turn < TURNS / (benches[i].fn == run_rows64 ? 20 : 1); turn++)
                benches[i].fn();
            took = time_mono_ns() - begin;
            best = MIN(best, took);
        }
        printf("%-34s %8.0f ns  %llu allocations\n", benches[i].name,
               (double)best / (TURNS / (benches[i].fn == run_rows64 ? 20 : 1)),
               (unsigned long long)(mem_alloc_count() - allocs));
    }
    return 0;
}
