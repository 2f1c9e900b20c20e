/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The certificates of the gateway: read at the start, and again whenever their files change, so
 * that a renewal needs no restart. New connections get the new ones; a pair that does not fit is
 * said and the old one stays. Main thread of the gateway process.
 */
#pragma once

#include "loop/tls.h"
#include "serve/gateway.h"

struct gateway_tls {
    struct tls_config cfg; /* texts of the arena of the process; certificate NULL: no TLS */
    uint64_t seen;         /* hash of the contents that were tried last */
    int64_t expires_ns, warned_ns;
    struct loop_timer look;
    struct gateway *gw;
};

/* Of the settings of the plan ("tls"); *ret_context is a reference for the gateway, NULL where
 * there is no TLS. Paths are relative to the folder of the project. */
NODISCARD int gateway_tls_open(struct gateway_tls *t, const char *project_dir,
                               const struct json *settings, struct arena *a,
                               struct tls_context **ret_context, struct err *e);
/* Looks at the files from now on. */
void gateway_tls_watch(struct gateway_tls *t, struct loop *loop, struct gateway *gw);
