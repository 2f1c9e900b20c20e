/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection of a slot: made when it is needed, kept for the next run, ended from another
 * thread by a descriptor that everybody who waits looks at too.
 *
 * Which addresses may be called is tested on the address that is dialled, not on the name: a name
 * can change its meaning between a test and a call. A secret goes over the internet at large only
 * under TLS.
 *
 * The system's resolver knows no deadline. So a name is looked up seldom, and what it said holds
 * for ADDR_NS.
 *
 * A slot has one connection and asks one question at a time, also where HTTP/2 could carry many.
 * Slots are few (one for each thread of a crew) and block, so that a shared session would need a
 * thread of its own to read it and a lock around every frame, and one lost packet, one full window
 * or one GOAWAY would hold up all of them; what it would save is a socket for each thread.
 */
#include "base/files.h"
#include "base/time.h"
#include "loop/child.h"
#include "serve/runtime/remote.h"
#include "wire/http1_client.h"

#include <stdio.h>
#include <sys/eventfd.h>

#define WINDOW_BYTES ((size_t)64 << 10)
#define ADDR_NS (30 * NS_PER_S)
#define SECRET_BYTES_MAX ((size_t)16 << 10)
#define DESCRIPTION_BYTES_MAX ((size_t)16 << 20)
#define SILENCE_NS (100 * NS_PER_MS) /* a shorter one says nothing of the server */

/* --- Life ------------------------------------------------------------------------------------- */

int remote_conn_init(struct remote_conn *c, uint64_t answer_bytes_max, struct err *e)
{
    *c = (struct remote_conn){.channel = {.fd = -1}};
    pthread_mutex_init(&c->mutex, NULL);
    buf_init(&c->in, 2 * WINDOW_BYTES);
    buf_init(&c->out, 2 * WINDOW_BYTES);
    buf_init(&c->body, (size_t)answer_bytes_max);
    c->wake_fd = c->channel.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return c->wake_fd < 0 ? FAIL_ERRNO(e, "making an eventfd") : 0;
}

void remote_conn_close(struct remote_conn *c)
{
    channel_close(&c->channel);
    http2_client_free(c->h2);
    c->h2 = NULL;
    buf_clear(&c->in);
    buf_clear(&c->out);
    c->out_at = 0;
}

void remote_conn_done(struct remote_conn *c)
{
    remote_conn_close(c);
    buf_done(&c->in);
    buf_done(&c->out);
    buf_done(&c->body);
    file_close(c->wake_fd);
    pthread_mutex_destroy(&c->mutex);
}

/* --- Being ended from outside ----------------------------------------------------------------- */

void remote_conn_begin(struct remote_conn *c)
{
    eventfd_t dropped;

    pthread_mutex_lock(&c->mutex);
    c->state = REMOTE_RUNNING;
    (void)eventfd_read(c->wake_fd, &dropped); /* of a run that has ended meanwhile */
    pthread_mutex_unlock(&c->mutex);
}

void remote_conn_end(struct remote_conn *c)
{
    pthread_mutex_lock(&c->mutex);
    c->state = REMOTE_IDLE;
    pthread_mutex_unlock(&c->mutex);
}

void remote_conn_abort(struct remote_conn *c)
{
    pthread_mutex_lock(&c->mutex);
    if (c->state == REMOTE_RUNNING) {
        c->state = REMOTE_ABORTED;
        (void)eventfd_write(c->wake_fd, 1);
    }
    pthread_mutex_unlock(&c->mutex);
}

static bool is_aborted(struct remote_conn *c)
{
    bool aborted;

    pthread_mutex_lock(&c->mutex);
    aborted = c->state == REMOTE_ABORTED;
    pthread_mutex_unlock(&c->mutex);
    return aborted;
}

bool remote_conn_pause(struct remote_conn *c, int64_t ns)
{
    struct channel none = {.fd = -1, .wake_fd = c->wake_fd};

    return channel_wait(&none, CHANNEL_READ, time_mono_ns() + ns, NULL) != CODE_CANCELLED;
}

/* --- Making it -------------------------------------------------------------------------------- */

int remote_tls(const struct remote_config *cfg, struct tls_context **ret_context, struct err *e)
{
    struct tls_client_config tls = {.ca = cfg->ca,
                                    .certificate = cfg->certificate,
                                    .key = cfg->key,
                                    .http2 = cfg->protocol == &remote_grpc};

    *ret_context = NULL;
    return cfg->tls ? tls_client_context_new(&tls, ret_context, e) : 0;
}

static NODISCARD int address_get(const struct remote_call *call, struct addr *ret, struct err *e)
{
    struct remote_resolver *r = call->resolver;
    struct addr found;
    bool known;

    pthread_mutex_lock(&r->mutex);
    known = r->until_ns > time_mono_ns();
    *ret = r->addr;
    pthread_mutex_unlock(&r->mutex);
    if (!known) {
        TRY(addr_resolve(call->cfg->address, &found, e));
        pthread_mutex_lock(&r->mutex);
        r->addr = *ret = found;
        r->until_ns = time_mono_ns() + ADDR_NS;
        pthread_mutex_unlock(&r->mutex);
    }
    if (!call->cfg->allow_private && !addr_is_public(ret)) {
        char text[ADDR_TEXT_SIZE];

        addr_text(ret, text);
        return FAIL(e, PERMISSION_DENIED,
                    STR_F " is the private address %s: say allow_private if that is meant",
                    STR_A(call->cfg->host), text);
    }
    if (call->cfg->credential_header.n && !call->tls && addr_is_public(ret))
        return FAIL(e, PERMISSION_DENIED,
                    "credentials are not sent over the internet without TLS: use https:// or "
                    "grpcs://");
    return 0;
}

int remote_conn_open(struct remote_conn *c, const struct remote_call *call, struct err *e)
{
    int64_t until_ns = MIN(call->deadline_ns, time_mono_ns() + call->cfg->connect_ns);
    struct addr addr;
    int rc;

    remote_conn_close(c);
    TRY(address_get(call, &addr, e));
    rc = channel_open(&c->channel, &addr, call->tls, call->cfg->name, until_ns, e);
    if (rc == CODE_DEADLINE_EXCEEDED && time_mono_ns() < call->deadline_ns)
        return FAIL(e, UNAVAILABLE, STR_F " takes no connection within %lld ms",
                    STR_A(call->cfg->host), (long long)(call->cfg->connect_ns / NS_PER_MS));
    return rc;
}

/* --- Exchanges -------------------------------------------------------------------------------- */

static enum breaker_verdict verdict_of(enum code said)
{
    return code_http_status(said) < 500 ? BREAKER_SUCCESS : BREAKER_FAILURE;
}

int remote_ask(struct remote_conn *c, const struct remote_call *call, struct remote_answer *ret,
               struct remote_outcome *ret_outcome, struct err *e)
{
    int64_t from_ns = time_mono_ns();
    int rc;

    *ret = (struct remote_answer){.code = CODE_OK};
    *ret_outcome = (struct remote_outcome){.verdict = BREAKER_FAILURE};
    rc = call->cfg->protocol->exchange(c, call, ret, ret_outcome, e);
    if (is_aborted(c)) {
        *ret_outcome = (struct remote_outcome){.verdict = BREAKER_NEUTRAL};
        return FAIL(e, CANCELLED, "the run of the model was cancelled");
    }
    if (!rc) {
        ret_outcome->verdict = verdict_of(ret->code);
        return 0;
    }
    if (rc == CODE_PERMISSION_DENIED || rc == CODE_INVALID_ARGUMENT) /* never got as far as that */
        *ret_outcome = (struct remote_outcome){.verdict = BREAKER_NEUTRAL};
    if (rc == CODE_DEADLINE_EXCEEDED && time_mono_ns() - from_ns < SILENCE_NS)
        ret_outcome->verdict = BREAKER_NEUTRAL; /* the time was gone before it was asked */
    return err_context(e, STR_F, STR_A(call->cfg->host));
}

int remote_credentials(const struct remote_config *cfg, struct arena *a, str *ret_value,
                       struct err *e)
{
    AUTO(buf_done) struct buf line = {0}, value = {0};
    str secret = STR_NULL;
    const char *env;

    *ret_value = S("");
    if (!cfg->credential_env && !cfg->credential_file)
        return 0;
    if (cfg->credential_env) {
        env = child_env(cfg->credential_env, a);
        if (!env)
            return FAIL(e, FAILED_PRECONDITION, "credentials: the gateway has no variable %s",
                        cfg->credential_env);
        secret = str_skip(str_of(env), strlen(cfg->credential_env) + 1);
    } else {
        TRY(file_read_all(cfg->credential_file, SECRET_BYTES_MAX, a, &secret, e));
    }
    secret = str_trim(secret);
    buf_init(&line, 2 * SECRET_BYTES_MAX);
    buf_init(&value, 2 * SECRET_BYTES_MAX);
    buf_add_str(&value, cfg->credential_prefix);
    buf_add_str(&value, secret);
    if (!secret.n || !http1_write_field(&line, cfg->credential_header, buf_str(&value)))
        return FAIL(e, FAILED_PRECONDITION, "credentials: the secret is empty or no single line");
    *ret_value = arena_dup(a, buf_str(&value));
    return 0;
}

static NODISCARD int describe(struct remote_conn *c, struct remote_call *call, struct arena *a,
                              struct remote_config *ret, struct err *e)
{
    TRY(remote_conn_init(c, DESCRIPTION_BYTES_MAX, e));
    TRY(remote_credentials(call->cfg, a, &call->credential, e));
    return call->cfg->protocol->describe(c, call, a, ret, e);
}

int remote_describe(const struct remote_config *cfg, struct arena *a, struct remote_config *ret,
                    struct err *e)
{
    AUTO(tls_context_unrefp) struct tls_context *tls = NULL;
    struct remote_resolver resolver = {.until_ns = 0};
    struct remote_conn c;
    struct remote_call call = {
        .cfg = cfg, .resolver = &resolver, .deadline_ns = time_mono_ns() + cfg->timeout_ns};
    int rc;

    TRY(remote_tls(cfg, &tls, e));
    call.tls = tls;
    pthread_mutex_init(&resolver.mutex, NULL);
    rc = describe(&c, &call, a, ret, e);
    remote_conn_done(&c);
    pthread_mutex_destroy(&resolver.mutex);
    return rc;
}
