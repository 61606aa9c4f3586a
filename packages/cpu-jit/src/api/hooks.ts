/** What callers of `Cpu` may hook, and which hooks there are. Hooks see exact registers, and may read and change registers and memory. */
import { CpuError } from '../errors.ts';
import type { CpuidAnswer } from '../processor-leaves.ts';
import { type Range, toRange } from './address.ts';
import { MAY_EXECUTE, MAY_READ, MAY_WRITE } from './guest-pages.ts';

/** 'stop' ends `run` with { kind: 'hook' }. */
// biome-ignore lint/suspicious/noConfusingVoidType: hooks that return nothing are the common case
export type HookResult = void | undefined | 'stop';

/** An access as the CPU makes it: one that crosses a page is two; what modifies memory reads it first. */
export interface MemoryAccess {
  readonly access: 'read' | 'write';
  readonly address: bigint;
  /** Bytes, 1 to 16. */
  readonly size: number;
  /** What is read, or is to be written, little-endian. */
  readonly value: bigint;
  /** Of the instruction. */
  readonly rip: bigint;
}
/** A number or bigint is read, or written, in place of `value`. 'stop' stops before the instruction; the next run goes over it without asking again. */
export type MemoryHook = (access: MemoryAccess) => HookResult | bigint | number;
/** Before the instruction at `rip`. 'stop' stops before it; the next run goes over it. A hook that changes RIP goes on there. */
export type CodeHook = (rip: bigint) => HookResult;
export interface PortAccess {
  readonly access: 'in' | 'out';
  readonly port: number;
  /** 1, 2 or 4 bytes. */
  readonly size: number;
  /** What OUT writes; 0 for IN. */
  readonly value: number;
}
/** The number that IN reads: nothing is all ones. 'stop' stops after the instruction. */
export type PortHook = (access: PortAccess) => HookResult | number;
/** RDMSR: the value to read; WRMSR (`value` is given): true, it is done. Nothing: the CPU does it itself, which is #GP for an MSR that it does not have. */
// biome-ignore lint/suspicious/noConfusingVoidType: as above
export type MsrHook = (msr: number, value: bigint | undefined) => bigint | true | undefined | void;
/** SYSCALL has been done as far as RIP goes. 'deliver': the CPU jumps to LSTAR as by itself. */
export type SyscallHook = () => HookResult | 'deliver';
/** INT n, INT3, INTO, INT1; the same. 'deliver': through the guest's own table. */
export type InterruptHook = (vector: number) => HookResult | 'deliver';
/** EAX, EBX, ECX, EDX in place of the CPU's own answer. */
// biome-ignore lint/suspicious/noConfusingVoidType: as above
export type CpuidHook = (leaf: number, subleaf: number) => CpuidAnswer | undefined | void;

interface Ranged {
  readonly start: bigint;
  /** After the last byte. */
  readonly end: bigint;
  readonly firstPage: number;
  readonly lastPage: number;
}
export interface MemoryHookEntry extends Ranged {
  readonly reads: boolean;
  readonly writes: boolean;
  readonly call: MemoryHook;
}
export interface CodeHookEntry extends Ranged {
  readonly call: CodeHook;
}

export class Hooks {
  readonly memory = new Set<MemoryHookEntry>();
  readonly code = new Set<CodeHookEntry>();
  readonly ports = new Set<{ readonly call: PortHook }>();
  readonly msrs = new Set<{ readonly call: MsrHook }>();
  readonly syscalls = new Set<{ readonly call: SyscallHook }>();
  readonly interrupts = new Set<{ readonly call: InterruptHook }>();
  readonly cpuids = new Set<{ readonly call: CpuidHook }>();
  /** While instructions of hooked pages run one by one, their pages can be executed. */
  isStepping = false;
  private readonly changed: (pages: readonly number[]) => void;

  /** `changed`: what is withheld from these pages may have changed; none: only hooks of instructions have. */
  constructor(changed: (pages: readonly number[]) => void) {
    this.changed = changed;
  }

  addMemory(range: Range, kinds: 'r' | 'w' | 'rw', call: MemoryHook): () => void {
    if (kinds !== 'r' && kinds !== 'w' && kinds !== 'rw') throw new CpuError('bad-argument', `a memory hook is for 'r', 'w' or 'rw', got '${kinds}'`);
    return this.addRanged(this.memory, { ...toRange(range), reads: kinds !== 'w', writes: kinds !== 'r', call });
  }
  addCode(range: Range, call: CodeHook): () => void {
    return this.addRanged(this.code, { ...toRange(range), call });
  }
  add<T>(to: Set<{ readonly call: T }>, call: T): () => void {
    const entry = { call };
    to.add(entry);
    this.changed([]);
    return () => {
      to.delete(entry);
      this.changed([]);
    };
  }
  private addRanged<T extends Ranged>(to: Set<T>, entry: T): () => void {
    to.add(entry);
    this.changed(pagesOf(entry));
    return () => {
      if (to.delete(entry)) this.changed(pagesOf(entry));
    };
  }

  /** Rights that hooks take from a page. */
  withheld(page: number): number {
    let bits = 0;
    for (const h of this.memory) {
      if (h.firstPage <= page && page <= h.lastPage) bits |= h.reads ? MAY_READ | MAY_WRITE : MAY_WRITE;
    }
    return !this.isStepping && this.isCodePage(page) ? bits | MAY_EXECUTE : bits;
  }
  isCodePage(page: number): boolean {
    for (const h of this.code) if (h.firstPage <= page && page <= h.lastPage) return true;
    return false;
  }
  codePages(): number[] {
    return [...this.code].flatMap((h) => pagesOf(h));
  }
  codeAt(address: bigint): CodeHookEntry[] {
    return [...this.code].filter((h) => h.start <= address && address < h.end);
  }
  memoryAt(address: bigint, size: number, write: boolean): MemoryHookEntry[] {
    return [...this.memory].filter((h) => (write ? h.writes : h.reads) && h.start < address + BigInt(size) && address < h.end);
  }
}

function pagesOf({ firstPage, lastPage }: Ranged): number[] {
  return Array.from({ length: lastPage - firstPage + 1 }, (_, i) => firstPage + i);
}
