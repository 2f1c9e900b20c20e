/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML 1.2 documents (libfyaml) as the trees of base/json.h, with line and column at each node.
 *
 * Plain scalars follow the JSON schema of YAML 1.2 (true/false, null, decimal numbers; `yes` and
 * `no` are strings). One document; no duplicate keys; no tags. Anchors and aliases are expanded
 * within a limit (nodes <= 1,000,000), so that no document explodes.
 */
#pragma once

#include "base/json.h"

/* Errors: INVALID_ARGUMENT "file:line:col: what". `name` is the file name for messages. */
NODISCARD int yaml_parse(str text, const char *name, struct arena *a, struct json **ret_root,
                         struct err *e);
