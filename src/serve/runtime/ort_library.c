/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds libonnxruntime at run time, so that a program which serves no ONNX model needs none, and
 * makes the one environment of the process.
 *
 * Looked for, in this order: $WEIR_DEPS_LIB, ../lib beside the folder of the executable, the folder
 * known when Weir was built, the system's own search path.
 *
 * The library logs nothing: whatever goes wrong comes back as a status, with the same text, and
 * becomes the error of the call. It is never closed again; its threads and globals do not stand it.
 */
#include "serve/runtime/ort.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LIBRARY "libonnxruntime.so.1"
#define API_WANTED 17 /* the oldest interface that has all we call; libraries keep old ones */

static struct {
    pthread_mutex_t lock;
    const OrtApi *api;
    OrtEnv *env;
} library = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void log_nothing(void *param, OrtLoggingLevel severity, const char *category,
                        const char *logid, const char *code_location, const char *message)
{
    (void)param, (void)severity, (void)category, (void)logid, (void)code_location, (void)message;
}

/* The i-th place to look at; false when there is none there or no more (*ret_path is ""). */
static bool place_at(int i, char *path, size_t size, bool *ret_more)
{
    char exe[4096], *slash;
    const char *dir = NULL;
    ssize_t n;

    *ret_more = i < 4;
    switch (i) {
    case 0:
        dir = getenv("WEIR_DEPS_LIB");
        break;
    case 1:
        n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
        if (n <= 0)
            return false;
        exe[n] = '\0';
        slash = strrchr(exe, '/');
        if (!slash)
            return false;
        *slash = '\0';
        return snprintf(path, size, "%s/../lib/" LIBRARY, exe) < (int)size;
    case 2:
        dir = WEIR_DEPS_LIB_BUILD;
        break;
    case 3:
        return snprintf(path, size, LIBRARY) < (int)size;
    default:
        break;
    }
    return dir && *dir && snprintf(path, size, "%s/" LIBRARY, dir) < (int)size;
}

static void *library_find(void)
{
    char path[4200];
    bool more = true;

    for (int i = 0; more; i++) {
        void *handle;

        if (!place_at(i, path, sizeof(path), &more))
            continue;
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (handle)
            return handle;
    }
    return NULL;
}

static int library_load(struct err *e)
{
    void *handle = library_find();
    const OrtApiBase *(*get_base)(void);
    const OrtApi *api;
    OrtEnv *env;

    if (!handle)
        return FAIL(e, UNAVAILABLE,
                    "ONNX Runtime (" LIBRARY ") was not found: install it beside weir in ../lib, "
                    "or set WEIR_DEPS_LIB to its folder");
    /* POSIX asks for this detour from an object to a function pointer. */
    *(void **)&get_base = dlsym(handle, "OrtGetApiBase");
    api = get_base ? get_base()->GetApi(API_WANTED) : NULL;
    if (!api)
        return FAIL(e, UNAVAILABLE,
                    "the ONNX Runtime found is too old: version 1.%d or later is needed",
                    API_WANTED);
    TRY(ort_check(
        api,
        api->CreateEnvWithCustomLogger(log_nothing, NULL, ORT_LOGGING_LEVEL_FATAL, "weir", &env),
        "starting ONNX Runtime", e));
    library.api = api;
    library.env = env;
    return 0;
}

int ort_library_open(const OrtApi **ret_api, OrtEnv **ret_env, struct err *e)
{
    int rc = 0;

    pthread_mutex_lock(&library.lock);
    if (!library.api)
        rc = library_load(e);
    *ret_api = library.api;
    *ret_env = library.env;
    pthread_mutex_unlock(&library.lock);
    return rc;
}

static enum code code_of(OrtErrorCode code)
{
    switch (code) {
    case ORT_INVALID_ARGUMENT:
    case ORT_INVALID_PROTOBUF:
    case ORT_INVALID_GRAPH:
    case ORT_NO_MODEL:
        return CODE_INVALID_ARGUMENT;
    case ORT_NO_SUCHFILE:
        return CODE_NOT_FOUND;
    case ORT_NOT_IMPLEMENTED:
        return CODE_UNIMPLEMENTED;
    default:
        return CODE_INTERNAL;
    }
}

int ort_check(const OrtApi *api, OrtStatus *status, const char *doing, struct err *e)
{
    enum code code;

    if (LIKELY(!status))
        return 0;
    code = code_of(api->GetErrorCode(status));
    err_fill(e, code, ERR_AT, "%s: %s", doing, api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    return (int)code;
}
