/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building what a plan says, off the loops.
 *
 * References: a served_plan holds its endpoints, an endpoint the models of its versions. Sharing is
 * looked up in the previous plan only; there is no global cache to fall out of step. What no plan
 * and no shadow job holds any more is unloaded by whoever lets go last.
 *
 * Invariants: everything reachable from a published plan is immutable, except lanes (each owned by
 * one loop) and counters. Columns without cells are legal; a model without flat columns is served,
 * its requests are counted and timed, but has no features on record.
 */
#include "serve/served.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/time.h"
#include "serve/fallback.h"
#include "serve/profile.h"

#include <stdatomic.h>

#define COST_RUNS 3
#define COST_ENOUGH_NS (20 * NS_PER_MS) /* so slow that no second run could change the verdict */
#define FLAT_OUTPUTS_MAX 64u            /* output numbers of a row that go on record */

static uint64_t models_unloaded; /* atomic */

uint64_t served_models_unloaded(void)
{
    return __atomic_load_n(&models_unloaded, __ATOMIC_RELAXED);
}

/* --- Models --------------------------------------------------------------------------------- */

static void served_model_unref(struct served_model *m)
{
    if (!m || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    crew_free(m->crew);
    for (uint32_t i = 0; i < m->lane_count; i++)
        runtime_slot_free(m->lanes[i].slot);
    runtime_unload(m->model);
    __atomic_add_fetch(&models_unloaded, 1, __ATOMIC_RELAXED);
    mem_free((char *)m->key.p);
    mem_free(m);
}
DEFINE_AUTO_PTR(struct served_model, served_model_unref)

static struct served_model *model_find(struct served_plan *previous, str key)
{
    for (size_t i = 0; previous && i < previous->endpoint_count; i++) {
        struct served_endpoint *ep = previous->endpoints[i];

        for (size_t v = 0; v < ep->version_count; v++)
            if (str_eq(ep->versions[v].model->key, key))
                return ep->versions[v].model;
    }
    return NULL;
}

/* Inputs of one row of zeros and empty texts. False where the model does not say what a row is. */
static bool one_row(struct runtime_slot *s)
{
    for (uint32_t i = 0; !s->model->batched && i < s->model->input_count; i++) {
        struct tensor *t = &s->inputs[i];
        int64_t count;

        if (!tensor_shape_count(t->spec->shape, t->spec->rank, &count))
            return false;
        t->rank = t->spec->rank;
        memcpy(t->shape, t->spec->shape, sizeof(t->shape));
        t->count = (size_t)count;
        t->bytes = t->count * tensor_type_bytes(t->spec->datatype);
    }
    return true;
}

/* What one row alone costs: the least of some runs on memory that is still all zeros, which also
 * warm the model up. 0 when it cannot be told. */
static int64_t row_cost_ns(struct runtime_slot *s)
{
    int64_t least = INT64_MAX;
    struct err e;

    if (!one_row(s))
        return 0;
    for (int i = 0; i < COST_RUNS && (!i || least < COST_ENOUGH_NS); i++) {
        int64_t start = time_mono_ns();

        if (runtime_run(s, s->model->batched ? 1 : 0, 0, &e))
            return 0;
        least = MIN(least, time_mono_ns() - start);
    }
    return least;
}

static NODISCARD int model_load(const struct served_config *cfg, const struct plan_version *v,
                                const struct plan_compute *compute, str key, uint32_t rows,
                                struct served_model **ret_model, struct err *e)
{
    uint32_t lanes = 2 * cfg->loops + 1;
    AUTO(served_model_unrefp)
    struct served_model *m = mem_zalloc(sizeof(struct served_model) + lanes * sizeof(struct lane));
    AUTO(arena_done) struct arena a = {0};
    struct runtime_options options = {.threads = compute->threads, .work_dir = cfg->work_dir};
    char *path;

    arena_init(&a, 0);
    m->refs = 1;
    m->key = (str){mem_dupz(key.p, key.n), key.n};
    m->lane_rows = rows;
    m->lane_count = lanes;
    TRY(blobs_path(cfg->blobs, v->artifact, &a, &path, e));
    TRY(runtime_load(v->platform, path, &options, &m->model, e));
    TRY(runtime_slot_new(m->model, rows, 0, &m->lanes[cfg->loops].slot, e));
    m->slow = m->model->engine->blocking || row_cost_ns(m->lanes[cfg->loops].slot) > SERVED_SLOW_NS;
    *ret_model = TAKE(m);
    return 0;
}

/* Slots for the lanes [from, from + loops) that have none. */
static NODISCARD int lanes_make(const struct served_config *cfg, struct served_model *m,
                                uint32_t from, struct err *e)
{
    for (uint32_t i = from; i < from + cfg->loops; i++)
        if (!m->lanes[i].slot)
            TRY(runtime_slot_new(m->model, m->lane_rows, 0, &m->lanes[i].slot, e));
    return 0;
}

/* Makes what is missing for the model to run in this place. A model that another endpoint runs in
 * the other place has both. */
static NODISCARD int model_place(const struct served_config *cfg, struct served_model *m,
                                 const struct plan_compute *compute, bool in_crew, struct err *e)
{
    uint32_t workers = compute->workers ? compute->workers : cfg->loops / compute->threads;

    if (in_crew && !m->crew)
        return crew_new(m->model, CLAMP(workers, 1u, (uint32_t)CREW_WORKERS_MAX), m->lane_rows,
                        &m->crew, e);
    return in_crew ? 0 : lanes_make(cfg, m, 0, e);
}

/* One place for all versions of an endpoint, so that a request can be read before it is routed. */
static NODISCARD int models_place(const struct served_config *cfg, struct served_endpoint *ep,
                                  struct err *e)
{
    const struct plan_compute *compute = &ep->plan.compute;

    ep->in_crew = compute->place == PLAN_PLACE_CREW;
    for (size_t i = 0; compute->place == PLAN_PLACE_AUTO && i < ep->version_count; i++)
        ep->in_crew |= ep->versions[i].model->slow;
    for (size_t i = 0; i < ep->version_count; i++) {
        struct served_version *v = &ep->versions[i];

        TRY(model_place(cfg, v->model, compute, ep->in_crew, e));
        if (!ep->in_crew && served_fallback_has(ep, v))
            TRY(lanes_make(cfg, v->model, cfg->loops + 1, e));
    }
    return 0;
}

static NODISCARD int model_get(const struct served_config *cfg, struct served_plan *previous,
                               struct served_endpoint *ep, const struct plan_version *v,
                               struct served_model **ret_model, struct err *e)
{
    uint32_t rows = MIN(SERVED_LANE_ROWS_MIN + ep->plan.rows_max, (uint32_t)RUNTIME_ROWS_MAX);
    const struct plan_compute *compute = &ep->plan.compute;
    str key = arena_printf(&ep->arena, STR_F ":" STR_F ":%u:%u:%u", STR_A(v->platform),
                           STR_A(v->artifact), rows, compute->workers, compute->threads);
    struct served_model *m = model_find(previous, key);

    /* Another version of this endpoint may be the same file: a re-registered model. */
    for (size_t i = 0; !m && i < ep->version_count; i++)
        if (str_eq(ep->versions[i].model->key, key))
            m = ep->versions[i].model;
    if (!m)
        return model_load(cfg, v, compute, key, rows, ret_model, e);
    __atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);
    *ret_model = m;
    return 0;
}

/* --- What goes on record -------------------------------------------------------------------- */

static enum record_type record_type_of(enum tensor_type type)
{
    switch (tensor_type_kind(type)) {
    case TENSOR_KIND_TEXT:
        return RECORD_STR;
    case TENSOR_KIND_HALF:
        return RECORD_F32;
    case TENSOR_KIND_FLOAT:
        return type == TENSOR_FP32 ? RECORD_F32 : RECORD_F64;
    default:
        return RECORD_I64;
    }
}

/* Elements of a row over all tensors, or 0 when some tensor is not flat, or they are too many. */
static uint32_t flat_elements(const struct tensor_spec *specs, uint32_t n, uint32_t max)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        int64_t elements = tensor_row_elements(&specs[i]);

        if (elements <= 0)
            return 0;
        sum += (uint64_t)elements;
    }
    return sum <= max ? (uint32_t)sum : 0;
}

static str column_name(struct served_endpoint *ep, const struct tensor_spec *specs, uint32_t tensor,
                       uint32_t element, bool is_input)
{
    const struct plan_signature *sig = &ep->plan.signature;

    for (uint32_t c = 0; is_input && c < sig->column_count; c++)
        if (sig->columns[c].tensor == tensor && sig->columns[c].position == element)
            return sig->columns[c].name;
    if (tensor_row_elements(&specs[tensor]) == 1)
        return specs[tensor].name;
    return arena_printf(&ep->arena, STR_F "_%u", STR_A(specs[tensor].name), element);
}

static struct record_column *columns_add(struct served_endpoint *ep,
                                         const struct tensor_spec *specs, uint32_t n, bool is_input,
                                         struct record_column *at)
{
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = 0; i < tensor_row_elements(&specs[t]); i++)
            *at++ = (struct record_column){.name = column_name(ep, specs, t, i, is_input),
                                           .type = record_type_of(specs[t].datatype)};
    return at;
}

/* The index among the flat outputs of the first element of output `tensor`. */
static uint32_t output_at(const struct plan_signature *sig, int32_t tensor)
{
    uint32_t at = 0;

    for (int32_t t = 0; t < tensor; t++)
        at += (uint32_t)tensor_row_elements(&sig->outputs[t]);
    return at;
}

/* What a label will be compared with: the class by probabilities first, since they give the paired
 * losses a finer grain; then the class itself; then the value. */
static void set_target(const struct plan_signature *sig, struct record_schema_def *def)
{
    const struct plan_reading *r = &sig->reading;
    bool classes_fit = r->class_count >= 2 && r->class_count <= RECORD_CLASSES_MAX;

    def->class_names = r->classes;
    if (r->probabilities >= 0 && classes_fit) {
        def->target = RECORD_TARGET_ARGMAX;
        def->target_at = output_at(sig, r->probabilities);
        def->class_count = (uint32_t)r->class_count;
        if (r->class_count == 2 && r->positive == 1) {
            def->target = RECORD_TARGET_SCORE;
            def->target_at += 1;
            def->threshold = r->threshold == r->threshold ? r->threshold : 0.5;
        }
    } else if (r->label >= 0 && classes_fit) {
        def->target = RECORD_TARGET_CLASS;
        def->target_at = output_at(sig, r->label);
        def->class_count = (uint32_t)r->class_count;
    } else if (r->value >= 0) {
        def->target = RECORD_TARGET_VALUE;
        def->target_at = output_at(sig, r->value);
    }
}

static NODISCARD int schema_make(const struct served_config *cfg, struct served_endpoint *ep,
                                 struct served_version *v, struct err *e)
{
    const struct plan_signature *sig = &ep->plan.signature;
    uint32_t features = flat_elements(sig->inputs, sig->input_count, RECORD_COLUMNS_MAX / 2);
    uint32_t outputs = flat_elements(sig->outputs, sig->output_count, FLAT_OUTPUTS_MAX);
    struct record_schema_def def = {.endpoint = ep->plan.name,
                                    .version = v->text,
                                    .feature_count = features,
                                    .output_count = outputs};
    struct record_column *columns;

    if (!cfg->records)
        return 0;
    if ((!features || !outputs) && ep->plan.durable_log)
        return FAIL(e, FAILED_PRECONDITION,
                    "a durable log needs rows of fixed width, at most %u inputs and %u outputs: "
                    "switch durable_log off for this model",
                    RECORD_COLUMNS_MAX / 2, FLAT_OUTPUTS_MAX);
    if (!features || !outputs)
        return 0;
    columns = ARENA_ARRAY(&ep->arena, struct record_column, features + outputs);
    columns_add(ep, sig->outputs, sig->output_count, false,
                columns_add(ep, sig->inputs, sig->input_count, true, columns));
    def.columns = columns;
    set_target(sig, &def);
    if (cfg->cells && v->plan->profile.n)
        TRY(profile_cells_load(cfg->blobs, v->plan->profile, columns, features + outputs,
                               &ep->arena, &def.cells, e));
    return record_schema_add(&def, &v->schema, e);
}

/* --- Endpoints ------------------------------------------------------------------------------ */

struct served_endpoint *served_endpoint_ref(struct served_endpoint *ep)
{
    __atomic_add_fetch(&ep->refs, 1, __ATOMIC_RELAXED);
    return ep;
}

void served_endpoint_unref(struct served_endpoint *ep)
{
    if (!ep || __atomic_sub_fetch(&ep->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < ep->version_count; i++)
        served_model_unref(ep->versions[i].model);
    replay_window_unref(ep->window);
    arena_done(&ep->arena);
    mem_free(ep);
}
DEFINE_AUTO_PTR(struct served_endpoint, served_endpoint_unref)

static bool specs_equal(const struct tensor_spec *a, uint32_t a_n, const struct tensor_spec *b,
                        uint32_t b_n)
{
    if (a_n != b_n)
        return false;
    for (uint32_t i = 0; i < a_n; i++)
        if (!str_eq(a[i].name, b[i].name) || a[i].datatype != b[i].datatype ||
            a[i].rank != b[i].rank ||
            memcmp(a[i].shape, b[i].shape, a[i].rank * sizeof(a[i].shape[0])) != 0)
            return false;
    return true;
}

/* The part says what the model takes; the model file says it too. They must agree before one
 * request is read into the model's memory. */
static NODISCARD int check_model(const struct served_endpoint *ep, const struct runtime_model *m,
                                 uint32_t version, struct err *e)
{
    const struct plan_signature *sig = &ep->plan.signature;

    if (!specs_equal(sig->inputs, sig->input_count, m->inputs, m->input_count) ||
        !specs_equal(sig->outputs, sig->output_count, m->outputs, m->output_count))
        return FAIL(e, FAILED_PRECONDITION,
                    "endpoint '" STR_F
                    "': the file of version %u does not have the inputs and outputs "
                    "of its signature; register the model again",
                    STR_A(ep->plan.name), version);
    return 0;
}

static NODISCARD int version_make(const struct served_config *cfg, struct served_plan *previous,
                                  struct served_endpoint *ep, const struct plan_version *pv,
                                  uint8_t arm, struct err *e)
{
    struct served_version *v = &ep->versions[ep->version_count];

    v->plan = pv;
    v->arm = arm;
    v->text = arena_printf(&ep->arena, "%u", pv->version);
    TRY(model_get(cfg, previous, ep, pv, &v->model, e));
    ep->version_count++; /* from here on the endpoint's destructor lets go of the model */
    TRY(check_model(ep, v->model->model, pv->version, e));
    TRY(schema_make(cfg, ep, v, e));
    infer_response_plan_init(&v->response, ep->plan.name, v->text, &ep->schema, &ep->arena);
    infer_pb_plan_init(&v->response_pb, ep->plan.name, v->text, &ep->schema, &ep->arena);
    v->counters = counters_series(ep->plan.name, v->text, pv->arm, cfg->loops);
    if (!v->counters)
        return FAIL(e, RESOURCE_EXHAUSTED, "more than %d series of counters", COUNTERS_SERIES_MAX);
    ep->batched = v->model->model->batched;
    if (pv->shadow)
        ep->shadow = v;
    else if (pv->weight && !ep->champion)
        ep->champion = v;
    return 0;
}

/* Rows by name fill whole rows of all inputs, or what is left open would be another request's. */
static NODISCARD int fields_make(struct served_endpoint *ep, struct err *e)
{
    const struct plan_signature *sig = &ep->plan.signature;

    if (!sig->column_count)
        return 0;
    TRY(field_table_init(&ep->fields, sig->columns, sig->column_count, &ep->arena, e));
    if (ep->fields.tensor_count != sig->input_count)
        return FAIL(e, INVALID_ARGUMENT, "columns fill %u of %u inputs", ep->fields.tensor_count,
                    sig->input_count);
    for (uint32_t i = 0; i < sig->input_count; i++)
        if (ep->fields.row_elements[i] != tensor_row_elements(&sig->inputs[i]))
            return FAIL(e, INVALID_ARGUMENT,
                        "columns fill %u of %lld elements of input '" STR_F "'",
                        ep->fields.row_elements[i], (long long)tensor_row_elements(&sig->inputs[i]),
                        STR_A(sig->inputs[i].name));
    return 0;
}

static NODISCARD int endpoint_fill(const struct served_config *cfg, struct served_plan *previous,
                                   struct served_endpoint *ep, struct err *e)
{
    const struct plan_signature *sig = &ep->plan.signature;
    uint8_t next_arm = 1;

    ep->unready = counters_series(ep->plan.name, S("none"), S("none"), cfg->loops);
    if (!ep->unready)
        return FAIL(e, RESOURCE_EXHAUSTED, "more than %d series of counters", COUNTERS_SERIES_MAX);
    ep->schema =
        (struct infer_schema){sig->inputs, sig->input_count, sig->outputs, sig->output_count, true};
    for (size_t i = 0; i < ep->plan.version_count && !ep->unloaded; i++) {
        const struct plan_version *pv = &ep->plan.versions[i];
        bool first = !pv->shadow && pv->weight && !ep->champion;

        TRY(version_make(cfg, previous, ep, pv, first ? 0 : next_arm++, e));
    }
    ep->schema.batched = ep->batched;
    ep->limit = gcra_of(ep->plan.limit);
    if (cfg->guard)
        TRY(guard_endpoint_bucket(cfg->guard, ep->plan.name, &ep->bucket, e));
    TRY(served_fallback_make(ep, cfg->loops, e));
    TRY(served_window_make(ep, previous ? served_plan_find(previous, ep->plan.name) : NULL,
                           cfg->loops, e));
    TRY(models_place(cfg, ep, e));
    return fields_make(ep, e);
}

static NODISCARD int endpoint_new(const struct served_config *cfg, struct served_plan *previous,
                                  const struct plan_endpoint *want, struct served_endpoint **ret_ep,
                                  struct err *e)
{
    AUTO(served_endpoint_unrefp)
    struct served_endpoint *ep = mem_zalloc(sizeof(*ep));

    ep->refs = 1;
    ep->unloaded = served_is_unloaded(cfg->unloaded, want->name, want->hash);
    arena_init(&ep->arena, 0);
    TRY(plan_endpoint_load(cfg->blobs, want, &ep->arena, &ep->plan, e));
    if (endpoint_fill(cfg, previous, ep, e))
        return err_context(e, "endpoint '" STR_F "'", STR_A(ep->plan.name));
    *ret_ep = TAKE(ep);
    return 0;
}

bool served_is_unloaded(const struct served_unloaded *list, str name, str hash)
{
    for (; list; list = list->next)
        if (str_eq(list->name, name) && str_eqz(hash, list->hash))
            return true;
    return false;
}

static struct served_endpoint *endpoint_reuse(const struct served_config *cfg,
                                              struct served_plan *previous,
                                              const struct plan_endpoint *want)
{
    struct served_endpoint *ep = previous ? served_plan_find(previous, want->name) : NULL;

    if (!ep || !str_eq(ep->plan.hash, want->hash) ||
        ep->unloaded != served_is_unloaded(cfg->unloaded, want->name, want->hash))
        return NULL;
    return served_endpoint_ref(ep);
}

/* --- Plans ---------------------------------------------------------------------------------- */

void served_plan_stop_crews(struct served_plan *p)
{
    for (size_t i = 0; i < p->endpoint_count; i++)
        for (size_t v = 0; v < p->endpoints[i]->version_count; v++)
            crew_stop(p->endpoints[i]->versions[v].model->crew);
}

struct served_plan *served_plan_ref(struct served_plan *p)
{
    __atomic_add_fetch(&p->refs, 1, __ATOMIC_RELAXED);
    return p;
}

void served_plan_unref(struct served_plan *p)
{
    if (!p || __atomic_sub_fetch(&p->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < p->endpoint_count; i++)
        served_endpoint_unref(p->endpoints[i]);
    auth_unref(p->auth);
    arena_done(&p->arena);
    mem_free(p);
}

static void index_names(struct served_plan *p)
{
    uint32_t size = 16;

    while (size < p->endpoint_count * 2)
        size *= 2;
    p->slots = ARENA_ARRAY(&p->arena, uint32_t, size);
    p->slot_mask = size - 1;
    for (size_t i = 0; i < p->endpoint_count; i++) {
        uint32_t at = (uint32_t)hash_str(p->endpoints[i]->plan.name, 0) & p->slot_mask;

        while (p->slots[at])
            at = (at + 1) & p->slot_mask;
        p->slots[at] = (uint32_t)i + 1;
    }
}

struct served_endpoint *served_plan_find(const struct served_plan *p, str name)
{
    uint32_t at = (uint32_t)hash_str(name, 0) & p->slot_mask;

    for (; p->slots[at]; at = (at + 1) & p->slot_mask) {
        struct served_endpoint *ep = p->endpoints[p->slots[at] - 1];

        if (str_eq(ep->plan.name, name))
            return ep;
    }
    return NULL;
}

/* A model may be of several versions: one that holds it open wins, then one that holds it closed.
 */
static enum plan_breaker stronger(enum plan_breaker a, enum plan_breaker b)
{
    if (a == PLAN_BREAKER_OPEN || b == PLAN_BREAKER_OPEN)
        return PLAN_BREAKER_OPEN;
    return a == PLAN_BREAKER_CLOSED ? a : b;
}

static void model_hold(struct served_model *m)
{
    static const enum runtime_force of[] = {[PLAN_BREAKER_AUTO] = RUNTIME_FORCE_NONE,
                                            [PLAN_BREAKER_OPEN] = RUNTIME_FORCE_OPEN,
                                            [PLAN_BREAKER_CLOSED] = RUNTIME_FORCE_CLOSED};

    if (m->held == m->wanted) /* forcing anew would forget failures */
        return;
    m->held = m->wanted;
    runtime_force(m->model, of[m->held]);
}

/* The plan cannot fail any more. */
static void breakers_hold(struct served_plan *p)
{
    for (size_t i = 0; i < p->endpoint_count; i++)
        for (size_t v = 0; v < p->endpoints[i]->version_count; v++)
            p->endpoints[i]->versions[v].model->wanted = PLAN_BREAKER_AUTO;
    for (size_t i = 0; i < p->endpoint_count; i++)
        for (size_t v = 0; v < p->endpoints[i]->version_count; v++) {
            struct served_version *sv = &p->endpoints[i]->versions[v];

            sv->model->wanted = stronger(sv->model->wanted, sv->plan->breaker);
        }
    for (size_t i = 0; i < p->endpoint_count; i++)
        for (size_t v = 0; v < p->endpoints[i]->version_count; v++)
            model_hold(p->endpoints[i]->versions[v].model);
}

int served_plan_new(const struct served_config *cfg, str root_hash, struct served_plan *previous,
                    struct served_plan **ret_plan, struct err *e)
{
    AUTO(served_plan_unrefp) struct served_plan *p = mem_zalloc(sizeof(*p));
    struct plan *plan;

    p->refs = 1;
    arena_init(&p->arena, 0);
    TRY(plan_root_load(cfg->blobs, root_hash, &p->arena, &plan, e));
    memcpy(p->hash, plan->hash, sizeof(p->hash));
    if (cfg->guard)
        TRY(auth_new(cfg->guard, cfg->blobs, plan->auth, cfg->is_local,
                     previous ? previous->auth : NULL, &p->auth, e));
    p->endpoints = ARENA_ARRAY(&p->arena, struct served_endpoint *, plan->endpoint_count);
    for (size_t i = 0; i < plan->endpoint_count; i++) {
        struct served_endpoint *ep = endpoint_reuse(cfg, previous, &plan->endpoints[i]);

        if (!ep)
            TRY(endpoint_new(cfg, previous, &plan->endpoints[i], &ep, e));
        p->endpoints[p->endpoint_count++] = ep;
    }
    index_names(p);
    breakers_hold(p);
    *ret_plan = TAKE(p);
    return 0;
}

struct served_version *served_version_of(struct served_endpoint *ep, const struct plan_version *v)
{
    return v ? &ep->versions[v - ep->plan.versions] : NULL;
}

struct served_version *served_version_find(struct served_endpoint *ep, str version)
{
    for (size_t i = 0; i < ep->version_count; i++)
        if (str_eq(ep->versions[i].text, version))
            return &ep->versions[i];
    return NULL;
}
