/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process-wide table of schemas.
 *
 * A record in a ring names its schema by a number, and the keeper, the digest and the segment
 * writer look that number up for each record; so the table is an array of pointers that only ever
 * grows. A slot is published with release order after its schema is complete and is never changed
 * again, which makes reading free. Adding takes a mutex: it happens when a plan is loaded.
 *
 * Identity is the canonical JSON text plus the hash of the cells specs. A gateway that reloads a
 * plan with the same endpoint and version therefore keeps the old id, and the table grows only with
 * new versions.
 */
#include "record/schema.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/num.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define NAME_BYTES_MAX 256u
#define SLOTS (2 * RECORD_SCHEMAS_MAX) /* of the hash index; a power of two */
#define JSON_BYTES_MAX ((size_t)4 << 20)

static _Atomic(const struct record_schema *) table[RECORD_SCHEMAS_MAX];
static atomic_uint table_count;
static pthread_mutex_t add_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t slots[SLOTS]; /* id + 1, or 0; under add_lock */

static const struct {
    const char *text;
    uint32_t bytes, align;
} types[] = {
#define RECORD_TYPE(name, text, bytes, align, duck) {text, bytes, align},
#include "record/types.def"
#undef RECORD_TYPE
};

static const char *const targets[] = {
    [RECORD_TARGET_NONE] = "NONE",     [RECORD_TARGET_VALUE] = "VALUE",
    [RECORD_TARGET_CLASS] = "CLASS",   [RECORD_TARGET_SCORE] = "SCORE",
    [RECORD_TARGET_ARGMAX] = "ARGMAX",
};

const char *record_type_name(enum record_type type)
{
    ASSERT(type < RECORD_TYPE_COUNT);
    return types[type].text;
}

/* --- Checking a definition ---------------------------------------------------------------- */

static int name_order(const void *a, const void *b)
{
    return str_cmp(*(const str *)a, *(const str *)b);
}

static NODISCARD int check_columns(const struct record_schema_def *d, struct err *e)
{
    size_t count = (size_t)d->feature_count + d->output_count;
    AUTO(mem_freep) str *names = NULL;

    if (d->feature_count > RECORD_COLUMNS_MAX || d->output_count > RECORD_COLUMNS_MAX ||
        count > RECORD_COLUMNS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%zu features and outputs: at most %u fit a record", count,
                    RECORD_COLUMNS_MAX);
    names = mem_alloc((count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++) {
        str name = d->columns[i].name;

        if (!name.n || name.n > NAME_BYTES_MAX || !str_is_utf8(name) || memchr(name.p, 0, name.n))
            return FAIL(e, INVALID_ARGUMENT,
                        "column %zu: a name of 1 to %u bytes of UTF-8 is needed", i,
                        NAME_BYTES_MAX);
        if ((unsigned)d->columns[i].type >= RECORD_TYPE_COUNT)
            return FAIL(e, INVALID_ARGUMENT, "column '" STR_F "' has no known type", STR_A(name));
        names[i] = name;
    }
    /* Features and outputs are two name spaces: "score" may be in both. */
    for (int part = 0; part < 2; part++) {
        str *from = names + (part ? d->feature_count : 0);
        size_t n = part ? d->output_count : d->feature_count;

        qsort(from, n, sizeof *from, name_order);
        for (size_t i = 1; i < n; i++)
            if (str_eq(from[i - 1], from[i]))
                return FAIL(e, INVALID_ARGUMENT, "%s '" STR_F "' is named twice",
                            part ? "output" : "feature", STR_A(from[i]));
    }
    return 0;
}

static NODISCARD int check_target(const struct record_schema_def *d, struct err *e)
{
    uint32_t width = d->target == RECORD_TARGET_ARGMAX ? d->class_count : 1;
    bool classes = d->target == RECORD_TARGET_CLASS || d->target == RECORD_TARGET_SCORE ||
                   d->target == RECORD_TARGET_ARGMAX;

    if ((unsigned)d->target >= ARRAY_LEN(targets))
        return FAIL(e, INVALID_ARGUMENT, "unknown target kind %d", (int)d->target);
    if (d->target == RECORD_TARGET_NONE)
        return 0;
    if (classes && (d->class_count < 2 || d->class_count > RECORD_CLASSES_MAX ||
                    (d->target == RECORD_TARGET_SCORE && d->class_count != 2)))
        return FAIL(e, INVALID_ARGUMENT,
                    "target %s with %u classes: 2 to %u are possible (SCORE: 2)",
                    targets[d->target], d->class_count, RECORD_CLASSES_MAX);
    if (d->target_at >= d->output_count || width > d->output_count - d->target_at)
        return FAIL(e, INVALID_ARGUMENT, "target output %u (+%u) is past the %u outputs",
                    d->target_at, width, d->output_count);
    for (uint32_t i = 0; i < width; i++)
        if (d->columns[d->feature_count + d->target_at + i].type == RECORD_STR &&
            (d->target != RECORD_TARGET_CLASS || !d->class_names))
            return FAIL(e, INVALID_ARGUMENT,
                        "output '" STR_F "' is text: only a CLASS target with class names may be",
                        STR_A(d->columns[d->feature_count + d->target_at + i].name));
    if (!(d->threshold >= 0 && d->threshold <= 1) || !(d->tolerance >= 0))
        return FAIL(e, INVALID_ARGUMENT,
                    "threshold must lie in [0, 1] and tolerance must not be negative");
    for (uint32_t i = 0; classes && d->class_names && i < d->class_count; i++)
        if (!d->class_names[i].n || d->class_names[i].n > NAME_BYTES_MAX)
            return FAIL(e, INVALID_ARGUMENT, "class %u needs a name of 1 to %u bytes", i,
                        NAME_BYTES_MAX);
    return 0;
}

static NODISCARD int check_def(const struct record_schema_def *d, struct err *e)
{
    if (!str_is_name(d->endpoint) || !str_is_name(d->version))
        return FAIL(e, INVALID_ARGUMENT,
                    "record schema: '" STR_F "' version '" STR_F "' is not a pair of plain names",
                    STR_A(d->endpoint), STR_A(d->version));
    TRY(check_columns(d, e));
    return check_target(d, e);
}

/* --- Building ------------------------------------------------------------------------------ */

static NODISCARD int lay_out(struct record_schema *s, struct err *e)
{
    uint32_t at;

    for (uint32_t i = 0; i < s->column_count; i++)
        s->has_text |= s->columns[i].type == RECORD_STR;
    at = s->has_text ? 8 : 0;
    for (uint32_t i = 0; i < s->column_count; i++) {
        uint32_t align = types[s->columns[i].type].align;

        at = (at + align - 1) & ~(align - 1);
        s->columns[i].at = at;
        at += types[s->columns[i].type].bytes;
    }
    s->row_bytes = (at + 7) & ~7u;
    if (s->row_bytes > RECORD_ROW_FIXED_MAX)
        return FAIL(e, INVALID_ARGUMENT, "a row of '" STR_F "' takes %u bytes: at most %u",
                    STR_A(s->endpoint), s->row_bytes, RECORD_ROW_FIXED_MAX);
    return 0;
}

static void write_columns(struct json_out *o, str key, const struct record_column *c, uint32_t n)
{
    jo_key(o, key);
    jo_array(o);
    for (uint32_t i = 0; i < n; i++) {
        jo_array(o);
        jo_str(o, c[i].name);
        jo_str(o, str_of(types[c[i].type].text));
        jo_array_end(o);
    }
    jo_array_end(o);
}

static void write_json(const struct record_schema *s, struct buf *out)
{
    struct json_out o;
    char hex[17];

    jo_begin(&o, out);
    jo_object(&o);
    jo_kstr(&o, S("endpoint"), s->endpoint);
    jo_kstr(&o, S("version"), s->version);
    write_columns(&o, S("features"), s->columns, s->feature_count);
    write_columns(&o, S("outputs"), s->columns + s->feature_count, s->output_count);
    jo_kstr(&o, S("target"), str_of(targets[s->target]));
    jo_kint(&o, S("target_at"), s->target_at);
    jo_kint(&o, S("class_count"), s->class_count);
    if (s->class_names) {
        jo_key(&o, S("class_names"));
        jo_array(&o);
        for (uint32_t i = 0; i < s->class_count; i++)
            jo_str(&o, s->class_names[i]);
        jo_array_end(&o);
    }
    jo_kreal(&o, S("threshold"), s->threshold);
    jo_kreal(&o, S("tolerance"), s->tolerance);
    hex_encode(&s->cells_hash, sizeof s->cells_hash, hex);
    jo_kstr(&o, S("cells"), str_of(hex));
    jo_object_end(&o);
}

/* The parts of a spec that decide into which cell a value falls. */
static uint64_t cells_identity(const struct cells_spec *c, uint64_t seed)
{
    double reals[3] = {c->lo, c->hi, c->centre};
    uint32_t ints[2] = {c->kind, c->bins};

    seed = hash64(reals, sizeof reals, seed);
    seed = hash64(ints, sizeof ints, seed);
    return hash64(c->keys, sizeof c->keys, seed);
}

static void copy_cells(struct record_schema *s, const struct record_schema_def *d, struct arena *a)
{
    bool leading = true;

    s->cells = ARENA_ARRAY(a, const struct cells_spec *, s->column_count + 1);
    for (uint32_t i = 0; i < s->column_count; i++) {
        struct cells_spec *copy;

        leading &= d->cells[i] && s->columns[i].type == RECORD_F32;
        s->f32_folded += leading;
        if (!d->cells[i])
            continue;
        copy = ARENA_NEW(a, struct cells_spec);
        *copy = *d->cells[i];
        s->cells[i] = copy;
        s->cells_hash = cells_identity(copy, s->cells_hash + i + 1);
    }
}

/* A complete schema (but for its id) in the arena. */
static NODISCARD int build(const struct record_schema_def *d, uint64_t cells_hash, struct arena *a,
                           struct record_schema **ret_schema, struct err *e)
{
    struct record_schema *s = ARENA_NEW(a, struct record_schema);
    AUTO(buf_done) struct buf json = {0};
    bool classes = d->target != RECORD_TARGET_NONE && d->target != RECORD_TARGET_VALUE;

    buf_init(&json, JSON_BYTES_MAX);
    s->feature_count = d->feature_count;
    s->output_count = d->output_count;
    s->column_count = d->feature_count + d->output_count;
    s->endpoint = arena_dup(a, d->endpoint);
    s->version = arena_dup(a, d->version);
    s->target = d->target;
    s->target_at = d->target == RECORD_TARGET_NONE ? 0 : d->target_at;
    s->class_count = classes ? d->class_count : 0;
    s->threshold = d->threshold > 0 ? d->threshold : 0.5;
    s->tolerance = d->tolerance;
    s->columns = ARENA_ARRAY(a, struct record_column, s->column_count + 1);
    for (uint32_t i = 0; i < s->column_count; i++) {
        s->columns[i].name = arena_dup(a, d->columns[i].name);
        s->columns[i].type = d->columns[i].type;
    }
    if (s->class_count && d->class_names) {
        s->class_names = ARENA_ARRAY(a, str, s->class_count);
        for (uint32_t i = 0; i < s->class_count; i++)
            s->class_names[i] = arena_dup(a, d->class_names[i]);
    }
    s->cells_hash = cells_hash;
    if (d->cells)
        copy_cells(s, d, a);
    TRY(lay_out(s, e));
    write_json(s, &json);
    if (json.overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the schema of '" STR_F "' is over %zu bytes",
                    STR_A(s->endpoint), JSON_BYTES_MAX);
    s->json = arena_dup(a, buf_str(&json));
    s->hash = hash_str(s->json, s->cells_hash);
    *ret_schema = s;
    return 0;
}

static uint32_t slot_of(const struct record_schema *s, bool *ret_found)
{
    uint32_t at = (uint32_t)s->hash & (SLOTS - 1);

    for (;; at = (at + 1) & (SLOTS - 1)) {
        const struct record_schema *old;

        *ret_found = false;
        if (!slots[at])
            return at;
        old = record_schema_at(slots[at] - 1);
        *ret_found =
            old->hash == s->hash && old->cells_hash == s->cells_hash && str_eq(old->json, s->json);
        if (*ret_found)
            return at;
    }
}

static NODISCARD int add_locked(struct record_schema *s, bool *ret_new, struct err *e)
{
    uint32_t count = atomic_load(&table_count);
    uint32_t slot;
    bool found;

    slot = slot_of(s, &found);
    *ret_new = false;
    if (found) {
        s->id = slots[slot] - 1;
        return 0;
    }
    if (count == RECORD_SCHEMAS_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED,
                    "%u record schemas were made since the gateway started: restart it to forget "
                    "those of old versions",
                    RECORD_SCHEMAS_MAX);
    s->id = count;
    slots[slot] = count + 1;
    atomic_store_explicit(&table[count], s, memory_order_release);
    atomic_store_explicit(&table_count, count + 1, memory_order_release);
    *ret_new = true;
    return 0;
}

static void unlock(pthread_mutex_t **lock)
{
    pthread_mutex_unlock(*lock);
}

int record_schema_add(const struct record_schema_def *def, const struct record_schema **ret_schema,
                      struct err *e)
{
    AUTO(arena_done) struct arena own = {0};
    struct record_schema *s;
    bool is_new;

    arena_init(&own, 0);
    TRY(check_def(def, e));
    TRY(build(def, 0, &own, &s, e));
    {
        AUTO(unlock) pthread_mutex_t *lock = &add_lock;

        pthread_mutex_lock(lock);
        TRY(add_locked(s, &is_new, e));
    }
    *ret_schema = record_schema_at(s->id);
    if (is_new) /* published: its memory stays for the life of the process */
        arena_init(&own, 0);
    return 0;
}

const struct record_schema *record_schema_at(uint32_t id)
{
    if (id >= RECORD_SCHEMAS_MAX)
        return NULL;
    return atomic_load_explicit(&table[id], memory_order_acquire);
}

uint32_t record_schema_count(void)
{
    return atomic_load_explicit(&table_count, memory_order_acquire);
}

/* --- Reading the JSON form ----------------------------------------------------------------- */

static NODISCARD int parse_columns(struct json *list, struct arena *a, struct record_column *to,
                                   uint32_t *ret_n, struct err *e)
{
    uint32_t n = 0;

    if (list->count > RECORD_COLUMNS_MAX)
        return FAIL(e, DATA_LOSS, "record schema: %zu columns", list->count);
    JSON_EACH (column, list) {
        str type = json_str_or(json_at(column, 1), STR_NULL);
        size_t t = 0;

        while (t < ARRAY_LEN(types) && !str_eqz(type, types[t].text))
            t++;
        if (t == ARRAY_LEN(types))
            return FAIL(e, DATA_LOSS, "record schema: unknown type '" STR_F "'", STR_A(type));
        to[n].name = arena_dup(a, json_str_or(json_at(column, 0), STR_NULL));
        to[n++].type = (enum record_type)t;
    }
    *ret_n = n;
    return 0;
}

static NODISCARD int parse_target(struct json *root, struct arena *a, struct record_schema_def *d,
                                  struct err *e)
{
    str target = json_str_or(json_get(root, S("target")), STR_NULL);
    struct json *names = json_get(root, S("class_names"));
    int64_t classes = json_int_or(json_get(root, S("class_count")), 0);
    int64_t at = json_int_or(json_get(root, S("target_at")), 0);
    size_t t = 0;

    while (t < ARRAY_LEN(targets) && !str_eqz(target, targets[t]))
        t++;
    if (t == ARRAY_LEN(targets) || classes < 0 || classes > RECORD_CLASSES_MAX || at < 0 ||
        at > RECORD_COLUMNS_MAX)
        return FAIL(e, DATA_LOSS, "record schema: the target '" STR_F "' is not understood",
                    STR_A(target));
    d->target = (enum record_target)t;
    d->target_at = (uint32_t)at;
    d->class_count = (uint32_t)classes;
    d->threshold = json_real_or(json_get(root, S("threshold")), 0);
    d->tolerance = json_real_or(json_get(root, S("tolerance")), 0);
    if (names && names->type == JSON_ARRAY) {
        str *list = ARENA_ARRAY(a, str, names->count + 1);
        size_t n = 0;

        if (names->count != d->class_count)
            return FAIL(e, DATA_LOSS, "record schema: %zu names for %u classes", names->count,
                        d->class_count);
        JSON_EACH (name, names)
            list[n++] = json_str_or(name, STR_NULL);
        d->class_names = list;
    }
    return 0;
}

int record_schema_parse(str json, struct arena *a, struct record_schema **ret_schema, struct err *e)
{
    struct record_schema_def d = {0};
    struct record_column *columns;
    struct json *root, *features, *outputs;
    uint64_t cells_hash;
    str cells;

    TRY(json_parse(json, a, &root, e));
    TRY(json_need_array(root, S("features"), &features, e));
    TRY(json_need_array(root, S("outputs"), &outputs, e));
    columns = ARENA_ARRAY(a, struct record_column, features->count + outputs->count + 1);
    d.columns = columns;
    d.endpoint = json_str_or(json_get(root, S("endpoint")), STR_NULL);
    d.version = json_str_or(json_get(root, S("version")), STR_NULL);
    TRY(parse_columns(features, a, columns, &d.feature_count, e));
    TRY(parse_columns(outputs, a, columns + d.feature_count, &d.output_count, e));
    TRY(parse_target(root, a, &d, e));
    cells = json_str_or(json_get(root, S("cells")), STR_NULL);
    if (cells.n != 16 || !hex_decode(cells, &cells_hash, sizeof cells_hash))
        return FAIL(e, DATA_LOSS, "record schema: the hash of the cells is no hash");
    TRY(check_def(&d, e));
    return build(&d, cells_hash, a, ret_schema, e);
}

/* --- Rows ---------------------------------------------------------------------------------- */

uint8_t record_schema_class_of_number(const struct record_schema *s, double value)
{
    if (!(value >= 0 && value < s->class_count) || value != (double)(uint8_t)value)
        return RECORD_CLASS_NONE;
    return (uint8_t)value;
}

uint8_t record_schema_class_of_text(const struct record_schema *s, str name)
{
    double value;

    for (uint32_t i = 0; s->class_names && i < s->class_count; i++)
        if (str_eq(s->class_names[i], name))
            return (uint8_t)i;
    if (!str_to_f64(name, &value))
        return RECORD_CLASS_NONE;
    return record_schema_class_of_number(s, value);
}

double record_row_number(const struct record_schema *s, uint32_t column, const void *row)
{
    const unsigned char *at = (const unsigned char *)row + s->columns[column].at;

    ASSERT(column < s->column_count);
    switch (s->columns[column].type) {
    case RECORD_F32: {
        float v;

        memcpy(&v, at, sizeof v);
        return (double)v;
    }
    case RECORD_F64: {
        double v;

        memcpy(&v, at, sizeof v);
        return v;
    }
    case RECORD_I64: {
        int64_t v;

        memcpy(&v, at, sizeof v);
        return v == RECORD_I64_MISSING ? __builtin_nan("") : (double)v;
    }
    default:
        return __builtin_nan("");
    }
}

str record_row_text(const struct record_schema *s, uint32_t column, const void *row)
{
    struct record_text t;

    ASSERT(column < s->column_count);
    if (s->columns[column].type != RECORD_STR)
        return STR_NULL;
    memcpy(&t, (const unsigned char *)row + s->columns[column].at, sizeof t);
    return t.at ? (str){(const char *)row + t.at, t.n} : STR_NULL;
}
