/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an endpoint answers when a version fails, and for how long it keeps answers: the parts
 * "fallback" and "idempotency" of an endpoint part.
 *
 *   "fallback":{"versions":[1,5],"answer":{"label":[0],"probabilities":[0.98,0.02]},
 *               "share":0.5,"shed":false}
 *   "idempotency":{"window_ns":600000000000,"bytes_max":67108864,"entries_max":10000}
 *
 * A static answer is written by people in the words of their project (prediction, score) or by
 * output tensor; a plan holds it by tensor alone, one row of each, checked against the signature by
 * the same code in control and in the gateway.
 */
#pragma once

#include "plan/plan.h"

/* From {"prediction":…,"score":…} and values by tensor name to one row of every output, by name.
 * INVALID_ARGUMENT names the member and what it should be; FAILED_PRECONDITION for a model whose
 * answers are not rows. */
NODISCARD int plan_answer_resolve(const struct json *wish, const struct plan_signature *sig,
                                  struct arena *a, struct json **ret_answer, struct err *e);
/* Both accept NULL: there is none. ep->versions and ep->signature are read already. */
NODISCARD int plan_fallback_read(const struct json *part, struct arena *a, struct plan_endpoint *ep,
                                 struct err *e);
NODISCARD int plan_idempotency_read(const struct json *part, struct plan_idempotency *ret,
                                    struct err *e);
