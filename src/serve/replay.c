/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of ids with chains, and a list of those that are answered in the order of their answers.
 * Since all wait equally long, the head of the list is what goes next, by age as by lack of room;
 * ids whose answer is under way are in the table alone and cannot be evicted (there are no more of
 * them than requests). What leaves the table is given back outside the lock, by whoever lets go
 * last: a loop that sends an answer again holds a reference meanwhile.
 */
#include "serve/replay.h"

#include "base/mem.h"
#include "base/random.h"

#include <pthread.h>

#define PLACES_MIN 64
#define EXPIRE_MAX                                                                \
    32 /* that one call takes out: nobody pays for a window that ends all at once \
        */

struct replay_window {
    uint32_t refs; /* atomic */
    pthread_mutex_t lock;
    struct plan_idempotency cfg; /* under the lock, like all that follows */
    uint64_t seed;
    struct replay **places; /* owned */
    uint32_t mask;
    struct replay *oldest, *newest; /* of those done */
    uint64_t entries, bytes;        /* the same */
};

/* --- Life ------------------------------------------------------------------------------------- */

void replay_unref(struct replay *r)
{
    if (__atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    mem_free((char *)r->body.p);
    mem_free(r);
}

struct replay_window *replay_window_new(const struct plan_idempotency *cfg,
                                        struct replay_window *previous)
{
    struct replay_window *w = previous;
    uint32_t places = PLACES_MIN;

    if (w) {
        __atomic_add_fetch(&w->refs, 1, __ATOMIC_RELAXED);
        pthread_mutex_lock(&w->lock);
        w->cfg.window_ns = cfg->window_ns;
        w->cfg.entries_max = cfg->entries_max;
        __atomic_store_n(&w->cfg.bytes_max, cfg->bytes_max, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&w->lock);
        return w;
    }
    w = mem_zalloc(sizeof(*w));
    w->refs = 1;
    pthread_mutex_init(&w->lock, NULL);
    w->cfg = *cfg;
    while (places < cfg->entries_max)
        places *= 2;
    w->mask = places - 1;
    w->places = mem_zalloc(places * sizeof(struct replay *));
    random_bytes(&w->seed, sizeof(w->seed));
    return w;
}

void replay_window_unref(struct replay_window *w)
{
    if (!w || __atomic_sub_fetch(&w->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (uint32_t i = 0; i <= w->mask; i++)
        while (w->places[i]) {
            struct replay *r = w->places[i];

            w->places[i] = r->chain;
            replay_unref(r);
        }
    pthread_mutex_destroy(&w->lock);
    mem_free(w->places);
    mem_free(w);
}

/* --- Under the lock --------------------------------------------------------------------------- */

static size_t cost_of(const struct replay *r)
{
    return sizeof(*r) + r->key_bytes + r->body.n + r->note.n;
}

static void list_out(struct replay_window *w, struct replay *r)
{
    *(r->prev ? &r->prev->next : &w->oldest) = r->next;
    *(r->next ? &r->next->prev : &w->newest) = r->prev;
    w->entries--;
    w->bytes -= cost_of(r);
}

static void list_add(struct replay_window *w, struct replay *r)
{
    r->next = NULL;
    r->prev = w->newest;
    *(r->prev ? &r->prev->next : &w->oldest) = r;
    w->newest = r;
    w->entries++;
    w->bytes += cost_of(r);
}

/* Out of the table, onto a list of what is to be let go. */
static void take_out(struct replay_window *w, struct replay *r, struct replay **out)
{
    struct replay **at;

    ASSERT(r); /* bytes or entries are counted only while one is there */
    at = &w->places[r->hash & w->mask];
    while (*at != r)
        at = &(*at)->chain;
    *at = r->chain;
    r->gone = true;
    if (r->done)
        list_out(w, r);
    r->chain = *out;
    *out = r;
}

static void expire(struct replay_window *w, int64_t now_ns, struct replay **out)
{
    for (int i = 0; i < EXPIRE_MAX && w->oldest; i++) {
        if (now_ns - w->oldest->done_ns < w->cfg.window_ns)
            return;
        take_out(w, w->oldest, out);
    }
}

static struct replay *find(struct replay_window *w, str key, uint64_t hash)
{
    struct replay *r = w->places[hash & w->mask];

    while (r && (r->hash != hash || !str_eq((str){r->key, r->key_bytes}, key)))
        r = r->chain;
    return r;
}

static void let_go(struct replay *out)
{
    while (out) {
        struct replay *r = out;

        out = r->chain;
        replay_unref(r);
    }
}

/* --- Requests --------------------------------------------------------------------------------- */

static struct replay *replay_new(str key, uint64_t hash, const unsigned char *fingerprint)
{
    struct replay *r = mem_try_alloc(sizeof(*r) + key.n);

    if (!r)
        return NULL;
    *r = (struct replay){.refs = 2, .hash = hash, .key_bytes = (uint32_t)key.n};
    memcpy(r->fingerprint, fingerprint, SHA256_BYTES);
    memcpy(r->key, key.p, key.n);
    return r;
}

enum replay_found replay_begin(struct replay_window *w, str key,
                               const unsigned char fingerprint[SHA256_BYTES], int64_t now_ns,
                               struct replay **ret_replay)
{
    uint64_t hash = hash_str(key, w->seed);
    struct replay *fresh = replay_new(key, hash, fingerprint), *out = NULL, *r;
    enum replay_found found = REPLAY_NEW;

    *ret_replay = NULL;
    if (!fresh)
        return REPLAY_NO_MEMORY;
    pthread_mutex_lock(&w->lock);
    expire(w, now_ns, &out);
    r = find(w, key, hash);
    if (r && r->done && now_ns - r->done_ns >= w->cfg.window_ns) {
        take_out(w, r, &out);
        r = NULL;
    }
    if (r && memcmp(r->fingerprint, fingerprint, SHA256_BYTES) != 0) {
        found = REPLAY_CONFLICT;
    } else if (r && !r->done) {
        found = REPLAY_RUNNING;
    } else if (r) {
        found = REPLAY_ANSWER;
        __atomic_add_fetch(&r->refs, 1, __ATOMIC_RELAXED);
        *ret_replay = r;
    } else {
        fresh->chain = w->places[hash & w->mask];
        w->places[hash & w->mask] = fresh;
        *ret_replay = TAKE(fresh);
    }
    pthread_mutex_unlock(&w->lock);
    let_go(out);
    mem_free(fresh);
    return found;
}

void replay_forget(struct replay_window *w, struct replay *r)
{
    struct replay *out = NULL;

    pthread_mutex_lock(&w->lock);
    if (!r->gone)
        take_out(w, r, &out);
    pthread_mutex_unlock(&w->lock);
    let_go(out);
    replay_unref(r);
}

bool replay_keep(struct replay_window *w, struct replay *r, const char *content_type,
                 size_t json_bytes, str note, str body, int64_t now_ns, uint32_t *ret_evicted)
{
    size_t most = __atomic_load_n(&w->cfg.bytes_max, __ATOMIC_RELAXED);
    bool fits = sizeof(*r) + r->key_bytes + note.n + body.n <= most;
    char *copy = fits ? mem_try_alloc(body.n + note.n + 1) : NULL;
    struct replay *out = NULL;

    *ret_evicted = 0;
    if (!copy) {
        replay_forget(w, r);
        return false;
    }
    memcpy(copy, body.p, body.n);
    if (note.n)
        memcpy(copy + body.n, note.p, note.n);
    pthread_mutex_lock(&w->lock);
    r->body = (str){copy, body.n};
    r->note = (str){copy + body.n, note.n};
    r->content_type = content_type;
    r->json_bytes = json_bytes;
    r->done_ns = now_ns;
    r->done = true;
    list_add(w, r);
    expire(w, now_ns, &out);
    for (; w->entries > w->cfg.entries_max || w->bytes > w->cfg.bytes_max; ++*ret_evicted)
        take_out(w, w->oldest, &out);
    pthread_mutex_unlock(&w->lock);
    let_go(out);
    replay_unref(r);
    return true;
}

void replay_window_stats(struct replay_window *w, struct replay_stats *ret)
{
    pthread_mutex_lock(&w->lock);
    *ret = (struct replay_stats){w->entries, w->bytes};
    pthread_mutex_unlock(&w->lock);
}
