/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of a JSON answer, in the scratch buffer of the loop. */
#include "serve/priv.h"

void answer_object(struct conn *c, struct json_out *ret_object)
{
    jo_begin(ret_object, answer_begin(c));
    jo_object(ret_object);
}

void answer_object_end(struct conn *c, struct json_out *o, int status, const char *content_type)
{
    jo_object_end(o);
    conn_answer(c, status, content_type, buf_str(o->to));
}
