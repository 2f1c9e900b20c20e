/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: what is read, what is refused, and that growing an arm never moves a key back. */
#include "check.h"

#include "base/files.h"
#include "base/random.h"
#include "plan/plan.h"

#include <unistd.h>

#define SIGNATURE                                                                \
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],"     \
    "\"outputs\":[{\"name\":\"label\",\"datatype\":\"INT64\",\"shape\":[-1]},"   \
    "{\"name\":\"p\",\"datatype\":\"FP32\",\"shape\":[-1,2]}],"                  \
    "\"columns\":[{\"name\":\"a\",\"type\":\"float\",\"input\":0,\"element\":0," \
    "\"min\":null,\"max\":9},{\"name\":\"b\",\"type\":\"float\",\"input\":0,"    \
    "\"element\":1,\"required\":false,\"default\":3}],"                          \
    "\"reading\":{\"label\":0,\"probabilities\":1,\"classes\":[\"0\",\"1\"],"    \
    "\"positive\":1,\"threshold\":0.5}}"
#define VERSIONS                                                                      \
    "[{\"version\":1,\"weight\":9000,\"arm\":\"champion\",\"platform\":\"identity\"," \
    "\"artifact\":\"aa\"},{\"version\":2,\"weight\":1000,\"arm\":\"challenger\","     \
    "\"platform\":\"identity\",\"artifact\":\"bb\"},{\"version\":3,\"weight\":0,"     \
    "\"shadow\":true,\"arm\":\"shadow\",\"platform\":\"identity\",\"artifact\":\"cc\"}]"
#define LIMITS "\"timeout_ns\":1000000,\"body_bytes_max\":1000,\"rows_max\":10,\"inflight_max\":5"
#define PART                                                                             \
    "{\"format\":1,\"name\":\"fraud\",\"model\":\"m\"," LIMITS ",\"versions\":" VERSIONS \
    ",\"signature\":" SIGNATURE "}"

static struct arena a;
static char folder[] = "/tmp/weir-plan-XXXXXX";

/* `text` with the first `from` replaced by `to`. */
static str swapped(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);

    if (!CHECK(at != NULL))
        return STR_NULL;
    return arena_printf(&a, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static int read_part(str text, struct plan_endpoint *ret, struct err *e)
{
    struct json *part;

    TRY(json_parse(text, &a, &part, e));
    return plan_endpoint_read(part, S("hash"), &a, ret, e);
}

static int read_signature(str text, struct plan_signature *ret, struct err *e)
{
    struct json *root;

    TRY(json_parse(text, &a, &root, e));
    return plan_signature_read(root, &a, ret, e);
}

static void test_part_is_read(void)
{
    struct plan_endpoint ep;
    struct err e;

    NEED_OK(read_part(S(PART), &ep, &e), &e);
    CHECK_STR(ep.name, S("fraud"));
    CHECK_STR(ep.salt, S("fraud")); /* the default */
    CHECK_INT(ep.version_count, 3);
    CHECK_INT(ep.versions[1].weight, 1000);
    CHECK(ep.versions[2].shadow && !ep.durable_log);
    CHECK_INT(ep.signature.reading.positive, 1);
    CHECK(!ep.signature.columns[0].has_min && ep.signature.columns[0].has_max);
    CHECK(ep.signature.columns[0].required && !ep.signature.columns[1].required);
    CHECK_NEAR(ep.signature.columns[1].default_num, 3, 0);
}

static void test_parts_refused(void)
{
    static const struct {
        const char *from, *to, *why;
    } cases[] = {
        {"\"format\":1", "\"format\":2", "format 2"},
        {"\"name\":\"fraud\"", "\"name\":\"a/b\"", "not a name"},
        {"\"name\":\"fraud\",", "", "name"},
        {"\"model\":\"m\",", "", "model"},
        {"\"timeout_ns\":1000000", "\"timeout_ns\":0", "timeout_ns"},
        {"\"timeout_ns\":1000000", "\"timeout_ns\":9223372036854775807", "timeout_ns"},
        {"\"body_bytes_max\":1000", "\"body_bytes_max\":-1", "body_bytes_max"},
        {"\"rows_max\":10", "\"rows_max\":65537", "rows_max"},
        {"\"inflight_max\":5", "\"inflight_max\":\"5\"", "inflight_max"},
        {"\"inflight_max\":5", "\"inflight_max\":5,\"queue\":{\"limit\":-1}", "limit -1"},
        {"\"inflight_max\":5", "\"inflight_max\":5,\"queue\":{\"limit_min\":0}", "limit_min 0"},
        {"\"inflight_max\":5", "\"inflight_max\":5,\"queue\":{\"priority\":4}", "priority is 4"},
        {"\"weight\":9000", "\"weight\":9001", "sum to 10001"},
        {"\"weight\":9000", "\"weight\":-1", "weight -1"},
        {"\"version\":2", "\"version\":1", "stands twice"},
        {"\"version\":2", "\"version\":0", "version"},
        {"\"arm\":\"challenger\"", "\"arm\":\"a\\\"b\"", "not a name"},
        {"\"weight\":0,", "\"weight\":5,", "shadow version 3"},
        {"\"weight\":1000,", "\"weight\":0,\"shadow\":true,", "2 shadow"},
        {"\"signature\"", "\"signatures\"", "signature"},
        {"\"versions\":[", "\"versions\":[7,", "version"},
    };
    struct plan_endpoint ep;
    struct err e;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int rc = read_part(swapped(PART, cases[i].from, cases[i].to), &ep, &e);

        if (!CHECK(rc && strstr(e.msg, cases[i].why)))
            fprintf(stderr, "    case %zu: %s\n", i, rc ? e.msg : "was accepted");
    }
}

static void test_signatures_refused(void)
{
    static const struct {
        const char *from, *to, *why;
    } cases[] = {
        {"\"FP32\"", "\"FP31\"", "unknown datatype"},
        {"[-1,2]", "[-2,2]", "dimension"},
        {"[-1,2]", "[-1,1,1,1,1,1,1,1,2]", "9 dimensions"},
        {"\"inputs\":[", "\"inputs\":[],\"x\":[", "0 inputs"},
        {"\"name\":\"p\"", "\"name\":\"label\"", "stands twice"},
        {"\"element\":1", "\"element\":2", "outside"},
        {"\"input\":0", "\"input\":1", "outside"},
        {"\"type\":\"float\"", "\"type\":\"real\"", "column type"},
        {"\"max\":9", "\"max\":\"9\"", "max is not a number"},
        {"\"default\":3", "\"default\":[3]", "default"},
        {"\"max\":9", "\"categories\":[1]", "categories[0]"},
        {"\"label\":0", "\"label\":2", "reading.label"},
        {"\"label\":0", "\"label\":1", "expected 1"},
        {"\"probabilities\":1", "\"probabilities\":-2", "reading.probabilities"},
        {"\"probabilities\":1", "\"probabilities\":0", "does not hold 2"},
        {"\"positive\":1", "\"positive\":2", "reading.positive"},
        {"\"classes\":[\"0\"", "\"classes\":[0", "classes[0]"},
    };
    struct plan_signature sig;
    struct err e;

    NEED_OK(read_signature(S(SIGNATURE), &sig, &e), &e);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int rc = read_signature(swapped(SIGNATURE, cases[i].from, cases[i].to), &sig, &e);

        if (!CHECK(rc && strstr(e.msg, cases[i].why)))
            fprintf(stderr, "    case %zu: %s\n", i, rc ? e.msg : "was accepted");
    }
}

static void put(struct blobs *b, str text, char hash[PLAN_HASH_SIZE])
{
    struct json *part;
    struct err e;

    NEED_OK(json_parse(text, &a, &part, &e), &e);
    CHECK_OK(plan_part_put(b, part, hash, &e), &e);
}

static void test_load(void)
{
    AUTO(blobs_closep) struct blobs *b = NULL;
    char part[PLAN_HASH_SIZE], root[PLAN_HASH_SIZE], other[PLAN_HASH_SIZE], got[PLAN_HASH_SIZE];
    struct plan *plan;
    struct err e;

    NEED_OK(blobs_open(path_join(&a, folder, "blobs"), &b, &e), &e);
    put(b, S(PART), part);
    put(b,
        arena_printf(&a, "{\"format\":1,\"project\":\"p\",\"endpoints\":{\"fraud\":\"%s\"}}", part),
        root);
    NEED_OK(plan_load(b, str_of(root), &a, &plan, &e), &e);
    CHECK_INT(plan->endpoint_count, 1);
    CHECK_STR(plan->endpoints[0].hash, str_of(part));
    CHECK_STR(str_of(plan->hash), str_of(root));
    NEED_OK(plan_root_load(b, str_of(root), &a, &plan, &e), &e);
    CHECK_STR(plan->endpoints[0].name, S("fraud"));
    CHECK_INT(plan->endpoints[0].version_count, 0); /* not read yet */

    put(b,
        arena_printf(&a, "{\"format\":1,\"project\":\"p\",\"endpoints\":{\"other\":\"%s\"}}", part),
        other);
    CHECK_FAILS(plan_load(b, str_of(other), &a, &plan, &e), INVALID_ARGUMENT, &e, "its part");
    put(b, S("{\"format\":1,\"project\":\"p\",\"endpoints\":{\"x\":\"../../etc/passwd\"}}"), other);
    CHECK_FAILS(plan_load(b, str_of(other), &a, &plan, &e), INVALID_ARGUMENT, &e, "'x'");
    put(b, S("{\"format\":1,\"project\":\"p\"}"), other);
    CHECK(plan_load(b, str_of(other), &a, &plan, &e) && strstr(e.msg, "endpoints"));
    CHECK(plan_load(b, S("short"), &a, &plan, &e) != 0);

    CHECK_FAILS(plan_good_read(folder, got, &e), NOT_FOUND, &e, "good");
    NEED_OK(plan_current_write(folder, str_of(root), &e), &e);
    NEED_OK(plan_current_read(folder, got, &e), &e);
    CHECK_STR(str_of(got), str_of(root));
    NEED_OK(plan_good_write(folder, S("nonsense"), &e), &e);
    CHECK_FAILS(plan_good_read(folder, got, &e), DATA_LOSS, &e, "plan hash");
}

/* Every key is on one arm; growing the weight of one arm moves no key off it. */
static void test_route_is_monotone(void)
{
    struct rng r;

    rng_seed(&r, 7);
    for (int round = 0; round < 300; round++) {
        struct plan_endpoint ep = {.version_count = 2 + rng_below(&r, 3)};
        size_t grown = 1 + rng_below(&r, ep.version_count - 1);
        struct plan_endpoint after;
        uint32_t left = PLAN_WEIGHT_ONE, more;

        for (size_t i = 1; i < ep.version_count; i++) {
            ep.versions[i].weight = (uint32_t)rng_below(&r, left);
            left -= ep.versions[i].weight;
        }
        ep.versions[0].weight = left;
        after = ep;
        more = (uint32_t)rng_below(&r, left);
        after.versions[grown].weight += more;
        after.versions[0].weight -= more;
        uint32_t counts[PLAN_VERSIONS_MAX] = {0};

        for (uint32_t point = 0; point < PLAN_WEIGHT_ONE; point++) {
            size_t was = (size_t)(plan_route(&ep, point) - ep.versions);
            size_t now = (size_t)(plan_route(&after, point) - after.versions);

            counts[was]++;
            if (was == grown)
                CHECK(now == grown);
            else if (was != 0)
                CHECK(now != 0); /* nobody falls back to the champion */
        }
        for (size_t i = 0; i < ep.version_count; i++)
            CHECK_INT(counts[i], ep.versions[i].weight);
    }
}

static void test_route_at_the_ends(void)
{
    struct plan_endpoint ep = {.version_count = 2};

    CHECK(plan_route(&ep, 0) == NULL);
    ep.versions[1].weight = PLAN_WEIGHT_ONE;
    CHECK(plan_route(&ep, 0) == &ep.versions[1] && plan_route(&ep, 9999) == &ep.versions[1]);
}

static const struct check_test tests[] = {T(test_part_is_read),       T(test_parts_refused),
                                          T(test_signatures_refused), T(test_load),
                                          T(test_route_is_monotone),  T(test_route_at_the_ends)};

int main(int argc, char **argv)
{
    int rc;

    arena_init(&a, 0);
    if (!check_mkdtemp(folder))
        return EXIT_FAILURE;
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    arena_done(&a);
    return rc;
}
