/* SPDX-License-Identifier: Apache-2.0 */
/* The committed page is the one that the table gives; help by path; the schema for editors. */
#include "check.h"

#include "base/files.h"
#include "project/project.h"

static void page_is_current(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf page = {0};
    struct err e;
    str committed;

    arena_init(&a, 0);
    buf_init(&page, BUF_MAX_DEFAULT);
    project_docs_write(&page);
    NEED_OK(file_read_all("docs/configuration.md", 1 << 20, &a, &committed, &e), &e);
    if (!CHECK(str_eq(buf_str(&page), committed)))
        fprintf(stderr, "    scripts/gen-config writes it\n");
}

static void explained(void)
{
    static const struct {
        const char *path, *part;
    } cases[] = {
        {"", "endpoints"},
        {"endpoints.timeout", "default  1s\n"},
        {"endpoints.fraud.timeout", "from 1ms to 10min"},
        {"gateway.log.level", "one of debug, info, warn, error"},
        {"rollouts.guards", "What takes a new version back at once"},
        {"rollouts.mine.steps.weight", "Share of the new version."},
        {"models.m.features", "auto"},
    };
    static const struct {
        const char *path, *why;
    } bad[] = {
        {"endpoint", "'endpoint' is not a key, did you mean 'endpoints'?"},
        {"endpoints.fraud.timeot",
         "'timeot' is not a key of endpoints.<name>, did you mean 'timeout'?"},
        {"project.x", "'x' is not a key"},
    };
    AUTO(buf_done) struct buf out = {0};
    struct err e;

    buf_init(&out, BUF_MAX_DEFAULT);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_clear(&out);
        NEED_OK(project_explain(str_of(cases[i].path), &out, &e), &e);
        if (!CHECK(strstr(buf_z(&out), cases[i].part)))
            fprintf(stderr, "    %s: %s\n", cases[i].path, buf_z(&out));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_FAILS(project_explain(str_of(bad[i].path), &out, &e), NOT_FOUND, &e, bad[i].why);
}

static void schema(void)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf out = {0};
    struct json *root, *field;
    struct err e;

    arena_init(&a, 0);
    buf_init(&out, BUF_MAX_DEFAULT);
    project_schema_write(&out);
    NEED_OK(json_parse(buf_str(&out), &a, &root, &e), &e);
    field = json_path(root, "properties.endpoints.additionalProperties");
    CHECK_STR(json_str_or(json_get(field, S("$ref")), STR_NULL), S("#/$defs/endpoint"));
    field = json_path(root, "$defs.dataset.required");
    CHECK_STR(json_str_or(json_at(field, 0), STR_NULL), S("path"));
    CHECK(field->count == 1);
    CHECK(!json_bool_or(json_path(root, "$defs.guards.additionalProperties"), true));
    field = json_at(json_path(root, "$defs.guards.properties.p99.anyOf"), 0);
    CHECK_STR(json_str_or(json_get(field, S("const")), STR_NULL), S("off"));
}

RUN_TESTS(T(page_is_current), T(explained), T(schema))
