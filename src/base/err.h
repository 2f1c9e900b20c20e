/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: one code of the canonical taxonomy and one line that names the thing and the fix.
 *
 * A fallible function returns int (0, or the code), is NODISCARD, and takes struct err *e as its
 * last parameter. It returns the error or logs it, never both. A lower error is never overwritten;
 * err_context() puts a noun in front of it where that noun is news to the reader.
 */
#pragma once

#include "base/base.h"

enum code {
#define CODE(name, number, http, exit_code, help) CODE_##name = (number),
#include "base/codes.def"
#undef CODE
    CODE_COUNT
};

struct err {
    enum code code;
    const char *at; /* "file:line" of the failure, a literal */
    char msg[496];
};

#define ERR_STRINGIFY_(x) #x
#define ERR_STRINGIFY(x) ERR_STRINGIFY_(x)
#define ERR_AT __FILE__ ":" ERR_STRINGIFY(__LINE__)

/* return FAIL(e, NOT_FOUND, "model '" STR_F "' does not exist", STR_A(name)); e may be NULL. */
#define FAIL(e, name, ...) err_nonzero(err_fill((e), CODE_##name, ERR_AT, __VA_ARGS__))

/* The same with errno's text appended, and a code chosen by err_from_errno(). */
#define FAIL_ERRNO(e, ...) err_nonzero(err_fill_errno((e), ERR_AT, __VA_ARGS__))

/* Returns from the calling function with the code of `call` when it fails. */
#define TRY(call)              \
    do {                       \
        int try_rc_ = (call);  \
        if (UNLIKELY(try_rc_)) \
            return try_rc_;    \
    } while (0)

/* Tells compilers and analysers what they cannot see: a failure is never 0, so an output that is
 * untouched on failure is not read. */
static inline int err_nonzero(int rc)
{
    if (rc == 0)
        __builtin_unreachable();
    return rc;
}

/* Fills *e (if not NULL) and returns the code as an int. Long messages are cut with "...". */
int err_fill(struct err *e, enum code code, const char *at, const char *fmt, ...) PRINTF_LIKE(4, 5);
int err_fill_errno(struct err *e, const char *at, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Prefixes the message with "noun: "; returns e->code, so `return err_context(e, ...)` reads well.
 */
#define err_context(e, ...) err_nonzero(err_add_context((e), __VA_ARGS__))
int err_add_context(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

enum code err_from_errno(int errno_value);
const char *code_name(enum code code); /* "NOT_FOUND" */
int code_http_status(enum code code);  /* 404 */
int code_exit_status(enum code code);  /* 0 done, 1 failed, 2 wrong use, 3 unavailable */
