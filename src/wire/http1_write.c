/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads out. A head is put together from constant pieces with memcpy into room reserved once: no
 * printf, no search. "Connection: keep-alive" is sent although HTTP/1.1 implies it, because an
 * HTTP/1.0 client closes without it and the writer does not know the version.
 */
#include "base/num.h"
#include "wire/http1_client.h"
#include "wire/http1_priv.h"

#define STATUS_MIN 100
#define STATUS_MAX 599
/* All constant pieces of a head together, and a number. */
#define HEAD_ROOM 256

static const struct {
    str line; /* "HTTP/1.1 200 OK\r\n" */
    str text; /* "OK" */
} statuses[STATUS_MAX - STATUS_MIN + 1] = {
#define STATUS(code, phrase) \
    [(code)-STATUS_MIN] = {S_INIT("HTTP/1.1 " #code " " phrase "\r\n"), S_INIT(phrase)},
#include "wire/http1_status.def"
#undef STATUS
};

static char *put(char *w, str s)
{
    if (s.n)
        memcpy(w, s.p, s.n);
    return w + s.n;
}

static char *put_u64(char *w, uint64_t v)
{
    ASSERT(v <= INT64_MAX);
    return w + num_i64_text((int64_t)v, w);
}

static char *put_status(char *w, int status)
{
    ASSERT(status > 0 && status <= 999);
    if (status >= STATUS_MIN && status <= STATUS_MAX && statuses[status - STATUS_MIN].line.p)
        return put(w, statuses[status - STATUS_MIN].line);
    w = put(w, S("HTTP/1.1 "));
    w = put_u64(w, (uint64_t)status);
    return put(w, S(" Status\r\n"));
}

static char *put_framing(char *w, uint64_t content_length)
{
    if (content_length == HTTP1_LENGTH_CLOSE)
        return w;
    if (content_length == HTTP1_LENGTH_CHUNKED)
        return put(w, S("Transfer-Encoding: chunked\r\n"));
    w = put(w, S("Content-Length: "));
    w = put_u64(w, content_length);
    return put(w, S("\r\n"));
}

static char *put_type(char *w, str content_type)
{
    if (!content_type.n)
        return w;
    w = put(w, S("Content-Type: "));
    w = put(w, content_type);
    return put(w, S("\r\n"));
}

static char *put_end(char *w, bool keep_alive, str extra)
{
    w = put(w, keep_alive ? S("Connection: keep-alive\r\n") : S("Connection: close\r\n"));
    w = put(w, extra);
    return put(w, S("\r\n"));
}

void http1_write_head(struct buf *out, int status, str content_type, uint64_t content_length,
                      bool keep_alive, str extra)
{
    char *w = buf_reserve(out, HEAD_ROOM + content_type.n + extra.n);
    char *from = w;

    if (!w)
        return;
    w = put_status(w, status);
    if (status != 204 && status != 304 && status >= 200) {
        w = put_type(w, content_type);
        w = put_framing(w, content_length);
    }
    w = put_end(w, keep_alive && content_length != HTTP1_LENGTH_CLOSE, extra);
    out->n += (size_t)(w - from);
}

void http1_write_request(struct buf *out, str method, str target, str host, str content_type,
                         uint64_t content_length, bool keep_alive, str extra)
{
    char *w = buf_reserve(out, HEAD_ROOM + method.n + target.n + host.n + content_type.n + extra.n);
    char *from = w;

    if (!w)
        return;
    w = put(w, method);
    w = put(w, S(" "));
    w = put(w, target);
    w = put(w, S(" HTTP/1.1\r\nHost: "));
    w = put(w, host);
    w = put(w, S("\r\n"));
    w = put_type(w, content_type);
    w = put_framing(w, content_length);
    w = put_end(w, keep_alive, extra);
    out->n += (size_t)(w - from);
}

bool http1_write_field(struct buf *out, str name, str value)
{
    const char *end = value.p + value.n;

    ASSERT(name.n && http1_skip_token(name.p, name.p + name.n) == name.p + name.n);
    if (value.n && http1_skip_value(value.p, end) != end)
        return false;
    buf_add_str(out, name);
    buf_add(out, ": ", 2);
    buf_add_str(out, value);
    buf_add(out, "\r\n", 2);
    return true;
}

static enum code refusal_code(int status)
{
    if (status == 413 || status == 414 || status == 431)
        return CODE_RESOURCE_EXHAUSTED;
    return status >= 500 ? CODE_UNIMPLEMENTED : CODE_INVALID_ARGUMENT;
}

/* Reasons and names of codes hold nothing that JSON escapes. */
void http1_write_refusal(struct buf *out, enum http1_refusal r)
{
    int status = http1_refusal_status(r);
    str reason = http1_refusal_reason(r), code = str_of(code_name(refusal_code(status)));
    static const str open = S_INIT("{\"error\":\""), mid = S_INIT("\",\"code\":\""),
                     close = S_INIT("\"}");

    http1_write_head(out, status, S("application/json"),
                     open.n + reason.n + mid.n + code.n + close.n, false, STR_NULL);
    buf_add_str(out, open);
    buf_add_str(out, reason);
    buf_add_str(out, mid);
    buf_add_str(out, code);
    buf_add_str(out, close);
}

void http1_write_chunk(struct buf *out, str data)
{
    static const char digits[] = "0123456789abcdef";
    char size[18];
    size_t at = sizeof(size) - 2;

    if (data.n == 0)
        return; /* an empty chunk would end the body */
    memcpy(size + at, "\r\n", 2);
    for (size_t v = data.n; v; v >>= 4)
        size[--at] = digits[v & 15];
    buf_add(out, size + at, sizeof(size) - at);
    buf_add_str(out, data);
    buf_add(out, "\r\n", 2);
}

void http1_write_last_chunk(struct buf *out)
{
    buf_add_str(out, S("0\r\n\r\n"));
}

str http1_status_text(int status)
{
    if (status < STATUS_MIN || status > STATUS_MAX || !statuses[status - STATUS_MIN].text.p)
        return S("Status");
    return statuses[status - STATUS_MIN].text;
}

void http1_write_encoded(struct buf *out, str s)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     c == '-' || c == '.' || c == '_' || c == '~';

        if (plain)
            buf_add_char(out, (char)c);
        else
            buf_add(out, (char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
    }
}

/* --- Date ----------------------------------------------------------------------------------- */

static char *put_digits(char *w, int64_t v, int n)
{
    for (int i = n; i-- > 0; v /= 10)
        w[i] = (char)('0' + v % 10);
    return w + n;
}

/* Days to year, month and day: H. Hinnant's algorithm for the proleptic Gregorian calendar, whose
 * years begin in March so that the leap day comes last. */
static void civil(int64_t days, int64_t *ret_year, int64_t *ret_month, int64_t *ret_day)
{
    int64_t shifted = days + 719468, era = shifted / 146097, in_era = shifted % 146097;
    int64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * in_year + 2) / 153;

    *ret_day = in_year - (153 * month + 2) / 5 + 1;
    *ret_month = month < 10 ? month + 3 : month - 9;
    *ret_year = year + era * 400 + (*ret_month <= 2);
}

void http1_date_line(int64_t wall_ns, char ret_line[HTTP1_DATE_LINE_BYTES])
{
    static const char days[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOct"
                                                                   "NovDec";
    int64_t seconds = wall_ns / 1000000000, day = seconds / 86400, in_day = seconds % 86400;
    int64_t y, m, d;
    char *w = ret_line;

    ASSERT(wall_ns >= 0);
    civil(day, &y, &m, &d);
    w = put(w, S("Date: "));
    w = put(w, (str){days + day % 7 * 3, 3});
    w = put(w, S(", "));
    w = put_digits(w, d, 2);
    w = put(w, S(" "));
    w = put(w, (str){months + (m - 1) * 3, 3});
    w = put(w, S(" "));
    w = put_digits(w, y, 4);
    w = put(w, S(" "));
    w = put_digits(w, in_day / 3600, 2);
    w = put(w, S(":"));
    w = put_digits(w, in_day / 60 % 60, 2);
    w = put(w, S(":"));
    w = put_digits(w, in_day % 60, 2);
    w = put(w, S(" GMT\r\n"));
    ASSERT(w - ret_line == HTTP1_DATE_LINE_BYTES);
}
