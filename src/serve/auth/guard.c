/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision about one request, and the thread that keeps quota counters on disk.
 *
 * Default deny: what is not PUBLIC needs a credential with a role that has the permission of the
 * route; a gateway without a plan allows nothing else. Where the project asks nobody who he is,
 * everybody is AUTH_ROLE_ANONYMOUS, and a credential that is sent all the same is not looked at.
 *
 * Limits go from narrow to wide, so that who is over his own limit takes nothing from others. What
 * was taken is noted and given back when a wider limit refuses; for the instant between, another
 * request may be refused that would have passed, never the reverse.
 */
#include "serve/auth/priv.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "loop/thread.h"

#include <stdio.h>

#define SAVE_NS NS_PER_S

struct guard {
    struct limits *limits;
    struct crowd crowd;
    struct arena arena;
    const char *state_dir, *quota_dir, *quota_path;
    struct loop *loop; /* of the quota thread */
    struct loop_timer save;
    struct thread thread;
    uint64_t quotas_saved;  /* of the sum of quotas_taken */
    uint64_t save_failures; /* atomic */
    uint32_t loop_count;
    struct guard_loop **loops; /* owned */
};

static const struct {
    enum code code;
    const char *label, *text;
} verdicts[VERDICT_COUNT] = {
#define VERDICT(name, code, label, text) {CODE_##code, label, text},
#include "serve/auth/verdicts.def"
#undef VERDICT
};

struct limits *guard_limits(struct guard *g)
{
    return g->limits;
}

const char *guard_state_dir(const struct guard *g)
{
    return g->state_dir;
}

struct guard_loop *guard_loop_of(struct guard *g, uint32_t loop)
{
    return g->loops[loop];
}

uint64_t guard_peer_id(const struct guard *g, const struct addr *peer)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    const unsigned char *in6 = peer->in6.sin6_addr.s6_addr;

    if (peer->any.sa_family == AF_INET)
        return crowd_id(&g->crowd, &peer->in4.sin_addr, 4, 4);
    if (peer->any.sa_family != AF_INET6)
        return 0;
    if (memcmp(in6, mapped, sizeof(mapped)) == 0)
        return crowd_id(&g->crowd, in6 + 12, 4, 4);
    return crowd_id(&g->crowd, in6, 8, 6);
}

bool guard_is_local(const struct addr *listen)
{
    if (listen->any.sa_family == AF_INET)
        return ntohl(listen->in4.sin_addr.s_addr) >> 24 == 127;
    return listen->any.sa_family != AF_INET6 || IN6_IS_ADDR_LOOPBACK(&listen->in6.sin6_addr);
}

/* --- Who asks --------------------------------------------------------------------------------- */

/* The credential of a request: *ret_key or *ret_token. False: there are two, or one of another
 * scheme. */
static bool credential_of(const struct http1_fields *f, str *ret_key, str *ret_token)
{
    str authorization = http1_known(f, HTTP1_F_AUTHORIZATION);

    *ret_key = http1_known(f, HTTP1_F_X_API_KEY);
    if (!authorization.p)
        return true;
    if (ret_key->p || !str_eq_nocase(str_take(authorization, 7), S("Bearer ")))
        return false;
    authorization = str_trim(str_skip(authorization, 7));
    *(key_text_is_one(authorization) ? ret_key : ret_token) = authorization;
    return true;
}

static enum verdict identify(struct guard_loop *gl, const struct guard_ask *ask,
                             struct principal *ret)
{
    str key = STR_NULL, token = STR_NULL;
    bool ok = credential_of(ask->fields, &key, &token);

    if (ok && !key.p && !token.p)
        return VERDICT_NO_CREDENTIAL;
    ok = ok && (key.p ? key_principal(ask->auth, key, ask->wall_ns, ret)
                      : token_principal(&gl->tokens, ask->auth, &gl->guard->crowd, token,
                                        ask->now_ns, ask->wall_ns, ret));
    return ok ? VERDICT_ALLOWED : VERDICT_BAD_CREDENTIAL;
}

static bool is_for_endpoint(const struct principal *who, str endpoint)
{
    if (!who->endpoint_count || !endpoint.n)
        return true;
    for (size_t i = 0; i < who->endpoint_count; i++)
        if (str_eq(who->endpoints[i], endpoint))
            return true;
    return false;
}

/* --- How much --------------------------------------------------------------------------------- */

/* Limits that let the request pass so far, to be given back. */
struct taken {
    struct {
        uint64_t *tat;
        const struct gcra *rate;
    } at[4];
    size_t n;
    int64_t wait_ns; /* of the one that refused */
    const struct gcra *refused;
};

static bool take(struct taken *t, uint64_t *tat, const struct gcra *rate, int64_t now_ns)
{
    if (!tat || !rate || !rate->interval_ns)
        return true;
    if (!gcra_take(tat, rate, now_ns, &t->wait_ns)) {
        t->refused = rate;
        return false;
    }
    t->at[t->n].tat = tat;
    t->at[t->n++].rate = rate;
    return true;
}

static void look_at_calendar(struct guard_loop *gl, int64_t wall_ns)
{
    int64_t began_ns = gl->time.day_ends_ns - 86400 * NS_PER_S;

    if (wall_ns >= gl->time.day_ends_ns || wall_ns < began_ns)
        quota_time_of(wall_ns, &gl->time);
}

static enum verdict take_quotas(struct guard_loop *gl, const struct principal *who, int64_t wall_ns,
                                struct taken *t)
{
    struct bucket *b = who->quota;

    if (!b)
        return VERDICT_ALLOWED;
    look_at_calendar(gl, wall_ns);
    if (who->per_day && !quota_take(&b->day, gl->time.day, (uint64_t)who->per_day)) {
        t->wait_ns = gl->time.day_ends_ns - wall_ns;
        return VERDICT_QUOTA_DAY;
    }
    if (who->per_month && !quota_take(&b->month, gl->time.month, (uint64_t)who->per_month)) {
        if (who->per_day)
            quota_give_back(&b->day, gl->time.day);
        t->wait_ns = gl->time.month_ends_ns - wall_ns;
        return VERDICT_QUOTA_MONTH;
    }
    __atomic_store_n(&gl->quotas_taken, gl->quotas_taken + 1, __ATOMIC_RELAXED);
    return VERDICT_ALLOWED;
}

static enum verdict take_all(struct guard_loop *gl, const struct guard_ask *ask,
                             const struct principal *who, struct taken *t)
{
    const struct auth *a = ask->auth;
    enum verdict v = VERDICT_ALLOWED;

    if (!take(t, who->tat, who->rate, ask->now_ns))
        v = VERDICT_LIMIT_KEY;
    else if (!take(t, who->tenant_tat, &a->tenant, ask->now_ns))
        v = VERDICT_LIMIT_TENANT;
    else if (!take(t, ask->bucket ? &ask->bucket->tat_ns : NULL, ask->rate, ask->now_ns))
        v = VERDICT_LIMIT_ENDPOINT;
    else if (!take(t, &a->global_bucket->tat_ns, &a->global, ask->now_ns))
        v = VERDICT_LIMIT_GLOBAL;
    else
        v = take_quotas(gl, who, ask->wall_ns, t);
    while (v != VERDICT_ALLOWED && t->n) {
        t->n--;
        gcra_give_back(t->at[t->n].tat, t->at[t->n].rate);
    }
    return v;
}

/* --- The decision ----------------------------------------------------------------------------- */

static enum verdict decide(struct guard_loop *gl, const struct guard_ask *ask,
                           struct principal *who, struct taken *t)
{
    const struct auth *a = ask->auth;
    enum verdict v;

    if (ask->permission == PERMISSION_PUBLIC)
        return VERDICT_ALLOWED;
    if (!a)
        return VERDICT_NO_PLAN;
    if (a->address.interval_ns && ask->peer) {
        uint64_t *tat = crowd_tat(&gl->guard->crowd, ask->peer, ask->now_ns);

        if (!take(t, tat, &a->address, ask->now_ns))
            return VERDICT_LIMIT_ADDRESS;
        t->n = 0; /* is not given back: knocking counts */
    }
    if (a->plan.mode != PLAN_AUTH_REQUIRED)
        *who = (struct principal){.permissions = auth_role_permissions(AUTH_ROLE_ANONYMOUS)};
    else if ((v = identify(gl, ask, who)) != VERDICT_ALLOWED)
        return v;
    if (!(who->permissions & 1u << ask->permission))
        return VERDICT_NO_PERMISSION;
    if (!is_for_endpoint(who, ask->endpoint))
        return VERDICT_OTHER_ENDPOINT;
    return take_all(gl, ask, who, t);
}

/* The header lines of a refusal. Retry-After is rounded up: one who waits that long is let in. */
static str headers_of(struct guard_loop *gl, enum verdict v, const struct taken *t)
{
    long long seconds = (long long)((t->wait_ns + NS_PER_S - 1) / NS_PER_S);
    int n = 0;

    switch (code_http_status(verdicts[v].code)) {
    case 401:
        n = snprintf(gl->headers, sizeof(gl->headers),
                     "WWW-Authenticate: Bearer realm=\"weir\"%s\r\n",
                     v == VERDICT_BAD_CREDENTIAL ? ", error=\"invalid_token\"" : "");
        break;
    case 403:
        n = snprintf(gl->headers, sizeof(gl->headers),
                     "WWW-Authenticate: Bearer realm=\"weir\", error=\"insufficient_scope\"\r\n");
        break;
    case 429:
        n = snprintf(gl->headers, sizeof(gl->headers),
                     "Retry-After: %lld\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: %lld\r\n",
                     seconds, seconds);
        if (t->refused)
            n += snprintf(gl->headers + n, sizeof(gl->headers) - (size_t)n,
                          "RateLimit-Limit: %u\r\n", t->refused->requests);
        break;
    default:
        break;
    }
    return (str){gl->headers, (size_t)n};
}

bool guard_admit(struct guard_loop *gl, const struct guard_ask *ask, struct guard_verdict *ret)
{
    struct principal who = {0};
    struct taken t = {0};
    enum verdict v = decide(gl, ask, &who, &t);

    __atomic_store_n(&gl->verdicts[v], gl->verdicts[v] + 1, __ATOMIC_RELAXED);
    ret->verdict = v;
    ret->tenant = who.tenant;
    ret->caller = who.name;
    ret->permissions = who.permissions;
    ret->who = who.who;
    if (LIKELY(v == VERDICT_ALLOWED))
        return true;
    ret->code = verdicts[v].code;
    ret->status = code_http_status(ret->code);
    ret->message = str_of(verdicts[v].text);
    ret->headers = headers_of(gl, v, &t);
    return false;
}

/* --- Quota counters on disk ------------------------------------------------------------------- */

static uint64_t sum(const struct guard *g, size_t at)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < g->loop_count; i++)
        total += __atomic_load_n((uint64_t *)(void *)((char *)g->loops[i] + at), __ATOMIC_RELAXED);
    return total;
}

static void save(struct guard *g)
{
    uint64_t taken = sum(g, offsetof(struct guard_loop, quotas_taken));
    struct err e;

    if (taken == g->quotas_saved)
        return;
    if (file_make_dirs(g->quota_dir, &e) || quota_save(g->quota_path, g->limits, &e)) {
        if (!__atomic_fetch_add(&g->save_failures, 1, __ATOMIC_RELAXED))
            log_err("quota.not_saved", &e);
        return;
    }
    g->quotas_saved = taken;
}

static void on_save(struct loop *loop, struct loop_timer *t)
{
    save(CONTAINER_OF(t, struct guard, save));
    loop_timer_set(loop, t, loop_now_ns(loop) + SAVE_NS);
}

static void quota_main(void *arg)
{
    struct guard *g = arg;

    loop_run(g->loop);
}

/* --- Life ------------------------------------------------------------------------------------- */

int guard_new(const char *state_dir, uint32_t loops, struct guard **ret_guard, struct err *e)
{
    AUTO(guard_freep) struct guard *g = mem_zalloc(sizeof(*g));

    arena_init(&g->arena, 0);
    crowd_init(&g->crowd);
    g->limits = limits_new();
    g->state_dir = arena_dupz(&g->arena, str_of(state_dir));
    g->quota_dir = path_join(&g->arena, state_dir, "limits");
    g->quota_path = path_join(&g->arena, g->quota_dir, "quotas");
    g->loops = ARENA_ARRAY(&g->arena, struct guard_loop *, loops);
    g->loop_count = loops;
    for (uint32_t i = 0; i < loops; i++) {
        g->loops[i] = mem_zalloc_aligned(64, sizeof(struct guard_loop));
        g->loops[i]->guard = g;
        token_cache_init(&g->loops[i]->tokens);
    }
    TRY(quota_load(g->quota_path, g->limits, e));
    TRY(loop_new(&g->loop, e));
    g->save.fn = on_save;
    loop_timer_set(g->loop, &g->save, time_mono_ns() + SAVE_NS);
    *ret_guard = TAKE(g);
    return 0;
}

int guard_start(struct guard *g, struct err *e)
{
    return thread_start(&g->thread, "weir-quota", THREAD_ANY_CPU, quota_main, g, e);
}

void guard_free(struct guard *g)
{
    if (!g)
        return;
    if (g->thread.running) {
        loop_stop(g->loop);
        thread_join(&g->thread);
    }
    save(g);
    loop_free(g->loop);
    for (uint32_t i = 0; i < g->loop_count; i++) {
        token_cache_done(&g->loops[i]->tokens);
        mem_free(g->loops[i]);
    }
    crowd_done(&g->crowd);
    limits_free(g->limits);
    arena_done(&g->arena);
    mem_free(g);
}

/* --- Metrics ---------------------------------------------------------------------------------- */

void guard_write_metrics(struct guard *g, struct buf *to)
{
    static const struct {
        const char *result;
        size_t at;
    } checks[] = {{"cached", offsetof(struct guard_loop, tokens.hits)},
                  {"good", offsetof(struct guard_loop, tokens.good)},
                  {"bad", offsetof(struct guard_loop, tokens.bad)}};

    buf_add_str(to, S("# HELP weir_auth_requests_total Requests by what the guard decided.\n"
                      "# TYPE weir_auth_requests_total counter\n"));
    for (unsigned v = 0; v < VERDICT_COUNT; v++)
        buf_printf(to, "weir_auth_requests_total{verdict=\"%s\"} %llu\n", verdicts[v].label,
                   (unsigned long long)sum(g, offsetof(struct guard_loop, verdicts) +
                                                  v * sizeof(uint64_t)));
    buf_add_str(
        to, S("# HELP weir_auth_tokens_total Tokens looked at: found in the cache, or verified.\n"
              "# TYPE weir_auth_tokens_total counter\n"));
    for (size_t i = 0; i < ARRAY_LEN(checks); i++)
        buf_printf(to, "weir_auth_tokens_total{result=\"%s\"} %llu\n", checks[i].result,
                   (unsigned long long)sum(g, checks[i].at));
    buf_printf(to,
               "# HELP weir_auth_quota_save_failures_total Times the quota counters could not be "
               "written.\n# TYPE weir_auth_quota_save_failures_total counter\n"
               "weir_auth_quota_save_failures_total %llu\n",
               (unsigned long long)__atomic_load_n(&g->save_failures, __ATOMIC_RELAXED));
}
