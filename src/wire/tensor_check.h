/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an infer request must agree with, whatever the form it comes in: names, datatypes and shapes
 * of the model's inputs, the memory of its tensors, the outputs it has; and, on the client's side,
 * what an answer must agree with. The readers of JSON and protobuf share it, so that all are told
 * the same. Private to wire/.
 */
#pragma once

#include "wire/tensor_data.h"
#include "wire/tensor_json.h"

#define NAME_SHOWN 64 /* bytes of a client's name in a message */
#define SHOWN(s) STR_A(str_take((s), NAME_SHOWN))

struct tensor_check {
    const struct infer_schema *schema;
    struct tensor *inputs;
    struct infer_request *request;
    struct problems problems;
    uint32_t inputs_seen; /* to be counted by the reader: where the next is looked for first */
    uint32_t outputs_seen;
    const char *raw_name; /* what the client calls the size of raw bytes */
};

/* What a request says of one input. */
struct tensor_claim {
    str name, datatype;
    bool shape_is_long; /* more than TENSOR_RANK_MAX dimensions */
    uint32_t rank;
    int64_t shape[TENSOR_RANK_MAX];
};

/* The request is emptied, no tensor is present. */
void tensor_check_begin(struct tensor_check *c, const struct infer_schema *schema,
                        struct tensor *inputs, struct infer_request *request);
/* INVALID_ARGUMENT when one more is too many: small messages must not cost much. */
NODISCARD int tensor_check_count(uint32_t seen, uint32_t max, const char *what, struct err *e);
/* Holds an input against the signature. The tensor to fill, its shape set; or NULL, and a problem
 * is noted. */
struct tensor *tensor_check_input(struct tensor_check *c, const struct tensor_claim *claim);
/* Fills a tensor from raw bytes; wrong sizes and values become problems. */
void tensor_check_raw(struct tensor_check *c, str bytes, struct tensor *t);
/* Adds an output that the client asks for, or notes why not. */
void tensor_check_wanted(struct tensor_check *c, str name, str parameters);
/* All was read: what is missing, rows that do not agree, the outputs when none were named.
 * INVALID_ARGUMENT with all problems. */
NODISCARD int tensor_check_end(struct tensor_check *c, struct err *e);

/* An answer: every output that was asked for once, nothing else. */
void tensor_check_outputs_begin(struct tensor *outputs, uint32_t count);
/* Finds the output and gives it the claimed shape. INVALID_ARGUMENT: not asked for, there already,
 * another datatype, a shape that does not fit. */
NODISCARD int tensor_check_output(struct tensor *outputs, uint32_t count,
                                  const struct tensor_claim *claim, struct tensor **ret_output,
                                  struct err *e);
/* INVALID_ARGUMENT names one that is missing. */
NODISCARD int tensor_check_outputs_end(const struct tensor *outputs, uint32_t count, struct err *e);
