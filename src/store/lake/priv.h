/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the lake share. The only folder that knows duckdb.h. */
#pragma once

#include "store/lake/lake.h"

#include <duckdb.h>
#include <stdatomic.h>

/* libduckdb, by function: duck.query(…). Filled once by duck_load(). */
struct duck {
#define DUCK(name) __typeof__(duckdb_##name) *name;
#include "store/lake/functions.def"
#undef DUCK
};
extern struct duck duck;
NODISCARD int duck_load(struct err *e);

struct lake_db {
    duckdb_database db;
    atomic_uint refs;
};

struct lake {
    struct lake_db *db; /* shared by forks */
    duckdb_connection con;
};

/* Takes the error of a result or a bare text into *e, with a fitting code; returns the code. */
NODISCARD int lake_fail(const char *what, const char *text, duckdb_error_type type, struct err *e);
NODISCARD int lake_fail_result(const char *what, duckdb_result *r, struct err *e);
