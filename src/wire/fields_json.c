/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a prediction request by field name, one pass, into the rows of the model's input tensors.
 *
 * Clients send the same fields in the same order each time, mostly the order of the model. So the
 * reader holds a guess, the column after the one found last, and compares the bytes of the name
 * with it; only when the guess fails is the name hashed.
 *
 * A row's fields are marked as seen by writing the row's number into a mark per column, so that
 * marks need not be cleared between rows. Columns that a row did not mark are missing.
 *
 * Invariants: nothing is written past rows_max rows or past cap_bytes of a tensor; every column of
 * every row is written, with a value, its default or NaN, when the read succeeds. A wrong value
 * never ends the read: it becomes a problem. Broken JSON does.
 */
#include "wire/fields_json.h"

#include "base/json.h"
#include "wire/json_scan.h"
#include "wire/tensor_json.h"

#include <math.h>

#define GOT_BYTES_MAX 64

struct reader {
    struct scan s;
    const struct field_table *table;
    struct tensor *inputs;
    uint32_t rows_max;
    uint32_t row;    /* the current one */
    uint32_t guess;  /* the column expected next */
    uint32_t seen;   /* columns of this row */
    uint32_t *marks; /* per column: the last row that had it, plus one */
    struct arena *arena;
    struct fields_request *q;
    struct field_problem **tail;
};

static int arena_full(struct err *e)
{
    return FAIL(e, RESOURCE_EXHAUSTED, "the request exceeds the memory of a request");
}

static int problem_add(struct reader *r, enum field_problem_kind kind, str field,
                       const struct field_column *column, str got, struct err *e)
{
    struct field_problem *p;

    if (r->q->problem_count++ >= FIELD_PROBLEMS_MAX)
        return 0;
    p = ARENA_NEW(r->arena, struct field_problem);
    if (!p)
        return arena_full(e);
    p->kind = kind;
    p->row = r->row;
    p->field = field;
    p->column = column;
    p->got = str_take(got, GOT_BYTES_MAX);
    /* Never cut a character in two: the text goes into an answer. */
    while (p->got.n < got.n && p->got.n && (got.p[p->got.n] & 0xC0) == 0x80)
        p->got.n--;
    *r->tail = p;
    r->tail = &p->next;
    return 0;
}

/* Where the value of a column goes in the current row. */
static inline void *place(const struct reader *r, const struct field_column *c)
{
    size_t at = (size_t)r->row * r->table->row_elements[c->tensor] + c->position;

    return (char *)r->inputs[c->tensor].data + at * tensor_type_bytes(c->store);
}

static inline bool number_store(const struct reader *r, const struct field_column *c, double value)
{
    return tensor_put_number(c->store, place(r, c), value);
}

/* An exact int64, which a double could not carry. */
static bool integer_store(const struct reader *r, const struct field_column *c, int64_t value)
{
    if (c->store == TENSOR_INT64 || (c->store == TENSOR_UINT64 && value >= 0)) {
        memcpy(place(r, c), &value, sizeof(value));
        return true;
    }
    return number_store(r, c, (double)value);
}

static void missing_store(const struct reader *r, const struct field_column *c)
{
    bool stored = true;

    if (c->store == TENSOR_BYTES)
        *(str *)place(r, c) = c->default_str;
    else
        stored = number_store(r, c, c->has_default ? c->default_num : NAN);
    ASSERT(stored); /* field_table_init tried it */
}

/* What a value came to: stored, or which problem. */
enum verdict { STORED, BAD_TYPE, BAD_RANGE, BAD_CATEGORY, BROKEN, FULL };

static enum verdict number_read(struct reader *r, const struct field_column *c)
{
    double value;
    int64_t integer;
    bool exact;
    const char *after = num_parse(r->s.p, r->s.end, &value, &integer, &exact);

    if (UNLIKELY(!after))
        return scan_value(&r->s, NULL) ? BAD_TYPE : BROKEN;
    r->s.p = after;
    if (c->type == FIELD_INT && !exact) {
        if (!(fabs(value) < 9007199254740992.0))
            return BAD_RANGE;
        integer = (int64_t)value;
        if ((double)integer != value)
            return BAD_TYPE;
        exact = true;
    }
    if ((c->has_min && value < c->min) || (c->has_max && value > c->max))
        return BAD_RANGE;
    if (c->type == FIELD_INT)
        return integer_store(r, c, integer) ? STORED : BAD_RANGE;
    return number_store(r, c, value) ? STORED : BAD_RANGE;
}

static enum verdict bool_read(struct reader *r, const struct field_column *c)
{
    bool value = scan_word(&r->s, S("true"));

    if (!value && !scan_word(&r->s, S("false")))
        return scan_value(&r->s, NULL) ? BAD_TYPE : BROKEN;
    if (!number_store(r, c, value))
        return BAD_RANGE;
    return STORED;
}

static enum verdict string_read(struct reader *r, const struct field_column *c)
{
    struct scan_text text;
    uint32_t i = 0;
    str value;

    if (r->s.p == r->s.end || *r->s.p != '"')
        return scan_value(&r->s, NULL) ? BAD_TYPE : BROKEN;
    if (!scan_string(&r->s, &text))
        return BROKEN;
    value = scan_unescape(text, r->arena);
    if (!value.p && text.raw.n)
        return FULL;
    ASSERT(value.p || !value.n);
    if (c->categories) {
        while (i < c->category_count && !str_eq(value, c->categories[i]))
            i++;
        if (i == c->category_count)
            return BAD_CATEGORY;
    }
    if (c->store == TENSOR_BYTES) {
        *(str *)place(r, c) = value;
        return STORED;
    }
    return number_store(r, c, i) ? STORED : BAD_RANGE;
}

static int value_read(struct reader *r, const struct field_column *c, struct err *e)
{
    enum verdict v;
    const char *from;

    scan_blank(&r->s);
    from = r->s.p;
    if (UNLIKELY(r->s.p < r->s.end && *from == 'n') && scan_word(&r->s, S("null"))) {
        if (c->required)
            return problem_add(r, FIELD_PROBLEM_MISSING, c->name, c, S("null"), e);
        missing_store(r, c);
        return 0;
    }
    switch (c->type) {
    case FIELD_BOOL:
        v = bool_read(r, c);
        break;
    case FIELD_STRING:
        v = string_read(r, c);
        break;
    default:
        v = number_read(r, c);
    }
    if (LIKELY(v == STORED))
        return 0;
    if (v == BROKEN)
        return scan_error(&r->s, e);
    if (v == FULL)
        return arena_full(e);
    return problem_add(r,
                       v == BAD_TYPE    ? FIELD_PROBLEM_TYPE
                       : v == BAD_RANGE ? FIELD_PROBLEM_RANGE
                                        : FIELD_PROBLEM_CATEGORY,
                       c->name, c, str_range(from, r->s.p), e);
}

static int unknown_field(struct reader *r, str name, struct err *e)
{
    struct field_problem **at = r->tail;
    str got, best = STR_NULL;
    size_t best_distance = SIZE_MAX;

    if (!scan_value(&r->s, &got))
        return scan_error(&r->s, e);
    TRY(problem_add(r, FIELD_PROBLEM_UNKNOWN, name, NULL, got, e));
    /* Suggestions cost a distance per column: only for the first few of a request. */
    if (!*at || r->q->problem_count > 8)
        return 0;
    for (uint32_t i = 0; i < r->table->column_count; i++) {
        size_t d = str_distance(name, r->table->columns[i].name);

        if (d < best_distance)
            best_distance = d, best = r->table->columns[i].name;
    }
    if (best_distance <= MAX((size_t)1, MIN(name.n, best.n) / 3))
        (*at)->suggestion = best;
    return 0;
}

static int field_read(struct reader *r, struct scan_text key, struct err *e)
{
    const struct field_table *t = r->table;
    const struct field_column *c = &t->columns[r->guess];
    uint32_t at;
    str got;

    if (UNLIKELY(key.escaped || !str_eq(key.raw, c->name))) {
        str name = scan_unescape(key, r->arena);

        if (!name.p && key.raw.n)
            return arena_full(e);
        c = field_table_find(t, name);
        if (!c)
            return unknown_field(r, name, e);
    }
    at = (uint32_t)(c - t->columns);
    r->guess = at + 1 < t->column_count ? at + 1 : 0;
    if (UNLIKELY(r->marks[at] == r->row + 1)) {
        if (!scan_value(&r->s, &got))
            return scan_error(&r->s, e);
        return problem_add(r, FIELD_PROBLEM_DUPLICATE, c->name, c, got, e);
    }
    r->marks[at] = r->row + 1;
    r->seen++;
    return value_read(r, c, e);
}

/* One {...} of fields into the current row. */
static int row_read(struct reader *r, struct err *e)
{
    struct scan_text key;
    bool first = true;

    r->guess = 0;
    r->seen = 0;
    if (!scan_open(&r->s, '{', "an object of fields"))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first))
        TRY(field_read(r, key, e));
    if (r->s.wrong)
        return scan_error(&r->s, e);
    if (r->seen < r->table->column_count)
        for (uint32_t i = 0; i < r->table->column_count; i++) {
            const struct field_column *c = &r->table->columns[i];

            if (r->marks[i] == r->row + 1)
                continue;
            if (c->required)
                TRY(problem_add(r, FIELD_PROBLEM_MISSING, c->name, c, S(""), e));
            else
                missing_store(r, c);
        }
    r->row++;
    return 0;
}

static int rows_read(struct reader *r, struct err *e)
{
    bool first = true;

    r->q->is_list = true;
    if (!scan_open(&r->s, '[', "a list of rows"))
        return scan_error(&r->s, e);
    while (scan_item(&r->s, &first)) {
        if (r->row == r->rows_max)
            return FAIL(e, RESOURCE_EXHAUSTED, "more than %u rows in one request: send fewer",
                        r->rows_max);
        TRY(row_read(r, e));
    }
    if (r->s.wrong)
        return scan_error(&r->s, e);
    return r->row ? 0 : FAIL(e, INVALID_ARGUMENT, "the list of rows is empty");
}

/* Takes request_id and user_id; everything else in metadata is the client's own. */
static int metadata_read(struct reader *r, struct err *e)
{
    struct scan_text key, text;
    const char *from;
    bool first = true;

    scan_blank(&r->s);
    from = r->s.p;
    if (!scan_open(&r->s, '{', "an object for \"metadata\""))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first)) {
        str *into = str_eq(key.raw, S("request_id")) ? &r->q->request_id
                    : str_eq(key.raw, S("user_id"))  ? &r->q->user_id
                                                     : NULL;

        if (into && into->p) {
            r->s.p = key.raw.p;
            scan_wrong(&r->s, "no duplicate key");
        } else if (into && scan_peek(&r->s) == '"') {
            if (scan_string(&r->s, &text)) {
                *into = scan_unescape(text, r->arena);
                if (!into->p)
                    return arena_full(e);
            }
        } else {
            scan_value(&r->s, NULL);
        }
        if (r->s.wrong)
            return scan_error(&r->s, e);
    }
    r->q->metadata = str_range(from, r->s.p);
    return r->s.wrong ? scan_error(&r->s, e) : 0;
}

static int member_read(struct reader *r, struct scan_text key, bool *has_features, struct err *e)
{
    bool is_features = str_eq(key.raw, S("features")), is_rows = str_eq(key.raw, S("rows"));

    if (is_features || is_rows) {
        if (*has_features)
            return FAIL(e, INVALID_ARGUMENT,
                        "JSON byte %zu: give \"features\" or \"rows\", and once",
                        (size_t)(key.raw.p - r->s.start));
        *has_features = true;
        if (is_rows || scan_peek(&r->s) == '[')
            return rows_read(r, e);
        return row_read(r, e);
    }
    if (str_eq(key.raw, S("metadata"))) {
        if (r->q->metadata.p)
            return FAIL(e, INVALID_ARGUMENT, "JSON byte %zu: \"metadata\" is given twice",
                        (size_t)(key.raw.p - r->s.start));
        return metadata_read(r, e);
    }
    return FAIL(e, INVALID_ARGUMENT,
                "JSON byte %zu: unknown member \"" STR_F "\", expected \"features\", \"rows\" or "
                "\"metadata\"",
                (size_t)(key.raw.p - r->s.start), STR_A(str_take(key.raw, 40)));
}

static int document_read(struct reader *r, struct err *e)
{
    struct scan_text key;
    bool first = true, has_features = false;

    if (!scan_open(&r->s, '{', "an object"))
        return scan_error(&r->s, e);
    while (scan_member(&r->s, &key, &first))
        TRY(member_read(r, key, &has_features, e));
    if (r->s.wrong || !scan_finish(&r->s))
        return scan_error(&r->s, e);
    if (!has_features)
        return FAIL(e, INVALID_ARGUMENT, "the request has no \"features\"");
    return 0;
}

/* Rows that the tensors have room for. */
static uint32_t rows_room(const struct field_table *t, const struct tensor *inputs,
                          uint32_t rows_max)
{
    for (uint32_t i = 0; i < t->tensor_count; i++) {
        size_t row = t->row_elements[i] * tensor_type_bytes(inputs[i].spec->datatype);

        ASSERT(tensor_row_elements(inputs[i].spec) == (int64_t)t->row_elements[i]);
        rows_max = (uint32_t)MIN((size_t)rows_max, row ? inputs[i].cap_bytes / row : rows_max);
    }
    return rows_max;
}

int fields_request_read(str json, const struct field_table *t, struct tensor *inputs,
                        uint32_t rows_max, struct arena *a, struct fields_request *request,
                        struct err *e)
{
    struct reader r = {.table = t, .inputs = inputs, .arena = a, .q = request};
    const struct field_problem *p;
    int rc;

    *request = (struct fields_request){.rows = 0};
    r.tail = &request->problems;
    r.rows_max = rows_room(t, inputs, rows_max);
    ASSERT(r.rows_max > 0);
    r.marks = ARENA_ARRAY(a, uint32_t, t->column_count);
    if (!r.marks)
        return arena_full(e);
    scan_begin(&r.s, json);
    rc = document_read(&r, e);
    if (rc) { /* what was wrong with fields does not matter in a broken document */
        request->problem_count = 0;
        request->problems = NULL;
        return rc;
    }
    request->rows = r.row;
    p = request->problems;
    if (p)
        return FAIL(e, INVALID_ARGUMENT, "%u %s wrong, first '" STR_F "'", request->problem_count,
                    request->problem_count == 1 ? "field is" : "fields are",
                    STR_A(str_take(p->field, 64)));
    for (uint32_t i = 0; i < t->tensor_count; i++) {
        inputs[i].present = true;
        tensor_set_rows(&inputs[i], r.row);
    }
    return 0;
}

static const char *const problem_names[] = {
#define FIELD_PROBLEM(name, text, help) [FIELD_PROBLEM_##name] = text,
    FIELD_PROBLEM_LIST(FIELD_PROBLEM)
#undef FIELD_PROBLEM
};

static void expected_member(struct json_out *o, struct buf *words, const struct field_problem *p)
{
    buf_clear(words);
    if (p->kind == FIELD_PROBLEM_DUPLICATE)
        buf_add_str(words, S("the field once"));
    else if (p->column)
        field_expected_write(words, p->column);
    else
        buf_add_str(words, S("a field of the model"));
    jo_kstr(o, S("expected"), buf_str(words));
}

void fields_error_write(struct buf *to, const struct fields_request *request, const struct err *e)
{
    AUTO(buf_done) struct buf words = {0};
    struct json_out o;

    buf_init(&words, 1 << 16);
    infer_error_begin(&o, to, e);
    if (request->problem_count) {
        jo_kint(&o, S("problems"), request->problem_count);
        jo_key(&o, S("fields"));
        jo_array(&o);
        for (const struct field_problem *p = request->problems; p; p = p->next) {
            jo_object(&o);
            if (request->is_list)
                jo_kint(&o, S("row"), p->row);
            jo_kstr(&o, S("field"), p->field);
            jo_kstr(&o, S("problem"), str_of(problem_names[p->kind]));
            expected_member(&o, &words, p);
            if (p->got.n)
                jo_kstr(&o, S("got"), p->got);
            if (p->suggestion.n)
                jo_kstr(&o, S("did_you_mean"), p->suggestion);
            jo_object_end(&o);
        }
        jo_array_end(&o);
    }
    jo_object_end(&o);
}
