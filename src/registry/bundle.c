/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bundles are ustar archives because every machine can list one, and because the subset used here
 * (plain files with short fixed names) takes a page to write and to read. Everything else that tar
 * knows (paths, links, owners, long names, sparse files) is refused: a name that is not in
 * bundle_parts.def never reaches the file system, so a bundle cannot write where it should not.
 *
 * Reading trusts nothing: each header has its checksum, a size within the limit of its part and
 * within the file, and a name seen for the first time; after the last part there are zeros only.
 * Hashes are verified over the same descriptor that is read from later.
 */
#include "registry/bundle.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/time.h"
#include "registry/card.h"
#include "registry/registry.h"
#include "wire/ustar.h"

#define BLOCK USTAR_BLOCK
#define PIECE ((size_t)1 << 20)
#define TRAILER_BYTES_MAX 65536u /* zeros after the last part: tar rounds up to its record */
#define FORMAT 1

static const struct {
    const char *name;
    uint64_t bytes_max;
    bool required;
} parts[] = {
#define PART(id, name, bytes_max, required, help) {name, bytes_max, required},
#include "registry/bundle_parts.def"
#undef PART
};

const char *bundle_part_name(enum bundle_part part)
{
    return parts[part].name;
}

/* --- Writing ---------------------------------------------------------------------------------- */

struct writer {
    int fd;
    struct blobs *blobs;
    struct arena arena;
    struct json *manifest;
    struct source {
        const char *path; /* of a blob, or NULL: the text */
        str text;
        uint64_t bytes;
        bool there;
    } sources[BUNDLE_PART_COUNT];
    uint64_t at, mtime_s;
};

static void writer_done(struct writer *w)
{
    file_close(w->fd);
    arena_done(&w->arena);
}

static NODISCARD int put_head(struct writer *w, enum bundle_part part, struct err *e)
{
    struct ustar_entry entry = {
        .mode = 0644, .bytes = w->sources[part].bytes, .mtime_s = w->mtime_s};
    char block[USTAR_BLOCK];
    bool fits;

    memcpy(entry.name, parts[part].name, strlen(parts[part].name));
    fits = ustar_write(&entry, block);
    ASSERT(fits); /* short names, sizes within bundle_parts.def */
    TRY(file_pwrite_all(w->fd, block, sizeof(block), w->at, e));
    w->at += sizeof(block);
    return 0;
}

static NODISCARD int put_file(struct writer *w, const struct source *s, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    AUTO(mem_freep) char *piece = mem_alloc(PIECE);
    uint64_t done = 0;
    size_t n;

    TRY(file_open(s->path, FILE_READ, &fd, e));
    while (done < s->bytes) {
        TRY(file_pread(fd, piece, MIN(s->bytes - done, PIECE), done, &n, e));
        if (!n)
            return FAIL(e, DATA_LOSS, "%s became shorter while it was read", s->path);
        TRY(file_pwrite_all(w->fd, piece, n, w->at + done, e));
        done += n;
    }
    return 0;
}

static NODISCARD int put_part(struct writer *w, enum bundle_part part, struct err *e)
{
    const struct source *s = &w->sources[part];
    static const char zeros[BLOCK];

    if (!s->there)
        return 0;
    TRY(put_head(w, part, e));
    if (s->path)
        TRY(put_file(w, s, e));
    else
        TRY(file_pwrite_all(w->fd, s->text.p, s->text.n, w->at, e));
    TRY(file_pwrite_all(w->fd, zeros, ustar_padded(s->bytes) - s->bytes, w->at + s->bytes, e));
    w->at += ustar_padded(s->bytes);
    return 0;
}

/* Notes a part in the manifest. */
static void noted(struct writer *w, enum bundle_part part, str hash)
{
    struct json *list = json_get(w->manifest, S("parts"));
    struct json *item = json_set(list, str_of(parts[part].name), json_new_object(&w->arena));

    json_set_int(&w->arena, item, S("bytes"), (int64_t)w->sources[part].bytes);
    json_set_str(&w->arena, item, S("sha256"), arena_dup(&w->arena, hash));
}

static NODISCARD int add_blob(struct writer *w, enum bundle_part part, str hash, struct err *e)
{
    struct source *s = &w->sources[part];
    char *path;

    TRY(blobs_path(w->blobs, hash, &w->arena, &path, e));
    TRY(blobs_size(w->blobs, hash, &s->bytes, e));
    s->path = path;
    s->there = true;
    noted(w, part, hash);
    return 0;
}

static NODISCARD int add_text(struct writer *w, enum bundle_part part, struct buf *text,
                              struct err *e)
{
    struct source *s = &w->sources[part];
    char hash[SHA256_HEX_SIZE];

    if (text->overflowed || text->n > parts[part].bytes_max)
        return FAIL(e, RESOURCE_EXHAUSTED, "part %s of the bundle would have more than %llu MiB",
                    parts[part].name, (unsigned long long)(parts[part].bytes_max >> 20));
    s->text = arena_dup(&w->arena, buf_str(text));
    s->bytes = s->text.n;
    s->there = true;
    if (part == BUNDLE_MANIFEST)
        return 0;
    sha256_hex(s->text, hash);
    noted(w, part, str_of(hash));
    return 0;
}

static NODISCARD int add_json(struct writer *w, enum bundle_part part, const struct json *v,
                              struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    buf_init(&text, BUF_MAX_DEFAULT);
    json_write_canonical(&text, v);
    return add_text(w, part, &text, e);
}

static NODISCARD int add_card(struct writer *w, const struct json *card, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};

    buf_init(&text, BUF_MAX_DEFAULT);
    registry_card_markdown(card, &w->arena, &text);
    return add_text(w, BUNDLE_CARD, &text, e);
}

/* What the version says of itself and belongs to no other place of the bundle. */
static struct json *meta_copy(const struct json *meta, struct arena *a)
{
    static const char *const elsewhere[] = {"signature", "golden", "profile", "source", "platform"};
    struct json *to = json_new_object(a);

    if (!json_is_container(meta))
        return to;
    JSON_EACH (v, meta) {
        bool skip = false;

        for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++)
            skip = skip || str_eqz(v->key, elsewhere[i]);
        if (!skip)
            json_set(to, arena_dup(a, v->key), json_copy(a, v));
    }
    return to;
}

static void manifest_begin(struct writer *w, const struct bundle_input *in)
{
    struct arena *a = &w->arena;
    const struct json *meta = json_get(in->version, S("meta"));
    const struct json *back = json_path(in->card, "maintenance.rollback_target");
    int64_t created = json_int_or(json_get(in->version, S("created_ns")), 0);
    struct json *to = json_new_object(a);
    char at[TIME_ISO_SIZE];

    time_iso(created, at);
    w->mtime_s = (uint64_t)MAX(created, 0) / NS_PER_S;
    w->manifest = to;
    json_set_int(a, to, S("format"), FORMAT);
    json_set_str(a, to, S("kind"), S("weir.bundle"));
    json_set_str(a, to, S("created"), arena_dup(a, str_of(at)));
    json_set(to, S("model"), json_copy(a, json_get(in->version, S("model"))));
    json_set(to, S("version"), json_copy(a, json_get(in->version, S("version"))));
    json_set(to, S("platform"), json_copy(a, json_get(meta, S("platform"))));
    json_set(to, S("signature"), json_copy(a, json_get(meta, S("signature"))));
    json_set(to, S("meta"), meta_copy(meta, a));
    if (back)
        json_set(to, S("rollback_target"), json_copy(a, back));
    json_set(to, S("parts"), json_new_object(a));
}

static NODISCARD int gather(struct writer *w, const struct bundle_input *in, struct err *e)
{
    const struct json *meta = json_get(in->version, S("meta"));
    str artifact, source = json_str_or(json_get(meta, S("source")), S(""));
    str profile = json_str_or(json_get(meta, S("profile")), S("")), name;
    struct json *signature;

    TRY(json_need_str(in->version, S("model"), &name, e));
    TRY(json_need_str(in->version, S("artifact"), &artifact, e));
    TRY(json_need_object(meta, S("signature"), &signature, e));
    manifest_begin(w, in);
    TRY(add_blob(w, BUNDLE_MODEL, artifact, e));
    if (source.n && !str_eq(source, artifact))
        TRY(add_blob(w, BUNDLE_SOURCE, source, e));
    if (profile.n)
        TRY(add_blob(w, BUNDLE_PROFILE, profile, e));
    if (json_is_container(json_get(meta, S("golden"))))
        TRY(add_json(w, BUNDLE_GOLDEN, json_get(meta, S("golden")), e));
    if (in->card)
        TRY(add_card(w, in->card, e));
    return add_json(w, BUNDLE_MANIFEST, w->manifest, e);
}

static NODISCARD int write_all(struct writer *w, const char *path, struct err *e)
{
    static const char zeros[2 * BLOCK];

    TRY(file_open(path, FILE_EXCLUSIVE, &w->fd, e));
    for (int part = 0; part < BUNDLE_PART_COUNT; part++)
        TRY(put_part(w, (enum bundle_part)part, e));
    TRY(file_pwrite_all(w->fd, zeros, sizeof(zeros), w->at, e));
    return file_sync(w->fd, e);
}

int bundle_write(const struct bundle_input *in, const char *path, char ret_id[SHA256_HEX_SIZE],
                 struct err *e)
{
    AUTO(writer_done) struct writer w = {.fd = -1, .blobs = in->blobs};
    struct err ignored;
    char *made;
    int rc;

    arena_init(&w.arena, 0);
    TRY(gather(&w, in, e));
    made = arena_dupz(&w.arena, arena_printf(&w.arena, "%s.part", path));
    TRY(file_remove(made, e));
    rc = write_all(&w, made, e);
    if (!rc)
        rc = file_rename(made, path, e);
    if (rc) {
        (void)!file_remove(made, &ignored);
        return rc;
    }
    sha256_hex(w.sources[BUNDLE_MANIFEST].text, ret_id);
    return 0;
}

/* --- Reading ---------------------------------------------------------------------------------- */

void bundle_done(struct bundle *b)
{
    file_close(b->fd);
    b->fd = -1;
}

bool bundle_is(str head)
{
    return ustar_begins(head, parts[BUNDLE_MANIFEST].name);
}

static bool all_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static NODISCARD int part_find(const char *name, enum bundle_part *ret, struct err *e)
{
    for (int i = 0; i < BUNDLE_PART_COUNT; i++)
        if (strcmp(name, parts[i].name) == 0) {
            *ret = (enum bundle_part)i;
            return 0;
        }
    for (const char *p = name; *p; p++)
        if (*p < ' ' || *p > '~')
            return FAIL(e, INVALID_ARGUMENT,
                        "refused: a part of the bundle has an unreadable name");
    return FAIL(e, INVALID_ARGUMENT, "refused: no bundle has a part '%s'", name);
}

/* One header, at *at; moves behind its part. */
static NODISCARD int head_read(struct bundle *b, const struct ustar_entry *entry, uint64_t *at,
                               uint64_t end, struct err *e)
{
    struct bundle_range *range;
    enum bundle_part part;

    TRY(part_find(entry->name, &part, e));
    range = &b->parts[part];
    if (range->there)
        return FAIL(e, INVALID_ARGUMENT, "refused: part %s is there twice", parts[part].name);
    *at += BLOCK;
    if (entry->bytes > parts[part].bytes_max || *at > end || ustar_padded(entry->bytes) > end - *at)
        return FAIL(
            e, INVALID_ARGUMENT,
            "refused: the size of part %s is beyond its limit of %llu MiB or the file's end",
            parts[part].name, (unsigned long long)(parts[part].bytes_max >> 20));
    *range = (struct bundle_range){.there = true, .at = *at, .bytes = entry->bytes};
    *at += ustar_padded(entry->bytes);
    return 0;
}

static NODISCARD int trailer_check(const struct bundle *b, uint64_t at, uint64_t end, struct err *e)
{
    char zeros[4096];
    size_t n;

    if (end - at > TRAILER_BYTES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "refused: something follows the last part of the bundle");
    for (; at < end; at += n) {
        TRY(file_pread(b->fd, zeros, MIN(end - at, sizeof(zeros)), at, &n, e));
        if (!n || !all_zero(zeros, n))
            return FAIL(e, INVALID_ARGUMENT,
                        "refused: something follows the last part of the bundle");
    }
    return 0;
}

static NODISCARD int heads_read(struct bundle *b, struct err *e)
{
    uint64_t at = 0, end;
    struct ustar_entry entry;
    enum ustar_verdict verdict;
    char block[BLOCK];
    size_t n;

    TRY(file_size(b->fd, &end, e));
    for (;;) {
        TRY(file_pread(b->fd, block, sizeof(block), at, &n, e));
        if (n != sizeof(block))
            return FAIL(e, INVALID_ARGUMENT, "refused: the bundle ends too early, at byte %llu",
                        (unsigned long long)(at + n));
        verdict = ustar_read(block, &entry);
        if (verdict == USTAR_END)
            break;
        if (verdict == USTAR_DAMAGED)
            return FAIL(e, INVALID_ARGUMENT, "refused: the bundle is damaged at byte %llu",
                        (unsigned long long)at);
        if (verdict == USTAR_FOREIGN)
            return FAIL(e, INVALID_ARGUMENT,
                        "refused: a bundle is a tar file of the form ustar with plain files only "
                        "(make it with weir bundle export)");
        TRY(head_read(b, &entry, &at, end, e));
    }
    TRY(trailer_check(b, at, end, e));
    for (int i = 0; i < BUNDLE_PART_COUNT; i++)
        if (parts[i].required && !b->parts[i].there)
            return FAIL(e, INVALID_ARGUMENT, "refused: the bundle has no part %s", parts[i].name);
    return 0;
}

int bundle_read(const struct bundle *b, enum bundle_part part, struct arena *a, str *ret_bytes,
                struct err *e)
{
    const struct bundle_range *r = &b->parts[part];
    AUTO(mem_freep) char *p = mem_try_alloc(r->bytes + 1);
    size_t n;

    ASSERT(r->there);
    if (!p)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for part %s", parts[part].name);
    TRY(file_pread(b->fd, p, r->bytes, r->at, &n, e));
    if (n != r->bytes)
        return FAIL(e, DATA_LOSS, "the bundle became shorter while it was read");
    *ret_bytes = arena_dup(a, (str){p, n});
    return 0;
}

/* The part in pieces: hashed, and written to `fd` unless that is -1. */
static NODISCARD int walk(const struct bundle *b, enum bundle_part part, int fd,
                          char ret_hash[SHA256_HEX_SIZE], struct err *e)
{
    AUTO(mem_freep) char *piece = mem_alloc(PIECE);
    AUTO(sha256_drop) struct sha256 h = {0};
    const struct bundle_range *r = &b->parts[part];
    unsigned char digest[SHA256_BYTES];
    size_t n;

    sha256_begin(&h);
    for (uint64_t done = 0; done < r->bytes; done += n) {
        TRY(file_pread(b->fd, piece, MIN(r->bytes - done, PIECE), r->at + done, &n, e));
        if (!n)
            return FAIL(e, DATA_LOSS, "the bundle became shorter while it was read");
        sha256_add(&h, piece, n);
        if (fd >= 0)
            TRY(file_pwrite_all(fd, piece, n, done, e));
    }
    sha256_end(&h, digest);
    hex_encode(digest, sizeof(digest), ret_hash);
    return 0;
}

static NODISCARD int part_verify(const struct bundle *b, enum bundle_part part, struct err *e)
{
    const struct json *said = json_get(json_get(b->manifest, S("parts")), str_of(parts[part].name));
    char hash[SHA256_HEX_SIZE];

    if (part == BUNDLE_MANIFEST)
        return 0;
    if (!said && !b->parts[part].there)
        return 0;
    if (!said || !b->parts[part].there)
        return FAIL(e, INVALID_ARGUMENT, "refused: part %s is in the %s but not in the %s",
                    parts[part].name, said ? "manifest" : "bundle", said ? "bundle" : "manifest");
    TRY(walk(b, part, -1, hash, e));
    if (!str_eqz(json_str_or(json_get(said, S("sha256")), S("")), hash))
        return FAIL(e, INVALID_ARGUMENT,
                    "refused: part %s does not have the hash in the manifest: the bundle was "
                    "changed or damaged",
                    parts[part].name);
    return 0;
}

static NODISCARD int manifest_read(struct bundle *b, struct arena *a, struct err *e)
{
    struct json *signature, *list;
    str text, model, kind;

    TRY(bundle_read(b, BUNDLE_MANIFEST, a, &text, e));
    sha256_hex(text, b->id);
    TRY(json_parse(text, a, &b->manifest, e));
    TRY(json_need_str(b->manifest, S("kind"), &kind, e));
    if (!str_eq(kind, S("weir.bundle")) ||
        json_int_or(json_get(b->manifest, S("format")), 0) != FORMAT)
        return FAIL(e, INVALID_ARGUMENT, "it is no bundle of format %d, which this version reads",
                    FORMAT);
    TRY(json_need_str(b->manifest, S("model"), &model, e));
    if (!str_is_name(model))
        return FAIL(e, INVALID_ARGUMENT, "its model has no usable name");
    TRY(json_need_object(b->manifest, S("signature"), &signature, e));
    return json_need_object(b->manifest, S("parts"), &list, e);
}

int bundle_open(const char *path, struct arena *a, struct bundle *ret, struct err *e)
{
    AUTO(bundle_done) struct bundle b = {.fd = -1};

    TRY(file_open(path, FILE_READ, &b.fd, e));
    TRY(heads_read(&b, e));
    if (manifest_read(&b, a, e))
        return err_context(e, "refused: manifest.json");
    for (int part = 0; part < BUNDLE_PART_COUNT; part++)
        TRY(part_verify(&b, (enum bundle_part)part, e));
    *ret = b;
    b.fd = -1;
    return 0;
}

int bundle_extract(const struct bundle *b, enum bundle_part part, const char *path, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    char hash[SHA256_HEX_SIZE];

    ASSERT(b->parts[part].there);
    TRY(file_open(path, FILE_EXCLUSIVE, &fd, e));
    return walk(b, part, fd, hash, e);
}
