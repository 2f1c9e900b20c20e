/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets.
 *
 * A unix socket outlives its process as a file, and bind(2) refuses while the file is there. The
 * file is removed only if it is a socket and nobody answers on it; connecting is the only test that
 * cannot be fooled by a reused process number. Its mode is set to 0600 on the descriptor before
 * bind, so that there is no moment at which others could connect; a wider mode asked for comes
 * after.
 *
 * TCP_NODELAY on the listening socket is inherited by what it accepts (Linux): one system call per
 * connection saved.
 */
#include "loop/listen.h"

#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTEN_FDS_START 3 /* as systemd counts */
#define ACCEPTS_PER_TURN 64
#define STARVED_PAUSE_NS (100 * NS_PER_MS)

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* Takes a descriptor out of the care of AUTO(close_fd). */
static int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

static int in_use(const char *text, const struct addr *a, struct err *e)
{
    if (addr_is_unix(a))
        return FAIL(e, UNAVAILABLE,
                    "address %s is in use by a running program: stop it, or choose another path",
                    text);
    return FAIL(e, UNAVAILABLE,
                "address %s is in use: stop the program that holds it (ss -ltnp 'sport = :%u' "
                "shows it) or choose another port",
                text, addr_port(a));
}

static int bind_failed(const struct addr *a, struct err *e)
{
    char text[ADDR_TEXT_SIZE];
    int saved = errno;

    addr_text(a, text);
    switch (saved) {
    case EADDRINUSE:
        return in_use(text, a, e);
    case EACCES:
        if (addr_is_unix(a))
            return FAIL(e, PERMISSION_DENIED, "address %s: no right to make a socket there", text);
        return FAIL(e, PERMISSION_DENIED,
                    "address %s: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one",
                    text);
    case EADDRNOTAVAIL:
        return FAIL(e, INVALID_ARGUMENT, "address %s belongs to no interface of this machine",
                    text);
    case ENOENT:
        return FAIL(e, NOT_FOUND, "address %s: the folder does not exist", text);
    default:
        errno = saved;
        return FAIL_ERRNO(e, "binding to %s", text);
    }
}

/* Removes the file of a unix socket on which nobody listens any more. */
static int remove_stale(const struct addr *a, struct err *e)
{
    const char *path = a->un.sun_path;
    AUTO(close_fd) int fd = -1;
    char text[ADDR_TEXT_SIZE];
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : FAIL_ERRNO(e, "looking at '%s'", path);
    if (!S_ISSOCK(st.st_mode))
        return FAIL(e, ALREADY_EXISTS,
                    "'%s' exists and is not a socket: remove it, or choose another path", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return FAIL_ERRNO(e, "making a socket");
    if (connect(fd, &a->any, a->len) < 0 && errno == ECONNREFUSED) {
        if (unlink(path) < 0 && errno != ENOENT)
            return FAIL_ERRNO(e, "removing the stale socket '%s'", path);
        return 0;
    }
    addr_text(a, text);
    return in_use(text, a, e);
}

static int set_options(int fd, const struct addr *a, const struct listen_options *o, struct err *e)
{
    int on = 1;

    if (addr_is_unix(a)) {
        if (fchmod(fd, 0600) < 0)
            return FAIL_ERRNO(e, "setting the mode of a socket");
        return 0;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        (o->reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0))
        return FAIL_ERRNO(e, "setting options of a socket");
    return 0;
}

int listen_open(const struct addr *a, const struct listen_options *options, int *ret_fd,
                struct err *e)
{
    static const struct listen_options none;
    const struct listen_options *o = options ? options : &none;
    AUTO(close_fd) int fd = -1;

    if (addr_is_unix(a))
        TRY(remove_stale(a, e));
    fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return FAIL_ERRNO(e, "making a socket");
    TRY(set_options(fd, a, o, e));
    if (bind(fd, &a->any, a->len) < 0 || listen(fd, o->backlog > 0 ? o->backlog : 4096) < 0)
        return bind_failed(a, e);
    if (o->unix_mode && addr_is_unix(a) && chmod(a->un.sun_path, o->unix_mode) < 0)
        return FAIL_ERRNO(e, "setting the mode of '%s'", a->un.sun_path);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* One unix socket serves several loops through copies of its descriptor. */
static int share_unix(int *fds, size_t n, struct err *e)
{
    for (size_t i = 1; i < n; i++) {
        fds[i] = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
        if (fds[i] < 0)
            return FAIL_ERRNO(e, "copying a socket");
    }
    return 0;
}

static int share_tcp(const struct listen_options *o, int *fds, size_t n, struct err *e)
{
    struct listen_options shared = o ? *o : (struct listen_options){0};
    struct addr at;

    TRY(addr_of_socket(fds[0], &at, e)); /* the port, when the system chose it */
    close(fds[0]);                       /* it listened alone: only a probe */
    fds[0] = -1;
    shared.reuse_port = true;
    for (size_t i = 0; i < n; i++)
        TRY(listen_open(&at, &shared, &fds[i], e));
    return 0;
}

int listen_open_shared(const struct addr *a, const struct listen_options *options, size_t n,
                       int *ret_fds, struct err *e)
{
    struct listen_options alone = options ? *options : (struct listen_options){0};
    int rc;

    ASSERT(n >= 1);
    alone.reuse_port = false;
    for (size_t i = 0; i < n; i++)
        ret_fds[i] = -1;
    TRY(listen_open(a, &alone, &ret_fds[0], e));
    rc = addr_is_unix(a) ? share_unix(ret_fds, n, e) : share_tcp(options, ret_fds, n, e);
    for (size_t i = 0; rc && i < n; i++) {
        close_fd(&ret_fds[i]);
        ret_fds[i] = -1;
    }
    return rc;
}

static NODISCARD int check_inherited(int fd, struct err *e)
{
    int type = 0, listens = 0, on = 1;
    socklen_t n = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) < 0 || !listens)
        return FAIL(e, INVALID_ARGUMENT,
                    "descriptor %d of LISTEN_FDS is no listening stream socket: the socket unit "
                    "needs ListenStream= and Accept=no",
                    fd);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return FAIL_ERRNO(e, "taking over descriptor %d", fd);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* no TCP: no matter */
    return 0;
}

int listen_inherit(size_t n, int *ret_fds, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        ret_fds[i] = LISTEN_FDS_START + (int)i;
        TRY(check_inherited(ret_fds[i], e));
    }
    return 0;
}

ino_t listen_file(int fd)
{
    struct addr a;
    struct stat st;

    if (addr_of_socket(fd, &a, NULL) || !addr_is_unix(&a) || lstat(a.un.sun_path, &st) < 0)
        return 0;
    return st.st_ino;
}

void listen_file_remove(int fd, ino_t file)
{
    struct addr a;

    if (file && listen_file(fd) == file && addr_of_socket(fd, &a, NULL) == 0)
        (void)unlink(a.un.sun_path);
}

/* --- The accept loop ------------------------------------------------------------------------ */

static void on_pause_end(struct loop *l, struct loop_timer *t)
{
    struct listener *li = CONTAINER_OF(t, struct listener, pause);

    /* Watching may fail for the same want of memory: then once more later. */
    if (loop_fd_add(l, &li->watch, EPOLLIN, NULL))
        loop_timer_set(l, t, loop_now_ns(l) + STARVED_PAUSE_NS);
}

static void starve(struct loop *l, struct listener *li)
{
    li->starved++;
    loop_fd_remove(l, &li->watch);
    loop_timer_set(l, &li->pause, loop_now_ns(l) + STARVED_PAUSE_NS);
}

static void on_connections(struct loop *l, struct loop_fd *w, uint32_t events)
{
    struct listener *li = CONTAINER_OF(w, struct listener, watch);

    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN && w->events; i++) {
        struct addr peer;

        peer.len = sizeof(peer.un);
        int fd = accept4(w->fd, &peer.any, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            li->accepted++;
            li->fn(l, li, fd, &peer);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            starve(l, li);
        /* Others are those of a connection that died in the queue: look at the next one. */
        if (errno == EAGAIN)
            break;
    }
}

int listener_start(struct loop *l, struct listener *li, int fd, listener_fn fn, struct err *e)
{
    ASSERT(fd >= 0 && fn);
    *li = (struct listener){.watch = {.fd = fd, .fn = on_connections},
                            .pause = {.fn = on_pause_end},
                            .fn = fn,
                            .file = listen_file(fd)};
    TRY(loop_fd_add(l, &li->watch, EPOLLIN, e));
    li->started = true;
    return 0;
}

void listener_stop(struct loop *l, struct listener *li)
{
    if (!li->started)
        return;
    loop_timer_cancel(l, &li->pause);
    loop_fd_remove(l, &li->watch);
    listen_file_remove(li->watch.fd, li->file);
    close(li->watch.fd);
    *li = (struct listener){.watch.fd = -1};
}
