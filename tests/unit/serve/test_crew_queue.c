/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which jobs leave the queue of a crew. Many threads on one: test_crew.c. */
#include "check.h"

#include "serve/crew_queue.h"

static struct crew_queue q;
static struct crew_job jobs[PLAN_PRIORITIES * 64];
static uint32_t job_count;

static void begin(void)
{
    memset(&q, 0, sizeof(q));
    memset(jobs, 0, sizeof(jobs));
    job_count = 0;
    crew_queue_init(&q);
}

static void put(uint8_t priority, uint32_t n)
{
    while (n--) {
        jobs[job_count].priority = priority;
        CHECK(crew_queue_put(&q, &jobs[job_count++]));
    }
}

static uint8_t take(void)
{
    struct crew_job *j = crew_queue_take(&q);

    CHECK(j);
    return j ? j->priority : 0;
}

static void test_the_higher_go_first_and_one_of_eight_is_the_lowest(void)
{
    uint32_t counts[PLAN_PRIORITIES + 1] = {0};

    begin();
    put(3, 64), put(2, 64), put(1, 64);
    for (int i = 1; i <= 64; i++) {
        uint8_t got = take();

        CHECK_INT(got, i % CREW_LOW_EVERY ? 1 : 3);
        counts[got]++;
    }
    CHECK_INT(counts[3], 8);
    for (int i = 0; i < 128; i++)
        counts[take()]++;
    for (int priority = 1; priority <= PLAN_PRIORITIES; priority++)
        CHECK_INT(counts[priority], 64);
    CHECK(!crew_queue_take(&q));
    crew_queue_done(&q);
}

static void test_within_one_the_oldest_goes_first(void)
{
    begin();
    put(2, 40);
    for (uint32_t i = 0; i < 40; i++)
        CHECK(crew_queue_take(&q) == &jobs[i]);
    crew_queue_done(&q);
}

static void test_a_full_line_takes_no_more_and_leaves_the_others_room(void)
{
    static struct crew_job low = {.priority = 3};

    begin();
    for (uint32_t i = 0; i < CREW_QUEUE_MAX; i++)
        CHECK(crew_queue_put(&q, &low));
    CHECK(!crew_queue_put(&q, &low));
    put(1, 1), put(2, 1);
    CHECK_INT(take(), 1);
    CHECK_INT(take(), 2);
    CHECK_INT(take(), 3);
    put(3, 1);
    crew_queue_done(&q);
}

RUN_TESTS(T(test_the_higher_go_first_and_one_of_eight_is_the_lowest),
          T(test_within_one_the_oldest_goes_first),
          T(test_a_full_line_takes_no_more_and_leaves_the_others_room))
