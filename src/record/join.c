/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of recent predictions.
 *
 * The idea. Entries lie in a ring in order of arrival, so that the oldest makes room for the newest
 * and an insert writes to memory in sequence. Finding goes through buckets of one cache line: 16
 * slots of 32 bits, each a tag of the key and the number of its entry modulo four times the
 * capacity. From the number alone it is seen whether the entry has been overwritten; then the slot
 * is free. So nothing is ever deleted, and an insert costs one cache miss.
 * There are four slots per entry. A slot that nobody reused for so long that the numbers came round
 * again looks taken, which costs room but no mistake: what is found is compared with the whole key.
 * If all slots of a bucket are taken the oldest is given up (about one in a million).
 *
 * A shadow answer is an entry of its own under a key made of the request and the arm; the primary
 * entry remembers the arms that answered, whichever of the two came first.
 *
 * Labels. The first label of a prediction counts; the same again is a duplicate; a different one is
 * a correction: what the old one added is taken back and the new one added, so that sums over time
 * are right whatever the order of arrival.
 */
#include "record/join.h"

#include "base/mem.h"

#include <math.h>
#include <sys/mman.h>

#define BUCKET 16u /* slots: 64 bytes */
#define SLOTS_PER_ENTRY 4u
#define ROW_MIX UINT64_C(0x9e3779b97f4a7c15)
#define ARM_MIX UINT64_C(0xd1b54a32d192ed03)

enum { LABELLED = 1, SHADOW = 2 };

struct entry {
    uint64_t key;
    int64_t wall_ns;
    double predicted; /* the value, the score, or the class */
    double label;
    uint32_t schema_id;
    uint16_t shadow_arms; /* bit set: which shadow entries exist for this one */
    uint8_t arm;
    uint8_t state;
    uint8_t predicted_class, label_class;
};

struct join {
    struct entry *entries; /* capacity of them, mapped lazily */
    uint32_t *slots;       /* tag above the bits of number_mask, number below */
    uint32_t capacity, slot_count;
    uint32_t number_mask; /* 4 * capacity - 1 */
    uint32_t rows_max;
    uint32_t next;                  /* number of the next entry; starts behind capacity, wraps */
    uint64_t inserted;              /* entries ever made */
    uint16_t arms_now, arms_before; /* shadow arms seen in this and the last digest interval */
};

/* --- The table ----------------------------------------------------------------------------- */

static size_t slots_bytes(const struct join *j)
{
    return (size_t)j->slot_count * sizeof *j->slots;
}

int join_new(uint32_t entries, uint32_t rows_per_request, struct join **ret_join, struct err *e)
{
    AUTO(join_freep) struct join *j = mem_zalloc(sizeof *j);
    uint32_t capacity = 1024;

    entries = entries ? entries : JOIN_ENTRIES_DEFAULT;
    if (entries > JOIN_ENTRIES_MAX)
        return FAIL(e, INVALID_ARGUMENT, "a join index of %u predictions: at most %u", entries,
                    JOIN_ENTRIES_MAX);
    while (capacity < entries)
        capacity *= 2;
    j->capacity = capacity;
    j->next = capacity + 1; /* so that a slot of zero is a free one */
    j->slot_count = capacity * SLOTS_PER_ENTRY;
    j->number_mask = 4 * capacity - 1;
    j->rows_max = rows_per_request ? rows_per_request : JOIN_ROWS_DEFAULT;
    j->entries = mmap(NULL, capacity * sizeof *j->entries, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    j->slots = mmap(NULL, slots_bytes(j), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (j->entries == MAP_FAILED || j->slots == MAP_FAILED)
        return FAIL_ERRNO(e, "join index of %u predictions", capacity);
    /* Random access over many small pages costs more in page walks than in cache misses. */
    madvise(j->slots, slots_bytes(j), MADV_HUGEPAGE);
    *ret_join = TAKE(j);
    return 0;
}

void join_free(struct join *j)
{
    if (!j)
        return;
    if (j->entries && j->entries != MAP_FAILED)
        munmap(j->entries, j->capacity * sizeof *j->entries);
    if (j->slots && j->slots != MAP_FAILED)
        munmap(j->slots, slots_bytes(j));
    mem_free(j);
}

static uint64_t row_key(uint64_t id_hash, uint32_t row)
{
    return id_hash ^ row * ROW_MIX;
}

static uint64_t shadow_key(uint64_t primary, uint32_t arm)
{
    return primary ^ (arm + 1) * ARM_MIX;
}

/* The high half picks the bucket, the low half is the tag: they must not repeat each other. */
static uint32_t *bucket_of(const struct join *j, uint64_t key)
{
    return j->slots + ((uint32_t)(key >> 32) & (j->slot_count - 1) & ~(BUCKET - 1));
}

static uint32_t slot_value(const struct join *j, uint64_t key, uint32_t number)
{
    return ((uint32_t)key & ~j->number_mask) | (number & j->number_mask);
}

/* How many entries ago the one of a slot was made; capacity and more: overwritten. */
static uint32_t age_of(const struct join *j, uint32_t slot)
{
    return (j->next - slot - 1) & j->number_mask;
}

static struct entry *entry_at(const struct join *j, uint32_t number)
{
    return &j->entries[number & (j->capacity - 1)];
}

/* The youngest entry of a key. */
static struct entry *find(const struct join *j, uint64_t key)
{
    const uint32_t *slot = bucket_of(j, key);
    struct entry *found = NULL;
    uint32_t youngest = j->capacity;

    for (uint32_t i = 0; i < BUCKET; i++) {
        uint32_t age = age_of(j, slot[i]);

        if (((slot[i] ^ (uint32_t)key) & ~j->number_mask) || age >= youngest ||
            entry_at(j, slot[i])->key != key)
            continue;
        found = entry_at(j, slot[i]);
        youngest = age;
    }
    return found;
}

/* The slot whose entry is oldest: a free one if there is any. */
static uint32_t *oldest_slot(const struct join *j, uint64_t key)
{
    uint32_t *slot = bucket_of(j, key), *oldest = slot;

    for (uint32_t i = 1; i < BUCKET; i++)
        oldest = age_of(j, slot[i]) > age_of(j, *oldest) ? &slot[i] : oldest;
    return oldest;
}

static struct entry *insert(struct join *j, struct fold *f, uint64_t key)
{
    struct entry *made = entry_at(j, j->next);

    if (j->inserted >= j->capacity && !(made->state & (LABELLED | SHADOW)))
        f->digest.join_evicted++;
    *oldest_slot(j, key) = slot_value(j, key, j->next);
    *made = (struct entry){.key = key};
    j->next++;
    j->inserted++;
    return made;
}

/* --- What was predicted, what was right ------------------------------------------------------ */

static uint8_t argmax(const struct record_schema *s, const void *row)
{
    double best = -INFINITY;
    uint8_t at = RECORD_CLASS_NONE;

    for (uint32_t i = 0; i < s->class_count; i++) {
        double score = record_row_number(s, s->feature_count + s->target_at + i, row);

        if (score > best) {
            best = score;
            at = (uint8_t)i;
        }
    }
    return at;
}

static void read_prediction(const struct record_schema *s, const void *row, struct entry *to)
{
    uint32_t column = s->feature_count + s->target_at;

    to->predicted = NAN;
    to->predicted_class = RECORD_CLASS_NONE;
    switch (s->target) {
    case RECORD_TARGET_VALUE:
        to->predicted = record_row_number(s, column, row);
        return;
    case RECORD_TARGET_SCORE:
        to->predicted = record_row_number(s, column, row);
        if (to->predicted == to->predicted)
            to->predicted_class = to->predicted >= s->threshold;
        return;
    case RECORD_TARGET_CLASS:
        to->predicted_class =
            s->columns[column].type == RECORD_STR
                ? record_schema_class_of_text(s, record_row_text(s, column, row))
                : record_schema_class_of_number(s, record_row_number(s, column, row));
        break;
    case RECORD_TARGET_ARGMAX:
        to->predicted_class = argmax(s, row);
        break;
    case RECORD_TARGET_NONE:
        return;
    }
    to->predicted = to->predicted_class;
}

static bool is_usable(const struct record_schema *s, const struct entry *p)
{
    if (s->target == RECORD_TARGET_VALUE)
        return isfinite(p->predicted);
    return s->target != RECORD_TARGET_NONE && p->predicted_class != RECORD_CLASS_NONE;
}

static bool is_right(const struct record_schema *s, const struct entry *p)
{
    if (s->target == RECORD_TARGET_VALUE)
        return fabs(p->predicted - p->label) <= s->tolerance;
    return p->predicted_class == p->label_class;
}

/* Squared error of a value, Brier loss of a score, 0 or 1 of a class. */
static double loss_of(const struct record_schema *s, const struct entry *p)
{
    double d = p->predicted - p->label;

    if (s->target == RECORD_TARGET_VALUE)
        return d * d;
    if (s->target == RECORD_TARGET_SCORE)
        d = p->predicted - p->label_class;
    else
        d = p->predicted_class != p->label_class;
    return d * d;
}

/* --- Labels -------------------------------------------------------------------------------- */

/* Adds (sign 1) or takes back (sign -1) what the label of p says about p. */
static void apply_label(struct fold *f, const struct record_schema *s, const struct entry *p,
                        int sign)
{
    struct digest_labels *l = &fold_series(f, s, p->arm, (p->state & SHADOW) != 0)->labels;

    l->errors += sign * !is_right(s, p);
    if (s->target != RECORD_TARGET_VALUE)
        l->confusion[p->label_class][p->predicted_class] += sign;
    if (s->target == RECORD_TARGET_VALUE || s->target == RECORD_TARGET_SCORE) {
        double loss = loss_of(s, p);

        l->squared_error += sign * loss;
        l->absolute_error += sign * sqrt(loss);
    }
}

static void apply_pair(struct fold *f, const struct entry *primary, const struct entry *shadow,
                       int sign)
{
    const struct record_schema *ps = record_schema_at(primary->schema_id);
    const struct record_schema *ss = record_schema_at(shadow->schema_id);
    struct digest_paired *t = &fold_series(f, ss, shadow->arm, true)->paired;
    double d = loss_of(ss, shadow) - loss_of(ps, primary);

    t->outcome[is_right(ps, primary)][is_right(ss, shadow)] += sign;
    t->loss_diff += sign * d;
    t->loss_diff_squared += sign * d * d;
    t->loss_diff_count += sign;
}

/* Gives an entry its label as its own schema reads it; false when it says nothing to it. */
static bool read_label(const struct record_schema *s, const struct record_feedback *fb,
                       struct entry *to)
{
    str text = record_feedback_label(fb);
    bool has_text = (fb->has & RECORD_HAS_LABEL_TEXT) != 0;
    double number = fb->label;

    if (s->target == RECORD_TARGET_VALUE) {
        if (has_text && !str_to_f64(text, &number))
            return false;
        to->label = number;
        return isfinite(number);
    }
    to->label_class =
        has_text ? record_schema_class_of_text(s, text) : record_schema_class_of_number(s, number);
    to->label = to->label_class;
    return to->label_class != RECORD_CLASS_NONE;
}

/* One entry gets a label, for the first time or instead of another. */
static void label_entry(struct fold *f, struct entry *p, const struct entry *label)
{
    const struct record_schema *s = record_schema_at(p->schema_id);

    if (p->state & LABELLED)
        apply_label(f, s, p, -1);
    p->label = label->label;
    p->label_class = label->label_class;
    p->state |= LABELLED;
    apply_label(f, s, p, 1);
}

/* Class numbers of two versions mean the same. */
static bool same_classes(const struct record_schema *a, const struct record_schema *b)
{
    if (a->class_count != b->class_count || !a->class_names != !b->class_names)
        return false;
    for (uint32_t i = 0; a != b && a->class_names && i < a->class_count; i++)
        if (!str_eq(a->class_names[i], b->class_names[i]))
            return false;
    return true;
}

static bool comparable(const struct entry *a, const struct entry *b)
{
    const struct record_schema *sa = record_schema_at(a->schema_id);
    const struct record_schema *sb = record_schema_at(b->schema_id);

    return is_usable(sa, a) && is_usable(sb, b) &&
           (sa->target == RECORD_TARGET_VALUE) == (sb->target == RECORD_TARGET_VALUE) &&
           same_classes(sa, sb);
}

/* Carries a label from the primary entry to its shadows; `relabel` takes the old pair back. */
static void label_shadows(struct join *j, struct fold *f, struct entry *primary,
                          const struct entry *label)
{
    for (uint32_t arms = primary->shadow_arms; arms; arms &= arms - 1) {
        struct entry *shadow = find(j, shadow_key(primary->key, (uint32_t)__builtin_ctz(arms)));

        if (!shadow || !comparable(primary, shadow))
            continue;
        if ((shadow->state & LABELLED) && (primary->state & LABELLED))
            apply_pair(f, primary, shadow, -1);
        label_entry(f, shadow, label);
    }
}

static void pair_shadows(struct join *j, struct fold *f, const struct entry *primary)
{
    for (uint32_t arms = primary->shadow_arms; arms; arms &= arms - 1) {
        struct entry *shadow = find(j, shadow_key(primary->key, (uint32_t)__builtin_ctz(arms)));

        if (shadow && (shadow->state & LABELLED) && comparable(primary, shadow))
            apply_pair(f, primary, shadow, 1);
    }
}

void join_feedback(struct join *j, struct fold *f, const struct record_head *h)
{
    const struct record_feedback *fb = record_feedback_of(h);
    const struct record_schema *s;
    struct digest_labels *l;
    struct entry label = {0};
    struct entry *p;

    f->digest.feedback++;
    if (!(fb->has & (RECORD_HAS_LABEL_NUMBER | RECORD_HAS_LABEL_TEXT)))
        return;
    p = find(j, row_key(h->id_hash, fb->row));
    if (!p) {
        f->digest.feedback_late++;
        return;
    }
    s = record_schema_at(p->schema_id);
    l = &fold_series(f, s, p->arm, false)->labels;
    if (!is_usable(s, p) || !read_label(s, fb, &label)) {
        l->unusable++;
        return;
    }
    if ((p->state & LABELLED) && p->label == label.label) {
        l->duplicates++;
        return;
    }
    if (p->state & LABELLED) {
        l->corrected++;
    } else {
        l->joined++;
        l->delay_ms_sum += MAX(fb->event_ns - p->wall_ns, 0) / 1000000;
    }
    label_shadows(j, f, p, &label);
    label_entry(f, p, &label);
    pair_shadows(j, f, p);
}

/* --- Records ------------------------------------------------------------------------------- */

/* Both answers to one request are here: compare them, and share a label that came early. */
static void link_shadow(struct fold *f, struct entry *primary, struct entry *shadow)
{
    const struct record_schema *ps = record_schema_at(primary->schema_id);
    const struct record_schema *ss = record_schema_at(shadow->schema_id);
    struct digest_paired *t;
    bool agreed;

    if (primary->shadow_arms >> shadow->arm & 1)
        return;
    primary->shadow_arms |= (uint16_t)(1u << shadow->arm);
    if (!comparable(primary, shadow))
        return;
    t = &fold_series(f, ss, shadow->arm, true)->paired;
    agreed = ps->target == RECORD_TARGET_VALUE
                 ? fabs(primary->predicted - shadow->predicted) <= ss->tolerance
                 : primary->predicted_class == shadow->predicted_class;
    t->compared++;
    t->agreed += agreed;
    if (primary->state & LABELLED) {
        label_entry(f, shadow, primary);
        apply_pair(f, primary, shadow, 1);
    }
}

static void add_row(struct join *j, struct fold *f, const struct record_head *h,
                    const struct record_schema *s, uint64_t key, const unsigned char *row)
{
    bool shadow = h->kind == RECORD_SHADOW;
    struct entry *p = insert(j, f, shadow ? shadow_key(key, h->arm) : key);
    uint32_t arms = j->arms_now | j->arms_before;

    p->wall_ns = h->wall_ns;
    p->schema_id = h->schema_id;
    p->arm = h->arm;
    p->state = shadow ? SHADOW : 0;
    read_prediction(s, row, p);
    if (shadow) {
        struct entry *primary = find(j, key);

        j->arms_now |= (uint16_t)(1u << h->arm);
        if (primary)
            link_shadow(f, primary, p);
        return;
    }
    for (; arms; arms &= arms - 1) { /* none unless shadow traffic runs */
        struct entry *early = find(j, shadow_key(key, (uint32_t)__builtin_ctz(arms)));

        if (early)
            link_shadow(f, p, early);
    }
}

void join_prefetch(const struct join *j, const struct record_head *h)
{
    uint64_t key = row_key(h->id_hash, h->row_first);

    __builtin_prefetch(bucket_of(j, h->kind == RECORD_SHADOW ? shadow_key(key, h->arm) : key), 1);
}

void join_record(struct join *j, struct fold *f, const struct record_head *h,
                 const struct record_schema *s)
{
    const unsigned char *row = record_rows(h);

    /* What a fallback answered is no prediction of this version. */
    if (!h->id_bytes || (h->flags & RECORD_FALLBACK))
        return;
    for (uint32_t i = 0; i < h->row_count && h->row_first + i < j->rows_max; i++) {
        add_row(j, f, h, s, row_key(h->id_hash, h->row_first + i), row);
        row = record_row_after(s, row);
    }
}

void join_tick(struct join *j)
{
    j->arms_before = j->arms_now;
    j->arms_now = 0;
}
