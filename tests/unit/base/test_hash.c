/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/random.h"

#include <unistd.h>

static void check_hex(const unsigned char *digest, const char *want)
{
    char hex[SHA256_HEX_SIZE];

    hex_encode(digest, SHA256_BYTES, hex);
    CHECK_STR(str_of(hex), str_of(want));
}

/* FIPS 180-4 examples. */
static void test_sha256(void)
{
    unsigned char digest[SHA256_BYTES];
    char hex[SHA256_HEX_SIZE];
    struct sha256 h;

    sha256_hex(STR_NULL, hex);
    CHECK_STR(str_of(hex), S("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    sha256_hex(S("abc"), hex);
    CHECK_STR(str_of(hex), S("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    sha256_begin(&h);
    for (int i = 0; i < 1000000; i += 1000) {
        char block[1000];

        memset(block, 'a', sizeof(block));
        sha256_add(&h, block, sizeof(block));
    }
    sha256_end(&h, digest);
    check_hex(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    sha256_begin(&h);
    sha256_drop(&h);
    sha256_drop(&h);
}

static void test_sha256_file(void)
{
    char path[] = "/tmp/weir-hash-XXXXXX", hex[SHA256_HEX_SIZE], want[SHA256_HEX_SIZE];
    AUTO(file_closep) int fd = mkstemp(path);
    static char bytes[100000];
    struct err e;

    NEED(fd >= 0);
    for (size_t n = 0; n <= sizeof(bytes); n += n == 65536 ? 34464 : 32768) {
        NEED_OK(file_truncate(fd, 0, &e), &e);
        NEED_OK(file_pwrite_all(fd, bytes, n, 0, &e), &e);
        NEED_OK(sha256_file_hex(path, hex, &e), &e);
        sha256_hex((str){bytes, n}, want);
        CHECK_STR(str_of(hex), str_of(want));
    }
    CHECK_OK(file_remove(path, &e), &e);
    CHECK_FAILS(sha256_file_hex(path, hex, &e), NOT_FOUND, &e, path);
}

/* RFC 4231, cases 1, 2 and 6. */
static void test_hmac(void)
{
    unsigned char digest[SHA256_BYTES];
    char key[131];

    memset(key, 0x0b, 20);
    hmac_sha256((str){key, 20}, S("Hi There"), digest);
    check_hex(digest, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hmac_sha256(S("Jefe"), S("what do ya want for nothing?"), digest);
    check_hex(digest, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, 131);
    hmac_sha256((str){key, 131}, S("Test Using Larger Than Block-Size Key - Hash Key First"),
                digest);
    check_hex(digest, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    hmac_sha256(STR_NULL, STR_NULL, digest);
    check_hex(digest, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void test_hex(void)
{
    unsigned char bytes[3] = {9, 9, 9};
    char hex[7];

    hex_encode("\x00\xAB\xFF", 3, hex);
    CHECK_STR(str_of(hex), S("00abff"));
    CHECK(hex_decode(S("00ABff"), bytes, 3));
    CHECK(bytes[0] == 0 && bytes[1] == 0xAB && bytes[2] == 0xFF);
    CHECK(!hex_decode(S("00ab"), bytes, 3));
    CHECK(!hex_decode(S("00abf"), bytes, 3));
    CHECK(!hex_decode(S("1122gg"), bytes, 3));
    CHECK(bytes[0] == 0 && bytes[1] == 0xAB);
    CHECK(hex_decode(STR_NULL, bytes, 0));
}

/* RFC 3720, appendix B.4, and the usual check word. */
static void test_crc32c(void)
{
    unsigned char bytes[32];
    static unsigned char random[5000];

    CHECK(crc32c(0, "123456789", 9) == UINT32_C(0xE3069283));
    CHECK(crc32c(0, NULL, 0) == 0);
    memset(bytes, 0, sizeof(bytes));
    CHECK(crc32c(0, bytes, sizeof(bytes)) == UINT32_C(0x8A9136AA));
    memset(bytes, 0xFF, sizeof(bytes));
    CHECK(crc32c(0, bytes, sizeof(bytes)) == UINT32_C(0x62A8AB43));
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)i;
    CHECK(crc32c(0, bytes, sizeof(bytes)) == UINT32_C(0x46DD794E));
    random_bytes(random, sizeof(random));
    for (size_t n = 0; n < 300; n++) { /* both ways agree at every length, offset and split */
        const unsigned char *p = random + n % 17;
        uint32_t whole = crc32c(0, p, n);

        NEED(crc32c_portable(0, p, n) == whole);
        NEED(crc32c(crc32c_portable(0, p, n / 3), p + n / 3, n - n / 3) == whole);
    }
    CHECK(crc32c(0, random, sizeof(random)) == crc32c_portable(0, random, sizeof(random)));
}

/* These values route users to versions: they may never change. */
static void test_hash64_is_stable(void)
{
    static const char text[] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const struct {
        size_t n;
        uint64_t seed, hash;
    } known[] = {
        /* clang-format off */
        {0, UINT64_C(0x0000000000000000), UINT64_C(0x839A8A542E3E4EED)},
        {0, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xFF1A199298216636)},
        {1, UINT64_C(0x0000000000000000), UINT64_C(0x97C668DD6A873764)},
        {1, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0x045CF663DC83F06D)},
        {3, UINT64_C(0x0000000000000000), UINT64_C(0xCCBE6AFF88B7011E)},
        {3, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xEF44F36CBBA932FE)},
        {4, UINT64_C(0x0000000000000000), UINT64_C(0x4C380519D2E42ECC)},
        {4, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xD3963F22C84767E4)},
        {7, UINT64_C(0x0000000000000000), UINT64_C(0x9232E9088FBB2445)},
        {7, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xC0ED6B224F4FEC64)},
        {8, UINT64_C(0x0000000000000000), UINT64_C(0x2ED1F92089B5F5E3)},
        {8, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0x4152D4E05E0803E3)},
        {15, UINT64_C(0x0000000000000000), UINT64_C(0x6EE9F6632C7CBD08)},
        {15, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xC1CBA671B4387526)},
        {16, UINT64_C(0x0000000000000000), UINT64_C(0x92EA3696B2BFC8EE)},
        {16, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xEAC05545FA84F2BC)},
        {17, UINT64_C(0x0000000000000000), UINT64_C(0x6683EFC5C7747163)},
        {17, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0x4799198E28632774)},
        {31, UINT64_C(0x0000000000000000), UINT64_C(0x41C914C7F6E0870B)},
        {31, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xFAC5EA313C5D6E04)},
        {32, UINT64_C(0x0000000000000000), UINT64_C(0x68823173CCD8A45F)},
        {32, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xFC4BFED6FDA82C17)},
        {33, UINT64_C(0x0000000000000000), UINT64_C(0x71C78D0D46FC815A)},
        {33, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0x6EE68C493ED1A6BA)},
        {62, UINT64_C(0x0000000000000000), UINT64_C(0xC1118FCB0F8BDEAB)},
        {62, UINT64_C(0x9E3779B97F4A7C15), UINT64_C(0xB351BF09117EDF50)},
        /* clang-format on */
    };

    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        CHECK(hash64(text, known[i].n, known[i].seed) == known[i].hash);
    CHECK(hash_str(S("abc"), 1) == hash64("abc", 3, 1));
    CHECK(hash64(NULL, 0, 0) == hash64(text, 0, 0));
}

/* Flipping one bit of input or seed flips each bit of output about half of the time. */
static void test_hash64_avalanche(void)
{
    enum { ROUNDS = 2000 };
    static const size_t lengths[] = {1, 3, 4, 7, 8, 12, 16, 17, 31, 32, 40};
    unsigned char p[64];

    for (size_t k = 0; k < ARRAY_LEN(lengths); k++) {
        int flips[64] = {0}, worst = 0;

        for (int round = 0; round < ROUNDS; round++) {
            size_t bit = random_u64() % (lengths[k] * 8 + 64);
            uint64_t seed = random_u64(), before, after;

            random_bytes(p, lengths[k]);
            before = hash64(p, lengths[k], seed);
            if (bit < lengths[k] * 8)
                p[bit / 8] ^= (unsigned char)(1 << bit % 8);
            else
                seed ^= UINT64_C(1) << (bit - lengths[k] * 8);
            after = hash64(p, lengths[k], seed);
            for (int i = 0; i < 64; i++)
                flips[i] += (int)((before ^ after) >> i & 1);
        }
        for (int i = 0; i < 64; i++)
            worst = MAX(worst, abs(flips[i] - ROUNDS / 2));
        CHECK(worst < 6 * sqrt(ROUNDS) / 2);
    }
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Sequential keys, as in user-1, user-2: no collisions in 64 bits, and even buckets. */
static void test_hash64_sequential_keys(void)
{
    enum { N = 200000, BUCKETS = 1000 };
    static uint64_t hashes[N];
    static int buckets[BUCKETS];
    double chi_square = 0;

    for (int i = 0; i < N; i++) {
        char key[32];
        int n = snprintf(key, sizeof(key), "user-%d", i);

        hashes[i] = hash64(key, (size_t)n, 42);
        buckets[hashes[i] % BUCKETS]++;
    }
    for (int i = 0; i < BUCKETS; i++)
        chi_square += pow(buckets[i] - N / (double)BUCKETS, 2) / (N / (double)BUCKETS);
    CHECK_NEAR(chi_square, BUCKETS - 1, 5 * sqrt(2 * BUCKETS));
    qsort(hashes, N, sizeof(hashes[0]), compare_u64);
    for (int i = 1; i < N; i++)
        NEED(hashes[i] != hashes[i - 1]);
}

/* The words that cancel the keys of the hash must not make it forget its seed. */
static void test_hash64_zero_factor(void)
{
    uint64_t words[4] = {UINT64_C(0x452821E638D01377), 1, UINT64_C(0x452821E638D01377), 2};

    CHECK(hash64(words, sizeof(words), 1) != hash64(words, sizeof(words), 2));
    CHECK(hash64(words, 16, 1) != hash64(words, 16, 2));
}

/* A prepared key gives what hmac_sha256() gives, for keys and texts around every block size. */
static void hmac_keys(void)
{
    unsigned char bytes[200], want[SHA256_BYTES], got[SHA256_BYTES];
    struct hmac_key k;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 + 1);
    for (size_t key = 0; key <= 130; key += 13)
        for (size_t n = 0; n <= sizeof(bytes); n += 11) {
            hmac_sha256((str){(char *)bytes, key}, (str){(char *)bytes, n}, want);
            hmac_key_init(&k, (str){(char *)bytes, key});
            hmac_key_sum(&k, (str){(char *)bytes, n}, got);
            CHECK(bytes_equal_constant_time(want, got, SHA256_BYTES));
        }
    got[31] ^= 1;
    CHECK(!bytes_equal_constant_time(want, got, SHA256_BYTES));
}

RUN_TESTS(T(hmac_keys), T(test_sha256), T(test_sha256_file), T(test_hmac), T(test_hex),
          T(test_crc32c), T(test_hash64_is_stable), T(test_hash64_avalanche),
          T(test_hash64_sequential_keys), T(test_hash64_zero_factor))
