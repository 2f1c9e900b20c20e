/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ustar.h"

#include <assert.h>

struct head {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6],
        version[2], uname[32], gname[32], major[8], minor[8], prefix[155], pad[12];
};
static_assert(sizeof(struct head) == USTAR_BLOCK, "a header is one block");

/* The sum of a header's bytes, its own field taken as blanks. */
static uint32_t head_sum(const struct head *h)
{
    const unsigned char *p = (const unsigned char *)h;
    uint32_t sum = 0;

    for (size_t i = 0; i < USTAR_BLOCK; i++)
        sum += i >= offsetof(struct head, sum) && i < offsetof(struct head, type) ? ' ' : p[i];
    return sum;
}

static void octal(char *to, size_t digits, uint64_t v)
{
    for (size_t i = digits; i-- > 0; v /= 8)
        to[i] = (char)('0' + v % 8);
}

/* An octal number of up to 11 digits, ended by a blank or NUL, or by the field. */
static NODISCARD bool octal_read(const char *p, size_t size, uint64_t *ret)
{
    uint64_t v = 0;
    size_t i = 0;

    for (; i < size && p[i] >= '0' && p[i] <= '7'; i++)
        v = v * 8 + (uint64_t)(p[i] - '0');
    *ret = v;
    return i > 0 && (i == size || p[i] == '\0' || p[i] == ' ');
}

/* A long name is cut at a '/': what is before it goes into the prefix. */
static bool name_put(struct head *h, str name)
{
    size_t cut = 0;

    if (name.n <= sizeof(h->name)) {
        memcpy(h->name, name.p, name.n);
        return name.n > 0;
    }
    for (size_t i = 1; i < name.n && i <= sizeof(h->prefix); i++)
        if (name.p[i] == '/' && name.n - i - 1 <= sizeof(h->name))
            cut = i;
    if (!cut || cut + 1 == name.n)
        return false;
    memcpy(h->prefix, name.p, cut);
    memcpy(h->name, name.p + cut + 1, name.n - cut - 1);
    return true;
}

bool ustar_write(const struct ustar_entry *entry, char ret_block[USTAR_BLOCK])
{
    struct head h = {.type = '0', .magic = "ustar", .version = {'0', '0'}};

    if (!name_put(&h, str_of(entry->name)) || entry->bytes >> 33 || entry->mtime_s >> 33)
        return false;
    octal(h.mode, 7, entry->mode & 0777);
    octal(h.uid, 7, 0);
    octal(h.gid, 7, 0);
    octal(h.major, 7, 0);
    octal(h.minor, 7, 0);
    octal(h.size, 11, entry->bytes);
    octal(h.mtime, 11, entry->mtime_s);
    octal(h.sum, 6, head_sum(&h));
    h.sum[7] = ' ';
    memcpy(ret_block, &h, sizeof(h));
    return true;
}

static bool all_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static void name_get(const struct head *h, char *to)
{
    size_t prefix = strnlen(h->prefix, sizeof(h->prefix)), n = strnlen(h->name, sizeof(h->name));

    memcpy(to, h->prefix, prefix);
    if (prefix)
        to[prefix++] = '/';
    memcpy(to + prefix, h->name, n);
    to[prefix + n] = '\0';
}

enum ustar_verdict ustar_read(const char block[USTAR_BLOCK], struct ustar_entry *ret)
{
    uint64_t sum, mode = 0;
    struct head h;

    if (all_zero(block, USTAR_BLOCK))
        return USTAR_END;
    memcpy(&h, block, sizeof(h));
    if (!octal_read(h.sum, sizeof(h.sum), &sum) || sum != head_sum(&h))
        return USTAR_DAMAGED;
    if (memcmp(h.magic, "ustar", sizeof(h.magic)) != 0 || (h.type != '0' && h.type != '\0') ||
        h.link[0])
        return USTAR_FOREIGN;
    if (!octal_read(h.size, sizeof(h.size), &ret->bytes) ||
        !octal_read(h.mtime, sizeof(h.mtime), &ret->mtime_s) ||
        !octal_read(h.mode, sizeof(h.mode), &mode))
        return USTAR_DAMAGED;
    ret->mode = (uint32_t)(mode & 0777);
    name_get(&h, ret->name);
    return USTAR_OK;
}

bool ustar_begins(str head, const char *name)
{
    size_t n = strlen(name);

    return head.n >= USTAR_BLOCK && n < sizeof(((struct head *)0)->name) &&
           memcmp(head.p + offsetof(struct head, magic), "ustar", 5) == 0 &&
           memcmp(head.p, name, n + 1) == 0;
}
