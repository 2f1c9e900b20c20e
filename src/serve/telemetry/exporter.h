/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces by OTLP over HTTP, protobuf encoding (opentelemetry.io/docs/specs/otlp, version 1.9).
 *
 * The exporter belongs to one loop, which gives it notes and its time; a worker of its own sends.
 * One request is under way at a time. A collector that is busy (429, 502, 503, 504) or not there is
 * asked again with growing pauses, or when its Retry-After says; meanwhile the queue fills, and
 * what does not fit is dropped and counted. Other refusals drop the batch.
 */
#pragma once

#include "loop/thread.h"
#include "serve/telemetry/note.h"

#define EXPORTER_QUEUE_MAX 65536 /* requests */

struct exporter_config {
    const char *endpoint; /* complete, with its path */
    const char *headers;  /* complete lines for each request; or "" */
    const char *service, *instance;
    int64_t timeout_ns;  /* of one request */
    int64_t interval_ns; /* a batch that is not full waits so long */
    uint32_t queue;      /* requests that wait */
    uint32_t batch;      /* requests in one message */
};

struct exporter;

/* cfg's texts stay the caller's. */
NODISCARD int exporter_new(const struct exporter_config *cfg, struct loop *loop,
                           struct exporter **ret, struct err *e);
/* Tries once to send what is left, at most a second long. Accepts NULL. */
void exporter_free(struct exporter *x);
DEFINE_AUTO_PTR(struct exporter, exporter_free)

void exporter_add(struct exporter *x, const struct note *n);
void exporter_turn(struct exporter *x, int64_t now_ns); /* sends what is due */
void exporter_write_metrics(const struct exporter *x, struct buf *to);
