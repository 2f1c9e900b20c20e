/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The innermost loops of the gateway: numbers from JSON text into tensor memory.
 *
 * A run is the longest stretch of scalars between two brackets: the whole array when data is flat,
 * one row of the last dimension when it is nested. There is one loop per kind of element; the shape
 * is known and has been checked against the memory, so a run knows how many elements to expect and
 * where they go before it starts.
 *
 * Invariant: at most t->count elements are written, whatever the text holds.
 *
 * A run that meets something else stops with RUN_ODD at the odd place. Only then, off the hot path,
 * is it worked out what to say; the array is then skipped with the general scanner, which also
 * tells broken JSON from a wrong value.
 */
#include "wire/tensor_data.h"

#include "wire/tensor_json.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum run_end {
    RUN_DONE,
    RUN_ODD,      /* something that is no such element stands at p */
    RUN_RANGE,    /* the number at p does not fit the datatype */
    RUN_FRACTION, /* the number at p is not integral */
    RUN_SHORT,    /* a bracket closes too early */
    RUN_LONG,     /* a further element where a bracket should close */
    RUN_SHALLOW,  /* not nested where its shape is */
    RUN_DEEP,     /* nested deeper than its shape */
    RUN_FULL,     /* the arena is */
};

struct run {
    struct scan *s;
    struct tensor *t;
    struct arena *arena;
    bool null_is_nan;
    size_t done; /* elements written */
};

void problems_add(struct problems *ps, const char *fmt, ...)
{
    va_list args;
    int n;

    if (ps->count++ >= TENSOR_JSON_PROBLEMS_MAX)
        return;
    if (ps->n && ps->n + 3 < sizeof(ps->text)) {
        memcpy(ps->text + ps->n, "; ", 3);
        ps->n += 2;
    }
    va_start(args, fmt);
    n = vsnprintf(ps->text + ps->n, sizeof(ps->text) - ps->n, fmt, args);
    va_end(args);
    ps->n = MIN(ps->n + (size_t)n, sizeof(ps->text) - 1);
}

int problems_end(const struct problems *ps, struct err *e)
{
    if (!ps->count)
        return 0;
    if (ps->count > TENSOR_JSON_PROBLEMS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%s; and %u more", ps->text,
                    ps->count - TENSOR_JSON_PROBLEMS_MAX);
    return FAIL(e, INVALID_ARGUMENT, "%s", ps->text);
}

/* Between two elements: takes the comma and the blanks around it. */
static inline bool separator(struct scan *s)
{
    if (LIKELY(s->p < s->end && *s->p == ','))
        s->p++;
    else if (!scan_take(s, ','))
        return false;
    scan_blank(s);
    return true;
}

/* The loops share their frame: STORE takes the element at s->p and moves past it, or returns. */
#define RUN_LOOP(STORE)                                       \
    for (size_t i = 0; i < n; i++) {                          \
        if (i ? !separator(s) : (scan_blank(s), false))       \
            return scan_peek(s) == ']' ? RUN_SHORT : RUN_ODD; \
        STORE;                                                \
        r->done++;                                            \
    }                                                         \
    return RUN_DONE

/* The end of a run that found no number: null as a missing value, or an odd thing. */
static inline bool take_nan(struct run *r)
{
    return r->null_is_nan && scan_word(r->s, S("null"));
}

static enum run_end run_f32(struct run *r, size_t n)
{
    float *to = (float *)r->t->data + r->done;
    struct scan *s = r->s;
    double value;
    int64_t integer;
    bool exact;

    RUN_LOOP({
        const char *after = num_parse(s->p, s->end, &value, &integer, &exact);

        if (LIKELY(after != NULL)) {
            to[i] = (float)value;
            if (UNLIKELY(isinf(to[i])))
                return RUN_RANGE;
            s->p = after;
        } else if (take_nan(r)) {
            to[i] = NAN;
        } else {
            return RUN_ODD;
        }
    });
}

static enum run_end run_f64(struct run *r, size_t n)
{
    double *to = (double *)r->t->data + r->done;
    struct scan *s = r->s;
    int64_t integer;
    bool exact;

    RUN_LOOP({
        const char *after = num_parse(s->p, s->end, &to[i], &integer, &exact);

        if (LIKELY(after != NULL)) {
            if (UNLIKELY(isinf(to[i])))
                return RUN_RANGE;
            s->p = after;
        } else if (take_nan(r)) {
            to[i] = NAN;
        } else {
            return RUN_ODD;
        }
    });
}

/* Where the number that starts at p ends; p when there is none. */
static const char *number_end(const char *p, const char *end)
{
    while (p < end && *p && strchr("+-.eE0123456789", *p))
        p++;
    return p;
}

/* The integer at p. "3.0" and "3e2" are integers too; beyond 2^53 a fraction part is not trusted.
 */
static enum run_end integer_take(struct scan *s, int64_t min, uint64_t max, uint64_t *ret_bits)
{
    double value;
    int64_t integer;
    bool exact;
    const char *after = num_parse(s->p, s->end, &value, &integer, &exact);

    if (!after)
        return RUN_ODD;
    if (!exact) {
        uint64_t big;

        if (max > INT64_MAX && str_to_u64(str_range(s->p, after), &big)) {
            *ret_bits = big, s->p = after;
            return RUN_DONE;
        }
        if (!(fabs(value) < 9007199254740992.0))
            return RUN_RANGE;
        integer = (int64_t)value;
        if ((double)integer != value)
            return RUN_FRACTION;
    }
    if (integer < min || (integer > 0 && (uint64_t)integer > max))
        return RUN_RANGE;
    *ret_bits = (uint64_t)integer, s->p = after;
    return RUN_DONE;
}

static enum run_end run_int(struct run *r, size_t n)
{
    size_t size = tensor_type_bytes(r->t->spec->datatype);
    bool is_signed = tensor_type_kind(r->t->spec->datatype) == TENSOR_KIND_SIGNED;
    uint64_t max = UINT64_MAX >> (64 - 8 * size + is_signed);
    int64_t min = is_signed ? -(int64_t)max - 1 : 0;
    char *to = (char *)r->t->data + r->done * size;
    struct scan *s = r->s;

    RUN_LOOP({
        uint64_t bits;
        enum run_end end = integer_take(s, min, max, &bits);

        if (UNLIKELY(end != RUN_DONE))
            return end;
        memcpy(to + i * size, &bits, size); /* little-endian: the low bytes come first */
    });
}
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors lie as the protocol sends them");

static enum run_end run_bool(struct run *r, size_t n)
{
    uint8_t *to = (uint8_t *)r->t->data + r->done;
    struct scan *s = r->s;

    RUN_LOOP({
        if (scan_word(s, S("true")))
            to[i] = 1;
        else if (scan_word(s, S("false")))
            to[i] = 0;
        else
            return RUN_ODD;
    });
}

static enum run_end run_bytes(struct run *r, size_t n)
{
    str *to = (str *)r->t->data + r->done;
    struct scan *s = r->s;
    struct scan_text text;

    RUN_LOOP({
        if (s->p == s->end || *s->p != '"' || !scan_string(s, &text))
            return RUN_ODD;
        to[i] = scan_unescape(text, r->arena);
        if (UNLIKELY(!to[i].p && text.raw.n))
            return RUN_FULL;
    });
}

static enum run_end run_elements(struct run *r, size_t n)
{
    switch (tensor_type_kind(r->t->spec->datatype)) {
    case TENSOR_KIND_FLOAT:
        return r->t->spec->datatype == TENSOR_FP32 ? run_f32(r, n) : run_f64(r, n);
    case TENSOR_KIND_SIGNED:
    case TENSOR_KIND_UNSIGNED:
        return run_int(r, n);
    case TENSOR_KIND_BOOLEAN:
        return run_bool(r, n);
    case TENSOR_KIND_TEXT:
        return run_bytes(r, n);
    case TENSOR_KIND_HALF:
        break;
    }
    return RUN_ODD;
}

/* A run with its brackets. */
static enum run_end run_bracketed(struct run *r, size_t n)
{
    enum run_end end;
    char c;

    if (!scan_take(r->s, '['))
        return RUN_SHALLOW;
    c = scan_peek(r->s);
    if (c == '[')
        return RUN_DEEP;
    if (c == ']' && n)
        return RUN_SHORT;
    end = run_elements(r, n);
    if (UNLIKELY(end != RUN_DONE))
        return end;
    if (LIKELY(scan_take(r->s, ']')))
        return RUN_DONE;
    return n == 0 || scan_peek(r->s) == ',' ? RUN_LONG : RUN_ODD;
}

/* Dimension `level` of nested data; at most TENSOR_RANK_MAX calls deep. */
static enum run_end nested(struct run *r, uint32_t level)
{
    const struct tensor *t = r->t;
    int64_t n = t->shape[level];

    if (level + 1 == t->rank)
        return run_bracketed(r, (size_t)n);
    if (!scan_take(r->s, '['))
        return RUN_SHALLOW;
    for (int64_t i = 0; i < n; i++) {
        enum run_end end;

        if (i && !scan_take(r->s, ','))
            return scan_peek(r->s) == ']' ? RUN_SHORT : RUN_ODD;
        if (i == 0 && scan_peek(r->s) == ']')
            return RUN_SHORT;
        end = nested(r, level + 1);
        if (end != RUN_DONE)
            return end;
    }
    if (scan_take(r->s, ']'))
        return RUN_DONE;
    return n == 0 || scan_peek(r->s) == ',' ? RUN_LONG : RUN_ODD;
}

/* True when data that starts at s->p (a '[') is nested: its first item is a list. */
static bool is_nested(const struct scan *s)
{
    struct scan look = *s;

    return scan_take(&look, '[') && scan_peek(&look) == '[';
}

/* Scalars in the well-formed text of an array, however nested. */
static size_t scalars_count(str text)
{
    struct scan s;
    size_t n = 0;

    scan_begin(&s, text);
    while (scan_peek(&s)) {
        if (strchr("[],", *s.p))
            s.p++;
        else if (++n, !scan_value(&s, NULL))
            break;
    }
    return n;
}

static const char *element_wanted(enum tensor_type type)
{
    switch (tensor_type_kind(type)) {
    case TENSOR_KIND_BOOLEAN:
        return "true or false";
    case TENSOR_KIND_TEXT:
        return "a string";
    case TENSOR_KIND_SIGNED:
    case TENSOR_KIND_UNSIGNED:
        return "an integer";
    default:
        return "a number";
    }
}

/* Says what is wrong; `at` is a cursor at the odd place, `data` the whole array. */
static void explain(const struct run *r, enum run_end end, struct scan *at, str data,
                    struct problems *ps)
{
    const struct tensor_spec *spec = r->t->spec;
    const char *type = tensor_type_name(spec->datatype);
    char shape[TENSOR_SHAPE_TEXT_MAX];
    str number;

    tensor_shape_text(r->t->shape, r->t->rank, shape);
    scan_blank(at);
    number = str_take(str_range(at->p, number_end(at->p, at->end)), 40);
    switch (end) {
    case RUN_ODD:
        problems_add(ps, "input '" STR_F "': element %zu is %s, expected %s (%s)",
                     STR_A(spec->name), r->done, scan_kind(at), element_wanted(spec->datatype),
                     type);
        break;
    case RUN_RANGE:
        problems_add(ps, "input '" STR_F "': element %zu is " STR_F ", which does not fit %s",
                     STR_A(spec->name), r->done, STR_A(number), type);
        break;
    case RUN_FRACTION:
        problems_add(ps, "input '" STR_F "': element %zu is " STR_F ", expected an integer (%s)",
                     STR_A(spec->name), r->done, STR_A(number), type);
        break;
    case RUN_SHALLOW:
    case RUN_DEEP:
        problems_add(ps, "input '" STR_F "': data is nested %s than its shape %s",
                     STR_A(spec->name), end == RUN_DEEP ? "deeper" : "less deep", shape);
        break;
    default: {
        size_t got = scalars_count(data);

        if (got == r->t->count)
            problems_add(ps,
                         "input '" STR_F "': the lists in data do not have the lengths of its "
                         "shape %s",
                         STR_A(spec->name), shape);
        else
            problems_add(ps, "input '" STR_F "': data has %zu elements, its shape %s needs %zu",
                         STR_A(spec->name), got, shape, r->t->count);
    }
    }
}

bool tensor_data_read(struct scan *s, struct tensor *t, bool null_is_nan, struct arena *a,
                      struct problems *ps)
{
    struct run r = {.s = s, .t = t, .arena = a, .null_is_nan = null_is_nan};
    struct scan begin, odd;
    enum run_end end;
    str data;

    ASSERT(t->bytes <= t->cap_bytes);
    scan_blank(s);
    begin = *s;
    end = is_nested(s) && t->rank > 0 ? nested(&r, 0) : run_bracketed(&r, t->count);
    if (LIKELY(end == RUN_DONE))
        return true;
    if (end == RUN_FULL || s->wrong)
        return false;
    odd = *s;
    *s = begin;
    if (!scan_value(s, &data))
        return false;
    explain(&r, end, &odd, data, ps);
    return true;
}
