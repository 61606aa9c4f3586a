/** Kinds of code that vectors are recorded in: segments as Linux gives them to processes, or as an LDT can describe them. */
import { FS, SS } from '../src/layout.ts';
import { CODE, DATA, FS_BASE, GS_BASE } from './program.ts';

/** A descriptor of the recording process's LDT (modify_ldt(2)): all are of privilege 3. */
export interface LdtEntry {
  readonly base: number;
  /** In bytes, or pages where it exceeds 20 bits. */
  readonly limit: number;
  readonly kind: 'data' | 'down' | 'code' | 'conforming';
  /** D/B: 32 bits. */
  readonly big: boolean;
  /** Data that cannot be written, code that cannot be read. */
  readonly locked?: boolean;
  readonly absent?: boolean;
}

const GS_DOWN_LIMIT = 0x87df;
/** What the LDT holds: index n has selector n * 8 + 7. */
export const LDT: readonly LdtEntry[] = [
  { base: CODE, limit: 0xffff, kind: 'code', big: false },
  { base: CODE, limit: 0x3fff, kind: 'code', big: true },
  { base: DATA, limit: 0xffff, kind: 'data', big: true },
  { base: DATA - 0x4000, limit: 0xffff, kind: 'data', big: false },
  { base: DATA - 0x4000, limit: 0xffff, kind: 'data', big: true },
  { base: DATA - 0x2000, limit: 0x3fff, kind: 'data', big: true },
  { base: FS_BASE, limit: 0xffff_ffff, kind: 'data', big: true },
  { base: GS_BASE, limit: 0xffff_ffff, kind: 'data', big: true },
  { base: FS_BASE, limit: 0xffff, kind: 'data', big: true, locked: true },
  // Offsets from the first byte of the window to 64 KiB.
  { base: DATA + 0xfe0 - (GS_DOWN_LIMIT + 1), limit: GS_DOWN_LIMIT, kind: 'down', big: false },
  { base: DATA, limit: 0xffff, kind: 'data', big: true, absent: true },
  { base: CODE, limit: 0xffff, kind: 'conforming', big: true, absent: true },
  { base: CODE, limit: 0xffff, kind: 'code', big: true, locked: true },
];

const LARGEST_BYTE_LIMIT = 0xf_ffff;
const KINDS = ['data', 'down', 'code', 'conforming'] as const;
const inPages = (e: LdtEntry) => e.limit > LARGEST_BYTE_LIMIT;
const limitField = (e: LdtEntry) => (inPages(e) ? e.limit >>> 12 : e.limit);

/** `struct user_desc` of Linux' asm/ldt.h. */
export function userDescriptor(e: LdtEntry, index: number): Uint8Array {
  const flags = (e.big ? 1 : 0) | (KINDS.indexOf(e.kind) << 1) | (e.locked === true ? 8 : 0) | (inPages(e) ? 16 : 0) | (e.absent === true ? 32 : 0) | (1 << 6);
  return new Uint8Array(Uint32Array.of(index, e.base, limitField(e), flags).buffer);
}

/** Type byte of the descriptor that Linux makes of it: accessed, privilege 3. */
const typeOf = (e: LdtEntry) => (e.absent === true ? 0 : 0x80) | 0x71 | (KINDS.indexOf(e.kind) << 2) | (e.locked === true ? 0 : 2);
/** AVL is set by Linux for what user_desc calls useable. */
const upperFlags = (e: LdtEntry) => (inPages(e) ? 0x80 : 0) | (e.big ? 0x40 : 0) | 0x10;
/** The descriptor as it lies in the table. */
export function ldtDescriptor(e: LdtEntry): bigint {
  const limit = limitField(e);
  const low = BigInt(limit & 0xffff) | (BigInt(e.base & 0xffff) << 16n);
  const high = ((e.base >>> 16) & 0xff) | (typeOf(e) << 8) | ((limit >>> 16) << 16) | (upperFlags(e) << 16) | (e.base & 0xff00_0000);
  return low | (BigInt(high >>> 0) << 32n);
}

/** Bits 8..23 of a descriptor's upper half; bit 16: unusable (`ATTR_*` of assembly/mode.ts). */
export interface Segment {
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  readonly attr: number;
}
type Segments = readonly [Segment, Segment, Segment, Segment, Segment, Segment];

/** The descriptors of Linux' GDT that user code can name, by index. */
export const GDT_DESCRIPTORS: readonly bigint[] = [
  0n,
  0x00cf_9b00_0000_ffffn,
  0x00af_9b00_0000_ffffn,
  0x00cf_9300_0000_ffffn,
  0x00cf_fb00_0000_ffffn,
  0x00cf_f300_0000_ffffn,
  0x00af_fb00_0000_ffffn,
];
const [USER_CODE_32, USER_DATA, USER_CODE] = [0x23, 0x2b, 0x33] as const;
const FLAT_LIMIT = 0xffff_ffff;
const flat = (selector: number, attr: number): Segment => ({ selector, base: 0, limit: FLAT_LIMIT, attr });
const nothing = (base: number): Segment => ({ selector: 0, base, limit: FLAT_LIMIT, attr: 0x1_0000 });
const fromLdt = (index: number): Segment => {
  const e = LDT[index];
  if (e === undefined) throw new RangeError(`the LDT has no entry ${index}`);
  return { selector: index * 8 + 7, base: e.base, limit: e.limit, attr: typeOf(e) | ((upperFlags(e) & 0xf0) << 8) };
};

export interface CodeMode {
  /** Of the file of vectors. */
  readonly name: string;
  readonly codeSize: 16 | 32 | 64;
  /** ES, CS, SS, DS, FS, GS. */
  readonly segments: Segments;
}

export const LONG_MODE: CodeMode = {
  name: 'long',
  codeSize: 64,
  segments: [nothing(0), flat(USER_CODE, 0xa0fb), flat(USER_DATA, 0xc0f3), nothing(0), nothing(FS_BASE), nothing(GS_BASE)],
};
const data = flat(USER_DATA, 0xc0f3);
/** Flat 32-bit code as of 32-bit Linux processes, which the region compiler takes; 32-bit code whose segments have bases and limits; 16-bit code. */
export const LEGACY_MODES: readonly CodeMode[] = [
  { name: 'flat32', codeSize: 32, segments: [data, flat(USER_CODE_32, 0xc0fb), data, data, fromLdt(6), fromLdt(7)] },
  { name: 'segmented32', codeSize: 32, segments: [fromLdt(5), fromLdt(1), fromLdt(4), fromLdt(2), fromLdt(8), fromLdt(9)] },
  { name: 'code16', codeSize: 16, segments: [fromLdt(5), fromLdt(0), fromLdt(3), fromLdt(2), fromLdt(8), fromLdt(9)] },
];
export const CODE_MODES: readonly CodeMode[] = [LONG_MODE, ...LEGACY_MODES];

/** Base of a segment; in 64-bit code only FS and GS have one. */
export function segmentBase(mode: CodeMode, n: number): number {
  return mode.codeSize === 64 && n < FS ? 0 : (mode.segments[n]?.base ?? 0);
}
/** Bits of the stack pointer that stack accesses use. */
export function stackBits(mode: CodeMode): 16 | 32 | 64 {
  return mode.codeSize === 64 ? 64 : (mode.segments[SS].attr & (1 << 14)) !== 0 ? 32 : 16;
}
/** Base of the code segment that `selector` names, 0 for those of the GDT and those that cannot be loaded. */
export function codeBase(selector: number): number {
  const e = (selector & 4) !== 0 ? LDT[selector >> 3] : undefined;
  return e?.kind === 'code' ? e.base : 0;
}
/** Whether [offset, offset + size) is within a segment's limits (SDM vol. 3, 5.3). 64-bit code has none. */
export function isWithinLimit(mode: CodeMode, n: number, offset: number, size: number): boolean {
  const segment = mode.segments[n];
  if (mode.codeSize === 64 || segment === undefined) return true;
  const isDown = (segment.attr & 0x1c) === 0x14;
  const last = isDown ? ((segment.attr & (1 << 14)) !== 0 ? FLAT_LIMIT : 0xffff) : segment.limit;
  const first = isDown ? segment.limit + 1 : 0;
  return offset >= first && offset + size - 1 <= last;
}
