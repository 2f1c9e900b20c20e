/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a trainer: a child process with limits. The contract is the same for the built-in one and
 * for a command of the user's (README.md):
 *
 *   WEIR_TRAIN_DATA   train.parquet: the features by name, the label, __ts; of a model behind a
 *                     pipeline, what comes out of that in place of the features
 *   WEIR_TRAIN_SPEC   spec.json: {"model","task","label","features":[…],"classes":[…],
 *                     "seed","params":{…}}
 *   WEIR_MODEL_OUT    a folder, empty at the start: leave model.onnx there, or model.json /
 *                     model.ubj of XGBoost; metrics.json, if there is one, is stored with the
 *                     version
 *
 * Exit status 0 is success; 2 says that the data or the spec is wrong, which no repetition cures.
 * What it writes to stdout and stderr is kept in trainer.log. It sees the environment variables
 * that the project names and no other, and no network unless the project allows it. Each attempt
 * begins with the frozen data and an empty folder: nothing of a failed one can pass for a model.
 */
#include "retrain/priv.h"

#include "base/library.h"
#include "loop/child.h"
#include "pipeline/pipeline.h"

#define GRACE_NS (5 * NS_PER_S)
#define BEAT_NS (2 * NS_PER_S)
#define LOOK_NS (100 * NS_PER_MS) /* how soon a cancelled run ends its child */
#define ENV_MAX 80
#define ARGS_MAX 64
#define LOOK_NS (100 * NS_PER_MS)
#define LOG_BYTES_MAX ((size_t)64 << 20)
#define METRICS_BYTES_MAX ((size_t)256 << 10)
#define PIPELINE_BYTES_MAX ((size_t)16 << 20)
#define WORDS_MAX 200 /* of the trainer's last words in an error */

/* The columns that a model behind this pipeline is trained on. */
static NODISCARD int add_made(struct run *r, const struct json *pipeline, struct json *features,
                              struct err *e)
{
    struct pipeline *p;

    TRY(pipeline_read(pipeline, NULL, r->a, &p, e));
    for (uint32_t i = 0; i < p->output_count; i++)
        json_push(features, json_new_str(r->a, p->outputs[i].name));
    return 0;
}

static NODISCARD int add_features(struct run *r, struct json *features, struct err *e)
{
    struct feature *list;
    size_t n;

    TRY(run_features(r, &list, &n, e));
    for (size_t i = 0; i < n; i++)
        json_push(features, json_new_str(r->a, list[i].name));
    return 0;
}

static NODISCARD int write_spec(struct run *r, const struct json *trainer,
                                const struct json *pipeline, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct json *spec = json_new_object(r->a), *features;
    const struct json *classes = json_get(r->model, S("classes"));

    json_set_str(r->a, spec, S("model"), r->model_name);
    json_set_str(r->a, spec, S("task"), json_str_or(json_get(r->model, S("task")), S("")));
    json_set_str(r->a, spec, S("label"), run_label(r));
    features = json_set(spec, S("features"), json_new_array(r->a));
    TRY(pipeline ? add_made(r, pipeline, features, e) : add_features(r, features, e));
    if (json_is_container(classes))
        json_set(spec, S("classes"), json_copy(r->a, classes));
    json_set_int(r->a, spec, S("seed"), json_int_or(json_get(trainer, S("seed")), 0));
    json_set(spec, S("params"), json_copy(r->a, trainer));
    buf_init(&text, 16 << 20);
    json_write_pretty(&text, spec);
    return file_replace(run_path(r, "spec.json"), buf_str(&text), e);
}

static size_t pass_env(struct run *r, const struct json *trainer, const char **env, size_t n)
{
    const struct json *allowed = json_get(trainer, S("env"));

    if (!json_is_container(allowed))
        return n;
    JSON_EACH (name, allowed) {
        const char *pair = child_env(arena_dupz(r->a, json_str_or(name, S(""))), r->a);

        if (pair && n < ENV_MAX - 1)
            env[n++] = pair;
    }
    return n;
}

static void environment(struct run *r, const struct json *trainer, const char *data,
                        const char *env[ENV_MAX])
{
    const char *libraries = library_env(r->a), *path = child_env("PATH", r->a);
    size_t n = 0;

    env[n++] = path ? path : "PATH=/usr/bin:/bin";
    env[n++] = arena_printf(r->a, "WEIR_TRAIN_DATA=%s", run_path(r, data)).p;
    env[n++] = arena_printf(r->a, "WEIR_TRAIN_SPEC=%s", run_path(r, "spec.json")).p;
    env[n++] = arena_printf(r->a, "WEIR_MODEL_OUT=%s", run_path(r, "out")).p;
    if (libraries)
        env[n++] = libraries;
    env[pass_env(r, trainer, env, n)] = NULL;
}

static NODISCARD int arguments(struct run *r, const struct json *trainer,
                               const char *argv[ARGS_MAX], struct err *e)
{
    const struct json *command = json_get(trainer, S("command"));
    size_t n = 0;

    if (!str_eq(json_str_or(json_get(trainer, S("kind")), S("xgboost")), S("command"))) {
        argv[0] = r->env->self;
        argv[1] = "trainer-xgboost";
        argv[2] = NULL;
        return 0;
    }
    if (!json_is_container(command) || command->count >= ARGS_MAX)
        return FAIL(e, INVALID_ARGUMENT,
                    "the trainer's command has %zu words, at most %d are taken",
                    command ? command->count : 0, ARGS_MAX - 1);
    JSON_EACH (word, command)
        argv[n++] = arena_dupz(r->a, json_str_or(word, S("")));
    argv[n] = NULL;
    return 0;
}

/* The last words of the log, on one line of plain text. */
static str log_tail(struct run *r)
{
    char line[WORDS_MAX + 1];
    struct err e;
    str text;

    if (file_read_all(run_path(r, "trainer.log"), LOG_BYTES_MAX, r->a, &text, &e))
        return S("");
    text = str_trim(text);
    if (text.n > WORDS_MAX)
        text = str_skip(text, text.n - WORDS_MAX);
    for (size_t i = 0; i < text.n; i++)
        line[i] = text.p[i] >= ' ' && text.p[i] < 127 ? text.p[i] : ' ';
    return arena_dup(r->a, str_trim((str){line, text.n}));
}

/* Waits with heartbeats, so that the flow keeps its lease and a cancelled run ends its child. */
static NODISCARD int wait_for(struct run *r, struct child *c, int64_t timeout_ns,
                              struct child_exit *x, struct err *e)
{
    int64_t start = time_mono_ns(), beat = start + BEAT_NS;

    for (;;) {
        int64_t now = time_mono_ns();

        if (child_wait_until(c, now + LOOK_NS, x))
            return 0;
        if (flow_should_stop(r->ctx)) {
            child_wait(c, now, GRACE_NS, x);
            return FAIL(e, CANCELLED, "the run was stopped while the trainer worked");
        }
        if (now - start > timeout_ns) {
            child_wait(c, now, GRACE_NS, x);
            return FAIL(e, FAILED_PRECONDITION,
                        "the trainer did not end within " STR_F
                        " and was stopped; its last words: " STR_F,
                        STR_A(time_duration_text(r->a, timeout_ns)), STR_A(log_tail(r)));
        }
        if (now > beat) {
            TRY(flow_heartbeat(r->ctx, e));
            beat = now + BEAT_NS;
        }
    }
}

static NODISCARD int find_model(struct run *r, char **ret_model, struct err *e)
{
    static const char *const names[] = {"out/model.onnx", "out/model.json", "out/model.ubj"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *path = run_path(r, names[i]);

        if (file_exists(path)) {
            *ret_model = path;
            return 0;
        }
    }
    return FAIL(e, FAILED_PRECONDITION,
                "the trainer ended well but left no model.onnx, model.json or model.ubj in %s",
                run_path(r, "out"));
}

struct json *trainer_metrics(struct run *r)
{
    char *path = run_path(r, "out/metrics.json");
    struct json *metrics;
    struct err e;
    str text;

    if (!file_exists(path) || file_read_all(path, METRICS_BYTES_MAX, r->a, &text, &e) ||
        json_parse(text, r->a, &metrics, &e) || metrics->type != JSON_OBJECT)
        return NULL;
    return metrics;
}

static NODISCARD int start_child(struct run *r, const struct json *trainer, const char *data,
                                 struct child *child, struct err *e)
{
    const char *argv[ARGS_MAX], *env[ENV_MAX];
    bool is_command = str_eq(json_str_or(json_get(trainer, S("kind")), S("")), S("command"));
    int64_t cpu_ns = json_int_or(json_get(trainer, S("cpu_time_ns")), 0);

    TRY(arguments(r, trainer, argv, e));
    environment(r, trainer, data, env);
    return child_start(
        &(struct child_spec){
            .argv = argv,
            .env = env,
            .cwd = is_command ? r->env->project_dir : r->dir.p,
            .out.path = run_path(r, "trainer.log"),
            .err_to_out = true,
            .limits = {.address_space_bytes =
                           (uint64_t)json_int_or(json_get(trainer, S("memory_bytes_max")), 0),
                       .cpu_seconds = (uint64_t)((cpu_ns + NS_PER_S - 1) / NS_PER_S)},
            .nice = 5,
            .no_network = !json_bool_or(json_get(trainer, S("network")), false)},
        child, e);
}

int trainer_pipeline(struct run *r, struct json **ret, struct err *e)
{
    str text;

    *ret = NULL;
    if (!file_exists(run_path(r, RUN_PIPELINE)))
        return 0;
    TRY(file_read_all(run_path(r, RUN_PIPELINE), PIPELINE_BYTES_MAX, r->a, &text, e));
    return json_parse(text, r->a, ret, e);
}

/* The frozen table through the pipeline, whose parameters come from it. Its file is there only when
 * all of that is done. */
static NODISCARD int prepare(struct run *r, struct json **ret_pipeline, struct err *e)
{
    const struct retrain_ports *ports = &r->env->ports;
    AUTO(buf_done) struct buf text = {0};

    *ret_pipeline = NULL;
    TRY(file_remove(run_path(r, RUN_PIPELINE), e));
    TRY(file_remove(run_path(r, RUN_PREPARED), e));
    if (!ports->prepare)
        return 0;
    TRY(ports->prepare(ports->ctx, r->project, r->model_name, run_path(r, SNAPSHOT_TRAIN),
                       run_label(r), run_path(r, RUN_PREPARED), r->dir.p, r->a, ret_pipeline, e));
    if (!*ret_pipeline)
        return 0;
    buf_init(&text, PIPELINE_BYTES_MAX);
    json_write_canonical(&text, *ret_pipeline);
    if (text.overflowed)
        return FAIL(e, INVALID_ARGUMENT, "the pipeline of '" STR_F "' takes more than %zu MiB",
                    STR_A(r->model_name), PIPELINE_BYTES_MAX >> 20);
    return file_replace(run_path(r, RUN_PIPELINE), buf_str(&text), e);
}

int trainer_run(struct run *r, char **ret_model, struct err *e)
{
    const struct json *trainer = run_trainer(r);
    int64_t timeout = json_int_or(json_get(trainer, S("timeout_ns")), 3600 * NS_PER_S);
    AUTO(child_done) struct child child = {.pidfd = -1};
    struct json *pipeline;
    struct child_exit x;
    char text[CHILD_TEXT_SIZE];

    if (!trainer)
        return FAIL(e, FAILED_PRECONDITION, "model '" STR_F "' has no trainer",
                    STR_A(r->model_name));
    TRY(snapshot_verify(r, SNAPSHOT_TRAIN, e));
    TRY(prepare(r, &pipeline, e));
    TRY(write_spec(r, trainer, pipeline, e));
    TRY(file_remove_tree(run_path(r, "out"), e));
    TRY(file_remove(run_path(r, "trainer.log"), e));
    TRY(file_make_dirs(run_path(r, "out"), e));
    TRY(start_child(r, trainer, pipeline ? RUN_PREPARED : SNAPSHOT_TRAIN, &child, e));
    TRY(wait_for(r, &child, timeout, &x, e));
    child_exit_text(&x, text);
    if (x.status == EXIT_WRONG_INPUT)
        return FAIL(e, INVALID_ARGUMENT, "trainer '" STR_F "' refuses its input: " STR_F,
                    STR_A(trainer->key), STR_A(log_tail(r)));
    if (!child_exit_ok(&x))
        return FAIL(e, FAILED_PRECONDITION,
                    "trainer '" STR_F "' failed: %s; its last words: " STR_F, STR_A(trainer->key),
                    text, STR_A(log_tail(r)));
    return find_model(r, ret_model, e);
}
