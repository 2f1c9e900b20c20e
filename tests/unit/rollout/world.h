/* SPDX-License-Identifier: Apache-2.0 */
/* The world of the rollout tests: a real meta store, a virtual clock, an endpoint with traffic. */
#pragma once

#include "rollout/rollout.h"

#include "base/time.h"
#include "check.h"
#include "flow/flow.h"
#include "journal/journal.h"
#include "rollout/priv.h"

#include <unistd.h>

#define T0 (INT64_C(1700000000) * NS_PER_S)
#define LADDER                                                              \
    "\"steps\":[{\"weight\":0.1,\"hold_ns\":10000000000,\"rows_min\":100}," \
    "{\"weight\":0.5,\"hold_ns\":10000000000,\"rows_min\":100}],"           \
    "\"guards\":{\"error_rate\":0.01,\"error_ratio\":1.5,\"p99_ns\":150000000}"
#define BAKE                                                                                       \
    ",\"bake_ns\":20000000000,\"rollback_window_ns\":20000000000,\"post_checks_ns\":[15000000000," \
    "5000000000]"
#define PLAIN "{" LADDER BAKE "}"

static char dir[64];
static struct meta_store *store;
static struct meta *m;
static struct rollouts *r;
static struct err e;

static UNUSED void begin(void)
{
    static unsigned count;
    char command[128];

    snprintf(dir, sizeof(dir), "%s/weir-rollout-%d-%u",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid(), count++);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
    time_test_virtual(NS_PER_S, T0);
    CHECK_OK(meta_store_open(dir, NULL, &store, &e), &e);
    CHECK_OK(meta_open(store, &m, &e), &e);
    CHECK_OK(
        meta_exec(
            m,
            "INSERT INTO models (name, meta, created_ns, updated_ns) VALUES ('fraud', '{}', 0, 0)",
            M_NO_ARGS, &e),
        &e);
    for (int v = 1; v <= 4; v++)
        CHECK_OK(meta_exec(m,
                           "INSERT INTO model_versions (model, version, artifact, status, meta,"
                           " created_ns) VALUES ('fraud', ?, 'x', 'ready', ?, 0)",
                           M_ARGS(M_INT(v), M_STR(v == 4 ? S("{\"signature\":{\"inputs\":[2]}}")
                                                         : S("{\"signature\":{\"inputs\":[1]}}"))),
                           &e),
                 &e);
    CHECK_OK(meta_exec(m,
                       "INSERT INTO aliases (model, alias, version, updated_ns) VALUES ('fraud', "
                       "'champion', 1, 0)",
                       M_NO_ARGS, &e),
             &e);
    CHECK_OK(rollouts_new(m, &r, &e), &e);
}

static UNUSED void end(void)
{
    char command[128];

    rollouts_free(TAKE(r));
    meta_close(TAKE(m));
    meta_store_close(TAKE(store));
    time_test_real();
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK(system(command) == 0);
}

static UNUSED void restart(void)
{
    rollouts_free(TAKE(r));
    CHECK_OK(rollouts_new(m, &r, &e), &e);
}

static str endpoint_alias; /* that the endpoint serves; empty: champion */

static UNUSED int start_as(const char *endpoint, int64_t version, const char *config, str flow)
{
    AUTO(arena_done) struct arena a = {0};
    struct json *tree;
    char id[64];

    CHECK_OK(json_parse(str_of(config), &a, &tree, &e), &e);
    return rollout_start(r, m,
                         &(struct rollout_start){.endpoint = str_of(endpoint),
                                                 .model = S("fraud"),
                                                 .alias = endpoint_alias,
                                                 .version = version,
                                                 .config = tree,
                                                 .actor = S("user:test"),
                                                 .reason = S("because"),
                                                 .flow = flow},
                         id, &e);
}

static UNUSED void start(int64_t version, const char *config)
{
    CHECK_OK(start_as("pay", version, config, STR_NULL), &e);
}

static UNUSED void order(enum rollout_order what)
{
    CHECK_OK(rollout_order(r, m, S("pay"), what, S("user:test"), S("said so"), &e), &e);
}

/* --- Traffic ---------------------------------------------------------------------------------- */

/* A second of it: four digests. failed of 100 requests of version `bad`; 0 = nobody. */
static UNUSED void traffic(int seconds, int64_t bad, uint64_t failed, bool shadow)
{
    static struct latency l[3];
    struct digest_series s[3], *list[3];
    struct digest d = {.series = list, .series_count = 3};

    for (int i = 0; i < 4 * seconds; i++) {
        for (int v = 0; v < 3; v++) {
            static const char *const names[] = {"1", "2", "3"};

            memset(&s[v], 0, sizeof(s[v]));
            latency_clear(&l[v]);
            list[v] = &s[v];
            s[v].endpoint = S("pay");
            s[v].version = str_of(names[v]);
            s[v].shadow = shadow && v > 0;
            s[v].requests = s[v].rows = 100;
            s[v].status[5] = bad == v + 1 ? failed : 0;
            s[v].status[2] = 100 - s[v].status[5];
            for (int k = 0; k < 100; k++)
                latency_record(&l[v], 5000000);
            s[v].latency = &l[v];
        }
        time_test_advance(NS_PER_S / 4);
        CHECK_OK(rollouts_digest(r, m, &d, time_wall_ns(), &e), &e);
        CHECK_OK(rollouts_tick(r, m, time_wall_ns(), &e), &e);
    }
}

static UNUSED void wait_s(int seconds)
{
    for (int i = 0; i < seconds; i++) {
        time_test_advance(NS_PER_S);
        CHECK_OK(rollouts_tick(r, m, time_wall_ns(), &e), &e);
    }
}

/* --- The journal ------------------------------------------------------------------------------ */

static UNUSED int facts(const char *type)
{
    int64_t n = -1;

    CHECK_OK(meta_first_int(m, "SELECT COUNT(*) FROM journal WHERE type = ?",
                            M_ARGS(M_STR(str_of(type))), 0, &n, &e),
             &e);
    return (int)n;
}
