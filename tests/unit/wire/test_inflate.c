/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/mem.h"
#include "base/random.h"
#include "wire/inflate.h"

/* Python: gzip.compress(b"hello hello hello", mtime=0); zlib.compress(b"hello hello hello"). */
static const str gzip_hello =
    S_INIT("\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x90\x00"
           "\x80\x88\xf9\xe5\x11\x00\x00\x00");
static const str zlib_hello =
    S_INIT("\x78\x9c\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x90\x00\x3a\x2e\x06\x7d");
static const str hello = S_INIT("hello hello hello");

static const struct inflate_limits roomy = {.bytes = 1 << 24};
static struct coder *c;
static struct buf out;
static struct err e;

static void set_up(void)
{
    coder_free(c);
    buf_done(&out);
    c = coder_new();
    buf_init(&out, 1 << 25);
}

static void test_names(void)
{
    enum coding coding;

    CHECK(coding_parse(S("GZip"), &coding) && coding == CODING_GZIP);
    CHECK(coding_parse(S("x-gzip"), &coding) && coding == CODING_GZIP);
    CHECK(coding_parse(S("deflate"), &coding) && coding == CODING_DEFLATE);
    CHECK(coding_parse(S("identity"), &coding) && coding == CODING_IDENTITY);
    CHECK(!coding_parse(S("br"), &coding) && !coding_parse(S(""), &coding));
    CHECK_STR(coding_name(CODING_DEFLATE), S("deflate"));
    CHECK_INT(coding_choose(STR_NULL), CODING_IDENTITY);
    CHECK_INT(coding_choose(S("br, deflate, gzip;q=0.5")), CODING_GZIP);
    CHECK_INT(coding_choose(S("gzip; q=0.000, deflate")), CODING_DEFLATE);
    CHECK_INT(coding_choose(S("gzip;q=0")), CODING_IDENTITY);
    CHECK_INT(coding_choose(S("identity,deflate,gzip")), CODING_GZIP);
}

static void test_known_answers(void)
{
    AUTO(buf_done) struct buf two = {0};

    set_up();
    NEED_OK(coder_decode(c, CODING_GZIP, gzip_hello, &roomy, &out, &e), &e);
    CHECK_STR(buf_str(&out), hello);
    NEED_OK(coder_decode(c, CODING_DEFLATE, zlib_hello, &roomy, &out, &e), &e);
    CHECK_STR(buf_str(&out), S("hello hello hellohello hello hello"));
    buf_clear(&out);
    buf_init(&two, 1000); /* two members are one text */
    buf_add_str(&two, gzip_hello);
    buf_add_str(&two, gzip_hello);
    NEED_OK(coder_decode(c, CODING_GZIP, buf_str(&two), &roomy, &out, &e), &e);
    CHECK_STR(buf_str(&out), S("hello hello hellohello hello hello"));
    buf_clear(&out);
    NEED_OK(coder_decode(c, CODING_IDENTITY, hello, &roomy, &out, &e), &e);
    CHECK_STR(buf_str(&out), hello);
}

static void test_broken(void)
{
    AUTO(buf_done) struct buf in = {0};

    set_up();
    buf_init(&in, 1000);
    for (size_t n = 0; n < gzip_hello.n; n++)
        CHECK_FAILS(coder_decode(c, CODING_GZIP, str_take(gzip_hello, n), &roomy, &out, &e),
                    INVALID_ARGUMENT, &e, "gzip data ends early");
    CHECK_FAILS(coder_decode(c, CODING_DEFLATE, gzip_hello, &roomy, &out, &e), INVALID_ARGUMENT, &e,
                "broken deflate data");
    for (size_t i = 0; i < gzip_hello.n; i++) { /* all but four bytes of its head are checked */
        buf_clear(&in);
        buf_add_str(&in, gzip_hello);
        in.p[i] ^= 0x04;
        if (coder_decode(c, CODING_GZIP, buf_str(&in), &roomy, &out, &e))
            continue;
        CHECK(i >= 3 && i <= 9);
        CHECK_STR(buf_str(&out), hello);
        buf_clear(&out);
    }
    buf_clear(&in);
    buf_add_str(&in, zlib_hello);
    buf_add_str(&in, S("more"));
    CHECK_FAILS(coder_decode(c, CODING_DEFLATE, buf_str(&in), &roomy, &out, &e), INVALID_ARGUMENT,
                &e, "deflate data is followed by 4 other bytes");
    CHECK_INT(out.n, 0); /* nothing of a failure stays */
}

static void test_round_trips(void)
{
    static char text[300000];
    AUTO(buf_done) struct buf packed = {0};
    struct rng rng;
    uint64_t before;

    set_up();
    buf_init(&packed, 1 << 22);
    rng_seed(&rng, 5);
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(rng_u64(&rng) % (1 + i / 3000));
    for (int round = 0; round < 3; round++)
        for (size_t n = 0; n <= sizeof(text); n = n * 3 + 1)
            for (int coding = 0; coding < CODING_COUNT; coding++) {
                buf_clear(&packed);
                buf_clear(&out);
                CHECK_OK(coder_encode(c, (enum coding)coding, (str){text, n}, &packed, &e), &e);
                CHECK_OK(coder_decode(c, (enum coding)coding, buf_str(&packed), &roomy, &out, &e),
                         &e);
                CHECK(str_eq(buf_str(&out), (str){text, n}));
            }
    before = mem_alloc_count();
    for (int round = 0; round < 10; round++) { /* in steady state nothing is allocated */
        buf_clear(&packed);
        buf_clear(&out);
        CHECK_OK(coder_encode(c, CODING_DEFLATE, (str){text, 1000}, &packed, &e), &e);
        CHECK_OK(coder_decode(c, CODING_DEFLATE, buf_str(&packed), &roomy, &out, &e), &e);
    }
    CHECK_INT(mem_alloc_count() - before, 0);
}

static void test_limits(void)
{
    AUTO(mem_freep) char *zeros = mem_zalloc(8 << 20);
    AUTO(buf_done) struct buf bomb = {0}, small = {0};
    struct inflate_limits limits = {.bytes = 1000};

    set_up();
    buf_init(&bomb, 1 << 20);
    buf_init(&small, 5000);
    NEED_OK(coder_encode(c, CODING_GZIP, (str){zeros, 8 << 20}, &bomb, &e), &e);
    CHECK(bomb.n < 50000);
    CHECK_FAILS(coder_decode(c, CODING_GZIP, buf_str(&bomb), &limits, &out, &e), RESOURCE_EXHAUSTED,
                &e, "decompressed data exceeds 1000 bytes");
    CHECK(out.cap_bytes < 20000); /* it was stopped at once */
    limits.bytes = 8 << 20;       /* to the byte */
    CHECK_OK(coder_decode(c, CODING_GZIP, buf_str(&bomb), &limits, &out, &e), &e);
    CHECK_INT(out.n, 8 << 20);
    buf_clear(&out);
    limits.bytes--;
    CHECK_FAILS(coder_decode(c, CODING_GZIP, buf_str(&bomb), &limits, &out, &e), RESOURCE_EXHAUSTED,
                &e, "exceeds 8388607 bytes");
    limits = (struct inflate_limits){.bytes = 1 << 24, .ratio = 100};
    CHECK_FAILS(coder_decode(c, CODING_GZIP, buf_str(&bomb), &limits, &out, &e), RESOURCE_EXHAUSTED,
                &e, "more than 100 times its size");
    CHECK_FAILS(coder_decode(c, CODING_GZIP, buf_str(&bomb), &roomy, &small, &e),
                RESOURCE_EXHAUSTED, &e, "no room");
    CHECK_FAILS(
        coder_decode(c, CODING_IDENTITY, hello, &(struct inflate_limits){.bytes = 3}, &out, &e),
        RESOURCE_EXHAUSTED, &e, "exceeds 3 bytes");
    set_up();
    mem_test_fail_after(0);
    CHECK_FAILS(coder_decode(c, CODING_GZIP, gzip_hello, &roomy, &out, &e), RESOURCE_EXHAUSTED, &e,
                "no memory");
    mem_test_fail_after(-1);
    CHECK_OK(coder_decode(c, CODING_GZIP, gzip_hello, &roomy, &out, &e), &e);
    set_up();
    coder_free(c);
    c = NULL;
    buf_done(&out);
}

RUN_TESTS(T(test_names), T(test_known_answers), T(test_broken), T(test_round_trips), T(test_limits))
