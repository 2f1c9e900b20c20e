/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The framing of bodies, requests and responses alike.
 *
 * Chunks are decoded in place: data moves left over the size lines before it, so what comes out is
 * one piece however it was cut. Lines (chunk sizes, trailers) are taken only whole, within a bound;
 * that makes every decision a function of the bytes, not of how they arrived. Sizes are at most 15
 * hexadecimal digits: no overflow is possible. Chunks are cheap for us unless they are tiny, so
 * only those under 512 bytes are counted against a limit.
 */
#include "wire/http1_priv.h"

#define SMALL_CHUNK_BYTES 512
#define SIZE_DIGITS_MAX 15

enum state {
    BODY_DONE,
    BODY_LENGTH,
    BODY_CLOSE,
    BODY_SIZE_LINE,
    BODY_DATA,
    BODY_DATA_END,
    BODY_TRAILER,
};

enum http1_refusal http1_body_begin(struct http1_body *b, enum http1_framing framing,
                                    uint64_t content_length, const struct http1_limits *limits)
{
    static const uint8_t first[] = {
        [HTTP1_BODY_NONE] = BODY_DONE,
        [HTTP1_BODY_LENGTH] = BODY_LENGTH,
        [HTTP1_BODY_CHUNKED] = BODY_SIZE_LINE,
        [HTTP1_BODY_CLOSE] = BODY_CLOSE,
    };

    *b = (struct http1_body){.limits = limits, .state = first[framing]};
    if (framing != HTTP1_BODY_LENGTH)
        return HTTP1_OK;
    b->left = content_length;
    if (b->left == 0)
        b->state = BODY_DONE;
    return content_length > limits->body_bytes ? HTTP1_NO_BODY_TOO_LARGE : HTTP1_OK;
}

uint64_t http1_body_left(const struct http1_body *b)
{
    return b->state == BODY_LENGTH ? b->left : 0;
}

/* One step of the decoder works on this. */
struct work {
    char *p;
    size_t n, in, out;
};

/* The next line of at most `max` bytes with its end, or p == NULL; *refusal when it is too long. */
static str take_line(struct work *w, size_t max, enum http1_refusal too_long,
                     enum http1_refusal *refusal)
{
    size_t window = MIN(w->n - w->in, max);
    const char *from = w->p + w->in, *lf = window ? memchr(from, '\n', window) : NULL;

    if (!lf) {
        *refusal = w->n - w->in >= max ? too_long : HTTP1_STEP_MORE;
        return STR_NULL;
    }
    w->in += (size_t)(lf + 1 - from);
    *refusal = HTTP1_OK;
    return str_range(from, lf + 1);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum http1_refusal read_size(str line, uint64_t *ret_size)
{
    uint64_t size = 0;
    size_t i = 0;

    for (; i < line.n && hex_value(line.p[i]) >= 0; i++) {
        if (i == SIZE_DIGITS_MAX)
            return HTTP1_NO_BODY_TOO_LARGE;
        size = size << 4 | (unsigned)hex_value(line.p[i]);
    }
    if (i == 0)
        return HTTP1_NO_CHUNK_SIZE;
    if (line.p[i] == ';') /* extensions: any text, ignored */
        i = (size_t)(http1_skip_value(line.p + i, line.p + line.n) - line.p);
    if (line.n - i != 2 || line.p[i] != '\r')
        return HTTP1_NO_CHUNK_SIZE;
    *ret_size = size;
    return HTTP1_OK;
}

static enum http1_refusal step_size(struct http1_body *b, struct work *w)
{
    enum http1_refusal r;
    str line = take_line(w, b->limits->chunk_line_bytes, HTTP1_NO_CHUNK_SIZE, &r);

    if (!r)
        r = read_size(line, &b->left);
    if (r)
        return r;
    if (b->left == 0) {
        b->state = BODY_TRAILER;
        return HTTP1_OK;
    }
    if (b->left > b->limits->body_bytes - b->bytes)
        return HTTP1_NO_BODY_TOO_LARGE;
    if (b->left < SMALL_CHUNK_BYTES && ++b->small_chunks > b->limits->small_chunks)
        return HTTP1_NO_SMALL_CHUNKS;
    b->state = BODY_DATA;
    return HTTP1_OK;
}

static enum http1_refusal step_data(struct http1_body *b, struct work *w)
{
    size_t take = (size_t)MIN(b->left, (uint64_t)(w->n - w->in));

    if (take == 0)
        return HTTP1_STEP_MORE;
    if (w->out != w->in)
        memmove(w->p + w->out, w->p + w->in, take);
    w->in += take;
    w->out += take;
    b->left -= take;
    b->bytes += take;
    if (b->left == 0)
        b->state = b->state == BODY_DATA ? BODY_DATA_END : BODY_DONE;
    return HTTP1_OK;
}

static enum http1_refusal step_data_end(struct http1_body *b, struct work *w)
{
    struct http1_cursor c = {.at = w->p + w->in, .end = w->p + w->n};
    enum http1_refusal r = http1_take_line_end(&c);

    if (r)
        return r == HTTP1_STEP_MORE ? r : HTTP1_NO_CHUNK_END;
    w->in += 2;
    b->state = BODY_SIZE_LINE;
    return HTTP1_OK;
}

/* One line of the trailer section. It must be well formed, so that what we drop and what another
 * reader drops is the same. */
static enum http1_refusal step_trailer(struct http1_body *b, struct work *w)
{
    size_t max = b->limits->trailer_bytes - b->trailer_bytes;
    enum http1_refusal r;
    str line = take_line(w, max, HTTP1_NO_TRAILER_TOO_LARGE, &r);
    const char *colon, *end;

    if (r)
        return r;
    b->trailer_bytes += (uint32_t)line.n;
    if (line.n == 2 && line.p[0] == '\r') {
        b->state = BODY_DONE;
        return HTTP1_OK;
    }
    end = line.p + line.n;
    colon = http1_skip_token(line.p, end);
    if (colon == line.p || *colon != ':')
        return HTTP1_NO_TRAILER;
    colon = http1_skip_value(colon + 1, end);
    return end - colon == 2 && *colon == '\r' ? HTTP1_OK : HTTP1_NO_TRAILER;
}

static enum http1_refusal step_close(struct http1_body *b, struct work *w)
{
    size_t n = w->n - w->in;

    if (n > b->limits->body_bytes - b->bytes)
        return HTTP1_NO_BODY_TOO_LARGE;
    w->in += n;
    w->out += n;
    b->bytes += n;
    return HTTP1_STEP_MORE;
}

static enum http1_refusal step(struct http1_body *b, struct work *w)
{
    switch (b->state) {
    case BODY_LENGTH:
    case BODY_DATA:
        return step_data(b, w);
    case BODY_SIZE_LINE:
        return step_size(b, w);
    case BODY_DATA_END:
        return step_data_end(b, w);
    case BODY_TRAILER:
        return step_trailer(b, w);
    default:
        ASSERT(b->state == BODY_CLOSE);
        return step_close(b, w);
    }
}

enum http1_event http1_body_decode(struct http1_body *b, char *p, size_t n, size_t *ret_used,
                                   size_t *ret_out, enum http1_refusal *ret_refusal)
{
    struct work w = {.p = p, .n = n};
    enum http1_refusal r = HTTP1_OK;

    while (!r && b->state != BODY_DONE)
        r = step(b, &w);
    ASSERT(w.out <= w.in && w.in <= n);
    if (r && r != HTTP1_STEP_MORE) {
        *ret_refusal = r;
        return HTTP1_REFUSED;
    }
    *ret_used = w.in;
    *ret_out = w.out;
    if (b->state == BODY_DONE)
        return HTTP1_REQUEST;
    return w.out ? HTTP1_DATA : HTTP1_MORE;
}

bool http1_body_end(struct http1_body *b)
{
    if (b->state == BODY_CLOSE)
        b->state = BODY_DONE;
    return b->state == BODY_DONE;
}
