/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading frames from a program, without waiting. The reader belongs to the instance, not to the
 * run: a run that gives up in the middle of an answer leaves it where it stands, and the herd reads
 * the rest away, so that the next answer is taken for what it is.
 */
#include "serve/runtime/process.h"

#include <errno.h>
#include <sys/socket.h>

#define AWAY_BYTES ((size_t)16 << 10)

void process_reader_init(struct process_reader *r, uint64_t data_bytes_max)
{
    *r = (struct process_reader){.data_bytes_max = data_bytes_max};
    buf_init(&r->header, TENSOR_FRAME_HEADER_BYTES_MAX + TENSOR_FRAME_ALIGN);
}

void process_reader_done(struct process_reader *r)
{
    buf_done(&r->header);
}

void process_reader_reset(struct process_reader *r)
{
    r->part = PROCESS_READ_HEAD;
    r->n = 0;
    r->data = NULL;
    buf_clear(&r->header);
}

/* Up to n bytes: how many, 0 for nothing now, -1 for the end. */
static ssize_t take(int fd, void *to, uint64_t n)
{
    for (;;) {
        ssize_t got = recv(fd, to, (size_t)n, MSG_DONTWAIT);

        if (got > 0)
            return got;
        if (got < 0 && errno == EINTR)
            continue;
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
    }
}

/* Where the next bytes go, and how many are wanted; 0 when the part is complete. */
static uint64_t wanted(struct process_reader *r, char away[AWAY_BYTES], char **ret_to)
{
    uint64_t left;

    switch (r->part) {
    case PROCESS_READ_HEAD:
        *ret_to = r->head_bytes + r->n;
        return TENSOR_FRAME_HEAD_BYTES - r->n;
    case PROCESS_READ_HEADER:
        left = tensor_frame_header_span(r->head.header_bytes) - r->n;
        *ret_to = left ? buf_reserve(&r->header, (size_t)left) : NULL;
        ASSERT(!left || *ret_to); /* within the maximum that the head was held against */
        return left;
    default:
        left = r->head.data_bytes - r->n;
        *ret_to = r->data ? r->data + r->n : away;
        return r->data ? left : MIN(left, (uint64_t)AWAY_BYTES);
    }
}

enum process_event process_read(struct process_reader *r, int fd, struct err *e)
{
    char away[AWAY_BYTES], *to;

    for (;;) {
        uint64_t want = wanted(r, away, &to);
        ssize_t got = want ? take(fd, to, want) : 0;

        if (got < 0)
            return PROCESS_END;
        if (want && !got)
            return PROCESS_MORE;
        r->n += (uint64_t)got;
        if (r->part == PROCESS_READ_HEADER)
            r->header.n += (size_t)got;
        if ((uint64_t)got < want || (r->part == PROCESS_READ_DATA && r->n < r->head.data_bytes))
            continue;
        r->n = 0;
        switch (r->part) {
        case PROCESS_READ_HEAD:
            if (tensor_frame_head_read(r->head_bytes, r->data_bytes_max, &r->head, e))
                return PROCESS_BROKEN;
            buf_clear(&r->header);
            r->data = NULL;
            r->part = PROCESS_READ_HEADER;
            break;
        case PROCESS_READ_HEADER:
            r->part = PROCESS_READ_DATA;
            return PROCESS_HEADER;
        default:
            r->part = PROCESS_READ_HEAD;
            r->data = NULL;
            return PROCESS_FRAME;
        }
    }
}
