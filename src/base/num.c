/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers to text and back without printf in the common case.
 *
 * Both directions rest on one idea: do the scaling by a power of ten in an arithmetic that is wider
 * than the number, know a bound of the error, and give the case to libc when the answer lies within
 * that bound of a decision. The wide arithmetic is long double where it has 64 bits of significand
 * or more (x86: 64); elsewhere libc decides those cases, slower and as right.
 *
 * Reading: digits w (at most 19, exact) and exponent e. When w < 2^53 and |e| <= 22 one double
 * operation is exact enough (Clinger, "How to read floating point numbers accurately", 1990).
 * Otherwise w * 10^e in long double is wrong by less than 4 units of its last place; unless the 11
 * bits to be rounded away lie that near to the half, rounding them gives the right double.
 *
 * Writing: v is scaled to x, whose integer part has 17 or 18 digits (a float: 9 or 10). All
 * decimals within half a unit in the last place of v read back as v; in the scaled world this is an
 * interval of half-width h around x. The nearest multiple of 10000, 1000, 100, 10 or 1 that lies in
 * it gives the shortest text, since every decimal of DBL_DIG digits survives the trip through a
 * double. x and h are 128-bit fixed-point numbers: exact for the sizes that data has (1e-11 to
 * 1e17, a float from 1e-19), because 5^27 fits 64 bits, else from long double. Powers of two, whose
 * interval is lopsided, and subnormals go the slow way, as do near-ties: text must not depend on
 * the machine, for it enters content addresses.
 *
 * The layout of digits is that of ECMAScript's Number::toString, which is also what RFC 8785 asks.
 */
#include "base/num.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define NUMBER_BYTES_MAX 400

#if LDBL_MANT_DIG == 64
#define WIDE 1
#else
#define WIDE 0
#endif

/* Exact in double. */
static const double tens_exact[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* Exact to 10^27 in a 64-bit significand, then rounded. */
static const long double tens_low[32] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,  1e7L,
                                         1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L, 1e14L, 1e15L,
                                         1e16L, 1e17L, 1e18L, 1e19L, 1e20L, 1e21L, 1e22L, 1e23L,
                                         1e24L, 1e25L, 1e26L, 1e27L, 1e28L, 1e29L, 1e30L, 1e31L};
#define TENS_HIGH_MIN (-12) /* 10^-384 */
static const long double tens_high[] = {1e-384L, 1e-352L, 1e-320L, 1e-288L, 1e-256L, 1e-224L,
                                        1e-192L, 1e-160L, 1e-128L, 1e-96L,  1e-64L,  1e-32L,
                                        1e0L,    1e32L,   1e64L,   1e96L,   1e128L,  1e160L,
                                        1e192L,  1e224L,  1e256L,  1e288L,  1e320L,  1e352L};

/* x * 10^e for -384 <= e < 384, wrong by less than 3 units in the last place (at most two rounded
 * factors, each within half a unit, and two rounded products). */
static inline long double scale10(long double x, int e)
{
    unsigned at = (unsigned)(e - TENS_HIGH_MIN * 32);

    if (e >= 0 && e < 32)
        return x * tens_low[e];
    return x * tens_high[at >> 5] * tens_low[at & 31];
}

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void c_locale_make(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    ASSERT(c_locale);
}

double num_strtod(const char *z, char **ret_end)
{
    pthread_once(&c_locale_once, c_locale_make);
    return strtod_l(z, ret_end, c_locale);
}

float num_strtof(const char *z, char **ret_end)
{
    pthread_once(&c_locale_once, c_locale_make);
    return strtof_l(z, ret_end, c_locale);
}

/* --- Reading ------------------------------------------------------------------------------ */

/* What the grammar found. */
struct decimal {
    uint64_t digits; /* the first 19 significant digits */
    int64_t exponent;
    int significant;    /* how many of them there were */
    bool negative, cut; /* cut: there were more than 19, digits are not exact */
};

static inline bool is_digit(char c)
{
    return (unsigned)(c - '0') <= 9;
}

/* Eight ASCII digits at once, when all eight bytes are digits: pairs, then fours, then eight. */
static inline bool eight_digits(const char *p, uint64_t *ret_value)
{
    uint64_t w;

    memcpy(&w, p, 8);
    if (((w & 0xF0F0F0F0F0F0F0F0u) | ((w + 0x0606060606060606u) & 0xF0F0F0F0F0F0F0F0u) >> 4) !=
        0x3333333333333333u)
        return false;
    w -= 0x3030303030303030u;
    w = w * 10 + (w >> 8);
    w = (w & 0x00FF00FF00FF00FFu) * 100 + (w >> 16 & 0x00FF00FF00FF00FFu);
    w = (w & 0x0000FFFF0000FFFFu) * 10000 + (w >> 32 & 0x0000FFFF0000FFFFu);
    *ret_value = w & 0xFFFFFFFFu;
    return true;
}

static inline const char *take_digits(const char *p, const char *end, struct decimal *d)
{
    uint64_t eight;

    for (; p < end && is_digit(*p); p++) {
        if (d->significant > 0 && d->significant <= 11 && end - p >= 8 && eight_digits(p, &eight)) {
            d->digits = d->digits * 100000000u + eight;
            d->significant += 8;
            p += 7;
        } else if (d->significant < 19) {
            d->digits = d->digits * 10 + (uint64_t)(*p - '0');
            d->significant += d->digits != 0;
        } else {
            d->cut = true;
            d->exponent++;
        }
    }
    return p;
}

static const char *take_exponent(const char *p, const char *end, struct decimal *d)
{
    bool negative = false;
    int64_t e = 0;

    if (p < end && (*p == '+' || *p == '-'))
        negative = *p++ == '-';
    if (p == end || !is_digit(*p))
        return NULL;
    for (; p < end && is_digit(*p); p++)
        e = MIN(e * 10 + (*p - '0'), INT64_C(1000000)); /* far past any double, no overflow */
    d->exponent += negative ? -e : e;
    return p;
}

/* Rounds the 64-bit significand of a positive, normal long double to double; false within `slack`
 * units of the half, where only exact arithmetic can tell. */
static inline bool round_to_double(long double x, unsigned slack, double *ret_value)
{
#if WIDE
    uint64_t significand;
    unsigned dropped;

    if (!(x >= 0x1p-1022L && x < 0x1p1023L))
        return false;
    memcpy(&significand, &x, sizeof(significand));
    dropped = significand & 0x7FF;
    if (dropped - (0x400 - slack) <= 2 * slack)
        return false;
    *ret_value = (double)x;
    return true;
#else
    (void)x, (void)slack, (void)ret_value;
    return false;
#endif
}

static double value_of(const struct decimal *d, const char *text, const char *end)
{
    char copy[NUMBER_BYTES_MAX + 1];
    double v;

    if (!d->digits)
        return d->negative ? -0.0 : 0.0;
    if (d->digits < UINT64_C(1) << 53 && !d->cut && d->exponent >= -22 && d->exponent <= 22) {
        v = (double)d->digits;
        v = d->exponent < 0 ? v / tens_exact[-d->exponent] : v * tens_exact[d->exponent];
        return d->negative ? -v : v;
    }
    if (WIDE && !d->cut && d->exponent > -350 && d->exponent < 350 &&
        round_to_double(scale10((long double)d->digits, (int)d->exponent), 4, &v))
        return d->negative ? -v : v;
    memcpy(copy, text, (size_t)(end - text));
    copy[end - text] = '\0';
    return num_strtod(copy, NULL);
}

const char *num_parse(const char *p, const char *end, double *ret_value, int64_t *ret_int,
                      bool *ret_exact_int)
{
    const char *text = p, *fraction;
    struct decimal d = {.negative = p < end && *p == '-'};
    bool is_int = true;

    p += d.negative;
    if (p == end || !is_digit(*p))
        return NULL;
    if (*p == '0' && end - p > 1 && is_digit(p[1]))
        return NULL;
    p = take_digits(p, end, &d);
    if (p < end && *p == '.') {
        fraction = ++p;
        p = take_digits(p, end, &d);
        if (p == fraction)
            return NULL;
        d.exponent -= p - fraction;
        is_int = false;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p = take_exponent(p + 1, end, &d);
        if (!p)
            return NULL;
        is_int = false;
    }
    if (p - text > NUMBER_BYTES_MAX)
        return NULL;
    *ret_exact_int = is_int && !d.cut && d.digits <= (uint64_t)INT64_MAX + d.negative;
    if (*ret_exact_int)
        *ret_int = (int64_t)(d.negative ? 0 - d.digits : d.digits);
    *ret_value = value_of(&d, text, p);
    return p;
}

/* --- Writing ------------------------------------------------------------------------------ */

static const char two_digits[] = "00010203040506070809101112131415161718192021222324"
                                 "25262728293031323334353637383940414243444546474849"
                                 "50515253545556575859606162636465666768697071727374"
                                 "75767778798081828384858687888990919293949596979899";

/* Decimal digits of v ending at `end`; returns their start. */
static inline char *digits_before(char *end, uint64_t v)
{
    for (; v >= 100; v /= 100)
        memcpy(end -= 2, two_digits + v % 100 * 2, 2);
    if (v >= 10)
        return memcpy(end - 2, two_digits + v * 2, 2);
    *--end = (char)('0' + v);
    return end;
}

size_t num_i64_text(int64_t v, char ret_text[NUM_TEXT_MAX])
{
    char digits[20], *end = digits + sizeof(digits), *p;
    size_t n;

    p = digits_before(end, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    n = (size_t)(end - p);
    if (v < 0)
        *ret_text++ = '-';
    memcpy(ret_text, p, n);
    return n + (v < 0);
}

/* Lays out digits * 10^exponent; trailing zeros of `digits` are dropped first. */
static size_t lay_out(bool negative, uint64_t digits, int exponent, char *text)
{
    char buffer[20], *end = buffer + sizeof(buffer), *p, *to = text;
    int n, point; /* point: decimal digits before the point */

    while (digits % 10 == 0)
        digits /= 10, exponent++;
    p = digits_before(end, digits);
    n = (int)(end - p);
    point = n + exponent;
    if (negative)
        *to++ = '-';
    if (point > 21 || point <= -6) {
        *to++ = *p;
        if (n > 1) {
            *to++ = '.';
            memcpy(to, p + 1, (size_t)n - 1);
            to += n - 1;
        }
        *to++ = 'e';
        *to++ = point > 0 ? '+' : '-';
        point = abs(point - 1);
        p = digits_before(end, (uint64_t)point);
        memcpy(to, p, (size_t)(end - p));
        return (size_t)(to + (end - p) - text);
    }
    if (point <= 0) {
        memcpy(to, "0.000000", 8);
        to += 2 - point;
        memcpy(to, p, (size_t)n);
        return (size_t)(to + n - text);
    }
    if (point >= n) {
        memcpy(to, p, (size_t)n);
        memset(to + n, '0', (size_t)(point - n));
        return (size_t)(to + point - text);
    }
    memcpy(to, p, (size_t)point);
    to[point] = '.';
    memcpy(to + point + 1, p + point, (size_t)(n - point));
    return (size_t)(to + n + 1 - text);
}

/* The libc way: one digit more until the text reads back. `least` digits always survive the trip
 * through the type, and 17 are always enough. Only integers pass through printf and strtod here, so
 * no decimal point of a locale. */
static size_t slow_text(double v, bool is_float, int least, char *text)
{
    double magnitude = fabs(v);

    for (int n = least;; n++) {
        char printed[40], *e;
        uint64_t digits = 0;
        int exponent;

        snprintf(printed, sizeof(printed), "%.*e", n - 1, magnitude);
        e = strchr(printed, 'e');
        for (const char *p = printed; p < e; p++)
            if (is_digit(*p))
                digits = digits * 10 + (uint64_t)(*p - '0');
        exponent = (int)strtol(e + 1, NULL, 10) - (n - 1);
        snprintf(printed, sizeof(printed), "%llue%d", (unsigned long long)digits, exponent);
        if (n == 17 || (is_float ? num_strtof(printed, NULL) == (float)magnitude
                                 : num_strtod(printed, NULL) == magnitude))
            return lay_out(v < 0, digits, exponent, text);
    }
}

__extension__ typedef unsigned __int128 u128;
#define FRACTION_BITS 64 /* of the fixed-point numbers below */

/* All powers of five below 2^64. */
static const uint64_t fives[28] = {
    1u,
    5u,
    25u,
    125u,
    625u,
    3125u,
    15625u,
    78125u,
    390625u,
    1953125u,
    9765625u,
    48828125u,
    244140625u,
    1220703125u,
    6103515625u,
    30517578125u,
    152587890625u,
    762939453125u,
    3814697265625u,
    19073486328125u,
    95367431640625u,
    476837158203125u,
    2384185791015625u,
    11920928955078125u,
    59604644775390625u,
    298023223876953125u,
    1490116119384765625u,
    7450580596923828125u,
};

/* significand * 2^e * 10^s, cut, for 0 <= s < 28. The caller knows that it is below 2^63. */
static inline u128 scale_exactly(uint64_t significand, int e, int s)
{
    u128 product = (u128)significand * fives[s];
    int shift = FRACTION_BITS + e + s;

    if (shift >= 0)
        return product << shift;
    return shift > -128 ? product >> -shift : 0;
}

#if WIDE
static inline u128 to_fixed(long double x)
{
    uint64_t significand;
    uint16_t exponent;

    memcpy(&significand, &x, 8);
    memcpy(&exponent, (const char *)&x + 8, 2);
    return (u128)significand << (FRACTION_BITS - (16383 + 63 - exponent));
}
#endif

enum verdict { NO, YES, UNSURE };

/* Is the multiple of q nearest to x within h of it? slack bounds the error of x and h together. A
 * near-tie between two multiples is unsure too. */
static inline __attribute__((always_inline)) enum verdict try_unit(u128 x, u128 h, u128 slack,
                                                                   uint64_t q, uint64_t *ret_m)
{
    uint64_t whole = (uint64_t)(x >> FRACTION_BITS), rest = whole % q;
    u128 below = (u128)rest << FRACTION_BITS | (uint64_t)x;
    u128 above = ((u128)q << FRACTION_BITS) - below;
    u128 distance = MIN(below, above);

    if (distance > h + slack)
        return NO;
    if (distance + slack >= h || MAX(below, above) - distance <= 2 * slack)
        return UNSURE;
    *ret_m = below < above ? whole - rest : whole - rest + q;
    return YES;
}

/* The digits of significand * 2^e, times 10^s, or false when the slow way must decide. */
static inline __attribute__((always_inline)) bool shortest(uint64_t significand, int e, int s,
                                                           uint64_t *ret_digits)
{
    u128 x, h, slack;
    enum verdict v;

    if (LIKELY(s >= 0 && s < 28)) {
        x = scale_exactly(significand, e, s);
        h = scale_exactly(1, e - 1, s);
        slack = 2; /* x and h are cut */
    } else {
#if WIDE
        /* x < 2 * 10^17 < 2^58, so a unit in its last place is at most 2^-6. It is wrong by less
         * than 4 of them (scale10, and 10^s itself rounds), h by less than one. */
        long double scale = ldexpl(scale10(1, s), e);

        x = to_fixed((long double)significand * scale);
        h = to_fixed(scale / 2);
        slack = (u128)5 << (FRACTION_BITS - 6);
#else
        return false;
#endif
    }
    v = try_unit(x, h, slack, 10000, ret_digits);
    if (v == NO)
        v = try_unit(x, h, slack, 1000, ret_digits);
    if (v == NO)
        v = try_unit(x, h, slack, 100, ret_digits);
    if (v == NO)
        v = try_unit(x, h, slack, 10, ret_digits);
    if (v == NO)
        v = try_unit(x, h, slack, 1, ret_digits);
    return v == YES;
}

/* floor(log10(2^e)), or one more when that is within 0.0002 of an integer. */
static inline int log10_pow2(int e)
{
    return (e * 315653) >> 20;
}

size_t num_f64_text(double v, char ret_text[NUM_TEXT_MAX])
{
    double magnitude = fabs(v);
    uint64_t bits, fraction, digits;
    int e, s;

    ASSERT(isfinite(v));
    if (magnitude < 0x1p53 && v == (double)(int64_t)v && (v != 0 || !signbit(v)))
        return num_i64_text((int64_t)v, ret_text);
    if (v == 0)
        return memcpy(ret_text, "-0", 2), 2;
    memcpy(&bits, &magnitude, sizeof(bits));
    e = (int)(bits >> 52) - 1023;
    fraction = bits & ((UINT64_C(1) << 52) - 1);
    s = DBL_DIG + 1 - log10_pow2(e);
    if (e > -1023 && fraction && shortest(fraction | UINT64_C(1) << 52, e - 52, s, &digits))
        return lay_out(v < 0, digits, -s, ret_text);
    return slow_text(v, false, e == -1023 ? 1 : DBL_DIG, ret_text);
}

size_t num_f32_text(float v, char ret_text[NUM_TEXT_MAX])
{
    float magnitude = fabsf(v);
    uint32_t bits, fraction;
    uint64_t digits;
    int e, s;

    ASSERT(isfinite(v));
    if (magnitude < 0x1p24f && v == (float)(int32_t)v && (v != 0 || !signbit(v)))
        return num_i64_text((int32_t)v, ret_text);
    if (v == 0)
        return memcpy(ret_text, "-0", 2), 2;
    memcpy(&bits, &magnitude, sizeof(bits));
    e = (int)(bits >> 23) - 127;
    fraction = bits & ((UINT32_C(1) << 23) - 1);
    s = FLT_DIG + 2 - log10_pow2(e);
    if (e > -127 && fraction && shortest(fraction | UINT32_C(1) << 23, e - 23, s, &digits))
        return lay_out(v < 0, digits, -s, ret_text);
    return slow_text((double)v, true, e == -127 ? 1 : FLT_DIG, ret_text);
}
