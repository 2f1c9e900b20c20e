/* SPDX-License-Identifier: Apache-2.0 */
/* Looks into the "parameters" of a request. They were scanned when the request was read, so what is
 * looked at here is well-formed, small, and has no key twice. */
#include "wire/json_scan.h"
#include "wire/tensor_json.h"

bool infer_parameter_get(str parameters, str key, str *ret_json)
{
    struct scan s;
    struct scan_text name;
    bool first = true;

    if (!parameters.n)
        return false;
    scan_begin(&s, parameters);
    if (!scan_open(&s, '{', "an object"))
        return false;
    while (scan_member(&s, &name, &first)) {
        bool found = str_eq(name.raw, key);

        if (!scan_value(&s, found ? ret_json : NULL))
            return false;
        if (found)
            return true;
    }
    return false;
}

bool infer_parameter_bool(str parameters, str key, bool *ret_value)
{
    str json;

    if (!infer_parameter_get(parameters, key, &json))
        return false;
    if (str_eq(json, S("true")))
        *ret_value = true;
    else if (str_eq(json, S("false")))
        *ret_value = false;
    else
        return false;
    return true;
}

bool infer_parameter_int(str parameters, str key, int64_t *ret_value)
{
    str json;

    return infer_parameter_get(parameters, key, &json) && str_to_i64(json, ret_value);
}
