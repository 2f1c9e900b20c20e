/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS on a connected, non-blocking socket: a context of certificates, and connections that read and
 * write like recv(2) and send(2).
 *
 * A context is immutable and counted by reference. To take new certificates into use a new context
 * is made; connections keep theirs until they end. TLS 1.2 and 1.3, no renegotiation, no
 * compression, no session tickets of older keys.
 */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <sys/types.h>

struct tls_config {
    const char *certificate; /* PEM: the chain, leaf first */
    const char *key;         /* PEM */
    const char *client_ca; /* PEM of who may sign certificates of clients, which are then demanded;
                              or NULL */
    bool http2;            /* offer h2 beside http/1.1 */
};

struct tls_context;

/* Reads the files and holds them against each other. INVALID_ARGUMENT names the file and what is
 * wrong (does not fit the key, has expired, is no PEM); NOT_FOUND, PERMISSION_DENIED. Any thread
 * that may block. */
NODISCARD int tls_context_new(const struct tls_config *cfg, struct tls_context **ret_context,
                              struct err *e);
struct tls_context *tls_context_ref(struct tls_context *c);
void tls_context_unref(struct tls_context *c); /* accepts NULL; any thread */
DEFINE_AUTO_PTR(struct tls_context, tls_context_unref)
/* When the leaf stops being valid, in nanoseconds of the wall clock. */
int64_t tls_context_expires_ns(const struct tls_context *c);

/* --- The client's side ------------------------------------------------------------------------ */

struct tls_client_config {
    const char *ca;          /* PEM of who may sign the server's certificate; NULL: the system's */
    const char *certificate; /* PEM, with its key: what this client shows of itself; or NULL */
    const char *key;
    bool http2; /* ask for h2 and for nothing else; else for http/1.1 */
};

/* Like tls_context_new. */
NODISCARD int tls_client_context_new(const struct tls_client_config *cfg,
                                     struct tls_context **ret_context, struct err *e);

struct tls;

/* Makes a connected, non-blocking fd, which stays the caller's, one of TLS: blocks until the
 * handshake is done. The chain must lead to an authority and the certificate be for `host`, a name
 * or an address. UNAVAILABLE tells what is wrong with the server; DEADLINE_EXCEEDED. */
NODISCARD int tls_connect(struct tls_context *c, int fd, const char *host, int64_t deadline_ns,
                          struct tls **ret_tls, struct err *e);
/* After EAGAIN: true when it waits to write whatever was asked of it, else to read. */
bool tls_wants_write(const struct tls *t);

/* --- The server's side, and both -------------------------------------------------------------- */

/* The server's side of a new connection; fd stays the caller's. Does not block: the handshake goes
 * on inside of tls_recv and tls_send. NULL when there is no memory. */
struct tls *tls_accept(struct tls_context *c, int fd);
void tls_free(struct tls *t); /* accepts NULL; does not close fd */
DEFINE_AUTO_PTR(struct tls, tls_free)

/* Like recv(2) and send(2), with errno: EAGAIN when the socket is not ready (either direction may
 * be meant), EPROTO for what is no TLS or a client without the certificate that is demanded.
 * tls_recv reads until p is full or the socket is empty, so that with an edge-triggered watch a
 * short count means that an edge will come. tls_send may be told more bytes in a repeated call,
 * never fewer. */
ssize_t tls_recv(struct tls *t, void *p, size_t n);
ssize_t tls_send(struct tls *t, const void *p, size_t n);
void tls_close(struct tls *t); /* tells the peer that nothing more comes; before shutdown(2) */

bool tls_established(const struct tls *t);
bool tls_chose_http2(const struct tls *t); /* once established */
/* The subject's common name of the client's certificate, or empty; valid as long as t. */
str tls_peer_name(struct tls *t);
/* Why the connection failed, for a log: one line of plain text, or "". Valid until the next call.
 */
const char *tls_reason(void);
