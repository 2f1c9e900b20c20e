/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as text: num_parse agrees with strtod to the last bit and never reads past the end. The
 * first bytes as a number: its text reads back as the same bits.
 */
#include "fuzz.h"

#include "base/num.h"

#include <math.h>
#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_text(const char *p, const char *end)
{
    char copy[512];
    double value;
    int64_t integer;
    bool exact;
    const char *after = num_parse(p, end, &value, &integer, &exact);

    if (!after)
        return;
    require(after > p && after <= end && after - p <= 400);
    memcpy(copy, p, (size_t)(after - p));
    copy[after - p] = '\0';
    require(memcmp(&value, &(double){strtod(copy, NULL)}, sizeof(value)) == 0);
    if (exact)
        require(integer == strtoll(copy, NULL, 10));
}

static void check_double(double v)
{
    char text[NUM_TEXT_MAX + 1];
    double back;

    text[num_f64_text(v, text)] = '\0';
    back = strtod(text, NULL);
    require(memcmp(&back, &v, sizeof(v)) == 0);
    check_text(text, text + strlen(text));
}

static void check_float(float v)
{
    char text[NUM_TEXT_MAX + 1];
    float back;

    text[num_f32_text(v, text)] = '\0';
    back = strtof(text, NULL);
    require(memcmp(&back, &v, sizeof(v)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double real;
    float single;

    check_text((const char *)data, (const char *)data + size);
    if (size < sizeof(real))
        return 0;
    memcpy(&real, data, sizeof(real));
    memcpy(&single, data, sizeof(single));
    if (isfinite(real))
        check_double(real);
    if (isfinite(single))
        check_float(single);
    return 0;
}
