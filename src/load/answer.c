/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the predicted class in an answer without reading the answer: the quoted name is searched,
 * then its value is taken. That is right for the answers of a gateway, where the field comes before
 * any text that a caller chose; it is not a JSON reader, and anything unexpected is no prediction.
 */
#include "load/answer.h"

#include "base/num.h"

static str after_name(str text, str name)
{
    while (text.n > name.n + 2) {
        const char *p = memmem(text.p, text.n, name.p, name.n);

        if (!p)
            return STR_NULL;
        text = str_skip(text, (size_t)(p - text.p) + name.n);
        if (p[-1] == '"' && text.n && text.p[0] == '"')
            return str_skip(text, 1);
    }
    return STR_NULL;
}

/* Without leading blanks and, when it comes next, `c`. */
static str past(str text, char c)
{
    while (text.n && (text.p[0] == ' ' || text.p[0] == '\n' || text.p[0] == '\t'))
        text = str_skip(text, 1);
    return text.n && text.p[0] == c ? past(str_skip(text, 1), ' ') : text;
}

static str value_at(str text)
{
    size_t n = 0;

    if (text.n && text.p[0] == '"') {
        text = str_skip(text, 1);
        while (n < text.n && text.p[n] != '"' && text.p[n] != '\\')
            n++;
        return n < text.n && text.p[n] == '"' ? str_take(text, n) : STR_NULL;
    }
    while (n < text.n && !memchr(",]} \n\r\t", text.p[n], 7))
        n++;
    return n == 0 || str_eq(str_take(text, n), S("null")) ? STR_NULL : str_take(text, n);
}

/* The place of the largest number of a list as a text; of a single score, whether it is >= 0.5. */
static str argmax(str text)
{
    /* The number i lies at 2i; those below 10 are one digit. */
    static const char digits[] = "0001020304050607080910111213141516171819202122232425262728293031"
                                 "3233343536373839404142434445464748495051525354555657585960616263";
    const char *p = text.p, *end = text.p + text.n;
    double best = -__builtin_inf(), v = 0;
    uint32_t at = 0, n = 0;
    int64_t exact;
    bool is_int;

    while (p && p < end && n < LOAD_CLASSES_MAX && (p = num_parse(p, end, &v, &exact, &is_int))) {
        if (v > best)
            best = v, at = n;
        n++;
        text = past(str_range(p, end), ' ');
        if (!text.n || text.p[0] != ',')
            break;
        text = past(text, ',');
        p = text.p;
    }
    if (n == 0)
        return STR_NULL;
    if (n == 1)
        at = best >= 0.5;
    return at < 10 ? (str){&digits[2 * at + 1], 1} : (str){&digits[2 * at], 2};
}

str load_answer_class(const struct load_reader *reader, str body)
{
    str at = after_name(body, reader->field);

    if (!at.p)
        return STR_NULL;
    if (reader->api == LOAD_PREDICT)
        return value_at(past(at, ':'));
    at = after_name(at, S("data"));
    at = past(past(at, ':'), '[');
    return reader->argmax ? argmax(at) : value_at(at);
}
