/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>

static int lower(struct err *e)
{
    return FAIL(e, NOT_FOUND, "model '%s' does not exist", "churn");
}

static int upper(struct err *e)
{
    TRY(lower(e));
    return 0;
}

static void test_fail_fills(void)
{
    struct err e;

    CHECK_FAILS(upper(&e), NOT_FOUND, &e, "model 'churn' does not exist");
    CHECK(e.code == CODE_NOT_FOUND);
    CHECK(strstr(e.at, "test_err.c:"));
    CHECK_INT(lower(NULL), CODE_NOT_FOUND);
}

static void test_long_messages_are_cut(void)
{
    char noun[300];
    struct err e;

    memset(noun, 'n', sizeof(noun));
    noun[299] = '\0';
    CHECK_INT(FAIL(&e, INTERNAL, "%s%s", noun, noun), CODE_INTERNAL);
    CHECK_INT(strlen(e.msg), sizeof(e.msg) - 1);
    CHECK(str_ends(str_of(e.msg), S("...")));
    CHECK_INT(err_context(&e, "%s", noun), CODE_INTERNAL);
    CHECK_INT(strlen(e.msg), sizeof(e.msg) - 1);
    CHECK(str_ends(str_of(e.msg), S("...")));
}

static void test_context_puts_a_noun_in_front(void)
{
    struct err e;
    int rc = lower(&e);

    CHECK_INT(rc, CODE_NOT_FOUND);
    CHECK_INT(err_context(&e, "endpoint %d", 3), CODE_NOT_FOUND);
    CHECK_STR(str_of(e.msg), S("endpoint 3: model 'churn' does not exist"));
}

static void test_errno(void)
{
    static const struct {
        int value;
        enum code code;
    } cases[] = {{ENOENT, CODE_NOT_FOUND},
                 {EEXIST, CODE_ALREADY_EXISTS},
                 {EACCES, CODE_PERMISSION_DENIED},
                 {ENOSPC, CODE_RESOURCE_EXHAUSTED},
                 {EFBIG, CODE_RESOURCE_EXHAUSTED},
                 {EISDIR, CODE_INVALID_ARGUMENT},
                 {EIO, CODE_DATA_LOSS},
                 {ENOTEMPTY, CODE_FAILED_PRECONDITION},
                 {ECONNREFUSED, CODE_UNAVAILABLE},
                 {ETIMEDOUT, CODE_DEADLINE_EXCEEDED},
                 {EXDEV, CODE_UNKNOWN}};
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        errno = cases[i].value;
        CHECK_INT(FAIL_ERRNO(&e, "open %s", "x"), cases[i].code);
        CHECK(str_starts(str_of(e.msg), S("open x: ")));
        CHECK(str_ends(str_of(e.msg), str_of(strerror(cases[i].value))));
    }
}

static void test_codes(void)
{
    CHECK_STR(str_of(code_name(CODE_NOT_FOUND)), S("NOT_FOUND"));
    CHECK_INT(code_http_status(CODE_RESOURCE_EXHAUSTED), 429);
    CHECK_INT(code_exit_status(CODE_INVALID_ARGUMENT), 2);
    CHECK_INT(code_exit_status(CODE_OK), 0);
    for (int code = 0; code < CODE_COUNT; code++) {
        int exit_status = code_exit_status((enum code)code);

        CHECK(code_name((enum code)code)[0]);
        CHECK(code_http_status((enum code)code) >= 200);
        CHECK(exit_status >= 0 && exit_status <= 3);
    }
}

RUN_TESTS(T(test_fail_fills), T(test_long_messages_are_cut), T(test_context_puts_a_noun_in_front),
          T(test_errno), T(test_codes))
