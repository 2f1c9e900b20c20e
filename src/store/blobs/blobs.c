/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory store behind blobs.h.
 *
 * The order of a put is what makes it safe: bytes into tmp/<random>, fsync, rename to the final
 * name, fsync of that folder. A crash leaves at worst a file in tmp/, which blobs_collect() sweeps.
 * Two writers of the same bytes rename onto the same name; either outcome is the same content. The
 * final folder is synced also when the blob was there already: the writer who put it may have died
 * between its rename and its sync.
 *
 * A blob found damaged is not served, and a put of the same bytes replaces it.
 */
#include "store/blobs/blobs.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"

#include <stdio.h>
#include <sys/stat.h>

#define DIR_MAX 3800
#define PATH_BYTES 4096
#define PIECE_BYTES ((size_t)1 << 20)
#define TMP_AGE_S 86400

struct blobs {
    char dir[DIR_MAX];
};

struct blob_path {
    char dir[PATH_BYTES];
    char file[PATH_BYTES];
};

int blobs_open(const char *dir, struct blobs **ret_blobs, struct err *e)
{
    AUTO(blobs_closep) struct blobs *b = mem_zalloc(sizeof *b);
    char tmp[PATH_BYTES];

    if (!str_to_z(str_of(dir), b->dir, sizeof b->dir) || !b->dir[0])
        return FAIL(e, INVALID_ARGUMENT, "blob folder: a path of 1 to %d bytes is needed",
                    DIR_MAX - 1);
    snprintf(tmp, sizeof tmp, "%s/tmp", b->dir);
    TRY(file_make_dirs(tmp, e));
    *ret_blobs = TAKE(b);
    return 0;
}

void blobs_close(struct blobs *b)
{
    mem_free(b);
}

static bool is_hash(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
            return false;
    return s.n == SHA256_HEX_SIZE - 1;
}

static NODISCARD int locate(const struct blobs *b, str hash, struct blob_path *ret, struct err *e)
{
    if (!is_hash(hash))
        return FAIL(e, INVALID_ARGUMENT,
                    "'" STR_F "' is no blob name: 64 lower-case hex digits are needed",
                    STR_A(str_take(hash, 80)));
    snprintf(ret->dir, sizeof ret->dir, "%s/%.2s", b->dir, hash.p);
    snprintf(ret->file, sizeof ret->file, "%s/%.2s/%.62s", b->dir, hash.p, hash.p + 2);
    return 0;
}

static void temporary(const struct blobs *b, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/tmp/%016llx%016llx", b->dir, (unsigned long long)random_u64(),
             (unsigned long long)random_u64());
}

/* The temporary file, whole and synced, becomes the blob. */
static NODISCARD int move_in(const struct blobs *b, const char *tmp, const char *hash,
                             struct err *e)
{
    struct blob_path at;

    TRY(locate(b, str_of(hash), &at, e));
    TRY(file_make_dirs(at.dir, e));
    TRY(file_rename(tmp, at.file, e));
    return file_sync_dir(at.dir, e);
}

/* True when the blob is there, whole and durable: then there is nothing to write. */
static bool is_stored(const struct blobs *b, const char *hash)
{
    char found[SHA256_HEX_SIZE];
    struct blob_path at;

    return locate(b, str_of(hash), &at, NULL) == 0 && file_exists(at.file) &&
           sha256_file_hex(at.file, found, NULL) == 0 && strcmp(found, hash) == 0 &&
           file_sync_dir(at.dir, NULL) == 0;
}

static NODISCARD int write_tmp(const char *tmp, str bytes, struct err *e)
{
    AUTO(file_closep) int fd = -1;

    TRY(file_open(tmp, FILE_EXCLUSIVE, &fd, e));
    TRY(file_write_all(fd, bytes.p, bytes.n, e));
    return file_sync(fd, e);
}

static NODISCARD int drop_tmp(const char *tmp, int rc)
{
    int ignored UNUSED = file_remove(tmp, NULL);

    return rc;
}

int blobs_put(struct blobs *b, str bytes, char ret_hash[BLOB_HASH_SIZE], struct err *e)
{
    char hash[SHA256_HEX_SIZE], tmp[PATH_BYTES];
    int rc;

    sha256_hex(bytes, hash);
    if (!is_stored(b, hash)) {
        temporary(b, tmp);
        rc = write_tmp(tmp, bytes, e);
        if (!rc)
            rc = move_in(b, tmp, hash, e);
        if (rc)
            return drop_tmp(tmp, rc);
    }
    memcpy(ret_hash, hash, sizeof hash);
    return 0;
}

/* Copies a file to tmp and hashes what was copied, so that the name fits the bytes in any case. */
static NODISCARD int copy_tmp(const char *path, const char *tmp, char ret_hash[SHA256_HEX_SIZE],
                              struct err *e)
{
    AUTO(file_closep) int from = -1;
    AUTO(file_closep) int to = -1;
    AUTO(mem_freep) char *piece = mem_alloc(PIECE_BYTES);
    unsigned char digest[SHA256_BYTES];
    struct sha256 h;
    uint64_t at = 0;
    size_t n = 0;
    int rc;

    TRY(file_open(path, FILE_READ, &from, e));
    TRY(file_open(tmp, FILE_EXCLUSIVE, &to, e));
    sha256_begin(&h);
    do {
        rc = file_pread(from, piece, PIECE_BYTES, at, &n, e);
        if (!rc && n) {
            sha256_add(&h, piece, n);
            rc = file_pwrite_all(to, piece, n, at, e);
        }
        at += n;
    } while (!rc && n == PIECE_BYTES);
    sha256_end(&h, digest);
    TRY(rc);
    hex_encode(digest, sizeof digest, ret_hash);
    return file_sync(to, e);
}

int blobs_put_file(struct blobs *b, const char *path, char ret_hash[BLOB_HASH_SIZE], struct err *e)
{
    char hash[SHA256_HEX_SIZE], tmp[PATH_BYTES];
    int rc;

    TRY(sha256_file_hex(path, hash, e));
    if (!is_stored(b, hash)) {
        temporary(b, tmp);
        rc = copy_tmp(path, tmp, hash, e);
        if (!rc)
            rc = move_in(b, tmp, hash, e);
        if (rc)
            return drop_tmp(tmp, rc);
    }
    memcpy(ret_hash, hash, sizeof hash);
    return 0;
}

static NODISCARD int not_found(str hash, const struct blobs *b, struct err *e)
{
    return FAIL(e, NOT_FOUND, "blob " STR_F " is not in '%s'", STR_A(hash), b->dir);
}

static NODISCARD int damaged(str hash, const char *found, const char *file, struct err *e)
{
    return FAIL(e, DATA_LOSS,
                "blob " STR_F " is damaged: '%s' has the hash %.12s…; restore it from a replica or "
                "a backup",
                STR_A(str_take(hash, 12)), file, found);
}

int blobs_get(struct blobs *b, str hash, size_t max_bytes, struct arena *a, str *ret_bytes,
              struct err *e)
{
    char found[SHA256_HEX_SIZE];
    struct blob_path at;
    str bytes;

    TRY(locate(b, hash, &at, e));
    if (!file_exists(at.file))
        return not_found(hash, b, e);
    TRY(file_read_all(at.file, max_bytes, a, &bytes, e));
    sha256_hex(bytes, found);
    if (!str_eqz(hash, found))
        return damaged(hash, found, at.file, e);
    *ret_bytes = bytes;
    return 0;
}

int blobs_path(struct blobs *b, str hash, struct arena *a, char **ret_path, struct err *e)
{
    char found[SHA256_HEX_SIZE];
    struct blob_path at;

    TRY(locate(b, hash, &at, e));
    if (!file_exists(at.file))
        return not_found(hash, b, e);
    TRY(sha256_file_hex(at.file, found, e));
    if (!str_eqz(hash, found))
        return damaged(hash, found, at.file, e);
    *ret_path = arena_dupz(a, str_of(at.file));
    return 0;
}

bool blobs_has(struct blobs *b, str hash)
{
    struct blob_path at;

    return locate(b, hash, &at, NULL) == 0 && file_exists(at.file);
}

int blobs_size(struct blobs *b, str hash, uint64_t *ret_bytes, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    struct blob_path at;

    TRY(locate(b, hash, &at, e));
    if (!file_exists(at.file))
        return not_found(hash, b, e);
    TRY(file_open(at.file, FILE_READ, &fd, e));
    return file_size(fd, ret_bytes, e);
}

/* --- Listing and collecting ---------------------------------------------------------------- */

struct folder {
    str prefix; /* two hex digits */
    str *names;
    size_t n;
};

static NODISCARD int list_folders(const struct blobs *b, struct arena *a,
                                  struct folder **ret_folders, size_t *ret_n, size_t *ret_names,
                                  struct err *e)
{
    struct folder *folders;
    char path[PATH_BYTES];
    str *names;
    size_t n, count = 0, total = 0;

    TRY(file_list(b->dir, a, &names, &n, e));
    folders = ARENA_ARRAY(a, struct folder, n + 1);
    for (size_t i = 0; i < n; i++) {
        struct folder *f = &folders[count];

        if (names[i].n != 2)
            continue;
        f->prefix = names[i];
        snprintf(path, sizeof path, "%s/%.2s", b->dir, names[i].p);
        TRY(file_list(path, a, &f->names, &f->n, e));
        total += f->n;
        count++;
    }
    *ret_folders = folders;
    *ret_n = count;
    *ret_names = total;
    return 0;
}

int blobs_list(struct blobs *b, struct arena *a, str **ret_hashes, size_t *ret_n, struct err *e)
{
    struct folder *folders;
    size_t n, names, count = 0;
    str *hashes;

    TRY(list_folders(b, a, &folders, &n, &names, e));
    hashes = ARENA_ARRAY(a, str, names + 1);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < folders[i].n; k++) {
            str hash =
                arena_printf(a, STR_F STR_F, STR_A(folders[i].prefix), STR_A(folders[i].names[k]));

            if (is_hash(hash)) /* what is no blob is none of our business */
                hashes[count++] = hash;
        }
    *ret_hashes = hashes;
    *ret_n = count;
    return 0;
}

/* Age and size through lstat: no file of base/ needs these, and a blob is never a link. */
static bool is_old(const char *path, int64_t min_age_s, uint64_t *ret_bytes)
{
    struct stat st;

    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    *ret_bytes = (uint64_t)st.st_size;
    return (int64_t)st.st_mtime <= time_wall_ns() / NS_PER_S - min_age_s;
}

static NODISCARD int sweep_tmp(const struct blobs *b, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    char *dir;
    str *names;
    size_t n;
    uint64_t bytes;

    arena_init(&a, 0);
    dir = path_join(&a, b->dir, "tmp");
    TRY(file_list(dir, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        char *path = path_join(&a, dir, names[i].p);

        if (is_old(path, TMP_AGE_S, &bytes))
            TRY(file_remove(path, e));
    }
    return 0;
}

int blobs_collect(struct blobs *b, bool (*keep)(void *ctx, str hash), void *ctx, int64_t min_age_s,
                  struct blobs_gc *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    struct blobs_gc gc = {0};
    str *hashes;
    size_t n;

    ASSERT(keep && min_age_s >= 0);
    arena_init(&a, 0);
    TRY(blobs_list(b, &a, &hashes, &n, e));
    for (size_t i = 0; i < n; i++) {
        struct blob_path at;
        uint64_t bytes;

        TRY(locate(b, hashes[i], &at, e));
        if (keep(ctx, hashes[i]) || !is_old(at.file, min_age_s, &bytes)) {
            gc.kept++;
            continue;
        }
        TRY(file_remove(at.file, e));
        gc.removed++;
        gc.removed_bytes += bytes;
    }
    TRY(sweep_tmp(b, e));
    *ret = gc;
    return 0;
}
