/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few rules of gRPC over HTTP/2. Bodies come from http2.h as one growing piece of memory, so a
 * message that is not all there is simply looked at again when more has come: five bytes are read,
 * nothing is copied, and no state is kept between two looks.
 *
 * A message's length is held against the limit before its bytes are waited for, and what it unfolds
 * to against the same limit. It does not decide which methods there are, nor when a call is late.
 */
#include "wire/grpc.h"

#include "base/num.h"
#include "base/time.h"

#define TIMEOUT_DIGITS_MAX 8
#define RATIO_MAX 200 /* of a compressed message */

/* --- The head --------------------------------------------------------------------------------- */

bool grpc_is_content_type(str value)
{
    static const str type = S_INIT("application/grpc");

    if (value.n < type.n || !str_eq_nocase(str_take(value, type.n), type))
        return false;
    return value.n == type.n || value.p[type.n] == '+' || value.p[type.n] == ';' ||
           value.p[type.n] == ' ';
}

/* "application/grpc+json" and the like are other formats. */
static bool is_protobuf(str type)
{
    str format = str_skip(type, sizeof("application/grpc") - 1);

    if (!format.n || format.p[0] != '+')
        return true;
    format = str_trim(str_cut(&format, ';'));
    return str_eq_nocase(format, S("+proto"));
}

bool grpc_timeout_parse(str text, int64_t *ret_timeout_ns)
{
    static const char units[] = "HMSmun";
    static const int64_t unit_ns[] = {3600 * NS_PER_S, 60 * NS_PER_S, NS_PER_S, NS_PER_MS, 1000, 1};
    const char *unit;
    uint64_t value;
    int64_t ns;

    if (text.n < 2 || text.n > TIMEOUT_DIGITS_MAX + 1 || !text.p[text.n - 1])
        return false;
    unit = strchr(units, text.p[text.n - 1]);
    if (!unit || !str_to_u64(str_take(text, text.n - 1), &value))
        return false;
    if (__builtin_mul_overflow((int64_t)value, unit_ns[unit - units], &ns))
        ns = INT64_MAX;
    *ret_timeout_ns = MAX(ns, (int64_t)1); /* "0n": over at once, but still a timeout */
    return true;
}

static int path_split(str path, struct grpc_call *call, struct err *e)
{
    str rest = str_skip(path, 1);

    call->service = str_cut(&rest, '/');
    call->method = rest;
    if (call->service.n && call->method.n && str_find_char(call->method, '/') < 0)
        return 0;
    return FAIL(e, UNIMPLEMENTED, "'" STR_F "' is not a gRPC method: expected /service/method",
                STR_A(str_take(path, 80)));
}

int grpc_call_read(const struct http1_request *req, struct grpc_call *ret_call, struct err *e)
{
    str timeout = http1_known(&req->fields, HTTP1_F_GRPC_TIMEOUT);
    str encoding = http1_known(&req->fields, HTTP1_F_GRPC_ENCODING);
    str type = http1_known(&req->fields, HTTP1_F_CONTENT_TYPE);
    struct grpc_call call = {.timeout_ns = -1};

    if (req->method != HTTP1_M_POST)
        return FAIL(e, INTERNAL, "a gRPC call must be a POST");
    if (!is_protobuf(type))
        return FAIL(e, UNIMPLEMENTED, "message format '" STR_F "' is not supported: use protobuf",
                    STR_A(str_take(type, 60)));
    TRY(path_split(req->path, &call, e));
    if (timeout.p && !grpc_timeout_parse(timeout, &call.timeout_ns))
        return FAIL(e, INVALID_ARGUMENT,
                    "grpc-timeout '" STR_F "' is not up to 8 digits and one of H M S m u n",
                    STR_A(str_take(timeout, 40)));
    if (encoding.p && !coding_parse(encoding, &call.request_coding))
        return FAIL(e, UNIMPLEMENTED,
                    "grpc-encoding '" STR_F "' is not supported: use identity, gzip or deflate",
                    STR_A(str_take(encoding, 40)));
    call.answer_coding = coding_choose(http1_known(&req->fields, HTTP1_F_GRPC_ACCEPT_ENCODING));
    *ret_call = call;
    return 0;
}

enum code grpc_code_of_http(int status)
{
    switch (status) {
    case 401:
        return CODE_UNAUTHENTICATED;
    case 403:
        return CODE_PERMISSION_DENIED;
    case 404:
    case 501:
        return CODE_UNIMPLEMENTED;
    case 413:
    case 429:
    case 431:
        return CODE_RESOURCE_EXHAUSTED;
    case 502:
    case 503:
        return CODE_UNAVAILABLE;
    case 504:
        return CODE_DEADLINE_EXCEEDED;
    default:
        return status < 500 ? CODE_INTERNAL : CODE_UNKNOWN;
    }
}

/* --- The client's side ------------------------------------------------------------------------ */

str grpc_timeout_write(int64_t timeout_ns, char text[GRPC_TIMEOUT_TEXT])
{
    static const struct {
        int64_t ns;
        char unit;
    } units[] = {{1, 'n'}, {1000, 'u'}, {NS_PER_MS, 'm'}, {NS_PER_S, 'S'}, {60 * NS_PER_S, 'M'}};
    static const int64_t max = 99999999; /* TIMEOUT_DIGITS_MAX of them */
    size_t i = 0, n;

    ASSERT(timeout_ns > 0);
    while (i + 1 < ARRAY_LEN(units) && (timeout_ns - 1) / units[i].ns + 1 > max)
        i++;
    n = num_i64_text(MIN((timeout_ns - 1) / units[i].ns + 1, max), text);
    text[n] = units[i].unit;
    return (str){text, n + 1};
}

enum code grpc_status_parse(str text)
{
    uint64_t code;

    return str_to_u64(text, &code) && code < CODE_COUNT ? (enum code)code : CODE_UNKNOWN;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

void grpc_text_decode(str text, char *ret_text, size_t size)
{
    size_t n = 0;

    ASSERT(size > 0);
    for (size_t i = 0; i < text.n && n < size - 1; i++) {
        char c = text.p[i];

        if (c == '%' && i + 2 < text.n && hex_digit(text.p[i + 1]) >= 0 &&
            hex_digit(text.p[i + 2]) >= 0) {
            c = (char)(hex_digit(text.p[i + 1]) << 4 | hex_digit(text.p[i + 2]));
            i += 2;
        }
        ret_text[n++] = (unsigned char)c < ' ' || c == 0x7f ? ' ' : c;
    }
    ret_text[n] = '\0';
}

/* --- Messages --------------------------------------------------------------------------------- */

enum grpc_step grpc_message_next(str body, size_t max_bytes, struct grpc_message *ret_message,
                                 size_t *ret_used, struct err *e)
{
    const unsigned char *p = (const unsigned char *)body.p;
    size_t n;

    if (body.n && p[0] > 1) {
        err_fill(e, CODE_INTERNAL, ERR_AT, "a gRPC message begins with %u, not 0 or 1", p[0]);
        return GRPC_BROKEN;
    }
    if (body.n < GRPC_PREFIX_BYTES)
        return GRPC_MORE;
    n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (n > max_bytes) {
        err_fill(e, CODE_RESOURCE_EXHAUSTED, ERR_AT,
                 "a message of %zu bytes is larger than the %zu allowed: send fewer rows at once",
                 n, max_bytes);
        return GRPC_BROKEN;
    }
    if (body.n - GRPC_PREFIX_BYTES < n)
        return GRPC_MORE;
    *ret_message = (struct grpc_message){{body.p + GRPC_PREFIX_BYTES, n}, p[0] == 1};
    *ret_used = GRPC_PREFIX_BYTES + n;
    return GRPC_MESSAGE;
}

int grpc_message_read(struct coder *coder, const struct grpc_call *call,
                      const struct grpc_message *m, size_t max_bytes, struct buf *scratch,
                      str *ret_bytes, struct err *e)
{
    struct inflate_limits limits = {.bytes = max_bytes, .ratio = RATIO_MAX};
    int rc;

    *ret_bytes = m->bytes;
    if (!m->compressed)
        return 0;
    if (call->request_coding == CODING_IDENTITY)
        return FAIL(e, INTERNAL, "a compressed message in a call without grpc-encoding");
    buf_clear(scratch);
    rc = coder_decode(coder, call->request_coding, m->bytes, &limits, scratch, e);
    if (rc == CODE_INVALID_ARGUMENT && e)
        e->code = CODE_INTERNAL; /* so the specification of compression wants it */
    if (rc)
        return rc == CODE_INVALID_ARGUMENT ? CODE_INTERNAL : rc;
    *ret_bytes = buf_str(scratch);
    return 0;
}

size_t grpc_message_begin(struct buf *to)
{
    buf_add(to, "\0\0\0\0\0", GRPC_PREFIX_BYTES);
    return to->n;
}

static int end(struct buf *to, size_t began, bool compressed, struct err *e)
{
    size_t n = to->n - began;
    unsigned char *p;

    if (to->overflowed || n > GRPC_MESSAGE_BYTES_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "the answer exceeds %zu bytes: send fewer rows at once",
                    MIN(to->max_bytes, (size_t)GRPC_MESSAGE_BYTES_MAX));
    p = (unsigned char *)to->p + began - GRPC_PREFIX_BYTES;
    p[0] = compressed;
    p[1] = (unsigned char)(n >> 24);
    p[2] = (unsigned char)(n >> 16);
    p[3] = (unsigned char)(n >> 8);
    p[4] = (unsigned char)n;
    return 0;
}

int grpc_message_end(struct buf *to, size_t began, struct err *e)
{
    return end(to, began, false, e);
}

int grpc_message_write(struct coder *coder, enum coding coding, str bytes, struct buf *to,
                       struct err *e)
{
    size_t began = grpc_message_begin(to);

    TRY(coder_encode(coder, coding, bytes, to, e));
    return end(to, began, coding != CODING_IDENTITY, e);
}

/* --- Status ----------------------------------------------------------------------------------- */

void grpc_text_encode(struct buf *to, str text)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];

        if (c >= 0x20 && c <= 0x7e && c != '%')
            buf_add_char(to, (char)c);
        else
            buf_add(to, (char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
    }
}

size_t grpc_trailers(const struct err *e, char text[GRPC_TEXT_BYTES],
                     struct http1_header ret_fields[GRPC_TRAILERS_MAX])
{
    struct buf b;
    size_t n;

    _Static_assert(sizeof(((struct err *)0)->msg) * 3 + NUM_TEXT_MAX <= GRPC_TEXT_BYTES,
                   "any message fits");
    n = num_i64_text(e ? (int64_t)e->code : CODE_OK, text);
    ret_fields[0] = (struct http1_header){S("grpc-status"), {text, n}};
    if (!e || e->code == CODE_OK)
        return 1;
    buf_init_fixed(&b, text + n, GRPC_TEXT_BYTES - n);
    grpc_text_encode(&b, str_of(e->msg));
    ret_fields[1] = (struct http1_header){S("grpc-message"), buf_str(&b)};
    return 2;
}
