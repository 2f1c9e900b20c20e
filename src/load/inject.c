/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an injection does to rows. Columns are changed on copies: a phase without an injection goes
 * on sending what the file holds, and the label of a row is never touched.
 *
 * Which rows are meant (where, share) is decided first, into a list; every operation then works on
 * that list. Mimic draws one other row for each chosen row and takes all named columns from it, so
 * that what was stolen fits together as it does in an honest row.
 */
#include "load/inject.h"

#include "base/hash.h"
#include "base/time.h"

enum want { WANT_NONE, WANT_NUMBER, WANT_ANY, WANT_COLUMN };

static const struct op_info {
    str name;
    enum want value, columns;
    const char *help;
} ops[] = {
#define OP(name, text, value, columns, help) {S_INIT(text), WANT_##value, WANT_##columns, help},
#include "load/ops.def"
#undef OP
};

static const struct attack_info {
    str name, spec;
    bool positive;
    const char *help;
} attacks[] = {
#define ATTACK(id, text, spec, positive, help) {S_INIT(text), S_INIT(spec), positive, help},
#include "load/attacks.def"
#undef ATTACK
};

/* --- Specs ------------------------------------------------------------------------------------ */

static NODISCARD int read_instant(str key, str text, int64_t *ret_ns, struct err *e)
{
    if (!time_parse_duration(text, ret_ns))
        return FAIL(e, INVALID_ARGUMENT,
                    "injection: " STR_F "='" STR_F "', expected a duration such as 30s", STR_A(key),
                    STR_A(str_take(text, 64)));
    return 0;
}

static NODISCARD int read_columns(str text, struct load_injection *in, struct err *e)
{
    in->column_count = 0;
    while (text.p) {
        str name = str_cut(&text, '+');

        if (!name.n || in->column_count == LOAD_INJECT_COLUMNS_MAX)
            return FAIL(e, INVALID_ARGUMENT,
                        "injection: column= takes 1 to %d names with + between them",
                        LOAD_INJECT_COLUMNS_MAX);
        in->columns[in->column_count++] = name;
    }
    return 0;
}

static NODISCARD int read_op(str text, struct load_injection *in, struct err *e)
{
    str names[ARRAY_LEN(ops)], near;

    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        names[i] = ops[i].name;
        if (str_eq(ops[i].name, text)) {
            in->op = (enum load_op)i;
            return 0;
        }
    }
    near = str_suggest(text, names, ARRAY_LEN(names));
    return FAIL(e, INVALID_ARGUMENT, "injection: there is no op '" STR_F "'%s" STR_F "%s",
                STR_A(str_take(text, 64)), near.n ? ", did you mean '" : "; see weir load --help",
                STR_A(near), near.n ? "'?" : "");
}

static NODISCARD int read_where(str text, struct load_injection *in, struct err *e)
{
    in->where_not = str_starts(text, S("label!="));
    if (!in->where_not && !str_starts(text, S("label==")))
        return FAIL(e, INVALID_ARGUMENT,
                    "injection: where='" STR_F "', expected label==CLASS or label!=CLASS",
                    STR_A(str_take(text, 64)));
    in->where = str_skip(text, 7);
    return 0;
}

static NODISCARD int read_share(str text, struct load_injection *in, struct err *e)
{
    bool percent = str_ends(text, S("%"));
    double v;

    if (!str_to_f64(percent ? str_take(text, text.n - 1) : text, &v) ||
        !((v = percent ? v / 100 : v) > 0) || v > 1)
        return FAIL(e, INVALID_ARGUMENT, "injection: share='" STR_F "', expected 0.5 or 50%%",
                    STR_A(str_take(text, 64)));
    in->share = v;
    return 0;
}

static NODISCARD int read_key(str key, str text, struct load_injection *in, struct err *e)
{
    if (str_eq(key, S("at")))
        return read_instant(key, text, &in->at_ns, e);
    if (str_eq(key, S("until")))
        return read_instant(key, text, &in->until_ns, e);
    if (str_eq(key, S("column")) || str_eq(key, S("columns")))
        return read_columns(text, in, e);
    if (str_eq(key, S("op")))
        return read_op(text, in, e);
    if (str_eq(key, S("where")))
        return read_where(text, in, e);
    if (str_eq(key, S("share")))
        return read_share(text, in, e);
    if (!str_eq(key, S("value")))
        return FAIL(e, INVALID_ARGUMENT,
                    "injection: unknown key '" STR_F
                    "', expected at, until, column, op, value, where or share",
                    STR_A(str_take(key, 64)));
    in->value_text = text;
    if (!str_to_f64(text, &in->value))
        in->value = __builtin_nan("");
    return 0;
}

static NODISCARD int read_keys(str text, struct load_injection *in, struct err *e)
{
    while (text.p) {
        str item = str_cut(&text, ',');
        ptrdiff_t eq = str_find_char(item, '=');

        if (eq < 1)
            return FAIL(e, INVALID_ARGUMENT, "injection: '" STR_F "' is not key=value",
                        STR_A(str_take(item, 64)));
        TRY(read_key(str_take(item, (size_t)eq), str_skip(item, (size_t)eq + 1), in, e));
    }
    return 0;
}

static NODISCARD int check_spec(const struct load_injection *in, struct err *e)
{
    const struct op_info *op;

    if (in->op == LOAD_OP_COUNT)
        return FAIL(e, INVALID_ARGUMENT, "injection '" STR_F "' lacks op=", STR_A(in->spec));
    op = &ops[in->op];
    if (!in->column_count)
        return FAIL(e, INVALID_ARGUMENT, "injection '" STR_F "' lacks column=", STR_A(in->spec));
    if (in->until_ns <= in->at_ns)
        return FAIL(e, INVALID_ARGUMENT, "injection '" STR_F "' ends before it begins",
                    STR_A(in->spec));
    if (op->value != WANT_NONE && !in->value_text.p)
        return FAIL(e, INVALID_ARGUMENT, "injection: op=" STR_F " needs value=", STR_A(op->name));
    if (op->value == WANT_NUMBER && in->value != in->value)
        return FAIL(e, INVALID_ARGUMENT,
                    "injection: op=" STR_F " needs a number, value is '" STR_F "'", STR_A(op->name),
                    STR_A(str_take(in->value_text, 64)));
    if (in->op == LOAD_OP_SWAP && in->column_count != 1)
        return FAIL(e, INVALID_ARGUMENT, "injection: op=swap takes one column");
    return 0;
}

static void begin(struct load_injection *in, str spec)
{
    *in = (struct load_injection){
        .spec = spec, .until_ns = INT64_MAX, .op = LOAD_OP_COUNT, .share = 1};
}

int load_inject_parse(str spec, struct load_injection *ret, struct err *e)
{
    struct load_injection in;

    begin(&in, spec);
    TRY(read_keys(spec, &in, e));
    TRY(check_spec(&in, e));
    *ret = in;
    return 0;
}

int load_attack_parse(str text, str positive, struct arena *a, struct load_injection *ret,
                      struct err *e)
{
    str rest = text, name = str_cut(&rest, ',');
    struct load_injection in;
    size_t i = 0;

    while (i < ARRAY_LEN(attacks) && !str_eq(attacks[i].name, name))
        i++;
    if (i == ARRAY_LEN(attacks))
        return FAIL(e, INVALID_ARGUMENT, "there is no attack '" STR_F "'; see weir load --help",
                    STR_A(str_take(name, 64)));
    begin(&in, arena_dup(a, text));
    TRY(read_keys(attacks[i].spec, &in, e));
    if (attacks[i].positive)
        in.where = arena_dup(a, positive);
    if (rest.n)
        TRY(read_keys(arena_dup(a, rest), &in, e));
    in.attack = attacks[i].name;
    TRY(check_spec(&in, e));
    *ret = in;
    return 0;
}

int load_inject_check(const struct load_injection *in, const struct load_rows *rows, struct err *e)
{
    const struct load_column *other = NULL;

    if (in->op == LOAD_OP_SWAP && !(other = load_rows_column(rows, in->value_text)))
        return FAIL(e, NOT_FOUND, "injection: there is no column '" STR_F "'",
                    STR_A(in->value_text));
    for (size_t i = 0; i < in->column_count; i++) {
        const struct load_column *c = load_rows_column(rows, in->columns[i]);

        if (!c)
            return FAIL(e, NOT_FOUND, "injection: there is no column '" STR_F "'",
                        STR_A(in->columns[i]));
        if (c->kind != LOAD_NUMBER &&
            (ops[in->op].columns == WANT_NUMBER || (other && other->kind != c->kind)))
            return FAIL(e, INVALID_ARGUMENT, "injection: column '" STR_F "' is no number",
                        STR_A(c->name));
        if (c->kind != LOAD_TEXT && ((in->op == LOAD_OP_SET && in->value != in->value) ||
                                     (other && other->kind == LOAD_TEXT)))
            return FAIL(e, INVALID_ARGUMENT, "injection: column '" STR_F "' takes numbers",
                        STR_A(c->name));
    }
    if ((in->where.p || in->op == LOAD_OP_MIMIC) && !rows->label_classes)
        return FAIL(e, FAILED_PRECONDITION,
                    "injection '" STR_F "' looks at labels: name their column with --label (at "
                    "most %d classes)",
                    STR_A(in->spec), LOAD_CLASSES_MAX);
    if (in->where.p && load_class_of(rows, in->where) == LOAD_CLASS_NONE)
        return FAIL(e, NOT_FOUND, "injection: no row has the label '" STR_F "'", STR_A(in->where));
    if (in->op == LOAD_OP_MIMIC && rows->class_count < 2)
        return FAIL(e, FAILED_PRECONDITION, "injection: op=mimic needs rows of two labels");
    return 0;
}

/* --- Values ----------------------------------------------------------------------------------- */

struct picked {
    const struct load_rows *rows;
    uint32_t *at; /* the chosen rows, rising */
    size_t n;
};

static struct picked pick(const struct load_injection *in, const struct load_rows *rows,
                          struct rng *rng, struct arena *a)
{
    struct picked p = {.rows = rows, .at = ARENA_ARRAY(a, uint32_t, rows->n + 1)};
    uint32_t cls = in->where.p ? load_class_of(rows, in->where) : LOAD_CLASS_NONE;

    for (size_t i = 0; i < rows->n; i++) {
        if (in->where.p && (rows->label_classes[i] == cls) == in->where_not)
            continue;
        if (in->share < 1 && rng_uniform(rng) >= in->share)
            continue;
        p.at[p.n++] = (uint32_t)i;
    }
    return p;
}

/* Gives the column arrays of its own in `a`. */
static void own(struct load_column *c, const struct load_column *original, size_t n,
                struct arena *a)
{
    if (c->kind == LOAD_TEXT && c->texts == original->texts) {
        c->texts = ARENA_ARRAY(a, str, n);
        memcpy(c->texts, original->texts, n * sizeof(*c->texts));
    } else if (c->kind != LOAD_TEXT && c->numbers == original->numbers) {
        c->numbers = ARENA_ARRAY(a, double, n);
        memcpy(c->numbers, original->numbers, n * sizeof(*c->numbers));
    }
}

static void copy_value(struct load_column *to, size_t at, const struct load_column *from,
                       size_t from_at)
{
    ASSERT(to->kind == from->kind && (to->kind == LOAD_TEXT ? !!from->texts : !!from->numbers));
    if (to->kind == LOAD_TEXT)
        to->texts[at] = from->texts[from_at];
    else
        to->numbers[at] = from->numbers[from_at];
}

static void set_value(struct load_column *c, size_t at, const struct load_injection *in)
{
    if (c->kind == LOAD_TEXT)
        c->texts[at] = in->op == LOAD_OP_SET ? in->value_text : STR_NULL;
    else
        c->numbers[at] = in->op == LOAD_OP_SET ? in->value : __builtin_nan("");
}

static void swap_values(struct load_column *x, struct load_column *y, size_t at)
{
    struct load_column tmp = {.kind = x->kind};
    double number;
    str text;

    if (x->kind == LOAD_TEXT)
        tmp.texts = &text, copy_value(&tmp, 0, x, at);
    else
        tmp.numbers = &number, copy_value(&tmp, 0, x, at);
    copy_value(x, at, y, at);
    copy_value(y, at, &tmp, 0);
}

static double changed(const struct load_injection *in, double v, struct rng *rng)
{
    switch (in->op) {
    case LOAD_OP_SHIFT:
        return v + in->value;
    case LOAD_OP_SCALE:
        return v * in->value;
    default:
        return v + in->value * rng_normal(rng);
    }
}

/* A random row whose label is not that of `row`. */
static size_t donor(const struct load_rows *rows, size_t row, struct rng *rng)
{
    size_t at = rng_below(rng, rows->n);

    while (rows->label_classes[at] == rows->label_classes[row])
        at = at + 1 < rows->n ? at + 1 : 0;
    return at;
}

/* Permutes the chosen rows of one column (Fisher and Yates, as Durstenfeld wrote it). */
static void shuffle(struct load_column *c, const struct picked *p, struct rng *rng)
{
    for (size_t i = p->n; i > 1; i--) {
        size_t x = p->at[i - 1], y = p->at[rng_below(rng, i)];

        if (c->kind == LOAD_TEXT) {
            str t = c->texts[x];

            c->texts[x] = c->texts[y], c->texts[y] = t;
        } else {
            double t = c->numbers[x];

            c->numbers[x] = c->numbers[y], c->numbers[y] = t;
        }
    }
}

static void apply_column(const struct load_injection *in, const struct picked *p,
                         const size_t *donors, struct load_column *c, struct load_column *other,
                         struct rng *rng)
{
    const struct load_column *original = load_rows_column(p->rows, c->name);

    if (in->op == LOAD_OP_SHUFFLE)
        shuffle(c, p, rng);
    for (size_t i = 0; i < p->n; i++) {
        size_t at = p->at[i];

        switch (in->op) {
        case LOAD_OP_SHUFFLE:
            break;
        case LOAD_OP_SET:
        case LOAD_OP_MISSING:
            set_value(c, at, in);
            break;
        case LOAD_OP_SWAP:
            swap_values(c, other, at);
            break;
        case LOAD_OP_MIMIC:
            copy_value(c, at, original, donors[i]);
            break;
        default:
            c->numbers[at] = changed(in, c->numbers[at], rng);
        }
        if (c->integral && c->kind == LOAD_NUMBER)
            c->numbers[at] = __builtin_round(c->numbers[at]);
    }
}

static struct load_column *find(struct load_column *columns, const struct load_rows *rows, str name)
{
    return &columns[load_rows_column(rows, name) - rows->columns];
}

static void apply(const struct load_injection *in, const struct load_rows *rows, uint64_t seed,
                  struct load_column *columns, struct arena *a)
{
    struct load_column *other = NULL;
    size_t *donors = NULL;
    struct picked p;
    struct rng rng;

    rng_seed(&rng, seed);
    p = pick(in, rows, &rng, a);
    if (in->op == LOAD_OP_MIMIC) {
        donors = ARENA_ARRAY(a, size_t, p.n + 1);
        for (size_t i = 0; i < p.n; i++)
            donors[i] = donor(rows, p.at[i], &rng);
    }
    if (in->op == LOAD_OP_SWAP) {
        other = find(columns, rows, in->value_text);
        own(other, load_rows_column(rows, in->value_text), rows->n, a);
    }
    for (size_t i = 0; i < in->column_count; i++) {
        struct load_column *c = find(columns, rows, in->columns[i]);

        own(c, load_rows_column(rows, in->columns[i]), rows->n, a);
        apply_column(in, &p, donors, c, other, &rng);
    }
}

struct load_column *load_inject_apply(const struct load_injection *const *ins, size_t n,
                                      const struct load_rows *rows, uint64_t seed, struct arena *a)
{
    struct load_column *columns = ARENA_ARRAY(a, struct load_column, rows->column_count);

    memcpy(columns, rows->columns, rows->column_count * sizeof(*columns));
    for (size_t i = 0; i < n; i++)
        apply(ins[i], rows, seed + hash_str(ins[i]->spec, 1), columns, a);
    return columns;
}

void load_inject_help(struct buf *to)
{
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        buf_printf(to, "  op=%-10s %s\n", ops[i].name.p, ops[i].help);
    buf_add_char(to, '\n');
    for (size_t i = 0; i < ARRAY_LEN(attacks); i++)
        buf_printf(to, "  %-13s %s\n  %13s (" STR_F "%s)\n", attacks[i].name.p, attacks[i].help, "",
                   STR_A(attacks[i].spec), attacks[i].positive ? ",where=label==POSITIVE" : "");
}
