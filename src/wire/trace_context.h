/* SPDX-License-Identifier: Apache-2.0 */
/*
 * W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/): the fields traceparent and
 * tracestate of a request, over any HTTP and as gRPC metadata.
 *
 * Strict: what is not exactly a traceparent is none, a second one makes both none, and then the
 * tracestate is none either; a tracestate that is not valid is dropped alone. Of a later version
 * the part that this one knows is read. Nothing is allocated.
 */
#pragma once

#include "wire/http1.h"

#define TRACE_ID_BYTES 16
#define TRACE_SPAN_BYTES 8
#define TRACE_PARENT_TEXT 55      /* "00-…-…-01" */
#define TRACE_STATE_BYTES_MAX 512 /* kept of a tracestate: whole members, long ones go first */
#define TRACE_STATE_MEMBERS_MAX 32
#define TRACE_SAMPLED 1u

struct trace_context {
    unsigned char trace_id[TRACE_ID_BYTES];  /* never all zero once read */
    unsigned char span_id[TRACE_SPAN_BYTES]; /* of who sends it: the parent of what receives it */
    uint8_t flags;                           /* TRACE_SAMPLED or 0 */
};

/* One value of traceparent. */
NODISCARD bool trace_parent_read(str text, struct trace_context *ret);
void trace_parent_write(const struct trace_context *t, char ret_text[TRACE_PARENT_TEXT]);

/* One member of a tracestate, without the blanks around it. */
bool trace_state_member_is_valid(str member);

/* Of the fields of a request; false: there is none. *ret_state_bytes of ret_state are the
 * tracestate in one piece, to be passed on. */
NODISCARD bool trace_context_read(const struct http1_fields *f, struct trace_context *ret,
                                  char ret_state[TRACE_STATE_BYTES_MAX], size_t *ret_state_bytes);
/* Complete header lines, to be sent with a call. `state` may be empty. */
void trace_context_write(struct buf *lines, const struct trace_context *t, str state);
