/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs are ustar for the same reasons as bundles (registry/bundle.c): every machine can list one,
 * and the subset used here takes a page to write and to read.
 *
 * A pack is unpacked into a new folder of Weir's own, in which there are no links: so a name whose
 * every segment is checked cannot leave it.
 */
#include "serve/runtime/pack.h"

#include "base/files.h"
#include "base/mem.h"
#include "wire/ustar.h"

#include <stdio.h>
#include <sys/stat.h>

#define PIECE ((size_t)1 << 20)
#define MODE_PLAIN 0444
#define MODE_PROGRAM 0555

/* --- Writing ---------------------------------------------------------------------------------- */

struct packer {
    const char *folder, *but;
    int fd;
    uint64_t at;
    uint32_t files;
    char *piece; /* owned */
};

static void packer_done(struct packer *p)
{
    file_close(p->fd);
    mem_free(p->piece);
}

static NODISCARD int put_head(struct packer *p, const char *name, uint64_t bytes, uint32_t mode,
                              struct err *e)
{
    struct ustar_entry entry = {.mode = mode, .bytes = bytes};
    char block[USTAR_BLOCK];

    if (!str_to_z(str_of(name), entry.name, sizeof(entry.name)) || !ustar_write(&entry, block))
        return FAIL(e, INVALID_ARGUMENT,
                    "%s: the name is too long for a pack: at most 100 bytes, or 255 with folders",
                    name);
    if (p->at + bytes > PACK_BYTES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the folder has more than %llu MiB",
                    (unsigned long long)(PACK_BYTES_MAX >> 20));
    if (++p->files > PACK_FILES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the folder has more than %u files", PACK_FILES_MAX);
    TRY(file_pwrite_all(p->fd, block, sizeof(block), p->at, e));
    p->at += sizeof(block);
    return 0;
}

static NODISCARD int put_end(struct packer *p, uint64_t bytes, struct err *e)
{
    static const char zeros[USTAR_BLOCK];

    p->at += bytes;
    TRY(file_pwrite_all(p->fd, zeros, ustar_padded(bytes) - bytes, p->at, e));
    p->at += ustar_padded(bytes) - bytes;
    return 0;
}

static NODISCARD int put_file(struct packer *p, const char *path, const char *name,
                              const struct stat *st, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    uint64_t bytes = (uint64_t)st->st_size, done = 0;
    size_t n;

    TRY(put_head(p, name, bytes, st->st_mode & S_IXUSR ? MODE_PROGRAM : MODE_PLAIN, e));
    TRY(file_open(path, FILE_READ, &fd, e));
    while (done < bytes) {
        TRY(file_pread(fd, p->piece, MIN(bytes - done, PIECE), done, &n, e));
        if (!n)
            return FAIL(e, ABORTED, "%s became shorter while it was read", path);
        TRY(file_pwrite_all(p->fd, p->piece, n, p->at + done, e));
        done += n;
    }
    return put_end(p, bytes, e);
}

static bool name_is_plain(str name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < ' ' || name.p[i] == 0x7f || name.p[i] == '\\')
            return false;
    return name.n && str_is_utf8(name) && !str_eq(name, S(".")) && !str_eq(name, S(".."));
}

static bool left_out(const struct packer *p, str name, int depth)
{
    return str_eq(name, S("__pycache__")) || str_eq(name, S(".git")) ||
           (!depth && str_eqz(name, p->but));
}

static NODISCARD int put_folder(struct packer *p, const char *path, const char *name, int depth,
                                struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    str *names;
    size_t n;

    if (depth == PACK_DEPTH_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%s: folders are nested deeper than %d", path,
                    PACK_DEPTH_MAX);
    arena_init(&a, 0);
    TRY(file_list(path, &a, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        const char *below = path_join(&a, path, names[i].p);
        const char *own = depth ? path_join(&a, name, names[i].p) : names[i].p;
        struct stat st;

        if (left_out(p, names[i], depth))
            continue;
        if (!name_is_plain(names[i]) || (!depth && str_eqz(names[i], PACK_MANIFEST)))
            return FAIL(e, INVALID_ARGUMENT, "%s: a pack cannot hold a file of that name", below);
        if (lstat(below, &st))
            return FAIL_ERRNO(e, "reading %s", below);
        if (S_ISDIR(st.st_mode))
            TRY(put_folder(p, below, own, depth + 1, e));
        else if (S_ISREG(st.st_mode))
            TRY(put_file(p, below, own, &st, e));
        else
            return FAIL(e, INVALID_ARGUMENT,
                        "%s is a link or no plain file: put the file itself into the folder",
                        below);
    }
    return 0;
}

int pack_write(const char *folder, const char *but, str manifest, const char *path, struct err *e)
{
    AUTO(packer_done) struct packer p = {.folder = folder, .but = but, .fd = -1};
    static const char zeros[2 * USTAR_BLOCK];

    if (manifest.n > PACK_MANIFEST_BYTES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "the manifest has more than %zu KiB",
                    PACK_MANIFEST_BYTES_MAX >> 10);
    p.piece = mem_alloc(PIECE);
    TRY(file_open(path, FILE_EXCLUSIVE, &p.fd, e));
    TRY(put_head(&p, PACK_MANIFEST, manifest.n, MODE_PLAIN, e));
    TRY(file_pwrite_all(p.fd, manifest.p, manifest.n, p.at, e));
    TRY(put_end(&p, manifest.n, e));
    TRY(put_folder(&p, folder, "", 0, e));
    TRY(file_pwrite_all(p.fd, zeros, sizeof(zeros), p.at, e));
    return file_sync(p.fd, e);
}

/* --- Reading ---------------------------------------------------------------------------------- */

bool pack_is(str head)
{
    return ustar_begins(head, PACK_MANIFEST);
}

/* The next file's header at *at, which then stands at its bytes; *ret_end at the last. */
static NODISCARD int next_file(int fd, uint64_t *at, struct ustar_entry *ret, bool *ret_end,
                               struct err *e)
{
    char block[USTAR_BLOCK];
    enum ustar_verdict verdict;
    uint64_t end;
    size_t n;

    TRY(file_size(fd, &end, e));
    TRY(file_pread(fd, block, sizeof(block), *at, &n, e));
    verdict = n == sizeof(block) ? ustar_read(block, ret) : USTAR_DAMAGED;
    if (verdict == USTAR_DAMAGED || verdict == USTAR_FOREIGN)
        return FAIL(e, INVALID_ARGUMENT, "the pack is damaged or no pack, at byte %llu",
                    (unsigned long long)*at);
    *ret_end = verdict == USTAR_END;
    if (*ret_end)
        return 0;
    *at += USTAR_BLOCK;
    if (*at > end || ret->bytes > PACK_BYTES_MAX || ustar_padded(ret->bytes) > end - *at)
        return FAIL(e, INVALID_ARGUMENT, "the pack ends within '%s'", ret->name);
    return 0;
}

int pack_manifest(const char *path, struct arena *a, str *ret_manifest, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    struct ustar_entry entry = {.bytes = 0};
    uint64_t at = 0;
    bool end = false;
    char *p;
    size_t n;

    TRY(file_open(path, FILE_READ, &fd, e));
    TRY(next_file(fd, &at, &entry, &end, e));
    if (end || strcmp(entry.name, PACK_MANIFEST) != 0 || entry.bytes > PACK_MANIFEST_BYTES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "%s is no pack: it does not begin with %s", path,
                    PACK_MANIFEST);
    p = arena_alloc(a, entry.bytes + 1);
    if (!p)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the manifest of %s", path);
    TRY(file_pread(fd, p, entry.bytes, at, &n, e));
    if (n != entry.bytes)
        return FAIL(e, DATA_LOSS, "%s became shorter while it was read", path);
    *ret_manifest = (str){p, n};
    return 0;
}

/* Each segment of a relative path names something in the folder that it stands in. */
static bool path_is_plain(str path)
{
    int depth = 0;

    while (path.p) {
        if (!name_is_plain(str_cut(&path, '/')) || ++depth > PACK_DEPTH_MAX)
            return false;
    }
    return depth > 0;
}

static NODISCARD int make_file(int from, uint64_t at, const struct ustar_entry *entry,
                               const char *folder, char *piece, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(file_closep) int fd = -1;
    const char *slash = strrchr(entry->name, '/'), *path;
    size_t n;

    arena_init(&a, 0);
    if (slash)
        TRY(file_make_dirs(path_join(&a, folder, arena_dupz(&a, str_range(entry->name, slash))),
                           e));
    path = path_join(&a, folder, entry->name);
    TRY(file_open(path, FILE_EXCLUSIVE, &fd, e));
    for (uint64_t done = 0; done < entry->bytes; done += n) {
        TRY(file_pread(from, piece, MIN(entry->bytes - done, PIECE), at + done, &n, e));
        if (!n)
            return FAIL(e, DATA_LOSS, "the pack became shorter while it was read");
        TRY(file_pwrite_all(fd, piece, n, done, e));
    }
    if (fchmod(fd, entry->mode & S_IXUSR ? MODE_PROGRAM : MODE_PLAIN))
        return FAIL_ERRNO(e, "setting the permissions of %s", path);
    return 0;
}

int pack_unpack(const char *path, const char *folder, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    AUTO(mem_freep) char *piece = mem_alloc(PIECE);
    uint64_t at = 0;

    TRY(file_open(path, FILE_READ, &fd, e));
    for (uint32_t files = 0;; files++) {
        struct ustar_entry entry = {.bytes = 0};
        bool end = false;

        TRY(next_file(fd, &at, &entry, &end, e));
        if (end)
            return 0;
        if (files > PACK_FILES_MAX)
            return FAIL(e, INVALID_ARGUMENT, "the pack has more than %u files", PACK_FILES_MAX);
        if (!path_is_plain(str_of(entry.name)))
            return FAIL(e, INVALID_ARGUMENT, "the name of file %u of the pack is refused",
                        files + 1);
        TRY(make_file(fd, at, &entry, folder, piece, e));
        at += ustar_padded(entry.bytes);
    }
}
