/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor and its gateways say to each other, and what is no such thing. */
#include "check.h"

#include "server/handover.h"

#include <fcntl.h>
#include <unistd.h>

static int ends[2];

static void open_ends(void)
{
    struct err e;

    NEED_OK(pass_pair(ends, &e), &e);
}

static void close_ends(void)
{
    close(ends[0]);
    close(ends[1]);
}

static void what_is_sent_comes(void)
{
    struct handover_message m = {.word = HANDOVER_READY, .patience_ms = 12345};
    struct handover_message got;
    struct err e;

    open_ends();
    m.sockets = (struct handover_sockets){.listen = "unix:/a path/with blanks", .n = 2};
    m.sockets.fds[0] = m.sockets.fds[1] = STDIN_FILENO;
    NEED_OK(handover_send(ends[0], &m, &e), &e);
    NEED_OK(handover_receive(ends[1], 0, &got, &e), &e);
    CHECK(got.word == HANDOVER_READY && got.patience_ms == 12345 && !got.successor);
    CHECK(!got.sockets.apart && got.sockets.n == 2);
    CHECK(strcmp(got.sockets.listen, m.sockets.listen) == 0);
    handover_close(&got.sockets);
    m = (struct handover_message){
        .word = HANDOVER_SOCKETS, .successor = true, .sockets.apart = true};
    NEED_OK(handover_send(ends[0], &m, &e), &e);
    NEED_OK(handover_receive(ends[1], 0, &got, &e), &e);
    CHECK(got.word == HANDOVER_SOCKETS && got.successor && got.sockets.apart && !got.sockets.n);
    CHECK(got.sockets.listen[0] == 0);
    m = (struct handover_message){.word = HANDOVER_RETIRE};
    NEED_OK(handover_send(ends[0], &m, &e), &e);
    NEED_OK(handover_receive(ends[1], 0, &got, &e), &e);
    CHECK(got.word == HANDOVER_RETIRE);
    close(ends[0]);
    ends[0] = -1;
    NEED_OK(handover_receive(ends[1], 0, &got, &e), &e);
    CHECK(got.word == HANDOVER_GONE);
    close_ends();
}

/* From a program of another version, say; its descriptors are not leaked. */
static void what_is_not_understood_is_refused(void)
{
    static const char *const texts[] = {"hello",   "ready", "ready x kept y",
                                        "sockets", " ",     "gone 1 kept a"};
    struct handover_message got;
    struct err e;

    open_ends();
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int input = STDIN_FILENO, free_before = dup(STDIN_FILENO), free_after;

        close(free_before);
        NEED_OK(pass_send(ends[0], str_of(texts[i]), &input, 1, &e), &e);
        CHECK_FAILS(handover_receive(ends[1], 0, &got, &e), INVALID_ARGUMENT, &e, "hand-over");
        free_after = dup(STDIN_FILENO);
        CHECK_INT(free_after, free_before);
        close(free_after);
    }
    close_ends();
}

RUN_TESTS(T(what_is_sent_comes), T(what_is_not_understood_is_refused))
