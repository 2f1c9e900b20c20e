/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as metrics: samples lie within the text, and a label that is named is found. */
#include "fuzz.h"

#include "wire/prometheus.h"

#include <stdlib.h>

static void require(bool ok)
{
    if (!ok)
        abort();
}

static bool within(str part, str whole)
{
    return !part.n || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    str text = {(const char *)data, size};
    struct prometheus p;
    struct prometheus_sample s;

    if (size > 20000)
        return 0;
    prometheus_begin(&p, text);
    while (prometheus_next(&p, &s)) {
        require(s.name.n && within(s.name, text) && within(s.labels, text));
        require(within(prometheus_label(s.labels, S("le")), text));
    }
    require(p.wrong || !p.rest.n);
    return 0;
}
