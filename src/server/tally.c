/* SPDX-License-Identifier: Apache-2.0 */
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
