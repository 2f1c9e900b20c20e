/* SPDX-License-Identifier: Apache-2.0 */
/* Inside TLS: what the server's side (tls.c) and the client's (tls_client.c) share. */
#pragma once

#include "loop/tls.h"

#include <openssl/ssl.h>

#define TLS_NAME_BYTES 256

struct tls_context {
    uint32_t refs; /* atomic */
    SSL_CTX *ssl;  /* owned */
    int64_t expires_ns;
};

struct tls {
    SSL *ssl; /* owned */
    char name[TLS_NAME_BYTES];
};

/* What holds for both sides: versions, modes, no renegotiation, no compression. */
void tls_context_prepare(SSL_CTX *ssl);
/* A certificate with its key, each named by `what` in errors ("TLS certificate", "TLS key"). */
NODISCARD int tls_context_load_pair(SSL_CTX *ssl, const char *certificate, const char *key,
                                    struct err *e);
/* The library says little of a file that is not there; the file system says it well. */
NODISCARD int tls_check_readable(const char *path, const char *what, struct err *e);
/* INVALID_ARGUMENT "what path: why", from what the library complained of last. */
NODISCARD int tls_complain(const char *what, const char *path, struct err *e);
