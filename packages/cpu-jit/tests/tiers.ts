/** Runs programs on a CPU with guest page tables, in one tier, and describes where they ended. */
import { CpuCore } from '../src/cpu.ts';
import type { CpuLevel } from '../src/features.ts';
import {
  BD_COUNT,
  BD_REC,
  BLOCK_DESC_SIZE,
  BLOCK_DESCS,
  CS,
  EXIT_EXCEPTION,
  EXIT_LIMIT,
  GS,
  MXCSR_DEFAULT,
  MXCSR_TRACKED,
  MXCSR_VISIBLE,
  PAGING_GUEST,
  S_CPL,
  S_CR0,
  S_CR3,
  S_CR4,
  S_EFER,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_GDTR,
  S_HOT_THRESHOLD,
  S_ICOUNT,
  S_IDTR,
  S_MXCSR,
  S_SEG,
  S_X87,
  S_X87_CW,
  S_X87_SW,
  S_X87_TAGS,
  S_X87_TOP,
  S_XMM,
  SEG_BASE,
  SEG_STRIDE,
  SS,
  TR,
  V_EXC_BITMAP,
  V_NATIVE,
  V_PAGING,
} from '../src/layout.ts';
import { CODE, CODE_BYTES, DATA, DATA_BYTES, GS_BASE, type Machine, READ_ONLY, STACK, STACK_BYTES } from './program.ts';

const PAGE = 4096;
const RAM_BYTES = 2 << 20;
/** Page tables of the guest: PML4, PDPT, PD, PT. */
const TABLES = 0x1000;
/** What a tier with interrupts has beside: GDT, TSS, IDT, handler, its stack, and what it notes at the bottom of that: how often it ran, and the
 *  sum of the addresses it interrupted. */
const SYSTEM = { gdt: 0x8000, tss: 0x8100, idt: 0x9000, handler: 0xa000, log: 0xb000, stackTop: 0xc000 } as const;
const LOG_BYTES = 16;
const VECTOR = 0x40;
const [KERNEL_CODE, USER_CODE, USER_DATA, TASK] = [0x10, 0x33, 0x2b, 0x40] as const;
const KERNEL_CODE_DESCRIPTOR = 0x00af_9b00_0000_ffffn;
const USER_DATA_DESCRIPTOR = 0x00cf_f300_0000_ffffn;
const USER_CODE_DESCRIPTOR = 0x00af_fb00_0000_ffffn;
/** PUSH RAX; MOV RAX, [RSP+8]; ADD [log+8], RAX; INC [log]; POP RAX; IRETQ. */
const HANDLER = [0x50, 0x48, 0x8b, 0x44, 0x24, 8, 0x48, 1, 4, 0x25, 8, 0xb0, 0, 0, 0x48, 0xff, 4, 0x25, 0, 0xb0, 0, 0, 0x58, 0x48, 0xcf];

const UNLIMITED = 0xffff_ffff_ffff_ffffn;
const NEVER = 200_000n;

/** Where a program ended and everything it left. */
export interface Outcome {
  readonly reason: number;
  /** Exception vector, or -1. */
  readonly vector: number;
  readonly error: number;
  /** Address of a page fault, else 0. */
  readonly address: bigint;
  readonly rip: bigint;
  readonly gprs: readonly bigint[];
  readonly flags: number;
  readonly mxcsr: number;
  readonly icount: bigint;
  readonly xmm: Uint8Array;
  readonly x87: Uint8Array;
  readonly data: Uint8Array;
  readonly stack: Uint8Array;
  readonly code: Uint8Array;
  /** Of the interrupt handler. */
  readonly log: Uint8Array;
}

export interface RunOptions {
  /** Entries after which a compiling tier compiles a block, instead of 1. */
  readonly threshold?: number;
  /** A compiling tier interprets the program once before, so that regions know all its blocks and branch targets. */
  readonly warm?: boolean;
  /** Most instructions between stops; 0: run through. At each stop the state is kept in `stops`. */
  readonly interval?: number;
}

/** One tier: a CPU whose low 2 MiB are mapped one to one for user code as random programs expect. */
export class Tier {
  readonly core: CpuCore;
  readonly compiled: boolean;

  /** `background`: compiles beside the program, so that code is replaced at times nobody chose; `codeCache`: with code of earlier runs. */
  static async create(compiled: boolean, background = false, cpu: CpuLevel = 'v2', codeCache?: string): Promise<Tier> {
    const jit = !compiled ? 'off' : background ? 'on' : 'sync';
    return new Tier(await CpuCore.create({ ramBytes: RAM_BYTES, cpu, jit, mergeAfter: 4, codeCache }), compiled);
  }
  private constructor(core: CpuCore, compiled: boolean) {
    this.core = core;
    this.compiled = compiled;
    const entry = (table: number, index: number, value: number) =>
      core.view.setBigUint64(core.ramBase + TABLES + table * PAGE + index * 8, BigInt(value), true);
    for (let level = 0; level < 3; level++) entry(level, 0, (TABLES + (level + 1) * PAGE) | 7);
    const map = (at: number, bytes: number, flags: number) => {
      for (let page = at; page < at + bytes; page += PAGE) entry(3, page / PAGE, page | flags);
    };
    map(CODE, CODE_BYTES, 7);
    map(DATA, DATA_BYTES, 7);
    map(READ_ONLY, PAGE, 5);
    map(STACK, STACK_BYTES, 7);
  }

  /** Maps a page below 2 MiB for supervisor accesses, such as those to descriptor tables. */
  mapSystemPage(page: number): void {
    const { core } = this;
    core.view.setBigUint64(core.ramBase + TABLES + 3 * PAGE + (page / PAGE) * 8, BigInt(page | 3), true);
  }

  private interrupts = false;
  /** From the next `load` on an external interrupt comes at each stop for the limit of instructions; the CPU delivers it to a handler by itself. */
  takeInterrupts(): void {
    this.interrupts = true;
  }

  private bytes(at: number, n: number): Uint8Array {
    return this.core.u8.slice(this.core.ramBase + at, this.core.ramBase + at + n);
  }

  /** Puts program and state in place. `tracked`: it starts with exceptions noted in MXCSR, as after LDMXCSR. */
  load(code: Uint8Array, m: Machine, tracked = true): void {
    const { core } = this;
    this.loaded = { code, machine: m };
    this.tracked = tracked;
    core.u8.set(code, core.ramBase + CODE);
    core.dirtyCode(core.ramBase + CODE, CODE_BYTES);
    this.reset(m);
  }

  /** Runs once more from the state that was loaded, with what has been compiled meanwhile. */
  again(options: RunOptions = {}): Outcome[] {
    this.rewind();
    return this.run(options);
  }

  /** The state before the run; code that the program has changed is put back, what was made from the rest stays. */
  private rewind(): void {
    const { core, loaded } = this;
    if (loaded === undefined) throw new Error('load comes before run');
    for (const [i, byte] of loaded.code.entries()) {
      const at = core.ramBase + CODE + i;
      if (core.u8[at] === byte) continue;
      core.u8[at] = byte;
      core.dirtyCode(at, 1);
    }
    this.reset(loaded.machine);
    const { u32 } = core;
    for (let d = BLOCK_DESCS + BLOCK_DESC_SIZE; u32[(d + BD_REC) >>> 2] !== 0; d += BLOCK_DESC_SIZE) u32[(d + BD_COUNT) >>> 2] = 0;
  }
  private tracked = true;
  private loaded: { code: Uint8Array; machine: Machine } | undefined;

  private reset(m: Machine): void {
    const { core } = this;
    const cpu = core.cpuAddress(0);
    core.reset(0);
    const set32 = (offset: number, v: number) => core.view.setUint32(cpu + offset, v, true);
    const set64 = (offset: number, v: bigint) => core.view.setBigUint64(cpu + offset, v, true);
    set32(V_PAGING, PAGING_GUEST);
    set64(S_CR0, 0x8001_0033n);
    set64(S_CR3, BigInt(TABLES));
    set64(S_CR4, 0x620n);
    set64(S_EFER, 0xd01n);
    set32(S_CPL, 3);
    set64(S_SEG + GS * SEG_STRIDE + SEG_BASE, BigInt(GS_BASE));
    set32(S_MXCSR, this.tracked ? MXCSR_DEFAULT | MXCSR_TRACKED : MXCSR_DEFAULT);
    set32(S_X87_CW, 0x37f);
    set32(S_HOT_THRESHOLD, 0);
    core.u8.set(m.data, core.ramBase + DATA);
    core.u8.fill(0, core.ramBase + READ_ONLY, core.ramBase + READ_ONLY + PAGE);
    core.u8.fill(0, core.ramBase + STACK, core.ramBase + STACK + STACK_BYTES);
    core.tlbFlushAll(0);
    core.u8.set(m.xmm, cpu + S_XMM);
    m.gprs.forEach((v, n) => {
      core.setReg(0, n, v);
    });
    core.setRflags(0, BigInt(m.flags | 0x202));
    core.setRip(0, BigInt(CODE));
    if (this.interrupts) this.resetSystem();
  }

  private resetSystem(): void {
    const { core } = this;
    const cpu = core.cpuAddress(0);
    const put = (at: number, v: bigint) => core.view.setBigUint64(core.ramBase + at, v, true);
    for (const page of [SYSTEM.gdt, SYSTEM.idt, SYSTEM.handler, SYSTEM.log]) this.mapSystemPage(page);
    put(SYSTEM.gdt + KERNEL_CODE, KERNEL_CODE_DESCRIPTOR);
    put(SYSTEM.gdt + (USER_DATA & ~7), USER_DATA_DESCRIPTOR);
    put(SYSTEM.gdt + (USER_CODE & ~7), USER_CODE_DESCRIPTOR);
    put(SYSTEM.tss + 4, BigInt(SYSTEM.stackTop));
    // 64-bit interrupt gate (SDM vol. 3, figure 7-8).
    put(SYSTEM.idt + VECTOR * 16, BigInt(SYSTEM.handler & 0xffff) | (BigInt(KERNEL_CODE) << 16n) | (0x8en << 40n));
    put(SYSTEM.log, 0n);
    put(SYSTEM.log + 8, 0n);
    core.u8.set(HANDLER, core.ramBase + SYSTEM.handler);
    const set64 = (offset: number, v: number) => core.view.setBigUint64(cpu + offset, BigInt(v), true);
    const set32 = (offset: number, v: number) => core.view.setUint32(cpu + offset, v, true);
    set64(S_GDTR, SYSTEM.gdt);
    set32(S_GDTR + 8, 0x7f);
    set64(S_IDTR, SYSTEM.idt);
    set32(S_IDTR + 8, 0xfff);
    const segment = (n: number, selector: number, base: number, limit: number, attr: number) =>
      core.setSegment(0, n, { selector, base: BigInt(base), limit, attr });
    segment(CS, USER_CODE, 0, 0xffff_ffff, 0xa0fb);
    segment(SS, USER_DATA, 0, 0xffff_ffff, 0xc0f3);
    segment(TR, TASK, SYSTEM.tss, 0x67, 0x8b);
    set32(V_NATIVE, 1);
    // Exceptions come out, as without interrupts.
    set32(V_EXC_BITMAP, 0xffff_ffff);
    core.modeChanged(0);
  }

  /** Runs what was loaded until an exception; the last element is the end, those before it stops for the limit. */
  run(options: RunOptions = {}): Outcome[] {
    const { core } = this;
    const cpu = core.cpuAddress(0);
    if (this.compiled) {
      if (options.warm === true) {
        this.runOn({});
        this.rewind();
      }
      core.view.setUint32(cpu + S_HOT_THRESHOLD, options.threshold ?? 1, true);
    }
    return this.runOn(options);
  }

  private runOn(options: RunOptions): Outcome[] {
    const { core } = this;
    const cpu = core.cpuAddress(0);
    const interval = BigInt(options.interval ?? 0);
    const out: Outcome[] = [];
    for (;;) {
      const count = core.view.getBigUint64(cpu + S_ICOUNT, true);
      const limit = interval > 0n && out.length < 40 ? count + interval : NEVER;
      core.setLimit(0, limit > NEVER ? NEVER : limit);
      const reason = core.run(0);
      out.push(this.outcome(reason));
      if (reason !== EXIT_LIMIT || core.view.getBigUint64(cpu + S_ICOUNT, true) >= NEVER) break;
      if (this.interrupts) core.setInterrupt(0, VECTOR);
    }
    core.setLimit(0, UNLIMITED);
    core.view.setUint32(cpu + S_EXC, 0, true);
    return out;
  }

  private outcome(reason: number): Outcome {
    const { core } = this;
    const cpu = core.cpuAddress(0);
    const u32 = (offset: number) => core.view.getUint32(cpu + offset, true);
    const vector = reason === EXIT_EXCEPTION ? u32(S_EXC) - 1 : -1;
    return {
      reason,
      vector,
      error: reason === EXIT_EXCEPTION ? u32(S_EXC_ERROR) : 0,
      address: vector === 14 ? core.view.getBigUint64(cpu + S_EXC_ADDR, true) : 0n,
      rip: core.getRip(0),
      gprs: Array.from({ length: 16 }, (_, n) => core.getReg(0, n)),
      flags: Number(core.getRflags(0)),
      mxcsr: u32(S_MXCSR) & MXCSR_VISIBLE,
      icount: core.view.getBigUint64(cpu + S_ICOUNT, true),
      xmm: core.u8.slice(cpu + S_XMM, cpu + S_XMM + 256),
      x87: Uint8Array.of(
        ...core.u8.slice(cpu + S_X87, cpu + S_X87 + 128),
        ...[S_X87_CW, S_X87_SW, S_X87_TOP, S_X87_TAGS].flatMap((f) => [u32(f) & 0xff, u32(f) >>> 8]),
      ),
      data: this.bytes(DATA, DATA_BYTES),
      stack: this.bytes(STACK, STACK_BYTES),
      code: this.bytes(CODE, CODE_BYTES),
      log: this.bytes(SYSTEM.log, LOG_BYTES),
    };
  }
}

const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');

/** What differs between two outcomes, as text; empty when they are equal. */
export function compareOutcomes(a: Outcome, b: Outcome): string[] {
  const found: string[] = [];
  for (const key of ['reason', 'vector', 'error', 'address', 'rip', 'flags', 'mxcsr', 'icount'] as const) {
    if (a[key] !== b[key]) found.push(`${key}: ${a[key].toString(16)} and ${b[key].toString(16)}`);
  }
  for (const [n, name] of NAMES.entries()) {
    const [x, y] = [a.gprs[n] ?? 0n, b.gprs[n] ?? 0n];
    if (x !== y) found.push(`${name}: ${x.toString(16)} and ${y.toString(16)}`);
  }
  for (const key of ['xmm', 'x87', 'data', 'stack', 'code', 'log'] as const) {
    for (let i = 0; i < a[key].length; i += 8) {
      const hex = (u: Uint8Array) =>
        Buffer.from(u.subarray(i, i + 8))
          .reverse()
          .toString('hex');
      if (hex(a[key]) !== hex(b[key])) {
        found.push(`${key}+${i.toString(16)}: ${hex(a[key])} and ${hex(b[key])}`);
        if (found.length > 30) return found;
      }
    }
  }
  return found;
}

/** First difference between two runs. */
export function compareRuns(a: readonly Outcome[], b: readonly Outcome[]): string[] {
  for (const [i, x] of a.entries()) {
    const y = b[i];
    if (y === undefined) break;
    const found = compareOutcomes(x, y);
    if (found.length > 0) return i > 0 || a.length > 1 ? [`at stop ${i} of ${a.length}`, ...found] : found;
  }
  return a.length === b.length ? [] : [`${a.length} and ${b.length} stops`];
}
