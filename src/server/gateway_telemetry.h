/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/json.h"
#include "serve/telemetry/telemetry.h"

/* The telemetry of the gateway from the plan's "gateway" object. Texts lie in the arena.
 * INVALID_ARGUMENT, OUT_OF_RANGE, FAILED_PRECONDITION name the setting. Main thread, before any
 * other: it reads the environment. */
NODISCARD int gateway_telemetry_read(const struct json *gateway, const char *project_dir,
                                     const char *instance, struct arena *a,
                                     struct telemetry_config *ret, struct err *e);
