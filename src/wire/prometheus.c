/* SPDX-License-Identifier: Apache-2.0 */
/* One line: name, optional labels in braces with quoted values, a number, optionally a time. */
#include "wire/prometheus.h"

#include <math.h>

static bool is_name_char(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
           (!first && c >= '0' && c <= '9');
}

static size_t name_length(str s)
{
    size_t n = 0;

    while (n < s.n && is_name_char(s.p[n], n == 0))
        n++;
    return n;
}

static str without_blanks(str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = str_skip(s, 1);
    return s;
}

/* Takes name="value" off *s; false when there is none. */
static bool take_label(str *s, str *ret_name, str *ret_value)
{
    size_t n = name_length(*s), end;

    if (!n || n + 1 >= s->n || s->p[n] != '=' || s->p[n + 1] != '"')
        return false;
    for (end = n + 2; end < s->n && s->p[end] != '"'; end++)
        end += s->p[end] == '\\';
    if (end >= s->n)
        return false;
    *ret_name = str_take(*s, n);
    *ret_value = (str){s->p + n + 2, end - n - 2};
    *s = without_blanks(str_skip(*s, end + 1));
    if (s->n && s->p[0] == ',')
        *s = without_blanks(str_skip(*s, 1));
    return true;
}

str prometheus_label(str labels, str name)
{
    str found, value;

    while (take_label(&labels, &found, &value))
        if (str_eq(found, name))
            return value;
    return STR_NULL;
}

static bool take_labels(str *s, str *ret)
{
    str inner = without_blanks(str_skip(*s, 1)), name, value;
    const char *from = inner.p;

    while (take_label(&inner, &name, &value))
        ;
    if (!inner.n || inner.p[0] != '}')
        return false;
    *ret = str_range(from, inner.p);
    *s = str_skip(inner, 1);
    return true;
}

static bool read_number(str s, double *ret)
{
    if (str_eq(s, S("NaN")))
        *ret = (double)NAN;
    else if (str_eq(s, S("+Inf")) || str_eq(s, S("-Inf")))
        *ret = s.p[0] == '-' ? -(double)INFINITY : (double)INFINITY;
    else
        return str_to_f64(s, ret);
    return true;
}

static const char *read_sample(str line, struct prometheus_sample *ret)
{
    size_t n = name_length(line);
    int64_t time_ms;
    str number, time;

    ret->name = str_take(line, n);
    ret->labels = STR_NULL;
    line = without_blanks(str_skip(line, n));
    if (!n)
        return "no name";
    if (line.n && line.p[0] == '{' && !take_labels(&line, &ret->labels))
        return "labels are not closed";
    time = str_trim(without_blanks(line));
    number = str_cut(&time, ' ');
    if (!read_number(number, &ret->value))
        return "no number";
    return time.p && !str_to_i64(without_blanks(time), &time_ms) ? "no time" : NULL;
}

bool prometheus_next(struct prometheus *p, struct prometheus_sample *ret)
{
    while (p->rest.p && p->rest.n && !p->wrong) {
        str line = str_trim(str_cut(&p->rest, '\n'));

        p->line++;
        if (!line.n || line.p[0] == '#')
            continue;
        p->wrong = read_sample(line, ret);
        return !p->wrong;
    }
    return false;
}

int prometheus_end(const struct prometheus *p, const char *what, struct err *e)
{
    if (!p->wrong)
        return 0;
    return FAIL(e, INVALID_ARGUMENT, "%s: line %llu: %s", what, (unsigned long long)p->line,
                p->wrong);
}
