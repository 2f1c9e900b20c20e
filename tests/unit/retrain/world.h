/* SPDX-License-Identifier: Apache-2.0 */
/* A state directory with a store, an applied project and ports whose answers a test sets. */
#pragma once

#include "base/files.h"
#include "base/time.h"
#include "check.h"
#include "journal/journal.h"
#include "retrain/retrain.h"

#include <unistd.h>

#define T0 (INT64_C(1767312000) * NS_PER_S) /* 2026-01-02 */

static char dir[96];
static struct meta_store *store;
static struct meta *m;
static struct err e;
static struct arena world_arena;
static struct retrain_env env;
static struct {
    int64_t labels_total, labels_since, cron_next;
    int drifting, seals, gates;
    const char *verdict;
    int gate_rc;
} port;

static UNUSED void port_seal(void *ctx)
{
    (void)ctx;
    port.seals++;
}
static UNUSED int64_t port_labels_since(void *ctx, str endpoint, int64_t wall_ns)
{
    (void)ctx, (void)endpoint, (void)wall_ns;
    return port.labels_since;
}
static UNUSED int64_t port_labels_total(void *ctx, str endpoint)
{
    (void)ctx, (void)endpoint;
    return port.labels_total;
}
static UNUSED int port_drifting(void *ctx, str endpoint)
{
    (void)ctx, (void)endpoint;
    return port.drifting;
}
static UNUSED int64_t port_cron_next(void *ctx, str expression, int64_t after_ns)
{
    (void)ctx, (void)expression;
    return after_ns + port.cron_next;
}
static UNUSED int port_gate(void *ctx, struct meta *gm, const struct json *project, str model,
                            int64_t candidate, int64_t champion, const char *holdout,
                            const char *work_dir, struct arena *a, struct json **ret_report,
                            struct err *ge)
{
    (void)ctx, (void)gm, (void)project, (void)model, (void)candidate, (void)champion;
    (void)work_dir;
    port.gates++;
    if (!file_exists(holdout))
        return FAIL(ge, NOT_FOUND, "no holdout at %s", holdout);
    *ret_report = json_new_object(a);
    json_set_str(a, *ret_report, S("verdict"), str_of(port.verdict));
    json_set_str(a, *ret_report, S("reason"), S("as the test says"));
    return 0;
}

static UNUSED void write_file(const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    CHECK_OK(file_replace(path, str_of(text), &e), &e);
}

/* ' becomes ": JSON that a C string can hold. */
static UNUSED struct json *json_of(const char *text)
{
    char *copy = arena_dupz(&world_arena, str_of(text));
    struct json *node = NULL;

    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    CHECK_OK(json_parse(str_of(copy), &world_arena, &node, &e), &e);
    return node;
}

static UNUSED struct json *apply(const char *tree)
{
    struct json *applied = json_new_object(&world_arena), *node = json_of(tree);

    json_set(applied, S("tree"), node);
    CHECK_OK(meta_kv_put(m, S("project"), S("applied"), applied, &e), &e);
    return node;
}

static UNUSED void world_open(bool virtual_clock)
{
    static unsigned count;
    char command[128];

    snprintf(dir, sizeof(dir), "%s/weir-retrain-%d-%u",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid(), count++);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    if (virtual_clock)
        time_test_virtual(0, T0);
    arena_init(&world_arena, 0);
    CHECK_OK(meta_store_open(dir, NULL, &store, &e), &e);
    CHECK_OK(meta_open(store, &m, &e), &e);
    memset(&port, 0, sizeof(port));
    port.drifting = 1;
    port.verdict = "DEPLOY";
    env = (struct retrain_env){.store = store,
                               .project_dir = dir,
                               .state_dir = dir,
                               .ports = {.seal = port_seal,
                                         .labels_since = port_labels_since,
                                         .labels_total = port_labels_total,
                                         .drifting = port_drifting,
                                         .cron_next = port_cron_next,
                                         .gate = port_gate}};
}

static UNUSED void world_close(void)
{
    char command[128];

    meta_close(TAKE(m));
    meta_store_close(TAKE(store));
    time_test_real();
    arena_done(&world_arena);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

/* The newest fact of a type as an object with "reason", "correlation" and "data", or NULL. */
static UNUSED struct json *last_fact(const char *type)
{
    struct fact *facts;
    struct json *o = json_new_object(&world_arena), *data;
    size_t n;

    CHECK_OK(journal_read(m,
                          &(struct journal_query){
                              .type_prefix = str_of(type), .newest_first = true, .limit = 1},
                          &world_arena, &facts, &n, &e),
             &e);
    if (!n)
        return NULL;
    json_set_str(&world_arena, o, S("reason"), facts[0].reason);
    json_set_str(&world_arena, o, S("correlation"), facts[0].correlation);
    CHECK_OK(json_parse(facts[0].data, &world_arena, &data, &e), &e);
    json_set(o, S("data"), data);
    return o;
}

static UNUSED str fact_text(const char *type, const char *path)
{
    return json_str_or(json_path(last_fact(type), path), S("(none)"));
}

static UNUSED int64_t fact_count(const char *type)
{
    int64_t n = 0;

    CHECK_OK(meta_first_int(m, "SELECT COUNT(*) FROM journal WHERE type = ?",
                            M_ARGS(M_STR(str_of(type))), 0, &n, &e),
             &e);
    return n;
}
