/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Specs are kept in a process-wide list by profile hash and never freed, because record schemas,
 * and the keeper that reads them, live for ever. A profile is a few kilobytes and there is one for
 * each version that was ever served by this process.
 */
#include "serve/profile.h"

#include "base/hash.h"
#include "base/mem.h"
#include "stats/cells.h"

#include <pthread.h>

#define PROFILE_BYTES_MAX ((size_t)64 << 20)

struct profile {
    struct profile *next;
    struct arena arena; /* for ever */
    str hash;
    struct json *columns;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct profile *profiles;

static NODISCARD int profile_open(struct blobs *blobs, str hash, struct profile **ret_profile,
                                  struct err *e)
{
    struct profile *p = mem_zalloc(sizeof(*p));
    struct json *root = NULL;
    str text;
    int rc;

    arena_init(&p->arena, 0);
    rc = blobs_get(blobs, hash, PROFILE_BYTES_MAX, &p->arena, &text, e);
    if (!rc)
        rc = json_parse(text, &p->arena, &root, e);
    if (!rc)
        rc = json_need_array(root, S("columns"), &p->columns, e);
    if (rc) {
        arena_done(&p->arena);
        mem_free(p);
        return rc;
    }
    p->hash = arena_dup(&p->arena, hash);
    p->next = profiles;
    *ret_profile = profiles = p;
    return 0;
}

static const struct json *column_find(const struct profile *p, str name)
{
    JSON_EACH (column, p->columns)
        if (str_eq(json_str_or(json_get(column, S("name")), STR_NULL), name))
            return column;
    return NULL;
}

static NODISCARD int specs_make(struct profile *p, const struct record_column *columns, uint32_t n,
                                const struct cells_spec *const **ret_specs, struct err *e)
{
    const struct cells_spec **specs = ARENA_ARRAY(&p->arena, const struct cells_spec *, n);

    for (uint32_t i = 0; i < n; i++) {
        const struct json *cells = json_get(column_find(p, columns[i].name), S("cells"));
        struct cells_spec *spec;

        if (!cells)
            continue;
        spec = ARENA_NEW(&p->arena, struct cells_spec);
        if (cells_spec_from_json(cells, spec, e))
            return err_context(e, "profile %.12s, column '" STR_F "'", p->hash.p,
                               STR_A(columns[i].name));
        specs[i] = spec;
    }
    *ret_specs = specs;
    return 0;
}

int profile_cells_load(struct blobs *blobs, str hash, const struct record_column *columns,
                       uint32_t n, const struct cells_spec *const **ret_specs, uint64_t *ret_hash,
                       struct err *e)
{
    struct profile *p;
    int rc = 0;

    pthread_mutex_lock(&lock);
    for (p = profiles; p && !str_eq(p->hash, hash);)
        p = p->next;
    if (!p)
        rc = profile_open(blobs, hash, &p, e);
    if (!rc)
        rc = specs_make(p, columns, n, ret_specs, e);
    pthread_mutex_unlock(&lock);
    if (!rc)
        *ret_hash = hash_str(hash, 0);
    return rc;
}
