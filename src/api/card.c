/* SPDX-License-Identifier: Apache-2.0 */
/* /api/v1/models/{m}/versions/{v}/card: the model card, put together at the moment. */
#include "api/priv.h"

#include "journal/alias.h"
#include "registry/card.h"

int api_version_card(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *card;
    int64_t version;

    if (!str_to_i64(rq->param[1], &version)) {
        TRY(alias_get(api->ctx.meta, rq->param[0], rq->param[1], &version, e));
        if (!version)
            return FAIL(e, NOT_FOUND, "model '" STR_F "' has no alias '" STR_F "'",
                        STR_A(rq->param[0]), STR_A(rq->param[1]));
    }
    TRY(api_need_version(api->ctx.meta, rq->param[0], version, e));
    TRY(registry_card(api->ctx.meta, api->ctx.blobs, rq->param[0], version, rq->a, &card, e));
    jo_node(rq->out, card);
    return 0;
}
