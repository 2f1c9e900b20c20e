/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log line is built on the stack and leaves by one write(2): no allocation, no lock, no mixed
 * lines.
 *
 * The format text of an event is a template `key=value key=value …`. It is walked here instead of
 * being given to printf as a whole, so that each value is formatted alone, then escaped for the
 * format of the log: a value taken from a request can neither end its field nor start a new line.
 * In JSON a value made of one number conversion is a number, any other is a string.
 *
 * A value longer than VALUE_BYTES, or a line longer than LINE_BYTES, is cut and says so.
 */
#include "base/log.h"

#include "base/json.h"
#include "base/num.h"
#include "base/time.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_BYTES 8192
#define VALUE_BYTES 2048

static atomic_int least_level = LOG_INFO;
static atomic_int line_format = LOG_LOGFMT;
static const char *_Atomic process_name = "weir";

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level least, enum log_format format, const char *process)
{
    atomic_store(&least_level, (int)least);
    atomic_store(&line_format, (int)format);
    atomic_store(&process_name, process);
}

struct line {
    struct buf out;
    bool json;
    bool first;
    char bytes[LINE_BYTES];
};

static bool is_bare(str v)
{
    if (!v.n)
        return false;
    for (size_t i = 0; i < v.n; i++)
        if ((unsigned char)v.p[i] <= ' ' || v.p[i] == '"' || v.p[i] == '=' || v.p[i] == '\\' ||
            (unsigned char)v.p[i] >= 0x7F)
            return false;
    return true;
}

/* Adds the pair whole or, when the line is full, not at all. */
static void add_pair(struct line *l, str key, str value, bool as_number)
{
    struct buf *out = &l->out;
    size_t before = out->n;

    if (l->json) {
        buf_add_char(out, l->first ? '{' : ',');
        json_escape(out, key);
        buf_add_char(out, ':');
    } else {
        if (!l->first)
            buf_add_char(out, ' ');
        buf_add_str(out, key);
        buf_add_char(out, '=');
    }
    if (l->json ? as_number : is_bare(value))
        buf_add_str(out, value);
    else
        json_escape(out, value);
    if (out->overflowed)
        out->n = before;
    l->first = false;
}

static void line_begin(struct line *l, enum log_level level, const char *event)
{
    char ts[TIME_ISO_SIZE];

    time_iso(time_wall_ns(), ts);
    buf_init_fixed(&l->out, l->bytes, sizeof(l->bytes) - 32); /* room for the end of the line */
    l->json = atomic_load_explicit(&line_format, memory_order_relaxed) == LOG_JSON;
    l->first = true;
    add_pair(l, S("ts"), str_of(ts), false);
    add_pair(l, S("level"), str_of(level_names[level]), false);
    add_pair(l, S("event"), str_of(event), false);
    add_pair(l, S("process"), str_of(atomic_load(&process_name)), false);
}

static void line_end(struct line *l)
{
    bool cut = l->out.overflowed;
    str end = l->json ? cut ? S(",\"truncated\":true}\n") : S("}\n")
              : cut ? S(" truncated=true\n")
                      : S("\n");

    memcpy(l->bytes + l->out.n, end.p, end.n);
    (void)!write(STDERR_FILENO, l->bytes, l->out.n + end.n);
}

/* A conversion of printf at *fmt ('%' included): *fmt moves past it. */
struct conversion {
    char spec[32];
    char kind;
    int longs; /* how many l (ll counts 2), 3 for z, j and t: all 64 bits here */
    int stars;
};

static struct conversion take_conversion(const char **fmt)
{
    struct conversion c = {.stars = 0};
    const char *p = *fmt + 1;
    size_t n;

    for (; *p && strchr("-+ #0123456789.*hlzjt", *p); p++) {
        c.stars += *p == '*';
        c.longs += *p == 'l' ? 1 : *p == 'z' || *p == 'j' || *p == 't' ? 3 : 0;
    }
    c.kind = *p;
    n = (size_t)(p - *fmt) + (*p != 0);
    ASSERT(c.kind && c.stars <= 2 && n < sizeof(c.spec));
    memcpy(c.spec, *fmt, n);
    *fmt += n;
    return c;
}

/* snprintf with 0, 1 or 2 `*` arguments before the value. */
#define PRINT_ONE(value)                                             \
    (c->stars == 0   ? snprintf(to, size, c->spec, (value))          \
     : c->stars == 1 ? snprintf(to, size, c->spec, star[0], (value)) \
                     : snprintf(to, size, c->spec, star[0], star[1], (value)))

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static int print_conversion(char *to, size_t size, const struct conversion *c, va_list *args)
{
    int star[2] = {0, 0};

    for (int i = 0; i < c->stars; i++)
        star[i] = va_arg(*args, int);
    switch (c->kind) {
    case 'd':
    case 'i':
        return c->longs ? PRINT_ONE(va_arg(*args, long long)) : PRINT_ONE(va_arg(*args, int));
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        return c->longs ? PRINT_ONE(va_arg(*args, unsigned long long))
                        : PRINT_ONE(va_arg(*args, unsigned));
    case 'c':
        return PRINT_ONE(va_arg(*args, int));
    case 'f':
    case 'g':
    case 'e':
        return PRINT_ONE(va_arg(*args, double));
    case 's':
        return PRINT_ONE(va_arg(*args, const char *));
    case 'p':
        return PRINT_ONE(va_arg(*args, void *));
    case '%':
        return snprintf(to, size, "%%");
    default:
        ASSERT(c->kind == 's'); /* a log conversion is one of diuxXocfgesp% */
        return 0;
    }
}
#pragma GCC diagnostic pop

/* One value of the template: up to a blank, or between quotes. */
struct value {
    char bytes[VALUE_BYTES];
    size_t n;
    bool is_number;
};

static void value_add(struct value *v, const struct conversion *c, char literal, va_list *args)
{
    size_t room = sizeof(v->bytes) - v->n;
    int n = 1;

    if (c)
        n = print_conversion(v->bytes + v->n, room, c, args);
    else if (room > 1)
        v->bytes[v->n] = literal;
    ASSERT(n >= 0);
    v->n += MIN((size_t)n, room - 1);
    if ((size_t)n >= room)
        memcpy(v->bytes + v->n - 3, "...", 3);
}

static bool is_json_number(const struct value *v)
{
    double real;
    int64_t integer;
    bool exact;

    return num_parse(v->bytes, v->bytes + v->n, &real, &integer, &exact) == v->bytes + v->n;
}

static void take_value(const char **fmt, struct value *v, va_list *args)
{
    bool quoted = **fmt == '"';
    int conversions = 0, literals = 0;
    char kind = 0;

    v->n = 0;
    *fmt += quoted;
    while (**fmt && **fmt != (quoted ? '"' : ' ')) {
        if (**fmt == '%') {
            struct conversion c = take_conversion(fmt);

            kind = c.kind;
            conversions++;
            value_add(v, &c, 0, args);
        } else {
            literals++;
            value_add(v, NULL, *(*fmt)++, args);
        }
    }
    *fmt += quoted && **fmt;
    v->is_number = conversions == 1 && !literals && strchr("diufge", kind) && is_json_number(v);
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    struct line l;
    struct value v;
    va_list args;

    ASSERT((size_t)level < ARRAY_LEN(level_names));
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed))
        return;
    line_begin(&l, level, event);
    va_start(args, fmt);
    while (*fmt) {
        const char *equals = strchrnul(fmt, '=');
        str key = str_trim(str_range(fmt, equals));

        if (!*equals)
            break;
        fmt = equals + 1;
        take_value(&fmt, &v, &args);
        add_pair(&l, key, (str){v.bytes, v.n}, v.is_number);
        while (*fmt == ' ')
            fmt++;
    }
    va_end(args);
    line_end(&l);
}

void log_err(const char *event, const struct err *e)
{
    log_event(LOG_ERROR, event, "code=%s msg=\"%s\" at=%s", code_name(e->code), e->msg,
              e->at ? e->at : "?");
}
