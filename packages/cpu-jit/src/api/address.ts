/** Addresses as callers give them: canonical 64-bit numbers, as bigint or as a safe integer. Pages are numbered within the 48 bits that the CPU translates. */
import { CpuError } from '../errors.ts';

export type Address = bigint | number;

export const PAGE = 4096;
const PAGE_BITS = 12n;
const LINEAR_BITS = 48;

/** Throws `CpuError` ('bad-argument') for what is no canonical address. */
export function toAddress(value: Address, what = 'address'): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    throw new CpuError('bad-argument', `${what} ${value} is not an integer: use a bigint above 2^53`);
  const address = BigInt(value);
  if (address < 0n || address >> 64n !== 0n || BigInt.asUintN(64, BigInt.asIntN(LINEAR_BITS, address)) !== address) {
    throw new CpuError('bad-argument', `${what} 0x${address.toString(16)} is not canonical: bits 63 to 47 must be equal`);
  }
  return address;
}

/** Number of the page of an address, 0 to 2^36 - 1. */
export function pageOf(address: bigint): number {
  return Number(BigInt.asUintN(LINEAR_BITS, address) >> PAGE_BITS);
}
/** The canonical address of a byte of a page. */
export function addressOf(page: number, offset = 0): bigint {
  return BigInt.asUintN(64, BigInt.asIntN(LINEAR_BITS, (BigInt(page) << PAGE_BITS) | BigInt(offset)));
}

/** A range of bytes: `size` from `address` on. */
export interface Range {
  readonly address: Address;
  /** Bytes, at least 1. */
  readonly size: number;
}

/** The pages of a range. Throws `CpuError` for a size that is no positive integer, or a range that wraps around. */
export function toRange({ address, size }: Range): { readonly start: bigint; readonly end: bigint; readonly firstPage: number; readonly lastPage: number } {
  const start = toAddress(address);
  if (!Number.isSafeInteger(size) || size <= 0) throw new CpuError('bad-argument', `size must be a positive number of bytes, got ${size}`);
  const end = start + BigInt(size);
  const last = toAddress(end - 1n, 'end of the range');
  const firstPage = pageOf(start);
  const lastPage = pageOf(last);
  if (lastPage < firstPage) throw new CpuError('bad-argument', `the range 0x${start.toString(16)}+${size} wraps around`);
  return { start, end, firstPage, lastPage };
}
