/* SPDX-License-Identifier: Apache-2.0 */
/* Cron: what is refused, and the next time across month ends, leap days and the two day fields. */
#include "check.h"

#include "base/time.h"
#include "project/cron.h"

static void next_times(void)
{
    static const struct {
        const char *cron, *after, *next;
    } cases[] = {
        {"* * * * *", "2026-11-23T20:02:36Z", "2026-11-23T20:03:00.000Z"},
        {"* * * * *", "2026-11-23T20:02:00Z", "2026-11-23T20:03:00.000Z"},
        {"0 6 * * 1", "2026-11-23T05:59:59Z", "2026-11-23T06:00:00.000Z"}, /* a Monday */
        {"0 6 * * 1", "2026-11-23T06:00:00Z", "2026-11-30T06:00:00.000Z"},
        {"0 2 * * 0", "2026-11-23T00:00:00Z", "2026-11-29T02:00:00.000Z"},
        {"0 2 * * 7", "2026-11-23T00:00:00Z", "2026-11-29T02:00:00.000Z"},
        {"0 2 * * sun", "2026-11-23T00:00:00Z", "2026-11-29T02:00:00.000Z"},
        {"59 23 31 * *", "2026-11-01T00:00:00Z", "2026-12-31T23:59:00.000Z"},
        {"0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00.000Z"},
        {"0 0 1 * *", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00.000Z"},
        {"0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00.000Z"},
        {"0 0 29 FEB *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00.000Z"}, /* 2100 has none */
        {"0 0 28 2 *", "2027-02-28T00:00:00Z", "2028-02-28T00:00:00.000Z"},
        {"*/15 9-17 * * mon-fri", "2026-11-27T17:45:00Z", "2026-11-30T09:00:00.000Z"},
        {"*/15 9-17 * * mon-fri", "2026-11-27T17:44:59Z", "2026-11-27T17:45:00.000Z"},
        {"5/20 * * * *", "2026-11-27T17:45:00Z", "2026-11-27T18:05:00.000Z"},
        {"0 0 1,15 * 5", "2026-11-02T00:00:00Z", "2026-11-06T00:00:00.000Z"}, /* either day */
        {"0 0 1,15 * 5", "2026-11-13T00:00:00Z", "2026-11-15T00:00:00.000Z"},
        {"0 0 */10 * 1", "2026-11-01T00:00:00Z", "2026-12-21T00:00:00.000Z"}, /* both days */
        {"0 0 29 2 */7", "2026-01-01T00:00:00Z", "2032-02-29T00:00:00.000Z"}, /* a Sunday */
        {"0 0 29 2 */7", "2088-03-01T00:00:00Z", "2128-02-29T00:00:00.000Z"},
        {"@hourly", "2026-12-31T23:00:00Z", "2027-01-01T00:00:00.000Z"},
        {"@weekly", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00.000Z"},
        {"@monthly", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00.000Z"},
        {"@yearly", "1970-01-01T00:00:00Z", "1971-01-01T00:00:00.000Z"},
        {"  30  4\t* * *  ", "2024-02-28T04:30:00Z", "2024-02-29T04:30:00.000Z"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char got[TIME_ISO_SIZE];
        struct cron c;
        struct err e;
        int64_t at;

        NEED_OK(cron_parse(str_of(cases[i].cron), &c, &e), &e);
        NEED(time_parse_iso(str_of(cases[i].after), &at));
        time_iso(cron_next(&c, at), got);
        CHECK_STR(str_of(got), str_of(cases[i].next));
    }
}

/* Every answer is a match, lies after the question, and no match lies between. */
static void against_every_minute(void)
{
    static const char *const texts[] = {"7 3 28-31 * *", "*/7 * * 2 *", "0 12 13 * 5",
                                        "1 1 * */3 2"};
    int64_t begin = INT64_C(1709164800) * NS_PER_S; /* 2024-02-29 */

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct cron c;
        struct err e;
        int64_t want = begin;

        NEED_OK(cron_parse(str_of(texts[i]), &c, &e), &e);
        want = cron_next(&c, begin);
        for (int64_t t = begin; t < begin + 400 * INT64_C(86400) * NS_PER_S; t += 60 * NS_PER_S) {
            if (t == want)
                want = cron_next(&c, t);
            else
                NEED(cron_next(&c, t) == want);
        }
        CHECK(want > begin + 300 * INT64_C(86400) * NS_PER_S);
    }
}

static void refused(void)
{
    static const struct {
        const char *cron, *why;
    } cases[] = {
        {"", "0 of five fields"},
        {"* * * *", "4 of five fields"},
        {"* * * * * *", "more than five fields"},
        {"60 * * * *", "the minute '60' is not a number from 0 to 59"},
        {"* 24 * * *", "the hour '24'"},
        {"* * 0 * *", "the day of the month '0'"},
        {"* * * 13 *", "the month '13'"},
        {"* * * * 8", "the weekday '8'"},
        {"* * * * mo", "the weekday 'mo'"},
        {"5-2 * * * *", "the minute '5-2'"},
        {"*/0 * * * *", "the minute '*/0'"},
        {"1,,2 * * * *", "the minute ''"},
        {"1, * * * *", "the minute ''"},
        {"-1 * * * *", "the minute '-1'"},
        {"*-5 * * * *", "the minute '*-5'"},
        {"0 0 30 2 *", "it never comes"},
        {"0 0 31 2,4,6,9,11 *", "it never comes"},
        {"@never", "the minute '@never'"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cron c;
        struct err e;

        CHECK_FAILS(cron_parse(str_of(cases[i].cron), &c, &e), INVALID_ARGUMENT, &e, cases[i].why);
    }
}

RUN_TESTS(T(next_times), T(against_every_minute), T(refused))
