/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Static answers, from words to tensors.
 *
 * A model that is asked by field name answers by its "reading": a class, the probability of one, a
 * value. `prediction` and `score` are turned back into the tensors that read that way, so a static
 * answer goes out through the same writers as a model's, in every protocol, and reads the same in
 * all of them. What they leave open (an output without a role, the other classes of many) has to be
 * given by tensor name.
 */
#include "plan/fallback.h"

#include <math.h>

/* --- One row of every output ------------------------------------------------------------------ */

static bool put_value(enum tensor_type type, const struct json *v, void *to, struct arena *a)
{
    if (type == TENSOR_BYTES) {
        if (v->type != JSON_STR)
            return false;
        *(str *)to = arena_dup(a, v->string);
        return true;
    }
    if (v->type == JSON_INT && type == TENSOR_INT64) {
        *(int64_t *)to = v->integer; /* exact */
        return true;
    }
    if (v->type != JSON_INT && v->type != JSON_REAL && v->type != JSON_BOOL)
        return false;
    return tensor_put_number(type, to, v->type == JSON_BOOL ? v->boolean : json_real_or(v, NAN));
}

static NODISCARD int read_row(const struct json *answer, const struct tensor_spec *spec,
                              struct arena *a, struct tensor *t, struct err *e)
{
    const struct json *values = json_get(answer, spec->name);
    int64_t n = tensor_row_elements(spec);
    size_t size = tensor_type_bytes(spec->datatype), i = 0;

    if (n < 1)
        return FAIL(e, FAILED_PRECONDITION,
                    "output '" STR_F "' is not one row of fixed size for each row of input, so it "
                    "has no static answer",
                    STR_A(spec->name));
    if (!values || values->type != JSON_ARRAY || (int64_t)values->count != n)
        return FAIL(e, INVALID_ARGUMENT,
                    "the answer has %zu values for output '" STR_F "', expected %lld",
                    values && values->type == JSON_ARRAY ? values->count : 0, STR_A(spec->name),
                    (long long)n);
    *t = (struct tensor){.spec = spec};
    t->cap_bytes = (size_t)n * size;
    t->data = arena_zalloc(a, t->cap_bytes);
    JSON_EACH (v, values)
        if (!put_value(spec->datatype, v, (char *)t->data + i++ * size, a))
            return FAIL(e, INVALID_ARGUMENT,
                        "value %zu of the answer for output '" STR_F "' does not fit %s", i,
                        STR_A(spec->name), tensor_type_name(spec->datatype));
    tensor_set_rows(t, 1);
    return 0;
}

static NODISCARD int read_answer(const struct json *answer, const struct plan_signature *sig,
                                 struct arena *a, struct tensor **ret, struct err *e)
{
    struct tensor *rows = ARENA_ARRAY(a, struct tensor, sig->output_count);

    for (uint32_t i = 0; i < sig->output_count; i++)
        TRY(read_row(answer, &sig->outputs[i], a, &rows[i], e));
    *ret = rows;
    return 0;
}

/* --- From the words of a project -------------------------------------------------------------- */

struct resolver {
    const struct plan_signature *sig;
    struct arena *a;
    const struct json *prediction, *score; /* or NULL */
    int32_t cls;                           /* what the prediction is of the classes; -1: none */
};

static str label_text(struct arena *a, const struct json *v)
{
    if (v->type == JSON_BOOL)
        return v->boolean ? S("true") : S("false");
    if (v->type == JSON_INT)
        return arena_printf(a, "%lld", (long long)v->integer);
    return json_str_or(v, STR_NULL);
}

static NODISCARD int find_class(struct resolver *r, struct err *e)
{
    const struct plan_reading *reading = &r->sig->reading;
    str text;

    r->cls = -1;
    if (!r->prediction || !reading->class_count)
        return 0;
    text = label_text(r->a, r->prediction);
    for (size_t i = 0; i < reading->class_count; i++)
        if (str_eq(reading->classes[i], text))
            r->cls = (int32_t)i;
    if (r->cls < 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "prediction '" STR_F "' is not one of the %zu classes of the model ('" STR_F
                    "', …)",
                    STR_A(text), reading->class_count, STR_A(reading->classes[0]));
    return 0;
}

static NODISCARD int resolve_label(struct resolver *r, const struct tensor_spec *spec,
                                   struct json *to, struct err *e)
{
    str text = label_text(r->a, r->prediction);
    int64_t number;

    if (spec->datatype == TENSOR_BYTES)
        json_push(to, json_new_str(r->a, text));
    else if (str_to_i64(text, &number))
        json_push(to, json_new_int(r->a, number));
    else
        return FAIL(e, INVALID_ARGUMENT,
                    "prediction '" STR_F "' is not a number, and output '" STR_F "' holds %s",
                    STR_A(text), STR_A(spec->name), tensor_type_name(spec->datatype));
    return 0;
}

/* The score is the probability of the positive class, or of the class given; the others share what
 * it leaves. */
static NODISCARD int resolve_probabilities(struct resolver *r, const struct tensor_spec *spec,
                                           struct json *to, struct err *e)
{
    const struct plan_reading *reading = &r->sig->reading;
    int64_t n = tensor_row_elements(spec);
    int32_t of = reading->positive >= 0 ? reading->positive : r->cls;
    double score = json_real_or(r->score, NAN);
    int32_t reads;

    if (!r->score)
        return FAIL(e, INVALID_ARGUMENT,
                    "the answer has no 'score', and no values for output '" STR_F "'",
                    STR_A(spec->name));
    if (!(score >= 0 && score <= 1))
        return FAIL(e, INVALID_ARGUMENT, "score is %g, expected a probability from 0 to 1", score);
    if (of < 0 || n < 2 || (size_t)n != reading->class_count)
        return FAIL(e, INVALID_ARGUMENT,
                    "the score does not tell the %lld values of output '" STR_F
                    "': give them under its name",
                    (long long)n, STR_A(spec->name));
    for (int64_t i = 0; i < n; i++)
        json_push(to, json_new_real(r->a, i == of ? score : (1 - score) / (double)(n - 1)));
    if (n != 2 || reading->positive < 0 || r->cls < 0)
        return 0;
    reads = score >= (reading->threshold == reading->threshold ? reading->threshold : 0.5)
                ? reading->positive
                : 1 - reading->positive;
    if (reads != r->cls)
        return FAIL(e, INVALID_ARGUMENT,
                    "a score of %g reads as '" STR_F "', not as the prediction '" STR_F "'", score,
                    STR_A(reading->classes[reads]), STR_A(reading->classes[r->cls]));
    return 0;
}

static NODISCARD int resolve_output(struct resolver *r, const struct json *wish, int32_t i,
                                    struct json *answer, struct err *e)
{
    const struct tensor_spec *spec = &r->sig->outputs[i];
    const struct plan_reading *reading = &r->sig->reading;
    const struct json *given = json_get(wish, spec->name);
    struct json *to = json_new_array(r->a);

    if (given && given->type == JSON_ARRAY)
        to = json_copy(r->a, given);
    else if (given)
        json_push(to, json_copy(r->a, given));
    else if (i == reading->probabilities)
        TRY(resolve_probabilities(r, spec, to, e));
    else if (i == reading->label && r->prediction)
        TRY(resolve_label(r, spec, to, e));
    else if (i == reading->value && r->prediction)
        json_push(to, json_copy(r->a, r->prediction));
    else
        return FAIL(e, INVALID_ARGUMENT, "the answer has no value for output '" STR_F "'",
                    STR_A(spec->name));
    json_set(answer, spec->name, to);
    return 0;
}

static NODISCARD int check_names(const struct json *wish, const struct plan_signature *sig,
                                 struct err *e)
{
    JSON_EACH (member, wish) {
        bool known = str_eq(member->key, S("prediction")) || str_eq(member->key, S("score"));

        for (uint32_t i = 0; i < sig->output_count; i++)
            known |= str_eq(member->key, sig->outputs[i].name);
        if (!known)
            return FAIL(e, INVALID_ARGUMENT,
                        "'" STR_F "' is no output of the model, expected prediction, score or the "
                        "name of one, such as '" STR_F "'",
                        STR_A(member->key), STR_A(sig->outputs[0].name));
    }
    return 0;
}

int plan_answer_resolve(const struct json *wish, const struct plan_signature *sig, struct arena *a,
                        struct json **ret_answer, struct err *e)
{
    struct resolver r = {.sig = sig, .a = a};
    struct json *answer = json_new_object(a);
    struct tensor *rows;

    TRY(check_names(wish, sig, e));
    r.prediction = json_get(wish, S("prediction"));
    r.score = json_get(wish, S("score"));
    TRY(find_class(&r, e));
    for (uint32_t i = 0; i < sig->output_count; i++)
        TRY(resolve_output(&r, wish, (int32_t)i, answer, e));
    TRY(read_answer(answer, sig, a, &rows, e));
    *ret_answer = answer;
    return 0;
}

/* --- Parts of a plan -------------------------------------------------------------------------- */

static NODISCARD int read_chain(const struct json *list, struct plan_endpoint *ep, struct err *e)
{
    struct plan_fallback *f = &ep->fallback;

    JSON_EACH (item, list) {
        int64_t version = json_int_or(item, 0);
        size_t i = 0;

        while (i < ep->version_count && ep->versions[i].version != version)
            i++;
        if (i == ep->version_count || f->version_count == PLAN_VERSIONS_MAX)
            return FAIL(e, INVALID_ARGUMENT,
                        "fallback: version %lld is not one of the endpoint, or stands twice",
                        (long long)version);
        f->versions[f->version_count++] = (uint32_t)version;
    }
    return 0;
}

int plan_fallback_read(const struct json *part, struct arena *a, struct plan_endpoint *ep,
                       struct err *e)
{
    struct plan_fallback *f = &ep->fallback;

    if (!part || part->type == JSON_NULL)
        return 0;
    f->on = true;
    f->share = json_real_or(json_get(part, S("share")), 0.5);
    f->shed = json_bool_or(json_get(part, S("shed")), false);
    if (!(f->share > 0 && f->share < 1))
        return FAIL(e, OUT_OF_RANGE, "fallback: share is %g, expected more than 0, less than 1",
                    f->share);
    TRY(read_chain(json_get(part, S("versions")), ep, e));
    if (json_get(part, S("answer")) &&
        read_answer(json_get(part, S("answer")), &ep->signature, a, &f->answer, e))
        return err_context(e, "fallback");
    return 0;
}

int plan_idempotency_read(const struct json *part, struct plan_idempotency *ret, struct err *e)
{
    int64_t bytes, entries;

    *ret = (struct plan_idempotency){0};
    if (!part || part->type == JSON_NULL)
        return 0;
    TRY(json_need_int(part, S("window_ns"), &ret->window_ns, e));
    TRY(json_need_int(part, S("bytes_max"), &bytes, e));
    TRY(json_need_int(part, S("entries_max"), &entries, e));
    if (ret->window_ns <= 0 || ret->window_ns > PLAN_TIMEOUT_NS_MAX || bytes <= 0 || entries <= 0 ||
        entries > 1 << 20)
        return FAIL(e, OUT_OF_RANGE,
                    "idempotency: window_ns, bytes_max or entries_max is out of range");
    ret->bytes_max = (uint64_t)bytes;
    ret->entries_max = (uint32_t)entries;
    return 0;
}
