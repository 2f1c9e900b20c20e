/* SPDX-License-Identifier: Apache-2.0 */
#include "server/gateway_tls.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/time.h"

#define LOOK_NS (2 * NS_PER_S)
#define FILE_BYTES_MAX ((size_t)4 << 20)
#define EXPIRES_SOON_NS (14 * 86400 * NS_PER_S)
#define WARN_NS (86400 * NS_PER_S)

static const char *path_of(const char *project_dir, const struct json *tls, str key,
                           struct arena *a)
{
    str path = json_str_or(json_get(tls, key), S(""));

    if (!path.n)
        return NULL;
    return path.p[0] == '/' ? arena_dupz(a, path) : path_join(a, project_dir, arena_dupz(a, path));
}

/* A number that changes when one of the files does; a file that is not there counts as empty. */
static uint64_t contents(const struct tls_config *cfg)
{
    const char *paths[] = {cfg->certificate, cfg->key, cfg->client_ca};
    AUTO(arena_done) struct arena a = {0};
    uint64_t h = 1;
    str text;

    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        if (!paths[i] || file_read_all(paths[i], FILE_BYTES_MAX, &a, &text, NULL))
            text = S("");
        h = hash_str(text, h);
    }
    return h;
}

int gateway_tls_open(struct gateway_tls *t, const char *project_dir, const struct json *settings,
                     struct arena *a, struct tls_context **ret_context, struct err *e)
{
    const struct json *tls = json_get(settings, S("tls"));

    t->cfg = (struct tls_config){.certificate = path_of(project_dir, tls, S("certificate"), a),
                                 .key = path_of(project_dir, tls, S("key"), a),
                                 .client_ca = path_of(project_dir, tls, S("client_ca"), a),
                                 .http2 = true};
    *ret_context = NULL;
    if (!t->cfg.certificate)
        return 0;
    if (!t->cfg.key)
        return FAIL(e, INVALID_ARGUMENT, "gateway.tls has a certificate and no key");
    t->seen = contents(&t->cfg);
    TRY(tls_context_new(&t->cfg, ret_context, e));
    t->expires_ns = tls_context_expires_ns(*ret_context);
    return 0;
}

static void reload(struct gateway_tls *t)
{
    struct tls_context *context;
    struct err e;

    if (tls_context_new(&t->cfg, &context, &e)) {
        log_err("tls.refused", &e);
        return;
    }
    t->expires_ns = tls_context_expires_ns(context);
    t->warned_ns = 0;
    gateway_set_tls(t->gw, context);
    log_event(LOG_INFO, "tls.reloaded", "certificate=%s", t->cfg.certificate);
}

static void warn(struct gateway_tls *t, int64_t now_ns)
{
    int64_t left_ns = t->expires_ns - now_ns;

    if (left_ns > EXPIRES_SOON_NS || (t->warned_ns && now_ns - t->warned_ns < WARN_NS))
        return;
    t->warned_ns = now_ns;
    log_event(LOG_WARN, "tls.expires", "certificate=%s hours_left=%lld", t->cfg.certificate,
              (long long)(left_ns / (3600 * NS_PER_S)));
}

static void look(struct loop *loop, struct loop_timer *timer)
{
    struct gateway_tls *t = CONTAINER_OF(timer, struct gateway_tls, look);
    uint64_t now = contents(&t->cfg);

    if (now != t->seen) {
        t->seen = now;
        reload(t);
    }
    warn(t, time_wall_ns());
    loop_timer_set(loop, timer, loop_now_ns(loop) + LOOK_NS);
}

void gateway_tls_watch(struct gateway_tls *t, struct loop *loop, struct gateway *gw)
{
    if (!t->cfg.certificate)
        return;
    t->gw = gw;
    t->look.fn = look;
    loop_timer_set(loop, &t->look, loop_now_ns(loop) + LOOK_NS);
}
