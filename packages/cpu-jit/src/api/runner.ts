/** Runs a `Cpu`: what leaves the guest becomes calls of hooks, or a reason to stop. */
import type { CpuCore } from '../cpu.ts';
import { NO_LIMIT } from '../cpu-options.ts';
import {
  ACCESS_EXEC,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_WRITE,
  EPT_QUAL_TABLE,
  EXIT_CPUID,
  EXIT_EXCEPTION,
  EXIT_HLT,
  EXIT_IO,
  EXIT_LIMIT,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  EXIT_REQUEST,
  EXIT_SHUTDOWN,
  EXIT_SOFT_INT,
  EXIT_SYSCALL,
  MAX_BLOCK_INSNS,
  NEXT,
  NEXT_CHECK,
  S_CR0,
  S_EXC,
  S_EXC_ADDR,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_GPA,
  S_EXIT_QUAL,
  S_EXIT_SIZE,
  S_EXIT_VA,
  S_EXIT_VALUE,
  S_ICOUNT,
  S_STEP,
} from '../layout.ts';
import { pageOf } from './address.ts';
import { type GuestPages, MAY_EXECUTE, MAY_READ, MAY_WRITE } from './guest-pages.ts';
import type { CodeHookEntry, Hooks, MemoryHookEntry } from './hooks.ts';
import type { StopReason } from './stop-reason.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const R11 = 11;
const VECTOR_UD = 6;
const VECTOR_GP = 13;
const VECTOR_PF = 14;
const CR0_PG = 0x8000_0000;
const ALL_ONES = 0xffff_ffff;

/** What `CpuHooks.mmuFault` returns. */
const ACCESS_DONE = 2;
const LEAVE = 3;

export class Runner {
  isRunning = false;
  private readonly core: CpuCore;
  private readonly pages: GuestPages;
  private readonly hooks: Hooks;
  /** Exceptions end the run. */
  private readonly stops: boolean;
  private readonly base: number;
  /** Why the access that left the guest cannot be done, or a hook's 'stop'. */
  private stop: StopReason | undefined;
  /** The instruction at RIP must run by itself: it accesses hooked memory, or is at a breakpoint. */
  private needsStep = false;
  /** HPA of the breakpoint of `until`, 0: none. */
  private breakpoint = 0;
  /** Hooks that have said 'stop' before the instruction at `stoppedAt`, which are not asked again. */
  private readonly asked = new Set<MemoryHookEntry | CodeHookEntry>();
  private stoppedAt: bigint | undefined;

  constructor(core: CpuCore, pages: GuestPages, hooks: Hooks, stops: boolean) {
    this.core = core;
    this.pages = pages;
    this.hooks = hooks;
    this.stops = stops;
    this.base = core.cpuAddress(0);
  }

  /**
   * Until a stop; undefined when `target` retired instructions were reached ({ kind: 'limit' } when that is the caller's own), or soon after `slice`.
   * `start`: at this count of instructions RIP may be at `until` without stopping.
   */
  run(until: bigint | undefined, target: bigint, slice: bigint, start = this.count): StopReason | undefined {
    this.isRunning = true;
    this.stop = undefined;
    if (this.stoppedAt !== this.core.getRip(0)) this.asked.clear();
    this.stoppedAt = undefined;
    this.needsStep = this.asked.size > 0;
    this.setBreakpoint(until);
    try {
      for (;;) {
        const count = this.count;
        if (until !== undefined && count !== start && this.core.codeAddress(0) === until) return { kind: 'until', address: until };
        if (count >= target) return { kind: 'limit' };
        if (count >= slice) return undefined;
        const stop = this.handle(this.advance(target, slice, count), until, start);
        if (stop !== undefined) return stop;
      }
    } finally {
      this.isRunning = false;
      this.setStepping(false);
    }
  }

  private get count(): bigint {
    return this.core.u64[(this.base + S_ICOUNT) >>> 3] ?? 0n;
  }
  private field(at: number): number {
    return this.core.u32[(this.base + at) >>> 2] ?? 0;
  }

  /** Some instructions: one, a block, or as many as there are up to the limit. Returns NEXT, NEXT_CHECK or EXIT_*. */
  private advance(target: bigint, slice: bigint, count: bigint): number {
    const { core, hooks } = this;
    this.stop = undefined;
    if (hooks.isStepping && !this.callCodeHooks()) return this.stop === undefined ? NEXT : EXIT_REQUEST;
    if (hooks.isStepping || this.needsStep) {
      this.needsStep = false;
      const reason = core.runBlock(0, true);
      if (reason !== EXIT_REQUEST) this.asked.clear();
      return reason;
    }
    if (target === NO_LIMIT) {
      core.setLimit(0, slice);
      return core.run(0);
    }
    // Limits are looked at where code jumps back or indirectly: between two such places no byte is executed twice.
    const end = target - BigInt(this.pages.executableBytes + MAX_BLOCK_INSNS);
    if (count < end) {
      core.setLimit(0, end < slice ? end : slice);
      return core.run(0);
    }
    return core.runBlock(0, target - count < BigInt(MAX_BLOCK_INSNS));
  }

  /** Calls the hooks of the next instruction. @returns false when it must not run: a hook said stop or went elsewhere, or it lies in no hooked page */
  private callCodeHooks(): boolean {
    const address = this.codeAt();
    if (address === undefined || !this.hooks.isCodePage(pageOf(address))) {
      this.setStepping(false);
      return false;
    }
    const rip = this.core.getRip(0);
    for (const hook of this.hooks.codeAt(address)) {
      if (this.asked.has(hook)) continue;
      const result = hook.call(rip);
      if (result === 'stop') {
        this.stopAt(hook, 'code');
        return false;
      }
      if (this.core.getRip(0) !== rip) return false;
    }
    return true;
  }
  /** Address of the next instruction, as `map` has it. */
  private codeAt(): bigint | undefined {
    const linear = this.core.codeAddress(0);
    if ((this.field(S_CR0) & CR0_PG) === 0) return linear;
    const hpa = this.core.probeCode(0, linear);
    return hpa === 0 ? undefined : this.pages.addressAt(hpa);
  }
  private setStepping(isStepping: boolean): void {
    if (this.hooks.isStepping === isStepping) return;
    this.hooks.isStepping = isStepping;
    this.pages.refresh(this.hooks.codePages());
  }
  private stopAt(hook: MemoryHookEntry | CodeHookEntry, kind: 'memory' | 'code'): typeof LEAVE {
    this.stoppedAt = this.core.getRip(0);
    this.stop = { kind: 'hook', hook: kind, rip: this.stoppedAt };
    this.asked.add(hook);
    return LEAVE;
  }

  /** Addresses that cannot be executed now are noticed when they are fetched from. */
  private setBreakpoint(until: bigint | undefined): void {
    const isPaged = (this.field(S_CR0) & CR0_PG) !== 0;
    const hpa = until === undefined ? 0 : isPaged ? this.core.probeCode(0, until) : this.pages.hpaOf(until);
    if (hpa === this.breakpoint) return;
    if (this.breakpoint !== 0) this.core.setBreakpoint(this.breakpoint, false);
    if (hpa !== 0) this.core.setBreakpoint(hpa, true);
    this.breakpoint = hpa;
  }

  // ------------------------------------------------------------ exits
  private handle(reason: number, until: bigint | undefined, start: bigint): StopReason | undefined {
    switch (reason) {
      case NEXT:
      case NEXT_CHECK:
      case EXIT_LIMIT:
        return undefined;
      case EXIT_HLT:
        return { kind: 'hlt' };
      case EXIT_REQUEST:
        return this.request(until, start);
      case EXIT_EXCEPTION:
        return this.exception();
      case EXIT_SHUTDOWN:
        return this.shutdown();
      case EXIT_IO:
        return this.port();
      case EXIT_SYSCALL:
        return this.syscall();
      case EXIT_SOFT_INT:
        return this.interrupt();
      case EXIT_CPUID:
        this.cpuid();
        return undefined;
      case EXIT_MSR_READ:
      case EXIT_MSR_WRITE:
        this.msr(reason);
        return undefined;
      default:
        // VMCALL and what else needs a hypervisor or is not there.
        this.core.raise(0, VECTOR_UD);
        return undefined;
    }
  }

  private request(until: bigint | undefined, start: bigint): StopReason | undefined {
    const { stop } = this;
    this.stop = undefined;
    if (stop !== undefined) {
      const isThere = stop.kind === 'memory' && stop.access === 'execute' && this.core.codeAddress(0) === until && this.count !== start;
      return isThere && until !== undefined ? { kind: 'until', address: until } : stop;
    }
    // A hooked access, or a breakpoint that is not for now.
    if (!this.hooks.isStepping) this.needsStep = true;
    return undefined;
  }

  /** An exception could not be delivered, most often because the stack or the table that it needs is not mapped. */
  private shutdown(): StopReason {
    return this.stop ?? { kind: 'shutdown' };
  }

  private exception(): StopReason {
    const vector = this.field(S_EXC) - 1;
    const { view, u32 } = this.core;
    u32[(this.base + S_EXC) >>> 2] = 0;
    return {
      kind: 'exception',
      vector,
      error: this.field(S_EXC_ERROR),
      address: vector === VECTOR_PF ? view.getBigUint64(this.base + S_EXC_ADDR, true) : 0n,
      rip: this.core.getRip(0),
    };
  }

  private port(): StopReason | undefined {
    const size = this.field(S_EXIT_SIZE);
    const isRead = this.field(S_EXIT_ACCESS) === ACCESS_READ;
    const port = this.field(S_EXIT_VA) & 0xffff;
    const mask = ALL_ONES >>> (32 - 8 * size);
    const value = isRead ? 0 : (this.field(S_EXIT_VALUE) & mask) >>> 0;
    const rip = this.core.getRip(0);
    let answer = mask;
    let isStopped = false;
    for (const { call } of this.hooks.ports) {
      const result = call({ access: isRead ? 'in' : 'out', port, size, value });
      if (typeof result === 'number') answer = result;
      if (result === 'stop') isStopped = true;
    }
    this.core.completeIo(0, answer);
    return isStopped ? { kind: 'hook', hook: 'port', rip } : undefined;
  }

  private syscall(): StopReason | undefined {
    const rip = this.core.getRip(0);
    const results = [...this.hooks.syscalls].map(({ call }) => call());
    if (results.includes('deliver')) {
      this.core.syscall(0);
      return undefined;
    }
    if (this.core.getRip(0) === rip) {
      this.core.complete(0);
      // What the program can see of a kernel that returned (SDM vol. 2, SYSCALL).
      this.core.setReg(0, RCX, this.core.getRip(0));
      this.core.setReg(0, R11, this.core.getRflags(0));
    }
    if (results.includes('stop')) return { kind: 'hook', hook: 'syscall', rip };
    return results.length === 0 ? { kind: 'syscall', rip } : undefined;
  }

  private interrupt(): StopReason | undefined {
    const rip = this.core.getRip(0);
    const vector = this.field(S_EXIT_VA) & 0xff;
    const results = [...this.hooks.interrupts].map(({ call }) => call(vector));
    if (results.includes('deliver') || (results.length === 0 && !this.stops)) {
      return this.core.inject(0, vector, 'software') ? this.stop : this.shutdown();
    }
    if (this.core.getRip(0) === rip) this.core.complete(0);
    if (results.includes('stop')) return { kind: 'hook', hook: 'interrupt', rip };
    return results.length === 0 ? { kind: 'interrupt', vector, rip } : undefined;
  }

  private cpuid(): void {
    const { core } = this;
    const [leaf, subleaf] = [core.getReg(0, RAX), core.getReg(0, RCX)].map((v) => Number(v & 0xffff_ffffn));
    for (const { call } of this.hooks.cpuids) {
      const answer = call(leaf ?? 0, subleaf ?? 0);
      if (answer === undefined) continue;
      [RAX, RBX, RCX, RDX].forEach((n, i) => {
        core.setReg(0, n, BigInt((answer[i] ?? 0) >>> 0));
      });
      core.complete(0);
      return;
    }
    core.cpuid(0);
  }

  private msr(reason: number): void {
    const { core } = this;
    const low = (n: number) => core.getReg(0, n) & 0xffff_ffffn;
    const value = reason === EXIT_MSR_WRITE ? (low(RDX) << 32n) | low(RAX) : undefined;
    for (const { call } of this.hooks.msrs) {
      const answer = call(Number(low(RCX)), value);
      if (answer === undefined) continue;
      if (value === undefined) {
        const wide = BigInt.asUintN(64, BigInt(answer));
        core.setReg(0, RAX, wide & 0xffff_ffffn);
        core.setReg(0, RDX, wide >> 32n);
      }
      core.complete(0);
      return;
    }
    if (!core.doMsr(0, reason)) core.raise(0, VECTOR_GP);
  }

  // ------------------------------------------------------------ memory
  /** The second level does not allow an access: it is not mapped, not permitted, or hooked. */
  mmuFault(): 2 | 3 {
    const address = BigInt.asUintN(64, BigInt.asIntN(48, this.core.view.getBigUint64(this.base + S_EXIT_GPA, true)));
    const flags = this.field(S_EXIT_ACCESS);
    const kind = flags & 3;
    const isTable = (this.field(S_EXIT_QUAL) & EPT_QUAL_TABLE) !== 0;
    const need = isTable ? MAY_READ | MAY_WRITE : kind === ACCESS_EXEC ? MAY_EXECUTE : kind === ACCESS_READ ? MAY_READ : MAY_READ | MAY_WRITE;
    const bits = this.pages.bitsAt(address);
    // Hooks see what programs access, not what the CPU reads by itself for paging: tables in hooked pages cannot be walked.
    if (bits === undefined || (bits & need) !== need || isTable) {
      const access = kind === ACCESS_EXEC ? 'execute' : kind === ACCESS_READ ? 'read' : 'write';
      const why = bits === undefined ? 'unmapped' : 'protected';
      this.stop = { kind: 'memory', access, address, size: this.field(S_EXIT_SIZE), why, rip: this.core.getRip(0) };
      return LEAVE;
    }
    if (kind === ACCESS_EXEC) {
      this.setStepping(true);
      return LEAVE;
    }
    // Compiled code holds registers in variables: hooks are called for one interpreted instruction, when they are all in place.
    if (this.field(S_STEP) === 0) {
      this.needsStep = true;
      return LEAVE;
    }
    return (flags & ACCESS_PROBE) !== 0 ? ACCESS_DONE : this.hookedAccess(address, this.field(S_EXIT_SIZE), kind === ACCESS_WRITE);
  }

  private hookedAccess(address: bigint, size: number, isWrite: boolean): 2 | 3 {
    const { u8 } = this.core;
    const hpa = this.pages.hpaOf(address);
    const rip = this.core.getRip(0);
    let value = little(u8, isWrite ? this.base + S_EXIT_VALUE : hpa, size);
    for (const hook of this.hooks.memoryAt(address, size, isWrite)) {
      if (this.asked.has(hook)) continue;
      const result = hook.call({ access: isWrite ? 'write' : 'read', address, size, value, rip });
      if (result === 'stop') return this.stopAt(hook, 'memory');
      if (result !== undefined) value = BigInt.asUintN(8 * size, BigInt(result));
    }
    if (isWrite) {
      putLittle(u8, hpa, size, value);
      this.core.dirtyCode(hpa, size);
    } else {
      putLittle(u8, this.base + S_EXIT_VALUE, 16, value);
    }
    return ACCESS_DONE;
  }
}

function little(u8: Uint8Array, at: number, size: number): bigint {
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(u8[at + i] ?? 0);
  return value;
}
function putLittle(u8: Uint8Array, at: number, size: number, value: bigint): void {
  for (let i = 0; i < size; i++) u8[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
}
