/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a row of kept evidence, with the checksum put right: refused, or a monitor or a
 * rollout that can be judged, reported and written again.
 *
 * The first byte chooses the kind (1) and how the rest is meant (2): as the row itself, or as edits
 * (offset, 16 bits; new byte) of a good row, which reach behind what a random row never passes.
 */
#include "fuzz.h"

#include "base/mem.h"
#include "rollout/priv.h"
#include "watch/priv.h"

#include <stdlib.h>

#define COLUMNS 3
#define REF 400

static struct cells_spec spec;
static struct edetector_bank bank;
static const struct digest_clock no_clock;

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void fit(void)
{
    double values[REF];

    if (bank.templates)
        return;
    for (int i = 0; i < REF; i++)
        values[i] = (i * 37) % 100;
    require(cells_spec_fit_numeric(values, REF, 0, &spec, NULL) == 0);
    require(edetector_bank_fit(&spec, values, REF, &(struct edetector_config){0}, &bank, NULL) ==
            0);
}

static struct monitor *monitor_make(void)
{
    const struct edetector_bank *banks[COLUMNS] = {NULL};
    const struct window_rule rule = {
        .length_ns = 1, .rows_min = 1, .sustain = 3, .bands = DRIFT_BANDS_PSI};
    struct monitor *mo = mem_zalloc(sizeof(*mo));

    fit();
    arena_init(&mo->arena, 0);
    mo->cfg = (struct monitor_config){
        .name = S("m"), .endpoint = S("e"), .model = S("x"), .text = S("{}"), .rows = 1000};
    mo->cfg.bands = DRIFT_BANDS_PSI;
    mo->version = S("1");
    mo->columns = ARENA_ARRAY(&mo->arena, struct watch_column, COLUMNS);
    mo->column_count = COLUMNS;
    for (int i = 0; i < COLUMNS; i++) {
        mo->columns[i].name = S("c");
        mo->columns[i].has_spec = true;
        mo->columns[i].has_bank = i > 0;
        mo->columns[i].spec = spec;
        mo->columns[i].bank = bank;
        banks[i] = i > 0 ? &mo->columns[i].bank : NULL;
        require(window_init(&mo->columns[i].window, &rule, NULL) == 0);
    }
    mo->detecting = true;
    require(edetector_endpoint_init(&mo->detect, &mo->arena, banks, NULL, COLUMNS, 1000, NULL) ==
            0);
    mo->label_reference = true;
    require(betting_init(&mo->labels, 0.1, 1000, NULL) == 0);
    return mo;
}

static void monitor_use(str row)
{
    AUTO(monitor_freep) struct monitor *mo = monitor_make(), *again = monitor_make();
    AUTO(buf_done) struct buf bytes = {0};
    struct drift_suspect list[SUSPECTS_MAX];
    struct err e;

    buf_init(&bytes, KEPT_BYTES_MAX);
    if (monitor_decode(mo, row, &e))
        return;
    monitor_rank(mo, list);
    (void)monitor_rate_lately(mo, 1);
    (void)betting_evidence(&mo->labels);
    monitor_encode(mo, &no_clock, false, &bytes);
    require(monitor_decode(again, buf_str(&bytes), &e) == 0);
    require(again->rows == mo->rows && again->detect.rows == mo->detect.rows);
}

static struct rollout *rollout_make(void)
{
    struct rollout *ro = mem_zalloc(sizeof(*ro));

    arena_init(&ro->arena, 0);
    memcpy(ro->id, "id", 3);
    ro->endpoint = S("e");
    ro->cfg = (struct rollout_config){.error_rate = 0.01,
                                      .error_ratio = 2,
                                      .p99_ns = 1e8,
                                      .p99_ratio = 2,
                                      .output_shift = 0.2,
                                      .label_error = 0.01,
                                      .shadow_agreement = 0.9,
                                      .alpha = 0.05};
    ro->outputs.count = 1;
    ro->outputs.pair[0].cells = 5;
    evidence_reset(&ro->ev, &ro->cfg);
    return ro;
}

static void rollout_use(str row)
{
    AUTO(rollout_freep) struct rollout *ro = rollout_make(), *again = rollout_make();
    const struct evidence_scope sc = rollout_scope(ro);
    AUTO(buf_done) struct buf bytes = {0};
    struct err e;

    buf_init(&bytes, KEPT_BYTES_MAX);
    if (rollout_evidence_decode(ro, row, &e))
        return;
    evidence_judge(&ro->ev, &sc, 10, &ro->last);
    rollout_evidence_encode(ro, &ro->ev, &no_clock, &bytes);
    require(rollout_evidence_decode(again, buf_str(&bytes), &e) == 0);
    require(memcmp(&again->ev.outputs, &ro->ev.outputs, sizeof(ro->ev.outputs)) == 0);
}

static void good_row(bool rollout, struct buf *out)
{
    AUTO(monitor_freep) struct monitor *mo = rollout ? NULL : monitor_make();
    AUTO(rollout_freep) struct rollout *ro = rollout ? rollout_make() : NULL;
    struct digest d = {.run = 1, .sequence = 5};
    struct digest_clock clock = {0};

    digest_clock_note(&clock, &d);
    if (ro) {
        rollout_evidence_encode(ro, &ro->ev, &clock, out);
        return;
    }
    for (int i = 0; i < COLUMNS; i++)
        for (int k = 0; k < 100; k++)
            cells_fold_f64(&spec, &mo->columns[i].blocks[k % BLOCKS_KEPT], k);
    mo->rows = 100;
    monitor_encode(mo, &clock, false, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(buf_done) struct buf row = {0};
    bool rollout, edits;

    if (!size)
        return 0;
    rollout = data[0] & 1, edits = data[0] & 2;
    buf_init(&row, KEPT_BYTES_MAX);
    if (edits) {
        good_row(rollout, &row);
        for (size_t i = 1; i + 2 < size; i += 3)
            row.p[(size_t)(data[i] | data[i + 1] << 8) % row.n] = (char)data[i + 2];
    } else {
        buf_add(&row, data + 1, size - 1);
    }
    if (row.n >= 8) {
        memcpy(row.p, "WEK1", 4);
        kept_end(&row);
    }
    if (rollout)
        rollout_use(buf_str(&row));
    else
        monitor_use(buf_str(&row));
    return 0;
}
