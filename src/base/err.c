/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct role on_loop, on_keeper, on_worker, on_control;

static const struct {
    const char *name;
    int http;
    int exit_code;
} codes[] = {
#define CODE(name, number, http, exit_code, help) [number] = {#name, http, exit_code},
#include "base/codes.def"
#undef CODE
};

_Noreturn void assert_failed(const char *cond, const char *file, int line, const char *func)
{
    void *frames[48];

    fprintf(stderr, "weir: assertion failed: %s (%s:%d, %s)\n", cond, file, line, func);
    fflush(stderr);
    backtrace_symbols_fd(frames, backtrace(frames, (int)ARRAY_LEN(frames)), STDERR_FILENO);
    abort();
}

static void fill_va(struct err *e, enum code code, const char *at, const char *fmt, va_list args)
{
    int n;

    e->code = code;
    e->at = at;
    n = vsnprintf(e->msg, sizeof(e->msg), fmt, args);
    if (n >= (int)sizeof(e->msg))
        memcpy(e->msg + sizeof(e->msg) - 4, "...", 4);
}

int err_fill(struct err *e, enum code code, const char *at, const char *fmt, ...)
{
    va_list args;

    ASSERT(code != CODE_OK && code < CODE_COUNT);
    if (e) {
        va_start(args, fmt);
        fill_va(e, code, at, fmt, args);
        va_end(args);
    }
    return (int)code;
}

int err_fill_errno(struct err *e, const char *at, const char *fmt, ...)
{
    int errno_value = errno;
    enum code code = err_from_errno(errno_value);
    va_list args;
    size_t n;

    if (e) {
        va_start(args, fmt);
        fill_va(e, code, at, fmt, args);
        va_end(args);
        n = strlen(e->msg);
        snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", strerror(errno_value));
    }
    return (int)code;
}

int err_add_context(struct err *e, const char *fmt, ...)
{
    char noun[256];
    struct err old;
    va_list args;
    int n;

    if (!e)
        return (int)CODE_UNKNOWN;
    ASSERT(e->code != CODE_OK);
    va_start(args, fmt);
    vsnprintf(noun, sizeof(noun), fmt, args);
    va_end(args);
    old = *e;
    n = snprintf(e->msg, sizeof(e->msg), "%s: %s", noun, old.msg);
    if (n >= (int)sizeof(e->msg))
        memcpy(e->msg + sizeof(e->msg) - 4, "...", 4);
    return (int)e->code;
}

enum code err_from_errno(int errno_value)
{
    switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
        return CODE_NOT_FOUND;
    case EEXIST:
        return CODE_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return CODE_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EFBIG:
        return CODE_RESOURCE_EXHAUSTED;
    case EINVAL:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
        return CODE_INVALID_ARGUMENT;
    case ENOTEMPTY:
        return CODE_FAILED_PRECONDITION;
    case ETIMEDOUT:
        return CODE_DEADLINE_EXCEEDED;
    case EADDRINUSE:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EAGAIN:
    case EBUSY:
        return CODE_UNAVAILABLE;
    case EIO:
        return CODE_DATA_LOSS;
    default:
        return CODE_UNKNOWN;
    }
}

const char *code_name(enum code code)
{
    ASSERT((size_t)code < ARRAY_LEN(codes));
    return codes[code].name;
}

int code_http_status(enum code code)
{
    ASSERT((size_t)code < ARRAY_LEN(codes));
    return codes[code].http;
}

int code_exit_status(enum code code)
{
    ASSERT((size_t)code < ARRAY_LEN(codes));
    return codes[code].exit_code;
}
