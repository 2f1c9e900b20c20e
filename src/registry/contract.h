/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "store/meta/meta.h"

/* What a change of the project from one normalised tree to another does not do: a line of text for
 * each model whose features change while versions of it are registered, which keep theirs. */
NODISCARD int registry_contract_notes(struct meta *m, const struct json *before,
                                      const struct json *after, struct arena *a,
                                      struct json **ret_list, struct err *e);
