/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/time.h"
#include "loop/dial.h"
#include "loop/listen.h"
#include "loop/stream.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void addresses(void)
{
    static const struct {
        const char *text, *again; /* again == NULL: refused with `why` */
        const char *why;
    } cases[] = {
        {"127.0.0.1:8080", "127.0.0.1:8080", NULL},
        {"localhost:1", "127.0.0.1:1", NULL},
        {":80", "0.0.0.0:80", NULL},
        {"*:0", "0.0.0.0:0", NULL},
        {"[::1]:65535", "[::1]:65535", NULL},
        {"[0:0::2]:7", "[::2]:7", NULL},
        {"unix:/tmp/x.sock", "unix:/tmp/x.sock", NULL},
        {"unix:rel.sock", "unix:rel.sock", NULL},
        {"", NULL, "lacks a port"},
        {"127.0.0.1", NULL, "lacks a port"},
        {"[::1]", NULL, "lacks a port"},
        {"::1:80", NULL, "in brackets"},
        {"127.0.0.1:", NULL, "port ''"},
        {"127.0.0.1:65536", NULL, "0 to 65535"},
        {"127.0.0.1:-1", NULL, "0 to 65535"},
        {"127.0.0.1:+1", NULL, "0 to 65535"},
        {"127.0.0.1:0x50", NULL, "0 to 65535"},
        {"127.0.0.1: 80", NULL, "0 to 65535"},
        {"127.0.0.1:000080", NULL, "0 to 65535"},
        {"127.1:80", NULL, "not a numeric address"},
        {"example.org:80", NULL, "not a numeric address"},
        {"unix:", NULL, "lacks a path"},
    };
    struct addr a;
    struct err e;
    char text[ADDR_TEXT_SIZE], long_path[140];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (!cases[i].again) {
            CHECK_FAILS(addr_parse(str_of(cases[i].text), &a, &e), INVALID_ARGUMENT, &e,
                        cases[i].why);
            continue;
        }
        NEED_OK(addr_parse(str_of(cases[i].text), &a, &e), &e);
        addr_text(&a, text);
        CHECK_STR(str_of(text), str_of(cases[i].again));
    }
    memset(long_path, 'x', sizeof(long_path));
    memcpy(long_path, "unix:", 5);
    CHECK_OK(addr_parse((str){long_path, 5 + 107}, &a, &e), &e);
    CHECK_FAILS(addr_parse((str){long_path, 5 + 108}, &a, &e), INVALID_ARGUMENT, &e, "108 bytes");
    CHECK_FAILS(addr_parse((str){"unix:a\0b", 8}, &a, &e), INVALID_ARGUMENT, &e, "NUL");
    CHECK_OK(addr_resolve(S("localhost:9"), &a, &e), &e);
    CHECK_INT(addr_port(&a), 9);
}

static void public_addresses(void)
{
    static const struct {
        const char *text;
        bool is_public;
    } cases[] = {
        {"8.8.8.8:1", true},
        {"1.1.1.1:1", true},
        {"172.15.255.255:1", true},
        {"172.32.0.0:1", true},
        {"100.128.0.0:1", true},
        {"223.255.255.255:1", true},
        {"0.0.0.0:1", false},
        {"10.1.2.3:1", false},
        {"100.64.0.1:1", false},
        {"100.127.255.255:1", false},
        {"127.255.0.1:1", false},
        {"169.254.169.254:1", false},
        {"172.16.0.1:1", false},
        {"172.31.255.255:1", false},
        {"192.168.1.1:1", false},
        {"198.19.255.255:1", false},
        {"224.0.0.1:1", false},
        {"255.255.255.255:1", false},
        {"[2606:4700::1111]:1", true},
        {"[::1]:1", false},
        {"[::]:1", false},
        {"[fe80::1]:1", false},
        {"[fd00::1]:1", false},
        {"[ff02::1]:1", false},
        {"[::ffff:10.0.0.1]:1", false},
        {"[::ffff:8.8.8.8]:1", true},
        {"[64:ff9b::a00:1]:1", false},
        {"[2002:a00:1::]:1", false},
        {"[2001:db8::1]:1", false},
        {"[2001:0:1::]:1", false},
        {"unix:/x", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct addr a;
        struct err e;

        NEED_OK(addr_parse(str_of(cases[i].text), &a, &e), &e);
        if (!CHECK(addr_is_public(&a) == cases[i].is_public))
            fprintf(stderr, "    %s\n", cases[i].text);
    }
}

/* --- A server that echoes, on the loop ------------------------------------------------------ */

struct echo {
    struct listener listener;
    struct loop_fd conn;
    int accepted;
};

static void on_data(struct loop *l, struct loop_fd *w, uint32_t events)
{
    char text[256];
    ssize_t n = read(w->fd, text, sizeof(text));

    (void)events;
    if (n > 0) {
        CHECK(write(w->fd, text, (size_t)n) == n);
        return;
    }
    loop_fd_remove(l, w);
    close(w->fd);
    w->fd = -1;
}

static void on_accept(struct loop *l, struct listener *li, int fd, const struct addr *peer)
{
    struct echo *x = CONTAINER_OF(li, struct echo, listener);
    struct err e;

    (void)peer;
    x->accepted++;
    if (x->conn.events) {
        close(fd);
        return;
    }
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    x->conn = (struct loop_fd){.fd = fd, .fn = on_data};
    CHECK_OK(loop_fd_add(l, &x->conn, EPOLLIN, &e), &e);
}

static void echo_over(const char *address)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct echo x = {0};
    struct addr a, at;
    struct err e;
    char back[8] = {0};
    int fd, on = 0;
    size_t n = 0;
    socklen_t size = sizeof(on);

    NEED_OK(loop_new(&l, &e), &e);
    NEED_OK(addr_parse(str_of(address), &a, &e), &e);
    NEED_OK(listen_open(&a, NULL, &fd, &e), &e);
    NEED_OK(addr_of_socket(fd, &at, &e), &e);
    NEED_OK(listener_start(l, &x.listener, fd, on_accept, &e), &e);
    NEED_OK(dial(&at, time_mono_ns() + NS_PER_S, &fd, &e), &e);
    NEED_OK(stream_write_all(fd, "hello", 5, INT64_MAX, &e), &e);
    for (int i = 0; i < 20 && n == 0; i++) {
        loop_turn(l, 10 * NS_PER_MS);
        if (stream_read(fd, back, sizeof(back), time_mono_ns(), &n, &e))
            n = 0;
    }
    CHECK_STR(((str){back, n}), S("hello"));
    CHECK_INT(x.accepted, 1);
    if (!addr_is_unix(&a)) {
        CHECK(getsockopt(x.conn.fd, IPPROTO_TCP, TCP_NODELAY, &on, &size) == 0 && on);
    }
    CHECK_FAILS(stream_read(fd, back, 1, time_mono_ns() + NS_PER_MS, &n, &e), DEADLINE_EXCEEDED, &e,
                "in time");
    close(fd);
    loop_turn(l, 10 * NS_PER_MS);
    CHECK_INT(x.conn.fd, -1);
    listener_stop(l, &x.listener);
    if (addr_is_unix(&a)) {
        CHECK_FAILS(dial(&at, INT64_MAX, &fd, &e), UNAVAILABLE, &e, "does not exist");
    } else {
        CHECK_FAILS(dial(&at, time_mono_ns() + NS_PER_S, &fd, &e), UNAVAILABLE, &e,
                    "nobody listens on 127.0.0.1:");
    }
}

static void tcp(void)
{
    echo_over("127.0.0.1:0");
}

static char socket_path[64];

static void unix_socket(void)
{
    char text[80];

    snprintf(text, sizeof(text), "unix:%s", socket_path);
    echo_over(text);
}

static void a_port_in_use_is_named(void)
{
    struct addr a, at;
    struct err e;
    int fd, second, shared[3], more[2];
    char port[16];

    NEED_OK(addr_parse(S("127.0.0.1:0"), &a, &e), &e);
    NEED_OK(listen_open(&a, NULL, &fd, &e), &e);
    NEED_OK(addr_of_socket(fd, &at, &e), &e);
    snprintf(port, sizeof(port), ":%u", addr_port(&at));
    CHECK_FAILS(listen_open(&at, NULL, &second, &e), UNAVAILABLE, &e, port);
    CHECK(strstr(e.msg, "ss -ltnp") != NULL);
    close(fd);

    NEED_OK(listen_open_shared(&a, NULL, 3, shared, &e), &e);
    NEED_OK(addr_of_socket(shared[0], &at, &e), &e);
    CHECK_FAILS(listen_open_shared(&at, NULL, 2, more, &e), UNAVAILABLE, &e, "in use");
    CHECK(more[0] == -1 && more[1] == -1);
    for (int i = 0; i < 3; i++) {
        struct addr each;

        CHECK_OK(addr_of_socket(shared[i], &each, &e), &e);
        CHECK_INT(addr_port(&each), addr_port(&at));
        close(shared[i]);
    }
    NEED_OK(addr_parse(S("192.0.2.1:0"), &a, &e), &e);
    CHECK_FAILS(listen_open(&a, NULL, &fd, &e), INVALID_ARGUMENT, &e, "no interface");
}

static void only_stale_sockets_are_replaced(void)
{
    char text[80];
    struct addr a;
    struct stat st;
    struct err e;
    int fd, second, shared[2], plain;

    snprintf(text, sizeof(text), "unix:%s", socket_path);
    NEED_OK(addr_parse(str_of(text), &a, &e), &e);
    NEED_OK(listen_open(&a, NULL, &fd, &e), &e);
    CHECK(stat(socket_path, &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0600);
    CHECK_FAILS(listen_open(&a, NULL, &second, &e), UNAVAILABLE, &e, "in use by a running program");
    close(fd); /* as a killed process leaves it */
    NEED_OK(listen_open_shared(&a, &(struct listen_options){.unix_mode = 0660}, 2, shared, &e), &e);
    CHECK(stat(socket_path, &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0660);
    close(shared[0]);
    close(shared[1]);
    CHECK(unlink(socket_path) == 0);
    plain = open(socket_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(plain >= 0 && close(plain) == 0);
    CHECK_FAILS(listen_open(&a, NULL, &fd, &e), ALREADY_EXISTS, &e, "is not a socket");
    CHECK(stat(socket_path, &st) == 0 && S_ISREG(st.st_mode));
    CHECK(unlink(socket_path) == 0);
    NEED_OK(addr_parse(S("unix:/nonexistent/x.sock"), &a, &e), &e);
    CHECK_FAILS(listen_open(&a, NULL, &fd, &e), NOT_FOUND, &e, "folder does not exist");
}

/* Out of descriptors: the listener pauses and does not spin; then it goes on. */
static void a_starved_listener_pauses(void)
{
    AUTO(loop_freep) struct loop *l = NULL;
    struct echo x = {0};
    struct addr a, at;
    struct rlimit before, low;
    struct err e;
    int fd, client;

    NEED_OK(loop_new(&l, &e), &e);
    NEED_OK(addr_parse(S("127.0.0.1:0"), &a, &e), &e);
    NEED_OK(listen_open(&a, NULL, &fd, &e), &e);
    NEED_OK(addr_of_socket(fd, &at, &e), &e);
    NEED_OK(listener_start(l, &x.listener, fd, on_accept, &e), &e);
    NEED_OK(dial(&at, time_mono_ns() + NS_PER_S, &client, &e), &e);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    low = (struct rlimit){.rlim_cur = (rlim_t)client + 1, .rlim_max = before.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    loop_turn(l, NS_PER_S);
    loop_turn(l, 0);
    loop_turn(l, 0);
    CHECK_INT(x.listener.starved, 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    for (int i = 0; i < 5 && x.accepted == 0; i++)
        loop_turn(l, NS_PER_S);
    CHECK_INT(x.accepted, 1);
    close(client);
    loop_turn(l, 10 * NS_PER_MS);
    listener_stop(l, &x.listener);
}

static void writes_to_a_peer_that_is_gone_or_full(void)
{
    static char much[1 << 20];
    struct err e;
    int ends[2];

    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK_FAILS(stream_write_all(ends[0], much, sizeof(much), time_mono_ns() + NS_PER_MS, &e),
                DEADLINE_EXCEEDED, &e, "in time");
    close(ends[1]);
    CHECK_FAILS(stream_write_all(ends[0], "x", 1, INT64_MAX, &e), UNAVAILABLE, &e, "closed");
    close(ends[0]);
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK_OK(stream_write_all(ends[0], "abc", 3, INT64_MAX, &e), &e);
    close(ends[0]);
    CHECK_OK(stream_read_all(ends[1], much, 2, INT64_MAX, &e), &e);
    CHECK_FAILS(stream_read_all(ends[1], much, 2, INT64_MAX, &e), UNAVAILABLE, &e,
                "1 bytes missing");
    close(ends[1]);
}

int main(int argc, char **argv)
{
    static const struct check_test tests[] = {T(addresses),
                                              T(public_addresses),
                                              T(tcp),
                                              T(unix_socket),
                                              T(a_port_in_use_is_named),
                                              T(only_stale_sockets_are_replaced),
                                              T(a_starved_listener_pauses),
                                              T(writes_to_a_peer_that_is_gone_or_full)};

    snprintf(socket_path, sizeof(socket_path), "/tmp/weir-test-net-%d.sock", (int)getpid());
    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}
