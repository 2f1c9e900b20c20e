/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/time.h"
#include "serve/breaker.h"

static struct breaker b;
static int64_t now;

static void begin(void)
{
    now = 1000 * NS_PER_S;
    breaker_init(&b, NULL);
}

static bool call(enum breaker_verdict verdict)
{
    struct breaker_call c;

    if (!breaker_begin(&b, now, &c, NULL))
        return false;
    breaker_end(&b, &c, verdict, now);
    return true;
}

static void open_it(void)
{
    for (int i = 0; i < 5; i++)
        CHECK(call(BREAKER_FAILURE));
    CHECK_INT(breaker_state_at(&b, now), BREAKER_OPEN);
}

static void opens_after_five_failures_in_a_row(void)
{
    begin();
    for (int i = 0; i < 4; i++)
        CHECK(call(BREAKER_FAILURE));
    CHECK(call(BREAKER_SUCCESS)); /* counting starts anew */
    for (int i = 0; i < 4; i++)
        CHECK(call(BREAKER_FAILURE));
    CHECK(call(BREAKER_NEUTRAL)); /* says nothing */
    CHECK_INT(breaker_state_at(&b, now), BREAKER_CLOSED);
    CHECK(call(BREAKER_FAILURE));
    CHECK_INT(breaker_state_at(&b, now), BREAKER_OPEN);
    CHECK_INT(b.openings, 1);
}

static void open_turns_away_and_says_how_long(void)
{
    struct breaker_call c;
    int64_t retry_ns = 0;

    begin();
    open_it();
    now += 59 * NS_PER_S;
    CHECK(!breaker_begin(&b, now, &c, &retry_ns));
    CHECK_INT(retry_ns, NS_PER_S);
    CHECK_INT(b.rejected, 1);
    CHECK_INT(breaker_state_at(&b, now), BREAKER_OPEN);
    now += NS_PER_S;
    CHECK_INT(breaker_state_at(&b, now), BREAKER_HALF_OPEN);
}

static void half_open_lets_one_through(void)
{
    struct breaker_call trial, other;

    begin();
    open_it();
    now += 60 * NS_PER_S;
    CHECK(breaker_begin(&b, now, &trial, NULL));
    CHECK(!breaker_begin(&b, now, &other, NULL));
    breaker_end(&b, &trial, BREAKER_SUCCESS, now);
    CHECK_INT(breaker_state_at(&b, now), BREAKER_CLOSED);
    CHECK(breaker_begin(&b, now, &trial, NULL));
    CHECK(breaker_begin(&b, now, &other, NULL));
}

static void half_open_failure_opens_for_another_while(void)
{
    begin();
    open_it();
    now += 60 * NS_PER_S;
    CHECK(call(BREAKER_FAILURE));
    CHECK(!call(BREAKER_SUCCESS));
    now += 60 * NS_PER_S - 1;
    CHECK(!call(BREAKER_SUCCESS));
    now += 1;
    CHECK(call(BREAKER_SUCCESS));
    CHECK_INT(breaker_state_at(&b, now), BREAKER_CLOSED);
    CHECK_INT(b.openings, 2);
}

static void verdicts_of_older_calls_are_dropped(void)
{
    struct breaker_call old, trial;

    begin();
    CHECK(breaker_begin(&b, now, &old, NULL));
    open_it();
    breaker_end(&b, &old, BREAKER_SUCCESS, now);
    CHECK_INT(breaker_state_at(&b, now), BREAKER_OPEN);
    now += 60 * NS_PER_S;
    CHECK(breaker_begin(&b, now, &trial, NULL));
    breaker_end(&b, &old, BREAKER_FAILURE, now);
    CHECK_INT(breaker_state_at(&b, now), BREAKER_HALF_OPEN);
    breaker_end(&b, &trial, BREAKER_SUCCESS, now);
    CHECK_INT(breaker_state_at(&b, now), BREAKER_CLOSED);
}

static void a_trial_that_never_ends_blocks_for_a_while_only(void)
{
    struct breaker_call lost, next;

    begin();
    open_it();
    now += 60 * NS_PER_S;
    CHECK(breaker_begin(&b, now, &lost, NULL));
    CHECK(!breaker_begin(&b, now + 59 * NS_PER_S, &next, NULL));
    CHECK(breaker_begin(&b, now + 60 * NS_PER_S, &next, NULL));
    /* A trial without a verdict frees the place at once. */
    breaker_end(&b, &next, BREAKER_NEUTRAL, now);
    CHECK(breaker_begin(&b, now + 60 * NS_PER_S, &next, NULL));
}

static void force_holds_it(void)
{
    begin();
    breaker_force_set(&b, BREAKER_FORCE_OPEN, now);
    now += 3600 * NS_PER_S;
    CHECK(!call(BREAKER_SUCCESS));
    CHECK_INT(breaker_state_at(&b, now), BREAKER_OPEN);
    breaker_force_set(&b, BREAKER_FORCE_CLOSED, now);
    for (int i = 0; i < 100; i++)
        CHECK(call(BREAKER_FAILURE));
    CHECK_INT(breaker_state_at(&b, now), BREAKER_CLOSED);
    breaker_force_set(&b, BREAKER_FORCE_NONE, now);
    open_it();
}

static void config_is_kept(void)
{
    now = 0;
    breaker_init(&b, &(struct breaker_config){.failure_threshold = 2, .recovery_ns = 10});
    CHECK(call(BREAKER_FAILURE));
    CHECK(call(BREAKER_FAILURE));
    CHECK(!call(BREAKER_SUCCESS));
    now = 10;
    CHECK(call(BREAKER_SUCCESS));
    CHECK_STR(str_of(breaker_state_name(BREAKER_HALF_OPEN)), S("half-open"));
}

RUN_TESTS(T(opens_after_five_failures_in_a_row), T(open_turns_away_and_says_how_long),
          T(half_open_lets_one_through), T(half_open_failure_opens_for_another_while),
          T(verdicts_of_older_calls_are_dropped),
          T(a_trial_that_never_ends_blocks_for_a_while_only), T(force_holds_it), T(config_is_kept))
