/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan compiler: from what is applied, registered and being rolled out to one immutable plan.
 *
 * A pure function of the meta store and the blobs: the same state gives the same bytes and so the
 * same hash. It is run after every fact that can change it, and writes nothing but blobs; whether
 * the result is news is for the caller to see by the hash.
 */
#pragma once

#include "access/access.h"
#include "plan/plan.h"
#include "store/meta/meta.h"

/* Compiles. NOT_FOUND when no project is applied. The new plan was read back with the gateway's own
 * reader before its hash is given out. Control thread. */
NODISCARD int compile_plan(const struct access_env *access, struct meta *m, struct blobs *blobs,
                           char ret_hash[PLAN_HASH_SIZE], struct err *e);
