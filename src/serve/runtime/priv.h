/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of serve/runtime/ share. */
#pragma once

#include "serve/runtime/runtime.h"

extern const struct runtime_engine runtime_ort, runtime_trees, runtime_identity, runtime_process,
    runtime_remote, runtime_pipeline;

/* Walks an ONNX file and refuses what reaches outside of it: tensors with external data, wherever
 * they hide (initializers, sparse ones, attributes, subgraphs, functions), and what is no ONNX
 * file at all. INVALID_ARGUMENT. */
NODISCARD int onnx_scan(str bytes, struct err *e);
