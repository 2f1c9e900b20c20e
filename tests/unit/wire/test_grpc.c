/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/time.h"
#include "wire/grpc.h"

static struct err e;

static void test_timeouts(void)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {{"1H", 3600 * NS_PER_S},
                {"2M", 120 * NS_PER_S},
                {"3S", 3 * NS_PER_S},
                {"100m", 100 * NS_PER_MS},
                {"50u", 50000},
                {"99999999n", 99999999},
                {"0n", 1},
                {"99999999H", INT64_MAX}};
    static const char *const bad[] = {"",    "1",   "S",   "123456789S", "1s",
                                      "-1S", "+1S", "1 S", "1.5S"};
    int64_t ns;

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        CHECK(grpc_timeout_parse(str_of(good[i].text), &ns));
        CHECK_INT(ns, good[i].ns);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK(!grpc_timeout_parse(str_of(bad[i]), &ns));
    CHECK(!grpc_timeout_parse(S("1\0"), &ns));
}

static void test_content_types(void)
{
    CHECK(grpc_is_content_type(S("application/grpc")));
    CHECK(grpc_is_content_type(S("application/grpc+proto")));
    CHECK(grpc_is_content_type(S("Application/GRPC; x=y")));
    CHECK(!grpc_is_content_type(S("application/grpc-web")));
    CHECK(!grpc_is_content_type(S("application/json")));
    CHECK(!grpc_is_content_type(STR_NULL));
}

/* A head with these known fields. */
static struct http1_request *request(const char *path, str type, str timeout, str encoding,
                                     str accept)
{
    static struct http1_request req;
    const struct {
        enum http1_known known;
        str value;
    } all[] = {{HTTP1_F_CONTENT_TYPE, type},
               {HTTP1_F_GRPC_TIMEOUT, timeout},
               {HTTP1_F_GRPC_ENCODING, encoding},
               {HTTP1_F_GRPC_ACCEPT_ENCODING, accept}};

    memset(&req, 0, sizeof(req));
    req.method = HTTP1_M_POST;
    req.path = str_of(path);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].value.p) {
            req.fields.headers[req.fields.count++] = (struct http1_header){S("x"), all[i].value};
            req.fields.known[all[i].known] = (uint8_t)req.fields.count;
        }
    return &req;
}

#define TYPE S("application/grpc")

static void test_calls(void)
{
    struct grpc_call call;
    struct http1_request *req;

    NEED_OK(grpc_call_read(request("/inference.GRPCInferenceService/ModelInfer", TYPE, S("250m"),
                                   S("gzip"), S("identity, deflate, gzip")),
                           &call, &e),
            &e);
    CHECK_STR(call.service, S("inference.GRPCInferenceService"));
    CHECK_STR(call.method, S("ModelInfer"));
    CHECK_INT(call.timeout_ns, 250 * NS_PER_MS);
    CHECK_INT(call.request_coding, CODING_GZIP);
    CHECK_INT(call.answer_coding, CODING_GZIP);
    NEED_OK(
        grpc_call_read(request("/a/b", S("application/grpc+proto"), STR_NULL, STR_NULL, STR_NULL),
                       &call, &e),
        &e);
    CHECK_INT(call.timeout_ns, -1);
    CHECK_INT(call.request_coding, CODING_IDENTITY);
    CHECK_INT(call.answer_coding, CODING_IDENTITY);
    CHECK_FAILS(grpc_call_read(request("/a", TYPE, STR_NULL, STR_NULL, STR_NULL), &call, &e),
                UNIMPLEMENTED, &e, "'/a' is not a gRPC method");
    CHECK_FAILS(grpc_call_read(request("/a/b/c", TYPE, STR_NULL, STR_NULL, STR_NULL), &call, &e),
                UNIMPLEMENTED, &e, "not a gRPC method");
    CHECK_FAILS(grpc_call_read(request("/a/b", TYPE, S("soon"), STR_NULL, STR_NULL), &call, &e),
                INVALID_ARGUMENT, &e, "grpc-timeout 'soon'");
    CHECK_FAILS(grpc_call_read(request("/a/b", TYPE, STR_NULL, S("snappy"), STR_NULL), &call, &e),
                UNIMPLEMENTED, &e, "grpc-encoding 'snappy'");
    CHECK_FAILS(
        grpc_call_read(request("/a/b", S("application/grpc+json"), STR_NULL, STR_NULL, STR_NULL),
                       &call, &e),
        UNIMPLEMENTED, &e, "application/grpc+json");
    req = request("/a/b", TYPE, STR_NULL, STR_NULL, STR_NULL);
    req->method = HTTP1_M_GET;
    CHECK_FAILS(grpc_call_read(req, &call, &e), INTERNAL, &e, "must be a POST");
}

static void test_messages(void)
{
    str body = S("\0\0\0\0\3abc\1\0\0\0\0\0\0\0\0\2de");
    struct grpc_message m;
    size_t used;

    for (size_t n = 0; n < 8; n++)
        CHECK_INT(grpc_message_next(str_take(body, n), 10, &m, &used, &e), GRPC_MORE);
    NEED(grpc_message_next(body, 10, &m, &used, &e) == GRPC_MESSAGE);
    CHECK_STR(m.bytes, S("abc"));
    CHECK(!m.compressed);
    CHECK_INT(used, 8);
    body = str_skip(body, used);
    NEED(grpc_message_next(body, 10, &m, &used, &e) == GRPC_MESSAGE);
    CHECK(m.bytes.n == 0 && m.compressed && used == 5);
    body = str_skip(body, used);
    NEED(grpc_message_next(body, 10, &m, &used, &e) == GRPC_MESSAGE);
    CHECK_STR(m.bytes, S("de"));
    CHECK_INT(grpc_message_next(S("\2"), 10, &m, &used, &e), GRPC_BROKEN);
    CHECK_FAILS((int)e.code, INTERNAL, &e, "begins with 2");
    CHECK_INT(grpc_message_next(S("\0\xff\xff\xff\xff"), 10, &m, &used, &e), GRPC_BROKEN);
    CHECK_FAILS((int)e.code, RESOURCE_EXHAUSTED, &e, "4294967295 bytes is larger than the 10");
}

static void test_compressed_messages(void)
{
    AUTO(coder_freep) struct coder *coder = coder_new();
    AUTO(buf_done) struct buf to = {0}, scratch = {0};
    struct grpc_call call = {.request_coding = CODING_GZIP};
    struct grpc_message m;
    size_t used;
    str bytes;

    buf_init(&to, 10000);
    buf_init(&scratch, 10000);
    NEED_OK(grpc_message_write(coder, CODING_GZIP, S("again and again and again"), &to, &e), &e);
    NEED(grpc_message_next(buf_str(&to), 100, &m, &used, &e) == GRPC_MESSAGE);
    CHECK(m.compressed && used == to.n);
    NEED_OK(grpc_message_read(coder, &call, &m, 100, &scratch, &bytes, &e), &e);
    CHECK_STR(bytes, S("again and again and again"));
    CHECK_FAILS(grpc_message_read(coder, &call, &m, 10, &scratch, &bytes, &e), RESOURCE_EXHAUSTED,
                &e, "exceeds 10 bytes");
    m.bytes.n--;
    CHECK_FAILS(grpc_message_read(coder, &call, &m, 100, &scratch, &bytes, &e), INTERNAL, &e,
                "ends early");
    call.request_coding = CODING_IDENTITY;
    CHECK_FAILS(grpc_message_read(coder, &call, &m, 100, &scratch, &bytes, &e), INTERNAL, &e,
                "without grpc-encoding");
    buf_clear(&to);
    used = grpc_message_begin(&to);
    buf_add_str(&to, S("xyz"));
    NEED_OK(grpc_message_end(&to, used, &e), &e);
    CHECK_STR(buf_str(&to), S("\0\0\0\0\3xyz"));
}

static void test_status(void)
{
    char text[GRPC_TEXT_BYTES];
    struct http1_header fields[GRPC_TRAILERS_MAX];
    int rc;

    CHECK_INT(grpc_trailers(NULL, text, fields), 1);
    CHECK_STR(fields[0].name, S("grpc-status"));
    CHECK_STR(fields[0].value, S("0"));
    rc = FAIL(&e, NOT_FOUND, "100%% of 'm\xc3\xa9'\n");
    CHECK_INT(rc, 5);
    CHECK_INT(grpc_trailers(&e, text, fields), 2);
    CHECK_STR(fields[0].value, S("5"));
    CHECK_STR(fields[1].name, S("grpc-message"));
    CHECK_STR(fields[1].value, S("100%25 of 'm%C3%A9'%0A"));
    memset(e.msg, 0xff, sizeof(e.msg) - 1); /* the longest there can be */
    e.msg[sizeof(e.msg) - 1] = 0;
    CHECK_INT(grpc_trailers(&e, text, fields), 2);
    CHECK_INT(fields[1].value.n, 3 * (sizeof(e.msg) - 1));
    CHECK_INT(grpc_code_of_http(413), CODE_RESOURCE_EXHAUSTED);
    CHECK_INT(grpc_code_of_http(404), CODE_UNIMPLEMENTED);
    CHECK_INT(grpc_code_of_http(400), CODE_INTERNAL);
    CHECK_INT(grpc_code_of_http(503), CODE_UNAVAILABLE);
}

static void what_a_client_says_and_hears(void)
{
    static const struct {
        int64_t ns;
        const char *text;
    } times[] = {{1, "1n"},
                 {99999999, "99999999n"},
                 {100000000, "100000u"},
                 {2 * NS_PER_S, "2000000u"},
                 {3600 * NS_PER_S, "3600000m"},
                 {INT64_MAX, "99999999M"}};
    char text[GRPC_TIMEOUT_TEXT], words[12];
    int64_t back = 0;

    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        str made = grpc_timeout_write(times[i].ns, text);

        CHECK_STR(made, str_of(times[i].text));
        CHECK(grpc_timeout_parse(made, &back));
        CHECK(back >= times[i].ns || times[i].ns == INT64_MAX);
    }
    CHECK_INT(grpc_status_parse(S("14")), CODE_UNAVAILABLE);
    CHECK_INT(grpc_status_parse(S("17")), CODE_UNKNOWN);
    CHECK_INT(grpc_status_parse(S("-1")), CODE_UNKNOWN);
    CHECK_INT(grpc_status_parse(S("")), CODE_UNKNOWN);
    grpc_text_decode(S("100%25 %C3%BC%0"), words, sizeof(words));
    CHECK_STR(str_of(words), S("100% \xc3\xbc%0"));
    grpc_text_decode(S("%0d%0a%00x%zz much too long"), words, sizeof(words));
    CHECK_STR(str_of(words), S("   x%zz muc"));
}

RUN_TESTS(T(test_timeouts), T(test_content_types), T(test_calls), T(test_messages),
          T(test_compressed_messages), T(test_status), T(what_a_client_says_and_hears))
