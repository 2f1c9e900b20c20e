/* SPDX-License-Identifier: Apache-2.0 */
/* The judge alone, on drawn traffic: what it promises about equals, and what it finds. */
#include "rollout/priv.h"

#include "base/random.h"
#include "check.h"

static struct rng rng;
static struct evidence ev;
static struct judgement j;

static struct rollout_config config(void)
{
    struct rollout_config c = {.error_rate = NAN,
                               .error_ratio = NAN,
                               .p99_ns = NAN,
                               .p99_ratio = NAN,
                               .output_shift = NAN,
                               .label_error = NAN,
                               .shadow_agreement = NAN,
                               .alpha = 0.05};

    c.steps[0] = (struct rollout_step){1000, 1, 100};
    c.step_count = 1;
    return c;
}

static uint64_t binomial(uint64_t n, double p)
{
    uint64_t k = 0;

    for (uint64_t i = 0; i < n; i++)
        k += rng_uniform(&rng) < p;
    return k;
}

struct side {
    const char *version;
    uint64_t requests;
    double failure, wrong; /* wrong < 0: no labels */
    uint64_t fast_ns;
    double slow; /* share that takes ten times as long */
};

static void fill(struct digest_series *s, struct latency *l, const struct side *from)
{
    memset(s, 0, sizeof(*s));
    latency_clear(l);
    s->endpoint = S("pay");
    s->version = str_of(from->version);
    s->requests = s->rows = from->requests;
    s->status[5] = binomial(from->requests, from->failure);
    s->status[2] = from->requests - s->status[5];
    for (uint64_t i = 0; i < from->requests; i++)
        latency_record(l, from->fast_ns * (rng_uniform(&rng) < from->slow ? 10 : 1));
    s->latency = l;
    if (from->wrong >= 0) {
        s->labels.joined = (int64_t)from->requests;
        s->labels.errors = (int64_t)binomial(from->requests, from->wrong);
    }
}

/* Digests until a verdict of harm; true when it came. */
static bool harmed(const struct rollout_config *cfg, const struct side *a, const struct side *b,
                   int digests)
{
    static struct digest_series s[2];
    static struct latency l[2];
    struct digest_series *list[2] = {&s[0], &s[1]};
    const struct digest d = {.series = list, .series_count = 2};
    const struct output_pairs none = {0};
    const struct evidence_scope sc = {S("pay"), S("1"), S("2"), false, cfg, &none};

    evidence_reset(&ev, cfg);
    for (int i = 0; i < digests; i++) {
        fill(&s[0], &l[0], a);
        fill(&s[1], &l[1], b);
        evidence_fold(&ev, &sc, &d);
        evidence_judge(&ev, &sc, 100, &j);
        if (j.verdict == VERDICT_FAIL)
            return true;
    }
    return false;
}

/* Two equal versions, judged after every digest, with all guards on and the limits exactly met. */
static void test_equals_are_taken_back_rarely(void)
{
    struct rollout_config c = config();
    const struct side a = {"1", 90, 0.01, 0.1, 1000000, 0.01},
                      b = {"2", 30, 0.01, 0.1, 1000000, 0.01};
    int back = 0;

    c.error_rate = 0.01;
    c.error_ratio = 1;
    c.p99_ns = 5e6;
    c.label_error = 0;
    rng_seed(&rng, 11);
    for (int run = 0; run < 2000; run++)
        back += harmed(&c, &a, &b, 60);
    CHECK(back <= 100); /* alpha of 2,000, over both phases of this ladder */
}

static void test_failures(void)
{
    struct rollout_config c = config();
    const struct side a = {"1", 900, 0.001, -1, 1000000, 0};
    struct side b = {"2", 100, 0.3, -1, 1000000, 0};

    c.error_rate = 0.01;
    rng_seed(&rng, 12);
    CHECK(harmed(&c, &a, &b, 1)); /* one digest */
    CHECK(strstr(j.reason, "error_rate"));
    b.requests = 20; /* all of them fail, but 20 are no sample yet */
    b.failure = 1;
    CHECK(!harmed(&c, &a, &b, 1));
    CHECK_INT(j.verdict, VERDICT_INSUFFICIENT_EVIDENCE);
    CHECK(harmed(&c, &a, &b, 2));
}

/* One failure in 100 where the champion has one in 2,000: no absolute limit sees it. */
static void test_sparse_failures(void)
{
    struct rollout_config c = config();
    const struct side a = {"1", 900, 0.0005, -1, 1000000, 0}, b = {"2", 100, 0.01, -1, 1000000, 0};

    c.error_rate = 0.02;
    c.error_ratio = 1.5;
    rng_seed(&rng, 13);
    CHECK(harmed(&c, &a, &b, 60));
    CHECK(strstr(j.reason, "error_ratio"));
}

static void test_slow(void)
{
    struct rollout_config c = config();
    const struct side a = {"1", 900, 0, -1, 20000000, 0};
    struct side b = {"2", 100, 0, -1, 20000000, 0.05};

    c.p99_ns = 150e6;
    rng_seed(&rng, 14);
    CHECK(harmed(&c, &a, &b, 10)); /* the median is the same: only the tail is worse */
    CHECK(strstr(j.reason, "p99"));
    c.p99_ns = 250e6;
    c.p99_ratio = 1.2;
    CHECK(!harmed(&c, &a, &b, 10)); /* a ratio of estimates only makes wait */
    CHECK_INT(j.verdict, VERDICT_INCONCLUSIVE);
}

static void test_worse_labels(void)
{
    struct rollout_config c = config();
    const struct side a = {"1", 900, 0, 0.05, 1000000, 0};
    struct side b = {"2", 100, 0, 0.15, 1000000, 0};

    c.label_error = 0.01;
    rng_seed(&rng, 15);
    CHECK(harmed(&c, &a, &b, 20));
    CHECK(strstr(j.reason, "labels"));
    b.wrong = 0.05;
    CHECK(!harmed(&c, &a, &b, 20));
    CHECK_INT(j.guards[GUARD_LABELS], VERDICT_PASS);
    c.label_error = 0.2; /* worse for certain, but that much is allowed */
    b.wrong = 0.15;
    CHECK(!harmed(&c, &a, &b, 20));
    CHECK_INT(j.verdict, VERDICT_PASS);
}

static void test_nothing_is_no_pass(void)
{
    struct rollout_config c = config();
    const struct output_pairs none = {.why = "because"};
    const struct evidence_scope sc = {S("pay"), S("1"), S("2"), false, &c, &none};
    const struct side a = {"1", 900, 0, -1, 1000000, 0}, b = {"2", 100, 0, -1, 1000000, 0};

    evidence_reset(&ev, &c);
    evidence_judge(&ev, &sc, 0, &j);
    CHECK_INT(j.verdict, VERDICT_INSUFFICIENT_EVIDENCE); /* no guard, no demand, no traffic */
    c.error_rate = c.label_error = c.output_shift = 0.01;
    rng_seed(&rng, 16);
    CHECK(!harmed(&c, &a, &b, 3));
    CHECK_INT(j.guards[GUARD_LABELS], VERDICT_INSUFFICIENT_EVIDENCE);
    CHECK_INT(j.guards[GUARD_OUTPUT_SHIFT], VERDICT_INSUFFICIENT_EVIDENCE);
    CHECK_INT(j.verdict, VERDICT_PASS);
    evidence_judge(&ev, &sc, 100, &j);
    CHECK(strstr(j.reason, "not known: output_shift (because), labels"));
}

/* Paired answers: the challenger is wrong where the champion is right. */
static void test_shadow_pairs(void)
{
    struct rollout_config c = config();
    const struct output_pairs none = {0};
    const struct evidence_scope sc = {S("pay"), S("1"), S("2"), true, &c, &none};
    struct digest_series s = {.endpoint = S("pay"), .version = S("2"), .shadow = true}, *list = &s;
    const struct digest d = {.series = &list, .series_count = 1};

    c.shadow_ns = 1;
    c.label_error = 0.01;
    c.shadow_agreement = 0.9;
    s.requests = s.rows = s.status[2] = 100;
    s.paired = (struct digest_paired){.compared = 100, .agreed = 97, .outcome = {{4, 1}, {1, 94}}};
    evidence_reset(&ev, &c);
    for (int i = 0; i < 20; i++)
        evidence_fold(&ev, &sc, &d);
    evidence_judge(&ev, &sc, 100, &j);
    CHECK_INT(j.verdict, VERDICT_PASS);
    s.paired.outcome[1][0] = 15, s.paired.outcome[1][1] = 80;
    for (int i = 0; i < 20; i++)
        evidence_fold(&ev, &sc, &d);
    evidence_judge(&ev, &sc, 100, &j);
    CHECK_INT(j.guards[GUARD_LABELS], VERDICT_FAIL);
    evidence_reset(&ev, &c);
    s.paired = (struct digest_paired){.compared = 100, .agreed = 70};
    s.paired.outcome[1][0] = -5; /* corrections */
    for (int i = 0; i < 10; i++)
        evidence_fold(&ev, &sc, &d);
    evidence_judge(&ev, &sc, 100, &j);
    CHECK_INT(j.guards[GUARD_AGREEMENT], VERDICT_FAIL);
    CHECK_INT(ev.paired.n, 0);
}

/* Delayed labels of the shadow phase are not those of the step, and corrections are no errors. */
static void test_labels_of_other_times(void)
{
    struct rollout_config c = config();
    const struct output_pairs none = {0};
    const struct evidence_scope sc = {S("pay"), S("1"), S("2"), false, &c, &none};
    struct digest_series s[3] = {{.endpoint = S("pay"), .version = S("1")},
                                 {.endpoint = S("pay"), .version = S("2")},
                                 {.endpoint = S("pay"), .version = S("2"), .shadow = true}};
    struct digest_series *list[3] = {&s[0], &s[1], &s[2]};
    const struct digest d = {.series = list, .series_count = 3};

    c.label_error = 0.01;
    s[0].labels.joined = s[1].labels.joined = 100;
    s[0].labels.errors = s[1].labels.errors = 5;
    s[2].labels.errors = 500;
    s[1].labels.corrected = 40;
    s[1].labels.errors += 40;
    s[0].requests = s[0].rows = s[1].requests = s[1].rows = 100;
    s[0].status[4] = 500; /* more than requests: nonsense, and no crash */
    evidence_reset(&ev, &c);
    for (int i = 0; i < 20; i++)
        evidence_fold(&ev, &sc, &d);
    s[0].labels.errors = s[1].labels.errors = -30;
    evidence_fold(&ev, &sc, &d);
    evidence_judge(&ev, &sc, 100, &j);
    CHECK(j.guards[GUARD_LABELS] != VERDICT_FAIL);
    CHECK_INT(ev.challenger.requests, 2100);
}

static void test_output_shift(void)
{
    struct rollout_config c = config();
    const struct output_pairs pairs = {.count = 1, .pair = {{{0, 0}, 4}}};
    const struct evidence_scope sc = {S("pay"), S("1"), S("2"), false, &c, &pairs};
    struct cells cells[2];
    struct digest_series s[2] = {{.endpoint = S("pay"), .version = S("1")},
                                 {.endpoint = S("pay"), .version = S("2")}};
    struct digest_series *list[2] = {&s[0], &s[1]};
    const struct digest d = {.series = list, .series_count = 2};
    int back = 0;

    c.output_shift = 0.02;
    rng_seed(&rng, 17);
    for (int moved = 0; moved < 2; moved++)
        for (int run = 0; run < (moved ? 1 : 100); run++) {
            evidence_reset(&ev, &c);
            for (int i = 0; i < 40; i++) {
                for (int arm = 0; arm < 2; arm++) {
                    cells_clear(&cells[arm]);
                    cells[arm].counts[1] = binomial(100, moved && arm ? 0.3 : 0.1);
                    cells[arm].counts[0] = 100 - cells[arm].counts[1];
                    s[arm].cells = &cells[arm];
                    s[arm].column_count = 1;
                    s[arm].requests = s[arm].rows = 100;
                }
                evidence_fold(&ev, &sc, &d);
            }
            evidence_judge(&ev, &sc, 100, &j);
            back += !moved && j.verdict == VERDICT_FAIL;
        }
    CHECK(back <= 5);
    CHECK_INT(j.guards[GUARD_OUTPUT_SHIFT], VERDICT_FAIL);
}

RUN_TESTS(T(test_equals_are_taken_back_rarely), T(test_failures), T(test_sparse_failures),
          T(test_slow), T(test_worse_labels), T(test_nothing_is_no_pass), T(test_shadow_pairs),
          T(test_labels_of_other_times), T(test_output_shift))
