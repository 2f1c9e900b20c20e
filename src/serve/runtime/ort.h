/* SPDX-License-Identifier: Apache-2.0 */
/* ONNX Runtime as the files of its engine see it. Only they include the foreign header. */
#pragma once

#include "serve/runtime/priv.h"

#include <onnxruntime_c_api.h>

/* Opens the library on first use, once for the process; UNAVAILABLE with the places looked at. */
NODISCARD int ort_library_open(const OrtApi **ret_api, OrtEnv **ret_env, struct err *e);

/* Turns a status (NULL is success) into an error that begins with `doing`, and releases it. */
NODISCARD int ort_check(const OrtApi *api, OrtStatus *status, const char *doing, struct err *e);

#define ORT_TRY(api, call, doing) TRY(ort_check((api), (call), (doing), e))

ONNXTensorElementDataType ort_type_of(enum tensor_type type);

/* runtime_model.state */
struct ort_model {
    const OrtApi *api;        /* of the library: lives as long as the process */
    OrtSession *session;      /* owned */
    OrtMemoryInfo *memory;    /* owned: plain CPU memory */
    OrtAllocator *allocator;  /* borrowed: the library's default */
    const char **input_names; /* of the model's arena */
    const char **output_names;
};

NODISCARD int ort_slot_init(struct runtime_slot *s, struct err *e);
void ort_slot_done(struct runtime_slot *s);
NODISCARD int ort_slot_run(struct runtime_slot *s, struct err *e);
void ort_slot_cancel(struct runtime_slot *s);
