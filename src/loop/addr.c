/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/addr.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

#define UNIX_PATH_MAX_BYTES (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

static int parse_unix(str path, struct addr *ret_addr, struct err *e)
{
    struct addr a = {.un.sun_family = AF_UNIX};

    if (path.n == 0)
        return FAIL(e, INVALID_ARGUMENT, "address 'unix:' lacks a path: write unix:/run/weir.sock");
    if (path.n > UNIX_PATH_MAX_BYTES)
        return FAIL(e, INVALID_ARGUMENT,
                    "socket path '" STR_F "' has %zu bytes, the system allows %zu: choose a "
                    "shorter folder",
                    STR_A(path), path.n, UNIX_PATH_MAX_BYTES);
    if (!str_to_z(path, a.un.sun_path, sizeof(a.un.sun_path)))
        return FAIL(e, INVALID_ARGUMENT, "socket path holds a NUL character");
    a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
    *ret_addr = a;
    return 0;
}

/* Splits "host:port" and "[v6]:port"; the host may be empty. */
static int split(str text, str *ret_host, uint16_t *ret_port, struct err *e)
{
    uint64_t port;
    str host, digits;
    size_t colon = text.n;

    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    if (colon == 0 || str_ends(text, S("]")))
        return FAIL(e, INVALID_ARGUMENT,
                    "address '" STR_F "' lacks a port: write host:port, e.g. 127.0.0.1:8080, or "
                    "unix:/path",
                    STR_A(text));
    host = str_take(text, colon - 1);
    digits = str_skip(text, colon);
    if (digits.n > 5 || !str_to_u64(digits, &port) || port > 65535)
        return FAIL(e, INVALID_ARGUMENT,
                    "address '" STR_F "': port '" STR_F "' is not a number from 0 to 65535",
                    STR_A(text), STR_A(digits));
    if (str_starts(host, S("[")) && str_ends(host, S("]")))
        host = str_take(str_skip(host, 1), host.n - 2);
    else if (str_find_char(host, ':') >= 0)
        return FAIL(e, INVALID_ARGUMENT,
                    "address '" STR_F "': write an IPv6 address in brackets, e.g. [::1]:8080",
                    STR_A(text));
    *ret_host = host;
    *ret_port = (uint16_t)port;
    return 0;
}

/* False when the host is a name. */
static bool numeric(str host, uint16_t port, struct addr *ret_addr)
{
    struct addr a = {0};
    char z[INET6_ADDRSTRLEN + 1];

    if (host.n == 0 || str_eq(host, S("*")))
        host = S("0.0.0.0");
    if (str_eq_nocase(host, S("localhost")))
        host = S("127.0.0.1");
    if (!str_to_z(host, z, sizeof(z)))
        return false;
    if (inet_pton(AF_INET, z, &a.in4.sin_addr) == 1) {
        a.in4.sin_family = AF_INET;
        a.in4.sin_port = htons(port);
        a.len = sizeof(a.in4);
    } else if (inet_pton(AF_INET6, z, &a.in6.sin6_addr) == 1) {
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons(port);
        a.len = sizeof(a.in6);
    } else {
        return false;
    }
    *ret_addr = a;
    return true;
}

int addr_parse(str text, struct addr *ret_addr, struct err *e)
{
    str host;
    uint16_t port;

    if (str_starts(text, S("unix:")))
        return parse_unix(str_skip(text, 5), ret_addr, e);
    TRY(split(text, &host, &port, e));
    if (!numeric(host, port, ret_addr))
        return FAIL(e, INVALID_ARGUMENT,
                    "address '" STR_F "': '" STR_F "' is not a numeric address; write e.g. "
                    "127.0.0.1, [::1], localhost or * (every interface)",
                    STR_A(text), STR_A(host));
    return 0;
}

int addr_resolve(str text, struct addr *ret_addr, struct err *e)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char z[256];
    str host;
    uint16_t port;

    if (str_starts(text, S("unix:")))
        return parse_unix(str_skip(text, 5), ret_addr, e);
    TRY(split(text, &host, &port, e));
    if (numeric(host, port, ret_addr))
        return 0;
    if (!str_to_z(host, z, sizeof(z)))
        return FAIL(e, INVALID_ARGUMENT, "host name '" STR_F "' is too long", STR_A(host));
    int rc = getaddrinfo(z, NULL, &hints, &found);
    if (rc)
        return FAIL(e, UNAVAILABLE, "host name '%s' could not be resolved: %s", z,
                    gai_strerror(rc));
    ASSERT(found && found->ai_addrlen <= sizeof(ret_addr->in6));
    *ret_addr = (struct addr){.len = found->ai_addrlen};
    memcpy(&ret_addr->any, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (ret_addr->any.sa_family == AF_INET)
        ret_addr->in4.sin_port = htons(port);
    else
        ret_addr->in6.sin6_port = htons(port);
    return 0;
}

void addr_text(const struct addr *a, char ret_text[ADDR_TEXT_SIZE])
{
    char host[INET6_ADDRSTRLEN] = "?";

    switch (a->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &a->in4.sin_addr, host, sizeof(host));
        snprintf(ret_text, ADDR_TEXT_SIZE, "%s:%u", host, ntohs(a->in4.sin_port));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
        snprintf(ret_text, ADDR_TEXT_SIZE, "[%s]:%u", host, ntohs(a->in6.sin6_port));
        break;
    default:
        snprintf(ret_text, ADDR_TEXT_SIZE, "unix:%s",
                 a->len > offsetof(struct sockaddr_un, sun_path) ? a->un.sun_path : "");
    }
}

uint16_t addr_port(const struct addr *a)
{
    switch (a->any.sa_family) {
    case AF_INET:
        return ntohs(a->in4.sin_port);
    case AF_INET6:
        return ntohs(a->in6.sin6_port);
    default:
        return 0;
    }
}

bool addr_is_unix(const struct addr *a)
{
    return a->any.sa_family == AF_UNIX;
}

/* The IANA special-purpose registry of IPv4 (RFC 6890 and its updates), plus multicast. */
static bool public4(uint32_t host_order)
{
    static const struct {
        uint32_t net;
        int bits;
    } special[] = {
        {0x00000000, 8},  /* this network */
        {0x0a000000, 8},  /* private */
        {0x64400000, 10}, /* shared (carrier NAT) */
        {0x7f000000, 8},  /* loopback */
        {0xa9fe0000, 16}, /* link-local; cloud metadata */
        {0xac100000, 12}, /* private */
        {0xc0000000, 24}, /* protocol assignments */
        {0xc0000200, 24}, /* documentation */
        {0xc0586300, 24}, /* 6to4 relay */
        {0xc0a80000, 16}, /* private */
        {0xc6120000, 15}, /* benchmarking */
        {0xc6336400, 24}, /* documentation */
        {0xcb007100, 24}, /* documentation */
        {0xe0000000, 4},  /* multicast */
        {0xf0000000, 4},  /* reserved, broadcast */
    };

    for (size_t i = 0; i < ARRAY_LEN(special); i++) {
        if ((host_order ^ special[i].net) >> (32 - special[i].bits) == 0)
            return false;
    }
    return true;
}

static bool public6(const unsigned char a[16])
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    if (memcmp(a, mapped, sizeof(mapped)) == 0)
        return public4((uint32_t)a[12] << 24 | (uint32_t)a[13] << 16 | (uint32_t)a[14] << 8 |
                       a[15]);
    if ((a[0] & 0xe0) != 0x20) /* outside 2000::/3: not global unicast */
        return false;
    if (a[0] == 0x20 && a[1] == 0x01 && (a[2] & 0xfe) == 0) /* 2001::/23: Teredo and others */
        return false;
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8) /* documentation */
        return false;
    if (a[0] == 0x20 && a[1] == 0x02) /* 6to4 hides any IPv4 address */
        return false;
    return !(a[0] == 0x3f && a[1] == 0xff && (a[2] & 0xf0) == 0); /* documentation */
}

bool addr_is_public(const struct addr *a)
{
    switch (a->any.sa_family) {
    case AF_INET:
        return public4(ntohl(a->in4.sin_addr.s_addr));
    case AF_INET6:
        return public6(a->in6.sin6_addr.s6_addr);
    default:
        return false;
    }
}

int addr_of_socket(int fd, struct addr *ret_addr, struct err *e)
{
    struct addr a = {.len = sizeof(a.un)};

    if (getsockname(fd, &a.any, &a.len) < 0)
        return FAIL_ERRNO(e, "asking the address of socket %d", fd);
    *ret_addr = a;
    return 0;
}
