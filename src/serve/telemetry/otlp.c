/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few messages of opentelemetry/proto/collector/trace/v1 that are needed, by field number.
 *
 *   the request               server, from its arrival until its answer was written
 *     queue                   reading and waiting
 *     compute                 the run that it was part of, with a link where that run was a call of
 *       call                  another request's trace; the call of a remote server
 *
 * Names are of the semantic conventions where there is one; else they begin with weir.
 */
#include "serve/telemetry/otlp.h"

#include "base/time.h"
#include "wire/pb.h"

#define KIND_INTERNAL 1
#define KIND_SERVER 2
#define KIND_CLIENT 3
#define STATUS_ERROR 2
#define FLAG_KNOWS_REMOTE 0x100u
#define FLAG_REMOTE 0x200u
#define SCHEMA "https://opentelemetry.io/schemas/1.27.0"

/* --- Ids -------------------------------------------------------------------------------------- */

void span_part_id(const unsigned char whole[TRACE_SPAN_BYTES], enum span_part part,
                  unsigned char ret[TRACE_SPAN_BYTES])
{
    uint64_t x;

    /* The finaliser of splitmix64: one to one, so parts of different requests stay different. */
    memcpy(&x, whole, sizeof(x));
    x += (uint64_t)part * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    x = x ? x : 1; /* zero is no id */
    memcpy(ret, &x, sizeof(x));
}

/* --- Fields ----------------------------------------------------------------------------------- */

static void put_fixed64(struct buf *b, uint32_t number, uint64_t v)
{
    pb_put_tag(b, number, PB_FIXED64);
    buf_add(b, &v, sizeof(v)); /* little-endian, as the machine */
}

static void put_fixed32(struct buf *b, uint32_t number, uint32_t v)
{
    pb_put_tag(b, number, PB_FIXED32);
    buf_add(b, &v, sizeof(v));
}

static void put_text(struct buf *b, uint32_t field, str key, str v)
{
    size_t pair = pb_open(b, field), value;

    pb_put_text(b, 1, key);
    value = pb_open(b, 2);
    pb_put_bytes(b, 1, v);
    pb_close(b, value);
    pb_close(b, pair);
}

static void put_int(struct buf *b, uint32_t field, str key, uint64_t v)
{
    size_t pair = pb_open(b, field), value;

    pb_put_text(b, 1, key);
    value = pb_open(b, 2);
    pb_put_tag(b, 3, PB_VARINT);
    pb_put_varint(b, v);
    pb_close(b, value);
    pb_close(b, pair);
}

/* --- Spans ------------------------------------------------------------------------------------ */

struct span {
    const unsigned char *id, *parent; /* parent NULL: none */
    str name;
    uint32_t kind;
    int64_t from_ns, to_ns;
    uint32_t flags;
};

static void put_head(struct buf *b, const struct note *n, const struct span *s)
{
    pb_put_bytes(b, 1, (str){(const char *)n->trace.trace_id, TRACE_ID_BYTES});
    pb_put_bytes(b, 2, (str){(const char *)s->id, TRACE_SPAN_BYTES});
    pb_put_text(b, 3, (str){n->state, n->state_bytes});
    if (s->parent)
        pb_put_bytes(b, 4, (str){(const char *)s->parent, TRACE_SPAN_BYTES});
    pb_put_text(b, 5, s->name);
    pb_put_u64(b, 6, s->kind);
    put_fixed64(b, 7, (uint64_t)s->from_ns);
    put_fixed64(b, 8, (uint64_t)s->to_ns);
    put_fixed32(b, 16, TRACE_SAMPLED | FLAG_KNOWS_REMOTE | s->flags);
}

static void put_status(struct buf *b, const struct note *n)
{
    size_t status;

    if (!n->code)
        return;
    put_text(b, 9, S("error.type"), str_of(code_name((enum code)n->code)));
    if (n->status < 500) /* the caller's mistake is no failure of the server */
        return;
    status = pb_open(b, 15);
    pb_put_u64(b, 3, STATUS_ERROR);
    pb_close(b, status);
}

static void put_protocol(struct buf *b, const struct note *n)
{
    put_text(b, 9, S("network.protocol.version"), n->protocol == NOTE_HTTP1 ? S("1.1") : S("2"));
    if (n->protocol == NOTE_GRPC) {
        put_text(b, 9, S("rpc.system"), S("grpc"));
        put_int(b, 9, S("rpc.grpc.status_code"), n->code);
    } else {
        put_text(b, 9, S("http.request.method"), S("POST"));
        put_int(b, 9, S("http.response.status_code"), n->status);
    }
}

static void put_attributes(struct buf *b, const struct note *n)
{
    put_protocol(b, n);
    put_text(b, 9, S("weir.endpoint"), n->series->endpoint);
    put_text(b, 9, S("weir.version"), n->series->version);
    put_text(b, 9, S("weir.arm"), n->series->arm);
    put_text(b, 9, S("weir.result"), str_of(counters_end_label((enum request_end)n->end)));
    if (n->fallback)
        put_text(b, 9, S("weir.fallback"), str_of(n->fallback));
    if (n->id_bytes)
        put_text(b, 9, S("weir.request_id"), (str){n->id, n->id_bytes});
    if (n->rows)
        put_int(b, 9, S("weir.rows"), n->rows);
    if (n->tenant_bytes)
        put_text(b, 9, S("weir.tenant"), (str){n->tenant, n->tenant_bytes});
}

static void put_link(struct buf *b, const struct trace_context *to)
{
    size_t link = pb_open(b, 13);

    pb_put_bytes(b, 1, (str){(const char *)to->trace_id, TRACE_ID_BYTES});
    pb_put_bytes(b, 2, (str){(const char *)to->span_id, TRACE_SPAN_BYTES});
    put_fixed32(b, 6, to->flags);
    pb_close(b, link);
}

static void put_call(struct buf *to, const struct note *n, const unsigned char *compute,
                     const struct span *run)
{
    size_t span = pb_open(to, 2);
    struct span call = *run;

    call.id = n->ran_in.span_id;
    call.parent = compute;
    call.name = S("call");
    call.kind = KIND_CLIENT;
    put_head(to, n, &call);
    put_text(to, 9, S("weir.endpoint"), n->series->endpoint);
    pb_close(to, span);
}

static bool is_own_call(const struct note *n)
{
    unsigned char own[TRACE_SPAN_BYTES];

    span_part_id(n->span_id, SPAN_CALL, own);
    return memcmp(own, n->ran_in.span_id, sizeof(own)) == 0 &&
           memcmp(n->ran_in.trace_id, n->trace.trace_id, TRACE_ID_BYTES) == 0;
}

static void put_parts(struct buf *to, const struct note *n)
{
    unsigned char queue[TRACE_SPAN_BYTES], compute[TRACE_SPAN_BYTES];
    int64_t begun_ns = n->wall_ns + (int64_t)n->queue_us * NS_PER_US;
    struct span s = {.id = queue,
                     .parent = n->span_id,
                     .name = S("queue"),
                     .kind = KIND_INTERNAL,
                     .from_ns = n->wall_ns,
                     .to_ns = begun_ns};
    bool own = n->ran_remote && is_own_call(n);
    size_t span = pb_open(to, 2);

    span_part_id(n->span_id, SPAN_QUEUE, queue);
    span_part_id(n->span_id, SPAN_COMPUTE, compute);
    put_head(to, n, &s);
    pb_close(to, span);
    s.id = compute;
    s.name = S("compute");
    s.from_ns = begun_ns;
    s.to_ns = begun_ns + (int64_t)n->compute_us * NS_PER_US;
    span = pb_open(to, 2);
    put_head(to, n, &s);
    put_int(to, 9, S("weir.batch_rows"), n->batch_rows);
    if (n->ran_remote && !own)
        put_link(to, &n->ran_in);
    pb_close(to, span);
    if (own)
        put_call(to, n, compute, &s);
}

void otlp_add(struct otlp_message *m, const struct note *n)
{
    char name[8 + 128];
    struct buf text;
    struct span s = {.id = n->span_id,
                     .parent = n->has_parent ? n->trace.span_id : NULL,
                     .kind = KIND_SERVER,
                     .from_ns = n->wall_ns,
                     .to_ns = n->wall_ns + (int64_t)n->total_us * NS_PER_US,
                     .flags = n->has_parent ? FLAG_REMOTE : 0};
    size_t span = pb_open(m->to, 2);

    buf_init_fixed(&text, name, sizeof(name));
    buf_add_str(&text, S("infer "));
    buf_add_str(&text, str_take(n->series->endpoint, 128));
    s.name = buf_str(&text);
    put_head(m->to, n, &s);
    put_attributes(m->to, n);
    put_status(m->to, n);
    pb_close(m->to, span);
    if (n->compute_us)
        put_parts(m->to, n);
}

/* --- The message ------------------------------------------------------------------------------ */

void otlp_begin(struct otlp_message *m, struct buf *to, str service, str instance)
{
    size_t resource, scope;

    m->to = to;
    m->resource = pb_open(to, 1);
    resource = pb_open(to, 1);
    put_text(to, 1, S("service.name"), service);
    put_text(to, 1, S("service.version"), S(WEIR_VERSION));
    put_text(to, 1, S("service.instance.id"), instance);
    put_text(to, 1, S("telemetry.sdk.name"), S("weir"));
    put_text(to, 1, S("telemetry.sdk.language"), S("c"));
    put_text(to, 1, S("telemetry.sdk.version"), S(WEIR_VERSION));
    pb_close(to, resource);
    m->scope = pb_open(to, 2);
    scope = pb_open(to, 1);
    pb_put_text(to, 1, S("weir.gateway"));
    pb_put_text(to, 2, S(WEIR_VERSION));
    pb_close(to, scope);
}

void otlp_end(struct otlp_message *m)
{
    pb_put_text(m->to, 3, S(SCHEMA));
    pb_close(m->to, m->scope);
    pb_close(m->to, m->resource);
}

uint64_t otlp_rejected(str answer, str *ret_message)
{
    struct pb r, part;
    struct pb_field f, g;
    uint64_t rejected = 0;

    *ret_message = STR_NULL;
    pb_begin(&r, answer);
    while (pb_next(&r, &f)) {
        if (f.number != 1 || f.wire != PB_BYTES)
            continue;
        pb_begin(&part, f.bytes);
        while (pb_next(&part, &g)) {
            if (g.number == 1 && g.wire == PB_VARINT)
                rejected = g.value;
            else if (g.number == 2 && g.wire == PB_BYTES)
                *ret_message = g.bytes;
        }
        if (part.wrong)
            return 0;
    }
    return r.wrong || rejected > INT64_MAX ? 0 : rejected;
}
