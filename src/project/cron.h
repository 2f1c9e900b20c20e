/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cron expressions: minute hour day-of-month month weekday, in UTC, so that no minute is missing or
 * comes twice. Each field is `*`, a number, a range a-b, a step a-b/n, * /n (without the blank) or
 * a/n, or a list of these; months and weekdays may be named (jan, MON), Sunday is 0 and 7. When
 * both day fields are restricted (neither begins with *), a day that matches either matches, as
 * cron has done since Version 7. @hourly @daily @midnight @weekly @monthly @yearly @annually are
 * known.
 */
#pragma once

#include "base/str.h"

struct cron {
    uint64_t minutes; /* bit i: minute i */
    uint32_t hours, days, months;
    uint32_t weekdays; /* bit 0: Sunday */
    bool either_day;   /* a day of the month or of the week suffices */
};

/* INVALID_ARGUMENT names the field and its range, also for a date that never comes (30 Feb). */
NODISCARD int cron_parse(str text, struct cron *ret, struct err *e);

/* The first matching minute strictly after wall_ns, which lies from 1970 to 2199. A parsed cron
 * always has one. Any thread. */
int64_t cron_next(const struct cron *c, int64_t wall_ns);
