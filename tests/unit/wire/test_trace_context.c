/* SPDX-License-Identifier: Apache-2.0 */
/* The fields traceparent and tracestate, against the rules of the recommendation. */
#include "check.h"

#include "wire/trace_context.h"

#define GOOD "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static struct trace_context t;
static char state[TRACE_STATE_BYTES_MAX];
static size_t state_bytes;

/* A request with these header lines, as HTTP/1.1 brings it. */
static bool read_lines(const char *lines)
{
    static char head[8192];
    struct http1_request req;
    struct http1_limits limits = HTTP1_LIMITS_DEFAULT;
    enum http1_refusal why = HTTP1_OK;
    size_t seen = 0;
    int n = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", lines);

    CHECK(http1_head_parse(head, (size_t)n, &limits, &seen, &req, &why) == HTTP1_HEAD);
    return trace_context_read(&req.fields, &t, state, &state_bytes);
}

static void test_parent(void)
{
    static const char *const bad[] = {
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "FF-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473 -00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
    };
    char text[TRACE_PARENT_TEXT];

    CHECK(trace_parent_read(S(GOOD), &t));
    CHECK_INT(t.trace_id[0], 0x4b);
    CHECK_INT(t.trace_id[15], 0x36);
    CHECK_INT(t.span_id[7], 0xb7);
    CHECK_INT(t.flags, TRACE_SAMPLED);
    trace_parent_write(&t, text);
    CHECK_STR(((str){text, sizeof(text)}), S(GOOD));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!trace_parent_read(str_of(bad[i]), &t));
    /* A later version may say more; only the flag that is known is kept. */
    CHECK(trace_parent_read(S("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe-what"), &t));
    CHECK_INT(t.flags, 0);
    trace_parent_write(&t, text);
    CHECK_STR(((str){text, sizeof(text)}),
              S("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
}

static void test_fields(void)
{
    CHECK(!read_lines(""));
    CHECK(!read_lines("tracestate: a=1\r\n"));
    CHECK_INT(state_bytes, 0);
    CHECK(read_lines("TraceParent:  " GOOD " \r\n"));
    CHECK(!read_lines("traceparent: " GOOD "\r\ntraceparent: " GOOD "\r\ntracestate: a=1\r\n"));
    CHECK_INT(state_bytes, 0);
    CHECK(
        read_lines("tracestate: a=1 , ,b@v=2\r\ntraceparent: " GOOD "\r\nTraceState: \tc=x y\r\n"));
    CHECK_STR(((str){state, state_bytes}), S("a=1,b@v=2,c=x y"));
    CHECK(read_lines("traceparent: " GOOD "\r\ntracestate: \r\n"));
    CHECK_INT(state_bytes, 0);
}

static void test_members(void)
{
    static const char *const good[] = {"a=1",     "a_-*/0=!", "0t@v=1", "a=x y",
                                       "a=~#$%&", "a= 1",     "z@z=-"};
    static const char *const bad[] = {
        "a",    "=1",    "a=",      "A=1",     "0a=1", "a =1", "a=1=2", "@v=1",
        "t@=1", "t@0=1", "t@v@w=1", "a=b\x7f", "a=b ", "é=1",  "a=é",   "t@systemtoolong01=1"};
    char text[600];

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK(trace_state_member_is_valid(str_of(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!trace_state_member_is_valid(str_of(bad[i])));
    memset(text, 'a', sizeof(text));
    text[256] = '=';
    CHECK(trace_state_member_is_valid((str){text, 258}));
    CHECK(trace_state_member_is_valid((str){text, 257 + 256}));
    CHECK(!trace_state_member_is_valid((str){text, 257 + 257}));
    text[256] = 'a', text[257] = '=';
    CHECK(!trace_state_member_is_valid((str){text, 259}));
    /* One that is wrong makes all of it nothing, but not the parent. */
    CHECK(read_lines("traceparent: " GOOD "\r\ntracestate: a=1,B=2\r\n"));
    CHECK_INT(state_bytes, 0);
}

/* `n` members of `bytes` bytes each, "k12=xxx". */
static bool read_members(unsigned n, unsigned bytes, const char *first)
{
    static char lines[7000];
    int at = snprintf(lines, sizeof(lines), "traceparent: " GOOD "\r\ntracestate: %s", first);

    for (unsigned i = 0; i < n; i++)
        at += snprintf(
            lines + at, sizeof(lines) - (size_t)at, "%sk%02u=%.*s", i ? "," : "", i, (int)bytes - 4,
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    snprintf(lines + at, sizeof(lines) - (size_t)at, "\r\n");
    return read_lines(lines);
}

static void test_limits(void)
{
    CHECK(read_members(32, 10, ""));
    CHECK_INT(state_bytes, 32 * 11 - 1);
    CHECK(read_members(33, 10, ""));
    CHECK_INT(state_bytes, 0);
    CHECK(read_members(27, 18, "")); /* 27 * 19 - 1 = 512 */
    CHECK_INT(state_bytes, 512);
    CHECK(read_members(30, 20, "")); /* the end goes */
    CHECK_INT(state_bytes, 24 * 21 - 1);
    CHECK(read_members(3, 130, "a=1,")); /* 396: fits, long ones stay */
    CHECK_INT(state_bytes, 4 + 3 * 131 - 1);
    CHECK(read_members(4, 130, "a=1,")); /* long ones go first */
    CHECK_STR(((str){state, state_bytes}), S("a=1"));
}

static void test_writing(void)
{
    AUTO(buf_done) struct buf lines = {0};

    buf_init(&lines, 4096);
    CHECK(trace_parent_read(S(GOOD), &t));
    trace_context_write(&lines, &t, STR_NULL);
    trace_context_write(&lines, &t, S("a=1"));
    CHECK_STR(buf_str(&lines),
              S("traceparent: " GOOD "\r\ntraceparent: " GOOD "\r\ntracestate: a=1\r\n"));
}

RUN_TESTS(T(test_parent), T(test_fields), T(test_members), T(test_limits), T(test_writing))
