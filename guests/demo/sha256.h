/* SHA-256 (FIPS 180-4). */
#pragma once
#include "../lib/guest.h"

/* Digest of n bytes as 64 hexadecimal digits and a NUL. */
void sha256_hex(const u8 *data, u64 n, char hex[65]);

/* First 16 digits of the digest of 6 MiB of zero bytes. */
#define DEMO_DIGEST "b69dae56a14d1a83"
