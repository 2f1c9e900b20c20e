/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/feedback: what became of a prediction, joined by request id, any time later.
 *
 *   {"request_id":"…","label":1}    {"request_id":"…","rating":4,"comment":"…"}
 *   {"request_id":"…","outcome":"conversion","value":19.9,"event_time":"2026-11-23T20:00:00Z"}
 *   {"feedback":[{…},{…}]}          a list is taken whole or not at all
 *
 * The answer says that it was taken over for recording, not that the prediction was found: labels
 * may come before their prediction is on disk, or months after. What finds no prediction is counted
 * (late).
 */
#include "serve/priv.h"

#include "base/hash.h"
#include "base/time.h"

#define FEEDBACK_LIST_MAX 10000

static const struct {
    str name;
    enum record_outcome outcome;
} outcomes[] = {
#define RECORD_OUTCOME(name, text, help) {S_INIT(text), RECORD_OUTCOME_##name},
#include "record/outcomes.def"
#undef RECORD_OUTCOME
};

#define IS(type) (1u << JSON_##type)

/* The fields, and what each may be; null stands for absent. */
static const struct {
    str name;
    unsigned types;
    const char *expected;
} fields[] = {
    {S_INIT("request_id"), IS(STR), "a text"},
    {S_INIT("label"), IS(STR) | IS(INT) | IS(REAL) | IS(BOOL), "a number, a text or true/false"},
    {S_INIT("rating"), IS(INT), "a whole number from 1 to 5"},
    {S_INIT("comment"), IS(STR), "a text"},
    {S_INIT("outcome"), IS(STR), "a text"},
    {S_INIT("value"), IS(INT) | IS(REAL), "a number"},
    {S_INIT("event_time"), IS(STR), "a text"},
    {S_INIT("item"), IS(STR), "a text"},
    {S_INIT("user_id"), IS(STR), "a text"},
    {S_INIT("row"), IS(INT), "a whole number"},
    {S_INIT("error"), IS(BOOL), "true or false"},
    {S_INIT("metadata"), IS(OBJECT), "an object"},
};

static NODISCARD int unknown_field(str name, struct err *e)
{
    str known[ARRAY_LEN(fields)], near;

    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        known[i] = fields[i].name;
    near = str_suggest(name, known, ARRAY_LEN(known));
    return FAIL(e, INVALID_ARGUMENT, "unknown field '" STR_F "'%s" STR_F "%s",
                STR_A(str_take(name, 64)), near.n ? ", did you mean '" : "", STR_A(near),
                near.n ? "'?" : "");
}

static NODISCARD int check_fields(const struct json *item, struct err *e)
{
    if (item->type != JSON_OBJECT)
        return FAIL(e, INVALID_ARGUMENT, "expected an object, got %s", json_type_name(item->type));
    JSON_EACH (field, item) {
        size_t i = 0;

        while (i < ARRAY_LEN(fields) && !str_eq(fields[i].name, field->key))
            i++;
        if (i == ARRAY_LEN(fields))
            return unknown_field(field->key, e);
        if (field->type != JSON_NULL && !(fields[i].types & 1u << field->type))
            return FAIL(e, INVALID_ARGUMENT, STR_F ": expected %s, got %s", STR_A(field->key),
                        fields[i].expected, json_type_name(field->type));
    }
    return 0;
}

/* A member that is there and not null. */
static const struct json *member(const struct json *item, str key)
{
    const struct json *field = json_get(item, key);

    return field && field->type != JSON_NULL ? field : NULL;
}

static NODISCARD int read_label(const struct json *label, struct record_feedback_in *f,
                                struct err *e)
{
    if (!label)
        return 0;
    switch (label->type) {
    case JSON_STR:
        f->label_text = label->string;
        if (!label->string.n || label->string.n > RECORD_LABEL_MAX)
            return FAIL(e, INVALID_ARGUMENT, "label: a text of 1 to %u bytes", RECORD_LABEL_MAX);
        return 0;
    case JSON_INT:
    case JSON_REAL:
        f->label = json_real_or(label, 0);
        f->has |= RECORD_HAS_LABEL_NUMBER;
        return 0;
    default: /* true or false */
        f->label = label->boolean;
        f->has |= RECORD_HAS_LABEL_NUMBER;
        return 0;
    }
}

static NODISCARD int read_rating(const struct json *rating, struct record_feedback_in *f,
                                 struct err *e)
{
    int64_t stars = json_int_or(rating, 0);

    if (!rating)
        return 0;
    if (stars < 1 || stars > 5)
        return FAIL(e, INVALID_ARGUMENT, "rating: expected a whole number from 1 to 5");
    f->rating = (int8_t)stars;
    f->has |= RECORD_HAS_RATING;
    return 0;
}

static NODISCARD int read_outcome(const struct json *item, struct record_feedback_in *f,
                                  struct err *e)
{
    const struct json *outcome = member(item, S("outcome")), *value = member(item, S("value"));
    size_t i = 0;

    if (value) {
        f->value = json_real_or(value, 0);
        f->has |= RECORD_HAS_VALUE;
    }
    if (!outcome)
        return 0;
    while (i < ARRAY_LEN(outcomes) && !str_eq(outcomes[i].name, json_str_or(outcome, STR_NULL)))
        i++;
    if (i == ARRAY_LEN(outcomes))
        return FAIL(e, INVALID_ARGUMENT,
                    "outcome: expected click, conversion, completion, abandonment or "
                    "impression");
    f->outcome = outcomes[i].outcome;
    return 0;
}

static NODISCARD int read_item(struct serve_loop *l, const struct json *item,
                               struct record_feedback_in *f, unsigned char user[RECORD_USER_BYTES],
                               struct err *e)
{
    str event = json_str_or(json_get(item, S("event_time")), STR_NULL), user_id;
    int64_t row = json_int_or(json_get(item, S("row")), 0);

    *f = (struct record_feedback_in){.wall_ns = l->wall_ns};
    TRY(check_fields(item, e));
    TRY(json_need_str(item, S("request_id"), &f->request_id, e));
    if (!f->request_id.n || f->request_id.n > REQUEST_ID_MAX)
        return FAIL(e, INVALID_ARGUMENT, "request_id: a text of 1 to %u bytes", REQUEST_ID_MAX);
    TRY(read_label(member(item, S("label")), f, e));
    TRY(read_rating(member(item, S("rating")), f, e));
    TRY(read_outcome(item, f, e));
    if (event.p && !time_parse_iso(event, &f->event_ns))
        return FAIL(e, INVALID_ARGUMENT,
                    "event_time: expected RFC 3339, e.g. 2026-11-23T20:00:00Z");
    if (row < 0 || row > UINT16_MAX)
        return FAIL(e, INVALID_ARGUMENT, "row: expected 0 to %u", UINT16_MAX);
    f->row = (uint32_t)row;
    if (json_bool_or(json_get(item, S("error")), false))
        f->has |= RECORD_HAS_ERROR;
    f->comment = json_str_or(json_get(item, S("comment")), STR_NULL);
    f->item = json_str_or(json_get(item, S("item")), STR_NULL);
    user_id = json_str_or(json_get(item, S("user_id")), STR_NULL);
    if (user_id.n) {
        unsigned char digest[SHA256_BYTES];

        hmac_sha256(gateway_config(l->gw)->pseudonym_key, user_id, digest);
        memcpy(user, digest, RECORD_USER_BYTES);
        f->user = user;
    }
    if (!f->has && !f->label_text.p && !f->comment.p && f->outcome == RECORD_OUTCOME_NONE)
        return FAIL(e, INVALID_ARGUMENT,
                    "a feedback needs a label, rating, comment, outcome or error");
    return 0;
}

/* Checks all, then records all: a refused list leaves nothing behind. */
static NODISCARD int take(struct serve_loop *l, const struct json *root, uint32_t *ret_n,
                          struct err *e)
{
    const struct json *list = json_get(root, S("feedback"));
    uint32_t n =
        list && list->type == JSON_ARRAY ? (uint32_t)MIN(list->count, (size_t)UINT32_MAX) : 1;
    struct record_feedback_in *all;
    unsigned char(*users)[RECORD_USER_BYTES];
    uint32_t i = 0, taken = 0;

    if (n < 1 || n > FEEDBACK_LIST_MAX)
        return FAIL(e, INVALID_ARGUMENT, "feedback: a list of 1 to %d, got %u", FEEDBACK_LIST_MAX,
                    n);
    if (list && list->type == JSON_ARRAY && root->count > 1)
        return FAIL(e, INVALID_ARGUMENT, "beside \"feedback\" no other field may stand");
    all = ARENA_ARRAY(&l->turn, struct record_feedback_in, n);
    users = arena_alloc(&l->turn, n * sizeof(*users));
    if (!list || list->type != JSON_ARRAY) {
        TRY(read_item(l, root, &all[0], users[0], e));
    } else {
        JSON_EACH (item, list) {
            if (read_item(l, item, &all[i], users[i], e))
                return err_context(e, "feedback[%u]", i);
            i++;
        }
    }
    for (i = 0; i < n; i++)
        taken += record_put_feedback(l->ring, &all[i]) != 0;
    *ret_n = taken;
    return taken == n ? 0
                      : FAIL(e, UNAVAILABLE,
                             "%u of %u feedbacks were taken, the record ring is full: "
                             "send the last %u again",
                             taken, n, n - taken);
}

void feedback_post(struct conn *c, const struct route_match *m, str body)
{
    ROLE_ASSERT(on_loop);
    struct serve_loop *l = c->l;
    struct json *root;
    struct json_out o;
    struct err e;
    uint32_t n = 0;
    int rc;

    (void)m;
    if (!l->ring)
        rc = FAIL(&e, FAILED_PRECONDITION,
                  "records are switched off: there is nothing to give feedback "
                  "on");
    else if (!(rc = json_parse(body, &l->document, &root, &e)))
        rc = take(l, root, &n, &e);
    arena_reset(&l->document);
    counter_add(&l->counters.feedback_accepted, n);
    if (rc) {
        counter_add(&l->counters.feedback_refused, 1);
        conn_answer_error(c, &e);
        return;
    }
    answer_object(c, &o);
    jo_kint(&o, S("accepted"), n);
    answer_object_end(c, &o, 202, "application/json");
}
