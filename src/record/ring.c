/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of bytes between one loop and the keeper.
 *
 * The idea. The same memory is mapped twice, back to back, so that a record which passes the end of
 * the ring is still one piece of memory; there is no wrap to handle on either side. Positions count
 * bytes since the start and never wrap (a ring that moves 10 GB/s would take 58 years).
 *
 * Invariants.
 * 1. tail <= head <= tail + capacity. The producer alone moves head, the keeper alone moves tail.
 * 2. Bytes in [tail, head) are whole records, each a multiple of 8 bytes long.
 * 3. Each side keeps a private copy of the other's position and re-reads it only when it runs out,
 *    so that in steady state the two cores do not pass a cache line to and fro for each record.
 */
#include "record/ring.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#define ID_SEED UINT64_C(0x77656972)
#define LINE 64

struct record_ring {
    unsigned char *base; /* capacity bytes, mapped twice */
    uint64_t capacity;
    void (*wake)(void *ctx);
    void *wake_ctx;

    _Alignas(LINE) uint64_t tail_seen; /* the producer's copy */
    uint64_t woken_at;                 /* head when the keeper was last woken for fullness */
    _Atomic uint64_t dropped;
    _Alignas(LINE) _Atomic uint64_t head;
    _Alignas(LINE) _Atomic uint64_t tail;
    uint64_t head_seen; /* the keeper's copy */
    uint64_t read;      /* the keeper is here; tail <= read <= head */
    _Alignas(LINE) _Atomic uint64_t durable, lost;
};

static uint32_t pad8(size_t n)
{
    return (uint32_t)((n + 7) & ~(size_t)7);
}

/* --- Making -------------------------------------------------------------------------------- */

static NODISCARD int map_twice(size_t bytes, unsigned char **ret_base, struct err *e)
{
    int fd = memfd_create("weir-ring", MFD_CLOEXEC);
    unsigned char *base;

    if (fd < 0)
        return FAIL_ERRNO(e, "record ring: memfd_create");
    if (ftruncate(fd, (off_t)bytes) != 0) {
        close(fd);
        return FAIL_ERRNO(e, "record ring of %zu bytes", bytes);
    }
    base = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int half = 0; base != MAP_FAILED && half < 2; half++)
        if (mmap(base + (size_t)half * bytes, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                 fd, 0) == MAP_FAILED) {
            munmap(base, 2 * bytes);
            base = MAP_FAILED;
        }
    close(fd);
    if (base == MAP_FAILED)
        return FAIL_ERRNO(e, "record ring of %zu bytes: mmap", bytes);
    *ret_base = base;
    return 0;
}

int record_ring_new(size_t bytes, struct record_ring **ret_ring, struct err *e)
{
    struct record_ring *r;
    unsigned char *base = NULL;

    bytes = bytes ? bytes : RECORD_RING_DEFAULT_BYTES;
    if (bytes < RECORD_RING_MIN_BYTES || (bytes & (bytes - 1)) || bytes > ((size_t)1 << 32))
        return FAIL(e, INVALID_ARGUMENT,
                    "a record ring of %zu bytes: a power of two from 256 KiB to 4 GiB is needed",
                    bytes);
    TRY(map_twice(bytes, &base, e));
    /* A page of its own: cache-line aligned, zeroed, shared with nothing. */
    r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (r == MAP_FAILED) {
        munmap(base, 2 * bytes);
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for a record ring");
    }
    r->base = base;
    r->capacity = bytes;
    *ret_ring = r;
    return 0;
}

void record_ring_free(struct record_ring *r)
{
    if (!r)
        return;
    munmap(r->base, 2 * r->capacity);
    munmap(r, sizeof *r);
}

void record_ring_set_wake(struct record_ring *r, void (*wake)(void *ctx), void *ctx)
{
    r->wake = wake;
    r->wake_ctx = ctx;
}

/* --- The producer -------------------------------------------------------------------------- */

static void drop(struct record_ring *r)
{
    uint64_t n = atomic_load_explicit(&r->dropped, memory_order_relaxed);

    atomic_store_explicit(&r->dropped, n + 1, memory_order_relaxed);
}

static unsigned char *reserve(struct record_ring *r, size_t bytes)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

    if (UNLIKELY(head + bytes > r->tail_seen + r->capacity)) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (head + bytes > r->tail_seen + r->capacity) {
            drop(r);
            return NULL;
        }
    }
    return r->base + (head & (r->capacity - 1));
}

static uint64_t publish(struct record_ring *r, const struct record_head *h)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed) + h->bytes;

    atomic_store_explicit(&r->head, head, memory_order_release);
    if (UNLIKELY(head - r->tail_seen > r->capacity / 2)) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (head - r->tail_seen > r->capacity / 2 && head - r->woken_at > r->capacity / 8 &&
            r->wake) {
            r->woken_at = head;
            r->wake(r->wake_ctx);
            return head;
        }
    }
    if ((h->flags & RECORD_DURABLE_WANTED) && r->wake)
        r->wake(r->wake_ctx);
    return head;
}

uint64_t record_id_hash(str request_id)
{
    return hash_str(str_take(request_id, RECORD_ID_MAX), ID_SEED);
}

uint32_t record_rows_max(const struct record_schema *s, size_t text_bytes)
{
    size_t room = RECORD_BYTES_MAX - sizeof(struct record_head) - RECORD_ID_MAX - 8;
    size_t row = s->row_bytes + (s->has_text ? text_bytes + 8 : 0);

    return (uint32_t)(room / MAX(row, 1u));
}

static void fill_id(struct record_head *h, str id)
{
    unsigned char *at = (unsigned char *)(h + 1);

    memset(at, 0, pad8(id.n));
    if (id.n)
        memcpy(at, id.p, id.n);
    h->id_bytes = (uint8_t)id.n;
    h->id_hash = hash_str(id, ID_SEED);
}

/* The fixed part of a row is zeroed: what a producer leaves out reads as zero or missing, never as
 * bytes of an older record. */
static void row_open(struct record_out *o)
{
    memset(o->row, 0, o->schema->row_bytes);
    o->tail = o->schema->row_bytes;
}

bool record_begin(struct record_ring *r, const struct record_meta *m, size_t text_bytes,
                  struct record_out *o)
{
    const struct record_schema *s = m->schema;
    str id = str_take(m->request_id, RECORD_ID_MAX);
    size_t head_bytes = sizeof(struct record_head) + pad8(id.n);
    size_t bytes = head_bytes + (size_t)m->row_count * s->row_bytes;
    struct record_head *h;

    ASSERT(m->kind == RECORD_PREDICT || m->kind == RECORD_SHADOW);
    ASSERT(m->arm < RECORD_ARMS_MAX);
    if (s->has_text)
        bytes += pad8(text_bytes) + 8 * (size_t)m->row_count;
    if (bytes > RECORD_BYTES_MAX || text_bytes > RECORD_BYTES_MAX) {
        drop(r);
        return false;
    }
    h = (struct record_head *)(void *)reserve(r, bytes);
    if (!h)
        return false;
    *h = (struct record_head){.bytes = (uint32_t)bytes,
                              .schema_id = s->id,
                              .kind = (uint8_t)m->kind,
                              .arm = m->arm,
                              .flags = m->flags,
                              .http_status = m->http_status,
                              .grpc_code = m->grpc_code,
                              .row_count = m->row_count,
                              .row_first = m->row_first,
                              .wall_ns = m->wall_ns,
                              .latency_us = m->latency_us,
                              .tenant = m->tenant};
    if (m->user)
        memcpy(h->user, m->user, RECORD_USER_BYTES);
    fill_id(h, id);
    *o = (struct record_out){.head = h,
                             .schema = s,
                             .row = (unsigned char *)h + head_bytes,
                             .end = (unsigned char *)h + bytes};
    if (m->row_count)
        row_open(o);
    return true;
}

void record_put_number(struct record_out *o, uint32_t column, double value)
{
    unsigned char *at = o->row + o->schema->columns[column].at;

    ASSERT(column < o->schema->column_count);
    switch (o->schema->columns[column].type) {
    case RECORD_F32: {
        float v = (float)value;

        memcpy(at, &v, sizeof v);
        break;
    }
    case RECORD_F64:
        memcpy(at, &value, sizeof value);
        break;
    case RECORD_I64: {
        bool fits = value >= -9223372036854775808.0 && value < 9223372036854775808.0;
        int64_t v = fits ? (int64_t)value : RECORD_I64_MISSING;

        memcpy(at, &v, sizeof v);
        break;
    }
    default:
        break; /* a number for a text column: stays missing */
    }
}

void record_put_text(struct record_out *o, uint32_t column, str text)
{
    size_t room = (size_t)(o->end - o->row) - o->tail;
    struct record_text t;

    ASSERT(column < o->schema->column_count);
    if (o->schema->columns[column].type != RECORD_STR || o->tail > UINT16_MAX)
        return;
    /* What is still needed by the rows to come is theirs. */
    room -= MIN(room, (size_t)(o->head->row_count - o->rows_done - 1) * (o->schema->row_bytes + 8));
    room = MIN(room, (size_t)(UINT16_MAX - o->tail));
    t = (struct record_text){.at = (uint16_t)o->tail, .n = (uint16_t)MIN(text.n, room)};
    if (t.n)
        memcpy(o->row + o->tail, text.p, t.n);
    o->tail += t.n;
    memcpy(o->row + o->schema->columns[column].at, &t, sizeof t);
}

void record_next_row(struct record_out *o)
{
    uint32_t n = o->schema->row_bytes;

    ASSERT(o->rows_done < o->head->row_count);
    if (o->schema->has_text) {
        n = pad8(o->tail);
        memset(o->row + o->tail, 0, n - o->tail);
        memcpy(o->row, &n, sizeof n);
    }
    o->row += n;
    ASSERT(o->row <= o->end);
    if (++o->rows_done < o->head->row_count)
        row_open(o);
}

uint64_t record_commit(struct record_ring *r, struct record_out *o)
{
    ASSERT(o->rows_done == o->head->row_count);
    o->head->bytes = (uint32_t)(o->row - (unsigned char *)o->head);
    return publish(r, o->head);
}

/* Cuts at max bytes without splitting a UTF-8 sequence. */
static str cut_utf8(str s, size_t max)
{
    if (s.n <= max)
        return s;
    while (max > 0 && ((unsigned char)s.p[max] & 0xc0) == 0x80)
        max--;
    return str_take(s, max);
}

static unsigned char *put_bytes(unsigned char *at, str s)
{
    if (s.n)
        memcpy(at, s.p, s.n);
    return at + s.n;
}

uint64_t record_put_feedback(struct record_ring *r, const struct record_feedback_in *f)
{
    str id = str_take(f->request_id, RECORD_ID_MAX);
    str label = cut_utf8(f->label_text, RECORD_LABEL_MAX);
    str comment = cut_utf8(f->comment, RECORD_COMMENT_MAX);
    str item = cut_utf8(f->item, RECORD_ID_MAX);
    size_t texts = label.n + comment.n + item.n;
    uint32_t bytes = (uint32_t)(sizeof(struct record_head) + sizeof(struct record_feedback)) +
                     pad8(id.n) + pad8(texts);
    unsigned char *at = reserve(r, bytes);
    struct record_head *h = (struct record_head *)(void *)at;
    struct record_feedback *body;

    ASSERT((unsigned)f->outcome < RECORD_OUTCOME_COUNT);
    if (!at)
        return 0;
    *h = (struct record_head){.bytes = bytes,
                              .kind = RECORD_FEEDBACK,
                              .flags = f->durable ? RECORD_DURABLE_WANTED : 0,
                              .wall_ns = f->wall_ns,
                              .tenant = f->tenant};
    if (f->user)
        memcpy(h->user, f->user, RECORD_USER_BYTES);
    fill_id(h, id);
    body = (struct record_feedback *)(void *)(at + sizeof *h + pad8(id.n));
    *body = (struct record_feedback){.event_ns = f->event_ns ? f->event_ns : f->wall_ns,
                                     .label = f->label,
                                     .value = f->value,
                                     .row = f->row,
                                     .has = f->has & (RECORD_HAS_LABEL_NUMBER | RECORD_HAS_RATING |
                                                      RECORD_HAS_ERROR | RECORD_HAS_VALUE),
                                     .outcome = (uint8_t)f->outcome,
                                     .rating = f->rating,
                                     .label_bytes = (uint8_t)label.n,
                                     .comment_bytes = (uint16_t)comment.n,
                                     .item_bytes = (uint16_t)item.n};
    body->has |= (label.n ? RECORD_HAS_LABEL_TEXT : 0) | (comment.n ? RECORD_HAS_COMMENT : 0);
    at = (unsigned char *)(body + 1);
    memset(at, 0, pad8(texts));
    put_bytes(put_bytes(put_bytes(at, label), comment), item);
    return publish(r, h);
}

enum record_fate record_ring_fate(const struct record_ring *r, uint64_t position)
{
    /* `lost` is stored before `durable` passes it, so it is read after. */
    uint64_t durable = atomic_load_explicit(&r->durable, memory_order_acquire);
    uint64_t lost = atomic_load_explicit(&r->lost, memory_order_acquire);

    if (position <= lost)
        return RECORD_LOST;
    return position <= durable ? RECORD_DURABLE : RECORD_PENDING;
}

/* --- The keeper ---------------------------------------------------------------------------- */

const struct record_head *record_ring_next(struct record_ring *r)
{
    const struct record_head *h;

    if (r->read == r->head_seen) {
        r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
        if (r->read == r->head_seen)
            return NULL;
    }
    h = (const struct record_head *)(const void *)(r->base + (r->read & (r->capacity - 1)));
    ASSERT(h->bytes >= sizeof *h && h->bytes <= r->head_seen - r->read);
    r->read += h->bytes;
    return h;
}

void record_ring_release(struct record_ring *r)
{
    atomic_store_explicit(&r->tail, r->read, memory_order_release);
}

uint64_t record_ring_position(const struct record_ring *r)
{
    return r->read;
}

void record_ring_publish(struct record_ring *r, uint64_t durable, uint64_t lost)
{
    atomic_store_explicit(&r->lost, lost, memory_order_release);
    atomic_store_explicit(&r->durable, durable, memory_order_release);
}

uint64_t record_ring_dropped(const struct record_ring *r)
{
    return atomic_load_explicit(&r->dropped, memory_order_relaxed);
}

uint64_t record_ring_pending_bytes(const struct record_ring *r)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);

    return atomic_load_explicit(&r->head, memory_order_acquire) - tail;
}

/* --- Checking and reading ------------------------------------------------------------------ */

static bool check_feedback(const unsigned char *p, size_t n)
{
    const struct record_feedback *f = (const void *)p;

    return n >= sizeof *f && f->outcome < RECORD_OUTCOME_COUNT &&
           f->label_bytes <= RECORD_LABEL_MAX && f->comment_bytes <= RECORD_COMMENT_MAX &&
           f->item_bytes <= RECORD_ID_MAX &&
           n == sizeof *f + pad8((size_t)f->label_bytes + f->comment_bytes + f->item_bytes);
}

static bool check_text_row(const unsigned char *row, size_t n, const struct record_schema *s,
                           uint32_t *ret_bytes)
{
    uint32_t bytes;

    if (n < s->row_bytes)
        return false;
    memcpy(&bytes, row, sizeof bytes);
    if (bytes < s->row_bytes || bytes > n || bytes % 8)
        return false;
    for (uint32_t i = 0; i < s->column_count; i++) {
        struct record_text t;

        if (s->columns[i].type != RECORD_STR)
            continue;
        memcpy(&t, row + s->columns[i].at, sizeof t);
        if (t.at && (t.at < s->row_bytes || (uint32_t)t.at + t.n > bytes))
            return false;
        if (!t.at && t.n)
            return false;
    }
    *ret_bytes = bytes;
    return true;
}

bool record_check(const void *p, size_t n, const struct record_schema *s)
{
    const struct record_head *h = p;
    size_t head_bytes;
    const unsigned char *row;

    if (n < sizeof *h || h->bytes != n || n % 8 || n > RECORD_BYTES_MAX ||
        h->id_bytes > RECORD_ID_MAX || h->arm >= RECORD_ARMS_MAX || h->row_count > RECORD_BYTES_MAX)
        return false;
    head_bytes = sizeof *h + pad8(h->id_bytes);
    if (n < head_bytes)
        return false;
    row = (const unsigned char *)p + head_bytes;
    n -= head_bytes;
    if (h->kind == RECORD_FEEDBACK)
        return check_feedback(row, n);
    if ((h->kind != RECORD_PREDICT && h->kind != RECORD_SHADOW) || !s)
        return false;
    if (!s->has_text)
        return n == (uint64_t)h->row_count * s->row_bytes;
    for (uint32_t i = 0; i < h->row_count; i++) {
        uint32_t bytes;

        if (!check_text_row(row, n, s, &bytes))
            return false;
        row += bytes;
        n -= bytes;
    }
    return n == 0;
}

str record_request_id(const struct record_head *h)
{
    return (str){(const char *)(h + 1), h->id_bytes};
}

const unsigned char *record_rows(const struct record_head *h)
{
    return (const unsigned char *)(h + 1) + pad8(h->id_bytes);
}

const struct record_feedback *record_feedback_of(const struct record_head *h)
{
    ASSERT(h->kind == RECORD_FEEDBACK);
    return (const struct record_feedback *)(const void *)record_rows(h);
}

str record_feedback_label(const struct record_feedback *f)
{
    return (str){(const char *)(f + 1), f->label_bytes};
}

str record_feedback_comment(const struct record_feedback *f)
{
    return (str){(const char *)(f + 1) + f->label_bytes, f->comment_bytes};
}

str record_feedback_item(const struct record_feedback *f)
{
    return (str){(const char *)(f + 1) + f->label_bytes + f->comment_bytes, f->item_bytes};
}
