/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One fetch at a time is enough: an issuer is asked every few minutes, and there are at most
 * sixteen. A slot remembers when its issuer is due; a failed fetch is due again soon, so that a new
 * issuer, or one that comes back, is known within seconds.
 *
 * The project may change while a fetch is under way: its result counts only if the issuer still has
 * the URL that was asked.
 */
#include "server/issuers.h"

#include "access/access.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "loop/fetch.h"

#define RETRY_NS (10 * NS_PER_S)
#define TIMEOUT_NS (5 * NS_PER_S)
#define SET_BYTES_MAX ((size_t)256 << 10)

struct fetch_job {
    struct job job;
    struct arena arena;
    str name;
    const char *url;
    str body; /* p == NULL: failed */
    struct err e;
};

struct issuers {
    struct mailbox results;
    struct meta *meta;
    struct pool *worker;
    struct json *const *project; /* borrowed */
    struct slot {
        char url[2049];
        int64_t due_ns; /* monotonic */
        bool busy;
    } slots[PLAN_ISSUERS_MAX];
    size_t slot_count;
};

static str text_of(const struct json *o, const char *key)
{
    return json_str_or(json_get(o, str_of(key)), S(""));
}

static struct slot *slot_of(struct issuers *is, str url)
{
    struct slot *s;

    for (size_t i = 0; i < is->slot_count; i++)
        if (str_eqz(url, is->slots[i].url))
            return &is->slots[i];
    if (is->slot_count == PLAN_ISSUERS_MAX) { /* of issuers that are gone, or were others */
        for (s = is->slots; s->busy && s < is->slots + PLAN_ISSUERS_MAX - 1; s++)
            continue;
        if (s->busy)
            return NULL;
    } else {
        s = &is->slots[is->slot_count++];
    }
    *s = (struct slot){0};
    return str_to_z(url, s->url, sizeof(s->url)) ? s : NULL;
}

/* On the worker. */
static void run(struct job *j)
{
    struct fetch_job *job = CONTAINER_OF(j, struct fetch_job, job);
    struct fetch_request req = {job->url, TIMEOUT_NS, SET_BYTES_MAX};

    if (fetch(&req, &job->arena, &job->body, &job->e))
        job->body = STR_NULL;
    else if (!job->body.p)
        job->body = S("");
}

static void take_result(struct issuers *is, const struct fetch_job *job)
{
    const struct json *issuer = json_get(json_path(*is->project, "auth.issuers"), job->name);
    struct slot *s = slot_of(is, str_of(job->url));
    int64_t refresh_ns = json_int_or(json_get(issuer, S("refresh_ns")), RETRY_NS);
    struct err e;

    if (s) {
        s->busy = false;
        s->due_ns = time_mono_ns() + (job->body.p ? refresh_ns : MIN(refresh_ns, RETRY_NS));
    }
    if (!issuer || !str_eqz(text_of(issuer, "jwks_url"), job->url))
        return;
    if (access_jwks_fetched(is->meta, issuer, job->body, job->body.p ? S("") : str_of(job->e.msg),
                            time_wall_ns(), &e))
        log_err("jwks.not_kept", &e);
}

static void on_result(struct loop *loop, struct mailbox *mb, struct mail *m)
{
    struct issuers *is = CONTAINER_OF(mb, struct issuers, results);
    struct fetch_job *job = CONTAINER_OF(CONTAINER_OF(m, struct job, mail), struct fetch_job, job);

    (void)loop;
    if (!job->job.cancelled)
        take_result(is, job);
    arena_done(&job->arena);
    mem_free(job);
}

static void start(struct issuers *is, const struct json *issuer, struct slot *s)
{
    struct fetch_job *job = mem_zalloc(sizeof(*job));
    struct err e;

    arena_init(&job->arena, 0);
    job->name = arena_dup(&job->arena, issuer->key);
    job->url = arena_dupz(&job->arena, text_of(issuer, "jwks_url"));
    job->job.run = run;
    job->job.reply_to = &is->results;
    s->busy = !pool_submit(is->worker, &job->job, &e);
    if (s->busy)
        return;
    log_err("jwks.not_fetched", &e);
    arena_done(&job->arena);
    mem_free(job);
}

void issuers_tick(struct issuers *is, int64_t mono_ns)
{
    const struct json *issuers = json_path(*is->project, "auth.issuers");

    if (!json_is_container(issuers))
        return;
    JSON_EACH (issuer, issuers) {
        str url = text_of(issuer, "jwks_url");
        struct slot *s = url.n ? slot_of(is, url) : NULL;

        if (s && !s->busy && mono_ns >= s->due_ns)
            start(is, issuer, s);
    }
}

int issuers_new(struct loop *loop, struct meta *m, struct json *const *project,
                struct issuers **ret_issuers, struct err *e)
{
    AUTO(issuers_freep) struct issuers *is = mem_zalloc_aligned(64, sizeof(*is));

    is->meta = m;
    is->project = project;
    mailbox_open(&is->results, loop, on_result);
    TRY(pool_new("weir-jwks", 1, PLAN_ISSUERS_MAX, &is->worker, e));
    *ret_issuers = TAKE(is);
    return 0;
}

void issuers_free(struct issuers *is)
{
    if (!is)
        return;
    pool_free(is->worker);
    mailbox_close(&is->results); /* delivers what the worker has left */
    mem_free(is);
}
