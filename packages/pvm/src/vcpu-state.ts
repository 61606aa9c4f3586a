import type { CpuCore } from '@pvm/cpu-jit';
import {
  CS,
  S_CODE_SIZE,
  S_GPR,
  S_ICOUNT,
  S_RIP,
  S_SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_FIRST,
  SEG_LAST,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_STRIDE,
} from '@pvm/cpu-jit/layout';

/** General registers in encoding order. */
export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RSI = 6;
export const RDI = 7;
export const R10 = 10;
export const R11 = 11;

/**
 * Typed access to the state block of one vCPU (layout.ts). Offsets are `S_*`, `V_*` and `P_*`; registers and
 * addresses that a guest chose are `bigint`, everything on hot paths is moved as two 32-bit words.
 */
export class VcpuState {
  readonly core: CpuCore;
  readonly index: number;
  /** Address of the state block. */
  readonly base: number;

  constructor(core: CpuCore, index: number) {
    this.core = core;
    this.index = index;
    this.base = core.cpuAddress(index);
  }

  get32(offset: number): number {
    return this.core.u32[(this.base + offset) >>> 2] ?? 0;
  }
  /** The same signed: a number that is never allocated. */
  getI32(offset: number): number {
    return this.core.i32[(this.base + offset) >>> 2] ?? 0;
  }
  set32(offset: number, value: number): void {
    this.core.u32[(this.base + offset) >>> 2] = value;
  }
  get64(offset: number): bigint {
    return this.core.u64[(this.base + offset) >>> 3] ?? 0n;
  }
  set64(offset: number, value: bigint): void {
    this.core.u64[(this.base + offset) >>> 3] = value;
  }
  /** Copy an 8-byte field to linear-memory address `hpa`. */
  store64(hpa: number, offset: number): void {
    const { u32 } = this.core;
    u32[hpa >>> 2] = u32[(this.base + offset) >>> 2] ?? 0;
    u32[(hpa >>> 2) + 1] = u32[((this.base + offset) >>> 2) + 1] ?? 0;
  }
  /** Copy 8 bytes at linear-memory address `hpa` to a field. */
  load64(offset: number, hpa: number): void {
    const { u32 } = this.core;
    u32[(this.base + offset) >>> 2] = u32[hpa >>> 2] ?? 0;
    u32[((this.base + offset) >>> 2) + 1] = u32[(hpa >>> 2) + 1] ?? 0;
  }
  /** Copy one 8-byte field to another. */
  copy64(to: number, from: number): void {
    this.store64(this.base + to, from);
  }

  get rip(): bigint {
    return this.get64(S_RIP);
  }
  set rip(value: bigint) {
    this.set64(S_RIP, value);
  }
  reg(n: number): bigint {
    return this.get64(S_GPR + n * 8);
  }
  setReg(n: number, value: bigint): void {
    this.set64(S_GPR + n * 8, BigInt.asUintN(64, value));
  }
  /** Low half of a register as an unsigned number. */
  reg32(n: number): number {
    return this.get32(S_GPR + n * 8);
  }
  /** Set a register from a signed 53-bit number. */
  setRegNumber(n: number, value: number): void {
    this.set32(S_GPR + n * 8, value);
    this.set32(S_GPR + n * 8 + 4, Math.floor(value / 2 ** 32));
  }
  get rflags(): number {
    return this.core.rflags32(this.index);
  }
  set rflags(value: number) {
    this.core.setRflags32(this.index, value);
  }
  /** The instruction at RIP, `length` bytes long, was completed by the hypervisor. */
  skip(length: number): void {
    this.add64(S_RIP, length);
    this.retire();
  }
  retire(): void {
    this.add64(S_ICOUNT, 1);
  }
  /** Add a small non-negative number to a 64-bit field. */
  add64(offset: number, n: number): void {
    const low = this.get32(offset) + n;
    this.set32(offset, low);
    if (low > 0xffff_ffff) this.set32(offset + 4, this.get32(offset + 4) + 1);
  }
  /** Whether two 64-bit fields are equal. */
  equal64(a: number, b: number): boolean {
    return this.get32(a) === this.get32(b) && this.get32(a + 4) === this.get32(b + 4);
  }

  selector(segment: number): number {
    return this.get32(S_SEG + segment * SEG_STRIDE + SEG_SELECTOR) & 0xffff;
  }
  setSelector(segment: number, selector: number): void {
    this.set32(S_SEG + segment * SEG_STRIDE + SEG_SELECTOR, selector);
  }
  segmentBase(segment: number): bigint {
    return this.get64(S_SEG + segment * SEG_STRIDE + SEG_BASE);
  }
  setSegmentBase(segment: number, base: bigint): void {
    this.set64(S_SEG + segment * SEG_STRIDE + SEG_BASE, BigInt.asUintN(64, base));
  }
  /** Load a segment register from its parts; `attributes` are bits 8..23 of a descriptor's upper half (SDM vol. 3, 3.4.5). */
  setSegment(segment: number, selector: number, attributes: number, base = 0n, limit = 0xffff_ffff): void {
    this.setSelector(segment, selector);
    this.setSegmentBase(segment, base);
    this.set32(S_SEG + segment * SEG_STRIDE + SEG_LIMIT, limit);
    this.set32(S_SEG + segment * SEG_STRIDE + SEG_ATTR, attributes);
    // The bounds that 32-bit code is checked against; PVM has no expand-down segments.
    this.set32(S_SEG + segment * SEG_STRIDE + SEG_FIRST, 0);
    this.set32(S_SEG + segment * SEG_STRIDE + SEG_LAST, limit);
    if (segment === CS) this.set32(S_CODE_SIZE, (attributes & 0x2000) !== 0 ? 64 : (attributes & 0x4000) !== 0 ? 32 : 16);
  }
}
