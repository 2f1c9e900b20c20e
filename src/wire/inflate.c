/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zlib behind the two calls that are wanted. Output goes straight into the buffer, in steps that
 * double; the limits are looked at before each step, so that no more than twice of what was
 * allowed so far is ever written.
 *
 * A gzip body may be several members in a row (RFC 1952 section 2.2). Anything else behind the end
 * of the data is refused: two readers could see different messages.
 */
#include "wire/inflate.h"

#include "base/mem.h"

#include <zlib.h>

#define STEP_MIN_BYTES ((size_t)4 << 10)
#define STEP_MAX_BYTES ((size_t)1 << 20)
#define RATIO_FREE_BYTES ((size_t)1 << 20)
#define LEVEL 1
#define MEM_LEVEL 8

struct coder {
    z_stream in, out;
    enum coding in_coding, out_coding; /* what they are set up for; IDENTITY: not yet */
};

static const str names[CODING_COUNT] = {
    [CODING_IDENTITY] = S_INIT("identity"),
    [CODING_GZIP] = S_INIT("gzip"),
    [CODING_DEFLATE] = S_INIT("deflate"),
};

/* The windowBits of zlib: 32 KiB, with the frame of the coding. */
static const int window_bits[CODING_COUNT] = {
    [CODING_GZIP] = 15 + 16,
    [CODING_DEFLATE] = 15,
};

str coding_name(enum coding coding)
{
    ASSERT(coding < CODING_COUNT);
    return names[coding];
}

bool coding_parse(str name, enum coding *ret_coding)
{
    if (str_eq_nocase(name, S("x-gzip"))) {
        *ret_coding = CODING_GZIP;
        return true;
    }
    for (unsigned i = 0; i < CODING_COUNT; i++)
        if (str_eq_nocase(name, names[i])) {
            *ret_coding = (enum coding)i;
            return true;
        }
    return false;
}

/* True when the parameters of an item hold q=0 (0., 0.000). */
static bool is_weight_zero(str parameters)
{
    while (parameters.p) {
        str one = str_trim(str_cut(&parameters, ';'));

        if (one.n < 3 || (one.p[0] | 0x20) != 'q' || one.p[1] != '=')
            continue;
        for (one = str_skip(one, 2); one.n && (one.p[0] == '0' || one.p[0] == '.');)
            one = str_skip(one, 1);
        return one.n == 0;
    }
    return false;
}

enum coding coding_choose(str accept)
{
    enum coding best = CODING_IDENTITY;

    while (accept.p) {
        str item = str_cut(&accept, ','), name = str_trim(str_cut(&item, ';'));
        enum coding coding;

        if (!coding_parse(name, &coding) || coding == CODING_IDENTITY || is_weight_zero(item))
            continue;
        if (best == CODING_IDENTITY || coding == CODING_GZIP)
            best = coding;
    }
    return best;
}

static void *zip_alloc(void *user, unsigned count, unsigned size)
{
    (void)user;
    return mem_try_alloc((size_t)count * size);
}

static void zip_free(void *user, void *p)
{
    (void)user;
    mem_free(p);
}

struct coder *coder_new(void)
{
    struct coder *c = mem_zalloc(sizeof(*c));

    c->in.zalloc = c->out.zalloc = zip_alloc;
    c->in.zfree = c->out.zfree = zip_free;
    return c;
}

void coder_free(struct coder *c)
{
    if (!c)
        return;
    if (c->in_coding)
        inflateEnd(&c->in);
    if (c->out_coding)
        deflateEnd(&c->out);
    mem_free(c);
}

/* --- Decoding --------------------------------------------------------------------------------- */

static int begin_in(struct coder *c, enum coding coding)
{
    int rc = c->in_coding ? inflateReset2(&c->in, window_bits[coding])
                          : inflateInit2(&c->in, window_bits[coding]);

    if (rc == Z_OK)
        c->in_coding = coding;
    return rc;
}

/* Room for the next step within the limits; 0 when they are reached. */
static size_t step_bytes(size_t made, size_t taken, const struct inflate_limits *limits)
{
    size_t max = limits->bytes;

    if (limits->ratio)
        max = MIN(max, MAX(RATIO_FREE_BYTES,
                           taken > SIZE_MAX / limits->ratio ? SIZE_MAX : taken * limits->ratio));
    if (made >= max)
        return 0;
    return MIN(max - made, CLAMP(made, STEP_MIN_BYTES, STEP_MAX_BYTES));
}

static int too_large(const struct inflate_limits *limits, size_t made, struct err *e)
{
    if (made >= limits->bytes)
        return FAIL(e, RESOURCE_EXHAUSTED, "decompressed data exceeds %zu bytes", limits->bytes);
    return FAIL(e, RESOURCE_EXHAUSTED, "data unfolds to more than %u times its size",
                limits->ratio);
}

/* One step; *ret_end when the last member has ended with the input. */
static int decode_step(z_stream *z, size_t n, struct buf *out, bool *ret_end, str name,
                       struct err *e)
{
    char *to = buf_reserve(out, n);
    int rc;

    if (!to)
        return FAIL(e, RESOURCE_EXHAUSTED, "no room for %zu bytes of decompressed data", n);
    z->next_out = (Bytef *)to;
    z->avail_out = (uInt)n;
    rc = inflate(z, Z_NO_FLUSH);
    out->n += n - z->avail_out;
    if (rc == Z_STREAM_END) {
        *ret_end = z->avail_in == 0;
        /* Another member: only its magic may follow. */
        if (!*ret_end && (str_eqz(name, "deflate") || z->next_in[0] != 0x1f))
            return FAIL(e, INVALID_ARGUMENT, STR_F " data is followed by %u other bytes",
                        STR_A(name), z->avail_in);
        return !*ret_end && inflateReset(z) != Z_OK ? FAIL(e, INTERNAL, "inflateReset failed") : 0;
    }
    if (rc == Z_MEM_ERROR)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory to decompress");
    if (rc != Z_OK && rc != Z_BUF_ERROR)
        return FAIL(e, INVALID_ARGUMENT, "broken " STR_F " data: %s", STR_A(name),
                    z->msg ? z->msg : "not of that form");
    if (z->avail_in == 0 && z->avail_out > 0)
        return FAIL(e, INVALID_ARGUMENT, STR_F " data ends early", STR_A(name));
    return 0;
}

int coder_decode(struct coder *c, enum coding coding, str in, const struct inflate_limits *limits,
                 struct buf *out, struct err *e)
{
    size_t from = out->n;
    bool end = false;
    int rc = 0;

    if (coding == CODING_IDENTITY) {
        if (in.n > limits->bytes)
            return too_large(limits, in.n, e);
        buf_add_str(out, in);
        return out->overflowed ? FAIL(e, RESOURCE_EXHAUSTED, "no room for %zu bytes", in.n) : 0;
    }
    if (in.n > UINT32_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "compressed data exceeds 4 GiB");
    if (begin_in(c, coding) != Z_OK)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory to decompress");
    c->in.next_in = (Bytef *)(uintptr_t)in.p;
    c->in.avail_in = (uInt)in.n;
    while (!end && !rc) {
        size_t n = step_bytes(out->n - from, in.n - c->in.avail_in, limits);
        char probe;
        struct buf none;

        if (n) {
            rc = decode_step(&c->in, n, out, &end, coding_name(coding), e);
            continue;
        }
        /* At the limit: well if this was all, to the byte. */
        buf_init_fixed(&none, &probe, 1);
        rc = decode_step(&c->in, 1, &none, &end, coding_name(coding), e);
        if (!rc && none.n)
            rc = too_large(limits, out->n - from, e);
    }
    if (rc)
        out->n = from;
    return rc;
}

/* --- Encoding --------------------------------------------------------------------------------- */

static int begin_out(struct coder *c, enum coding coding)
{
    int rc;

    if (c->out_coding == coding)
        return deflateReset(&c->out);
    if (c->out_coding)
        deflateEnd(&c->out);
    c->out_coding = CODING_IDENTITY;
    rc = deflateInit2(&c->out, LEVEL, Z_DEFLATED, window_bits[coding], MEM_LEVEL,
                      Z_DEFAULT_STRATEGY);
    if (rc == Z_OK)
        c->out_coding = coding;
    return rc;
}

int coder_encode(struct coder *c, enum coding coding, str in, struct buf *out, struct err *e)
{
    size_t from = out->n;
    int rc = Z_OK;

    if (coding == CODING_IDENTITY) {
        buf_add_str(out, in);
        return out->overflowed ? FAIL(e, RESOURCE_EXHAUSTED, "no room for %zu bytes", in.n) : 0;
    }
    if (in.n > UINT32_MAX)
        return FAIL(e, RESOURCE_EXHAUSTED, "more than 4 GiB to compress at once");
    if (begin_out(c, coding) != Z_OK)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory to compress");
    c->out.next_in = (Bytef *)(uintptr_t)in.p;
    c->out.avail_in = (uInt)in.n;
    while (rc == Z_OK) {
        /* Most answers shrink to less than half. */
        size_t n = MIN(CLAMP(c->out.avail_in / 2, STEP_MIN_BYTES, STEP_MAX_BYTES),
                       out->max_bytes - out->n);
        char *to = n ? buf_reserve(out, n) : NULL;

        if (!to) {
            out->n = from;
            return FAIL(e, RESOURCE_EXHAUSTED, "no room for the compressed form of %zu bytes",
                        in.n);
        }
        c->out.next_out = (Bytef *)to;
        c->out.avail_out = (uInt)n;
        rc = deflate(&c->out, Z_FINISH);
        out->n += n - c->out.avail_out;
    }
    ASSERT(rc == Z_STREAM_END);
    return 0;
}
