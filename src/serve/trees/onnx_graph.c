/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers of fields are those of onnx.proto3. Lists of numbers come packed or one by one; both are
 * counted first, so that memory is taken once and only for what is there.
 */
#include "serve/trees/onnx_graph.h"

#include "serve/trees/onnx_fields.h"
#include "serve/trees/priv.h"

#define ATTRS_MAX 64

static int broken(struct err *e)
{
    return FAIL(e, INVALID_ARGUMENT, "the file is not an ONNX model (its protobuf is broken)");
}

static int not_lone(const char *what, struct err *e)
{
    return FAIL(e, FAILED_PRECONDITION, "not a lone tree ensemble: the graph has %s", what);
}

/* --- Numbers ---------------------------------------------------------------------------------- */

/* The scalars of one field in a message: *count of them go to `to` when it is not NULL. width: 4 or
 * 8 bytes of floats, 0 for varints. */
static bool scalars_each(str body, uint32_t number, unsigned width, void *to, uint32_t *ret_count)
{
    struct onnx_field f;
    uint64_t n = 0, v;

    while (body.n) {
        if (!onnx_field_take(&body, &f))
            return false;
        if (f.number != number)
            continue;
        if (f.wire == ONNX_WIRE_VARINT) {
            if (width)
                return false;
            if (to)
                ((int64_t *)to)[n] = (int64_t)f.value;
            n++;
            continue;
        }
        while (f.bytes.n) {
            if (width) {
                float narrow;

                if (f.bytes.n < width)
                    return false;
                if (to && width == 4) {
                    memcpy(&narrow, f.bytes.p, 4);
                    ((double *)to)[n] = (double)narrow;
                } else if (to) {
                    memcpy((double *)to + n, f.bytes.p, 8);
                }
                f.bytes = str_skip(f.bytes, width);
            } else {
                if (!onnx_varint_take(&f.bytes, &v))
                    return false;
                if (to)
                    ((int64_t *)to)[n] = (int64_t)v;
            }
            n++;
        }
    }
    *ret_count = (uint32_t)MIN(n, (uint64_t)UINT32_MAX);
    return n < UINT32_MAX;
}

static int ints_read(str body, uint32_t number, struct arena *a, const int64_t **ret_ints,
                     uint32_t *ret_count, struct err *e)
{
    int64_t *ints;

    if (!scalars_each(body, number, 0, NULL, ret_count))
        return broken(e);
    if (!*ret_count)
        return 0;
    ints = ARENA_ARRAY(a, int64_t, *ret_count);
    if (!ints)
        return trees_no_memory(e);
    (void)!scalars_each(body, number, 0, ints, ret_count);
    *ret_ints = ints;
    return 0;
}

static int reals_read(str body, uint32_t number, unsigned width, struct arena *a,
                      struct onnx_attr *to, struct err *e)
{
    double *reals;

    if (!scalars_each(body, number, width, NULL, &to->real_count))
        return broken(e);
    if (!to->real_count)
        return 0;
    reals = ARENA_ARRAY(a, double, to->real_count);
    if (!reals)
        return trees_no_memory(e);
    (void)!scalars_each(body, number, width, reals, &to->real_count);
    to->reals = reals;
    to->is_double = width == 8;
    return 0;
}

/* --- Tensors as attributes -------------------------------------------------------------------- */

static int raw_read(str raw, int64_t type, struct arena *a, struct onnx_attr *to, struct err *e)
{
    unsigned width = type == ONNX_ELEM_FLOAT ? 4 : type == ONNX_ELEM_DOUBLE ? 8 : 1;
    uint32_t n = (uint32_t)(raw.n / width);
    double *reals = width > 1 ? ARENA_ARRAY(a, double, n) : NULL;
    int64_t *ints = width == 1 ? ARENA_ARRAY(a, int64_t, n) : NULL;

    if (raw.n % width || raw.n / width > UINT32_MAX)
        return broken(e);
    if (!reals && !ints)
        return trees_no_memory(e);
    for (uint32_t i = 0; i < n; i++) {
        const char *p = raw.p + (size_t)i * width;
        float narrow;

        if (width == 1) {
            ints[i] = (uint8_t)*p;
        } else if (width == 4) {
            memcpy(&narrow, p, 4);
            reals[i] = (double)narrow;
        } else {
            memcpy(&reals[i], p, 8);
        }
    }
    to->reals = reals, to->real_count = reals ? n : 0;
    to->ints = ints, to->int_count = ints ? n : 0;
    to->is_double = width == 8;
    return 0;
}

static int tensor_read(str body, struct arena *a, struct onnx_attr *to, struct err *e)
{
    str rest = body, raw = STR_NULL;
    int64_t type = 0;
    bool elsewhere = false;
    struct onnx_field f;

    while (rest.n) {
        if (!onnx_field_take(&rest, &f))
            return broken(e);
        if (f.number == 2 && f.wire == ONNX_WIRE_VARINT)
            type = (int64_t)f.value;
        if (f.number == 9 && f.wire == ONNX_WIRE_BYTES)
            raw = f.bytes;
        elsewhere |= f.number == 13;
    }
    if (elsewhere)
        return FAIL(e, INVALID_ARGUMENT, "a tensor of the ONNX model lies in another file");
    if (type != ONNX_ELEM_FLOAT && type != ONNX_ELEM_DOUBLE && type != ONNX_ELEM_UINT8)
        return not_lone("a tensor of a type that tree ensembles have not", e);
    if (raw.n)
        return raw_read(raw, type, a, to, e);
    if (type == ONNX_ELEM_FLOAT)
        return reals_read(body, 4, 4, a, to, e);
    if (type == ONNX_ELEM_DOUBLE)
        return reals_read(body, 10, 8, a, to, e);
    return ints_read(body, 5, a, &to->ints, &to->int_count, e);
}

static int strs_read(str body, uint32_t number, struct arena *a, struct onnx_attr *to,
                     struct err *e)
{
    str *strs = NULL;

    for (int pass = 0; pass < 2; pass++) {
        str rest = body;
        struct onnx_field f;

        if (pass && !to->str_count)
            return 0;
        strs = pass ? ARENA_ARRAY(a, str, to->str_count) : NULL;
        if (pass && !strs)
            return trees_no_memory(e);
        to->str_count = 0;
        while (rest.n) {
            if (!onnx_field_take(&rest, &f))
                return broken(e);
            if (f.number == number && f.wire == ONNX_WIRE_BYTES) {
                if (pass)
                    strs[to->str_count] = f.bytes;
                to->str_count++;
            }
        }
    }
    to->strs = strs;
    return 0;
}

static int attr_read(str body, struct arena *a, struct onnx_attr *to, struct err *e)
{
    str rest = body;
    struct onnx_field f;

    while (rest.n) {
        if (!onnx_field_take(&rest, &f))
            return broken(e);
        if (f.number == 1 && f.wire == ONNX_WIRE_BYTES)
            to->name = f.bytes;
        if (f.number == 3 && f.wire == ONNX_WIRE_VARINT)
            to->i = (int64_t)f.value;
        if (f.number == 4 && f.wire == ONNX_WIRE_BYTES)
            to->s = f.bytes;
        if (f.number == 5 && f.wire == ONNX_WIRE_BYTES)
            TRY(tensor_read(f.bytes, a, to, e));
    }
    if (!to->ints)
        TRY(ints_read(body, 8, a, &to->ints, &to->int_count, e));
    if (!to->reals)
        TRY(reals_read(body, 7, 4, a, to, e));
    return strs_read(body, 9, a, to, e);
}

int onnx_attrs_read(const struct onnx_node *n, struct arena *a, struct onnx_attr **ret_attrs,
                    uint32_t *ret_count, struct err *e)
{
    struct onnx_attr *attrs = ARENA_ARRAY(a, struct onnx_attr, ATTRS_MAX);
    str rest = n->body;
    uint32_t count = 0;
    struct onnx_field f;

    if (!attrs)
        return trees_no_memory(e);
    while (rest.n) {
        if (!onnx_field_take(&rest, &f))
            return broken(e);
        if (f.number != 5 || f.wire != ONNX_WIRE_BYTES)
            continue;
        if (count == ATTRS_MAX)
            return not_lone("a node with more attributes than a tree ensemble has", e);
        TRY(attr_read(f.bytes, a, &attrs[count++], e));
    }
    *ret_attrs = attrs;
    *ret_count = count;
    return 0;
}

const struct onnx_attr *onnx_attr_get(const struct onnx_attr *attrs, uint32_t n, const char *name)
{
    static const struct onnx_attr none;

    for (uint32_t i = 0; i < n; i++)
        if (str_eqz(attrs[i].name, name))
            return &attrs[i];
    return &none;
}

/* --- The graph -------------------------------------------------------------------------------- */

static int node_read(str body, struct onnx_node *to, struct err *e)
{
    str rest = body;
    struct onnx_field f;

    to->body = body;
    while (rest.n) {
        if (!onnx_field_take(&rest, &f))
            return broken(e);
        if (f.wire != ONNX_WIRE_BYTES)
            continue;
        if (f.number == 1) {
            if (to->input_count < ARRAY_LEN(to->inputs))
                to->inputs[to->input_count] = f.bytes;
            to->input_count++;
        } else if (f.number == 2) {
            if (to->output_count < ARRAY_LEN(to->outputs))
                to->outputs[to->output_count] = f.bytes;
            to->output_count++;
        } else if (f.number == 4) {
            to->op = f.bytes;
        } else if (f.number == 7) {
            to->domain = f.bytes;
        }
    }
    return 0;
}

static int shape_read(str body, struct onnx_value *to, struct err *e)
{
    struct onnx_field f, d;

    while (body.n) {
        int64_t dim = -1;

        if (!onnx_field_take(&body, &f))
            return broken(e);
        if (f.number != 1 || f.wire != ONNX_WIRE_BYTES)
            continue;
        while (f.bytes.n) {
            if (!onnx_field_take(&f.bytes, &d))
                return broken(e);
            if (d.number == 1 && d.wire == ONNX_WIRE_VARINT)
                dim = (int64_t)d.value;
        }
        if (to->rank < ARRAY_LEN(to->dims))
            to->dims[to->rank] = dim;
        to->rank++;
    }
    return 0;
}

/* ValueInfoProto: name, and of its TypeProto the tensor's type and shape. */
static int value_read(str body, struct onnx_value *to, struct err *e)
{
    struct onnx_field f, t, v;

    while (body.n) {
        if (!onnx_field_take(&body, &f))
            return broken(e);
        if (f.number == 1 && f.wire == ONNX_WIRE_BYTES)
            to->name = f.bytes;
        if (f.number != 2 || f.wire != ONNX_WIRE_BYTES)
            continue;
        while (f.bytes.n) {
            if (!onnx_field_take(&f.bytes, &t))
                return broken(e);
            if (t.number != 1 || t.wire != ONNX_WIRE_BYTES)
                continue;
            while (t.bytes.n) {
                if (!onnx_field_take(&t.bytes, &v))
                    return broken(e);
                if (v.number == 1 && v.wire == ONNX_WIRE_VARINT)
                    to->elem = (int64_t)v.value;
                if (v.number == 2 && v.wire == ONNX_WIRE_BYTES)
                    TRY(shape_read(v.bytes, to, e));
            }
        }
    }
    return 0;
}

static int graph_read(str body, struct onnx_graph *g, struct err *e)
{
    struct onnx_field f;

    while (body.n) {
        if (!onnx_field_take(&body, &f))
            return broken(e);
        if (f.wire != ONNX_WIRE_BYTES)
            continue;
        switch (f.number) {
        case 1:
            if (g->node_count == ONNX_NODES_MAX)
                return not_lone("more nodes", e);
            TRY(node_read(f.bytes, &g->nodes[g->node_count++], e));
            break;
        case 5:
        case 15:
            return not_lone("constants", e);
        case 11:
            if (g->input_count++)
                return not_lone("several inputs", e);
            TRY(value_read(f.bytes, &g->input, e));
            break;
        case 12:
            if (g->output_count == ONNX_OUTPUTS_MAX)
                return not_lone("more outputs", e);
            TRY(value_read(f.bytes, &g->outputs[g->output_count++], e));
            break;
        default:
            break;
        }
    }
    return 0;
}

int onnx_graph_read(str file, struct onnx_graph *ret_graph, struct err *e)
{
    struct onnx_graph g = {.node_count = 0};
    str graph = STR_NULL;
    struct onnx_field f;

    while (file.n) {
        if (!onnx_field_take(&file, &f))
            return broken(e);
        if (f.number == 7 && f.wire == ONNX_WIRE_BYTES)
            graph = f.bytes;
        if (f.number == 20 || f.number == 25)
            return not_lone("functions, or a training part", e);
    }
    if (!graph.p)
        return FAIL(e, INVALID_ARGUMENT, "the file is not an ONNX model: it has no graph");
    TRY(graph_read(graph, &g, e));
    if (!g.node_count || !g.input_count || !g.output_count)
        return not_lone("no nodes, inputs or outputs", e);
    *ret_graph = g;
    return 0;
}
