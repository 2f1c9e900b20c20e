/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link between a gateway and control: frames over a stream socket.
 *
 *   frame = u32 length of the rest (little-endian), u8 type, payload
 *
 * Plans go down as hashes (their parts lie in the shared blob store), digests come up. The link may
 * break at any time: the gateway goes on with its plan and dials again; digests of that time are
 * lost for the monitors, not for the records. What piles up for a peer that does not read is
 * bounded: past the bound the link is cut, and made anew.
 *
 * Both ends run on a loop; a frame is delivered on it. Nothing a peer sends is trusted: a frame
 * that is too long or of an unknown type closes the link.
 */
#pragma once

#include "base/buf.h"
#include "loop/loop.h"

#define LINK_FRAME_MAX ((uint32_t)64 << 20)
#define LINK_QUEUE_MAX ((size_t)96 << 20)

enum link_type {
#define LINK(name, number, help) LINK_##name = (number),
#include "server/link.def"
#undef LINK
};

struct link;
typedef void (*link_frame_fn)(struct link *k, enum link_type type, str payload);
typedef void (*link_closed_fn)(struct link *k, const char *why); /* the link may be freed in it */

struct link {
    struct loop *loop;
    struct loop_fd watch; /* fd < 0: closed */
    struct buf in, out;
    size_t sent;
    const char *failed; /* why a send failed; on_closed is still to come */
    link_frame_fn on_frame;
    link_closed_fn on_closed;
};

/* Takes over a connected non-blocking descriptor. on_frame and on_closed are set by the caller
 * before. */
NODISCARD int link_open(struct link *k, struct loop *loop, int fd, struct err *e);
void link_close(struct link *k); /* without calling on_closed; accepts a closed one */
static inline bool link_is_open(const struct link *k)
{
    return k->watch.events != 0;
}

/* Queues a frame; dropped when the link is closed. Never calls on_closed: where sending shows that
 * the peer is gone, the loop says so in its next turn, so it is safe in on_frame. */
void link_send(struct link *k, enum link_type type, str payload);
/* Waits until what is queued is with the kernel, or until the deadline: for the end of a process.
 */
void link_finish(struct link *k, int64_t deadline_ns);
