/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding and opening libduckdb.so.
 *
 * The library is 70 MB and most processes of Weir never need it, so it is not linked but opened on
 * first use, from the first of these places that has it: $WEIR_DEPS_LIB, ../lib beside the program
 * (an installed tree), the folder the build knew, the system's library path. All functions of
 * functions.def are looked up at once: a library that lacks one is refused with its name, before
 * anything runs on it.
 */
#include "store/lake/priv.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef WEIR_DEPS_LIB_DEFAULT
#define WEIR_DEPS_LIB_DEFAULT ""
#endif

#define LIBRARY "libduckdb.so"
#define PATH_BYTES 4096

struct duck duck;
static bool loaded;
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;

static void *open_in(const char *folder, struct buf *tried)
{
    char path[PATH_BYTES];
    void *lib;

    if (!folder || !folder[0])
        return NULL;
    if (snprintf(path, sizeof path, "%s/" LIBRARY, folder) >= (int)sizeof path)
        return NULL;
    lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        buf_printf(tried, "%s%s", tried->n ? ", " : "", folder);
    return lib;
}

static void *open_beside_program(struct buf *tried)
{
    char path[PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 16);
    char *slash;

    if (n <= 0)
        return NULL;
    path[n] = 0;
    slash = strrchr(path, '/');
    if (!slash)
        return NULL;
    memcpy(slash, "/../lib", sizeof "/../lib");
    return open_in(path, tried);
}

static NODISCARD int look_up(void *lib, struct err *e)
{
    struct duck d;

#define DUCK(name)                                           \
    *(void **)(void *)&d.name = dlsym(lib, "duckdb_" #name); \
    if (!d.name)                                             \
        return FAIL(e, UNAVAILABLE,                          \
                    LIBRARY " lacks duckdb_" #name ": install the version that bootstrap pins");
#include "store/lake/functions.def"
#undef DUCK
    duck = d;
    return 0;
}

static NODISCARD int load_locked(struct err *e)
{
    AUTO(buf_done) struct buf tried;
    void *lib;

    buf_init(&tried, 8192);
    lib = open_in(getenv("WEIR_DEPS_LIB"), &tried);
    lib = lib ? lib : open_beside_program(&tried);
    lib = lib ? lib : open_in(WEIR_DEPS_LIB_DEFAULT, &tried);
    lib = lib ? lib : dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return FAIL(e, UNAVAILABLE,
                    "the lake needs " LIBRARY ", which is neither in %s nor in the system's "
                    "library path: run scripts/bootstrap or set WEIR_DEPS_LIB",
                    tried.n ? buf_z(&tried) : "$WEIR_DEPS_LIB");
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
