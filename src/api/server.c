/* SPDX-License-Identifier: Apache-2.0 */
#include "api/priv.h"

#include "base/files.h"
#include "base/mem.h"
#include "base/time.h"

#define SWEEP_NS NS_PER_S

static void on_tcp(struct loop *loop, struct listener *li, int fd, const struct addr *peer)
{
    (void)loop, (void)peer;
    api_conn_accept(CONTAINER_OF(li, struct api, tcp), fd, true);
}

static void on_unix(struct loop *loop, struct listener *li, int fd, const struct addr *peer)
{
    (void)loop, (void)peer;
    api_conn_accept(CONTAINER_OF(li, struct api, unix_socket), fd, false);
}

static void on_sweep(struct loop *loop, struct loop_timer *t)
{
    api_conns_sweep(CONTAINER_OF(t, struct api, sweep));
    loop_timer_set(loop, t, loop_now_ns(loop) + SWEEP_NS);
}

static NODISCARD int listen_on(struct api *api, str text, struct listener *li, listener_fn fn,
                               struct addr *ret_addr, struct err *e)
{
    AUTO(file_closep) int fd = -1;
    struct addr address;

    TRY(addr_parse(text, &address, e));
    TRY(listen_open(&address, NULL, &fd, e));
    TRY(addr_of_socket(fd, ret_addr, e));
    TRY(listener_start(api->loop, li, fd, fn, e));
    fd = -1;
    return 0;
}

static NODISCARD int open_tcp(struct api *api, const char *address, struct err *e)
{
    struct addr bound;
    str text = str_of(address);
    size_t n = text.n;

    TRY(listen_on(api, text, &api->tcp, on_tcp, &bound, e));
    api->port = addr_port(&bound);
    while (n && text.p[n - 1] != ':')
        n--;
    if (n && !str_to_z(str_take(text, n - 1), api->host, sizeof(api->host)))
        api->host[0] = '\0';
    return 0;
}

int api_open(struct loop *loop, const char *tcp_address, const char *unix_path,
             const struct api_context *context, struct api **ret_api, struct err *e)
{
    AUTO(api_closep) struct api *api = mem_zalloc(sizeof(*api));
    char path[ADDR_TEXT_SIZE + 8] = "unix:";
    struct addr bound;

    api->loop = loop;
    api->ctx = *context;
    api->started_ns = time_wall_ns();
    api->sweep.fn = on_sweep;
    arena_init(&api->arena, 0);
    buf_init(&api->body, API_ANSWER_BYTES_MAX);
    if (!str_to_z(str_of(unix_path), path + 5, sizeof(path) - 5))
        return FAIL(e, INVALID_ARGUMENT,
                    "the path of the control socket is longer than 107 bytes:"
                    " %s",
                    unix_path);
    TRY(listen_on(api, str_of(path), &api->unix_socket, on_unix, &bound, e));
    if (tcp_address)
        TRY(open_tcp(api, tcp_address, e));
    loop_timer_set(loop, &api->sweep, loop_now_ns(loop) + SWEEP_NS);
    *ret_api = TAKE(api);
    return 0;
}

void api_close(struct api *api)
{
    if (!api)
        return;
    loop_timer_cancel(api->loop, &api->sweep);
    listener_stop(api->loop, &api->tcp);
    listener_stop(api->loop, &api->unix_socket);
    api_conns_close(api);
    buf_done(&api->body);
    arena_done(&api->arena);
    mem_free(api);
}

uint16_t api_port(const struct api *api)
{
    return api->port;
}
