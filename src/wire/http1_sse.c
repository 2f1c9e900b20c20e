/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server-sent events, read (WHATWG HTML, "parsing an event stream"). Lines end with LF, CR or CRLF,
 * which may be cut anywhere; so a CR ends the line at once and a LF right after it is skipped. An
 * event ends with an empty line; one that the stream leaves unfinished is dropped.
 */
#include "wire/http1_client.h"

void http1_sse_init(struct http1_sse *s, size_t event_bytes_max)
{
    ASSERT(event_bytes_max >= 16);
    *s = (struct http1_sse){.event_bytes_max = event_bytes_max};
    buf_init(&s->line, event_bytes_max);
    buf_init(&s->data, event_bytes_max);
    buf_init(&s->type, event_bytes_max);
    buf_init(&s->id, event_bytes_max);
}

void http1_sse_done(struct http1_sse *s)
{
    buf_done(&s->line);
    buf_done(&s->data);
    buf_done(&s->type);
    buf_done(&s->id);
}

static bool dispatch(struct http1_sse *s, http1_sse_fn fn, void *arg)
{
    bool go = true;

    if (s->data.n) { /* each data line left its newline; an event without data is none */
        struct http1_sse_event ev = {
            .type = s->type.n ? buf_str(&s->type) : S("message"),
            .data = str_take(buf_str(&s->data), s->data.n - 1),
            .id = buf_str(&s->id),
        };

        go = fn(arg, &ev);
    }
    buf_clear(&s->data);
    buf_clear(&s->type);
    return go;
}

static void field(struct http1_sse *s, str line)
{
    str value = line, name = str_cut(&value, ':');

    if (!value.p)
        value = S("");
    if (str_starts(value, S(" ")))
        value = str_skip(value, 1);
    if (str_eq(name, S("data"))) {
        buf_add_str(&s->data, value);
        buf_add_char(&s->data, '\n');
    } else if (str_eq(name, S("event"))) {
        buf_clear(&s->type);
        buf_add_str(&s->type, value);
    } else if (str_eq(name, S("id")) && !(value.n && memchr(value.p, 0, value.n))) {
        buf_clear(&s->id);
        buf_add_str(&s->id, value);
    }
    /* A comment (empty name), "retry" and unknown fields mean nothing to us. */
}

/* Takes the line in s->line; false when the receiver wants no more. */
static bool end_line(struct http1_sse *s, http1_sse_fn fn, void *arg)
{
    str line = buf_str(&s->line);
    bool go = true;

    if (!s->started && str_starts(line, S("\xef\xbb\xbf")))
        line = str_skip(line, 3);
    s->started = true;
    if (line.n)
        field(s, line);
    else
        go = dispatch(s, fn, arg);
    buf_clear(&s->line);
    return go;
}

static bool overflowed(const struct http1_sse *s)
{
    return s->line.overflowed || s->data.overflowed || s->type.overflowed || s->id.overflowed;
}

int http1_sse_feed(struct http1_sse *s, str piece, http1_sse_fn fn, void *arg, bool *ret_go,
                   struct err *e)
{
    const char *p = piece.p, *end = p + piece.n;

    while (p < end && !s->stopped) {
        const char *from = p;

        if (s->last_was_cr && *p == '\n') {
            s->last_was_cr = false;
            p++;
            continue;
        }
        while (p < end && *p != '\n' && *p != '\r')
            p++;
        buf_add(&s->line, from, (size_t)(p - from));
        s->last_was_cr = p < end && *p == '\r';
        if (!overflowed(s) && p < end)
            s->stopped = !end_line(s, fn, arg);
        if (overflowed(s))
            return FAIL(e, RESOURCE_EXHAUSTED, "an event of the stream is larger than %zu bytes",
                        s->event_bytes_max);
        p += p < end;
    }
    *ret_go = !s->stopped;
    return 0;
}
