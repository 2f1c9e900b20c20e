/* SPDX-License-Identifier: Apache-2.0 */
/* Between a table in memory and the raw columns of a pipeline. */
#pragma once

#include "registry/pipeline.h"

#define PIPELINE_SAMPLE_SEED 1

/* The columns of the document, those of them that the table has, and `more` (as texts). */
NODISCARD int rows_read(const struct json *document, const struct pipeline_source *source,
                        const str *more, size_t more_count, struct table *ret, struct err *e);
/* As a pipeline wants them, in the arena of the table; a column that is not there is missing. */
NODISCARD int rows_values(const struct json *document, struct table *t,
                          struct pipeline_values **ret, struct err *e);
