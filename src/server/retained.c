/* SPDX-License-Identifier: Apache-2.0 */
#include "server/retained.h"

#include "base/log.h"
#include "base/mem.h"

static void drop_first(struct retained *r)
{
    struct retained_digest *d = r->first;

    r->first = d->next;
    if (!r->first)
        r->last = &r->first;
    r->count--;
    r->bytes -= d->bytes.n;
    buf_done(&d->bytes);
    mem_free(d);
}

/* Said once for each stretch without a link. */
static void make_room(struct retained *r)
{
    while (r->count > RETAINED_MAX || (r->count > 1 && r->bytes > RETAINED_BYTES_MAX)) {
        if (!r->first->sent && r->lost++ == 0)
            log_event(LOG_WARN, "digests.lost",
                      "reason=\"control has been away too long: the oldest digests are dropped\"");
        drop_first(r);
    }
}

void retained_add(struct retained *r, struct link *k, uint64_t run, uint64_t sequence,
                  struct buf *bytes)
{
    struct retained_digest *d = mem_zalloc(sizeof(*d));

    if (!r->last)
        r->last = &r->first;
    r->run = run;
    d->sequence = sequence;
    d->bytes = *bytes;
    d->sent = link_is_open(k);
    *bytes = (struct buf){0};
    *r->last = d;
    r->last = &d->next;
    r->count++;
    r->bytes += d->bytes.n;
    link_send(k, LINK_DIGEST, buf_str(&d->bytes));
    make_room(r);
}

void retained_send(struct retained *r, struct link *k)
{
    for (struct retained_digest *d = r->first; d; d = d->next) {
        d->sent = true;
        link_send(k, LINK_DIGEST, buf_str(&d->bytes));
    }
    r->lost = 0;
}

void retained_kept(struct retained *r, str payload)
{
    uint64_t run, sequence;

    if (payload.n != sizeof(run) + sizeof(sequence))
        return;
    memcpy(&run, payload.p, sizeof(run));
    memcpy(&sequence, payload.p + sizeof(run), sizeof(sequence));
    while (run == r->run && r->first && r->first->sequence <= sequence)
        drop_first(r);
}

void retained_done(struct retained *r)
{
    while (r->first)
        drop_first(r);
}
