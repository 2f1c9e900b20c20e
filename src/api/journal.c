/* SPDX-License-Identifier: Apache-2.0 */
/* The journal: facts, their proof, and the one fact that a client may write. */
#include "api/priv.h"

static void write_hash(struct json_out *out, str key, const unsigned char bytes[SHA256_BYTES])
{
    char text[SHA256_HEX_SIZE];

    hex_encode(bytes, SHA256_BYTES, text);
    jo_kstr(out, key, str_of(text));
}

int api_journal_list(struct api *api, struct api_request *rq, struct err *e)
{
    struct journal_query q = {0};
    struct fact *facts;
    int64_t limit;
    size_t n;
    str newest;

    TRY(api_query(rq, S("type"), &q.type_prefix, e));
    TRY(api_query(rq, S("subject"), &q.subject, e));
    TRY(api_query(rq, S("correlation"), &q.correlation, e));
    TRY(api_query(rq, S("newest"), &newest, e));
    TRY(api_query_int(rq, S("after"), 0, INT64_MAX, 0, &q.after_seq, e));
    TRY(api_query_int(rq, S("before"), 0, INT64_MAX, 0, &q.before_seq, e));
    TRY(api_query_int(rq, S("limit"), 1, 10000, 100, &limit, e));
    q.limit = (uint32_t)limit;
    q.newest_first = str_eq(newest, S("1")) || str_eq(newest, S("true"));
    TRY(journal_read(api->ctx.meta, &q, rq->a, &facts, &n, e));
    jo_object(rq->out);
    jo_key(rq->out, S("facts"));
    jo_array(rq->out);
    for (size_t i = 0; i < n; i++)
        journal_fact_json(rq->out, &facts[i]);
    jo_array_end(rq->out);
    jo_object_end(rq->out);
    return 0;
}

int api_journal_verify_get(struct api *api, struct api_request *rq, struct err *e)
{
    struct journal_head head;
    int64_t bad = 0;
    struct err why;
    int rc = journal_verify(api->ctx.meta, NULL, &head, &bad, &why);

    if (rc && rc != CODE_DATA_LOSS) {
        *e = why;
        return rc;
    }
    jo_object(rq->out);
    jo_kbool(rq->out, S("ok"), rc == 0);
    if (rc) {
        jo_kint(rq->out, S("bad_seq"), bad);
        jo_kstr(rq->out, S("message"), str_of(why.msg));
    } else {
        jo_kint(rq->out, S("size"), head.size);
        write_hash(rq->out, S("root"), head.root);
    }
    jo_object_end(rq->out);
    return 0;
}

int api_journal_proof_get(struct api *api, struct api_request *rq, struct err *e)
{
    AUTO(buf_done) struct buf line = {0};
    struct journal_proof proof;
    struct journal_head head;
    struct fact *facts;
    int64_t seq;
    size_t n;

    TRY(api_query_int(rq, S("seq"), 1, INT64_MAX, 0, &seq, e));
    if (!seq)
        return FAIL(e, INVALID_ARGUMENT, "seq is missing: the number of the fact");
    TRY(journal_head(api->ctx.meta, -1, &head, e));
    TRY(journal_prove_inclusion(api->ctx.meta, seq, head.size, &proof, e));
    TRY(journal_read(api->ctx.meta, &(struct journal_query){.after_seq = seq - 1, .limit = 1},
                     rq->a, &facts, &n, e));
    if (n != 1)
        return FAIL(e, NOT_FOUND, "there is no fact %lld", (long long)seq);
    buf_init(&line, JOURNAL_DATA_MAX * 4);
    journal_fact_line(&line, &facts[0]);
    jo_object(rq->out);
    jo_kint(rq->out, S("seq"), seq);
    jo_kint(rq->out, S("size"), head.size);
    write_hash(rq->out, S("root"), head.root);
    write_hash(rq->out, S("leaf"), facts[0].leaf);
    jo_kstr(rq->out, S("line"), buf_str(&line));
    jo_key(rq->out, S("path"));
    jo_array(rq->out);
    for (size_t i = 0; i < proof.n; i++) {
        char text[SHA256_HEX_SIZE];

        hex_encode(proof.path[i], SHA256_BYTES, text);
        jo_str(rq->out, str_of(text));
    }
    jo_array_end(rq->out);
    jo_object_end(rq->out);
    return 0;
}

int api_fact_post(struct api *api, struct api_request *rq, struct err *e)
{
    struct fact_new fact = {.type = FACT_LOAD_INJECTED, .actor = rq->actor};
    struct fact_ref ref;
    struct json *data = NULL;
    str type;

    TRY(json_need_str(rq->body, S("type"), &type, e));
    if (!str_eqz(type, fact_type_name(FACT_LOAD_INJECTED)))
        return FAIL(e, PERMISSION_DENIED, "only load.injected may be written, not '" STR_F "'",
                    STR_A(str_take(type, 60)));
    TRY(api_body_str(rq, S("subject"), &fact.subject, e));
    TRY(api_body_str(rq, S("reason"), &fact.reason, e));
    TRY(api_body_str(rq, S("correlation"), &fact.correlation, e));
    if (json_get(rq->body, S("data")))
        TRY(json_need_object(rq->body, S("data"), &data, e));
    fact.data = data;
    TRY(journal_append(api->ctx.meta, &fact, &ref, e));
    jo_object(rq->out);
    jo_kint(rq->out, S("seq"), ref.seq);
    jo_kstr(rq->out, S("id"), str_of(ref.id));
    jo_kint(rq->out, S("at_ns"), ref.at_ns);
    jo_object_end(rq->out);
    return 0;
}

int api_timeline_get(struct api *api, struct api_request *rq, struct err *e)
{
    struct json *tree, *found;
    str endpoint, correlation;
    int64_t after, limit;

    TRY(api_query(rq, S("endpoint"), &endpoint, e));
    TRY(api_query(rq, S("correlation"), &correlation, e));
    TRY(api_query_int(rq, S("after"), 0, INT64_MAX, 0, &after, e));
    TRY(api_query_int(rq, S("limit"), 1, 100, 10, &limit, e));
    if (endpoint.n)
        TRY(api_endpoint(api, rq, endpoint, &tree, &found, e));
    return api_stories_write(api->ctx.meta, endpoint, correlation, after, (uint32_t)limit, rq->a,
                             rq->out, e);
}
