/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A story on a terminal: one line a fact, with its time, a bar that shows where in the story the
 * time before it went, and beneath it what a person would ask next (which features, which gates,
 * how much traffic). Pure: from the answer of GET /api/v1/timeline to text.
 */
#pragma once

#include "base/json.h"

struct story_view {
    bool color;
    int columns; /* of the terminal; at least 60 are used */
};
void story_view_write(const struct story_view *v, const struct json *story, struct arena *a,
                      struct buf *out);
