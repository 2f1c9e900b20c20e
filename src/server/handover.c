/* SPDX-License-Identifier: Apache-2.0 */
#include "server/handover.h"

#include "loop/listen.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const words[] = {
    [HANDOVER_SOCKETS] = "sockets", [HANDOVER_READY] = "ready", [HANDOVER_RETIRE] = "retire"};

void handover_close(struct handover_sockets *s)
{
    while (s->n)
        close(s->fds[--s->n]);
}

/* Of the environment; removed from it. False: not there, or not a number. */
static bool take_number(const char *name, uint64_t *ret)
{
    const char *text = getenv(name);
    bool is_number = text && str_to_u64(str_of(text), ret);

    (void)unsetenv(name);
    return is_number;
}

int handover_activated(struct handover_sockets *ret, struct err *e)
{
    uint64_t pid = 0, n = 0;
    bool has_pid = take_number("LISTEN_PID", &pid), has_count = take_number("LISTEN_FDS", &n);

    (void)unsetenv("LISTEN_FDNAMES");
    *ret = (struct handover_sockets){0};
    if (!has_pid || !has_count || pid != (uint64_t)getpid())
        return 0;
    if (n > PASS_FDS_MAX)
        return FAIL(e, INVALID_ARGUMENT, "LISTEN_FDS is %llu: at most %u sockets are taken",
                    (unsigned long long)n, PASS_FDS_MAX);
    TRY(listen_inherit((size_t)n, ret->fds, e));
    ret->n = (size_t)n;
    ret->apart = n > 0;
    return 0;
}

/* "WORD NUMBER kept|apart LISTEN": the address last, for it may hold anything. */
int handover_send(int end, const struct handover_message *m, struct err *e)
{
    const struct handover_sockets *s = &m->sockets;
    char text[PASS_BYTES_MAX];
    long long number = m->word == HANDOVER_READY ? m->patience_ms : m->successor;
    int n = snprintf(text, sizeof(text), "%s %lld %s %s", words[m->word], number,
                     s->apart ? "apart" : "kept", s->listen);

    ASSERT(n > 0 && (size_t)n < sizeof(text));
    return pass_send(end, (str){text, (size_t)n}, s->fds, s->n, e);
}

static NODISCARD int parse(str text, struct handover_message *ret, struct err *e)
{
    str rest = text, word = str_cut(&rest, ' '), number = str_cut(&rest, ' ');
    str kind = str_cut(&rest, ' ');
    int64_t value;

    for (size_t i = HANDOVER_SOCKETS; i < ARRAY_LEN(words); i++)
        if (str_eqz(word, words[i]))
            ret->word = (enum handover_word)i;
    ret->sockets.apart = str_eq(kind, S("apart"));
    if (!ret->word || !str_to_i64(number, &value) ||
        !str_to_z(rest, ret->sockets.listen, sizeof(ret->sockets.listen)))
        return FAIL(e, INVALID_ARGUMENT, "'" STR_F "' is no message of a hand-over",
                    STR_A(str_take(text, 64)));
    ret->successor = ret->word == HANDOVER_SOCKETS && value;
    ret->patience_ms = ret->word == HANDOVER_READY ? value : 0;
    return 0;
}

int handover_receive(int end, int64_t deadline_ns, struct handover_message *ret, struct err *e)
{
    struct pass_message m;
    int rc;

    *ret = (struct handover_message){0};
    TRY(pass_receive(end, deadline_ns, &m, e));
    if (!m.text.n) {
        ret->word = HANDOVER_GONE;
        return 0;
    }
    memcpy(ret->sockets.fds, m.fds, m.fd_count * sizeof(m.fds[0]));
    ret->sockets.n = m.fd_count;
    rc = parse(m.text, ret, e);
    if (rc)
        handover_close(&ret->sockets);
    return rc;
}
