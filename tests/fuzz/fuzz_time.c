/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an instant or a duration: refused, or a value whose own text reads back: an instant
 * to the millisecond, a duration within five percent.
 */
#include "fuzz.h"

#include "base/time.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_instant(str text)
{
    char iso[TIME_ISO_SIZE];
    int64_t ns, back;

    if (!time_parse_iso(text, &ns))
        return;
    time_iso(ns, iso);
    if (!time_parse_iso(str_of(iso), &back)) {
        require(ns < INT64_MIN + NS_PER_MS); /* the first millisecond of the range is cut */
        return;
    }
    require(back <= ns && ns - back < NS_PER_MS);
}

static void check_duration(str text)
{
    AUTO(arena_done) struct arena a = {0};
    int64_t ns, back;

    if (!time_parse_duration(text, &ns))
        return;
    require(ns >= 0);
    require(time_parse_duration(time_duration_text(&a, ns), &back));
    require(llabs(back - ns) <= ns / 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str text = {(const char *)data, size};

    check_instant(text);
    check_duration(text);
    return 0;
}
