/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model runtimes: how a model file becomes a function on tensors.
 *
 * An engine is a small table of functions; `runtime_load` finds it by platform. A model is
 * immutable after loading and may be run by several loops at once; each loop has its own slot on
 * it, which owns the memory of inputs and outputs, so that a request's JSON is read straight into
 * what the engine computes on, and a run of a warm slot allocates nothing of ours.
 *
 *   runtime_load -> runtime_slot_new (one per loop) -> fill slot->inputs -> runtime_run -> read
 *   slot->outputs
 *
 * Platforms: "onnxruntime_onnx" (alias "onnx"), any ONNX file without external data; "weir_trees"
 * (alias "trees"), the tree ensembles of XGBoost, LightGBM and ONNX (serve/trees/); "identity",
 * which gives its input back and serves to measure what the server itself costs; "process", a
 * program of the user's own in a child process; "remote", another Open Inference Protocol server;
 * "pipeline", a model of the first two behind its preprocessing (pipeline_engine.c).
 */
#pragma once

#include "base/arena.h"
#include "wire/tensor.h"
#include "wire/trace_context.h"

#define RUNTIME_ROWS_MAX 65536                    /* of a slot */
#define RUNTIME_MODEL_BYTES_MAX ((size_t)2 << 30) /* of a model file (a protobuf's own limit) */
#define RUNTIME_SLOT_BYTES_MAX ((size_t)1 << 30)  /* inputs and outputs of a slot together */

struct runtime_options {
    uint32_t threads;     /* inside one run; 0 means 1: the loops are the parallelism */
    bool keep_memory;     /* the engine keeps its working memory between runs: for large networks on
                             dedicated machines; otherwise it is given back */
    const char *work_dir; /* borrowed during load: where an engine may keep files while the model is
                             loaded; NULL = the present folder */
    bool must_start; /* loading fails when the program does not start, or the remote server does not
                        answer: for the probe. Otherwise runs fail until they do. */
};

/* What a model that lives elsewhere is doing; all 0 for others. */
struct runtime_stat {
    uint32_t instances, ready, broken; /* programs; broken: in a crash loop */
    uint64_t starts, ends;
    const char *breaker;                  /* "closed", "open", "half-open"; NULL without one */
    uint64_t openings, rejected, retries; /* of the breaker; repeated calls */
};

/* How a breaker is held by hand (serve/breaker.h). */
enum runtime_force { RUNTIME_FORCE_NONE, RUNTIME_FORCE_OPEN, RUNTIME_FORCE_CLOSED };

struct runtime_model;
struct runtime_slot;

/* What an engine does. load fills model->inputs.. from the arena of the model; slot_init makes the
 * engine's part of a slot whose tensors are set; run computes outputs from inputs. */
struct runtime_engine {
    const char *platform;
    const char *alias; /* or NULL */
    bool blocking;     /* run waits for somebody else: never called on a loop */
    NODISCARD int (*load)(struct runtime_model *m, const char *path, struct err *e);
    void (*unload)(struct runtime_model *m);
    NODISCARD int (*slot_init)(struct runtime_slot *s, struct err *e);
    void (*slot_done)(struct runtime_slot *s);
    NODISCARD int (*run)(struct runtime_slot *s, struct err *e);
    void (*cancel)(struct runtime_slot *s);                           /* or NULL */
    void (*stat)(struct runtime_model *m, struct runtime_stat *ret);  /* or NULL */
    void (*force)(struct runtime_model *m, enum runtime_force force); /* or NULL */
};

/* What a model file says of itself, for the registry. */
struct runtime_about {
    str format;    /* "xgboost", "lightgbm", "onnx" */
    str objective; /* in the words of its library, or empty */
    uint32_t features, classes, trees;
    uint64_t nodes;
    const str *feature_names; /* `features` of them, or NULL */
};

struct runtime_model {
    const struct runtime_engine *engine;
    struct runtime_options options;
    struct arena arena; /* owned: names, specs */
    const struct tensor_spec *inputs, *outputs;
    uint32_t input_count, output_count;
    bool batched; /* inputs have an open first dimension and fixed others, outputs an open first:
                     rows of several requests may be joined into one run */
    const struct runtime_about *about; /* of the arena; NULL: the engine does not know */
    void *state;                       /* owned by the engine */
};

/* What a remote server is told of who asks. */
struct runtime_trace {
    struct trace_context context;
    str state;
};

struct runtime_slot {
    struct runtime_model *model; /* borrowed; must outlive the slot */
    uint32_t rows_max;
    struct tensor *inputs;  /* data and cap_bytes set; the caller fills data and shape */
    struct tensor *outputs; /* filled by a run; data valid until the next run of the slot */
    struct arena arena;     /* owned: what lives as long as the slot */
    int64_t deadline_ns;    /* of the run under way; 0 = none */
    const struct runtime_trace *trace; /* of the next run: borrowed during it; or NULL */
    bool trace_sent;                   /* the last run has told it to a server */
    void *state;                       /* owned by the engine */
};

/* Loads a model from a file. Any thread that may block (probe process, worker). Errors:
 * INVALID_ARGUMENT (unknown platform, broken or refused file: external data, ZipMap outputs,
 * datatypes without a protocol form), NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE (the engine's
 * library is not installed), FAILED_PRECONDITION (weir_trees: an ONNX file for ONNX Runtime). */
NODISCARD int runtime_load(str platform, const char *path, const struct runtime_options *options,
                           struct runtime_model **ret_model, struct err *e);
void runtime_unload(struct runtime_model *m); /* accepts NULL; its slots must be gone */
DEFINE_AUTO_PTR(struct runtime_model, runtime_unload)

/* True when the platform is one of ours. */
bool runtime_platform_known(str platform);

/*
 * Makes a slot for at most rows_max rows (1..RUNTIME_ROWS_MAX). Where a spec has open dimensions
 * besides the first, or its first is fixed, the memory is for `elements_max` elements (0: 65536)
 * instead. RESOURCE_EXHAUSTED above RUNTIME_SLOT_BYTES_MAX.
 */
NODISCARD int runtime_slot_new(struct runtime_model *m, uint32_t rows_max, size_t elements_max,
                               struct runtime_slot **ret_slot, struct err *e);
void runtime_slot_free(struct runtime_slot *s); /* accepts NULL */
DEFINE_AUTO_PTR(struct runtime_slot, runtime_slot_free)

/* Copies the inputs of a request into the slot: `rows` rows of a batched model to row `at`; of any
 * other the whole tensors with their shapes. They must fit. */
void runtime_slot_put(struct runtime_slot *s, const struct tensor *inputs, uint32_t rows,
                      uint32_t at);

/*
 * Computes slot->outputs from slot->inputs, on the calling thread. rows > 0 sets the first
 * dimension of every input (batched models only); rows == 0 takes the shapes that the inputs have.
 * `deadline_mono_ns` (0: none) is looked at before the run: DEADLINE_EXCEEDED. A run under way ends
 * early only by runtime_cancel(); one of a blocking engine also by the deadline. Errors of the
 * engine: INVALID_ARGUMENT for shapes it refuses where rows == 0, and where a program or a remote
 * server says so; else INTERNAL and what they say. One thread at a time per slot.
 */
NODISCARD int runtime_run(struct runtime_slot *s, uint32_t rows, int64_t deadline_mono_ns,
                          struct err *e);

/* True when every output of the last run has one row for each of the `rows` of input; always for a
 * model that is not batched. */
bool runtime_rows_match(const struct runtime_slot *s, uint32_t rows);

/* Asks the run under way in this slot to stop; it then fails with CANCELLED. From any thread. A
 * no-op when nothing runs, and for engines that cannot stop. */
void runtime_cancel(struct runtime_slot *s);

/* For metrics and for operators; any thread that holds the model. */
void runtime_stat(struct runtime_model *m, struct runtime_stat *ret);
/* Holds the breaker of a remote model open or closed, or lets it go; a no-op for others. */
void runtime_force(struct runtime_model *m, enum runtime_force force);
