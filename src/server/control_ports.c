/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ports: what retraining, registering and the API are given of the rest. Those for flow workers
 * touch nothing of the control thread but the tally (locked) and the mailbox.
 */
#include "base/mem.h"
#include "evaluate/evaluate.h"
#include "project/cron.h"
#include "registry/pipeline.h"
#include "server/control.h"

struct seal_mail {
    struct mail mail;
};

static int64_t labels_since(void *ctx, str endpoint, int64_t wall_ns)
{
    return tally_labels_since(&((struct control *)ctx)->tally, endpoint, wall_ns);
}

static int64_t labels_total(void *ctx, str endpoint)
{
    return tally_labels_total(&((struct control *)ctx)->tally, endpoint);
}

static int drifting(void *ctx, str endpoint)
{
    return tally_is_drifting(&((struct control *)ctx)->tally, endpoint);
}

/* From a worker: the control thread owns the links. */
static void seal_from_worker(void *ctx)
{
    struct control *c = ctx;
    struct seal_mail *m = mem_zalloc(sizeof(*m));

    mailbox_post(&c->news, &m->mail);
}

static int64_t cron_next_of(void *ctx, str expression, int64_t after_ns)
{
    struct cron cron;
    struct err e;

    (void)ctx;
    return cron_parse(expression, &cron, &e) ? INT64_MAX : cron_next(&cron, after_ns);
}

static int applied_tree(void *ctx, struct meta *m, struct arena *a, struct json **ret_tree,
                        struct err *e)
{
    struct json *applied;

    (void)ctx;
    TRY(meta_kv_get(m, S("project"), S("applied"), a, &applied, e));
    *ret_tree = applied ? json_get(applied, S("tree")) : NULL;
    return 0;
}

/* --- The gate --------------------------------------------------------------------------------- */

static NODISCARD int evaluate_one(struct control *c, struct meta *m, str model, int64_t version,
                                  const struct table *t, str label, const struct eval_config *cfg,
                                  const char *work_dir, struct arena *a, struct eval_result *ret,
                                  struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    const struct score_env env = {.self = c->self, .work_dir = work_dir};
    struct eval_request req = {.version = version, .table = t, .label = label, .config = cfg};
    struct json *meta;
    str artifact;
    char *path;

    TRY(meta_first(m, "SELECT artifact, meta FROM model_versions WHERE model = ? AND version = ?",
                   M_ARGS(M_STR(model), M_INT(version)), &rows, e));
    if (!rows)
        return FAIL(e, NOT_FOUND, "model '" STR_F "' has no version %lld", STR_A(model),
                    (long long)version);
    artifact = meta_str_dup(rows, 0, a);
    TRY(json_parse(meta_str_dup(rows, 1, a), a, &meta, e));
    meta_rows_close(TAKE(rows));
    TRY(blobs_path(c->blobs, artifact, a, &path, e));
    TRY(blobs_size(c->blobs, artifact, &req.size_bytes, e));
    req.path = path;
    req.platform = json_str_or(json_get(meta, S("platform")), S("onnxruntime_onnx"));
    req.signature = json_get(meta, S("signature"));
    return evaluate_version(&env, &req, ret, e);
}

static NODISCARD int holdout_read(const char *path, str label, bool regression, struct table *ret,
                                  struct err *e)
{
    const str as_text[] = {label};

    return table_read(&(struct table_query){.path = path,
                                            .format = S("parquet"),
                                            .as_text = as_text,
                                            .as_text_count = regression ? 0 : 1,
                                            .order_by = S("__ts"),
                                            .rows_max = 200000},
                      ret, e);
}

static int gate(void *ctx, struct meta *m, const struct json *project, str model, int64_t candidate,
                int64_t champion, const char *holdout, const char *work_dir, struct arena *a,
                struct json **ret_report, struct err *e)
{
    struct control *c = ctx;
    const struct json *section = json_get(json_get(project, S("models")), model);
    str label = json_str_or(json_get(section, S("label")), S("__label"));
    AUTO(table_done) struct table t = {0};
    AUTO(eval_result_done) struct eval_result best = {0}, fresh = {0};
    struct eval_judgement judgement;
    struct eval_config cfg;

    TRY(evaluate_config_read(section, &cfg, e));
    TRY(holdout_read(holdout, label, cfg.regression, &t, e));
    TRY(evaluate_one(c, m, model, candidate, &t, label, &cfg, work_dir, a, &fresh, e));
    if (champion)
        TRY(evaluate_one(c, m, model, champion, &t, label, &cfg, work_dir, a, &best, e));
    TRY(evaluate_gate(&cfg, champion ? &best : NULL, &fresh, a, &judgement, e));
    *ret_report = evaluate_report(&fresh, champion ? &best : NULL, &judgement, a);
    return registry_version_annotate(m, model, candidate, S("evaluation"), *ret_report, e);
}

static int prepare(void *ctx, const struct json *project, str model, const char *train, str label,
                   const char *to, const char *work_dir, struct arena *a,
                   struct json **ret_document, struct err *e)
{
    const struct json *section = json_get(json_get(project, S("models")), model);
    const struct pipeline_source source = {.path = train,
                                           .format = S("parquet"),
                                           .label = label,
                                           .time = S("__ts"),
                                           .tmp_dir = work_dir};
    const str keep[] = {label, S("__ts")};
    int64_t rows;

    (void)ctx;
    *ret_document = NULL;
    if (!pipeline_declared(section))
        return 0;
    TRY(pipeline_make(section, &source, a, ret_document, e));
    return pipeline_transform(*ret_document, &source, keep, ARRAY_LEN(keep), to, &rows, e);
}

/* --- The API ---------------------------------------------------------------------------------- */

static void status(void *ctx, struct json_out *o)
{
    struct control *c = ctx;

    jo_kstr(o, S("plan"), str_of(c->plan));
    jo_kbool(o, S("plan_live"), c->plan[0] && gateways_all_serve(&c->gateways, c->plan));
    jo_key(o, S("gateways"));
    jo_array(o);
    for (const struct gateway_peer *p = c->gateways.first; p; p = p->next) {
        jo_object(o);
        jo_kstr(o, S("gateway"), str_of(p->name));
        jo_kint(o, S("pid"), p->pid);
        jo_kint(o, S("port"), p->port);
        jo_kstr(o, S("plan"), str_of(p->live));
        if (p->refused[0]) {
            jo_kstr(o, S("refused"), str_of(p->refused));
            jo_kstr(o, S("reason"), str_of(p->reason));
        }
        jo_kint(o, S("digests"), (int64_t)p->digests);
        jo_kint(o, S("lost_digests"), (int64_t)p->lost_digests);
        jo_kbool(o, S("disk_failing"), p->disk_failing);
        jo_object_end(o);
    }
    jo_array_end(o);
}

static void api_seal(void *ctx)
{
    gateways_seal(&((struct control *)ctx)->gateways);
}

static void api_changed(void *ctx)
{
    ((struct control *)ctx)->plan_stale = true;
}

static int api_retrain(void *ctx, struct meta *m, const struct api_retrain *what, char ret_flow[64],
                       struct err *e)
{
    struct control *c = ctx;
    const struct json *ep;
    struct retrain_request q = {.model = what->model,
                                .endpoint = what->endpoint,
                                .trigger = S("manual"),
                                .kind = S("manual"),
                                .actor = what->actor,
                                .reason = what->reason,
                                .override_cooldown = what->override_cooldown};
    struct retrain_answer answer;

    if (!c->project)
        return FAIL(e, FAILED_PRECONDITION, "no project is applied: run weir apply");
    if (!q.model.n) {
        ep = json_get(json_get(c->project, S("endpoints")), q.endpoint);
        if (!ep)
            return FAIL(e, NOT_FOUND, "the project has no endpoint '" STR_F "'", STR_A(q.endpoint));
        q.model = json_str_or(json_get(ep, S("model")), S(""));
    }
    TRY(retrain_ask(&c->retrain, m, c->project, &q, &answer, e));
    if (!answer.started && !answer.flow[0])
        return FAIL(e, FAILED_PRECONDITION, "the run was not started: %s", answer.why);
    memcpy(ret_flow, answer.flow, sizeof(answer.flow));
    return 0;
}

void control_api_context(struct control *c, struct api_context *ret)
{
    *ret = (struct api_context){.store = c->store,
                                .meta = c->meta,
                                .blobs = c->blobs,
                                .project_dir = c->options->project_dir,
                                .state_dir = c->options->state_dir,
                                .watch = c->watch,
                                .rollouts = c->rollouts,
                                .ctx = c,
                                .status = status,
                                .seal = api_seal,
                                .changed = api_changed,
                                .retrain = api_retrain};
}

void control_ports(struct control *c)
{
    c->registry = (struct registry_env){.store = c->store,
                                        .blobs = c->blobs,
                                        .project_dir = c->options->project_dir,
                                        .state_dir = c->options->state_dir,
                                        .self = c->self,
                                        .project = applied_tree};
    c->retrain = (struct retrain_env){.store = c->store,
                                      .blobs = c->blobs,
                                      .project_dir = c->options->project_dir,
                                      .state_dir = c->options->state_dir,
                                      .self = c->self,
                                      .ports = {.ctx = c,
                                                .seal = seal_from_worker,
                                                .labels_since = labels_since,
                                                .labels_total = labels_total,
                                                .drifting = drifting,
                                                .cron_next = cron_next_of,
                                                .gate = gate,
                                                .prepare = prepare}};
}
