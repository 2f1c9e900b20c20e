/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens libonnxruntime at run time (base/library.h says where it is looked for), so that a program
 * which serves no ONNX model needs none, and makes the one environment of the process.
 *
 * The library logs nothing: whatever goes wrong comes back as a status, with the same text, and
 * becomes the error of the call. It is never closed again; its threads and globals do not stand it.
 */
#include "serve/runtime/ort.h"

#include "base/library.h"

#include <pthread.h>

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

static NODISCARD int load(struct err *e)
{
    static const char *const names[] = {"libonnxruntime.so.1", NULL};
    void *handle;
    const OrtApiBase *(*get_base)(void);
    const OrtApi *api;
    OrtEnv *env;

    TRY(library_open("ONNX Runtime", names, &handle, e));
    /* POSIX asks for this detour from an object to a function pointer. */
    *(void **)&get_base = library_symbol(handle, "OrtGetApiBase");
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
        rc = load(e);
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
