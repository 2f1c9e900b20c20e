/* SPDX-License-Identifier: Apache-2.0 */
/* A crew on the identity model: what goes in comes out, each job its own rows, whatever the order.
 */
#include "check.h"

#include "base/files.h"
#include "base/time.h"
#include "loop/thread.h"
#include "serve/crew.h"

#define COLUMNS 3
#define JOBS 3000
#define SENDERS 3

struct bench {
    struct runtime_model *model;
    struct crew *crew;
    struct loop *loop;
    struct mailbox returns;
    uint32_t back, wrong, cancelled, late;
};

struct work {
    struct crew_job job;
    struct arena arena;
    struct tensor input;
    float values[4 * COLUMNS];
};

static void on_return(struct loop *l, struct mailbox *mb, struct mail *m)
{
    struct bench *b = CONTAINER_OF(mb, struct bench, returns);
    struct work *w = CONTAINER_OF(CONTAINER_OF(m, struct crew_job, mail), struct work, job);

    (void)l;
    b->back++;
    b->cancelled += w->job.rc == CODE_CANCELLED;
    b->late += w->job.rc == CODE_DEADLINE_EXCEEDED;
    if (!w->job.rc)
        b->wrong +=
            w->job.outputs[0].shape[0] != w->job.rows ||
            memcmp(w->job.outputs[0].data, w->values, w->job.rows * COLUMNS * sizeof(float)) != 0;
    arena_done(&w->arena);
}

static void begin(struct bench *b, uint32_t workers, uint32_t rows_max)
{
    char folder[] = "/tmp/weir-crew-XXXXXX", path[64];
    struct err e;

    *b = (struct bench){0};
    NEED(check_mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/model", folder);
    NEED_OK(file_replace(path, S("{\"columns\":3}"), &e), &e);
    NEED_OK(runtime_load(S("identity"), path, NULL, &b->model, &e), &e);
    NEED_OK(loop_new(&b->loop, &e), &e);
    mailbox_open(&b->returns, b->loop, on_return);
    NEED_OK(crew_new(b->model, workers, rows_max, &b->crew, &e), &e);
}

static void end(struct bench *b)
{
    crew_free(b->crew);
    mailbox_close(&b->returns);
    loop_free(b->loop);
    runtime_unload(b->model);
}

static void fill(struct bench *b, struct work *w, uint32_t number, int64_t deadline_ns)
{
    *w = (struct work){
        .job.rows = 1 + number % 4, .job.deadline_ns = deadline_ns, .job.priority = 2};
    arena_init(&w->arena, 0);
    for (uint32_t i = 0; i < w->job.rows * COLUMNS; i++)
        w->values[i] = (float)(number * 16 + i);
    w->input = (struct tensor){.spec = &b->model->inputs[0], .data = w->values};
    w->job.reply_to = &b->returns;
    w->job.arena = &w->arena;
    w->job.inputs = &w->input;
}

static void wait_for(struct bench *b, uint32_t n)
{
    int64_t end_ns = time_mono_ns() + 20 * NS_PER_S;

    while (b->back < n && time_mono_ns() < end_ns)
        loop_turn(b->loop, NS_PER_MS);
    CHECK_INT(b->back, n);
}

struct sender {
    struct bench *b;
    struct work *works;
    struct thread thread;
};

static void send(void *arg)
{
    struct sender *s = arg;

    for (uint32_t i = 0; i < JOBS; i++)
        while (!crew_submit(s->b->crew, &s->works[i].job))
            sched_yield();
}

static void test_every_job_comes_back_with_its_own_rows(void)
{
    static struct work works[SENDERS][JOBS];
    struct sender senders[SENDERS];
    struct bench b;
    struct crew_stats stats;
    struct err e;

    begin(&b, 3, 16);
    for (int s = 0; s < SENDERS; s++) {
        senders[s] = (struct sender){.b = &b, .works = works[s]};
        for (uint32_t i = 0; i < JOBS; i++)
            fill(&b, &works[s][i], i, INT64_MAX);
        NEED_OK(thread_start(&senders[s].thread, "sender", THREAD_ANY_CPU, send, &senders[s], &e),
                &e);
    }
    wait_for(&b, SENDERS * JOBS);
    for (int s = 0; s < SENDERS; s++)
        thread_join(&senders[s].thread);
    CHECK_INT(b.wrong, 0);
    CHECK_INT(b.cancelled + b.late, 0);
    crew_stats(b.crew, &stats);
    CHECK_INT(stats.workers, 3);
    CHECK_INT(stats.waiting_rows, 0);
    CHECK_INT(stats.jobs, 0);
    CHECK(stats.limit >= 4);
    CHECK_INT(crew_wait_ns(b.crew, 3), 0);
    end(&b);
}

static void test_late_and_abandoned_jobs_are_not_run(void)
{
    static struct work works[40];
    struct bench b;

    begin(&b, 1, 64);
    for (uint32_t i = 0; i < ARRAY_LEN(works); i++) {
        fill(&b, &works[i], i, i % 2 ? 1 : INT64_MAX);
        NEED(crew_submit(b.crew, &works[i].job));
    }
    wait_for(&b, ARRAY_LEN(works));
    CHECK_INT(b.late, ARRAY_LEN(works) / 2);
    CHECK_INT(b.wrong, 0);
    fill(&b, &works[0], 1, INT64_MAX);
    NEED(crew_submit(b.crew, &works[0].job));
    crew_abandon(b.crew, &works[0].job); /* it may have run by now: then it is right */
    crew_abandon(b.crew, &works[0].job);
    wait_for(&b, ARRAY_LEN(works) + 1);
    CHECK_INT(b.wrong, 0);
    CHECK_INT(crew_wait_ns(b.crew, 3), 0);
    end(&b);
}

static void test_a_crew_that_stops_gives_everything_back(void)
{
    static struct work works[CREW_QUEUE_MAX + 200];
    uint32_t sent = 0;
    struct bench b;

    begin(&b, 2, 4);
    for (uint32_t i = 0; i < ARRAY_LEN(works); i++) {
        fill(&b, &works[i], i, INT64_MAX);
        if (!crew_submit(b.crew, &works[i].job)) {
            arena_done(&works[i].arena);
            break;
        }
        sent++;
    }
    crew_stop(b.crew);
    crew_stop(b.crew);
    wait_for(&b, sent);
    CHECK_INT(b.wrong, 0);
    end(&b);
}

RUN_TESTS(T(test_every_job_comes_back_with_its_own_rows),
          T(test_late_and_abandoned_jobs_are_not_run),
          T(test_a_crew_that_stops_gives_everything_back))
