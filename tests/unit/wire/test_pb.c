/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "wire/pb.h"

static struct buf b;
static struct pb r;
static struct pb_field f;
static struct err e;

static void read_bytes(str message)
{
    pb_begin(&r, message);
}

static const char *wrong_of(str message)
{
    pb_begin(&r, message);
    while (pb_next(&r, &f))
        ;
    return r.wrong ? r.wrong : "";
}

/* The examples of protobuf.dev/programming-guides/encoding. */
static void test_known_answers(void)
{
    read_bytes(S("\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01"));
    NEED(pb_next(&r, &f));
    CHECK(f.number == 1 && f.wire == PB_VARINT && f.value == 150);
    NEED(pb_next(&r, &f));
    CHECK(f.number == 2 && f.wire == PB_BYTES && pb_is_text(&r, &f));
    CHECK_STR(f.bytes, S("testing"));
    NEED(pb_next(&r, &f));
    CHECK(f.number == 3);
    CHECK_STR(f.bytes, S("\x08\x96\x01"));
    CHECK(!pb_next(&r, &f));
    CHECK_OK(pb_end(&r, "it", &e), &e);
    read_bytes(S("\x25\0\0\x80\x3f\x29\0\0\0\0\0\0\xf0\x3f\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff"
                 "\x01"));
    NEED(pb_next(&r, &f));
    CHECK(f.number == 4 && f.wire == PB_FIXED32 && f.value == 0x3f800000);
    NEED(pb_next(&r, &f));
    CHECK(f.number == 5 && f.wire == PB_FIXED64 && f.value == 0x3ff0000000000000);
    NEED(pb_next(&r, &f));
    CHECK(f.number == 1 && f.value == UINT64_MAX);
    CHECK(!pb_next(&r, &f) && !r.wrong);
}

static void test_groups_are_skipped(void)
{
    char deep[2 * (PB_GROUP_DEPTH_MAX + 1)];
    size_t n = PB_GROUP_DEPTH_MAX;

    read_bytes(S("\x0b\x10\x05\x1b\x1c\x0c\x10\x07"));
    NEED(pb_next(&r, &f));
    CHECK(f.number == 2 && f.value == 7);
    memset(deep, 0x0b, n);
    memset(deep + n, 0x0c, n);
    CHECK(!*wrong_of((str){deep, 2 * n}));
    memset(deep, 0x0b, n + 1);
    memset(deep + n + 1, 0x0c, n + 1);
    CHECK(strstr(wrong_of((str){deep, 2 * n + 2}), "too deep"));
}

static void test_broken(void)
{
    static const struct {
        str bytes;
        const char *says;
    } cases[] = {
        {S_INIT("\x80"), "a broken tag"},
        {S_INIT("\x00\x01"), "field number out of range"},
        {S_INIT("\x80\x80\x80\x80\x10\x01"), "field number out of range"},
        {S_INIT("\x08"), "a broken varint"},
        {S_INIT("\x08\x80"), "a broken varint"},
        {S_INIT("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), "a broken varint"},
        {S_INIT("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"), "a broken varint"},
        {S_INIT("\x12"), "a broken length"},
        {S_INIT("\x12\x02x"), "longer than its message"},
        {S_INIT("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x"), "longer than its message"},
        {S_INIT("\x0d\x01\x02\x03"), "a number is cut off"},
        {S_INIT("\x09\x01\x02\x03\x04\x05\x06\x07"), "a number is cut off"},
        {S_INIT("\x0e"), "an unknown wire type"},
        {S_INIT("\x0f"), "an unknown wire type"},
        {S_INIT("\x0c"), "an unknown wire type"}, /* a group's end alone */
        {S_INIT("\x0b\x14"), "ends that did not begin"},
        {S_INIT("\x0b"), "without end"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (!CHECK(strstr(wrong_of(cases[i].bytes), cases[i].says)))
            fprintf(stderr, "    case %zu: %s\n", i, wrong_of(cases[i].bytes));
    CHECK_FAILS(pb_end(&r, "it", &e), INVALID_ARGUMENT, &e,
                "it is not a protobuf message: a group");
    read_bytes(S("\x0a\x01\xff"));
    NEED(pb_next(&r, &f));
    CHECK(!pb_is(&r, &f, PB_VARINT) && r.wrong);
    read_bytes(S("\x0a\x01\xff"));
    NEED(pb_next(&r, &f));
    CHECK(!pb_is_text(&r, &f) && r.wrong);
    read_bytes(STR_NULL);
    CHECK(!pb_next(&r, &f) && !r.wrong);
}

static void test_writes(void)
{
    size_t outer, inner;
    char big[300];

    buf_init(&b, 10000);
    pb_put_u64(&b, 1, 150);
    pb_put_u64(&b, 1, 0);
    pb_put_text(&b, 2, S("testing"));
    pb_put_text(&b, 2, S(""));
    outer = pb_open(&b, 3);
    pb_put_bool(&b, 1, true);
    inner = pb_open(&b, 2);
    pb_close(&b, inner);
    pb_close(&b, outer);
    pb_put_i64(&b, 1, -1);
    pb_put_bytes(&b, 4, S(""));
    CHECK_STR(buf_str(&b), S("\x08\x96\x01\x12\x07testing\x1a\x04\x08\x01\x12\x00"
                             "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x22\x00"));
    buf_clear(&b);
    memset(big, 'b', sizeof(big)); /* lengths of two bytes, moved into place */
    outer = pb_open(&b, 1);
    inner = pb_open(&b, 1);
    pb_put_bytes(&b, 1, (str){big, sizeof(big)});
    pb_close(&b, inner);
    pb_put_u64(&b, 2, 7);
    pb_close(&b, outer);
    read_bytes(buf_str(&b));
    NEED(pb_next(&r, &f) && f.number == 1);
    CHECK(!pb_next(&(struct pb){f.bytes.p + f.bytes.n, r.end, NULL}, &(struct pb_field){0}));
    read_bytes(f.bytes);
    NEED(pb_next(&r, &f) && f.number == 1);
    CHECK_INT(f.bytes.n, 303);
    NEED(pb_next(&r, &f) && f.number == 2 && f.value == 7);
    for (unsigned bits = 0; bits < 64; bits++) {
        buf_clear(&b);
        pb_put_varint(&b, (uint64_t)1 << bits);
        CHECK_INT(b.n, pb_varint_bytes((uint64_t)1 << bits));
        CHECK_INT(b.n, bits / 7 + 1);
    }
    CHECK_INT(pb_varint_bytes(0), 1);
    buf_done(&b);
}

static void test_full_buffer(void)
{
    char memory[4];
    struct buf small;
    size_t at;

    buf_init_fixed(&small, memory, sizeof(memory));
    pb_put_u64(&small, 1, 150);
    CHECK(!small.overflowed && small.n == 3);
    at = pb_open(&small, 1);
    CHECK(small.overflowed);
    pb_close(&small, at);
    CHECK(small.overflowed);
}

RUN_TESTS(T(test_known_answers), T(test_groups_are_skipped), T(test_broken), T(test_writes),
          T(test_full_buffer))
