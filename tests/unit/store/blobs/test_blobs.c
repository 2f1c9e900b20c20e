/* SPDX-License-Identifier: Apache-2.0 */
#include "store/blobs/blobs.h"

#include "base/files.h"
#include "base/time.h"
#include "check.h"

#include "../fault/power.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static void make_dir(char path[64])
{
    snprintf(path, 64, "/tmp/weir-blobs-XXXXXX");
    if (!check_mkdtemp(path))
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

/* A plan: parts as blobs, then the file that names the newest. Says each number when it is durable.
 */
static void put_plans(const char *dir, struct blobs *b, int pipe_end)
{
    char path[96], hash[BLOB_HASH_SIZE], part[6000];
    struct err e;

    snprintf(path, sizeof path, "%s/current", dir);
    for (char i = 0; i < 20; i++) {
        memset(part, 'a' + i, sizeof part);
        if (blobs_put(b, (str){part, sizeof part}, hash, &e) ||
            file_replace(path, str_of(hash), &e) || write(pipe_end, &i, 1) != 1)
            _exit(1);
    }
    power_lost_now();
}

/* What is there after the loss is whole, `current` names a blob that is there, and it is the newest
 * that was said to be durable, or the next one. */
static void check_plans(const char *dir, int said)
{
    AUTO(blobs_closep) struct blobs *b = NULL;
    AUTO(arena_done) struct arena a = {0};
    char path[96], blob_dir[96];
    str *names, current, got;
    struct err e;
    size_t n;

    snprintf(path, sizeof path, "%s/current", dir);
    snprintf(blob_dir, sizeof blob_dir, "%s/blobs", dir);
    NEED_OK(blobs_open(blob_dir, &b, &e), &e);
    NEED_OK(blobs_list(b, &a, &names, &n, &e), &e);
    CHECK((int)n >= said);
    for (size_t i = 0; i < n; i++)
        CHECK_OK(blobs_get(b, names[i], 10000, &a, &got, &e), &e);
    if (said == 0 && !file_exists(path))
        return;
    NEED_OK(file_read_all(path, 100, &a, &current, &e), &e);
    NEED_OK(blobs_get(b, current, 10000, &a, &got, &e), &e);
    CHECK(got.n == 6000 && (got.p[0] - 'a' == said - 1 || got.p[0] - 'a' == said));
}

static void power_loss_leaves_what_was_said(void)
{
    for (int round = 0; round < 120; round++) {
        AUTO(blobs_closep) struct blobs *b = NULL;
        char dir[64], blob_dir[96], c;
        int pipes[2], said = 0;
        struct err e;
        pid_t pid;

        make_dir(dir);
        snprintf(blob_dir, sizeof blob_dir, "%s/blobs", dir);
        NEED_OK(blobs_open(blob_dir, &b, &e), &e);
        NEED(pipe(pipes) == 0);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            power_lost_at_sync(round % 40, (uint64_t)round);
            put_plans(dir, b, pipes[1]);
        }
        close(pipes[1]);
        while (read(pipes[0], &c, 1) == 1)
            said++;
        close(pipes[0]);
        NEED(waitpid(pid, NULL, 0) == pid);
        check_plans(dir, said);
        drop_dir(dir);
        NEED(check_failures == 0);
    }
}

RUN_TESTS(T(what_goes_in_comes_out), T(large_files_are_streamed), T(only_hashes_are_names),
          T(damage_is_refused_and_mended), T(collecting_spares_what_is_wanted_or_young),
          T(faults_leave_all_or_nothing), T(power_loss_leaves_what_was_said))
