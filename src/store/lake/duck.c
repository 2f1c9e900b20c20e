/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding and opening libduckdb.so.
 *
 * The library is 70 MB and most processes of Weir never need it, so it is not linked but opened on
 * first use (base/library.h says where). All functions of functions.def are looked up at once: a
 * library that lacks one is refused with its name, before anything runs on it.
 */
#include "store/lake/priv.h"

#include "base/library.h"

#include <pthread.h>

#define LIBRARY "libduckdb.so"

struct duck duck;
static bool loaded;
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;

static NODISCARD int look_up(void *lib, struct err *e)
{
    struct duck d;

#define DUCK(name)                                                    \
    *(void **)(void *)&d.name = library_symbol(lib, "duckdb_" #name); \
    if (!d.name)                                                      \
        return FAIL(e, UNAVAILABLE,                                   \
                    LIBRARY " lacks duckdb_" #name ": install the version that bootstrap pins");
#include "store/lake/functions.def"
#undef DUCK
    duck = d;
    return 0;
}

static NODISCARD int load_locked(struct err *e)
{
    static const char *const names[] = {LIBRARY, NULL};
    void *lib;

    TRY(library_open("DuckDB, which the lake needs", names, &lib, e));
    TRY(look_up(lib, e));
    loaded = true;
    return 0;
}

static void unlock(pthread_mutex_t **lock)
{
    pthread_mutex_unlock(*lock);
}

int duck_load(struct err *e)
{
    AUTO(unlock) pthread_mutex_t *lock = &load_lock;

    pthread_mutex_lock(lock);
    return loaded ? 0 : load_locked(e);
}

const char *lake_version(void)
{
    return loaded ? duck.library_version() : NULL;
}
