/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Injections: from a stated instant on, the values of some columns change, the true labels do not.
 *
 *   at=30s,until=60s,column=V1+V9,op=mimic,where=label==1,share=0.5
 *
 * ops.def has the operations, attacks.def named beginnings of specs. All randomness comes from the
 * seed of the run, so that a run can be repeated byte for byte.
 */
#pragma once

#include "load/rows.h"

#include "base/buf.h"
#include "base/random.h"

#define LOAD_INJECTIONS_MAX 16
#define LOAD_INJECT_COLUMNS_MAX 64

enum load_op {
#define OP(name, text, value, columns, help) LOAD_OP_##name,
#include "load/ops.def"
#undef OP
    LOAD_OP_COUNT
};

struct load_injection {
    str spec;                /* as given; names the phase when there is no attack */
    str attack;              /* the name of the attack, or empty */
    int64_t at_ns, until_ns; /* from the start of the run; INT64_MAX: to the end */
    enum load_op op;
    str columns[LOAD_INJECT_COLUMNS_MAX];
    size_t column_count;
    str value_text; /* p == NULL: none */
    double value;   /* NaN when the text is no number */
    str where;      /* rows of this label; p == NULL: all */
    bool where_not; /* rows of every other label */
    double share;   /* of those rows, chosen at random */
};

/* Reads a spec; the texts are borrowed from it. INVALID_ARGUMENT names the key and what it takes.
 */
NODISCARD int load_inject_parse(str spec, struct load_injection *ret, struct err *e);
/* "evasion,at=20s,column=V1+V9": an attack and further keys. `positive` is the positive class; the
 * texts are in the arena. */
NODISCARD int load_attack_parse(str text, str positive, struct arena *a, struct load_injection *ret,
                                struct err *e);
/* Columns exist, are numbers where they must be, and labels are there when `where` asks for them.
 */
NODISCARD int load_inject_check(const struct load_injection *in, const struct load_rows *rows,
                                struct err *e);
/*
 * The columns as they are under all the injections (in their order). The result has column_count
 * columns; those that change are new arrays in `a`, others are shared with `rows`. All must have
 * passed load_inject_check.
 */
struct load_column *load_inject_apply(const struct load_injection *const *ins, size_t n,
                                      const struct load_rows *rows, uint64_t seed, struct arena *a);

/* For --help: one line for each operation and attack. */
void load_inject_help(struct buf *to);
