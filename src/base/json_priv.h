/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the readers (json.c, yaml.c) and writers of trees; not for other folders. */
#pragma once

#include "base/json.h"

/* Index of the keys of one object while it is being read; starts zeroed. Small objects have no
 * table. Slots live in the arena. */
struct json_keys {
    struct json **slots; /* open addressing, NULL is free */
    size_t mask;
    uint64_t seed;
};

/* Appends the member, whose key is set, unless its key is there already: then returns the first
 * holder of the key and appends nothing. Expected constant time whatever the keys are. Sets the
 * arena's overflow flag when the table does not fit. */
struct json *json_keys_append(struct json_keys *keys, struct arena *a, struct json *object,
                              struct json *member);

/* True for whole numbers that fit int64: such reals are compared and written as integers. */
static inline bool json_is_whole(double v)
{
    const double limit = 9223372036854775808.0; /* 2^63 */

    return v >= -limit && v < limit && v == (double)(int64_t)v;
}

/* The members sorted bytewise by key; mem_free it. */
struct json **json_sorted_members(const struct json *object);
