/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading is by position, for the form is fixed: two, thirty-two, sixteen and two hexadecimal
 * digits in small letters with dashes between. Only version 00 ends there; a later one may go on
 * after a further dash.
 *
 * A tracestate is gathered in two steps: all members of all its fields are counted and checked,
 * then copied as far as they fit. Where they do not, members above LONG_BYTES are left out first
 * and then those at the end, the oldest, as the recommendation asks (section 3.3.1.5).
 */
#include "wire/trace_context.h"

#include "base/hash.h"

#define LONG_BYTES 128
#define KEY_BYTES_MAX 256
#define TENANT_BYTES_MAX 241
#define SYSTEM_BYTES_MAX 14
#define VALUE_BYTES_MAX 256
#define FLAGS_KNOWN TRACE_SAMPLED

/* --- traceparent ------------------------------------------------------------------------------ */

static bool small_hex(str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (!((text.p[i] >= '0' && text.p[i] <= '9') || (text.p[i] >= 'a' && text.p[i] <= 'f')))
            return false;
    return true;
}

static bool is_zero(const unsigned char *p, size_t n)
{
    unsigned char any = 0;

    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return !any;
}

bool trace_parent_read(str text, struct trace_context *ret)
{
    const str version = str_take(text, 2);
    unsigned char flags;

    if (text.n < TRACE_PARENT_TEXT || text.p[2] != '-' || text.p[35] != '-' || text.p[52] != '-')
        return false;
    if (!small_hex(version) || str_eq(version, S("ff")))
        return false;
    if (text.n > TRACE_PARENT_TEXT &&
        (str_eq(version, S("00")) || text.p[TRACE_PARENT_TEXT] != '-'))
        return false;
    if (!small_hex((str){text.p + 3, 32}) || !small_hex((str){text.p + 36, 16}) ||
        !small_hex((str){text.p + 53, 2}))
        return false;
    if (!hex_decode((str){text.p + 3, 32}, ret->trace_id, TRACE_ID_BYTES) ||
        !hex_decode((str){text.p + 36, 16}, ret->span_id, TRACE_SPAN_BYTES) ||
        !hex_decode((str){text.p + 53, 2}, &flags, 1))
        return false;
    ret->flags = flags & FLAGS_KNOWN;
    return !is_zero(ret->trace_id, TRACE_ID_BYTES) && !is_zero(ret->span_id, TRACE_SPAN_BYTES);
}

void trace_parent_write(const struct trace_context *t, char ret_text[TRACE_PARENT_TEXT])
{
    char trace[2 * TRACE_ID_BYTES + 1], span[2 * TRACE_SPAN_BYTES + 1];

    hex_encode(t->trace_id, TRACE_ID_BYTES, trace);
    hex_encode(t->span_id, TRACE_SPAN_BYTES, span);
    memcpy(ret_text, "00-", 3);
    memcpy(ret_text + 3, trace, 32);
    ret_text[35] = '-';
    memcpy(ret_text + 36, span, 16);
    memcpy(ret_text + 52, t->flags & TRACE_SAMPLED ? "-01" : "-00", 3);
}

/* --- tracestate ------------------------------------------------------------------------------- */

static bool is_letter(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool key_rest(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is_letter(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '_' && s.p[i] != '-' &&
            s.p[i] != '*' && s.p[i] != '/')
            return false;
    return true;
}

/* "vendor", or "tenant@system". */
static bool key_is_valid(str key)
{
    str tenant, system;
    ptrdiff_t at = str_find_char(key, '@');

    if (!key.n || !key_rest(str_skip(str_take(key, at < 0 ? key.n : (size_t)at), 1)))
        return false;
    if (at < 0)
        return is_letter(key.p[0]) && key.n <= KEY_BYTES_MAX;
    tenant = str_take(key, (size_t)at);
    system = str_skip(key, (size_t)at + 1);
    return tenant.n && tenant.n <= TENANT_BYTES_MAX &&
           (is_letter(tenant.p[0]) || is_digit(tenant.p[0])) && system.n &&
           system.n <= SYSTEM_BYTES_MAX && is_letter(system.p[0]) && key_rest(system);
}

static bool value_is_valid(str value)
{
    if (!value.n || value.n > VALUE_BYTES_MAX || value.p[value.n - 1] == ' ')
        return false;
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] < 0x20 || value.p[i] > 0x7e || value.p[i] == ',' || value.p[i] == '=')
            return false;
    return true;
}

bool trace_state_member_is_valid(str member)
{
    ptrdiff_t at = str_find_char(member, '=');

    return at > 0 && key_is_valid(str_take(member, (size_t)at)) &&
           value_is_valid(str_skip(member, (size_t)at + 1));
}

/* Blanks and tabs alone: other white space is no part of a field. */
static str without_blanks(str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = str_skip(s, 1);
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* The members of all tracestate fields, one after the other. */
struct members {
    const struct http1_fields *f;
    uint32_t field; /* the next one */
    str rest;
};

static bool next_member(struct members *m, str *ret)
{
    for (;;) {
        while (m->rest.p) {
            *ret = without_blanks(str_cut(&m->rest, ','));
            if (ret->n)
                return true;
        }
        while (m->field < m->f->count &&
               !str_eq_nocase(m->f->headers[m->field].name, S("tracestate")))
            m->field++;
        if (m->field == m->f->count)
            return false;
        m->rest = m->f->headers[m->field++].value;
    }
}

/* False: one is not valid, or there are too many. *ret_all: the bytes of all in one piece. */
static bool members_check(const struct http1_fields *f, size_t *ret_all)
{
    struct members m = {.f = f, .field = f->known[HTTP1_F_TRACESTATE] - 1u};
    uint32_t n = 0;
    str member;

    *ret_all = 0;
    for (; next_member(&m, &member); n++) {
        if (!trace_state_member_is_valid(member))
            return false;
        *ret_all += member.n + (*ret_all > 0);
    }
    return n <= TRACE_STATE_MEMBERS_MAX;
}

static size_t state_gather(const struct http1_fields *f, char to[TRACE_STATE_BYTES_MAX])
{
    struct members m = {.f = f, .field = f->known[HTTP1_F_TRACESTATE] - 1u};
    size_t n = 0, all;
    str member;
    bool whole;

    if (!f->known[HTTP1_F_TRACESTATE] || !members_check(f, &all))
        return 0;
    whole = all <= TRACE_STATE_BYTES_MAX;
    while (next_member(&m, &member)) {
        if (!whole && member.n > LONG_BYTES)
            continue;
        if (n + (n > 0) + member.n > TRACE_STATE_BYTES_MAX)
            break;
        if (n)
            to[n++] = ',';
        memcpy(to + n, member.p, member.n);
        n += member.n;
    }
    return n;
}

/* --- Both ------------------------------------------------------------------------------------- */

bool trace_context_read(const struct http1_fields *f, struct trace_context *ret,
                        char ret_state[TRACE_STATE_BYTES_MAX], size_t *ret_state_bytes)
{
    uint32_t first = f->known[HTTP1_F_TRACEPARENT];

    *ret_state_bytes = 0;
    if (!first || !trace_parent_read(f->headers[first - 1].value, ret))
        return false;
    for (uint32_t i = first; i < f->count; i++)
        if (str_eq_nocase(f->headers[i].name, S("traceparent")))
            return false;
    *ret_state_bytes = state_gather(f, ret_state);
    return true;
}

void trace_context_write(struct buf *lines, const struct trace_context *t, str state)
{
    char parent[TRACE_PARENT_TEXT];

    trace_parent_write(t, parent);
    buf_add_str(lines, S("traceparent: "));
    buf_add(lines, parent, sizeof(parent));
    buf_add_str(lines, S("\r\n"));
    if (!state.n)
        return;
    buf_add_str(lines, S("tracestate: "));
    buf_add_str(lines, state);
    buf_add_str(lines, S("\r\n"));
}
