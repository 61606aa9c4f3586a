/** A CPU by itself: memory that is mapped page by page, registers, and hooks. */
import { CpuCore } from '../cpu.ts';
import { NO_LIMIT } from '../cpu-options.ts';
import { formatInsn } from '../decoder/format.ts';
import { decode } from '../decoder/index.ts';
import { ATTR_CODE16, type Segment } from '../entry-state.ts';
import { CpuError } from '../errors.ts';
import type { CpuLevel } from '../features.ts';

import {
  CPUID_ANY_SUBLEAF,
  CPUID_COUNT,
  CPUID_ENTRIES,
  CPUID_ENTRY_SIZE,
  CS,
  INTERCEPT_CPUID,
  INTERCEPT_ENTRY,
  INTERCEPT_MSR,
  S_CR0,
  S_CR4,
  S_EFER,
  S_XCR0,
  SYSCALL_EXIT,
  SYSCALL_NATIVE,
  V_EXC_BITMAP,
  V_INTERCEPTS,
  V_SYSCALL_MODE,
} from '../layout.ts';
import { processorLeaves } from '../processor-leaves.ts';
import { type Address, PAGE, pageOf, type Range, toAddress } from './address.ts';
import { GuestPages, type Region } from './guest-pages.ts';
import { type CodeHook, type CpuidHook, Hooks, type InterruptHook, type MemoryHook, type MsrHook, type PortHook, type SyscallHook } from './hooks.ts';
import { type CpuState, type RegisterName, Registers, type SegmentName } from './registers.ts';
import { Runner } from './runner.ts';
import type { StopReason } from './stop-reason.ts';

export interface CpuCreateOptions {
  /** Bytes that can be mapped, a multiple of 4096 up to 3.5 GiB; default 64 MiB. */
  readonly memory?: number;
  /**
   * What code runs first: 'long' (default) 64-bit, 'protected' 32-bit, both at privilege 0 with flat segments; 'real' 16-bit, all segments at 0.
   * Paging is off in all of them, in 'long' too, which no real CPU offers: addresses are those of `map`. The guest may turn paging on.
   */
  readonly mode?: 'long' | 'protected' | 'real';
  /** 'jit' (default) compiles hot code on a thread of its own, 'sync' on this one, 'interp' not at all. */
  readonly tier?: 'interp' | 'sync' | 'jit';
  /** x86-64-v2 (default), or v3: with AVX, AVX2, FMA. */
  readonly cpu?: CpuLevel;
  /** What the guest's exceptions, INT n and SYSCALL do: end `run` ('stop', default), or go to its own tables and entry points ('deliver'). */
  readonly exceptions?: 'stop' | 'deliver';
}

export interface RunOptions {
  /** Where to stop: before the instruction at this linear address (without paging the address of `map`), or 'hlt': HLT only, which stops always. */
  readonly until?: 'hlt' | Address;
  /** Instructions at most (a REP instruction that takes several turns counts for each). Exact; the last of them, as many as there are executable bytes, are interpreted: map data without 'x'. */
  readonly count?: number;
}

export interface DisassembledInsn {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  /** Intel syntax; '(bad)' for a byte that is no instruction. */
  readonly text: string;
}

const CR0_PG = 1n << 31n;
/** OSFXSR, OSXMMEXCPT: SSE can be used. OSXSAVE with XCR0: AVX too. */
const CR4_SSE = 0x600n;
const CR4_OSXSAVE = 1n << 18n;
const XCR0_AVX = 7n;
const EFER_SCE = 1n;
const REAL_SEGMENT = { selector: 0, base: 0n, limit: 0xffff };
const MAX_INSN = 15;
/** Instructions between two looks at the event loop in `runAsync`. */
const SLICE = 5_000_000n;

export class Cpu {
  /** The machinery under this interface; for statistics. */
  readonly core: CpuCore;
  private readonly pages: GuestPages;
  private readonly registers: Registers;
  private readonly hooks: Hooks;
  private readonly runner: Runner;
  private readonly stops: boolean;
  private isDisposed = false;

  /** Throws `CpuError` for options that do not fit. `dispose` it, or `await using`. */
  static async create(options: CpuCreateOptions = {}): Promise<Cpu> {
    const { memory = 64 << 20, mode = 'long', tier = 'jit', cpu: level = 'v2', exceptions = 'stop' } = options;
    oneOf('mode', mode, ['long', 'protected', 'real']);
    oneOf('tier', tier, ['interp', 'sync', 'jit']);
    oneOf('cpu', level, ['v2', 'v3']);
    oneOf('exceptions', exceptions, ['stop', 'deliver']);
    let cpu: Cpu | undefined;
    const core = await CpuCore.create({
      ramBytes: memory,
      jit: tier === 'interp' ? 'off' : tier === 'sync' ? 'sync' : 'on',
      cpu: level,
      hooks: { mmuFault: () => cpu?.runner.mmuFault() ?? 1 },
    });
    cpu = new Cpu(core, mode, exceptions === 'stop');
    return cpu;
  }

  private constructor(core: CpuCore, mode: 'long' | 'protected' | 'real', stops: boolean) {
    this.core = core;
    this.stops = stops;
    this.hooks = new Hooks((pages) => {
      if (pages.length > 0) this.pages.refresh(pages);
      else this.applyIntercepts();
    });
    this.pages = new GuestPages(core, (page) => this.hooks.withheld(page));
    this.registers = new Registers(core);
    this.runner = new Runner(core, this.pages, this.hooks, stops);
    this.start(mode);
  }

  private start(mode: 'long' | 'protected' | 'real'): void {
    const { core } = this;
    const base = core.cpuAddress(0);
    const or = (at: number, bits: bigint) => core.view.setBigUint64(base + at, core.view.getBigUint64(base + at, true) | bits, true);
    this.installCpuid();
    if (mode === 'real') {
      core.resetToReal(0);
      core.setReg(0, 2, 0n);
      core.setSegment(0, CS, { ...REAL_SEGMENT, attr: ATTR_CODE16 });
      core.setRip(0, 0n);
    } else {
      core.enterFlat(0, mode, { rip: 0n });
      core.view.setBigUint64(base + S_CR0, core.view.getBigUint64(base + S_CR0, true) & ~CR0_PG, true);
    }
    or(S_CR4, CR4_SSE);
    if (mode === 'long') or(S_EFER, EFER_SCE);
    if (core.level === 'v3') {
      or(S_CR4, CR4_OSXSAVE);
      or(S_XCR0, XCR0_AVX);
    }
    core.modeChanged(0);
    this.pages.install();
    this.applyIntercepts();
  }

  private installCpuid(): void {
    const at = this.core.cpuAddress(0);
    const leaves = processorLeaves({ level: this.core.level, apic: false, fsgsbase: true });
    for (const [i, [leaf, answer, subleaf = CPUID_ANY_SUBLEAF]] of leaves.entries()) {
      [leaf, subleaf, ...answer].forEach((value, n) => {
        this.core.view.setUint32(at + CPUID_ENTRIES + i * CPUID_ENTRY_SIZE + 4 * n, value >>> 0, true);
      });
    }
    this.core.view.setUint32(at + CPUID_COUNT, leaves.length, true);
  }

  private applyIntercepts(): void {
    const { hooks, stops } = this;
    const field = (at: number, value: number) => this.core.view.setUint32(this.core.cpuAddress(0) + at, value >>> 0, true);
    let bits = 0;
    if (stops || hooks.interrupts.size > 0) bits |= INTERCEPT_ENTRY;
    if (hooks.msrs.size > 0) bits |= INTERCEPT_MSR;
    if (hooks.cpuids.size > 0) bits |= INTERCEPT_CPUID;
    field(V_INTERCEPTS, bits);
    field(V_EXC_BITMAP, stops ? 0xffff_ffff : 0);
    field(V_SYSCALL_MODE, stops || hooks.syscalls.size > 0 ? SYSCALL_EXIT : SYSCALL_NATIVE);
  }

  // ------------------------------------------------------------ memory
  /** Maps zeroed memory. `address` and `size` in whole pages of 4096 bytes; throws `CpuError` when a page is mapped already or memory runs out. */
  map(address: Address, size: number, permissions = 'rwx'): void {
    this.pages.map(address, size, permissions);
  }
  /** Throws `CpuError` when a page of the range is not mapped, as `protect` does. */
  unmap(address: Address, size: number): void {
    this.pages.unmap(address, size);
  }
  protect(address: Address, size: number, permissions: string): void {
    this.pages.protect(address, size, permissions);
  }
  regions(): Region[] {
    return this.pages.regions();
  }
  /** A copy of `length` bytes, whatever the permissions. Throws `CpuError` when some of it is not mapped. */
  read(address: Address, length: number): Uint8Array {
    const out = new Uint8Array(length);
    this.pages.pieces(address, length, (hpa, n, done) => out.set(this.core.u8.subarray(hpa, hpa + n), done));
    return out;
  }
  /** Writes whatever the permissions; code that was there is translated anew. Throws `CpuError`, and writes nothing, when some of it is not mapped. */
  write(address: Address, bytes: ArrayLike<number>): void {
    const from = bytes instanceof Uint8Array ? bytes : Uint8Array.from(bytes);
    this.pages.pieces(address, from.length, (hpa, n, done) => {
      this.core.u8.set(from.subarray(done, done + n), hpa);
      this.core.dirtyCode(hpa, n);
    });
  }
  /** Maps 'rwx' pages for a flat binary, writes it, and sets RIP to its first byte. */
  load(address: Address, binary: ArrayLike<number>): void {
    const start = toAddress(address);
    const within = Number(start & 0xfffn);
    this.map(start - BigInt(within), Math.max(1, Math.ceil((within + binary.length) / PAGE)) * PAGE, 'rwx');
    this.write(start, binary);
    this.set('rip', start);
  }

  // ------------------------------------------------------------ registers
  /** Throws `CpuError` for a name that does not exist, as all of these do. */
  get(name: RegisterName): bigint {
    return this.registers.get(name);
  }
  /** Control registers and EFER take what MOV and WRMSR would take, the others what fits their width (negative numbers: two's complement). */
  set(name: RegisterName, value: bigint | number): void {
    this.registers.set(name, value);
  }
  /** The hidden part; `attr` as bits 8 to 23 of a descriptor's upper half, bit 16: unusable. */
  segment(name: SegmentName): Segment {
    return this.registers.segment(name);
  }
  setSegment(name: SegmentName, segment: Segment): void {
    this.registers.setSegment(name, segment);
  }
  descriptorTable(name: 'gdtr' | 'idtr'): { base: bigint; limit: number } {
    return this.registers.descriptorTable(name);
  }
  setDescriptorTable(name: 'gdtr' | 'idtr', base: Address, limit: number): void {
    this.registers.setDescriptorTable(name, toAddress(base), limit);
  }
  getMsr(msr: number): bigint {
    return this.registers.getMsr(msr);
  }
  setMsr(msr: number, value: bigint): void {
    this.registers.setMsr(msr, value);
  }
  /** All registers, without memory. */
  state(): CpuState {
    return this.registers.state();
  }
  restore(state: CpuState): void {
    this.registers.restore(state);
  }
  /** Instructions retired since creation. */
  get instructions(): bigint {
    return this.core.stats(0).instructions;
  }

  // ------------------------------------------------------------ running
  /** Runs from RIP until something stops it. Blocks the thread; `runAsync` does not. Throws what hooks throw. */
  run(options: RunOptions = {}): StopReason {
    const stop = this.runner.run(this.until(options), this.target(options), NO_LIMIT);
    return stop ?? { kind: 'limit' };
  }
  /** The same, a few million instructions at a time, with turns of the event loop in between, where `signal` is looked at. */
  async runAsync({ signal, ...options }: RunOptions & { readonly signal?: AbortSignal } = {}): Promise<StopReason> {
    const until = this.until(options);
    const target = this.target(options);
    let start = this.instructions;
    for (;;) {
      if (signal?.aborted === true) return { kind: 'aborted' };
      const stop = this.runner.run(until, target, this.instructions + SLICE, start);
      if (stop !== undefined) return stop;
      start = -1n;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }
  /** Exactly one instruction (a REP instruction with all its turns): { kind: 'limit' } when it was done. */
  step(): StopReason {
    for (;;) {
      const stop = this.run({ count: 1 });
      if (stop.kind !== 'limit' || !this.core.isBetweenIterations(0)) return stop;
    }
  }

  private until({ until }: RunOptions): bigint | undefined {
    this.check();
    return until === undefined || until === 'hlt' ? undefined : toAddress(until, 'until');
  }
  private target({ count }: RunOptions): bigint {
    if (count === undefined) return NO_LIMIT;
    if (!Number.isSafeInteger(count) || count < 0) throw new CpuError('bad-argument', `count must be a number of instructions, got ${count}`);
    return this.instructions + BigInt(count);
  }
  private check(): void {
    if (this.isDisposed) throw new CpuError('bad-argument', 'the CPU was disposed of');
    if (this.runner.isRunning) throw new CpuError('bad-argument', 'a hook cannot run the CPU that called it');
  }

  // ------------------------------------------------------------ hooks
  /** Data accesses that overlap the range. Only pages with hooks are slower. Returns what removes the hook, as all of these do. */
  onMemory(range: Range, kinds: 'r' | 'w' | 'rw', call: MemoryHook): () => void {
    return this.hooks.addMemory(range, kinds, call);
  }
  /** Before each instruction that starts in the range. Code in pages with such hooks runs one instruction at a time. */
  onCode(range: Range, call: CodeHook): () => void {
    return this.hooks.addCode(range, call);
  }
  /** IN, OUT, INS, OUTS. Of several hooks the last that returns a number gives the value. Without one IN reads all ones. */
  onPort(call: PortHook): () => void {
    return this.hooks.add(this.hooks.ports, call);
  }
  onMsr(call: MsrHook): () => void {
    return this.hooks.add(this.hooks.msrs, call);
  }
  onSyscall(call: SyscallHook): () => void {
    return this.hooks.add(this.hooks.syscalls, call);
  }
  onInterrupt(call: InterruptHook): () => void {
    return this.hooks.add(this.hooks.interrupts, call);
  }
  onCpuid(call: CpuidHook): () => void {
    return this.hooks.add(this.hooks.cpuids, call);
  }

  /** Up to `count` instructions from `address` on, as code of the size that runs now; ends where memory does. */
  disassemble(address: Address, count = 1): DisassembledInsn[] {
    const out: DisassembledInsn[] = [];
    let at = toAddress(address);
    while (out.length < count) {
      const bytes = this.readSome(at, MAX_INSN);
      if (bytes.length === 0) break;
      const insn = decode(bytes, 0, bytes.length, this.core.codeBits(0));
      const length = typeof insn === 'string' ? 1 : insn.length;
      out.push({ address: at, bytes: bytes.slice(0, length), text: typeof insn === 'string' ? '(bad)' : formatInsn(insn, at) });
      at = BigInt.asUintN(64, at + BigInt(length));
    }
    return out;
  }
  /** As many bytes as are mapped, up to `length`, at most two pages. */
  private readSome(address: bigint, length: number): Uint8Array {
    const room = PAGE - Number(address & 0xfffn);
    if (this.pages.hpaOf(address) === 0) return new Uint8Array(0);
    const isWhole = room >= length || this.pages.bitsAt(address + BigInt(room)) !== undefined;
    return this.read(address, isWhole && pageOf(address) < 2 ** 36 - 1 ? length : Math.min(length, room));
  }

  /** Ends the compiler's thread; the CPU must not be used afterwards. */
  async dispose(): Promise<void> {
    if (this.isDisposed) return;
    this.isDisposed = true;
    await this.core.dispose();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

function oneOf(option: string, value: string, known: readonly string[]): void {
  if (!known.includes(value)) throw new CpuError('bad-option', `${option} must be ${known.map((k) => `'${k}'`).join(' or ')}, got '${value}'`);
}
