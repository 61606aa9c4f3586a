/**
 * A machine for cases about modes and events: tables laid out at fixed places, every vector's handler a HLT of its own, so that the state after a run
 * says which event came, with what error code and what was saved.
 */
import { CpuCore } from '../cpu.ts';
import {
  CS,
  DS,
  ES,
  EXIT_HLT,
  EXIT_SHUTDOWN,
  FS,
  GS,
  LDTR,
  S_CODE_SIZE,
  S_CPL,
  S_CR0,
  S_CR2,
  S_CR3,
  S_CR4,
  S_EFER,
  S_GDTR,
  S_HOT_THRESHOLD,
  S_IDTR,
  S_RFLAGS,
  S_SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_SELECTOR,
  SEG_STRIDE,
  SS,
  TR,
} from '../layout.ts';

/** Physical addresses. Paging, where it is on, maps the first 4 MiB one to one for everybody. */
export const AT = {
  gdt: 0x1000,
  ldt: 0x1800,
  tss: 0x1a00,
  tss2: 0x1c00,
  idt: 0x2000,
  handlers: 0x3000,
  code: 0x5000,
  data: 0x6000,
  stack0: 0x8000,
  stack3: 0x9000,
  tables: 0x20_0000,
} as const;

/** Selectors of the descriptors that `reset` puts into the GDT. 64-bit code takes the place of 32-bit code in long mode. */
export const SEL = {
  code0: 0x08,
  data0: 0x10,
  code3: 0x1b,
  data3: 0x23,
  tss: 0x28,
  tss2: 0x38,
  ldt: 0x48,
  /** 16-bit code and data of privilege 0, base 0. */
  code16: 0x58,
  data16: 0x60,
  /** Conforming code of privilege 0. */
  conforming: 0x68,
  code1: 0x71,
  data1: 0x79,
  /** 32-bit code in long mode (compatibility). */
  compat3: 0x83,
  compat0: 0x88,
  /** Free for the case: 16 bytes each. */
  gate: 0x90,
  gate2: 0xa0,
} as const;

/** Type byte of a descriptor: P, DPL, S, type. */
export const TYPE = {
  code: 0x9a,
  data: 0x92,
  conforming: 0x9e,
  ldt: 0x82,
  tss32: 0x89,
  tss16: 0x81,
  taskGate: 0x85,
  callGate32: 0x8c,
  callGate16: 0x84,
} as const;
const BIG = 0x40;
const LONG = 0x20;
const PAGES = 0x80;
const ATTR_BIG = 1 << 14;

/** A segment descriptor. `flags`: G, D/B, L in bits 7, 6, 5. */
export function descriptor(base: number, limit: number, type: number, flags = 0): bigint {
  const low = BigInt((limit & 0xffff) | ((base & 0xffff) * 0x1_0000));
  const high = BigInt(((base >>> 16) & 0xff) | (type << 8) | (((limit >>> 16) & 15) << 16) | (flags << 16)) | (BigInt(base >>> 24) << 24n);
  return low | (high << 32n);
}
/** A gate: call, interrupt, trap or task. */
export function gate(selector: number, offset: number, type: number, count = 0): bigint {
  return BigInt(offset & 0xffff) | (BigInt(selector) << 16n) | (BigInt(count) << 32n) | (BigInt(type) << 40n) | (BigInt(offset >>> 16) << 48n);
}
export const flat = (type: number, flags = BIG): bigint => descriptor(0, 0xf_ffff, type, PAGES | flags);
export const dpl = (level: number): number => level << 5;

export interface Outcome {
  /** The vector whose handler was reached; undefined: a HLT elsewhere, or a shutdown. */
  readonly vector: number | undefined;
  readonly error: number | undefined;
  /** What the handler would return to (the RIP of the HLT itself without a vector). */
  readonly ip: number;
  readonly cs: number;
  readonly flags: number;
  readonly sp: number;
  readonly ss: number;
  readonly reason: number;
}

const WITH_ERROR = new Set([8, 10, 11, 12, 13, 14, 17]);
const HLT = 0xf4;
export type Mode = 'protected' | 'long' | 'real';

export class EventMachine {
  readonly core: CpuCore;
  private readonly compiled: boolean;
  mode: Mode = 'protected';

  static async create(jit: 'off' | 'sync'): Promise<EventMachine> {
    return new EventMachine(await CpuCore.create({ ramBytes: 16 << 20, jit }), jit === 'sync');
  }
  private constructor(core: CpuCore, compiled: boolean) {
    this.core = core;
    this.compiled = compiled;
  }

  /** Fresh state in `mode`: at CPL 0, flat segments, interrupts off, RIP at AT.code, stack at AT.stack0. */
  reset(mode: Mode): void {
    const { core } = this;
    this.mode = mode;
    core.u8.fill(0, core.ramBase, core.ramBase + 0x1_0000);
    core.resetToReal(0);
    this.tables(mode === 'long');
    if (mode === 'long') this.pageTables();
    const set = (offset: number, v: bigint) => core.view.setBigUint64(core.cpuAddress(0) + offset, v, true);
    if (mode !== 'real') {
      set(S_GDTR, BigInt(AT.gdt));
      this.field(S_GDTR + 8, 0x1ff);
      set(S_IDTR, BigInt(AT.idt));
      this.field(S_IDTR + 8, 0xfff);
      set(S_CR0, mode === 'long' ? 0x8001_0031n : 0x31n);
      set(S_CR4, mode === 'long' ? 0x620n : 0x600n);
      set(S_CR3, BigInt(AT.tables));
      set(S_EFER, mode === 'long' ? 0xd01n : 0n);
      this.segment(CS, SEL.code0, mode === 'long' ? 0xa09b : 0xc09b);
      for (const n of [ES, SS, DS, FS, GS]) this.segment(n, SEL.data0, 0xc093);
      core.setSegment(0, TR, { selector: SEL.tss, base: BigInt(AT.tss), limit: 0x7f, attr: 0x8b });
      core.setSegment(0, LDTR, { selector: 0, base: 0n, limit: 0, attr: 0x1_0000 });
    } else {
      core.setSegment(0, CS, { selector: 0, base: 0n, limit: 0xffff, attr: 0x9b });
      this.realVectors();
    }
    core.modeChanged(0);
    core.setRip(0, BigInt(AT.code));
    core.setReg(0, 4, BigInt(AT.stack0));
    core.setLimit(0, core.stats(0).instructions + 100_000n);
  }

  private segment(n: number, selector: number, attr: number): void {
    this.core.setSegment(0, n, { selector, base: 0n, limit: 0xffff_ffff, attr });
  }
  private tables(long: boolean): void {
    const width = long ? LONG : BIG;
    const entries: readonly (readonly [number, bigint])[] = [
      [SEL.code0, flat(TYPE.code, width)],
      [SEL.data0, flat(TYPE.data)],
      [SEL.code3, flat(TYPE.code | dpl(3), width)],
      [SEL.data3, flat(TYPE.data | dpl(3))],
      [SEL.tss, descriptor(AT.tss, 0x7f, TYPE.tss32 | 2)],
      [SEL.tss2, descriptor(AT.tss2, 0x7f, TYPE.tss32)],
      [SEL.ldt, descriptor(AT.ldt, 0xff, TYPE.ldt)],
      [SEL.code16, descriptor(0, 0xffff, TYPE.code)],
      [SEL.data16, descriptor(0, 0xffff, TYPE.data)],
      [SEL.conforming, flat(TYPE.conforming, width)],
      [SEL.code1, flat(TYPE.code | dpl(1), width)],
      [SEL.data1, flat(TYPE.data | dpl(1))],
      [SEL.compat3, flat(TYPE.code | dpl(3))],
      [SEL.compat0, flat(TYPE.code)],
    ];
    // In long mode system descriptors take two entries, whose second half is zero here.
    for (const [selector, d] of entries) this.gdt(selector, d);
    for (let v = 0; v < 256; v++) {
      this.idt(v, gate(SEL.code0, AT.handlers + v * 16, v === 3 || v === 0x40 ? 0xee : 0x8e));
      this.bytes(AT.handlers + v * 16, [HLT]);
    }
    if (long) this.u64(AT.tss + 4, BigInt(AT.stack0));
    else {
      this.u32(AT.tss + 4, AT.stack0);
      this.u32(AT.tss + 8, SEL.data0);
      this.u32(AT.tss + 12, AT.stack0 - 0x800);
      this.u32(AT.tss + 16, SEL.data1);
    }
    // No ports for users.
    this.u16(AT.tss + 102, 0x80);
  }
  private realVectors(): void {
    for (let v = 0; v < 256; v++) {
      this.u16(v * 4, AT.handlers + v * 16);
      this.u16(v * 4 + 2, 0);
      this.bytes(AT.handlers + v * 16, [HLT]);
    }
  }
  /** 4 MiB in two large pages, one to one, for supervisor and user; further entries are the case's. */
  private pageTables(): void {
    const { core } = this;
    core.u8.fill(0, core.ramBase + AT.tables, core.ramBase + AT.tables + 0x8000);
    this.u64(AT.tables, BigInt(AT.tables + 0x1007));
    this.u64(AT.tables + 0x1000, BigInt(AT.tables + 0x2007));
    this.u64(AT.tables + 0x2000, 0x87n);
    this.u64(AT.tables + 0x2008, 0x20_0087n);
  }

  // ------------------------------------------------------------ memory and state
  bytes(at: number, values: readonly number[]): void {
    this.core.u8.set(values, this.core.ramBase + at);
    this.core.dirtyCode(this.core.ramBase + at, values.length);
  }
  u16(at: number, v: number): void {
    this.core.view.setUint16(this.core.ramBase + at, v, true);
  }
  u32(at: number, v: number): void {
    this.core.view.setUint32(this.core.ramBase + at, v, true);
  }
  u64(at: number, v: bigint): void {
    this.core.view.setBigUint64(this.core.ramBase + at, BigInt.asUintN(64, v), true);
  }
  read16(at: number): number {
    return this.core.view.getUint16(this.core.ramBase + at, true);
  }
  read32(at: number): number {
    return this.core.view.getUint32(this.core.ramBase + at, true);
  }
  read64(at: number): bigint {
    return this.core.view.getBigUint64(this.core.ramBase + at, true);
  }
  gdt(selector: number, d: bigint): void {
    this.u64(AT.gdt + (selector & 0xfff8), d);
  }
  /** A gate of the IDT; in long mode its upper half becomes zero. */
  idt(vector: number, g: bigint): void {
    if (this.mode !== 'long') return this.u64(AT.idt + vector * 8, g);
    this.u64(AT.idt + vector * 16, g);
    this.u64(AT.idt + vector * 16 + 8, 0n);
  }
  /** A field of the state block, 4 bytes. */
  field(offset: number, v: number): void {
    this.core.view.setUint32(this.core.cpuAddress(0) + offset, v, true);
  }
  get(offset: number): number {
    return this.core.view.getUint32(this.core.cpuAddress(0) + offset, true);
  }
  get64(offset: number): bigint {
    return this.core.view.getBigUint64(this.core.cpuAddress(0) + offset, true);
  }
  set64(offset: number, v: bigint): void {
    this.core.view.setBigUint64(this.core.cpuAddress(0) + offset, BigInt.asUintN(64, v), true);
  }
  reg(n: number): number {
    return Number(this.core.getReg(0, n) & 0xffff_ffffn);
  }
  selector(n: number): number {
    return this.get(S_SEG + n * SEG_STRIDE + SEG_SELECTOR);
  }
  base(n: number): number {
    return this.get(S_SEG + n * SEG_STRIDE + SEG_BASE);
  }
  get cpl(): number {
    return this.get(S_CPL);
  }
  get cr2(): bigint {
    return this.get64(S_CR2);
  }
  get rflags(): number {
    return this.get(S_RFLAGS);
  }
  /** CR0 bits on or off, with what follows from it. */
  cr0(set: number, clear = 0): void {
    this.field(S_CR0, (this.get(S_CR0) & ~clear) | set);
    this.core.modeChanged(0);
  }
  cr4(set: number): void {
    this.field(S_CR4, this.get(S_CR4) | set);
    this.core.modeChanged(0);
  }
  /** At privilege 3 with the flat user segments; `flags` beside the fixed bit. */
  toUser(flags = 0): void {
    this.segment(CS, SEL.code3, this.mode === 'long' ? 0xa0fb : 0xc0fb);
    for (const n of [ES, SS, DS, FS, GS]) this.segment(n, SEL.data3, 0xc0f3);
    this.field(S_CPL, 3);
    this.core.setRflags(0, BigInt(flags | 2));
    this.core.setReg(0, 4, BigInt(AT.stack3));
    this.core.modeChanged(0);
  }

  /** Runs until a HLT, a shutdown or something the case must look at itself. */
  run(): Outcome {
    const reason = this.core.run(0);
    return this.outcome(reason);
  }
  /** `prepare` and run; in compiled code once more, by when the code is hot. */
  runCase(prepare: () => void): Outcome {
    prepare();
    if (this.compiled) {
      this.field(S_HOT_THRESHOLD, 1);
      this.run();
      prepare();
      this.field(S_HOT_THRESHOLD, 1);
    }
    return this.run();
  }

  private outcome(reason: number): Outcome {
    const ip = Number(this.core.getRip(0));
    const none = { vector: undefined, error: undefined, ip, cs: this.selector(CS), flags: this.rflags, sp: this.reg(4), ss: this.selector(SS), reason };
    const vector = (ip - 1 - AT.handlers) / 16;
    if (reason === EXIT_SHUTDOWN || reason !== EXIT_HLT || !Number.isInteger(vector) || vector < 0 || vector > 255) return none;
    const codeSize = this.get(S_CODE_SIZE);
    const width = codeSize === 64 ? 8 : codeSize === 32 ? 4 : 2;
    const isBig = codeSize === 64 || (this.get(S_SEG + SS * SEG_STRIDE + SEG_ATTR) & ATTR_BIG) !== 0;
    let at = Number(this.core.getReg(0, 4) & (isBig ? 0xffff_ffffn : 0xffffn)) + this.base(SS);
    const pop = () => {
      const v = width === 2 ? this.read16(at) : this.read32(at);
      at += width;
      return v;
    };
    const error = WITH_ERROR.has(vector) && this.mode !== 'real' ? pop() : undefined;
    return { vector, error, ip: pop(), cs: pop(), flags: pop(), sp: pop(), ss: pop(), reason };
  }

  async dispose(): Promise<void> {
    await this.core.dispose();
  }
}

/** Little-endian bytes. */
export function le(v: number, size: 2 | 4): number[] {
  return Array.from({ length: size }, (_, i) => (v >>> (i * 8)) & 0xff);
}
/** int3: the end of a case that did not fault. */
export const END = 0xcc;
/** RFLAGS bits. */
export const FLAG = { CF: 1, TF: 1 << 8, IF: 1 << 9, NT: 1 << 14, RF: 1 << 16, VM: 1 << 17, AC: 1 << 18, iopl: (n: number) => n << 12 } as const;
export const VEC = { DE: 0, DB: 1, NMI: 2, BP: 3, OF: 4, BR: 5, UD: 6, NM: 7, DF: 8, TS: 10, NP: 11, SS: 12, GP: 13, PF: 14, MF: 16, AC: 17, XM: 19 } as const;
