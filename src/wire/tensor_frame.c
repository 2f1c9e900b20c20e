/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of tensors. The header is JSON so that a program in any language can read it with what it
 * has at hand; the numbers are raw so that no language has to convert them. Per run the header
 * costs a few microseconds, which a program in another process costs many times over.
 *
 * Invariants: nothing is written behind the end that the head announces; sizes are compared with
 * the limits before memory is made for them; a tensor that is laid over the data lies inside it.
 */
#include "wire/tensor_frame.h"

#include "wire/tensor_raw.h"

#define MAGIC "WRP1"
#define SHOWN(s) STR_A(str_take((s), 64))

static void put(char *to, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (char)(v >> 8 * i & 0xFF);
}

static uint64_t get(const char *from, size_t bytes)
{
    uint64_t v = 0;

    for (size_t i = bytes; i-- > 0;)
        v = v << 8 | (unsigned char)from[i];
    return v;
}

static size_t gap(uint64_t n)
{
    return (size_t)(-n % TENSOR_FRAME_ALIGN);
}

void tensor_frame_head_write(const struct tensor_frame_head *h,
                             char ret_bytes[TENSOR_FRAME_HEAD_BYTES])
{
    memset(ret_bytes, 0, TENSOR_FRAME_HEAD_BYTES);
    memcpy(ret_bytes, MAGIC, 4);
    put(ret_bytes + 4, (uint64_t)h->kind, 2);
    put(ret_bytes + 8, h->id, 8);
    put(ret_bytes + 16, h->header_bytes, 4);
    put(ret_bytes + 24, h->data_bytes, 8);
}

int tensor_frame_head_read(const char bytes[TENSOR_FRAME_HEAD_BYTES], uint64_t data_bytes_max,
                           struct tensor_frame_head *ret, struct err *e)
{
    uint64_t kind = get(bytes + 4, 2);

    if (memcmp(bytes, MAGIC, 4) != 0 || get(bytes + 6, 2) || get(bytes + 20, 4))
        return FAIL(e, INVALID_ARGUMENT, "what came is no frame of the protocol");
    if (kind < TENSOR_FRAME_HELLO || kind > TENSOR_FRAME_ERROR)
        return FAIL(e, INVALID_ARGUMENT, "a frame of the unknown kind %u", (unsigned)kind);
    ret->kind = (enum tensor_frame_kind)kind;
    ret->id = get(bytes + 8, 8);
    ret->header_bytes = (uint32_t)get(bytes + 16, 4);
    ret->data_bytes = get(bytes + 24, 8);
    if (ret->header_bytes > TENSOR_FRAME_HEADER_BYTES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "a frame's header of %u bytes, at most %u are taken",
                    ret->header_bytes, TENSOR_FRAME_HEADER_BYTES_MAX);
    if (ret->data_bytes > data_bytes_max || ret->data_bytes % TENSOR_FRAME_ALIGN)
        return FAIL(e, INVALID_ARGUMENT,
                    "a frame's data of %llu bytes: a multiple of %d and at most %llu are taken",
                    (unsigned long long)ret->data_bytes, TENSOR_FRAME_ALIGN,
                    (unsigned long long)data_bytes_max);
    return 0;
}

size_t tensor_frame_header_span(uint32_t header_bytes)
{
    return header_bytes + gap((uint64_t)TENSOR_FRAME_HEAD_BYTES + header_bytes);
}

static void zeros(struct buf *to, size_t n)
{
    static const char none[TENSOR_FRAME_ALIGN];

    buf_add(to, none, n);
}

/* The head, at `at`, once it is known how long the rest is. */
static NODISCARD int finish(struct buf *to, size_t at, struct tensor_frame_head *h, struct err *e)
{
    if (h->header_bytes > TENSOR_FRAME_HEADER_BYTES_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "the header of a frame would have %u bytes, at most %u",
                    h->header_bytes, TENSOR_FRAME_HEADER_BYTES_MAX);
    if (to->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "a frame would have more than %zu MiB",
                    to->max_bytes >> 20);
    tensor_frame_head_write(h, to->p + at);
    return 0;
}

int tensor_frame_write_json(struct buf *to, enum tensor_frame_kind kind, uint64_t id, str header,
                            struct err *e)
{
    struct tensor_frame_head h = {
        .kind = kind, .id = id, .header_bytes = (uint32_t)MIN(header.n, (size_t)UINT32_MAX)};
    size_t at = to->n;

    zeros(to, TENSOR_FRAME_HEAD_BYTES);
    buf_add_str(to, header);
    zeros(to, gap(TENSOR_FRAME_HEAD_BYTES + header.n));
    return finish(to, at, &h, e);
}

static void describe(struct buf *to, const struct tensor *t)
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
    buf_add_str(to, S("],\"bytes\":"));
    buf_add_u64(to, tensor_raw_bytes(t));
    buf_add_char(to, '}');
}

int tensor_frame_write_run(struct buf *to, uint64_t id, const struct tensor *tensors, uint32_t n,
                           int64_t timeout_ms, struct err *e)
{
    struct tensor_frame_head h = {.kind = TENSOR_FRAME_RUN, .id = id};
    size_t at = to->n, data_at;

    zeros(to, TENSOR_FRAME_HEAD_BYTES);
    buf_add_str(to, S("{\"tensors\":["));
    for (uint32_t i = 0; i < n; i++) {
        if (tensor_raw_bytes(&tensors[i]) == UINT64_MAX)
            return FAIL(e, RESOURCE_EXHAUSTED, "input '" STR_F "' holds a text of 4 GiB or more",
                        SHOWN(tensors[i].spec->name));
        if (i)
            buf_add_char(to, ',');
        describe(to, &tensors[i]);
    }
    buf_add_char(to, ']');
    if (timeout_ms >= 0) {
        buf_add_str(to, S(",\"timeout_ms\":"));
        buf_add_i64(to, timeout_ms);
    }
    buf_add_char(to, '}');
    h.header_bytes =
        (uint32_t)MIN(to->n - at - TENSOR_FRAME_HEAD_BYTES, (size_t)UINT32_MAX); /* see finish() */
    zeros(to, gap(to->n - at));
    data_at = to->n;
    for (uint32_t i = 0; i < n; i++) {
        tensor_raw_write(to, &tensors[i]);
        zeros(to, gap(to->n - data_at));
    }
    h.data_bytes = to->n - data_at;
    return finish(to, at, &h, e);
}

/* --- Reading ---------------------------------------------------------------------------------- */

static NODISCARD int shape_read(const struct json *item, str name, int64_t shape[TENSOR_RANK_MAX],
                                uint32_t *ret_rank, struct err *e)
{
    struct json *list;
    uint32_t rank = 0;

    TRY(json_need_array(item, S("shape"), &list, e));
    if (list->count > TENSOR_RANK_MAX)
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' has %zu dimensions, at most %d are possible",
                    SHOWN(name), list->count, TENSOR_RANK_MAX);
    JSON_EACH (dim, list) {
        if (dim->type != JSON_INT)
            return FAIL(e, INVALID_ARGUMENT, "'" STR_F "': a dimension is no whole number",
                        SHOWN(name));
        shape[rank++] = dim->integer;
    }
    *ret_rank = rank;
    return 0;
}

static NODISCARD int tensor_read(const struct json *item, struct tensor *tensors, uint32_t n,
                                 str *data, struct arena *a, struct err *e)
{
    struct tensor *t = NULL;
    int64_t shape[TENSOR_RANK_MAX], bytes;
    uint32_t rank = 0;
    str name, datatype;

    TRY(json_need_str(item, S("name"), &name, e));
    TRY(json_need_str(item, S("datatype"), &datatype, e));
    TRY(json_need_int(item, S("bytes"), &bytes, e));
    for (uint32_t i = 0; !t && i < n; i++)
        if (str_eq(tensors[i].spec->name, name))
            t = &tensors[i];
    if (!t)
        return FAIL(e, INVALID_ARGUMENT, "there is no output '" STR_F "'", SHOWN(name));
    if (t->present)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' came twice", SHOWN(name));
    if (!str_eqz(datatype, tensor_type_name(t->spec->datatype)))
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' is " STR_F ", declared is %s",
                    SHOWN(name), STR_A(str_take(datatype, 16)),
                    tensor_type_name(t->spec->datatype));
    TRY(shape_read(item, name, shape, &rank, e));
    TRY(tensor_raw_shape(t, shape, rank, e));
    if (bytes < 0 || (uint64_t)bytes > data->n || (size_t)bytes + gap((uint64_t)bytes) > data->n)
        return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' ends behind the frame", SHOWN(name));
    TRY(tensor_raw_over(t, str_take(*data, (size_t)bytes), a, e));
    *data = str_skip(*data, (size_t)bytes + gap((uint64_t)bytes));
    t->present = true;
    return 0;
}

int tensor_frame_tensors(const struct json *header, str data, struct tensor *tensors, uint32_t n,
                         struct arena *a, struct err *e)
{
    struct json *list;

    for (uint32_t i = 0; i < n; i++)
        tensors[i].present = false;
    TRY(json_need_array(header, S("tensors"), &list, e));
    JSON_EACH (item, list)
        TRY(tensor_read(item, tensors, n, &data, a, e));
    for (uint32_t i = 0; i < n; i++)
        if (!tensors[i].present)
            return FAIL(e, INVALID_ARGUMENT, "output '" STR_F "' is missing",
                        SHOWN(tensors[i].spec->name));
    if (data.n)
        return FAIL(e, INVALID_ARGUMENT, "%zu bytes of the frame belong to no output", data.n);
    return 0;
}

/* --- Specs ------------------------------------------------------------------------------------ */

static NODISCARD int spec_read(const struct json *item, const char *what, struct tensor_spec *spec,
                               struct err *e)
{
    str datatype;

    if (item->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "each of the %s is an object {name, datatype, shape}",
                    what);
    TRY(json_need_str(item, S("name"), &spec->name, e));
    TRY(json_need_str(item, S("datatype"), &datatype, e));
    if (!spec->name.n || spec->name.n > 256)
        return FAIL(e, INVALID_ARGUMENT, "a name among the %s is empty or longer than 256 bytes",
                    what);
    if (!tensor_type_parse(datatype, &spec->datatype))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "': datatype '" STR_F "' is unknown",
                    SHOWN(spec->name), STR_A(str_take(datatype, 16)));
    TRY(shape_read(item, spec->name, spec->shape, &spec->rank, e));
    for (uint32_t i = 0; i < spec->rank; i++)
        if (spec->shape[i] < TENSOR_DIM_ANY)
            return FAIL(e, INVALID_ARGUMENT,
                        "'" STR_F "': dimension %lld is neither a size nor -1 (open)",
                        SHOWN(spec->name), (long long)spec->shape[i]);
    return 0;
}

int tensor_specs_read(const struct json *list, const char *what, uint32_t max, struct arena *a,
                      struct tensor_spec **ret_specs, uint32_t *ret_n, struct err *e)
{
    struct tensor_spec *specs;
    uint32_t n = 0;

    if (!list || list->type != JSON_ARRAY || !list->count || list->count > max)
        return FAIL(e, INVALID_ARGUMENT, "%s: a list of 1 to %u {name, datatype, shape} is needed",
                    what, max);
    specs = ARENA_ARRAY(a, struct tensor_spec, list->count);
    if (!specs)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for %zu %s", list->count, what);
    JSON_EACH (item, list) {
        TRY(spec_read(item, what, &specs[n], e));
        for (uint32_t i = 0; i < n; i++)
            if (str_eq(specs[i].name, specs[n].name))
                return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is twice among the %s",
                            SHOWN(specs[n].name), what);
        n++;
    }
    *ret_specs = specs;
    *ret_n = n;
    return 0;
}

bool tensor_specs_equal(const struct tensor_spec *a, uint32_t a_n, const struct tensor_spec *b,
                        uint32_t b_n)
{
    bool equal = a_n == b_n;

    for (uint32_t i = 0; equal && i < a_n; i++)
        equal = str_eq(a[i].name, b[i].name) && a[i].datatype == b[i].datatype &&
                a[i].rank == b[i].rank &&
                memcmp(a[i].shape, b[i].shape, a[i].rank * sizeof(a[i].shape[0])) == 0;
    return equal;
}

struct json *tensor_specs_json(const struct tensor_spec *specs, uint32_t n, struct arena *a)
{
    struct json *list = json_new_array(a);

    for (uint32_t i = 0; i < n; i++) {
        struct json *item = json_push(list, json_new_object(a)), *shape;

        json_set_str(a, item, S("name"), arena_dup(a, specs[i].name));
        json_set_str(a, item, S("datatype"), str_of(tensor_type_name(specs[i].datatype)));
        shape = json_set(item, S("shape"), json_new_array(a));
        for (uint32_t d = 0; d < specs[i].rank; d++)
            json_push(shape, json_new_int(a, specs[i].shape[d]));
    }
    return list;
}
