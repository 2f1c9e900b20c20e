/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an ONNX file: the walk ends, within the bytes, with a verdict. */
#include "fuzz.h"

#include "serve/runtime/priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e;
    int rc = onnx_scan((str){(const char *)data, size}, &e);

    if (rc != 0 && rc != CODE_INVALID_ARGUMENT)
        abort();
    return 0;
}
