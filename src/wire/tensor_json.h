/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Open Inference Protocol in JSON, both ways, without a tree and without allocation.
 *
 * The reader takes the body of an infer request and puts the numbers straight into the memory of
 * the model's input tensors; the writer puts output tensors straight into the answer's buffer. The
 * binary tensor extension is included: inputs may lie as raw bytes behind the JSON, and outputs may
 * be asked for the same way.
 *
 * Strict: RFC 8259, UTF-8, no duplicate keys, no trailing bytes, nesting at most
 * TENSOR_JSON_DEPTH_MAX. Names, datatypes, ranks and dimensions are held against the model's
 * signature before one element is written. NaN and Infinity have no JSON form and are refused; with
 * `null_is_nan`, null stands for a missing value in FP32 and FP64 tensors. FP16 and BF16 have no
 * JSON form either and come as binary. Members that the protocol does not know are skipped (but
 * must be well-formed), as other servers do. All functions are safe from any thread.
 */
#pragma once

#include "base/arena.h"
#include "base/json.h"
#include "wire/tensor.h"

#define TENSOR_JSON_DEPTH_MAX 32
#define TENSOR_JSON_PROBLEMS_MAX 8    /* wrong things named in one error */
#define TENSOR_JSON_PARAMETERS_MAX 64 /* members of one "parameters" object */

/* What a model takes and gives. Borrowed from the plan. */
struct infer_schema {
    const struct tensor_spec *inputs;
    uint32_t input_count; /* <= TENSOR_INPUTS_MAX */
    const struct tensor_spec *outputs;
    uint32_t output_count; /* <= TENSOR_OUTPUTS_MAX */
    bool batched;          /* all inputs must have the same first dimension */
};

struct infer_options {
    bool null_is_nan; /* null is a missing value of FP32 and FP64 */
};

/* One output to answer with. */
struct infer_wanted {
    uint32_t output;         /* index into schema->outputs */
    bool binary;             /* raw bytes behind the JSON */
    uint32_t classification; /* > 0: the top n as BYTES "value:index" */
    str parameters;          /* JSON text of the object, or STR_NULL */
};

struct infer_request {
    str id;         /* STR_NULL when absent; borrowed from the body or the arena */
    str parameters; /* JSON text of the object, or STR_NULL */
    int64_t rows;   /* the first dimension of the first input; 1 for a scalar */
    uint32_t wanted_count;
    bool any_binary; /* some wanted output is binary */
    struct infer_wanted wanted[TENSOR_OUTPUTS_MAX];
};

/*
 * Reads a request. `json` is the JSON part of the body; `raw` what follows it (STR_NULL when the
 * request has no Inference-Header-Content-Length). `inputs` has schema->input_count tensors in the
 * order of the schema, each with spec, data and cap_bytes set; the reader fills the rest. BYTES
 * elements and the id borrow from `json` and `raw`, or from the arena when they had escapes.
 *
 * Errors: INVALID_ARGUMENT names up to TENSOR_JSON_PROBLEMS_MAX wrong things, joined by "; ", each
 * with what was expected and what came (a tensor larger than its memory too); RESOURCE_EXHAUSTED
 * when the arena is full. After a failure the contents of the tensors are unspecified.
 */
NODISCARD int infer_request_read(str json, str raw, const struct infer_schema *schema,
                                 const struct infer_options *options, struct tensor *inputs,
                                 struct arena *a, struct infer_request *ret_request, struct err *e);

/* A request whose JSON part is empty (Inference-Header-Content-Length: 0): the body is the one
 * input's bytes, batch of one, all outputs binary. */
NODISCARD int infer_request_read_raw(str raw, const struct infer_schema *schema,
                                     struct tensor *input, struct infer_request *ret_request,
                                     struct err *e);

/* Looks up a member of a "parameters" text of a request read before. False when it is absent.
 * Values: the JSON text (a string with its quotes). */
bool infer_parameter_get(str parameters, str key, str *ret_json);
/* The same, demanding a type; false when absent or of another type. */
bool infer_parameter_bool(str parameters, str key, bool *ret_value);
bool infer_parameter_int(str parameters, str key, int64_t *ret_value);

/* --- The answer --------------------------------------------------------------------------- */

/* What is constant in the answers of one model version, made once when a plan is loaded. */
struct infer_response_plan {
    str head;                /* {"model_name":"m","model_version":"3" */
    const str *output_heads; /* {"name":"y","datatype":"FP32","shape":[ , one per output */
    uint32_t output_count;
};

/* Texts live in the arena (of the plan). `version` may be empty. */
void infer_response_plan_init(struct infer_response_plan *p, str model, str version,
                              const struct infer_schema *schema, struct arena *a);

enum infer_nonfinite {
    INFER_NONFINITE_NULL, /* NaN and infinities are written as null */
    INFER_NONFINITE_FAIL, /* ... or the answer fails, naming the output and element */
};

/*
 * Appends the answer to `to`: the JSON, then the raw tensors of binary outputs. `outputs` are in
 * the order of the schema. *ret_json_bytes is the length of the JSON part, for the header
 * Inference-Header-Content-Length, which is to be sent when request->any_binary.
 * `parameters` is JSON text of an object to include, or STR_NULL.
 * Errors: RESOURCE_EXHAUSTED when `to` is full; UNIMPLEMENTED for FP16 and BF16 that are not
 * binary; OUT_OF_RANGE for a non-finite number under INFER_NONFINITE_FAIL.
 */
NODISCARD int infer_response_write(struct buf *to, const struct infer_response_plan *p,
                                   const struct infer_request *request,
                                   const struct tensor *outputs, str parameters,
                                   enum infer_nonfinite nonfinite, size_t *ret_json_bytes,
                                   struct err *e);

/* {"error":"…","code":"NOT_FOUND"}: the body of every failed request, of this protocol (whose
 * clients read "error" alone) and of the others of the gateway. _begin leaves the object open for
 * more members. */
void infer_error_write(struct buf *to, const struct err *e);
void infer_error_begin(struct json_out *o, struct buf *to, const struct err *e);

/* The elements as a flat JSON array, for other writers. Half floats are widened to FP32. */
NODISCARD int tensor_json_write_data(struct buf *to, const struct tensor *t,
                                     enum infer_nonfinite nonfinite, struct err *e);
