/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests as values: making series, finding them, adding digests up.
 *
 * Merging is addition of every number, so the order of merges does not matter and a digest of a
 * minute is the sum of its 240 parts. Series are found by a linear walk: a digest holds the series
 * that saw traffic in a quarter of a second, and the keeper, which could not afford a walk per
 * record, finds its own by schema id (fold.c).
 */
#include "record/digest.h"

#include "base/mem.h"

void digest_init(struct digest *d, struct arena *a)
{
    *d = (struct digest){.arena = a};
}

static NODISCARD struct digest_series *series_alloc(struct arena *a, uint32_t columns, bool cells)
{
    struct digest_series *s = ARENA_NEW(a, struct digest_series);

    if (!s)
        return NULL;
    s->column_count = columns;
    s->latency = ARENA_NEW(a, struct latency);
    s->cells = cells ? ARENA_ARRAY(a, struct cells, columns) : NULL;
    return s->latency && (s->cells || !cells) ? s : NULL;
}

struct digest_series *digest_series_new(struct arena *a, const struct record_schema *schema,
                                        uint8_t arm, bool shadow)
{
    struct digest_series *s = series_alloc(a, schema->column_count, schema->cells != NULL);

    if (!s)
        return NULL;
    s->endpoint = schema->endpoint;
    s->version = schema->version;
    s->schema_hash = schema->hash;
    s->schema = schema;
    s->arm = arm;
    s->shadow = shadow;
    s->feature_count = schema->feature_count;
    return s;
}

void digest_series_clear(struct digest_series *s)
{
    s->requests = s->rows = 0;
    memset(s->status, 0, sizeof s->status);
    memset(s->flags, 0, sizeof s->flags);
    memset(&s->labels, 0, sizeof s->labels);
    memset(&s->paired, 0, sizeof s->paired);
    if (s->latency)
        latency_clear(s->latency);
    for (uint32_t i = 0; s->cells && i < s->column_count; i++)
        cells_clear(&s->cells[i]);
}

struct digest_series *digest_find(const struct digest *d, str endpoint, str version,
                                  uint64_t schema_hash, uint8_t arm, bool shadow)
{
    for (uint32_t i = 0; i < d->series_count; i++) {
        struct digest_series *s = d->series[i];

        if (s->schema_hash == schema_hash && s->arm == arm && s->shadow == shadow &&
            str_eq(s->endpoint, endpoint) && str_eq(s->version, version))
            return s;
    }
    return NULL;
}

int digest_add_series(struct digest *d, struct digest_series *s, struct err *e)
{
    if (d->series_count == d->series_cap) {
        uint32_t cap = d->series_cap ? 2 * d->series_cap : 16;
        struct digest_series **grown;

        if (d->series_count >= DIGEST_SERIES_MAX)
            return FAIL(e, RESOURCE_EXHAUSTED, "a digest of more than %u series",
                        DIGEST_SERIES_MAX);
        grown = ARENA_ARRAY(d->arena, struct digest_series *, cap);
        if (!grown)
            return FAIL(e, RESOURCE_EXHAUSTED, "no memory for a digest of %u series", cap);
        if (d->series_count)
            memcpy(grown, d->series, d->series_count * sizeof(struct digest_series *));
        d->series = grown;
        d->series_cap = cap;
    }
    d->series[d->series_count++] = s;
    return 0;
}

/* --- Merging ------------------------------------------------------------------------------- */

static void merge_labels(struct digest_labels *into, const struct digest_labels *from)
{
    into->joined += from->joined;
    into->corrected += from->corrected;
    into->duplicates += from->duplicates;
    into->errors += from->errors;
    into->unusable += from->unusable;
    into->squared_error += from->squared_error;
    into->absolute_error += from->absolute_error;
    into->delay_ms_sum += from->delay_ms_sum;
    for (size_t i = 0; i < RECORD_CLASSES_MAX; i++)
        for (size_t k = 0; k < RECORD_CLASSES_MAX; k++)
            into->confusion[i][k] += from->confusion[i][k];
}

static void merge_paired(struct digest_paired *into, const struct digest_paired *from)
{
    into->compared += from->compared;
    into->agreed += from->agreed;
    for (int i = 0; i < 4; i++)
        into->outcome[i / 2][i % 2] += from->outcome[i / 2][i % 2];
    into->loss_diff += from->loss_diff;
    into->loss_diff_squared += from->loss_diff_squared;
    into->loss_diff_count += from->loss_diff_count;
}

static void merge_series(struct digest_series *into, const struct digest_series *from)
{
    into->requests += from->requests;
    into->rows += from->rows;
    for (size_t i = 0; i < ARRAY_LEN(into->status); i++)
        into->status[i] += from->status[i];
    for (size_t i = 0; i < ARRAY_LEN(into->flags); i++)
        into->flags[i] += from->flags[i];
    if (from->latency)
        latency_merge(into->latency, from->latency);
    for (uint32_t i = 0; from->cells && into->cells && i < from->column_count; i++)
        cells_merge(&into->cells[i], &from->cells[i]);
    merge_labels(&into->labels, &from->labels);
    merge_paired(&into->paired, &from->paired);
}

static NODISCARD struct digest_series *copy_key(struct arena *a, const struct digest_series *from)
{
    struct digest_series *s = series_alloc(a, from->column_count, from->cells != NULL);

    if (!s)
        return NULL;
    s->endpoint = arena_dup(a, from->endpoint);
    s->version = arena_dup(a, from->version);
    s->schema_hash = from->schema_hash;
    s->schema = from->schema;
    s->arm = from->arm;
    s->shadow = from->shadow;
    s->feature_count = from->feature_count;
    return s->endpoint.p && s->version.p ? s : NULL;
}

static NODISCARD int merge_one(struct digest *into, const struct digest_series *from, struct err *e)
{
    struct digest_series *s = digest_find(into, from->endpoint, from->version, from->schema_hash,
                                          from->arm, from->shadow);

    if (s && s->column_count != from->column_count)
        return FAIL(e, INVALID_ARGUMENT,
                    "digests of '" STR_F "' with %u and %u columns cannot be added",
                    STR_A(from->endpoint), s->column_count, from->column_count);
    if (!s) {
        s = copy_key(into->arena, from);
        if (!s)
            return FAIL(e, RESOURCE_EXHAUSTED, "no memory to merge the digest of '" STR_F "'",
                        STR_A(from->endpoint));
        TRY(digest_add_series(into, s, e));
    }
    if (from->cells && !s->cells) { /* the first one came without cells */
        s->cells = ARENA_ARRAY(into->arena, struct cells, s->column_count);
        if (!s->cells)
            return FAIL(e, RESOURCE_EXHAUSTED, "no memory to merge the cells of '" STR_F "'",
                        STR_A(from->endpoint));
    }
    merge_series(s, from);
    return 0;
}

int digest_merge(struct digest *into, const struct digest *from, struct err *e)
{
    bool empty = into->from_wall_ns == 0 && into->to_wall_ns == 0;

    ASSERT(into->arena);
    for (uint32_t i = 0; i < from->series_count; i++)
        TRY(merge_one(into, from->series[i], e));
    if (empty) {
        into->gateway = arena_dup(into->arena, from->gateway);
        into->plan = arena_dup(into->arena, from->plan);
        into->from_wall_ns = from->from_wall_ns;
        into->run = from->run;
    }
    if (!str_eq(into->gateway, from->gateway))
        into->gateway = STR_NULL;
    if (into->run != from->run)
        into->run = 0;
    if (!str_eq(into->plan, from->plan))
        into->plan = STR_NULL;
    into->from_wall_ns = MIN(into->from_wall_ns, from->from_wall_ns);
    into->to_wall_ns = MAX(into->to_wall_ns, from->to_wall_ns);
    into->sequence = MAX(into->sequence, from->sequence);
    into->dropped_ring += from->dropped_ring;
    into->dropped_disk += from->dropped_disk;
    into->recorded += from->recorded;
    into->segment_bytes += from->segment_bytes;
    into->feedback += from->feedback;
    into->feedback_late += from->feedback_late;
    into->join_evicted += from->join_evicted;
    into->disk_failing |= from->disk_failing;
    into->partial |= from->partial;
    return 0;
}
