/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes: SHA-256 and HMAC for content addresses, chains and pseudonyms (libcrypto), CRC-32C for
 * what lies on disk, and a fast keyed 64-bit hash (wyhash-like, own) for tables and sticky routing.
 */
#pragma once

#include "base/str.h"

#define SHA256_BYTES 32
#define SHA256_HEX_SIZE 65 /* with the NUL */

struct sha256 {
    void *ctx; /* owned */
};
void sha256_begin(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *p, size_t n);
void sha256_end(struct sha256 *h, unsigned char ret_digest[SHA256_BYTES]); /* also frees */
void sha256_drop(struct sha256 *h); /* frees without an end; accepts an ended or zeroed one */
void sha256_of(str bytes, unsigned char ret_digest[SHA256_BYTES]);
void sha256_hex(str bytes, char ret_hex[SHA256_HEX_SIZE]);
NODISCARD int sha256_file_hex(const char *path, char ret_hex[SHA256_HEX_SIZE], struct err *e);
void hmac_sha256(str key, str bytes, unsigned char ret_digest[SHA256_BYTES]);

/* The same with the key's share of the work done beforehand, for hot paths: no allocation, one or
 * two blocks less. The state is as secret as the key. */
struct hmac_key {
    _Alignas(16) unsigned char inner[112], outer[112];
};
void hmac_key_init(struct hmac_key *k, str key);
void hmac_key_sum(const struct hmac_key *k, str bytes, unsigned char ret_digest[SHA256_BYTES]) HOT;
/* Equality of secrets: the time depends on n alone. */
bool bytes_equal_constant_time(const void *a, const void *b, size_t n);

void hex_encode(const void *p, size_t n, char *ret_hex); /* 2n characters and a NUL */
NODISCARD bool hex_decode(str hex, void *ret_p, size_t n);

uint32_t crc32c(uint32_t crc, const void *p, size_t n); /* start with 0; SSE4.2 when there */
uint32_t crc32c_portable(uint32_t crc, const void *p, size_t n); /* the same by tables, for tests */
uint64_t hash64(const void *p, size_t n,
                uint64_t seed); /* stable across versions: it routes users */
static inline uint64_t hash_str(str s, uint64_t seed)
{
    return hash64(s.p, s.n, seed);
}
