/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data plane's view of a profile part: the cells into which the values of each column fall.
 * What the counts mean is control's business (watch/).
 */
#pragma once

#include "plan/plan.h"
#include "record/schema.h"

/*
 * Reads the profile `hash` and gives a spec for each of the n columns (features, then outputs),
 * NULL where the profile knows none of that name. All in the arena. Worker thread.
 */
NODISCARD int profile_cells_load(struct blobs *blobs, str hash, const struct record_column *columns,
                                 uint32_t n, struct arena *a,
                                 const struct cells_spec *const **ret_specs, struct err *e);
