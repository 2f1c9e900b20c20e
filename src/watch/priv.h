/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "journal/journal.h"
#include "stats/betting.h"
#include "stats/edetector.h"
#include "stats/window.h"
#include "watch/watch.h"

#define BLOCKS_KEPT 16 /* digests whose cells are kept, to measure what came after a change */

/* What a monitor is told by the project. */
struct monitor_config {
    str name, endpoint, model;
    double one_in_s; /* > 0: budget by time */
    double rows;     /* > 0: budget by rows */
    int64_t window_ns;
    uint32_t sustained;
    uint64_t rows_min;
    struct drift_bands bands;
    double share; /* of the features that must drift for "the model drifted" */
    bool outputs;
    double label_tolerance;
    str page_on;
    const struct json *features; /* overrides by name */
    str text;                    /* canonical JSON: equal text, equal settings */
};

struct watch_column {
    str name;
    bool is_output, ignored;
    bool has_spec, has_bank;
    double importance;
    struct cells_spec spec;
    struct edetector_bank bank;
    struct window window;
    struct window_report last;        /* of the last window that ended */
    struct cells blocks[BLOCKS_KEPT]; /* ring of the latest digests */
};

enum monitor_state { MONITOR_WARMING, MONITOR_OK, MONITOR_DRIFTING };

struct monitor {
    struct monitor *next;
    struct arena arena;
    struct monitor_config cfg;
    str version;
    str no_profile; /* why this version cannot be watched, or empty */
    enum monitor_state state;
    struct watch_column *columns;
    uint32_t column_count;
    struct edetector_endpoint detect;
    bool detecting;
    struct betting labels;
    bool label_reference;
    double label_ref_risk; /* errors per label in the reference */
    double label_ref_n;
    int64_t labels_n, label_errors;       /* since the monitor began */
    int64_t recent_labels, recent_errors; /* decaying, for the severity of concept drift */
    uint64_t rows, alarms;
    double rate; /* rows per second while there is traffic */
    uint64_t block_rows[BLOCKS_KEPT];
    uint32_t block_at; /* next place in the rings */
    int64_t first_ns, last_ns;
    enum drift_severity severity;
    int64_t drift_ns; /* when the present drift was detected */
    bool confirmed;
    uint32_t quiet_windows;      /* in a row, while drifting */
    char correlation[UUID_SIZE]; /* of the present drift's story */
};

/* Reads the settings of all monitors of a project into the arena. */
NODISCARD int monitor_configs_read(const struct json *project, struct arena *a,
                                   struct monitor_config **ret_list, size_t *ret_n, struct err *e);

/* A monitor for one version of its endpoint. A version that cannot be watched gives a monitor that
 * says why (no_profile), not an error. */
NODISCARD int monitor_new(struct blobs *blobs, struct meta *m, const struct monitor_config *cfg,
                          str version, struct monitor **ret_monitor, struct err *e);
void monitor_free(struct monitor *mo); /* accepts NULL */
DEFINE_AUTO_PTR(struct monitor, monitor_free)

NODISCARD int monitor_fold(struct monitor *mo, struct meta *m, const struct digest *d,
                           const struct digest_series *s, int64_t wall_ns, struct err *e);

/* The list of a watch, for the report. */
const struct monitor *watch_first(const struct watch *w);

/* What to say of a change: fact.c. */
struct drift_event {
    enum fact_type type;
    const char *kind;   /* "feature", "prediction", "concept" */
    const char *metric; /* what crossed its threshold */
    double value, threshold;
    enum drift_severity severity;
    uint64_t rows_ago;        /* the change began about so many rows ago */
    int64_t from_ns, wall_ns; /* of the digest that crossed it, and its arrival */
    uint32_t consecutive;
    const char *reason; /* one line, or NULL: made from the above */
};
NODISCARD int drift_fact_append(struct monitor *mo, struct meta *m, const struct drift_event *ev,
                                struct err *e);
/* The effect size of column i over the latest `rows_ago` rows (at least one digest). */
void monitor_recent(const struct monitor *mo, uint32_t i, uint64_t rows_ago, struct distance *ret);
