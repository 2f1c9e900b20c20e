/* SPDX-License-Identifier: Apache-2.0 */
/* Notes as spans of OTLP: ExportTraceServiceRequest, protobuf. */
#pragma once

#include "base/buf.h"
#include "serve/telemetry/note.h"

/* What a request is made of. The ids of the parts follow from that of the whole, so that a loop has
 * to make only one, and who calls a remote server knows the id of its call. */
enum span_part { SPAN_QUEUE = 1, SPAN_COMPUTE, SPAN_CALL };
void span_part_id(const unsigned char whole[TRACE_SPAN_BYTES], enum span_part part,
                  unsigned char ret[TRACE_SPAN_BYTES]);

struct otlp_message {
    struct buf *to;
    size_t resource, scope; /* open messages */
};
void otlp_begin(struct otlp_message *m, struct buf *to, str service, str instance);
void otlp_add(struct otlp_message *m, const struct note *n); /* its spans */
void otlp_end(struct otlp_message *m);

/* Spans that a collector refused, by its answer (ExportTraceServiceResponse); 0 for any other. */
uint64_t otlp_rejected(str answer, str *ret_message);
