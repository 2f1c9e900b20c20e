/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single values: from the file, into the file, and in words.
 *
 * A value of the file is what a person writes (`15min`, `10%`, `64MiB`); the normalised value is
 * what a program wants (nanoseconds, a share of 1, bytes). Defaults and limits in fields.def are
 * written as in the file and read by the very same functions, so the table, the messages and the
 * documentation cannot disagree about a unit. A number without its unit is refused, with the unit
 * in the suggestion: `timeout: 30` means something else to everybody.
 */
#include "project/priv.h"

#include "base/num.h"
#include "base/time.h"
#include "project/cron.h"

#include <math.h>

#define SHOWN_MAX 40 /* characters of a value in a message */

struct reading {
    const struct field *f;
    bool normal;
    const struct json *src;
    struct json *out;
    struct arena *a;
    str *hint;
};

static void out_int(struct json *out, int64_t v)
{
    out->type = JSON_INT;
    out->integer = v;
}

static void out_real(struct json *out, double v)
{
    out->type = JSON_REAL;
    out->real = v;
}

static void out_str(struct json *out, str v)
{
    out->type = JSON_STR;
    out->string = v;
}

static bool is_number(const struct json *n)
{
    return n->type == JSON_INT || n->type == JSON_REAL;
}

static bool read_bool(const struct reading *r)
{
    str s = json_str_or(r->src, STR_NULL);

    if (r->src->type == JSON_BOOL) {
        r->out->type = JSON_BOOL;
        r->out->boolean = r->src->boolean;
        return true;
    }
    if (str_eq_nocase(s, S("yes")) || str_eq_nocase(s, S("on")))
        *r->hint = S("true");
    if (str_eq_nocase(s, S("no")) || str_eq_nocase(s, S("off")))
        *r->hint = S("false");
    return false;
}

/* 1e6 is a whole number too, while a double can tell it from its neighbours. */
static bool read_int(const struct reading *r)
{
    if (r->src->type == JSON_INT) {
        out_int(r->out, r->src->integer);
        return true;
    }
    if (r->src->type != JSON_REAL || fabs(r->src->real) > 9007199254740992.0 ||
        r->src->real != floor(r->src->real))
        return false;
    out_int(r->out, (int64_t)r->src->real);
    return true;
}

static bool read_real(const struct reading *r)
{
    if (!is_number(r->src))
        return false;
    out_real(r->out, json_real_or(r->src, 0));
    return true;
}

static bool read_fraction(const struct reading *r)
{
    str s = json_str_or(r->src, STR_NULL);
    double v;

    if (is_number(r->src)) {
        v = json_real_or(r->src, 0);
        if (v > 1 && v <= 100)
            *r->hint = arena_printf(r->a, "%g%%", v);
    } else if (r->normal || !str_ends(s, S("%")) ||
               !str_to_f64(str_trim(str_take(s, s.n - 1)), &v)) {
        return false;
    } else {
        v /= 100;
    }
    if (!(v >= 0 && v <= 1))
        return false;
    out_real(r->out, v);
    return true;
}

static bool read_duration(const struct reading *r)
{
    int64_t ns;

    if (r->src->type == JSON_INT && r->src->integer >= 0) {
        if (r->normal) {
            out_int(r->out, r->src->integer);
            return true;
        }
        *r->hint = arena_printf(r->a, "%llds", (long long)r->src->integer);
        return false;
    }
    if (r->normal || r->src->type != JSON_STR || !time_parse_duration(r->src->string, &ns))
        return false;
    out_int(r->out, ns);
    return true;
}

static const struct {
    str name;
    int64_t bytes;
} byte_units[] = {
    /* the first unit that divides a size without rest is the one that shows it */
    {S_INIT("TiB"), INT64_C(1) << 40},
    {S_INIT("GiB"), INT64_C(1) << 30},
    {S_INIT("MiB"), INT64_C(1) << 20},
    {S_INIT("KiB"), INT64_C(1) << 10},
    {S_INIT("TB"), INT64_C(1000000000000)},
    {S_INIT("GB"), INT64_C(1000000000)},
    {S_INIT("MB"), INT64_C(1000000)},
    {S_INIT("kB"), INT64_C(1000)},
    {S_INIT("B"), INT64_C(1)},
};

static bool read_bytes(const struct reading *r)
{
    str s = json_str_or(r->src, STR_NULL), number, unit;
    double v;

    if (r->src->type == JSON_INT && r->src->integer >= 0) {
        out_int(r->out, r->src->integer);
        return true;
    }
    if (r->normal || r->src->type != JSON_STR)
        return false;
    for (number = str_take(s, 0);
         number.n < s.n &&
         ((s.p[number.n] >= '0' && s.p[number.n] <= '9') || s.p[number.n] == '.');)
        number.n++;
    unit = str_trim(str_skip(s, number.n));
    if (!str_to_f64(number, &v))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(byte_units); i++) {
        double bytes = v * (double)byte_units[i].bytes;

        if (!r->hint->n && unit.n == 1 && str_eq_nocase(unit, str_take(byte_units[i].name, 1)))
            *r->hint = arena_printf(r->a, STR_F STR_F, STR_A(number), STR_A(byte_units[i].name));
        if (!str_eq(unit, byte_units[i].name) && !(str_eq(unit, S("KB")) && i == 7))
            continue;
        if (bytes > 9007199254740992.0 || bytes != floor(bytes))
            return false;
        *r->hint = STR_NULL;
        out_int(r->out, (int64_t)bytes);
        return true;
    }
    return false;
}

static bool read_text(const struct reading *r)
{
    if (r->src->type != JSON_STR || memchr(r->src->string.p, 0, r->src->string.n)) {
        if (is_number(r->src) || r->src->type == JSON_BOOL)
            *r->hint = arena_printf(r->a, "\"" STR_F "\"", STR_A(value_shown(r->src, r->a)));
        return false;
    }
    out_str(r->out, r->src->string);
    return true;
}

static bool read_name(const struct reading *r)
{
    if (r->src->type != JSON_STR || !str_is_name(r->src->string))
        return false;
    out_str(r->out, r->src->string);
    return true;
}

/* Classes are text, whatever YAML takes them for: 1, true, yes. */
static bool read_label(const struct reading *r)
{
    if (r->src->type == JSON_BOOL)
        out_str(r->out, r->src->boolean ? S("true") : S("false"));
    else if (r->src->type == JSON_INT)
        out_str(r->out, arena_printf(r->a, "%lld", (long long)r->src->integer));
    else if (r->src->type == JSON_STR && r->src->string.n)
        out_str(r->out, r->src->string);
    else
        return false;
    return true;
}

static bool read_choice(const struct reading *r)
{
    str s = json_str_or(r->src, STR_NULL);
    const str *choices;
    size_t n;

    if (r->src->type != JSON_STR)
        return false;
    choices = choices_of(r->f->of, r->a, &n);
    for (size_t i = 0; i < n; i++)
        if (str_eq(s, choices[i])) {
            out_str(r->out, s);
            return true;
        }
    *r->hint = str_suggest(s, choices, n);
    return false;
}

/* host:port, [v6]:port or unix:/path. The host is looked up when it is bound, not here. */
static bool read_address(const struct reading *r)
{
    str s = json_str_or(r->src, STR_NULL), host;
    size_t colon = s.n;
    uint64_t port;

    if (r->src->type == JSON_INT && r->src->integer > 0 && r->src->integer < 65536)
        *r->hint = arena_printf(r->a, "127.0.0.1:%lld", (long long)r->src->integer);
    if (str_starts(s, S("unix:/")) && s.n < 100 && !memchr(s.p, 0, s.n)) {
        out_str(r->out, s);
        return true;
    }
    while (colon > 0 && s.p[colon - 1] != ':')
        colon--;
    if (colon < 2 || !str_to_u64(str_skip(s, colon), &port) || port > 65535 || s.n > 262)
        return false;
    host = str_take(s, colon - 1);
    if (str_starts(host, S("[")) && str_ends(host, S("]")) && host.n > 3)
        host = str_take(str_skip(host, 1), host.n - 2);
    else if (str_find_char(host, ':') >= 0)
        return false;
    for (size_t i = 0; i < host.n; i++)
        if (!memchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_", host.p[i],
                    66))
            return false;
    out_str(r->out, s);
    return true;
}

static bool read_cron(const struct reading *r)
{
    struct cron cron;
    struct err e;

    if (r->src->type != JSON_STR || cron_parse(r->src->string, &cron, &e))
        return false;
    out_str(r->out, str_trim(r->src->string));
    return true;
}

static bool (*const readers[KIND_COUNT])(const struct reading *) = {
    [KIND_BOOL] = read_bool,         [KIND_INT] = read_int,           [KIND_REAL] = read_real,
    [KIND_FRACTION] = read_fraction, [KIND_DURATION] = read_duration, [KIND_BYTES] = read_bytes,
    [KIND_TEXT] = read_text,         [KIND_NAME] = read_name,         [KIND_LABEL] = read_label,
    [KIND_CHOICE] = read_choice,     [KIND_ADDRESS] = read_address,   [KIND_CRON] = read_cron,
    [KIND_REF] = read_name,
};

/* The scalar that a plain YAML text is, without the parser. */
static struct json node_of_text(const char *text)
{
    const char *end = text + strlen(text);
    struct json node = {.type = JSON_STR, .string = str_of(text)};
    int64_t integer;
    double real;
    bool exact;

    if (!strcmp(text, "true") || !strcmp(text, "false")) {
        node.type = JSON_BOOL;
        node.boolean = text[0] == 't';
    } else if (*text && num_parse(text, end, &real, &integer, &exact) == end) {
        exact ? out_int(&node, integer) : out_real(&node, real);
    }
    return node;
}

/* What is held against .lo and .hi: the number, or the length of a text. */
static double measure(enum kind kind, const struct json *value)
{
    return kind == KIND_TEXT ? (double)value->string.n : json_real_or(value, 0);
}

static double limit(const struct field *f, enum kind kind, const char *text, struct arena *a)
{
    struct json value = {0}, src = node_of_text(text);
    struct reading r = {f, false, &src, &value, a, &(str){0}};
    bool ok;

    if (kind == KIND_TEXT)
        return json_real_or(&src, 0);
    ok = readers[kind](&r);
    ASSERT(ok); /* fields.def */
    return measure(kind, &value);
}

bool value_read(const struct field *f, enum kind kind, bool normal, const struct json *src,
                struct json *out, struct arena *a, str *ret_hint)
{
    struct reading r = {f, normal, src, out, a, ret_hint};

    ASSERT(project_kinds[kind].is_scalar);
    if (!readers[kind](&r))
        return false;
    if (f->lo && measure(kind, out) < limit(f, kind, f->lo, a))
        return false;
    return !f->hi || measure(kind, out) <= limit(f, kind, f->hi, a);
}

struct json *value_default(const struct field *f, struct arena *a)
{
    enum kind element = project_kinds[f->kind].element;
    str rest = str_of(f->def);
    struct json *list, scalar;

    if (f->word && !strcmp(f->def, f->word))
        return json_new_str(a, rest);
    if (!strcmp(f->def, "{}"))
        return json_new_object(a);
    if (f->kind == KIND_TEXT)
        return json_new_str(a, rest);
    if (element == KIND_COUNT && f->kind != KIND_ITEMS) {
        scalar = node_of_text(f->def);
        return json_copy(a, &scalar);
    }
    list = json_new_array(a);
    while (rest.p && strcmp(f->def, "[]") != 0)
        json_push(list, json_new_str(a, str_cut(&rest, ' ')));
    return list;
}

/* --- In words ----------------------------------------------------------------------------- */

static void add_choices(const struct field *f, struct buf *out)
{
    str rest = str_of(f->of);

    while (rest.p) {
        buf_add_char(out, ' ');
        buf_add_str(out, str_cut(&rest, '|'));
        if (rest.p)
            buf_add_char(out, ',');
    }
}

str value_expected(const struct field *f, enum kind kind, struct arena *a)
{
    AUTO(buf_done) struct buf out = {0};

    buf_init(&out, BUF_MAX_DEFAULT);
    buf_add_str(&out, str_of(project_kinds[kind].noun));
    if (kind == KIND_CHOICE)
        add_choices(f, &out);
    else if (kind == KIND_REF)
        buf_printf(&out, " of %s", f->of);
    else if (!project_kinds[kind].is_scalar)
        ; /* limits are those of the elements */
    else if (kind == KIND_TEXT && f->lo && !f->hi)
        buf_printf(&out, " (not empty)");
    else if (kind == KIND_TEXT && f->hi)
        buf_printf(&out, " of %s to %s bytes", f->lo ? f->lo : "0", f->hi);
    else if (f->lo && f->hi)
        buf_printf(&out, strcmp(f->lo, f->hi) ? ", from %s to %s" : ": %s", f->lo, f->hi);
    else if (f->lo)
        buf_printf(&out, ", at least %s", f->lo);
    if (f->word)
        buf_printf(&out, ", or %s", f->word);
    return arena_dup(a, buf_str(&out));
}

str value_shown(const struct json *src, struct arena *a)
{
    char number[NUM_TEXT_MAX];
    str s;

    switch (src->type) {
    case JSON_NULL:
        return S("empty");
    case JSON_BOOL:
        return src->boolean ? S("true") : S("false");
    case JSON_INT:
        return arena_printf(a, "%lld", (long long)src->integer);
    case JSON_REAL:
        s = (str){number, 0};
        s.n = num_f64_text(src->real, number);
        return arena_dup(a, s);
    case JSON_ARRAY:
        return S("a list");
    case JSON_OBJECT:
        return S("a mapping");
    case JSON_STR:
        break;
    }
    s = src->string;
    if (s.n <= SHOWN_MAX)
        return arena_printf(a, "'" STR_F "'", STR_A(s));
    for (s.n = SHOWN_MAX; s.n > SHOWN_MAX - 4 && ((unsigned char)s.p[s.n] & 0xC0) == 0x80;)
        s.n--; /* not within a character */
    return arena_printf(a, "'" STR_F "…'", STR_A(s));
}

/* Exact, unlike time_duration_text, which is for eyes alone: 90 s is 1min30s. */
static str duration_text(int64_t ns, struct arena *a)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"d", 86400 * NS_PER_S},
                 {"h", 3600 * NS_PER_S},
                 {"min", 60 * NS_PER_S},
                 {"s", NS_PER_S},
                 {"ms", NS_PER_MS},
                 {"us", NS_PER_US},
                 {"ns", 1}};
    str text = STR_NULL;

    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (ns < units[i].ns)
            continue;
        text = arena_printf(a, STR_F "%lld%s", STR_A(text), (long long)(ns / units[i].ns),
                            units[i].name);
        ns %= units[i].ns;
    }
    return text.n ? text : S("0s");
}

static str bytes_text(int64_t bytes, struct arena *a)
{
    size_t i = 0;

    while (byte_units[i].bytes > MAX(bytes, 1) || bytes % byte_units[i].bytes)
        i++;
    return arena_printf(a, "%lld" STR_F, (long long)(bytes / byte_units[i].bytes),
                        STR_A(byte_units[i].name));
}

/* As a percentage where that reads back as the same number. */
static str fraction_text(double v, struct arena *a)
{
    char text[NUM_TEXT_MAX];
    double back;
    str s;

    for (int digits = 1; digits <= 6; digits++) {
        s = arena_printf(a, "%.*g", digits, v * 100);
        if (str_find_char(s, 'e') < 0 && str_to_f64(s, &back) && back / 100 == v)
            return arena_printf(a, STR_F "%%", STR_A(s));
    }
    s = (str){text, 0};
    s.n = num_f64_text(v, text);
    return arena_dup(a, s);
}

static str list_text(const struct field *f, enum kind element, const struct json *norm,
                     struct arena *a)
{
    AUTO(buf_done) struct buf out = {0};

    buf_init(&out, BUF_MAX_DEFAULT);
    buf_add_char(&out, '[');
    JSON_EACH (item, norm) {
        buf_add_str(&out, item == norm->first ? STR_NULL : S(", "));
        buf_add_str(&out, value_text(f, element, item, a));
    }
    buf_add_char(&out, ']');
    return arena_dup(a, buf_str(&out));
}

str value_text(const struct field *f, enum kind kind, const struct json *norm, struct arena *a)
{
    AUTO(buf_done) struct buf out = {0};

    if (norm->type == JSON_NULL)
        return str_of(f->word ? f->word : "null");
    if (kind == KIND_DURATION && norm->type == JSON_INT)
        return duration_text(norm->integer, a);
    if (kind == KIND_BYTES && norm->type == JSON_INT)
        return bytes_text(norm->integer, a);
    if (kind == KIND_FRACTION || (kind == KIND_WEIGHTS && is_number(norm)))
        return fraction_text(json_real_or(norm, 0), a);
    if (kind == KIND_ITEMS)
        return arena_printf(a, "%zu %s", norm->count, norm->count == 1 ? "entry" : "entries");
    if (norm->type == JSON_ARRAY && project_kinds[kind].element != KIND_COUNT)
        return list_text(f, project_kinds[kind].element, norm, a);
    if (norm->type == JSON_STR && norm->string.n)
        return norm->string;
    buf_init(&out, BUF_MAX_DEFAULT);
    json_write(&out, norm);
    return arena_dup(a, buf_str(&out));
}
