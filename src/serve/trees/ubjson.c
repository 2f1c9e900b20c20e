/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A value is a type letter and its bytes, numbers in big-endian. Arrays and objects may state one
 * type for all their values ($) and their number (#); the values then have no letters.
 *
 * Invariant: memory is taken only for values whose bytes are there. A stated number is held against
 * the bytes left, so that a few bytes cannot ask for gigabytes (values without bytes, such as null,
 * are refused as the type of a whole array).
 */
#include "serve/trees/ubjson.h"

#define MEMBERS_MAX 1024 /* of one object; looking for duplicates is quadratic */

struct reader {
    const char *p, *end, *start;
    struct arena *arena;
};

static int broken(const struct reader *r, const char *what, struct err *e)
{
    return FAIL(e, INVALID_ARGUMENT, "byte %zu of the binary model: %s", (size_t)(r->p - r->start),
                what);
}

static NODISCARD int value_read(struct reader *r, char type, uint32_t depth,
                                struct json **ret_value, struct err *e);

static int byte_take(struct reader *r, char *ret_byte, struct err *e)
{
    if (r->p == r->end)
        return broken(r, "it ends too early", e);
    *ret_byte = *r->p++;
    return 0;
}

/* The letter of the next value; no-ops are skipped. */
static int type_take(struct reader *r, char *ret_type, struct err *e)
{
    do
        TRY(byte_take(r, ret_type, e));
    while (*ret_type == 'N');
    return 0;
}

static uint64_t big_endian(const char *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | (uint8_t)p[i];
    return v;
}

/* Bytes of a value of a fixed size, else 0. */
static size_t fixed_size(char type)
{
    switch (type) {
    case 'i':
    case 'U':
    case 'C':
        return 1;
    case 'I':
        return 2;
    case 'l':
    case 'd':
        return 4;
    case 'L':
    case 'D':
        return 8;
    default:
        return 0;
    }
}

static int int_read(struct reader *r, char type, int64_t *ret_value, struct err *e)
{
    size_t n = fixed_size(type);
    unsigned unused = (unsigned)(64 - 8 * n);
    uint64_t v;

    if (!n || type == 'd' || type == 'D' || type == 'C')
        return broken(r, "an integer was expected", e);
    if ((size_t)(r->end - r->p) < n)
        return broken(r, "it ends too early", e);
    v = big_endian(r->p, n);
    r->p += n;
    *ret_value = type == 'U' ? (int64_t)v : (int64_t)(v << unused) >> unused;
    return 0;
}

static int length_read(struct reader *r, size_t *ret_n, struct err *e)
{
    char type;
    int64_t n;

    TRY(type_take(r, &type, e));
    TRY(int_read(r, type, &n, e));
    if (n < 0 || n > r->end - r->p)
        return broken(r, "a length is larger than the rest", e);
    *ret_n = (size_t)n;
    return 0;
}

static int text_read(struct reader *r, str *ret_text, struct err *e)
{
    size_t n;

    TRY(length_read(r, &n, e));
    *ret_text = arena_dup(r->arena, (str){r->p, n});
    r->p += n;
    if (!str_is_utf8(*ret_text))
        return broken(r, "a text is not UTF-8", e);
    return 0;
}

/* The optional "$type" and "#count" of a container; *ret_type is 0 and *ret_count -1 without. */
static int header_read(struct reader *r, char *ret_type, int64_t *ret_count, struct err *e)
{
    size_t n;

    *ret_type = 0;
    *ret_count = -1;
    if (r->p < r->end && *r->p == '$') {
        r->p++;
        TRY(byte_take(r, ret_type, e));
        if (r->p == r->end || *r->p != '#')
            return broken(r, "a type of all values needs their number", e);
        if (!fixed_size(*ret_type) && !strchr("S[{H", *ret_type))
            return broken(r, "values of such a type cannot fill a list", e);
    }
    if (r->p < r->end && *r->p == '#') {
        r->p++;
        TRY(length_read(r, &n, e));
        *ret_count = (int64_t)n;
    }
    return 0;
}

static int container_read(struct reader *r, bool is_object, uint32_t depth, struct json **ret_value,
                          struct err *e)
{
    struct json *container = is_object ? json_new_object(r->arena) : json_new_array(r->arena);
    char all_type, type;
    int64_t count;

    if (depth > JSON_DEPTH_MAX)
        return broken(r, "it nests too deep", e);
    TRY(header_read(r, &all_type, &count, e));
    for (int64_t i = 0; count < 0 || i < count; i++) {
        struct json *value;
        str key = STR_NULL;

        if (count < 0) {
            while (r->p < r->end && *r->p == 'N')
                r->p++;
            if (r->p < r->end && *r->p == (is_object ? '}' : ']')) {
                r->p++;
                break;
            }
        }
        if (is_object)
            TRY(text_read(r, &key, e));
        type = all_type;
        if (!type)
            TRY(type_take(r, &type, e));
        TRY(value_read(r, type, depth, &value, e));
        if (r->arena->overflowed || !container)
            return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
        if (is_object && json_get(container, key))
            return broken(r, "a key is there twice", e);
        if (is_object && container->count == MEMBERS_MAX)
            return broken(r, "an object has more than 1024 members", e);
        value->key = key;
        json_push(container, value);
    }
    *ret_value = container;
    return 0;
}

static int real_read(struct reader *r, char type, struct json **ret_value, struct err *e)
{
    size_t n = fixed_size(type);
    uint64_t bits;
    uint32_t bits32;
    double v;
    float f;

    if ((size_t)(r->end - r->p) < n)
        return broken(r, "it ends too early", e);
    bits = big_endian(r->p, n);
    r->p += n;
    if (n == 4) {
        bits32 = (uint32_t)bits;
        memcpy(&f, &bits32, sizeof(f));
        v = f;
    } else {
        memcpy(&v, &bits, sizeof(v));
    }
    *ret_value = json_new_real(r->arena, v);
    return 0;
}

static int value_read(struct reader *r, char type, uint32_t depth, struct json **ret_value,
                      struct err *e)
{
    int64_t integer;
    str text;

    switch (type) {
    case '{':
    case '[':
        return container_read(r, type == '{', depth + 1, ret_value, e);
    case 'S':
    case 'H':
        TRY(text_read(r, &text, e));
        *ret_value = json_new_str(r->arena, text);
        return 0;
    case 'd':
    case 'D':
        return real_read(r, type, ret_value, e);
    case 'T':
    case 'F':
        *ret_value = json_new_bool(r->arena, type == 'T');
        return 0;
    case 'Z':
        *ret_value = json_new_null(r->arena);
        return 0;
    case 'C':
        return broken(r, "single characters have no place in a model", e);
    default:
        TRY(int_read(r, type, &integer, e));
        *ret_value = json_new_int(r->arena, integer);
        return 0;
    }
}

int ubjson_parse(str bytes, struct arena *a, struct json **ret_root, struct err *e)
{
    struct reader r = {bytes.p, bytes.p + bytes.n, bytes.p, a};
    struct json *root;
    char type;

    TRY(type_take(&r, &type, e));
    TRY(value_read(&r, type, 0, &root, e));
    if (a->overflowed)
        return FAIL(e, RESOURCE_EXHAUSTED, "the model is too large for the memory allowed");
    if (r.p != r.end)
        return broken(&r, "something follows the model", e);
    *ret_root = root;
    return 0;
}
