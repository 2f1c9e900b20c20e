/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mail: a stack that senders push and the receiver takes whole.
 *
 * A sender swings the head of a linked stack with compare-and-swap; the receiver takes the whole
 * stack with one exchange and turns it round, which restores the order of posting. Because nodes
 * are never popped one by one there is no ABA problem, and because a push is complete in one
 * instant there is no moment at which a half-done push hides later mails, which the queue with an
 * exchanged head has. The sender that found the stack empty is the one that wakes the loop: the
 * others know that somebody has done so, or that the loop has not looked yet.
 *
 * Why that is enough: `asleep` is only set by a loop that then saw every stack empty, so the next
 * push is one onto an empty stack (see loop.c on the order of both sides).
 */
#include "loop/priv.h"

void mailbox_open(struct mailbox *mb, struct loop *l, mailbox_fn fn)
{
    struct mailbox **end = &l->mailboxes;

    ASSERT(loop_is_here(l));
    ASSERT(fn);
    atomic_init(&mb->posted, NULL);
    mb->inbox = NULL;
    mb->next = NULL;
    mb->loop = l;
    mb->fn = fn;
    while (*end)
        end = &(*end)->next;
    *end = mb;
}

void mailbox_close(struct mailbox *mb)
{
    struct loop *l = mb->loop;

    if (!l)
        return;
    ASSERT(loop_is_here(l));
    while (mailbox_deliver(mb) > 0)
        ;
    if (l->mailbox_at == mb)
        l->mailbox_at = mb->next;
    for (struct mailbox **at = &l->mailboxes; *at; at = &(*at)->next) {
        if (*at == mb) {
            *at = mb->next;
            break;
        }
    }
    mb->loop = NULL;
}

void mailbox_post(struct mailbox *mb, struct mail *m)
{
    struct loop *l = mb->loop; /* read first: after the push the receiver may close the mailbox */
    struct mail *head = atomic_load_explicit(&mb->posted, memory_order_relaxed);

    do {
        m->next = head;
    } while (!atomic_compare_exchange_weak(&mb->posted, &head, m));
    if (!head)
        loop_wake(l);
}

bool mailbox_has_mail(const struct mailbox *mb)
{
    return mb->inbox || atomic_load(&mb->posted);
}

/* Takes all posted mails, oldest first. */
static struct mail *take_posted(struct mailbox *mb)
{
    struct mail *m, *oldest = NULL;

    if (!atomic_load_explicit(&mb->posted, memory_order_relaxed))
        return NULL;
    m = atomic_exchange(&mb->posted, NULL);
    while (m) {
        struct mail *next = m->next;

        m->next = oldest;
        oldest = m;
        m = next;
    }
    return oldest;
}

uint64_t mailbox_deliver(struct mailbox *mb)
{
    uint64_t n = 0;

    for (; n < MAILBOX_TURN_MAX; n++) {
        struct mail *m;

        if (!mb->inbox)
            mb->inbox = take_posted(mb);
        m = mb->inbox;
        if (!m)
            break;
        mb->inbox = m->next;
        m->next = NULL;
        mb->fn(mb->loop, mb, m);
    }
    return n;
}
