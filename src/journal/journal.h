/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: the append-only list of facts of the control plane, tamper-evident.
 *
 * A fact has a sequence number (1, 2, 3… without gaps: the order of the journal), a UUIDv7, a time,
 * a type out of types.def, and who, what, why. Facts of one story (drift, retrain, rollout) share a
 * correlation id, normally the id of the first fact or flow of the story.
 *
 * Time: at_ns is the wall clock, but never less than that of the fact before; a clock that steps
 * back repeats the last time until it has caught up. Order is by seq alone.
 *
 * The rows are the leaves of an RFC 6962 Merkle tree over SHA-256. The bytes of a leaf are the
 * line that journal_fact_line() gives, so that an exported journal can be verified by anyone with a
 * SHA-256 at hand. Each row keeps the root of the tree that ends with it.
 */
#pragma once

#include "base/hash.h"
#include "base/json.h"
#include "base/random.h"
#include "store/meta/meta.h"

enum fact_type {
#define FACT(name, text, help) FACT_##name,
#include "journal/types.def"
#undef FACT
    FACT_COUNT
};
const char *fact_type_name(enum fact_type type); /* "drift.detected" */
const char *fact_type_help(enum fact_type type);
NODISCARD bool fact_type_find(str name, enum fact_type *ret_type);

#define JOURNAL_TEXT_MAX 512    /* bytes of subject, actor and correlation */
#define JOURNAL_REASON_MAX 4096 /* bytes; a longer reason is cut */
#define JOURNAL_DATA_MAX ((size_t)256 << 10)

/* What the caller says. All text is UTF-8 and borrowed for the call. */
struct fact_new {
    enum fact_type type;
    str subject;             /* what it is about: "model/fraud", "endpoint/fraud", "rollout/<id>" */
    str actor;               /* who: "user:ann", "trigger:drift-fraud", "weir" */
    str reason;              /* why, one line for people */
    str correlation;         /* empty: the fact's own id */
    const struct json *data; /* an object, or NULL for {} */
};

struct fact {
    int64_t seq; /* from 1 */
    int64_t at_ns;
    str id;   /* UUIDv7 */
    str type; /* dotted; a newer program's type is possible in a database that was rolled back */
    str subject, actor, reason, correlation;
    str data; /* canonical JSON text of an object */
    unsigned char leaf[SHA256_BYTES];
    unsigned char root[SHA256_BYTES]; /* of the tree of the facts 1…seq */
};

/* What became of an appended fact; ret may be NULL everywhere. */
struct fact_ref {
    int64_t seq;
    int64_t at_ns;
    char id[UUID_SIZE];
};

/* Appends inside the caller's transaction if one is open on `m`, else in one of its own. Watchers
 * of META_TOPIC_JOURNAL run after the commit. INVALID_ARGUMENT: not UTF-8, or above the limits. */
NODISCARD int journal_append(struct meta *m, const struct fact_new *fact, struct fact_ref *ret,
                             struct err *e);

/* ----- Reading ----- */

#define JOURNAL_LIMIT_DEFAULT 1000u
#define JOURNAL_LIMIT_MAX 100000u
struct journal_query {
    int64_t after_seq;  /* 0 = from the first */
    int64_t before_seq; /* exclusive; 0 = to the last */
    str type_prefix;    /* "rollout" or "rollout." or "rollout.judged": whole dotted parts */
    str subject;
    str correlation;
    int64_t from_ns, to_ns; /* from <= at_ns < to; 0 = open */
    bool newest_first;
    uint32_t limit; /* 0 = JOURNAL_LIMIT_DEFAULT; at most JOURNAL_LIMIT_MAX */
};
/* Facts in the arena, by seq. To follow the journal: read with after_seq = the last seq seen, when
 * a watcher of META_TOPIC_JOURNAL fires, and every second or so in any case. */
NODISCARD int journal_read(struct meta *m, const struct journal_query *query, struct arena *a,
                           struct fact **ret_facts, size_t *ret_n, struct err *e);
NODISCARD int journal_last_seq(struct meta *m, int64_t *ret_seq, struct err *e); /* 0 = empty */

/* A named reader's durable place. Save it in the transaction of the reader's effects, and each fact
 * takes effect once. Unknown names stand at 0. */
NODISCARD int journal_cursor_load(struct meta *m, str name, int64_t *ret_seq, struct err *e);
NODISCARD int journal_cursor_save(struct meta *m, str name, int64_t seq, struct err *e);

/* The fact as one line of JSON without the newline: exactly the bytes that the leaf hash covers
 * (after the 0x00 of RFC 6962). */
void journal_fact_line(struct buf *out, const struct fact *fact);
/* The same with leaf and root, for the API. */
void journal_fact_json(struct json_out *out, const struct fact *fact);

/* ----- Proving ----- */

struct journal_head {
    int64_t size; /* facts */
    unsigned char root[SHA256_BYTES];
};
/* The head when the journal had `size` facts; size < 0 = now. Size 0 has the hash of nothing. */
NODISCARD int journal_head(struct meta *m, int64_t size, struct journal_head *ret_head,
                           struct err *e);

/* Recomputes every leaf, inner node and root. 0 and the head when all is well; DATA_LOSS naming the
 * first bad row, which *ret_bad_seq (may be NULL) holds too. `known` (may be NULL) is a head noted
 * earlier, elsewhere: a journal that was rewritten from the start does not contain it. */
NODISCARD int journal_verify(struct meta *m, const struct journal_head *known,
                             struct journal_head *ret_head, int64_t *ret_bad_seq, struct err *e);

#define JOURNAL_PROOF_MAX 64
struct journal_proof {
    size_t n;
    unsigned char path[JOURNAL_PROOF_MAX][SHA256_BYTES];
};
/* RFC 6962 section 2.1.1: fact `seq` is in the tree of `size` facts. OUT_OF_RANGE. */
NODISCARD int journal_prove_inclusion(struct meta *m, int64_t seq, int64_t size,
                                      struct journal_proof *ret_proof, struct err *e);
/* RFC 6962 section 2.1.2: the tree of `to` facts extends that of `from`, 0 < from <= to. */
NODISCARD int journal_prove_consistency(struct meta *m, int64_t from, int64_t to,
                                        struct journal_proof *ret_proof, struct err *e);
/* Checking needs no journal. */
NODISCARD bool journal_check_inclusion(const unsigned char leaf[SHA256_BYTES], int64_t seq,
                                       const struct journal_head *head,
                                       const struct journal_proof *proof);
NODISCARD bool journal_check_consistency(const struct journal_head *from,
                                         const struct journal_head *to,
                                         const struct journal_proof *proof);
