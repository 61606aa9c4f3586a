// Bit-level helpers without guest state: PEXT, PDEP, CRC32C.

/** Gather the bits of `v` under `mask` at the bottom. */
export function pext(v: u64, mask: u64): u64 {
  let result: u64 = 0;
  let at: u64 = 0;
  while (mask) {
    // A run of set mask bits at a time.
    const start = ctz(mask);
    const run = ctz(~(mask >> start));
    const ones = run == 64 ? <u64>-1 : (<u64>1 << run) - 1;
    result |= (v >> start & ones) << at;
    at += run;
    mask &= ~(ones << start);
  }
  return result;
}

/** Spread the low bits of `v` over the set bits of `mask`. */
export function pdep(v: u64, mask: u64): u64 {
  let result: u64 = 0;
  while (mask) {
    const start = ctz(mask);
    const run = ctz(~(mask >> start));
    const ones = run == 64 ? <u64>-1 : (<u64>1 << run) - 1;
    result |= (v & ones) << start;
    v = run == 64 ? 0 : v >> run;
    mask &= ~(ones << start);
  }
  return result;
}

/** Castagnoli polynomial 0x82f63b78 (reflected): the CRC of each value of four bits. */
// prettier-ignore
const NIBBLES = memory.data<u32>([
  0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
  0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
]);

/** CRC32 instruction: accumulate the low `size` bytes of `v`. */
export function crc32c(crc: u32, v: u64, size: u32): u32 {
  for (let i: u32 = 0; i < size; i++) {
    crc ^= <u32>v & 0xff;
    crc = crc >> 4 ^ load<u32>(NIBBLES + ((crc & 15) << 2));
    crc = crc >> 4 ^ load<u32>(NIBBLES + ((crc & 15) << 2));
    v >>= 8;
  }
  return crc;
}
