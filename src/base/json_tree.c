/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of values: looking into them, building them, comparing them.
 *
 * Keys of one object are unique. While an object is read they are compared one by one up to
 * SMALL_OBJECT members; then a hash table with a random seed takes over, so that neither many keys
 * nor chosen keys cost quadratic time. json_get and json_set walk the members: they are for
 * documents, whose objects are small.
 *
 * Numbers compare by value: 1 and 1.0 are equal, and both are written "1".
 */
#include "base/json_priv.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>

#define SMALL_OBJECT 8

/* --- Unique keys -------------------------------------------------------------------------- */

static struct json **slot_of(const struct json_keys *keys, str key)
{
    size_t at = hash_str(key, keys->seed) & keys->mask;

    while (keys->slots[at] && !str_eq(keys->slots[at]->key, key))
        at = (at + 1) & keys->mask;
    return &keys->slots[at];
}

/* At most half of the slots are in use. */
static void keys_grow(struct json_keys *keys, struct arena *a, const struct json *object)
{
    size_t slots = keys->slots ? (keys->mask + 1) * 4 : SMALL_OBJECT * 4;

    if (!keys->slots)
        keys->seed = random_u64();
    keys->slots = ARENA_ARRAY(a, struct json *, slots);
    keys->mask = slots - 1;
    if (!keys->slots)
        return;
    JSON_EACH (m, object)
        *slot_of(keys, m->key) = m;
}

struct json *json_keys_append(struct json_keys *keys, struct arena *a, struct json *object,
                              struct json *member)
{
    struct json **slot = NULL, *first;

    ASSERT(object->type == JSON_OBJECT);
    if (object->count >= SMALL_OBJECT && (!keys->slots || object->count * 2 > keys->mask))
        keys_grow(keys, a, object);
    if (keys->slots) {
        slot = slot_of(keys, member->key);
        first = *slot;
    } else {
        first = object->count < SMALL_OBJECT ? json_get(object, member->key) : NULL;
    }
    if (first)
        return first;
    if (slot)
        *slot = member;
    json_push(object, member);
    return NULL;
}

/* --- Looking ------------------------------------------------------------------------------ */

struct json *json_get(const struct json *object, str key)
{
    if (!object || object->type != JSON_OBJECT)
        return NULL;
    JSON_EACH (m, object)
        if (str_eq(m->key, key))
            return m;
    return NULL;
}

struct json *json_path(const struct json *root, const char *dotted)
{
    str rest = str_of(dotted);
    struct json *node = NULL;

    while (rest.p) {
        node = json_get(root, str_cut(&rest, '.'));
        root = node;
    }
    return node;
}

struct json *json_at(const struct json *array, size_t i)
{
    if (!array || array->type != JSON_ARRAY)
        return NULL;
    JSON_EACH (item, array)
        if (i-- == 0)
            return item;
    return NULL;
}

str json_str_or(const struct json *node, str def)
{
    return node && node->type == JSON_STR ? node->string : def;
}

int64_t json_int_or(const struct json *node, int64_t def)
{
    return node && node->type == JSON_INT ? node->integer : def;
}

double json_real_or(const struct json *node, double def)
{
    if (node && node->type == JSON_INT)
        return (double)node->integer;
    return node && node->type == JSON_REAL ? node->real : def;
}

bool json_bool_or(const struct json *node, bool def)
{
    return node && node->type == JSON_BOOL ? node->boolean : def;
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",     [JSON_BOOL] = "boolean", [JSON_INT] = "integer",
        [JSON_REAL] = "number",   [JSON_STR] = "string",   [JSON_ARRAY] = "array",
        [JSON_OBJECT] = "object",
    };

    ASSERT((size_t)type < ARRAY_LEN(names));
    return names[type];
}

/* "3:7: " for a node that came from a text, nothing for a built one. */
static str place_of(const struct json *node, char *text, size_t size)
{
    struct buf b;

    buf_init_fixed(&b, text, size);
    if (node && node->line) {
        buf_add_u64(&b, node->line);
        buf_add_char(&b, ':');
        buf_add_u64(&b, node->col);
        buf_add_str(&b, S(": "));
    }
    return buf_str(&b);
}

static int need(const struct json *object, str key, const char *expected,
                bool (*fits)(enum json_type), struct json **ret, struct err *e)
{
    struct json *node = json_get(object, key);
    char place[32];

    if (node && fits(node->type)) {
        *ret = node;
        return 0;
    }
    if (node)
        return FAIL(e, INVALID_ARGUMENT, STR_F "'" STR_F "' is of type %s, expected %s",
                    STR_A(place_of(node, place, sizeof(place))), STR_A(str_take(key, 128)),
                    json_type_name(node->type), expected);
    if (object && object->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, STR_F "found %s, expected an object with '" STR_F "'",
                    STR_A(place_of(object, place, sizeof(place))), json_type_name(object->type),
                    STR_A(str_take(key, 128)));
    if (object && object->key.n)
        return FAIL(e, INVALID_ARGUMENT, STR_F "'" STR_F "' has no '" STR_F "', expected %s",
                    STR_A(place_of(object, place, sizeof(place))),
                    STR_A(str_take(object->key, 128)), STR_A(str_take(key, 128)), expected);
    return FAIL(e, INVALID_ARGUMENT, STR_F "'" STR_F "' is missing, expected %s",
                STR_A(place_of(object, place, sizeof(place))), STR_A(str_take(key, 128)), expected);
}

static bool is_str(enum json_type t)
{
    return t == JSON_STR;
}
static bool is_int(enum json_type t)
{
    return t == JSON_INT;
}
static bool is_number(enum json_type t)
{
    return t == JSON_INT || t == JSON_REAL;
}
static bool is_object(enum json_type t)
{
    return t == JSON_OBJECT;
}
static bool is_array(enum json_type t)
{
    return t == JSON_ARRAY;
}

int json_need_str(const struct json *object, str key, str *ret, struct err *e)
{
    struct json *node;

    TRY(need(object, key, "a string", is_str, &node, e));
    *ret = node->string;
    return 0;
}

int json_need_int(const struct json *object, str key, int64_t *ret, struct err *e)
{
    struct json *node;

    TRY(need(object, key, "an integer", is_int, &node, e));
    *ret = node->integer;
    return 0;
}

int json_need_real(const struct json *object, str key, double *ret, struct err *e)
{
    struct json *node;

    TRY(need(object, key, "a number", is_number, &node, e));
    *ret = json_real_or(node, 0);
    return 0;
}

int json_need_object(const struct json *object, str key, struct json **ret, struct err *e)
{
    return need(object, key, "an object", is_object, ret, e);
}

int json_need_array(const struct json *object, str key, struct json **ret, struct err *e)
{
    return need(object, key, "an array", is_array, ret, e);
}

/* --- Building ----------------------------------------------------------------------------- */

static struct json *node_of(struct arena *a, enum json_type type)
{
    struct json *node = ARENA_NEW(a, struct json);

    if (node)
        node->type = type;
    return node;
}

struct json *json_new_null(struct arena *a)
{
    return node_of(a, JSON_NULL);
}

struct json *json_new_bool(struct arena *a, bool v)
{
    struct json *node = node_of(a, JSON_BOOL);

    if (node)
        node->boolean = v;
    return node;
}

struct json *json_new_int(struct arena *a, int64_t v)
{
    struct json *node = node_of(a, JSON_INT);

    if (node)
        node->integer = v;
    return node;
}

struct json *json_new_real(struct arena *a, double v)
{
    struct json *node = node_of(a, JSON_REAL);

    if (node)
        node->real = v;
    return node;
}

struct json *json_new_str(struct arena *a, str v)
{
    struct json *node = node_of(a, JSON_STR);

    if (node)
        node->string = v;
    return node;
}

struct json *json_new_array(struct arena *a)
{
    return node_of(a, JSON_ARRAY);
}

struct json *json_new_object(struct arena *a)
{
    return node_of(a, JSON_OBJECT);
}

struct json *json_push(struct json *array, struct json *value)
{
    if (!array || !value)
        return NULL;
    ASSERT(json_is_container(array));
    value->next = NULL;
    if (array->last)
        array->last->next = value;
    else
        array->first = value;
    array->last = value;
    array->count++;
    return value;
}

struct json *json_set(struct json *object, str key, struct json *value)
{
    struct json **link, *before = NULL;

    if (!object || !value)
        return NULL;
    ASSERT(object->type == JSON_OBJECT);
    value->key = key;
    for (link = &object->first; *link; before = *link, link = &(*link)->next) {
        if (!str_eq((*link)->key, key))
            continue;
        value->next = (*link)->next;
        *link = value;
        if (!value->next)
            object->last = value;
        return value;
    }
    ASSERT(object->last == before);
    return json_push(object, value);
}

struct json *json_set_str(struct arena *a, struct json *object, str key, str v)
{
    return json_set(object, key, json_new_str(a, v));
}

struct json *json_set_int(struct arena *a, struct json *object, str key, int64_t v)
{
    return json_set(object, key, json_new_int(a, v));
}

struct json *json_set_real(struct arena *a, struct json *object, str key, double v)
{
    return json_set(object, key, json_new_real(a, v));
}

struct json *json_set_finite(struct arena *a, struct json *object, str key, double v)
{
    return isfinite(v) ? json_set_real(a, object, key, v) : NULL;
}

struct json *json_set_bool(struct arena *a, struct json *object, str key, bool v)
{
    return json_set(object, key, json_new_bool(a, v));
}

struct json *json_copy(struct arena *a, const struct json *node)
{
    struct json *copy = ARENA_NEW(a, struct json);

    if (!copy)
        return NULL;
    *copy = *node;
    copy->next = NULL;
    copy->key = node->key.p ? arena_dup(a, node->key) : STR_NULL;
    if (node->type == JSON_STR)
        copy->string = arena_dup(a, node->string);
    if (json_is_container(node)) {
        copy->first = copy->last = NULL;
        copy->count = 0;
        JSON_EACH (child, node)
            if (!json_push(copy, json_copy(a, child)))
                return NULL;
    }
    return a->overflowed ? NULL : copy;
}

/* --- Comparing ---------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    return str_cmp((*(struct json *const *)a)->key, (*(struct json *const *)b)->key);
}

struct json **json_sorted_members(const struct json *object)
{
    struct json **members = mem_alloc(object->count * sizeof(*members));
    size_t n = 0;

    JSON_EACH (m, object)
        members[n++] = m;
    if (n)
        qsort(members, n, sizeof(*members), compare_keys);
    return members;
}

/* Exact: the integer is never rounded to a double. */
static bool number_equal(const struct json *a, const struct json *b)
{
    if (a->type == b->type)
        return a->type == JSON_INT ? a->integer == b->integer
                                   : a->real == b->real || (isnan(a->real) && isnan(b->real));
    if (a->type == JSON_REAL)
        return number_equal(b, a);
    return json_is_whole(b->real) && a->integer == (int64_t)b->real;
}

static bool object_equal(const struct json *a, const struct json *b)
{
    AUTO(mem_freep) struct json **in_a = NULL;
    AUTO(mem_freep) struct json **in_b = NULL;

    in_a = json_sorted_members(a);
    in_b = json_sorted_members(b);
    for (size_t i = 0; i < a->count; i++)
        if (!str_eq(in_a[i]->key, in_b[i]->key) || !json_equal(in_a[i], in_b[i]))
            return false;
    return true;
}

static bool array_equal(const struct json *a, const struct json *b)
{
    const struct json *in_b = b->first;

    JSON_EACH (in_a, a) {
        if (!json_equal(in_a, in_b))
            return false;
        in_b = in_b->next;
    }
    return true;
}

bool json_equal(const struct json *a, const struct json *b)
{
    if (!a || !b)
        return a == b; /* what is missing equals only what is missing */
    if (is_number(a->type) && is_number(b->type))
        return number_equal(a, b);
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case JSON_BOOL:
        return a->boolean == b->boolean;
    case JSON_STR:
        return str_eq(a->string, b->string);
    case JSON_ARRAY:
        return a->count == b->count && array_equal(a, b);
    case JSON_OBJECT:
        return a->count == b->count && object_equal(a, b);
    default:
        return true;
    }
}
