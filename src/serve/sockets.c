/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the loops listen, and how a gateway takes sockets over from the one before it.
 *
 * A gateway that opens its own sockets has one for each loop, in one SO_REUSEPORT group, among
 * which the kernel spreads connections. Closing the last descriptor of such a socket resets the
 * connections that wait in its queue, which is what a restart would do. So whoever started the
 * gateway keeps copies, and gives them to the next one: the queue outlives the process, nobody is
 * refused, and who connects in between waits.
 *
 * The number of sockets then no longer follows that of the loops. A loop listens on every socket
 * whose index leads to it, modulo the number of loops, and where there are fewer sockets than loops
 * several share one. No socket is added to a group or taken from it while somebody uses it: one
 * that is added gets connections at once, before anybody accepts them, and would reset them if the
 * start then failed.
 *
 * Sockets from systemd are addresses of their own instead: every loop listens on each.
 */
#include "serve/priv.h"

#include "base/mem.h"

#include <fcntl.h>
#include <unistd.h>

_Static_assert(SOCKETS_MAX >= COUNTERS_LOOPS_MAX, "one for each loop");

void sockets_close(struct sockets *s)
{
    while (s->n)
        close(s->fds[--s->n]);
}

static NODISCARD int own_sockets(const struct gateway_config *cfg, struct sockets *ret,
                                 struct err *e)
{
    struct addr at;

    TRY(addr_parse(str_of(cfg->listen), &at, e));
    TRY(listen_open_shared(&at, NULL, cfg->loops, ret->fds, e));
    ret->n = cfg->loops;
    return 0;
}

int sockets_open(const struct gateway_config *cfg, struct sockets *ret, bool *ret_local,
                 uint16_t *ret_port, struct err *e)
{
    struct addr at;

    ASSERT(cfg->socket_count <= SOCKETS_MAX);
    ret->n = cfg->socket_count;
    if (ret->n)
        memcpy(ret->fds, cfg->sockets, ret->n * sizeof(ret->fds[0]));
    else
        TRY(own_sockets(cfg, ret, e));
    *ret_local = true;
    for (size_t i = ret->n; i-- > 0;) { /* the first one names the port */
        TRY(addr_of_socket(ret->fds[i], &at, e));
        *ret_local &= guard_is_local(&at);
        *ret_port = addr_port(&at);
    }
    return 0;
}

static bool is_share(const struct sockets *s, const struct gateway_config *cfg, size_t i,
                     uint32_t loop)
{
    if (cfg->sockets_apart)
        return true;
    return s->n >= cfg->loops ? i % cfg->loops == loop : i == loop % s->n;
}

int sockets_listen(const struct sockets *s, const struct gateway_config *cfg, struct serve_loop *l,
                   struct err *e)
{
    l->listeners = mem_zalloc(s->n * sizeof(*l->listeners));
    for (size_t i = 0; i < s->n; i++) {
        struct serve_listener *sl = &l->listeners[l->listener_count];
        int fd, rc;

        if (!is_share(s, cfg, i, l->index))
            continue;
        fd = fcntl(s->fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return FAIL_ERRNO(e, "copying a socket");
        sl->l = l;
        rc = listener_start(l->loop, &sl->listener, fd, conn_accept, e);
        if (rc) {
            close(fd);
            return rc;
        }
        l->listener_count++;
    }
    return 0;
}

void sockets_stop(struct serve_loop *l)
{
    while (l->listener_count)
        listener_stop(l->loop, &l->listeners[--l->listener_count].listener);
    mem_free(l->listeners);
    l->listeners = NULL;
}
