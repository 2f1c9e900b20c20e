/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/runtime/settings.h"

#include "base/time.h"

int settings_names(const struct json *object, const str *names, size_t n, struct err *e)
{
    JSON_EACH (member, object) {
        bool known = false;
        str near;

        for (size_t i = 0; i < n; i++)
            known = known || str_eq(member->key, names[i]);
        if (known)
            continue;
        near = str_suggest(member->key, names, n);
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is unknown%s" STR_F "%s",
                    STR_A(str_take(member->key, 64)), near.n ? ", did you mean '" : "", STR_A(near),
                    near.n ? "'?" : "");
    }
    return 0;
}

static NODISCARD int section_check(const struct json *root, const char *section,
                                   const struct setting *settings, size_t n, struct err *e)
{
    const struct json *object = json_get(root, str_of(section));
    str names[SETTINGS_MAX];
    size_t count = 0;

    if (!*section || !object)
        return 0;
    if (object->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "%s is no object", section);
    for (size_t i = 0; i < n; i++)
        if (strcmp(settings[i].section, section) == 0)
            names[count++] = str_of(settings[i].name);
    return settings_names(object, names, count, e) ? err_context(e, "%s", section) : 0;
}

static NODISCARD int out_of_range(const struct setting *s, struct err *e)
{
    bool is_time = !s->unit;
    int64_t by = is_time ? NS_PER_MS : 1;

    return FAIL(e, INVALID_ARGUMENT, "%s%s%s is out of range: %lld to %lld%s", s->section,
                *s->section ? "." : "", s->name, (long long)(s->least / by),
                (long long)(s->most / by), is_time ? " ms" : "");
}

static NODISCARD int setting_read(const struct json *root, const struct setting *s, void *to,
                                  struct err *e)
{
    const struct json *from = *s->section ? json_get(root, str_of(s->section)) : root;
    const struct json *node = json_get(from, str_of(s->name));
    const char *dot = *s->section ? "." : "";
    int64_t v = s->value;

    if (node && s->unit && node->type != JSON_INT)
        return FAIL(e, INVALID_ARGUMENT, "%s%s%s is no whole number", s->section, dot, s->name);
    if (node && !s->unit && !time_parse_duration(json_str_or(node, S("?")), &v))
        return FAIL(e, INVALID_ARGUMENT, "%s%s%s is no time, like \"500ms\" or \"30s\"", s->section,
                    dot, s->name);
    if (node && s->unit)
        v = node->integer;
    if (v < s->least || v > s->most)
        return out_of_range(s, e);
    v *= s->unit ? s->unit : 1;
    memcpy((char *)to + s->at, &v, s->bytes); /* little-endian: the low bytes come first */
    return 0;
}

int settings_read(const struct json *root, const struct setting *settings, size_t n, void *to,
                  struct err *e)
{
    ASSERT(n <= SETTINGS_MAX);
    for (size_t i = 0; i < n; i++) {
        TRY(section_check(root, settings[i].section, settings, n, e));
        TRY(setting_read(root, &settings[i], to, e));
    }
    return 0;
}
