/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML 1.2 documents (libfyaml) as the trees of base/json.h, with line and column at each node.
 *
 * Plain scalars: true, false, null and their core-schema spellings (True, NULL, ~), decimal numbers
 * in the grammar of JSON; all else is a string, also yes, no, 007, 0x1F and .5. One document; no
 * duplicate keys; keys are strings; no tags, no merge keys; at most JSON_DEPTH_MAX levels. Aliases
 * are expanded within limits (1,000,000 nodes, 1,000 anchors), so that no document explodes.
 */
#pragma once

#include "base/json.h"

/* Errors: INVALID_ARGUMENT "file:line:col: what". `name` is the file name for messages. */
NODISCARD int yaml_parse(str text, const char *name, struct arena *a, struct json **ret_root,
                         struct err *e);
