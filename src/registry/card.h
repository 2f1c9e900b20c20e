/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model card: what a version is for, what it was made from, how good it is, what it promises,
 * and who looks after it. It is never stored: everything in it is known elsewhere (the version, the
 * applied project, aliases, the profile) and put together when somebody asks, so it cannot be out
 * of date. What nobody said is listed in it under "missing".
 */
#pragma once

#include "base/buf.h"
#include "store/blobs/blobs.h"
#include "store/meta/meta.h"

/* {"format":1,"overview":{},"data":{},"performance":{},"contract":{},"maintenance":{},
 * "missing":["overview.owner",…]}. version as in registry_show. blobs: for the ranges of the
 * profile; NULL leaves them out. NOT_FOUND. Any thread. */
NODISCARD int registry_card(struct meta *m, struct blobs *blobs, str model, int64_t version,
                            struct arena *a, struct json **ret_card, struct err *e);

/* The card for people, as Markdown; `a` holds work. Texts in it are escaped. */
void registry_card_markdown(const struct json *card, struct arena *a, struct buf *out);
