/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest of a process model. Strict: an unknown member is an error with a suggestion, for a
 * limit that is misspelt would be a limit that is not there.
 */
#include "base/time.h"
#include "serve/runtime/process.h"
#include "serve/runtime/settings.h"

#define COMMAND_MAX 64
#define ENV_MAX 64

static const struct setting settings[] = {
#define COUNT(section, name, field, least, most, value, unit, help) \
    SETTING(struct process_manifest, section, name, field, least, most, value, unit),
#define SPAN(section, name, field, least, most, value, help) \
    SETTING(struct process_manifest, section, name, field, least, most, value, 0),
#include "serve/runtime/process_fields.def"
#undef COUNT
#undef SPAN
};

static const str top_names[] = {
    S_INIT("kind"),   S_INIT("command"),  S_INIT("env"),     S_INIT("pass_env"),
    S_INIT("inputs"), S_INIT("outputs"),  S_INIT("network"), S_INIT("instances"),
    S_INIT("limits"), S_INIT("timeouts"), S_INIT("restart"),
};

static bool is_text(const struct json *node)
{
    return node->type == JSON_STR &&
           !memchr(node->string.p ? node->string.p : "", '\0', node->string.n);
}

static NODISCARD int texts_read(const struct json *list, const char *what, size_t max, bool needed,
                                struct arena *a, const char *const **ret, struct err *e)
{
    const char **texts;
    size_t n = 0;

    if (!list && !needed)
        list = json_new_array(a);
    if (!list || list->type != JSON_ARRAY || (needed && !list->count) || list->count > max)
        return FAIL(e, INVALID_ARGUMENT, "%s: a list of %d to %zu texts is needed", what, needed,
                    max);
    texts = arena_zalloc_array(a, sizeof(*texts), list->count + 1);
    JSON_EACH (item, list) {
        if (!is_text(item))
            return FAIL(e, INVALID_ARGUMENT, "%s: each item is a text", what);
        texts[n++] = arena_dupz(a, item->string);
    }
    *ret = texts;
    return 0;
}

static bool is_variable(str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == '=' || !name.p[i])
            return false;
    return name.n > 0;
}

static NODISCARD int env_read(const struct json *root, struct arena *a,
                              struct process_manifest *ret, struct err *e)
{
    const struct json *env = json_get(root, S("env"));
    const char **texts;
    size_t n = 0;

    if (env && (env->type != JSON_OBJECT || env->count > ENV_MAX))
        return FAIL(e, INVALID_ARGUMENT, "env is no object {NAME: value} of at most %d", ENV_MAX);
    texts = arena_zalloc_array(a, sizeof(*texts), (env ? env->count : 0) + 1);
    if (env)
        JSON_EACH (v, env) {
            if (!is_variable(v->key) || !is_text(v))
                return FAIL(e, INVALID_ARGUMENT, "env." STR_F " is no text (quote numbers)",
                            STR_A(str_take(v->key, 64)));
            texts[n++] = arena_printf(a, STR_F "=" STR_F, STR_A(v->key), STR_A(v->string)).p;
        }
    ret->env = texts;
    return texts_read(json_get(root, S("pass_env")), "pass_env", ENV_MAX, false, a, &ret->pass_env,
                      e);
}

static NODISCARD int network_read(const struct json *root, struct process_manifest *ret,
                                  struct err *e)
{
    const struct json *node = json_get(root, S("network"));

    ret->network = PROCESS_NETWORK_OFF;
    if (!node)
        return 0;
    if (node->type == JSON_STR && str_eq(node->string, S("never")))
        ret->network = PROCESS_NETWORK_NEVER;
    else if (node->type == JSON_BOOL)
        ret->network = node->boolean ? PROCESS_NETWORK_ON : PROCESS_NETWORK_OFF;
    else
        return FAIL(e, INVALID_ARGUMENT, "network is true, false or \"never\"");
    return 0;
}

static NODISCARD int specs_read(const struct json *root, struct arena *a,
                                struct process_manifest *ret, struct err *e)
{
    const struct json *inputs = json_get(root, S("inputs")),
                      *outputs = json_get(root, S("outputs"));

    if (!inputs && !outputs)
        return 0;
    if (!inputs || !outputs)
        return FAIL(e, INVALID_ARGUMENT,
                    "%s are declared and %s are not: declare both, or let the program do it",
                    inputs ? "inputs" : "outputs", inputs ? "outputs" : "inputs");
    TRY(tensor_specs_read(inputs, "inputs", TENSOR_INPUTS_MAX, a, &ret->inputs, &ret->input_count,
                          e));
    return tensor_specs_read(outputs, "outputs", TENSOR_OUTPUTS_MAX, a, &ret->outputs,
                             &ret->output_count, e);
}

int process_manifest_read(const struct json *root, struct arena *a, struct process_manifest *ret,
                          struct err *e)
{
    str kind = json_str_or(json_get(root, S("kind")), S("process"));

    *ret = (struct process_manifest){0};
    if (!root || root->type != JSON_OBJECT || !str_eq(kind, S("process")))
        return FAIL(e, INVALID_ARGUMENT, "it is no manifest of kind \"process\"");
    TRY(settings_names(root, top_names, ARRAY_LEN(top_names), e));
    TRY(settings_read(root, settings, ARRAY_LEN(settings), ret, e));
    TRY(texts_read(json_get(root, S("command")), "command", COMMAND_MAX, true, a, &ret->command,
                   e));
    TRY(env_read(root, a, ret, e));
    TRY(network_read(root, ret, e));
    return specs_read(root, a, ret, e);
}
