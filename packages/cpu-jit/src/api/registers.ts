/** Registers by name. */
import type { CpuCore } from '../cpu.ts';
import type { Segment } from '../entry-state.ts';
import { CpuError } from '../errors.ts';
import {
  CS,
  DS,
  ES,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  FS,
  GS,
  LDTR,
  MXCSR_TRACKED,
  MXCSR_VISIBLE,
  S_BLOCK_RIP,
  S_CC_KIND,
  S_CPL,
  S_CR0,
  S_CR2,
  S_CR3,
  S_CR4,
  S_CR8,
  S_DR,
  S_EFER,
  S_EXC,
  S_FLAT,
  S_GDTR,
  S_GPR,
  S_ICOUNT,
  S_IDTR,
  S_KERNEL_GS_BASE,
  S_MSR,
  S_MXCSR,
  S_RANDOM,
  S_RFLAGS,
  S_RIP,
  S_SEG,
  S_TSC_OFFSET,
  S_X87,
  S_X87_CW,
  S_X87_FDP,
  S_X87_SW,
  S_X87_TAGS,
  S_X87_TOP,
  S_XCR0,
  S_XMM,
  S_YMM_HIGH,
  S_ZERO,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_STRIDE,
  SS,
  TR,
} from '../layout.ts';

/** The whole state of the processor, for `Cpu.restore`. */
export interface CpuState {
  /** Fields of the state block, in an order of this version of the package. */
  readonly bytes: Uint8Array;
}
const GENERAL = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const;
const SEGMENTS = { es: ES, cs: CS, ss: SS, ds: DS, fs: FS, gs: GS, ldtr: LDTR, tr: TR } as const;
const CONTROLS = { cr0: S_CR0, cr2: S_CR2, cr3: S_CR3, cr4: S_CR4, cr8: S_CR8 } as const;
type Vector = `${'xmm' | 'ymm'}${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15}`;
export type SegmentName = keyof typeof SEGMENTS;
/** eax, ax, al, ah and the like are parts of these: `get('rax') & 0xffn`. `st0` is the top of the x87 stack, 80 bits; `fctrl`, `fstat`, `ftag` (abridged). */
export type RegisterName =
  | (typeof GENERAL)[number]
  | 'rip'
  | 'rflags'
  | keyof typeof CONTROLS
  | 'efer'
  | 'kernel_gs_base'
  | 'xcr0'
  | 'mxcsr'
  | `dr${0 | 1 | 2 | 3 | 6 | 7}`
  | `st${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7}`
  | 'fctrl'
  | 'fstat'
  | 'ftag'
  | Vector;

interface Register {
  /** Width. */
  readonly bits: number;
  get(): bigint;
  set(value: bigint): void;
}

const MSR_EFER = 0xc000_0080;
/** x87 status word: TOP is bits 11 to 13. */
const TOP_SHIFT = 11;
const TOP_MASK = 7 << TOP_SHIFT;
const RAX = 0;
const RCX = 1;
const RDX = 2;
const VM = 1n << 17n;
/** Architectural fields of the state block: [first, end). The rest belongs to the host. */
const STATE = [
  [S_GPR, S_BLOCK_RIP],
  [S_CC_KIND, S_ZERO],
  [S_CPL, S_CPL + 4],
  [S_RANDOM, S_RANDOM + 8],
  [S_SEG, S_TSC_OFFSET + 8],
  [S_XMM, S_X87_FDP + 8],
  [S_MSR, S_MSR + 256],
  [S_FLAT, S_FLAT + 4],
] as const;

/** Those of one vCPU. */
export class Registers {
  private readonly core: CpuCore;
  private readonly vcpu: number;
  private readonly base: number;
  private readonly table = new Map<string, Register>();

  constructor(core: CpuCore, vcpu = 0) {
    this.core = core;
    this.vcpu = vcpu;
    this.base = core.cpuAddress(vcpu);
    GENERAL.forEach((name, n) => {
      this.plain(name, 64, S_GPR + n * 8);
    });
    this.plain('rip', 64, S_RIP);
    this.table.set('rflags', { bits: 32, get: () => core.getRflags(vcpu), set: (v) => this.setRflags(v) });
    for (const [name, at] of Object.entries(CONTROLS)) {
      this.table.set(name, { bits: 64, get: () => this.u64(at), set: (v) => this.guarded(name, v, () => core.writeControl(vcpu, at, v)) });
    }
    this.table.set('efer', { bits: 64, get: () => this.u64(S_EFER), set: (v) => this.setMsr(MSR_EFER, v) });
    this.plain('kernel_gs_base', 64, S_KERNEL_GS_BASE);
    this.plain('xcr0', 64, S_XCR0);
    this.table.set('mxcsr', {
      bits: 16,
      get: () => this.bytes(S_MXCSR, 4) & BigInt(MXCSR_VISIBLE),
      set: (v) => this.setBytes(S_MXCSR, 4, v | BigInt(MXCSR_TRACKED)),
    });
    for (const n of [0, 1, 2, 3, 6, 7]) {
      this.table.set(`dr${n}`, { bits: 64, get: () => this.u64(S_DR + n * 8), set: (v) => this.guarded(`dr${n}`, v, () => core.writeDebug(vcpu, n, v)) });
    }
    for (let n = 0; n < 8; n++) {
      const at = () => S_X87 + (((core.u32[(this.base + S_X87_TOP) >>> 2] ?? 0) + n) & 7) * 16;
      this.table.set(`st${n}`, { bits: 80, get: () => this.bytes(at(), 10), set: (v) => this.setBytes(at(), 10, v) });
    }
    this.plain('fctrl', 16, S_X87_CW);
    this.plain('ftag', 8, S_X87_TAGS);
    this.table.set('fstat', {
      bits: 16,
      get: () => (this.bytes(S_X87_SW, 2) & ~BigInt(TOP_MASK)) | (this.bytes(S_X87_TOP, 4) << BigInt(TOP_SHIFT)),
      set: (v) => {
        this.setBytes(S_X87_SW, 2, v & ~BigInt(TOP_MASK));
        this.setBytes(S_X87_TOP, 4, (v >> BigInt(TOP_SHIFT)) & 7n);
      },
    });
    for (let n = 0; n < 16; n++) {
      const [low, high] = [S_XMM + n * 16, S_YMM_HIGH + n * 16];
      this.plain(`xmm${n}`, 128, low);
      this.table.set(`ymm${n}`, {
        bits: 256,
        get: () => this.bytes(low, 16) | (this.bytes(high, 16) << 128n),
        set: (v) => {
          this.setBytes(low, 16, v & ((1n << 128n) - 1n));
          this.setBytes(high, 16, v >> 128n);
        },
      });
    }
  }

  get(name: RegisterName): bigint {
    return this.register(name).get();
  }
  set(name: RegisterName, value: bigint | number): void {
    const register = this.register(name);
    if (typeof value === 'number' && !Number.isSafeInteger(value)) throw new CpuError('bad-argument', `${name}: ${value} is not an integer`);
    const wide = BigInt(value);
    if (wide >> BigInt(register.bits) !== 0n && (-wide - 1n) >> BigInt(register.bits - 1) !== 0n) {
      throw new CpuError('bad-argument', `${name} has ${register.bits} bits, 0x${wide.toString(16)} does not fit`);
    }
    register.set(BigInt.asUintN(register.bits, wide));
  }

  segment(name: SegmentName): Segment {
    const at = this.base + S_SEG + this.segmentNumber(name) * SEG_STRIDE;
    const { view } = this.core;
    return {
      selector: view.getUint32(at + SEG_SELECTOR, true) & 0xffff,
      base: view.getBigUint64(at + SEG_BASE, true),
      limit: view.getUint32(at + SEG_LIMIT, true),
      attr: view.getUint32(at + SEG_ATTR, true),
    };
  }
  /** A new SS or CS does not change the privilege level by itself: that of CS's selector becomes current, outside of real mode. */
  setSegment(name: SegmentName, segment: Segment): void {
    const n = this.segmentNumber(name);
    this.core.setSegment(this.vcpu, n, segment);
    if (n !== CS) return;
    const isProtected = (this.u64(S_CR0) & 1n) !== 0n && (this.u64(S_RFLAGS) & VM) === 0n;
    this.core.u32[(this.base + S_CPL) >>> 2] = isProtected ? segment.selector & 3 : 0;
    this.core.modeChanged(this.vcpu);
  }
  descriptorTable(name: 'gdtr' | 'idtr'): { base: bigint; limit: number } {
    const at = this.base + (name === 'gdtr' ? S_GDTR : S_IDTR);
    return { base: this.core.view.getBigUint64(at, true), limit: this.core.view.getUint32(at + 8, true) };
  }
  setDescriptorTable(name: 'gdtr' | 'idtr', base: bigint, limit: number): void {
    const at = this.base + (name === 'gdtr' ? S_GDTR : S_IDTR);
    this.core.view.setBigUint64(at, base, true);
    this.core.view.setUint32(at + 8, limit & 0xffff, true);
  }

  getMsr(msr: number): bigint {
    return this.throughMsr(msr, EXIT_MSR_READ, 0n);
  }
  setMsr(msr: number, value: bigint): void {
    this.throughMsr(msr, EXIT_MSR_WRITE, value);
  }

  state(): CpuState {
    const { u8 } = this.core;
    const parts = STATE.map(([first, end]) => u8.slice(this.base + first, this.base + end));
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return { bytes };
  }
  restore({ bytes }: CpuState): void {
    const size = STATE.reduce((sum, [first, end]) => sum + end - first, 0);
    if (bytes.length !== size) throw new CpuError('bad-argument', `a state of ${bytes.length} bytes is not one of this version, which has ${size}`);
    let at = 0;
    for (const [first, end] of STATE) {
      this.core.u8.set(bytes.subarray(at, at + end - first), this.base + first);
      at += end - first;
    }
    this.core.u32[(this.base + S_EXC) >>> 2] = 0;
    for (const name of Object.keys(SEGMENTS) as SegmentName[]) this.core.setSegment(this.vcpu, SEGMENTS[name], this.segment(name));
    // Arms its breakpoints.
    this.set('dr7', this.get('dr7'));
    this.core.modeChanged(this.vcpu);
  }

  private register(name: string): Register {
    const found = this.table.get(name);
    if (found === undefined) throw new CpuError('bad-argument', `there is no register '${name}'`);
    return found;
  }
  private segmentNumber(name: SegmentName): number {
    const n: number | undefined = SEGMENTS[name];
    if (n === undefined) throw new CpuError('bad-argument', `there is no segment '${name}'`);
    return n;
  }
  private plain(name: string, bits: number, at: number): void {
    this.table.set(name, { bits, get: () => this.bytes(at, bits / 8), set: (v) => this.setBytes(at, bits / 8, v) });
  }
  private u64(at: number): bigint {
    return this.core.u64[(this.base + at) >>> 3] ?? 0n;
  }
  private bytes(at: number, size: number): bigint {
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.core.u8[this.base + at + i] ?? 0);
    return value;
  }
  private setBytes(at: number, size: number, value: bigint): void {
    for (let i = 0; i < size; i++) this.core.u8[this.base + at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
  }
  private setRflags(value: bigint): void {
    this.core.setRflags(this.vcpu, value);
  }

  private throughMsr(msr: number, reason: number, value: bigint): bigint {
    const kept = [RAX, RCX, RDX].map((n) => this.core.getReg(this.vcpu, n));
    this.core.setReg(this.vcpu, RCX, BigInt(msr >>> 0));
    this.core.setReg(this.vcpu, RAX, value & 0xffff_ffffn);
    this.core.setReg(this.vcpu, RDX, (value >> 32n) & 0xffff_ffffn);
    let isKnown = true;
    let result = 0n;
    try {
      this.guarded(`MSR 0x${(msr >>> 0).toString(16)}`, value, () => {
        isKnown = this.core.doMsr(this.vcpu, reason);
        result = (this.core.getReg(this.vcpu, RDX) << 32n) | (this.core.getReg(this.vcpu, RAX) & 0xffff_ffffn);
      });
    } finally {
      [RAX, RCX, RDX].forEach((n, i) => {
        this.core.setReg(this.vcpu, n, kept[i] ?? 0n);
      });
    }
    if (!isKnown) throw new CpuError('bad-argument', `the CPU has no MSR 0x${(msr >>> 0).toString(16)}`);
    return result;
  }
  /** Does what an instruction does, without that instruction having run. Throws `CpuError` when it raises an exception. */
  private guarded(what: string, value: bigint, run: () => void): void {
    const { u64, u32 } = this.core;
    const rip = this.u64(S_RIP);
    const count = this.u64(S_ICOUNT);
    run();
    u64[(this.base + S_RIP) >>> 3] = rip;
    u64[(this.base + S_ICOUNT) >>> 3] = count;
    if ((u32[(this.base + S_EXC) >>> 2] ?? 0) === 0) return;
    u32[(this.base + S_EXC) >>> 2] = 0;
    throw new CpuError('bad-argument', `the CPU refuses 0x${value.toString(16)} for ${what}, as the instruction would (#GP)`);
  }
}
