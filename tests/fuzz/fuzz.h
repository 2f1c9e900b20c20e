/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fuzz target defines, and all that it may rely on: bytes of any content and length. It
 * returns 0, and must neither crash, leak nor keep state from one call to the next.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
