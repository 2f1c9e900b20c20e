/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any JSON as the cells and the detector of a column: what is accepted keeps the invariants that
 * counting and walking rely on, and reads back as itself.
 */
#include "fuzz.h"

#include "stats/distance.h"
#include "stats/edetector.h"

#include <math.h>
#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_cells(const struct cells_spec *s, struct arena *a)
{
    static const double xs[] = {0, -0.0, 1, -1e300, 1e300, 5e-324, INFINITY, -INFINITY, NAN};
    struct cells_spec back;
    struct cells c = {0};
    struct distance d;

    require(s->bins >= 1 && s->bins <= CELLS_BINS_MAX);
    for (size_t i = 0; i < ARRAY_LEN(xs); i++)
        require(cells_bin_f64(s, xs[i]) < cells_count(s));
    for (uint32_t b = 0; b < s->bins; b++)
        require(s->kind == CELLS_NUMERIC || cells_bin_hash(s, s->keys[b]) == b);
    cells_fold_array(s, &c, xs, ARRAY_LEN(xs));
    require(cells_total(&c) == ARRAY_LEN(xs));
    distance_of(s, &c, &d);
    require(cells_spec_from_json(cells_spec_to_json(s, a), &back, NULL) == 0);
    require(cells_spec_equal(s, &back));
}

static void check_bank(const struct edetector_bank *b, struct arena *a)
{
    struct edetector_bank back;
    struct edetector d = {0};
    uint64_t counts[CELLS_MAX] = {0}, ago;

    for (uint32_t c = 0; c < b->cells; c++) {
        edetector_row(b, &d, c);
        counts[c] = 1000;
        edetector_block(b, &d, counts);
    }
    require(isfinite(edetector_evidence(b, &d)));
    require(edetector_leader(b, &d, &ago) < b->templates && ago <= d.rows);
    for (uint32_t j = 0; j < b->templates; j++)
        require(edetector_template_text(a, &b->template[j]).n > 0);
    require(edetector_bank_from_json(edetector_bank_to_json(b, a), &back, NULL) == 0);
    require(memcmp(back.l, b->l, sizeof(b->l)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(arena_done) struct arena a;
    struct cells_spec spec;
    struct edetector_bank bank;
    struct json *root;

    arena_init(&a, 0);
    if (json_parse((str){(const char *)data, size}, &a, &root, NULL))
        return 0;
    if (cells_spec_from_json(json_get(root, S("cells")), &spec, NULL) == 0)
        check_cells(&spec, &a);
    if (edetector_bank_from_json(json_get(root, S("detector")), &bank, NULL) == 0)
        check_bank(&bank, &a);
    return 0;
}
