/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both clocks go through one switch: real (clock_gettime) or virtual (two numbers that only
 * time_test_* moves). The switch and the numbers are atomics, so that a test may drive threads.
 *
 * Calendar arithmetic is that of the proleptic Gregorian calendar on days since 1970-01-01, in eras
 * of 400 years that begin on the first of March: the leap day is then the last day of a year and
 * needs no case of its own. Leap seconds do not exist in these clocks; a text with second 60 names
 * the first instant of the next minute.
 */
#include "base/time.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define NS_PER_DAY (86400 * NS_PER_S)

static atomic_bool is_virtual;
static atomic_int_fast64_t virtual_mono_ns, virtual_wall_ns;

static int64_t clock_ns(clockid_t id)
{
    struct timespec t;

    ASSERT(clock_gettime(id, &t) == 0);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

int64_t time_mono_ns(void)
{
    if (UNLIKELY(atomic_load_explicit(&is_virtual, memory_order_relaxed)))
        return atomic_load(&virtual_mono_ns);
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t time_wall_ns(void)
{
    if (UNLIKELY(atomic_load_explicit(&is_virtual, memory_order_relaxed)))
        return atomic_load(&virtual_wall_ns);
    return clock_ns(CLOCK_REALTIME);
}

void time_sleep(int64_t ns)
{
    struct timespec left = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};

    ASSERT(ns >= 0);
    if (atomic_load(&is_virtual))
        time_test_advance(ns);
    else
        while (nanosleep(&left, &left) < 0 && errno == EINTR)
            ;
}

void time_test_virtual(int64_t mono_ns, int64_t wall_ns)
{
    atomic_store(&virtual_mono_ns, mono_ns);
    atomic_store(&virtual_wall_ns, wall_ns);
    atomic_store(&is_virtual, true);
}

void time_test_advance(int64_t ns)
{
    ASSERT(ns >= 0 && atomic_load(&is_virtual));
    atomic_fetch_add(&virtual_mono_ns, ns);
    atomic_fetch_add(&virtual_wall_ns, ns);
}

void time_test_step_wall(int64_t ns)
{
    ASSERT(atomic_load(&is_virtual));
    atomic_fetch_add(&virtual_wall_ns, ns);
}

void time_test_real(void)
{
    atomic_store(&is_virtual, false);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Day number (0 = 1970-01-01) of a civil date. */
static int64_t days_of_date(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month > 2 ? year : year - 1; /* years begin in March */
    int64_t era = floor_div(y, 400);
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return era * 146097 + day_of_era - 719468;
}

static void date_of_days(int64_t days, int *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    int64_t shifted = days + 719468;
    int64_t era = floor_div(shifted, 146097);
    int64_t doe = shifted - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;

    *ret_day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
    *ret_month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
    *ret_year = (int)(yoe + era * 400 + (*ret_month <= 2));
}

static void put_digits(char *to, unsigned value, int n)
{
    for (int i = n - 1; i >= 0; i--, value /= 10)
        to[i] = (char)('0' + value % 10);
}

void time_iso(int64_t wall_ns, char ret_text[TIME_ISO_SIZE])
{
    int64_t days = floor_div(wall_ns, NS_PER_DAY);
    /* not wall_ns - days * NS_PER_DAY, which overflows in the first day of the range */
    unsigned ms = (unsigned)((wall_ns % NS_PER_DAY + NS_PER_DAY) % NS_PER_DAY / NS_PER_MS);
    unsigned month, day;
    int year;

    date_of_days(days, &year, &month, &day);
    memcpy(ret_text, "0000-00-00T00:00:00.000Z", TIME_ISO_SIZE);
    put_digits(ret_text, (unsigned)year, 4);
    put_digits(ret_text + 5, month, 2);
    put_digits(ret_text + 8, day, 2);
    put_digits(ret_text + 11, ms / 3600000, 2);
    put_digits(ret_text + 14, ms / 60000 % 60, 2);
    put_digits(ret_text + 17, ms / 1000 % 60, 2);
    put_digits(ret_text + 20, ms % 1000, 3);
}

/* Takes exactly n digits, then the byte `then` (0: none). */
static bool take_digits(str *s, int n, char then, unsigned *ret_value)
{
    unsigned v = 0;

    if (s->n < (size_t)n + (then != 0))
        return false;
    for (int i = 0; i < n; i++) {
        unsigned digit = (unsigned)(s->p[i] - '0');

        if (digit > 9)
            return false;
        v = v * 10 + digit;
    }
    if (then && s->p[n] != then)
        return false;
    *s = str_skip(*s, (size_t)n + (then != 0));
    *ret_value = v;
    return true;
}

/* ".5" and longer; digits past the ninth are dropped. Nothing there is no error. */
static bool take_fraction(str *s, int64_t *ret_ns)
{
    int64_t unit = NS_PER_S / 10, ns = 0;

    *ret_ns = 0;
    if (!s->n || s->p[0] != '.')
        return true;
    *s = str_skip(*s, 1);
    if (!s->n || (unsigned)(s->p[0] - '0') > 9)
        return false;
    for (; s->n && (unsigned)(s->p[0] - '0') <= 9; *s = str_skip(*s, 1), unit /= 10)
        ns += unit * (s->p[0] - '0');
    *ret_ns = ns;
    return true;
}

static bool take_offset(str *s, int64_t *ret_seconds)
{
    unsigned hours, minutes;
    int sign;

    *ret_seconds = 0;
    if (s->n == 1 && (s->p[0] == 'Z' || s->p[0] == 'z'))
        return *s = str_skip(*s, 1), true;
    if (s->n != 6 || (s->p[0] != '+' && s->p[0] != '-'))
        return false;
    sign = s->p[0] == '-' ? -1 : 1;
    *s = str_skip(*s, 1);
    if (!take_digits(s, 2, ':', &hours) || !take_digits(s, 2, 0, &minutes))
        return false;
    if (hours > 23 || minutes > 59)
        return false;
    *ret_seconds = sign * (int64_t)(hours * 3600 + minutes * 60);
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

bool time_parse_iso(str text, int64_t *ret_wall_ns)
{
    unsigned year, month, day, hour, minute, second;
    int64_t fraction_ns, offset_s, s, ns;

    if (!take_digits(&text, 4, '-', &year) || !take_digits(&text, 2, '-', &month) ||
        !take_digits(&text, 2, 0, &day))
        return false;
    if (!text.n || (text.p[0] != 'T' && text.p[0] != 't' && text.p[0] != ' '))
        return false;
    text = str_skip(text, 1);
    if (!take_digits(&text, 2, ':', &hour) || !take_digits(&text, 2, ':', &minute) ||
        !take_digits(&text, 2, 0, &second))
        return false;
    if (!take_fraction(&text, &fraction_ns) || !take_offset(&text, &offset_s))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 ||
        minute > 59 || second > 60)
        return false;
    s = days_of_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset_s;
    if (__builtin_mul_overflow(s, NS_PER_S, &ns) || __builtin_add_overflow(ns, fraction_ns, &ns))
        return false;
    *ret_wall_ns = ns;
    return true;
}

/* Largest first, the preferred name of a size first; time_duration_text uses the preferred ones. */
static const struct {
    const char *name;
    int64_t ns;
} units[] = {
    {"w", 7 * NS_PER_DAY}, {"d", NS_PER_DAY}, {"h", 3600 * NS_PER_S}, {"min", 60 * NS_PER_S},
    {"m", 60 * NS_PER_S},  {"s", NS_PER_S},   {"sec", NS_PER_S},      {"ms", NS_PER_MS},
    {"us", NS_PER_US},     {"ns", 1},
};

static int64_t unit_ns(str name)
{
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (str_eqz(name, units[i].name))
            return units[i].ns;
    return 0;
}

static size_t digits_at(str s)
{
    size_t n = 0;

    while (n < s.n && (unsigned)(s.p[n] - '0') <= 9)
        n++;
    return n;
}

/* One "<number><unit>", the number perhaps with a fraction. The unit must be below *unit. */
static bool take_part(str *s, int64_t *unit, int64_t *total_ns)
{
    str whole = str_take(*s, digits_at(*s)), fraction = STR_NULL;
    int64_t this_unit, scale, ns;
    size_t name_n = 0;

    *s = str_skip(*s, whole.n);
    if (s->n && s->p[0] == '.') {
        *s = str_skip(*s, 1);
        fraction = str_take(*s, digits_at(*s));
        if (!fraction.n)
            return false;
        *s = str_skip(*s, fraction.n);
    }
    while (name_n < s->n && s->p[name_n] >= 'a' && s->p[name_n] <= 'z')
        name_n++;
    this_unit = unit_ns(str_take(*s, name_n));
    *s = str_skip(*s, name_n);
    if (!this_unit || this_unit >= *unit || !str_to_i64(whole, &ns) ||
        __builtin_mul_overflow(ns, this_unit, &ns) ||
        __builtin_add_overflow(*total_ns, ns, total_ns))
        return false;
    scale = this_unit;
    for (size_t i = 0; i < fraction.n && scale >= 10; i++) {
        scale /= 10; /* exact: below the day every unit that takes this path ends in zeros */
        if (__builtin_add_overflow(*total_ns, scale * (fraction.p[i] - '0'), total_ns))
            return false;
    }
    *unit = this_unit;
    return true;
}

bool time_parse_duration(str text, int64_t *ret_ns)
{
    int64_t total = 0, unit = INT64_MAX;

    if (!text.n)
        return false;
    while (text.n)
        if (!take_part(&text, &unit, &total))
            return false;
    *ret_ns = total;
    return true;
}

/* Below a minute: one unit and at most one decimal, dropped when it is zero. */
static str short_text(struct arena *a, const char *sign, uint64_t ns)
{
    static const struct {
        const char *name;
        uint64_t ns, below_ns; /* below: what would round to 1000 of the unit is left to the next */
    } small[] = {
        {"ns", 1, 1000},
        {"us", 1000, 999950},
        {"ms", 1000000, 999950000},
        {"s", 1000000000, UINT64_MAX},
    };
    size_t i = 0;
    uint64_t tenths;

    while (ns >= small[i].below_ns)
        i++;
    tenths = i ? (ns + small[i].ns / 20) / (small[i].ns / 10) : ns * 10;
    if (tenths % 10)
        return arena_printf(a, "%s%llu.%llu%s", sign, (unsigned long long)tenths / 10,
                            (unsigned long long)tenths % 10, small[i].name);
    return arena_printf(a, "%s%llu%s", sign, (unsigned long long)tenths / 10, small[i].name);
}

str time_duration_text(struct arena *a, int64_t ns)
{
    static const struct {
        const char *big, *small;
        uint64_t big_s, small_s;
    } pairs[] = {{"d", "h", 86400, 3600}, {"h", "m", 3600, 60}, {"m", "s", 60, 1}};
    const char *sign = ns < 0 ? "-" : "";
    uint64_t abs_ns = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    uint64_t s = (abs_ns + (uint64_t)NS_PER_S / 2) / (uint64_t)NS_PER_S;
    uint64_t small;

    if (abs_ns < 59950000000u)
        return short_text(a, sign, abs_ns);
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        if (s < pairs[i].big_s)
            continue;
        small = s % pairs[i].big_s / pairs[i].small_s;
        if (!small)
            return arena_printf(a, "%s%llu%s", sign, (unsigned long long)(s / pairs[i].big_s),
                                pairs[i].big);
        return arena_printf(a, "%s%llu%s%llu%s", sign, (unsigned long long)(s / pairs[i].big_s),
                            pairs[i].big, (unsigned long long)small, pairs[i].small);
    }
    ASSERT(false); /* s is at least 60 here */
}
