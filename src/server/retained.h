/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests that control has not yet written down, at the gateway: they are sent again after a break
 * of the link, so that a restart of control loses none. Past the bounds the oldest go; one that was
 * never sent is then lost for the monitors, not for the records, and counted.
 *
 * Main thread of the gateway.
 */
#pragma once

#include "server/link.h"

#define RETAINED_MAX 1200 /* five minutes at four a second */
#define RETAINED_BYTES_MAX ((size_t)32 << 20)

struct retained_digest {
    struct retained_digest *next;
    uint64_t sequence;
    bool sent; /* on some link */
    struct buf bytes;
};

struct retained {
    struct retained_digest *first, **last; /* by rising sequence; last NULL: empty, never used */
    uint64_t run;
    size_t count, bytes;
    uint64_t lost;
};

/* Takes over the bytes and sends them, if the link is open. */
void retained_add(struct retained *r, struct link *k, uint64_t run, uint64_t sequence,
                  struct buf *bytes);
void retained_send(struct retained *r, struct link *k); /* all, on a new link */
/* The payload of a frame KEPT: u64 run, u64 sequence, little-endian; another one is ignored. */
void retained_kept(struct retained *r, str payload);
void retained_done(struct retained *r);
