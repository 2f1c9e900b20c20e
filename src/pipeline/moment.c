/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moments of the proleptic Gregorian calendar, in UTC. Days become a date as in H. Hinnant,
 * "chrono-Compatible Low-Level Date Algorithms": the year begins in March, so that the leap day is
 * its last, and eras of 400 years repeat exactly.
 */
#include "pipeline/priv.h"

#include "base/time.h"

#include <math.h>

#define TEXT_MAX 64
#define SECONDS_MAX 9e9 /* within the years that a text can have: 1677 to 2262 */
#define DAY_S INT64_C(86400)

static const int16_t before_month[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};

static void moment_set(int64_t epoch_s, struct moment *m)
{
    int64_t days = epoch_s / DAY_S - (epoch_s % DAY_S < 0);
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t of_era = z - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year =
        of_era - (365 * years + years / 4 - years / 100); /* from the first of March */
    int64_t month = (5 * of_year + 2) / 153;
    bool leap;

    m->epoch_s = epoch_s;
    m->day = (int32_t)(of_year - (153 * month + 2) / 5 + 1);
    m->month = (int32_t)(month < 10 ? month + 3 : month - 9);
    m->year = (int32_t)(years + era * 400 + (m->month <= 2));
    leap = (m->year % 4 == 0 && m->year % 100 != 0) || m->year % 400 == 0;
    m->day_of_year = before_month[m->month - 1] + m->day + (leap && m->month > 2);
    m->weekday = (int32_t)(((days + 3) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
    m->second_of_day = (int32_t)(epoch_s - days * DAY_S);
}

bool moment_of_seconds(double seconds, struct moment *ret)
{
    if (!(fabs(seconds) <= SECONDS_MAX))
        return false;
    moment_set((int64_t)floor(seconds), ret);
    return true;
}

static bool has_zone(str time)
{
    return str_find_char(time, 'Z') >= 0 || str_find_char(time, 'z') >= 0 ||
           str_find_char(time, '+') >= 0 || str_find_char(time, '-') >= 0;
}

bool moment_of_text(str text, struct moment *ret)
{
    char iso[TEXT_MAX + 16];
    size_t n;
    int64_t ns;

    text = str_trim(text);
    if (text.n < 10 || text.n > TEXT_MAX)
        return false;
    memcpy(iso, text.p, text.n);
    n = text.n;
    if (n == 10) {
        memcpy(iso + n, "T00:00:00", 9);
        n += 9;
    }
    iso[10] = iso[10] == ' ' ? 'T' : iso[10];
    if (n == 16) { /* without seconds */
        memcpy(iso + n, ":00", 3);
        n += 3;
    }
    if (n > 10 && !has_zone((str){iso + 11, n - 11}))
        iso[n++] = 'Z';
    if (!time_parse_iso((str){iso, n}, &ns))
        return false;
    moment_set(ns / NS_PER_S - (ns % NS_PER_S < 0), ret);
    return true;
}

static const str part_names[] = {
#define PART(name, value, help) S_INIT(#name),
#include "pipeline/moment.def"
#undef PART
};

enum part {
#define PART(name, value, help) PART_##name,
#include "pipeline/moment.def"
#undef PART
};

double moment_part(const struct moment *at, uint8_t part)
{
    const struct moment m = *at;
    int64_t v;

    switch ((enum part)part) {
#define PART(name, value, help) \
    case PART_##name:           \
        v = (value);            \
        break;
#include "pipeline/moment.def"
#undef PART
    default:
        return NAN;
    }
    return (double)v;
}

bool moment_part_find(str name, uint8_t *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(part_names); i++)
        if (str_eq(part_names[i], name)) {
            *ret = (uint8_t)i;
            return true;
        }
    return false;
}

const str *moment_part_names(size_t *ret_n)
{
    *ret_n = ARRAY_LEN(part_names);
    return part_names;
}
