/* SPDX-License-Identifier: Apache-2.0 */
/* What a loop tells telemetry of its requests. Nothing here allocates but from the arena of the
 * request, and nothing waits. */
#pragma once

#include "serve/priv.h"
#include "serve/telemetry/telemetry.h"

/* What an exchange brought along, in its arena. */
struct tracked {
    struct trace_context trace;              /* has_trace; span_id: has_parent */
    unsigned char span_id[TRACE_SPAN_BYTES]; /* ours; exported */
    bool has_trace, has_parent, exported;
    enum note_protocol protocol;
    size_t bytes_in;
    str state, tenant, caller;
    struct runtime_trace run; /* has_trace: what a remote server is told */
};

/* After the fields of x are set. */
void observe_begin(struct serve_loop *l, struct exchange *x) RUNS_ON(on_loop);
/* The answer of x lies in l->body. */
void observe_exchange(struct serve_loop *l, const struct exchange *x, int rc, enum request_end end,
                      const struct tensor *inputs, const struct exchange_times *t) RUNS_ON(on_loop);
/* x, which has not run, gets the answer that its request had before. */
void observe_repeated(struct serve_loop *l, const struct exchange *x, const struct replay *r)
    RUNS_ON(on_loop);
/* The request at hand, to the endpoint of x, was refused before it ran. */
void observe_refused(struct conn *c, const struct exchange *x, enum request_end end, enum code code,
                     int status, uint64_t us) RUNS_ON(on_loop);
/* The request at hand, whatever it is to, is answered; nothing where it is told of already. */
void observe_answer(struct conn *c, int status, enum code code, size_t bytes_out) RUNS_ON(on_loop);
void observe_malformed(struct conn *c, int status) RUNS_ON(on_loop); /* there is no request */
