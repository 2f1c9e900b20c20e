/* SPDX-License-Identifier: Apache-2.0 */
/* Response heads, and the events of a server-sent event stream. */
#include "wire/http1_client.h"
#include "wire/http1_priv.h"

static enum http1_refusal take_status_line(struct http1_cursor *c, struct http1_response *res)
{
    enum http1_refusal r = http1_take_version(c, HTTP1_NO_STATUS_LINE, &res->version_minor);
    const char *p;

    if (r)
        return r;
    p = c->at;
    if (c->end - p < 5)
        return HTTP1_STEP_MORE;
    if (p[0] != ' ' || p[1] < '1' || p[1] > '9' || p[2] < '0' || p[2] > '9' || p[3] < '0' ||
        p[3] > '9' || (p[4] != ' ' && p[4] != '\r'))
        return HTTP1_NO_STATUS_LINE;
    res->status = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
    p += p[4] == ' ' ? 5 : 4;
    c->at = http1_skip_value(p, c->end);
    res->reason = str_range(p, c->at);
    return http1_take_line_end(c);
}

static enum http1_refusal read_meaning(struct http1_response *res, bool to_head)
{
    const struct http1_fields *f = &res->fields;

    res->keep_alive = http1_keep_alive(f, res->version_minor);
    res->content_length = 0;
    res->framing = HTTP1_BODY_CLOSE;
    enum http1_refusal r =
        http1_framing_of(f, res->version_minor, &res->framing, &res->content_length);
    if (r)
        return r;
    if (to_head || res->status < 200 || res->status == 204 || res->status == 304)
        res->framing = HTTP1_BODY_NONE;
    if (res->framing == HTTP1_BODY_CLOSE)
        res->keep_alive = false;
    return HTTP1_OK;
}

enum http1_event http1_response_parse(const char *p, size_t n, const struct http1_limits *limits,
                                      bool to_head, size_t *seen, struct http1_response *res,
                                      enum http1_refusal *ret_refusal)
{
    bool cut = n >= limits->head_bytes;
    struct http1_cursor c = {.at = p, .end = p + (cut ? limits->head_bytes : n), .cut = cut};
    enum http1_refusal r;

    if (n == 0 || !http1_worth_parsing(p, n, limits, seen))
        return HTTP1_MORE;
    r = take_status_line(&c, res);
    if (!r)
        r = http1_take_fields(&c, limits->headers, &res->fields);
    if (!r)
        r = read_meaning(res, to_head);
    if (r == HTTP1_STEP_MORE) {
        if (!cut)
            return HTTP1_MORE;
        r = HTTP1_NO_HEAD_TOO_LARGE;
    }
    if (r) {
        *ret_refusal = r;
        return HTTP1_REFUSED;
    }
    res->head_bytes = (size_t)(c.at - p);
    *seen = 0;
    return HTTP1_HEAD;
}
