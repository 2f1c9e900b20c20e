/* SPDX-License-Identifier: Apache-2.0 */
/* Inside a pipeline: the operations of a program, and what reads them out of a document. */
#pragma once

#include "pipeline/pipeline.h"

/* --- Categories (dictionary.c) ---------------------------------------------------------------- */

#define DICTIONARY_NONE UINT32_MAX

/* Texts or numbers, each once, and where they stand in their list. */
struct dictionary {
    const str *texts;      /* NULL: numbers */
    const double *numbers; /* NULL: texts */
    uint32_t n;
    uint32_t *slots; /* open addressing: index + 1 */
    uint32_t mask;
};
/* Of the arena; false, with *ret_twice, when a member stands twice. */
NODISCARD bool dictionary_init(struct dictionary *d, struct arena *a, uint32_t *ret_twice);
uint32_t dictionary_text(const struct dictionary *d, str text) HOT;
uint32_t dictionary_number(const struct dictionary *d, double v) HOT;

/* --- Moments (moment.c) ----------------------------------------------------------------------- */

struct moment {
    int64_t epoch_s;
    int32_t year, month, day, day_of_year, weekday, second_of_day;
};
#define MOMENT_PARTS_MAX 16
/* RFC 3339, also with a blank for the T, without a zone (then UTC), or a date alone. */
NODISCARD bool moment_of_text(str text, struct moment *ret);
NODISCARD bool moment_of_seconds(double seconds, struct moment *ret); /* since 1970 */
double moment_part(const struct moment *m, uint8_t part);
/* The part of that name; false: there is none. */
NODISCARD bool moment_part_find(str name, uint8_t *ret);
const str *moment_part_names(size_t *ret_n);

/* --- The program (run.c) ---------------------------------------------------------------------- */

enum unseen { UNSEEN_ERROR, UNSEEN_MISSING, UNSEEN_CODE, UNSEEN_ZEROS };

enum op_kind { OP_FILL, OP_FILL_TEXT, OP_SCALE, OP_CLIP, OP_LOG1P, OP_ENCODE, OP_ONE_HOT, OP_TIME };

struct pipeline_op {
    enum op_kind kind;
    uint32_t from, to; /* places; `to` is the first of `width` */
    uint32_t width;
    bool from_text;
    enum unseen unseen;
    double a, b; /* fill: value; scale: what is taken away and divided by; clip: bounds; encode: the
                    code of the unseen */
    str text;    /* fill */
    str column;  /* for messages */
    const struct dictionary *dictionary;
    const double *values; /* encode: of each category; NULL: its index */
    const uint8_t *parts; /* time */
};

/* --- Reading (read.c, step.c) ----------------------------------------------------------------- */

struct reader {
    struct arena *a;
    const struct pipeline_options *options;
    struct pipeline *p;
    struct pipeline_op *ops;
    uint32_t ops_room;
    struct pipeline_column *live; /* PIPELINE_COLUMNS_MAX */
    uint32_t live_count;
    size_t step; /* at hand */
    str kind;
    ptrdiff_t column;
    bool any_more; /* an open step leaves columns that nobody knows yet */
    bool failed;
    struct err *e;
};

/* Notes a problem of the step at hand. */
void reader_problem(struct reader *r, const char *member, str what, str expected);
/* Adds an operation on live[i], whose place then is that of the result; NULL: too many. */
struct pipeline_op *reader_op(struct reader *r, enum op_kind kind, uint32_t i, uint32_t width);

typedef void step_fn(struct reader *r, const struct json *step, uint32_t live);
struct step_kind {
    const char *name;
    step_fn *fn;
    enum pipeline_type takes;
};
extern const struct step_kind pipeline_steps[];
extern const size_t pipeline_step_count;
const struct step_kind *step_find(str name);

/* The parameter of the column at hand: one for all, or one in a list for each; NULL when open. */
const struct json *step_parameter(const struct json *step, const char *member, ptrdiff_t column);
