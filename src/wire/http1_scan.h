/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the end of a token, a target or a field value: 16 bytes at a time where the processor is
 * an x86-64 (SSE2 is part of it), byte by byte elsewhere and near the end. Nothing past `end` is
 * read. This is the only file of the codec that knows the processor.
 */
#pragma once

#include "base/base.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    HTTP1_C_TOKEN = 1,  /* RFC 9110 tchar */
    HTTP1_C_TARGET = 2, /* visible ASCII but '#' */
    HTTP1_C_VALUE = 4,  /* visible, blank, tab, >= 0x80 */
    HTTP1_C_HOST = 8,   /* of host and port */
};
extern const uint8_t HTTP1_CLASS[256];

static inline bool http1_is(char c, int char_class)
{
    return (HTTP1_CLASS[(unsigned char)c] & char_class) != 0;
}

static inline const char *http1_skip_class(const char *p, const char *end, int char_class)
{
    while (p < end && http1_is(*p, char_class))
        p++;
    return p;
}

/* The first byte in [p, end) that cannot stand in a field value: a control character but tab. */
static inline const char *http1_skip_value(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i low = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'), del = _mm_set1_epi8(0x7f);

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(x, low), x); /* unsigned x <= 0x1f */
        __m128i bad =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(x, tab), control), _mm_cmpeq_epi8(x, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);

        if (mask)
            return p + __builtin_ctz(mask);
    }
#endif
    return http1_skip_class(p, end, HTTP1_C_VALUE);
}

/* The first byte in [p, end) that cannot stand in a request target. */
static inline const char *http1_skip_target(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i least = _mm_set1_epi8(0x21), hash = _mm_set1_epi8('#'), del = _mm_set1_epi8(0x7f);

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i bad = _mm_or_si128(_mm_cmplt_epi8(x, least), /* signed: also >= 0x80 */
                                   _mm_or_si128(_mm_cmpeq_epi8(x, hash), _mm_cmpeq_epi8(x, del)));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);

        if (mask)
            return p + __builtin_ctz(mask);
    }
#endif
    return http1_skip_class(p, end, HTTP1_C_TARGET);
}

/* The first byte in [p, end) that cannot stand in a token. Field names are nearly always letters,
 * digits and '-': those are tested 16 at a time, the rest of the token alphabet by table. */
static inline const char *http1_skip_token(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i letter = _mm_set1_epi8('a' - 1), letter_end = _mm_set1_epi8('z' + 1);
    const __m128i digit = _mm_set1_epi8('0' - 1), digit_end = _mm_set1_epi8('9' + 1);
    const __m128i dash = _mm_set1_epi8('-'), small = _mm_set1_epi8(0x20);

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p), y = _mm_or_si128(x, small);
        __m128i good = _mm_and_si128(_mm_cmpgt_epi8(y, letter), _mm_cmplt_epi8(y, letter_end));
        good = _mm_or_si128(good,
                            _mm_and_si128(_mm_cmpgt_epi8(x, digit), _mm_cmplt_epi8(x, digit_end)));
        good = _mm_or_si128(good, _mm_cmpeq_epi8(x, dash));
        unsigned mask = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;

        if (mask) {
            p += __builtin_ctz(mask);
            if (!http1_is(*p, HTTP1_C_TOKEN))
                return p;
            break;
        }
    }
#endif
    return http1_skip_class(p, end, HTTP1_C_TOKEN);
}
