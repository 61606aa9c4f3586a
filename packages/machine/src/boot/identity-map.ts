import type { GuestRam } from '../ram.ts';

const P = 1n << 0n;
const RW = 1n << 1n;
const PS = 1n << 7n;
const LARGE_PAGE = 2 * 2 ** 20;
const GIB = 2 ** 30;

/** Bytes of tables that map `ramSize` bytes: PML4, PDPT and a page directory per GiB. */
export function identityMapSize(ramSize: number): number {
  return (2 + Math.ceil(ramSize / GIB)) * 4096;
}

/**
 * Page tables for entry in long mode: all RAM mapped at its own address, in 2 MiB supervisor pages, writable and executable.
 *
 * @param at GPA of the tables, page aligned; the PML4 comes first
 * @returns the value for CR3
 */
export function writeIdentityMap(ram: GuestRam, at: number): number {
  ram.clear(at, identityMapSize(ram.size));
  const pdpt = at + 4096;
  ram.view.setBigUint64(at, BigInt(pdpt) | P | RW, true);
  for (let gib = 0; gib * GIB < ram.size; gib++) {
    const directory = pdpt + 4096 * (1 + gib);
    ram.view.setBigUint64(pdpt + gib * 8, BigInt(directory) | P | RW, true);
    for (let i = 0; i < 512; i++) {
      const address = gib * GIB + i * LARGE_PAGE;
      if (address >= ram.size) break;
      ram.view.setBigUint64(directory + i * 8, BigInt(address) | P | RW | PS, true);
    }
  }
  return at;
}
