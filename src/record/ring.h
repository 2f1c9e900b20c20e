/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring: how a loop thread hands records to the keeper without a lock, an allocation or a wait.
 *
 * One producer (the loop that owns the ring), one consumer (the keeper). The bytes are mapped twice
 * in a row, so a record never wraps. A full ring drops the record and counts it: an answer is never
 * held up, unless the endpoint asked for durable logging; then the loop holds the answer until
 * record_ring_fate() of the position that record_commit() gave is no longer RECORD_PENDING.
 *
 *     struct record_out o;
 *     if (record_begin(ring, &meta, text_bytes, &o)) {
 *         for (each row) {
 *             memcpy(o.row + schema->columns[0].at, features, feature_bytes);
 *             record_put_number(&o, column, value);  // or record_put_text
 *             record_next_row(&o);
 *         }
 *         position = record_commit(ring, &o);
 *     }
 */
#pragma once

#include "record/schema.h"

#define RECORD_RING_DEFAULT_BYTES ((size_t)8 << 20)
#define RECORD_RING_MIN_BYTES ((size_t)256 << 10)
#define RECORD_BYTES_MAX ((size_t)128 << 10) /* one record; split larger batches by row_first */
#define RECORD_ID_MAX 64u
#define RECORD_LABEL_MAX 64u
#define RECORD_COMMENT_MAX 1024u /* longer comments are cut at a UTF-8 boundary */
#define RECORD_USER_BYTES 16u
#define RECORD_ARMS_MAX 16u /* arms 0..15 */

enum record_kind { RECORD_PREDICT = 1, RECORD_SHADOW = 2, RECORD_FEEDBACK = 3 };

enum record_flag {
#define RECORD_FLAG(name, bit, text, help) RECORD_##name = 1 << (bit),
#include "record/flags.def"
#undef RECORD_FLAG
};

enum record_outcome {
#define RECORD_OUTCOME(name, text, help) RECORD_OUTCOME_##name,
#include "record/outcomes.def"
#undef RECORD_OUTCOME
    RECORD_OUTCOME_COUNT
};

/* As it lies in the ring and in segments; little-endian, 8-aligned. The request id follows, padded
 * to 8, then the rows (or a struct record_feedback). */
struct record_head {
    uint32_t bytes; /* the whole record, a multiple of 8 */
    uint32_t schema_id;
    uint8_t kind; /* enum record_kind */
    uint8_t arm;  /* 0 = champion; in a shadow record, the arm of the challenger (1..15) */
    uint16_t flags;
    uint16_t http_status;
    uint8_t grpc_code;
    uint8_t id_bytes;
    uint32_t row_count; /* 0 is legal: a request refused before it had rows */
    uint32_t row_first; /* index of the first row when a batch was split */
    int64_t wall_ns;    /* arrival of the request */
    uint32_t latency_us;
    uint32_t spare;
    uint64_t id_hash;                      /* record_id_hash(request id) */
    uint64_t tenant;                       /* 0 = the only one */
    unsigned char user[RECORD_USER_BYTES]; /* pseudonym: a prefix of the HMAC; zeros = none */
};
_Static_assert(sizeof(struct record_head) == 72, "the head is part of the segment format");

enum record_feedback_has {
    RECORD_HAS_LABEL_NUMBER = 1,
    RECORD_HAS_LABEL_TEXT = 2,
    RECORD_HAS_RATING = 4,
    RECORD_HAS_COMMENT = 8,
    RECORD_HAS_ERROR = 16, /* the person says that the answer was wrong */
    RECORD_HAS_VALUE = 32, /* of the outcome: price, seconds to completion */
};

/* The body of a feedback record. Label text, comment and item follow, in this order. */
struct record_feedback {
    int64_t event_ns; /* when it happened, not when it came in */
    double label;     /* with HAS_LABEL_NUMBER */
    double value;     /* with HAS_VALUE */
    uint32_t row;     /* which row of the request */
    uint8_t has;      /* enum record_feedback_has */
    uint8_t outcome;  /* enum record_outcome */
    int8_t rating;    /* 1..5 */
    uint8_t label_bytes;
    uint16_t comment_bytes;
    uint16_t item_bytes;
    uint32_t spare;
};
_Static_assert(sizeof(struct record_feedback) == 40, "part of the segment format");

/* What the producer says about a record. */
struct record_meta {
    const struct record_schema *schema; /* predict and shadow */
    enum record_kind kind;
    uint8_t arm;
    uint16_t flags;
    uint16_t http_status;
    uint8_t grpc_code;
    uint32_t row_count, row_first;
    int64_t wall_ns;
    uint32_t latency_us;
    str request_id;            /* cut to RECORD_ID_MAX bytes */
    const unsigned char *user; /* RECORD_USER_BYTES, or NULL */
    uint64_t tenant;
};

/* A feedback as it came from the API: already redacted. Texts are cut to their limits. */
struct record_feedback_in {
    str request_id;
    int64_t wall_ns, event_ns; /* event_ns 0 = wall_ns */
    uint64_t tenant;
    const unsigned char *user;
    uint32_t row;
    uint8_t has; /* of number, rating, error, value; texts speak for themselves */
    double label, value;
    int8_t rating;
    enum record_outcome outcome;
    str label_text, comment, item;
    bool durable; /* wake the keeper at once */
};

struct record_out {
    struct record_head *head;
    const struct record_schema *schema;
    unsigned char *row; /* the row to fill; its fixed part is zeroed, texts are missing */
    unsigned char *end; /* of the reservation */
    uint32_t rows_done;
    uint32_t tail; /* of the current row: bytes used so far, from its start */
};

struct record_ring;

/* How many rows of this schema fit one record with text_bytes of strings per row. At least 1 for
 * every legal schema and text_bytes <= 32 KiB. */
uint32_t record_rows_max(const struct record_schema *s, size_t text_bytes);

/* Reserves room and fills the head. text_bytes: all strings of all rows. False when the ring is
 * full or the record is over RECORD_BYTES_MAX: both are counted as dropped. Owner loop only. */
bool record_begin(struct record_ring *r, const struct record_meta *m, size_t text_bytes,
                  struct record_out *o) HOT;
void record_put_number(struct record_out *o, uint32_t column, double value);
/* Past the reservation or 65,535 bytes of row, the text is cut. */
void record_put_text(struct record_out *o, uint32_t column, str text);
void record_next_row(struct record_out *o);
/* Publishes the record; gives its position for record_ring_fate(). All rows must be done. Without a
 * commit, the next record_begin() reuses the room. */
uint64_t record_commit(struct record_ring *r, struct record_out *o) HOT;
/* One call for a feedback; 0 when the ring is full. */
uint64_t record_put_feedback(struct record_ring *r, const struct record_feedback_in *f);

enum record_fate { RECORD_PENDING, RECORD_DURABLE, RECORD_LOST };
/* Whether the record at a position is on disk. LOST is conservative: after a disk error a record
 * that did reach the disk may be called lost, never the reverse. Owner loop. */
enum record_fate record_ring_fate(const struct record_ring *r, uint64_t position);

uint64_t record_id_hash(str request_id);

/* --- The keeper's side -------------------------------------------------------------------- */
NODISCARD int record_ring_new(size_t bytes, struct record_ring **ret_ring, struct err *e);
void record_ring_free(struct record_ring *r); /* accepts NULL */
DEFINE_AUTO_PTR(struct record_ring, record_ring_free)

/* The next unread record, or NULL; valid until record_ring_release(). */
const struct record_head *record_ring_next(struct record_ring *r);
void record_ring_release(struct record_ring *r); /* frees the room of all that was read */
uint64_t record_ring_position(const struct record_ring *r); /* end of what was read */
void record_ring_publish(struct record_ring *r, uint64_t durable, uint64_t lost);
uint64_t record_ring_dropped(const struct record_ring *r);
uint64_t record_ring_pending_bytes(const struct record_ring *r);
/* Called by a committing loop when the ring passes half full or a record is RECORD_DURABLE_WANTED.
 * Must not block. */
void record_ring_set_wake(struct record_ring *r, void (*wake)(void *ctx), void *ctx);

/* Checks every length and offset of n bytes that claim to be one record (from a file). schema may
 * be NULL for feedback. False = damaged. */
bool record_check(const void *p, size_t n, const struct record_schema *s);

/* Accessors of a checked record. */
str record_request_id(const struct record_head *h);
const unsigned char *record_rows(const struct record_head *h);
const struct record_feedback *record_feedback_of(const struct record_head *h);
str record_feedback_label(const struct record_feedback *f);
str record_feedback_comment(const struct record_feedback *f);
str record_feedback_item(const struct record_feedback *f);
/* The row after `row`. */
static inline const unsigned char *record_row_after(const struct record_schema *s,
                                                    const unsigned char *row)
{
    uint32_t n = s->row_bytes;

    if (s->has_text)
        memcpy(&n, row, sizeof n);
    return row + n;
}
