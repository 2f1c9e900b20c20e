/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content codings of HTTP bodies, both ways. A request's body is unfolded within the limits of a
 * body and of a ratio, after the guard has said yes. An answer is folded when the client takes it
 * and it is large: below that the time it costs is worth more than the bytes it saves, and many
 * clients offer to take it without being asked.
 *
 * What was unfolded lives as long as the turn, so an exchange that goes to a crew copies it
 * (exchange_body).
 */
#include "serve/priv.h"

#define RATIO_MAX \
    200 /* past the first MiB; JSON of numbers folds to a third, zeros to a hundredth */
#define FOLD_MIN_BYTES ((size_t)16 << 10)

struct coder *loop_coder(struct serve_loop *l)
{
    if (!l->coder)
        l->coder = coder_new();
    return l->coder;
}

int body_unfold(struct conn *c, str *body, struct err *e)
{
    str name = http1_known(&c->req->fields, HTTP1_F_CONTENT_ENCODING);
    struct inflate_limits limits = {(size_t)gateway_config(c->l->gw)->body_bytes_max, RATIO_MAX};
    struct serve_loop *l = c->l;
    enum coding coding;

    if (!name.n)
        return 0;
    if (!coding_parse(name, &coding))
        return FAIL(e, INVALID_ARGUMENT,
                    "Content-Encoding '" STR_F "' is not one of gzip, deflate, identity",
                    STR_A(str_take(name, 32)));
    if (coding == CODING_IDENTITY)
        return 0;
    buf_clear(&l->unfolded);
    TRY(coder_decode(loop_coder(l), coding, *body, &limits, &l->unfolded, e));
    *body = arena_dup(&l->turn, buf_str(&l->unfolded));
    c->unfolded = true;
    return 0;
}

enum coding answer_coding(const struct conn *c)
{
    return coding_choose(http1_known(&c->req->fields, HTTP1_F_ACCEPT_ENCODING));
}

bool answer_fold(struct serve_loop *l, enum coding coding, str *body)
{
    struct err e;

    if (coding == CODING_IDENTITY || body->n < FOLD_MIN_BYTES)
        return false;
    buf_clear(&l->unfolded);
    if (coder_encode(loop_coder(l), coding, *body, &l->unfolded, &e) ||
        l->unfolded.n >= body->n) /* it goes as it is */
        return false;
    *body = buf_str(&l->unfolded);
    return true;
}
