/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines gather in one buffer and go out with one write for each turn of the thread. `bytes` is how
 * long the file was before it: where a write fails, for want of space above all, the
 * file is cut back to there, so that a reader never meets half a line, and the lines are counted as
 * lost. The first failure and the first success after it are events of the log; those between are
 * only counted, for a full disk has no room for complaints.
 *
 * stdout may be a pipe that nobody empties: then this thread waits, rings fill, and notes are
 * dropped and counted. No request waits.
 */
#include "serve/telemetry/access_log.h"

#include "base/err.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"

#include <stdio.h>
#include <unistd.h>

#define OUT_BYTES ((size_t)4 << 20)
#define FLUSH_BYTES ((size_t)256 << 10)
#define PATH_BYTES 4096

/* --- Lines ------------------------------------------------------------------------------------ */

static const char *const protocols[NOTE_PROTOCOL_COUNT] = {"http/1.1", "h2", "grpc"};
static const char *const whys[NOTE_WHY_COUNT] = {"", "sample", "error", "slow"};
static const char *const anomalies[NOTE_ANOMALY_COUNT] = {"missing", "out_of_range", "unseen"};

static void put_hex(struct json_out *o, str key, const unsigned char *p, size_t n)
{
    char hex[2 * RECORD_USER_BYTES + 1];

    ASSERT(n <= RECORD_USER_BYTES);
    hex_encode(p, n, hex);
    jo_kstr(o, key, (str){hex, 2 * n});
}

static void put_ms(struct json_out *o, str key, uint64_t us)
{
    jo_kreal(o, key, (double)us / 1e3);
}

static void put_endpoint(struct json_out *o, const struct note *n)
{
    jo_kstr(o, S("endpoint"), n->series->endpoint);
    jo_kstr(o, S("version"), n->series->version);
    jo_kstr(o, S("arm"), n->series->arm);
    if (n->form)
        jo_kstr(o, S("form"), str_of(n->form));
    jo_kstr(o, S("result"), str_of(counters_end_label((enum request_end)n->end)));
    if (n->fallback)
        jo_kstr(o, S("fallback"), str_of(n->fallback));
    if (n->replayed)
        jo_kbool(o, S("replayed"), true);
}

static void put_work(struct json_out *o, const struct note *n)
{
    put_ms(o, S("latency_ms"), n->total_us);
    if (!n->compute_us)
        return;
    put_ms(o, S("queue_ms"), n->queue_us);
    put_ms(o, S("compute_ms"), n->compute_us);
    jo_kint(o, S("rows"), n->rows);
    jo_kint(o, S("batch_rows"), n->batch_rows);
}

static void put_anomalies(struct json_out *o, const struct note *n)
{
    if (!n->counts_anomalies)
        return;
    jo_key(o, S("anomalies"));
    jo_object(o);
    for (int i = 0; i < NOTE_ANOMALY_COUNT; i++)
        jo_kint(o, str_of(anomalies[i]), n->anomalies[i]);
    jo_object_end(o);
}

static void put_who(struct json_out *o, const struct note *n)
{
    if (n->tenant_bytes)
        jo_kstr(o, S("tenant"), (str){n->tenant, n->tenant_bytes});
    if (n->caller_bytes)
        jo_kstr(o, S("caller"), (str){n->caller, n->caller_bytes});
    if (n->has_user)
        put_hex(o, S("user"), n->user, sizeof(n->user));
}

void access_line_write(struct buf *to, const struct note *n)
{
    char iso[TIME_ISO_SIZE];
    struct json_out o;

    time_iso(n->wall_ns, iso);
    jo_begin(&o, to);
    jo_object(&o);
    jo_kstr(&o, S("time"), str_of(iso));
    if (n->id_bytes)
        jo_kstr(&o, S("request_id"), (str){n->id, n->id_bytes});
    if (n->has_trace) {
        put_hex(&o, S("trace_id"), n->trace.trace_id, TRACE_ID_BYTES);
        put_hex(&o, S("span_id"), n->exported ? n->span_id : n->trace.span_id, TRACE_SPAN_BYTES);
    }
    if (n->series)
        put_endpoint(&o, n);
    if (n->route_bytes)
        jo_kstr(&o, S("path"), (str){n->route, n->route_bytes});
    jo_kstr(&o, S("protocol"), str_of(protocols[n->protocol]));
    jo_kint(&o, S("status"), n->status);
    if (n->series || n->protocol == NOTE_GRPC)
        jo_kstr(&o, S("code"), str_of(code_name((enum code)n->code)));
    put_work(&o, n);
    jo_kint(&o, S("bytes_in"), (int64_t)n->bytes_in);
    jo_kint(&o, S("bytes_out"), (int64_t)n->bytes_out);
    put_who(&o, n);
    put_anomalies(&o, n);
    jo_kstr(&o, S("logged"), str_of(whys[n->why]));
    jo_object_end(&o);
    buf_add_char(to, '\n');
}

/* --- The file --------------------------------------------------------------------------------- */

static void told(struct access_log *l, const struct err *e)
{
    if (e && !l->failing)
        log_err("access_log.failed", e);
    if (!e && l->failing)
        log_event(LOG_INFO, "access_log.written_again", "lost=%llu",
                  (unsigned long long)__atomic_load_n(&l->failures, __ATOMIC_RELAXED));
    l->failing = e != NULL;
}

static NODISCARD int file_begin(struct access_log *l, struct err *e)
{
    TRY(file_open(l->cfg.path, FILE_APPEND, &l->fd, e));
    if (!file_size(l->fd, &l->bytes, e))
        return 0;
    file_close(l->fd);
    l->fd = -1;
    return (int)e->code;
}

int access_log_open(struct access_log *l, const struct access_log_config *cfg, struct err *e)
{
    *l = (struct access_log){.cfg = *cfg, .fd = -1};
    buf_init(&l->out, OUT_BYTES);
    l->is_file = strcmp(cfg->path, "stdout") != 0;
    if (l->is_file)
        return file_begin(l, e);
    l->fd = STDOUT_FILENO;
    return 0;
}

static void file_end(struct access_log *l)
{
    if (l->is_file)
        file_close(l->fd);
    l->fd = -1;
}

void access_log_close(struct access_log *l)
{
    if (!l->cfg.path)
        return;
    access_log_flush(l);
    file_end(l);
    buf_done(&l->out);
}

static NODISCARD int shift(const struct access_log *l, uint32_t from, struct err *e)
{
    char old[PATH_BYTES], new[PATH_BYTES];

    snprintf(new, sizeof(new), "%s.%u", l->cfg.path, from + 1);
    if (from)
        snprintf(old, sizeof(old), "%s.%u", l->cfg.path, from);
    else
        snprintf(old, sizeof(old), "%s", l->cfg.path);
    return file_exists(old) ? file_rename(old, new, e) : 0;
}

/* Without old files to keep, the file begins anew. */
static NODISCARD int rotate(struct access_log *l, struct err *e)
{
    file_end(l);
    for (uint32_t i = l->cfg.keep; i-- > 0;)
        TRY(shift(l, i, e));
    if (!l->cfg.keep)
        TRY(file_remove(l->cfg.path, e));
    counter_add(&l->rotations, 1);
    return file_begin(l, e);
}

static NODISCARD int write_lines(struct access_log *l, struct err *e)
{
    struct err ignored;
    int rc;

    if (l->is_file && l->fd < 0)
        TRY(file_begin(l, e));
    if (l->is_file)
        TRY(file_size(l->fd, &l->bytes, e)); /* a predecessor may still write to it */
    if (l->is_file && l->cfg.rotate_bytes && l->bytes && l->bytes + l->out.n > l->cfg.rotate_bytes)
        TRY(rotate(l, e));
    rc = file_write_all(l->fd, l->out.p, l->out.n, e);
    if (!rc)
        l->bytes += l->out.n;
    else if (l->is_file)
        (void)!file_truncate(l->fd, l->bytes, &ignored);
    return rc;
}

void access_log_flush(struct access_log *l)
{
    struct err e;
    bool failed;

    if (!l->out.n)
        return;
    failed = write_lines(l, &e) != 0;
    counter_add(failed ? &l->failures : &l->lines, l->out_lines);
    told(l, failed ? &e : NULL);
    buf_clear(&l->out);
    l->out_lines = 0;
}

void access_log_add(struct access_log *l, const struct note *n)
{
    if (l->out.n >= FLUSH_BYTES)
        access_log_flush(l);
    access_line_write(&l->out, n);
    l->out_lines++;
}

void access_log_reopen(struct access_log *l)
{
    struct err e;

    if (!l->is_file)
        return;
    access_log_flush(l);
    file_end(l);
    if (file_begin(l, &e))
        told(l, &e);
}
