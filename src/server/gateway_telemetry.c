/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of access log and traces. Control wrote them from a checked project; they are checked
 * once more because another program may have. */
#include "server/gateway_telemetry.h"

#include "base/buf.h"
#include "base/files.h"
#include "base/time.h"
#include "wire/http1.h"

#include <stdlib.h>

#define BATCH 256
#define HEADERS_MAX ((size_t)16 << 10)

static NODISCARD int whole(const struct json *o, const char *name, int64_t def, int64_t least,
                           int64_t most, int64_t *ret, struct err *e)
{
    const struct json *node = json_get(o, str_of(name));

    *ret = json_int_or(node, def);
    if (node && node->type == JSON_NULL) {
        *ret = 0;
        return 0;
    }
    if ((node && node->type != JSON_INT) || *ret < least || *ret > most)
        return FAIL(e, OUT_OF_RANGE, "%s: expected a whole number from %lld to %lld", name,
                    (long long)least, (long long)most);
    return 0;
}

static NODISCARD int share(const struct json *o, double *ret, struct err *e)
{
    const struct json *node = json_get(o, S("sample"));

    *ret = json_real_or(node, 0.01);
    if ((node && node->type != JSON_INT && node->type != JSON_REAL) || !(*ret >= 0 && *ret <= 1))
        return FAIL(e, OUT_OF_RANGE, "sample: expected a number from 0 to 1");
    return 0;
}

/* --- The access log --------------------------------------------------------------------------- */

static NODISCARD int log_read(const struct json *o, const char *project_dir, struct arena *a,
                              struct telemetry_config *ret, struct err *e)
{
    str path = json_str_or(json_get(o, S("path")), S(""));
    int64_t slow_ns, bytes, keep;

    if (!path.n)
        return FAIL(e, INVALID_ARGUMENT, "path: expected a file, or stdout");
    TRY(share(o, &ret->log_sample, e));
    TRY(whole(o, "slow_ns", 100 * NS_PER_MS, 0, INT64_MAX, &slow_ns, e));
    TRY(whole(o, "rotate_bytes", 64 << 20, 0, INT64_MAX, &bytes, e));
    TRY(whole(o, "keep", 5, 0, ACCESS_KEEP_MAX, &keep, e));
    ret->log_errors = !str_eqz(json_str_or(json_get(o, S("errors")), S("all")), "sampled");
    ret->log_slow_ns = slow_ns;
    ret->log.rotate_bytes = (uint64_t)bytes;
    ret->log.keep = (uint32_t)keep;
    ret->log.path = arena_dupz(a, path);
    if (path.p[0] != '/' && !str_eqz(path, "stdout"))
        ret->log.path = path_join(a, project_dir, ret->log.path);
    return 0;
}

/* --- Traces ----------------------------------------------------------------------------------- */

/* "name=value,name=value" as header lines. Values are secrets: no message quotes one. */
static NODISCARD int headers_read(str text, struct buf *lines, struct err *e)
{
    while (text.p && text.n) {
        str pair = str_trim(str_cut(&text, ',')), name = str_trim(str_cut(&pair, '='));

        if (!name.n && !pair.n)
            continue;
        if (!name.n || !pair.p || !http1_write_field(lines, name, str_trim(pair)))
            return FAIL(e, INVALID_ARGUMENT,
                        "headers_env: the variable must hold name=value pairs with commas between");
    }
    return lines->overflowed
               ? FAIL(e, RESOURCE_EXHAUSTED, "headers_env: more than %zu bytes", HEADERS_MAX)
               : 0;
}

static NODISCARD int headers_of(const struct json *o, struct arena *a, const char **ret,
                                struct err *e)
{
    AUTO(buf_done) struct buf lines = {0};
    str name = json_str_or(json_get(o, S("headers_env")), STR_NULL);
    const char *value;

    *ret = "";
    if (!name.n)
        return 0;
    value = getenv(arena_dupz(a, name));
    if (!value)
        return FAIL(e, FAILED_PRECONDITION, "headers_env: the gateway has no variable " STR_F,
                    STR_A(name));
    buf_init(&lines, HEADERS_MAX);
    TRY(headers_read(str_of(value), &lines, e));
    *ret = arena_dupz(a, buf_str(&lines));
    return 0;
}

static NODISCARD int endpoint_of(const struct json *o, struct arena *a, const char **ret,
                                 struct err *e)
{
    str url = json_str_or(json_get(o, S("endpoint")), S("")), rest;

    if (!str_starts(url, S("http://")) && !str_starts(url, S("https://")))
        return FAIL(e, INVALID_ARGUMENT,
                    "endpoint: expected http://HOST:PORT or https://HOST:PORT");
    rest = str_skip(url, str_starts(url, S("https://")) ? 8 : 7);
    while (rest.n && url.p[url.n - 1] == '/' && str_find_char(rest, '/') == (ptrdiff_t)rest.n - 1) {
        url.n--;
        rest.n--;
    }
    *ret =
        arena_printf(a, STR_F "%s", STR_A(url), str_find_char(rest, '/') < 0 ? "/v1/traces" : "").p;
    return 0;
}

static NODISCARD int otlp_read(const struct json *o, const char *instance, struct arena *a,
                               struct telemetry_config *ret, struct err *e)
{
    int64_t timeout_ns, interval_ns, queue;

    TRY(endpoint_of(o, a, &ret->otlp.endpoint, e));
    TRY(headers_of(o, a, &ret->otlp.headers, e));
    TRY(share(o, &ret->otlp_sample, e));
    TRY(whole(o, "timeout_ns", 10 * NS_PER_S, NS_PER_MS, 3600 * NS_PER_S, &timeout_ns, e));
    TRY(whole(o, "interval_ns", 5 * NS_PER_S, NS_PER_MS, 3600 * NS_PER_S, &interval_ns, e));
    TRY(whole(o, "queue", 2048, 1, EXPORTER_QUEUE_MAX, &queue, e));
    ret->otlp.service = arena_dupz(a, json_str_or(json_get(o, S("service")), S("weir")));
    ret->otlp.instance = instance;
    ret->otlp.timeout_ns = timeout_ns;
    ret->otlp.interval_ns = interval_ns;
    ret->otlp.queue = (uint32_t)queue;
    ret->otlp.batch = MIN(ret->otlp.queue, (uint32_t)BATCH);
    return 0;
}

int gateway_telemetry_read(const struct json *gateway, const char *project_dir,
                           const char *instance, struct arena *a, struct telemetry_config *ret,
                           struct err *e)
{
    const struct json *log = json_get(gateway, S("access_log"));
    const struct json *otlp = json_path(gateway, "telemetry.otlp");

    *ret = (struct telemetry_config){.log.path = NULL};
    if (json_is_container(log) && log_read(log, project_dir, a, ret, e))
        return err_context(e, "gateway.access_log");
    if (json_is_container(otlp) && otlp_read(otlp, instance, a, ret, e))
        return err_context(e, "gateway.telemetry.otlp");
    return 0;
}
