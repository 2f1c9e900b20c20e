/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process runtime against programs made here: good ones, and each way of being bad. They speak
 * the protocol through python/weir_runtime.py, without NumPy.
 */
#include "check.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/time.h"
#include "loop/thread.h"
#include "serve/runtime/adopt.h"
#include "serve/runtime/pack.h"
#include "wire/tensor_frame.h"

#include <dirent.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/weir-process-XXXXXX";
static struct arena a;
static struct err e;
static int made;

static const char *const GOOD = "from weir_runtime import serve\n"
                                "def predict(inputs):\n"
                                "    return {'y': [a + b for a, b in inputs['x']]}\n"
                                "serve(predict)\n";

static void write_file(const char *path, const char *text)
{
    CHECK_OK(file_replace(path, str_of(text), &e), &e);
}

/* A packed model of a program. */
static const char *pack(const char *program, const char *yaml)
{
    const char *dir = path_join(&a, folder, arena_printf(&a, "model%d", made).p);
    const char *out = path_join(&a, folder, arena_printf(&a, "pack%d", made++).p);
    str helper;

    CHECK_OK(file_make_dirs(dir, &e), &e);
    CHECK_OK(file_read_all("python/weir_runtime.py", 1 << 20, &a, &helper, &e), &e);
    write_file(path_join(&a, dir, "weir_runtime.py"), helper.p);
    write_file(path_join(&a, dir, "main.py"), program);
    CHECK_OK(pack_write(dir, "model.yaml", str_of(yaml), out, &e), &e);
    return out;
}

#define JSON_SPECS                                                          \
    "\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]}]," \
    "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[-1]}]"
#define MANIFEST(more) "{\"command\":[\"python3\",\"main.py\"]," JSON_SPECS more "}"

static struct runtime_model *load(const char *program, const char *manifest, bool must_start)
{
    const struct runtime_options options = {.work_dir = path_join(&a, folder, "work"),
                                            .must_start = must_start};
    struct runtime_model *m = NULL;

    CHECK_OK(runtime_load(S("process"), pack(program, manifest), &options, &m, &e), &e);
    return m;
}

static int run_one(struct runtime_slot *s, float p, float q, int64_t ms)
{
    float *x = s->inputs[0].data;

    x[0] = p, x[1] = q;
    return runtime_run(s, 1, time_mono_ns() + ms * NS_PER_MS, &e);
}

static float answer(const struct runtime_slot *s)
{
    return ((const float *)s->outputs[0].data)[0];
}

static void answers_rows(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = load(GOOD, MANIFEST(""), true);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct runtime_stat stat;

    NEED(m);
    CHECK(m->batched && m->engine->blocking);
    NEED_OK(runtime_slot_new(m, 64, 0, &s, &e), &e);
    for (int n = 1; n <= 64; n *= 2) {
        for (int i = 0; i < 2 * n; i++)
            ((float *)s->inputs[0].data)[i] = (float)i;
        NEED_OK(runtime_run(s, (uint32_t)n, 0, &e), &e);
        NEED(s->outputs[0].shape[0] == n && s->outputs[0].rank == 1);
        for (int i = 0; i < n; i++)
            CHECK(((const float *)s->outputs[0].data)[i] == (float)(4 * i + 1));
    }
    runtime_stat(m, &stat);
    CHECK_INT(stat.instances, 1);
    CHECK_INT(stat.ready, 1);
    CHECK_INT(stat.starts, 1);
}

static void errors_of_the_program_are_told(void)
{
    AUTO(runtime_unloadp)
    struct runtime_model *m = load("from weir_runtime import serve\n"
                                   "def predict(inputs):\n"
                                   "    v = inputs['x'][0][0]\n"
                                   "    if v == 1: raise ValueError('x is one')\n"
                                   "    if v == 2: raise MemoryError('too much')\n"
                                   "    if v == 3: raise RuntimeError('no\\nidea')\n"
                                   "    if v == 4: return {'z': [1]}\n"
                                   "    if v == 5: return {'y': [[1.0, 2.0]]}\n"
                                   "    return {'y': [v]}\n"
                                   "serve(predict)\n",
                                   MANIFEST(""), true);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct runtime_stat stat;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    CHECK_FAILS(run_one(s, 1, 0, 5000), INVALID_ARGUMENT, &e, "x is one");
    CHECK_FAILS(run_one(s, 2, 0, 5000), RESOURCE_EXHAUSTED, &e, "too much");
    CHECK_FAILS(run_one(s, 3, 0, 5000), INTERNAL, &e, "no idea");
    CHECK_FAILS(run_one(s, 4, 0, 5000), INTERNAL, &e, "did not return y");
    CHECK_FAILS(run_one(s, 5, 0, 5000), INTERNAL, &e, "shape [1,2]");
    CHECK_OK(run_one(s, 7, 0, 5000), &e);
    CHECK(answer(s) == 7);
    runtime_stat(m, &stat);
    CHECK_INT(stat.ends, 0); /* none of this cost it its life */
}

static void environment_is_as_told(void)
{
    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;

    setenv("WEIR_TEST_SEEN", "20", 1);
    setenv("WEIR_TEST_HIDDEN", "300", 1);
    m = load("import os\n"
             "from weir_runtime import serve\n"
             "v = [int(os.environ.get(n, '0')) for n in\n"
             "     ('OMP_NUM_THREADS', 'WEIR_TEST_SEEN', 'WEIR_TEST_HIDDEN', 'MKL_NUM_THREADS')]\n"
             "serve(lambda inputs: {'y': [sum(v)]})\n",
             MANIFEST(",\"env\":{\"OMP_NUM_THREADS\":\"4\"},\"pass_env\":[\"WEIR_TEST_SEEN\"]"),
             true);
    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    NEED_OK(run_one(s, 1, 2, 5000), &e);
    CHECK(answer(s) == 25);
    unsetenv("WEIR_TEST_SEEN");
    unsetenv("WEIR_TEST_HIDDEN");
}

static void late_answer_is_thrown_away(void)
{
    AUTO(runtime_unloadp)
    struct runtime_model *m = load("import time\n"
                                   "from weir_runtime import serve\n"
                                   "def predict(inputs):\n"
                                   "    v = inputs['x'][0][0]\n"
                                   "    if v < 0: time.sleep(-v)\n"
                                   "    return {'y': [v]}\n"
                                   "serve(predict)\n",
                                   MANIFEST(",\"timeouts\":{\"grace\":\"2s\"}"), true);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct runtime_stat stat;
    int64_t from;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    from = time_mono_ns();
    CHECK_FAILS(run_one(s, -0.5f, 0, 100), DEADLINE_EXCEEDED, &e, "in time");
    CHECK(time_mono_ns() - from < 400 * NS_PER_MS);
    CHECK_OK(run_one(s, 3, 0, 5000), &e); /* waits for the late one, and does not take it */
    CHECK(answer(s) == 3);
    runtime_stat(m, &stat);
    CHECK_INT(stat.starts, 1);
}

static void stalled_program_is_killed_and_started_again(void)
{
    AUTO(runtime_unloadp)
    struct runtime_model *m = load("import time\n"
                                   "from weir_runtime import serve\n"
                                   "def predict(inputs):\n"
                                   "    v = inputs['x'][0][0]\n"
                                   "    if v < 0: time.sleep(1000)\n"
                                   "    return {'y': [v]}\n"
                                   "serve(predict)\n",
                                   MANIFEST(",\"timeouts\":{\"grace\":\"100ms\"}"), true);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct runtime_stat stat;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    CHECK_FAILS(run_one(s, -1, 0, 100), DEADLINE_EXCEEDED, &e, "in time");
    CHECK_OK(run_one(s, 3, 0, 10000), &e);
    CHECK(answer(s) == 3);
    runtime_stat(m, &stat);
    CHECK_INT(stat.starts, 2);
    CHECK_INT(stat.ends, 1);
}

static void death_in_the_middle_is_unavailable(void)
{
    AUTO(runtime_unloadp)
    struct runtime_model *m = load("import os, signal\n"
                                   "from weir_runtime import serve\n"
                                   "def predict(inputs):\n"
                                   "    v = inputs['x'][0][0]\n"
                                   "    if v < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
                                   "    return {'y': [v]}\n"
                                   "serve(predict)\n",
                                   MANIFEST(",\"restart\":{\"backoff\":\"1ms\"}"), true);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(run_one(s, -1, 0, 5000), UNAVAILABLE, &e, "ended while it had the request");
        CHECK_OK(run_one(s, 3, 0, 10000), &e);
        CHECK(answer(s) == 3);
    }
}

static void garbage_costs_the_program_its_life(void)
{
    static const char *const bad[] = {
        "s.sendall(b'x' * 100)",                                                  /* no frame */
        "s.sendall(w.HEAD.pack(w.MAGIC, 4, 0, 99, 2, 0, 0) + b'{}' + bytes(30))", /* another's id */
        "s.sendall(w.HEAD.pack(w.MAGIC, 4, 0, n, 2, 0, 1 << 50) + b'{}' + bytes(30))", /* too large
                                                                                        */
        "s.sendall(w.HEAD.pack(w.MAGIC, 4, 0, n, 1 << 30, 0, 0))",
        "s.sendall(w.HEAD.pack(w.MAGIC, 4, 0, n, 2, 0, 128) + b'{}'); raise SystemExit", /* cut */
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *program = arena_printf(&a,
                                           "import socket, os\n"
                                           "import weir_runtime as w\n"
                                           "s = socket.socket(fileno=3)\n"
                                           "w._read_frame(s)\n"
                                           "w._write_frame(s, w.READY, 0, {'protocol': 1})\n"
                                           "_, n, _, _ = w._read_frame(s)\n"
                                           "%s\n"
                                           "import time; time.sleep(1000)\n",
                                           bad[i])
                                  .p;
        AUTO(runtime_unloadp) struct runtime_model *m = load(program, MANIFEST(""), true);
        AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
        int rc;

        NEED(m);
        NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
        rc = run_one(s, 1, 2, 5000);
        CHECK(rc == CODE_INTERNAL || (rc == CODE_UNAVAILABLE && i == 4));
    }
}

static void crash_loop_refuses_at_once(void)
{
    AUTO(runtime_unloadp)
    struct runtime_model *m =
        load("import sys\nprint('no model here', file=sys.stderr)\nsys.exit(3)\n",
             MANIFEST(",\"restart\":{\"backoff\":\"1ms\",\"crash_limit\":3}"), false);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    struct runtime_stat stat;
    int64_t from;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    CHECK_FAILS(run_one(s, 1, 2, 10000), UNAVAILABLE, &e, "again and again");
    from = time_mono_ns();
    for (int i = 0; i < 100; i++)
        CHECK_FAILS(run_one(s, 1, 2, 10000), UNAVAILABLE, &e, "again and again");
    CHECK(time_mono_ns() - from < 200 * NS_PER_MS);
    runtime_stat(m, &stat);
    CHECK_INT(stat.broken, 1);
    CHECK_INT(stat.starts, 3);
}

static void crash_loop_is_left_when_the_program_is_well_again(void)
{
    const char *flag = path_join(&a, folder, "well");
    const char *program = arena_printf(&a,
                                       "import os, sys\n"
                                       "if not os.path.exists('%s'): sys.exit(1)\n%s",
                                       flag, GOOD)
                              .p;
    AUTO(runtime_unloadp)
    struct runtime_model *m =
        load(program,
             MANIFEST(",\"restart\":{\"backoff\":\"1ms\",\"crash_limit\":2,\"retry\":\"200ms\"}"),
             false);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    CHECK_FAILS(run_one(s, 1, 2, 10000), UNAVAILABLE, &e, "again and again");
    write_file(flag, "");
    for (int i = 0; i < 100 && run_one(s, 1, 2, 1000); i++)
        usleep(50000);
    CHECK_OK(run_one(s, 1, 2, 1000), &e);
}

static void what_does_not_start_is_refused(void)
{
    const struct runtime_options options = {.work_dir = path_join(&a, folder, "work"),
                                            .must_start = true};
    struct runtime_model *m = NULL;
    const char *bad = pack("raise SystemExit('no weights')\n", MANIFEST(""));
    const char *slow =
        pack("import time; time.sleep(100)\n", MANIFEST(",\"timeouts\":{\"start\":\"200ms\"}"));
    const char *none = pack("", "{\"command\":[\"no-such-program\"]," JSON_SPECS "}");
    const char *other = pack("from weir_runtime import serve\n"
                             "serve(None, [('x', 'FP32', [-1, 3])], [('y', 'FP32', [-1])])\n",
                             MANIFEST(""));

    CHECK_FAILS(runtime_load(S("process"), bad, &options, &m, &e), FAILED_PRECONDITION, &e,
                "it last said: no weights");
    CHECK_FAILS(runtime_load(S("process"), slow, &options, &m, &e), FAILED_PRECONDITION, &e,
                "not ready in time");
    CHECK_FAILS(runtime_load(S("process"), none, &options, &m, &e), FAILED_PRECONDITION, &e,
                "no-such-program");
    CHECK_FAILS(runtime_load(S("process"), other, &options, &m, &e), FAILED_PRECONDITION, &e,
                "other inputs or outputs");
}

struct caller {
    struct thread thread;
    struct runtime_slot *slot;
    int rc;
};

static void call(void *arg)
{
    struct caller *c = arg;
    struct err own;
    float *x = c->slot->inputs[0].data;

    x[0] = x[1] = -1;
    c->rc = runtime_run(c->slot, 1, time_mono_ns() + 20 * NS_PER_S, &own);
}

static void two_instances_run_side_by_side(void)
{
    const char *mark = path_join(&a, folder, "met");
    /* Each waits until the other is there too: one after the other they would never end. */
    const char *program = arena_printf(&a,
                                       "import os, time\n"
                                       "from weir_runtime import serve\n"
                                       "def predict(inputs):\n"
                                       "    open('%s' + str(os.getpid()), 'w').close()\n"
                                       "    while len([f for f in os.listdir('%s') if "
                                       "f.startswith('met')]) < 2: time.sleep(0.01)\n"
                                       "    return {'y': [1.0]}\n"
                                       "serve(predict)\n",
                                       mark, folder)
                              .p;
    AUTO(runtime_unloadp)
    struct runtime_model *m = load(program, MANIFEST(",\"instances\":2"), true);
    struct caller callers[2] = {0};

    NEED(m);
    for (int i = 0; i < 2; i++) {
        NEED_OK(runtime_slot_new(m, 1, 0, &callers[i].slot, &e), &e);
        NEED_OK(thread_start(&callers[i].thread, "caller", THREAD_ANY_CPU, call, &callers[i], &e),
                &e);
    }
    for (int i = 0; i < 2; i++) {
        thread_join(&callers[i].thread);
        CHECK_INT(callers[i].rc, 0);
        runtime_slot_free(callers[i].slot);
    }
}

static void cancel_ends_a_run(void)
{
    AUTO(runtime_unloadp)
    struct runtime_model *m = load("import time\n"
                                   "from weir_runtime import serve\n"
                                   "def predict(inputs): time.sleep(1000)\n"
                                   "serve(predict)\n",
                                   MANIFEST(""), true);
    struct caller c = {0};

    NEED(m);
    NEED_OK(runtime_slot_new(m, 1, 0, &c.slot, &e), &e);
    NEED_OK(thread_start(&c.thread, "caller", THREAD_ANY_CPU, call, &c, &e), &e);
    usleep(100000);
    runtime_cancel(c.slot);
    thread_join(&c.thread);
    CHECK_INT(c.rc, CODE_CANCELLED);
    runtime_slot_free(c.slot);
}

static void memory_is_limited(void)
{
    AUTO(runtime_unloadp)
    struct runtime_model *m = load("from weir_runtime import serve\n"
                                   "def predict(inputs):\n"
                                   "    return {'y': [float(len(bytearray(1 << 30)))]}\n"
                                   "serve(predict)\n",
                                   MANIFEST(",\"limits\":{\"memory_mib\":300}"), true);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    CHECK_FAILS(run_one(s, 1, 2, 10000), RESOURCE_EXHAUSTED, &e, "MemoryError");
}

static void network_is_taken_away(void)
{
    /* Where the system allows no namespace the program has it, and "never" does not start. */
    AUTO(runtime_unloadp)
    struct runtime_model *m = load("import socket\n"
                                   "from weir_runtime import serve\n"
                                   "def predict(inputs):\n"
                                   "    return {'y': [float(len(socket.if_nameindex()))]}\n"
                                   "serve(predict)\n",
                                   MANIFEST(",\"network\":\"never\""), false);
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    int rc;

    NEED(m);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    rc = run_one(s, 1, 2, 3000);
    CHECK((!rc && answer(s) == 1) || rc == CODE_UNAVAILABLE || rc == CODE_DEADLINE_EXCEEDED);
}

static int open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RESTARTS 60
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RESTARTS 60
#endif
#endif
#ifndef RESTARTS
#define RESTARTS 1000
#endif

/* A thousand ends and starts: as many descriptors as before, no zombie, nothing left on disk. */
static void a_thousand_restarts_leak_nothing(void)
{
    const struct runtime_options options = {.work_dir = path_join(&a, folder, "restarts")};
    const char *file =
        pack("", "{\"command\":[\"/proc/self/exe\",\"--program\"]," JSON_SPECS
                 ",\"restart\":{\"backoff\":\"1ms\"},\"limits\":{\"memory_mib\":0}}");
    struct runtime_model *m = NULL;
    struct runtime_slot *s = NULL;
    struct runtime_stat stat = {0};
    int before = open_fds(), during = 0, answers = 0;
    size_t left;
    str *names;

    NEED_OK(runtime_load(S("process"), file, &options, &m, &e), &e);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    for (int i = 0; i < 20 * RESTARTS && stat.ends < RESTARTS; i++) {
        answers += run_one(s, 1, 2, 5000) == 0;
        runtime_stat(m, &stat);
        if (stat.ends == 10)
            during = open_fds();
    }
    CHECK(stat.ends >= RESTARTS && answers >= RESTARTS - 1);
    CHECK(open_fds() <= during + 4);
    runtime_slot_free(s);
    runtime_unload(m);
    CHECK_INT(open_fds(), before);
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
    NEED_OK(file_list(path_join(&a, folder, "restarts"), &a, &names, &left, &e), &e);
    CHECK_INT(left, 0);
}

/* What that test starts: this program itself. It answers once and ends. */
static int program(void)
{
    struct tensor_frame_head h = {.kind = TENSOR_FRAME_HELLO};
    float y = 3;
    struct tensor_spec spec = {.name = S("y"), .datatype = TENSOR_FP32, .rank = 1, .shape = {-1}};
    struct tensor t = {.spec = &spec, .rank = 1, .shape = {1}, .count = 1, .bytes = 4, .data = &y};
    char bytes[4096];
    struct buf out;

    buf_init(&out, 4096);
    for (int i = 0; i < 2; i++) {
        if (recv(3, bytes, TENSOR_FRAME_HEAD_BYTES, MSG_WAITALL) != TENSOR_FRAME_HEAD_BYTES ||
            tensor_frame_head_read(bytes, 1024, &h, &e) ||
            recv(3, bytes, tensor_frame_header_span(h.header_bytes) + h.data_bytes, MSG_WAITALL) <
                0)
            return 1;
        buf_clear(&out);
        if (i ? tensor_frame_write_run(&out, h.id, &t, 1, -1, &e)
              : tensor_frame_write_json(&out, TENSOR_FRAME_READY, 0, S("{\"protocol\":1}"), &e))
            return 1;
        if (i)
            out.p[4] = TENSOR_FRAME_ANSWER; /* an answer has the form of a run */
        if (send(3, out.p, out.n, 0) != (ssize_t)out.n)
            return 1;
    }
    buf_done(&out);
    return 0;
}

static void folders_of_the_dead_are_swept(void)
{
    const char *work = path_join(&a, folder, "sweep");
    const char *dead = path_join(&a, work, "process-dead");
    const struct runtime_options options = {.work_dir = work, .must_start = true};
    AUTO(runtime_unloadp) struct runtime_model *m = NULL, *second = NULL;
    const char *file = pack(GOOD, MANIFEST(""));

    CHECK_OK(file_make_dirs(path_join(&a, dead, "files/deep"), &e), &e);
    write_file(path_join(&a, work, "process-dead.lock"), "1\n");
    NEED_OK(runtime_load(S("process"), file, &options, &m, &e), &e);
    CHECK(!file_exists(dead) && !file_exists(path_join(&a, work, "process-dead.lock")));
    NEED_OK(runtime_load(S("process"), file, &options, &second, &e), &e); /* spares the living */
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    CHECK_OK(run_one(s, 1, 2, 5000), &e);
}

static void adoption_writes_down_what_the_program_declares(void)
{
    const char *dir = path_join(&a, folder, "adopted"),
               *out = path_join(&a, folder, "adopted.pack");
    const char *again = path_join(&a, folder, "again.pack");
    const struct runtime_options options = {.work_dir = path_join(&a, folder, "work")};
    char hash[2][SHA256_HEX_SIZE];
    struct json *info;
    str helper, manifest;

    CHECK_OK(file_make_dirs(dir, &e), &e);
    CHECK_OK(file_read_all("python/weir_runtime.py", 1 << 20, &a, &helper, &e), &e);
    write_file(path_join(&a, dir, "weir_runtime.py"), helper.p);
    write_file(path_join(&a, dir, "main.py"),
               "from weir_runtime import serve\n"
               "serve(lambda i: {'y': i['x']}, [('x', 'BYTES', [-1])], [('y', 'BYTES', [-1])])\n");
    CHECK_FAILS(adopt_folder(dir, out, &options, &a, &info, &e), INVALID_ARGUMENT, &e,
                "no model.yaml");
    write_file(path_join(&a, dir, "model.yaml"), "comand: [python3, main.py]\n");
    CHECK_FAILS(adopt_folder(dir, out, &options, &a, &info, &e), INVALID_ARGUMENT, &e,
                "did you mean 'command'");
    write_file(path_join(&a, dir, "model.yaml"),
               "command: [python3, main.py]\ntimeouts: {grace: 1s}\n");
    NEED_OK(adopt_folder(dir, out, &options, &a, &info, &e), &e);
    NEED_OK(adopt_folder(dir, again, &options, &a, &info, &e), &e);
    NEED_OK(sha256_file_hex(out, hash[0], &e), &e);
    NEED_OK(sha256_file_hex(again, hash[1], &e), &e);
    CHECK_STR(str_of(hash[0]), str_of(hash[1]));
    NEED_OK(pack_manifest(out, &a, &manifest, &e), &e);
    CHECK(str_find(manifest, S("\"datatype\":\"BYTES\"")) > 0);

    AUTO(runtime_unloadp) struct runtime_model *m = NULL;
    AUTO(runtime_slot_freep) struct runtime_slot *s = NULL;
    NEED_OK(runtime_load(S("process"), out, &options, &m, &e), &e);
    NEED_OK(runtime_slot_new(m, 8, 0, &s, &e), &e);
    ((str *)s->inputs[0].data)[0] = S("gr\xc3\xbc\xc3\x9f");
    ((str *)s->inputs[0].data)[1] = S("");
    NEED_OK(runtime_run(s, 2, 0, &e), &e);
    CHECK_STR(((const str *)s->outputs[0].data)[0], S("gr\xc3\xbc\xc3\x9f"));
    CHECK_STR(((const str *)s->outputs[0].data)[1], S(""));
}

static void packs_hold_no_links(void)
{
    const char *dir = path_join(&a, folder, "links"), *out = path_join(&a, folder, "links.pack");

    CHECK_OK(file_make_dirs(dir, &e), &e);
    CHECK(symlink("/etc/passwd", path_join(&a, dir, "x")) == 0);
    CHECK_FAILS(pack_write(dir, "model.yaml", S("{}"), out, &e), INVALID_ARGUMENT, &e, "link");
}

static const struct check_test tests[] = {
    T(answers_rows),
    T(errors_of_the_program_are_told),
    T(environment_is_as_told),
    T(late_answer_is_thrown_away),
    T(stalled_program_is_killed_and_started_again),
    T(death_in_the_middle_is_unavailable),
    T(garbage_costs_the_program_its_life),
    T(crash_loop_refuses_at_once),
    T(crash_loop_is_left_when_the_program_is_well_again),
    T(what_does_not_start_is_refused),
    T(two_instances_run_side_by_side),
    T(cancel_ends_a_run),
    T(memory_is_limited),
    T(network_is_taken_away),
    T(a_thousand_restarts_leak_nothing),
    T(folders_of_the_dead_are_swept),
    T(adoption_writes_down_what_the_program_declares),
    T(packs_hold_no_links),
};

int main(int argc, char **argv)
{
    struct err why;
    int rc;

    if (argc > 1 && strcmp(argv[1], "--program") == 0)
        return program();
    arena_init(&a, 0);
    if (!mkdtemp(folder))
        return EXIT_FAILURE;
    rc = check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
    if (file_remove_tree(folder, &why))
        fprintf(stderr, "%s\n", why.msg);
    arena_done(&a);
    return rc;
}
