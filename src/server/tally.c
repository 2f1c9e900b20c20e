/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tally: labels by endpoint, and whether it drifts. Written by the control thread at each
 * digest, read by flow workers under the lock. The total of an endpoint is durable, so that "labels
 * since" can be a difference of totals that outlives restarts; the seconds are for causes that
 * began a moment before anybody noticed.
 */
#include "base/mem.h"
#include "base/time.h"
#include "server/control.h"

void tally_init(struct tally *t)
{
    pthread_mutex_init(&t->lock, NULL);
}

void tally_done(struct tally *t)
{
    for (size_t i = 0; i < t->n; i++) {
        mem_free((char *)t->list[i]->endpoint.p);
        mem_free(t->list[i]);
    }
    pthread_mutex_destroy(&t->lock);
}

static struct tally_endpoint *find(struct tally *t, str endpoint)
{
    for (size_t i = 0; i < t->n; i++)
        if (str_eq(t->list[i]->endpoint, endpoint))
            return t->list[i];
    return NULL;
}

static struct tally_endpoint *find_or_make(struct tally *t, str endpoint)
{
    struct tally_endpoint *te = find(t, endpoint);

    if (te || t->n == TALLY_ENDPOINTS)
        return te;
    te = mem_zalloc(sizeof(*te));
    te->endpoint = (str){mem_dupz(endpoint.p, endpoint.n), endpoint.n};
    te->drifting = -1;
    return t->list[t->n++] = te;
}

void tally_labels(struct tally *t, str endpoint, int64_t wall_ns, int64_t n)
{
    int64_t second = wall_ns / NS_PER_S;
    struct tally_endpoint *te;
    uint32_t last;

    if (n <= 0)
        return;
    pthread_mutex_lock(&t->lock);
    te = find_or_make(t, endpoint);
    if (te) {
        te->total += n;
        last = (te->at + TALLY_SECONDS - 1) % TALLY_SECONDS;
        if (te->second[last] != second) {
            last = te->at;
            te->at = (te->at + 1) % TALLY_SECONDS;
            te->second[last] = second;
            te->labels[last] = 0;
        }
        te->labels[last] += n;
    }
    pthread_mutex_unlock(&t->lock);
}

void tally_drifting(struct tally *t, str endpoint, int drifting)
{
    struct tally_endpoint *te;

    pthread_mutex_lock(&t->lock);
    te = find_or_make(t, endpoint);
    if (te)
        te->drifting = drifting;
    pthread_mutex_unlock(&t->lock);
}

int64_t tally_labels_since(struct tally *t, str endpoint, int64_t wall_ns)
{
    const struct tally_endpoint *te;
    int64_t sum = 0;

    pthread_mutex_lock(&t->lock);
    te = find(t, endpoint);
    for (size_t i = 0; te && i < TALLY_SECONDS; i++)
        if (te->second[i] * NS_PER_S >= wall_ns)
            sum += te->labels[i];
    pthread_mutex_unlock(&t->lock);
    return sum;
}

int tally_is_drifting(struct tally *t, str endpoint)
{
    const struct tally_endpoint *te;
    int drifting;

    pthread_mutex_lock(&t->lock);
    te = find(t, endpoint);
    drifting = te ? te->drifting : -1;
    pthread_mutex_unlock(&t->lock);
    return drifting;
}

int64_t tally_labels_total(struct tally *t, str endpoint)
{
    const struct tally_endpoint *te;
    int64_t total;

    pthread_mutex_lock(&t->lock);
    te = find(t, endpoint);
    total = te ? te->total : 0;
    pthread_mutex_unlock(&t->lock);
    return total;
}

int tally_load(struct tally *t, struct meta *m, struct err *e)
{
    AUTO(meta_rows_closep) struct meta_rows *rows = NULL;
    AUTO(arena_done) struct arena a = {0};
    int rc;

    arena_init(&a, 0);
    TRY(meta_query(m, "SELECT name, value FROM kv WHERE scope = ?", M_ARGS(M_STR(S("labels"))),
                   &rows, e));
    while (meta_next(rows, &rc, e)) {
        struct tally_endpoint *te = find_or_make(t, meta_str(rows, 0));
        struct json *value;

        TRY(json_parse(meta_str_dup(rows, 1, &a), &a, &value, e));
        if (te)
            te->total = te->saved = json_int_or(json_get(value, S("total")), 0);
    }
    return rc;
}

/* Only the control thread changes the totals, so it may read them without the lock. */
int tally_save(struct tally *t, struct meta *m, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    for (size_t i = 0; i < t->n; i++) {
        struct tally_endpoint *te = t->list[i];
        struct json *value;

        te->saving = te->total;
        if (te->total == te->saved)
            continue;
        value = json_new_object(&a);
        json_set_int(&a, value, S("total"), te->total);
        TRY(meta_kv_put(m, S("labels"), te->endpoint, value, e));
    }
    return 0;
}

void tally_saved(struct tally *t)
{
    for (size_t i = 0; i < t->n; i++)
        t->list[i]->saved = t->list[i]->saving;
}
