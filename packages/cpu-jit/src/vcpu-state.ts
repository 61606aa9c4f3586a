import type { CpuOptions } from './cpu-options.ts';
import { NO_LIMIT } from './cpu-options.ts';
import { type EntryTarget, type FlatEntry, flatState, resetState, type Segment } from './entry-state.ts';
import { SWITCHER_PAGE_FAULT } from './interp/handler-table.ts';
import {
  CPU_BASE,
  CPU_STRIDE,
  CS,
  INTR_WINDOW,
  MAX_VCPUS,
  P_PAGE_FAULT,
  RUN_LIMIT,
  S_CODE_SIZE,
  S_CPL,
  S_DR,
  S_EXC,
  S_EXC_ERROR,
  S_FAR_LIMIT,
  S_GPR,
  S_ICOUNT,
  S_ICOUNT_LIMIT,
  S_INTR,
  S_NMI,
  S_RFLAGS,
  S_RIP,
  S_SEG,
  S_TLB_COUNTED,
  SEG_BASE,
  SEG_STRIDE,
  TLB_COUNTED,
  V_SLOT,
} from './layout.ts';
import { LinearMemory } from './memory.ts';
import type { RuntimeExports } from './runtime.ts';

const STATUS_FLAGS = 0x8d5;
const RFLAGS_AC = 1 << 18;
/** DR7: accesses to debug registers are #DB. */
const DR7_GD = 1n << 13n;
/** No program goes straight on for so many instructions. */
const FAR = 1n << 20n;

/** What each vCPU has: registers, mode, pending events, limit of instructions, TLB. */
export abstract class VcpuState extends LinearMemory {
  protected runtime: RuntimeExports;
  protected readonly limits = new BigUint64Array(MAX_VCPUS);

  protected constructor(options: CpuOptions) {
    super(options);
    // Set by link(), before anyone can see the object.
    this.runtime = undefined as unknown as RuntimeExports;
  }

  /** General register `n` (encoding order). */
  getReg(vcpu: number, n: number): bigint {
    return this.getU64(this.cpuAddress(vcpu) + S_GPR + n * 8);
  }

  setReg(vcpu: number, n: number, v: bigint): void {
    this.setU64(this.cpuAddress(vcpu) + S_GPR + n * 8, v);
  }

  getRip(vcpu: number): bigint {
    return this.getU64(this.cpuAddress(vcpu) + S_RIP);
  }

  setRip(vcpu: number, v: bigint): void {
    this.setU64(this.cpuAddress(vcpu) + S_RIP, v);
  }

  /** RFLAGS with the lazy status flags computed. */
  getRflags(vcpu: number): bigint {
    return BigInt(this.rflags32(vcpu));
  }

  setRflags(vcpu: number, v: bigint): void {
    this.setRflags32(vcpu, Number(v & 0xffff_ffffn));
  }

  /** The same as numbers, for paths where a bigint costs too much; the upper half of RFLAGS is always 0. */
  rflags32(vcpu: number): number {
    const cpu = this.cpuAddress(vcpu);
    return ((this.u32[(cpu + S_RFLAGS) >>> 2] ?? 0) | this.runtime.getFlags(cpu)) >>> 0;
  }

  setRflags32(vcpu: number, v: number): void {
    const cpu = this.cpuAddress(vcpu);
    const old = this.u32[(cpu + S_RFLAGS) >>> 2] ?? 0;
    this.u32[(cpu + S_RFLAGS) >>> 2] = (v & ~STATUS_FLAGS) | 2;
    this.runtime.setFlags(cpu, v & STATUS_FLAGS);
    if ((old ^ v) & RFLAGS_AC) this.runtime.alignment(cpu);
  }

  // ------------------------------------------------------------ mode
  /** Architectural state after RESET or INIT: real mode at F000:FFF0. Keeps CPUID, control block, limits and counters. */
  resetToReal(vcpu: number): void {
    resetState(this.entryTarget(vcpu));
  }

  /** Flat 64-bit code at CPL 0 with paging on (`long`), or flat 32-bit protected mode without (`protected`); interrupts off. */
  enterFlat(vcpu: number, mode: 'long' | 'protected', entry: FlatEntry): void {
    flatState(this.entryTarget(vcpu), mode, entry);
  }

  /** Start-up IPI with vector `page` after INIT (`resetToReal`): real mode at page:0000. */
  startUp(vcpu: number, page: number): void {
    this.setSegment(vcpu, CS, { selector: page << 8, base: BigInt(page << 12), limit: 0xffff, attr: 0x9b });
    this.setRip(vcpu, 0n);
    this.modeChanged(vcpu);
  }

  setSegment(vcpu: number, n: number, s: Segment): void {
    this.runtime.setSegment(this.cpuAddress(vcpu), n, s.selector, s.base, s.limit, s.attr);
  }

  /** After CR0, EFER, CS or CPL were written from outside: TLB array, code size and caches follow. */
  modeChanged(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.runtime.setCpl(cpu, this.u32[(cpu + S_CPL) >>> 2] ?? 0);
    this.runtime.tlbFlushAll(cpu);
    this.runtime.enterCode(cpu);
  }

  private entryTarget(vcpu: number): EntryTarget {
    return { view: this.view, u8: this.u8, runtime: this.runtime, cpu: this.cpuAddress(vcpu), vcpu };
  }

  /** Size of the code that runs now. */
  codeBits(vcpu: number): 16 | 32 | 64 {
    return this.codeSize(this.cpuAddress(vcpu));
  }

  protected codeSize(cpu: number): 16 | 32 | 64 {
    const size = this.u32[(cpu + S_CODE_SIZE) >>> 2];
    return size === 16 || size === 32 ? size : 64;
  }

  /** Linear address of the next instruction. */
  codeAddress(vcpu: number): bigint {
    const cpu = this.cpuAddress(vcpu);
    const rip = this.getU64(cpu + S_RIP);
    return this.codeSize(cpu) === 64 ? rip : BigInt.asUintN(32, rip + this.getU64(cpu + S_SEG + CS * SEG_STRIDE + SEG_BASE));
  }

  /** Shadow paging: makes the TLB arrays of `slot` current for the mode the vCPU is in; P_KERNEL_ROOT and P_USER_ROOT are set. */
  selectSlot(vcpu: number, slot: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + V_SLOT) >>> 2] = slot;
    this.runtime.setCpl(cpu, this.u32[(cpu + S_CPL) >>> 2] ?? 0);
    this.runtime.enterCode(cpu);
  }

  /** MOV to debug register `n`, which arms breakpoints, whatever DR7.GD says; what the CPU refuses becomes #GP. RIP moves on as after the instruction. */
  writeDebug(vcpu: number, n: number, value: bigint): void {
    const cpu = this.cpuAddress(vcpu);
    this.setU64(cpu + S_DR + 7 * 8, this.getU64(cpu + S_DR + 7 * 8) & ~DR7_GD);
    this.runtime.sys_write_dr(cpu, S_DR + n * 8, value);
  }

  // ------------------------------------------------------------ events
  /** External interrupt `vector` for delivery as soon as the guest takes interrupts; undefined withdraws it. Heard at the next check point. */
  setInterrupt(vcpu: number, vector: number | undefined): void {
    this.request(vcpu, vector === undefined ? 0 : vector + 1);
  }

  /** The vector that still waits, undefined when it was delivered (or there was none). */
  pendingInterrupt(vcpu: number): number | undefined {
    const pending = this.u32[(this.cpuAddress(vcpu) + S_INTR) >>> 2] ?? 0;
    return pending === 0 || pending === INTR_WINDOW ? undefined : pending - 1;
  }

  /** Makes `run` return EXIT_INTR_WINDOW as soon as an interrupt could be delivered (once). */
  requestInterruptWindow(vcpu: number): void {
    this.request(vcpu, INTR_WINDOW);
  }

  private request(vcpu: number, value: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + S_INTR) >>> 2] = value;
    if (value !== 0) this.kick(cpu);
  }

  setNmi(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + S_NMI) >>> 2] = 1;
    this.kick(cpu);
  }

  /** Generated code returns at its next check point; `run` puts the limit back. */
  private kick(cpu: number): void {
    this.lower(cpu, 0n);
  }

  /** Whether an external interrupt would be delivered before the next instruction. */
  interruptible(vcpu: number): boolean {
    return this.runtime.interruptible(this.cpuAddress(vcpu)) !== 0;
  }

  /** The instruction at RIP raises an exception: delivered when `run` is entered. */
  raise(vcpu: number, vector: number, error = 0): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + S_EXC) >>> 2] = vector + 1;
    this.u32[(cpu + S_EXC_ERROR) >>> 2] = error;
  }

  // ------------------------------------------------------------ limit of instructions
  /**
   * Retired instructions at which `run` returns EXIT_LIMIT, at the next check point (taken backward and indirect branches), or about FAR further on, which only code without
   * such branches comes to.
   */
  setLimit(vcpu: number, instructions: bigint): void {
    const cpu = this.cpuAddress(vcpu);
    const count = this.getU64(cpu + S_ICOUNT);
    // A limit in the past, again and again, must not put the end off.
    const from = instructions > count ? instructions : count;
    const far = from < NO_LIMIT - FAR ? from + FAR : NO_LIMIT;
    if (instructions > count || far < this.getU64(cpu + S_FAR_LIMIT)) this.setU64(cpu + S_FAR_LIMIT, far);
    this.limits[vcpu] = instructions;
    this.lower(cpu, instructions);
  }
  /** Another vCPU may be the one that runs; then its run ends early, and goes on. */
  private lower(cpu: number, limit: bigint): void {
    Atomics.store(this.u64, (cpu + S_ICOUNT_LIMIT) >>> 3, limit);
    if (limit < (this.u64[RUN_LIMIT >>> 3] ?? 0n)) Atomics.store(this.u64, RUN_LIMIT >>> 3, limit);
  }

  /** The compiler thread lowers S_ICOUNT_LIMIT to be heard; the limit that was asked for is put back here. */
  protected limitReached(cpu: number): boolean {
    const limit = this.limits[(cpu - CPU_BASE) / CPU_STRIDE] ?? 0n;
    if (this.getU64(cpu + S_ICOUNT) >= limit) return true;
    Atomics.store(this.u64, (cpu + S_ICOUNT_LIMIT) >>> 3, limit);
    return false;
  }

  // ------------------------------------------------------------ TLB
  /** Page faults of umod that are the guest's own go to the switcher instead of leaving the guest. Needs a switcher. */
  directPageFaults(vcpu: number, on: boolean): void {
    this.u32[(this.cpuAddress(vcpu) + P_PAGE_FAULT) >>> 2] = on ? SWITCHER_PAGE_FAULT : 0;
  }

  tlbFlushArray(vcpu: number, array: number): void {
    this.runtime.tlbFlushArray(this.cpuAddress(vcpu), array);
  }

  tlbFlushAll(vcpu: number): void {
    this.runtime.tlbFlushAll(this.cpuAddress(vcpu));
  }

  tlbInvlpg(vcpu: number, array: number, va: bigint): void {
    this.runtime.tlbInvlpg(this.cpuAddress(vcpu), array, va);
  }

  /**
   * Whether TLB hits of data accesses are counted: each access, or each piece of a page that a string instruction works on, then comes to the runtime,
   * which makes compiled code several times slower. Fetches of code are not counted. Both tiers make the same accesses; a few in a hundred million miss in
   * one and hit in the other, since entries are shared with fetches, of which the interpreter makes more. A change empties the TLBs.
   */
  countTlbHits(on: boolean): void {
    const tags = on ? TLB_COUNTED : 0;
    for (let v = 0; v < this.vcpus; v++) {
      const at = (this.cpuAddress(v) + S_TLB_COUNTED) >>> 2;
      if (this.u32[at] === tags) continue;
      this.u32[at] = tags;
      this.tlbFlushAll(v);
    }
  }

  /** HPA of the code byte at linear address `address`, 0 when it cannot be fetched now; raises nothing. */
  probeCode(vcpu: number, address: bigint): number {
    return this.runtime.probeExec(this.cpuAddress(vcpu), address) >>> 0;
  }
}
