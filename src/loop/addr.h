/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket addresses as people write them: "127.0.0.1:8080", "[::1]:8080", "localhost:8080",
 * ":8080" or "*:8080" (every interface), "unix:/run/weir/gateway.sock".
 */
#pragma once

#include "base/str.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDR_TEXT_SIZE 128

struct addr {
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    socklen_t len;
};

/* Reads a numeric address, "localhost", or a unix path of at most 107 bytes; never asks DNS. Port 0
 * is allowed (the system chooses). INVALID_ARGUMENT names the text and shows a right one. */
NODISCARD int addr_parse(str text, struct addr *ret_addr, struct err *e);

/* The same, and host names too, through the system's resolver (blocks: worker threads and the
 * command line only). The first address is taken. */
NODISCARD int addr_resolve(str text, struct addr *ret_addr, struct err *e);

/* The text that addr_parse reads back; "unix:" for an unnamed peer. */
void addr_text(const struct addr *a, char ret_text[ADDR_TEXT_SIZE]);
uint16_t addr_port(const struct addr *a); /* 0 for unix */
bool addr_is_unix(const struct addr *a);

/* True when the address is reachable from the internet at large: not loopback, private (RFC 1918,
 * RFC 4193), link-local, shared (RFC 6598), multicast, unspecified, reserved or an IPv4 address of
 * those kinds inside IPv6. Outgoing calls to an address chosen by a user test this on the address
 * that they then dial. */
bool addr_is_public(const struct addr *a);

/* The local address of a socket, e.g. to learn the port chosen for port 0. */
NODISCARD int addr_of_socket(int fd, struct addr *ret_addr, struct err *e);
