/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members of an output may come in any order, but "data" can only be read when name, shape and
 * datatype are known: its place is remembered, and it is read when the object has ended. Raw bytes
 * are dealt out in the order in which the answer lists its outputs.
 */
#include "wire/infer_client.h"

#include "wire/json_scan.h"
#include "wire/tensor_check.h"
#include "wire/tensor_raw.h"

#include <stdio.h>

/* --- Questions -------------------------------------------------------------------------------- */

static NODISCARD int input_write(struct buf *to, const struct tensor *t, bool binary, struct err *e)
{
    buf_add_str(to, S("{\"name\":"));
    json_escape(to, t->spec->name);
    buf_add_str(to, S(",\"datatype\":\""));
    buf_add_str(to, str_of(tensor_type_name(t->spec->datatype)));
    buf_add_str(to, S("\",\"shape\":["));
    for (uint32_t i = 0; i < t->rank; i++) {
        if (i)
            buf_add_char(to, ',');
        buf_add_i64(to, t->shape[i]);
    }
    if (binary) {
        buf_add_str(to, S("],\"parameters\":{\"binary_data_size\":"));
        buf_add_u64(to, tensor_raw_bytes(t));
        buf_add_str(to, S("}}"));
        return 0;
    }
    if (tensor_type_kind(t->spec->datatype) == TENSOR_KIND_HALF)
        return FAIL(e, UNIMPLEMENTED,
                    "input '" STR_F "': %s has no JSON form, and the remote server takes no binary "
                    "tensors",
                    SHOWN(t->spec->name), tensor_type_name(t->spec->datatype));
    buf_add_str(to, S("],\"data\":"));
    TRY(tensor_json_write_data(to, t, INFER_NONFINITE_FAIL, e));
    buf_add_char(to, '}');
    return 0;
}

int infer_question_write(struct buf *to, const struct tensor *inputs, uint32_t input_count,
                         const struct tensor_spec *outputs, uint32_t output_count, bool binary,
                         size_t *ret_json_bytes, struct err *e)
{
    size_t begin = to->n;

    buf_add_str(to, S("{\"inputs\":["));
    for (uint32_t i = 0; i < input_count; i++) {
        if (i)
            buf_add_char(to, ',');
        TRY(input_write(to, &inputs[i], binary, e));
    }
    buf_add_str(to, S("],\"outputs\":["));
    for (uint32_t i = 0; i < output_count; i++) {
        buf_add_str(to, i ? S(",{\"name\":") : S("{\"name\":"));
        json_escape(to, outputs[i].name);
        buf_add_str(to, binary ? S(",\"parameters\":{\"binary_data\":true}}") : S("}"));
    }
    buf_add_str(to, S("]}"));
    *ret_json_bytes = to->n - begin;
    for (uint32_t i = 0; binary && i < input_count; i++)
        tensor_raw_write(to, &inputs[i]);
    if (to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the request to the remote server exceeds %zu MiB",
                    to->max_bytes >> 20);
    return 0;
}

/* --- Answers ---------------------------------------------------------------------------------- */

struct reader {
    struct scan s;
    str raw; /* not yet used */
    struct tensor *outputs;
    uint32_t output_count;
    struct arena *arena;
};

struct output {
    struct tensor_claim claim;
    str parameters;
    bool has_shape;
    const char *data_at; /* NULL: there is none */
};

static NODISCARD int text_read(struct reader *r, const char *what, str *ret, struct err *e)
{
    struct scan_text text;

    if (scan_peek(&r->s) != '"') {
        scan_wrong(&r->s, what);
        return scan_error(&r->s, e);
    }
    if (!scan_string(&r->s, &text))
        return scan_error(&r->s, e);
    *ret = scan_unescape(text, r->arena);
    if (!ret->p && text.raw.n)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the texts of the answer");
    return 0;
}

static NODISCARD int shape_read(struct reader *r, struct output *o, struct err *e)
{
    bool first = true, exact = false;
    double value;

    if (!scan_open(&r->s, '[', "a list of dimensions for \"shape\""))
        return scan_error(&r->s, e);
    o->claim.rank = 0;
    while (scan_item(&r->s, &first)) {
        scan_blank(&r->s);
        if (o->claim.rank == TENSOR_RANK_MAX) {
            scan_wrong(&r->s, "at most 8 dimensions in \"shape\"");
            break;
        }
        if (!scan_number(&r->s, &value, &o->claim.shape[o->claim.rank], &exact))
            break;
        if (!exact) {
            scan_wrong(&r->s, "whole numbers below 2^63 in \"shape\"");
            break;
        }
        o->claim.rank++;
    }
    o->has_shape = true;
    return r->s.wrong ? scan_error(&r->s, e) : 0;
}

static NODISCARD int data_read(struct reader *r, const struct output *o, struct tensor *t,
                               struct err *e)
{
    struct problems problems;
    struct scan s = r->s;

    if (tensor_type_kind(t->spec->datatype) == TENSOR_KIND_HALF)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "': %s has no JSON form",
                    SHOWN(o->claim.name), tensor_type_name(t->spec->datatype));
    /* An element takes two bytes of text at least: no more memory than 8 times what came. */
    if (t->count > (size_t)(s.end - o->data_at))
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "': fewer elements than its shape says",
                    SHOWN(o->claim.name));
    t->cap_bytes = t->bytes;
    t->data = arena_alloc(r->arena, MAX(t->bytes, (size_t)16));
    if (!t->data)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for output '" STR_F "'",
                    SHOWN(o->claim.name));
    s.p = o->data_at;
    problems_begin(&problems);
    if (tensor_data_read(&s, t, true, r->arena, &problems))
        return problems_end(&problems, e);
    if (s.wrong)
        return scan_error(&s, e);
    return FAIL(e, RESOURCE_EXHAUSTED, "no memory for output '" STR_F "'", SHOWN(o->claim.name));
}

static NODISCARD int output_end(struct reader *r, const struct output *o, struct err *e)
{
    struct tensor *t;
    int64_t size = -1;
    str given;
    bool binary = infer_parameter_get(o->parameters, S("binary_data_size"), &given);

    if (!o->has_shape || binary == (o->data_at != NULL))
        return FAIL(e, INVALID_ARGUMENT,
                    "output '" STR_F "' has no shape, or no data, or both kinds",
                    SHOWN(o->claim.name));
    TRY(tensor_check_output(r->outputs, r->output_count, &o->claim, &t, e));
    if (!binary)
        return data_read(r, o, t, e);
    if (!infer_parameter_int(o->parameters, S("binary_data_size"), &size) || size < 0 ||
        (uint64_t)size > r->raw.n)
        return FAIL(e, INVALID_ARGUMENT,
                    "output '" STR_F
                    "': binary_data_size is not a size within the %zu bytes behind "
                    "the JSON",
                    SHOWN(o->claim.name), r->raw.n);
    TRY(tensor_raw_over(t, str_take(r->raw, (size_t)size), r->arena, e));
    r->raw = str_skip(r->raw, (size_t)size);
    return 0;
}

static NODISCARD int output_member(struct reader *r, str key, struct output *o, struct err *e)
{
    if (str_eq(key, S("name")))
        return text_read(r, "a string for \"name\"", &o->claim.name, e);
    if (str_eq(key, S("datatype")))
        return text_read(r, "a string for \"datatype\"", &o->claim.datatype, e);
    if (str_eq(key, S("shape")))
        return shape_read(r, o, e);
    if (str_eq(key, S("parameters"))) {
        scan_blank(&r->s);
        return scan_flat_object(&r->s, TENSOR_JSON_PARAMETERS_MAX, &o->parameters)
                   ? 0
                   : scan_error(&r->s, e);
    }
    scan_blank(&r->s);
    if (str_eq(key, S("data")))
        o->data_at = r->s.p;
    return scan_value(&r->s, NULL) ? 0 : scan_error(&r->s, e);
}

static NODISCARD int output_read(struct reader *r, struct err *e)
{
    struct output o = {.parameters = STR_NULL};
    struct scan_text key;
    bool first = true;

    if (!scan_open(&r->s, '{', "an object for each of \"outputs\""))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first))
        TRY(output_member(r, key.raw, &o, e));
    return r->s.wrong ? scan_error(&r->s, e) : output_end(r, &o, e);
}

static NODISCARD int outputs_read(struct reader *r, struct err *e)
{
    bool first = true;

    if (!scan_open(&r->s, '[', "a list for \"outputs\""))
        return scan_error(&r->s, e);
    while (scan_item(&r->s, &first))
        TRY(output_read(r, e));
    return r->s.wrong ? scan_error(&r->s, e) : 0;
}

int infer_answer_read(str json, str raw, struct tensor *outputs, uint32_t output_count,
                      struct arena *a, struct err *e)
{
    struct reader r = {.raw = raw, .outputs = outputs, .output_count = output_count, .arena = a};
    bool first = true;
    struct scan_text key;

    tensor_check_outputs_begin(outputs, output_count);
    scan_begin(&r.s, json);
    if (!scan_open(&r.s, '{', "an object"))
        return scan_error(&r.s, e);
    while (scan_member(&r.s, &key, &first)) {
        if (str_eq(key.raw, S("outputs")))
            TRY(outputs_read(&r, e));
        else if (!scan_value(&r.s, NULL))
            return scan_error(&r.s, e);
    }
    if (r.s.wrong || !scan_finish(&r.s))
        return scan_error(&r.s, e);
    TRY(tensor_check_outputs_end(outputs, output_count, e));
    if (r.raw.n)
        return FAIL(e, INVALID_ARGUMENT, "%zu bytes behind the JSON belong to no output", r.raw.n);
    return 0;
}

void infer_answer_error(str json, char *ret_text, size_t size)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *root;
    struct err e;
    str text = STR_NULL;

    arena_init(&a, 1 << 20);
    ret_text[0] = '\0';
    if (json_parse(str_take(json, 64 << 10), &a, &root, &e) == 0)
        text = json_str_or(json_get(root, S("error")), STR_NULL);
    if (!str_to_z(str_take(text, size - 1), ret_text, size))
        ret_text[0] = '\0';
    for (char *p = ret_text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
}
