/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence across restarts of control: read at the start, written every SAVE_EVERY_NS while there
 * is something new, and at the end. record/kept.h has the promise.
 *
 * One transaction holds all that digests have changed since the last: rows of monitors and
 * rollouts, the totals of labels, and the clock that says which digests these are. Only then are
 * the gateways told that they may forget them. A digest that comes again is known by the clock:
 * c->clock for what is in memory, the clock of a row for what was restored from it.
 *
 * A save may cost 1 part in SAVE_SHARE of this thread's time: where rows are large it waits longer,
 * and gateways keep their digests longer.
 */
#include "base/log.h"
#include "base/time.h"
#include "server/control.h"

#define SAVE_EVERY_NS (2 * NS_PER_S)
#define SAVE_SHARE 50

#define KIND S("clock")
#define NAME S("control")

static NODISCARD int load_clock(struct control *c, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct bytes_reader ignored;
    struct err why;
    str bytes;

    arena_init(&a, 0);
    TRY(kept_get(c->meta, KIND, NAME, &a, &bytes, e));
    if (bytes.p && kept_open(bytes, KIND, &a, &c->clock, &ignored, &why)) {
        c->clock = (struct digest_clock){0};
        log_err("evidence.clock", &why);
    }
    return 0;
}

int control_evidence_load(struct control *c, struct err *e)
{
    TRY(load_clock(c, e));
    TRY(rollouts_keep(c->rollouts, c->meta, &c->clock, e));
    watch_keep(c->watch, &c->clock);
    return 0;
}

bool control_evidence_note(struct control *c, const struct digest *d)
{
    if (!digest_clock_is_new(&c->clock, d))
        return false;
    digest_clock_note(&c->clock, d);
    c->evidence_new |= d->series_count > 0;
    return true;
}

static NODISCARD int save_clock(struct control *c, struct err *e)
{
    AUTO(buf_done) struct buf row = {0};

    buf_init(&row, KEPT_BYTES_MAX);
    kept_begin(&row, KIND, &c->clock, NULL);
    kept_end(&row);
    return kept_put(c->meta, KIND, NAME, &row, e);
}

static NODISCARD int save(struct control *c, struct err *e)
{
    AUTO(meta_tx_done) struct meta_tx tx = {0};

    TRY(meta_begin(c->meta, &tx, e));
    TRY(tally_save(&c->tally, c->meta, e));
    TRY(watch_save(c->watch, c->meta, e));
    TRY(rollouts_save(c->rollouts, c->meta, e));
    TRY(save_clock(c, e));
    TRY(meta_commit(&tx, e));
    tally_saved(&c->tally);
    watch_saved(c->watch);
    rollouts_saved(c->rollouts);
    return 0;
}

/* A disk that stays full is said once, and once that it is well again. */
static void tell(struct control *c, int rc, const struct err *e)
{
    if (rc && !c->evidence_failing)
        log_err("evidence.not_saved", e);
    if (!rc && c->evidence_failing)
        log_event(LOG_INFO, "evidence.saved", "again=true");
    c->evidence_failing = rc != 0;
}

void control_evidence_save(struct control *c, bool now)
{
    int64_t start = time_mono_ns();
    struct err e;
    int rc = 0;

    if (!now && start < c->evidence_due_ns)
        return;
    if (c->evidence_new || now) {
        rc = save(c, &e);
        tell(c, rc, &e);
        c->evidence_new &= rc != 0;
    }
    if (!rc)
        gateways_kept(&c->gateways, &c->clock);
    c->evidence_due_ns = start + MAX(SAVE_EVERY_NS, SAVE_SHARE * (time_mono_ns() - start));
}
