/* SPDX-License-Identifier: Apache-2.0 */
#include "load/tally.h"

#include <math.h>
#include <stdio.h>

str load_failure_text(size_t failure, char ret_digits[8])
{
    static const str kinds[] = {
#define FAILURE(name, text, help) S_INIT(text),
#include "load/failures.def"
#undef FAILURE
    };

    ASSERT(failure < LOAD_FAIL_COUNT);
    if (failure < LOAD_FAIL_KINDS)
        return kinds[failure];
    snprintf(ret_digits, 8, "%u", (unsigned)(failure - LOAD_FAIL_KINDS) % 1000u);
    return str_of(ret_digits);
}

void load_tally_merge(struct load_tally *into, const struct load_tally *from)
{
    into->requests += from->requests;
    into->ok += from->ok;
    into->failed += from->failed;
    into->judged += from->judged;
    into->correct += from->correct;
    into->tp += from->tp;
    into->fp += from->fp;
    into->fn += from->fn;
    latency_merge(&into->latency, &from->latency);
}

static double ratio(uint64_t part, uint64_t whole)
{
    return whole ? (double)part / (double)whole : NAN;
}

double load_tally_accuracy(const struct load_tally *t)
{
    return ratio(t->correct, t->judged);
}

double load_tally_precision(const struct load_tally *t)
{
    return ratio(t->tp, t->tp + t->fp);
}

double load_tally_recall(const struct load_tally *t)
{
    return ratio(t->tp, t->tp + t->fn);
}

double load_tally_f1(const struct load_tally *t)
{
    return ratio(2 * t->tp, 2 * t->tp + t->fp + t->fn);
}
