/* SPDX-License-Identifier: Apache-2.0 */
#include "store/blobs/blobs.h"

#include "base/files.h"
#include "base/time.h"
#include "check.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static void make_dir(char path[64])
{
    snprintf(path, 64, "/tmp/weir-blobs-XXXXXX");
    if (!mkdtemp(path))
        abort();
}

static void drop_dir(const char *path)
{
    char command[128];

    snprintf(command, sizeof command, "rm -r '%s'", path);
    CHECK_INT(system(command), 0);
}

static void what_goes_in_comes_out(void)
{
    AUTO(blobs_closep) struct blobs *b = NULL;
    AUTO(arena_done) struct arena a;
    char dir[64], hash[BLOB_HASH_SIZE], again[BLOB_HASH_SIZE];
    uint64_t bytes;
    char *path;
    str got;
    struct err e;

    arena_init(&a, 0);
    make_dir(dir);
    NEED_OK(blobs_open(dir, &b, &e), &e);
    NEED_OK(blobs_put(b, S("abc"), hash, &e), &e);
    CHECK_STR(str_of(hash), S("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    NEED_OK(blobs_put(b, S("abc"), again, &e), &e);
    CHECK(strcmp(hash, again) == 0);
    NEED_OK(blobs_get(b, str_of(hash), 100, &a, &got, &e), &e);
    CHECK_STR(got, S("abc"));
    CHECK_FAILS(blobs_get(b, str_of(hash), 2, &a, &got, &e), RESOURCE_EXHAUSTED, &e, "");
    NEED_OK(blobs_path(b, str_of(hash), &a, &path, &e), &e);
    NEED_OK(blobs_put_file(b, path, again, &e), &e);
    CHECK(strcmp(hash, again) == 0);
    NEED_OK(blobs_size(b, str_of(hash), &bytes, &e), &e);
    CHECK_INT(bytes, 3);
    NEED_OK(blobs_put(b, S(""), again, &e), &e);
    CHECK(blobs_has(b, str_of(again)));
    drop_dir(dir);
}

static void large_files_are_streamed(void)
{
    AUTO(blobs_closep) struct blobs *b = NULL;
    AUTO(arena_done) struct arena a;
    char dir[64], hash[BLOB_HASH_SIZE], want[BLOB_HASH_SIZE];
    char *big = calloc(1, 3 << 20), *path;
    struct err e;

    arena_init(&a, 0);
    make_dir(dir);
    NEED_OK(blobs_open(dir, &b, &e), &e);
    path = path_join(&a, dir, "big");
    memset(big + 100, 'x', 2000000);
    sha256_hex((str){big, 3 << 20}, want);
    NEED_OK(file_replace(path, (str){big, 3 << 20}, &e), &e);
    NEED_OK(blobs_put_file(b, path, hash, &e), &e);
    CHECK(strcmp(hash, want) == 0);
    NEED_OK(blobs_path(b, str_of(hash), &a, &path, &e), &e);
    free(big);
    drop_dir(dir);
}

static void only_hashes_are_names(void)
{
    static const char *const bad[] = {
        "",
        "../../etc/passwd",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
        "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "../816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/",
    };
    AUTO(blobs_closep) struct blobs *b = NULL;
    AUTO(arena_done) struct arena a;
    char dir[64];
    char *path;
    str got;
    struct err e;

    arena_init(&a, 0);
    make_dir(dir);
    NEED_OK(blobs_open(dir, &b, &e), &e);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_FAILS(blobs_path(b, str_of(bad[i]), &a, &path, &e), INVALID_ARGUMENT, &e,
                    "no blob name");
        CHECK(!blobs_has(b, str_of(bad[i])));
    }
    CHECK_FAILS(blobs_get(b, S("0000000000000000000000000000000000000000000000000000000000000000"),
                          9, &a, &got, &e),
                NOT_FOUND, &e, "0000");
    drop_dir(dir);
}

static void damage_is_refused_and_mended(void)
{
    AUTO(blobs_closep) struct blobs *b = NULL;
    AUTO(arena_done) struct arena a;
    char dir[64], hash[BLOB_HASH_SIZE];
    char *path;
    str got;
    struct err e;

    arena_init(&a, 0);
    make_dir(dir);
    NEED_OK(blobs_open(dir, &b, &e), &e);
    NEED_OK(blobs_put(b, S("weights"), hash, &e), &e);
    NEED_OK(blobs_path(b, str_of(hash), &a, &path, &e), &e);
    NEED_OK(file_replace(path, S("wejghts"), &e), &e);
    CHECK_FAILS(blobs_get(b, str_of(hash), 100, &a, &got, &e), DATA_LOSS, &e, "damaged");
    CHECK_FAILS(blobs_path(b, str_of(hash), &a, &path, &e), DATA_LOSS, &e, "damaged");
    NEED_OK(blobs_put(b, S("weights"), hash, &e), &e);
    CHECK_OK(blobs_get(b, str_of(hash), 100, &a, &got, &e), &e);
    drop_dir(dir);
}

static bool keep_first(void *ctx, str hash)
{
    return str_eqz(hash, ctx);
}

static void collecting_spares_what_is_wanted_or_young(void)
{
    AUTO(blobs_closep) struct blobs *b = NULL;
    AUTO(arena_done) struct arena a;
    char dir[64], kept[BLOB_HASH_SIZE], other[BLOB_HASH_SIZE];
    struct blobs_gc gc;
    str *hashes;
    size_t n;
    struct err e;

    arena_init(&a, 0);
    make_dir(dir);
    NEED_OK(blobs_open(dir, &b, &e), &e);
    NEED_OK(blobs_put(b, S("one"), kept, &e), &e);
    NEED_OK(blobs_put(b, S("two"), other, &e), &e);
    NEED_OK(blobs_list(b, &a, &hashes, &n, &e), &e);
    CHECK_INT(n, 2);
    NEED_OK(blobs_collect(b, keep_first, kept, 3600, &gc, &e), &e);
    CHECK(gc.removed == 0 && gc.kept == 2);
    NEED_OK(blobs_collect(b, keep_first, kept, 0, &gc, &e), &e);
    CHECK(gc.removed == 1 && gc.removed_bytes == 3 && gc.kept == 1);
    CHECK(blobs_has(b, str_of(kept)) && !blobs_has(b, str_of(other)));
    drop_dir(dir);
}

/* A put that fails or dies anywhere leaves the blob whole or absent, and can be done again. */
static void faults_leave_all_or_nothing(void)
{
    static const enum file_op ops[] = {FILE_OP_OPEN, FILE_OP_WRITE, FILE_OP_SYNC, FILE_OP_RENAME};

    for (int round = 0; round < 48; round++) {
        AUTO(blobs_closep) struct blobs *b = NULL;
        AUTO(arena_done) struct arena a;
        enum file_fault fault = (enum file_fault)(round / 4 % 3);
        char dir[64], hash[BLOB_HASH_SIZE];
        str got;
        pid_t pid;
        struct err e;

        arena_init(&a, 0);
        make_dir(dir);
        NEED_OK(blobs_open(dir, &b, &e), &e);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            file_test_fault(ops[round % 4], round / 12, fault, EIO, false);
            _exit(blobs_put(b, S("some bytes of a model"), hash, &e) != 0);
        }
        NEED(waitpid(pid, NULL, 0) == pid);
        sha256_hex(S("some bytes of a model"), hash);
        if (blobs_has(b, str_of(hash)))
            CHECK_OK(blobs_get(b, str_of(hash), 100, &a, &got, &e), &e);
        CHECK_OK(blobs_put(b, S("some bytes of a model"), hash, &e), &e);
        CHECK_OK(blobs_get(b, str_of(hash), 100, &a, &got, &e), &e);
        drop_dir(dir);
    }
}

RUN_TESTS(T(what_goes_in_comes_out), T(large_files_are_streamed), T(only_hashes_are_names),
          T(damage_is_refused_and_mended), T(collecting_spares_what_is_wanted_or_young),
          T(faults_leave_all_or_nothing))
