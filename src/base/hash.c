/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 comes from libcrypto, which uses the instructions of the processor; the digest is looked
 * up once, because that look-up costs more than hashing a short text.
 *
 * CRC-32C (Castagnoli polynomial, reflected 0x82F63B78, as in RFC 3720): the SSE4.2 instruction
 * when the processor has it, else eight tables, eight bytes a step.
 *
 * hash64: each step multiplies two keyed 64-bit words to 128 bits and folds the halves. The product
 * alone forgets one factor when the other is zero, so both factors are folded in again: no choice
 * of input makes the seed irrelevant. It routes users to versions and so its values are fixed for
 * ever by known answers in the tests; it is no cryptographic hash.
 */
/* The low-level SHA256 functions are deprecated for new designs, and the only ones whose state is
 * plain bytes: a prepared key can be copied to the stack, where EVP allocates at each use. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "base/hash.h"

#include "base/files.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <pthread.h>

static EVP_MD *sha256_md;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void sha256_fetch(void)
{
    sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
    ASSERT(sha256_md);
}

static const EVP_MD *sha256_get(void)
{
    pthread_once(&sha256_once, sha256_fetch);
    return sha256_md;
}

void sha256_begin(struct sha256 *h)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    ASSERT(ctx && EVP_DigestInit_ex(ctx, sha256_get(), NULL) == 1);
    h->ctx = ctx;
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
    if (n)
        ASSERT(EVP_DigestUpdate(h->ctx, p, n) == 1);
}

void sha256_end(struct sha256 *h, unsigned char ret_digest[SHA256_BYTES])
{
    ASSERT(EVP_DigestFinal_ex(h->ctx, ret_digest, NULL) == 1);
    EVP_MD_CTX_free(TAKE(h->ctx));
}

void sha256_drop(struct sha256 *h)
{
    EVP_MD_CTX_free(TAKE(h->ctx));
}

void sha256_of(str bytes, unsigned char ret_digest[SHA256_BYTES])
{
    struct sha256 h;

    sha256_begin(&h);
    sha256_add(&h, bytes.p, bytes.n);
    sha256_end(&h, ret_digest);
}

void sha256_hex(str bytes, char ret_hex[SHA256_HEX_SIZE])
{
    unsigned char digest[SHA256_BYTES];

    sha256_of(bytes, digest);
    hex_encode(digest, sizeof(digest), ret_hex);
}

int sha256_file_hex(const char *path, char ret_hex[SHA256_HEX_SIZE], struct err *e)
{
    AUTO(file_closep) int fd = -1;
    AUTO(sha256_drop) struct sha256 h = {NULL};
    unsigned char digest[SHA256_BYTES], chunk[32768];
    uint64_t at = 0;
    size_t n;

    TRY(file_open(path, FILE_READ, &fd, e));
    sha256_begin(&h);
    do {
        TRY(file_pread(fd, chunk, sizeof(chunk), at, &n, e));
        sha256_add(&h, chunk, n);
        at += n;
    } while (n == sizeof(chunk));
    sha256_end(&h, digest);
    hex_encode(digest, sizeof(digest), ret_hex);
    return 0;
}

/* RFC 2104 on the digest above: HMAC() of libcrypto looks its parts up at every call, which takes
 * longer than hashing. */
void hmac_sha256(str key, str bytes, unsigned char ret_digest[SHA256_BYTES])
{
    unsigned char inner_pad[64] = {0}, outer_pad[64], inner[SHA256_BYTES];
    struct sha256 h;

    if (key.n > sizeof(inner_pad))
        sha256_of(key, inner_pad);
    else if (key.n)
        memcpy(inner_pad, key.p, key.n);
    for (size_t i = 0; i < sizeof(inner_pad); i++) {
        outer_pad[i] = inner_pad[i] ^ 0x5C;
        inner_pad[i] ^= 0x36;
    }
    sha256_begin(&h);
    sha256_add(&h, inner_pad, sizeof(inner_pad));
    sha256_add(&h, bytes.p, bytes.n);
    sha256_end(&h, inner);
    sha256_begin(&h);
    sha256_add(&h, outer_pad, sizeof(outer_pad));
    sha256_add(&h, inner, sizeof(inner));
    sha256_end(&h, ret_digest);
    explicit_bzero(inner_pad, sizeof(inner_pad));
    explicit_bzero(outer_pad, sizeof(outer_pad));
}

_Static_assert(sizeof(SHA256_CTX) == sizeof(((struct hmac_key *)0)->inner), "state of SHA-256");

void hmac_key_init(struct hmac_key *k, str key)
{
    unsigned char pad[64] = {0};
    SHA256_CTX ctx;

    if (key.n > sizeof(pad))
        sha256_of(key, pad);
    else if (key.n)
        memcpy(pad, key.p, key.n);
    for (size_t i = 0; i < sizeof(pad); i++)
        pad[i] ^= 0x36;
    SHA256_Init(&ctx);
    SHA256_Update(&ctx, pad, sizeof(pad));
    memcpy(k->inner, &ctx, sizeof(ctx));
    for (size_t i = 0; i < sizeof(pad); i++)
        pad[i] ^= 0x36 ^ 0x5C;
    SHA256_Init(&ctx);
    SHA256_Update(&ctx, pad, sizeof(pad));
    memcpy(k->outer, &ctx, sizeof(ctx));
    explicit_bzero(pad, sizeof(pad));
    explicit_bzero(&ctx, sizeof(ctx));
}

void hmac_key_sum(const struct hmac_key *k, str bytes, unsigned char ret_digest[SHA256_BYTES])
{
    unsigned char inner[SHA256_BYTES];
    SHA256_CTX ctx;

    memcpy(&ctx, k->inner, sizeof(ctx));
    if (bytes.n)
        SHA256_Update(&ctx, bytes.p, bytes.n);
    SHA256_Final(inner, &ctx);
    memcpy(&ctx, k->outer, sizeof(ctx));
    SHA256_Update(&ctx, inner, sizeof(inner));
    SHA256_Final(ret_digest, &ctx);
}

bool bytes_equal_constant_time(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

void hex_encode(const void *p, size_t n, char *ret_hex)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = p;

    for (size_t i = 0; i < n; i++) {
        ret_hex[2 * i] = digits[bytes[i] >> 4];
        ret_hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_hex[2 * n] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool hex_decode(str hex, void *ret_p, size_t n)
{
    unsigned char *bytes = ret_p;

    if (hex.n % 2 || hex.n / 2 != n)
        return false;
    for (size_t i = 0; i < hex.n; i++)
        if (hex_digit(hex.p[i]) < 0)
            return false;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)((unsigned)hex_digit(hex.p[2 * i]) << 4 |
                                   (unsigned)hex_digit(hex.p[2 * i + 1]));
    return true;
}

static uint64_t read64(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t read32(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "hash64, crc32c and the file formats read words in little-endian order");

/* crc_table[k][b]: the effect of byte b followed by k zero bytes. */
static uint32_t crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_table_fill(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;

        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? UINT32_C(0x82F63B78) : 0);
        crc_table[0][b] = crc;
    }
    for (uint32_t b = 0; b < 256; b++)
        for (int k = 1; k < 8; k++)
            crc_table[k][b] = crc_table[k - 1][b] >> 8 ^ crc_table[0][crc_table[k - 1][b] & 255];
}

static uint32_t crc32c_by_table(uint32_t crc, const unsigned char *p, size_t n)
{
    pthread_once(&crc_once, crc_table_fill);
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word = read64(p) ^ crc;

        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= crc_table[7 - k][word >> (8 * k) & 255];
    }
    for (; n; p++, n--)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *p) & 255];
    return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc32c_by_sse(uint32_t crc,
                                                                const unsigned char *p, size_t n)
{
    uint64_t crc64 = crc;

    for (; n >= 8; p += 8, n -= 8)
        crc64 = __builtin_ia32_crc32di(crc64, read64(p));
    crc = (uint32_t)crc64;
    for (; n; p++, n--)
        crc = __builtin_ia32_crc32qi(crc, *p);
    return crc;
}

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    if (LIKELY(__builtin_cpu_supports("sse4.2")))
        return ~crc32c_by_sse(~crc, p, n);
    return ~crc32c_by_table(~crc, p, n);
}
#else
uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    return ~crc32c_by_table(~crc, p, n);
}
#endif

uint32_t crc32c_portable(uint32_t crc, const void *p, size_t n)
{
    return ~crc32c_by_table(~crc, p, n);
}

/* Keys: odd 64-bit words of the hexadecimal expansion of pi. */
#define KEY_A UINT64_C(0x243F6A8885A308D3)
#define KEY_B UINT64_C(0x082EFA98EC4E6C89)
#define KEY_C UINT64_C(0x452821E638D01377)
#define KEY_D UINT64_C(0xC0AC29B7C97C50DD)

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;

    return (a ^ (uint64_t)product) ^ (b ^ (uint64_t)(product >> 64));
}

uint64_t hash64(const void *p, size_t n, uint64_t seed)
{
    const unsigned char *at = p;
    uint64_t state = fold(seed ^ KEY_A, n ^ KEY_B), a = 0, b = 0;
    size_t left = n;

    for (; left > 16; at += 16, left -= 16)
        state = fold(read64(at) ^ KEY_C, read64(at + 8) ^ state);
    if (left >= 8) { /* two words that overlap when fewer than 16 bytes are left */
        a = read64(at);
        b = read64(at + left - 8);
    } else if (left >= 4) {
        a = read32(at);
        b = read32(at + left - 4);
    } else if (left) {
        a = (uint64_t)at[0] << 16 | (uint64_t)at[left / 2] << 8 | at[left - 1];
    }
    state = fold(a ^ KEY_C, b ^ state);
    return fold(state ^ KEY_D, state >> 32 ^ KEY_B);
}
