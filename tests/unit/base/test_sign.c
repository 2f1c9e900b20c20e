/* SPDX-License-Identifier: Apache-2.0 */
/* Known answers of RFC 7515 (appendix A) and RFC 8037 (appendix A), and everything that is not one.
 */
#include "check.h"

#include "base/sign.h"

static unsigned char bytes[4][512];

/* Base64url of the RFCs, decoded into bytes[at]. */
static str raw(int at, const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t word = 0, bits = 0;
    size_t n = 0;

    for (; *text; text++) {
        word = word << 6 | (uint32_t)(strchr(digits, *text) - digits);
        if ((bits += 6) >= 8)
            bytes[at][n++] = (unsigned char)(word >> (bits -= 8));
    }
    return (str){(char *)bytes[at], n};
}

/* A signature that is good, and bad with any bit of it or of the message turned, cut or longer. */
static void check_one(const struct sign_key *k, str message, str signature)
{
    unsigned char *sig = (unsigned char *)signature.p;
    char copy[512];

    CHECK(sign_verify(k, message, signature));
    for (size_t i = 0; i < signature.n; i += 7) {
        sig[i] ^= 1;
        CHECK(!sign_verify(k, message, signature));
        sig[i] ^= 1;
    }
    memcpy(copy, message.p, message.n);
    copy[message.n - 1] ^= 1;
    CHECK(!sign_verify(k, (str){copy, message.n}, signature));
    CHECK(!sign_verify(k, message, str_take(signature, signature.n - 1)));
    CHECK(!sign_verify(k, message, (str){signature.p, signature.n + 1}));
    CHECK(!sign_verify(k, message, STR_NULL));
    CHECK(sign_verify(k, message, signature));
}

static const char rsa_n[] =
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-"
    "4qPCJrcS2mJPMEzP1Pt0Bm4d4Q"
    "lL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-"
    "bSf63kpaSHSXndS5z5rexMdbBY"
    "UsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWN"
    "moudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

static void test_rs256(void)
{
    AUTO(sign_key_freep) struct sign_key *k = NULL;
    struct err e;

    NEED_OK(sign_key_new(SIGN_RS256, raw(0, rsa_n), raw(1, "AQAB"), &k, &e), &e);
    check_one(
        k,
        S("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
          "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"),
        raw(2, "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_"
               "lF5YKt_O8W"
               "2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
               "nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkS"
               "jtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-"
               "eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnv"
               "Wh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"));
}

static void test_es256(void)
{
    AUTO(sign_key_freep) struct sign_key *k = NULL;
    struct err e;

    NEED_OK(sign_key_new(SIGN_ES256, raw(0, "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"),
                         raw(1, "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"), &k, &e),
            &e);
    check_one(
        k,
        S("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
          "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"),
        raw(2, "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6N"
               "U1Q"));
}

static void test_eddsa(void)
{
    AUTO(sign_key_freep) struct sign_key *k = NULL;
    struct err e;

    NEED_OK(sign_key_new(SIGN_EDDSA, raw(0, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
                         STR_NULL, &k, &e),
            &e);
    check_one(
        k, S("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"),
        raw(2, "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0"
               "KAg"));
}

static void test_bad_keys(void)
{
    static const char zeros[600];
    static const struct {
        enum sign_alg alg;
        size_t first, second;
        const char *why;
    } bad[] = {{SIGN_RS256, 0, 3, "0 bits"},     {SIGN_RS256, 600, 3, "0 bits"},
               {SIGN_ES256, 31, 32, "32 bytes"}, {SIGN_ES256, 32, 33, "32 bytes"},
               {SIGN_ES256, 32, 32, "no point"}, {SIGN_EDDSA, 31, 0, "32 bytes"},
               {SIGN_EDDSA, 0, 0, "32 bytes"}};
    struct sign_key *k = NULL;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_FAILS(sign_key_new(bad[i].alg, (str){zeros, bad[i].first},
                                 (str){zeros, bad[i].second}, &k, &e),
                    INVALID_ARGUMENT, &e, bad[i].why);
    CHECK_FAILS(sign_key_new(SIGN_RS256, str_take(raw(0, rsa_n), 128), raw(1, "AQAB"), &k, &e),
                INVALID_ARGUMENT, &e, "1024 bits");
    CHECK_FAILS(sign_key_new(SIGN_RS256, raw(0, rsa_n), raw(1, "AQAA"), &k, &e), INVALID_ARGUMENT,
                &e, "odd");
    CHECK(!k);
}

RUN_TESTS(T(test_rs256), T(test_es256), T(test_eddsa), T(test_bad_keys))
