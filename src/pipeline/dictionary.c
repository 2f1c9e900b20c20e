/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/priv.h"

#include "base/hash.h"

/* -0 is 0. */
static uint64_t hash_number(double v)
{
    v += 0.0;
    return hash64(&v, sizeof(v), 0);
}

static uint32_t find(const struct dictionary *d, str text, double number, uint32_t *ret_slot)
{
    uint32_t at = (uint32_t)(d->texts ? hash_str(text, 0) : hash_number(number)) & d->mask;

    for (; d->slots[at]; at = (at + 1) & d->mask) {
        uint32_t i = d->slots[at] - 1;

        if (d->texts ? str_eq(d->texts[i], text) : d->numbers[i] == number)
            return i;
    }
    if (ret_slot)
        *ret_slot = at;
    return DICTIONARY_NONE;
}

bool dictionary_init(struct dictionary *d, struct arena *a, uint32_t *ret_twice)
{
    uint32_t size = 4, slot = 0;

    while (size < d->n * 2)
        size *= 2;
    d->slots = ARENA_ARRAY(a, uint32_t, size);
    d->mask = size - 1;
    for (uint32_t i = 0; i < d->n; i++) {
        str text = d->texts ? d->texts[i] : STR_NULL;

        if (find(d, text, d->numbers ? d->numbers[i] : 0, &slot) != DICTIONARY_NONE) {
            *ret_twice = i;
            return false;
        }
        d->slots[slot] = i + 1;
    }
    return true;
}

uint32_t dictionary_text(const struct dictionary *d, str text)
{
    return find(d, text, 0, NULL);
}

uint32_t dictionary_number(const struct dictionary *d, double v)
{
    return find(d, STR_NULL, v, NULL);
}
