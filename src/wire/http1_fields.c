/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header section: lines into slices, and what they say about framing.
 *
 * The parser works from left to right and decides on each byte once, whatever comes later; so a
 * message that arrives in pieces is simply parsed again from its start when a new line end is
 * there, and gives the same answer. Nearly all heads arrive whole, and are then parsed in one pass
 * that touches each byte about once.
 *
 * Known fields are found by a perfect hash of length, first and last letter (http1_known.def). The
 * table is laid out by the compiler: a collision is an initialiser overridden, which is an error.
 */
#include "wire/http1_priv.h"

#define H1 HTTP1_C_HOST
#define T1 HTTP1_C_TARGET
#define V1 HTTP1_C_VALUE
#define K1 HTTP1_C_TOKEN

/* clang-format off */
const uint8_t HTTP1_CLASS[256] = {
    ['\t'] = V1, [' '] = V1, ['#'] = K1 | V1,
    ['!'] = K1 | T1 | V1, ['"'] = T1 | V1, ['$'] = K1 | T1 | V1, ['%'] = K1 | T1 | V1 | H1,
    ['&'] = K1 | T1 | V1, ['\''] = K1 | T1 | V1, ['('] = T1 | V1, [')'] = T1 | V1,
    ['*'] = K1 | T1 | V1, ['+'] = K1 | T1 | V1, [','] = T1 | V1, ['-'] = K1 | T1 | V1 | H1,
    ['.'] = K1 | T1 | V1 | H1, ['/'] = T1 | V1, ['0' ... '9'] = K1 | T1 | V1 | H1,
    [':'] = T1 | V1 | H1, [';'] = T1 | V1, ['<'] = T1 | V1, ['='] = T1 | V1, ['>'] = T1 | V1,
    ['?'] = T1 | V1, ['@'] = T1 | V1, ['A' ... 'Z'] = K1 | T1 | V1 | H1, ['['] = T1 | V1 | H1,
    ['\\'] = T1 | V1, [']'] = T1 | V1 | H1, ['^'] = K1 | T1 | V1, ['_'] = K1 | T1 | V1 | H1,
    ['`'] = K1 | T1 | V1, ['a' ... 'z'] = K1 | T1 | V1 | H1, ['{'] = T1 | V1,
    ['|'] = K1 | T1 | V1, ['}'] = T1 | V1, ['~'] = K1 | T1 | V1 | H1, [0x80 ... 0xff] = V1,
};
/* clang-format on */

/* --- Known fields --------------------------------------------------------------------------- */

#define SLOTS 64
#define SLOT(length, first, last) (((length)*4 + (first)*5 + (last)*5) % SLOTS)

static const uint8_t slots[SLOTS] = {
#define KNOWN(name, text, first, last, repeat) \
    [SLOT(sizeof(text) - 1, first, last)] = HTTP1_F_##name + 1,
#include "wire/http1_known.def"
#undef KNOWN
};

static const struct {
    str text;
    bool one;
} known[HTTP1_KNOWN_COUNT] = {
#define ONE true
#define LIST false
#define KNOWN(name, text, first, last, repeat) [HTTP1_F_##name] = {S_INIT(text), repeat},
#include "wire/http1_known.def"
#undef KNOWN
#undef ONE
#undef LIST
};

static uint64_t load64(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t load32(const char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Whether the token p equals `low`, which has n >= 4 small letters and dashes. A token character
 * whose bit 0x20 gets set becomes one of those only if it was that letter or dash. */
static bool same_name(const char *p, const char *low, size_t n)
{
    const uint64_t small8 = 0x2020202020202020;
    const uint32_t small4 = 0x20202020;

    if (n < 8)
        return (load32(p) | small4) == load32(low) &&
               (load32(p + (n - 4)) | small4) == load32(low + (n - 4));
    for (size_t i = 0; i + 8 < n; i += 8) {
        if ((load64(p + i) | small8) != load64(low + i))
            return false;
    }
    return (load64(p + (n - 8)) | small8) == load64(low + (n - 8));
}

/* 1-based number of a known field, or 0. */
static unsigned find_known(const char *p, size_t n)
{
    unsigned slot = SLOT((unsigned)n, (unsigned char)p[0] | 0x20u, (unsigned char)p[n - 1] | 0x20u);
    unsigned k = slots[slot];

    if (k && known[k - 1].text.n == n && same_name(p, known[k - 1].text.p, n))
        return k;
    return 0;
}

static uint8_t connection_bits(str value)
{
    uint8_t bits = 0;

    /* The two values that nearly everybody sends. */
    if (value.n == 10 && same_name(value.p, "keep-alive", 10))
        return HTTP1_CONN_KEEP;
    if (value.n == 5 && same_name(value.p, "close", 5))
        return HTTP1_CONN_CLOSE;
    if (http1_has_token(value, S("close")))
        bits |= HTTP1_CONN_CLOSE;
    if (http1_has_token(value, S("keep-alive")))
        bits |= HTTP1_CONN_KEEP;
    if (http1_has_token(value, S("upgrade")))
        bits |= HTTP1_CONN_UPGRADE;
    return bits;
}

/* --- Lines ---------------------------------------------------------------------------------- */

bool http1_worth_parsing(const char *p, size_t n, const struct http1_limits *limits, size_t *seen)
{
    size_t from = *seen;

    ASSERT(from <= n);
    *seen = n;
    /* A head cannot have become complete without a new line end; the first bytes are always looked
     * at, which refuses foreign protocols at once. */
    return from == 0 || n >= limits->head_bytes || memchr(p + from, '\n', n - from) != NULL;
}

enum http1_refusal http1_take_line_end(struct http1_cursor *c)
{
    if (c->at == c->end)
        return HTTP1_STEP_MORE;
    if (*c->at != '\r')
        return *c->at == '\n' ? HTTP1_NO_LINE_END : HTTP1_NO_CONTROL;
    if (c->end - c->at < 2)
        return HTTP1_STEP_MORE;
    if (c->at[1] != '\n')
        return HTTP1_NO_LINE_END;
    c->at += 2;
    return HTTP1_OK;
}

enum http1_refusal http1_take_version(struct http1_cursor *c, enum http1_refusal malformed,
                                      uint8_t *ret_minor)
{
    size_t n = MIN((size_t)(c->end - c->at), sizeof("HTTP/") - 1);

    if (LIKELY(c->end - c->at >= 8 && memcmp(c->at, "HTTP/1.1", 8) == 0)) {
        *ret_minor = 1;
        c->at += 8;
        return HTTP1_OK;
    }
    if (memcmp(c->at, "HTTP/", n) != 0)
        return malformed;
    if (c->end - c->at < 8)
        return HTTP1_STEP_MORE;
    if (c->at[5] < '0' || c->at[5] > '9' || c->at[6] != '.' || c->at[7] < '0' || c->at[7] > '9')
        return malformed;
    if (c->at[5] != '1' || c->at[7] > '1')
        return HTTP1_NO_VERSION;
    *ret_minor = (uint8_t)(c->at[7] - '0');
    c->at += 8;
    return HTTP1_OK;
}

/* The line at c->at does not start with a token and a colon: it is the end of the section
 * (HTTP1_OK), cut short, or wrong. */
static enum http1_refusal odd_line(struct http1_cursor *c, const char *token_end)
{
    if (token_end == c->end)
        return HTTP1_STEP_MORE;
    switch (*token_end) {
    case '\r':
        return token_end == c->at ? http1_take_line_end(c) : HTTP1_NO_FIELD_NAME;
    case '\n':
        return HTTP1_NO_LINE_END;
    case ' ':
    case '\t':
        return token_end == c->at ? HTTP1_NO_FOLDED : HTTP1_NO_FIELD_BLANK;
    default:
        return HTTP1_NO_FIELD_NAME;
    }
}

static inline bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The value between the colon and the first byte that cannot belong to it, without outer blanks. */
static inline str trim_value(const char *p, const char *end)
{
    while (p < end && is_blank(*p))
        p++;
    while (p < end && is_blank(end[-1]))
        end--;
    return str_range(p, end);
}

static inline enum http1_refusal note_known(struct http1_fields *f, const struct http1_header *h)
{
    unsigned k = find_known(h->name.p, h->name.n);

    if (k == 0)
        return HTTP1_OK;
    if (k == HTTP1_F_CONNECTION + 1)
        f->connection |= connection_bits(h->value);
    if (UNLIKELY(f->known[k - 1]))
        return known[k - 1].one ? HTTP1_NO_FIELD_REPEATED : HTTP1_OK;
    f->known[k - 1] = (uint8_t)(h - f->headers + 1);
    return HTTP1_OK;
}

enum http1_refusal http1_note_field(struct http1_fields *f, const struct http1_header *h)
{
    return note_known(f, h);
}

enum http1_refusal http1_take_fields(struct http1_cursor *c, uint32_t headers_max,
                                     struct http1_fields *f)
{
    const char *p = c->at, *const end = c->end; /* kept in registers */
    struct http1_header *h = f->headers, *const last = h + headers_max;

    _Static_assert(HTTP1_HEADERS_MAX < 256, "known[] holds a byte");
    ASSERT(headers_max <= HTTP1_HEADERS_MAX);
    f->connection = 0;
    memset(f->known, 0, sizeof(f->known));
    for (;; h++) {
        const char *colon = http1_skip_token(p, end), *stop;

        if (UNLIKELY(h == last && p < end && *p != '\r' && !is_blank(*p)))
            return HTTP1_NO_TOO_MANY_FIELDS;
        if (colon == end || *colon != ':' || colon == p) {
            f->count = (uint32_t)(h - f->headers);
            c->at = p;
            return odd_line(c, colon);
        }
        stop = http1_skip_value(colon + 1, end);
        if (UNLIKELY(end - stop < 2 || stop[0] != '\r' || stop[1] != '\n')) {
            c->at = stop;
            return http1_take_line_end(c);
        }
        h->name = str_range(p, colon);
        h->value = trim_value(colon + 1, stop);
        p = stop + 2;
        enum http1_refusal r = note_known(f, h);
        if (UNLIKELY(r))
            return r;
    }
}

/* --- What the fields say -------------------------------------------------------------------- */

static enum http1_refusal read_length(str value, uint64_t *ret_length)
{
    uint64_t v = 0;

    if (value.n == 0)
        return HTTP1_NO_LENGTH;
    for (size_t i = 0; i < value.n; i++) {
        unsigned digit = (unsigned char)value.p[i] - (unsigned)'0';

        if (digit > 9)
            return HTTP1_NO_LENGTH;
        /* Saturate: any limit is far below, so the body is refused as too large. */
        v = v > (UINT64_MAX - 9) / 10 ? UINT64_MAX : v * 10 + digit;
    }
    *ret_length = v;
    return HTTP1_OK;
}

static enum http1_refusal read_coding(str value)
{
    bool chunked = false;

    if (str_eq_nocase(value, S("chunked")))
        return HTTP1_OK;
    for (str rest = value; rest.p;) {
        str coding = str_trim(str_cut(&rest, ','));

        if (chunked || coding.n == 0)
            return HTTP1_NO_CODING_ORDER;
        chunked = str_eq_nocase(coding, S("chunked"));
    }
    return HTTP1_NO_CODING;
}

enum http1_refusal http1_framing_of(const struct http1_fields *f, uint8_t version_minor,
                                    enum http1_framing *framing, uint64_t *content_length)
{
    str length = http1_known(f, HTTP1_F_CONTENT_LENGTH);
    str coding = http1_known(f, HTTP1_F_TRANSFER_ENCODING);
    enum http1_refusal r;

    if (length.p && coding.p)
        return HTTP1_NO_LENGTH_AND_CODING;
    if (length.p) {
        r = read_length(length, content_length);
        if (!r)
            *framing = HTTP1_BODY_LENGTH;
        return r;
    }
    if (!coding.p)
        return HTTP1_OK;
    if (version_minor == 0)
        return HTTP1_NO_CODING_VERSION;
    r = read_coding(coding);
    if (!r)
        *framing = HTTP1_BODY_CHUNKED;
    return r;
}

bool http1_keep_alive(const struct http1_fields *f, uint8_t version_minor)
{
    if (f->connection & HTTP1_CONN_CLOSE)
        return false;
    return version_minor >= 1 || (f->connection & HTTP1_CONN_KEEP);
}

str http1_field(const struct http1_fields *f, str name)
{
    for (uint32_t i = 0; i < f->count; i++) {
        if (f->headers[i].name.n == name.n && str_eq_nocase(f->headers[i].name, name))
            return f->headers[i].value;
    }
    return STR_NULL;
}

bool http1_has_token(str value, str token)
{
    for (str rest = value; rest.p;) {
        str item = str_cut(&rest, ',');
        str word = str_trim(str_cut(&item, ';'));

        if (word.n == token.n && str_eq_nocase(word, token))
            return true;
    }
    return false;
}
