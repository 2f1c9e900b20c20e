/* SPDX-License-Identifier: Apache-2.0 */
/* Nanoseconds per request of the HTTP/2, gRPC and protobuf codecs: one row of 30 floats, as
 * tritonclient sends it, and its answer. The client's side of HTTP/2 is bytes made beforehand. */
#include "rows.h"

#include "wire/grpc.h"
#include "wire/http2.h"
#include "wire/infer_pb.h"
#include "wire/pb.h"

#define WIDTH 30
#define STREAMS 1000 /* requests in one session */
#define FRAME_HEAD_BYTES 9

static const struct tensor_spec in_spec = {S_INIT("input"), TENSOR_FP32, 2, {-1, WIDTH}};
static const struct tensor_spec out_specs[] = {
    {S_INIT("label"), TENSOR_INT64, 1, {-1}},
    {S_INIT("probabilities"), TENSOR_FP32, 2, {-1, 2}},
};
static const struct infer_schema schema = {&in_spec, 1, out_specs, 2, true};

static float x[WIDTH], probabilities[2] = {0.12f, 0.88f};
static int64_t label[1] = {1};
static struct tensor in = {.spec = &in_spec, .data = x, .cap_bytes = sizeof(x)};
static struct tensor out[2] = {
    {.spec = &out_specs[0], .data = label, .cap_bytes = sizeof(label)},
    {.spec = &out_specs[1], .data = probabilities, .cap_bytes = sizeof(probabilities)},
};
static struct infer_pb_plan plan;
static struct infer_request request;
static struct arena arena;
static struct buf answer, wire, answers;

static void must(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "%s\n", e->msg);
        exit(1);
    }
}

static void message_make(struct buf *b, bool raw)
{
    size_t input, contents;

    pb_put_text(b, 1, S("fraud"));
    input = pb_open(b, 5);
    pb_put_text(b, 1, S("input"));
    pb_put_text(b, 2, S("FP32"));
    pb_put_bytes(b, 3, S("\x01\x1e"));
    if (!raw) {
        contents = pb_open(b, 5);
        pb_put_bytes(b, 6, (str){(char *)x, sizeof(x)});
        pb_close(b, contents);
    }
    pb_close(b, input);
    if (raw)
        pb_put_bytes(b, 7, (str){(char *)x, sizeof(x)});
}

static void read_message(void *arg, size_t turns)
{
    const struct buf *b = arg;
    struct infer_pb_model model;
    struct err e;

    while (turns--) {
        arena_reset(&arena);
        must(infer_pb_model_read(buf_str(b), &model, &e), &e);
        must(infer_pb_request_read(buf_str(b), &schema, &in, &arena, &request, &e), &e);
    }
}

static void write_message(void *arg, size_t turns)
{
    struct err e;

    (void)arg;
    while (turns--) {
        size_t began;

        buf_clear(&answer);
        began = grpc_message_begin(&answer);
        must(infer_pb_response_write(&answer, &plan, &request, out, STR_NULL, &e), &e);
        must(grpc_message_end(&answer, began, &e), &e);
    }
}

/* --- HTTP/2
 * --------------------------------------------------------------------------------------- */

static void put_frame(struct buf *b, int type, int flags, uint32_t id, str payload)
{
    const unsigned char head[FRAME_HEAD_BYTES] = {(unsigned char)(payload.n >> 16),
                                                  (unsigned char)(payload.n >> 8),
                                                  (unsigned char)payload.n,
                                                  (unsigned char)type,
                                                  (unsigned char)flags,
                                                  (unsigned char)(id >> 24),
                                                  (unsigned char)(id >> 16),
                                                  (unsigned char)(id >> 8),
                                                  (unsigned char)id};

    buf_add(b, head, sizeof(head));
    buf_add_str(b, payload);
}

static void put_field(struct buf *b, bool first, unsigned at, str name, str value)
{
    if (!first) { /* in the dynamic table by now */
        buf_add_char(b, (char)(0x80 | (62 + at)));
        return;
    }
    buf_add_char(b, 0x40);
    buf_add_char(b, (char)name.n);
    buf_add_str(b, name);
    buf_add_char(b, (char)value.n);
    buf_add_str(b, value);
}

/* The request as grpc clients repeat it: all fields but the first time from the table. */
static void wire_make(const struct buf *message)
{
    static const struct http1_header fields[] = {
        {S_INIT("grpc-accept-encoding"), S_INIT("identity, deflate, gzip")},
        {S_INIT("user-agent"), S_INIT("grpc-python/1.85.1 grpc-c/50.0.0 (linux; chttp2)")},
        {S_INIT("te"), S_INIT("trailers")},
        {S_INIT("content-type"), S_INIT("application/grpc")},
        {S_INIT(":authority"), S_INIT("localhost:8080")},
        {S_INIT(":path"), S_INIT("/inference.GRPCInferenceService/ModelInfer")},
    };
    AUTO(buf_done) struct buf block = {0}, body = {0};

    buf_init(&block, 4096);
    buf_init(&body, 4096);
    buf_add(&body, "\0\0\0\0", 4);
    buf_add_char(&body, (char)message->n);
    buf_add_str(&body, buf_str(message));
    buf_add_str(&wire, S("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    put_frame(&wire, 4, 0, 0, STR_NULL);
    put_frame(&wire, 4, 1, 0, STR_NULL);
    put_frame(&wire, 8, 0, 0, S("\x7f\0\0\0"));
    for (uint32_t i = 0; i < STREAMS; i++) {
        buf_clear(&block);
        buf_add(&block, "\x83\x86", 2); /* :method POST, :scheme http */
        for (unsigned at = ARRAY_LEN(fields); at-- > 0;)
            put_field(&block, i == 0, at, fields[at].name, fields[at].value);
        put_frame(&wire, 1, 4, 2 * i + 1, buf_str(&block));
        put_frame(&wire, 0, 1, 2 * i + 1, buf_str(&body));
    }
}

static void serve(struct http2_stream *st)
{
    static const struct http1_header type = {S_INIT("content-type"), S_INIT("application/grpc")};
    struct http1_header trailers[GRPC_TRAILERS_MAX];
    char text[GRPC_TEXT_BYTES];
    struct infer_pb_model model;
    struct grpc_message m;
    struct grpc_call call;
    size_t used;
    struct err e;

    must(grpc_call_read(&st->req, &call, &e), &e);
    if (grpc_message_next(st->req.body, 1 << 20, &m, &used, &e) != GRPC_MESSAGE)
        abort();
    arena_reset(&arena);
    must(infer_pb_model_read(m.bytes, &model, &e), &e);
    must(infer_pb_request_read(m.bytes, &schema, &in, &arena, &request, &e), &e);
    write_message(NULL, 1);
    http2_respond_head(st, 200, &type, 1);
    http2_stream_write(st, buf_str(&answer));
    http2_stream_finish(st, trailers, grpc_trailers(NULL, text, trailers));
    http2_stream_release(st);
}

/* `arg`: how many requests come in one read. */
static void whole(void *arg, size_t turns)
{
    AUTO(http2_session_freep) struct http2_session *s = NULL;
    size_t at = 0, served = 0, read_bytes = *(const size_t *)arg * (wire.n / STREAMS);
    struct http2_limits limits = HTTP2_LIMITS_DEFAULT;
    struct http2_stream *st;
    struct err e;

    limits.idle_frames = UINT32_MAX;
    must(http2_session_new(&limits, &s, &e), &e);
    while (served < turns) {
        enum http2_event ev;
        size_t n = MIN(read_bytes, wire.n - at);

        if (!n)
            abort();
        must(http2_receive(s, (str){wire.p + at, n}, &e), &e);
        at += n;
        while ((ev = http2_next(s, &st)))
            if (ev == HTTP2_REQUEST) {
                serve(st);
                served++;
            }
        buf_clear(&answers);
        while (http2_send(s, &answers))
            ;
    }
}

int main(void)
{
    AUTO(arena_done) struct arena kept = {0};
    struct buf raw, typed;
    size_t one = 1, many = 50;

    buf_init(&raw, 4096);
    buf_init(&typed, 4096);
    buf_init(&answer, 1 << 16);
    buf_init(&answers, 1 << 24);
    buf_init(&wire, 1 << 24);
    for (int i = 0; i < WIDTH; i++)
        x[i] = (float)i * 0.37f - 3;
    message_make(&raw, true);
    message_make(&typed, false);
    infer_pb_plan_init(&plan, S("fraud"), S("3"), &schema, &kept);
    tensor_set_rows(&out[0], 1);
    tensor_set_rows(&out[1], 1);
    rows_time("protobuf infer read, 1 x 30, raw", read_message, &raw, 20000);
    rows_time("protobuf infer read, 1 x 30, typed", read_message, &typed, 20000);
    read_message(&raw, 1);
    rows_time("protobuf infer write, label and 2 floats", write_message, NULL, 20000);
    wire_make(&raw);
    rows_time("gRPC call, 1 x 30, one in a read", whole, &one, STREAMS - 10);
    rows_time("gRPC call, 1 x 30, 50 in a read", whole, &many, STREAMS - 60);
    buf_done(&raw);
    buf_done(&typed);
    buf_done(&answer);
    buf_done(&answers);
    buf_done(&wire);
    return 0;
}
