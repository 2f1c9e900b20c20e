/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the large engines (see library.h).
 *
 * A file that is there but does not open (another machine's, a dependency missing) does not end the
 * search, since a later place may have a good one; but if none has, that is what the user needs to
 * hear, and not that nothing was found. The system's loader is asked last and by bare name, which
 * lets LD_LIBRARY_PATH and ld.so.conf do their work.
 */
#include "base/library.h"

#include "base/buf.h"
#include "base/files.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define VARIABLE "WEIR_DEPS_LIB"
#define PATH_BYTES 4096

#ifndef WEIR_DEPS_LIB_DIR
#define WEIR_DEPS_LIB_DIR ""
#endif

struct search {
    const char *const *names;
    void *found;
    struct buf tried;  /* the folders that have none, for the message */
    struct buf broken; /* why the first file that was there did not open */
};

static void search_done(struct search *s)
{
    buf_done(&s->tried);
    buf_done(&s->broken);
}

static void try_file(struct search *s, const char *path)
{
    const char *why;

    s->found = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    why = s->found ? NULL : dlerror();
    if (why && s->broken.n == 0)
        buf_add_str(&s->broken, str_of(why));
}

static void try_folder(struct search *s, const char *folder)
{
    char path[PATH_BYTES];

    if (s->found || !folder || !folder[0])
        return;
    for (const char *const *name = s->names; *name && !s->found; name++)
        if (snprintf(path, sizeof path, "%s/%s", folder, *name) < PATH_BYTES && file_exists(path))
            try_file(s, path);
    buf_printf(&s->tried, "%s%s", s->tried.n ? ", " : "", folder);
}

/* The folder of the program and a part behind it, as in "/usr/bin" "/../lib". */
static void try_beside_program(struct search *s, const char *part)
{
    char path[PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;

    if (slash && snprintf(slash, sizeof path - (size_t)(slash - path), "%s", part) <
                     PATH_BYTES - (int)(slash - path))
        try_folder(s, path);
}

static void try_system(struct search *s)
{
    for (const char *const *name = s->names; *name && !s->found; name++)
        s->found = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
}

int library_open(const char *what, const char *const *names, void **ret_library, struct err *e)
{
    AUTO(search_done) struct search s = {.names = names};

    ASSERT(what && names && names[0]);
    buf_init(&s.tried, BUF_MAX_DEFAULT);
    buf_init(&s.broken, BUF_MAX_DEFAULT);
    try_folder(&s, getenv(VARIABLE));
    try_beside_program(&s, "/../lib");
    try_beside_program(&s, "/lib");
    try_folder(&s, WEIR_DEPS_LIB_DIR);
    if (!s.found)
        try_system(&s);
    if (!s.found && s.broken.n)
        return FAIL(e, UNAVAILABLE, "%s does not open: %s", what, buf_z(&s.broken));
    if (!s.found)
        return FAIL(e, UNAVAILABLE,
                    "%s (%s) was not found: run scripts/bootstrap, or set " VARIABLE
                    " to its folder; looked in %s and the system's library path",
                    what, names[0], s.tried.n ? buf_z(&s.tried) : "no folder");
    *ret_library = s.found;
    return 0;
}

void *library_symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

const char *library_env(struct arena *a)
{
    const char *folder = getenv(VARIABLE);

    return folder ? arena_printf(a, VARIABLE "=%s", folder).p : NULL;
}
