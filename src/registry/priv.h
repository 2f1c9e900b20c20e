/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of a registration. What they find out is collected in one JSON object, the candidate,
 * so that a flow can carry it from step to step:
 *
 *   copy     source, artifact, platform, framework, format, size_bytes, convert{}
 *   probe    inputs, outputs, load_ms, rss_bytes, signature; with a pipeline also pipeline, and
 *            artifact, platform and size_bytes of both together
 *   profile  signature (completed), golden, profile, rows, note
 *   commit   the version
 */
#pragma once

#include "registry/registry.h"

NODISCARD int register_copy(const struct registry_env *env, const struct registry_request *req,
                            struct arena *a, struct json *candidate, struct err *e);
NODISCARD int register_probe(const struct registry_env *env, const struct registry_request *req,
                             struct arena *a, struct json *candidate, struct err *e);
NODISCARD int register_profile(const struct registry_env *env, const struct registry_request *req,
                               struct arena *a, struct json *candidate, struct err *e);
/* In the caller's transaction when one is open. */
NODISCARD int register_commit(struct meta *m, const struct registry_request *req,
                              const struct json *candidate, struct registry_result *ret,
                              struct err *e);
/* Notes a refusal; only for causes that lie in the file or the request. */
NODISCARD int register_refused(struct meta *m, const struct registry_request *req,
                               const char *check, const struct err *cause, struct err *e);
bool register_is_refusal(const struct err *cause);

struct score_env register_score_env(const struct registry_env *env, struct arena *a);
/* models.<m> of the project, or NULL. */
const struct json *register_section(const struct registry_request *req);

/* The table that says what normal is. path NULL: there is none. */
struct reference {
    const char *path;
    str format, label, time; /* empty: none */
};
struct reference register_reference(const struct registry_env *env,
                                    const struct registry_request *req, struct arena *a);

/* Merges what the file declares with what the project says. */
NODISCARD int signature_make(const struct registry_env *env, const struct registry_request *req,
                             const struct json *candidate, struct arena *a,
                             struct json **ret_signature, struct err *e);

/* The profile of a scored reference. labels may be NULL. */
struct profile_input {
    str model;
    const struct plan_signature *signature;
    const struct table *rows, *outputs;
    const struct json *monitor; /* the monitor's section, or NULL */
    const struct json *labels;
};
NODISCARD int profile_make(const struct profile_input *in, struct arena *a,
                           struct json **ret_profile, struct err *e);

/* Puts the pipeline that the project or the request has before the model of the candidate
 * (pipeline.c): its artifact and platform are then those of both together. Nothing when there is
 * none. */
NODISCARD int register_pipeline(const struct registry_env *env, const struct registry_request *req,
                                struct arena *a, struct json *candidate, struct err *e);

/* Of an artifact that came with a pipeline: what the artifact says, not what is said of it. */
NODISCARD int register_pipeline_told(const struct registry_env *env, struct arena *a,
                                     struct json *candidate, struct err *e);

/* --- What lives elsewhere (adopt.c): a folder with a program, the description of a remote server.
 */

bool adopt_is(const char *path);
NODISCARD int adopt_copy(const struct registry_env *env, const struct registry_request *req,
                         struct arena *a, struct json *candidate, struct err *e);

/* --- From a bundle (import.c): the same steps, with what another registry found out. A candidate
 * that came from one has "imported". ------------------------------------------------------------
 */

bool import_is(const struct json *candidate);
NODISCARD int import_copy(const struct registry_env *env, const struct registry_request *req,
                          struct arena *a, struct json *candidate, struct err *e);
/* Holds the signature of the bundle against the file and the project. */
NODISCARD int import_signature(const struct registry_request *req, const struct json *candidate,
                               struct arena *a, struct err *e);
/* Runs the golden input of the bundle and compares. */
NODISCARD int import_golden(const struct registry_env *env, struct arena *a,
                            const struct json *candidate, struct err *e);

/* One row given as {"name":value}, as a table: null is missing. *ret owns memory. */
void register_row_table(const struct json *row, struct table *ret);
