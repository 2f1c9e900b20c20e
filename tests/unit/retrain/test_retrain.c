/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow as far as it goes alone: triage, review, labels, snapshot, trainer, retries, sweep. The
 * registry is played by its event; trainers are real children.
 */
#include "world.h"

#include "store/lake/lake.h"

static struct flow_engine *engine;
static char self[512];

#define TREE(task, trainer, extra)                                                         \
    "{'models':{'m':{'task':'" task "','trainer':'t','dataset':'d','label':'y'," extra     \
    "'retrain':{'rows_min':50,'holdout':0.2,'include_dataset':true,'window_ns':"           \
    "86400000000000}}},'trainers':{'t':{" trainer "}},'datasets':{'d':{'path':'data.csv'," \
    "'format':'csv','label':'y'}},'endpoints':{'e':{'model':'m'}},'triggers':{}}"
#define XGB "'kind':'xgboost','rounds':5,'max_depth':3,'threads':1,'seed':1,'retries':0"
#define FEATURES                                                                    \
    "'features':[{'name':'select','type':'double'},{'name':'x y','type':'double'}," \
    "{'name':'flag','type':'bool'}],"

static void open_with(const char *tree)
{
    const struct flow_reg reg = {retrain_flow(), &env};

    world_open(false);
    env.self = self;
    apply(tree);
    CHECK_OK(
        flow_engine_new(store, &(struct flow_options){.regs = &reg, .reg_count = 1}, &engine, &e),
        &e);
}

static void close_all(void)
{
    flow_engine_free(TAKE(engine));
    world_close();
}

/* 400 rows of two classes; some values are missing. */
static void write_data(const char *yes, const char *no)
{
    AUTO(buf_done) struct buf b = {0};

    buf_init(&b, 1 << 20);
    buf_add_str(&b, S("select,\"x y\",flag,y\n"));
    for (int i = 0; i < 400; i++)
        buf_printf(&b, "%d%s,%s,%s\n", i % 20, i % 7 ? ",1.5" : ",", i % 3 ? "true" : "false",
                   i % 20 < 10 ? yes : no);
    write_file("data.csv", buf_z(&b));
}

static char *start(const char *kind, const char *more)
{
    struct flow_started started = {0};
    str input =
        arena_printf(&world_arena, "{'model':'m','endpoint':'e','kind':'%s','asked_ns':%lld%s}",
                     kind, (long long)time_wall_ns(), more);

    CHECK_OK(flow_start(m,
                        &(struct flow_start){.type = "retrain",
                                             .input = json_of(input.p),
                                             .dedup_key = S("retrain/m")},
                        &started, &e),
             &e);
    return arena_dupz(&world_arena, str_of(started.id));
}

/* Runs what is due until the flow waits for somebody or has ended, a minute at most. */
static const char *run(const char *id, const char *until_step)
{
    int64_t end = time_mono_ns() + 60 * NS_PER_S, wake;
    struct json *flow = NULL;

    for (;;) {
        str state, step;

        CHECK_OK(flow_run_due(engine, &wake, &e), &e);
        CHECK_OK(flow_show(m, str_of(id), &world_arena, &flow, &e), &e);
        state = json_str_or(json_get(flow, S("state")), S(""));
        step = json_str_or(json_get(flow, S("step")), S(""));
        if (str_eqz(step, until_step) || str_eq(state, S("waiting")) ||
            (!str_eq(state, S("pending")) && !str_eq(state, S("sleeping"))) || time_mono_ns() > end)
            return arena_dupz(&world_arena, state);
        usleep(20000);
    }
}

static const char *in_work(const char *id, const char *name)
{
    return arena_printf(&world_arena, "%s/work/%s/%s", dir, id, name).p;
}

static int64_t count_of(const char *id, const char *file, const char *where)
{
    AUTO(lake_closep) struct lake *l = NULL;
    int64_t n = -1;

    CHECK_OK(lake_open(&(struct lake_config){.threads = 1}, &l, &e), &e);
    CHECK_OK(lake_scalar_i64(l,
                             arena_printf(&world_arena,
                                          "SELECT count(*) FROM read_parquet('%s') WHERE %s",
                                          in_work(id, file), where)
                                 .p,
                             NULL, 0, &n, &e),
             &e);
    return n;
}

static void test_dataset_only(void)
{
    const char *id;

    open_with(TREE("classification", XGB, FEATURES "'classes':['0','1'],"));
    write_data("1", "0");
    id = start("manual", "");
    CHECK_STR(str_of(run(id, "")), S("waiting")); /* for the child "register" */
    CHECK_INT(port.seals, 1);
    CHECK(file_exists(in_work(id, "out/model.json")));
    CHECK(file_exists(in_work(id, "out/metrics.json")));
    CHECK(file_exists(in_work(id, "manifest.json")));
    CHECK_INT(count_of(id, "train.parquet", "true") + count_of(id, "holdout.parquet", "true"), 400);
    CHECK_INT(count_of(id, "train.parquet", "\"select\" IS NULL"), 0);
    CHECK(count_of(id, "train.parquet", "\"x y\" IS NULL") > 20);
    CHECK_INT(count_of(id, "train.parquet", "y NOT IN ('0','1')"), 0);
    CHECK(count_of(id, "holdout.parquet", "true") > 40);
    CHECK_STR(fact_text("retrain.step", "data.step"), S("train"));
    CHECK(json_int_or(json_path(last_fact("retrain.step"), "data.metrics.rounds"), 0) == 5);
    close_all();
}

/* 1.0 in a column of doubles is the class "1". */
static void test_classes_are_text(void)
{
    const char *id;

    open_with(TREE("classification", XGB, FEATURES));
    write_data("1.0", "0.0");
    id = start("manual", "");
    CHECK_STR(str_of(run(id, "")), S("waiting"));
    CHECK_INT(count_of(id, "train.parquet", "y NOT IN ('0','1')"), 0);
    close_all();
    open_with(TREE("classification", XGB, FEATURES));
    write_data("yes", "no");
    id = start("manual", "");
    CHECK_STR(str_of(run(id, "")), S("waiting"));
    CHECK_INT(count_of(id, "train.parquet", "y NOT IN ('yes','no')"), 0);
    close_all();
}

static void test_regression(void)
{
    const char *id;

    open_with(TREE("regression", XGB, FEATURES));
    write_data("2.5", "-1");
    id = start("manual", "");
    CHECK_STR(str_of(run(id, "")), S("waiting"));
    CHECK(count_of(id, "train.parquet", "y = 2.5") > 100);
    close_all();
}

static void test_text_feature_is_refused_in_words(void)
{
    const char *id;

    open_with(TREE("classification", XGB, "'features':[{'name':'flag','type':'string'}],"));
    write_data("1", "0");
    id = start("manual", "");
    CHECK_STR(str_of(run(id, "")), S("failed"));
    CHECK(str_find(fact_text("retrain.failed", "data.error"), S("'flag' is text")) >= 0);
    close_all();
}

static void test_a_run_ends_as_it_began(void)
{
    const char *id;

    open_with(TREE("classification", XGB, FEATURES));
    write_data("1", "0");
    id = start("manual", ",'review':true");
    CHECK_STR(str_of(run(id, "")), S("waiting"));
    apply("{'models':{}}");
    CHECK_OK(flow_event(m, str_of(id), S("approve"),
                        json_of("{'approved':true,'actor':'user:ann','reason':'fine'}"), NULL, &e),
             &e);
    run(id, "");
    CHECK(file_exists(in_work(id, "out/model.json")));
    close_all();
}

static void test_retries_are_the_projects(void)
{
    const char *id;

    open_with(TREE("classification",
                   "'kind':'command','command':['/bin/sh','-c','echo it broke; exit 7'],"
                   "'retries':2,'retry_delay_ns':50000000",
                   FEATURES));
    write_data("1", "0");
    id = start("manual", "");
    CHECK_STR(str_of(run(id, "")), S("failed"));
    CHECK(str_find(fact_text("retrain.failed", "data.error"), S("after 3 attempts")) >= 0);
    CHECK(str_find(fact_text("retrain.failed", "data.error"), S("exit status 7")) >= 0);
    CHECK(str_find(fact_text("retrain.failed", "data.error"), S("it broke")) >= 0);
    close_all();
}

/* What a failed attempt left behind is no model of the next one, and the data cannot be changed. */
static void test_attempts_do_not_mix(void)
{
    const char *id;

    open_with(TREE("classification",
                   "'kind':'command','command':['/bin/sh','-c','test -e tried && exit 0; "
                   "touch tried; echo x > $WEIR_MODEL_OUT/model.onnx; exit 1'],"
                   "'retries':1,'retry_delay_ns':1000000",
                   FEATURES));
    write_data("1", "0");
    id = start("manual", "");
    CHECK_STR(str_of(run(id, "")), S("failed"));
    CHECK(str_find(fact_text("retrain.failed", "data.error"), S("left no model")) >= 0);
    close_all();
    open_with(TREE("classification",
                   "'kind':'command','command':['/bin/sh','-c','echo x >> $WEIR_TRAIN_DATA; exit "
                   "1'],'retries':1,'retry_delay_ns':1000000",
                   FEATURES));
    write_data("1", "0");
    id = start("manual", "");
    run(id, "");
    CHECK(str_find(fact_text("retrain.step", "data.error"), S("exit status 1")) >= 0 ||
          str_find(fact_text("retrain.failed", "data.error"), S("not what was frozen")) >= 0);
    close_all();
}

static void test_environment_of_a_command(void)
{
    const char *id;

    setenv("WEIR_TEST_SEEN", "yes", 1);
    setenv("WEIR_TEST_SECRET", "no", 1);
    open_with(TREE("classification",
                   "'kind':'command','command':['/bin/sh','-c','env; exit 1'],"
                   "'env':['WEIR_TEST_SEEN'],'retries':0",
                   FEATURES));
    write_data("1", "0");
    id = start("manual", "");
    run(id, "");
    {
        str log = S("");

        CHECK_OK(file_read_all(in_work(id, "trainer.log"), 1 << 20, &world_arena, &log, &e), &e);
        CHECK(str_find(log, S("WEIR_TEST_SEEN=yes")) >= 0);
        CHECK(str_find(log, S("WEIR_TEST_SECRET")) < 0);
        CHECK(str_find(log, S("WEIR_MODEL_OUT=")) >= 0);
    }
    close_all();
}

static void test_triage(void)
{
    static const struct {
        const char *feature, *verdict;
    } cases[] = {
        {"'missing_delta':0.9", "upstream_fault"},
        {"'change':'missing rate up to 0.25','missing_delta':0.2", "upstream_fault"},
        {"'missing_delta':0.2", "real"},
        {"'outside_delta':0.97", "upstream_fault"},
        {"'outside_delta':0.4,'mean_delta_sd':2", "real"},
        {"'variance_ratio':0", "upstream_fault"},
        {"'variance_ratio':0.5", "real"},
        {"'role':'output','variance_ratio':0", "real"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *id;

        open_with(TREE("classification", XGB, FEATURES));
        id =
            start("drift", arena_printf(&world_arena,
                                        ",'labels_min':10,'labels_wait_ns':3600000000000,"
                                        "'cause':{'features':[{'feature':'f','selected':true,%s}]}",
                                        cases[i].feature)
                               .p);
        run(id, "labels");
        CHECK_STR(fact_text("triage.finished", "data.verdict"), str_of(cases[i].verdict));
        CHECK_INT(fact_count("retrain.skipped"), strcmp(cases[i].verdict, "real") != 0);
        close_all();
    }
}

static void test_labels_and_cancel(void)
{
    const char *id;

    open_with(TREE("classification", XGB, FEATURES));
    port.labels_total = 105;
    id = start("drift", ",'labels_min':10,'labels_wait_ns':300000000,'labels_base':100");
    CHECK_STR(str_of(run(id, "")), S("done"));
    CHECK(str_find(fact_text("retrain.skipped", "reason"), S("5 of 10 labels")) >= 0);
    id = start("manual", ",'review':true");
    run(id, "");
    CHECK_OK(meta_kv_put(m, S("rollout.wanted"), str_of(id), json_of("{}"), &e), &e);
    CHECK_OK(flow_cancel(m, str_of(id), S("no"), &e), &e);
    CHECK_STR(str_of(run(id, "")), S("cancelled"));
    CHECK_STR(fact_text("retrain.failed", "data.state"), S("cancelled"));
    {
        struct json *wanted = NULL;

        CHECK_OK(meta_kv_get(m, S("rollout.wanted"), str_of(id), &world_arena, &wanted, &e), &e);
        CHECK(!wanted);
    }
    close_all();
}

static void test_sweep(void)
{
    const char *id;
    int64_t removed;

    open_with(TREE("classification", XGB, FEATURES));
    write_data("1", "0");
    id = start("manual", "");
    run(id, "");
    CHECK_OK(file_make_dirs(in_work(id, "out/a/b"), &e), &e);
    CHECK(symlink("/", in_work(id, "out/a/root")) == 0);
    CHECK_OK(file_make_dirs(in_work("not-a-flow", "x"), &e), &e);
    CHECK_OK(retrain_sweep(&env, m, time_wall_ns(), 0, &removed, &e), &e);
    CHECK_INT(removed, 0); /* it waits for its registration */
    CHECK_OK(flow_cancel(m, str_of(id), S("no"), &e), &e);
    run(id, "");
    CHECK_OK(retrain_sweep(&env, m, time_wall_ns(), NS_PER_S * 3600, &removed, &e), &e);
    CHECK_INT(removed, 0);
    CHECK_OK(retrain_sweep(&env, m, time_wall_ns() + NS_PER_S, 0, &removed, &e), &e);
    CHECK_INT(removed, 1);
    CHECK(!file_exists(in_work(id, "manifest.json")) && file_exists("/bin/sh"));
    CHECK(file_exists(in_work("not-a-flow", "x")));
    close_all();
}

static const struct check_test tests[] = {
    T(test_dataset_only),
    T(test_classes_are_text),
    T(test_regression),
    T(test_text_feature_is_refused_in_words),
    T(test_a_run_ends_as_it_began),
    T(test_retries_are_the_projects),
    T(test_attempts_do_not_mix),
    T(test_environment_of_a_command),
    T(test_triage),
    T(test_labels_and_cancel),
    T(test_sweep),
};

int main(int argc, char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (argc > 1 && strcmp(argv[1], "trainer-xgboost") == 0)
        return retrain_xgboost_main(argc, argv);
    self[n > 0 ? n : 0] = '\0';
    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}
