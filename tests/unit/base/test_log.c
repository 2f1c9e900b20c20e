/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/json.h"
#include "base/log.h"
#include "base/time.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

/* stderr goes through a pipe while a test writes its lines. */
static int saved_stderr, pipes[2];

static bool capture_begin(void)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    if (saved_stderr < 0 || pipe(pipes) < 0)
        return false;
    return fcntl(pipes[1], F_SETPIPE_SZ, 1 << 20) > 0 && dup2(pipes[1], STDERR_FILENO) >= 0;
}

static str capture_end(void)
{
    static char bytes[1 << 20];
    size_t n = 0;
    ssize_t got;

    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipes[1]);
    while ((got = read(pipes[0], bytes + n, sizeof(bytes) - n)) > 0)
        n += (size_t)got;
    close(pipes[0]);
    return (str){bytes, n};
}

static void test_logfmt(void)
{
    NEED(capture_begin());
    time_test_virtual(0, INT64_C(1700000000123000000));
    log_setup(LOG_INFO, LOG_LOGFMT, "gateway");
    log_event(LOG_DEBUG, "not.shown", "a=%d", 1);
    log_event(LOG_INFO, "plan.loaded", "plan=%s n=%zu share=%.1f at=%s:%d", "1f3c", (size_t)5, 0.25,
              "plan.c", 7);
    log_event(LOG_WARN, "odd", "a=\"%s\" b=%s c=%s d=%.*s", "he said \"x\"\nts=0", "two words", "",
              2, "xyz");
    time_test_real();
    CHECK_STR(capture_end(),
              S("ts=2023-11-14T22:13:20.123Z level=info event=plan.loaded process=gateway "
                "plan=1f3c n=5 share=0.2 at=plan.c:7\n"
                "ts=2023-11-14T22:13:20.123Z level=warn event=odd process=gateway "
                "a=\"he said \\\"x\\\"\\nts=0\" b=\"two words\" c=\"\" d=xy\n"));
}

static void test_json(void)
{
    struct err e;

    NEED(capture_begin());
    time_test_virtual(0, 0);
    log_setup(LOG_DEBUG, LOG_JSON, "control");
    log_event(LOG_DEBUG, "x.y",
              "i=%d big=%llu r=%g nan=%g pad=%05d hex=%x s=%s q=\"%s\" c=%c p=%d%%", -3,
              18446744073709551615ull, 0.5, NAN, 42, 255, "a\"b\x01\xFF", "", 'c', 50);
    (void)FAIL(&e, NOT_FOUND, "model 'churn' does not exist");
    log_err("request.failed", &e);
    time_test_real();
    str text = capture_end(), first = str_cut(&text, '\n');

    CHECK_STR(first, S("{\"ts\":\"1970-01-01T00:00:00.000Z\",\"level\":\"debug\",\"event\":\"x.y\","
                       "\"process\":\"control\",\"i\":-3,\"big\":18446744073709551615,\"r\":0.5,"
                       "\"nan\":\"nan\",\"pad\":\"00042\",\"hex\":\"ff\",\"s\":\"a\\\"b\\u0001\xEF"
                       "\xBF\xBD\",\"q\":\"\",\"c\":\"c\",\"p\":\"50%\"}"));
    CHECK(str_find(text, S("\"code\":\"NOT_FOUND\",\"msg\":\"model 'churn' does not exist\",\"at\":"
                           "\"")) > 0);
}

/* Whatever a value holds, a line stays one line, bounded, and valid JSON. */
static void test_hostile_values(void)
{
    static char huge[20000];
    AUTO(arena_done) struct arena a = {0};
    struct json *line;
    struct err e;
    int lines = 0;
    str text;

    memset(huge, '\n', sizeof(huge) - 1);
    NEED(capture_begin());
    log_setup(LOG_DEBUG, LOG_JSON, "w");
    log_event(LOG_INFO, "e", "a=%s b=%s c=%s d=%s e=%s f=%d", huge, huge, huge, huge, "short", 1);
    memset(huge, '\x80', sizeof(huge) - 1);
    log_event(LOG_INFO, "e", "a=%s", huge);
    log_setup(LOG_DEBUG, LOG_LOGFMT, "w");
    log_event(LOG_INFO, "e", "a=%s b=%s c=%s d=%s e=%s f=%d", huge, huge, huge, huge, "short", 1);
    text = capture_end();
    for (; text.n; lines++) {
        str one = str_cut(&text, '\n');

        CHECK(one.n > 100 && one.n < 8192);
        if (lines < 2)
            CHECK_OK(json_parse(one, &a, &line, &e), &e);
        if (lines != 1)
            CHECK(str_find(one, S("truncated")) > 0);
    }
    CHECK_INT(lines, 3);
}

static void *write_lines(void *name)
{
    for (int i = 0; i < 500; i++)
        log_event(LOG_INFO, "t", "who=%s i=%d", (const char *)name, i);
    return NULL;
}

static void test_threads_do_not_mix_lines(void)
{
    pthread_t threads[2];
    int lines = 0;
    str text;

    NEED(capture_begin());
    log_setup(LOG_INFO, LOG_LOGFMT, "w");
    for (int i = 0; i < 2; i++)
        NEED(pthread_create(&threads[i], NULL, write_lines, i ? "bbbb" : "aaaa") == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (text = capture_end(); text.n; lines++) {
        str one = str_cut(&text, '\n');

        NEED(str_starts(one, S("ts=")) && str_find(str_skip(one, 3), S("ts=")) < 0);
    }
    CHECK_INT(lines, 1000);
}

RUN_TESTS(T(test_logfmt), T(test_json), T(test_hostile_values), T(test_threads_do_not_mix_lines))
