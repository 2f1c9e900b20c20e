/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a ModelInferRequest. One pass over the fields of the message reads everything but raw
 * contents; a second gives those, in their order, to the inputs in theirs, since the two lists may
 * come in any order. A pass costs little: fields of bytes are stepped over by their length.
 *
 * A broken message ends the read at once; a wrong value is noted and the read goes on, so that a
 * client learns of all its mistakes in one answer.
 *
 * Invariants: as in tensor_json.c: an element is written only after name, datatype and shape agree
 * with the signature and fit the tensor's memory, at most `count` of them; each tensor is filled at
 * most once.
 */
#include "wire/infer_pb_priv.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

#define MESSAGE "the request"
#define PARAMETER_ROOM 40 /* of one parameter in JSON, without its texts */
#define ESCAPE_MAX 6      /* bytes of JSON for one byte of text */

struct reader {
    struct pb r;
    struct tensor_check check;
    struct arena *arena;
    struct tensor **order; /* of the inputs as they came; NULL where one is not to be filled */
    uint32_t raw_count;
    bool any_contents;
};

int infer_pb_model_read(str message, struct infer_pb_model *ret_model, struct err *e)
{
    struct infer_pb_model m = {STR_NULL, STR_NULL};
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == PB_MODEL_NAME && pb_is_text(&r, &f))
            m.name = f.bytes;
        else if (f.number == PB_MODEL_VERSION && pb_is_text(&r, &f))
            m.version = f.bytes;
    TRY(pb_end(&r, MESSAGE, e));
    *ret_model = m;
    return 0;
}

/* --- Parameters ------------------------------------------------------------------------------- */

static double real_of(uint64_t bits)
{
    double v;

    memcpy(&v, &bits, sizeof(v));
    return v;
}

/* One InferParameter as a JSON value; of several, the last counts. False when broken. */
static bool parameter_value(struct pb *outer, str message, struct buf *to)
{
    size_t from = to->n;
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f)) {
        enum pb_wire want = f.number == PB_PARAMETER_STRING   ? PB_BYTES
                            : f.number == PB_PARAMETER_DOUBLE ? PB_FIXED64
                                                              : PB_VARINT;

        if (f.number > PB_PARAMETER_UINT64)
            continue;
        if (!pb_is(&r, &f, want))
            break;
        to->n = from;
        if (f.number == PB_PARAMETER_BOOL)
            buf_add_str(to, f.value ? S("true") : S("false"));
        else if (f.number == PB_PARAMETER_INT64)
            buf_add_i64(to, (int64_t)f.value);
        else if (f.number == PB_PARAMETER_UINT64)
            buf_add_u64(to, f.value);
        else if (f.number == PB_PARAMETER_STRING && pb_is_text(&r, &f))
            json_escape(to, f.bytes);
        else if (f.number == PB_PARAMETER_DOUBLE && isfinite(real_of(f.value)))
            to->n += num_f64_text(real_of(f.value), buf_reserve(to, NUM_TEXT_MAX));
        else if (f.number == PB_PARAMETER_DOUBLE)
            r.wrong = "a parameter is not finite";
    }
    if (to->n == from)
        buf_add_str(to, S("null"));
    outer->wrong = r.wrong;
    return !r.wrong;
}

/* One entry of the map: {key 1, value 2}. */
static bool parameter_write(struct pb *outer, str entry, struct buf *to)
{
    str key = S(""), value = S("");
    struct pb_field f;
    struct pb r;

    pb_begin(&r, entry);
    while (pb_next(&r, &f))
        if (f.number == 1 && pb_is_text(&r, &f))
            key = f.bytes;
        else if (f.number == 2 && pb_is(&r, &f, PB_BYTES))
            value = f.bytes;
    outer->wrong = r.wrong;
    if (r.wrong)
        return false;
    json_escape(to, key);
    buf_add_char(to, ':');
    return parameter_value(outer, value, to);
}

/* The map in field `number` of a message as the JSON text of an object, whose members are bounded
 * and different; STR_NULL when it is empty. */
static int parameters_read(struct arena *a, str message, uint32_t number, str *ret_text,
                           struct err *e)
{
    size_t bytes = 2, room;
    uint32_t count = 0;
    struct pb_field f;
    struct buf to;
    struct scan s;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == number && pb_is(&r, &f, PB_BYTES))
            bytes += f.bytes.n, count++;
    TRY(pb_end(&r, MESSAGE, e));
    *ret_text = STR_NULL;
    if (!count)
        return 0;
    TRY(tensor_check_count(count - 1, TENSOR_JSON_PARAMETERS_MAX, "parameters in one place", e));
    room = ESCAPE_MAX * bytes + PARAMETER_ROOM * count;
    buf_init_fixed(&to, arena_alloc(a, room), room);
    if (!to.p)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "the request's parameters exceed the memory of a request");
    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == number) {
            buf_add_char(&to, to.n ? ',' : '{');
            if (!parameter_write(&r, f.bytes, &to))
                break;
        }
    buf_add_char(&to, '}');
    TRY(pb_end(&r, "a parameter", e));
    ASSERT(!to.overflowed);
    scan_begin(&s, buf_str(&to));
    return scan_flat_object(&s, TENSOR_JSON_PARAMETERS_MAX, ret_text) ? 0 : scan_error(&s, e);
}

/* --- Inputs and outputs ----------------------------------------------------------------------- */

static void input_read(struct reader *rd, str message)
{
    uint32_t at = rd->check.inputs_seen;
    struct tensor_claim claim;
    struct tensor *t;
    str contents;

    rd->r.wrong = infer_pb_tensor_read(message, &claim, &contents);
    if (rd->r.wrong)
        return;
    t = tensor_check_input(&rd->check, &claim);
    if (at < rd->check.schema->input_count)
        rd->order[at] = contents.n ? NULL : t;
    rd->check.inputs_seen++;
    rd->any_contents |= contents.n > 0;
    if (t && contents.n)
        rd->r.wrong = infer_pb_contents_read("input", contents, t, &rd->check.problems);
}

static int output_read(struct reader *rd, str message, struct err *e)
{
    str name = STR_NULL, parameters;
    struct pb_field f;
    struct pb r;

    pb_begin(&r, message);
    while (pb_next(&r, &f))
        if (f.number == 1 && pb_is_text(&r, &f))
            name = f.bytes;
    TRY(pb_end(&r, "an output", e));
    TRY(parameters_read(rd->arena, message, 2, &parameters, e));
    if (name.n) {
        tensor_check_wanted(&rd->check, name, parameters);
    } else {
        rd->check.outputs_seen++;
        problems_add(&rd->check.problems, "an output has no name");
    }
    return 0;
}

/* Everything but the raw contents. */
static int fields_read(struct reader *rd, str message, struct err *e)
{
    struct infer_request *q = rd->check.request;
    bool has_parameters = false;
    struct pb_field f;

    pb_begin(&rd->r, message);
    while (pb_next(&rd->r, &f)) {
        if (f.number > PB_RAW_INPUTS || !pb_is(&rd->r, &f, PB_BYTES))
            continue;
        if (f.number == PB_INPUTS) {
            TRY(tensor_check_count(rd->check.inputs_seen, TENSOR_INPUTS_MAX, "inputs", e));
            input_read(rd, f.bytes);
        } else if (f.number == PB_RAW_INPUTS) {
            rd->raw_count++;
        } else if (f.number == PB_OUTPUTS) {
            TRY(tensor_check_count(rd->check.outputs_seen, TENSOR_OUTPUTS_MAX, "outputs", e));
            TRY(output_read(rd, f.bytes, e));
        } else if (f.number == PB_PARAMETERS)
            has_parameters = true;
        else if (f.number == PB_ID && pb_is_text(&rd->r, &f))
            q->id = f.bytes.n ? f.bytes : STR_NULL;
    }
    TRY(pb_end(&rd->r, MESSAGE, e));
    return has_parameters ? parameters_read(rd->arena, message, PB_PARAMETERS, &q->parameters, e)
                          : 0;
}

/* Gives raw contents to the inputs that have no typed ones. */
static void raw_read(struct reader *rd, str message)
{
    uint32_t inputs = rd->check.inputs_seen, at = 0;
    struct pb_field f;

    if (rd->any_contents) {
        problems_add(&rd->check.problems, "raw_input_contents and contents in one request");
        return;
    }
    if (rd->raw_count != inputs) {
        problems_add(&rd->check.problems, "%u raw_input_contents for %u inputs", rd->raw_count,
                     inputs);
        return;
    }
    pb_begin(&rd->r, message);
    while (pb_next(&rd->r, &f)) {
        if (f.number != PB_RAW_INPUTS)
            continue;
        if (at < rd->check.schema->input_count && rd->order[at])
            tensor_check_raw(&rd->check, f.bytes, rd->order[at]);
        at++;
    }
}

/* No raw contents: inputs that want elements and had none. */
static void empty_check(struct reader *rd)
{
    uint32_t n = MIN(rd->check.inputs_seen, rd->check.schema->input_count);

    for (uint32_t i = 0; i < n; i++)
        if (rd->order[i] && rd->order[i]->count)
            problems_add(&rd->check.problems, "input '" STR_F "': has no data",
                         SHOWN(rd->order[i]->spec->name));
}

int infer_pb_request_read(str message, const struct infer_schema *schema, struct tensor *inputs,
                          struct arena *a, struct infer_request *ret_request, struct err *e)
{
    struct reader rd;

    tensor_check_begin(&rd.check, schema, inputs, ret_request);
    rd.check.raw_name = "the size of raw_input_contents";
    rd.arena = a;
    rd.raw_count = 0;
    rd.any_contents = false;
    rd.order = arena_alloc(a, schema->input_count * sizeof(*rd.order));
    if (!rd.order)
        return FAIL(e, RESOURCE_EXHAUSTED, "the request exceeds the memory of a request");
    TRY(fields_read(&rd, message, e));
    if (rd.raw_count)
        raw_read(&rd, message);
    else
        empty_check(&rd);
    TRY(tensor_check_end(&rd.check, e));
    ret_request->any_binary = !rd.any_contents;
    for (uint32_t i = 0; i < ret_request->wanted_count; i++)
        ret_request->wanted[i].binary = ret_request->any_binary;
    return 0;
}
