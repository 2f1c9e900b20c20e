/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds the table that a field is looked up in. It is made once per plan and then only read, so
 * it may take its time to refuse what would bite later: two names, two fields in one place, a hole
 * in a row, a value that its tensor cannot hold.
 *
 * The hash table is open addressing with linear probing, at most half full; a slot holds the
 * column's number plus one.
 */
#include "base/hash.h"
#include "base/json.h"
#include "wire/fields_json.h"

#include <math.h>

#define HASH_SEED UINT64_C(0x6669656c6473)
#define TENSORS_MAX TENSOR_INPUTS_MAX

static const char *const type_words[] = {
    [FIELD_FLOAT] = "a number",     [FIELD_DOUBLE] = "a number", [FIELD_INT] = "an integer",
    [FIELD_BOOL] = "true or false", [FIELD_STRING] = "a string",
};

const struct field_column *field_table_find(const struct field_table *t, str name)
{
    uint64_t at = hash_str(name, HASH_SEED);

    for (;; at++) {
        uint32_t slot = t->slots[at & t->slot_mask];

        if (!slot)
            return NULL;
        if (str_eq(t->columns[slot - 1].name, name))
            return &t->columns[slot - 1];
    }
}

/* Whether the store can hold what the type lets through. */
static bool store_fits(const struct field_column *c)
{
    enum tensor_kind kind = tensor_type_kind(c->store);

    if (kind == TENSOR_KIND_HALF)
        return false;
    switch (c->type) {
    case FIELD_FLOAT:
    case FIELD_DOUBLE:
        return kind == TENSOR_KIND_FLOAT;
    case FIELD_INT:
        return kind == TENSOR_KIND_FLOAT || kind == TENSOR_KIND_SIGNED ||
               kind == TENSOR_KIND_UNSIGNED;
    case FIELD_BOOL:
        return kind != TENSOR_KIND_TEXT;
    case FIELD_STRING:
        return kind == TENSOR_KIND_TEXT || (c->categories && kind != TENSOR_KIND_BOOLEAN);
    }
    return false;
}

static int column_check(const struct field_column *c, struct err *e)
{
    enum tensor_kind kind = tensor_type_kind(c->store);
    char scratch[8];

    if (!c->name.n)
        return FAIL(e, INVALID_ARGUMENT, "a field has no name");
    if (!store_fits(c))
        return FAIL(e, INVALID_ARGUMENT,
                    "field '" STR_F "': %s cannot be stored in a tensor of %s%s", STR_A(c->name),
                    type_words[c->type], tensor_type_name(c->store),
                    c->type == FIELD_STRING ? "; give it categories" : "");
    if (c->has_min && c->has_max && !(c->min <= c->max))
        return FAIL(e, INVALID_ARGUMENT, "field '" STR_F "': min %g is above max %g",
                    STR_A(c->name), c->min, c->max);
    if (!c->required && !c->has_default && kind != TENSOR_KIND_FLOAT && kind != TENSOR_KIND_TEXT)
        return FAIL(e, INVALID_ARGUMENT,
                    "field '" STR_F "' is optional, and %s has no form for a missing value: make "
                    "it required or give it a default",
                    STR_A(c->name), tensor_type_name(c->store));
    if (kind != TENSOR_KIND_TEXT && c->has_default &&
        !tensor_put_number(c->store, scratch, c->default_num))
        return FAIL(e, INVALID_ARGUMENT, "field '" STR_F "': the default %g does not fit %s",
                    STR_A(c->name), c->default_num, tensor_type_name(c->store));
    if (kind != TENSOR_KIND_TEXT && c->categories &&
        !tensor_put_number(c->store, scratch, c->category_count))
        return FAIL(e, INVALID_ARGUMENT, "field '" STR_F "': %u categories do not fit %s",
                    STR_A(c->name), c->category_count, tensor_type_name(c->store));
    if (c->tensor >= TENSORS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "field '" STR_F "': tensor %u is past the limit of %d",
                    STR_A(c->name), c->tensor, TENSORS_MAX);
    return 0;
}

/* Each position of each tensor is held by exactly one column, and all of a tensor are alike. */
static int layout_check(struct field_table *t, struct arena *a, struct err *e)
{
    const struct field_column **of = ARENA_ARRAY(a, const struct field_column *, t->column_count);
    uint32_t *row_elements = ARENA_ARRAY(a, uint32_t, t->tensor_count);
    uint32_t *begin = ARENA_ARRAY(a, uint32_t, t->tensor_count + 1);
    enum tensor_type *store = ARENA_ARRAY(a, enum tensor_type, t->tensor_count);

    if (!of || !row_elements || !begin || !store)
        return FAIL(e, RESOURCE_EXHAUSTED, "the field table exceeds the memory of its plan");
    for (uint32_t i = 0; i < t->column_count; i++)
        store[t->columns[i].tensor] = t->columns[i].store, row_elements[t->columns[i].tensor]++;
    for (uint32_t i = 0; i < t->tensor_count; i++)
        begin[i + 1] = begin[i] + row_elements[i];
    for (uint32_t i = 0; i < t->column_count; i++) {
        const struct field_column *c = &t->columns[i];

        if (c->store != store[c->tensor])
            return FAIL(e, INVALID_ARGUMENT, "field '" STR_F "': tensor %u holds %s, not %s",
                        STR_A(c->name), c->tensor, tensor_type_name(store[c->tensor]),
                        tensor_type_name(c->store));
        if (c->position >= row_elements[c->tensor])
            return FAIL(e, INVALID_ARGUMENT,
                        "field '" STR_F "': position %u leaves a hole in a tensor of %u fields",
                        STR_A(c->name), c->position, row_elements[c->tensor]);
        if (of[begin[c->tensor] + c->position])
            return FAIL(e, INVALID_ARGUMENT,
                        "fields '" STR_F "' and '" STR_F "' have the same position",
                        STR_A(of[begin[c->tensor] + c->position]->name), STR_A(c->name));
        of[begin[c->tensor] + c->position] = c;
    }
    t->row_elements = row_elements;
    return 0;
}

static int slots_fill(struct field_table *t, struct arena *a, struct err *e)
{
    uint32_t size = 8, *slots;

    while (size < 2 * t->column_count)
        size *= 2;
    slots = ARENA_ARRAY(a, uint32_t, size);
    if (!slots)
        return FAIL(e, RESOURCE_EXHAUSTED, "the field table exceeds the memory of its plan");
    t->slots = slots;
    t->slot_mask = size - 1;
    for (uint32_t i = 0; i < t->column_count; i++) {
        uint64_t at = hash_str(t->columns[i].name, HASH_SEED);

        if (field_table_find(t, t->columns[i].name))
            return FAIL(e, INVALID_ARGUMENT, "field '" STR_F "' is there twice",
                        STR_A(t->columns[i].name));
        while (slots[at & t->slot_mask])
            at++;
        slots[at & t->slot_mask] = i + 1;
    }
    return 0;
}

static void column_copy(struct field_column *to, const struct field_column *from, struct arena *a)
{
    *to = *from;
    to->name = arena_dup(a, from->name);
    to->default_str = from->default_str.n ? arena_dup(a, from->default_str) : S("");
    if (from->categories) {
        str *copy = ARENA_ARRAY(a, str, from->category_count);

        for (uint32_t i = 0; copy && i < from->category_count; i++)
            copy[i] = arena_dup(a, from->categories[i]);
        to->categories = copy;
    }
}

int field_table_init(struct field_table *t, const struct field_column *columns,
                     uint32_t column_count, struct arena *a, struct err *e)
{
    struct field_table made = {.column_count = column_count};
    struct field_column *copy;

    if (!column_count || column_count > FIELDS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "a model of %u fields: expected 1 to %d", column_count,
                    FIELDS_MAX);
    copy = ARENA_ARRAY(a, struct field_column, column_count);
    for (uint32_t i = 0; i < column_count; i++) {
        TRY(column_check(&columns[i], e));
        made.tensor_count = MAX(made.tensor_count, columns[i].tensor + 1);
        if (copy)
            column_copy(&copy[i], &columns[i], a);
    }
    if (!copy || a->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the field table exceeds the memory of its plan");
    made.columns = copy;
    TRY(layout_check(&made, a, e));
    TRY(slots_fill(&made, a, e));
    *t = made;
    return 0;
}

static void categories_write(struct buf *to, const struct field_column *c)
{
    const uint32_t shown = 20;

    buf_add_str(to, S("one of "));
    for (uint32_t i = 0; i < MIN(c->category_count, shown); i++) {
        buf_add_str(to, i ? S(", \"") : S("\""));
        buf_add_str(to, c->categories[i]);
        buf_add_char(to, '"');
    }
    if (c->category_count > shown)
        buf_printf(to, ", ... (%u in all)", c->category_count);
}

void field_expected_write(struct buf *to, const struct field_column *c)
{
    if (c->type == FIELD_STRING && c->categories) {
        categories_write(to, c);
        return;
    }
    buf_add_str(to, str_of(type_words[c->type]));
    if (c->type == FIELD_BOOL || c->type == FIELD_STRING)
        return;
    if (c->has_min && c->has_max)
        buf_printf(to, " from %.15g to %.15g", c->min, c->max);
    else if (c->has_min)
        buf_printf(to, " of at least %.15g", c->min);
    else if (c->has_max)
        buf_printf(to, " of at most %.15g", c->max);
}
