/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How what a user gives becomes the artifact of a model that lives elsewhere: one file with one
 * content address, complete with the inputs and outputs. Runs in the probe child, for it starts the
 * program, or calls the server.
 */
#pragma once

#include "base/json.h"
#include "serve/runtime/runtime.h"

#define ADOPT_MANIFEST "model.yaml" /* in the folder of a process model */

/* The folder of a process model (with ADOPT_MANIFEST) becomes a pack at `path`. The program is
 * started once; when the manifest has no inputs and outputs, those that it declares are written
 * down. INVALID_ARGUMENT, FAILED_PRECONDITION. *ret_info: {"command","instances","network"}. */
NODISCARD int adopt_folder(const char *folder, const char *path,
                           const struct runtime_options *options, struct arena *a,
                           struct json **ret_info, struct err *e);
/* The description of a remote model (YAML or JSON) becomes canonical JSON at `path`. The server is
 * asked. *ret_info: {"url","model","binary"}. */
NODISCARD int adopt_remote(const char *file, const char *path, struct arena *a,
                           struct json **ret_info, struct err *e);
