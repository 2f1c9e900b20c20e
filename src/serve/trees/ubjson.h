/* SPDX-License-Identifier: Apache-2.0 */
/* Universal Binary JSON (draft 12), the binary form of XGBoost's models, into the tree that JSON
 * gives. */
#pragma once

#include "base/json.h"

/* Strings are copied. INVALID_ARGUMENT "byte N: ..."; nesting up to JSON_DEPTH_MAX;
 * RESOURCE_EXHAUSTED when the arena is full. */
NODISCARD int ubjson_parse(str bytes, struct arena *a, struct json **ret_root, struct err *e);
