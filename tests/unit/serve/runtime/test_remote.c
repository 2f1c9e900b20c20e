/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote runtime against a server that does what a script says, a letter for each request:
 *
 *   o answers well    k the same, and closes     b the same, in binary
 *   c closes at once  m closes in the middle     n speaks nonsense         t says nothing
 *   4 says 400        u says 401                 5 says 503                6 says 500
 *   w answers with other shapes                  l announces too much      r 503, Retry-After: 1
 */
#include "check.h"

#include "base/files.h"
#include "base/time.h"
#include "loop/thread.h"
#include "serve/runtime/adopt.h"
#include "serve/runtime/runtime.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

static char folder[] = "/tmp/weir-remote-XXXXXX";
static struct arena a;
static struct err e;

/* --- The server ------------------------------------------------------------------------------- */

static int listener = -1;
static uint16_t port;
static char script[256];
static atomic_uint script_at, connections;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char last_head[4096]; /* under mutex */
static struct thread threads[64];
static atomic_uint thread_count;

static const char GOOD[] = "{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1],"
                           "\"data\":[7]}]}";

static void say(int fd, const char *status, const char *extra, const char *body)
{
    char text[1024];
    int n = snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                     strlen(body), extra, body);

    (void)!send(fd, text, (size_t)n, MSG_NOSIGNAL);
}

/* False when the connection is to be closed. */
static bool act(int fd, char what)
{
    static const char json[] = "{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":"
                               "[1],\"parameters\":{\"binary_data_size\":4}}]}";
    static const float seven = 7;
    char head[300];
    int n;

    switch (what) {
    case 'o':
        say(fd, "200 OK", "", GOOD);
        return true;
    case 'k':
        say(fd, "200 OK", "Connection: close\r\n", GOOD);
        return false;
    case 'b':
        n = snprintf(head, sizeof(head),
                     "HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %zu\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     sizeof(json) - 1, sizeof(json) + 3, json);
        (void)!send(fd, head, (size_t)n, MSG_NOSIGNAL);
        (void)!send(fd, &seven, sizeof(seven), MSG_NOSIGNAL);
        return true;
    case 'm':
        (void)!send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"out", 44, MSG_NOSIGNAL);
        return false;
    case 'n':
        (void)!send(fd, "SSH-2.0-nonsense\r\n\r\n", 20, MSG_NOSIGNAL);
        return false;
    case 't':
        usleep(700000);
        return false;
    case '4':
        say(fd, "400 Bad Request", "", "{\"error\":\"x is wrong\"}");
        return true;
    case 'u':
        say(fd, "401 Unauthorized", "", "{\"error\":\"who are you\"}");
        return true;
    case '5':
        say(fd, "503 Service Unavailable", "", "{\"error\":\"loading\"}");
        return true;
    case 'r':
        say(fd, "503 Service Unavailable", "Retry-After: 1\r\n", "{\"error\":\"loading\"}");
        return true;
    case '6':
        say(fd, "500 Internal Server Error", "", "{\"error\":\"secret path\"}");
        return true;
    case 'w':
        say(fd, "200 OK", "",
            "{\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[7]}]}");
        return true;
    case 'l':
        (void)!send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", 49, MSG_NOSIGNAL);
        return false;
    default:
        return false;
    }
}

/* Reads one request; false at the end of the stream. */
static bool request_read(int fd, char *text, size_t size)
{
    size_t n = 0, need = 0;

    for (;;) {
        ssize_t got = recv(fd, text + n, size - 1 - n, 0);
        const char *end, *length;

        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
        end = strstr(text, "\r\n\r\n");
        if (!end)
            continue;
        length = strcasestr(text, "\ncontent-length: ");
        need = (size_t)(end - text) + 4 + (length ? strtoul(length + 17, NULL, 10) : 0);
        if (n >= need)
            return true;
    }
}

static void serve_one(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char text[8192];

    while (request_read(fd, text, sizeof(text))) {
        pthread_mutex_lock(&mutex);
        snprintf(last_head, sizeof(last_head), "%.4000s", text);
        pthread_mutex_unlock(&mutex);
        if (!act(fd, script[atomic_fetch_add(&script_at, 1)]))
            break;
    }
    close(fd);
}

/* The last request held this text. */
static bool asked_with(const char *part)
{
    bool holds;

    pthread_mutex_lock(&mutex);
    holds = strstr(last_head, part) != NULL;
    pthread_mutex_unlock(&mutex);
    return holds;
}

static void serve_all(void *arg)
{
    (void)arg;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        unsigned i;

        if (fd < 0)
            return;
        atomic_fetch_add(&connections, 1);
        i = atomic_fetch_add(&thread_count, 1);
        if (i >= ARRAY_LEN(threads) ||
            thread_start(&threads[i], "conn", THREAD_ANY_CPU, serve_one, (void *)(intptr_t)fd, &e))
            abort();
    }
}

static void play(const char *letters)
{
    snprintf(script, sizeof(script), "%s", letters);
    atomic_store(&script_at, 0);
    atomic_store(&connections, 0);
}

/* --- The model -------------------------------------------------------------------------------- */

#define SPECS                                                               \
    "\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]}]," \
    "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1]}]"

static struct runtime_model *model;
static struct runtime_slot *slot;

static void end(void)
{
    runtime_slot_free(slot);
    runtime_unload(model);
    slot = NULL;
    model = NULL;
}

static bool begin(const char *letters, const char *more)
{
    const char *path = path_join(&a, folder, "artifact");
    str text =
        arena_printf(&a,
                     "{\"kind\":\"remote\",\"url\":\"http://127.0.0.1:%u/base\",\"model\":\"m\","
                     "\"backoff\":\"5ms\"," SPECS "%s}",
                     port, more);

    end();
    play(letters);
    return CHECK_OK(file_replace(path, text, &e), &e) &&
           CHECK_OK(runtime_load(S("remote"), path, NULL, &model, &e), &e) &&
           CHECK_OK(runtime_slot_new(model, 8, 0, &slot, &e), &e);
}

static int run(int64_t ms)
{
    ((float *)slot->inputs[0].data)[0] = 1;
    return runtime_run(slot, 1, time_mono_ns() + ms * NS_PER_MS, &e);
}

#define PRIVATE ",\"allow_private\":true"

static void one_connection_is_kept(void)
{
    NEED(begin("oooooo", PRIVATE));
    for (int i = 0; i < 6; i++) {
        CHECK_OK(run(2000), &e);
        CHECK(((float *)slot->outputs[0].data)[0] == 7);
    }
    CHECK_INT(connections, 1);
    CHECK(asked_with("POST /base/v2/models/m/infer HTTP/1.1\r\n"));
    CHECK(asked_with("{\"inputs\":[{\"name\":\"x\""));
}

static void a_connection_closed_meanwhile_is_made_anew(void)
{
    NEED(begin("okokok", PRIVATE));
    for (int i = 0; i < 6; i++)
        CHECK_OK(run(2000), &e);
    CHECK_INT(connections, 3);
}

static void binary_goes_both_ways(void)
{
    NEED(begin("b", PRIVATE ",\"binary\":true"));
    CHECK_OK(run(2000), &e);
    CHECK(((float *)slot->outputs[0].data)[0] == 7);
    CHECK(asked_with("Inference-Header-Content-Length: "));
}

static void safe_failures_are_tried_again(void)
{
    struct runtime_stat stat;

    NEED(begin("c5o", PRIVATE));
    CHECK_OK(run(2000), &e);
    runtime_stat(model, &stat);
    CHECK_INT(stat.retries, 2);
    CHECK_STR(str_of(stat.breaker), S("closed"));
    NEED(begin("555o", PRIVATE)); /* two retries and no more */
    CHECK_FAILS(run(2000), UNAVAILABLE, &e, "loading");
    CHECK_INT(script_at, 3);
    NEED(begin("ro", PRIVATE)); /* it asks for more patience than there is */
    CHECK_FAILS(run(500), UNAVAILABLE, &e, "loading");
    CHECK_INT(script_at, 1);
    NEED(begin("ro", PRIVATE));
    CHECK_OK(run(3000), &e);
}

static void others_are_not(void)
{
    static const struct {
        const char *letter;
        enum code code;
        const char *says;
    } bad[] = {
        {"mo", CODE_UNAVAILABLE, "cannot be reached"}, {"no", CODE_INTERNAL, "no usable answer"},
        {"4o", CODE_INVALID_ARGUMENT, "x is wrong"},   {"6o", CODE_INTERNAL, "status 500"},
        {"uo", CODE_UNAVAILABLE, "status 401"},        {"wo", CODE_INTERNAL, "shape [1,1]"},
        {"lo", CODE_RESOURCE_EXHAUSTED, "larger"},
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        NEED(begin(bad[i].letter, PRIVATE));
        CHECK(check_fails(run(2000), bad[i].code, &e, bad[i].says, bad[i].letter, __FILE__,
                          __LINE__));
        CHECK_INT(script_at, 1);
        CHECK(!strstr(e.msg, "127.0.0.1") && !strstr(e.msg, "secret"));
        CHECK_OK(run(2000), &e); /* the slot is as good as new */
    }
}

static void silence_ends_at_the_deadline(void)
{
    int64_t from;

    NEED(begin("to", PRIVATE));
    from = time_mono_ns();
    CHECK_FAILS(run(200), DEADLINE_EXCEEDED, &e, "in time");
    CHECK(time_mono_ns() - from < 500 * NS_PER_MS);
    CHECK_OK(run(2000), &e); /* the late answer went with its connection */
}

static void the_breaker_opens_and_recovers(void)
{
    struct runtime_stat stat;
    int64_t from;

    NEED(begin("6666666oo", PRIVATE ",\"breaker\":{\"failure_threshold\":3,"
                                    "\"recovery_timeout\":\"300ms\"}"));
    for (int i = 0; i < 3; i++)
        CHECK_FAILS(run(2000), INTERNAL, &e, "500");
    from = time_mono_ns();
    for (int i = 0; i < 50; i++)
        CHECK_FAILS(run(2000), UNAVAILABLE, &e, "left alone");
    CHECK(time_mono_ns() - from < 100 * NS_PER_MS);
    CHECK_INT(script_at, 3);
    runtime_stat(model, &stat);
    CHECK_STR(str_of(stat.breaker), S("open"));
    CHECK_INT(stat.openings, 1);
    CHECK_INT(stat.rejected, 50);
    usleep(350000);
    play("oo");
    CHECK_OK(run(2000), &e);
    runtime_stat(model, &stat);
    CHECK_STR(str_of(stat.breaker), S("closed"));
    runtime_force(model, RUNTIME_FORCE_OPEN);
    CHECK_FAILS(run(2000), UNAVAILABLE, &e, "left alone");
    runtime_force(model, RUNTIME_FORCE_NONE);
    CHECK_OK(run(2000), &e);
}

static void nobody_listening_is_unavailable(void)
{
    const char *path = path_join(&a, folder, "nobody");

    end();
    NEED_OK(file_replace(path,
                         S("{\"kind\":\"remote\",\"url\":\"http://127.0.0.1:1\",\"model\":\"m\","
                           "\"backoff\":\"1ms\"," SPECS PRIVATE "}"),
                         &e),
            &e);
    NEED_OK(runtime_load(S("remote"), path, NULL, &model, &e), &e);
    NEED_OK(runtime_slot_new(model, 8, 0, &slot, &e), &e);
    CHECK_FAILS(run(1000), UNAVAILABLE, &e, "cannot be reached");
}

static void private_addresses_need_a_word(void)
{
    NEED(begin("o", ""));
    CHECK_FAILS(run(1000), UNAVAILABLE, &e, "cannot be reached");
    CHECK_INT(connections, 0);
}

static void secrets_come_from_elsewhere(void)
{
    const char *secret = path_join(&a, folder, "secret");

    NEED(begin("oo", arena_printf(&a, PRIVATE ",\"credentials\":{\"file\":\"%s\"}", secret).p));
    CHECK_FAILS(run(1000), NOT_FOUND, &e, "secret");
    NEED_OK(file_replace(secret, S("s3cret\n"), &e), &e);
    CHECK_OK(run(1000), &e);
    CHECK(asked_with("Authorization: Bearer s3cret\r\n"));
    NEED_OK(file_replace(secret, S("two\r\nlines"), &e), &e);
    CHECK_FAILS(run(1000), FAILED_PRECONDITION, &e, "single line");
    NEED(begin("oo", PRIVATE ",\"credentials\":{\"env\":\"WEIR_TEST_KEY\",\"header\":\"X-Key\","
                             "\"prefix\":\"\"}"));
    CHECK_FAILS(run(1000), FAILED_PRECONDITION, &e, "WEIR_TEST_KEY");
    setenv("WEIR_TEST_KEY", "k", 1);
    CHECK_OK(run(1000), &e);
    CHECK(asked_with("X-Key: k\r\n"));
    unsetenv("WEIR_TEST_KEY");
}

static void wrong_artifacts_are_refused(void)
{
    static const struct {
        const char *text, *what;
    } wrong[] = {
        {"{", "remote model"},
        {"{\"kind\":\"remote\",\"model\":\"m\"}", "url"},
        {"{\"kind\":\"remote\",\"url\":\"ftp://h\",\"model\":\"m\"}", "grpcs://"},
        {"{\"kind\":\"remote\",\"url\":\"grpc://h/base\",\"model\":\"m\"}", "no path"},
        {"{\"kind\":\"remote\",\"url\":\"grpc://h\",\"model\":\"m\",\"tls\":{}}", "grpcs://"},
        {"{\"kind\":\"remote\",\"url\":\"grpcs://h\",\"model\":\"m\",\"tls\":{\"cas\":1}}",
         "did you mean 'ca'"},
        {"{\"kind\":\"remote\",\"url\":\"grpcs://h\",\"model\":\"m\",\"tls\":{\"ca\":\"x\"}}",
         "full path"},
        {"{\"kind\":\"remote\",\"url\":\"https://h\",\"model\":\"m\",\"tls\":"
         "{\"key\":\"/x\"}}",
         "go together"},
        {"{\"kind\":\"remote\",\"url\":\"file:///etc\",\"model\":\"m\"}", "http://host:port"},
        {"{\"kind\":\"remote\",\"url\":\"http://u@h\",\"model\":\"m\"}", "plain path"},
        {"{\"kind\":\"remote\",\"url\":\"http://h/../x\",\"model\":\"m\"}", "plain path"},
        {"{\"kind\":\"remote\",\"url\":\"http://h\\r\\nX: y\",\"model\":\"m\"}", "plain path"},
        {"{\"kind\":\"remote\",\"url\":\"http://h\",\"model\":\"a/b\"}", "no name"},
        {"{\"kind\":\"remote\",\"url\":\"http://h\",\"model\":\"m\",\"retrie\":3}", "'retries'"},
        {"{\"kind\":\"remote\",\"url\":\"http://h\",\"model\":\"m\",\"retries\":99}", "0 to 10"},
        {"{\"kind\":\"remote\",\"url\":\"http://h\",\"model\":\"m\",\"timeout\":5}", "no time"},
        {"{\"kind\":\"remote\",\"url\":\"http://h\",\"model\":\"m\",\"credentials\":"
         "{\"value\":\"x\"}}",
         "credentials"},
    };
    const char *path = path_join(&a, folder, "wrong");

    end();
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        NEED_OK(file_replace(path, str_of(wrong[i].text), &e), &e);
        CHECK_FAILS(runtime_load(S("remote"), path, NULL, &model, &e), INVALID_ARGUMENT, &e,
                    wrong[i].what);
    }
}

static void call(void *arg)
{
    struct err own;

    *(int *)arg = runtime_run(slot, 1, time_mono_ns() + 5 * NS_PER_S, &own);
}

static void cancel_ends_a_run(void)
{
    struct thread t = {0};
    int rc = 0;

    NEED(begin("t", PRIVATE));
    NEED_OK(thread_start(&t, "caller", THREAD_ANY_CPU, call, &rc, &e), &e);
    usleep(100000);
    runtime_cancel(slot);
    thread_join(&t);
    CHECK_INT(rc, CODE_CANCELLED);
}

static const struct check_test tests[] = {
    T(one_connection_is_kept),
    T(a_connection_closed_meanwhile_is_made_anew),
    T(binary_goes_both_ways),
    T(safe_failures_are_tried_again),
    T(others_are_not),
    T(silence_ends_at_the_deadline),
    T(the_breaker_opens_and_recovers),
    T(nobody_listening_is_unavailable),
    T(private_addresses_need_a_word),
    T(secrets_come_from_elsewhere),
    T(wrong_artifacts_are_refused),
    T(cancel_ends_a_run),
};

int main(int argc, char **argv)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);
    struct thread server = {0};
    struct err why;
    int rc;

    arena_init(&a, 0);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!mkdtemp(folder) || listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) ||
        listen(listener, 16) || getsockname(listener, (struct sockaddr *)&at, &n) ||
        thread_start(&server, "server", THREAD_ANY_CPU, serve_all, NULL, &why))
        return EXIT_FAILURE;
    port = ntohs(at.sin_port);
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    end();
    shutdown(listener, SHUT_RDWR);
    thread_join(&server);
    for (unsigned i = 0; i < thread_count && i < ARRAY_LEN(threads); i++)
        thread_join(&threads[i]);
    close(listener);
    if (file_remove_tree(folder, &why))
        fprintf(stderr, "%s\n", why.msg);
    arena_done(&a);
    return rc;
}
