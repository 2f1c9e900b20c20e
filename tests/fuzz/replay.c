/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libFuzzer in ordinary builds: gives every file of the folders named on the command
 * line to the fuzz target. A crash fails the test; so does a folder without seeds.
 */
#include "base/files.h"

#include <stdio.h>
#include <stdlib.h>

#define SEED_BYTES_MAX ((size_t)16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A heap copy of exactly the size, so that a sanitizer sees one byte too far. */
static void feed(str bytes)
{
    uint8_t *copy = malloc(bytes.n ? bytes.n : 1);

    if (!copy)
        abort();
    memcpy(copy, bytes.p, bytes.n);
    LLVMFuzzerTestOneInput(copy, bytes.n);
    free(copy);
}

static int replay_folder(const char *dir, size_t *passed, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str *names, bytes;
    size_t n;

    TRY(file_list(dir, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        const char *path = path_join(&a, dir, names[i].p);

        fprintf(stderr, "%s\n", path);
        TRY(file_read_all(path, SEED_BYTES_MAX, &a, &bytes, e));
        feed(bytes);
        (*passed)++;
    }
    return 0;
}

int main(int argc, char **argv)
{
    size_t passed = 0;
    struct err e;

    for (int i = 1; i < argc; i++) {
        if (replay_folder(argv[i], &passed, &e)) {
            fprintf(stderr, "%s\n", e.msg);
            return EXIT_FAILURE;
        }
    }
    printf("%zu passed, 0 failed\n", passed);
    return passed ? EXIT_SUCCESS : EXIT_FAILURE;
}
