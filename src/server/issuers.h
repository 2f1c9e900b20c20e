/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the key sets of token issuers fresh: fetches each jwks_url of the project when it is due,
 * on a worker, and hands what came to access/jwks.h, whose facts make a new plan.
 */
#pragma once

#include "base/json.h"
#include "loop/thread.h"
#include "store/meta/meta.h"

struct issuers;

/* `loop` is the control loop, on which results arrive; *project is the applied tree, or NULL, at
 * any time. */
NODISCARD int issuers_new(struct loop *loop, struct meta *m, struct json *const *project,
                          struct issuers **ret_issuers, struct err *e);
void issuers_free(struct issuers *is); /* waits for a fetch under way; accepts NULL */
DEFINE_AUTO_PTR(struct issuers, issuers_free)
/* Starts what is due. Every second or so. */
void issuers_tick(struct issuers *is, int64_t mono_ns);
