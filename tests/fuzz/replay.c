/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over its seeds without libFuzzer, so that they are tests of every build, with
 * either compiler. Each seed is run whole, and cut at every length up to 256 bytes, since most
 * parser mistakes sit where the input ends early. A seed stands in a block of its own exact
 * size, so that a sanitizer sees the first byte read past the end.
 *
 * An empty or missing folder is a failure: a test that runs nothing must not pass.
 */
#include "fuzz.h"

#include "base/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUTS_MAX 256

static void run_exact(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    ASSERT(copy);
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static bool run_seed(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    long size;

    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        if (file)
            fclose(file);
        return false;
    }
    rewind(file);
    data = malloc((size_t)size + 1);
    ASSERT(data);
    ASSERT(fread(data, 1, (size_t)size, file) == (size_t)size);
    fclose(file);
    run_exact(data, (size_t)size);
    for (size_t cut = 0; cut < MIN((size_t)size, CUTS_MAX); cut++)
        run_exact(data, cut);
    free(data);
    return true;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;

    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *entry;

        while (dir && (entry = readdir(dir))) {
            char path[4096];

            if (entry->d_name[0] == '.')
                continue;
            snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
            if (run_seed(path))
                passed++;
            else
                failed++;
        }
        if (dir)
            closedir(dir);
    }
    if (passed + failed == 0) {
        fprintf(stderr, "%s: no seeds\n", argc > 1 ? argv[1] : "usage: fuzz_NAME FOLDER…");
        failed = 1;
    }
    printf("%d passed, %d failed (seeds)\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
