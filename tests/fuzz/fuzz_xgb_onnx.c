/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an XGBoost model, JSON or binary: refused, or converted to an ONNX file that the
 * runtime's own walk accepts.
 */
#include "fuzz.h"

#include "registry/xgb_onnx.h"
#include "serve/runtime/priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a;
    AUTO(buf_done) struct buf to = {0};
    struct xgb_model_info info;
    struct err e;
    int rc;

    arena_init(&a, 8 << 20);
    buf_init(&to, 8 << 20);
    rc = xgb_onnx_convert((str){(const char *)data, size}, &a, &to, &info, &e);
    if (rc != 0 && rc != CODE_INVALID_ARGUMENT && rc != CODE_RESOURCE_EXHAUSTED)
        abort();
    if (rc == 0 && onnx_scan(buf_str(&to), &e))
        abort();
    return 0;
}
