/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The project: the folder that people keep in version control, with one file, weir.yaml.
 *
 * A project is read into its normalised tree, which is what every other module reads: every field
 * is there (null where the file may say `none`, `off` or `auto`), durations are integer
 * nanoseconds (`timeout_ns`), sizes integer bytes, percentages fractions of 1, `auto` is resolved
 * where the file alone can tell, and every name refers to something. docs/configuration.md states
 * each field in both forms; fields.def is its source. Values that came from the file keep their
 * line and column, so that a later check (a column that the dataset does not have) can point at it.
 *
 * The normalised tree carries "form": "weir.project/1", is canonical JSON, and may itself be read
 * by project_normalise(), which checks it as strictly and gives it back unchanged: that is how it
 * crosses from the command line to the control process.
 *
 * Errors are problems: all of them are found, in the order of the file, each with place, path, what
 * is wrong, what was expected and, where a name is near, what may have been meant. A problem inside
 * an item hides the checks that would have needed that item, so that one mistake is told once.
 *
 * Thread-safe: no state outside the arena that is passed in. The arena has no cap (the limits below
 * bound what is put there) and must outlive the result.
 */
#pragma once

#include "base/json.h"
#include "base/hash.h"

#define PROJECT_FILE "weir.yaml"
#define PROJECT_SCHEMA_FILE "weir.schema.json"
#define PROJECT_FORM "weir.project/1"
#define PROJECT_BYTES_MAX ((size_t)16 << 20) /* of weir.yaml */
#define PROJECT_ITEMS_MAX 10000              /* of one section, such as endpoints */
#define PROJECT_LIST_MAX 4096                /* of one list, such as features */
#define PROJECT_PROBLEMS_MAX 100             /* kept; further ones are counted */

struct project_problem {
    uint32_t line, col; /* 1-based, in characters; 0 when the tree did not come from a text */
    str path;           /* "endpoints.fraud.timeout"; empty for the file as a whole */
    str what;           /* "endpoints.fraud.timeout is '2x'" */
    str expected;       /* "a duration such as 30s or 15min, from 1ms to 10min", or empty */
    str suggestion;     /* what may have been meant, or empty */
    struct project_problem *next;
};

struct project_result {
    str file; /* as it is shown: "weir.yaml" */
    str text; /* for excerpts; empty for project_normalise */
    struct json *norm;
    char hash[SHA256_HEX_SIZE];      /* project_hash(norm) */
    struct project_problem *problem; /* the first, or NULL */
    size_t problem_count;            /* with those past PROJECT_PROBLEMS_MAX */
};

/* --- Reading ------------------------------------------------------------------------------ */

/*
 * All three return 0 with norm and hash, or INVALID_ARGUMENT with the problems (norm is NULL; the
 * message of e is the first problem and how many more there are). *ret is filled in both cases.
 * project_load fails otherwise as file_read_all does, without problems; a missing file is NOT_FOUND
 * and says `weir init`.
 */
NODISCARD int project_load(const char *dir, struct arena *a, struct project_result *ret,
                           struct err *e);
NODISCARD int project_parse(str text, const char *file, struct arena *a, struct project_result *ret,
                            struct err *e);
/* A tree in the form of the file, or in normalised form (it says which, by "form"). */
NODISCARD int project_normalise(const struct json *tree, struct arena *a,
                                struct project_result *ret, struct err *e);

/* SHA-256, in hexadecimal, of the canonical bytes: equal projects, however written, are equal. */
void project_hash(const struct json *norm, char ret_hex[SHA256_HEX_SIZE]);

/* --- Problems ----------------------------------------------------------------------------- */

/* "weir.yaml:3:5: what, expected …, did you mean '…'?", without a line end. */
void project_problem_line(const struct project_result *r, const struct project_problem *p,
                          struct buf *out);
/* All of them for a terminal, each with its line of the file and carets below the place. */
void project_problems_text(const struct project_result *r, struct buf *out);
/* {"count":2,"problems":[{"file":…,"line":…,"column":…,"path":…,"what":…,"expected":…,
 * "suggestion":…,"message":…}]}; absent facts are left out. */
void project_problems_json(const struct project_result *r, struct buf *out);

/* --- Differences -------------------------------------------------------------------------- */

enum project_change_kind { PROJECT_ADD, PROJECT_REMOVE, PROJECT_CHANGE };

struct project_change {
    enum project_change_kind kind;
    str path;                  /* as in the file: "models.fraud.features.amount.max" */
    const struct json *before; /* normalised; NULL for PROJECT_ADD */
    const struct json *after;  /* NULL for PROJECT_REMOVE */
    str before_text;           /* scalars and lists as the file writes them; empty for items */
    str after_text;
    const char *effect; /* "live", "restart", "retrain", …: effects.def */
    bool is_item;       /* a whole named item; the fields of an added one follow, if not default */
    bool within;        /* such a field of an added item */
    struct project_change *next;
};

/* From one normalised tree to another, in the order of fields.def; NULL if they are equal.
 * before = NULL stands for no project at all. The trees are borrowed. */
struct project_change *project_diff(const struct json *before, const struct json *after,
                                    struct arena *a);
/* One line a change: "+ endpoints.b  (live)", "~ endpoints.a.timeout: 1s -> 2s  (live)". */
void project_diff_text(const struct project_change *first, struct buf *out);
/* {"changes":[{"kind":"change","path":…,"before":…,"after":…,"effect":…}]} */
void project_diff_json(const struct project_change *first, struct buf *out);

/* --- Help --------------------------------------------------------------------------------- */

/* What a section or field is, by its path ("endpoints.timeout", names of items left out or any):
 * NOT_FOUND with a suggestion. "" is the whole file. */
NODISCARD int project_explain(str path, struct buf *out, struct err *e);
/* docs/configuration.md, and the JSON Schema of weir.yaml for editors. */
void project_docs_write(struct buf *out);
void project_schema_write(struct buf *out);

/* --- Beginning ---------------------------------------------------------------------------- */

struct project_template {
    const char *name; /* "blank" */
    const char *help;
};
const struct project_template *project_templates(size_t *ret_n);

/* Makes dir if needed and puts weir.yaml and weir.schema.json there. `name` is the project's; an
 * existing weir.yaml is ALREADY_EXISTS and stays as it is. An unknown template is NOT_FOUND. */
NODISCARD int project_init_write(const char *dir, str name, str template_name, struct err *e);
