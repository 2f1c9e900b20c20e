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
    S_INIT("binary"),  S_INIT("inputs"),        S_INIT("outputs"),         S_INIT("tls"),
};
static const str tls_names[] = {S_INIT("ca"), S_INIT("certificate"), S_INIT("key")};
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

/* What a URL may begin with. */
static const struct scheme {
    str text, port;
    const struct remote_protocol *protocol;
    bool tls;
} schemes[] = {
    {S_INIT("http://"), S_INIT("80"), &remote_http, false},
    {S_INIT("https://"), S_INIT("443"), &remote_http, true},
    {S_INIT("grpc://"), S_INIT("80"), &remote_grpc, false},
    {S_INIT("grpcs://"), S_INIT("443"), &remote_grpc, true},
};

/* "[::1]:80" and "h:80" without the port and brackets. */
static const char *name_of(str host, struct arena *a)
{
    str name = str_starts(host, S("[")) ? str_skip(host, 1) : host;

    return arena_dupz(a, str_cut(&name, str_starts(host, S("[")) ? ']' : ':'));
}

static NODISCARD int url_read(const struct json *root, struct arena *a, struct remote_config *ret,
                              struct err *e)
{
    const struct scheme *scheme = NULL;
    ptrdiff_t slash;
    str url, rest;

    TRY(json_need_str(root, S("url"), &url, e));
    for (size_t i = 0; i < ARRAY_LEN(schemes) && !scheme; i++)
        scheme = str_starts(url, schemes[i].text) ? &schemes[i] : NULL;
    if (!scheme)
        return FAIL(e, INVALID_ARGUMENT,
                    "url is '" STR_F "', expected http://host:port, https://, grpc:// or grpcs://",
                    STR_A(str_take(url, 128)));
    rest = str_skip(url, scheme->text.n);
    slash = str_find_char(rest, '/');
    ret->host = slash < 0 ? rest : str_take(rest, (size_t)slash);
    ret->base = slash < 0 ? S("") : str_skip(rest, (size_t)slash);
    while (str_ends(ret->base, S("/")))
        ret->base.n--;
    if (!ret->host.n || ret->host.n > 255 || !is_plain(ret->host, S(".-:[]_")) ||
        !is_plain(ret->base, S("/.-_~")) || str_find(ret->base, S("..")) >= 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "url is '" STR_F "': expected " STR_F "host:port, with a plain path at most",
                    STR_A(str_take(url, 128)), STR_A(scheme->text));
    if (ret->base.n && scheme->protocol == &remote_grpc)
        return FAIL(e, INVALID_ARGUMENT, "url is '" STR_F "': gRPC has no path before its services",
                    STR_A(str_take(url, 128)));
    ret->protocol = scheme->protocol;
    ret->tls = scheme->tls;
    ret->address = has_port(ret->host)
                       ? ret->host
                       : arena_printf(a, STR_F ":" STR_F, STR_A(ret->host), STR_A(scheme->port));
    ret->name = name_of(ret->host, a);
    return 0;
}

static NODISCARD int path_read(const struct json *tls, str name, struct arena *a, const char **ret,
                               struct err *e)
{
    const struct json *node = json_get(tls, name);

    *ret = NULL;
    if (!node)
        return 0;
    if (!str_starts(json_str_or(node, STR_NULL), S("/")))
        return FAIL(e, INVALID_ARGUMENT, "tls." STR_F " is no full path", STR_A(name));
    *ret = arena_dupz(a, node->string);
    return 0;
}

static NODISCARD int tls_read(const struct json *root, struct arena *a, struct remote_config *ret,
                              struct err *e)
{
    const struct json *tls = json_get(root, S("tls"));

    if (!tls)
        return 0;
    if (tls->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "tls is no object");
    if (!ret->tls)
        return FAIL(e, INVALID_ARGUMENT, "tls goes with https:// and grpcs:// only");
    if (settings_names(tls, tls_names, ARRAY_LEN(tls_names), e))
        return err_context(e, "tls");
    TRY(path_read(tls, S("ca"), a, &ret->ca, e));
    TRY(path_read(tls, S("certificate"), a, &ret->certificate, e));
    TRY(path_read(tls, S("key"), a, &ret->key, e));
    if (!ret->certificate != !ret->key)
        return FAIL(e, INVALID_ARGUMENT, "tls: certificate and key go together");
    return 0;
}

static bool is_token(str s)
{
    return s.n && s.n <= 64 && is_plain(s, S("-_"));
}

/* A field's name as HTTP/2 wants it. */
static str small_letters(str name, struct arena *a)
{
    char *text = arena_dupz(a, name);

    for (size_t i = 0; i < name.n; i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] = (char)(text[i] | 0x20);
    return (str){text, name.n};
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
    ret->credential_field = small_letters(ret->credential_header, a);
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
    TRY(tls_read(root, a, ret, e));
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
