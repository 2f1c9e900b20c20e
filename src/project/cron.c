/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cron expression is five sets of small numbers. The next time is found by walking days, at most
 * DAYS_MAX of them, and then looking up hour and minute in their sets: no time zone is involved, so
 * every day has 1440 minutes and nothing can be skipped. A day costs some nanoseconds, the rarest
 * expression (29 February on a Sunday, across a century) a tenth of a millisecond.
 *
 * An expression without any day in that span is refused when it is parsed, which is why cron_next
 * cannot fail.
 */
#include "project/cron.h"

#include "base/time.h"

#define NS_PER_MINUTE (60 * NS_PER_S)
#define NS_PER_DAY (24 * 60 * NS_PER_MINUTE)
#define DAYS_MAX (41 * 366) /* 29 February on a given weekday: 40 years apart across 2100 */
#define WALL_NS_MAX (INT64_C(7258118400) * NS_PER_S) /* 2200-01-01 */

struct part {
    const char *name;
    int lo, hi;
    const char *words; /* names of lo, lo + 1, …: three letters each */
};

enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY, PART_COUNT };

static const struct part parts[PART_COUNT] = {
    {"minute", 0, 59, ""},
    {"hour", 0, 23, ""},
    {"day of the month", 1, 31, ""},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {"weekday", 0, 7, "sunmontuewedthufrisat"},
};

static const struct {
    str word, text;
} macros[] = {
    {S_INIT("@hourly"), S_INIT("0 * * * *")},   {S_INIT("@daily"), S_INIT("0 0 * * *")},
    {S_INIT("@midnight"), S_INIT("0 0 * * *")}, {S_INIT("@weekly"), S_INIT("0 0 * * 0")},
    {S_INIT("@monthly"), S_INIT("0 0 1 * *")},  {S_INIT("@yearly"), S_INIT("0 0 1 1 *")},
    {S_INIT("@annually"), S_INIT("0 0 1 1 *")},
};

/* Number or name; false when it is neither or out of range. */
static bool read_number(const struct part *part, str s, int *ret)
{
    str words = str_of(part->words);
    uint64_t v;

    for (int i = 0; words.n && s.n == 3; words = str_skip(words, 3), i++)
        if (str_eq_nocase(s, str_take(words, 3))) {
            *ret = part->lo + i;
            return true;
        }
    if (!str_to_u64(s, &v) || v < (uint64_t)part->lo || v > (uint64_t)part->hi)
        return false;
    *ret = (int)v;
    return true;
}

/* One piece of a list: the range, without its step. */
static bool read_range(const struct part *part, str range, bool has_step, int *ret_from,
                       int *ret_to)
{
    str from = str_cut(&range, '-');

    if (str_eq(from, S("*")) && !range.p) {
        *ret_from = part->lo;
        *ret_to = part->hi;
        return true;
    }
    if (!read_number(part, from, ret_from))
        return false;
    *ret_to = has_step ? part->hi : *ret_from;
    return !range.p || (read_number(part, range, ret_to) && *ret_to >= *ret_from);
}

static NODISCARD int read_part(const struct part *part, str text, uint64_t *ret_set, struct err *e)
{
    str rest = text;
    uint64_t set = 0;

    while (rest.p) {
        str piece = str_cut(&rest, ','), step = piece;
        str range = str_cut(&step, '/');
        uint64_t every = 1;
        int from, to;

        if (!read_range(part, range, step.p, &from, &to) ||
            (step.p && (!str_to_u64(step, &every) || every < 1 || every > 59)))
            return FAIL(e, INVALID_ARGUMENT,
                        "the %s '" STR_F "' is not a number from %d to %d, a range or a step",
                        part->name, STR_A(str_take(piece, 32)), part->lo, part->hi);
        for (int i = from; i <= to; i += (int)every)
            set |= UINT64_C(1) << i;
    }
    *ret_set = set;
    return 0;
}

static bool is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* A day of the calendar, walked forward. */
struct day {
    int year, month, day, weekday;
};

/* The date of a day number (0 = 1970-01-01, a Thursday). Years are few: they are counted off. */
static struct day day_of(int64_t number)
{
    struct day d = {1970, 1, 1, (int)((number + 4) % 7)};
    int64_t in_400_years = 146097;

    d.year += (int)(number / in_400_years) * 400;
    number %= in_400_years;
    for (; number >= 365 + is_leap(d.year); d.year++)
        number -= 365 + is_leap(d.year);
    for (; number >= days_in_month(d.year, d.month); d.month++)
        number -= days_in_month(d.year, d.month);
    d.day += (int)number;
    return d;
}

static void day_step(struct day *d)
{
    d->weekday = (d->weekday + 1) % 7;
    if (++d->day <= days_in_month(d->year, d->month))
        return;
    d->day = 1;
    if (++d->month <= 12)
        return;
    d->month = 1;
    d->year++;
}

static bool day_matches(const struct cron *c, const struct day *d)
{
    bool of_month = c->days >> d->day & 1, of_week = c->weekdays >> d->weekday & 1;

    if (!(c->months >> d->month & 1))
        return false;
    return c->either_day ? of_month || of_week : of_month && of_week;
}

/* Whether any day matches at all: the length of a month in a leap year bounds its days. */
static bool ever(const struct cron *c)
{
    if (c->either_day)
        return c->months != 0;
    for (int month = 1; month <= 12; month++)
        if ((c->months >> month & 1) &&
            (c->days & ((UINT64_C(1) << (days_in_month(2000, month) + 1)) - 1)))
            return true;
    return false;
}

int cron_parse(str text, struct cron *ret, struct err *e)
{
    uint64_t sets[PART_COUNT];
    bool star[PART_COUNT];
    str rest = str_trim(text);
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(macros); i++)
        if (str_eq_nocase(rest, macros[i].word))
            rest = macros[i].text;
    while (rest.n) {
        size_t length = 0;
        str part;

        while (length < rest.n && rest.p[length] != ' ' && rest.p[length] != '\t')
            length++;
        part = str_take(rest, length);
        rest = str_trim(str_skip(rest, length));
        if (n == PART_COUNT)
            return FAIL(e, INVALID_ARGUMENT, "more than five fields");
        TRY(read_part(&parts[n], part, &sets[n], e));
        star[n++] = part.p[0] == '*';
    }
    if (n < PART_COUNT)
        return FAIL(e, INVALID_ARGUMENT, "%zu of five fields", n);
    struct cron c = {
        .minutes = sets[MINUTE],
        .hours = (uint32_t)sets[HOUR],
        .days = (uint32_t)sets[DAY],
        .months = (uint32_t)sets[MONTH],
        .weekdays = (uint32_t)((sets[WEEKDAY] | sets[WEEKDAY] >> 7) & 0x7f),
        .either_day = !star[DAY] && !star[WEEKDAY],
    };
    if (!ever(&c))
        return FAIL(e, INVALID_ARGUMENT, "no month has such a day: it never comes");
    *ret = c;
    return 0;
}

/* The first minute of the day from `minute` on that matches, or -1. */
static int minute_of_day(const struct cron *c, int minute)
{
    for (int m = minute; m < 24 * 60; m++) {
        if (!(c->hours >> (m / 60) & 1)) {
            m = m / 60 * 60 + 59;
            continue;
        }
        if (c->minutes >> (m % 60) & 1)
            return m;
    }
    return -1;
}

int64_t cron_next(const struct cron *c, int64_t wall_ns)
{
    ASSERT(wall_ns >= 0 && wall_ns < WALL_NS_MAX);
    int64_t minute = wall_ns / NS_PER_MINUTE + 1;
    int64_t number = minute / (24 * 60);
    struct day d = day_of(number);
    int from = (int)(minute % (24 * 60));

    for (int i = 0; i < DAYS_MAX; i++, day_step(&d), from = 0) {
        int found = day_matches(c, &d) ? minute_of_day(c, from) : -1;

        if (found >= 0)
            return (number + i) * NS_PER_DAY + found * NS_PER_MINUTE;
    }
    ASSERT(false); /* cron_parse refused it */
}
