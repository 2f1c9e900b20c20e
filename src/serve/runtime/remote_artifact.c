/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact of a remote model: a small JSON document. Secrets are never in it, only where they
 * are (a variable of the gateway, or a file), since artifacts are copied, exported and shown.
 */
#include "base/time.h"
#include "serve/runtime/remote.h"
#include "serve/runtime/settings.h"
#include "wire/tensor_frame.h"

static const struct setting settings[] = {
#define COUNT(section, name, field, least, most, value, unit, help) \
    SETTING(struct remote_config, section, name, field, least, most, value, unit),
#define SPAN(section, name, field, least, most, value, help) \
    SETTING(struct remote_config, section, name, field, least, most, value, 0),
#include "serve/runtime/remote_fields.def"
#undef COUNT
#undef SPAN
};

static const str top_names[] = {
    S_INIT("kind"),    S_INIT("url"),           S_INIT("model"),           S_INIT("version"),
    S_INIT("timeout"), S_INIT("allow_private"), S_INIT("connect_timeout"), S_INIT("retries"),
    S_INIT("backoff"), S_INIT("credentials"),   S_INIT("answer_mib"),      S_INIT("breaker"),
    S_INIT("binary"),  S_INIT("inputs"),        S_INIT("outputs"),
};
static const str credential_names[] = {S_INIT("env"), S_INIT("file"), S_INIT("header"),
                                       S_INIT("prefix")};

/* Letters, digits and what a host, a port or a path may hold besides; nothing that needs escaping
 * or could end a line. */
static bool is_plain(str s, str more)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            str_find_char(more, c) < 0)
            return false;
    }
    return true;
}

static bool has_port(str host)
{
    str behind = str_skip(host, (size_t)(str_find_char(host, ']') + 1)); /* of [::1]:80 */

    return str_find_char(behind, ':') >= 0;
}

static NODISCARD int url_read(const struct json *root, struct arena *a, struct remote_config *ret,
                              struct err *e)
{
    str url, rest;
    ptrdiff_t slash;

    TRY(json_need_str(root, S("url"), &url, e));
    if (str_starts(url, S("https://")))
        return FAIL(e, INVALID_ARGUMENT,
                    "url: https is not spoken yet; put a proxy that speaks it on this machine and "
                    "give its http address");
    if (!str_starts(url, S("http://")))
        return FAIL(e, INVALID_ARGUMENT, "url is '" STR_F "', expected http://host:port",
                    STR_A(str_take(url, 128)));
    rest = str_skip(url, 7);
    slash = str_find_char(rest, '/');
    ret->host = slash < 0 ? rest : str_take(rest, (size_t)slash);
    ret->base = slash < 0 ? S("") : str_skip(rest, (size_t)slash);
    while (str_ends(ret->base, S("/")))
        ret->base.n--;
    if (!ret->host.n || ret->host.n > 255 || !is_plain(ret->host, S(".-:[]_")) ||
        !is_plain(ret->base, S("/.-_~")) || str_find(ret->base, S("..")) >= 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "url is '" STR_F "': expected http://host:port, with a plain path at most",
                    STR_A(str_take(url, 128)));
    ret->address = has_port(ret->host) ? ret->host : arena_printf(a, STR_F ":80", STR_A(ret->host));
    return 0;
}

static bool is_token(str s)
{
    return s.n && s.n <= 64 && is_plain(s, S("-_"));
}

static NODISCARD int credentials_read(const struct json *root, struct arena *a,
                                      struct remote_config *ret, struct err *e)
{
    const struct json *c = json_get(root, S("credentials"));
    str env = json_str_or(json_get(c, S("env")), STR_NULL);
    str file = json_str_or(json_get(c, S("file")), STR_NULL);

    if (!c)
        return 0;
    if (c->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "credentials is no object");
    if (settings_names(c, credential_names, ARRAY_LEN(credential_names), e))
        return err_context(e, "credentials");
    if (env.n ? file.n || !is_token(env) : !file.n || file.p[0] != '/')
        return FAIL(e, INVALID_ARGUMENT,
                    "credentials: give either env, the name of a variable of the gateway, or file, "
                    "a full path; never the secret itself");
    ret->credential_env = env.n ? arena_dupz(a, env) : NULL;
    ret->credential_file = file.n ? arena_dupz(a, file) : NULL;
    ret->credential_header = json_str_or(json_get(c, S("header")), S("Authorization"));
    ret->credential_prefix = json_str_or(json_get(c, S("prefix")), S("Bearer "));
    if (!is_token(ret->credential_header) || !is_plain(ret->credential_prefix, S(" -_")))
        return FAIL(e, INVALID_ARGUMENT, "credentials: header or prefix is not plain text");
    return 0;
}

static NODISCARD int bool_read(const struct json *root, str name, bool *ret, struct err *e)
{
    const struct json *node = json_get(root, name);

    if (node && node->type != JSON_BOOL)
        return FAIL(e, INVALID_ARGUMENT, STR_F " is true or false", STR_A(name));
    *ret = node && node->boolean;
    return 0;
}

static NODISCARD int specs_read(const struct json *root, struct arena *a, struct remote_config *ret,
                                struct err *e)
{
    const struct json *inputs = json_get(root, S("inputs")),
                      *outputs = json_get(root, S("outputs"));

    if (!inputs && !outputs)
        return 0;
    TRY(tensor_specs_read(inputs, "inputs", TENSOR_INPUTS_MAX, a, &ret->inputs, &ret->input_count,
                          e));
    return tensor_specs_read(outputs, "outputs", TENSOR_OUTPUTS_MAX, a, &ret->outputs,
                             &ret->output_count, e);
}

int remote_config_read(const struct json *root, struct arena *a, struct remote_config *ret,
                       struct err *e)
{
    *ret = (struct remote_config){.retries = 0};
    if (!root || root->type != JSON_OBJECT ||
        !str_eq(json_str_or(json_get(root, S("kind")), STR_NULL), S("remote")))
        return FAIL(e, INVALID_ARGUMENT, "it is no description of kind \"remote\"");
    TRY(settings_names(root, top_names, ARRAY_LEN(top_names), e));
    TRY(settings_read(root, settings, ARRAY_LEN(settings), ret, e));
    TRY(url_read(root, a, ret, e));
    TRY(json_need_str(root, S("model"), &ret->model, e));
    ret->version = json_str_or(json_get(root, S("version")), S(""));
    if (!str_is_name(ret->model) || (ret->version.n && !str_is_name(ret->version)))
        return FAIL(e, INVALID_ARGUMENT,
                    "model or version is no name: letters, digits, '.', '_' and '-'");
    TRY(bool_read(root, S("allow_private"), &ret->allow_private, e));
    TRY(bool_read(root, S("binary"), &ret->binary, e));
    TRY(credentials_read(root, a, ret, e));
    return specs_read(root, a, ret, e);
}
