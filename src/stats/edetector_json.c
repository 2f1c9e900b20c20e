/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fitted bank as JSON and as text. The fit happens once, where the raw training data is; what
 * travels with a model version is this: the templates, their bounds, and ln L by cell and template.
 * Floats survive the way through JSON bit by bit. The factors themselves are computed again when
 * read, rounded down as at the fit.
 *
 * Reading checks shapes and ranges, but cannot check that the factors have a mean of at most one:
 * a profile is trusted as the model it belongs to is, by its hash.
 */
#include "stats/edetector.h"

#include <assert.h>
#include <math.h>

#define LN_L_MAX 80.0 /* far above ln(1 / smallest ratio) that any reference can give */

static const struct {
    const char *text, *help;
} kinds[] = {
#define EDETECTOR_KIND(name, text, help) [EDETECTOR_##name] = {text, help},
#include "stats/edetector.def"
#undef EDETECTOR_KIND
};
static_assert(ARRAY_LEN(kinds) == EDETECTOR_KIND_COUNT, "one text per kind");

const char *edetector_kind_name(enum edetector_kind kind)
{
    return kinds[kind].text;
}

str edetector_template_text(struct arena *a, const struct edetector_template *t)
{
    switch (t->kind) {
#define EDETECTOR_KIND(name, text, help) \
    case EDETECTOR_##name:               \
        return arena_printf(a, help, t->size);
#include "stats/edetector.def"
#undef EDETECTOR_KIND
    case EDETECTOR_KIND_COUNT:
        break;
    }
    return STR_NULL;
}

struct json *edetector_bank_to_json(const struct edetector_bank *b, struct arena *a)
{
    struct json *o = json_new_object(a), *list = json_new_array(a);

    json_set_int(a, o, S("cells"), b->cells);
    json_set_int(a, o, S("rows"), (int64_t)b->ref_n);
    json_set_real(a, o, S("tol_sd"), b->tol_sd);
    json_set_real(a, o, S("tol_rate"), b->tol_rate);
    json_set_real(a, o, S("tol_tv"), b->tol_tv);
    json_set_real(a, o, S("delta"), b->delta);
    for (uint32_t j = 0; j < b->templates; j++) {
        struct json *t = json_push(list, json_new_object(a)), *ln_l = json_new_array(a);

        json_set_str(a, t, S("kind"), str_of(kinds[b->template[j].kind].text));
        json_set_real(a, t, S("size"), b->template[j].size);
        json_set_real(a, t, S("c"), b->template[j].c);
        for (uint32_t c = 0; c < b->cells; c++)
            json_push(ln_l, json_new_real(a, (double)b->ln_l[c][j]));
        json_set(t, S("ln_l"), ln_l);
    }
    json_set(o, S("templates"), list);
    return o;
}

static int read_template(const struct json *node, struct edetector_bank *b, uint32_t j,
                         struct err *e)
{
    struct edetector_template *t = &b->template[j];
    struct json *ln_l;
    uint32_t k = 0, c = 0;
    str kind;

    TRY(json_need_str(node, S("kind"), &kind, e));
    while (k < EDETECTOR_KIND_COUNT && !str_eqz(kind, kinds[k].text))
        k++;
    if (k == EDETECTOR_KIND_COUNT)
        return FAIL(e, INVALID_ARGUMENT, "template %u is of an unknown kind '" STR_F "'", j,
                    STR_A(kind));
    t->kind = (enum edetector_kind)k;
    TRY(json_need_real(node, S("size"), &t->size, e));
    TRY(json_need_real(node, S("c"), &t->c, e));
    TRY(json_need_array(node, S("ln_l"), &ln_l, e));
    if (ln_l->count != b->cells)
        return FAIL(e, INVALID_ARGUMENT, "template %u has %zu factors, one per cell (%u) is needed",
                    j, ln_l->count, b->cells);
    JSON_EACH (v, ln_l) {
        double x = json_real_or(v, NAN);
        float l;

        if (!(fabs(x) <= LN_L_MAX))
            return FAIL(e, INVALID_ARGUMENT, "template %u: factor %u is out of range", j, c);
        b->ln_l[c][j] = (float)x;
        l = (float)exp((double)b->ln_l[c][j]);
        b->l[c][j] = (double)l > exp((double)b->ln_l[c][j]) ? nextafterf(l, 0.0f) : l;
        c++;
    }
    return 0;
}

int edetector_bank_from_json(const struct json *node, struct edetector_bank *ret_bank,
                             struct err *e)
{
    struct edetector_bank b = {0};
    struct json *list;
    int64_t cells, rows;

    TRY(json_need_int(node, S("cells"), &cells, e));
    TRY(json_need_int(node, S("rows"), &rows, e));
    TRY(json_need_real(node, S("tol_sd"), &b.tol_sd, e));
    TRY(json_need_real(node, S("tol_rate"), &b.tol_rate, e));
    TRY(json_need_real(node, S("tol_tv"), &b.tol_tv, e));
    TRY(json_need_real(node, S("delta"), &b.delta, e));
    TRY(json_need_array(node, S("templates"), &list, e));
    if (cells < 3 || cells > CELLS_MAX || rows < 0)
        return FAIL(e, INVALID_ARGUMENT, "a detector has 3 to %d cells and a count of rows",
                    CELLS_MAX);
    if (list->count < 1 || list->count > EDETECTOR_TEMPLATES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "a detector has 1 to %d templates, not %zu",
                    EDETECTOR_TEMPLATES_MAX, list->count);
    b.cells = (uint32_t)cells;
    b.ref_n = (uint64_t)rows;
    JSON_EACH (t, list) {
        TRY(read_template(t, &b, b.templates, e));
        b.templates++;
    }
    *ret_bank = b;
    return 0;
}
