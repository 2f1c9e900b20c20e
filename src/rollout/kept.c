/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evidence of a rollout's phase as a row that outlives control (record/kept.h), named by its
 * endpoint.
 *
 * A row fits the phase it was gathered in: the same rollout, state and step, and outputs that are
 * compared in the same cells. Entering a phase writes its first, empty row in the transaction of
 * the move, so that digests which the phase before has judged are never folded into this one, and a
 * guard's share of alpha is spent once.
 */
#include "rollout/priv.h"

#include "base/log.h"
#include "base/mem.h"
#include "record/kept_io.h"

#define KIND S("rollout")
#define LAYOUT 1 /* of the row: raise it when what is written, or what it means, changes */

/* --- Parts ------------------------------------------------------------------------------------ */

static void io_arm(const struct kept_io *io, struct arm *a)
{
    kept_count(io, &a->requests);
    kept_count(io, &a->failed);
    kept_count(io, &a->rows);
    kept_i64(io, &a->labels);
    kept_i64(io, &a->label_errors);
    kept_i64(io, &a->corrected);
    kept_latency(io, &a->latency);
}

static void io_eprocess(const struct kept_io *io, struct eprocess *p)
{
    for (int j = 0; j < GATE_GRID; j++)
        kept_real(io, &p->ln_wealth[j]);
    kept_real(io, &p->ln_peak);
}

static void io_twoarm(const struct kept_io *io, struct twoarm_gate *g)
{
    kept_count(io, &g->n_a);
    kept_count(io, &g->errors_a);
    kept_count(io, &g->n_b);
    kept_count(io, &g->errors_b);
    io_eprocess(io, &g->harm);
    io_eprocess(io, &g->non_inferior);
}

static void io_paired(const struct kept_io *io, struct paired_gate *g)
{
    kept_count(io, &g->n);
    kept_real(io, &g->sum);
    io_eprocess(io, &g->non_inferior);
    io_eprocess(io, &g->superior);
    io_eprocess(io, &g->harm);
}

static void io_outputs(const struct kept_io *io, const struct output_pairs *pairs,
                       struct evidence *ev)
{
    kept_same(io, pairs->count);
    for (uint32_t i = 0; i < pairs->count; i++) {
        kept_same(io, pairs->pair[i].cells);
        for (int arm = 0; arm < 2; arm++)
            for (uint32_t c = 0; c < pairs->pair[i].cells; c++)
                kept_count(io, &ev->outputs[i][arm][c]);
    }
    kept_count(io, &ev->output_look);
    kept_u32(io, &ev->output_looks, UINT32_MAX / 2);
    kept_bool(io, &ev->output_harm);
}

static void io_evidence(const struct kept_io *io, const struct output_pairs *pairs,
                        struct evidence *ev)
{
    io_arm(io, &ev->champion);
    io_arm(io, &ev->challenger);
    kept_i64(io, &ev->compared);
    kept_i64(io, &ev->agreed);
    for (int i = 0; i < 4; i++)
        kept_i64(io, &ev->outcome[i / 2][i % 2]);
    io_eprocess(io, &ev->error_rate);
    io_eprocess(io, &ev->slow);
    io_twoarm(io, &ev->error_ratio);
    io_twoarm(io, &ev->label_ratio);
    io_paired(io, &ev->paired);
    io_outputs(io, pairs, ev);
}

/* --- Writing ---------------------------------------------------------------------------------- */

void rollout_evidence_encode(const struct rollout *ro, const struct evidence *ev,
                             const struct digest_clock *clock, struct buf *out)
{
    AUTO(mem_freep) struct evidence *copy = mem_alloc(sizeof(*copy));
    const struct kept_io io = {.out = out};
    uint32_t layout = LAYOUT;
    bool told = ro->told_late_harm;

    *copy = *ev;
    kept_begin(out, KIND, clock, ro->seen);
    kept_u32(&io, &layout, UINT32_MAX);
    bytes_put_text(out, str_of(ro->id), sizeof(ro->id));
    kept_same(&io, (uint64_t)ro->state);
    kept_same(&io, ro->step);
    kept_bool(&io, &told);
    io_evidence(&io, &ro->outputs, copy);
    kept_end(out);
}

static NODISCARD int save(struct rollout *ro, const struct evidence *ev, struct meta *m,
                          struct err *e)
{
    AUTO(buf_done) struct buf row = {0};

    if (!ro->clock)
        return 0;
    buf_init(&row, KEPT_BYTES_MAX);
    rollout_evidence_encode(ro, ev, ro->clock, &row);
    return kept_put(m, KIND, ro->endpoint, &row, e);
}

int rollout_evidence_save(struct rollout *ro, struct meta *m, struct err *e)
{
    return save(ro, &ro->ev, m, e);
}

int rollout_evidence_begin(struct rollout *ro, struct meta *m, struct err *e)
{
    AUTO(mem_freep) struct evidence *none = mem_zalloc(sizeof(*none));

    evidence_reset(none, &ro->cfg);
    return save(ro, none, m, e);
}

int rollout_evidence_drop(const struct rollout *ro, struct meta *m, struct err *e)
{
    return ro->clock ? kept_drop(m, KIND, ro->endpoint, e) : 0;
}

/* --- Reading ---------------------------------------------------------------------------------- */

int rollout_evidence_decode(struct rollout *ro, str bytes, struct err *e)
{
    AUTO(mem_freep) struct evidence *ev = mem_zalloc(sizeof(*ev));
    struct digest_clock *seen = ARENA_NEW(&ro->arena, struct digest_clock);
    struct bytes_reader r;
    const struct kept_io io = {.in = &r};
    uint32_t layout = 0;
    bool told = false;
    str id;

    evidence_reset(ev, &ro->cfg);
    TRY(kept_open(bytes, KIND, &ro->arena, seen, &r, e));
    kept_u32(&io, &layout, UINT32_MAX);
    id = bytes_get_text(&r, sizeof(ro->id));
    if (r.bad || layout != LAYOUT || !str_eqz(id, ro->id))
        return FAIL(e, FAILED_PRECONDITION, "it is of another rollout, or of another layout");
    kept_same(&io, (uint64_t)ro->state);
    kept_same(&io, ro->step);
    if (r.bad)
        return FAIL(e, FAILED_PRECONDITION, "it was gathered in another phase");
    kept_bool(&io, &told);
    io_evidence(&io, &ro->outputs, ev);
    if (r.bad || r.p != r.end)
        return FAIL(e, DATA_LOSS, "its %zu bytes are malformed, or of other outputs", bytes.n);
    ro->ev = *ev;
    ro->told_late_harm = told;
    ro->seen = seen;
    return 0;
}

int rollout_evidence_restore(struct rollout *ro, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct err why;
    str bytes;

    arena_init(&a, 0);
    TRY(kept_get(m, KIND, ro->endpoint, &a, &bytes, e));
    if (!bytes.p)
        return 0;
    if (rollout_evidence_decode(ro, bytes, &why))
        log_event(LOG_WARN, "evidence.begun_anew", "rollout=%s endpoint=" STR_F " reason=\"%s\"",
                  ro->id, STR_A(ro->endpoint), why.msg);
    else
        log_event(LOG_INFO, "evidence.restored", "rollout=%s endpoint=" STR_F " requests=%llu",
                  ro->id, STR_A(ro->endpoint), (unsigned long long)ro->ev.challenger.requests);
    return 0;
}
