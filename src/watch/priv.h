/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/hash.h"
#include "journal/journal.h"
#include "record/kept.h"
#include "stats/betting.h"
#include "stats/edetector.h"
#include "stats/window.h"
#include "watch/watch.h"

#define BLOCKS_KEPT 16 /* digests whose cells are kept, to measure what came after a change */

enum page_on { PAGE_CO_OCCURRENCE, PAGE_SEVERE, PAGE_NEVER };

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
    enum page_on page_on;
    const struct json *features; /* overrides by name */
    /* Canonical JSON of the settings on which evidence depends, so without bands, share and
     * page_on: equal text, and what was gathered still counts. */
    str text;
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

/* One drift, from its first fact to its last. All zero: none. */
struct drift_story {
    bool columns, labels; /* whose evidence reached its budget */
    bool confirmed;       /* by windows in a row */
    enum drift_severity severity;
    uint64_t began_rows;    /* value of monitor.rows when it seems to have begun */
    int64_t began_ns;       /* the same as a time */
    int64_t detected_ns;    /* the budget was reached: the first breach */
    int64_t confirmed_ns;   /* 0: not yet */
    uint32_t quiet_windows; /* in a row */
    char correlation[UUID_SIZE];
};

struct monitor {
    struct monitor *next;
    struct arena arena;
    struct monitor_config cfg; /* strings and trees: copies in the arena */
    str version;
    str profile;    /* hash of its profile, or empty */
    str no_profile; /* why this version cannot be watched, or empty */
    /* Digests folded so far, borrowed from control; NULL: its evidence is not kept. */
    const struct digest_clock *clock;
    const struct digest_clock *seen; /* those in the row it was restored from, or NULL */
    bool unsaved, saving;            /* has changed since the last save; is in the one under way */
    enum monitor_state state;
    struct watch_column *columns;
    uint32_t column_count, feature_count;
    struct edetector_endpoint detect;
    bool detecting;
    struct betting labels;
    bool label_reference;
    double label_ref_risk; /* errors per label in the reference */
    double label_ref_n;
    int64_t labels_n, label_errors;       /* since the monitor began */
    int64_t recent_labels, recent_errors; /* decaying, for the severity of concept drift */
    uint64_t rows, alarms;
    double rate;              /* rows per second of this version */
    double rate_rows, rate_s; /* decaying sums behind it */
    double lately_rows;       /* the same, of the last seconds: what people are shown */
    uint64_t block_rows[BLOCKS_KEPT];
    uint32_t block_at;            /* next place in the rings */
    int64_t made_mono_ns;         /* when the monitor was made */
    int64_t last_mono_ns;         /* of the last digest */
    int64_t rows_mono_ns;         /* of the last digest with rows */
    int64_t window_mono_ns;       /* when the open window began; 0: none is open */
    int64_t window_ns;            /* the same by the wall clock */
    uint64_t window_rows;         /* in the open window */
    int64_t window_no;            /* of the open window: the clock that the columns' windows see */
    int64_t ended_from, ended_to; /* the last window that was judged, by the wall clock */
    struct drift_story story;
};

/* Reads the settings of all monitors of a project into the arena. */
NODISCARD int monitor_configs_read(const struct json *project, struct arena *a,
                                   struct monitor_config **ret_list, size_t *ret_n, struct err *e);

/* A monitor for one version of its endpoint. A version that cannot be watched gives a monitor that
 * says why (no_profile), not an error. */
NODISCARD int monitor_new(struct blobs *blobs, struct meta *m, const struct monitor_config *cfg,
                          str version, const struct digest_clock *clock,
                          struct monitor **ret_monitor, struct err *e);
void monitor_free(struct monitor *mo); /* accepts NULL */
DEFINE_AUTO_PTR(struct monitor, monitor_free)

/* Takes over those settings of an equal `text` on which no evidence depends. */
void monitor_retune(struct monitor *mo, const struct monitor_config *cfg);

/* other_rate: rows per second of the endpoint's other versions, which share its budget. */
NODISCARD int monitor_fold(struct monitor *mo, struct meta *m, const struct digest *d,
                           const struct digest_series *s, double other_rate, int64_t wall_ns,
                           struct err *e);
/* Ends a drift of which nothing more will be heard; reason says why. Nothing when there is none. */
NODISCARD int monitor_close(struct monitor *mo, struct meta *m, int64_t wall_ns, str reason,
                            struct err *e);

/* windows.c: what the window that just ended says of all columns together. */
struct window_sum {
    bool judged; /* a window has ended with enough rows */
    uint32_t over, alerting, streak;
    uint32_t features_over, outputs_over;
    int worst; /* the alerting column with the largest value, or -1 */
    enum drift_severity severity;
};
void monitor_windows(struct monitor *mo, const struct digest_series *s, int64_t wall_ns,
                     struct window_sum *ret);
/* PSI less what chance alone gives with so few rows; never below 0. What bands are applied to. */
double drift_psi_excess(const struct cells_spec *spec, uint64_t rows, double psi);

/* Rows per second of the last seconds, for people; 0 soon after the traffic has ended. */
double monitor_rate_lately(const struct monitor *mo, int64_t mono_ns);

/* kept.c: the row of a monitor (record/kept.h). All do nothing for a monitor without a clock. */
/* anew: as of evidence that begins now. */
NODISCARD int monitor_save(struct monitor *mo, struct meta *m, bool anew, struct err *e);
NODISCARD int monitor_drop(const struct monitor *mo, struct meta *m, struct err *e);
/* Into a monitor that is new. *ret_spoilt: the row was not usable, which was logged, and the
 * monitor is to be made again. */
NODISCARD int monitor_restore(struct monitor *mo, struct meta *m, bool *ret_spoilt, struct err *e);
/* What is known of a row without the monitor it is for. Texts are copies in the arena. */
struct kept_head {
    str name, endpoint, model, version;
    unsigned char fit[SHA256_BYTES];
    enum monitor_state state;
    struct drift_story story;
};
NODISCARD int monitor_head_decode(str bytes, struct arena *a, struct kept_head *ret, struct err *e);
void monitor_encode(const struct monitor *mo, const struct digest_clock *clock, bool anew,
                    struct buf *out);
NODISCARD int monitor_decode(struct monitor *mo, str bytes, struct err *e);

/* The list of a watch, for the report. */
const struct monitor *watch_first(const struct watch *w);

/* What to say of a change: fact.c. */
struct drift_event {
    enum fact_type type;
    bool concept;       /* of labels, not of columns */
    int column;         /* what it is about, or -1: the first of the ranking */
    const char *metric; /* what crossed its threshold */
    double value, threshold;
    int64_t from_ns, wall_ns; /* of what was judged, and the arrival of its last part */
    uint32_t consecutive;
    str reason; /* empty: made from the above */
};
/* Appends the fact. `story` is what the drift will have become; its correlation is filled in by the
 * first fact. The monitor is not changed. */
NODISCARD int drift_fact_append(const struct monitor *mo, struct meta *m,
                                const struct drift_event *ev, struct drift_story *story,
                                struct err *e);

/* The columns with the most evidence: first the features selected by e-BH, by impact (importance
 * times PSI), then the outputs selected, then the rest by evidence. */
#define SUSPECTS_MAX 16
struct drift_suspect {
    struct edetector_suspect suspect;
    struct distance dist; /* of the rows since its change, as far as they are kept */
    double psi;           /* drift_psi_excess() */
    double impact;
};
size_t monitor_rank(const struct monitor *mo, struct drift_suspect ret[SUSPECTS_MAX]);

/* The effect size of column i over the latest `rows_ago` rows (at least one digest). */
void monitor_recent(const struct monitor *mo, uint32_t i, uint64_t rows_ago, struct distance *ret);
double monitor_recent_risk(const struct monitor *mo); /* errors per label; NaN without labels */
