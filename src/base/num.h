/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers to text and back, for hot paths: no locale, no allocation, exact.
 */
#pragma once

#include "base/str.h"

/*
 * Parses a JSON number (RFC 8259 grammar, strictly) at the start of [p, end). Returns the byte
 * after it, or NULL when there is no number. The value is the correctly rounded double;
 * *ret_exact_int tells that the text was an integer that fits int64, then *ret_int holds it.
 * "-0" is the integer 0 and the value -0.0. Overflow gives +-inf: the caller decides. Numbers
 * longer than 400 characters are refused (NULL). The outputs are untouched then.
 */
const char *num_parse(const char *p, const char *end, double *ret_value, int64_t *ret_int,
                      bool *ret_exact_int);

/* strtod and strtof of the C locale, whatever the locale of the process. */
double num_strtod(const char *z, char **ret_end);
float num_strtof(const char *z, char **ret_end);

/* Shortest text that reads back as the same value, laid out as ECMAScript does: plain digits for
 * 1e-6 <= |v| < 1e21, else "1e+30"; -0 is "-0". v must be finite. Returns the length; no NUL. */
#define NUM_TEXT_MAX 32
size_t num_f32_text(float v, char ret_text[NUM_TEXT_MAX]);
size_t num_f64_text(double v, char ret_text[NUM_TEXT_MAX]);
size_t num_i64_text(int64_t v, char ret_text[NUM_TEXT_MAX]);
