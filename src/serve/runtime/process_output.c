/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program writes to stdout and stderr, line by line, in the log of the gateway. A program
 * that writes more than the log should take (a token bucket) is not stopped: lines are dropped,
 * counted, and the count is told with the next line.
 */
#include "base/log.h"
#include "base/time.h"
#include "loop/stream.h"
#include "serve/runtime/process.h"

#include <stdio.h>

#define LINES_PER_SECOND 20.0
#define LINES_AT_ONCE 200.0
#define PIECE 4096
#define PIECES_AT_ONCE 16

static bool may_write(struct process_lines *l, int64_t now_ns)
{
    l->tokens += (double)(now_ns - l->refilled_ns) / (double)NS_PER_S * LINES_PER_SECOND;
    l->tokens = MIN(l->tokens, LINES_AT_ONCE);
    l->refilled_ns = now_ns;
    if (l->tokens < 1)
        return false;
    l->tokens -= 1;
    return true;
}

static void line_end(struct process_instance *i)
{
    struct process_lines *l = &i->lines;
    str text = str_trim((str){l->line, l->n});

    l->n = 0;
    if (!text.n && !l->cut)
        return;
    snprintf(l->last, sizeof(l->last), STR_F, STR_A(text));
    if (!may_write(l, time_mono_ns())) {
        l->dropped++;
    } else if (l->dropped) {
        log_event(LOG_INFO, "process.output",
                  "model=%s instance=%u dropped=%llu cut=%d line=\"" STR_F "\"", i->herd->label,
                  i->index, (unsigned long long)l->dropped, l->cut, STR_A(text));
        l->dropped = 0;
    } else {
        log_event(LOG_INFO, "process.output", "model=%s instance=%u cut=%d line=\"" STR_F "\"",
                  i->herd->label, i->index, l->cut, STR_A(text));
    }
    l->cut = false;
}

static void take(struct process_instance *i, str piece)
{
    struct process_lines *l = &i->lines;

    for (size_t at = 0; at < piece.n; at++) {
        if (piece.p[at] == '\n')
            line_end(i);
        else if (l->n < sizeof(l->line))
            l->line[l->n++] = piece.p[at];
        else
            l->cut = true;
    }
}

bool process_output_read(struct process_instance *i)
{
    char piece[PIECE];
    struct err e;
    size_t n;

    for (int k = 0; k < PIECES_AT_ONCE; k++) {
        int rc = stream_read(i->out_fd, piece, sizeof(piece), 0, &n, &e);

        if (rc)
            return rc == CODE_DEADLINE_EXCEEDED; /* nothing more now */
        if (!n)
            return false;
        take(i, (str){piece, n});
    }
    return true;
}

void process_output_end(struct process_instance *i)
{
    if (i->out_fd >= 0)
        (void)process_output_read(i);
    if (i->lines.n)
        line_end(i);
}
