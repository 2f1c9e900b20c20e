/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of TLS. What makes it worth having is what it refuses: a chain that leads to no
 * authority that is trusted here, a certificate for another name, an old version, and a server that
 * does not speak the protocol that is needed (ALPN). A name goes into the handshake (SNI), so that
 * one address may serve many; an address does not, by RFC 6066, and is held against the addresses
 * of the certificate.
 *
 * Handshakes block: they are done by threads that run models, never by loops.
 */
#include "base/mem.h"
#include "loop/poll.h"
#include "loop/tls_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>

static NODISCARD int trust(SSL_CTX *ssl, const char *ca, struct err *e)
{
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    if (!ca) {
        if (SSL_CTX_set_default_verify_paths(ssl) != 1)
            return FAIL(e, FAILED_PRECONDITION, "TLS: no authorities of the system: name a ca");
        return 0;
    }
    TRY(tls_check_readable(ca, "TLS ca", e));
    if (SSL_CTX_load_verify_locations(ssl, ca, NULL) != 1)
        return tls_complain("TLS ca", ca, e);
    return 0;
}

int tls_client_context_new(const struct tls_client_config *cfg, struct tls_context **ret_context,
                           struct err *e)
{
    static const unsigned char h2[] = "\x02h2", h1[] = "\x08http/1.1";
    AUTO(tls_context_unrefp) struct tls_context *c = mem_zalloc(sizeof(*c));

    ERR_clear_error();
    c->refs = 1;
    c->ssl = SSL_CTX_new(TLS_client_method());
    if (!c->ssl)
        return FAIL(e, RESOURCE_EXHAUSTED, "TLS: %s", tls_reason());
    tls_context_prepare(c->ssl);
    if (cfg->http2 ? SSL_CTX_set_alpn_protos(c->ssl, h2, sizeof(h2) - 1)
                   : SSL_CTX_set_alpn_protos(c->ssl, h1, sizeof(h1) - 1))
        return FAIL(e, RESOURCE_EXHAUSTED, "TLS: %s", tls_reason());
    TRY(trust(c->ssl, cfg->ca, e));
    if (cfg->certificate)
        TRY(tls_context_load_pair(c->ssl, cfg->certificate, cfg->key, e));
    *ret_context = TAKE(c);
    return 0;
}

static bool is_address(const char *host)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* Whom the certificate must be for. */
static bool expect_host(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

    if (is_address(host))
        return X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

static NODISCARD int shake_failed(const struct tls *t, int error, const char *host, struct err *e)
{
    long verdict = SSL_get_verify_result(t->ssl);
    const char *why;

    if (verdict != X509_V_OK)
        return FAIL(e, UNAVAILABLE, "the certificate of %s is not trusted: %s", host,
                    X509_verify_cert_error_string(verdict));
    if (error == SSL_ERROR_SYSCALL || error == SSL_ERROR_ZERO_RETURN)
        return FAIL(e, UNAVAILABLE, "%s broke the TLS handshake off", host);
    why = tls_reason();
    return FAIL(e, UNAVAILABLE, "no TLS with %s: %s", host, *why ? why : "the handshake failed");
}

static NODISCARD int shake(struct tls *t, int fd, const char *host, int64_t deadline_ns,
                           struct err *e)
{
    for (;;) {
        int rc, error;

        ERR_clear_error();
        errno = 0;
        rc = SSL_connect(t->ssl);
        if (rc == 1)
            return 0;
        error = SSL_get_error(t->ssl, rc);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            return shake_failed(t, error, host, e);
        if (!poll_one(fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline_ns))
            return FAIL(e, DEADLINE_EXCEEDED, "%s did not finish the TLS handshake in time", host);
    }
}

int tls_connect(struct tls_context *c, int fd, const char *host, int64_t deadline_ns,
                struct tls **ret_tls, struct err *e)
{
    AUTO(tls_freep) struct tls *t = mem_zalloc(sizeof(*t));

    t->ssl = SSL_new(c->ssl);
    if (!t->ssl || SSL_set_fd(t->ssl, fd) != 1 || !expect_host(t->ssl, host))
        return FAIL(e, RESOURCE_EXHAUSTED, "TLS with %s: %s", host, tls_reason());
    TRY(shake(t, fd, host, deadline_ns, e));
    *ret_tls = TAKE(t);
    return 0;
}

bool tls_wants_write(const struct tls *t)
{
    return SSL_want(t->ssl) == SSL_WRITING;
}
