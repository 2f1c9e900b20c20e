/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mailbox: how threads talk to a loop. Any thread posts, the loop receives. A mail is a struct
 * embedded in the message; posting hands the whole message to the receiver, which frees it or sends
 * it back. Posting is lock-free and makes a system call only when the loop may be asleep.
 *
 * Order: mails of one sender arrive in the order they were posted. At most MAILBOX_TURN_MAX mails
 * of a mailbox are delivered per turn, so that a flood of mail does not starve the sockets.
 */
#pragma once

#include "loop/loop.h"

#include <stdatomic.h>

#define MAILBOX_TURN_MAX 1024

struct mail {
    struct mail *next; /* owned by the mailbox between post and delivery */
};

struct mailbox;
typedef void (*mailbox_fn)(struct loop *l, struct mailbox *mb, struct mail *m);

struct mailbox {
    _Alignas(64) _Atomic(struct mail *) posted; /* newest first; senders push here */
    _Alignas(64) struct mail *inbox;            /* oldest first; the loop's own */
    struct mailbox *next;
    struct loop *loop;
    mailbox_fn fn;
};

/* Opens on the loop thread, before any sender knows the mailbox. */
void mailbox_open(struct mailbox *mb, struct loop *l, mailbox_fn fn);
/* After the last sender is gone, and not from the mailbox's own fn. Mails not delivered are handed
 * to fn first. */
void mailbox_close(struct mailbox *mb);

void mailbox_post(struct mailbox *mb, struct mail *m); /* any thread; takes ownership of *m */
