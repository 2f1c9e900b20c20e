/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL behind two functions that look like recv and send. It reads and writes the socket itself;
 * read-ahead makes it take what is there with one system call, and moving write buffers are
 * allowed, because a connection's output grows and moves while a part of it waits.
 *
 * A context holds nothing that depends on a connection, and OpenSSL counts references of its own: a
 * connection keeps the certificates that it began with.
 */
#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"
#include "loop/tls_priv.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

/* The newest complaint of the library on this thread, in words, and none left behind. */
const char *tls_reason(void)
{
    static _Thread_local char text[160];
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    (void)!str_to_z(str_take(str_of(reason ? reason : ""), sizeof(text) - 1), text, sizeof(text));
    ERR_clear_error();
    return text;
}

/* --- Contexts --------------------------------------------------------------------------------- */

/* Protocols in the form of the extension: a length and the name, in our order of preference. */
static const unsigned char protocols[] = "\x02h2\x08http/1.1";

static int choose_protocol(SSL *ssl, const unsigned char **ret, unsigned char *ret_n,
                           const unsigned char *offered, unsigned offered_n, void *arg)
{
    const unsigned char *ours = arg ? protocols : protocols + 3;
    unsigned ours_n = (unsigned)(sizeof(protocols) - 1 - (size_t)(ours - protocols));

    (void)ssl;
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)ret, ret_n, ours, ours_n, offered,
                              offered_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

int tls_check_readable(const char *path, const char *what, struct err *e)
{
    AUTO(file_closep) int fd = -1;

    if (file_open(path, FILE_READ, &fd, e))
        return err_context(e, "%s", what);
    return 0;
}

int tls_complain(const char *what, const char *path, struct err *e)
{
    const char *why = tls_reason();

    return FAIL(e, INVALID_ARGUMENT, "%s %s: %s", what, path, *why ? why : "not usable");
}

int tls_context_load_pair(SSL_CTX *ssl, const char *certificate, const char *key, struct err *e)
{
    TRY(tls_check_readable(certificate, "TLS certificate", e));
    TRY(tls_check_readable(key, "TLS key", e));
    if (SSL_CTX_use_certificate_chain_file(ssl, certificate) != 1)
        return tls_complain("TLS certificate", certificate, e);
    if (SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) == 1)
        return 0;
    if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH)
        return FAIL(e, INVALID_ARGUMENT, "TLS key %s does not belong to the certificate %s", key,
                    certificate);
    return tls_complain("TLS key", key, e);
}

static NODISCARD int load_clients(SSL_CTX *ssl, const char *path, struct err *e)
{
    STACK_OF(X509_NAME) * names;

    if (!path)
        return 0;
    TRY(tls_check_readable(path, "TLS client_ca", e));
    names = SSL_load_client_CA_file(path);
    if (!names || SSL_CTX_load_verify_locations(ssl, path, NULL) != 1)
        return tls_complain("TLS client_ca", path, e);
    SSL_CTX_set_client_CA_list(ssl, names); /* takes names */
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

static NODISCARD int check_validity(struct tls_context *c, const struct tls_config *cfg,
                                    struct err *e)
{
    const X509 *leaf = SSL_CTX_get0_certificate(c->ssl);
    int days, seconds;

    if (!leaf || !ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(leaf)))
        return tls_complain("TLS certificate", cfg->certificate, e);
    if (days < 0 || seconds < 0)
        return FAIL(e, INVALID_ARGUMENT, "TLS certificate %s has expired: renew it",
                    cfg->certificate);
    c->expires_ns = time_wall_ns() + ((int64_t)days * 86400 + seconds) * NS_PER_S;
    return 0;
}

void tls_context_prepare(SSL_CTX *ssl)
{
    SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ssl, 1);
}

int tls_context_new(const struct tls_config *cfg, struct tls_context **ret_context, struct err *e)
{
    AUTO(tls_context_unrefp) struct tls_context *c = mem_zalloc(sizeof(*c));

    ERR_clear_error();
    c->refs = 1;
    c->ssl = SSL_CTX_new(TLS_server_method());
    if (!c->ssl)
        return FAIL(e, RESOURCE_EXHAUSTED, "TLS: %s", tls_reason());
    tls_context_prepare(c->ssl);
    SSL_CTX_set_options(c->ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                    SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_id_context(c->ssl, (const unsigned char *)"weir", 4);
    SSL_CTX_set_alpn_select_cb(c->ssl, choose_protocol, cfg->http2 ? c->ssl : NULL);
    TRY(tls_context_load_pair(c->ssl, cfg->certificate, cfg->key, e));
    TRY(load_clients(c->ssl, cfg->client_ca, e));
    TRY(check_validity(c, cfg, e));
    *ret_context = TAKE(c);
    return 0;
}

struct tls_context *tls_context_ref(struct tls_context *c)
{
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    return c;
}

void tls_context_unref(struct tls_context *c)
{
    if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    SSL_CTX_free(c->ssl);
    mem_free(c);
}

int64_t tls_context_expires_ns(const struct tls_context *c)
{
    return c->expires_ns;
}

/* --- Connections ------------------------------------------------------------------------------ */

struct tls *tls_accept(struct tls_context *c, int fd)
{
    struct tls *t = mem_zalloc(sizeof(*t));

    t->ssl = SSL_new(c->ssl);
    if (!t->ssl || SSL_set_fd(t->ssl, fd) != 1) {
        tls_free(t);
        return NULL;
    }
    SSL_set_accept_state(t->ssl);
    return t;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    mem_free(t);
}

/* What a call that moved nothing means, as recv and send say it. */
static ssize_t nothing(struct tls *t, int rc)
{
    int system_error = errno;

    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        errno = system_error ? system_error : ECONNRESET;
        return -1;
    default:
        errno = EPROTO;
        return -1;
    }
}

ssize_t tls_recv(struct tls *t, void *p, size_t n)
{
    size_t done = 0;

    while (done < n) {
        size_t got = 0;
        int rc;

        ERR_clear_error();
        errno = 0;
        rc = SSL_read_ex(t->ssl, (char *)p + done, n - done, &got);
        if (rc == 1) {
            done += got;
            continue;
        }
        return done ? (ssize_t)done : nothing(t, rc);
    }
    return (ssize_t)done;
}

ssize_t tls_send(struct tls *t, const void *p, size_t n)
{
    size_t put = 0;
    int rc;

    ERR_clear_error();
    errno = 0;
    rc = SSL_write_ex(t->ssl, p, MIN(n, (size_t)INT_MAX), &put);
    if (rc == 1)
        return (ssize_t)put;
    rc = (int)nothing(t, rc);
    if (rc == 0)
        errno = EPIPE;
    return -1;
}

void tls_close(struct tls *t)
{
    ERR_clear_error();
    if (SSL_is_init_finished(t->ssl))
        (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
}

bool tls_established(const struct tls *t)
{
    return SSL_is_init_finished(t->ssl) == 1;
}

bool tls_chose_http2(const struct tls *t)
{
    const unsigned char *name = NULL;
    unsigned n = 0;

    SSL_get0_alpn_selected(t->ssl, &name, &n);
    return n == 2 && memcmp(name, "h2", 2) == 0;
}

str tls_peer_name(struct tls *t)
{
    const X509 *peer = SSL_get0_peer_certificate(t->ssl);
    int n;

    if (!peer)
        return STR_NULL;
    n = X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, t->name,
                                  sizeof(t->name));
    return n > 0 ? (str){t->name, (size_t)n} : STR_NULL;
}
