/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ONNX models through ONNX Runtime: loading, and what the model says of itself.
 *
 * One thread computes a run, the thread that asks for it: the loops of the gateway are the
 * parallelism, and threads of the library would only take their cores (spinning ones all the time).
 * Memory comes from malloc and goes back to it. The library's own arena keeps the peak of each
 * session for ever, and gains nothing measurable for models of the gateway's size; the same goes
 * for memory patterns, which need equal shapes run after run.
 *
 * Refused at load, because a request could not be answered later: inputs or outputs that are not
 * tensors (the ZipMap of scikit-learn converters), and element types that the protocol lacks.
 */
#include "serve/runtime/ort.h"

#include "base/files.h"
#include "base/mem.h"

static const struct {
    enum tensor_type ours;
    ONNXTensorElementDataType theirs;
} types[] = {
    {TENSOR_FP32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {TENSOR_FP64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
    {TENSOR_FP16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {TENSOR_BF16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16},
    {TENSOR_INT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {TENSOR_INT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16},
    {TENSOR_INT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {TENSOR_INT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {TENSOR_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
    {TENSOR_UINT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16},
    {TENSOR_UINT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32},
    {TENSOR_UINT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64},
    {TENSOR_BOOL, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},
    {TENSOR_BYTES, ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING},
};

ONNXTensorElementDataType ort_type_of(enum tensor_type type)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i].ours == type)
            return types[i].theirs;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

static int options_set(const OrtApi *api, const struct runtime_options *options,
                       OrtSessionOptions *o, struct err *e)
{
    const char *doing = "setting up the ONNX session";

    ORT_TRY(api, api->SetIntraOpNumThreads(o, (int)options->threads), doing);
    ORT_TRY(api, api->SetInterOpNumThreads(o, 1), doing);
    ORT_TRY(api, api->SetSessionExecutionMode(o, ORT_SEQUENTIAL), doing);
    ORT_TRY(api, api->SetSessionGraphOptimizationLevel(o, ORT_ENABLE_ALL), doing);
    ORT_TRY(api, api->AddSessionConfigEntry(o, "session.intra_op.allow_spinning", "0"), doing);
    ORT_TRY(api, api->AddSessionConfigEntry(o, "session.inter_op.allow_spinning", "0"), doing);
    ORT_TRY(api, api->SetSessionLogSeverityLevel(o, ORT_LOGGING_LEVEL_FATAL), doing);
    ORT_TRY(api, api->DisableMemPattern(o), doing);
    if (options->keep_memory)
        ORT_TRY(api, api->EnableCpuMemArena(o), doing);
    else
        ORT_TRY(api, api->DisableCpuMemArena(o), doing);
    return 0;
}

static int session_make(const OrtApi *api, OrtEnv *env, const struct runtime_options *options,
                        str bytes, OrtSession **ret_session, struct err *e)
{
    OrtSessionOptions *o = NULL;
    int rc;

    ORT_TRY(api, api->CreateSessionOptions(&o), "setting up the ONNX session");
    rc = options_set(api, options, o, e);
    if (!rc)
        rc = ort_check(api, api->CreateSessionFromArray(env, bytes.p, bytes.n, o, ret_session),
                       "ONNX Runtime refuses the model", e);
    api->ReleaseSessionOptions(o);
    /* Whatever the library calls it, a model that does not load is a bad model. */
    if (rc == CODE_INTERNAL || rc == CODE_UNIMPLEMENTED)
        rc = (int)(e ? (e->code = CODE_INVALID_ARGUMENT) : CODE_INVALID_ARGUMENT);
    return rc;
}

static int element_type(const OrtApi *api, const OrtTensorTypeAndShapeInfo *tensor,
                        struct tensor_spec *spec, const char *what, struct err *e)
{
    ONNXTensorElementDataType type;

    ORT_TRY(api, api->GetTensorElementType(tensor, &type), "reading the ONNX signature");
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (types[i].theirs == type) {
            spec->datatype = types[i].ours;
            return 0;
        }
    return FAIL(e, INVALID_ARGUMENT,
                "%s '" STR_F "' has an element type (ONNX number %d) that requests cannot carry",
                what, STR_A(spec->name), (int)type);
}

static int spec_fill(const OrtApi *api, const OrtTypeInfo *info, struct tensor_spec *spec,
                     const char *what, struct err *e)
{
    const char *doing = "reading the ONNX signature";
    const OrtTensorTypeAndShapeInfo *tensor;
    enum ONNXType kind;
    size_t rank;

    ORT_TRY(api, api->GetOnnxTypeFromTypeInfo(info, &kind), doing);
    if (kind == ONNX_TYPE_SEQUENCE || kind == ONNX_TYPE_MAP)
        return FAIL(e, INVALID_ARGUMENT,
                    "%s '" STR_F "' is a list of maps, not a tensor: convert the model again with "
                    "options={'zipmap': False}",
                    what, STR_A(spec->name));
    if (kind != ONNX_TYPE_TENSOR)
        return FAIL(e, INVALID_ARGUMENT, "%s '" STR_F "' is not a tensor (ONNX kind %d)", what,
                    STR_A(spec->name), (int)kind);
    ORT_TRY(api, api->CastTypeInfoToTensorInfo(info, &tensor), doing);
    TRY(element_type(api, tensor, spec, what, e));
    ORT_TRY(api, api->GetDimensionsCount(tensor, &rank), doing);
    if (rank > TENSOR_RANK_MAX)
        return FAIL(e, INVALID_ARGUMENT,
                    "%s '" STR_F "' has %zu dimensions, at most %d are "
                    "possible",
                    what, STR_A(spec->name), rank, TENSOR_RANK_MAX);
    spec->rank = (uint32_t)rank;
    ORT_TRY(api, api->GetDimensions(tensor, spec->shape, rank), doing);
    for (uint32_t i = 0; i < spec->rank; i++)
        if (spec->shape[i] < 0)
            spec->shape[i] = TENSOR_DIM_ANY;
    return 0;
}

static int spec_read(struct runtime_model *m, bool is_input, size_t i, struct tensor_spec *spec,
                     const char **name, struct err *e)
{
    struct ort_model *om = m->state;
    const OrtApi *api = om->api;
    OrtTypeInfo *info = NULL;
    char *theirs = NULL;
    int rc;

    ORT_TRY(api,
            is_input ? api->SessionGetInputName(om->session, i, om->allocator, &theirs)
                     : api->SessionGetOutputName(om->session, i, om->allocator, &theirs),
            "reading the ONNX signature");
    *name = arena_dupz(&m->arena, str_of(theirs));
    spec->name = str_of(*name);
    ORT_TRY(api, api->AllocatorFree(om->allocator, theirs), "reading the ONNX signature");
    ORT_TRY(api,
            is_input ? api->SessionGetInputTypeInfo(om->session, i, &info)
                     : api->SessionGetOutputTypeInfo(om->session, i, &info),
            "reading the ONNX signature");
    rc = spec_fill(api, info, spec, is_input ? "input" : "output", e);
    api->ReleaseTypeInfo(info);
    return rc;
}

static int specs_read(struct runtime_model *m, bool is_input, const struct tensor_spec **ret_specs,
                      uint32_t *ret_count, const char ***ret_names, struct err *e)
{
    struct ort_model *om = m->state;
    const OrtApi *api = om->api;
    size_t n, most = is_input ? TENSOR_INPUTS_MAX : TENSOR_OUTPUTS_MAX;
    struct tensor_spec *specs;

    ORT_TRY(api,
            is_input ? api->SessionGetInputCount(om->session, &n)
                     : api->SessionGetOutputCount(om->session, &n),
            "reading the ONNX signature");
    n = MIN(n, most + 1); /* one more than allowed is enough to be refused */
    specs = ARENA_ARRAY(&m->arena, struct tensor_spec, n);
    *ret_names = ARENA_ARRAY(&m->arena, const char *, n);
    for (size_t i = 0; i < n; i++)
        TRY(spec_read(m, is_input, i, &specs[i], &(*ret_names)[i], e));
    *ret_specs = specs;
    *ret_count = (uint32_t)n;
    return 0;
}

static int ort_load(struct runtime_model *m, const char *path, struct err *e)
{
    AUTO(arena_done) struct arena file = {0};
    struct ort_model *om = ARENA_NEW(&m->arena, struct ort_model);
    OrtEnv *env;
    str bytes;

    arena_init(&file, RUNTIME_MODEL_BYTES_MAX + 4096);
    TRY(file_read_all(path, RUNTIME_MODEL_BYTES_MAX, &file, &bytes, e));
    if (onnx_scan(bytes, e))
        return err_context(e, "%s", path);
    m->state = om;
    TRY(ort_library_open(&om->api, &env, e));
    ORT_TRY(om->api, om->api->GetAllocatorWithDefaultOptions(&om->allocator),
            "ONNX Runtime memory");
    ORT_TRY(om->api,
            om->api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &om->memory),
            "ONNX Runtime memory");
    TRY(session_make(om->api, env, &m->options, bytes, &om->session, e));
    TRY(specs_read(m, true, &m->inputs, &m->input_count, &om->input_names, e));
    TRY(specs_read(m, false, &m->outputs, &m->output_count, &om->output_names, e));
    return 0;
}

static void ort_unload(struct runtime_model *m)
{
    struct ort_model *om = m->state;

    if (!om || !om->api)
        return;
    if (om->session)
        om->api->ReleaseSession(om->session);
    if (om->memory)
        om->api->ReleaseMemoryInfo(om->memory);
}

const struct runtime_engine runtime_ort = {
    .platform = "onnxruntime_onnx",
    .alias = "onnx",
    .load = ort_load,
    .unload = ort_unload,
    .slot_init = ort_slot_init,
    .slot_done = ort_slot_done,
    .run = ort_slot_run,
    .cancel = ort_slot_cancel,
};
